"""The benchmarks are not run here; what they take from the package has to be there, and their records have to hold."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(FOLDER.glob("*.py"))


@pytest.fixture
def script(monkeypatch):
    """Import a script by its name, as its neighbours do."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_what_a_benchmark_imports_of_ours_is_there(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "squeezebert":
            module = importlib.import_module(node.module)
            for name in (alias.name for alias in node.names):
                there = hasattr(module, name) or importlib.util.find_spec(f"{node.module}.{name}") is not None
                assert there, f"{path.name}:{node.lineno}: {node.module} has no {name}"


@pytest.mark.parametrize(
    ("typed", "places", "told"),
    [
        (["--work", ".", "--rate", "2.5e-4"], {"WORK": Path()}, "--work WORK --rate 2.5e-4"),
        (["--work", "1", "--seed", "11"], {"WORK": Path("1")}, "--work WORK --seed 11"),
        (["--names", "", "--work", "."], {"WORK": Path()}, "--names '' --work WORK"),
        (["gumbel=/a/b/", "--work=/a/w"], {"GUMBEL": Path("/a/b"), "WORK": Path("/a/w")}, "gumbel=GUMBEL --work=WORK"),
        (["--output", "/a/w/x.json", "/a/w2"], {"DATA": None, "WORK": Path("/a/w")}, "--output WORK/x.json /a/w2"),
    ],
)
def test_a_command_is_recorded_with_its_places_named_and_nothing_else_changed(
    script, monkeypatch, typed, places, told
):
    monkeypatch.setattr(sys, "argv", ["search.py", *typed])
    assert script("records").command_of("search", places) == f"python benchmarks/search.py {told}"


def test_a_record_names_its_places_and_nothing_else_changes(script):
    record = {"work": ".", "rate": 0.5, "cells": ["1.5", "a. b", "", None], "deep": {".": ("x.json", 2)}}
    told = script("records").with_places_named(record, {"DATA": None, "WORK": Path()})
    assert told == {**record, "work": "WORK", "deep": {".": ["x.json", 2]}}
    assert script("records").with_places_named({"model": "/w/run/model"}, {"WORK": Path("/w")})["model"] == (
        "WORK/run/model"
    )


def cells_of(script, shapes, name, scores, task="RTE", precision="fp32", rate=2e-4):
    """Cells of one network and task, a seed a score."""
    network = script("records").short_hash(shapes["shapes"][name]["shape"], precision)
    about = {"name": name, "task": task, "tokens": 1000, "precision": precision, "rate": rate, "network": network}
    return [
        {**about, "cell": f"{task} {name} {network} {seed}", "seed": seed, "score": score}
        for seed, score in enumerate(scores, start=1)
    ]


@pytest.fixture
def shapes():
    """A searched network of another budget, the one that controls are level with, and two controls."""
    names = {"evolution 0.6x": (0.6, True), "evolution 0.45x": (0.45, True), "a": (0.45, False), "b": (0.46, False)}
    return {
        "budget": "0.45x",
        "shapes": {
            name: {"shape": {"groups": [i]}, "ratio": ratio, "spread": 0, "level": ratio < 0.5, "searched": searched}
            for i, (name, (ratio, searched)) in enumerate(names.items())
        },
    }


def rows_of(script, shapes, cells):
    about = {"processor": "x", "cores": 1}
    record = {"cells": cells, "command": "c", "machine": about, "versions": {"torch": "2", "onnxruntime": "1"}}
    table = script("tables").search_controls_table(record, shapes)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.split("\n\n")[0].splitlines()]
    return lines[0], {line[0]: line[1:] for line in lines[2:]}


def test_searched_networks_are_compared_whatever_run_came_first(script, shapes):
    merged = script("records").merged
    leader, a, b = (
        cells_of(script, shapes, n, s) for n, s in (("evolution 0.45x", [60, 62]), ("a", [50, 53]), ("b", [70, 70]))
    )
    head, rows = rows_of(script, shapes, [*a, *leader, *b])
    assert head[-1] == "evolution 0.45x is better by (95 %)"
    assert list(rows) == ["evolution 0.45x", "a", "b"]
    assert rows["evolution 0.45x"][-1] == ""
    assert rows["a"][-1].startswith("+9.5 (")
    assert rows["b"][-1].startswith("-9.0 (")
    # A run of one network again leaves the cells in their places
    again = [{**cell, "score": 0} for cell in leader]
    assert merged([*leader, *a, *b], again) == [*again, *a, *b]
    assert merged([*a], [*b]) == [*a, *b]


def test_differences_are_over_seeds_with_all_tasks(script, shapes):
    def both(task, leader, other):
        return cells_of(script, shapes, "evolution 0.45x", leader, task) + cells_of(script, shapes, "a", other, task)

    _, rows = rows_of(script, shapes, both("RTE", [60, 62], [50, 53]))
    assert rows["a"][-1].startswith("+9.5 (")
    # The second seed lacks a task of three
    cells = both("RTE", [60, 90], [50, 10]) + both("SST-2", [60, 90], [50, 10]) + both("STS-B", [60, 90], [50])
    assert rows_of(script, shapes, cells)[1]["a"][-1] == "+10.0"
    assert rows_of(script, shapes, both("RTE", [60], [50]) + both("SST-2", [60], []))[1]["a"][-1] == ""


def test_cells_of_other_shapes_or_another_precision_are_not_mixed_in(script, shapes):
    old = cells_of(script, shapes, "a", [1, 2])
    shapes["shapes"]["a"]["shape"] = {"groups": [9]}
    leader, new = cells_of(script, shapes, "evolution 0.45x", [60, 60]), cells_of(script, shapes, "a", [50, 51])
    assert rows_of(script, shapes, [*leader, *old])[1].keys() == {"evolution 0.45x"}
    assert "No score is of the networks" in script("tables").search_controls_table({"cells": old}, shapes)
    _, rows = rows_of(script, shapes, [*leader, *old, *new])
    assert rows["a"][2:4] == ["50.5 ± 0.7", "50.5"]
    halved = cells_of(script, shapes, "a", [40, 41], precision="bf16")
    assert {cell["cell"] for cell in halved}.isdisjoint(cell["cell"] for cell in new)
    _, rows = rows_of(script, shapes, [*leader, *new, *halved])
    assert rows.keys() == {"evolution 0.45x, fp32", "a, fp32", "a, bf16"}
    assert rows["a, bf16"][-1] == ""


def test_the_first_seed_chooses_the_learning_rate(script, shapes):
    leader = cells_of(script, shapes, "evolution 0.45x", [60, 60])
    low, high = (cells_of(script, shapes, "a", s, rate=rate) for s, rate in (([50, 51], 2e-4), ([49], 1e-3)))
    _, rows = rows_of(script, shapes, [*leader, *high, *low])
    assert rows["a"][2:4] == ["50.5 ± 0.7", "50.5"]
    # Each task has its own
    other = cells_of(script, shapes, "a", [30], "STS-B") + cells_of(script, shapes, "a", [40, 42], "STS-B", rate=1e-3)
    _, rows = rows_of(script, shapes, [*leader, *high, *low, *other])
    assert rows["a"][2:4] == ["50.5 ± 0.7", "41.0 ± 1.4"]
