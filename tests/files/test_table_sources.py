"""Folders, Parquet, saved datasets and the Hub: rows, splits, and what is said when something is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from squeezebert.files.errors import DependencyError, TableError
from squeezebert.files.tables import StrayFile, read_rows, table_splits


def make_files(folder: Path, **texts: str) -> Path:
    """`pos__a_txt="x"` makes pos/a.txt: two underscores are a slash, the last one is a dot."""
    for name, text in texts.items():
        stem, _, ending = name.replace("__", "/").rpartition("_")
        path = folder / f"{stem}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


# --- folder per label ----------------------------------------------------------------------------------------


def test_folder_per_label(tmp_path):
    make_files(tmp_path, pos__b_txt="good\nfilm\n", pos__a_txt="nice", neg__c_txt="bad\r\n")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.txt").write_text("hidden")
    (tmp_path / "pos" / ".hidden.txt").write_text("hidden")
    reports = []
    rows = list(read_rows(tmp_path, on_skip=reports.append))
    assert [dict(row.values) for row in rows] == [
        {"text": "bad", "label": "neg"},
        {"text": "nice", "label": "pos"},
        {"text": "good\nfilm", "label": "pos"},
    ]
    assert [row.source for row in rows] == [str(tmp_path / name) for name in ("neg/c.txt", "pos/a.txt", "pos/b.txt")]
    assert {row.line for row in rows} == {1}
    assert reports == []


def test_stray_files_are_reported_and_never_stop(tmp_path):
    make_files(tmp_path, README_md="about", pos__a_txt="x", pos__notes_pdf="?", pos__deep__b_txt="y")
    (tmp_path / "empty").mkdir()
    reports = []
    assert len(list(read_rows(tmp_path, on_skip=reports.append))) == 1
    assert all(isinstance(report, StrayFile) for report in reports)
    messages = "\n".join(map(str, reports))
    for name in ("README.md", "pos/notes.pdf", "pos/deep", "empty"):
        assert str(tmp_path / name) in messages
    assert "'empty' has no examples" in messages
    assert len(reports) == 4


def test_badly_encoded_file_of_a_folder(tmp_path):
    make_files(tmp_path, pos__a_txt="x", pos__b_txt="y")
    (tmp_path / "pos" / "a.txt").write_bytes(b"one\ncaf\xe9")
    with pytest.raises(TableError, match=r"pos/a\.txt:2: badly encoded: byte 0xe9 at offset 7"):
        list(read_rows(tmp_path))
    skipped = []
    assert [row.values["text"] for row in read_rows(tmp_path, skip_bad_rows=True, on_skip=skipped.append)] == ["y"]
    assert len(skipped) == 1


def test_folder_of_nothing_usable(tmp_path):
    make_files(tmp_path, notes_md="x", code__a_py="x")
    with pytest.raises(TableError, match=r"no table in this folder.*per label.*save_to_disk") as caught:
        read_rows(tmp_path)
    assert str(tmp_path) in str(caught.value)


# --- splits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["validation", "dev", "valid", "val", "Eval"])
def test_folder_with_a_file_per_split(tmp_path, name):
    (tmp_path / "train.csv").write_text("text,label\na,x\n")
    (tmp_path / f"{name}.tsv.gz").write_bytes(b"")
    (tmp_path / "test.jsonl").write_text("{}")
    assert table_splits(tmp_path) == {
        "train": str(tmp_path / "train.csv"),
        "validation": str(tmp_path / f"{name}.tsv.gz"),
        "test": str(tmp_path / "test.jsonl"),
    }
    with pytest.raises(TableError, match=r"several tables, so name one: .*train\.csv"):
        read_rows(tmp_path)


def test_folder_with_a_folder_of_labels_per_split(tmp_path):
    make_files(
        tmp_path,
        train__pos__a_txt="good",
        train__neg__b_txt="bad",
        train__urls_txt="a stray file, as in aclImdb",
        test__pos__c_txt="fine",
        unsup__x__d_txt="?",
    )
    splits = table_splits(tmp_path)
    assert splits == {name: str(tmp_path / name) for name in ("train", "test", "unsup")}
    strays = []
    assert [row.values["label"] for row in read_rows(splits["train"], on_skip=strays.append)] == ["neg", "pos"]
    assert len(strays) == 1


def test_labels_named_like_splits_are_labels(tmp_path):
    make_files(tmp_path, train__a_txt="rails", plane__b_txt="wings", test__c_txt="exam")
    assert table_splits(tmp_path) == {}
    assert [row.values["label"] for row in read_rows(tmp_path)] == ["plane", "test", "train"]


def test_a_folder_with_one_split_is_that_split(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\na,x\n")
    assert [row.source for row in read_rows(tmp_path)] == [str(tmp_path / "train.csv")]


def test_two_sources_for_one_split(tmp_path):
    (tmp_path / "dev.csv").write_text("text\na\n")
    (tmp_path / "validation.jsonl").write_text("{}")
    with pytest.raises(
        TableError, match=r"two sources for the split 'validation': .*dev\.csv and .*validation\.jsonl"
    ):
        table_splits(tmp_path)


def test_single_tables_have_no_splits(tmp_path):
    (tmp_path / "train.csv").write_text("text\na\n")
    assert table_splits(tmp_path / "train.csv") == {}
    assert table_splits("-") == {}
    assert table_splits(tmp_path / "gone.csv") == {}


# --- Parquet -------------------------------------------------------------------------------------------------


def write_parquet(path: Path, columns: list, names: list[str]) -> Path:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.Table.from_arrays([arrow.array(column) for column in columns], names=names), path)
    return path


def test_parquet_counts_rows(tmp_path):
    texts = [f"text {number}" for number in range(2500)]
    path = write_parquet(tmp_path / "a.parquet", [texts, [[1, 2]] * 2500], ["text", "label"])
    rows = list(read_rows(path))
    assert [row.values["text"] for row in rows] == texts
    assert [row.line for row in rows] == list(range(1, 2501))
    assert rows[0].values["label"] == [1, 2]


def test_broken_parquet(tmp_path):
    whole = write_parquet(tmp_path / "a.parquet", [["x"] * 100], ["text"]).read_bytes()
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole[:-30])
    with pytest.raises(TableError, match=r"cut\.parquet:1: no Parquet file, or damaged: "):
        list(read_rows(cut))
    spoilt = tmp_path / "spoilt.parquet"
    spoilt.write_bytes(whole[:4] + b"\xff" * 40 + whole[44:])
    with pytest.raises(TableError, match=r"spoilt\.parquet:1: no Parquet file, or damaged: "):
        list(read_rows(spoilt))
    empty = tmp_path / "empty.parquet"
    empty.write_bytes(b"")
    with pytest.raises(TableError, match=r"empty\.parquet"):
        list(read_rows(empty))


def test_parquet_without_rows_or_with_one_name_twice(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    path = write_parquet(tmp_path / "none.parquet", [arrow.array([], arrow.string())], ["text"])
    with pytest.raises(TableError, match=r"none\.parquet: empty"):
        list(read_rows(path))
    path = write_parquet(tmp_path / "twice.parquet", [["a"], ["b"]], ["text", "text"])
    with pytest.raises(TableError, match=r"twice\.parquet: duplicate column name 'text'"):
        list(read_rows(path))


@pytest.mark.parametrize(("package", "name"), [("pyarrow", "a.parquet"), ("datasets", "owner/name#train")])
def test_missing_packages_name_the_extra(tmp_path, monkeypatch, package, name):
    monkeypatch.chdir(tmp_path)
    Path("a.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DependencyError, match=rf"needs {package}.*pip install 'squeezebert\[train\]'"):
        list(read_rows(name))


def test_importing_the_reader_loads_no_heavy_package():
    heavy = ["torch", "transformers", "datasets", "pyarrow", "pandas", "sklearn"]
    code = f"import sys, squeezebert.files.tables; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# --- datasets ------------------------------------------------------------------------------------------------


def make_dataset(labels: list[int]):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    classes = datasets.ClassLabel(names=["neg", "pos"])
    features = {"text": datasets.Value("string"), "label": classes, "tags": datasets.List(classes)}
    features["ids"] = datasets.List(datasets.Value("int64"))
    columns = {
        "text": [f"text {number}" for number in range(len(labels))],
        "label": labels,
        "tags": [[0, 1]] * len(labels),
        "ids": [[1, 2]] * len(labels),
    }
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def test_saved_dataset_has_class_names(tmp_path):
    make_dataset([1, 0, -1]).with_format("numpy").save_to_disk(tmp_path / "saved")
    rows = list(read_rows(tmp_path / "saved"))
    assert [row.values["label"] for row in rows] == ["pos", "neg", None]
    assert rows[0].values == {"text": "text 0", "label": "pos", "tags": ["neg", "pos"], "ids": [1, 2]}
    assert type(rows[0].values["ids"]) is list  # whatever format the dataset was saved with
    assert [(row.source, row.line) for row in rows] == [(str(tmp_path / "saved"), line) for line in (1, 2, 3)]
    assert table_splits(tmp_path / "saved") == {}


def test_saved_dataset_dict_has_splits(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.DatasetDict(train=make_dataset([0, 1]), dev=make_dataset([1])).save_to_disk(tmp_path)
    splits = table_splits(tmp_path)
    assert splits == {"train": str(tmp_path / "train"), "validation": str(tmp_path / "dev")}
    assert [row.values["label"] for row in read_rows(splits["validation"])] == ["pos"]
    with pytest.raises(TableError, match="several tables"):
        read_rows(tmp_path)


def test_damaged_saved_dataset(tmp_path):
    make_dataset([0]).save_to_disk(tmp_path)
    next(tmp_path.glob("*.arrow")).write_bytes(b"junk")
    with pytest.raises(TableError, match="damaged dataset folder") as caught:
        list(read_rows(tmp_path))
    assert str(tmp_path) in str(caught.value)
    other = tmp_path / "dict"
    other.mkdir()
    (other / "dataset_dict.json").write_text(json.dumps({"names": []}))
    with pytest.raises(TableError, match=r"dataset_dict\.json: damaged"):
        table_splits(other)


class Hub:
    """Stands in for `datasets.load_dataset`: what it was asked, and what it answers."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def __call__(self, name, configuration=None, *, split=None):
        self.asked.append((name, configuration, split))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer if split is None else self.answer[split]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)  # where no owner/name exists

    def answer_with(answer) -> Hub:
        fake = Hub(answer)
        monkeypatch.setattr(datasets, "load_dataset", fake)
        return fake

    return answer_with


def test_hub_dataset(hub):
    datasets = pytest.importorskip("datasets")
    fake = hub(datasets.DatasetDict(train=make_dataset([0, 1]), validation_matched=make_dataset([1])))
    assert table_splits("owner/glue:mnli") == {
        "train": "owner/glue:mnli#train",
        "validation_matched": "owner/glue:mnli#validation_matched",
    }
    rows = list(read_rows("owner/glue:mnli#train"))
    assert [row.values["label"] for row in rows] == ["neg", "pos"]
    assert (rows[1].source, rows[1].line) == ("owner/glue:mnli#train", 2)
    assert fake.asked == [("owner/glue", "mnli", None), ("owner/glue", "mnli", "train")]
    with pytest.raises(TableError, match="name one: owner/name#train, owner/name#validation_matched"):
        read_rows("owner/name")


def test_hub_dataset_with_one_split_needs_no_name(hub):
    datasets = pytest.importorskip("datasets")
    hub(datasets.DatasetDict(test=make_dataset([1])))
    assert [row.source for row in read_rows("owner/name")] == ["owner/name#test"]


def test_hub_out_of_reach(tmp_path, monkeypatch):
    """The real `datasets`, offline (see conftest): no network, no wait."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    for call in (table_splits, read_rows):
        with pytest.raises(
            TableError, match=r"owner/name: no such file or folder, and the .*Hub could not be reached"
        ):
            call("owner/name")


def test_hub_without_such_a_dataset(hub):
    datasets = pytest.importorskip("datasets")
    hub(datasets.exceptions.DatasetNotFoundError("Dataset 'owner/name' doesn't exist on the Hub"))
    with pytest.raises(TableError, match="no such file or folder, and the Hub has no such dataset"):
        read_rows("owner/name")


def test_hub_dataset_that_needs_a_configuration(hub):
    hub(ValueError("Config name is missing. Please pick one among ['cola', 'sst2']"))
    with pytest.raises(TableError, match=r"could not be loaded.*pick one among \['cola', 'sst2'\]"):
        read_rows("owner/glue")


def test_a_missing_file_with_a_tables_ending_is_never_looked_for_on_the_hub(hub):
    fake = hub(AssertionError("asked the Hub"))
    with pytest.raises(TableError, match=r"data/train\.csv: no such file or folder$"):
        read_rows("data/train.csv")
    assert table_splits("data/train.csv") == {}
    assert fake.asked == []
