"""Which columns are taken for text and label, and what is said when that is not clear."""

from __future__ import annotations

import pytest

from squeezebert.data.columns import Columns, find_columns, require_columns
from squeezebert.data.options import DataOptions
from squeezebert.files.errors import OptionError, TableError


def find(names: str, *, labelled: bool = True, **options) -> Columns:
    return find_columns(names.split(" "), DataOptions(**options), "a.csv", labelled=labelled)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("id Text LABEL", Columns("Text", None, ("LABEL",))),
        ("message folder", Columns("message", None, ("folder",))),
        ("idx sentence1 sentence2 label", Columns("sentence1", "sentence2", ("label",))),
        ("id question1 question2 is_duplicate", Columns("question1", "question2", ("is_duplicate",))),
        ("gold_label premise Hypothesis", Columns("premise", "Hypothesis", ("gold_label",))),
        ("question sentence label", Columns("question", "sentence", ("label",))),
        ("text_a text_b score", Columns("text_a", "text_b", ("score",))),
        ("ticket intent", Columns("ticket", None, ("intent",))),  # two columns: the other is the text
    ],
)
def test_usual_names(names, expected):
    assert find(names) == expected


def test_named_columns_win():
    assert find("a b text label", text="a", label="b") == Columns("a", None, ("b",))
    assert find("sentence1 sentence2 label", text="sentence2") == Columns("sentence2", None, ("label",))
    assert find("x y label", text="x", text_pair="y") == Columns("x", "y", ("label",))
    assert find("sentence1 sentence2 y", text_pair="sentence2", label="y") == Columns("sentence1", "sentence2", ("y",))
    assert find("sentence1 sentence2 label", text_pair="sentence1", text="sentence2").text_pair == "sentence1"
    assert find("other text label", text_pair="other") == Columns("text", "other", ("label",))


def test_several_label_columns_and_a_name_with_a_comma():
    assert find("comment toxic rude", label="toxic, rude").labels == ("toxic", "rude")
    assert find_columns(["text", "a,b"], DataOptions(label="a,b"), "a.csv").labels == ("a,b",)


def test_the_nameless_index_of_pandas_is_no_text():
    assert find_columns(["", "ticket", "label"], DataOptions(), "a.csv") == Columns("ticket", None, ("label",))


def test_without_labels():
    assert find("text", labelled=False) == Columns("text")
    assert find("whatever", labelled=False) == Columns("whatever")
    assert find("whatever label", labelled=False) == Columns("whatever")
    assert find("text label category", labelled=False) == Columns("text")
    assert find("ticket y", label="y", labelled=False) == Columns("ticket")
    assert find("text", label="y", labelled=False) == Columns("text")


@pytest.mark.parametrize(
    ("names", "options", "parts"),
    [
        ("text label", {"text": "txt"}, ["'txt' (--text)", "'text', 'label'", "did you mean 'text'?"]),
        ("text Label", {"label": "label"}, ["'label' (--label)", "did you mean 'Label'?"]),
        ("text a b", {"label": "a,c"}, ["'c' (--label)", "'text', 'a', 'b'"]),
        ("text pair label", {"text_pair": "zzz"}, ["'zzz' (--text-pair)"]),
        ("id text foo", {}, ["for the label", "--label", "'id', 'text', 'foo'"]),
        ("id foo label", {}, ["for the text", "--text", "'id', 'foo', 'label'"]),
        ("text label category", {}, ["several columns may be the label", "'label', 'category'", "--label"]),
        ("text comment label", {}, ["several columns may be the text", "'text', 'comment'", "--text"]),
        ("text Text label", {}, ["several columns may be the text", "'text', 'Text'"]),
        ("sentence1 sentence2 text label", {}, ["several columns may be the text", "'sentence1'", "'text'"]),
        ("text label", {"text": "label", "label": "label"}, ["'label' is used twice"]),
        ("text a b", {"label": "a,a"}, ["'a' is used twice"]),
    ],
)
def test_unclear_columns(names, options, parts):
    with pytest.raises(TableError) as caught:
        find(names, **options)
    for part in ["a.csv: ", *parts]:
        assert part in str(caught.value)


def test_a_header_that_looks_like_data_gets_a_hint():
    with pytest.raises(TableError, match="if line 1 is data, put a header line before it"):
        find_columns(["I love this", "1"], DataOptions(), "a.csv")
    with pytest.raises(TableError) as caught:
        find("foo bar")
    assert "header" not in str(caught.value)


def test_require_columns():
    require_columns(Columns("a", "b", ("c",)), ["c", "b", "a", "d"], "b.csv")
    with pytest.raises(TableError, match=r"b\.csv: no column 'b', which the training rows have; .*'a', 'c'"):
        require_columns(Columns("a", "b", ("c",)), ["a", "c"], "b.csv")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"task": "ranking"}, "--task ranking: expected one of auto, single_label"),
        ({"eval_fraction": 1.0}, "--eval-fraction 1.0"),
        ({"eval_fraction": 0.0}, "--eval-fraction 0.0"),
        ({"label_separator": ""}, "--label-separator"),
        ({"label_separator": "|", "task": "regression"}, "--label-separator"),
        ({"split_seed": -1}, "--split-seed -1"),
    ],
)
def test_options_refuse_values(options, part):
    with pytest.raises(OptionError) as caught:
        DataOptions(**options)
    assert part in str(caught.value)


@pytest.mark.parametrize("line", ["I love this film.", "what a waste of time", "Refund!", "a" * 41])
def test_an_only_column_that_reads_like_a_text_is_not_taken_for_a_header(line):
    with pytest.raises(TableError, match="put a header line before it"):
        find_columns([line], DataOptions(), "a.csv", labelled=False)
    with pytest.raises(TableError, match="put a header line before it"):
        find_columns([line, "label"], DataOptions(), "a.csv")
    assert find_columns([line], DataOptions(text=line), "a.csv", labelled=False).text == line
