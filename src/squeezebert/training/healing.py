"""transformers' Trainer for general distillation: batches made beforehand, measured and logged as it goes.

Serves `general.py`; the loop itself is Trainer's.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from squeezebert.data.corpus import Corpus
from squeezebert.data.packing import Batches
from squeezebert.files.atomic import new_folder
from squeezebert.files.errors import DivergedError
from squeezebert.training.objective import Objective
from squeezebert.training.options import GeneralDistilOptions
from squeezebert.training.runs import save_model
from squeezebert.training.trainer import Report, duration

MILESTONES = "milestones"


class GeneralTrainer(Trainer):
    """A Trainer of an `Objective` on batches made beforehand; it measures on held-out sequences and logs rows."""

    def __init__(
        self,
        *args: Any,
        objective: Objective,
        held_out: Sequence[dict[str, Tensor]],
        log: Path,
        report: Report,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.distillation, self.held_out, self.log_file, self.report = objective, held_out, log, report
        self.distillation.teacher.to(self.args.device)
        self.rows: list[dict[str, Any]] = []
        self._since: float | None = None
        self._seconds, self._tokens = 0.0, 0
        self._loss, self._batches = torch.zeros(()), 0

    def resume_log(self, step: int) -> None:
        """Read the rows of the log up to `step`, drop later ones, and count time and tokens on from there."""
        self.rows = []
        if step and self.log_file.exists():
            for line in self.log_file.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except ValueError:  # cut off by a kill
                    break
                if row["step"] <= step:
                    self.rows.append(row)
        if self.rows:
            self._seconds, self._tokens = self.rows[-1]["seconds"], self.rows[-1]["tokens"]
        if self.is_world_process_zero():
            _replace(self.log_file, "".join(json.dumps(row) + "\n" for row in self.rows))

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(cast(Any, self.train_dataset if train_dataset is None else train_dataset))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the loss of one batch."""
        if self._since is None:
            self._since = time.monotonic()
        found = self.distillation(model, inputs)
        self._loss = self._loss + found["loss"].detach().cpu()
        self._batches += 1
        self._tokens += int(inputs["attention_mask"].sum()) * self.args.world_size
        return (found["loss"], found) if return_outputs else found["loss"]

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Nobody asks for them."""
        return 0

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Stop the clock for a block that is no training."""
        if self._since is not None:
            self._seconds += time.monotonic() - self._since
        self._since = None
        yield
        self._since = time.monotonic()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure on the held-out sequences, write a row of the log, and return the loss.

        Raises `DivergedError` when training diverged.
        """
        with self.pause():
            means = self._measure()
            loss, errors = means.pop("loss"), means.pop("errors", [])
            if not math.isfinite(loss):
                raise DivergedError("training diverged: the held-out loss is not a number; lower --learning-rate")
            row: dict[str, Any] = {
                "step": self.state.global_step,
                "seconds": round(self._seconds, 3),
                "tokens": self._tokens,
                "train_loss": float(self._loss) / max(self._batches, 1),
                "held_out_loss": loss,
                "hidden_errors": errors,
                **{f"held_out_{name}": value for name, value in means.items()},
            }
            self._loss, self._batches = torch.zeros(()), 0
            self.rows.append(row)
            if self.is_world_process_zero():
                with self.log_file.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row) + "\n")
            of_layers = f", error of each layer {' '.join(f'{error:.4f}' for error in errors)}" if errors else ""
            speed = self._tokens / max(self._seconds, 1e-9)
            told = f"step {row['step']}, {duration(self._seconds)} of training, {speed:.0f} tokens a second"
            self.report(f"{told}: held-out loss {loss:.4f}{of_layers}")
        metrics = {"eval_loss": float(loss)}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.no_grad()
    def _measure(self) -> dict[str, Any]:
        """The objective's parts on the held-out sequences, each the mean over tokens."""
        model = self.accelerator.unwrap_model(self.model)
        model.eval()
        sums: dict[str, Tensor] = {}
        weight = 0
        for batch in self.held_out:
            tokens = int(batch["attention_mask"].sum())
            found = self.distillation(model, {name: value.to(self.args.device) for name, value in batch.items()})
            for name, value in found.items():
                sums[name] = sums.get(name, torch.zeros(())) + tokens * value.cpu().double()
            weight += tokens
        model.train()
        return {name: (value / weight).tolist() for name, value in sums.items()}

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with self.pause():
            if self.distillation.cache is not None:
                self.distillation.cache.save()  # first: what a resumed run has seen has to be known
            super()._save_checkpoint(model, trial)


class Saves(TrainerCallback):
    """Says when to measure and save, and keeps the milestones in folders of their own."""

    def __init__(
        self, trainer: GeneralTrainer, options: GeneralDistilOptions, steps: int, output: Path, tokenizer: Any
    ) -> None:
        self.trainer, self.every, self.steps = trainer, options.save_every, steps
        self.folder, self.tokenizer = output / MILESTONES, tokenizer
        self.milestones = {max(1, round(share * steps)) for share in options.milestones} - {steps}

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for a row at milestones, and for a row and a save every few steps and at the end."""
        step = state.global_step
        control.should_save = step == self.steps or step % self.every == 0
        control.should_evaluate = control.should_save or step in self.milestones
        place = self.folder / f"step-{step}"
        # One that is there was kept before a kill, and has the same weights
        if step in self.milestones and not place.exists() and self.trainer.is_world_process_zero():
            with self.trainer.pause(), new_folder(place) as building:
                save_model(building, self.trainer.accelerator.unwrap_model(self.trainer.model), self.tokenizer)


class StepBatches(Dataset[dict[str, Tensor]]):
    """The batch of each step, made when it is asked for."""

    def __init__(self, corpus: Corpus, batches: Batches, steps: int) -> None:
        self.corpus, self.batches, self.steps = corpus, batches, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        sequences = self.batches[step]
        return {**tensors(self.corpus, sequences), "sequences": torch.from_numpy(sequences)}


def tensors(corpus: Corpus, sequences: np.ndarray) -> dict[str, Tensor]:
    """Return a batch of a corpus as the tensors that a model takes, (B, T) each."""
    return {name: torch.from_numpy(array) for name, array in corpus.batch(sequences).items()}


def write_json(path: Path, told: Any) -> None:
    """Write a JSON file that is there whole or not at all."""
    _replace(path, json.dumps(told, indent=1) + "\n")


def _replace(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
