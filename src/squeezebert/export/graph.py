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

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from torch import Tensor, nn

from squeezebert.export.checkpoint import Model, Pooling
from squeezebert.export.matrices import Channels, scaled_down, write_matrix
from squeezebert.export.smoothing import BlockScales
from squeezebert.export.writer import Shape, Value, Writer
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
# Lengths that each run may have others of: texts, tokens, asked positions
BATCH, SEQUENCE, ASKED = "batch", "sequence", "asked"
# Keeps a text of nothing but padding from dividing by zero
_NOTHING = 1e-30
# And a vector of zeros from the same
_SHORTEST = 1e-12


@dataclass(frozen=True)
class Padding:
    """Which tokens are text, 1, and which padding, 0, in the layouts that blocks read."""

    batch: Value
    """how many texts there are, (1,)"""
    of_tokens: Value
    """(N, 1)"""
    of_keys: Value
    """(B, 1, T, 1)"""


class Block(nn.Module):
    """One encoder block; with `first_only` it returns the first token's state alone, (B, C), and for rows of tokens
    that are asked for, those alone, (P, C).

    Its input arrives divided by `scales.attention`, or without attention by `scales.up`, and its output leaves divided
    by `next_scale_C`. A half that the model leaves out hands on what it reads.
    """

    def __init__(
        self,
        layer: nn.Module,
        channels: int,
        act: str,
        first_only: bool,
        scales: BlockScales,
        next_scale_C: Tensor | None,
    ) -> None:
        super().__init__()
        source = cast(Any, layer)
        self.channels, self.act, self.first_only = channels, act, first_only
        self.attends, self.feeds_forward = source.attention is not None, source.intermediate is not None
        self.attention_scale: Tensor | None
        self.up_scale: Tensor | None
        if self.attends:
            self._hold_attention(source, scales, scales.up if self.feeds_forward else next_scale_C)
        if self.feeds_forward:
            self._hold_feed_forward(source, scales, next_scale_C)

    def _hold_attention(self, source: Any, scales: BlockScales, next_scale_C: Tensor | None) -> None:
        self.shared_down: Tensor | None
        attention, reduced = source.attention, scales.reduced
        self.heads, self.head_size = attention.heads, attention.value.out_features // attention.heads
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
        self.register_buffer("attention_scale", scales.attention)

    def _hold_feed_forward(self, source: Any, scales: BlockScales, next_scale_C: Tensor | None) -> None:
        reduced = scales.reduced
        self.up = write_matrix(source.intermediate.conv1d, scales.up, reduced.get("intermediate"))
        self.down = write_matrix(source.output.conv1d, scales.down, reduced.get("output"))
        self.down_norm = _divide_norm(source.output.layernorm, next_scale_C)
        self.register_buffer("up_scale", scales.up)
        factors = () if scales.down is None else (1.0 / scales.down).chunk(self.up.pieces)
        self.down_factors = nn.ParameterList(factor.clone() for factor in factors)

    def write(self, writer: Writer, x_NC: Value, padding: Padding, asked_P: Value | None = None) -> Value:
        """Write the block and return its output (N, C)."""
        if self.attends:
            x_NC = self.attention_half(writer, x_NC, padding, asked_P)
        elif self.first_only:
            x_NC = _first(writer, x_NC, padding, self.channels)
        elif asked_P is not None:
            x_NC = writer.op.Gather(x_NC, asked_P, axis=0)
        if not self.feeds_forward:
            return x_NC
        wide_NC = self.feed_forward(writer, x_NC)
        return writer.normalised(self.residual(writer, wide_NC, _times(writer, x_NC, self.up_scale)), self.down_norm)

    def attention_half(self, writer: Writer, x_NC: Value, padding: Padding, asked_P: Value | None) -> Value:
        """Attention, its output projection, residual sum and LayerNorm; behind attention for the asked rows alone."""
        op, down = writer.op, self.shared_down
        reduced_NR = None if down is None else op.MatMul(x_NC, writer.weight(down))
        x = own = Channels(writer, [x_NC], reduced_NR)
        if self.first_only:
            reduced_BR = None
            if reduced_NR is not None and down is not None and self.query.shares:
                reduced_BR = _first(writer, reduced_NR, padding, down.shape[1])
            own = Channels(writer, [_first(writer, x_NC, padding, self.channels)], reduced_BR)
        query_NC, key_NC, value_NC = (
            Channels(writer, matrix.write(channels)).whole
            for matrix, channels in ((self.query, own), (self.key, x), (self.value, x))
        )
        context_NC, own_NC = self.attend(writer, query_NC, key_NC, value_NC, padding), own.whole
        if asked_P is not None:
            context_NC, own_NC = (op.Gather(rows, asked_P, axis=0) for rows in (context_NC, own_NC))
        after_NC = Channels(writer, self.after.write(Channels(writer, [context_NC]))).whole
        own_NC = _times(writer, own_NC, self.attention_scale)
        return writer.normalised(self.residual(writer, after_NC, own_NC), self.after_norm)

    def attend(self, writer: Writer, query_NC: Value, key_NC: Value, value_NC: Value, padding: Padding) -> Value:
        """Return the context (N, C).

        Padding takes part in the softmax with values of zero, and what it took is divided away. The usual large
        negative number on its scores costs a pass over all scores (a fifth of attention at 128 tokens), and leaves
        probabilities of 1e-39, whose products are several times slower than those of larger numbers.
        """
        op = writer.op
        value_NC = op.Mul(value_NC, padding.of_tokens)
        # Engines read this layout of heads as it lies: with the tokens first, no operand needs to be transposed
        layout = writer.lengths(-1, padding.batch, self.heads, self.head_size)
        query_TBHD, key_TBHD, value_TBHD = (op.Reshape(x_NC, layout) for x_NC in (query_NC, key_NC, value_NC))
        query_BHTD, key_BHDT = op.Transpose(query_TBHD, perm=[1, 2, 0, 3]), op.Transpose(key_TBHD, perm=[1, 2, 3, 0])
        weights_BHTT = op.Softmax(op.MatMul(query_BHTD, key_BHDT), axis=-1)
        context_BHTD = op.MatMul(weights_BHTT, op.Transpose(value_TBHD, perm=[1, 2, 0, 3]))
        kept_BHT1 = op.MatMul(weights_BHTT, padding.of_keys)
        context_BHTD = op.Div(context_BHTD, op.Clip(kept_BHT1, _NOTHING))
        context_TBHD = op.Transpose(context_BHTD, perm=[2, 0, 1, 3])
        return op.Reshape(context_TBHD, [-1, self.heads * self.head_size])

    def feed_forward(self, writer: Writer, x_NC: Value) -> Value:
        """Widen, activate, narrow; without joining the groups in between where both halves have the same."""
        widened = [writer.activated(piece, self.act) for piece in self.up.write(Channels(writer, [x_NC]))]
        if len(self.down_factors):
            widened = [_times(writer, x, factor) for x, factor in zip(widened, self.down_factors, strict=True)]
        return Channels(writer, self.down.write(Channels(writer, widened))).whole

    def residual(self, writer: Writer, x_NC: Value, own_NC: Value) -> Value:
        """Return the sum before a LayerNorm.

        Written as an Add, onnxruntime makes SkipLayerNormalization of the pair, which is 8 to 13 times slower on CPUs
        than the two (1.32, 128 tokens of 384 and of 768 channels); browsers cannot turn that off. A Sum of two costs
        what an Add does.
        """
        return writer.op.Sum(x_NC, own_NC)


class EncoderGraph(nn.Module, ABC):
    """Embeddings and blocks as they are exported; with `first_only`, the last block computes the first token alone."""

    output = "logits"
    """name of what the file gives"""
    shape: Shape = (BATCH, SEQUENCE)
    """and its shape"""

    def __init__(self, encoder: SqueezeBertModel, scales: Sequence[BlockScales] | None, first_only: bool) -> None:
        super().__init__()
        blocks: Any = encoder.encoder.layers
        embeddings, self.channels = encoder.embeddings, encoder.config.hidden_size
        self.words, self.kinds = embeddings.word_embeddings, embeddings.token_type_embeddings
        # (R, E) as it is multiplied with, of words that are kept in fewer channels
        factor = embeddings.word_projection
        self.words_up: Tensor | None
        self.register_buffer("words_up", None if factor is None else factor.weight.detach().t().contiguous())
        self.position_embeddings: Tensor
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
            Block(
                block,
                self.channels,
                encoder.config.activation(i),
                first_only and i == last,
                scales[i],
                arriving[i + 1],
            )
            for i, block in enumerate(blocks)
        )

    def to_onnx(self, opset: int) -> onnx.ModelProto:
        """Write everything. Raises `OptionError` for an activation that is not exported."""
        writer = Writer(self, opset)
        ids, mask, kinds = (writer.input(name, (BATCH, SEQUENCE)) for name in INPUTS)
        return writer.finish(self.write(writer, ids, mask, kinds), self.output, self.shape)

    @abstractmethod
    def write(self, writer: Writer, ids: Value, mask: Value, kinds: Value) -> Value:
        """Write the graph behind its inputs (B, T), and return its output."""

    def states(
        self, writer: Writer, ids: Value, padding: Padding, kinds: Value, asked_P: Value | None = None
    ) -> Value:
        """Return the last block's states, (N, C), of first tokens (B, C), or of asked rows of the N tokens (P, C)."""
        op = writer.op
        tokens = op.Shape(ids, start=1, end=2)
        rows_TE = op.Slice(writer.weight(self.position_embeddings), [0], tokens, [0], [1])
        words_TBE = op.Gather(writer.weight(self.words.weight), op.Transpose(ids, perm=[1, 0]), axis=0)
        if self.words_up is not None:
            words_TBE = op.MatMul(words_TBE, writer.weight(self.words_up))
        kinds_TBE = op.Gather(writer.weight(self.kinds.weight), op.Transpose(kinds, perm=[1, 0]), axis=0)
        x_TBE = op.Add(op.Add(words_TBE, op.Unsqueeze(rows_TE, [1])), kinds_TBE)
        x_NC = op.Reshape(x_TBE, [-1, self.position_embeddings.shape[1]])
        x_NC = writer.normalised(x_NC, self.norm)
        if self.projection is not None:
            x_NC = writer.linear(x_NC, self.projection.weight, self.projection.bias)
        for block in self.blocks[:-1]:
            x_NC = cast(Block, block).write(writer, x_NC, padding)
        return cast(Block, self.blocks[-1]).write(writer, x_NC, padding, asked_P)


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
        self.shape = BATCH, self.classifier.out_features

    def write(self, writer: Writer, ids: Value, mask: Value, kinds: Value) -> Value:
        """Return the logits (B, L)."""
        x_BC = self.states(writer, ids, _padding(writer, mask), kinds)
        pooled_BC = writer.op.Tanh(writer.linear(x_BC, self.pooler.weight, self.pooler.bias))
        return writer.linear(pooled_BC, self.classifier.weight, self.classifier.bias)


class EmbeddingGraph(EncoderGraph):
    """An encoder as it is exported: token ids, mask and types (B, T) in, a vector of length 1 a text (B, C) out."""

    output = "sentence_embedding"

    def __init__(
        self, model: SqueezeBertModel, scales: Sequence[BlockScales] | None = None, pooling: Pooling = "mean"
    ) -> None:
        super().__init__(model, scales, first_only=pooling == "first")
        self.pooling = pooling
        self.shape = BATCH, self.channels

    def write(self, writer: Writer, ids: Value, mask: Value, kinds: Value) -> Value:
        """Return the vectors (B, C)."""
        op, padding = writer.op, _padding(writer, mask)
        x_BC = self.states(writer, ids, padding, kinds)
        if self.pooling == "mean":  # the sum will do: it is divided by its length
            kept_NC = op.Mul(x_BC, padding.of_tokens)
            x_TBC = op.Reshape(kept_NC, writer.lengths(-1, padding.batch, self.channels))
            x_BC = op.ReduceSum(x_TBC, [0], keepdims=0)
        length_B1 = op.Sqrt(op.ReduceSum(op.Mul(x_BC, x_BC), [-1], keepdims=1))
        return op.Div(x_BC, op.Clip(length_B1, _SHORTEST))


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
        self.shape = BATCH, SEQUENCE, self.classifier.out_features

    def write(self, writer: Writer, ids: Value, mask: Value, kinds: Value) -> Value:
        """Return the logits (B, T, L)."""
        op, padding = writer.op, _padding(writer, mask)
        x_NC = self.states(writer, ids, padding, kinds)
        logits_NL = writer.linear(x_NC, self.classifier.weight, self.classifier.bias)
        logits_TBL = op.Reshape(logits_NL, writer.lengths(-1, padding.batch, self.classifier.out_features))
        return op.Transpose(logits_TBL, perm=[1, 0, 2])


class WordsGraph(EncoderGraph):
    """A masked-lm as it is exported: token ids, mask and types (B, T) and positions (P, 2) in, logits (P, V) out.

    The vocabulary is scored at the asked positions alone. The product with it reads the table that words are looked up
    in, where the model ties the two: the file has it once.
    """

    def __init__(self, model: SqueezeBertForMaskedLM, scales: Sequence[BlockScales] | None = None) -> None:
        super().__init__(model.transformer, scales, first_only=False)
        head = model.cls.predictions
        self.dense, self.head_norm = head.transform.dense, head.transform.LayerNorm
        self.act = model.config.hidden_act
        self.bias = nn.Parameter(head.decoder.bias.detach().clone(), requires_grad=False)
        tied = torch.equal(head.decoder.weight, self.words.weight)
        self.scores = self.words.weight if tied else nn.Parameter(head.decoder.weight.detach(), requires_grad=False)
        self.shape = ASKED, len(self.bias)

    def write(self, writer: Writer, ids: Value, mask: Value, kinds: Value) -> Value:
        """Return the logits (P, V); a row of `positions` is the number of a text and of a token in it."""
        op, padding = writer.op, _padding(writer, mask)
        positions_P2 = writer.input(POSITIONS, (ASKED, 2))
        text_P, token_P = (op.Gather(positions_P2, column, axis=1) for column in (0, 1))
        asked_P = op.Add(op.Mul(token_P, padding.batch), text_P)
        x_PC = self.states(writer, ids, padding, kinds, asked_P)
        x_PE = writer.activated(writer.linear(x_PC, self.dense.weight, self.dense.bias), self.act)
        return writer.linear(writer.normalised(x_PE, self.head_norm), self.scores, self.bias)


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
    Raises `OptionError` for an activation that is not exported.
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
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(graph.to_onnx(opset), str(path))
    onnx.checker.check_model(str(path))  # by its name: checked in memory, all weights would be copied once more


def _padding(writer: Writer, mask: Value) -> Padding:
    op = writer.op
    keep_BT = op.Cast(mask, to=onnx.TensorProto.FLOAT)
    of_tokens = op.Reshape(op.Transpose(keep_BT, perm=[1, 0]), [-1, 1])
    return Padding(op.Shape(mask, start=0, end=1), of_tokens, op.Unsqueeze(keep_BT, [1, 3]))


def _first(writer: Writer, x_NC: Value, padding: Padding, channels: int) -> Value:
    """Return the rows of each text's first token alone, (B, C), where N counts tokens before texts."""
    # Not the first B rows, though they are the same: a slice's length is a formula in the file
    x_TBC = writer.op.Reshape(x_NC, writer.lengths(-1, padding.batch, channels))
    return writer.op.Gather(x_TBC, 0, axis=0)


def _times(writer: Writer, x_NC: Value, factor_C: Tensor | None) -> Value:
    """Return x times a factor a channel; x itself where there is none, or all are one."""
    if factor_C is None or bool((factor_C == 1).all()):
        return x_NC
    return writer.op.Mul(x_NC, writer.weight(factor_C))


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
