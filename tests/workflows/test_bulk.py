"""`predict --engine ray`: what workers do, piece by piece without Ray, and on a cluster of two (slow)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from squeezebert.files.errors import FolderError, OptionError, TableError
from squeezebert.files.lock import only_run
from squeezebert.runtime.predictor import load
from squeezebert.workflows import bulk, cluster
from squeezebert.workflows.bulk import Done, answer_shard, from_row, predict_in_parts, shards, tables, to_row
from squeezebert.workflows.job_options import PredictOptions
from squeezebert.workflows.predict import predict_table
from tiny_checkpoints import texts
from typed import refused, run

pytest_plugins = ["exported_folders"]


@pytest.fixture
def files(tmp_path):
    """A folder of a CSV, JSON lines and Parquet, of 75, 40 and 25 rows."""
    import pyarrow
    import pyarrow.parquet

    folder = tmp_path / "messages"
    (folder / "2024").mkdir(parents=True)
    (folder / "a.csv").write_text("text\n" + "".join(f"{text}\n" for text in texts(75, 1)))
    (folder / "b.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts(40, 2)))
    table = pyarrow.table({"text": texts(25, 3)})
    pyarrow.parquet.write_table(table, folder / "2024" / "c.parquet", row_group_size=7)
    (folder / "notes.md").write_text("not a table\n")
    return folder


def options_of(single, files, output, **changes):
    told = {"threads": 1, "part_rows": 16, "engine": "ray", **changes}
    return PredictOptions(str(single.output), str(files), output=str(output), **told)


def in_turn(single):
    """Workers that take their turns in this process."""
    model = load(single.output, 1)

    def answer(some, options, output):
        for shard in some:
            yield answer_shard(model, shard, options, output)

    return answer


def parts_of(output):
    return sorted(path for path in output.iterdir() if path.name != bulk.RECORD)


def local_answers(single, files, tmp_path, **changes):
    """The lines of the local path, file after file."""
    lines = []
    for path in tables(str(files)):
        place = tmp_path / "local.jsonl"
        options = {"output": str(place), "overwrite": True, "threads": 1, **changes}
        predict_table(PredictOptions(str(single.output), str(path), **options))
        lines += place.read_text(encoding="utf-8").splitlines()
    return lines


@pytest.mark.parametrize(("workers", "precision"), [(1, "int8"), (3, "int8"), (8, "fp32")])
def test_parts_put_together_are_the_local_answers(single, files, tmp_path, workers, precision):
    output = tmp_path / "answers"
    # Windows of fp32 rows are 1024 rows: a part of that size is batched as the local path does it
    rows = 16 if precision == "int8" else 1024
    options = options_of(single, files, output, precision=precision, part_rows=rows)

    def answer(some, options, output):
        model = load(single.output, 1, precision)
        for shard in reversed(some):
            yield answer_shard(model, shard, options, output)

    said = predict_in_parts(options, answer, workers)
    found = [line for part in parts_of(output) for line in part.read_text(encoding="utf-8").splitlines()]
    assert found == local_answers(single, files, tmp_path, precision=precision)
    assert "140 rows of 3 files" in said
    names = [part.name for part in parts_of(output)]
    assert names[0] == "00000-000000.jsonl"
    assert len(names) == (2 + 5 + 3 if rows == 16 else 3)
    record = json.loads((output / bulk.RECORD).read_text())
    assert (record["finished"], record["rows"]) == (True, 140)


def test_files_are_shared_out_by_their_size(tmp_path):
    for name, size in (("a.csv", 1000), ("b.csv", 10), ("c.csv", 3000)):
        (tmp_path / name).write_bytes(b"x" * size)
    (tmp_path / ".kept").mkdir()
    (tmp_path / ".kept" / "copy.csv").write_text("text\na\n")
    found = shards(tables(str(tmp_path)), 8)
    assert {one.file: one.of for one in found} == {0: 2, 1: 1, 2: 6}
    assert [one.number for one in found] == [0, 1, 0, *range(6)]
    assert len(shards(tables(str(tmp_path)), 1)) == 3


def test_a_run_that_was_cut_off_goes_on(single, files, tmp_path, monkeypatch):
    output = tmp_path / "answers"
    options = options_of(single, files, output)
    answered = []
    real = bulk._write_part

    def write_part(model, rows, options, place):
        if len(answered) == 4:
            raise KeyboardInterrupt
        answered.append(place.name)
        return real(model, rows, options, place)

    monkeypatch.setattr(bulk, "_write_part", write_part)
    with pytest.raises(KeyboardInterrupt):
        predict_in_parts(options, in_turn(single), 1)
    assert [part.name for part in parts_of(output)] == answered
    (output / ".00001-000002.jsonl.0badf00d").write_text("half a part")
    before = {part.name: part.stat().st_mtime_ns for part in parts_of(output) if not part.name.startswith(".")}
    monkeypatch.undo()
    # With another number of workers
    said = predict_in_parts(options, in_turn(single), 3)
    # The first file, in the order of names, has 25 rows: two parts; then two of the CSV file
    assert "57 of them had been answered before" in said
    after = {part.name: part.stat().st_mtime_ns for part in parts_of(output)}
    assert {name: after[name] for name in before} == before
    assert not [name for name in after if name.startswith(".")]
    found = [line for part in parts_of(output) for line in part.read_text().splitlines()]
    assert found == local_answers(single, files, tmp_path)
    with pytest.raises(FolderError, match="is finished"):
        predict_in_parts(options, in_turn(single), 1)


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_texts_that_were_cut_before_are_counted_too(single, tmp_path, form):
    path = tmp_path / "posts.jsonl"
    lines = texts(60, 4)
    for place in (3, 40, 41):
        lines[place] = 'boat,\r "' * 200
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in lines))
    options = options_of(single, path, tmp_path / "answers", format=form)

    def cut_off(some, options, output):
        for shard in shards([path], 2)[:1]:  # every other part
            yield answer_shard(load(single.output, 1), shard, options, output)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_in_parts(options, cut_off, 1)
    first, *_ = kept = parts_of(tmp_path / "answers")
    assert len(kept) == 2
    whole = first.read_bytes()
    first.write_text('{"label": "a"}\n' if form == "jsonl" else "label\na\n")
    with pytest.raises(FolderError, match="damaged"):
        predict_in_parts(options, in_turn(single), 1)
    first.write_bytes(whole)
    said = predict_in_parts(options, in_turn(single), 1)
    assert "32 of them had been answered before" in said
    assert "3 texts were longer than the model's 40 tokens and were cut" in said


def test_what_is_known_to_fail_does_not_wait_for_a_cluster(single, files, tmp_path, capsys, monkeypatch):
    def start():
        raise AssertionError("Ray was started")

    output = tmp_path / "answers"
    predict_in_parts(options_of(single, files, output), in_turn(single), 1)
    monkeypatch.setattr(cluster, "_import_ray", start)
    told = ("predict", single.output, files, "--engine", "ray", "--part-rows", 16, "--output")
    assert "is finished" in refused(capsys, *told, output)
    assert "lies in the folder that is read" in refused(capsys, *told, files / "answers")
    with only_run(tmp_path / "busy"):
        assert "another run is writing it" in refused(capsys, *told, tmp_path / "busy")
    assert not (files / "answers").exists()
    with pytest.raises(AssertionError, match="Ray was started"):
        run(*told, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_another_run_is_not_mixed_in(single, files, tmp_path):
    output = tmp_path / "answers"

    def cut_off(some, options, output):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_in_parts(options_of(single, files, output), cut_off, 1)
    for changes, said in (
        ({"part_rows": 32}, "--part-rows was 16"),
        ({"top": 1, "format": "csv"}, "--format was jsonl, --top was None"),
        ({"precision": "fp32"}, "by another model file"),
    ):
        with pytest.raises(FolderError, match=said):
            predict_in_parts(options_of(single, files, output, **changes), in_turn(single), 1)
    content = (files / "a.csv").read_bytes()
    (files / "a.csv").write_bytes(content[:-2] + content[-2:].swapcase())
    os.utime(files / "a.csv", ns=(1, 1))
    with pytest.raises(FolderError, match="they have changed"):
        predict_in_parts(options_of(single, files, output), in_turn(single), 1)
    with (files / "a.csv").open("a") as stream:
        stream.write("the boat\n")
    with pytest.raises(FolderError, match="they have changed"):
        predict_in_parts(options_of(single, files, output), in_turn(single), 1)
    (output / bulk.RECORD).write_text("{")
    with pytest.raises(FolderError, match="damaged"):
        predict_in_parts(options_of(single, files, output), in_turn(single), 1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    for place, said in (("other", "holds something else"), ("other/letter.txt", "a file; answers in parts")):
        with pytest.raises(FolderError, match=said):
            predict_in_parts(options_of(single, files, tmp_path / place), in_turn(single), 1)
    assert (tmp_path / "other" / "letter.txt").read_text() == "mine"


def test_bad_rows_stop_or_are_counted_once(single, tmp_path):
    path = tmp_path / "posts.jsonl"
    lines = [json.dumps({"text": text}) for text in texts(60, 4)]
    lines[20] = "{"
    lines[40] = json.dumps({"text": "boat " * 500})
    path.write_bytes("\n".join(lines).encode() + b'\n{"text": "\xff"}\n')
    model = load(single.output, 1)
    options = options_of(single, path, tmp_path / "answers")
    tmp_path.joinpath("answers").mkdir()
    with pytest.raises(TableError, match=r"posts\.jsonl:21"):
        answer_shard(model, shards([path], 1)[0], options, tmp_path / "answers")
    skipping = options_of(single, path, tmp_path / "skipped", skip_bad_rows=True, format="csv")
    said = predict_in_parts(skipping, in_turn(single), 3)
    assert "59 rows of 1 file, answered in 4 parts" in said
    assert "skipped 2 rows, the first: " in said
    assert "1 texts were longer than the model's 40 tokens and were cut" in said
    assert all(part.read_text().startswith("source,line,text") for part in parts_of(tmp_path / "skipped"))


def test_what_cannot_be_shared_out_is_explained(single, files, tmp_path, capsys, monkeypatch):
    with pytest.raises(OptionError, match="standard input"):
        tables("-")
    with pytest.raises(TableError, match="no such file or folder"):
        tables(str(tmp_path / "nothing"))
    with pytest.raises(TableError, match="no table in it"):
        tables(str(single.output / "onnx"))
    with pytest.raises(OptionError, match="go into a folder"):
        predict_in_parts(options_of(single, files, "-"), in_turn(single), 1)
    with pytest.raises(OptionError, match="lies in the folder that is read"):
        predict_in_parts(options_of(single, files, files / "answers"), in_turn(single), 1)
    assert run("predict", single.output, files / "a.csv", "--workers", 2) == 1
    assert "--workers and --address are for --engine ray" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run("predict", single.output, files, "--engine", "ray", "--output", tmp_path / "o") == 1
    assert "pip install 'squeezebert[cluster]'" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_cluster_without_room_is_explained(single, files, tmp_path, capsys, monkeypatch):
    small = SimpleNamespace(is_initialized=lambda: True, cluster_resources=lambda: {"CPU": 3.0})
    monkeypatch.setattr(cluster, "_import_ray", lambda: small)
    told = ("predict", single.output, files, "--engine", "ray", "--output", tmp_path / "answers")
    for more, said in ((("--workers", 4), "room for 3 workers of 1"), (("--threads", 4), "room for 0 workers of 4")):
        assert run(*told, *more) == 1
        assert said in capsys.readouterr().err
    assert not (tmp_path / "answers").exists()


def test_a_worker_hands_errors_back_as_rows(single, files, tmp_path):
    import numpy as np

    path = tmp_path / "pairs.csv"
    path.write_text("sentence1,sentence2\na,b\n")
    output = tmp_path / "answers"
    output.mkdir()
    worker = cluster.Worker(options_of(single, path, output), str(single.output), str(output), 1)
    (shard,) = shards([path], 1)
    batch = {name: np.array([getattr(shard, name)]) for name in shard.__dataclass_fields__}
    (error,) = worker(batch)["error"]
    assert "the model reads single texts" in error
    (shard,) = shards([files / "b.jsonl"], 1)
    batch = {name: np.array([getattr(shard, name)]) for name in shard.__dataclass_fields__}
    answers = worker(batch)
    row = {name: values[0] for name, values in answers.items()}
    assert from_row(row) == Done(answered=40) == from_row(to_row(Done(answered=40)))


@pytest.mark.slow
def test_two_workers_of_a_cluster_give_the_local_answers(single, files, tmp_path, capsys):
    """Starts a Ray cluster of its own on this machine; a run that loses parts goes on."""
    output = tmp_path / "answers"
    told = ("predict", single.output, files, "--engine", "ray", "--workers", 2, "--part-rows", 16, "--output", output)
    assert run(*told) == 0
    said = capsys.readouterr().err
    assert "140 rows of 3 files" in said
    found = [line for part in parts_of(output) for line in part.read_text().splitlines()]
    assert found == local_answers(single, files, tmp_path)
    # As if the run had been killed before its last parts
    record = json.loads((output / bulk.RECORD).read_text())
    (output / bulk.RECORD).write_text(json.dumps(record | {"finished": False}))
    lost = parts_of(output)[3:7]
    for part in lost:
        part.unlink()
    kept = {part: part.stat().st_mtime_ns for part in parts_of(output)}
    assert run(*told) == 0
    assert {part: part.stat().st_mtime_ns for part in kept} == kept
    found = [line for part in parts_of(output) for line in part.read_text().splitlines()]
    assert found == local_answers(single, files, tmp_path)
    assert run(*told) == 1
    assert "is finished" in capsys.readouterr().err
    # A bad row ends the run with its place, not with a traceback
    (files / "a.csv").write_text('text\n"the boat\n')
    assert run(*told[:-1], tmp_path / "bad") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert "a.csv" in last


@pytest.mark.slow
def test_a_killed_run_goes_on(single, tmp_path):
    """Kills the process that started the cluster while its workers are writing parts."""
    path = tmp_path / "many.csv"
    path.write_text("text\n" + "".join(f"{text}\n" for text in texts(12_000, 5)))
    output = tmp_path / "answers"
    told = ("predict", single.output, path, "--engine", "ray", "--workers", 2, "--part-rows", 64, "--output", output)
    killed = subprocess.Popen([sys.executable, "-m", "squeezebert", *map(str, told)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 300
    while len(list(output.glob("*.jsonl"))) < 3 and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    kept = {part: part.stat().st_mtime_ns for part in output.glob("*.jsonl")}
    assert 3 <= len(kept) < 188
    assert not json.loads((output / bulk.RECORD).read_text())["finished"]
    assert run(*told) == 0
    assert {part: part.stat().st_mtime_ns for part in kept} == kept
    found = [line for part in parts_of(output) for line in part.read_text().splitlines()]
    assert found == local_answers(single, path, tmp_path)


def test_files_without_a_row_are_counted(single, files, tmp_path):
    (files / "blank.csv").write_text("")
    (files / "head.csv").write_text("text\n")
    said = predict_in_parts(options_of(single, files, tmp_path / "answers"), in_turn(single), 3)
    assert "2 files hold no rows" in said
    (files / "blank.csv").unlink()
    said = predict_in_parts(options_of(single, files, tmp_path / "fewer"), in_turn(single), 3)
    assert "1 file holds no rows" in said
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "blank.csv").write_text("")
    with pytest.raises(TableError, match="no file of it holds a row"):
        predict_in_parts(options_of(single, tmp_path / "none", tmp_path / "other"), in_turn(single), 1)
