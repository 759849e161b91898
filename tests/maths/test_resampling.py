"""Nulls, split halves, intervals and q-values: known answers, slow twins, and their behaviour on noise and signal."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from neuronscope.errors import InputError
from neuronscope.maths import resampling
from neuronscope.maths.selectivity import class_means, class_selectivity_index, ratio_selectivity

pvalues = st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), min_size=1, max_size=30).map(np.array)


def noise(images_per_class, units, *, classes=10, seed=0):
    """ReLU units that know nothing of the classes."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), images_per_class)
    return np.maximum(rng.standard_normal((len(labels), units)), 0), labels


@settings(deadline=None, max_examples=60)
@given(pvalues)
def test_qvalues_follow_p_and_exceed_it(p):
    """Each q is at least its p, at most 1, in the order of p, nan where p is; the cautious form is never smaller."""
    q, cautious = resampling.bh_qvalues(p), resampling.by_qvalues(p)
    tested = ~np.isnan(p)
    np.testing.assert_array_equal(np.isnan(q), ~tested)
    assert (q[tested] >= p[tested]).all()
    assert (q[tested] <= 1).all()
    assert (cautious[tested] >= q[tested]).all()
    assert (np.diff(q[tested][np.argsort(p[tested])]) >= 0).all()


@settings(deadline=None, max_examples=60)
@given(pvalues)
def test_qvalues_equal_scipy(p):
    """Both equal SciPy's `false_discovery_control` on the values that were tested; the order does not matter."""
    tested = ~np.isnan(p)
    if tested.any():
        # atol: numbers below 1e-300 have few digits left
        for function, method in ((resampling.bh_qvalues, "bh"), (resampling.by_qvalues, "by")):
            oracle = stats.false_discovery_control(p[tested], method=method)
            np.testing.assert_allclose(function(p)[tested], oracle, rtol=1e-12, atol=1e-300)
    np.testing.assert_array_equal(resampling.bh_qvalues(p[::-1]), resampling.bh_qvalues(p)[::-1])


def test_qvalues_take_all_axes_as_one_family():
    """A table of units x classes has the q-values of its flattened p-values, in its own shape."""
    p = np.random.default_rng(0).random((4, 5)) ** 3
    np.testing.assert_array_equal(resampling.bh_qvalues(p), resampling.bh_qvalues(p.ravel()).reshape(4, 5))
    with pytest.raises(InputError, match="between 0 and 1"):
        resampling.bh_qvalues(np.array([0.1, 1.2]))


def test_permuted_labels_keep_their_numbers_and_gaps():
    """Every draw holds the same labels; -1 stays in place; drawing in two goes gives the same as in one."""
    labels = np.array([0, 0, 1, -1, 2, 2, 2, -1])
    drawn = resampling.permuted_labels(labels, draws=50, rng=np.random.default_rng(1))
    assert (np.sort(drawn, axis=1) == np.sort(labels)).all()
    assert (drawn[:, [3, 7]] == -1).all()
    assert len(np.unique(drawn, axis=0)) > 20
    rng = np.random.default_rng(1)
    parts = [resampling.permuted_labels(labels, draws=k, rng=rng) for k in (20, 30)]
    np.testing.assert_array_equal(np.concatenate(parts), drawn)


@pytest.mark.parametrize("statistic", [class_selectivity_index, ratio_selectivity])
def test_permutation_null_equals_a_loop(statistic):
    """Observed value, null mean, null deviation and p equal one labelling after another, with images left out."""
    scores, labels = noise(6, 5, classes=4)
    labels[[0, 9]] = -1
    found = resampling.permutation_null(
        scores, labels, classes=4, statistic=statistic, draws=30, rng=np.random.default_rng(2)
    )
    kept = labels >= 0
    rng = np.random.default_rng(2)
    drawn = resampling.permuted_labels(labels[kept], draws=30, rng=rng)
    null = np.array([statistic(class_means(scores[kept], y, classes=4)[0]) for y in drawn])
    observed = statistic(class_means(scores, labels, classes=4)[0])
    np.testing.assert_allclose(found.observed, observed, rtol=1e-12)
    np.testing.assert_allclose(found.mean, null.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.deviation, null.std(axis=0, ddof=1), rtol=1e-9)
    np.testing.assert_array_equal(found.p, (1 + (null >= observed).sum(axis=0)) / 31)
    np.testing.assert_array_equal(found.excess, found.observed - found.mean)


def test_blocks_do_not_change_the_null(monkeypatch):
    """Small blocks of draws and units give the same p-values and, to rounding, the same moments as one block."""
    scores, labels = noise(5, 7)
    options = {"classes": 10, "statistic": class_selectivity_index, "draws": 25}
    whole = resampling.permutation_null(scores, labels, rng=np.random.default_rng(3), **options)
    ends = resampling.bootstrap_interval(scores, labels, rng=np.random.default_rng(3), **options)
    monkeypatch.setattr(resampling, "_BLOCK", 200)
    monkeypatch.setattr(resampling, "_UNITS", 2)
    parts = resampling.permutation_null(scores, labels, rng=np.random.default_rng(3), **options)
    np.testing.assert_array_equal(parts.p, whole.p)
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(parts.deviation, whole.deviation, rtol=1e-9)
    pieces = resampling.bootstrap_interval(scores, labels, rng=np.random.default_rng(3), **options)
    np.testing.assert_allclose(pieces, ends, rtol=1e-12)


@pytest.mark.parametrize(("images_per_class", "floor"), [(10, 0.317), (50, 0.160), (500, 0.054)])
def test_noise_has_a_floor_and_the_split_half_index_has_not(images_per_class, floor):
    """Pure-noise ReLU units: the plain index has its known floor, the null mean finds it, split halves remove it."""
    scores, labels = noise(images_per_class, 1000)
    rng = np.random.default_rng(4)
    plain = class_selectivity_index(class_means(scores, labels, classes=10)[0])
    assert plain.mean() == pytest.approx(floor, rel=0.03)
    null = resampling.permutation_null(scores, labels, classes=10, statistic=class_selectivity_index, draws=50, rng=rng)
    assert null.excess.mean() == pytest.approx(0, abs=0.02 * floor)
    halves = resampling.split_half(scores, labels, classes=10, rng=rng, splits=10)
    assert halves.index.mean() == pytest.approx(0, abs=0.06 * floor)  # the small bias that the docstring states
    assert halves.reliability.mean() == pytest.approx(0, abs=0.05)
    assert halves.agreement.mean() == pytest.approx(0.1, abs=0.02)  # one in ten by chance


@pytest.mark.parametrize("images_per_class", [10, 50])
def test_noise_stays_undistinguishable(images_per_class):
    """Of pure-noise units 5 % have p < 0.05, and almost none q < 0.05."""
    scores, labels = noise(images_per_class, 1000, seed=5)
    null = resampling.permutation_null(
        scores, labels, classes=10, statistic=class_selectivity_index, draws=200, rng=np.random.default_rng(6)
    )
    assert (null.p <= 0.05).mean() == pytest.approx(0.05, abs=0.021)  # 3 standard errors
    assert (resampling.bh_qvalues(null.p) < 0.05).mean() <= 0.05


def test_planted_units_are_found():
    """Among 90 % noise, units one deviation higher for one class of 20 images: power > 0.9, false discoveries rare."""
    scores, labels = noise(20, 1000, seed=7)
    planted = np.arange(100)
    shift = np.zeros_like(scores)
    shift[:, planted] = labels[:, None] == planted % 10
    rng = np.random.default_rng(8)
    scores = np.maximum(rng.standard_normal(scores.shape) + 1.5 * shift, 0)
    null = resampling.permutation_null(
        scores, labels, classes=10, statistic=class_selectivity_index, draws=500, rng=rng
    )
    found = resampling.bh_qvalues(null.p) < 0.05
    assert found[planted].mean() > 0.9
    assert found[100:].sum() <= 0.1 * found.sum()  # nominal rate 0.05, one draw of it
    halves = resampling.split_half(scores, labels, classes=10, rng=rng)
    assert halves.index[planted].min() > 0
    assert halves.reliability[planted].mean() > 0.7


def test_split_half_of_a_clear_unit_is_its_index():
    """Where the preference is beyond doubt, the held-out index is the plain index and the halves agree."""
    rng = np.random.default_rng(9)
    labels = np.repeat(np.arange(5), 40)
    scores = rng.random((200, 3)) + 5 * (labels == 2)[:, None]
    halves = resampling.split_half(scores, labels, classes=5, rng=rng)
    plain = class_selectivity_index(class_means(scores, labels, classes=5)[0])
    np.testing.assert_allclose(halves.index, plain, atol=0.01)
    np.testing.assert_array_equal(halves.agreement, 1)
    assert halves.reliability.min() > 0.99


def test_rarely_active_noise_is_not_biased():
    """Units that fire on 2 % of the images, anywhere, look selective (0.9) and have a held-out index near 0."""
    rng = np.random.default_rng(10)
    labels = np.repeat(np.arange(10), 10)
    scores = rng.random((100, 4000)) * (rng.random((100, 4000)) < 0.02)
    halves = resampling.split_half(scores, labels, classes=10, rng=rng)
    plain = class_selectivity_index(class_means(scores, labels, classes=10)[0])
    assert np.nanmean(plain) > 0.85  # units that never fire are nan in both
    assert np.nanmean(halves.index) == pytest.approx(0, abs=0.04)


def test_split_half_takes_half_of_every_class():
    """Classes with one image take no part; with two images per class each half has one, so constant classes agree."""
    labels = np.array([0, 0, 1, 1, 2])
    scores = np.array([[1.0], [1.0], [3.0], [3.0], [99.0]])
    halves = resampling.split_half(scores, labels, classes=3, rng=np.random.default_rng(0), splits=4)
    np.testing.assert_allclose([halves.index[0], halves.reliability[0], halves.agreement[0]], [0.5, 1, 1])
    alone = resampling.split_half(scores, np.array([0, 0, 1, 2, 2]) // 2, classes=3, rng=np.random.default_rng(0))
    assert np.isfinite(alone.index).all()
    none = resampling.split_half(scores, np.arange(5), classes=5, rng=np.random.default_rng(0))
    assert np.isnan(none.index).all()


def test_undefined_units_are_nan_everywhere():
    """Dead, constant and broken units are nan in null, halves and intervals; a negative one keeps its reliability."""
    rng = np.random.default_rng(11)
    labels = np.repeat(np.arange(3), 10)
    scores = rng.random((30, 6))
    scores[:, 1], scores[:, 2], scores[3, 3], scores[3, 4], scores[:, 5] = 0, 2, np.nan, np.inf, -scores[:, 5]
    expected = [False, True, True, True, True, True]
    options = {"classes": 3, "statistic": class_selectivity_index, "draws": 20}
    null = resampling.permutation_null(scores, labels, rng=rng, **options)
    for value in (null.observed, null.mean, null.deviation, null.p):
        np.testing.assert_array_equal(np.isnan(value), expected)
    halves = resampling.split_half(scores, labels, classes=3, rng=rng)
    np.testing.assert_array_equal(np.isnan(halves.index), expected)
    np.testing.assert_array_equal(np.isnan(halves.reliability), [*expected[:5], False])
    low, high = resampling.bootstrap_interval(scores, labels, rng=rng, **options)
    np.testing.assert_array_equal(np.isnan(low), expected)
    np.testing.assert_array_equal(np.isnan(high), expected)


def test_same_generator_same_numbers():
    """Everything random follows from the generator passed in, and units do not depend on their neighbours."""
    scores, labels = noise(8, 6)
    options = {"classes": 10, "statistic": class_selectivity_index, "draws": 20}
    for function in (resampling.permutation_null, resampling.bootstrap_interval):
        first = function(scores, labels, rng=np.random.default_rng(1), **options)
        again = function(scores[:, 4:], labels, rng=np.random.default_rng(1), **options)
        whole, part = (r if isinstance(r, tuple) else (r.mean, r.p) for r in (first, again))
        np.testing.assert_allclose([w[4:] for w in whole], part, rtol=1e-12)


def test_bootstrap_of_a_mean_matches_theory():
    """For the mean of one class the percentile interval is the normal one, mean +- 1.96 s / sqrt(n)."""
    rng = np.random.default_rng(12)
    scores, labels = rng.standard_normal((400, 2)), np.repeat([0, 1], 200)
    low, high = resampling.bootstrap_interval(
        scores, labels, classes=2, statistic=lambda means: means[..., 1], rng=rng, draws=4000
    )
    own = scores[labels == 1]
    half = 1.96 * own.std(axis=0) / np.sqrt(200)
    np.testing.assert_allclose(low, own.mean(axis=0) - half, atol=0.1 * half.max())
    np.testing.assert_allclose(high, own.mean(axis=0) + half, atol=0.1 * half.max())


def test_bootstrap_leaves_out_draws_without_a_value():
    """A statistic that is undefined in some draws has an interval from the others."""
    rng = np.random.default_rng(13)
    labels = np.repeat([0, 1], 6)
    scores = np.zeros((12, 1))
    scores[0] = 1.0  # a third of the draws miss this image: the unit is dead in them
    low, high = resampling.bootstrap_interval(
        scores, labels, classes=2, statistic=class_selectivity_index, rng=rng, draws=200
    )
    np.testing.assert_array_equal([low, high], [[1.0], [1.0]])


def test_mean_interval_equals_scipy():
    """The t interval is SciPy's, for any shape; one value has no interval."""
    rng = np.random.default_rng(14)
    values = rng.standard_normal((9, 4))
    low, high = resampling.mean_interval(values.mean(axis=0), values.var(axis=0), 9, level=0.9)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    np.testing.assert_allclose(low, expected.low, rtol=1e-12)
    np.testing.assert_allclose(high, expected.high, rtol=1e-12)
    single = resampling.mean_interval(np.zeros((2, 2)), np.zeros((2, 2)), np.array([1, 5]))[0]
    np.testing.assert_array_equal(np.isnan(single), [[True, False], [True, False]])


def test_wrong_input_is_refused():
    """No draws, no splits and a level in percent are errors that say what was expected."""
    scores, labels = noise(3, 2, classes=2)
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="at least 1 draws"):
        resampling.permuted_labels(labels, draws=0, rng=rng)
    with pytest.raises(InputError, match="at least 1 splits"):
        resampling.split_half(scores, labels, classes=2, rng=rng, splits=0)
    with pytest.raises(InputError, match="a level lies between 0 and 1"):
        resampling.bootstrap_interval(scores, labels, classes=2, statistic=class_selectivity_index, rng=rng, level=95.0)


@given(right=st.integers(0, 200), more=st.integers(0, 200))
def test_wilson_interval(right: int, more: int) -> None:
    """The interval's ends solve the score equation |share - p| = z sqrt(p (1 - p) / n); it holds the share."""
    n = right + more
    low, high = (float(end[0]) for end in resampling.wilson_interval(np.array([right]), np.array([n])))
    if n == 0:
        assert np.isnan([low, high]).all()
        return
    share = right / n
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):
        # The exact quantile of 97.5 %; rounding of the square root near 0 and 1 sets the tolerance.
        assert abs(share - end) == pytest.approx(1.959963984540054 * np.sqrt(end * (1 - end) / n), abs=1e-7)
