"""A search space and an engine in, what any network of the space takes in that engine out.

Networks are written by the real exporter, with random weights, and timed beside an anchor, the dense network of the
same sizes: what is kept are ratios, because a machine's speed moves from hour to hour. A model of the whole network is
fitted to them, of the work that its graph asks for, and checked on networks that the fit has not seen. Legend: n rows,
k inner and m columns of a product.
"""

from __future__ import annotations

import copy
import functools
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from scipy.optimize import nnls
from torch import nn

from squeezebert.benchmark.baselines import write_ours
from squeezebert.benchmark.latency import TimedFile, compare_latency
from squeezebert.export.checkpoint import Model
from squeezebert.export.smoothing import BlockScales, made_up_scales
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.files.manifest import Precision
from squeezebert.model import SqueezeBertConfig, SqueezeBertForSequenceClassification, SqueezeBertModel
from squeezebert.search.progress import Progress
from squeezebert.search.space import Shape, Space

Engine = Literal["onnx-int8", "onnx-fp32"]
Reads = Literal["first", "all"]
ENGINES: dict[str, Precision] = {"onnx-int8": "int8", "onnx-fp32": "fp32"}
Report = Callable[[str], None]
# Latency does not depend on how many words there are; the file does
_VOCABULARY = 1000
_FOUND = 5.0  # how much more a network counts that a search found than a random one
_TOGETHER = 8  # networks that are timed in turn with one anchor


@dataclass(frozen=True)
class Target:
    """Where a network is to run."""

    engine: Engine = "onnx-int8"
    """Engine and precision."""
    threads: int = 1
    """Threads of one text."""
    tokens: int = 128
    """Tokens of the text."""
    reads: Reads = "first"
    """Whose states are read of the last layer: the first token's alone, by a classifier, or those of all."""

    def __post_init__(self) -> None:
        for field, values in (("engine", ENGINES), ("reads", get_args(Reads))):
            if getattr(self, field) not in values:
                raise OptionError(f"--{field} {getattr(self, field)}: expected one of {', '.join(values)}")
        for field in ("threads", "tokens"):
            if getattr(self, field) < 1:
                raise OptionError(f"--{field} {getattr(self, field)}: expected 1 or more")


@dataclass(frozen=True)
class Accuracy:
    """How well a latency model predicts networks that it was not fitted to, as shares of what was measured."""

    networks: int
    """How many."""
    median: float
    """Median of the errors' sizes."""
    worst: float
    """The largest."""


class LatencyTable:
    """Networks and what they take, as ratios to the anchor, and the model fitted to them."""

    def __init__(
        self,
        space: Space,
        target: Target,
        rows: Sequence[Mapping[str, Any]],
        held_out: int,
        found: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Fit to all `rows` but the last `held_out`, which it is checked on, and to what a search `found`."""
        self.space, self.target, self.rows, self.held_out = space, target, list(rows), held_out
        random = self.rows[: len(self.rows) - held_out]
        seen = [*random, *found]
        work = np.array([self.work(row["shape"]) for row in seen])
        ratios = np.array([row["ratio"] for row in seen])
        weights = np.array([1.0] * len(random) + [_FOUND] * len(found))
        # Relative errors count: a small network's is as dear as a large one's
        scale = work.max(axis=0).clip(1e-12)
        prices, _ = nnls(work / scale * (weights / ratios)[:, None], weights)
        self.prices = prices / scale
        errors = [abs(self.ratio(row["shape"]) / row["ratio"] - 1) for row in self.rows[len(random) :]]
        self.accuracy = Accuracy(len(errors), float(np.median(errors)), max(errors)) if errors else None

    def corrected(self, found: Sequence[Mapping[str, Any]]) -> LatencyTable:
        """A table that goes by networks that a search found as well, timed since.

        A search picks those that the model takes for faster than they are: random ones do not tell how far it is off
        there.
        """
        return LatencyTable(self.space, self.target, self.rows, self.held_out, found)

    def work(self, shape: Shape) -> np.ndarray:
        """What a network's graph asks for in its engine."""
        return work_of(self.space, shape, self.target.tokens, self.target.reads)

    def ratio(self, shape: Shape) -> float:
        """The predicted time of a network, as a multiple of the anchor's."""
        return float(self.work(shape) @ self.prices)

    @property
    def range(self) -> tuple[float, float]:
        """The ratios of the fastest network, which has no layers, and of the dense one."""
        return self.ratio(self.space.empty), self.ratio(self.space.dense)


def measure_ratios(
    shapes: Mapping[str, Shape],
    space: Space,
    base: SqueezeBertConfig,
    target: Target,
    *,
    turns: int = 32,
    burst: int = 4,
) -> dict[str, dict[str, float]]:
    """Write networks of random weights with the exporter and time each right beside the anchor, all in one run.

    Returns for each `ms` and `anchor_ms`, of all its runs, and the `ratio` of the turns.
    """
    with tempfile.TemporaryDirectory() as place:

        def written(name: str, shape: Shape) -> TimedFile:
            torch.manual_seed(0)
            model = SqueezeBertModel(space.config(shape, base, vocab_size=_VOCABULARY))
            return write_network(model, Path(place) / name, target, made_up_scales(model))

        files = {name: written(f"own-{number}", shape) for number, (name, shape) in enumerate(shapes.items())}
        found = compare_latency(
            files,
            written("anchor", space.dense),
            target.tokens,
            threads=target.threads,
            turns=turns,
            burst=burst,
            vocabulary=_VOCABULARY,
        )
    return {name: one.to_dict() for name, one in found.items()}


def write_network(
    model: SqueezeBertModel, folder: Path, target: Target, scales: Sequence[BlockScales] | None
) -> TimedFile:
    """Write an encoder as an export for `target` does, and return the file.

    Where the first token is read it becomes a classifier of two labels, else a model that gives a text's vector, the
    mean over its tokens. `scales` are those of int8, as `find_scales` has them; fp32 has none.
    """
    precision = ENGINES[target.engine]
    written: Model = _classifier(model) if target.reads == "first" else model
    return write_ours(written, folder, scales, [precision])[precision]


def _classifier(encoder: SqueezeBertModel) -> SqueezeBertForSequenceClassification:
    config = copy.deepcopy(encoder.config)
    config.num_labels = 2
    with torch.device("meta"):  # an encoder that is replaced at once needs no memory
        model = SqueezeBertForSequenceClassification(config)
    model.transformer, model.classifier = encoder, nn.Linear(config.hidden_size, 2)
    return model


def build_table(
    space: Space,
    base: SqueezeBertConfig,
    target: Target,
    path: Path,
    *,
    networks: int = 90,
    held_out: int = 30,
    seed: int = 0,
    report: Report = lambda line: None,
) -> LatencyTable:
    """Measure random networks and fit a table to them; `path` keeps what was measured, and a later call goes on there.

    Raises `FolderError` for a file that is none, and `OptionError` for one of another machine, engine or space, with
    what differs.
    """
    about = describe(space, target)
    rows = _rows(path, about)
    generator = np.random.default_rng(seed)
    shapes = [space.dense, space.empty]
    while len(shapes) < networks + held_out:
        shapes.append(space.random(generator))
    progress = Progress("latency table: network", len(shapes), report, len(rows))
    for start in range(len(rows), len(shapes), _TOGETHER):
        some = {str(i): shapes[i] for i in range(start, min(start + _TOGETHER, len(shapes)))}
        found = measure_ratios(some, space, base, target)
        rows += [{"shape": shape, **found[name]} for name, shape in some.items()]
        part = path.with_name(f".{path.name}.part")
        part.write_text(json.dumps({**about, "rows": rows}) + "\n", encoding="utf-8")
        part.replace(path)
        progress.told(len(rows), surely=True)
    return LatencyTable(space, target, rows, held_out)


def describe(space: Space, target: Target) -> dict[str, Any]:
    """What a table is of: it serves nothing else."""
    machine = describe_machine()
    about = {
        "machine": {name: machine[name] for name in ("processor", "vector_units", "cores", "system")},
        **{name: package_versions()[name] for name in ("onnxruntime", "squeezebert")},
        "target": asdict(target),
        "space": {**asdict(space), "choices": {name: list(values) for name, values in space.choices.items()}},
    }
    told: dict[str, Any] = json.loads(json.dumps(about))
    return told


def _rows(path: Path, about: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        rows: list[dict[str, Any]] = told["rows"]
        for row in rows:
            row["shape"]["kept_heads"], row["ratio"] + row["anchor_ms"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FolderError(f"{path}: no latency table ({error}): delete it, or name another file") from error
    for name, value in about.items():
        if told.get(name) != value:
            raise OptionError(
                f"{path}: this latency table is of another {name} ({_short(told.get(name))}; here {_short(value)}): "
                "name another file, and it is measured anew"
            )
    return rows


def _short(value: Any) -> str:
    said = json.dumps(value)
    return said if len(said) < 120 else f"{said[:117]}..."


# --- the work of a network -------------------------------------------------------------------------------

# Products are those with weights; joined is what split and join nodes write. What int8's scales cost is in the prices
# of normalisation and activation: they multiply what those write
WORK = (
    *("products", "multiply-adds", "inputs read", "outputs written", "weights read"),
    *("channels joined", "scores", "gelu", "relu", "normalised", "network"),
)


class Surroundings(NamedTuple):
    """What a layer's work depends on beside its choices."""

    hidden_size: int
    """Channels of the hidden states."""
    head_size: int
    """Channels of a head."""
    tokens: int
    """Tokens of the text."""
    first_only: bool
    """Whether the first token's state alone is asked for: keys and values are still those of all."""

    @property
    def rows(self) -> int:
        """Rows of all that is computed beside keys and values."""
        return 1 if self.first_only else self.tokens


def work_of(space: Space, shape: Shape, tokens: int, reads: Reads = "first") -> np.ndarray:
    """What a network's graph asks for, in the order of `WORK`; the sum over the `PARTS` of its layers.

    Where the first token alone is read, the last block computes its queries and all that follows for one row.
    """
    total = np.zeros(len(WORK))
    total[-1] = 1.0
    for layer, around in enumerate(surroundings(space, tokens, reads)):
        for fields, work in PARTS.items():
            total += work(around, *(shape[field][layer] for field in fields))
    return total


def surroundings(space: Space, tokens: int, reads: Reads) -> list[Surroundings]:
    """Those of each layer."""
    last = space.layers - 1
    return [
        Surroundings(space.hidden_size, space.head_size, tokens, reads == "first" and layer == last)
        for layer in range(space.layers)
    ]


@functools.lru_cache(maxsize=100_000)
def _attention_work(around: Surroundings, heads: int, q: int, k: int, v: int, rank: int) -> np.ndarray:
    """Query, key and value, and what is made of them."""
    work = _nothing()
    if not heads:
        return _vector(work)
    C, D, T, _ = around
    rows, A = around.rows, heads * D
    x = _Channels(work, T, C)
    own = _Channels(work, rows, C) if around.first_only else x
    for channels, groups in ((own, q), (x, k), (x, v)):
        _whole(work, channels.rows, A, _matrix(work, channels, A, groups, rank, shared=True))
    if rank and not all(_dense_is_cheaper(C, A, groups, rank, shared=True) for groups in (q, k, v)):
        _product(work, T, C, rank)  # the first factor that they share
    # Queries times keys, probabilities times values, and times what says which keys are text
    work["multiply-adds"] += heads * rows * T * (2 * D + 1)
    work["scores"] += heads * rows * T
    work["normalised"] += rows * C
    return _vector(work)


@functools.lru_cache(maxsize=100_000)
def _post_attention_work(around: Surroundings, heads: int, groups: int, rank: int) -> np.ndarray:
    work, C, rows = _nothing(), around.hidden_size, around.rows
    if heads:
        context = _Channels(work, rows, heads * around.head_size)
        _whole(work, rows, C, _matrix(work, context, C, groups, rank))
    return _vector(work)


@functools.lru_cache(maxsize=100_000)
def _feed_forward_work(around: Surroundings, F: int, up: int, up_rank: int, down: int, down_rank: int) -> np.ndarray:
    """Both matrices: the second reads the pieces that the first makes."""
    work, C, rows = _nothing(), around.hidden_size, around.rows
    if F:
        pieces = _matrix(work, _Channels(work, rows, C), F, up, up_rank)
        _whole(work, rows, C, _matrix(work, _Channels(work, rows, F, pieces), C, down, down_rank))
    return _vector(work)


@functools.lru_cache(maxsize=100_000)
def _activation_work(around: Surroundings, F: int, act: str) -> np.ndarray:
    """All of a feed-forward network beside its matrices."""
    work, C, rows = _nothing(), around.hidden_size, around.rows
    if F:
        work[act if act in WORK else "gelu"] += rows * F
        work["normalised"] += rows * C
    return _vector(work)


PARTS: Mapping[tuple[str, ...], Callable[..., np.ndarray]] = {
    ("kept_heads", "q_groups", "k_groups", "v_groups", "q_rank"): _attention_work,
    ("kept_heads", "post_attention_groups", "post_attention_rank"): _post_attention_work,
    (
        "intermediate_size",
        *("intermediate_groups", "intermediate_rank", "output_groups", "output_rank"),
    ): _feed_forward_work,
    ("intermediate_size", "intermediate_act"): _activation_work,
}
"""The fields of a layer that its work depends on together -> that work, by its surroundings and their values."""


def _nothing() -> dict[str, float]:
    return dict.fromkeys(WORK, 0.0)


def _vector(work: Mapping[str, float]) -> np.ndarray:
    return np.array([work[name] for name in WORK])


class _Channels:
    """What joins and splits the input of matrices, as the class of that name in `export/matrices.py` writes them."""

    def __init__(self, work: dict[str, float], rows: int, width: int, pieces: int = 1) -> None:
        self.work, self.rows, self.width = work, rows, width
        self.ways, self.joined = {pieces}, set[int]()

    def by_group(self, groups: int) -> None:
        """Have so many pieces of the channels; other than the ones there are, they are cut from the whole."""
        if groups in self.ways:
            return
        if groups > 1:
            self.by_group(1)
        self.work["channels joined"] += self.rows * self.width
        self.ways.add(groups)

    def with_reduced(self, groups: int, rank: int) -> None:
        """Have so many pieces, each with the reduced channels."""
        if groups not in self.joined:
            self.by_group(groups)
            self.work["channels joined"] += self.rows * (self.width + groups * rank)
            self.joined.add(groups)


def _whole(work: dict[str, float], rows: int, width: int, pieces: int) -> None:
    _Channels(work, rows, width, pieces).by_group(1)


def _matrix(work: dict[str, float], x: _Channels, outputs: int, groups: int, rank: int, shared: bool = False) -> int:
    """Add what one matrix asks for as `export/matrices.py` writes it, and return the pieces of its output.

    A `shared` first factor is another's to count.
    """
    rows, inputs = x.rows, x.width
    if rank and _dense_is_cheaper(inputs, outputs, groups, rank, shared):
        groups, rank = 1, 0
    appends = bool(rank and groups and inputs > outputs and not shared)
    if rank and not shared and not appends:
        x.by_group(1)
        _product(work, rows, inputs, rank)
    if not groups:
        _product(work, rows, rank, outputs)
        return 1
    if appends:  # each group makes its share of the reduced channels
        x.by_group(groups)
        for _ in range(groups):
            _product(work, rows, inputs // groups, outputs // groups + rank)
        _product(work, rows, rank, outputs)
        work["channels joined"] += rows * (outputs + groups * rank + outputs)
        return 1
    if rank:
        x.with_reduced(groups, rank)
    else:
        x.by_group(groups)
    for _ in range(groups):
        _product(work, rows, inputs // groups + rank, outputs // groups)
    return groups


def _dense_is_cheaper(inputs: int, outputs: int, groups: int, rank: int, shared: bool) -> bool:
    blocks = inputs * outputs // groups if groups else 0
    return blocks + rank * inputs // (3 if shared else 1) + rank * outputs >= inputs * outputs


def _product(work: dict[str, float], n: int, k: int, m: int) -> None:
    work["products"] += 1
    work["multiply-adds"] += n * k * m
    work["inputs read"] += n * k
    work["outputs written"] += n * m
    work["weights read"] += k * m
