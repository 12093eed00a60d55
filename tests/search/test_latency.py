"""The latency table: it counts the work that the exporter writes, and predicts what it has not seen."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from test_space import BASE, base, points
from test_space import space as small_space

from squeezebert.benchmark.baselines import write_ours
from squeezebert.benchmark.latency import made_up_inputs
from squeezebert.export.graph import ClassifierGraph, EmbeddingGraph, EncoderGraph
from squeezebert.export.smoothing import find_scales, made_up_scales
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.model import SqueezeBertConfig, SqueezeBertForSequenceClassification, SqueezeBertModel
from squeezebert.search import latency
from squeezebert.search.latency import (
    ENGINES,
    WORK,
    Reads,
    Target,
    build_table,
    measure_ratios,
    work_of,
    write_network,
)
from squeezebert.search.space import Shape, Space

PROJECTED = SqueezeBertConfig(**{**BASE, "embedding_size": 32})

COUNTED = {
    **{"Softmax": "scores", "Gelu": "gelu", "Relu": "relu", "LayerNormalization": "normalised"},
    **{"Split": "channels joined", "Concat": "channels joined", "Mul": "scaled"},
}
"""Nodes whose written elements are counted -> as what."""


def work_in(proto: onnx.ModelProto, tokens: int) -> dict[str, float]:
    """What the nodes of a graph do for one text, under the names of `WORK`, and what it scales.

    The graph is run, and each tensor asked for.
    """
    named = [name for node in proto.graph.node for name in node.output]
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in named)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    values = dict(zip(named, session.run(None, made_up_inputs(1, tokens, 50)), strict=True))
    floats = {name for name, value in values.items() if value.dtype == np.float32}
    shapes = {name: value.shape for name, value in values.items()}
    weights = {one.name: one.dims for one in proto.graph.initializer if one.data_type == onnx.TensorProto.FLOAT}
    found = dict.fromkeys([*WORK, "scaled"], 0.0) | {"network": 1.0}
    for node in proto.graph.node:
        read = [name for name in node.input if name in weights]
        if node.output[0] not in floats or not all(name.startswith("blocks.") for name in read):
            continue  # lengths, embeddings, and what reads the last states
        written = sum(math.prod(shapes[name]) for name in node.output)
        if node.op_type in ("Gemm", "MatMul"):
            left = shapes[node.input[0]]
            found["multiply-adds"] += written * left[-1]
            if read:
                found["products"] += 1
                found["inputs read"] += math.prod(left)
                found["outputs written"] += written
                found["weights read"] += math.prod(weights[read[0]])
        elif node.op_type in COUNTED and (read or node.op_type != "Mul"):  # other products are by the padding
            found[COUNTED[node.op_type]] += written
    return found


@pytest.mark.parametrize("config", [base(), PROJECTED], ids=["plain", "projected"])
@pytest.mark.parametrize("smooth", [True, False], ids=["int8", "fp32"])
@pytest.mark.parametrize("reads", ["first", "all"])
def test_the_work_is_what_the_exporter_writes(config: SqueezeBertConfig, reads: Reads, smooth: bool) -> None:
    space, seed = Space.of(config), 4 * (config is PROJECTED) + 2 * smooth + (reads == "all")
    halves = {"kept_heads": [0, 12, 0], "intermediate_size": [192, 0, 192]}
    late = {"kept_heads": [0, 0, 0], "intermediate_size": [0, 0, 192]}
    ends = [space.dense, space.empty, *(space.repaired({**space.dense, **some}) for some in (halves, late))]
    for point in [*ends, *points(6, seed), *crowded(3, seed)]:
        model = SqueezeBertForSequenceClassification(space.config(point, config))
        scales = made_up_scales(model) if smooth else None
        graph: EncoderGraph = ClassifierGraph(model, scales)
        if reads == "all":
            graph = EmbeddingGraph(model.transformer, scales)
        proto = graph.to_onnx(20)
        for tokens in (16, 1):
            counted = dict(zip(WORK, work_of(space, point, tokens, reads), strict=True))
            found = work_in(proto, tokens)
            scaled = found.pop("scaled")
            assert counted == found, point
            # What is scaled is what is normalised or activated, but for what a projection stands behind
            written = sum(counted[name] for name in ("normalised", "gelu", "relu"))
            behind = {tokens * space.hidden_size, space.hidden_size, 0} if config is PROJECTED else {0}
            assert written * smooth - scaled in (behind if smooth else {0}), point


def crowded(count: int, seed: int) -> list[Shape]:
    """Points with groups and small ranks in all matrices, and every width."""
    generator, whole = np.random.default_rng(seed), small_space()
    some = {field: [v for v in values if v][:3] for field, values in whole.choices.items()}
    some |= {field: [2, 4, 8] for field in whole.choices if field.endswith("groups")}
    some["intermediate_size"] = list(whole.choices["intermediate_size"][:-1])
    return [
        whole.repaired({field: generator.choice(values, whole.layers).tolist() for field, values in some.items()})
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    ("up", "down", "joined"),
    [(4, 4, 3072), (4, 8, 15360), (4, 1, 7680), (1, 4, 7680), (1, 1, 0)],
)
def test_pieces_between_the_halves_of_a_feed_forward_network_are_joined_only_to_be_cut_otherwise(
    up: int, down: int, joined: int
) -> None:
    space = Space.of(SqueezeBertConfig(**{**BASE, "intermediate_size": 384, "num_hidden_layers": 2}))
    shape = space.uniform(intermediate_groups=up, output_groups=down)
    shape["intermediate_size"][1] = 0
    assert work_of(space, shape, 16)[WORK.index("channels joined")] == joined


@pytest.mark.parametrize("config", [base(), PROJECTED], ids=["plain", "projected"])
def test_made_up_scales_are_where_a_trained_model_may_have_some(config: SqueezeBertConfig) -> None:
    torch.manual_seed(0)
    space, ids = Space.of(config), torch.randint(1, 50, (2, 9))
    skipped = space.repaired({**space.dense, "kept_heads": [0, 12, 0], "intermediate_size": [0, 0, 96]})
    halves = space.repaired({**space.dense, "kept_heads": [0, 4, 12], "intermediate_size": [192, 192, 0]})
    for point in [space.dense, space.empty, skipped, halves, *points(8, seed=3)]:
        model = SqueezeBertModel(space.config(point, config)).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "layernorm.weight" in name.lower() or name.endswith("intermediate.conv1d.bias"):
                    parameter[0] = 1e9 if name.endswith("bias") else 1e4
            if model.embeddings.projection is not None:
                model.embeddings.projection.bias[0] = 50
        for made, found in zip(made_up_scales(model), find_scales(model, [(ids, ids * 0)]), strict=True):
            for field in ("attention", "up", "down"):
                a, b = getattr(made, field), getattr(found, field)
                assert (a is None) == (b is None), (field, point)
                assert a is None or a.shape == b.shape


def test_only_int8_is_scaled_and_only_where_it_is_asked_for(tmp_path: Path) -> None:
    def scales_in(path: Path) -> int:
        names = [one.name for one in onnx.load(str(path)).graph.initializer]
        return sum(name.endswith(("attention_scale", "up_scale", "down_factors.0")) for name in names)

    model = SqueezeBertForSequenceClassification(base())
    smooth, plain = write_ours(model, tmp_path / "a", made_up_scales(model)), write_ours(model, tmp_path / "b")
    assert scales_in(smooth["int8"].path) == 9
    assert [scales_in(file.path) for file in (smooth["fp32"], plain["fp32"], plain["int8"])] == [0, 0, 0]
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"model.onnx", "model_quantized.onnx"}
    assert set(ENGINES.values()) == set(plain)
    encoder = SqueezeBertModel(base())
    scales = made_up_scales(encoder)
    for number, (engine, count) in enumerate((("onnx-int8", 9), ("onnx-fp32", 0))):
        for reads, output in (("first", "logits"), ("all", "sentence_embedding")):
            target = Target(engine, reads=reads)  # type: ignore[arg-type]
            file = write_network(encoder, tmp_path / f"{number}-{reads}", target, scales)
            assert scales_in(file.path) == count
            assert [one.name for one in onnx.load(str(file.path)).graph.output] == [output]
            assert list(file.path.parent.iterdir()) == [file.path]


def test_a_classifier_is_written_with_the_encoder_that_was_given(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = SqueezeBertModel(base()).eval()
    file = write_network(model, tmp_path, Target("onnx-fp32"), None)
    kept = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(str(file.path)).graph.initializer}
    np.testing.assert_array_equal(kept["words.weight"], model.embeddings.word_embeddings.weight.detach())
    assert model.config.num_labels == base().num_labels


def measured(shapes: dict[str, Shape], noise: float = 0.0, space: Space | None = None) -> dict[str, dict[str, float]]:
    """Ratios as a machine would give that has a price for everything, and a little more."""
    prices = np.array([3e-3, 1e-8, 2e-7, 1e-7, 0, 1e-7, 3e-7, 4e-7, 1e-7, 1e-7, 0.01])
    generator = np.random.default_rng(9)
    found = {}
    for name, shape in shapes.items():
        work = work_of(space or small_space(), shape, 16)
        ratio = float(work @ prices) * (1 + noise * generator.normal())
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
        (
            {"target": {"engine": "onnx-fp32", "threads": 1, "tokens": 16, "reads": "first"}},
            "of another target .*onnx-fp32",
        ),
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


@pytest.mark.parametrize("options", [{"engine": "coreml"}, {"threads": 0}, {"tokens": 0}, {"reads": "some"}])
def test_targets_that_are_none(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"--{next(iter(options))}"):
        Target(**options)


@pytest.mark.parametrize("reads", ["first", "all"])
def test_real_networks_are_timed_beside_the_anchor(reads: Reads) -> None:
    config = SqueezeBertConfig(**{**BASE, "num_hidden_layers": 2})
    whole, target = Space.of(config), Target(tokens=16, reads=reads)
    found = measure_ratios({"dense": whole.dense, "empty": whole.empty}, whole, config, target, turns=9, burst=3)
    for row in found.values():
        assert row["ms"] > 0
        assert row["anchor_ms"] > 0
    # The dense network is the anchor; the empty one has no layers
    assert found["empty"]["ratio"] < 0.8 * found["dense"]["ratio"]
    assert 0.5 < found["dense"]["ratio"] < 2
