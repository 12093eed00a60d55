"""A task's predictions and targets in; its official metrics and score out. Serves `glue run` and its report."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import numpy as np
from sklearn.metrics import f1_score

from squeezebert.data.glue.tasks import GLUE, GlueTask
from squeezebert.data.metrics import score


def glue_metrics(task: GlueTask, answers: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Return the official metrics of a table, each from 0 to 1 (correlations from -1).

    `answers` are a score for each label (N, L) in the natural order of the labels, or numbers (N,); `targets` are
    as `encode_targets` makes them. F1 is that of the label 1.
    """
    found = score(answers, targets, task.task)
    if "f1" in task.metrics:
        found["f1"] = float(f1_score(targets, answers.argmax(-1), pos_label=1, zero_division=0))
    return {name: found[name] for name in task.metrics}


def task_score(task: GlueTask, tables: Mapping[str, Mapping[str, float]]) -> float:
    """Return a task's score from 0 to 100: the mean of its metrics, and of its tables (MNLI's two)."""
    return 100 * statistics.mean(statistics.mean(tables[split.name][m] for m in task.metrics) for split in task.dev)


def overall(scores: Mapping[str, float], *, wnli: bool) -> float | None:
    """Return GLUE's score, the mean over the nine tasks, or over eight without WNLI; None if a task is missing.

    MNLI's two tables count as one task, as on the leaderboard.
    """
    names = [name for name in GLUE if wnli or name != "WNLI"]
    return statistics.mean(scores[name] for name in names) if all(name in scores for name in names) else None
