"""An ONNX file in; where its time goes, and how fast this machine could be on its products alone, out. Serves `bench`.

The engine's own profile says which products a file computes and what else it does. Each product is then timed bare, in
a file of its own: a network can hardly be faster than the sum of them.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from math import isqrt, prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from squeezebert.benchmark.latency import TimedFile
from squeezebert.files.stopwatch import interleave
from squeezebert.runtime.session import import_onnxruntime, open_session, session_options

# onnxruntime's kernels that are products, and whether they are of integers
_CONVOLUTIONS = ("Conv", "FusedConv", "ConvInteger", "QLinearConv")
_FLOAT = ("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "Conv", "FusedConv")
_INTEGER = (
    *("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm"),
    *("ConvInteger", "QLinearConv"),
)
_LEAST = 1_000_000  # operations of a product that is timed alone: with fewer, the engine's call would be timed


@dataclass(frozen=True, order=True)
class Product:
    """(batch, rows, inner) times (batch, inner, columns); `weights` when the second is a constant."""

    batch: int
    """Products that are computed at once."""
    rows: int
    """Rows of each."""
    inner: int
    """What is summed over."""
    columns: int
    """Columns of each."""
    integer: bool
    """8-bit integers, or 32-bit floats."""
    weights: bool
    """Whether the second factor is a constant, which engines lay out beforehand."""

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * self.batch * self.rows * self.inner * self.columns


@dataclass(frozen=True)
class Profile:
    """Where the time of one run goes."""

    kinds: Mapping[str, float]
    """Kernel -> milliseconds, largest first."""
    products: Mapping[Product, int]
    """Product of a million operations or more -> how often it is computed."""
    small: int = 0
    """Operations of all smaller products together."""


def profile_file(file: TimedFile, inputs: Mapping[str, np.ndarray], threads: int, runs: int = 10) -> Profile:
    """Run a file on `inputs` under the engine's profiler; the first runs are left out."""
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(threads, file.exact)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = import_onnxruntime().InferenceSession(
            str(file.path),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=list(file.disabled_optimizers),
        )
        taken = {given.name: inputs[given.name] for given in session.get_inputs()}
        for _ in range(runs + 2):
            session.run(None, taken)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return read_profile(events, runs + 2, 2)


def read_profile(events: Iterable[Mapping[str, Any]], runs: int, skipped: int) -> Profile:
    """Return the medians of `runs` equal runs, the first few of which are left out, and the products of one."""
    nodes = [e for e in events if e.get("cat") == "Node" and str(e.get("name", "")).endswith("kernel_time")]
    each = len(nodes) // runs
    taken: list[Counter[str]] = []  # by run: an interruption is one run's alone
    for run in range(skipped, runs):
        taken.append(Counter())
        for event in nodes[run * each : (run + 1) * each]:
            taken[-1][event["args"]["op_name"]] += event["dur"]
    products: Counter[Product] = Counter()
    for event in nodes[len(nodes) - each :]:
        kind = event["args"]["op_name"]
        if kind in (*_FLOAT, *_INTEGER):
            products.update(_products(event["args"], kind in _INTEGER))
    kinds = {kind: statistics.median(run[kind] for run in taken) / 1e3 for kind in set().union(*taken)}
    small = sum(one.operations * count for one, count in products.items() if one.operations < _LEAST)
    return Profile(
        dict(sorted(kinds.items(), key=lambda item: -item[1])),
        {one: count for one, count in products.items() if one.operations >= _LEAST},
        small,
    )


def _products(told: Mapping[str, Any], integer: bool) -> Mapping[Product, int]:
    """The products of a kernel's event, from the shapes of what it read and made; constants are missing there."""
    shapes = [next(iter(one.values())) for one in told["input_type_shape"]]
    made = next(iter(told["output_type_shape"][0].values()))
    first = shapes[0]
    if len(made) < 2 or not first:
        return {}
    if told["op_name"] in _CONVOLUTIONS:  # (texts, channels, places) and (channels, channels a group, places)
        filters = next((shape for shape in shapes[1:] if len(shape) == len(first) >= 3), None)
        if filters is None:
            return {}
        groups = first[1] // filters[1]
        rows = made[0] * prod(made[2:])
        return {Product(1, rows, prod(filters[1:]), made[1] // groups, integer, True): groups}
    others = [shape for shape in shapes[1:] if len(shape) >= 2]
    if told["op_name"] in ("Gemm", "FusedGemm") and others == [made]:
        others = []  # what is added: the weights were laid out beforehand
    rows, columns = made[-2], made[-1]
    if not others:  # the weights were laid out beforehand; tokens of all texts are rows
        return {Product(1, prod(made[:-1]), first[-1], columns, integer, True): 1}
    batch = prod(made[:-2])
    # (batch rows inner) (batch inner columns) = (batch rows columns) batch inner^2, whatever is transposed
    squared = prod(first) * prod(others[0]) // max(1, prod(made) * batch)
    return {Product(batch, rows, isqrt(squared), columns, integer, False): 1}


def bare_times(products: Iterable[Product], threads: int, runs: int = 15, burst: int = 5) -> dict[Product, float]:
    """Time each product alone, in the same engine, interleaved; return milliseconds (medians)."""
    wanted = sorted(set(products))
    with tempfile.TemporaryDirectory() as folder:
        things: dict[str, Callable[[], object]] = {}
        for number, product in enumerate(wanted):
            path = Path(folder) / f"{number}.onnx"
            onnx.save(_model(product), str(path))
            session = open_session(path, threads)  # exact where the files' own products have to be
            inputs = {given.name: _values(given, product) for given in session.get_inputs()}
            things[str(number)] = partial(session.run, None, inputs)
        timings = interleave(things, runs, burst=burst) if things else {}
    return {product: timings[str(number)].median_ms for number, product in enumerate(wanted)}


def _model(product: Product) -> onnx.ModelProto:
    shapes = {
        "a": [product.batch, product.rows, product.inner] if product.batch > 1 else [product.rows, product.inner],
        "b": [product.batch, product.inner, product.columns]
        if product.batch > 1
        else [product.inner, product.columns],
    }
    kinds = {"a": TensorProto.UINT8, "b": TensorProto.INT8} if product.integer else {}
    inputs = [helper.make_tensor_value_info("a", kinds.get("a", TensorProto.FLOAT), shapes["a"])]
    constants = []
    if product.weights:
        kind = np.int8 if product.integer else np.float32
        constants.append(
            numpy_helper.from_array(np.random.default_rng(0).integers(-9, 9, shapes["b"]).astype(kind), "b")
        )
    else:
        inputs.append(helper.make_tensor_value_info("b", kinds.get("b", TensorProto.FLOAT), shapes["b"]))
    output = helper.make_tensor_value_info("y", TensorProto.INT32 if product.integer else TensorProto.FLOAT, None)
    node = helper.make_node("MatMulInteger" if product.integer else "MatMul", ["a", "b"], ["y"])
    graph = helper.make_graph([node], "product", inputs, [output], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _values(given: Any, product: Product) -> np.ndarray:
    kind = {"tensor(uint8)": np.uint8, "tensor(int8)": np.int8}.get(given.type, np.float32)
    found: np.ndarray = np.random.default_rng(1).integers(0, 9, given.shape).astype(kind)
    return found
