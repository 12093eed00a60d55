"""One training run in; its result, its answers and its log on disk, out. Serves `run.py`, in any process."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from squeezebert.data.batches import tokenise
from squeezebert.data.examples import Example, encode_targets
from squeezebert.data.glue import GlueData, GlueTask, glue_metrics, load_glue, task_score
from squeezebert.data.labels import natural_order
from squeezebert.data.metrics import probabilities_of
from squeezebert.files.errors import DivergedError, FolderError, OptionError
from squeezebert.files.lock import only_run
from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.training.checkpoint import RECORD
from squeezebert.training.classifiers import label_order, load_base, load_task_teacher, load_tokenizer, longest
from squeezebert.training.finetune import finetune
from squeezebert.training.options import DistilOptions
from squeezebert.training.rescore import predict_logits
from squeezebert.training.taught import TaughtTexts
from squeezebert.training.teacher import accepted
from squeezebert.workflows.glue.identity import MODEL, OTHER_ROWS, differences
from squeezebert.workflows.glue.plan import Job
from squeezebert.workflows.glue.results import BEGUN, LOG, read_predictions, read_result, write_result

Report = Callable[[str], None]


def run_job(job: Job, report: Report | None = None) -> dict[str, Any]:
    """Run one training run to its end and write its folder; return what it found. Lines go to its log.txt as well.

    Raises `FolderError` when another process runs it, or a run of other options or rows was cut off there.
    """
    logging.disable_progress_bar()
    folder = job.cell.folder(job.output)
    folder.mkdir(parents=True, exist_ok=True)
    with only_run(folder, inside=True):
        _begin(folder, job)
        return _run(folder, job, report)


def _begin(folder: Path, job: Job) -> None:
    """Note what is run here; what was begun with other options is not gone on with."""
    check_begun(folder, job)
    told: dict[str, Any] = {"options": job.told, "data": digest_of(job)}
    part = folder / f".{BEGUN}"
    part.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    part.replace(folder / BEGUN)


def check_begun(folder: Path, job: Job) -> None:
    """Raise `FolderError` where a run of other options or rows was cut off."""
    path = folder / BEGUN
    if not path.is_file() or not (folder / MODEL).exists():
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        other = differences(there["options"], job.told, job.output) + [OTHER_ROWS] * (
            not same_rows(there["data"], job)
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        other = [f"{BEGUN} is damaged"]
    if other:
        raise FolderError(
            f"{folder} holds a run that was cut off, of other options ({', '.join(other[:3])}): repeat its "
            "command to finish it, give this recipe another --name, or delete that folder"
        )


def digest_of(job: Job) -> str:
    """Return a hash of the rows that a run learns from and is scored on; computed once a process."""
    return _row_digests(job)[0]


def same_rows(there: str, job: Job) -> bool:
    """Whether a recorded hash is that of a run's rows."""
    return there in _row_digests(job)


def _row_digests(job: Job) -> tuple[str, ...]:
    """The hash of a run's rows, and that which the same numbers had as the Hub's float32 were read before."""
    key = job.cell.task, job.data_dir, job.test, job.skip_bad_rows
    if key not in _digests:
        data = read_task(*key)
        tables = {"train": data.labelled.train, **data.dev}
        found = [_digest(tables)]
        if not data.task.words:
            found.append(_digest(tables, lambda label: float(np.float32(label))))
        _digests[key] = tuple(found)
    return _digests[key]


def _digest(tables: Mapping[str, Sequence[Example]], of_label: Callable[[Any], Any] = lambda label: label) -> str:
    digest = hashlib.sha256()
    for name, examples in tables.items():
        digest.update(name.encode())
        for example in examples:
            told = repr((example.text, example.text_pair, of_label(example.label)))
            digest.update(told.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _test_digests(data: GlueData) -> dict[str, str]:
    return {name: _digest({name: examples}) for name, examples in data.test.items()}


def answer_test(job: Job, report: Report) -> None:
    """Answer the test rows of a run that was done without them, or with others, where its model is kept.

    Answers to other rows whose model is gone stay, and are noted as such: nothing is to be made of them.
    """
    folder = job.cell.folder(job.output)
    data = read_task(job.cell.task, job.data_dir, job.test, job.skip_bad_rows)
    found = read_result(folder)
    if found is None:
        return
    try:
        there = read_predictions(folder)
    except FolderError:
        if not (folder / MODEL / "config.json").is_file():
            raise
        there = {}  # the model answers again
    digests, before = _test_digests(data), found.get("test_data", {})
    # Results of before there were hashes go by the number of rows
    stale = [
        name
        for name, examples in data.test.items()
        if name in there and (len(there[name]) != len(examples) or before.get(name, digests[name]) != digests[name])
    ]
    trained = [split.name for split in (data.task.train, *data.task.dev)]
    told = {
        **found,
        "subsets": [name for name in found["subsets"] if name in trained]
        + [name for name in data.subsets if name not in trained],
        "test_data": digests,
        "stale": [],
    }
    if not stale and not data.test.keys() - there.keys():
        if found.get("stale"):
            write_result(folder, told, there)
        return
    if not (folder / MODEL / "config.json").is_file():
        if stale and found.get("stale") != stale:
            write_result(folder, {**found, "stale": stale}, there)
        # Another run of the group, whose model was kept, is the one that is submitted
        if not any(folder.parent.glob(f"*/{MODEL}/config.json")):
            why = "are answered as they were before" if stale else "were not answered"
            report(f"{job.cell}: its test rows {why}, and its weights are gone: delete {folder} to run it again")
        return
    report(f"{job.cell}: answering its test rows")
    _, answers, _ = _answer(data, folder / MODEL, job.options.max_length)
    write_result(folder, told, answers)


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
        told |= {"data": digest_of(job), "test_data": _test_digests(data)}
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
            "course": json.loads((trained / RECORD).read_text(encoding="utf-8")).get("course", []),
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
        spelled=spellings(data.task),
        command=job.command,
        report=report,
        **more,
    )


def _teaching(job: Job, data: GlueData, distil: DistilOptions, report: Report) -> dict[str, Any]:
    """What `finetune` needs of a teacher; one with another vocabulary reads the texts with its own tokenizer."""
    name = str(job.teacher)
    own, theirs = check_teacher(name, job.checkpoint, data.task, distil)
    spelled = spellings(data.task)
    if own.get_vocab() == theirs.get_vocab():
        teacher = load_task_teacher(name, data.labelled, own, any_architecture=True, spelled=spelled)
        return {"teacher": teacher, "distil": distil}
    teacher = load_task_teacher(name, data.labelled, theirs, any_architecture=True, spelled=spelled)
    length = min(job.options.max_length, longest(teacher))
    texts = tokenise(theirs, data.labelled.train, length, takes=accepted(teacher))
    taught = TaughtTexts.of(teacher, texts, theirs, hidden=False, report=report)
    return {"teacher": teacher, "distil": replace(distil, refit=False), "taught": taught}


def spellings(task: GlueTask) -> dict[str, str]:
    """Return a task's labels by all their spellings: the download's, and the Hub's, in small letters."""
    return {
        spelled.lower(): word
        for names in (task.hub_words, task.words)
        for spelled, word in zip(names, task.words, strict=True)
    }


def check_teacher(name: str, checkpoint: str, task: GlueTask, distil: DistilOptions) -> tuple[Any, Any]:
    """Return the tokenizers of student and teacher.

    Raises `OptionError` for a teacher whose labels are others or unknown, or whose vocabulary is another than the
    student's where hidden states are to be learned; `FolderError` where there is none.
    """
    label_order(name, natural_order(task.words), spellings(task))
    own, theirs = load_tokenizer(checkpoint), load_tokenizer(name)
    if distil.hidden_weight and own.get_vocab() != theirs.get_vocab():
        raise OptionError(
            f"--hidden-weight {distil.hidden_weight:g}: the teacher {name} has another vocabulary than the "
            "student, so that their hidden states are of other tokens; set it to 0"
        )
    return own, theirs


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
_digests: dict[tuple[str, str, bool, bool], tuple[str, ...]] = {}


def read_task(task: str, source: str, test: bool, skip_bad_rows: bool) -> GlueData:
    """A task's rows, read once a process."""
    key = task, source, test, skip_bad_rows
    if key not in _read:
        _read[key] = load_glue(task, source, test=test, skip_bad_rows=skip_bad_rows)
    return _read[key]
