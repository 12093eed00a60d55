"""The model that lies in the repository: small, whole, and of use."""

from __future__ import annotations

from pathlib import Path

import pytest

from squeezebert.files.english import units
from squeezebert.runtime.checking import Checker
from squeezebert.runtime.completion import Completer
from squeezebert.runtime.dictionary import Dictionary
from squeezebert.runtime.predictor import load

pytest_plugins = ["exported_folders"]

FOLDER = Path(__file__).parents[1] / "models" / "words-small"


@pytest.fixture(scope="module")
def completer():
    return Completer(load(FOLDER, 1))


def test_it_is_small_and_says_where_it_comes_from():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 20e6
    assert {path.name for path in FOLDER.glob("*.tsv.gz")} == {"1-ATTRIBUTION.tsv.gz", "2-ATTRIBUTION.tsv.gz"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("She opened the ___ and went out.", "door"),
        ("He looked at ___ and smiled.", "her"),
        ("The king ___ a great army.", "had"),
        ("It was a very ___ day.", "good"),
    ],
)
def test_it_fills_gaps_of_plain_sentences(completer, text, wanted):
    (gap,) = completer.fill(text, 10)
    assert wanted in [word.word for word in gap.words]


def test_it_knows_better_than_counts_which_word_is_meant(completer, marker):
    """`form` is the commoner word here, `from` the one that the sentence has."""
    words = Dictionary({"the": 10_000, "form": 90, "from": 9, "farm": 9, "fro": 1})
    text = "He came home frm the town."
    found = units(text)
    own = load(marker.output, 1)
    checkers = (Checker(own, words), Checker(own, words, completer))
    first = [checker._suggest(text, found, 3, 3, "spelling")[0] for checker in checkers]
    assert first == ["form", "from"]
