"""A word in, the article that belongs before it out, by its first sound; and a marker's tags mended by that.

Serves `checking.py`. Letters tell the first sound but for lists of exceptions; where they do not, nothing is said.
Legend: U units (words and signs, `files.english.units`), L tags.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from squeezebert.files.english import ARTICLES, TAGS, VERBS_WITH_S, Unit, is_word

Array = NDArray[np.float64]


def _split(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Words that begin with another sound than their letter says: with that of `you`, of `one`, or with a silent h
_CONSONANTS = re.compile(
    "eu|ew(?!ok)|one(?:$|['nst-])|once|o(?:ui|uag|axa)|u(?:b(?:iq|iso)|cas$|demy|efa|f[ao]|gand|k(?:e|ip|r|ul)|lyss|"
    "nanim(?:ous|ity)|nary|nesc|n(?:i(?!ced|d(?:ent|eal|eol|io)|ll|m[amp]|n|r[or]|s(?:su|ol)|tem)|inucl|imanu)|"
    "r[aeiou](?!rt)|s[aeiou]|t[aeio]|ve|vul)"
)
_VOWELS = re.compile("heir|hono(?!lul)|hon$|honest|hour(?!i)")
# Read in two ways, with and without their h, or with a sound that the letters do not tell
_EITHER = re.compile(
    "h(?:abitu|alluc|aute|eral|erb|ered|eret|erme.?s|eroi|ilar|istori(?!es)|omag|ors$|otel|umbl|umil|ypn|ypo|yst)|"
    "euler|houri|u[bdijlwy]u|uig|uy|urart|y[^aeiou]|x[^aeoy]"
)
# Abbreviations whose first letter is read as `you`, and those that are also written small, where nobody knows
_SPELT_OUT = _split("UAE UFO UK UN US USA USB UV")
_SPELT_SMALL = _split("faq fbi led nhs suv udp ufo ui uint uk un uri url us usa usb utf uuid uv ux")
# Letters whose names begin with a vowel
_VOWEL_NAMES = frozenset("aefhilmnorsx")
# Two consonants that words begin with; with others, a word is read letter by letter, or as nobody knows
_BEGINNINGS = _split(
    "bh bl br ch cl cr cz dh dj dr dw fj fl fr gh gl gn gr gw kh kl kn kr kv kw lh ll mc mn ph pl pr ps pt rh sc "
    "sg sh sk sl sm sn sp sq sr st sv sw th tr ts tw tz vl vr wh wr zh zl zw"
)
_ROMAN = re.compile("[IVXLCDM]{2,}")
# An `a` or `an` in front of these is no article: a letter, a name, a word of another language, or a slip for `and`
_NO_ARTICLE_BEFORE = (
    _split(
        "a after also always am an and are as at be before by can das dem den der die does equals for from had has "
        "have he i if implies in is it o of on or she that the then there they this to was we were which who will "
        "with would you"
    )
    | VERBS_WITH_S
)
# Signs that may stand between an article and its word
_OPENING = frozenset("\"'\u2018\u201c\u00ab([*_")
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])")
# A round figure below the share of marks as `article` that are right, which `benchmarks/grammar.py` measures
ARTICLE_SURE = 0.95


def article_before(word: str) -> str | None:
    """Return the article that belongs before a word, "a" or "an"; None where the spelling does not tell.

    What decides is the first sound, which letters tell but for some beginnings (a university, an hour). Nothing is
    said of words that are read in two ways (historic, herb), of most abbreviations in capitals (a FIFA rule, an FBI
    agent), of years (an 1842 print), and of words that follow no article.
    """
    plain = unicodedata.normalize("NFD", word.replace("\u2019", "'"))
    read = plain.lower()
    if read[:1].isdecimal():
        return _article_before_number(read)
    if not "a" <= read[:1] <= "z" or len(word) == 1 or _EITHER.match(read):
        return None
    if read in _NO_ARTICLE_BEFORE:
        return None
    if word in _SPELT_OUT:
        return "a"
    spelt = "an" if read[0] in _VOWEL_NAMES else "a"
    if read[1].isdecimal():
        return spelt
    if {word, word.removesuffix("'s").removesuffix("s")} & _SPELT_SMALL or len({*word}) == 1 or _ROMAN.fullmatch(word):
        return None
    has_consonant = _CONSONANTS.match(read) is not None
    if not has_consonant and word[0] == "U" and read[2:3] in ("a", "e", "i", "o", "u"):
        return None  # Uma, Ulam, and whatever else names are
    said = "an" if _VOWELS.match(read) or (read[0] in "aeiou" and not has_consonant) else "a"
    # Capitals, and words that nobody could say, may be read letter by letter
    starts = read[:2] in _BEGINNINGS or re.search("[^b-df-hj-np-tv-xz]", read[:2])
    can_be_said = starts and re.search("[aeiouy]", read) and plain[1:] == read[1:]
    return said if said == spelt or can_be_said else None


def _article_before_number(digits: str) -> str | None:
    """Eight, eleven and eighteen begin with a vowel; nobody knows how years are read, or what begins with 0."""
    number = re.match("[0-9]*", digits)
    figures = number[0] if number else ""
    if figures.startswith("8"):
        return "an"
    if not figures or figures.startswith("0"):
        return None
    if figures[:2] in ("11", "18"):
        return {2: "an", 4: None, 5: "an"}.get(len(figures), "a")
    return "a"


def settle_articles(sentence: str, found: Sequence[Unit], tags: NDArray[np.int64], probabilities: Array) -> None:
    """Write over what a marker says of a and an, in place, where the word behind tells which of them is right.

    `tags` are the numbers of what the units got, (U,), and `probabilities` those of all tags, (U, L).
    A wrong article that the marker keeps gets its tag, and `ARTICLE_SURE` as the probability; a right one that the
    marker takes for the wrong one is kept. Where the marker sees something else wrong with it, that stands.
    """
    article = TAGS.index("article")
    words = [sentence[slice(*unit)] for unit in found]
    first = next((place for place, word in enumerate(words) if is_word(word)), 0)
    for place, word in enumerate(words):
        if word.lower() not in ARTICLES:
            continue
        behind = place + 1
        while behind < len(words) and words[behind] in _OPENING:
            behind += 1
        # Nothing but blanks and opening signs may stand between: no `a.m.`, no `a-weighted`
        if behind == len(words) or not sentence[found[place].end].isspace():
            continue
        # A capital inside a sentence, or before one, is a letter or a name: vitamin A is, Hoi An, An Wang, IN PLAN A
        if not word.islower() and (place != first or words[behind][0].isupper()):
            continue
        thousands = _THOUSANDS.match(sentence, found[behind].start)
        right = article_before(thousands[0].replace(",", "") if thousands else words[behind])
        if right is not None and right != word.lower() and tags[place] in (0, article):
            tags[place] = article
            probabilities[place] = 0.0
            probabilities[place, [0, article]] = 1.0 - ARTICLE_SURE, ARTICLE_SURE
        elif right == word.lower() and tags[place] == article:
            tags[place] = 0
