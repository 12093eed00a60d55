"""The unit that a number is learned in: targets of a regression in, targets of mean 0 and deviation 1 out, and back.

Serves `finetune.py`. A head that starts at 0 would never reach prices in the thousands at a learning rate for text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

Numbers = TypeVar("Numbers", np.ndarray, torch.Tensor)


@dataclass(frozen=True)
class Units:
    """Mean and standard deviation of the training targets; 0 and 1 for tasks without numbers."""

    mean: float = 0.0
    """Subtracted from a target."""
    deviation: float = 1.0
    """What remains is divided by it."""

    @classmethod
    def of(cls, targets: np.ndarray) -> Units:
        """Return the units of some targets (N,); numbers that are all the same are only shifted."""
        return cls(float(targets.mean()), float(targets.std()) or 1.0)

    def to_standard(self, numbers: Numbers) -> Numbers:
        """Return numbers of the user's unit in ours."""
        return numbers if self == Units() else (numbers - self.mean) / self.deviation

    def to_own(self, numbers: Numbers) -> Numbers:
        """Return numbers of our unit in the user's."""
        return numbers if self == Units() else numbers * self.deviation + self.mean

    @torch.no_grad()
    def head_to_standard(self, classifier: Any) -> None:
        """Make a head that answers in the user's unit answer in ours."""
        classifier.weight.div_(self.deviation)
        classifier.bias.sub_(self.mean).div_(self.deviation)

    @torch.no_grad()
    def head_to_own(self, classifier: Any) -> None:
        """Make a head that answers in our unit answer in the user's."""
        classifier.weight.mul_(self.deviation)
        classifier.bias.mul_(self.deviation).add_(self.mean)
