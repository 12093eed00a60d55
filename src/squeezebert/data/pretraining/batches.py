"""Rows of tokens in, batches for masked language modelling and sentence-order prediction out. Serves `pretrain`.

Batch k of a seed is always the same, whoever asks for it and when: runs of one process and of several, and runs that
were killed and go on, see the same batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from squeezebert.data.pretraining.rows import Rows
from squeezebert.files.errors import OptionError

IGNORED = -100
"""The label of a token that nothing is asked about, and of a row whose order nothing is asked about."""
_LEAST_SEGMENT = 4  # tokens of a segment, at least
_STRETCH = 64  # batches whose rows are sorted by length together
_STEP = 8  # padded lengths are multiples of it


@dataclass(frozen=True)
class Masking:
    """Which tokens are hidden, and what stands in their place (Devlin et al. 2019)."""

    share: float
    """Share of the tokens that are asked for."""
    whole_words: bool
    """Whether all pieces of a word are asked for together."""
    mask: int
    """Id of the mask token."""
    ordinary: np.ndarray
    """Ids that may stand in for another: all but special ones."""
    begins_word: np.ndarray
    """For each id of the vocabulary, whether it begins a word, (V,) of bool."""

    @classmethod
    def of(cls, tokenizer: Any, share: float, whole_words: bool) -> Masking:
        """Read what masking needs from a tokenizer.

        Raises `OptionError` when it has no mask token, or does not say which pieces begin words.
        """
        if tokenizer.mask_token_id is None:
            raise OptionError("the vocabulary has no [MASK]: masked language modelling needs one")
        pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        special = np.zeros(len(pieces), dtype=bool)
        special[list(tokenizer.all_special_ids)] = True
        begins = np.array([not piece.startswith("##") for piece in pieces])
        if whole_words and begins.all():
            raise OptionError("--whole-words: the vocabulary is not WordPiece, and does not say what begins a word")
        return cls(share, whole_words, int(tokenizer.mask_token_id), np.flatnonzero(~special), begins)

    def hide(
        self, ids_BT: np.ndarray, may_BT: np.ndarray, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids with some hidden, and the labels: what they were, or -100.

        Of the tokens asked for, 80 % become the mask, 10 % another token, 10 % stay. Each row asks for one at least.
        """
        drawn = np.where(may_BT, random.random(ids_BT.shape), 2.0)
        if self.whole_words:
            # Each piece takes the number that was drawn for the first one of its word, or of what a cut left of it
            behind_cut = np.pad(~may_BT[:, :-1], ((0, 0), (1, 0)), constant_values=True)
            first = np.where(self.begins_word[ids_BT] | ~may_BT | behind_cut, np.arange(ids_BT.shape[1]), 0)
            drawn = np.take_along_axis(drawn, np.maximum.accumulate(first, axis=1), axis=1)
        asked = may_BT & ((drawn < self.share) | (drawn == drawn.min(axis=1, keepdims=True)))
        fate = random.random(ids_BT.shape)
        others = self.ordinary[random.integers(0, len(self.ordinary), ids_BT.shape)]
        hidden = np.where(asked & (fate < 0.8), self.mask, np.where(asked & (fate >= 0.9), others, ids_BT))
        return hidden, np.where(asked, ids_BT, IGNORED)


class PretrainingBatches:
    """An endless, seeded row of batches of equally many rows, of like length each.

    A row becomes a pair of segments, cut where a sentence ends, swapped half of the time. A row without such a place
    is cut between two tokens and left in order, and nothing is asked about that: the cut would give the answer.
    Each pass takes every row once, but for less than a batch of them.
    """

    def __init__(
        self, rows: Rows, size: int, tokenizer: Any, masking: Masking, seed: int, *, varies: bool = True
    ) -> None:
        """Batch rows by `size`; with `varies`, cuts, swaps and masks differ from pass to pass."""
        if len(rows) < size:
            raise OptionError(
                f"the corpus has {len(rows)} rows of this length, less than a batch of {size}: give more text, "
                "or lower --micro-batch"
            )
        self.rows, self.size, self.masking, self.seed, self.varies = rows, size, masking, seed, varies
        self.cls, self.sep, self.pad = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id
        self.of_pass = len(rows) // size
        self._pass: tuple[int, np.ndarray] = (-1, np.empty(0))

    def numbers(self, batch: int) -> np.ndarray:
        """Return the numbers of a batch's rows, (size,)."""
        number, place = divmod(batch, self.of_pass)
        if self._pass[0] != number:
            self._pass = (number, self._order(np.random.default_rng((self.seed, 0, number))))
        found: np.ndarray = self._pass[1][place]
        return found

    def _order(self, random: np.random.Generator) -> np.ndarray:
        """The rows of each batch of a pass, (batches, size): stretches of a random order are sorted by length."""
        order = random.permutation(len(self.rows))[: self.of_pass * self.size]
        for begin in range(0, len(order), _STRETCH * self.size):
            piece = order[begin : begin + _STRETCH * self.size]
            piece = piece[np.argsort(self.rows.length[piece], kind="stable")].reshape(-1, self.size)
            order[begin : begin + piece.size] = piece[random.permutation(len(piece))].ravel()
        return order.reshape(-1, self.size)

    def __getitem__(self, batch: int) -> dict[str, np.ndarray]:
        """Return input_ids, attention_mask, token_type_ids and labels (B, T), and sentence_order_label (B,).

        Both labels are -100 where nothing is asked.
        """
        numbers = self.numbers(batch)
        random = np.random.default_rng((self.seed, 1, batch if self.varies else batch % self.of_pass))
        lengths = self.rows.length[numbers]
        width = -(-(int(lengths.max()) + 3) // _STEP) * _STEP
        shape = (len(numbers), width)
        ids, types = np.full(shape, self.pad, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        swapped = random.random(len(numbers)) < 0.5
        draws = random.random(len(numbers))
        order = swapped.astype(np.int64)
        for place, row in enumerate(numbers):
            tokens, ends = self.rows.ids(row), self.rows.boundaries(row, _LEAST_SEGMENT)
            if len(ends):
                cut = int(ends[int(draws[place] * len(ends))])
            else:
                cut = _LEAST_SEGMENT + int(draws[place] * (len(tokens) - 2 * _LEAST_SEGMENT + 1))
                swapped[place], order[place] = False, IGNORED
            first, second = (tokens[cut:], tokens[:cut]) if swapped[place] else (tokens[:cut], tokens[cut:])
            middle, end = len(first) + 1, len(tokens) + 2
            ids[place, 0] = self.cls
            ids[place, 1:middle] = first
            ids[place, [middle, end]] = self.sep
            ids[place, middle + 1 : end] = second
            types[place, middle + 1 : end + 1] = 1
        mask = (np.arange(width) < (lengths + 3)[:, None]).astype(np.int64)
        may = mask.astype(bool) & (ids != self.cls) & (ids != self.sep)
        hidden, labels = self.masking.hide(ids, may, random)
        return {
            "input_ids": hidden,
            "attention_mask": mask,
            "token_type_ids": types,
            "labels": labels,
            "sentence_order_label": order,
        }

    def padding(self) -> float:
        """Return the share of all positions of the first pass that is padding."""
        lengths = self.rows.length[self._order(np.random.default_rng((self.seed, 0, 0)))] + 3
        positions = (-(-lengths.max(axis=1) // _STEP) * _STEP).sum() * self.size
        return float(1 - lengths.sum() / positions)
