"""Tables in 4 bits: what they lose, and that the graph decodes what was packed."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from squeezebert.export.graph import write_graph
from squeezebert.export.packing import block_of, pack_table, pack_words, unpack_table
from squeezebert.export.quantize import quantize_graph
from squeezebert.files.errors import OptionError
from tiny_checkpoints import VOCABULARY, tiny_model


def test_a_packed_table_is_close_and_half_a_byte_a_number():
    table = np.random.default_rng(0).normal(size=(50, 192)).astype(np.float32)
    packed, scales = pack_table(table)
    assert packed.dtype == np.uint8
    assert (packed.shape, scales.shape) == ((50, 96), (50, 3))
    error = np.square(unpack_table(packed, scales) - table).mean() / np.square(table).mean()
    assert error < 0.012
    # Ranges that are cut are chosen where they lose less: never more than without cutting
    blocks = table.reshape(50, 3, 64)
    scale = np.abs(blocks).max(axis=-1, keepdims=True) / 7
    plain = np.square(np.rint(blocks / scale) * scale - blocks).sum(axis=-1)
    own = np.square((unpack_table(packed, scales) - table).reshape(blocks.shape)).sum(axis=-1)
    assert (own <= plain * (1 + 1e-5)).all()
    assert own.sum() < 0.95 * plain.sum()


def test_numbers_that_fit_are_kept_as_they_are():
    table = np.zeros((3, 64), dtype=np.float32)
    table[0] = np.resize(np.arange(-7, 8), 64) * 0.5
    packed, scales = pack_table(table)
    assert np.allclose(unpack_table(packed, scales), table, atol=1e-6)


@pytest.mark.parametrize(("channels", "block"), [(384, 64), (768, 64), (312, 52), (32, 32), (128, 64)])
def test_a_block_divides_the_channels(channels, block):
    assert block_of(channels) == block


def test_odd_widths_are_refused():
    with pytest.raises(OptionError, match="7 channels cannot be packed in pairs"):
        block_of(7)


@pytest.mark.parametrize("shape", [(1, 1), (1, 17), (3, 9)])
def test_the_graph_looks_up_what_was_packed(tmp_path, shape):
    model = tiny_model()
    write_graph(model, tmp_path / "model.onnx", 20)
    proto = onnx.load(str(tmp_path / "model.onnx"))
    pack_words(proto)
    onnx.checker.check_model(proto)
    words = model.transformer.embeddings.word_embeddings
    words.weight.data.copy_(words.weight.new_tensor(unpack_table(*pack_table(words.weight.detach().numpy()))))
    write_graph(model, tmp_path / "rounded.onnx", 20)
    ids = np.random.default_rng(0).integers(1, VOCABULARY, shape)
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    packed = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, feed)[0]
    rounded = onnxruntime.InferenceSession(str(tmp_path / "rounded.onnx")).run(None, feed)[0]
    assert packed == pytest.approx(rounded, abs=2e-4)  # scales have 16 bits


def test_the_quantiser_leaves_the_scales_of_words_alone(tmp_path):
    """Rows a hundred times as large as others would leave these a scale of a few levels in 8 bits."""
    model = tiny_model()
    words = model.transformer.embeddings.word_embeddings.weight
    words.data[::2] *= 100.0
    write_graph(model, tmp_path / "model.onnx", 20)
    quantize_graph(tmp_path / "model.onnx", tmp_path / "int4.onnx", "int4")
    kept = {one.name: numpy_helper.to_array(one) for one in onnx.load(str(tmp_path / "int4.onnx")).graph.initializer}
    _, scales = pack_table(words.detach().numpy())
    assert kept["words.scales"].dtype == np.float16
    assert kept["words.scales"].astype(np.float32) == pytest.approx(scales, rel=1e-3)
