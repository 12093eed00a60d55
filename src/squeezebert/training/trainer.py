"""transformers' Trainer with what our runs add: distillation from a teacher, and progress with expected time.

Serves `finetune.py`; the loop itself is Trainer's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import get_length_grouped_indices

from squeezebert.data.batches import TokenisedTexts
from squeezebert.data.options import Task
from squeezebert.training.adversarial import Perturbation
from squeezebert.training.losses import hard_loss, hidden_loss, learning_layers, soft_loss
from squeezebert.training.options import DistilOptions, FinetuneOptions
from squeezebert.training.regroup import align, stream_order
from squeezebert.training.taught import TaughtTexts
from squeezebert.training.units import Units

Report = Callable[[str], None]


class LengthSampler(Sampler[int]):
    """Rows in batches of like length, in an order that seed and epoch alone decide.

    transformers' own asks the global generator: a run resumed in a later epoch would see other batches.
    """

    def __init__(self, lengths: list[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader at the start of each epoch, resumed ones included."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch)
        return iter(get_length_grouped_indices(self.lengths, self.batch_size, generator=generator))


class ClassifierTrainer(Trainer):
    """A Trainer whose batches hold texts of like length; with `perturbs`, their embeddings are perturbed."""

    def __init__(self, *args: Any, perturbs: FinetuneOptions | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.perturbs = perturbs

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Return the loss of one batch, and the answers where they are asked for."""
        loss, outputs = super().compute_loss(model, inputs, True, cast(Any, num_items_in_batch))
        if not return_outputs:
            return cast(Tensor, loss)
        # Trainer takes everything beside the loss as predictions, and some models return more than answers
        return loss, {"loss": loss, "logits": outputs["logits"]}

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Run forward and backward on one batch, or as often as adversarial training does; return the loss."""

        def step() -> Tensor:
            return super(ClassifierTrainer, self).training_step(model, dict(inputs), cast(Any, num_items_in_batch))

        if self.perturbs is None:
            return step()
        embeddings = self.accelerator.unwrap_model(model).get_input_embeddings()
        mask = inputs["attention_mask"].to(self.args.device)
        batches = self.current_gradient_accumulation_steps  # what Trainer divides each loss by
        self.current_gradient_accumulation_steps = batches * self.perturbs.adversarial_steps
        try:
            return Perturbation(embeddings, mask, self.perturbs).run(step)
        finally:
            self.current_gradient_accumulation_steps = batches

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthSampler:
        rows = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(encoding["input_ids"]) for encoding in cast(TokenisedTexts, rows).encodings]
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthSampler(lengths, batch, self.args.seed)


class DistilTrainer(ClassifierTrainer):
    """A Trainer whose model also learns from `teacher`, a model of the same labels that is not trained.

    Training loss: alpha * soft + (1 - alpha) * hard, plus `hidden_weight` times the hidden-state loss; a text without
    a label has no hard part. Evaluation is that of the labels alone. With `taught`, what the teacher makes of the
    texts is looked up there, by the number of a text in its batch (`row`).
    """

    def __init__(
        self,
        *args: Any,
        teacher: nn.Module,
        distil: DistilOptions,
        task: Task,
        units: Units,
        taught: TaughtTexts | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.taught, self.order = taught, None
        if taught is not None:
            self.order = stream_order(teacher, cast(Any, self.model))
        elif distil.hidden_weight:
            teacher = align(teacher, cast(Any, self.model))
        self.teacher = teacher.to(self.args.device).eval().requires_grad_(False)
        self.distil, self.task, self.units = distil, task, units
        self.learns = learning_layers(cast(Any, self.model).config)

    def _teach(self, inputs: dict[str, Any], row: Tensor | None, hidden: bool) -> tuple[Tensor, list[Tensor]]:
        """The teacher's answers to a batch, and the states of its layers where they are learned."""
        if self.taught is not None and row is not None:
            return self.taught.look_up(row, inputs["attention_mask"], self.order)
        with torch.inference_mode():
            features = {name: value for name, value in inputs.items() if name != "labels"}
            taught = self.teacher(**features, output_hidden_states=hidden)
        states = taught.hidden_states[1:] if hidden else ()
        return taught.logits.clone(), [state.clone() for state in states]  # out of inference mode

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Return the loss of one batch, and the student's outputs where they are asked for."""
        hidden = self.distil.hidden_weight > 0 and model.training
        row, labels = inputs.get("row"), inputs.get("labels")
        left_out = ("row", "labels") if model.training else ("row",)
        inputs = {name: value for name, value in inputs.items() if name not in left_out}
        outputs = model(**inputs, output_hidden_states=hidden)
        loss: Tensor = outputs.loss
        if model.training and labels is not None:
            loss = hard_loss(outputs.logits, labels, self.task)
            answers, states = self._teach(inputs, row, hidden)
            answers = self.units.to_standard(answers)
            soft = soft_loss(outputs.logits, answers, self.task, self.distil.temperature)
            loss = self.distil.alpha * soft + (1 - self.distil.alpha) * loss
            if hidden:
                difference = hidden_loss(outputs.hidden_states[1:], states, inputs["attention_mask"], self.learns)
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
