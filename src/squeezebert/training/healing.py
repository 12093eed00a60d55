"""What general distillation adds to `stepping.py`: a teacher's objective on a corpus. Serves `general.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from squeezebert.data.corpus import Corpus
from squeezebert.data.packing import Batches
from squeezebert.training.objective import Objective
from squeezebert.training.stepping import StepTrainer


class GeneralTrainer(StepTrainer):
    """A Trainer of an `Objective` on batches of a corpus."""

    def __init__(self, *args: Any, objective: Objective, held_out: Sequence[dict[str, Tensor]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.distillation, self.held_out = objective, held_out
        self.distillation.teacher.to(self.args.device)

    def loss_of(self, model: nn.Module, inputs: dict[str, Any], asked: Tensor | int | None) -> tuple[Tensor, Any]:
        """Return the loss of one batch, and the objective's parts."""
        found = self.distillation(model, inputs)
        return found["loss"], found

    @torch.no_grad()
    def measure(self) -> dict[str, Any]:
        """Return the objective's parts on the held-out sequences, each the mean over tokens."""
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

    def row_of(self, means: dict[str, Any]) -> dict[str, Any]:
        """Return the parts under their names, and the error of each layer."""
        errors = means.pop("errors", [])
        loss = means.pop("loss")
        return {"held_out_loss": loss, "hidden_errors": errors, **super().row_of(means)}

    def told(self, row: dict[str, Any]) -> str:
        """Say the loss, and the error of each layer."""
        errors = row["hidden_errors"]
        of_layers = f", error of each layer {' '.join(f'{error:.4f}' for error in errors)}" if errors else ""
        return super().told(row) + of_layers

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.distillation.cache is not None:
            with self.pause():
                self.distillation.cache.save()  # first: what a resumed run has seen has to be known
        super()._save_checkpoint(model, trial)


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
