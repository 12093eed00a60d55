"""What an exported file loses: accuracy and size of each way to write one, for teachers and squeezed students.

python benchmarks/export_accuracy.py --data DIR --work DIR [--tasks SST-2,CoLA,STS-B,QNLI,banking77] [--forms A,B]

Works on the teachers that `glue.py` or `squeeze.py teachers` left in the work folder, and on low-rank students
squeezed from them and distilled for 200,000 tokens. Each is exported in int8 with dynamic and with static ranges, with
word embeddings in 4 bits, with words of fewer channels, and pruned to the vocabulary of its training texts. Accuracy
is that of the rows that training did not see, rows paired. A run that was cut off goes on where it was; tasks that
are not asked for keep their cells. `--forms` are words of the forms to write, all by default.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from squeeze import BASE, CONVERSIONS, RESULTS, Runs, Task, calibration, heal, load_task, teacher_of
from squeeze_controls import SHAPES
from transformers import AutoTokenizer
from transformers.utils import logging

from squeezebert.export.exporter import export_checkpoint
from squeezebert.export.options import ExportOptions
from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.workflows.options import PruneOptions
from squeezebert.workflows.prune import prune

TOKENS = 200_000
# Name -> what is exported, and how
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "int8, dynamic ranges": ("whole", {}),
    "int8, static ranges, minmax": ("whole", {"activations": "static", "ranges": "minmax"}),
    "int8, static ranges, percentile": ("whole", {"activations": "static", "ranges": "percentile"}),
    "int8, static ranges, mse": ("whole", {"activations": "static", "ranges": "mse"}),
    "int8, words in 4 bits": ("whole", {"embeddings": "int4"}),
    "int8, words of 128 channels": ("narrow", {}),
    "int8, pruned": ("pruned", {}),
    "int8, pruned, words in 4 bits": ("pruned", {"embeddings": "int4"}),
}


def texts_of(task: Task) -> list[Any]:
    return [e.text if e.text_pair is None else (e.text, e.text_pair) for e in task.data.train]


def student_of(task: Task, runs: Runs) -> Path:
    """A low-rank student of the task's teacher, made once."""
    folder = runs.work / "students" / task.name
    if not (folder / "squeezebert.json").exists():
        teacher, _ = teacher_of(task, runs)
        tokenizer = AutoTokenizer.from_pretrained(BASE)
        student = CONVERSIONS["fit on own inputs"](teacher, SHAPES["low rank"], calibration(task, tokenizer))
        heal(task, teacher, student, folder, tokens=TOKENS, seed=1, rate=2e-4, keep=True)
    return folder


# How `prune` makes each kind of checkpoint
PRUNED: dict[str, dict[str, int]] = {"pruned": {}, "narrow": {"least": 0, "word_rank": 128}}


def pruned(checkpoint: Path, what: str, task: Task, runs: Runs) -> Path:
    """The checkpoint with the vocabulary of the training texts, or with narrower words, made once."""
    folder = runs.work / what / f"{task.name}-{'-'.join(checkpoint.parts[-2:])}"
    if not (folder / "squeezebert.json").exists():
        corpus = runs.work / what / f"{task.name}.jsonl"
        corpus.parent.mkdir(parents=True, exist_ok=True)
        rows = [text if isinstance(text, str) else " ".join(text) for text in texts_of(task)]
        corpus.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), encoding="utf-8")
        options = PruneOptions(str(checkpoint), [str(corpus)], str(folder), overwrite=True, **PRUNED[what])
        prune(options, "prune", lambda line: None)
    return folder


def measure(tasks: list[Task], runs: Runs, threads: int, words: list[str]) -> Iterator[dict[str, Any]]:
    for task in tasks:
        _, cell = teacher_of(task, runs)
        for kind in ("teacher", "student"):
            checkpoint = runs.work / cell["folder"] if kind == "teacher" else student_of(task, runs)
            for form, (what, options) in FORMS.items():
                if not any(word in form for word in words):
                    continue

                def run(
                    checkpoint: Path = checkpoint,
                    kind: str = kind,
                    what: str = what,
                    options: dict[str, Any] = options,
                    task: Task = task,
                ) -> dict[str, Any]:
                    source = checkpoint if what == "whole" else pruned(checkpoint, what, task, runs)
                    output = runs.work / f"exported-{task.name}"
                    report = export_checkpoint(
                        source,
                        output,
                        ExportOptions(threads=threads, force=True, overwrite=True, **options),
                        calibration=texts_of(task) if "activations" in options else None,
                    )
                    shutil.rmtree(output)
                    found = report.manifest
                    return {
                        "megabytes": {name: file.bytes / 1e6 for name, file in found.files.items()},
                        "verification": {name: asdict(one) for name, one in found.verification.items()},
                    }

                made = runs.cell("export_accuracy", f"{task.name} {kind} {form}", run)
                yield made | {"task": task.name, "kind": kind, "form": form}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tasks", default="SST-2,CoLA,STS-B,QNLI,banking77")
    parser.add_argument("--forms", default="int8")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    tasks = [load_task(name, options.data, options.work) for name in options.tasks.split(",")]
    # Runs of some tasks and forms add to one record
    command = "python benchmarks/export_accuracy.py --data DATA --work WORK"
    place = RESULTS / "export_accuracy.json"
    before = json.loads(place.read_text(encoding="utf-8"))["cells"] if place.exists() else []
    done = list(measure(tasks, Runs(options.work), options.threads, options.forms.split(",")))
    kept = [cell for cell in before if cell["task"] not in {task.name for task in tasks}]
    record = {
        "command": command,
        "machine": describe_machine(),
        "versions": package_versions(),
        "cells": [*kept, *done],
    }
    place.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
