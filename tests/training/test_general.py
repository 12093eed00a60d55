"""General distillation: its losses, what it catches of both models, that it resumes, and what it refuses."""

from __future__ import annotations

import copy
import json
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file
from transformers import AutoTokenizer, TrainerCallback

from squeezebert.data.corpus import tokenise_corpus
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.model import SqueezeBertConfig, SqueezeBertForMaskedLM, SqueezeBertModel
from squeezebert.model.configuration import GROUP_FIELDS
from squeezebert.training import general
from squeezebert.training.general import LOG, RECORD, distil_general
from squeezebert.training.healing import MILESTONES
from squeezebert.training.losses import hidden_loss, layer_errors, logit_loss, matched_layers, relation_loss
from squeezebert.training.options import GeneralDistilOptions
from squeezebert.training.runs import PROGRESS_FOLDER
from squeezebert.training.teacher import Relations, StateCache, load_teacher

WORDS = ("the", "match", "goal", "team", "coach", "bank", "market", "share", "film", "star", "song", "vote", "law")
FAST = {"steps": 30, "learning_rate": 3e-3, "batch_tokens": 200, "held_out": 12, "save_every": 8, "seed": 3}


@pytest.fixture(scope="module")
def corpus(tiny_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    generator = random.Random(0)
    sentences = [" ".join(generator.choices(WORDS, k=generator.randint(2, 9))) + "." for _ in range(500)]
    (folder / "text.txt").write_text("\n".join(sentences))
    return tokenise_corpus(folder / "text.txt", tiny_tokenizer, folder / "tokens", max_length=32)


@pytest.fixture
def teacher(tiny_base):
    return load_teacher(tiny_base)


def new_student(teacher, **changes):
    """A student of the teacher's size with its embeddings and random grouped layers."""
    torch.manual_seed(5)
    sizes = {name: getattr(teacher.config, name) for name in ("vocab_size", "max_position_embeddings")}
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    groups = dict.fromkeys(GROUP_FIELDS, 2) | {"post_attention_groups": 1}
    config = SqueezeBertConfig(**{**sizes, **shape, **groups, "layer_norm_eps": 1e-12, **changes})
    student = SqueezeBertModel(config)
    if not changes.keys() & {"vocab_size", "hidden_size", "max_position_embeddings"}:
        student.embeddings.load_state_dict(teacher.embeddings.state_dict())
    return student.eval()


def weights(folder):
    return load_file(folder / "model.safetensors")


def assert_same_weights(one, other):
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


class Killed(Exception):
    pass


class KillAt(TrainerCallback):
    """Ends the process at a step, as far as a test can."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed


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
    torch.testing.assert_close(hidden_loss([*teacher[:1], *student], [*teacher[:1], *teacher], mask), found.mean())


def test_layers_are_matched_evenly():
    assert matched_layers(6, 6) == [1, 2, 3, 4, 5, 6]
    assert matched_layers(3, 12) == [4, 8, 12]
    assert matched_layers(4, 2)[-1] == 2


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


# --- runs -------------------------------------------------------------------------------------------------


def test_a_run_learns_and_leaves_a_complete_folder(corpus, teacher, tmp_path):
    student = new_student(teacher, hidden_dropout_prob=0.1)
    pooler = student.pooler.dense.weight.clone()
    output = tmp_path / "student"
    lines: list[str] = []
    options = GeneralDistilOptions(**FAST | {"steps": 60, "relation_weight": 0.5, "relation_heads": 4})
    result = distil_general(student, teacher, corpus, output, options, command="squeezebert x", report=lines.append)

    rows = [json.loads(line) for line in (output / LOG).read_text().splitlines()]
    assert [row["step"] for row in rows] == [8, 16, 24, 32, 40, 48, 56, 60]
    assert rows[-1] == result.held_out
    assert rows[-1]["held_out_loss"] < 0.7 * rows[0]["held_out_loss"]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert len(rows[-1]["hidden_errors"]) == 2
    assert rows[-1]["held_out_hidden"] == pytest.approx(np.mean(rows[-1]["hidden_errors"]))
    expected = rows[-1]["held_out_hidden"] + 0.5 * rows[-1]["held_out_relation"]
    assert rows[-1]["held_out_loss"] == pytest.approx(expected)
    assert result.seconds > rows[0]["seconds"] > 0
    assert 60 * 150 < result.tokens <= 60 * 200
    record = json.loads((output / RECORD).read_text())
    assert record["command"] == "squeezebert x"
    assert record["options"]["relation_weight"] == 0.5
    assert (record["steps"], record["tokens"], record["seconds"]) == (60, result.tokens, result.seconds)
    assert record["teacher"] == teacher.config.name_or_path
    assert not (output / PROGRESS_FOLDER).exists()
    assert any("held-out loss" in line for line in lines)

    # What was written is what was measured, and the student is as it was but for its weights
    kept = SqueezeBertModel.from_pretrained(output)
    batch = AutoTokenizer.from_pretrained(output)("the goal of the match.", return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(kept(**batch)[0], student.eval()(**batch)[0])
    assert kept.config.hidden_dropout_prob == 0.1
    assert all(p.requires_grad for p in student.parameters())
    assert student.encoder.layers[0].output.dropout.p == 0.1
    assert not student.encoder.layers[1].attention.query._forward_hooks
    assert torch.equal(kept.embeddings.word_embeddings.weight, teacher.embeddings.word_embeddings.weight)
    assert torch.equal(kept.pooler.dense.weight, pooler)


def test_the_error_is_that_of_the_held_out_sequences(corpus, teacher, tmp_path):
    """With a learning rate of next to nothing, the row is what a plain loop over the sequences finds."""
    student = new_student(teacher)
    options = GeneralDistilOptions(**FAST | {"steps": 1, "learning_rate": 1e-12})
    row = distil_general(student, teacher, corpus, tmp_path / "s", options).held_out
    _, held_out = general._split(len(corpus), options)
    assert len(held_out) == 12
    total, tokens = 0.0, 0
    for batch in general._held_out_batches(corpus, held_out, options):
        inputs = {name: torch.from_numpy(value) for name, value in corpus.batch(batch).items()}
        with torch.no_grad():
            states = [model.eval()(**inputs, output_hidden_states=True).hidden_states for model in (student, teacher)]
        count = int(inputs["attention_mask"].sum())
        total += count * hidden_loss(*states, inputs["attention_mask"]).item()
        tokens += count
    assert row["held_out_loss"] == pytest.approx(total / tokens, rel=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"precision": "bf16", "dropout": 0.1, "schedule": "cosine", "relation_weight": 1.0, "relation_heads": 2},
        {"cache_teacher": True, "steps": 60},
    ],
    ids=["plain", "bf16", "cached"],
)
def test_a_killed_run_resumes_to_the_same_weights(changes, corpus, teacher, tmp_path):
    options = GeneralDistilOptions(**FAST | {"milestones": (0.3, 0.5)} | changes)
    steps, student = options.steps, new_student(teacher)
    whole = distil_general(copy.deepcopy(student), teacher, corpus, tmp_path / "whole", options)
    cut = tmp_path / "cut"
    for step in (3, 19, steps - 1):  # before the first save, and after the second, and close to the end
        with pytest.raises(Killed):
            distil_general(copy.deepcopy(student), teacher, corpus, cut, options, callbacks=[KillAt(step)])
    assert len(list((cut / PROGRESS_FOLDER).glob("checkpoint-*"))) == 2
    with (cut / LOG).open("a") as stream:
        stream.write('{"step": 99, "cut off by a kil')
    lines: list[str] = []
    resumed = distil_general(copy.deepcopy(student), teacher, corpus, cut, options, report=lines.append)
    assert any("resuming at step" in line for line in lines)
    assert_same_weights(tmp_path / "whole", cut)
    assert resumed.tokens == whole.tokens

    def rows(folder):
        return [{**json.loads(line), "seconds": None} for line in (folder / LOG).read_text().splitlines()]

    assert rows(cut) == rows(tmp_path / "whole")
    assert [row["step"] for row in rows(cut)] == sorted({*range(8, steps, 8), round(0.3 * steps), steps // 2, steps})
    for step in (round(0.3 * steps), steps // 2):
        name = f"step-{step}"
        assert_same_weights(tmp_path / "whole" / MILESTONES / name, cut / MILESTONES / name)
        AutoTokenizer.from_pretrained(cut / MILESTONES / name)


def test_a_run_killed_after_its_last_save_is_only_written(corpus, teacher, tmp_path, monkeypatch):
    options = GeneralDistilOptions(**FAST)
    student = new_student(teacher)
    whole = distil_general(copy.deepcopy(student), teacher, corpus, tmp_path / "whole", options)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(general, "save_model", lambda *args: (_ for _ in ()).throw(Killed))
        distil_general(copy.deepcopy(student), teacher, corpus, tmp_path / "cut", options)
    assert not (tmp_path / "cut" / RECORD).exists()
    again = distil_general(copy.deepcopy(student), teacher, corpus, tmp_path / "cut", options)
    assert again.held_out["held_out_loss"] == whole.held_out["held_out_loss"]
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")


def test_hours_become_steps_once_and_for_all(corpus, teacher, tmp_path, monkeypatch):
    asked = []

    def speed(*args):
        asked.append(args)
        return 0.5 * len(asked)

    monkeypatch.setattr(general, "step_seconds", speed)
    options = GeneralDistilOptions(**FAST | {"hours": 10 / 3600})
    student = new_student(teacher)
    with pytest.raises(Killed):
        distil_general(copy.deepcopy(student), teacher, corpus, tmp_path / "s", options, callbacks=[KillAt(9)])
    result = distil_general(copy.deepcopy(student), teacher, corpus, tmp_path / "s", options)
    assert len(asked) == 1  # not measured again at the resume
    assert result.steps == 20
    told = distil_general(student, teacher, corpus, tmp_path / "t", GeneralDistilOptions(**FAST | {"steps": 20}))
    assert told.held_out["held_out_loss"] == result.held_out["held_out_loss"]
    assert_same_weights(tmp_path / "s", tmp_path / "t")


def test_measuring_the_speed_leaves_the_student_alone(corpus, teacher, tmp_path):
    student = new_student(teacher)
    before = copy.deepcopy(student.state_dict())
    options = GeneralDistilOptions(**FAST | {"relation_weight": 1.0, "relation_heads": 4})
    batches = general.Batches(corpus.lengths, np.arange(len(corpus)), 200, 0)
    assert 0 < general.step_seconds(student, teacher, corpus, batches, options) < 5
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert not student.encoder.layers[1].attention.query._forward_hooks


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


def test_a_cached_run_comes_close_to_one_without(corpus, teacher, tmp_path):
    student = new_student(teacher)
    losses = []
    for cached in (False, True):
        lines: list[str] = []
        options = GeneralDistilOptions(**FAST | {"steps": 60, "cache_teacher": cached})
        output = tmp_path / str(cached)
        result = distil_general(copy.deepcopy(student), teacher, corpus, output, options, report=lines.append)
        losses.append(result.held_out["held_out_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
    assert any("read from the cache" in line for line in lines)


def test_a_teacher_of_another_width_and_architecture_gives_relations(corpus, teacher, tmp_path):
    torch.manual_seed(0)
    config = transformers.DistilBertConfig(
        vocab_size=teacher.config.vocab_size, dim=24, n_layers=3, n_heads=2, hidden_dim=24, initializer_range=0.3
    )
    distil = transformers.DistilBertModel(config)
    options = GeneralDistilOptions(
        **FAST
        | {"steps": 120, "hidden_weight": 0, "relation_weight": 1.0, "relation_heads": 4, "freeze_embeddings": False}
    )
    result = distil_general(new_student(teacher), distil, corpus, tmp_path / "s", options)
    rows = [json.loads(line) for line in (tmp_path / "s" / LOG).read_text().splitlines()]
    assert rows[-1]["held_out_loss"] < 0.8 * rows[0]["held_out_loss"]
    assert result.held_out["hidden_errors"] == []


def test_answers_of_a_masked_language_model_are_learned(corpus, teacher, tmp_path):
    torch.manual_seed(0)
    models = [
        SqueezeBertForMaskedLM(
            SqueezeBertConfig(**{**new_student(teacher).config.to_dict(), "q_groups": groups, "model_type": None})
        )
        for groups in (1, 2)
    ]
    options = GeneralDistilOptions(**FAST | {"hidden_weight": 0, "logit_weight": 1.0, "freeze_embeddings": False})
    distil_general(models[1], models[0].eval(), corpus, tmp_path / "s", options)
    rows = [json.loads(line) for line in (tmp_path / "s" / LOG).read_text().splitlines()]
    assert rows[-1]["held_out_logits"] < 0.5 * rows[0]["held_out_logits"]


# --- refusals -----------------------------------------------------------------------------------------------


def test_models_and_corpora_that_do_not_fit_are_refused(corpus, teacher, tmp_path):
    student, output = new_student(teacher), tmp_path / "s"

    def refused(words, student=student, teacher=teacher, **options):
        with pytest.raises(OptionError, match=words):
            distil_general(student, teacher, corpus, output, GeneralDistilOptions(**FAST | options))
        assert not output.exists()

    refused("do not belong together", student=new_student(teacher, vocab_size=20))
    refused(
        "32 tokens, and SqueezeBertModel has 16 positions", student=new_student(teacher, max_position_embeddings=16)
    )
    refused("24 and 32 channels cannot be compared", student=new_student(teacher, hidden_size=24))
    refused("--relation-heads 5: does not divide 32", relation_weight=1.0, relation_heads=5)
    refused("--logit-weight: SqueezeBertModel has no head", logit_weight=1.0)
    refused("--cache-gigabytes is 1e-06", cache_teacher=True, cache_gigabytes=1e-6)


def test_a_run_with_other_options_or_a_finished_one_is_left_alone(corpus, teacher, tmp_path):
    student, output = new_student(teacher), tmp_path / "s"
    options = GeneralDistilOptions(**FAST)
    with pytest.raises(Killed):
        distil_general(copy.deepcopy(student), teacher, corpus, output, options, callbacks=[KillAt(9)])
    with pytest.raises(FolderError, match="with other data or options"):
        distil_general(student, teacher, corpus, output, GeneralDistilOptions(**FAST | {"steps": 31}))
    other = new_student(teacher)
    with torch.no_grad():
        other.encoder.layers[0].attention.query.bias += 1
    with pytest.raises(FolderError, match="with other data or options"):
        distil_general(other, teacher, corpus, output, options)
    distil_general(copy.deepcopy(student), teacher, corpus, output, options)
    with pytest.raises(FolderError, match="holds a finished model already"):
        distil_general(student, teacher, corpus, output, options)


def test_a_run_that_diverges_says_so(corpus, teacher, tmp_path):
    student = new_student(teacher)
    with torch.no_grad():
        student.encoder.layers[0].output.conv1d.bias[0] = float("nan")
    with pytest.raises(OptionError, match="training diverged"):
        distil_general(student, teacher, corpus, tmp_path / "s", GeneralDistilOptions(**FAST))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "--steps 0: expected more than 0"),
        ({"hours": 0}, "--hours 0"),
        ({"batch_tokens": -1}, "--batch-tokens -1"),
        ({"dropout": 1.0}, "--dropout 1.0"),
        ({"hidden_weight": -1}, "--hidden-weight -1"),
        ({"hidden_weight": 0}, "nothing is left to learn"),
        ({"milestones": (0.5, 1.5)}, r"--milestones \[0.5, 1.5\]"),
        ({"cache_teacher": True, "relation_weight": 1.0}, "--cache-teacher"),
    ],
)
def test_impossible_options_are_named(options, words):
    with pytest.raises(OptionError, match=words):
        GeneralDistilOptions(**options)
