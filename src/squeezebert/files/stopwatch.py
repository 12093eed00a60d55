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


@dataclass(frozen=True)
class Comparison:
    """How long one thing took beside an anchor, in milliseconds."""

    ms: float
    """The middle of all its runs."""
    anchor_ms: float
    """The middle of the anchor's runs beside it."""
    ratio: float
    """The middle of the turns' ratios."""

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
            taken = _time(thing, burst)
            if round_ >= warmup:
                times[name] += taken
    return {name: summarise(taken) for name, taken in times.items()}


def compare(
    things: Mapping[str, Callable[[], object]],
    anchor: Callable[[], object],
    turns: int,
    warmup: int = 1,
    burst: int = 4,
) -> dict[str, Comparison]:
    """Time every thing in `warmup + turns` turns, each time right after `anchor`, and take the middle of the ratios.

    For ratios that are to be trusted to a few percent. Where a machine's speed changes within a second, the medians of
    all runs compare a thing's fast seconds with an anchor's slow ones; within a turn both have the same. Raises
    `ValueError` for no turn or run.
    """
    if turns < 1 or burst < 1:
        raise ValueError(f"turns = {turns}, burst = {burst}: at least 1 is needed")
    own: dict[str, list[list[float]]] = {name: [] for name in things}
    beside: dict[str, list[list[float]]] = {name: [] for name in things}
    for turn in range(warmup + turns):
        for name, thing in things.items():
            anchors, taken = _time(anchor, burst), _time(thing, burst)
            if turn >= warmup:
                beside[name].append(anchors)
                own[name].append(taken)
    return {
        name: Comparison(
            statistics.median(ms for taken in own[name] for ms in taken),
            statistics.median(ms for taken in beside[name] for ms in taken),
            statistics.median(
                statistics.median(a) / statistics.median(b) for a, b in zip(own[name], beside[name], strict=True)
            ),
        )
        for name in things
    }


def _time(thing: Callable[[], object], burst: int) -> list[float]:
    """The milliseconds of `burst` runs in a row, after one that is not timed where there are several."""
    if burst > 1:
        thing()
    taken = []
    for _ in range(burst):
        start = time.perf_counter()
        thing()
        taken.append((time.perf_counter() - start) * 1e3)
    return taken


def summarise(times_ms: list[float]) -> Timing:
    """Return median and outer tenths of some times."""
    ordered = sorted(times_ms)
    tenth = (len(ordered) - 1) // 10
    return Timing(statistics.median(ordered), ordered[tenth], ordered[-1 - tenth], len(ordered))
