"""Texts with their labels in, the row numbers to train on and to evaluate on out.

scikit-learn's stratified splits refuse rare labels and do not keep equal texts together, hence this module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from squeezebert.data.labels import Label
from squeezebert.data.options import Task

MOST_BINS = 10
"""Regression targets are stratified in at most so many quantile bins."""


def split_rows(
    texts: Sequence[Hashable], labels: Sequence[Label], task: Task, fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Split rows at random, stratified, equal texts always on one side.

    Strata are labels (single_label), combinations of labels with the rare ones pooled (multi_label), or
    quantile bins (regression). About `fraction` of the distinct texts of each goes to evaluation. Every label
    stays in training, and is evaluated too wherever two distinct texts have it and the texts they share
    with other labels permit.

    Returns:
        (training row numbers, evaluation row numbers), both ascending; the same for the same seed.
    """
    rows_of: dict[Hashable, list[int]] = {}
    for row, text in enumerate(texts):
        rows_of.setdefault(text, []).append(row)
    groups = list(rows_of.values())
    strata, at_least = _strata(groups, labels, task, fraction)
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(groups), dtype=bool)
    for members in strata:
        order = rng.permutation(members)
        count = max(at_least, int(len(order) * fraction + 0.5))
        held_out[order[: min(count, len(order) - 1)]] = True
    _repair(held_out, [_labels_of(rows, labels) for rows in groups], rng.permutation(len(groups)).tolist())
    train = sorted(row for rows, out in zip(groups, held_out, strict=True) if not out for row in rows)
    evaluation = sorted(row for rows, out in zip(groups, held_out, strict=True) if out for row in rows)
    return train, evaluation


def _strata(
    groups: list[list[int]], labels: Sequence[Label], task: Task, fraction: float
) -> tuple[list[list[int]], int]:
    """Group numbers by stratum in a fixed order, and how many of each stratum have to be evaluated."""
    firsts = [labels[rows[0]] for rows in groups]
    if task == "regression":
        # so few bins that each gives at least one group to evaluation
        bins = min(MOST_BINS, max(1, int(len(groups) * fraction)))
        by_value = np.argsort(np.asarray(firsts, dtype=np.float64), kind="stable")
        return [part.tolist() for part in np.array_split(by_value, bins)], 0
    by_label: dict[Label, list[int]] = {}
    for group, label in enumerate(firsts):
        by_label.setdefault(label, []).append(group)
    if task == "single_label":
        return [by_label[label] for label in sorted(by_label, key=str)], 1
    common = {label: members for label, members in by_label.items() if len(members) * fraction >= 1}
    rare = [group for label, members in by_label.items() if label not in common for group in members]
    strata = [common[label] for label in sorted(common, key=str)]
    return (strata if not rare else [*strata, rare]), 0


def _labels_of(rows: list[int], labels: Sequence[Label]) -> tuple[str, ...]:
    """All class names on the rows of one text (several if its labels conflict); none for numbers."""
    names: dict[str, None] = {}
    for row in rows:
        label = labels[row]
        if not isinstance(label, float):
            names.update(dict.fromkeys((label,) if isinstance(label, str) else label))
    return tuple(names)


def _repair(held_out: np.ndarray, labels: list[tuple[str, ...]], order: list[int]) -> None:
    """Move groups until every label is trained on, is evaluated where it can be, and evaluation has a row."""
    total = Counter(label for names in labels for label in names)
    trained = Counter(label for names, out in zip(labels, held_out, strict=True) if not out for label in names)
    of_label: dict[str, list[int]] = {label: [] for label in sorted(total)}
    for group in order:
        for label in labels[group]:
            of_label[label].append(group)

    def hold_out_one(members: list[int]) -> None:
        """The first of them without which all its labels are still trained on."""
        for group in members:
            if not held_out[group] and all(trained[label] > 1 for label in labels[group]):
                held_out[group] = True
                trained.subtract(labels[group])
                return

    for label, members in of_label.items():
        if not trained[label]:
            held_out[members[0]] = False
            trained.update(labels[members[0]])
    for label, members in of_label.items():
        if trained[label] == total[label] > 1:
            hold_out_one(members)
    if not held_out.any() and len(labels) > 1:
        hold_out_one(order)
