"""The shape of a squeezed model: what is chosen, what a file may say, and what does not fit, in the user's words."""

from __future__ import annotations

import pytest

from squeezebert.files.errors import OptionError
from squeezebert.model import SqueezeBertConfig, SqueezeBertModel
from squeezebert.model.configuration import GROUP_FIELDS
from squeezebert.training.options import ShapeOptions
from squeezebert.training.shapes import (
    best_shape,
    check_shape,
    choose_shape,
    count_weights,
    describe_shape,
    paper_shape,
)

SIZES = {"hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 80, "num_hidden_layers": 3}


def dense(**changes):
    return SqueezeBertConfig(**SIZES | changes, **dict.fromkeys(GROUP_FIELDS, 1))


def refused(message: str, shape_file=None, **options):
    chosen = ShapeOptions(**options, **({} if shape_file is None else {"shape": str(shape_file)}))
    with pytest.raises(OptionError, match=message):
        check_shape(dense(), choose_shape(chosen, 48, 4 * 48)[0], chosen)


def test_the_papers_shape_is_what_is_asked_for_with_four_groups():
    shape, reason = choose_shape(ShapeOptions(groups=4), 768, 4 * 768)
    assert shape == dict.fromkeys(("q_groups", "k_groups", "v_groups", "intermediate_groups", "output_groups"), 4)
    assert reason == "4 groups, as asked for"
    assert "post_attention" not in describe_shape(shape)


def test_without_a_wish_the_shape_that_measured_best_is_chosen_and_said():
    for width in (32, 312, 384, 768):
        shape, reason = choose_shape(ShapeOptions(), width, 4 * width)
        assert shape == best_shape(width, 4 * width)
        assert "no shape asked for" in reason
        assert "--groups 4" in reason
        config = dense(hidden_size=width, num_attention_heads=4, intermediate_size=4 * width)
        check_shape(config, shape, ShapeOptions())
        assert describe_shape(shape)
    ranks = {name: rank for name, rank in best_shape(384, 1536).items() if name.endswith("rank")}
    assert all(rank % 8 == 0 for name, rank in ranks.items() if name != "shared_qkv_rank")


@pytest.mark.parametrize(("hidden", "intermediate"), [(48, 12), (4, 8), (48, 48), (16, 64), (384, 96), (1024, 4096)])
def test_the_chosen_shape_is_smaller_whatever_the_widths(hidden, intermediate):
    config = dense(hidden_size=hidden, num_attention_heads=2, intermediate_size=intermediate)
    shape, _ = choose_shape(ShapeOptions(), hidden, intermediate)
    assert check_shape(config, shape, ShapeOptions()) is None
    squeezed = SqueezeBertConfig(**{**config.to_dict(), **shape})
    assert count_weights(squeezed) < 0.8 * count_weights(config)


def test_weights_are_counted_as_the_model_has_them():
    shape = paper_shape(2, 8) | {"post_attention_groups": 4, "post_attention_rank": 3}
    config = SqueezeBertConfig(**SIZES, **shape)
    layers = SqueezeBertModel(config).encoder
    assert count_weights(config) == sum(
        parameter.numel()
        for name, parameter in layers.named_parameters()
        if "layernorm" not in name and not name.endswith("bias")
    )


def test_groups_and_a_rank_share_a_factor_at_equal_cost():
    shape, reason = choose_shape(ShapeOptions(groups=2, rank=8), 48, 4 * 48)
    assert shape == paper_shape(2, 8)
    assert (shape["q_rank"], shape["intermediate_rank"], shape["shared_qkv_rank"]) == (12, 8, True)
    assert reason == "2 groups and rank 8, as asked for"
    check_shape(dense(), shape, ShapeOptions(groups=2, rank=8))
    shape, reason = choose_shape(ShapeOptions(groups=0, rank=8), 48, 4 * 48)
    assert shape["q_groups"] == 0
    assert reason == "no blocks and rank 8, as asked for"


def test_a_file_gives_any_number_to_any_layer(tmp_path):
    path = tmp_path / "shape.yaml"
    path.write_text("q_groups: [4, 2, 1]\noutput_groups: 8\nv_rank: 3\nv_groups: 0\n")
    options = ShapeOptions(shape=str(path))
    shape, reason = choose_shape(options, 48, 4 * 48)
    assert shape == {"q_groups": [4, 2, 1], "output_groups": 8, "v_rank": 3, "v_groups": 0}
    assert str(path) in reason
    check_shape(dense(), shape, options)
    assert describe_shape(shape) == "q_groups [4, 2, 1], v_groups 0, output_groups 8, v_rank 3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected lines like"),
        ("- 4\n", "expected lines like"),
        ("q_groups: four\n", "q_groups: four: expected a whole number"),
        ("q_groups: 4.0\n", "expected a whole number"),
        ("q_groups: [4, true]\n", "expected a whole number"),
        ("q_groups: []\n", "expected a whole number"),
        ("q_groups: -1\n", "expected a whole number"),
        ("groups: 4\n", "groups is none of .*q_groups.*shared_qkv_rank"),
        ("shared_qkv_rank: 3\n", "shared_qkv_rank: 3: expected true or false"),
        ("q_groups: [4, 2\n", "cannot be read"),
        ("q_groups: [4, 2]\n", "q_groups lists 2 layers, but the model has 3"),
        ("q_groups: 5\n", r"q_groups = 5 does not divide 48.*groups that divide .*: 1, 2, 4, 8, 16\)"),
        ("output_groups: 3\n", "output_groups = 3 does not divide 48 and 80"),
        ("v_groups: 0\n", "v_groups = 0 leaves the matrix of layer 0 without blocks"),
        ("v_rank: 49\nv_groups: 2\n", "v_rank = 49: no matrix of this model has a rank above 48"),
        ("q_rank: 4\nq_groups: 2\nshared_qkv_rank: true\n", "with shared_qkv_rank the three are one number"),
        ("q_groups: 1\n", "every matrix stays dense"),
        ("q_rank: 8\n", "q_rank above 0 beside q_groups 1, a dense matrix, which needs no remainder; groups 0 is low"),
    ],
)
def test_a_file_that_does_not_do_is_explained(text, message, tmp_path):
    path = tmp_path / "shape.yaml"
    path.write_text(text)
    refused(f"--shape .*shape.yaml: .*{message}", path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    refused("--shape .*nowhere.yaml: cannot be read", tmp_path / "nowhere.yaml")
    refused("--shape .*cannot be read", tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"q_groups: 4 # \xfc\n")
    refused("--shape .*latin.yaml: cannot be read", tmp_path / "latin.yaml")


def test_options_that_do_not_fit_are_named_as_they_were_typed():
    refused(
        "--groups 5: does not divide this model's hidden_size 48 and intermediate_size 80; what does: 1, 2, 4, 8, 16$",
        groups=5,
    )
    refused("--groups 3: does not divide", groups=3)
    refused("--groups 1: every matrix stays dense", groups=1)
    refused("--rank 33: query, key and value share one of 49, .* more than 48; at most --rank 32", rank=33)
    warned = check_shape(dense(), choose_shape(ShapeOptions(rank=32), 48, 80)[0], ShapeOptions(rank=32))
    assert warned == "this model: in this shape the blocks have 70080 weights, the dense ones 50688; lower the ranks"
    assert check_shape(dense(), paper_shape(4, 4), ShapeOptions(groups=4, rank=4)) is None
    refused("--groups 1: q_rank above 0 beside q_groups 1, a dense matrix, which needs no remainder", groups=1, rank=8)
    with pytest.raises(OptionError, match="--rank 0 asks for nothing by itself"):
        ShapeOptions(rank=0)
    with pytest.raises(OptionError, match="--groups 4: does not divide"):  # the groups that a rank alone comes with
        options = ShapeOptions(rank=4)
        config = dense(hidden_size=30, num_attention_heads=5, intermediate_size=60)
        check_shape(config, choose_shape(options, 30, 4 * 30)[0], options)
    with pytest.raises(OptionError, match="--groups 0 leaves no blocks"):
        ShapeOptions(groups=0)
    with pytest.raises(OptionError, match="--shape says it all"):
        ShapeOptions(groups=2, shape="x.yaml")
