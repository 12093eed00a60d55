"""Fixtures: an exported folder of each task, made once a session.

A test module takes them with `pytest_plugins = ["exported_folders"]`.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from marker_text import SHORT, save_encoder, write_text
from masked_models import SENTENCES, learned
from squeezebert.cli import main
from squeezebert.export.exporter import export_checkpoint
from squeezebert.export.options import ExportOptions
from squeezebert.runtime.predictor import load
from tiny_checkpoints import confident_rows, logits_of, save_checkpoint, texts, tiny_model

LABELS = ["calm", "busy", "other"]


@pytest.fixture(scope="session")
def single(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Single-label: checkpoint with everything training writes, and its export."""
    return _single(tmp_path_factory.getbasetemp() / "single")


@pytest.fixture(scope="session")
def multi(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Multi-label pairs of text, with thresholds."""
    return _multi(tmp_path_factory.getbasetemp() / "multi")


@pytest.fixture(scope="session")
def regression(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Regression, a plain transformers checkpoint without squeezebert.json."""
    return _regression(tmp_path_factory.getbasetemp() / "regression")


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An encoder of one layer, opened in fp32."""
    folder = tmp_path_factory.getbasetemp() / "encoder"
    save_checkpoint(folder / "checkpoint", tiny_model(num_hidden_layers=1).transformer)
    export_checkpoint(folder / "checkpoint", folder / "exported", ExportOptions(threads=1, force=True))
    return load(folder / "exported", 1, "fp32")


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A masked-lm that knows SENTENCES by heart."""
    folder = tmp_path_factory.getbasetemp() / "words"
    model = learned()
    checkpoint = save_checkpoint(folder / "checkpoint", model, rows=[{"text": text} for text in SENTENCES])
    report = export_checkpoint(checkpoint, folder / "exported", ExportOptions(threads=1))
    return SimpleNamespace(checkpoint=checkpoint, output=folder / "exported", report=report, model=model)


@pytest.fixture(scope="session")
def marker(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A marker of wrong words that was trained and exported as people type it, with the text and what was said."""
    folder = tmp_path_factory.getbasetemp() / "marker"
    base, text = save_encoder(folder / "base"), write_text(folder / "text.txt")
    checkpoint, output = folder / "checkpoint", folder / "exported"
    told = ["train-marker", "--text", str(text), "--base", str(base), "--output", str(checkpoint), *SHORT]
    assert main([*told, "--steps", "450"]) == 0
    assert main(["export", str(checkpoint), "--output", str(output), "--threads", "1", "--force"]) == 0
    return SimpleNamespace(checkpoint=checkpoint, output=output, text=text, base=base)


def _single(folder: Path) -> Any:
    model = tiny_model()
    about = {
        "task": "single_label",
        "labels": LABELS,
        "max_length": 40,
        "text_columns": {"text": "body", "text_pair": None},
        "calibration": {"temperature": 1.5},
        "thresholds": None,
    }
    rows = confident_rows(model, LABELS, 40, noise=4)
    checkpoint = save_checkpoint(folder / "checkpoint", model, about, rows)
    report = export_checkpoint(checkpoint, folder / "exported", ExportOptions(threads=1))
    return SimpleNamespace(checkpoint=checkpoint, output=folder / "exported", report=report, model=model, rows=rows)


def _multi(folder: Path) -> Any:
    model = tiny_model(seed=1, q_groups=4, num_hidden_layers=1)
    about = {
        "task": "multi_label",
        "labels": LABELS,
        "max_length": 40,
        "text_columns": {"text": "a", "text_pair": "b"},
        "thresholds": [0.3, 0.5, 0.7],
    }
    items = list(zip(texts(30, 2), texts(30, 3), strict=True))
    scores = 1 / (1 + np.exp(-logits_of(model, items, 40)))
    rows = [
        {"text": a, "text_pair": b, "label": [name for name, value in zip(LABELS, row, strict=True) if value > 0.5]}
        for (a, b), row in zip(items, scores, strict=True)
    ]
    checkpoint = save_checkpoint(folder / "checkpoint", model, about, rows)
    report = export_checkpoint(checkpoint, folder / "exported", ExportOptions(threads=1, force=True))
    return SimpleNamespace(checkpoint=checkpoint, output=folder / "exported", report=report, model=model, rows=rows)


def _regression(folder: Path) -> Any:
    model = tiny_model(seed=2, num_labels=1, num_hidden_layers=1)
    items = texts(30, 4)
    noise = np.random.default_rng(0).normal(0, 0.02, len(items))
    values = logits_of(model, items)[:, 0] + noise
    rows = [{"text": t, "text_pair": None, "label": float(v)} for t, v in zip(items, values, strict=True)]
    checkpoint = save_checkpoint(folder / "checkpoint", model, None, rows)
    report = export_checkpoint(checkpoint, folder / "exported", ExportOptions(threads=1, force=True))
    return SimpleNamespace(checkpoint=checkpoint, output=folder / "exported", report=report, model=model, rows=rows)
