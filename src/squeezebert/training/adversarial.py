"""FreeLB: word embeddings moved to where the loss is larger, several times a step, and learned from there.

Serves `trainer.py`. Zhu et al. 2020 (arXiv 1909.11764): each of K passes adds a Kth of its gradient to the weights',
and moves the perturbation along its own gradient. All passes of a step have the same dropout masks, as
theirs have: a perturbation climbs the very network that it is given to.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from squeezebert.training.options import FinetuneOptions


class Perturbation:
    """What is added to the word embeddings of one batch, (B, T, C), while `run` lasts."""

    def __init__(self, embeddings: nn.Module, mask_BT: Tensor, options: FinetuneOptions) -> None:
        self.embeddings, self.mask_BT, self.options = embeddings, mask_BT, options
        self.delta_BTC: Tensor | None = None
        self._start = 0

    def run(self, forward_and_backward: Callable[[], Tensor]) -> Tensor:
        """Return the sum of the passes' losses; each call of `forward_and_backward` leaves its share of gradients."""
        handle = self.embeddings.register_forward_hook(self._add)
        losses = []
        self._start = int(torch.randint(2**62, ()))
        try:
            for left in reversed(range(self.options.adversarial_steps)):
                with _same_random_numbers_again() if left else nullcontext():
                    losses.append(forward_and_backward())
                self._ascend()
        finally:
            handle.remove()
        return torch.stack(losses).sum()

    def _add(self, module: nn.Module, inputs: Any, output_BTC: Tensor) -> Tensor:
        if self.delta_BTC is None:
            # As FreeLB starts: uniform, and for a text of any length inside the same ball
            mask_BT1 = self.mask_BT[..., None].to(output_BTC.dtype)
            sizes_B11 = (mask_BT1.sum((1, 2), keepdim=True) * output_BTC.shape[-1]).sqrt()
            own = torch.Generator(output_BTC.device).manual_seed(self._start)
            noise_BTC = torch.empty_like(output_BTC).uniform_(-1, 1, generator=own) * mask_BT1
            self.delta_BTC = noise_BTC.detach() * self.options.adversarial_start / sizes_B11
            self.delta_BTC.requires_grad_()
        return output_BTC + self.delta_BTC

    @torch.no_grad()
    def _ascend(self) -> None:
        """Move each text's perturbation along its gradient, and back into its ball."""
        delta_BTC = self.delta_BTC
        if delta_BTC is None or delta_BTC.grad is None:
            return
        gradient_BTC = delta_BTC.grad * self.mask_BT[..., None]
        moved_BTC = delta_BTC + self.options.adversarial_rate * gradient_BTC / _length(gradient_BTC)
        if self.options.adversarial_radius:
            moved_BTC = moved_BTC * (self.options.adversarial_radius / _length(moved_BTC)).clamp(max=1)
        self.delta_BTC = moved_BTC.detach().requires_grad_()


def _same_random_numbers_again() -> AbstractContextManager[None]:
    """A block after which random numbers go on as if it had drawn none."""
    if not torch.accelerator.is_available():
        return torch.random.fork_rng(devices=[])
    kind = cast(torch.device, torch.accelerator.current_accelerator()).type
    return torch.random.fork_rng([torch.accelerator.current_device_index()], device_type=kind)


def _length(x_BTC: Tensor) -> Tensor:
    """Each text's L2 norm, (B, 1, 1)."""
    length_B11: Tensor = torch.linalg.vector_norm(x_BTC, dim=(1, 2), keepdim=True)
    return length_B11.clamp_min(1e-12)
