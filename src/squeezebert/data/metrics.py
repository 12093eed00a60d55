"""A model's logits and the targets in; the scores that people quote out. Serves training, export and benchmarks."""

from __future__ import annotations

import warnings

import numpy as np
from scipy import stats
from scipy.special import expit, softmax
from sklearn import metrics

from squeezebert.data.options import Task

# The score that a task is judged by where none is named, and what early stopping watches
MAIN_METRIC: dict[Task, str] = {"single_label": "accuracy", "multi_label": "micro_f1", "regression": "spearman"}
METRICS: dict[Task, tuple[str, ...]] = {
    "single_label": ("accuracy", "macro_f1", "matthews"),
    "multi_label": ("micro_f1", "macro_f1", "label_accuracy", "exact_match"),
    "regression": ("pearson", "spearman", "mean_squared_error"),
}
LOWER_IS_BETTER = frozenset({"mean_squared_error"})


def probabilities_of(logits: np.ndarray, task: Task, temperature: float = 1.0) -> np.ndarray:
    """Turn logits (N, L) into probabilities (N, L), or into numbers (N,) for regression."""
    if task == "regression":
        return logits.reshape(-1).astype(np.float64)
    scaled = logits.astype(np.float64) / temperature
    return np.asarray(softmax(scaled, axis=-1) if task == "single_label" else expit(scaled))


def predicted(probabilities: np.ndarray, task: Task, thresholds: np.ndarray | None = None) -> np.ndarray:
    """Decide: class ids (N,), zeros and ones (N, L), or the numbers (N,) as they are."""
    if task == "single_label":
        return np.asarray(probabilities.argmax(-1))
    if task == "multi_label":
        return (probabilities >= (0.5 if thresholds is None else thresholds)).astype(np.int64)
    return probabilities


def score(
    probabilities: np.ndarray, targets: np.ndarray, task: Task, thresholds: np.ndarray | None = None
) -> dict[str, float]:
    """Score probabilities (N, L) or numbers (N,) against `encode_targets`' targets, under the names in `METRICS`.

    A correlation of constant numbers is 0, as is the F1 of a label that is neither there nor predicted.
    """
    decided = predicted(probabilities, task, thresholds)
    if task == "single_label":
        return {
            "accuracy": float(metrics.accuracy_score(targets, decided)),
            "macro_f1": float(metrics.f1_score(targets, decided, average="macro", zero_division=0)),
            "matthews": float(metrics.matthews_corrcoef(targets, decided)),
        }
    if task == "multi_label":
        return {
            "micro_f1": float(metrics.f1_score(targets, decided, average="micro", zero_division=0)),
            "macro_f1": float(metrics.f1_score(targets, decided, average="macro", zero_division=0)),
            "label_accuracy": float((decided == targets).mean()),
            "exact_match": float((decided == targets).all(-1).mean()),
        }
    # float32, as predictions are kept, would round the correlations
    probabilities, targets = (np.asarray(values, dtype=np.float64) for values in (probabilities, targets))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        pearson = stats.pearsonr(probabilities, targets)[0] if len(targets) > 1 else 0.0
        spearman = stats.spearmanr(probabilities, targets)[0] if len(targets) > 1 else 0.0
    return {
        "pearson": float(np.nan_to_num(pearson)),
        "spearman": float(np.nan_to_num(spearman)),
        "mean_squared_error": float(np.mean((probabilities - targets) ** 2)),
    }
