"""Every recipe loads into the options of its verb, and sets only what exists."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from squeezebert.cli import VERBS, build_parser

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))


def test_there_are_recipes():
    assert RECIPES


# What each verb has to be given beside its recipe
REQUIRED = {
    "train": ["data.csv", "--output", "model"],
    "squeeze": ["encoder", "--text", "text.txt", "--output", "model"],
    "distil": ["data.csv", "--teacher", "teacher", "--base", "student", "--output", "model"],
    "pretrain": ["corpus", "--output", "model"],
    "train-marker": ["--text", "text.txt", "--base", "encoder", "--output", "marker"],
    "search": ["encoder", "--text", "text.txt", "--output", "searched"],
    "glue run": ["--model", "squeezebert", "--output", "glue"],
}
VERB_OF = {"finetune": "train", "glue": "glue run", "marker": "train-marker"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_loads(path):
    begins = path.stem.split("-")[0]
    verb = VERB_OF.get(begins, begins)
    given = build_parser().parse_args([*verb.split(), *REQUIRED[verb], "--recipe", str(path)])
    for word in verb.split():
        given = given[word]
    told = yaml.safe_load(path.read_text())
    assert told
    for name, value in told.items():
        assert given[name] == value
    for part in VERBS[verb][1]:
        part(**{field.name: given[field.name] for field in fields(part)})
    assert f"squeezebert {verb}" in path.read_text() or verb == "train"
