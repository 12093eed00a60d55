"""Checkpoints small enough for a test: a WordPiece tokenizer built in code and two-layer random models."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from squeezebert.model import SqueezeBertConfig, SqueezeBertForSequenceClassification

WORDS = [
    *("the", "of", "to", "and", "in", "is", "was", "it", "for", "on", "with", "at", "by", "from", "that", "this"),
    *("train", "boat", "river", "garden", "window", "letter", "music", "paper", "table", "morning", "evening"),
    *("green", "small", "quiet", "open", "late", "early", "seven", "three", "walk", "read", "write", "wait"),
]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MAX_LENGTH = 48


def tiny_tokenizer() -> Any:
    characters = string.ascii_lowercase + string.digits
    pieces = [*characters, *(f"##{c}" for c in characters), *".,;:!?'-()@/%", *"漢字天気"]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([*SPECIALS, *pieces, *WORDS]))}
    return transformers.BertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=MAX_LENGTH)


VOCABULARY = len(tiny_tokenizer())


def tiny_model(seed: int = 0, **changes: Any) -> SqueezeBertForSequenceClassification:
    """A random model whose answers vary from text to text."""
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "initializer_range": 0.25,
        "num_labels": 3,
        **dict.fromkeys(("q_groups", "k_groups", "v_groups", "intermediate_groups", "output_groups"), 2),
    }
    model = SqueezeBertForSequenceClassification(SqueezeBertConfig(**{**sizes, **changes})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
    return model


def texts(count: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(2, 30))) for _ in range(count)]


def save_checkpoint(folder: Path, model: Any, about: dict[str, Any] | None = None, rows: Any = None) -> Path:
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    if about is not None:
        (folder / "squeezebert.json").write_text(json.dumps({"format": 1, **about}))
    if rows is not None:
        (folder / "evaluation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def logits_of(model: Any, items: list[Any], max_length: int = MAX_LENGTH) -> np.ndarray:
    tokenizer = tiny_tokenizer()
    outputs = []
    for item in items:
        pair = (item, None) if isinstance(item, str) else item
        encoded = tokenizer(*pair, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.no_grad():
            outputs.append(model(**encoded).logits[0].double().numpy())
    return np.stack(outputs)


def confident_rows(model: Any, labels: list[str], count: int, noise: int = 0) -> list[dict[str, Any]]:
    """Rows labelled with the model's own answer where it is clear; the first `noise` ones with another label."""
    items = texts(4 * count, seed=1)
    logits = logits_of(model, items)
    ordered = np.sort(logits, axis=1)
    clearest = np.argsort(ordered[:, -2] - ordered[:, -1])[:count]
    rows = []
    for place, i in enumerate(clearest):
        answer = (int(logits[i].argmax()) + (1 if place < noise else 0)) % len(labels)
        rows.append({"text": items[i], "text_pair": None, "label": labels[answer]})
    return rows
