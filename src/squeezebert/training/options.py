"""What a finetuning or distillation run can be told, as dataclasses light enough for `--help`.

The docstring under each field is the command line's help. Recipes (`recipes/*.yaml`) set these fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from squeezebert.files.errors import OptionError


def check_seed(seed: int, option: str = "--seed") -> None:
    """Raise `OptionError` for a seed that one of the generators behind a run does not take: numpy's has 32 bits."""
    if not 0 <= seed < 2**32:
        raise OptionError(f"{option} {seed}: expected a whole number from 0 to {2**32 - 1}")


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
    """Epochs without improvement after which training stops, warm-up not counted; 0 trains to the end."""
    save_every: int = 500
    """Steps between evaluations and resumable saves, at the most; at least one an epoch."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of training; bf16 keeps the weights in fp32."""
    adversarial_steps: int = 0
    """Adversarial training (FreeLB, Zhu et al. 2020): so many passes over each batch, its word embeddings moved each
    time to where the loss is larger. Takes as many times as long; 0 for none."""
    adversarial_rate: float = 0.1
    """L2 length of one move of a text's embeddings."""
    adversarial_start: float = 0.15
    """Size of the random perturbation of the first pass."""
    adversarial_radius: float = 0.7
    """Largest L2 length of a text's perturbation; 0 for no limit."""
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
        adversarial = [f"adversarial_{part}" for part in ("steps", "rate", "start", "radius")]
        for field in ("weight_decay", "patience", *adversarial):
            if getattr(self, field) < 0:
                raise OptionError(f"--{field.replace('_', '-')} {getattr(self, field)}: expected 0 or more")
        check_seed(self.seed)


@dataclass(frozen=True)
class DistilOptions:
    """How a student learns from a teacher that was finetuned on the same labels."""

    alpha: float = 0.9
    """Weight of the teacher's answers; the labels have the rest."""
    temperature: float = 2.0
    """Both answers are softened by it; its square keeps the gradient's size (Hinton et al. 2015)."""
    hidden_weight: float = 0.0
    """Weight of the squared difference of hidden states, layer by layer, scaled by the teacher's variance."""
    refit: bool = True
    """Before the first step, take over the teacher's head and embeddings and fit the matrices to it on the texts to
    train on: for a student that is squeezed, without a head of its own, and as large as its teacher was."""
    cache_teacher: bool = False
    """Run the teacher once over the texts before the first step, and keep what it makes of them in memory; pays from
    the second epoch on."""
    cache_gigabytes: float = 8.0
    """Memory that `cache_teacher` may take for hidden states."""

    def __post_init__(self) -> None:
        if not self.cache_gigabytes > 0:
            raise OptionError(f"--cache-gigabytes {self.cache_gigabytes}: expected more than 0")
        if not 0 <= self.alpha <= 1:
            raise OptionError(f"--alpha {self.alpha}: expected a number from 0 to 1")
        if not self.temperature > 0:
            raise OptionError(f"--temperature {self.temperature}: expected more than 0")
        if self.hidden_weight < 0:
            raise OptionError(f"--hidden-weight {self.hidden_weight}: expected 0 or more")


@dataclass(frozen=True)
class GeneralDistilOptions:
    """How an encoder learns from a teacher's inner states on unlabelled text."""

    steps: int = 10_000
    """Optimiser steps, over which the learning rate rises and falls."""
    hours: float | None = None
    """Hours of training instead of `steps`, however many passes over the text that makes: turned into steps by the
    speed of the first few, once and for all."""
    learning_rate: float = 5e-4
    """Peak learning rate of AdamW (betas 0.9 and 0.999)."""
    schedule: Literal["linear", "cosine"] = "linear"
    """How the learning rate falls to 0 after its peak."""
    warmup: float = 0.03
    """Share of the steps over which the learning rate rises to its peak."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW."""
    batch_tokens: int = 4096
    """Tokens a step and process, padding counted; texts of like length share a batch."""
    hidden_weight: float = 1.0
    """Weight of the squared difference of hidden states, layer by layer, scaled by the teacher's variance."""
    relation_weight: float = 0.0
    """Weight of the relations between queries, keys and values of one layer (MiniLMv2); widths may differ. By
    themselves they teach the student's last layer nothing behind its attention."""
    relation_heads: int = 12
    """Heads that queries, keys and values are split into for their relations."""
    relation_layer: int = -1
    """Layer of the teacher whose relations are learned, from 0, or from the end below 0; the student's is its last."""
    logit_weight: float = 0.0
    """Weight of the teacher's answers, where it and the student have the same head. Those of a masked-LM head fill
    memory, several times tokens x vocabulary: lower `batch_tokens`."""
    dropout: float = 0.0
    """Dropout of the student while it learns; its configuration keeps its own."""
    freeze_embeddings: bool = True
    """Leave the embeddings as they are: a squeezed student has its teacher's."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of teacher and student; bf16 keeps the weights in fp32."""
    save_every: int = 500
    """Steps between resumable saves, and measurements on the held-out texts."""
    held_out: int = 512
    """Sequences that are never trained on, to measure on; at most a tenth of all."""
    milestones: tuple[float, ...] = ()
    """Shares of the run, as `0.1 0.5`, at which the student is kept for good, in a folder of its own."""
    cache_teacher: bool = False
    """Keep the teacher's hidden states on disk at the first pass over the texts, and read them in later ones."""
    cache_gigabytes: float = 20.0
    """Disk that `cache_teacher` may take."""
    seed: int = 42
    """Seed of held-out texts, order of batches and dropout."""

    def __post_init__(self) -> None:
        positive = ("steps", "hours", "learning_rate", "batch_tokens", "relation_heads", "save_every", "held_out")
        for field in (*positive, "cache_gigabytes"):
            value = getattr(self, field)
            if value is not None and not value > 0:
                raise OptionError(f"--{field.replace('_', '-')} {value}: expected more than 0")
        for field in ("warmup", "dropout"):
            if not 0 <= getattr(self, field) < 1:
                raise OptionError(f"--{field} {getattr(self, field)}: expected a number from 0 to below 1")
        weights = ("hidden_weight", "relation_weight", "logit_weight")
        for field in (*weights, "weight_decay"):
            if getattr(self, field) < 0:
                raise OptionError(f"--{field.replace('_', '-')} {getattr(self, field)}: expected 0 or more")
        check_seed(self.seed)
        if not any(getattr(self, field) for field in weights):
            raise OptionError("--hidden-weight 0 --relation-weight 0 --logit-weight 0: nothing is left to learn")
        if not all(0 < share < 1 for share in self.milestones):
            raise OptionError(f"--milestones {list(self.milestones)}: expected numbers between 0 and 1")
        if self.cache_teacher and (self.relation_weight or self.logit_weight):
            raise OptionError(
                "--cache-teacher keeps hidden states alone: set --relation-weight and --logit-weight to 0"
            )


@dataclass(frozen=True)
class ShapeOptions:
    """What the squeezed matrices look like, and how they are found."""

    groups: int | None = None
    """Groups of query, key, value and both halves of the feed-forward network; the attention's output stays dense,
    as in the paper, whose number is 4. 0 for no blocks at all, with `rank`."""
    rank: int | None = None
    """Rank of a low-rank remainder beside the blocks of each of these matrices; of query, key and value together,
    one and a half times as much at the same cost."""
    shape: str | None = None
    """YAML file with the shape of every matrix: `q_groups: 4` or `[4, 4, 2, ...]`, one number a layer, and so on for
    k, v, post_attention, intermediate and output, and `q_rank: 32` and so on; `shared_qkv_rank: true`. Also fewer
    heads and inner channels, `kept_heads: [12, 6, ...]` and `intermediate_size: 1024`, 0 to leave that half of a
    layer out, and `intermediate_act: relu`."""
    conversion: Literal["fitted", "slices"] = "fitted"
    """Fit each matrix to what the dense model computes on the text, or only cut its weights."""
    regroup: bool = True
    """Order channels and heads first so that those which belong together share a group."""
    calibration_tokens: int = 50_000
    """Tokens of the text that the fit looks at."""
    ridge: float = 0.01
    """How strongly a fit is drawn towards the dense weights, as a share of an input's variance."""

    def __post_init__(self) -> None:
        for field in ("groups", "rank", "ridge"):
            value = getattr(self, field)
            if value is not None and value < 0:
                raise OptionError(f"--{field} {value}: expected 0 or more")
        if self.rank == 0 and self.groups is None:
            raise OptionError("--rank 0 asks for nothing by itself: give --groups as well, or leave it out")
        if self.groups == 0 and not self.rank:
            raise OptionError("--groups 0 leaves no blocks: give a --rank as well")
        if self.shape is not None and (self.groups is not None or self.rank is not None):
            raise OptionError("--shape says it all: leave --groups and --rank out")
        if self.calibration_tokens < 1:
            raise OptionError(f"--calibration-tokens {self.calibration_tokens}: expected 1 or more")


@dataclass(frozen=True)
class PretrainOptions:
    """How a model is pretrained; the defaults are the paper's first phase (Iandola et al. 2020)."""

    steps: int = 56_000
    """Optimiser steps, over which the learning rate rises and falls."""
    batch_size: int = 8192
    """Rows a step, over all processes."""
    micro_batch: int = 32
    """Rows a process takes at once; the batch is made of as many of these as it takes."""
    max_length: int = 128
    """Tokens of a row, special ones included."""
    learning_rate: float = 2.5e-3
    """Peak learning rate."""
    optimizer: Literal["lamb", "adamw"] = "lamb"
    """LAMB for large batches, or AdamW."""
    weight_decay: float = 0.01
    """Weight decay; biases and normalisation have none."""
    warmup: float = 0.28
    """Share of the steps over which the learning rate rises to its peak; then it falls linearly to 0."""
    decay: float | None = None
    """Share of the steps over which it falls, at the end of the run; it stays at its peak until then. By default it
    falls from the peak on."""
    max_grad_norm: float = 1.0
    """Norm that gradients are clipped to, once and over all of them."""
    mask_share: float = 0.15
    """Share of the tokens that are to be guessed."""
    whole_words: bool = False
    """Hide all pieces of a word together."""
    dropout: float | None = None
    """Dropout of the encoder; by default the configuration's."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of training; bf16 keeps the weights in fp32."""
    save_every: int = 500
    """Steps between measuring, logging and resumable saves."""
    held_out_rows: int = 2048
    """Rows of held-out documents to measure on, at the most."""
    milestones: tuple[float, ...] = ()
    """Shares of the steps at which the model is kept as it is then."""
    seed: int = 42
    """Seed of initial weights, order, masks and dropout."""
    report_to: str = "none"
    """Experiment tracker, as transformers names them: tensorboard, wandb, mlflow, ..."""

    def __post_init__(self) -> None:
        for field in ("steps", "batch_size", "micro_batch", "learning_rate", "save_every", "held_out_rows"):
            if not getattr(self, field) > 0:
                raise OptionError(f"--{field.replace('_', '-')} {getattr(self, field)}: expected more than 0")
        if self.batch_size % self.micro_batch:
            raise OptionError(
                f"--batch-size {self.batch_size}: not a multiple of --micro-batch {self.micro_batch}, its parts"
            )
        if self.max_length < 19:
            raise OptionError(f"--max-length {self.max_length}: expected 19 or more, three of them special tokens")
        if not 0 < self.mask_share < 1:
            raise OptionError(f"--mask-share {self.mask_share}: expected a number between 0 and 1")
        for field in ("warmup", "dropout"):
            value = getattr(self, field)
            if value is not None and not 0 <= value < 1:
                raise OptionError(f"--{field} {value}: expected a number from 0 to below 1")
        if self.decay is not None and not (self.decay > 0 and self.warmup + self.decay <= 1 + 1e-9):
            raise OptionError(
                f"--decay {self.decay}: expected a number above 0 that --warmup {self.warmup} leaves room for"
            )
        for field in ("weight_decay", "max_grad_norm"):
            if getattr(self, field) < 0:
                raise OptionError(f"--{field.replace('_', '-')} {getattr(self, field)}: expected 0 or more")
        check_seed(self.seed)
        if any(not 0 < share < 1 for share in self.milestones):
            raise OptionError(f"--milestones {self.milestones}: expected shares between 0 and 1")


@dataclass(frozen=True)
class MarkerOptions:
    """How a marker of wrong words is trained."""

    steps: int = 6000
    """Optimiser steps, over which the learning rate rises and falls."""
    batch_size: int = 32
    """Sentences a step."""
    learning_rate: float = 1e-4
    """Peak learning rate of AdamW (betas 0.9 and 0.999)."""
    warmup: float = 0.06
    """Share of the steps over which the learning rate rises to its peak; then it falls linearly to 0."""
    weight_decay: float = 0.01
    """Decoupled weight decay of AdamW."""
    dropout: float = 0.0
    """Dropout of the encoder while it learns; its configuration keeps its own. Errors are others in each pass."""
    max_length: int = 128
    """Tokens of a sentence, at most."""
    sentences: int = 200_000
    """Sentences to learn from, an even sample of the text."""
    held_out: int = 2000
    """Sentences to measure on, and to choose thresholds by; they are not learned from."""
    held_out_share: float = 0.02
    """Share of the text's sentences that these are drawn from."""
    dictionary: int = 60_000
    """Words of the dictionary, the most frequent of the text."""
    least_count: int = 3
    """How often a word of the dictionary occurs in the text, at least."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of training; bf16 keeps the weights in fp32."""
    save_every: int = 500
    """Steps between measuring, logging and resumable saves."""
    seed: int = 42
    """Seed of initial weights, sample, order and errors."""

    def __post_init__(self) -> None:
        positive = ("steps", "batch_size", "learning_rate", "sentences", "held_out", "dictionary", "least_count")
        for field in (*positive, "save_every"):
            if not getattr(self, field) > 0:
                raise OptionError(f"--{field.replace('_', '-')} {getattr(self, field)}: expected more than 0")
        if self.max_length < 8:
            raise OptionError(f"--max-length {self.max_length}: expected 8 or more, two of them special tokens")
        for field in ("warmup", "dropout"):
            if not 0 <= getattr(self, field) < 1:
                raise OptionError(f"--{field} {getattr(self, field)}: expected a number from 0 to below 1")
        if not 0 < self.held_out_share < 1:
            raise OptionError(f"--held-out-share {self.held_out_share}: expected a number between 0 and 1")
        if self.weight_decay < 0:
            raise OptionError(f"--weight-decay {self.weight_decay}: expected 0 or more")
        check_seed(self.seed)
