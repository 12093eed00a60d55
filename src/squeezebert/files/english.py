"""A text in, its words and signs with their places out; and English words that are taken for one another.

Serves the generator of errors, the marker that learns from it, and the suggestions for what it marks.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# What a marker says of a word. The first says that nothing is wrong
TAGS = ("keep", "spelling", "confused", "agreement", "article", "extra", "missing", "order")
MEANINGS = {
    "spelling": "a word that is misspelt",
    "confused": "another word that sounds or looks alike is meant",
    "agreement": "a verb that does not agree with its subject",
    "article": "a for an, or the other way round",
    "extra": "a word too many",
    "missing": "a word is missing before this one",
    "order": "two words in the wrong order",
}

# A word with the apostrophes inside it and the marks on its letters, or a single sign
_UNIT = re.compile("[^\\W_](?:[^\\W_]|[\u0300-\u036f]|['\u2019](?=[^\\W_]))*|[^\\w\\s]|_")

CONFUSED: tuple[tuple[str, ...], ...] = (
    ("their", "there", "they're"),
    ("your", "you're"),
    ("its", "it's"),
    ("to", "too", "two"),
    ("then", "than"),
    ("whose", "who's"),
    ("were", "where"),
    ("lose", "loose"),
    ("affect", "effect"),
    ("accept", "except"),
    ("of", "off"),
    ("hear", "here"),
    ("know", "no"),
    ("knew", "new"),
    ("weather", "whether"),
    ("passed", "past"),
    ("quiet", "quite"),
    ("write", "right"),
    ("piece", "peace"),
    ("threw", "through"),
    ("buy", "by"),
    ("brake", "break"),
    ("advice", "advise"),
    ("bare", "bear"),
    ("principal", "principle"),
    ("plain", "plane"),
    ("steal", "steel"),
    ("weak", "week"),
    ("whole", "hole"),
    ("which", "witch"),
    ("desert", "dessert"),
    ("site", "sight", "cite"),
    ("stationary", "stationery"),
    ("waist", "waste"),
    ("male", "mail"),
    ("meet", "meat"),
    ("some", "sum"),
    ("son", "sun"),
    ("sea", "see"),
    ("one", "won"),
    ("our", "are"),
    ("would", "wood"),
    ("wear", "where"),
    ("role", "roll"),
    ("course", "coarse"),
    ("choose", "chose"),
    ("breath", "breathe"),
    ("fourth", "forth"),
    ("tail", "tale"),
    ("heal", "heel"),
)
# Behind these `have` sounds like `of`, and is written so
BEFORE_HAVE = frozenset(("could", "might", "must", "should", "would"))
# Singular and plural forms that are exchanged wherever they stand
AUXILIARIES: tuple[tuple[str, str], ...] = (
    ("is", "are"),
    ("was", "were"),
    ("has", "have"),
    ("does", "do"),
    ("isn't", "aren't"),
    ("wasn't", "weren't"),
    ("hasn't", "haven't"),
    ("doesn't", "don't"),
)
ARTICLES = ("a", "an")
# Verbs whose form on -s is hardly ever a noun
_VERBS = (
    "say go get make know think take see come want find give tell become keep begin seem hear bring happen write sit "
    "lose pay meet include continue understand follow speak grow teach remember consider appear buy die send build "
    "reach contain describe provide remain allow require belong refer consist exist occur believe agree carry choose "
    "create decide depend develop enjoy expect explain feel forget help hope join kill learn let like love mention "
    "move occupy offer own prefer produce receive run serve spend stand stay suggest suppose try win wish wear"
)


class Unit(NamedTuple):
    """Where a word or sign stands in a text, in characters."""

    start: int
    end: int


def units(text: str) -> list[Unit]:
    """Return the words and signs of a text in their order; white space belongs to none."""
    return [Unit(*found.span()) for found in _UNIT.finditer(text)]


def is_word(text: str) -> bool:
    """Whether a unit's text is a word, and no sign."""
    return text[:1].isalnum()


def with_s(verb: str) -> str:
    """Return the form of a verb in the third person."""
    if verb.endswith(("s", "sh", "ch", "x", "o")):
        return f"{verb}es"
    return f"{verb[:-1]}ies" if verb.endswith("y") and verb[-2] not in "aeou" else f"{verb}s"


VERBS_WITH_S = frozenset(map(with_s, _VERBS.split()))
# Each form of a verb -> the other
VERB_FORMS = {form: other for verb in _VERBS.split() for form, other in ((verb, with_s(verb)), (with_s(verb), verb))}
_OTHERS: dict[str, tuple[str, ...]] = {
    word: tuple(other for group in CONFUSED if word in group for other in group if other != word)
    for group in CONFUSED
    for word in group
}
_AUXILIARY = {form: other for pair in AUXILIARIES for form, other in (pair, pair[::-1])}


def alternatives(word: str, tag: str) -> tuple[str, ...]:
    """Return what may be meant instead of a word, in lower case, by what is wrong with it; nothing if none is known.

    For `agreement` the other form of a verb, for `article` the other article, for `confused` what it is taken for.
    """
    word = word.lower().replace("\u2019", "'")
    if tag == "agreement":
        other = _AUXILIARY.get(word) or VERB_FORMS.get(word)
        return () if other is None else (other,)
    if tag == "article":
        return tuple(article for article in ARTICLES if article != word) if word in ARTICLES else ()
    return _OTHERS.get(word, ()) if tag == "confused" else ()


def like(word: str, model: str) -> str:
    """Return a word in the case of another: capitals throughout, a capital first, or as it is."""
    if len(model) > 1 and model.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if model[:1].isupper() else word
