"""A matrix and what flows through it in, the blocks and the low-rank remainder that come nearest out.

Serves `squeeze.py`. Legend: N tokens, I inputs, O outputs, G groups, R rank.

All fits are least squares of the layer's outputs: with A the second moments of the inputs (I, I) and W the best dense
matrix (O, I), a matrix V costs tr((V - W) A (V - W)'), so blocks and ranks are fitted to W in the metric A.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

# The least that a fit is drawn to its prior: about the rounding of the moments
_LEAST_RIDGE = 1e-7
# Rounds of fitting blocks and remainder in turn; the error falls by less than 1 % a round after these
ROUNDS = 12


@dataclass
class Moments:
    """Sums over tokens that a least-squares fit needs: products in single, sums of batches in double precision."""

    inputs: int
    """Channels of the input."""
    outputs: int
    """Channels of the output."""
    tokens: int = 0
    """Tokens added so far."""
    _sums: dict[str, Tensor] = field(default_factory=dict, init=False)

    def add(self, x_NI: Tensor, y_NO: Tensor) -> None:
        """Add tokens: their inputs and the outputs that are wanted of them."""
        x, y = x_NI.float(), y_NO.float()
        sums = {"x": x.sum(0), "y": y.sum(0), "xx": x.T @ x, "yx": y.T @ x, "yy": y.pow(2).sum(0)}
        for name, value in sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.double()
        self.tokens += len(x)

    def target(self, prior_OI: Tensor, ridge: float) -> Target:
        """Return the best dense matrix, drawn towards `prior_OI` by `ridge` times the mean variance of an input.

        Raises `ValueError` without tokens.
        """
        if not self.tokens:
            raise ValueError("no tokens to fit on")
        x, y = self._sums["x"] / self.tokens, self._sums["y"] / self.tokens
        xx = self._sums["xx"] / self.tokens - torch.outer(x, x)
        yx = self._sums["yx"] / self.tokens - torch.outer(y, x)
        variance = (self._sums["yy"] / self.tokens - y**2).clamp_min(0)
        drawn = max(ridge, _LEAST_RIDGE) * xx.diagonal().mean() + 1e-12
        A = xx + torch.eye(self.inputs, dtype=xx.dtype) * drawn
        W = torch.linalg.solve(A, (yx + drawn * prior_OI.double()).T).T
        return Target(W, A, xx, yx, x, y, variance)


@dataclass(frozen=True)
class Target:
    """What a fit aims at."""

    W: Tensor
    """Best dense matrix, (O, I)."""
    A: Tensor
    """Second moments of the centred inputs, ridge included, (I, I)."""
    xx: Tensor
    """Second moments of the centred inputs, (I, I)."""
    yx: Tensor
    """Moments of the centred outputs with the centred inputs, (O, I)."""
    mean_x: Tensor
    """Mean input, (I,)."""
    mean_y: Tensor
    """Mean output, (O,)."""
    variance: Tensor
    """Variance of each output, (O,)."""

    def bias(self, V_OI: Tensor) -> Tensor:
        """Return the bias (O,) with which the matrix `V_OI` gives the mean output for the mean input."""
        return self.mean_y - V_OI @ self.mean_x

    def error(self, V_OI: Tensor) -> float:
        """Return the squared error of the outputs of `V_OI`, relative to the variance of what is wanted."""
        total = self.variance.sum()
        lost = total + ((V_OI @ self.xx - 2 * self.yx) * V_OI).sum()
        return float(lost.clamp_min(0) / total.clamp_min(1e-12))


@dataclass(frozen=True)
class Fitted:
    """A matrix in its shape."""

    matrix: Tensor
    """The whole of it, written out, (O, I)."""
    blocks: Tensor | None
    """Its blocks, (O, I / G), or None without groups."""
    down: Tensor | None
    """First factor of the remainder, (R, I), or None without rank."""
    up: Tensor | None
    """Second factor of the remainder, (O, R), or None without rank."""


def fit_blocks(W_OI: Tensor, A_II: Tensor, groups: int) -> Tensor:
    """Return the blocks (O, I / G) that come nearest to `W_OI` in the metric `A_II`.

    Each block answers for the inputs of other groups too, as far as its own are correlated with them.
    """
    rows, columns = W_OI.shape[0] // groups, W_OI.shape[1] // groups
    blocks = []
    for g in range(groups):
        own = slice(g * columns, (g + 1) * columns)
        wanted = W_OI[g * rows : (g + 1) * rows] @ A_II[:, own]
        blocks.append(torch.linalg.solve(A_II[own, own], wanted.T).T)
    return torch.cat(blocks)


def spread_blocks(blocks: Tensor, groups: int) -> Tensor:
    """Return blocks (O, I / G) as the dense matrix (O, I) that they make."""
    return cast(Tensor, torch.block_diag(*blocks.chunk(groups)))


def fit_low_rank(W_OI: Tensor, A_II: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return factors up (O, R) and down (R, I) whose product comes nearest to `W_OI` in the metric `A_II`.

    This is reduced-rank regression (Izenman 1975): the outputs are projected on their principal directions. The
    scale of a direction is shared equally by the two factors.
    """
    if W_OI.shape[0] <= W_OI.shape[1]:
        energies, directions = torch.linalg.eigh(W_OI @ A_II @ W_OI.T)
        directions, energies = directions[:, -rank:], energies[-rank:]
        down = directions.T @ W_OI
    else:
        # The same directions from the smaller side: A = L L', and W L has the singular vectors that are wanted
        # (by eigenvectors, because rounding leaves moments of few tokens indefinite)
        variances, axes = torch.linalg.eigh(A_II)
        L = axes * variances.clamp_min(0).sqrt()
        energies, right = torch.linalg.eigh(L.T @ (W_OI.T @ W_OI) @ L)
        right, energies = right[:, -rank:], energies[-rank:]
        size = energies.clamp_min(1e-20).sqrt()
        directions = W_OI @ (L @ right) / size
        down = directions.T @ W_OI
    scale = energies.clamp_min(0).pow(0.25)
    scale = scale.clamp_min(1e-6 * float(scale.max()) + 1e-12)
    # down's rows have variance `scale` squared squared: divide once, multiply up by as much
    return directions * scale, down / scale[:, None]


def fit(targets: Sequence[Target], shapes: Sequence[tuple[int, int]], shared: bool = False) -> list[Fitted]:
    """Fit matrices that read the same input to `shapes` of (groups, rank).

    With `shared`, their remainders have one first factor, and their ranks are equal. Blocks and remainder are fitted
    in turn, each to what the other leaves.
    """
    if not shared:
        return [_fit_together([target], [shape])[0] for target, shape in zip(targets, shapes, strict=True)]
    return _fit_together(targets, shapes)


def _fit_together(targets: Sequence[Target], shapes: Sequence[tuple[int, int]]) -> list[Fitted]:
    A, rank = targets[0].A, shapes[0][1]
    W = torch.cat([target.W for target in targets])
    sizes = [len(target.W) for target in targets]
    remainder = torch.zeros_like(W)
    up = down = None
    blocks: list[Tensor | None] = [None] * len(targets)
    with_blocks = any(groups for groups, _ in shapes)
    for _ in range(ROUNDS if rank and with_blocks else 1):
        spread = []
        for i, (left, (groups, _)) in enumerate(zip((W - remainder).split(sizes), shapes, strict=True)):
            block = blocks[i] = fit_blocks(left, A, groups) if groups else None
            spread.append(torch.zeros_like(left) if block is None else spread_blocks(block, groups))
        kept = torch.cat(spread)
        if rank:
            up, down = fit_low_rank(W - kept, A, rank)
            remainder = up @ down
    whole = (kept + remainder).split(sizes)
    ups = [None] * len(sizes) if up is None else up.split(sizes)
    return [Fitted(matrix, block, down, part) for matrix, block, part in zip(whole, blocks, ups, strict=True)]
