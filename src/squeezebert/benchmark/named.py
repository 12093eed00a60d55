"""Names of published architectures in, files with random weights of the same sizes out. Serves `bench`.

What is BERT's architecture is written in our graph form, in which it is fastest here; MobileBERT, which is not, as
transformers' class with the engine's best settings. `NAME:usual` is what people have by default: `torch.onnx.export`,
`quantize_dynamic`, a session, all as they come.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    MobileBertConfig,
    MobileBertForSequenceClassification,
)

from squeezebert.benchmark.baselines import write_baseline, write_usual_export
from squeezebert.benchmark.latency import TimedFile
from squeezebert.export.exporter import DISABLED_OPTIMIZERS
from squeezebert.files.errors import OptionError
from squeezebert.model import SqueezeBertConfig
from squeezebert.model.configuration import GROUP_FIELDS

USUAL = ":usual"
_BASE: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
# Sizes of encoders of BERT's architecture, as their authors published them
DENSE: dict[str, dict[str, Any]] = {
    "bert-base": _BASE,
    "distilbert": _BASE | {"num_hidden_layers": 6},
    "minilm-l6": {**_BASE, "hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536},
    "minilm-l12": {**_BASE, "hidden_size": 384, "intermediate_size": 1536},
    "tinybert-4": {**_BASE, "hidden_size": 312, "num_hidden_layers": 4, "intermediate_size": 1200},
}
NAMES = ("squeezebert", *DENSE, "mobilebert")


def is_named(name: str) -> bool:
    """Whether a name is that of an architecture, in our form or the usual one."""
    return name.removesuffix(USUAL) in NAMES


def write_named(name: str, folder: Path) -> dict[str, TimedFile]:
    """Write an architecture's classifier of random weights in fp32 and int8; return the files.

    Raises `OptionError` for a name that is none.
    """
    plain = name.removesuffix(USUAL)
    if plain not in NAMES:
        raise OptionError(f"{name}: no folder, and no architecture: {', '.join(NAMES)}, each also with {USUAL!r}")
    torch.manual_seed(0)
    if plain == "mobilebert":
        files = write_usual_export(MobileBertForSequenceClassification(MobileBertConfig()), folder)
        if name == plain:
            files = {one: replace(file, disabled_optimizers=DISABLED_OPTIMIZERS) for one, file in files.items()}
        return files
    if plain == "squeezebert":
        if name != plain:
            import transformers

            config = transformers.SqueezeBertConfig()
            return write_usual_export(transformers.SqueezeBertForSequenceClassification(config), folder)
        return write_baseline(SqueezeBertConfig(), folder)
    if name != plain:
        return write_usual_export(BertForSequenceClassification(BertConfig(**DENSE[plain])), folder)
    sizes: dict[str, Any] = {**DENSE[plain], **dict.fromkeys(GROUP_FIELDS, 1)}
    return write_baseline(SqueezeBertConfig(**sizes), folder)
