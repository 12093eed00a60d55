"""What a finetuning or distillation run can be told, as dataclasses light enough for `--help`.

The docstring under each field is the command line's help. Recipes (`recipes/*.yaml`) set these fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from squeezebert.files.errors import OptionError


@dataclass(frozen=True)
class FinetuneOptions:
    """How to train."""

    learning_rate: float = 5e-5
    """Peak learning rate of AdamW (betas 0.9 and 0.999)."""
    epochs: float = 3.0
    """Passes over the training rows, if early stopping does not end it before."""
    batch_size: int = 16
    """Texts a step and process; with `accumulate`, a step sums several batches."""
    accumulate: int = 1
    """Batches whose gradients are added up before a step."""
    max_length: int = 128
    """Tokens a text is cut to."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW."""
    warmup: float = 0.1
    """Share of the steps over which the learning rate rises to its peak; then it falls linearly to 0."""
    dropout: float | None = None
    """Dropout of the encoder and its head; by default the base checkpoint's."""
    freeze_embeddings: bool = False
    """Leave the embeddings as they are, which spares their gradient and optimiser state."""
    seed: int = 42
    """Seed of initial weights, order of rows and dropout."""
    metric: str | None = None
    """Score that early stopping watches and that picks the best weights: accuracy, macro_f1, matthews;
    micro_f1, macro_f1, label_accuracy, exact_match; pearson, spearman, mean_squared_error."""
    patience: int = 3
    """Evaluations without improvement after which training stops; 0 trains to the end."""
    save_every: int = 500
    """Steps between evaluations and resumable saves, at the most; at least one an epoch."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of training; bf16 keeps the weights in fp32."""
    report_to: str = "none"
    """Experiment tracker, as transformers names them: tensorboard, wandb, mlflow, ..."""

    def __post_init__(self) -> None:
        positive = ("learning_rate", "epochs", "batch_size", "accumulate", "save_every")
        for field in positive:
            if not getattr(self, field) > 0:
                raise OptionError(f"--{field.replace('_', '-')} {getattr(self, field)}: expected more than 0")
        if self.max_length < 4:
            raise OptionError(f"--max-length {self.max_length}: expected 4 or more, two of them special tokens")
        for field in ("warmup", "dropout"):
            value = getattr(self, field)
            if value is not None and not 0 <= value < 1:
                raise OptionError(f"--{field} {value}: expected a number from 0 to below 1")
        for field in ("weight_decay", "patience", "seed"):
            if getattr(self, field) < 0:
                raise OptionError(f"--{field.replace('_', '-')} {getattr(self, field)}: expected 0 or more")


@dataclass(frozen=True)
class DistilOptions:
    """How a student learns from a teacher that was finetuned on the same labels."""

    alpha: float = 0.9
    """Weight of the teacher's answers; the labels have the rest."""
    temperature: float = 2.0
    """Both answers are softened by it; its square keeps the gradient's size (Hinton et al. 2015)."""
    hidden_weight: float = 0.0
    """Weight of the squared difference of hidden states, layer by layer, scaled by the teacher's variance."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise OptionError(f"alpha {self.alpha}: expected a number from 0 to 1")
        if not self.temperature > 0:
            raise OptionError(f"temperature {self.temperature}: expected more than 0")
        if self.hidden_weight < 0:
            raise OptionError(f"hidden_weight {self.hidden_weight}: expected 0 or more")
