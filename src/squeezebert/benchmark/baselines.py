"""Named architectures with random weights, as the files they are compared with. Serves the demo and `benchmarks/`.

Latency does not depend on what the weights are, so a baseline needs no download; it says nothing of accuracy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from squeezebert.benchmark.latency import TimedFile
from squeezebert.export.exporter import DISABLED_OPTIMIZERS
from squeezebert.export.graph import write_graph
from squeezebert.export.options import ExportOptions
from squeezebert.export.quantize import quantize_graph
from squeezebert.model import SqueezeBertConfig, SqueezeBertForSequenceClassification
from squeezebert.model.configuration import GROUP_FIELDS


def bert_base_config(labels: int = 2) -> SqueezeBertConfig:
    """BERT-base uncased (Devlin et al. 2019, arXiv 1810.04805): 12 layers of 768 channels, groups = 1."""
    options: dict[str, Any] = {**dict.fromkeys(GROUP_FIELDS, 1), "num_labels": labels}
    return SqueezeBertConfig(**options)


def write_baseline(config: SqueezeBertConfig, folder: Path) -> dict[str, TimedFile]:
    """Write a classifier of random weights in fp32 and int8, in the same graph form as ours, and return the files."""
    torch.manual_seed(0)
    model = SqueezeBertForSequenceClassification(config)
    model.train(False)
    folder.mkdir(parents=True, exist_ok=True)
    write_graph(model, folder / "model.onnx", ExportOptions().opset)
    del model
    quantize_graph(folder / "model.onnx", folder / "model_quantized.onnx")
    return {
        "fp32": TimedFile(folder / "model.onnx", DISABLED_OPTIMIZERS),
        "int8": TimedFile(folder / "model_quantized.onnx", DISABLED_OPTIMIZERS),
    }
