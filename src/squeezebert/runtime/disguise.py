"""Text as it was meant to be read: letters of other alphabets, spaced-out words and digits for letters undone.

Serves moderation, which reads a text both ways. Needs `decancer-py`, of the moderation extra, for look-alike letters.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable

from squeezebert.files.errors import DependencyError

# What stands for a letter between letters
_LOOKALIKES = str.maketrans("@$!|013457", "asiloieast")
_BETWEEN_LETTERS = re.compile(r"(?<=[^\W\d_])[@$!|013457]+(?=[^\W\d_])")
_ADDRESS = re.compile(r"\S+@\S+\.\w|\w+://")
# Three or more single letters, each followed by the same few separators: i d i o t, i.d.i.o.t
_SPACED = re.compile(r"(?<!\w)(?:[^\W\d_][ \t.,\-_*+/~]{1,3}){2,}[^\W\d_](?!\w)")
_SEPARATORS = re.compile(r"[ \t.,\-_*+/~]+")
_WORD = re.compile(r"\S+")
# No word has a letter three times in a row
_REPEATED = re.compile(r"([^\W\d_])\1{2,}")
# Marks on letters beyond these per letter are decoration
_MARKS_A_LETTER = 1
# The combining class of strokes that lie over a letter
_OVERLAY = 1


def undisguise(text: str) -> str:
    """Return `text` without what hides its words from a model.

    Invisible and control characters go, compatibility forms (full width, bold, circled) become plain letters, letters
    of another script than most of a text in the Latin script become those they look like, letters apart are joined,
    digits and signs between letters become letters, and a letter many times in a row stands twice. Words wholly in
    the script that the text is written in are left as they are. Raises `DependencyError` without the extra.
    """
    text = unicodedata.normalize("NFKC", _drop_invisible(text))
    text = _undo_homoglyphs(_drop_decoration(text))
    text = _SPACED.sub(lambda found: _SEPARATORS.sub("", found[0]), text)
    text = _WORD.sub(_undo_signs, text)
    return _REPEATED.sub(r"\1\1", text)


def _undo_signs(found: re.Match[str]) -> str:
    """Read digits and signs between a word's letters as letters, but in addresses."""
    if _ADDRESS.match(found[0]):
        return found[0]
    return _BETWEEN_LETTERS.sub(lambda signs: signs[0].translate(_LOOKALIKES), found[0])


def _drop_invisible(text: str) -> str:
    """Remove characters without a shape: zero-width ones, soft hyphens, direction marks, controls but line breaks."""
    kept = []
    for character in text:
        kind = unicodedata.category(character)
        if character in "\n\r\t" or kind == "Zs":
            kept.append(character)
        elif kind == "Cs":
            kept.append("\N{REPLACEMENT CHARACTER}")
        elif kind not in ("Cc", "Cf", "Co", "Cn"):
            kept.append(character)
    return "".join(kept)


def _drop_decoration(text: str) -> str:
    """Remove strokes through letters, and combining marks beyond one a letter, as in text that drips."""
    kept, marks = [], 0
    for character in unicodedata.normalize("NFD", text):
        if unicodedata.combining(character) == _OVERLAY:
            continue
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        if marks <= _MARKS_A_LETTER:
            kept.append(character)
    return unicodedata.normalize("NFC", "".join(kept))


def _undo_homoglyphs(text: str) -> str:
    """Give words with letters foreign to a text in the Latin script the Latin letters that they look like."""
    scripts = Counter(script for character in text if (script := _script(character)) is not None)
    if len(scripts) < 2:
        return text
    latin = scripts.most_common(1)[0][0] == "LATIN"

    def cure(found: re.Match[str]) -> str:
        own = {_script(character) for character in found[0]} - {None}
        return _cured()(found[0]) if own - {"LATIN"} and (latin or "LATIN" in own) else found[0]

    return _WORD.sub(cure, text)


@functools.lru_cache(maxsize=4096)
def _script(character: str) -> str | None:
    """The first word of a letter's Unicode name, which is its script's; None for what is no letter."""
    if not character.isalpha():
        return None
    name = unicodedata.name(character, "").split(" ")[0]
    # One text is written in all of these
    return "CJK" if name in ("HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "CJK") else name or None


@functools.cache
def _cured() -> Callable[[str], str]:
    try:
        import decancer_py
    except ImportError as error:
        raise DependencyError(
            f"decancer_py cannot be imported ({error}): pip install 'squeezebert[moderation]', or set "
            "`disguises: false` in the policy"
        ) from error

    def cure(word: str) -> str:
        return str(decancer_py.parse(word, retain_capitalization=True, retain_diacritics=True, disable_bidi=True))

    return cure
