"""The manifest of an exported folder: written, read back, and refused with a reason when it is not usable."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from squeezebert.files.errors import FolderError
from squeezebert.files.manifest import (
    FORMAT,
    MANIFEST,
    Manifest,
    ModelFile,
    Sample,
    Verification,
    check_file,
    describe_file,
    read_manifest,
    sha256,
    write_manifest,
)


@pytest.fixture
def manifest(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.onnx").write_bytes(b"weights")
    model = describe_file(tmp_path, "model.onnx")
    return Manifest(
        task="multi_label",
        labels=("a", "bé\ud800"),
        max_length=64,
        pair=None,
        token_types=True,
        temperature=1.25,
        thresholds=(0.5, 0.25),
        files={"fp32": ModelFile(model.path, model.bytes, model.sha256, "none", "form", ("Fusion",), True)},
        tokenizer=describe_file(tmp_path, "tokenizer.json"),
        versions={"torch": "2.13.0"},
        verification={
            "fp32": Verification(3, "evaluation rows", 1e-7, 1.0, "accuracy", 0.9, (0.8, 0.95), warnings=("w",))
        },
        samples=(Sample("text", None, {"fp32": (0.25, 0.75)}),),
        source="checkpoint",
        latency=({"tokens": 128, "milliseconds": 7.0},),
    )


def test_round_trip(tmp_path, manifest):
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert not (tmp_path / f"{MANIFEST}.part").exists()


def test_unknown_fields_are_left_out(tmp_path, manifest):
    data = manifest.to_dict()
    data["later"] = data["files"]["fp32"]["later"] = 1
    (tmp_path / MANIFEST).write_text(json.dumps(data))
    assert read_manifest(tmp_path) == manifest


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"format": FORMAT + 1}, "update squeezebert"),
        ({"format": None}, "no format version"),
        ({"task": "translation"}, "task 'translation'"),
        ({"labels": ["a", "a"]}, "same name"),
        ({"labels": ["a", 1]}, "labels must be text"),
        ({"labels": []}, "0 labels"),
        ({"thresholds": [0.5]}, "1 thresholds for 2 labels"),
        ({"thresholds": [0.5, float("nan")]}, "which are no probabilities"),
        ({"thresholds": [-0.1, 0.5]}, "which are no probabilities"),
        ({"temperature": 0}, "temperature"),
        ({"max_length": "long"}, "max_length"),
        ({"files": {}}, "model files"),
        ({"tokenizer": {"path": "../secret", "bytes": 1, "sha256": ""}}, "outside the folder"),
        ({"tokenizer": {"path": "tokenizer.json"}}, "damaged or incomplete"),
        ({"samples": [1]}, "damaged or incomplete"),
    ],
)
def test_unusable_manifests_are_refused(tmp_path, manifest, change, cause):
    (tmp_path / MANIFEST).write_text(json.dumps({**manifest.to_dict(), **change}))
    with pytest.raises(FolderError, match=cause) as caught:
        read_manifest(tmp_path)
    assert MANIFEST in str(caught.value)


@pytest.mark.parametrize("field", ["task", "labels", "files", "tokenizer", "samples", "verification", "versions"])
def test_missing_fields_are_named(tmp_path, manifest, field):
    data = manifest.to_dict()
    del data[field]
    (tmp_path / MANIFEST).write_text(json.dumps(data))
    with pytest.raises(FolderError, match=field):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "null", "[" * 100_000, "\x00"])
def test_damaged_json_is_refused(tmp_path, content):
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(FolderError, match="damaged"):
        read_manifest(tmp_path)


def test_other_folders_are_told_apart(tmp_path):
    with pytest.raises(FolderError, match="no such folder"):
        read_manifest(tmp_path / "absent")
    with pytest.raises(FolderError, match="not an exported folder"):
        read_manifest(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FolderError, match="squeezebert export"):
        read_manifest(tmp_path)
    with pytest.raises(FolderError, match="a file"):
        read_manifest(tmp_path / "config.json")


def test_changed_files_are_found(tmp_path, manifest):
    file = manifest.files["fp32"]
    path = tmp_path / "model.onnx"
    assert check_file(tmp_path, file) == path
    assert file.sha256 == sha256(path)
    path.write_bytes(b"Weights")
    with pytest.raises(FolderError, match=r"model\.onnx"):
        check_file(tmp_path, file)
    assert check_file(tmp_path, file, checksum=False) == path
    path.write_bytes(b"weight")
    with pytest.raises(FolderError, match=r"model\.onnx"):
        check_file(tmp_path, file, checksum=False)
    path.unlink()
    with pytest.raises(FolderError, match="missing"):
        check_file(tmp_path, file)


def test_numbers_that_json_lacks_are_not_written(tmp_path, manifest):
    with pytest.raises(ValueError, match="JSON"):
        write_manifest(tmp_path, replace(manifest, notes={"loss": float("nan")}))
    assert not (tmp_path / MANIFEST).exists()
