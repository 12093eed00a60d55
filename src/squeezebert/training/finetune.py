"""Labelled examples and a base checkpoint in, a trained checkpoint with its record out.

Serves `squeezebert train` and the demo. A killed run goes on where it was when the same call is made again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import (
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from squeezebert.data.batches import tokenise
from squeezebert.data.calibration import Calibration, calibrate, held_out_decisions
from squeezebert.data.corpus import tokenizer_hash
from squeezebert.data.examples import Example, LabelledData, encode_targets
from squeezebert.data.metrics import LOWER_IS_BETTER, MAIN_METRIC, METRICS, probabilities_of, score
from squeezebert.files.errors import DivergedError, OptionError
from squeezebert.model import SqueezeBertForSequenceClassification
from squeezebert.training.card import write_card
from squeezebert.training.checkpoint import RECORD, clear_checkpoint, write_record
from squeezebert.training.classifiers import (
    check_tokens,
    load_base,
    load_tokenizer,
    longest,
    output_layer,
    set_dropout,
)
from squeezebert.training.losses import no_labels
from squeezebert.training.options import DistilOptions, FinetuneOptions
from squeezebert.training.runs import (
    PROGRESS_FOLDER,
    add_model,
    begin,
    check_output,
    first_line,
    latest_save,
    save_model,
)
from squeezebert.training.squeeze import calibration_texts, refit, refit_obstacle
from squeezebert.training.taught import TaughtTexts
from squeezebert.training.teacher import accepted
from squeezebert.training.trainer import ClassifierTrainer, DistilTrainer, Progress, Report
from squeezebert.training.units import Units


@dataclass(frozen=True)
class FinetuneResult:
    """What a finished run found."""

    checkpoint: Path
    """The folder with model, tokenizer, record and card."""
    metrics: dict[str, float]
    """Scores on the evaluation rows, of the weights that were kept."""
    calibration: Calibration
    """Temperature, thresholds and calibration errors."""
    steps: int
    """Optimiser steps that were taken."""
    truncated: int
    """Training texts that were cut to `max_length`."""


def finetune(
    data: LabelledData,
    base: str | Path,
    output: Path,
    options: FinetuneOptions,
    *,
    model: Any = None,
    teacher: Any = None,
    distil: DistilOptions | None = None,
    taught: TaughtTexts | None = None,
    unlabelled: Sequence[Example] = (),
    any_architecture: bool = False,
    spelled: Mapping[str, str] | None = None,
    overwrite: bool = False,
    command: str = "",
    report: Report = lambda line: None,
    callbacks: Sequence[TrainerCallback] = (),
) -> FinetuneResult:
    """Train a classifier on `data` and write it to `output`.

    `base` is a checkpoint folder or Hub id; with `model`, that model is trained instead and `base` gives the
    tokenizer. With `teacher`, the model also learns from its answers, as `distil` says; `taught`, for several runs
    with one teacher, is what it made of the texts to train on; `unlabelled` are more texts, of which it alone knows
    the answers. With `any_architecture`, `base` may be whatever transformers loads for sequence classification, for
    comparison: export takes our architecture alone. `spelled` is that of `load_base`. `command` is recorded in the
    model card; `report` gets lines of progress.

    A run that was killed is continued by the same call; with other options or data it is refused.
    Raises `FolderError` for an output that holds something else, and what `load_base` and `load_tokenizer` raise.
    """
    metric = _metric(options, data)
    if unlabelled and teacher is None:
        raise OptionError("texts without labels teach nothing without a teacher: distil, or leave them out")
    work = output / PROGRESS_FOLDER
    transformers.set_seed(options.seed)
    units = Units()
    targets = encode_targets(data.train, data.task, data.labels)
    trained_head = model is not None
    if model is None:
        loading: dict[str, Any] = {
            "any_architecture": any_architecture,
            "dropout": options.dropout,
            "spelled": spelled,
        }
        model, trained_head = load_base(base, data, **loading)
    tokenizer = load_tokenizer(base)
    fingerprint = _fingerprint(data, unlabelled, tokenizer, model, options, distil, teacher)
    if not overwrite:
        check_output(output, fingerprint, RECORD)
    model.accepts_loss_kwargs = False  # or Trainer takes losses for summed, and scales them by accumulation
    check_tokens(base, tokenizer, model)
    max_length = min(options.max_length, longest(model))
    if distil is not None and distil.refit and not trained_head:
        obstacle = refit_obstacle(model, teacher)
        if obstacle is None:
            report("fitting the student's matrices to the teacher on the texts to train on")
            texts = calibration_texts(data.train, tokenizer, max_length, options.seed)
            model, trained_head = refit(model, teacher, texts), True
        else:
            report(f"the student starts from its own matrices and a new head, not fitted to the teacher: {obstacle}")
    if data.task == "regression" and output_layer(model).bias is not None:  # GPT-2's head has none to shift
        units = Units.of(targets)
        if trained_head:
            units.head_to_standard(output_layer(model))
    if options.dropout is not None:
        set_dropout(model, options.dropout)
    if options.freeze_embeddings:
        embeddings = getattr(model.base_model, "embeddings", None)
        (model.get_input_embeddings() if embeddings is None else embeddings).requires_grad_(False)

    takes = accepted(model)
    targets = np.concatenate([units.to_standard(targets), no_labels(len(unlabelled), targets)])
    train = tokenise(tokenizer, [*data.train, *unlabelled], max_length, targets, takes)
    held_out = units.to_standard(encode_targets(data.evaluation, data.task, data.labels))
    evaluation = tokenise(tokenizer, data.evaluation, max_length, held_out, takes)
    report(
        f"{len(train)} texts to train on ({f'{len(unlabelled)} without labels, ' if unlabelled else ''}{train.tokens} "
        f"tokens, {train.truncated} cut to {max_length}), "
        f"{len(evaluation)} to evaluate on"
    )

    def scores(prediction: Any) -> dict[str, float]:
        logits = units.to_own(_finite(prediction.predictions))
        return score(probabilities_of(logits, data.task), units.to_own(prediction.label_ids), data.task)

    kind: Callable[..., Trainer] = ClassifierTrainer
    if teacher is not None:
        distil = distil or DistilOptions()
        if taught is None and distil.cache_teacher:
            hidden, most = distil.hidden_weight > 0, distil.cache_gigabytes
            if torch.accelerator.is_available():
                teacher.to(torch.accelerator.current_accelerator())
            bf16 = options.precision == "bf16"
            taught = TaughtTexts.of(teacher, train, tokenizer, hidden=hidden, gigabytes=most, bf16=bf16, report=report)
        train = replace(train, numbered=taught is not None)
        distilling = {"teacher": teacher, "distil": distil, "task": data.task, "units": units, "taught": taught}
        kind = lambda *args, **kwargs: DistilTrainer(*args, **distilling, **kwargs)  # noqa: E731
    try:
        trainer = kind(
            model=model,
            args=_arguments(options, work, len(train), metric),
            train_dataset=train,
            eval_dataset=evaluation,
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=scores,
            callbacks=[Progress(report, metric), *callbacks],
            perturbs=options if options.adversarial_steps else None,
        )
    except (ImportError, RuntimeError, ValueError) as error:
        if options.report_to == "none":
            raise
        raise OptionError(f"--report-to {options.report_to}: {first_line(error)}") from error
    if options.patience:
        trainer.add_callback(EarlyStopping(options.patience * _evaluations_an_epoch(options, len(train))))
    trainer.remove_callback(PrinterCallback)
    begin(work, fingerprint)
    try:
        trainer.train(resume_from_checkpoint=latest_save(work))
        prediction = trainer.predict(evaluation, metric_key_prefix="final")
        # Not in the order of the rows: evaluation is grouped by length as well
        logits = units.to_own(_finite(prediction.predictions))
    except DivergedError:
        if trainer.is_world_process_zero():
            shutil.rmtree(work)  # or the same command with another learning rate would be refused
        raise
    targets = units.to_own(np.asarray(prediction.label_ids))
    calibration = calibrate(logits, targets, data.task)
    if data.task == "multi_label":
        metrics = score(held_out_decisions(logits, targets), targets, data.task)
    else:
        metrics = score(probabilities_of(logits, data.task, calibration.temperature), targets, data.task)
    if trainer.is_world_process_zero():
        if units != Units():
            units.head_to_own(output_layer(model))
        if overwrite:
            clear_checkpoint(output)  # only now: until the new model is there, the old one stays
        told = None
        if teacher is not None and distil is not None:
            told = {"teacher": str(teacher.config.name_or_path), "unlabelled": len(unlabelled), **asdict(distil)}
        _write(output, trainer, tokenizer, data, options, max_length, metrics, calibration, command, base, told)
        shutil.rmtree(work)
    return FinetuneResult(output, metrics, calibration, trainer.state.global_step, train.truncated)


class EarlyStopping(EarlyStoppingCallback):
    """Ends a run that does not get better; while the learning rate still rises, nothing is expected of it."""

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Count an evaluation without improvement."""
        if state.global_step > args.warmup_steps:
            super().on_evaluate(args, state, control, metrics, **kwargs)  # type: ignore[no-untyped-call]


def _metric(options: FinetuneOptions, data: LabelledData) -> str:
    metric = options.metric or MAIN_METRIC[data.task]
    if metric not in METRICS[data.task]:
        raise OptionError(f"--metric {metric}: a {data.task} task has {', '.join(METRICS[data.task])}")
    return metric


def _steps_an_epoch(options: FinetuneOptions, rows: int) -> int:
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return max(1, math.ceil(rows / (options.batch_size * options.accumulate * processes)))


def _evaluations_an_epoch(options: FinetuneOptions, rows: int) -> int:
    return math.ceil(_steps_an_epoch(options, rows) / options.save_every)


def _arguments(options: FinetuneOptions, work: Path, rows: int, metric: str) -> TrainingArguments:
    steps_an_epoch = _steps_an_epoch(options, rows)
    # Evaluated and saved once an epoch, or more often where epochs are long, in equal parts
    every = math.ceil(steps_an_epoch / _evaluations_an_epoch(options, rows))
    total = math.ceil(steps_an_epoch * options.epochs)
    return TrainingArguments(
        output_dir=str(work),
        learning_rate=options.learning_rate,
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=max(options.batch_size, 32),
        gradient_accumulation_steps=options.accumulate,
        weight_decay=options.weight_decay,
        warmup_steps=round(options.warmup * total),
        lr_scheduler_type="linear",
        seed=options.seed,
        data_seed=options.seed,
        bf16=options.precision == "bf16",
        # transformers refuses bf16 without an accelerator unless it is told that the CPU is meant
        use_cpu=not torch.accelerator.is_available(),
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=every,
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model=metric,
        greater_is_better=metric not in LOWER_IS_BETTER,
        restore_callback_states_from_checkpoint=True,
        logging_steps=max(1, min(50, every)),
        disable_tqdm=True,
        report_to=options.report_to,
        dataloader_pin_memory=torch.cuda.is_available(),
        label_names=["labels"],
        remove_unused_columns=False,  # the number of a text, for what its teacher made of it
    )


def _finite(predictions: Any) -> np.ndarray:
    logits: np.ndarray = np.asarray(predictions)
    if not np.isfinite(logits).all():
        raise DivergedError("training diverged: the model's answers are not numbers any more; lower --learning-rate")
    return logits


def _fingerprint(
    data: LabelledData,
    unlabelled: Sequence[Example],
    tokenizer: Any,
    model: Any,
    options: FinetuneOptions,
    distil: Any,
    teacher: Any,
) -> str:
    """What a run is known by when it goes on: what its checkpoints hold, wherever they lie."""
    digest = hashlib.sha256()
    told = {**asdict(options), "distil": None if distil is None else asdict(distil)}
    told["tokenizer"] = tokenizer_hash(tokenizer)
    told.pop("report_to")
    digest.update(json.dumps([told, data.task, data.labels], sort_keys=True).encode())
    for one in (model, teacher):
        if one is not None:
            add_model(digest, one)
    for example in (*data.train, *data.evaluation, *unlabelled):
        digest.update(repr((example.text, example.text_pair, example.label)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _write(
    output: Path,
    trainer: Trainer,
    tokenizer: Any,
    data: LabelledData,
    options: FinetuneOptions,
    max_length: int,
    metrics: dict[str, float],
    calibration: Calibration,
    command: str,
    base: str | Path,
    distil: dict[str, Any] | None,
) -> None:
    model = trainer.accelerator.unwrap_model(trainer.model)
    save_model(output, model, tokenizer)
    ours = isinstance(model, SqueezeBertForSequenceClassification)
    kind = "A SqueezeBERT-architecture text classifier" if ours else f"A text classifier, a {type(model).__name__}"
    write_card(output, data, options, metrics, calibration, command, str(base), kind)
    # The record comes last: a folder that has it is complete
    course = _course(trainer, _metric(options, data))
    write_record(output, data, options, max_length, metrics, calibration, command, str(base), distil, course)


def _course(trainer: Trainer, metric: str) -> list[dict[str, float]]:
    """The score at each evaluation on the way, resumed runs' first part included."""
    key = f"eval_{metric}"
    history = [entry for entry in trainer.state.log_history if key in entry]
    return [{"step": entry["step"], "epoch": round(entry["epoch"], 3), metric: entry[key]} for entry in history]
