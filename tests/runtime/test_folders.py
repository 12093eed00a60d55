"""Sorting into folders: what is learned, when it is unsure, what is out of scope, and what is kept on disk."""

from __future__ import annotations

import json

import numpy as np
import pytest

from squeezebert.files.errors import FolderError, OptionError
from squeezebert.runtime import folders as folders_module
from squeezebert.runtime.folders import Folders
from squeezebert.runtime.logistic import fit_logistic
from squeezebert.runtime.predictor import load
from squeezebert.runtime.tokens import TextError

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
    assert abs(sorter.quality.accuracy - right.mean()) < 0.1  # what leaving one out promised
    for answer in answers:
        assert len(answer.likely) == 3
        assert sum(probability for _, probability in answer.likely) == pytest.approx(1)
        assert answer.folder in (None, answer.likely[0][0])
    sure = np.array([answer.folder is not None for answer in answers])
    assert right[sure].mean() >= 0.93
    assert [len(answer.likely) for answer in sorter.sort(texts[:2], top=1)] == [1, 1]


def test_every_part_that_is_left_out_is_answered_by_the_others(encoder, monkeypatch):
    texts, names = examples(40, seed=4)
    texts, names = [*texts, "seven green letters"], [*names, "alone"]
    made = Folders(encoder)
    learned = []
    monkeypatch.setattr(
        folders_module, "fit_logistic", lambda x, *rest: (learned.append(len(x)), fit_logistic(x, *rest))[1]
    )
    made.learn(texts, names)
    rows = len(made)
    assert learned[0] == rows
    copies = made._copies()
    alone = made.folders.index("alone")
    assert sum(made.quality.left_out) == sum(copies[:-1] == np.arange(rows - 1)) < rows
    assert made.quality.left_out[alone] == 0  # nothing would be left to know it by
    # By hand: the answers are those of fits that saw neither the part nor its copies
    parts = folders_module._parts(made.places, copies)
    assert len(parts) == len(learned) - 1 == 5
    assert sorted(row for part in parts for row in part) == [row for row in range(rows) if row != rows - 1]
    x = np.concatenate([made.vectors, np.ones((rows, 1), np.float32)], 1)
    right = np.zeros(len(made.folders), int)
    for part in parts:
        assert rows / 5 - 5 <= len(part) <= rows / 5 + 5
        kept = np.setdiff1d(np.arange(rows), part)
        assert not set(copies[part]) & set(copies[kept])
        asked = [row for row in part if copies[row] == row]
        places = (x[asked] @ fit_logistic(x[kept], made.places[kept], len(made.folders), 1 / 30)).argmax(1)
        np.add.at(right, made.places[asked], places == made.places[asked])
    assert made.quality.right == tuple(right)


def test_copies_of_the_examples_change_nothing(encoder):
    texts, names = examples(90, seed=6)
    once, twice = Folders(encoder), Folders(encoder)
    once.learn(texts, names)
    twice.learn([*texts, *(f"{text.upper()} " for text in texts)], [*names, *names])
    assert len(twice) == 2 * len(once)
    assert abs(twice.quality.accuracy - once.quality.accuracy) < 0.05
    new = examples(100, seed=7)[0]
    for sorter in (once, twice):  # the nearest example of each is not a copy of it
        assert np.mean([answer.out_of_scope for answer in sorter.sort(new)]) < 0.2


def test_nothing_is_sure_by_luck(encoder):
    random = np.random.default_rng(8)
    for count in (10, 20, 60):
        texts = examples(count, seed=count)[0]
        made = Folders(encoder)
        made.learn(texts, [str(random.choice(["one", "other"])) for _ in texts])
        assert made.quality.threshold > 1, count


def test_probabilities_mean_what_they_say(encoder):
    # Words of two subjects mixed: how sure an answer can be differs from text to text
    random = np.random.default_rng(3)

    def mixed(count):
        names = [str(random.choice(["travel", "home"])) for _ in range(count)]
        other = {"travel": "home", "home": "travel"}
        return [
            " ".join(str(random.choice(SUBJECTS[n if random.random() < 0.65 else other[n]])) for _ in range(5))
            for n in names
        ], names

    made = Folders(encoder, precision=0.85)
    made.learn(*mixed(400))
    texts, names = mixed(400)
    answers = made.sort(texts)
    right = np.array([answer.likely[0][0] == name for answer, name in zip(answers, names, strict=True)])
    promised = np.array([answer.likely[0][1] for answer in answers])
    assert 0.6 < right.mean() < 0.9
    assert abs(promised.mean() - right.mean()) < 0.06
    sure = np.array([answer.folder is not None for answer in answers])
    assert 0.2 < sure.mean() < 0.95
    assert right[sure].mean() > max(0.8, right[~sure].mean() + 0.1)


def test_a_text_is_in_the_folder_it_was_given_last(encoder, monkeypatch):
    made = Folders(encoder)
    texts, names = examples(30, 2, ("travel", "home"))
    first = made.learn([*texts, texts[0]], [*names, names[0]])
    assert (first.new, first.moved, first.known) == (len(made), 0, 31 - len(made))
    read: list[str] = []
    monkeypatch.setattr(
        encoder, "encode", lambda some, batch_size=None: (read.extend(some), np.zeros((0, 32), np.float32))[1]
    )
    assert first.contradicted == 0
    digest = made.digest
    again = made.learn(texts, names)
    assert (again.new, again.moved, made.digest, read) == (0, 0, digest, [])
    moved = made.learn([texts[0]], ["work"])
    assert (moved.new, moved.moved, moved.known) == (0, 1, 0)
    assert made.counts()["work"] == 1
    assert len(made) == first.new
    made.learn([texts[0]], [names[0]])
    assert "work" not in made.folders  # its last example left it


def test_a_text_in_two_folders_at_once_is_told(encoder):
    made = Folders(encoder)
    learned = made.learn(["a boat", "a boat", "a train", "a train"], ["water", "sea", "land", "land"])
    assert (learned.new, learned.known, learned.contradicted) == (2, 2, 1)


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
    desk = later.counts()["desk"]
    assert later.forget("desk") == desk > 20
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
    assert guessing.quality.accuracy < 0.6
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
    (tmp_path / "other" / "letter.txt").touch()
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
        (lambda: sorter.forget("travel", "home"), "'desk' alone would be left"),
        (lambda: Folders(encoder, precision=1.5), "precision = 1.5"),
        (lambda: Folders(load(single.output, 1)), "folders need an encoder, and this is a model of single_label"),
    ):
        with pytest.raises(OptionError, match=words):
            call()
    for wrong in (("ab", ["x", "y"]), (["a", "b"], "xy")):
        with pytest.raises(TextError, match="expected several texts, not str"):
            empty.learn(*wrong)
    assert len(empty) == 0
    assert sorter.sort([]) == []
    for odd in ("", "\x00", "\ud800", "a" * 10_000):
        assert len(sorter.sort([odd])) == 1
    two = Folders(encoder)
    two.learn(["train boat", "garden table"], ["a", "b"])  # as few as there can be
    assert two.sort(["train boat"])[0].likely[0][0] == "a"
