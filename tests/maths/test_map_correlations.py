"""Correlations across units at every place: SciPy's coefficients, intervals that count units, what is missing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from neuronscope.errors import InputError
from neuronscope.maths.map_correlations import (
    coefficient_of_variation,
    correlations_across_units,
    mean_correlations,
    over,
    place_correlations,
)
from neuronscope.maths.resampling import by_qvalues

SCIPY = {"spearman": stats.spearmanr, "pearson": stats.pearsonr, "kendall": stats.kendalltau}
METHODS = tuple(SCIPY)


def maps(rng, *, units=30, places=5, rho=0.6, own=0.5):
    """Two normal factors that go together from unit to unit; the places of a unit are alike."""
    common = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=units)
    return common[:, None, :] + own * rng.normal(size=(units, places, 2))


def slowly(first, second, method):
    """Every coefficient by itself, over the units that have all factors at the place."""
    found = np.full((first.shape[1], first.shape[2], second.shape[2]), np.nan)
    for p, g, h in np.ndindex(found.shape):
        known = np.isfinite(first[:, p]).all(axis=1) & np.isfinite(second[:, p]).all(axis=1)
        x, y = first[known, p, g], second[known, p, h]
        if known.sum() > 1 and np.ptp(x) > 0 and np.ptp(y) > 0:
            found[p, g, h] = SCIPY[method](x, y)[0]
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("block", [50, 2**16])
def test_coefficients_are_scipys(method, block, monkeypatch):
    """Ties, dead activations, a constant factor, and work in small blocks change nothing."""
    monkeypatch.setattr("neuronscope.maths.map_correlations._BLOCK", block)
    rng = np.random.default_rng(0)
    first, second = np.round(rng.normal(size=(12, 7, 3)), 1), np.round(rng.normal(size=(12, 7, 2)), 1)
    first[0, 2], second[3, 2, 0], first[4, :, 1], first[:, 5, 2], second[:, 6] = np.nan, np.inf, np.nan, 0.3, np.nan
    assert np.allclose(
        place_correlations(first, second, method=method), slowly(first, second, method), atol=1e-12, equal_nan=True
    )
    assert np.allclose(
        place_correlations(first, method=method), slowly(first, first, method), atol=1e-12, equal_nan=True
    )


@pytest.mark.parametrize("missing", ["all", "any", "zero"])
def test_means_over_places_are_plain(missing):
    """Mean and deviation (ddof 1) under each meaning of a place without a coefficient."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(10, 6, 3))
    values[:, 2, 0] = 0.5
    values[:, :, 2] = 1.0
    plain = slowly(values, values, "spearman")
    found = correlations_across_units(values, missing=missing)
    assert np.isnan(found.mean[2]).all()
    one = plain[:, 0, 1]
    if missing == "any":
        assert np.isnan(found.mean[0, 1])
        assert np.isnan(found.deviation[0, 1])
    else:
        kept = np.nan_to_num(one) if missing == "zero" else one[np.isfinite(one)]
        assert found.mean[0, 1] == pytest.approx(kept.mean(), abs=1e-12)
        assert found.deviation[0, 1] == pytest.approx(kept.std(ddof=1), abs=1e-12)
        assert found.counted[0, 1] == len(kept)
    assert found.mean[1, 1] == pytest.approx(1)


@pytest.mark.parametrize("method", METHODS)
def test_errors_are_those_of_leaving_units_out(method):
    """The derivative by weights is the limit of the jackknife that leaves out each unit and ranks the others anew."""
    rng = np.random.default_rng(2)
    units = 120
    first = np.round(rng.normal(size=(units, 3, 2)), 1)
    second = np.round(0.8 * first + rng.normal(size=(units, 3, 2)), 1)
    found = correlations_across_units(first, second, method=method)
    without = np.array(
        [
            place_correlations(np.delete(first, u, 0), np.delete(second, u, 0), method=method).mean(axis=0)
            for u in range(units)
        ]
    )
    error = np.sqrt((units - 1) / units * ((without - without.mean(axis=0)) ** 2).sum(axis=0)) / (1 - found.mean**2)
    half = (np.arctanh(found.high) - np.arctanh(found.low)) / 2
    assert np.allclose(half / stats.t.ppf(0.975, units - 1), error, rtol=0.03)
    assert np.allclose((np.arctanh(found.high) + np.arctanh(found.low)) / 2, np.arctanh(found.mean))


@pytest.mark.parametrize(("method", "rho"), [("spearman", 0.0), ("spearman", 0.8), ("pearson", 0.6)])
def test_intervals_hold_the_truth(method, rho):
    """Of 300 samples of 20 units, 95 % intervals hold the correlation of all units in 90 to 98 of 100."""
    rng = np.random.default_rng(3)
    truth = np.mean(
        [correlations_across_units(maps(rng, units=3000, rho=rho), method=method).mean for _ in range(10)], 0
    )
    hits = 0
    for _ in range(300):
        found = correlations_across_units(maps(rng, units=20, rho=rho), method=method)
        hits += found.low[0, 1] <= truth[0, 1] <= found.high[0, 1]
    assert 0.90 <= hits / 300 <= 0.98


def test_p_values_of_nothing_are_even():
    """Without a correlation 2 to 8 of 100 p-values are below 0.05; positions that repeat add no evidence."""
    rng = np.random.default_rng(4)
    found = [correlations_across_units(maps(rng, units=20, rho=0.0)).p[0, 1] for _ in range(300)]
    assert 0.02 <= np.mean(np.array(found) < 0.05) <= 0.08
    values = maps(rng)
    once, often = correlations_across_units(values), correlations_across_units(np.tile(values, (1, 9, 1)))
    assert np.allclose(once.p, often.p, equal_nan=True)


def test_dead_activations_weigh_as_often_as_they_are_alive():
    """A unit that is nan everywhere is no unit: the others' answer, interval included, is as without it."""
    values = maps(np.random.default_rng(5))
    with_dead = np.concatenate([values, np.full((3, 5, 2), np.nan)])
    one, other = correlations_across_units(values), correlations_across_units(with_dead)
    assert other.units == 30
    for name in ("mean", "low", "high", "p"):
        assert np.allclose(getattr(one, name), getattr(other, name), equal_nan=True)


def test_q_values_count_each_pair_once():
    """Of a matrix with itself the upper triangle is one family, the diagonal is none; of two values every entry is."""
    rng = np.random.default_rng(6)
    values = rng.normal(size=(15, 4, 4))
    found = correlations_across_units(values)
    upper = np.triu_indices(4, 1)
    assert np.allclose(found.q[upper], by_qvalues(found.p[upper]))
    assert np.allclose(found.q, found.q.T, equal_nan=True)
    assert np.isnan(np.diag(found.q)).all()
    other = correlations_across_units(values, rng.normal(size=(15, 4, 2)))
    assert np.allclose(other.q, by_qvalues(other.p))


def test_few_units():
    """Three units have a coefficient and no interval; one unit has nothing."""
    values = np.random.default_rng(7).normal(size=(3, 2, 2))
    found = correlations_across_units(values)
    assert np.isfinite(found.mean).all()
    assert np.isnan(found.low[0, 1])
    assert np.isnan(correlations_across_units(values[:1]).mean).all()


def test_values_of_other_units_are_refused():
    """Two values must be of the same units and places."""
    with pytest.raises(InputError, match="the same units and places"):
        place_correlations(np.zeros((3, 2, 1)), np.zeros((4, 2, 1)))


def test_matrices_of_units():
    """Correlations across the places of each unit: mean, deviation, Student's interval over units."""
    values = np.random.default_rng(8).normal(size=(9, 30, 3))
    of_units = place_correlations(values.transpose(1, 0, 2))
    assert np.allclose(of_units[4], stats.spearmanr(values[4]).statistic)
    found = mean_correlations(of_units)
    assert np.allclose(found.mean, of_units.mean(axis=0))
    assert np.allclose(found.deviation, of_units.std(axis=0, ddof=1))
    error = found.deviation[0, 1] / 3 / (1 - found.mean[0, 1] ** 2)
    assert found.p[0, 1] == pytest.approx(2 * stats.t.sf(abs(np.arctanh(found.mean[0, 1])) / error, 8))


def test_variation_is_floored():
    """A variance below 0 by rounding is 0; a mean of 0 does not divide."""
    assert coefficient_of_variation(np.array([0.0, 1.0]), np.array([1.0, -1e-20])) == pytest.approx([1e5, 0.0])
    assert over(np.array([[np.nan]]), missing="zero")[2][0] == 0
