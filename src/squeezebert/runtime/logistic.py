"""Vectors and the class of each in, weights of a multinomial logistic regression out; in seconds, with numpy alone.

Serves sorting into folders, which learns on the device. Legend: N examples, C channels, F classes.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Places = NDArray[np.int64]

_STEPS = 200
_MEMORY = 10
# A step that gains less than this share of the loss was the last
_SMALLEST_GAIN = 1e-6
# Share of the gain that the slope promises, which a step has to keep (Armijo's condition), and the shortest step
_SUFFICIENT, _SHORTEST = 1e-4, 1e-4


def fit_logistic(x_NC: Array, places_N: Places, classes: int, penalty: float, counts_N: Array | None = None) -> Array:
    """Return the weights (C, F) with the least loss: cross-entropy, summed, and half `penalty` times their squares.

    With `counts_N`, each row counts so many times. The loss is convex, so there is one answer. L-BFGS (Liu and Nocedal
    1989) finds it, starting each direction from the curvature that the loss has at zero, which all classes share:
    X'X / F and the penalty.
    """
    x_NC = np.ascontiguousarray(x_NC, np.float32)
    rows = np.arange(len(x_NC))
    counts_N = np.ones(len(x_NC), np.float32) if counts_N is None else counts_N

    def loss(weights_CF: Array) -> tuple[float, Array]:
        scores_NF = x_NC @ weights_CF
        highest_N = scores_NF.max(1)
        right = scores_NF[rows, places_N]
        odds_NF = np.exp(scores_NF - highest_N[:, None])
        total_N = odds_NF.sum(1)
        value = float(((np.log(total_N) + highest_N - right) * counts_N).sum(dtype=np.float64))
        value += penalty / 2 * float((weights_CF.astype(np.float64) ** 2).sum())
        odds_NF /= total_N[:, None]
        odds_NF[rows, places_N] -= 1
        odds_NF *= counts_N[:, None]
        return value, x_NC.T @ odds_NF + np.float32(penalty) * weights_CF

    values, basis = np.linalg.eigh(x_NC.T.astype(np.float64) @ (x_NC * counts_N[:, None]))
    start_CC = ((basis / (np.clip(values, 0, None) / classes + penalty)) @ basis.T).astype(np.float32)
    weights = np.zeros((x_NC.shape[1], classes), np.float32)
    value, gradient = loss(weights)
    pairs: deque[tuple[Array, Array, float]] = deque(maxlen=_MEMORY)
    for _ in range(_STEPS):
        direction = _direction(gradient, pairs, start_CC)
        slope, length = float(np.vdot(gradient, direction)), 1.0
        while length >= _SHORTEST:
            moved = weights - np.float32(length) * direction
            new_value, new_gradient = loss(moved)
            if new_value <= value - _SUFFICIENT * length * slope:
                break
            length /= 2
        else:
            break  # as near as the rounding of float32 lets it come
        step, change = moved - weights, new_gradient - gradient
        if (curved := float(np.vdot(step, change))) > 0:
            pairs.append((step, change, 1 / curved))
        gain, weights, value, gradient = value - new_value, moved, new_value, new_gradient
        if gain <= _SMALLEST_GAIN * value:
            break
    return weights


def _direction(gradient: Array, pairs: deque[tuple[Array, Array, float]], start_CC: Array) -> Array:
    """The gradient times the inverse curvature as the last steps show it: the two loops of L-BFGS."""
    direction, shares = gradient.copy(), []
    for step, change, inverse in reversed(pairs):
        shares.append(np.float32(inverse * float(np.vdot(step, direction))))
        direction -= shares[-1] * change
    direction = start_CC @ direction
    for (step, change, inverse), share in zip(pairs, reversed(shares), strict=True):
        direction += step * (share - np.float32(inverse * float(np.vdot(change, direction))))
    return direction
