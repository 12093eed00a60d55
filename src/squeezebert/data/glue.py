"""A folder of GLUE files and a task's name in, labelled data out. Serves the benchmarks of squeezed students.

Reads the standard download layout, and samples of the large tasks beside it; what is a sample says so.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from squeezebert.data.columns import Columns
from squeezebert.data.examples import LabelledData
from squeezebert.data.labels import natural_order
from squeezebert.data.options import Task
from squeezebert.data.reading import Example
from squeezebert.data.report import Skips, report_on
from squeezebert.files.errors import OptionError, TableError


@dataclass(frozen=True)
class GlueTask:
    """Where one task's rows are and what its score is."""

    train: str
    """File of training rows, below the GLUE folder."""
    dev: str
    """File of labelled development rows."""
    columns: Columns
    """Text, second text and label; numbers for a file without a header."""
    metric: str
    """The task's score of the paper and of GLUE, as in `data.metrics`."""
    rows: tuple[int, int]
    """Official number of training and development rows (Wang et al. 2019, arXiv 1804.07461)."""
    task: Task = "single_label"
    """What a label is."""


def _pair(first: str, second: str, label: str = "label") -> Columns:
    return Columns(first, second, (label,))


_SENTENCES = _pair("sentence1", "sentence2")
# The three large tasks are read from samples: their files are named so, and their row counts say it
GLUE: dict[str, GlueTask] = {
    "CoLA": GlueTask("CoLA/train.tsv", "CoLA/dev.tsv", Columns("3", None, ("1",)), "matthews", (8551, 1043)),
    "SST-2": GlueTask(
        "SST-2/train.tsv", "SST-2/dev.tsv", Columns("sentence", None, ("label",)), "accuracy", (67349, 872)
    ),
    "STS-B": GlueTask(
        "STS-B/train.tsv",
        "STS-B/dev.tsv",
        _pair("sentence1", "sentence2", "score"),
        "spearman",
        (5749, 1500),
        "regression",
    ),
    "RTE": GlueTask("RTE/train.tsv", "RTE/dev.tsv", _SENTENCES, "accuracy", (2490, 277)),
    "QNLI": GlueTask(
        "_partial/QNLI_train_sample8999.tsv", "QNLI/dev.tsv", _pair("question", "sentence"), "accuracy", (104743, 5463)
    ),
    "QQP": GlueTask(
        "_partial/QQP_train_sample8999.tsv",
        "_partial/QQP_dev_sample1000.tsv",
        _pair("question1", "question2", "is_duplicate"),
        "accuracy",
        (363846, 40430),
    ),
    "MNLI": GlueTask(
        "_partial/MNLI_train_sample8999.tsv",
        "_partial/MNLI_dev_sample1000.tsv",
        _pair("sentence1", "sentence2", "gold_label"),
        "accuracy",
        (392702, 9815),
    ),
}


def load_glue(name: str, folder: str | Path) -> LabelledData:
    """Read a task's training and development rows; the report warns where they are not the official number.

    Raises `OptionError` for an unknown task, `TableError` for a missing file, column or cell.
    """
    if name not in GLUE:
        raise OptionError(f"{name}: not a GLUE task that can be read; these can: {', '.join(GLUE)}")
    task = GLUE[name]
    paths = [Path(folder) / part for part in (task.train, task.dev)]
    train, evaluation = (list(_read(path, task)) for path in paths)
    labels = () if task.task == "regression" else natural_order({str(example.label) for example in train})
    warnings = [
        f"{path.name} has {len(rows)} rows, {name} has {official}: a score on it is a subset score"
        for path, rows, official in zip(paths, (train, evaluation), task.rows, strict=True)
        if len(rows) != official
    ]
    report = report_on(
        train,
        evaluation,
        task.task,
        labels,
        Skips(),
        train_from=str(paths[0]),
        evaluation_from=str(paths[1]),
        warnings=warnings,
    )
    return LabelledData(task.task, labels, train, evaluation, task.columns, report)


def _read(path: Path, task: GlueTask) -> Iterator[Example]:
    try:
        file = path.open(encoding="utf-8-sig", newline="")
    except FileNotFoundError as error:
        raise TableError(f"{path}: no such file; GLUE's download has a folder a task, with its .tsv files") from error
    columns = task.columns
    with file:
        # Quotes are ordinary characters in GLUE's files
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        numbered = columns.text.isdigit()
        header = [] if numbered else next(rows, [])
        absent = [] if numbered else [column for column in columns.names if column not in header]
        if absent:
            raise TableError(f"{path}: no column {', '.join(absent)}; it has {', '.join(header)}")
        places = [int(column) if numbered else header.index(column) for column in columns.names]
        for row in rows:
            if len(row) <= max(places):
                raise TableError(f"{path}:{rows.line_num}: {len(row)} cells, expected {max(places) + 1} or more")
            *texts, label = (row[place] for place in places)
            value = float(label) if task.task == "regression" else label
            yield Example(texts[0], texts[1] if len(texts) > 1 else None, value, str(path), rows.line_num)
