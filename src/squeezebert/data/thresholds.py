"""Scores and what is true in, the threshold that reaches a precision or recall out.

Serves `policy` and `pairs choose`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from squeezebert.data.statistics import wilson_interval


def precise_threshold(scores: np.ndarray, present: np.ndarray, precision: float, floor: float = 0.0) -> float | None:
    """Return the lowest threshold from which on at least `precision` of the rows are right; None where none is.

    `scores` (N,), `present` (N,) of bool. A threshold lies half-way to the next lower score, the least score to
    `floor`: a threshold that is the score of a row has no margin.
    """
    from sklearn.metrics import precision_recall_curve

    reached, _, thresholds = precision_recall_curve(present, scores)
    enough = np.flatnonzero(reached[:-1] >= precision)
    return _below(thresholds[enough[0]], scores, floor) if len(enough) else None


def complete_threshold(scores: np.ndarray, present: np.ndarray, recall: float, floor: float = 0.0) -> float:
    """Return the highest threshold at which at least `recall` of the rows that are `present` are found, as above."""
    from sklearn.metrics import precision_recall_curve

    _, reached, thresholds = precision_recall_curve(present, scores)
    return _below(thresholds[np.flatnonzero(reached[:-1] >= recall)[-1]], scores, floor)


def reached(held: np.ndarray, present: np.ndarray) -> dict[str, list[float]]:
    """Return precision and recall of the rows that are `held` (N,), each with its 95 % interval."""
    right = int((held & present).sum())
    told = {}
    for name, of in (("precision", int(held.sum())), ("recall", int(present.sum()))):
        found = wilson_interval(right, of)
        told[name] = [round(value, 4) for value in (found.estimate, found.low, found.high)]
    return told


def describe(found: dict[str, Any]) -> str:
    """Say what `reached` returned."""
    (precision, low, high), (recall, *between) = found["precision"], found["recall"]
    return (
        f"precision {precision:.1%} (95 % {low:.1%} to {high:.1%}), "
        f"recall {recall:.1%} ({between[0]:.1%} to {between[1]:.1%})"
    )


def _below(threshold: float, scores: np.ndarray, floor: float) -> float:
    lower = scores[scores < threshold]
    return float((threshold + (lower.max() if len(lower) else floor)) / 2)
