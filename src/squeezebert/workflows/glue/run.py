"""Models, a recipe and GLUE in; a training run for each task, learning rate and seed, with its answers, out.

Serves `squeezebert glue run`. What is finished is not run again; a run that was killed goes on where it was.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.utils import logging

from squeezebert.files.errors import FolderError, OptionError
from squeezebert.files.lock import only_run
from squeezebert.files.parent import end_with
from squeezebert.training.finetune import load_tokenizer
from squeezebert.training.options import DistilOptions, FinetuneOptions
from squeezebert.training.runs import first_line
from squeezebert.training.trainer import duration
from squeezebert.workflows.glue.job import answer_test, differences, digest_of, read_task, run_job
from squeezebert.workflows.glue.options import GlueRunOptions
from squeezebert.workflows.glue.plan import MNLI, Job, chosen_tasks, named_models, plan_jobs
from squeezebert.workflows.glue.results import MODEL, lost, read_result, sources, summarise

Report = Callable[[str], None]


def run_glue(
    places: GlueRunOptions, options: FinetuneOptions, distilling: DistilOptions, command: str, report: Report
) -> list[str]:
    """Run whatever of the grid has no result yet; return a line for each model and task.

    Raises `OptionError` for tasks, models or a teacher that are not there, `FolderError` for an output that holds
    results of other options under the same names, `TableError` for rows that cannot be used. A run that diverges is
    recorded as such, and the others go on.
    """
    logging.disable_progress_bar()
    tasks = chosen_tasks(places.tasks)
    models = named_models(places.model)
    output = Path(places.output)
    if places.mnli_first and MNLI not in tasks:
        raise OptionError("--mnli-first: MNLI has to be among --tasks, because the other tasks start from it")
    _check_overruled(places, options, distilling)
    _check_models(models)
    distil = distilling if places.teacher else None
    # A table that cannot be read is said before anything has run for hours
    for task in tasks:
        data = read_task(task, places.data_dir, places.test, places.skip_bad_rows)
        for warning in data.labelled.report.warnings:
            report(f"warning: {warning}")
    with only_run(output):
        clock = _Clock(report, places.workers)
        first, others = ([MNLI], [t for t in tasks if t != MNLI]) if places.mnli_first else (tasks, [])
        for names in (first, others):
            for is_grid in (True, False):
                jobs = [
                    job
                    for name, checkpoint in models.items()
                    for task in names
                    for job in plan_jobs(name, checkpoint, task, is_grid, places, options, distil, command)
                ]
                clock.expect(jobs)
                _run_all(jobs, places, clock)
                _tidy(output, places, set(models), names)
    lines = []
    for result in summarise(output):
        if result.model in models and result.recipe == places.name and result.task in tasks:
            scores = ", ".join(f"{score:.1f}" for score in result.scores)
            subset = f" (subset: {', '.join(result.subsets)})" if result.subsets else ""
            rate = f"{result.chosen['learning_rate']:g}"
            gone = f" ({result.diverged} seeds diverged)" if result.diverged else ""
            lines.append(
                f"{result.model}, {result.task}: median {result.median:.1f} of {scores}{gone}; rate {rate}{subset}"
            )
    for (model, recipe, task), count in lost(output).items():
        if model in models and recipe == places.name and task in tasks:
            lines.append(f"{model}, {task}: all {count} runs diverged: lower the learning rate")
    return lines


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
    """Raise what is wrong with a checkpoint before anything has run for hours."""
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


def _run_all(jobs: list[Job], places: GlueRunOptions, clock: _Clock) -> None:
    waiting = []
    for job in jobs:
        found = read_result(job.cell.folder(job.output))
        if found is None:
            waiting.append(job)
        else:
            _check_same(found, job)
            clock.skip(job)
            if job.test and found["score"] is not None:
                answer_test(job, clock.report)
    if places.workers == 1 or len(waiting) < 2:
        for job in waiting:
            clock.started(job)
            clock.ended(job, run_job(job, clock.report))
        return
    threads = max(1, (os.cpu_count() or 1) // places.workers)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(places.workers, context, _start_worker, (os.getpid(), threads)) as pool:
        running = {pool.submit(run_job, job): job for job in waiting}
        for future in as_completed(running):
            clock.ended(running[future], future.result())


def _start_worker(parent: int, threads: int) -> None:
    end_with(parent)
    torch.set_num_threads(threads)


def _check_same(found: dict[str, Any], job: Job) -> None:
    """Raise `FolderError` for a result of other options, or on other rows, under the same name."""
    other = differences(found["options"], job.told)
    data = found.get("data", "")
    if data and data != digest_of(job):
        other.append("the rows of the task are others")
    if other:
        raise FolderError(
            f"{job.cell.folder(job.output)} has a result of other options ({', '.join(other[:3])}): give this recipe "
            "another --name, or choose another --output, or delete that folder"
        )


def _tidy(output: Path, places: GlueRunOptions, models: set[str], tasks: list[str]) -> None:
    """Delete trained models of these tasks that are not to be kept; what others began with is."""
    if places.keep == "all" or not output.is_dir():
        return
    used = set().union(*sources(output).values())
    for result in summarise(output):
        if result.model in models and result.recipe == places.name and result.task in tasks:
            for run in result.best.parent.iterdir():
                wanted = places.keep == "best" and (run == result.best or (run / MODEL).resolve() in used)
                if not wanted and read_result(run) is not None:
                    shutil.rmtree(run / MODEL, ignore_errors=True)


def _work(job: Job) -> float:
    """How long a run takes in comparison with others, for the time that is left."""
    data = read_task(job.cell.task, job.data_dir, job.test, job.skip_bad_rows)
    return len(data.labelled.train) * job.options.epochs


class _Clock:
    """Says how far all runs are, and when they should end, by rows trained on."""

    def __init__(self, report: Report, workers: int) -> None:
        self.report, self.workers = report, workers
        self.done = self.skipped = self.count = 0
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
        self.report(f"run {self.done + self.skipped + 1} of {self.count}: {job.cell}")

    def ended(self, job: Job, found: dict[str, Any]) -> None:
        """Say what a run came to, and how long the others may take."""
        self.done += 1
        self.worked += _work(job)
        score = "diverged" if found["score"] is None else f"score {found['score']:.1f}"
        left = (time.monotonic() - self.began) * (self.work / self.worked - 1)
        more = f", about {duration(left)} left for the runs planned so far" if left > 0 else ""
        self.report(f"{job.cell}: {score}; {self.done + self.skipped} of {self.count} runs done{more}")
