"""Correlations over positions of units: values of SciPy, and intervals that hold what they say when units differ."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from neuronscope.maths.clustered_correlation import clustered_pearson, clustered_spearman


def maps(rng, *, units=30, positions=20, shared=1.0, own=1.0):
    """Two quantities that go together from unit to unit; the positions of a unit are nearly alike."""
    common = rng.normal(0, shared, (units, 1))
    return tuple(common + rng.normal(0, own, (units, 1)) + rng.normal(0, 0.1, (units, positions)) for _ in range(2))


def test_values_are_scipys():
    """Both correlations are those of all positions that both quantities have."""
    x, y = maps(np.random.default_rng(0))
    x[0, 0], y[3, 4], y[5, 5] = np.nan, np.inf, np.nan
    known = np.isfinite(x) & np.isfinite(y)
    assert clustered_pearson(x, y).value == pytest.approx(stats.pearsonr(x[known], y[known]).statistic, abs=1e-12)
    assert clustered_spearman(x, y).value == pytest.approx(stats.spearmanr(x[known], y[known]).statistic, abs=1e-12)


def test_leaving_units_out_is_done_plainly():
    """The interval is the jackknife's, with each unit really left out."""
    x, y = maps(np.random.default_rng(1), units=12, positions=5)
    found = clustered_pearson(x, y, level=0.9)
    z = [
        math.atanh(stats.pearsonr(np.delete(x, unit, 0).ravel(), np.delete(y, unit, 0).ravel()).statistic)
        for unit in range(12)
    ]
    half = stats.t.ppf(0.95, 11) * math.sqrt(11 / 12 * np.sum((np.array(z) - np.mean(z)) ** 2))
    assert found.low == pytest.approx(math.tanh(math.atanh(found.value) - half), abs=1e-9)
    assert found.high == pytest.approx(math.tanh(math.atanh(found.value) + half), abs=1e-9)


@pytest.mark.parametrize("correlation", [clustered_pearson, clustered_spearman])
def test_intervals_hold_the_truth(correlation):
    """Of 300 samples of 30 units, 95 % intervals hold the correlation of all units in 90 to 98 of 100."""
    rng = np.random.default_rng(2)
    many = maps(rng, units=40_000, positions=5)
    truth = correlation(*many).value
    hits = 0
    for _ in range(300):
        found = correlation(*maps(rng, positions=5))
        hits += found.low <= truth <= found.high
    assert 0.90 <= hits / 300 <= 0.98


def test_positions_do_not_count_as_units():
    """Twenty times the positions of the same units make an interval no narrower."""
    x, y = maps(np.random.default_rng(3), positions=5)
    few, many = clustered_pearson(x, y), clustered_pearson(np.tile(x, (1, 20)), np.tile(y, (1, 20)))
    assert many.high - many.low == pytest.approx(few.high - few.low, rel=1e-9)


def test_what_cannot_be_said():
    """Constant quantities have no correlation, two units no interval, and one unit that varies alone any."""
    x = np.arange(6.0).reshape(3, 2)
    assert math.isnan(clustered_pearson(x, np.ones((3, 2))).value)
    assert math.isnan(clustered_pearson(x * np.nan, x).value)
    two = clustered_pearson(np.array([[0.0, 1.0], [2.0, 3.0]]), np.array([[1.0, 0.0], [2.0, 5.0]]))
    assert math.isfinite(two.value)
    assert math.isnan(two.low)
    alone = np.array([[0.0, 3.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    found = clustered_pearson(alone, np.array([[0.0, 2.0, 2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    assert (found.low, found.high) == (-1.0, 1.0)


def test_a_full_correlation_has_no_width():
    """A quantity and itself, or its opposite."""
    x = np.random.default_rng(4).normal(size=(5, 4))
    assert clustered_pearson(x, 3 * x + 1) == clustered_spearman(x, x**3)
    assert clustered_pearson(x, -x).high == -1
