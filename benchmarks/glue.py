"""GLUE on what is at hand: MiniLM-L6 and what `squeeze` makes of it, plain and distilled, five tasks in full.

python benchmarks/glue.py --data DIR --work DIR [--steps teachers,squeeze,distil,plain,measure] [--tasks CoLA,RTE]

Every step is a command of `squeezebert`, printed before it runs; what is finished in the work folder is not run
again, and what was cut off goes on. Two more steps say whether the recipe holds the teachers back: `longer` (CoLA,
twice the epochs) and `mnli-first` (RTE from a model of MNLI's sample; `--tasks MNLI` is to be run before). After each
step the findings of all runs are copied to benchmarks/results/glue, with the answers of each task's best run:
`squeezebert glue report benchmarks/results/glue` shows them. QNLI's training rows, QQP and MNLI are samples, and are
marked as such.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
from pathlib import Path

from glue_samples import link_samples
from squeeze import BASE, RESULTS

from squeezebert.cli import main as squeezebert
from squeezebert.data.glue import GLUE
from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.workflows.glue.results import MEASURED, MODEL, PREDICTIONS, RESULT, summarise

TASKS = "CoLA,STS-B,RTE,WNLI,SST-2"
ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes"
# Squeezed encoders -> how `squeeze` shapes them; not healed, because each is fitted to its task's teacher first
SQUEEZED = {
    "low-rank": [],
    "groups-4-rank-32": ["--groups", "4", "--rank", "32"],
    "groups-4": ["--groups", "4"],
}


def commands(step: str, data: Path, work: Path, tasks: str, students: list[str]) -> list[list[str]]:
    """The commands of a step."""
    glue, tables = work / "out", link_samples(data / "glue", work / "glue")
    whole = [task for task in tasks.split(",") if any((tables / task).glob("test*.tsv"))]
    run = ["glue", "run", "--output", glue, "--data-dir", tables, "--precision", "bf16", "--workers", "2"]
    some = [
        [*run, "--tasks", *names, *more]
        for names, more in ((whole, []), ([task for task in tasks.split(",") if task not in whole], ["--no-test"]))
        if names
    ]
    plain, distil = (["--recipe", RECIPES / f"glue-{name}.yaml"] for name in ("small", "distil-small"))
    named = ["--model", *(f"{name}={work / name}" for name in students)]
    longer = ["--name", "plain-12-epochs", "--epochs", "12", "--learning-rates", "5e-5", "--seeds", "1"]
    seeded = ["--learning-rates", "5e-5", "--seeds", "1", "2"]
    there = summarise(glue) if glue.is_dir() else []
    mnli = [r.best for r in there if (r.model, r.recipe, r.task) == ("minilm", "plain", "MNLI")]
    from_mnli = (mnli or [glue / "minilm" / "plain" / "MNLI"])[0] / MODEL  # told if missing
    steps = {
        "teachers": [[*one, "--model", f"minilm={BASE}", *plain] for one in some],
        # Whether the recipe holds the teachers back: twice the epochs, and MNLI first
        "longer": [[*run, "--tasks", "CoLA", "--model", f"minilm={BASE}", *plain, *longer]],
        "mnli-first": [[*run, "--tasks", "RTE", "--model", f"minilm-mnli={from_mnli}", *plain, *seeded]],
        "squeeze": [
            ["squeeze", BASE, "--text", data / "corpus" / "wikipedia", "--no-heal", "--output", work / name, *shape]
            for name, shape in SQUEEZED.items()
            if name in students and not (work / name).exists()
        ],
        "distil": [[*one, *named, "--teacher", "minilm/plain", *distil] for one in some],
        "plain": [[*one, *named, *plain] for one in some],
        "measure": [["glue", "measure", glue]],
    }
    return [[str(part) for part in command] for command in steps[step]]


def record(work: Path, data: Path) -> None:
    """Copy what the runs found to the repository, without this machine's folders in it."""
    glue, kept = work / "out", RESULTS / "glue"
    places = {str(work / "glue"): "GLUE", str(glue): "OUTPUT", str(BASE): "MINILM", str(BASE.resolve()): "MINILM"}
    places |= {str(work): "WORK", str(data): "DATA", str(ROOT): "."}
    best = {result.best for result in summarise(glue)}
    for path in [*glue.glob(f"*/*/*/*/{RESULT}"), *glue.glob(MEASURED)]:
        text = path.read_text(encoding="utf-8")
        for place in sorted(places, key=len, reverse=True):
            text = text.replace(place, places[place])
        json.loads(text)
        copy = kept / path.relative_to(glue)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text, encoding="utf-8")
        if path.parent in best:
            shutil.copy(path.parent / PREDICTIONS, copy.parent / PREDICTIONS)
        else:
            (copy.parent / PREDICTIONS).unlink(missing_ok=True)
    told = {"command": "python benchmarks/glue.py --data DATA --work WORK", "machine": describe_machine()}
    told["versions"] = package_versions()
    (RESULTS / "glue.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def share_teachers(work: Path) -> None:
    """Leave the best plain MiniLM of each task where squeeze.py and export_accuracy.py look for teachers."""
    for result in summarise(work / "out"):
        found = json.loads((result.best / RESULT).read_text(encoding="utf-8"))
        if (result.model, result.recipe) == ("minilm", "plain") and (result.best / MODEL / "config.json").is_file():
            watched = next(iter(found["tables"].values()))[GLUE[result.task].watched]
            folder = (result.best / MODEL).relative_to(work)
            told = {"task": result.task, "rate": found["learning_rate"], "score": 100 * watched, "folder": str(folder)}
            path = work / "teachers" / f"{result.task}-{found['learning_rate']:g}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(told | {"from": "glue.py"}, indent=1), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", default="teachers,squeeze,distil,plain,measure", help="none: record alone")
    parser.add_argument("--tasks", default=TASKS)
    parser.add_argument("--students", default=",".join(SQUEEZED))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    for step in [name for name in options.steps.split(",") if name not in ("", "none")]:
        for command in commands(step, options.data, options.work, options.tasks, options.students.split(",")):
            print(shlex.join(["squeezebert", *command]), flush=True)
            code = squeezebert(command)
            if code:
                raise SystemExit(code)
        record(options.work, options.data)
    record(options.work, options.data)
    share_teachers(options.work)


if __name__ == "__main__":
    main()
