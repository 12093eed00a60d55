"""An fp32 ONNX file in, an int8 one out: weights rounded now, activations as they come or in ranges found before.

Serves the exporter.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from squeezebert.export.options import Embeddings
from squeezebert.export.packing import pack_words
from squeezebert.export.ranges import scale_and_zero
from squeezebert.export.tied import share_words

DYNAMIC = (
    "dynamic: int8 weights, one scale a channel; uint8 activations, ranges taken per tensor and run; "
    "channels that stand out on built-in text scaled down before"
)
STATIC = (
    "static: int8 weights, one scale a channel; uint8 activations, ranges taken per tensor on calibration text ({}); "
    "channels that stand out on built-in text scaled down before"
)
PACKED = "; word embeddings in 4 bits, a scale for each 64 channels"
# Never Conv: its dynamic form, ConvInteger, is slower than fp32
_OPERATORS = ("MatMul", "Gemm", "Gather")
_PRODUCTS = ("MatMul", "Gemm")
# What the graph calls the table of positions
POSITIONS = "position_embeddings"
# onnxruntime's own: product, scales and bias in one node. It makes such nodes of the usual three only where the range
# is found in each run; left as the three, static int8 would be slower than dynamic (1.32)
_CONTRIB = "com.microsoft"


def quantize_graph(
    source: Path, target: Path, embeddings: Embeddings = "int8", spared: Collection[int] = ()
) -> list[str]:
    """Write the file at `source` with int8 products to `target`, and word embeddings in 8 bits or in 4.

    Blocks in `spared`, counted from 0, stay fp32. Returns the names of the tensors that are rounded in each run.

    Weights use all 8 bits. Seven (`reduce_range`) would keep CPUs without VNNI from overflowing, but cost accuracy on
    every CPU; the runtime has those CPUs take exact products instead (`runtime.session.integer_products_saturate`).
    """
    proto = onnx.load(str(source))
    lookups = pack_words(proto) if embeddings == "int4" else share_words(proto)
    halve_positions(proto)
    prefixes = tuple(f"blocks.{block}." for block in spared)
    products = [
        node.name
        for node in proto.graph.node
        if node.op_type in _PRODUCTS and any(name.startswith(prefixes) for name in node.input if prefixes)
    ]
    with unadvised():
        quantize_dynamic(
            proto,
            str(target),
            op_types_to_quantize=list(_OPERATORS),
            # The quantiser first makes a MatMul and an Add of each Gemm, under this name
            nodes_to_exclude=[*lookups, *products, *(f"{name}_MatMul" for name in products)],
            per_channel=True,
            reduce_range=False,
            weight_type=QuantType.QInt8,
        )
    return [node.input[0] for node in onnx.load(str(target)).graph.node if node.op_type == "DynamicQuantizeLinear"]


def halve_positions(proto: Any) -> None:
    """Keep the table of positions in 16-bit floats, and turn the rows that a text needs into 32 bits.

    It is sliced and not looked up, so that the quantiser leaves it as it is: 1.6 MB in a model of 768 channels.
    """
    graph = proto.graph
    for table in (one for one in graph.initializer if one.name == POSITIONS):
        readers = [node for node in graph.node if table.name in node.input]
        if [node.op_type for node in readers] != ["Slice"]:
            continue
        table.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(table).astype(np.float16), table.name))
        (slicing,) = readers
        (rows,) = slicing.output
        slicing.output[0] = f"{rows}_half"
        widened = helper.make_node(
            "Cast", [slicing.output[0]], [rows], f"{slicing.name}_widened", to=TensorProto.FLOAT
        )
        graph.node.insert(list(graph.node).index(slicing) + 1, widened)


@contextmanager
def unadvised() -> Iterator[None]:
    """Hold back what onnxruntime's quantiser advises on the root logger, where nobody could tell whom it is for."""
    root = logging.getLogger()

    def keep(record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING

    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)


def fix_ranges(path: Path, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Rewrite the file that `quantize_graph` wrote: each tensor of `ranges` is rounded in its range.

    A matrix product, the two nodes that turn its integers into numbers, and its bias become one node.
    """
    proto = onnx.load(str(path))
    graph = proto.graph
    constants = {constant.name for constant in graph.initializer}
    made_by = {output: node for node in graph.node for output in node.output}
    read_by: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            read_by.setdefault(name, []).append(node)
    # Each node's place in the graph, and what stands there now
    places: dict[int, Any] = {id(node): node for node in graph.node}
    for node in graph.node:
        if node.op_type == "DynamicQuantizeLinear" and node.input[0] in ranges:
            rounded, scale, zero = node.output
            for name, number in zip((scale, zero), scale_and_zero(*ranges[node.input[0]]), strict=True):
                graph.initializer.append(numpy_helper.from_array(np.asarray(number), name))
                constants.add(name)
            places[id(node)] = helper.make_node("QuantizeLinear", [node.input[0], scale, zero], [rounded], node.name)
    for node in graph.node:
        if node.op_type != "MatMulInteger" or node.input[2] not in constants:
            continue
        (cast,) = read_by[node.output[0]]
        (times,) = read_by[cast.output[0]]
        scales = made_by[next(name for name in times.input if name != cast.output[0])]
        gone, bias, output = [cast, times, scales], [], times.output[0]
        following = read_by.get(output, [])
        if len(following) == 1 and following[0].op_type == "Add":
            bias = [name for name in following[0].input if name in constants]
            if bias:
                gone.append(following[0])
                output = following[0].output[0]
        one = [node.input[0], node.input[1], *scales.input, node.input[2], node.input[3], *bias]
        places[id(node)] = helper.make_node("MatMulIntegerToFloat", one, [output], node.name, domain=_CONTRIB)
        for other in gone:
            places.pop(id(other), None)
    kept = list(places.values())
    del graph.node[:]
    graph.node.extend(kept)
    proto.opset_import.append(helper.make_opsetid(_CONTRIB, 1))
    onnx.save(proto, str(path))
