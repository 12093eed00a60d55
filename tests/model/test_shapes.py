"""The shape of a matrix: groups, no blocks, a low-rank remainder, and what they compute."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from squeezebert.model import GroupedLinear, SqueezeBertConfig, SqueezeBertModel
from squeezebert.model.configuration import GROUP_FIELDS, RANK_FIELDS
from squeezebert.model.modeling import merge_groups, split_groups

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
}
DENSE = dict.fromkeys(GROUP_FIELDS, 1)


def matrix_of(layer: GroupedLinear) -> torch.Tensor:
    """The dense matrix (C_out, C_in) that a layer multiplies by, written out block by block."""
    matrix = torch.zeros(layer.out_features, layer.in_features)
    if layer.weight is not None:
        rows, columns = layer.out_features // layer.groups, layer.in_features // layer.groups
        for g in range(layer.groups):
            block = layer.weight[g * rows : (g + 1) * rows, :, 0]
            matrix[g * rows : (g + 1) * rows, g * columns : (g + 1) * columns] = block
    return matrix if layer.up is None else matrix + layer.up @ layer.down


@pytest.mark.parametrize("groups", [0, 1, 2, 4])
@pytest.mark.parametrize("rank", [0, 3])
def test_a_layer_computes_its_blocks_plus_its_remainder(groups: int, rank: int) -> None:
    if not groups and not rank:
        return
    layer = GroupedLinear(8, 12, groups, rank)
    torch.manual_seed(0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 5, 8)
    expected = x @ matrix_of(layer).T + layer.bias
    torch.testing.assert_close(layer(x), expected)
    if groups > 1:
        grouped = layer(split_groups(x, groups), group_major=True)
        torch.testing.assert_close(merge_groups(grouped, x.shape[:-1]), expected)


SHAPES = [
    {"q_rank": 3, "k_rank": 3, "v_rank": 3, "shared_qkv_rank": True},
    {"q_rank": 3, "k_rank": 2, "v_rank": [0, 4]},
    {**dict.fromkeys(GROUP_FIELDS, 0), **dict.fromkeys(RANK_FIELDS, 5), "shared_qkv_rank": True},
    {**dict.fromkeys(GROUP_FIELDS, 0), **dict.fromkeys(RANK_FIELDS, 5)},
    {"intermediate_rank": 4, "output_rank": [2, 0], "post_attention_groups": 0, "post_attention_rank": 6},
    {"output_groups": [0, 2], "output_rank": [7, 0]},
]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_of_shapes_equals_the_dense_one_written_out(shape: dict[str, Any], tmp_path: Any) -> None:
    torch.manual_seed(0)
    model = SqueezeBertModel(SqueezeBertConfig(**SIZES, **shape)).eval()
    dense = SqueezeBertModel(SqueezeBertConfig(**SIZES, **DENSE)).eval()
    weights = {name: value for name, value in model.state_dict().items() if name in dense.state_dict()}
    for name, module in model.named_modules():
        if isinstance(module, GroupedLinear):
            attention = model.get_submodule(name.rpartition(".")[0])
            shared = getattr(attention, "down", None)
            if shared is not None:
                module.down = shared
            weights[f"{name}.weight"] = matrix_of(module).unsqueeze(-1)
            if shared is not None:
                module.down = None
    dense.load_state_dict(weights)
    ids = torch.randint(1, 50, (3, 7))
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    torch.testing.assert_close(model(ids, mask).last_hidden_state, dense(ids, mask).last_hidden_state)

    model.save_pretrained(tmp_path)
    again = SqueezeBertModel.from_pretrained(tmp_path)
    assert not again.config.fits_transformers
    torch.testing.assert_close(again(ids, mask).last_hidden_state, model(ids, mask).last_hidden_state)
    model.train()(ids, mask).last_hidden_state.sum().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert all(name.startswith("pooler") for name in without)


def test_new_weights_start_at_the_size_of_dense_ones() -> None:
    torch.manual_seed(0)
    sizes = SIZES | {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1}
    low = {**dict.fromkeys(GROUP_FIELDS, 0), **dict.fromkeys(RANK_FIELDS, 256)}
    x = torch.randn(64, 256)
    sizes_of = [
        SqueezeBertModel(SqueezeBertConfig(**sizes, **shape)).encoder.layers[0].attention.query(x).detach().std()
        for shape in (DENSE, low)
    ]
    assert sizes_of[1] == pytest.approx(float(sizes_of[0]), rel=0.1)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"q_groups": 0}, "q_groups = 0 leaves the matrix of layer 0 without blocks"),
        ({"output_rank": [0, -1]}, "output_rank = -1 in layer 1"),
        ({"output_rank": 17}, "no matrix of this model has a rank above 16"),
        ({"q_rank": 2, "shared_qkv_rank": True}, "the three are one number"),
        ({"k_rank": [1, 2, 3]}, "k_rank lists 3 layers"),
        ({"v_groups": -1}, "v_groups = -1"),
    ],
)
def test_impossible_shapes_are_refused(shape: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SqueezeBertModel(SqueezeBertConfig(**SIZES, **shape))
