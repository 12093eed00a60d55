"""Dense checkpoints, trained classifiers among them, and text, for the tests of squeezing and distilling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import transformers

from squeezebert.model.configuration import GROUP_FIELDS
from tiny_checkpoints import MAX_LENGTH, VOCABULARY, logits_of, save_checkpoint, texts, tiny_model, tiny_tokenizer

LABELS = ["a", "b", "c"]
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": MAX_LENGTH,
    "initializer_range": 0.2,
}
PROBLEMS = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}


def text_file(folder: Path, count: int = 150, seed: int = 0) -> Path:
    """A file of sentences, one a line."""
    path = folder / "text.txt"
    path.write_text("".join(f"{text}.\n" for text in texts(count, seed)))
    return path


def bert(folder: Path, head: str = "Model", **changes: Any) -> Path:
    """A checkpoint of transformers' own BERT class, or, for a head that begins so, of another of its classes."""
    name = head if head.startswith(("Electra", "Roberta", "DistilBert")) else f"Bert{head}"
    architecture = name.split("Model")[0].split("For")[0]
    transformers.set_seed(0)
    config = getattr(transformers, f"{architecture}Config")(**SIZES | changes)
    getattr(transformers, name)(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def classifier(folder: Path, task: str = "single_label", rows: int = 40, **changes: Any) -> Path:
    """A dense classifier with the record of a training run, whose evaluation rows have its own answers for labels."""
    labels = LABELS if task != "regression" else []
    outputs = len(labels) or 1
    dense = dict.fromkeys(GROUP_FIELDS, 1)
    model = tiny_model(**dense, num_labels=outputs, problem_type=PROBLEMS[task], **changes)
    if labels:
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {label: i for i, label in enumerate(labels)}
    items = texts(rows, seed=1)
    logits = logits_of(model, items)
    found: list[Any] = [labels[i] for i in logits.argmax(1)] if labels else [float(row[0]) for row in logits]
    if task == "multi_label":
        found = [
            [label for label, value in zip(labels, row, strict=True) if value > np.median(logits)] for row in logits
        ]
    about = {
        "task": task,
        "labels": labels,
        "max_length": MAX_LENGTH,
        "text_columns": {"text": "text", "text_pair": None},
        "calibration": {"temperature": 1.0},
        "metrics": {
            "single_label": {"accuracy": 1.0},
            "multi_label": {"micro_f1": 1.0},
            "regression": {"pearson": 1.0},
        }[task],
    }
    evaluation = [{"text": text, "text_pair": None, "label": label} for text, label in zip(items, found, strict=True)]
    return save_checkpoint(folder, model, about, evaluation)
