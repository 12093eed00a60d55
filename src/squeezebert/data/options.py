"""What the user says about a table of labelled text, as a dataclass; light enough for `--help`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from squeezebert.files.errors import OptionError

Task = Literal["single_label", "multi_label", "regression"]
TaskOption = Literal["auto", "single_label", "multi_label", "regression"]


@dataclass(frozen=True)
class DataOptions:
    """Which columns of a table are text and label, what the labels mean, and how to evaluate."""

    text: str | None = None
    """Column of the text. Found by its name (text, sentence, message, ...) when not given."""
    text_pair: str | None = None
    """Column of the second text, for tasks on pairs. Found beside `sentence1`, `premise` and the like."""
    label: str | None = None
    """Column of the label, or several 0/1 columns separated by commas, each a label that may apply."""
    task: TaskOption = "auto"
    """What a label is: one of several, any number of several, or a number. Auto looks at the labels."""
    eval: str | None = None
    """File, folder or dataset of evaluation rows, with the same columns as the training table."""
    eval_fraction: float = 0.1
    """Share of the distinct texts held out for evaluation when no evaluation rows are given."""
    label_separator: str | None = None
    """What separates the labels in a cell that names several, e.g. "|"."""
    encoding: str = "utf-8"
    """Encoding of text files; a byte-order mark in a file outranks it."""
    skip_bad_rows: bool = False
    """Pass over and count rows that cannot be used, instead of stopping at the first."""
    split_seed: int = 0
    """Seed of the random split into training and evaluation rows."""

    def __post_init__(self) -> None:
        if self.task not in get_args(TaskOption):
            raise OptionError(f"--task {self.task}: expected one of {', '.join(get_args(TaskOption))}")
        if not 0 < self.eval_fraction < 1:
            raise OptionError(f"--eval-fraction {self.eval_fraction}: expected a number between 0 and 1")
        if self.label_separator == "":
            raise OptionError("--label-separator '': expected at least one character")
        if self.label_separator is not None and self.task not in ("auto", "multi_label"):
            raise OptionError(f"--label-separator: a row has one label when --task is {self.task}")
        if self.split_seed < 0:
            raise OptionError(f"--split-seed {self.split_seed}: expected 0 or more")


@dataclass(frozen=True)
class CorpusOptions:
    """How text becomes a corpus to pretrain on."""

    vocabulary: str | None = None
    """Tokenizer to use, a folder or a Hub id of BERT's kind; by default one is trained on the text."""
    vocabulary_size: int = 30_522
    """Entries of a vocabulary that is trained."""
    vocabulary_megabytes: float = 256.0
    """Text that a vocabulary is trained on, an even sample of the documents."""
    lowercase: bool = True
    """Whether a vocabulary that is trained makes no difference between upper and lower case."""
    held_out: float = 0.03
    """Share of the documents that are held out to measure on, as in the paper."""
    shortest: int = 20
    """Words of the shortest document that is kept."""
    column: str | None = None
    """Column of the text in a table, found by its name when not given."""
    encoding: str = "utf-8"
    """Encoding of text files; a byte-order mark in a file outranks it."""
    shard_tokens: int = 16_000_000
    """Tokens of a shard, about: what a run that is cut off can lose."""
    seed: int = 0
    """Seed of the choice of held-out documents."""
    workers: int = 2
    """Processes that clean and tokenise."""
    overwrite: bool = False
    """Replace another corpus that the output folder holds."""

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise OptionError(f"--held-out {self.held_out}: expected a number between 0 and 1")
        if self.vocabulary_size < 50:
            raise OptionError(f"--vocabulary-size {self.vocabulary_size}: expected 50 or more")
        for field in ("vocabulary_megabytes", "shard_tokens", "workers", "shortest"):
            if not getattr(self, field) > 0:
                raise OptionError(f"--{field.replace('_', '-')} {getattr(self, field)}: expected more than 0")
        if self.seed < 0:
            raise OptionError(f"--seed {self.seed}: expected 0 or more")


def check_sources(text: Sequence[str]) -> None:
    """Raise `OptionError` for no source of text, and for an empty name, as of a shell's variable that is not set."""
    if not text or not all(source.strip() for source in text):
        raise OptionError("--text: name at least one file or folder" if not text else "--text: an empty name")
