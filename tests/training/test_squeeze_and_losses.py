"""Block slices, and the distillation losses against their formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from squeezebert.files.errors import OptionError
from squeezebert.model import SqueezeBertConfig, SqueezeBertModel
from squeezebert.model.configuration import GROUP_FIELDS
from squeezebert.training.losses import hidden_loss, soft_loss
from squeezebert.training.options import DistilOptions, FinetuneOptions
from squeezebert.training.squeeze import PAPER_GROUPS, diagonal_blocks, squeeze
from squeezebert.training.trainer import duration


def dense_model() -> SqueezeBertModel:
    torch.manual_seed(0)
    config = SqueezeBertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        layer_norm_eps=1e-5,
        **dict.fromkeys(GROUP_FIELDS, 1),
    )
    return SqueezeBertModel(config).eval()


def test_blocks_are_those_on_the_diagonal():
    weight = torch.arange(8 * 4.0).view(8, 4, 1)
    blocks = diagonal_blocks(weight, 2)
    assert blocks.shape == (8, 2, 1)
    assert torch.equal(blocks[:4], weight[:4, :2])
    assert torch.equal(blocks[4:], weight[4:, 2:])


def test_squeezing_a_block_diagonal_model_changes_no_output():
    model = dense_model()
    with torch.no_grad():
        for layer in model.encoder.layers:
            grouped = (layer.attention.query, layer.attention.key, layer.attention.value)
            for matrix in (*grouped, layer.intermediate.conv1d, layer.output.conv1d):
                rows, columns = matrix.out_features // 4, matrix.in_features // 4
                mask = torch.block_diag(*[torch.ones(rows, columns)] * 4)
                matrix.weight.mul_(mask.unsqueeze(-1))
    student = squeeze(model, PAPER_GROUPS).eval()
    ids = torch.randint(1, 50, (3, 7))
    torch.testing.assert_close(student(ids).last_hidden_state, model(ids).last_hidden_state)
    assert student.encoder.layers[0].intermediate.conv1d.weight.shape == (32, 4, 1)
    assert model.encoder.layers[0].intermediate.conv1d.weight.shape == (32, 16, 1)
    assert student.config.post_attention_groups == 1
    assert model.config.q_groups == 1


def test_a_grouped_model_is_not_squeezed_again():
    with pytest.raises(ValueError, match=r"grouped already \(q_groups = 4\)"):
        squeeze(squeeze(dense_model(), PAPER_GROUPS), PAPER_GROUPS)


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
    teacher = [torch.randn(2, 4, 6) for _ in range(5)]
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    student = [state.clone() for state in teacher]
    for state in student:
        state[1, 2:] += 100  # padding
    assert hidden_loss(student, teacher, mask) == 0
    student[2] = student[2] + 0.5
    expected = 0.25 / teacher[2][mask.bool()].var() / 4
    torch.testing.assert_close(hidden_loss(student, teacher, mask), expected)
    # half as many layers: the teacher's second and fourth
    assert hidden_loss([teacher[0], teacher[2], teacher[4]], teacher, mask) == 0
    with pytest.raises(ValueError, match="6 and 8 channels cannot be compared"):
        hidden_loss(teacher, [torch.randn(2, 4, 8)] * 5, mask)


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
    with pytest.raises(OptionError, match=next(iter(options))):
        DistilOptions(**options)


@pytest.mark.parametrize(
    ("seconds", "said"), [(4.6, "5 s"), (89, "89 s"), (91, "2 min"), (3600, "60 min"), (5400, "1 h 30 min")]
)
def test_durations_are_said_as_people_do(seconds, said):
    assert duration(seconds) == said
