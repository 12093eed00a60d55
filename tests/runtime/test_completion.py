"""Words for gaps: as torch has them, whole words of several pieces, long and odd texts, errors."""

from __future__ import annotations

import numpy as np
import pytest

from masked_models import torch_words
from squeezebert.files.errors import OptionError
from squeezebert.runtime.completion import Completer, filled, pieces_a_word
from squeezebert.runtime.predictor import load
from squeezebert.runtime.tokens import TextError
from tiny_checkpoints import tiny_tokenizer

pytest_plugins = ["exported_folders"]


@pytest.fixture(scope="module")
def completer(words):
    return Completer(load(words.output, 1, "fp32"))


def shares(completer):
    return completer.model.manifest.notes["pieces_a_word"]


def test_words_of_one_piece_are_torchs_among_words(words, completer):
    text = "the green [MASK] is on the quiet river."
    (gap,) = completer.fill(text, top_k=3)
    assert (gap.start, gap.end) == (10, 16)
    assert gap.words[0].word == "boat"
    expected = torch_words(words.model, text)[0] * completer._begins
    expected = expected / expected.sum() * shares(completer)[0]
    pieces = tiny_tokenizer().convert_ids_to_tokens(list(range(len(expected))))
    for word in gap.words:
        assert word.probability == pytest.approx(expected[pieces.index(word.word)], abs=1e-6)
    probabilities = [word.probability for word in gap.words]
    assert probabilities == sorted(probabilities, reverse=True)
    assert filled(text, [gap]) == "the green boat is on the quiet river."


def test_a_word_of_two_pieces_is_found_piece_by_piece(words, completer):
    (gap,) = completer.fill("seven ___ wait at the river.", top_k=5)
    (boats,) = [word for word in gap.words if word.word == "boats"]
    tokenizer = tiny_tokenizer()
    first = torch_words(words.model, "seven [MASK] [MASK] wait at the river.")[0] * completer._begins
    first = first[tokenizer.convert_tokens_to_ids("boat")] / first.sum()
    second = torch_words(words.model, "seven boat [MASK] wait at the river.")[0]
    expected = shares(completer)[1] * first * second[tokenizer.convert_tokens_to_ids("##s")]
    assert boats.probability == pytest.approx(expected, abs=1e-6)
    # The bound that spares the work changes nothing: more words asked for, the same probabilities
    (many,) = completer.fill("seven ___ wait at the river.", top_k=40)
    found = {word.word: word.probability for word in many.words}
    assert all(found[word.word] == pytest.approx(word.probability, abs=1e-9) for word in gap.words)


def test_only_words_are_answers(completer):
    for gap in completer.fill("___ [mask] it ____.", top_k=60):
        names = [word.word for word in gap.words]
        assert len(names) == len(set(names))
        assert all(name.isalnum() for name in names)
        assert not set("bcdxyz") & set(names)
        assert sum(word.probability for word in gap.words) <= 1 + 1e-9


def test_each_gap_is_answered_with_the_others_unknown(words, completer):
    text = "it was [MASK] in the [MASK]."
    late, evening = completer.fill(text)
    assert (late.words[0].word, evening.words[0].word) == ("late", "evening")
    expected = torch_words(words.model, text)
    pieces = tiny_tokenizer().convert_ids_to_tokens(list(range(expected.shape[1])))
    for gap, row in zip((late, evening), expected, strict=True):
        among = row * completer._begins / (row * completer._begins).sum() * shares(completer)[0]
        assert gap.words[0].probability == pytest.approx(among[pieces.index(gap.words[0].word)], abs=1e-6)


def test_the_next_word_is_a_gap_before_the_ending(completer):
    stop = completer.next_word("the small letter is on the", ending=".")
    nothing = completer.next_word("it was")
    assert stop == completer.fill("the small letter is on the [MASK].")[0].words
    assert nothing == completer.fill("it was [MASK]")[0].words
    assert stop[0].word == "table"
    assert completer.next_word("the small letter is on the  \n", ending=".") == stop
    assert len(completer.next_word("", top_k=2)) == 2


def test_given_words_are_scored_in_their_place(words, completer):
    text = "seven xyzzy wait at the river."
    names = ["boats", "trains", "boat", "waited", "漢", ""]
    found = completer.score(text, 6, 11, names)
    both = torch_words(words.model, "seven [MASK] [MASK] wait at the river.")
    first = both[0] * completer._begins / (both[0] * completer._begins).sum()
    tokenizer = tiny_tokenizer()
    boat, s = tokenizer.convert_tokens_to_ids(["boat", "##s"])
    assert found[0] == pytest.approx(shares(completer)[1] * first[boat] * both[1][s], abs=1e-6)
    assert found[0] > found[1]
    (gap,) = completer.fill("seven ___ wait at the river.", top_k=3)
    assert found[2] == pytest.approx({w.word: w.probability for w in gap.words}["boat"], abs=1e-9)
    assert found[3] > 0  # "wait", "##e", "##d"
    assert (found[4] > 0, found[5]) == (True, 0.0)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_long_and_odd_texts_are_read_around_the_gap(words, precision):
    completer = Completer(load(words.output, 1, precision))
    for before, after, left, right in ((3000, 3000, 22, 23), (0, 200000, 0, 45), (200, 5, 40, 5), (10, 300, 10, 35)):
        (gap,) = completer.fill("boat " * before + "___" + " river" * after, top_k=3)
        (read,) = completer.fill("boat " * left + "___" + " river" * right, top_k=3)
        assert gap.words == read.words
        assert gap.start == 5 * before
    for text in ("\0___", "___ مرحبا 🙂", "\ud800 ___", "x" * 200000 + " ___ " + "y" * 200000, "___"):
        (gap,) = completer.fill(text, top_k=2)
        assert len(gap.words) == 2
        assert text[gap.start : gap.end] == "___"


def test_what_cannot_be_asked_is_explained(completer, single):
    with pytest.raises(TextError, match="no gap to fill"):
        completer.fill("a boat named __init__")
    with pytest.raises(TextError, match=r"no gap to fill: write \[MASK\] or ___"):
        completer.fill("nothing is missing, a_b neither")
    with pytest.raises(TextError, match="65 gaps, and 64 are filled at most"):
        completer.fill("___ " * 65)
    with pytest.raises(TextError, match="expected a str, not int"):
        completer.next_word(3)
    with pytest.raises(TextError, match="expected a str, not NoneType"):
        completer.next_word("it was", ending=None)
    for bad in (0, True, 1.5):
        with pytest.raises(OptionError, match="top_k = "):
            completer.fill("___", top_k=bad)
    with pytest.raises(OptionError, match="needs a masked language model, and this is a model of single_label"):
        Completer(load(single.output, 1))


def test_the_share_of_words_by_their_pieces_is_counted(completer):
    # boat, boat+s, train+s, x+y+z, and a word of five pieces that is left out; punctuation is no word
    found = pieces_a_word(completer.model, ["boat, boats trains!", "xyz abcde ."])
    np.testing.assert_allclose(found, [2 / 7, 3 / 7, 2 / 7])
