"""Text formats: what each reader yields, and what every broken file is told."""

from __future__ import annotations

import gzip
import io
import itertools
import sys
import tracemalloc
from pathlib import Path

import pytest

from squeezebert.files.errors import OptionError, TableError
from squeezebert.files.tables import Row, RowError, read_rows


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows_of(path: Path, **options) -> list[tuple[dict, int]]:
    rows = list(read_rows(path, **options))
    assert all(isinstance(row, Row) and row.source == str(path) for row in rows)
    return [(dict(row.values), row.line) for row in rows]


def fails(path: Path, *parts: str, **options) -> str:
    """The message of the TableError that reading raises; every part has to be in it, the path too."""
    with pytest.raises(TableError) as caught:
        list(read_rows(path, **options))
    message = str(caught.value)
    for part in (str(path), *parts):
        assert part in message, message
    return message


def skipped(path: Path, **options) -> tuple[list[dict], list[RowError]]:
    errors: list[RowError] = []
    rows = [dict(row.values) for row in read_rows(path, skip_bad_rows=True, on_skip=errors.append, **options)]
    return rows, errors


# --- CSV -----------------------------------------------------------------------------------------------------


def test_csv_quotes_commas_newlines_and_line_numbers(tmp_path):
    path = write(tmp_path, "a.csv", 'text,label\r\n"one, ""two""\r\nthree",x\r\n\r\nplain "q" é,y\r\n')
    assert rows_of(path) == [
        ({"text": 'one, "two"\r\nthree', "label": "x"}, 2),
        ({"text": 'plain "q" é', "label": "y"}, 5),
    ]


def test_csv_last_line_without_line_end_and_blank_lines_before_the_header(tmp_path):
    path = write(tmp_path, "a.csv", "\n \ntext,label\nhello,x")
    assert rows_of(path) == [({"text": "hello", "label": "x"}, 4)]


def test_csv_of_a_spreadsheet_with_semicolons_or_tabs(tmp_path):
    expected = [({"text": "a, b", "label": "x"}, 2)]
    assert rows_of(write(tmp_path, "semicolon.csv", "text;label\na, b;x\n")) == expected
    assert rows_of(write(tmp_path, "tab.csv", "text\tlabel\na, b\tx\n")) == expected


def test_csv_with_old_mac_line_ends(tmp_path):
    path = write(tmp_path, "mac.csv", "text,label\ra,x\rb,y\r")
    assert rows_of(path) == [({"text": "a", "label": "x"}, 2), ({"text": "b", "label": "y"}, 3)]


def test_csv_with_a_pandas_index_column_and_spaces_in_the_header(tmp_path):
    path = write(tmp_path, "a.csv", ",text, label\n0,a,x\n")
    assert rows_of(path) == [({"": "0", "text": "a", "label": "x"}, 2)]


def test_a_review_of_a_megabyte(tmp_path):
    review = "é,\n" * 350_000
    path = write(tmp_path, "big.csv", f'text,label\n"{review}",x\nshort,y\n')
    first, second = rows_of(path)
    assert first == ({"text": review, "label": "x"}, 2)
    assert second == ({"text": "short", "label": "y"}, 350_003)


def test_rows_stream(tmp_path):
    """The first row comes before the file is read on: a pipe that never ends is enough."""

    class Endless(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            buffer[:] = (b"some text\n" * (len(buffer) // 10 + 1))[: len(buffer)]
            return len(buffer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Endless())))
        lines = [row.line for row in itertools.islice(read_rows("-"), 1000)]
    assert lines == list(range(1, 1001))


def test_memory_is_bounded_by_a_row(tmp_path):
    path = write(tmp_path, "a.csv", "text,label\n" + f"{'x' * 1000},y\n" * 10_000)
    tracemalloc.start()
    assert sum(1 for _ in read_rows(path)) == 10_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000  # of a file of 10 MB


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.ndjson", "a.json", "a.txt"])
@pytest.mark.parametrize("content", ["", "\n \n"])
def test_empty_file(tmp_path, name, content):
    fails(write(tmp_path, name, content), "empty", "no rows")


def test_header_without_rows(tmp_path):
    fails(write(tmp_path, "a.csv", "text,label\n"), "no rows")


def test_missing_file(tmp_path):
    fails(tmp_path / "gone.csv", "no such file")


def test_unknown_ending(tmp_path):
    fails(write(tmp_path, "a.xlsx", "x"), "format", ".csv", ".parquet")


def test_header_with_a_blank_name_asks_for_a_header(tmp_path):
    fails(write(tmp_path, "cola.tsv", "gj04\t1\t\tOur friends won't buy this.\n"), ":1:", "column 3", "header line")
    fails(write(tmp_path, "blank.csv", '""\nx\n'), ":1:", "column 1", "header line")


def test_duplicate_column_name(tmp_path):
    fails(write(tmp_path, "a.csv", "text,label, text\na,b,c\n"), ":1:", "'text'", "columns 1 and 3")


def test_wrong_number_of_fields(tmp_path):
    path = write(tmp_path, "a.csv", 'text,label\n"a\nb",x\nc,y,z\nd\ne,w\n')
    fails(path, ":4:", "expected 2 as in the header, got 3", "--skip-bad-rows")
    rows, errors = skipped(path)
    assert [row["text"] for row in rows] == ["a\nb", "e"]
    assert [(error.line, error.reason) for error in errors] == [(line, "wrong number of fields") for line in (4, 5)]
    assert "got 1" in str(errors[1])


def test_unterminated_quote_names_the_line_where_it_opened(tmp_path):
    path = write(tmp_path, "a.csv", 'text,label\na,x\n"b\nc","never\nclosed\nd,y\n')
    fails(path, ":4:", "unterminated quote")
    fails(path, ":4:", "unterminated quote", skip_bad_rows=True)  # nothing after it can be trusted
    fails(write(tmp_path, "b.csv", 'text,label\na,x\n"b,y'), ":3:", "unterminated quote")
    fails(write(tmp_path, "c.csv", '"text,label\na,x\n'), ":1:", "unterminated quote")


def test_stray_quote_inside_a_quoted_field(tmp_path):
    path = write(tmp_path, "a.csv", 'text,label\n"he said "no" twice",x\n"a\nb" c,y\nfine,z\n')
    fails(path, ":2:", "bad quoting", "written twice")
    rows, errors = skipped(path)
    assert rows == [{"text": "fine", "label": "z"}]
    assert [error.line for error in errors] == [2, 3]
    assert "lines 3 to 4" in str(errors[1])


def test_carriage_return_in_a_field_that_is_not_quoted(tmp_path):
    path = write(tmp_path, "a.csv", "text,label\na\rb,x\nc,y\n")
    fails(path, ":2:", "carriage return")
    assert skipped(path)[0] == [{"text": "c", "label": "y"}]


# --- encodings -----------------------------------------------------------------------------------------------


def test_bad_encoding_names_line_and_offset(tmp_path):
    content = b'text,label\nfine,x\n"two\nlines \xe9",y\nok,z\n'
    path = write(tmp_path, "a.csv", content)
    fails(path, ":4:", "badly encoded", f"byte 0xe9 at offset {content.index(0xE9)}", "--encoding latin-1")
    rows, errors = skipped(path)
    assert [row["text"] for row in rows] == ["fine", "ok"]  # the whole row goes, not only its second line
    assert [(error.line, error.reason) for error in errors] == [(4, "badly encoded")]
    assert rows_of(path, encoding="latin-1")[1] == ({"text": "two\nlines é", "label": "y"}, 3)


def test_a_row_with_several_problems_is_one_bad_row(tmp_path):
    path = write(tmp_path, "a.csv", b'text,label\n"\xff"b,x\n"one \xff\ntwo \xfe",y\nfine,z\n')
    rows, errors = skipped(path)
    assert rows == [{"text": "fine", "label": "z"}]
    assert [(error.line, error.reason) for error in errors] == [(2, "bad quoting"), (3, "badly encoded")]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_bad_encoding_in_other_formats(tmp_path, name):
    good, bad = (b"hello", b"\xff") if name == "a.txt" else (b'{"text": "hello"}', b'{"text": "\xff"}')
    path = write(tmp_path, name, good + b"\n" + bad + b"\n" + good + b"\n")
    fails(path, ":2:", "badly encoded", "0xff")
    rows, errors = skipped(path)
    assert len(rows) == 2
    assert len(errors) == 1


def test_bad_encoding_in_the_header_is_never_skipped(tmp_path):
    fails(write(tmp_path, "a.csv", b"text,l\xe9\na,x\n"), ":1:", "badly encoded", skip_bad_rows=True)


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks_outrank_the_encoding(tmp_path, codec):
    path = write(tmp_path, "a.csv", 'text,label\n"é\nü",x\nb,y\n'.encode(codec))
    for encoding in ("utf-8", "latin-1"):
        assert rows_of(path, encoding=encoding) == [
            ({"text": "é\nü", "label": "x"}, 2),
            ({"text": "b", "label": "y"}, 4),
        ]


@pytest.mark.parametrize("codec", ["utf-16-be", "utf-16-le", "utf-32-be", "cp1252", "utf-8-sig", "UTF_8_SIG", "utf8"])
def test_encodings_without_a_mark(tmp_path, codec):
    content = "text,label\né,x\n".encode(codec).removeprefix(b"\xef\xbb\xbf")
    assert rows_of(write(tmp_path, "a.csv", content), encoding=codec) == [({"text": "é", "label": "x"}, 2)]


def test_old_mac_line_ends_after_a_byte_order_mark(tmp_path):
    path = write(tmp_path, "mac.csv", "\ufefftext,label\ré,x\r")
    assert rows_of(path) == [({"text": "é", "label": "x"}, 2)]


def test_offset_after_a_byte_order_mark_counts_from_the_start_of_the_file(tmp_path):
    content = b"\xef\xbb\xbftext\nok\n\xff\n"
    fails(write(tmp_path, "a.csv", content), ":3:", f"offset {content.index(0xFF)}")


def test_utf_16_without_a_mark(tmp_path):
    path = write(tmp_path, "a.csv", "text,label\nhé,x\n".encode("utf-16-le"))
    fails(path, ":1:", "NUL", "utf-16-le")
    assert rows_of(path, encoding="utf-16-le") == [({"text": "hé", "label": "x"}, 2)]


def test_truncated_utf_16(tmp_path):
    content = "text\n".encode("utf-16-le") + b"\x00\xd8\n\x00"  # half a surrogate pair
    path = write(tmp_path, "a.csv", content)
    fails(path, "badly encoded", "utf-16", "--encoding latin-1", encoding="utf-16-le")


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_file_that_is_not_what_its_mark_says_has_to_be_saved_anew(tmp_path, mark):
    content = "".encode(mark) or "text".encode(mark)
    path = write(tmp_path, "a.txt", content + b"\xff\xd8 caf\xe9\n\xff")
    for encoding in ("utf-8", "latin-1"):
        said = f"mark that it begins with says {mark.removesuffix('-sig')}, which outranks --encoding: save the file"
        message = fails(path, "badly encoded", said, encoding=encoding)
        assert "latin-1" not in message
    path = write(tmp_path, "b.txt", "a\0b\n".encode(mark))
    assert "--encoding" not in fails(path, ":1:", "a NUL byte: this is no text")


def test_nul_bytes(tmp_path):
    path = write(tmp_path, "a.csv", b"text,label\na\x00,x\nb,y\n")
    fails(path, ":2:", "NUL")
    assert skipped(path)[0] == [{"text": "b", "label": "y"}]


def test_unknown_encoding(tmp_path):
    with pytest.raises(OptionError, match="--encoding utf-9"):
        list(read_rows(write(tmp_path, "a.csv", "text\na\n"), encoding="utf-9"))


# --- TSV -----------------------------------------------------------------------------------------------------


def test_tsv_takes_bare_quotes_for_text(tmp_path):
    content = 'sentence\tlabel\n"Gigli" is bad\t0\n"quoted whole"\t1\n"opens only\t1\nends only"\t0\n'
    rows = rows_of(write(tmp_path, "sst.tsv", content))
    assert [values["sentence"] for values, _ in rows] == [
        '"Gigli" is bad',
        '"quoted whole"',
        '"opens only',
        'ends only"',
    ]


def test_tsv_with_a_quote_over_lines_that_happens_to_close_stays_text(tmp_path):
    """Read as a CSV these lines parse too, with a tab and a line break inside one field."""
    content = 'sentence\tlabel\n"Great movie\t1\nI said bye"\t0\n'
    assert [line for _, line in rows_of(write(tmp_path, "a.tsv", content))] == [2, 3]


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("a\tb", 'text\tlabel\n"a\tb"\tx\nc\ty\n'),  # a quoted tab
        ("a\nb", 'text\tlabel\n"a\nb"\tx\nc\ty\n'),  # a quoted line break
        ('say "a"', 'text\tlabel\n"say ""a"""\tx\nc\ty\n'),  # a doubled quote
        ("a", '"text"\t"label"\n"a"\t"x"\n"c"\t"y"\n'),  # everything quoted
    ],
)
def test_tsv_that_quotes_like_a_csv(tmp_path, text, content):
    first, second = rows_of(write(tmp_path, "a.tsv", content))
    assert first == ({"text": text, "label": "x"}, 2)
    assert second[0] == {"text": "c", "label": "y"}


def test_tsv_quoting_is_found_in_a_sample_that_ends_inside_a_row(tmp_path):
    content = "text\tlabel\n" + '"a\nb"\tx\n' * 2000
    rows = rows_of(write(tmp_path, "a.tsv", content))
    assert len(rows) == 2000
    assert rows[-1] == ({"text": "a\nb", "label": "x"}, 4000)


def test_tsv_with_wrong_fields_explains_quotes(tmp_path):
    content = "text\tlabel\n" + "a\tx\n" * 1200 + '"b\tc"\ty\n'
    message = fails(write(tmp_path, "a.tsv", content), ":1202:", "expected 2", "got 3")
    assert "quotes are ordinary characters" in message


# --- JSON ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json"])
def test_json_lines(tmp_path, name):
    path = write(tmp_path, name, '{"text": "a\\nb", "label": 1}\n\n{"text": "é", "label": ["x"]}')
    assert rows_of(path) == [({"text": "a\nb", "label": 1}, 1), ({"text": "é", "label": ["x"]}, 3)]


def test_invalid_json_line_has_jsons_cause(tmp_path):
    path = write(tmp_path, "a.jsonl", '{"text": "a"}\n{"text": }\n[1]\n"x"\n{"text": "b"}\n')
    fails(path, ":2:", "invalid JSON", "Expecting value at column 10")
    rows, errors = skipped(path)
    assert rows == [{"text": "a"}, {"text": "b"}]
    assert [(error.line, error.reason) for error in errors] == [
        (2, "invalid JSON"),
        (3, "not a JSON object"),
        (4, "not a JSON object"),
    ]


@pytest.mark.parametrize("line", ['{"a": ' + "[" * 100_000, '{"a": ' + "1" * 5000 + "}"])
def test_json_that_python_gives_up_on(tmp_path, line):
    path = write(tmp_path, "a.jsonl", '{"text": "a"}\n' + line + "\n")
    fails(path, ":2:", "invalid JSON")


def test_json_array_with_line_numbers(tmp_path):
    path = write(tmp_path, "a.json", '\n[\n  {"text":\n "a"},\n\n  {"text": "b"}, {"text": "c"}\n]\n')
    assert rows_of(path) == [({"text": "a"}, 3), ({"text": "b"}, 6), ({"text": "c"}, 6)]
    fails(write(tmp_path, "none.json", "[ ]"), "empty")


@pytest.mark.parametrize(
    ("content", "line", "cause"),
    [
        ('[\n{"text": "a"}\n{"text": "b"}]', 3, "expected ',' or ']'"),
        ('[\n{"text": "a"},\n{"text" "b"}]', 3, "delimiter"),
        ('[{"text": "a"}\n', 2, "expected ',' or ']'"),
        ('[{"text": "a"},\n]', 2, "Expecting value"),
        ('[{"text": "a"}]\n\n{}', 3, "more text"),
        ("[" * 100_000, 1, "recursion"),
    ],
)
def test_broken_json_array(tmp_path, content, line, cause):
    path = write(tmp_path, "a.json", content)
    fails(path, f":{line}:", "invalid JSON", cause, skip_bad_rows=True)


def test_json_array_of_other_things(tmp_path):
    path = write(tmp_path, "a.json", '[{"text": "a"},\n3]')
    fails(path, ":2:", "not a JSON object")
    assert skipped(path)[0] == [{"text": "a"}]


# --- plain text, compression, standard input -----------------------------------------------------------------


def test_text_is_one_row_a_line_and_blank_lines_are_none(tmp_path):
    path = write(tmp_path, "a.txt", "one\r\n\n  \n two \u2028 still two\n")
    assert rows_of(path) == [({"text": "one"}, 1), ({"text": " two \u2028 still two"}, 4)]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv.gz", "text\nhé\n"), ("a.tsv.gz", "text\nhé\n"), ("a.jsonl.gz", '{"text": "hé"}'), ("a.txt.gz", "hé")],
)
def test_gzip(tmp_path, name, content):
    path = write(tmp_path, name, gzip.compress(content.encode()))
    assert [values for values, _ in rows_of(path)] == [{"text": "hé"}]


def test_damaged_gzip(tmp_path):
    whole = gzip.compress(b"text\n" + bytes(range(32, 127)) * 200)
    fails(write(tmp_path, "a.csv.gz", whole[:-20]), "cannot be read on")
    fails(write(tmp_path, "b.csv.gz", b"no gzip"), ":1:", "cannot be read on")


def stdin_rows(monkeypatch, content: bytes) -> list[Row]:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    return list(read_rows("-"))


def test_standard_input(monkeypatch):
    assert stdin_rows(monkeypatch, b'\n{"text": "a"}\n{"text": "b"}\n') == [
        Row({"text": "a"}, "standard input", 2),
        Row({"text": "b"}, "standard input", 3),
    ]
    assert stdin_rows(monkeypatch, b"\nfirst {\nsecond\n") == [
        Row({"text": "first {"}, "standard input", 2),
        Row({"text": "second"}, "standard input", 3),
    ]
    assert stdin_rows(monkeypatch, "é\n".encode("utf-16")) == [Row({"text": "é"}, "standard input", 1)]
    assert not sys.stdin.buffer.closed  # it is not ours to close
    with pytest.raises(TableError, match="standard input: empty"):
        stdin_rows(monkeypatch, b"")
    with pytest.raises(TableError, match="standard input:2: badly encoded"):
        stdin_rows(monkeypatch, b"a\n\xff\n")


def test_a_file_of_nothing_but_bad_rows_was_not_empty(tmp_path):
    rows, errors = skipped(write(tmp_path, "a.csv", "text,label\na\n"))
    assert rows == []
    assert len(errors) == 1
