"""The runtime reads text as transformers does, in bounded time, whatever the text."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezebert.files.errors import FolderError, OptionError, SqueezeBertError
from squeezebert.runtime.tokens import TextError, Tokenizer, split_pair
from tiny_checkpoints import texts, tiny_tokenizer

ODD = [
    "",
    " ",
    "the train",
    "The TRÁIN, quite late!",
    "\t\n the \r\n train \u00a0 late",
    "🙂🚲👩‍👩‍👧",
    "שלום עולם",
    "مرحبا بالعالم",
    "漢字の天気",
    "null\0inside",
    "control\x1cchars\x7f",
    "[SEP] written out [MASK]",
    "e\u0301" * 30,
    "x" * 500,
    "##ing ##",
    "\ufeff\ufffd\u2028",
    *texts(20, seed=9),
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer().save_pretrained(folder)
    return folder / "tokenizer.json"


@pytest.mark.parametrize("max_length", [4, 9, 48])
def test_ids_and_types_are_those_of_transformers(path, max_length):
    ours, theirs = Tokenizer(path, max_length), tiny_tokenizer()
    pairs = [(a, None) for a in ODD] + [(a, b) for a in ODD[::2] for b in ODD[1::3]]
    for first, second in pairs:
        found = ours.encode(first, second)
        # As lists: transformers takes a lone empty second text for none
        lists = [first], None if second is None else [second]
        expected = theirs(*lists, truncation=True, max_length=max_length)
        assert found.ids == expected["input_ids"][0], (first, second)
        assert found.types == expected["token_type_ids"][0], (first, second)
        assert found.truncated == (len(theirs(*lists)["input_ids"][0]) > max_length)


def test_pairs_of_every_length_are_shared_out_as_transformers_does(path):
    theirs = tiny_tokenizer()
    for max_length in (5, 8, 11):
        ours = Tokenizer(path, max_length)
        for first in range(14):
            for second in range(14):
                pair = " ".join(["the"] * first), " ".join(["boat"] * second)
                expected = theirs([pair[0]], [pair[1]], truncation=True, max_length=max_length)
                assert ours.encode(*pair).ids == expected["input_ids"][0], (max_length, first, second)


def test_long_texts_are_cut_before_they_are_tokenised(path):
    ours, theirs = Tokenizer(path, 32), tiny_tokenizer()
    random = np.random.default_rng(0)
    for separator in (" ", "  ", "\n", " \u0301", ".", ""):
        words = random.choice(["train", "boat", "x" * 120, "漢字", "window"], 3000)
        text = separator.join(words)
        found = ours.encode(text)
        assert found.ids == theirs(text, truncation=True, max_length=32)["input_ids"], repr(separator)
        assert found.truncated
    spaced = "the" + " " * 5000 + "boat"  # few tokens in many characters
    assert ours.encode(spaced).ids == theirs(spaced)["input_ids"]
    assert not ours.encode(spaced).truncated


@pytest.mark.parametrize("unit", ["word ", "漢", "a", "!", " ", "\0", "\u0301", "🙂", "\ud800", "[MASK]"])
def test_a_megabyte_takes_a_moment(path, unit):
    text = unit * (1_000_000 // len(unit.encode("utf-8", "surrogatepass")))
    start = time.perf_counter()
    found = Tokenizer(path, 48).encode(text, text)
    assert len(found.ids) <= 48
    assert time.perf_counter() - start < 20


def test_half_surrogates_are_read_as_unknown_characters(path):
    ours = Tokenizer(path, 48)
    assert ours.encode("the \ud83d boat").ids == ours.encode("the \ufffd boat").ids
    assert ours.encode("\ud83d\ude42").ids == ours.encode("🙂").ids  # a pair of halves is a character


def test_places_count_the_characters_of_the_text_as_it_is(path):
    ours = Tokenizer(path, 48)
    for text in ("\ud83d\ude42 boat", "\ud83d boat \ude42", "\ud83d\ude42\ud83d\ude42 the boat", "🙂 boat"):
        ids, places = ours.pieces(text)
        boat = ids.index(ours.id_of("boat"))
        assert text[slice(*places[boat])] == "boat"
        ((_, start, end),) = ours.windows(text, 4)
        assert text[start:end].endswith("boat")


@given(st.text(st.characters(codec=None, categories=["Cs", "So", "Lu"]), max_size=12))
def test_places_lie_in_the_text_whatever_it_is(path, text):
    _, places = Tokenizer(path, 48).pieces(text)
    assert all(0 <= start < end <= len(text) for start, end in places)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("the boat", "the boat"),
        ("boat🙂 and 🙂🙂", "boat 🙂  and 🙂🙂"),
        ("a🙂b!", "a 🙂 b!"),
        ("x" * 100, "x" * 100),
        ("x" * 250 + " boat", " ".join(["x" * 100, "x" * 100, "x" * 50]) + " boat"),
        ("x\u0301" * 101, "x\u0301" * 100 + " x\u0301"),  # marks are taken off, and count nothing
        ("", ""),
    ],
)
def test_what_is_not_known_is_set_apart(path, text, read):
    ours = Tokenizer(path, 48)
    assert ours.separate_unknown(text) == read
    unknown = ours.id_of("[UNK]")
    assert set(ours.plain_ids(read)) - {unknown} >= set(ours.plain_ids(text)) - {unknown}


def test_token_types_can_be_left_out(path):
    assert set(Tokenizer(path, 48, token_types=False).encode("the", "boat").types) == {0}


def test_what_is_no_text_is_named():
    assert split_pair(["a", "b"], 0) == ("a", "b")
    for wrong, found in ((None, "NoneType"), (1.5, "float"), (b"x", "bytes"), (("a",), "tuple"), (("a", 1), "int")):
        with pytest.raises(TextError, match=f"text 7 .*{found}") as caught:
            split_pair(wrong, 7)
        assert isinstance(caught.value, TypeError)
        assert isinstance(caught.value, SqueezeBertError)


def test_unusable_files_and_lengths_are_refused(path, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(FolderError, match="cannot be read as a tokenizer"):
        Tokenizer(tmp_path / "tokenizer.json", 48)
    with pytest.raises(OptionError, match="no room"):
        Tokenizer(path, 3)
