"""Who can load what: published layouts, round trips, and configurations that transformers' class cannot express."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
import transformers
from safetensors.torch import load_file

from squeezebert import model as ours
from squeezebert.model import SqueezeBertConfig
from squeezebert.model.modeling import Dropout

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 96,
    "max_position_embeddings": 24,
}
INPUTS = {
    "input_ids": torch.arange(1, 13).view(2, 6),
    "attention_mask": torch.tensor([[1] * 6, [1, 1, 1, 0, 0, 0]]),
}
# Each is something transformers' SqueezeBERT computes differently or not at all
GENERAL = [
    {"q_groups": [4, 2]},
    {"output_groups": [1, 4]},
    {"embedding_size": 16},
    {"layer_norm_eps": 1e-5},
]


def outputs(model):
    return model.eval()(**INPUTS).last_hidden_state


def in_a_fresh_process(code: str) -> str:
    """Run code where `squeezebert` has not been imported, and return what it printed."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return result.stdout.strip() + result.stderr[-2000:] * (result.returncode != 0)


def test_what_transformers_can_express_loads_there_with_equal_outputs(tmp_path):
    model = ours.SqueezeBertModel(SqueezeBertConfig(**SMALL, k_groups=2))
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "squeezebert"
    torch.save(outputs(model), tmp_path / "expected.pt")
    code = f"""
import sys, torch, transformers
model = transformers.AutoModel.from_pretrained({str(tmp_path)!r}).eval()
ids, mask = torch.arange(1, 13).view(2, 6), torch.tensor([[1] * 6, [1, 1, 1, 0, 0, 0]])
expected = torch.load({str(tmp_path / "expected.pt")!r}, weights_only=True)
difference = (model(ids, attention_mask=mask).last_hidden_state - expected).abs().max()
print(type(model).__module__, bool(difference < 1e-5), "squeezebert" in sys.modules)
"""
    assert in_a_fresh_process(code) == "transformers.models.squeezebert.modeling_squeezebert True False"


@pytest.mark.parametrize("extra", GENERAL)
def test_what_transformers_cannot_express_round_trips_here(extra, tmp_path):
    model = ours.SqueezeBertModel(SqueezeBertConfig(**SMALL, **extra))
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "squeezebert-general"
    for auto in (
        ours.SqueezeBertModel,
        transformers.AutoModel,
    ):  # the Auto class knows it once we are imported
        again = auto.from_pretrained(tmp_path)
        assert type(again) is ours.SqueezeBertModel
        torch.testing.assert_close(outputs(again), outputs(model))
    assert isinstance(transformers.AutoConfig.from_pretrained(tmp_path), SqueezeBertConfig)


def test_what_transformers_cannot_express_is_refused_by_its_auto_classes(tmp_path):
    folders = []
    for number, extra in enumerate(GENERAL):
        ours.SqueezeBertModel(SqueezeBertConfig(**SMALL, **extra)).save_pretrained(tmp_path / str(number))
        folders.append(str(tmp_path / str(number)))
    code = f"""
import transformers
for folder in {folders!r}:
    for auto in (transformers.AutoConfig, transformers.AutoModel):
        try:
            auto.from_pretrained(folder)
            print("loaded", folder)
        except ValueError as error:
            print("refused" if "squeezebert-general" in str(error) else error)
"""
    assert in_a_fresh_process(code).split() == ["refused"] * 2 * len(folders)


def test_importing_us_leaves_transformers_own_classes_in_place(tmp_path):
    transformers.SqueezeBertModel(transformers.SqueezeBertConfig(**SMALL, embedding_size=32)).save_pretrained(tmp_path)
    for name in ("AutoModel", "AutoModelForMaskedLM", "AutoModelForSequenceClassification"):
        loaded = getattr(transformers, name).from_pretrained(tmp_path)
        assert type(loaded).__module__.startswith("transformers.")
    assert type(transformers.AutoConfig.for_model("squeezebert")) is transformers.SqueezeBertConfig


@pytest.mark.parametrize(
    ("auto", "head"),
    [
        ("AutoModel", "Model"),
        ("AutoModelForPreTraining", "ForPreTraining"),
        ("AutoModelForMaskedLM", "ForMaskedLM"),
        ("AutoModelForSequenceClassification", "ForSequenceClassification"),
        ("AutoModelForTokenClassification", "ForTokenClassification"),
        ("AutoModelForQuestionAnswering", "ForQuestionAnswering"),
        ("AutoModelForMultipleChoice", "ForMultipleChoice"),
    ],
)
def test_every_head_is_found_by_its_auto_class(auto, head, tmp_path):
    model = getattr(ours, f"SqueezeBert{head}")(SqueezeBertConfig(**SMALL, layer_norm_eps=1e-6))
    model.save_pretrained(tmp_path)
    assert type(getattr(transformers, auto).from_pretrained(tmp_path)) is type(model)


def public_layout(folder, kind: str) -> dict[str, torch.Tensor]:
    """Write a folder as the public `squeezebert/*` repositories are: pytorch_model.bin, vocabulary of 30528."""
    theirs = {
        "uncased": transformers.SqueezeBertForMaskedLM,
        "mnli": transformers.SqueezeBertForSequenceClassification,
        "mnli-headless": transformers.SqueezeBertModel,
    }[kind]
    config = transformers.SqueezeBertConfig(**SMALL | {"vocab_size": 30528}, embedding_size=32, num_labels=3)
    model = theirs(config)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if kind == "uncased":
        state["cls.seq_relationship.weight"] = torch.randn(2, 32)
        state["cls.seq_relationship.bias"] = torch.randn(2)
    if kind == "mnli-headless":
        state = {f"transformer.{name}": tensor for name, tensor in state.items()}
    # Files of that time hold the position buffer as well
    state["transformer.embeddings.position_ids"] = torch.arange(24).expand(1, -1)
    folder.mkdir()
    torch.save(state, folder / "pytorch_model.bin")
    saved = config.to_dict() | {"architectures": [theirs.__name__]}
    for key in ("dtype", "transformers_version"):
        saved.pop(key, None)
    (folder / "config.json").write_text(json.dumps(saved))
    return state


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("uncased", "ForPreTraining"),
        ("uncased", "ForMaskedLM"),
        ("uncased", "Model"),
        ("mnli", "ForSequenceClassification"),
        ("mnli-headless", "Model"),
        ("mnli-headless", "ForSequenceClassification"),
    ],
)
def test_public_checkpoints_load_and_are_written_back_as_safetensors(kind, head, tmp_path):
    state = public_layout(tmp_path / kind, kind)
    model, info = getattr(ours, f"SqueezeBert{head}").from_pretrained(tmp_path / kind, output_loading_info=True)
    assert not info["mismatched_keys"]
    fresh = (
        {"classifier.weight", "classifier.bias"}
        if (kind, head) == ("mnli-headless", "ForSequenceClassification")
        else set()
    )
    assert set(info["missing_keys"]) == fresh
    loaded = model.state_dict()
    prefix = "transformer." if head == "Model" else ""
    for name, tensor in loaded.items():
        if name not in fresh:
            torch.testing.assert_close(tensor, state[prefix + name], msg=name)
    model.save_pretrained(tmp_path / "back")
    assert not list((tmp_path / "back").glob("*.bin"))
    written = load_file(tmp_path / "back" / "model.safetensors")
    assert written and all(torch.equal(tensor, loaded[name]) for name, tensor in written.items())


def test_a_bin_that_would_run_code_is_refused(tmp_path):
    public_layout(tmp_path / "bad", "mnli")

    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"transformer.pooler.dense.bias": Payload()}, tmp_path / "bad" / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"(?i)weights.only|unpickl"):
        ours.SqueezeBertForSequenceClassification.from_pretrained(tmp_path / "bad")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"q_groups": 5}, "q_groups = 5 does not divide 32"),
        ({"intermediate_groups": 64}, "intermediate_groups = 64 does not divide 32 and 64"),
        ({"v_groups": [4, 4, 2]}, "v_groups lists 3 layers, but the model has 2"),
        ({"num_attention_heads": 5}, "not a multiple of num_attention_heads 5"),
    ],
)
def test_sizes_that_do_not_divide_are_named(extra, words):
    with pytest.raises(ValueError, match=words):
        ours.SqueezeBertModel(SqueezeBertConfig(**SMALL | extra))


def test_another_architecture_is_refused_by_name(tmp_path):
    transformers.DistilBertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'distilbert' is not a SqueezeBERT, a BERT or an ELECTRA"):
        ours.SqueezeBertModel.from_pretrained(tmp_path)


def test_layer_norm_eps_is_used_everywhere():
    model = ours.SqueezeBertForMaskedLM(SqueezeBertConfig(**SMALL, layer_norm_eps=0.25))
    norms = [m for m in model.modules() if isinstance(m, torch.nn.LayerNorm)]
    assert len(norms) == 2 + 2 * SMALL["num_hidden_layers"]
    assert {norm.eps for norm in norms} == {0.25}


def test_factorised_embeddings_are_narrow_and_tied():
    model = ours.SqueezeBertForMaskedLM(SqueezeBertConfig(**SMALL, embedding_size=8))
    embeddings = model.transformer.embeddings
    assert embeddings.word_embeddings.weight.shape == (96, 8)
    assert embeddings.projection.weight.shape == (32, 8)
    assert model.cls.predictions.decoder.weight is embeddings.word_embeddings.weight
    assert model(**INPUTS).logits.shape == (2, 6, 96)


def test_gradient_checkpointing_gives_the_same_gradients():
    model = ours.SqueezeBertModel(SqueezeBertConfig(**SMALL)).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    outputs(model.train()).sum()
    model.train()
    model(**INPUTS).pooler_output.sum().backward()
    plain = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing_enable()
    calls = []
    layer = model.encoder.layers[0]
    layer.attention.register_forward_hook(lambda *_: calls.append(1))
    model(**INPUTS).pooler_output.sum().backward()
    assert len(calls) == 2  # forward, and once more in the backward pass
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, plain[name])


def test_pretraining_loss_is_the_sum_of_both_tasks():
    model = ours.SqueezeBertForPreTraining(SqueezeBertConfig(**SMALL)).eval()
    labels = torch.full((2, 6), -100)
    labels[0, 2], labels[1, 1] = 7, 9
    order = torch.tensor([0, 1])
    words = model(**INPUTS, labels=labels)
    orders = model(**INPUTS, sentence_order_label=order)
    both = model(**INPUTS, labels=labels, sentence_order_label=order)
    torch.testing.assert_close(both.loss, words.loss + orders.loss)
    expected = torch.nn.functional.cross_entropy(both.seq_relationship_logits, order)
    torch.testing.assert_close(orders.loss, expected)
    assert both.prediction_logits.shape == (2, 6, 96)


def test_too_many_tokens_name_the_limit():
    model = ours.SqueezeBertModel(SqueezeBertConfig(**SMALL))
    with pytest.raises(ValueError, match="25 tokens, but the model has positions for 24"):
        model(torch.ones(1, 25, dtype=torch.long), attention_mask=torch.ones(1, 25, dtype=torch.long))


@pytest.mark.parametrize(
    ("head", "trained"),
    [
        ("ForMaskedLM", False),
        ("ForTokenClassification", False),
        ("ForQuestionAnswering", False),
        ("Model", True),
    ],
)
def test_a_pooler_that_no_head_reads_is_kept_and_frozen(head, trained, tmp_path):
    model = getattr(ours, f"SqueezeBert{head}")(SqueezeBertConfig(**SMALL))
    model.save_pretrained(tmp_path)
    for one in (model, type(model).from_pretrained(tmp_path)):
        assert {p.requires_grad for p in one.base_model.pooler.parameters()} == {trained}
    assert ours.SqueezeBertModel.from_pretrained(tmp_path).pooler.dense.weight.requires_grad


@pytest.mark.parametrize("shape", [(1000, 1001), (7,)])
def test_dropout_drops_its_share_and_keeps_the_mean(shape):
    dropout = Dropout(0.3)
    x = torch.full(shape, 2.0, requires_grad=True)
    torch.manual_seed(0)
    y = dropout(x)
    y.sum().backward()
    torch.testing.assert_close(y.detach(), x.grad * 2)  # what is dropped gets no gradient, the rest the same scale
    if y.numel() > 1000:
        assert abs((y == 0).float().mean().item() - 0.3) < 2e-3
        assert abs(y.mean().item() - 2) < 5e-3
        rows = (y == 0).float().mean(0)
        assert rows.std() < 1.2 * (0.3 * 0.7 / 1000) ** 0.5  # columns are independent of the layout of the draws
    torch.manual_seed(0)
    assert torch.equal(dropout(x), y)
    assert dropout.eval()(x) is x or torch.equal(dropout(x), x)
    assert Dropout(1.0).train()(x).abs().max() == 0
