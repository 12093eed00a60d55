"""One table of text and the columns to use in, a stream of examples out; serves prediction and evaluation.

`data.examples` makes training data of the same streams.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from squeezebert.data.columns import Columns, find_columns, require_columns
from squeezebert.data.labels import BadCell, Label, check_text, read_indicators, read_label, whole_numbers
from squeezebert.data.options import DataOptions, Task
from squeezebert.files.errors import OptionError, TableError
from squeezebert.files.tables import OnSkip, Row, RowError, read_rows, skip_or_raise


@dataclass(frozen=True, slots=True)
class Example:
    """One text, or pair of texts, with its label and the place it came from."""

    text: str
    """The text as it is in the table."""
    text_pair: str | None
    """The second text of a pair."""
    label: Label | None
    """Class name, names of all labels that apply, number, or None where no label was asked for."""
    source: str
    """The file or dataset the example was read from."""
    line: int
    """1-based line (or row) where it starts."""

    @property
    def place(self) -> str:
        """The place as people name it: file:line."""
        return f"{self.source}:{self.line}"

    @property
    def names(self) -> tuple[str, ...]:
        """The class names that apply: one, several or none."""
        if isinstance(self.label, str):
            return (self.label,)
        return self.label if isinstance(self.label, tuple) else ()


def read_examples(
    source: str | Path,
    options: DataOptions,
    *,
    task: Task | None = None,
    labels: Sequence[str] = (),
    columns: Columns | None = None,
    on_skip: OnSkip | None = None,
    odd: bool = False,
) -> Iterator[Example]:
    """Stream the examples of one table, to predict (no `task`: labels are not read) or to evaluate.

    With `labels`, a label outside them is a bad row. With `columns`, those are read; otherwise they are found
    anew. `options` say which columns, how to split a cell of labels, the encoding, and whether bad rows are
    skipped (each is handed to `on_skip`) or raised. A text with a NUL or half a surrogate pair makes a row bad,
    unless `odd` texts are asked for.

    Raises:
        TableError: a column is not to be found (at once), or a row is bad (when it is reached).
    """
    if columns is not None and task is None:
        columns = replace(columns, labels=())
    columns, rows = open_table(str(source), options, columns, labelled=task is not None, on_skip=on_skip, odd=odd)
    cells = read_cells(rows, columns, options, on_skip, empty=task is None, odd=odd)
    if task is None:
        return (Example(cell.text, cell.text_pair, None, cell.source, cell.line) for cell in cells)
    check_columns(task, columns)
    whole = bool(labels) and whole_numbers(labels)
    examples = label_cells(cells, task, columns, options, whole=whole, on_skip=on_skip)
    return _only_known(examples, frozenset(labels), options, on_skip) if labels else examples


def encode_targets(examples: Sequence[Example], task: Task, labels: Sequence[str]) -> np.ndarray:
    """Labels as an array: int64 ids (N,), float32 zeros and ones (N, len(labels)), or float32 numbers (N,).

    Raises:
        TableError: an example has no label, or one that is not among `labels`.
    """
    if task == "regression":
        for example in examples:
            if not isinstance(example.label, int | float):
                raise TableError(f"{example.place}: label {example.label!r} is not a number, as regression needs")
        return np.array([example.label for example in examples], dtype=np.float32)
    number_of = {label: number for number, label in enumerate(labels)}
    wanted = str if task == "single_label" else tuple
    for example in examples:
        if not isinstance(example.label, wanted) or not all(name in number_of for name in example.names):
            raise TableError(f"{example.place}: label {example.label!r} is not among the labels of the model")
    if task == "single_label":
        return np.array([number_of[name] for example in examples for name in example.names], dtype=np.int64)
    targets = np.zeros((len(examples), len(labels)), dtype=np.float32)
    for row, example in enumerate(examples):
        targets[row, [number_of[name] for name in example.names]] = 1.0
    return targets


# --- the steps from rows to examples ----------------------------------------------------------------------


@dataclass(slots=True)
class Cells:
    """The checked text of a row, and its label as the table has it (a dict of several 0/1 columns)."""

    text: str
    text_pair: str | None
    label: object
    source: str
    line: int


def open_table(
    source: str,
    options: DataOptions,
    columns: Columns | None,
    *,
    labelled: bool,
    on_skip: OnSkip | None,
    odd: bool = False,
) -> tuple[Columns, Iterator[Row]]:
    """The columns to use, chosen by the first row unless given, and the rows of a table.

    Raises:
        TableError: the table or a column is not there, or no row can be used.
    """
    rows = read_rows(source, encoding=options.encoding, skip_bad_rows=options.skip_bad_rows, on_skip=on_skip, odd=odd)
    first = next(rows, None)
    if first is None:
        raise TableError(f"{source}: no usable rows: all were skipped")
    if columns is None:
        columns = find_columns(list(first.values), options, source, labelled=labelled)
    else:
        require_columns(columns, first.values, source)
    return columns, chain([first], rows)


def read_cells(
    rows: Iterator[Row],
    columns: Columns,
    options: DataOptions,
    on_skip: OnSkip | None,
    *,
    empty: bool = False,
    odd: bool = False,
) -> Iterator[Cells]:
    """Rows with a text that can be used; others are bad rows. An `empty` text has an answer, but teaches nothing.

    So has an `odd` one, with half a surrogate pair, which no file takes as it is.
    """
    for row in rows:
        try:
            text = _text(row, columns.text, empty, odd)
            pair = None if columns.text_pair is None else _text(row, columns.text_pair, empty, odd)
            cells = {name: _cell(row, name) for name in columns.labels}
        except BadCell as error:
            bad = RowError(row.source, row.line, error.reason, error.detail)
            skip_or_raise(bad, options.skip_bad_rows, on_skip)
        else:
            label: object = cells if len(cells) > 1 else next(iter(cells.values()), None)
            yield Cells(text, pair, label, row.source, row.line)


def _text(row: Row, column: str, empty: bool, odd: bool) -> str:
    cell = _cell(row, column)
    if not isinstance(cell, str):
        detail = f"column {column!r} holds {str(cell)[:40]!r} ({type(cell).__name__})"
        raise BadCell("text is not a string", detail)
    if not empty and (not cell or cell.isspace()):
        raise BadCell("empty text", f"column {column!r}")
    if not odd:
        check_text(cell, "text")
    return cell


def _cell(row: Row, column: str) -> object:
    try:
        return row.values[column]
    except KeyError:
        raise BadCell("missing column", repr(column)) from None


def label_cells(
    cells: Iterable[Cells],
    task: Task,
    columns: Columns,
    options: DataOptions,
    *,
    whole: bool,
    on_skip: OnSkip | None,
) -> Iterator[Example]:
    """Examples with the label that the task makes of a cell; cells it can make none of are bad rows."""
    for cell in cells:
        try:
            if len(columns.labels) > 1 and isinstance(cell.label, dict):
                label: Label = read_indicators(cell.label)
            else:
                label = read_label(cell.label, task, separator=options.label_separator, whole=whole)
        except BadCell as error:
            bad = RowError(cell.source, cell.line, error.reason, error.detail)
            skip_or_raise(bad, options.skip_bad_rows, on_skip)
        else:
            yield Example(cell.text, cell.text_pair, label, cell.source, cell.line)


def check_columns(task: Task, columns: Columns) -> None:
    """Refuse several label columns where a row has one label (OptionError)."""
    if len(columns.labels) > 1 and task != "multi_label":
        raise OptionError(f"--task {task}: needs one label column, and --label names {len(columns.labels)}")


def _only_known(
    examples: Iterator[Example], labels: frozenset[str], options: DataOptions, on_skip: OnSkip | None
) -> Iterator[Example]:
    for example in examples:
        unknown = next((name for name in example.names if name not in labels), None)
        if unknown is None:
            yield example
        else:
            bad = RowError(example.source, example.line, "unknown label", f"{unknown!r} is not a label of the model")
            skip_or_raise(bad, options.skip_bad_rows, on_skip)
