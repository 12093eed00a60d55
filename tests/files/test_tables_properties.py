"""Whatever the csv and json modules write, the reader gives back, with the line each row starts on."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st

from squeezebert.files.tables import read_rows

# any text that UTF-8 can hold, thick with what a CSV has to quote; NUL is refused by the reader
CELL = st.text(
    st.one_of(
        st.sampled_from('",;\t\n\r \u2028é😀'), st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    )
)


def read(name: str, content: str) -> list:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content.encode())
        return list(read_rows(path))


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=8),
    line_end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_csv_round_trip_and_line_numbers(rows, line_end, quoting):
    if line_end == "\n" and quoting == csv.QUOTE_MINIMAL:
        # Python's own writer leaves a carriage return unquoted then, and nobody can read that back
        rows = [tuple(cell.replace("\r", "\n") for cell in row) for row in rows]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator=line_end, quoting=quoting)
    writer.writerow(["text", "label"])
    starts = []
    for row in rows:
        starts.append(buffer.getvalue().count("\n") + 1)
        writer.writerow(row)
    found = read("a.csv", buffer.getvalue())
    assert [(row.values["text"], row.values["label"]) for row in found] == rows
    assert [row.line for row in found] == starts


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=8))
def test_tsv_with_every_field_quoted_round_trip(rows):
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([("text", "label"), *rows])
    assert [tuple(row.values.values()) for row in read("a.tsv", buffer.getvalue())] == rows


PLAIN = st.text(st.one_of(st.sampled_from('" ,é'), st.characters(exclude_categories=["C", "Z"])), min_size=1)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.tuples(PLAIN, st.sampled_from("01")), min_size=1, max_size=8))
def test_tsv_with_bare_quotes_keeps_every_line_a_row(rows):
    """No tab or line break is in a field, so each line is a row, whatever its quotes look like."""
    content = "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows)
    found = read("a.tsv", content)
    assert [row.line for row in found] == list(range(2, len(rows) + 2))
    if not any('""' in text for text, _ in rows):
        assert [row.values["text"] for row in found] == [text for text, _ in rows]


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(CELL, min_size=1, max_size=8), indent=st.sampled_from([None, 1]))
def test_json_round_trips(texts, indent):
    objects = [{"text": text} for text in texts]
    lines = "\n".join(json.dumps(item, ensure_ascii=False) for item in objects)
    assert [(row.values, row.line) for row in read("a.jsonl", lines)] == list(zip(objects, range(1, 99), strict=False))
    array = json.dumps(objects, ensure_ascii=False, indent=indent)
    found = read("a.json", array)
    assert [row.values for row in found] == objects
    assert [row.line for row in found] == (
        [1] * len(texts) if indent is None else [2 + 3 * n for n in range(len(texts))]
    )
