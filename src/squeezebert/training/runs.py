"""A training run's folder: where it saves, whose it is, and the newest save to go on from.

Serves `finetune.py` and `general.py`. A killed run goes on where it was when the same call is made again.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from squeezebert.files.errors import FolderError

PROGRESS_FOLDER = ".training"
MARKER = "fingerprint"


def latest_save(work: Path) -> str | None:
    """Return the newest complete save of a run, or None; what a kill left half written is deleted.

    Trainer writes its state last: a save without a readable one is incomplete.
    """
    saves = sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for save in saves:
        try:
            json.loads((save / "trainer_state.json").read_text(encoding="utf-8"))
            with safe_open(save / "model.safetensors", framework="pt") as weights:
                weights.keys()
        except (OSError, ValueError, SafetensorError):
            shutil.rmtree(save)
        else:
            return str(save)
    return None


def add_model(digest: Any, model: Any) -> None:
    """Add a model's configuration and weights to a hash: the same name may have others after a kill."""
    told = model.config.to_dict()
    told.pop("_name_or_path", None)  # where it lies, which may be elsewhere now
    digest.update(json.dumps(told, sort_keys=True, default=str).encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def begin(work: Path, fingerprint: str) -> None:
    """Mark the folder as this run's; saves of another run (they were allowed to go) are deleted."""
    marker = work / MARKER
    there = marker.read_text() if marker.exists() else None
    if there == fingerprint:
        return  # written again, a kill in between would leave saves that are nobody's
    if there is not None or any(work.glob("checkpoint-*")):  # saves without a mark: deleting them was cut off
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    part = work / f".{MARKER}.new"
    part.write_text(fingerprint)
    part.replace(marker)


def check_output(output: Path, fingerprint: str, record: str, overwrites: bool = True) -> None:
    """Accept a folder that is new, empty, or that of the same run cut off; `record` is the file a finished one has.

    `overwrites` is whether the verb has an option that replaces a folder. Raises `FolderError` for any other.
    """
    work = output / PROGRESS_FOLDER
    way = "choose another --output, or --overwrite it" if overwrites else "choose another --output, or delete it"
    if output.is_file():
        raise FolderError(f"{output} is a file; --output takes a folder")
    if (output / record).exists():
        raise FolderError(f"{output} holds a finished model already: {way}")
    if output.is_dir() and not work.is_dir() and any(output.iterdir()):
        raise FolderError(f"{output} is not empty and holds no training run: choose another --output")
    marker = work / MARKER
    if marker.exists() and marker.read_text() != fingerprint and latest_save(work) is not None:
        raise FolderError(
            f"{output} holds a run that was cut off, with other data or options: repeat its command to finish it, "
            f"{way}"
        )


def save_model(folder: Path, model: Any, tokenizer: Any) -> None:
    """Write a model and its tokenizer. Raises `OSError` where the disk is full."""
    try:
        model.save_pretrained(folder)
    except SafetensorError as error:  # which has the system's error as text alone
        raise OSError(errno.ENOSPC if "os error 28" in str(error) else errno.EIO, str(error)) from error
    tokenizer.save_pretrained(folder)
    # safetensors makes its files readable by their owner alone, whatever the umask says
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o666 & ~umask)


def first_line(error: Exception) -> str:
    """Return the first line of an exception's message, or its kind where it has none."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


@contextmanager
def dropout_of(model: torch.nn.Module, dropout: float) -> Iterator[None]:
    """Run a block with another dropout in every layer; the model's configuration keeps its own."""
    layers = [(module, module.p) for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    try:
        for module, _ in layers:
            module.p = dropout
        yield
    finally:
        for module, before in layers:
            module.p = before
