"""A teacher's answers and states, computed once: what is looked up is what it would say, and training is the same."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, DataCollatorWithPadding, TrainerCallback

from squeezebert.data.batches import tokenise
from squeezebert.data.examples import load_labelled
from squeezebert.data.options import DataOptions
from squeezebert.files.errors import OptionError
from squeezebert.model import SqueezeBertForSequenceClassification
from squeezebert.training import trainer
from squeezebert.training.finetune import finetune
from squeezebert.training.options import DistilOptions, FinetuneOptions
from squeezebert.training.regroup import find_orders, input_variances, reorder, stream_order
from squeezebert.training.shapes import paper_shape
from squeezebert.training.squeeze import calibration_texts, squeeze
from squeezebert.training.taught import TaughtTexts

FAST = {"learning_rate": 3e-3, "batch_size": 8, "max_length": 24, "seed": 3, "patience": 0, "dropout": 0.0}


@pytest.fixture(scope="module")
def made(tiny_base, tmp_path_factory):
    """Labelled texts, a trained teacher with its tokenizer, and a student whose channels are in another order."""
    from conftest import topic_rows

    folder = tmp_path_factory.mktemp("taught")
    (folder / "t.csv").write_text(
        "".join(f'"{text}",{topic}\n' for text, topic in [("text", "label"), *topic_rows(90)])
    )
    data = load_labelled(folder / "t.csv", DataOptions(eval_fraction=0.3))
    finetune(data, tiny_base, folder / "teacher", FinetuneOptions(epochs=4, **FAST))
    teacher = SqueezeBertForSequenceClassification.from_pretrained(folder / "teacher").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "teacher")
    batches = calibration_texts(data.train, tokenizer, 24)
    student = squeeze(reorder(teacher, find_orders(teacher, 2, input_variances(teacher, batches))), paper_shape(2))
    assert stream_order(teacher, student) is not None
    return data, folder / "teacher", teacher, tokenizer, student


def test_what_is_looked_up_is_what_the_teacher_says(made):
    data, _, teacher, tokenizer, student = made
    texts = tokenise(tokenizer, data.train, 24)
    taught = TaughtTexts.of(teacher, texts, tokenizer, hidden=True)
    rows = torch.tensor([17, 3, 40, 3])
    batch = DataCollatorWithPadding(tokenizer)([texts[int(row)] for row in rows])
    assert not batch["attention_mask"].all()
    for one, order in ((teacher, None), (reorder(teacher, _orders(teacher, student)), stream_order(teacher, student))):
        logits, states = taught.look_up(rows, batch["attention_mask"], order)
        with torch.no_grad():
            outputs = one(**batch, output_hidden_states=True)
        torch.testing.assert_close(logits, outputs.logits, atol=1e-5, rtol=1e-5)
        assert len(states) == 2
        text = batch["attention_mask"].bool()
        for mine, theirs in zip(states, outputs.hidden_states[1:], strict=True):
            torch.testing.assert_close(mine[text], theirs[text], atol=1e-3, rtol=1e-3)  # float16
            assert not mine[~text].any()


def _orders(teacher, student):
    from squeezebert.training.regroup import Orders

    heads, inner = torch.arange(teacher.config.num_attention_heads), torch.arange(teacher.config.intermediate_size)
    return Orders(stream_order(teacher, student), [heads] * 2, [inner] * 2, 0.0)


def test_training_on_it_is_training_on_the_teacher(made, tmp_path, monkeypatch):
    data, folder, teacher, _, student = made
    losses = {}
    compute = trainer.DistilTrainer.compute_loss

    def train(name, calls, **told):
        def compute_loss(self, *args, **kwargs):
            loss = compute(self, *args, **kwargs)
            losses.setdefault(name, []).append(loss if isinstance(loss, torch.Tensor) else loss[0])
            return loss

        monkeypatch.setattr(trainer.DistilTrainer, "compute_loss", compute_loss)
        heard = teacher.register_forward_hook(lambda *_: calls.append(1))
        distil = DistilOptions(alpha=0.9, hidden_weight=1.0, **told)
        model = SqueezeBertForSequenceClassification(student.config)
        model.load_state_dict(student.state_dict())
        options = FinetuneOptions(epochs=3, **FAST)
        finetune(data, folder, tmp_path / name, options, model=model, teacher=teacher, distil=distil)
        heard.remove()
        return json.loads((tmp_path / name / "squeezebert.json").read_text())

    asked, kept = [], []
    train("asked", asked)
    record = train("kept", kept, cache_teacher=True)
    assert len(kept) == math.ceil(len(data.train) / 32)  # once over the texts
    torch.testing.assert_close(torch.stack(losses["kept"]), torch.stack(losses["asked"]), rtol=2e-3, atol=2e-3)
    assert losses["kept"][-1] < losses["kept"][0] / 2
    assert record["distil"] == {
        "teacher": str(folder),
        "unlabelled": 0,
        **{"alpha": 0.9, "temperature": 2.0, "hidden_weight": 1.0, "refit": True},
        **{"cache_teacher": True, "cache_gigabytes": 8.0},
    }


def test_a_killed_run_resumes_to_the_same_weights(made, tmp_path):
    data, folder, teacher, _, student = made

    class Killed(Exception):
        pass

    class Kill(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 13:
                raise Killed

    def train(name, *callbacks):
        model = SqueezeBertForSequenceClassification(student.config)
        model.load_state_dict(student.state_dict())
        options = FinetuneOptions(epochs=2, save_every=5, **FAST)
        distil = DistilOptions(hidden_weight=1.0, cache_teacher=True)
        told = {"model": model, "teacher": teacher, "distil": distil, "callbacks": callbacks}
        return finetune(data, folder, tmp_path / name, options, **told)

    whole = train("whole")
    with pytest.raises(Killed):
        train("cut", Kill())
    assert train("cut").metrics == whole.metrics
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_too_much_memory_is_refused_and_answers_alone_take_next_to_none(made):
    data, _, teacher, tokenizer, _ = made
    texts = tokenise(tokenizer, data.train, 24)
    with pytest.raises(OptionError, match=r"--cache-gigabytes is 1e-06: raise it, leave --cache-teacher out"):
        TaughtTexts.of(teacher, texts, tokenizer, hidden=True, gigabytes=1e-6)
    assert TaughtTexts.of(teacher, texts, tokenizer, hidden=False, gigabytes=1e-6).states == []
