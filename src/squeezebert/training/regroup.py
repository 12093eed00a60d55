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
# Rounds of the search at the most, and the relative gain below which it ends. On MiniLM-L6 with 4 groups the third
# round is within 0.2 % of the last, and another random start ends level
ROUNDS, GAIN = 10, 2e-3


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
def watch_inputs(
    model: SqueezeBertPreTrainedModel,
    layers: Sequence[GroupedLinear],
    batches: Sequence[tuple[Tensor, Tensor, Tensor]],
    note: Callable[[GroupedLinear, Tensor], None],
) -> None:
    """Run a dense model over text, and hand what each of `layers` reads, padding left out, to `note`: (N, C_in)."""
    text: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda module, arguments, output: note(module, arguments[0][text[-1]]))
        for layer in layers
    ]
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


def input_variances(model: SqueezeBertPreTrainedModel, batches: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Any:
    """Return for each dense matrix the variance of its inputs, (C_in,), over the text of `batches`."""
    sums: dict[GroupedLinear, list[Tensor]] = {}

    def note(layer: GroupedLinear, x_NC: Tensor) -> None:
        x = x_NC.double()
        new = [torch.tensor(float(len(x))), x.sum(0), x.pow(2).sum(0)]
        sums[layer] = [a + b for a, b in zip(sums[layer], new, strict=True)] if layer in sums else new

    watch_inputs(model, [m for m in model.modules() if isinstance(m, GroupedLinear)], batches, note)
    return {layer: (square / n - (total / n) ** 2).clamp_min(0) for layer, (n, total, square) in sums.items()}


def find_orders(
    model: SqueezeBertPreTrainedModel,
    groups: int,
    variances: Any,
    seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
) -> Orders:
    """Search orders for `groups` equal groups in attention and feed-forward network; `report` hears of progress."""
    heads = model.config.num_attention_heads
    whole_heads = heads % groups == 0
    energies = block_energies(model, variances)
    matrices: list[tuple[np.ndarray, str, str]] = []
    for layer, (to_heads, to_inner, from_inner) in enumerate(energies):
        if whole_heads:
            matrices.append((to_heads, f"heads {layer}", "stream"))
        matrices += [(to_inner, f"inner {layer}", "stream"), (from_inner, "stream", f"inner {layer}")]
    found, energy = assign_groups(matrices, "stream", groups, seed, report)
    kept = [_order(found[f"heads {layer}"]) if whole_heads else torch.arange(heads) for layer in range(len(energies))]
    inner = [_order(found[f"inner {layer}"]) for layer in range(len(energies))]
    return Orders(_order(found["stream"]), kept, inner, energy)


def block_energies(
    model: SqueezeBertPreTrainedModel, variances: Any
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return each block's shares of energy: of its heads (H, C), of FFN2 (inner, C) and of FFN3 (C, inner).

    Each matrix weighs as much as its outputs vary in all, so that none drowns another.
    """
    heads, C = model.config.num_attention_heads, model.config.hidden_size
    found = []
    for block in cast(Any, model.base_model).encoder.layers:
        attention, up, down = block.attention, block.intermediate.conv1d, block.output.conv1d
        parts = [_energy(m, variances[attention.query]) for m in (attention.query, attention.key, attention.value)]
        to_heads = sum(part.reshape(heads, -1, C).sum(1) for part in parts)
        found.append((to_heads, _energy(up, variances[up]), _energy(down, variances[down])))
    return found


def assign_groups(
    matrices: Sequence[tuple[np.ndarray, str, str]],
    last: str,
    groups: int,
    seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, np.ndarray], float]:
    """Search the groups of named sets of channels that keep most energy in the diagonal blocks of `matrices`.

    `matrices` are energies (C_out, C_in) with the names of the sets that their rows and columns are; sets of one name
    have one grouping. Each set is assigned in turn, exactly as well as the others allow (a balanced assignment), the
    set `last` after all others, from a random start. Returns group numbers by name, and the share of energy
    that the blocks keep.
    """
    said = began = time.monotonic()
    sizes = {name: size for e, *names in matrices for name, size in zip(names, e.shape, strict=True)}
    random = np.random.default_rng(seed)
    onto = np.eye(groups)
    sets = {name: random.permutation(np.arange(size) % groups) for name, size in sorted(sizes.items())}
    total, kept = sum(float(e.sum()) for e, *_ in matrices), 0.0
    for round_ in range(ROUNDS):
        for name in sorted(sizes, key=lambda name: name == last):
            scores = np.zeros((sizes[name], groups))
            for e, rows, columns in matrices:
                if rows == name:
                    scores += e @ onto[sets[columns]]
                if columns == name:
                    scores += e.T @ onto[sets[rows]]
            sets[name] = assign_evenly(scores)
        now = sum(float(((e @ onto[sets[c]]) * onto[sets[r]]).sum()) for e, r, c in matrices) / total
        ended = time.monotonic()
        if ended - said > 10:
            said, left = ended, (ended - began) / (round_ + 1) * (ROUNDS - round_ - 1)
            report(f"order of channels: round {round_ + 1}, {now:.1%} in blocks, at most {left:.0f} s left")
        if now <= kept * (1 + GAIN):
            break
        kept = now
    return sets, now


@torch.no_grad()
def reorder(model: Model, orders: Orders) -> Model:
    """Return a copy of a dense model with its channels in `orders`; its answers are the same."""
    new = copy.deepcopy(model)
    C = new.config.hidden_size
    s = orders.stream
    before = new.config.channel_order or list(range(C))
    after = [before[channel] for channel in s.tolist()]
    new.config.channel_order = None if after == sorted(after) else after
    encoder = cast(Any, new.base_model)
    embeddings = encoder.embeddings
    if embeddings.projection is None:
        tables = [embeddings.position_embeddings, embeddings.token_type_embeddings]
        if embeddings.word_projection is None:
            tables.append(embeddings.word_embeddings)
        else:
            embeddings.word_projection.weight.copy_(embeddings.word_projection.weight[s])
        for table in tables:
            table.weight.copy_(table.weight[:, s])
        _reorder_norm(embeddings.LayerNorm, s)
    else:
        _reorder(embeddings.projection, s, None)
    for block, heads, inner in zip(encoder.encoder.layers, orders.heads, orders.inner, strict=True):
        if block.attention is not None:
            attention = block.attention
            rows = torch.arange(attention.heads * attention.head_size).view(attention.heads, -1)[heads].flatten()
            for matrix in (attention.query, attention.key, attention.value):
                _reorder(matrix, rows, s)
            _reorder(block.post_attention.conv1d, s, rows)
            _reorder_norm(block.post_attention.layernorm, s)
        if block.intermediate is not None:
            _reorder(block.intermediate.conv1d, inner, s)
            _reorder(block.output.conv1d, s, inner)
            _reorder_norm(block.output.layernorm, s)
    encoder.pooler.dense.weight.copy_(encoder.pooler.dense.weight[:, s])
    _reorder_head(new, s)
    return new


def align(teacher: Any, student: SqueezeBertPreTrainedModel) -> Any:
    """Return the teacher with its channels in the student's order, so that their hidden states can be compared.

    Raises `ValueError` for a teacher of other classes than ours, whose channels cannot be reordered.
    """
    stream = stream_order(teacher, student)
    if stream is None:
        return teacher
    if not isinstance(teacher, SqueezeBertPreTrainedModel):
        raise ValueError(
            f"the student's channels are in another order than those of this {type(teacher).__name__}: "
            "load the teacher with squeezebert's classes"
        )
    config, layers = teacher.config, range(teacher.config.num_hidden_layers)
    heads, inner = ([torch.arange(count(i)) for i in layers] for count in (config.heads, config.width))
    return reorder(teacher, Orders(stream, heads, inner, 0.0))


def stream_order(teacher: Any, student: SqueezeBertPreTrainedModel) -> Tensor | None:
    """Return which of the teacher's channels each of the student's is, (C,); None where they are in one order."""
    wanted, here = (getattr(model.config, "channel_order", None) for model in (student, teacher))
    C = student.config.hidden_size
    if wanted == here or teacher.config.hidden_size != C:
        return None
    place = {channel: i for i, channel in enumerate(here or range(C))}
    return torch.tensor([place[channel] for channel in wanted or range(C)])


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


def assign_evenly(scores_NG: np.ndarray) -> np.ndarray:
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
