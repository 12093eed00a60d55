"""Forms of one network's graph, timed in one run: what each way to write it costs next to the way `export` writes it.

python benchmarks/forms.py [--threads 1] [--runs 40] [--length 128] [--layers 12] [--output FILE]
python benchmarks/forms.py --only WORD --output FILE [...]

SqueezeBERT's shape with random weights, one text. All forms compute the same function but those with another
activation and those in 8 bits from product to product, whose ranges are made up: time does not depend on them. The
table names them, and the largest difference of each form from the exported one is recorded. Run it on quiet cores.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

from squeezebert.benchmark.baselines import write_usual_export
from squeezebert.benchmark.latency import made_up_inputs
from squeezebert.export import graph
from squeezebert.export.exporter import DISABLED_OPTIMIZERS
from squeezebert.export.graph import Block, EncoderGraph, Padding, write_graph
from squeezebert.export.matrices import Blocks, Channels
from squeezebert.export.quantize import fix_ranges, quantize_graph
from squeezebert.export.ranges import find_ranges
from squeezebert.export.writer import ACTIVATIONS, Value, Writer
from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.files.stopwatch import interleave
from squeezebert.model import SqueezeBertConfig, SqueezeBertForSequenceClassification
from squeezebert.runtime.session import import_onnxruntime, session_options

RESULTS = Path(__file__).parent / "results"
CONTRIB = "com.microsoft"


# --- products -----------------------------------------------------------------------------------------------


def batched_groups(blocks: Blocks, x: Channels) -> list[Value]:
    """All groups as one batched product."""
    writer, op, groups = x.writer, x.writer.op, blocks.pieces
    if groups == 1:
        return [op.Gemm(x.whole, writer.weight(blocks.weights[0]), writer.weight(blocks.biases[0]))]
    weights, biases = (torch.stack(list(some)) for some in (blocks.weights, blocks.biases))
    x_GNC = op.Transpose(op.Reshape(x.whole, [0, groups, weights.shape[1]]), perm=[1, 0, 2])
    y_GNC = op.Add(op.MatMul(x_GNC, constant(writer, weights)), constant(writer, biases[:, None]))
    return [op.Reshape(op.Transpose(y_GNC, perm=[1, 0, 2]), [0, groups * weights.shape[2]])]


def contrib_of(writer: Writer) -> Any:
    """What adds nodes of onnxruntime's own."""
    builder = writer.op.builder
    builder.graph.opset_imports.setdefault(CONTRIB, 1)
    return builder.opset(CONTRIB, 1)


def constant(writer: Writer, tensor: Tensor) -> Value:
    """A constant that is no weight of the graph's module."""
    number = len(writer.op.builder.graph.initializers)
    return writer.op.initializer(ir.tensor(tensor.detach().contiguous().numpy()), f"constant_{number}")


class JoinedProjections(Block):
    """Query, key and value of a group in one product."""

    def _hold_attention(self, *arguments: Any) -> None:
        super()._hold_attention(*arguments)
        of_group = list(zip(self.query.weights, self.key.weights, self.value.weights, strict=True))
        biases = zip(self.query.biases, self.key.biases, self.value.biases, strict=True)
        self.weights = nn.ParameterList(torch.cat(one, dim=1) for one in of_group)
        self.biases = nn.ParameterList(torch.cat(one) for one in biases)

    def projected(self, writer: Writer, x_NC: Value) -> list[Sequence[Value]]:
        """Query, key and value (N, C / G) of each group."""
        op = writer.op
        pieces = Channels(writer, [x_NC]).by_group(len(self.weights))
        products = [
            op.Gemm(x, writer.weight(w), writer.weight(b))
            for x, w, b in zip(pieces, self.weights, self.biases, strict=True)
        ]
        return [writer.split(product, 3) for product in products]

    def attention_half(self, writer: Writer, x_NC: Value, padding: Padding, asked_P: Value | None = None) -> Value:
        if self.first_only:  # the first token's query alone is computed there
            return super().attention_half(writer, x_NC, padding, asked_P)
        of_groups = self.projected(writer, x_NC)
        query, key, value = (writer.op.Concat(*pieces, axis=-1) for pieces in zip(*of_groups, strict=True))
        return self.behind(writer, [self.attend(writer, query, key, value, padding)], x_NC)

    def behind(self, writer: Writer, context: Sequence[Value], x_NC: Value) -> Value:
        """What comes behind attention."""
        after = Channels(writer, self.after.write(Channels(writer, context))).whole
        return writer.normalised(self.residual(writer, after, x_NC), self.after_norm)


class AttentionByGroup(JoinedProjections):
    """The heads of a group attend right behind its product: nothing is joined before the output projection."""

    def attention_half(self, writer: Writer, x_NC: Value, padding: Padding, asked_P: Value | None = None) -> Value:
        if self.first_only:
            return super().attention_half(writer, x_NC, padding, asked_P)
        heads, self.heads = self.heads, self.heads // len(self.weights)
        context = [self.attend(writer, *of_group, padding) for of_group in self.projected(writer, x_NC)]
        self.heads = heads
        return self.behind(writer, context, x_NC)


class OneByOne(Block):
    """Groups are joined between the halves of the feed-forward network."""

    def feed_forward(self, writer: Writer, x_NC: Value) -> Value:
        wide = Channels(writer, self.up.write(Channels(writer, [x_NC]))).whole
        return Channels(writer, self.down.write(Channels(writer, [writer.activated(wide, self.act)]))).whole


class PlainSum(Block):
    """An Add before each LayerNormalization."""

    def residual(self, writer: Writer, x_NC: Value, own_NC: Value) -> Value:
        return writer.op.Add(x_NC, own_NC)


# --- attention ----------------------------------------------------------------------------------------------


def masked_scores(writer: Writer, padding: Padding, number: float = -1e9) -> Value:
    """The usual large negative number for the scores of padding, (B, 1, 1, T)."""
    op = writer.op
    return op.Mul(op.Sub(1.0, op.Transpose(padding.of_keys, perm=[0, 1, 3, 2])), number)


class HeadsFirst(Block):
    """Forms of attention that read queries, keys and values as (B, H, T, D)."""

    def by_head(self, writer: Writer, x_NC: Value, padding: Padding) -> Value:
        """(N, C) with tokens first as (B, H, T, D)."""
        layout = writer.lengths(-1, padding.batch, self.heads, self.head_size)
        return writer.op.Transpose(writer.op.Reshape(x_NC, layout), perm=[1, 2, 0, 3])

    def joined(self, writer: Writer, context_BHTD: Value) -> Value:
        """The context (N, C)."""
        op = writer.op
        return op.Reshape(op.Transpose(context_BHTD, perm=[2, 0, 1, 3]), [-1, self.heads * self.head_size])


class AdditiveMask(HeadsFirst):
    """The usual large negative number on the scores of padding."""

    def attend(self, writer: Writer, query_NC: Value, key_NC: Value, value_NC: Value, padding: Padding) -> Value:
        op = writer.op
        query, key, value = (self.by_head(writer, x, padding) for x in (query_NC, key_NC, value_NC))
        scores = op.MatMul(query, op.Transpose(key, perm=[0, 1, 3, 2]))
        weights = op.Softmax(op.Add(scores, masked_scores(writer, padding)), axis=-1)
        return self.joined(writer, op.MatMul(weights, value))


class FusedAttention(Block):
    """onnxruntime's own operator for attention of several heads."""

    def attend(self, writer: Writer, query_NC: Value, key_NC: Value, value_NC: Value, padding: Padding) -> Value:
        op, width = writer.op, self.heads * self.head_size
        layout = writer.lengths(-1, padding.batch, width)
        query, key, value = (
            op.Transpose(op.Reshape(x_NC, layout), perm=[1, 0, 2]) for x_NC in (query_NC, key_NC, value_NC)
        )
        bias = over_queries(writer, masked_scores(writer, padding), query, axis=1)
        context_BTC = contrib_of(writer).MultiHeadAttention(
            query, key, value, None, None, bias, num_heads=self.heads, scale=1.0
        )
        return op.Reshape(op.Transpose(context_BTC, perm=[1, 0, 2]), [-1, width])


class StandardAttention(HeadsFirst):
    """ONNX's operator Attention, of operator set 23."""

    def attend(self, writer: Writer, query_NC: Value, key_NC: Value, value_NC: Value, padding: Padding) -> Value:
        query, key, value = (self.by_head(writer, x, padding) for x in (query_NC, key_NC, value_NC))
        bias = over_queries(writer, masked_scores(writer, padding), query, axis=2)
        return self.joined(writer, writer.op.Attention(query, key, value, bias, scale=1.0))


def over_queries(writer: Writer, bias_B11T: Value, query: Value, axis: int) -> Value:
    """A bias that is the same for all queries, (B, 1, T, T), as these operators want it."""
    op = writer.op
    tokens = op.Shape(query, start=axis, end=axis + 1)
    return op.Expand(bias_B11T, writer.lengths(1, 1, tokens, 1))


class IntegerAttention(HeadsFirst):
    """Both products of attention in 8 bits, ranges found in each run."""

    def attend(self, writer: Writer, query_NC: Value, key_NC: Value, value_NC: Value, padding: Padding) -> Value:
        op = writer.op
        value_NC = op.Mul(value_NC, padding.of_tokens)
        query, key, value = (self.by_head(writer, x, padding) for x in (query_NC, key_NC, value_NC))
        weights = op.Softmax(integer_product(op, query, op.Transpose(key, perm=[0, 1, 3, 2])), axis=-1)
        kept = op.Clip(op.MatMul(weights, padding.of_keys), 1e-30)
        return self.joined(writer, op.Div(integer_product(op, weights, value), kept))


def integer_product(op: Any, first: Value, second: Value) -> Value:
    """The product of two tensors, each rounded to 8 bits in its own range."""
    (a, a_scale, a_zero), (b, b_scale, b_zero) = (op.DynamicQuantizeLinear(one, _outputs=3) for one in (first, second))
    whole = op.Cast(op.MatMulInteger(a, b, a_zero, b_zero), to=onnx.TensorProto.FLOAT)
    return op.Mul(whole, op.Mul(a_scale, b_scale))


# --- order of tokens, activation ----------------------------------------------------------------------------


class TextsFirst(Block):
    """Texts before tokens, the usual order: heads are read after a transposition."""

    def attend(self, writer: Writer, query_NC: Value, key_NC: Value, value_NC: Value, padding: Padding) -> Value:
        op = writer.op
        kept_N1 = op.Reshape(padding.of_keys, [-1, 1])
        layout = writer.lengths(padding.batch, -1, self.heads, self.head_size)
        query, key, value = (
            op.Transpose(op.Reshape(x, layout), perm=[0, 2, 1, 3])
            for x in (query_NC, key_NC, op.Mul(value_NC, kept_N1))
        )
        weights = op.Softmax(op.MatMul(query, op.Transpose(key, perm=[0, 1, 3, 2])), axis=-1)
        context = op.Div(op.MatMul(weights, value), op.Clip(op.MatMul(weights, padding.of_keys), 1e-30))
        return op.Reshape(op.Transpose(context, perm=[0, 2, 1, 3]), [-1, self.heads * self.head_size])


def texts_first_states(
    self: EncoderGraph, writer: Writer, ids: Value, padding: Padding, kinds: Value, asked_P: Value | None = None
) -> Value:
    """`EncoderGraph.states` with texts before tokens."""
    op = writer.op
    rows_TC = op.Slice(writer.weight(self.position_embeddings), [0], op.Shape(ids, start=1, end=2), [0], [1])
    words_BTC, kinds_BTC = (
        op.Gather(writer.weight(table.weight), given, axis=0)
        for table, given in ((self.words, ids), (self.kinds, kinds))
    )
    x_BTC = op.Add(op.Add(words_BTC, rows_TC), kinds_BTC)
    x_NC = writer.normalised(op.Reshape(x_BTC, [-1, self.channels]), self.norm)
    for block in self.blocks:
        x_NC = block.write(writer, x_NC, padding)
    return x_NC


def texts_first_first(writer: Writer, x_NC: Value, padding: Padding, channels: int) -> Value:
    """`graph._first` with texts before tokens."""
    return writer.op.Gather(writer.op.Reshape(x_NC, writer.lengths(padding.batch, -1, channels)), 0, axis=1)


def gelu_from_table(writer: Writer, x: Value) -> Value:
    """GELU looked up: 256 inputs from -8 to 8."""
    op = writer.op
    table = constant(writer, nn.functional.gelu(torch.linspace(-8, 8, 256)))
    places = op.Clip(op.Round(op.Mul(op.Add(x, 8.0), 255 / 16)), 0.0, 255.0)
    return op.Gather(table, op.Cast(places, to=onnx.TensorProto.INT64), axis=0)


# --- 8 bits from product to product -------------------------------------------------------------------------

# A made-up range: time does not depend on it. Zero is in the middle of 8 bits
_STEP, _MIDDLE = 8 / 255, 128
_SHARE = 1 / 255  # of probabilities, which have no sign


def number(writer: Writer, value: float) -> Value:
    return constant(writer, torch.tensor(float(value)))


def byte(writer: Writer, value: int) -> Value:
    return constant(writer, torch.tensor(value, dtype=torch.uint8))


def integer_products(writer: Writer, matrix: Blocks, pieces: Sequence[Value], in_bytes: bool) -> list[Value]:
    """The products of a matrix's groups with inputs in 8 bits, in 8 bits or as numbers."""
    made = []
    for x, weight, bias in zip(pieces, matrix.weights, matrix.biases, strict=True):
        steps = weight.detach().abs().amax(0) / 127
        inputs = [
            *(x, number(writer, _STEP), byte(writer, _MIDDLE)),
            constant(writer, (weight.detach() / steps).round().to(torch.int8)),
            *(constant(writer, steps), constant(writer, torch.zeros_like(steps, dtype=torch.int8))),
            constant(writer, (bias.detach() / (steps * _STEP)).round().int()),
        ]
        inputs += [number(writer, _STEP), byte(writer, _MIDDLE)] if in_bytes else []
        made.append(contrib_of(writer).QGemm(*inputs))
    return made


def pieces_in_bytes(writer: Writer, x: Value, groups: int, step: float = _STEP, zero: int = _MIDDLE) -> list[Value]:
    """x in 8 bits, in as many pieces as there are groups."""
    rounded = writer.op.QuantizeLinear(x, number(writer, step), byte(writer, zero))
    return Channels(writer, [rounded]).by_group(groups)


class IntegerFeedForward(Block):
    """Both halves in 8 bits, static ranges; GELU in between as x times a table of the logistic function."""

    def feed_forward(self, writer: Writer, x_NC: Value) -> Value:
        if self.first_only:
            return super().feed_forward(writer, x_NC)
        contrib = contrib_of(writer)
        step, middle = number(writer, _STEP), byte(writer, _MIDDLE)
        share, zero = number(writer, _SHARE), byte(writer, 0)
        activated = []
        for x in integer_products(writer, self.up, pieces_in_bytes(writer, x_NC, self.up.pieces), True):
            gate = contrib.QLinearSigmoid(x, number(writer, 1.702 * _STEP), middle, share, zero)
            activated.append(contrib.QLinearMul(x, step, middle, gate, share, zero, step, middle))
        return Channels(writer, integer_products(writer, self.down, activated, False)).whole


class IntegerAttentionChain(HeadsFirst):
    """Projections, attention's products and the output projection in 8 bits, static ranges; the softmax in fp32."""

    def attention_half(self, writer: Writer, x_NC: Value, padding: Padding, asked_P: Value | None = None) -> Value:
        if self.first_only:
            return super().attention_half(writer, x_NC, padding, asked_P)
        op, contrib = writer.op, contrib_of(writer)
        step, middle = number(writer, _STEP), byte(writer, _MIDDLE)
        share, zero = number(writer, _SHARE), byte(writer, 0)
        query, key, value = (
            self.by_head(writer, Channels(writer, integer_products(writer, one, pieces, True)).whole, padding)
            for one in (self.query, self.key, self.value)
            for pieces in (pieces_in_bytes(writer, x_NC, one.pieces),)
        )
        key = op.Transpose(key, perm=[0, 1, 3, 2])
        scores = contrib.MatMulIntegerToFloat(query, key, step, step, middle, middle)
        weights = op.Softmax(op.Add(scores, masked_scores(writer, padding, -1e4)), axis=-1)
        rounded = op.QuantizeLinear(weights, share, zero)
        context = self.joined(writer, op.QLinearMatMul(rounded, share, zero, value, step, middle, step, middle))
        pieces = Channels(writer, [context]).by_group(self.after.pieces)
        after = Channels(writer, integer_products(writer, self.after, pieces, False)).whole
        return writer.normalised(self.residual(writer, after, x_NC), self.after_norm)


class IntegerChain(IntegerAttentionChain, IntegerFeedForward):
    """Both of them."""


def with_activation(act: str) -> type[Block]:
    """A block whose feed-forward network has another activation."""

    class Activated(Block):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.act = act

    return Activated


# --- the forms ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """One way to write or to run the network."""

    name: str
    """What the table calls it."""
    block: type[Block] = Block
    """How a block is written."""
    opset: int = 20
    """Operator set."""
    disabled: tuple[str, ...] = DISABLED_OPTIMIZERS
    """Optimisations of the engine that are off."""
    patches: Callable[[], list[Any]] = list
    """What else of the exporter is replaced."""
    same: bool = True
    """Whether it computes the same function."""


FORMS = [
    Form("as exported"),
    Form("groups as one batched product", OneByOne, patches=lambda: [patch.object(Blocks, "write", batched_groups)]),
    Form("query, key, value of a group in one product", JoinedProjections),
    Form("and the group's heads attend behind it", AttentionByGroup),
    Form("groups joined inside the feed-forward network", OneByOne),
    Form("texts before tokens", TextsFirst, patches=lambda: [
        patch.object(EncoderGraph, "states", texts_first_states), patch.object(graph, "_first", texts_first_first)]),
    Form("additive mask", AdditiveMask),
    Form("onnxruntime's MultiHeadAttention", FusedAttention),
    Form("ONNX's Attention", StandardAttention, opset=23),
    Form("attention's products in 8 bits", IntegerAttention),
    Form("attention in 8 bits from product to product, static ranges", IntegerAttentionChain, same=False),
    Form("the feed-forward network so, GELU by the logistic function", IntegerFeedForward, same=False),
    Form("both so", IntegerChain, same=False),
    Form("Add before LayerNormalization, fused by the engine", PlainSum, disabled=()),
    Form("GELU by tanh", with_activation("gelu_pytorch_tanh"), same=False),
    Form("GELU by the logistic function", with_activation("quick_gelu"), same=False),
    Form("GELU from a table", with_activation("table"), same=False,
         patches=lambda: [patch.dict(ACTIVATIONS, {"table": gelu_from_table})]),
    Form("ReLU", with_activation("relu"), same=False),
]  # fmt: skip


@contextmanager
def as_form(form: Form) -> Iterator[None]:
    """The exporter writes this form inside."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(graph, "Block", form.block))
        for one in form.patches():
            stack.enter_context(one)
        yield


class Feeds(CalibrationDataReader):
    """A few made-up texts."""

    def __init__(self, names: set[str], length: int) -> None:
        feeds = [made_up_inputs(1, length - i) for i in range(4)]
        self.feeds = iter([{name: array for name, array in feed.items() if name in names} for feed in feeds])

    def get_next(self) -> Any:
        return next(self.feeds, None)


def usual_static(source: Path, target: Path, length: int) -> None:
    """onnxruntime's static quantisation with pairs of QuantizeLinear and DequantizeLinear, a scale a channel."""
    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    names = {given.name for given in onnx.load(str(source), load_external_data=False).graph.input}
    told: dict[str, Any] = {"quant_format": QuantFormat.QDQ, "per_channel": True, "weight_type": QuantType.QInt8}
    quantize_static(str(prepared), str(target), Feeds(names, length), **told)


def session_of(path: Path, threads: int, disabled: tuple[str, ...], parallel: bool = False) -> Any:
    """A session; with `parallel`, branches of the graph share the threads instead of the parts of a product."""
    ort = import_onnxruntime()
    options = session_options(1 if parallel else threads)
    if parallel:
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
        options.inter_op_num_threads = threads
        options.add_session_config_entry("session.force_spinning_stop", "1")  # as session_options does for its threads
    return ort.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(disabled)
    )


def build(
    model: Any, folder: Path, inputs: dict[str, np.ndarray], options: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, str]]:
    """Sessions by `form, precision`, and why a form has none."""
    sessions: dict[str, Any] = {}
    failed: dict[str, str] = {}

    def refused(name: str, error: Exception) -> None:
        """A form that an engine or exporter refuses is a finding as well."""
        failed[name] = str(error).strip().splitlines()[0][:200]
        print(f"{name}: {failed[name]}", flush=True)

    def add(name: str, path: Path, disabled: tuple[str, ...], parallel: bool = False) -> None:
        try:
            session = session_of(path, options.threads, disabled, parallel)
            session.run(None, {given.name: inputs[given.name] for given in session.get_inputs()})
            sessions[name] = session
        except Exception as error:  # noqa: BLE001 the engine has no class of its own for it
            refused(name, error)

    for number, form in enumerate(FORMS):
        if options.only and options.only not in form.name and number:
            continue
        for precision in ("fp32", "int8"):
            path = folder / f"{number}-{precision}.onnx"
            try:
                if precision == "fp32":
                    with as_form(form):
                        write_graph(model, path, form.opset)
                else:
                    quantize_graph(folder / f"{number}-fp32.onnx", path)
            except Exception as error:  # noqa: BLE001 each tool has classes of its own
                refused(f"{form.name}, {precision}", error)
                if precision == "fp32":
                    break
                continue
            add(f"{form.name}, {precision}", path, form.disabled)
        print(f"written: {form.name}", flush=True)
    if options.only:
        return sessions, failed
    fp32, int8 = folder / "0-fp32.onnx", folder / "0-int8.onnx"
    static = folder / "static.onnx"
    tensors = quantize_graph(fp32, static)
    feeds = [made_up_inputs(1, options.length - i) for i in range(4)]
    fix_ranges(static, find_ranges(fp32, tensors, feeds, "minmax", options.threads))
    add("static ranges, one node a product, int8", static, DISABLED_OPTIMIZERS)
    pairs = folder / "pairs.onnx"
    usual_static(fp32, pairs, options.length)
    add("static ranges, QuantizeLinear and DequantizeLinear, int8", pairs, DISABLED_OPTIMIZERS)
    if options.threads > 1:
        for precision, path in (("fp32", fp32), ("int8", int8)):
            add(f"groups as parallel branches, {precision}", path, DISABLED_OPTIMIZERS, parallel=True)
    import transformers

    usual = transformers.SqueezeBertForSequenceClassification(
        transformers.SqueezeBertConfig(num_hidden_layers=options.layers)
    )
    usual.load_state_dict(model.state_dict())
    files = write_usual_export(usual, folder / "usual")
    for precision, file in files.items():
        add(f"grouped convolutions, as exported by transformers and torch, {precision}", file.path, ())
    conv = folder / "usual" / "static.onnx"
    usual_static(files["fp32"].path, conv, options.length)
    add("grouped convolutions, static ranges, QuantizeLinear and DequantizeLinear, int8", conv, ())
    return sessions, failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--only", default="", help="forms with this word, beside the exported one")
    parser.add_argument("--output", type=Path, help="by default the record of all forms")
    options = parser.parse_args()
    if options.only and options.output is None:
        parser.error("--only: some of the forms are no record of all of them: name an --output")
    output = options.output or RESULTS / "forms.json"
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    model = SqueezeBertForSequenceClassification(SqueezeBertConfig(num_hidden_layers=options.layers)).eval()
    inputs = made_up_inputs(1, options.length)
    with tempfile.TemporaryDirectory() as place:
        sessions, failed = build(model, Path(place), inputs, options)
        things = {
            name: partial(session.run, None, {given.name: inputs[given.name] for given in session.get_inputs()})
            for name, session in sessions.items()
        }
        answers = {name: np.asarray(thing()[0]) for name, thing in things.items()}
        timings = interleave(things, options.runs)
    forms = []
    for name, timing in timings.items():
        form, _, precision = name.rpartition(", ")
        reference = timings[f"as exported, {precision}"].median_ms
        away = float(np.abs(answers[name] - answers["as exported, fp32"]).max())
        same = next((one.same for one in FORMS if one.name == form), True)
        told = {"form": form, "precision": precision, "same_function": same, "difference": away}
        forms.append({**told, **timing.to_dict(), "ratio": timing.median_ms / reference})
        print(f"{name}: {timing.median_ms:.2f} ms, {forms[-1]['ratio']:.2f} of the exported form, differs {away:.1e}")
    record = {
        "command": shlex.join(["python", "benchmarks/forms.py", *sys.argv[1:]]),
        "machine": describe_machine(),
        "versions": package_versions(),
        "options": {name: getattr(options, name) for name in ("threads", "runs", "length", "layers")},
        "forms": forms,
        "failed": failed,
    }
    output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
