"""Intervals for what a finite number of rows can say about accuracy, one model's or the difference of two.

In: counts or per-row scores. Out: an `Interval`. Serves the export's verification and the benchmark's report.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import bootstrap, norm

Array = NDArray[np.float64]

_RESAMPLES = 2000
_SEED = 0
# beyond this many rows a question counts as one that rows cannot decide
_MOST_ROWS = 10**9


@dataclass(frozen=True)
class Interval:
    """A confidence interval."""

    estimate: float
    """what was observed"""
    low: float
    """lower limit"""
    high: float
    """upper limit"""
    rows: int
    """how many rows it rests on"""
    level: float = 0.95
    """confidence"""
    discordant: tuple[int, int] | None = None
    """paired 0/1 scores: rows where only the first is right, and where only the second is"""


def wilson_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """Return the Wilson score interval (Wilson 1927) of a proportion: `successes` of `n` rows.

    Raises `ValueError` when there are no rows or more successes than rows.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} successes of {n} rows")
    z, p = _z(level), successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Interval(p, low, high, n, level)


def mean_interval(scores: ArrayLike, level: float = 0.95) -> Interval:
    """Return the interval of the mean of per-row scores between 0 and 1, shape (N,).

    Wilson's for 0/1 scores, else a bias-corrected bootstrap (Efron 1987) with a fixed seed.
    """
    values = _rows(scores)
    if _is_binary(values):
        return wilson_interval(int(values.sum()), len(values), level)
    if np.ptp(values) == 0:
        # No spread to resample: the rows bound the mean no better than as many equal 0/1 rows would
        slack = _z(level) ** 2 / (len(values) + _z(level) ** 2)
        mean = float(values[0])
        return Interval(mean, max(0.0, mean - slack), min(1.0, mean + slack), len(values), level)
    return _bootstrap((values,), _mean, level)


def paired_interval(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> Interval:
    """Return the interval of mean(first) - mean(second) for two models' scores on the same rows, shapes (N,).

    Scores lie between 0 and 1. 0/1 scores get Tango's score interval for paired proportions (Tango 1998, Statistics
    in Medicine 17:891-908), which keeps its coverage for few rows and rare disagreements; fractional scores a
    bias-corrected bootstrap (Efron 1987) of the per-row differences with a fixed seed.
    Raises `ValueError` when the shapes differ or there are no rows.
    """
    a, b = _rows(first), _rows(second)
    if a.shape != b.shape:
        raise ValueError(f"paired scores of {len(a)} and {len(b)} rows")
    if _is_binary(a) and _is_binary(b):
        return tango_interval(int(np.sum(a > b)), int(np.sum(a < b)), len(a), level)
    differences = a - b
    if np.ptp(differences) == 0:
        slack = _z(level) ** 2 / (len(a) + _z(level) ** 2)
        shift = float(differences[0])
        return Interval(shift, max(-1.0, shift - slack), min(1.0, shift + slack), len(a), level)
    return _bootstrap((differences,), _mean, level)


def tango_interval(only_first: int, only_second: int, n: int, level: float = 0.95) -> Interval:
    """Return Tango's score interval of p1 - p2 from the discordant counts of `n` pairs (see `paired_interval`)."""
    if n < 1 or only_first < 0 or only_second < 0 or only_first + only_second > n:
        raise ValueError(f"{only_first} and {only_second} discordant pairs of {n}")
    low, high = _tango_limits(only_first, only_second, n, _z(level))
    return Interval((only_first - only_second) / n, low, high, n, level, (only_first, only_second))


def correlation_interval(targets: ArrayLike, outputs: ArrayLike, level: float = 0.95) -> Interval:
    """Return the interval of Pearson's r between targets and outputs, shapes (N,), by a seeded bootstrap over rows.

    Raises `ValueError` for fewer than three rows or a side without spread: there is no correlation then.
    """
    y, x = _spread(targets), _spread(outputs)
    return _bootstrap((y, x), _pearson, level, method="percentile")


def paired_correlation_interval(
    targets: ArrayLike, first: ArrayLike, second: ArrayLike, level: float = 0.95
) -> Interval:
    """Return the interval of r(targets, first) - r(targets, second), r Pearson's, by a seeded bootstrap over rows.

    All shapes (N,). Raises `ValueError` as `correlation_interval` does.
    """
    y, a, b = _spread(targets), _spread(first), _spread(second)

    def difference(y: Array, a: Array, b: Array, axis: int) -> Array:
        return _pearson(y, a, axis) - _pearson(y, b, axis)

    return _bootstrap((y, a, b), difference, level, method="percentile")


def pearson(first: ArrayLike, second: ArrayLike) -> float:
    """Return Pearson's correlation of two arrays (N,); 1.0 for equal arrays, 0.0 when one side alone has no spread."""
    a, b = _rows(first), _rows(second)
    if np.array_equal(a, b):
        return 1.0
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(_pearson(a, b, -1))


def rows_to_decide(interval: Interval, threshold: float) -> int | None:
    """Return how many rows, at the observed rates, would put `threshold` outside the interval.

    None when no number would: the estimate is the threshold. Paired 0/1 scores are counted out with Tango's interval;
    for other scores the half-width is taken to shrink with the square root of the number of rows.
    """
    if not interval.low <= threshold <= interval.high:
        return interval.rows
    if interval.discordant is None:
        limit = interval.high if threshold >= interval.estimate else interval.low
        half = abs(limit - interval.estimate)
        gap = abs(threshold - interval.estimate)
        needed = math.inf if gap == 0 else math.ceil(interval.rows * (half / gap) ** 2)
        return int(needed) if needed < _MOST_ROWS else None

    z, (b, c) = _z(interval.level), interval.discordant

    def decides(rows: int) -> bool:
        scale = rows / interval.rows
        low, high = _tango_limits(b * scale, c * scale, rows, z)
        return not low <= threshold <= high

    low, high = interval.rows, interval.rows
    while not decides(high):
        low, high = high, 2 * high
        if high > _MOST_ROWS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high


def _tango_limits(b: float, c: float, n: float, z: float) -> tuple[float, float]:
    """Solve Tango's score statistic for +z and -z; counts may be fractional."""

    def statistic(delta: float) -> float:
        # q: the second discordant probability that is most likely if the difference were delta
        linear = -b - c + (2 * n - b + c) * delta
        constant = -c * delta * (1 - delta)
        q = (math.sqrt(max(linear * linear - 8 * n * constant, 0.0)) - linear) / (4 * n)
        variance = n * (2 * q + delta * (1 - delta))
        distance = b - c - n * delta
        if abs(distance) < 1e-9 * n:
            return 0.0
        # Held finite for the solver: with no disagreement at all the variance is 0 next to the estimate
        return min(max(distance / math.sqrt(variance), -1e6), 1e6) if variance > 0 else math.copysign(1e6, distance)

    estimate, edge = (b - c) / n, 1 - 1e-12
    low = -1.0 if c == n else brentq(lambda d: statistic(d) - z, -edge, min(estimate, edge))
    high = 1.0 if b == n else brentq(lambda d: statistic(d) + z, max(estimate, -edge), edge)
    return float(low), float(high)


def _bootstrap(
    data: tuple[Array, ...], statistic: Callable[..., Array], level: float, method: str = "BCa"
) -> Interval:
    # The batch keeps the resampled rows at about 8 million numbers
    batch = max(1, min(_RESAMPLES, 8_000_000 // len(data[0])))
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Any = bootstrap(
            data, statistic, n_resamples=_RESAMPLES, batch=batch, vectorized=True, paired=len(data) > 1,
            confidence_level=level, method=method, rng=np.random.default_rng(_SEED),
        )  # fmt: skip
    estimate = float(statistic(*data, axis=-1))
    limits = np.asarray(result.confidence_interval, dtype=float)
    if not np.isfinite(limits).all():  # some resample had no spread: take the others
        tail = 100 * (1 - level) / 2
        limits = np.nanpercentile(result.bootstrap_distribution, (tail, 100 - tail))
    return Interval(estimate, float(limits[0]), float(limits[1]), len(data[0]), level)


def _mean(values: Array, axis: int) -> Array:
    return np.asarray(values.mean(axis=axis))


def _pearson(a: Array, b: Array, axis: int) -> Array:
    a, b = a - a.mean(axis=axis, keepdims=True), b - b.mean(axis=axis, keepdims=True)
    product: Array = (a * b).sum(axis=axis) / np.sqrt((a * a).sum(axis=axis) * (b * b).sum(axis=axis))
    return product


def _rows(values: ArrayLike) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise ValueError(f"one finite number a row is expected, not an array of shape {array.shape}")
    return array


def _spread(values: ArrayLike) -> Array:
    array = _rows(values)
    if len(array) < 3 or np.ptp(array) == 0:
        raise ValueError("a correlation needs at least three rows and more than one value")
    return array


def _is_binary(values: Array) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def _z(level: float) -> float:
    return float(norm.ppf(0.5 + level / 2))
