"""Intervals against published examples, against each other, and at their edges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from squeezebert.data.statistics import (
    correlation_interval,
    mean_interval,
    paired_correlation_interval,
    paired_interval,
    pearson,
    rows_to_decide,
    tango_interval,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17:857-872, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_repeats_newcombe_table(successes, n, low, high):
    found = wilson_interval(successes, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_tango_repeats_the_airway_example():
    # Bentur et al. 2009 as evaluated by Fagerland, Lydersen and Laake 2014: 1, 1, 7, 12 of 21
    found = tango_interval(1, 7, 21)
    assert (found.estimate, found.low, found.high) == pytest.approx((-0.286, -0.517, -0.026), abs=5e-4)


@pytest.mark.parametrize(("b", "c", "n"), [(1, 7, 21), (40, 20, 160), (12, 2, 50), (0, 3, 400), (5, 5, 30)])
def test_tango_limits_solve_the_closed_form(b, c, n):
    """Yang, Sun and Hardin 2012 (Statistics in Medicine) give the limits as roots of this quartic."""
    g, found = norm.ppf(0.975) ** 2, tango_interval(b, c, n)
    d = b - c
    quartic = [
        n**2 * (n / g + 1) ** 2,
        -n * d * (n / g + 1) * (4 * n / g + 1),
        2 * n * d**2 * (3 * n / g + 2) / g - n**2 * ((b + c) / g + 1),
        n * d * (2 * (b + c) / g + 1) - d**3 * (4 * n / g + 1) / g,
        d**2 * (d**2 / g - (b + c)) / g,
    ]
    for limit in (found.low, found.high):
        assert np.polyval(np.array(quartic) / quartic[0], limit) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("b", "c"), [(9, 2), (8, 3), (10, 2), (15, 5), (15, 6), (30, 17)])
def test_tango_excludes_zero_exactly_when_mcnemar_rejects(b, c):
    found = tango_interval(b, c, 200)
    assert (found.low > 0) == ((b - c) ** 2 / (b + c) > norm.ppf(0.975) ** 2)


def test_tango_is_antisymmetric_and_keeps_its_width_without_disagreement():
    one, other = tango_interval(7, 1, 90), tango_interval(1, 7, 90)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    none = tango_interval(0, 0, 100)
    bound = norm.ppf(0.975) ** 2 / (100 + norm.ppf(0.975) ** 2)
    assert (none.low, none.high) == pytest.approx((-bound, bound))


@pytest.mark.parametrize(("b", "c", "n"), [(5, 0, 5), (0, 5, 5), (0, 0, 1), (1, 0, 1), (3, 3, 6)])
def test_tango_stays_inside_its_range(b, c, n):
    found = tango_interval(b, c, n)
    assert -1 <= found.low <= found.estimate <= found.high <= 1


def test_tango_covers_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    first_only, second_only, n = 0.03, 0.01, 300
    counts = random.multinomial(n, [first_only, second_only, 1 - first_only - second_only], size=400)
    covered = [
        tango_interval(int(b), int(c), n).low <= first_only - second_only <= tango_interval(int(b), int(c), n).high
        for b, c, _ in counts
    ]
    assert 0.92 < np.mean(covered) < 0.985


def test_paired_scores_of_zero_and_one_are_counted():
    first, second = np.array([1, 1, 0, 1, 0, 1]), np.array([1, 0, 0, 1, 1, 0])
    assert paired_interval(first, second) == tango_interval(2, 1, 6)


def test_fractional_scores_are_resampled_in_pairs_and_repeatably():
    random = np.random.default_rng(1)
    second = random.random(200)
    first = np.clip(second + random.normal(0.02, 0.01, 200), 0, 1)
    found = paired_interval(first, second)
    assert found.low < found.estimate < found.high
    assert found.high - found.low < 0.005  # unpaired, the spread of the rows alone would be 0.08
    assert found == paired_interval(first, second)


def test_equal_fractional_scores_do_not_make_certainty():
    scores = np.full(50, 0.5)
    found = paired_interval(scores, scores)
    assert found.estimate == 0
    assert found.low < -0.05
    assert found.high > 0.05
    assert mean_interval(scores).low < 0.45


def test_correlations():
    random = np.random.default_rng(2)
    target = random.normal(size=300)
    good, bad = target + 0.2 * random.normal(size=300), target + random.normal(size=300)
    alone = correlation_interval(target, good)
    assert alone.low < np.corrcoef(target, good)[0, 1] < alone.high
    loss = paired_correlation_interval(target, good, bad)
    assert loss.low > 0.15
    assert loss.estimate == pytest.approx(pearson(target, good) - pearson(target, bad))
    assert pearson(target, target) == 1.0
    assert pearson(target, np.zeros(300)) == 0.0
    for wrong in (target[:2], np.zeros(300)):
        with pytest.raises(ValueError, match="correlation needs"):
            correlation_interval(wrong, wrong)


def test_rows_to_decide_is_where_the_interval_lets_go():
    for b, c, n in ((3, 1, 500), (0, 0, 100), (1, 0, 200)):
        found = tango_interval(b, c, n)
        needed = rows_to_decide(found, 0.02)
        assert needed is not None
        scale = needed / n
        if float(b * scale).is_integer() and float(c * scale).is_integer():
            assert tango_interval(int(b * scale), int(c * scale), needed).high < 0.02
    assert rows_to_decide(tango_interval(0, 0, 100), 0.005) == 765  # z^2 / (n + z^2) < 0.005
    assert rows_to_decide(tango_interval(0, 0, 100), 0.5) == 100  # decided already
    assert rows_to_decide(tango_interval(5, 0, 1000), 0.005) is None  # the estimate is the threshold
    fractional = mean_interval(np.random.default_rng(0).random(100))
    assert rows_to_decide(fractional, fractional.estimate) is None
    assert rows_to_decide(fractional, fractional.estimate + 0.01) > 1000


@pytest.mark.parametrize("call", [lambda: wilson_interval(3, 2), lambda: tango_interval(2, 2, 3)])
def test_impossible_counts_are_refused(call):
    with pytest.raises(ValueError, match="of"):
        call()


def test_unequal_or_missing_rows_are_refused():
    with pytest.raises(ValueError, match="2 and 1"):
        paired_interval([1, 0], [1])
    with pytest.raises(ValueError, match="one finite number"):
        mean_interval([])
    with pytest.raises(ValueError, match="one finite number"):
        mean_interval([np.nan])
