"""Pretraining: what a run leaves, that it learns, resumes and is the same on two processes, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import TrainerCallback

from pretraining_text import CHAIN, small_pretraining_corpus
from squeezebert.data.options import CorpusOptions
from squeezebert.data.pretraining.building import build_corpus
from squeezebert.data.pretraining.rows import PretrainingCorpus
from squeezebert.files.errors import DivergedError, FolderError, OptionError
from squeezebert.model import SqueezeBertConfig, SqueezeBertForPreTraining
from squeezebert.training import pretraining
from squeezebert.training.options import PretrainOptions
from squeezebert.training.pretraining import LOG, RECORD, optimizer_of, pretrain
from squeezebert.training.runs import PROGRESS_FOLDER

FAST = {
    "steps": 12,
    "batch_size": 16,
    "micro_batch": 8,
    "max_length": 48,
    "learning_rate": 1e-2,
    "warmup": 0.1,
    "save_every": 4,
    "held_out_rows": 16,
    "seed": 3,
}


@pytest.fixture(scope="module")
def corpus(tiny_tokenizer, tmp_path_factory):
    return small_pretraining_corpus(tmp_path_factory.mktemp("pretraining"), tiny_tokenizer)


def new_model(corpus, **changes):
    transformers.set_seed(3)
    sizes = {
        "vocab_size": corpus.manifest["vocabulary_entries"],
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 48,
    }
    return SqueezeBertForPreTraining(SqueezeBertConfig(**sizes | changes))


def log_of(folder):
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def without_clock(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


# Enough to learn what words follow one another
LEARNS = {"steps": 150, "save_every": 50, "milestones": (0.2,), "dropout": 0.0, "learning_rate": 3e-2}


class Killed(Exception):
    pass


class KillAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed


class TermAt(TrainerCallback):
    """A batch system that ends the process."""

    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


class Rates(TrainerCallback):
    """The learning rate of each step."""

    def __init__(self):
        self.seen = []

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.seen.append(kwargs["lr_scheduler"].get_last_lr()[0])


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        (None, [0, 0.5, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        (0.4, [0, 0.5, 1, 1, 1, 1, 1, 3 / 4, 2 / 4, 1 / 4]),
        (0.8, [0, 0.5, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
    ],
)
def test_the_rate_falls_from_its_peak_on_or_over_the_last_share_of_the_steps(corpus, tmp_path, decay, expected):
    rates = Rates()
    options = PretrainOptions(**FAST | {"steps": 10, "warmup": 0.2, "decay": decay})
    pretrain(new_model(corpus), corpus, tmp_path / "out", options, callbacks=[rates])
    assert rates.seen == pytest.approx([1e-2 * share for share in expected])


@pytest.mark.parametrize("decay", [0.0, -0.1, 0.95])
def test_a_fall_that_does_not_fit_is_refused(decay):
    with pytest.raises(OptionError, match="leaves room for"):
        PretrainOptions(**FAST | {"decay": decay})
    assert PretrainOptions(**FAST | {"warmup": 0.9, "decay": 0.1}).decay == 0.1  # 1 - 0.9 is a little less than 0.1


def test_masked_positions_alone_give_the_same_loss_and_gradients(corpus):
    model = new_model(corpus).eval()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, model.config.vocab_size, (3, 20), generator=generator)
    labels = ids.masked_fill(torch.rand(ids.shape, generator=generator) > 0.2, -100)
    told = {"labels": labels, "sentence_order_label": torch.tensor([0, 1, 1])}
    gradients = []
    for only in (False, True):
        model.zero_grad()
        outputs = model(ids, torch.ones_like(ids), masked_only=only, **told)
        outputs.loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
        losses = outputs.loss if not only else torch.stack([losses, outputs.loss])  # noqa: F821
    assert torch.allclose(losses[0], losses[1], rtol=1e-6)
    assert outputs.prediction_logits.shape == ((labels != -100).sum(), model.config.vocab_size)
    assert all(torch.allclose(one, other, atol=1e-7) for one, other in zip(*gradients, strict=True))
    summed = model(ids, torch.ones_like(ids), masked_only=True, reduction="sum", **told)
    assert float(summed.prediction_loss.detach() / (labels != -100).sum()) == pytest.approx(
        float(outputs.prediction_loss), rel=1e-5
    )
    assert float(summed.seq_relationship_loss.detach() / 3) == pytest.approx(
        float(outputs.seq_relationship_loss.detach()), rel=1e-5
    )
    with pytest.raises(ValueError, match="give labels"):
        model(ids, masked_only=True)


def test_a_run_learns_and_leaves_a_complete_folder(corpus, tmp_path):
    lines: list[str] = []
    options = PretrainOptions(**FAST | LEARNS)
    result = pretrain(new_model(corpus), corpus, tmp_path / "out", options, command="x", report=lines.append)
    rows = log_of(tmp_path / "out")
    assert [row["step"] for row in rows] == [30, 50, 100, 150]
    assert result.finished
    assert result.held_out == rows[-1]
    assert rows[-1]["held_out_mlm_loss"] < 0.93 * rows[0]["held_out_mlm_loss"]
    assert rows[-1]["held_out_loss"] == pytest.approx(rows[-1]["held_out_mlm_loss"] + rows[-1]["held_out_sop_loss"])
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert (record["command"], record["steps"]) == ("x", 150)
    assert record["held_out"] == rows[-1]
    assert not (tmp_path / "out" / PROGRESS_FOLDER).exists()
    assert any("rows of" in line and "padding" in line for line in lines)
    assert any("SOP accuracy" in line for line in lines)
    for place in (tmp_path / "out", tmp_path / "out" / "milestones" / "step-30"):
        _, info = SqueezeBertForPreTraining.from_pretrained(place, output_loading_info=True)
        assert not info["missing_keys"]
        assert transformers.AutoTokenizer.from_pretrained(place).mask_token == "[MASK]"
    with pytest.raises(FolderError, match="finished model already: choose another --output, or delete it"):
        pretrain(new_model(corpus), corpus, tmp_path / "out", options)


def test_an_order_that_words_tell_is_learned(tiny_tokenizer, tmp_path):
    """Documents whose sentences go along the chain of words: what stands later in it comes later."""
    tiny_tokenizer.save_pretrained(tmp_path / "vocabulary")
    random = np.random.default_rng(0)
    documents = []
    for number in range(400):
        starts = np.sort(random.choice(len(CHAIN) - 5, 6, replace=False))
        sentences = [" ".join(CHAIN[start : start + 5]) + f" {number}." for start in starts]
        documents.append(" ".join(sentences))
    (tmp_path / "text.txt").write_text("\n\n".join(documents))
    told = CorpusOptions(vocabulary=str(tmp_path / "vocabulary"), workers=1, held_out=0.2, shortest=5)
    build_corpus([str(tmp_path / "text.txt")], tmp_path / "corpus", told)
    corpus = PretrainingCorpus.open(tmp_path / "corpus")
    longer = {"steps": 600, "save_every": 600, "milestones": (), "held_out_rows": 64}  # words are learned before
    result = pretrain(new_model(corpus), corpus, tmp_path / "out", PretrainOptions(**FAST | LEARNS | longer))
    assert result.held_out["held_out_sop_accuracy"] > 0.8


@pytest.mark.parametrize("cut", [3, 5, 8])
def test_a_killed_run_goes_on_as_if_nothing_had_been(corpus, tmp_path, cut):
    options = PretrainOptions(**FAST)
    pretrain(new_model(corpus), corpus, tmp_path / "whole", options)
    with pytest.raises(Killed):
        pretrain(new_model(corpus), corpus, tmp_path / "cut", options, callbacks=[KillAt(cut)])
    pretrain(new_model(corpus), corpus, tmp_path / "cut", options)
    assert without_clock(log_of(tmp_path / "cut")) == without_clock(log_of(tmp_path / "whole"))
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_sigterm_ends_behind_the_step_and_the_run_goes_on(corpus, tmp_path):
    options, before = PretrainOptions(**FAST), signal.getsignal(signal.SIGTERM)
    pretrain(new_model(corpus), corpus, tmp_path / "whole", options)
    lines: list[str] = []
    result = pretrain(new_model(corpus), corpus, tmp_path / "cut", options, callbacks=[TermAt(6)], report=lines.append)
    assert (result.finished, result.steps) == (False, 6)
    assert any("saving at step 6" in line for line in lines)
    assert signal.getsignal(signal.SIGTERM) == before
    assert not (tmp_path / "cut" / RECORD).exists()
    pretrain(new_model(corpus), corpus, tmp_path / "cut", options)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def launch(corpus, output, processes, **options):
    program = (
        "import sys, json\n"
        "from pathlib import Path\n"
        "sys.path[:0] = json.loads(sys.argv[1])\n"
        "from test_pretraining import new_model\n"
        "from squeezebert.data.pretraining.rows import PretrainingCorpus\n"
        "from squeezebert.training.options import PretrainOptions\n"
        "from squeezebert.training.pretraining import pretrain\n"
        "corpus = PretrainingCorpus.open(Path(sys.argv[2]))\n"
        "pretrain(new_model(corpus), corpus, Path(sys.argv[3]), PretrainOptions(**json.loads(sys.argv[4])))\n"
    )
    script = output.parent / "program.py"
    script.write_text(program)
    told = [json.dumps([p for p in sys.path if "tests" in p]), str(corpus.folder), str(output), json.dumps(options)]
    command = [sys.executable, str(script), *told]
    if processes > 1:
        run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone"]
        command = [*run, str(script), *told]
    made = subprocess.run(
        command, check=False, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert made.returncode == 0, made.stderr[-4000:]


def test_two_processes_and_one_are_the_same_run(corpus, tmp_path):
    # Without clipping, and without LAMB's norms, which would hide a gradient of another size
    options = FAST | {"steps": 6, "save_every": 2, "dropout": 0.0, "optimizer": "adamw", "max_grad_norm": 0.0}
    launch(corpus, tmp_path / "one", 1, **options)
    launch(corpus, tmp_path / "two", 2, **options)
    rows = [log_of(tmp_path / name) for name in ("one", "two")]
    for one, two in zip(*rows, strict=True):
        assert one["step"] == two["step"]
        assert one["tokens"] == two["tokens"]
        for name in one.keys() - {"step", "seconds", "tokens"}:
            assert one[name] == pytest.approx(two[name], rel=1e-4), name
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(one[name], two[name], atol=2e-5) for name in one)


@pytest.mark.slow
def test_it_goes_on_with_another_number_of_processes(corpus, tmp_path):
    options = FAST | {"dropout": 0.0}
    pretrain(new_model(corpus), corpus, tmp_path / "whole", PretrainOptions(**options))
    with pytest.raises(Killed):
        pretrain(new_model(corpus), corpus, tmp_path / "cut", PretrainOptions(**options), callbacks=[KillAt(5)])
    launch(corpus, tmp_path / "cut", 2, **options)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.allclose(one[name], other[name], atol=5e-5) for name in one)
    assert log_of(tmp_path / "cut")[-1]["held_out_loss"] == pytest.approx(
        log_of(tmp_path / "whole")[-1]["held_out_loss"], rel=1e-3
    )


def test_a_step_is_the_mean_over_all_words_and_orders_it_asks_for(corpus, tmp_path):
    """However its rows are shared out: many small batches, some with few words, or one large one."""
    options = FAST | {"steps": 1, "save_every": 1, "dropout": 0.0, "batch_size": 32, "learning_rate": 1e-3}
    trained = {}
    for micro in (32, 4):
        told = PretrainOptions(**options | {"micro_batch": micro, "optimizer": "adamw"})
        training, _ = pretraining.batches_of(corpus, corpus.tokenizer(), told)
        rows = [training[number] for number in range(32 // micro)]
        model = new_model(corpus).eval()
        words, orders = (
            sum(int((batch[name] != -100).sum()) for batch in rows) for name in ("labels", "sentence_order_label")
        )
        assert 0 < orders <= 32
        for batch in rows:
            given = {name: torch.from_numpy(array) for name, array in batch.items()}
            found = model(**given, masked_only=True, reduction="sum")
            (found.prediction_loss / words + found.seq_relationship_loss / orders).backward()
        expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        seen = {}

        class Look(TrainerCallback):
            def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
                found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
                seen.update({name: gradient.clone() for name, gradient in found.items()})  # noqa: B023

        told = PretrainOptions(**options | {"micro_batch": micro, "optimizer": "adamw", "max_grad_norm": 0.0})
        pretrain(new_model(corpus), corpus, tmp_path / str(micro), told, callbacks=[Look()])
        trained[micro] = seen
        assert seen.keys() == expected.keys()
        assert all(torch.allclose(seen[name], expected[name], atol=1e-6) for name in seen)


def test_decay_and_trust_spare_vectors(corpus):
    optimiser = optimizer_of(new_model(corpus), PretrainOptions(**FAST))
    matrices, vectors = optimiser.param_groups
    assert all(parameter.ndim > 1 for parameter in matrices["params"])
    assert all(parameter.ndim == 1 for parameter in vectors["params"])
    assert (matrices["weight_decay"], matrices["trust"]) == (0.01, True)
    assert (vectors["weight_decay"], vectors["trust"]) == (0.0, False)
    assert isinstance(optimizer_of(new_model(corpus), PretrainOptions(**FAST, optimizer="adamw")), torch.optim.AdamW)


@pytest.mark.parametrize("launcher", ["FSDP", "DEEPSPEED"])
def test_launchers_that_shard_weights_are_refused(corpus, tmp_path, monkeypatch, launcher):
    monkeypatch.setenv(f"ACCELERATE_USE_{launcher}", "true")
    with pytest.raises(OptionError, match=r"needs the norms of whole ones.*torchrun"):
        pretrain(new_model(corpus), corpus, tmp_path / "out", PretrainOptions(**FAST))


def test_what_does_not_fit_together_is_refused(corpus, tmp_path, monkeypatch):
    with pytest.raises(OptionError, match=r"vocabulary has .* entries, and the model embeddings for 50"):
        pretrain(new_model(corpus, vocab_size=50), corpus, tmp_path / "a", PretrainOptions(**FAST))
    with pytest.raises(OptionError, match="--max-length 64: the model has 48 positions"):
        pretrain(new_model(corpus), corpus, tmp_path / "b", PretrainOptions(**FAST | {"max_length": 64}))
    with pytest.raises(OptionError, match="not a multiple of --micro-batch"):
        PretrainOptions(**FAST | {"batch_size": 12})
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(OptionError, match="3 processes cannot share evenly"):
        pretraining.check_sizes(new_model(corpus), corpus, PretrainOptions(**FAST))


def test_another_run_in_the_folder_is_left_alone(corpus, tmp_path):
    with pytest.raises(Killed):
        pretrain(new_model(corpus), corpus, tmp_path / "out", PretrainOptions(**FAST), callbacks=[KillAt(5)])
    with pytest.raises(FolderError, match="with other data or options"):
        pretrain(new_model(corpus), corpus, tmp_path / "out", PretrainOptions(**FAST | {"learning_rate": 1e-3}))


def test_a_diverged_run_says_so(corpus, tmp_path):
    model = new_model(corpus)
    with torch.no_grad():
        model.transformer.pooler.dense.weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match="lower --learning-rate"):
        pretrain(model, corpus, tmp_path / "out", PretrainOptions(**FAST))


def test_the_configurations_dropout_is_kept_unless_told_otherwise(corpus, tmp_path):
    model = new_model(corpus, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.0)
    seen = []

    class Look(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            seen.append({name: m.p for name, m in model.named_modules() if isinstance(m, torch.nn.Dropout)})

    pretrain(model, corpus, tmp_path / "out", PretrainOptions(**FAST | {"steps": 1}), callbacks=[Look()])
    assert {p for name, p in seen[0].items() if "attention" in name and "post" not in name} == {0.0}
    assert {p for name, p in seen[0].items() if "embeddings" in name} == {0.1}


def test_several_devices_in_one_process_are_refused(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(OptionError, match=r"2 devices: start one process for each.*launch/pretrain\.sh"):
        pretrain(new_model(corpus), corpus, tmp_path / "out", PretrainOptions(**FAST))


def test_a_damaged_shard_is_named_before_anything_begins(corpus, tmp_path):
    import shutil

    folder = tmp_path / "corpus"
    shutil.copytree(corpus.folder, folder)
    shard = sorted(folder.glob("train-*.arrow"))[0]
    shard.write_bytes(shard.read_bytes()[:-64])
    with pytest.raises(FolderError, match=rf"{shard.name}.*repeat the `corpus` command"):
        PretrainingCorpus.open(folder)


def test_rows_of_one_sentence_have_no_order_to_measure(tiny_tokenizer, tmp_path):
    tiny_tokenizer.save_pretrained(tmp_path / "vocabulary")
    documents = [
        f"document {n} and the team won a cup and the bank lost a share of trade and more." for n in range(90)
    ]
    (tmp_path / "text.txt").write_text("\n\n".join(documents))
    told = CorpusOptions(vocabulary=str(tmp_path / "vocabulary"), workers=1, held_out=0.2, shortest=5)
    build_corpus([str(tmp_path / "text.txt")], tmp_path / "corpus", told)
    corpus, lines = PretrainingCorpus.open(tmp_path / "corpus"), []
    options = PretrainOptions(**FAST | {"steps": 1})
    result = pretrain(new_model(corpus), corpus, tmp_path / "out", options, report=lines.append)
    assert result.held_out["held_out_sop_loss"] is result.held_out["held_out_sop_accuracy"] is None
    assert result.held_out["held_out_loss"] == result.held_out["held_out_mlm_loss"]
    assert any("no row has two sentences to ask the order of" in line for line in lines)


def test_held_out_rows_are_the_same_however_batches_are_cut(corpus):
    made = [
        pretraining.batches_of(corpus, corpus.tokenizer(), PretrainOptions(**FAST | {"micro_batch": micro}))[1]
        for micro in (4, 16)
    ]
    for one, other in zip(*made, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_full_disk_is_told_in_words(corpus, tmp_path, monkeypatch):
    """As torch's and safetensors' writers tell it; the save before it stays."""
    from safetensors import SafetensorError

    saved = transformers.Trainer._save_checkpoint
    for number, error in enumerate((RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos"),
                                    SafetensorError("I/O error: No space left on device (os error 28)"))):  # fmt: skip
        with monkeypatch.context() as patched:

            def full(self, model, trial, error=error):
                if self.state.global_step > 5:
                    raise error
                saved(self, model, trial)

            patched.setattr(transformers.Trainer, "_save_checkpoint", full)
            with pytest.raises(FolderError, match=r"could not be written.*goes on from the save before"):
                pretrain(new_model(corpus), corpus, tmp_path / str(number), PretrainOptions(**FAST))
        assert pretrain(new_model(corpus), corpus, tmp_path / str(number), PretrainOptions(**FAST)).finished
