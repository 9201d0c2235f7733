"""Intervals and tests by hand, against scipy, and by how often they hold what they should."""

import math

import numpy as np
import pytest
import scipy.stats

from pix2next.evaluate import uncertainty
from pix2next.evaluate.distributions import frechet_distance
from pix2next.evaluate.uncertainty import UNKNOWN, Interval, bootstrap_interval, paired_difference, set_interval


def skewed(count: int, seed: int = 0) -> list[float]:
    return np.random.default_rng(seed).gamma(2, 1, count).tolist()


def test_interval_agrees_with_scipy():
    values = skewed(40)
    expected = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="BCa", rng=np.random.default_rng(5)
    ).confidence_interval
    width = expected.high - expected.low
    assert bootstrap_interval(values) == pytest.approx((expected.low, expected.high), abs=0.03 * width)


def test_interval_holds_the_mean_as_often_as_it_says():
    """90 % intervals of 40 values each: 200 draws, whose share has a standard deviation of 2.1 %."""
    held = [interval.low <= 2 <= interval.high for interval in (
        bootstrap_interval(skewed(40, seed), level=0.9, resamples=1000) for seed in range(200)
    )]  # fmt: skip
    assert np.mean(held) == pytest.approx(0.9, abs=0.06)


def test_interval_narrows_with_the_level_and_the_number():
    values = skewed(40)
    wide, narrow = bootstrap_interval(values), bootstrap_interval(values, level=0.5)
    assert wide.low < narrow.low < np.mean(values) < narrow.high < wide.high
    many = bootstrap_interval(values * 9)
    assert (many.high - many.low) * 3 == pytest.approx(wide.high - wide.low, rel=0.1)


def test_order_and_run_do_not_matter():
    a, b = skewed(30), skewed(30, 1)
    order = np.random.default_rng(3).permutation(30)
    c, d = (np.array(values)[order].tolist() for values in (a, b))
    assert bootstrap_interval(c) == bootstrap_interval(a) == bootstrap_interval(a)
    assert paired_difference(c, d) == paired_difference(a, b)


def test_memory_is_bounded_without_changing_the_kind_of_answer(monkeypatch):
    values = skewed(50)
    whole = bootstrap_interval(values)
    monkeypatch.setattr(uncertainty, "_CHUNK", 120)
    assert bootstrap_interval(values) == pytest.approx(whole)
    assert paired_difference(values, skewed(50, 1)).p_value == pytest.approx(1, abs=1)


def test_equal_values_have_no_width():
    assert bootstrap_interval([3.0, 3.0, 3.0]) == Interval(3, 3)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, None], [1.0, math.inf], [math.nan, 1.0, 2.0]])
def test_no_mean_or_no_spread_no_interval(values):
    assert np.isnan(bootstrap_interval(values)).all()
    test = paired_difference(values, [0.0] * len(values))
    assert math.isnan(test.difference)
    assert np.isnan(test.interval).all()
    assert math.isnan(test.p_value)


def test_sign_flips_by_hand():
    """Of the 8 patterns of signs of 1, 2, 3 only +++ and --- reach a mean of 2."""
    test = paired_difference([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert test.difference == 2
    assert test.p_value == 2 / 8


def test_sign_flips_agree_with_scipy():
    noise = np.random.default_rng(0)
    a = noise.normal(size=10)
    b = a - 0.4 + noise.normal(size=10) * 0.8
    expected = scipy.stats.permutation_test(
        (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", vectorized=True
    )
    test = paired_difference(a.tolist(), b.tolist())
    assert test.p_value == pytest.approx(expected.pvalue)
    assert test.difference == pytest.approx(expected.statistic)


def test_drawn_signs_approach_the_exact_answer(monkeypatch):
    noise = np.random.default_rng(4)
    a, b = noise.normal(0.5, 1, 12).tolist(), [0.0] * 12
    exact = paired_difference(a, b).p_value
    monkeypatch.setattr(uncertainty, "EXACT_UP_TO", 0)
    assert paired_difference(a, b).p_value == pytest.approx(exact, abs=0.01)
    assert paired_difference([1.0] * 100, [0.0] * 100).p_value == 1 / 10_000  # never 0


def test_exchanging_the_methods_changes_the_sign():
    a, b = skewed(30), skewed(30, 1)
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert one.difference == pytest.approx(-other.difference)
    assert one.p_value == other.p_value
    width = one.interval.high - one.interval.low
    assert one.interval.low == pytest.approx(-other.interval.high, abs=0.05 * width)


def test_p_values_are_even_where_the_methods_are_alike():
    a, b = np.random.default_rng(8).normal(size=(2, 300, 8)).tolist()
    p = [paired_difference(x, y, resamples=100).p_value for x, y in zip(a, b, strict=True)]
    assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=0.05)


def test_different_lengths_are_refused():
    with pytest.raises(ValueError, match="the same pictures; got 2 values and 1"):
        paired_difference([1.0, 2.0], [1.0])


def test_interval_of_a_set_is_that_of_a_mean_for_a_mean():
    """Delete-one of a mean is its standard error, with Student's factor."""
    values = np.array(skewed(20))
    interval = set_interval(lambda chosen: float(values[chosen].mean()), 20)
    reach = scipy.stats.t.ppf(0.975, 19) * scipy.stats.sem(values)
    assert interval == pytest.approx((values.mean() - reach, values.mean() + reach), rel=1e-3)


@pytest.mark.parametrize("freedom", [3, 7, 19])
def test_students_quantile_agrees_with_scipy(freedom):
    assert uncertainty._student(0.975, freedom) == pytest.approx(scipy.stats.t.ppf(0.975, freedom), rel=0.01)


def test_interval_of_a_set_holds_the_expected_value():
    """Where a bootstrap with doubles lies beside the value: a Fréchet distance of few pictures."""
    noise = np.random.default_rng(0)

    def draw() -> tuple[float, Interval]:
        nir = noise.normal(size=(40, 32))
        fake = nir + noise.normal(size=(40, 32)) * 0.3
        return frechet_distance(fake, nir), set_interval(lambda i: frechet_distance(fake[i], nir[i]), 40)

    values, intervals = zip(*(draw() for _ in range(40)), strict=True)
    expected = np.mean(values)
    assert np.mean([low <= expected <= high for low, high in intervals]) > 0.85
    assert all(low < value < high for value, (low, high) in zip(values, intervals, strict=True))


def test_interval_of_a_tiny_set():
    assert np.isnan(set_interval(lambda chosen: 1.0, 3)).all()
    assert set_interval(lambda chosen: 1.0, 4) == Interval(1, 1)
    assert np.isnan(UNKNOWN).all()
