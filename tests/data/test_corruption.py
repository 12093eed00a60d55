"""Errors in sentences: of the kinds that are named, where they are said to be, and always the same."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezebert.data.corruption import KINDS, CorruptionOptions, Corruptor, heard_alike, neighbours, slip
from squeezebert.files.english import (
    CONFUSED,
    MEANINGS,
    TAGS,
    VERB_FORMS,
    alternatives,
    is_word,
    like,
    units,
    with_s,
)
from squeezebert.files.errors import OptionError

SENTENCES = [
    "He said that it was a quiet place, and their house is on the river's bank where they have an old boat.",
    "She knows the principal reason; you're the one who seems to lose, don't you think?",
    "\u201cIt\u2019s too late,\u201d they say to John in the morning, and he goes through the garden.",
    "The weather was fine when we went to the sea with her brother.",
]
ALWAYS = CorruptionOptions(clean=0.0, errors=0.15)


def texts_of(sentence):
    return [sentence[start:end] for start, end in units(sentence)]


def test_units_are_words_with_their_apostrophes_and_single_signs():
    assert texts_of("It's John's, 'tis \u201cwell-known\u201d\u2026 a_b e\u0301te\u0301 3.5%") == [
        *("It's", "John's", ",", "'", "tis", "\u201c", "well", "-", "known", "\u201d", "\u2026", "a", "_", "b"),
        *("e\u0301te\u0301", "3", ".", "5", "%"),
    ]  # fmt: skip
    assert units("") == units(" \n\t") == []
    assert [is_word(text) for text in ("it's", "9", ".", "")] == [True, True, False, False]


@given(st.text(max_size=60))
def test_any_text_keeps_its_characters(text):
    found = Corruptor(ALWAYS).corrupt(text, 3)
    assert len(found.tags) == len(found.kinds) == len(found.right) == len(units(found.text))


@pytest.mark.parametrize("sentence", SENTENCES)
def test_every_error_is_where_it_is_said_to_be(sentence):
    corruptor = Corruptor(ALWAYS)
    kinds = Counter()
    for seed in range(300):
        found = corruptor.corrupt(sentence, seed)
        now = texts_of(found.text)
        assert len(now) == len(found.tags)
        assert any(tag != "keep" for tag in found.tags)
        # Undoing what is said to be wrong gives the sentence back
        right = []
        for text, tag, before in zip(now, found.tags, found.right, strict=True):
            if tag == "missing":
                right += [before, text]
            elif tag != "extra":
                right.append(before)
        assert right == texts_of(sentence)
        for text, tag, kind, before in zip(now, found.tags, found.kinds, found.right, strict=True):
            assert (tag == "keep") == (kind == "")
            if kind:
                kinds[kind] += 1
                assert KINDS[kind][0] == tag
            if tag == "keep":
                assert text == before
            elif tag in ("spelling", "confused", "agreement", "article"):
                assert text != before
            if tag in ("confused", "agreement", "article"):
                assert kind == "of for have" or text.lower() in alternatives(before, tag)
                assert text[0].isupper() == before[0].isupper()
    assert len(kinds) >= 7


def test_the_same_seed_makes_the_same_errors_and_others_make_others():
    first, again = Corruptor(ALWAYS), Corruptor(ALWAYS)
    made = [first.corrupt(SENTENCES[0], (1, seed)) for seed in range(30)]
    assert made == [again.corrupt(SENTENCES[0], (1, seed)) for seed in range(30)]
    assert len({one.text for one in made}) > 20


def test_every_kind_is_made_about_as_often_as_it_is_to_be():
    corruptor = Corruptor(CorruptionOptions(clean=0.0, errors=0.01))  # one error each
    kinds = Counter(kind for seed in range(3000) for kind in corruptor.corrupt(SENTENCES[0], seed).kinds if kind)
    assert kinds.keys() == KINDS.keys() - {"verb with or without -s", "apostrophe left out", "of for have"}
    total = sum(weight for kind, (_, weight) in KINDS.items() if kind in kinds)
    for kind in kinds.keys() - {"words exchanged"}:  # two words a time
        assert kinds[kind] / 3000 == pytest.approx(KINDS[kind][1] / total, abs=0.025)


def test_a_share_of_the_sentences_stays_as_it_is():
    corruptor = Corruptor(CorruptionOptions(clean=0.4))
    same = [corruptor.corrupt(SENTENCES[0], seed).text == SENTENCES[0] for seed in range(1000)]
    assert sum(same) / 1000 == pytest.approx(0.4, abs=0.05)


def test_slips_of_the_finger():
    chance = random.Random(0)
    assert slip("house", 2, "letter dropped", chance) == "hose"
    assert slip("house", 2, "letter doubled", chance) == "houuse"
    assert slip("house", 2, "letters exchanged", chance) == "hosue"
    assert slip("house", 2, "key beside it", chance) in {"ho" + key + "se" for key in "yihj"}
    assert set(neighbours("g")) == set("fhtyvb")
    assert (set(neighbours("q")), neighbours("\u00e9")) == (set("wa"), "")
    # A slip that makes a known word is not made
    known = {"hose", "hous", "huse", "houe"}
    made = Counter()
    for seed in range(400):
        found = Corruptor(ALWAYS, known).corrupt("The house.", seed)
        made.update(text for text, tag in zip(texts_of(found.text), found.tags, strict=True) if tag == "spelling")
    assert made
    assert not set(made) & known


def test_words_spelt_by_ear():
    for word, wrong in (
        *(("receive", "recieve"), ("separate", "seperate"), ("definitely", "definately"), ("tomorrow", "tommorrow")),
        *(("necessary", "neccessary"), ("occurred", "occured"), ("believe", "beleive"), ("calendar", "calender")),
    ):
        assert wrong in heard_alike(word)
    assert heard_alike("which") == heard_alike("a") == heard_alike("") == []
    assert all(found[0] == "s" and found != "separate" for found in heard_alike("separate"))


def made(sentence, kind, known=frozenset()):
    """The words that errors of a kind put into a sentence."""
    corruptor = Corruptor(CorruptionOptions(clean=0.0, errors=0.01), known)
    found = (corruptor.corrupt(sentence, seed) for seed in range(400))
    return {text for one in found for text, of in zip(texts_of(one.text), one.kinds, strict=True) if of == kind}


def test_apostrophes_are_left_out_of_contractions_that_make_no_other_word():
    said = "I don\u2019t know, we're here, John's cat hasn't gone, it's late and she'll see."
    assert made(said, "apostrophe left out", {"shell", "were"}) == {"dont", "hasnt"}


def test_of_stands_for_have_after_would_and_its_like_alone():
    assert made("They would have gone, and I have seen that you should not have.", "of for have") == {"of"}
    assert made("They have gone to have lunch.", "of for have") == set()
    assert "have" not in made("The roof of it, of all, of course.", "word that sounds alike")


def test_both_articles_are_exchanged_as_often_whatever_the_text_has():
    many = "A dog, a cat, a bird, a fish and an owl saw a man."
    corruptor = Corruptor(CorruptionOptions(clean=0.0, errors=0.01))
    kinds = Counter(kind for seed in range(2000) for kind in corruptor.corrupt(many, seed).kinds if kind)
    assert kinds["a for an"] / kinds["an for a"] == pytest.approx(1.0, abs=0.3)


def test_what_is_right_either_way_is_left_alone():
    """`were` after `if`, initials, nouns on -s, and words that are rightly there twice."""
    never = {"be, have and do", "verb with or without -s", "a for an", "an for a"}
    for sentence in ("If he were here.", "A. Smith had had lunch.", "His works and talks show calls.", "HELLO WORLDS"):
        for seed in range(60):
            found = Corruptor(ALWAYS).corrupt(sentence, seed)
            wrong = [(t, k) for t, k in zip(texts_of(found.text), found.kinds, strict=True) if k]
            assert all(kind not in never for _, kind in wrong)


def test_tables_of_words_are_whole():
    assert set(MEANINGS) == set(TAGS) - {"keep"}
    assert {tag for tag, _ in KINDS.values()} == set(TAGS) - {"keep"}
    assert all(word == word.lower() for group in CONFUSED for word in group)
    assert set(alternatives("There", "confused")) == {"their", "they're"}
    assert set(alternatives("wear", "confused")) == {"where"}
    assert alternatives("DON\u2019T", "agreement") == ("doesn't",)
    assert (alternatives("an", "article"), alternatives("the", "article")) == (("a",), ())
    assert all(VERB_FORMS[other] == verb for verb, other in VERB_FORMS.items())
    assert [with_s(verb) for verb in ("go", "carry", "say", "reach", "take")] == [
        *("goes", "carries", "says", "reaches", "takes")
    ]
    assert [like("their", model) for model in ("There", "THERE", "there", "A")] == ["Their", "THEIR", "their", "Their"]


@pytest.mark.parametrize("bad", [{"clean": 1.0}, {"clean": -0.1}, {"errors": 0.0}, {"errors": 0.6}])
def test_bad_options_are_refused(bad):
    with pytest.raises(OptionError, match="expected"):
        CorruptionOptions(**bad)
