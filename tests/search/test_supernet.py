"""The supernet: every point of the space is in it, as the network it is by itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_space import base, points, space

from squeezebert.model import SqueezeBertConfig, SqueezeBertModel
from squeezebert.model.configuration import GROUP_FIELDS
from squeezebert.search.space import Space
from squeezebert.search.supernet import Supernet, _input_moments, _pair_up, nested_order
from squeezebert.training.shapes import paper_shape

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def text(seed: int, batches: int = 4) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(batches):
        ids = torch.randint(1, 50, (8, 12), generator=generator)
        mask = torch.ones_like(ids)
        mask[::2, 8:] = 0
        made.append((ids, mask, torch.zeros_like(ids)))
    return made


@pytest.fixture(scope="module")
def dense() -> SqueezeBertModel:
    torch.manual_seed(0)
    config = base()
    config.initializer_range = 0.15  # layers that say more than their inputs do
    return SqueezeBertModel(config).eval()


@pytest.fixture(scope="module")
def supernet(dense: SqueezeBertModel) -> Supernet:
    return Supernet.of(nested_order(dense, text(0)), space(), text(0)).eval()


def states(model: SqueezeBertModel, batch: Batch) -> list[torch.Tensor]:
    with torch.no_grad():
        return list(model(*batch, output_hidden_states=True).hidden_states[1:])


def test_a_point_computes_what_its_own_network_computes(supernet: Supernet) -> None:
    batch = text(3, 1)[0]
    found = points(25, seed=11)
    assert any(0 in point["kept_heads"] for point in found)
    assert any(0 in point["intermediate_size"] for point in found)
    for point in [*found, space().uniform(**paper_shape(8)), space().empty]:
        alone = supernet.extract(point)
        with torch.no_grad():
            together = supernet(*batch, supernet.gates_of(point))
        for mine, theirs in zip(together, states(alone, batch), strict=True):
            torch.testing.assert_close(mine[batch[1].bool()], theirs[batch[1].bool()], atol=2e-5, rtol=1e-4)


def test_the_dense_point_is_the_teacher_in_another_order(supernet: Supernet, dense: SqueezeBertModel) -> None:
    teacher = nested_order(dense, text(0))
    order = torch.tensor(teacher.config.channel_order)
    batch = text(5, 1)[0]
    for a, b in zip(states(teacher, batch), states(dense, batch), strict=True):
        torch.testing.assert_close(a, b[..., order], atol=2e-5, rtol=1e-4)
    with torch.no_grad():
        together = supernet(*batch, supernet.gates_of(space().dense))
    for mine, theirs in zip(together, states(teacher, batch), strict=True):
        torch.testing.assert_close(mine[batch[1].bool()], theirs[batch[1].bool()], atol=2e-5, rtol=1e-4)


def test_every_shape_starts_from_its_fit(supernet: Supernet, dense: SqueezeBertModel) -> None:
    teacher = nested_order(dense, text(0))
    moments = _input_moments(teacher, text(0))
    for block, layer in zip(teacher.encoder.layers, supernet.layers, strict=True):
        for name in ("intermediate", "output"):
            A = moments[getattr(block, name).conv1d].target(torch.zeros(1, 1), 0.01).A.float()
            matrix = layer.matrices[name]

            def lost(
                groups: int, rank: int, name: str = name, layer: Any = layer, A: Any = A, W: Any = matrix.dense
            ) -> float:
                gates = {}
                for field, value in ((f"{name}_groups", groups), (f"{name}_rank", rank)):
                    gates[field] = torch.tensor([float(one == value) for one in space().choices[field]])
                with torch.no_grad():
                    V = layer.matrix(name, gates)
                    return float(((V - W) @ A * (V - W)).sum() / (W @ A * W).sum())

            assert lost(1, 0) == 0
            by_groups, by_rank = [lost(g, 0) for g in (8, 4, 2)], [lost(1, r) for r in (8, 16, 24)]
            assert by_groups == sorted(by_groups, reverse=True)
            assert by_rank == sorted(by_rank, reverse=True)
            assert all(lost(g, max(space().choices[f"{name}_rank"])) < lost(g, 0) for g in (2, 4, 8))
            W = matrix.dense.detach()
            sliced = torch.block_diag(*(rows.chunk(4, dim=1)[g] for g, rows in enumerate(W.chunk(4))))
            assert by_groups[1] < float(((sliced - W) @ A * (sliced - W)).sum() / (W @ A * W).sum())


def test_a_mixture_is_the_mean_of_its_matrices_and_every_gate_gets_a_gradient(supernet: Supernet) -> None:
    layer: Any = supernet.layers[0]
    probabilities = {
        field: torch.full((len(values),), 1 / len(values), requires_grad=True)
        for field, values in space().choices.items()
    }
    mixed = layer.matrix("output", probabilities)
    expected = torch.zeros_like(mixed)
    for g in space().choices["output_groups"]:
        for rank in space().choices["output_rank"]:
            gates = {
                "output_groups": torch.tensor([float(g == one) for one in space().choices["output_groups"]]),
                "output_rank": torch.tensor([float(rank == one) for one in space().choices["output_rank"]]),
            }
            expected += layer.matrix("output", gates) / len(space().choices["output_rank"]) / 4
    torch.testing.assert_close(mixed, expected, atol=1e-6, rtol=1e-4)
    supernet(*text(2, 1)[0], [probabilities] * 3)[-1].square().mean().backward()
    for field, gates in probabilities.items():
        assert gates.grad is not None, field
        assert gates.grad.abs().max() > 0, field


def test_neighbours_are_those_with_most_between_them() -> None:
    between = np.zeros((8, 8))
    for a, b in ((0, 5), (1, 6), (2, 7), (3, 4)):
        between[a, b] = between[b, a] = 9.0
    between[0, 1] = between[2, 3] = between[1, 0] = between[3, 2] = 1.0
    order = _pair_up(between)
    pairs = [frozenset(order[i : i + 2]) for i in range(0, 8, 2)]
    assert set(pairs) == {frozenset(p) for p in ((0, 5), (1, 6), (2, 7), (3, 4))}
    assert {frozenset(order[:4]), frozenset(order[4:])} == {frozenset((0, 5, 1, 6)), frozenset((2, 7, 3, 4))}


def test_a_supernet_takes_what_the_page_says() -> None:
    """4 bytes a weight; beside those that learn, a gradient and two moments."""
    page = (Path(__file__).parents[2] / "docs" / "search.md").read_text(encoding="utf-8")
    rows = re.findall(r"\((\d+) layers of (\d+)\) \| (\d+) M \| ([\d.]+) GB \| ([\d.]+) GB \| ([\d.]+) GB \|", page)
    assert len(rows) == 2
    for layers, channels, *told in rows:
        sizes = {
            "num_hidden_layers": int(layers),
            "hidden_size": int(channels),
            "intermediate_size": 4 * int(channels),
        }
        config = SqueezeBertConfig(**sizes, num_attention_heads=12, **dict.fromkeys(GROUP_FIELDS, 1))
        with torch.device("meta"):
            model = SqueezeBertModel(config)
            made = Supernet(model, Space.of(config))
        learn = sum(one.numel() for one in made.parameters() if one.requires_grad)
        kept = sum(one.numel() for one in made.state_dict().values())
        found = (learn / 1e6, 16 * learn / 1e9, (4 * kept + 8 * learn) / 1e9, 4 * kept / 1e9)
        assert [float(one) for one in told] == pytest.approx(found, rel=0.03)
        assert 4.5 < learn / sum(one.numel() for one in model.encoder.parameters()) < 5.5
