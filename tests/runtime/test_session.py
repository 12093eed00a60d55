"""Sessions: threads, exact integers, errors that say what to do."""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from squeezebert.files.cores import check_threads
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.runtime import session
from squeezebert.runtime.session import integer_products_saturate, open_session


def test_the_embedded_product_is_the_one_it_claims_to_be():
    proto = onnx.load_from_string(session._INTEGER_PRODUCT)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["y"])],
        "p",
        [
            helper.make_tensor_value_info("a", TensorProto.UINT8, ["m", "k"]),
            helper.make_tensor_value_info("b", TensorProto.INT8, ["k", "n"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["m", "n"])],
    )
    assert proto.graph == graph


def test_exact_products_are_asked_for_only_where_fast_ones_overflow(monkeypatch):
    class Saturating:
        def run(self, outputs, inputs):
            exact = inputs["a"].astype(np.int64) @ inputs["b"].astype(np.int64)
            return [np.minimum(exact, 32767)]

    integer_products_saturate.cache_clear()
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *args, **kwargs: Saturating())
    assert integer_products_saturate()
    options = session.session_options(1)
    assert options.get_session_config_entry("session.x64quantprecision") == "1"
    with pytest.raises(RuntimeError):  # asked not to
        session.session_options(1, exact=False).get_session_config_entry("session.x64quantprecision")
    monkeypatch.undo()
    integer_products_saturate.cache_clear()
    if not integer_products_saturate():  # true of CPUs with VNNI, and of ARM
        with pytest.raises(RuntimeError):
            session.session_options(1).get_session_config_entry("session.x64quantprecision")


@pytest.mark.parametrize("threads", [0, -1, True, False, 1.0, "2"])
def test_unusable_threads_are_refused(threads):
    with pytest.raises(OptionError, match="threads"):
        check_threads(threads)


def test_threads_are_passed_on():
    assert session.session_options(3).intra_op_num_threads == 3
    assert session.session_options(None).intra_op_num_threads == 0


def test_threads_rest_after_an_answer(tmp_path):
    left, right = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [512, 512]) for name in "ab")
    product = helper.make_tensor_value_info("y", TensorProto.FLOAT, [512, 512])
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["y"])], "p", [left, right], [product])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "p.onnx")
    ones = np.ones((512, 512), np.float32)
    opened = open_session(tmp_path / "p.onnx", 3)
    spent = []
    for _ in range(5):
        opened.run(None, {"a": ones, "b": ones})
        before = time.process_time()
        time.sleep(0.1)
        spent.append(time.process_time() - before)
    assert min(spent) < 0.005


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(FolderError, match=r"model\.onnx.*export the checkpoint again"):
        open_session(tmp_path / "model.onnx", 1)
