"""A dense model in, the same model in cheaper shapes out: the start of a student. Serves `squeezebert squeeze`.

Two ways: `slice_blocks` keeps what lies on the diagonal and needs no text; `convert` fits each matrix to what the
dense model computes on calibration text, layer after layer, on the inputs that the squeezed model itself makes, so
that a later matrix corrects the errors of earlier ones.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from transformers.masking_utils import create_bidirectional_mask

from squeezebert.data.batches import tokenise
from squeezebert.data.examples import Example
from squeezebert.model import GroupedLinear, SqueezeBertConfig, SqueezeBertModel, SqueezeBertPreTrainedModel
from squeezebert.model.configuration import GROUP_FIELDS, RANK_FIELDS
from squeezebert.training.fitting import Fitted, Moments, fit, fit_low_rank
from squeezebert.training.regroup import align
from squeezebert.training.shapes import describe_shape

Model = TypeVar("Model", bound=SqueezeBertPreTrainedModel)
Shape = Mapping[str, Any]
Fitter = Callable[[Sequence[Moments], Sequence[Tensor], Sequence[GroupedLinear], float, Any], float]

# Share of an input's mean variance by which a fit is drawn towards the dense model's own weights
RIDGE = 1e-2
# The same towards a squeezed relative's weights, which know more than a task's text does
REFIT_RIDGE = 3e-2


@dataclass(frozen=True)
class MatrixError:
    """How well one fit of a conversion went."""

    layer: int
    """Block, from 0."""
    matrix: str
    """qkv, post_attention, intermediate or output."""
    error: float
    """Squared error of its outputs against the dense model's, relative to their variance."""


def new_student(model: Model, shape: Shape) -> Model:
    """Return an untrained model of `shape` (fields of `SqueezeBertConfig`) with all else of a dense model copied.

    Raises `ValueError` for a model that is squeezed already, and for a shape that does not fit its sizes.
    """
    config = copy.deepcopy(model.config)
    if not is_dense(config):
        raise ValueError(f"this model is squeezed already ({describe_shape(shape_of(config))}): squeeze a dense one")
    unknown = set(shape) - {*GROUP_FIELDS, *RANK_FIELDS, "shared_qkv_rank"}
    if unknown:
        raise ValueError(f"not a part of a shape: {', '.join(sorted(unknown))}")
    for name, value in shape.items():
        setattr(config, name, value)
    student = type(model)(config)
    reshaped = {name for name, module in student.named_modules() if isinstance(module, GroupedLinear)}
    kept = {name: value for name, value in model.state_dict().items() if name.removesuffix(".weight") not in reshaped}
    student.load_state_dict(kept, strict=False)
    torch.nn.Module.to(student, dtype=model.dtype)
    student.train(model.training)
    return student


def squeeze(
    model: Model, shape: Shape, batches: Sequence[tuple[Tensor, Tensor, Tensor]] | None = None, **options: Any
) -> Model:
    """Return a copy of a dense model in `shape`: by `convert` where there is calibration text, else `slice_blocks`."""
    return slice_blocks(model, shape) if batches is None else convert(model, shape, batches, **options)


@torch.no_grad()
def slice_blocks(model: Model, shape: Shape) -> Model:
    """Return a copy of a dense model in `shape`, of its weights alone: blocks are cut out, remainders are an SVD.

    The remainder of a matrix is the best approximation of what its blocks leave out, of query, key and value together
    where they share a factor. Raises what `new_student` raises.
    """
    student = new_student(model, shape)
    for old, new in zip(_blocks(model), _blocks(student), strict=True):
        shared = new.attention.down is not None
        for sources, targets in zip(_matrices(old, shared), _matrices(new, shared), strict=True):
            left = []
            for source, target in zip(sources, targets, strict=True):
                W = cast(Tensor, source.weight)[..., 0].detach().double()
                kept = torch.zeros_like(W)
                if target.weight is not None:
                    kept = torch.block_diag(*_diagonal(W, target.groups))
                    target.weight.copy_(torch.cat(_diagonal(W, target.groups)).unsqueeze(-1))
                left.append(W - kept)
            rank = targets[0].rank
            if rank:
                W = torch.cat(left)
                up, down = fit_low_rank(W, torch.eye(W.shape[1], dtype=W.dtype), rank)
                cast(Any, new.attention if shared and len(targets) > 1 else targets[0]).down.copy_(down)
                for target, part in zip(targets, up.split([len(w) for w in left]), strict=True):
                    cast(Tensor, target.up).copy_(part)
    return student


@torch.no_grad()
def convert(
    model: Model,
    shape: Shape,
    batches: Sequence[tuple[Tensor, Tensor, Tensor]],
    *,
    ridge: float = RIDGE,
    prior: SqueezeBertPreTrainedModel | None = None,
    corrects: bool = True,
    fitter: Fitter | None = None,
    report: Callable[[MatrixError], None] = lambda error: None,
) -> Model:
    """Return a copy of a dense model in `shape` whose matrices are fitted to what the model computes on `batches`.

    `batches` are token ids, attention masks and token types, (B, T) each. Dense matrices are fitted as well: they
    correct what squeezed ones before them lost. Fits are drawn towards the dense model's weights by `ridge`, or
    towards those of `prior`: a squeezed relative of the model, whose LayerNorms are taken too. Without `corrects`,
    each matrix is fitted on the dense model's own inputs instead of the squeezed one's. `fitter` writes the weights of
    matrices that read one input, from their moments, priors and the ridge, and returns their error: `fit_shapes` by
    default.
    Raises what `new_student` raises, and `ValueError` without text.
    """
    student = new_student(model, shape)
    student.train(False)
    relatives = _blocks(model if prior is None else prior)
    if prior is not None:
        norms = {name: value for name, value in prior.base_model.state_dict().items() if ".layernorm." in name}
        student.base_model.load_state_dict(norms, strict=False)
    training = model.training
    model.train(False)
    try:
        calibration = Calibration.of(cast(SqueezeBertModel, model.base_model), batches, fitter or fit_shapes, corrects)
        for layer, (old, new, near) in enumerate(zip(_blocks(model), _blocks(student), relatives, strict=True)):
            for error in calibration.fit_block(old, new, near, layer, ridge):
                report(error)
    finally:
        model.train(training)
    student.train(training)
    return student


def calibration_texts(
    examples: Sequence[Example], tokenizer: Any, max_length: int, seed: int = 0, texts: int = 2048
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Draw at most `texts` examples and return them as batches of token ids, masks and types, (B, T), for a fit."""
    chosen = random.Random(seed).sample(list(examples), min(texts, len(examples)))
    rows = sorted(tokenise(tokenizer, chosen, max_length).encodings, key=lambda row: len(row["input_ids"]))
    batches = []
    for start in range(0, len(rows), 64):
        padded = tokenizer.pad(rows[start : start + 64], return_tensors="pt", verbose=False)
        batches.append((padded["input_ids"], padded["attention_mask"], padded["token_type_ids"]))
    return batches


def shape_of(config: SqueezeBertConfig) -> dict[str, Any]:
    """Return the fields of a configuration that make its shape."""
    return {name: getattr(config, name) for name in (*GROUP_FIELDS, *RANK_FIELDS, "shared_qkv_rank")}


def can_refit(base: Any, teacher: Any) -> bool:
    """Whether `base` is squeezed and `teacher` is a dense model of its sizes, as the one that it was made from."""
    if not (isinstance(base, SqueezeBertPreTrainedModel) and isinstance(teacher, SqueezeBertPreTrainedModel)):
        return False
    mine, theirs = base.config, teacher.config
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    same = all(getattr(mine, size) == getattr(theirs, size) for size in (*sizes, "embedding_size"))
    return same and is_dense(theirs) and not is_dense(mine)


def is_dense(config: SqueezeBertConfig) -> bool:
    """Whether every matrix is one dense block without a remainder."""
    layers = range(config.num_hidden_layers)
    return all(config.groups(groups, i) == 1 for groups in GROUP_FIELDS for i in layers) and not any(
        config.rank(rank, i) for rank in RANK_FIELDS for i in layers
    )


def refit(
    base: SqueezeBertPreTrainedModel,
    teacher: Model,
    batches: Sequence[tuple[Tensor, Tensor, Tensor]],
    *,
    ridge: float = REFIT_RIDGE,
    report: Callable[[MatrixError], None] = lambda error: None,
) -> Model:
    """Return a student of the teacher's task that starts from a squeezed model, in its shape.

    `teacher` was finetuned from the dense model that `base` was squeezed from. Its embeddings and head are taken over,
    and each matrix of `base` is fitted to it on `batches`, the task's own text, without forgetting what it learned:
    `ridge` draws it towards its own weights. Raises what `convert` and `align` raise.
    """
    aligned: Model = align(teacher, base)
    return convert(aligned, shape_of(base.config), batches, ridge=ridge, prior=base, report=report)


@dataclass
class Calibration:
    """The calibration text on its way through the dense model and through the squeezed one."""

    taught: list[Tensor]
    """States of the dense model, (B, T, C) a batch."""
    own: list[Tensor]
    """States of the squeezed model, likewise."""
    text: list[Tensor]
    """Where there is text and no padding, bool (B, T)."""
    masks: list[Tensor | None]
    """Attention masks as the attention takes them."""
    fitter: Fitter
    """What writes the weights of matrices that read one input, and returns their error."""
    corrects: bool = True
    """Whether the squeezed model's states are its own, so that later matrices correct earlier ones."""

    @classmethod
    def of(
        cls,
        encoder: SqueezeBertModel,
        batches: Iterable[tuple[Tensor, Tensor, Tensor]],
        fitter: Fitter,
        corrects: bool = True,
    ) -> Calibration:
        """Embed the text: up to there both models are the same. Raises `ValueError` when there is none."""
        embeddings = encoder.embeddings
        states, text, masks = [], [], []
        for ids, mask, types in batches:
            states.append(embeddings(ids, types))
            text.append(mask.bool())
            own = create_bidirectional_mask(config=encoder.config, inputs_embeds=states[-1], attention_mask=mask)
            masks.append(cast(Any, own))
        if not any(bool(rows.any()) for rows in text):
            raise ValueError("no text to calibrate on")
        return cls(states, list(states), text, masks, fitter, corrects)

    def fit_block(self, old: Any, new: Any, near: Any, layer: int, ridge: float) -> Iterable[MatrixError]:
        """Fit one block's matrices in the order of computation; afterwards both models' states are its outputs.

        `near` is the block towards whose weights the fits are drawn.
        """
        shared = new.attention if new.attention.down is not None else None
        priors = [[m.written_out(near.attention.down) for m in _matrices(near, True)[0]]]
        priors += [[m.written_out() for m in matrices] for matrices in _matrices(near, True)[1:]]
        sources, targets = _matrices(old, True)[0], _matrices(new, True)[0]
        moments = [Moments(s.in_features, s.out_features) for s in sources]
        for theirs, mine, text in zip(self.taught, self.own, self.text, strict=True):
            for m, source in zip(moments, sources, strict=True):
                m.add(mine[text], source(theirs[text]))
        yield MatrixError(layer, "qkv", self.fitter(moments, priors[0], targets, ridge, shared))

        def contexts(i: int) -> tuple[Tensor, Tensor]:
            mask = self.masks[i]
            reader = new if self.corrects else old
            return old.attention(self.taught[i], mask)[0], reader.attention(self.own[i], mask)[0]

        error = self._fit_half(old.post_attention, new.post_attention, contexts, priors[1], ridge)
        yield MatrixError(layer, "post_attention", error)

        source, target = old.intermediate.conv1d, new.intermediate.conv1d
        moment = Moments(source.in_features, source.out_features)
        for theirs, mine, text in zip(self.taught, self.own, self.text, strict=True):
            moment.add(mine[text], source(theirs[text]))
        yield MatrixError(layer, "intermediate", self.fitter([moment], priors[2], [target], ridge, None))

        def wide(i: int) -> tuple[Tensor, Tensor]:
            return old.intermediate(self.taught[i]), (new if self.corrects else old).intermediate(self.own[i])

        yield MatrixError(layer, "output", self._fit_half(old.output, new.output, wide, priors[3], ridge))

    def _fit_half(
        self,
        old: Any,
        new: Any,
        inputs: Callable[[int], tuple[Tensor, Tensor]],
        priors: Sequence[Tensor],
        ridge: float,
    ) -> float:
        """Fit the matrix before a residual sum so that the sum, not only the matrix, is the dense model's.

        `inputs` makes both models' inputs of one batch; it is called twice, because all of them would fill the memory.
        """
        moment = Moments(old.conv1d.in_features, old.conv1d.out_features)
        for i, text in enumerate(self.text):
            theirs, mine = inputs(i)
            moment.add(mine[text], (old.conv1d(theirs) + self.taught[i] - self.own[i])[text])
        error = self.fitter([moment], priors, [new.conv1d], ridge, None)
        for i in range(len(self.text)):
            theirs, mine = inputs(i)
            self.taught[i] = old(theirs, self.taught[i])
            self.own[i] = new(mine, self.own[i]) if self.corrects else self.taught[i]
        return error


def fit_shapes(
    moments: Sequence[Moments],
    priors: Sequence[Tensor],
    targets: Sequence[GroupedLinear],
    ridge: float,
    shared: Any,
) -> float:
    """Fit `targets`, write their weights and return their error relative to the variance of what is wanted.

    `shared` is the module that holds their common first factor, or None.
    """
    wanted = [m.target(prior, ridge) for m, prior in zip(moments, priors, strict=True)]
    fitted = fit(wanted, [(t.groups, t.rank) for t in targets], shared=shared is not None)
    lost = total = 0.0
    for want, got, target in zip(wanted, fitted, targets, strict=True):
        _write(target, got, want.bias(got.matrix))
        lost += want.error(got.matrix) * float(want.variance.sum())
        total += float(want.variance.sum())
    if shared is not None:
        shared.down.copy_(fitted[0].down)
    return lost / max(total, 1e-12)


def _write(layer: GroupedLinear, fitted: Fitted, bias: Tensor) -> None:
    layer.bias.copy_(bias)
    for parameter, value in ((layer.weight, fitted.blocks), (layer.down, fitted.down), (layer.up, fitted.up)):
        if parameter is not None:
            parameter.copy_(cast(Tensor, value).view(parameter.shape))


def _blocks(model: SqueezeBertPreTrainedModel) -> Sequence[Any]:
    return cast(Sequence[Any], cast(Any, model.base_model).encoder.layers)


def _matrices(block: Any, shared: bool) -> list[list[GroupedLinear]]:
    """The matrices of a block in the order of computation; query, key and value together where `shared`."""
    attention = block.attention
    projections = [attention.query, attention.key, attention.value]
    rest = [[block.post_attention.conv1d], [block.intermediate.conv1d], [block.output.conv1d]]
    return [projections, *rest] if shared else [*([p] for p in projections), *rest]


def _diagonal(W: Tensor, groups: int) -> list[Tensor]:
    rows, columns = W.shape[0] // groups, W.shape[1] // groups
    return [W[g * rows : (g + 1) * rows, g * columns : (g + 1) * columns] for g in range(groups)]
