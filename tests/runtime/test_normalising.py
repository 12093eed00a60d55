"""Normal forms are Unicode's own for any text that people write, and take linear time for any other."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezebert.runtime.copies import normal_form
from squeezebert.runtime.normalising import normalize, shorten_marks


@given(st.text(max_size=30), st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_short_runs_of_marks_are_kept(text, form):
    assert normalize(form, text) == unicodedata.normalize(form, text)


def test_of_a_long_run_the_first_marks_are_kept():
    marks = "\u0301\u0323" * 20
    assert shorten_marks(f"a{marks}b{marks[:30]}c") == f"a{marks[:30]}b{marks[:30]}c"
    assert shorten_marks("\u0f73" * 40) == "\u0f73" * 30


@pytest.mark.parametrize("unit", ["\u0301\u0323", "\u0f73", "\u0301\u0345\u0323", "\uff9e\u0323"])
def test_time_is_linear(unit):
    text = "a" + unit * (1_000_000 // len(unit.encode()))
    start = time.perf_counter()
    assert len(normal_form(text)) < 100
    assert time.perf_counter() - start < 5
