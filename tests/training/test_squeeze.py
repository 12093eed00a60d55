"""Conversion of a dense model into cheaper shapes: exact where it can be, nearest where it cannot."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from squeezebert import model as models
from squeezebert.model import SqueezeBertConfig, SqueezeBertForSequenceClassification, SqueezeBertModel
from squeezebert.model.configuration import GROUP_FIELDS, RANK_FIELDS
from squeezebert.training.fitting import Moments, fit, fit_blocks, fit_low_rank, spread_blocks
from squeezebert.training.regroup import Orders, align, find_orders, input_variances, reorder
from squeezebert.training.shapes import paper_shape
from squeezebert.training.squeeze import MatrixError, refit, refit_obstacle, squeeze

Batch = tuple[Tensor, Tensor, Tensor]
PAPER_GROUPS = paper_shape(4)
LOW_RANK = {**dict.fromkeys(GROUP_FIELDS, 0), **dict.fromkeys(RANK_FIELDS, 6), "shared_qkv_rank": True}
MIXED = {**PAPER_GROUPS, "intermediate_rank": 3, "output_rank": [0, 4], "q_groups": [2, 4], "v_rank": 2}
SHARED = {**PAPER_GROUPS, "q_rank": 4, "k_rank": 4, "v_rank": 4, "shared_qkv_rank": True}


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


def text(seed: int, batches: int = 6) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(batches):
        ids = torch.randint(1, 50, (8, 12), generator=generator)
        mask = torch.ones_like(ids)
        mask[::2, 8:] = 0
        made.append((ids, mask, torch.zeros_like(ids)))
    return made


def difference(model: Any, other: Any, batches: list[Batch]) -> float:
    """Squared difference of last states over the text, relative to their variance."""
    lost = total = 0.0
    with torch.no_grad():
        for ids, mask, types in batches:
            a, b = (m(ids, mask, types).last_hidden_state[mask.bool()] for m in (model, other))
            lost += float((a - b).pow(2).sum())
            total += float((b - b.mean(0)).pow(2).sum())
    return lost / total


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


@pytest.mark.parametrize("shape", [PAPER_GROUPS, LOW_RANK, MIXED, SHARED, {"q_groups": 2}])
def test_conversion_comes_nearer_than_slicing_on_text_it_has_not_seen(shape: dict[str, Any]):
    model, seen, unseen = dense_model(), text(0), text(1)
    errors: list[MatrixError] = []
    converted = squeeze(model, shape, seen, report=errors.append)
    sliced = squeeze(model, shape)
    assert difference(converted, model, unseen) < 0.8 * difference(sliced, model, unseen)
    assert [e.matrix for e in errors] == ["qkv", "post_attention", "intermediate", "output"] * 2
    assert all(0 <= e.error < 1.2 for e in errors)


@pytest.mark.parametrize("shape", [PAPER_GROUPS, LOW_RANK, MIXED, SHARED])
def test_a_model_that_has_the_shape_already_is_found_again(shape: dict[str, Any]):
    """Squeeze a dense model that was written out from squeezed weights: nothing is lost."""
    squeezed = squeeze(dense_model(), shape, text(2))
    written = dense_model()
    for old, new in zip(squeezed.encoder.layers, written.encoder.layers, strict=True):
        for path in (
            "attention.query",
            "attention.key",
            "attention.value",
            "post_attention.conv1d",
            "intermediate.conv1d",
            "output.conv1d",
        ):
            source, target = old.get_submodule(path), new.get_submodule(path)
            identity = torch.eye(source.in_features)
            shared = None if old.attention.down is None or "attention." not in path else old.attention.down.T
            if path == "post_attention.conv1d":
                shared = None
            with torch.no_grad():
                matrix = source(identity, False, shared) - source.bias
                target.weight.copy_(matrix.T.unsqueeze(-1))
                target.bias.copy_(source.bias)
    state = {name: value for name, value in squeezed.state_dict().items() if "encoder" not in name}
    written.load_state_dict(state, strict=False)
    found = squeeze(written, shape, text(3), ridge=1e-4)
    assert difference(found, written, text(4)) < 1e-3


def test_fits_are_least_squares():
    torch.manual_seed(0)
    x, W = torch.randn(400, 8) @ torch.randn(8, 8), torch.randn(12, 8)
    moments = Moments(8, 12)
    for part in x.split(150):
        moments.add(part, part @ W.T + 3)
    target = moments.target(torch.zeros(12, 8), 0.0)
    torch.testing.assert_close(target.W.float(), W, atol=1e-3, rtol=1e-3)
    xc, A, exact = (x - x.mean(0)).double(), target.A, target.W

    def error(V: Tensor) -> float:
        return float((xc @ (V - exact).T).pow(2).sum())

    blocks = spread_blocks(fit_blocks(exact, A, 2), 2)
    for half in range(2):
        rows, columns = slice(6 * half, 6 * half + 6), slice(4 * half, 4 * half + 4)
        best = torch.linalg.lstsq(xc[:, columns], xc @ exact[rows].T).solution.T
        torch.testing.assert_close(blocks[rows, columns], best, atol=1e-4, rtol=1e-4)
    up, down = fit_low_rank(exact, A, 3)
    # Eckart and Young: the best rank 3 of the outputs leaves exactly the smaller singular values
    singular = torch.linalg.svdvals(xc @ exact.T)
    assert error(up @ down) == pytest.approx(float(singular[3:].pow(2).sum()), rel=1e-6)
    tall = torch.randn(5, 8).double()
    up, down = fit_low_rank(tall, A, 2)
    assert error(torch.zeros_like(exact)) > 0
    singular = torch.linalg.svdvals(xc @ tall.T)
    lost = float((xc @ (up @ down - tall).T).pow(2).sum())
    assert lost == pytest.approx(float(singular[2:].pow(2).sum()), rel=1e-6)
    both = fit([target], [(2, 3)])[0]
    assert error(both.matrix) < min(error(blocks), error(fit_low_rank(exact, A, 3)[0] @ fit_low_rank(exact, A, 3)[1]))
    bias = target.bias(both.matrix)
    torch.testing.assert_close((x.double() @ both.matrix.T + bias).mean(0), (x @ W.T + 3).double().mean(0))


@pytest.mark.parametrize("word_rank", [None, 5])
def test_reordering_changes_no_answer_and_keeps_more_in_the_blocks(word_rank: int | None):
    torch.manual_seed(0)
    config = dense_model().config
    config.word_rank = word_rank
    model = SqueezeBertForSequenceClassification(config).eval()
    # Hide a block structure behind a random order, and see it found again
    with torch.no_grad():
        for layer in model.transformer.encoder.layers:
            attention = layer.attention
            for matrix in (attention.query, attention.key, attention.value, layer.intermediate.conv1d):
                matrix.weight.normal_()
                out, into, _ = matrix.weight.shape
                matrix.weight.mul_(torch.block_diag(*[torch.ones(out // 2, into // 2)] * 2).unsqueeze(-1))
            out, into, _ = layer.output.conv1d.weight.shape
            layer.output.conv1d.weight.normal_()
            layer.output.conv1d.weight.mul_(torch.block_diag(*[torch.ones(out // 2, into // 2)] * 2).unsqueeze(-1))
    generator = torch.Generator().manual_seed(5)
    shuffle = Orders(
        torch.randperm(16, generator=generator),
        [torch.randperm(4, generator=generator) for _ in range(2)],
        [torch.randperm(32, generator=generator) for _ in range(2)],
        0.0,
    )
    mixed = reorder(model, shuffle)
    ids, mask, types = text(0)[0]
    torch.testing.assert_close(mixed(ids, mask, types).logits, model(ids, mask, types).logits)
    orders = find_orders(mixed, 2, input_variances(mixed, text(0)))
    assert orders.energy == pytest.approx(1.0)
    ordered = reorder(mixed, orders)
    torch.testing.assert_close(ordered(ids, mask, types).logits, model(ids, mask, types).logits)
    halves = {**dict.fromkeys(PAPER_GROUPS, 2)}
    squeezed = squeeze(ordered, halves)
    torch.testing.assert_close(squeezed(ids, mask, types).logits, model(ids, mask, types).logits)
    # The student's states are the teacher's in another order, and `align` brings them together
    aligned = align(model, squeezed)
    ours, theirs = (m.base_model(ids, mask, types).last_hidden_state for m in (squeezed, aligned))
    torch.testing.assert_close(ours, theirs)
    assert align(model, model) is model


@pytest.mark.parametrize("width", [16, 8])
@pytest.mark.parametrize("head", ["ForMaskedLM", "ForTokenClassification", "ForQuestionAnswering"])
def test_reordering_changes_no_answer_of_a_head_that_reads_every_token(head: str, width: int):
    torch.manual_seed(0)
    config = dense_model().config
    config.embedding_size = width
    model = getattr(models, f"SqueezeBert{head}")(config).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    orders = Orders(
        torch.randperm(16, generator=generator),
        [torch.randperm(4, generator=generator) for _ in range(2)],
        [torch.randperm(32, generator=generator) for _ in range(2)],
        0.0,
    )
    ids, mask, types = text(0)[0]
    expected, actual = (one(ids, mask, types).to_tuple()[0] for one in (model, reorder(model, orders)))
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def test_a_student_starts_from_a_squeezed_model_and_a_finetuned_teacher():
    """The teacher is a finetuned relative of the model that was squeezed; refitting brings the student near it."""
    base = SqueezeBertForSequenceClassification(dense_model().config).eval()
    with torch.no_grad():
        for parameter in base.transformer.encoder.parameters():
            parameter.normal_(0, 0.3) if parameter.dim() > 1 else None
    orders = find_orders(base, 2, input_variances(base, text(0)))
    halves = dict.fromkeys(PAPER_GROUPS, 2)
    squeezed = squeeze(reorder(base, orders).transformer, halves, text(0))
    teacher = SqueezeBertForSequenceClassification(base.config).eval()
    teacher.load_state_dict(base.state_dict())
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(0.3 * parameter.std() * torch.randn_like(parameter) if parameter.dim() > 1 else 0)
    assert refit_obstacle(squeezed, teacher) is None
    stranger = SqueezeBertForSequenceClassification(base.config)
    assert "its words are not the teacher's" in str(refit_obstacle(squeezed, stranger))
    student = refit(squeezed, teacher, text(3))
    assert student.config.channel_order == squeezed.config.channel_order is not None
    ours = align(teacher, student).transformer
    # Held to its own weights it is the squeezed model under the teacher's embeddings
    kept = refit(squeezed, teacher, text(3), ridge=1e9)
    before, after = (difference(model.transformer, ours, text(4)) for model in (kept, student))
    assert after < 0.9 * before
    for own, old in zip(kept.transformer.encoder.layers, squeezed.encoder.layers, strict=True):
        torch.testing.assert_close(own.output.conv1d.weight, old.output.conv1d.weight, atol=1e-5, rtol=1e-4)


def test_without_correction_errors_pile_up():
    model, seen, unseen = dense_model(), text(0), text(1)
    corrected, alone = (squeeze(model, PAPER_GROUPS, seen, corrects=one) for one in (True, False))
    assert difference(corrected, model, unseen) < difference(alone, model, unseen)


def test_a_squeezed_model_is_not_squeezed_again():
    with pytest.raises(ValueError, match=r"squeezed already \(q_groups 4, k_groups 4"):
        squeeze(squeeze(dense_model(), PAPER_GROUPS), PAPER_GROUPS)


@pytest.mark.parametrize(
    ("shape", "message"),
    [({"q_groups": 3}, "q_groups = 3 does not divide 16"), ({"groups": 4}, "not a part of a shape: groups")],
)
def test_shapes_that_do_not_fit_are_refused(shape: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        squeeze(dense_model(), shape)


def test_no_text_is_no_calibration():
    ids = torch.ones(1, 4, dtype=torch.long)
    for batches in ([], [(ids, torch.zeros_like(ids), ids)]):
        with pytest.raises(ValueError, match="no text to calibrate on"):
            squeeze(dense_model(), PAPER_GROUPS, batches)
