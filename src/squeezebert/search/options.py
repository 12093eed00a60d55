"""Options of a search, as the command line and recipes have them; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from squeezebert.data.options import check_sources
from squeezebert.files.errors import OptionError
from squeezebert.training.options import check_seed

if TYPE_CHECKING:
    import numpy as np

_CHOICES_TEXTS = 5  # one sequence in so many is for the choices


@dataclass(frozen=True)
class SearchPlaces:
    """What `search` reads and writes."""

    checkpoint: str
    """Dense encoder to search in: a folder or a Hub id of the BERT architecture."""
    text: list[str]
    """Text without labels to learn from: .txt files or folders of them (one paragraph a line), or tables that `train`
    reads."""
    output: str
    """Folder for the networks that are found, one folder a budget, the latency table and the report."""
    column: str | None = None
    """Column of the text in a table, found by its name when not given."""
    encoding: str = "utf-8"
    """Encoding of text files; a byte-order mark in a file outranks it."""
    max_length: int = 128
    """Tokens of a sequence, at most."""
    table: str | None = None
    """File of an earlier latency table of the same machine, engine and sizes; kept in the output folder by default."""

    def __post_init__(self) -> None:
        check_sources(self.text)
        if self.max_length < 8:
            raise OptionError(f"--max-length {self.max_length}: expected 8 or more")


@dataclass(frozen=True)
class SearchOptions:
    """How networks are looked for."""

    budget_ms: tuple[float, ...] = ()
    """Milliseconds that a text may take, one network for each number. Kept as a share of what the dense network takes
    in the same engine when a number is first given."""
    budget_ratio: tuple[float, ...] = ()
    """The same as shares of the dense network's time, as `0.35`; this or `--budget-ms`."""
    engine: Literal["onnx-int8", "onnx-fp32"] = "onnx-int8"
    """Engine and precision that the network is to run in."""
    threads: int = 1
    """Threads of one text in that engine."""
    tokens: int = 128
    """Tokens of the text that is timed."""
    reads: Literal["first", "all"] = "first"
    """States that are read of the last block: that of the first token, as a classifier does, so that the block works
    for it alone; or all, as for vectors of texts and marks of words."""
    method: Literal["evolution", "gumbel"] = "evolution"
    """How the supernet learns and is searched: networks drawn at random, then evolution; or a choice of each matrix
    that is learned with the weights (Gumbel-softmax, as SqueezeNAS does)."""
    networks: int = 90
    """Random networks that the latency model is fitted to; 30 more check it."""
    steps: int = 2000
    """Steps of supernet training."""
    samples: int = 2
    """Networks drawn for each step, beside the largest and the smallest; evolution only."""
    batch_tokens: int = 2048
    """Tokens of a step, about."""
    learning_rate: float = 5e-4
    """Highest learning rate of the supernet's weights."""
    choice_learning_rate: float = 0.03
    """Learning rate of the choices; gumbel only."""
    latency_weight: float = 1.0
    """How much a time off the budget, on either side and as a share of it, counts beside the error; gumbel only."""
    population: int = 48
    """Networks of a generation."""
    generations: int = 20
    """Generations of the evolution."""
    drawn: int = 96
    """Networks drawn by the learned probabilities, of which the best is taken; gumbel only."""
    heal_steps: int = 1000
    """Steps for which the network that was found learns the dense one's states, as `squeeze` does it; 0 for none. A
    search that goes on can have other numbers, for networks that are not healed yet."""
    heal_learning_rate: float = 5e-4
    """Its highest learning rate; likewise."""
    calibration_tokens: int = 30_000
    """Tokens of the text that the supernet's first weights are fitted on."""
    held_out: int = 64
    """Sequences of the text that networks are compared on."""
    save_every: int = 100
    """Steps between saves, from which a killed search goes on."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 pays where the processor has it."""
    seed: int = 1
    """Decides everything that is drawn."""

    def __post_init__(self) -> None:
        if not self.budget_ms and not self.budget_ratio:
            raise OptionError("give --budget-ms, or --budget-ratio for shares of the dense network's time")
        if self.budget_ms and self.budget_ratio:
            raise OptionError(
                "--budget-ms and --budget-ratio are both given, one of them perhaps by a recipe: leave one out"
            )
        for field in ("budget_ms", "budget_ratio"):
            for value in getattr(self, field):
                if not value > 0:
                    raise OptionError(f"--{field.replace('_', '-')} {value}: expected a number above 0")
                if field == "budget_ratio" and value >= 1:
                    raise OptionError(
                        f"--budget-ratio {value}: leaves nothing to search: expected a number below 1, which is what "
                        "the dense network takes"
                    )
            names = [f"{value:g}" for value in getattr(self, field)]  # as folders have them
            if len(set(names)) < len(names):
                raise OptionError(f"--{field.replace('_', '-')} {' '.join(names)}: the same one twice")
        least = {"networks": 40, "population": 8}
        for field in (
            *("networks", "steps", "samples", "batch_tokens", "population", "generations", "calibration_tokens"),
            *("held_out", "save_every", "threads", "tokens", "drawn"),
        ):
            if getattr(self, field) < least.get(field, 1):
                raise OptionError(
                    f"--{field.replace('_', '-')} {getattr(self, field)}: expected {least.get(field, 1)} or more"
                )
        if self.heal_steps < 0:
            raise OptionError(f"--heal-steps {self.heal_steps}: expected 0 or more")
        for field in ("learning_rate", "choice_learning_rate", "heal_learning_rate"):
            if not 0 < getattr(self, field) < 1:
                raise OptionError(f"--{field.replace('_', '-')} {getattr(self, field)}: expected between 0 and 1")
        if self.latency_weight < 0:
            raise OptionError(f"--latency-weight {self.latency_weight}: expected 0 or more")
        check_seed(self.seed)


def rows_of_weights(rows: np.ndarray, method: str) -> np.ndarray:
    """Return which sequences to learn from are the weights'; the others are for the choices that `gumbel` learns.

    Weights fit what they have seen: how good a choice is shows on texts that they have not.
    """
    return rows[[i for i in range(len(rows)) if method != "gumbel" or i % _CHOICES_TEXTS]]
