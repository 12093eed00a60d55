"""One matrix of a model, whatever its shape, as the products that engines run at full speed. Serves `graph.py`.

Legend: N tokens of the whole batch, C channels, G groups, R rank.

A grouped layer is one product a group: a grouped convolution is slow in fp32 and slower still in int8. A low-rank
remainder adds two products, and where they go was measured (onnxruntime 1.32, one thread, fp32 and int8, with and
without AMX): where the layer keeps or widens its input, the reduced channels join each group's own, so that each group
stays one product; where it narrows, each group's product makes its share of the reduced channels as further outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import cast

import torch
from torch import Tensor, nn

from squeezebert.export.writer import Value, Writer
from squeezebert.model import GroupedLinear


class Channels:
    """The channels of all tokens, (N, C), in as many pieces as their readers want; each way is written once.

    `reduced` (N, R) is the reduced input of the readers that share one.
    """

    def __init__(self, writer: Writer, pieces: Sequence[Value], reduced: Value | None = None) -> None:
        self.writer, self.pieces, self.reduced = writer, list(pieces), reduced
        self._by_group = {len(self.pieces): self.pieces}
        self._joined: dict[int, list[Value]] = {}

    @property
    def whole(self) -> Value:
        """All channels, (N, C)."""
        return self.by_group(1)[0]

    def by_group(self, groups: int) -> list[Value]:
        """Return G pieces (N, C / G)."""
        if groups not in self._by_group:
            self._by_group[groups] = (
                [self.writer.op.Concat(*self.pieces, axis=-1)]
                if groups == 1
                else self.writer.split(self.whole, groups)
            )
        return self._by_group[groups]

    def joined(self, groups: int) -> list[Value]:
        """Return G pieces (N, C / G + R): each group's channels, then the reduced ones."""
        if groups not in self._joined:
            op = self.writer.op
            self._joined[groups] = [op.Concat(piece, self.reduced, axis=-1) for piece in self.by_group(groups)]
        return self._joined[groups]


class Matrix(nn.Module, ABC):
    """One position-wise layer; its output is in one piece, or one a group."""

    pieces = 1
    """of the output"""
    shares = False
    """whether it reads the reduced input that `Channels` bring along"""

    @abstractmethod
    def write(self, x: Channels) -> list[Value]:
        """Write the layer and return its output: `pieces` values (N, C_out / pieces)."""


class Blocks(Matrix):
    """One product a group: G weights (C_in / G, C_out / G); a dense matrix is G = 1."""

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
        super().__init__()
        self.weights, self.biases, self.pieces = _constants(weights), _constants(biases), len(weights)

    def write(self, x: Channels) -> list[Value]:
        return _products(x.writer, x.by_group(self.pieces), self.weights, self.biases)


class Factors(Matrix):
    """No blocks: `down` (C_in, R), or a reduced input from outside, then `up` (R, C_out)."""

    def __init__(self, down: Tensor | None, up: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.down, self.up, self.bias = _constants([] if down is None else [down]), _constant(up), _constant(bias)
        self.shares = down is None

    def write(self, x: Channels) -> list[Value]:
        reduced = cast(Value, x.reduced) if self.shares else _reduced(x, self.down[0])
        return _products(x.writer, [reduced], [self.up], [self.bias])


class JoinedBlocks(Matrix):
    """[x_g, z] times [W_g; up_g] for each group g, with z = x times down: G weights (C_in / G + R, C_out / G)."""

    def __init__(self, down: Tensor | None, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
        super().__init__()
        self.down = _constants([] if down is None else [down])
        self.weights, self.biases, self.pieces = _constants(weights), _constants(biases), len(weights)
        self.shares = down is None

    def write(self, x: Channels) -> list[Value]:
        if not self.shares:
            x = Channels(x.writer, x.by_group(self.pieces), _reduced(x, self.down[0]))
        return _products(x.writer, x.joined(self.pieces), self.weights, self.biases)


class AppendedBlocks(Matrix):
    """x_g times [W_g, down_g]; the groups' shares of z are summed and go up in one product, for all outputs."""

    def __init__(self, weights: Sequence[Tensor], up: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weights, self.up, self.bias = _constants(weights), _constant(up), _constant(bias)

    def write(self, x: Channels) -> list[Value]:
        writer, op = x.writer, x.writer.op
        groups, (rank, width) = len(self.weights), self.up.shape
        sizes = width // groups, rank
        products = [op.MatMul(x_g, writer.weight(w)) for x_g, w in zip(x.by_group(groups), self.weights, strict=True)]
        outputs, shares = zip(*(writer.split(product, 2, sizes) for product in products), strict=True)
        (above,) = _products(writer, [reduce(op.Add, shares)], [self.up], [self.bias])
        return [op.Add(op.Concat(*outputs, axis=-1), above)]


def write_matrix(
    layer: GroupedLinear,
    scale_C: Tensor | None = None,
    reduced_scale_R: Tensor | None = None,
    factor: float = 1.0,
    shared_down: Tensor | None = None,
) -> Matrix:
    """Return `layer`, its output times `factor`, for an input divided by `scale_C` beforehand.

    The reduced channels are divided by `reduced_scale_R` in between. A layer without a first factor of its own has
    `shared_down` (R, C_in).
    """
    blocks = _blocks(layer, scale_C, factor)
    bias = layer.bias.detach() * factor
    if layer.up is None:
        return Blocks(blocks, bias.chunk(len(blocks)))
    down = scaled_down(shared_down if layer.down is None else layer.down, scale_C, reduced_scale_R)
    up = layer.up.detach().t() * factor
    if reduced_scale_R is not None:
        up = _rotation(len(up)).t() @ (up * reduced_scale_R[:, None])
    if costs_no_less_than_dense(layer):
        dense = torch.block_diag(*blocks) if blocks else torch.zeros(layer.in_features, layer.out_features)
        return Blocks([dense + down @ up], [bias])
    if not blocks:
        return Factors(None if layer.down is None else down, up, bias)
    if appends(layer):
        weights = [torch.cat(pair, dim=1) for pair in zip(blocks, down.chunk(layer.groups), strict=True)]
        return AppendedBlocks(weights, up, bias)
    weights = [torch.cat(pair) for pair in zip(blocks, up.chunk(layer.groups, dim=1), strict=True)]
    return JoinedBlocks(None if layer.down is None else down, weights, bias.chunk(layer.groups))


def costs_no_less_than_dense(layer: GroupedLinear) -> bool:
    """Whether the products of a layer with a remainder are as much work as one dense product, which says the same."""
    dense = layer.in_features * layer.out_features
    # A first factor that is not the layer's own belongs to query, key and value alike
    down = layer.rank * layer.in_features // (3 if layer.down is None else 1)
    return (dense // layer.groups if layer.groups else 0) + down + layer.rank * layer.out_features >= dense


def appends(layer: GroupedLinear) -> bool:
    """Whether a layer's reduced channels are outputs of its groups: it narrows, and has a first factor of its own."""
    return layer.down is not None and layer.in_features > layer.out_features


def scaled_down(down: Tensor | None, scale_C: Tensor | None, reduced_scale_R: Tensor | None) -> Tensor:
    """Return a first factor (R, C_in) as the weights (C_in, R) of a product with scaled input and output.

    A scaled output is also rotated, and `write_matrix` rotates its reader back: the few directions that carry most
    of a remainder are spread over all reduced channels, whose 8-bit range then fits each.
    """
    weight = cast(Tensor, down).detach().t()
    weight = weight if scale_C is None else weight * scale_C[:, None]
    if reduced_scale_R is not None:
        weight = (weight / reduced_scale_R) @ _rotation(len(reduced_scale_R))
    return weight.contiguous()


def _rotation(rank: int) -> Tensor:
    """Return an orthogonal matrix (R, R), the discrete cosine transform's: every row mixes all channels."""
    places = torch.arange(rank, dtype=torch.float64)
    waves: Tensor = torch.cos(torch.pi / rank * (places[:, None] + 0.5) * places) * (2.0 / rank) ** 0.5
    waves[:, 0] *= 0.5**0.5
    return waves.float()


def _blocks(layer: GroupedLinear, scale_C: Tensor | None, factor: float) -> list[Tensor]:
    """Return the weights (C_in / G, C_out / G) of each group."""
    if layer.weight is None:
        return []
    weights = layer.weight.detach().squeeze(-1).chunk(layer.groups)
    scales = [1.0] * layer.groups if scale_C is None else scale_C.view(layer.groups, -1, 1)
    return [weight.t() * scale * factor for weight, scale in zip(weights, scales, strict=True)]


def _products(
    writer: Writer, inputs: Iterable[Value], weights: Iterable[Tensor], biases: Iterable[Tensor]
) -> list[Value]:
    return [
        writer.op.Gemm(x, writer.weight(weight), writer.weight(bias))
        for x, weight, bias in zip(inputs, weights, biases, strict=True)
    ]


def _reduced(x: Channels, down: Tensor) -> Value:
    return x.writer.op.MatMul(x.whole, x.writer.weight(down))


def _constant(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().clone(memory_format=torch.contiguous_format), requires_grad=False)


def _constants(tensors: Iterable[Tensor]) -> nn.ParameterList:
    return nn.ParameterList(_constant(tensor) for tensor in tensors)
