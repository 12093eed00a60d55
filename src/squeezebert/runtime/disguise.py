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
from squeezebert.runtime.normalising import normalize
from squeezebert.runtime.summary import sentence_spans
from squeezebert.runtime.tokens import join_surrogates

_LETTER = r"[^\W\d_]"
# What stands for a letter between letters
_LOOKALIKES = str.maketrans("@$!|013457", "asiloieast")
_BETWEEN_LETTERS = re.compile(rf"(?<={_LETTER})[@$!|013457]+(?={_LETTER})")
# And before them: not @ before a name, nor 5 before a unit, nor $ before a share's name
_BEGINS = r"""(?<![^\s"'“‘(\[])"""
_BEFORE_LETTERS = re.compile(
    rf"""{_BEGINS}(?:[013457](?={_LETTER}{{4}})|[!|](?={_LETTER}{{3}})|\$(?=[A-Z]?[a-z]{{2}})|@(?=([^\W\d_aeiou])\1)"""
    rf"""|(?=[!|]*[@$])[@$!|]{{2,}}(?={_LETTER}{{3}}))"""
)
# Where signs were undone within a word, a digit before it is another
_BEFORE_UNDONE = re.compile(rf"{_BEGINS}[@$!|013457](?={_LETTER}{{2}})")
_AFTER_LETTERS = re.compile(rf"(?<={_LETTER})\${{2,}}(?!\w)")
# What is guessed in a reading of its own, because ordinary text has it too: signs that part a word, more that stand
# for letters, and any before or behind them
_PARTS_LETTERS = re.compile(rf"(?<={_LETTER})(?:[._|*~^·•-]{{1,3}})(?={_LETTER})")
_GUESSED_SIGNS = "@$!|013457+(€£689"
_GUESSED = str.maketrans(_GUESSED_SIGNS, "asiloieasttcelbbg")
_BETWEEN_GUESSED = re.compile(rf"(?<={_LETTER})[{_GUESSED_SIGNS}]+(?={_LETTER})")
_BEFORE_GUESSED = re.compile(rf"{_BEGINS}[@$!013457€£89](?={_LETTER}{{3}})")
_AFTER_GUESSED = re.compile(rf"(?<={_LETTER}{{2}})(?:[+@]|\$+)(?!\w)")
# Letters upside down, which are read from the other end, and those that are others then
_TURNED = str.maketrans("ɐɔǝɟƃɥᴉıɾʞɯɹʇʌʍʎnupdbq", "acefghiijkmrtvwyundpqb")
_SURELY_TURNED = frozenset("ɐɔǝɟƃɥᴉɾʞɯɹʇʌʍʎ")
# Shown from right to left, whatever it is, up to the mark that ends it or the line's end
_OVERRIDDEN = re.compile("\u202e([^\u202c\n]*)\u202c?")
# Characters without a shape that are letters, marks or symbols by their kind: fillers of Korean and Khmer, the joiner
# of graphemes, the blank of braille
_BLANKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_DOMAIN = re.compile(r"\.\w")
_SCHEME = re.compile(r"\w++://")
# What a letter apart may have behind it, and of that what may stand for a letter, and what also joins words to others
_ALIKE_SIGNS, _APOSTROPHES = "@$!|", "'’‘`´"
_MOST_BETWEEN = 16
_WORD = re.compile(r"\S+")
# No word has a letter three times in a row
_REPEATED = re.compile(rf"({_LETTER})\1{{2,}}")
# Marks on letters beyond these per letter are decoration: Vietnamese and pointed Hebrew have two
_MARKS_A_LETTER = 2
# The combining class of strokes that lie over a letter
_OVERLAY = 1
_SELECTORS = re.compile("(?<=[A-Za-z])[\ufe00-\ufe0f]+")
# Regional indicators: two are a flag, so of an odd number some are none
_FLAG_LETTER = "[\U0001f1e6-\U0001f1ff]"
_NO_FLAGS = re.compile(f"(?<!{_FLAG_LETTER}){_FLAG_LETTER}(?:{_FLAG_LETTER}{{2}})*(?!{_FLAG_LETTER})")
# Cyrillic letters drawn as Latin ones are, and those of them that hardly any alphabet in use has: a word of the first
# alone is one of the second's only where somebody put it together
_DRAWN_ALIKE = re.compile("[авекмнорстухіјѕԁһԛԝԍӏАВЕКМНОРСТУХІЈЅԀҺԚԜԌӀ]{3,}")
_HARDLY_USED = re.compile("[ѕԁԛԝԍЅԀԚԜԌ]")


def undisguise(text: str) -> str:
    """Return `text` without what hides its words from a model: the first of its `undisguised` readings."""
    return undisguised(text)[0]


def undisguised(text: str, longest: int | None = None) -> tuple[str, ...]:
    """Return the readings of `text` without what hides its words from a model, one to four.

    Invisible and control characters go, text that they show from right to left is turned round, compatibility forms
    (full width, bold, circled, squared, small capitals) become plain letters, letters of another script than most of
    a text or sentence in the Latin script become those they look like, letters apart are joined, digits and signs
    between letters and before them become letters, and a letter many times in a row stands twice. Words wholly in the
    script that the text is written in are left as they are.

    Letters apart may be of several words, with wider gaps between those, and what is between them may be a sign for a
    letter: the second reading has it so. The third has `a` and `i` before others as words. The last guesses, because
    ordinary text has the like: signs within words go, more of them become letters, letters with strokes and hooks
    become plain ones, and words upside down are turned.

    It takes linear time. A text of which more than `longest` characters have come (there are characters that stand for
    eighteen) is returned as it is by then. Raises `DependencyError` without the extra.
    """
    text = _NO_FLAGS.sub(_flag_letters, join_surrogates(text))
    text = _OVERRIDDEN.sub(lambda found: found[1][::-1], text)
    text = normalize("NFKC", _drop_invisible(text).translate(_drawn_letters()))
    if longest is not None and len(text) > longest:
        return (text,)
    text = _undo_homoglyphs(_drop_decoration(_SELECTORS.sub("", text)))
    joined = [read(text) for read in (_join_letters, _join_words, _join_behind)]
    readings = [_undo_words(one, _undo_signs) for one in joined]
    return tuple(dict.fromkeys([*readings, _undo_words(joined[1], _guess_letters)]))


def _undo_words(text: str, undo: Callable[[re.Match[str]], str]) -> str:
    return _REPEATED.sub(r"\1\1", _WORD.sub(undo, text))


def _undo_signs(found: re.Match[str]) -> str:
    """Read digits and signs between a word's letters, and before them, as letters, but in addresses."""
    word = found[0]
    if _is_address(word):
        return word
    undone = _BETWEEN_LETTERS.sub(_letters, word)
    for place in (_BEFORE_LETTERS, *((_BEFORE_UNDONE,) if undone != word else ()), _AFTER_LETTERS):
        undone = place.sub(_letters, undone)
    return undone


def _guess_letters(found: re.Match[str]) -> str:
    """Read as letters, and as parts of a word, what may as well be neither."""
    word = found[0]
    if _is_address(word):
        return word
    if len(_SURELY_TURNED & set(word)) > 1:
        word = word.translate(_TURNED)[::-1]
    word = _PARTS_LETTERS.sub("", word.translate(_plain_letters()))
    for place in (_BETWEEN_GUESSED, _BEFORE_LETTERS, _BEFORE_GUESSED, _AFTER_GUESSED):
        word = place.sub(lambda signs: signs[0].translate(_GUESSED), word)
    return word


def _letters(signs: re.Match[str]) -> str:
    return signs[0].translate(_LOOKALIKES)


def _is_address(word: str) -> bool:
    at = word.find("@", 1)
    return bool(_SCHEME.match(word) or (at > 0 and _DOMAIN.search(word, at + 2)))


def _join_letters(text: str) -> str:
    """Join letters apart, whatever is between them: i d i o t, i.d.i.o.t, i|d|i|o|t, one a line."""
    for apart in _apart(""):
        text = apart.sub(lambda found: "".join(filter(str.isalpha, found[0])), text)
    return text


def _join_words(text: str, articles: bool = False) -> str:
    """Join letters apart, but not words of them with wider gaps, nor with `articles` an `a` or `i` before one."""

    def join(found: re.Match[str]) -> str:
        parts = re.split(f"({_LETTER})", found[0])
        letters, gaps = parts[1::2], parts[2:-1:2]
        widths = [len(gap) + ("\n" in gap) * _MOST_BETWEEN for gap in gaps]
        usual = min(widths)
        words, first = [], True
        for letter, width in zip(letters, [*widths, usual], strict=True):
            article = articles and first and letter in "aAiI"
            first = width > usual
            words.append(letter + " " * (first or article))
        return "".join(words).removesuffix(" ")

    for apart in _apart(_ALIKE_SIGNS):
        text = apart.sub(join, text)
    return text


def _join_behind(text: str) -> str:
    return _join_words(text, articles=True)


@functools.cache
def _apart(but: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What finds three or more single letters with signs and blanks between them, but those named.

    Apostrophes join words to others, as in French, and count where nothing else is between the letters. Of fewer than
    five letters none are found where the next word hangs on the last, as in a.b@c.com.
    """
    signs = [
        character
        for character in map(chr, range(0x10000))
        if unicodedata.category(character)[0] in "PSZ" or character in "\t\n\r" or "\ufe00" <= character <= "\ufe0f"
    ]
    some = re.escape("".join(sign for sign in signs if sign not in but + _APOSTROPHES))
    # Emoji by themselves: a class with characters beyond 16 bits is searched one range after the other
    gap = f"(?:[{some}]|[\U0001f000-\U0001faff]){{1,{_MOST_BETWEEN}}}+"
    letters = rf"(?:{_LETTER}{gap})"
    hangs = r"(?!\w|[^\w\s]\w)"
    return (
        re.compile(rf"(?<!\w)(?:{letters}{{4,}}{_LETTER}(?!\w)|{letters}{{2,3}}{_LETTER}{hangs})"),
        re.compile(rf"(?<!\w){_LETTER}([{_APOSTROPHES}]){_LETTER}(?:\1{_LETTER})+(?!\w)"),
    )


def _flag_letters(found: re.Match[str]) -> str:
    return "".join(chr(ord(sign) - 0x1F1E6 + ord("A")) for sign in found[0])


@functools.cache
def _drawn_letters() -> dict[int, str]:
    """Letters that no compatibility form knows: white on black ones, and small capitals."""
    drawn = {first + i: chr(ord("A") + i) for first in (0x1F150, 0x1F170) for i in range(26)}
    kind = "LATIN LETTER SMALL CAPITAL "
    for code in (*range(0x250, 0x2B0), *range(0x1D00, 0x1D80), *range(0xA720, 0xA800)):
        name = unicodedata.name(chr(code), "")
        if name.startswith(kind) and len(name) == len(kind) + 1:
            drawn[code] = name[-1].lower()
    return drawn


@functools.cache
def _plain_letters() -> dict[int, str]:
    """Latin letters with strokes, hooks and tails that no decomposition takes off."""
    found = {}
    for code in (*range(0x180, 0x2B0), *range(0xE0, 0x180), *range(0x1D00, 0x1DC0), *range(0x2C60, 0x2C80)):
        name = unicodedata.name(chr(code), "").split(" ")
        named = len(name) > 4 and (name[0], name[2], name[4], len(name[3])) == ("LATIN", "LETTER", "WITH", 1)
        if named and not unicodedata.decomposition(chr(code)):
            found[code] = name[3] if name[1] == "CAPITAL" else name[3].lower()
    return found | {ord("ı"): "i", ord("ɑ"): "a", ord("ɡ"): "g"}


def _drop_invisible(text: str) -> str:
    """Remove characters without a shape: zero-width ones, soft hyphens, direction marks, controls but line breaks."""
    kept = []
    for character in text:
        if character in _BLANKS:
            continue
        kind = unicodedata.category(character)
        if character in "\n\r\t" or kind == "Zs" or kind not in ("Cc", "Cf", "Co", "Cn"):
            kept.append(character)
    return "".join(kept)


def _drop_decoration(text: str) -> str:
    """Remove strokes through letters, and combining marks beyond two a letter, as in text that drips."""
    kept, marks = [], 0
    for character in normalize("NFD", text):
        if unicodedata.combining(character) == _OVERLAY:
            continue
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        if marks <= _MARKS_A_LETTER:
            kept.append(character)
    return normalize("NFC", "".join(kept))


def _undo_homoglyphs(text: str) -> str:
    """Give words with letters foreign to a text or sentence in the Latin script the Latin letters they look like."""
    if text.isascii():
        return text
    mostly_latin = _is_latin(text)
    cured, at = [], 0
    for start, end in sentence_spans(text):
        sentence = text[start:end]
        cure = functools.partial(_undo_foreign, mostly_latin or _is_latin(sentence))
        cured += [text[at:start], _WORD.sub(cure, sentence)]
        at = end
    return "".join([*cured, text[at:]])


def _undo_foreign(latin: bool, found: re.Match[str]) -> str:
    """Give a word its Latin letters, where it has others and the text around it is Latin, or it is put together."""
    word = found[0]
    own = {_script(character) for character in word} - {None}
    put_together = "LATIN" in own or (
        _HARDLY_USED.search(word) and _DRAWN_ALIKE.search(word) and _is_drawn_alike(word)
    )
    return _cured()(word) if own - {"LATIN"} and (latin or put_together) else word


def _is_drawn_alike(word: str) -> bool:
    return all(_DRAWN_ALIKE.fullmatch(part) for part in re.findall(rf"{_LETTER}+", word))


def _is_latin(text: str) -> bool:
    """Whether most letters of a text are Latin."""
    scripts = Counter(script for character in text if (script := _script(character)) is not None)
    return bool(scripts) and scripts.most_common(1)[0][0] == "LATIN"


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
