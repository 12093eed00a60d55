"""A trained classifier's record and another model of the same labels in, that model's own record out.

Serves `squeezebert squeeze` of a classifier: the squeezed one is scored on the rows that the dense one was, and keeps
what makes a checkpoint exportable.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DataCollatorWithPadding

from squeezebert.data.batches import tokenise
from squeezebert.data.calibration import calibrate, held_out_decisions
from squeezebert.data.examples import Example, encode_targets
from squeezebert.data.metrics import probabilities_of, score
from squeezebert.training.checkpoint import EVALUATION, RECORD

_BATCH = 32


def predict_logits(model: Any, tokenizer: Any, examples: list[Example], max_length: int) -> np.ndarray:
    """Return a classifier's logits for the examples in their order, (N, L)."""
    rows = tokenise(tokenizer, examples, max_length)
    pad = DataCollatorWithPadding(tokenizer)
    order = sorted(range(len(rows)), key=lambda row: len(rows.encodings[row]["input_ids"]))
    logits: dict[int, np.ndarray] = {}
    training = model.training
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            found = model(**pad([rows[row] for row in chosen])).logits.float().numpy()
            logits.update(zip(chosen, found, strict=True))
    model.train(training)
    return np.stack([logits[row] for row in range(len(rows))])


def carry_record(base: Path, output: Path, model: Any, tokenizer: Any, command: str) -> dict[str, dict[str, float]]:
    """Write the record of `model` beside its weights in `output`, scored on the rows that `base` kept.

    Returns the scores of the base ("before") and of the model ("after"); nothing where the base has no record of ours.
    """
    try:
        record = json.loads((base / RECORD).read_text(encoding="utf-8"))
        lines = (base / EVALUATION).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    task, labels = record["task"], tuple(record["labels"])
    examples = []
    for number, line in enumerate(lines, start=1):
        row = json.loads(line)
        label = tuple(row["label"]) if isinstance(row["label"], list) else row["label"]
        examples.append(Example(row["text"], row["text_pair"], label, EVALUATION, number))
    if not examples:
        return {}
    logits = predict_logits(model, tokenizer, examples, record["max_length"])
    targets = encode_targets(examples, task, labels)
    calibration = calibrate(logits, targets, task)
    if task == "multi_label":
        metrics = score(held_out_decisions(logits, targets), targets, task)
    else:
        metrics = score(probabilities_of(logits, task, calibration.temperature), targets, task)
    before = record["metrics"]
    record |= {
        "metrics": metrics,
        "calibration": asdict(calibration),
        "thresholds": calibration.thresholds,
        "base": str(base),
        "command": command,
    }
    (output / EVALUATION).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (output / RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return {"before": before, "after": metrics}
