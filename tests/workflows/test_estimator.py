"""The scikit-learn estimators."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks
from number_estimators import ClassifierOfNumbers, RegressorOfNumbers, stand_in


@pytest.fixture(autouse=True)
def _x(monkeypatch):
    stand_in(monkeypatch)


@parametrize_with_checks([ClassifierOfNumbers("no-base"), RegressorOfNumbers("no-base")])
def test_checks(estimator, check):
    check(estimator)
