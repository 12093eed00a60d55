"""LAMB, the optimiser of large-batch pretraining. Serves `pretraining.py`.

You et al. 2020 (arXiv 1904.00962), algorithm 2, with bias correction. Libraries have it with other defaults, without
that correction where weights decay, or behind torchvision; a test pins this one to the formula.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor


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
        for weight in weights:
            state = self.state[weight]
            if not state:
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        grads = [cast(Tensor, weight.grad) for weight in weights]
        m, v = ([self.state[weight][name] for weight in weights] for name in ("exp_avg", "exp_avg_sq"))
        (beta1, beta2), step = group["betas"], group["step"]
        torch._foreach_lerp_(m, grads, 1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, grads, grads, 1 - beta2)
        # r = (m / c1) / (sqrt(v / c2) + eps), c1 and c2 the corrections of the averages' start at 0
        updates = torch._foreach_sqrt(v)
        torch._foreach_mul_(updates, (1 - beta2**step) ** -0.5)
        torch._foreach_add_(updates, group["eps"])
        torch._foreach_reciprocal_(updates)
        torch._foreach_mul_(updates, m)
        torch._foreach_mul_(updates, 1 / (1 - beta1**step))
        if group["weight_decay"]:
            torch._foreach_add_(updates, weights, alpha=group["weight_decay"])
        if group["trust"]:
            of_weights, of_updates = (torch.stack(torch._foreach_norm(one)) for one in (weights, updates))
            nothing = (of_weights == 0) | (of_updates == 0)
            ratios = torch.where(nothing, torch.ones_like(of_weights), of_weights / of_updates)
            torch._foreach_mul_(updates, list(ratios.unbind()))
        torch._foreach_add_(weights, updates, alpha=-group["lr"])
