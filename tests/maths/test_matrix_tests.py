"""Exchange and Mantel tests of mean correlation matrices: known answers, slow twins, chance where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from neuronscope.errors import InputError
from neuronscope.maths.correlation_matrices import matrix_distances
from neuronscope.maths.map_correlations import over
from neuronscope.maths.matrix_tests import exchange_test, mantel_test


def matrices(*, units=20, factors=5, shift=0.0, seed=0):
    """Symmetric matrices with ones on the diagonal, of a common mean and some scatter."""
    rng = np.random.default_rng(seed)
    common = np.tanh(np.random.default_rng(99).normal(scale=0.5, size=(factors, factors))) + shift
    whole = np.clip(common + 0.2 * rng.normal(size=(units, factors, factors)), -1, 1)
    whole = np.triu(whole, 1)
    return whole + whole.transpose(0, 2, 1) + np.eye(factors)


@pytest.mark.parametrize("triangle", ["strict", "diagonal"])
@pytest.mark.parametrize("missing", ["all", "zero", "any"])
def test_the_distance_is_that_of_the_mean_matrices(triangle, missing):
    """What is tested is what `matrix_distances` gives of the means, with coefficients missing too."""
    rng = np.random.default_rng(1)
    one, other = matrices(seed=1), matrices(units=13, seed=2)
    one[rng.random(one.shape) < 0.02] = np.nan
    other[rng.random(other.shape) < 0.02] = np.nan
    found = exchange_test(one, other, units="separate", triangle=triangle, missing=missing, draws=9, rng=rng)
    means = [over(values, missing=missing)[0][None] for values in (one, other)]
    assert found.difference == pytest.approx(matrix_distances(*means, triangle=triangle).difference[0, 0], abs=1e-12)


@pytest.mark.parametrize("units", ["paired", "separate"])
def test_random_groups_are_those_of_a_plain_loop(units):
    """Mean and quantile of the null agree with groups made one at a time, as far as chance allows."""
    one, other = matrices(seed=3), matrices(seed=4, shift=0.05)
    found = exchange_test(one, other, units=units, draws=4000, rng=np.random.default_rng(0))
    rng, upper, drawn = np.random.default_rng(5), np.triu_indices(5, 1), []
    for _ in range(4000):
        if units == "paired":
            swap = rng.integers(0, 2, len(one)).astype(bool)[:, None, None]
            first, second = np.where(swap, other, one), np.where(swap, one, other)
        else:
            pool = rng.permutation(np.concatenate([one, other]))
            first, second = pool[: len(one)], pool[len(one) :]
        drawn.append(np.abs(first.mean(0) - second.mean(0))[upper].mean())
    assert found.null == pytest.approx(np.mean(drawn), rel=0.02)
    assert found.null_high == pytest.approx(np.quantile(drawn, 0.95), rel=0.03)
    assert found.p == pytest.approx((np.array(drawn) >= found.difference).mean(), abs=0.03)


@pytest.mark.parametrize("units", ["paired", "separate"])
def test_p_values_are_uniform_where_nothing_differs(units):
    """Two groups of the same kind differ significantly in 5 % of the cases; groups that differ are found."""
    p = [
        exchange_test(
            matrices(seed=2 * k + 10), matrices(seed=2 * k + 11), units=units, draws=99, rng=np.random.default_rng(k)
        ).p
        for k in range(200)
    ]
    assert 0.01 <= np.mean(np.array(p) <= 0.05) <= 0.1  # 0.05 +- 3 standard errors
    assert stats.kstest(p, "uniform").pvalue > 0.001
    far = exchange_test(matrices(seed=1), matrices(seed=2, shift=0.3), units=units, rng=np.random.default_rng(0))
    assert far.p == pytest.approx(0.001)
    assert far.difference > far.null_high > far.null > 0


def test_one_unit_has_a_distance_and_no_test():
    """Nothing can change places; entries that nobody has are no distance at all."""
    alone = exchange_test(matrices(units=1), matrices(units=9), units="separate", rng=np.random.default_rng(0))
    assert alone.difference > 0
    assert np.isnan([alone.null, alone.null_high, alone.p]).all()
    void = exchange_test(matrices() * np.nan, matrices(), units="separate", rng=np.random.default_rng(0))
    assert np.isnan([void.difference, void.p]).all()


def test_pairs_are_of_the_same_units():
    """Other numbers of units cannot be pairs."""
    with pytest.raises(InputError, match="the same units expected, got 20 and 9"):
        exchange_test(matrices(), matrices(units=9), units="paired", rng=np.random.default_rng(0))


@pytest.mark.parametrize("triangle", ["strict", "diagonal"])
def test_mantels_test_is_that_of_a_plain_loop(triangle):
    """Correlation by scipy; the p-value of as many orders of the factors drawn one at a time."""
    one, other = matrices(units=1, factors=7, seed=5)[0], matrices(units=1, factors=7, seed=6)[0]
    found = mantel_test(one, other, triangle=triangle, draws=3000, rng=np.random.default_rng(0))
    upper = np.triu_indices(7, 1 if triangle == "strict" else 0)
    assert found.spearman == pytest.approx(stats.spearmanr(one[upper], other[upper]).statistic, abs=1e-12)
    rng, reached = np.random.default_rng(1), 0
    for _ in range(1500):
        order = rng.permutation(7)
        reached += stats.spearmanr(one[upper], other[np.ix_(order, order)][upper]).statistic >= found.spearman - 1e-12
    assert found.p == pytest.approx(reached / 1500, abs=0.03)


def test_patterns_without_anything_in_common_are_told_apart_rarely():
    """Independent matrices have p <= 0.05 in 5 % of the cases, though the ones on their diagonals always agree."""
    p = []
    for k in range(200):
        values = np.random.default_rng(k).normal(size=(2, 12, 6))
        one, other = (np.corrcoef(own.T) for own in values)
        p.append(mantel_test(one, other, triangle="diagonal", draws=99, rng=np.random.default_rng(k)).p)
    assert 0.005 <= np.mean(np.array(p) <= 0.05) <= 0.1


def test_factors_that_one_matrix_lacks_take_no_part():
    """A factor without coefficients changes neither correlation nor p-value; scattered gaps are left out."""
    one, other = matrices(units=1, factors=6, seed=7)[0], matrices(units=1, factors=6, seed=8)[0]
    whole = mantel_test(one[:5, :5], other[:5, :5], rng=np.random.default_rng(0))
    lacking = other.copy()
    lacking[5], lacking[:, 5] = np.nan, np.nan
    assert mantel_test(one, lacking, rng=np.random.default_rng(0)) == whole
    other[0, 1] = other[1, 0] = np.nan
    found = mantel_test(one, other, rng=np.random.default_rng(0))
    upper = np.triu_indices(6, 1)
    there = np.isfinite(other[upper])
    assert found.spearman == pytest.approx(stats.spearmanr(one[upper][there], other[upper][there]).statistic)
    assert 0 < found.p <= 1
    assert np.isnan(mantel_test(one[:2, :2], one[:2, :2], rng=np.random.default_rng(0)).p)
