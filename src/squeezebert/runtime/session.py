"""ONNX Runtime sessions: a model file in, a session that computes the same on every CPU out. Serves the predictor."""

from __future__ import annotations

import base64
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from squeezebert.files.cores import check_threads
from squeezebert.files.errors import DependencyError, FolderError

# A model of one MatMulInteger node, uint8 (m, k) times int8 (k, n); tests/runtime rebuilds it with onnx
_INTEGER_PRODUCT = base64.b64decode(
    "CAgSADpiChgKAWEKAWISAXkiDU1hdE11bEludGVnZXISAXBaFQoBYRIQCg4IAhIKCgMSAW0KAxIBa1oVCgFiEhAKDggDEgoKAxIBawoDEgFu"
    "YhUKAXkSEAoOCAYSCgoDEgFtCgMSAW5CBAoAEA0="
)


def open_session(path: Path, threads: int | None, disabled_optimizers: Sequence[str] = (), exact: bool = True) -> Any:
    """Open an ONNX file on the CPU and return the `onnxruntime.InferenceSession`.

    `threads` is the number of cores one text may use, None for all. Without `exact`, integer products may overflow, as
    by onnxruntime's default: for measuring what that gains. Raises `FolderError` for a file the engine cannot
    read, `OptionError` for an unusable number of threads, `DependencyError` without onnxruntime.
    """
    options = session_options(threads, exact)
    onnxruntime = import_onnxruntime()
    try:
        return onnxruntime.InferenceSession(
            str(path),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=list(disabled_optimizers),
        )
    except Exception as error:  # onnxruntime's errors have no common base class of their own
        raise FolderError(
            f"{path}: onnxruntime {onnxruntime.__version__} cannot load it ({error}): "
            "export the checkpoint again, or update onnxruntime"
        ) from error


def session_options(threads: int | None, exact: bool = True) -> Any:
    """Return `onnxruntime.SessionOptions` for `threads` cores, with exact integer arithmetic and a quiet log.

    Without `exact`, the arithmetic is what onnxruntime does by default.
    """
    check_threads(threads)
    options = import_onnxruntime().SessionOptions()
    options.log_severity_level = 3
    options.inter_op_num_threads = 1
    if threads is not None:
        options.intra_op_num_threads = threads
    if threads != 1:
        # Its threads would otherwise spin for a while after each answer: heat on a device, and on the cores of whoever
        # computes next, be it another model of the same benchmark
        options.add_session_config_entry("session.force_spinning_stop", "1")
    if exact and integer_products_saturate():
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


@functools.cache
def integer_products_saturate() -> bool:
    """Whether this CPU's fast uint8 x int8 products overflow 16 bits on the way.

    They do on x86-64 without VNNI, and int8 models answer wrongly there unless onnxruntime is told to take its slower
    exact products (`session.x64quantprecision`). Where they don't, that option would more than double the time, and
    onnxruntime applies it regardless; so it is asked for by what a product gives, not by the CPU's name.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(_INTEGER_PRODUCT, options, providers=["CPUExecutionProvider"])
    depth = 64
    # One row and several take different kernels
    for rows in (1, 8):
        largest = {"a": np.full((rows, depth), 255, np.uint8), "b": np.full((depth, 32), 127, np.int8)}
        if (session.run(None, largest)[0] != 255 * 127 * depth).any():
            return True
    return False


@functools.cache
def import_onnxruntime() -> Any:
    """Import onnxruntime when it is first needed. Raises `DependencyError` when it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise DependencyError(f"onnxruntime cannot be imported ({error}): pip install onnxruntime") from error
    return onnxruntime
