"""A judge of networks and a latency table in, the best network within a budget out: evolutionary search.

As over any supernet (Guo et al. 2020, arXiv 1904.00420): a generation's best are parents, and children differ from
them in a few choices, or take halves of layers from two. Only networks that the table predicts to fit the budget are
ever judged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from squeezebert.files.errors import OptionError
from squeezebert.search.latency import LatencyTable
from squeezebert.search.progress import Progress
from squeezebert.search.space import Shape, Space

Report = Callable[[str], None]
# What is within the budget: no more than it, and not so much less that time is given away
_LEAST = 0.9
_PARENTS = 1 / 3
_RANDOM = 400  # draws for a first network that fits
_TRIES = 60  # for a child that fits


@dataclass(frozen=True)
class Judged:
    """A network and what was found of it."""

    shape: Shape
    """The network."""
    error: float
    """Its error by the judge."""
    ratio: float
    """Its predicted time as a multiple of the anchor's."""


class Record:
    """Networks that were judged, in a file of JSON lines: a search that was cut off does not judge them again."""

    def __init__(self, path: Path, judge: Callable[[Shape], float], table: LatencyTable) -> None:
        self.path, self.judge, self.table = path, judge, table
        self.found: dict[str, Judged] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    told = json.loads(line)
                except ValueError:  # cut off while it was written
                    continue
                self.found[key_of(told["shape"])] = Judged(told["shape"], told["error"], table.ratio(told["shape"]))
            self._rewrite()

    def __call__(self, shape: Shape) -> Judged:
        """Judge a network, now or as an earlier run did."""
        key = key_of(shape)
        if key not in self.found:
            judged = Judged(shape, self.judge(shape), self.table.ratio(shape))
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(_line(judged))
            self.found[key] = judged
        return self.found[key]

    def use(self, table: LatencyTable) -> None:
        """Go by another table from now on."""
        self.table = table
        self.found = {key: replace(one, ratio=table.ratio(one.shape)) for key, one in self.found.items()}

    def _rewrite(self) -> None:
        part = self.path.with_name(f".{self.path.name}.part")
        part.write_text("".join(map(_line, self.found.values())), encoding="utf-8")
        part.replace(self.path)


def evolve(
    space: Space,
    record: Record,
    budget: float,
    *,
    population: int,
    generations: int,
    seed: int,
    first: Sequence[Shape] = (),
    report: Report = lambda line: None,
) -> list[Judged]:
    """Return the last generation, the network of the smallest error whose predicted ratio is within `budget` first.

    `first` are networks to begin with, beside random ones; those that do not fit are brought to fit. Raises
    `OptionError` for a budget that no network meets.
    """
    table = record.table
    check_budget(table, budget)
    generator = np.random.default_rng([seed, round(budget * 1e6)])

    def fits(shape: Shape) -> bool:
        return _LEAST * budget <= table.ratio(shape) <= budget

    living = [record(fitted(space, table, shape, budget, generator)) for shape in first]
    progress = Progress("evolution: networks to begin with:", population, report)
    while len(living) < population:
        living.append(record(fitted(space, table, space.random(generator), budget, generator)))
        progress.told(len(living))
    progress = Progress("evolution: generation", generations, report)
    for generation in range(1, generations + 1):
        parents = ranked(living, budget)[: max(2, round(population * _PARENTS))]
        children: list[Judged] = []
        while len(children) < population - len(parents):
            for _ in range(_TRIES):
                mother, father = (parents[i].shape for i in generator.integers(len(parents), size=2))
                child = space.crossed(mother, father, generator) if generator.random() < 0.5 else mother
                child = space.mutated(child, generator, rate=float(generator.choice([0.02, 0.05, 0.1])))
                if fits(child):
                    break
            else:
                child = fitted(space, table, child, budget, generator)
            children.append(record(child))
        living = [*parents, *children]
        best = ranked(living, budget)[0]
        progress.told(generation, f", error {best.error:.4f}", surely=generation == generations)
    return ranked(living, budget)


def check_budget(table: LatencyTable, budget: float) -> None:
    """Raise `OptionError` for a ratio that is below the fastest network's or above the dense one's."""
    low, high = table.range
    anchor = float(np.median([row["anchor_ms"] for row in table.rows]))
    told = f"{budget:.3f} of the dense network's time ({budget * anchor:.2f} ms)"
    if budget <= low:
        raise OptionError(
            f"a budget of {told} is below what the fastest network takes, one without layers: {low:.3f} "
            f"({low * anchor:.2f} ms)"
        )
    if budget >= high:
        raise OptionError(
            f"a budget of {told} leaves nothing to search: the dense network takes {high:.3f} ({high * anchor:.2f} ms)"
        )


def fitted(space: Space, table: LatencyTable, shape: Shape, budget: float, generator: np.random.Generator) -> Shape:
    """Return a network near another that fits a budget, by mutations that bring it closer."""
    best, distance = shape, _distance(table.ratio(shape), budget)
    for _ in range(_RANDOM):
        if not distance:
            break
        changed = space.mutated(best, generator)
        now = _distance(table.ratio(changed), budget)
        if now < distance:
            best, distance = changed, now
    return best


def front(judged: Sequence[Judged]) -> list[Judged]:
    """The networks that none is better than at their time or less, fastest first."""
    found: list[Judged] = []
    for one in sorted(judged, key=lambda one: (one.ratio, one.error)):
        if not found or one.error < found[-1].error:
            found.append(one)
    return found


def _distance(ratio: float, budget: float) -> float:
    return max(ratio - budget, _LEAST * budget - ratio, 0.0)


def ranked(judged: Sequence[Judged], budget: float) -> list[Judged]:
    """Different networks, the best first; those over the budget come last, however good."""
    unique = {key_of(one.shape): one for one in judged}
    return sorted(unique.values(), key=lambda one: (max(one.ratio - budget, 0.0), one.error))


def key_of(shape: Shape) -> str:
    """A network as text: equal for equal ones."""
    return json.dumps(shape, sort_keys=True)


def _line(judged: Judged) -> str:
    """A network of the file; without its ratio, which is another one with each round of timing."""
    return json.dumps({"shape": judged.shape, "error": judged.error}) + "\n"
