"""`squeezebert check` as it is typed: texts and tables, suggestions, whole sentences, errors."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from squeezebert.cli import main
from typed import refused, run

pytest_plugins = ["exported_folders"]

WRONG = "The green boat is on the rivr and it was late for the table."


def lines_of(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_typed_text_is_checked(marker, words, single, capsys):
    assert run("check", marker.output, WRONG, "--suggestions", 1) == 0
    (line,) = lines_of(capsys)
    (mark,) = line["marks"]
    assert (mark["start"], mark["end"], mark["word"], mark["kind"]) == (25, 29, "rivr", "spelling")
    assert mark["suggestions"] == ["river"]
    assert "sentences" not in line
    told = ("--words", words.output, "--acceptability", single.output, "--threads", 1, "--precision", "fp32")
    assert run("check", marker.output, WRONG, *told) == 0
    (line,) = lines_of(capsys)
    assert line["marks"][0]["suggestions"][0] == "river"
    assert line["sentences"][0].keys() == {"start", "end", "label", "probability"}


def test_tables_are_read_as_by_predict(marker, tmp_path, capsys):
    (tmp_path / "texts.txt").write_bytes(f"{WRONG}\n\n\xff\n".encode("latin-1"))
    told = ("check", marker.output, tmp_path / "texts.txt", "--output", tmp_path / "out.jsonl")
    assert run(*told) == 1
    assert "texts.txt:3" in capsys.readouterr().err
    assert run(*told, "--skip-bad-rows", "--overwrite") == 0
    assert "skipped 1 rows" in capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(lines[0]["marks"]) == 1


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (["a", "--suggestions", "-1"], "--suggestions -1"),
        (["gone.csv"], "gone.csv: no such file"),
        (["a", "--words", "nowhere"], "nowhere: no such folder"),
        (["a", "--threads", "0"], "--threads 0"),
    ],
)
def test_what_does_not_fit_is_explained(marker, capsys, told, reason):
    assert run("check", marker.output, *told) == 1
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (["check", "a", "b", "--threads", "abc"], "--threads abc: expected a whole number"),
        (["folders", "learn", "a", "b", "--sure-precision", "nan"], "--sure-precision nan: expected a number"),
        (["serve", "a", "--timeout", "nan"], "--timeout nan: expected a number"),
        (["check", "a", "b", "--precision", "int7"], "--precision int7: expected one of 'fp32', 'int8'"),
    ],
)
def test_values_of_another_type_are_explained(told, reason, capsys):
    with pytest.raises(SystemExit) as ended:
        main(told)
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {reason}"


def test_another_model_is_refused(single, capsys):
    assert run("check", single.output, "a") == 1
    assert "not a marker of words: `squeezebert train-marker` makes one" in capsys.readouterr().err


def test_neither_verb_needs_torch(marker, words):
    blocked = ["torch", "transformers", "datasets", "sklearn", "scipy", "onnx", "accelerate", "safetensors", "pyarrow"]
    code = f"""
import sys
for name in {blocked!r}:
    sys.modules[name] = None
from squeezebert.cli import main
status = main(["complete", {str(words.output)!r}, "it was ___ in the evening."])
raise SystemExit(status or main(["check", {str(marker.output)!r}, {WRONG!r}, "--words", {str(words.output)!r}]))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    filled, checked = map(json.loads, result.stdout.splitlines())
    assert filled["filled"] == "it was late in the evening."
    assert checked["marks"][0]["suggestions"][0] == "river"


def test_bench_measures_other_models(marker, words, tmp_path, capsys):
    for folder in (marker.output, words.output):
        assert run("bench", folder, "--output", tmp_path / "bench") == 1
        assert "models that answer for whole texts are measured" in capsys.readouterr().err


def test_an_empty_text_is_no_name_of_this_folder(marker, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.csv").write_text("text\nthe boat\n")
    assert "an empty text" in refused(capsys, "check", marker.output, "")
