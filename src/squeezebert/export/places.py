"""Texts in, what a model says of words in them out: how masked language models and markers of words are verified.

Serves the exporter. Legend: N rows, P hidden places and U words and signs of all rows, V vocabulary, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from squeezebert.export.checkpoint import Checkpoint
from squeezebert.export.verify import Array, Evidence, read_alike
from squeezebert.files.english import units
from squeezebert.runtime.checking import decide_tags, tag_probabilities
from squeezebert.runtime.predictor import Predictor
from squeezebert.runtime.tokens import MASK, Tokenizer, Tokens

# Share of a text's tokens that are hidden, as in pretraining; all behind the mask
_HIDDEN = 0.15
_BATCH = 16
# Below this a probability is rounding
_SMALLEST = 1e-30


@dataclass(frozen=True)
class HiddenWords(Evidence):
    """Texts of which some tokens are hidden. Which ones depends on a text's tokens and place alone.

    Answers are (P, 3): the likeliest piece, its probability, and the probability of the piece that is hidden. All V
    numbers of a place would not fit into memory for some thousand places.
    """

    places: list[NDArray[np.int64]] = field(default_factory=list)
    """of each row, which tokens are hidden; found when the reference is made"""
    hidden: list[Tokens] = field(default_factory=list)
    """of each row, its tokens with the mask in these places"""
    right: list[NDArray[np.int64]] = field(default_factory=list)
    """of each row, what is hidden"""

    def reference(self, source: Checkpoint, predictor: Any) -> Array:
        """Return the checkpoint's own answers (P, 3). Raises as `torch_logits` does."""
        self.hide(source, predictor.tokenizer)
        found = []
        for start in range(0, len(self.rows), _BATCH):
            batch, positions, right = self._batch(range(start, min(start + _BATCH, len(self.rows))))
            if not len(positions):
                continue
            ids, types, mask = torch.zeros((3, len(batch), max(len(one.ids) for one in batch)), dtype=torch.long)
            for row, tokens in enumerate(batch):
                ids[row, : len(tokens.ids)] = torch.tensor(tokens.ids)
                types[row, : len(tokens.ids)] = torch.tensor(tokens.types)
                mask[row, : len(tokens.ids)] = 1
            logits = source.words(ids, mask, types, torch.from_numpy(positions)).double().numpy()
            found.append(_reduced(logits, right))
        return np.concatenate(found)

    def answers(self, predictor: Any) -> Array:
        """Return the answers of an exported file (P, 3)."""
        size = _BATCH if predictor.batch_invariant else 1
        found = []
        for start in range(0, len(self.rows), size):
            batch, positions, right = self._batch(range(start, min(start + size, len(self.rows))))
            if len(positions):
                found.append(_reduced(predictor.compute(batch, positions), right))
        return np.concatenate(found)

    def hide(self, source: Checkpoint, tokenizer: Tokenizer) -> None:
        """Choose the tokens to hide; none of a text without tokens, at least one of any other."""
        self.places.clear()
        self.hidden.clear()
        self.right.clear()
        mask, specials = source.tokenizer.mask_token_id, set(source.tokenizer.all_special_ids)
        for number, row in enumerate(self.rows):
            tokens = read_alike(source, tokenizer, row.text)
            may = [place for place, token in enumerate(tokens.ids) if token not in specials]
            count = min(len(may), max(1, round(_HIDDEN * len(may))))
            chosen = np.random.default_rng((0, number)).permutation(len(may))[:count]
            places = np.sort(np.array(may, dtype=np.int64)[chosen])
            ids = list(tokens.ids)
            self.right.append(np.array([ids[place] for place in places], dtype=np.int64))
            for place in places:
                ids[place] = mask
            self.places.append(places)
            self.hidden.append(Tokens(ids, tokens.types, tokens.truncated))

    def differences(self, first: Array, second: Array) -> Array:
        """Return how far apart the probabilities of two answers are, (P, 3); which piece it is is no distance."""
        found = np.abs(first - second)
        found[:, 0] = 0.0
        return found

    def agreement(self, first: Array, second: Array) -> Array:
        """Return for each row the share of its places with the same likeliest piece, (N,)."""
        return by_row(first[:, 0] == second[:, 0], self.counts)

    def scores(self, probabilities: Array) -> Array:
        """Return for each row the share of its places where the likeliest piece is the hidden one, (N,)."""
        return by_row(probabilities[:, 0] == np.concatenate(self.right), self.counts)

    def losses(self, answers: Array) -> Array:
        """Return for each row the mean cross-entropy at its places, in nats, (N,)."""
        return by_row(-np.log(np.maximum(answers[:, 2], _SMALLEST)), self.counts)

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """A text knows its own words: all rows, (N,)."""
        return np.ones(len(self.rows), dtype=bool)

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many places each row has, (N,)."""
        return np.array([len(places) for places in self.places], dtype=np.int64)

    def _batch(self, rows: range) -> tuple[list[Tokens], NDArray[np.int64], NDArray[np.int64]]:
        """Rows with their hidden places as positions (P, 2) of text and token, and what is hidden there (P,)."""
        positions = [np.stack([np.full_like(self.places[i], n), self.places[i]], axis=1) for n, i in enumerate(rows)]
        return [self.hidden[i] for i in rows], np.concatenate(positions), np.concatenate([self.right[i] for i in rows])


@dataclass(frozen=True)
class LabelledWords(Evidence):
    """Texts whose words and signs (`files.english.units`) have a label each, that of their first token.

    Answers are (U, L), the probabilities of the labels.
    """

    def reference(self, source: Checkpoint, predictor: Any) -> Array:
        """Return the checkpoint's own answers (U, L). Raises as `torch_logits` does."""
        rows, own = [], _Torch(source, predictor)
        for row in self.rows:
            read_alike(source, predictor.tokenizer, row.text)
            rows.append(tag_probabilities(cast(Predictor, own), row.text, units(row.text)))
        return np.concatenate(rows)

    def answers(self, predictor: Any) -> Array:
        """Return the answers of an exported file (U, L)."""
        return np.concatenate([tag_probabilities(predictor, row.text, units(row.text)) for row in self.rows])

    def agreement(self, first: Array, second: Array) -> Array:
        """Return for each row the share of its units with the same label, (N,)."""
        return by_row(decide_tags(first, self.thresholds) == decide_tags(second, self.thresholds), self.counts)

    def scores(self, probabilities: Array) -> Array:
        """Return for each labelled row the share of its units that have the right label, (labelled,)."""
        known = np.repeat(self.labelled, self.counts)
        given = decide_tags(probabilities[known], self.thresholds)
        right = [self.labels.index(label) for row in self.rows for label in cast(tuple[str, ...], row.label or ())]
        return by_row(given == np.array(right, dtype=np.int64), self.counts[self.labelled])

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many units each row has, (N,)."""
        return np.array([len(units(row.text)) for row in self.rows], dtype=np.int64)


@dataclass(frozen=True)
class _Torch:
    """A checkpoint that labels tokens as its exported file does, by torch."""

    source: Checkpoint
    predictor: Predictor

    @property
    def tokenizer(self) -> Tokenizer:
        return self.predictor.tokenizer

    @property
    def labels(self) -> tuple[str, ...]:
        return self.source.labels

    def compute(self, batch: Sequence[Tokens]) -> Array:
        """Logits of one text (1, T, L), divided by the temperature."""
        (tokens,) = batch
        ids, types = torch.tensor([tokens.ids]), torch.tensor([tokens.types])
        logits = self.source.answer(ids, torch.ones_like(ids), types)
        return np.asarray(logits.double().numpy() / self.source.temperature)

    def probabilities(self, logits: Array) -> Array:
        return self.predictor.probabilities(logits)


def by_row(values: NDArray[Any], counts: NDArray[np.int64]) -> Array:
    """Return the mean of each row's values, of which it has so many; rows without any have no part in it."""
    row_of = np.repeat(np.arange(len(counts)), counts)
    sums = np.bincount(row_of, weights=values.astype(float), minlength=len(counts))
    return np.asarray(sums[counts > 0] / counts[counts > 0])


def masked_text(text: str) -> str:
    """Return a built-in text with its middle word hidden."""
    words = text.split(" ")
    middle = len(words) // 2
    return " ".join([*words[:middle], MASK, *words[middle + 1 :]])


def _reduced(logits: Array, right: NDArray[np.int64]) -> Array:
    """What is kept of logits (P, V): (P, 3), see `HiddenWords`."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    total, rows = shifted.sum(axis=1), np.arange(len(right))
    best = logits.argmax(axis=1)
    return np.stack([best.astype(float), shifted[rows, best] / total, shifted[rows, right] / total], axis=1)
