"""Signed ranks against scipy, against their definitions written plainly, and under null hypotheses by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from neuronscope.errors import InputError
from neuronscope.maths.resampling import by_qvalues
from neuronscope.maths.signed_ranks import (
    clustered_contrast,
    point_biserial,
    rank_biserial_interval,
    signed_ranks,
    signed_ranks_of_counts,
)

ANY = st.one_of(
    st.integers(-3, 3).map(float), st.floats(-(2.0**66), 2.0**66, width=32), st.sampled_from([1e-30, -1e-30, -0.0])
)
TABLES = arrays(np.float32, st.tuples(st.integers(1, 25), st.integers(1, 3)), elements=ANY)


def samples(m):
    """Columns without ties, shifted, rounded, mostly zero as behind a ReLU, and all of one sign."""
    rng = np.random.default_rng(m)
    plain = rng.standard_normal((m, 4))
    relu = np.maximum(rng.standard_normal((m, 4)) - 1, 0) - np.maximum(rng.standard_normal((m, 4)) - 1, 0)
    relu[0] = 0.25  # one that is not 0
    return np.concatenate([plain, plain + 1, np.round(2 * plain) / 2 + 0.25, relu, np.abs(plain), 1e-30 * relu], axis=1)


def strongly_clustered(rng, images, draws, units, *, shift=0.0, share=0.9):
    """Normal differences whose variance is to a `share` that of images."""
    own, noise = rng.standard_normal((images, 1, units)), rng.standard_normal((images, draws, units))
    return shift + np.sqrt(share) * own + np.sqrt(1 - share) * noise


@pytest.mark.parametrize("m", [5, 20, 300, 5000])
@pytest.mark.parametrize("zero_method", ["zsplit", "pratt"])
def test_statistic_z_and_p_are_those_of_scipy(m, zero_method):
    """T, z and p of all columns at once are scipy's of each, with ties, zeros and both ways to treat zeros."""
    difference = samples(m)
    expected = stats.wilcoxon(difference, zero_method=zero_method, correction=True, method="asymptotic")
    found = signed_ranks(difference)
    test = found.test(zero_method=zero_method)
    np.testing.assert_allclose(-np.abs(test.statistic), expected.zstatistic, rtol=1e-12)
    np.testing.assert_allclose(test.p, expected.pvalue, rtol=1e-12)
    if zero_method == "zsplit":  # without the zeros' ranks scipy's T is another
        np.testing.assert_allclose(found.statistic, expected.statistic, rtol=1e-12)
        middle = m * (m + 1) / 4
        unsigned = 4 * np.abs(expected.statistic - middle) / (m * (m + 1))  # the original's formula
        np.testing.assert_allclose(np.abs(found.rank_biserial), unsigned, rtol=1e-12, atol=1e-15)


@given(TABLES)
def test_rank_biserial_is_its_definition(difference):
    """Midranks of |d| with their signs, over their greatest possible sum."""
    m = len(difference)
    ranks = stats.rankdata(np.abs(difference), axis=0)
    expected = (np.sign(difference) * ranks).sum(axis=0) / (m * (m + 1) / 2)
    found = signed_ranks(difference)
    still = (difference == 0).all(axis=0)
    np.testing.assert_allclose(found.rank_biserial, np.where(still, np.nan, expected), rtol=1e-14)
    np.testing.assert_array_equal(found.zero_share, (difference == 0).mean(axis=0))


@given(TABLES, st.randoms(use_true_random=False))
def test_only_signs_and_the_order_of_sizes_matter(difference, random):
    """Rows in another order, another unit of measure, or an odd increasing function change no bit; a swap the sign."""
    found = signed_ranks(difference)
    shuffled = random.sample(range(len(difference)), len(difference))
    for same in (difference[shuffled], difference.astype(np.float64) * 3, np.cbrt(difference.astype(np.float64))):
        np.testing.assert_array_equal(signed_ranks(same).balance, found.balance)
    opposite = signed_ranks(-difference)
    np.testing.assert_array_equal(opposite.rank_biserial, -found.rank_biserial)
    np.testing.assert_array_equal(opposite.test().log10_p, found.test().log10_p)
    assert (found.test().statistic * found.rank_biserial >= 0)[np.abs(found.balance) >= 1].all()


def test_a_column_does_not_see_its_neighbours():
    """Blocks of columns are an affair of memory: each column alone gives the same."""
    difference = np.random.default_rng(0).integers(-9, 9, (3000, 101)).astype(np.float32)
    together = signed_ranks(difference)
    for column in (0, 42, 43, 44, 100):
        alone = signed_ranks(difference[:, column : column + 1])
        assert (alone.balance[0], alone.ties[0]) == (together.balance[column], together.ties[column])


def test_what_cannot_be_told_is_nan():
    """A unit that never moves, and one with a value that is not finite; the others are as without them."""
    difference = np.array([[0.0, 1.0, np.nan, 1.0], [-0.0, 2.0, 1.0, np.inf], [0.0, -1.0, 1.0, 2.0]])
    found = signed_ranks(difference)
    expected = signed_ranks(difference[:, 1:2])
    for value, own in (
        (found.rank_biserial, expected.rank_biserial),
        (found.statistic, expected.statistic),
        (found.test().log10_p, expected.test().log10_p),
        (found.test(zero_method="pratt").statistic, expected.test(zero_method="pratt").statistic),
    ):
        assert np.isnan(value).tolist() == [True, False, True, True]
        assert value[1] == own[0]
    assert found.zero_share.tolist() == [1, 0, 0, 0]
    nothing = signed_ranks(np.empty((0, 2)))
    assert np.isnan([nothing.rank_biserial, nothing.zero_share, nothing.test().statistic]).all()


def test_p_values_do_not_underflow():
    """With 50,000 differences of one sign p is 1e-8145: 0 as a number, but not as a logarithm."""
    test = signed_ranks(np.linspace(1, 2, 50_000)[:, None]).test()
    expected = (stats.norm.logsf(test.statistic[0]) + np.log(2)) / np.log(10)
    assert test.p[0] == 0
    assert test.log10_p[0] == pytest.approx(expected)
    assert test.log10_p[0] == pytest.approx(-8146, abs=2)


@given(TABLES)
def test_counts_of_every_single_size_give_the_exact_ranks(difference):
    """One bin for each size of a difference: nothing is unknown but within ties, which the ranks treat the same."""
    sizes = np.unique(np.abs(difference))
    sizes = sizes[sizes > 0]
    positive, negative = ((sign * difference[:, None] == sizes[:, None]).sum(axis=0).T for sign in (1, -1))
    found, _ = signed_ranks_of_counts(positive, negative, count=len(difference))
    expected = signed_ranks(difference)
    np.testing.assert_array_equal(found.balance, expected.balance)
    np.testing.assert_array_equal(found.ties, expected.ties)
    np.testing.assert_array_equal(found.zeros, expected.zeros)


@given(arrays(np.int64, st.tuples(st.just(2), st.integers(1, 6)), elements=st.integers(0, 4)), st.integers(0, 3))
def test_the_bound_of_counts_is_reached_and_never_passed(counts, zeros):
    """The worst orders within the bins miss by just the bound, on both sides; a random order lies between."""
    positive, negative = counts
    count = int(counts.sum()) + zeros
    if not counts.any():
        return
    found, bound = signed_ranks_of_counts(positive[None], negative[None], count=count)

    def exact(order):
        signs = [np.zeros(zeros), *(order(np.repeat([-1, 1], (q, p))) for p, q in zip(positive, negative, strict=True))]
        signs = np.concatenate(signs)
        return signed_ranks((signs * np.arange(1, count + 1))[:, None]).rank_biserial[0]

    highest, lowest = exact(lambda signs: signs), exact(lambda signs: signs[::-1])
    np.testing.assert_allclose([highest, lowest], found.rank_biserial[0] + bound[0] * np.array([1, -1]), atol=1e-14)
    random = exact(np.random.default_rng(0).permutation)
    assert lowest - 1e-14 <= random <= highest + 1e-14


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e20])
def test_point_biserial_is_pearsons_correlation_with_the_label(scale):
    """From sums alone, for groups of different size, in any unit."""
    rng = np.random.default_rng(0)
    control, treated = scale * rng.standard_normal((50, 3)), scale * rng.normal([0, 1, -3], 1, (150, 3))
    every = np.concatenate([control, treated])
    found = point_biserial(
        treated.mean(axis=0) - control.mean(axis=0), len(every) * every.var(axis=0), controls=50, treated=150
    )
    label = np.repeat([0.0, 1.0], (50, 150))
    expected = [np.corrcoef(label, column)[0, 1] for column in (every / scale).T]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_point_biserial_of_a_constant_is_nan_unless_the_original_is_followed():
    """The original adds 1e-20 to the variance, which gives 0 for a dead unit and for all that is tiny."""
    zero, tiny = np.zeros(1), np.full(1, 1e-30)
    assert np.isnan(point_biserial(zero, zero, controls=3, treated=3)[0])
    assert point_biserial(zero, zero, controls=3, treated=3, floor=1e-20)[0] == 0
    assert point_biserial(tiny, tiny**2, controls=3, treated=3, floor=1e-20)[0] < 1e-19
    assert np.isnan(point_biserial(zero, zero, controls=0, treated=0)[0])


@given(st.integers(0, 2**32 - 1), st.integers(3, 9), st.integers(1, 4), st.sampled_from([0.0, 0.7]))
def test_the_interval_is_the_jackknife_over_images(seed, images, draws, zeros):
    """Each image is left out in turn and everything ranked again; the fast way gives the same limits."""
    rng = np.random.default_rng(seed)
    difference = np.round(strongly_clustered(rng, images, draws, 3), 1) * (rng.random((images, draws, 3)) >= zeros)
    difference[0], difference[1] = 0.5, -0.25  # both signs, whoever leaves
    difference[2] = [[0.25, -0.5, 0.125]]
    left = [signed_ranks(np.delete(difference, image, axis=0).reshape(-1, 3)).rank_biserial for image in range(images)]
    effect = signed_ranks(difference.reshape(-1, 3)).rank_biserial
    error = np.sqrt((images - 1) / images * ((left - np.mean(left, axis=0)) ** 2).sum(axis=0))
    half = stats.t.ppf(0.95, images - 1) * error / (1 - effect**2)
    low, high = rank_biserial_interval(difference, level=0.9)
    np.testing.assert_allclose(low, np.tanh(np.arctanh(effect) - half), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(high, np.tanh(np.arctanh(effect) + half), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("images", [30, 200])
def test_the_interval_covers_although_draws_resemble_each_other(images, shift):
    """With 90 % of the variance between images, 95 % intervals hold the true value in about 95 of 100 experiments.

    For normal differences of variance 1 the true value is `2 Phi(sqrt(2) shift) - 1`. 1,000 experiments have a standard
    error of 0.7 %; small samples cost up to 2 %.
    """
    difference = strongly_clustered(np.random.default_rng(1), images, 10, 1000, shift=shift)
    low, high = rank_biserial_interval(difference)
    true = 2 * stats.norm.cdf(np.sqrt(2) * shift) - 1
    assert 0.92 < ((low <= true) & (true <= high)).mean() < 0.98


def test_an_interval_of_one_sign_is_bounded_by_the_number_of_images():
    """All positive: the upper limit is 1, the lower grows with the images; the other sign mirrors it."""
    rising = np.abs(np.random.default_rng(0).standard_normal((40, 5, 1)))
    low, high = rank_biserial_interval(rising)
    dissenting = stats.binomtest(0, 40).proportion_ci(0.95, method="exact").high
    assert low[0] == pytest.approx(2 * (1 - dissenting) ** 2 - 1)
    assert high[0] == 1
    mirrored = rank_biserial_interval(-rising)
    assert (mirrored[0][0], mirrored[1][0]) == (-high[0], -low[0])


def test_too_few_images_have_no_interval():
    """One image says nothing about others; a unit that never moves has no interval either."""
    assert np.isnan(rank_biserial_interval(np.ones((1, 5, 2)))).all()
    assert np.isnan(rank_biserial_interval(np.zeros((5, 2, 1)))).all()
    assert np.isnan(rank_biserial_interval(np.full((5, 2, 1), np.nan))).all()
    with pytest.raises(InputError, match="level"):
        rank_biserial_interval(np.ones((3, 1, 1)), level=1.5)
    with pytest.raises(InputError, match="got 3 and 0"):
        clustered_contrast(np.empty((3, 0, 2)))


def test_p_values_of_images_are_uniform_under_the_null_and_those_of_draws_are_not():
    """Ten draws on an image are not ten images: taken so, most of the pure noise would be significant."""
    difference = strongly_clustered(np.random.default_rng(2), 60, 10, 2000)
    found = clustered_contrast(difference)
    assert stats.kstest(found.test.p, "uniform").pvalue > 0.01
    naive = signed_ranks(difference.reshape(600, 2000)).test()
    assert (naive.p < 0.05).mean() > 0.4


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_zeros_make_zsplit_cautious_and_pratt_fair(share):
    """Under a symmetric null z has variance 1 by Pratt's method, and by zsplit the smaller one that is stated."""
    rng = np.random.default_rng(3)
    difference = rng.standard_normal((400, 3000)) * (rng.random((400, 3000)) >= share)
    found = signed_ranks(difference)
    assert found.test(zero_method="pratt").statistic.std() == pytest.approx(1, abs=0.04)
    stated = np.sqrt((1 - share**3) / (1 - share**3 / 4))
    assert found.test().statistic.std() == pytest.approx(stated, abs=0.04)


def test_q_values_hold_the_false_discovery_rate():
    """200 units of which 20 move, all leaning on one common noise: of what q < 0.05 reports, less than 5 % is false."""
    rng = np.random.default_rng(4)
    false, reported, right = [], [], []
    for _ in range(100):
        common = rng.standard_normal((40, 1, 1))
        difference = 0.5 * common + strongly_clustered(rng, 40, 4, 200)
        difference[:, :, :20] += 1.2
        found = clustered_contrast(difference)
        np.testing.assert_array_equal(found.q, by_qvalues(found.test.p))
        hits = found.q < 0.05
        reported.append(hits.sum())
        right.append(hits[:20].mean())
        false.append(hits[20:].sum() / max(hits.sum(), 1))
    assert np.mean(false) < 0.05
    assert np.mean(right) > 0.5


def test_a_contrast_tells_what_moves():
    """Known answers: a unit that rises, noise, one that never moves, one that is broken. Only two are tested."""
    rng = np.random.default_rng(5)
    difference = rng.normal([2.0, 0.0, 0.0, 0.0], 1.0, (50, 3, 4))
    difference[:, :, 2] = 0
    difference[7, 1, 3] = np.inf
    found = clustered_contrast(difference)
    means = difference[:, :, :2].mean(axis=1)
    np.testing.assert_allclose(found.difference[:3], difference[:, :, :3].mean(axis=(0, 1)), atol=1e-15)
    expected = stats.wilcoxon(means, zero_method="pratt", correction=True, method="asymptotic").pvalue
    np.testing.assert_allclose(found.test.p[:2], expected, rtol=1e-12)
    np.testing.assert_allclose(found.q[:2], by_qvalues(expected), rtol=1e-12)
    np.testing.assert_array_equal(found.rank_biserial[:2], signed_ranks(difference.reshape(150, 4)).rank_biserial[:2])
    assert (found.low[:2] < found.rank_biserial[:2]).all()
    assert (found.rank_biserial[:2] < found.high[:2]).all()
    assert found.zero_share.tolist() == [0, 0, 1, 0]
    for value in (found.test.p, found.q, found.rank_biserial, found.low, found.high):
        assert np.isnan(value).tolist() == [False, False, True, True]
    assert np.isnan(found.difference).tolist() == [False, False, False, True]
