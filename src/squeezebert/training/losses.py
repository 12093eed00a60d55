"""Distillation losses: a student's and a teacher's outputs in, a scalar out. Serves `trainer.py`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from squeezebert.data.options import Task


def soft_loss(student_BL: Tensor, teacher_BL: Tensor, task: Task, temperature: float) -> Tensor:
    """How far the student's answers are from the teacher's.

    Single-label: cross-entropy of softened distributions, times temperature squared (Hinton et al. 2015,
    arXiv 1503.02531). Multi-label: the same for each label's yes and no. Regression: squared difference.
    """
    if task == "regression":
        return F.mse_loss(student_BL, teacher_BL)
    if task == "multi_label":
        target = torch.sigmoid(teacher_BL / temperature)
        return F.binary_cross_entropy_with_logits(student_BL / temperature, target) * temperature**2
    target = F.softmax(teacher_BL / temperature, dim=-1)
    return F.cross_entropy(student_BL / temperature, target) * temperature**2


def hidden_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], mask_BT: Tensor) -> Tensor:
    """Mean squared difference of hidden states (B, T, C) over text, per layer relative to the teacher's variance.

    Both sequences are embeddings and then layers; with fewer student layers, the teacher's are taken evenly spaced.
    Raises `ValueError` when widths differ: then there is no difference to take.
    """
    if student[0].shape[-1] != teacher[0].shape[-1]:
        raise ValueError(
            f"hidden states of {student[0].shape[-1]} and {teacher[0].shape[-1]} channels cannot be compared: "
            "set hidden_weight to 0"
        )
    step = (len(teacher) - 1) / max(len(student) - 1, 1)
    text = mask_BT.bool()
    losses = []
    for layer, mine in enumerate(student[1:], start=1):
        theirs = teacher[round(layer * step)][text].float()
        losses.append(F.mse_loss(mine[text].float(), theirs) / theirs.var().clamp_min(1e-6))
    return torch.stack(losses).mean()
