"""A good sentence in, the same with errors of known kinds in known places out. Serves the training of markers.

The errors are those of writers and typists: slips of the finger, words that sound alike, verbs that do not agree,
articles, and words that are missing, twice there or in the wrong place. The same seed makes the same errors.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass

from squeezebert.files.english import (
    ARTICLES,
    AUXILIARIES,
    BEFORE_HAVE,
    CONFUSED,
    VERB_FORMS,
    alternatives,
    is_word,
    like,
    units,
)
from squeezebert.files.errors import OptionError

# Kind of error -> its tag (`files.english.TAGS`), and how often it is drawn, relative to the others
KINDS: dict[str, tuple[str, float]] = {
    "key beside it": ("spelling", 3.0),
    "letter dropped": ("spelling", 3.0),
    "letter doubled": ("spelling", 2.0),
    "letters exchanged": ("spelling", 3.0),
    "spelt by ear": ("spelling", 5.0),
    "apostrophe left out": ("spelling", 1.5),
    "word that sounds alike": ("confused", 6.0),
    "of for have": ("confused", 1.0),
    "be, have and do": ("agreement", 4.0),
    "verb with or without -s": ("agreement", 3.0),
    # Two kinds, since text has six times as many "a" as "an"
    "a for an": ("article", 2.0),
    "an for a": ("article", 2.0),
    "word dropped": ("missing", 5.0),
    "word doubled": ("extra", 2.0),
    "word put in": ("extra", 3.0),
    "words exchanged": ("order", 4.0),
}
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
# Shortest word in which fingers slip
_LEAST_LETTERS = 4
# Spellings that are heard alike, or that writers take for one another: each may stand for the other inside a word
_ALIKE = (
    ("ie", "ei"), ("ei", "ie"), ("ence", "ance"), ("ance", "ence"), ("ent", "ant"), ("ant", "ent"), ("ible", "able"),
    ("able", "ible"), ("ely", "ly"), ("ally", "aly"), ("ful", "full"), ("ess", "es"), ("ous", "us"), ("ious", "ous"),
    ("tion", "sion"), ("sion", "tion"), ("cious", "tious"), ("ary", "ery"), ("ery", "ary"), ("or", "er"), ("er", "or"),
    ("ar", "er"), ("ph", "f"), ("gh", "g"), ("sc", "s"), ("ck", "k"), ("ce", "se"), ("ci", "si"), ("ea", "ee"),
    ("ee", "ea"), ("ai", "ay"), ("ou", "u"), ("au", "o"), ("wh", "w"),
    ("ey", "y"), ("y", "i"), ("par", "per"), ("ite", "ate"), ("ate", "ite"), ("ue", "u"),
    ("uou", "uo"), ("rh", "r"), ("xc", "x"), ("cq", "q"), ("dg", "g"), ("age", "ege"), ("ege", "age"),
    ("a", "e"), ("e", "a"), ("i", "e"), ("e", "i"), ("o", "a"),
)  # fmt: skip
_DOUBLE = "bcdfglmnprst"
_VOWELS = "aeiouy"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words without which a sentence is wrong; most others could be left out
_NEEDED = _words(
    "the a an of to in on at for with by from is are was were be been has have will would can could it he she they we "
    "i you as into"
)
_PUT_IN = ("the", "a", "of", "to", "in", "is", "was", "for", "with", "on", "it", "at", "be", "and")
# A word twice is right for some
_MAY_DOUBLE = _words("had that very so her in on no yes oh ha well there now long many more far")
# They stand before what they belong to
_BEFORE = _words("the a an of to in on at for with by from into my your his its their our this these those")
_SINGULAR = _words("he she it who which that everyone someone nobody everybody")
_PLURAL = _words("they we you i people men women children")
# "if he were" and "wish it were" are right
_SUPPOSES = _words("if though wish unless whether lest would were suppose")


@dataclass(frozen=True)
class CorruptionOptions:
    """How many errors are put into text, and where there are none."""

    clean: float = 0.4
    """Share of the sentences that stay as they are."""
    errors: float = 0.08
    """Errors for each word of the others, on average; at least one each."""

    def __post_init__(self) -> None:
        if not 0 <= self.clean < 1:
            raise OptionError(f"--clean {self.clean}: expected a share from 0 to below 1")
        if not 0 < self.errors <= 0.5:
            raise OptionError(f"--errors {self.errors}: expected errors a word, above 0 and at most 0.5")


@dataclass(frozen=True)
class Corrupted:
    """A sentence with its errors."""

    text: str
    """the sentence as it is now"""
    tags: tuple[str, ...]
    """what is wrong with each of its units (words and signs, `files.english.units`)"""
    kinds: tuple[str, ...]
    """which kind of error it is, of `KINDS`; empty where nothing is wrong"""
    right: tuple[str, ...]
    """what stood there; of a missing word, what was dropped before the unit"""


@dataclass
class _Piece:
    """A unit on its way, with the space before it."""

    space: str
    text: str
    tag: str = "keep"
    kind: str = ""
    right: str = ""
    # Whether an error is here or beside it: errors keep apart
    taken: bool = False


_Pieces = list[_Piece]


class Corruptor:
    """Puts errors into sentences."""

    def __init__(self, options: CorruptionOptions, known: Collection[str] = frozenset()) -> None:
        """Take words in lower case that are `known`: a slip that makes one of them is no misspelling, and not made."""
        self.options, self.known = options, known
        self._ways: dict[str, tuple[Callable[..., bool], Callable[..., None]]] = {
            "key beside it": (self._may_slip, self._slip),
            "letter dropped": (self._may_slip, self._slip),
            "letter doubled": (self._may_slip, self._slip),
            "letters exchanged": (self._may_slip, self._slip),
            "spelt by ear": (self._may_hear, self._hear),
            "apostrophe left out": (self._is_contracted, _leave_out),
            "word that sounds alike": (_sounds_alike, _confuse),
            "of for have": (_follows_modal, _put_of),
            "be, have and do": (_is_auxiliary, _disagree),
            "verb with or without -s": (_is_verb, _disagree),
            "a for an": (_is_an, _change_article),
            "an for a": (_is_a, _change_article),
            "word dropped": (_is_needed, _drop),
            "word doubled": (_may_double, _double),
            "word put in": (_may_precede, _put_in),
            "words exchanged": (_stands_before, _exchange),
        }

    def corrupt(self, sentence: str, seed: object) -> Corrupted:
        """Return a sentence with errors, or as it is; `seed` (a tuple of numbers, a text) decides which."""
        chance = random.Random(repr(seed))
        pieces = _cut(sentence)
        if chance.random() >= self.options.clean:
            for _ in range(max(1, _poisson(chance, self.options.errors * sum(is_word(p.text) for p in pieces)))):
                self._add(pieces, chance)
        text = "".join(piece.space + piece.text for piece in pieces)
        rest = sentence[len(sentence.rstrip()) :] if pieces else sentence
        return Corrupted(text + rest, *(tuple(getattr(p, name) for p in pieces) for name in ("tag", "kind", "right")))

    def _add(self, pieces: _Pieces, chance: random.Random) -> None:
        """Put one error in, of a kind that is drawn from those for which there is a place."""
        kinds = [*KINDS]
        while kinds:
            (kind,) = chance.choices(kinds, [KINDS[name][1] for name in kinds])
            may, make = self._ways[kind]
            places = [at for at in range(len(pieces)) if not pieces[at].taken and may(pieces, at)]
            if places:
                errors = sum(piece.kind != "" for piece in pieces)
                make(pieces, chance.choice(places), chance, kind)
                if sum(piece.kind != "" for piece in pieces) > errors:
                    return
            kinds.remove(kind)

    # --- slips of the finger --------------------------------------------------------------------------------

    def _may_slip(self, pieces: _Pieces, at: int) -> bool:
        word = pieces[at].text
        plain = word.isascii() and word.isalpha() and not word.isupper()
        return plain and len(word) >= _LEAST_LETTERS

    def _slip(self, pieces: _Pieces, at: int, chance: random.Random, kind: str) -> None:
        word = pieces[at].text
        for _ in range(8):  # a draw may give a word that is known, or the same one
            place = chance.randrange(1, len(word) - 1)  # the first letter is seldom wrong
            found = slip(word, place, kind, chance)
            if found.lower() != word.lower() and found.lower() not in self.known:
                _mark(pieces, at, kind, found)
                return

    # --- spellings ------------------------------------------------------------------------------------------

    def _may_hear(self, pieces: _Pieces, at: int) -> bool:
        return self._may_slip(pieces, at) and bool(heard_alike(_word(pieces, at)))

    def _hear(self, pieces: _Pieces, at: int, chance: random.Random, kind: str) -> None:
        found = [one for one in heard_alike(pieces[at].text.lower()) if one not in self.known]
        if found:
            _mark(pieces, at, kind, chance.choice(found))

    def _is_contracted(self, pieces: _Pieces, at: int) -> bool:
        # "its" and "were" are other words, and those that are taken for one another a kind of their own
        word = _word(pieces, at).replace("\u2019", "'")
        return word.endswith(_CONTRACTED) and word not in _SOUND_ALIKE and word.replace("'", "") not in self.known


def heard_alike(word: str) -> list[str]:
    """Return how a word in lower case may be spelt by one who goes by its sound; single vowels only in long words.

    A pair of letters for another that sounds alike, a double consonant for a single one and the other way round. The
    first letter stays.
    """
    found = []
    for right, wrong in _ALIKE:
        if len(right) == 1 and len(word) < 7:
            continue
        at = word.find(right, 1)
        while at > 0:
            # A single vowel is hard to hear between consonants, in the middle of a long word
            inside = 2 < at < len(word) - 2 and word[at - 1] not in _VOWELS and word[at + 1] not in _VOWELS
            if len(right) > 1 or inside:
                found.append(word[:at] + wrong + word[at + len(right) :])
            at = word.find(right, at + 1)
    for at in range(1, len(word) - 1):
        if word[at] not in _DOUBLE:
            continue
        if word[at + 1] == word[at]:
            found.append(word[:at] + word[at + 1 :])
        elif word[at - 1] in _VOWELS and word[at + 1] in _VOWELS:
            found.append(word[: at + 1] + word[at:])
    return [one for one in dict.fromkeys(found) if one != word]


def slip(word: str, place: int, kind: str, chance: random.Random) -> str:
    """Return a word with one slip of a kind at a letter; the same word where the kind has none there."""
    letter = word[place]
    if kind == "letter dropped":
        return word[:place] + word[place + 1 :]
    if kind == "letter doubled":
        return word[:place] + letter + word[place:]
    if kind == "letters exchanged":
        return word[:place] + word[place + 1] + letter + word[place + 2 :]
    beside = neighbours(letter.lower())
    return word[:place] + chance.choice(beside) + word[place + 1 :] if beside else word


def neighbours(letter: str) -> str:
    """Return the letters beside, above and below one on an English keyboard."""
    for row, keys in enumerate(_ROWS):
        if letter in keys:
            at = keys.index(letter)
            # Each row begins half a key further to the right than the one above
            places = ((row, at - 1), (row, at + 1), (row - 1, at), (row - 1, at + 1), (row + 1, at - 1), (row + 1, at))
            return "".join(_ROWS[r][k] for r, k in places if 0 <= r < len(_ROWS) and 0 <= k < len(_ROWS[r]))
    return ""


# --- words: where an error can be, and the error -------------------------------------------------------------


def _word(pieces: _Pieces, at: int) -> str:
    return pieces[at].text.lower() if 0 <= at < len(pieces) else ""


_SOUND_ALIKE = frozenset(word for group in CONFUSED for word in group)
_AUXILIARY = frozenset(form for pair in AUXILIARIES for form in pair)
_CONTRACTED = ("n't", "'re", "'ve", "'ll", "'m")


def _sounds_alike(pieces: _Pieces, at: int) -> bool:
    return _word(pieces, at).replace("\u2019", "'") in _SOUND_ALIKE


def _confuse(pieces: _Pieces, at: int, chance: random.Random, kind: str) -> None:
    _mark(pieces, at, kind, chance.choice(alternatives(pieces[at].text, "confused")))


def _follows_modal(pieces: _Pieces, at: int) -> bool:
    if _word(pieces, at) != "have":
        return False
    before = _word(pieces, at - 1)
    return (_word(pieces, at - 2) if before == "not" else before.removesuffix("n't")) in BEFORE_HAVE


def _put_of(pieces: _Pieces, at: int, chance: random.Random, kind: str) -> None:
    _mark(pieces, at, kind, "of")


def _leave_out(pieces: _Pieces, at: int, chance: random.Random, kind: str) -> None:
    _mark(pieces, at, kind, pieces[at].text.replace("'", "").replace("\u2019", ""))


def _is_auxiliary(pieces: _Pieces, at: int) -> bool:
    word = _word(pieces, at).replace("\u2019", "'")
    supposed = any(_word(pieces, before) in _SUPPOSES for before in range(at - 6, at))
    return word in _AUXILIARY and not (supposed and word in ("was", "were"))


def _is_verb(pieces: _Pieces, at: int) -> bool:
    word, before = _word(pieces, at), _word(pieces, at - 1)
    if word not in VERB_FORMS:
        return False
    return before in _SINGULAR if word.endswith("s") else before in _PLURAL


def _disagree(pieces: _Pieces, at: int, chance: random.Random, kind: str) -> None:
    _mark(pieces, at, kind, alternatives(pieces[at].text, "agreement")[0])


def _is_article(pieces: _Pieces, at: int) -> bool:
    # "A." is an initial, and "a" before a sign a letter
    return _word(pieces, at) in ARTICLES and _word(pieces, at + 1).isalpha() and pieces[at + 1].space != ""


def _is_an(pieces: _Pieces, at: int) -> bool:
    return _word(pieces, at) == "an" and _is_article(pieces, at)


def _is_a(pieces: _Pieces, at: int) -> bool:
    return _word(pieces, at) == "a" and _is_article(pieces, at)


def _change_article(pieces: _Pieces, at: int, chance: random.Random, kind: str) -> None:
    _mark(pieces, at, kind, alternatives(pieces[at].text, "article")[0])


def _apart(pieces: _Pieces, at: int) -> bool:
    """Whether a unit is a word inside the sentence with white space on both sides."""
    return 0 < at < len(pieces) - 1 and is_word(pieces[at].text) and bool(pieces[at].space and pieces[at + 1].space)


def _is_needed(pieces: _Pieces, at: int) -> bool:
    return _apart(pieces, at) and _word(pieces, at) in _NEEDED and not pieces[at + 1].taken


def _drop(pieces: _Pieces, at: int, chance: random.Random, kind: str) -> None:
    gone = pieces.pop(at)
    _mark(pieces, at, kind, pieces[at].text, right=gone.text)
    if at:
        pieces[at - 1].taken = True


def _may_double(pieces: _Pieces, at: int) -> bool:
    word = _word(pieces, at)
    return _apart(pieces, at) and word.isalpha() and word not in _MAY_DOUBLE


def _double(pieces: _Pieces, at: int, chance: random.Random, kind: str) -> None:
    pieces.insert(at + 1, _Piece(" ", pieces[at].text))
    _mark(pieces, at + 1, kind, pieces[at].text, right="")


def _may_precede(pieces: _Pieces, at: int) -> bool:
    return _apart(pieces, at) and not pieces[at - 1].taken


def _put_in(pieces: _Pieces, at: int, chance: random.Random, kind: str) -> None:
    beside = {_word(pieces, at), _word(pieces, at - 1)}
    word = chance.choice([one for one in _PUT_IN if one not in beside])
    pieces.insert(at, _Piece(pieces[at].space, word))
    _mark(pieces, at, kind, word, right="")


def _stands_before(pieces: _Pieces, at: int) -> bool:
    if at + 1 >= len(pieces) or pieces[at + 1].taken or not pieces[at + 1].space:
        return False
    first, second = _word(pieces, at), _word(pieces, at + 1)
    return first in _BEFORE and second.isalpha() and second not in _NEEDED and second not in _BEFORE


def _exchange(pieces: _Pieces, at: int, chance: random.Random, kind: str) -> None:
    first, second = pieces[at].text, pieces[at + 1].text
    lower = first.lower() if first != "I" else first
    moved = like(second, first) if not second.isupper() else second
    _mark(pieces, at, kind, moved)
    _mark(pieces, at + 1, kind, lower)


def _mark(pieces: _Pieces, at: int, kind: str, text: str, right: str | None = None) -> None:
    """Make a unit the place of an error: its text, its tag, and its neighbours taken."""
    piece = pieces[at]
    piece.right = piece.text if right is None else right
    piece.text = like(text, piece.text) if kind != "words exchanged" else text
    piece.tag, piece.kind = KINDS[kind][0], kind
    for near in range(max(0, at - 1), min(len(pieces), at + 2)):
        pieces[near].taken = True


def _cut(sentence: str) -> _Pieces:
    pieces, end = [], 0
    for start, stop in units(sentence):
        pieces.append(_Piece(sentence[end:start], sentence[start:stop]))
        end = stop
    for piece in pieces:
        piece.right = piece.text
    return pieces


def _poisson(chance: random.Random, mean: float) -> int:
    """A Poisson number, by Knuth's products of uniform ones."""
    count, product, least = -1, 1.0, 2.718281828459045**-mean
    while product > least:
        product *= chance.random()
        count += 1
    return count
