"""The options, checkpoints and rows of training runs in; whether two are the same, and what is other, out.

Serves `plan.py`, `job.py` and `results.py`. A checkpoint is what its files hold, wherever it lies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from squeezebert.data.glue import GLUE

MODEL = "model"
DIGEST = "_digest"
# What changes how a run goes about it, and not what comes of it
_HARMLESS = frozenset({"report_to", "cache_teacher", "cache_gigabytes"})
_CHECKPOINTS = ("checkpoint", "teacher")
# OUTPUT / model / recipe / task / run / "model"
_DEPTH = 5
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
_SHOWN = 3

# What of two runs is told as other where it cannot be named by an option
OTHER_ROWS = "the rows of the task are others"

_digests: dict[tuple[str, int, int], bytes] = {}


def checkpoint_digest(name: str) -> str | None:
    """Return a hash of a checkpoint's weights, configuration and tokenizer; of one on the Hub, its commit.

    A file is read once a process while its size and time stay. None where nothing tells.
    """
    folder = Path(name)
    if not folder.is_dir():
        from transformers.utils.hub import cached_file

        try:
            config = cached_file(name, "config.json")
        except OSError:
            return None
        return f"commit {Path(config).parent.name}" if config else None
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    others = [folder / "config.json", *(folder / file for file in _TOKENIZER), *sorted(folder.glob("*.model"))]
    digest = hashlib.sha256()
    for path in [*weights, *others]:
        if path.is_file():
            digest.update(path.name.encode())
            digest.update(_file_digest(path))
    return digest.hexdigest()


def _file_digest(path: Path) -> bytes:
    told = path.stat()
    key = str(path.resolve()), told.st_size, told.st_mtime_ns
    if key not in _digests:
        with path.open("rb") as stream:
            _digests[key] = hashlib.file_digest(stream, "sha256").digest()
    return _digests[key]


def recorded_name(name: str, output: Path) -> str:
    """Return a checkpoint's name as a result tells it: a trained model in `output` by its place there."""
    place, root = Path(name).resolve(), output.resolve()
    inside = place.relative_to(root) if root in place.parents else None
    return name if inside is None or not _is_trained(inside.parts) else inside.as_posix()


def place_of(name: str, output: Path) -> Path:
    """Return where a recorded checkpoint is; one of `output` is there, wherever that was when it was recorded."""
    path = Path(name)
    inside = output.joinpath(*path.parts[-_DEPTH:])
    if _is_trained(path.parts[-_DEPTH:]) and (inside.exists() or not path.exists()):
        moved = len(path.parts) == _DEPTH or not path.exists()
        if moved or path.resolve() == inside.resolve():
            return inside.resolve()
    return path.resolve()


def is_inside(name: str, output: Path) -> bool:
    """Whether a recorded checkpoint is a trained model of `output`."""
    place = place_of(name, output)
    return place.name == MODEL and output.resolve() in place.parents


def _is_trained(parts: Sequence[str]) -> bool:
    return len(parts) == _DEPTH and parts[-1] == MODEL and parts[2] in GLUE


def differences(
    there: dict[str, Any], told: dict[str, Any], output: Path, without: Collection[str] = frozenset()
) -> list[str]:
    """Return what of a run's options is other than it was; an option that there was not then is as it was."""
    other = []
    for name, value in told.items():
        before = there.get(name, value)
        if name in _HARMLESS or name in without or name.endswith(DIGEST):
            continue
        if isinstance(value, dict) and isinstance(before, dict):
            other += differences(before, value, output)
        elif name == "distil" and (value is None) != (before is None):
            other.append("distilled, now not" if value is None else "not distilled, now it is")
        elif name in _CHECKPOINTS:
            other += _other_checkpoint(name, there, told, output)
        elif before != value:
            other.append(f"{name} {before}, now {value}")
    return other


def _other_checkpoint(name: str, there: dict[str, Any], told: dict[str, Any], output: Path) -> list[str]:
    """What is other of a checkpoint: by what its files hold, and by its place where that was not recorded."""
    before, value = there.get(name, told[name]), told[name]
    digests = [run.get(name + DIGEST) for run in (there, told)]
    same_place = before == value or place_of(before, output) == place_of(value, output)
    if not all(digests):
        return [] if same_place else [f"{name} {before}, now {value}"]
    if digests[0] == digests[1]:
        return []
    if same_place:
        return [f"{name} {value} has other weights, configuration or tokenizer now"]
    return [f"{name} {before}, now {value}, which holds something else"]


def group_differences(one: dict[str, Any], other: dict[str, Any], output: Path) -> list[str]:
    """Return what two runs of one model, recipe and task differ in, beside what a grid varies.

    Each is as `result.json` has it, with `options`, `data` and `dropout`.
    """
    varied = {"learning_rate", "seed"}
    if one.get("dropout") is not None or other.get("dropout") is not None:
        varied.add("dropout")  # part of the grid; a fixed one is an option as others are
    found = differences(one.get("options") or {}, other.get("options") or {}, output, varied)
    rows = [run.get("data") for run in (one, other)]
    return found + [OTHER_ROWS] * (all(rows) and rows[0] != rows[1])


def told_apart(kinds: Sequence[dict[str, Any]]) -> list[str]:
    """Return a few words for each of several runs that say what distinguishes it from the others."""
    rows = [{"rows": str(kind["data"])[:6]} if kind.get("data") else {} for kind in kinds]
    flat = [one | _flat(kind.get("options") or {}) for one, kind in zip(rows, kinds, strict=True)]
    varied = {
        "learning_rate",
        "seed",
        *(["dropout"] if any(kind.get("dropout") is not None for kind in kinds) else []),
    }
    others = [name for name in dict.fromkeys(name for one in flat for name in one) if len(_values(flat, name)) > 1]
    others = [name for name in others if name not in varied | _HARMLESS]
    names: list[str] = []
    for name in others:  # first of all those that are needed to tell them apart
        if len(set(_labels(flat, [*names, name]))) > len(set(_labels(flat, names))):
            names.append(name)
    names += [name for name in others if name not in names][: max(0, _SHOWN - len(names))]
    labels: list[str] = []
    for place, label in enumerate(_labels(flat, names)):
        labels.append(f"{label}, {place + 1}" if label in labels else label)
    return labels


def _labels(flat: Sequence[dict[str, str]], names: Sequence[str]) -> list[str]:
    return [", ".join(f"{name} {one[name]}" for name in names if name in one) or "other options" for one in flat]


def _values(flat: Sequence[dict[str, str]], name: str) -> set[str]:
    return {one[name] for one in flat if name in one}


def _flat(options: dict[str, Any]) -> dict[str, str]:
    found = {}
    for name, value in options.items():
        if name.endswith(DIGEST):
            continue
        if name == "distil":
            found["distilled"] = "no" if value is None else "yes"
            found |= _flat(value or {})
        elif name in _CHECKPOINTS:
            found[name] = told_checkpoint(value, options.get(name + DIGEST))
        else:
            found[name] = str(value)
    return found


def told_checkpoint(name: str, digest: str | None) -> str:
    """Return a checkpoint's name with the beginning of its hash."""
    return name if digest is None else f"{name} ({digest.removeprefix('commit ')[:6]})"
