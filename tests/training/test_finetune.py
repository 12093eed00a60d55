"""Finetuning on a tiny model: what it writes, that it resumes, and what it refuses."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, TrainerCallback

from squeezebert.data.examples import load_labelled
from squeezebert.data.options import DataOptions
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.model import SqueezeBertForSequenceClassification
from squeezebert.training.checkpoint import RECORD
from squeezebert.training.classifiers import load_base, output_layer
from squeezebert.training.finetune import PROGRESS_FOLDER, finetune
from squeezebert.training.options import DistilOptions, FinetuneOptions
from squeezebert.training.shapes import paper_shape
from squeezebert.training.squeeze import squeeze

FAST = {"learning_rate": 3e-3, "batch_size": 8, "max_length": 24, "seed": 3}


@pytest.fixture
def topics(topic_table):
    return load_labelled(topic_table, DataOptions(eval_fraction=0.3))


def test_a_run_learns_and_leaves_a_complete_checkpoint(topics, tiny_base, tmp_path):
    output = tmp_path / "model"
    lines: list[str] = []
    result = finetune(
        topics,
        tiny_base,
        output,
        FinetuneOptions(epochs=12, **FAST),
        command="squeezebert train x",
        report=lines.append,
    )
    assert result.metrics["accuracy"] > 0.8  # chance is a third
    assert set(result.metrics) == {"accuracy", "macro_f1", "matthews"}
    assert not (output / PROGRESS_FOLDER).exists()
    record = json.loads((output / "squeezebert.json").read_text())
    assert record["labels"] == ["money", "sport", "stage"]
    assert record["metrics"] == result.metrics
    assert record["text_columns"] == {"text": "message", "text_pair": None}
    card = (output / "README.md").read_text()
    assert "squeezebert train x" in card
    assert f"| accuracy | {result.metrics['accuracy']:.4f} |" in card
    rows = [json.loads(line) for line in (output / "evaluation.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == [example.text for example in topics.evaluation]
    assert any("evaluation rows" in line for line in lines)

    # The weights in the folder are those that were scored
    model = SqueezeBertForSequenceClassification.from_pretrained(output)
    assert model.config.id2label == {0: "money", 1: "sport", 2: "stage"}
    tokenizer = AutoTokenizer.from_pretrained(output)
    batch = tokenizer([row["text"] for row in rows], padding=True, truncation=True, max_length=24, return_tensors="pt")
    with torch.no_grad():
        chosen = model(**batch).logits.argmax(-1).tolist()
    right = [model.config.id2label[i] == row["label"] for i, row in zip(chosen, rows, strict=True)]
    assert np.mean(right) == pytest.approx(result.metrics["accuracy"])


class Killed(Exception):
    pass


class KillAt(TrainerCallback):
    """Ends the process at a step, as far as a test can."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed


def test_a_killed_run_resumes_to_the_same_weights(topics, tiny_base, tmp_path):
    options = FinetuneOptions(epochs=3, patience=2, **FAST)
    whole = finetune(topics, tiny_base, tmp_path / "whole", options)
    for step in (2, 17):  # before the first save, and after one
        with pytest.raises(Killed):
            finetune(topics, tiny_base, tmp_path / "cut", options, callbacks=[KillAt(step)])
    lines: list[str] = []
    elsewhere = shutil.copytree(tiny_base, tmp_path / "elsewhere")  # the same checkpoint, wherever it lies
    resumed = finetune(topics, elsewhere, tmp_path / "cut", options, report=lines.append)
    assert any("resuming at step" in line for line in lines)
    assert resumed.metrics == whole.metrics
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("step", [19, 23])
def test_a_run_killed_in_a_later_epoch_sees_the_batches_it_would_have_seen(step, topics, tiny_base, tmp_path):
    options = FinetuneOptions(epochs=3, patience=0, save_every=3, **FAST)
    whole = finetune(topics, tiny_base, tmp_path / "whole", options)
    assert len(topics.train) / 8 < step < 2 * len(topics.train) / 8
    with pytest.raises(Killed):
        finetune(topics, tiny_base, tmp_path / "cut", options, callbacks=[KillAt(step)])
    resumed = finetune(topics, tiny_base, tmp_path / "cut", options)
    assert resumed.metrics == whole.metrics
    course, again = (json.loads((tmp_path / name / RECORD).read_text())["course"] for name in ("whole", "cut"))
    assert course == again
    assert course[-1]["epoch"] == 3
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("damage", ["no state", "cut weights", "nothing complete"])
def test_a_save_that_a_kill_left_half_written_is_passed_over(damage, topics, tiny_base, tmp_path):
    options = FinetuneOptions(epochs=2, patience=0, save_every=5, **FAST)
    whole = finetune(topics, tiny_base, tmp_path / "whole", options)
    cut = tmp_path / "cut"
    with pytest.raises(Killed):
        finetune(topics, tiny_base, cut, options, callbacks=[KillAt(13)])
    saves = sorted((cut / PROGRESS_FOLDER).glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert len(saves) == 2
    for save in saves if damage == "nothing complete" else saves[-1:]:
        if damage == "cut weights":
            weights = save / "model.safetensors"
            weights.write_bytes(weights.read_bytes()[:100])
        else:
            (save / "trainer_state.json").unlink()
    assert finetune(topics, tiny_base, cut, options).metrics == whole.metrics


def test_overwriting_resumes_too_and_keeps_the_old_model_until_the_end(topics, tiny_base, tmp_path):
    finetune(topics, tiny_base, tmp_path, FinetuneOptions(epochs=1, **FAST), overwrite=True)
    old = (tmp_path / "model.safetensors").read_bytes()
    options = FinetuneOptions(epochs=2, patience=0, save_every=5, **FAST)
    with pytest.raises(Killed):
        finetune(topics, tiny_base, tmp_path, options, overwrite=True, callbacks=[KillAt(13)])
    assert (tmp_path / "model.safetensors").read_bytes() == old
    lines: list[str] = []
    finetune(topics, tiny_base, tmp_path, options, overwrite=True, report=lines.append)
    assert any("resuming at step" in line for line in lines)
    assert (tmp_path / "model.safetensors").read_bytes() != old


def test_a_run_that_never_saved_does_not_block_its_folder(topics, tiny_base, tmp_path):
    output = tmp_path / "model"
    with pytest.raises(Killed):
        finetune(topics, tiny_base, output, FinetuneOptions(epochs=2, **FAST), callbacks=[KillAt(1)])
    assert finetune(topics, tiny_base, output, FinetuneOptions(epochs=1, **FAST)).steps > 0


def test_an_unknown_tracker_is_named_and_leaves_no_trace(topics, tiny_base, tmp_path):
    with pytest.raises(OptionError, match="--report-to nothing_of_the_kind"):
        finetune(topics, tiny_base, tmp_path / "m", FinetuneOptions(report_to="nothing_of_the_kind", **FAST))
    assert not (tmp_path / "m").exists()


def test_same_seed_same_weights_and_another_seed_others(topics, tiny_base, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        finetune(topics, tiny_base, tmp_path / name, FinetuneOptions(epochs=1, **FAST | {"seed": seed}))
    a, b, c = (load_file(tmp_path / name / "model.safetensors")["classifier.weight"] for name in "abc")
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_an_output_that_holds_something_is_left_alone(topics, tiny_base, tmp_path):
    options = FinetuneOptions(epochs=1, **FAST)
    done = tmp_path / "done"
    finetune(topics, tiny_base, done, options)
    weights = (done / "model.safetensors").read_bytes()
    with pytest.raises(FolderError, match=r"done holds a finished model already.*--overwrite"):
        finetune(topics, tiny_base, done, options)
    assert (done / "model.safetensors").read_bytes() == weights
    (done / "mine.txt").write_text("keep")
    finetune(topics, tiny_base, done, FinetuneOptions(epochs=1, **FAST | {"seed": 9}), overwrite=True)
    assert (done / "model.safetensors").read_bytes() != weights
    assert (done / "mine.txt").read_text() == "keep"

    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("precious")
    with pytest.raises(FolderError, match="not empty"):
        finetune(topics, tiny_base, other, options)
    with pytest.raises(FolderError, match=r"thesis\.txt is a file"):
        finetune(topics, tiny_base, other / "thesis.txt", options)


def test_a_cut_run_with_other_options_is_refused(topics, tiny_base, tmp_path):
    output = tmp_path / "model"
    with pytest.raises(Killed):
        finetune(topics, tiny_base, output, FinetuneOptions(epochs=2, **FAST), callbacks=[KillAt(17)])
    with pytest.raises(FolderError, match="with other data or options"):
        finetune(topics, tiny_base, output, FinetuneOptions(epochs=3, **FAST))


@pytest.mark.parametrize("save_every", [500, 7])
def test_early_stopping_ends_a_run_that_does_not_get_better(save_every, topics, tiny_base, tmp_path):
    """Patience is in epochs, however often a run is evaluated, and begins behind warm-up."""
    still = FAST | {"learning_rate": 1e-12, "save_every": save_every}
    result = finetune(topics, tiny_base, tmp_path / "model", FinetuneOptions(epochs=20, patience=2, **still))
    steps_an_epoch = math.ceil(len(topics.train) / 8)
    assert result.steps == (2 + 2) * steps_an_epoch  # two of 20 epochs are warm-up


def test_a_head_is_taken_over_by_the_names_of_its_labels(topics, tiny_base, tmp_path):
    finetune(topics, tiny_base, tmp_path / "model", FinetuneOptions(epochs=1, **FAST))
    model, has_head = load_base(tmp_path / "model", topics)
    assert has_head
    head = output_layer(model)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    for names, kept, order in (
        (["stage", "money", "sport"], True, [1, 2, 0]),  # money, sport, stage in the table
        (["LABEL_0", "LABEL_1", "LABEL_2"], True, [0, 1, 2]),
        (["bad", "good", "neither"], False, None),
    ):
        config |= {"id2label": dict(enumerate(names)), "label2id": {name: n for n, name in enumerate(names)}}
        (tmp_path / "model" / "config.json").write_text(json.dumps(config))
        model, has_head = load_base(tmp_path / "model", topics)
        assert has_head == kept
        assert list(model.config.id2label.values()) == ["money", "sport", "stage"]
        other = output_layer(model)
        if order is None:
            assert not torch.isclose(other.weight, head.weight).any(dim=1).all()
            assert not other.bias.any()
        else:
            assert torch.equal(other.weight, head.weight[order])
            assert torch.equal(other.bias, head.bias[order])


def test_frozen_embeddings_stay_and_dropout_is_set(topics, tiny_base, tmp_path):
    finetune(
        topics, tiny_base, tmp_path / "model", FinetuneOptions(epochs=1, freeze_embeddings=True, dropout=0.25, **FAST)
    )
    before = load_file(tiny_base / "model.safetensors")["embeddings.word_embeddings.weight"]
    after = SqueezeBertForSequenceClassification.from_pretrained(tmp_path / "model")
    assert torch.equal(after.transformer.embeddings.word_embeddings.weight, before)
    assert after.config.hidden_dropout_prob == 0.25


def test_several_labels_get_thresholds(tiny_base, tmp_path):
    pairs = [
        ("goal", "sport", "bank", "money"),
        ("goal", "sport", "team", "sport"),
        ("film", "stage", "bank", "money"),
    ]
    rows = [{"text": f"{a} {b} {n}", "labels": sorted({x, y})} for n, (a, x, b, y) in enumerate(pairs * 20)]
    rows.append({"text": "the very good law", "labels": []})
    table = tmp_path / "several.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load_labelled(table, DataOptions(eval_fraction=0.3))
    assert data.task == "multi_label"
    result = finetune(data, tiny_base, tmp_path / "model", FinetuneOptions(epochs=8, **FAST))
    assert result.metrics["micro_f1"] > 0.8
    assert len(result.calibration.thresholds) == 3
    assert json.loads((tmp_path / "model" / "squeezebert.json").read_text())["thresholds"] == list(
        result.calibration.thresholds
    )


def test_a_number_is_learned_from_pairs(tiny_base, tmp_path):
    rows = [
        {"sentence1": f"good {n}", "sentence2": "good" if n % 2 else "bad", "score": n % 2 + 0.5} for n in range(60)
    ]
    table = tmp_path / "pairs.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load_labelled(table, DataOptions(eval_fraction=0.3))
    result = finetune(data, tiny_base, tmp_path / "model", FinetuneOptions(epochs=6, **FAST))
    assert set(result.metrics) == {"pearson", "spearman", "mean_squared_error"}
    assert result.metrics["pearson"] > 0.8
    assert result.calibration.temperature == 1


def test_numbers_of_any_size_are_learned_and_answered_in_their_unit(tiny_base, tmp_path):
    rows = [
        {"text": f"{word} {n}", "price": price + n}
        for n in range(30)
        for word, price in (("goal", 10_000.0), ("bank", 55_000.5), ("film", 100_000.0))
    ]
    table = tmp_path / "prices.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load_labelled(table, DataOptions(eval_fraction=0.3, label="price"))
    result = finetune(data, tiny_base, tmp_path / "model", FinetuneOptions(epochs=8, **FAST))
    assert result.metrics["pearson"] > 0.9
    prices = np.array([example.label for example in data.evaluation])
    assert result.metrics["mean_squared_error"] < 0.5 * prices.var()
    model = SqueezeBertForSequenceClassification.from_pretrained(tmp_path / "model")
    again = finetune(data, tmp_path / "model", tmp_path / "again", FinetuneOptions(epochs=1, **FAST), model=model)
    assert again.metrics["mean_squared_error"] < 0.5 * prices.var()  # a trained head is taken on in its unit


def test_a_metric_of_another_task_is_named(topics, tiny_base, tmp_path):
    with pytest.raises(OptionError, match=r"--metric pearson: a single_label task has accuracy"):
        finetune(topics, tiny_base, tmp_path, FinetuneOptions(metric="pearson"))


def test_a_base_that_is_not_there_or_not_bert_is_named(topics, tmp_path):
    import transformers

    with pytest.raises(FolderError, match=r"nowhere: no checkpoint there"):
        finetune(topics, tmp_path / "nowhere", tmp_path / "a", FinetuneOptions())
    assert not (tmp_path / "a").exists()  # so that the corrected command is not taken for another run
    transformers.DistilBertConfig().save_pretrained(tmp_path / "distil")
    with pytest.raises((OptionError, FolderError), match="distil"):
        finetune(topics, tmp_path / "distil", tmp_path / "b", FinetuneOptions())


def test_a_student_learns_from_its_teacher_alone(topics, tiny_base, tmp_path):
    """With alpha = 1 labels do not count: answers come closer to the teacher's, whatever they are."""
    finetune(topics, tiny_base, tmp_path / "teacher", FinetuneOptions(epochs=6, **FAST))
    teacher = SqueezeBertForSequenceClassification.from_pretrained(tmp_path / "teacher")
    student = squeeze(teacher, paper_shape(4))
    texts = [example.text for example in topics.evaluation]
    batch = AutoTokenizer.from_pretrained(tiny_base)(texts, padding=True, return_tensors="pt")

    def distance(model):
        with torch.no_grad():
            answers = [m.eval()(**batch).logits.softmax(-1) for m in (model, teacher)]
        return (answers[0] - answers[1]).abs().mean().item()

    before = distance(student)
    finetune(
        topics,
        tmp_path / "teacher",
        tmp_path / "student",
        FinetuneOptions(epochs=15, dropout=0.0, **FAST),
        model=student,
        teacher=teacher,
        distil=DistilOptions(alpha=1.0, hidden_weight=1.0),
    )
    student = SqueezeBertForSequenceClassification.from_pretrained(tmp_path / "student")
    assert student.config.groups("intermediate_groups", 0) == 4
    assert distance(student) < before / 2
