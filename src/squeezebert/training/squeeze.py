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

import numpy as np
import torch
from torch import Tensor
from transformers.masking_utils import create_bidirectional_mask

from squeezebert.data.batches import tokenise
from squeezebert.data.corpus import Corpus
from squeezebert.data.examples import Example
from squeezebert.model import GroupedLinear, SqueezeBertConfig, SqueezeBertModel, SqueezeBertPreTrainedModel
from squeezebert.model.configuration import GROUP_FIELDS, RANK_FIELDS
from squeezebert.training.fitting import Fitted, Moments, fit, fit_low_rank
from squeezebert.training.narrowing import NARROWED, narrow, narrows_model, rank_units
from squeezebert.training.regroup import align
from squeezebert.training.shapes import describe_shape

Model = TypeVar("Model", bound=SqueezeBertPreTrainedModel)
Shape = Mapping[str, Any]
Fitter = Callable[[Sequence[Moments], Sequence[Tensor], Sequence[GroupedLinear], float, Any], float]

SHAPE_FIELDS = (*GROUP_FIELDS, *RANK_FIELDS, "shared_qkv_rank", *NARROWED, "intermediate_act")
_TEXTS = 64  # in a batch of calibration text
# Share of an input's mean variance by which a fit is drawn towards the dense model's own weights
RIDGE = 1e-2
# The same towards a squeezed relative's weights, which know more than a task's text does
REFIT_RIDGE = 3e-2
# Mean cosine of the words' vectors in two models, one of which was made from the other: finetuning moves them little
_RELATED = 0.5


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
    unknown = set(shape) - set(SHAPE_FIELDS)
    if unknown:
        raise ValueError(f"not a part of a shape: {', '.join(sorted(unknown))}")
    if narrows_model(config, shape):
        raise ValueError("this shape keeps fewer heads or inner channels than the model has: narrow the model first")
    for name, value in shape.items():
        if name not in NARROWED:
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
    where they share a factor. Heads and inner channels that a shape does not keep are those of the smallest weights.
    Raises what `new_student` raises, and `ValueError` for a shape that keeps more than there is.
    """
    if narrows_model(model.config, shape):
        model = narrow(model, shape, rank_units(model))
    student = new_student(model, shape)
    for old, new in zip(_blocks(model), _blocks(student), strict=True):
        shared = new.attention is not None and new.attention.down is not None
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
    correct what squeezed ones before them lost. Heads and inner channels that the shape does not keep are those that
    the others can make up for best (`narrowing.py`), and the fits do. Fits are drawn towards the dense model's weights
    by `ridge`, or towards those of `prior`: a squeezed relative of the model, whose LayerNorms are taken too. Without
    `corrects`, each matrix is fitted on the dense model's own inputs instead of the squeezed one's. `fitter` writes
    the weights of matrices that read one input, from their moments, priors and the ridge, and returns their error:
    `fit_shapes` by default.
    Raises what `slice_blocks` raises, and `ValueError` without text.
    """
    narrowed = narrow(model, shape, rank_units(model, batches)) if narrows_model(model.config, shape) else model
    student = new_student(narrowed, shape)
    student.train(False)
    narrowed.train(False)
    relatives = _blocks(narrowed if prior is None else prior)
    if prior is not None:
        norms = {name: value for name, value in prior.base_model.state_dict().items() if ".layernorm." in name}
        student.base_model.load_state_dict(norms, strict=False)
    training = model.training
    model.train(False)
    try:
        calibration = Calibration.of(cast(SqueezeBertModel, model.base_model), batches, fitter or fit_shapes, corrects)
        blocks = zip(_blocks(model), _blocks(narrowed), _blocks(student), relatives, strict=True)
        for layer, (old, cut, new, near) in enumerate(blocks):
            for error in calibration.fit_block(old, cut, new, near, layer, ridge):
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
    for start in range(0, len(rows), _TEXTS):
        padded = tokenizer.pad(rows[start : start + _TEXTS], return_tensors="pt", verbose=False)
        batches.append((padded["input_ids"], padded["attention_mask"], padded["token_type_ids"]))
    return batches


def calibration_batches(
    corpus: Corpus, tokens: int, seed: int, of: Sequence[int] | np.ndarray | None = None
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Draw sequences of about `tokens` tokens in all, and return them as batches of ids, masks and types, (B, T).

    `of` are the sequences to draw from, by default all.
    """
    rows = [int(row) for row in (range(len(corpus)) if of is None else of)]
    random.Random(seed).shuffle(rows)
    lengths = corpus.lengths
    count = int(np.searchsorted(np.cumsum(lengths[rows]), tokens)) + 1
    rows = sorted(rows[:count], key=lambda row: int(lengths[row]))
    batches = []
    for start in range(0, len(rows), _TEXTS):
        batch = corpus.batch(rows[start : start + _TEXTS])
        ids, mask, types = (
            torch.from_numpy(np.asarray(batch[name])).long()
            for name in ("input_ids", "attention_mask", "token_type_ids")
        )
        batches.append((ids, mask, types))
    return batches


def shape_of(config: SqueezeBertConfig) -> dict[str, Any]:
    """Return the fields of a configuration that make its shape, sizes left out."""
    shape = {name: getattr(config, name) for name in (*GROUP_FIELDS, *RANK_FIELDS, "shared_qkv_rank")}
    return shape if config.intermediate_act is None else shape | {"intermediate_act": config.intermediate_act}


def refit_obstacle(base: Any, teacher: Any) -> str | None:
    """Return why `base` cannot be fitted to `teacher`, or None if it can be.

    It can where it is squeezed and the teacher is a dense model of its sizes and words, as the one that it was made
    from.
    """
    if not (isinstance(base, SqueezeBertPreTrainedModel) and isinstance(teacher, SqueezeBertPreTrainedModel)):
        return "one of them is of another architecture"
    mine, theirs = base.config, teacher.config
    if is_dense(mine):
        return "it is dense"
    if not is_dense(theirs):
        return "the teacher is squeezed itself"
    if any(getattr(mine, size) != getattr(theirs, size) for size in NARROWED):
        return "it has fewer heads or inner channels, and which of the teacher's they are is not known"
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "embedding_size", "word_rank")
    for size in sizes:
        if getattr(mine, size) != getattr(theirs, size):
            return f"{size} is {getattr(mine, size)}, and the teacher's {getattr(theirs, size)}"
    models: tuple[Any, Any] = base, align(teacher, base)
    words, taught = (model.base_model.embeddings.word_embeddings.weight.detach() for model in models)
    if torch.nn.functional.cosine_similarity(words, taught).mean() < _RELATED:
        return "its words are not the teacher's: it was squeezed from another model, or trained by itself"
    return None


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

    def fit_block(self, old: Any, cut: Any, new: Any, near: Any, layer: int, ridge: float) -> Iterable[MatrixError]:
        """Fit one block's matrices in the order of computation; afterwards both models' states are its outputs.

        `old` is the dense model's block, `cut` the same with the heads and inner channels that are kept, and `near`
        the block towards whose weights the fits are drawn.
        """
        if new.attention is not None:
            yield from self._fit_attention(old, cut, new, near, layer, ridge)
        else:
            for i, mask in enumerate(self.masks):
                self._hand_on(i, old.post_attention(old.attention(self.taught[i], mask)[0], self.taught[i]))
        if new.intermediate is not None:
            yield from self._fit_feed_forward(old, cut, new, near, layer, ridge)
        else:
            for i, taught in enumerate(self.taught):
                self._hand_on(i, old.output(old.intermediate(taught), taught))

    def _hand_on(self, i: int, taught_BTC: Tensor) -> None:
        """Note the dense model's states after a half that the squeezed model leaves out."""
        self.taught[i] = taught_BTC
        if not self.corrects:
            self.own[i] = taught_BTC

    def _fit_attention(
        self, old: Any, cut: Any, new: Any, near: Any, layer: int, ridge: float
    ) -> Iterable[MatrixError]:
        shared = new.attention if new.attention.down is not None else None
        attention = near.attention
        priors = [m.written_out(attention.down) for m in (attention.query, attention.key, attention.value)]
        sources, targets = _matrices(cut, True)[0], _matrices(new, True)[0]
        moments = [Moments(s.in_features, s.out_features) for s in sources]
        for theirs, mine, text in zip(self.taught, self.own, self.text, strict=True):
            for m, source in zip(moments, sources, strict=True):
                m.add(mine[text], source(theirs[text]))
        yield MatrixError(layer, "qkv", self.fitter(moments, priors, targets, ridge, shared))

        def contexts(i: int) -> tuple[Tensor, Tensor]:
            mask = self.masks[i]
            reader = new if self.corrects else cut
            return old.attention(self.taught[i], mask)[0], reader.attention(self.own[i], mask)[0]

        prior = near.post_attention.conv1d.written_out()
        error = self._fit_half(old.post_attention, new.post_attention, contexts, [prior], ridge)
        yield MatrixError(layer, "post_attention", error)

    def _fit_feed_forward(
        self, old: Any, cut: Any, new: Any, near: Any, layer: int, ridge: float
    ) -> Iterable[MatrixError]:
        source, target = cut.intermediate.conv1d, new.intermediate.conv1d
        moment = Moments(source.in_features, source.out_features)
        for theirs, mine, text in zip(self.taught, self.own, self.text, strict=True):
            moment.add(mine[text], source(theirs[text]))
        yield MatrixError(
            layer,
            "intermediate",
            self.fitter([moment], [near.intermediate.conv1d.written_out()], [target], ridge, None),
        )

        def wide(i: int) -> tuple[Tensor, Tensor]:
            return old.intermediate(self.taught[i]), (new if self.corrects else cut).intermediate(self.own[i])

        prior = near.output.conv1d.written_out()
        yield MatrixError(layer, "output", self._fit_half(old.output, new.output, wide, [prior], ridge))

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
        moment = Moments(new.conv1d.in_features, new.conv1d.out_features)
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
    projections = [] if attention is None else [attention.query, attention.key, attention.value]
    halves = (block.post_attention, block.intermediate, block.output)
    rest = [[half.conv1d] for half in halves if half is not None]
    return [*([projections] if shared and projections else [[p] for p in projections]), *rest]


def _diagonal(W: Tensor, groups: int) -> list[Tensor]:
    rows, columns = W.shape[0] // groups, W.shape[1] // groups
    return [W[g * rows : (g + 1) * rows, g * columns : (g + 1) * columns] for g in range(groups)]


def parameters(model: Any) -> int:
    """Return the number of parameters of a model's blocks, the embeddings left out."""
    return sum(p.numel() for p in model.base_model.encoder.parameters())
