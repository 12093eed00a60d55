"""Models in; latency, size, memory, start and share of the machine's limit out: the job behind `bench`."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

from squeezebert.benchmark.baselines import write_ours, write_usual_export
from squeezebert.benchmark.bench_report import html_page, markdown
from squeezebert.benchmark.latency import VOCABULARY, TimedFile, made_up_inputs, measure_latency
from squeezebert.benchmark.named import NAMES, is_named, write_named
from squeezebert.benchmark.roofline import Product, Profile, bare_times, profile_file
from squeezebert.benchmark.starting import measure_start
from squeezebert.export.checkpoint import quiet_transformers
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.files.manifest import MANIFEST, check_file, read_manifest
from squeezebert.model import SqueezeBertForSequenceClassification
from squeezebert.runtime.session import integer_products_saturate
from squeezebert.training.classifiers import longest
from squeezebert.training.runs import first_line
from squeezebert.training.teacher import fits_ours
from squeezebert.workflows.options import BenchOptions

RESULTS, TABLE, PAGE = "bench.json", "bench.md", "bench.html"
_NAMED_LONGEST = 512
Report = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    """A model that is measured: its files by precision."""

    name: str
    """As it was named."""
    kind: str
    """What it is: an exported folder, a checkpoint, or an architecture with random weights."""
    files: dict[str, TimedFile]
    """fp32, int8, or both."""
    folder: Path | None
    """The exported folder, where it is one: it answers text."""
    vocabulary: int = VOCABULARY
    """Token ids are drawn below this."""


def run_bench(options: BenchOptions, command: str, report: Report) -> str:
    """Measure models in one process, interleaved, write the results and return the table.

    Raises `FolderError` for an output that holds something else or cannot be written, and a model that is not there
    or cannot answer, `OptionError` for a length that a model cannot read and a checkpoint that is no classifier; all
    before anything is timed.
    """
    logging.disable_progress_bar()
    output = Path(options.output)
    _check_output(output, options.overwrite)
    baseline = options.baseline or options.models[0]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        longest = max(options.lengths)
        models = [_prepare(name, folder / str(number), longest, report) for number, name in enumerate(options.models)]
        vocabulary = min(model.vocabulary for model in models)
        files = {(model.name, precision): file for model in models for precision, file in model.files.items()}
        about = {
            f"{model.name} {precision}": _about(model, precision, file, options, report)
            for model in models
            for precision, file in model.files.items()
        }
        rows = _time(files, options, baseline, vocabulary, report)
        if options.roofline or options.profile:
            _add_limits(rows, files, options, vocabulary, report)
    record = {
        "command": command,
        "machine": describe_machine() | {"integer_products_overflow": integer_products_saturate()},
        "versions": package_versions(),
        "engine": "onnxruntime",
        "baseline": baseline,
        "options": asdict(options),
        "models": about,
        "rows": rows,
    }
    output.mkdir(parents=True, exist_ok=True)
    # The numbers first: whatever a page lacks, they are there
    _write(output / RESULTS, json.dumps(record, indent=1) + "\n")
    _write(output / TABLE, markdown(record) + "\n")
    _write(output / PAGE, html_page(record))
    written = ", ".join(str(output / name) for name in (RESULTS, TABLE, PAGE))
    return markdown(record) + f"\n\nwritten: {written}"


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _check_output(output: Path, overwrite: bool) -> None:
    if output.is_file():
        raise FolderError(f"{output} is a file; --output takes a folder")
    if not output.is_dir():
        there = next(folder for folder in output.absolute().parents if folder.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise FolderError(f"--output {output}: cannot be made in {there}: choose another")
        return
    if not os.access(output, os.W_OK):
        raise FolderError(f"--output {output}: cannot be written: choose another")
    names = {path.name for path in output.iterdir() if not path.name.startswith(".")}
    if RESULTS in names and not overwrite:
        raise FolderError(f"{output} holds results already: choose another --output, or --overwrite them")
    if names - {RESULTS, TABLE, PAGE}:
        raise FolderError(f"{output} is not empty and holds other things: choose another --output")


def _prepare(name: str, place: Path, tokens: int, report: Report) -> Measured:
    """Find or write the files of one model that reads texts of so many tokens."""
    folder = Path(name)
    if (folder / MANIFEST).is_file():
        manifest = read_manifest(folder)
        if manifest.task in ("masked-lm", "token-labels"):
            raise OptionError(
                f"{name}: a model of {manifest.task}, and models that answer for whole texts are measured"
            )
        _check_length(name, manifest.max_length, tokens)
        files = {
            str(precision): TimedFile(check_file(folder, file), tuple(file.disabled_optimizers))
            for precision, file in manifest.files.items()
        }
        return Measured(name, "exported", files, folder, _vocabulary(folder))
    if is_named(name) and not folder.exists():
        _check_length(name, _NAMED_LONGEST, tokens)
        report(f"writing {name}")
        return Measured(name, "architecture, random weights", write_named(name, place), None)
    if not (folder / "config.json").is_file():
        raise FolderError(
            f"{name}: no exported folder or checkpoint there, and no architecture of that name; those are "
            f"{', '.join(NAMES)}"
        )
    encoder = _is_encoder(folder)
    report(f"exporting {name}")
    ours = fits_ours(folder)
    kind: Any = SqueezeBertForSequenceClassification if ours else AutoModelForSequenceClassification
    try:
        with quiet_transformers():  # an encoder's classifier is new, and this is told below
            model = kind.from_pretrained(folder)
    except (OSError, ValueError, RuntimeError) as error:
        raise OptionError(f"{name}: cannot be loaded as a classifier: {first_line(error)}") from error
    _check_length(name, longest(model), tokens)
    files = (write_ours if ours else write_usual_export)(model, place)
    told = "encoder with a new classifier" if encoder else "checkpoint"
    told += ", our graph" if ours else ", usual export"
    return Measured(name, told, files, None, _vocabulary(folder))


def _check_length(name: str, longest: int, tokens: int) -> None:
    if tokens > longest:
        raise OptionError(f"--lengths {tokens}: {name} reads {longest} tokens at most")


def _is_encoder(folder: Path) -> bool:
    """Whether a checkpoint has no head at all. Raises `OptionError` for one whose head is not for whole texts."""
    kinds = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or []
    for kind in kinds:
        if "For" in kind and not kind.endswith("ForSequenceClassification"):
            raise OptionError(f"{folder}: a {kind}, and models that answer for whole texts are measured")
    return bool(kinds) and all(kind.endswith("Model") for kind in kinds)


def _vocabulary(folder: Path) -> int:
    """How many tokens a model knows, or as many as are drawn from anyway."""
    told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return min(VOCABULARY, int(told.get("vocab_size", VOCABULARY)))


def _time(
    files: Mapping[tuple[str, str], TimedFile],
    options: BenchOptions,
    baseline: str,
    vocabulary: int,
    report: Report,
) -> list[dict[str, Any]]:
    """Every file at every number of threads and texts and every length, with its ratios to the baseline."""
    flat = {f"{name} {precision}": file for (name, precision), file in files.items()}
    rows = []
    for threads in options.threads:
        for batch in options.batch_sizes:
            found = measure_latency(
                flat,
                options.lengths,
                threads=threads,
                batch=batch,
                runs=options.runs,
                burst=options.burst,
                vocabulary=vocabulary,
                report=report,
            )
            for length in options.lengths:
                medians = {name: timings[length].median_ms for name, timings in found.items()}
                for name, precision in files:
                    own = found[f"{name} {precision}"][length]
                    ratios = {
                        of: medians[f"{baseline} {of}"] / own.median_ms
                        for of in ("fp32", "int8")
                        if f"{baseline} {of}" in medians
                    }
                    row = {"model": name, "precision": precision, "threads": threads, "batch": batch}
                    rows.append({**row, "tokens": length, **own.to_dict(), "faster": ratios})
    return rows


def _about(model: Measured, precision: str, file: TimedFile, options: BenchOptions, report: Report) -> dict[str, Any]:
    """What does not depend on the text: size, start, memory."""
    told: dict[str, Any] = {"kind": model.kind, "megabytes": file.path.stat().st_size / 1e6}
    if options.starts:
        report(f"starting {model.name} {precision}")
        start = measure_start(file, min(options.threads), model.folder, precision)
        told["start"] = asdict(start) | {"answers": "a text" if model.folder else "token ids"}
    return told


def _add_limits(
    rows: Sequence[dict[str, Any]],
    files: Mapping[tuple[str, str], TimedFile],
    options: BenchOptions,
    vocabulary: int,
    report: Report,
) -> None:
    """Add to each row where its time goes, and what its products take alone.

    `limit_ms` is the sum of all products that are large enough to be timed alone, None where none is, `weights_ms` of
    those with weights: attention's own two are the rest. `gigaoperations` are those of all products, of which
    `untimed_gigaoperations` are of too small ones.
    """
    for threads in options.threads:
        for batch in options.batch_sizes:
            profiles: dict[tuple[str, str, int], Profile] = {}
            for length in options.lengths:
                for (name, precision), file in files.items():
                    inputs = made_up_inputs(batch, length, vocabulary)
                    profiles[name, precision, length] = profile_file(file, inputs, threads)
            wanted = {product for profile in profiles.values() for product in profile.products}
            bare: dict[Product, float] = {}
            if options.roofline:
                report(f"timing {len(wanted)} products alone; threads: {threads}, texts: {batch}")
                bare = bare_times(wanted, threads, burst=options.burst)
            for row in rows:
                if (row["threads"], row["batch"]) != (threads, batch):
                    continue
                profile = profiles[row["model"], row["precision"], row["tokens"]]
                if options.profile:
                    row["kinds_ms"] = dict(profile.kinds)
                if options.roofline:
                    counts = profile.products.items()
                    timed = sum(product.operations * count for product, count in counts)
                    limit = sum(bare[product] * count for product, count in counts)
                    row["limit_ms"] = limit if counts else None
                    row["weights_ms"] = sum(bare[product] * count for product, count in counts if product.weights)
                    row["gigaoperations"] = (timed + profile.small) / 1e9
                    row["untimed_gigaoperations"] = profile.small / 1e9
                    row["share_of_limit"] = limit / row["median_ms"] if counts else None
