"""Distillation losses: a student's and a teacher's outputs in, a scalar out. Serves `trainer.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from squeezebert.data.options import Task

# The class of a text without a label, which cross-entropy passes over
_NO_CLASS = -100


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


def hard_loss(logits_BL: Tensor, labels: Tensor, task: Task) -> Tensor:
    """The loss of the labels, as the models compute it, where some texts of a batch have none (see `no_labels`).

    The mean over all texts of the batch: a text without a label adds 0.
    """
    if task == "single_label":
        loss = F.cross_entropy(logits_BL, labels, ignore_index=_NO_CLASS, reduction="sum")
    else:
        wanted_BL = labels.view(len(labels), -1)
        known_B1 = ~wanted_BL.isnan().any(dim=1, keepdim=True)
        wanted_BL = wanted_BL.nan_to_num()
        if task == "regression":
            losses_BL = F.mse_loss(logits_BL.float(), wanted_BL, reduction="none")
        else:
            losses_BL = F.binary_cross_entropy_with_logits(logits_BL.float(), wanted_BL, reduction="none")
        loss = (losses_BL * known_B1).sum() / wanted_BL.shape[1]
    return loss / len(labels)


def no_labels(count: int, targets: np.ndarray) -> np.ndarray:
    """Return targets for `count` texts without labels, to stand behind `targets`, as `hard_loss` knows them."""
    missing = _NO_CLASS if np.issubdtype(targets.dtype, np.integer) else np.nan
    return np.full((count, *targets.shape[1:]), missing, dtype=targets.dtype)


def hidden_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], mask_BT: Tensor, learns: Sequence[bool] | None = None
) -> Tensor:
    """Mean squared difference of hidden states (B, T, C) over text, per layer relative to the teacher's variance.

    With fewer layers in the student, the teacher's are taken evenly spaced; those that `learns`, of `learning_layers`,
    says no to are passed over. Raises `ValueError` when widths differ: then there is no difference to take.
    """
    if student[0].shape[-1] != teacher[0].shape[-1]:
        raise ValueError(
            f"hidden states of {student[0].shape[-1]} and {teacher[0].shape[-1]} channels cannot be compared: "
            "set hidden_weight to 0"
        )
    matched = [teacher[layer - 1] for layer in matched_layers(len(student), len(teacher))]
    chosen = range(len(student)) if learns is None else [layer for layer, yes in enumerate(learns) if yes]
    return layer_errors([student[i] for i in chosen], [matched[i] for i in chosen], mask_BT).mean()


def learning_layers(config: Any) -> list[bool]:
    """Return which layers of a student have a state of the teacher's to learn: all but those that are left out.

    A layer that is left out hands on what it is given. Compared with the teacher's layer of its number, it would pull
    the layer before it from what that one is to learn. Only the last state, which is read, is always learned: where
    the last layers are left out, the last one that is there learns it instead of its own.
    """
    layers = range(config.num_hidden_layers)
    there = [not hasattr(config, "heads") or bool(config.heads(i) or config.width(i)) for i in layers]
    return [there[i] and any(there[i + 1 :]) for i in layers[:-1]] + [True]


def matched_layers(student: int, teacher: int) -> list[int]:
    """Return which layer of the teacher, counted from 1, each layer of the student is compared with.

    Evenly spaced, the last with the last; a student with more layers has several for one of the teacher's.
    """
    return [-(-layer * teacher // student) for layer in range(1, student + 1)]


def layer_errors(student: Sequence[Tensor], teacher: Sequence[Tensor], mask_BT: Tensor) -> Tensor:
    """Mean squared difference of hidden states (B, T, C) over text relative to the teacher's variance, (layers,).

    The teacher's states may come from inference mode: nothing of them is kept for the backward pass.
    """
    padding_N = (mask_BT.reshape(-1) == 0).nonzero().squeeze(1)
    errors = []
    for mine, theirs in zip(student, teacher, strict=True):
        goal_NC = theirs.float().reshape(-1, theirs.shape[-1])
        count = (goal_NC.shape[0] - len(padding_N)) * goal_NC.shape[1]
        total, squares = goal_NC.sum(), _sum_of_squares(goal_NC)
        if len(padding_N):
            beyond = goal_NC[padding_N]
            total, squares = total - beyond.sum(), squares - _sum_of_squares(beyond)
        variance = (squares - total.square() / count) / (count - 1)
        error: Tensor = cast(Any, _SquaredError).apply(mine.reshape(goal_NC.shape), goal_NC, padding_N)
        errors.append(error / (count * variance.clamp_min(1e-6)))
    return torch.stack(errors)


class _SquaredError(torch.autograd.Function):
    """Sum of squared differences of (N, C) without the rows of padding, in three passes over memory.

    The plain operations take a dozen, which is a tenth of a training step of a small encoder.
    """

    @staticmethod
    def forward(ctx: Any, mine_NC: Tensor, goal_NC: Tensor, padding_N: Tensor) -> Tensor:
        difference_NC = mine_NC.float() - goal_NC
        difference_NC[padding_N] = 0
        ctx.save_for_backward(difference_NC)
        return _sum_of_squares(difference_NC)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        (difference_NC,) = ctx.saved_tensors
        return difference_NC * (2 * gradients[0]), None, None


def _sum_of_squares(x: Tensor) -> Tensor:
    # not `dot` under autocast, which would round to bf16
    return cast(Tensor, torch.linalg.vector_norm(x.float()).square())


def relation_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], mask_BT: Tensor, heads: int) -> Tensor:
    """How far the self-relations of the student's queries, keys, values (B, T, C) are from the teacher's.

    Mean Kullback-Leibler divergence of softmax(x x^T / sqrt(D)) over text, in `heads` heads of D channels each:
    multi-head self-attention relations, MiniLMv2 (Wang et al. 2021, arXiv 2012.15828). Widths may differ.
    """
    losses = []
    text_BHT = mask_BT[:, None, :].float()
    for mine, theirs in zip(student, teacher, strict=True):
        with torch.no_grad():
            goal = _relations(theirs.clone(), mask_BT, heads)  # out of inference mode
            weight = goal.exp()
        divergence = (weight * (goal - _relations(mine, mask_BT, heads))).sum(dim=-1)
        losses.append((divergence * text_BHT).sum() / (heads * text_BHT.sum()))
    return torch.stack(losses).mean()


def _relations(x_BTC: Tensor, mask_BT: Tensor, heads: int) -> Tensor:
    """Log-probabilities of each token's relation to each token of text, (B, H, T, T)."""
    x_BHTD = x_BTC.view(*x_BTC.shape[:2], heads, -1).transpose(1, 2)
    scores = torch.matmul(x_BHTD * x_BHTD.shape[-1] ** -0.5, x_BHTD.transpose(2, 3)).float()
    return scores.masked_fill(~mask_BT.bool()[:, None, None], -1e4).log_softmax(dim=-1)


def logit_loss(
    student: Tensor, teacher: Tensor, mask_BT: Tensor, task: Task = "single_label", unit: float = 1.0
) -> Tensor:
    """How far the answers are from the teacher's, of texts (B, L) or of the tokens of text (B, T, L); 0 when equal.

    Mean Kullback-Leibler divergence, of one distribution over all answers, or for several labels of each label's yes
    and no. Regression: mean squared difference in multiples of `unit`.
    """
    goal, mine = teacher.clone().float(), student.float()  # out of inference mode
    if task == "regression":
        return F.mse_loss(mine / unit, goal / unit)
    if task == "multi_label":
        p = torch.sigmoid(goal)
        yes = p * (F.logsigmoid(goal) - F.logsigmoid(mine))
        return (yes + (1 - p) * (F.logsigmoid(-goal) - F.logsigmoid(-mine))).mean()
    goal = goal.log_softmax(dim=-1)
    divergence = (goal.exp() * (goal - mine.log_softmax(dim=-1))).sum(dim=-1)
    if divergence.dim() == 1:
        return divergence.mean()
    return (divergence * mask_BT).sum() / mask_BT.sum()
