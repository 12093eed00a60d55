"""Labelled examples and a base checkpoint in, a trained checkpoint with its record out.

Serves `squeezebert train` and the demo. A killed run goes on where it was when the same call is made again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    PreTrainedConfig,
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
from squeezebert.files.errors import DivergedError, FolderError, OptionError
from squeezebert.model import SqueezeBertConfig, SqueezeBertForSequenceClassification
from squeezebert.training.card import write_card
from squeezebert.training.checkpoint import RECORD, clear_checkpoint, write_record
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
from squeezebert.training.teacher import accepted, fits_ours
from squeezebert.training.trainer import ClassifierTrainer, DistilTrainer, Progress, Report
from squeezebert.training.units import Units

PROBLEM_TYPES = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}


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


def load_base(
    base: str | Path,
    data: LabelledData,
    option: str = "--base",
    *,
    any_architecture: bool = False,
    dropout: float | None = None,
    spelled: Mapping[str, str] | None = None,
) -> tuple[Any, bool]:
    """Load a checkpoint folder or Hub id as a classifier for the labels of `data`, and say whether it has a head.

    A head that names the same labels in another order is put in that of `data`, and one for other labels is not taken
    over; one that names none is taken as it is. `spelled` is that of `label_order`.

    With `any_architecture`, what is neither BERT's nor ours is loaded as transformers' class for it. `dropout` is for
    all that the configuration has a dropout for; by default they are the checkpoint's.
    Raises `FolderError` when there is no such checkpoint, and `OptionError` for an architecture that does not fit.
    """
    names = data.labels or ("value",)
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # a head that starts from nothing is what was asked for
    try:
        kind: Any = SqueezeBertForSequenceClassification
        if any_architecture and not fits_ours(base):
            kind = AutoModelForSequenceClassification
        named = _named_outputs(PreTrainedConfig.get_config_dict(str(base))[0])
        changed: dict[str, Any] = {}
        if dropout is not None:
            theirs = kind is AutoModelForSequenceClassification
            config = AutoConfig.from_pretrained(str(base)) if theirs else SqueezeBertConfig()
            changed = dict.fromkeys(_dropouts_of(config), dropout)
        model, info = kind.from_pretrained(
            str(base),
            output_loading_info=True,
            **changed,
            num_labels=len(names),
            id2label=dict(enumerate(names)),
            label2id={name: number for number, name in enumerate(names)},
            problem_type=PROBLEM_TYPES[data.task],
            ignore_mismatched_sizes=True,
        )
        absent = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
        weight = output_layer(model).weight
        head = next(name for name, parameter in model.named_parameters() if parameter is weight)
        return model, head not in absent and _is_for(model, named, data.labels, spelled or {})
    except (OSError, SafetensorError) as error:
        raise FolderError(
            f"{base}: no checkpoint there. {option} takes a folder with config.json and weights, or the id of a "
            f"model on the Hugging Face Hub, which has to be reachable ({first_line(error)})"
        ) from error
    except ValueError as error:
        raise OptionError(f"{option} {base}: {error}") from error
    finally:
        transformers.logging.set_verbosity(verbosity)


def _named_outputs(config: Mapping[str, Any]) -> list[str]:
    """The labels that a configuration names, in the order of its outputs; none where it has placeholders."""
    named = config.get("id2label") or {}
    own = [str(label) for _, label in sorted(named.items(), key=lambda item: int(item[0]))]
    return [] if all(label == f"LABEL_{place}" for place, label in enumerate(own)) else own


@torch.no_grad()
def _is_for(model: Any, named: Sequence[str], labels: Sequence[str], spelled: Mapping[str, str]) -> bool:
    """Whether a head is for `labels`; puts its outputs in their order, or makes it new."""
    head = output_layer(model)
    found = [spelled.get(label.lower(), label) for label in named]
    if not named or not labels or found == list(labels):
        return True
    if sorted(found) != sorted(labels):
        torch.nn.init.normal_(head.weight, std=getattr(model.config, "initializer_range", 0.02))
        if head.bias is not None:
            torch.nn.init.zeros_(head.bias)
        return False
    _put_in_order(head, [found.index(label) for label in labels])
    return True


@torch.no_grad()
def _put_in_order(head: torch.nn.Linear, order: Sequence[int]) -> None:
    for parameter in head.parameters():
        parameter.copy_(parameter[list(order)].clone())


def output_layer(model: Any) -> torch.nn.Linear:
    """Return the layer that makes a classifier's answers: the last linear one."""
    return [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]


def longest(model: Any) -> int:
    """Return how many tokens a model has positions for."""
    positions = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
    table = next((module for module in positions if isinstance(module, torch.nn.Embedding)), None)
    if table is None:
        most = getattr(model.config, "max_position_embeddings", None)
        return int(most) if most and most > 0 else sys.maxsize  # XLNet has -1, for no limit
    # RoBERTa and its kin count from behind the padding token's number
    return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)


def load_task_teacher(
    name: str | Path,
    data: LabelledData,
    tokenizer: Any,
    *,
    any_architecture: bool = False,
    spelled: Mapping[str, str] | None = None,
) -> Any:
    """Load a model that was trained on the labels of `data`, to teach a student that reads with `tokenizer`.

    Its outputs are put in the order of the labels; `spelled` is that of `label_order`. Raises `FolderError` when there
    is none, `OptionError` when its labels or its vocabulary are others.
    """
    label_order(name, data.labels, spelled)
    teacher, trained_head = load_base(name, data, "--teacher", any_architecture=any_architecture, spelled=spelled)
    if not trained_head:
        raise OptionError(
            f"--teacher {name}: it has no head for {len(data.labels) or 1} outputs: train it on this table first"
        )
    if load_tokenizer(name).get_vocab() != tokenizer.get_vocab():
        raise OptionError(f"--teacher {name}: its vocabulary is not the student's, so it would read other words")
    return teacher.eval()


def label_order(name: str | Path, labels: Sequence[str], spelled: Mapping[str, str] | None = None) -> list[int]:
    """Return which output of a trained classifier stands for each of `labels`, as its configuration names them.

    `spelled` is labels by other spellings in small letters, for labels that others name as well; then a checkpoint
    that does not name its outputs is refused, because nothing tells their order. Without, they are in the order of
    `labels`. Raises `OptionError` when it was trained on others, `FolderError` when there is no such checkpoint.
    """
    try:
        saved = PreTrainedConfig.get_config_dict(str(name))[0].get("id2label") or {}
    except OSError as error:
        raise FolderError(
            f"{name}: no checkpoint there. --teacher takes a folder with config.json and weights, or the id of a "
            f"model on the Hugging Face Hub, which has to be reachable ({first_line(error)})"
        ) from error
    own = _named_outputs({"id2label": saved})
    generic = not own
    if not labels or (generic and spelled is None):
        return list(range(len(labels)))
    if generic:
        names = ", ".join(f'"{place}": "..."' for place in range(len(labels)))
        raise OptionError(
            f"--teacher {name}: its config.json does not name its outputs "
            f"({', '.join(map(str, saved.values())) or 'no id2label'}), and in "
            f'another order they would teach the wrong labels; write "id2label": {{{names}}} there, with '
            f"{', '.join(labels)} in the order that it was trained with"
        )
    found = [(spelled or {}).get(label.lower(), label) for label in own]
    if sorted(found) != sorted(labels):
        raise OptionError(
            f"--teacher {name}: it was trained on the labels {', '.join(own[:5])}, not on {', '.join(labels[:5])}"
        )
    return [found.index(label) for label in labels]


def load_tokenizer(base: str | Path) -> Any:
    """Load a checkpoint's tokenizer. Raises `FolderError` when it has none."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(base))
    except (OSError, ValueError) as error:
        raise FolderError(f"{base}: no tokenizer there; copy its tokenizer.json beside the weights") from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes up where there is none
        raise FolderError(f"{base}: no tokenizer there; copy its tokenizer.json beside the weights")
    return tokenizer


def check_tokens(checkpoint: str | Path, tokenizer: Any, model: Any) -> None:
    """Raise `OptionError` when a tokenizer has more tokens than the model has embeddings, or none to fill up with."""
    if tokenizer.pad_token_id is None or model.config.pad_token_id is None:
        raise OptionError(
            f"{checkpoint}: no padding token, without which texts of different length cannot be read at once: name "
            "one as pad_token in tokenizer_config.json, and its number as pad_token_id in config.json"
        )
    tokens = max(tokenizer.get_vocab().values()) + 1
    if tokens > model.config.vocab_size:
        raise OptionError(
            f"{checkpoint}: its tokenizer has {tokens} tokens, the model embeddings for {model.config.vocab_size}: "
            "they do not belong together; put the tokenizer beside it that the model was trained with"
        )


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
        _set_dropout(model, options.dropout)
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


def _set_dropout(model: Any, dropout: float) -> None:
    """Set every dropout of a model, and those that its configuration names."""
    for name in _dropouts_of(model.config):
        setattr(model.config, name, dropout)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
        for name, value in vars(module).items():  # numbers, where a module calls dropout as a function
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, dropout)


def _dropouts_of(config: Any) -> list[str]:
    """Names of a configuration's dropouts; those of whole layers are another thing."""
    told = config.to_dict().items()
    return [
        name
        for name, value in told
        if ("dropout" in name or name.endswith("_pdrop")) and isinstance(value, float) and "layer" not in name
    ]


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
