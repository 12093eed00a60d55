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
