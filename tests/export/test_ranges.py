"""Ranges that are found once: what they cover, what the static file then computes, and blocks that stay fp32."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from squeezebert.export import int8
from squeezebert.export.exporter import ExportRefused, export_checkpoint
from squeezebert.export.graph import write_graph
from squeezebert.export.options import ExportOptions
from squeezebert.export.quantize import fix_ranges, quantize_graph
from squeezebert.export.ranges import find_ranges, scale_and_zero
from squeezebert.files.errors import OptionError
from squeezebert.model.configuration import GROUP_FIELDS
from squeezebert.runtime.predictor import load
from squeezebert.training.shapes import best_shape, paper_shape
from tiny_checkpoints import VOCABULARY, save_checkpoint, texts, tiny_model

pytest_plugins = ["exported_folders"]

DENSE = dict.fromkeys(GROUP_FIELDS, 1)


@pytest.fixture
def doubled(tmp_path):
    """A model file that doubles its input."""
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None]) for name in "xy")
    nodes = [
        onnx.helper.make_node("Add", ["x", "x"], ["twice"]),
        onnx.helper.make_node("Sub", ["x", "x"], ["nothing"]),
        onnx.helper.make_node("Add", ["twice", "nothing"], ["y"]),
    ]
    graph = onnx.helper.make_graph(nodes, "g", [x], [y])
    path = tmp_path / "doubled.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.mark.parametrize("how", ["minmax", "percentile", "mse"])
def test_each_range_covers_what_it_says(doubled, how):
    generator = np.random.default_rng(0)
    values = generator.uniform(-1, 3, (30, 5000)).astype(np.float32)
    values[7, 3] = 400.0
    feeds = [{"x": row} for row in values]
    found = find_ranges(doubled, ["twice", "nothing"], feeds, how)
    low, high = found["twice"]
    if how == "minmax":
        assert (low, high) == (pytest.approx(-2, abs=0.01), 800)
    elif how == "percentile":
        assert (low, high) == (pytest.approx(-2, abs=0.01), pytest.approx(6, abs=0.01))
    else:  # the one value beyond may or may not be in the sample; to keep it whole would cost all others
        assert low <= -0.4
        assert 6 <= high < 800
    assert found["nothing"] == (0.0, 1.0)
    assert [path.name for path in doubled.parent.iterdir()] == ["doubled.onnx"]
    again = find_ranges(doubled, ["twice", "nothing"], feeds, how)
    assert again == found


def test_zero_is_exact_and_levels_span_the_range():
    scale, zero = scale_and_zero(-1.0, 3.0)
    assert zero == 64
    assert (255 - zero) * scale == pytest.approx(3.0, abs=float(scale))
    assert scale_and_zero(0.0, 5.0)[1] == 0
    assert scale_and_zero(-5.0, 0.0)[1] == 255


@pytest.mark.parametrize("shape", [{}, paper_shape(4), paper_shape(2, 4), best_shape(32, 64)])
def test_fixed_at_what_one_run_finds_the_file_computes_the_same(tmp_path, shape):
    model = tiny_model(**DENSE | shape)
    fp32, path = tmp_path / "a.onnx", tmp_path / "b.onnx"
    write_graph(model, fp32, 20)
    tensors = quantize_graph(fp32, path)
    generator = np.random.default_rng(1)
    ids = generator.integers(5, VOCABULARY, (1, 12))
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    proto = onnx.load(str(path))
    rounded = [node for node in proto.graph.node if node.op_type == "DynamicQuantizeLinear"]
    for node in rounded:
        proto.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in node.output[1:])

    def run(content, names=None):
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        return session.run(names, feed)

    scales = run(proto.SerializeToString(), [name for node in rounded for name in node.output[1:]])
    found = {
        node.input[0]: (-float(zero) * float(scale), (255 - float(zero)) * float(scale))
        for node, scale, zero in zip(rounded, scales[::2], scales[1::2], strict=True)
    }
    before = run(str(path))[0]
    fix_ranges(path, found)
    kinds = [node.op_type for node in onnx.load(str(path)).graph.node]
    assert not {"DynamicQuantizeLinear", "MatMulInteger"} & set(kinds)
    assert kinds.count("QuantizeLinear") == len(set(tensors))
    np.testing.assert_allclose(run(str(path))[0], before, atol=1e-4)


@pytest.mark.parametrize("ranges", ["minmax", "percentile", "mse"])
def test_a_static_file_answers_alike_and_alone_as_in_company(single, tmp_path, ranges):
    options = ExportOptions(threads=1, activations="static", ranges=ranges, force=True)
    report = export_checkpoint(single.checkpoint, tmp_path / "out", options, calibration=texts(40, seed=3))
    file = report.manifest.files["int8"]
    assert file.batch_invariant
    assert file.quantisation.startswith("static")
    assert ranges in file.quantisation
    difference = np.abs(report.probabilities["int8"] - report.probabilities["fp32"])
    assert 0 < difference.mean() < 0.05
    predictor = load(tmp_path / "out", precision="int8")
    some = texts(20, seed=5)
    together = predictor.logits(some)
    alone = np.concatenate([predictor.logits([text]) for text in some])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_static_ranges_go_with_words_in_4_bits(single, tmp_path):
    options = ExportOptions(threads=1, activations="static", embeddings="int4", force=True)
    report = export_checkpoint(single.checkpoint, tmp_path / "out", options, calibration=texts(40, seed=3))
    assert "static" in report.manifest.files["int8"].quantisation
    assert "4 bits" in report.manifest.files["int8"].quantisation
    assert not any("ranges were found" in warning for warning in report.warnings)
    options = replace(options, overwrite=True)
    few = export_checkpoint(single.checkpoint, tmp_path / "out", options, calibration=texts(3, seed=3))
    assert any("ranges were found on 3 texts alone" in warning for warning in few.warnings)
    assert np.abs(report.probabilities["int8"] - report.probabilities["fp32"]).mean() < 0.1


def test_static_ranges_want_texts_of_the_models_kind(single, tmp_path):
    for given, message in ((None, "a few hundred texts"), ([], "a few hundred texts"), ([("a", "b")], "single texts")):
        with pytest.raises(OptionError, match=message):
            export_checkpoint(
                single.checkpoint, tmp_path / "out", ExportOptions(activations="static"), calibration=given
            )
    with pytest.raises(OptionError, match="all its texts are empty"):
        export_checkpoint(
            single.checkpoint, tmp_path / "out", ExportOptions(activations="static"), calibration=["", " "]
        )
    with pytest.raises(OptionError, match="serves static ranges alone"):
        export_checkpoint(single.checkpoint, tmp_path / "out", calibration=["a"])
    assert not list(tmp_path.iterdir())
    for wrong in ({"activations": "dinamic"}, {"ranges": "max"}, {"spare_blocks": -1}, {"spare_blocks": True}):
        with pytest.raises(OptionError, match="give"):
            ExportOptions(**wrong)


def test_spared_blocks_stay_fp32(tmp_path):
    model = tiny_model(num_hidden_layers=3, **paper_shape(2, 4))
    write_graph(model, tmp_path / "a.onnx", 20)
    counts = {}
    for spared in ((), (1,), (0, 1, 2)):
        quantize_graph(tmp_path / "a.onnx", tmp_path / "b.onnx", spared=spared)
        nodes = onnx.load(str(tmp_path / "b.onnx")).graph.node
        counts[spared] = sum(node.op_type == "MatMulInteger" for node in nodes)
    assert counts[()] > counts[(1,)] > counts[(0, 1, 2)] == 2  # pooler and classifier
    assert counts[()] - counts[(1,)] == (counts[()] - 2) / 3


def test_the_block_that_errs_is_found_and_spared(tmp_path, monkeypatch):
    checkpoint = save_checkpoint(tmp_path / "checkpoint", tiny_model(num_hidden_layers=3))
    rows = [{"text": text, "text_pair": None, "label": None} for text in texts(60, seed=2)]

    def spoil(source, target, embeddings, spared):
        tensors = quantize_graph(source, target, embeddings, spared)
        if 1 not in spared:  # as a block whose range leaves nothing of most channels would
            proto = onnx.load(str(target))
            for initializer in proto.graph.initializer:
                if initializer.name.startswith("classifier") and initializer.name.endswith(("_scale", "bias")):
                    values = -onnx.numpy_helper.to_array(initializer)
                    initializer.CopyFrom(onnx.numpy_helper.from_array(values, initializer.name))
            onnx.save(proto, str(target))
        return tensors

    monkeypatch.setattr(int8, "quantize_graph", spoil)
    with pytest.raises(ExportRefused, match="int8 was refused"):
        export_checkpoint(checkpoint, tmp_path / "a", ExportOptions(threads=1, min_agreement=0.9), rows)
    told: list[str] = []
    options = ExportOptions(threads=1, min_agreement=0.9, spare_blocks=2)
    report = export_checkpoint(checkpoint, tmp_path / "b", options, rows, told.append)
    assert report.manifest.files["int8"].quantisation.endswith("; blocks 1 in fp32")
    assert [line for line in told if "stays fp32" in line] == ["block 1 stays fp32"]
    told.clear()
    with_text = ExportOptions(threads=1, min_agreement=0.9, spare_blocks=2, activations="static")
    report = export_checkpoint(checkpoint, tmp_path / "c", with_text, rows, told.append, texts(30, seed=4))
    assert report.manifest.files["int8"].quantisation.endswith("; blocks 1 in fp32")
    assert report.manifest.files["int8"].batch_invariant
    agree = report.probabilities["int8"].argmax(axis=1) == report.probabilities["fp32"].argmax(axis=1)
    assert agree.mean() >= 0.9
