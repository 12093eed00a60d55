"""`squeezebert complete` as it is typed: texts and tables, gaps and next words, errors."""

from __future__ import annotations

import json

import pytest

from squeezebert.runtime.completion import Completer
from squeezebert.runtime.predictor import load
from typed import refused, run

pytest_plugins = ["exported_folders"]


def lines_of(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_typed_text_is_filled(words, capsys):
    assert run("complete", words.output, "The small LETTER is on the ___.", "--top", 2) == 0
    (line,) = lines_of(capsys)
    assert line["filled"] == "The small LETTER is on the table."
    (gap,) = line["gaps"]
    assert (gap["start"], gap["end"], len(gap["words"])) == (27, 30, 2)
    assert gap["words"][0].keys() == {"word", "probability"}
    told = ("complete", words.output, "it was late in the", "--next-word", "--precision", "fp32")
    assert run(*told, "--ending", "stop") == 0
    (line,) = lines_of(capsys)
    assert (line["next"][0]["word"], len(line["next"])) == ("evening", 5)
    assert run(*told) == 0
    (nothing,) = lines_of(capsys)
    expected = Completer(load(words.output, 1, "fp32")).fill("it was late in the [MASK]")[0].words
    assert nothing["next"] == [word.to_dict() for word in expected] != line["next"]


def test_tables_are_read_as_by_predict(words, tmp_path, capsys):
    table = tmp_path / "texts.csv"
    table.write_text("id,body\n1,the small letter is on the ___\n2,no gap\n3,[MASK] trains wait\n")
    told = ("complete", words.output, table, "--text", "body", "--output", tmp_path / "out.jsonl")
    assert ":3: cannot be answered: no gap to fill" in refused(capsys, *told)
    assert run(*told, "--skip-bad-rows", "--overwrite") == 0
    assert "skipped 1 rows, the first" in capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["line"] for line in lines] == [2, 4]
    assert lines[0]["filled"] == "the small letter is on the table"
    assert "reads or keeps" in refused(capsys, *told[:-1], table)
    assert table.read_text().startswith("id,body")


def test_rows_that_were_skipped_before_a_kill_are_counted_after_it(words, tmp_path, capsys):
    table = tmp_path / "texts.csv"
    rows = ["id,text", "1,no gap", "2,the ___ wait", "3,none", "4,the ___ wait", "5,no more", "6,the ___ wait"]
    table.write_text("\n".join(rows) + "\n")
    told = ("complete", words.output, table, "--text", "text", "--skip-bad-rows", "--output", tmp_path / "out.jsonl")
    assert run(*told) == 0
    counted = capsys.readouterr().err.splitlines()[-1]
    assert counted.startswith("skipped 3 rows")
    lines = (tmp_path / "out.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "out.jsonl").unlink()
    with pytest.MonkeyPatch.context() as patch:
        real = Completer.fill

        def killed(self, text, *more):
            if "more" in text:
                raise KeyboardInterrupt
            return real(self, text, *more)

        patch.setattr(Completer, "fill", killed)
        assert run(*told) == 130
    (part,) = tmp_path.glob("out.jsonl.*.part")
    assert part.read_text() == "".join(lines[:2])
    capsys.readouterr()
    assert run(*told) == 0
    assert capsys.readouterr().err.splitlines()[-1].startswith("skipped 3 rows")
    assert (tmp_path / "out.jsonl").read_text() == "".join(lines)


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (["nothing is missing"], "error: no gap to fill: write [MASK] or ___"),
        (["gone.csv"], "gone.csv: no such file"),
        ([" "], "an empty text"),
        (["___", "--top", "0"], "--top 0: expected 1 or more"),
        (["___", "--output", "/nowhere/out"], "--output /nowhere/out"),
    ],
)
def test_what_does_not_fit_is_explained(words, capsys, told, reason):
    assert reason in refused(capsys, "complete", words.output, *told)


def test_a_model_of_another_kind_is_refused(words, single, capsys):
    assert "this is a model of single_label" in refused(capsys, "complete", single.output, "___")
    assert "a model of masked words" in refused(capsys, "predict", words.output, words.checkpoint / "evaluation.jsonl")
