"""Cells to labels: the task they make, how each is read, and which are refused."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest

from squeezebert.data.labels import (
    BadCell,
    as_number,
    guess_task,
    natural_order,
    read_indicators,
    read_label,
    whole_numbers,
)


@pytest.mark.parametrize(
    ("cells", "task"),
    [
        (["a", "b"], "single_label"),
        (["1", "2", "3"], "single_label"),
        ([1, 0], "single_label"),
        ([True, False], "single_label"),
        ([1.0, 2.0, None], "single_label"),
        (["1.0", "2.0", ""], "single_label"),
        ([0.5, 1], "regression"),
        (["0.5", "1", "-2e3"], "regression"),
        (["0.5", "1", "nan"], "regression"),
        ([Decimal("1.5")], "regression"),
        (["0.5", "1", "high"], "single_label"),
        ([0.5, True], "single_label"),
        (["1_5.5"], "single_label"),
        ([float("nan"), 1, None], "single_label"),
        ([["a"], []], "multi_label"),
        (["a", ["b"]], "multi_label"),
        ([0.5, ["b"]], "multi_label"),
    ],
)
def test_guess_task(cells, task):
    assert guess_task(cells, several=False) == task
    assert guess_task(cells, several=True) == "multi_label"


@pytest.mark.parametrize(
    ("cell", "whole", "label"),
    [
        (" spam\t", False, "spam"),
        (3, False, "3"),
        (3.0, False, "3"),
        (Decimal("3.0"), False, "3"),
        (0.5, False, "0.5"),
        (True, False, "true"),
        (False, False, "false"),
        ("1.0", True, "1"),
        ("-1.", True, "-1"),
        ("1.0", False, "1.0"),
        ("007", True, "007"),
        ("True", False, "True"),
    ],
)
def test_single_label(cell, whole, label):
    assert read_label(cell, "single_label", whole=whole) == label


@pytest.mark.parametrize(
    ("cell", "separator", "labels"),
    [
        (["b", " a "], None, ("a", "b")),
        ([10, 9], None, ("9", "10")),
        ([], None, ()),
        ("b | a|", "|", ("a", "b")),
        ("", "|", ()),
        (["a|b"], "|", ("a|b",)),
    ],
)
def test_multi_label(cell, separator, labels):
    assert read_label(cell, "multi_label", separator=separator) == labels


@pytest.mark.parametrize(("cell", "number"), [(1, 1.0), ("-2.5e1 ", -25.0), (Decimal("0.1"), 0.1), (0.5, 0.5)])
def test_regression(cell, number):
    label = read_label(cell, "regression")
    assert label == number
    assert isinstance(label, float)


@pytest.mark.parametrize(
    ("cell", "task", "separator", "reason"),
    [
        (None, "single_label", None, "missing label"),
        (" ", "single_label", None, "missing label"),
        (math.nan, "single_label", None, "missing label"),
        ({"a": 1}, "single_label", None, "label of the wrong kind"),
        (["a"], "single_label", None, "label of the wrong kind"),
        (math.inf, "single_label", None, "label of the wrong kind"),
        ("a\ud800", "single_label", None, "label is not valid Unicode"),
        (None, "multi_label", "|", "missing label"),
        ("a,b", "multi_label", None, "label of the wrong kind"),
        ([None], "multi_label", None, "missing label"),
        (["a", " "], "multi_label", None, "missing label"),
        ([["a"]], "multi_label", None, "label of the wrong kind"),
        ([0, 1, 0], "multi_label", None, "label named twice"),
        ("a|a", "multi_label", "|", "label named twice"),
        ("", "regression", None, "missing label"),
        ("nan", "regression", None, "label is not a finite number"),
        ("inf", "regression", None, "label is not a finite number"),
        (-math.inf, "regression", None, "label is not a finite number"),
        ("high", "regression", None, "label is not a number"),
        (True, "regression", None, "label is not a number"),
        ([1.0], "regression", None, "label is not a number"),
    ],
)
def test_bad_labels(cell, task, separator, reason):
    with pytest.raises(BadCell) as caught:
        read_label(cell, task, separator=separator)
    assert caught.value.reason == reason


def test_indicators():
    cells = {"rude": "1", "toxic": 0, "spam": True, "9": 1.0, "10": "1.0", "none": "False"}
    assert read_indicators(cells) == ("9", "10", "rude", "spam")
    for cell, reason in (
        (2, "not a 0/1 label"),
        ("yes", "not a 0/1 label"),
        ("", "missing label"),
        (None, "missing label"),
    ):
        with pytest.raises(BadCell) as caught:
            read_indicators({"rude": 1, "toxic": cell})
        assert caught.value.reason == reason
        assert "'toxic'" in caught.value.detail


def test_natural_order():
    assert natural_order(["10", "b", "9", "-1", "B", "1.5", "a"]) == ("-1", "9", "10", "1.5", "B", "a", "b")
    assert natural_order(["01", "1"]) == natural_order(["1", "01"])


def test_numbers():
    assert as_number("1_000") is None
    assert as_number(10**400) is None
    assert as_number(True) is None
    assert whole_numbers(["1.0", 2, None, ""])
    assert not whole_numbers(["1.0", "x"])
    assert not whole_numbers([0.5])
    assert not whole_numbers([math.inf])
