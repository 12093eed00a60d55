"""Masked language models as exported folders: torch's words at asked places, the table stored once, refusals."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from dense_models import bert
from masked_models import SENTENCES, SIZES, learned, torch_words
from squeezebert.cli import main
from squeezebert.export.checkpoint import read_checkpoint
from squeezebert.export.exporter import ExportRefused, export_checkpoint
from squeezebert.export.options import ExportOptions
from squeezebert.export.places import HiddenWords
from squeezebert.export.verify import verify_fp32, verify_int8
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.files.manifest import read_manifest
from squeezebert.model import SqueezeBertConfig, SqueezeBertForMaskedLM, SqueezeBertForPreTraining
from squeezebert.runtime.completion import Completer
from squeezebert.runtime.predictor import load
from squeezebert.runtime.server.service import Service
from squeezebert.runtime.tokens import MASK
from tiny_checkpoints import VOCABULARY, save_checkpoint, texts, tiny_tokenizer

pytest_plugins = ["exported_folders"]

ASKED = ["the green [MASK] is on the quiet river.", "[MASK]", "walk [MASK] the window to the [MASK]."]


def asked_at_once(predictor, items):
    """Logits at all masks of texts run as one padded batch."""
    tokenizer, mask = predictor.tokenizer, predictor.tokenizer.id_of(MASK)
    batch = [tokenizer.encode(text) for text in items]
    positions = [(n, t) for n, tokens in enumerate(batch) for t, token in enumerate(tokens.ids) if token == mask]
    return predictor.compute(batch, np.array(positions, dtype=np.int64))


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", 1e-6), ("int8", 0.05)])
def test_words_are_torchs_at_the_asked_places_alone(words, precision, allowed):
    predictor = load(words.output, 1, precision)
    found = asked_at_once(predictor, ASKED)
    expected = np.concatenate([torch_words(words.model, text) for text in ASKED])
    assert found.shape == (4, VOCABULARY)
    odds = np.exp(found - found.max(1, keepdims=True))
    np.testing.assert_allclose(odds / odds.sum(1, keepdims=True), expected, atol=allowed)
    assert predictor.self_check().passed


def test_the_vocabulary_is_scored_at_the_asked_places_alone(words):
    """What is computed behind attention of the last block does not grow with the text."""
    graph = onnx.load(str(words.output / "onnx" / "model.onnx")).graph
    (table,) = [one.name for one in graph.initializer if list(one.dims) == [VOCABULARY, 32]]
    readers = [node.op_type for node in graph.node if table in node.input]
    assert sorted(readers) == ["Gather", "Gemm"]
    assert [value.name for value in graph.input] == ["input_ids", "attention_mask", "token_type_ids", "positions"]


def test_tied_words_are_stored_once_in_8_bits(words):
    graph = onnx.load(str(words.output / "onnx" / "model_quantized.onnx")).graph
    tables = [one for one in graph.initializer if sorted(one.dims) == sorted([VOCABULARY, 32])]
    assert [(one.name, one.data_type) for one in tables] == [("words.levels", onnx.TensorProto.INT8)]
    readers = {node.op_type for node in graph.node if "words.levels" in node.input}
    assert readers == {"Gather", "Transpose"}


def test_an_output_of_its_own_weights_is_written_beside_the_table(tmp_path):
    model = learned(steps=0, tie_word_embeddings=False)
    own = model.cls.predictions.decoder.weight
    assert not torch.equal(own, model.transformer.embeddings.word_embeddings.weight)
    save_checkpoint(tmp_path / "own", model)
    export_checkpoint(tmp_path / "own", tmp_path / "out", ExportOptions(threads=1, force=True))
    reloaded = SqueezeBertForMaskedLM.from_pretrained(tmp_path / "own")
    assert torch.equal(reloaded.cls.predictions.decoder.weight, own)
    for precision, allowed in (("fp32", 1e-5), ("int8", 0.1)):
        predictor = load(tmp_path / "out", 1, precision)
        found = Completer(predictor).probabilities(ASKED[0], range(VOCABULARY))
        np.testing.assert_allclose(found, torch_words(reloaded, ASKED[0])[0], atol=allowed)


def test_the_manifest_says_what_was_verified(words):
    manifest = read_manifest(words.output)
    assert (manifest.task, manifest.labels, manifest.dimension, manifest.format) == ("masked-lm", (), VOCABULARY, 3)
    fp32, int8 = (manifest.verification[precision] for precision in ("fp32", "int8"))
    assert fp32.max_difference < 1e-5
    assert (fp32.agreement, fp32.metric, fp32.rows) == (1.0, "share of hidden words guessed", len(SENTENCES))
    assert fp32.accuracy > 0.7
    assert 0 < fp32.loss < 1
    assert int8.loss_rise == pytest.approx(int8.loss - fp32.loss)
    low, high = int8.loss_rise_interval
    assert low <= int8.loss_rise <= high
    assert manifest.samples[0].text.count(MASK) == 1
    assert len(manifest.samples[0].words) == len(manifest.samples[0].expected["int8"]) == 8
    assert sum(manifest.notes["pieces_a_word"]) == pytest.approx(1)
    config = json.loads((words.output / "config.json").read_text())
    assert config["architectures"] == ["SqueezeBertForMaskedLM"]
    # The loss is the checkpoint's own at the same places
    source = read_checkpoint(words.checkpoint)
    evidence = HiddenWords("masked-lm", (), None, words_rows(source), "evaluation rows")
    evidence.hide(source, load(words.output, 1).tokenizer)
    losses = []
    for tokens, places, right in zip(evidence.hidden, evidence.places, evidence.right, strict=True):
        with torch.no_grad():
            logits = words.model(torch.tensor([tokens.ids])).logits[0, places]
        losses.append(torch.nn.functional.cross_entropy(logits, torch.from_numpy(right)).item())
    assert fp32.loss == pytest.approx(np.mean(losses), abs=1e-4)


def words_rows(source):
    from squeezebert.export.checkpoint import check_rows

    return check_rows([{"text": text} for text in SENTENCES], source)


def test_what_is_hidden_is_a_seventh_and_always_the_same(words):
    source, tokenizer = read_checkpoint(words.checkpoint), load(words.output, 1).tokenizer
    rows = [replace(words_rows(source)[0], text=text) for text in [*texts(20, seed=3), "", "boat", "漢"]]
    evidence = HiddenWords("masked-lm", (), None, rows, "evaluation rows")
    evidence.hide(source, tokenizer)
    mask = tokenizer.id_of(MASK)
    for row, tokens, places, right in zip(rows, evidence.hidden, evidence.places, evidence.right, strict=True):
        whole = tokenizer.encode(row.text).ids
        assert len(places) == (max(1, round(0.15 * (len(whole) - 2))) if row.text else 0)
        assert [whole[place] for place in places] == right.tolist()
        assert [i for i, token in enumerate(tokens.ids) if token == mask] == places.tolist()
    before = [places.tolist() for places in evidence.places]
    evidence.hide(source, tokenizer)
    assert [places.tolist() for places in evidence.places] == before
    # A row without tokens has no part in what is compared
    assert len(evidence.scores(np.zeros((sum(map(len, before)), 3)))) == len(rows) - 1


def test_int8_that_guesses_other_words_is_refused(words):
    source = read_checkpoint(words.checkpoint)
    evidence = HiddenWords("masked-lm", (), None, words_rows(source) * 30, "evaluation rows")
    reference = evidence.reference(source, load(words.output, 1, "fp32"))
    assert verify_fp32(evidence, reference, reference).refused is None
    moved = reference.copy()
    moved[:, 1:] += 3e-4
    assert "differs from torch's" in verify_fp32(evidence, reference, moved).refused
    worse = reference.copy()
    worse[::5, 0] = 0  # [PAD]: another word, and a wrong one
    found = verify_int8(evidence, reference, reference, worse, ExportOptions())
    assert "agreement with fp32" in found.refused
    assert "points" in found.refused
    assert verify_int8(evidence, reference, reference, reference, ExportOptions()).refused is None


def test_pretraining_checkpoints_and_berts_masked_lm(tmp_path, capsys):
    torch.manual_seed(0)
    model = SqueezeBertForPreTraining(SqueezeBertConfig(**SIZES)).eval()
    save_checkpoint(tmp_path / "ours", model)
    bert(tmp_path / "bert", "ForMaskedLM")
    bert(tmp_path / "both", "ForPreTraining")
    (tmp_path / "rows.txt").write_text("".join(f"{text}\n" for text in texts(20)))
    (tmp_path / "long.txt").write_text("".join(f"{text}\n" for text in texts(40, seed=9)))
    for name in ("ours", "bert", "both"):
        out = str(tmp_path / f"{name}-out")
        told = ["--eval", str(tmp_path / "rows.txt"), "--force", "--threads", "1"]
        static = ["--activations", "static", "--calibration", str(tmp_path / "long.txt"), "--spare-blocks", "1"]
        assert main(["export", str(tmp_path / name), "--output", out, *told, *(static if name == "ours" else [])]) == 0
        said = capsys.readouterr().err
        assert "nats" in said
        assert f"next: squeezebert complete {out} TEXT" in said
        assert load(out, 1).self_check().passed
    assert load(tmp_path / "ours-out", 1).batch_invariant
    with torch.no_grad():
        encoded = tiny_tokenizer()(ASKED[0], return_tensors="pt")
        scores = model(**encoded).prediction_logits[0, encoded["input_ids"][0] == tiny_tokenizer().mask_token_id]
    found = Completer(load(tmp_path / "ours-out", 1, "fp32")).probabilities(ASKED[0], range(VOCABULARY))
    np.testing.assert_allclose(found, scores.softmax(-1)[0].numpy(), atol=1e-5)


def test_what_cannot_be_exported_is_explained(words, tmp_path):
    with pytest.raises(OptionError, match="embeddings = 'int4': the output product"):
        export_checkpoint(words.checkpoint, tmp_path / "out", ExportOptions(embeddings="int4"))
    folder = bert(tmp_path / "bert", "ForMaskedLM")
    told = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**told, "mask_token": "the"}))
    with pytest.raises(FolderError, match=r"has no \[MASK\]"):
        export_checkpoint(folder, tmp_path / "out")
    other = bert(tmp_path / "random", "ForMaskedLM")
    strict = ExportOptions(threads=1, precision="int8", min_agreement=1.0)
    with pytest.raises(ExportRefused, match="int8 was refused"):
        export_checkpoint(other, tmp_path / "strict", strict, [{"text": text} for text in texts(60)])
    assert not (tmp_path / "out").exists()


def test_a_model_of_words_gives_no_labels(words):
    model = load(words.output, 1)
    for call in (
        lambda: model.predict("a boat"),
        lambda: model.logits(["a boat"]),
        lambda: model.predict_windows("a"),
    ):
        with pytest.raises(OptionError, match="a model of masked words"):
            call()
    with pytest.raises(OptionError, match="does not embed"):
        model.encode(["a boat"])
    with pytest.raises(OptionError, match="serve a classifier"):
        Service(words.output)
