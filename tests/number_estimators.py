"""The estimators as scikit-learn's own checks can call them, which hand over numbers and want hundreds of fits.

Rows of numbers become texts of words like `x0b-3`, and a least-squares model of words stands in for the network; all
that lies between, the estimator itself, is the real one.
"""

from __future__ import annotations

import json

import numpy as np
from sklearn.utils.validation import check_array

from squeezebert.data.examples import encode_targets
from squeezebert.workflows import estimator
from squeezebert.workflows.estimator import SqueezeBertClassifier, SqueezeBertRegressor
from squeezebert.workflows.kept import Fitted


class _OfNumbers:
    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.one_d_array, tags.input_tags.string = True, False, False
        return tags


class ClassifierOfNumbers(_OfNumbers, SqueezeBertClassifier):
    pass


class RegressorOfNumbers(_OfNumbers, SqueezeBertRegressor):
    pass


def read_numbers_as_texts(X, name, *, learned):
    """Stands in for `read_texts`."""
    rows = check_array(X, input_name=name)
    return [" ".join(f"x{column}b{round(2 * value)}" for column, value in enumerate(row)) for row in rows.tolist()]


def learn_words(data, base, options, export, keep_checkpoint, threads):
    """Stands in for `learn`: a weight for each word and output."""
    examples = data.train
    targets = encode_targets(examples, data.task, data.labels)
    if data.task == "single_label":
        targets = np.eye(len(data.labels))[targets]
    words = sorted({word for example in examples for word in example.text.split()})
    bags = np.array([[word in example.text.split() for word in words] for example in examples], dtype=float)
    targets = targets.reshape(len(examples), -1)
    middle = targets.mean(axis=0)
    ridge = np.linalg.solve(bags @ bags.T + 0.1 * np.eye(len(bags)), targets - middle)
    weights = bags.T @ ridge
    if data.task != "regression":
        middle, weights = 10 * (middle - 0.5), 10 * weights
    model = {"middle": middle.tolist(), "weights": dict(zip(words, weights.tolist(), strict=True))}
    return Fitted({"m.json": json.dumps(model).encode()}, {}, "fp32", {}, (0.5,) * len(data.labels))


class WordReader:
    """Stands in for the predictor."""

    def __init__(self, fitted, threads):
        self.model = json.loads(fitted.exported["m.json"])

    def logits(self, texts):
        middle, weights = np.array(self.model["middle"]), self.model["weights"]
        nothing = np.zeros(len(middle))
        return np.array([middle + sum(np.array(weights.get(w, nothing)) for w in t.split()) for t in texts])


def stand_in(monkeypatch, *, numbers=False):
    """Put the model of words in place of the network; with `numbers`, rows of them in place of texts."""
    monkeypatch.setattr(estimator, "learn", learn_words)
    monkeypatch.setattr(estimator, "open_kept", WordReader)
    if numbers:
        monkeypatch.setattr(estimator, "read_texts", read_numbers_as_texts)
