"""A text in, its words and signs with their places out; and English words that are taken for one another.

Serves the generator of errors, the marker that learns from it, and the suggestions for what it marks.
"""

from __future__ import annotations

import re
import unicodedata
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


def _split(words: str) -> frozenset[str]:
    return frozenset(words.split())


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


# An `a` or `an` in front of these is no article: a letter, a name, a word of another language, or a slip for `and`
_NO_ARTICLE_BEFORE = _split(
    "a after also always am an and are as at be before by can das dem den der die does equals for from had has "
    "have he i if implies in is it o of on or she that the then there they this to was we were which who will "
    "with would you"
).union(map(with_s, _VERBS.split()))
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


def like(word: str, model: str) -> str:
    """Return a word in the case of another: capitals throughout, a capital first, or as it is."""
    if len(model) > 1 and model.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if model[:1].isupper() else word
