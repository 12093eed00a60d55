"""Which channels stand out so far that they would spoil an 8-bit range, and by how much to divide them.

In: a torch model and texts. Out: scales for the graph that becomes int8, whose outputs they leave as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from squeezebert.model import GroupedLinear, SqueezeBertForSequenceClassification

# A matrix has channels that stand out when the largest exceeds this quantile of its group this many times
_QUANTILE, _RATIO = 0.97, 2.0
# No channel is divided by more: its weights are multiplied by as much, and are rounded too
_LARGEST = 64.0


@dataclass(frozen=True)
class BlockScales:
    """What the inputs of one block's matrices are divided by, a number a channel; None where nothing stands out."""

    attention: Tensor | None = None
    """query, key and value, (C,)"""
    up: Tensor | None = None
    """the widening half of the feed-forward network, (C,)"""
    down: Tensor | None = None
    """the narrowing half, (C of the widened network,)"""


def find_scales(
    model: SqueezeBertForSequenceClassification, inputs: Iterable[tuple[Tensor, Tensor]]
) -> list[BlockScales]:
    """Run `inputs`, pairs of token ids and types (B, T) without padding, and return the scales of each block.

    The idea is SmoothQuant's (Xiao et al. 2022, arXiv 2211.10438): a few channels of a BERT are 10 to 100 times larger
    than the rest, for whatever text, and an 8-bit range stretched over them rounds the others away. Here only the
    channels above the quantile are scaled, down to it.
    """
    blocks: Any = model.transformer.encoder.layers
    maxima: dict[nn.Module, Tensor] = {}

    def note(layer: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        x = arguments[0].abs()
        # Token-major (B, T, C), or group-major (G, N, C / G) between layers of the same groups
        token_major = x.shape[-1] == cast(GroupedLinear, layer).in_features
        largest = x.flatten(0, -2).amax(dim=0) if token_major else x.amax(dim=1).flatten()
        maxima[layer] = torch.maximum(maxima[layer], largest) if layer in maxima else largest

    watched = [layer for b in blocks for layer in (*_readers(b), b.intermediate.conv1d, b.output.conv1d)]
    hooks = [layer.register_forward_hook(note) for layer in watched]
    try:
        with torch.no_grad():
            for ids, types in inputs:
                model(ids, attention_mask=torch.ones_like(ids), token_type_ids=types)
    finally:
        for hook in hooks:
            hook.remove()
    scales = [
        BlockScales(
            attention=_outliers(maxima[_readers(b)[0]], max(layer.groups for layer in _readers(b))),
            up=_outliers(maxima[b.intermediate.conv1d], b.intermediate.conv1d.groups),
            down=_outliers(maxima[b.output.conv1d], b.output.conv1d.groups),
        )
        for b in blocks
    ]
    if model.transformer.embeddings.projection is not None:
        # Between the embeddings' LayerNorm, which would take the scale up, and the first block lies a projection
        scales[0] = BlockScales(None, scales[0].up, scales[0].down)
    return scales


def _readers(block: Any) -> tuple[GroupedLinear, ...]:
    return block.attention.query, block.attention.key, block.attention.value


def _outliers(largest: Tensor, groups: int) -> Tensor | None:
    """Return each channel's scale from its largest value, (C,): 1 up to the quantile of its group."""
    by_group = largest.float().view(groups, -1)
    usual = torch.quantile(by_group, _QUANTILE, dim=1, keepdim=True, interpolation="lower")
    scales = (by_group / usual.clamp_min(1e-9)).clamp(1.0, _LARGEST)
    return scales.flatten() if float(scales.max()) > _RATIO else None
