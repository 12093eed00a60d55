"""A latency table in, the expected latency of a mixture of choices, with gradients, out. Serves the Gumbel search."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from squeezebert.search.latency import LatencyTable, attention_rest, feed_forward_rest, matrix_work, shared_work
from squeezebert.search.supernet import Gates

Part = tuple[tuple[str, ...], Tensor]
"""Fields whose choices together decide what a part of a layer costs, and its price for each of their choices."""


class Prices:
    """What each part of each layer costs by its choices, as ratios to the anchor; the parts add up.

    What depends on two matrices at once (pieces that one makes and the other reads) is priced as if keys alone split
    the input of attention, and the feed-forward network's halves had the same groups. The search's end asks the table
    itself.
    """

    def __init__(self, table: LatencyTable) -> None:
        self.table = table
        self.fixed = float(table.prices[-1])
        self.layers = [self._parts(layer == table.space.layers - 1) for layer in range(table.space.layers)]

    def expected(self, gates: Sequence[Gates]) -> Tensor:
        """The expected ratio of a network whose choices have these probabilities."""
        total = torch.tensor(self.fixed)
        for parts, own in zip(self.layers, gates, strict=True):
            for fields, prices in parts:
                left = prices
                for field in fields:
                    left = torch.tensordot(own[field], left, dims=1)
                total = total + left
        return total

    def _parts(self, last: bool) -> list[Part]:
        space, T = self.table.space, self.table.target.tokens
        C, D, own = space.hidden_size, space.head_size, 1 if last else self.table.target.tokens
        parts = [
            self._part(("kept_heads",), lambda heads: attention_rest(C, D, T, own, heads)),
            self._part(("kept_heads", "q_rank"), lambda heads, rank: shared_work(C, T, rank)),
        ]
        for name, rows in (("q", own), ("k", T), ("v", T)):

            def projection(heads: int, groups: int, rank: int, name: str = name, rows: int = rows) -> np.ndarray:
                return matrix_work(rows, C, heads * D, groups, rank, shared=True, joins=name == "k")

            parts.append(self._part(("kept_heads", f"{name}_groups", "q_rank"), projection))
        for fields, work in (
            (
                ("kept_heads", "post_attention_groups", "post_attention_rank"),
                lambda heads, groups, rank: matrix_work(own, heads * D, C, groups, rank),
            ),
            (
                ("intermediate_size", "intermediate_groups", "intermediate_rank"),
                lambda width, groups, rank: matrix_work(own, C, width, groups, rank, joins=False),
            ),
            (
                ("intermediate_size", "output_groups", "output_rank"),
                lambda width, groups, rank: matrix_work(own, width, C, groups, rank),
            ),
            (("intermediate_size", "intermediate_act"), lambda width, act: feed_forward_rest(C, own, width, act)),
        ):
            parts.append(self._part(fields, work))
        return parts

    def _part(self, fields: tuple[str, ...], work: Callable[..., np.ndarray]) -> Part:
        values = [self.table.space.choices[field] for field in fields]
        prices = np.zeros([len(one) for one in values])
        for place in itertools.product(*(range(len(one)) for one in values)):
            chosen = [one[i] for one, i in zip(values, place, strict=True)]
            if chosen[0]:  # heads or width: a half that is left out costs nothing
                prices[place] = float(work(*chosen) @ self.table.prices)
        return fields, torch.tensor(prices, dtype=torch.float32)
