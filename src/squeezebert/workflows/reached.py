"""Labelled rows and a threshold in, the precision and recall that it reaches on them out, as numbers and in words.

Serves `policy` and `pairs choose`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from squeezebert.data.statistics import wilson_interval
from squeezebert.runtime.thresholds import fewest


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


def unreached(precision: float, certainty: float) -> str:
    """Say what it takes to reach a precision that no threshold reaches, and the ways out."""
    if certainty == 0.5:
        return "these rows have no such threshold: ask for less"
    least = fewest(precision, certainty)
    rows = f"give more rows ({least} without an error at the least), " if least is not None else ""
    return f"{certainty:.0%} certainty is asked for: {rows}ask for less, or take the rows as they are, --certainty 0.5"
