"""A supernet, its teacher and text in; the supernet, trained so that all its networks are good at once, out.

Two ways. Sandwich: each step trains the largest network, the smallest that is wanted and some between, drawn at random
(Yu and Huang 2019, arXiv 1903.05134; BigNAS, arXiv 2003.11142), and says nothing of which is best. Gumbel: each step
mixes all choices by probabilities that are drawn around learned ones (Gumbel-softmax: Jang et al. 2017, arXiv
1611.01144); weights and choices take turns, each with an optimiser of its own, and the expected latency is part of the
choices' loss, as in SqueezeNAS (Shaw et al. 2019, arXiv 1908.01748). Both owe their targets to the dense model: its
states after each layer. A run that was killed goes on from its last save and ends with the same weights.
"""

from __future__ import annotations

import math
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from squeezebert.data.corpus import Corpus
from squeezebert.data.packing import Batches
from squeezebert.files.errors import DivergedError, FolderError
from squeezebert.model import SqueezeBertModel
from squeezebert.search.latency import LatencyTable
from squeezebert.search.options import SearchOptions, rows_of_weights
from squeezebert.search.prices import Prices
from squeezebert.search.progress import Progress
from squeezebert.search.space import Shape, Space
from squeezebert.search.supernet import Gates, Supernet
from squeezebert.training.healing import tensors
from squeezebert.training.losses import layer_errors
from squeezebert.training.runs import first_line

Report = Callable[[str], None]
Batch = dict[str, Tensor]
_WARMUP = 0.1
_CLIP = 1.0
# Gumbel: share of the steps before choices are learned, and the temperatures at both ends
_CHOICES_WAIT = 0.2
_TEMPERATURES = 4.0, 0.3
SAVE = "supernet.pt"


class Learner(ABC):
    """Trains a supernet step by step."""

    def __init__(self, supernet: Supernet, teacher: SqueezeBertModel, options: SearchOptions) -> None:
        self.supernet, self.teacher, self.options = supernet, teacher, options
        teacher.train(False)
        teacher.requires_grad_(False)
        weights = [p for p in supernet.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(weights, lr=options.learning_rate, weight_decay=0.01, fused=True)
        self.step = 0
        self.loss = math.nan

    def states(self, batch: Batch, gates: Sequence[Gates]) -> list[Tensor]:
        """The supernet's states after each layer."""
        with torch.autocast(
            "cpu", torch.bfloat16, enabled=self.options.precision == "bf16" and torch.is_grad_enabled()
        ):
            states: list[Tensor] = self.supernet(
                batch["input_ids"], batch["attention_mask"], batch["token_type_ids"], gates
            )
        return states

    def inner_error(self, batch: Batch, gates: Sequence[Gates], taught: Sequence[Tensor]) -> Tensor:
        """What the weights learn from: the mean error of the states of the layers that learn, as healing has it."""
        weights = self.learning(gates)
        errors = layer_errors(self.states(batch, gates), taught, batch["attention_mask"])
        return (weights * errors).sum() / weights.sum()

    def error(self, batch: Batch, gates: Sequence[Gates], taught: Sequence[Tensor]) -> Tensor:
        """What networks are compared by: the error of the last state, relative to the teacher's variance.

        Of networks that leave different layers out, it is the only state that all have.
        """
        return layer_errors(self.states(batch, gates)[-1:], taught[-1:], batch["attention_mask"]).squeeze()

    @torch.no_grad()
    def learning(self, gates: Sequence[Gates]) -> Tensor:
        """How much each layer of a mixture learns, (layers,): `learning_layers` of the networks it is made of.

        Without gradients: choices could else be made for the layers that are counted, not for what they compute.
        """
        choices, later = self.supernet.space.choices, 0.0
        weights: list[float] = []
        for own in reversed(gates):
            nothing = math.prod(
                float(own[field][choices[field].index(0)]) if 0 in choices[field] else 0.0
                for field in ("kept_heads", "intermediate_size")
            )
            weights.append((1 - nothing) * later if weights else 1.0)
            later = 1 - nothing * (1 - later)
        return torch.tensor(weights[::-1])

    @torch.no_grad()
    def teach(self, batch: Batch) -> list[Tensor]:
        """The teacher's states after each block."""
        outputs = self.teacher(**batch, output_hidden_states=True)
        return list(outputs.hidden_states[1:])

    def rate(self) -> float:
        """Learning rate of this step: up for a tenth of the run, then down to 0 in a line."""
        done, warmup = self.step / self.options.steps, _WARMUP
        return self.options.learning_rate * min(
            (self.step + 1) / (warmup * self.options.steps + 1), (1 - done) / (1 - warmup)
        )

    def take(self, batch: Batch) -> None:
        """Take one step."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate()
        self.optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.options.precision == "bf16"):
            taught = self.teach(batch)
        self.loss = self.learn(batch, taught)
        if not math.isfinite(self.loss):
            raise DivergedError(
                f"the supernet's training ran away at step {self.step}: search again in another --output with a "
                f"lower --learning-rate than {self.options.learning_rate:g}; --table spares timing the networks again"
            )
        nn.utils.clip_grad_norm_(self.optimiser.param_groups[0]["params"], _CLIP)
        self.optimiser.step()
        self.step += 1

    @property
    def learns_choices(self) -> bool:
        """Whether this step is one of the choices, which learn from texts of their own."""
        return False

    @abstractmethod
    def learn(self, batch: Batch, taught: Sequence[Tensor]) -> float:
        """Add the gradients of one batch, and return its loss."""

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {"step": self.step, "weights": self.supernet.state_dict(), "optimiser": self.optimiser.state_dict()}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.step = state["step"]
        self.supernet.load_state_dict(state["weights"])
        self.optimiser.load_state_dict(state["optimiser"])


class SandwichLearner(Learner):
    """The largest, the smallest and random networks, each step."""

    def __init__(
        self,
        supernet: Supernet,
        teacher: SqueezeBertModel,
        options: SearchOptions,
        draw: Callable[[np.random.Generator], Shape],
        smallest: Shape,
    ) -> None:
        super().__init__(supernet, teacher, options)
        self.draw, self.smallest = draw, smallest

    def learn(self, batch: Batch, taught: Sequence[Tensor]) -> float:
        """Add up the gradients of a few networks on one batch."""
        generator = np.random.default_rng([self.options.seed, self.step])
        shapes = [
            self.supernet.space.dense,
            self.smallest,
            *(self.draw(generator) for _ in range(self.options.samples)),
        ]
        total = 0.0
        for shape in shapes:
            loss = self.inner_error(batch, self.supernet.gates_of(shape), taught) / len(shapes)
            if loss.requires_grad:  # a network without layers has nothing to learn
                loss.backward()
            total += float(loss.detach())
        return total


class GumbelLearner(Learner):
    """A probability for each choice of each layer, learned beside the weights."""

    def __init__(
        self,
        supernet: Supernet,
        teacher: SqueezeBertModel,
        options: SearchOptions,
        table: LatencyTable,
        budget: float,
    ) -> None:
        super().__init__(supernet, teacher, options)
        self.prices, self.budget = Prices(table), budget
        self.choices = nn.ModuleList(
            nn.ParameterDict({field: torch.zeros(len(values)) for field, values in supernet.space.choices.items()})
            for _ in range(supernet.space.layers)
        )
        rate = options.choice_learning_rate
        self.choice_optimiser = torch.optim.Adam(self.choices.parameters(), lr=rate, betas=(0.5, 0.999))

    @property
    def temperature(self) -> float:
        """Of the draws of this step: from near uniform to near one choice."""
        start, end = _TEMPERATURES
        return float(start * (end / start) ** (self.step / self.options.steps))

    @property
    def learns_choices(self) -> bool:
        """Every other step, once the weights have had a while alone."""
        return self.step >= _CHOICES_WAIT * self.options.steps and self.step % 2 == 1

    def gates(self) -> list[dict[str, Tensor]]:
        """Draw a mixture for each layer."""
        generator = torch.Generator().manual_seed(self.options.seed * 1_000_003 + self.step)
        return [
            {field: _gumbel_softmax(logits, self.temperature, generator) for field, logits in layer.items()}
            for layer in self._layers()
        ]

    def learn(self, batch: Batch, taught: Sequence[Tensor]) -> float:
        """Weights on one batch, choices on the next, once the weights have had a while alone."""
        gates = self.gates()
        loss = (self.error if self.learns_choices else self.inner_error)(batch, gates, taught)
        if self.learns_choices:
            # Of the probabilities themselves: prices are linear in each, and a draw's time at a high temperature is
            # that of a mixture that nobody will take
            probabilities = [{field: logits.softmax(0) for field, logits in layer.items()} for layer in self._layers()]
            over = self.prices.expected(probabilities) / self.budget - 1
            self.choice_optimiser.zero_grad()
            (loss + self.options.latency_weight * over.abs()).backward()
            self.choice_optimiser.step()
            self.optimiser.zero_grad()  # these were the choices' gradients
        else:
            loss.backward()
        return float(loss.detach())

    def _layers(self) -> list[dict[str, Tensor]]:
        return [dict(layer.items()) for layer in self.choices]  # type: ignore[operator]

    def most_likely(self) -> Shape:
        """The point of the largest probabilities."""
        space = self.supernet.space
        found = {
            field: [values[int(layer[field].argmax())] for layer in self._layers()]
            for field, values in space.choices.items()
        }
        return space.repaired(found)

    def drawn(self, generator: np.random.Generator) -> Shape:
        """A point drawn by the learned probabilities."""
        space = self.supernet.space
        found: Shape = {}
        for field, values in space.choices.items():
            found[field] = []
            for layer in self._layers():
                p = layer[field].detach().double().softmax(0).numpy()
                found[field].append(values[int(generator.choice(len(values), p=p / p.sum()))])
        return space.repaired(found)

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        own = {"choices": self.choices.state_dict(), "choice_optimiser": self.choice_optimiser.state_dict()}
        return super().state() | own

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        super().resume(state)
        self.choices.load_state_dict(state["choices"])
        self.choice_optimiser.load_state_dict(state["choice_optimiser"])


def _gumbel_softmax(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    uniform = torch.rand(logits.shape, generator=generator).clamp(1e-9, 1 - 1e-7)
    return ((logits - (-uniform.log()).log()) / temperature).softmax(dim=0)


def train(learner: Learner, corpus: Corpus, rows: np.ndarray, folder: Path, report: Report) -> None:
    """Take the learner's steps on the sequences `rows` of a corpus, going on from a save in `folder`.

    Raises `DivergedError` when the loss is no number.
    """
    options = learner.options
    own = rows_of_weights(rows, options.method)
    batches, others = (
        Batches(corpus.lengths, some, options.batch_tokens, options.seed) for some in (own, np.setdiff1d(rows, own))
    )
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / SAVE
    if place.exists():
        try:
            saved = torch.load(place, weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            raise FolderError(
                f"{place}: damaged ({first_line(error)}): delete it to train the supernet anew"
            ) from error
        learner.resume(saved)
        if learner.step:
            report(f"supernet: going on after step {learner.step}")
    learner.supernet.train(False)  # no dropout, which the embeddings would have
    progress = Progress("supernet: step", options.steps, report, learner.step)
    while learner.step < options.steps:
        learner.take(tensors(corpus, (others if learner.learns_choices else batches)[learner.step]))
        progress.told(learner.step, f", loss {learner.loss:.4f}", surely=learner.step == options.steps)
        if learner.step % options.save_every == 0 or learner.step == options.steps:
            part = folder / f".{SAVE}.part"
            torch.save(learner.state(), part)
            part.replace(place)


class Judge:
    """The error of networks' last states on held-out text, by the supernet's weights."""

    def __init__(self, learner: Learner, corpus: Corpus, rows: np.ndarray) -> None:
        self.learner = learner
        self.batches: list[tuple[Batch, list[Tensor]]] = []
        for sequences in Batches(corpus.lengths, rows, learner.options.batch_tokens, 0).whole_pass():
            batch = tensors(corpus, sequences)
            self.batches.append((batch, learner.teach(batch)[-1:]))

    @torch.no_grad()
    def __call__(self, shape: Shape) -> float:
        """The mean error of the last states over tokens."""
        supernet = self.learner.supernet
        gates = supernet.gates_of(shape)
        total = weight = 0.0
        for batch, taught in self.batches:
            tokens = float(batch["attention_mask"].sum())
            total += tokens * float(self.learner.error(batch, gates, taught))
            weight += tokens
        return total / weight


def within(space: Space, table: LatencyTable, low: float, high: float) -> Callable[[np.random.Generator], Shape]:
    """Return what draws random points whose predicted ratio lies between two numbers, as far as they are met."""

    def draw(generator: np.random.Generator) -> Shape:
        best, distance = space.dense, math.inf
        for _ in range(200):
            shape = space.random(generator)
            ratio = table.ratio(shape)
            outside = max(low - ratio, ratio - high, 0.0)
            if outside < distance:
                best, distance = shape, outside
            if not outside:
                break
        return best

    return draw
