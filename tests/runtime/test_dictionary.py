"""Words that are spelt alike, ordered by how likely they are meant; a file that is checked when it is read."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezebert.files.errors import FolderError
from squeezebert.runtime.dictionary import Dictionary, count_words, edits_between

COUNTS = {"the": 500, "house": 40, "horse": 60, "hose": 3, "mouse": 20, "it's": 7, "receive": 9}


def test_near_words_are_ordered_by_edits_and_counts():
    words = Dictionary(COUNTS)
    assert words.near("hosue") == [("house", 1), ("hose", 1), ("horse", 2), ("mouse", 2)]
    assert [word for word, _ in words.near("hous")] == ["house", "horse", "mouse", "hose"]
    assert words.near("HORSE")[0] == ("house", 1)
    assert words.near("its") == [("it's", 1)]
    assert words.near("it\u2019s") == []
    assert words.near("xylophone") == words.near("") == words.near("h" * 10_000) == []
    assert words.near("hosue", edits=1, count=1) == [("house", 1)]
    assert edits_between("Hosue", "house") == 1


@given(st.text(alphabet="abcd", min_size=1, max_size=6))
def test_every_word_within_the_edits_is_found(word):
    known = Dictionary({a + b + c: 1 for a in "abcd" for b in "abcd" for c in "abcd"})
    found = dict(known.near(word, count=100))
    for other in known.counts:
        away = edits_between(word, other)
        assert found.get(other) == (away if 0 < away <= 2 else None)


def test_shares_and_what_is_known():
    words = Dictionary(COUNTS)
    assert "The" in words
    assert "it\u2019s" in words
    assert "unknown" not in words
    assert 3 not in words
    assert words.log_share("house") == pytest.approx(math.log(40 / sum(COUNTS.values())))
    assert words.log_share("unknown") < words.log_share("hose")
    assert len(Dictionary({})) == 0
    assert Dictionary({}).near("house") == []


def test_words_are_counted_in_lower_case():
    found = count_words(["The", "the", "It\u2019s", "it's", "once"], least=2, most=10)
    assert found == {"it's": 2, "the": 2}
    assert count_words(["a", "a", "b"], least=1, most=1) == {"a": 2}


def test_a_file_is_read_as_it_was_written_or_refused(tmp_path):
    path = tmp_path / "dictionary.tsv"
    Dictionary({**COUNTS, "na\u00efve": 1}).save(path)
    assert path.read_text(encoding="utf-8").splitlines()[0] == "the\t500"
    assert Dictionary.open(path).counts == {**COUNTS, "na\u00efve": 1}
    # As people edit it
    path.write_bytes("\ufeffThe\t3\nit\u2019s\t2\n\nthe\t1\n\n".encode())
    assert Dictionary.open(path).counts == {"the": 4, "it's": 2}
    for damaged in (b"the\n", b"the\tmany\n", b"\t3\n", b"\xff\t3\n", b"the\t0\n"):
        path.write_bytes(damaged)
        with pytest.raises(FolderError, match="cannot be read as a dictionary"):
            Dictionary.open(path)
    with pytest.raises(FolderError, match="cannot be read as a dictionary"):
        Dictionary.open(tmp_path / "gone.tsv")
