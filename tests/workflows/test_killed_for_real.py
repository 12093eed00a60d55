"""SIGKILL at arbitrary moments of a real training process, saves included: the repeated command ends the same."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from conftest import topic_rows
from dense_models import bert, classifier, text_file


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
def test_sigkill_at_any_moment_changes_nothing(overwrite, tiny_base, tmp_path):
    table = tmp_path / "topics.csv"
    table.write_text("message,folder\n" + "".join(f'"{text}",{topic}\n' for text, topic in topic_rows(300)))

    def command(output):
        told = [sys.executable, "-m", "squeezebert", "train", str(table), "--base", str(tiny_base)]
        told += ["--output", str(tmp_path / output), "--epochs", "6", "--batch-size", "4", "--save-every", "20"]
        return [*told, "--learning-rate", "1e-3", "--patience", "0", *(["--overwrite"] if overwrite else [])]

    subprocess.run(command("whole"), check=True, capture_output=True)
    # Each time a little longer, so that kills fall before, during and after saves
    for seconds in (4.0, 6.0, 7.0, 7.5, 8.0):
        process = subprocess.Popen(command("cut"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        time.sleep(0.1)
        if (tmp_path / "cut" / "squeezebert.json").exists():
            break
    if not (tmp_path / "cut" / "squeezebert.json").exists():
        subprocess.run(command("cut"), check=True, capture_output=True)
    whole, cut = (json.loads((tmp_path / name / "squeezebert.json").read_text()) for name in ("whole", "cut"))
    assert cut["metrics"] == whole["metrics"]
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)


# What a squeezing process says when a stage begins or ends, and how long it may go on after that
MOMENTS = [
    ("shape:", 0.0),
    ("tokenised", 0.0),
    ("looking for", 0.02),
    ("in that order", 0.0),
    ("fitted layer 1", 0.0),
    ("fitted layer 2", 0.01),
    ("to learn from", 0.1),
    ("step 10,", 0.0),
    ("step 20,", 0.005),
    ("step 30,", 0.02),
    ("step 40,", 0.05),
    ("step 60,", 0.0),
    ("step 60,", 0.15),
    ("scoring", 0.0),
    ("scoring", 0.05),
    ("scoring", 0.1),
    ("scoring", 0.15),
]


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_squeeze_killed_at_any_stage_ends_with_the_same_weights(overwrite, tmp_path):
    base, text = classifier(tmp_path / "base", rows=400), text_file(tmp_path, 2000)

    def command(output):
        told = [
            sys.executable,
            "-m",
            "squeezebert",
            "squeeze",
            str(base),
            "--text",
            str(text),
            "--output",
            str(output),
        ]
        told += [
            "--groups",
            "2",
            "--steps",
            "60",
            "--batch-tokens",
            "1000",
            "--save-every",
            "10",
            "--logit-weight",
            "1",
        ]
        return [*told, *(["--overwrite"] if overwrite else [])]

    whole, cut = tmp_path / "whole" / "out", tmp_path / "cut" / "out"
    subprocess.run(command(whole), check=True, capture_output=True)
    old = bert(cut).joinpath("model.safetensors").read_bytes() if overwrite else None
    kills = 0
    for phrase, seconds in MOMENTS:
        process = subprocess.Popen(command(cut), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for line in process.stderr:
            if phrase in line:
                time.sleep(seconds)
                process.send_signal(signal.SIGKILL)
                break
        process.stderr.read()
        kills += process.wait() == -signal.SIGKILL
        if (cut / "squeeze.json").exists():
            break
        if overwrite:  # the old model is there, or, cut off between two renames, beside its place
            places = [cut, *cut.parent.glob(".out.old-*")]
            assert [place.joinpath("model.safetensors").read_bytes() for place in places if place.exists()] == [old]
    assert kills >= 10
    if len(list(cut.parent.iterdir())) > 1 or not (cut / "squeeze.json").exists():
        subprocess.run(command(cut), check=True, capture_output=True)
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, cut))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    first, second = (json.loads((folder / "squeezebert.json").read_text()) for folder in (whole, cut))
    assert first["metrics"] == second["metrics"]
    assert {path.name for path in whole.iterdir()} == {path.name for path in cut.iterdir()}
    assert [path.name for path in cut.parent.iterdir() if not path.name.startswith(".")] == ["out"]
