"""Ranges of activations that hold for every text: an fp32 ONNX file and calibration text in, ranges out.

Serves the static form of the int8 file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from squeezebert.export.options import Ranges
from squeezebert.runtime.session import open_session

Feed = Mapping[str, NDArray[np.int64]]

_LEVELS = 255
# Values of one tensor that are kept of one text, drawn at random: a percentile of some 10^5 needs no more
_KEPT_A_TEXT = 1024
# Share of the values that a percentile range leaves out on each side
_LEFT_OUT = 1e-4
# What a range may be shrunk to when the squared error is to be least
_SHRUNK = np.linspace(1.0, 0.2, 33)


class _Seen:
    """What one tensor held: its extremes exactly, its other values as a sample."""

    def __init__(self) -> None:
        self.low, self.high = 0.0, 0.0  # zero must be exact: masked values are
        self.sample: list[NDArray[np.float32]] = []

    def add(self, values: NDArray[np.float32], generator: np.random.Generator) -> None:
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        flat = values.ravel()
        self.sample.append(flat if flat.size <= _KEPT_A_TEXT else generator.choice(flat, _KEPT_A_TEXT))

    def range(self, how: Ranges) -> tuple[float, float]:
        if how == "minmax":
            return self.low, self.high
        values = np.concatenate(self.sample)
        if how == "percentile":
            low, high = np.quantile(values, (_LEFT_OUT, 1 - _LEFT_OUT))
            return min(float(low), 0.0), max(float(high), 0.0)
        candidates = [(self.low * share, self.high * share) for share in _SHRUNK]
        return min(candidates, key=lambda found: _squared_error(values, found))


def find_ranges(
    path: Path, tensors: Sequence[str], feeds: Iterable[Feed], how: Ranges, threads: int | None = None
) -> dict[str, tuple[float, float]]:
    """Run the model file at `path` on `feeds` and return (lowest, highest) of each tensor, zero between them.

    `minmax` takes all that was seen; `percentile` leaves out a ten-thousandth on each side; `mse` shrinks the range to
    where rounding to 256 levels and cutting off err least together, in squares. A tensor that was zero throughout gets
    a range of width 1.
    """
    proto = onnx.load(str(path))
    known = {output.name for output in proto.graph.output}
    proto.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in tensors if name not in known)
    probe = path.with_name(f"{path.stem}.ranges.onnx")
    onnx.save(proto, str(probe))
    try:
        session = open_session(probe, threads)
        generator = np.random.default_rng(0)
        seen = {name: _Seen() for name in tensors}
        for feed in feeds:
            for name, values in zip(tensors, session.run(list(tensors), dict(feed)), strict=True):
                seen[name].add(values, generator)
    finally:
        probe.unlink()
    ranges = {name: one.range(how) for name, one in seen.items()}
    return {name: (low, high) if high > low else (0.0, 1.0) for name, (low, high) in ranges.items()}


def scale_and_zero(low: float, high: float) -> tuple[np.float32, np.uint8]:
    """Return the step between two levels of a range, and the level that is zero, as `QuantizeLinear` takes them."""
    scale = np.float32((high - low) / _LEVELS)
    return scale, np.uint8(np.clip(np.rint(-low / scale), 0, _LEVELS))


def _squared_error(values: NDArray[np.float32], found: tuple[float, float]) -> float:
    scale, zero = scale_and_zero(*found) if found[1] > found[0] else (np.float32(1), np.uint8(0))
    levels = np.clip(np.rint(values / scale) + int(zero), 0, _LEVELS)
    return float(np.square((levels - int(zero)) * scale - values).sum())
