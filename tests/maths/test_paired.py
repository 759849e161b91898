"""Paired comparisons against closed forms, scipy, and definitions written plainly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from neuronscope.errors import InputError
from neuronscope.maths.paired import (
    bca_interval,
    class_means_test,
    clustered_error,
    compare_pairs,
    legacy_interval,
    log10_qvalues,
    normal_log10_p,
    student_log10_p,
    wilcoxon_test,
)
from neuronscope.maths.resampling import bh_qvalues, by_qvalues

seeds = st.integers(0, 2**32 - 1)


def pairs(seed, n=60, q=3, effect=0.3):
    """Filtered and baseline values with an effect."""
    rng = np.random.default_rng(seed)
    baseline = rng.random((n, q))
    return baseline + effect * rng.standard_normal((n, q)) + effect / 4, baseline


@given(seeds)
def test_numbers_equal_scipy_and_numpy(seed):
    """t, d, signed ranks, percentiles, shares: comparison by comparison as the original computes them."""
    filtered, baseline = pairs(seed)
    found = compare_pairs(filtered, baseline, rng=np.random.default_rng(0), draws=10)
    for q in range(3):
        own = filtered[:, q] - baseline[:, q]
        t = stats.ttest_rel(filtered[:, q], baseline[:, q])
        assert found.student.statistic[q] == pytest.approx(t.statistic)
        assert found.student.p[q] == pytest.approx(t.pvalue)
        assert found.effect[q] == pytest.approx(own.mean() / own.std(ddof=1))
        assert found.spread[q] == pytest.approx(own.std())
        assert found.filtered_spread[q] == pytest.approx(filtered[:, q].std())
        assert found.baseline[q] == pytest.approx(baseline[:, q].mean())
        assert found.improved[q] == np.mean(own > 0)
        assert np.allclose(found.percentiles[:, q], np.percentile(own, (5, 25, 50, 75, 95)))
        ranks = stats.wilcoxon(own, method="asymptotic")
        assert found.wilcoxon.p[q] == pytest.approx(ranks.pvalue)
    assert np.isnan(found.clustered.statistic).all()


@given(seeds, st.integers(5, 80))
def test_signed_ranks_with_ties_and_zeros(seed, n):
    """Zeros are dropped and ties corrected for, as scipy does; the sign follows the differences."""
    values = np.random.default_rng(seed).integers(-3, 4, size=(n, 2)).astype(float)
    values[0] = 1.0  # one that is not 0
    found = wilcoxon_test(values)
    for q in range(2):
        expected = stats.wilcoxon(values[:, q], zero_method="wilcox", method="asymptotic")
        assert found.p[q] == pytest.approx(expected.pvalue)
    assert np.allclose(wilcoxon_test(-values).statistic, -found.statistic)


def test_nan_is_dropped_and_counted():
    """An image without a value on either side is left out of that comparison alone."""
    filtered, baseline = pairs(1)
    gaps = filtered.copy()
    gaps[3, 0] = np.nan
    gaps[:, 2] = np.nan
    lacking = baseline.copy()
    lacking[7, 0] = np.nan
    found = compare_pairs(gaps, lacking, rng=np.random.default_rng(0), draws=50)
    assert found.images.tolist() == [58, 60, 0]
    assert found.dropped.tolist() == [2, 0, 60]
    kept = np.delete(np.arange(60), [3, 7])
    alone = compare_pairs(filtered[kept, :1], baseline[kept, :1], rng=np.random.default_rng(0), draws=50)
    for name in ("difference", "effect", "low", "high", "improved_low", "baseline_spread"):
        assert getattr(found, name)[0] == pytest.approx(getattr(alone, name)[0])
    assert found.wilcoxon.statistic[0] == pytest.approx(alone.wilcoxon.statistic[0])
    for name in ("difference", "low", "effect", "improved", "improved_low"):
        assert np.isnan(getattr(found, name)[2])
    assert np.isnan(found.student.log10_p[2])
    assert np.isnan(found.wilcoxon.log10_p[2])


def test_degenerate_comparisons():
    """No change: t is nan, the interval has no width; a single image has no interval."""
    same = np.ones((4, 1))
    found = compare_pairs(same, same, rng=np.random.default_rng(0), draws=10)
    assert found.difference[0] == found.low[0] == found.high[0] == 0
    assert np.isnan(found.student.statistic[0])
    assert np.isnan(found.effect[0])
    one = compare_pairs(same[:1] + 1, same[:1], rng=np.random.default_rng(0), draws=10)
    assert one.difference[0] == 1
    assert np.isnan(one.low[0])
    assert np.isnan(one.student.statistic[0])
    moved = compare_pairs(same + 1, same, rng=np.random.default_rng(0), draws=10)
    assert moved.student.statistic[0] == np.inf
    assert moved.student.log10_p[0] == -np.inf


def test_p_values_do_not_underflow():
    """Far tails equal scipy where it reaches and a numerical integral where it does not; the original's t = 62.15."""
    t = np.array([0.0, 1.0, 5.0, 20.0, 35.0, -35.0])
    for freedom in (1.0, 5.0, 999.0, 49_999.0):
        expected = (stats.t.logsf(np.abs(t), freedom) + np.log(2)) / np.log(10)
        assert np.allclose(student_log10_p(t, np.array([freedom])), expected, rtol=1e-9, atol=1e-12)
    # 30 digits of the incomplete beta function (mpmath 1.3)
    reference = {(62.15, 49_999.0): -809.81213194073, (200.0, 49_999.0): -6384.0529655651935}
    for (statistic, freedom), expected in reference.items():
        assert student_log10_p(np.array([statistic]), np.array([freedom]))[0] == pytest.approx(expected, rel=1e-12)
    u = 62.15 * np.exp(np.linspace(0, 1, 200_001))
    density = stats.t.logpdf(u, 49_999)
    integral = density[0] + np.log(2 * np.trapezoid(np.exp(density - density[0]), u))
    assert student_log10_p(np.array([62.15]), np.array([49_999.0]))[0] == pytest.approx(integral / np.log(10), rel=1e-6)
    z = np.array([0.0, 1.96, 60.0])
    assert np.allclose(normal_log10_p(z), (stats.norm.logsf(z) + np.log(2)) / np.log(10))
    assert np.allclose(student_log10_p(z, np.array([np.inf])), normal_log10_p(z))


@given(st.floats(1.0, 300.0), st.floats(1.0, 1e6))
def test_log_p_falls_with_t(t, freedom):
    """A larger t has a smaller p, also where the two ways of computing it meet."""
    grid = t * np.linspace(1, 1.5, 20)
    assert (np.diff(student_log10_p(grid, np.array([freedom]))) < 0).all()


def plain_clustered_error(values, labels):
    """The sandwich, class by class."""
    n, mean, meat = len(values), values.mean(), 0.0
    names = sorted(set(labels.tolist()))
    for name in names:
        meat += sum(values[i] - mean for i in range(n) if labels[i] == name) ** 2
    return np.sqrt(len(names) / (len(names) - 1) * meat) / n


@given(seeds, st.integers(2, 6))
def test_clustered_errors(seed, classes):
    """The sandwich equals its definition, with equal classes the class means' error, with single ones s/sqrt(n)."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((classes * 4, 2)) + rng.standard_normal((classes, 2)).repeat(4, axis=0)
    labels = rng.integers(0, classes, len(values))
    labels[:2] = (0, 1)
    found, error = clustered_error(values, labels)
    assert (found == len(set(labels.tolist()))).all()
    assert error[1] == pytest.approx(plain_clustered_error(values[:, 1], labels))
    balanced = np.arange(classes).repeat(4)
    means = values.reshape(classes, 4, 2).mean(axis=1)
    expected = stats.ttest_1samp(means[:, 0], 0.0)
    votes = class_means_test(values, balanced)
    assert votes.statistic[0] == pytest.approx(expected.statistic)
    assert votes.p[0] == pytest.approx(expected.pvalue)
    assert values[:, 0].mean() / clustered_error(values, balanced)[1][0] == pytest.approx(expected.statistic)
    _, alone = clustered_error(values, np.full(len(values), -1))
    assert alone[0] == pytest.approx(values[:, 0].std(ddof=1) / np.sqrt(len(values)))


def test_comparison_with_classes():
    """Clustered intervals are wider where images of one class resemble each other."""
    rng = np.random.default_rng(0)
    labels = np.arange(40).repeat(10)
    shift = rng.standard_normal((40, 1)).repeat(10, axis=0)
    found = compare_pairs(shift + 0.1 * rng.standard_normal((400, 1)), np.zeros((400, 1)), rng=rng, labels=labels)
    assert found.clusters[0] == 40
    assert found.clustered_high[0] - found.clustered_low[0] > 2 * (found.high[0] - found.low[0])
    assert abs(found.clustered.statistic[0]) < abs(found.student.statistic[0]) / 2
    assert found.class_means.freedom[0] == 39


def test_bca_equals_scipy_and_keeps_to_itself():
    """Limits agree with scipy's BCa within the noise of the draws, whatever other comparisons stand beside."""
    values = np.random.default_rng(2).exponential(size=(40, 1))
    low, high = bca_interval(values, rng=np.random.default_rng(0))
    expected = stats.bootstrap((values[:, 0],), np.mean, n_resamples=10_000, rng=np.random.default_rng(1))
    scale = values.std() / np.sqrt(40)
    # each limit of 10,000 draws has a standard error of about 0.03 standard errors of the mean
    assert low[0] == pytest.approx(expected.confidence_interval.low, abs=0.15 * scale)
    assert high[0] == pytest.approx(expected.confidence_interval.high, abs=0.15 * scale)
    beside = bca_interval(np.hstack([values**2, values]), rng=np.random.default_rng(0))
    assert beside[0][1] == pytest.approx(low[0], rel=1e-12)
    shifted = bca_interval(3 * values + 1, rng=np.random.default_rng(0))
    assert shifted[1][0] == pytest.approx(3 * high[0] + 1)


def test_legacy_interval_is_the_originals_loop():
    """The same draws, one after another, and the same percentiles."""
    values = np.random.default_rng(3).standard_normal((50, 2))
    values[4, 1] = np.nan
    low, high = legacy_interval(values, draws=300)
    for q in range(2):
        own = values[:, q][~np.isnan(values[:, q])]
        state = np.random.RandomState(42)
        means = [state.choice(own, size=len(own), replace=True).mean() for _ in range(300)]
        assert np.allclose((low[q], high[q]), np.percentile(means, (2.5, 97.5)), rtol=1e-12)
    filtered, baseline = pairs(0)
    found = compare_pairs(filtered, baseline, rng=np.random.default_rng(0), interval="legacy percentile", draws=20)
    assert (found.low < found.difference).all()


@given(st.lists(st.floats(1e-12, 1.0), min_size=1, max_size=30))
def test_log_q_equals_q(p):
    """The step-up rules on the scale of logarithms."""
    values = np.array([*p, np.nan])
    for method, plain in (("bh", bh_qvalues), ("by", by_qvalues)):
        assert np.allclose(10 ** log10_qvalues(np.log10(values), method=method), plain(values), equal_nan=True)


@given(seeds)
def test_order_of_images_does_not_matter(seed):
    """Nothing but the bootstrap's draws depends on the order of the images; swapping sides turns the signs."""
    filtered, baseline = pairs(seed, n=30)
    order = np.random.default_rng(seed).permutation(30)
    labels = np.arange(30) % 5
    here = {"rng": np.random.default_rng(0), "draws": 10}
    one = compare_pairs(filtered, baseline, labels=labels, **here)
    other = compare_pairs(filtered[order], baseline[order], labels=labels[order], **here)
    turned = compare_pairs(baseline, filtered, labels=labels, **here)
    for name in ("student", "wilcoxon", "clustered", "class_means"):
        assert np.allclose(getattr(one, name).statistic, getattr(other, name).statistic)
        assert np.allclose(getattr(one, name).statistic, -getattr(turned, name).statistic)
        assert np.allclose(getattr(one, name).log10_p, getattr(turned, name).log10_p)
    assert np.allclose(one.percentiles, other.percentiles)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"baseline": np.zeros((4, 1))}, "same images"),
        ({"labels": np.zeros(4, dtype=int)}, "4 labels"),
        ({"draws": 1}, "at least 2"),
        ({"level": 1.0}, "between 0 and 1"),
    ],
)
def test_what_cannot_be_is_refused(change, words):
    """Errors say what was expected."""
    given_ = {"filtered": np.ones((3, 1)), "baseline": np.zeros((3, 1)), "rng": np.random.default_rng(0)} | change
    with pytest.raises(InputError, match=words):
        compare_pairs(given_.pop("filtered"), given_.pop("baseline"), **given_)


def test_q_of_more_than_all_is_refused():
    """Somebody gave p in place of log10 p."""
    with pytest.raises(InputError, match="at most 0"):
        log10_qvalues(np.array([0.5]))
