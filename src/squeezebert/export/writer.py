"""An ONNX graph while it is written, node after node, with onnxscript's builder. Serves `graph.py`, `matrices.py`.

torch's own exporter has to find out what a model does, which takes far longer (`benchmarks/graph_writing.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np
import onnx
import onnx_ir as ir
from onnxscript import GraphBuilder
from torch import Tensor, nn

from squeezebert import __version__
from squeezebert.files.errors import OptionError

Value = ir.Value
Shape = Sequence[int | str]
# What files of opset 18 to 20 need; engines refuse versions that they don't know
_IR_VERSION = 10
# From this operator set on GELU is an operator
_HAS_GELU = 20
_ROOT_OF_TWO = 2.0**0.5
_TANH_INNER, _TANH_CUBE = (2.0 / np.pi) ** 0.5, 0.044715


class Operators(Protocol):
    """Adds a node by the name of its operator, `operators.MatMul(a, b)`, and returns its output.

    Numbers and lists among the inputs become constants, keywords attributes.
    """

    def __getattr__(self, name: str) -> Callable[..., Value]: ...


class Writer:
    """A graph on its way: `writer.op.MatMul(a, b)` adds a node, and torch's tensors are its weights."""

    def __init__(self, weights: nn.Module, opset: int) -> None:
        """Take the module whose tensors will be written, under its names for them."""
        self.opset = opset
        self._graph = ir.Graph([], [], nodes=[], opset_imports={"": opset}, name="main_graph")
        self._builder = GraphBuilder(self._graph)
        self.op = cast(Operators, self._builder.op)
        # A tensor with two names, such as a tied table, is one weight
        self._names: dict[int, str] = {}
        for name, tensor in weights.state_dict().items():
            self._names.setdefault(tensor.data_ptr(), name)
        self._weights: dict[str, Value] = {}
        self._lengths: dict[tuple[Any, ...], Value] = {}

    def input(self, name: str, shape: Shape) -> Value:
        """Add an input of whole numbers."""
        return self._builder.input(name, ir.DataType.INT64, list(shape))

    def weight(self, tensor: Tensor) -> Value:
        """Return a tensor of the module as a constant of the file."""
        name = self._names[tensor.data_ptr()]
        if name not in self._weights:
            values = ir.tensor(tensor.detach().numpy(), name=name)
            self._weights[name] = self._builder.initializer(values, name)
        return self._weights[name]

    def lengths(self, *parts: int | Value) -> Value:
        """Return a shape of fixed lengths and of those that a run decides, values of (1,), for `Reshape`."""
        key = tuple(part if isinstance(part, int) else part.name for part in parts)
        if key not in self._lengths:
            self._lengths[key] = self.op.Concat(*([part] if isinstance(part, int) else part for part in parts), axis=0)
        return self._lengths[key]

    def split(self, x: Value, parts: int, sizes: Sequence[int] = ()) -> list[Value]:
        """Return the channels of x in so many parts, of equal size or of these sizes."""
        if sizes:
            told = self.op.Split(x, list(sizes), axis=-1, _outputs=parts)
        else:
            told = self.op.Split(x, num_outputs=parts, axis=-1, _outputs=parts)
        return list(cast(Sequence[Value], told))

    def linear(self, x: Value, weight: Tensor, bias: Tensor) -> Value:
        """Return x (N, I) times the transpose of `weight` (O, I), plus `bias`."""
        return self.op.Gemm(x, self.weight(weight), self.weight(bias), transB=1)

    def normalised(self, x: Value, norm: nn.LayerNorm) -> Value:
        """Return a LayerNorm of the last axis."""
        return self.op.LayerNormalization(x, self.weight(norm.weight), self.weight(norm.bias), epsilon=norm.eps)

    def activated(self, x: Value, name: str) -> Value:
        """Return an activation by the name that configurations have for it. Raises `OptionError` for others."""
        if name not in ACTIVATIONS:
            raise OptionError(f"activation {name!r}: expected one of {', '.join(ACTIVATIONS)}: no other is exported")
        return ACTIVATIONS[name](self, x)

    def finish(self, output: Value, name: str, shape: Shape) -> onnx.ModelProto:
        """Return the graph with its output, of floats, as ONNX."""
        output.shape, output.type = ir.Shape(list(shape)), ir.TensorType(ir.DataType.FLOAT)
        self._builder.add_output(output, name)
        for node in self._graph:
            node.metadata_props.clear()  # the builder's notes on where each node came from
        model = ir.Model(
            self._graph, ir_version=_IR_VERSION, producer_name="squeezebert", producer_version=__version__
        )
        proto: onnx.ModelProto = ir.to_proto(model)
        # Weights say themselves what they are; what says it twice has to be changed twice
        described = [value for value in proto.graph.value_info if value.name not in self._graph.initializers]
        del proto.graph.value_info[:]
        proto.graph.value_info.extend(described)
        return proto


def _gelu(writer: Writer, x: Value) -> Value:
    if writer.opset >= _HAS_GELU:
        return writer.op.Gelu(x)
    op = writer.op
    return op.Mul(op.Mul(x, op.Add(op.Erf(op.Div(x, _ROOT_OF_TWO)), 1.0)), 0.5)


def _gelu_by_tanh(writer: Writer, x: Value) -> Value:
    if writer.opset >= _HAS_GELU:
        return writer.op.Gelu(x, approximate="tanh")
    op = writer.op
    inner = op.Mul(op.Add(x, op.Mul(op.Mul(op.Mul(x, x), x), _TANH_CUBE)), float(_TANH_INNER))
    return op.Mul(op.Mul(x, op.Add(op.Tanh(inner), 1.0)), 0.5)


def _squared(writer: Writer, x: Value) -> Value:
    positive = writer.op.Relu(x)
    return writer.op.Mul(positive, positive)


_Activation = Callable[[Writer, Value], Value]
# Those of transformers that have no weights
ACTIVATIONS: Mapping[str, _Activation] = {
    **dict.fromkeys(("gelu", "gelu_python"), _gelu),
    **dict.fromkeys(
        ("gelu_new", "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh"), _gelu_by_tanh
    ),
    "gelu_10": lambda writer, x: writer.op.Clip(_gelu(writer, x), -10.0, 10.0),
    "quick_gelu": lambda writer, x: writer.op.Mul(x, writer.op.Sigmoid(writer.op.Mul(x, 1.702))),
    "relu": lambda writer, x: writer.op.Relu(x),
    "relu2": _squared,
    "relu6": lambda writer, x: writer.op.Clip(x, 0.0, 6.0),
    "leaky_relu": lambda writer, x: writer.op.LeakyRelu(x, alpha=0.01),
    "hardswish": lambda writer, x: writer.op.HardSwish(x),
    "mish": lambda writer, x: writer.op.Mish(x),
    **dict.fromkeys(("silu", "swish"), lambda writer, x: writer.op.Mul(x, writer.op.Sigmoid(x))),
    "sigmoid": lambda writer, x: writer.op.Sigmoid(x),
    "tanh": lambda writer, x: writer.op.Tanh(x),
    "linear": lambda writer, x: x,
}
