"""A Wikipedia XML dump in, the wikitext of its articles out; wikitext in, plain paragraphs out. Serves `documents.py`.

mwxml reads the dump as a stream, mwparserfromhell parses the markup. Names of namespaces and sections are those of the
English Wikipedia.
"""

from __future__ import annotations

import bz2
import gzip
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mwparserfromhell
import mwxml
from mwparserfromhell.nodes import Heading, Tag, Template, Wikilink

from squeezebert.files.errors import TableError

# Tags whose content is no running text
_DROPPED_TAGS = {"ref", "references", "table", "gallery", "math", "timeline", "score", "syntaxhighlight", "source"}
# Links that are no words of a sentence: files, categories, the same article in other languages. A colon before them
# makes them words again
_DROPPED_LINKS = re.compile(r"^\s*((?i:file|image|category|media)\s*:|[a-z]{2,3}(-[a-z-]+)?:(?!\s))")
# Sections that are no running text
_DROPPED_SECTIONS = {
    *("references", "external links", "see also", "further reading", "notes", "bibliography", "sources", "footnotes"),
    *("citations", "notes and references", "works cited", "gallery"),
}
_SECTION = re.compile(r"^==([^=\n].*?)==[ \t]*$", re.MULTILINE)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_SWITCH = re.compile(r"__[A-Z]+__")
_MARKUP = ("|", "{{", "}}", "{|", "!")  # what begins a line that a parser could make nothing of


def read_pages(path: Path) -> Iterator[tuple[str, str]]:
    """Yield title and wikitext of each article; redirects and pages that are no articles are passed over.

    Raises `TableError` for a file that is no dump, or is cut short; what came before was yielded.
    """
    openers: dict[str, Callable[..., Any]] = {".bz2": bz2.open, ".gz": gzip.open}
    try:
        with openers.get(path.suffix.lower(), open)(path, "rb") as stream:
            for page in mwxml.Dump.from_file(stream):
                if page.namespace != 0 or page.redirect is not None:
                    continue
                for revision in page:
                    if revision.text:
                        yield page.title, revision.text
    except (OSError, EOFError, SyntaxError, ValueError, KeyError, AssertionError, mwxml.errors.MalformedXML) as error:
        reason = str(error).strip().splitlines() or ["its outermost element is another"]
        raise TableError(
            f"{path}: cannot be read on as a MediaWiki XML dump ({reason[0][:200]}): is it one, and whole? If a "
            "download was cut off, get it again"
        ) from error


def paragraphs_of(wikitext: str) -> list[str]:
    """Return an article's running text: no templates, tables, references, images, headings or closing sections."""
    wikitext = _BREAK.sub(" ", _SWITCH.sub("", _COMMENT.sub("", wikitext)))
    code = mwparserfromhell.parse(_without_sections(wikitext), skip_style_tags=True)
    _drop(code)
    text = str(code.strip_code(normalize=True, collapse=True)).replace("'''", "").replace("''", "")
    lines = (line.strip() for line in text.split("\n"))
    return [line.lstrip("*#:; ") for line in lines if not line.startswith(_MARKUP)]


def _without_sections(wikitext: str) -> str:
    """Leave out the sections that are no running text, each up to the next heading of its level."""
    headings = [*_SECTION.finditer(wikitext)]
    if not headings:
        return wikitext
    kept = [wikitext[: headings[0].start()]]
    ends = [*(heading.start() for heading in headings[1:]), len(wikitext)]
    for heading, end in zip(headings, ends, strict=True):
        if heading[1].strip().lower() not in _DROPPED_SECTIONS:
            kept.append(wikitext[heading.start() : end])
    return "".join(kept)


def _drop(code: Any) -> None:
    """Take what is no running text out of parsed wikitext, in one pass over its nodes."""
    kept = []
    for node in code.nodes:
        if isinstance(node, (Heading, Template)):
            continue
        if isinstance(node, Tag):
            if str(node.tag).strip().lower() in _DROPPED_TAGS:
                continue
            if node.contents is not None:
                _drop(node.contents)
        elif isinstance(node, Wikilink):
            if _DROPPED_LINKS.match(str(node.title)):
                continue
            if node.text is not None:
                _drop(node.text)
        kept.append(node)
    code.nodes = kept
