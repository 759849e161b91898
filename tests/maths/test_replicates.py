"""Scatter over replicates: known answers, coverage, and how often an order is called settled that is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from neuronscope.errors import InputError
from neuronscope.maths.replicates import (
    above_zero_p,
    ratio_parts,
    ratio_scattered,
    scattered,
    settled_pairs,
    t_interval,
)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12), st.floats(-1e6, 1e6))
def test_scatter_is_that_of_the_stored_values(values, offset):
    """Folded one by one, mean and standard error are those of numpy on all of them."""
    stored = np.array(values) + offset
    found = None
    for value in stored:
        found = scattered(found, np.array([value]))
    assert found.mean[0] == pytest.approx(stored.mean(), rel=1e-12, abs=1e-9)
    assert found.error[0] == pytest.approx(stored.std(ddof=1) / np.sqrt(len(stored)), rel=1e-6, abs=1e-8)


def test_a_single_replicate_has_no_interval():
    """One estimate says nothing of its error: nan, not 0."""
    one = scattered(None, np.array([0.3]))
    found = t_interval(one.mean, one)
    assert np.isnan([found.low[0], found.high[0]]).all()
    assert np.isnan(above_zero_p(np.array([[0.3]]))).all()


def test_intervals_cover():
    """Of 4,000 means of four normal replicates, 95 % intervals hold 95 % (three standard errors of the count)."""
    drawn = np.random.default_rng(0).normal(3.0, 2.0, (4, 4000))
    found = None
    for values in drawn:
        found = scattered(found, values)
    interval = t_interval(found.mean, found)
    share = ((interval.low <= 3) & (interval.high >= 3)).mean()
    assert abs(share - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 4000)


def test_a_ratio_is_that_of_the_means():
    """Folded or stored, ratio and error are the linearised ones, written plainly."""
    rng = np.random.default_rng(3)
    top, bottom = rng.normal(2.0, 1.0, (7, 3, 5)), rng.normal(4.0, 1.0, (7, 5))
    found = None
    for one, other in zip(top, bottom, strict=True):
        found = ratio_scattered(found, one, other)
    ratio = top.mean(0) / bottom.mean(0)
    left = (top - ratio * bottom[:, None]) / bottom.mean(0)
    assert np.allclose(found.ratio, ratio)
    assert np.allclose(found.error, left.std(0, ddof=1) / np.sqrt(7))
    parts = ratio_parts(top, bottom[:, None])
    assert np.allclose(parts.mean(0), ratio)
    assert np.allclose(parts.std(0, ddof=1) / np.sqrt(7), found.error)


def test_a_bottom_of_nothing_has_no_ratio():
    """An output that never varies has no share: nan, also folded."""
    found = ratio_scattered(ratio_scattered(None, np.zeros((2, 1)), np.zeros(1)), np.zeros((2, 1)), np.zeros(1))
    assert np.isnan(found.ratio).all()
    assert np.isnan(found.error).all()


def test_p_values_are_those_of_the_t_test():
    """Scipy's one-sided t-test on the same replicates."""
    values = np.random.default_rng(1).normal(0.2, 1.0, (6, 50))
    expected = stats.ttest_1samp(values, 0.0, alternative="greater").pvalue
    assert np.allclose(above_zero_p(values), expected)


def test_an_order_is_rarely_settled_wrongly():
    """Of two equal quantities, looked at after each of 8 replicates, one is called larger in at most 5 % of runs."""
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(400):
        values = rng.normal(0.0, 1.0, (8, 2))
        wrong += any(settled_pairs(values[:count], tolerance=0.0, looks=7)[0] for count in range(2, 9))
    assert wrong / 400 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_equal_within_the_tolerance_is_settled_too():
    """Two factors that surely differ by less than matters need no further replicate, and dead ones never do."""
    values = np.array([[[0.1, 0.101, np.nan]], [[0.102, 0.1, np.nan]], [[0.1, 0.1, np.nan]]])
    assert settled_pairs(values, tolerance=0.05).tolist() == [[True, True, True]]
    assert settled_pairs(values, tolerance=0.001).tolist() == [[False, True, True]]
    assert settled_pairs(values[:1], tolerance=0.05).tolist() == [[False, True, True]]


def test_impossible_tolerances_are_refused():
    """Nothing is closer than 0 apart, and nobody looks less than once."""
    with pytest.raises(InputError, match="tolerance"):
        settled_pairs(np.zeros((2, 2)), tolerance=-1.0)
