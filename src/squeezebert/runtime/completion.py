"""A text with gaps and an exported masked language model in, the words that may stand there out. It needs no torch.

Serves `squeezebert complete`, and suggestions of `checking.py`. Legend: P places asked, V pieces of the vocabulary.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezebert.files.errors import FolderError, OptionError
from squeezebert.files.numbers import check_whole
from squeezebert.runtime.predictor import Predictor
from squeezebert.runtime.tokens import MASK, TextError

Array = NDArray[np.float64]

# A gap as people write it
GAP = re.compile(r"\[MASK\]|_{3,}", re.IGNORECASE)
# What the manifest says under `notes`: the share of words that have one piece, two, ...
PIECES_A_WORD = "pieces_a_word"
# Gaps of a text, and pieces of a word, that are filled at most
_MOST_GAPS, _MOST_PIECES = 64, 3
# How many beginnings of a word are followed
_BEAM = 8
# Characters kept on either side of a gap for each token that the model reads: more never fits
_CHARACTERS_A_TOKEN = 32
_SINGLE_LETTERS = frozenset("bcdefghjklmnopqrstuvwxyz")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A word that may stand in a gap."""

    word: str
    """the word, in lower case where the model knows no other"""
    probability: float
    """that it stands there, if a word does"""

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {"word": self.word, "probability": self.probability}


@dataclass(frozen=True, slots=True)
class Gap:
    """A place that was asked for."""

    start: int
    """where it starts in the text, in characters"""
    end: int
    """and where it ends"""
    words: tuple[Candidate, ...]
    """the likeliest first"""

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {"start": self.start, "end": self.end, "words": [word.to_dict() for word in self.words]}


class Completer:
    """A masked language model at work. Safe to share between threads.

    A gap is asked for as one mask, and as two and three for words of several pieces, which are found piece by piece.
    The probability of such a word is that of its pieces, each given those before it, times the share of words that
    have so many pieces, which the export counted. Signs, numbers of special tokens and single letters that are no
    English words are no answers, and have no part in the probabilities.
    """

    def __init__(self, model: Predictor) -> None:
        """Take an exported masked-lm. Raises `OptionError` for another model, `FolderError` for a vocabulary of
        another kind than WordPiece.
        """
        if model.task != "masked-lm":
            raise OptionError(
                f"{model.folder}: completion needs a masked language model, and this is a model of {model.task}"
            )
        mask, continues = model.tokenizer.id_of(MASK), model.tokenizer.continues
        if mask is None or continues is None:
            raise FolderError(f"{model.folder}: its tokenizer has no {MASK} or is not WordPiece: export it again")
        self.model, self.mask, self._continues = model, mask, continues
        size = int(model.manifest.dimension or 0)
        pieces = model.tokenizer.vocabulary()[:size]
        self.pieces = [*pieces, *[None] * (size - len(pieces))]
        self._begins = np.array([piece is not None and self._is_word(piece) for piece in self.pieces])
        self._goes_on = np.array([piece is not None and self._is_rest(piece) for piece in self.pieces])
        if not self._begins.any():
            raise FolderError(f"{model.folder}: its vocabulary has no words")
        told = model.manifest.notes.get(PIECES_A_WORD) or (1.0,)
        self._shares = [float(share) for share in told][:_MOST_PIECES]

    def fill(self, text: str, top_k: int = 5) -> list[Gap]:
        """Return the likeliest words of each gap of a text, written [MASK] or ___, each with the others unknown.

        Long texts are read around the gap, as far as the model reads. Raises `TextError` for a text without a gap or
        with more than 64, and for what is no str; `OptionError` for `top_k` below 1.
        """
        _check(text, top_k)
        gaps = [found.span() for found in GAP.finditer(text)]
        if not gaps:
            raise TextError(f"no gap to fill: write {MASK} or ___ where a word is wanted, or ask for the next word")
        if len(gaps) > _MOST_GAPS:
            raise TextError(f"{len(gaps)} gaps, and {_MOST_GAPS} are filled at most: give the text in parts")
        asked = _Asked(self, text, gaps)
        return [Gap(*span, self._words(asked, number, top_k)) for number, span in enumerate(gaps)]

    def next_word(self, text: str, top_k: int = 5, ending: str = "") -> tuple[Candidate, ...]:
        """Return the likeliest words behind the end of a text.

        The model is asked for a mask there, and then `ending`: a full stop, or nothing. Raises `TextError` for what is
        no str, `OptionError` for `top_k` below 1.
        """
        _check(text, top_k)
        _check(ending, top_k)
        begun = text.rstrip()
        asked = _Asked(self, f"{begun} {MASK}{ending}", [(len(begun) + 1, len(begun) + 1 + len(MASK))])
        return self._words(asked, 0, top_k)

    def between(self, text: str, start: int, end: int, top_k: int = 5) -> tuple[Candidate, ...]:
        """Return the likeliest words between two places of a text, whatever stands there; gaps in it are not filled.

        Raises as `fill` does.
        """
        _check(text, top_k)
        return self._words(_Asked(self, text, [(start, end)]), 0, top_k)

    def score(self, text: str, start: int, end: int, words: Sequence[str]) -> Array:
        """Return how likely each of `words` is between two places of a text, (words,): probabilities, as of `fill`.

        What stands there is not looked at. Pieces of one word are taken to be independent of one another here, so that
        all words with as many pieces cost one run. A word that the vocabulary cannot spell, or of more than three
        pieces, has the probability 0.
        """
        asked = _Asked(self, text, [(start, end)])
        spelled = [self.model.tokenizer.pieces(word)[0] for word in words]
        found = np.zeros(len(words))
        for count in sorted({len(ids) for ids in spelled if 0 < len(ids) <= len(self._shares)}):
            rows = self._probabilities(asked.logits(0, [self.mask] * count))
            for number, ids in enumerate(spelled):
                if len(ids) == count and self._begins[ids[0]] and all(self._goes_on[i] for i in ids[1:]):
                    each = [rows[place, i] for place, i in enumerate(ids)]
                    found[number] = self._shares[count - 1] * float(np.prod(each))
        return found

    def probabilities(self, text: str, pieces: Sequence[int]) -> Array:
        """Return how likely pieces of the vocabulary are at a text's first gap, among all pieces, (pieces,).

        Raises `TextError` for a text without a gap.
        """
        found = GAP.search(text)
        if found is None:
            raise TextError(f"no gap: write {MASK} where a word is wanted")
        logits = _Asked(self, text, [found.span()]).logits(0, [self.mask])
        return np.asarray(_softmax(logits)[0, list(pieces)])

    def _words(self, asked: _Asked, gap: int, top_k: int) -> tuple[Candidate, ...]:
        """The likeliest words of a gap, those of one piece and of several.

        Beginnings of words that cannot get among the likeliest any more are not followed.
        """
        best: dict[str, float] = {}

        def least() -> float:
            return sorted(best.values(), reverse=True)[top_k - 1] if len(best) >= top_k else 0.0

        for count, share in enumerate(self._shares, start=1):
            if not share:
                continue
            row = self._probabilities(asked.logits(gap, [self.mask] * count, [0]))[0] * share
            begun = [([int(i)], float(row[i])) for i in _largest(row, top_k if count == 1 else _BEAM)]
            for place in range(1, count):
                begun = [one for one in begun if one[1] > least()]
                begun = self._followed(asked, gap, begun, place, count)[: _BEAM if place < count - 1 else top_k]
            for ids, probability in begun:
                word = self._spelled(ids)
                if probability > best.get(word, 0.0):
                    best[word] = probability
        ordered = sorted(best.items(), key=lambda item: (-item[1], item[0]))[:top_k]
        return tuple(Candidate(word, probability) for word, probability in ordered)

    def _followed(
        self, asked: _Asked, gap: int, begun: list[tuple[list[int], float]], place: int, count: int
    ) -> list[tuple[list[int], float]]:
        """Beginnings of `place` pieces with one more piece each, the likeliest first."""
        found = []
        for ids, probability in begun:
            logits = asked.logits(gap, [*ids, *[self.mask] * (count - place)], [place])
            row = _softmax(logits)[0] * self._goes_on * probability
            found += [([*ids, int(i)], float(row[i])) for i in _largest(row, _BEAM)]
        return sorted(found, key=lambda one: (-one[1], one[0]))

    def _probabilities(self, logits: Array) -> Array:
        """Probabilities of the masks of one word: of what begins words at the first, of all pieces at the others."""
        found = _softmax(logits)
        found[0] = _softmax(np.where(self._begins, logits[0], -np.inf))
        return found

    def _spelled(self, ids: Sequence[int]) -> str:
        return "".join(str(self.pieces[i]).removeprefix(self._continues) for i in ids)

    def _is_word(self, piece: str) -> bool:
        return not piece.startswith(self._continues) and _is_letters(piece) and piece.lower() not in _SINGLE_LETTERS

    def _is_rest(self, piece: str) -> bool:
        return piece.startswith(self._continues) and _is_letters(piece.removeprefix(self._continues))


class _Asked:
    """A text with gaps, tokenised once, and asked as often as there are ways to fill a gap."""

    def __init__(self, completer: Completer, text: str, gaps: Sequence[tuple[int, int]]) -> None:
        self.completer, tokenizer = completer, completer.model.tokenizer
        kept = _CHARACTERS_A_TOKEN * tokenizer.max_length
        edges = [0, *(place for gap in gaps for place in gap), len(text)]
        self.parts = []
        for part in (text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)):
            cut = part if len(part) <= 2 * kept else part[:kept] + " " + part[-kept:]
            self.parts.append(tokenizer.pieces(cut)[0])

    def logits(self, gap: int, filling: Sequence[int], at: Sequence[int] | None = None) -> Array:
        """Return the logits at the pieces of `filling`, which stands in a gap, (pieces, V), or at some of them.

        Other gaps are masks.
        """
        tokenizer, mask = self.completer.model.tokenizer, self.completer.mask
        before = [token for part in self.parts[:gap] for token in (*part, mask)] + self.parts[gap]
        after = self.parts[gap + 1] + [token for part in self.parts[gap + 2 :] for token in (mask, *part)]
        room = tokenizer.room - len(filling)
        left, right = _shared(len(before), len(after), room)
        tokens = tokenizer.framed([*before[len(before) - left :], *filling, *after[:right]])
        places = tokenizer.lead + left + np.array(range(len(filling)) if at is None else at, dtype=np.int64)
        positions = np.stack([np.zeros_like(places), places], axis=1)
        return self.completer.model.compute([tokens], positions)


def gap_count(text: str) -> int:
    """Return how many gaps a text has."""
    return sum(1 for _ in GAP.finditer(text))


def filled(text: str, gaps: Sequence[Gap]) -> str:
    """Return a text with the likeliest word in each of its gaps."""
    parts, end = [], 0
    for gap in gaps:
        parts += [text[end : gap.start], gap.words[0].word if gap.words else text[gap.start : gap.end]]
        end = gap.end
    return "".join([*parts, text[end:]])


def pieces_a_word(model: Predictor, texts: Sequence[str]) -> list[float]:
    """Return the share of the words of texts that have one piece, two and three, (3,), as a masked-lm spells them.

    One word of each is added, so that none is thought impossible; longer ones are left out.
    """
    tokenizer = model.tokenizer
    vocabulary, continues = tokenizer.vocabulary(), str(tokenizer.continues)
    counts = np.ones(_MOST_PIECES)
    for text in texts:
        for length in _word_lengths(tokenizer.pieces(text)[0], vocabulary, continues):
            if length <= _MOST_PIECES:
                counts[length - 1] += 1
    return [float(share) for share in counts / counts.sum()]


def _word_lengths(ids: Sequence[int], vocabulary: Sequence[str | None], continues: str) -> Iterator[int]:
    """How many pieces each word has; what is no letters is no word."""
    length = 0
    for place in ids:
        piece = vocabulary[place]
        if length and piece is not None and piece.startswith(continues):
            length += 1
            continue
        if length:
            yield length
        length = int(piece is not None and _is_letters(piece))
    if length:
        yield length


def _shared(before: int, after: int, room: int) -> tuple[int, int]:
    """How many tokens on either side of a gap are read: as many on both where both have them."""
    left = min(before, max(room // 2, room - after))
    return left, min(after, room - left)


def _softmax(logits: Array) -> Array:
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=-1, keepdims=True))


def _largest(row: Array, count: int) -> NDArray[np.int64]:
    """Places of the largest numbers above 0, the largest first; equal ones in their order."""
    count = min(count, len(row))
    some = np.argpartition(-row, count - 1)[:count]
    some = some[np.lexsort((some, -row[some]))]
    return np.asarray(some[row[some] > 0], dtype=np.int64)


def _is_letters(piece: str) -> bool:
    return bool(piece) and all(c.isalnum() or unicodedata.category(c) in ("Mn", "Mc") for c in piece)


def _check(text: object, top_k: object) -> None:
    if not isinstance(text, str):
        raise TextError(f"expected a str, not {type(text).__name__}")
    check_whole("top_k =", top_k)
