"""What a student learns from: losses and their formulas, what is caught of both models, the teacher's cache."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers

from squeezebert.files.errors import FolderError, OptionError
from squeezebert.model import (
    SqueezeBertConfig,
    SqueezeBertForSequenceClassification,
    SqueezeBertForTokenClassification,
    SqueezeBertModel,
)
from squeezebert.training.losses import hidden_loss, layer_errors, logit_loss, matched_layers, relation_loss
from squeezebert.training.objective import answers_of
from squeezebert.training.teacher import Relations, StateCache, load_teacher
from students import new_student, small_corpus


@pytest.fixture(scope="module")
def corpus(tiny_tokenizer, tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("corpus"), tiny_tokenizer)


@pytest.fixture
def teacher(tiny_base):
    return load_teacher(tiny_base)


# --- losses -----------------------------------------------------------------------------------------------


def test_layer_errors_follow_their_formula_and_so_do_their_gradients():
    torch.manual_seed(0)
    teacher = [3 * torch.randn(3, 5, 8) + 1 for _ in range(2)]
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    student = [torch.randn(3, 5, 8, requires_grad=True) for _ in range(2)]
    text = mask.bool()

    def reference(states):
        pairs = [(mine[text], theirs[text]) for mine, theirs in zip(states, teacher, strict=True)]
        return torch.stack([F.mse_loss(mine, theirs) / theirs.var() for mine, theirs in pairs])

    coefficients = torch.tensor([1.0, 3.0])
    found = layer_errors(student, teacher, mask)
    torch.testing.assert_close(found, reference(student))
    gradients = torch.autograd.grad((found * coefficients).sum(), student)
    expected = torch.autograd.grad((reference(student) * coefficients).sum(), student)
    torch.testing.assert_close(gradients, expected)
    with torch.inference_mode():
        untouchable = [state.clone() for state in teacher]
    layer_errors(student, untouchable, mask).sum().backward()
    torch.testing.assert_close(hidden_loss(student, teacher, mask), found.mean())


def test_layers_are_matched_evenly():
    assert matched_layers(6, 6) == [1, 2, 3, 4, 5, 6]
    assert matched_layers(3, 12) == [4, 8, 12]
    assert matched_layers(4, 6) == [2, 3, 5, 6]
    assert matched_layers(4, 2) == [1, 1, 2, 2]
    assert matched_layers(12, 5) == [1, 1, 2, 2, 3, 3, 3, 4, 4, 5, 5, 5]


def test_relation_loss_follows_its_formula_at_any_width():
    torch.manual_seed(0)
    mine, theirs = torch.randn(2, 5, 12, requires_grad=True), torch.randn(2, 5, 8)
    lengths, heads = [5, 3], 4
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    total, count = torch.zeros(()), 0
    for row, length in enumerate(lengths):
        for head in range(heads):
            log_s, log_t = (
                ((x := x_BTC[row, :length, head * d : (head + 1) * d]) @ x.T / d**0.5).log_softmax(-1)
                for x_BTC, d in ((mine, 3), (theirs, 2))
            )
            total = total + F.kl_div(log_s, log_t, log_target=True, reduction="sum")
            count += length
    found = relation_loss([mine], [theirs], mask, heads)
    torch.testing.assert_close(found, total / count)
    twice = relation_loss([mine, mine], [theirs, theirs], mask, heads)
    torch.testing.assert_close(twice, found)
    assert relation_loss([theirs], [theirs], mask, heads).abs() < 1e-6
    found.backward()
    assert mine.grad[1, 3:].abs().max() == 0  # padding


def test_logit_loss_follows_its_formula():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 7)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
    text = mask.bool()
    expected = F.kl_div(
        student[text].log_softmax(-1), teacher[text].log_softmax(-1), log_target=True, reduction="batchmean"
    )
    torch.testing.assert_close(logit_loss(student, teacher, mask), expected)
    of_texts = F.kl_div(
        student[:, 0].log_softmax(-1), teacher[:, 0].log_softmax(-1), log_target=True, reduction="batchmean"
    )
    torch.testing.assert_close(logit_loss(student[:, 0], teacher[:, 0], mask), of_texts)


def test_logit_loss_of_several_labels_is_that_of_each_yes_and_no():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 3)
    mask = torch.ones(5, 1)
    p, q = torch.sigmoid(teacher), torch.sigmoid(student)
    expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    torch.testing.assert_close(logit_loss(student, teacher, mask, "multi_label"), expected)
    assert logit_loss(teacher, teacher, mask, "multi_label").abs() < 1e-6


def test_logit_loss_of_a_number_is_its_squared_difference_in_the_heads_unit():
    """As a distribution over one answer every number would be the same."""
    student, teacher = torch.tensor([[3.0], [5.0]]), torch.tensor([[1.0], [9.0]])
    mask = torch.ones(2, 1)
    torch.testing.assert_close(logit_loss(student, teacher, mask, "regression"), torch.tensor(10.0))
    found = logit_loss(1000 * student, 1000 * teacher, mask, "regression", 1000.0)
    torch.testing.assert_close(found, torch.tensor(10.0))


@pytest.mark.parametrize(
    ("outputs", "problem", "expected"),
    [
        (3, None, "single_label"),
        (3, "single_label_classification", "single_label"),
        (3, "multi_label_classification", "multi_label"),
        (1, None, "regression"),
        (1, "multi_label_classification", "multi_label"),
        (1, "regression", "regression"),
    ],
)
def test_what_a_classifier_answers_is_read_off_its_configuration(outputs, problem, expected):
    sizes = {"vocab_size": 20, "hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 1}
    config = SqueezeBertConfig(**sizes, intermediate_size=32, num_labels=outputs, problem_type=problem)
    model = SqueezeBertForSequenceClassification(config)
    task, unit = answers_of(model)
    assert task == expected
    wanted = float(model.classifier.weight.detach().norm()) if task == "regression" else 1.0
    assert unit == pytest.approx(wanted)
    tokens = SqueezeBertForTokenClassification(config)
    assert answers_of(tokens) == ("single_label", 1.0)


# --- what is caught of the models ---------------------------------------------------------------------------


def dense(layer, down=None):
    """The whole matrix of a layer of any shape."""
    matrix = torch.zeros(layer.out_features, layer.in_features)
    if layer.weight is not None:
        blocks = layer.weight.squeeze(-1).chunk(layer.groups)
        matrix = torch.block_diag(*blocks)
    if layer.up is not None:
        matrix = matrix + layer.up @ (layer.down if down is None else down)
    return matrix


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"q_groups": 4},  # unlike the others: every layer splits for itself
        dict.fromkeys(("q_rank", "k_rank", "v_rank"), 3),
        {**dict.fromkeys(("q_rank", "k_rank", "v_rank"), 3), "shared_qkv_rank": True},
        {**dict.fromkeys(("q_groups", "k_groups", "v_groups"), 0), **dict.fromkeys(("q_rank", "k_rank", "v_rank"), 5)},
    ],
)
@pytest.mark.parametrize("layer", [0, -1])
@torch.no_grad()
def test_queries_keys_and_values_are_caught_of_any_shape(shape, layer, teacher):
    student = new_student(teacher, **shape)
    for name, parameter in student.named_parameters():
        if name.endswith("bias"):
            parameter.normal_()
    relations = Relations(student, layer)
    ids = torch.randint(5, 40, (3, 7))
    states = student(ids, output_hidden_states=True).hidden_states[:-1]
    attention = student.encoder.layers[layer].attention
    caught = relations.take(3)
    for found, matrix in zip(caught, (attention.query, attention.key, attention.value), strict=True):
        expected = F.linear(states[layer], dense(matrix, attention.down), matrix.bias)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    relations.remove()
    student(ids)
    with pytest.raises(KeyError):
        relations.take(3)


@torch.no_grad()
def test_queries_keys_and_values_of_transformers_own_teachers(teacher, tiny_base):
    ids = torch.randint(5, 40, (2, 6))
    bert = transformers.BertModel.from_pretrained(tiny_base).eval()
    caught = []
    for model in (bert, teacher):
        relations = Relations(model)
        model(ids)
        caught.append(relations.take(2))
    torch.testing.assert_close(*caught)
    distil = transformers.DistilBertModel(transformers.DistilBertConfig(dim=8, n_layers=3, n_heads=2, hidden_dim=8))
    relations = Relations(distil.eval(), 2)
    states = distil(ids, output_hidden_states=True).hidden_states
    torch.testing.assert_close(
        relations.take(2)[1], distil.transformer.layer[2].attention.k_lin(states[2]), rtol=1e-4, atol=1e-6
    )
    with pytest.raises(OptionError, match="--relation-layer 3: DistilBertModel has 3 layers"):
        Relations(distil, 3)
    with pytest.raises(OptionError, match=r"--relation-weight: no layers named query, key and value in a Sequential"):
        Relations(torch.nn.Sequential(torch.nn.Linear(2, 2)))


def test_teachers_are_loaded_as_what_they_are(tiny_base, tiny_tokenizer, tmp_path):
    assert isinstance(load_teacher(tiny_base, tiny_tokenizer), SqueezeBertModel)
    config = transformers.DistilBertConfig(vocab_size=60, dim=8, n_layers=1, n_heads=2, hidden_dim=8)
    transformers.DistilBertModel(config).save_pretrained(tmp_path / "distil")
    assert isinstance(load_teacher(tmp_path / "distil"), transformers.DistilBertModel)
    config = transformers.T5Config(vocab_size=60, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    transformers.T5Model(config).save_pretrained(tmp_path / "t5")
    assert load_teacher(tmp_path / "t5")(torch.tensor([[5, 6]])).last_hidden_state.shape == (1, 2, 8)
    with pytest.raises(FolderError, match=r"nowhere: no teacher there"):
        load_teacher(tmp_path / "nowhere")
    other = transformers.BertTokenizer(vocab={**tiny_tokenizer.get_vocab(), "new": len(tiny_tokenizer)})
    with pytest.raises(OptionError, match=r"its vocabulary is not the student's"):
        load_teacher(tiny_base, other)


def test_cached_states_are_the_computed_ones_rounded(corpus, teacher, tmp_path):
    made = 0

    def make():
        nonlocal made
        made += 1
        with torch.no_grad():
            return teacher(**inputs, output_hidden_states=True).hidden_states[1:]

    cache = StateCache(tmp_path / "c", corpus, 2, 32)
    sequences = np.array([4, 9, 2])
    inputs = {name: torch.from_numpy(value) for name, value in corpus.batch(sequences).items()}
    mask = inputs["attention_mask"]
    first = cache.states(sequences, mask, make)
    assert cache.gain() == ""
    again = cache.states(sequences, mask, make)
    assert made == 1
    assert "read from the cache, which saves" in cache.gain()
    for states in (first, again):
        for found, expected in zip(states, make(), strict=True):
            assert torch.equal(found, expected.half().float() * mask.unsqueeze(-1))
    made = 0
    # What was not saved is not known after a kill; what was, is
    StateCache(tmp_path / "c", corpus, 2, 32).states(sequences, mask, make)
    assert made == 1
    cache.save()
    again = StateCache(tmp_path / "c", corpus, 2, 32).states(sequences[::-1].copy(), mask.flip(0), make)
    assert made == 1
    assert torch.equal(again[1], first[1].flip(0))
