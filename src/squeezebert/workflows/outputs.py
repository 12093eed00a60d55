"""Where the answers to a table's rows go: standard output, or a file that is whole or not there.

Serves the verbs that answer texts. A run that was cut off goes on where it was.
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO

from tqdm import tqdm

from squeezebert.files.errors import OptionError
from squeezebert.files.formats import allow_long_cells
from squeezebert.files.places import check_place

# Hexadecimal digits in the name of an unfinished output, and what it ends in
_KEY = 8
_PART = f"{'[0-9a-f]' * _KEY}.part"


def json_line(row: dict[str, Any]) -> str:
    """Return a row as a line of JSON that UTF-8 can hold: half a surrogate pair becomes JSON's escape for it."""
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace").decode() + "\n"


def check_output(written: str, overwrite: bool, *others: str | None) -> None:
    """As `check_place`, but that - is standard output, and a device can be written to."""
    if written != "-":
        check_place(written, overwrite=overwrite, others=others, at_once=False)


@contextmanager
def open_output(name: str, append: bool = False) -> Iterator[TextIO]:
    """Open a file to write lines to, anew or behind what is there, or standard output for -.

    Raises `OptionError` where it cannot be written. Half a surrogate pair, as in the name of a file that is not
    UTF-8, becomes its escape, which JSON reads.
    """
    if name == "-":
        if hasattr(sys.stdout, "reconfigure"):
            # Whatever the locale says, as files are
            sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
        yield sys.stdout
        sys.stdout.flush()
        return
    path = Path(name)
    try:
        stream = path.open("a" if append else "w", encoding="utf-8", errors="backslashreplace", newline="")
    except OSError as error:
        raise OptionError(f"--output {name}: {error.strerror}") from error
    with stream:
        yield stream


def watched(stream: TextIO) -> bool:
    """Whether a bar on standard error would be seen, and not between the answers."""
    return sys.stderr.isatty() and not stream.isatty()


@dataclass
class Part:
    """An output under way."""

    stream: TextIO
    """what answers are written to"""
    last: tuple[str, int] | None
    """source and line of the last row that an earlier run answered"""

    def is_new(self, source: str, line: int) -> bool:
        """Whether a row is still to be answered; asked for each row of the table, in its order."""
        if self.last is None:
            return True
        if self.last == (source, line):
            self.last = None
        return False


@contextmanager
def open_part(
    output: str,
    table: str,
    made_by: Sequence[object],
    *,
    form: Literal["jsonl", "csv"] = "jsonl",
    kept: Callable[[Mapping[str, Any]], None] = lambda row: None,
) -> Iterator[Part]:
    """Open OUTPUT.KEY.part to write the answers to a table's rows to; it becomes OUTPUT behind the last of them.

    Answers have a `source` and a `line`. A run that was cut off goes on behind the last whole answer when it is
    repeated with the same table and `made_by`, the models and options that decide the answers: `kept` gets each answer
    of before. Standard output, a device, and the answers to what is no file or folder are written at once.

    Raises `OptionError` for an output that cannot be written, and when the last row that was answered did not come.
    """
    path = Path(output)
    at_once = "-" in (output, table) or (path.exists() and not path.is_file())
    stamp = None if at_once else stamp_of(table, path)
    if stamp is None:
        with open_output(output) as stream:
            yield Part(stream, None)
        return
    told = [table, stamp, form, *made_by]
    key = hashlib.sha256(json.dumps(told, default=str).encode("utf-8", "backslashreplace")).hexdigest()[:_KEY]
    place = path.with_name(f"{path.name}.{key}.part")
    last, whole = _whole_answers(place, form, kept)
    part = None
    try:
        with open_output(str(place), append=True) as stream:
            stream.truncate(whole)
            if last is not None:
                tqdm.write(f"{place}: going on behind line {last[1]} of {last[0]}", file=sys.stderr)
            part = Part(stream, last)
            yield part
        if part.last is not None:
            raise OptionError(f"{place}: goes on behind a text that is not there any more: delete this file")
    except BaseException:
        if place.is_file() and not place.stat().st_size:
            place.unlink()
        elif part is not None and part.last is None:
            tqdm.write(f"{place}: what was answered so far; the same command goes on behind it", file=sys.stderr)
        raise
    place.replace(path)
    # What other texts or options left unfinished under this name is nobody's any more
    for other in path.parent.glob(f"{escape(path.name)}.{_PART}"):
        other.unlink(missing_ok=True)


def stamp_of(name: str, output: Path | None = None) -> list[tuple[str, int, int]] | None:
    """What changes when a file, or one in a folder, does: names, sizes and times; None for what is neither.

    An output in that folder, and what is on its way to become it, is passed over.
    """
    try:
        place = Path(name)
        files = sorted(one for one in place.rglob("*") if one.is_file()) if place.is_dir() else [place]
        if output is not None:
            own = output.resolve()
            parts = {own, *own.parent.glob(f"{escape(own.name)}.{_PART}")}
            files = [one for one in files if one.resolve() not in parts]
        states = [(str(one), one.stat()) for one in files if one.is_file()]
    except (OSError, ValueError):  # too long for a name, with a NUL, or not ours to read
        return None
    return [(one, state.st_size, state.st_mtime_ns) for one, state in states] or None


def _whole_answers(
    place: Path, form: str, kept: Callable[[Mapping[str, Any]], None]
) -> tuple[tuple[str, int] | None, int]:
    """The source and line of the last whole answer in a file, and the bytes to its end."""
    if not place.is_file():
        return None, 0
    last, whole = None, 0
    try:
        with place.open("rb") as file:
            for row, end in _csv_rows(file) if form == "csv" else _json_rows(file):
                place_of = (row["source"], int(row["line"]))
                kept(row)
                last, whole = place_of, end
    except (ValueError, TypeError, KeyError, csv.Error):  # what a crash of the machine left: answers end before it
        pass
    return last, whole


def _json_rows(file: BinaryIO) -> Iterator[tuple[dict[str, Any], int]]:
    end = 0
    for line in file:
        if not line.endswith(b"\n"):
            return
        end += len(line)
        yield json.loads(line), end


def _csv_rows(file: BinaryIO) -> Iterator[tuple[dict[str, Any], int]]:
    """Rows below the header; a cell may hold line breaks, so that one is whole when it has all its cells."""
    end, ends_line = 0, True

    def lines() -> Iterator[str]:
        nonlocal end, ends_line
        for line in file:
            end, ends_line = end + len(line), line.endswith(b"\n")
            yield line.decode()

    allow_long_cells()
    reader = csv.reader(lines())
    header = next(reader, [])
    for cells in reader:
        if len(cells) != len(header) or not ends_line:
            return
        yield dict(zip(header, cells, strict=True)), end
