"""Markers of words as exported folders: torch's labels for every token, the dictionary, refusals."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
import torch

from dense_models import bert
from squeezebert.export.checkpoint import check_rows, read_checkpoint
from squeezebert.export.exporter import ExportRefused, export_checkpoint
from squeezebert.export.options import ExportOptions
from squeezebert.export.places import LabelledWords
from squeezebert.export.quantize import quantize_graph
from squeezebert.export.verify import verify_int8
from squeezebert.files.english import TAGS, units
from squeezebert.files.errors import FolderError, OptionError, TableError
from squeezebert.files.manifest import read_manifest
from squeezebert.model import SqueezeBertForTokenClassification
from squeezebert.runtime.checking import first_tokens, tag_probabilities
from squeezebert.runtime.moderation import Moderator, Policy
from squeezebert.runtime.predictor import load
from squeezebert.runtime.server.service import Service
from tiny_checkpoints import texts, tiny_tokenizer

pytest_plugins = ["exported_folders"]


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", 1e-5), ("int8", 0.1)])
def test_labels_are_torchs(marker, precision, allowed):
    model = SqueezeBertForTokenClassification.from_pretrained(marker.checkpoint).eval()
    temperature = json.loads((marker.checkpoint / "squeezebert.json").read_text())["calibration"]["temperature"]
    predictor = load(marker.output, 1, precision)
    batch = [predictor.tokenizer.encode(text) for text in ("the boat", "a small xyz, late in the quiet evening")]
    together = predictor.compute(batch)
    assert together.shape == (2, len(batch[1].ids), len(TAGS))
    for text in texts(12, seed=4):
        encoded = tiny_tokenizer()(text, return_offsets_mapping=True, return_tensors="pt")
        offsets = encoded.pop("offset_mapping")[0, 1:-1].tolist()
        with torch.no_grad():
            logits = model(**encoded).logits[0, 1:-1].double().numpy() / temperature
        odds = np.exp(logits - logits.max(1, keepdims=True))
        rows = (odds / odds.sum(1, keepdims=True))[[token for _, token in first_tokens(units(text), offsets)]]
        np.testing.assert_allclose(tag_probabilities(predictor, text, units(text)), rows, atol=allowed)
    assert predictor.self_check().passed


def test_the_manifest_says_what_it_is(marker):
    manifest = read_manifest(marker.output)
    assert (manifest.task, manifest.labels, manifest.format, manifest.pair) == ("token-labels", TAGS, 3, False)
    assert manifest.dictionary.path == "dictionary.tsv"
    about = json.loads((marker.checkpoint / "squeezebert.json").read_text())
    assert manifest.thresholds == tuple(about["thresholds"])
    found = manifest.verification["int8"]
    assert found.metric == "share of words and signs right"
    assert found.accuracy > 0.95
    assert found.agreement > 0.99
    sample = manifest.samples[0]
    assert len(sample.expected["int8"]) == len(TAGS) * len(units(sample.text))
    config = json.loads((marker.output / "config.json").read_text())
    assert config["architectures"] == ["SqueezeBertForTokenClassification"]
    data = manifest.to_dict()
    with pytest.raises(FolderError, match="lies outside the folder"):
        type(manifest).from_dict({**data, "dictionary": {"path": "../x", "bytes": 1, "sha256": ""}})


def test_scores_are_of_words_by_row(marker):
    source = read_checkpoint(marker.checkpoint)
    rows = check_rows(
        [{"text": "the boat.", "label": ["keep", "spelling", "keep"]}, {"text": ""}, {"text": "late"}], source
    )
    evidence = LabelledWords("token-labels", TAGS, None, rows, "evaluation rows")
    answers = np.eye(len(TAGS))[[0, 0, 0, 1]]
    other = np.eye(len(TAGS))[[0, 1, 0, 1]]
    assert evidence.scores(answers).tolist() == [pytest.approx(2 / 3)]
    assert evidence.scores(other).tolist() == [1.0]
    # The empty text has no words, and no part in it
    assert evidence.agreement(answers, other).tolist() == [pytest.approx(2 / 3), 1.0]


def test_int8_that_gives_other_labels_is_refused(marker, tmp_path, monkeypatch):
    source = read_checkpoint(marker.checkpoint)
    predictor = load(marker.output, 1, "fp32")
    rows = check_rows([json.loads(line) for line in (marker.checkpoint / "evaluation.jsonl").open()], source)
    evidence = LabelledWords("token-labels", TAGS, source.thresholds, rows, "evaluation rows")
    reference = evidence.reference(source, predictor)
    np.testing.assert_allclose(reference, evidence.answers(predictor), atol=1e-5)
    worse = reference.copy()
    worse[::20] = np.roll(worse[::20], 1, axis=1)
    found = verify_int8(evidence, reference, reference, worse, ExportOptions())
    assert "agreement with fp32" in found.refused
    assert "share of words and signs right" in found.refused

    def spoilt(source, target, *rest):
        rounded = quantize_graph(source, target, *rest)
        proto = onnx.load(str(target))
        (bias,) = (tensor for tensor in proto.graph.initializer if tensor.name.endswith("classifier.bias"))
        bias.CopyFrom(onnx.numpy_helper.from_array(np.eye(len(TAGS), dtype=np.float32)[1] * 100, bias.name))
        onnx.save(proto, str(target))
        return rounded

    monkeypatch.setattr("squeezebert.export.int8.quantize_graph", spoilt)
    with pytest.raises(ExportRefused, match="int8 was refused"):
        options = ExportOptions(threads=1, precision="int8")
        export_checkpoint(marker.checkpoint, tmp_path / "out", options, [{"text": text} for text in texts(80)])


def test_rows_have_a_label_for_each_word_and_sign(marker):
    source = read_checkpoint(marker.checkpoint)
    with pytest.raises(TableError, match="2 labels for 3 words and signs"):
        check_rows([{"text": "the boat.", "label": ["keep", "keep"]}], source)
    with pytest.raises(TableError, match="'wrong' is none of the model's"):
        check_rows([{"text": "boat", "label": ["wrong"]}], source)


def test_berts_token_classifiers_are_exported_without_a_dictionary(tmp_path):
    folder = bert(tmp_path / "bert", "ForTokenClassification", num_labels=4)
    report = export_checkpoint(folder, tmp_path / "out", ExportOptions(threads=1, force=True))
    assert report.manifest.dictionary is None
    assert report.manifest.labels == ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3")
    assert load(tmp_path / "out", 1).self_check().passed


def test_a_damaged_dictionary_and_other_uses_are_refused(marker, tmp_path):
    shutil.copytree(marker.checkpoint, tmp_path / "copy")
    (tmp_path / "copy" / "dictionary.tsv").write_text("the\n")
    with pytest.raises(FolderError, match="cannot be read as a dictionary"):
        export_checkpoint(tmp_path / "copy", tmp_path / "out")
    with pytest.raises(OptionError, match="serve a classifier"):
        Service(marker.output)
    with pytest.raises(OptionError, match="needs a classifier of single texts, and this is of words"):
        Moderator(load(marker.output, 1), Policy({}))
