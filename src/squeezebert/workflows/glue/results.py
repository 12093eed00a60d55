"""The folder of results: which training runs there are, what each found, and where its predictions and weights are.

Serves `run.py`, `measure.py`, `report.py` and `submit.py`. A run's folder is OUTPUT/MODEL/RECIPE/TASK/RUN with
result.json (written last), predictions.npz, log.txt and, where it is kept, model/.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from squeezebert.data.glue import GLUE
from squeezebert.files.errors import FolderError

RESULT, PREDICTIONS, MODEL, LOG = "result.json", "predictions.npz", "model", "log.txt"
BEGUN = "begun.json"
MEASURED = "measured.json"


@dataclass(frozen=True)
class Cell:
    """One training run: a model, a recipe, a task, and what of the grid it is."""

    model: str
    """Name of the model."""
    recipe: str
    """Name of the recipe."""
    task: str
    """Name of the task."""
    learning_rate: float
    """Peak learning rate."""
    dropout: float | None
    """Dropout, where it is part of the grid."""
    seed: int
    """Seed."""

    @property
    def run(self) -> str:
        """Name of the run's folder."""
        dropout = "" if self.dropout is None else f"_dropout-{self.dropout:g}"
        return f"rate-{self.learning_rate:g}{dropout}_seed-{self.seed}"

    def folder(self, output: Path) -> Path:
        """Return where its results are."""
        return output / self.model / self.recipe / self.task / self.run

    def __str__(self) -> str:
        return f"{self.model}, {self.recipe}, {self.task}, {self.run}"


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return what a finished run found, or None. Raises `FolderError` for a damaged file."""
    path = folder / RESULT
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for name in ("model", "recipe", "task", "learning_rate", "dropout", "seed", "in_grid", "score", "tables"):
            found[name]
        if found["task"] not in GLUE or not isinstance(found["subsets"], list):
            raise ValueError("it is not as glue run writes it")
    except (ValueError, KeyError, TypeError) as error:
        raise FolderError(f"{path}: damaged ({type(error).__name__}: {error}); delete it to run it again") from error
    return found


def write_result(folder: Path, found: dict[str, Any], predictions: dict[str, np.ndarray]) -> None:
    """Write a run's predictions, then what it found: a folder with the latter is complete."""
    part = folder / f".{PREDICTIONS}"
    with part.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **predictions)
    part.replace(folder / PREDICTIONS)
    part = folder / f".{RESULT}"
    part.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(folder / RESULT)


def read_predictions(folder: Path) -> dict[str, np.ndarray]:
    """Return a run's answers by table: scores of labels (N, L), or numbers (N,). Raises `FolderError` without them."""
    try:
        with np.load(folder / PREDICTIONS, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, KeyError) as error:
        raise FolderError(
            f"{folder / PREDICTIONS}: cannot be read ({error}); delete the folder to run it again"
        ) from error


def all_results(output: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the folder and findings of every finished run. Raises `FolderError` where `output` is no folder."""
    if not output.is_dir():
        raise FolderError(f"{output}: no such folder; `squeezebert glue run --output {output}` makes one")
    for path in sorted(output.glob(f"*/*/*/*/{RESULT}")):
        found = read_result(path.parent)
        if found is not None:
            yield path.parent, found


@dataclass(frozen=True)
class TaskResult:
    """What all runs of one model, recipe and task came to."""

    model: str
    """Name of the model."""
    recipe: str
    """Name of the recipe."""
    task: str
    """Name of the task."""
    scores: tuple[float, ...]
    """The score of each seed at the chosen learning rate and dropout, in the order of the seeds."""
    best: Path
    """Folder of the run with the best score."""
    chosen: dict[str, Any]
    """Learning rate and dropout that were chosen."""
    grid: tuple[dict[str, Any], ...]
    """Findings of every run, those of other learning rates as well."""
    subsets: tuple[str, ...]
    """Tables that have not the official number of rows."""
    diverged: int = 0
    """Seeds at the chosen learning rate and dropout that came to nothing."""

    @property
    def median(self) -> float:
        """Median over the seeds."""
        return statistics.median(self.scores)


def summarise(output: Path) -> list[TaskResult]:
    """Group the finished runs by model, recipe and task, in the order of the tasks on the leaderboard.

    Learning rate and dropout are those of the best first-seed run, as `glue run` chooses them; runs that diverged have
    no score and count for nothing.
    """
    groups: dict[tuple[str, str, str], list[tuple[Path, dict[str, Any]]]] = {}
    for folder, found in all_results(output):
        groups.setdefault((found["model"], found["recipe"], found["task"]), []).append((folder, found))
    order = {name: place for place, name in enumerate(GLUE)}
    results = []
    for (model, recipe, task), runs in sorted(groups.items(), key=lambda item: (item[0][:2], order[item[0][2]])):
        scored = [(folder, found) for folder, found in runs if found["score"] is not None]
        if not scored:
            continue
        chosen = choose([found for _, found in scored])
        of_chosen = [(folder, found) for folder, found in scored if setting(found) == chosen]
        diverged = sum(setting(found) == chosen for _, found in runs if found["score"] is None)
        of_chosen.sort(key=lambda run: run[1]["seed"])
        best = max(of_chosen, key=lambda run: run[1]["score"])
        subsets = dict.fromkeys(name for _, found in scored for name in found["subsets"])
        results.append(
            TaskResult(
                model,
                recipe,
                task,
                tuple(found["score"] for _, found in of_chosen),
                best[0],
                {"learning_rate": chosen[0], "dropout": chosen[1]},
                tuple(found for _, found in runs),
                tuple(subsets),
                diverged,
            )
        )
    return results


def sources(output: Path) -> dict[Path, set[Path]]:
    """Return from which trained models in `output` the runs of each model, recipe and task began or learned.

    Keys are folders OUTPUT/MODEL/RECIPE/TASK. A source stays what it was when a better run of its task comes later:
    the runs that began with it would otherwise be runs of other options. Damaged records are passed over.
    """
    found: dict[Path, set[Path]] = {}
    for path in sorted(output.glob(f"*/*/*/*/{BEGUN}")):
        try:
            options = json.loads(path.read_text(encoding="utf-8"))["options"]
            named = [options["checkpoint"], (options["distil"] or {}).get("teacher")]
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        for name in filter(None, named):
            source = Path(name).resolve()
            if source.name == MODEL and output.resolve() in source.parents:
                found.setdefault(path.parent.parent, set()).add(source)
    return found


def lost(output: Path) -> dict[tuple[str, str, str], int]:
    """Return models, recipes and tasks of which every run diverged, and how many these are."""
    runs: dict[tuple[str, str, str], list[float | None]] = {}
    for _, found in all_results(output):
        runs.setdefault((found["model"], found["recipe"], found["task"]), []).append(found["score"])
    return {key: len(scores) for key, scores in runs.items() if all(score is None for score in scores)}


def setting(found: dict[str, Any]) -> tuple[float, float | None]:
    """What of a run the grid chooses."""
    return found["learning_rate"], found["dropout"]


def choose(runs: list[dict[str, Any]], all_of_them: bool = False) -> tuple[float, float | None]:
    """Return the learning rate and dropout of the best run of the grid; of equals, the lower learning rate.

    With `all_of_them`, each run is one of the grid, whatever it was when it was made.
    """
    grid = [run for run in runs if run["in_grid"] or all_of_them] or runs
    return setting(max(grid, key=lambda run: (run["score"], -run["learning_rate"])))
