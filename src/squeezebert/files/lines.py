"""Bytes of a text file in, decoded and numbered physical lines out; for the table formats next door.

A badly encoded line never stops the reading: it is kept as a problem of the row it belongs to.
"""

from __future__ import annotations

import codecs
import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Any, cast

from squeezebert.files.errors import OptionError, TableError

STDIN = "-"

# byte-order mark -> encoding; UTF-32 first, because its little-endian mark begins with UTF-16's
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class RowError(TableError):
    """One row that cannot be used; the rows after it can, so it may be skipped.

    `reason` is the kind of problem in a few words (what a report counts by), `line` the 1-based line where
    the row starts.
    """

    def __init__(self, source: str, line: int, reason: str, detail: str = "", last_line: int | None = None):
        self.source, self.line, self.reason = source, line, reason
        place = f"{source}:{line}" if last_line in (None, line) else f"{source}: lines {line} to {last_line}"
        super().__init__(f"{place}: {reason}" + (f": {detail}" if detail else ""))


class StrayFile(TableError):
    """A file of a folder of texts that belongs to no label: reported, never read, never a reason to stop."""


def open_bytes(source: str) -> AbstractContextManager[IO[bytes]]:
    """Open a file (`.gz` is unpacked on the way) or standard input (`-`) for reading bytes.

    Raises:
        TableError: the file cannot be opened.
    """
    if source == STDIN:
        return nullcontext(sys.stdin.buffer)
    try:
        if source.lower().endswith(".gz"):
            return cast(AbstractContextManager[IO[bytes]], gzip.open(source, "rb"))
        return Path(source).open("rb")
    except OSError as error:
        raise TableError(f"{source}: cannot be opened: {error.strerror or error}") from error


def read_document(source: str, encoding: str = "utf-8") -> str:
    """Return all text of a file (`.gz` is unpacked) or of standard input (`-`), its line ends as they are.

    Raises:
        TableError: it cannot be opened, is badly encoded, or holds a NUL byte.
    """
    with open_bytes(source) as stream:
        lines = Lines(stream, source, encoding)
        text = "".join(lines)
        if (problem := lines.take_problem()) is not None:
            raise TableError(str(problem))
        return text


class Lines:
    """The physical lines of one text file, decoded, with their line ends; iterate once.

    `number` is the 1-based number of the line last handed out, `problem` the first problem met since
    `take_problem` was last called. A byte-order mark decides the encoding, whatever was asked for. Lines end
    with a line feed, so a lone carriage return is text, except in a file that has no other line end. A NUL is a
    problem unless `odd` text is asked for.
    """

    def __init__(self, stream: IO[bytes], source: str, encoding: str, odd: bool = False):
        self.source = "standard input" if source == STDIN else source
        self.encoding = encoding
        self.odd = odd
        self.marked = False
        self.number = 0
        self.problem: RowError | None = None
        self._given = stream

    def take_problem(self) -> RowError | None:
        """The first problem since the last call, which is thereby settled."""
        problem, self.problem = self.problem, None
        return problem

    def __iter__(self) -> Iterator[str]:
        wrapped = None if hasattr(self._given, "peek") else io.BufferedReader(self._given)  # type: ignore[type-var]
        stream: Any = wrapped or self._given
        try:
            head: bytes = stream.peek(4)
            said = next((name for mark, name in _MARKS if head.startswith(mark)), None)
            self.encoding, self.marked = said or self.encoding, said is not None
            try:
                line_feed = "\n".encode(self.encoding)
            except LookupError as error:
                raise OptionError(
                    f"--encoding {self.encoding}: no such text encoding; try utf-8, latin-1 or cp1252"
                ) from error
            if line_feed not in (b"\n", codecs.BOM_UTF8 + b"\n"):
                yield from self._decoded_stream(stream, "\n")
            elif b"\r" in head and b"\n" not in head:
                yield from self._decoded_stream(stream, None)
            else:
                yield from self._decoded_lines(stream, head)
        except UnicodeDecodeError as error:
            way_out = self._mark_outranks() if self.marked else "name its encoding, e.g. --encoding latin-1"
            raise TableError(
                f"{self.source}:{self.number + 1}: badly encoded: at or after this line the file is not "
                f"{self.encoding} ({error.reason}); {way_out}"
            ) from error
        except (OSError, EOFError, zlib.error) as error:
            raise TableError(f"{self.source}:{self.number + 1}: cannot be read on: {error}") from error
        finally:
            if wrapped is not None:
                wrapped.detach()  # or it would close the stream, which belongs to whoever opened it

    def _decoded_lines(self, stream: IO[bytes], head: bytes) -> Iterator[str]:
        """Lines of an encoding in which a line feed is one byte: each is decoded by itself."""
        encoding = codecs.lookup(self.encoding).name.removesuffix("-sig")
        # offsets count from the start of the file, its byte-order mark included
        offset = len(stream.read(len(codecs.BOM_UTF8))) if head.startswith(codecs.BOM_UTF8) else 0
        for raw in stream:
            self.number += 1
            try:
                line = raw.decode(encoding)
            except UnicodeDecodeError as error:
                byte = f"byte 0x{raw[error.start]:02x} at offset {offset + error.start} of the file"
                way_out = "if the whole file has another encoding, name it, e.g. --encoding latin-1"
                way_out = self._mark_outranks() if self.marked else way_out
                self._note("badly encoded", f"{byte} is not {encoding}; {way_out}")
                line = raw.decode(encoding, "replace")
            if "\0" in line:
                self._note_nul()
            offset += len(raw)
            yield line

    def _decoded_stream(self, stream: IO[bytes], newline: str | None) -> Iterator[str]:
        """Lines of an encoding whose line feed is wider than a byte, or that end with carriage returns."""
        text = io.TextIOWrapper(stream, encoding=self.encoding, newline=newline)
        try:
            for line in text:
                self.number += 1
                if "\0" in line:
                    self._note_nul()
                yield line
        finally:
            text.detach()

    def _mark_outranks(self) -> str:
        """What to do about a file that is not what the mark at its beginning says."""
        named = self.encoding.removesuffix("-sig")
        return (
            f"the byte-order mark that it begins with says {named}, which outranks --encoding: save the file anew, "
            f"as {named}, or without the mark"
        )

    def _note_nul(self) -> None:
        if self.odd:
            return
        unmarked = ", or text in UTF-16 without a byte-order mark (then: --encoding utf-16-le)"
        self._note("a NUL byte", "this is no text" + ("" if self.marked else unmarked))

    def _note(self, reason: str, detail: str) -> None:
        if self.problem is None:
            self.problem = RowError(self.source, self.number, reason, detail)


def printable(text: str) -> str:
    """Return a text as a terminal can show it: control characters and halves of characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
