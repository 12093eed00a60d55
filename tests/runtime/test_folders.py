"""Sorting into folders: what is learned, when it is unsure, what is out of scope, and what is kept on disk."""

from __future__ import annotations

import json

import numpy as np
import pytest

from squeezebert.files.errors import FolderError, OptionError
from squeezebert.runtime.folders import Folders
from squeezebert.runtime.predictor import load

pytest_plugins = ["exported_folders"]

# Words of one subject each; a text is a few of one subject and some that say nothing
SUBJECTS = {
    "travel": ["train", "boat", "river", "walk"],
    "home": ["garden", "window", "table", "green"],
    "desk": ["letter", "paper", "read", "write"],
}
EMPTY = ["the", "of", "to", "and", "in", "is"]


def examples(count, seed, subjects=tuple(SUBJECTS)):
    random = np.random.default_rng(seed)
    names = [str(random.choice(subjects)) for _ in range(count)]
    found = [" ".join([*random.choice(SUBJECTS[name], 4), *random.choice(EMPTY, 2)]) for name in names]
    return found, names


@pytest.fixture(scope="module")
def sorter(encoder):
    made = Folders(encoder, precision=0.95)
    made.learn(*examples(90, seed=0))
    return made


def test_new_texts_are_sorted(sorter):
    texts, names = examples(120, seed=1)
    answers = sorter.sort(texts)
    right = np.array([answer.likely[0][0] == name for answer, name in zip(answers, names, strict=True)])
    assert right.mean() > 0.9
    assert abs(sorter.accuracy - right.mean()) < 0.1  # what leaving one out promised
    for answer in answers:
        assert len(answer.likely) == 3
        assert sum(probability for _, probability in answer.likely) == pytest.approx(1)
        assert answer.folder in (None, answer.likely[0][0])
    sure = np.array([answer.folder is not None for answer in answers])
    assert right[sure].mean() >= 0.93
    assert [len(answer.likely) for answer in sorter.sort(texts[:2], top=1)] == [1, 1]


def test_what_is_left_out_is_what_fitting_without_it_gives(encoder):
    texts, names = examples(30, seed=4)
    whole = Folders(encoder)
    whole.learn(texts, names)
    X, Y = whole._extended(whole.vectors), np.eye(3)[whole.places]
    energy = float(np.linalg.eigvalsh(X.T @ X).sum()) / X.shape[1]
    for row in (0, 13):
        kept = np.arange(30) != row
        # The ridge of the whole, solved without the row
        for ridge in (0.001, 0.1):
            inverse = np.linalg.inv(X.T @ X + ridge * energy * np.eye(X.shape[1]))
            leverage = X[row] @ inverse @ X[row]
            fitted = X[row] @ inverse @ X.T @ Y
            shortcut = Y[row] - (Y[row] - fitted) / (1 - leverage)
            without = np.linalg.inv(X[kept].T @ X[kept] + ridge * energy * np.eye(X.shape[1])) @ X[kept].T @ Y[kept]
            np.testing.assert_allclose(shortcut, X[row] @ without, atol=1e-8)


def test_a_folder_is_learned_later_as_if_from_the_start(encoder):
    first, second = examples(60, 2, ("travel", "home")), examples(30, 3, ("desk",))
    later = Folders(encoder)
    later.learn(*first)
    assert later.sort(["read the letter and write on paper"])[0].likely[0][0] != "desk"
    later.learn(*second)
    at_once = Folders(encoder)
    at_once.learn([*first[0], *second[0]], [*first[1], *second[1]])
    probe = examples(20, 5)[0]
    assert later.digest == at_once.digest
    assert later.sort(probe) == at_once.sort(probe)
    assert later.sort(["read the letter and write on paper"])[0].likely[0][0] == "desk"
    later.forget("desk")
    assert set(later.folders) == {"travel", "home"}
    before = Folders(encoder)
    before.learn(*first)
    assert later.sort(probe) == before.sort(probe)


def test_what_is_like_nothing_is_out_of_scope(sorter, encoder):
    inside, _ = examples(100, seed=8)
    shares = [
        np.mean([answer.out_of_scope for answer in sorter.sort(texts)])
        for texts in (inside, ["7 7 7 7", "漢字", "@%@%"])
    ]
    assert shares[0] < 0.15
    assert shares[1] > 0.5
    assert all(answer.folder is None for answer in sorter.sort(["漢字"]) if answer.out_of_scope)
    open_to_all = Folders(encoder, scope=0)
    open_to_all.learn(*examples(40, seed=0))
    assert not open_to_all.sort(["漢字"])[0].out_of_scope


def test_a_sorter_that_knows_little_is_unsure(encoder):
    texts, _ = examples(60, seed=0)
    random = np.random.default_rng(99)
    guessing = Folders(encoder, precision=0.95)
    guessing.learn(texts, [str(random.choice(["a", "b", "c"])) for _ in texts])
    assert guessing.accuracy < 0.6
    assert np.mean([answer.folder is None for answer in guessing.sort(examples(60, seed=1)[0])]) > 0.9


def test_it_is_kept_without_its_texts(sorter, encoder, tmp_path):
    sorter.save(tmp_path / "s")
    again = Folders.open(tmp_path / "s", encoder)
    probe = examples(20, seed=6)[0]
    assert again.sort(probe) == sorter.sort(probe)
    assert again.precision == 0.95
    assert "garden" not in (tmp_path / "s" / "folders.json").read_text()
    with pytest.raises(FolderError, match="is there already"):
        sorter.save(tmp_path / "s")
    sorter.save(tmp_path / "s", overwrite=True)
    (tmp_path / "other").mkdir()
    with pytest.raises(FolderError, match="is there already"):
        sorter.save(tmp_path / "other", overwrite=True)


def test_a_damaged_sorter_or_another_encoders_is_named(sorter, encoder, tmp_path):
    with pytest.raises(FolderError, match="no sorter there"):
        Folders.open(tmp_path / "s", encoder)
    sorter.save(tmp_path / "s")
    other = load(encoder.folder, 1, "int8")
    with pytest.raises(FolderError, match="read by another encoder"):
        Folders.open(tmp_path / "s", other)
    record = tmp_path / "s" / "folders.json"
    told = json.loads(record.read_text())
    for change, words in (
        ({"examples": 3}, "a damaged sorter"),
        ({"folders": ["a"]}, "a damaged sorter"),
        ({"format": 9}, "update"),
    ):
        record.write_text(json.dumps({**told, **change}))
        with pytest.raises(FolderError, match=words):
            Folders.open(tmp_path / "s", encoder)
    record.write_text(json.dumps(told))
    arrays = tmp_path / "s" / "examples.npz"
    arrays.write_bytes(arrays.read_bytes()[:100])
    with pytest.raises(FolderError, match="a damaged sorter"):
        Folders.open(tmp_path / "s", encoder)


def test_what_cannot_be_learned_or_sorted_is_explained(sorter, encoder, single):
    empty = Folders(encoder)
    for call, words in (
        (lambda: empty.sort(["a"]), "no examples to sort by"),
        (lambda: empty.learn(["a", "b"], ["x"]), "2 texts and 1 folders"),
        (lambda: empty.learn(["a", "b"], ["x", "x"]), "all examples are in one folder"),
        (lambda: empty.learn(["a", "b"], ["x", " "]), "folder ' ': expected a name"),
        (lambda: empty.learn(["a", "b"], ["x", None]), "folder None: expected a name"),
        (lambda: sorter.sort(["a"], top=0), "top = 0"),
        (lambda: sorter.forget("nowhere"), "no folder 'nowhere'; there are"),
        (lambda: Folders(encoder, precision=1.5), "precision = 1.5"),
        (lambda: Folders(load(single.output, 1)), "folders need an encoder, and this is a model of single_label"),
    ):
        with pytest.raises(OptionError, match=words):
            call()
    assert len(empty) == 0
    assert sorter.sort([]) == []
    for odd in ("", "\x00", "\ud800", "a" * 10_000):
        assert len(sorter.sort([odd])) == 1
    two = Folders(encoder)
    two.learn(["train boat", "garden table"], ["a", "b"])  # as few as there can be
    assert two.sort(["train boat"])[0].likely[0][0] == "a"
