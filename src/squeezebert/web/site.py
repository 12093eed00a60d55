"""An exported folder and the page's engine in, a folder out that any web server can hand to visitors as it is."""

from __future__ import annotations

import errno
import hashlib
import html
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from squeezebert.files.atomic import new_folder
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.files.manifest import Manifest, Precision, check_file, describe_file, read_manifest
from squeezebert.runtime.predictor import TOLERANCE
from squeezebert.runtime.tokens import Tokenizer
from squeezebert.web.characters import character_table
from squeezebert.web.engine import CPU_FILES, GPU_FILES, copy_engine, engine_versions

SITE = "site.json"
# The layout of site.json
FORMAT = 1
# The page takes files from its own server alone, runs no script of another origin and none written into the page, and
# sends no form. Frames are not restricted: the page may be embedded
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
    "style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Pages that are isolated embed only what says that it may be
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# Texts on which a browser shows whether it reads as the runtime does
TOKEN_CHECKS = (
    "The bank raised its rates, didn't it?",
    "Crème brûlée, ΑΣΦΑΛΩΣ, İstanbul, straße",
    "東京タワー 漢字𠀀 한국어",
    "مرحبا بالعالم שלום नमस्ते",
    "🙂👍🏽 a\u200db\u00a0c\u2028d\ufeffe",
    "[SEP] and [MASK] \x00\x01 " + "x" * 101,
)

# And so many of the vocabulary's added tokens at the most
_ADDED_CHECKS = 32

_STATIC = Path(__file__).parent / "static"
_MODELS: Mapping[Precision, str] = {"fp32": "model/model.onnx", "int8": "model/model_quantized.onnx"}
_WASM, _GPU_WASM = "ort-wasm-simd-threaded.wasm", "ort-wasm-simd-threaded.asyncify.wasm"


@dataclass(frozen=True)
class Site:
    """What was written."""

    folder: Path
    """the page"""
    bytes: Mapping[str, int]
    """what a visitor loads: the page with its engine, each model file, and the engine for WebGPU where asked for"""
    version: str
    """a hash of everything in it: equal versions, equal pages"""


def write_site(
    folder: Path,
    output: Path,
    engine: Path,
    *,
    title: str | None = None,
    precisions: tuple[Precision, ...] | None = None,
    webgpu: bool = True,
    overwrite: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Site:
    """Write the page of the exported model in `folder` to `output`, which appears whole or not at all.

    `engine` is what `find_engine` returned, `title` the page's heading (the checkpoint's name when None), `precisions`
    the model files that visitors get (None: all there are). Raises `FolderError` for a folder that is none, damaged or
    an encoder's, and an `output` that may not be replaced; `OptionError` for a precision that the folder has not.
    """
    manifest = check_model(folder)
    chosen = _choose(folder, manifest, precisions)
    check_output(output, overwrite)
    tokenizer = Tokenizer(check_file(folder, manifest.tokenizer), manifest.max_length, manifest.token_types)
    with _named(output), new_folder(output) as building:
        report("reading what the tokenizer makes of every character")
        table = character_table(folder / manifest.tokenizer.path)
        if table is None:
            report(
                f"warning: {folder} reads text otherwise than BERT does: the page leaves it to its library, and gives "
                "no answers where that reads some odd texts otherwise. Open it once, and see"
            )
        report("copying the page, its engine and the model")
        (building / "model").mkdir()
        shutil.copyfile(folder / manifest.tokenizer.path, building / "model/tokenizer.json")
        if table is not None:
            _write(building / "model/characters.json", json.dumps(table, ensure_ascii=False, separators=(",", ":")))
        for precision in chosen:
            source = check_file(folder, manifest.files[precision])
            shutil.copyfile(source, building / _MODELS[precision])
        copy_engine(engine, building / "engine", {**CPU_FILES, **(GPU_FILES if webgpu else {})})
        facts = _facts(building, manifest, tokenizer, chosen, webgpu)
        _write(building / SITE, json.dumps(facts, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
        version = _write_page(building, title or manifest.source or "A text model", facts)
        sizes: dict[str, int] = {precision: facts["files"][precision]["bytes"] for precision in chosen}
        gpu = facts["engine"]["gpu"]["wasm"]["bytes"] if webgpu else 0
        everything = sum(path.stat().st_size for path in building.rglob("*") if path.is_file())
        sizes = {"page and engine": everything - sum(sizes.values()) - gpu, **sizes}
        if gpu:
            sizes["engine for WebGPU"] = gpu
        check_output(output, overwrite)
    return Site(output, sizes, version)


def check_output(output: Path, overwrite: bool) -> None:
    """Raise `FolderError` where `output` may not be written: something else is there, or a page that is to stay."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not _is_page(output):
        raise FolderError(f"{output}: exists and is not a page of ours; it is left alone: choose another --output")
    if not overwrite:
        raise FolderError(f"{output}: a page is there already: choose another --output, or --overwrite it")
    ours = {SITE, "sw.js", "_headers", *(path.name for path in _STATIC.iterdir())}
    ours |= {*_MODELS.values(), "model/tokenizer.json", "model/characters.json", "engine/LICENCES.txt"}
    ours |= {f"engine/{name}" for name in (*CPU_FILES.values(), *GPU_FILES.values())}
    folders = {name.partition("/")[0] for name in ours if "/" in name}
    for path in sorted(output.rglob("*")):
        name = path.relative_to(output).as_posix()
        if name not in ours and not (name in folders and path.is_dir()):
            raise FolderError(
                f"{output}: {name} is no part of the page and would be lost: move it, or choose another --output"
            )


def check_model(folder: Path) -> Manifest:
    """Return what an exported folder holds. Raises `FolderError` for one that is none, or has no answers to show."""
    manifest = read_manifest(folder)
    if manifest.task == "embedding":
        raise FolderError(f"{folder}: an encoder, which gives no labels and no number: export a model that answers")
    if manifest.task in ("masked-lm", "token-labels"):
        raise FolderError(f"{folder}: a model of {manifest.task}, which gives a text no labels: export a classifier")
    return manifest


def _is_page(output: Path) -> bool:
    try:
        facts = json.loads((output / SITE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(facts, dict) and "format" in facts and "engine" in facts and (output / "sw.js").is_file()


@contextmanager
def _named(output: Path) -> Iterator[None]:
    """Name the output where it is full or in use: the system names the file that was copied, or a hidden folder."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EBUSY):
            raise
        busy = "; where it is a mount point, name a folder inside it" if error.errno == errno.EBUSY else ""
        raise FolderError(f"{output}: cannot be written ({error.strerror}){busy}") from error


def _choose(folder: Path, manifest: Manifest, wanted: tuple[Precision, ...] | None) -> tuple[Precision, ...]:
    held = tuple(precision for precision in _MODELS if precision in manifest.files)
    for precision in wanted or ():
        if precision not in held:
            raise OptionError(f"--precision {precision}: {folder} holds {' and '.join(held)}")
    return wanted or held


def _facts(
    building: Path, manifest: Manifest, tokenizer: Tokenizer, chosen: tuple[Precision, ...], webgpu: bool
) -> dict[str, Any]:
    """What the page has to know, for site.json."""
    versions = engine_versions()
    characters = building / "model/characters.json"
    return {
        "format": FORMAT,
        "task": manifest.task,
        "labels": list(manifest.labels),
        "thresholds": None if manifest.thresholds is None else list(manifest.thresholds),
        "temperature": manifest.temperature,
        "calibrated_logits": manifest.calibrated_logits,
        "pair": manifest.pair,
        "max_length": manifest.max_length,
        "token_types": manifest.token_types,
        "layouts": {"single": asdict(tokenizer.single), "pair": asdict(tokenizer.pair)},
        "source": manifest.source,
        "files": {precision: asdict(describe_file(building, _MODELS[precision])) for precision in chosen},
        "tokenizer": asdict(describe_file(building, "model/tokenizer.json")),
        "characters": asdict(describe_file(building, "model/characters.json")) if characters.is_file() else None,
        "engine": {
            "name": f"onnxruntime-web {versions['onnxruntime-web']}",
            "cpu": {
                "main": "engine/ort.wasm.js",
                "glue": "engine/ort-wasm-simd-threaded.js",
                "wasm": asdict(describe_file(building, f"engine/{_WASM}")),
            },
            "gpu": {
                "main": "engine/ort.webgpu.js",
                "glue": "engine/ort-wasm-simd-threaded.asyncify.js",
                "wasm": asdict(describe_file(building, f"engine/{_GPU_WASM}")),
            }
            if webgpu
            else None,
        },
        "samples": [
            {
                "text": sample.text,
                "text_pair": sample.text_pair,
                "expected": {p: list(sample.expected[p]) for p in chosen if p in sample.expected},
            }
            for sample in manifest.samples
        ],
        "tolerance": dict(TOLERANCE),
        "token_checks": [{"text": text, "ids": tokenizer.plain_ids(text)} for text in _token_checks(building)],
    }


def _token_checks(building: Path) -> list[str]:
    """Texts on which the page shows that it reads as the runtime does: odd ones, and with added tokens."""
    added = json.loads((building / "model/tokenizer.json").read_text(encoding="utf-8")).get("added_tokens") or []
    names = [token["content"] for token in added][:_ADDED_CHECKS]
    return [*TOKEN_CHECKS, *(f"{name} a{name}b c {name} {name.upper()} {name.lower()}, {name}" for name in names)]


def _large_files(facts: Mapping[str, Any]) -> list[str]:
    """Addresses of the files that the page keeps by their checksums."""
    engine = facts["engine"]
    files = [facts["tokenizer"], facts["characters"], *facts["files"].values(), engine["cpu"]["wasm"]]
    files.append(engine["gpu"]["wasm"] if engine["gpu"] else None)
    return [f"{file['path']}?sha256={file['sha256']}" for file in files if file is not None]


def _write_page(building: Path, title: str, facts: Mapping[str, Any]) -> str:
    """Write the page itself and its service worker; return the version, which changes with any file."""
    for path in sorted(_STATIC.iterdir()):
        if path.name != "sw.js":
            shutil.copyfile(path, building / path.name)
    page = (_STATIC / "index.html").read_text(encoding="utf-8")
    filled = page.replace("{{policy}}", html.escape(POLICY)).replace("{{title}}", html.escape(title))
    _write(building / "index.html", filled)
    lines = "".join(f"  {name}: {value}\n" for name, value in HEADERS.items())
    _write(building / "_headers", f"/*\n{lines}")
    large = _large_files(facts)
    gpu = facts["engine"]["gpu"]
    needed = [path for path in large if gpu is None or not path.startswith(gpu["wasm"]["path"])]
    kept_by_checksum = {path.partition("?")[0] for path in large}
    names = sorted(path.relative_to(building).as_posix() for path in building.rglob("*") if path.is_file())
    shell = {
        name: describe_file(building, name).sha256
        for name in names
        if name not in kept_by_checksum and name not in ("_headers", "engine/LICENCES.txt")
    }
    optional = [] if gpu is None else [gpu["main"], gpu["glue"]]
    worker = (_STATIC / "sw.js").read_text(encoding="utf-8")
    told = hashlib.sha256(worker.encode())
    told.update(json.dumps([shell, large]).encode())
    version = told.hexdigest()[:16]
    values = {
        "{{shell}}": shell,
        "{{optional}}": optional,
        "{{files}}": large,
        "{{needed}}": needed,
        "{{headers}}": HEADERS,
    }
    worker = worker.replace("{{version}}", version)
    for name, value in values.items():
        worker = worker.replace(name, json.dumps(value))
    _write(building / "sw.js", worker)
    return version


def _write(path: Path, text: str) -> None:
    # A lone surrogate in a label or title cannot be UTF-8
    path.write_text(text, encoding="utf-8", errors="replace", newline="\n")
