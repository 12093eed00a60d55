"""The how-to pages, run as they are written."""

from __future__ import annotations

import json
import shutil

import numpy as np
import yaml

from marker_text import SHORT, save_encoder, write_text
from masked_models import SENTENCES
from pages import blocks, run_commands, run_python
from squeezebert.export.exporter import export_checkpoint
from squeezebert.export.options import ExportOptions
from squeezebert.runtime.moderation import read_policy
from squeezebert.runtime.predictor import load
from tiny_checkpoints import save_checkpoint, texts, tiny_model

pytest_plugins = ["exported_folders"]


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


def test_completion(words, tmp_path, monkeypatch, capsys):
    shutil.copytree(words.checkpoint, tmp_path / "pretrained")
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in SENTENCES))
    (tmp_path / "sentences.csv").write_text("body\nthe green ___ is on the quiet river.\n")
    monkeypatch.chdir(tmp_path)
    export, complete, benchmark = blocks("completion.md", "sh")
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
    train, check, benchmark = blocks("grammar.md", "sh")
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
