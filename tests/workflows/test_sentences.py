"""An exported encoder in sentence-transformers: the predictor's own vectors, however it is loaded."""

from __future__ import annotations

import copy
import json
import pickle
import shutil

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from squeezebert import SentenceEncoder
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.runtime.predictor import load
from tiny_checkpoints import texts

pytest_plugins = ["exported_folders"]

TEXTS = [*texts(70, seed=8), "", " ", "boat " * 500, "🙂 مرحبا", "\u0001", "\udc80 half a character"]


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_folder_gives_the_predictors_vectors(encoder, precision):
    options = {"precision": precision, "threads": 1}
    model = SentenceTransformer(str(encoder.folder), trust_remote_code=True, model_kwargs=options, device="cpu")
    expected = load(encoder.folder, 1, precision).encode(TEXTS)
    found = model.encode(TEXTS)
    assert (found.shape, found.dtype) == (expected.shape, np.float32)
    # int8 reads one text at a time, fp32 in batches, which are others here
    np.testing.assert_allclose(found, expected, atol=0 if precision == "int8" else 2e-6)
    np.testing.assert_allclose(model.encode(TEXTS, normalize_embeddings=True), expected, atol=2e-6)
    np.testing.assert_allclose(model.encode(TEXTS[0]), expected[0], atol=2e-6)
    assert model.get_embedding_dimension() == 32
    assert model.max_seq_length == 48
    assert len(model.encode([])) == 0
    assert float(model.similarity(found[:1], found[1:2])) == pytest.approx(float(found[0] @ found[1]), abs=1e-5)


def test_no_trust_is_needed_for_the_module_itself(encoder):
    with pytest.raises(ValueError, match="trust_remote_code"):
        SentenceTransformer(str(encoder.folder), device="cpu")
    model = SentenceTransformer(modules=[SentenceEncoder(encoder.folder, 1, "fp32")], device="cpu")
    np.testing.assert_allclose(model.encode(TEXTS), encoder.encode(TEXTS), atol=2e-6)


def test_trust_runs_no_code_of_the_folder(encoder, tmp_path):
    folder = tmp_path / "exported"
    shutil.copytree(encoder.folder, folder)
    for name in ("squeezebert.py", "sentences.py", "SentenceEncoder.py"):
        (folder / name).write_text("raise SystemExit('code of the folder')\n")
    model = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    assert type(model[0]) is SentenceEncoder


def test_a_text_is_cut_as_the_predictor_cuts_it(encoder):
    model = SentenceTransformer(modules=[SentenceEncoder(encoder.folder, 1, "fp32")], device="cpu")
    long = "boat river " * 300
    np.testing.assert_allclose(model.encode([long]), encoder.encode([long]), atol=2e-6)
    model.max_seq_length = 12
    short = "boat river " * 5
    np.testing.assert_allclose(model.encode([long]), encoder.encode([short]), atol=2e-6)
    for length in (49, "x", 1):
        with pytest.raises(OptionError):
            model.max_seq_length = length
    assert model.max_seq_length == 12


def test_prompts_go_before_the_text(encoder):
    model = SentenceTransformer(modules=[SentenceEncoder(encoder.folder, 1, "fp32")], device="cpu")
    found = model.encode(["boat"], prompt="the train: ")
    np.testing.assert_allclose(found, encoder.encode(["the train: boat"]), atol=2e-6)


def test_a_saved_model_loads_everywhere(encoder, tmp_path):
    model = SentenceTransformer(
        modules=[SentenceEncoder(encoder.folder, 1, "int8")], prompts={"query": "the "}, device="cpu"
    )
    model.save(str(tmp_path / "saved"))
    again = SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=True, device="cpu")
    np.testing.assert_array_equal(again.encode(TEXTS), model.encode(TEXTS))
    assert again.prompts["query"] == "the "
    np.testing.assert_array_equal(load(tmp_path / "saved", 1, "int8").encode(TEXTS), model.encode(TEXTS))
    assert load(tmp_path / "saved", 1).self_check().passed


def test_only_encoders_say_that_they_are_one(encoder, single):
    assert json.loads((encoder.folder / "modules.json").read_text())[0]["path"] == ""
    assert not (single.output / "modules.json").exists()
    with pytest.raises(OptionError, match="needs an encoder, and this is a model of single_label"):
        SentenceEncoder(single.output)
    with pytest.raises(FolderError, match="no such folder"):
        SentenceEncoder("nowhere")
    with pytest.raises(OptionError, match="batch is neither threads nor precision"):
        SentenceTransformer(str(encoder.folder), trust_remote_code=True, model_kwargs={"batch": 1}, device="cpu")


def test_a_shorter_limit_goes_where_the_model_goes(encoder, tmp_path):
    module = SentenceEncoder(encoder.folder, 1, "fp32")
    long = "boat river " * 30
    whole = module.predictor.encode([long])
    module.max_seq_length = 12
    short = module.predictor.encode([long])
    assert np.abs(short - whole).max() > 1e-3
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert twin.max_seq_length == 12
        np.testing.assert_allclose(twin.predictor.encode([long]), short, atol=1e-6)
    SentenceTransformer(modules=[module], device="cpu").save(str(tmp_path / "saved"))
    again = SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=True, device="cpu")
    assert again.max_seq_length == 12
    np.testing.assert_allclose(again.encode([long]), load(tmp_path / "saved", 1).encode([long]), atol=2e-6)
    for wrong in ("{}", "[]", '{"max_seq_length": "x"}', '{"max_seq_length": 4096}'):
        (tmp_path / "saved" / "sentence_bert_config.json").write_text(wrong)
        with pytest.raises(FolderError, match=r"sentence_bert_config\.json: damaged"):
            SentenceEncoder.load(str(tmp_path / "saved"))
