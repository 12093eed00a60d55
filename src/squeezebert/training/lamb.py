"""LAMB, the optimiser of large-batch pretraining. Serves `pretraining.py`.

You et al. 2020 (arXiv 1904.00962), algorithm 2, with bias correction. Libraries have it with other defaults, without
that correction where weights decay, or behind torchvision; a test pins this one to the formula.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor

IN_PARTS = ("cpu",)  # devices that step one weight after another, in parts of so many numbers (512 KB of each tensor)
PART = 1 << 17


class Lamb(torch.optim.Optimizer):
    """m and v as in Adam; r = m' / (sqrt(v') + eps) + decay * w; step = lr * (|w| / |r|) * r.

    |w| / |r| is 1 where either is 0, and for groups with `trust` False (biases and normalisation, as is usual). Norms
    are those of whole tensors: sharded parameters (FSDP, ZeRO) would have others. Gradients are not clipped here.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        trust: bool = True,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "trust": trust})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; `closure` recomputes the loss, which is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            lots: dict[Any, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    lots.setdefault((parameter.device, parameter.dtype), []).append(parameter)
            if lots:
                group["step"] = group.get("step", 0) + 1
            for lot in lots.values():
                self._update(lot, group)
        return loss

    def _update(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        """Step the weights, which are all on one device and of one type."""
        for weight in weights:
            state = self.state[weight]
            if not state:
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        grads = [cast(Tensor, weight.grad) for weight in weights]
        m, v = ([self.state[weight][name] for weight in weights] for name in ("exp_avg", "exp_avg_sq"))
        if weights[0].device.type in IN_PARTS:
            for tensors in zip(weights, grads, m, v, strict=True):
                _step_in_parts(_parts(tensors), group)
            return
        updates = _directions(weights, grads, m, v, group)
        if group["trust"]:
            ratios = _ratios(torch.stack(torch._foreach_norm(weights)), torch.stack(torch._foreach_norm(updates)))
            torch._foreach_mul_(updates, list(ratios.unbind()))
        torch._foreach_add_(weights, updates, alpha=-group["lr"])


def _directions(
    weights: list[Tensor], grads: list[Tensor], m: list[Tensor], v: list[Tensor], group: dict[str, Any]
) -> list[Tensor]:
    """Carry the averages on, in place; the r of each weight."""
    (beta1, beta2), step = group["betas"], group["step"]
    torch._foreach_lerp_(m, grads, 1 - beta1)
    torch._foreach_mul_(v, beta2)
    torch._foreach_addcmul_(v, grads, grads, 1 - beta2)
    # r = (m / c1) / (sqrt(v / c2) + eps), c1 and c2 the corrections of the averages' start at 0
    updates = list(torch._foreach_sqrt(v))
    torch._foreach_mul_(updates, (1 - beta2**step) ** -0.5)
    torch._foreach_add_(updates, group["eps"])
    torch._foreach_reciprocal_(updates)
    torch._foreach_mul_(updates, m)
    torch._foreach_mul_(updates, 1 / (1 - beta1**step))
    if group["weight_decay"]:
        torch._foreach_add_(updates, weights, alpha=group["weight_decay"])
    return updates


def _ratios(of_weights: Tensor, of_updates: Tensor) -> Tensor:
    """|w| / |r| of norms, and 1 where either is 0."""
    nothing = (of_weights == 0) | (of_updates == 0)
    return torch.where(nothing, torch.ones_like(of_weights), of_weights / of_updates)


def _parts(tensors: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    """Views of `PART` numbers of each, in step; of tensors that cannot be cut so, the tensors."""
    if not all(one.is_contiguous() for one in tensors):
        return [tensors]
    return list(zip(*(one.view(-1).split(PART) for one in tensors), strict=True))


def _step_in_parts(parts: list[tuple[Tensor, ...]], group: dict[str, Any]) -> None:
    """Step one weight whose (weight, gradient, m, v) come in parts: a part stays in a CPU's cache from first to last.

    Whole tensors would go through memory once for each of the dozen operations, six times as slow at BERT-base's size
    (`benchmarks/pretrain_speed.py` times whole steps).
    """
    updates, norms = [], []
    for weight, grad, m, v in parts:
        (update,) = _directions([weight], [grad], [m], [v], group)
        updates.append(update)
        if group["trust"]:
            norms.append(torch.stack([torch.linalg.vector_norm(weight), torch.linalg.vector_norm(update)]))
    ratio = float(_ratios(*torch.stack(norms).norm(dim=0))) if group["trust"] else 1.0
    for (weight, *_), update in zip(parts, updates, strict=True):
        weight.add_(update, alpha=-ratio * group["lr"])
