"""An ONNX graph in, the same with its word embeddings in 4 bits out. Serves `quantize.py`.

Word embeddings are half of a small model's file. onnxruntime has an operator of its own for tables of 4 bits; plain
operators, as here, run on every engine, and look up and unpack only the rows of a text.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from squeezebert.files.errors import OptionError

_BLOCK = 64  # numbers that share a scale
_LEVELS = 7  # numbers are -8 to 7 scales; the largest of a block is 7 of them, or is cut
_CUTS = (1.0, 0.9, 0.8, 0.7)  # shares of a block's largest number that are tried as its range


def pack_table(table_VC: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return a table as bytes (V, C / 2) and scales (V, C / block), with the smallest squared error of some ranges.

    The low half of a byte is a number of the first half of the channels, the high half one of the second; 8 stands for
    zero.
    """
    V, C = table_VC.shape
    blocks = table_VC.reshape(V, C // block_of(C), -1)
    largest = np.abs(blocks).max(axis=-1, keepdims=True)
    best = np.full(largest.shape, np.inf, dtype=np.float32)
    levels, scales = np.zeros(blocks.shape, dtype=np.int8), np.ones(largest.shape, dtype=np.float32)
    for cut in _CUTS:
        scale = np.maximum(largest * (cut / _LEVELS), np.float32(1e-12)).astype(np.float32)
        found = np.clip(np.rint(blocks / scale), -8, _LEVELS)
        error = np.square(found * scale - blocks).sum(axis=-1, keepdims=True)
        better = error < best
        best = np.where(better, error, best)
        levels = np.where(better, found, levels).astype(np.int8)
        scales = np.where(better, scale, scales)
    numbers = (levels.reshape(V, C) + 8).astype(np.uint8)
    packed: NDArray[np.uint8] = (numbers[:, : C // 2] | (numbers[:, C // 2 :] << 4)).astype(np.uint8)
    return packed, scales.reshape(V, -1).astype(np.float32)


def unpack_table(bytes_VC: NDArray[np.uint8], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the table (V, C) that `pack_table` packed, rounded."""
    numbers = np.concatenate([bytes_VC & 15, bytes_VC >> 4], axis=1).astype(np.float32) - 8
    blocks = numbers.reshape(len(numbers), scales.shape[1], -1) * scales[..., None]
    found: NDArray[np.float32] = blocks.reshape(numbers.shape)
    return found


def block_of(channels: int) -> int:
    """Return how many channels share a scale: the largest divisor up to 64. Raises `OptionError` for odd widths."""
    if channels % 2:
        raise OptionError(f"embeddings of {channels} channels cannot be packed in pairs: export them as int8")
    return max(size for size in range(1, _BLOCK + 1) if channels % size == 0)


def pack_words(proto: Any) -> list[str]:
    """Write the largest table that a Gather of `proto` looks up in 4 bits, in place.

    Returns the names of the nodes that look it up, which a quantiser has to leave alone: it would round all scales to
    8 bits in one range.
    """
    graph = proto.graph
    tables = {one.name: one for one in graph.initializer if len(one.dims) == 2 and one.data_type == TensorProto.FLOAT}
    lookups = [node for node in graph.node if node.op_type == "Gather" and node.input[0] in tables]
    node = max(lookups, key=lambda one: int(np.prod(tables[one.input[0]].dims)))
    table = tables[node.input[0]]
    packed, scales = pack_table(numpy_helper.to_array(table).astype(np.float32))
    C, blocks = int(table.dims[1]), scales.shape[1]
    constants: dict[str, NDArray[Any]] = {
        "words.packed": packed,
        "words.scales": scales.astype(np.float16),
        "words.low": np.array(15, np.uint8),
        "words.shift": np.array(4, np.uint8),
        "words.one": np.array(1.0, np.float32),
        "words.zero": np.array(8, np.uint8),
        # 0 copies a dimension of the ids, which are (T, B)
        "words.in_blocks": np.array([0, 0, blocks, C // blocks], np.int64),
        "words.whole": np.array([0, 0, C], np.int64),
        "words.last": np.array([-1], np.int64),
    }
    ids, found = node.input[1], node.output[0]
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Gather", ["words.packed", ids], "words.bytes", {}),
        ("BitwiseAnd", ["words.bytes", "words.low"], "words.first", {}),
        ("BitShift", ["words.bytes", "words.shift"], "words.second", {"direction": "RIGHT"}),
        ("Concat", ["words.first", "words.second"], "words.numbers", {"axis": -1}),
        ("DequantizeLinear", ["words.numbers", "words.one", "words.zero"], "words.levels", {}),
        ("Reshape", ["words.levels", "words.in_blocks"], "words.blocks", {}),
        ("Gather", ["words.scales", ids], "words.half", {}),
        ("Cast", ["words.half"], "words.scale", {"to": TensorProto.FLOAT}),
        ("Unsqueeze", ["words.scale", "words.last"], "words.factor", {}),
        ("Mul", ["words.blocks", "words.factor"], "words.scaled", {}),
        ("Reshape", ["words.scaled", "words.whole"], found, {}),
    ]
    nodes = [
        helper.make_node(kind, inputs, [output], name=f"words_{number}", **told)
        for number, (kind, inputs, output, told) in enumerate(steps)
    ]
    place = list(graph.node).index(node)
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*rest[:place], *nodes, *rest[place + 1 :]])
    kept = [one for one in graph.initializer if one.name != table.name]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *(numpy_helper.from_array(value, name) for name, value in constants.items())])
    return [one.name for one in nodes if one.op_type == "Gather"]
