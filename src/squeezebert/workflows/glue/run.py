"""Models, a recipe and GLUE in; a training run for each task, learning rate and seed, with its answers, out.

Serves `squeezebert glue run`. What is finished is not run again; a run that was killed goes on where it was.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.utils import logging

from squeezebert.data.examples import LabelledData
from squeezebert.data.glue import GLUE
from squeezebert.files.errors import FolderError, OptionError, WorkerError
from squeezebert.files.lock import only_run
from squeezebert.files.parent import end_with
from squeezebert.training.classifiers import check_tokens, load_base, load_tokenizer
from squeezebert.training.options import DistilOptions, FinetuneOptions
from squeezebert.training.runs import first_line
from squeezebert.training.trainer import duration
from squeezebert.workflows.glue.identity import MODEL, OTHER_ROWS, checkpoint_digest, differences, group_differences
from squeezebert.workflows.glue.job import (
    answer_test,
    check_begun,
    check_teacher,
    digest_of,
    read_task,
    run_job,
    same_rows,
)
from squeezebert.workflows.glue.options import GlueRunOptions
from squeezebert.workflows.glue.plan import (
    MNLI,
    Job,
    chosen_tasks,
    grid_of,
    named_models,
    plan_jobs,
    task_named,
    teacher_of,
)
from squeezebert.workflows.glue.results import (
    BEGUN,
    Grid,
    all_results,
    grouped,
    is_distilled,
    read_result,
    sources,
    start_of,
    summarise,
)

Report = Callable[[str], None]


def run_glue(
    places: GlueRunOptions, options: FinetuneOptions, distilling: DistilOptions, command: str, report: Report
) -> list[str]:
    """Run whatever of the grid has no result yet; return a line for each model and task.

    Raises `OptionError` for tasks, models or a teacher that are not there, `FolderError` for an output that holds
    results of other options under the same names, `TableError` for rows that cannot be used, `WorkerError` when a
    worker was killed. A run that diverges is recorded as such, and the others go on.
    """
    logging.disable_progress_bar()
    tasks = chosen_tasks(places.tasks)
    models = named_models(places.model)
    output, grid = Path(places.output), grid_of(places, options)
    if places.mnli_first and MNLI not in tasks:
        raise OptionError("--mnli-first: MNLI has to be among --tasks, because the other tasks start from it")
    for told in places.epochs_by_task:
        task_named(told)
    _check_overruled(places, options, distilling)
    _check_models(models)
    _check_output(output)
    distil = distilling if places.teacher else None
    with only_run(output, inside=True):
        # What is wrong with tables, results and teachers is said before anything has run for hours
        for task in tasks:
            data = read_task(task, places.data_dir, places.test, places.skip_bad_rows)
            for warning in data.labelled.report.warnings:
                report(f"warning: {warning}")
        _check_weights(models, data.labelled)
        if distil is not None:
            _check_teachers(models, tasks, places, distil)
        _check_names(models, tasks, places)
        clock = _Clock(report)
        first, others = ([MNLI], [t for t in tasks if t != MNLI]) if places.mnli_first else (tasks, [])
        left = dict(models)
        for names in filter(None, (first, others)):
            if names is others:
                left = {name: models[name] for name in models if _has_first(output, name, places, grid, report)}
            for is_grid in (True, False):
                jobs = [
                    job
                    for name, checkpoint in left.items()
                    for task in names
                    for job in plan_jobs(name, checkpoint, task, is_grid, places, options, distil, command)
                ]
                for job in jobs:
                    _check_same(job)
                clock.expect(jobs)
                _run_all(jobs, places, clock, grid)
    return _told(output, grid, models, places, tasks)


def _told(output: Path, grid: Grid, models: dict[str, str], places: GlueRunOptions, tasks: list[str]) -> list[str]:
    """A line for each model and task that was asked for, of the runs that were asked for."""
    lines = []
    overall = {str(result): result for result in summarise(output)}
    for result in summarise(output, grid):
        if result.model in models and result.recipe == places.name and result.task in tasks:
            scores = ", ".join(f"{score:.1f}" for score in result.scores)
            subset = f" (subset: {', '.join(result.subsets)})" if result.subsets else ""
            subset += f" (test rows: a subset, {', '.join(result.test_subsets)})" if result.test_subsets else ""
            rate = _setting(result.chosen)
            gone = f" ({result.diverged} seeds diverged)" if result.diverged else ""
            more = ""
            if (best := overall.get(str(result), result)).chosen != result.chosen:
                more = f"; of all runs there, which the report goes by, {_setting(best.chosen)} is better"
            lines.append(
                f"{result.model}, {result.task}: median {result.median:.1f} of {scores}{gone}; {rate}{more}{subset}"
            )
    for (model, recipe, task), runs in grouped(output).items():
        mine = [found["score"] for _, found in runs if found in grid]
        if (
            model in models
            and recipe == places.name
            and task in tasks
            and mine
            and not any(s is not None for s in mine)
        ):
            lines.append(f"{model}, {task}: all {len(mine)} runs diverged: lower the learning rate")
    return lines


def _setting(chosen: dict[str, Any]) -> str:
    dropout = "" if chosen["dropout"] is None else f", dropout {chosen['dropout']:g}"
    return f"rate {chosen['learning_rate']:g}{dropout}"


def _has_first(output: Path, name: str, places: GlueRunOptions, grid: Grid, report: Report) -> bool:
    """Whether a model has a run on MNLI that its other tasks can start from; says so if not."""
    found = summarise(output, grid)
    if any((result.model, result.recipe, result.task) == (name, places.name, MNLI) for result in found):
        return True
    report(f"{name}: MNLI diverged at every learning rate; the other tasks, which would start from it, are left out")
    return False


def _check_overruled(places: GlueRunOptions, options: FinetuneOptions, distilling: DistilOptions) -> None:
    """Raise `OptionError` for options that others overrule, and for those of a teacher that is not there."""
    plain = FinetuneOptions()
    for given, name, rules in (
        (options.seed != plain.seed, "seed", "--seeds"),
        (options.metric is not None, "metric", "the task's own score"),
        (
            bool(places.learning_rates) and options.learning_rate != plain.learning_rate,
            "learning-rate",
            "--learning-rates",
        ),
        (places.dropouts and options.dropout is not None, "dropout", "--dropouts"),
    ):
        if given:
            raise OptionError(f"--{name}: {rules} rules here; leave it out")
    if places.teacher is None and distilling != DistilOptions():
        raise OptionError(
            "--teacher: the options or the recipe are those of distillation, and no teacher is named; name a model "
            "that has results in --output already, or FOLDER/{task}"
        )


def _check_models(models: dict[str, str]) -> None:
    """Raise what is wrong with a checkpoint before the tables are read."""
    for name, checkpoint in models.items():
        try:
            PreTrainedConfig.get_config_dict(checkpoint)
            load_tokenizer(checkpoint)
        except (OSError, ValueError, FolderError) as error:
            raise FolderError(
                f"--model {name}={checkpoint}: no checkpoint with a tokenizer there. It takes a folder with "
                "config.json and weights, or the id of a model on the Hugging Face Hub, which has to be reachable "
                f"({first_line(error)})"
            ) from error


def _check_weights(models: dict[str, str], data: LabelledData) -> None:
    """Raise what is wrong with a checkpoint's weights, or with its tokenizer for them, before anything has run."""
    for checkpoint in models.values():
        model, _ = load_base(checkpoint, data, "--model", any_architecture=True)
        check_tokens(checkpoint, load_tokenizer(checkpoint), model)


def _check_output(output: Path) -> None:
    """Raise `FolderError` for an output that cannot be written."""
    if output.exists() and not output.is_dir():
        raise FolderError(f"--output {output}: a file; it takes a folder")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderError(f"--output {output}: cannot be made ({error.strerror})") from error
    if not os.access(output, os.W_OK | os.X_OK):
        raise FolderError(f"--output {output}: nothing can be written there")


def _check_teachers(models: dict[str, str], tasks: list[str], places: GlueRunOptions, distil: DistilOptions) -> None:
    """Raise what is wrong with the teacher of any task."""
    for name, checkpoint in models.items():
        for task in tasks:
            teacher = teacher_of(places, task, Path(places.output) / name / places.name / task)
            if teacher is not None:
                check_teacher(teacher, checkpoint, GLUE[task], distil)


def _check_names(models: dict[str, str], tasks: list[str], places: GlueRunOptions) -> None:
    """Raise `FolderError` where a model's other tasks began from a checkpoint that holds something else, or were
    distilled and these are not.

    They are one row of the table. The tasks that are asked for are compared run by run, options included.
    """
    output = Path(places.output)
    for folder, found in all_results(output):
        if found["model"] not in models or found["recipe"] != places.name or found["task"] in tasks:
            continue
        if is_distilled(found) != (places.teacher is not None):
            raise FolderError(
                f"{folder} was {'' if is_distilled(found) else 'not '}distilled, and this is to be the other way: the "
                "tasks of a recipe are one row of the table. Give this recipe another --name, or choose another "
                "--output"
            )
        name, digest = start_of(found, output)
        checkpoint = models[found["model"]]
        if digest and (now := checkpoint_digest(checkpoint)) and digest != now:
            raise FolderError(
                f"{folder} began from {name}, which held something else than {checkpoint} does: a model has one name "
                f"and one checkpoint. Write OTHER={checkpoint}, give this recipe another --name, or choose another "
                "--output"
            )


def _check_same(job: Job) -> None:
    """Raise `FolderError` for runs of other options, or on other rows, that a job's result would be put with."""
    folder = job.cell.folder(job.output)
    if read_result(folder) is None:
        check_begun(folder, job)
    mine: dict[str, Any] = {"options": job.told, "data": digest_of(job), "dropout": job.cell.dropout}
    for other in [folder, *(run for run in sorted(folder.parent.glob("*")) if run != folder)]:
        found = read_result(other) if other.is_dir() else None
        was = "has a result"
        if found is None and other != folder and (other / MODEL).exists():
            found, was = _read_begun(other), "holds a run that was cut off,"
        if found is None:
            continue
        rows = mine["data"] if same_rows(found.get("data", ""), job) else found.get("data")
        if other == folder:
            told = differences(found.get("options") or {}, job.told, job.output)
            told += [OTHER_ROWS] * bool(rows and rows != mine["data"])
        else:
            told = group_differences({**found, "data": rows}, mine, job.output)
        if told:
            raise FolderError(
                f"{other} {was} of other options ({', '.join(told[:3])}): the runs of a model, recipe and task are "
                "put together, and may differ in learning rate, dropout and seed alone. Give this recipe another "
                "--name, or choose another --output, or delete that folder"
            )


def _read_begun(folder: Path) -> dict[str, Any] | None:
    """What a run that was cut off was begun with; None where it cannot be read, which is said at its own turn."""
    try:
        there = json.loads((folder / BEGUN).read_text(encoding="utf-8"))
        found: dict[str, Any] = {"options": dict(there["options"]), "data": str(there["data"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return {**found, "dropout": found["options"].get("dropout") if "_dropout-" in folder.name else None}


def _run_all(jobs: list[Job], places: GlueRunOptions, clock: _Clock, grid: Grid) -> None:
    """Run those of the jobs that have no result, and keep no more models than are wanted after each."""
    waiting = []
    for job in jobs:
        found = read_result(job.cell.folder(job.output))
        if found is None:
            waiting.append(job)
        else:
            clock.skip(job)
            if job.test and found["score"] is not None:
                answer_test(job, clock.report)
    for job in {(job.cell.model, job.cell.task): job for job in jobs}.values():
        _tidy(job, places.keep, grid)

    def ended(job: Job, found: dict[str, Any]) -> None:
        clock.ended(job, found)
        _tidy(job, places.keep, grid)

    if places.workers == 1 or len(waiting) < 2:
        for job in waiting:
            clock.started(job)
            ended(job, run_job(job, clock.report))
    else:
        _run_parallel(waiting, places.workers, clock, ended)


def _run_parallel(
    waiting: list[Job], workers: int, clock: _Clock, ended: Callable[[Job, dict[str, Any]], None]
) -> None:
    """Run jobs in `workers` processes. What goes wrong in one is raised at once: the others end, and can go on."""
    threads = max(1, (os.cpu_count() or 1) // workers)
    context = multiprocessing.get_context("spawn")
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, context, _start_worker, (os.getpid(), threads))
    running: dict[Future[dict[str, Any]], Job] = {}
    todo = list(reversed(waiting))
    try:
        while todo or running:
            while todo and len(running) < workers:  # no more than run: nothing waits inside the pool
                job = todo.pop()
                clock.started(job)
                with _interrupts_held():
                    running[pool.submit(run_job, job)] = job
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                found = future.result()
                ended(running.pop(future), found)
    except BrokenProcessPool as error:
        runs = "; ".join(str(job.cell) for job in running.values())
        raise WorkerError(
            f"a worker was killed while these ran: {runs}. The system does that where memory is short: take fewer "
            "--workers, or a smaller --batch-size. Repeat the command, and it goes on where it was"
        ) from error
    finally:
        if running:
            children = set(multiprocessing.active_children()) - before
            for child in children:
                child.terminate()
            for child in children:
                child.join(5)
        pool.shutdown(wait=not running, cancel_futures=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back while processes are started: they are started without it, and end with the command."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _start_worker(parent: int, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all; the command ends its workers
    end_with(parent)
    torch.set_num_threads(threads)


def _tidy(job: Job, keep: str, grid: Grid) -> None:
    """Delete trained models of a job's model and task that are not to be kept; what others began with is.

    The best of all runs stays, and the best of those that are asked for.
    """
    output, runs = job.output, job.cell.folder(job.output).parent
    if keep == "all" or not runs.is_dir():
        return
    used = set().union(*sources(output).values())
    best = {result.best for found in (summarise(output), summarise(output, grid)) for result in found}
    for run in runs.iterdir():
        wanted = keep == "best" and (run in best or (run / MODEL).resolve() in used)
        if not wanted and (run / MODEL).is_dir() and read_result(run) is not None:
            shutil.rmtree(run / MODEL, ignore_errors=True)


def _work(job: Job) -> float:
    """How long a run takes in comparison with others, for the time that is left."""
    data = read_task(job.cell.task, job.data_dir, job.test, job.skip_bad_rows)
    return len(data.labelled.train) * job.options.epochs


class _Clock:
    """Says how far all runs are, and when they should end, by rows trained on."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.begun = self.done = self.skipped = self.count = 0
        self.work = self.worked = 0.0
        self.began = time.monotonic()

    def expect(self, jobs: list[Job]) -> None:
        """Add runs to come."""
        self.count += len(jobs)
        self.work += sum(map(_work, jobs))

    def skip(self, job: Job) -> None:
        """Note a run that was done before."""
        self.skipped += 1
        self.work -= _work(job)

    def started(self, job: Job) -> None:
        """Say which run begins."""
        self.begun += 1
        self.report(f"run {self.begun + self.skipped} of {self.count}: {job.cell}")

    def ended(self, job: Job, found: dict[str, Any]) -> None:
        """Say what a run came to, and how long the others may take."""
        self.done += 1
        self.worked += _work(job)
        score = "diverged" if found["score"] is None else f"score {found['score']:.1f}"
        tests = [split.name for split in GLUE[job.cell.task].test]
        if found["score"] is not None and any(name not in tests for name in found["subsets"]):
            score += " (subset)"
        left = (time.monotonic() - self.began) * (self.work / self.worked - 1)
        more = f", about {duration(left)} left for the runs planned so far" if left > 0 else ""
        self.report(f"{job.cell}: {score}; {self.done + self.skipped} of {self.count} runs done{more}")
