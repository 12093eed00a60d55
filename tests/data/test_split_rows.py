"""The seeded split: stratified, leak-free, every label trained on, and the same everywhere."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys

import pytest

from squeezebert.data.splits import split_rows


def check(texts, labels, task, fraction=0.1, seed=0):
    """Split, and check what holds of every split; returns (train, evaluation) row numbers."""
    train, evaluation = split_rows(texts, labels, task, fraction, seed)
    assert sorted([*train, *evaluation]) == list(range(len(texts)))
    assert train == sorted(train)
    assert evaluation == sorted(evaluation)
    assert not {texts[row] for row in train} & {texts[row] for row in evaluation}
    return train, evaluation


def names(rows, labels) -> set[str]:
    return {name for row in rows for name in ([labels[row]] if isinstance(labels[row], str) else labels[row])}


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.5, 0.95])
def test_single_label_is_stratified(fraction):
    labels = ["a"] * 1000 + ["b"] * 200 + ["c"] * 2 + ["d"] * 3
    train, evaluation = check(list(range(len(labels))), labels, "single_label", fraction)
    for label, count in (("a", 1000), ("b", 200)):
        assert sum(labels[row] == label for row in evaluation) == round(count * fraction)
    assert names(train, labels) == names(evaluation, labels) == {"a", "b", "c", "d"}
    assert sum(labels[row] == "c" for row in evaluation) == 1


def test_equal_texts_stay_together_even_with_different_labels():
    rng = random.Random(0)
    texts = [rng.randrange(60) for _ in range(600)]
    labels = [rng.choice("abc") for _ in texts]
    for seed in range(5):
        train, evaluation = check(texts, labels, "single_label", 0.2, seed)
        assert names(train, labels) == names(evaluation, labels) == set("abc")


def test_a_label_of_one_text_is_trained_on():
    labels = ["a"] * 20 + ["b", "b"]
    train, evaluation = check([*range(20), 99, 99], labels, "single_label", 0.5)
    assert names(train, labels) == {"a", "b"}
    assert names(evaluation, labels) == {"a"}


def test_a_conflict_never_takes_the_last_text_of_a_label_from_training():
    # b is on the texts 0 and 1 alone, both of which have a as well
    texts, labels = [0, 0, 1, 1, 2, 3, 4], ["a", "b", "b", "a", "a", "a", "a"]
    for seed in range(20):
        train, evaluation = check(texts, labels, "single_label", 0.4, seed)
        assert names(train, labels) == {"a", "b"}
        assert names(evaluation, labels) == {"a", "b"}


@pytest.mark.parametrize("seed", range(10))
def test_multi_label_keeps_every_label_in_training_and_evaluates_it(seed):
    rng = random.Random(seed)
    labels = [tuple(sorted(rng.sample("abcde", rng.randrange(4)))) for _ in range(300)]
    labels += [("rare",), ("rare", "once")]  # only the first may be evaluated
    train, evaluation = check(list(range(len(labels))), labels, "multi_label", 0.1, seed)
    assert names(train, labels) == {*"abcde", "rare", "once"}
    assert names(evaluation, labels) == {*"abcde", "rare"}
    assert 20 <= len(evaluation) <= 40


def test_multi_label_combinations_are_stratified_and_may_be_empty():
    labels = [()] * 500 + [("a",)] * 100 + [("a", "b")] * 50
    _, evaluation = check(list(range(650)), labels, "multi_label")
    assert [sum(labels[row] == combination for row in evaluation) for combination in [(), ("a",), ("a", "b")]] == [
        50,
        10,
        5,
    ]


def test_multi_label_combinations_that_occur_once_are_pooled():
    labels = list(itertools.combinations("abcdefghijklmnopqrst", 2))
    _, evaluation = check(list(range(len(labels))), labels, "multi_label")
    assert 19 <= len(evaluation) <= 25  # a tenth of 190, and a few for the labels that it missed


def test_regression_is_stratified_by_quantiles():
    rng = random.Random(0)
    labels = [rng.expovariate(1.0) for _ in range(1000)]
    _, evaluation = check(list(range(1000)), labels, "regression")
    assert len(evaluation) == 100
    rank = {row: place for place, row in enumerate(sorted(range(1000), key=labels.__getitem__))}
    per_decile = [0] * 10
    for row in evaluation:
        per_decile[rank[row] // 100] += 1
    assert per_decile == [10] * 10


@pytest.mark.parametrize("rows", [2, 3, 4, 9, 30])
def test_small_regression_evaluates_something(rows):
    train, evaluation = check(list(range(rows)), [float(row) for row in range(rows)], "regression")
    assert train
    assert len(evaluation) == max(1, rows // 10)


@pytest.mark.parametrize("task", ["regression", "multi_label"])
def test_a_large_fraction_leaves_something_to_train_on(task):
    labels = [0.5, 1.5] if task == "regression" else [(), ()]
    train, evaluation = check(["x", "y"], labels, task, 0.95)
    assert len(train) == len(evaluation) == 1


def test_one_text_cannot_be_split():
    assert check(["x"] * 3, [1.0, 2.0, 3.0], "regression") == ([0, 1, 2], [])


def test_seeds_differ_and_hash_seeds_do_not():
    texts = [f"text {number}" for number in range(200)]
    labels = ["xyz"[number % 3] for number in range(200)]
    first = split_rows(texts, labels, "single_label", 0.1, 0)
    assert split_rows(texts, labels, "single_label", 0.1, 0) == first
    assert split_rows(texts, labels, "single_label", 0.1, 1) != first
    code = (
        "from squeezebert.data.splits import split_rows;"
        "texts = [f'text {n}' for n in range(200)];"
        "print(split_rows(texts, ['xyz'[n % 3] for n in range(200)], 'single_label', 0.1, 0)[1]);"
        "print(split_rows(texts, [('x', 'y', 'z')[: n % 4] for n in range(200)], 'multi_label', 0.1, 0)[1])"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert outputs[0].splitlines()[0] == str(first[1])
