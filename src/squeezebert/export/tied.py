"""An ONNX graph in, the same with one table of words in 8 bits that lookup and output product both read. Serves
`quantize.py`.

A masked-lm ties its output product to its word embeddings, which are half of a small model. onnxruntime's quantiser
would write them twice, once in each layout. Here the product reads the transposed table: engines fold that when they
load the file, so that it costs no time in a run, and memory for the second layout as the quantiser's form does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

_LARGEST = 127
_SMALLEST = 1e-12


def share_words(proto: Any) -> list[str]:
    """Write a table that a Gather looks up and a product multiplies by in 8 bits, in place, once for both.

    Each word has a scale of its own. Returns the names of the new nodes that a quantiser has to leave alone; none, and
    the graph as it was, where no table is read both ways.
    """
    graph = proto.graph
    tables = {one.name: one for one in graph.initializer if len(one.dims) == 2 and one.data_type == TensorProto.FLOAT}
    lookups = {node.input[0]: node for node in graph.node if node.op_type == "Gather" and node.input[0] in tables}
    found = next((both for node in graph.node if (both := _product(node, graph, lookups)) is not None), None)
    if found is None:
        return []
    name, product, transposed = found
    table_VE: NDArray[np.float32] = numpy_helper.to_array(tables[name]).astype(np.float32)
    scales_V = np.maximum(np.abs(table_VE).max(axis=1) / _LARGEST, np.float32(_SMALLEST)).astype(np.float32)
    levels_VE = np.clip(np.rint(table_VE / scales_V[:, None]), -_LARGEST, _LARGEST).astype(np.int8)
    constants: dict[str, NDArray[Any]] = {
        "words.levels": levels_VE,
        "words.scales": scales_V,
        "words.zero": np.array(0, np.int8),
        "words.last": np.array([-1], np.int64),
    }
    lookup = lookups[name]
    ids, looked_up = lookup.input[1], lookup.output[0]
    states, scores = product.input[0], product.output[0]
    bias = list(product.input[2:])
    steps = [
        ("Gather", ["words.levels", ids], ["words.rows"], {}),
        ("Cast", ["words.rows"], ["words.numbers"], {"to": TensorProto.FLOAT}),
        ("Gather", ["words.scales", ids], ["words.factor"], {}),
        ("Unsqueeze", ["words.factor", "words.last"], ["words.factors"], {}),
        ("Mul", ["words.numbers", "words.factors"], [looked_up], {}),
    ]
    # As onnxruntime's quantiser writes a product, so that what reads its graphs knows these nodes
    scored = [
        ("DynamicQuantizeLinear", [states], ["scores.rounded", "scores.scale", "scores.zero"], {}),
        ("Transpose", ["words.levels"], ["words.columns"], {"perm": [1, 0]}),
        (
            "MatMulInteger",
            ["scores.rounded", "words.columns", "scores.zero", "words.zero"],
            ["scores.integers"],
            {},
        ),
        ("Mul", ["scores.scale", "words.scales"], ["scores.scales"], {}),
        ("Cast", ["scores.integers"], ["scores.numbers"], {"to": TensorProto.FLOAT}),
        ("Mul", ["scores.numbers", "scores.scales"], ["scores.product" if bias else scores], {}),
        *([("Add", ["scores.product", *bias], [scores], {})] if bias else []),
    ]
    replaced = {id(lookup): _nodes("words", steps), id(product): _nodes("scores", scored)}
    if transposed is not None:
        replaced[id(transposed)] = []
    nodes = [new for node in graph.node for new in replaced.get(id(node), [node])]
    del graph.node[:]
    graph.node.extend(nodes)
    kept = [one for one in graph.initializer if one.name != name]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *(numpy_helper.from_array(value, key) for key, value in constants.items())])
    return [node.name for node in nodes if node.name.startswith(("words_", "scores_"))]


def _product(node: Any, graph: Any, lookups: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """The table that a product multiplies by transposed, the product, and the node that transposes, if it is one."""
    if node.op_type == "Gemm":
        told = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        plain = told.get("alpha", 1.0) == told.get("beta", 1.0) == 1.0 and not told.get("transA", 0)
        if node.input[1] in lookups and told.get("transB", 0) and plain:
            return node.input[1], node, None
    if node.op_type == "MatMul":
        for other in graph.node:
            if other.op_type == "Transpose" and other.output[0] == node.input[1] and other.input[0] in lookups:
                return other.input[0], node, other
    return None


def _nodes(name: str, steps: list[Any]) -> list[Any]:
    return [
        helper.make_node(kind, inputs, outputs, name=f"{name}_{number}", **told)
        for number, (kind, inputs, outputs, told) in enumerate(steps)
    ]
