"""`squeezebert distil` as typed: students of `squeeze` and a trained teacher, what lands in the run, refusals."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from conftest import topic_rows
from dense_models import bert
from squeezebert.cli import main
from squeezebert.model import SqueezeBertForSequenceClassification
from squeezebert.training import trainer
from tiny_checkpoints import save_checkpoint, tiny_model

FAST = ("--epochs", "2", "--learning-rate", "2e-3", "--batch-size", "16", "--max-length", "24")
LONGER = ("--epochs", 12, "--learning-rate", "4e-3", "--batch-size", 8, "--patience", 0)


def run(verb, *arguments: object) -> int:
    return main([verb, *(str(argument) for argument in arguments)])


def refused(capsys, *arguments):
    """The error that a call ends with."""
    assert run("distil", *arguments) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    return last


@pytest.fixture(scope="module")
def made(tiny_base, tmp_path_factory):
    """A table, a text of it, a teacher trained on it, and students squeezed from encoder and teacher."""
    folder = tmp_path_factory.mktemp("distil")
    rows = topic_rows(120)
    (folder / "t.csv").write_text("message,folder\n" + "".join(f'"{text}",{topic}\n' for text, topic in rows))
    (folder / "t.txt").write_text("".join(f"{text}.\n" for text, _ in rows))
    table, text = folder / "t.csv", folder / "t.txt"
    told = (table, "--base", tiny_base, "--output", folder / "teacher", "--epochs", 6, "--learning-rate", "3e-3")
    assert run("train", *told, "--batch-size", 16) == 0
    for name, base in (("encoder", tiny_base), ("classifier", folder / "teacher")):
        told = ("--groups", 2, "--steps", 4, "--batch-tokens", 200, "--held-out", 4)
        assert run("squeeze", base, "--text", text, "--output", folder / name, *told) == 0
    return folder


def test_a_squeezed_encoder_starts_where_its_teacher_is(made, tmp_path, capsys):
    found = {}
    for name, told in (("refit", ()), ("plain", ("--no-refit",))):
        places = (made / "t.csv", "--teacher", made / "teacher", "--base", made / "encoder", "--output")
        still = ("--epochs", 0.01, "--learning-rate", 1e-9, "--max-length", 24)
        assert run("distil", *places, tmp_path / name, *still, *told) == 0
        said = capsys.readouterr().err
        assert ("fitting the student's matrices" in said) == (name == "refit")
        found[name] = json.loads((tmp_path / name / "squeezebert.json").read_text())["metrics"]["accuracy"]
    teacher = json.loads((made / "teacher" / "squeezebert.json").read_text())["metrics"]["accuracy"]
    assert found["refit"] > found["plain"] + 0.1
    assert found["refit"] > teacher - 0.2


@pytest.mark.parametrize("student", ["encoder", "classifier"])
def test_a_student_of_either_kind_learns_and_can_be_exported(student, made, tmp_path):
    told = (made / "t.csv", "--teacher", made / "teacher", "--base", made / student, "--output", tmp_path / "out")
    assert run("distil", *told, *FAST, *LONGER, "--hidden-weight", 1) == 0
    record = json.loads((tmp_path / "out" / "squeezebert.json").read_text())
    assert record["metrics"]["accuracy"] > 0.6
    assert "squeezebert distil" in (tmp_path / "out" / "README.md").read_text()
    model = SqueezeBertForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.q_groups == 2
    exported = ("--output", tmp_path / "exported", "--precision", "fp32", "--force")
    assert run("export", tmp_path / "out", *exported) == 0


def test_options_land_in_the_loss(made, tmp_path, monkeypatch):
    """Training's loss is alpha * soft + (1 - alpha) * hard + hidden_weight * hidden, at the given temperature."""
    seen = {"soft": [], "hidden": [], "losses": []}
    soft_loss, hidden_loss = trainer.soft_loss, trainer.hidden_loss

    def soft(student, teacher, task, temperature):
        seen["soft"].append((temperature, task, float(soft_loss(student, teacher, task, temperature).detach())))
        return soft_loss(student, teacher, task, temperature)

    def hidden(*args):
        seen["hidden"].append(float(hidden_loss(*args).detach()))
        return hidden_loss(*args)

    compute = trainer.DistilTrainer.compute_loss

    def compute_loss(self, model, inputs, *args, **kwargs):
        loss = compute(self, model, inputs, *args, **kwargs)
        if model.training:
            with torch.random.fork_rng():
                seen["losses"].append((self.distil, float(loss.detach())))
        return loss

    monkeypatch.setattr(trainer, "soft_loss", soft)
    monkeypatch.setattr(trainer, "hidden_loss", hidden)
    monkeypatch.setattr(trainer.DistilTrainer, "compute_loss", compute_loss)
    told = (made / "t.csv", "--teacher", made / "teacher", "--base", made / "classifier", "--output", tmp_path / "out")
    assert run("distil", *told, *FAST, "--alpha", 1, "--temperature", 3, "--hidden-weight", 0.25) == 0
    assert {(temperature, task) for temperature, task, _ in seen["soft"]} == {(3.0, "single_label")}
    (options, _), *_ = seen["losses"]
    assert (options.alpha, options.temperature, options.hidden_weight) == (1.0, 3.0, 0.25)
    for (_, loss), (_, _, soft_part), hidden_part in zip(seen["losses"], seen["soft"], seen["hidden"], strict=True):
        assert loss == pytest.approx(soft_part + 0.25 * hidden_part, rel=1e-5)


def test_a_cut_off_run_of_another_teacher_is_not_continued(made, tmp_path, monkeypatch, capsys):
    model = SqueezeBertForSequenceClassification.from_pretrained(made / "teacher")
    with torch.no_grad():
        model.classifier.bias += 0.01
    other = save_checkpoint(tmp_path / "other", model)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (other / name).write_bytes((made / "teacher" / name).read_bytes())
    told = (made / "t.csv", "--base", made / "encoder", "--output", tmp_path / "out", *FAST, "--save-every", 3)
    calls = []

    class Killed(BaseException):
        pass

    save = trainer.DistilTrainer._save_checkpoint

    def save_once(self, *args, **kwargs):
        save(self, *args, **kwargs)
        calls.append(1)
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(trainer.DistilTrainer, "_save_checkpoint", save_once)
        run("distil", *told, "--teacher", made / "teacher")
    capsys.readouterr()
    assert "holds a run that was cut off, with other data or options" in refused(capsys, *told, "--teacher", other)
    assert run("distil", *told, "--teacher", made / "teacher") == 0
    assert "resuming at step" in capsys.readouterr().err


def test_what_does_not_go_together_is_explained(made, tiny_base, tmp_path, capsys):
    table, output = made / "t.csv", tmp_path / "out"

    def error(teacher=made / "teacher", base=made / "encoder", *options, to=output):
        return refused(capsys, table, "--teacher", teacher, "--base", base, "--output", to, *FAST, *options)

    assert "it has no head for 3 outputs: train it on this table first" in error(teacher=tiny_base)
    other = tmp_path / "labels"
    model = SqueezeBertForSequenceClassification.from_pretrained(made / "teacher")
    model.config.id2label = {0: "x", 1: "y", 2: "z"}
    model.save_pretrained(other)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (other / name).write_bytes((made / "teacher" / name).read_bytes())
    assert "it was trained on the labels x, y, z, not on money, sport, stage" in error(teacher=other)
    words = save_checkpoint(tmp_path / "words", tiny_model(num_labels=3))
    assert "its vocabulary is not the student's" in error(teacher=words)
    line = error(teacher=tmp_path / "nowhere")
    assert "nowhere: no checkpoint there. --teacher takes a folder" in line
    line = error(base=tmp_path / "nowhere")
    assert "nowhere: no checkpoint there. --base takes a folder" in line
    assert "that is the --teacher itself" in error(to=made / "teacher")
    assert "that is the --base itself" in error(to=made / "encoder")
    roberta = bert(tmp_path / "roberta", "RobertaModel")
    assert "model type 'roberta' is not" in error(base=roberta)
    # A student of another width and more positions than the teacher
    narrow = tiny_model(num_labels=3, hidden_size=16, num_attention_heads=2, vocab_size=200)
    narrow.save_pretrained(tmp_path / "narrow")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "narrow" / name).write_bytes((made / "teacher" / name).read_bytes())
    line = error(made / "teacher", tmp_path / "narrow", "--hidden-weight", 1)
    assert "--hidden-weight 1: the teacher has 32 channels and the student 16" in line
    line = error(made / "teacher", tmp_path / "narrow", "--max-length", 64)
    assert "--max-length 64: the teacher reads 48 tokens at most" in line
    assert "alpha 2.0: expected a number from 0 to 1" in error(made / "teacher", made / "encoder", "--alpha", 2)
    assert not output.exists()


def test_a_teacher_that_changed_after_a_kill_is_refused(made, tmp_path, capsys, monkeypatch):
    """Its path is the same, its weights are not: going on would make a student of two teachers."""
    import shutil

    from safetensors.torch import load_file, save_file

    from squeezebert.training.finetune import ClassifierTrainer

    teacher = shutil.copytree(made / "teacher", tmp_path / "teacher")
    told = (made / "t.csv", "--teacher", teacher, "--base", made / "encoder", "--output", tmp_path / "out", *FAST)

    def cut_off(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ClassifierTrainer, "predict", cut_off)
        assert run("distil", *told) == 130
    weights = load_file(teacher / "model.safetensors")
    save_file({**weights, "classifier.weight": -weights["classifier.weight"]}, teacher / "model.safetensors")
    assert "holds a run that was cut off, with other data or options" in refused(capsys, *told)
    save_file(weights, teacher / "model.safetensors", metadata={"format": "pt"})
    assert run("distil", *told) == 0


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(made, tmp_path, capsys):
    import transformers

    small = tmp_path / "small"
    model = transformers.BertModel.from_pretrained(bert(tmp_path / "bert"))
    model.resize_token_embeddings(30)
    model.save_pretrained(small)
    transformers.AutoTokenizer.from_pretrained(made / "teacher").save_pretrained(small)
    told = (made / "t.csv", "--teacher", made / "teacher", "--base", small, "--output", tmp_path / "out", *FAST)
    assert "tokens, the model embeddings for 30: they do not belong together" in refused(capsys, *told)


def test_another_rate_can_be_tried_after_one_that_diverged(made, tmp_path, capsys):
    told = (made / "t.csv", "--teacher", made / "teacher", "--base", made / "encoder", "--output", tmp_path / "out")
    assert "training diverged" in refused(capsys, *told, "--epochs", 1, "--learning-rate", 1e30)
    assert run("distil", *told, "--epochs", 0.5, "--max-length", 24) == 0


# --- more texts, without labels ------------------------------------------------------------------------------


def test_texts_without_labels_are_learned_from_the_teacher(made, tmp_path, capsys):
    """A student that sees few labels and many texts agrees with its teacher more than one that sees few."""
    rows = topic_rows(120)
    few = tmp_path / "few.csv"
    few.write_text("message,folder\n" + "".join(f'"{text}",{topic}\n' for text, topic in rows[:24]))
    held_out = tmp_path / "eval.csv"
    held_out.write_text("message,folder\n" + "".join(f'"{text}",{topic}\n' for text, topic in rows[90:]))
    (tmp_path / "more.txt").write_text("".join(f"{text}\n" for text, _ in rows[24:]))
    told = (few, "--eval", held_out, "--teacher", made / "teacher", "--base", made / "encoder", *FAST, *LONGER)
    errors = {}
    for name, more in (("few", ()), ("more", ("--unlabelled", tmp_path / "more.txt", "--cache-teacher"))):
        assert run("distil", *told, "--output", tmp_path / name, "--no-refit", "--seed", 5, *more) == 0
        said = capsys.readouterr().err
        assert ("66 without labels" in said) == (name == "more")  # the 30 that are evaluated on are left out
        student = SqueezeBertForSequenceClassification.from_pretrained(tmp_path / name).eval()
        teacher = SqueezeBertForSequenceClassification.from_pretrained(made / "teacher").eval()
        tokenizer = AutoTokenizer.from_pretrained(made / "teacher")
        batch = tokenizer([text for text, _ in rows[90:]], padding=True, return_tensors="pt")
        with torch.no_grad():
            answers = [model(**batch).logits.log_softmax(-1) for model in (student, teacher)]
        errors[name] = float((answers[1].exp() * (answers[1] - answers[0])).sum(-1).mean())
    assert errors["more"] < 0.7 * errors["few"]


def test_texts_without_labels_have_to_be_of_the_tasks_kind(made, tmp_path, capsys):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("sentence1,sentence2\na goal,a team\n")
    told = (made / "t.csv", "--teacher", made / "teacher", "--base", made / "encoder", "--output", tmp_path / "out")
    assert "the task is of single texts, and these are pairs" in refused(capsys, *told, "--unlabelled", pairs)
    assert "no such file" in refused(capsys, *told, "--unlabelled", tmp_path / "nothing.txt")


def test_bad_rows_of_texts_without_labels_are_skipped_where_that_is_asked_for(made, tmp_path, capsys):
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"a goal\n" + "die Tür\n".encode("latin-1") + b"a team\n")
    told = (made / "t.csv", "--teacher", made / "teacher", "--base", made / "encoder", "--output", tmp_path / "out")
    assert "--skip-bad-rows" in refused(capsys, *told, *FAST, "--unlabelled", latin)
    assert run("distil", *told, *FAST, "--unlabelled", latin, "--skip-bad-rows") == 0
    said = capsys.readouterr().err
    assert "2 without labels" in said
    assert "skipped 1 rows of" in said


def test_columns_that_were_named_are_read_of_texts_without_labels_too(made, tmp_path, capsys):
    more = tmp_path / "more.csv"
    more.write_text("id,message\n1,a goal\n2,a team\n")
    told = (made / "t.csv", "--teacher", made / "teacher", "--base", made / "encoder", "--output", tmp_path / "out")
    assert run("distil", *told, *FAST, "--text", "message", "--label", "folder", "--unlabelled", more) == 0
    assert "2 without labels" in capsys.readouterr().err


def test_a_student_that_is_not_fitted_to_its_teacher_is_told_why(made, tiny_base, tmp_path, capsys):
    told = ("distil", made / "t.csv", "--teacher", made / "teacher", *FAST)
    assert run(*told, "--base", tiny_base, "--output", tmp_path / "dense") == 0
    assert "not fitted to the teacher: it is dense" in capsys.readouterr().err
    (tmp_path / "shape.yaml").write_text("kept_heads: 2\nq_groups: 2\n")
    (tmp_path / "text.txt").write_text("a goal\na team\n" * 30)
    squeeze = ("squeeze", tiny_base, "--text", tmp_path / "text.txt", "--output", tmp_path / "narrow", "--no-heal")
    assert run(*squeeze, "--shape", tmp_path / "shape.yaml") == 0
    assert run(*told, "--base", tmp_path / "narrow", "--output", tmp_path / "student") == 0
    assert "it has fewer heads or inner channels" in capsys.readouterr().err


def test_a_model_with_narrower_words_learns_from_the_whole_one(made, tmp_path, capsys):
    teacher, narrow = made / "teacher", tmp_path / "narrow"
    assert run("prune", teacher, "--text", made / "t.csv", "--least", 0, "--word-rank", 4, "--output", narrow) == 0
    told = ("--teacher", teacher, "--base", narrow, "--output", tmp_path / "out", *FAST)
    assert run("distil", made / "t.csv", *told) == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (narrow, tmp_path / "out"))
    name = "transformer.embeddings.word_projection.weight"
    assert before[name].shape == after[name].shape
    assert not torch.equal(before[name], after[name])
