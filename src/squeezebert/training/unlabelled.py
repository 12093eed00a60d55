"""A dense checkpoint and text without labels in, the text in its tokens out. Serves `squeeze` and `search`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from squeezebert.data.corpus import Corpus, tokenise_corpus
from squeezebert.files.errors import OptionError
from squeezebert.training.rescore import held_out_texts

Report = Callable[[str], None]


class TextPlaces(Protocol):
    """What a command was told of its checkpoint and its text."""

    @property
    def checkpoint(self) -> str:
        """Folder or Hub id of the dense model."""

    @property
    def text(self) -> list[str]:
        """Text files, folders or tables."""

    @property
    def column(self) -> str | None:
        """Column of the text in a table."""

    @property
    def encoding(self) -> str:
        """Encoding of text files."""

    @property
    def max_length(self) -> int:
        """Tokens of a sequence, at most."""


def read_text(places: TextPlaces, tokenizer: Any, config: Any, folder: Path, seed: int, report: Report) -> Corpus:
    """Return the tokens of a text without labels, for a dense model of `config`, made in `folder` or found there.

    The rows that the checkpoint is evaluated on are left out. Raises what `tokenise_corpus` raises, and `OptionError`
    for pairs of texts that the model does not know.
    """
    evaluated = held_out_texts(Path(places.checkpoint))
    corpus = tokenise_corpus(
        places.text,
        tokenizer,
        folder,
        max_length=min(places.max_length, config.max_position_embeddings),
        text=places.column,
        encoding=places.encoding,
        seed=seed,
        vocab_size=config.vocab_size,
        leave_out=evaluated,
        report=report,
    )
    left_out = corpus.manifest.get("left_out", 0)  # one that an earlier version tokenised has no such line
    if left_out:
        report(f"{left_out} texts are left out: {places.checkpoint} is evaluated on them")
    if corpus.firsts is not None and config.type_vocab_size < 2:
        raise OptionError(
            f"--text: it has pairs of texts, and {places.checkpoint} knows one text at a time (type_vocab_size "
            f"{config.type_vocab_size}): give texts alone, or name one column with --column"
        )
    return corpus
