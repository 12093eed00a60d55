"""A model rewritten for ONNX engines: a torch model in, an ONNX file with the same answers out.

Serves the exporter. Legend: B batch, T tokens, N = T * B tokens of the whole batch, C channels, H heads, D channels of
a head, L labels, P asked positions, V vocabulary, E channels of the word embeddings.

Each matrix is written in the form that suits its shape (`matrices.py`). What else keeps the graph short: tokens come
before texts, (T, B, C) flattened to (N, C), so that biases are part of the products and heads are read where they lie;
a feed-forward network whose two halves have the same groups stays split in between; and the last block computes only
what is read of it: the first token for a classifier, the asked positions for masked words. The graph that becomes int8
also divides the channels that stand out
(`smoothing.py`) and multiplies their weights: its outputs are the same too.
"""

from __future__ import annotations

import copy
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from torch import Tensor, nn

from squeezebert.export.checkpoint import Model, Pooling
from squeezebert.export.matrices import Channels, scaled_down, write_matrix
from squeezebert.export.smoothing import BlockScales
from squeezebert.files.errors import DependencyError
from squeezebert.model import (
    SqueezeBertForMaskedLM,
    SqueezeBertForSequenceClassification,
    SqueezeBertForTokenClassification,
    SqueezeBertModel,
)

FORM = "per_group_matmul"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# Of a masked-lm: which positions are asked, (P, 2) of text and token
POSITIONS = "positions"
# Keeps a text of nothing but padding from dividing by zero
_NOTHING = 1e-30
# And a vector of zeros from the same
_SHORTEST = 1e-12
# Names of what undoes the scales of a graph for int8
_FACTOR = re.compile(r"\.(attention_scale|up_scale|down_factors\.\d+)$")


class Block(nn.Module):
    """One encoder block; with `first_only` it returns the first token's state alone, (B, C), and for rows of tokens
    that are asked for, those alone, (P, C).

    Its input arrives divided by `scales.attention`, or without attention by `scales.up`, and its output leaves divided
    by `next_scale_C`. A half that the model leaves out hands on what it reads.
    """

    def __init__(self, layer: nn.Module, first_only: bool, scales: BlockScales, next_scale_C: Tensor | None) -> None:
        super().__init__()
        source = cast(Any, layer)
        self.first_only = first_only
        self.attends, self.feeds_forward = source.attention is not None, source.intermediate is not None
        self.attention_scale: Tensor
        self.up_scale: Tensor
        if self.attends:
            self._write_attention(source, scales, scales.up if self.feeds_forward else next_scale_C)
        if self.feeds_forward:
            self._write_feed_forward(source, scales, next_scale_C)

    def _write_attention(self, source: Any, scales: BlockScales, next_scale_C: Tensor | None) -> None:
        self.shared_down: Tensor | None
        attention, reduced = source.attention, scales.reduced
        self.heads = attention.heads
        self.query, self.key, self.value = (
            write_matrix(projection, scales.attention, reduced.get(name), factor, attention.down)
            for name, projection, factor in (
                ("q", attention.query, attention.scaling),
                ("k", attention.key, 1.0),
                ("v", attention.value, 1.0),
            )
        )
        shared = None
        if self.query.shares or self.key.shares or self.value.shares:
            shared = scaled_down(attention.down, scales.attention, reduced.get("q"))
        self.register_buffer("shared_down", shared)
        self.after = write_matrix(source.post_attention.conv1d, None, reduced.get("post_attention"))
        self.after_norm = _divide_norm(source.post_attention.layernorm, next_scale_C)
        self.register_buffer("attention_scale", _or_ones(scales.attention, self.after_norm.weight.numel()))

    def _write_feed_forward(self, source: Any, scales: BlockScales, next_scale_C: Tensor | None) -> None:
        reduced = scales.reduced
        self.up = write_matrix(source.intermediate.conv1d, scales.up, reduced.get("intermediate"))
        self.act = source.intermediate.act
        self.down = write_matrix(source.output.conv1d, scales.down, reduced.get("output"))
        self.down_norm = _divide_norm(source.output.layernorm, next_scale_C)
        self.register_buffer("up_scale", _or_ones(scales.up, self.down_norm.weight.numel()))
        down_scale = _or_ones(scales.down, source.output.conv1d.in_features)
        self.down_factors = nn.ParameterList((1.0 / down_scale).chunk(self.up.pieces))

    def forward(self, x_NC: Tensor, keep_BT: Tensor, asked_P: Tensor | None = None) -> Tensor:
        """Return the block's output (N, C); `keep_BT` is 1 for text and 0 for padding."""
        if self.attends:
            x_NC = self.attention_half(x_NC, keep_BT, asked_P)
        elif self.first_only:
            x_NC = Channels([x_NC]).first(keep_BT.shape[0]).whole
        elif asked_P is not None:
            x_NC = x_NC[asked_P]
        if not self.feeds_forward:
            return x_NC
        return cast(Tensor, self.down_norm(self.feed_forward(x_NC) + x_NC * self.up_scale))

    def attention_half(self, x_NC: Tensor, keep_BT: Tensor, asked_P: Tensor | None) -> Tensor:
        """Attention, its output projection, residual sum and LayerNorm; behind attention for the asked rows alone."""
        batch = keep_BT.shape[0]
        x = Channels([x_NC], None if self.shared_down is None else torch.matmul(x_NC, self.shared_down))
        own = x.first(batch) if self.first_only else x
        query_NC, key_NC, value_NC = (
            Channels(matrix(channels)).whole
            for matrix, channels in ((self.query, own), (self.key, x), (self.value, x))
        )
        context_NC = self.attend(query_NC, key_NC, value_NC, keep_BT)
        own_NC = own.whole
        if asked_P is not None:
            context_NC, own_NC = context_NC[asked_P], own_NC[asked_P]
        own_NC = own_NC * self.attention_scale
        return cast(Tensor, self.after_norm(Channels(self.after(Channels([context_NC]))).whole + own_NC))

    def attend(self, query_NC: Tensor, key_NC: Tensor, value_NC: Tensor, keep_BT: Tensor) -> Tensor:
        """Return the context (N, C).

        Padding takes part in the softmax with values of zero, and what it took is divided away. The usual large
        negative number on its scores costs a pass over all scores (a fifth of attention at 128 tokens), and leaves
        probabilities of 1e-39, whose products are several times slower than those of larger numbers.
        """
        batch = keep_BT.shape[0]
        value_NC = value_NC * keep_BT.t().reshape(-1, 1)
        # Engines read this layout of heads as it lies: with the tokens first, no operand needs to be transposed
        query_TBHD, key_TBHD, value_TBHD = (
            x_NC.view(-1, batch, self.heads, x_NC.shape[1] // self.heads) for x_NC in (query_NC, key_NC, value_NC)
        )
        scores_BHTT = torch.matmul(query_TBHD.permute(1, 2, 0, 3), key_TBHD.permute(1, 2, 3, 0))
        weights_BHTT = torch.softmax(scores_BHTT, dim=-1)
        context_BHTD = torch.matmul(weights_BHTT, value_TBHD.permute(1, 2, 0, 3))
        kept_BHT1 = torch.matmul(weights_BHTT, keep_BT[:, None, :, None])
        context_BHTD = context_BHTD / kept_BHT1.clamp_min(_NOTHING)
        return context_BHTD.permute(2, 0, 1, 3).reshape(-1, value_NC.shape[1])

    def feed_forward(self, x_NC: Tensor) -> Tensor:
        """Widen, activate, narrow; without joining the groups in between where both halves have the same."""
        widened = [self.act(piece) for piece in self.up(Channels([x_NC]))]
        widened = [piece * factor for piece, factor in zip(widened, self.down_factors, strict=True)]
        return Channels(self.down(Channels(widened))).whole


class EncoderGraph(nn.Module):
    """Embeddings and blocks as they are exported; with `first_only`, the last block computes the first token alone."""

    def __init__(self, encoder: SqueezeBertModel, scales: Sequence[BlockScales] | None, first_only: bool) -> None:
        super().__init__()
        blocks: Any = encoder.encoder.layers
        embeddings = encoder.embeddings
        self.words, self.kinds = embeddings.word_embeddings, embeddings.token_type_embeddings
        # (R, E) as it is multiplied with, of words that are kept in fewer channels
        factor = embeddings.word_projection
        self.words_up: Tensor | None
        self.register_buffer("words_up", None if factor is None else factor.weight.detach().t().contiguous())
        self.register_buffer("position_embeddings", embeddings.position_embeddings.weight.detach().float())
        scales = scales or [BlockScales()] * len(blocks)
        arriving: list[Tensor | None] = [None]  # what each block's input is divided by, from the last block on
        for block, of_block in zip(reversed(blocks), reversed(scales), strict=True):
            halves = ((block.attention, of_block.attention), (block.intermediate, of_block.up))
            arriving.append(next((scale for half, scale in halves if half is not None), arriving[-1]))
        arriving.reverse()
        self.norm, self.projection = _divide_norm(embeddings.LayerNorm, arriving[0]), embeddings.projection
        last = len(blocks) - 1
        self.blocks = nn.ModuleList(
            Block(block, first_only and i == last, scales[i], arriving[i + 1]) for i, block in enumerate(blocks)
        )

    def states(
        self, input_ids: Tensor, keep_BT: Tensor, token_type_ids: Tensor, asked_P: Tensor | None = None
    ) -> Tensor:
        """Return the last block's states, (N, C), of first tokens (B, C), or of asked rows of the N tokens (P, C).

        `keep_BT` is 1 for text, 0 for padding.
        """
        positions_T1C = cast(Tensor, self.position_embeddings)[: input_ids.shape[1], None]
        words_TBC = self.words(input_ids.t())
        if self.words_up is not None:
            words_TBC = torch.matmul(words_TBC, self.words_up)
        x_TBC = words_TBC + positions_T1C + self.kinds(token_type_ids.t())
        x_NC = self.norm(x_TBC.flatten(0, 1))
        if self.projection is not None:
            x_NC = self.projection(x_NC)
        for block in self.blocks[:-1]:
            x_NC = block(x_NC, keep_BT)
        return cast(Tensor, self.blocks[-1](x_NC, keep_BT, asked_P))


class ClassifierGraph(EncoderGraph):
    """A whole classifier as it is exported: token ids, mask and types (B, T) in, logits (B, L) out."""

    def __init__(
        self,
        model: SqueezeBertForSequenceClassification,
        scales: Sequence[BlockScales] | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(model.transformer, scales, first_only=True)
        self.pooler = model.transformer.pooler.dense
        self.classifier = _divide_linear(model.classifier, temperature)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the logits (B, L)."""
        x_BC = self.states(input_ids, attention_mask.to(self.norm.weight.dtype), token_type_ids)
        return cast(Tensor, self.classifier(torch.tanh(self.pooler(x_BC))))


class EmbeddingGraph(EncoderGraph):
    """An encoder as it is exported: token ids, mask and types (B, T) in, a vector of length 1 a text (B, C) out."""

    def __init__(
        self, model: SqueezeBertModel, scales: Sequence[BlockScales] | None = None, pooling: Pooling = "mean"
    ) -> None:
        super().__init__(model, scales, first_only=pooling == "first")
        self.pooling = pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the vectors (B, C)."""
        keep_BT = attention_mask.to(self.norm.weight.dtype)
        x_BC = self.states(input_ids, keep_BT, token_type_ids)
        if self.pooling == "mean":  # the sum will do: it is divided by its length
            x_TBC = x_BC.view(-1, keep_BT.shape[0], x_BC.shape[1])
            x_BC = (x_TBC * keep_BT.t().unsqueeze(-1)).sum(0)
        return x_BC / x_BC.square().sum(-1, keepdim=True).sqrt().clamp_min(_SHORTEST)


class TokensGraph(EncoderGraph):
    """A model that labels tokens as it is exported: token ids, mask and types (B, T) in, logits (B, T, L) out."""

    def __init__(
        self,
        model: SqueezeBertForTokenClassification,
        scales: Sequence[BlockScales] | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(model.transformer, scales, first_only=False)
        self.classifier = _divide_linear(model.classifier, temperature)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the logits (B, T, L)."""
        x_NC = self.states(input_ids, attention_mask.to(self.norm.weight.dtype), token_type_ids)
        logits_NL = self.classifier(x_NC)
        return cast(Tensor, logits_NL.view(-1, input_ids.shape[0], logits_NL.shape[1]).transpose(0, 1))


class WordsGraph(EncoderGraph):
    """A masked-lm as it is exported: token ids, mask and types (B, T) and positions (P, 2) in, logits (P, V) out.

    The vocabulary is scored at the asked positions alone. The product with it reads the table that words are looked up
    in, where the model ties the two: the file has it once.
    """

    def __init__(self, model: SqueezeBertForMaskedLM, scales: Sequence[BlockScales] | None = None) -> None:
        super().__init__(model.transformer, scales, first_only=False)
        head = model.cls.predictions
        self.dense, self.act, self.head_norm = (
            head.transform.dense,
            head.transform.transform_act_fn,
            head.transform.LayerNorm,
        )
        self.bias = nn.Parameter(head.decoder.bias.detach().clone(), requires_grad=False)
        tied = torch.equal(head.decoder.weight, self.words.weight)
        self.scores = self.words.weight if tied else nn.Parameter(head.decoder.weight.detach(), requires_grad=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, positions: Tensor) -> Tensor:
        """Return the logits (P, V); a row of `positions` is the number of a text and of a token in it."""
        asked_P = positions[:, 1] * input_ids.shape[0] + positions[:, 0]
        x_PC = self.states(input_ids, attention_mask.to(self.norm.weight.dtype), token_type_ids, asked_P)
        x_PE = self.head_norm(self.act(self.dense(x_PC)))
        return nn.functional.linear(x_PE, self.scores, self.bias)


def write_graph(
    model: Model,
    path: Path,
    opset: int,
    scales: Sequence[BlockScales] | None = None,
    temperature: float = 1.0,
    pooling: Pooling = "mean",
) -> None:
    """Write `model` (fp32) as an ONNX file with dynamic batch and length, weights inside.

    `scales`, one a block, make a graph whose outputs are the same and whose ranges suit int8.

    Inputs are `input_ids`, `attention_mask`, `token_type_ids`, int64 (B, T); the output is `logits` (B, L), divided by
    `temperature`, or of an encoder `sentence_embedding` (B, C), made by `pooling`. A masked-lm also takes `positions`,
    int64 (P, 2), of text and token, and gives `logits` (P, V) there; one that labels tokens gives `logits` (B, T, L).
    Raises `DependencyError` when the packages that write ONNX are not installed.
    """
    graph: EncoderGraph
    if isinstance(model, SqueezeBertModel):
        graph = EmbeddingGraph(model, scales, pooling)
    elif isinstance(model, SqueezeBertForMaskedLM):
        graph = WordsGraph(model, scales)
    elif isinstance(model, SqueezeBertForTokenClassification):
        graph = TokensGraph(model, scales, temperature)
    else:
        graph = ClassifierGraph(model, scales, temperature)
    graph.eval()
    proto = _trace(graph, opset)
    _fill(proto, graph)
    onnx.checker.check_model(proto)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, str(path))


# Traces without weights, by the form of what was traced: torch takes seconds to trace a model, whatever its size
_traced: dict[tuple[Any, ...], bytes] = {}
_MOST_TRACES = 8


def _trace(graph: EncoderGraph, opset: int) -> onnx.ModelProto:
    """Return the graph as ONNX without its weights.

    What differs from an earlier one in them alone is not traced again: the files of an export are one trace.
    """
    form = (opset, *_form(graph))
    if form not in _traced:
        while len(_traced) >= _MOST_TRACES:
            del _traced[next(iter(_traced))]
        _traced[form] = _trace_anew(graph, opset).SerializeToString()
    return onnx.load_model_from_string(_traced[form])


def _form(graph: EncoderGraph) -> tuple[Any, ...]:
    """Everything that a trace depends on: kinds of modules, their numbers, and names and shapes of tensors."""
    modules = [
        (name, type(module), *((key, _told(value)) for key, value in vars(module).items() if not key.startswith("_")))
        for name, module in graph.named_modules()
    ]
    first: dict[int, str] = {}  # the same tensor under two names is one input of the trace
    tensors = [
        (name, tuple(tensor.shape), first.setdefault(tensor.data_ptr(), name))
        for name, tensor in graph.state_dict().items()
    ]
    return (*modules, *tensors)


def _told(value: object) -> object:
    """A number or name as it is, of a function (as activations hold one) its name."""
    return value if isinstance(value, int | float | str | tuple) else getattr(value, "__qualname__", None)


def _trace_anew(graph: EncoderGraph, opset: int) -> onnx.ModelProto:
    unlike = copy.deepcopy(graph, _stand_ins(graph))
    # Three tensors of their own: two names for one tensor would be exported as one input
    example: tuple[Tensor, ...] = (
        torch.ones(2, 9, dtype=torch.long),
        torch.ones(2, 9, dtype=torch.long),
        torch.zeros(2, 9).long(),
    )
    dimensions = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("sequence", min=1)}
    shapes: dict[str, dict[int, Any]] = dict.fromkeys(INPUTS, dimensions)
    if isinstance(graph, WordsGraph):
        example = (*example, torch.tensor([[0, 1], [0, 3], [1, 2]]))
        shapes[POSITIONS] = {0: torch.export.Dim("asked", min=1)}
    with torch.no_grad(), quiet():
        try:
            program = torch.onnx.export(
                unlike,
                example,
                dynamo=True,
                opset_version=opset,
                input_names=list(shapes),
                output_names=["sentence_embedding" if isinstance(graph, EmbeddingGraph) else "logits"],
                dynamic_shapes=shapes,
                verbose=False,
            )
        except ModuleNotFoundError as error:
            raise DependencyError(f"{error}: pip install 'squeezebert[train]'") from error
    weights = graph.state_dict()
    model = cast(Any, program).model
    for name in set(weights) & set(model.graph.initializers):
        del model.graph.initializers[name]  # or the values of `unlike` would be written out just to be dropped
    proto = cast(onnx.ModelProto, cast(Any, program).model_proto)
    _drop_traces(proto)
    _sum_residuals(proto)
    _check_inputs(proto, weights)
    return proto


def _stand_ins(graph: EncoderGraph) -> dict[int, Any]:
    """Return what a copy of the graph holds in place of its tensors, by their `id`, as `copy.deepcopy` takes it.

    The exporter joins weights that are equal and drops products with 1: none of these. Each is one number in memory.
    """
    stand_ins: dict[int, Any] = {}
    for number, tensor in enumerate([*graph.parameters(), *graph.buffers()]):
        stand_in = torch.full((1,), number + 2.0).expand(tensor.shape)
        is_weight = isinstance(tensor, nn.Parameter)
        stand_ins[id(tensor)] = nn.Parameter(stand_in, requires_grad=False) if is_weight else stand_in
    return stand_ins


def _check_inputs(proto: onnx.ModelProto, weights: dict[str, Tensor]) -> None:
    """Raise where a weight was computed with while tracing: the values of its stand-in would be in every file."""
    read = {name for node in proto.graph.node for name in node.input}
    there = {tensor.data_ptr() for name, tensor in weights.items() if name in read}
    absent = [name for name, tensor in weights.items() if tensor.data_ptr() not in there]
    if absent:
        raise RuntimeError(f"torch {torch.__version__} does not export {', '.join(absent)} as inputs of the graph")


def _fill(proto: onnx.ModelProto, graph: EncoderGraph) -> None:
    """Put the weights of `graph` into a trace, and take out products with factors that are all one."""
    weights = graph.state_dict()
    ones = {name for name, tensor in weights.items() if _FACTOR.search(name) and bool((tensor == 1).all())}
    dropped: dict[str, str] = {}
    for node in list(proto.graph.node):
        if node.op_type == "Mul" and ones & set(node.input):
            (factored,) = (name for name in node.input if name not in ones)
            dropped[node.output[0]] = factored
            proto.graph.node.remove(node)
    for node in proto.graph.node:
        for number, name in enumerate(node.input):
            node.input[number] = dropped.get(name, name)
    kept = [value for value in proto.graph.value_info if value.name not in dropped]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    read = {name for node in proto.graph.node for name in node.input}
    for name, tensor in weights.items():
        if name in read:
            proto.graph.initializer.append(onnx.numpy_helper.from_array(tensor.numpy(), name))


def _divide_norm(norm: nn.LayerNorm, scale_C: Tensor | None) -> nn.LayerNorm:
    """Return a LayerNorm whose output is that of `norm`, divided by `scale_C`."""
    if scale_C is None:
        return norm
    divided = nn.LayerNorm(norm.normalized_shape, eps=norm.eps)
    divided.weight.data, divided.bias.data = norm.weight.detach() / scale_C, norm.bias.detach() / scale_C
    return divided


def _divide_linear(layer: nn.Linear, temperature: float) -> nn.Linear:
    """Return a layer whose output is that of `layer`, divided by the temperature.

    Whatever engine takes the softmax of logits that are divided so gets calibrated probabilities.
    """
    divided = nn.Linear(layer.in_features, layer.out_features)
    divided.weight.data, divided.bias.data = layer.weight.detach() / temperature, layer.bias.detach() / temperature
    return divided


def _or_ones(scale: Tensor | None, channels: int) -> Tensor:
    """What is not scaled is multiplied by ones, which `_fill` leaves out of the file."""
    return torch.ones(channels) if scale is None else scale


def _sum_residuals(proto: Any) -> None:
    """Write the Add before each LayerNormalization as a Sum.

    onnxruntime makes SkipLayerNormalization of the pair, which is 8 to 13 times slower on CPUs than the two (1.32, 128
    tokens of 384 and of 768 channels); browsers cannot turn that off. A Sum of two costs what an Add does.
    """
    normalised = {node.input[0] for node in proto.graph.node if node.op_type == "LayerNormalization"}
    for node in proto.graph.node:
        if node.op_type == "Add" and normalised & set(node.output):
            node.op_type = "Sum"


def _drop_traces(proto: Any) -> None:
    """Remove the exporter's notes on each node: they hold source lines and paths of this machine."""
    for nodes in (proto.graph.node, *(function.node for function in proto.functions)):
        for node in nodes:
            del node.metadata_props[:]
            node.doc_string = ""
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]
    del proto.graph.metadata_props[:]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporter's remarks on packages that are not needed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
