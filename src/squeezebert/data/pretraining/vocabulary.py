"""Paragraphs in, a WordPiece tokenizer out. Serves `shards.py`; the training is the `tokenizers` library's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertTokenizer

from squeezebert.files.errors import OptionError

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_MOST_CHARACTERS = 1000


def train_vocabulary(
    paragraphs: Callable[[], Iterable[str]], size: int, *, lowercase: bool, max_length: int = 512
) -> Any:
    """Train a WordPiece vocabulary of `size` entries; return it as transformers' tokenizer, always the same.

    `paragraphs` is called twice, and gives the same text each time. Normalisation and splitting are BERT's.
    Raises `OptionError` when the characters of the text leave no room for pieces.
    """
    tokenizer = _bert(models.WordPiece({}, unk_token=SPECIALS[1]), lowercase)
    counts: Counter[str] = Counter()
    for paragraph in paragraphs():
        counts.update(tokenizer.normalizer.normalize_str(paragraph))
    characters = sorted(char for char in counts if not char.isspace())
    if len(characters) > _MOST_CHARACTERS:
        characters = sorted(sorted(characters, key=lambda char: -counts[char])[:_MOST_CHARACTERS])
    # The library numbers what continues a word in the order of a hash table, and breaks ties by these numbers: as
    # special tokens they have an order of their own
    inside = [f"##{char}" for char in characters]
    if len(SPECIALS) + 2 * len(characters) >= size:
        raise OptionError(
            f"--vocabulary-size {size}: the {len(characters)} characters of the text, alone and inside words, leave "
            "no room for pieces: ask for more entries"
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=2,
        limit_alphabet=len(characters),
        initial_alphabet=characters,
        special_tokens=[*SPECIALS, *inside],
        show_progress=False,
    )
    tokenizer.train_from_iterator(paragraphs(), trainer=trainer)
    # Numbered as is usual: special tokens, characters, pieces in the order in which they were found
    found = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    first = [*SPECIALS, *characters, *inside]
    known = set(first)
    pieces = [*first, *(piece for piece, _ in found if piece not in known)]
    made = _bert(
        models.WordPiece({piece: place for place, piece in enumerate(pieces)}, unk_token=SPECIALS[1]), lowercase
    )
    places = {name: pieces.index(name) for name in SPECIALS}
    made.post_processor = processors.BertProcessing(("[SEP]", places["[SEP]"]), ("[CLS]", places["[CLS]"]))
    return BertTokenizer(tokenizer_object=made, do_lower_case=lowercase, model_max_length=max_length)


def _bert(model: Any, lowercase: bool) -> Tokenizer:
    """A tokenizer that normalises and splits as BERT's."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def check_specials(tokenizer: Any, name: str) -> None:
    """Raise `OptionError` for a tokenizer without the special tokens that masking and pairs need."""
    missing = [kind for kind in ("pad", "cls", "sep", "mask") if getattr(tokenizer, f"{kind}_token_id", None) is None]
    if missing:
        told = ", ".join(f"[{kind.upper()}]" for kind in missing)
        raise OptionError(
            f"--vocabulary {name}: it has no {told}, which masked language modelling needs: take a vocabulary of "
            "BERT's kind, or leave the option out to train one"
        )
