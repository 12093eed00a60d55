"""Texts that are answered line by line: a run that was cut off goes on, and only what belongs together is joined."""

from __future__ import annotations

import json
import os

import pytest

from squeezebert.files.errors import OptionError, TableError
from squeezebert.workflows.given import Given, answer_texts

ROWS = [f"text {i}" for i in range(6)]


@pytest.fixture
def table(tmp_path):
    place = tmp_path / "texts.txt"
    place.write_text("".join(f"{row}\n" for row in ROWS))
    return place


def answered(table, output, made_by=("model",), stop_at=None, overwrite=False, bad=(), skip=False):
    """The texts that were asked for; with `stop_at`, the run is cut off there."""
    asked = []

    def answer(example):
        if example.text == stop_at:
            raise KeyboardInterrupt
        asked.append(example.text)
        if example.text in bad:
            raise TableError("no good")
        return {"length": len(example.text)}

    given = Given(str(table), None, "utf-8", skip)
    if stop_at is not None:
        with pytest.raises(KeyboardInterrupt):
            answer_texts(given, str(output), overwrite, answer, made_by)
        return asked
    skipped = answer_texts(given, str(output), overwrite, answer, made_by)
    assert len(skipped) == len([text for text in asked if text in bad])
    return asked


def texts_of(place):
    return [json.loads(line)["text"] for line in place.read_text().splitlines()]


def test_a_run_that_was_cut_off_goes_on(table, tmp_path, capsys):
    output = tmp_path / "out.jsonl"
    assert answered(table, output, stop_at="text 3") == ROWS[:3]
    assert not output.exists()
    (part,) = tmp_path.glob("out.jsonl.*.part")
    assert texts_of(part) == ROWS[:3]
    part.write_bytes(part.read_bytes()[:-5])  # half a line, as a kill leaves it
    assert answered(table, output) == ROWS[2:]
    assert "going on behind line 2 of" in capsys.readouterr().err
    assert texts_of(output) == ROWS
    assert not [*tmp_path.glob("*.part")]
    with pytest.raises(OptionError, match="--overwrite"):
        answered(table, output)
    assert answered(table, output, overwrite=True) == ROWS


def test_what_an_overwritten_output_holds_stays_until_the_new_one_is_whole(table, tmp_path):
    output = tmp_path / "out.jsonl"
    output.write_text("mine\n")
    assert answered(table, output, overwrite=True, stop_at="text 1") == ROWS[:1]
    assert output.read_text() == "mine\n"
    assert answered(table, output, overwrite=True) == ROWS[1:]
    assert texts_of(output) == ROWS


@pytest.mark.parametrize("change", ["model", "texts", "damage"])
def test_nothing_goes_on_behind_answers_of_another_kind(table, tmp_path, change):
    output = tmp_path / "out.jsonl"
    answered(table, output, stop_at="text 3")
    if change == "texts":
        os.utime(table, ns=(1, 1))
    elif change == "damage":
        (part,) = tmp_path.glob("*.part")
        part.write_bytes(b"\0" * 80 + b"\n")
    assert answered(table, output, made_by=("other" if change == "model" else "model",)) == ROWS
    assert texts_of(output) == ROWS
    assert len([*tmp_path.glob("*.part")]) == (change != "damage")  # those stay


def test_a_text_that_went_is_no_end_without_a_word(table, tmp_path):
    output = tmp_path / "out.jsonl"
    answered(table, output, stop_at="text 3")
    (part,) = tmp_path.glob("*.part")
    part.write_text('{"source": "elsewhere.txt", "line": 9, "text": "a"}\n')
    with pytest.raises(OptionError, match="is to none of these texts: delete this file"):
        answered(table, output)


def test_bad_rows_stop_a_run_or_are_passed_over(table, tmp_path):
    output = tmp_path / "out.jsonl"
    with pytest.raises(TableError, match="no good"):
        answered(table, output, bad=("text 2",))
    assert answered(table, output, bad=("text 2",), skip=True) == ROWS[2:]
    assert texts_of(output) == ROWS[:2] + ROWS[3:]


def test_devices_are_written_to_directly(table, tmp_path):
    assert answered(table, "/dev/null", overwrite=True) == ROWS
    with pytest.raises(OptionError, match="--output"):
        answered(table, tmp_path / "nowhere" / "out.jsonl")


def test_a_name_with_blanks_that_is_not_there_is_no_text():
    for name in ("gone.csv", "my posts.csv"):
        with pytest.raises(TableError, match="no such file"):
            next(Given(name, None, "utf-8", False).examples(print))
    long = "I have put all that we need into notes.txt"
    assert next(Given(long, None, "utf-8", False).examples(print)).text == long
