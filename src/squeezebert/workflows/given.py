"""What a person gave to be read, a text itself or the name of a table of texts, as a stream of examples.

Serves `complete` and `check`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from squeezebert.data.options import DataOptions
from squeezebert.data.reading import Example, read_examples
from squeezebert.files.errors import OptionError, SqueezeBertError, TableError
from squeezebert.files.tables import OnSkip, RowError, skip_or_raise
from squeezebert.workflows.outputs import check_output, json_line, open_part, watched

# Names that end so are of tables and text files, whether they are there or not
_ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".ndjson", ".txt", ".parquet", ".gz")

# What is longer is a sentence that ends in a file's name
_WORDS_OF_A_NAME = 4


@dataclass(frozen=True)
class Given:
    """What is to be read, and how."""

    texts: str
    """a text, the name of a table or text file, or - for standard input"""
    column: str | None
    """column of the text in a table"""
    encoding: str
    """of a text file"""
    skip_bad_rows: bool
    """whether rows that cannot be used are passed over"""

    @property
    def is_table(self) -> bool:
        """Whether it names a table, and is no text itself."""
        return self.texts == "-" or (self.texts.strip() != "" and _exists(self.texts))

    def examples(self, on_skip: OnSkip) -> Iterator[Example]:
        """Stream the texts: a text typed as such is a table of one row. Raises `TableError` and `OptionError`."""
        if not self.is_table:
            if self.texts.count(" ") < _WORDS_OF_A_NAME and self.texts.lower().endswith(_ENDINGS):
                raise TableError(f"{self.texts}: no such file; a text that ends so is read from standard input")
            if not self.texts.strip():
                raise OptionError("an empty text: give one, or the name of a table")
            yield Example(self.texts, None, None, "text", 1)
            return
        reading = DataOptions(text=self.column, encoding=self.encoding, skip_bad_rows=self.skip_bad_rows)
        for example in read_examples(self.texts, reading, on_skip=on_skip):
            if example.text_pair is not None:
                raise OptionError(f"{example.place}: single texts are read here: name their column, --text")
            yield example


def answer_texts(
    given: Given,
    output: str,
    overwrite: bool,
    answer: Callable[[Example], dict[str, Any]],
    made_by: Sequence[object],
) -> list[TableError]:
    """Write what `answer` makes of each text as a JSON line, flushed at once; return the rows that were skipped.

    A run that was cut off goes on when it is repeated with the same texts and `made_by`, the models and options that
    decide the answers (`open_part`). A text that `answer` refuses is a bad row. Raises as `Given.examples` does, and
    `OptionError` for an output that cannot be written.
    """
    check_output(output, overwrite, given.texts)
    skipped: list[TableError] = []
    examples = given.examples(skipped.append)
    first = next(examples, None)  # what is wrong with a table is said before the output is opened
    if first is None:
        raise TableError(f"{given.texts}: no usable rows")
    table = given.texts if given.is_table else "-"
    answered: Counter[tuple[object, ...]] = Counter()

    def kept(row: Mapping[str, Any]) -> None:
        answered[row["source"], row["line"], row["text"]] += 1

    told = [given.column, given.encoding, *made_by]
    with open_part(output, table, told, overwrite=overwrite, kept=kept) as part:
        quiet = None if output != "-" else not watched(part.stream)
        for example in tqdm(_all(first, examples), unit=" texts", disable=quiet):
            if not part.is_new(example.source, example.line, example.text):
                written = json.loads(json_line({"row": [example.source, example.line, example.text]}))["row"]
                answered[tuple(written)] -= 1
                if answered[tuple(written)] < 0:
                    skipped.append(RowError(example.source, example.line, "cannot be answered", "as before"))
                continue
            try:
                found = answer(example)
            except SqueezeBertError as error:
                if not given.is_table:
                    raise
                bad = RowError(example.source, example.line, "cannot be answered", str(error))
                skip_or_raise(bad, given.skip_bad_rows, skipped.append)
                continue
            row = {"source": example.source, "line": example.line, "text": example.text, **found}
            part.stream.write(json_line(row))
            part.stream.flush()
    return skipped


def _all(first: Example, others: Iterator[Example]) -> Iterator[Example]:
    yield first
    yield from others


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # too long for a name, or with a NUL
        return False
