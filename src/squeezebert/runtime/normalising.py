"""Any text in, its Unicode normal form out, in linear time. Serves whoever compares or reads what users wrote."""

from __future__ import annotations

import functools
import unicodedata
from typing import Literal

Form = Literal["NFC", "NFD", "NFKC", "NFKD"]

# As many as Unicode's Stream-Safe Text Format lets follow one another (UAX #15, section 13); no language has more
_LONGEST_RUN = 30
# The first combining mark: what lies before is none
_FIRST_MARK = "\u0300"


def normalize(form: Form, text: str) -> str:
    """Return a text's normal form, of combining marks the first 30 of each run.

    Marks are sorted in a normal form, and `unicodedata` takes time by the square of a run's length to do so.
    """
    return unicodedata.normalize(form, shorten_marks(text))


def shorten_marks(text: str) -> str:
    """Return the text with the first 30 combining marks of each run, and what is no mark."""
    if text.isascii():
        return text
    kept, run = [], 0
    for character in text:
        run = run + 1 if character >= _FIRST_MARK and _is_mark(character) else 0
        if run <= _LONGEST_RUN:
            kept.append(character)
    return text if len(kept) == len(text) else "".join(kept)


@functools.lru_cache(maxsize=8192)
def _is_mark(character: str) -> bool:
    """Whether a normal form sorts a character among its neighbours: it, or what it is taken apart into, combines."""
    return all(unicodedata.combining(part) for part in unicodedata.normalize("NFKD", character))
