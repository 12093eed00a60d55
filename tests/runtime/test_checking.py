"""Wrong words of texts: where they are, what may be meant, long and odd texts, whole sentences, errors."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from marker_text import sentences
from masked_models import SENTENCES
from squeezebert.data.corruption import CorruptionOptions, Corruptor
from squeezebert.files.english import TAGS, units
from squeezebert.files.errors import FolderError, OptionError
from squeezebert.runtime.articles import ARTICLE_SURE, settle_articles
from squeezebert.runtime.checking import (
    Checker,
    checked_spans,
    decide_tags,
    first_tokens,
    in_no_prose,
    open_checker,
    tag_probabilities,
)
from squeezebert.runtime.completion import Completer
from squeezebert.runtime.dictionary import Dictionary
from squeezebert.runtime.predictor import load
from squeezebert.runtime.tokens import TextError

pytest_plugins = ["exported_folders"]

GOOD = "The green boat is on the river and it was late for the table."


@pytest.fixture(scope="module")
def checker(marker):
    return open_checker(marker.output, threads=1)


def only(checker, text, **told):
    (mark,) = checker.check(text, **told).marks
    assert text[mark.start : mark.end] == mark.word
    return mark


def test_what_is_wrong_is_found_in_new_sentences(checker):
    """Most errors, with the right tag, and few good words."""
    corruptor = Corruptor(CorruptionOptions(clean=0.5), checker.dictionary.counts)
    wrong = found = good = false = right_kind = 0
    for number, sentence in enumerate(sentences(60, seed=77)):
        made = corruptor.corrupt(sentence, number)
        given = {mark.start: mark.kind for mark in checker.check(made.text).marks}
        for unit, tag in zip(units(made.text), made.tags, strict=True):
            if tag == "keep":
                good, false = good + 1, false + (unit.start in given)
            elif tag != "order":  # a mark of two words
                wrong, found = wrong + 1, found + (unit.start in given)
                right_kind += given.get(unit.start) == tag
    assert found > 0.6 * wrong
    assert right_kind > 0.5 * wrong
    assert false < 0.02 * good


def test_a_misspelt_word_has_suggestions_of_the_dictionary(checker):
    assert checker.check(GOOD).marks == ()
    mark = only(checker, GOOD.replace("river", "rivr"))
    assert (mark.kind, mark.suggestions[0], mark.start) == ("spelling", "river", 25)
    assert 0.5 < mark.probability <= 1
    assert only(checker, GOOD.replace("river", "rivr"), suggestions=0).suggestions == ()
    json.dumps(checker.check(GOOD.replace("river", "rivr")).to_dict())


def test_places_are_those_of_the_whole_text(checker):
    text = f"{GOOD} {GOOD.replace('river', 'rivr')}\n\n{GOOD}"
    mark = only(checker, text)
    assert (mark.start, mark.word) == (len(GOOD) + 1 + 25, "rivr")


def test_suggestions_by_kind(checker, words):
    """What is suggested for each tag, whatever the marker says of a word."""
    found = units("Boat the is on teh river an late .")
    text = "Boat the is on teh river an late ."
    suggest = checker._suggest
    assert suggest(text, found, 0, 1, "order") == ["The boat"]
    assert suggest(text, found, 0, 0, "order") == []
    for text, at, wanted in (
        ("so I am late", 1, "am I"),
        ("I live London in now.", 2, "in London"),
        ("I am", 0, "Am I"),
        ("I'm late", 0, "Late I'm"),
        ('"The quite', 1, "Quite the"),
        ("NASA the", 0, "THE NASA"),
        ("A quite", 0, "Quite a"),
    ):
        assert suggest(text, units(text), at, at + 1, "order") == [wanted], text
    for text, at, kind, wanted in (
        ("You should of called", 2, "extra", ["have", ""]),
        ("You shouldn't of called", 2, "confused", ["have", "off"]),
        ("A cup of of tea", 3, "extra", ["", "off"]),
        ("I have to much", 2, "extra", ["", "too", "two"]),
        ("I is happy", 1, "agreement", ["am"]),
        ("He are happy", 1, "agreement", ["is"]),
    ):
        assert suggest(text, units(text), at, at, kind) == wanted, text
    text = "Boat the is on teh river an late ."
    assert suggest(text, found, 2, 2, "agreement") == ["are"]
    assert suggest(text, found, 2, 2, "extra") == [""]
    assert suggest(text, found, 4, 4, "spelling")[0] == "the"
    assert suggest(text, found, 6, 6, "article") == ["a"]
    assert suggest(text, found, 5, 5, "missing") == []
    assert suggest(text, found, 8, 8, "spelling") == []
    completer = Completer(load(words.output, 1))
    text = "it was late in evening."
    missing = Checker(checker.marker, checker.dictionary, completer)._suggest(text, units(text), 4, 4, "missing")
    assert missing == [word.word for word in completer.fill("it was late in ___ evening.", 20)[0].words]


def test_a_language_model_says_which_suggestion_fits(checker, words):
    """`boat` is the rarer word in the dictionary, and the one that the sentence has."""
    few = Dictionary({"goat": 900, "boat": 1, "coat": 900})
    text = SENTENCES[0].replace("boat", "xoat")
    found = units(text)
    at = next(i for i, (start, end) in enumerate(found) if text[start:end] == "xoat")
    alone = Checker(checker.marker, few)._suggest(text, found, at, at, "spelling")
    assert alone[-1] == "boat"
    completer = Completer(load(words.output, 1, "fp32"))
    assert Checker(checker.marker, few, completer)._suggest(text, found, at, at, "spelling")[0] == "boat"
    # Without a dictionary it finds words itself
    assert Checker(checker.marker, None, completer)._suggest(text, found, at, at, "spelling")[0] == "boat"
    assert Checker(checker.marker)._suggest(text, found, at, at, "spelling") == []


def test_a_word_that_the_model_rules_out_goes_by_its_count(checker):
    """The model may be unable to spell a word, and a word's count alone may be misleading: each has its say."""

    class Told:
        def __init__(self, **likely):
            self.likely = likely

        def score(self, text, start, end, words):
            return np.array([self.likely.get(word, 0.0) for word in words])

        def between(self, text, start, end, top_k):
            return ()

    counts = Dictionary({"the": 1000, "boat": 20, "goat": 40, "coat": 1})
    text = "the green xoat is here"

    def suggested(**likely):
        return Checker(checker.marker, counts, Told(**likely))._suggest(text, units(text), 2, 2, "spelling")

    assert suggested() == ["goat", "boat", "coat"]  # nothing said: by counts
    assert suggested(coat=1e-6) == ["goat", "boat", "coat"]  # next to nothing said
    assert suggested(coat=0.3) == ["coat", "goat", "boat"]
    assert suggested(boat=0.1, coat=0.001) == ["boat", "goat", "coat"]


def test_equal_sentences_are_read_once_and_nothing_is_sought_that_was_not_asked_for(checker, monkeypatch):
    read, compute = [], checker.marker.compute
    monkeypatch.setattr(checker.marker, "compute", lambda batch: read.append(len(batch)) or compute(batch))
    wrong = GOOD.replace("river", "rivr")
    marks = checker.check(f"{wrong} {GOOD} {wrong} {wrong}").marks
    assert (len(read), [mark.start // (len(wrong) + 1) for mark in marks]) == (2, [0, 2, 3])
    monkeypatch.setattr(Checker, "_suggest", lambda *told: pytest.fail("a suggestion was sought"))
    assert [mark.word for mark in checker.check(wrong, 0).marks] == ["rivr"]


def test_a_classifier_judges_whole_sentences(checker, marker, single, multi, regression):
    judge = load(single.output, 1)
    both = Checker(checker.marker, acceptability=judge)
    found = both.check(f"{GOOD} No. {GOOD}").sentences
    assert [(one.start, one.end) for one in found] == [(0, len(GOOD)), (len(GOOD) + 1, 2 * len(GOOD) + 5)]
    answer = judge.predict(GOOD)
    assert (found[0].label, found[0].probability) == (answer.label, answer.probability)
    for other in (multi, regression, marker):
        with pytest.raises(OptionError, match="judged by a classifier of single texts"):
            open_checker(marker.output, acceptability=other.output)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_long_sentence_is_read_in_windows(marker, precision):
    """What stands far from an edge has the answer that the words around it give."""
    model = load(marker.output, 1, precision)
    long = " ".join(["the green boat is on the river and"] * 40)
    found = units(long)
    probabilities = tag_probabilities(model, long, found)
    assert probabilities.shape == (len(found), len(TAGS))
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-9)
    ids, offsets = model.tokenizer.pieces(long)
    pairs = first_tokens(found, offsets)
    assert len(pairs) == len(found)
    assert model.tokenizer.room == 38  # windows of 20 tokens, with 9 on either side
    window = model.compute([model.tokenizer.framed(ids[60 - 9 : 80 + 9])])[0][model.tokenizer.lead :]
    expected = model.probabilities(window)
    answered = [(unit, token) for unit, token in pairs if 60 <= token < 80]
    assert len(answered) > 5
    for unit, token in answered:
        np.testing.assert_allclose(probabilities[unit], expected[token - 60 + 9], atol=1e-9)


def test_odd_texts_are_answered(checker):
    for text in ("", " \n", ".", "\0", "\ud800 rivr \udfff", "\x1c\x7f", "🙂🚲", "مرحبا بالعالم", "x" * 100_000):
        for mark in checker.check(text).marks:
            assert text[mark.start : mark.end] == mark.word or "\ufffd" in mark.word
    many = f"{GOOD} " * 30
    assert checker.check(many).marks == ()
    assert [many[start:end] for start, end in checked_spans(many)] == [GOOD] * 30


def test_addresses_and_names_of_programs_are_not_marked(checker):
    wrong = GOOD.replace("river", "rivr")
    assert only(checker, wrong).word == "rivr"
    for name in (
        "https://a.example/rivr",
        "www.rivr.org",
        "jo@rivr.org",
        "/usr/rivr/bin",
        "my_rivr",
        "rivr_1",
        "rivr()",
    ):
        text = GOOD.replace("river", name)
        place = range(text.index(name), text.index(name) + len(name))
        assert not [mark for mark in checker.check(text).marks if mark.start in place], name
    text = "the rivr, a/rivr and and/or my_rivr_2.tar.gz"
    marked = [units(text)[i] for i in np.flatnonzero(in_no_prose(text, units(text)))]
    assert "".join(text[one.start : one.end] for one in marked) == "my_rivr_2.tar.gz"
    # In time that grows no faster than the text: half a million units would take hours otherwise
    many = "a_b " * 200_000
    assert in_no_prose(many, units(many)).all() and not in_no_prose("", []).any()


def test_articles_go_by_the_sound_of_the_next_word(checker):
    """Whatever the marker says of them, but for what it calls another error."""
    for text, wrong in (
        ("It was an boat .", [2]),
        ("A hour is late , a year is not .", [0]),
        ('We saw a " old " boat and an ( large ) one .', [2, 8]),
        ("A apple is an 1,800 th of an 18,000 th .", [0]),
        ("a onerous task is an 0800 number .", [0]),
        ("Grade A apples , a.m. and a-option are fine , a is not .", []),
        ("It was a boat , an old boat , an historic hotel , a historic hotel .", []),
        ("It is a", []),
        ("OPTION A IS AN OPTION", []),
        ("A Adams is not Hoi An or An Wang", []),
        ("If a equals b , A implies B", []),
    ):
        found = units(text)
        for said in ("keep", "article"):
            tags = np.full(len(found), TAGS.index(said))
            rows = np.tile([0.9, *[0.1 / 7] * 7], (len(found), 1))
            settle_articles(text, found, tags, rows)
            words = [text[slice(*unit)] for unit in found]
            articles = [i for i, word in enumerate(words) if word.lower() in ("a", "an")]
            marked = [i for i in articles if tags[i]] if said == "keep" else wrong
            assert marked == wrong, text
            assert all(TAGS[tags[i]] == "article" for i in wrong), text
            assert [round(rows[i, 0], 9) for i in wrong] == [round(1 - ARTICLE_SURE, 9)] * len(wrong), text
            np.testing.assert_allclose(rows.sum(1), 1)
    text = "It was an boat , an old boat ."
    tags = np.array([0, 0, TAGS.index("extra"), 0, 0, TAGS.index("article"), 0, 0, 0])
    settle_articles(text, units(text), tags, np.full((9, 8), 1 / 8))
    assert [TAGS[tag] for tag in tags] == ["keep", "keep", "extra", *["keep"] * 6]
    quiet = Checker(checker.marker, checker.dictionary)
    quiet.thresholds = (2.0,) * len(TAGS)  # the marker itself marks nothing
    text = "An green boat is on an river, a old one or an hour away, at jo@an tree."
    marks = quiet.check(text).marks
    assert [(mark.start, mark.word, mark.suggestions) for mark in marks] == [
        (0, "An", ("A",)),
        (text.index("an river"), "an", ("a",)),
        (text.index("a old"), "a", ("an",)),
    ]
    assert all(mark.probability == pytest.approx(ARTICLE_SURE) and mark.kind == "article" for mark in marks)


def test_tags_are_given_from_their_thresholds_on():
    rows = np.array([[0.6, 0.3, 0.1], [0.4, 0.1, 0.5], [0.4, 0.5, 0.1], [1.0, 0.0, 0.0]])
    assert decide_tags(rows, None).tolist() == [0, 2, 1, 0]
    assert decide_tags(rows, (0.0, 0.3, 0.7)).tolist() == [1, 0, 1, 0]
    assert decide_tags(rows[:0], None).tolist() == []


def test_what_does_not_fit_is_explained(marker, single, words, checker, tmp_path):
    with pytest.raises(OptionError, match=r"not a marker of words: `squeezebert train-marker` makes one"):
        open_checker(single.output)
    with pytest.raises(OptionError, match="completion needs a masked language model"):
        open_checker(marker.output, words=single.output)
    with pytest.raises(TextError, match="expected a str, not int"):
        checker.check(3)
    for wrong in (-1, 1.5, "3", None, True):
        with pytest.raises(OptionError, match=f"suggestions = {wrong!r}"):
            checker.check("a", suggestions=wrong)
    for call in (checker.marker.predict, checker.marker.predict_windows, lambda text: checker.marker.logits([text])):
        with pytest.raises(OptionError, match="a model that labels tokens"):
            call("a boat")
    other = load(marker.output, 1)
    other.manifest = replace(other.manifest, labels=tuple(reversed(TAGS)))
    with pytest.raises(OptionError, match="not a marker of words"):
        Checker(other)
    import shutil

    shutil.copytree(marker.output, tmp_path / "copy")
    (tmp_path / "copy" / "dictionary.tsv").write_text("the\t1\n")
    with pytest.raises(FolderError, match=r"dictionary\.tsv: not the file that was exported"):
        open_checker(tmp_path / "copy")
