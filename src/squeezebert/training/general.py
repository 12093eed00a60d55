"""A student, a teacher and sequences of unlabelled text in; the student, with its teacher's inner states learned, out.

Serves `squeezebert squeeze`. A killed run goes on where it was when the same call is made again.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import TrainerCallback

from squeezebert.data.corpus import TOKENIZER, Corpus
from squeezebert.data.packing import Batches
from squeezebert.files.errors import OptionError
from squeezebert.training.healing import GeneralTrainer, StepBatches, tensors
from squeezebert.training.objective import Objective
from squeezebert.training.options import GeneralDistilOptions
from squeezebert.training.runs import (
    PROGRESS_FOLDER,
    add_model,
    begin,
    check_output,
    dropout_of,
    latest_save,
    save_model,
)
from squeezebert.training.stepping import MILESTONES, Saves, check_devices, one_batch, step_arguments, write_json
from squeezebert.training.teacher import StateCache, check_cache
from squeezebert.training.trainer import Progress, Report, duration

RECORD = "healing.json"
LOG = "healing.jsonl"
_PLAN = "plan.json"
_MEASURED_STEPS = 20


@dataclass(frozen=True)
class GeneralDistilResult:
    """What a finished run found."""

    checkpoint: Path
    """The folder with the student, its tokenizer, record and log."""
    steps: int
    """Optimiser steps that were taken."""
    tokens: int
    """Tokens that were trained on, padding not counted."""
    seconds: float
    """Seconds of training, without measuring and saving, summed over resumes."""
    held_out: dict[str, Any]
    """The log's last row: losses on the held-out sequences, and the error of each layer."""


def distil_general(
    student: Any,
    teacher: Any,
    corpus: Corpus,
    output: Path,
    options: GeneralDistilOptions,
    *,
    command: str = "",
    held_out: np.ndarray | None = None,
    report: Report = lambda line: None,
    callbacks: Sequence[TrainerCallback] = (),
) -> GeneralDistilResult:
    """Train `student`, an encoder of any layer shapes, to have `teacher`'s inner states, and write it to `output`.

    `teacher` is a SqueezeBERT of dense layers or any encoder of transformers, with the vocabulary that made `corpus`.
    The student is trained in place. `output` gets its checkpoint and tokenizer, `healing.jsonl` with a row for each
    save (as training goes), the milestones asked for, and last of all `healing.json` with what was done: a folder
    that has it is complete. `command` is recorded there; `report` gets lines of progress. `held_out` are the sequences
    that are measured on and never learned from, drawn as the options say when they are not given.

    A run that was killed is continued by the same call and ends with the same weights; with other options, models or
    text it is refused. Raises `FolderError` for an output that holds something else, and `OptionError` for models or
    a corpus that do not fit together.
    """
    check_devices()
    check_fit(student, teacher, corpus, options)
    work = output / PROGRESS_FOLDER
    fingerprint = _fingerprint(student, teacher, corpus, options, held_out)
    check_output(output, fingerprint, RECORD)
    transformers.set_seed(options.seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(corpus.folder / TOKENIZER)
    training, held_out = _split(len(corpus), options, held_out)
    batches = Batches(corpus.lengths, training, options.batch_tokens, options.seed)
    report(
        f"{len(training)} sequences of {int(corpus.lengths[training].sum())} tokens to learn from, "
        f"{len(held_out)} to measure on"
    )
    begin(work, fingerprint)
    save = latest_save(work)
    if save is None:
        shutil.rmtree(output / MILESTONES, ignore_errors=True)
    with ExitStack() as stack:
        stack.enter_context(_as_trained(student, options))
        cache = StateCache(work / "teacher", corpus, *_cached(student, teacher)) if options.cache_teacher else None
        steps = _steps(student, teacher, corpus, batches, work, options, report)
        objective = Objective(student, teacher, options, cache)
        stack.callback(objective.close)
        trainer = GeneralTrainer(
            model=student,
            # bf16 is the objective's business: Trainer's would turn every hidden state back into fp32
            args=step_arguments(
                options, work, steps, weight_decay=options.weight_decay, lr_scheduler_type=options.schedule
            ),
            train_dataset=StepBatches(corpus, batches, steps * _processes()),
            data_collator=one_batch,
            callbacks=[Progress(report), *callbacks],
            objective=objective,
            held_out=[tensors(corpus, batch) for batch in _held_out_batches(corpus, held_out, options)],
            log=output / LOG,
            report=report,
        )
        saves = Saves(trainer, options.save_every, options.milestones, steps, output, tokenizer)
        trainer.carry_out(saves, save)
        if cache is not None and cache.gain():
            report(cache.gain())
    row = trainer.rows[-1]
    if trainer.is_world_process_zero():
        save_model(output, trainer.accelerator.unwrap_model(trainer.model), tokenizer)
        told = {
            "command": command,
            "teacher": str(teacher.config.name_or_path or type(teacher).__name__),
            "options": asdict(options),
            "corpus": {name: corpus.manifest[name] for name in ("source", "sequences", "tokens", "max_length")},
            "steps": steps,
            "seconds_per_step": row["seconds"] / steps,
            **{name: row[name] for name in ("tokens", "seconds")},
            "held_out": row,
            "versions": {name: version(name) for name in ("squeezebert", "torch", "transformers")},
        }
        write_json(output / RECORD, told)  # last: a folder that has it is complete
        shutil.rmtree(work)
    return GeneralDistilResult(output, steps, row["tokens"], row["seconds"], row)


def check_fit(student: Any, teacher: Any, corpus: Corpus, options: GeneralDistilOptions) -> None:
    """Raise `OptionError` when models, corpus and options do not fit together."""
    for model in (student, teacher):
        corpus.check_vocabulary(model.config.vocab_size)
        positions = getattr(model.config, "max_position_embeddings", None)
        longest = int(corpus.lengths.max())
        if positions is not None and longest > positions > 0:
            raise OptionError(
                f"the corpus has sequences of {longest} tokens, and {type(model).__name__} has {positions} positions: "
                f"tokenise it with --max-length {positions}"
            )
    widths = student.config.hidden_size, teacher.config.hidden_size
    if options.hidden_weight and widths[0] != widths[1]:
        raise OptionError(
            f"hidden states of {widths[0]} and {widths[1]} channels cannot be compared: set --hidden-weight to 0 and "
            "--relation-weight above 0"
        )
    for model in (student, teacher):
        of_layer = getattr(model.config, "attention_width", None)  # ours may keep fewer heads, or none
        width = of_layer(model.config.num_hidden_layers - 1) if of_layer else model.config.hidden_size
        if options.relation_weight and not width:
            raise OptionError("--relation-weight: the student's last layer has no attention: set it to 0")
        if options.relation_weight and width % options.relation_heads:
            raise OptionError(f"--relation-heads {options.relation_heads}: does not divide {width} channels")
    if options.logit_weight:
        for model in (student, teacher):
            several = type(model).__name__.endswith(("ForQuestionAnswering", "ForMultipleChoice"))
            if several or not callable(getattr(model, "get_output_embeddings", None)) or model.base_model is model:
                raise OptionError(
                    f"--logit-weight: {type(model).__name__} has no head that answers one text: set it to 0"
                )
    if options.hours is not None and _processes() > 1:
        raise OptionError("--hours: several processes would measure different speeds; give --steps")
    if options.cache_teacher:
        if _processes() > 1:
            raise OptionError("--cache-teacher: several processes cannot share the cache; leave it out")
        check_cache(corpus, *_cached(student, teacher), options.cache_gigabytes)


def _cached(student: Any, teacher: Any) -> tuple[int, int]:
    """Layers and channels of the states that a cache holds."""
    return student.config.num_hidden_layers, teacher.config.hidden_size


def _fingerprint(
    student: Any, teacher: Any, corpus: Corpus, options: GeneralDistilOptions, held_out: np.ndarray | None
) -> str:
    told = [asdict(options), corpus.digest, *([] if held_out is None else [held_out.tolist()])]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for model in (student, teacher):
        add_model(digest, model)
    return digest.hexdigest()


def _split(
    sequences: int, options: GeneralDistilOptions, held_out: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the sequences to train on, and of those held out: those that are given, or else drawn ones."""
    if held_out is not None:
        training = np.setdiff1d(np.arange(sequences), held_out)
        if not len(training) or not len(held_out):
            raise OptionError(
                f"the corpus has {sequences} sequences, {len(held_out)} of them held out: it takes one to learn from "
                "and one to measure on"
            )
        return training, np.unique(held_out)
    if sequences < 2:
        raise OptionError(f"the corpus has {sequences} sequence: it takes one to learn from and one to measure on")
    order = np.random.default_rng(options.seed).permutation(sequences)
    count = min(options.held_out, max(1, sequences // 10))
    return np.sort(order[count:]), np.sort(order[:count])


def _held_out_batches(corpus: Corpus, held_out: np.ndarray, options: GeneralDistilOptions) -> list[np.ndarray]:
    return Batches(corpus.lengths, held_out, options.batch_tokens, options.seed).whole_pass()


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def _as_trained(student: Any, options: GeneralDistilOptions) -> Iterator[None]:
    """Give a student the dropout it is trained with, and exempt from training what stays; then undo all of it."""
    base = student.base_model
    stay = [base.embeddings] * options.freeze_embeddings
    if not options.logit_weight and getattr(base, "pooler", None) is not None:
        stay.append(base.pooler)  # nothing reads it
    if not (options.hidden_weight or options.logit_weight):
        last = base.encoder.layers[-1]
        stay += [last.post_attention, last.intermediate, last.output]  # they come after what relations read
    parameters = [(one, one.requires_grad) for module in stay for one in module.parameters()]
    try:
        for parameter, _ in parameters:
            parameter.requires_grad_(False)
        with dropout_of(student, options.dropout):
            yield
    finally:
        for parameter, before in parameters:
            parameter.requires_grad_(before)


def _steps(
    student: Any,
    teacher: Any,
    corpus: Corpus,
    batches: Batches,
    work: Path,
    options: GeneralDistilOptions,
    report: Report,
) -> int:
    """The steps of the run: as told, or as many as fit into its hours, measured once and then kept."""
    if options.hours is None:
        return options.steps
    plan = work / _PLAN
    if not plan.exists():
        seconds = step_seconds(student, teacher, corpus, batches, options)
        steps = max(1, round(options.hours * 3600 / seconds))
        write_json(plan, {"steps": steps, "seconds_per_step": seconds})
        report(f"{seconds:.2f} s a step: {steps} steps in {duration(options.hours * 3600)}")
    return int(json.loads(plan.read_text())["steps"])


def step_seconds(student: Any, teacher: Any, corpus: Corpus, batches: Batches, options: GeneralDistilOptions) -> float:
    """Measure the seconds of a training step: the mean of the first few, on a copy of the student."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    trial = copy.deepcopy(student).to(device).train()
    objective = Objective(trial, teacher.to(device), options)
    optimiser = torch.optim.AdamW([p for p in trial.parameters() if p.requires_grad], lr=1e-8, fused=True)
    began = 0.0
    for step in range(_MEASURED_STEPS + 2):
        if step == 2:  # the first two are slower
            began = time.monotonic()
        batch = {name: value.to(device) for name, value in tensors(corpus, batches[step]).items()}
        objective(trial, batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(trial.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
    objective.close()
    return (time.monotonic() - began) / _MEASURED_STEPS
