"""Areas under the ROC curve and rank correlations: laws, slow twins, and scikit-learn and SciPy as oracles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from neuronscope.errors import DataError, InputError
from neuronscope.maths import ranks


@st.composite
def problems(draw):
    """Scores with many ties, or none, and labels with images left out and classes that may be empty."""
    images, units, classes = draw(st.integers(1, 40)), draw(st.integers(1, 5)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([2, 5, 10_000]))
    scores = rng.integers(-levels // 2, levels // 2 + 1, size=(images, units)) / 8
    return scores.astype(draw(st.sampled_from([np.float32, np.float64]))), rng.integers(-1, classes, images), classes


def pairs_auroc(scores, labels, classes):
    """The definition: every pair of an image of the class and another one, ties counting one half."""
    area = np.full((scores.shape[1], classes), np.nan)
    for unit, c in np.ndindex(area.shape):
        inside, outside = scores[labels == c, unit], scores[(labels != c) & (labels >= 0), unit]
        if inside.size and outside.size:
            won = (inside[:, None] > outside).sum() + 0.5 * (inside[:, None] == outside).sum()
            area[unit, c] = won / (inside.size * outside.size)
    return area


@settings(deadline=None, max_examples=60)
@given(problems())
def test_auroc_counts_pairs(problem):
    """The area is the share of pairs in the right order, with empty classes and classes without others as nan."""
    scores, labels, classes = problem
    np.testing.assert_allclose(
        ranks.auroc(scores, labels, classes=classes), pairs_auroc(scores, labels, classes), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("rectified", [False, True])
def test_auroc_equals_scikit_learn(rectified):
    """All units x classes equal `roc_auc_score` to 1e-12, with and without the ties of a ReLU, over several blocks."""
    rng = np.random.default_rng(1)
    scores = rng.standard_normal((1000, 150)).astype(np.float32)
    scores = np.maximum(scores, 0) if rectified else scores
    labels = rng.integers(0, 7, len(scores))
    area = ranks.auroc(scores, labels, classes=7)
    for unit in (0, 1, 77, 149):
        expected = [roc_auc_score(labels == c, scores[:, unit]) for c in range(7)]
        np.testing.assert_allclose(area[unit], expected, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(problems())
def test_auroc_depends_on_order_alone(problem):
    """Increasing maps of the scores change no bit; turning the scores round gives 1 - area; image order is free."""
    scores, labels, classes = problem
    area = ranks.auroc(scores, labels, classes=classes)
    np.testing.assert_array_equal(ranks.auroc(scores.astype(np.float64) * 4 - 3, labels, classes=classes), area)
    np.testing.assert_array_equal(ranks.auroc(np.cbrt(scores.astype(np.float64)), labels, classes=classes), area)
    np.testing.assert_allclose(ranks.auroc(-scores, labels, classes=classes), 1 - area, rtol=0, atol=1e-12)
    mixed = np.random.default_rng(0).permutation(len(labels))
    np.testing.assert_array_equal(ranks.auroc(scores[mixed], labels[mixed], classes=classes), area)


def test_nan_scores_are_confined_to_their_unit():
    """One nan score makes its unit nan and leaves the others as they were; infinite scores are ranked."""
    rng = np.random.default_rng(2)
    scores, labels = rng.standard_normal((50, 3)), rng.integers(0, 2, 50)
    whole = ranks.auroc(scores, labels, classes=2)
    scores[7, 1] = np.nan
    scores[scores[:, 2].argmax(), 2] = np.inf
    area = ranks.auroc(scores, labels, classes=2)
    assert np.isnan(area[1]).all()
    np.testing.assert_array_equal(area[[0, 2]], whole[[0, 2]])
    assert np.isnan(ranks.midranks(scores)[:, 1]).all()
    assert np.isnan(ranks.spearman(scores, scores)[1]).all()


def test_constant_units_have_half_and_no_test():
    """A constant unit has area 0.5, as in scikit-learn, and nothing to test: z and p are nan."""
    summed = ranks.rank_sums(np.zeros((20, 1)), np.repeat([0, 1], 10), classes=2)
    np.testing.assert_array_equal(ranks.auroc_from_ranks(summed), [[0.5, 0.5]])
    assert np.isnan(ranks.auroc_pvalues(summed).p).all()


def test_no_images_give_nan():
    """Without any image that has a class, every area and interval is nan."""
    area = ranks.auroc(np.zeros((3, 2)), np.full(3, -1), classes=2)
    assert np.isnan(area).all()
    assert np.isnan(ranks.auroc_interval(area, np.array([0, 0]))[0]).all()


@pytest.mark.parametrize("levels", [3, 100_000])
def test_pvalues_equal_scipy(levels):
    """Both z and p are those of SciPy's asymptotic Mann-Whitney test, with its corrections for ties and continuity."""
    rng = np.random.default_rng(3)
    scores, labels = rng.integers(0, levels, (60, 4)).astype(np.float64), rng.integers(0, 3, 60)
    found = ranks.auroc_pvalues(ranks.rank_sums(scores, labels, classes=3))
    for unit, c in np.ndindex(4, 3):
        oracle = stats.mannwhitneyu(scores[labels == c, unit], scores[labels != c, unit], method="asymptotic")
        np.testing.assert_allclose(found.p[unit, c], oracle.pvalue, rtol=1e-10)


def test_pvalues_are_uniform_on_noise_and_small_on_signal():
    """Of 2,000 noise units about 5 % have p < 0.05; a shifted class has a tiny p and a positive z."""
    rng = np.random.default_rng(4)
    scores, labels = rng.standard_normal((200, 2000)), np.repeat([0, 1], 100)
    p = ranks.auroc_pvalues(ranks.rank_sums(scores, labels, classes=2)).p[:, 0]
    assert 0.035 < (p < 0.05).mean() < 0.065  # 3 standard errors of a binomial share
    scores[labels == 1] += 1.5
    shifted = ranks.auroc_pvalues(ranks.rank_sums(scores, labels, classes=2))
    assert shifted.p.max() < 1e-6
    assert shifted.z[:, 1].min() > 0


def test_interval_covers_the_true_area():
    """A 95 % interval holds the true area of two normal distributions in about 95 of 100 cases, at 20 images each."""
    rng = np.random.default_rng(5)
    labels = np.repeat([0, 1], 20)
    for shift in (0.0, 1.0, 2.0):
        scores = rng.standard_normal((40, 2000)) + shift * labels[:, None]
        area = ranks.auroc(scores, labels, classes=2)
        low, high = ranks.auroc_interval(area, np.array([20, 20]))
        truth = stats.norm.cdf(shift / np.sqrt(2))
        assert 0.93 < ((low[:, 1] <= truth) & (truth <= high[:, 1])).mean() < 0.98


def test_interval_solves_its_equation():
    """Each limit lies the asked number of its own standard errors from the area, and stays within 0 to 1."""
    area, counts = np.array([[0.0, 0.31, 0.5, 0.97, 1.0]]), np.array([4, 9, 20, 30, 5])
    low, high = ranks.auroc_interval(area, counts, level=0.9)
    assert ((low >= 0) & (low <= area) & (area <= high) & (high <= 1)).all()
    assert ((high - low) > 0).all()
    m, k = counts, counts.sum() - counts
    n = (m + k) / 2 - 1
    for limit in (low, high):
        variance = limit * (1 - limit) * (1 + n * (1 - limit) / (2 - limit) + n * limit / (1 + limit)) / (m * k)
        at_border = (limit == area) | (limit < 1e-9) | (limit > 1 - 1e-9)
        expected = stats.norm.ppf(0.95) * np.sqrt(variance)
        np.testing.assert_allclose(np.abs(area - limit)[~at_border], expected[~at_border], atol=1e-9)
    mirrored = ranks.auroc_interval(1 - area, counts, level=0.9)
    np.testing.assert_allclose(mirrored[0], 1 - high, atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(problems())
def test_midranks_and_spearman_equal_scipy(problem):
    """Midranks are `rankdata`'s; correlations are those of Pearson on them, nan for constant units."""
    scores, _, _ = problem
    expected = stats.rankdata(scores, axis=0)
    np.testing.assert_array_equal(ranks.midranks(scores), expected)
    found = ranks.spearman(scores, scores[:, ::-1])
    for i, j in np.ndindex(found.shape):
        a, b = expected[:, i], expected[:, scores.shape[1] - 1 - j]
        if np.ptp(a) == 0 or np.ptp(b) == 0:
            assert np.isnan(found[i, j])
        else:
            np.testing.assert_allclose(found[i, j], np.corrcoef(a, b)[0, 1], rtol=0, atol=1e-12)


def test_wrong_input_is_refused():
    """Labels outside the classes, too few labels, no classes, unequal images and senseless levels are errors."""
    scores = np.zeros((3, 1))
    with pytest.raises(DataError, match="label 4 of image 1 is outside the classes 0 to 2"):
        ranks.auroc(scores, np.array([0, 4, 1]), classes=3)
    with pytest.raises(InputError, match="at least 1 class"):
        ranks.auroc(scores, np.array([0, 0, 0]), classes=0)
    with pytest.raises(InputError, match="between 0 and 1"):
        ranks.auroc_interval(np.array([[0.5]]), np.array([2]), level=95.0)
    with pytest.raises((InputError, TypeError), match=r"3 and 2 images|n=3"):  # TypeError: the shape check of test runs
        ranks.spearman(np.zeros((3, 1)), np.zeros((2, 1)))


def test_ranking_once_is_much_faster_than_pair_by_pair():
    """100 units x 50 classes x 1,000 images take less time than 100 of their 5,000 pairs in scikit-learn's loop."""
    from time import perf_counter

    rng = np.random.default_rng(6)
    scores, labels = rng.standard_normal((1000, 100)).astype(np.float32), rng.integers(0, 50, 1000)
    ranks.auroc(scores, labels, classes=50)
    start = perf_counter()
    ranks.auroc(scores, labels, classes=50)
    matrix = perf_counter() - start
    start = perf_counter()
    for pair in range(100):
        roc_auc_score(labels == pair % 50, scores[:, pair])
    assert matrix < perf_counter() - start
