"""The options of an export, free of torch so that `--help` stays light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from squeezebert.files.cores import check_threads
from squeezebert.files.errors import OptionError
from squeezebert.files.numbers import check_whole

# ONNX operator sets that the graph can be written in and that were tested
OPSETS = (18, 19, 20)


Embeddings = Literal["int8", "int4"]
Activations = Literal["dynamic", "static"]
Ranges = Literal["minmax", "percentile", "mse"]


@dataclass(frozen=True)
class ExportOptions:
    """How a checkpoint is exported, and what it may lose on the way."""

    precision: Literal["both", "fp32", "int8"] = "both"
    """which files to write: int8 is small and fast, fp32 answers as torch does"""
    embeddings: Embeddings = "int8"
    """bits of the word embeddings in the int8 file: int4 makes it smaller by nearly half of them"""
    activations: Activations = "dynamic"
    """how the int8 file rounds activations: in ranges taken in each run, or static, in ranges found beforehand on
    calibration text, which makes answers independent of the texts in a batch"""
    ranges: Ranges = "mse"
    """what a static range covers: all values that were seen, all but a ten-thousandth, or as much as errs least"""
    spare_blocks: int = 0
    """blocks that may stay fp32 in the int8 file where it would be refused otherwise, those that err most first"""
    max_accuracy_drop: float = 0.5
    """int8 is refused when it certainly loses more accuracy than this, in points"""
    min_agreement: float | None = None
    """int8 is refused when a smaller share of its labels agrees with fp32; by default 0.98, of masked words 0.9, as
    there are thousands to choose from, and of labels of words 0.99, as most have the same"""
    force: bool = False
    """write int8 although it was refused; the manifest keeps the reason"""
    overwrite: bool = False
    """replace an exported folder of the same name"""
    threads: int | None = None
    """cores used for the verification; all when not given"""
    opset: int = 20
    """ONNX operator set; lower it for an engine that is older than 2023"""

    def __post_init__(self) -> None:
        if self.precision not in ("both", "fp32", "int8"):
            raise OptionError(f"precision = {self.precision!r}: give both, fp32 or int8")
        if self.embeddings not in get_args(Embeddings):
            raise OptionError(f"embeddings = {self.embeddings!r}: give one of {', '.join(get_args(Embeddings))}")
        for name, kinds in (("activations", Activations), ("ranges", Ranges)):
            if getattr(self, name) not in get_args(kinds):
                raise OptionError(f"{name} = {getattr(self, name)!r}: give one of {', '.join(get_args(kinds))}")
        if self.ranges != "mse" and self.activations == "dynamic":
            raise OptionError(f"ranges = {self.ranges!r}: serves static activations alone: leave it out, or give them")
        check_whole("spare_blocks =", self.spare_blocks, 0)
        if not 0 <= self.max_accuracy_drop <= 100:
            raise OptionError(f"max_accuracy_drop = {self.max_accuracy_drop!r}: give points from 0 to 100")
        if self.min_agreement is not None and not 0 <= self.min_agreement <= 1:
            raise OptionError(f"min_agreement = {self.min_agreement!r}: give a share from 0 to 1")
        if self.opset not in OPSETS:
            raise OptionError(f"opset = {self.opset!r}: give one of {', '.join(map(str, OPSETS))}")
        check_threads(self.threads)
        if self.precision == "fp32":
            for name, usual in (("embeddings", "int8"), ("activations", "dynamic"), ("spare_blocks", 0)):
                if getattr(self, name) != usual:
                    raise OptionError(
                        f"{name} = {getattr(self, name)!r}: serves the int8 file, which precision fp32 leaves out"
                    )
