"""The search space: every point can be built, and points near each other are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from squeezebert.files.errors import OptionError
from squeezebert.model import SqueezeBertConfig, SqueezeBertModel
from squeezebert.model.configuration import GROUP_FIELDS
from squeezebert.search.space import Shape, Space
from squeezebert.training.shapes import paper_shape
from squeezebert.training.squeeze import squeeze

BASE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 12,
    "intermediate_size": 192,
    **dict.fromkeys(GROUP_FIELDS, 1),
}


def base() -> SqueezeBertConfig:
    return SqueezeBertConfig(**BASE)


def space() -> Space:
    return Space.of(base())


def points(count: int, seed: int = 0) -> list[Shape]:
    generator = np.random.default_rng(seed)
    return [space().random(generator) for _ in range(count)]


def test_every_point_is_a_configuration_and_repairing_it_changes_nothing() -> None:
    whole, generator = space(), np.random.default_rng(1)
    found = points(200)
    found += [whole.mutated(point, generator, 0.2) for point in found[:100]]
    found += [whole.crossed(a, b, generator) for a, b in zip(found[:100], found[100:200], strict=True)]
    for point in found:
        config = whole.config(point, base())
        assert whole.repaired(point) == point
        for layer in range(3):
            assert not any(
                config.groups(f"{name}_groups", layer) == 1 and config.rank(f"{name}_rank", layer)
                for name in ("q", "k", "v", "post_attention", "intermediate", "output")
            )


def test_points_are_models_that_run_and_that_squeeze_makes() -> None:
    torch.manual_seed(0)
    dense = SqueezeBertModel(base()).eval()
    ids = torch.randint(1, 50, (2, 7))
    for point in points(12, seed=2):
        student = squeeze(dense, point)
        assert student(ids).last_hidden_state.isfinite().all()
        assert student.config.heads(1) == point["kept_heads"][1]


def test_the_ends_of_the_space() -> None:
    whole = space()
    assert (
        SqueezeBertModel(whole.config(whole.dense, base())).state_dict().keys()
        == SqueezeBertModel(base()).state_dict().keys()
    )
    empty = SqueezeBertModel(whole.config(whole.empty, base()))
    assert not list(empty.encoder.parameters())
    ids = torch.randint(1, 50, (2, 7))
    torch.testing.assert_close(empty.eval()(ids).last_hidden_state, empty.embeddings(ids))


def test_the_paper_and_low_rank_are_points() -> None:
    whole = space()
    paper = whole.uniform(**paper_shape(4))
    assert whole.config(paper, base()).groups("q_groups", 2) == 4
    assert whole.config(paper, base()).groups("post_attention_groups", 2) == 1
    ranks = {"q_rank": 24, "intermediate_rank": 24, "output_rank": 16}
    low = whole.uniform(
        **dict.fromkeys(("q_groups", "k_groups", "v_groups", "intermediate_groups", "output_groups"), 0), **ranks
    )
    assert low["v_rank"] == [24] * 3
    assert low["output_groups"] == [0] * 3


def test_a_mutation_changes_something_near_and_a_cross_takes_halves() -> None:
    whole, generator = space(), np.random.default_rng(3)
    mother, father = points(2, seed=4)
    for _ in range(30):
        child = whole.crossed(mother, father, generator)
        for layer in range(3):
            for half in (("kept_heads", "q_rank", "v_groups"), ("intermediate_size", "output_rank")):
                taken = [child[field][layer] for field in half]
                assert taken in [[parent[field][layer] for field in half] for parent in (mother, father)]
    changed = [
        sum(
            whole.mutated(mother, generator, 1e-9)[field][layer] != mother[field][layer]
            for field in mother
            for layer in range(3)
            if field != "shared_qkv_rank"
        )
        for _ in range(50)
    ]
    assert max(changed) >= 1
    assert np.mean(changed) < 6


def test_points_differ_by_more_than_their_layers_do() -> None:
    sizes = [
        sum(p.numel() for p in SqueezeBertModel(space().config(point, base())).encoder.parameters())
        for point in points(40)
    ]
    assert np.std(sizes) > 0.3 * np.mean(sizes)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"q_groups": 1, "q_rank": 32}, {"q_groups": 0, "q_rank": 32}),
        # no dearer than dense
        ({"intermediate_size": 48, "intermediate_rank": 32}, {"intermediate_rank": 24, "intermediate_groups": 0}),
        ({"q_groups": 0, "q_rank": 0}, {"q_groups": 1, "q_rank": 0}),
        ({"kept_heads": 0, "q_groups": 4}, {"q_groups": 1, "post_attention_groups": 1}),
        # heads stay whole where some are gone
        ({"kept_heads": 4, "q_groups": 8, "k_groups": 2}, {"q_groups": 4, "k_groups": 2}),
        ({"kept_heads": 12, "q_groups": 8}, {"q_groups": 8}),
    ],
)
def test_what_makes_no_sense_together_is_made_to_fit(fields: dict[str, Any], wanted: dict[str, Any]) -> None:
    point = space().uniform(**fields)
    assert {field: point[field][0] for field in wanted} == wanted


def test_the_dense_point_has_the_models_own_activation_and_groups_divide_its_sizes() -> None:
    told = dict.fromkeys(GROUP_FIELDS, 1)
    config = SqueezeBertConfig(
        hidden_size=60, num_attention_heads=4, intermediate_size=100, num_hidden_layers=1, hidden_act="relu", **told
    )
    space = Space.of(config)
    assert space.choices["intermediate_act"] == ("relu",)
    assert space.config(space.dense, config).hidden_act == "relu"
    assert space.choices["q_groups"] == (1, 2, 4)
    own = Space.of(SqueezeBertConfig(hidden_act="gelu_new", **told))
    assert own.choices["intermediate_act"] == ("gelu_new", "relu")


@pytest.mark.parametrize(
    ("heads", "kept"),
    [
        (12, (12, 8, 4, 0)),
        (16, (16, 12, 4, 0)),
        (8, (8, 4, 0)),
        (4, (4, 2, 0)),
        (6, (6, 4, 2, 0)),
        (2, (2, 1, 0)),
        (1, (1, 0)),
        (5, (5, 3, 2, 0)),
    ],
)
def test_heads_are_kept_in_numbers_that_groups_divide(heads: int, kept: tuple[int, ...]) -> None:
    config = SqueezeBertConfig(**{**BASE, "num_attention_heads": heads, "hidden_size": 16 * heads})
    whole = Space.of(config)
    assert whole.choices["kept_heads"] == kept
    if heads % 4 == 0:
        for some in kept[:-1]:
            point = whole.uniform(kept_heads=some, q_groups=4)
            assert point["q_groups"][0] == (4 if some % 4 == 0 else 2)


def test_the_dense_width_stays_what_it_is() -> None:
    assert Space.of(SqueezeBertConfig(**{**BASE, "intermediate_size": 100})).choices["intermediate_size"] == (
        *(100, 72, 48, 24, 0),
    )


@pytest.mark.parametrize(
    ("narrowed", "message"),
    [
        ({"kept_heads": [12, 8, 12]}, r"kept_heads = \[12, 8, 12\], expected 12 in every layer"),
        ({"kept_heads": 8}, r"kept_heads = \[8, 8, 8\]"),
        ({"intermediate_size": [192, 96, 192]}, r"intermediate_size = \[192, 96, 192\]"),
        ({"intermediate_size": [0, 0, 0]}, r"intermediate_size = \[0, 0, 0\], expected more than 0"),
        ({"intermediate_act": ["gelu", "relu", "gelu"]}, "intermediate_act = .*expected gelu"),
    ],
)
def test_a_narrowed_model_is_no_dense_one(narrowed: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=f"{message}.*search from the model that it was made from"):
        Space.of(SqueezeBertConfig(**{**BASE, **narrowed}))


def test_a_full_model_may_say_so_for_each_layer() -> None:
    full = {"kept_heads": [12] * 3, "intermediate_size": [192] * 3, "intermediate_act": ["gelu"] * 3}
    assert Space.of(SqueezeBertConfig(**{**BASE, **full})) == space()
