"""GLUE's tables in each of their layouts, bad ones included, and the official metrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from sklearn.metrics import f1_score, matthews_corrcoef

from squeezebert.data.examples import encode_targets
from squeezebert.data.glue import GLUE, glue_metrics, load_glue, overall, task_score
from squeezebert.files.errors import OptionError, TableError

PAIR = "sentence1\tsentence2"


def write(folder: Path, name: str, *lines: str, encoding: str = "utf-8") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + "\n" for line in lines).encode(encoding))
    return path


def write_rte(folder: Path, *more: str, split: str = "train") -> Path:
    rows = [f"{number}\ta {number}\tb\t{word}" for number, word in enumerate(GLUE["RTE"].words * 2)]
    for name in ("train", "dev"):
        write(folder, f"RTE/{name}.tsv", f"index\t{PAIR}\tlabel", *rows, *(more if name == split else ()))
    return folder


def fails(folder: Path, name: str, *parts: str, **options) -> str:
    with pytest.raises(TableError) as caught:
        load_glue(name, folder, **options)
    message = str(caught.value)
    for part in parts:
        assert part in message, message
    return message


# --- the download --------------------------------------------------------------------------------------------


def test_cola_has_no_header_but_its_test_file_has(tmp_path):
    write(tmp_path, "CoLA/train.tsv", 'gj04\t1\t\tThe "sailors" rode.', "gj04\t0\t*\tHim rode.")
    write(tmp_path, "CoLA/dev.tsv", "gj04\t1\t\tA dev row.")
    write(tmp_path, "CoLA/test.tsv", "index\tsentence", "0\tFirst.", '1\t"Second')
    data = load_glue("cola", tmp_path, test=True)
    assert [(e.text, e.text_pair, e.label) for e in data.labelled.train] == [
        ('The "sailors" rode.', None, "1"),
        ("Him rode.", None, "0"),
    ]
    assert [e.text for e in data.test["test"]] == ["First.", '"Second']
    assert data.test["test"][0].label is None
    assert data.labelled.labels == ("0", "1")
    assert data.labelled.train[1].place == f"{tmp_path}/CoLA/train.tsv:2"


@pytest.mark.parametrize("name", [name for name in GLUE if name not in ("CoLA", "MRPC")])
def test_tables_with_headers_in_any_order_of_columns(tmp_path, name):
    task = GLUE[name]
    label = task.words[-1] if task.words else "3.8"
    header = ["junk", task.label, *reversed(task.texts)]
    texts = ["first", "second"][: len(task.texts)]
    for split in task.splits:
        folder = "AX" if split.name == "diagnostic" else name
        names = header if split.labelled else ["index", *task.texts]
        row = ["-", label, *reversed(texts)] if split.labelled else ["0", *texts]
        write(tmp_path, f"{folder}/{split.name}.tsv", "\t".join(names), "\t".join(row))
    data = load_glue(name, tmp_path, test=True)
    for examples in ([*data.labelled.train], *data.dev.values()):
        (example,) = examples
        assert [example.text, example.text_pair][: len(texts)] == texts
        assert example.label == (label if task.words else 3.8)
    assert list(data.test) == [split.name for split in task.test]
    assert list(data.dev) == [split.name for split in task.dev]
    assert set(data.subsets) == {split.name for split in task.splits}
    assert f"officially {task.train.rows}" in " ".join(data.labelled.report.warnings)
    assert len(encode_targets(data.labelled.train, data.labelled.task, data.labelled.labels)) == 1


MRPC_ROWS = ["1\t10\t11\tone\tuno", "0\t12\t13\ttwo\tdue", '1\t14\t15\t"three\ttre']
MRPC_HEADER = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"


def test_mrpc_as_tables(tmp_path):
    write(tmp_path, "MRPC/train.tsv", MRPC_HEADER, *MRPC_ROWS[:2], encoding="utf-8-sig")
    write(tmp_path, "MRPC/dev.tsv", MRPC_HEADER, MRPC_ROWS[2], encoding="utf-8-sig")
    data = load_glue("MRPC", tmp_path)
    assert [(e.text, e.text_pair, e.label) for e in data.labelled.evaluation] == [('"three', "tre", "1")]


def test_mrpc_as_microsoft_has_it_is_the_same(tmp_path):
    write(tmp_path, "MRPC/msr_paraphrase_train.txt", MRPC_HEADER, *MRPC_ROWS, encoding="utf-8-sig")
    write(tmp_path, "MRPC/msr_paraphrase_test.txt", MRPC_HEADER, *MRPC_ROWS[:1], encoding="utf-8-sig")
    fails(tmp_path, "MRPC", "dev_ids.tsv", "no such file")
    write(tmp_path, "MRPC/dev_ids.tsv", "14\t15")
    data = load_glue("MRPC", tmp_path, test=True)
    assert [e.text for e in data.labelled.train] == ["one", "two"]
    assert [(e.text, e.text_pair, e.label) for e in data.labelled.evaluation] == [('"three', "tre", "1")]
    assert [(e.text, e.label) for e in data.test["test"]] == [("one", None)]


def write_microsofts(folder: Path, *ids: str) -> Path:
    for name in ("train", "test"):
        write(folder, f"MRPC/msr_paraphrase_{name}.txt", MRPC_HEADER, *MRPC_ROWS)
    if ids:
        write(folder, "MRPC/dev_ids.tsv", *ids)
    return folder


def test_bad_ids_of_mrpcs_dev_rows_do_not_make_them_training_rows(tmp_path):
    write_microsofts(tmp_path, "14\t15", "12 13")
    fails(
        tmp_path, "MRPC", "dev_ids.tsv:2: wrong number of cells: 1 cells, where there should be 2", "--skip-bad-rows"
    )
    report = load_glue("MRPC", tmp_path, skip_bad_rows=True).labelled.report
    assert report.skipped == {"wrong number of cells": 1}
    write_microsofts(tmp_path, "14\t15", "88\t99")
    warnings = load_glue("MRPC", tmp_path).labelled.report.warnings
    assert [line for line in warnings if "pairs of ids" in line] == [
        f"{tmp_path}/MRPC/dev_ids.tsv: 1 of its 2 pairs of ids are of no row of msr_paraphrase_train.txt, the first: "
        "88 99"
    ]


def test_a_bad_row_of_mrpc_counts_once(tmp_path):
    path = write_microsofts(tmp_path, "14\t15") / "MRPC/msr_paraphrase_train.txt"
    path.write_text(path.read_text() + "cut off\n")
    report = load_glue("MRPC", tmp_path, skip_bad_rows=True).labelled.report
    assert report.skipped == {"wrong number of cells": 1}


def test_whole_tables_of_mrpc_are_read_where_microsofts_are_not_whole(tmp_path):
    write_microsofts(tmp_path)
    for name in ("train", "dev", "test"):
        write(tmp_path, f"MRPC/{name}.tsv", MRPC_HEADER, MRPC_ROWS[0])
    assert len(load_glue("MRPC", tmp_path, test=True).labelled.train) == 1


def test_what_is_official_is_no_subset(tmp_path):
    rows = {split: GLUE["WNLI"].splits[place].rows for place, split in enumerate(("train", "dev"))}
    for split, count in rows.items():
        lines = [f"{number}\ta\tb {number}\t{number % 2}" for number in range(count)]
        write(tmp_path, f"WNLI/{split}.tsv", f"index\t{PAIR}\tlabel", *lines)
    assert load_glue("WNLI", tmp_path).subsets == ()


def test_carriage_returns_and_odd_separators_are_text(tmp_path):
    write_rte(tmp_path, "4\ta\u2028b\u0085c\rd\te\tentailment")
    assert load_glue("RTE", tmp_path).labelled.train[4].text == "a\u2028b\u0085c\rd"


# --- bad tables ----------------------------------------------------------------------------------------------


def test_missing_files_say_what_is_there(tmp_path):
    fails(tmp_path, "RTE", "RTE/train.tsv: no such file", "there is no folder")
    write(tmp_path, "RTE/test.tsv", "index")
    fails(tmp_path, "RTE", "no such file", "has test.tsv")
    fails(write(tmp_path, "file"), "RTE", "GLUE is a folder")
    (tmp_path / "RTE" / "test.tsv").unlink()
    fails(write_rte(tmp_path), "RTE", "test.tsv: no such file", "--no-test does without", test=True)


def test_unknown_tasks():
    with pytest.raises(OptionError, match="no task of GLUE, whose tasks are CoLA"):
        load_glue("SQuAD", ".")
    with pytest.raises(OptionError, match="answered by MNLI's model"):
        load_glue("AX", ".")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("4\ta\tb", "wrong number of cells: 3 cells, where the first line has 4"),
        ("4\ta\tb\tc\tentailment", "wrong number of cells: 5 cells"),
        ("4\ta\tb\tEntailment", "unknown label: 'Entailment' is none of entailment, not_entailment"),
        ("4\ta\tb\t", "unknown label: ''"),
        ("4\ta\0\tb\tentailment", "NUL byte"),
    ],
)
def test_bad_rows_stop_the_reading_or_are_counted(tmp_path, line, reason):
    write_rte(tmp_path, line)
    fails(tmp_path, "RTE", "RTE/train.tsv:6", reason, "--skip-bad-rows")
    report = load_glue("RTE", tmp_path, skip_bad_rows=True).labelled.report
    assert (report.train_rows, sum(report.skipped.values())) == (4, 1)


def test_a_badly_encoded_row_is_a_bad_row(tmp_path):
    path = write_rte(tmp_path) / "RTE/train.tsv"
    path.write_bytes(path.read_bytes() + "4\té\tb\tentailment\n".encode("latin-1"))
    assert "--encoding" not in fails(tmp_path, "RTE", "RTE/train.tsv:6", "badly encoded", "convert it")
    path.write_bytes("\n".join(["a\tb", "c\td"]).encode("utf-16")[:-1])
    assert "--encoding" not in fails(tmp_path, "RTE", "RTE/train.tsv:2", "badly encoded", "convert it")


def test_a_file_that_ends_inside_a_row(tmp_path):
    path = write_rte(tmp_path) / "RTE/dev.tsv"
    path.write_bytes(path.read_bytes()[:-20])
    fails(tmp_path, "RTE", "RTE/dev.tsv:5")


def test_a_missing_column_and_no_rows(tmp_path):
    write_rte(tmp_path)
    write(tmp_path, "RTE/dev.tsv", f"index\t{PAIR}\tgold", "0\ta\tb\tentailment")
    fails(tmp_path, "RTE", "no column label", "it has index, sentence1, sentence2, gold")
    write(tmp_path, "RTE/dev.tsv", f"index\t{PAIR}\tlabel")
    fails(tmp_path, "RTE", f"{tmp_path}/RTE/dev.tsv", "no rows in dev")
    write(tmp_path, "RTE/train.tsv")
    fails(tmp_path, "RTE", f"{tmp_path}/RTE/train.tsv", "no rows in train")


def test_similarities_out_of_range(tmp_path):
    for cell in ("5.1", "-0.5", "high", "nan"):
        write(tmp_path, "STS-B/train.tsv", f"{PAIR}\tscore", f"a\tb\t{cell}")
        fails(tmp_path, "STS-B", "not a similarity", "from 0 to 5")


def test_malformed_rows_of_qqp_are_passed_over_and_counted(tmp_path):
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"
    rows = ["1\t2\t3\twhat\twhich\t0", "4\t5\t6\tcut off", "7\t8\t9\twho\t\t1"]
    for split in ("train", "dev"):
        write(tmp_path, f"QQP/{split}.tsv", header, *rows)
    write(tmp_path, "QQP/test.tsv", "id\tquestion1\tquestion2", "0\twhat\twhich", "1\tcut off")
    report = load_glue("QQP", tmp_path).labelled.report
    assert report.skipped == {"wrong number of cells": 2}
    assert (report.train_rows, report.evaluation_rows) == (2, 2)
    fails(tmp_path, "QQP", "test.tsv:3", "predictions go by its order", test=True, skip_bad_rows=True)
    write(tmp_path, "QQP/test.tsv", "id\tquestion1\tquestion2", "1\twhat\twhich", "0\ta\tb")
    fails(tmp_path, "QQP", "test.tsv:2: id out of order: '1', expected 0", test=True)
    # Nothing else is passed over unasked, and where nothing is left, it is said why
    write(tmp_path, "QQP/dev.tsv", header, "0\t1\t2\twhat\twhich\tperhaps")
    fails(tmp_path, "QQP", "dev.tsv:2: unknown label")
    write(tmp_path, "QQP/dev.tsv", header, "0\t1\t2\twhat\twhich\t1")
    write(tmp_path, "QQP/train.tsv", header, "0\t1\t2\twhat\t1", "0\t1\t2\twhat\t1")
    fails(tmp_path, "QQP", "no rows in train that can be used", "train.tsv:2: wrong number of cells: 5 cells")


def test_a_column_named_twice_is_refused(tmp_path):
    write_rte(tmp_path)
    write(tmp_path, "RTE/train.tsv", f"index\t{PAIR}\tsentence1\tlabel", "0\ta\tb\tc\tentailment")
    fails(tmp_path, "RTE", "names the column 'sentence1' twice")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TableError, match=r"^nowhere: no such folder$"):
        load_glue("RTE", "nowhere")
    write_rte(tmp_path, "9\ta\x00\tb\tentailment")
    assert "UTF-8" not in fails(tmp_path, "RTE", "train.tsv:6", "NUL")


# --- the Hub -------------------------------------------------------------------------------------------------


def write_parquet(folder: Path, place: str, rows: list[dict]) -> None:
    path = folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def test_a_folder_with_the_hubs_files(tmp_path):
    mnli = [{"premise": f"p{n}", "hypothesis": "h", "label": n, "idx": n} for n in range(3)]
    for split in ("validation_matched", "validation_mismatched"):
        write_parquet(tmp_path, f"mnli/{split}-00000-of-00001.parquet", mnli)
    for shard in range(2):
        write_parquet(tmp_path, f"mnli/train-0000{shard}-of-00002.parquet", mnli)
    unlabelled = [row | {"label": -1} for row in mnli]
    for split in ("test_matched", "test_mismatched"):
        write_parquet(tmp_path, f"mnli/{split}-00000-of-00001.parquet", unlabelled)
    write_parquet(tmp_path, "ax/test-00000-of-00001.parquet", unlabelled)
    data = load_glue("MNLI", tmp_path, test=True)
    assert [e.label for e in data.labelled.train] == ["entailment", "neutral", "contradiction"] * 2
    assert list(data.test) == ["test_matched", "test_mismatched", "diagnostic"]
    assert data.test["diagnostic"][0].label is None
    write_parquet(tmp_path, "mnli/train-00000-of-00002.parquet", unlabelled)
    fails(tmp_path, "MNLI", "unknown label: -1")


def test_the_hubs_files_have_to_be_whole_and_in_order(tmp_path):
    rows = [{"sentence1": f"p{n}", "sentence2": "h", "label": n % 2, "idx": n} for n in range(4)]
    write_parquet(tmp_path, "rte/train-00000-of-00002.parquet", rows)
    fails(tmp_path, "RTE", "train is 2 files, and there are train-00000-of-00002.parquet")
    write_parquet(tmp_path, "rte/train-00001-of-00002.parquet", rows)
    fails(tmp_path, "RTE", f"{tmp_path}/rte/validation-*.parquet: no such file", "has train-00000")
    write_parquet(tmp_path, "rte/validation-00000-of-00001.parquet", rows)
    write_parquet(tmp_path, "rte/test-00000-of-00001.parquet", rows)
    assert len(load_glue("RTE", tmp_path, test=True).test["test"]) == 4
    write_parquet(tmp_path, "rte/test-00000-of-00001.parquet", rows[::-1])
    fails(tmp_path, "RTE", "idx out of order: 3, expected 0", test=True)


def test_similarities_are_the_same_numbers_in_either_form(tmp_path):
    numbers = ["3.800", "4.750", "0.714", "5.000"]
    for split in ("train", "dev"):
        write(tmp_path / "a", f"STS-B/{split}.tsv", f"{PAIR}\tscore", *(f"a\tb {n}\t{n}" for n in numbers))
    for split in ("train", "validation"):
        table = {"sentence1": ["a"] * 4, "sentence2": [f"b {n}" for n in numbers]}
        scores = pyarrow.array([float(n) for n in numbers], pyarrow.float32())
        place = tmp_path / "b" / "stsb" / f"{split}-00000-of-00001.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.table({**table, "label": scores}), place)
    labels = [[e.label for e in load_glue("STS-B", tmp_path / place).labelled.train] for place in "ab"]
    assert labels[0] == labels[1] == [float(n) for n in numbers]


def test_a_dataset_of_the_hub(tmp_path, monkeypatch):
    """As the Hub's library hands it out: class numbers that know their names."""
    import datasets

    task = GLUE["SST-2"]
    classes = datasets.ClassLabel(names=list(task.hub_words))
    features = datasets.Features({"sentence": datasets.Value("string"), "label": classes})
    asked = []

    def load(name, configuration, split):
        asked.append((name, configuration, split))
        labels = [-1, -1] if split == "test" else [1, 0]
        rows = {"sentence": ["good", "bad"], "label": labels}
        return datasets.Dataset.from_dict(rows, features=features)

    monkeypatch.setattr(datasets, "load_dataset", load)
    data = load_glue("SST-2", "nyu-mll/glue", test=True)
    assert asked == [("nyu-mll/glue", "sst2", split) for split in ("train", "validation", "test")]
    assert [e.label for e in data.labelled.train] == ["1", "0"]
    assert [e.label for e in data.test["test"]] == [None, None]
    with pytest.raises(TableError, match="no column question1"):
        load_glue("QQP", "nyu-mll/glue")


# --- scores --------------------------------------------------------------------------------------------------


def test_metrics_are_those_of_an_independent_computation():
    random = np.random.default_rng(0)
    answers, targets = random.random((200, 2)), random.integers(0, 2, 200)
    decided = answers.argmax(1)
    assert glue_metrics(GLUE["CoLA"], answers, targets) == {
        "matthews": pytest.approx(matthews_corrcoef(targets, decided))
    }
    hits = ((decided == 1) & (targets == 1)).sum()
    f1 = 2 * hits / ((decided == 1).sum() + (targets == 1).sum())
    found = glue_metrics(GLUE["MRPC"], answers, targets)
    assert found == {"accuracy": pytest.approx((decided == targets).mean()), "f1": pytest.approx(f1)}
    assert found["f1"] == pytest.approx(f1_score(targets, decided))
    # As predictions are kept; float32 would round the correlation
    few, some = random.random(50, dtype=np.float32), random.random(50)
    exact = np.corrcoef(few.astype(np.float64), some)[0, 1]
    assert glue_metrics(GLUE["STS-B"], few, some.astype(np.float32))["pearson"] == pytest.approx(
        np.corrcoef(few.astype(np.float64), some.astype(np.float32).astype(np.float64))[0, 1], abs=1e-12
    )
    assert exact == pytest.approx(glue_metrics(GLUE["STS-B"], few, some)["pearson"], abs=1e-12)
    numbers, scores = random.random(50), random.random(50)
    ranks = [values.argsort().argsort() for values in (numbers, scores)]
    found = glue_metrics(GLUE["STS-B"], numbers, scores)
    assert found["pearson"] == pytest.approx(np.corrcoef(numbers, scores)[0, 1])
    assert found["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])


def test_a_tables_mean_counts_once_in_the_overall_score():
    tables = {
        "MNLI": {"dev_matched": {"accuracy": 0.82}, "dev_mismatched": {"accuracy": 0.80}},
        "STS-B": {"dev": {"pearson": 0.9, "spearman": 0.8}},
        "CoLA": {"dev": {"matthews": 0.5}},
    }
    scores = {name: task_score(GLUE[name], found) for name, found in tables.items()}
    assert scores == {"MNLI": pytest.approx(81), "STS-B": pytest.approx(85), "CoLA": pytest.approx(50)}
    scores |= dict.fromkeys(["SST-2", "MRPC", "QQP", "QNLI", "RTE"], 90.0)
    assert overall(scores, wnli=True) is None
    assert overall(scores, wnli=False) == pytest.approx((81 + 85 + 50 + 5 * 90) / 8)
    assert overall(scores | {"WNLI": 56.0}, wnli=True) == pytest.approx((81 + 85 + 50 + 5 * 90 + 56) / 9)
