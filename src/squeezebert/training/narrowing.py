"""A dense model in, the same with fewer attention heads and narrower feed-forward networks out. Serves `squeeze.py`.

What to keep is found by elimination: heads, or inner channels, are taken away one after the other, each time the one
whose loss the others can make up for best (the optimal brain surgeon of Hassibi and Stork 1993 with units for weights,
as in Kurtic et al. 2023, arXiv 2302.04089). One elimination ranks all units, so that what a narrower model keeps is
part of what a wider one does. Legend: O outputs, I inputs, U units, D inputs of a unit.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from squeezebert.model import SqueezeBertConfig, SqueezeBertPreTrainedModel
from squeezebert.training.fitting import Moments
from squeezebert.training.regroup import watch_inputs

Model = TypeVar("Model", bound=SqueezeBertPreTrainedModel)
NARROWED = ("intermediate_size", "kept_heads")
# Keeps second moments of few tokens invertible, as a share of their mean
_RIDGE = 1e-2


@dataclass(frozen=True)
class Ranking:
    """Every block's heads and inner channels, the most important first."""

    heads: list[Tensor]
    """Of each block, (H,)."""
    inner: list[Tensor]
    """Of each block's feed-forward network, (I,)."""


def narrows_model(config: SqueezeBertConfig, shape: Mapping[str, Any]) -> bool:
    """Whether a shape has fewer heads or inner channels than a model.

    Raises `ValueError` for more than it has.
    """
    wanted = _with_sizes(config, shape)
    found = False
    for layer in range(config.num_hidden_layers):
        for name, asked, there in (
            ("kept_heads", wanted.heads(layer), config.heads(layer)),
            ("intermediate_size", wanted.width(layer), config.width(layer)),
        ):
            if asked > there:
                raise ValueError(
                    f"{name} = {asked} in layer {layer}, and the dense model has {there}: nothing to keep"
                )
            found |= asked < there
    return found


@torch.no_grad()
def rank_units(
    model: SqueezeBertPreTrainedModel, batches: Sequence[tuple[Tensor, Tensor, Tensor]] | None = None
) -> Ranking:
    """Rank the heads and inner channels of a dense model by what they do on text, or, without text, by their weights.

    `batches` are token ids, attention masks and token types, (B, T) each.
    """
    blocks = cast(Any, model.base_model).encoder.layers
    layers = [layer for block in blocks for layer in (block.post_attention.conv1d, block.output.conv1d)]
    moments = {layer: torch.eye(layer.in_features) for layer in layers}
    if batches is not None:
        seen = {layer: Moments(layer.in_features, 1) for layer in layers}
        watch_inputs(model, layers, batches, lambda layer, x_NI: seen[layer].add(x_NI, x_NI[:, :1]))
        moments = {layer: one.target(torch.zeros(1, one.inputs), 0.0).xx for layer, one in seen.items()}
    heads, inner = [], []
    for block in blocks:
        after, down = block.post_attention.conv1d, block.output.conv1d
        heads.append(eliminate(after.weight[..., 0], moments[after], block.attention.head_size))
        inner.append(eliminate(down.weight[..., 0], moments[down], 1))
    return Ranking(heads, inner)


def eliminate(W_OI: Tensor, A_II: Tensor, size: int) -> Tensor:
    """Rank units of `size` inputs each by backward elimination; returns their numbers (U,), the most important first.

    `A_II` are second moments of the inputs. Taking unit u away from W costs tr(W_u inv(inv(A)_uu) W_u') once the
    others make up for it, which changes them and inv(A); so each step knows the steps before it.
    """
    W = W_OI.detach().double().clone()
    A = A_II.double() + torch.eye(len(A_II), dtype=torch.float64) * (_RIDGE * A_II.diagonal().double().mean() + 1e-12)
    inverse = torch.linalg.inv(A)
    left = torch.arange(len(A) // size)
    gone: list[int] = []
    dropped = torch.zeros(len(left), dtype=torch.bool)
    while len(gone) < len(A) // size:
        units = len(left)
        W_UDO = W.view(len(W), units, size).permute(1, 2, 0)
        own_UDD = inverse.view(units, size, units, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        own_UDD = own_UDD + dropped[:, None, None] * torch.eye(size)
        # The cost of each unit: its weights in the metric of what the others cannot make up for
        eased_UDO = W_UDO / own_UDD if size == 1 else torch.linalg.solve(own_UDD, W_UDO)
        costs = (eased_UDO * W_UDO).sum((1, 2)).masked_fill(dropped, torch.inf)
        worst = int(costs.argmin())
        gone.append(int(left[worst]))
        dropped[worst] = True
        rows = slice(worst * size, (worst + 1) * size)
        share_DI = torch.linalg.solve(inverse[rows, rows], inverse[rows])
        W -= W[:, rows] @ share_DI
        inverse -= inverse[:, rows] @ share_DI
        W[:, rows] = inverse[rows] = inverse[:, rows] = 0.0
        if int(dropped.sum()) * 4 >= units > 1:  # smaller matrices from here on
            kept = (~dropped).repeat_interleave(size)
            W, inverse = W[:, kept].contiguous(), inverse[kept][:, kept].contiguous()
            left, dropped = left[~dropped], dropped[~dropped]
    return torch.tensor(gone[::-1])


def narrow(model: Model, shape: Mapping[str, Any], ranking: Ranking) -> Model:
    """Return a dense model with the heads and inner channels that a shape keeps, in the order they are in.

    Where the shape has groups, each keeps as many of its own, so that groups stay what they were. Weights are those of
    `model`; nothing makes up for what is gone. Raises what `narrows_model` raises.
    """
    if not narrows_model(model.config, shape):
        return model
    wanted = _with_sizes(model.config, shape)
    layers = range(wanted.num_hidden_layers)
    sizes = {"kept_heads": [wanted.heads(i) for i in layers], "intermediate_size": [wanted.width(i) for i in layers]}
    told = {**model.config.to_dict(), **sizes, "model_type": SqueezeBertConfig.model_type}
    config = SqueezeBertConfig.from_dict(told)
    narrowed = type(model)(config)
    state = dict(model.state_dict())
    blocks = cast(Any, model.base_model).encoder.layers
    names = {module: name for name, module in model.named_modules()}
    for layer, block in enumerate(blocks):
        attention, up, down = block.attention, block.intermediate.conv1d, block.output.conv1d
        if not config.heads(layer):
            _leave_out(state, names[attention], names[block.post_attention])
        if not config.width(layer):
            _leave_out(state, names[block.intermediate], names[block.output])
        groups = [wanted.groups(f"{name}_groups", layer) for name in "qkv"]
        heads = _kept(ranking.heads[layer], config.heads(layer), max(groups))
        rows = (heads[:, None] * attention.head_size + torch.arange(attention.head_size)).flatten()
        groups = [wanted.groups(f"{name}_groups", layer) for name in ("intermediate", "output")]
        inner = _kept(ranking.inner[layer], config.width(layer), max(groups))
        for matrix in (attention.query, attention.key, attention.value):
            _cut(state, names[matrix], rows, None)
        _cut(state, names[block.post_attention.conv1d], None, rows)
        _cut(state, names[up], inner, None)
        _cut(state, names[down], None, inner)
    narrowed.load_state_dict(state)
    torch.nn.Module.to(narrowed, dtype=model.dtype)
    narrowed.train(model.training)
    return narrowed


def _with_sizes(config: SqueezeBertConfig, shape: Mapping[str, Any]) -> SqueezeBertConfig:
    """A configuration with a shape's groups and sizes, whether or not they fit."""
    wanted = copy.deepcopy(config)
    for name, value in shape.items():
        if name not in NARROWED or value is not None:
            setattr(wanted, name, value)
    return wanted


def _kept(ranking: Tensor, count: int, groups: int) -> Tensor:
    """The `count` best units, or, where groups divide units and count, the best of each of equal stretches; sorted."""
    units = len(ranking)
    if groups < 1 or units % groups or count % groups:
        groups = 1
    best = [ranking[ranking * groups // units == g][: count // groups] for g in range(groups)]
    return torch.cat(best).sort().values


def _leave_out(state: dict[str, Any], *halves: str) -> None:
    for name in [name for name in state if name.startswith(tuple(f"{half}." for half in halves))]:
        del state[name]


def _cut(state: dict[str, Any], name: str, rows: Tensor | None, columns: Tensor | None) -> None:
    if f"{name}.weight" not in state:
        return
    if rows is not None:
        state[f"{name}.weight"], state[f"{name}.bias"] = state[f"{name}.weight"][rows], state[f"{name}.bias"][rows]
    if columns is not None:
        state[f"{name}.weight"] = state[f"{name}.weight"][:, columns]
