"""What a person gave to be read, a text itself or the name of a table of texts, as a stream of examples.

Serves `complete` and `check`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from squeezebert.data.options import DataOptions
from squeezebert.data.reading import Example, read_examples
from squeezebert.files.errors import OptionError, SqueezeBertError, TableError
from squeezebert.files.tables import OnSkip, RowError, skip_or_raise
from squeezebert.workflows.predict import check_output, json_line, open_output, watched

# Names that end so are of tables and text files, whether they are there or not
_ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".ndjson", ".txt", ".parquet", ".gz")

# Hexadecimal digits in the name of an unfinished output
_KEY = 8
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

    Lines for a file go into OUTPUT.KEY.part until the last one is there. A run that was cut off goes on behind the
    last whole line of it when it is repeated with the same texts and `made_by`, the models and options that decide the
    answers. A text that `answer` refuses is a bad row. Raises as `Given.examples` does, and `OptionError` for an
    output that cannot be written.
    """
    check_output(output, overwrite, given.texts)
    skipped: list[TableError] = []
    examples = given.examples(skipped.append)
    first = next(examples, None)  # what is wrong with a table is said before the output is opened
    if first is None:
        raise TableError(f"{given.texts}: no usable rows")
    with _open_part(given, output, made_by) as (stream, answered):
        behind = answered is None
        quiet = None if output != "-" else not watched(stream)
        for example in tqdm(_all(first, examples), unit=" texts", disable=quiet):
            if not behind:
                behind = (example.source, example.line) == answered
                continue
            try:
                told = answer(example)
            except SqueezeBertError as error:
                if not given.is_table:
                    raise
                bad = RowError(example.source, example.line, "cannot be answered", str(error))
                skip_or_raise(bad, given.skip_bad_rows, skipped.append)
                continue
            row = {"source": example.source, "line": example.line, "text": example.text, **told}
            stream.write(json_line(row))
            stream.flush()
        if not behind:
            raise OptionError(f"{stream.name}: goes on behind a text that is not there any more: delete this file")
    return skipped


@contextmanager
def _open_part(
    given: Given, output: str, made_by: Sequence[object]
) -> Iterator[tuple[TextIO, tuple[str, int] | None]]:
    """What answers are written to, and the source and line of the last text that was answered before."""
    path = Path(output)
    if output == "-" or not given.is_table or given.texts == "-" or (path.exists() and not path.is_file()):
        with open_output(output) as stream:
            yield stream, None
        return
    table = Path(given.texts).stat()
    told = [given.texts, given.column, given.encoding, table.st_size, table.st_mtime_ns, *made_by]
    key = hashlib.sha256(json.dumps(told, default=str).encode("utf-8", "backslashreplace")).hexdigest()[:_KEY]
    part = path.with_name(f"{path.name}.{key}.part")
    last, whole = _whole_lines(part)
    with open_output(str(part), append=True) as stream:
        stream.truncate(whole)
        if last is not None:
            tqdm.write(f"{part}: going on behind line {last[1]} of {last[0]}", file=sys.stderr)
        yield stream, last
    part.replace(path)
    # What other texts or options left unfinished under this name is nobody's any more
    for other in path.parent.glob(f"{escape(path.name)}.{'[0-9a-f]' * _KEY}.part"):
        other.unlink(missing_ok=True)


def _whole_lines(part: Path) -> tuple[tuple[str, int] | None, int]:
    """The source and line of the last whole answer in a file, and the bytes to its end."""
    last, whole = None, 0
    if not part.is_file():
        return None, 0
    with part.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            last, whole = line, whole + len(line)
    try:
        row = json.loads(last or b"")
        return (row["source"], row["line"]), whole
    except (ValueError, TypeError, KeyError):  # nothing yet, or what a crash of the machine left
        return None, 0


def _all(first: Example, others: Iterator[Example]) -> Iterator[Example]:
    yield first
    yield from others


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # too long for a name, or with a NUL
        return False
