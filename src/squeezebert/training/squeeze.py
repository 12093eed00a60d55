"""A dense model in, the same model with grouped layers out: the start of a student. Serves the demo.

Each grouped matrix keeps the blocks of the dense one that lie on its diagonal; the rest is dropped, and
distillation has to make up for it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

from squeezebert.model import GroupedLinear, SqueezeBertPreTrainedModel
from squeezebert.model.configuration import GROUP_FIELDS

Model = TypeVar("Model", bound=SqueezeBertPreTrainedModel)

# Groups of the paper's network: all matrices but the attention's output projection, where groups mix
PAPER_GROUPS = dict.fromkeys((f for f in GROUP_FIELDS if f != "post_attention_groups"), 4)


def diagonal_blocks(weight: Tensor, groups: int) -> Tensor:
    """Return the diagonal blocks of a dense weight (C_out, C_in, 1) as a grouped one (C_out, C_in / G, 1)."""
    rows, columns = weight.shape[0] // groups, weight.shape[1] // groups
    return torch.cat(
        [weight[g * rows : (g + 1) * rows, g * columns : (g + 1) * columns] for g in range(groups)]
    ).contiguous()


def squeeze(model: Model, groups: Mapping[str, int]) -> Model:
    """Return a copy of a model with groups = 1 whose matrices are split into `groups`, as in `GROUP_FIELDS`.

    Raises `ValueError` for a model that is grouped already, and for groups that do not divide its sizes.
    """
    config = copy.deepcopy(model.config)
    for name in GROUP_FIELDS:
        if any(config.groups(name, layer) != 1 for layer in range(config.num_hidden_layers)):
            raise ValueError(f"this model is grouped already ({name} = {getattr(config, name)}): squeeze a dense one")
    for name, number in groups.items():
        setattr(config, name, number)
    student = type(model)(config)
    dense = model.state_dict()
    layers = {name: m for name, m in student.named_modules() if isinstance(m, GroupedLinear)}
    for name, layer in layers.items():
        dense[f"{name}.weight"] = diagonal_blocks(dense[f"{name}.weight"], layer.groups)
    student.load_state_dict(dense)
    torch.nn.Module.to(student, dtype=model.dtype)
    return student
