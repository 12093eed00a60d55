"""Good sentences of a few patterns, from which a tiny marker learns what an error is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tiny_checkpoints import save_checkpoint, tiny_model

NOUNS = ("train", "boat", "river", "garden", "window", "letter", "music", "paper", "table", "morning", "evening")
ADJECTIVES = ("green", "small", "quiet", "open", "late", "early")
PREPOSITIONS = ("in", "on", "by", "from", "with")
SHORT = ["--batch-size", "16", "--learning-rate", "4e-3", "--max-length", "40", "--held-out", "80"]
SHORT += ["--held-out-share", "0.2", "--least-count", "1", "--save-every", "150"]


def sentences(count: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        (a, b), c = random.choice(NOUNS, 2, replace=False), random.choice(NOUNS)
        x, y = random.choice(ADJECTIVES, 2)
        made.append(f"The {x} {a} is {random.choice(PREPOSITIONS)} the {b} and it was {y} for the {c}.")
    return made


def write_text(path: Path, count: int = 800) -> Path:
    path.write_text("".join(f"{text}\n" for text in sentences(count)))
    return path


def save_encoder(folder: Path) -> Path:
    return save_checkpoint(folder, tiny_model(initializer_range=0.1, hidden_dropout_prob=0.0).transformer)
