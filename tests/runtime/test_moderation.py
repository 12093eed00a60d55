"""Decisions about posts: thresholds, whole texts, both readings, and policies that do not fit."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from squeezebert.files.errors import OptionError
from squeezebert.runtime.moderation import Moderator, Policy, Rule, read_policy, write_policy
from squeezebert.runtime.predictor import load
from squeezebert.runtime.tokens import TextError
from tiny_checkpoints import texts

pytest_plugins = ["exported_folders"]


@pytest.fixture(scope="module")
def model(single):
    return load(single.output, threads=1, precision="fp32")


def highest(model, text, label):
    return model.predict(text).probabilities[label]


def test_the_gravest_rule_that_applies_decides(model):
    text = texts(1, seed=4)[0]
    found = model.predict(text).probabilities
    first, second = sorted(found, key=lambda label: -found[label])[:2]
    cases = {
        "allow": {first: Rule(found[first] + 0.01, None), second: Rule(None, found[second] + 0.01)},
        "review": {first: Rule(found[first] - 0.01, found[first] + 0.01), second: Rule(None, 1.0)},
        "block": {first: Rule(found[first] - 0.01, None), second: Rule(0.0, found[second] - 0.001)},
    }
    for outcome, rules in cases.items():
        decision = Moderator(model, Policy(rules, disguises=False)).decide(text)
        assert decision.outcome == outcome
        assert decision.probabilities == pytest.approx(found)
        assert (decision.reasons == ()) == (outcome == "allow")
    assert [reason.label for reason in decision.reasons] == [second, first]  # block before review
    assert decision.reasons[0].threshold == pytest.approx(found[second] - 0.001)
    told = json.loads(json.dumps(decision.to_dict()))
    assert told["reasons"][0]["outcome"] == "block"
    assert "text" not in told


def test_a_threshold_is_reached_by_its_own_value(model):
    text = texts(1, seed=4)[0]
    label, probability = next(iter(model.predict(text).probabilities.items()))
    decide = Moderator(model, Policy({label: Rule(None, probability)}, disguises=False)).decide
    assert decide(text).outcome == "block"


def test_the_end_of_a_long_post_counts(model):
    """What is bad stands behind everything that one window reads."""
    candidates = texts(200, seed=9)
    label = model.labels[0]
    scores = [highest(model, text, label) for text in candidates]
    harmless, bad = candidates[int(np.argmin(scores))], candidates[int(np.argmax(scores))]
    post = " ".join([harmless] * 30 + [bad])
    assert model.predict(post).truncated
    moderator = Moderator(model, Policy({label: Rule(None, 0.5)}, disguises=False))
    decision = moderator.decide(post)
    windows = model.predict_windows(post)
    assert decision.windows == len(windows) > 5
    assert decision.probabilities[label] == max(answer.probabilities[label] for _, _, answer in windows)
    assert windows[0][0] == 0
    assert windows[-1][1] == len(post)
    assert all(later[0] < earlier[1] for earlier, later in itertools.pairwise(windows))  # they overlap
    reason = max(windows, key=lambda window: window[2].probabilities[label])
    found = moderator.read(post)[0][label]
    assert (found.start, found.start + len(found.words)) == reason[:2]
    assert found.words == post[slice(*reason[:2])]


def diluted(model, label):
    """A sentence, and a post around it of which no window says of it what is said of it alone."""
    candidates = [f"{text}." for text in texts(200, seed=9) if len(text.split()) < 8]
    candidates.sort(key=lambda text: highest(model, text, label))
    harmless, bad = candidates[:10], candidates[-1]
    post = " ".join([*harmless, bad, *reversed(harmless)])
    whole = max(answer.probabilities[label] for _, _, answer in model.predict_windows(post))
    assert whole < highest(model, bad, label) - 0.1
    return bad, post


def test_a_sentence_counts_as_if_it_stood_alone(model):
    label = model.labels[0]
    bad, post = diluted(model, label)
    alone = highest(model, bad, label)
    moderator = Moderator(model, Policy({label: Rule(None, alone - 1e-3)}))
    for one in (post, post.replace(". ", ".\n"), f"{post}\n\n{post}"):
        decision = moderator.decide(one)
        assert decision.outcome == "block"
        assert decision.probabilities[label] == pytest.approx(alone, abs=1e-4)
        reason = decision.reasons[0]
        assert (one[reason.start : reason.end], reason.reading) == (bad, "as written")
    # What nothing but a line's end parts from the rest
    lines = post.replace(". ", "\n").removesuffix(".")
    assert moderator.read(lines)[0][label][0] >= highest(model, bad.removesuffix("."), label) - 1e-4
    # Each sentence is read once, however often it is there
    assert moderator.decide(post).windows == len(model.predict_windows(post)) + 11
    off = Moderator(model, Policy(moderator.policy.labels, sentences=False))
    assert off.decide(post).outcome == "allow"
    assert off.decide(post).windows == len(model.predict_windows(post))


def test_a_disguised_sentence_counts_as_if_it_stood_alone(model):
    label = model.labels[0]
    bad, post = diluted(model, label)
    hidden = bad.replace("e", "\u0435")  # Cyrillic
    moderator = Moderator(model, Policy({label: Rule(None, 1.0)}))
    found, _, _, reading = moderator.read(post.replace(bad, hidden))[0][label]
    assert found >= highest(model, bad, label) - 1e-4
    assert reading == "undisguised" or highest(model, hidden, label) > highest(model, bad, label)


def test_a_sentence_that_is_longer_than_a_window_is_read_to_its_end(model):
    long = " ".join(texts(10, seed=5)) + "."
    assert model.predict(long).truncated
    label = model.labels[1]
    highest_of = Moderator(model, Policy({})).read
    found = highest_of(f"It was late. {long}")[0][label][0]
    assert found >= max(answer.probabilities[label] for _, _, answer in model.predict_windows(long)) - 1e-6


def test_a_post_of_one_sentence_is_read_once(model):
    for text in ("The quiet boat.", " the boat on the river\n", "", "."):
        assert Moderator(model, Policy({})).decide(text).windows == 1


def test_a_word_that_is_too_long_for_the_vocabulary_is_read_in_pieces(model):
    words = ["boat" * 30, "garden" * 20]
    unread = [model.predict(word).probabilities for word in words]
    assert unread[0] == unread[1]  # one unknown token each
    label = model.labels[0]
    for word in words:
        pieces = model.predict_windows(f"{word[:100]} {word[100:]}")
        expected = max(unread[0][label], *(answer.probabilities[label] for _, _, answer in pieces))
        decision = Moderator(model, Policy({label: Rule(None, 1.0)})).decide(word)
        assert decision.probabilities[label] == pytest.approx(expected, abs=1e-5)
        assert decision.windows == 1 + len(pieces)


def test_a_text_that_fits_is_one_window_and_answered_as_ever(model):
    for text in [*texts(5, seed=1), ""]:
        ((start, end, answer),) = model.predict_windows(text)
        assert (start, end) == (0, len(text))
        assert answer == model.predict(text)


def test_windows_lose_no_token(model):
    text = " ".join(texts(20, seed=2))
    windows = model.tokenizer.windows(text, 7)
    specials = model.tokenizer.single.specials
    pieces = [tokens.ids[1 : len(tokens.ids) - specials + 1] for tokens, _, _ in windows]
    joined = pieces[0] + [token for piece in pieces[1:] for token in piece[7:]]
    assert joined == model.tokenizer.plain_ids(text)
    assert max(len(tokens.ids) for tokens, _, _ in windows) == model.tokenizer.max_length
    with pytest.raises(OptionError, match="overlap = 99"):
        model.predict_windows(text, 99)


def test_a_disguise_does_not_hide_and_undoing_does_not_excuse(model):
    text = "the quiet boat on the river"
    disguised = "the q\u200bu\u200bi\u200be\u200bt b o a t on the rivеr"
    label = max(model.labels, key=lambda name: highest(model, text, name))
    moderator = Moderator(model, Policy({label: Rule(None, highest(model, text, label) - 1e-6)}))
    decision = moderator.decide(disguised)
    assert decision.outcome == "block"
    assert decision.windows == 2
    assert decision.probabilities[label] == max(highest(model, text, label), highest(model, disguised, label))
    plain = Moderator(model, Policy(moderator.policy.labels, disguises=False)).decide(disguised)
    assert plain.probabilities[label] == pytest.approx(highest(model, disguised, label))
    assert moderator.decide(text).reasons[0].reading == "as written"


def test_a_post_that_is_too_long_goes_to_review_unread(model):
    moderator = Moderator(model, Policy({model.labels[0]: Rule(None, 1.0)}, longest=50))
    decision = moderator.decide("a" * 51)
    assert (decision.outcome, decision.windows, decision.probabilities) == ("review", 0, {})
    assert decision.reasons[0].label is None
    assert moderator.decide("a" * 50).outcome == "allow"
    # One character that stands for eighteen
    decision = moderator.decide("\ufdfa" * 10)
    assert (decision.outcome, decision.windows) == ("review", 0)
    assert (decision.reasons[0].reading, decision.reasons[0].end) == ("undisguised", 180)
    assert moderator.decide("\ufdfa" * 2).outcome == "allow"


@pytest.mark.parametrize(
    "text", ["", "\x00", "\ud800", "🙂" * 40, "مرحبا " * 50, "\u202e", "a" * 20_000, "\x1b[2J\x07"]
)
def test_odd_posts_are_decided(model, text):
    decision = Moderator(model, Policy({model.labels[0]: Rule(0.0, None)})).decide(text)
    assert decision.outcome == "review"


def test_what_is_no_post_is_named(model):
    moderator = Moderator(model, Policy({}))
    for wrong in (None, 3, ["a"], b"a"):
        with pytest.raises(TextError, match="expected a str"):
            moderator.decide(wrong)


def test_models_and_policies_that_do_not_fit_are_refused(model, multi, regression):
    with pytest.raises(OptionError, match="this is of a number"):
        Moderator(load(regression.output), Policy({}))
    with pytest.raises(OptionError, match="this is of pairs of texts"):
        Moderator(load(multi.output), Policy({}))
    with pytest.raises(OptionError, match="rules for rude, and the model knows calm, busy, other"):
        Moderator(model, Policy({"rude": Rule(0.5)}))
    with pytest.raises(OptionError, match="chosen for another model file"):
        Moderator(model, Policy({}, model="0" * 64))
    Moderator(model, Policy({}, model=model.digest))
    other = load(model.folder, precision="int8")
    with pytest.raises(OptionError, match="another model file"):
        Moderator(other, Policy({}, model=model.digest))


def test_a_policy_is_read_as_it_was_written(tmp_path):
    policy = Policy({"rude": Rule(0.25, 0.75), "spam": Rule(None, 0.5)}, False, 500, "ab", {"rows": 3})
    write_policy(tmp_path / "p.yaml", policy)
    assert read_policy(tmp_path / "p.yaml") == policy
    assert read_policy(tmp_path / "p.yaml").digest == policy.digest
    assert Policy(policy.labels, False, 500, "ab").digest == policy.digest
    assert Policy(policy.labels, True, 500, "ab").digest != policy.digest
    alone = Policy(policy.labels, sentences=False)
    write_policy(tmp_path / "p.yaml", alone)
    assert read_policy(tmp_path / "p.yaml") == alone
    assert alone.digest != Policy(policy.labels).digest
    assert [path.name for path in tmp_path.iterdir()] == ["p.yaml"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has `labels:`"),
        ("labels: [a]", "has `labels:`"),
        ("labels: {}", "has `labels:`"),
        ("labels: {a: 0.5}", "a: 0.5: expected thresholds"),
        ("labels: {a: {}}", "expected thresholds"),
        ("labels: {a: {blok: 0.5}}", "expected thresholds"),
        ("labels: {a: {block: 1.5}}", "a: block: 1.5: expected a probability"),
        ("labels: {a: {block: true}}", "expected a probability"),
        ("labels: {a: {review: 0.9, block: 0.5}}", "review 0.9 lies above block 0.5"),
        ("labels: {a: {block: 0.5}}\nlongest: 0", "longest: 0: expected a whole number"),
        ("labels: {a: {block: 0.5}}\ndisguises: 1", "disguises: 1: expected true or false"),
        ("labels: {a: {block: 0.5}}\nsentences: no way", "sentences: 'no way': expected true or false"),
        ("labels: {a: {block: 0.5}, a: {review: 0.1}}", "a is there twice"),
        ("labels: {a: {block: 0.5}}\nmodle: ab", "modle is none of labels"),
        ("labels: {a: {block: 0.5}}\nformat: 2", "update squeezebert"),
        ("labels: {a: [", "cannot be read as a policy"),
    ],
)
def test_a_policy_that_is_none_is_explained(text, words, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(OptionError) as caught:
        read_policy(path)
    assert str(caught.value).startswith(str(path))
    assert words in str(caught.value)


def test_a_policy_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OptionError, match="cannot be read"):
        read_policy(tmp_path / "nowhere.yaml")
