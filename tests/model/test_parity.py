"""Same weights, same numbers: layers, models, losses and gradients against transformers' SqueezeBERT and BERT."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn

from squeezebert import model as ours
from squeezebert.model import configuration

SMALL = {
    "hidden_size": 48,
    "embedding_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "intermediate_size": 96,
    "vocab_size": 120,
    "max_position_embeddings": 40,
}
# (groups of q, k, v, post_attention, intermediate, output): the paper's, all different, and BERT's
GROUPS = [(4, 4, 4, 1, 4, 4), (2, 4, 1, 2, 6, 3), (1, 1, 1, 1, 1, 1)]
TOLERANCE = 1e-5


def group_options(groups):
    return dict(zip(configuration.GROUP_FIELDS, groups, strict=True))


def batch(seed: int = 0):
    """Three texts of 12 tokens, two of them padded, with token types."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, SMALL["vocab_size"], (3, 12), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    mask[2, 1:] = 0
    types = torch.zeros_like(ids)
    types[:, 5:] = 1
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": types}


LABELS = {
    "Model": {},
    "ForMaskedLM": {"labels": torch.tensor([[5, -100] * 6, [7] * 12, [-100] * 11 + [3]])},
    "ForSequenceClassification": {"labels": torch.tensor([2, 0, 1])},
    "ForTokenClassification": {"labels": torch.tensor([[0, 1, 2, -100] * 3] * 3)},
    "ForQuestionAnswering": {
        "start_positions": torch.tensor([1, 2, 40]),
        "end_positions": torch.tensor([3, 6, 11]),
    },
    "ForMultipleChoice": {"labels": torch.tensor([1])},
}


def labels_of(head: str) -> int:
    return 2 if head == "ForQuestionAnswering" else 3  # start and end of the answer


def randomise(module: nn.Module) -> None:
    """Give every parameter a value that matters: initial biases are 0 and norms 1, which would hide mix-ups."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


def pair(head: str, groups, tmp_path, attention: str, **extra):
    """Return transformers' model and ours with the same weights, through a checkpoint folder."""
    config = transformers.SqueezeBertConfig(**SMALL, **group_options(groups), num_labels=labels_of(head), **extra)
    theirs = getattr(transformers, f"SqueezeBert{head}")(config)
    randomise(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    mine = getattr(ours, f"SqueezeBert{head}").from_pretrained(tmp_path / "theirs", attn_implementation=attention)
    return theirs.eval(), mine.eval()


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("head", LABELS)
def test_outputs_losses_and_gradients_match_transformers(head, groups, attention, tmp_path):
    theirs, mine = pair(head, groups, tmp_path, attention)
    inputs = batch()
    if head == "ForMultipleChoice":
        inputs = {name: value.unsqueeze(0) for name, value in inputs.items()}
    inputs |= LABELS[head]
    expected = theirs(**inputs, output_hidden_states=True)
    actual = mine(**inputs, output_hidden_states=True)

    assert set(expected.keys()) == set(actual.keys())
    for name in expected:
        if name == "hidden_states":
            for one, other in zip(actual[name], expected[name], strict=True):
                assert_close(one, other)
        else:
            assert_close(actual[name], expected[name])

    def total(outputs):
        return outputs.loss if LABELS[head] else (outputs.last_hidden_state**2).mean() + outputs.pooler_output.sum()

    total(expected).backward()
    total(actual).backward()
    theirs_gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    mine_gradients = {name: p.grad for name, p in mine.named_parameters() if p.grad is not None}
    assert theirs_gradients.keys() == mine_gradients.keys()
    for name, gradient in theirs_gradients.items():
        assert_close(mine_gradients[name], gradient)


@pytest.mark.parametrize(
    ("problem", "labels", "num_labels"),
    [
        ("regression", torch.tensor([0.5, -1.0, 2.0]), 1),
        ("multi_label_classification", torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1]]), 3),
        (None, torch.tensor([0.5, -1.0, 2.0]), 1),
    ],
)
def test_losses_of_the_other_problem_types_match(problem, labels, num_labels, tmp_path):
    config = transformers.SqueezeBertConfig(**SMALL, num_labels=num_labels, problem_type=problem)
    theirs = transformers.SqueezeBertForSequenceClassification(config).eval()
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    mine = ours.SqueezeBertForSequenceClassification.from_pretrained(tmp_path)
    expected, actual = theirs(**batch(), labels=labels), mine(**batch(), labels=labels)
    assert_close(actual.loss, expected.loss)
    assert mine.config.problem_type == theirs.config.problem_type


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attentions_are_probabilities_of_the_text(attention, tmp_path):
    theirs, mine = pair("Model", GROUPS[0], tmp_path, attention)
    inputs = batch()
    scores = theirs(**inputs, output_attentions=True).attentions
    probabilities = mine(**inputs, output_attentions=True).attentions
    assert len(probabilities) == SMALL["num_hidden_layers"]
    for score, probability in zip(scores, probabilities, strict=True):
        assert_close(probability, score.softmax(-1))
        padded = inputs["attention_mask"] == 0
        assert probability.transpose(1, 3)[padded].abs().max() == 0  # no attention goes to padding


def test_padding_changes_nothing(tmp_path):
    _, mine = pair("Model", GROUPS[1], tmp_path, "sdpa")
    inputs = batch()
    padded = mine(**inputs).last_hidden_state[1, :7]
    alone = mine(**{name: value[1:2, :7] for name, value in inputs.items()}).last_hidden_state[0]
    assert_close(alone, padded)


def bert_checkpoint(head: str, folder, **extra):
    config = transformers.BertConfig(
        **{k: v for k, v in SMALL.items() if k != "embedding_size"}, num_labels=labels_of(head), **extra
    )
    bert = getattr(transformers, f"Bert{head}")(config)
    randomise(bert)
    bert.save_pretrained(folder)
    return bert.eval()


@pytest.mark.parametrize("head", [h for h in LABELS if h != "ForMultipleChoice"])
def test_a_bert_checkpoint_is_the_case_of_one_group(head, tmp_path):
    bert = bert_checkpoint(head, tmp_path, layer_norm_eps=1e-3, hidden_act="relu")
    mine = getattr(ours, f"SqueezeBert{head}").from_pretrained(tmp_path)
    inputs = batch() | LABELS[head]
    expected, actual = bert(**inputs, output_hidden_states=True), mine(**inputs, output_hidden_states=True)
    for name in ("last_hidden_state", "pooler_output", "logits", "start_logits", "end_logits", "loss"):
        if name in expected:
            assert_close(actual[name], expected[name])
    for one, other in zip(actual.hidden_states, expected.hidden_states, strict=True):
        assert_close(one, other)
    assert all(mine.config.groups(field, 0) == 1 for field in configuration.GROUP_FIELDS)
    assert not mine.training


def test_a_bert_trunk_loads_under_any_head_and_survives_saving(tmp_path):
    bert = bert_checkpoint("Model", tmp_path / "bert")
    classifier = ours.SqueezeBertForSequenceClassification.from_pretrained(tmp_path / "bert", num_labels=5)
    assert classifier.classifier.out_features == 5
    classifier.save_pretrained(tmp_path / "saved")
    again = ours.SqueezeBertModel.from_pretrained(tmp_path / "saved")
    assert_close(again(**batch()).pooler_output, bert(**batch()).pooler_output)


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
def test_a_grouped_layer_is_a_grouped_convolution(groups):
    torch.manual_seed(groups)
    convolution = nn.Conv1d(16, 32, kernel_size=1, groups=groups)
    layer = ours.GroupedLinear(16, 32, groups)
    layer.load_state_dict(convolution.state_dict())
    x = torch.randn(2, 5, 16)
    assert_close(layer(x), convolution(x.transpose(1, 2)).transpose(1, 2))
    assert_close(layer(x[0]), layer(x)[0])  # any leading shape, as a Linear takes


def test_choices_made_while_loading_a_bert_are_kept(tmp_path):
    bert_checkpoint("Model", tmp_path)
    load = ours.SqueezeBertForSequenceClassification.from_pretrained
    assert load(tmp_path, attn_implementation="eager").config._attn_implementation == "eager"
    theirs = transformers.BertConfig.from_pretrained(tmp_path, num_labels=5)
    assert load(tmp_path, config=theirs).classifier.out_features == 5
    mine = configuration.SqueezeBertConfig.from_pretrained(tmp_path, num_labels=4)
    assert load(tmp_path, config=mine).classifier.out_features == 4
    with pytest.raises(ValueError, match="groups = 1"):
        load(tmp_path, config=configuration.SqueezeBertConfig())
