"""A search space and an engine in, what any network of the space takes in that engine out.

Networks are written by the real exporter, with random weights, and timed beside an anchor, the dense network of the
same sizes: what is kept are ratios, because a machine's speed moves from hour to hour. A model of the whole network is
fitted to them, of the work that its graph asks for, and checked on networks that the fit has not seen. Legend: n rows,
k inner and m columns of a product.
"""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.optimize import nnls

from squeezebert.benchmark.baselines import write_baseline
from squeezebert.benchmark.latency import TimedFile, compare_latency
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.model import SqueezeBertConfig
from squeezebert.search.space import Shape, Space

Engine = Literal["onnx-int8", "onnx-fp32"]
ENGINES: dict[str, str] = {"onnx-int8": "int8", "onnx-fp32": "fp32"}
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

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise OptionError(f"--engine {self.engine}: expected one of {', '.join(ENGINES)}")
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
        work = np.array([work_of(space, row["shape"], target.tokens) for row in seen])
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

    def ratio(self, shape: Shape) -> float:
        """The predicted time of a network, as a multiple of the anchor's."""
        return float(work_of(self.space, shape, self.target.tokens) @ self.prices)

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
            config = space.config(shape, base, vocab_size=_VOCABULARY, num_labels=2)
            return write_baseline(config, Path(place) / name)[ENGINES[target.engine]]

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
    for start in range(len(rows), len(shapes), _TOGETHER):
        some = {str(i): shapes[i] for i in range(start, min(start + _TOGETHER, len(shapes)))}
        found = measure_ratios(some, space, base, target)
        rows += [{"shape": shape, **found[name]} for name, shape in some.items()]
        part = path.with_name(f".{path.name}.part")
        part.write_text(json.dumps({**about, "rows": rows}) + "\n", encoding="utf-8")
        part.replace(path)
        report(f"latency table: {len(rows)} of {len(shapes)} networks timed")
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

WORK = (
    *("products", "multiply-adds", "inputs read", "outputs written", "weights read"),
    *("channels joined", "scores", "gelu", "relu", "normalised", "network"),
)


def work_of(space: Space, shape: Shape, tokens: int) -> np.ndarray:
    """What a network's graph asks for, in the order of `WORK`; linear in its layers.

    The classifier reads the first token, so that the last block computes its queries and all that follows for one row.
    """
    total = np.zeros(len(WORK))
    total[-1] = 1.0
    for layer in range(space.layers):
        last = layer == space.layers - 1
        chosen = {field: shape[field][layer] for field in (*_ATTENTION_WORK, *_FEED_FORWARD_WORK)}
        total += attention_work(space, tokens, last, chosen) + feed_forward_work(space, tokens, last, chosen)
    return total


def attention_work(space: Space, tokens: int, last: bool, chosen: Mapping[str, Any]) -> np.ndarray:
    """What the attention of one layer asks for, by its choices."""
    values = (chosen[field] for field in _ATTENTION_WORK)
    return _attention_work(space.hidden_size, space.head_size, tokens, last, *values)


def feed_forward_work(space: Space, tokens: int, last: bool, chosen: Mapping[str, Any]) -> np.ndarray:
    """What the feed-forward network of one layer asks for, by its choices."""
    values = (chosen[field] for field in _FEED_FORWARD_WORK)
    return _feed_forward_work(space.hidden_size, 1 if last else tokens, *values)


_ATTENTION_WORK = (
    *("kept_heads", "q_groups", "k_groups", "v_groups", "q_rank", "post_attention_groups", "post_attention_rank"),
)
_FEED_FORWARD_WORK = (
    *("intermediate_size", "intermediate_act", "intermediate_groups", "intermediate_rank"),
    *("output_groups", "output_rank"),
)


@functools.lru_cache(maxsize=100_000)
def _attention_work(
    C: int, D: int, T: int, last: bool, heads: int, q: int, k: int, v: int, rank: int, after: int, after_rank: int
) -> np.ndarray:
    if not heads:
        return _vector({})
    A, own = heads * D, 1 if last else T
    work = _nothing()
    joined: set[tuple[int, int]] = set()
    for groups, rows in ((q, own), (k, T), (v, T)):
        _matrix(work, rows, C, A, groups, rank, shared=True, joined=joined)
    _matrix(work, own, A, C, after, after_rank)
    total: np.ndarray = _vector(work) + attention_rest(C, D, T, own, heads)
    if any(not _dense_is_cheaper(C, A, groups, rank, shared=True) for groups in (q, k, v)):
        total += shared_work(C, T, rank)
    return total


@functools.lru_cache(maxsize=100_000)
def _feed_forward_work(
    C: int, rows: int, F: int, act: str, up: int, up_rank: int, down: int, down_rank: int
) -> np.ndarray:
    if not F:
        return _vector({})
    work = _nothing()
    _matrix(work, rows, C, F, up, up_rank)
    if up != down and (up > 1 or down > 1):  # one half's pieces are not the other's
        work["channels joined"] += rows * F
    _matrix(work, rows, F, C, down, down_rank)
    total: np.ndarray = _vector(work) + feed_forward_rest(C, rows, F, act)
    return total


def attention_rest(C: int, D: int, T: int, rows: int, heads: int) -> np.ndarray:
    """What attention asks for beside its matrices: the products of queries with keys and probabilities with values."""
    work = {"multiply-adds": 2 * heads * rows * D * T, "scores": heads * rows * T, "normalised": rows * C}
    return _vector(work)


def feed_forward_rest(C: int, rows: int, F: int, act: str) -> np.ndarray:
    """What a feed-forward network asks for beside its matrices."""
    return _vector({act if act in WORK else "gelu": rows * F, "normalised": rows * C})


def shared_work(C: int, T: int, rank: int) -> np.ndarray:
    """What the first factor asks for that query, key and value share."""
    work = _nothing()
    if rank:
        _product(work, T, C, rank)
    return _vector(work)


def matrix_work(
    rows: int, inputs: int, outputs: int, groups: int, rank: int, shared: bool = False, joins: bool = True
) -> np.ndarray:
    """What one matrix asks for; without `joins`, its input is split and joined already.

    One group beside a rank is no group, as a search's choices have it.
    """
    work = _nothing()
    groups = 0 if groups == 1 and rank else groups
    _matrix(work, rows, inputs, outputs, groups, rank, shared, None if joins else {(groups, rows)})
    return _vector(work)


def _nothing() -> dict[str, float]:
    return dict.fromkeys(WORK, 0.0)


def _vector(work: Mapping[str, float]) -> np.ndarray:
    return np.array([work.get(name, 0.0) for name in WORK])


def _matrix(
    work: dict[str, float],
    rows: int,
    inputs: int,
    outputs: int,
    groups: int,
    rank: int,
    shared: bool = False,
    joined: set[tuple[int, int]] | None = None,
) -> None:
    """Add what one matrix asks for as `export/matrices.py` writes it; inputs in `joined` are there already."""
    down = 0 if shared or not rank else inputs * rank
    if rank and _dense_is_cheaper(inputs, outputs, groups, rank, shared):
        groups, rank, down = 1, 0, 0
    if rank and not groups:
        if down:
            _product(work, rows, inputs, rank)
        _product(work, rows, rank, outputs)
        return
    if rank and inputs > outputs and not shared:  # each group makes its share of the reduced channels
        for _ in range(groups):
            _product(work, rows, inputs // groups, outputs // groups + rank)
        _product(work, rows, rank, outputs)
        work["channels joined"] += rows * (outputs + 2 * groups * rank + outputs)
        return
    if down:
        _product(work, rows, inputs, rank)
    for _ in range(groups):
        _product(work, rows, inputs // groups + rank, outputs // groups)
    if groups > 1:
        work["channels joined"] += rows * outputs
        key = (groups, rows)
        if joined is None or key not in joined:
            work["channels joined"] += rows * (inputs + groups * rank)
            if joined is not None:
                joined.add(key)


def _dense_is_cheaper(inputs: int, outputs: int, groups: int, rank: int, shared: bool) -> bool:
    blocks = inputs * outputs // groups if groups else 0
    return blocks + rank * inputs // (3 if shared else 1) + rank * outputs >= inputs * outputs


def _product(work: dict[str, float], n: int, k: int, m: int) -> None:
    work["products"] += 1
    work["multiply-adds"] += n * k * m
    work["inputs read"] += n * k
    work["outputs written"] += n * m
    work["weights read"] += k * m
