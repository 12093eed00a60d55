"""A checkpoint in, an exported folder and a summary for people out: the job behind `squeezebert export`."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from squeezebert.data.examples import Example, read_examples
from squeezebert.data.options import DataOptions
from squeezebert.export.checkpoint import PROBLEM_OF_TASK, read_checkpoint
from squeezebert.export.exporter import ExportReport, export_checkpoint
from squeezebert.export.options import ExportOptions
from squeezebert.files.errors import TableError
from squeezebert.files.manifest import Verification
from squeezebert.runtime.tokens import Text
from squeezebert.workflows.options import EvaluationTable, ExportPlaces, LabelledColumns


def export_folder(
    places: ExportPlaces,
    options: ExportOptions,
    rows: EvaluationTable,
    columns: LabelledColumns,
    report: Callable[[str], None],
) -> str:
    """Export a checkpoint, verified on the rows of a table or on those that training held out; return a summary.

    Raises `ExportRefused` when the int8 file loses too much, and the errors of reading the folder or the table.
    """
    checkpoint = Path(places.checkpoint)
    examples = None if rows.eval is None else _examples(checkpoint, rows, columns, report)
    calibration = None
    if places.calibration is not None:
        calibration = _calibration(places, rows, columns, report)
        if not calibration:
            raise TableError(f"{places.calibration}: no usable rows to find ranges on")
    return summary(export_checkpoint(checkpoint, Path(places.output), options, examples, report, calibration))


def _calibration(
    places: ExportPlaces, rows: EvaluationTable, columns: LabelledColumns, report: Callable[[str], None]
) -> list[Text]:
    options = DataOptions(
        text=places.calibration_text or columns.text,
        text_pair=rows.text_pair,
        encoding=columns.encoding,
        skip_bad_rows=columns.skip_bad_rows,
    )
    skipped: list[TableError] = []
    read = list(read_examples(str(places.calibration), options, on_skip=skipped.append))
    if skipped:
        report(f"{places.calibration}: skipped {len(skipped)} rows, the first: {skipped[0]}")
    return [one.text if one.text_pair is None else (one.text, one.text_pair) for one in read]


def evaluation_row(example: Example) -> dict[str, Any]:
    """Return an example as the export takes it."""
    label = list(example.label) if isinstance(example.label, tuple) else example.label
    return {"text": example.text, "text_pair": example.text_pair, "label": label}


def _examples(
    checkpoint: Path, rows: EvaluationTable, columns: LabelledColumns, report: Callable[[str], None]
) -> list[dict[str, Any]]:
    source = read_checkpoint(checkpoint)
    options = replace(columns.to_data_options(), text_pair=rows.text_pair)
    skipped: list[TableError] = []
    # Texts alone for what is no classifier of texts: what its answers are compared with is found otherwise
    task = cast(Any, source.task) if source.task in PROBLEM_OF_TASK else None
    read = read_examples(str(rows.eval), options, task=task, labels=source.labels, on_skip=skipped.append)
    examples = [evaluation_row(example) for example in read]
    for error in skipped[:3]:
        report(f"skipped: {error}")
    if skipped:
        report(f"skipped {len(skipped)} rows in all")
    if not examples:
        raise TableError(f"{rows.eval}: no usable rows to verify the export on")
    return examples


def describe(found: Verification) -> str:
    """Say how a file's answers compare: with torch (fp32) or fp32 (int8), and with the labels where there are any."""
    told = f"agreement {found.agreement:.4f} on {found.rows} {found.source}"
    if found.accuracy is None:
        return f"{told}; {found.reason}"
    told += f", {found.metric} {found.accuracy:.4f}"
    if found.accuracy_interval is not None:
        told += " (95 % interval {:.4f} to {:.4f})".format(*found.accuracy_interval)
    if found.loss is not None:
        told += f", loss {found.loss:.4f} nats"
    return told


def summary(report: ExportReport) -> str:
    """Say what was written, how well it answers, and the command that comes next."""
    lines = [f"warning: {warning}" for warning in report.warnings]
    for precision, file in report.manifest.files.items():
        found = report.manifest.verification[precision]
        spared = file.quantisation.partition("; blocks ")[2]
        told = f"{file.bytes / 1e6:.1f} MB" + (f", blocks {spared}" if spared else "")
        lines.append(f"{precision}: {file.path}, {told}; {describe(found)}")
    folder = shlex.quote(str(report.output))
    verbs = {"embedding": "copies {} FILE", "masked-lm": "complete {} TEXT", "token-labels": "check {} TEXT"}
    following = verbs.get(report.manifest.task, "predict {} FILE").format(folder)
    return "\n".join([*lines, f"written: {report.output}", f"next: squeezebert {following}"])
