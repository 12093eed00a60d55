"""GLUE's download, or its copy on the Hub, and a task's name in; labelled data and unlabelled test rows out.

A table that has not the official number of rows is read all the same and reported as a subset.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from squeezebert.data.columns import Columns
from squeezebert.data.examples import LabelledData
from squeezebert.data.glue.tasks import DIAGNOSTIC, GLUE, GlueSplit, GlueTask
from squeezebert.data.labels import Label, as_number, natural_order
from squeezebert.data.reading import Example
from squeezebert.data.report import Skips, report_on
from squeezebert.files.errors import OptionError, TableError
from squeezebert.files.lines import Lines, open_bytes
from squeezebert.files.tables import Row, RowError, read_rows, skip_or_raise

HUB = "nyu-mll/glue"
# The diagnostic rows are a folder of their own in every layout
_DIAGNOSTIC_FILES = ("AX/diagnostic.tsv", "diagnostic/diagnostic.tsv")
_SIMILARITY = (0.0, 5.0)
# MRPC as Microsoft distributes it: all labelled rows in one file, and the pairs of ids that make the dev rows
_MSR_TRAIN, _MSR_TEST, _MSR_DEV = "msr_paraphrase_train.txt", "msr_paraphrase_test.txt", "dev_ids.tsv"
_MSR_IDS = ("#1 ID", "#2 ID")
# What counts the rows of a test table from 0: the download's, QQP's, the Hub's
_COUNTERS = ("index", "id", "idx")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")  # owner and name
_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.parquet")
# CoLA's labelled tables have no header: source, label, the author's mark, sentence
_COLA_COLUMNS = 4


@dataclass(frozen=True)
class GlueData:
    """A task's rows."""

    task: GlueTask
    """What they are rows of."""
    labelled: LabelledData
    """Training rows and the first labelled table to score on."""
    dev: dict[str, list[Example]]
    """Each labelled table to score on, by its name."""
    test: dict[str, list[Example]]
    """Each table that the leaderboard scores, by its name, in its order; those that were asked for."""
    subsets: tuple[str, ...]
    """Names of the tables that have not the official number of rows."""


def load_glue(
    name: str, source: str | Path, *, dev: bool = True, test: bool = False, skip_bad_rows: bool = False
) -> GlueData:
    """Read a task's training rows and (with `dev`) all its development rows, with `test` its test rows as well.

    `source` is a folder of GLUE's download (a sub-folder a task with its .tsv files; MRPC also as Microsoft's
    msr_paraphrase_*.txt with dev_ids.tsv), a folder with the Hub's Parquet files, or the id of a dataset on the Hub
    that is made like `nyu-mll/glue`. Without `dev`, MNLI's mismatched rows are not needed.

    Malformed rows are errors, or with `skip_bad_rows` passed over and counted; those of too few or too many cells in
    QQP, whose official files have a few, always the latter. A test table with one is always an error: what the
    leaderboard gets has its order.
    A table of another size than the official one is named in `subsets`, and the report warns of it.

    Raises `OptionError` for an unknown task, `TableError` for a missing file, column, cell, or label.
    """
    task = _task(name)
    skips = Skips()
    notes: list[str] = []
    tables: dict[str, list[Example]] = {}
    wanted = [task.train, *(task.dev if dev else task.dev[:1]), *(task.test if test else ())]
    for split in wanted:
        tables[split.name] = list(_read(task, split, str(source), skips, skip_bad_rows, notes))
    train, first = tables[task.train.name], tables[task.dev[0].name]
    for split in wanted:
        if not tables[split.name]:
            bad = f" that can be used: {skips.messages[0]}" if skips.messages else ""
            raise TableError(f"{_place(task, split, str(source))}: {task.name} has no rows in {split.name}{bad}")
    subsets = tuple(split.name for split in wanted if len(tables[split.name]) != split.rows)
    warnings = [
        f"{task.name} {split.name}: {len(tables[split.name])} rows, officially {split.rows}: a subset score"
        for split in wanted
        if split.name in subsets
    ] + notes
    labels = natural_order(task.words)
    report = report_on(
        train,
        first,
        task.task,
        labels,
        skips,
        train_from=f"{source}: {task.name} {task.train.name}",
        evaluation_from=f"{source}: {task.name} {task.dev[0].name}",
        warnings=warnings,
    )
    columns = Columns(task.texts[0], task.texts[1] if len(task.texts) > 1 else None, (task.label,))
    return GlueData(
        task,
        LabelledData(task.task, labels, train, first, columns, report),
        {split.name: tables[split.name] for split in task.dev if split in wanted},
        {split.name: tables[split.name] for split in task.test if split in wanted},
        subsets,
    )


def _task(name: str) -> GlueTask:
    found = {task.lower(): GLUE[task] for task in GLUE}.get(name.lower())
    if found is None:
        hint = "; AX is answered by MNLI's model, as one of its test tables" if name.upper() == "AX" else ""
        raise OptionError(f"{name}: no task of GLUE, whose tasks are {', '.join(GLUE)}{hint}")
    return found


def _read(
    task: GlueTask, split: GlueSplit, source: str, skips: Skips, skip_bad_rows: bool, notes: list[str]
) -> Iterator[Example]:
    """Read one table, wherever it is; what is to be said of it beside its rows is added to `notes`."""
    for row in _rows(task, split, source, notes):
        try:
            if isinstance(row, RowError):
                raise row
            yield _example(row, task, split)
        except RowError as error:
            if not split.labelled:
                raise TableError(f"{error} (a test table has to be whole: predictions go by its order)") from error
            skip_or_raise(error, skip_bad_rows or (task.tolerant and error.reason == _WRONG_CELLS), skips)


def _rows(task: GlueTask, split: GlueSplit, source: str, notes: list[str]) -> Iterator[Row | RowError]:
    """Rows whose values are `texts`, and `label` where the split has labels."""
    folder = Path(source)
    configuration = _configuration(task, split)
    if folder.is_file():
        raise TableError(f"{source}: a file; GLUE is a folder with one sub-folder a task, or a dataset of the Hub")
    if not folder.is_dir():
        if not _HUB_ID.fullmatch(source):
            raise TableError(f"{source}: no such folder")
        return _hub_rows(read_rows(f"{source}:{configuration}#{split.hub}"), task, split)
    shards = _shards(folder / configuration, split)
    if shards:
        return _hub_rows(chain.from_iterable(read_rows(shard) for shard in shards), task, split)
    if _is_microsofts(task, folder):
        return _microsoft_rows(task, split, folder / task.name, notes)
    return _download_rows(task, split, folder)


def _configuration(task: GlueTask, split: GlueSplit) -> str:
    return "ax" if split.name == DIAGNOSTIC else task.hub


def _shards(folder: Path, split: GlueSplit) -> list[Path]:
    """The Hub's Parquet files of a table, in order; none where the folder has no such files at all."""
    there = sorted(path.name for path in folder.glob("*.parquet"))
    shards = [name for name in there if name.startswith(f"{split.hub}-")]
    if there and not shards:
        raise TableError(f"{folder / split.hub}-*.parquet: no such file; {folder} has {', '.join(there[:8])}")
    wanted = {int(found[1]) for name in shards if (found := _SHARD.fullmatch(name.removeprefix(split.hub)))}
    if wanted and wanted != {len(shards)}:
        raise TableError(f"{folder}: {split.hub} is {max(wanted)} files, and there are {', '.join(shards)}")
    return [folder / name for name in shards]


def _is_microsofts(task: GlueTask, folder: Path) -> bool:
    """Whether MRPC is read from Microsoft's own files: where they are, unless .tsv files lie beside a part of them."""
    place = folder / task.name
    if task.name != "MRPC" or not (place / _MSR_TRAIN).exists():
        return False
    whole = all((place / f"{split.name}.tsv").exists() for split in task.splits if split.labelled)
    return (place / _MSR_DEV).exists() or not whole


def _place(task: GlueTask, split: GlueSplit, source: str) -> str:
    """The file, or files, of a table, for messages."""
    folder, configuration = Path(source), _configuration(task, split)
    if not folder.is_dir():
        return f"{source}:{configuration}#{split.hub}"
    if _shards(folder / configuration, split):
        return f"{folder / configuration / split.hub}-*.parquet"
    if _is_microsofts(task, folder):
        return str(folder / task.name / (_MSR_TRAIN if split.labelled else _MSR_TEST))
    return str(_download_path(task, split, folder))


def _example(row: Row, task: GlueTask, split: GlueSplit) -> Example:
    texts: Any = row.values["texts"]
    cell = row.values.get("label")
    label: Label | None = None
    if split.labelled and task.words:
        if cell not in task.words:
            raise RowError(row.source, row.line, "unknown label", f"{cell!r} is none of {', '.join(task.words)}")
        label = str(cell)
    elif split.labelled:
        label = as_number(cell)
        if label is None or not _SIMILARITY[0] <= label <= _SIMILARITY[1]:
            detail = f"{cell!r}, expected a number from {_SIMILARITY[0]:g} to {_SIMILARITY[1]:g}"
            raise RowError(row.source, row.line, "not a similarity", detail)
    return Example(texts[0], texts[1] if len(texts) > 1 else None, label, row.source, row.line)


# --- the Hub's tables ---------------------------------------------------------------------------------------


def _hub_rows(rows: Iterator[Row], task: GlueTask, split: GlueSplit) -> Iterator[Row | RowError]:
    names = (*task.hub_texts, *(("label",) if split.labelled else ()))
    for number, row in enumerate(rows):
        absent = [name for name in names if name not in row.values]
        if absent:
            raise TableError(
                f"{row.source}: no column {', '.join(absent)}; it has {', '.join(row.values)}, so it is not made as "
                f"{HUB} is"
            )
        texts = [row.values[name] for name in task.hub_texts]
        if not all(isinstance(text, str) for text in texts):
            yield RowError(row.source, row.line, "text is not a string")
            continue
        if not split.labelled and (problem := _out_of_order(row, number)):
            yield problem
            continue
        label = row.values.get("label")
        if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(task.words):
            label = task.words[label]  # Parquet files by themselves have class numbers
        elif label in task.hub_words:
            label = task.words[task.hub_words.index(str(label))]
        elif isinstance(label, float) and not task.words and label == float(np.float32(label)):
            label = float(str(np.float32(label)))  # the Hub has float32: 3.8 as the download spells it
        yield Row({"texts": texts, "label": label}, row.source, row.line)


# --- the download's files -----------------------------------------------------------------------------------


def _download_path(task: GlueTask, split: GlueSplit, folder: Path) -> Path:
    if split.name != DIAGNOSTIC:
        return folder / task.name / f"{split.name}.tsv"
    places = [folder / name for name in _DIAGNOSTIC_FILES]
    return next((place for place in places if place.exists()), places[0])


def _download_rows(task: GlueTask, split: GlueSplit, folder: Path) -> Iterator[Row | RowError]:
    path = _download_path(task, split, folder)
    if not path.exists():
        there = sorted(item.name for item in path.parent.iterdir()) if path.parent.is_dir() else []
        has = f"{path.parent} has {', '.join(there[:8])}" if there else f"there is no folder {path.parent}"
        without = "" if split.labelled else "; --no-test does without"
        raise TableError(f"{path}: no such file; {has}{without}")
    has_header = task.has_header or not split.labelled
    texts = task.texts if has_header == task.has_header else ("sentence",)
    rows = _table(path, 0 if has_header else _COLA_COLUMNS)
    return _picked(rows if split.labelled else _in_order(rows), texts, task.label if split.labelled else None)


def _microsoft_rows(task: GlueTask, split: GlueSplit, folder: Path, notes: list[str]) -> Iterator[Row | RowError]:
    """MRPC of Microsoft's own files: training and dev rows are told apart by their pairs of ids."""
    path, dev = folder / (_MSR_TRAIN if split.labelled else _MSR_TEST), folder / _MSR_DEV
    for file in (path, dev):
        if not file.exists():
            raise TableError(f"{file}: no such file; MRPC is {_MSR_TRAIN}, {_MSR_TEST} and {_MSR_DEV}, or .tsv files")
    if not split.labelled:
        # The test file's labels are not for us to see
        yield from _picked(_in_order(_table(path, 0)), task.texts, None)
        return
    ids: dict[tuple[str, ...], bool] = {}
    is_train = split is task.train
    for row in _table(dev, len(_MSR_IDS)):
        if isinstance(row, Row):
            ids[tuple(str(cell).strip() for cell in row.values.values())] = False
        elif is_train:  # both tables are read of the same files; what is wrong with them is counted once
            yield row
    for row in _picked(_table(path, 0), (*task.texts, *_MSR_IDS), task.label):
        if isinstance(row, RowError):
            if is_train:
                yield row
            continue
        cells: Any = row.values["texts"]
        texts, pair = cells[: len(task.texts)], tuple(cells[len(task.texts) :])
        if is_dev := pair in ids:
            ids[pair] = True
        if is_dev != is_train:
            yield Row({**row.values, "texts": texts}, row.source, row.line)
    lacking = [" ".join(pair) for pair, met in ids.items() if not met]
    if lacking and is_train:
        notes.append(
            f"{dev}: {len(lacking)} of its {len(ids)} pairs of ids are of no row of {path.name}, the first: "
            f"{lacking[0]}"
        )


def _picked(rows: Iterator[Row | RowError], texts: Sequence[str], label: str | None) -> Iterator[Row | RowError]:
    """Rows with the text and label cells alone, in the order that predictions go by."""
    for row in rows:
        if isinstance(row, RowError):
            yield row
            continue
        absent = [name for name in (*texts, *((label,) if label else ())) if name not in row.values]
        if absent:
            raise TableError(f"{row.source}: no column {', '.join(absent)}; it has {', '.join(row.values)}")
        values = {"texts": [row.values[name] for name in texts]}
        yield Row(values if label is None else {**values, "label": row.values[label]}, row.source, row.line)


def _in_order(rows: Iterator[Row | RowError]) -> Iterator[Row | RowError]:
    """Check what counts test rows, where they have it: answers are given in their order."""
    for number, row in enumerate(rows):
        yield (_out_of_order(row, number) or row) if isinstance(row, Row) else row


def _out_of_order(row: Row, number: int) -> RowError | None:
    """What is wrong with a test row that does not count as the `number`th, from 0."""
    for name in _COUNTERS:
        if name in row.values and str(row.values[name]) != str(number):
            detail = f"{row.values[name]!r}, expected {number}"
            return RowError(row.source, row.line, f"{name} out of order", detail)
    return None


_WRONG_CELLS = "wrong number of cells"
_NOT_UTF8 = "GLUE's files are UTF-8; if the whole file has another encoding, convert it, as with iconv"


def _utf8(lines: Lines) -> Iterator[str]:
    """Lines, with our own words where a file's encoding ends them."""
    try:
        yield from lines
    except TableError as error:
        if "badly encoded" in str(error):
            raise TableError(f"{lines.source}:{lines.number + 1}: badly encoded: {_NOT_UTF8}") from error
        raise


def _table(path: Path, columns: int) -> Iterator[Row | RowError]:
    """Rows of a tab-separated file in which quotes are ordinary characters.

    Without a header there are so many `columns`, which are numbered; 0 stands for a header. Raises `TableError` for
    one that cannot be read.
    """
    with open_bytes(str(path)) as stream:
        lines = Lines(stream, str(path), "utf-8")
        names = [str(column) for column in range(columns)]
        for line in _utf8(lines):
            cells = line.rstrip("\r\n").split("\t")
            problem = lines.take_problem()
            if problem is not None:  # whose words advise an option that there is not here
                detail = _NOT_UTF8 if "encoded" in problem.reason else ""
                problem = RowError(str(path), lines.number, problem.reason, detail)
            if not names:
                if problem is not None:
                    raise TableError(f"{problem} (in the line that names the columns)")
                names = cells
                if len(set(names)) < len(names):
                    twice = next(name for name in names if names.count(name) > 1)
                    raise TableError(f"{path}: its first line names the column {twice!r} twice")
                continue
            if len(cells) != len(names):
                wanted = "there should be" if columns else "the first line has"
                detail = f"{len(cells)} cells, where {wanted} {len(names)}"
                problem = problem or RowError(str(path), lines.number, _WRONG_CELLS, detail)
            yield problem or Row(dict(zip(names, cells, strict=True)), str(path), lines.number)
