"""A corpus of `squeezebert corpus` and a model in; the model, pretrained on masked words and sentence order, out.

Serves `squeezebert pretrain`. A killed run goes on where it was when the same call is made again, also with another
number of processes. The recipe is that of Iandola et al. 2020 (arXiv 2006.11316), section 4.1.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import TrainerCallback

from squeezebert.data.pretraining.batches import IGNORED, Masking, PretrainingBatches
from squeezebert.data.pretraining.rows import PretrainingCorpus, Rows
from squeezebert.files.errors import OptionError
from squeezebert.training.lamb import Lamb
from squeezebert.training.options import PretrainOptions
from squeezebert.training.runs import (
    PROGRESS_FOLDER,
    add_model,
    begin,
    check_output,
    dropout_of,
    first_line,
    latest_save,
    save_model,
)
from squeezebert.training.stepping import (
    MILESTONES,
    Saves,
    StepTrainer,
    StopsOnTerm,
    check_devices,
    one_batch,
    step_arguments,
    write_json,
)
from squeezebert.training.trainer import Progress, Report

RECORD = "pretraining.json"
LOG = "pretraining.jsonl"
_HELD_OUT_BATCH = 32
# Options that change nothing of what is learned
_HARMLESS = frozenset({"report_to", "save_every", "held_out_rows"})
_SPECIAL = 3  # tokens of a row that no document holds: [CLS] and two [SEP]


@dataclass(frozen=True)
class PretrainResult:
    """What a run found when it ended."""

    checkpoint: Path
    """The folder with model, tokenizer, record and log."""
    finished: bool
    """Whether it took all its steps, or was asked to end before."""
    steps: int
    """Optimiser steps that were taken, over resumes."""
    held_out: dict[str, Any]
    """The log's last row: losses and accuracies on held-out documents."""


def pretrain(
    model: Any,
    corpus: PretrainingCorpus,
    output: Path,
    options: PretrainOptions,
    *,
    command: str = "",
    report: Report = lambda line: None,
    callbacks: Sequence[TrainerCallback] = (),
) -> PretrainResult:
    """Train `model`, a `SqueezeBertForPreTraining`, on a corpus and write it to `output`.

    The model is trained in place. `output` gets its checkpoint and tokenizer, `pretraining.jsonl` with a row for each
    save (as training goes), the milestones asked for, and last of all `pretraining.json`: a folder that has it is
    complete. SIGTERM ends the run behind the step it is in, saved.

    Under `torchrun` every process calls this. A run that was killed is continued by the same call, with any number of
    processes that divides the batch; with another model, corpus or options it is refused.

    Raises `FolderError` for an output that holds something else or a damaged shard, `OptionError` for options, model
    and corpus that do not fit together or a launcher that shards weights, `DivergedError` when training diverged.
    """
    check_launcher(options)
    tokenizer = corpus.tokenizer()
    check_sizes(model, corpus, options)
    if _rank() == 0:
        corpus.check_shards()
    accumulate = micro_batches(options) // _processes()
    work = output / PROGRESS_FOLDER
    fingerprint = _fingerprint(model, corpus, options)
    if _rank() == 0:
        check_output(output, fingerprint, RECORD, overwrites=False)
    transformers.set_seed(options.seed)
    training, held_out = batches_of(corpus, tokenizer, options)
    report(
        f"{len(training.rows)} rows of {training.rows.total} tokens to learn from, {training.padding():.1%} padding, "
        f"{len(held_out)} batches of {held_out[0]['input_ids'].shape[0]} to measure on; a step is {accumulate} "
        f"batches of {options.micro_batch} rows in each of {_processes()} processes"
    )
    if _rank() == 0:
        begin(work, fingerprint)
        latest_save(work)  # deletes what a kill left half written, before others look
    _wait()
    save = latest_save(work)
    if save is None and _rank() == 0:
        shutil.rmtree(output / MILESTONES, ignore_errors=True)
    with nullcontext() if options.dropout is None else dropout_of(model, options.dropout):
        try:
            trainer = PretrainTrainer(
                model=model,
                args=step_arguments(
                    options,
                    work,
                    options.steps,
                    gradient_accumulation_steps=accumulate,
                    max_grad_norm=options.max_grad_norm,
                    bf16=options.precision == "bf16",
                    report_to=options.report_to,
                    ddp_find_unused_parameters=False,
                    **_schedule(options),
                ),
                train_dataset=MicroBatches(training, options.steps * micro_batches(options)),
                data_collator=one_batch,
                callbacks=[Progress(report), StopsOnTerm(report), *callbacks],
                options=options,
                held_out=held_out,
                log=output / LOG,
                report=report,
            )
        except (ImportError, RuntimeError, ValueError) as error:
            if options.report_to == "none":
                raise
            raise OptionError(f"--report-to {options.report_to}: {first_line(error)}") from error
        told = options.save_every, options.milestones, options.steps, output, tokenizer
        steps = trainer.carry_out(Saves(trainer, *told), save)
    row = trainer.rows[-1] if trainer.rows else {}
    if steps < options.steps:
        return PretrainResult(output, False, steps, row)
    if trainer.is_world_process_zero():
        save_model(output, trainer.accelerator.unwrap_model(trainer.model), tokenizer)
        done = {
            "command": command,
            "options": asdict(options),
            "corpus": {name: corpus.manifest[name] for name in ("sources", "splits", "left_out", "notices")},
            "padding": training.padding(),
            "steps": steps,
            "parameters": sum(p.numel() for p in model.parameters()),
            **{name: row[name] for name in ("tokens", "seconds")},
            "held_out": row,
            "versions": {name: version(name) for name in ("squeezebert", "torch", "transformers")},
        }
        write_json(output / RECORD, done)  # last: a folder that has it is complete
        shutil.rmtree(work)
    _wait()  # nobody leaves the group before the model is there
    return PretrainResult(output, True, steps, row)


def check_launcher(options: PretrainOptions) -> None:
    """Raise `OptionError` for a launcher that shards weights, of which LAMB needs the norms, or for none but several
    devices.
    """
    check_devices()
    for name in ("FSDP", "DEEPSPEED"):
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() in ("1", "true", "yes"):
            raise OptionError(
                f"{name} shards the weights, and LAMB needs the norms of whole ones; the model is small enough for "
                "every process: launch with torchrun, which makes it DDP"
            )


def check_sizes(model: Any, corpus: PretrainingCorpus, options: PretrainOptions) -> None:
    """Raise `OptionError` when model, corpus and options do not fit together."""
    entries, positions = model.config.vocab_size, model.config.max_position_embeddings
    if corpus.manifest["vocabulary_entries"] > entries:
        raise OptionError(
            f"the corpus's vocabulary has {corpus.manifest['vocabulary_entries']} entries, and the model embeddings "
            f"for {entries}: they do not belong together; set vocab_size in --config, or tokenise with the model's own"
        )
    if options.max_length > positions:
        raise OptionError(f"--max-length {options.max_length}: the model has {positions} positions")
    processes = _processes()
    if micro_batches(options) % processes:
        raise OptionError(
            f"--batch-size {options.batch_size} is {micro_batches(options)} batches of {options.micro_batch} rows, "
            f"which {processes} processes cannot share evenly: choose another --micro-batch or number of processes"
        )


def micro_batches(options: PretrainOptions) -> int:
    """Return how many batches that a process takes at once make one of the optimiser."""
    return options.batch_size // options.micro_batch


def batches_of(
    corpus: PretrainingCorpus, tokenizer: Any, options: PretrainOptions
) -> tuple[PretrainingBatches, list[dict[str, np.ndarray]]]:
    """Return the batches to learn from, and those of held-out documents to measure on, which are always the same."""
    masking = Masking.of(tokenizer, options.mask_share, options.whole_words)
    room = options.max_length - _SPECIAL
    training = PretrainingBatches(
        Rows.cut(corpus.split("train"), room), options.micro_batch, tokenizer, masking, options.seed
    )
    rows = Rows.cut(corpus.split("held_out"), room)
    size = min(_HELD_OUT_BATCH, options.held_out_rows, len(rows))  # the same rows whatever a process takes at once
    held_out = PretrainingBatches(rows, size, tokenizer, masking, 0, varies=False)
    count = max(1, min(options.held_out_rows // size, held_out.of_pass))
    return training, [held_out[batch] for batch in range(count)]


class MicroBatches(Dataset[dict[str, Tensor]]):
    """The batches of a whole run, made when they are asked for."""

    def __init__(self, batches: PretrainingBatches, count: int) -> None:
        self.batches, self.count = batches, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return {name: torch.from_numpy(array) for name, array in self.batches[number].items()}


class PretrainTrainer(StepTrainer):
    """A Trainer of masked words and sentence order."""

    def __init__(
        self, *args: Any, options: PretrainOptions, held_out: Sequence[dict[str, np.ndarray]], **kwargs: Any
    ) -> None:
        self.options, self.held_out = options, held_out
        super().__init__(*args, **kwargs)
        # Trainer then counts the words that a step asks for, over all its batches and processes, and divides nothing
        self.model_accepts_loss_kwargs = True
        self._orders = torch.ones(())

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """Take the batches of a step, and count the orders that they ask for as Trainer counts the words."""
        batches, words = super().get_batch_samples(*args, **kwargs)
        orders = sum((batch["sentence_order_label"] != IGNORED).sum() for batch in batches)
        orders = torch.as_tensor(orders, device=self.args.device)
        if self.args.world_size > 1:
            torch.distributed.all_reduce(orders)
        self._orders = orders.clamp_min(1)
        return batches, words

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Warn of what a save lacks; weights that are others' under a second name are in no file."""
        model: Any = self.model
        if set(load_result.missing_keys) <= set(model._tied_weights_keys) and not load_result.unexpected_keys:
            model.tie_weights()
        else:
            super()._issue_warnings_after_load(load_result)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Return LAMB or AdamW; biases and normalisation have no decay, and under LAMB no trust ratio."""
        if self.optimizer is None:
            self.optimizer = optimizer_of(cast(nn.Module, self.model if model is None else model), self.options)
        return self.optimizer

    def loss_of(self, model: nn.Module, inputs: dict[str, Any], asked: Tensor | int | None) -> tuple[Tensor, Any]:
        """Return a batch's part of the step's loss, and the outputs."""
        outputs = model(**inputs, masked_only=True, reduction="sum")
        # Means over the whole step: batches of short rows, and processes that got them, have fewer words to ask
        words = outputs.prediction_loss / cast(Tensor, asked)
        return (words + outputs.seq_relationship_loss / self._orders) * self.args.world_size, outputs

    @torch.no_grad()
    def measure(self) -> dict[str, Any]:
        """Return the masked-word loss and accuracy and the sentence-order loss and accuracy on held-out rows.

        Each is a mean over what is asked; those of the order are None where no row has two sentences. Processes share
        the batches.
        """
        model = self.accelerator.unwrap_model(self.model)
        model.eval()
        sums = torch.zeros(6, dtype=torch.float64)
        for batch in self.held_out[self.args.process_index :: self.args.world_size]:
            inputs = {name: torch.from_numpy(array).to(self.args.device) for name, array in batch.items()}
            with self.compute_loss_context_manager():
                outputs = model(**inputs, masked_only=True)
            words, order = inputs["labels"], inputs["sentence_order_label"]
            asked = order != IGNORED
            found = []
            for logits, labels in (
                (outputs.prediction_logits, words[words != IGNORED]),
                (outputs.seq_relationship_logits[asked], order[asked]),
            ):
                found.append(nn.functional.cross_entropy(logits.float(), labels, reduction="sum"))
                found += [(logits.argmax(-1) == labels).sum(), torch.tensor(len(labels))]
            sums += torch.stack([one.double().cpu() for one in found])
        if self.args.world_size > 1:
            shared = sums.to(self.args.device)
            torch.distributed.all_reduce(shared)
            sums = shared.cpu()
        model.train()
        words_loss, words_right, words_count, order_loss, order_right, order_count = sums.tolist()
        mlm, sop = words_loss / words_count, order_loss / order_count if order_count else None
        return {
            "loss": mlm + (sop or 0.0),
            "mlm_loss": mlm,
            "mlm_accuracy": words_right / words_count,
            "sop_loss": sop,
            "sop_accuracy": order_right / order_count if order_count else None,
            "sop_asked": int(order_count),
        }

    def told(self, row: dict[str, Any]) -> str:
        """Say the losses and accuracies."""
        right, asked = row["held_out_sop_accuracy"], row["held_out_sop_asked"]
        order = "no row has two sentences to ask the order of" if right is None else f"SOP accuracy {right:.1%}"
        return (
            f"held-out MLM loss {row['held_out_mlm_loss']:.4f}, accuracy {row['held_out_mlm_accuracy']:.1%}; "
            f"{order}{f' of {asked}' if asked else ''}"
        )


def optimizer_of(model: nn.Module, options: PretrainOptions) -> torch.optim.Optimizer:
    """Return the optimiser of `options` over what of `model` is trained."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # Vectors are biases and normalisation, which decay and trust ratio spare in the usual recipes
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if options.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=options.learning_rate, eps=1e-6, fused=True)
    groups[1]["trust"] = False
    return Lamb(groups, lr=options.learning_rate)


def _schedule(options: PretrainOptions) -> dict[str, Any]:
    """Trainer's words for a learning rate that stays at its peak before it falls; nothing where it falls at once."""
    if options.decay is None:
        return {}
    room = options.steps - round(options.warmup * options.steps)  # both shares may have been rounded up
    falls = {"num_decay_steps": min(round(options.decay * options.steps), room), "decay_type": "linear"}
    return {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": falls}


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _wait() -> None:
    """Let every process see what the first one did to the folder."""
    if _processes() > 1:
        if not torch.distributed.is_initialized():
            transformers.TrainingArguments(use_cpu=not torch.accelerator.is_available()).device  # noqa: B018
        torch.distributed.barrier()


def _fingerprint(model: Any, corpus: PretrainingCorpus, options: PretrainOptions) -> str:
    told = {name: value for name, value in asdict(options).items() if name not in _HARMLESS}
    shards = [file["sha256"] for shard in corpus.manifest["shards"] for file in shard["files"]]
    digest = hashlib.sha256(json.dumps([told, shards, corpus.manifest["tokenizer"]], sort_keys=True).encode())
    add_model(digest, model)
    return digest.hexdigest()
