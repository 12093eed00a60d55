"""Thresholds chosen on rows: which one of those that reach what was asked for, and whether others keep the promise."""

from __future__ import annotations

import numpy as np
import pytest

from squeezebert.data.statistics import wilson_interval
from squeezebert.runtime.thresholds import complete_threshold, fewest, lowest_share, precise_threshold
from squeezebert.workflows.moderate import as_posts, choose_rule


def rows(random, count, share, apart):
    present = random.random(count) < share
    return 1 / (1 + np.exp(-(random.normal(size=count) + apart * present))), present


def test_it_is_the_one_that_finds_most():
    random = np.random.default_rng(1)
    scores, present = rows(random, 2000, 0.2, 2.5)
    for certainty in (0.5, 0.95):
        chosen = precise_threshold(scores, present, 0.9, certainty=certainty)
        # Every threshold by hand
        able = {}
        for threshold in scores:
            held = scores >= threshold
            right = int((held & present).sum())
            if lowest_share(np.array(right), np.array(held.sum()), certainty) >= 0.9:
                able[float(threshold)] = right
        assert (scores[present] >= chosen).sum() == max(able.values())
        best = max(threshold for threshold, right in able.items() if right == max(able.values()))
        assert scores[scores < best].max() < chosen < best
    assert precise_threshold(scores, present, 0.9, certainty=0.5) < precise_threshold(scores, present, 0.9)
    review = complete_threshold(scores, present, 0.97, certainty=0.5)
    assert (scores[present] >= review).mean() >= 0.97
    assert (scores[present] > np.sort(scores[present & (scores > review)])[0]).mean() < 0.97


def test_errors_that_are_allowed_are_not_spent_for_nothing():
    present = np.arange(300) < 100
    scores = np.where(present, 0.9, np.linspace(0, 0.1, 300))
    rule, reached = choose_rule(scores, present, 0.9, 0.9)
    highest = scores[~present].max()
    assert rule.block == rule.review == pytest.approx((0.9 + highest) / 2)
    assert reached["block"]["harmless"] == 0
    assert reached["block"]["precision"][0] == reached["block"]["recall"][0] == 1


def test_too_few_rows_promise_nothing():
    assert fewest(0.95, 0.95) == 52
    assert fewest(0.95, 0.5) == 1
    assert fewest(1.0, 0.95) is None
    for right, of in ((0, 5), (3, 7), (40, 40), (90, 100)):
        expected = wilson_interval(right, of, level=0.9).low  # both sides of it hold 95 % by themselves
        assert lowest_share(np.array(right), np.array(of), 0.95) == pytest.approx(expected, abs=1e-12)
    for count in (51, 52):
        present = np.arange(2 * count) < count
        chosen = precise_threshold(present * 0.8, present, 0.95)
        assert chosen == (0.4 if count == 52 else None)
    present = np.arange(20) < 10
    assert complete_threshold(present * 0.8, present, 0.95) == 0.4  # all ten are found


def test_equal_scores_are_on_one_side():
    scores = np.r_[np.full(40, 0.9), np.full(40, 0.6)]
    right = np.r_[np.ones(40, bool), np.arange(40) % 2 == 0]
    assert precise_threshold(scores, right, 0.9) == 0.75  # half of those at 0.6 are wrong
    for count, found in ((24, None), (25, 0.5)):  # 24 of 24 are no 90 % with 95 % certainty, 25 are
        assert precise_threshold(np.linspace(0.5, 1, count), np.ones(count, bool), 0.9, floor=0.5) == found


def test_others_keep_the_promise():
    random = np.random.default_rng(2)
    scores, present = rows(random, 200_000, 0.1, 4)
    kept, found = [], []
    for _ in range(100):
        some = rows(random, 1000, 0.1, 4)
        threshold = precise_threshold(*some, 0.9)
        if threshold is not None:
            kept.append(present[scores >= threshold].mean() >= 0.9)
        found.append((scores[present] >= complete_threshold(*some, 0.9)).mean() >= 0.9)
    assert len(kept) > 90
    assert np.mean(kept) > 0.85
    assert np.mean(found) > 0.85


def test_longer_posts_have_more_that_can_be_mistaken():
    random = np.random.default_rng(3)
    scores, present = rows(random, 4000, 0.2, 4)
    longer = as_posts(scores, present, 10)
    assert np.array_equal(as_posts(scores, present, 1), scores)
    assert (longer >= scores).all()
    threshold = np.quantile(scores[~present], 0.95)
    assert (longer[~present] > threshold).mean() == pytest.approx(1 - 0.95**10, abs=0.03)
