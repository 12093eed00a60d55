"""Things to run in, their times out: interleaved, so that what slows the machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Timing:
    """How long one thing took, in milliseconds."""

    median_ms: float
    """The middle of all runs."""
    low_ms: float
    """A tenth of the runs were faster."""
    high_ms: float
    """A tenth of the runs were slower."""
    runs: int
    """How often it was run, warm-up left out."""

    def to_dict(self) -> dict[str, float]:
        """The numbers as JSON takes them."""
        return asdict(self)


def interleave(
    things: Mapping[str, Callable[[], object]], runs: int, warmup: int = 3, burst: int = 1
) -> dict[str, Timing]:
    """Run every thing `warmup + runs` times in turn and time the latter; raises `ValueError` for fewer than one run.

    Neighbours and frequency steps change a machine's speed within seconds: only times from the same minute compare.
    With `burst`, a thing is timed so many times in a row each turn, after one run that is not: its data is in the
    processor's caches then, as when a device runs one model, instead of those of the thing before it.
    """
    if runs < 1 or burst < 1:
        raise ValueError(f"runs = {runs}, burst = {burst}: at least 1 is needed")
    times: dict[str, list[float]] = {name: [] for name in things}
    for round_ in range(warmup + runs):
        for name, thing in things.items():
            if burst > 1:
                thing()
            for _ in range(burst):
                start = time.perf_counter()
                thing()
                if round_ >= warmup:
                    times[name].append((time.perf_counter() - start) * 1e3)
    return {name: summarise(taken) for name, taken in times.items()}


def summarise(times_ms: list[float]) -> Timing:
    """Return median and outer tenths of some times."""
    ordered = sorted(times_ms)
    tenth = (len(ordered) - 1) // 10
    return Timing(statistics.median(ordered), ordered[tenth], ordered[-1 - tenth], len(ordered))
