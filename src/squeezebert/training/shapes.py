"""The user's wish and a model's sizes in, the shape of every matrix out. Serves `squeezebert squeeze`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from transformers.activations import ACT2FN

from squeezebert.files.errors import OptionError
from squeezebert.model.configuration import GROUP_FIELDS, QKV_RANKS, RANK_FIELDS, SqueezeBertConfig
from squeezebert.training.narrowing import NARROWED, narrows_model
from squeezebert.training.options import ShapeOptions

_SQUEEZED = tuple(field for field in GROUP_FIELDS if field != "post_attention_groups")
# Ranks of the shape that is chosen where none is asked for, as shares of the width: query, key and value together,
# the widening and the narrowing half of the feed-forward network
BEST_RANKS = (1 / 4, 7 / 24, 1 / 6)
# Widths of products are kept multiples of this: engines compute whole vectors
_STEP = 8
_GROUPS_BESIDE_RANK = 4
BEST_REASON = (
    "no shape asked for: low-rank factors without blocks, as fast as groups = 4 and the nearest to their teachers of "
    "the shapes that were distilled on seven GLUE tasks (docs/squeeze.md); --groups 4 is the paper's"
)


def paper_shape(groups: int, rank: int = 0) -> dict[str, Any]:
    """Return `groups` for all matrices but the attention's output projection, with remainders of `rank`."""
    shape: dict[str, Any] = dict.fromkeys(_SQUEEZED, groups)
    if rank:
        shape |= dict.fromkeys(QKV_RANKS, rank * 3 // 2) | {"intermediate_rank": rank, "output_rank": rank}
        shape["shared_qkv_rank"] = True
    return shape


def best_shape(hidden_size: int, intermediate_size: int) -> dict[str, Any]:
    """Return the shape that is taken where none is asked for, scaled to a model's widths."""
    # Above these, the factors would have as many weights as the dense matrix
    breaks_even = hidden_size * intermediate_size / (hidden_size + intermediate_size)
    most = (3 * hidden_size / 4, breaks_even, breaks_even)
    qkv, up, down = (_rank(hidden_size * share, limit) for share, limit in zip(BEST_RANKS, most, strict=True))
    ranks = dict.fromkeys(QKV_RANKS, qkv) | {"intermediate_rank": up, "output_rank": down}
    return dict.fromkeys(_SQUEEZED, 0) | ranks | {"shared_qkv_rank": True}


def _rank(wanted: float, limit: float) -> int:
    """The multiple of `_STEP` next to `wanted`, or for narrow matrices a number well below `limit`."""
    stepped = max(_STEP, round(wanted / _STEP) * _STEP)
    return stepped if stepped <= limit * 3 / 4 else max(1, int(limit / 2))


def choose_shape(options: ShapeOptions, hidden_size: int, intermediate_size: int) -> tuple[dict[str, Any], str]:
    """Return the fields of `SqueezeBertConfig` that make the shape, and one sentence on why it is this one.

    Raises `OptionError` for a shape file that cannot be read or names something else.
    """
    if options.shape is not None:
        return _read(Path(options.shape)), f"the shape of {options.shape}"
    if options.groups is None and not options.rank:
        return best_shape(hidden_size, intermediate_size), BEST_REASON
    groups = _GROUPS_BESIDE_RANK if options.groups is None else options.groups
    rank = options.rank or 0
    blocks = f"{groups} groups" if groups else "no blocks"
    return paper_shape(groups, rank), f"{blocks}{f' and rank {rank}' if rank else ''}, as asked for"


def check_shape(config: SqueezeBertConfig, shape: dict[str, Any], options: ShapeOptions) -> str | None:
    """Check that a shape fits a dense model's sizes; return a sentence if it does not make the model smaller.

    Raises `OptionError` that names the option as it was typed, and what would fit.
    """
    widths = config.hidden_size, max(config.width(layer) for layer in range(config.num_hidden_layers))
    sizes = f"hidden_size {widths[0]} and intermediate_size {widths[1]}"
    fits = [groups for groups in range(1, min(widths) + 1) if not any(width % groups for width in widths)]
    groups = options.groups if options.groups is not None or not options.rank else _GROUPS_BESIDE_RANK
    if options.shape is None and groups and groups not in fits:
        raise OptionError(
            f"--groups {groups}: does not divide this model's {sizes}; what does: {', '.join(map(str, fits))}"
        )
    if options.shape is None and options.rank and options.rank * 3 // 2 > min(widths):
        raise OptionError(
            f"--rank {options.rank}: query, key and value share one of {options.rank * 3 // 2}, and no matrix of this "
            f"model has more than {min(widths)}; at most --rank {(2 * min(widths) + 1) // 3}"
        )
    told = "this model" if options.shape is None else f"--shape {options.shape}"
    squeezed = SqueezeBertConfig.from_dict({**config.to_dict(), **shape, "model_type": SqueezeBertConfig.model_type})
    layers = range(config.num_hidden_layers)
    try:
        squeezed.check_sizes()
        narrowed = narrows_model(config, shape)
    except ValueError as error:
        way_out = f" (groups that divide {sizes}: {', '.join(map(str, fits))})" if "groups" in str(error) else ""
        raise OptionError(f"{told}: {error}{way_out}") from error
    if not any(squeezed.attention_width(layer) or squeezed.width(layer) for layer in layers):
        raise OptionError(f"{told}: it leaves out both halves of every layer, and nothing would read the text")
    asked = told if options.shape is not None else f"--groups {options.groups}"
    for field, rank_field in zip(GROUP_FIELDS, RANK_FIELDS, strict=True):
        if any(squeezed.groups(field, layer) == 1 and squeezed.rank(rank_field, layer) for layer in layers):
            raise OptionError(
                f"{asked}: {rank_field} above 0 beside {field} 1, a dense matrix, which needs no remainder; groups 0 "
                "is low rank alone, and 2 or more are blocks with a remainder"
            )
    if not narrowed and all(squeezed.groups(field, layer) == 1 for field in GROUP_FIELDS for layer in layers):
        raise OptionError(f"{asked}: every matrix stays dense, so nothing is squeezed; ask for other groups than 1")
    before, after = count_weights(config), count_weights(squeezed)
    if after >= before:
        return f"{told}: in this shape the blocks have {after} weights, the dense ones {before}; lower the ranks"
    return None


def count_weights(config: SqueezeBertConfig) -> int:
    """Return how many weights the matrices of all blocks have, biases left out."""
    C = config.hidden_size
    total = 0
    for layer in range(config.num_hidden_layers):
        A, F = config.attention_width(layer), config.width(layer)
        sizes = [(C, A)] * 3 + [(A, C), (C, F), (F, C)]
        for (inputs, outputs), field, rank_field in zip(sizes, GROUP_FIELDS, RANK_FIELDS, strict=True):
            groups, rank = config.groups(field, layer), config.rank(rank_field, layer)
            if not inputs or not outputs:  # left out
                continue
            shared = config.shared_qkv_rank and rank_field in QKV_RANKS[1:]  # counted with the query's
            total += (inputs * outputs // groups if groups else 0) + rank * (outputs + (0 if shared else inputs))
    return total


def describe_shape(shape: dict[str, Any]) -> str:
    """Return a shape as one line: what is not at its default of a dense matrix."""
    fields = (*GROUP_FIELDS, *RANK_FIELDS, *NARROWED, "intermediate_act")
    told = [f"{name} {shape[name]}" for name in fields if shape.get(name, 1) not in (1, None)]
    return ", ".join(part for part in told if not part.endswith("_rank 0"))


def _read(path: Path) -> dict[str, Any]:
    known = {*GROUP_FIELDS, *RANK_FIELDS, *NARROWED}
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise OptionError(f"--shape {path}: cannot be read ({str(error).splitlines()[0]})") from error
    if not isinstance(told, dict) or not told:
        raise OptionError(f"--shape {path}: expected lines like 'q_groups: 4' or 'q_groups: [4, 4, 2]'")
    for name, value in told.items():
        if name == "shared_qkv_rank":
            if not isinstance(value, bool):
                raise OptionError(f"--shape {path}: {name}: {value}: expected true or false")
            continue
        if name == "intermediate_act":
            for act in value if isinstance(value, list) else [value]:
                if not isinstance(act, str) or act not in ACT2FN:
                    raise OptionError(
                        f"--shape {path}: {name}: {act}: expected gelu, relu or another of transformers'"
                    )
            continue
        if name not in known:
            named = ", ".join(sorted([*known, "shared_qkv_rank", "intermediate_act"]))
            raise OptionError(f"--shape {path}: {name} is none of {named}")
        numbers = value if isinstance(value, list) else [value]
        if not numbers or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in numbers):
            raise OptionError(f"--shape {path}: {name}: {value}: expected a whole number or a list of them")
    return told
