"""Outputs of verbs that answer a table: a run that was cut off goes on, and ends as one that was not."""

from __future__ import annotations

import csv
import io
import json
import os
import select
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from squeezebert.files.errors import FolderError, OptionError
from squeezebert.workflows import copies, folders, rank
from squeezebert.workflows.outputs import open_output, open_part, stamp_of
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
    said = capsys.readouterr().err
    assert "what was answered so far; the same command with --skip-bad-rows goes on behind it" in said
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


@pytest.fixture(params=["model", "policy", "sorter", "--text", "--encoding", "--top", "--batch-size", "table"])
def two_ways(request, single, encoder, posts, tmp_path):
    """Two commands without an output, whose answers differ in one thing."""
    kind, policy = request.param, tmp_path / "policy.yaml"
    policy.write_text("labels: {busy: {review: 0.4, block: 0.6}}\n")
    predict = ("predict", single.output, posts)
    options = {
        "--text": ((), ("--text", "text")),
        "--encoding": ((), ("--encoding", "latin-1")),
        "--top": (("--top", 1), ("--top", 2)),
        "--batch-size": ((), ("--batch-size", 2)),
        "model": (("--precision", "int8"), ("--precision", "fp32")),
    }
    if kind in options:
        one, other = options[kind]
        return [lambda: (*predict, *one), lambda: (*predict, *other)]
    if kind == "policy":
        other = tmp_path / "other.yaml"
        other.write_text("labels: {busy: {review: 0.3, block: 0.6}}\n")
        return [lambda name=name: ("moderate", *predict[1:], "--policy", name) for name in (policy, other)]
    if kind == "table":
        return [lambda: predict, lambda: (posts.write_text(posts.read_text() + "31,the end\n"), predict)[1]]
    learned = tmp_path / "learned.csv"
    learned.write_text("text,folder\n" + "".join(f"{row} {i},{i % 3}\n" for i, row in enumerate(texts(60, seed=4))))
    assert run("folders", "learn", tmp_path / "mail", learned, "--encoder", encoder.folder) == 0

    def learned_more():
        (tmp_path / "more.csv").write_text("text,folder\nthe boat sank,2\n")
        assert run("folders", "learn", tmp_path / "mail", tmp_path / "more.csv") == 0
        return ("folders", "sort", tmp_path / "mail", posts)

    return [lambda: ("folders", "sort", tmp_path / "mail", posts), learned_more]


def test_answers_of_other_models_options_and_tables_are_not_gone_on_with(two_ways, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(folders, "_AT_A_TIME", 1)
    one, other = two_ways
    assert run(*one(), "--output", tmp_path / "out") == 1  # at the row with too few cells
    (part,) = tmp_path.glob("out.*.part")
    before = part.read_bytes()
    told = other()
    capsys.readouterr()
    assert run(*told, "--output", tmp_path / "out", "--skip-bad-rows") == 0
    said = capsys.readouterr().err
    assert "going on" not in said
    assert f"{part}: unfinished answers to other texts, or of other models or options" in said
    assert part.read_bytes() == before
    assert run(*told, "--output", tmp_path / "whole", "--skip-bad-rows") == 0
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "whole")


@pytest.mark.parametrize("verb", ["predict", "predict csv", "moderate", "complete"])
def test_objects_on_one_line_of_json_are_each_answered_once(verb, single, words, tmp_path):
    rows = [{"text": f"the river {i} is ___."} for i in range(6)]
    rows[3:3] = [{"text": "no gap"} if verb == "complete" else {"no": "text"}]
    table = tmp_path / "t.json"
    table.write_text(json.dumps(rows))
    (tmp_path / "policy.yaml").write_text("labels: {busy: {review: 0.4, block: 0.6}}\n")
    told = {
        "predict": ("predict", single.output, table),
        "predict csv": ("predict", single.output, table, "--format", "csv"),
        "moderate": ("moderate", single.output, table, "--policy", tmp_path / "policy.yaml"),
        "complete": ("complete", words.output, table),
    }[verb]
    assert run(*told, "--output", tmp_path / "whole", "--skip-bad-rows") == 0
    whole = rows_of(tmp_path / "whole")
    assert len(whole) == (7 if verb == "moderate" else 6)
    assert run(*told, "--output", tmp_path / "out") == 1
    (part,) = tmp_path.glob("out.*.part")
    assert len(rows_of(part)) == 3
    assert run(*told, "--output", tmp_path / "out", "--skip-bad-rows") == 0
    assert rows_of(tmp_path / "out") == whole
    # Behind the row without an answer as well
    end = len((tmp_path / "whole").read_bytes().splitlines(keepends=True)[-1])
    part.write_bytes((tmp_path / "whole").read_bytes()[:-end])
    assert run(*told, "--output", tmp_path / "out", "--skip-bad-rows", "--overwrite") == 0
    assert rows_of(tmp_path / "out") == whole


def test_two_runs_do_not_write_one_output(single, posts, tmp_path, capsys):
    (tmp_path / "other.csv").write_text("text\nthe river\n")
    with open_part(str(tmp_path / "out"), str(posts), []) as part:
        said = refused(capsys, "predict", single.output, tmp_path / "other.csv", "--output", tmp_path / "out")
        assert "another run is writing it" in said
        part.stream.write("{}\n")
    assert (tmp_path / "out").read_text() == "{}\n"


def test_what_a_run_cannot_finish_leaves_an_older_output_as_it_was(encoder, words, tmp_path, capsys, monkeypatch):
    old, table = tmp_path / "out", tmp_path / "t.csv"
    old.write_text("precious\n")
    table.write_text("text\nthe river\nthe boat\n")
    assert "no gap" in refused(capsys, "complete", words.output, "nothing here", "--output", old, "--overwrite")

    def killed(*told):
        raise KeyboardInterrupt

    monkeypatch.setattr(copies, "find_copies", killed)
    for output, more in ((old, ["--overwrite"]), (tmp_path / "new", [])):
        assert run("copies", encoder.folder, table, "--output", output, *more) == 130
    assert old.read_text() == "precious\n"
    assert {one.name for one in tmp_path.iterdir()} == {"out", "t.csv"}


def test_pairs_that_were_scored_are_not_scored_again(encoder, tmp_path, capsys, monkeypatch):
    table = tmp_path / "t.csv"
    rows = [f"the river {i},the river {i % 7}" for i in range(40)]
    table.write_text("\n".join(["one,two", *rows[:30], "a", *rows[30:]]) + "\n")
    told = ("pairs", "score", encoder.folder, table, "--text", "one", "--text-pair", "two", "--threshold", 0.9)
    monkeypatch.setattr(copies, "_PAIRS", 4)
    assert run(*told, "--output", tmp_path / "whole", "--skip-bad-rows") == 0
    counted = capsys.readouterr().err
    assert run(*told, "--output", tmp_path / "out") == 1
    capsys.readouterr()
    assert run(*told, "--output", tmp_path / "out", "--skip-bad-rows") == 0
    said = capsys.readouterr().err
    assert "going on behind line 29 of" in said
    assert counted.splitlines()[-2:] == said.splitlines()[-2:]
    assert (tmp_path / "out").read_text() == (tmp_path / "whole").read_text()


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_the_answers_to_a_table_whose_name_is_not_utf_8_go_on(form, single, posts, tmp_path):
    table = os.fsencode(tmp_path) + b"/t\xff.csv"
    with open(table, "wb") as file:  # noqa: PTH123 - bytes
        file.write(posts.read_bytes())
    told = ("predict", single.output, os.fsdecode(table), "--format", form, "--output", tmp_path / "out")
    assert run(*told) == 1
    assert run(*told, "--skip-bad-rows") == 0
    assert len(rows_of(tmp_path / "out")) == 29


def test_an_output_keeps_its_permissions_and_its_link(single, posts, tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("older")
    real.chmod(0o600)
    link.symlink_to(real)
    assert run("predict", single.output, posts, "--output", link, "--overwrite", "--skip-bad-rows") == 0
    assert link.is_symlink()
    assert len(rows_of(real)) == 29
    assert real.stat().st_mode & 0o777 == 0o600


def test_what_came_while_a_run_began_is_not_replaced(encoder, posts, tmp_path, capsys, monkeypatch):
    real = rank.load

    def slow(*told):
        (tmp_path / "out").write_text("another run's")
        return real(*told)

    monkeypatch.setattr(rank, "load", slow)
    told = ("rank", encoder.folder, posts, "--liked", posts, "--skip-bad-rows", "--output", tmp_path / "out")
    assert "is there already" in refused(capsys, *told)
    assert (tmp_path / "out").read_text() == "another run's"
    assert run(*told, "--overwrite") == 0
    assert len(rows_of(tmp_path / "out")) == 29


@pytest.mark.parametrize("rank", [None, "1"])
def test_a_run_is_the_only_one_whatever_launched_it(rank, tmp_path, monkeypatch):
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    place = str(tmp_path / "out")
    with open_output(place), pytest.raises(FolderError, match="another run"), open_output(place):
        pass


def test_a_run_that_is_refused_leaves_what_another_has_begun(encoder, posts, tmp_path, capsys):
    out = tmp_path / "out"
    with open_output(str(out)) as stream:
        stream.write("{}\n")
        told = ("rank", encoder.folder, posts, "--liked", posts, "--skip-bad-rows", "--output", out)
        assert "another run is writing it" in refused(capsys, *told)
    assert out.read_text() == "{}\n"


def test_a_link_in_a_folder_called_fd_is_a_file(single, posts, tmp_path):
    folder, real = tmp_path / "fd", tmp_path / "real"
    folder.mkdir()
    real.write_text("older\n")
    (folder / "out").symlink_to(real)
    told = ("predict", single.output, posts, "--skip-bad-rows", "--output", folder / "out")
    assert run(*told) == 1  # it is there already
    assert run(*told, "--overwrite") == 0
    assert len(rows_of(real)) == 29


def command(*told):
    return [sys.executable, "-m", "squeezebert", *(str(one) for one in told)]


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="the system has no such names")
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1"])
def test_what_is_open_already_is_written_to(name, single, tmp_path):
    told = command("predict", single.output, tmp_path / "t.txt", "--output", name)
    (tmp_path / "t.txt").write_text("the river\nthe boat\n")
    piped = subprocess.run(told, capture_output=True, check=True).stdout
    assert [json.loads(line)["text"] for line in piped.splitlines()] == ["the river", "the boat"]
    log = tmp_path / "log"
    log.write_bytes(b"older\n")
    with log.open("ab") as file:
        subprocess.run(told, stdout=file, check=True)
    assert log.read_bytes() == b"older\n" + piped


def test_standard_input_is_answered_as_it_comes(single):
    told = command("predict", single.output, "-", "--threads", 2)
    with subprocess.Popen(told, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        for text in (b"the river", b"the boat"):
            process.stdin.write(text + b"\n")
            ready, _, _ = select.select([process.stdout], [], [], 60)
            assert ready, "no answer until more texts come"
            assert json.loads(process.stdout.readline())["text"] == text.decode()
        process.stdin.write(b"".join(b"the river %d\n" % i for i in range(1000)) + b"the \xff boat\n")
        process.stdin.close()
        rest = [json.loads(line)["text"] for line in process.stdout]
    assert rest == [f"the river {i}" for i in range(1000)]
    assert process.returncode == 1


def test_the_answers_to_a_stream_stay_where_it_was_cut_off(single, tmp_path, monkeypatch, capsys):
    lines = io.BytesIO(b"the river\nthe \xff boat\n")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BufferedReader(lines)))
    assert "badly encoded" in refused(capsys, "predict", single.output, "-", "--output", tmp_path / "out")
    (part,) = tmp_path.glob("out*")
    assert [row["line"] for row in rows_of(part)] == [1]


def test_answers_in_the_folder_that_is_read_are_refused_and_not_read_as_texts(single, tmp_path, capsys):
    folder = tmp_path / "posts"
    for label in "ab":
        (folder / label).mkdir(parents=True)
        for number in range(3):
            (folder / label / f"{number}.txt").write_text("the boat on the river\n")
    old = folder / "a" / "out.txt"
    old.write_text("old answers\n")
    told = ("predict", single.output, folder, "--overwrite", "--output")
    assert f"lies in {folder}, a folder that is read" in refused(capsys, *told, old)
    assert old.read_text() == "old answers\n"
    old.unlink()
    assert run(*told, tmp_path / "out.txt") == 0
    assert len(rows_of(tmp_path / "out.txt")) == 6


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
