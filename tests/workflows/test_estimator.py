"""The scikit-learn estimators: they learn, answer as their exported folder does, and are what scikit-learn expects."""

from __future__ import annotations

import copy
import json
import pickle
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

import squeezebert
from conftest import topic_rows
from number_estimators import (
    ClassifierOfNumbers,
    RegressorOfNumbers,
    learn_words,
    read_numbers_as_texts,
    stand_in,
)
from squeezebert import SqueezeBertClassifier, SqueezeBertRegressor
from squeezebert.export.checkpoint import read_checkpoint
from squeezebert.export.exporter import ExportRefused, export_checkpoint
from squeezebert.files.errors import DataError, FolderError, ParameterError
from squeezebert.files.manifest import read_manifest
from squeezebert.training.trainer import Progress
from squeezebert.workflows import estimator as module

FAST = {"learning_rate": 3e-3, "batch_size": 8, "max_length": 24, "seed": 3, "threads": 1}
TEXTS, TOPICS = map(list, zip(*topic_rows(150), strict=True))
NEW_TEXTS, NEW_TOPICS = map(list, zip(*topic_rows(60, seed=5), strict=True))


@pytest.fixture(scope="module")
def fitted(tiny_base):
    return SqueezeBertClassifier(tiny_base, epochs=8, **FAST).fit(TEXTS, TOPICS)


@pytest.fixture
def no_network(monkeypatch):
    """A model of words in place of the network."""
    stand_in(monkeypatch)


# --- learning and answering -----------------------------------------------------------------------------------


def test_a_classifier_learns_and_answers(fitted):
    assert fitted.score(NEW_TEXTS, NEW_TOPICS) > 0.8  # chance is a third
    assert fitted.classes_.tolist() == ["money", "sport", "stage"]
    assert fitted.metrics_["accuracy"] > 0.6
    probabilities = fitted.predict_proba(NEW_TEXTS)
    assert probabilities.shape == (60, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (fitted.predict(NEW_TEXTS) == fitted.classes_[probabilities.argmax(axis=1)]).all()
    np.testing.assert_allclose(np.exp(fitted.predict_log_proba(NEW_TEXTS)), probabilities)
    logits = fitted.decision_function(NEW_TEXTS)
    np.testing.assert_allclose(logits[:, 0] - logits[:, 1], np.log(probabilities[:, 0] / probabilities[:, 1]))


def test_the_saved_folder_answers_as_the_estimator(fitted, tmp_path):
    assert fitted.save(tmp_path / "out") == tmp_path / "out"
    model = squeezebert.load(tmp_path / "out", threads=1)
    answers = model.predict(NEW_TEXTS)
    assert [answer.label for answer in answers] == fitted.predict(NEW_TEXTS).tolist()
    expected = [list(answer.probabilities.values()) for answer in answers]
    np.testing.assert_allclose(fitted.predict_proba(NEW_TEXTS), expected, atol=1e-9)
    assert model.self_check().passed
    with pytest.raises(FolderError, match=r"something already.*choose another name"):
        fitted.save(tmp_path / "out")


def test_the_checkpoint_can_be_exported_again(fitted, tmp_path):
    source = read_checkpoint(fitted.checkpoint(tmp_path / "checkpoint"))
    assert source.labels == ("money", "sport", "stage")
    rows = [json.loads(line) for line in (tmp_path / "checkpoint/evaluation.jsonl").read_text().splitlines()]
    assert len(rows) == 15
    assert {row["text"] for row in rows} < set(TEXTS)


def test_without_an_export_torch_gives_the_same_answers(fitted, tiny_base):
    same = SqueezeBertClassifier(tiny_base, epochs=8, export=None, **FAST).fit(np.array(TEXTS), pd.Series(TOPICS))
    assert same.exported_ is None and fitted.exported_ == "fp32"
    np.testing.assert_allclose(same.predict_proba(NEW_TEXTS), fitted.predict_proba(NEW_TEXTS), atol=1e-5)


def test_int8_is_what_is_kept_or_a_warning_says_why_not(tiny_base, fitted, tmp_path, monkeypatch):
    # On few rows of a random network, whether int8 passes is a matter of luck
    accepting = lambda *args, **kwargs: export_checkpoint(*args[:2], _forced(args[2]), **kwargs)  # noqa: E731
    monkeypatch.setattr("squeezebert.export.exporter.export_checkpoint", accepting)
    small = SqueezeBertClassifier(tiny_base, epochs=1, export="int8", keep_checkpoint=False, **FAST)
    small.fit(TEXTS[:60], TOPICS[:60])
    assert small.exported_ == "int8"
    assert list(read_manifest(small.save(tmp_path / "int8")).files) == ["int8"]
    with pytest.raises(FolderError, match="keep_checkpoint=True"):
        small.checkpoint(tmp_path / "checkpoint")

    def refusing(checkpoint, output, options, **kwargs):
        if options.precision == "int8":
            raise ExportRefused("int8 was refused: it loses too much.")
        module.write_files(fitted._fitted.exported, output)

    monkeypatch.setattr("squeezebert.export.exporter.export_checkpoint", refusing)
    with pytest.warns(UserWarning, match="loses too much.*fp32 instead"):
        kept = small.fit(TEXTS[:60], TOPICS[:60])
    assert kept.exported_ == "fp32"


def _forced(options):
    return copy.copy(options) if options.precision == "fp32" else type(options)("int8", force=True, threads=1)


def test_several_labels(tiny_base, tmp_path):
    topics = pd.get_dummies(pd.Series(TOPICS), dtype=int)
    topics["play"] = topics["sport"] | topics["stage"]
    model = SqueezeBertClassifier(tiny_base, epochs=6, export=None, **FAST).fit(TEXTS, topics)
    assert model.classes_.tolist() == [0, 1, 2, 3]
    answers = model.predict(NEW_TEXTS)
    assert answers.dtype == topics.to_numpy().dtype
    wanted = np.array(
        [[topic == "money", topic == "sport", topic == "stage", topic != "money"] for topic in NEW_TOPICS]
    )
    assert (answers == wanted).mean() > 0.8  # all zeros would be 0.58
    assert model.score(NEW_TEXTS, wanted) == (answers == wanted).all(axis=1).mean()
    # Exported when it is saved, with the names of the columns and the same thresholds
    read = squeezebert.load(model.save(tmp_path / "out"), threads=1)
    assert read.labels == ("money", "sport", "stage", "play")
    given = [[int(label in answer.labels) for label in read.labels] for answer in read.predict(NEW_TEXTS)]
    assert (np.array(given) == answers).mean() > 0.99


def test_a_regressor_of_pairs(tiny_base):
    frame = pd.DataFrame({"first": TEXTS, "second": TEXTS[::-1]})
    numbers = 1000.0 + 50.0 * (pd.Series(TOPICS) == "sport")
    model = SqueezeBertRegressor(tiny_base, epochs=8, export=None, **FAST).fit(frame, numbers)
    assert model.score(frame, numbers) > 0.5
    assert model.n_features_in_ == 2
    assert model.feature_names_in_.tolist() == ["first", "second"]
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[["second", "first"]])
    with pytest.raises(DataError, match=r"X holds single texts.*trained on pairs"):
        model.predict(TEXTS)
    pairs = [tuple(row) for row in frame.to_numpy()[:5]]
    with pytest.warns(UserWarning, match="valid feature names"):
        answers = model.predict(pairs)
    np.testing.assert_allclose(answers, model.predict(frame)[:5], rtol=1e-5)


# --- as scikit-learn expects it -------------------------------------------------------------------------------


@parametrize_with_checks([ClassifierOfNumbers("no-base"), RegressorOfNumbers("no-base")])
def test_scikit_learns_own_checks(estimator, check, monkeypatch):
    stand_in(monkeypatch, numbers=True)
    check(estimator)


SMALL = {"epochs": 1, "batch_size": 32, "max_length": 16, "export": None, "threads": 1}
TOO_LITTLE = "it asks for a score that a random network of two layers does not reach in one epoch"


@pytest.mark.slow
@parametrize_with_checks(
    [ClassifierOfNumbers("no-base", **SMALL), RegressorOfNumbers("no-base", **SMALL)],
    expected_failed_checks=lambda one: {"check_classifiers_train": TOO_LITTLE, "check_regressors_train": TOO_LITTLE},
)
def test_scikit_learns_own_checks_with_the_network(estimator, check, monkeypatch, tiny_base):
    learn = module.learn
    monkeypatch.setattr(module, "read_texts", read_numbers_as_texts)
    monkeypatch.setattr(module, "learn", lambda data, base, *rest: learn(data, tiny_base, *rest))
    check(estimator)


@pytest.mark.parametrize("kind", [SqueezeBertClassifier, SqueezeBertRegressor])
def test_tags_say_text(kind):
    tags = get_tags(kind("base"))
    assert tags.input_tags.string and tags.input_tags.one_d_array and not tags.input_tags.two_d_array
    assert tags.target_tags.required
    with pytest.warns(SkipTestWarning):  # most checks are for numbers: they are run by `ClassifierOfNumbers`
        assert [run["status"] for run in check_estimator(kind("base"))] == ["passed"]


def test_search_in_a_pipeline(tiny_base):
    plain = SqueezeBertClassifier(tiny_base, epochs=4, export=None, **FAST)
    model = make_pipeline(FunctionTransformer(lambda X: [text.lower() for text in X]), plain)
    search = GridSearchCV(model, {"squeezebertclassifier__learning_rate": [1e-7, 3e-3]}, cv=2)
    loud = np.array([text.upper() for text in TEXTS], dtype=object)
    search.fit(loud, TOPICS)
    assert search.best_params_ == {"squeezebertclassifier__learning_rate": 3e-3}
    assert search.best_score_ > 0.5
    assert (search.predict(loud) == search.predict(TEXTS)).all()


def test_cross_validation_repeats_itself(tiny_base):
    model = SqueezeBertClassifier(tiny_base, epochs=1, export=None, **FAST)
    first = cross_val_score(model, TEXTS[:60], TOPICS[:60], cv=2, scoring="neg_log_loss", error_score="raise")
    again = cross_val_score(model, TEXTS[:60], TOPICS[:60], cv=2, scoring="neg_log_loss", error_score="raise")
    assert first.tolist() == again.tolist()


WITHOUT_TORCH = """
import json, sys, joblib

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "onnx"):
            raise ModuleNotFoundError(f"no {name} here")

sys.meta_path.insert(0, NoTorch())
model = joblib.load(sys.argv[1])
print(json.dumps(model.predict_proba(json.load(sys.stdin)).tolist()))
"""


def test_another_process_loads_it_and_answers_without_torch(fitted, tmp_path):
    joblib.dump(fitted, tmp_path / "model.joblib")
    command = [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path / "model.joblib")]
    said = subprocess.run(command, input=json.dumps(NEW_TEXTS), capture_output=True, encoding="utf-8", check=False)
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout) == fitted.predict_proba(NEW_TEXTS).tolist()


def test_without_scikit_learn_the_rest_of_the_package_works():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from squeezebert import *\n"
        "import squeezebert\n"
        "try:\n    squeezebert.SqueezeBertClassifier\n"
        "except SqueezeBertError as error:\n    print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert "pip install 'squeezebert[train]'" in said.stdout, said.stderr


def test_copies(fitted):
    fresh = clone(fitted)
    assert fresh.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        fresh.predict(TEXTS)
    loaded = pickle.loads(pickle.dumps(fitted))
    assert loaded.predict_proba(NEW_TEXTS).tolist() == fitted.predict_proba(NEW_TEXTS).tolist()
    assert loaded.set_params(threads=2)._open().threads == 2  # another machine has other cores


# --- what it leaves behind ------------------------------------------------------------------------------------


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def state_of_the_process():
    return repr((random.getstate(), np.random.get_state(), torch.get_rng_state().tolist(), torch.get_num_threads()))


def test_an_interrupted_fit_leaves_nothing_behind(fitted, three_threads, monkeypatch, tmp_path):
    model, before, answers = copy.deepcopy(fitted), state_of_the_process(), fitted.predict_proba(NEW_TEXTS)
    found = []

    def interrupt(self, args, state, control, **kwargs):
        if state.global_step == 3:  # two steps an epoch: a save is there
            found.extend(tmp_path.rglob("model.safetensors"))
            raise KeyboardInterrupt

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Progress, "on_step_end", interrupt)
    fresh = clone(fitted)
    for one in (model, fresh):
        found.clear()
        with pytest.raises(KeyboardInterrupt):
            one.set_params(batch_size=32).fit(TEXTS[:60], TOPICS[:60])
        assert found
        assert not list(tmp_path.iterdir())
        assert state_of_the_process() == before
    with pytest.raises(NotFittedError):
        check_is_fitted(fresh)
    assert (model.predict_proba(NEW_TEXTS) == answers).all()


def test_a_fit_leaves_the_process_as_it_was_and_logs_its_progress(tiny_base, three_threads, caplog):
    before = state_of_the_process()
    with caplog.at_level("INFO", logger="squeezebert"):
        SqueezeBertClassifier(tiny_base, epochs=1, export=None, **FAST).fit(TEXTS[:30], TOPICS[:30])
    assert state_of_the_process() == before
    assert any("texts to train on" in line for line in caplog.messages)


# --- what it takes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (TOPICS, np.array(["money", "sport", "stage"])),
        (pd.Series(TOPICS, index=range(7, 157)), np.array(["money", "sport", "stage"], dtype=object)),
        (pd.Series(TOPICS, dtype="category"), np.array(["money", "sport", "stage"], dtype=object)),
        ([["sport", "money", "stage"].index(topic) * 9 for topic in TOPICS], np.array([0, 9, 18])),
        (np.array([len(topic) == 5 and topic != "money" for topic in TOPICS]), np.array([False, True])),
        (pd.Series([topic == "sport" for topic in TOPICS], dtype="boolean"), np.array([False, True])),
        ([float(topic == "sport") for topic in TOPICS], np.array([0.0, 1.0])),
        (np.array([1 if topic == "sport" else -1 for topic in TOPICS], dtype=object), np.array([-1, 1], dtype=object)),
    ],
    ids=["list", "series", "category", "int", "bool", "nullable", "float", "object"],
)
def test_labels_come_back_in_kind(y, classes, no_network):
    model = SqueezeBertClassifier("base").fit(TEXTS, y)
    assert model.classes_.dtype == classes.dtype
    assert model.classes_.tolist() == classes.tolist()
    answers = model.predict(TEXTS)
    assert answers.dtype == classes.dtype
    assert (answers == np.asarray(y)).mean() > 0.95


@pytest.mark.parametrize(
    "X",
    [
        tuple(TEXTS),
        np.array(TEXTS),
        pd.Series(TEXTS, index=TEXTS),
        pd.DataFrame({"text": TEXTS}),
        [[t] for t in TEXTS],
    ],
    ids=["tuple", "array", "series", "frame", "column"],
)
def test_texts_in_any_sequence(X, no_network):
    probabilities = SqueezeBertClassifier("base").fit(TEXTS, TOPICS).predict_proba(TEXTS)
    model = SqueezeBertClassifier("base").fit(X, TOPICS)
    assert (model.predict_proba(X) == probabilities).all()
    assert (model.predict_proba(TEXTS) == probabilities).all()


def test_another_fit_forgets_the_columns_of_the_first(no_network):
    model = SqueezeBertClassifier("base").fit(pd.DataFrame({"text": TEXTS}), TOPICS)
    assert model.feature_names_in_.tolist() == ["text"]
    model.fit(TEXTS, TOPICS)
    assert not hasattr(model, "n_features_in_") and not hasattr(model, "feature_names_in_")
    assert model.predict(pd.DataFrame({"other": TEXTS})).shape == (150,)


def test_an_indicator_matrix_may_be_sparse_or_boolean(no_network):
    matrix = np.array([[topic == "sport", topic != "sport"] for topic in TOPICS])
    for y, kind in ((matrix, "b"), (csr_array(matrix.astype(np.int8)), "i"), (matrix.tolist(), "b")):
        answers = SqueezeBertClassifier("base").fit(TEXTS, y).predict(TEXTS)
        assert answers.dtype.kind == kind
        assert (answers == matrix).mean() > 0.95


def test_a_set_to_evaluate_on(monkeypatch):
    stand_in(monkeypatch)
    seen = []
    monkeypatch.setattr(module, "learn", lambda data, *rest: seen.append(data) or learn_words(data, *rest))
    model = SqueezeBertClassifier("base").fit(TEXTS, TOPICS, eval_set=(NEW_TEXTS, NEW_TOPICS))
    assert [(example.text, example.label) for example in seen[0].train] == list(zip(TEXTS, TOPICS, strict=True))
    assert [example.text for example in seen[0].evaluation] == NEW_TEXTS
    model.fit(TEXTS, TOPICS)
    assert (len(seen[1].train), len(seen[1].evaluation)) == (135, 15)
    for bad, words in (
        ((["goal"], ["food"]), r"y\[0\] = 'food' is no label of y"),
        ((["goal", "cup"], ["sport"]), "2 texts and y 1 labels"),
        (([("goal", "cup")], ["sport"]), "pairs of texts where X has single ones"),
        (["goal"], "give a pair"),
    ):
        with pytest.raises(ValueError, match=words):
            model.fit(TEXTS, TOPICS, eval_set=bad)


# --- what it refuses ------------------------------------------------------------------------------------------

FOUR, TWO = ["goal", "bank", "cup", "share"], ["a", "b", "a", "b"]


@pytest.mark.parametrize(
    ("X", "y", "words"),
    [
        ([], [], r"X is empty: 0 sample\(s\).*give one text at least"),
        ("goal", ["a"], "X is one text: give a list"),
        ({"a", "b"}, TWO, "X is a set: give a list"),
        (csr_array(np.eye(4)), TWO, "sparse matrix of numbers: give the texts"),
        (FOUR, TWO[:3], "X has 4 texts and y 3 labels: give one label for each text"),
        (FOUR, ["a"] * 4, "one class only, 'a': two classes"),
        (["goal", None, "cup", "share"], TWO, r"X\[1\] is 'None' \(missing\).*fill them with ''"),
        (["goal", float("nan"), "cup", "share"], TWO, r"X\[1\] is 'nan' \(missing\)"),
        (pd.Series(["goal", pd.NA, "cup", "share"]), TWO, r"X\[1\].*\(missing\)"),
        (["goal", b"bank", "cup", "share"], TWO, r"X\[1\].*\(bytes\).*give str"),
        (["goal", "bank\ud800", "cup", "share"], TWO, r"X\[1\]: text is not valid Unicode.*mend it"),
        ([("a", "b"), ("a", 3)], ["a", "b"], r"X\[1\]\[1\] is '3' \(int\)"),
        ([("a", "b", "c")] * 4, TWO, r"shape \(4, 3\): give texts \(n,\) or pairs"),
        (FOUR, None, "requires y to be passed, but the target y is None"),
        (FOUR, ["a", float("nan"), "a", "b"], r"y\[1\] is missing"),
        (FOUR, [0.0, float("nan"), 1.0, 0.0], r"y\[1\] is missing.*NaN"),
        (FOUR, pd.Series(["a", None, "a", "b"]), r"y\[1\] is missing"),
        (FOUR, [0.5, 1, 0, 1], r"continuous, y\[0\] = 0.5.*SqueezeBertRegressor"),
        (FOUR, ["a", 1, "a", 1], "mixes text with other labels"),
        (FOUR, np.array(["a", 1, "a", 1], dtype=object), "cannot be sorted"),
        (FOUR, np.array(["2020", "2021"] * 2, dtype="datetime64[Y]"), "Unknown label type"),
        (FOUR, ["a", "b\ud800", "a", "b"], r"y\[1\]: label is not valid Unicode"),
        (FOUR, [["a"], ["a", "b"], [], ["b"]], "MultiLabelBinarizer"),
        (FOUR, [[0, 2], [1, 0], [1, 0], [0, 1]], "more than 0 and 1"),
        (FOUR, np.zeros((4, 2)), "y has no 1"),
        (["goal"] * 4, TWO, r"too few distinct texts \(n_samples=4\)"),
    ],
)
def test_data_that_cannot_be_used(X, y, words):
    with pytest.raises(DataError, match=words) as caught:
        SqueezeBertClassifier("no-base").fit(X, y)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("y", "words"),
    [
        ([1.0, float("nan"), 2.0, 3.0], r"y\[1\] is missing"),
        ([1.0, float("inf"), 2.0, 3.0], r"y\[1\] is inf"),
        (["a", "b", "c", "d"], "not of numbers.*SqueezeBertClassifier"),
        (np.ones((4, 2)), "fit a model for each column"),
    ],
)
def test_numbers_that_cannot_be_used(y, words):
    with pytest.raises(DataError, match=words):
        SqueezeBertRegressor("no-base").fit(FOUR, y)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"learning_rate": -1}, "^learning_rate -1.0: expected more than 0"),
        ({"learning_rate": "fast"}, "learning_rate = 'fast': give a number"),
        ({"epochs": True}, "epochs = True: give a number"),
        ({"batch_size": 2.5}, "batch_size = 2.5: give a whole number"),
        ({"max_length": 2}, "^max_length 2: expected 4 or more"),
        ({"dropout": 1.0}, "^dropout 1.0"),
        ({"seed": -1}, "^seed -1"),
        ({"eval_fraction": 0}, "eval_fraction = 0: give a number between 0 and 1"),
        ({"freeze_embeddings": "no"}, "freeze_embeddings = 'no': give True or False"),
        ({"precision": "fp16"}, "precision = 'fp16': give fp32 or bf16"),
        ({"export": "int4"}, "export = 'int4': give fp32, int8, or None"),
        ({"export": None, "keep_checkpoint": False}, "nothing would be left"),
        ({"threads": 0}, "threads = 0: give a whole number from 1"),
        ({"base": 3}, "base = 3: give a checkpoint folder"),
        ({"metric": "f1"}, "^metric f1: a single_label task has accuracy"),
    ],
)
def test_parameters_are_checked_in_fit(parameters, words):
    model = SqueezeBertClassifier("no-base").set_params(**parameters)
    with pytest.raises(ParameterError, match=words) as caught:
        model.fit([*FOUR, "goal cup", "bank trade"], [*TWO, "a", "b"])
    assert isinstance(caught.value, ValueError)


def test_a_base_that_is_not_there(tmp_path):
    with pytest.raises(FolderError, match=r"no checkpoint there\. base takes a folder"):
        SqueezeBertClassifier(tmp_path / "nowhere").fit(TEXTS, TOPICS)


def test_sample_weights_are_refused(no_network):
    model = SqueezeBertClassifier("base")
    with pytest.raises(ParameterError, match="sample_weight: every text counts the same"):
        model.fit(TEXTS, TOPICS, sample_weight=np.ones(150))
    with pytest.raises(TypeError, match="'weights'"):
        model.fit(TEXTS, TOPICS, weights=1)
    assert not has_fit_parameter(model, "sample_weight")
    check_is_fitted(model.fit(TEXTS, TOPICS, sample_weight=None))


def test_before_fit_nothing_is_answered_or_written(tmp_path):
    model = SqueezeBertClassifier("base")
    for method in (model.predict, model.predict_proba, model.decision_function):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            method(TEXTS)
    for write in (model.save, model.checkpoint):
        with pytest.raises(NotFittedError):
            write(tmp_path / "out")


def test_texts_of_another_kind_are_not_answered(fitted):
    for X, words in (
        ([("goal", "cup")], "X holds pairs of texts.*trained on single texts"),
        ("goal", "give a list of texts"),
        ([], "X is empty"),
        (["goal", None], r"X\[1\]"),
    ):
        with pytest.raises(DataError, match=words):
            fitted.predict(X)
    assert fitted.predict(["", "half a pair \ud800"]).shape == (2,)  # what the runtime answers


# --- the page -------------------------------------------------------------------------------------------------


def test_the_page_runs_as_written(tiny_base, topic_table, tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs/sklearn.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) == 4
    topic_table.rename(tmp_path / "data.csv")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks:
        exec(block.replace("DIR_OR_HUB_ID", str(tiny_base)), names)
    assert names["scores"]["TF-IDF and logistic regression"] > 0.8
    assert capsys.readouterr().out.count("SqueezeBERT: ") == 1
    assert (tmp_path / "exported/manifest.json").is_file() and (tmp_path / "checkpoint/config.json").is_file()
