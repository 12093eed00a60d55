"""A table of labelled text in, a trained checkpoint and a summary out: the jobs behind `train` and `distil`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from transformers.utils import logging

from squeezebert.data.corpus import is_text
from squeezebert.data.examples import DataReport, Example, LabelledData, load_labelled, read_examples
from squeezebert.data.options import DataOptions
from squeezebert.files.errors import FolderError, OptionError, TableError
from squeezebert.files.lock import only_run
from squeezebert.model import SqueezeBertConfig
from squeezebert.training.classifiers import load_task_teacher, load_tokenizer
from squeezebert.training.finetune import FinetuneResult, finetune
from squeezebert.training.options import DistilOptions, FinetuneOptions
from squeezebert.training.runs import first_line
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
    with only_run(places.output):
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

    Raises what `train_table` raises, and `OptionError` for a teacher of other labels, another vocabulary or sizes that
    the options cannot bridge.
    """
    logging.disable_progress_bar()
    student = _student_config(places)
    data = load_labelled(places.data, data_options)
    for line in describe(data):
        report(line)
    unlabelled = read_unlabelled(places.unlabelled, data, data_options, report)
    teacher = load_task_teacher(places.teacher, data, load_tokenizer(places.base))
    widths = teacher.config.hidden_size, student.hidden_size
    if distilling.hidden_weight and widths[0] != widths[1]:
        raise OptionError(
            f"--hidden-weight {distilling.hidden_weight:g}: the teacher has {widths[0]} channels and the student "
            f"{widths[1]}, which cannot be compared; set it to 0"
        )
    positions = teacher.config.max_position_embeddings
    if min(options.max_length, student.max_position_embeddings) > positions:
        raise OptionError(f"--max-length {options.max_length}: the teacher reads {positions} tokens at most")
    with only_run(places.output):
        result = finetune(
            data,
            places.base,
            Path(places.output),
            options,
            teacher=teacher,
            distil=distilling,
            unlabelled=unlabelled,
            overwrite=places.overwrite,
            command=command,
            report=report,
        )
    return summary(result)


def read_unlabelled(
    sources: Sequence[str], data: LabelledData, options: DataOptions, report: Callable[[str], None]
) -> list[Example]:
    """Read texts without labels, or pairs where `data` has pairs; a text that is evaluated on is left out.

    Tables are read as the labelled one, with its columns of text where those were named.
    Raises what `read_examples` raises, and `OptionError` for pairs where there should be none, or the other way.
    """
    evaluated = {(example.text, example.text_pair) for example in data.evaluation}
    pairs = data.columns.text_pair is not None
    found = []
    for source in sources:
        skipped: list[TableError] = []
        told = DataOptions(encoding=options.encoding, skip_bad_rows=options.skip_bad_rows)
        if not is_text(Path(source)):
            told = replace(told, text=options.text, text_pair=options.text_pair)
        for example in read_examples(source, told, on_skip=skipped.append):
            if (example.text_pair is not None) != pairs:
                kinds = ("pairs of texts", "single texts") if pairs else ("single texts", "pairs of texts")
                raise OptionError(f"--unlabelled {source}: the task is of {kinds[0]}, and these are {kinds[1]}")
            if (example.text, example.text_pair) not in evaluated:
                found.append(example)
        if skipped:
            report(f"skipped {len(skipped)} rows of {source}, the first: {skipped[0]}")
    return found


def _student_config(places: DistilPlaces) -> SqueezeBertConfig:
    """Read the student's configuration before anything takes long."""
    output = Path(places.output).resolve()
    for option, name in (("--teacher", places.teacher), ("--base", places.base)):
        if Path(name).resolve() == output:
            raise FolderError(f"--output {places.output}: that is the {option} itself; choose another folder")
    try:
        return SqueezeBertConfig.from_pretrained(places.base)
    except OSError as error:
        raise FolderError(
            f"{places.base}: no checkpoint there. --base takes a folder with config.json and weights, or the id of a "
            f"model on the Hugging Face Hub, which has to be reachable ({first_line(error)})"
        ) from error
    except ValueError as error:
        raise OptionError(f"--base {places.base}: {error}") from error


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
