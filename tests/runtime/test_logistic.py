"""The solver of logistic regression against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from squeezebert.runtime.logistic import fit_logistic


def rows(count, channels, classes, seed):
    random = np.random.default_rng(seed)
    centres = random.normal(size=(classes, channels))
    places = np.arange(count) % classes
    x = centres[places] + random.normal(size=(count, channels)) * 1.5
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), places.astype(np.int64)


@pytest.mark.parametrize(
    ("count", "classes", "penalty"), [(400, 5, 1 / 30), (60, 20, 1 / 30), (300, 3, 1.0), (40, 2, 0.01)]
)
def test_the_least_loss_is_found(count, classes, penalty):
    x, places = rows(count, 24, classes, seed=count)
    weights = fit_logistic(x, places, classes, penalty)
    theirs = LogisticRegression(C=1 / penalty, fit_intercept=False, tol=1e-8, max_iter=5000).fit(x, places)
    expected = theirs.coef_ if classes > 2 else np.concatenate([-theirs.coef_, theirs.coef_]) / 2

    def loss(w):
        scores = x @ w
        return (np.log(np.exp(scores).sum(1)) - scores[np.arange(count), places]).sum() + penalty / 2 * (w**2).sum()

    if classes > 2:  # theirs penalises two classes by one vector
        assert loss(weights) <= loss(expected.T) * 1.0005
        np.testing.assert_allclose(x @ weights, x @ expected.T, atol=0.15)
    for seed in range(3):
        moved = weights + np.random.default_rng(seed).normal(size=weights.shape) * 0.05
        assert loss(weights) < loss(moved)


def test_odd_examples_have_an_answer():
    same = np.ones((6, 4), np.float32)
    weights = fit_logistic(same, np.array([0, 1] * 3), 2, 1 / 30)
    np.testing.assert_allclose((same @ weights)[:, 0], (same @ weights)[:, 1], atol=1e-3)
    assert np.isfinite(fit_logistic(np.zeros((2, 4), np.float32), np.array([0, 1]), 2, 1 / 30)).all()
    two = fit_logistic(np.eye(2, dtype=np.float32), np.array([0, 1]), 2, 1 / 30)
    assert (np.eye(2) @ two).argmax(1).tolist() == [0, 1]
