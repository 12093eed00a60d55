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
