"""When an exported file is accepted, refused or left open, on made-up answers."""

from __future__ import annotations

import numpy as np
import pytest

from squeezebert.data.statistics import tango_interval
from squeezebert.export.checkpoint import EvaluationRow
from squeezebert.export.options import ExportOptions
from squeezebert.export.verify import BUILT_IN_TEXT, EVALUATION_ROWS, Evidence, verify_fp32, verify_int8
from squeezebert.files.errors import OptionError

LABELS = ("a", "b")


def evidence(labels, task="single_label", source=EVALUATION_ROWS):
    rows = [EvaluationRow("text", None, label) for label in labels]
    return Evidence(task, () if task == "regression" else LABELS, None, rows, source)


def answers(choices):
    """Probabilities (N, 2) that choose label 0 or 1."""
    return np.array([[0.9, 0.1] if choice == 0 else [0.1, 0.9] for choice in choices])


def flipped(n, count):
    """`n` answers a, the last `count` of them turned into b."""
    return answers([0] * (n - count) + [1] * count)


def judge(rows, fp32, int8, **options):
    return verify_int8(rows, fp32, fp32, int8, ExportOptions(**options))


def test_equal_answers_are_accepted():
    found = judge(evidence(["a"] * 1000), flipped(1000, 0), flipped(1000, 0))
    assert found.refused is None
    assert found.warnings == ()
    assert (found.agreement, found.accuracy, found.drop, found.rows) == (1.0, 1.0, 0.0, 1000)
    assert found.drop_interval[1] < 0.5


def test_a_certain_loss_is_refused_with_its_numbers():
    found = judge(evidence(["a"] * 2000), flipped(2000, 0), flipped(2000, 30))
    interval = tango_interval(30, 0, 2000)
    assert found.drop == pytest.approx(1.5)
    assert found.drop_interval == pytest.approx((100 * interval.low, 100 * interval.high))
    assert "it loses +1.05 to +2.13 points (95 %, 2000 rows) of accuracy, more than 0.5" in found.refused
    assert judge(evidence(["a"] * 2000), flipped(2000, 0), flipped(2000, 30), max_accuracy_drop=1.1).refused is None


def test_an_open_question_is_a_warning_with_the_rows_that_would_settle_it():
    found = judge(evidence(["a"] * 200), flipped(200, 0), flipped(200, 0))
    assert found.refused is None
    (warning,) = found.warnings
    assert "is open; at these rates about 760 rows would decide it" in warning  # z^2 / (n + z^2) < 0.5 %


def test_disagreement_is_refused_even_where_it_costs_no_accuracy():
    rows = evidence(["a"] * 30 + ["b"] * 30 + ["a"] * 940)
    fp32 = answers([1] * 30 + [1] * 30 + [0] * 940)
    int8 = answers([0] * 30 + [0] * 30 + [0] * 940)
    found = judge(rows, fp32, int8)
    assert found.drop == 0
    assert found.refused == "94.0% agreement with fp32 on 1000 evaluation rows, below 98.0%"
    assert judge(rows, fp32, int8, min_agreement=0.9).refused is None


def test_without_labels_no_accuracy_is_claimed():
    for rows, reason in (
        (evidence([None] * 10), "no evaluation row has a label"),
        (evidence([None] * 10, source=BUILT_IN_TEXT), "no evaluation rows"),
    ):
        found = judge(rows, flipped(10, 0), flipped(10, 0))
        assert (found.accuracy, found.drop, found.refused) == (None, None, None)
        assert found.reason == f"accuracy not checked: {reason}"


def test_rows_without_a_label_still_count_for_agreement():
    found = judge(evidence(["a"] * 500 + [None] * 500), flipped(1000, 0), flipped(1000, 0))
    assert (found.rows, found.agreement, found.accuracy) == (1000, 1.0, 1.0)


def test_built_in_text_must_be_certain():
    rows = evidence([None] * 32, source=BUILT_IN_TEXT)
    one = judge(rows, flipped(32, 0), flipped(32, 1))
    assert one.refused is None
    assert "96.9% agreement" in one.warnings[0]
    assert "agreement" in judge(rows, flipped(32, 0), flipped(32, 8)).refused


def test_several_labels_are_counted_by_share():
    rows = evidence([("a",), ("a", "b"), ()], task="multi_label")
    fp32 = np.array([[0.9, 0.1], [0.9, 0.9], [0.1, 0.1]])
    int8 = np.array([[0.9, 0.1], [0.9, 0.2], [0.1, 0.1]])
    found = judge(rows, fp32, int8, min_agreement=0.5)
    assert found.agreement == pytest.approx(5 / 6)
    assert found.accuracy == pytest.approx(5 / 6)
    assert found.drop == pytest.approx(100 / 6)
    assert found.metric == "mean share of labels right"


def test_numbers_are_compared_by_correlation():
    random = np.random.default_rng(0)
    truth = random.normal(size=400)
    fp32 = (truth + random.normal(0, 0.1, 400))[:, None]
    rows = evidence(list(truth), task="regression")
    good = judge(rows, fp32, fp32 + random.normal(0, 0.001, (400, 1)))
    assert good.refused is None
    assert good.metric == "Pearson correlation"
    assert good.agreement == pytest.approx(1, abs=1e-4)
    bad = judge(rows, fp32, fp32 + random.normal(0, 0.5, (400, 1)))
    assert bad.drop == pytest.approx(100 * (good.accuracy - bad.accuracy), abs=0.1)
    assert "more than 0.5" in bad.refused
    constant = judge(rows, fp32, np.zeros((400, 1)))
    assert constant.refused is not None
    assert constant.reason == "accuracy not checked: a correlation needs at least three rows and more than one value"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_is_refused(value):
    rows = evidence(["a"] * 10)
    broken = flipped(10, 0)
    broken[3, 1] = value
    for found in (judge(rows, flipped(10, 0), broken), verify_fp32(rows, flipped(10, 0), broken)):
        assert "NaN" in found.refused
        assert np.isfinite(found.max_difference)
    assert "NaN" in verify_fp32(rows, broken, flipped(10, 0)).refused


def test_fp32_must_repeat_torch():
    rows = evidence(["a"] * 10)
    reference = flipped(10, 2)
    assert verify_fp32(rows, reference, reference + 5e-5).refused is None
    assert "differs from torch's by 0.0002" in verify_fp32(rows, reference, reference + 2e-4).refused
    numbers = evidence([1000.0] * 3, task="regression")
    values = np.array([[1000.0], [2000.0], [3000.0]])
    assert verify_fp32(numbers, values, values * (1 + 5e-5)).refused is None  # relative to the value
    assert verify_fp32(numbers, values, values * (1 + 5e-4)).refused is not None


@pytest.mark.parametrize(
    "options",
    [{"precision": "int4"}, {"max_accuracy_drop": -1}, {"min_agreement": 98}, {"opset": 12}, {"threads": 0}],
)
def test_unusable_options_are_refused(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        ExportOptions(**options)
