"""`corpus` and `pretrain` as people type them, through to finetuning on what came out."""

from __future__ import annotations

import json

import pytest

from conftest import topic_rows
from pretraining_text import write_documents
from squeezebert.cli import main

CONFIG = """
hidden_size: 32
num_hidden_layers: 2
num_attention_heads: 4
intermediate_size: 64
max_position_embeddings: 64
"""
SHORT = ["--steps", "4", "--batch-size", "8", "--micro-batch", "8", "--max-length", "48", "--save-every", "2"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("pretrain")
    text = write_documents(place / "text.txt", 150)
    (place / "config.yaml").write_text(CONFIG)
    told = ["--vocabulary-size", "200", "--shortest", "5", "--held-out", "0.1", "--workers", "1"]
    assert main(["corpus", "--text", str(text), "--output", str(place / "corpus"), *told]) == 0
    return place


def pretrain(place, output, *more):
    told = ["pretrain", str(place / "corpus"), "--output", str(place / output), *SHORT, *more]
    return main(told)


def test_from_text_to_a_finetuned_model(made, tmp_path, capsys):
    assert pretrain(made, "first", "--config", str(made / "config.yaml")) == 0
    said = capsys.readouterr().err
    assert "held-out mlm loss" in said
    assert f"next: squeezebert train TABLE --base {made / 'first'}" in said
    record = json.loads((made / "first" / "pretraining.json").read_text())
    assert record["command"].startswith("squeezebert pretrain")
    # The second phase goes on from the first, with longer rows
    longer = ["--max-length", "64", "--base", str(made / "first")]
    assert pretrain(made, "second", *longer) == 0
    table = tmp_path / "topics.csv"
    table.write_text("message,folder\n" + "".join(f'"{text}",{topic}\n' for text, topic in topic_rows(60)))
    finetune = ["train", str(table), "--base", str(made / "second"), "--output", str(tmp_path / "model")]
    assert main([*finetune, "--epochs", "1"]) == 0
    assert (tmp_path / "model" / "squeezebert.json").exists()


def test_a_new_model_without_a_configuration_has_the_papers_sizes_and_the_corpus_vocabulary(made):
    from squeezebert.data.pretraining.rows import PretrainingCorpus
    from squeezebert.training.options import PretrainOptions
    from squeezebert.workflows.options import PretrainPlaces
    from squeezebert.workflows.pretrain import _model

    corpus = PretrainingCorpus.open(made / "corpus")
    model = _model(PretrainPlaces("corpus", "out"), corpus, PretrainOptions())
    assert (model.config.hidden_size, model.config.num_hidden_layers, model.config.q_groups) == (768, 12, 4)
    assert model.config.vocab_size == corpus.manifest["vocabulary_entries"]


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (["--config", "nowhere.yaml"], "--config nowhere.yaml: cannot be read"),
        (["--base", "nowhere"], "--base nowhere: no checkpoint there"),
        (["--base", "a", "--config", "b"], "give one of them"),
        (["--batch-size", "12"], "not a multiple of --micro-batch 8"),
        (["--max-length", "1024"], "--max-length 1024: the model has 512 positions"),
        (["--report-to", "nobody", "--config", "CONFIG"], "--report-to nobody"),
    ],
)
def test_bad_options_are_refused_with_the_way_out(made, tmp_path, capsys, told, reason):
    told = [str(made / "config.yaml") if word == "CONFIG" else word for word in told]
    arguments = ["pretrain", str(made / "corpus"), "--output", str(tmp_path / "out"), *SHORT, *told]
    assert main(arguments) == 1
    assert reason in capsys.readouterr().err


def test_a_base_without_heads_is_continued_and_one_of_another_vocabulary_refused(made, tiny_base, capsys):
    """Heads that are made anew are the same after a kill: the run is recognised."""
    from squeezebert.data.pretraining.rows import PretrainingCorpus
    from squeezebert.model import SqueezeBertModel
    from squeezebert.training.options import PretrainOptions
    from squeezebert.workflows.options import PretrainPlaces
    from squeezebert.workflows.pretrain import _model

    corpus = PretrainingCorpus.open(made / "corpus")
    headless = made / "headless"
    if not headless.exists():
        whole = _model(PretrainPlaces("c", "o", config=str(made / "config.yaml")), corpus, PretrainOptions())
        assert isinstance(whole.transformer, SqueezeBertModel)
        whole.transformer.save_pretrained(headless)
        corpus.tokenizer().save_pretrained(headless)
    one, other = (_model(PretrainPlaces("c", "o", base=str(headless)), corpus, PretrainOptions()) for _ in range(2))
    assert all((a == b).all() for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert pretrain(made, "of-another", "--base", str(tiny_base)) == 1
    assert "another vocabulary than the corpus was made with" in capsys.readouterr().err


def test_a_run_that_was_asked_to_end_has_a_status_of_its_own(made, monkeypatch):
    monkeypatch.setattr("squeezebert.workflows.pretrain.pretrain_corpus", lambda *told: ("ended at step 2", False))
    with pytest.raises(SystemExit) as ended:
        pretrain(made, "asked", "--config", str(made / "config.yaml"))
    assert ended.value.code == 75


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("hidden_sizes: 3", "no field of the model's configuration: hidden_sizes"),
        ("hidden_size: 30", "hidden_size 30 is not a multiple of num_attention_heads 12"),
        ("hidden_act: nope", "no model of it can be made"),
        ("hidden_size: big", "no model of it can be made"),
        ("type_vocab_size: 1", "type_vocab_size 1: pairs of segments need 2"),
        ("num_hidden_layers: 0", "num_hidden_layers 0: expected 1 or more"),
        ("pad_token_id: 99999", "pad_token_id 99999: no entry of the vocabulary"),
        ("- 1", "expected fields and values"),
        ("a: [", "cannot be read"),
    ],
)
def test_bad_configurations_are_refused(made, tmp_path, capsys, config, reason):
    (tmp_path / "config.yaml").write_text(config)
    assert pretrain(made, "bad", "--config", str(tmp_path / "config.yaml")) == 1
    assert reason in capsys.readouterr().err


def test_a_folder_without_a_corpus_and_an_output_inside_the_text_are_refused(tmp_path, capsys):
    assert main(["pretrain", str(tmp_path), "--output", str(tmp_path / "out")]) == 1
    assert "no corpus there: make one with `squeezebert corpus`" in capsys.readouterr().err
    write_documents(tmp_path / "text.txt", 5)
    assert main(["corpus", "--text", str(tmp_path), "--output", str(tmp_path / "corpus")]) == 1
    assert "it lies in" in capsys.readouterr().err
