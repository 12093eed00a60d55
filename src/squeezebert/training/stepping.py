"""transformers' Trainer on batches made beforehand: measured, logged and saved as it goes, resumed exactly.

Serves general distillation (`healing.py`), pretraining (`pretraining.py`) and markers of words (`marking.py`). The
loop itself is Trainer's.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from squeezebert.files.atomic import new_folder
from squeezebert.files.errors import DivergedError, FolderError, OptionError
from squeezebert.training.runs import first_line, save_model
from squeezebert.training.trainer import Report, duration

MILESTONES, STEP = "milestones", "step-"


class StepTrainer(Trainer, ABC):
    """A Trainer on batches made beforehand; it measures on held-out ones and logs rows.

    Subclasses say what a batch's loss is (`loss_of`) and what is measured (`measure`).
    """

    def __init__(self, *args: Any, log: Path, report: Report, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.log_file, self.report = log, report
        self.rows: list[dict[str, Any]] = []
        self._since: float | None = None
        self._seconds, self._tokens = 0.0, 0
        # Of this process, since the last row of the log; on its device, so that nothing waits for them
        self._counted_loss = torch.zeros((), device=self.args.device)
        self._counted_tokens = torch.zeros((), dtype=torch.int64, device=self.args.device)
        self._counted_from = 0

    @abstractmethod
    def loss_of(self, model: nn.Module, inputs: dict[str, Any], asked: Tensor | int | None) -> tuple[Tensor, Any]:
        """Return the loss of one batch and what the model gave; `asked` is Trainer's count of labels in the step."""

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the loss of one batch, counted for the log."""
        if self._since is None:  # the clock stands while nothing is trained
            self._since = time.monotonic()
        loss, outputs = self.loss_of(model, inputs, num_items_in_batch)
        self._counted_loss += loss.detach().float()
        self._counted_tokens += inputs["attention_mask"].sum()
        return (loss, outputs) if return_outputs else loss

    def carry_out(self, saves: Saves, save: str | None) -> int:
        """Train from `save`, or from the beginning, to the end or until asked to end; return the steps taken."""
        self.add_callback(saves)
        self.remove_callback(PrinterCallback)
        self.resume_log(0 if save is None else int(Path(save).name.rpartition("-")[2]))
        self.train(resume_from_checkpoint=save)
        return self.state.global_step

    @abstractmethod
    def measure(self) -> dict[str, Any]:
        """Return what is measured on the held-out batches, `loss` among it."""

    def told(self, row: dict[str, Any]) -> str:
        """Return what to say of a row of the log, beside its place."""
        return f"held-out loss {row['held_out_loss']:.4f}"

    def row_of(self, means: dict[str, Any]) -> dict[str, Any]:
        """Return what a row of the log says of what was measured."""
        return {f"held_out_{name}": value for name, value in means.items()}

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
        self._counted_from = step
        if self.rows:
            self._seconds, self._tokens = self.rows[-1]["seconds"], self.rows[-1]["tokens"]
        if self.is_world_process_zero():
            replace_text(self.log_file, "".join(json.dumps(row) + "\n" for row in self.rows))

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(cast(Any, self.train_dataset if train_dataset is None else train_dataset))

    def _take_counts(self) -> float:
        """Add the tokens of all processes since the last row, and return the mean loss of the steps."""
        if self.args.world_size > 1:
            torch.distributed.all_reduce(self._counted_loss)
            torch.distributed.all_reduce(self._counted_tokens)
        steps = self.state.global_step - self._counted_from
        loss: float = self._counted_loss.item() / max(steps, 1) / self.args.world_size
        self._tokens += int(self._counted_tokens)
        self._counted_loss.zero_()
        self._counted_tokens.zero_()
        self._counted_from = self.state.global_step
        return loss

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
        """Measure on the held-out batches, write a row of the log, and return the loss.

        Raises `DivergedError` when training diverged.
        """
        with self.pause():
            train_loss, means = self._take_counts(), self.measure()
            loss = means["loss"]
            if not math.isfinite(loss):
                raise DivergedError("training diverged: the held-out loss is not a number; lower --learning-rate")
            row: dict[str, Any] = {
                "step": self.state.global_step,
                "seconds": round(self._seconds, 3),
                "tokens": self._tokens,
                "train_loss": train_loss,
                **self.row_of(means),
            }
            self.rows.append(row)
            if self.is_world_process_zero():
                with self.log_file.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row) + "\n")
            speed = self._tokens / max(self._seconds, 1e-9)
            told = f"step {row['step']}, {duration(self._seconds)} of training, {speed:.0f} tokens a second"
            self.report(f"{told}: {self.told(row)}")
        metrics = {"eval_loss": float(loss)}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with self.pause():
            try:
                super()._save_checkpoint(model, trial)
            except (OSError, SafetensorError, RuntimeError) as error:  # torch's own writer raises the last
                if isinstance(error, RuntimeError) and "inline_container" not in str(error):
                    raise
                raise FolderError(
                    f"{self.args.output_dir}: the save at step {self.state.global_step} could not be written "
                    f"({first_line(error)}): the disk is full, or allows no more. Make room and repeat the "
                    "command: it goes on from the save before"
                ) from error


class Saves(TrainerCallback):
    """Says when to measure and save, and keeps the milestones in folders of their own."""

    def __init__(
        self,
        trainer: StepTrainer,
        save_every: int,
        milestones: Sequence[float],
        steps: int,
        output: Path,
        tokenizer: Any,
    ) -> None:
        self.trainer, self.every, self.steps = trainer, save_every, steps
        self.folder, self.tokenizer = output / MILESTONES, tokenizer
        self.milestones = {max(1, round(share * steps)) for share in milestones} - {steps}

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for a row at milestones, and for a row and a save every few steps and at the end."""
        step = state.global_step
        control.should_save |= step == self.steps or step % self.every == 0
        control.should_evaluate |= control.should_save or step in self.milestones
        place = self.folder / f"{STEP}{step}"
        # One that is there was kept before a kill, and has the same weights
        if step in self.milestones and not place.exists() and self.trainer.is_world_process_zero():
            with self.trainer.pause(), new_folder(place) as building:
                save_model(building, self.trainer.accelerator.unwrap_model(self.trainer.model), self.tokenizer)


class StopsOnTerm(TrainerCallback):
    """Ends a run that gets SIGTERM behind the step it is in, saved: batch systems send it before they kill.

    Of several processes any may have got it: all end behind the same step.
    """

    def __init__(self, report: Report) -> None:
        self.report, self.asked = report, False
        self._before: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the signal over."""
        with suppress(ValueError):  # signals belong to the main thread alone
            self._before = signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save and stop when a process was asked to."""
        asked = torch.tensor(float(self.asked), device=args.device)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(asked, op=torch.distributed.ReduceOp.MAX)
        if bool(asked) and state.global_step < state.max_steps:
            self.asked = True
            control.should_save = control.should_evaluate = control.should_training_stop = True
            self.report(f"asked to end: saving at step {state.global_step}; the same command goes on from there")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Give the signal back."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)


class StepOptions(Protocol):
    """What the options of all such runs have in common."""

    @property
    def learning_rate(self) -> float:
        """Peak learning rate."""

    @property
    def warmup(self) -> float:
        """Share of the steps over which it rises."""

    @property
    def seed(self) -> int:
        """Seed of Trainer."""

    @property
    def save_every(self) -> int:
        """Steps between saves."""


def step_arguments(options: StepOptions, work: Path, steps: int, **more: Any) -> TrainingArguments:
    """Return Trainer's arguments for `steps` steps on batches made beforehand, with its saves in `work`."""
    told: dict[str, Any] = {"lr_scheduler_type": "linear", "report_to": "none", **more}
    return TrainingArguments(
        output_dir=str(work),
        learning_rate=options.learning_rate,
        max_steps=steps,
        per_device_train_batch_size=1,  # an item of the dataset is a whole batch
        warmup_steps=round(options.warmup * steps),
        seed=options.seed,
        data_seed=options.seed,
        use_cpu=not torch.accelerator.is_available(),
        eval_strategy="no",
        save_strategy="no",  # `Saves` decides both
        save_total_limit=2,
        logging_steps=max(1, min(20, options.save_every)),
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        **told,
    )


def one_batch(items: list[Any]) -> Any:
    """Return the only item that a loader took: it is a batch already."""
    if len(items) != 1:
        raise ValueError(f"{len(items)} batches at once: items of this dataset are batches already")
    return items[0]


def _leave_group() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def check_devices() -> None:
    """Raise `OptionError` for several devices in one process, which would share each batch among them.

    A process that is one of several will leave their group when it ends: threads of the group that still run then can
    make an otherwise finished run end with an abort.
    """
    if "RANK" in os.environ:
        atexit.unregister(_leave_group)
        atexit.register(_leave_group)
    several = torch.cuda.is_available() and torch.cuda.device_count() > 1
    if several and "RANK" not in os.environ:
        raise OptionError(
            f"this machine has {torch.cuda.device_count()} devices: start one process for each (torchrun; for "
            "pretrain, sh launch/pretrain.sh does it), or choose one with CUDA_VISIBLE_DEVICES=0"
        )


def write_json(path: Path, told: Any) -> None:
    """Write a JSON file that is there whole or not at all."""
    replace_text(path, json.dumps(told, indent=1) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Write a text file that is there whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
