"""A Wikipedia XML dump in, the wikitext of its articles out; wikitext in, plain paragraphs out. Serves `documents.py`.

mwxml reads the dump as a stream, mwparserfromhell parses the markup.
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

from squeezebert.files.errors import TableError

# Tags whose content is no running text
_DROPPED_TAGS = {"ref", "references", "table", "gallery", "math", "timeline", "score", "syntaxhighlight", "source"}
# Links that are no words of a sentence
_DROPPED_LINKS = re.compile(r"^\s*:?\s*(file|image|category|media)\s*:", re.IGNORECASE)
# Sections after which an article is over
_LAST_SECTIONS = {
    *("references", "external links", "see also", "further reading", "notes", "bibliography", "sources", "footnotes"),
    *("citations", "notes and references", "works cited", "gallery"),
}
_SECTION = re.compile(r"^==([^=\n].*?)==\s*$", re.MULTILINE)


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
            f"{path}: not a whole MediaWiki XML dump ({reason[0][:200]}): if a download was cut off, get it again"
        ) from error


def paragraphs_of(wikitext: str) -> list[str]:
    """Return an article's running text: no templates, tables, references, images, headings or closing sections."""
    for heading in _SECTION.finditer(wikitext):
        if heading[1].strip().lower() in _LAST_SECTIONS:
            wikitext = wikitext[: heading.start()]
            break
    code = mwparserfromhell.parse(wikitext, skip_style_tags=True)
    dropped = [
        *code.filter_tags(matches=lambda tag: str(tag.tag).strip().lower() in _DROPPED_TAGS),
        *code.filter_wikilinks(matches=lambda link: bool(_DROPPED_LINKS.match(str(link.title)))),
        *code.filter_headings(),
    ]
    for node in dropped:
        try:
            code.remove(node)
        except ValueError:  # it went with what it stood in
            continue
    text = code.strip_code(normalize=True, collapse=True).replace("'''", "").replace("''", "")
    return [line.lstrip("*#:; ") for line in text.split("\n")]
