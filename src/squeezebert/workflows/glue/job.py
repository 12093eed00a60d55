"""One training run in; its result, its answers and its log on disk, out. Serves `run.py`, in any process."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from squeezebert.data.batches import tokenise
from squeezebert.data.examples import encode_targets
from squeezebert.data.glue import GlueData, glue_metrics, load_glue, task_score
from squeezebert.data.metrics import probabilities_of
from squeezebert.files.errors import DivergedError, FolderError, OptionError
from squeezebert.files.lock import only_run
from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.training.checkpoint import RECORD
from squeezebert.training.finetune import finetune, load_base, load_task_teacher, load_tokenizer, longest
from squeezebert.training.options import DistilOptions
from squeezebert.training.rescore import predict_logits
from squeezebert.training.taught import TaughtTexts
from squeezebert.training.teacher import accepted
from squeezebert.workflows.glue.plan import Job
from squeezebert.workflows.glue.results import BEGUN, LOG, MODEL, read_predictions, read_result, write_result

Report = Callable[[str], None]


# What changes how a run goes about it, and not what comes of it
_HARMLESS = {"report_to", "cache_teacher", "cache_gigabytes"}


def run_job(job: Job, report: Report | None = None) -> dict[str, Any]:
    """Run one training run to its end and write its folder; return what it found. Lines go to its log.txt as well.

    Raises `FolderError` when another process runs it, or a run of other options or rows was cut off there.
    """
    logging.disable_progress_bar()
    folder = job.cell.folder(job.output)
    folder.mkdir(parents=True, exist_ok=True)
    with only_run(folder):
        _begin(folder, job)
        return _run(folder, job, report)


def _begin(folder: Path, job: Job) -> None:
    """Note what is run here; what was begun with other options is not gone on with."""
    path = folder / BEGUN
    told: dict[str, Any] = {"options": job.told, "data": digest_of(job)}
    if path.is_file():
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
            other = differences(there["options"], told["options"])
            other += ["the rows of the task are others"] * (there["data"] != told["data"])
        except (ValueError, KeyError, TypeError, AttributeError):
            other = [f"{BEGUN} is damaged"]
        if other and (folder / MODEL).exists():
            raise FolderError(
                f"{folder} holds a run that was cut off, of other options ({', '.join(other[:3])}): repeat its "
                "command to finish it, give this recipe another --name, or delete that folder"
            )
    part = folder / f".{BEGUN}"
    part.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def differences(there: dict[str, Any], told: dict[str, Any]) -> list[str]:
    """Return what of a run's options is other than it was; an option that there was not then is as it was."""
    other = []
    for name, value in told.items():
        before = there.get(name, value)
        if isinstance(value, dict) and isinstance(before, dict):
            other += differences(before, value)
        elif name not in _HARMLESS and before != value and not _one_place(before, value):
            other.append(f"{name} {before}, now {value}")
    return other


def _one_place(one: Any, other: Any) -> bool:
    """Whether two names are of one folder."""
    if not isinstance(one, str) or not isinstance(other, str):
        return False
    return Path(one).exists() and Path(other).exists() and Path(one).resolve() == Path(other).resolve()


def digest_of(job: Job) -> str:
    """Return a hash of the rows that a run learns from and is scored on; computed once a process."""
    key = job.cell.task, job.data_dir, job.test, job.skip_bad_rows
    if key in _digests:
        return _digests[key]
    data = read_task(*key)
    digest = hashlib.sha256()
    for name, examples in {"train": data.labelled.train, **data.dev}.items():
        digest.update(name.encode())
        for example in examples:
            digest.update(repr((example.text, example.text_pair, example.label)).encode("utf-8", "surrogatepass"))
    _digests[key] = digest.hexdigest()
    return _digests[key]


def answer_test(job: Job, report: Report) -> None:
    """Answer the test rows of a run that was done without them, where its model is kept."""
    folder = job.cell.folder(job.output)
    data = read_task(job.cell.task, job.data_dir, job.test, job.skip_bad_rows)
    there = read_predictions(folder)
    if not data.test.keys() - there.keys():
        return
    if not (folder / MODEL / "config.json").is_file():
        report(
            f"{job.cell}: its test rows were not answered, and its weights are gone: delete {folder} to run it again"
        )
        return
    report(f"{job.cell}: answering its test rows")
    _, answers, _ = _answer(data, folder / MODEL, job.options.max_length)
    found = read_result(folder)
    if found is not None:
        write_result(folder, found, answers)


def _run(folder: Path, job: Job, report: Report | None) -> dict[str, Any]:
    started = time.monotonic()
    with (folder / LOG).open("a", encoding="utf-8") as log:

        def tell(line: str) -> None:
            log.write(line + "\n")
            log.flush()
            if report is not None:
                report(line)

        data = read_task(job.cell.task, job.data_dir, job.test, job.skip_bad_rows)
        trained = folder / MODEL
        told = {**asdict(job.cell), "in_grid": job.in_grid, "options": job.told, "subsets": list(data.subsets)}
        told["data"] = digest_of(job)
        try:
            _train(job, data, trained, tell)
        except DivergedError as error:
            tell(str(error))
            shutil.rmtree(trained, ignore_errors=True)
            found = {**told, "score": None, "tables": {}, "problem": str(error)}
            write_result(folder, found, {})
            return found
        tables, answers, parameters = _answer(data, trained, job.options.max_length)
        found = {
            **told,
            "score": task_score(data.task, tables),
            "tables": {name: {"rows": len(data.dev[name]), **metrics} for name, metrics in tables.items()},
            "parameters": parameters,
            "seconds": round(time.monotonic() - started, 1),
            "skipped": data.labelled.report.skipped,
            "warnings": list(data.labelled.report.warnings),
            "command": job.command,
            "machine": describe_machine(),
            "versions": package_versions(),
        }
        write_result(folder, found, answers)
        return found


def _train(job: Job, data: GlueData, output: Path, report: Report) -> None:
    """Finetune, or distil, into `output`, unless that is done."""
    if (output / RECORD).is_file():
        return  # killed between training and its result; that it is this run's was seen to
    more: dict[str, Any] = {}
    if job.teacher is not None and job.distil is not None:
        more = _teaching(job, data, job.distil, report)
    finetune(
        data.labelled,
        job.checkpoint,
        output,
        job.options,
        any_architecture=True,
        command=job.command,
        report=report,
        **more,
    )


def _teaching(job: Job, data: GlueData, distil: DistilOptions, report: Report) -> dict[str, Any]:
    """What `finetune` needs of a teacher; one with another vocabulary reads the texts with its own tokenizer."""
    name = str(job.teacher)
    own, theirs = load_tokenizer(job.checkpoint), load_tokenizer(name)
    if own.get_vocab() == theirs.get_vocab():
        teacher = load_task_teacher(name, data.labelled, own, any_architecture=True)
        return {"teacher": teacher, "distil": distil}
    if distil.hidden_weight:
        raise OptionError(
            f"--hidden-weight {distil.hidden_weight:g}: the teacher {name} has another vocabulary than the "
            "student, so that their hidden states are of other tokens; set it to 0"
        )
    teacher = load_task_teacher(name, data.labelled, theirs, any_architecture=True)
    length = min(job.options.max_length, longest(teacher))
    texts = tokenise(theirs, data.labelled.train, length, takes=accepted(teacher))
    taught = TaughtTexts.of(teacher, texts, theirs, hidden=False, report=report)
    return {"teacher": teacher, "distil": replace(distil, refit=False), "taught": taught}


def _answer(
    data: GlueData, trained: Path, max_length: int
) -> tuple[dict[str, dict[str, float]], dict[str, np.ndarray], int]:
    """A trained model's metrics on the labelled tables, its answers to all tables, and how many parameters it has."""
    labelled = data.labelled
    model, _ = load_base(trained, labelled, any_architecture=True)
    model.eval()
    if torch.accelerator.is_available():
        model.to(torch.accelerator.current_accelerator())
    tokenizer = load_tokenizer(trained)
    length = min(max_length, longest(model))
    answers: dict[str, np.ndarray] = {}
    for name, examples in {**data.dev, **data.test}.items():
        logits = predict_logits(model, tokenizer, examples, length)
        answers[name] = probabilities_of(logits, labelled.task).astype(np.float32)
    tables = {
        name: glue_metrics(data.task, answers[name], encode_targets(examples, labelled.task, labelled.labels))
        for name, examples in data.dev.items()
    }
    return tables, answers, sum(parameter.numel() for parameter in model.parameters())


_read: dict[tuple[str, str, bool, bool], GlueData] = {}
_digests: dict[tuple[str, str, bool, bool], str] = {}


def read_task(task: str, source: str, test: bool, skip_bad_rows: bool) -> GlueData:
    """A task's rows, read once a process."""
    key = task, source, test, skip_bad_rows
    if key not in _read:
        _read[key] = load_glue(task, source, test=test, skip_bad_rows=skip_bad_rows)
    return _read[key]
