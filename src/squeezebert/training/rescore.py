"""A trained classifier's record and another model of the same labels in, that model's own record out.

Serves `squeezebert squeeze` of a classifier: the squeezed one is scored on the rows that the dense one was, and keeps
what makes a checkpoint exportable.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DataCollatorWithPadding

from squeezebert import __version__
from squeezebert.data.batches import tokenise
from squeezebert.data.calibration import calibrate, held_out_decisions
from squeezebert.data.examples import Example, encode_targets
from squeezebert.data.metrics import probabilities_of, score
from squeezebert.files.errors import FolderError
from squeezebert.training.checkpoint import EVALUATION, RECORD
from squeezebert.training.teacher import accepted

_BATCH = 32


def predict_logits(model: Any, tokenizer: Any, examples: list[Example], max_length: int) -> np.ndarray:
    """Return a classifier's logits for the examples in their order, (N, L)."""
    rows = tokenise(tokenizer, examples, max_length, takes=accepted(model))
    pad = DataCollatorWithPadding(tokenizer)
    order = sorted(range(len(rows)), key=lambda row: len(rows.encodings[row]["input_ids"]))
    logits: dict[int, np.ndarray] = {}
    training = model.training
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            batch = {name: value.to(model.device) for name, value in pad([rows[row] for row in chosen]).items()}
            found = model(**batch).logits.float().cpu().numpy()
            logits.update(zip(chosen, found, strict=True))
    model.train(training)
    return np.stack([logits[row] for row in range(len(rows))])


def carry_record(
    base: Path,
    output: Path,
    model: Any,
    tokenizer: Any,
    command: str,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, dict[str, float]], str]:
    """Write the record of `model` beside its weights in `output`, scored on the rows that `base` kept.

    Returns the scores of the base ("before") and of the model ("after"), and what they are scores on. Where the base
    has no rows there are no scores, and the second is the reason; what a record of ours says of task, labels and
    texts is carried over all the same, its scores and calibration are not. Raises `FolderError` for a damaged record.
    """
    if not (base / RECORD).is_file():
        return {}, f"{base} has no record of a training run ({RECORD})"
    try:
        record = json.loads((base / RECORD).read_text(encoding="utf-8"))
        record |= {"base": str(base), "command": command, "squeezebert_version": __version__}
        task, labels, before = record["task"], tuple(record["labels"]), record["metrics"]
        examples = _examples(base / EVALUATION)
        targets = encode_targets(examples, task, labels)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FolderError(
            f"{base}: {RECORD} and {EVALUATION} are not as training wrote them ({type(error).__name__}: {error}); "
            "restore them, or delete both to squeeze without scores"
        ) from error
    scores: dict[str, dict[str, float]] = {}
    record |= {"metrics": {}, "calibration": {}, "thresholds": None}
    if examples:
        report(f"scoring the squeezed model on {len(examples)} evaluation rows")
        logits = predict_logits(model, tokenizer, examples, record["max_length"])
        calibration = calibrate(logits, targets, task)
        if task == "multi_label":
            metrics = score(held_out_decisions(logits, targets), targets, task)
        else:
            metrics = score(probabilities_of(logits, task, calibration.temperature), targets, task)
        scores = {"before": {name: before[name] for name in metrics if name in before}, "after": metrics}
        scores["after"] = {name: metrics[name] for name in scores["before"]}
        record |= {
            "metrics": metrics,
            "calibration": asdict(calibration),
            "thresholds": calibration.thresholds,
        }
        shutil.copyfile(base / EVALUATION, output / EVALUATION)
    (output / RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if not examples:
        return {}, f"{base} has no evaluation rows ({EVALUATION})"
    return scores, f"the {len(examples)} evaluation rows that training held out"


def held_out_texts(base: Path) -> frozenset[tuple[str, str | None]]:
    """Return the texts or pairs that a checkpoint is evaluated on; none where it has no such rows.

    Raises `FolderError` for rows that are not as training wrote them.
    """
    try:
        return frozenset((example.text, example.text_pair) for example in _examples(base / EVALUATION))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FolderError(
            f"{base}: {EVALUATION} is not as training wrote it ({type(error).__name__}: {error}); restore it, or "
            f"delete it and {RECORD} to squeeze without scores"
        ) from error


def _examples(path: Path) -> list[Example]:
    """The evaluation rows of a checkpoint; none where it has no such file."""
    if not path.is_file():
        return []
    examples = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            row = json.loads(line)
            label = tuple(row["label"]) if isinstance(row["label"], list) else row["label"]
            examples.append(Example(row["text"], row["text_pair"], label, str(path), number))
    return examples
