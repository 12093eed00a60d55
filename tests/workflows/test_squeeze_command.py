"""`squeezebert squeeze` as it is typed: every kind of checkpoint, what is written and said, and what is refused."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file

import squeezebert.model as ours
from dense_models import bert, classifier, text_file
from squeezebert.cli import main
from squeezebert.export.checkpoint import read_checkpoint
from squeezebert.model.configuration import GROUP_FIELDS
from tiny_checkpoints import texts, tiny_tokenizer

FAST = ("--steps", "6", "--batch-tokens", "200", "--held-out", "4")


def run(*arguments: object) -> int:
    return main(["squeeze", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return bert(tmp_path_factory.mktemp("base") / "bert")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return text_file(tmp_path_factory.mktemp("text"))


def left(folder):
    """What is in a folder, hidden leftovers included."""
    return sorted(path.name for path in folder.iterdir())


# --- what comes of it --------------------------------------------------------------------------------------


def test_the_papers_groups_are_what_four_groups_make(base, text, tmp_path, capsys):
    output = tmp_path / "deep" / "out"
    assert run(base, "--text", text, "--output", f"{output}/", "--groups", 4, *FAST) == 0
    said = capsys.readouterr().err
    model = ours.SqueezeBertModel.from_pretrained(output)
    groups = {name: getattr(model.config, name) for name in GROUP_FIELDS}
    assert groups == dict.fromkeys(GROUP_FIELDS, 4) | {"post_attention_groups": 1}
    record = json.loads((output / "squeeze.json").read_text())
    assert (record["base"], record["head"], record["healing"]["steps"]) == (str(base), "Model", 6)
    assert record["healing"]["teacher"] == str(base)
    assert 0 < record["energy_in_blocks"] < 1
    assert len(record["errors"]) == 8
    assert left(tmp_path / "deep") == ["out"]
    for phrase in (
        "4 groups, as asked for",
        "tokenised",
        "order of channels",
        "fitted layer 2 of 2, about",
        "held-out",
    ):
        assert phrase in said
    assert said.splitlines()[-1] == f"next: squeezebert train TABLE --base {output} --output TRAINED"
    card = (output / "README.md").read_text()
    assert "4 groups, as asked for" in card
    assert f"--output {output}" in card


def test_without_a_shape_the_best_is_taken_and_the_reason_told(base, text, tmp_path, capsys):
    assert run(base, "--text", text, "--output", tmp_path / "out", "--no-heal") == 0
    assert "no shape asked for: low-rank" in capsys.readouterr().err
    model = ours.SqueezeBertModel.from_pretrained(tmp_path / "out")
    assert (model.config.q_groups, model.config.q_rank, model.config.shared_qkv_rank) == (0, 8, True)
    assert "no shape asked for" in (tmp_path / "out" / "README.md").read_text()
    assert not (tmp_path / "out" / "healing.json").exists()


def test_any_layer_has_its_own_groups(base, text, tmp_path):
    (tmp_path / "shape.yaml").write_text(
        "q_groups: [4, 1]\nintermediate_groups: [1, 8]\noutput_groups: 2\noutput_rank: 3\n"
    )
    told = ("--output", tmp_path / "out", "--shape", tmp_path / "shape.yaml", *FAST)
    assert run(base, "--text", text, *told) == 0
    config = ours.SqueezeBertModel.from_pretrained(tmp_path / "out").config
    assert (config.q_groups, config.k_groups, config.intermediate_groups) == ([4, 1], 1, [1, 8])
    assert config.output_rank == 3


def test_healing_brings_the_student_nearer_and_slices_need_no_fit(base, text, tmp_path):
    ids = torch.randint(5, 100, (4, 12))
    dense = ours.SqueezeBertModel.from_pretrained(base)
    errors = {}
    for name, options in {
        "sliced": ("--conversion", "slices", "--no-regroup", "--no-heal"),
        "fitted": ("--no-regroup", "--no-heal"),
        "healed": ("--no-regroup", "--steps", 40, "--batch-tokens", 400, "--held-out", 4, "--learning-rate", "3e-3"),
    }.items():
        assert run(base, "--text", text, "--output", tmp_path / name, "--groups", 2, *options) == 0
        student = ours.SqueezeBertModel.from_pretrained(tmp_path / name)
        with torch.no_grad():
            errors[name] = float((student(ids)[0] - dense(ids)[0]).square().mean())
    assert errors["healed"] < errors["fitted"] < errors["sliced"]


@pytest.mark.parametrize(
    ("head", "mine", "said"),
    [
        (
            "ForMaskedLM",
            "ForMaskedLM",
            "its masked-LM head is carried over; its scores are learned with --logit-weight",
        ),
        ("ForPreTraining", "ForMaskedLM", "its masked-LM head is carried over"),
        ("ForTokenClassification", "ForTokenClassification", "next: squeezebert.model.SqueezeBertForTokenClassif"),
        ("ForQuestionAnswering", "ForQuestionAnswering", "next: squeezebert.model.SqueezeBertForQuestionAnswering"),
        ("ForMultipleChoice", "ForMultipleChoice", "next: squeezebert.model.SqueezeBertForMultipleChoice"),
        ("ForSequenceClassification", "ForSequenceClassification", "not scored: "),
        ("ForNextSentencePrediction", "Model", "its head (BertForNextSentencePrediction) is left out"),
        ("ElectraForPreTraining", "Model", "it has no pooler"),
        ("ElectraForSequenceClassification", "Model", "its head (ElectraForSequenceClassification) is left out"),
    ],
)
def test_every_head_is_carried_over_or_said_to_be_left(head, mine, said, text, tmp_path, capsys):
    """A head's weights are the dense ones, and with next to no loss of the encoder so are its answers."""
    base = bert(tmp_path / "base", head)
    (tmp_path / "shape.yaml").write_text("q_rank: 31\nq_groups: 0\n")
    told = ("--shape", tmp_path / "shape.yaml", "--steps", 1, "--learning-rate", 1e-9, "--held-out", 4)
    assert run(base, "--text", text, "--output", tmp_path / "out", *told) == 0
    assert said in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "squeeze.json").read_text())["head"] == mine
    if mine == "Model":
        ours.SqueezeBertModel.from_pretrained(tmp_path / "out")
        return
    kind = getattr(ours, f"SqueezeBert{mine}")
    dense, squeezed = kind.from_pretrained(base).eval(), kind.from_pretrained(tmp_path / "out").eval()
    ids = torch.randint(5, 100, (2, 10))
    inputs = {"input_ids": ids[None] if head == "ForMultipleChoice" else ids}
    with torch.no_grad():
        expected, actual = (model(**inputs).to_tuple()[0] for model in (dense, squeezed))
    assert (actual - expected).abs().max() < 0.15 * expected.std()


@pytest.mark.parametrize("head", ["ForMaskedLM", "ForTokenClassification", "ForSequenceClassification"])
def test_answers_are_learned_where_that_is_asked_for(head, text, tmp_path):
    base = bert(tmp_path / "base", head)
    told = ("--groups", 2, "--logit-weight", 1, "--no-freeze-embeddings", *FAST)
    assert run(base, "--text", text, "--output", tmp_path / "out", *told) == 0
    state, before = load_file(tmp_path / "out" / "model.safetensors"), load_file(base / "model.safetensors")
    row = json.loads((tmp_path / "out" / "healing.jsonl").read_text().splitlines()[-1])
    assert row["held_out_logits"] > 0
    name = "cls.predictions.bias" if head == "ForMaskedLM" else "classifier.bias"
    assert not torch.equal(state[name], before[name])


def test_a_head_that_the_weights_lack_is_no_head(text, tmp_path):
    """TinyBERT's general models are named for a head that they come without."""
    base = bert(tmp_path / "base")
    saved = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(saved | {"architectures": ["TinyBertForPreTraining"]}))
    assert run(base, "--text", text, "--output", tmp_path / "out", "--groups", 2, "--no-heal") == 0
    assert json.loads((tmp_path / "out" / "squeeze.json").read_text())["head"] == "Model"


def test_half_precision_weights_are_squeezed_in_fp32(text, tmp_path):
    base = bert(tmp_path / "base")
    transformers.BertModel.from_pretrained(base).half().save_pretrained(base)
    assert run(base, "--text", text, "--output", tmp_path / "out", "--groups", 2, *FAST) == 0
    assert {value.dtype for value in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.float32}


@pytest.mark.parametrize("task", ["single_label", "multi_label", "regression"])
def test_a_classifier_is_scored_anew_and_can_be_exported(task, text, tmp_path, capsys):
    base = classifier(tmp_path / "base", task)
    output = tmp_path / "out"
    told = ("--groups", 2, "--logit-weight", 1, *FAST)
    assert run(base, "--text", text, "--output", output, *told) == 0
    said = capsys.readouterr().err
    record, before = (json.loads((folder / "squeezebert.json").read_text()) for folder in (output, base))
    (name, dense), *_ = before["metrics"].items()
    assert record["metrics"][name] != dense
    assert f"{name.replace('_', ' ')}: {dense:.4f} before, {record['metrics'][name]:.4f} after" in said
    card = (output / "README.md").read_text()
    assert f"| {name.replace('_', ' ')} | {dense:.4f} | {record['metrics'][name]:.4f} |" in card
    assert "the 40 evaluation rows" in card
    assert (record["task"], record["labels"]) == (task, before["labels"])
    assert (output / "evaluation.jsonl").read_text() == (base / "evaluation.jsonl").read_text()
    assert main(["export", str(output), "--output", str(tmp_path / "exported"), "--precision", "fp32", "--force"]) == 0
    assert main(["predict", str(tmp_path / "exported"), str(text)]) == 0


def test_a_classifier_without_rows_keeps_its_labels_and_says_why_it_has_no_scores(text, tmp_path, capsys):
    base = classifier(tmp_path / "base")
    (base / "evaluation.jsonl").unlink()
    assert run(base, "--text", text, "--output", tmp_path / "out", "--groups", 2, "--no-heal") == 0
    assert "not scored: " in capsys.readouterr().err
    record = json.loads((tmp_path / "out" / "squeezebert.json").read_text())
    assert (record["labels"], record["metrics"], record["thresholds"]) == (["a", "b", "c"], {}, None)
    assert "has no evaluation rows" in (tmp_path / "out" / "README.md").read_text()


def test_a_damaged_record_is_named_and_nothing_is_written(text, tmp_path, capsys):
    base = classifier(tmp_path / "base")
    (base / "squeezebert.json").write_text('{"task": "single_label"}')
    assert run(base, "--text", text, "--output", tmp_path / "out", "--groups", 2, "--no-heal") == 1
    assert "squeezebert.json and evaluation.jsonl are not as training wrote them" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# --- what is refused ---------------------------------------------------------------------------------------


def refused(capsys, *arguments):
    """The error that a call ends with."""
    assert run(*arguments) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    return last


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.txt", b"", "it holds no text"),
        ("blank.txt", b"\n  \n\n", "it holds no text"),
        ("latin.txt", "die Tür\n".encode("latin-1"), "latin.txt:1: badly encoded.*--encoding"),
        ("one.txt", b"the boat\n", "--text: it makes one sequence.*--no-heal"),
        ("no_name.csv", b"foo,bar\na b,c d\n", "name it with --column"),
        ("two.csv", b"text,comment\na b,c d\n", "name the one with --column"),
        ("gone.txt", None, "gone.txt: no such file or folder"),
        ("folder/notes.md", b"text", "folder: no .txt file and no table in this folder"),
    ],
)
def test_text_that_does_not_do_is_explained(name, content, words, base, tmp_path, capsys):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if content is not None:
        path.write_bytes(content)
    before = left(tmp_path)
    text = path.parent if "/" in name else path
    line = refused(capsys, base, "--text", text, "--output", tmp_path / "out", "--groups", 2, *FAST)
    assert re.search(words, line), line
    assert left(tmp_path) == before


def test_a_column_is_named_or_guessed(base, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("foo,bar\n" + "the boat,a river in the morning\n" * 30)
    assert run(base, "--text", table, "--column", "bar", "--output", tmp_path / "out", "--groups", 2, *FAST) == 0
    assert json.loads((tmp_path / "out" / "squeeze.json").read_text())["healing"]["corpus"]["sequences"] == 30


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ("--groups", 5),
            "--groups 5: does not divide this model's hidden_size 32 and intermediate_size 64; what does",
        ),
        (("--rank", 40), "--rank 40: "),
        (("--groups", 1), "--groups 1: every matrix stays dense"),
        (("--groups", 2, "--logit-weight", 1), "--logit-weight: SqueezeBertModel has no head"),
        (("--groups", 2, "--relation-weight", 1, "--relation-heads", 5), "--relation-heads 5: does not divide 32"),
        (("--shape", "nowhere.yaml"), "--shape nowhere.yaml: cannot be read"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_takes_long(options, words, base, text, tmp_path, capsys):
    line = refused(capsys, base, "--text", text, "--output", tmp_path / "out", *options)
    assert words in line
    assert left(tmp_path) == []


@pytest.mark.parametrize("kind", ["RobertaModel", "DistilBertModel"])
def test_another_architecture_is_refused_with_those_that_are_taken(kind, text, tmp_path, capsys):
    other = {} if kind == "RobertaModel" else {"dim": 32, "n_layers": 1, "n_heads": 4, "hidden_dim": 64}
    base = bert(tmp_path / "base", kind, **other)
    line = refused(capsys, base, "--text", text, "--output", tmp_path / "out", *FAST)
    assert f"model type '{kind.removesuffix('Model').lower()}' is not" in line
    assert "squeeze takes BERT (MiniLM and TinyBERT are some), the encoder of ELECTRA, and SqueezeBERT" in line


def test_checkpoints_that_are_not_whole_are_refused(base, text, tmp_path, capsys):
    def error(change):
        folder = shutil.copytree(base, tmp_path / "base")
        change(folder)
        line = refused(capsys, folder, "--text", text, "--output", tmp_path / "out", "--groups", 2, *FAST)
        shutil.rmtree(folder)
        return line

    def without(*names):
        return lambda folder: [(folder / name).unlink() for name in names]

    def configured(**changes):
        def change(folder):
            saved = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(saved | changes))

        return change

    assert "no tokenizer there; copy its tokenizer.json" in error(without("tokenizer.json", "tokenizer_config.json"))
    assert "no checkpoint there" in error(without("config.json"))
    assert "no checkpoint there" in error(without("model.safetensors"))
    assert "cannot be loaded" in error(lambda folder: (folder / "model.safetensors").write_bytes(b"broken"))
    assert "its weights lack" in error(configured(num_hidden_layers=3))
    assert "its weights lack" in error(configured(hidden_size=64))
    assert "is a decoder" in error(configured(is_decoder=True))

    def more_tokens(folder):
        tokenizer = tiny_tokenizer()
        tokenizer.add_tokens(["more", "tokens"])
        tokenizer.save_pretrained(folder)

    assert "the model embeddings for" in error(more_tokens)
    line = refused(capsys, tmp_path / "none", "--text", text, "--output", tmp_path / "out", "--groups", 2)
    assert "none: no checkpoint there. squeeze takes a folder" in line
    line = refused(capsys, "nobody/nothing", "--text", text, "--output", tmp_path / "out", "--groups", 2)
    assert "nobody/nothing: no checkpoint there" in line
    assert "which has to be reachable" in line
    assert left(tmp_path) == []


def test_a_squeezed_model_is_not_squeezed_again(base, text, tmp_path, capsys):
    assert run(base, "--text", text, "--output", tmp_path / "out", "--groups", 2, "--no-heal") == 0
    line = refused(capsys, tmp_path / "out", "--text", text, "--output", tmp_path / "again", "--groups", 2)
    shape = "q_groups 2, k_groups 2, v_groups 2, intermediate_groups 2, output_groups 2"
    assert f"it is squeezed already ({shape}): squeeze the dense model it was made from" in line


# --- where it is written -----------------------------------------------------------------------------------


def test_an_output_never_swallows_what_is_read_or_where_the_user_is(base, text, tmp_path, monkeypatch, capsys):
    own = shutil.copytree(base, tmp_path / "models" / "own")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for output, words in (
        (own, "that is what is read"),
        (tmp_path / "models", "lies where it would be written"),
        (".", "the folder you are in"),
        (tmp_path, "the folder you are in"),
        ("/", "the folder you are in"),
    ):
        line = refused(capsys, own, "--text", text, "--output", output, "--overwrite", "--groups", 2, "--no-heal")
        assert words in line
    table = tmp_path / "classes"
    (table / "a").mkdir(parents=True)
    (table / "a" / "1.txt").write_text("the boat")
    line = refused(capsys, own, "--text", table, "--output", table / "out", "--groups", 2, "--no-heal")
    assert "which is read whole" in line
    assert left(tmp_path / "models") == ["own"]


def test_a_folder_is_overwritten_when_asked_and_when_it_holds_nothing_else(base, text, tmp_path, capsys):
    output = tmp_path / "out"
    told = (base, "--text", text, "--output", output, "--no-heal")
    assert run(*told, "--groups", 2) == 0
    assert "holds a model already: choose another --output, or --overwrite it" in refused(capsys, *told, "--groups", 4)
    (output / "notes.txt").write_text("mine")
    line = refused(capsys, *told, "--groups", 4, "--overwrite")
    assert "holds notes.txt beside a model, which --overwrite would delete" in line
    (output / "notes.txt").unlink()
    assert ours.SqueezeBertModel.from_pretrained(output).config.q_groups == 2
    assert run(*told, "--groups", 4, "--overwrite") == 0
    assert ours.SqueezeBertModel.from_pretrained(output).config.q_groups == 4
    shutil.rmtree(output)
    output.mkdir()
    assert run(*told, "--groups", 4) == 0  # an empty folder is no obstacle
    other = tmp_path / "other"
    other.mkdir()
    (other / "x").write_text("mine")
    line = refused(capsys, base, "--text", text, "--output", other, "--groups", 2, "--overwrite")
    assert "is not empty and holds no model" in line
    (tmp_path / "file").write_text("mine")
    line = refused(capsys, base, "--text", text, "--output", tmp_path / "file", "--groups", 2)
    assert "is a file" in line


# --- what a review found -------------------------------------------------------------------------------------


def test_another_rate_can_be_tried_after_one_that_diverged(base, text, tmp_path, capsys):
    told = (base, "--text", text, "--output", tmp_path / "out", "--groups", 4, *FAST, "--save-every", 2)
    assert run(*told, "--learning-rate", 1e12) == 1
    assert "training diverged" in capsys.readouterr().err
    assert left(tmp_path) == []
    assert run(*told, "--learning-rate", 1e-4) == 0


def test_milestones_of_a_classifier_have_its_head(tmp_path, text, capsys):
    dense = classifier(tmp_path / "dense")
    told = ("--groups", 2, *FAST, "--milestones", 0.5, 0.8)
    assert run(dense, "--text", text, "--output", tmp_path / "out", *told) == 0
    places = sorted((tmp_path / "out/milestones").iterdir())
    assert [place.name for place in places] == ["step-3", "step-5"]
    head = load_file(dense / "model.safetensors")["classifier.weight"]
    weights = [load_file(place / "model.safetensors") for place in (*places, tmp_path / "out")]
    assert all(torch.equal(one["classifier.weight"], head) for one in weights)
    query = "transformer.encoder.layers.0.attention.query.weight"
    assert not torch.equal(weights[0][query], weights[1][query])
    assert not torch.equal(weights[1][query], weights[2][query])


def test_no_ridge_and_few_tokens_are_enough_to_fit(base, text, tmp_path):
    told = ("--ridge", 0, "--calibration-tokens", 20, "--no-heal", "--rank", 4)
    for groups in (0, 2):
        assert run(base, "--text", text, "--output", tmp_path / str(groups), "--groups", groups, *told) == 0


def test_a_damaged_checkpoint_is_named_and_nothing_is_left(text, tmp_path, capsys):
    from safetensors.torch import save_file

    folder = bert(tmp_path / "bert")
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.1.output.dense.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert run(folder, "--text", text, "--output", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert "encoder.layers.1.output.conv1d.weight has values that are no finite numbers" in said
    assert left(tmp_path) == ["bert"]


def test_pairs_need_a_model_of_pairs(text, tmp_path, capsys):
    folder = bert(tmp_path / "bert", type_vocab_size=1)
    table = tmp_path / "pairs.csv"
    table.write_text("sentence1,sentence2\n" + "the train,a boat\n" * 20)
    assert run(folder, "--text", table, "--output", tmp_path / "out", "--groups", 2, *FAST) == 1
    assert "--text: it has pairs of texts" in capsys.readouterr().err


def test_a_run_that_was_cut_off_says_which_option_is_another(base, text, tmp_path, capsys, monkeypatch):
    from squeezebert.workflows import squeeze as job

    def cut_off(*arguments: object) -> None:
        raise KeyboardInterrupt

    told = (base, "--text", text, "--output", tmp_path / "out", "--groups", 4, *FAST, "--save-every", 2)
    with monkeypatch.context() as patched:
        patched.setattr(job, "parameters", cut_off)
        assert run(*told) == 130
    capsys.readouterr()
    assert run(*told, "--learning-rate", 1e-3) == 1
    assert "cut off, with another --learning-rate: repeat its command" in capsys.readouterr().err
    assert run(*told) == 0


def test_a_full_disk_is_said_before_anything_is_computed(base, text, tmp_path, capsys, monkeypatch):
    import errno
    import os

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    told = (base, "--text", text, "--output", tmp_path / "out", "--groups", 4, *FAST, "--cache-teacher")
    assert run(*told) == 1
    assert "states.npy: No space left on device" in capsys.readouterr().err


def test_a_recipe_with_one_value_for_a_list_is_explained(base, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("text: corpus.txt\n")
    with pytest.raises(SystemExit):
        run(base, "--output", tmp_path / "out", "--recipe", recipe)
    assert "write a list" in capsys.readouterr().err


def test_rows_that_a_classifier_is_scored_on_are_not_learned_from(tmp_path, capsys):
    dense = classifier(tmp_path / "dense")
    rows = [json.loads(line)["text"] for line in (dense / "evaluation.jsonl").read_text().splitlines()]
    mixed = tmp_path / "mixed.txt"
    mixed.write_text("".join(f"{text}\n" for text in [*texts(60, seed=8), *rows]))
    told = ("--groups", 2, "--no-heal")
    assert run(dense, "--text", mixed, "--output", tmp_path / "mixed", *told) == 0
    assert f"40 texts are left out: {dense} is evaluated on them" in capsys.readouterr().err
    alone = tmp_path / "alone.txt"
    alone.write_text("".join(f"{text}\n" for text in texts(60, seed=8)))
    assert run(dense, "--text", alone, "--output", tmp_path / "alone", *told) == 0
    assert "left out" not in capsys.readouterr().err
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("mixed", "alone")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    only = tmp_path / "only.txt"
    only.write_text("".join(f"{text}\n" for text in rows))
    line = refused(capsys, dense, "--text", only, "--output", tmp_path / "out", *told)
    assert "all 40 texts are rows that the model is evaluated on: give others" in line
    (dense / "evaluation.jsonl").write_text("{")
    assert "evaluation.jsonl is not as training wrote it" in refused(
        capsys, dense, "--text", mixed, "--output", tmp_path / "out", *told
    )


def test_another_teacher_of_another_width_is_learned_from(base, text, tmp_path, capsys):
    other = bert(tmp_path / "other", hidden_size=48, intermediate_size=96)
    told = (base, "--text", text, "--groups", 2, *FAST, "--teacher", other)
    relations = ("--hidden-weight", 0, "--relation-weight", 1, "--relation-heads", 4)
    assert run(*told, "--output", tmp_path / "out", *relations) == 0
    record = json.loads((tmp_path / "out" / "squeeze.json").read_text())
    assert record["teacher"] == record["healing"]["teacher"] == str(other)
    capsys.readouterr()
    assert "cannot be compared channel by channel" in refused(capsys, *told, "--output", tmp_path / "a")
    line = refused(capsys, *told, "--output", tmp_path / "a", *relations, "--no-heal")
    assert "nothing is learned of it" in line
    nowhere = (*told[:-1], tmp_path / "nowhere", "--output", tmp_path / "a", *relations)
    assert "no teacher there" in refused(capsys, *nowhere)


def test_little_text_to_fit_on_is_said(base, text, tmp_path, capsys):
    (tmp_path / "one.txt").write_text("the boat on the river\n")
    told = ("--groups", 2, "--no-heal", "--output")
    assert run(base, "--text", tmp_path / "one.txt", *told, tmp_path / "a") == 0
    assert "warning: 7 tokens of text, and matrices read up to 64 channels" in capsys.readouterr().err
    assert run(base, "--text", text, *told, tmp_path / "b") == 0
    assert "warning" not in capsys.readouterr().err


def test_what_no_heal_leaves_aside_is_said(base, text, tmp_path, capsys):
    told = (base, "--text", text, "--groups", 2, "--no-heal")
    assert run(*told, "--output", tmp_path / "a", "--steps", 5) == 0
    assert "--no-heal: nothing is learned" in capsys.readouterr().err
    assert run(*told, "--output", tmp_path / "b", "--seed", 5) == 0
    assert "--no-heal" not in capsys.readouterr().err


def test_files_of_others_among_the_milestones_are_left_alone(base, text, tmp_path, capsys):
    output = tmp_path / "out"
    told = (base, "--text", text, "--output", output, "--groups", 2, *FAST, "--milestones", 0.5)
    assert run(*told) == 0
    for place in ("notes.txt", "step-3/notes.txt"):
        (output / "milestones" / place).write_text("mine")
        assert f"holds milestones/{place} beside a model" in refused(capsys, *told, "--overwrite")
        (output / "milestones" / place).unlink()
    assert run(*told, "--overwrite") == 0


def test_training_over_a_squeezed_model_leaves_nothing_of_it(base, text, tmp_path, topic_table):
    output = tmp_path / "out"
    assert run(base, "--text", text, "--output", output, "--groups", 2, *FAST, "--milestones", 0.5) == 0
    assert {"squeeze.json", "healing.json", "milestones"} <= set(left(output))
    (output / "mine.txt").write_text("mine")
    told = ("--base", base, "--epochs", 1, "--output", output, "--overwrite")
    assert main(["train", str(topic_table), *map(str, told)]) == 0
    assert not {"squeeze.json", "healing.json", "healing.jsonl", "milestones"} & set(left(output))
    assert (output / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ("kept_heads: 0\nintermediate_size: 0\n", "leaves out both halves of every layer"),
        ("intermediate_act: [[relu]]\n", "expected gelu, relu"),
        ("kept_heads: [2, 2, 2]\n", "kept_heads lists 3 layers"),
    ],
)
def test_shapes_that_leave_nothing_or_name_no_activation(shape, words, base, text, tmp_path, capsys):
    (tmp_path / "shape.yaml").write_text(shape)
    line = refused(capsys, base, "--text", text, "--output", tmp_path / "out", "--shape", tmp_path / "shape.yaml")
    assert words in line
    assert "groups that divide" not in line


def test_empty_names_large_seeds_and_deeper_folders(base, text, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(text.parent)
    told = (base, "--output", tmp_path / "out", "--groups", 2, "--no-heal", "--text")
    assert "--text: an empty name" in refused(capsys, *told, "")
    assert "--seed 4294967296: expected a whole number" in refused(capsys, *told, text, "--seed", 2**32)
    folder = tmp_path / "folder"
    (folder / "deeper").mkdir(parents=True)
    for place in ("a.txt", "deeper/b.txt"):
        shutil.copyfile(text, folder / place)
    assert run(*told, folder) == 0
    assert "1 .txt files in its subfolders are not read" in capsys.readouterr().err
    (tmp_path / "bad.jsonl").write_text('{"text": "the boat"}\n{"text": \n')
    line = refused(capsys, *told, tmp_path / "bad.jsonl", "--overwrite")
    assert "mend the row" in line
    assert "--skip-bad-rows" not in line


def test_an_encoder_still_embeds_as_it_did(text, tmp_path):
    """What sentence-transformers keeps beside an encoder goes along: without it the export would take the mean."""
    folder = bert(tmp_path / "bert")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 20}')
    output = tmp_path / "out"
    told = (folder, "--text", text, "--output", output, "--groups", 2, *FAST, "--milestones", 0.5)
    assert run(*told) == 0
    for place in (output, output / "milestones" / "step-3"):
        found = read_checkpoint(place)
        assert (found.pooling, found.max_length) == ("first", 20)
    pruned = ("prune", output, "--text", text, "--output", tmp_path / "pruned")
    assert main([str(argument) for argument in pruned]) == 0
    assert read_checkpoint(tmp_path / "pruned").pooling == "first"
    assert run(*told, "--overwrite") == 0  # they are ours
    (output / "1_Pooling" / "notes.txt").write_text("mine")
    assert run(*told, "--overwrite") == 1
