"""Text files, Wikipedia dumps, tables and Hub datasets in, cleaned documents out. Serves `vocabulary.py`, `shards.py`.

What is slow (the markup, cleaning) is left to `clean`, which workers call; reading is a stream.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from squeezebert.data.corpus import is_text, read_texts
from squeezebert.files.errors import TableError

_DUMP_ENDINGS = (".xml", ".xml.bz2", ".xml.gz")
_SPACE = re.compile(r"\s+")
_NOT_WORD = re.compile(r"[\W_]+")
_PAGE = 50, 90  # characters of a line of wrapped text
_NOTICES = ("attribution", "license", "licence", "copying", "notice")
_NO_SPACES = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")  # scripts that write words without spaces


@dataclass(frozen=True, slots=True)
class RawDocument:
    """A document as it was read."""

    text: str
    """Its paragraphs, one a line, or its wikitext."""
    wikitext: bool
    """Whether it is wikitext."""
    name: str = ""
    """Its title, where it has one."""


@dataclass(frozen=True, slots=True)
class CleanDocument:
    """A document to learn from."""

    paragraphs: list[str]
    """Running text without control characters; each has a letter in it."""
    digest: int
    """64 bits of a hash of its words alone: copies that differ in case, spaces or punctuation have one digest."""


def read_documents(
    sources: Sequence[str], *, column: str | None = None, encoding: str = "utf-8"
) -> Iterator[RawDocument]:
    """Stream the documents of sources, one after the other.

    A `.txt` file or a folder of them holds one paragraph a line, and a blank line between documents; a file ending in
    `.xml`, `.xml.bz2` or `.xml.gz` is a Wikipedia dump; anything else is a table or a dataset as `train` reads them,
    with a document a row in `column`.

    Raises `TableError` for a source that is not there, holds no text, or is badly encoded, naming the line.
    """
    for source in sources:
        if source.lower().endswith(_DUMP_ENDINGS):
            yield from _wikipedia(Path(source))
            continue
        items = read_texts(_text_files(source), text=column, encoding=encoding)
        for _, paragraphs in groupby(items, key=lambda item: item.document):
            parts = [part for item in paragraphs for part in (item.text, item.text_pair) if part]
            yield RawDocument("\n".join(parts), wikitext=False)


def _text_files(source: str) -> str | list[Path]:
    """The text files of a folder, licences and read-me files left out; a source that is no such folder as it is."""
    folder = Path(source)
    if not folder.is_dir():
        return source
    files = [path for path in sorted(folder.iterdir()) if _is_text(path)]
    below = next((path for path in folder.rglob("*") if path.parent != folder and _is_text(path)), None)
    if not files and below is not None:
        raise TableError(f"{source}: its text lies in folders of its own: name those, as {below.parent}")
    return files or source


def _is_text(path: Path) -> bool:
    return is_text(path) and path.name.lower().split(".")[0] not in (*_NOTICES, "readme")


def _wikipedia(path: Path) -> Iterator[RawDocument]:
    from squeezebert.data.pretraining.wikipedia import read_pages

    if not path.is_file():
        raise TableError(f"{path}: no such file")
    found = False
    for title, wikitext in read_pages(path):
        found = True
        yield RawDocument(wikitext, wikitext=True, name=title)
    if not found:
        raise TableError(f"{path}: a dump without articles")


def clean(raw: RawDocument, shortest: int) -> CleanDocument | None:
    """Return a document without markup, control characters and lines without letters; None below `shortest` words."""
    if raw.wikitext:
        from squeezebert.data.pretraining.wikipedia import paragraphs_of

        lines = paragraphs_of(raw.text)
    else:
        lines = raw.text.split("\n")
    paragraphs = [line for line in map(_clean_line, lines) if any(map(str.isalpha, line))]
    if sum(len(one.split(" ")) + len(_NO_SPACES.findall(one)) // 2 for one in paragraphs) < shortest:
        return None
    words = _NOT_WORD.sub("", "".join(paragraphs).casefold())
    digest = hashlib.blake2b(words.encode("utf-8", "replace"), digest_size=8).digest()
    return CleanDocument(paragraphs, int.from_bytes(digest, "little"))


def _clean_line(line: str) -> str:
    """Composed characters, no control, format or unassigned ones, and single spaces."""
    if not line.isascii():
        line = unicodedata.normalize("NFC", line)
    if not line.isprintable():
        line = "".join(" " if c.isspace() else "" if unicodedata.category(c)[0] == "C" else c for c in line)
    return _SPACE.sub(" ", line).strip()


def wrapped(documents: Sequence[RawDocument]) -> bool:
    """Whether most lines of some documents end inside a sentence, at the width of a page."""
    lines = [line.strip() for raw in documents if not raw.wikitext for line in raw.text.split("\n")[:-1]]
    ends = [line for line in lines if _PAGE[0] <= len(line) <= _PAGE[1] and line[-1] not in ".!?:;\"'”’)"]
    return len(lines) >= 20 and len(ends) > len(lines) / 2


def held_out(digest: int, share: float, seed: int) -> bool:
    """Whether a document is held out: decided by its words alone, so that it never is on both sides."""
    return _drawn(digest.to_bytes(8, "little"), share, str(seed))


def sampled(raw: RawDocument, share: float, seed: int) -> bool:
    """Whether a document is in an even sample of `share` of all: decided by its text as it was read."""
    return share >= 1 or _drawn(raw.text.encode("utf-8", "replace"), share, f"{seed} sample")


def _drawn(content: bytes, share: float, salt: str) -> bool:
    mixed = hashlib.blake2b(content, digest_size=8, salt=salt.encode()[:16]).digest()
    return int.from_bytes(mixed, "little") < share * 2**64


def copy_notices(sources: Sequence[str], folder: Path) -> list[str]:
    """Copy attribution and licence files that lie with the sources; return the names of the copies."""
    copied: list[str] = []
    seen = set()
    for source in sources:
        place = Path(source)
        beside = place if place.is_dir() else place.parent
        if not place.exists() or beside.resolve() in seen:
            continue
        seen.add(beside.resolve())
        for file in sorted(beside.iterdir()):
            if file.is_file() and file.name.lower().split(".")[0] in _NOTICES:
                folder.mkdir(parents=True, exist_ok=True)
                name = f"{len(seen)}-{file.name}"
                shutil.copyfile(file, folder / name)
                copied.append(name)
    return copied
