"""What a search chooses between: the shape of every matrix, heads, widths and activations of every layer.

A point of the space is a shape as `squeeze` takes it, fields of `SqueezeBertConfig` with one value a layer: it trains,
exports and runs like any other model. Serves everything in this room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from squeezebert.files.errors import OptionError
from squeezebert.model.configuration import GROUP_FIELDS, QKV_RANKS, RANK_FIELDS, SqueezeBertConfig

Shape = dict[str, Any]
# 1 is a matrix without blocks: dense, or, where it has a rank, low rank alone (which shapes call groups = 0)
GROUPS = (1, 2, 4, 8)
# Ranks, widths and heads as shares of what the dense model has
RANKS = (0, 1 / 12, 1 / 8, 1 / 6, 1 / 4, 3 / 8)
WIDTHS = (1, 3 / 4, 1 / 2, 1 / 4, 0)
HEADS = (1, 2 / 3, 1 / 3, 0)
_QKV_GROUPS = GROUP_FIELDS[:3]
_ATTENTION = ("kept_heads", *_QKV_GROUPS, "q_rank", "post_attention_groups", "post_attention_rank")
_FEED_FORWARD = (
    *("intermediate_size", "intermediate_act", "intermediate_groups", "intermediate_rank"),
    *("output_groups", "output_rank"),
)
# Engines compute whole vectors
_STEP = 8


@dataclass(frozen=True)
class Space:
    """The choices of every layer of one dense model."""

    layers: int
    """How many layers it has."""
    hidden_size: int
    """Channels of its hidden states."""
    head_size: int
    """Channels of a head."""
    choices: Mapping[str, tuple[Any, ...]]
    """Field of a shape -> what it can be in a layer, what the dense model has first. Query, key and value have one
    rank, `q_rank`."""

    @classmethod
    def of(cls, config: SqueezeBertConfig) -> Space:
        """The whole space of a dense model's sizes. Raises `OptionError` for a model that is narrowed already."""
        C, heads, layers = config.hidden_size, config.num_attention_heads, range(config.num_hidden_layers)
        _check_full("kept_heads", [config.heads(i) for i in layers], heads)
        width, act = config.width(0), config.activation(0)
        _check_full("intermediate_size", [config.width(i) for i in layers], width or "more than 0")
        _check_full("intermediate_act", [config.activation(i) for i in layers], act)
        # Groups keep whole heads each: 4 of them can, or 2, where the number of heads is a multiple
        unit = next((unit for unit in (4, 2) if heads % unit == 0 and unit < heads), 1)
        choices: dict[str, tuple[Any, ...]] = {
            "kept_heads": _shares(heads, HEADS, unit, least=unit),
            "intermediate_size": _shares(width, WIDTHS, _STEP),
            "intermediate_act": tuple(dict.fromkeys((act, "relu"))),
            "q_rank": _shares(C, RANKS, _STEP),
        }
        for groups, rank in zip(GROUP_FIELDS, RANK_FIELDS, strict=True):
            choices[groups] = tuple(g for g in GROUPS if C % g == 0 and width % g == 0)
            if rank not in QKV_RANKS:
                choices[rank] = choices["q_rank"]
        return cls(config.num_hidden_layers, C, C // heads, choices)

    @property
    def dense(self) -> Shape:
        """The dense model, the slowest point but for detours."""
        return self._shape([{field: values[0] for field, values in self.choices.items()}] * self.layers)

    @property
    def empty(self) -> Shape:
        """Embeddings and nothing else, the fastest point."""
        return self.repaired({**self.dense, "kept_heads": [0] * self.layers, "intermediate_size": [0] * self.layers})

    def random(self, generator: np.random.Generator) -> Shape:
        """A random point. Each draws from some of the choices, so that points differ by more than their layers do."""
        allowed = {}
        for field, values in self.choices.items():
            count = int(generator.integers(1, len(values) + 1))
            allowed[field] = [values[i] for i in generator.permutation(len(values))[:count]]
        return self._shape(
            [{f: vs[generator.integers(len(vs))] for f, vs in allowed.items()} for _ in range(self.layers)]
        )

    def mutated(self, shape: Shape, generator: np.random.Generator, rate: float = 0.05) -> Shape:
        """A point near another: each choice of each layer is drawn anew with probability `rate`, at least one."""
        layers = self._layers(shape)
        hits = generator.random((self.layers, len(self.choices))) < rate
        if not hits.any():
            hits[generator.integers(self.layers), generator.integers(len(self.choices))] = True
        for layer, row in zip(layers, hits, strict=True):
            for (field, values), hit in zip(self.choices.items(), row, strict=True):
                if hit:
                    layer[field] = values[generator.integers(len(values))]
        return self._shape(layers)

    def crossed(self, mother: Shape, father: Shape, generator: np.random.Generator) -> Shape:
        """A point whose halves of layers come from two others."""
        made = []
        for a, b in zip(self._layers(mother), self._layers(father), strict=True):
            halves = [(half, (a, b)[generator.integers(2)]) for half in (_ATTENTION, _FEED_FORWARD)]
            made.append({field: parent[field] for half, parent in halves for field in half})
        return self._shape(made)

    def repaired(self, shape: Shape) -> Shape:
        """The nearest point that can be built: what makes no sense together is made to fit."""
        return self._shape(self._layers(shape))

    def _layers(self, shape: Shape) -> list[dict[str, Any]]:
        """A shape as one dictionary a layer."""

        def at(field: str, layer: int) -> Any:
            value = shape.get(field, self.choices[field][0])
            value = value[layer] if isinstance(value, (list, tuple)) else value
            return value or 1 if field in GROUP_FIELDS else value

        return [{field: at(field, layer) for field in self.choices} for layer in range(self.layers)]

    def _shape(self, layers: list[dict[str, Any]]) -> Shape:
        fitted = [self.fit(layer) for layer in layers]
        shape: Shape = {field: [layer[field] for layer in fitted] for field in self.choices}
        return shape | {"k_rank": shape["q_rank"], "v_rank": shape["q_rank"], "shared_qkv_rank": True}

    def fit(self, layer: Mapping[str, Any]) -> dict[str, Any]:
        """Return one layer's choices made to fit together, changed as little as can be."""
        layer = dict(layer)
        C, A, F = self.hidden_size, layer["kept_heads"] * self.head_size, layer["intermediate_size"]
        for width, (own, *others) in ((A, _ATTENTION), (F, _FEED_FORWARD)):
            if not width:  # left out, and there is one way to say so
                layer |= {field: self.choices[field][0] for field in others} | {own: 0}
        # Of each matrix: width, multiply-adds of one rank, and whose units it is made of
        matrices = [
            ("q_rank", _QKV_GROUPS, A, C / 3 + A, "kept_heads"),
            ("post_attention_rank", ("post_attention_groups",), A, C + A, "kept_heads"),
            ("intermediate_rank", ("intermediate_groups",), F, C + F, "intermediate_size"),
            ("output_rank", ("output_groups",), F, C + F, "intermediate_size"),
        ]
        for rank, groups, width, each, of in matrices:
            if not width:
                continue
            # Groups stay what they were when heads or channels go: each keeps as many of its own
            units, whole = layer[of], self.choices[of][0]
            fits = [r for r in self.choices[rank] if r <= min(C, width) and r * each < C * width]
            layer[rank] = max(r for r in fits if r <= layer[rank])
            for field in groups:
                fit = [g for g in self.choices[field] if 0 < g <= layer[field] and C % g == 0 and width % g == 0]
                layer[field] = max(g for g in fit if units == whole or units % g == whole % g == 0)
                if layer[rank] and layer[field] == 1:
                    layer[field] = 0
        return layer

    def config(self, shape: Shape, base: SqueezeBertConfig, **changes: Any) -> SqueezeBertConfig:
        """The configuration of a point: that of `base` in its shape. Raises `ValueError` for one that cannot be."""
        told = {**base.to_dict(), **shape, **changes, "model_type": SqueezeBertConfig.model_type}
        config: SqueezeBertConfig = SqueezeBertConfig.from_dict(told)
        config.check_sizes()
        return config

    def uniform(self, **fields: Any) -> Shape:
        """A point whose layers are all alike: the dense one with some fields changed."""
        return self.repaired({**self.dense, **{name: [value] * self.layers for name, value in fields.items()}})


def _shares(whole: int, shares: Sequence[float], unit: int, least: int = 0) -> tuple[int, ...]:
    """The shares of a number in multiples of a unit, all but the number itself; none but 0 is below `least`."""
    found = (
        whole if share == 1 else max(round(whole * share / unit) * unit, least if share else 0) for share in shares
    )
    return tuple(dict.fromkeys(found))


def _check_full(field: str, values: Sequence[Any], full: Any) -> None:
    if any(value != full for value in values):
        raise OptionError(
            f"{field} = {list(values)}, expected {full} in every layer: this model is narrowed already, and what is "
            "gone cannot be chosen: search from the model that it was made from"
        )
