"""Every recipe loads into the options of its verb, and sets only what exists."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from squeezebert.cli import build_parser

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))


def test_there_are_recipes():
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_loads(path):
    given = build_parser().parse_args(["train", "data.csv", "--output", "model", "--recipe", str(path)])
    told = yaml.safe_load(path.read_text())
    assert told
    for name, value in told.items():
        assert given.train[name] == value
