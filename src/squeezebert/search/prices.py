"""A latency table in, the expected latency of a mixture of choices, with gradients, out. Serves the Gumbel search."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from squeezebert.search.latency import PARTS, LatencyTable, Surroundings, surroundings
from squeezebert.search.supernet import Gates

Part = tuple[tuple[str, ...], Tensor]
"""Fields whose choices together decide what a part of a layer costs, and its price for each of their choices."""


class Prices:
    """What each part of each layer costs by its choices, as ratios to the anchor; the parts add up.

    Choices that make no sense together cost what they are repaired to, as drawn networks are. So the expected ratio is
    the table's mean over networks that are drawn by the probabilities, and where these are 0 and 1, its prediction.
    """

    def __init__(self, table: LatencyTable) -> None:
        space, target = table.space, table.target
        self.table = table
        self.fixed = float(table.prices[-1])
        layers = surroundings(space, target.tokens, target.reads)
        # All layers but the last are alike
        priced = self._priced(list(dict.fromkeys(layers)))
        self.layers = [priced[around] for around in layers]

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

    def _priced(self, kinds: Sequence[Surroundings]) -> dict[Surroundings, list[Part]]:
        """The parts of a layer in each of some surroundings."""
        choices = self.table.space.choices
        found: dict[Surroundings, list[Part]] = {kind: [] for kind in kinds}
        for fields, work in PARTS.items():
            values = [choices[field] for field in fields]
            rest = {field: own[0] for field, own in choices.items()}
            points = [
                self.table.space.fit({**rest, **dict(zip(fields, chosen, strict=True))})
                for chosen in itertools.product(*values)
            ]
            for kind, parts in found.items():
                asked = np.stack([work(kind, *(point[field] for field in fields)) for point in points])
                prices = (asked @ self.table.prices).reshape([len(own) for own in values])
                parts.append((fields, torch.tensor(prices, dtype=torch.float32)))
        return found
