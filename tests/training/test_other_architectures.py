"""Finetuning what transformers has beside BERT, for comparison; and adversarial training, on any of them."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
import transformers

from squeezebert.data.examples import load_labelled
from squeezebert.data.options import DataOptions
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.model import SqueezeBertForSequenceClassification
from squeezebert.training.adversarial import Perturbation
from squeezebert.training.classifiers import load_base, longest, output_layer, set_dropout
from squeezebert.training.finetune import finetune
from squeezebert.training.options import FinetuneOptions
from squeezebert.training.rescore import predict_logits
from squeezebert.training.teacher import fits_ours

KINDS = {
    "DistilBert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    "Roberta": {},
    "Electra": {"embedding_size": 16},
    "MobileBert": {"intra_bottleneck_size": 16, "true_hidden_size": 16, "embedding_size": 16, "hidden_act": "relu"},
    "Bert": {},
    "Bart": {"d_model": 32, "decoder_layers": 1, "encoder_layers": 1, "encoder_attention_heads": 4,
             "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "eos_token_id": 3},
    "GPT2": {},
    "XLNet": {"d_inner": 64, "d_head": 8},
    "ModernBert": {"global_attn_every_n_layers": 1, "attention_dropout": 0.3, "embedding_dropout": 0.3},
}  # fmt: skip
OURS = ("Bert", "Electra")
POSITIONS = 40


@pytest.fixture(params=KINDS)
def checkpoint(request, tiny_tokenizer, tmp_path):
    """An encoder with random weights, of BERT's or another architecture, and its tokenizer."""
    sizes = {
        "vocab_size": len(tiny_tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": POSITIONS,
        "pad_token_id": tiny_tokenizer.pad_token_id,
        "initializer_range": 0.1,
    }
    transformers.set_seed(0)
    if request.param == "XLNet":
        del sizes["max_position_embeddings"]
    config = getattr(transformers, f"{request.param}Config")(**sizes | KINDS[request.param])
    folder = tmp_path / request.param
    getattr(transformers, f"{request.param}Model")(config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


def test_they_are_finetuned_as_ours_are(checkpoint, topic_table, tmp_path):
    data = load_labelled(topic_table, DataOptions(eval_fraction=0.3))
    options = FinetuneOptions(epochs=0.5, batch_size=8, max_length=24, seed=3)
    result = finetune(data, checkpoint, tmp_path / "out", options, any_architecture=True)
    kind = SqueezeBertForSequenceClassification if fits_ours(checkpoint) else None
    loaded = (kind or transformers.AutoModelForSequenceClassification).from_pretrained(tmp_path / "out")
    assert fits_ours(checkpoint) == (checkpoint.name in OURS)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    logits = predict_logits(loaded, tokenizer, data.evaluation, 24)
    if checkpoint.name == "XLNet":
        return  # its head reads the last token, so that it needs a tokenizer of its own kind, which fills up in front
    right = [data.labels[i] == e.label for i, e in zip(logits.argmax(1), data.evaluation, strict=True)]
    assert np.mean(right) == pytest.approx(result.metrics["accuracy"])
    card = (tmp_path / "out/README.md").read_text()
    assert ("SqueezeBERT-architecture" in card) == fits_ours(checkpoint)


def test_their_numbers_are_in_the_tables_unit(checkpoint, tmp_path):
    table = tmp_path / "prices.csv"
    table.write_text("text,label\n" + "".join(f"goal team {n},{5000 + 7.5 * n}\n" for n in range(40)))
    data = load_labelled(table, DataOptions())
    options = FinetuneOptions(epochs=0.3, batch_size=8, max_length=24, learning_rate=1e-6)
    finetune(data, checkpoint, tmp_path / "out", options, any_architecture=True)
    loaded, has_head = load_base(tmp_path / "out", data, any_architecture=True)
    assert has_head
    if checkpoint.name == "GPT2":
        return  # its head has no bias that could hold the mean
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert predict_logits(loaded.eval(), tokenizer, data.evaluation, 24).mean() > 4000


def test_positions_and_heads_are_found(checkpoint, topic_table):
    data = load_labelled(topic_table, DataOptions())
    model, has_head = load_base(checkpoint, data, any_architecture=True)
    assert not has_head
    assert output_layer(model).out_features == 3
    if checkpoint.name == "XLNet":
        assert longest(model) == sys.maxsize  # it has no positions to run out of
        return
    offset = model.config.pad_token_id + 1 if checkpoint.name == "Roberta" else 0
    assert longest(model) == POSITIONS - offset
    ids = torch.full((1, longest(model)), 7)
    ids[0, -1] = 3  # where BART's head reads
    assert model(ids).logits.shape == (1, 3)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_dropout_is_what_was_asked_for(dropout, checkpoint, topic_table):
    data = load_labelled(topic_table, DataOptions())
    model, _ = load_base(checkpoint, data, any_architecture=True, dropout=dropout)
    set_dropout(model.train(), dropout)
    if checkpoint.name == "DistilBert":
        assert model.config.dropout == dropout
    ids = torch.tensor([[*range(5, 25), 3]])
    with torch.no_grad():
        one, other = (model(ids).logits for _ in range(2))
    assert torch.equal(one, other) == (dropout == 0)


@pytest.mark.parametrize("checkpoint", [kind for kind in KINDS if kind not in OURS], indirect=True)
def test_train_and_distil_refuse_others(checkpoint, topic_table, tmp_path):
    data = load_labelled(topic_table, DataOptions())
    with pytest.raises(OptionError, match="is not a SqueezeBERT, a BERT or an ELECTRA"):
        finetune(data, checkpoint, tmp_path / "out", FinetuneOptions())
    with pytest.raises(FolderError, match="no checkpoint there"):
        load_base(tmp_path / "nothing", data, any_architecture=True)


# --- adversarial training ------------------------------------------------------------------------------------


def test_perturbations_stay_in_their_ball_and_raise_the_loss(tiny_base):
    model = SqueezeBertForSequenceClassification.from_pretrained(tiny_base, num_labels=3).eval()
    ids, mask = torch.randint(5, 60, (4, 9)), torch.ones(4, 9, dtype=torch.long)
    mask[1, 6:] = 0
    labels = torch.tensor([0, 1, 2, 0])
    options = FinetuneOptions(
        adversarial_steps=4, adversarial_rate=1.0, adversarial_radius=1.5, adversarial_start=0.01
    )
    perturbation = Perturbation(model.get_input_embeddings(), mask, options)
    losses: list[float] = []
    lengths: list[torch.Tensor] = []

    def step():
        loss = model(ids, mask, labels=labels).loss
        assert perturbation.delta_BTC is not None
        lengths.append(perturbation.delta_BTC.detach().flatten(1).norm(dim=1))
        assert not perturbation.delta_BTC[1, 6:].any()
        losses.append(loss.item())
        loss.backward()
        return loss.detach()

    total = perturbation.run(step)
    assert total == pytest.approx(sum(losses))
    assert losses[-1] > losses[0] + 0.05
    assert losses[0] == pytest.approx(model(ids, mask, labels=labels).loss.item(), abs=0.02)  # the hook is gone
    assert (lengths[0] <= 0.01 + 1e-6).all()
    assert torch.allclose(lengths[1], torch.ones(4), atol=0.011)
    assert torch.allclose(lengths[-1], torch.full((4,), 1.5), atol=1e-4)


def test_all_passes_of_a_step_have_one_dropout_mask(tiny_base):
    model = SqueezeBertForSequenceClassification.from_pretrained(tiny_base, num_labels=3).train()
    ids, mask = torch.randint(5, 60, (4, 9)), torch.ones(4, 9, dtype=torch.long)
    drawn: list[torch.Tensor] = []
    model.dropout.register_forward_hook(lambda module, inputs, output: drawn.append(output == 0))
    for _ in range(2):
        options = FinetuneOptions(adversarial_steps=3)

        def step():
            loss = model(ids, mask, labels=torch.tensor([0, 1, 2, 0])).loss
            loss.backward()
            return loss.detach()

        Perturbation(model.get_input_embeddings(), mask, options).run(step)
    assert drawn[0].any()
    assert all(torch.equal(one, drawn[0]) for one in drawn[:3])
    assert not torch.equal(drawn[2], drawn[3])  # the next step has another
    assert all(torch.equal(one, drawn[3]) for one in drawn[3:])


def test_one_pass_without_perturbation_is_plain_training(topic_table, tiny_base, tmp_path):
    data = load_labelled(topic_table, DataOptions(eval_fraction=0.3))
    plain = {"epochs": 0.5, "batch_size": 8, "max_length": 24, "accumulate": 2, "dropout": 0.0}
    still = {"adversarial_steps": 3, "adversarial_rate": 0.0, "adversarial_start": 0.0}
    weights = {}
    for name, more in {"plain": {}, "still": still, "moved": {"adversarial_steps": 3}}.items():
        finetune(data, tiny_base, tmp_path / name, FinetuneOptions(**plain, **more))
        model = SqueezeBertForSequenceClassification.from_pretrained(tmp_path / name)
        # Gradients of the keys' biases are rounding errors around 0, which AdamW makes steps of
        known = [value.flatten() for key, value in model.state_dict().items() if not key.endswith("key.bias")]
        weights[name] = torch.cat(known)
    assert torch.allclose(weights["plain"], weights["still"], atol=1e-5)
    assert not torch.allclose(weights["plain"], weights["moved"], atol=1e-4)


def test_bad_adversarial_options():
    with pytest.raises(OptionError, match="--adversarial-rate -1: expected 0 or more"):
        FinetuneOptions(adversarial_rate=-1)
