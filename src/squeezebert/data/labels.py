"""Cells of a label column in; the task they make, and each as a label (name, names, number) out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from squeezebert.data.options import Task

Label = str | tuple[str, ...] | float
"""A class name, the names of all labels that apply, or the number of a regression."""

_WHOLE = re.compile(r"([+-]?\d+)\.0*", re.ASCII)


class BadCell(Exception):
    """A cell that cannot be used: the kind of problem (`reason`), and what the cell holds (`detail`)."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def guess_task(cells: Iterable[object], *, several: bool) -> Task:
    """What labels mean: lists (or `several` columns, or a separator) are multi_label; numbers of which at
    least one is not whole are regression; anything else is single_label. Missing labels say nothing.
    """
    numbers, fractions = True, False
    if several:
        return "multi_label"
    for cell in cells:
        if isinstance(cell, list | tuple):
            return "multi_label"
        if numbers and not _missing(cell):
            number = as_number(cell)
            numbers = number is not None
            fractions = fractions or (number is not None and math.isfinite(number) and not number.is_integer())
    return "regression" if numbers and fractions else "single_label"


def whole_numbers(cells: Iterable[object]) -> bool:
    """Whether all labels are whole numbers, so that the text `1.0` is the label `1`."""
    numbers = (as_number(cell) for cell in cells if not _missing(cell))
    return all(number is not None and number.is_integer() for number in numbers)


def as_number(cell: object) -> float | None:
    """The number that a cell holds or spells, or None; booleans are not numbers."""
    if isinstance(cell, bool) or not isinstance(cell, int | float | Decimal | str):
        return None
    if isinstance(cell, str) and "_" in cell:  # Python reads 1_000 as a number, tables don't
        return None
    try:
        return float(cell)
    except (ValueError, OverflowError):
        return None


def read_label(cell: object, task: Task, *, separator: str | None = None, whole: bool = False) -> Label:
    """Turn a cell into the label of a task.

    With `separator` a text names several labels. With `whole` (see `whole_numbers`) the text `1.0` is `1`.
    An empty list, or an empty text where there is a separator, means that no label applies.

    Raises:
        BadCell: the label is missing or of the wrong kind.
    """
    if task == "multi_label":
        return _several(cell, separator, whole)
    if _missing(cell):
        raise BadCell("missing label")
    return _number(cell) if task == "regression" else _name(cell, whole)


def read_indicators(cells: Mapping[str, object]) -> tuple[str, ...]:
    """The names of the 0/1 columns that hold a 1, in natural order.

    Raises:
        BadCell: a cell is missing, or neither 0 nor 1.
    """
    applying = []
    for column, cell in cells.items():
        if _missing(cell):
            raise BadCell("missing label", f"column {column!r}, expected 0 or 1")
        word = str(cell).strip().lower()
        value = {"true": 1.0, "false": 0.0}.get(word, as_number(cell))
        if value not in (0.0, 1.0):
            raise BadCell("not a 0/1 label", f"column {column!r} holds {_shown(cell)}, expected 0 or 1")
        if value == 1.0:
            applying.append(column)
    return natural_order(applying)


def natural_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Labels sorted: whole numbers by value, then the rest by their characters."""

    def key(label: str) -> tuple[bool, int, str]:
        is_number = re.fullmatch(r"[+-]?\d{1,18}", label, re.ASCII) is not None
        return (not is_number, int(label) if is_number else 0, label)

    return tuple(sorted(labels, key=key))


def check_text(text: str, what: str) -> None:
    """Refuse a text with half a surrogate pair (JSON can spell one), which no tokenizer or file takes.

    Raises:
        BadCell: it has one.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        detail = f"half a surrogate pair at character {error.start + 1}"
        raise BadCell(f"{what} is not valid Unicode", detail) from None


def _several(cell: object, separator: str | None, whole: bool) -> tuple[str, ...]:
    parts: Sequence[object]
    if isinstance(cell, list | tuple):
        parts = cell
    elif isinstance(cell, str) and separator is not None:
        parts = [part for part in cell.split(separator) if part.strip()]
    elif _missing(cell):
        raise BadCell("missing label", "an empty list says that no label applies")
    else:
        way_out = "name what separates labels with --label-separator"
        raise BadCell("label of the wrong kind", f"expected a list of labels, got {_shown(cell)}; {way_out}")
    names = []
    for part in parts:
        if _missing(part):
            raise BadCell("missing label", f"an empty label in {_shown(cell)}")
        names.append(_name(part, whole))
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        way_out = "list the labels that apply, not a row of 0 and 1"
        raise BadCell("label named twice", f"{twice!r} in {_shown(cell)}; {way_out}")
    return natural_order(names)


def _name(cell: object, whole: bool) -> str:
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, str):
        check_text(cell, "label")
        name = cell.strip()
        spelled = _WHOLE.fullmatch(name) if whole else None
        return spelled[1] if spelled else name
    if isinstance(cell, int | float | Decimal):
        if not math.isfinite(cell):
            raise BadCell("label of the wrong kind", f"{cell} is no name of a class")
        return str(int(cell)) if cell == int(cell) else str(cell)
    raise BadCell("label of the wrong kind", f"expected a text or a number, got {_shown(cell)}")


def _number(cell: object) -> float:
    number = as_number(cell)
    if number is None:
        raise BadCell("label is not a number", f"the task is regression, and the label is {_shown(cell)}")
    if not math.isfinite(number):
        raise BadCell("label is not a finite number", _shown(cell))
    return number


def _missing(cell: object) -> bool:
    if isinstance(cell, str):
        return not cell or cell.isspace()
    # NaN is how Parquet from pandas says missing
    return cell is None or (isinstance(cell, float | Decimal) and math.isnan(cell))


def _shown(cell: object) -> str:
    shown = repr(cell)
    return shown if len(shown) <= 60 else shown[:57] + "..."
