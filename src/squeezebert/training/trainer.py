"""transformers' Trainer with what our runs add: distillation from a teacher, and progress with expected time.

Serves `finetune.py`; the loop itself is Trainer's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from squeezebert.data.options import Task
from squeezebert.training.losses import hidden_loss, soft_loss
from squeezebert.training.options import DistilOptions

Report = Callable[[str], None]


class DistilTrainer(Trainer):
    """A Trainer whose model also learns from `teacher`, a model of the same labels that is not trained.

    Training loss: alpha * soft + (1 - alpha) * hard, plus `hidden_weight` times the hidden-state loss.
    Evaluation is that of the labels alone.
    """

    def __init__(self, *args: Any, teacher: nn.Module, distil: DistilOptions, task: Task, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.teacher = teacher.to(self.args.device).eval().requires_grad_(False)
        self.distil, self.task = distil, task

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Return the loss of one batch, and the student's outputs where they are asked for."""
        hidden = self.distil.hidden_weight > 0 and model.training
        outputs = model(**inputs, output_hidden_states=hidden)
        loss: Tensor = outputs.loss
        if model.training:
            with torch.inference_mode():
                features = {name: value for name, value in inputs.items() if name != "labels"}
                taught = self.teacher(**features, output_hidden_states=hidden)
            soft = soft_loss(outputs.logits, taught.logits.clone(), self.task, self.distil.temperature)
            loss = self.distil.alpha * soft + (1 - self.distil.alpha) * loss
            if hidden:
                states = [state.clone() for state in taught.hidden_states]  # out of inference mode
                difference = hidden_loss(outputs.hidden_states, states, inputs["attention_mask"])
                loss = loss + self.distil.hidden_weight * difference
        if not return_outputs:
            return loss
        # Trainer takes everything beside the loss as predictions
        return loss, {"loss": loss, "logits": outputs.logits}


@dataclass
class Progress(TrainerCallback):
    """Says at most every few seconds how far training is, its loss, and when it should end."""

    report: Report
    """Called with one line of text."""
    metric: str = ""
    """The score to show at an evaluation."""
    every: float = 10.0
    """Seconds between two lines."""
    _started: tuple[float, int] | None = field(default=None, init=False)
    _said: float = field(default=0.0, init=False)
    _loss: float | None = field(default=None, init=False)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note where the clock starts: after a resume, not at step 0."""
        self._started = (time.monotonic(), state.global_step)
        if state.global_step:
            self.report(f"resuming at step {state.global_step} of {state.max_steps}")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep the newest loss."""
        self._loss = (logs or {}).get("loss", self._loss)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say a line if the last one is old enough."""
        now = time.monotonic()
        if self._started is None or now - self._said < self.every:
            return
        self._said = now
        since, first = self._started
        done = state.global_step - first
        left = (now - since) / max(done, 1) * (state.max_steps - state.global_step)
        loss = "" if self._loss is None else f", loss {self._loss:.3f}"
        self.report(f"step {state.global_step} of {state.max_steps}{loss}, about {duration(left)} left")

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Say the score."""
        score = (metrics or {}).get(f"eval_{self.metric}")
        if score is not None:
            self.report(f"step {state.global_step}: {self.metric} {score:.4f} on the evaluation rows")


def duration(seconds: float) -> str:
    """Return a length of time as people say it: 42 s, 3 min, 1 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
