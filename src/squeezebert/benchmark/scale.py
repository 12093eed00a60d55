"""A model's configuration and a recipe in; what a step of pretraining costs in arithmetic, memory and network, out.

Serves `benchmarks/pretrain_scale.py`, which checks the counts against runs of several processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from squeezebert.benchmark.operations import count_operations

_FLOAT = 4  # bytes of a weight, a gradient and an optimiser's moment


@dataclass(frozen=True)
class StepCost:
    """What one optimiser step costs, over all processes."""

    operations: float
    """Floating-point operations of matrix products, forward and backward: three times the forward pass, two for a
    multiply and an add."""
    tokens: int
    """Positions that are computed, padding included."""
    state_bytes: int
    """Memory of weights, gradients and both moments of the optimiser, in each process."""
    gradient_bytes: int
    """Gradients that the processes add up, once a step."""

    def sent_bytes(self, processes: int) -> float:
        """Return what each process sends and receives a step, in a ring: twice the gradients but for its own share."""
        return 2 * self.gradient_bytes * (processes - 1) / processes

    def seconds(self, processes: int, operations_a_second: float, bytes_a_second: float) -> tuple[float, float]:
        """Return the seconds of arithmetic and of network of a step, each process having so much of both.

        They overlap but for the last gradients; the step takes the larger one, and at most their sum.
        """
        network = self.sent_bytes(processes) / bytes_a_second if processes > 1 else 0.0
        return self.operations / processes / operations_a_second, network


def step_cost(model: Any, rows: int, length: int, mask_share: float) -> StepCost:
    """Count what a step of `rows` rows of `length` tokens costs a model with pretraining heads.

    The vocabulary is scored where words are masked only. The embeddings' look-up is no product and is not counted.
    """
    encoder = count_operations(model.base_model, length).total
    head = model.cls.predictions
    with torch.no_grad():
        of_word = 2 * sum(p.numel() for name, p in head.named_parameters() if p.ndim == 2 and "decoder" not in name)
        of_word += 2 * head.decoder.weight.numel()
    forward = rows * (encoder + mask_share * (length - 3) * of_word)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return StepCost(
        operations=3.0 * forward,
        tokens=rows * length,
        state_bytes=4 * _FLOAT * trained,
        gradient_bytes=_FLOAT * trained,
    )
