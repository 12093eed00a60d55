"""Lines of CSV, TSV, JSON, JSON lines or plain text in, rows of named values out; serves `files.tables`.

Every reader yields a `Row` or, in the place of a row it cannot read, a `RowError`; what makes the whole file
unreadable is raised.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice

from squeezebert.files.errors import TableError
from squeezebert.files.lines import STDIN, Lines, RowError, open_bytes


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table, with the place it came from."""

    values: Mapping[str, object]
    """Column name to cell; cells of CSV and TSV are strings, of the other formats what they hold."""
    source: str
    """The file, dataset or "standard input" the row was read from."""
    line: int
    """1-based line where the row starts; for Parquet and datasets the 1-based row number."""


RowOrError = Row | RowError


def allow_long_cells() -> None:
    """Let `csv` read texts of more than 128 KB, which it refuses by default."""
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))


def read_format(source: str, suffix: str, encoding: str, odd: bool = False) -> Iterator[RowOrError]:
    """Read a text file of the format that `suffix` names: .csv, .tsv, .jsonl, .ndjson, .json or .txt.

    With `odd`, NULs and the control characters that JSON has escapes for are text.
    """
    allow_long_cells()
    quoted = suffix != ".tsv" or _tsv_uses_quotes(source, encoding)
    with open_bytes(source) as stream:
        lines = Lines(stream, source, encoding, odd)
        if suffix in (".csv", ".tsv"):
            yield from _delimited(lines, "\t" if suffix == ".tsv" else None, quoted)
        elif suffix == ".txt":
            yield from _text(lines, lines)
        elif suffix == ".json":
            first, rest = _from_first_text(lines)
            is_array = first.startswith("[")
            yield from _json_array(rest, lines, lines.number) if is_array else _json_lines(rest, lines)
        else:
            yield from _json_lines(lines, lines)


def read_stdin(encoding: str, odd: bool = False) -> Iterator[RowOrError]:
    """Read standard input: JSON lines if the first non-blank line starts with `{`, else one text a line."""
    with open_bytes(STDIN) as stream:
        lines = Lines(stream, STDIN, encoding, odd)
        first, rest = _from_first_text(lines)
        yield from _json_lines(rest, lines) if first.startswith("{") else _text(rest, lines)


def _from_first_text(lines: Lines) -> tuple[str, Iterator[str]]:
    """The first line that is not blank, stripped, and the lines from it on; `lines.number` is its number."""
    iterator = iter(lines)
    for line in iterator:
        if line.strip():
            return line.strip(), chain([line], iterator)
    return "", iterator


# --- plain text and JSON ------------------------------------------------------------------------------


def _text(text_lines: Iterable[str], lines: Lines) -> Iterator[RowOrError]:
    for line in text_lines:
        problem = lines.take_problem()
        if problem:
            yield problem
        elif line.strip():
            yield Row({"text": line.rstrip("\r\n")}, lines.source, lines.number)


def _json_lines(text_lines: Iterable[str], lines: Lines) -> Iterator[RowOrError]:
    for line in text_lines:
        problem = lines.take_problem()
        if problem:
            yield problem
        elif line.strip():
            try:
                value = json.loads(line, strict=not lines.odd)
            except json.JSONDecodeError as error:
                detail = f"{error.msg} at column {error.colno}"
                yield RowError(lines.source, lines.number, "invalid JSON", f"{detail}; each line is one object")
            except (ValueError, RecursionError) as error:  # a number of 5,000 digits, brackets 5,000 deep
                yield RowError(lines.source, lines.number, "invalid JSON", str(error))
            else:
                yield _object_row(value, lines.source, lines.number)


def _json_array(text_lines: Iterable[str], lines: Lines, line: int) -> Iterator[RowOrError]:
    """Objects of one JSON array that starts at `line`. It is held in memory as a whole; JSON lines stream."""
    text = "".join(text_lines)
    if lines.problem:
        raise TableError(str(lines.problem))
    decoder, space = json.JSONDecoder(strict=not lines.odd), re.compile(r"\s*")
    counted = 0  # `line` is the line number of this position

    def after_space(position: int) -> int:
        found = space.match(text, position)
        return found.end() if found else position

    def broken(position: int, cause: str) -> TableError:
        return TableError(f"{lines.source}:{line + text.count(chr(10), counted, position)}: invalid JSON: {cause}")

    position = after_space(text.index("[") + 1)
    closed = text.startswith("]", position)
    while not closed:
        line, counted = line + text.count("\n", counted, position), position
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise broken(error.pos, f"{error.msg} at column {error.colno}") from error
        except (ValueError, RecursionError) as error:
            raise broken(position, str(error)) from error
        yield _object_row(value, lines.source, line)
        position = after_space(position)
        closed = text.startswith("]", position)
        if not closed:
            if not text.startswith(",", position):
                raise broken(position, "expected ',' or ']' after an object of the array")
            position = after_space(position + 1)
    position = after_space(position + 1)
    if position < len(text):
        raise broken(position, "more text after the end of the array")


def _object_row(value: object, source: str, line: int) -> RowOrError:
    if isinstance(value, dict):
        return Row(value, source, line)
    return RowError(source, line, "not a JSON object", f'expected {{"text": ...}}, got {str(value)[:40]!r}')


# --- CSV and TSV --------------------------------------------------------------------------------------


def _delimited(lines: Lines, delimiter: str | None, quoted: bool) -> Iterator[RowOrError]:
    """Rows of a CSV or TSV with a header line; blank lines are not rows.

    Without a `delimiter` it is the comma, or the semicolon or tab of a header that has no comma (spreadsheets
    of half of Europe write semicolons). Quoting is strict, so that a stray quote is found where it stands.
    """
    pending: list[str] = []  # the physical lines of the row being read

    def feed() -> Iterator[str]:
        for line in first_lines:
            pending.append(line)
            yield line

    first, first_lines = _from_first_text(lines)
    delimiter = delimiter or next((mark for mark in ",;\t" if mark in first), ",")
    reader = csv.reader(
        feed(), delimiter=delimiter, strict=True, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    )
    header: list[str] | None = None
    start = lines.number
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            broken = _csv_error(lines, start, pending, delimiter, str(error))
            if header is None:
                raise TableError(str(broken)) from error
            lines.take_problem()
            yield broken
            fields = []
        if fields is None:
            return
        problem = lines.take_problem() if lines.problem else None
        if header is None:
            if problem:
                raise TableError(str(problem))
            header = _header(fields, lines.source, start)
        elif problem:
            yield problem
        elif len(fields) == len(header):
            yield Row(dict(zip(header, fields, strict=True)), lines.source, start)
        elif fields:
            detail = f"expected {len(header)} as in the header, got {len(fields)}"
            if not quoted and any('"' in line for line in pending):
                detail += "; quotes are ordinary characters in this .tsv, so save it as .csv if they quote"
            yield RowError(lines.source, start, "wrong number of fields", detail, lines.number)
        pending.clear()
        start = lines.number + 1


def _header(fields: list[str], source: str, line: int) -> list[str]:
    """Column names of a header line; the first may be blank beside others, as pandas names its index."""
    names = [name.strip() for name in fields]
    where = f"{source}:{line}"
    for number, name in enumerate(names, start=1):
        if not name and (number > 1 or len(names) == 1):
            raise TableError(
                f"{where}: column {number} of the header has no name; if the file has no header line, "
                "add one that names the columns, e.g. text,label"
            )
        if name in names[: number - 1]:
            both = f"columns {names.index(name) + 1} and {number}"
            raise TableError(f"{where}: duplicate column name {name!r} ({both}); rename one")
    return names


def _csv_error(lines: Lines, start: int, pending: list[str], delimiter: str, cause: str) -> RowError:
    """What the csv module stumbled over, as the error of one row; raised if no row follows it."""
    if "unexpected end" in cause:
        # read leniently, the last field is the one left open: its line breaks lead back to its quote
        last = list(csv.reader(pending, delimiter=delimiter))[-1][-1]
        opened = lines.number - last.count("\n") + last.endswith("\n")
        raise TableError(
            f"{lines.source}:{opened}: unterminated quote: the quote opened on this line is never closed; "
            'close it, or write it twice ("") if it is part of the text'
        )
    if "new-line character" in cause:
        detail = "a carriage return inside a field that is not quoted"
    else:
        detail = 'text after a closing quote; a quote inside a quoted field is written twice ("")'
    return RowError(lines.source, start, "bad quoting", detail, lines.number)


def _tsv_uses_quotes(source: str, encoding: str) -> bool:
    """Whether the first 1,000 lines of a TSV quote fields as a CSV does.

    Quotes are ordinary characters in most TSV files of language data (GLUE's, for one), where a field may
    begin with one that never closes. So they count as quoting only if the lines parse strictly that way and
    either every name in the header is quoted, or a quote is doubled inside a quoted field, or only quoting
    gives all lines the same number of fields (quoted tabs and line breaks).
    """
    with open_bytes(source) as stream:
        sample = [line for line in islice(Lines(stream, source, encoding), 1000) if line.strip()]
    text = "".join(sample)
    if '"' not in text:
        return False
    rows: list[list[str]] = []
    try:
        rows.extend(csv.reader(sample, delimiter="\t", strict=True))
    except csv.Error as error:
        if "unexpected end" not in str(error) or len(sample) < 1000:
            return False  # (a sample may end inside a row)
    if len({len(row) for row in rows}) != 1:
        return False
    if all(len(name) > 1 and name[0] == name[-1] == '"' for name in sample[0].rstrip("\r\n").split("\t")):
        return True
    if len({line.count("\t") for line in sample}) > 1:
        return True
    doubled = (field.replace('"', '""') for row in rows for field in row if '"' in field)
    return any(f'"{field}"' in text for field in doubled)
