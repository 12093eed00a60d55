"""The loss of a student against its teacher's inner states on one batch. Serves `healing.py` and `general.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from squeezebert.data.options import Task
from squeezebert.training.losses import layer_errors, learning_layers, logit_loss, matched_layers, relation_loss
from squeezebert.training.options import GeneralDistilOptions
from squeezebert.training.teacher import Relations, StateCache, accepted


class Objective:
    """The loss of a student on a batch, and its parts; holds the teacher, and hooks on both models until `close`."""

    def __init__(
        self, student: Any, teacher: Any, options: GeneralDistilOptions, cache: StateCache | None = None
    ) -> None:
        self.options, self.cache = options, cache
        self.teacher = teacher.eval().requires_grad_(False)
        self.layers = matched_layers(student.config.num_hidden_layers, teacher.config.num_hidden_layers)
        self.learns = learning_layers(student.config)
        self.accepted = accepted(teacher)
        self.answers = answers_of(teacher) if options.logit_weight else ("single_label", 1.0)
        self.relations: list[Relations] = []
        if options.relation_weight:
            self.relations = [Relations(student), Relations(teacher, options.relation_layer)]

    def close(self) -> None:
        """Take the hooks off."""
        for relations in self.relations:
            relations.remove()

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return `loss`, its parts (`hidden`, `relation`, `logits`) and `errors`, the hidden error of each layer."""
        options = self.options
        inputs = {name: value for name, value in batch.items() if name != "sequences"}
        mask_BT = inputs["attention_mask"]
        bf16 = options.precision == "bf16"
        with torch.autocast(mask_BT.device.type, torch.bfloat16, enabled=bf16):
            states, logits = self._teach(inputs, batch.get("sequences"))
            outputs = model(**inputs, output_hidden_states=options.hidden_weight > 0)
            found: dict[str, Tensor] = {}
            if options.hidden_weight:
                found["errors"] = layer_errors(outputs.hidden_states[1:], states, mask_BT)
                found["hidden"] = found["errors"][self.learns].mean()
            if options.relation_weight:
                mine, theirs = (relations.take(len(mask_BT)) for relations in self.relations)
                found["relation"] = relation_loss(mine, theirs, mask_BT, options.relation_heads)
            if options.logit_weight:
                found["logits"] = logit_loss(outputs.logits, logits, mask_BT, *self.answers)
        weights = {
            "hidden": options.hidden_weight,
            "relation": options.relation_weight,
            "logits": options.logit_weight,
        }
        parts = [weight * found[name] for name, weight in weights.items() if name in found]
        return {**found, "loss": torch.stack(parts).sum()}

    @torch.inference_mode()
    def _teach(self, inputs: dict[str, Tensor], sequences: Tensor | None) -> tuple[Sequence[Tensor], Any]:
        """The teacher's states of the layers to compare, and its logits or None."""
        if self.cache is None or sequences is None:
            return self._run_teacher(inputs)
        made = lambda: self._run_teacher(inputs)[0]  # noqa: E731
        return self.cache.states(sequences.cpu().numpy(), inputs["attention_mask"], made), None

    def _run_teacher(self, inputs: dict[str, Tensor]) -> tuple[Sequence[Tensor], Any]:
        taken = {name: value for name, value in inputs.items() if name in self.accepted}
        taught = self.teacher(**taken, output_hidden_states=self.options.hidden_weight > 0)
        states = [taught.hidden_states[layer] for layer in self.layers] if self.options.hidden_weight else []
        return states, getattr(taught, "logits", None)


def answers_of(model: Any) -> tuple[Task, float]:
    """Return what a model's answers are, and the unit of those that are numbers.

    The unit is the length of the head's weights: a difference is then one of the states that the head reads, whatever
    the numbers stand for.
    """
    if not type(model).__name__.endswith("ForSequenceClassification"):
        return "single_label", 1.0
    if model.config.problem_type == "multi_label_classification":
        return "multi_label", 1.0
    if model.config.problem_type != "regression" and model.config.num_labels != 1:
        return "single_label", 1.0
    weight = getattr(getattr(model, "classifier", None), "weight", None)
    return "regression", 1.0 if weight is None else max(float(weight.detach().float().norm()), 1e-6)
