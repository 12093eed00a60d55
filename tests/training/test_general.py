"""General distillation: what a run leaves, that it resumes, and what it refuses."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoTokenizer, TrainerCallback

from squeezebert.files.errors import DivergedError, FolderError, OptionError
from squeezebert.model import SqueezeBertConfig, SqueezeBertForMaskedLM, SqueezeBertModel
from squeezebert.training import general
from squeezebert.training.general import LOG, RECORD, distil_general
from squeezebert.training.losses import hidden_loss
from squeezebert.training.options import GeneralDistilOptions
from squeezebert.training.runs import PROGRESS_FOLDER
from squeezebert.training.stepping import MILESTONES
from squeezebert.training.teacher import load_teacher
from students import new_student, small_corpus

FAST = {"steps": 30, "learning_rate": 3e-3, "batch_tokens": 200, "held_out": 12, "save_every": 8, "seed": 3}


@pytest.fixture(scope="module")
def corpus(tiny_tokenizer, tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("corpus"), tiny_tokenizer)


@pytest.fixture
def teacher(tiny_base):
    return load_teacher(tiny_base)


def weights(folder):
    return load_file(folder / "model.safetensors")


def assert_same_weights(one, other):
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


class Killed(Exception):
    pass


class KillAt(TrainerCallback):
    """Ends the process at a step, as far as a test can."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed


def test_a_run_learns_and_leaves_a_complete_folder(corpus, teacher, tmp_path):
    student = new_student(teacher, hidden_dropout_prob=0.1)
    pooler = student.pooler.dense.weight.clone()
    output = tmp_path / "student"
    lines: list[str] = []
    options = GeneralDistilOptions(**FAST | {"steps": 60, "relation_weight": 0.5, "relation_heads": 4})
    result = distil_general(student, teacher, corpus, output, options, command="squeezebert x", report=lines.append)

    rows = [json.loads(line) for line in (output / LOG).read_text().splitlines()]
    assert [row["step"] for row in rows] == [8, 16, 24, 32, 40, 48, 56, 60]
    assert rows[-1] == result.held_out
    assert rows[-1]["held_out_loss"] < 0.7 * rows[0]["held_out_loss"]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert len(rows[-1]["hidden_errors"]) == 2
    assert rows[-1]["held_out_hidden"] == pytest.approx(np.mean(rows[-1]["hidden_errors"]))
    expected = rows[-1]["held_out_hidden"] + 0.5 * rows[-1]["held_out_relation"]
    assert rows[-1]["held_out_loss"] == pytest.approx(expected)
    assert result.seconds > rows[0]["seconds"] > 0
    assert 60 * 150 < result.tokens <= 60 * 200
    record = json.loads((output / RECORD).read_text())
    assert record["command"] == "squeezebert x"
    assert record["options"]["relation_weight"] == 0.5
    assert (record["steps"], record["tokens"], record["seconds"]) == (60, result.tokens, result.seconds)
    assert record["teacher"] == teacher.config.name_or_path
    assert not (output / PROGRESS_FOLDER).exists()
    assert any("held-out loss" in line for line in lines)

    # What was written is what was measured, and the student is as it was but for its weights
    kept = SqueezeBertModel.from_pretrained(output)
    batch = AutoTokenizer.from_pretrained(output)("the goal of the match.", return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(kept(**batch)[0], student.eval()(**batch)[0])
    assert kept.config.hidden_dropout_prob == 0.1
    assert all(p.requires_grad for p in student.parameters())
    assert student.encoder.layers[0].output.dropout.p == 0.1
    assert not student.encoder.layers[1].attention.query._forward_hooks
    assert torch.equal(kept.embeddings.word_embeddings.weight, teacher.embeddings.word_embeddings.weight)
    assert torch.equal(kept.pooler.dense.weight, pooler)


def test_sequences_that_are_given_are_held_out():
    options = GeneralDistilOptions(**FAST)
    training, held_out = general._split(6, options, np.array([4, 1, 4]))
    assert (training.tolist(), held_out.tolist()) == ([0, 2, 3, 5], [1, 4])
    for none in ([], range(6)):
        with pytest.raises(OptionError, match="it takes one to learn from and one to measure on"):
            general._split(6, options, np.array(none, dtype=int))


def test_the_error_is_that_of_the_held_out_sequences(corpus, teacher, tmp_path):
    """With a learning rate of next to nothing, the row is what a plain loop over the sequences finds."""
    student = new_student(teacher)
    options = GeneralDistilOptions(**FAST | {"steps": 1, "learning_rate": 1e-12})
    row = distil_general(student, teacher, corpus, tmp_path / "s", options).held_out
    _, held_out = general._split(len(corpus), options)
    assert len(held_out) == 12
    total, tokens = 0.0, 0
    for batch in general._held_out_batches(corpus, held_out, options):
        inputs = {name: torch.from_numpy(value) for name, value in corpus.batch(batch).items()}
        with torch.no_grad():
            states = [model.eval()(**inputs, output_hidden_states=True).hidden_states for model in (student, teacher)]
        count = int(inputs["attention_mask"].sum())
        total += count * hidden_loss(*(layers[1:] for layers in states), inputs["attention_mask"]).item()
        tokens += count
    assert row["held_out_loss"] == pytest.approx(total / tokens, rel=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"precision": "bf16", "dropout": 0.1, "schedule": "cosine", "relation_weight": 1.0, "relation_heads": 2},
        {"cache_teacher": True, "steps": 60},
    ],
    ids=["plain", "bf16", "cached"],
)
def test_a_killed_run_resumes_to_the_same_weights(changes, corpus, teacher, tmp_path):
    options = GeneralDistilOptions(**FAST | {"milestones": (0.3, 0.5)} | changes)
    steps, student = options.steps, new_student(teacher)
    whole = distil_general(copy.deepcopy(student), teacher, corpus, tmp_path / "whole", options)
    cut = tmp_path / "cut"
    for step in (3, 19, steps - 1):  # before the first save, and after the second, and close to the end
        with pytest.raises(Killed):
            distil_general(copy.deepcopy(student), teacher, corpus, cut, options, callbacks=[KillAt(step)])
    assert len(list((cut / PROGRESS_FOLDER).glob("checkpoint-*"))) == 2
    with (cut / LOG).open("a") as stream:
        stream.write('{"step": 99, "cut off by a kil')
    lines: list[str] = []
    resumed = distil_general(copy.deepcopy(student), teacher, corpus, cut, options, report=lines.append)
    assert any("resuming at step" in line for line in lines)
    assert_same_weights(tmp_path / "whole", cut)
    assert resumed.tokens == whole.tokens

    def rows(folder):
        return [{**json.loads(line), "seconds": None} for line in (folder / LOG).read_text().splitlines()]

    assert rows(cut) == rows(tmp_path / "whole")
    assert [row["step"] for row in rows(cut)] == sorted({*range(8, steps, 8), round(0.3 * steps), steps // 2, steps})
    for step in (round(0.3 * steps), steps // 2):
        name = f"step-{step}"
        assert_same_weights(tmp_path / "whole" / MILESTONES / name, cut / MILESTONES / name)
        AutoTokenizer.from_pretrained(cut / MILESTONES / name)


def test_a_run_killed_after_its_last_save_is_only_written(corpus, teacher, tmp_path, monkeypatch):
    options = GeneralDistilOptions(**FAST)
    student = new_student(teacher)
    whole = distil_general(copy.deepcopy(student), teacher, corpus, tmp_path / "whole", options)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(general, "save_model", lambda *args: (_ for _ in ()).throw(Killed))
        distil_general(copy.deepcopy(student), teacher, corpus, tmp_path / "cut", options)
    assert not (tmp_path / "cut" / RECORD).exists()
    again = distil_general(copy.deepcopy(student), teacher, corpus, tmp_path / "cut", options)
    assert again.held_out["held_out_loss"] == whole.held_out["held_out_loss"]
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")


def test_hours_become_steps_once_and_for_all(corpus, teacher, tmp_path, monkeypatch):
    asked = []

    def speed(*args):
        asked.append(args)
        return 0.5 * len(asked)

    monkeypatch.setattr(general, "step_seconds", speed)
    options = GeneralDistilOptions(**FAST | {"hours": 10 / 3600})
    student = new_student(teacher)
    with pytest.raises(Killed):
        distil_general(copy.deepcopy(student), teacher, corpus, tmp_path / "s", options, callbacks=[KillAt(9)])
    result = distil_general(copy.deepcopy(student), teacher, corpus, tmp_path / "s", options)
    assert len(asked) == 1  # not measured again at the resume
    assert result.steps == 20
    told = distil_general(student, teacher, corpus, tmp_path / "t", GeneralDistilOptions(**FAST | {"steps": 20}))
    assert told.held_out["held_out_loss"] == result.held_out["held_out_loss"]
    assert_same_weights(tmp_path / "s", tmp_path / "t")


def test_measuring_the_speed_leaves_the_student_alone(corpus, teacher, tmp_path):
    student = new_student(teacher)
    before = copy.deepcopy(student.state_dict())
    options = GeneralDistilOptions(**FAST | {"relation_weight": 1.0, "relation_heads": 4})
    batches = general.Batches(corpus.lengths, np.arange(len(corpus)), 200, 0)
    assert 0 < general.step_seconds(student, teacher, corpus, batches, options) < 5
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert not student.encoder.layers[1].attention.query._forward_hooks


def test_a_cached_run_comes_close_to_one_without(corpus, teacher, tmp_path):
    student = new_student(teacher)
    losses = []
    for cached in (False, True):
        lines: list[str] = []
        options = GeneralDistilOptions(**FAST | {"steps": 60, "cache_teacher": cached})
        output = tmp_path / str(cached)
        result = distil_general(copy.deepcopy(student), teacher, corpus, output, options, report=lines.append)
        losses.append(result.held_out["held_out_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
    assert any("read from the cache" in line for line in lines)


def test_a_teacher_of_another_width_and_architecture_gives_relations(corpus, teacher, tmp_path):
    torch.manual_seed(0)
    config = transformers.DistilBertConfig(
        vocab_size=teacher.config.vocab_size, dim=24, n_layers=3, n_heads=2, hidden_dim=24, initializer_range=0.3
    )
    distil = transformers.DistilBertModel(config)
    options = GeneralDistilOptions(
        **FAST
        | {"steps": 120, "hidden_weight": 0, "relation_weight": 1.0, "relation_heads": 4, "freeze_embeddings": False}
    )
    result = distil_general(new_student(teacher), distil, corpus, tmp_path / "s", options)
    rows = [json.loads(line) for line in (tmp_path / "s" / LOG).read_text().splitlines()]
    assert rows[-1]["held_out_loss"] < 0.8 * rows[0]["held_out_loss"]
    assert result.held_out["hidden_errors"] == []


def test_what_a_student_is_trained_with_is_undone(teacher):
    student = new_student(teacher)
    told = GeneralDistilOptions(precision="bf16", hidden_weight=0, relation_weight=1.0, dropout=0.25)
    with general._as_trained(student, told):
        assert student.encoder.layers[0].output.dropout.p == 0.25
        trained = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
        # relations of the last layer reach everything before them, and nothing behind
        assert "encoder.layers.0.output.conv1d.weight" in trained
        assert "encoder.layers.1.attention.value.weight" in trained
        assert not any(name.startswith(("encoder.layers.1.output", "embeddings", "pooler")) for name in trained)
    assert student.encoder.layers[0].output.dropout.p == 0.1
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_answers_of_a_masked_language_model_are_learned(corpus, teacher, tmp_path):
    torch.manual_seed(0)
    models = [
        SqueezeBertForMaskedLM(
            SqueezeBertConfig(**{**new_student(teacher).config.to_dict(), "q_groups": groups, "model_type": None})
        )
        for groups in (1, 2)
    ]
    options = GeneralDistilOptions(**FAST | {"hidden_weight": 0, "logit_weight": 1.0, "freeze_embeddings": False})
    distil_general(models[1], models[0].eval(), corpus, tmp_path / "s", options)
    rows = [json.loads(line) for line in (tmp_path / "s" / LOG).read_text().splitlines()]
    assert rows[-1]["held_out_logits"] < 0.5 * rows[0]["held_out_logits"]


# --- refusals -----------------------------------------------------------------------------------------------


def test_models_and_corpora_that_do_not_fit_are_refused(corpus, teacher, tmp_path):
    student, output = new_student(teacher), tmp_path / "s"

    def refused(words, student=student, teacher=teacher, **options):
        with pytest.raises(OptionError, match=words):
            distil_general(student, teacher, corpus, output, GeneralDistilOptions(**FAST | options))
        assert not output.exists()

    refused("do not belong together", student=new_student(teacher, vocab_size=20))
    refused(
        "32 tokens, and SqueezeBertModel has 16 positions", student=new_student(teacher, max_position_embeddings=16)
    )
    refused("24 and 32 channels cannot be compared", student=new_student(teacher, hidden_size=24))
    refused("--relation-heads 5: does not divide 32", relation_weight=1.0, relation_heads=5)
    refused("last layer has no attention", student=new_student(teacher, kept_heads=[4, 0]), relation_weight=1.0)
    refused("--logit-weight: SqueezeBertModel has no head", logit_weight=1.0)
    refused("--cache-gigabytes is 1e-06", cache_teacher=True, cache_gigabytes=1e-6)


def test_a_run_with_other_options_or_a_finished_one_is_left_alone(corpus, teacher, tmp_path):
    student, output = new_student(teacher), tmp_path / "s"
    options = GeneralDistilOptions(**FAST)
    with pytest.raises(Killed):
        distil_general(copy.deepcopy(student), teacher, corpus, output, options, callbacks=[KillAt(9)])
    with pytest.raises(FolderError, match="with other data or options"):
        distil_general(student, teacher, corpus, output, GeneralDistilOptions(**FAST | {"steps": 31}))
    other = new_student(teacher)
    with torch.no_grad():
        other.encoder.layers[0].attention.query.bias += 1
    with pytest.raises(FolderError, match="with other data or options"):
        distil_general(other, teacher, corpus, output, options)
    distil_general(copy.deepcopy(student), teacher, corpus, output, options)
    with pytest.raises(FolderError, match="holds a finished model already"):
        distil_general(student, teacher, corpus, output, options)


def test_a_run_that_diverges_says_so(corpus, teacher, tmp_path):
    student = new_student(teacher)
    with torch.no_grad():
        student.encoder.layers[0].output.conv1d.bias[0] = float("nan")
    with pytest.raises(DivergedError, match="training diverged"):
        distil_general(student, teacher, corpus, tmp_path / "s", GeneralDistilOptions(**FAST))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "--steps 0: expected more than 0"),
        ({"hours": 0}, "--hours 0"),
        ({"batch_tokens": -1}, "--batch-tokens -1"),
        ({"dropout": 1.0}, "--dropout 1.0"),
        ({"hidden_weight": -1}, "--hidden-weight -1"),
        ({"hidden_weight": 0}, "nothing is left to learn"),
        ({"milestones": (0.5, 1.5)}, r"--milestones \[0.5, 1.5\]"),
        ({"cache_teacher": True, "relation_weight": 1.0}, "--cache-teacher"),
    ],
)
def test_impossible_options_are_named(options, words):
    with pytest.raises(OptionError, match=words):
        GeneralDistilOptions(**options)
