"""`prune`: a smaller vocabulary that spells the same text with the same pieces, and models that answer the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoTokenizer

from squeezebert.cli import main
from squeezebert.model import SqueezeBertConfig, SqueezeBertForMaskedLM, SqueezeBertForSequenceClassification
from squeezebert.runtime.predictor import load
from squeezebert.training.vocabulary import factorise_words
from tiny_checkpoints import VOCABULARY, logits_of, save_checkpoint, texts, tiny_model, tiny_tokenizer

SEEN = ["the train is late", "read this letter in the garden", "it was a quiet morning"]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(SEEN) + "\n")
    return path


@pytest.fixture
def checkpoint(tmp_path):
    labels = ["calm", "busy", "other"]
    about = {
        "task": "single_label",
        "labels": labels,
        "max_length": 40,
        "text_columns": {"text": "body", "text_pair": None},
        "calibration": {"temperature": 1.5},
        "thresholds": None,
        "metrics": {"accuracy": 0.5, "macro_f1": 0.5},
    }
    rows = [{"text": one, "text_pair": None, "label": labels[n % 3]} for n, one in enumerate(SEEN * 4)]
    return save_checkpoint(tmp_path / "model", tiny_model(), about, rows)


def prune(checkpoint, text, output, *more):
    return main(["prune", str(checkpoint), "--text", str(text), "--output", str(output), *more])


def test_what_the_text_uses_stays_and_is_answered_the_same(checkpoint, text, tmp_path, capsys):
    assert prune(checkpoint, text, tmp_path / "small") == 0
    said = capsys.readouterr().err
    old, new = tiny_tokenizer(), AutoTokenizer.from_pretrained(tmp_path / "small")
    assert len(new) < len(old)
    assert {"train", "garden", "[MASK]", "a", "##q", "漢"} <= new.get_vocab().keys()
    assert not {"window", "boat"} & new.get_vocab().keys()
    assert sorted(new.get_vocab().values()) == list(range(len(new)))
    for one in SEEN:
        assert new.tokenize(one) == old.tokenize(one)
    # A piece that is gone is spelled; nothing becomes unknown
    assert new.tokenize("window") == ["w", "##i", "##n", "##d", "##o", "##w"]
    model = SqueezeBertForSequenceClassification.from_pretrained(tmp_path / "small").eval()
    assert model.config.vocab_size == len(new)
    for one in SEEN:
        with torch.no_grad():
            found = model(**new(one, return_tensors="pt")).logits[0].numpy()
        assert found == pytest.approx(logits_of(tiny_model(), [one])[0], abs=1e-5)
    record = json.loads((tmp_path / "small" / "prune.json").read_text())
    assert record["pieces"] == {"before": VOCABULARY, "after": len(new)}
    assert record["parameters"]["before"] - record["parameters"]["after"] == 32 * (VOCABULARY - len(new))
    assert "accuracy: 0.5000 before" in said
    assert json.loads((tmp_path / "small" / "squeezebert.json").read_text())["labels"] == ["calm", "busy", "other"]
    # It can be exported, and answers pairs and padding with its new numbers
    told = ["export", str(tmp_path / "small"), "--output", str(tmp_path / "exported"), "--precision", "fp32"]
    assert main(told) == 0


def test_least_keeps_what_is_frequent(checkpoint, text, tmp_path):
    text.write_text("the train\nthe garden\nthe train\n")
    assert prune(checkpoint, text, tmp_path / "small", "--least", "2") == 0
    kept = AutoTokenizer.from_pretrained(tmp_path / "small").get_vocab()
    assert "train" in kept
    assert "garden" not in kept


def test_a_masked_lm_head_scores_what_is_left(text, tmp_path):
    torch.manual_seed(0)
    config = SqueezeBertConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64
    )
    model = SqueezeBertForMaskedLM(config).eval()
    with torch.no_grad():
        model.cls.predictions.bias.normal_()
    save_checkpoint(tmp_path / "mlm", model)
    assert prune(tmp_path / "mlm", text, tmp_path / "small") == 0
    small = SqueezeBertForMaskedLM.from_pretrained(tmp_path / "small").eval()
    old, new = tiny_tokenizer(), AutoTokenizer.from_pretrained(tmp_path / "small")
    sentence = "the [MASK] is late"
    with torch.no_grad():
        before = model(**old(sentence, return_tensors="pt")).logits[0]
        after = small(**new(sentence, return_tensors="pt")).logits[0]
    kept = [old.get_vocab()[piece] for piece, _ in sorted(new.get_vocab().items(), key=lambda item: item[1])]
    assert after.numpy() == pytest.approx(before[:, kept].numpy(), abs=1e-5)
    assert small.cls.predictions.decoder.weight.data_ptr() == small.get_input_embeddings().weight.data_ptr()


def test_a_bert_checkpoint_becomes_ours(tiny_base, text, tmp_path):
    assert prune(tiny_base, text, tmp_path / "small") == 0
    new = AutoTokenizer.from_pretrained(tmp_path / "small")
    old = AutoTokenizer.from_pretrained(tiny_base)
    assert len(new) <= len(old)
    assert new("the team")["input_ids"][0] == new.cls_token_id


def test_what_cannot_be_pruned_is_refused_and_nothing_is_lost(checkpoint, text, tmp_path, capsys):
    def refused(told, reason):
        assert main(["prune", *told]) == 1
        assert reason in capsys.readouterr().err

    out = ["--output", str(tmp_path / "out")]
    refused([str(tmp_path / "nowhere"), "--text", str(text), *out], "no checkpoint there. prune takes")
    refused([str(checkpoint), "--text", str(tmp_path / "no.txt"), *out], "no.txt")
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    refused([str(checkpoint), "--text", str(empty), *out], "empty")
    refused([str(checkpoint), "--text", str(text), "--output", str(checkpoint)], "that is the checkpoint itself")
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("keep")
    refused([str(checkpoint), "--text", str(text), "--output", str(other)], "holds no model")
    assert (other / "mine.txt").read_text() == "keep"
    assert prune(checkpoint, text, tmp_path / "out") == 0
    capsys.readouterr()
    refused([str(checkpoint), "--text", str(text), *out], "holds a model already")
    assert prune(checkpoint, text, tmp_path / "out", "--overwrite") == 0


def test_another_kind_of_tokenizer_is_refused(text, tmp_path, capsys):
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {piece: n for n, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdef"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    tiny_model().save_pretrained(tmp_path / "model")
    fast.save_pretrained(tmp_path / "model")
    assert prune(tmp_path / "model", text, tmp_path / "out") == 1
    assert "the tokenizer is BPE, and prune knows WordPiece" in capsys.readouterr().err


def test_random_texts_are_spelled_without_unknown_pieces(checkpoint, text, tmp_path):
    assert prune(checkpoint, text, tmp_path / "small") == 0
    new = AutoTokenizer.from_pretrained(tmp_path / "small")
    for one in texts(50, seed=3):
        assert new.unk_token_id not in new(one)["input_ids"]
        assert np.max(new(one)["input_ids"]) < len(new)


def test_words_in_fewer_channels_answer_alike_and_are_exported(checkpoint, text, tmp_path, capsys):
    labels = ["calm", "busy", "other"]
    answers = {}
    for rank in (31, 8):
        small, exported = tmp_path / f"rank-{rank}", tmp_path / f"exported-{rank}"
        assert prune(checkpoint, text, small, "--word-rank", str(rank)) == 0
        assert f"{rank} channels a word hold" in capsys.readouterr().err
        model = SqueezeBertForSequenceClassification.from_pretrained(small).eval()
        words = model.base_model.embeddings.word_embeddings.weight
        assert words.shape == (model.config.vocab_size, rank)
        record = json.loads((small / "prune.json").read_text())
        assert record["parameters"]["after"] == sum(one.numel() for one in model.parameters())
        assert record["words"]["rank"] == rank
        # Both files repeat it, words in 4 bits too: an export that does not is refused
        told = ["export", str(small), "--output", str(exported), "--force", "--threads", "1"]
        assert main([*told, *(["--embeddings", "int4"] if rank == 8 else [])]) == 0
        predictor = load(exported, 1, "fp32")
        found, temperature = predictor.predict(SEEN), predictor.manifest.temperature  # measured anew when pruned
        tokenizer = AutoTokenizer.from_pretrained(small)
        with torch.no_grad():
            logits = [model(**tokenizer(one, return_tensors="pt")).logits[0] for one in SEEN]
        for one, answer in zip(logits, found, strict=True):
            wanted = dict(zip(labels, (one / temperature).softmax(-1).tolist(), strict=True))
            assert answer.probabilities == pytest.approx(wanted, abs=1e-4)
        answers[rank] = np.stack([one.numpy() for one in logits])
    whole = logits_of(tiny_model(), SEEN)
    assert np.abs(answers[31] - whole).max() < np.abs(answers[8] - whole).max()
    assert prune(tmp_path / "rank-8", text, tmp_path / "again", "--word-rank", "4") == 1
    assert "have 8 channels already" in capsys.readouterr().err


def test_a_full_disk_is_told_with_the_output(checkpoint, text, tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(SqueezeBertForSequenceClassification, "save_pretrained", full)
    assert prune(checkpoint, text, tmp_path / "small") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: {tmp_path / 'small'}: ")
    assert "No space left on device" in last
    assert not (tmp_path / "small").exists()


def test_frequent_words_are_nearer():
    model = tiny_model(**dict.fromkeys(("hidden_size", "embedding_size"), 32))
    often = np.ones(VOCABULARY)
    often[40:50] = 1000
    narrow, share = factorise_words(model, often, 4)
    table = model.base_model.embeddings.word_embeddings.weight.detach().numpy()
    embeddings = narrow.base_model.embeddings
    made = (embeddings.word_embeddings.weight @ embeddings.word_projection.weight.t()).detach().numpy()
    # No product of so small a rank is nearer, rows counted as often: the values that are left out say how near
    left = np.linalg.svd(table * np.sqrt(often)[:, None], compute_uv=False)[4:]
    missed = (np.square(made - table).sum(1) * often).sum()
    assert missed == pytest.approx(np.square(left).sum(), rel=1e-4)
    assert 1 - share == pytest.approx(missed / (np.square(table).sum(1) * often).sum(), rel=1e-4)
    errors = np.square(made - table).sum(1) / np.square(table).sum(1).clip(1e-9)
    assert errors[40:50].mean() < 0.8 * errors[50:].mean()
    assert model.config.word_rank is None


def test_a_table_that_scores_words_stays_whole(text, tmp_path, capsys):
    masked = SqueezeBertForMaskedLM(SqueezeBertConfig(vocab_size=VOCABULARY, **_SMALL))
    checkpoint = save_checkpoint(tmp_path / "masked", masked)
    assert prune(checkpoint, text, tmp_path / "out", "--word-rank", "8") == 1
    assert "scores words by the same table" in capsys.readouterr().err
    with pytest.raises(ValueError, match="word_rank 8: a masked-LM head"):
        SqueezeBertForMaskedLM(SqueezeBertConfig(vocab_size=VOCABULARY, word_rank=8, **_SMALL))
    for rank in (0, 32):
        with pytest.raises(ValueError, match="expected a number from 1 to below embedding_size 32"):
            SqueezeBertForSequenceClassification(SqueezeBertConfig(vocab_size=VOCABULARY, word_rank=rank, **_SMALL))
    whole = save_checkpoint(tmp_path / "whole", tiny_model())
    assert prune(whole, text, tmp_path / "out", "--word-rank", "32") == 1
    assert "have 32 channels: give fewer" in capsys.readouterr().err
    assert prune(whole, text, tmp_path / "out", "--word-rank", "0") == 1
    assert "expected 1 or more" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


_SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
