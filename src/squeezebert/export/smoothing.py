"""Which channels stand out so far that they would spoil an 8-bit range, and by how much to divide them.

In: a torch model and texts. Out: scales for the graph that becomes int8, whose outputs they leave as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from squeezebert.export.matrices import appends
from squeezebert.model import GroupedLinear, SqueezeBertPreTrainedModel

# A matrix has channels that stand out when the largest exceeds this quantile of its group this many times
_QUANTILE, _RATIO = 0.97, 2.0
# No channel is divided by more: its weights are multiplied by as much, and are rounded too
_LARGEST = 64.0
_SMALLEST = 1e-9


@dataclass(frozen=True)
class BlockScales:
    """What the inputs of one block's matrices are divided by, a number a channel; None where nothing stands out."""

    attention: Tensor | None = None
    """query, key and value, (C,)"""
    up: Tensor | None = None
    """the widening half of the feed-forward network, (C,)"""
    down: Tensor | None = None
    """the narrowing half, (C of the widened network,)"""
    reduced: Mapping[str, Tensor] = field(default_factory=dict)
    """the reduced channels of each matrix with a remainder, (R,), by its name in the configuration: q, k, ..."""


def find_scales(model: SqueezeBertPreTrainedModel, inputs: Iterable[tuple[Tensor, Tensor]]) -> list[BlockScales]:
    """Run `inputs`, pairs of token ids and types (B, T) without padding, and return the scales of each block.

    The idea is SmoothQuant's (Xiao et al. 2022, arXiv 2211.10438): a few channels of a BERT are 10 to 100 times larger
    than the rest, for whatever text, and an 8-bit range stretched over them rounds the others away. Here only the
    channels above the quantile are scaled, down to it. Reduced channels are all scaled: both their factors are the
    graph's own, so that it costs nothing.
    """
    encoder: Any = model.base_model
    blocks: Any = encoder.encoder.layers
    largest: dict[nn.Module, Tensor] = {}
    reduced: dict[nn.Module, Tensor] = {}

    def note(maxima: dict[nn.Module, Tensor], module: nn.Module, values: Tensor) -> None:
        maxima[module] = torch.maximum(maxima[module], values) if module in maxima else values

    def read_attention(attention: Any, arguments: tuple[Tensor, ...], output: Any) -> None:
        x_NC = arguments[0].flatten(0, -2)
        note(largest, attention, x_NC.abs().amax(dim=0))
        for layer in (attention.query, attention.key, attention.value):
            if layer.up is not None:
                down = attention.down if layer.down is None else layer.down
                note(reduced, layer, (x_NC @ down.t()).abs().amax(dim=0))

    def read_layer(layer: Any, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        x = arguments[0]
        # Token-major (B, T, C), or group-major (G, N, C / G) between layers of the same groups
        group_major = x.shape[-1] != layer.in_features
        note(largest, layer, x.abs().amax(dim=1).flatten() if group_major else x.abs().flatten(0, -2).amax(dim=0))
        if layer.up is not None:
            note(reduced, layer, layer.reduce(x, group_major).abs().amax(dim=0))

    hooks = []
    for block in blocks:
        if block.attention is not None:
            hooks.append(block.attention.register_forward_hook(read_attention))
        for half in (block.post_attention, block.intermediate, block.output):
            if half is not None:
                hooks.append(half.conv1d.register_forward_hook(read_layer))
    try:
        with torch.no_grad():
            for ids, types in inputs:
                model(ids, attention_mask=torch.ones_like(ids), token_type_ids=types)
    finally:
        for hook in hooks:
            hook.remove()
    # Between the embeddings' LayerNorm, which would take the scale up, and the first block may lie a projection
    projected = encoder.embeddings.projection is not None
    found = []
    for block in blocks:
        found.append(_block_scales(block, largest, reduced, projected))
        projected &= block.attention is None and block.intermediate is None
    return found


def made_up_scales(model: SqueezeBertPreTrainedModel) -> list[BlockScales]:
    """Return scales as a trained model of this shape could have them, found on nothing. Serves timing.

    There is one wherever `find_scales` can find one. Those of reduced channels are left out: they add no node.
    """
    encoder: Any = model.base_model

    def scale(layer: GroupedLinear, there: bool = True) -> Tensor | None:
        # No piece of the channels may be all ones: it would need no product
        return 1.0 + torch.arange(layer.in_features) % 2 if there else None

    projected = encoder.embeddings.projection is not None
    found = []
    for block in encoder.encoder.layers:
        attention = up = down = None
        if block.attention is not None:
            attention = scale(block.attention.query, not projected)
        if block.intermediate is not None:
            up = scale(block.intermediate.conv1d, block.attention is not None or not projected)
            down = scale(block.output.conv1d)
        found.append(BlockScales(attention, up, down))
        projected &= block.attention is None and block.intermediate is None
    return found


def _block_scales(
    block: Any, largest: Mapping[nn.Module, Tensor], reduced: Mapping[nn.Module, Tensor], projected: bool
) -> BlockScales:
    scales: dict[str, Tensor | None] = {}
    inputs: dict[str, tuple[GroupedLinear, Tensor, Tensor | None]] = {}
    attention = block.attention
    readers: list[GroupedLinear] = [] if attention is None else [attention.query, attention.key, attention.value]
    if attention is not None:
        after = block.post_attention.conv1d
        if not projected:
            scales["attention"] = _outliers(largest[attention], max(layer.groups for layer in readers))
        for name, layer in zip("qkv", readers, strict=True):
            inputs[name] = layer, largest[attention], scales.get("attention")
        inputs["post_attention"] = after, largest[after], None
    if block.intermediate is not None:
        up, down = block.intermediate.conv1d, block.output.conv1d
        if attention is not None or not projected:
            scales["up"] = _outliers(largest[up], up.groups)
        scales["down"] = _outliers(largest[down], down.groups)
        inputs["intermediate"] = up, largest[up], scales.get("up")
        inputs["output"] = down, largest[down], scales["down"]
    balanced = {
        name: _balance([layer], reduced[layer], largest_C, scale_C)
        for name, (layer, largest_C, scale_C) in inputs.items()
        if layer.up is not None
    }
    if attention is not None and attention.down is not None:  # one reduced input, one scale
        shared = _balance(readers, reduced[readers[0]], largest[attention], scales.get("attention"))
        balanced |= dict.fromkeys("qkv", shared)
    return BlockScales(**scales, reduced=balanced)


def _outliers(largest: Tensor, groups: int) -> Tensor | None:
    """Return each channel's scale from its largest value, (C,): 1 up to the quantile of its group."""
    by_group = largest.float().view(max(1, groups), -1)
    usual = torch.quantile(by_group, _QUANTILE, dim=1, keepdim=True, interpolation="lower")
    scales = (by_group / usual.clamp_min(_SMALLEST)).clamp(1.0, _LARGEST)
    return scales.flatten() if float(scales.max()) > _RATIO else None


def _balance(layers: Sequence[GroupedLinear], reduced_R: Tensor, largest_C: Tensor, scale_C: Tensor | None) -> Tensor:
    """Return what to divide the reduced channels by, (R,), from their largest values.

    Afterwards each reduced channel takes the same part of the range of its product's input as its column of `up` takes
    of the range of the weights. Where the product also reads a group's own channels, those two ranges are theirs.
    """
    ups = torch.stack([layer.up.detach().abs().amax(dim=0) for layer in layers if layer.up is not None])
    scale_R = (reduced_R.clamp_min(_SMALLEST) / ups.amax(dim=0).clamp_min(_SMALLEST)).sqrt()
    ranges = []
    for layer in layers:
        if layer.groups > 1 and layer.weight is not None and not appends(layer):
            x_C = largest_C if scale_C is None else largest_C / scale_C
            factors = 1.0 if scale_C is None else scale_C.view(layer.groups, 1, -1)
            rows = (
                layer.weight.detach().squeeze(-1).abs().view(layer.groups, -1, x_C.numel() // layer.groups) * factors
            ).amax(dim=-1)
            ranges.append((rows.mean() / x_C.view(layer.groups, -1).amax(dim=1).mean()).clamp_min(_SMALLEST).sqrt())
    return scale_R * torch.stack(ranges).mean() if ranges else scale_R / scale_R.mean()
