"""What `squeeze.py` and `squeeze_latency.py` compare: the shapes, and controls that have neither groups nor ranks."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

from squeezebert.model.configuration import RANK_FIELDS
from squeezebert.training.fitting import fit_blocks, spread_blocks
from squeezebert.training.regroup import assign_groups, block_energies, input_variances
from squeezebert.training.shapes import best_shape, paper_shape
from squeezebert.training.squeeze import convert


def scaled_ranks(shape: dict[str, Any], scale: float) -> dict[str, Any]:
    """Return a shape with its ranks multiplied, in whole eighths as engines compute them."""
    return {name: round(v * scale / 8) * 8 if name in RANK_FIELDS else v for name, v in shape.items()}


# At MiniLM-L6's width
SHAPES: dict[str, dict[str, Any]] = {
    "groups 2": paper_shape(2),
    "groups 4": paper_shape(4),
    "groups 8": paper_shape(8),
    "groups 4 + rank 32": paper_shape(4, 32),
    "low rank": best_shape(384, 1536),
    "low rank x 3/4": scaled_ranks(best_shape(384, 1536), 3 / 4),
    "low rank x 1/2": scaled_ranks(best_shape(384, 1536), 1 / 2),
}


@torch.no_grad()
def drop_layers(model: Any, layers: int) -> Any:
    """Return a dense model with `layers` of its blocks, the last among them, the others evenly spaced before it."""
    config = copy.deepcopy(model.config)
    blocks = config.num_hidden_layers
    kept = [round((i + 1) * blocks / layers) - 1 for i in range(layers)]
    config.num_hidden_layers = layers
    student = type(model)(config)
    state = model.state_dict()
    for new, old in enumerate(kept):
        marks = f".encoder.layers.{old}.", f".encoder.layers.{new}."
        block = {name: value for name, value in model.state_dict().items() if marks[0] in name}
        state |= {name.replace(*marks): value for name, value in block.items()}
    gone = {f".encoder.layers.{layer}." for layer in range(layers, blocks)}
    student.load_state_dict({name: value for name, value in state.items() if not any(part in name for part in gone)})
    return student.eval()


# Which sets of channels have one grouping, by name; {} is the layer: what attention and FFN read, what FFN2 makes and
# FFN3 reads (two names: a shuffle between them), and what FFN3 adds to
GROUPINGS: dict[str, tuple[str, str, str, str, str]] = {
    "one order": ("stream", "stream", "inner {}", "inner {}", "stream"),
    "one order for attention, one for FFN": ("attention", "ffn", "inner {}", "inner {}", "ffn"),
    "orders of each layer's own": ("attention {}", "ffn in {}", "inner {}", "inner {}", "ffn out {}"),
    "one order, shuffle inside FFN": ("stream", "stream", "inner {}", "middle {}", "stream"),
    "orders of each layer's own, shuffle inside FFN": (
        *("attention {}", "ffn in {}", "inner {}", "middle {}", "ffn out {}"),
    ),
}


@torch.no_grad()
def regroup_freely(model: Any, grouping: str, groups: int, batches: Any) -> tuple[Any, float]:
    """Return a dense model whose matrices are held to `groups` blocks under orders that no layout has to share.

    What `squeeze` would make if gathers between layers were free: an upper bound of what they could buy. With it the
    share of energy that the blocks keep.
    """
    read, ffn, inner, middle, out = GROUPINGS[grouping]
    heads, C = model.config.num_attention_heads, model.config.hidden_size
    matrices = []
    for i, (to_heads, up, down) in enumerate(block_energies(model, input_variances(model, batches))):
        matrices.append((to_heads, f"heads {i}", read.format(i)))
        matrices += [(up, inner.format(i), ffn.format(i)), (down, out.format(i), middle.format(i))]
    found, energy = assign_groups(matrices, "stream", groups)
    order = {name: torch.from_numpy(np.argsort(where, kind="stable")) for name, where in found.items()}
    places = iter(
        [
            place
            for i in range(model.config.num_hidden_layers)
            for place in (
                (torch.arange(C).view(heads, -1)[order[f"heads {i}"]].flatten(), order[read.format(i)]),
                None,  # the attention's output stays dense
                (order[inner.format(i)], order[ffn.format(i)]),
                (order[out.format(i)], order[middle.format(i)]),
            )
        ]
    )

    def fit_in_blocks(moments: Any, priors: Any, targets: Any, ridge: float, shared: Any) -> float:
        place, lost, total = next(places), 0.0, 0.0
        for moment, prior, target in zip(moments, priors, targets, strict=True):
            want = moment.target(prior, ridge)
            V = want.W
            if place is not None:
                rows, columns = place
                blocks = fit_blocks(want.W[rows][:, columns], want.A[columns][:, columns], groups)
                V = torch.zeros_like(want.W)
                V[rows[:, None], columns] = spread_blocks(blocks, groups)
            target.weight.copy_(V.unsqueeze(-1))
            target.bias.copy_(want.bias(V))
            lost += want.error(V) * float(want.variance.sum())
            total += float(want.variance.sum())
        return lost / total

    return convert(model, {}, batches, fitter=fit_in_blocks), energy


@torch.no_grad()
def narrow(model: Any, width: int, batches: Any) -> Any:
    """Return a dense model whose feed-forward networks keep the `width` inner channels that move their output most."""
    config = copy.deepcopy(model.config)
    config.intermediate_size = width
    student = type(model)(config)
    variances = input_variances(model, batches)
    state = model.state_dict()
    for layer, block in enumerate(model.base_model.encoder.layers):
        down = block.output.conv1d
        energy = variances[down] * down.weight[..., 0].double().pow(2).sum(0)
        kept = energy.topk(width).indices.sort().values
        prefix = f"transformer.encoder.layers.{layer}."
        state[f"{prefix}intermediate.conv1d.weight"] = block.intermediate.conv1d.weight[kept]
        state[f"{prefix}intermediate.conv1d.bias"] = block.intermediate.conv1d.bias[kept]
        state[f"{prefix}output.conv1d.weight"] = down.weight[:, kept]
    student.load_state_dict(state)
    return student.eval()
