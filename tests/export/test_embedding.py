"""Encoders as exported folders: vectors equal to torch's, small in int8, and checked like any other model."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from torch.nn import functional

from dense_models import bert
from squeezebert.cli import main
from squeezebert.export.exporter import ExportRefused, export_checkpoint
from squeezebert.export.options import ExportOptions
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.files.manifest import read_manifest
from squeezebert.model import SqueezeBertModel
from squeezebert.model.configuration import GROUP_FIELDS
from squeezebert.runtime.predictor import load
from squeezebert.runtime.tokens import TextError
from squeezebert.training.shapes import best_shape
from tiny_checkpoints import save_checkpoint, texts, tiny_model, tiny_tokenizer

pytest_plugins = ["exported_folders"]


def vectors_of(model, items, first=False):
    found = []
    for text in items:
        encoded = tiny_tokenizer()(text, truncation=True, max_length=48, return_tensors="pt")
        with torch.no_grad():
            states = model(**encoded).last_hidden_state[0]
        found.append(functional.normalize(states[0] if first else states.mean(0), dim=-1).numpy())
    return np.stack(found)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A low-rank encoder and its export."""
    folder = tmp_path_factory.mktemp("encoder")
    model = tiny_model(**dict.fromkeys(GROUP_FIELDS, 1) | best_shape(32, 64)).transformer
    save_checkpoint(folder / "checkpoint", model)
    report = export_checkpoint(folder / "checkpoint", folder / "exported", ExportOptions(threads=1))
    return folder, model, report


def test_vectors_are_torchs_and_int8_points_the_same_way(encoder):
    folder, model, report = encoder
    some = [*texts(30, seed=2), "", "a" * 400]
    expected = vectors_of(model, some)
    for precision, least in (("fp32", 1 - 1e-6), ("int8", 0.99)):
        predictor = load(folder / "exported", 1, precision)
        found = predictor.encode(some)
        assert (found.shape, found.dtype) == ((32, 32), np.float32)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
        assert (found * expected).sum(1).min() > least
        assert predictor.self_check().passed
    assert report.manifest.verification["int8"].metric == "cosine with the reference"
    assert 0.99 < report.manifest.verification["int8"].agreement < 1
    assert report.manifest.files["int8"].bytes < report.manifest.files["fp32"].bytes


def test_a_vector_does_not_depend_on_its_company(encoder):
    folder, *_ = encoder
    some = texts(40, seed=7)
    for precision in ("fp32", "int8"):
        predictor = load(folder / "exported", 1, precision)
        alone = np.concatenate([predictor.encode([text]) for text in some])
        np.testing.assert_allclose(predictor.encode(some), alone, atol=1e-5)


def test_the_manifest_says_what_it_is(encoder):
    folder, *_ = encoder
    manifest = read_manifest(folder / "exported")
    assert (manifest.task, manifest.labels, manifest.dimension, manifest.format) == ("embedding", (), 32, 2)
    assert len(manifest.samples[0].expected["int8"]) == 32
    config = json.loads((folder / "exported" / "config.json").read_text())
    assert config["architectures"] == ["SqueezeBertModel"]
    assert "problem_type" not in config or config["problem_type"] is None
    data = manifest.to_dict()
    with pytest.raises(FolderError, match="dimension None for embedding"):
        type(manifest).from_dict({**data, "dimension": None})
    with pytest.raises(FolderError, match="update squeezebert"):
        type(manifest).from_dict({**data, "format": 4})


def test_berts_own_encoder_and_the_first_token(tmp_path):
    folder = bert(tmp_path / "bert")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        '{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}'
    )
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 20}')
    report = export_checkpoint(folder, tmp_path / "out", ExportOptions(threads=1, precision="fp32"))
    assert report.manifest.max_length == 20
    model = transformers.AutoModel.from_pretrained(folder).eval()
    short = [text for text in texts(40, seed=2) if len(text.split()) < 12]
    np.testing.assert_allclose(load(tmp_path / "out", 1).encode(short), vectors_of(model, short, True), atol=1e-5)


def test_other_poolings_and_heads_are_refused(tmp_path):
    folder = bert(tmp_path / "bert")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(FolderError, match="pooling_mode_max_tokens; only the mean"):
        export_checkpoint(folder, tmp_path / "out")
    with pytest.raises(FolderError, match="holds a BertForMultipleChoice; only classifiers"):
        export_checkpoint(bert(tmp_path / "mc", "ForMultipleChoice"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_int8_file_that_points_elsewhere_is_refused(encoder, tmp_path):
    folder, *_ = encoder
    with pytest.raises(ExportRefused, match=r"mean cosine of .* with fp32"):
        export_checkpoint(
            folder / "checkpoint",
            tmp_path / "out",
            ExportOptions(threads=1, min_agreement=1.0),
            [{"text": text} for text in texts(20)],
        )
    assert set(read_manifest(tmp_path / "out").files) == {"fp32"}


def test_each_kind_of_model_says_what_it_does(encoder, single):
    folder, *_ = encoder
    embeds, classifies = load(folder / "exported", 1), load(single.output, 1)
    for call in (embeds.predict, embeds.predict_windows):
        with pytest.raises(OptionError, match="an encoder, which embeds and gives no labels: call encode"):
            call("a boat")
    with pytest.raises(OptionError, match="a model of single_label, which does not embed"):
        classifies.encode(["a boat"])
    with pytest.raises(TextError, match="expected several texts, not str"):
        embeds.encode("a boat")
    with pytest.raises(TextError, match="text 1 is no text"):
        embeds.encode(["a boat", 3])
    with pytest.raises(OptionError, match="batch_size = 0"):
        embeds.encode(["a boat"], batch_size=0)
    assert embeds.encode([]).shape == (0, 32)
    assert embeds.encode(iter(["a boat"])).shape == (1, 32)


def test_as_it_is_typed(encoder, tmp_path, capsys):
    folder, *_ = encoder
    (tmp_path / "rows.txt").write_text("".join(f"{text}\n" for text in texts(20)))
    out = str(tmp_path / "out")
    told = (
        "--eval",
        str(tmp_path / "rows.txt"),
        "--activations",
        "static",
        "--calibration",
        str(tmp_path / "rows.txt"),
    )
    assert main(["export", str(folder / "checkpoint"), "--output", out, *told]) == 0
    assert "agreement 0.99" in capsys.readouterr().err
    assert main(["predict", out, str(tmp_path / "rows.txt")]) == 1
    assert "an encoder, which embeds" in capsys.readouterr().err
    assert isinstance(SqueezeBertModel.from_pretrained(folder / "checkpoint"), SqueezeBertModel)
