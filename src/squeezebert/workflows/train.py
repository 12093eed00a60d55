"""A table of labelled text in, a trained checkpoint and a summary out: the jobs behind `squeezebert train` and `distil`."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from transformers.utils import logging

from squeezebert.data.examples import DataReport, LabelledData, load_labelled
from squeezebert.data.options import DataOptions
from squeezebert.training.finetune import FinetuneResult, finetune, load_task_teacher, load_tokenizer
from squeezebert.training.options import DistilOptions, FinetuneOptions
from squeezebert.workflows.options import DistilPlaces, TrainPlaces


def train_table(
    places: TrainPlaces,
    data_options: DataOptions,
    options: FinetuneOptions,
    command: str,
    report: Callable[[str], None],
) -> str:
    """Read a table, finetune on it, write the checkpoint; return what came of it.

    `command` goes into the model card, and `report` is told how it goes. Raises what `load_labelled` and `finetune`
    raise: errors that name the cause and the way out.
    """
    logging.disable_progress_bar()
    data = load_labelled(places.data, data_options)
    for line in describe(data):
        report(line)
    result = finetune(
        data, places.base, Path(places.output), options, overwrite=places.overwrite, command=command, report=report
    )
    return summary(result)


def distil_table(
    places: DistilPlaces,
    data_options: DataOptions,
    options: FinetuneOptions,
    distilling: DistilOptions,
    command: str,
    report: Callable[[str], None],
) -> str:
    """Read a table, train the student on it and on its teacher's answers; return what came of it.

    Raises what `train_table` raises, and `OptionError` for a teacher of other labels or another vocabulary.
    """
    logging.disable_progress_bar()
    data = load_labelled(places.data, data_options)
    for line in describe(data):
        report(line)
    teacher = load_task_teacher(places.teacher, data, load_tokenizer(places.base))
    result = finetune(
        data,
        places.base,
        Path(places.output),
        options,
        teacher=teacher,
        distil=distilling,
        overwrite=places.overwrite,
        command=command,
        report=report,
    )
    return summary(result)


def describe(data: LabelledData) -> list[str]:
    """Say what was found in the data: columns, task, rows, and everything that was skipped or looks wrong."""
    report = data.report
    columns = f"text {data.columns.text!r}"
    if data.columns.text_pair is not None:
        columns += f", second text {data.columns.text_pair!r}"
    columns += f", label {', '.join(map(repr, data.columns.labels))}"
    labels = f", {len(data.labels)} labels" if data.labels else ""
    lines = [
        f"columns: {columns}",
        f"task: {data.task}{labels}; {report.train_rows} rows to train on, {report.evaluation_rows} to evaluate on "
        f"({report.evaluation_from})",
    ]
    return lines + list(caveats(report))


def caveats(report: DataReport) -> list[str]:
    """The skipped rows and the warnings of a data report, a line each."""
    skipped = sum(report.skipped.values())
    lines = []
    if skipped:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in report.skipped.items())
        lines.append(f"skipped {skipped} of {report.rows_read} rows ({reasons}), for example:")
        lines += [f"  {message}" for message in report.skipped_messages]
    return lines + [f"warning: {warning}" for warning in report.warnings]


def summary(result: FinetuneResult) -> str:
    """The scores of a finished run, its calibration, and the command that comes next."""
    lines = [f"{name.replace('_', ' ')}: {value:.4f}" for name, value in result.metrics.items()]
    calibration = result.calibration
    if calibration.error_before is not None and calibration.error_after is not None:
        lines.append(
            f"expected calibration error: {calibration.error_before:.4f}, after temperature "
            f"{calibration.temperature:.3f}: {calibration.error_after:.4f}"
        )
    folder = shlex.quote(str(result.checkpoint))
    return "\n".join([*lines, f"written: {result.checkpoint}", f"next: squeezebert export {folder} --output EXPORTED"])
