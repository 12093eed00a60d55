"""Which heads and inner channels a narrower model keeps, and what becomes of the others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_squeeze import PAPER_GROUPS, dense_model, difference, text

from squeezebert.model import SqueezeBertConfig, SqueezeBertModel
from squeezebert.training.narrowing import eliminate, narrow, rank_units
from squeezebert.training.squeeze import squeeze

NARROW: dict[str, Any] = {"intermediate_size": [16, 24], "kept_heads": [2, 3]}


def loss_without(W: torch.Tensor, A: torch.Tensor, gone: list[int]) -> float:
    """What the outputs lose without some inputs once the weights of the others are fitted anew."""
    kept = [i for i in range(len(A)) if i not in gone]
    V = torch.zeros_like(W)
    V[:, kept] = torch.linalg.solve(A[kept][:, kept], (W @ A[:, kept]).T).T
    return float(((W - V) @ A * (W - V)).sum())


@pytest.mark.parametrize("size", [1, 2])
def test_each_step_takes_away_what_the_others_make_up_for_best(size: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(200, 8, dtype=torch.float64) @ torch.randn(8, 8, dtype=torch.float64)
    A, W = x.T @ x / 200, torch.randn(3, 8, dtype=torch.float64)
    order = eliminate(W, A, size).tolist()
    assert sorted(order) == list(range(8 // size))
    A = A + torch.eye(8) * 1e-2 * A.diagonal().mean()
    gone: list[int] = []
    for unit in reversed(order[1:]):
        costs = {
            u: loss_without(W, A, [i for v in (*gone, u) for i in range(v * size, (v + 1) * size)])
            for u in range(8 // size)
            if u not in gone
        }
        assert unit == min(costs, key=lambda u: costs[u])
        gone.append(unit)


def test_a_copy_of_a_channel_and_one_that_says_nothing_go_first() -> None:
    torch.manual_seed(1)
    x = torch.randn(500, 6)
    x[:, 4] = x[:, 1]
    W = torch.randn(5, 6)
    W[:, 2] = 0
    order = eliminate(W, x.T @ x / 500, 1).tolist()
    assert set(order[-2:]) in ({2, 1}, {2, 4})


def test_without_the_fit_a_narrow_model_is_the_dense_one_without_its_units() -> None:
    model = dense_model()
    ranking = rank_units(model, text(0))
    narrowed = narrow(model, NARROW, ranking)
    assert [narrowed.config.width(i) for i in (0, 1)] == [16, 24]
    with torch.no_grad():
        for i, block in enumerate(model.encoder.layers):
            gone = ranking.inner[i][NARROW["intermediate_size"][i] :]
            block.output.conv1d.weight[:, gone] = 0
            for head in ranking.heads[i][NARROW["kept_heads"][i] :].tolist():
                block.post_attention.conv1d.weight[:, head * 4 : head * 4 + 4] = 0
    ids, mask, types = text(1)[0]
    for a, b in zip(
        *(m(ids, mask, types, output_hidden_states=True).hidden_states for m in (model, narrowed)), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_groups_keep_as_many_of_their_own() -> None:
    model = dense_model()
    ranking = rank_units(model)
    narrowed = narrow(model, {**PAPER_GROUPS, "intermediate_size": 8}, ranking)
    for i, block in enumerate(model.encoder.layers):
        rows = narrowed.encoder.layers[i].intermediate.conv1d.weight
        found = [int((block.intermediate.conv1d.weight == row).all(dim=(1, 2)).nonzero()) for row in rows]
        assert found == sorted(found)
        assert [sum(j // 8 == g for j in found) for g in range(4)] == [2, 2, 2, 2]


@pytest.mark.parametrize(
    "shape",
    [
        NARROW,
        {**NARROW, "kept_heads": 4, "intermediate_act": ["relu", "gelu"]},
        {**PAPER_GROUPS, "kept_heads": 4, "intermediate_size": 16},
        {"kept_heads": [0, 4], "intermediate_size": [32, 0]},
        {"kept_heads": [4, 0], "intermediate_size": [0, 32], "output_groups": 0, "output_rank": 5},
    ],
)
def test_what_is_left_makes_up_for_what_is_gone(shape: dict[str, Any], tmp_path: Any) -> None:
    model, seen, unseen = dense_model(), text(0), text(1)
    # Slices are chosen by weights alone, and nothing is fitted to them
    sliced, fitted = squeeze(model, shape), squeeze(model, shape, seen)
    assert difference(fitted, model, unseen) < 0.8 * difference(sliced, model, unseen)
    fitted.save_pretrained(tmp_path)
    again = SqueezeBertModel.from_pretrained(tmp_path).eval()
    assert difference(again, fitted, unseen) == 0
    assert again.config.fits_transformers is False


def test_an_activation_that_is_all_there_is_and_widths_that_are_no_news() -> None:
    config = SqueezeBertConfig(num_hidden_layers=2, kept_heads=[12, 12], intermediate_act=["gelu", "gelu"])
    assert (config.kept_heads, config.intermediate_act) == (None, None)
    assert config == SqueezeBertConfig(num_hidden_layers=2)
    assert config.intermediate_size == 3072


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"kept_heads": 5}, r"kept_heads = 5 in layer 0, and the dense model has 4: nothing to keep"),
        ({"intermediate_size": [32, 64]}, r"intermediate_size = 64 in layer 1, and the dense model has 32"),
        ({**PAPER_GROUPS, "intermediate_size": 10}, r"intermediate_groups = 4 does not divide 10 and 16"),
        ({"kept_heads": -1}, r"kept_heads = -1 in layer 0: expected 0 to 4"),
        ({"intermediate_size": -1}, r"intermediate_size = -1 in layer 0: expected 0 or more"),
    ],
)
def test_sizes_that_cannot_be(shape: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        squeeze(dense_model(), shape)
