"""The marker's training: an even sample, tags at first tokens, batches that repeat, thresholds, kill and resume."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch

from marker_text import SHORT, save_encoder, sentences, write_text
from squeezebert.cli import main
from squeezebert.data.corruption import CorruptionOptions, Corruptor
from squeezebert.files.english import TAGS, units
from squeezebert.files.errors import OptionError, TableError
from squeezebert.model import SqueezeBertForTokenClassification
from squeezebert.training.marking import (
    IGNORED,
    MarkerBatches,
    MarkerTrainer,
    TaggedSentences,
    choose_sentences,
    choose_thresholds,
    f_score,
    word_scores,
)
from squeezebert.training.options import MarkerOptions
from tiny_checkpoints import tiny_tokenizer

pytest_plugins = ["exported_folders"]


def test_sentences_are_an_even_sample_and_held_out_ones_are_others():
    paragraphs = [" ".join(sentences(4, seed)) for seed in range(400)]
    options = MarkerOptions(sentences=200, held_out=40, held_out_share=0.1, batch_size=8, least_count=2)
    found = choose_sentences(paragraphs, options)
    assert (len(found.train), len(found.held_out)) == (200, 40)
    assert not set(found.train) & set(found.held_out)
    whole = [sentence for seed in range(400) for sentence in sentences(4, seed)]
    places = [whole.index(sentence) for sentence in found.train]
    assert 0.4 < np.mean(np.array(places) < len(whole) / 2) < 0.6
    assert choose_sentences(paragraphs, options) == found
    assert found.counts["the"] > found.counts["boat"] > 2
    # A sentence that comes twice is on one side
    twice = choose_sentences(paragraphs * 2, options)
    assert not set(twice.train) & set(twice.held_out)
    with pytest.raises(TableError, match="too few for batches of 8: give more text"):
        choose_sentences(["Too short."] * 50, options)


def test_tags_stand_at_first_tokens():
    made = Corruptor(CorruptionOptions(clean=0.0)).corrupt("The green boat is on the river, and it's late.", 5)
    tokenizer = tiny_tokenizer()
    batch = TaggedSentences([], tokenizer, 48).batch([made, Corruptor(CorruptionOptions()).corrupt("A boat.", 1)])
    assert set(batch) == {"input_ids", "attention_mask", "token_type_ids", "labels"}
    labels = batch["labels"][0]
    asked = labels[labels != IGNORED]
    assert [TAGS[label] for label in asked] == list(made.tags)
    first = [tokenizer.convert_ids_to_tokens(int(token)) for token in batch["input_ids"][0][labels != IGNORED]]
    assert all(not piece.startswith("##") for piece in first)
    starts = [made.text[start].lower() for start, _ in units(made.text)]
    assert [piece[0] for piece in first] == starts
    assert (batch["labels"][batch["attention_mask"] == 0] == IGNORED).all()
    cut = TaggedSentences([], tokenizer, 8).batch([made])
    assert cut["input_ids"].shape == (1, 8)


def test_batches_repeat_and_passes_differ():
    def batches():
        corruptor = Corruptor(CorruptionOptions())
        return MarkerBatches(sentences(50), corruptor, tiny_tokenizer(), 8, 48, 3)

    first, again = batches(), batches()
    assert first.of_pass == 6
    for number in (13, 0, 5, 7):
        assert all((first[number][name] == again[number][name]).all() for name in first[number])

    def passed(number):
        return Counter(row.tobytes() for k in range(6) for row in first[6 * number + k]["input_ids"])

    assert passed(0) != passed(1)


def test_scores_and_thresholds():
    assert word_scores(np.array([0, 1, 2, 0]), np.array([0, 3, 0, 1])) == {"precision": 0.5, "recall": 0.5, "f05": 0.5}
    assert f_score(1.0, 0.5) == pytest.approx(1.25 * 0.5 / (0.25 + 0.5))
    assert (f_score(0, 0), word_scores(np.zeros(2), np.zeros(2))["f05"]) == (0.0, 0.0)
    random = np.random.default_rng(0)
    targets = (random.random(4000) < 0.1) * random.integers(1, 3, 4000)
    # The first tag is sure of itself; the second cries wolf
    wrong = np.clip(np.where(targets > 0, 0.8, 0.1) + random.normal(0, 0.1, 4000), 0.01, 0.99)
    wrong = np.where((targets == 0) & (random.random(4000) < 0.1), 0.6, wrong)
    tag = np.where(targets > 0, targets, np.where(wrong > 0.55, 2, 1))
    rows = np.zeros((4000, 3))
    rows[:, 0], rows[np.arange(4000), tag] = 1 - wrong, wrong
    first, second = choose_thresholds(rows, targets)[1:]
    assert first < 0.6 < second

    def f05(least):
        return word_scores(np.where(wrong >= np.array([0, *least])[tag], tag, 0), targets)["f05"]

    assert f05((first, second)) >= max(f05((a, b)) for a in (0.3, 0.5, 0.7) for b in (0.3, 0.5, 0.7, 0.9)) - 0.005


def test_what_a_run_leaves(marker):
    about = json.loads((marker.checkpoint / "squeezebert.json").read_text())
    assert (about["task"], about["labels"], about["max_length"]) == ("token-labels", list(TAGS), 40)
    assert len(about["thresholds"]) == len(TAGS)
    record = json.loads((marker.checkpoint / "marker.json").read_text())
    assert record["command"].startswith("squeezebert train-marker --text")
    assert record["scores"]["f05"] > 0.7
    rows = [json.loads(line) for line in (marker.checkpoint / "evaluation.jsonl").read_text().splitlines()]
    assert len(rows) == record["sentences"]["held_out"] == 80
    assert all(len(row["label"]) == len(units(row["text"])) for row in rows)
    assert (marker.checkpoint / "dictionary.tsv").read_text().startswith("the\t")
    model = SqueezeBertForTokenClassification.from_pretrained(marker.checkpoint)
    assert model.config.id2label[1] == "spelling"
    assert not (marker.checkpoint / ".training").exists()


def test_a_killed_run_ends_with_the_same_weights(tmp_path, capsys, monkeypatch):
    base, text = save_encoder(tmp_path / "base"), write_text(tmp_path / "text.txt", 200)

    def train(output, *more):
        told = ["train-marker", "--text", str(text), "--base", str(base), "--output", str(tmp_path / output)]
        return main([*told, *SHORT, "--steps", "6", "--save-every", "2", "--held-out", "20", *more])

    assert train("whole") == 0
    real, steps = MarkerTrainer.compute_loss, []

    def dies(self, *args, **kwargs):
        steps.append(1)
        if len(steps) == 6:
            raise KeyboardInterrupt
        return real(self, *args, **kwargs)

    monkeypatch.setattr(MarkerTrainer, "compute_loss", dies)
    assert train("killed") == 130
    capsys.readouterr()
    monkeypatch.setattr(MarkerTrainer, "compute_loss", real)
    assert train("killed", "--errors", "0.2") == 1
    assert "a run that was cut off, with other data or options" in capsys.readouterr().err
    assert train("killed") == 0
    assert "resuming at step 4 of 6" in capsys.readouterr().err
    whole, killed = (
        SqueezeBertForTokenClassification.from_pretrained(tmp_path / name) for name in ("whole", "killed")
    )
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), killed.parameters(), strict=True))
    assert (tmp_path / "whole" / "evaluation.jsonl").read_text() == (
        tmp_path / "killed" / "evaluation.jsonl"
    ).read_text()
    assert train("killed") == 1
    assert "holds a finished model already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (["--base", "nowhere"], "--base nowhere: no checkpoint there"),
        (["--text", "gone.txt"], "gone.txt"),
        (["--steps", "0"], "--steps 0: expected more than 0"),
        (["--clean", "1.5"], "--clean 1.5"),
        (["--held-out-share", "0"], "--held-out-share 0"),
        (["--batch-size", "5000"], "too few for batches of 5000"),
    ],
)
def test_bad_options_are_refused(marker, tmp_path, capsys, told, reason):
    usual = {"--text": str(marker.text), "--base": str(marker.base), "--output": str(tmp_path / "out")}
    usual[told[0]] = told[1]
    assert main(["train-marker", *(word for pair in usual.items() for word in pair)]) == 1
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_the_base_is_refused(marker, capsys):
    told = ["--text", str(marker.text), "--base", str(marker.base), "--output", str(marker.base)]
    assert main(["train-marker", *told]) == 1
    assert "that is the --base itself" in capsys.readouterr().err


def test_options_are_checked():
    for bad in ({"warmup": 1.0}, {"max_length": 4}, {"weight_decay": -1.0}, {"seed": -1}, {"held_out": 0}):
        with pytest.raises(OptionError, match="expected"):
            MarkerOptions(**bad)
