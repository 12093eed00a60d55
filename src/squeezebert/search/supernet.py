"""A dense encoder in, one network that is every point of a search space at once out: a supernet, as in SqueezeNAS.

Each matrix holds the dense weights, blocks for each number of groups, with and without a remainder, and remainders
whose directions are ordered, so that a lower rank is the beginning of a higher one. What a network of the space
multiplies by is written out as one dense matrix, the sum of its parts weighed by gates: a mixed layer, in which every
choice has a probability, costs one dense product like a plain one. All start from least-squares fits to the dense
model's own inputs. Legend: B batch, T tokens, C channels, O outputs, I inputs, R rank, H heads.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask

from squeezebert.model import SqueezeBertModel
from squeezebert.model.configuration import GROUP_FIELDS
from squeezebert.model.modeling import eager_attention
from squeezebert.search.space import Shape, Space
from squeezebert.training.fitting import Moments, Target, fit_blocks, fit_low_rank, spread_blocks
from squeezebert.training.narrowing import rank_units
from squeezebert.training.regroup import (
    Orders,
    assign_evenly,
    block_energies,
    find_orders,
    input_variances,
    reorder,
    watch_inputs,
)
from squeezebert.training.squeeze import RIDGE

Gates = Mapping[str, Tensor]
"""Probabilities of a layer's choices by field, each (choices,), summing to 1."""
_ROUNDS = 4  # of fitting blocks and remainder in turn


class SuperMatrix(nn.Module):
    """One matrix in all its shapes: `written_out` is what a mixture of them multiplies by.

    What it multiplies is the input's difference from `center`, its mean over text: so one bias suits all shapes.
    """

    center: Tensor

    def __init__(self, W_OI: Tensor, bias_O: Tensor, groups: Sequence[int], rank: int, own_down: bool) -> None:
        super().__init__()
        outputs, inputs = W_OI.shape
        self.groups = tuple(groups)
        self.bias = nn.Parameter(bias_O.clone())
        self.register_buffer("center", torch.zeros(inputs))
        self.dense = nn.Parameter(W_OI.clone())
        several = [g for g in groups if g > 1]
        self.blocks = nn.ParameterDict({str(g): torch.empty(outputs, inputs // g) for g in several})
        # Blocks that have a remainder beside them, which leaves them other things to say
        self.beside = nn.ParameterDict({str(g): torch.empty(outputs, inputs // g) for g in several})
        # The remainder of one group is all there is
        self.up = nn.ParameterDict({str(g): torch.empty(outputs, rank) for g in groups if rank})
        self.down = nn.ParameterDict({str(g): torch.empty(rank, inputs) for g in groups if rank and own_down})

    def written_out(self, groups: Tensor, ranks: Tensor, reach: Tensor, shared_down: Tensor | None = None) -> Tensor:
        """Return the matrix (O, I) of a mixture.

        `groups` are the probabilities of the numbers of groups, `ranks` those of the ranks, of which the first is
        none, and `reach` (ranks, R) says which directions each rank has.
        """
        kept_R = ranks @ reach
        alone, matrix = ranks[0], torch.zeros_like(self.dense)
        for probability, g in zip(groups, self.groups, strict=True):
            if not probability.item():
                continue
            if alone.item():
                blocks = self.dense if g == 1 else spread_blocks(self.blocks[str(g)], g)
                matrix = matrix + probability * alone * blocks
            if alone.item() < 1:
                if g > 1:
                    matrix = matrix + probability * (1 - alone) * spread_blocks(self.beside[str(g)], g)
                down = self.down[str(g)] if shared_down is None else shared_down
                matrix = matrix + probability * (self.up[str(g)] * kept_R) @ down
        return matrix

    @torch.no_grad()
    def fit(self, target: Target, shared_down: Tensor | None = None) -> None:
        """Start every shape from its least-squares fit to the dense matrix, for inputs of the target's moments."""
        W, A = self.dense.double(), target.A
        self.center.copy_(target.mean_x)
        self.bias.add_(self.dense @ self.center)
        for g in self.groups:
            if g > 1:
                self.blocks[str(g)].copy_(fit_blocks(W, A, g))
            if str(g) not in self.up:
                continue
            remainder = torch.zeros_like(W)
            down = None if shared_down is None else shared_down.double()
            up = torch.zeros(len(W), 0)
            for _ in range(_ROUNDS if g > 1 else 1):
                kept = torch.zeros_like(W)
                if g > 1:
                    blocks = fit_blocks(W - remainder, A, g)
                    self.beside[str(g)].copy_(blocks)
                    kept = spread_blocks(blocks, g)
                if shared_down is None:
                    up, down = (
                        part.flip(axis)
                        for part, axis in zip(fit_low_rank(W - kept, A, self.rank), (1, 0), strict=True)
                    )
                else:
                    up = _up_for(W - kept, A, cast(Tensor, down))
                remainder = up @ cast(Tensor, down)
            self.up[str(g)].copy_(up)
            if shared_down is None:
                self.down[str(g)].copy_(cast(Tensor, down))

    @property
    def rank(self) -> int:
        """Directions of the largest remainder."""
        return max((up.shape[1] for up in self.up.values()), default=0)


class SuperLayer(nn.Module):
    """One block of the encoder with every choice of its halves."""

    def __init__(self, block: Any, space: Space) -> None:
        super().__init__()
        C, D = space.hidden_size, space.head_size
        self.choices = dict(space.choices)
        self.head_size = D
        attention = block.attention
        ranks = self.choices["q_rank"]
        self.shared_down = nn.Parameter(torch.zeros(max(ranks), C))
        sources = {
            "q": attention.query,
            "k": attention.key,
            "v": attention.value,
            "post_attention": block.post_attention.conv1d,
            "intermediate": block.intermediate.conv1d,
            "output": block.output.conv1d,
        }
        self.matrices = nn.ModuleDict()
        for name, source in sources.items():
            rank = max(self.choices["q_rank" if name in "qkv" else f"{name}_rank"])
            self.matrices[name] = SuperMatrix(
                source.weight[..., 0].detach(),
                source.bias.detach(),
                self.choices[f"{name}_groups"],
                rank,
                name not in "qkv",
            )
        self.norms = nn.ModuleDict(
            {
                "attention": copy.deepcopy(block.post_attention.layernorm),
                "output": copy.deepcopy(block.output.layernorm),
            }
        )
        for name in ("q_rank", "post_attention_rank", "intermediate_rank", "output_rank"):
            values = self.choices[name]
            reach = torch.tensor([[float(k < rank) for k in range(max(values))] for rank in values])
            self.register_buffer(f"{name}_reach", reach.view(len(values), max(values)), persistent=False)
        # Which heads and inner channels each number of them keeps
        self.register_buffer("kept_heads", torch.ones(len(self.choices["kept_heads"]), attention.heads))
        inner = block.intermediate.conv1d.out_features
        self.register_buffer("intermediate_size", torch.ones(len(self.choices["intermediate_size"]), inner))

    def matrix(self, name: str, gates: Gates) -> Tensor:
        """One matrix of the mixture, (O, I)."""
        rank = "q_rank" if name in "qkv" else f"{name}_rank"
        shared = self.shared_down if name in "qkv" else None
        matrix = cast(SuperMatrix, self.matrices[name])
        return matrix.written_out(gates[f"{name}_groups"], gates[rank], getattr(self, f"{rank}_reach"), shared)

    def forward(self, x_BTC: Tensor, mask: Tensor | None, gates: Gates) -> Tensor:
        """Return the block's states (B, T, C)."""
        left_out = self._probability_of(gates, "kept_heads", 0)
        if left_out.item() < 1:
            x_BTC = self._mix(x_BTC, self._attention(x_BTC, mask, gates), left_out)
        left_out = self._probability_of(gates, "intermediate_size", 0)
        if left_out.item() < 1:
            x_BTC = self._mix(x_BTC, self._feed_forward(x_BTC, gates), left_out)
        return x_BTC

    @staticmethod
    def _mix(x: Tensor, half: Tensor, left_out: Tensor) -> Tensor:
        return half if not left_out.item() else left_out * x + (1 - left_out) * half

    def _probability_of(self, gates: Gates, field: str, value: Any) -> Tensor:
        values = self.choices[field]
        return gates[field][values.index(value)] if value in values else gates[field].new_zeros(())

    def _kept(self, gates: Gates, field: str) -> Tensor:
        """How much of each unit is there, given that the half is: (units,)."""
        masks, probabilities = cast(Tensor, getattr(self, field)), gates[field]
        there = masks.any(dim=1).to(probabilities.dtype) * probabilities
        return (there / there.sum().clamp_min(1e-9)) @ masks

    def _linear(self, name: str, x: Tensor, gates: Gates, kept_I: Tensor | None = None) -> Tensor:
        """A matrix times (..., I); of inputs that are not kept, the mean is."""
        source, matrix = cast(SuperMatrix, self.matrices[name]), self.matrix(name, gates)
        matrix = matrix if kept_I is None else matrix * kept_I
        return F.linear(x, matrix, source.bias - matrix @ source.center)

    def _attention(self, x_BTC: Tensor, mask: Tensor | None, gates: Gates) -> Tensor:
        B, T, _ = x_BTC.shape
        query, key, value = (
            self._linear(name, x_BTC, gates).view(B, T, -1, self.head_size).transpose(1, 2) for name in "qkv"
        )
        context_BTHD, _ = eager_attention(self, query, key, value, mask, self.head_size**-0.5)
        kept_A = self._kept(gates, "kept_heads").repeat_interleave(self.head_size)
        attended = self._linear("post_attention", context_BTHD.reshape(B, T, -1), gates, kept_A)
        return cast(Tensor, self.norms["attention"](attended + x_BTC))

    def _feed_forward(self, x_BTC: Tensor, gates: Gates) -> Tensor:
        wide = self._linear("intermediate", x_BTC, gates)
        probabilities = gates["intermediate_act"]
        mixed = [
            probability * ACT2FN[name](wide)
            for probability, name in zip(probabilities, self.choices["intermediate_act"], strict=True)
            if probability.item()
        ]
        active = torch.stack(mixed).sum(0) if len(mixed) > 1 else mixed[0]
        narrowed = self._linear("output", active, gates, self._kept(gates, "intermediate_size"))
        return cast(Tensor, self.norms["output"](narrowed + x_BTC))


class Supernet(nn.Module):
    """An encoder of super layers over the dense model's embeddings."""

    def __init__(self, dense: SqueezeBertModel, space: Space) -> None:
        super().__init__()
        self.space, self.config = space, dense.config
        self.embeddings = copy.deepcopy(dense.embeddings).requires_grad_(False)
        self.layers = nn.ModuleList(SuperLayer(block, space) for block in dense.encoder.layers)
        self.layers.requires_grad_(True)  # whether or not the dense model is frozen

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        dense: SqueezeBertModel,
        space: Space,
        batches: Sequence[tuple[Tensor, Tensor, Tensor]],
        ridge: float = RIDGE,
    ) -> Supernet:
        """Build a supernet whose every shape is fitted to what `dense` computes on `batches`.

        `dense` is one whose channels lie as `nested_order` puts them. `batches` are token ids, attention masks and
        token types, (B, T) each.
        """
        found = cls(dense, space)
        ranking = rank_units(dense, batches)
        moments = _input_moments(dense, batches)
        largest = max(space.choices["intermediate_groups"])
        for i, (layer, block) in enumerate(zip(found.layers, dense.encoder.layers, strict=True)):
            layer = cast(SuperLayer, layer)
            _set_masks(layer, ranking.heads[i], ranking.inner[i], largest)
            attention = cast(Any, block).attention
            sources = (attention.query, attention.key, attention.value)
            target = _target(moments[attention.query], ridge)
            W = torch.cat([source.weight[..., 0] for source in sources])
            if rank := len(layer.shared_down):
                layer.shared_down.copy_(fit_low_rank(W.double(), target.A, rank)[1].flip(0))
            for name in "qkv":
                cast(SuperMatrix, layer.matrices[name]).fit(target, layer.shared_down)
            for name in ("post_attention", "intermediate", "output"):
                source = getattr(block, name).conv1d
                cast(SuperMatrix, layer.matrices[name]).fit(_target(moments[source], ridge))
        return found

    def forward(self, ids: Tensor, mask_BT: Tensor, types: Tensor, gates: Sequence[Gates]) -> list[Tensor]:
        """Return the states (B, T, C) after each block, for one layer of `gates` each."""
        x_BTC = self.embeddings(ids, types)
        mask = create_bidirectional_mask(config=self.config, inputs_embeds=x_BTC, attention_mask=mask_BT)
        states = []
        for layer, own in zip(self.layers, gates, strict=True):
            x_BTC = layer(x_BTC, mask, own)
            states.append(x_BTC)
        return states

    def gates_of(self, shape: Shape) -> list[dict[str, Tensor]]:
        """The gates of one point: 1 for what it chooses and 0 for all else."""
        found = []
        for i in range(self.space.layers):
            own = {}
            for field, values in self.space.choices.items():
                chosen = values.index(shape[field][i] or 1 if field in GROUP_FIELDS else shape[field][i])
                own[field] = F.one_hot(torch.tensor(chosen), len(values)).float()
            found.append(own)
        return found

    @torch.no_grad()
    def extract(self, shape: Shape) -> SqueezeBertModel:
        """Return the network of one point with its share of the weights; it computes what the supernet computes."""
        model = SqueezeBertModel(self.space.config(shape, self.config))
        model.embeddings.load_state_dict(self.embeddings.state_dict())
        gates = self.gates_of(shape)
        for i, (block, layer) in enumerate(zip(model.encoder.layers, self.layers, strict=True)):
            _extract_layer(
                cast(Any, block), cast(SuperLayer, layer), {f: shape[f][i] for f in self.space.choices}, gates[i]
            )
        model.train(False)
        return model


def _extract_layer(block: Any, layer: SuperLayer, chosen: Mapping[str, Any], gates: Gates) -> None:
    heads = layer._kept(gates, "kept_heads").nonzero().flatten()
    D = layer.head_size
    rows = (heads[:, None] * D + torch.arange(D)).flatten()
    inner = layer._kept(gates, "intermediate_size").nonzero().flatten()
    halves: list[tuple[str, Any, Tensor | None, Tensor | None]] = []
    if block.attention is not None:
        attention = block.attention
        if attention.down is not None:
            attention.down.copy_(layer.shared_down[: len(attention.down)])
        halves += [
            (n, m, rows, None) for n, m in zip("qkv", (attention.query, attention.key, attention.value), strict=True)
        ]
        halves.append(("post_attention", block.post_attention.conv1d, None, rows))
        block.post_attention.layernorm.load_state_dict(layer.norms["attention"].state_dict())
    if block.intermediate is not None:
        halves += [
            ("intermediate", block.intermediate.conv1d, inner, None),
            ("output", block.output.conv1d, None, inner),
        ]
        block.output.layernorm.load_state_dict(layer.norms["output"].state_dict())
    for name, target, outputs, inputs in halves:
        source = cast(SuperMatrix, layer.matrices[name])
        groups = chosen[f"{name}_groups"]

        def cut(matrix: Tensor, outputs: Tensor | None = outputs, inputs: Tensor | None = inputs) -> Tensor:
            matrix = matrix if outputs is None else matrix[outputs]
            return matrix if inputs is None else matrix[:, inputs]

        if groups:
            blocks = source.beside if target.rank else source.blocks
            whole = source.dense if groups == 1 else spread_blocks(blocks[str(groups)], groups)
            kept = cut(whole)
            sizes = len(kept) // groups, kept.shape[1] // groups
            diagonal = [
                kept[g * sizes[0] : (g + 1) * sizes[0], g * sizes[1] : (g + 1) * sizes[1]] for g in range(groups)
            ]
            target.weight.copy_(torch.cat(diagonal).unsqueeze(-1))
        if target.rank:
            up = source.up[str(groups or 1)][:, : target.rank]
            target.up.copy_(up if outputs is None else up[outputs])
            if target.down is not None:
                down = source.down[str(groups or 1)][: target.rank]
                target.down.copy_(down if inputs is None else down[:, inputs])
        center = source.center if inputs is None else source.center[inputs]
        bias = source.bias if outputs is None else source.bias[outputs]
        target.bias.copy_(
            bias
            - target.written_out(layer.shared_down[: target.rank] if target.rank and target.down is None else None)
            @ center
        )


@torch.no_grad()
def nested_order(
    dense: SqueezeBertModel, batches: Sequence[tuple[Tensor, Tensor, Tensor]], groups: int = 8, seed: int = 0
) -> SqueezeBertModel:
    """Return a dense encoder with its channels in an order that suits `groups` groups, and half and a quarter as many.

    The order for the largest number is searched, and its groups are then put side by side in pairs, and pairs of
    pairs, that say most to each other. Heads, which may not divide by so many, are put to the groups that they read.
    """
    orders = find_orders(dense, groups, input_variances(dense, batches), seed)
    ordered = reorder(dense, orders)
    energies = block_energies(ordered, input_variances(ordered, batches))
    between = np.zeros((groups, groups))
    for _, up, down in energies:
        for energy in (up, down):
            between += energy.reshape(groups, energy.shape[0] // groups, groups, -1).sum((1, 3))
    sequence = _pair_up(between + between.T)
    config = ordered.config

    def shuffled(count: int) -> Tensor:
        return torch.arange(count).view(groups, -1)[sequence].flatten()

    stream = shuffled(config.hidden_size)
    inner = [shuffled(config.width(i)) for i in range(config.num_hidden_layers)]
    heads = []
    count = max(g for g in range(1, groups + 1) if config.num_attention_heads % g == 0 and groups % g == 0)
    where = np.arange(config.hidden_size) * count // config.hidden_size
    for to_heads, _, _ in energies:
        read = to_heads[:, stream.numpy()] @ np.eye(count)[where]
        heads.append(torch.from_numpy(np.argsort(assign_evenly(read), kind="stable")))
    found: SqueezeBertModel = reorder(ordered, Orders(stream, heads, inner, orders.energy))
    return found


def _pair_up(between: np.ndarray) -> list[int]:
    """An order of things in which neighbours, pairs of neighbours and so on have most between them."""
    count = len(between)
    if count < 2 or count % 2:
        return list(range(count))
    best = max(_matchings(list(range(count))), key=lambda pairs: sum(between[a, b] for a, b in pairs))
    merged = np.array([[between[np.ix_(p, q)].sum() for q in best] for p in best])
    return list(itertools.chain.from_iterable(best[i] for i in _pair_up(merged)))


def _matchings(things: list[int]) -> list[list[tuple[int, int]]]:
    """All ways to make pairs of an even number of things."""
    if not things:
        return [[]]
    first, *rest = things
    return [[(first, other), *pairs] for i, other in enumerate(rest) for pairs in _matchings(rest[:i] + rest[i + 1 :])]


def _up_for(W_OI: Tensor, A_II: Tensor, down_RI: Tensor) -> Tensor:
    """The second factor (O, R) that comes nearest to W in the metric A, given the first."""
    reduced_RR = down_RI @ A_II @ down_RI.T
    reduced_RR = reduced_RR + torch.eye(len(reduced_RR)) * (1e-9 * reduced_RR.diagonal().mean() + 1e-12)
    return cast(Tensor, torch.linalg.solve(reduced_RR, down_RI @ A_II @ W_OI.T).T)


def _target(moment: Moments, ridge: float) -> Target:
    return moment.target(torch.zeros(moment.outputs, moment.inputs), ridge)


def _input_moments(model: SqueezeBertModel, batches: Sequence[tuple[Tensor, Tensor, Tensor]]) -> dict[Any, Moments]:
    """Moments of the inputs of each matrix over text; query stands for key and value too."""
    layers: list[Any] = []
    for block in model.encoder.layers:
        one = cast(Any, block)
        layers += [one.attention.query, one.post_attention.conv1d, one.intermediate.conv1d, one.output.conv1d]
    found = {layer: Moments(layer.in_features, 1) for layer in layers}
    watch_inputs(model, layers, batches, lambda layer, x_NI: found[layer].add(x_NI, x_NI[:, :1]))
    return found


def _set_masks(layer: SuperLayer, heads: Tensor, inner: Tensor, groups: int) -> None:
    """Note which units each number of them keeps: the best of each group, as many in each."""
    for field, ranking in (("kept_heads", heads), ("intermediate_size", inner)):
        masks = getattr(layer, field)
        units = masks.shape[1]
        for row, count in zip(masks, layer.choices[field], strict=True):
            parts = max(g for g in range(1, groups + 1) if units % g == 0 and count % g == 0 and groups % g == 0)
            row.zero_()
            for part in range(parts):
                row[ranking[ranking * parts // units == part][: count // parts]] = 1.0
