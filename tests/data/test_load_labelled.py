"""From a table to checked training data: tasks, bad rows, rules for the whole, report and arrays."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import numpy as np
import pytest

from squeezebert.data.examples import Columns, Example, encode_targets, load_labelled, read_examples
from squeezebert.data.options import DataOptions
from squeezebert.files.errors import OptionError, TableError


def write_csv(path: Path, rows: list[tuple], header: tuple[str, ...] = ("text", "label")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_json(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def many(labels, count: int = 10) -> list[tuple[str, object]]:
    return [(f"{label} text {number}", label) for number in range(count) for label in labels]


def load(path: Path, **options):
    data = load_labelled(path, DataOptions(**options))
    report = data.report
    assert report.rows_read == len(data.train) + len(data.evaluation) + sum(report.skipped.values())
    assert (report.train_rows, report.evaluation_rows) == (len(data.train), len(data.evaluation))
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()
    return data


def fails(path: Path, *parts: str, **options) -> str:
    with pytest.raises(TableError) as caught:
        load_labelled(path, DataOptions(**options))
    message = str(caught.value)
    for part in parts:
        assert part in message, message
    return message


# --- tasks ---------------------------------------------------------------------------------------------------


def test_single_label(tmp_path):
    path = write_csv(tmp_path / "a.csv", many(["spam", " ham "]))
    data = load(path)
    assert (data.task, data.labels) == ("single_label", ("ham", "spam"))
    assert data.columns == Columns("text", None, ("label",))
    assert (len(data.train), len(data.evaluation)) == (18, 2)
    assert data.train[0] == Example("spam text 0", None, "spam", str(path), 2)
    assert data.report.train_labels == {"ham": 9, "spam": 9}
    assert data.report.evaluation_labels == {"ham": 1, "spam": 1}
    assert data.report.warnings == ()
    assert data.report.evaluation_from == f"0.1 of the distinct texts of {path}, split seed 0"
    assert load(path) == data
    assert load(path, split_seed=1).evaluation != data.evaluation


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([10, 9, 2], ("2", "9", "10")),
        ([True, False], ("false", "true")),
        (["1.0", "0.0"], ("0", "1")),
        ([1.0, "2.0", "1"], ("1", "2")),
    ],
)
def test_numbers_and_truth_values_as_classes(tmp_path, labels, expected):
    rows = [{"text": f"{text} {label!r}", "label": label} for text, label in many(labels)]
    data = load(write_json(tmp_path / "a.jsonl", rows))
    assert (data.task, data.labels) == ("single_label", expected)


def test_floats_forced_to_be_classes(tmp_path):
    data = load(write_csv(tmp_path / "a.csv", many(["1.0", "1.5"])), task="single_label")
    assert data.labels == ("1.0", "1.5")
    assert data.task == "single_label"


def test_regression(tmp_path):
    path = write_csv(tmp_path / "a.csv", [(f"text {n}", n / 2) for n in range(40)], ("text", "score"))
    data = load(path)
    assert (data.task, data.labels) == ("regression", ())
    assert (len(data.train), len(data.evaluation)) == (36, 4)
    assert data.train[0].label == 0.0
    assert data.report.train_labels == {}
    assert data.report.warnings == ()
    targets = encode_targets(data.train, data.task, data.labels)
    assert (targets.dtype, targets.shape) == (np.float32, (36,))
    assert targets.tolist() == [example.label for example in data.train]


def test_whole_numbers_forced_to_be_regression(tmp_path):
    assert load(write_csv(tmp_path / "a.csv", many([1, 2, 3])), task="regression").task == "regression"


@pytest.mark.parametrize("how", ["lists", "separator", "columns"])
def test_multi_label(tmp_path, how):
    sets = [[], ["rude"], ["rude", "spam"], ["spam"]] * 10
    if how == "lists":
        rows = [{"text": f"text {n}", "labels": labels} for n, labels in enumerate(sets)]
        data = load(write_json(tmp_path / "a.jsonl", rows))
    elif how == "separator":
        rows = [(f"text {n}", " | ".join(labels)) for n, labels in enumerate(sets)]
        data = load(write_csv(tmp_path / "a.csv", rows), label_separator="|")
    else:
        rows = [(f"text {n}", int("spam" in labels), int("rude" in labels)) for n, labels in enumerate(sets)]
        data = load(write_csv(tmp_path / "a.csv", rows, ("text", "spam", "rude")), label="spam,rude")
    assert (data.task, data.labels) == ("multi_label", ("rude", "spam"))
    assert [example.label for example in data.train[:3] + data.evaluation].count(()) >= 1
    assert len(data.train) + len(data.evaluation) == 40
    targets = encode_targets(data.train, data.task, data.labels)
    assert (targets.dtype, targets.shape) == (np.float32, (len(data.train), 2))
    assert targets.sum(axis=0).tolist() == list(data.report.train_labels.values())


def test_pairs(tmp_path):
    rows = [(f"one {n}", "same", n % 2) for n in range(20)]
    data = load(write_csv(tmp_path / "a.csv", rows, ("sentence1", "sentence2", "label")))
    assert data.columns == Columns("sentence1", "sentence2", ("label",))
    assert data.train[0].text_pair == "same"


def test_several_columns_contradict_another_task(tmp_path):
    path = write_csv(tmp_path / "a.csv", [("x", 1, 0)], ("text", "a", "b"))
    with pytest.raises(OptionError, match="--task single_label: needs one label column, and --label names 2"):
        load_labelled(path, DataOptions(label="a,b", task="single_label"))


def test_a_json_object_is_no_label(tmp_path):
    rows = [{"text": f"text {n}", "label": {"rude": 1, "spam": 0}} for n in range(5)]
    fails(write_json(tmp_path / "a.jsonl", rows), "a.jsonl:1:", "label of the wrong kind")


# --- bad rows ------------------------------------------------------------------------------------------------

GOOD = [{"text": f"{label} {n}", "label": label} for n in range(10) for label in ("a", "b")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": " \n", "label": "a"}, "empty text: column 'text'"),
        ({"text": None, "label": "a"}, "text is not a string: column 'text' holds 'None'"),
        ({"text": 5, "label": "a"}, "text is not a string: column 'text' holds '5' (int)"),
        ({"text": "x\ud800", "label": "a"}, "text is not valid Unicode"),
        ({"label": "a"}, "missing column: 'text'"),
        ({"text": "x"}, "missing column: 'label'"),
        ({"text": "x", "label": None}, "missing label"),
        ({"text": "x", "label": " "}, "missing label"),
        ({"text": "x", "label": {}}, "label of the wrong kind"),
    ],
)
def test_bad_rows_are_named_or_skipped_and_counted(tmp_path, row, reason):
    path = write_json(tmp_path / "a.jsonl", [*GOOD[:3], row, *GOOD[3:]])
    fails(path, f"{path}:4: {reason}", "--skip-bad-rows")
    data = load(path, skip_bad_rows=True)
    assert data.report.rows_read == 21
    assert data.report.skipped == {reason.split(":")[0]: 1}
    assert data.report.skipped_messages[0].startswith(f"{path}:4: {reason}")
    assert "1 row skipped" in data.report.warnings[0]


def test_empty_second_text(tmp_path):
    path = write_csv(tmp_path / "a.csv", [("x", " ", "1")], ("sentence1", "sentence2", "label"))
    fails(path, f"{path}:2: empty text: column 'sentence2'")


@pytest.mark.parametrize(("cell", "reason"), [("high", "not a number"), ("nan", "finite"), ("inf", "finite")])
def test_bad_numbers(tmp_path, cell, reason):
    path = write_csv(tmp_path / "a.csv", [*((f"text {n}", n / 2) for n in range(20)), ("x", cell)])
    fails(path, f"{path}:22:", reason, task="regression")
    assert len(load(path, task="regression", skip_bad_rows=True).train) == 18


def test_bad_indicator(tmp_path):
    path = write_csv(tmp_path / "a.csv", [("x", 1, 2)], ("text", "a", "b"))
    fails(path, f"{path}:2: not a 0/1 label: column 'b' holds '2'", label="a,b")


def test_bad_rows_of_the_reader_count_too(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"text,label\n" + b"".join(f"t{n},{n % 2}\n".encode() for n in range(20)) + b"x\ny\xff,1\n")
    data = load(path, skip_bad_rows=True)
    assert data.report.skipped == {"badly encoded": 1, "wrong number of fields": 1}
    assert data.report.rows_read == 22


def test_nothing_but_bad_rows(tmp_path):
    fails(write_csv(tmp_path / "a.csv", [("x",)]), "all were skipped", skip_bad_rows=True)
    fails(write_csv(tmp_path / "a.csv", [(" ", "a")]), "no usable rows to train on", skip_bad_rows=True)


# --- rules for the whole -------------------------------------------------------------------------------------


def test_a_class_with_one_example(tmp_path):
    path = write_csv(tmp_path / "a.csv", [*many("ab"), ("lonely", "c")])
    fails(path, "'c'", f"{path}:22", "can't be both trained on and evaluated")
    data = load(path, skip_bad_rows=True)
    assert data.labels == ("a", "b")
    assert data.report.skipped == {"label with one example": 1}
    assert f"{path}:22" in data.report.skipped_messages[0]


def test_a_class_with_one_distinct_text(tmp_path):
    path = write_csv(tmp_path / "a.csv", [*many("ab"), ("lonely", "c"), ("lonely", "c")])
    fails(path, f"'c' ({path}:22), 'c' ({path}:23)", "can't be both")


def test_a_class_with_one_example_will_do_when_evaluation_rows_are_given(tmp_path):
    path = write_csv(tmp_path / "a.csv", [*many("ab"), ("lonely", "c")])
    data = load(path, eval=str(write_csv(tmp_path / "b.csv", [("x", "c")])))
    assert data.labels == ("a", "b", "c")
    assert data.report.evaluation_labels == {"a": 0, "b": 0, "c": 1}
    assert "2 labels are on no evaluation row: 'a', 'b'" in data.report.warnings


def test_one_class(tmp_path):
    path = write_csv(tmp_path / "a.csv", many("a"))
    fails(path, str(path), "all rows have the label 'a'", "two classes")
    fails(path, "two classes", eval=str(path))


def test_multi_label_without_any_label(tmp_path):
    path = write_json(tmp_path / "a.jsonl", [{"text": f"t{n}", "label": []} for n in range(9)])
    fails(path, str(path), "no row has any label")


def test_an_evaluation_label_never_trained_on(tmp_path):
    path = write_csv(tmp_path / "a.csv", many("ab"))
    other = write_csv(tmp_path / "b.csv", [("x", "a"), ("y", "c"), ("z", "d")])
    fails(path, "label never trained on", f"'c' ({other}:3), 'd' ({other}:4)", eval=str(other))
    data = load(path, eval=str(other), skip_bad_rows=True)
    assert [example.text for example in data.evaluation] == ["x"]
    assert data.report.skipped == {"label never trained on": 2}
    only = write_csv(tmp_path / "c.csv", [("y", "c")])
    fails(path, str(only), "no usable rows to evaluate on", eval=str(only), skip_bad_rows=True)


def test_many_evaluation_labels_never_trained_on(tmp_path):
    path = write_csv(tmp_path / "a.csv", many("ab"))
    other = write_csv(tmp_path / "b.csv", many("cdefgh", 1))
    assert "and 3 rows more" in fails(path, eval=str(other))


def test_a_label_column_that_is_never_one(tmp_path):
    path = write_csv(tmp_path / "a.csv", [(f"t{n}", n % 2, 0) for n in range(20)], ("text", "a", "b"))
    data = load(path, label="a,b")
    assert data.labels == ("a", "b")
    assert "1 label is on no training row: 'b'" in data.report.warnings
    other = write_csv(tmp_path / "b.csv", [("x", 0, 1)], ("text", "a", "b"))
    fails(path, "label never trained on: 'b'", label="a,b", eval=str(other))


# --- evaluation rows, leaks, conflicts -----------------------------------------------------------------------


def test_our_own_split_never_leaks_and_duplicates_are_counted(tmp_path):
    rows = many("ab", 30)
    data = load(write_csv(tmp_path / "a.csv", rows * 3), eval_fraction=0.3)
    assert len(data.evaluation) == 54
    assert data.report.evaluation_texts_in_train == 0
    assert data.report.duplicates_in_train == 84
    assert data.report.warnings == ()


def test_texts_that_are_in_both_are_reported(tmp_path):
    path = write_csv(tmp_path / "a.csv", many("ab"))
    other = write_csv(tmp_path / "b.csv", [("new", "a"), *many("ab", 2)])
    report = load(path, eval=str(other)).report
    assert report.evaluation_texts_in_train == 4
    assert report.leaks == tuple((f"{path}:{line}", f"{other}:{line + 1}") for line in (2, 3, 4))
    assert report.evaluation_from == str(other)
    assert f"4 evaluation rows have a text that is also trained on: {path}:2 = {other}:3" in report.warnings[0]


def test_conflicting_labels_are_reported(tmp_path):
    path = write_csv(tmp_path / "a.csv", [*many("ab"), ("a text 0", "b"), ("a text 0", "b")])
    report = load(path, eval=str(write_csv(tmp_path / "b.csv", [("x", "a")]))).report
    assert report.conflicts_in_train == 1
    assert report.duplicates_in_train == 2
    conflict = f"1 training text occurs with different labels: {path}:2 ('a') and {path}:22 ('b')"
    assert conflict in report.warnings


def test_evaluation_rows_need_the_same_columns(tmp_path):
    path = write_csv(tmp_path / "a.csv", many("ab"))
    other = write_csv(tmp_path / "b.csv", many("ab"), ("message", "label"))
    fails(path, f"{other}: no column 'text'", "'message', 'label'", eval=str(other))


def test_evaluation_labels_are_read_like_training_labels(tmp_path):
    path = write_csv(tmp_path / "a.csv", many([0, 1]))
    other = write_csv(tmp_path / "b.csv", [("x", "1.0"), ("y", "0.0")])
    assert [example.label for example in load(path, eval=str(other)).evaluation] == ["1", "0"]


def test_splits_of_a_folder(tmp_path):
    write_csv(tmp_path / "train.csv", many("ab"))
    write_csv(tmp_path / "test.csv", [("test", "a")])
    data = load(tmp_path)
    assert [example.text for example in data.evaluation] == ["test"]
    assert "there is no validation split, so the test split is used" in data.report.warnings[0]
    write_csv(tmp_path / "dev.csv", [("dev", "b")])
    write_csv(tmp_path / "extra.csv", [("extra", "b")])
    data = load(tmp_path)
    assert [example.text for example in data.evaluation] == ["dev"]
    assert data.report.evaluation_from == str(tmp_path / "dev.csv")
    assert f"not used: {tmp_path / 'extra.csv'}" in data.report.warnings
    data = load(tmp_path, eval=str(tmp_path / "extra.csv"))
    assert [example.text for example in data.evaluation] == ["extra"]


def test_splits_without_training_rows(tmp_path):
    write_csv(tmp_path / "test.csv", many("ab"))
    fails(tmp_path, "no training split; it has test", str(tmp_path / "test.csv"))


def test_only_a_training_split_is_split_by_us(tmp_path):
    write_csv(tmp_path / "train.csv", many("ab"))
    assert len(load(tmp_path).evaluation) == 2


def test_folder_per_label_with_stray_files(tmp_path):
    for text, label in many("ab"):
        (tmp_path / label).mkdir(exist_ok=True)
        (tmp_path / label / f"{text}.txt").write_text(text)
    (tmp_path / "README.md").write_text("about")
    data = load(tmp_path)
    assert data.labels == ("a", "b")
    assert data.report.skipped == {}
    assert f"1 file or folder not read, the first: {tmp_path / 'README.md'}" in data.report.warnings[0]


def test_saved_dataset_dict(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )

    def make(count):
        columns = {"sentence": [f"{count} {n}" for n in range(count)], "label": [n % 2 for n in range(count)]}
        return datasets.Dataset.from_dict(columns, features=features)

    datasets.DatasetDict(train=make(10), validation=make(4), test=make(2)).save_to_disk(tmp_path)
    data = load(tmp_path)
    assert data.labels == ("neg", "pos")
    assert (len(data.train), len(data.evaluation)) == (10, 4)
    assert data.report.warnings == ()


def test_standard_input_cannot_be_both():
    with pytest.raises(OptionError, match="--eval -"):
        load_labelled("-", DataOptions(eval="-"))


# --- one table alone, and arrays -----------------------------------------------------------------------------


def test_read_examples_to_predict(tmp_path):
    path = write_csv(tmp_path / "a.csv", [("x", "a"), ("y", "")])
    expected = [Example("x", None, None, str(path), 2), Example("y", None, None, str(path), 3)]
    assert list(read_examples(path, DataOptions())) == expected
    lines = tmp_path / "b.txt"
    lines.write_text("x\ny\n")
    assert [example.text for example in read_examples(lines, DataOptions())] == ["x", "y"]
    columns = Columns("text", None, ("label",))
    assert len(list(read_examples(lines, DataOptions(), columns=columns))) == 2


def test_read_examples_to_evaluate(tmp_path):
    path = write_csv(tmp_path / "a.csv", [("x", "1.0"), ("y", "2"), ("z", "0")])
    with pytest.raises(TableError, match=r"a\.csv:3: unknown label: '2' is not a label of the model"):
        list(read_examples(path, DataOptions(), task="single_label", labels=("0", "1")))
    skipped = []
    options = DataOptions(skip_bad_rows=True)
    examples = list(read_examples(path, options, task="single_label", labels=("0", "1"), on_skip=skipped.append))
    assert [example.label for example in examples] == ["1", "0"]
    assert len(skipped) == 1


def test_read_examples_says_at_once_that_a_column_is_missing(tmp_path):
    path = write_csv(tmp_path / "a.csv", many("ab"))
    with pytest.raises(TableError, match="no column 'txt'"):
        read_examples(path, DataOptions(text="txt"))
    with pytest.raises(OptionError, match="needs one label column"):
        read_examples(
            path,
            DataOptions(label="text,label", text="text"),
            task="single_label",
            columns=Columns("text", None, ("text", "label")),
        )


def example(label) -> Example:
    return Example("x", None, label, "a.csv", 7)


def test_encode_targets():
    ids = encode_targets([example("b"), example("a")], "single_label", ("a", "b"))
    assert (ids.dtype, ids.tolist()) == (np.int64, [1, 0])
    hot = encode_targets([example(("a", "c")), example(())], "multi_label", ("a", "b", "c"))
    assert (hot.dtype, hot.tolist()) == (np.float32, [[1, 0, 1], [0, 0, 0]])
    numbers = encode_targets([example(0.5)], "regression", ())
    assert (numbers.dtype, numbers.tolist()) == (np.float32, [0.5])
    assert encode_targets([], "single_label", ("a",)).shape == (0,)
    assert encode_targets([], "multi_label", ("a", "b")).shape == (0, 2)
    assert encode_targets([], "regression", ()).shape == (0,)


@pytest.mark.parametrize(
    ("label", "task"),
    [
        ("c", "single_label"),
        (None, "single_label"),
        (("a",), "single_label"),
        (("c",), "multi_label"),
        ("a", "multi_label"),
        (None, "regression"),
        ("a", "regression"),
    ],
)
def test_encode_targets_refuses(label, task):
    with pytest.raises(TableError, match=r"a\.csv:7: label"):
        encode_targets([example(label)], task, ("a", "b"))


def test_a_hundred_thousand_rows_take_seconds(tmp_path):
    path = write_csv(tmp_path / "a.csv", [(f"some text, number {n}\nof a row", n % 7) for n in range(100_000)])
    start = time.process_time()
    data = load_labelled(path, DataOptions())
    encode_targets(data.train, data.task, data.labels)
    assert time.process_time() - start < 10  # about one on the machine this was written on
    assert len(data.train) + len(data.evaluation) == 100_000
