"""Sentences of documents in, sequences of tokens out; sequences of tokens in, batches of like length out.

Serves `corpus.py` and general distillation. What comes out is decided by the seed alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import sentencex

SHORTEST = 8
"""Tokens of the shortest sequence that a short length is drawn for."""
_CLOSING = ('"', "'", "”", "’", "»", ")", "]")
_LANGUAGE = "en"  # whose abbreviations end no sentence; marks that end one are those of all languages


def split_sentences(text: str) -> list[str]:
    """Cut a paragraph into sentences, each with the white space behind it; nothing is lost.

    Behind a closing quotation mark or bracket a small letter goes on with the sentence: “Why?” said he.
    """
    found: list[str] = []
    for part in sentencex.segment(_LANGUAGE, text):
        if found and part[:1].islower() and found[-1].rstrip()[-1:] in _CLOSING:
            found[-1] += part
        else:
            found.append(part)
    return found


class Packer:
    """Sentences of documents in, sequences out: as many whole sentences as fit into a length drawn for each."""

    def __init__(self, tokenizer: Any, max_length: int, short_share: float, seed: int) -> None:
        whole, plain = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
        at = next(i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
        self.before, self.after = whole[:at], whole[at + len(plain) :]
        self.specials = len(whole) - len(plain)
        self.max_length, self.short_share = max_length, short_share
        self.random = np.random.default_rng(seed)
        self.document = -1
        self.current: list[int] = []
        self.room = self._draw()

    def _draw(self) -> int:
        short = self.random.random() < self.short_share
        return int(self.random.integers(SHORTEST, self.max_length + 1) if short else self.max_length) - self.specials

    def flush(self) -> Iterator[tuple[list[int], int]]:
        """Yield what is held, if anything is."""
        if self.current:
            sequence = [*self.before, *self.current, *self.after]
            yield sequence, len(sequence)
            self.current, self.room = [], self._draw()

    def add(self, ids: list[int], document: int) -> Iterator[tuple[list[int], int]]:
        """Take a sentence's tokens; yield the sequences that this completes."""
        if document != self.document:
            yield from self.flush()
            self.document = document
        longest = self.max_length - self.specials
        while ids:
            if self.current and len(self.current) + len(ids) > self.room:
                yield from self.flush()
            # A sentence stays whole where it is longer than the length drawn, and is split where no sequence holds it
            self.current, ids = self.current + ids[:longest], ids[longest:]
            if len(self.current) >= self.room:
                yield from self.flush()


class Batches:
    """An endless, seeded row of batches of sequences of like length, each of about equal cost.

    Batch k is always the same for the same sequences, budget and seed, so a run that resumes at batch k sees what it
    would have seen. Each pass takes every sequence once, in another order.
    """

    def __init__(self, lengths: np.ndarray, sequences: np.ndarray, batch_tokens: int, seed: int) -> None:
        """Batch `sequences`, numbers into `lengths`, by at most `batch_tokens` tokens, padding counted.

        A sequence longer than that is a batch of its own. Asking for batches of no sequences raises `ValueError`.
        """
        self.lengths, self.sequences, self.batch_tokens, self.seed = lengths, sequences, batch_tokens, seed
        self._ends = [0]  # of each pass known so far: the number of batches before it ends
        self._pass: tuple[int, list[np.ndarray]] = (-1, [])

    def __getitem__(self, number: int) -> np.ndarray:
        """Return the sequences of batch `number`, from 0, in any pass."""
        epoch = int(np.searchsorted(self._ends, number, side="right")) - 1
        while number >= self._ends[-1]:
            epoch = len(self._ends) - 1
            self._ends.append(self._ends[-1] + len(self._batches(epoch)))
        return self._batches(epoch)[number - self._ends[epoch]]

    def whole_pass(self) -> list[np.ndarray]:
        """Return all batches of the first pass."""
        return self._batches(0)

    def _batches(self, epoch: int) -> list[np.ndarray]:
        if self._pass[0] != epoch:
            self._pass = (epoch, list(self._make(np.random.default_rng((self.seed, epoch)))))
        return self._pass[1]

    def _make(self, random: np.random.Generator) -> Iterator[np.ndarray]:
        """Cut sorted stretches of a random order into batches, and put those of a stretch in a random order."""
        if not len(self.sequences):  # an endless row of nothing would be looked for endlessly
            raise ValueError("no sequences to make batches of")
        order = random.permutation(self.sequences)
        mean = max(1.0, float(self.lengths[order].mean()))
        stretch = max(1, round(64 * self.batch_tokens / mean))
        for start in range(0, len(order), stretch):
            piece = order[start : start + stretch]
            piece = piece[np.argsort(self.lengths[piece], kind="stable")[::-1]]
            batches, first = [], 0
            while first < len(piece):
                size = max(1, int(self.batch_tokens // self.lengths[piece[first]]))
                batches.append(piece[first : first + size])
                first += size
            for place in random.permutation(len(batches)):
                yield batches[place]
