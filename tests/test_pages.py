"""The how-to pages, run as they are written."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

import squeezebert.workflows.web
from marker_text import SHORT, save_encoder, write_text
from masked_models import SENTENCES
from pages import DOCS, blocks, run_commands, run_python
from squeezebert.cli import build_parser
from squeezebert.export.exporter import export_checkpoint
from squeezebert.export.options import ExportOptions
from squeezebert.runtime.moderation import read_policy
from squeezebert.runtime.pairs import read_rule
from squeezebert.runtime.predictor import load
from squeezebert.web.site import HEADERS
from stand_ins import stand_in_engine
from tiny_checkpoints import confident_rows, save_checkpoint, texts, tiny_model

pytest_plugins = ["exported_folders"]


def test_browser(tmp_path, monkeypatch, single):
    shutil.copytree(single.output, tmp_path / "exported")
    # What npm would have brought: no browser runs here
    monkeypatch.setattr(squeezebert.workflows.web, "find_engine", lambda *_: stand_in_engine(tmp_path / "engine"))
    monkeypatch.chdir(tmp_path)
    assert sum(map(run_commands, blocks("browser.md", "sh"))) == 1
    assert "<title>Which folder?</title>" in (tmp_path / "site" / "index.html").read_text()
    (headers,) = blocks("browser.md", "nginx")
    told = dict(re.fullmatch(r'add_header (\S+) "?(.*?)"? always;', line).groups() for line in headers.splitlines())
    assert told == HEADERS


def test_export(tmp_path, monkeypatch, capsys):
    labels = ["calm", "busy", "other"]
    about = {"task": "single_label", "labels": labels, "max_length": 40}
    about |= {"text_columns": {"text": "text", "text_pair": None}, "metrics": {"accuracy": 1.0}}
    model = tiny_model()
    labelled = confident_rows(model, labels, 60)
    save_checkpoint(tmp_path / "model", model, about, labelled)
    rows = [f"{row['text']},{row['label']}" for row in labelled]
    (tmp_path / "labelled.csv").write_text("message,folder\n" + "\n".join(rows) + "\n")
    for name in ("new.csv", "texts.csv"):
        (tmp_path / name).write_text("text\n" + "\n".join(texts(60, seed=3)) + "\n")
    monkeypatch.chdir(tmp_path)
    assert sum(map(run_commands, blocks("export.md", "sh"))) == 7
    assert "accuracy 1.0000" in capsys.readouterr().err
    (code,) = blocks("export.md", "python")
    assert run_python(code)["manifest"]["verification"].keys() == {"fp32", "int8"}
    # The table of files is what is there
    told = set(
        re.findall(r"`([\w./]+\.(?:json|onnx))`", (DOCS / "export.md").read_text().partition("in the folder")[2])
    )
    there = {path.relative_to("exported").as_posix() for path in Path("exported").rglob("*") if path.is_file()}
    assert there <= told


SUBJECTS = {"delivery": ["train", "boat"], "payments": ["letter", "paper"], "newsletters": ["garden", "green"]}


def test_moderation(tmp_path, monkeypatch, capsys):
    about = {"task": "single_label", "labels": ["fine", "rude", "spam"], "max_length": 40}
    about["text_columns"] = {"text": "text", "text_pair": None}
    checkpoint = save_checkpoint(tmp_path / "checkpoint", tiny_model(), about)
    export_checkpoint(checkpoint, tmp_path / "exported", ExportOptions(threads=1, force=True))
    posts = texts(120, seed=3)
    rude = np.array([answer.probabilities["rude"] for answer in load(tmp_path / "exported", 1).predict(posts)])
    labels = np.where(rude > np.quantile(rude, 0.7), "rude", "fine")
    rows = "text,label\n" + "".join(f"{text},{label}\n" for text, label in zip(posts, labels, strict=True))
    (tmp_path / "validation.csv").write_text(rows)
    (tmp_path / "posts.csv").write_text("text\n" + "".join(f"{text}\n" for text in posts))
    monkeypatch.chdir(tmp_path)
    assert sum(map(run_commands, blocks("moderation.md", "sh"))) == 2
    assert len((tmp_path / "audit.jsonl").read_text().splitlines()) == 120
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    outcomes = [line["outcome"] for line in lines]
    assert 60 < outcomes.count("allow") < 100
    (block,) = blocks("moderation.md", "python")
    capsys.readouterr()
    assert run_python(block)["decision"].outcome in capsys.readouterr().out
    (policy,) = blocks("moderation.md", "yaml")
    shutil.copyfile("policy.yaml", "chosen.yaml")
    (tmp_path / "policy.yaml").write_text(policy)
    assert read_policy(tmp_path / "policy.yaml").labels.keys() == yaml.safe_load(policy)["labels"].keys()
    run_python(block)


def rows_of(count, seed, label=True):
    random = np.random.default_rng(seed)
    lines = ["message,folder" if label else "message"]
    for number in range(count):
        name = list(SUBJECTS)[number % len(SUBJECTS)]
        text = f"{' '.join(random.choice(SUBJECTS[name], 4))} {number} {seed}"
        lines.append(f"{text},{name}" if label else text)
    return "".join(f"{line}\n" for line in lines)


def test_folders(encoder, tmp_path, monkeypatch, capsys):
    (tmp_path / "examples.csv").write_text(rows_of(90, 1))
    (tmp_path / "more.csv").write_text(rows_of(30, 2))
    (tmp_path / "new.csv").write_text(rows_of(45, 3, label=False))
    monkeypatch.chdir(tmp_path)
    exported, learned, more = blocks("folders.md", "sh")
    shutil.copytree(encoder.folder.parent / "checkpoint", tmp_path / "DIR_OR_HUB_ID")
    assert run_commands(exported) == 1
    assert run_commands(learned) == 3
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    right = [row["likely"][0]["folder"] == list(SUBJECTS)[i % 3] for i, row in enumerate(rows)]
    assert np.mean(right) > 0.8
    page = (DOCS / "folders.md").read_text()
    assert all(f"`{key}`" in page for key in rows[0])
    shown = capsys.readouterr().out
    assert all(name in shown for name in SUBJECTS)
    assert run_commands(more) == 2
    (block,) = blocks("folders.md", "python")
    sorter = run_python(block)["sorter"]
    assert sorter.counts().keys() == {"delivery", "payments"}
    assert len(sorter) == 82
    assert capsys.readouterr().out


def test_ranking(encoder, tmp_path, monkeypatch, capsys):
    (tmp_path / "items.csv").write_text(rows_of(60, 1, label=False))
    for name, words in (("liked", "train boat"), ("disliked", "letter paper")):
        (tmp_path / f"{name}.txt").write_text("".join(f"{words} {number}\n" for number in range(4)))
    shutil.copytree(encoder.folder.parent / "checkpoint", tmp_path / "DIR_OR_HUB_ID")
    monkeypatch.chdir(tmp_path)
    (block,) = blocks("ranking.md", "sh")
    assert run_commands(block) == 2
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 20
    page = (DOCS / "ranking.md").read_text()
    assert all(f"`{key}`" in page for key in rows[0])
    kept = (tmp_path / "vectors.npz").stat().st_size
    (block,) = blocks("ranking.md", "python")
    run_python(block)
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert (tmp_path / "vectors.npz").stat().st_size > kept


def test_summaries(encoder, tmp_path, monkeypatch, capsys):
    document = "Boats\n\nThe boat was late. Seven wait by the river. It rained.\n\nThe train was early again. Yes."
    (tmp_path / "article.txt").write_text(document)
    shutil.copytree(encoder.folder.parent / "checkpoint", tmp_path / "DIR_OR_HUB_ID")
    monkeypatch.chdir(tmp_path)
    (block,) = blocks("summaries.md", "sh")
    assert run_commands(block) == 5
    lines = capsys.readouterr().out.splitlines()
    assert lines[3:6] == ["The boat was late.", "Seven wait by the river.", "The train was early again."]
    rows = [json.loads(line) for line in (tmp_path / "sentences.jsonl").read_text().splitlines()]
    assert [document[row["start"] : row["end"]] for row in rows] == [row["text"] for row in rows]
    (block,) = blocks("summaries.md", "python")
    run_python(block)
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_copies(tmp_path, monkeypatch, capsys):
    save_checkpoint(tmp_path / "encoder", tiny_model(num_hidden_layers=1).transformer)
    posts = texts(40, seed=3)
    rows = [*posts, *(text.upper() for text in posts[:5])]
    (tmp_path / "posts.csv").write_text("text\n" + "".join(f"{text}\n" for text in rows))
    pairs = [(text, text.replace("the", "this")) for text in posts if "the" in text]
    pairs += list(zip(posts, texts(40, seed=4), strict=True))
    (tmp_path / "pairs.csv").write_text("question1,question2\n" + "".join(f"{a},{b}\n" for a, b in pairs))
    more = texts(60, seed=5)
    labelled = [f"{text},{text} again,1\n" for text in more]
    labelled += [f"{a},{b},0\n" for a, b in zip(more, texts(60, seed=6), strict=True)]
    (tmp_path / "labelled.csv").write_text("question1,question2,is_duplicate\n" + "".join(labelled))
    monkeypatch.chdir(tmp_path)
    assert sum(map(run_commands, blocks("copies.md", "sh"))) == 6
    groups = [json.loads(line) for line in (tmp_path / "groups.jsonl").read_text().splitlines()]
    found = {member["line"]: group["centre"]["line"] for group in groups for member in group["members"]}
    assert all(found[number + 42] == found[number + 2] for number in range(5))
    assert len((tmp_path / "scores.jsonl").read_text().splitlines()) == len(pairs)
    assert read_rule(tmp_path / "rule.yaml").chosen["reached"]["precision"][0] >= 0.9
    (block,) = blocks("copies.md", "python")
    capsys.readouterr()
    assert "0 1 True 1.0" in run_python_output(block, capsys)


def run_python_output(block, capsys):
    """What a Python block prints."""
    run_python(block)
    return capsys.readouterr().out


def test_sentence_transformers(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "encoder", tiny_model(num_hidden_layers=1).transformer)
    monkeypatch.chdir(tmp_path)
    assert sum(map(run_commands, blocks("sentence-transformers.md", "sh"))) == 1
    first, second = blocks("sentence-transformers.md", "python")
    names = run_python(first)
    expected = load("exported", 1).encode(["The train was late again.", "A quiet morning by the river."])
    np.testing.assert_array_equal(names["vectors"], expected)
    assert run_python(second)["model"].get_embedding_dimension() == 32


def test_bulk_commands_are_understood():
    """Here they are only parsed: the slow test runs them."""
    parser = build_parser()
    commands = [line for block in blocks("bulk.md", "sh") for line in block.splitlines() if line[:11] == "squeezebert"]
    for command in commands:
        parsed = parser.parse_args(shlex.split(command)[1:])
        assert parsed.verb == "predict"
    assert len(commands) == 1


@pytest.mark.slow
def test_bulk(tmp_path, monkeypatch):
    about = {"task": "single_label", "labels": ["fine", "rude", "spam"], "max_length": 40}
    about["text_columns"] = {"text": "text", "text_pair": None}
    checkpoint = save_checkpoint(tmp_path / "checkpoint", tiny_model(), about)
    export_checkpoint(checkpoint, tmp_path / "exported", ExportOptions(threads=1, force=True))
    (tmp_path / "messages").mkdir()
    for number in range(3):
        rows = "text\n" + "".join(f"{text}\n" for text in texts(30, seed=number))
        (tmp_path / "messages" / f"{number}.csv").write_text(rows)
    monkeypatch.chdir(tmp_path)
    assert sum(map(run_commands, blocks("bulk.md", "sh"))) == 1
    assert json.loads((tmp_path / "answers" / "answers.json").read_text())["rows"] == 90
    assert sorted(path.name for path in (tmp_path / "answers").glob("*.jsonl"))[2] == "00002-000000.jsonl"


def test_completion(words, tmp_path, monkeypatch, capsys):
    shutil.copytree(words.checkpoint, tmp_path / "pretrained")
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in SENTENCES))
    (tmp_path / "sentences.csv").write_text("body\nthe green ___ is on the quiet river.\n")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(Path(__file__).parents[1] / "models", tmp_path / "models")
    small, export, complete, benchmark = blocks("completion.md", "sh")
    assert run_commands(small) == 1
    (gap,) = json.loads(capsys.readouterr().out)["gaps"]
    assert "door" in [word["word"] for word in gap["words"]]
    assert (run_commands(export), run_commands(complete)) == (1, 3)
    capsys.readouterr()
    assert json.loads((tmp_path / "filled.jsonl").read_text())["filled"] == "the green boat is on the quiet river."
    assert benchmark.startswith("python benchmarks/completion.py --data DIR --model ")
    (block,) = blocks("completion.md", "python")
    run_python(block)
    said = capsys.readouterr().out
    assert "('table', " in said
    assert said.endswith("evening\n")


def test_grammar(marker, words, single, tmp_path, monkeypatch, capsys):
    save_encoder(tmp_path / "encoder")
    (tmp_path / "corpus").mkdir()
    write_text(tmp_path / "corpus" / "text.txt")
    shutil.copytree(words.output, tmp_path / "words")
    shutil.copytree(single.output, tmp_path / "acceptable")
    wrong = "The green boat is on the rivr and it was late for the table."
    (tmp_path / "posts.csv").write_text(f"text\n{wrong}\nIt was late.\n")
    (tmp_path / "recipes").mkdir()
    small = {
        name.removeprefix("--").replace("-", "_"): float(value)
        for name, value in zip(SHORT[::2], SHORT[1::2], strict=True)
    }
    small |= {"steps": 300.0}
    whole = {name: int(value) if value == int(value) else value for name, value in small.items()}
    (tmp_path / "recipes" / "marker.yaml").write_text(yaml.safe_dump(whole))
    monkeypatch.chdir(tmp_path)
    train, check, benchmark, constants = blocks("grammar.md", "sh")
    assert run_commands(train) == 2
    shutil.rmtree("checker")
    shutil.copytree(marker.output, "checker")
    capsys.readouterr()
    assert run_commands(check) == 2
    (mark,) = json.loads(capsys.readouterr().out)["marks"]
    assert (mark["word"], mark["kind"], mark["suggestions"]) == ("rivr", "spelling", ["river"])
    rows = [json.loads(line) for line in (tmp_path / "marks.jsonl").read_text().splitlines()]
    assert [len(row["sentences"]) for row in rows] == [1, 1]
    assert rows[0]["marks"][0]["suggestions"][0] == "river"
    (block,) = blocks("grammar.md", "python")
    run_python(block)
    assert capsys.readouterr().out == "25 29 rivr spelling ('river',)\n"
    assert benchmark.startswith("python benchmarks/grammar.py --data DIR --work DIR")
    assert constants.startswith("python benchmarks/suggestions.py --data DIR --marker ")
