"""What was asked for in; the training runs of the grid, with their checkpoints and teachers, out. Serves `run.py`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from squeezebert.data.glue import GLUE
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.training.options import DistilOptions, FinetuneOptions
from squeezebert.workflows.glue.identity import DIGEST, MODEL, checkpoint_digest, recorded_name
from squeezebert.workflows.glue.options import GlueRunOptions
from squeezebert.workflows.glue.results import Cell, Grid, TaskResult, choose, read_result, sources, summarise

MNLI = "MNLI"


@dataclass(frozen=True)
class Job:
    """A training run and all that it takes, as another process can be handed it."""

    cell: Cell
    checkpoint: str
    """Where the model starts from."""
    teacher: str | None
    """Folder of its teacher, if it is distilled."""
    options: FinetuneOptions
    distil: DistilOptions | None
    in_grid: bool
    """Whether it is one of those that learning rate and dropout are chosen by."""
    output: Path
    data_dir: str
    test: bool
    skip_bad_rows: bool
    command: str
    digests: tuple[str | None, str | None] = (None, None)
    """Hashes of checkpoint and teacher."""

    @property
    def told(self) -> dict[str, Any]:
        """What its result is a result of; other runs of its model, recipe and task have to have the same."""
        checkpoint, teacher = (
            {name: recorded_name(place, self.output), name + DIGEST: digest}
            for name, place, digest in zip(
                ("checkpoint", "teacher"), (self.checkpoint, self.teacher or ""), self.digests, strict=True
            )
        )
        distil = None if self.distil is None else {**teacher, **asdict(self.distil)}
        return {**checkpoint, **asdict(self.options), "distil": distil}


def chosen_tasks(told: Sequence[str]) -> list[str]:
    """Return the names of the tasks, in the leaderboard's order. Raises `OptionError` for what is none."""
    asked = [part.lower() for part in re.split(r"[,\s]+", " ".join(told)) if part]
    if asked == ["all"]:
        return list(GLUE)
    names = {name.lower(): name for name in GLUE}
    unknown = [part for part in asked if part not in names]
    if unknown or not asked:
        hint = "; AX is answered by MNLI's model, as one of its test tables" if "ax" in unknown else ""
        raise OptionError(
            f"--tasks {' '.join(told)}: {', '.join(unknown) or 'nothing'} is no task; "
            f"tasks are {', '.join(GLUE)}{hint}"
        )
    return [name for name in GLUE if name.lower() in asked]


def named_models(told: Sequence[str]) -> dict[str, str]:
    """Return checkpoints by the names of their models. Raises `OptionError` when two have one name."""
    models: dict[str, str] = {}
    for one in told:
        name, sign, checkpoint = one.partition("=")
        if not sign or (Path(one).is_dir() and not Path(checkpoint).is_dir()):
            name, checkpoint = Path(one).name or one, one
        if name in models:
            raise OptionError(f"--model {one}: two models are called {name}; name one, as OTHER={checkpoint}")
        if not checkpoint:
            raise OptionError(f"--model {one}: no checkpoint; write {name or 'NAME'}=FOLDER")
        if not name or set(name) & set("/\\:") or name.startswith("."):
            raise OptionError(f"--model {one}: {name!r} cannot name a folder; write NAME={checkpoint}")
        models[name] = checkpoint
    return models


def grid_of(places: GlueRunOptions, options: FinetuneOptions) -> Grid:
    """Return which runs of each model and task are asked for."""
    return Grid(places.learning_rates or (options.learning_rate,), places.dropouts or (None,), places.seeds)


def plan_jobs(
    name: str,
    checkpoint: str,
    task: str,
    is_grid: bool,
    places: GlueRunOptions,
    options: FinetuneOptions,
    distil: DistilOptions | None,
    command: str,
) -> list[Job]:
    """The runs of one model and task: those of the grid, or those of the other seeds at what the grid chose."""
    output, grid = Path(places.output), grid_of(places, options)
    cells = [
        Cell(name, places.name, task, rate, dropout, grid.seeds[0]) for rate in grid.rates for dropout in grid.dropouts
    ]
    if not is_grid:
        found = [result for cell in cells if (result := read_result(cell.folder(output)))]
        found = [result for result in found if result["score"] is not None]
        if not found:
            return []
        rate, dropout = choose(found, grid.seeds[0])
        cells = [Cell(name, places.name, task, rate, dropout, seed) for seed in places.seeds[1:]]
    beside = Cell(name, places.name, task, grid.rates[0], grid.dropouts[0], grid.seeds[0]).folder(output).parent
    if places.mnli_first and task != MNLI:
        distil = distil and replace(distil, refit=False)  # it would take the place of what MNLI taught
        checkpoint = str(
            _begun_with(output, beside, name, places.name, MNLI) or best_model(output, name, places.name, MNLI, grid)
        )
    teacher = teacher_of(places, task, beside)
    epochs_of = {task_named(told): epochs for told, epochs in places.epochs_by_task.items()}
    epochs = epochs_of.get(task, options.epochs)
    digests = checkpoint_digest(checkpoint), None if teacher is None else checkpoint_digest(teacher)
    return [
        Job(
            cell,
            checkpoint,
            teacher,
            replace(
                options,
                learning_rate=cell.learning_rate,
                dropout=options.dropout if cell.dropout is None else cell.dropout,
                seed=cell.seed,
                epochs=epochs,
                metric=GLUE[task].watched,
            ),
            distil,
            is_grid,
            output,
            places.data_dir,
            places.test,
            places.skip_bad_rows,
            command,
            digests,
        )
        for cell in cells
    ]


def teacher_of(places: GlueRunOptions, task: str, beside: Path) -> str | None:
    """Return the folder of a task's teacher: that which the runs in `beside`, the task's folder, learned from so far.

    Raises `OptionError` or `FolderError` when there is none.
    """
    if places.teacher is None:
        return None
    output = Path(places.output)
    teacher = teacher_folder(places.teacher, output, task, places.name)
    if "{task}" not in places.teacher:
        best = Path(teacher)
        teacher = str(_begun_with(output, beside, *best.relative_to(output).parts[:3]) or best)
    return teacher


def task_named(told: str) -> str:
    """The task that `--epochs-of` names, in whatever case. Raises `OptionError` for none."""
    for name in GLUE:
        if name.lower() == told.lower():
            return name
    raise OptionError(f"--epochs-of: {told} is no task; tasks are {', '.join(GLUE)}")


def _begun_with(output: Path, beside: Path, model: str, recipe: str, task: str) -> Path | None:
    """The trained model of so a name that earlier runs in `beside` began with or learned from, if it is kept still."""
    place = (output / model / recipe / task).resolve()
    for source in sorted(sources(output).get(beside, ())):
        if source.parent.parent == place and (source / "config.json").is_file():
            return source
    return None


def best_model(output: Path, model: str, recipe: str, task: str, grid: Grid | None = None) -> Path:
    """Return the kept weights of the best run, of those in `grid` if it is given.

    Raises `FolderError` when there are none, or when runs of several kinds go by that name.
    """
    results = [r for r in summarise(output, grid) if (r.model, r.recipe, r.task) == (model, recipe, task)]
    check_one_kind(results, output)
    folder = results[0].best / MODEL if results else None
    if folder is None or not (folder / "config.json").is_file():
        why = (
            "run it first, without --keep none" if results else "it has no result, or diverged at every learning rate"
        )
        raise FolderError(f"{output}: no trained model of {model}, {recipe}, {task} is kept there; {why}")
    return folder


def check_one_kind(results: Sequence[TaskResult], output: Path) -> None:
    """Raise `FolderError` when the results of one model, recipe and task are of runs that cannot be put together."""
    if len(results) > 1:
        kinds = "; ".join(result.variant for result in results)
        raise FolderError(
            f"{output}: {results[0].model}, {results[0].recipe}, {results[0].task} has runs of other options, rows or "
            f"checkpoints under one name ({kinds}): delete those that are not meant, in "
            f"{results[0].best.parent}"
        )


def teacher_folder(told: str, output: Path, task: str, recipe: str) -> str:
    """Return the folder of a task's teacher. Raises `OptionError` or `FolderError` when there is none."""
    if "{task}" in told:
        folder = Path(told.replace("{task}", task))
        if not folder.is_dir():
            raise FolderError(f"--teacher {told}: no folder {folder}")
        return str(folder)
    name, _, of_recipe = told.partition("/")
    if Path(told).is_dir() and not (output / name).is_dir():
        raise OptionError(
            f"--teacher {told}: one folder; it takes a folder for each task, as 'teachers/{{task}}', or the name of a "
            f"model that has results in {output}"
        )
    there = {r.recipe for r in summarise(output) if r.model == name and r.task == task} if output.is_dir() else set()
    there.discard(recipe) if not of_recipe else None
    if not of_recipe and len(there) != 1:
        if there:
            raise OptionError(
                f"--teacher {told}: {output} has results of {', '.join(sorted(there))} for {task}: write {name}/RECIPE"
            )
        raise OptionError(
            f"--teacher {told}: {output} has no results for {task} but, if any, those of this recipe ({recipe}). "
            f"Train the teacher first, under another --name: squeezebert glue run --model {name}=FOLDER "
            f"--output {output}"
        )
    return str(best_model(output, name, of_recipe or there.pop(), task))
