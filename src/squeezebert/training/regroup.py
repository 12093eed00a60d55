"""A dense model in, the same model with its channels in another order out: one whose diagonal blocks carry more.

Serves `squeeze.py`. Three orders are free to choose, and none changes what the model computes: the heads of a layer,
the inner channels of a feed-forward network, and, once for the whole model, the channels of the residual stream, whose
order is folded into embeddings, LayerNorms, pooler and every matrix.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from squeezebert.model import GroupedLinear, SqueezeBertPreTrainedModel

Model = TypeVar("Model", bound=SqueezeBertPreTrainedModel)
# Random starts of the search, and rounds of each; the best start wins
STARTS, ROUNDS = 2, 25


@dataclass(frozen=True)
class Orders:
    """The channels of the old model in their new order."""

    stream: Tensor
    """Of the residual stream, (C,)."""
    heads: list[Tensor]
    """Of each layer's heads, (H,)."""
    inner: list[Tensor]
    """Of each feed-forward network's inner channels."""
    energy: float
    """Share of the output energy that the diagonal blocks carry in this order, inputs taken as uncorrelated."""


@torch.no_grad()
def input_variances(model: SqueezeBertPreTrainedModel, batches: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Any:
    """Return for each dense matrix the variance of its inputs, (C_in,), over the text of `batches`."""
    sums: dict[GroupedLinear, list[Tensor]] = {}
    text: list[Tensor] = []

    def note(layer: Any, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        x = arguments[0][text[-1]].double()
        new = [torch.tensor(float(len(x))), x.sum(0), x.pow(2).sum(0)]
        sums[layer] = [a + b for a, b in zip(sums[layer], new, strict=True)] if layer in sums else new

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, GroupedLinear)]
    training = model.training
    model.train(False)
    try:
        for ids, mask, types in batches:
            text.append(mask.bool())
            model.base_model(ids, mask, types)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return {layer: (square / n - (total / n) ** 2).clamp_min(0) for layer, (n, total, square) in sums.items()}


def find_orders(
    model: SqueezeBertPreTrainedModel,
    groups: int,
    variances: Any,
    seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
) -> Orders:
    """Search orders for `groups` equal groups in attention and feed-forward network.

    Channels, heads and inner channels are assigned to groups in turn, each exactly as well as the others allow (a
    balanced assignment), from several random starts. `report` is told now and then how far it is.
    """
    said = time.monotonic()
    heads = model.config.num_attention_heads
    C = model.config.hidden_size
    whole_heads = heads % groups == 0
    to_heads, to_inner, from_inner = [], [], []
    for block in cast(Any, model.base_model).encoder.layers:
        attention = block.attention
        x = variances[attention.query]
        # Each matrix weighs as much as its outputs vary in all, so that none drowns another
        parts = [_energy(m, x) for m in (attention.query, attention.key, attention.value)]
        to_heads.append(sum(part.reshape(heads, -1, C).sum(1) for part in parts))
        to_inner.append(_energy(block.intermediate.conv1d, variances[block.intermediate.conv1d]))
        from_inner.append(_energy(block.output.conv1d, variances[block.output.conv1d]))
    random = np.random.default_rng(seed)
    best: tuple[float, Any] | None = None
    for start in range(STARTS):
        stream = random.permutation(np.arange(C) % groups)
        kept = -1.0
        for round_ in range(ROUNDS):
            began = time.monotonic()
            onto = np.eye(groups)[stream]
            head_groups = [_assign(e @ onto) if whole_heads else np.arange(heads) * groups // heads for e in to_heads]
            inner_groups = [_assign(up @ onto + down.T @ onto) for up, down in zip(to_inner, from_inner, strict=True)]
            scores = np.zeros((C, groups))
            for e, up, down, h, j in zip(to_heads, to_inner, from_inner, head_groups, inner_groups, strict=True):
                if whole_heads:
                    scores += e.T @ np.eye(groups)[h]
                scores += up.T @ np.eye(groups)[j] + down @ np.eye(groups)[j]
            stream = _assign(scores)
            now = float(scores[np.arange(C), stream].sum())
            ended = time.monotonic()
            if ended - said > 10:
                said, left = ended, (STARTS - start) * ROUNDS - round_ - 1
                place = f"round {round_ + 1} of start {start + 1} of {STARTS}"
                report(f"order of channels: {place}, at most {left * (ended - began):.0f} s left")
            if now <= kept * (1 + 1e-3):
                break
            kept, found = now, (stream, head_groups, inner_groups)
        if best is None or kept > best[0]:
            best = kept, found
    assert best is not None
    energy = sum(float(e.sum()) for part in (to_inner, from_inner, to_heads if whole_heads else []) for e in part)
    stream, head_groups, inner_groups = best[1]
    return Orders(
        _order(stream), [_order(h) for h in head_groups], [_order(j) for j in inner_groups], best[0] / energy
    )


@torch.no_grad()
def reorder(model: Model, orders: Orders) -> Model:
    """Return a copy of a dense model with its channels in `orders`; its answers are the same."""
    new = copy.deepcopy(model)
    C, H = new.config.hidden_size, new.config.num_attention_heads
    s = orders.stream
    before = new.config.channel_order or list(range(C))
    after = [before[channel] for channel in s.tolist()]
    new.config.channel_order = None if after == sorted(after) else after
    encoder = cast(Any, new.base_model)
    embeddings = encoder.embeddings
    if embeddings.projection is None:
        for table in (embeddings.word_embeddings, embeddings.position_embeddings, embeddings.token_type_embeddings):
            table.weight.copy_(table.weight[:, s])
        _reorder_norm(embeddings.LayerNorm, s)
    else:
        _reorder(embeddings.projection, s, None)
    for block, heads, inner in zip(encoder.encoder.layers, orders.heads, orders.inner, strict=True):
        rows = torch.arange(C).view(H, -1)[heads].flatten()
        for matrix in (block.attention.query, block.attention.key, block.attention.value):
            _reorder(matrix, rows, s)
        _reorder(block.post_attention.conv1d, s, rows)
        _reorder(block.intermediate.conv1d, inner, s)
        _reorder(block.output.conv1d, s, inner)
        _reorder_norm(block.post_attention.layernorm, s)
        _reorder_norm(block.output.layernorm, s)
    encoder.pooler.dense.weight.copy_(encoder.pooler.dense.weight[:, s])
    _reorder_head(new, s)
    return new


def align(teacher: Any, student: SqueezeBertPreTrainedModel) -> Any:
    """Return the teacher with its channels in the student's order, so that their hidden states can be compared.

    Raises `ValueError` for a teacher of other classes than ours, whose channels cannot be reordered.
    """
    wanted = student.config.channel_order
    here = getattr(teacher.config, "channel_order", None)
    if wanted == here or teacher.config.hidden_size != student.config.hidden_size:
        return teacher
    if not isinstance(teacher, SqueezeBertPreTrainedModel):
        raise ValueError(
            f"the student's channels are in another order than those of this {type(teacher).__name__}: "
            "load the teacher with squeezebert's classes"
        )
    C, H, layers = student.config.hidden_size, teacher.config.num_attention_heads, teacher.config.num_hidden_layers
    place = {channel: i for i, channel in enumerate(here or range(C))}
    stream = torch.tensor([place[channel] for channel in wanted or range(C)])
    inner = torch.arange(teacher.config.intermediate_size)
    return reorder(teacher, Orders(stream, [torch.arange(H)] * layers, [inner] * layers, 0.0))


def _reorder_head(model: Any, s: Tensor) -> None:
    """Let a head that reads every token find its channels; one behind the pooler has nothing to find."""
    if hasattr(model, "qa_outputs"):
        _reorder(model.qa_outputs, None, s)
    elif hasattr(model, "classifier") and not model._uses_pooler:
        _reorder(model.classifier, None, s)
    elif hasattr(model, "cls"):
        head, table = model.cls.predictions, model.base_model.embeddings.word_embeddings
        # Where the decoder is the table of embeddings, what it reads has the table's order
        tied = head.decoder.weight is table.weight and model.base_model.embeddings.projection is None
        _reorder(head.transform.dense, s if tied else None, s)
        if tied:
            _reorder_norm(head.transform.LayerNorm, s)


def _energy(matrix: GroupedLinear, variance: Tensor) -> np.ndarray:
    """Share of the outputs' energy that each input gives each output, (C_out, C_in); sums to 1."""
    energy = cast(Tensor, matrix.weight)[..., 0].detach().double().pow(2) * variance
    return np.asarray((energy / energy.sum()).numpy())


def _assign(scores_NG: np.ndarray) -> np.ndarray:
    """Assign N things to G groups of equal size with the largest sum of scores; returns group numbers (N,)."""
    count, groups = scores_NG.shape
    _, seats = linear_sum_assignment(np.repeat(scores_NG, count // groups, axis=1), maximize=True)
    return np.asarray(seats // (count // groups))


def _order(groups: np.ndarray) -> Tensor:
    return torch.from_numpy(np.argsort(groups, kind="stable"))


def _reorder(matrix: Any, rows: Tensor | None, columns: Tensor | None) -> None:
    if rows is not None:
        matrix.weight.copy_(matrix.weight[rows])
        matrix.bias.copy_(matrix.bias[rows])
    if columns is not None:
        matrix.weight.copy_(matrix.weight[:, columns])


def _reorder_norm(norm: torch.nn.LayerNorm, s: Tensor) -> None:
    norm.weight.copy_(norm.weight[s])
    norm.bias.copy_(norm.bias[s])
