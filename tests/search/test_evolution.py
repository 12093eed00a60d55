"""Evolution: the best that fits the budget, from a judge that says what is good."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_latency import TARGET, measured
from test_space import points, space

from squeezebert.files.errors import OptionError
from squeezebert.search import progress
from squeezebert.search.evolution import Judged, Record, check_budget, evolve, fitted, front, ranked
from squeezebert.search.latency import LatencyTable
from squeezebert.search.space import Shape


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    shapes = {str(i): point for i, point in enumerate([space().dense, *points(60, seed=3)])}
    rows = [{"shape": shapes[name], **row} for name, row in measured(shapes).items()]
    dense = rows[0]["ratio"]
    return LatencyTable(space(), TARGET, [{**row, "ratio": row["ratio"] / dense} for row in rows], 0)


def judge(shape: Shape) -> float:
    """Heads in the first layer are worth most, width in the last, and remainders everywhere."""
    heads, widths = np.array(shape["kept_heads"]) / 12, np.array(shape["intermediate_size"]) / 192
    ranks = np.mean(shape["output_rank"]) / 40
    return 3 - heads @ [1.0, 0.3, 0.1] - widths @ [0.1, 0.2, 0.8] - 0.2 * ranks


def search(table: LatencyTable, path: Path, budget: float = 0.5, seed: int = 1) -> Judged:
    return evolve(space(), Record(path, judge, table), budget, population=24, generations=12, seed=seed)[0]


def test_it_finds_what_the_judge_likes_within_the_budget(table: LatencyTable, tmp_path: Path) -> None:
    found = evolve(space(), Record(tmp_path / "j.jsonl", judge, table), 0.5, population=48, generations=40, seed=1)[0]
    assert 0.45 <= found.ratio <= 0.5
    generator = np.random.default_rng(8)
    drawn = [fitted(space(), table, space().random(generator), 0.5, generator) for _ in range(200)]
    assert found.error < min(judge(shape) for shape in drawn)
    assert found.shape["kept_heads"][0] == 12
    assert found.shape["intermediate_size"][2] == 192


def test_a_search_that_was_cut_off_judges_nothing_twice_and_ends_the_same(table: LatencyTable, tmp_path: Path) -> None:
    whole = search(table, tmp_path / "whole.jsonl")
    lines = (tmp_path / "whole.jsonl").read_text().splitlines()
    (tmp_path / "cut.jsonl").write_text("\n".join(lines[:30]) + "\n" + lines[30][:25])
    asked: list[Shape] = []

    def counting(shape: Shape) -> float:
        asked.append(shape)
        return judge(shape)

    again = evolve(
        space(), Record(tmp_path / "cut.jsonl", counting, table), 0.5, population=24, generations=12, seed=1
    )
    assert again[0] == whole
    assert len(asked) == len(lines) - 30
    kept = [json.loads(line)["shape"] for line in (tmp_path / "cut.jsonl").read_text().splitlines()]
    assert len(kept) == len(lines)


def test_another_seed_searches_elsewhere(table: LatencyTable, tmp_path: Path) -> None:
    assert search(table, tmp_path / "a.jsonl").shape != search(table, tmp_path / "b.jsonl", seed=2).shape


def test_what_takes_long_is_told_with_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    said: list[str] = []
    judging = progress.Progress("judging networks:", 40, said.append)
    for done in range(1, 41):
        now[0] += 6.0
        judging.told(done)
    assert said[:2] == ["judging networks: 4 of 40, about 4 min left", "judging networks: 8 of 40, about 3 min left"]
    assert said[-1] == "judging networks: 40 of 40"
    assert len(said) == 10
    again = progress.Progress("judging networks:", 40, said.append, before=30)
    now[0] += 60.0
    again.told(31, ", error 0.1")
    assert said[-1] == "judging networks: 31 of 40, error 0.1, about 9 min left"


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (1e-4, r"a budget of 0\.000 .* is below what the fastest network takes, one without layers: 0\.\d+ \(\d"),
        (1.5, r"a budget of 1\.500 .* leaves nothing to search: the dense network takes 1\.000 \(10\.\d+ ms\)"),
    ],
)
def test_budgets_that_nothing_meets(table: LatencyTable, budget: float, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        check_budget(table, budget)


def test_what_is_over_the_budget_is_never_the_best() -> None:
    found = [
        Judged({"a": i}, error, ratio) for i, (error, ratio) in enumerate([(1, 0.6), (3, 0.5), (2, 0.4), (0, 0.9)])
    ]
    assert [one.error for one in ranked(found, 0.5)] == [2, 3, 1, 0]


def test_the_front_is_what_none_is_better_than() -> None:
    found = [Judged({}, error, ratio) for error, ratio in ((5, 1), (3, 2), (4, 3), (2, 4), (2, 5), (3, 2))]
    assert [(one.error, one.ratio) for one in front(found)] == [(5, 1), (3, 2), (2, 4)]
