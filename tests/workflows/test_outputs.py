"""Outputs of verbs that answer a table: a run that was cut off goes on, and ends as one that was not."""

from __future__ import annotations

import csv
import json

import pytest

from squeezebert.files.errors import OptionError
from squeezebert.workflows import folders
from squeezebert.workflows.outputs import open_part, stamp_of
from tiny_checkpoints import texts
from typed import refused, run

pytest_plugins = ["exported_folders"]

BAD = 13  # the row with too few cells, counted from 0


@pytest.fixture
def posts(tmp_path):
    """A table of 30 texts, some of several lines, one missing."""
    rows = [[number, text] for number, text in enumerate(texts(30, seed=3))]
    rows[4][1] = "the river\nand the boat"
    rows[5][1] = "the window\rand the table"
    del rows[BAD][1]
    place = tmp_path / "posts.csv"
    with place.open("w", newline="") as file:
        csv.writer(file).writerows([["number", "text"], *rows])
    return place


@pytest.fixture(params=["predict", "predict csv", "moderate", "folders"])
def answer(request, single, encoder, tmp_path, monkeypatch):
    """A verb that answers the posts into a file, one by one."""
    monkeypatch.setattr(folders, "_AT_A_TIME", 1)
    verb, *form = request.param.split()
    if verb == "predict":
        return lambda table, *more: run("predict", single.output, table, *more, *(("--format", *form) if form else ()))
    if verb == "moderate":
        policy = tmp_path / "policy.yaml"
        policy.write_text("labels: {busy: {review: 0.4, block: 0.6}}\n")
        return lambda table, *more: run("moderate", single.output, table, "--policy", policy, *more)
    learned = tmp_path / "learned.csv"
    learned.write_text("text,folder\n" + "".join(f"{row} {i},{i % 3}\n" for i, row in enumerate(texts(60, seed=4))))
    assert run("folders", "learn", tmp_path / "mail", learned, "--encoder", encoder.folder) == 0
    return lambda table, *more: run("folders", "sort", tmp_path / "mail", table, *more)


def rows_of(place):
    """The answers in a file, without the time at which they were given."""
    with place.open(newline="", encoding="utf-8") as file:
        if file.read(1) != "{":
            file.seek(0)
            return [*csv.DictReader(file)]
    return [{k: v for k, v in json.loads(line).items() if k != "time"} for line in place.open()]


def test_a_run_that_was_cut_off_goes_on_and_ends_as_one_that_was_not(answer, posts, tmp_path, capsys):
    assert answer(posts, "--output", tmp_path / "whole", "--skip-bad-rows") == 0
    told = capsys.readouterr().err.splitlines()
    assert answer(posts, "--output", tmp_path / "out") == 1  # at the row with too few cells
    assert "what was answered so far; the same command goes on behind it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (part,) = tmp_path.glob("out.*.part")
    assert len(rows_of(part)) == BAD
    part.write_bytes(part.read_bytes()[:-3])  # as a kill leaves it
    assert answer(posts, "--output", tmp_path / "out", "--skip-bad-rows") == 0
    said = capsys.readouterr().err
    assert f"going on behind line {rows_of(tmp_path / 'whole')[BAD - 2]['line']} of" in said
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "whole")
    assert not [*tmp_path.glob("out.*")]
    # What is counted is counted over both parts
    counted = [line for line in told if "sorted" in line or "allowed" in line or "skipped" in line]
    assert counted
    assert all(line in said for line in counted)


def test_moderation_goes_on_behind_a_row_that_could_not_be_read(single, posts, tmp_path, capsys):
    (tmp_path / "policy.yaml").write_text("labels: {busy: {review: 0.4, block: 0.6}}\n")
    told = ("moderate", single.output, posts, "--policy", tmp_path / "policy.yaml", "--output")
    assert run(*told, tmp_path / "whole", "--skip-bad-rows") == 0
    counted = capsys.readouterr().err.splitlines()[-2:]
    assert run(*told, tmp_path / "out") == 1
    (part,) = tmp_path.glob("out.*.part")
    lines = (tmp_path / "whole").read_text().splitlines(keepends=True)
    assert "problem" in json.loads(lines[BAD])
    part.write_text("".join(lines[: BAD + 1]))
    assert run(*told, tmp_path / "out", "--skip-bad-rows") == 0
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "whole")
    assert capsys.readouterr().err.splitlines()[-2:] == counted


def test_every_character_of_a_text_comes_back_from_csv(single, posts, tmp_path):
    assert run("predict", single.output, posts, "--format", "csv", "--output", tmp_path / "a", "--skip-bad-rows") == 0
    found = [row["text"] for row in rows_of(tmp_path / "a")]
    with posts.open(newline="") as file:
        assert found == [row["text"] for row in csv.DictReader(file) if row["text"]]
    assert b"\r\n" not in (tmp_path / "a").read_bytes()


def test_a_cell_that_was_cut_at_its_line_break_is_answered_again(single, posts, tmp_path):
    told = ("predict", single.output, posts, "--format", "csv", "--output", tmp_path / "out")
    assert run(*told) == 1
    (part,) = tmp_path.glob("out.*.part")
    whole = part.read_bytes()
    part.write_bytes(whole[: whole.index(b"the river\n") + len(b"the river\n")])
    assert run(*told, "--skip-bad-rows") == 0
    assert len(rows_of(tmp_path / "out")) == 29
    assert (tmp_path / "out").read_bytes().startswith(whole)


def test_a_long_text_that_was_answered_is_not_answered_again(tmp_path):
    table, kept = tmp_path / "t.txt", []
    table.write_text("a\n")
    told = str(tmp_path / "out"), str(table), []
    with pytest.raises(KeyboardInterrupt), open_part(*told, form="csv") as part:
        csv.writer(part.stream, lineterminator="\n").writerows(
            [["source", "line", "text"], ["t", 1, "river " * 30_000]]
        )
        raise KeyboardInterrupt
    csv.field_size_limit(2**17)  # as a new process has it
    with open_part(*told, form="csv", kept=kept.append) as part:
        assert not part.is_new("t", 1)
    assert [len(row["text"]) for row in kept] == [180_000]


def test_other_models_options_and_tables_begin_anew(single, posts, tmp_path):
    told = ("predict", single.output, posts, "--output", tmp_path / "out")
    assert run(*told) == 1
    assert run(*told, "--top", 1, "--skip-bad-rows") == 0
    assert all(len(row["probabilities"]) == 1 for row in rows_of(tmp_path / "out"))
    assert not [*tmp_path.glob("out.*")]


def test_a_folder_of_tables_is_known_by_its_files_and_not_by_the_output_in_it(tmp_path):
    folder = tmp_path / "tables"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.csv").write_text("text\na\n")
    stamp = stamp_of(str(folder), folder / "out")
    assert len(stamp) == 1
    (folder / "out.1234abcd.part").write_text("{}")
    assert stamp_of(str(folder), folder / "out") == stamp
    (folder / "outside.csv").write_text("text\nb\n")
    assert stamp_of(str(folder), folder / "out") != stamp
    assert stamp_of(str(tmp_path / "gone")) is None
    assert stamp_of("a\0b") is None


def test_a_run_that_answered_nothing_leaves_nothing(single, tmp_path, capsys):
    table = tmp_path / "t.csv"
    table.write_text("number,text\n1\n")
    assert "wrong number of fields" in refused(capsys, "predict", single.output, table, "--output", tmp_path / "out")
    assert not [*tmp_path.glob("out*")]


def test_a_row_that_went_is_no_end_without_a_word(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("text\na\n")
    told = str(tmp_path / "out"), str(table), []
    with pytest.raises(KeyboardInterrupt), open_part(*told) as part:
        part.stream.write('{"source": "elsewhere", "line": 9}\n')
        raise KeyboardInterrupt
    with pytest.raises(OptionError, match="delete this file"), open_part(*told) as part:
        assert not part.is_new("t.csv", 2)


def test_an_output_that_cannot_be_written_is_refused(single, posts, tmp_path, capsys):
    assert "--output" in refused(capsys, "predict", single.output, posts, "--output", tmp_path / "no" / "out")
