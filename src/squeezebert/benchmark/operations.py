"""A model in; the arithmetic it does on a text of a given length, layer by layer, out. Serves `glue measure`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

_ATTENTION = "attention products"


@dataclass(frozen=True)
class Operations:
    """Floating-point operations of matrix products, two for a multiply and an add."""

    total: int
    """All of them."""
    layers: dict[str, int]
    """Those of each layer's name, summed over the blocks (`encoder.layer.*.attention.self.query`), and of what is
    computed between layers: the attention's own two products."""


def count_operations(model: Any, tokens: int) -> Operations:
    """Count what a transformers model does on one text of so many tokens, by running it.

    torch's counter; with plain attention, whose products it sees. Sums, normalisation and activations are not counted,
    as is usual.
    """
    ids = torch.full((1, tokens), 1 + (model.config.pad_token_id or 0))
    training, implementation = model.training, model.config._attn_implementation
    model.eval()
    model.set_attn_implementation("eager")
    counter = FlopCounterMode(display=False)
    try:
        with counter, torch.no_grad():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        model.set_attn_implementation(implementation)
        model.train(training)
    root = type(model).__name__
    counts = {name: sum(found.values()) for name, found in counter.get_flop_counts().items()}
    layers: dict[str, int] = {}
    for name, module in model.named_modules():
        found = counts.get(f"{root}.{name}", 0)
        if found and not any(True for _ in module.children()):
            layers[_general(name)] = layers.get(_general(name), 0) + found
    total = counter.get_total_flops()
    rest = total - sum(layers.values())
    return Operations(total, layers | ({_ATTENTION: rest} if rest else {}))


def _general(name: str) -> str:
    return re.sub(r"\.\d+(?=\.|$)", ".*", name)
