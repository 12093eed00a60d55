"""Ranking by taste, vectors that are kept, and the sentences that say most."""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from squeezebert.files.errors import FolderError, OptionError
from squeezebert.runtime import ranking, summary
from squeezebert.runtime.folders import Folders
from squeezebert.runtime.predictor import load
from squeezebert.runtime.ranking import Ranker, VectorStore
from squeezebert.runtime.summary import first_sentences, sentence_spans, summarise
from squeezebert.runtime.tokens import TextError

pytest_plugins = ["exported_folders"]

TRAVEL, HOME = ["train", "boat", "river", "walk"], ["garden", "window", "table", "green"]


def made_up(words, count, seed):
    random = np.random.default_rng(seed)
    return [" ".join([*random.choice(words, 4), *random.choice(["the", "of", "and"], 2)]) for _ in range(count)]


@pytest.fixture
def counted(encoder, monkeypatch):
    """The encoder, and how many texts it has read."""
    read: list[str] = []
    real = encoder.encode

    def encode(texts, batch_size=None):
        read.extend(texts)
        return real(texts, batch_size)

    monkeypatch.setattr(encoder, "encode", encode)
    return encoder, read


def test_what_is_like_the_liked_comes_first(encoder):
    items = [*made_up(TRAVEL, 30, 1), *made_up(HOME, 30, 2)]
    ranker = Ranker(VectorStore(encoder))
    ranker.learn(made_up(TRAVEL, 4, 3), made_up(HOME, 3, 4))
    best = ranker.rank(items)
    assert np.mean([place < 30 for place, _ in best[:30]]) > 0.85
    scores = [score for _, score in best]
    assert scores == sorted(scores, reverse=True)
    np.testing.assert_allclose(ranker.scores(items)[[place for place, _ in best]], scores)
    assert ranker.rank(items, top=5) == best[:5]
    ranker.learn([], made_up(TRAVEL, 3, 5))  # only what was disliked: it comes last
    assert np.mean([place < 30 for place, _ in ranker.rank(items)[-30:]]) > 0.75


def test_a_reader_of_two_subjects_gets_both(encoder):
    desk = made_up(["letter", "paper", "read", "write"], 30, 7)
    items = [*made_up(TRAVEL, 30, 1), *made_up(HOME, 30, 2), *desk]
    ranker = Ranker(VectorStore(encoder))
    ranker.learn([*made_up(TRAVEL, 5, 3), *made_up(HOME, 2, 4)], made_up(["letter", "paper", "read"], 3, 5))
    best = [place for place, _ in ranker.rank(items, top=40)]
    assert np.mean([place < 60 for place in best]) > 0.85
    assert sum(30 <= place < 60 for place in best) >= 10


class Drawn:
    """A store whose texts have vectors that were drawn: each about a subject that it is named after."""

    def __init__(self, seed=0):
        self.random = np.random.default_rng(seed)
        self.common = self.random.normal(size=32)
        self.subjects, self.known = {}, {}

    def vectors(self, texts):
        rows = [self.known.setdefault(text, self._vector(text)) for text in texts]
        return np.array(rows, np.float32).reshape(len(rows), 32)

    def _vector(self, text):
        name = text.split()[0]
        subject = self.subjects.setdefault(name, self.random.normal(size=32))
        vector = self.common + subject + 0.8 * self.random.normal(size=32)
        return vector / np.linalg.norm(vector)


def precision(relevant, scores):
    hits = np.array(relevant)[np.argsort(-scores, kind="stable")]
    return float((hits.cumsum() / np.arange(1, len(hits) + 1))[hits].mean())


def cosines_of(store, items, liked):
    cosines = store.vectors(items).astype(float) @ store.vectors(liked).astype(float).T
    return cosines.mean(1) + cosines.max(1)


def test_scores_are_cosines_and_what_the_items_tell(encoder, monkeypatch):
    items, liked, disliked = made_up(TRAVEL, 20, 1), made_up(TRAVEL, 3, 2), made_up(HOME, 2, 3)
    by_text = dict(zip(items, np.linspace(0.05, 0.95, 20), strict=True))
    vector_of = {vector.tobytes(): by_text[item] for item, vector in zip(items, encoder.encode(items), strict=True)}
    monkeypatch.setattr(
        ranking, "_to_taste", lambda X_NC, _: (np.array([vector_of[row.tobytes()] for row in X_NC]), 0.07)
    )
    ranker = Ranker(VectorStore(encoder))
    ranker.learn(liked, disliked)
    others = 1 - np.linspace(0.05, 0.95, 20) ** 4
    raw = encoder.encode([*items, *liked, *disliked]).astype(float)
    middle = others @ raw[:20] / others.sum()
    X = raw - middle
    spread = (others[:, None] * X[:20]).T @ X[:20] / others.sum()
    # Mahalanobis' inner product: x' (S + 3 mean variance)^-1 y, as a cosine
    inverse = np.linalg.inv(spread + 3 * np.trace(spread) / X.shape[1] * np.eye(X.shape[1]))
    products = X @ inverse @ X.T
    even = products / np.sqrt(np.outer(products.diagonal(), products.diagonal()))
    parts = []
    for cosines in (raw @ raw.T, even):
        parts.append(cosines[:20, 20:23].mean(1) + cosines[:20, 20:23].max(1))
        parts[-1] -= (cosines[:20, 23:].mean(1) + cosines[:20, 23:].max(1)) / 4
    # Liked against the items and the disliked, both sides as heavy
    rows = np.concatenate([X[20:23], X[:20], X[23:]])
    weights = np.r_[[0.5 / 3] * 3, 0.5 * np.r_[others, 1, 1] / (others.sum() + 2)]
    fitted = LogisticRegression(C=3000, fit_intercept=False, tol=1e-10, max_iter=5000)
    fitted.fit(np.concatenate([rows, np.ones((25, 1))], axis=1), [1] * 3 + [0] * 22, sample_weight=weights)
    parts.append(X[:20] @ fitted.coef_[0, :-1])
    near, even, told = ((one - one.mean()) / one.std() for one in parts)
    trust = 2 * (1 - 1 / 3) * others.sum() / (others.sum() + 50) / 2
    np.testing.assert_allclose(ranker.scores(items), near + trust * (even + told), atol=0.02)
    assert ranker.rank([items[0]])[0][0] == 0
    assert len({score for _, score in ranker.rank([items[0]] * 5)}) == 1


def test_neither_the_order_nor_repetition_of_items_and_examples_changes_a_score(encoder):
    items, liked, disliked = made_up(TRAVEL, 20, 1), made_up(TRAVEL, 3, 2), made_up(HOME, 2, 3)
    ranker = Ranker(VectorStore(encoder))
    ranker.learn(liked, disliked)
    scores = ranker.scores(items)
    order = np.random.default_rng(0).permutation(20)
    assert (ranker.scores([items[i] for i in order]) == scores[order]).all()
    assert (ranker.scores([*items, *items[:2] * 30]) == np.r_[scores, np.tile(scores[:2], 30)]).all()
    ranker.learn([*liked[::-1], *liked[:1] * 5], disliked * 2)
    assert (ranker.scores(items) == scores).all()


def test_few_items_are_ranked_by_how_like_the_liked_they_are():
    store = Drawn()
    ranker = Ranker(store)
    ranker.learn(["cats are liked"])
    items = ["cats are nice", "stocks fell", "cats are nice", "elections are over", "goals were late"]
    assert {place for place, _ in ranker.rank(items)[:2]} == {0, 2}
    ranker.learn([], ["cats are liked"])
    assert {place for place, _ in ranker.rank(items)[-2:]} == {0, 2}


@pytest.mark.parametrize(("size", "share"), [(10, 0.5), (50, 0.5), (50, 0.8), (200, 0.5), (600, 0.3)])
def test_a_feed_that_is_largely_to_the_readers_taste_is_ranked_as_well_as_by_cosines(size, share):
    ours, cosines = [], []
    for seed in range(20):
        store = Drawn(seed)
        liked = [f"cats {i}" for i in range(5)]
        relevant = np.arange(size) < size * share
        items = [f"cats or {i}" if fits else f"{i % 40} or {i}" for i, fits in enumerate(relevant)]
        ranker = Ranker(store)
        ranker.learn(liked)
        ours.append(precision(relevant, ranker.scores(items)))
        cosines.append(precision(relevant, cosines_of(store, items, liked)))
    assert np.mean(ours) > np.mean(cosines) - 0.005


def test_a_large_feed_tells_more_than_cosines_do():
    ours, cosines = [], []
    for seed in range(10):
        store = Drawn(seed)
        liked = [f"{name} {i}" for name in ("cats", "tea", "boats") for i in range(3)]
        names = ["cats", "tea", "boats", *(str(i) for i in range(77))]
        items = [f"{name} or {i}" for i in range(10) for name in names]
        ranker = Ranker(store)
        ranker.learn(liked)
        relevant = [not item[0].isdigit() for item in items]
        ours.append(precision(relevant, ranker.scores(items)))
        cosines.append(precision(relevant, cosines_of(store, items, liked)))
    assert np.mean(ours) > np.mean(cosines) + 0.02


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_the_share_to_a_readers_taste_is_told_from_how_near_the_liked_are_to_each_other(share):
    store = Drawn(1)
    fits = np.arange(400) < 400 * share
    items = store.vectors([f"cats or {i}" if fit else f"{i % 40} or {i}" for i, fit in enumerate(fits)])
    ours, found = ranking._to_taste(items, store.vectors([f"cats {i}" for i in range(9)]))
    assert found == pytest.approx(share, abs=0.12)
    assert ours[fits].mean() > ours[~fits].mean() + 0.3


def test_nothing_is_known_of_a_new_reader(encoder):
    ranker = Ranker(VectorStore(encoder))
    assert ranker.rank(["a boat", "a table", "a boat"]) == [(0, 0.0), (1, 0.0), (2, 0.0)]
    assert ranker.rank([]) == []
    for call, words in (
        (lambda: ranker.learn([], []), "nothing liked and nothing disliked"),
        (lambda: ranker.rank(["a"], top=0), "top = 0"),
        (lambda: ranker.rank(["a"], top=1.5), "top = 1.5: give a whole number"),
        (lambda: ranker.scores(["a", 3]), "item 1: expected a str, not int"),
    ):
        with pytest.raises(OptionError, match=words):
            call()
    for alone in (
        lambda: ranker.learn("ab", []),
        lambda: ranker.learn([], "ab"),
        lambda: ranker.rank("ab"),
        lambda: ranker.store.vectors("ab"),
    ):
        with pytest.raises(TextError, match="expected several texts, not str"):
            alone()


def test_no_text_is_read_twice(counted, tmp_path):
    encoder, read = counted
    store = VectorStore(encoder, tmp_path / "v.npz")
    items = made_up(TRAVEL, 10, 1)
    first = store.vectors([*items, items[0]])
    assert len(read) == len(store) == len(set(items))
    np.testing.assert_array_equal(first[0], first[-1])
    store.vectors(items)
    assert len(read) == len(set(items))
    store.save()
    again = VectorStore(encoder, tmp_path / "v.npz")
    np.testing.assert_array_equal(again.vectors(items), first[:-1])
    assert len(read) == len(set(items))
    again.forget(items[:1])
    again.vectors(items)
    assert len(read) == len(set(items)) + 1
    assert [path.name for path in tmp_path.iterdir()] == ["v.npz"]


def test_a_store_stays_private_and_behind_its_link(encoder, tmp_path):
    real, link = tmp_path / "real.npz", tmp_path / "link.npz"
    VectorStore(encoder, real).save()
    real.chmod(0o600)
    link.symlink_to(real)
    store = VectorStore(encoder, link)
    store.vectors(["a boat"])
    left, begun = (tmp_path / f".real.npz.0123456{i}.part" for i in range(2))
    left.touch()
    os.utime(left, (0, 0))  # by a run that was killed, and by one that may be going on
    begun.touch()
    store.save()
    assert not left.exists()
    assert begun.exists()
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o600
    assert len(VectorStore(encoder, real)) == 1


def test_any_damage_to_a_store_is_named(encoder, tmp_path):
    path = tmp_path / "v.npz"
    store = VectorStore(encoder, path)
    store.vectors(["a boat", "a table"])
    store.save()
    whole, named = path.read_bytes(), 0
    # The fields of the archive's entries: version needed, flags, method; and the head of an array
    for entry in (whole.index(b"PK\x01\x02"), whole.index(b"\x93NUMPY")):
        for offset in range(4, 90):
            damaged = bytearray(whole)
            damaged[entry + offset] ^= 0x41
            path.write_bytes(damaged)
            try:
                VectorStore(encoder, path)
            except FolderError as error:
                assert "damaged" in str(error)
                named += 1
    assert named > 50


def test_one_text_is_not_taken_for_its_characters(encoder):
    store = VectorStore(encoder)
    store.vectors(["a boat"])
    for change in (store.keep, store.forget):
        with pytest.raises(TextError):
            change("a boat")
    assert len(store) == 1


def test_a_store_that_does_not_fit_is_named(encoder, single, tmp_path):
    path = tmp_path / "v.npz"
    store = VectorStore(encoder, path)
    store.vectors(["a boat"])
    store.save()
    with pytest.raises(FolderError, match="made by another encoder"):
        VectorStore(load(encoder.folder, 1, "int8"), path)
    shorter = load(encoder.folder, 1, "fp32")
    shorter.shorten(12)
    with pytest.raises(FolderError, match="reads another length"):
        VectorStore(shorter, path)
    later = load(encoder.folder, 1, "fp32")
    store, sorter = VectorStore(later, tmp_path / "later.npz"), Folders(later)
    sorter.learn(["a boat", "a train"], ["water", "land"])
    later.shorten(12)
    for act in (lambda: store.vectors(["a boat"]), store.save, lambda: sorter.sort(["a boat"])):
        with pytest.raises(OptionError, match=r"reads another length of texts than when this (store|sorter)"):
            act()
    other = load(encoder.folder, 1, "fp32")
    other.manifest = replace(other.manifest, dimension=7)
    with pytest.raises(FolderError, match="of another length"):
        VectorStore(other, path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(FolderError, match="a damaged store of vectors"):
        VectorStore(encoder, path)
    path.write_text("text\na boat\n")
    with pytest.raises(FolderError, match="or something else"):
        VectorStore(encoder, path)
    assert path.read_text() == "text\na boat\n"
    assert sorted(tmp_path.iterdir()) == [path]
    with pytest.raises(OptionError, match="has no file"):
        VectorStore(encoder).save()
    with pytest.raises(OptionError, match="vectors need an encoder"):
        VectorStore(load(single.output, 1))


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?  Four", ["One.", "Two!", "Three?", "Four"]),
        ("Dr. Who met Mr. J. R. Smith. They left.", ["Dr. Who met Mr. J. R. Smith.", "They left."]),
        ('He said "no." Then he left.', ['He said "no."', "Then he left."]),
        ("Version 1.5 is out. It costs 3.50 now.", ["Version 1.5 is out.", "It costs 3.50 now."]),
        ("これは一。これは二！", ["これは一。", "これは二！"]),
        ("A title\n\nA first line\n- a point\n- another", ["A title", "A first line", "- a point", "- another"]),
        ("", []),
        (" \n\n ", []),
    ],
)
def test_sentences_are_found_where_they_stand(text, sentences):
    assert [text[start:end] for start, end in sentence_spans(text)] == sentences


@given(st.text(alphabet='ab. !?\n"-。'))
def test_no_character_of_a_text_is_lost(text):
    spans = sentence_spans(text)
    assert "".join(text[start:end] for start, end in spans).replace(" ", "").replace("\n", "") == "".join(text.split())
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


def test_the_sentences_that_say_most_are_chosen_without_repetition(encoder):
    about, aside = made_up(TRAVEL, 6, 1), made_up(HOME, 2, 2)
    document = ". ".join([about[0], aside[0], *about[1:4], aside[1], *about[4:], about[4]]) + "."
    chosen = summarise(encoder, document, 3)
    assert [document[s.start : s.end] for s in chosen] == [s.text for s in chosen]
    assert [s.start for s in chosen] == sorted(s.start for s in chosen)
    assert len({s.text.rstrip(".") for s in chosen}) == 3  # the one that stands there twice is taken once at most
    assert not any(s.text.rstrip(".") in aside for s in chosen)
    assert summarise(encoder, document, 100)[0].text == about[0] + "."
    assert len(summarise(encoder, document, 100)) == 9


def test_words_are_weighed_as_scikit_learn_weighs_them():
    texts = [*made_up(TRAVEL, 5, 1), *made_up(HOME, 5, 2), "The BOAT, the Boat: été 漢字", "a . b", ""]
    theirs = TfidfVectorizer(sublinear_tf=True).fit_transform(texts).toarray()
    ours = summary._Words(texts)
    np.testing.assert_allclose([ours.products(ours.row(i)) for i in range(len(texts))], theirs @ theirs.T, atol=1e-12)
    weights = np.arange(len(texts), dtype=float)
    expected = theirs @ (weights @ theirs)
    np.testing.assert_allclose(ours.products(ours.total(weights)), expected, atol=1e-12)


def test_without_an_encoder_shared_words_choose():
    document = "Boats sail on the river. Tea is served. " + " ".join(
        f"The boats of river {n} sail at night." for n in ("one", "two", "three")
    )
    document += " Nobody likes plain paper much. Tea with milk is grey stuff."
    chosen = summarise(None, document, 2)
    assert all("boats" in sentence.text.lower() for sentence in chosen)
    assert [document[s.start : s.end] for s in chosen] == [s.text for s in chosen]
    for odd in ("。。。 ...", "🙂! 👍? ok.", "\x00. \ud800! a? " * 20):
        assert len(summarise(None, odd, 2)) <= 2
    assert summarise(None, " ") == []
    long = " ".join(f"Sentence {n} of {n % 7} speaks about {n % 11} and {n % 13}." for n in range(20_000))
    began = time.perf_counter()
    assert len(summarise(None, long, 3)) == 3
    assert time.perf_counter() - began < 20


def test_what_stands_first_says_more_of_the_subject(encoder):
    half = [*made_up(TRAVEL, 5, 1), *made_up(HOME, 5, 2)]
    for order, words in ((half, TRAVEL), (half[::-1], HOME)):
        chosen = summarise(encoder, ". ".join(order) + ".", 2)
        assert all(set(sentence.text.rstrip(".").split()) & set(words) for sentence in chosen)


def test_the_first_sentences_leave_headings_out():
    document = "News\n\nThe boat was late again. It rained. Nobody waited for the train. The end."
    chosen = first_sentences(document, 2)
    assert [(s.text, s.score) for s in chosen] == [
        ("The boat was late again.", None),
        ("Nobody waited for the train.", None),
    ]
    assert [document[s.start : s.end] for s in chosen] == [s.text for s in chosen]
    assert [s.text for s in first_sentences(document, 4)] == [
        "News",
        "The boat was late again.",
        "It rained.",
        *(["Nobody waited for the train."]),
    ]
    assert first_sentences(" ", 2) == []
    with pytest.raises(OptionError, match="sentences = 0"):
        first_sentences(document, 0)


@pytest.mark.parametrize("odd", [".", "A. ", "\n ", ".)", "? ", "Dr. ", ")", "\n\n- ", "。", "a"])
def test_much_of_anything_is_split_at_once(odd):
    text = odd * (200_000 // len(odd))
    began = time.perf_counter()
    spans = sentence_spans(text)
    assert time.perf_counter() - began < 20  # a quadratic search takes minutes
    assert sum(end - start for start, end in spans) <= len(text)


def test_what_cannot_be_summarised_is_explained(encoder, single):
    assert summarise(encoder, "") == []
    assert summarise(encoder, "One word")[0].text == "One word"
    assert len(summarise(encoder, "\x00. \ud800! 🙂? " * 20, 2)) == 2
    with pytest.raises(OptionError, match="sentences = 0"):
        summarise(encoder, "a", 0)
    for wrong in (1.5, "2", True):
        with pytest.raises(OptionError, match=f"sentences = {wrong!r}: give a whole number"):
            summarise(None, "a", wrong)
    with pytest.raises(TextError, match="expected a str"):
        summarise(encoder, None)
    with pytest.raises(OptionError, match="a summary needs an encoder"):
        summarise(load(single.output, 1), "a")


def test_initials_by_the_thousand_take_no_quadratic_time():
    began = time.monotonic()
    assert sentence_spans("A. " * 300_000) == [(0, 899_999)]
    assert time.monotonic() - began < 60
    assert sentence_spans("Mr. Smith and A. Jones came. They saw e.g. nothing.") == [(0, 28), (29, 51)]
