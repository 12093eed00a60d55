"""Texts and labels as Python hands them over in (lists, arrays, frames); checked texts, labels and examples out.

Serves the scikit-learn estimators. Legend: n texts, L labels.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence, Set
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import DataConversionWarning

from squeezebert.data.examples import Example
from squeezebert.data.labels import BadCell, Label, check_text
from squeezebert.files.errors import DataError

Text = str | tuple[str, str]
"""A text, or a pair of texts."""


def read_texts(X: Any, name: str, *, learned: bool) -> list[Text]:
    """Return the texts of X (n,) or (n, 1), or its pairs of texts (n, 2); `name` is what messages call it.

    Texts that are `learned` from must be valid Unicode. Raises `DataError` for what holds no texts, or none at all.
    """
    if isinstance(X, str | bytes):
        raise DataError(f"{name} is one text: give a list of texts")
    if isinstance(X, Mapping | Set) or not (hasattr(X, "__len__") or hasattr(X, "__array__")):
        raise DataError(f"{name} is a {type(X).__name__}: give a list of texts, an array or a column of a frame")
    if hasattr(X, "toarray"):
        raise DataError(f"{name} is a sparse matrix of numbers: give the texts themselves")
    try:
        rows = np.asarray(X, dtype=object)
    except ValueError as error:
        raise DataError(f"{name} has rows of several lengths: give texts (n,) or pairs of texts (n, 2)") from error
    if 0 in rows.shape:
        what = "sample(s)" if rows.shape[0] == 0 else "feature(s)"
        raise DataError(
            f"{name} is empty: 0 {what} (shape={rows.shape}) while a minimum of 1 is required: give one text at least"
        )
    if rows.ndim not in (1, 2) or (rows.ndim == 2 and rows.shape[1] > 2):
        raise DataError(f"{name} has shape {rows.shape}: give texts (n,) or pairs of texts (n, 2)")
    if rows.ndim == 2 and rows.shape[1] == 1:
        rows = rows[:, 0]
    for place, item in np.ndenumerate(rows):
        index = "".join(f"[{i}]" for i in place)
        if not isinstance(item, str):
            missing = _missing(item)
            kind = "missing" if missing else type(item).__name__
            way = "leave such rows out, or fill them with ''" if missing else "give str"
            raise DataError(f"{name}{index} is {str(item)[:40]!r} ({kind}), and no text: {way}")
        if learned:
            try:
                check_text(item, "text")
            except BadCell as bad:
                raise DataError(f"{name}{index}: {bad.reason} ({bad.detail}); leave it out or mend it") from None
    if rows.ndim == 1:
        return [str(text) for text in rows]
    return [(str(first), str(second)) for first, second in rows]


def read_labels(y: Any, name: str) -> NDArray[Any]:
    """Return labels (n,), or an indicator matrix (n, L) of zeros and ones. Raises `DataError`."""
    array = _array(y, name)
    if array.ndim == 1:
        return array
    values = array.ravel().tolist()
    if not all(value in (0, 1) for value in values):
        raise DataError(
            f"{name} has shape {array.shape} and holds more than 0 and 1: give labels (n,), or a matrix (n, L) with a "
            "1 for each label that applies"
        )
    return array if array.dtype.kind in "biuf" else array.astype(np.int64)


def read_numbers(y: Any, name: str) -> list[float]:
    """Return the finite numbers of y (n,). Raises `DataError`."""
    array = _array(y, name)
    if array.ndim == 2:
        raise DataError(f"{name} has shape {array.shape}: one number a text is learned; fit a model for each column")
    try:
        numbers = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} is not of numbers ({error}): use SqueezeBertClassifier for labels") from error
    if not np.isfinite(numbers).all():
        row = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise DataError(f"{name}[{row}] is {numbers[row]} (NaN or infinity): leave such rows out")
    return cast(list[float], numbers.tolist())


def _array(y: Any, name: str) -> NDArray[Any]:
    """Return y as an array (n,) or (n, L), nothing in it missing. Raises `DataError`."""
    if y is None:
        raise DataError("this estimator requires y to be passed, but the target y is None: give a label for each text")
    if hasattr(y, "toarray"):  # a sparse indicator matrix
        y = y.toarray()
    try:
        array = np.asarray(y)
    except ValueError as error:
        raise DataError(
            f"{name} has rows of several lengths: for several labels a text give an indicator matrix (n, L), as "
            "sklearn.preprocessing.MultiLabelBinarizer makes of them"
        ) from error
    if array.ndim == 2 and array.shape[1] == 1:
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected: it is read as labels (n,)",
            DataConversionWarning,
            stacklevel=4,
        )
        array = array[:, 0]
    if array.ndim not in (1, 2):
        raise DataError(f"{name} has shape {array.shape}: it should be a 1d array (n,), or a matrix (n, L)")
    if array.size == 0:
        raise DataError(f"{name} is empty: give a label for each text")
    given = np.asarray(y, dtype=object).reshape(array.shape)
    gap = next((place for place, value in np.ndenumerate(given) if _missing(value)), None)
    if gap is not None:
        index = "".join(f"[{i}]" for i in gap)
        raise DataError(f"{name}{index} is missing ({given[gap]}; y contains NaN): leave texts without a label out")
    if array.dtype.kind == "U" and not all(isinstance(value, str) for value in given.ravel()):
        raise DataError(f"{name} mixes text with other labels: make all of them text, or none")
    return array


def classes_of(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the classes (L,), sorted, and the class of each label (n,). Raises `DataError`."""
    if labels.dtype.kind not in "OUbiuf":
        raise DataError(f"Unknown label type: {labels.dtype}; give text, whole numbers or booleans")
    for row, label in enumerate(labels.tolist()):
        if isinstance(label, float) and not label.is_integer():
            raise DataError(
                f"Unknown label type: y is continuous, y[{row}] = {label}: give names or whole numbers, or use "
                "SqueezeBertRegressor for numbers"
            )
        if isinstance(label, str):
            try:
                check_text(label, "label")
            except BadCell as bad:
                raise DataError(f"y[{row}]: {bad.reason} ({bad.detail}); mend it") from None
    try:
        classes, numbers = np.unique(labels, return_inverse=True)
    except TypeError as error:
        raise DataError(f"Unknown label type: labels that cannot be sorted ({error}); make them text") from error
    if len(classes) < 2:
        raise DataError(f"y has one class only, {classes.tolist()[0]!r}: two classes are needed at least")
    return classes, numbers


def numbers_of(labels: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.intp]:
    """Return the class of each label (n,). Raises `DataError` for one that is not among the classes."""
    number_of = {label: number for number, label in enumerate(classes.tolist())}
    for row, label in enumerate(labels.tolist()):
        if label not in number_of:
            raise DataError(
                f"eval_set's y[{row}] = {label!r} is no label of y: add texts that have it, or leave it out"
            )
    return np.array([number_of[label] for label in labels.tolist()])


def names_of(targets: NDArray[Any], names: Sequence[str]) -> list[Label]:
    """Return the name of each class number (n,), or the names of each row of zeros and ones (n, L)."""
    if targets.ndim == 1:
        return [names[number] for number in targets.tolist()]
    return [tuple(names[column] for column in np.flatnonzero(row).tolist()) for row in targets]


def column_names(y: Any, count: int) -> tuple[str, ...]:
    """Return what the labels of an indicator matrix are called: a frame's columns, or their numbers."""
    names = [str(name) for name in getattr(y, "columns", ())]
    return tuple(names) if len(set(names)) == count else tuple(str(column) for column in range(count))


def examples_of(texts: Sequence[Text], labels: Sequence[Label], source: str) -> list[Example]:
    """Return texts with their labels as examples. Raises `DataError` where they are not as many."""
    if len(texts) != len(labels):
        raise DataError(f"{source} has {len(texts)} texts and y {len(labels)} labels: give one label for each text")
    pairs = [(text, None) if isinstance(text, str) else text for text in texts]
    return [
        Example(text, text_pair, label, source, row)
        for row, ((text, text_pair), label) in enumerate(zip(pairs, labels, strict=True), start=1)
    ]


def _missing(value: object) -> bool:
    """Whether a cell is None, NaN, or what pandas has for them."""
    return (
        value is None
        or (isinstance(value, float | np.floating) and bool(np.isnan(value)))
        or type(value).__name__ in ("NAType", "NaTType")
    )
