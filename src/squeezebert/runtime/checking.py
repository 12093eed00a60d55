"""A text and an exported marker of words in, what is wrong with which words, and what may be meant, out. No torch.

Serves `squeezebert check`. Legend: U units (words and signs, `files.english.units`), L tags.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezebert.files.english import BEFORE_HAVE, TAGS, Unit, alternatives, is_word, like, units
from squeezebert.files.errors import OptionError
from squeezebert.files.manifest import check_file
from squeezebert.files.numbers import check_whole
from squeezebert.runtime.articles import settle_articles
from squeezebert.runtime.completion import Completer
from squeezebert.runtime.dictionary import COST_OF_EDIT, Dictionary, edits_between
from squeezebert.runtime.predictor import Predictor, load
from squeezebert.runtime.summary import sentence_spans
from squeezebert.runtime.tokens import TextError

Array = NDArray[np.float64]

# A sentence of fewer units is read together with the next one
FEWEST_UNITS = 4
# Tokens on either side of a window of a long sentence that are read for their neighbours' sake, at the most
_CONTEXT = 16
# Words that are weighed for one that is marked
_CANDIDATES = 20
# Of the model in the mixture with the dictionary, chosen by `benchmarks/suggestions.py`
_SHARE_OF_MODEL = 0.8
# Below this a word is taken to be as unlikely as any
_SMALLEST = 1e-9
# Addresses, paths and names of programs: what is spelt in them is nobody's mistake
_NO_PROSE = re.compile(r"://|\bwww\.|\w@\w|/\w+/|\w_|_\w|\w\(\)")
_BETWEEN_BLANKS = re.compile(r"\S+")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Mark:
    """A word, or two in the wrong order, that something is wrong with."""

    start: int
    """where it starts in the text, in characters"""
    end: int
    """and where it ends"""
    word: str
    """what stands there"""
    kind: str
    """what is wrong, one of the tags but `keep`"""
    suggestions: tuple[str, ...]
    """what may be meant, the likeliest first: words to stand there instead, the empty one for none, or words to be put
    in before it where one is missing"""
    probability: float
    """that something is wrong"""

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        told = {name: getattr(self, name) for name in ("start", "end", "word", "kind")}
        return {**told, "suggestions": list(self.suggestions), "probability": self.probability}


@dataclass(frozen=True, slots=True)
class CheckedSentence:
    """What a classifier says of a whole sentence."""

    start: int
    """where it starts in the text, in characters"""
    end: int
    """and where it ends"""
    label: str
    """the likeliest label"""
    probability: float
    """of `label`"""

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {name: getattr(self, name) for name in ("start", "end", "label", "probability")}


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found in a text."""

    marks: tuple[Mark, ...]
    """in the order of the text"""
    sentences: tuple[CheckedSentence, ...]
    """every sentence, where a classifier was asked; else none"""

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        told: dict[str, Any] = {"marks": [mark.to_dict() for mark in self.marks]}
        return told | ({"sentences": [one.to_dict() for one in self.sentences]} if self.sentences else {})


class Checker:
    """A marker at work, with what makes suggestions for the words that it marks. Safe to share between threads."""

    def __init__(
        self,
        marker: Predictor,
        dictionary: Dictionary | None = None,
        words: Completer | None = None,
        acceptability: Predictor | None = None,
    ) -> None:
        """Take an exported marker, and what there is of a dictionary, a masked language model and a classifier.

        Raises `OptionError` for a marker of other tags, and a classifier that is none of single texts.
        """
        if marker.task != "token-labels" or marker.labels != TAGS:
            raise OptionError(f"{marker.folder}: not a marker of words: `squeezebert train-marker` makes one")
        if acceptability is not None and (acceptability.task != "single_label" or acceptability.manifest.pair):
            raise OptionError(
                f"{acceptability.folder}: whole sentences are judged by a classifier of single texts, one label each, "
                "such as one that was trained on CoLA"
            )
        self.marker, self.dictionary, self.words, self.acceptability = marker, dictionary, words, acceptability
        self.thresholds = marker.manifest.thresholds

    def check(self, text: str, suggestions: int = 3) -> Checked:
        """Return what is wrong in a text of any length, with at most so many suggestions a word.

        Sentences are read one by one, equal ones once: what is said of one does not depend on the others. Raises
        `TextError` for what is no str, `OptionError` for what is no number of suggestions. Nothing is marked in
        addresses, paths and names with a `_` in them.
        """
        if not isinstance(text, str):
            raise TextError(f"expected a str, not {type(text).__name__}")
        check_whole("suggestions =", suggestions, 0)
        # Halves of characters are read as one character each, so that places stay what they are
        text = _SURROGATE.sub("\ufffd", text)
        marks: list[Mark] = []
        judged = []
        known: dict[str, tuple[list[Mark], CheckedSentence | None]] = {}
        for start, end in checked_spans(text):
            sentence = text[start:end]
            if sentence not in known:
                known[sentence] = self._marks_of(sentence, suggestions), self._judged(sentence)
            found, verdict = known[sentence]
            marks += [replace(mark, start=start + mark.start, end=start + mark.end) for mark in found]
            if verdict is not None:
                judged.append(replace(verdict, start=start, end=end))
        return Checked(tuple(marks), tuple(judged))

    def _judged(self, sentence: str) -> CheckedSentence | None:
        if self.acceptability is None:
            return None
        answer = self.acceptability.predict(sentence)
        return CheckedSentence(0, len(sentence), str(answer.label), float(answer.probability or 0.0))

    def _marks_of(self, sentence: str, suggestions: int) -> list[Mark]:
        found = units(sentence)
        probabilities = tag_probabilities(self.marker, sentence, found)
        tags = decide_tags(probabilities, self.thresholds)
        settle_articles(sentence, found, tags, probabilities)
        tags[in_no_prose(sentence, found)] = 0
        return self._marks(sentence, found, tags, probabilities, suggestions)

    def _marks(
        self,
        sentence: str,
        found: Sequence[Unit],
        tags: NDArray[np.int64],
        probabilities: Array,
        count: int,
    ) -> list[Mark]:
        marks, at = [], 0
        while at < len(found):
            kind = TAGS[tags[at]]
            last = at
            if kind == "order" and at + 1 < len(found) and TAGS[tags[at + 1]] == "order":
                last = at + 1
            if kind != "keep":
                start, end = found[at].start, found[last].end
                meant = self._suggest(sentence, found, at, last, kind)[:count] if count else []
                wrong = float(1.0 - probabilities[at : last + 1, 0].min())
                word = sentence[start:end]
                marks.append(Mark(start, end, word, kind, tuple(meant), wrong))
            at = last + 1
        return marks

    def _suggest(self, sentence: str, found: Sequence[Unit], at: int, last: int, kind: str) -> list[str]:
        """What may be meant, the likeliest first."""
        start, end = found[at].start, found[last].end
        word = sentence[start:end]
        before = sentence[slice(*found[at - 1])].lower() if at else ""
        if kind in ("extra", "confused") and word.lower() == "of" and before.removesuffix("n't") in BEFORE_HAVE:
            return [like("have", word), *([""] if kind == "extra" else alternatives(word, kind))]
        if kind == "extra":
            return ["", *(like(name, word) for name in alternatives(word, "confused"))]
        if kind == "order":
            return [_exchanged(sentence, found, at, last)] if last > at else []
        if kind == "missing":
            if self.words is None:
                return []
            return [candidate.word for candidate in self.words.between(sentence, start, start, _CANDIDATES)]
        if kind == "agreement" and before == "i" and word.lower() in ("is", "are"):
            return [like("am", word)]
        near = self.candidates(sentence, start, end, kind)
        names = [*near]
        fit = self._log_likely(sentence, start, end, names)
        weight = {name: fit[i] - COST_OF_EDIT * near[name] for i, name in enumerate(names)}
        return [like(name, word) for name in sorted(names, key=lambda name: (-weight[name], name))]

    def candidates(self, sentence: str, start: int, end: int, kind: str) -> dict[str, int]:
        """Return the words that may be meant instead of one between two places, with the edits that they are away."""
        word = sentence[start:end]
        near = dict.fromkeys(alternatives(word, kind), 0)
        return near or (self._spelt_alike(sentence, start, end) if is_word(word) else {})

    def _log_likely(self, sentence: str, start: int, end: int, names: Sequence[str]) -> Array:
        """How likely words are at a place, in nats, (words,): where they fit, and how often they occur anywhere.

        Both are mixed, as there are words that the model cannot spell, and such that it takes for all but impossible.
        """
        if not names:
            return np.zeros(0)
        anywhere = None if self.dictionary is None else np.array([self.dictionary.log_share(name) for name in names])
        if self.words is None:
            return np.zeros(len(names)) if anywhere is None else anywhere
        here = self.words.score(sentence, start, end, names)
        if anywhere is None:
            return np.log(np.maximum(here, _SMALLEST))
        return np.asarray(np.log(_SHARE_OF_MODEL * here + (1.0 - _SHARE_OF_MODEL) * np.exp(anywhere)))

    def _spelt_alike(self, sentence: str, start: int, end: int) -> dict[str, int]:
        """Words with the edits they are away: of the dictionary, and those that fit where the word stands."""
        word = sentence[start:end]
        near = {} if self.dictionary is None else dict(self.dictionary.near(word, count=_CANDIDATES))
        if self.words is not None:
            for candidate in self.words.between(sentence, start, end, _CANDIDATES):
                away = edits_between(word, candidate.word)
                if 0 < away <= 2:
                    near.setdefault(candidate.word, away)
        return near


def open_checker(
    folder: str | os.PathLike[str],
    words: str | os.PathLike[str] | None = None,
    acceptability: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    precision: str | None = None,
) -> Checker:
    """Open an exported marker with its dictionary, and what else is given.

    `words` is an exported masked language model, `acceptability` an exported classifier of sentences. Raises what
    `load` does, and `OptionError` for folders of other models.
    """
    marker = load(folder, threads, precision)
    told = marker.manifest.dictionary
    dictionary = None if told is None else Dictionary.open(check_file(marker.folder, told))
    completer = None if words is None else Completer(load(words, threads))
    return Checker(marker, dictionary, completer, None if acceptability is None else load(acceptability, threads))


def checked_spans(text: str) -> list[tuple[int, int]]:
    """Return where the sentences of a text start and end; one of less than four units goes with the next."""
    joined: list[tuple[int, int]] = []
    for start, end in sentence_spans(text):
        if joined and len(units(text[slice(*joined[-1])])) < FEWEST_UNITS:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined


def in_no_prose(sentence: str, found: Sequence[Unit]) -> NDArray[np.bool_]:
    """Return which units of a sentence, (U,), stand in an address, a path or a program's name."""
    inside = np.zeros(len(sentence) + 1, dtype=np.bool_)
    for match in _BETWEEN_BLANKS.finditer(sentence):
        if _NO_PROSE.search(match[0]):
            inside[slice(*match.span())] = True
    return inside[[unit.start for unit in found]]


def _exchanged(sentence: str, found: Sequence[Unit], first: int, second: int) -> str:
    """Two words in the other order; what is capital only because it begins the sentence begins it no more."""
    words = [sentence[slice(*found[place])] for place in (first, second)]
    begins = not any(is_word(sentence[slice(*unit)]) for unit in islice(found, first))
    is_own = re.match("I(?!\\w)", words[0]) is not None or not (words[0][1:].islower() or len(words[0]) == 1)
    if not begins or not words[0][:1].isupper():
        return f"{words[1]} {words[0]}"
    return f"{like(words[1], words[0])} {words[0] if is_own else words[0].lower()}"


def tag_probabilities(marker: Predictor, sentence: str, found: Sequence[Unit]) -> Array:
    """Return the probability of each tag for the units of a sentence, (U, L).

    A unit has that of its first token; one without a token is kept. A sentence that is longer than the model reads is
    read in windows, and each token in one where it has neighbours.
    """
    tokenizer = marker.tokenizer
    ids, offsets = tokenizer.pieces(sentence)
    rows: Array = np.zeros((len(found), len(marker.labels)))
    rows[:, 0] = 1.0
    if not ids:
        return rows
    logits = np.concatenate(
        [
            marker.compute([tokenizer.framed(ids[first:last])])[0][tokenizer.lead :][begin - first : end - first]
            for first, begin, end, last in _windows(len(ids), tokenizer.room)
        ]
    )
    probabilities = marker.probabilities(logits)
    for unit, token in first_tokens(found, offsets):
        rows[unit] = probabilities[token]
    return rows


def first_tokens(found: Sequence[Unit], offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the number of each unit that has a token, and of its first token."""
    pairs, token = [], 0
    for number, unit in enumerate(found):
        while token < len(offsets) and offsets[token][0] < unit.start:
            token += 1
        if token < len(offsets) and offsets[token][0] < unit.end:
            pairs.append((number, token))
    return pairs


def decide_tags(probabilities: Array, thresholds: Sequence[float] | None) -> NDArray[np.int64]:
    """Return the tag of each row of probabilities (U, L), (U,).

    It is the likeliest but the first, where something is wrong with a probability of at least that tag's threshold
    (0.5 by default); else the first, `keep`.
    """
    if not len(probabilities):
        return np.zeros(0, dtype=np.int64)
    likeliest = probabilities[:, 1:].argmax(axis=1) + 1
    least = np.array(thresholds or (0.5,) * probabilities.shape[1])[likeliest]
    return np.where(1.0 - probabilities[:, 0] >= least, likeliest, 0).astype(np.int64)


def _windows(tokens: int, room: int) -> list[tuple[int, int, int, int]]:
    """Windows of at most `room` tokens as (first, begin, end, last): what is between begin and end is answered."""
    if tokens <= room:
        return [(0, 0, tokens, tokens)]
    context = min(_CONTEXT, room // 4)
    step = room - 2 * context
    found = []
    for begin in range(0, tokens, step):
        end = min(begin + step, tokens)
        found.append((max(0, begin - context), begin, end, min(tokens, end + context)))
    return found
