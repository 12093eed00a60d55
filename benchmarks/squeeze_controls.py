"""The controls of `squeeze.py`: a dense model made cheaper by fewer layers or a narrower FFN, no groups, no ranks."""

from __future__ import annotations

import copy
from typing import Any

import torch

from squeezebert.training.regroup import input_variances


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
