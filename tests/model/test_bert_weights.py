"""Checkpoints of BERT's relatives in our classes: ELECTRA's encoder, TinyBERT, poolers, and folders that are none."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from squeezebert import model as ours
from squeezebert.model import SqueezeBertConfig

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 96,
    "max_position_embeddings": 24,
}
TEXT = {
    "input_ids": torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 0, 0, 0]]),
    "attention_mask": torch.tensor([[1] * 6, [1, 1, 1, 0, 0, 0]]),
    "token_type_ids": torch.tensor([[0, 0, 0, 1, 1, 1], [0, 1, 1, 0, 0, 0]]),
}


def randomised(model):
    """Give every parameter a value that matters: initial biases are 0 and norms 1, which would hide mix-ups."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


@pytest.mark.parametrize("head", ["Model", "ForPreTraining", "ForMaskedLM", "ForSequenceClassification"])
@pytest.mark.parametrize("width", [16, 32])
def test_the_encoder_of_an_electra_computes_what_it_did(width, head, tmp_path):
    config = transformers.ElectraConfig(**SMALL, embedding_size=width)
    theirs = randomised(getattr(transformers, f"Electra{head}")(config))
    theirs.save_pretrained(tmp_path)
    encoder = theirs if head == "Model" else theirs.electra
    expected = encoder(**TEXT, output_hidden_states=True)
    mine, info = ours.SqueezeBertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert set(info["missing_keys"]) == {"pooler.dense.weight", "pooler.dense.bias"}
    assert (mine.embeddings.projection is None) == (width == 32)
    actual = mine(**TEXT, output_hidden_states=True)
    text = TEXT["attention_mask"].bool()
    for one, other in zip(actual.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(one[text], other[text], atol=1e-5, rtol=1e-5)
    mine.save_pretrained(tmp_path / "ours")
    again = ours.SqueezeBertModel.from_pretrained(tmp_path / "ours")
    torch.testing.assert_close(again(**TEXT).last_hidden_state, actual.last_hidden_state)


def test_heads_of_an_electra_are_other_functions_and_start_anew(tmp_path, caplog):
    theirs = transformers.ElectraForSequenceClassification(transformers.ElectraConfig(**SMALL, num_labels=3))
    theirs.save_pretrained(tmp_path)
    logger = transformers.logging.get_logger("squeezebert.model.bert")
    logger.addHandler(caplog.handler)
    try:
        model, info = ours.SqueezeBertForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    finally:
        logger.removeHandler(caplog.handler)
    assert "its encoder alone is carried over" in caplog.text
    fresh = {name for name in info["missing_keys"] if not name.startswith("transformer.e")}
    assert fresh == {
        *("classifier.weight", "classifier.bias"),
        *("transformer.pooler.dense.weight", "transformer.pooler.dense.bias"),
    }
    assert set(info["missing_keys"]) == fresh
    assert model.config.num_labels == 3
    state = theirs.electra.state_dict()["encoder.layer.1.output.dense.weight"]
    assert torch.equal(model.transformer.encoder.layers[1].output.conv1d.weight[..., 0], state)


@pytest.mark.parametrize("kind", ["Bert", "Electra"])
def test_decoders_and_relative_positions_are_refused(kind, tmp_path):
    config = getattr(transformers, f"{kind}Config")(**SMALL)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    for changes, words in (
        ({"is_decoder": True}, f"this {kind.upper()} is a decoder"),
        ({"position_embedding_type": "relative_key"}, f"this {kind.upper()} has relative positions"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(saved | changes))
        with pytest.raises(ValueError, match=words):
            ours.SqueezeBertModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("named", [True, False])
def test_tinybert_is_a_bert_with_weights_that_nobody_needs(named, tmp_path):
    """Its projections towards a teacher's width are left, and its configuration may not name the model type."""
    theirs = randomised(transformers.BertModel(transformers.BertConfig(**SMALL)))
    theirs.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    state = {f"bert.{name}": value for name, value in theirs.state_dict().items()}
    state |= {"fit_dense.weight": torch.randn(64, 32), "fit_dense.bias": torch.randn(64)}
    state |= {f"fit_denses.{i}.weight": torch.randn(64, 32) for i in range(3)}
    torch.save(state, tmp_path / "pytorch_model.bin")
    saved = json.loads((tmp_path / "config.json").read_text())
    saved |= {"cell": {}, "emb_size": 32, "pre_trained": "", "structure": []}
    for name in ("architectures", "transformers_version", *([] if named else ["model_type"])):
        saved.pop(name)
    (tmp_path / "config.json").write_text(json.dumps(saved))
    mine, info = ours.SqueezeBertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    expected, actual = theirs(**TEXT), mine(**TEXT)
    torch.testing.assert_close(actual.last_hidden_state, expected.last_hidden_state, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(actual.pooler_output, expected.pooler_output, atol=1e-5, rtol=1e-5)


def test_a_masked_lm_keeps_the_pooler_that_its_checkpoint_has(tmp_path):
    theirs = randomised(transformers.BertForPreTraining(transformers.BertConfig(**SMALL)))
    theirs.save_pretrained(tmp_path)
    mine, info = ours.SqueezeBertForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert torch.equal(mine.transformer.pooler.dense.weight, theirs.bert.pooler.dense.weight)
    expected, actual = theirs(**TEXT).prediction_logits, mine(**TEXT).logits
    text = TEXT["attention_mask"].bool()
    torch.testing.assert_close(actual[text], expected[text], atol=1e-5, rtol=1e-5)


def test_a_folder_without_a_configuration_is_no_checkpoint(tmp_path):
    """transformers itself would go on with default sizes and random weights."""
    ours.SqueezeBertModel(SqueezeBertConfig(**SMALL)).save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(OSError, match=r"has no config\.json"):
        ours.SqueezeBertForSequenceClassification.from_pretrained(tmp_path, ignore_mismatched_sizes=True)
