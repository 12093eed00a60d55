"""Scores and what is true in, the threshold that reaches a precision or recall out.

Serves `policy` and `pairs choose`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.stats import norm

from squeezebert.data.statistics import wilson_interval


def precise_threshold(
    scores: np.ndarray, present: np.ndarray, precision: float, certainty: float = 0.95, floor: float = 0.0
) -> float | None:
    """Return a threshold from which on at least `precision` of the rows are right; None where none is.

    Of those thresholds it is the one that finds the most rows, and of such the highest: a lower one would spend the
    errors that are allowed, and find nothing by it. `scores` (N,), `present` (N,) of bool. `certainty` is the
    one-sided confidence with which the precision is reached beyond these rows (Wilson's limit); 0.5 takes the rows
    as they are. A threshold lies half-way to the next lower score, the least score to `floor`: a threshold that is
    the score of a row has no margin.
    """
    places, found, held = _counts(scores, present)
    enough = lowest_share(found, held, certainty) >= precision
    if not enough.any():
        return None
    best = np.flatnonzero(enough & (found == found[enough].max()))[0]
    return _below(places[best], scores, floor)


def complete_threshold(
    scores: np.ndarray, present: np.ndarray, recall: float, certainty: float = 0.95, floor: float = 0.0
) -> float:
    """Return the highest threshold at which at least `recall` of the rows that are `present` are found, as above.

    Where there are too few of them for that certainty, it is the one that finds all.
    """
    places, found, _ = _counts(scores, present)
    total = np.full(len(found), found[-1])
    enough = np.flatnonzero((lowest_share(found, total, certainty) >= recall) | (found == total))
    return _below(places[enough[0]], scores, floor)


def lowest_share(right: np.ndarray, of: np.ndarray, certainty: float) -> np.ndarray:
    """Return the lower limits of shares that were observed, one-sided (Wilson 1927)."""
    z = float(norm.ppf(certainty))
    share = right / of
    half = z * np.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return np.asarray((share + z * z / (2 * of) - half) / (1 + z * z / of))


def fewest(share: float, certainty: float) -> int:
    """Return how many rows it takes, all of them right, to show so high a share; 0 where no number does."""
    z = float(norm.ppf(certainty))
    return math.ceil(round(z * z * share / (1 - share), 9)) if share < 1 else 0


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


def _counts(scores: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The scores from high to low, each once, and how many rows from each on are `present`, and are at all."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) < 0, True)
    return scores[order][last], np.cumsum(present[order])[last], np.arange(1, len(order) + 1)[last]


def _below(threshold: float, scores: np.ndarray, floor: float) -> float:
    lower = scores[scores < threshold]
    return float((threshold + (lower.max() if len(lower) else floor)) / 2)
