"""A table of labelled text and the user's options in; training and evaluation examples and a report out.

What training calls. One table alone is read by `data.reading`, whose names are handed on here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from squeezebert.data.columns import Columns
from squeezebert.data.labels import guess_task, natural_order, whole_numbers
from squeezebert.data.options import DataOptions, Task
from squeezebert.data.reading import (
    Example,
    check_columns,
    encode_targets,
    label_cells,
    open_table,
    read_cells,
    read_examples,
)
from squeezebert.data.report import SHOWN, DataReport, Skips, report_on
from squeezebert.data.splits import split_rows
from squeezebert.files.errors import OptionError, TableError
from squeezebert.files.tables import OnSkip, RowError, table_splits

__all__ = [
    "Columns",
    "DataReport",
    "Example",
    "LabelledData",
    "encode_targets",
    "load_labelled",
    "read_examples",
]


@dataclass(frozen=True)
class LabelledData:
    """Examples to train on and to evaluate on, checked to be usable for the task."""

    task: Task
    """What a label is: one of several, any number of several, or a number."""
    labels: tuple[str, ...]
    """Class names in natural order, the order of a model's outputs; empty for regression."""
    train: list[Example]
    """Examples to train on."""
    evaluation: list[Example]
    """Examples to evaluate on."""
    columns: Columns
    """The columns the examples were read from."""
    report: DataReport
    """Counts, leaks, conflicts and warnings."""


def load_labelled(source: str | Path, options: DataOptions) -> LabelledData:
    """Read a table of labelled text, find its task and labels, and make sure it can be trained on.

    Evaluation rows are those of `options.eval`, else the validation (or else test) split of the source, else
    a seeded share of the training rows that is stratified by label and shares no text with the rest.

    Raises:
        TableError: no such columns, a bad row, a label with one example, an evaluation label that is never
            trained on, fewer than two classes, or nothing left to train or evaluate on.
        OptionError: options that contradict each other.
    """
    skips = Skips()
    places = _find_places(str(source), options)
    columns, rows = open_table(places.train, options, None, labelled=True, on_skip=skips)
    cells = list(read_cells(rows, columns, options, skips))
    found = (cell.label for cell in cells)
    several = len(columns.labels) > 1 or options.label_separator is not None
    task = guess_task(found, several=several) if options.task == "auto" else options.task
    check_columns(task, columns)
    whole = whole_numbers(cell.label for cell in cells) if len(columns.labels) == 1 else False
    train = list(label_cells(cells, task, columns, options, whole=whole, on_skip=skips))
    if places.evaluation is None:
        train = _without_single_examples(train, task, options, skips)
        _check_classes(train, task, columns, places.train)
        labels = _labels(train, task, columns)
        texts = [(example.text, example.text_pair) for example in train]
        targets = [example.label for example in train if example.label is not None]
        kept, held_out = split_rows(texts, targets, task, options.eval_fraction, options.split_seed)
        train, evaluation = [train[row] for row in kept], [train[row] for row in held_out]
    else:
        _check_classes(train, task, columns, places.train)
        labels = _labels(train, task, columns)
        _, rows = open_table(places.evaluation, options, columns, labelled=True, on_skip=skips)
        cells = list(read_cells(rows, columns, options, skips))
        evaluation = list(label_cells(cells, task, columns, options, whole=whole, on_skip=skips))
        evaluation = _without_untrained(train, evaluation, task, options, skips)
    if not evaluation:
        raise TableError(f"{places.evaluation or places.train}: no usable rows to evaluate on; add rows")
    report = report_on(
        train,
        evaluation,
        task,
        labels,
        skips,
        train_from=places.train,
        evaluation_from=places.evaluation_from,
        warnings=places.warnings,
    )
    return LabelledData(task, labels, train, evaluation, columns, report)


# --- rules for a whole data set --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Places:
    """Where training and evaluation rows are read; without a place to evaluate, a share of the former."""

    train: str
    evaluation: str | None
    evaluation_from: str
    warnings: tuple[str, ...] = ()


def _find_places(source: str, options: DataOptions) -> _Places:
    splits = table_splits(source)
    train, evaluation, warnings = source, options.eval, []
    if splits:
        if "train" not in splits:
            raise TableError(
                f"{source}: no training split; it has {', '.join(splits)}: name one, e.g. "
                f"{next(iter(splits.values()))}"
            )
        train = splits["train"]
        if evaluation is None and "validation" in splits:
            evaluation = splits["validation"]
        elif evaluation is None and "test" in splits:
            evaluation = splits["test"]
            warnings.append("there is no validation split, so the test split is used to evaluate during training")
        unused = [name for name in splits if name not in ("train", "validation", "test")]
        if unused:
            warnings.append(f"not used: {', '.join(splits[name] for name in unused)}")
    if train == evaluation == "-":
        raise OptionError("--eval -: standard input is the training table already; name a file")
    share = f"{options.eval_fraction:g} of the distinct texts of {train}, split seed {options.split_seed}"
    return _Places(train, evaluation, evaluation or share, tuple(warnings))


def _check_classes(train: Sequence[Example], task: Task, columns: Columns, source: str) -> None:
    if not train:
        raise TableError(f"{source}: no usable rows to train on")
    labels = _labels(train, task, columns)
    if task == "single_label" and len(labels) < 2:
        raise TableError(f"{source}: all rows have the label {labels[0]!r}; two classes are needed at least")
    if task == "multi_label" and not labels:
        raise TableError(f"{source}: no row has any label; one label is needed at least")


def _labels(train: Sequence[Example], task: Task, columns: Columns) -> tuple[str, ...]:
    if len(columns.labels) > 1:
        return natural_order(columns.labels)
    return natural_order({name for example in train for name in example.names})


def _without_single_examples(train: list[Example], task: Task, options: DataOptions, on_skip: OnSkip) -> list[Example]:
    """Refuse (or skip) classes with one distinct text: it cannot be both trained on and evaluated."""
    if task != "single_label":
        return train
    texts_of: dict[str, set[tuple[str, str | None]]] = {}
    for example in train:
        for name in example.names:
            texts_of.setdefault(name, set()).add((example.text, example.text_pair))
    single = {name for name, texts in texts_of.items() if len(texts) == 1}
    cause = "it can't be both trained on and evaluated; add examples of the label"
    return _without(train, single, options, on_skip, reason="label with one example", cause=cause)


def _without_untrained(
    train: list[Example], evaluation: list[Example], task: Task, options: DataOptions, on_skip: OnSkip
) -> list[Example]:
    """Refuse (or skip) evaluation rows with a label that no training row has."""
    if task == "regression":
        return evaluation
    trained = {name for example in train for name in example.names}
    untrained = {name for example in evaluation for name in example.names} - trained
    cause = "add training rows that have it"
    return _without(evaluation, untrained, options, on_skip, reason="label never trained on", cause=cause)


def _without(
    examples: list[Example], bad: set[str], options: DataOptions, on_skip: OnSkip, *, reason: str, cause: str
) -> list[Example]:
    """Examples without those that have a bad label; these are skipped and counted, or raised."""
    kept = [example for example in examples if bad.isdisjoint(example.names)]
    refused = [example for example in examples if not bad.isdisjoint(example.names)]
    if refused and not options.skip_bad_rows:
        named = [f"{_first(example, bad)!r} ({example.place})" for example in refused[:SHOWN]]
        more = f" and {len(refused) - SHOWN} rows more" if len(refused) > SHOWN else ""
        way_out = "or pass over such rows with --skip-bad-rows"
        raise TableError(f"{reason}: {', '.join(named)}{more}: {cause}, {way_out}")
    for example in refused:
        on_skip(RowError(example.source, example.line, reason, repr(_first(example, bad))))
    return kept


def _first(example: Example, bad: set[str]) -> str:
    return next(name for name in example.names if name in bad)
