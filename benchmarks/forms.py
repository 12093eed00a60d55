"""Forms of one network's graph, timed in one run: what each way to write it costs next to the way `export` writes it.

python benchmarks/forms.py [--threads 1] [--runs 40] [--length 128] [--only WORD] [--output FILE]

SqueezeBERT's shape with random weights, one text. All forms compute the same function but those of the activation,
which say so; the largest difference of each from the exported form is recorded. Run it on quiet cores.
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
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

from squeezebert.benchmark.baselines import write_usual_export
from squeezebert.benchmark.latency import made_up_inputs
from squeezebert.export import graph
from squeezebert.export.exporter import DISABLED_OPTIMIZERS
from squeezebert.export.graph import Block, EncoderGraph, write_graph
from squeezebert.export.matrices import Blocks, Channels
from squeezebert.export.quantize import fix_ranges, quantize_graph
from squeezebert.export.ranges import find_ranges
from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.files.stopwatch import interleave
from squeezebert.model import SqueezeBertConfig, SqueezeBertForSequenceClassification
from squeezebert.runtime.session import import_onnxruntime, session_options

RESULTS = Path(__file__).parent / "results"
CONTRIB = "com.microsoft"


# --- products -----------------------------------------------------------------------------------------------


def batched_groups(blocks: Blocks, x: Channels) -> list[Tensor]:
    """All groups as one batched product."""
    groups = blocks.pieces
    if groups == 1:
        return [torch.addmm(blocks.biases[0], x.whole, blocks.weights[0])]
    whole = x.whole
    x_GNC = whole.view(whole.shape[0], groups, -1).transpose(0, 1)
    y_GNC = torch.matmul(x_GNC, torch.stack(list(blocks.weights))) + torch.stack(list(blocks.biases))[:, None]
    return [y_GNC.transpose(0, 1).reshape(whole.shape[0], -1)]


class JoinedProjections(Block):
    """Query, key and value of a group in one product."""

    def _write_attention(self, *arguments: Any) -> None:
        super()._write_attention(*arguments)
        of_group = list(zip(self.query.weights, self.key.weights, self.value.weights, strict=True))
        biases = zip(self.query.biases, self.key.biases, self.value.biases, strict=True)
        self.weights = nn.ParameterList(torch.cat(one, dim=1) for one in of_group)
        self.biases = nn.ParameterList(torch.cat(one) for one in biases)

    def projected(self, x_NC: Tensor) -> list[tuple[Tensor, ...]]:
        """Query, key and value (N, C / G) of each group."""
        pieces = Channels([x_NC]).by_group(len(self.weights))
        products = [torch.addmm(b, x, w) for x, w, b in zip(pieces, self.weights, self.biases, strict=True)]
        return [product.chunk(3, dim=-1) for product in products]

    def attention_half(self, x_NC: Tensor, keep_BT: Tensor, asked_P: Tensor | None = None) -> Tensor:
        if self.first_only:  # the first token's query alone is computed there
            return super().attention_half(x_NC, keep_BT, asked_P)
        query, key, value = (torch.cat(pieces, dim=-1) for pieces in zip(*self.projected(x_NC), strict=True))
        context = self.attend(query, key, value, keep_BT)
        return self.after_norm(Channels(self.after(Channels([context]))).whole + x_NC)


class AttentionByGroup(JoinedProjections):
    """The heads of a group attend right behind its product: nothing is joined before the output projection."""

    def attention_half(self, x_NC: Tensor, keep_BT: Tensor, asked_P: Tensor | None = None) -> Tensor:
        if self.first_only:
            return super().attention_half(x_NC, keep_BT, asked_P)
        heads, self.heads = self.heads, self.heads // len(self.weights)
        context = [self.attend(*of_group, keep_BT) for of_group in self.projected(x_NC)]
        self.heads = heads
        return self.after_norm(Channels(self.after(Channels(context))).whole + x_NC)


class OneByOne(Block):
    """Groups are joined between the halves of the feed-forward network."""

    def feed_forward(self, x_NC: Tensor) -> Tensor:
        widened = self.act(Channels(self.up(Channels([x_NC]))).whole)
        return Channels(self.down(Channels([widened]))).whole


# --- attention ----------------------------------------------------------------------------------------------


class AdditiveMask(Block):
    """The usual large negative number on the scores of padding."""

    def attend(self, query_NC: Tensor, key_NC: Tensor, value_NC: Tensor, keep_BT: Tensor) -> Tensor:
        query, key, value = (heads_of(x, self.heads, keep_BT) for x in (query_NC, key_NC, value_NC))
        scores = torch.matmul(query, key.transpose(-1, -2)) + ((1.0 - keep_BT) * -1e9)[:, None, None]
        context_BHTD = torch.matmul(torch.softmax(scores, dim=-1), value)
        return context_BHTD.permute(2, 0, 1, 3).reshape(-1, value_NC.shape[1])


class FusedAttention(Block):
    """onnxruntime's own operator for attention of several heads."""

    def attend(self, query_NC: Tensor, key_NC: Tensor, value_NC: Tensor, keep_BT: Tensor) -> Tensor:
        batch, width = keep_BT.shape[0], value_NC.shape[1]
        tensors = [x.view(-1, batch, width).transpose(0, 1) for x in (query_NC, key_NC, value_NC)]
        bias = ((1.0 - keep_BT) * -1e9)[:, None, None].expand(-1, 1, tensors[0].shape[1], -1)
        context_BTC = torch.onnx.ops.symbolic(
            f"{CONTRIB}::MultiHeadAttention",
            (*tensors, None, None, bias),
            {"num_heads": self.heads, "scale": 1.0},
            dtype=value_NC.dtype,
            shape=tensors[0].shape,
            version=1,
        )
        return context_BTC.transpose(0, 1).reshape(-1, width)


class StandardAttention(Block):
    """ONNX's operator Attention, of operator set 23."""

    def attend(self, query_NC: Tensor, key_NC: Tensor, value_NC: Tensor, keep_BT: Tensor) -> Tensor:
        query, key, value = (heads_of(x, self.heads, keep_BT) for x in (query_NC, key_NC, value_NC))
        bias = ((1.0 - keep_BT) * -1e9)[:, None, None].expand(-1, 1, query.shape[2], -1)
        context_BHTD = torch.onnx.ops.symbolic(
            "Attention", (query, key, value, bias), {"scale": 1.0}, dtype=value.dtype, shape=query.shape, version=23
        )
        return context_BHTD.permute(2, 0, 1, 3).reshape(-1, value_NC.shape[1])


class IntegerAttention(Block):
    """Both products of attention in 8 bits, ranges found in each run."""

    def attend(self, query_NC: Tensor, key_NC: Tensor, value_NC: Tensor, keep_BT: Tensor) -> Tensor:
        value_NC = value_NC * keep_BT.t().reshape(-1, 1)
        query, key, value = (heads_of(x, self.heads, keep_BT) for x in (query_NC, key_NC, value_NC))
        weights = torch.softmax(integer_product(query, key.transpose(-1, -2)), dim=-1)
        context = integer_product(weights, value)
        kept = torch.matmul(weights, keep_BT[:, None, :, None])
        return (context / kept.clamp_min(1e-30)).permute(2, 0, 1, 3).reshape(-1, value_NC.shape[1])


def heads_of(x_NC: Tensor, heads: int, keep_BT: Tensor) -> Tensor:
    """(N, C) with tokens first as (B, H, T, D)."""
    return x_NC.view(-1, keep_BT.shape[0], heads, x_NC.shape[1] // heads).permute(1, 2, 0, 3)


def integer_product(first: Tensor, second: Tensor) -> Tensor:
    """The product of two tensors, each rounded to 8 bits in its own range."""
    (a, a_scale, a_zero), (b, b_scale, b_zero) = map(rounded, (first, second))
    shape = [*first.shape[:-1], second.shape[-1]]
    whole = torch.onnx.ops.symbolic(
        "MatMulInteger", (a, b, a_zero, b_zero), dtype=torch.int32, shape=shape, version=10
    )
    return whole.to(first.dtype) * (a_scale * b_scale)


def rounded(x: Tensor) -> Any:
    return torch.onnx.ops.symbolic_multi_out(
        "DynamicQuantizeLinear",
        (x,),
        dtypes=(torch.uint8, torch.float32, torch.uint8),
        shapes=(x.shape, (), ()),
        version=11,
    )


# --- order of tokens, activation ----------------------------------------------------------------------------


class TextsFirst(Block):
    """Texts before tokens, the usual order: heads are read after a transposition."""

    def attend(self, query_NC: Tensor, key_NC: Tensor, value_NC: Tensor, keep_BT: Tensor) -> Tensor:
        batch = keep_BT.shape[0]
        value_NC = value_NC * keep_BT.reshape(-1, 1)
        query, key, value = (
            x.view(batch, -1, self.heads, x.shape[1] // self.heads).transpose(1, 2)
            for x in (query_NC, key_NC, value_NC)
        )
        weights = torch.softmax(torch.matmul(query, key.transpose(-1, -2)), dim=-1)
        kept = torch.matmul(weights, keep_BT[:, None, :, None])
        context = torch.matmul(weights, value) / kept.clamp_min(1e-30)
        return context.transpose(1, 2).reshape(-1, value_NC.shape[1])


def texts_first_states(
    self: EncoderGraph, input_ids: Tensor, keep_BT: Tensor, token_type_ids: Tensor, asked_P: Tensor | None = None
) -> Tensor:
    """`EncoderGraph.states` with texts before tokens."""
    x_BTC = self.words(input_ids) + self.position_embeddings[: input_ids.shape[1]] + self.kinds(token_type_ids)
    x_NC = self.norm(x_BTC.flatten(0, 1))
    for block in self.blocks:
        x_NC = block(x_NC, keep_BT)
    return x_NC


def texts_first_first(self: Channels, texts: Any) -> Channels:
    """`Channels.first` with texts before tokens."""
    return Channels([piece.view(texts, -1, piece.shape[1])[:, 0] for piece in self.pieces])


class Quick(nn.Module):
    """x times the logistic function of 1.702 x, GELU's first approximation."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Table(nn.Module):
    """GELU looked up: 256 inputs from -8 to 8."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", nn.functional.gelu(torch.linspace(-8, 8, 256)))

    def forward(self, x: Tensor) -> Tensor:
        return self.table[((x + 8.0) * (255 / 16)).round().clamp(0, 255).long()]


# --- 8 bits from product to product -------------------------------------------------------------------------

# A made-up range: time does not depend on it. Zero is in the middle of 8 bits
_STEP, _MIDDLE = 8 / 255, 128
_SHARE = 1 / 255  # of probabilities, which have no sign


class IntegerProducts(nn.Module):
    """The products of a matrix's groups from 8 bits to 8 bits, or to numbers."""

    def __init__(self, matrix: Blocks, to_numbers: bool) -> None:
        super().__init__()
        self.groups, self.to_numbers = matrix.pieces, to_numbers
        for name, value in (("step", number(_STEP)), ("middle", byte(_MIDDLE))):
            self.register_buffer(name, value)
        self.columns = nn.Module()
        for group, (weight, bias) in enumerate(zip(matrix.weights, matrix.biases, strict=True)):
            steps = weight.detach().abs().amax(0) / 127
            self.columns.register_buffer(f"w{group}", (weight.detach() / steps).round().to(torch.int8))
            self.columns.register_buffer(f"steps{group}", steps)
            self.columns.register_buffer(f"zeros{group}", torch.zeros_like(steps, dtype=torch.int8))
            self.columns.register_buffer(f"bias{group}", (bias.detach() / (steps * _STEP)).round().int())

    def forward(self, pieces: Sequence[Tensor]) -> list[Tensor]:
        made = []
        for group, x in enumerate(pieces):
            of_group = [self.columns.get_buffer(f"{name}{group}") for name in ("w", "steps", "zeros", "bias")]
            inputs = [x, self.step, self.middle, *of_group]
            dtype = torch.float32
            if not self.to_numbers:
                inputs, dtype = [*inputs, self.step, self.middle], torch.uint8
            shape = [x.shape[0], of_group[0].shape[1]]
            made.append(torch.onnx.ops.symbolic(f"{CONTRIB}::QGemm", inputs, dtype=dtype, shape=shape, version=1))
        return made


class IntegerFeedForward(Block):
    """Both halves in 8 bits, static ranges; GELU in between as x times a table of the logistic function."""

    def _write_feed_forward(self, *arguments: Any) -> None:
        super()._write_feed_forward(*arguments)
        if self.first_only:
            return
        self.widen, self.narrow = IntegerProducts(self.up, False), IntegerProducts(self.down, True)
        named = {"step": _STEP, "steeper": 1.702 * _STEP, "share": _SHARE}
        for name, value in named.items():
            self.register_buffer(f"ff_{name}", number(value))
        for name, value in (("middle", _MIDDLE), ("zero", 0)):
            self.register_buffer(f"ff_{name}", byte(value))

    def feed_forward(self, x_NC: Tensor) -> Tensor:
        if self.first_only:
            return super().feed_forward(x_NC)
        step, middle, share, zero = self.ff_step, self.ff_middle, self.ff_share, self.ff_zero
        pieces = self.widen(in_bytes(x_NC, step, middle).chunk(self.widen.groups, -1))
        activated = []
        for x in pieces:
            inputs = (x, self.ff_steeper, middle, share, zero)
            gate = contrib("QLinearSigmoid", inputs, torch.uint8, x.shape)
            inputs = (x, step, middle, gate, share, zero, step, middle)
            activated.append(contrib("QLinearMul", inputs, torch.uint8, x.shape))
        return torch.cat(self.narrow(activated), dim=-1)


class IntegerAttentionChain(Block):
    """Projections, attention's products and the output projection in 8 bits, static ranges; the softmax in fp32."""

    def _write_attention(self, *arguments: Any) -> None:
        super()._write_attention(*arguments)
        if self.first_only:
            return
        self.projections = nn.ModuleList(IntegerProducts(one, False) for one in (self.query, self.key, self.value))
        self.outward = IntegerProducts(self.after, True)
        for name, value in (("step", number(_STEP)), ("share", number(_SHARE))):
            self.register_buffer(f"at_{name}", value)
        for name, value in (("middle", byte(_MIDDLE)), ("zero", byte(0))):
            self.register_buffer(f"at_{name}", value)

    def attention_half(self, x_NC: Tensor, keep_BT: Tensor, asked_P: Tensor | None = None) -> Tensor:
        if self.first_only:
            return super().attention_half(x_NC, keep_BT, asked_P)
        step, middle, share, zero = self.at_step, self.at_middle, self.at_share, self.at_zero
        x8_NC = in_bytes(x_NC, step, middle)
        query, key, value = (
            heads_of(torch.cat(one(x8_NC.chunk(one.groups, -1)), dim=-1), self.heads, keep_BT)
            for one in self.projections
        )
        inputs = (query, key.transpose(-1, -2), step, step, middle, middle)
        scores = contrib("MatMulIntegerToFloat", inputs, torch.float32, [*query.shape[:-1], query.shape[-2]])
        weights = torch.softmax(scores + ((1.0 - keep_BT) * -1e4)[:, None, None], dim=-1)
        inputs = (in_bytes(weights, share, zero), share, zero, value, step, middle, step, middle)
        context = torch.onnx.ops.symbolic("QLinearMatMul", inputs, dtype=torch.uint8, shape=value.shape, version=10)
        context = context.permute(2, 0, 1, 3).reshape(-1, x_NC.shape[1])
        return self.after_norm(torch.cat(self.outward(context.chunk(self.outward.groups, -1)), dim=-1) + x_NC)


class IntegerChain(IntegerAttentionChain, IntegerFeedForward):
    """Both of them."""


def number(value: float) -> Tensor:
    return torch.tensor(float(value))


def byte(value: int) -> Tensor:
    return torch.tensor(value, dtype=torch.uint8)


def in_bytes(x: Tensor, step: Tensor, zero: Tensor) -> Tensor:
    return torch.onnx.ops.symbolic("QuantizeLinear", (x, step, zero), dtype=torch.uint8, shape=x.shape, version=19)


def contrib(name: str, inputs: Sequence[Tensor], dtype: torch.dtype, shape: Sequence[Any]) -> Tensor:
    return torch.onnx.ops.symbolic(f"{CONTRIB}::{name}", inputs, dtype=dtype, shape=shape, version=1)


def with_activation(act: nn.Module) -> type[Block]:
    """A block whose feed-forward network has another activation."""

    class Activated(Block):
        def _write_feed_forward(self, *arguments: Any) -> None:
            super()._write_feed_forward(*arguments)
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
    fused: tuple[str, ...] = DISABLED_OPTIMIZERS
    """Optimisations of the engine that are off."""
    patches: Callable[[], list[Any]] = list
    """What else of the exporter is replaced."""
    same: bool = True
    """Whether it computes the same function."""


FORMS = [
    Form("as exported"),
    Form("groups as one batched product", OneByOne, patches=lambda: [patch.object(Blocks, "forward", batched_groups)]),
    Form("query, key, value of a group in one product", JoinedProjections),
    Form("and the group's heads attend behind it", AttentionByGroup),
    Form("groups joined inside the feed-forward network", OneByOne),
    Form("texts before tokens", TextsFirst, patches=lambda: [
        patch.object(EncoderGraph, "states", texts_first_states), patch.object(Channels, "first", texts_first_first)]),
    Form("additive mask", AdditiveMask),
    Form("onnxruntime's MultiHeadAttention", FusedAttention),
    Form("ONNX's Attention", StandardAttention, opset=23),
    Form("attention's products in 8 bits", IntegerAttention),
    Form("attention in 8 bits from product to product, static ranges", IntegerAttentionChain, same=False),
    Form("the feed-forward network so, GELU by the logistic function", IntegerFeedForward, same=False),
    Form("both so", IntegerChain, same=False),
    Form("Add before LayerNormalization, fused by the engine", fused=(),
         patches=lambda: [patch.object(graph, "_sum_residuals", lambda proto: None)]),
    Form("GELU by tanh", with_activation(nn.GELU(approximate="tanh")), same=False),
    Form("GELU by the logistic function", with_activation(Quick()), same=False),
    Form("GELU from a table", with_activation(Table()), same=False),
    Form("ReLU", with_activation(nn.ReLU()), same=False),
]  # fmt: skip


@contextmanager
def as_form(form: Form) -> Iterator[None]:
    """The exporter writes this form inside."""
    with ExitStack() as stack:
        if form is not FORMS[0]:  # some compute with weights, leave some out or hold numbers of one byte
            stack.enter_context(patch.object(graph, "_stand_ins", lambda graph: {}))
            stack.enter_context(patch.object(graph, "_check_inputs", lambda proto, weights: None))
            stack.enter_context(patch.dict(graph._traced, clear=True))
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


def build(model: Any, folder: Path, options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, str]]:
    """Sessions by `form, precision`, and why a form has none."""
    sessions: dict[str, Any] = {}
    failed: dict[str, str] = {}
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
                sessions[f"{form.name}, {precision}"] = session_of(path, options.threads, form.fused)
            except Exception as error:  # noqa: BLE001 a form that an engine or exporter refuses is a finding as well
                failed[f"{form.name}, {precision}"] = str(error).strip().splitlines()[0][:200]
                print(f"{form.name}, {precision}: {failed[f'{form.name}, {precision}']}", flush=True)
                if precision == "fp32":
                    break
        print(f"written: {form.name}", flush=True)
    if options.only:
        return sessions, failed
    fp32, int8 = folder / "0-fp32.onnx", folder / "0-int8.onnx"
    static = folder / "static.onnx"
    tensors = quantize_graph(fp32, static)
    feeds = [made_up_inputs(1, options.length - i) for i in range(4)]
    fix_ranges(static, find_ranges(fp32, tensors, feeds, "minmax", options.threads))
    sessions["static ranges, one node a product, int8"] = session_of(static, options.threads, DISABLED_OPTIMIZERS)
    pairs = folder / "pairs.onnx"
    usual_static(fp32, pairs, options.length)
    name = "static ranges, QuantizeLinear and DequantizeLinear, int8"
    sessions[name] = session_of(pairs, options.threads, DISABLED_OPTIMIZERS)
    if options.threads > 1:
        for precision, path in (("fp32", fp32), ("int8", int8)):
            name = f"groups as parallel branches, {precision}"
            sessions[name] = session_of(path, options.threads, DISABLED_OPTIMIZERS, parallel=True)
    import transformers

    usual = transformers.SqueezeBertForSequenceClassification(
        transformers.SqueezeBertConfig(num_hidden_layers=options.layers)
    )
    usual.load_state_dict(model.state_dict())
    files = write_usual_export(usual, folder / "usual")
    for precision, file in files.items():
        name = f"grouped convolutions, as exported by transformers and torch, {precision}"
        sessions[name] = session_of(file.path, options.threads, ())
    conv = folder / "usual" / "static.onnx"
    usual_static(files["fp32"].path, conv, options.length)
    name = "grouped convolutions, static ranges, QuantizeLinear and DequantizeLinear, int8"
    sessions[name] = session_of(conv, options.threads, ())
    return sessions, failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--only", default="", help="forms with this word, beside the exported one")
    parser.add_argument("--output", type=Path, default=RESULTS / "forms.json")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    model = SqueezeBertForSequenceClassification(SqueezeBertConfig(num_hidden_layers=options.layers)).eval()
    inputs = made_up_inputs(1, options.length)
    with tempfile.TemporaryDirectory() as place:
        sessions, failed = build(model, Path(place), options)
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
        "options": {"threads": options.threads, "runs": options.runs, "length": options.length},
        "forms": forms,
        "failed": failed,
    }
    options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
