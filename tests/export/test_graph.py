"""The exported graph repeats torch at shapes it was not exported with, for every kind of configuration."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers.activations import ACT2FN

from squeezebert.export.graph import INPUTS, write_graph
from squeezebert.export.quantize import quantize_graph
from squeezebert.export.smoothing import find_scales
from squeezebert.export.writer import Writer
from squeezebert.files.errors import OptionError
from squeezebert.model.configuration import GROUP_FIELDS, RANK_FIELDS
from squeezebert.runtime.session import open_session
from tiny_checkpoints import VOCABULARY, tiny_model

CONFIGURATIONS = {
    "paper": {**dict.fromkeys(GROUP_FIELDS, 4), "post_attention_groups": 1, "num_hidden_layers": 1},
    "dense": {**dict.fromkeys(GROUP_FIELDS, 1), "num_hidden_layers": 1},
    "mixed": {
        "q_groups": [1, 2],
        "k_groups": [2, 2],
        "v_groups": [2, 1],
        "post_attention_groups": [2, 1],
        "intermediate_groups": [1, 2],
        "output_groups": [2, 2],
        "hidden_act": "gelu_new",
        "layer_norm_eps": 1e-5,
    },
    "factorised": {"embedding_size": 16, "hidden_act": "relu", "num_hidden_layers": 1, "type_vocab_size": 1},
}

# Heads and inner channels differ, and the layers between which scales travel have holes
NARROW: dict[str, dict[str, Any]] = {
    "narrow, with halves left out": {
        "num_hidden_layers": 4,
        "kept_heads": [0, 2, 0, 3],
        "intermediate_size": [24, 40, 0, 0],
        "intermediate_act": ["relu", "gelu", "gelu", "gelu"],
        "q_groups": 2,
        "v_groups": [4, 2, 2, 1],
        "k_groups": [4, 2, 2, 4],
        "q_rank": [0, 3, 0, 0],
        "embedding_size": 16,
    },
    "the last layer without attention": {"num_hidden_layers": 2, "kept_heads": [4, 0], "intermediate_size": [0, 32]},
    "the last layer left out": {"num_hidden_layers": 2, "kept_heads": [4, 0], "intermediate_size": [32, 0]},
}

NO_BLOCKS = dict.fromkeys(GROUP_FIELDS, 0)
# Shapes with a low-rank remainder, and how many products with weights their blocks take, pooler and classifier aside
SHAPES = {
    "no blocks, one first factor": (NO_BLOCKS | dict.fromkeys(RANK_FIELDS, 5) | {"shared_qkv_rank": True}, 2 * 10),
    "no blocks, own first factors": (
        NO_BLOCKS | dict.fromkeys(RANK_FIELDS, 5) | {"q_rank": 3, "output_rank": [4, 6]},
        2 * 12,
    ),
    "blocks and remainders, one first factor": (
        dict.fromkeys(GROUP_FIELDS, 4) | dict.fromkeys(RANK_FIELDS, 3) | {"shared_qkv_rank": True},
        2 * (3 * 4 + 1 + 5 + 5 + 5),
    ),
    "blocks and remainders, own first factors": (
        dict.fromkeys(GROUP_FIELDS, 2) | {"q_rank": 3, "k_rank": 2, "v_rank": [0, 4], "output_rank": 3},
        2 * (3 * 2 + 2 + 2 + 2 + 3) + 1,
    ),
    "one first factor for dense, grouped and no blocks": (
        {"q_groups": 1, "k_groups": 0, "v_groups": 4, "shared_qkv_rank": True}
        | dict.fromkeys(("q_rank", "k_rank", "v_rank"), 3),
        2 * (1 + 1 + 1 + 4 + 1 + 2 + 2),
    ),
    "layers differ": (
        {
            "q_groups": [0, 4],
            "q_rank": [4, 0],
            "post_attention_groups": [1, 0],
            "post_attention_rank": [0, 6],
            "intermediate_groups": [4, 0],
            "intermediate_rank": [0, 6],
            "output_groups": [2, 4],
            "output_rank": [2, 2],
        },
        (2 + 4 + 1 + 4 + 3) + (4 + 4 + 2 + 2 + 5),
    ),
    "a remainder of a dense matrix, and one as large as a matrix": (
        {"v_groups": 1, "v_rank": 4, "output_groups": [0, 2], "output_rank": [30, 20]},
        2 * (2 + 2 + 1 + 1 + 2 + 1),
    ),
}


def batch(shape, types=2, seed=0):
    """Random texts of different lengths, padded."""
    random = np.random.default_rng(seed)
    ids = random.integers(5, VOCABULARY, shape)
    mask = np.ones(shape, dtype=np.int64)
    for row in range(1, shape[0]):
        mask[row, max(1, shape[1] // (row + 1)) :] = 0
    kinds = random.integers(0, types, shape)
    return dict(zip(INPUTS, (ids * mask, mask, kinds * mask), strict=True))


def expected(model, feed):
    with torch.no_grad():
        return model(**{name: torch.from_numpy(array) for name, array in feed.items()}).logits.numpy()


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def exported(request, tmp_path_factory):
    """A model with channels that stand out, its fp32 graph, and the scaled graph with its int8 form."""
    model = tiny_model(seed=3, **CONFIGURATIONS[request.param])
    with torch.no_grad():
        for block in model.transformer.encoder.layers:
            block.post_attention.layernorm.bias[3] = 30.0
            block.output.layernorm.bias[5] = 20.0
            block.intermediate.conv1d.bias[7] = 400.0
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ids = torch.from_numpy(batch((4, 20))["input_ids"])
    scales = find_scales(model, [(ids, torch.zeros_like(ids))])
    folder = tmp_path_factory.mktemp(request.param)
    write_graph(model, folder / "model.onnx", 20)
    write_graph(model, folder / "scaled.onnx", 20, scales)
    quantize_graph(folder / "scaled.onnx", folder / "quantised.onnx")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    return model, folder, scales


@pytest.mark.parametrize("name", ["model", "scaled"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 128), (1, 512), (3, 7), (2, 9)])
def test_torch_is_repeated(exported, name, shape):
    model, folder, _ = exported
    session = onnxruntime.InferenceSession(str(folder / f"{name}.onnx"))
    feed = batch(shape, model.config.type_vocab_size)
    assert session.run(["logits"], feed)[0] == pytest.approx(expected(model, feed), abs=1e-5)


@pytest.mark.parametrize("name", NARROW)
def test_halves_that_are_left_out_are_no_part_of_the_graph(name, tmp_path):
    model = tiny_model(seed=3, **NARROW[name])
    with torch.no_grad():
        for block in model.transformer.encoder.layers:
            for half in (block.post_attention, block.output):
                if half is not None:
                    half.layernorm.bias[3] = 30.0
    ids = torch.from_numpy(batch((4, 20))["input_ids"])
    scales = find_scales(model, [(ids, torch.zeros_like(ids))])
    assert any(s.attention is not None or s.up is not None for s in scales)
    write_graph(model, tmp_path / "model.onnx", 20)
    write_graph(model, tmp_path / "scaled.onnx", 20, scales)
    quantize_graph(tmp_path / "scaled.onnx", tmp_path / "quantised.onnx")
    feed = batch((3, 9))
    for file, near in (("model", 1e-5), ("scaled", 1e-4), ("quantised", 0.3)):
        session = open_session(tmp_path / f"{file}.onnx", threads=1)  # exact where integer products overflow
        assert session.run(["logits"], feed)[0] == pytest.approx(expected(model, feed), abs=near)


def test_padding_changes_nothing(exported):
    model, folder, _ = exported
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    short = batch((1, 9), model.config.type_vocab_size)
    padded = {name: np.pad(array, ((0, 0), (0, 30))) for name, array in short.items()}
    assert session.run(None, padded)[0] == pytest.approx(session.run(None, short)[0], abs=1e-5)


def test_outliers_are_found_and_scaled(exported):
    model, _, scales = exported
    assert all(s.up is not None and int(s.up.argmax()) == 3 for s in scales)
    assert all(s.down is not None and int(s.down.argmax()) == 7 for s in scales)
    for s in scales[1:]:
        assert s.attention is not None
        assert int(s.attention.argmax()) == 5
    if model.transformer.embeddings.projection is not None:
        assert scales[0].attention is None


def test_the_interface_is_the_one_that_others_read(exported):
    model, folder, _ = exported
    for name in ("model", "quantised"):
        session = onnxruntime.InferenceSession(str(folder / f"{name}.onnx"))
        assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
            (name, "tensor(int64)", ["batch", "sequence"]) for name in INPUTS
        ]
        assert [(o.name, o.type) for o in session.get_outputs()] == [("logits", "tensor(float)")]
        assert session.get_outputs()[0].shape == ["batch", model.config.num_labels]
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "scaled.onnx", "quantised.onnx"}


def test_no_convolution_and_no_products_left_in_floats(exported):
    _, folder, _ = exported
    plain = Counter(node.op_type for node in onnx.load(str(folder / "model.onnx")).graph.node)
    proto = onnx.load(str(folder / "quantised.onnx"))
    quantised = Counter(node.op_type for node in proto.graph.node)
    for found in (plain, quantised):
        assert not {"Conv", "ConvInteger", "QLinearConv", "Where", "IsNaN"} & set(found)
    constants = {initializer.name for initializer in proto.graph.initializer}
    left = [n for n in proto.graph.node if n.op_type in ("MatMul", "Gemm") and constants & set(n.input)]
    assert not left
    assert quantised["MatMulInteger"]
    assert {node.domain for node in proto.graph.node} == {""}  # no operator of one engine only


def test_nothing_of_this_machine_is_left_in_the_file(exported):
    _, folder, _ = exported
    for name in ("model", "quantised"):
        content = (folder / f"{name}.onnx").read_bytes()
        assert b".py" not in content
        assert b"/site-packages" not in content


def test_int8_is_close(exported):
    model, folder, _ = exported
    session = open_session(folder / "quantised.onnx", 1, ["SkipLayerNormFusion"])
    feeds = [batch((1, 20), model.config.type_vocab_size, seed) for seed in range(20)]
    got = np.concatenate([session.run(None, feed)[0] for feed in feeds])
    want = np.concatenate([expected(model, feed) for feed in feeds])
    assert np.abs(got - want).mean() < 0.15 * want.std()


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_repeats_torch_in_as_many_products_as_it_needs(tmp_path, name):
    shape, products = SHAPES[name]
    model = tiny_model(seed=5, **shape)
    ids = torch.from_numpy(batch((4, 20))["input_ids"])
    scales = find_scales(model, [(ids, torch.zeros_like(ids))])
    assert any(scale.reduced for scale in scales)
    write_graph(model, tmp_path / "model.onnx", 20)
    write_graph(model, tmp_path / "scaled.onnx", 20, scales)
    quantize_graph(tmp_path / "scaled.onnx", tmp_path / "quantised.onnx")
    # The runtime's sessions: int8 products of some CPUs overflow in onnxruntime's own
    sessions = {path.stem: open_session(path, 1) for path in tmp_path.glob("*.onnx")}
    for size in ((1, 1), (3, 11), (1, 40)):
        feed = batch(size)
        for graph in ("model", "scaled"):
            assert sessions[graph].run(None, feed)[0] == pytest.approx(expected(model, feed), abs=1e-4)
    feeds = [batch((1, 20), seed=seed) for seed in range(20)]
    got = np.concatenate([sessions["quantised"].run(None, feed)[0] for feed in feeds])
    want = np.concatenate([expected(model, feed) for feed in feeds])
    assert np.abs(got - want).mean() < 0.15 * want.std()

    graph = onnx.load(str(tmp_path / "model.onnx")).graph
    constants = {initializer.name for initializer in graph.initializer}
    weighted = [n for n in graph.node if n.op_type in ("MatMul", "Gemm") and constants & set(n.input)]
    assert len(weighted) == products + 2
    quantised = Counter(node.op_type for node in onnx.load(str(tmp_path / "quantised.onnx")).graph.node)
    assert quantised["MatMulInteger"] == products + 2


def test_scales_are_read_in_either_layout_and_cover_every_remainder():
    """FFN3 reads group-major after an FFN2 of the same groups, token-major otherwise; a shared factor has no layer."""
    ranks = {**dict.fromkeys(RANK_FIELDS, 3), "shared_qkv_rank": True}
    model = tiny_model(seed=5, output_groups=[2, 4], **ranks)
    with torch.no_grad():
        for block in model.transformer.encoder.layers:
            block.intermediate.conv1d.bias[40] = 400.0
            block.output.conv1d.down[:, 40] = 0.0
    ids = torch.from_numpy(batch((4, 20))["input_ids"])
    scales = find_scales(model, [(ids, torch.zeros_like(ids))])
    for scale in scales:
        assert scale.down is not None
        assert int(scale.down.argmax()) == 40
        assert set(scale.reduced) == {"q", "k", "v", "post_attention", "intermediate", "output"}
        assert torch.equal(scale.reduced["q"], scale.reduced["v"])
        assert all(bool(torch.isfinite(reduced).all() and (reduced > 0).all()) for reduced in scale.reduced.values())


def test_the_slow_fusion_finds_nothing_in_the_file(exported, tmp_path):
    _, folder, _ = exported
    for name in ("model", "quantised"):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), options)
        operators = Counter(node.op_type for node in onnx.load(str(tmp_path / "optimised.onnx")).graph.node)
        assert not operators["SkipLayerNormalization"]
        assert operators["LayerNormalization"]


def test_a_text_of_nothing_but_padding_has_finite_answers(exported):
    _, folder, _ = exported
    empty = {name: np.zeros((2, 5), dtype=np.int64) for name in INPUTS}
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    assert np.isfinite(session.run(None, empty)[0]).all()


@pytest.mark.parametrize("opset", [18, 19])
def test_an_older_operator_set(tmp_path, opset):
    model = tiny_model(num_hidden_layers=1, **dict.fromkeys(GROUP_FIELDS, 1))
    write_graph(model, tmp_path / "model.onnx", opset)
    assert onnx.load(str(tmp_path / "model.onnx")).opset_import[0].version == opset
    feed = batch((2, 12))
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    assert session.run(None, feed)[0] == pytest.approx(expected(model, feed), abs=1e-5)


@pytest.mark.parametrize("opset", [18, 20])
@pytest.mark.parametrize(
    "name",
    [
        *("gelu", "gelu_python", "gelu_new", "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh"),
        *("gelu_10", "quick_gelu", "relu", "relu2", "relu6", "leaky_relu", "hardswish", "mish", "silu", "swish"),
        *("sigmoid", "tanh", "linear"),
    ],
)
def test_activations_repeat_those_of_transformers(name, opset):
    eighths = torch.arange(-96, 97)[:, None]
    writer = Writer(torch.nn.Module(), opset)
    x = writer.op.Div(writer.op.Cast(writer.input("eighths", ("N", 1)), to=onnx.TensorProto.FLOAT), 8.0)
    proto = writer.finish(writer.activated(x, name), "y", ("N", 1))
    found = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"eighths": eighths.numpy()})[0]
    np.testing.assert_allclose(found, ACT2FN[name](eighths / 8).numpy(), atol=2e-6, rtol=2e-6)


def test_an_activation_that_is_not_exported_is_refused(tmp_path):
    with pytest.raises(OptionError, match="activation 'sqrtsoftplus': expected one of gelu, "):
        write_graph(tiny_model(num_hidden_layers=1, hidden_act="sqrtsoftplus"), tmp_path / "model.onnx", 20)
    assert not (tmp_path / "model.onnx").exists()
