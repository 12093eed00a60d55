"""The distillation losses against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import BertConfig

from squeezebert.files.errors import OptionError
from squeezebert.model import SqueezeBertConfig
from squeezebert.training.losses import hard_loss, hidden_loss, learning_layers, no_labels, soft_loss
from squeezebert.training.options import DistilOptions, FinetuneOptions
from squeezebert.training.trainer import duration


def test_soft_losses_follow_their_formulas():
    student, teacher = torch.randn(2, 5, 3)
    t = 2.5
    p = F.softmax(teacher / t, -1)
    expected = -(p * F.log_softmax(student / t, -1)).sum(-1).mean() * t**2
    torch.testing.assert_close(soft_loss(student, teacher, "single_label", t), expected)
    q, s = torch.sigmoid(teacher / t), torch.sigmoid(student / t)
    expected = -(q * s.log() + (1 - q) * (1 - s).log()).mean() * t**2
    torch.testing.assert_close(soft_loss(student, teacher, "multi_label", t), expected)
    torch.testing.assert_close(soft_loss(student, teacher, "regression", t), ((student - teacher) ** 2).mean())


def test_hidden_loss_reads_text_only_and_is_relative():
    teacher = [torch.randn(2, 4, 6) for _ in range(4)]
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    student = [state.clone() for state in teacher]
    for state in student:
        state[1, 2:] += 100  # padding
    assert hidden_loss(student, teacher, mask) == 0
    student[2] = student[2] + 0.5
    expected = 0.25 / teacher[2][mask.bool()].var() / 4
    torch.testing.assert_close(hidden_loss(student, teacher, mask), expected)
    # half as many layers: the teacher's second and fourth
    assert hidden_loss([teacher[1], teacher[3]], teacher, mask) == 0
    with pytest.raises(ValueError, match="6 and 8 channels cannot be compared"):
        hidden_loss(teacher, [torch.randn(2, 4, 8)] * 4, mask)


@pytest.mark.parametrize(
    ("heads", "widths", "learns"),
    [
        ([2, 2, 2, 2], [8, 8, 8, 8], [True, True, True, True]),
        ([2, 0, 2, 2], [8, 0, 0, 8], [True, False, True, True]),
        ([0, 2, 0, 2], [0, 8, 0, 8], [False, True, False, True]),
        # The last layer that is there makes the last state, which is the one that is read
        ([2, 2, 0, 0], [8, 8, 0, 0], [True, False, False, True]),
        ([0, 0, 0, 0], [0, 0, 0, 0], [False, False, False, True]),
    ],
)
def test_layers_that_are_left_out_learn_nothing(heads, widths, learns):
    config = SqueezeBertConfig(
        hidden_size=4, num_attention_heads=2, num_hidden_layers=4, kept_heads=heads, intermediate_size=widths
    )
    assert learning_layers(config) == learns
    assert learning_layers(BertConfig(num_hidden_layers=2)) == [True, True]
    teacher = [torch.randn(2, 4, 6) for _ in range(4)]
    student = [state if learn else state + 1 for state, learn in zip(teacher, learns, strict=True)]
    assert hidden_loss(student, teacher, torch.ones(2, 4), learns) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"learning_rate": 0}, "--learning-rate 0: expected more than 0"),
        ({"epochs": -1}, "--epochs -1"),
        ({"max_length": 3}, "--max-length 3"),
        ({"dropout": 1.0}, "--dropout 1.0"),
        ({"warmup": -0.1}, "--warmup -0.1"),
        ({"patience": -1}, "--patience -1"),
    ],
)
def test_impossible_options_are_named(options, words):
    with pytest.raises(OptionError, match=words):
        FinetuneOptions(**options)


@pytest.mark.parametrize("options", [{"alpha": 1.5}, {"temperature": 0}, {"hidden_weight": -1}])
def test_impossible_distillation_is_named(options):
    with pytest.raises(OptionError, match=f"--{next(iter(options)).replace('_', '-')}"):
        DistilOptions(**options)


@pytest.mark.parametrize(
    ("seconds", "said"), [(4.6, "5 s"), (89, "89 s"), (91, "2 min"), (3600, "60 min"), (5400, "1 h 30 min")]
)
def test_durations_are_said_as_people_do(seconds, said):
    assert duration(seconds) == said


# --- labels that are not there -------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["single_label", "multi_label", "regression"])
def test_the_hard_loss_is_the_models_own_and_passes_over_texts_without_labels(task):
    from tiny_checkpoints import tiny_model

    kinds = {"single_label": "single_label_classification", "multi_label": "multi_label_classification"}
    labels = 1 if task == "regression" else 3
    model = tiny_model(num_labels=labels, problem_type=kinds.get(task, task))
    ids = torch.randint(5, 60, (4, 7))
    targets = {
        "single_label": np.array([0, 2, 1, 1]),
        "multi_label": np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]], dtype=np.float32),
        "regression": np.array([0.5, -1, 2, 0], dtype=np.float32),
    }[task]
    own = model(ids, labels=torch.from_numpy(targets))
    assert torch.allclose(hard_loss(own.logits, torch.from_numpy(targets), task), own.loss)
    half = torch.from_numpy(np.concatenate([targets[:2], no_labels(2, targets)]))
    known = hard_loss(own.logits[:2], torch.from_numpy(targets[:2]), task)
    assert torch.allclose(hard_loss(own.logits, half, task), known / 2)
    nothing = torch.from_numpy(no_labels(4, targets))
    assert hard_loss(own.logits, nothing, task) == 0
    hard_loss(own.logits, half, task).backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
