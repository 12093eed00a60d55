"""Logits and targets of held-out rows in; a temperature, thresholds and calibration errors out. Serves training.

Temperature scaling and the binned error are those of Guo et al. 2017 (arXiv 1706.04599).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_expit, log_softmax
from sklearn.metrics import precision_recall_curve

from squeezebert.data.metrics import probabilities_of
from squeezebert.data.options import Task

BINS = 15
# A threshold counts as if this many rows had asked for 0.5
_PRIOR_ROWS = 5
# exp(±4): beyond this the logits say nothing, or the evaluation rows are too few to say how much
_LOG_TEMPERATURE_BOUNDS = (-4.0, 4.0)


@dataclass(frozen=True)
class Calibration:
    """What turns a model's scores into probabilities that can be believed, and how far they can."""

    temperature: float
    """Logits are divided by it; 1 leaves them alone, and regression always has 1."""
    error_before: float | None
    """Expected calibration error on the evaluation rows without it; None for regression."""
    error_after: float | None
    """The same with a temperature fitted on the other half of the rows, so that it is not flattered."""
    thresholds: tuple[float, ...] | None
    """Of several labels, each applies from this probability on; None for other tasks."""


def fit_temperature(logits: np.ndarray, targets: np.ndarray, task: Task) -> float:
    """Return the temperature with the least cross-entropy on these rows; 1 for regression.

    Targets are smoothed by one row for and one against, as Platt 1999 does: rows that are all answered rightly would
    otherwise call for boundless certainty.
    """
    if task == "regression" or len(targets) == 0:
        return 1.0
    doubt = 1 / (len(targets) + 2)
    wide = logits.astype(np.float64)
    if task == "single_label":
        others = max(wide.shape[1] - 1, 1)
        smooth = np.full(wide.shape, doubt / others)
        smooth[np.arange(len(targets)), targets] = 1 - doubt
    else:
        smooth = targets * (1 - 2 * doubt) + doubt

    def cross_entropy(log_temperature: float) -> float:
        scaled = wide / np.exp(log_temperature)
        if task == "single_label":
            return float(-(smooth * log_softmax(scaled, axis=-1)).sum(-1).mean())
        return float(-(smooth * log_expit(scaled) + (1 - smooth) * log_expit(-scaled)).mean())

    found = minimize_scalar(cross_entropy, bounds=_LOG_TEMPERATURE_BOUNDS, method="bounded")
    return float(np.exp(found.x))


def expected_calibration_error(
    probabilities: np.ndarray, targets: np.ndarray, task: Task, bins: int = BINS
) -> float | None:
    """Mean gap between confidence and accuracy over equal-width bins, weighted by their rows.

    Single-label: confidence of the chosen class against being right. Multi-label: probability of each label against
    its presence. None for regression.
    """
    if task == "regression":
        return None
    if task == "single_label":
        confidence = probabilities.max(-1)
        right = (probabilities.argmax(-1) == targets).astype(np.float64)
    else:
        confidence, right = probabilities.ravel(), targets.ravel().astype(np.float64)
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.bincount(bin_of, weights=confidence - right, minlength=bins)
    return float(np.abs(gap).sum() / len(confidence))


def choose_thresholds(probabilities: np.ndarray, targets: np.ndarray) -> tuple[float, ...]:
    """For each label the probability with the best F1 on these rows, drawn towards 0.5 where few rows have it."""
    chosen = []
    for column, present in zip(probabilities.T, targets.T, strict=True):
        if not present.any():
            chosen.append(0.5)
            continue
        precision, recall, thresholds = precision_recall_curve(present, column)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        best = int(f1[:-1].argmax())
        # Half-way to the next lower score: the threshold itself is the score of a row and has no margin
        lower = column[column < thresholds[best]]
        found = float((thresholds[best] + lower.max()) / 2 if len(lower) else thresholds[best] / 2)
        rows = float(present.sum())
        chosen.append((rows * found + _PRIOR_ROWS * 0.5) / (rows + _PRIOR_ROWS))
    return tuple(chosen)


def calibrate(logits: np.ndarray, targets: np.ndarray, task: Task) -> Calibration:
    """Fit temperature and thresholds on held-out rows, and measure the calibration error before and after."""
    if task == "regression":
        return Calibration(1.0, None, None, None)
    temperature = fit_temperature(logits, targets, task)
    # Each half is scored with the temperature of the other
    after = np.empty(logits.shape, dtype=np.float64)
    for fitted, scored in _halves(len(targets)):
        after[scored] = probabilities_of(logits[scored], task, fit_temperature(logits[fitted], targets[fitted], task))
    calibrated = probabilities_of(logits, task, temperature)
    return Calibration(
        temperature,
        expected_calibration_error(probabilities_of(logits, task), targets, task),
        expected_calibration_error(after, targets, task),
        choose_thresholds(calibrated, targets) if task == "multi_label" else None,
    )


def held_out_decisions(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Decide several labels (N, L) with thresholds chosen on the other half of the rows: 0.0 or 1.0 each.

    Scores of decisions by thresholds that were chosen on the same rows would flatter the model.
    """
    decided = np.empty(logits.shape, dtype=np.float64)
    for fitted, scored in _halves(len(targets)):
        temperature = fit_temperature(logits[fitted], targets[fitted], "multi_label")
        chosen = choose_thresholds(probabilities_of(logits[fitted], "multi_label", temperature), targets[fitted])
        decided[scored] = probabilities_of(logits[scored], "multi_label", temperature) >= np.array(chosen)
    return decided


def _halves(rows: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return (fitted, scored) indices twice, each half once in each part."""
    order = np.random.default_rng(0).permutation(rows)
    return (order[::2], order[1::2]), (order[1::2], order[::2])
