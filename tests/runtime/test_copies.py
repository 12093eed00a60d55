"""Copies among texts: what counts as exact, groups that are no chains, and what is kept between runs."""

from __future__ import annotations

import numpy as np
import pytest

from squeezebert.files.errors import OptionError
from squeezebert.runtime import copies
from squeezebert.runtime.copies import find_copies, normal_form, star_clusters
from squeezebert.runtime.pairs import CopyRule, PairScorer, exact_copies, read_rule, write_rule
from squeezebert.runtime.predictor import load
from squeezebert.runtime.ranking import VectorStore
from squeezebert.runtime.tokens import TextError
from tiny_checkpoints import texts

pytest_plugins = ["exported_folders"]


def unit(rows):
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def at_degrees(*degrees):
    """Vectors in a plane."""
    angles = np.radians(degrees)
    return unit(np.stack([np.cos(angles), np.sin(angles)], 1))


def clouds(count, size, seed=0, spread=0.05, channels=24):
    random = np.random.default_rng(seed)
    centres = unit(random.normal(size=(count, channels)))
    return unit(np.repeat(centres, size, 0) + spread * random.normal(size=(count * size, channels)))


def test_normal_forms():
    same = ["The  Boat\tleft.", "the boat left.", " THE BOAT LEFT.\n", "Ｔｈｅ boat left.", "the\u00a0boat left."]
    assert {normal_form(text) for text in same} == {"the boat left."}
    assert normal_form("STRASSE") == normal_form("straße")
    assert normal_form("the boat, left.") != "the boat left."
    assert normal_form("") == normal_form(" \n\t\u3000") == ""
    assert normal_form(normal_form("ﬁn ŉ ẞ İ")) == normal_form("ﬁn ŉ ẞ İ")
    assert exact_copies("The boat", "the  BOAT")
    assert not exact_copies("the boat", "a boat")


def test_a_chain_is_cut():
    # Each is within 11 degrees of the next, the ends are 40 degrees apart
    chain = at_degrees(0, 10, 20, 30, 40)
    threshold = float(np.cos(np.radians(11)))
    centres, similarities, left_over = star_clusters(chain, threshold)
    for place, centre in enumerate(centres):
        assert chain[place] @ chain[centre] >= threshold - 1e-6
        assert similarities[place] == pytest.approx(chain[place] @ chain[centre], abs=1e-6)
    assert centres.tolist() == [1, 1, 1, 3, 3]  # 1, 2 and 3 have two likes each: the first is a centre, and 3
    assert left_over.tolist() == []
    # The last is alike to 20 degrees only, which is nearer to 10: it is a centre that nobody joins
    centres, _, left_over = star_clusters(at_degrees(0, 10, 20, 30.5), threshold)
    assert (centres.tolist(), left_over.tolist()) == ([1, 1, 1, 3], [3])


def test_groups_are_what_they_are_made_to_be():
    vectors = clouds(40, 5)
    random = np.random.default_rng(1)
    order = random.permutation(len(vectors))
    centres, similarities, left_over = star_clusters(vectors[order], 0.8)
    assert len(left_over) == 0
    of = order // 5
    for cloud in range(40):
        assert len(set(centres[of == cloud].tolist())) == 1
    assert len(set(centres.tolist())) == 40
    assert (similarities[centres == np.arange(len(order))] == 1).all()
    assert similarities.min() >= 0.8


@pytest.mark.parametrize("block", [1, 7, 64, 1024])
def test_blocks_do_not_matter(block, monkeypatch):
    vectors = clouds(20, 7, seed=3, spread=0.12)
    alike = (vectors @ vectors.T >= 0.7).sum(1) - 1
    monkeypatch.setattr(copies, "_BLOCK", block)
    told = []
    found = copies._count_alike(copies.import_faiss(), vectors, 0.7, lambda done, of: told.append((done, of)))
    np.testing.assert_array_equal(found, alike)
    assert told[-1] == (140, 140)
    centres, _, _ = star_clusters(vectors, 0.7)
    chosen = np.unique(centres[alike > 0])
    among = vectors[chosen] @ vectors[chosen].T - 2 * np.eye(len(chosen))
    assert among.max() < 0.7  # no two centres are alike
    members = np.setdiff1d(np.flatnonzero(alike), chosen)
    nearest = chosen[(vectors[members] @ vectors[chosen].T).argmax(1)]
    np.testing.assert_array_equal(centres[members], nearest)


def test_no_text_is_alike_to_itself():
    vectors = np.random.default_rng(0).normal(size=(300, 48)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for threshold in (1.0, np.nextafter(np.float32(1), np.float32(0)), 0.9999999, 0.99):
        assert not copies._count_alike(copies.import_faiss(), vectors, float(threshold), lambda done, of: None).any()
    twice = np.concatenate([vectors, vectors])
    assert (copies._count_alike(copies.import_faiss(), twice, 0.999, lambda done, of: None) == 1).all()


def test_nothing_and_one():
    centres, similarities, left_over = star_clusters(np.zeros((0, 4), np.float32), 0.9)
    assert len(centres) == len(similarities) == len(left_over) == 0
    assert star_clusters(at_degrees(3), 0.9)[0].tolist() == [0]
    assert star_clusters(at_degrees(3, 3), 1.0)[0].tolist() in ([0, 0], [0, 1])


def test_exact_copies_need_no_model_and_near_ones_do(encoder, monkeypatch):
    read: list[str] = []
    real = encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda some, batch_size=None: (read.extend(some), real(some))[1])
    some = texts(30, seed=9)
    near = f"{some[4]} the"
    rows = [*some, some[3].upper(), f"  {some[3]} ", near, "", "  ", some[4]]
    vectors = real([some[4], near])
    threshold = float(vectors[0] @ vectors[1]) - 1e-4
    found = find_copies(rows, VectorStore(encoder), threshold)
    assert len(read) == found.distinct == 31
    assert (found.texts, found.empty) == (36, 2)
    by_row = {member.row: (cluster, member) for cluster in found.clusters for member in cluster.members}
    cluster, member = by_row[30]
    assert {m.row for m in cluster.members} >= {3, 30, 31}
    assert member.exact == (cluster.centre == 3)
    assert by_row[32][0] is by_row[4][0] is by_row[35][0]
    assert not by_row[4][0].exact
    assert {33, 34}.isdisjoint(by_row)
    for cluster in found.clusters:
        centre = real([rows[cluster.centre]])[0]
        for member in cluster.members:
            assert member.similarity == pytest.approx(float(real([rows[member.row].strip()])[0] @ centre), abs=1e-4)


def test_texts_that_were_cut_are_counted(encoder):
    found = find_copies(["the boat " * 200, "the boat", "boat " * 300], VectorStore(encoder), 0.99)
    assert found.cut == 2


def test_vectors_are_kept_when_a_run_is_interrupted(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "_STEP", 8)
    some = texts(40, seed=4)
    place = tmp_path / "vectors.npz"

    def interrupt(stage, done, of):
        if done >= 24:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_copies(some, VectorStore(encoder, place), 0.9, progress=interrupt)
    store = VectorStore(encoder, place)
    assert len(store) == 24
    assert find_copies(some, store, 0.9) == find_copies(some, VectorStore(encoder), 0.9)
    assert len(VectorStore(encoder, place)) == 40


def test_what_cannot_be_searched_is_explained(encoder):
    for threshold in (1.5, -1.0, float("nan")):
        with pytest.raises(OptionError, match="expected a cosine"):
            find_copies(["a"], VectorStore(encoder), threshold)
    with pytest.raises(OptionError, match="item 1: expected a str, not int"):
        find_copies(["a", 3], VectorStore(encoder), 0.9)
    with pytest.raises(OptionError, match="threads = 0"):
        find_copies(["a"], VectorStore(encoder), 0.9, threads=0)
    with pytest.raises(TextError, match="expected several texts, not str"):
        find_copies("ab", VectorStore(encoder), 0.9)


def test_scores_are_cosines_or_what_a_model_of_pairs_gives(encoder, regression, multi, single):
    pairs = list(zip(texts(20, 1), texts(20, 2), strict=True))
    vectors = [encoder.encode(list(pair)) for pair in pairs]
    scorer = PairScorer(encoder)
    np.testing.assert_allclose(scorer.scores(pairs), [a @ b for a, b in vectors], atol=1e-5)
    assert scorer.scores([(text, text) for text in texts(50, 1)]).max() <= 1.0
    assert scorer.rule() == CopyRule(copies.DEFAULT_THRESHOLD, "cosine", None, encoder.digest)
    model = load(regression.output, 1)
    values = [answer.value for answer in model.predict(pairs)]
    assert PairScorer(model).scores(pairs).tolist() == values
    with pytest.raises(OptionError, match="say from which on texts are copies"):
        PairScorer(model).rule()
    with pytest.raises(OptionError, match="gives any number of labels"):
        PairScorer(load(multi.output, 1))
    with pytest.raises(OptionError, match="reads single texts"):
        PairScorer(load(single.output, 1))


def test_rules_come_back_as_they_were_written(tmp_path):
    place = tmp_path / "rule.yaml"
    rule = CopyRule(0.75, "probability", "sí", "abc", {"rows": 3})
    write_rule(place, rule)
    assert read_rule(place) == rule
    place.write_text("threshold: 0.5\n")
    assert read_rule(place) == CopyRule(0.5)
    for bad, said in (
        ("", "a rule has a line"),
        ("threshold: high", "expected a number"),
        ("threshold: .nan", "expected a number"),
        ("threshold: 0.5\nmeasure: metres", "expected cosine, probability or value"),
        ("threshold: 0.5\nlabels: 3", "labels is none of threshold"),
        ("threshold: 0.5\nformat: 9", "update squeezebert"),
        ("threshold: 0.5\nmodel: 4", "expected a checksum"),
        ("a: [", "cannot be read as a rule"),
    ):
        place.write_text(bad)
        with pytest.raises(OptionError, match=said):
            read_rule(place)
    place.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OptionError, match="cannot be read as a rule"):
        read_rule(place)
