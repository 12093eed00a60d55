"""`squeezebert squeeze` cut off between any two stages: the repeated command ends the same, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dense_models import bert, classifier, text_file
from squeezebert.cli import main
from squeezebert.training import general, unlabelled
from squeezebert.training.healing import GeneralTrainer
from squeezebert.training.runs import begin
from squeezebert.workflows import squeeze
from squeezebert.workflows.squeezing import Workshop

OPTIONS = ("--groups", "2", "--steps", "8", "--batch-tokens", "200", "--held-out", "4", "--save-every", "3")


class Killed(BaseException):
    """Ends a run, as far as a test can; `SqueezeBertError` would be tidied up after."""


def run(*arguments: object) -> int:
    return main(["squeeze", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A classifier, a text, and the folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("made")
    base, text = classifier(folder / "base"), text_file(folder)
    assert run(base, "--text", text, "--output", folder / "whole", *OPTIONS) == 0
    return base, text, folder / "whole"


def assert_same(one, other):
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    for name in ("squeezebert.json", "healing.json"):
        a, b = (json.loads((folder / name).read_text()) for folder in (one, other))
        for told in (a, b):
            for varies in ("command", "seconds", "seconds_per_step", "held_out"):
                told.pop(varies, None)
            told.get("corpus", {}).pop("source", None)
        assert a == b
    assert {path.name for path in one.iterdir()} == {path.name for path in other.iterdir()}


def bomb(monkeypatch, owner, name, after, calls=1):
    """Let the given call of a function end the run, before it does anything or after it did everything."""
    original, count = getattr(owner, name), [0]

    def wrapped(*args, **kwargs):
        count[0] += 1
        if count[0] == calls and not after:
            raise Killed
        result = original(*args, **kwargs)
        if count[0] == calls and after:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, wrapped)


PLACES = [
    (unlabelled, "tokenise_corpus", False, 1),
    (unlabelled, "tokenise_corpus", True, 1),
    (squeeze, "find_orders", True, 1),
    (squeeze, "save_model", False, 1),
    (squeeze, "save_model", True, 1),
    (squeeze, "squeeze", False, 1),
    (squeeze, "squeeze", True, 1),
    (squeeze, "save_model", True, 2),
    (squeeze, "distil_general", False, 1),
    (GeneralTrainer, "evaluate", False, 1),
    (GeneralTrainer, "_save_checkpoint", False, 1),
    (GeneralTrainer, "_save_checkpoint", True, 1),
    (GeneralTrainer, "_save_checkpoint", True, 2),
    (GeneralTrainer, "_save_checkpoint", True, 3),
    (general, "save_model", False, 1),
    (general, "save_model", True, 1),
    (general, "write_json", True, 1),
    (squeeze, "distil_general", True, 1),
    (squeeze, "save_model", True, 3),
    (squeeze, "carry_record", False, 1),
    (squeeze, "carry_record", True, 1),
    (squeeze, "card", True, 1),
    (Workshop, "clear", False, 1),
]


# Over an old model, which has to be there as long as the new one is not
OVER = [(*place, True) for place in PLACES[0:1] + PLACES[-7:]]


@pytest.mark.parametrize(("owner", "name", "after", "calls", "overwrite"), [*((*p, False) for p in PLACES), *OVER])
def test_a_run_cut_off_anywhere_ends_as_one_that_was_not(
    owner, name, after, calls, overwrite, made, tmp_path, monkeypatch
):
    base, text, whole = made
    output = tmp_path / "out"
    told = (base, "--text", text, "--output", output, *OPTIONS)
    if overwrite:
        bert(output)
        old = (output / "model.safetensors").read_bytes()
        told += ("--overwrite",)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        bomb(patched, owner, name, after, calls)
        run(*told)
    if overwrite and owner is not Workshop:
        assert (output / "model.safetensors").read_bytes() == old
    elif owner is not Workshop:
        assert not output.exists()
    assert run(*told) == 0
    assert_same(output, whole)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_was_done_is_not_done_again(made, tmp_path, monkeypatch, capsys):
    base, text, whole = made
    told = (base, "--text", text, "--output", tmp_path / "out", *OPTIONS)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        bomb(patched, GeneralTrainer, "_save_checkpoint", True, 2)
        run(*told)
    capsys.readouterr()
    with monkeypatch.context() as patched:
        for name in ("find_orders", "reorder", "squeeze"):
            patched.setattr(squeeze, name, None)
        assert run(*told) == 0
    said = capsys.readouterr().err
    assert "are there already" in said
    assert "resuming at step 6 of 8" in said
    assert_same(tmp_path / "out", whole)


def test_a_kill_between_the_end_and_the_clearing_up_leaves_a_finished_run(made, tmp_path, monkeypatch, capsys):
    base, text, whole = made
    told = (base, "--text", text, "--output", tmp_path / "out", *OPTIONS)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        bomb(patched, Workshop, "clear", False)
        run(*told)
    stamp = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    assert run(*told) == 0
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == stamp
    assert "next: squeezebert export" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    # While deleting: what is left has another name, and the next command deletes it
    (tmp_path / ".out.squeezing.done" / "text").mkdir(parents=True)
    assert run(*told) == 0
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == stamp
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (tmp_path / ".out.squeezing.rest" / "text").mkdir(parents=True)  # of a job that was given up
    assert run(*told) == 1
    assert "holds a model already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert_same(tmp_path / "out", whole)


def test_a_kill_between_the_two_renames_loses_no_old_model(made, tmp_path, capsys):
    base, text, _ = made
    output = bert(tmp_path / "out")
    old = (output / "model.safetensors").read_bytes()
    output.rename(tmp_path / ".out.old-elsewhere-1-abc")
    (tmp_path / ".out.old-elsewhere-1-abc").touch()
    os.utime(tmp_path / ".out.old-elsewhere-1-abc", (0, 0))  # of a process that is long gone
    assert run(base, "--text", text, "--output", output, *OPTIONS) == 1
    assert "holds a model already" in capsys.readouterr().err
    assert (output / "model.safetensors").read_bytes() == old


@pytest.mark.parametrize("change", ["groups", "text", "model", "no-heal"])
def test_a_cut_off_run_of_other_options_is_not_lost_unsaid(change, made, tmp_path, monkeypatch, capsys):
    base, text, whole = made
    own = Path(shutil.copy(text, tmp_path / "own.txt"))
    first = (base, "--text", own, "--output", tmp_path / "out", *OPTIONS)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        bomb(patched, GeneralTrainer, "_save_checkpoint", True, 2)
        run(*first)
    second = first
    if change == "groups":
        second = (*first, "--groups", 4)
    elif change == "no-heal":
        second = (*first, "--no-heal")
    elif change == "model":
        second = (classifier(tmp_path / "other", seed=1), *first[1:])
    else:
        own.write_text(text.read_text() + "more text.\n")
    capsys.readouterr()
    assert run(*second) == 1
    said = capsys.readouterr().err
    told = {"groups": "--groups, --rank or --shape", "no-heal": "--heal", "model": "model", "text": "text"}[change]
    assert f"out.squeezing holds a run that was cut off, with another {told}: repeat its command" in said
    assert f"squeezebert squeeze {base} --text {own}" in said
    # Its own command still finishes it
    own.write_text(text.read_text())
    saves = sorted((tmp_path / "out.squeezing" / "healed" / ".training").glob("checkpoint-*"))
    assert len(saves) == 2
    if change == "model":
        assert run(*second, "--overwrite") == 0
        assert "giving up the run that was cut off: squeezebert squeeze" in capsys.readouterr().err
        return
    assert run(*first) == 0
    assert "resuming at step 6 of 8" in capsys.readouterr().err
    assert_same(tmp_path / "out", whole)


def test_before_healing_other_options_begin_anew(made, tmp_path, monkeypatch):
    base, text, whole = made
    told = (base, "--text", text, "--output", tmp_path / "out")
    with monkeypatch.context() as patched, pytest.raises(Killed):
        bomb(patched, squeeze, "squeeze", True)
        run(*told, "--groups", 4)
    assert run(*told, *OPTIONS) == 0
    assert_same(tmp_path / "out", whole)


def test_a_folder_in_the_way_is_left_alone(made, tmp_path, capsys):
    base, text, _ = made
    (tmp_path / "out.squeezing").mkdir()
    (tmp_path / "out.squeezing" / "mine").write_text("")
    assert run(base, "--text", text, "--output", tmp_path / "out", *OPTIONS, "--overwrite") == 1
    assert "is in the way, and not what squeeze left there" in capsys.readouterr().err
    assert (tmp_path / "out.squeezing" / "mine").exists()


def test_a_pooler_that_starts_anew_starts_the_same(made, tmp_path, monkeypatch):
    """An ELECTRA has none: what is drawn for it is drawn again by the run that goes on."""
    base, (_, text, _) = bert(tmp_path / "base", "ElectraModel", embedding_size=16), made
    for name in ("whole", "cut"):
        told = (base, "--text", text, "--output", tmp_path / name, *OPTIONS)
        if name == "cut":
            with monkeypatch.context() as patched, pytest.raises(Killed):
                bomb(patched, GeneralTrainer, "_save_checkpoint", True, 1)
                run(*told)
        assert run(*told) == 0
    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert whole["pooler.dense.weight"].abs().max() > 0


def test_the_mark_of_a_run_outlives_its_saves(tmp_path):
    """Saves that are being deleted are nobody's once their mark is gone."""
    work = tmp_path / "work"
    begin(work, "one")
    (work / "checkpoint-3").mkdir()
    begin(work, "one")
    assert (work / "checkpoint-3").exists()
    (work / "fingerprint").unlink()
    begin(work, "two")
    assert not (work / "checkpoint-3").exists()
    assert (work / "fingerprint").read_text() == "two"
