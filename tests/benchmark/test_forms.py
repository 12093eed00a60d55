"""Each form that `benchmarks/forms.py` times is written, differs from the exported one, and computes the same."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from squeezebert.benchmark.latency import made_up_inputs
from squeezebert.export.graph import write_graph
from tiny_checkpoints import tiny_model

_PLACE = Path(__file__).parents[2] / "benchmarks" / "forms.py"
_SPEC = importlib.util.spec_from_file_location("forms", _PLACE)
forms = importlib.util.module_from_spec(_SPEC)
sys.modules["forms"] = forms  # dataclasses look their module up there
_SPEC.loader.exec_module(forms)

pytestmark = pytest.mark.slow


def written(form, path):
    model = tiny_model(hidden_size=64, intermediate_size=128, initializer_range=0.1)
    with forms.as_form(form):
        write_graph(model, path, form.opset)
    inputs = made_up_inputs(2, 12, model.config.vocab_size)
    inputs["attention_mask"][1, 7:] = 0
    session = forms.session_of(path, 1, form.disabled)
    kinds = Counter((node.op_type, str(node.attribute)) for node in onnx.load(path).graph.node)
    return session.run(None, {given.name: inputs[given.name] for given in session.get_inputs()})[0], kinds


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return written(forms.FORMS[0], tmp_path_factory.mktemp("forms") / "exported.onnx")


@pytest.mark.parametrize("form", forms.FORMS[1:], ids=lambda form: form.name)
def test_a_form_is_another_graph_of_the_same_function(form, exported, tmp_path):
    answers, kinds = written(form, tmp_path / "form.onnx")
    assert kinds != exported[1]
    assert np.isfinite(answers).all()
    if form.same:
        np.testing.assert_allclose(answers, exported[0], atol=0.02 * np.abs(exported[0]).max())
