"""The int8 file of an export: made of an fp32 graph that suits it, and again with blocks left in fp32.

Serves the exporter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np

from squeezebert.export.checkpoint import Checkpoint
from squeezebert.export.options import ExportOptions
from squeezebert.export.quantize import DYNAMIC, PACKED, STATIC, fix_ranges, quantize_graph
from squeezebert.export.ranges import Feed, find_ranges
from squeezebert.files.errors import OptionError
from squeezebert.runtime.predictor import Predictor
from squeezebert.runtime.tokens import MASK, Text

# Each is run once for the ranges of a hundred tensors
_CALIBRATION_TEXTS = 256
FEW_TEXTS = 32
"""Ranges that were found on fewer are told of"""
# Tokens of a calibration text that a masked-lm is asked for
_HIDDEN = 4


@dataclass
class Int8File:
    """How one export's int8 file is written."""

    smooth: Path
    """the fp32 graph whose ranges suit int8"""
    target: Path
    """the int8 file"""
    options: ExportOptions
    """whether ranges are static, and how words are kept"""
    feeds: Sequence[Feed]
    """what static ranges are found on"""
    _ranges: dict[str, tuple[float, float]] = field(default_factory=dict)

    def write(self, spared: Sequence[int] = ()) -> None:
        """Write the file, the blocks in `spared` in fp32; the first time without any, where ranges are static."""
        tensors = quantize_graph(self.smooth, self.target, self.options.embeddings, spared)
        if not self.static:
            return
        unknown = [name for name in tensors if name not in self._ranges]
        if unknown:  # ranges are of the fp32 graph: which blocks are spared does not change them
            found = find_ranges(self.smooth, unknown, self.feeds, self.options.ranges, self.options.threads)
            self._ranges.update(found)
        fix_ranges(self.target, self._ranges)

    @property
    def static(self) -> bool:
        """Whether activations are rounded in ranges found beforehand, so that answers do not depend on the batch."""
        return self.options.activations == "static"

    def describe(self, spared: Sequence[int] = ()) -> str:
        """Return what was made of weights and activations, for the manifest."""
        told = STATIC.format(self.options.ranges) if self.static else DYNAMIC
        told += PACKED if self.options.embeddings == "int4" else ""
        return told + (f"; blocks {', '.join(map(str, spared))} in fp32" if spared else "")


def check_calibration(
    calibration: Sequence[Text] | None, source: Checkpoint, options: ExportOptions
) -> Sequence[Text]:
    """Return the texts that static ranges are found on; none where ranges are dynamic. Raises `OptionError`."""
    if options.activations == "dynamic":
        if calibration is not None:
            raise OptionError("calibration text serves static ranges alone: leave it out, or give activations static")
        return ()
    if not calibration:
        raise OptionError(
            "activations static: give calibration text, a few hundred texts like those that the model will read; "
            "ranges found on any other cut off what matters"
        )
    if source.pair is not None and any(isinstance(text, str) is source.pair for text in calibration):
        raise OptionError(f"calibration: this model reads {'pairs of texts' if source.pair else 'single texts'}")
    if not any(text.strip() if isinstance(text, str) else "".join(text).strip() for text in calibration):
        raise OptionError("calibration: all its texts are empty")
    count = min(_CALIBRATION_TEXTS, len(calibration))
    return [calibration[i * len(calibration) // count] for i in range(count)]


def feed_of(predictor: Predictor, text: Text) -> Feed:
    """Return a text as the model file reads it; for a masked-lm a few of its tokens are hidden and asked for."""
    tokens = predictor.tokenizer.encode(*((text,) if isinstance(text, str) else text))
    ids = np.array([tokens.ids], dtype=np.int64)
    kinds = np.array([tokens.types], dtype=np.int64)
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": kinds}
    if predictor.task == "masked-lm":
        places = np.unique(np.linspace(predictor.tokenizer.lead, ids.shape[1] - 2, _HIDDEN).round().astype(np.int64))
        ids[0, places] = cast(int, predictor.tokenizer.id_of(MASK))
        feed["positions"] = np.stack([np.zeros_like(places), places], axis=1)
    return feed
