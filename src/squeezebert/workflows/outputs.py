"""Where the answers to a table's rows go: standard output, or a file that is whole or not there.

Serves the verbs that answer texts. A run that was cut off goes on where it was.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import sys
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO

from tqdm import tqdm

from squeezebert.files.errors import OptionError
from squeezebert.files.formats import allow_long_cells
from squeezebert.files.lines import RowError
from squeezebert.files.lock import only_run
from squeezebert.files.places import check_place, part_of, place_of

# Hexadecimal digits in the name of an unfinished output, and what it ends in
_KEY = 8
_PART = f"{'[0-9a-f]' * _KEY}.part"


def json_line(row: dict[str, Any]) -> str:
    """Return a row as a line of JSON that UTF-8 can hold: half a surrogate pair becomes JSON's escape for it."""
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace").decode() + "\n"


def check_output(written: str, overwrite: bool, *others: str | None) -> None:
    """As `check_place`, but that - is standard output, and a device can be written to."""
    if written != "-":
        device = _is_device(Path(written))
        check_place(written, overwrite=overwrite or device, others=others, at_once=not device)


@contextmanager
def open_output(name: str, overwrite: bool = True) -> Iterator[TextIO]:
    """Open a file to write lines to, which is there once all are written, or standard output for -.

    Until then they lie beside it, so that a run that ends early leaves an older output as it was. A device, or what
    the process has open already (/dev/stdout), is written to at once. Half a surrogate pair, as in the name of a file
    that is not UTF-8, becomes its escape, which JSON reads.

    Raises `OptionError` where it cannot be written, or is there by now and is not to be replaced; `FolderError` while
    another run writes it.
    """
    if name == "-":
        if hasattr(sys.stdout, "reconfigure"):
            # Whatever the locale says, as files are
            sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
        yield sys.stdout
        sys.stdout.flush()
        return
    if _is_device(Path(name)):
        with _opened(Path(name), name, "a") as stream:  # a file behind it keeps what it has
            yield stream
        return
    path = place_of(name)
    part = part_of(path)
    with _only_writer(path, name, overwrite):
        try:
            with _opened(part, name) as stream:
                _as_before(part, path)
                yield stream
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        part.replace(path)


@contextmanager
def _only_writer(path: Path, name: str, overwrite: bool) -> Iterator[None]:
    """As `only_run`, for a file that may have come since the command looked for it."""
    with only_run(path, launched=False):
        check_place(name, overwrite=overwrite, at_once=False)
        yield


def _is_device(path: Path) -> bool:
    """Whether a name is of a device or pipe, or of a file that the process has open, as /dev/stdout may be."""
    if not path.exists():
        return False
    if not path.is_file():
        return not path.is_dir()
    while path.is_symlink():
        parts = path.parent.resolve().parts
        if parts[1:2] == ("proc",) and parts[-1] == "fd":  # where links lead to what may have no other name
            return True
        path = path.parent / path.readlink()
    return path.parent == Path("/dev/fd")


def _opened(place: Path, output: str, mode: Literal["w", "a"] = "w") -> TextIO:
    try:
        return place.open(mode, encoding="utf-8", errors="backslashreplace", newline="")
    except OSError as error:
        raise OptionError(f"--output {output}: {error.strerror}") from error


def _as_before(part: Path, path: Path) -> None:
    """Give what will replace a file that file's permissions."""
    if path.exists():
        shutil.copymode(path, part)


def watched(stream: TextIO) -> bool:
    """Whether a bar on standard error would be seen, and not between the answers."""
    return sys.stderr.isatty() and not stream.isatty()


@dataclass
class Part:
    """An output under way."""

    stream: TextIO
    """what answers are written to"""
    last: tuple[str, int] | None = None
    """source and line of the last row that an earlier run answered"""
    texts: deque[str | None] = field(default_factory=deque)
    """the texts of all rows that it answered there: the objects of a JSON array may share a line"""

    def is_new(self, source: str, line: int, text: str | None = None) -> bool:
        """Whether a row is still to be answered; asked for each row of the table, in its order.

        Where a row may have no answer, `text` tells it from others of its line that have one.
        """
        if self.last is None:
            return True
        if self.last == (_written(source), line) and text in (None, self.texts[0]):
            self.texts.popleft()
            if not self.texts:
                self.last = None
        return False


@contextmanager
def open_part(
    output: str,
    table: str,
    made_by: Sequence[object],
    *,
    overwrite: bool = True,
    form: Literal["jsonl", "csv"] = "jsonl",
    kept: Callable[[Mapping[str, Any]], None] = lambda row: None,
) -> Iterator[Part]:
    """Open OUTPUT.KEY.part to write the answers to a table's rows to; it becomes OUTPUT behind the last of them.

    Answers have a `source` and a `line`. A run that was cut off goes on behind the last whole answer when it is
    repeated with the same table and `made_by`, the models and options that decide the answers: `kept` gets each answer
    of before. Where the table is no file or folder, nothing goes on, and what was answered until then stays as well.
    What others left unfinished is named. Standard output and devices are written to at once.

    Raises `OptionError` for an output that cannot be written, or is there by now and is not to be replaced, and when
    the last row that was answered did not come; `FolderError` while another run writes the output.
    """
    if output == "-" or _is_device(Path(output)):
        with open_output(output) as stream:
            yield Part(stream)
        return
    path = place_of(output)
    stamp = stamp_of(table, path) or uuid.uuid4().hex
    told = [table, stamp, form, *made_by]
    with _only_writer(path, output, overwrite), _open_kept(path, output, told, form, kept) as part:
        yield part


@contextmanager
def _open_kept(
    path: Path, output: str, told: Sequence[object], form: str, kept: Callable[[Mapping[str, Any]], None]
) -> Iterator[Part]:
    """As `open_part`, of answers that `told` decides."""
    key = hashlib.sha256(json.dumps(told, default=str).encode("utf-8", "backslashreplace")).hexdigest()[:_KEY]
    place = path.with_name(f"{path.name}.{key}.part")
    for other in sorted(path.parent.glob(f"{escape(path.name)}.{_PART}")):
        if other != place:
            said = "unfinished answers to other texts, or of other models or options; delete it unless it is to go on"
            tqdm.write(f"{other}: {said}", file=sys.stderr)
    last, texts, whole = _whole_answers(place, form, kept)
    part = None
    try:
        with _opened(place, output, "a") as stream:
            stream.truncate(whole)
            _as_before(place, path)
            if last is not None:
                tqdm.write(f"{place}: going on behind line {last[1]} of {last[0]}", file=sys.stderr)
            part = Part(stream, last, texts)
            yield part
        if part.last is not None:
            raise OptionError(
                f"{place}: its last answer, to line {part.last[1]} of {part.last[0]}, is to none of these texts: "
                "delete this file to begin anew"
            )
    except BaseException as error:
        if place.is_file() and not place.stat().st_size:
            place.unlink()
        elif part is not None and part.last is None:
            more = "; the same command goes on behind it"
            if isinstance(error.__cause__, RowError):  # mended, it is another table
                more = "; the same command with --skip-bad-rows goes on behind it"
            if isinstance(told[1], str):  # a stream comes but once
                more = ""
            tqdm.write(f"{place}: what was answered so far{more}", file=sys.stderr)
        raise
    place.replace(path)


def _written(source: str) -> str:
    """The name of a table as an output holds it, which is UTF-8 whatever the name is."""
    return source.encode("utf-8", "backslashreplace").decode()


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
) -> tuple[tuple[str, int] | None, deque[str | None], int]:
    """The source and line of the last whole answer in a file, the texts answered there, and the bytes to its end."""
    last, whole = None, 0
    texts: deque[str | None] = deque()
    if not place.is_file():
        return last, texts, whole
    try:
        with place.open("rb") as file:
            for row, end in _csv_rows(file) if form == "csv" else _json_rows(file):
                at = (_written(row["source"]), int(row["line"]))
                kept(row)
                if at != last:
                    texts = deque()
                texts.append(row.get("text"))
                last, whole = at, end
    except (ValueError, TypeError, KeyError, csv.Error):  # what a crash of the machine left: answers end before it
        pass
    return last, texts, whole


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
