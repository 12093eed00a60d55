"""The folder of results: which training runs there are, what each found, and where its predictions and weights are.

Serves `run.py`, `measure.py`, `report.py` and `submit.py`. A run's folder is OUTPUT/MODEL/RECIPE/TASK/RUN with
result.json (written last), predictions.npz, log.txt and, where it is kept, model/.
"""

from __future__ import annotations

import json
import statistics
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from squeezebert.data.glue import GLUE
from squeezebert.files.errors import FolderError
from squeezebert.workflows.glue.identity import (
    DIGEST,
    MODEL,
    group_differences,
    is_inside,
    place_of,
    told_apart,
    told_checkpoint,
)

RESULT, PREDICTIONS, LOG = "result.json", "predictions.npz", "log.txt"
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
    """Return what a finished run found, or None.

    Raises `FolderError` for a damaged file, and for one that is of another run than its folder: a copy would count
    twice.
    """
    path = folder / RESULT
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for name in ("model", "recipe", "task", "learning_rate", "dropout", "seed", "in_grid", "score", "tables"):
            found[name]
        if found["task"] not in GLUE or not isinstance(found["subsets"], list):
            raise ValueError("it is not as glue run writes it")
        cell = Cell(**{name: found[name] for name in ("model", "recipe", "task", "learning_rate", "dropout", "seed")})
        names = (str(cell.model), str(cell.recipe), cell.task, cell.run)
    except (ValueError, KeyError, TypeError) as error:
        raise FolderError(f"{path}: damaged ({type(error).__name__}: {error}); delete it to run it again") from error
    there = folder.absolute().parts[-len(names) :]
    if there != names:
        raise FolderError(
            f"{path}: it is the result of {'/'.join(names)}, and lies in {'/'.join(there)}: the folder was copied or "
            "renamed. Rename it back, or delete it; for another name of a model or recipe, change it in every "
            f"{RESULT} below as well"
        )
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
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
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
    """Tables it learned from or was scored on that have not the official number of rows; with their task before them,
    those that what it began from or its teacher learned from."""
    test_subsets: tuple[str, ...] = ()
    """Test tables that have not."""
    diverged: int = 0
    """Seeds at the chosen learning rate and dropout that came to nothing."""
    variant: str = ""
    """What distinguishes these runs from others of the same model, recipe and task, or of its other tasks."""

    @property
    def median(self) -> float:
        """Median over the seeds."""
        return statistics.median(self.scores)

    def __str__(self) -> str:
        return ", ".join([self.model, self.recipe, self.task, *([self.variant] if self.variant else [])])


@dataclass(frozen=True)
class Grid:
    """The runs of a model and task that a command asks for."""

    rates: tuple[float, ...]
    """Learning rates."""
    dropouts: tuple[float | None, ...]
    """Dropouts; None where they are no part of the grid."""
    seeds: tuple[int, ...]
    """Seeds, the one that the grid is tried with first."""

    def __contains__(self, found: dict[str, Any]) -> bool:
        return (
            found["learning_rate"] in self.rates and found["dropout"] in self.dropouts and found["seed"] in self.seeds
        )


Run = tuple[Path, dict[str, Any]]


def summarise(output: Path, grid: Grid | None = None) -> list[TaskResult]:
    """Group the finished runs by model, recipe and task, in the order of the tasks on the leaderboard.

    Learning rate and dropout are those of the best first-seed run, as `glue run` chooses them; of the runs in `grid`
    alone where it is given. Runs that diverged have no score and count for nothing. Runs of other options, rows or
    checkpoints than the rest of their group are a result by themselves, with a `variant`.
    """
    order = {name: place for place, name in enumerate(GLUE)}
    results: list[tuple[TaskResult, dict[str, Any]]] = []
    for (model, recipe, task), runs in sorted(
        grouped(output).items(), key=lambda item: (item[0][:2], order[item[0][2]])
    ):
        kinds = of_one_kind(runs, output)
        labels = told_apart([kind[0][1] for kind in kinds]) if len(kinds) > 1 else [""]
        for kind, label in zip(kinds, labels, strict=True):
            mine = [run for run in kind if grid is None or run[1] in grid]
            scored = [run for run in mine if run[1]["score"] is not None]
            if not scored:
                continue
            chosen = choose([found for _, found in scored], None if grid is None else grid.seeds[0])
            of_chosen = sorted((run for run in scored if setting(run[1]) == chosen), key=lambda run: run[1]["seed"])
            tables = dict.fromkeys(
                name for _, found in scored for name in [*found["subsets"], *_before(found, output)]
            )
            tests = [split.name for split in GLUE[task].test]
            result = TaskResult(
                model,
                recipe,
                task,
                tuple(found["score"] for _, found in of_chosen),
                max(of_chosen, key=lambda run: run[1]["score"])[0],
                {"learning_rate": chosen[0], "dropout": chosen[1]},
                tuple(found for _, found in mine),
                tuple(name for name in tables if name not in tests),
                tuple(name for name in tables if name in tests),
                sum(setting(found) == chosen for _, found in mine if found["score"] is None),
                label,
            )
            results.append((result, kind[0][1]))
    return _by_checkpoint(results, output)


def grouped(output: Path) -> dict[tuple[str, str, str], list[Run]]:
    """Return the finished runs of each model, recipe and task."""
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for folder, found in all_results(output):
        groups.setdefault((found["model"], found["recipe"], found["task"]), []).append((folder, found))
    return groups


def of_one_kind(runs: Sequence[Run], output: Path) -> list[list[Run]]:
    """Divide the runs of a group into those that differ in nothing but what a grid varies."""
    kinds: list[list[Run]] = []
    for run in runs:
        for kind in kinds:
            if not any(group_differences(one, run[1], output) for _, one in kind):
                kind.append(run)
                break
        else:
            kinds.append([run])
    return kinds


def is_distilled(found: dict[str, Any]) -> bool:
    """Whether a run had a teacher."""
    return (found.get("options") or {}).get("distil") is not None


def _by_checkpoint(results: Sequence[tuple[TaskResult, dict[str, Any]]], output: Path) -> list[TaskResult]:
    """Tell apart the tasks of a model and recipe that began from checkpoints that hold different things, and those
    that were distilled from those that were not.
    """
    starts: dict[tuple[str, str], set[str]] = {}
    taught: dict[tuple[str, str], set[bool]] = {}
    for result, found in results:
        if digest := start_of(found, output)[1]:
            starts.setdefault((result.model, result.recipe), set()).add(digest)
        taught.setdefault((result.model, result.recipe), set()).add(is_distilled(found))
    told = []
    for result, found in results:
        name, digest = start_of(found, output)
        row, labels = (result.model, result.recipe), []
        if digest and "checkpoint" not in result.variant and len(starts[row]) > 1:
            labels.append(f"checkpoint {told_checkpoint(name, digest)}")
        if "distilled" not in result.variant and len(taught[row]) > 1:
            labels.append(f"distilled {'yes' if is_distilled(found) else 'no'}")
        told.append(replace(result, variant=", ".join(filter(None, [*labels, result.variant]))))
    return told


def start_of(found: dict[str, Any], output: Path) -> tuple[str, str | None]:
    """Return the name and hash of the checkpoint that a run began from; none for a model trained in `output`."""
    options = found.get("options") or {}
    name = str(options.get("checkpoint", ""))
    return (name, None) if is_inside(name, output) else (name, options.get("checkpoint" + DIGEST))


def _before(found: dict[str, Any], output: Path) -> list[str]:
    """The tables, as `MNLI train`, that are no whole ones and that a run's checkpoint or teacher learned from."""
    options = found.get("options") or {}
    told: dict[str, None] = {}
    for name in filter(None, [options.get("checkpoint"), (options.get("distil") or {}).get("teacher")]):
        source = read_result(place_of(str(name), output).parent) if is_inside(str(name), output) else None
        if source is not None:
            train = GLUE[source["task"]].train.name
            told |= dict.fromkeys(f"{source['task']} {table}" for table in source["subsets"] if table == train)
            told |= dict.fromkeys(_before(source, output))
    return [table for table in told if table not in {f"{found['task']} {own}" for own in found["subsets"]}]


def unfinished(output: Path) -> list[Path]:
    """Return the folders of runs that were begun and have no result yet."""
    begun = (path.parent for path in sorted(output.glob(f"*/*/*/*/{BEGUN}")))
    return [folder for folder in begun if not (folder / RESULT).is_file()]


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
            source = place_of(str(name), output)
            if source.name == MODEL and output.resolve() in source.parents:
                found.setdefault(path.parent.parent, set()).add(source)
    return found


def lost(output: Path) -> dict[tuple[str, str, str], int]:
    """Return models, recipes and tasks of which every run diverged, and how many these are."""
    groups = grouped(output).items()
    return {key: len(runs) for key, runs in groups if all(found["score"] is None for _, found in runs)}


def setting(found: dict[str, Any]) -> tuple[float, float | None]:
    """What of a run the grid chooses."""
    return found["learning_rate"], found["dropout"]


def choose(runs: Sequence[dict[str, Any]], first_seed: int | None = None) -> tuple[float, float | None]:
    """Return the learning rate and dropout of the best run of the grid; of equals, the lower learning rate.

    The grid is the runs with `first_seed`, whatever they were when they were made; without, those that were part of
    one, of the seed that has most of them.
    """
    seeds = [run["seed"] for run in runs if run["in_grid"]]
    if first_seed is None and seeds:
        first_seed = max(sorted(set(seeds)), key=seeds.count)
    grid = [run for run in runs if run["seed"] == first_seed] or runs
    return setting(max(grid, key=lambda run: (run["score"], -run["learning_rate"])))
