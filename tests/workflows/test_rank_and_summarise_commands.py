"""`squeezebert rank` and `summarise` as they are typed: order, kept vectors, offsets, and what does not fit."""

from __future__ import annotations

import io
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from squeezebert.runtime.predictor import Predictor
from typed import refused, run

pytest_plugins = ["exported_folders"]

TRAVEL, HOME = ["train", "boat", "river", "walk"], ["garden", "window", "table", "green"]
DOCUMENT = (
    "A title\n\nThe train to the river was late. Seven wait for the boat by the river.\r\n"
    "It was a quiet evening. “The boat is 🙂 late!” Three walk to the river\nfrom the train."
)


def texts_of(words, count, seed):
    random = np.random.default_rng(seed)
    return [f"{' '.join(random.choice(words, 4))} {seed} {number}" for number in range(count)]


@pytest.fixture
def feed(tmp_path):
    items = [*texts_of(TRAVEL, 20, 1), *texts_of(HOME, 20, 2)]
    (tmp_path / "items.csv").write_text("id,text\n" + "".join(f"{i},{text}\n" for i, text in enumerate(items)))
    (tmp_path / "liked.txt").write_text("\n".join(texts_of(TRAVEL, 4, 3)) + "\n" + items[0] + "\n")
    (tmp_path / "disliked.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts_of(HOME, 3, 4)))
    return tmp_path


def test_plain_text_stands_beside_a_table_whose_column_is_named(encoder, feed, capsys):
    table = feed / "items.csv"
    table.write_text("id,titre\n" + table.read_text().split("\n", 1)[1])
    assert run("rank", encoder.folder, table, "--liked", feed / "liked.txt", "--text", "titre") == 0
    assert "40 items ranked by 5 liked" in capsys.readouterr().err


def test_texts_that_are_longer_than_is_read_are_counted(encoder, feed, capsys):
    with (feed / "items.csv").open("a") as file:
        file.write(f"90,{'boat ' * 1000}\n91,{'boat ' * 1001}\n91,{'boat ' * 1001}\n")
    told = ("rank", encoder.folder, feed / "items.csv", "--liked", feed / "liked.txt", "--text", "text")
    for _ in range(2):  # whether they are read or known
        assert run(*told, "--vectors", feed / "v.npz") == 0
        said = capsys.readouterr().err
        assert "2 texts were longer than the model's" in said


def test_a_feed_is_ranked(encoder, feed, capsys, monkeypatch):
    told = ("rank", encoder.folder, feed / "items.csv", "--liked", feed / "liked.txt")
    told = (*told, "--disliked", feed / "disliked.jsonl", "--vectors", feed / "v.npz", "--text", "text")
    assert run(*told, "--output", feed / "ranked.jsonl") == 0
    assert "40 items ranked by 5 liked and 3 disliked; 47 read" in capsys.readouterr().err
    rows = [json.loads(line) for line in (feed / "ranked.jsonl").read_text().splitlines()]
    assert [row["rank"] for row in rows] == list(range(1, 41))
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert np.mean([row["line"] <= 21 for row in rows[:20]]) > 0.8
    assert rows[0]["line"] == 2  # the liked one that is among the items
    read: list[str] = []
    real = Predictor.encode
    monkeypatch.setattr(Predictor, "encode", lambda self, some: (read.extend(some), real(self, some))[1])
    assert run(*told, "--top", 3, "--new") == 0
    out, err = capsys.readouterr()
    assert "39 items ranked by 5 liked and 3 disliked; 0 read" in err
    assert not read
    again = [json.loads(line) for line in out.splitlines()]
    assert len(again) == 3
    assert again[0]["line"] != 2
    # Of the texts that are gone, nothing is kept; the vectors of those that are left out as rated are
    (feed / "fewer.csv").write_text("\n".join((feed / "items.csv").read_text().splitlines()[:11]) + "\n")
    fewer = [feed / "fewer.csv" if one == feed / "items.csv" else one for one in told]
    for forgotten in (30, 0):
        assert run(*fewer, "--new", "--forget") == 0
        assert f"0 read; vectors of {forgotten} texts forgotten" in capsys.readouterr().err
    assert run(*fewer) == 0
    assert "; 0 read" in capsys.readouterr().err
    assert run(*told) == 0
    assert "; 30 read" in capsys.readouterr().err


def test_vectors_of_a_run_that_ends_early_are_kept(encoder, feed, capsys, monkeypatch):
    told = ("rank", encoder.folder, feed / "items.csv", "--liked", feed / "liked.txt", "--vectors", feed / "v.npz")
    calls: list[int] = []
    real = Predictor.encode

    def encode(self, texts, batch_size=None):
        calls.append(len(texts))
        if len(calls) > 2:
            raise KeyboardInterrupt
        return real(self, texts, batch_size)

    monkeypatch.setattr(Predictor, "encode", encode)
    monkeypatch.setattr("squeezebert.workflows.rank._AT_A_TIME", 8)
    assert run(*told) == 130
    monkeypatch.setattr(Predictor, "encode", real)
    capsys.readouterr()
    assert run(*told) == 0
    assert f"; {44 - sum(calls[:2])} read" in capsys.readouterr().err


def test_what_cannot_be_ranked_is_explained(encoder, single, feed, capsys, monkeypatch):
    told = ("rank", encoder.folder, feed / "items.csv")
    liked = ("--liked", feed / "liked.txt")
    assert "--liked: name items that the reader liked" in refused(capsys, *told)
    assert "vectors need an encoder, and this is a model of single_label: export the checkpoint" in refused(
        capsys, "rank", single.output, feed / "items.csv", *liked
    )
    assert "no such file" in refused(capsys, *told, "--liked", feed / "none.txt")
    (feed / "empty.txt").write_text("\n\n")
    assert "empty: it holds no rows" in refused(capsys, *told, "--disliked", feed / "empty.txt")
    assert "read once" in refused(capsys, "rank", encoder.folder, "-", "--liked", "-")
    assert "--top 0" in refused(capsys, *told, *liked, "--top", 0)
    assert "--forget: name the file" in refused(capsys, *told, *liked, "--forget")
    items = (feed / "items.csv").read_text()
    assert "reads or keeps" in refused(capsys, *told, *liked, "--vectors", feed / "items.csv")
    (feed / "other.npz").write_text(items)
    assert "or something else" in refused(capsys, *told, *liked, "--vectors", feed / "other.npz")
    assert (feed / "other.npz").read_text() == items
    assert (feed / "items.csv").read_text() == items
    assert "there is no folder" in refused(capsys, *told, *liked, "--vectors", feed / "none" / "v.npz")
    both = ("--vectors", feed / "new.npz", "--output", feed / "new.npz")
    assert "reads or keeps" in refused(capsys, *told, *liked, *both)
    for output in ("items.csv", "liked.txt"):
        assert "reads or keeps" in refused(capsys, *told, *liked, "--output", feed / output, "--overwrite")
    assert (feed / "items.csv").read_text() == items
    (feed / "pairs.csv").write_text("sentence1,sentence2\na,b\n")
    assert "an item is one text" in refused(capsys, "rank", encoder.folder, feed / "pairs.csv", *liked)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO("🙂 boat\n\nمرحبا\n".encode())))
    assert run("rank", encoder.folder, "-", *liked) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    # All items were rated already: nothing is left to rank
    assert run("rank", encoder.folder, feed / "liked.txt", *liked, "--new") == 0
    assert "0 items ranked" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["encoder", "words", "first"])
def test_a_document_is_summarised(encoder, way, tmp_path, capsys):
    path = tmp_path / "document.txt"
    ways = {"encoder": ("--encoder", encoder.folder), "words": (), "first": ("--first",)}
    path.write_bytes(b"\xef\xbb\xbf" + DOCUMENT.encode())
    told = ("summarise", path, "--sentences", 2, *ways[way])
    assert run(*told, "--format", "jsonl") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [DOCUMENT[row["start"] : row["end"]] for row in rows] == [row["text"] for row in rows]
    assert all((row["score"] is None) == (way == "first") for row in rows)
    assert run(*told, "--output", tmp_path / "short.txt") == 0
    assert (tmp_path / "short.txt").read_text().splitlines() == [" ".join(row["text"].split()) for row in rows]
    assert "is there already" in refused(capsys, *told, "--output", tmp_path / "short.txt")
    if way == "first":
        assert rows[0]["text"] == "The train to the river was late."


def test_a_terminal_is_told_no_orders(tmp_path, capsys, monkeypatch):
    path = tmp_path / "document.txt"
    path.write_text("The boat was \x1b[31mlate\x07 again today.")
    assert run("summarise", path) == 0
    assert capsys.readouterr().out == "The boat was \x1b[31mlate\x07 again today.\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert run("summarise", path) == 0
    assert capsys.readouterr().out == "The boat was \\x1b[31mlate\\x07 again today.\n"


def test_what_cannot_be_summarised_is_explained(encoder, single, tmp_path, capsys, monkeypatch):
    for name, content, words in (
        ("nul.txt", b"a\x00b. c.", "NUL"),
        ("bad.txt", b"caf\xe9. Yes.", "not utf-8"),
        ("empty.txt", b"", "empty: it holds no sentence"),
        ("blank.txt", b" \n\t\r\n", "empty: it holds no sentence"),
    ):
        (tmp_path / name).write_bytes(content)
        assert words in refused(capsys, "summarise", tmp_path / name, "--encoder", encoder.folder)
    assert "cannot be opened" in refused(capsys, "summarise", tmp_path / "none.txt")
    assert "cannot be opened" in refused(capsys, "summarise", tmp_path)
    (tmp_path / "d.txt").write_text(DOCUMENT)
    assert "a summary needs an encoder, and this is a model of single_label" in refused(
        capsys, "summarise", tmp_path / "d.txt", "--encoder", single.output
    )
    assert "--first" in refused(capsys, "summarise", tmp_path / "d.txt", "--first", "--encoder", encoder.folder)
    assert "--sentences 0" in refused(capsys, "summarise", tmp_path / "d.txt", "--sentences", 0)
    assert run("summarise", tmp_path / "bad.txt", "--encoding", "latin-1") == 0
    assert capsys.readouterr().out == "café.\nYes.\n"
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(DOCUMENT.encode())))
    assert run("summarise", "-", "--sentences", 1, "--first") == 0
    assert capsys.readouterr().out == "The train to the river was late.\n"
