"""The program as a newcomer types it: train, export, predict; help that is light; errors that say what to do."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import topic_rows
from squeezebert import parsing
from squeezebert.cli import FAMILIES, VERBS, build_parser, main
from squeezebert.parsing import dashed, field_docstrings, recipes_first, together
from squeezebert.runtime.predictor import load
from typed import run


@pytest.fixture(scope="module")
def exported(tiny_base, tmp_path_factory):
    """A model trained and exported through the command line, and its evaluation rows."""
    folder = tmp_path_factory.mktemp("commands")
    table = folder / "topics.csv"
    table.write_text("message,folder\n" + "".join(f'"{text}",{topic}\n' for text, topic in topic_rows(150)))
    trained, out = folder / "model", folder / "exported"
    assert (
        run(
            "train",
            table,
            "--text",
            "message",
            "--label",
            "folder",
            "--base",
            tiny_base,
            "--output",
            trained,
            "--learning-rate",
            "3e-3",
            "--batch_size=8",
            "--max-length",
            24,
            "--epochs",
            8,
        )
        == 0
    )
    assert run("export", trained, "--output", out, "--force") == 0
    return trained, out


def test_train_export_predict_answers_as_it_was_verified(exported, tmp_path, capsys):
    trained, out = exported
    rows = [json.loads(line) for line in (trained / "evaluation.jsonl").read_text().splitlines()]
    table = tmp_path / "rows.jsonl"
    table.write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in rows))
    assert run("predict", out, table, "--precision", "fp32") == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["line"] for answer in answers] == list(range(1, len(rows) + 1))
    right = sum(answer["label"] == row["label"] for answer, row in zip(answers, rows, strict=True))
    manifest = json.loads((out / "manifest.json").read_text())
    assert right / len(rows) == pytest.approx(manifest["verification"]["fp32"]["accuracy"])
    for answer in answers:
        assert sum(answer["probabilities"].values()) == pytest.approx(1)
        assert answer["probability"] == max(answer["probabilities"].values())


def test_predict_writes_csv_and_the_largest_probabilities(exported, tmp_path, capsys):
    out = exported[1]
    table = tmp_path / "texts.csv"
    table.write_text('id,text\n1,"goal, team\nand cup"\n2,"the ""bank"" share"\n', encoding="utf-8")
    answers = tmp_path / "answers.csv"
    assert run("predict", out, table, "--format", "csv", "--output", answers) == 0
    read = list(csv.DictReader(io.StringIO(answers.read_text(encoding="utf-8"))))
    assert [row["text"] for row in read] == ["goal, team\nand cup", 'the "bank" share']
    assert [row["line"] for row in read] == ["2", "4"]
    assert run("predict", out, table, "--top", 1) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["label"] for row in lines] == [row["label"] for row in read]
    assert all(list(line["probabilities"]) == [line["label"]] for line in lines)


def test_predict_says_how_much_of_its_work_was_padding(exported, tmp_path, capsys):
    table = tmp_path / "texts.csv"
    some = ["goal", "goal team cup goal team", "bank share bank"]
    table.write_text("text\n" + "\n".join(some) + "\n")
    predictor = load(exported[1], 1)
    lengths = [len(predictor.tokenizer.encode(text).ids) for text in some]
    padding = 3 * max(lengths) - sum(lengths)
    assert padding > 0
    # int8 texts are read one at a time by default
    for told, padded in ((("--precision", "int8"), 0), (("--precision", "fp32", "--batch-size", 3), padding)):
        assert run("predict", exported[1], table, *told) == 0
        share = padded / (padded + sum(lengths))
        assert f"3 texts of {sum(lengths)} tokens; {share:.1%} of what was computed" in capsys.readouterr().err


def test_predict_reads_standard_input_as_a_program(exported):
    code = "from squeezebert.cli import main; raise SystemExit(main())"
    command = [sys.executable, "-c", code, "predict", str(exported[1]), "-"]
    result = subprocess.run(
        command, input="goal team cup ☃\nbank share\n", capture_output=True, encoding="utf-8", check=False
    )
    assert result.returncode == 0, result.stderr
    assert [json.loads(line)["text"] for line in result.stdout.splitlines()] == ["goal team cup ☃", "bank share"]


def test_predict_stops_at_a_bad_row_or_skips_it(exported, tmp_path, capsys):
    table = tmp_path / "bad.csv"
    table.write_text('text,more\ngoal,1\nbank\n"",3\nstar,4\n')
    assert run("predict", exported[1], table) == 1
    said = capsys.readouterr()
    assert "bad.csv:3" in said.err
    assert run("predict", exported[1], table, "--skip-bad-rows") == 0
    said = capsys.readouterr()
    assert [json.loads(line)["line"] for line in said.out.splitlines()] == [2, 4, 5]  # an empty text has an answer
    assert "skipped 1 rows" in said.err


def test_predict_never_writes_over_what_it_reads(exported, tmp_path, capsys):
    table = tmp_path / "t.csv"
    table.write_text("text\ngoal\n")
    assert run("predict", exported[1], table, "--output", table) == 1
    assert "reads or keeps" in capsys.readouterr().err
    assert table.read_text() == "text\ngoal\n"
    answers = tmp_path / "answers.jsonl"
    answers.write_text("of yesterday")
    assert run("predict", exported[1], table, "--output", answers) == 1
    assert "is there already: choose another name, or --overwrite it" in capsys.readouterr().err
    assert answers.read_text() == "of yesterday"
    assert run("predict", exported[1], table, "--output", answers, "--overwrite") == 0
    assert json.loads(answers.read_text())["text"] == "goal"
    capsys.readouterr()
    assert run("predict", exported[1], table, "--output", tmp_path) == 1
    assert "a folder; name a file" in capsys.readouterr().err


def test_a_file_may_have_any_name(exported, tmp_path):
    table = os.fsencode(tmp_path) + b"/caf\xe9.csv"
    Path(os.fsdecode(table)).write_text("text\ngoal\n")
    for form in ("jsonl", "csv"):
        written = tmp_path / f"a.{form}"
        assert run("predict", exported[1], os.fsdecode(table), "--output", written, "--format", form) == 0
        assert "caf\\udce9.csv" in written.read_text()
    assert json.loads((tmp_path / "a.jsonl").read_text())["source"] == os.fsdecode(table)


def test_a_place_that_cannot_be_written_is_named(exported, topic_table, tiny_base, tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert run("train", topic_table, "--base", tiny_base, "--output", blocked / "x", "--epochs", 1) == 1
    assert run("export", exported[0], "--output", blocked / "x") == 1
    assert capsys.readouterr().err.count("error: ") == 2


def test_export_verifies_on_a_table_of_the_users(exported, tmp_path, capsys):
    table = tmp_path / "eval.tsv"
    table.write_text("text\tlabel\n" + "".join(f"{text}\t{topic}\n" for text, topic in topic_rows(30, seed=5)))
    assert run("export", exported[0], "--output", tmp_path / "out", "--eval", table, "--precision", "fp32") == 0
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["verification"]["fp32"]["rows"] == 30
    table.write_text("text\tlabel\ngoal\tsport\nbank\tcooking\n")
    assert run("export", exported[0], "--output", tmp_path / "out2", "--eval", table) == 1
    assert "cooking" in capsys.readouterr().err
    assert not (tmp_path / "out2").exists()


def test_calibration_text_is_read_as_it_is_told(exported, tmp_path, capsys):
    table = tmp_path / "calibration.csv"
    rows = [f"{i},{text},{'b' * i}" for i, (text, _) in enumerate(topic_rows(40, seed=5))]
    table.write_text("when,words,bar\n" + "\n".join(rows) + "\n41,a\0b,c\n")
    told = ("export", exported[0], "--output", tmp_path / "out", "--activations", "static", "--calibration", table)
    assert run(*told, "--force", "--skip-bad-rows") == 1
    assert "name it with --text" in capsys.readouterr().err
    assert run(*told, "--force", "--text", "words") == 1
    assert "NUL" in capsys.readouterr().err
    for option in ("--text", "--calibration-text"):
        assert run(*told, "--force", "--overwrite", "--skip-bad-rows", option, "words") == 0
        assert "skipped 1 rows" in capsys.readouterr().err
        assert (
            "static" in json.loads((tmp_path / "out" / "manifest.json").read_text())["files"]["int8"]["quantisation"]
        )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "nowhere.csv", "--output", "x"), "nowhere.csv"),
        (("export", "nowhere", "--output", "x"), "nowhere: no such folder"),
        (("predict", "nowhere", "-"), "nowhere"),
    ],
)
def test_what_is_not_there_is_named_without_a_traceback(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 1
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith("error: ")
    assert words in said
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_predicting_with_a_checkpoint_says_to_export_it(exported, capsys):
    assert run("predict", exported[0], "-") == 1
    assert "squeezebert export" in capsys.readouterr().err


def test_impossible_options_are_explained(topic_table, tmp_path, capsys):
    assert run("train", topic_table, "--output", tmp_path / "m", "--eval-fraction", 2) == 1
    assert "--eval-fraction 2" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        run("train", topic_table, "--output", tmp_path / "m", "--epochs", "many")
    assert stopped.value.code == 2
    assert "epochs" in capsys.readouterr().err


def test_a_recipe_sets_options_and_the_command_line_outranks_it(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("learning_rate: 0.5\nepochs: 7\n")
    given = build_parser().parse_args(
        dashed(["train", "d.csv", "--output", "m", "--recipe", str(recipe), "--epochs", "2"])
    )
    assert (given.train.learning_rate, given.train.epochs) == (0.5, 2.0)


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_explained(verb, capsys):
    with pytest.raises(SystemExit):
        main([*verb.split(), "--help"])
    text = capsys.readouterr().out
    assert "--" in text
    from dataclasses import fields

    for part in VERBS[verb][1]:
        documented = field_docstrings(part)
        assert all(documented.get(field.name) for field in fields(part))


HEAVY = ["torch", "transformers", "datasets", "sklearn", "scipy", "onnxruntime", "pyarrow"]


@pytest.mark.parametrize(
    "code",
    [
        "import squeezebert",
        "from squeezebert.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "from squeezebert.cli import main\ntry: main(['train', '--help'])\nexcept SystemExit: pass",
    ],
)
def test_help_and_import_are_light(code):
    check = f"import sys\n{code}\nprint('heavy:', [m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert result.stdout.rstrip().endswith("heavy: []")


def test_the_runtime_answers_without_torch(exported, tmp_path):
    """With every package of the training stack made unimportable, prediction works."""
    table = tmp_path / "t.csv"
    table.write_text("text\ngoal team\n")
    blocked = [name for name in HEAVY if name != "onnxruntime"] + ["onnx", "accelerate", "jinja2", "matplotlib"]
    code = f"""
import sys
for name in {blocked!r}:
    sys.modules[name] = None
from squeezebert.cli import main
raise SystemExit(main(["predict", {str(exported[1])!r}, {str(table)!r}]))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["label"] in ("money", "sport", "stage")


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["train", "d.csv", "--output", "m"], "squeezebert[train]"),
        (["export", "m", "--output", "e"], "squeezebert[train]"),
        (["demo"], "squeezebert[demo]"),
    ],
)
def test_the_base_install_names_the_extra_that_a_verb_needs(arguments, extra):
    code = f"""
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
from squeezebert.cli import main
raise SystemExit(main({arguments!r}))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert f"pip install '{extra}'" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_module_is_the_program():
    result = subprocess.run(
        [sys.executable, "-m", "squeezebert", "--version"], capture_output=True, text=True, check=True
    )
    import squeezebert

    assert result.stdout.strip() == squeezebert.__version__


@pytest.mark.parametrize("before", [True, False])
def test_what_is_typed_means_more_than_a_recipe(tmp_path, before):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("batch_size: 7\nepochs: 9\n")
    told = ["--batch-size", "5"]
    told = [*told, "--recipe", str(recipe)] if before else [f"--recipe={recipe}", *told]
    given = ["train", "data.csv", "--output", "model", *told]
    found = build_parser().parse_args(recipes_first(given, FAMILIES))["train"]
    assert (found.batch_size, found.epochs) == (5, 9)
    assert recipes_first(["glue", "run", "--model", "a", "--recipe", "b"], FAMILIES) == [
        "glue",
        "run",
        "--recipe",
        "b",
        "--model",
        "a",
    ]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("glue run --model a --output o --model b c", "glue run --model a b c --output o"),
        ("glue run --model=a --model=b --no-test", "glue run --model a b --no-test"),
        ("squeeze --text=a --text=b CHECKPOINT", "squeeze CHECKPOINT --text a b"),
        ("squeeze CHECKPOINT --text a b --output o", "squeeze CHECKPOINT --text a b --output o"),
        ("train TABLE --epochs 2 --epochs 3", "train TABLE --epochs 2 --epochs 3"),
        ("--version", "--version"),
    ],
)
def test_an_option_of_several_values_given_twice_has_all_of_them(given, meant):
    assert together(given.split(), VERBS) == meant.split()


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_alone_has_the_options_that_it_has_among_all(verb, every_verb, capsys):
    helped = []
    for parser in (every_verb, build_parser(alone=verb)):
        with pytest.raises(SystemExit):
            parser.parse_args([*verb.split(), "--help"])
        helped.append(capsys.readouterr().out)
    assert helped[0] == helped[1]
    assert "--recipe" in helped[1]


@pytest.mark.parametrize(
    ("words", "verb"),
    [(["pairs", "score", "--help"], "pairs score"), (["train", "--help"], "train"), (["--help"], None), (["x"], None)],
)
def test_a_command_reads_the_options_of_its_own_verb_alone(words, verb, monkeypatch):
    read = []
    monkeypatch.setattr(parsing, "add_options", lambda parser, part: read.append(part))
    with pytest.raises(SystemExit):
        main(words)
    assert tuple(read) == (VERBS[verb][1] if verb else ())


@pytest.fixture(scope="module")
def every_verb():
    return build_parser()
