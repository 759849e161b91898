"""Selectivity indices: known answers, slow twins written from the definitions, and laws."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuronscope.errors import DataError, InputError
from neuronscope.maths import selectivity


@st.composite
def problems(draw):
    """Non-negative scores with many zeros and ties, and labels with images left out and classes that may be empty."""
    images, units, classes = draw(st.integers(1, 40)), draw(st.integers(1, 5)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([2, 6, 10_000]))
    scores = np.maximum(rng.integers(-levels, levels + 1, size=(images, units)) / 8, 0)
    return scores.astype(draw(st.sampled_from([np.float32, np.float64]))), rng.integers(-1, classes, images), classes


def indices(scores, labels, classes):
    """Every index that needs labels, by name."""
    means, _ = selectivity.class_means(scores, labels, classes=classes)
    moments = selectivity.class_moments(scores, labels, classes=classes)
    kept = int((labels >= 0).sum())
    return {
        "csi": selectivity.class_selectivity_index(means),
        "ratio": selectivity.ratio_selectivity(means),
        "effective": selectivity.effective_classes(means),
        "dprime": selectivity.dprime(moments.means, moments.variances, moments.counts),
        "information": selectivity.mutual_information(scores, labels, classes=classes),
        "informedness": selectivity.max_informedness(scores, labels, classes=classes),
        "precision": selectivity.precision_at(scores, labels, classes=classes, n=kept // 2 + 1) if kept > 1 else None,
    }


@settings(deadline=None, max_examples=40)
@given(problems())
def test_class_moments_equal_a_loop(problem):
    """Means and population variances are those of the images of each class; nan for classes without images."""
    scores, labels, classes = problem
    found = selectivity.class_moments(scores, labels, classes=classes)
    for c in range(classes):
        own = scores[labels == c].astype(np.float64)
        assert found.counts[c] == len(own)
        if len(own):
            np.testing.assert_allclose(found.means[:, c], own.mean(axis=0), rtol=1e-12)
            np.testing.assert_allclose(found.variances[:, c], own.var(axis=0), rtol=1e-9, atol=1e-12)
        else:
            assert np.isnan(found.means[:, c]).all()


@settings(deadline=None, max_examples=40)
@given(problems())
def test_order_of_images_changes_nothing(problem):
    """All indices are the same for images in another order, to rounding."""
    scores, labels, classes = problem
    mixed = np.random.default_rng(0).permutation(len(labels))
    before, after = indices(scores, labels, classes), indices(scores[mixed], labels[mixed], classes)
    for name, value in before.items():
        if value is not None:
            np.testing.assert_allclose(after[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


@settings(deadline=None, max_examples=40)
@given(problems(), st.sampled_from([0.25, 2.0, 1024.0]))
def test_indices_have_no_unit_of_measure(problem, factor):
    """Scaling all scores by a power of two changes no index."""
    scores, labels, classes = problem
    before, after = indices(scores, labels, classes), indices(scores * scores.dtype.type(factor), labels, classes)
    for name, value in before.items():
        if value is not None:
            np.testing.assert_allclose(after[name], value, rtol=1e-12, atol=1e-14, err_msg=name)


@settings(deadline=None, max_examples=40)
@given(problems())
def test_indices_of_means_equal_their_definitions(problem):
    """CSI, ratio and effective number of classes equal the formulas written out, within their ranges."""
    scores, labels, classes = problem
    means, _ = selectivity.class_means(scores, labels, classes=classes)
    index, ratio = selectivity.class_selectivity_index(means), selectivity.ratio_selectivity(means)
    effective = selectivity.effective_classes(means)
    for unit, row in enumerate(means):
        present = sorted(row[~np.isnan(row)])
        if len(present) < 2 or sum(present) == 0:
            assert np.isnan(index[unit])
            assert np.isnan(ratio[unit])
            continue
        rest = sum(present[:-1]) / (len(present) - 1)
        assert index[unit] == pytest.approx((present[-1] - rest) / (present[-1] + rest), abs=1e-12)
        assert ratio[unit] == pytest.approx(present[-1] / sum(present), abs=1e-12)
        shares = [m / sum(present) for m in present if m > 0]
        assert effective[unit] == pytest.approx(math.exp(-sum(s * math.log(s) for s in shares)), abs=1e-9)


def test_indices_of_means_at_their_ends():
    """One class only: 1; all alike: 0 and 1/C; dead and negative units: nan; leading axes are free."""
    means = np.array([[0.0, 4.0, 0.0], [2.0, 2.0, 2.0], [0.0, 0.0, 0.0], [-1.0, 2.0, 3.0], [np.nan, 1.0, 3.0]])
    index = selectivity.class_selectivity_index(means)
    np.testing.assert_allclose(index, [1, 0, np.nan, np.nan, 0.5])
    np.testing.assert_allclose(selectivity.ratio_selectivity(means), [1, 1 / 3, np.nan, np.nan, 0.75])
    np.testing.assert_allclose(selectivity.effective_classes(means)[:3], [1, 3, np.nan])
    np.testing.assert_array_equal(selectivity.class_selectivity_index(np.stack([means, means])), [index, index])
    legacy = selectivity.ratio_selectivity(np.array([[1e-6, 0.0]]), epsilon=1e-6)
    assert legacy[0] == pytest.approx(0.5)


@settings(deadline=None, max_examples=40)
@given(problems())
def test_dprime_equals_two_groups(problem):
    """The d' from class moments is d' of the class's images against all others."""
    scores, labels, classes = problem
    moments = selectivity.class_moments(scores, labels, classes=classes)
    found = selectivity.dprime(moments.means, moments.variances, moments.counts)
    wide = scores.astype(np.float64)
    for unit, c in np.ndindex(found.shape):
        inside, outside = wide[labels == c, unit], wide[(labels != c) & (labels >= 0), unit]
        if not inside.size or not outside.size:
            assert np.isnan(found[unit, c])
            continue
        difference = inside.mean() - outside.mean()
        deviation = math.sqrt((inside.var() + outside.var()) / 2)
        if deviation < 1e-12:
            assert np.isnan(found[unit, c]) if abs(difference) < 1e-12 else np.isinf(found[unit, c])
        else:
            assert found[unit, c] == pytest.approx(difference / deviation, rel=1e-6, abs=1e-9)


def test_dprime_of_shifted_normals():
    """Two classes of normal scores two deviations apart have d' of about 2, whatever the offset."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 20_000)
    scores = (rng.standard_normal(40_000) + 2 * labels - 5)[:, None]
    moments = selectivity.class_moments(scores, labels, classes=2)
    found = selectivity.dprime(moments.means, moments.variances, moments.counts)
    assert found[0, 1] == pytest.approx(2, abs=0.04)  # standard error about 0.012
    assert found[0, 0] == pytest.approx(-found[0, 1])


@settings(deadline=None, max_examples=40)
@given(problems(), st.integers(2, 9), st.sampled_from(["miller-madow", "none"]))
def test_mutual_information_equals_a_loop(problem, bins, correction):
    """Bins, entropies and correction equal the definition written out for one unit at a time."""
    scores, labels, classes = problem
    found = selectivity.mutual_information(scores, labels, classes=classes, bins=bins, correction=correction)
    kept = labels >= 0
    for unit in range(scores.shape[1]):
        z, y = scores[kept, unit].astype(np.float64), labels[kept]
        if len(set(z)) < 2:
            assert np.isnan(found[unit])
            continue
        assert found[unit] == pytest.approx(loop_information(z, y, bins, correction), abs=1e-9)


def loop_information(z, y, bins, correction):
    """I(b; y) of one unit in bits, from the docstring."""
    own_bin = (z == 0).sum() >= len(z) / bins
    rest = [value for value in z if value != 0] if own_bin else list(z)
    width = bins - 1 if own_bin else bins

    def number(value):
        if own_bin and value == 0:
            return -1
        midrank = sum(other < value for other in rest) + (sum(other == value for other in rest) + 1) / 2
        return math.floor((midrank - 0.5) * width / len(rest) + 1e-12)

    coded = [number(value) for value in z]

    def entropy(symbols):
        counts = [symbols.count(symbol) for symbol in set(symbols)]
        plugin = -sum(k / len(symbols) * math.log2(k / len(symbols)) for k in counts)
        return plugin + (len(counts) - 1) / (2 * len(symbols) * math.log(2)) * (correction == "miller-madow")

    return entropy(coded) + entropy(list(y)) - entropy(list(zip(coded, y, strict=True)))


def test_mutual_information_of_noise_and_of_a_code():
    """Noise has about 0 bits once corrected (and clearly more before); a unit that codes 4 classes has 2 bits."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 1000)
    scores = np.column_stack([rng.random((1000, 50)), labels])
    plain = selectivity.mutual_information(scores, labels, classes=4, correction="none")
    corrected = selectivity.mutual_information(scores, labels, classes=4)
    assert plain[:50].mean() > 0.013  # (8 - 1)(4 - 1) / (2 N ln 2) = 0.015
    assert abs(corrected[:50].mean()) < 0.003
    assert plain[50] == pytest.approx(2, abs=0.01)


def test_mutual_information_sees_two_preferred_classes():
    """A unit for classes 0 and 1 of 4 has one bit."""
    labels = np.arange(400) % 4
    scores = np.where(labels < 2, 1.0, 0.0)[:, None]
    found = selectivity.mutual_information(scores, labels, classes=4, correction="none")
    assert found[0] == pytest.approx(1)


@settings(deadline=None, max_examples=40)
@given(problems())
def test_sparseness_equals_its_definition(problem):
    """Lifetime sparseness of a unit, and population sparseness of an image, equal Vinje and Gallant's formula."""
    scores, _, _ = problem
    lifetime, population = selectivity.lifetime_sparseness(scores), selectivity.population_sparseness(scores)
    for values, found in [*zip(scores.T, lifetime, strict=True), *zip(scores, population, strict=True)]:
        wide = values.astype(np.float64)
        if len(wide) < 2 or not wide.any():
            assert np.isnan(found)
        elif not np.isnan(found):
            expected = (1 - wide.mean() ** 2 / (wide**2).mean()) / (1 - 1 / len(wide))
            assert found == pytest.approx(expected, abs=1e-12)


def test_sparseness_of_known_cases():
    """One of n gives 1; half of n gives (1 - 1/2) / (1 - 1/n); constant, negative and infinite units are nan."""
    scores = np.zeros((10, 5))
    scores[0, 0], scores[:5, 1], scores[:, 2], scores[3, 3], scores[3, 4] = 3.0, 7.0, 2.0, -1.0, np.inf
    found = selectivity.lifetime_sparseness(scores)
    np.testing.assert_allclose(found, [1, 0.5 / 0.9, np.nan, np.nan, np.nan])


@settings(deadline=None, max_examples=40)
@given(problems(), st.integers(1, 40))
def test_precision_is_the_average_over_ways_to_break_ties(problem, n):
    """With ties across the border, each tied image counts by its chance of being drawn."""
    scores, labels, classes = problem
    kept = labels >= 0
    if n > kept.sum():
        with pytest.raises(InputError, match="cannot be taken"):
            selectivity.precision_at(scores, labels, classes=classes, n=n)
        return
    found = selectivity.precision_at(scores, labels, classes=classes, n=n)
    for unit in range(scores.shape[1]):
        z, y = scores[kept, unit], labels[kept]
        if len(set(z)) < 2:
            assert np.isnan(found[unit])
            continue
        border = sorted(z)[-n]
        drawn = (n - (z > border).sum()) / (z == border).sum()
        weights = np.where(z > border, 1.0, np.where(z == border, drawn, 0.0))
        expected = max(weights[y == c].sum() for c in range(classes)) / n
        assert found[unit] == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(problems())
def test_informedness_is_the_best_threshold(problem):
    """The maximum of true-positive minus false-positive rate over every threshold, tried one by one."""
    scores, labels, classes = problem
    found = selectivity.max_informedness(scores, labels, classes=classes)
    kept = labels >= 0
    for unit, c in np.ndindex(found.shape):
        z, y = scores[kept, unit], labels[kept] == c
        if y.all() or not y.any() or len(set(z)) < 2:
            assert np.isnan(found[unit, c])
            continue
        best = max((z[y] >= t).mean() - (z[~y] >= t).mean() for t in z)
        assert found[unit, c] == pytest.approx(max(best, 0), abs=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_units_are_nan_and_leave_the_others_alone(value):
    """A score that is not finite makes the indices of its unit nan, and changes no other unit."""
    rng = np.random.default_rng(2)
    scores, labels = rng.random((30, 3)), np.arange(30) % 3
    before = indices(scores, labels, 3)
    scores[4, 1] = value
    after = indices(scores, labels, 3)
    for name, index in after.items():
        if np.isnan(value) or name not in ("informedness", "precision"):  # an infinite score still has a rank
            assert np.isnan(index[1]).all(), name
        np.testing.assert_array_equal(index[[0, 2]], before[name][[0, 2]], err_msg=name)


def test_dead_units_are_nan():
    """A unit that is never active has no selectivity: nan, never 0."""
    for name, index in indices(np.zeros((30, 1)), np.arange(30) % 3, 3).items():
        assert np.isnan(index).all(), name
    assert np.isnan(selectivity.lifetime_sparseness(np.zeros((30, 1)))).all()
    assert np.isnan(selectivity.population_sparseness(np.zeros((2, 5)))).all()


def test_many_units_are_worked_on_in_blocks():
    """More units than fit one block give the same as the units one by one."""
    rng = np.random.default_rng(3)
    scores, labels = np.maximum(rng.standard_normal((1000, 300)), 0), rng.integers(0, 5, 1000)
    together, alone = indices(scores, labels, 5), indices(scores[:, 299:], labels, 5)
    for name, index in together.items():
        np.testing.assert_allclose(index[299:], alone[name], rtol=1e-12, err_msg=name)


def test_wrong_input_is_refused():
    """Labels outside the classes and a single bin are errors that say what to do."""
    scores, labels = np.zeros((3, 1)), np.array([0, 1, -2])
    with pytest.raises(DataError, match="label -2 of image 2"):
        selectivity.class_means(scores, labels, classes=2)
    with pytest.raises(InputError, match="at least 2 bins"):
        selectivity.mutual_information(scores, np.array([0, 1, 1]), classes=2, bins=1)
