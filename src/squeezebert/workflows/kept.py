"""A model trained from data in memory, kept as bytes, and read again from them. Serves the scikit-learn estimators.

Neither importing this module nor reading an exported model needs torch.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from squeezebert.data.examples import LabelledData
from squeezebert.files.errors import FolderError
from squeezebert.files.manifest import Precision
from squeezebert.runtime.predictor import load
from squeezebert.runtime.tokens import Text, Tokenizer
from squeezebert.training.options import FinetuneOptions

Array = NDArray[np.float64]
Files = dict[str, bytes]
"""Path in a folder, with forward slashes -> content."""

LOG = logging.getLogger("squeezebert")


@dataclass(frozen=True)
class Fitted:
    """A trained model as bytes, and what was found on the rows that were held out."""

    exported: Files | None
    """the exported folder; None where it was not asked for"""
    checkpoint: Files | None
    """the torch checkpoint; None where it was not to be kept"""
    precision: Precision | None
    """of the exported model"""
    metrics: dict[str, float]
    """scores on the held-out rows"""
    thresholds: tuple[float, ...] | None
    """multi-label: the probability from which on each label is given"""


def learn(
    data: LabelledData,
    base: str | os.PathLike[str],
    options: FinetuneOptions,
    export: Literal["fp32", "int8"] | None,
    keep_checkpoint: bool,
    threads: int | None,
) -> Fitted:
    """Train and export in a temporary folder, and return what came of it as bytes."""
    from squeezebert.training.finetune import finetune

    with tempfile.TemporaryDirectory(prefix="squeezebert-") as work:
        checkpoint = Path(work) / "checkpoint"
        result = finetune(data, os.fspath(base), checkpoint, options, report=LOG.info)
        exported, precision = (None, None) if export is None else export_kept(checkpoint, export, threads)
        kept = _read_files(checkpoint) if keep_checkpoint else None
    return Fitted(exported, kept, precision, result.metrics, result.calibration.thresholds)


def export_kept(
    checkpoint: Path, precision: Literal["fp32", "int8"], threads: int | None
) -> tuple[Files, Literal["fp32", "int8"]]:
    """Export a checkpoint beside itself; return the folder's files and the precision that was good enough."""
    from squeezebert.export.exporter import ExportRefused, export_checkpoint
    from squeezebert.export.options import ExportOptions

    output = checkpoint.with_name("exported")
    try:
        export_checkpoint(checkpoint, output, ExportOptions(precision, threads=threads), progress=LOG.info)
    except ExportRefused as refused:
        if precision == "fp32":
            raise
        warnings.warn(f"{refused} This estimator predicts in fp32 instead", UserWarning, stacklevel=5)
        return export_kept(checkpoint, "fp32", threads)
    return _read_files(output), precision


def open_kept(fitted: Fitted, threads: int | None) -> Any:
    """Return a model's reader, whose `logits` takes texts."""
    if fitted.exported is None:
        return _TorchReader(cast(Files, fitted.checkpoint))
    with tempfile.TemporaryDirectory(prefix="squeezebert-") as work:
        write_files(fitted.exported, Path(work))
        return load(work, threads, verify=False)  # it is read at once, and not needed on disk afterwards


class _TorchReader:
    """A checkpoint that answers as its export would, by torch."""

    def __init__(self, files: Files) -> None:
        from squeezebert.export.checkpoint import read_checkpoint

        with tempfile.TemporaryDirectory(prefix="squeezebert-") as work:
            write_files(files, Path(work))
            self._source = read_checkpoint(Path(work))
            path = Path(work) / "tokenizer.json"
            self._tokenizer = Tokenizer(path, self._source.max_length, self._source.token_types)

    def logits(self, texts: Sequence[Text]) -> Array:
        """Return the calibrated outputs (n, L)."""
        from squeezebert.export.verify import torch_logits

        return torch_logits(self._source, texts, self._tokenizer) / self._source.temperature


def _read_files(folder: Path) -> Files:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files below a folder, which is made where it is missing."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def free_place(folder: str | os.PathLike[str]) -> Path:
    """Return a folder that has nothing in it, or is not there yet. Raises `FolderError` for any other."""
    place = Path(folder)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise FolderError(f"{place}: there is something already, and it is left alone: choose another name")
    return place
