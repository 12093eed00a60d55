"""Scores and what is right in, the threshold from which on enough of them are, or that finds enough of them, out.

Serves sorting into folders, which learns on the device, and the jobs `policy` and `pairs choose`. Legend: N scores.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Counts = NDArray[np.int64]


def precise_threshold(
    scores_N: Array, right_N: Flags, precision: float, *, certainty: float = 0.95, floor: float = 0.0
) -> float | None:
    """Return a threshold from which on at least `precision` of the answers are right; None where none is.

    Of those thresholds it is the one that finds the most right answers, and of such the highest: a lower one would
    spend the errors that are allowed, and find nothing by it. `certainty` is the one-sided confidence with which the
    precision is reached beyond these rows; 0.5 takes the rows as they are. A threshold lies half-way to the next lower
    score, the least score to `floor`: a threshold that is the score of a row has no margin.
    """
    places, found, held = _counts(scores_N, right_N)
    enough = lowest_share(found, held, certainty) >= precision
    if not enough.any():
        return None
    best = np.flatnonzero(enough & (found == found[enough].max()))[0]
    return _below(places[best], scores_N, floor)


def complete_threshold(
    scores_N: Array, right_N: Flags, recall: float, *, certainty: float = 0.95, floor: float = 0.0
) -> float:
    """Return the highest threshold at which at least `recall` of what is right is found, as above.

    Where there is too little of it for that certainty, it is the one that finds all.
    """
    places, found, _ = _counts(scores_N, right_N)
    total = np.full(len(found), found[-1])
    enough = np.flatnonzero((lowest_share(found, total, certainty) >= recall) | (found == total))
    return _below(places[enough[0]], scores_N, floor)


def lowest_share(right: Counts, of: Counts, certainty: float) -> Array:
    """Return the lower limits of shares that were observed, one-sided (Wilson 1927)."""
    z = NormalDist().inv_cdf(certainty)
    share = right / of
    half = z * np.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return np.asarray((share + z * z / (2 * of) - half) / (1 + z * z / of))


def fewest(share: float, certainty: float) -> int | None:
    """Return how many answers it takes, all of them right, to show so high a share; None where no number does."""
    z = NormalDist().inv_cdf(certainty)
    if z == 0:
        return 1
    return math.ceil(round(z * z * share / (1 - share), 9)) if share < 1 else None


def _counts(scores_N: Array, right_N: Flags) -> tuple[Array, Counts, Counts]:
    """The scores from high to low, each once, and how many answers from each on are right, and are at all."""
    order = np.argsort(-scores_N, kind="stable")
    last = np.append(np.diff(scores_N[order]) < 0, True)
    return scores_N[order][last], np.cumsum(right_N[order])[last], np.arange(1, len(order) + 1)[last]


def _below(threshold: float, scores_N: Array, floor: float) -> float:
    lower = scores_N[scores_N < threshold]
    return float((threshold + (lower.max() if len(lower) else floor)) / 2)
