"""The models that have results in; their size, arithmetic and latency in one engine and run out.

Serves `squeezebert glue measure`, whose findings `glue report` shows beside the scores.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

from squeezebert.benchmark.baselines import write_ours, write_usual_export
from squeezebert.benchmark.latency import VOCABULARY, TimedFile, measure_latency
from squeezebert.benchmark.operations import count_operations
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.model import SqueezeBertForSequenceClassification
from squeezebert.training.classifiers import longest
from squeezebert.training.teacher import fits_ours
from squeezebert.workflows.glue.identity import MODEL
from squeezebert.workflows.glue.options import GlueMeasureOptions
from squeezebert.workflows.glue.results import MEASURED, summarise

OURS, USUAL = "squeezebert", "torch.onnx.export and quantize_dynamic"


def measure(options: GlueMeasureOptions, command: str, report: Callable[[str], None]) -> list[str]:
    """Measure every model of a folder of results, write `measured.json` there, and return lines that say it.

    One trained model of each architecture name is taken: sizes and latency do not depend on the task. All files are
    timed in one process, interleaved. Raises `FolderError` where no trained model was kept.
    """
    logging.disable_progress_bar()
    folder = Path(options.folder)
    kept: dict[str, Path] = {}
    variants: dict[str, set[str]] = {}
    for result in summarise(folder):
        if (result.best / MODEL / "config.json").is_file():
            kept.setdefault(result.model, result.best / MODEL)
        if "checkpoint" in result.variant:
            variants.setdefault(result.model, set()).add(result.variant)
    for name in kept.keys() & variants.keys():
        report(
            f"warning: {name}: runs of several checkpoints go by that name ({'; '.join(sorted(variants[name]))}); "
            f"what is measured is {kept[name]}"
        )
    if not kept:
        raise FolderError(f"{folder}: no trained model was kept there to measure; run without --keep none")
    for name, checkpoint in kept.items():
        reads = longest(_load(checkpoint))
        if max(options.lengths) > reads:
            raise OptionError(f"--lengths {max(options.lengths)}: {name} reads {reads} tokens at most")
    found: dict[str, dict[str, Any]] = {}
    files: dict[str, TimedFile] = {}
    vocabulary = VOCABULARY
    with tempfile.TemporaryDirectory() as place:
        for name, checkpoint in kept.items():
            report(f"exporting {name}")
            ours, model = fits_ours(checkpoint), _load(checkpoint)
            vocabulary = min(vocabulary, model.config.vocab_size)
            operations = {tokens: count_operations(model, tokens) for tokens in options.lengths}
            exported = (write_ours if ours else write_usual_export)(model, Path(place) / name)
            found[name] = {
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                "exported_by": OURS if ours else USUAL,
                "gflops": {str(tokens): counted.total / 1e9 for tokens, counted in operations.items()},
                "gflops_by_layer": {
                    layer: count / 1e9 for layer, count in operations[max(options.lengths)].layers.items()
                },
                "megabytes": {precision: file.path.stat().st_size / 1e6 for precision, file in exported.items()},
            }
            files |= {f"{name} {precision}": file for precision, file in exported.items()}
        timings = measure_latency(
            files,
            options.lengths,
            threads=options.threads,
            runs=options.runs,
            vocabulary=vocabulary,
            report=report,
        )
    for name, told in found.items():
        told["latency"] = {
            precision: {str(tokens): timing.to_dict() for tokens, timing in timings[f"{name} {precision}"].items()}
            for precision in ("fp32", "int8")
        }
    record = {
        "command": command,
        "lengths": list(options.lengths),
        "threads": options.threads,
        "models": found,
        "machine": describe_machine(),
        "versions": package_versions(),
    }
    part = folder / f".{MEASURED}"
    part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    part.replace(folder / MEASURED)
    most = str(max(options.lengths))
    return [
        f"{name}: {told['parameters'] / 1e6:.1f} M parameters, {told['gflops'][most]:.2f} GFLOPs and "
        f"{told['latency']['fp32'][most]['median_ms']:.1f} ms (int8 "
        f"{told['latency']['int8'][most]['median_ms']:.1f} ms) at {most} tokens"
        for name, told in found.items()
    ]


def _load(checkpoint: Path) -> Any:
    """A trained model, on our classes where they have its architecture."""
    ours = fits_ours(checkpoint)
    kind: Any = SqueezeBertForSequenceClassification if ours else AutoModelForSequenceClassification
    return kind.from_pretrained(checkpoint)
