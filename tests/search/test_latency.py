"""The latency table: it counts the work that the exporter writes, and predicts what it has not seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_space import BASE, base, points
from test_space import space as small_space

from squeezebert.export.graph import ClassifierGraph
from squeezebert.export.matrices import Matrix
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.model import SqueezeBertForSequenceClassification
from squeezebert.search import latency
from squeezebert.search.latency import WORK, Target, build_table, measure_ratios, work_of
from squeezebert.search.space import Shape, Space


def products_of(shape: Shape) -> tuple[int, int]:
    """Products with weights in the graph that the exporter writes, and the sum of their k times m."""
    model = SqueezeBertForSequenceClassification(small_space().config(shape, base(), num_labels=2))
    weights = []
    for block in ClassifierGraph(model).blocks:
        if getattr(block, "shared_down", None) is not None:
            weights.append(block.shared_down)
        for matrix in (module for module in block.modules() if isinstance(module, Matrix)):
            weights += [one for one in matrix.parameters() if one.dim() == 2]
    return len(weights), sum(one.numel() for one in weights)


def test_the_work_is_what_the_exporter_writes() -> None:
    count, weights = WORK.index("products"), WORK.index("weights read")
    for point in [small_space().dense, small_space().empty, *points(80, seed=5)]:
        work = work_of(small_space(), point, 16)
        assert products_of(point) == (work[count], work[weights]), point


def measured(shapes: dict[str, Shape], noise: float = 0.0, space: Space | None = None) -> dict[str, dict[str, float]]:
    """Ratios as a machine would give that has a price for everything, and a little more."""
    prices = np.array([3e-3, 1e-8, 2e-7, 1e-7, 0, 1e-7, 3e-7, 4e-7, 1e-7, 1e-7, 0.02])
    generator = np.random.default_rng(9)
    found = {}
    for name, shape in shapes.items():
        ratio = float(work_of(space or small_space(), shape, 16) @ prices) * (1 + noise * generator.normal())
        found[name] = {"ms": 10 * ratio, "anchor_ms": 10.0, "ratio": ratio}
    return found


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Timing replaced by arithmetic; says how many networks were timed."""
    timed: list[int] = []

    def fake(shapes: dict[str, Shape], *rest: Any, **options: Any) -> Any:
        timed.append(len(shapes))
        return measured(shapes, 0.01)

    monkeypatch.setattr(latency, "measure_ratios", fake)
    return timed


TARGET = Target(tokens=16)


def test_what_was_not_seen_is_predicted(machine: list[int], tmp_path: Path) -> None:
    table = build_table(small_space(), base(), TARGET, tmp_path / "t.json", networks=60, held_out=20)
    assert table.accuracy is not None
    assert table.accuracy.networks == 20
    assert table.accuracy.median < 0.02
    assert table.accuracy.worst < 0.08
    low, high = table.range
    assert low < 0.1 < high


def test_a_table_goes_on_where_it_was_cut_off(machine: list[int], tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    whole = build_table(small_space(), base(), TARGET, path, networks=30, held_out=10)
    told = json.loads(path.read_text())
    assert [row["shape"] for row in told["rows"]] == [row["shape"] for row in whole.rows]
    told["rows"] = told["rows"][:16]
    path.write_text(json.dumps(told))
    machine.clear()
    again = build_table(small_space(), base(), TARGET, path, networks=30, held_out=10)
    assert sum(machine) == 24
    assert [row["shape"] for row in again.rows] == [row["shape"] for row in whole.rows]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"machine": {"processor": "another", "cores": 1, "system": "?"}}, "of another machine .*another.*; here"),
        ({"target": {"engine": "onnx-fp32", "threads": 1, "tokens": 16}}, "of another target .*onnx-fp32"),
        ({"onnxruntime": "0.1"}, "of another onnxruntime"),
        ({"space": {}}, "of another space"),
    ],
)
def test_a_table_of_something_else_is_refused(
    machine: list[int], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "t.json"
    build_table(small_space(), base(), TARGET, path, networks=4, held_out=2)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(OptionError, match=message):
        build_table(small_space(), base(), TARGET, path, networks=4, held_out=2)


def test_a_file_that_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("[]")
    with pytest.raises(FolderError, match="no latency table"):
        build_table(small_space(), base(), TARGET, tmp_path / "t.json")


@pytest.mark.parametrize("options", [{"engine": "coreml"}, {"threads": 0}, {"tokens": 0}])
def test_targets_that_are_none(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"--{next(iter(options))}"):
        Target(**options)


def test_real_networks_are_timed_beside_the_anchor() -> None:
    sizes = {**BASE, "num_hidden_layers": 2}
    config = type(base())(**sizes)
    whole = type(small_space()).of(config)
    found = measure_ratios({"dense": whole.dense, "empty": whole.empty}, whole, config, TARGET, turns=9, burst=3)
    for row in found.values():
        assert row["ms"] > 0
        assert row["anchor_ms"] > 0
    # The dense network is the anchor; the empty one has no layers
    assert found["empty"]["ratio"] < 0.8 * found["dense"]["ratio"]
    assert 0.5 < found["dense"]["ratio"] < 2
