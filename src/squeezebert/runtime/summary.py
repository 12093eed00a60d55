"""The sentences of a document that say most of it, where they stand in it. It needs no torch.

Legend: S sentences, C channels of a vector (or words of the document).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from squeezebert.files.numbers import check_whole
from squeezebert.runtime.predictor import Predictor, require_encoder
from squeezebert.runtime.tokens import TextError

# A full stop, question or exclamation mark with what closes behind it, or the marks of Chinese and Japanese
_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’)\]]*+(?=\s)|[。！？]+[」』”]*|\n\s*\n|\n(?=\s*[-*•#])")
# What ends in a full stop and no sentence does: titles, initials, and the like
_NO_END = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|vs|etc|cf|No|Fig|e\.g|i\.e|approx|Inc|Ltd|Co)|\b[A-Z])\.$")
_LONGEST_NO_END = 16
# A sentence of fewer words says little by itself
_FEWEST_WORDS = 4
_WORD = re.compile(r"\w\w+")
# How much a sentence that repeats what was chosen counts less
_REPETITION = 0.25
# The sentence of this place counts half as much for the subject of a document as its first
_HALF = 5
# From this cosine on two sentences are the same, and the second is taken when there is no other
_THE_SAME = 0.999


Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sentence:
    """A chosen sentence."""

    text: str
    """as it stands in the document"""
    start: int
    """where it starts, in characters"""
    end: int
    """where it ends"""
    score: float | None
    """how alike it is to the whole document, cosine; None where its place alone counted"""


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Return where each sentence of a text starts and ends, in characters, white space around it left out."""
    spans, start = [], 0
    for found in [*_END.finditer(text), None]:
        end = len(text) if found is None else found.end()
        if found is not None and _NO_END.search(text, max(start, end - _LONGEST_NO_END), end):
            continue
        piece = text[start:end]
        first, last = end - len(piece.lstrip()), start + len(piece.rstrip())
        if first < last:
            spans.append((first, last))
        start = end
    return spans


def first_sentences(document: str, sentences: int = 3) -> list[Sentence]:
    """Return the first sentences of a document, those of few words (headings) left out where there are enough others.

    What any other summary has to be better than. Raises as `summarise` does.
    """
    _check(document, sentences)
    spans = sentence_spans(document)
    chosen = np.flatnonzero(_telling(document, spans, sentences))[:sentences]
    return [Sentence(document[start:end], start, end, None) for start, end in (spans[i] for i in chosen)]


def summarise(
    encoder: Predictor | None,
    document: str,
    sentences: int = 3,
    watch: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> list[Sentence]:
    """Return the most informative sentences of a document in the order in which they stand there.

    A sentence's vector is what the encoder makes of it or, without one, its words by TF-IDF. One after the other, the
    sentence is taken that is most alike to the whole document (the mean of its sentences' vectors, in which early
    sentences weigh more) and least to those taken already (maximal marginal relevance, Carbonell and Goldstein 1998).
    A document of fewer sentences is returned whole. `watch` sees the sentences pass as they are read. Raises
    `OptionError` for a model without vectors and fewer than one sentence, `TextError` for what is no str.
    """
    if encoder is not None:
        require_encoder(encoder, "a summary needs an encoder")
    _check(document, sentences)
    spans = sentence_spans(document)
    if not spans:
        return []
    texts = [document[start:end] for start, end in spans]
    vectors = _Words(texts) if encoder is None else _Dense(encoder.encode(watch(texts)))
    tells_S = _telling(document, spans, sentences)
    whole_C = vectors.total(tells_S * _HALF / (_HALF + np.arange(len(spans))))
    scores_S = vectors.products(whole_C / max(float(np.linalg.norm(whole_C)), 1e-12))
    chosen: list[int] = []
    repeated_S = np.zeros(len(spans))
    for _ in range(min(sentences, int(tells_S.sum()))):
        gain_S = np.where(tells_S, scores_S - _REPETITION * repeated_S - (repeated_S > _THE_SAME), -np.inf)
        gain_S[chosen] = -np.inf
        chosen.append(int(gain_S.argmax()))
        repeated_S = np.maximum(repeated_S, vectors.products(vectors.row(chosen[-1])))
    return [
        Sentence(document[start:end], start, end, float(scores_S[i]))
        for i, (start, end) in sorted((i, spans[i]) for i in chosen)
    ]


def _check(document: object, sentences: int) -> None:
    if not isinstance(document, str):
        raise TextError(f"expected a str, not {type(document).__name__}")
    check_whole("sentences =", sentences)


def _telling(document: str, spans: list[tuple[int, int]], sentences: int) -> NDArray[np.bool_]:
    """Which sentences have words enough to stand alone; all, where those would be too few."""
    tells = np.array([len(document[start:end].split()) >= _FEWEST_WORDS for start, end in spans], dtype=bool)
    return tells if tells.sum() >= sentences else np.ones(len(spans), bool)


class _Dense:
    """The vectors of an encoder."""

    def __init__(self, vectors_SC: NDArray[np.float32]) -> None:
        self._vectors_SC: Array = vectors_SC.astype(np.float64)

    def total(self, weights_S: Array) -> Array:
        return np.asarray(weights_S @ self._vectors_SC)

    def products(self, vector_C: Array) -> Array:
        return np.asarray(self._vectors_SC @ vector_C)

    def row(self, place: int) -> Array:
        return np.asarray(self._vectors_SC[place])


class _Words:
    """The words of each sentence by TF-IDF, length 1; only what is not zero is held, for a book has many words.

    A word counts 1 + ln of how often it is in the sentence, times 1 + ln((1 + S) / (1 + sentences that have it)).
    """

    def __init__(self, texts: Sequence[str]) -> None:
        counted = [Counter(_WORD.findall(text.lower())) for text in texts]
        place_of: dict[str, int] = {}
        for words in counted:
            for word in words:
                place_of.setdefault(word, len(place_of))
        self._sentences, self._channels = len(texts), len(place_of)
        self._rows = np.array([row for row, words in enumerate(counted) for _ in words], np.int64)
        self._columns = np.array([place_of[word] for words in counted for word in words], np.int64)
        often = np.array([count for words in counted for count in words.values()], np.float64)
        rarity_C = 1 + np.log((1 + len(texts)) / (1 + np.bincount(self._columns, minlength=self._channels)))
        values = (1 + np.log(often)) * rarity_C[self._columns]
        lengths_S = np.sqrt(_sums(self._rows, values**2, self._sentences))
        self._values: Array = values / lengths_S[self._rows]

    def total(self, weights_S: Array) -> Array:
        return _sums(self._columns, self._values * weights_S[self._rows], self._channels)

    def products(self, vector_C: Array) -> Array:
        return _sums(self._rows, self._values * vector_C[self._columns], self._sentences)

    def row(self, place: int) -> Array:
        mine = self._rows == place
        return _sums(self._columns[mine], self._values[mine], self._channels)


def _sums(places: NDArray[np.int64], values: Array, count: int) -> Array:
    """The sum of the values of each place, (count,)."""
    return np.asarray(np.bincount(places, values, count), np.float64)
