"""The engine of the page: npm packages at the versions of package-lock.json in, the files that the page loads out.

Nothing of it is in this package: its WebAssembly is larger than all else. npm brings it once, and it is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from squeezebert.files.atomic import new_folder
from squeezebert.files.errors import DependencyError, FolderError
from squeezebert.files.manifest import describe_file, read_json

_HERE = Path(__file__).parent
_LISTS = ("package.json", "package-lock.json")
_RUNTIME, _TOKENIZERS = "onnxruntime-web", "@huggingface/tokenizers"
# A registry that does not answer ends in an error, not in a wait without end
_SECONDS = 900
# Of a kept engine's files, written when they come
_CHECKSUMS = "checksums.json"

# What the page loads at once, and what it loads when WebGPU is chosen: file of a package -> its name in the page's
# folder. Some servers know no .mjs, and browsers run no script of an unknown type
CPU_FILES = {
    f"{_TOKENIZERS}/dist/tokenizers.min.mjs": "tokenizers.js",
    f"{_RUNTIME}/dist/ort.wasm.min.mjs": "ort.wasm.js",
    f"{_RUNTIME}/dist/ort-wasm-simd-threaded.mjs": "ort-wasm-simd-threaded.js",
    f"{_RUNTIME}/dist/ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
}
GPU_FILES = {
    f"{_RUNTIME}/dist/ort.webgpu.min.mjs": "ort.webgpu.js",
    f"{_RUNTIME}/dist/ort-wasm-simd-threaded.asyncify.mjs": "ort-wasm-simd-threaded.asyncify.js",
    f"{_RUNTIME}/dist/ort-wasm-simd-threaded.asyncify.wasm": "ort-wasm-simd-threaded.asyncify.wasm",
}
_LICENCES = (f"{_TOKENIZERS}/LICENSE",)


def engine_versions() -> dict[str, str]:
    """Return the exact version of each npm package that the page runs on."""
    return dict(read_json(_HERE / "package.json")["dependencies"])


def find_engine(folder: Path | None, report: Callable[[str], None]) -> Path:
    """Return a folder of the packages: `folder` (a node_modules folder, or where one lies), else npm's, kept.

    Raises `FolderError` where `folder` has not the files or other versions, and `DependencyError` where npm is needed
    and is missing or fails.
    """
    if folder is not None:
        inner = folder / "node_modules"
        return _checked(inner if inner.is_dir() else folder)
    kept = _cache() / f"engine-{_digest()}"
    try:
        return _unchanged(_checked(kept))
    except FolderError:
        _fetch(kept, report)
    return _checked(kept)


def copy_engine(engine: Path, target: Path, files: dict[str, str]) -> None:
    """Copy `files` of the packages in `engine` into the folder `target`, with a note of versions and licences."""
    target.mkdir(parents=True, exist_ok=True)
    for path, name in files.items():
        shutil.copyfile(engine / path, target / name)
    lines = []
    for package, version in engine_versions().items():
        about = read_json(engine / package / "package.json")
        lines.append(f"{package} {version}, licence {about.get('license', 'unknown')}")
    texts = [(engine / path).read_text(encoding="utf-8") for path in _LICENCES if (engine / path).is_file()]
    (target / "LICENCES.txt").write_text("\n".join([*lines, "", *texts]), encoding="utf-8")


def _checked(engine: Path) -> Path:
    """Return `engine` after checking that it has the files, of the versions that the page was made for."""
    for package, version in engine_versions().items():
        about = engine / package / "package.json"
        if not about.is_file():
            raise FolderError(f"{engine}: no {package} there; make it with: {_install_command()}")
        found = read_json(about).get("version")
        if found != version:
            raise FolderError(
                f"{engine}: {package} {found}, and the page runs on {version}; make it with: {_install_command()}"
            )
    missing = [path for path in (*CPU_FILES, *GPU_FILES) if not (engine / path).is_file()]
    if missing:
        raise FolderError(f"{engine}: {missing[0]} is missing; make it with: {_install_command()}")
    return engine


def _unchanged(engine: Path) -> Path:
    """Return a kept engine after checking that its files are those that npm brought."""
    for path, checksum in read_json(engine / _CHECKSUMS).items():
        if describe_file(engine, path).sha256 != checksum:
            raise FolderError(f"{engine}: {path} is not the file that npm brought")
    return engine


def _install_command() -> str:
    return "npm install " + " ".join(f"{name}@{version}" for name, version in engine_versions().items())


def _fetch(kept: Path, report: Callable[[str], None]) -> None:
    """Have npm bring the packages, checked against the lock file, and keep what the page loads in `kept`."""
    npm = shutil.which("npm")
    if npm is None:
        raise DependencyError(
            "the page's engine comes from npm, which is not installed: install Node.js (with npm), or on another "
            f"machine run `{_install_command()}` and name the folder here: --engine-dir node_modules"
        )
    report(f"fetching the page's engine with npm, once: {', '.join(map(' '.join, engine_versions().items()))}")
    with tempfile.TemporaryDirectory() as work, new_folder(kept) as building:
        for name in _LISTS:
            shutil.copyfile(_HERE / name, Path(work) / name)
        _run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], Path(work))
        modules = Path(work) / "node_modules"
        abouts = [f"{package}/package.json" for package in engine_versions()]
        for path in (*abouts, *_LICENCES, *CPU_FILES, *GPU_FILES):
            if not (modules / path).is_file():
                raise DependencyError(f"npm brought no {path}: update squeezebert")
            (building / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(modules / path, building / path)
        checksums = {path: describe_file(building, path).sha256 for path in (*CPU_FILES, *GPU_FILES)}
        (building / _CHECKSUMS).write_text(json.dumps(checksums, indent=1), encoding="utf-8")


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, encoding="utf-8", errors="replace", timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DependencyError(f"npm did not end within {_SECONDS} s: is its registry reached from here?") from error
    except OSError as error:
        raise DependencyError(f"npm cannot be run ({error})") from error
    if done.returncode:
        told = [line for line in done.stderr.splitlines() if line.strip() and "complete log" not in line][:4]
        raise DependencyError(
            f"npm could not fetch the page's engine ({' / '.join(told) or f'status {done.returncode}'}): mend that, "
            f"run this again, or on another machine run `{_install_command()}` and name the folder: --engine-dir"
        )


def _cache() -> Path:
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "squeezebert"


def _digest() -> str:
    told = hashlib.sha256(json.dumps([*CPU_FILES, *GPU_FILES]).encode())
    for name in _LISTS:
        told.update((_HERE / name).read_bytes())
    return told.hexdigest()[:16]
