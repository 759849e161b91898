"""Matrices compared unit by unit and layer by layer, against plain loops and planted likeness."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from neuronscope.errors import InputError
from neuronscope.maths.correlation_matrices import matrix_difference, matrix_distances
from neuronscope.maths.map_correlations import place_correlations


def matrices(rng, units=12, factors=4):
    """Correlation matrices of units that differ."""
    return place_correlations(rng.normal(size=(8, units, factors)))


def test_differences_are_plain():
    """Entries, their mean off the diagonal, and that of mismatched units."""
    rng = np.random.default_rng(0)
    one, other = matrices(rng), matrices(rng)
    one[3, 0, 1] = one[3, 1, 0] = np.nan
    found = matrix_difference(one, other, rng=rng)
    apart = np.abs(one - other)
    assert np.allclose(found.mean, np.nanmean(apart, axis=0))
    assert np.allclose(found.deviation, np.nanstd(apart, axis=0, ddof=1))
    upper = np.triu_indices(4, 1)
    pairs = np.array([[np.nanmean(np.abs(a - b)[upper]) for b in other] for a in one])
    own = np.diag(pairs)
    assert found.off_diagonal == pytest.approx(own.mean())
    assert found.mismatched == pytest.approx(pairs[~np.eye(12, dtype=bool)].mean())
    low, high = stats.t.interval(0.95, 11, own.mean(), own.std(ddof=1) / np.sqrt(12))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_units_that_stay_themselves_are_told():
    """The same units a little changed are closer to themselves than to others; unrelated ones are not."""
    rng = np.random.default_rng(1)
    one = matrices(rng)
    assert matrix_difference(one, one + 0.01 * rng.normal(size=one.shape), rng=rng).p == pytest.approx(0.001)
    p = [matrix_difference(matrices(rng), matrices(rng), rng=rng, draws=99).p for _ in range(60)]
    assert 0.3 < np.mean(p) < 0.7


@pytest.mark.parametrize(("triangle", "first"), [("strict", 1), ("diagonal", 0)])
def test_distances_between_layers_are_plain(triangle, first):
    """Mean absolute difference and Spearman's correlation of every two upper triangles."""
    rng = np.random.default_rng(2)
    one, other = matrices(rng, units=3), rng.normal(size=(2, 4, 4))
    found = matrix_distances(one, other, triangle=triangle)
    upper = np.triu_indices(4, first)
    for row, column in np.ndindex(3, 2):
        x, y = one[row][upper], other[column][upper]
        assert found.difference[row, column] == pytest.approx(np.abs(x - y).mean())
        assert found.spearman[row, column] == pytest.approx(stats.spearmanr(x, y).statistic)


def test_what_is_missing():
    """Matrices of nan have no distance, and one factor no entries."""
    empty = np.full((1, 3, 3), np.nan)
    assert np.isnan(matrix_distances(empty, empty).difference).all()
    assert np.isnan(matrix_difference(empty, empty, rng=np.random.default_rng(0)).p)
    with pytest.raises(InputError, match="2 or more expected"):
        matrix_difference(np.ones((3, 1, 1)), np.ones((3, 1, 1)), rng=np.random.default_rng(0))
