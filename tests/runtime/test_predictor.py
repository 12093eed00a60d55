"""Answers from an exported folder: shapes of the answer, order, company, threads, odd text, damaged folders."""

from __future__ import annotations

import itertools
import json
import pickle
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from squeezebert.files.errors import FolderError, OptionError, SqueezeBertError
from squeezebert.files.manifest import read_manifest, write_manifest
from squeezebert.runtime import predictor as predictor_module
from squeezebert.runtime.predictor import Prediction, load
from squeezebert.runtime.tokens import TextError
from tiny_checkpoints import texts

pytest_plugins = ["exported_folders"]

ODD = ["", " ", "\0", "🙂", "\ud800", "שלום", "x" * 5000, "the " * 3000, "[SEP]"]


@pytest.fixture(scope="module", params=["int8", "fp32"])
def model(request, single):
    return load(single.output, threads=1, precision=request.param)


@pytest.fixture
def copied(single, tmp_path):
    return shutil.copytree(single.output, tmp_path / "exported")


def values(predictions):
    return np.array([list(p.probabilities.values()) for p in predictions])


def test_one_text_a_list_and_a_stream(model):
    items = texts(5)
    one, several, stream = model.predict(items[0]), model.predict(items), model.predict(iter(items))
    assert isinstance(one, Prediction)
    assert isinstance(several, list)
    assert not isinstance(stream, list)
    assert several == list(stream)
    assert values([one]) == pytest.approx(values(several[:1]), abs=1e-6)
    assert model.predict([]) == []
    assert model.logits([]).shape == (0, 3)


def test_the_answer_to_a_single_label(model):
    found = model.predict("the train is late")
    assert list(found.probabilities) == ["calm", "busy", "other"]
    assert sum(found.probabilities.values()) == pytest.approx(1)
    assert found.label == max(found.probabilities, key=found.probabilities.get)
    assert found.labels == (found.label,)
    assert found.probability == found.probabilities[found.label]
    assert found.value is None
    assert (found.tokens, found.truncated) == (len(model.tokenizer.encode("the train is late").ids), False)
    assert json.loads(json.dumps(found.to_dict())) == {
        "label": found.label,
        "probability": found.probability,
        "probabilities": found.probabilities,
        "truncated": False,
        "tokens": found.tokens,
    }


def test_the_temperature_is_in_the_file_and_applied_once(model):
    assert (model.manifest.temperature, model.manifest.calibrated_logits) == (1.5, True)
    logits = model.logits(["the train"])
    found = model.probabilities(logits)
    assert values([model.predict("the train")])[0] == pytest.approx(found[0])
    assert found[0] == pytest.approx(np.exp(logits[0]) / np.exp(logits[0]).sum())
    raw = load(model.folder, threads=1)
    raw.manifest = replace(raw.manifest, calibrated_logits=False)  # as a folder whose logits are the checkpoint's
    assert raw.probabilities(logits * 1.5)[0] == pytest.approx(found[0])


def test_several_labels(multi):
    model = load(multi.output, threads=1)
    found = model.predict([(row["text"], row["text_pair"]) for row in multi.rows])
    assert {len(p.labels) for p in found} != {1}
    for answer in found:
        thresholds = dict(zip(model.labels, (0.3, 0.5, 0.7), strict=True))
        assert answer.labels == tuple(k for k, v in answer.probabilities.items() if v >= thresholds[k])
        assert (answer.label, answer.probability, answer.value) == (None, None, None)
        assert answer.to_dict()["labels"] == list(answer.labels)
    logits = model.logits([(multi.rows[0]["text"], multi.rows[0]["text_pair"])])[0]
    assert values(found[:1])[0] == pytest.approx(1 / (1 + np.exp(-logits)))
    assert model.probabilities(np.array([[-1000.0, 0.0, 1000.0]]))[0] == pytest.approx([0, 0.5, 1])


def test_a_number(regression):
    model = load(regression.output, threads=1)
    found = model.predict("the boat")
    assert found.value == model.logits(["the boat"])[0, 0]
    assert (found.label, found.labels, found.probabilities) == (None, (), {})
    assert found.to_dict() == {"value": found.value, "truncated": False, "tokens": found.tokens}


def test_answers_depend_neither_on_order_nor_on_company(model):
    items = [*texts(60), *ODD]
    together = model.predict(items)
    alone = [model.predict(item) for item in items]
    shuffled = np.random.default_rng(0).permutation(len(items))
    again = model.predict([items[i] for i in shuffled])
    if model.precision == "int8":  # to the bit: every text is run by itself
        assert together == alone == [again[i] for i in np.argsort(shuffled)]
    assert values(together) == pytest.approx(values(alone), abs=1e-5)
    assert values(again) == pytest.approx(values(together)[shuffled], abs=1e-5)
    assert [p.tokens for p in together] == [p.tokens for p in alone]


def test_int8_in_batches_is_a_choice(single):
    model = load(single.output, threads=1)
    items = texts(20)
    batched = model.predict(items, batch_size=8)
    assert values(batched) == pytest.approx(values(model.predict(items)), abs=0.15)
    assert [p.tokens for p in batched] == [p.tokens for p in model.predict(items)]
    for wrong in (0, -1, 1.5, "8"):
        with pytest.raises(OptionError, match="batch_size"):
            model.predict(items, batch_size=wrong)


def test_streams_hold_a_bounded_number_of_texts(model, monkeypatch):
    monkeypatch.setattr(predictor_module, "_WINDOW", 4)
    taken = itertools.count()
    stream = model.predict(text for text in texts(50) if next(taken) >= 0)
    next(stream)
    assert next(taken) <= 5
    items = texts(11)
    assert values(model.predict(iter(items))) == pytest.approx(values(model.predict(items)), abs=1e-6)


def test_odd_text_is_answered(model):
    found = model.predict(ODD)
    assert np.isfinite(values(found)).all()
    assert [p.truncated for p in found] == [False, False, False, False, False, False, False, True, False]
    assert all(p.tokens <= model.manifest.max_length for p in found)


def test_what_is_no_text_is_named(model):
    with pytest.raises(TextError, match=r"text 2 is no text: .* NoneType"):
        model.predict(["a", "b", None])
    with pytest.raises(TypeError, match="text 0"):
        model.predict([float("nan")])
    with pytest.raises(TextError, match="not int"):
        model.predict(3)
    with pytest.raises(TextError, match=r"text 1: .*single texts"):
        model.predict(["a", ("a", "b")])
    stream = model.predict(iter(["a", None]))
    with pytest.raises(TextError, match="text 1"):
        list(stream)


def test_a_model_of_pairs_wants_pairs(multi, regression):
    with pytest.raises(SqueezeBertError, match="pairs"):
        load(multi.output).predict("alone")
    free = load(regression.output, threads=1)  # its checkpoint did not say
    assert free.predict([("a", "b")])[0].value != free.predict("a").value


def test_many_texts_are_computed_side_by_side_and_answered_alike(model):
    several, items = load(model.folder, threads=3, precision=model.precision), [*ODD, *texts(90)]
    computed, used = several._compute, set()

    def noted(*told, session=None):
        used.add((threading.get_ident(), session is not None))
        return computed(*told, session=session)

    several._compute = noted
    before = model.tokens
    wanted, found = model.logits(items), several.logits(items)
    assert np.abs(found - wanted).max() <= (0 if model.precision == "int8" else 1e-5)
    assert several.tokens == model.tokens - before
    many = {identity for identity, alone in used if alone}
    assert many
    assert threading.get_ident() not in many
    used.clear()
    assert values(several.predict(iter(items[:4]))) == pytest.approx(values(model.predict(items[:4])), abs=1e-6)
    assert used == {(threading.get_ident(), False)}  # too few
    answers = several.predict(iter([*texts(50), None]))
    assert len(list(itertools.islice(answers, 50))) == 50  # what stands before a bad one is answered
    with pytest.raises(TextError, match="text 50"):
        next(answers)


def test_threads_may_share_a_model(model):
    items = texts(80)
    alone = model.predict(items)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(model.predict, items)) == [model.predict(item) for item in items]
        for again in pool.map(lambda _: model.predict(items), range(4)):
            assert again == alone


def test_self_check(model, copied):
    found = model.self_check()
    assert found.passed
    assert found.texts == 8
    assert found.max_difference < 1e-6
    manifest = read_manifest(copied)
    first = manifest.samples[0]
    for wrong in ((0.0, 0.0, 1.0), (float("nan"),) * 3):
        other = replace(first, expected=dict.fromkeys(("fp32", "int8"), wrong))
        model_of_copy = load(copied, 1)
        model_of_copy.manifest = replace(manifest, samples=(other,))
        assert not model_of_copy.self_check().passed


def test_precision_is_int8_where_there_is_one(single, copied):
    assert load(single.output).precision == "int8"
    manifest = read_manifest(copied)
    write_manifest(copied, replace(manifest, files={"fp32": manifest.files["fp32"]}))
    assert load(copied).precision == "fp32"
    with pytest.raises(OptionError, match="holds fp32"):
        load(copied, precision="int8")


def test_options_are_checked(single):
    with pytest.raises(OptionError, match="threads"):
        load(single.output, threads=True)
    with pytest.raises(OptionError, match="holds fp32 and int8"):
        load(single.output, precision="fp16")
    assert load(single.output, threads=2).threads == 2


@pytest.mark.parametrize("name", ["onnx/model_quantized.onnx", "tokenizer.json"])
def test_damaged_folders_are_refused(copied, name):
    path = copied / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(FolderError, match=path.name):
        load(copied)
    path.write_bytes(content[:100])
    with pytest.raises(FolderError, match=path.name):
        load(copied, verify=False)
    path.unlink()
    with pytest.raises(FolderError, match="missing"):
        load(copied)


def test_other_folders_are_refused(single, tmp_path):
    with pytest.raises(FolderError, match="squeezebert export"):
        load(single.checkpoint)
    with pytest.raises(FolderError, match="not an exported folder"):
        load(tmp_path)


def test_neither_import_nor_prediction_needs_torch(single):
    script = f"""
import sys
import squeezebert
assert not {{"torch", "onnxruntime", "transformers", "numpy"}} & set(sys.modules)
model = squeezebert.load({str(single.output)!r}, threads=1)
assert model.predict("the train").label
assert not {{"torch", "transformers", "onnx", "scipy", "sklearn"}} & set(sys.modules), sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("words", ["--help", "export --help", "check --help"])
def test_help_needs_no_arrays(words):
    script = f"""
import sys
from squeezebert.cli import main
try:
    main({words.split()!r})
except SystemExit:
    assert not {{"torch", "onnxruntime", "transformers", "numpy"}} & set(sys.modules), sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_a_predictor_is_copied_and_shown(model):
    again = pickle.loads(pickle.dumps(model))
    assert again.predict("the train") == model.predict("the train")
    assert "Predictor(" in repr(model)
    assert "single_label" in repr(model)


def test_arrays_are_sequences_and_mappings_are_not_texts(model):
    assert len(model.predict(np.array(["the train", "a boat"]))) == 2
    for wrong in ({"text": "the train"}, {"the train"}):
        with pytest.raises(TextError):
            model.predict(wrong)


def test_labels_that_do_not_belong_to_the_model_are_refused(single, tmp_path):
    folder = shutil.copytree(single.output, tmp_path / "copy")
    manifest = read_manifest(folder)
    write_manifest(folder, replace(manifest, labels=(*manifest.labels, "one more")))
    with pytest.raises(FolderError, match="do not belong together"):
        load(folder)
