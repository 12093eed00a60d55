"""`squeezebert folders` as it is typed: learn, sort, show, forget, and what does not fit."""

from __future__ import annotations

import io
import json
import shutil
import socket
from types import SimpleNamespace

import numpy as np
import pytest

from squeezebert.runtime.folders import Folders
from squeezebert.runtime.predictor import load
from typed import refused, run

pytest_plugins = ["exported_folders"]

SUBJECTS = {
    "travel": ["train", "boat", "river", "walk"],
    "home": ["garden", "window", "table", "green"],
    "desk": ["letter", "paper", "read", "write"],
}


def table(path, count, seed, subjects=tuple(SUBJECTS)):
    random = np.random.default_rng(seed)
    names = [str(random.choice(subjects)) for _ in range(count)]
    rows = [f"{' '.join(random.choice(SUBJECTS[name], 4))} {number},{name}" for number, name in enumerate(names)]
    path.write_text("message,folder\n" + "".join(f"{row}\n" for row in rows))
    return path


@pytest.fixture
def mail(encoder, tmp_path):
    """A sorter of three folders, made by the command."""
    table(tmp_path / "examples.csv", 90, 0)
    assert run("folders", "learn", tmp_path / "mail", tmp_path / "examples.csv", "--encoder", encoder.folder) == 0
    return tmp_path / "mail"


def test_what_was_learned_sorts(mail, encoder, tmp_path, capsys):
    new = table(tmp_path / "new.csv", 60, 1)
    assert run("folders", "sort", mail, new, "--output", tmp_path / "answers.jsonl", "--top", 2) == 0
    said = capsys.readouterr().err
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [row["line"] for row in rows] == list(range(2, 62))
    truth = [line.rpartition(",")[2] for line in new.read_text().splitlines()[1:]]
    right = np.array([row["likely"][0]["folder"] == name for row, name in zip(rows, truth, strict=True)])
    assert right.mean() > 0.8
    sure = [row for row in rows if row["folder"] is not None]
    assert all(row["folder"] == row["likely"][0]["folder"] and not row["out_of_scope"] for row in sure)
    assert all(len(row["likely"]) == 2 for row in rows)
    assert f"{len(sure)} sorted, {60 - len(sure)} unsure" in said
    # The command and the library agree
    sorter = Folders.open(mail, load(encoder.folder, 1))
    answers = sorter.sort([row["text"] for row in rows], 2)
    assert [answer.folder for answer in answers] == [row["folder"] for row in rows]


def test_more_is_learned_without_the_old(mail, tmp_path, capsys):
    (tmp_path / "examples.csv").unlink()
    more = tmp_path / "more.csv"
    more.write_text("text,label\n" + "".join(f"seven three early {n},count\n" for n in range(8)))
    assert run("folders", "learn", mail, more) == 0
    assert "8 new examples, 0 moved to another folder, 0 known already; 98 in 4" in capsys.readouterr().err
    assert run("folders", "learn", mail, more) == 0
    assert "0 new examples, 0 moved to another folder, 8 known already; 98 in 4" in capsys.readouterr().err
    more.write_text("text,label\nseven three early 1,desk\n")
    assert run("folders", "learn", mail, more) == 0
    assert "0 new examples, 1 moved" in capsys.readouterr().err
    assert run("folders", "show", mail) == 0
    shown = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line}
    assert shown["count"][0] == "7"
    assert run("folders", "forget", mail, "count", "travel") == 0
    assert "2 folders are left" in capsys.readouterr().err
    assert set(json.loads((mail / "folders.json").read_text())["folders"]) == {"home", "desk"}
    assert "no folder 'count'" in refused(capsys, "folders", "forget", mail, "count")
    assert "alone would be left" in refused(capsys, "folders", "forget", mail, "desk")


def test_how_sure_an_answer_has_to_be_can_be_chosen(mail, tmp_path, capsys):
    nothing = tmp_path / "one.csv"
    nothing.write_text((tmp_path / "examples.csv").read_text().splitlines()[0] + "\ntrain boat,travel\n")
    assert run("folders", "learn", mail, nothing, "--sure-precision", 0, "--scope-share", 0) == 0
    (tmp_path / "odd.txt").write_text("漢字\n7 7 7\nthe\n")
    capsys.readouterr()
    assert run("folders", "sort", mail, tmp_path / "odd.txt") == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(answer["folder"] is not None and not answer["out_of_scope"] for answer in answers)
    assert run("folders", "learn", mail, nothing, "--sure-precision", 0.999, "--scope-share", 0.3) == 0
    capsys.readouterr()
    assert run("folders", "sort", mail, tmp_path / "odd.txt") == 0
    assert "0 sorted, 3 unsure" in capsys.readouterr().err
    assert "--sure-precision 1.0" in refused(capsys, "folders", "learn", mail, nothing, "--sure-precision", 1)


def test_messages_may_be_anything(mail, tmp_path, capsys, monkeypatch):
    odd = ["🙂 مرحبا", "a\x1b[31m\x07", "\u202e\u200b", "x" * 200_000, "", "train boat\u0000"]
    (tmp_path / "odd.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in odd))
    capsys.readouterr()
    assert run("folders", "sort", mail, tmp_path / "odd.jsonl", "--skip-bad-rows") == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["text"] for answer in answers] == odd[: len(answers)]
    assert len(answers) >= 5
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"train boat river\nbad \xff\n")))
    assert "not utf-8" in refused(capsys, "folders", "sort", mail, "-")


def test_a_sorter_finds_its_encoder(mail, encoder, single, tmp_path, capsys):
    shutil.copytree(encoder.folder, tmp_path / "both" / "encoder")
    both = tmp_path / "both" / "mail"
    assert run("folders", "learn", both, tmp_path / "examples.csv", "--encoder", tmp_path / "both" / "encoder") == 0
    shutil.move(tmp_path / "both", tmp_path / "elsewhere")  # moved together, they find each other
    assert run("folders", "show", tmp_path / "elsewhere" / "mail") == 0
    shutil.move(tmp_path / "elsewhere" / "encoder", tmp_path / "gone")
    line = refused(capsys, "folders", "show", tmp_path / "elsewhere" / "mail")
    assert "say where it is now, --encoder" in line
    assert run("folders", "show", tmp_path / "elsewhere" / "mail", "--encoder", tmp_path / "gone") == 0
    # Learning with it notes the new place
    told = ("folders", "learn", tmp_path / "elsewhere" / "mail", tmp_path / "examples.csv")
    assert run(*told, "--encoder", tmp_path / "gone") == 0
    assert run("folders", "show", tmp_path / "elsewhere" / "mail") == 0
    line = refused(capsys, "folders", "show", mail, "--encoder", single.output)
    assert "folders need an encoder, and this is a model of single_label: export the checkpoint" in line


def test_what_cannot_be_learned_is_explained_and_nothing_is_lost(mail, encoder, single, tmp_path, capsys):
    examples = tmp_path / "examples.csv"
    record = (mail / "folders.json").read_bytes()
    for name, text, words in (
        ("pairs.csv", "sentence1,sentence2,label\na,b,c\n", "a message is one text: name its column, --text"),
        ("empty.csv", "text,folder\n", "empty: it holds no rows"),
        ("blank.csv", "text,folder\n ,a\n", "empty text"),
        ("unnamed.csv", "text,folder\nboat,\n", "missing label"),
        ("none.csv", "text,nothing\nboat,b\n", "--label"),
    ):
        (tmp_path / name).write_text(text)
        assert words in refused(capsys, "folders", "learn", mail, tmp_path / name)
    assert "no such file" in refused(capsys, "folders", "learn", mail, tmp_path / "missing.csv")
    assert "--precision" in refused(capsys, "folders", "learn", mail, examples, "--precision", "fp32")
    assert "a message is in one folder" in refused(
        capsys, "folders", "learn", mail, examples, "--label-separator", "|"
    )
    assert (mail / "folders.json").read_bytes() == record
    new = ("folders", "learn", tmp_path / "new", examples)
    assert "is a new sorter: name the exported encoder" in refused(capsys, *new)
    assert "folders need an encoder, and this is a model of single_label" in refused(
        capsys, *new, "--encoder", single.output
    )
    (tmp_path / "one.csv").write_text("text,folder\nboat,a\ntrain,a\n")
    line = refused(capsys, "folders", "learn", tmp_path / "new", tmp_path / "one.csv", "--encoder", encoder.folder)
    assert "all examples are in one folder" in line
    assert not (tmp_path / "new").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    line = refused(capsys, "folders", "learn", tmp_path / "full", examples, "--encoder", encoder.folder)
    assert "is there already, and is no sorter" in line
    assert (tmp_path / "full" / "letter.txt").read_text() == "mine"
    assert "no sorter there" in refused(capsys, "folders", "sort", tmp_path / "full", examples)
    assert "no sorter there" in refused(capsys, "folders", "show", examples)
    (tmp_path / "empty").mkdir()
    assert run("folders", "learn", tmp_path / "empty", examples, "--encoder", encoder.folder) == 0
    told = ("folders", "sort", mail, examples, "--output", tmp_path / "none" / "out.jsonl")
    assert "there is no folder" in refused(capsys, *told)
    (tmp_path / "out.jsonl").write_text("mine")
    told = ("folders", "sort", mail, examples, "--output", tmp_path / "out.jsonl")
    assert "is there already" in refused(capsys, *told)
    assert run(*told, "--overwrite") == 0
    assert "reads or keeps" in refused(capsys, *told[:-1], examples)
    assert "--top 0" in refused(capsys, *told, "--top", 0)


def test_a_sorter_that_a_kill_left_aside_is_found(mail, encoder, tmp_path, capsys):
    # As a kill between the two renames leaves it; no process has this number
    mail.rename(mail.parent / f".mail.old-{socket.gethostname().replace('-', '_')}-4194999-0123abcd")
    more = tmp_path / "more.csv"
    more.write_text("text,label\nthe quiet garden,garden\n")
    assert run("folders", "learn", mail, more) == 0
    said = "".join(capsys.readouterr())
    assert "1 new examples" in said
    assert "which were 0" not in said
    assert not list(mail.parent.glob(".mail*"))


def test_folders_of_one_example_are_kept_as_json(encoder, tmp_path):
    table = tmp_path / "two.csv"
    table.write_text("text,label\na boat,water\na letter,post\n")
    assert run("folders", "learn", tmp_path / "mail", table, "--encoder", encoder.folder) == 0
    record = (tmp_path / "mail" / "folders.json").read_text()
    assert json.loads(record, parse_constant=pytest.fail)["quality"]["least_familiar"] is None
    assert run("folders", "show", tmp_path / "mail") == 0
