"""Named architectures with random weights, as the files they are compared with. Serves the demo and `benchmarks/`.

Latency does not depend on what the weights are, so a baseline needs no download; it says nothing of accuracy.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from onnxruntime.quantization import quantize_dynamic
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification

from squeezebert.benchmark.latency import TimedFile
from squeezebert.export.checkpoint import Model
from squeezebert.export.exporter import DISABLED_OPTIMIZERS, MODEL_PATHS
from squeezebert.export.graph import INPUTS, write_graph
from squeezebert.export.options import ExportOptions
from squeezebert.export.quantize import quantize_graph, unadvised
from squeezebert.export.smoothing import BlockScales
from squeezebert.files.manifest import Precision
from squeezebert.model import SqueezeBertConfig, SqueezeBertForSequenceClassification
from squeezebert.model.configuration import GROUP_FIELDS
from squeezebert.training.teacher import accepted


def bert_base_config(labels: int = 2) -> SqueezeBertConfig:
    """BERT-base uncased (Devlin et al. 2019, arXiv 1810.04805): 12 layers of 768 channels, groups = 1."""
    options: dict[str, Any] = {**dict.fromkeys(GROUP_FIELDS, 1), "num_labels": labels}
    return SqueezeBertConfig(**options)


def write_baseline(config: SqueezeBertConfig, folder: Path) -> dict[str, TimedFile]:
    """Write a classifier of random weights in fp32 and int8, in the same graph form as ours, and return the files."""
    torch.manual_seed(0)
    return write_ours(SqueezeBertForSequenceClassification(config), folder)


def write_ours(
    model: Model,
    folder: Path,
    scales: Sequence[BlockScales] | None = None,
    precisions: Collection[Precision] = ("fp32", "int8"),
) -> dict[str, TimedFile]:
    """Write a model of ours in fp32 and int8, in our graph form, and return the files.

    `scales`, as `find_scales` has them, are those of the int8 file, as an export writes it; without them it is of the
    fp32 file's graph.
    """
    model.train(False)
    folder.mkdir(parents=True, exist_ok=True)
    opset, paths = ExportOptions().opset, {name: folder / Path(MODEL_PATHS[name]).name for name in precisions}
    if "fp32" in paths:
        write_graph(model, paths["fp32"], opset)
    if "int8" in paths:
        source = paths["fp32"] if scales is None and "fp32" in paths else folder / "smooth.onnx"
        if source not in paths.values():
            write_graph(model, source, opset, scales)
        quantize_graph(source, paths["int8"])
        if source not in paths.values():
            source.unlink()
    return {name: TimedFile(path, DISABLED_OPTIMIZERS) for name, path in paths.items()}


class _Logits(torch.nn.Module):
    """A transformers classifier whose inputs have an order and whose output is a tensor, as exporters want it."""

    def __init__(self, model: Any, inputs: Sequence[str]) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs

    def forward(self, *tensors: Tensor) -> Any:
        return self.model(**dict(zip(self.inputs, tensors, strict=True))).logits


def write_usual(config: SqueezeBertConfig, folder: Path) -> dict[str, TimedFile]:
    """Write a dense classifier of random weights as people do without us (`write_usual_export`)."""
    torch.manual_seed(0)
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    dense = BertConfig(**{name: getattr(config, name) for name in (*sizes, "num_labels")})
    return write_usual_export(BertForSequenceClassification(dense), folder)


def write_usual_export(model: Any, folder: Path) -> dict[str, TimedFile]:
    """Write a transformers classifier as people do without us, in fp32 and int8, and return the files.

    `torch.onnx.export`, then onnxruntime's `quantize_dynamic`, both with their defaults; the files are read by a
    session with its defaults too, except that integer products are exact where the CPU's fast ones overflow: answers
    that are wrong are no baseline.
    """
    folder.mkdir(parents=True, exist_ok=True)
    export_by_torch(model, folder / "model.onnx")
    with unadvised():
        quantize_dynamic(str(folder / "model.onnx"), str(folder / "model_quantized.onnx"))
    return {"fp32": TimedFile(folder / "model.onnx", ()), "int8": TimedFile(folder / "model_quantized.onnx", ())}


def export_by_torch(model: Any, path: Path) -> None:
    """Write a transformers classifier by `torch.onnx.export` with its defaults, dynamic in batch and length."""
    inputs = [name for name in INPUTS if name in accepted(model)]
    wrapped = _Logits(model, inputs)
    wrapped.train(False)
    values = {
        name: torch.zeros(2, 9).long() if name == "token_type_ids" else torch.ones(2, 9).long() for name in inputs
    }
    dimensions = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("sequence", min=1)}
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            wrapped,
            tuple(values.values()),
            dynamo=True,
            input_names=inputs,
            output_names=["logits"],
            dynamic_shapes=(tuple(dimensions for _ in inputs),),
            verbose=False,
        )
        assert program is not None
        program.save(str(path))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's exporter, which remarks on packages that are not needed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
