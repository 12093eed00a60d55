"""`manifest.json`, which says what an exported folder is: task, labels, files with checksums, what was verified.

In: the facts an export found. Out: the same facts, checked, for the runtime and whoever measures or publishes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast

from squeezebert.files.errors import FolderError

MANIFEST = "manifest.json"
# The layout that this program reads up to; files of the tasks of format 1 are written in it
FORMAT = 3
TASKS = ("single_label", "multi_label", "regression", "embedding", "masked-lm", "token-labels")
PRECISIONS = ("fp32", "int8")

Task = Literal["single_label", "multi_label", "regression", "embedding", "masked-lm", "token-labels"]
Precision = Literal["fp32", "int8"]


@dataclass(frozen=True)
class ExportedFile:
    """One file of an exported folder."""

    path: str
    """relative to the folder, with forward slashes"""
    bytes: int
    """size"""
    sha256: str
    """checksum of the content, in hexadecimal"""


@dataclass(frozen=True)
class ModelFile(ExportedFile):
    """One precision of the model."""

    quantisation: str
    """what was made of the weights and when the activations are quantised; "none" for fp32"""
    form: str
    """how the graph writes grouped layers down"""
    disabled_optimizers: tuple[str, ...]
    """ONNX Runtime graph optimisers that must be off for the measured speed"""
    batch_invariant: bool
    """whether a text's answer is independent of the texts it shares a batch with"""


@dataclass(frozen=True)
class Verification:
    """What the exported model answered, next to the reference: torch for fp32, fp32 for int8."""

    rows: int
    """how many texts were compared"""
    source: str
    """where the texts came from"""
    max_difference: float
    """largest difference of a probability (of the value, in regression) against torch"""
    agreement: float
    """labels that agree with the reference, 0 to 1; in regression the Pearson correlation of the two outputs"""
    metric: str
    """what `accuracy` measures"""
    accuracy: float | None = None
    """on the labelled rows, 0 to 1 (-1 to 1 for a correlation)"""
    accuracy_interval: tuple[float, float] | None = None
    """95 % interval of `accuracy`"""
    drop: float | None = None
    """accuracy lost against fp32, in points (accuracy x 100); int8 only"""
    drop_interval: tuple[float, float] | None = None
    """95 % interval of `drop`, rows paired"""
    reason: str | None = None
    """why there is no accuracy"""
    refused: str | None = None
    """why the file was not accepted; it is in the folder only if `forced`"""
    forced: bool = False
    """the file was written although it was refused"""
    warnings: tuple[str, ...] = ()
    """what the rows could not decide"""
    loss: float | None = None
    """mean cross-entropy at the hidden words, in nats; masked-lm on evaluation rows only"""
    loss_rise: float | None = None
    """by how much `loss` exceeds that of fp32; int8 only"""
    loss_rise_interval: tuple[float, float] | None = None
    """95 % interval of `loss_rise`, texts paired"""


@dataclass(frozen=True)
class Sample:
    """A built-in text and the answer the export got for it, so that any device can be checked against it."""

    text: str
    """the text"""
    text_pair: str | None
    """its second text, for a model of pairs"""
    expected: Mapping[str, tuple[float, ...]]
    """precision -> probabilities in the order of the labels (the value, in regression); of token-labels those of each
    word and sign in turn"""
    words: tuple[int, ...] = ()
    """masked-lm: ids of the pieces whose probabilities at the text's [MASK] are expected"""


@dataclass(frozen=True)
class Manifest:
    """What an exported folder holds."""

    task: Task
    """what is answered: one label, any number of labels, a number, a vector that says what a text is about, what
    stands behind a mask, or a label for each token"""
    labels: tuple[str, ...]
    """in the order of the model's outputs; empty for regression, embedding and masked-lm"""
    max_length: int
    """longest input in tokens, special ones included"""
    pair: bool | None
    """whether the model reads two texts; None when the checkpoint did not say"""
    token_types: bool
    """whether the second text is marked by token type 1"""
    temperature: float
    """what logits are divided by before they become probabilities"""
    thresholds: tuple[float, ...] | None
    """multi-label: the probability from which on each label is given; token-labels: the probability that it is not the
    first label, from which on each of the others is given; None means 0.5 for all"""
    files: Mapping[str, ModelFile]
    """precision -> model"""
    tokenizer: ExportedFile
    """the tokenizer that reads the text"""
    versions: Mapping[str, str]
    """package -> version, as of the export"""
    verification: Mapping[str, Verification]
    """precision -> what was verified before the folder was written, for a refused precision too"""
    samples: tuple[Sample, ...]
    """texts with known answers, for a check on the device"""
    source: str
    """name of the checkpoint folder"""
    engine: str = "onnxruntime"
    """what runs the files"""
    latency: tuple[Mapping[str, Any], ...] = ()
    """measurements added after the export, one record each"""
    format: int = 1
    """version of this file's layout"""
    dimension: int | None = None
    """numbers of a vector of an embedding; pieces of the vocabulary of a masked-lm; None for other tasks"""
    dictionary: ExportedFile | None = None
    """words with their counts, for suggestions of a marker of words"""
    calibrated_logits: bool = False
    """whether the files divide their logits by the temperature, so that any engine's softmax is calibrated"""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """anything else worth keeping"""

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest as plain JSON values."""
        return cast(dict[str, Any], _plain(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], place: str = MANIFEST) -> Manifest:
        """Return the manifest that `data` holds; `place` names it in messages.

        Raises `FolderError` for a newer format and for a field that is missing or of the wrong kind.
        """
        found = data.get("format")
        if not isinstance(found, int) or isinstance(found, bool):
            raise FolderError(f"{place}: no format version; it was not written by `squeezebert export`")
        if found > FORMAT:
            raise FolderError(
                f"{place}: format {found}, and this squeezebert reads up to {FORMAT}: update squeezebert"
            )
        try:
            values = {f.name: data[f.name] for f in dataclasses.fields(cls) if f.name in data}
            values["labels"] = tuple(data["labels"])
            values["thresholds"] = None if data["thresholds"] is None else tuple(map(float, data["thresholds"]))
            values["temperature"] = float(data["temperature"])
            values["files"] = {k: _build(ModelFile, v) for k, v in data["files"].items()}
            values["tokenizer"] = _build(ExportedFile, data["tokenizer"])
            if data.get("dictionary") is not None:
                values["dictionary"] = _build(ExportedFile, data["dictionary"])
            values["verification"] = {k: _build(Verification, v) for k, v in data["verification"].items()}
            values["samples"] = tuple(_build(Sample, v) for v in data["samples"])
            values["latency"] = tuple(data.get("latency", ()))
            manifest = cls(**values)
            manifest._check()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            cause = f"no field {error}" if isinstance(error, KeyError) else str(error)
            raise FolderError(f"{place}: damaged or incomplete ({cause}); export the checkpoint again") from error
        return manifest

    def _check(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"task {self.task!r} is none of {', '.join(TASKS)}")
        if not all(isinstance(label, str) for label in self.labels):
            raise ValueError("labels must be text")
        if (self.task in ("regression", "embedding", "masked-lm")) != (not self.labels):
            raise ValueError(f"{len(self.labels)} labels for {self.task}")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("two labels have the same name")
        sized = self.task in ("embedding", "masked-lm")
        if sized != (isinstance(self.dimension, int) and self.dimension > 0):
            raise ValueError(f"dimension {self.dimension!r} for {self.task}")
        if self.thresholds is not None and len(self.thresholds) != len(self.labels):
            raise ValueError(f"{len(self.thresholds)} thresholds for {len(self.labels)} labels")
        if not all(0 <= threshold <= 1 for threshold in self.thresholds or ()):
            raise ValueError(f"thresholds {self.thresholds}, which are no probabilities")
        if not isinstance(self.max_length, int) or self.max_length < 1:
            raise ValueError(f"max_length {self.max_length!r}")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature {self.temperature!r}")
        if not self.files or not set(self.files) <= set(PRECISIONS):
            raise ValueError(f"model files for {sorted(self.files)}, expected {' or '.join(PRECISIONS)}")
        for file in (*self.files.values(), self.tokenizer, *([self.dictionary] if self.dictionary else [])):
            path = PurePosixPath(file.path)
            if path.is_absolute() or ".." in path.parts or "\\" in file.path or ":" in file.path:
                raise ValueError(f"file {file.path!r} lies outside the folder")


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an exported folder.

    Raises `FolderError` saying what is missing, damaged or newer than this program, and the way out.
    """
    path = folder / MANIFEST
    if not folder.exists():
        raise FolderError(f"{folder}: no such folder")
    if not folder.is_dir():
        raise FolderError(f"{folder}: a file; name the exported folder it lies in")
    if not path.is_file():
        if (folder / "config.json").is_file() and not (folder / "onnx").is_dir():
            raise FolderError(
                f"{folder}: a checkpoint, not an exported folder; run `squeezebert export {folder}` first"
            )
        raise FolderError(f"{folder}: not an exported folder: it has no {MANIFEST}")
    data = read_json(path)
    if not isinstance(data, dict):
        raise FolderError(f"{path}: damaged: not a JSON object; export the checkpoint again")
    return Manifest.from_dict(data, str(path))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest` into `folder`, over an older one; a kill leaves the old or the new one, never half of one."""
    text = json.dumps(manifest.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    unfinished = folder / f"{MANIFEST}.part"
    # A lone surrogate in a label cannot be UTF-8; JSON's own escape for it can
    unfinished.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    unfinished.replace(folder / MANIFEST)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file. Raises `FolderError` naming the file when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FolderError(f"{path}: damaged: cannot be read as JSON ({error})") from error


def describe_file(folder: Path, path: str) -> ExportedFile:
    """Return size and checksum of the file at `path`, relative to `folder`."""
    return ExportedFile(path, (folder / path).stat().st_size, sha256(folder / path))


def check_file(folder: Path, file: ExportedFile, checksum: bool = True) -> Path:
    """Return the full path of `file` after checking that it is there and unchanged.

    `checksum=False` compares the size only. Raises `FolderError` naming the file.
    """
    path = folder / file.path
    if not path.is_file():
        raise FolderError(f"{path}: missing; copy the whole exported folder, or export the checkpoint again")
    if path.stat().st_size != file.bytes or (checksum and sha256(path) != file.sha256):
        raise FolderError(
            f"{path}: not the file that was exported (size or checksum differs from {MANIFEST}): "
            "copy it again, or export the checkpoint again"
        )
    return path


def sha256(path: Path) -> str:
    """Return the SHA-256 checksum of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _build(kind: type[Any], data: Mapping[str, Any]) -> Any:
    """Return a dataclass from its JSON object: unknown fields are left out, lists become tuples."""
    known = {f.name for f in dataclasses.fields(kind)}
    return kind(**{key: _tuples(value) for key, value in data.items() if key in known})


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    return {key: _tuples(item) for key, item in value.items()} if isinstance(value, dict) else value
