"""A classification model rewritten for ONNX engines: a torch model in, an ONNX file with the same answers out.

Serves the exporter. Legend: B batch, T tokens, C channels, G groups, H heads, D channels of a head, L labels.

A grouped layer is written as Split -> one MatMul a group -> Concat: engines run each MatMul at full speed, where a
grouped convolution is slow in fp32 and slower still in int8. Three shortcuts leave the outputs as they are: query, key
and value of one group are one MatMul; a feed-forward network whose two halves have the same groups stays split in
between; and the last block computes only the first token, the one the classifier reads. The graph that becomes int8
also divides the channels that stand out (`smoothing.py`) and multiplies their weights: its outputs are the same too.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from torch import Tensor, nn

from squeezebert.export.smoothing import BlockScales
from squeezebert.files.errors import DependencyError
from squeezebert.model import GroupedLinear, SqueezeBertForSequenceClassification

FORM = "per_group_matmul"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# Added to the score of a padded token. exp(-10000) is 0 in every precision, and 16-bit floats can hold the number
_MASKED = -1e4


class GroupedMatMul(nn.Module):
    """One or several grouped layers of the same input and groups, as one MatMul a group."""

    def __init__(
        self, layers: Sequence[GroupedLinear], factors: Sequence[float] = (), scale_C: Tensor | None = None
    ) -> None:
        """Take over the weights of `layers`, each times its factor, for an input divided by `scale_C` beforehand."""
        super().__init__()
        self.groups, self.layers = layers[0].groups, len(layers)
        by_group = torch.ones(layers[0].in_features) if scale_C is None else scale_C
        for group, scale in enumerate(by_group.view(self.groups, -1, 1)):
            weights, biases = [], []
            for layer, factor in zip(layers, factors or [1.0] * len(layers), strict=True):
                width = layer.out_features // self.groups
                part = slice(group * width, (group + 1) * width)
                weights.append(layer.weight.detach()[part, :, 0].t() * scale * factor)
                biases.append(layer.bias.detach()[part] * factor)
            self.register_buffer(f"weight_{group}", torch.cat(weights, dim=1).contiguous())
            self.register_buffer(f"bias_{group}", torch.cat(biases))

    def split(self, x_BTC: Tensor) -> Sequence[Tensor]:
        """Return the input's channels by group: G tensors (B, T, C / G)."""
        return x_BTC.chunk(self.groups, dim=-1) if self.groups > 1 else (x_BTC,)

    def products(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Multiply each group's channels by its weights: G tensors, the layers' outputs side by side."""
        return [
            torch.matmul(part, getattr(self, f"weight_{group}")) + getattr(self, f"bias_{group}")
            for group, part in enumerate(parts)
        ]

    def forward(self, x_BTC: Tensor) -> list[Tensor]:
        """Return the output (B, T, C) of each layer."""
        products = self.products(self.split(x_BTC))
        if self.layers == 1:
            return [_join(products)]
        by_layer = zip(*(product.chunk(self.layers, dim=-1) for product in products), strict=True)
        return [_join(parts) for parts in by_layer]


class Block(nn.Module):
    """One encoder block; with `first_only` it returns the first token's state alone, (B, 1, C).

    Its input arrives divided by `scales.attention`, and its output leaves divided by `next_scale_C`.
    """

    def __init__(
        self, layer: nn.Module, heads: int, first_only: bool, scales: BlockScales, next_scale_C: Tensor | None
    ) -> None:
        super().__init__()
        source = cast(Any, layer)
        self.heads, self.first_only = heads, first_only
        self.attention_scale: Tensor | None
        self.up_scale: Tensor | None
        attention = source.attention
        layers = {"query": attention.query, "key": attention.key, "value": attention.value}
        factors = {"query": attention.scaling, "key": 1.0, "value": 1.0}
        # What reads the same tokens in the same groups is one product; the last block's query reads one token
        kinds: dict[tuple[bool, int], list[str]] = {}
        for name, projection in layers.items():
            kinds.setdefault((first_only and name == "query", projection.groups), []).append(name)
        self.fused = list(kinds.values())
        self.projections = nn.ModuleList(
            GroupedMatMul([layers[name] for name in names], [factors[name] for name in names], scales.attention)
            for names in self.fused
        )
        self.after = GroupedMatMul([source.post_attention.conv1d])
        self.after_norm = _divide_norm(source.post_attention.layernorm, scales.up)
        self.up = GroupedMatMul([source.intermediate.conv1d], scale_C=scales.up)
        self.act = source.intermediate.act
        self.down = GroupedMatMul([source.output.conv1d], scale_C=scales.down)
        self.down_norm = _divide_norm(source.output.layernorm, next_scale_C)
        self.register_buffer("attention_scale", scales.attention)
        self.register_buffer("up_scale", scales.up)
        self.chained = self.up.groups == self.down.groups
        parts = self.up.groups if self.chained else 1
        self.down_factors = nn.ParameterList(() if scales.down is None else (1.0 / scales.down).chunk(parts))

    def forward(self, x_BTC: Tensor, mask_B11T: Tensor) -> Tensor:
        """Return the block's output (B, T, C)."""
        own_BTC = x_BTC[:, :1] if self.first_only else x_BTC
        projected: dict[str, Tensor] = {}
        for names, projection in zip(self.fused, self.projections, strict=True):
            outputs = projection(own_BTC if self.first_only and "query" in names else x_BTC)
            projected.update(zip(names, outputs, strict=True))
        query_BHTD = self.split_heads(projected["query"]).transpose(1, 2)
        key_BHDT = self.split_heads(projected["key"]).permute(0, 2, 3, 1)
        value_BHTD = self.split_heads(projected["value"]).transpose(1, 2)
        weights_BHTT = torch.softmax(torch.matmul(query_BHTD, key_BHDT) + mask_B11T, dim=-1)
        context_BTHD = torch.matmul(weights_BHTT, value_BHTD).transpose(1, 2)
        own_BTC = self.after_norm(self.after(context_BTHD.flatten(2))[0] + _times(own_BTC, self.attention_scale))
        return cast(Tensor, self.down_norm(self.feed_forward(own_BTC) + _times(own_BTC, self.up_scale)))

    def feed_forward(self, x_BTC: Tensor) -> Tensor:
        """Widen, activate, narrow; without joining the groups in between where both halves have the same."""
        widened = self.up.products(self.up.split(x_BTC))
        widened = [self.act(part) for part in (widened if self.chained else [_join(widened)])]
        if len(self.down_factors):
            widened = [part * factor for part, factor in zip(widened, self.down_factors, strict=True)]
        return _join(self.down.products(widened if self.chained else self.down.split(widened[0])))

    def split_heads(self, x_BTC: Tensor) -> Tensor:
        """Return (B, T, H, D)."""
        return cast(Tensor, x_BTC.unflatten(-1, (self.heads, -1)))


class ClassifierGraph(nn.Module):
    """The whole model as it is exported: token ids, mask and types (B, T) in, logits (B, L) out."""

    def __init__(
        self,
        model: SqueezeBertForSequenceClassification,
        scales: Sequence[BlockScales] | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        encoder, blocks = model.transformer, model.transformer.encoder.layers
        embeddings = encoder.embeddings
        self.words, self.kinds = embeddings.word_embeddings, embeddings.token_type_embeddings
        self.register_buffer("positions", embeddings.position_embeddings.weight.detach().float())
        scales = [*(scales or [BlockScales()] * len(blocks)), BlockScales()]
        self.norm, self.projection = _divide_norm(embeddings.LayerNorm, scales[0].attention), embeddings.projection
        last, heads = len(blocks) - 1, model.config.num_attention_heads
        self.blocks = nn.ModuleList(
            Block(block, heads, i == last, scales[i], scales[i + 1].attention) for i, block in enumerate(blocks)
        )
        self.pooler = encoder.pooler.dense
        # Logits divided by the temperature: whatever engine takes their softmax gets calibrated probabilities
        self.classifier = nn.Linear(model.classifier.in_features, model.classifier.out_features)
        self.classifier.weight.data = model.classifier.weight.detach() / temperature
        self.classifier.bias.data = model.classifier.bias.detach() / temperature

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the logits (B, L)."""
        positions = cast(Tensor, self.positions)[: input_ids.shape[1]]
        x_BTC = self.norm(self.words(input_ids) + positions + self.kinds(token_type_ids))
        if self.projection is not None:
            x_BTC = self.projection(x_BTC)
        mask_B11T = (1.0 - attention_mask[:, None, None, :].to(x_BTC.dtype)) * _MASKED
        for block in self.blocks:
            x_BTC = block(x_BTC, mask_B11T)
        return cast(Tensor, self.classifier(torch.tanh(self.pooler(x_BTC[:, 0]))))


def write_graph(
    model: SqueezeBertForSequenceClassification,
    path: Path,
    opset: int,
    scales: Sequence[BlockScales] | None = None,
    temperature: float = 1.0,
) -> None:
    """Write `model` (fp32) as an ONNX file with dynamic batch and length, weights inside.

    `scales`, one a block, make a graph whose outputs are the same and whose ranges suit int8.

    Inputs are `input_ids`, `attention_mask`, `token_type_ids`, int64 (B, T); the output is `logits` (B, L), divided by
    `temperature`.
    Raises `DependencyError` when the packages that write ONNX are not installed.
    """
    graph = ClassifierGraph(model, scales, temperature).eval()
    # Three tensors of their own: two names for one tensor would be exported as one input
    example = (torch.ones(2, 9, dtype=torch.long), torch.ones(2, 9, dtype=torch.long), torch.zeros(2, 9).long())
    dimensions = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("sequence", min=1)}
    with torch.no_grad(), _quiet():
        try:
            program = torch.onnx.export(
                graph,
                example,
                dynamo=True,
                opset_version=opset,
                input_names=list(INPUTS),
                output_names=["logits"],
                dynamic_shapes=dict.fromkeys(INPUTS, dimensions),
                verbose=False,
            )
        except ModuleNotFoundError as error:
            raise DependencyError(f"{error}: pip install 'squeezebert[train]'") from error
    proto = cast(Any, program).model_proto
    _drop_traces(proto)
    onnx.checker.check_model(proto)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, str(path))


def _divide_norm(norm: nn.LayerNorm, scale_C: Tensor | None) -> nn.LayerNorm:
    """Return a LayerNorm whose output is that of `norm`, divided by `scale_C`."""
    if scale_C is None:
        return norm
    divided = nn.LayerNorm(norm.normalized_shape, eps=norm.eps)
    divided.weight.data, divided.bias.data = norm.weight.detach() / scale_C, norm.bias.detach() / scale_C
    return divided


def _times(x: Tensor, factor: Tensor | None) -> Tensor:
    return x if factor is None else x * factor


def _join(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts), dim=-1) if len(parts) > 1 else parts[0]


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
def _quiet() -> Iterator[None]:
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
