"""What a finished run leaves beside the weights: the record and the evaluation rows that export verifies on.

`squeezebert.json` says task, labels, limits, calibration and results; `evaluation.jsonl` holds the held-out rows.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file

from squeezebert import __version__
from squeezebert.data.calibration import Calibration
from squeezebert.data.examples import Example, LabelledData
from squeezebert.training.options import FinetuneOptions
from squeezebert.training.stepping import MILESTONES, STEP

RECORD = "squeezebert.json"
EVALUATION = "evaluation.jsonl"
FORMAT = 1
# What trained, squeezed and pruned models are made of; nothing else in their folders is ours to delete
_WRITTEN = frozenset(
    [
        *(RECORD, EVALUATION, "README.md", "config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt"),
        *("squeeze.json", "healing.json", "healing.jsonl", "prune.json", "sentence_bert_config.json"),
    ]
)
# How an encoder makes a text's vector and how much of the text it reads, as sentence-transformers keeps it
_EMBEDS = ("1_Pooling/config.json", "sentence_bert_config.json")


def write_record(
    output: Path,
    data: LabelledData,
    options: FinetuneOptions,
    max_length: int,
    metrics: dict[str, float],
    calibration: Calibration,
    command: str,
    base: str,
    distil: dict[str, Any] | None,
    course: Sequence[Mapping[str, float]],
) -> None:
    """Write the evaluation rows, then the record; a folder with a record is complete.

    `distil` is how it was distilled and from which teacher, if it was; `course` are the scores on the way.
    """
    rows = (_row(example) for example in data.evaluation)
    _replace(output / EVALUATION, (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    record = {
        "format": FORMAT,
        "task": data.task,
        "labels": list(data.labels),
        "max_length": max_length,
        "text_columns": {"text": data.columns.text, "text_pair": data.columns.text_pair},
        "calibration": asdict(calibration),
        "thresholds": calibration.thresholds,
        "metrics": metrics,
        "course": list(course),
        "base": base,
        "command": command,
        "options": asdict(options),
        "distil": distil,
        "data": data.report.to_dict(),
        "squeezebert_version": __version__,
    }
    _replace(output / RECORD, [json.dumps(record, indent=2, ensure_ascii=False) + "\n"])


def carry_pooling(base: str, output: Path) -> None:
    """Copy what says how an encoder embeds, where `base`, a folder or a Hub id, has it beside its weights."""
    for name in _EMBEDS:
        optional = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
        found = cached_file(base, name, **optional)
        if found is not None:
            (output / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found, output / name)


def clear_checkpoint(folder: Path) -> None:
    """Delete what earlier runs wrote into `folder`, milestones too, and nothing else."""
    milestones = folder / MILESTONES
    for place in (*milestones.glob(f"{STEP}*"), milestones, folder):
        for name in (*_WRITTEN, _EMBEDS[0]):
            (place / name).unlink(missing_ok=True)
        for emptied in (place / Path(_EMBEDS[0]).parent, place):
            if emptied != folder and emptied.is_dir() and not any(emptied.iterdir()):
                emptied.rmdir()


def foreign_files(folder: Path) -> list[str]:
    """Return what is in a model's folder that no run of ours wrote there, as paths below it."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name == MILESTONES and path.is_dir():
            for place in sorted(path.iterdir()):
                known = place.is_dir() and place.name.startswith(STEP)
                found += [one for one in place.iterdir() if not _is_ours(one)] if known else [place]
        elif not _is_ours(path):
            found.append(path)
    return [path.relative_to(folder).as_posix() for path in found]


def _is_ours(path: Path) -> bool:
    pooling = Path(_EMBEDS[0])
    if path.name == pooling.parent.name and path.is_dir():
        return {one.name for one in path.iterdir()} <= {pooling.name}
    return path.name in _WRITTEN


def _row(example: Example) -> dict[str, Any]:
    label = list(example.label) if isinstance(example.label, tuple) else example.label
    return {"text": example.text, "text_pair": example.text_pair, "label": label}


def _replace(path: Path, lines: Iterable[str]) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.writelines(lines)
    part.replace(path)
