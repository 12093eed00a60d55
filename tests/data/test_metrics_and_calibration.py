"""Scores against independent formulas, and calibration on logits whose right temperature is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from squeezebert.data.calibration import (
    calibrate,
    choose_thresholds,
    expected_calibration_error,
    fit_temperature,
    held_out_decisions,
)
from squeezebert.data.metrics import METRICS, predicted, probabilities_of, score


def test_single_label_scores():
    targets = np.array([0, 0, 0, 1, 1, 2])
    chosen = np.array([0, 0, 1, 1, 1, 0])
    found = score(np.eye(3)[chosen], targets, "single_label")
    assert set(found) == set(METRICS["single_label"])
    assert found["accuracy"] == pytest.approx(4 / 6)
    # F1 by hand: class 0 has 2 of 3 and 2 of 3, class 1 has 2 of 3 and 2 of 2, class 2 nothing
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0.8 + 0) / 3)
    binary = score(np.eye(2)[[1, 1, 0, 0]], np.array([1, 0, 0, 0]), "single_label")
    assert binary["matthews"] == pytest.approx((1 * 2 - 1 * 0) / math.sqrt(2 * 1 * 3 * 2))


def test_multi_label_scores_use_thresholds():
    probabilities = np.array([[0.9, 0.3], [0.6, 0.4], [0.2, 0.1]])
    targets = np.array([[1, 1], [0, 1], [0, 0]], dtype=np.float32)
    found = score(probabilities, targets, "multi_label", np.array([0.7, 0.25]))
    assert found == {"micro_f1": 1, "macro_f1": 1, "label_accuracy": 1, "exact_match": 1}
    plain = score(probabilities, targets, "multi_label")
    assert plain["label_accuracy"] == pytest.approx(3 / 6)
    assert plain["exact_match"] == pytest.approx(1 / 3)


def test_correlations_and_constant_answers():
    targets = np.array([1.0, 2.0, 3.0, 4.0])
    found = score(targets**3, targets, "regression")
    assert found["spearman"] == pytest.approx(1)
    assert 0.9 < found["pearson"] < 1
    constant = score(np.full(4, 2.0), targets, "regression")
    assert constant["pearson"] == constant["spearman"] == 0
    assert constant["mean_squared_error"] == pytest.approx((1 + 0 + 1 + 4) / 4)


def test_probabilities_follow_the_task():
    logits = np.array([[2.0, 0.0], [0.0, 2.0]])
    assert probabilities_of(logits, "single_label", 2.0)[0, 0] == pytest.approx(1 / (1 + math.exp(-1)))
    assert probabilities_of(logits, "multi_label", 1.0)[0, 1] == pytest.approx(0.5)
    assert probabilities_of(np.array([[3.5]]), "regression", 7.0).tolist() == [3.5]
    assert predicted(np.array([1.5, 2.5]), "regression").tolist() == [1.5, 2.5]


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(task, factor):
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(20000, 4)) * 2
    right = probabilities_of(logits, task)
    if task == "single_label":
        targets = np.array([generator.choice(4, p=row) for row in right])
    else:
        targets = (generator.random(right.shape) < right).astype(np.float32)
    assert fit_temperature(logits * factor, targets, task) == pytest.approx(factor, rel=0.05)
    found = calibrate(logits * factor, targets, task)
    assert found.error_after < 0.02
    if factor == 3.0:
        assert found.error_before > 3 * found.error_after


def test_a_few_rows_without_error_do_not_make_the_model_certain():
    logits = np.eye(3)[[0, 1, 2] * 4] * 5.0
    found = calibrate(logits, np.array([0, 1, 2] * 4), "single_label")
    probability = probabilities_of(logits, "single_label", found.temperature).max()
    assert probability == pytest.approx(1 - 1 / 14, abs=1e-3)


def test_calibration_error_by_hand():
    # two bins: confidence 0.9 with 1 of 2 right, confidence 0.6 with 2 of 2 right
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    targets = np.array([0, 1, 0, 1])
    assert expected_calibration_error(probabilities, targets, "single_label") == pytest.approx(
        0.5 * abs(0.9 - 0.5) + 0.5 * abs(0.6 - 1.0)
    )
    assert expected_calibration_error(np.array([1.0]), np.array([1.0]), "regression") is None


def test_thresholds_separate_and_leave_a_margin():
    probabilities = np.array([[0.1, 0.2], [0.2, 0.3], [0.3, 0.1], [0.35, 0.4]])
    targets = np.array([[0, 0], [0, 0], [1, 0], [1, 0]], dtype=np.float32)
    first, second = choose_thresholds(probabilities, targets)
    assert first == pytest.approx((2 * 0.25 + 5 * 0.5) / 7)  # 0.25 separates; two rows move it so far from 0.5
    assert second == 0.5  # no row has the label


def test_scores_of_several_labels_are_not_flattered_by_their_thresholds():
    """On noise the decisions are no better than chance, though thresholds fitted on all rows seem to be."""
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(60, 20))
    targets = (generator.random((60, 20)) < 0.1).astype(np.float32)
    found = calibrate(logits, targets, "multi_label")
    seen = score(
        probabilities_of(logits, "multi_label", found.temperature), targets, "multi_label", np.array(found.thresholds)
    )
    honest = score(held_out_decisions(logits, targets), targets, "multi_label")
    assert honest["micro_f1"] <= seen["micro_f1"]
    assert honest["micro_f1"] < 0.2


def test_regression_is_left_alone():
    found = calibrate(np.zeros((3, 1)), np.zeros(3), "regression")
    assert (found.temperature, found.error_before, found.error_after, found.thresholds) == (1.0, None, None, None)
