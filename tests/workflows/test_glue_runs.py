"""GLUE on tiny models: grid and seeds, distillation, another architecture, report, measurements and submission."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import transformers
from sklearn.metrics import accuracy_score, matthews_corrcoef

from conftest import topic_rows
from squeezebert.cli import main
from squeezebert.data.examples import encode_targets
from squeezebert.data.glue import GLUE, glue_metrics, load_glue
from squeezebert.data.glue.submission import FILES, read_submission, write_submission
from squeezebert.data.labels import natural_order
from squeezebert.files.errors import FolderError, OptionError, TableError, WorkerError
from squeezebert.training.classifiers import label_order, load_task_teacher, load_tokenizer
from squeezebert.training.options import DistilOptions, FinetuneOptions
from squeezebert.workflows.glue.identity import checkpoint_digest
from squeezebert.workflows.glue.job import spellings
from squeezebert.workflows.glue.options import GlueRunOptions, GlueSubmitOptions
from squeezebert.workflows.glue.plan import best_model, chosen_tasks, named_models
from squeezebert.workflows.glue.report import published_table
from squeezebert.workflows.glue.results import Cell, all_results, read_predictions, summarise, write_result
from squeezebert.workflows.glue.run import run_glue
from squeezebert.workflows.glue.submit import submit

ROWS = {"train": 96, "dev": 20, "test": 6}
TOPICS = ("sport", "money", "stage")
FAST = FinetuneOptions(learning_rate=2e-3, epochs=6, batch_size=8, max_length=24, patience=0)


def write_task(folder: Path, name: str) -> None:
    """A task whose label is the topic of its text, or whether two texts have one topic."""
    task = GLUE[name]
    texts = topic_rows(200)
    place = 0
    for split in task.splits:
        texts_of = task.texts if task.has_header else ("sentence",)
        header = ["index", *texts_of, *([task.label] if split.labelled else [])]
        lines = ["\t".join(header)] if task.has_header or not split.labelled else []
        for row in range(ROWS[split.name.split("_")[0].replace("diagnostic", "test")]):
            (one, topic), (two, other) = texts[place % 200], texts[(place + 6 + place // 3 % 3) % 200]
            place += 1
            if len(task.texts) == 1:
                label = task.words[topic == "sport"]
            elif task.words:
                label = task.words[(TOPICS.index(topic) - TOPICS.index(other)) % len(task.words)]
            else:
                label = f"{5.0 * (topic == other):.3f}"
            cells = [str(row), *[one, two][: len(task.texts)]]
            if not task.has_header and split.labelled:
                cells = ["source", label, "", one]
            elif split.labelled:
                cells.append(label)
            lines.append("\t".join(cells))
        file = folder / ("AX" if split.name == "diagnostic" else name) / f"{split.name}.tsv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(line + "\n" for line in lines))


@pytest.fixture(scope="module")
def glue(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("glue")
    for name in ("CoLA", "STS-B", "MNLI"):
        write_task(folder, name)
    return folder


@pytest.fixture(scope="module")
def distilbert(tiny_tokenizer, tmp_path_factory) -> Path:
    """A checkpoint of an architecture that is not ours."""
    folder = tmp_path_factory.mktemp("distilbert")
    transformers.set_seed(0)
    config = transformers.DistilBertConfig(
        vocab_size=len(tiny_tokenizer), dim=32, n_layers=1, n_heads=4, hidden_dim=64, max_position_embeddings=48
    )
    transformers.DistilBertModel(config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


def run(places: GlueRunOptions, options: FinetuneOptions = FAST, distil: DistilOptions | None = None):
    lines: list[str] = []
    if places.learning_rates:  # which rule
        options = replace(options, learning_rate=FinetuneOptions().learning_rate)
    found = run_glue(places, options, distil or DistilOptions(), "squeezebert glue run ...", lines.append)
    return found, lines


@pytest.fixture(scope="module")
def results(glue, tiny_base, distilbert, tmp_path_factory):
    """Two models on two tasks, two learning rates and two seeds."""
    output = tmp_path_factory.mktemp("results")
    places = GlueRunOptions(
        model=[f"tiny={tiny_base}", f"other={distilbert}"],
        output=str(output),
        data_dir=str(glue),
        tasks=("STS-B,cola",),
        learning_rates=(1e-6, 2e-3),
        seeds=(1, 2),
    )
    found, lines = run(places)
    return places, found, lines


def test_the_grid_chooses_a_rate_and_every_seed_runs_with_it(results):
    places, found, lines = results
    output = Path(places.output)
    runs = {str(folder.relative_to(output)): result for folder, result in all_results(output)}
    assert len(runs) == 12  # of each model and task: two rates, and the better one with the second seed
    by_task = {(r.model, r.task): r for r in summarise(output)}
    assert list(by_task) == [("other", "CoLA"), ("other", "STS-B"), ("tiny", "CoLA"), ("tiny", "STS-B")]
    for result in by_task.values():
        grid = [run for run in result.grid if run["seed"] == 1]
        best = max(grid, key=lambda run: (run["score"], -run["learning_rate"]))
        assert result.chosen["learning_rate"] == best["learning_rate"]
        assert len(result.scores) == 2
        assert result.scores[0] == best["score"]
        assert result.subsets == ("train", "dev")
        assert result.test_subsets == ("test",)
    assert by_task["tiny", "CoLA"].median > 40
    assert len(found) == 4
    for run in runs.values():
        assert [one["epoch"] for one in run["course"]] == list(range(1, len(run["course"]) + 1))
        if run["task"] == "CoLA":  # (similarities outside 0 to 5 are clipped in the answers)
            best = max(one["matthews"] for one in run["course"])
            assert 100 * best == pytest.approx(run["score"], abs=1e-3)
    assert "(subset: train, dev) (test rows: a subset, test)" in found[0]
    assert all("(subset)" in line for line in lines if "; rate" not in line and ": score " in line)
    assert any("about" in line and "left" in line for line in lines)
    assert any("a subset score" in line for line in lines)
    assert not any("MNLI" in line for line in lines)


def test_metrics_are_those_of_the_saved_predictions(results, glue):
    output = Path(results[0].output)
    for folder, found in all_results(output):
        data = load_glue(found["task"], glue, test=True)
        answers = read_predictions(folder)
        assert {name: len(values) for name, values in answers.items()} == {"dev": 20, "test": 6}
        targets = [example.label for example in data.dev["dev"]]
        table = found["tables"]["dev"]
        if found["task"] == "CoLA":
            chosen = [data.labelled.labels[place] for place in answers["dev"].argmax(1)]
            assert table["matthews"] == pytest.approx(matthews_corrcoef(targets, chosen))
            assert found["score"] == pytest.approx(100 * table["matthews"])
        else:
            assert table["pearson"] == pytest.approx(np.corrcoef(targets, answers["dev"])[0, 1], abs=1e-5)
            assert found["score"] == pytest.approx(50 * (table["pearson"] + table["spearman"]))


def test_only_the_best_run_keeps_its_weights(results):
    output = Path(results[0].output)
    for result in summarise(output):
        kept = [path.parents[1].name for path in result.best.parent.glob("*/model/config.json")]
        assert kept == [result.best.name]


def test_what_is_done_is_not_run_again_and_other_options_are_refused(results):
    places = results[0]
    before = {folder: (folder / "result.json").stat().st_mtime_ns for folder, _ in all_results(Path(places.output))}
    found, lines = run(places)
    assert found == results[1]
    assert not any("run 1 of" in line for line in lines)
    assert before == {folder: (folder / "result.json").stat().st_mtime_ns for folder in before}
    with pytest.raises(FolderError, match=r"result of other options \(batch_size 8, now 4\).*another --name"):
        run(places, FinetuneOptions(learning_rate=2e-3, epochs=6, batch_size=4, max_length=24, patience=0))


def test_a_run_killed_while_it_trains_ends_as_one_that_was_not(glue, tiny_base, results, tmp_path, monkeypatch):
    from squeezebert.training.finetune import ClassifierTrainer

    places = GlueRunOptions(
        model=[f"tiny={tiny_base}"], output=str(tmp_path), data_dir=str(glue), tasks=("CoLA",), learning_rates=(2e-3,)
    )
    step, steps = ClassifierTrainer.training_step, []

    def training_step(self, *arguments, **options):
        steps.append(1)
        if len(steps) == 30:  # of 72; saved after each 12
            raise KeyboardInterrupt
        return step(self, *arguments, **options)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(ClassifierTrainer, "training_step", training_step)
        run(places)
    assert not list(all_results(tmp_path))
    _, lines = run(places)
    assert any("resuming at step 24 of 72" in line for line in lines)
    ((folder, found),) = all_results(tmp_path)
    whole = next(place for place, r in all_results(Path(results[0].output)) if _is_grid(r, "tiny", 2e-3))
    for table, answers in read_predictions(folder).items():
        assert np.array_equal(answers, read_predictions(whole)[table])
    assert found["score"] is not None


def test_a_killed_run_goes_on(glue, tiny_base, tmp_path):
    """Without its result and weights, a run is made again with the same findings; its neighbours are left alone."""
    places = GlueRunOptions(
        model=[f"tiny={tiny_base}"], output=str(tmp_path), data_dir=str(glue), tasks=("CoLA",), seeds=(4,), keep="all"
    )
    run(places)
    ((folder, first),) = all_results(tmp_path)
    (folder / "result.json").unlink()  # killed between training and its result
    run(places)
    ((_, second),) = all_results(tmp_path)
    assert second["tables"] == first["tables"]
    (folder / "predictions.npz").unlink()
    with pytest.raises(FolderError, match="cannot be read"):
        read_predictions(folder)
    (folder / "result.json").write_text("{")
    with pytest.raises(FolderError, match="damaged"):
        run(places)


def test_a_teacher_of_another_vocabulary_and_mnli_first(glue, tiny_base, results, tmp_path):
    import shutil

    from tiny_checkpoints import tiny_tokenizer as other_tokenizer

    # A teacher of MNLI and CoLA whose tokens are others
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    teachers = tmp_path / "teachers"
    model = transformers.BertModel.from_pretrained(base)
    model.resize_token_embeddings(len(other_tokenizer()))
    model.save_pretrained(base)
    for path in base.glob("*token*"):
        path.unlink()
    other_tokenizer().save_pretrained(base)
    common = {"data_dir": str(glue), "tasks": ("CoLA,MNLI",), "test": False}
    run(GlueRunOptions(model=[f"teacher={base}"], output=str(teachers), **common))
    student = {"model": [f"student={tiny_base}"], "output": str(teachers), "name": "distil", **common}
    with pytest.raises(OptionError, match="another vocabulary"):
        run(GlueRunOptions(teacher="teacher", **student), distil=DistilOptions(hidden_weight=1.0))
    run(GlueRunOptions(teacher="teacher", mnli_first=True, **student))
    found = {(r["model"], r["task"]): r for _, r in all_results(teachers)}
    told = found["student", "CoLA"]["options"]
    assert re.search(r"student/distil/MNLI/.*/model$", told["checkpoint"])
    assert re.search(r"teacher/plain/CoLA/.*/model$", told["distil"]["teacher"])
    assert found["student", "MNLI"]["options"]["checkpoint"] == str(tiny_base)
    assert list(found["student", "MNLI"]["tables"]) == ["dev_matched", "dev_mismatched"]
    assert found["student", "MNLI"]["score"] == pytest.approx(
        50 * sum(table["accuracy"] for table in found["student", "MNLI"]["tables"].values())
    )
    # A teacher with the same vocabulary, by the folders of its tasks
    places = {**student, "name": "hidden", "tasks": ("CoLA",)}
    pattern = str(teachers / "student/distil/{task}/rate-0.002_seed-1/model")
    run(GlueRunOptions(teacher=pattern, **places), distil=DistilOptions(hidden_weight=1.0))
    for teacher, error in (("nobody", OptionError), ("student/plain", FolderError), ("x/{task}", FolderError)):
        with pytest.raises(error, match=r"teacher|no trained model"):
            run(GlueRunOptions(teacher=teacher, **{**places, "name": "none"}))


def test_a_better_teacher_later_leaves_students_what_they_are(glue, tiny_base, tmp_path):
    """A seed added to the teacher's may win; runs that learned from another stay valid, and theirs is kept."""
    common = {"output": str(tmp_path), "data_dir": str(glue), "tasks": ("cola",), "test": False}
    teacher = {"model": [f"teacher={tiny_base}"], "epochs_of": {"cola": 2}, **common}
    run(GlueRunOptions(**teacher))
    student = {"model": [f"student={tiny_base}"], "teacher": "teacher", "name": "distil", "epochs_of": {"CoLA": 1}}
    run(GlueRunOptions(**student, **common))
    (first,) = tmp_path.glob("teacher/plain/CoLA/*")
    told = json.loads((first / "result.json").read_text())
    assert told["options"]["epochs"] == 2
    (first / "result.json").write_text(json.dumps({**told, "score": -1.0}))
    run(GlueRunOptions(**teacher, seeds=(1, 2)))
    (best,) = {result.best for result in summarise(tmp_path) if result.model == "teacher"}
    assert best != first
    assert (best / "model" / "config.json").is_file()
    assert (first / "model" / "config.json").is_file()
    _, lines = run(GlueRunOptions(**student, seeds=(1, 2), **common))
    assert any("seed-2" in line for line in lines)
    teachers = {
        found["options"]["distil"]["teacher"] for _, found in all_results(tmp_path) if found["model"] == "student"
    }
    assert {(tmp_path / one).resolve() for one in teachers} == {first.resolve() / "model"}


def test_two_workers_find_what_one_finds(glue, results, tiny_base, tmp_path):
    places = GlueRunOptions(
        model=[f"tiny={tiny_base}"],
        output=str(tmp_path),
        data_dir=str(glue),
        tasks=("CoLA",),
        learning_rates=(1e-6, 2e-3),
        workers=2,
    )
    run(places)
    one = {r["learning_rate"]: r["tables"] for _, r in all_results(Path(results[0].output)) if _is_grid(r, "tiny")}
    two = {r["learning_rate"]: r["tables"] for _, r in all_results(tmp_path)}
    assert two == one


def _is_grid(found: dict, model: str, rate: float | None = None) -> bool:
    wanted = found["model"] == model and found["task"] == "CoLA" and rate in (None, found["learning_rate"])
    return bool(found["in_grid"] and wanted)


def test_a_run_that_diverges_is_recorded_and_the_others_count(glue, tiny_base, tmp_path):
    places = GlueRunOptions(
        model=[f"tiny={tiny_base}"],
        output=str(tmp_path),
        data_dir=str(glue),
        tasks=("CoLA",),
        learning_rates=(1e30, 1e-3),
        seeds=(1, 2),
    )
    _, lines = run(places)
    found = {r["learning_rate"]: r["score"] for _, r in all_results(tmp_path)}
    assert found[1e30] is None
    (result,) = summarise(tmp_path)
    assert result.chosen["learning_rate"] == 1e-3
    assert len(result.scores) == 2
    assert any("diverged" in line for line in lines)


# --- report and measurements ---------------------------------------------------------------------------------


def test_report_and_measurements_through_the_command_line(results, tmp_path, capsys):
    output = results[0].output
    assert main(["glue", "measure", output, "--lengths", "8", "16", "--runs", "2"]) == 0
    measured = json.loads((Path(output) / "measured.json").read_text())
    assert set(measured["models"]) == {"tiny", "other"}
    assert measured["models"]["other"]["exported_by"].startswith("torch.onnx.export")
    tiny = measured["models"]["tiny"]
    # By hand: 2 blocks of 4 products 32 x 32 and 2 of 32 x 64, both attention products, on 16 tokens; pooler and head
    blocks = 2 * (16 * (4 * 32 * 32 + 2 * 32 * 64) + 2 * 16 * 16 * 32)
    assert round(tiny["gflops"]["16"] * 1e9) == 2 * (blocks + 32 * 32 + 32 * GLUE_OUTPUTS)
    assert sum(tiny["gflops_by_layer"].values()) == pytest.approx(tiny["gflops"]["16"])
    capsys.readouterr()
    page, markdown = tmp_path / "out/page.html", tmp_path / "report.md"
    assert main(["glue", "report", output, "--html", str(page), "--markdown", str(markdown)]) == 0
    shown = capsys.readouterr().out
    medians = {(r.model, r.task): f"{r.median:.1f}" for r in summarise(Path(output))}
    for (model, _), median in medians.items():
        line = next(line for line in shown.splitlines() if line.startswith(f"{model} ") and "plain" in line)
        assert median in line
    assert "subset" in shown
    assert "Published figures (not ours)" in shown
    text = page.read_text()
    assert text.count("<svg") == 2
    assert "rate" in markdown.read_text()
    assert main(["glue", "report", str(tmp_path / "out")]) == 1
    assert "no results there" in capsys.readouterr().err


GLUE_OUTPUTS = 2  # CoLA's labels: the first task that is kept


def test_published_figures_have_sources():
    table = published_table()
    assert all(row[-1] for row in table.rows)
    assert all(len(row) == len(table.heads) for row in table.rows)


# --- submission ----------------------------------------------------------------------------------------------


def test_a_partial_submission_of_subsets_is_refused(results, tmp_path):
    options = {"folder": results[0].output, "model": "tiny", "output": str(tmp_path / "out.zip")}
    with pytest.raises(FolderError, match=r"no answers for SST-2.tsv.*--partial"):
        submit(GlueSubmitOptions(**options))
    with pytest.raises(FolderError, match=r"answered 6 rows of CoLA test, and CoLA\.tsv has to have 1063: repeat"):
        submit(GlueSubmitOptions(partial=True, **options))
    with pytest.raises(OptionError, match="has other, tiny"):
        submit(GlueSubmitOptions(**options | {"model": "nobody"}))
    with pytest.raises(OptionError, match="has results of plain"):
        submit(GlueSubmitOptions(recipe_name="distil", **options))
    assert not (tmp_path / "out.zip").exists()


def test_a_complete_submission(tmp_path, monkeypatch):
    """Official numbers of rows, from runs that are made up."""
    random = np.random.default_rng(0)
    for name, task in GLUE.items():
        cell = Cell("m", "plain", name, 1e-4, None, 1)
        folder = cell.folder(tmp_path / "results")
        folder.mkdir(parents=True)
        answers = {
            split.name: (random.random((split.rows, len(task.words))) if task.words else 7 * random.random(split.rows))
            for split in task.test
        }
        told = {"model": "m", "recipe": "plain", "task": name, "learning_rate": 1e-4, "dropout": None, "seed": 1}
        write_result(folder, {**told, "in_grid": True, "score": 50.0, "tables": {}, "subsets": []}, answers)
    output = tmp_path / "out.zip"
    lines = submit(GlueSubmitOptions(folder=str(tmp_path / "results"), model="m", output=str(output)))
    assert lines[-1] == f"written: {output}"
    found = read_submission(output)
    assert set(found) == set(FILES) and len(found) == 11
    assert len(found["QQP.tsv"]) == 390965
    assert set(found["MNLI-mm.tsv"]) == set(GLUE["MNLI"].words)
    assert found["AX.tsv"][0] in GLUE["MNLI"].words
    assert max(float(word) for word in found["STS-B.tsv"]) == 5.0
    with zipfile.ZipFile(output) as archive:
        assert archive.read("WNLI.tsv").startswith(b"index\tprediction\n0\t")


def score_predictions(task, predictions, examples):
    """A task's metrics of predictions as a submission spells them, against rows with labels."""
    labels = natural_order(task.words)
    targets = encode_targets(examples, task.task, labels)
    if task.task == "regression":
        return glue_metrics(task, np.array([float(word) for word in predictions]), targets)
    return glue_metrics(task, np.eye(len(labels))[[labels.index(word) for word in predictions]], targets)


def test_a_perfect_predictor_scores_100(glue, tmp_path):
    for name in ("CoLA", "STS-B", "MNLI"):
        task = GLUE[name]
        data = load_glue(name, glue)
        examples = data.labelled.evaluation
        if task.words:
            labels = data.labelled.labels
            answers = np.eye(len(labels))[[labels.index(str(example.label)) for example in examples]]
        else:
            answers = np.array([float(str(example.label)) for example in examples])
        file = task.test[0].submission
        path = tmp_path / f"{name}.zip"
        write_submission(path, {file: answers}, {file: len(examples)})
        predictions = read_submission(path, {file: len(examples)})[file]
        scores = score_predictions(task, predictions, examples)
        assert scores == dict.fromkeys(task.metrics, pytest.approx(1.0))
        wrong = score_predictions(task, predictions[::-1], examples)
        assert max(wrong.values()) < 0.9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("index\tprediction\n0\t1\n1\tyes\n", r"CoLA.tsv, line 3: 'yes' is none of 0, 1"),
        ("index\tprediction\n0\t1\n2\t1\n", r"line 3: '2\\t1', expected index 1"),
        ("id\tlabel\n0\t1\n", "has to begin with the line index<TAB>prediction"),
        ("index\tprediction\n0\t1\n", "has 1 rows, and has to have 1063"),
    ],
)
def test_wrong_submissions_are_found(tmp_path, text, message):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("CoLA.tsv", text)
    with pytest.raises(FolderError, match=message):
        read_submission(path)
    (tmp_path / "b.zip").write_bytes(b"no zip")
    with pytest.raises(FolderError, match="no zip that can be read"):
        read_submission(tmp_path / "b.zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "")
    with pytest.raises(FolderError, match=r"notes.txt is no file of a submission"):
        read_submission(path)


# --- options -------------------------------------------------------------------------------------------------


def test_bad_options(tmp_path):
    with pytest.raises(OptionError, match="squad is no task"):
        chosen_tasks(["CoLA,SQuAD"])
    assert chosen_tasks(["rte, cola"]) == chosen_tasks(["RTE", "CoLA"]) == ["CoLA", "RTE"]
    assert named_models(["a=x/y", "z/w"]) == {"a": "x/y", "w": "z/w"}
    with pytest.raises(OptionError, match="AX is answered by MNLI's model"):
        chosen_tasks(["AX"])
    (tmp_path / "lr=1" / "model").mkdir(parents=True)
    assert named_models([str(tmp_path / "lr=1" / "model")]) == {"model": str(tmp_path / "lr=1" / "model")}
    assert GlueRunOptions(["m"], "o", epochs_of="RTE=2, MNLI=0.5").epochs_by_task == {"RTE": 2.0, "MNLI": 0.5}
    with pytest.raises(OptionError, match="expected TASK=EPOCHS"):
        GlueRunOptions(["m"], "o", epochs_of="RTE")
    with pytest.raises(OptionError, match="two models are called y"):
        named_models(["x/y", "z/y"])
    with pytest.raises(OptionError, match="cannot name a folder"):
        named_models(["..=x"])
    for wrong in (
        {"seeds": (1, 1)},
        {"workers": 0},
        {"name": "a/b"},
        {"learning_rates": (0.0,)},
        {"dropouts": (1.0,)},
    ):
        with pytest.raises(OptionError):
            GlueRunOptions(model=["m"], output="o", **wrong)
    with pytest.raises(OptionError, match="MNLI has to be among --tasks"):
        run(GlueRunOptions(model=["m"], output=str(tmp_path), tasks=("RTE",), mnli_first=True))


def test_accuracy_is_scikit_learns(glue):
    examples = load_glue("MNLI", glue).dev["dev_mismatched"]
    words = [example.label for example in examples]
    guesses = [GLUE["MNLI"].words[0]] * len(words)
    assert score_predictions(GLUE["MNLI"], guesses, examples)["accuracy"] == accuracy_score(words, guesses)


def places_of(output, glue, base, **changes):
    told = {"model": [f"tiny={base}"], "output": str(output), "data_dir": str(glue), "tasks": ("CoLA",)}
    return GlueRunOptions(**told | changes)


QUICK = replace(FAST, epochs=1)


def test_results_on_other_rows_are_not_taken_for_these(glue, tiny_base, tmp_path):
    run(places_of(tmp_path / "out", glue, tiny_base), QUICK)
    other = tmp_path / "other"
    shutil.copytree(glue, other)
    table = other / "CoLA" / "train.tsv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-4]))
    with pytest.raises(FolderError, match="the rows of the task are others"):
        run(places_of(tmp_path / "out", other, tiny_base), QUICK)
    for seeds in ((1, 2), (3,)):
        with pytest.raises(FolderError, match="the rows of the task are others"):
            run(places_of(tmp_path / "out", other, tiny_base, seeds=seeds), QUICK)


def test_a_cut_off_run_is_not_gone_on_with_under_other_options(glue, tiny_base, results, tmp_path):
    """A model that is there without its result belongs to the options that trained it."""
    teacher = str(next(r.best for r in summarise(Path(results[0].output)) if r.model == "tiny" and r.task == "CoLA"))
    told = {"teacher": f"{teacher}/model/../model", "keep": "all", "name": "d"}
    (tmp_path / "CoLA").symlink_to(Path(teacher) / "model")
    told["teacher"] = str(tmp_path / "{task}")
    run(places_of(tmp_path / "out", glue, tiny_base, **told), QUICK, DistilOptions(alpha=0.9))
    result = next((tmp_path / "out").rglob("result.json"))
    result.unlink()
    with pytest.raises(FolderError, match=r"holds a run that was cut off, of other options \(alpha 0\.9, now 0\.1\)"):
        run(places_of(tmp_path / "out", glue, tiny_base, **told), QUICK, DistilOptions(alpha=0.1))
    run(places_of(tmp_path / "out", glue, tiny_base, **told), QUICK, DistilOptions(alpha=0.9, cache_teacher=True))
    assert result.exists()


@pytest.mark.parametrize("distil", [{"cache_teacher": True}, {"hidden_weight": 1.0}, {}])
def test_another_architecture_can_be_a_student(glue, distilbert, tmp_path, distil):
    run(places_of(tmp_path / "t", glue, distilbert, keep="all"), QUICK)
    teacher = next((tmp_path / "t").rglob("model"))
    (tmp_path / "CoLA").symlink_to(teacher)
    places = places_of(tmp_path / "s", glue, distilbert, teacher=str(tmp_path / "{task}"))
    found, _ = run(places, QUICK, DistilOptions(alpha=0.9, **distil))
    assert "median" in found[0]


def test_test_rows_can_be_answered_later(glue, tiny_base, tmp_path):
    run(places_of(tmp_path / "out", glue, tiny_base, test=False), QUICK)
    folder = next(folder for folder, _ in all_results(tmp_path / "out"))
    assert set(read_predictions(folder)) == {"dev"}
    before = read_predictions(folder)["dev"]
    _, lines = run(places_of(tmp_path / "out", glue, tiny_base), QUICK)
    assert any("answering its test rows" in line for line in lines)
    assert set(read_predictions(folder)) == {"dev", "test"}
    assert np.allclose(read_predictions(folder)["dev"], before, atol=1e-6)
    run(places_of(tmp_path / "gone", glue, tiny_base, test=False, keep="none"), QUICK)
    _, lines = run(places_of(tmp_path / "gone", glue, tiny_base, keep="none"), QUICK)
    assert any("its weights are gone: delete" in line for line in lines)


def test_seeds_in_another_order_choose_the_same_rate(glue, tiny_base, tmp_path):
    told = {"learning_rates": (1e-6, 2e-3), "seeds": (1, 2)}
    run(places_of(tmp_path / "out", glue, tiny_base, **told))
    found, _ = run(places_of(tmp_path / "out", glue, tiny_base, **told | {"seeds": (2, 1)}))
    assert "rate 0.002" in found[0]
    assert len(list(all_results(tmp_path / "out"))) == 4


def test_what_diverged_is_said(glue, tiny_base, tmp_path, capsys):
    found, _ = run(places_of(tmp_path / "out", glue, tiny_base), replace(QUICK, learning_rate=1e30))
    assert found == ["tiny, CoLA: all 1 runs diverged: lower the learning rate"]
    assert main(["glue", "report", str(tmp_path / "out")]) == 1
    assert "every run there diverged (tiny, plain, CoLA (1 runs))" in capsys.readouterr().err
    run(places_of(tmp_path / "out", glue, tiny_base, tasks=("STS-B",)), QUICK)
    assert main(["glue", "report", str(tmp_path / "out")]) == 0
    assert "Diverged, and left out: tiny, plain, CoLA (1 runs)." in capsys.readouterr().out


def test_weights_of_other_tasks_stay(glue, tiny_base, tmp_path):
    run(places_of(tmp_path / "out", glue, tiny_base, keep="all", seeds=(1, 2)), QUICK)
    run(places_of(tmp_path / "out", glue, tiny_base, tasks=("STS-B",)), QUICK)
    assert len(list((tmp_path / "out").rglob("CoLA/*/model/config.json"))) == 2


@pytest.mark.parametrize(
    ("told", "options", "distil", "reason"),
    [
        ({}, {"seed": 7}, {}, "--seed: --seeds rules here"),
        ({}, {"metric": "bogus"}, {}, "--metric: the task's own score rules here"),
        ({"dropouts": (0.1,)}, {"dropout": 0.2}, {}, "--dropout: --dropouts rules here"),
        ({}, {}, {"alpha": 0.5}, "are those of distillation, and no teacher is named"),
        ({"model": ["tiny=/nowhere/at/all"]}, {}, {}, "--model tiny=/nowhere/at/all: no checkpoint"),
        ({"model": ["tiny="]}, {}, {}, "--model tiny=: no checkpoint"),
    ],
)
def test_options_that_contradict_are_refused_before_anything_runs(
    glue, tiny_base, tmp_path, told, options, distil, reason
):
    places = places_of(tmp_path / "out", glue, tiny_base, **told)
    with pytest.raises((OptionError, FolderError), match=re.escape(reason)):
        run(places, replace(QUICK, **options), DistilOptions(**distil))
    assert not (tmp_path / "out").exists()


def test_grids_without_sense_are_refused():
    with pytest.raises(OptionError, match=r"--learning-rates 0\.001 0\.001: the same one twice"):
        GlueRunOptions(["a"], "o", learning_rates=(1e-3, 1.0000001e-3))
    with pytest.raises(OptionError, match="the other tasks start from MNLI's model, which has to be kept"):
        GlueRunOptions(["a"], "o", mnli_first=True, keep="none")


def test_measuring_texts_longer_than_a_model_reads_is_refused(results, capsys):
    assert main(["glue", "measure", results[0].output]) == 1
    assert "--lengths 128:" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "."])
def test_a_submission_needs_the_name_of_a_file(results, capsys, name):
    told = ["glue", "submit", results[0].output, "--model", "tiny", "--output", name, "--partial"]
    assert main(told) == 1
    assert "expected the name of a zip file" in capsys.readouterr().err


def test_an_incomplete_result_is_named(results, tmp_path):
    folder = tmp_path / "m" / "r" / "CoLA" / "rate"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text('{"task": "CoLA", "score": 1.0, "tables": {}}')
    with pytest.raises(FolderError, match=r"result\.json: damaged \(KeyError: 'model'\)"):
        summarise(tmp_path)


def test_odd_submissions_are_found(tmp_path):
    path = tmp_path / "s.zip"
    with zipfile.ZipFile(path, "w"):
        pass
    with pytest.raises(FolderError, match="an empty zip"):
        read_submission(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("STS-B.tsv", "index\tprediction\n0\t1_0e-1\n")
    with pytest.raises(FolderError, match="is no number from 0 to 5"):
        read_submission(path, {"STS-B.tsv": 1})
    with pytest.raises(FolderError, match="answers that are no numbers"):
        write_submission(path, {"CoLA.tsv": np.array([[np.nan, 1.0]])}, {"CoLA.tsv": 1})


def test_cola_has_four_columns_whatever_its_first_row_has(glue, tmp_path):
    shutil.copytree(glue, tmp_path / "glue")
    table = tmp_path / "glue" / "CoLA" / "train.tsv"
    rows = table.read_text().splitlines(keepends=True)
    table.write_text(rows[0].rstrip("\n") + "\textra\n" + "".join(rows[1:]))
    with pytest.raises(TableError, match=r"train\.tsv:1: wrong number of cells: 5 cells, where there should be 4"):
        load_glue("CoLA", tmp_path / "glue")
    found = load_glue("CoLA", tmp_path / "glue", skip_bad_rows=True)
    assert len(found.labelled.train) == len(rows) - 1


def test_test_rows_out_of_order_are_refused(glue, tmp_path):
    shutil.copytree(glue, tmp_path / "glue")
    table = tmp_path / "glue" / "STS-B" / "test.tsv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join([lines[0], lines[2], lines[1], *lines[3:]]))
    with pytest.raises(TableError, match=r"test\.tsv:2: index out of order: '1', expected 0"):
        load_glue("STS-B", tmp_path / "glue", test=True)


# --- what a result is a result of ------------------------------------------------------------------------------


def made_up(output: Path, model: str = "m", task: str = "CoLA", score: float | None = 50.0, **more) -> Path:
    """A finished run that nobody ran; `options` and the like are added to what every result has."""
    told = {"learning_rate": 1e-3, "dropout": None, "seed": 1, **{k: more.pop(k) for k in list(more) if k in CELL}}
    cell = Cell(model, more.pop("recipe", "plain"), task, **told)
    folder = cell.folder(output)
    folder.mkdir(parents=True)
    tables = {split.name: dict.fromkeys(GLUE[task].metrics, (score or 0) / 100) for split in GLUE[task].dev}
    answers = {split.name: np.zeros((split.rows, 2)) for split in GLUE[task].test}
    found = {"model": model, "recipe": cell.recipe, "task": task, **told, "in_grid": told["seed"] == 1}
    write_result(folder, found | {"score": score, "tables": tables, "subsets": []} | more, answers)
    return folder


CELL = ("learning_rate", "dropout", "seed")


def test_runs_of_other_options_are_not_put_together(glue, tiny_base, distilbert, tmp_path):
    out = tmp_path / "out"
    run(places_of(out, glue, tiny_base), QUICK)
    for changes, options, reason in (
        ({"seeds": (2,)}, replace(QUICK, epochs=2), r"epochs 1, now 2"),
        ({"seeds": (1, 2)}, replace(QUICK, dropout=0.5), r"dropout None, now 0\.5"),
        ({"seeds": (2,), "model": [f"tiny={distilbert}"]}, QUICK, r"checkpoint \S+, now \S+, which holds something"),
        ({"tasks": ("STS-B",), "model": [f"tiny={distilbert}"]}, QUICK, "one name and one checkpoint"),
    ):
        with pytest.raises(FolderError, match=reason):
            run(places_of(out, glue, tiny_base, **changes), options)
    assert len(list(all_results(out))) == 1


def test_the_report_shows_runs_of_other_options_as_rows_of_their_own(tmp_path, capsys):
    common = {"checkpoint": "a", "epochs": 1.0, "report_to": "none", "distil": None}
    for seed, score, told in ((1, 50.0, {}), (2, 60.0, {"report_to": "tensorboard"}), (3, 90.0, {"epochs": 20.0})):
        made_up(tmp_path, seed=seed, score=score, options=common | told | {"seed": seed}, data="d")
    made_up(tmp_path, seed=4, score=10.0, options=common, data="e")
    assert [(r.variant, r.scores) for r in summarise(tmp_path)] == [
        ("rows d, epochs 1.0", (50.0, 60.0)),
        ("rows d, epochs 20.0", (90.0,)),
        ("rows e, epochs 1.0", (10.0,)),
    ]
    assert main(["glue", "report", str(tmp_path), "--html", str(tmp_path / "p.html")]) == 0
    shown = capsys.readouterr().out
    assert "plain [rows d, epochs 20.0]  90.0" in shown
    assert "plain [rows d, epochs 1.0]   55.0 (60.0), 2" in shown
    with pytest.raises(FolderError, match=r"m, plain, CoLA has runs of other options.*epochs 20\.0"):
        best_model(tmp_path, "m", "plain", "CoLA")
    with pytest.raises(FolderError, match="has runs of other options"):
        submit(GlueSubmitOptions(folder=str(tmp_path), model="m", output=str(tmp_path / "z.zip"), partial=True))


def test_tasks_that_began_from_other_checkpoints_are_not_one_row(tmp_path):
    for task, digest in (("CoLA", "1" * 64), ("RTE", "2" * 64), ("WNLI", None)):
        made_up(tmp_path, task=task, options={"checkpoint": "base", "checkpoint_digest": digest})
    assert [r.variant for r in summarise(tmp_path)] == ["checkpoint base (111111)", "checkpoint base (222222)", ""]


def test_tasks_of_other_kinds_are_not_one_row_nor_one_submission(glue, tiny_base, tmp_path):
    made_up(tmp_path / "a", task="CoLA", options={"distil": {"teacher": "t"}})
    made_up(tmp_path / "a", task="RTE", options={"distil": None})
    assert [r.variant for r in summarise(tmp_path / "a")] == ["distilled yes", "distilled no"]
    with pytest.raises(FolderError, match=r"not of one model \(distilled no; distilled yes\)"):
        submit(GlueSubmitOptions(str(tmp_path / "a"), "m", str(tmp_path / "z.zip"), partial=True))
    made_up(tmp_path / "b", model="tiny", task="RTE", options={"distil": {"teacher": "t"}})
    with pytest.raises(FolderError, match=r"RTE.* was distilled, and this is to be the other way"):
        run(places_of(tmp_path / "b", glue, tiny_base), QUICK)


def test_what_learned_from_a_subset_before_is_marked(tmp_path):
    """A model that began at, or learned from, one of a subset is as little comparable as that."""
    made_up(tmp_path, task="MNLI", subsets=["train", "dev_matched"])
    place = "m/plain/MNLI/rate-0.001_seed-1/model"
    made_up(tmp_path, "begun", "RTE", options={"checkpoint": place})
    made_up(tmp_path, "taught", "RTE", options={"checkpoint": "base", "distil": {"teacher": place}})
    made_up(tmp_path, "later", "CoLA", options={"checkpoint": "begun/plain/RTE/rate-0.001_seed-1/model"})
    made_up(tmp_path, "whole", "RTE", options={"checkpoint": "base"})
    found = {result.model: result.subsets for result in summarise(tmp_path) if result.model != "m"}
    assert found == {"begun": ("MNLI train",), "taught": ("MNLI train",), "later": ("MNLI train",), "whole": ()}


def test_the_grid_of_several_commands_is_of_one_seed(tmp_path):
    for rate, seed, score in ((1e-3, 1, 50.0), (2e-3, 1, 60.0), (1e-3, 2, 90.0), (2e-3, 2, 55.0)):
        made_up(tmp_path, learning_rate=rate, seed=seed, score=score)
    path = next(tmp_path.rglob("rate-0.001_seed-2/result.json"))
    path.write_text(path.read_text().replace('"in_grid": false', '"in_grid": true'))
    assert summarise(tmp_path)[0].chosen["learning_rate"] == 2e-3


def test_damaged_answers_are_given_again_where_the_model_is_kept(glue, tiny_base, tmp_path):
    run(places_of(tmp_path, glue, tiny_base, keep="all"), QUICK)
    (path,) = tmp_path.rglob("predictions.npz")
    before = read_predictions(path.parent)
    path.write_bytes(b"PK")
    run(places_of(tmp_path, glue, tiny_base, keep="all"), QUICK)
    after = read_predictions(path.parent)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_what_is_wrong_with_any_model_is_said_before_one_runs(glue, tiny_base, tmp_path):
    broken = shutil.copytree(tiny_base, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    for name, reason in (("cut short", "no checkpoint there"), ("without", "--model takes a folder with")):
        if name == "without":
            (broken / "model.safetensors").unlink()
        places = places_of(tmp_path / "out", glue, tiny_base)
        with pytest.raises(FolderError, match=reason):
            run(replace(places, model=[*places.model, f"other={broken}"]), QUICK)
    assert not list(all_results(tmp_path / "out"))


def test_one_folder_is_no_teacher(glue, tiny_base, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny_base.parent)
    with pytest.raises(OptionError, match=r"one folder; it takes a folder for each task, as 'teachers/\{task\}'"):
        run(places_of(tmp_path, glue, tiny_base, teacher=tiny_base.name), QUICK, DistilOptions(alpha=0.9))


def test_a_checkpoint_is_what_it_holds(glue, tiny_base, tmp_path, monkeypatch):
    """Overwritten weights are another checkpoint; a copy is the same; a moved output finds its teachers."""
    base = shutil.copytree(tiny_base, tmp_path / "base")
    out = tmp_path / "out"
    run(places_of(out, glue, base), QUICK)
    run(places_of(out, glue, base, name="distil", teacher="tiny"), QUICK, DistilOptions(alpha=0.9))
    told = {found["recipe"]: found["options"] for _, found in all_results(out)}
    assert told["distil"]["distil"]["teacher"].startswith("tiny/plain/CoLA/")
    assert told["plain"]["checkpoint_digest"] == checkpoint_digest(str(tiny_base))
    # The same under other names
    moved = out.rename(tmp_path / "moved")
    copy = shutil.copytree(tiny_base, tmp_path / "copy")
    shutil.move(base, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    for recipe in ({}, {"name": "distil", "teacher": "tiny"}):
        distil = DistilOptions(alpha=0.9) if recipe else None
        _, lines = run(places_of("moved", glue, "copy", **recipe), QUICK, distil)
        assert not any("run 1 of" in line for line in lines)
    # Other weights under the same name
    model = transformers.BertModel.from_pretrained(copy)
    model.pooler.dense.bias.data += 1
    model.save_pretrained(copy)
    with pytest.raises(FolderError, match="now copy, which holds something else"):
        run(places_of("moved", glue, "copy"), QUICK)
    # A result of before there were hashes goes by the name
    for folder, found in all_results(moved):
        options = {name: value for name, value in found["options"].items() if not name.endswith("_digest")}
        (folder / "result.json").write_text(json.dumps({**found, "options": {**options, "checkpoint": "copy"}}))
    run(places_of("moved", glue, "copy"), QUICK)
    with pytest.raises(FolderError, match="checkpoint copy, now "):
        run(places_of("moved", glue, tiny_base), QUICK)


def test_test_rows_that_change_are_answered_anew(glue, tiny_base, tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    shutil.copytree(glue, other)
    table = other / "CoLA" / "test.tsv"
    header, *rows = table.read_text().splitlines()
    run(places_of(out, glue, tiny_base), QUICK)
    ((folder, _),) = all_results(out)
    first = read_predictions(folder)["test"]

    def write(rows: list[str]) -> None:
        table.write_text("\n".join([header, *(f"{n}\t{row.partition(TAB)[2]}" for n, row in enumerate(rows))]) + "\n")

    def repeat() -> list[str]:
        from squeezebert.workflows.glue import job

        job._read.clear()  # a command is a process of its own
        return run(places_of(out, other, tiny_base), QUICK)[1]

    write(rows[::-1])
    assert any("answering its test rows" in line for line in repeat())
    assert np.allclose(read_predictions(folder)["test"], first[::-1], atol=1e-5)
    assert not any("answering" in line for line in repeat())
    write(rows[:3])
    repeat()
    assert len(read_predictions(folder)["test"]) == 3
    # An older result has no hashes: the number of rows tells
    found = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({k: v for k, v in found.items() if k != "test_data"}))
    write(rows * 200)
    table.write_text("\n".join(table.read_text().splitlines()[:1064]) + "\n")
    repeat()
    assert len(read_predictions(folder)["test"]) == 1063
    assert json.loads((folder / "result.json").read_text())["subsets"] == ["train", "dev"]
    zipped = GlueSubmitOptions(folder=str(out), model="tiny", output=str(tmp_path / "z.zip"), partial=True)
    assert "a subset of the dev rows" in submit(zipped)[0]
    # Without its model, what was answered stays, and is not submitted
    shutil.rmtree(folder / "model")
    before = read_predictions(folder)["test"]
    lines = table.read_text().splitlines()
    write([lines[2], lines[1], *lines[3:]])
    assert any("answered as they were before, and its weights are gone" in line for line in repeat())
    assert np.array_equal(read_predictions(folder)["test"], before)
    with pytest.raises(FolderError, match="no answers to any test rows"):
        submit(zipped)
    write(lines[1:])
    repeat()
    assert submit(zipped)


TAB = "\t"


def named_outputs(model: Path, names: list[str], place: Path) -> Path:
    shutil.copytree(model, place)
    config = json.loads((place / "config.json").read_text())
    config |= {"id2label": dict(enumerate(names)), "label2id": {name: n for n, name in enumerate(names)}}
    (place / "config.json").write_text(json.dumps(config))
    return place


def test_a_teachers_labels_are_taken_by_their_names(glue, tiny_base, tmp_path):
    import torch

    places = places_of(tmp_path / "out", glue, tiny_base, tasks=("MNLI",), test=False, keep="all")
    run(places, QUICK)
    trained = next((tmp_path / "out").rglob("model"))
    data, tokenizer = load_glue("MNLI", glue).labelled, load_tokenizer(tiny_base)
    assert data.labels == ("contradiction", "entailment", "neutral")
    other = named_outputs(trained, ["ENTAILMENT", "neutral", "contradiction"], tmp_path / "other" / "MNLI")
    generic = named_outputs(trained, ["LABEL_0", "LABEL_1", "LABEL_2"], tmp_path / "generic" / "MNLI")
    spelled = spellings(GLUE["MNLI"])
    assert label_order(other, data.labels, spelled) == [2, 0, 1]
    assert label_order(trained, data.labels, spelled) == [0, 1, 2]
    text = tokenizer("a match", return_tensors="pt")
    with torch.no_grad():
        was = load_task_teacher(trained, data, tokenizer)(**text).logits
        permuted = load_task_teacher(other, data, tokenizer, spelled=spelled)(**text).logits
    assert torch.allclose(permuted, was[:, [2, 0, 1]])
    with pytest.raises(OptionError, match="trained on the labels ENTAILMENT"):
        label_order(other, data.labels)
    with pytest.raises(OptionError, match=r'does not name its outputs \(LABEL_0.*write "id2label"'):
        label_order(generic, data.labels, spelled)
    (tmp_path / "generic" / "CoLA").symlink_to(generic)
    # Before anything runs, the task of which it is said included
    told = {"model": [f"s={tiny_base}"], "name": "d", "teacher": str(tmp_path / "generic" / "{task}")}
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "CoLA").symlink_to(generic)
    for teacher in ("generic", "mixed"):
        told["teacher"] = str(tmp_path / teacher / "{task}")
        with pytest.raises((OptionError, FolderError)):
            run(replace(places, tasks=("CoLA,MNLI",), **told), QUICK, DistilOptions(alpha=0.9))
    assert not list((tmp_path / "out").glob("s/*/*/*"))
    told["teacher"] = str(tmp_path / "other" / "{task}")
    run(replace(places, **told), QUICK, DistilOptions(alpha=0.9))
    assert spellings(GLUE["SST-2"])["positive"] == "1"


def test_a_copied_folder_does_not_count_twice(tmp_path, capsys):
    folder = made_up(tmp_path, "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert main(["glue", "report", str(tmp_path)]) == 1
    assert "it is the result of a/plain/CoLA/rate-0.001_seed-1, and lies in b/plain" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "b")
    shutil.copytree(folder, folder.with_name("rate-0.001_seed-2"))
    with pytest.raises(FolderError, match="copied or renamed"):
        summarise(tmp_path)


def test_another_grid_tells_and_keeps_its_own(glue, tiny_base, tmp_path):
    run(places_of(tmp_path, glue, tiny_base, learning_rates=(2e-3,)))
    found, _ = run(places_of(tmp_path, glue, tiny_base, learning_rates=(1e-6, 2e-6), seeds=(1, 2)))
    assert re.search(r"rate [12]e-06; of all runs there, which the report goes by, rate 0\.002 is better", found[0])
    (mine,) = (place.parent.name for place in tmp_path.rglob("model") if "e-06" in place.parent.name)
    assert mine.startswith("rate-" + re.search(r"rate ([12]e-06)", found[0])[1])
    assert len(list(tmp_path.rglob("model/config.json"))) == 2


def test_models_are_deleted_after_each_run(glue, tiny_base, tmp_path, monkeypatch):
    """And not when all tasks are through: few lie on the disk at a time."""
    from squeezebert.workflows.glue import run as module

    most, run_job = [], module.run_job

    def counted(job, report=None):
        found = run_job(job, report)
        most.append(len(list(tmp_path.rglob("model/config.json"))))
        return found

    monkeypatch.setattr(module, "run_job", counted)
    run(places_of(tmp_path, glue, tiny_base, tasks=("CoLA,STS-B",), learning_rates=(1e-3, 1e-4, 1e-5)), QUICK)
    assert max(most) <= 3  # of six: the best of each task, and the one that just ended


def test_a_model_that_diverges_on_mnli_leaves_the_others_alone(glue, tiny_base, tmp_path):
    """One that starts with weights that are not numbers diverges at any learning rate."""
    broken = shutil.copytree(tiny_base, tmp_path / "broken")
    model = transformers.BertModel.from_pretrained(broken)
    model.pooler.dense.weight.data.fill_(float("nan"))
    model.save_pretrained(broken)
    models = [f"broken={broken}", f"tiny={tiny_base}"]
    places = places_of(tmp_path / "out", glue, tiny_base, tasks=("MNLI,CoLA",), mnli_first=True, model=models)
    found, lines = run(places, QUICK)
    assert any(line.startswith("broken: MNLI diverged") for line in lines)
    assert [line.partition(":")[0] for line in found] == ["tiny, CoLA", "tiny, MNLI", "broken, MNLI"]


def test_runs_that_were_begun_are_told(tmp_path, capsys):
    cut_off = Cell("m", "plain", "RTE", 1e-3, None, 1).folder(tmp_path)
    cut_off.mkdir(parents=True)
    (cut_off / "begun.json").write_text("{}")
    assert main(["glue", "report", str(tmp_path)]) == 1
    assert "1 run begun and not finished (m, plain, RTE, rate-0.001_seed-1), and no results" in capsys.readouterr().err
    warned = [f"CoLA {name}: {rows} rows, officially 1043: a subset score" for name, rows in (("dev", 9), ("x", 8))]
    made_up(tmp_path, warnings=[*warned, "something else"])
    assert main(["glue", "report", str(tmp_path), "--no-published"]) == 0
    shown = capsys.readouterr().out
    assert "Left out: 1 run begun and not finished (m, plain, RTE" in shown
    assert "Rows, of those that are official: CoLA dev 9 of 1,043; CoLA x 8 of 1,043.\nsomething else" in shown


def test_a_run_that_was_cut_off_is_found_before_others_run(glue, tiny_base, tmp_path):
    last = Cell("tiny", "plain", "STS-B", 1e-3, None, 7).folder(tmp_path)
    (last / "model").mkdir(parents=True)
    (last / "begun.json").write_text(json.dumps({"options": {"epochs": 99}, "data": ""}))
    with pytest.raises(FolderError, match=r"holds a run that was cut off, of other options.*epochs 99, now 1"):
        run(places_of(tmp_path, glue, tiny_base, tasks=("CoLA,STS-B",)), QUICK)
    assert not list(all_results(tmp_path))


def test_marks_of_subsets(tmp_path):
    from squeezebert.workflows.glue.report import plots, runs_table, scores_table

    made_up(tmp_path, subsets=["test"])
    made_up(tmp_path, task="RTE", subsets=["train", "test"])
    results = summarise(tmp_path)
    (row,) = scores_table(results).rows
    assert row[2:4] == ["50.0", "50.0*"]
    assert [row[6] for row in runs_table(results).rows] == ["50.0", "50.0*"]
    ((_, caption),) = plots(results, None)
    assert "subset" in caption


@pytest.mark.parametrize("name", ["a$^$", "_hidden"])
def test_any_name_of_a_model_stands_in_the_plots(tmp_path, name):
    from matplotlib import pyplot

    from squeezebert.workflows.glue import report

    told, legend = [], report._legend

    def noted(axes, groups):
        legend(axes, groups)
        axes.figure.canvas.draw()
        told.extend(text.get_text() for text in axes.get_legend().get_texts())

    made_up(tmp_path, name)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(report, "_legend", noted)
        report.plots(summarise(tmp_path), None)
    assert told == [f"{name}, plain"]
    pyplot.close("all")


def test_damaged_files_are_told_in_words(tmp_path, capsys):
    folder = made_up(tmp_path)
    (tmp_path / "measured.json").write_text('{"models": {}, "lengths": []}')
    assert main(["glue", "report", str(tmp_path)]) == 1
    assert "measured.json: damaged" in capsys.readouterr().err
    whole = (folder / "predictions.npz").read_bytes()
    (folder / "predictions.npz").write_bytes(whole[: len(whole) // 2])
    assert main(["glue", "submit", str(tmp_path), "--model", "m", "--output", "z.zip", "--partial"]) == 1
    assert "predictions.npz: cannot be read" in capsys.readouterr().err


def test_robertas_positions_begin_behind_the_padding(tiny_tokenizer, tmp_path, capsys):
    config = transformers.RobertaConfig(
        vocab_size=len(tiny_tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=50, pad_token_id=1,
    )  # fmt: skip
    transformers.RobertaForSequenceClassification(config).save_pretrained(made_up(tmp_path) / "model")
    assert main(["glue", "measure", str(tmp_path), "--lengths", "49"]) == 1
    assert "m reads 48 tokens at most" in capsys.readouterr().err


def test_an_output_that_cannot_be_is_refused_before_tables_are_read(glue, tiny_base, tmp_path):
    (tmp_path / "file").write_text("")
    for output, reason in ((tmp_path / "file", "a file; it takes a folder"), ("/proc/out", "cannot be made")):
        with pytest.raises(FolderError, match=reason):
            run(places_of(output, tmp_path / "no tables", tiny_base), QUICK)


def test_epochs_of_tasks_on_the_command_line(capsys):
    told = ["glue", "run", "--model", "nothing", "--output", "o", "--epochs-of"]
    assert main([*told, "RTE"]) == 1
    assert "--epochs-of RTE: expected TASK=EPOCHS" in capsys.readouterr().err
    for value in ("AX=2", "{AX: 2}"):
        assert main([*told, value]) == 1
        assert "AX is no task" in capsys.readouterr().err


# --- workers ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("worker", "error", "reason"),
    [
        ("fails_or_takes_long", TableError, "the first of them failed"),
        ("is_killed", WorkerError, r"a worker was killed while these ran: tiny, .*Repeat the command"),
    ],
)
def test_what_goes_wrong_in_a_worker_is_told_at_once(glue, tiny_base, tmp_path, monkeypatch, worker, error, reason):
    import glue_workers
    from squeezebert.workflows.glue import run as module

    monkeypatch.setattr(module, "run_job", getattr(glue_workers, worker))
    places = places_of(tmp_path, glue, tiny_base, learning_rates=(1e-2, 1e-3, 1e-4), workers=2)
    began = time.monotonic()
    lines: list[str] = []
    with pytest.raises(error, match=reason):
        run_glue(places, replace(QUICK, learning_rate=5e-5), DistilOptions(), "", lines.append)
    assert time.monotonic() - began < 55
    told = [line for line in lines if line.startswith("run ")]
    assert told == [f"run {n} of 3: tiny, plain, CoLA, rate-{rate}_seed-1" for n, rate in ((1, 0.01), (2, 0.001))]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="a terminal's Ctrl-C is sent to a process group")
def test_an_interrupt_ends_all_workers(glue, tiny_base, tmp_path):
    told = [sys.executable, "-m", "squeezebert", "glue", "run", "--model", f"tiny={tiny_base}", "--output", "out"]
    told += ["--tasks", "CoLA,STS-B,MNLI", "--data-dir", str(glue), "--workers", "2", "--epochs", "400"]
    told += ["--patience", "0"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(told, stdout=log, stderr=log, start_new_session=True, cwd=tmp_path)
    deadline = time.monotonic() + 120
    out = tmp_path / "out"
    while len({saved.parent for saved in out.rglob("checkpoint-*")}) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(20) == 130
    told = (tmp_path / "log").read_text()
    assert told.rstrip().endswith("interrupted")
    assert "Traceback" not in told
    assert len(list((tmp_path / "out").rglob("begun.json"))) == 2
    deadline = time.monotonic() + 10  # multiprocessing's own helper ends a moment later
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="processes are looked up in /proc")
def test_workers_end_with_a_run_that_is_killed(glue, tiny_base, tmp_path):
    told = [
        sys.executable,
        "-m",
        "squeezebert",
        "glue",
        "run",
        "--model",
        f"tiny={tiny_base}",
        "--tasks",
        "CoLA,STS-B",
    ]
    told += ["--output", str(tmp_path / "out"), "--data-dir", str(glue), "--workers", "2", "--epochs", "400"]
    process = subprocess.Popen(told, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def workers() -> list[int]:
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in found.stdout.split()]

    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").rglob("checkpoint-*")) and time.monotonic() < deadline:
        time.sleep(0.2)
    there = workers()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in there) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert there
    assert not any(Path(f"/proc/{pid}").exists() for pid in there)
