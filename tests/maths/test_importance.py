"""Contrasts, thresholds, masks, budgets and Inf-FS: laws, slow twins, and what each rule must and must not find."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from neuronscope.errors import InputError
from neuronscope.maths import importance
from neuronscope.maths.importance import Budget, MaskingRule
from neuronscope.maths.resampling import bh_qvalues
from neuronscope.maths.selectivity import class_moments


@st.composite
def layers(draw):
    """Scores of a few units on images of up to five classes, some without images: whole and half numbers, with ties."""
    classes = draw(st.integers(1, 5))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=25).map(np.array))
    units = draw(st.integers(1, 6))
    values = st.integers(-6, 12).map(lambda k: k / 2)
    return draw(hnp.arrays(np.float64, (len(labels), units), elements=values)), labels, classes


def moments_of(problem):
    """Class moments, as the functions take them."""
    scores, labels, classes = problem
    found = class_moments(scores, labels, classes=classes)
    return found.means, found.variances, found.counts


@given(layers())
def test_contrasts_equal_a_loop_over_classes(problem):
    """Contrast, scaled contrast and z are what their definitions give from the scores themselves."""
    scores, labels, classes = problem
    means, variances, counts = moments_of(problem)
    found = importance.contrast(means)
    scaled = importance.scaled_contrast(means, variances, counts)
    z = importance.contrast_z(means, variances, counts)
    groups = [scores[labels == c] for c in range(classes)]
    used = [c for c in range(classes) if counts[c]]
    for u in range(scores.shape[1]):
        spread = scores[:, u].std()
        inner = sum(((g[:, u] - g[:, u].mean()) ** 2).sum() for g in groups if len(g))
        pooled = inner / max(len(labels) - len(used), 1)
        freedom = len(labels) > len(used)
        error = {c: groups[c][:, u].var(ddof=1) / counts[c] if counts[c] > 1 else pooled for c in used}
        for c in range(classes):
            rest = [k for k in used if k != c]
            if c not in used or not rest:
                assert np.isnan([found[u, c], scaled[u, c], z[u, c]]).all()
                continue
            expected = groups[c][:, u].mean() - np.mean([groups[k][:, u].mean() for k in rest])
            # absolute, because a mean of halves may differ from zero by rounding
            assert found[u, c] == pytest.approx(expected, abs=1e-12)
            deviation = np.sqrt(error[c] + sum(error[k] for k in rest) / len(rest) ** 2)
            if spread < 1e-9:
                assert np.isnan([scaled[u, c], z[u, c]]).all()
            else:
                assert scaled[u, c] == pytest.approx(expected / spread, abs=1e-9)
            if not freedom:
                assert np.isnan(z[u, c])
            elif deviation > 1e-9:
                assert z[u, c] == pytest.approx(expected / deviation, rel=1e-9, abs=1e-9)
            else:
                certain = np.copysign(np.inf, expected) if abs(expected) > 1e-9 else np.nan
                np.testing.assert_equal(z[u, c], certain)


@given(layers(), st.sampled_from([0.5, 3.0, 1000.0]), st.sampled_from([-4.0, 0.0, 7.0]))
def test_contrasts_have_their_units(problem, factor, shift):
    """A contrast scales with the activations and minds no shift; the scaled one and z mind neither."""
    scores, labels, classes = problem
    means, variances, counts = moments_of(problem)
    other = moments_of((scores * factor + shift, labels, classes))
    # the numbers are halves below 10,000 in size: rounding stays under 1e-9
    np.testing.assert_allclose(importance.contrast(other[0]), factor * importance.contrast(means), atol=1e-9)
    for function in (importance.scaled_contrast, importance.contrast_z):
        np.testing.assert_allclose(function(*other), function(means, variances, counts), rtol=1e-7, atol=1e-7)


@given(layers())
def test_contrasts_of_all_classes_add_up_to_zero(problem):
    """What one class has more, the others have less."""
    means, _, counts = moments_of(problem)
    if (counts > 0).sum() > 1:
        np.testing.assert_allclose(np.nansum(importance.contrast(means), axis=1), 0, atol=1e-9)


def test_contrast_z_is_standard_normal_for_noise():
    """For units that know nothing of the classes z has mean near 0 and deviation 1, however skewed they are."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, size=400)
    scores = rng.gamma(2.0, size=(400, 3000))
    found = class_moments(scores, labels, classes=5)
    z = importance.contrast_z(found.means, found.variances, found.counts)
    # 3,000 units: standard errors of about 0.02 and 0.013; a skewness of 1.4 and 80 images pull the mean down by 0.08
    assert np.abs(z.mean(axis=0) + 0.06).max() < 0.08
    assert np.abs(z.std(axis=0) - 1).max() < 0.06


@given(layers())
def test_contrast_of_two_classes_is_welchs_test(problem):
    """With two classes z, degrees of freedom and both p-values are those of SciPy's t-test without equal variances."""
    scores, labels, _ = problem
    labels = np.minimum(labels, 1)
    if np.bincount(labels, minlength=2).min() < 2:
        return
    found = importance.contrast_test(*moments_of((scores, labels, 2)))
    for u in range(scores.shape[1]):
        one, two = scores[labels == 1, u], scores[labels == 0, u]
        if min(one.std(), two.std()) < 1e-9:  # SciPy warns
            continue
        higher = stats.ttest_ind(one, two, equal_var=False, alternative="greater")
        assert found.z[u, 1] == pytest.approx(higher.statistic, abs=1e-9)
        assert found.freedom[u, 1] == pytest.approx(higher.df)
        assert found.p_higher[u, 1] == pytest.approx(higher.pvalue, abs=1e-9)
        assert found.p_lower[u, 1] == pytest.approx(1 - higher.pvalue, abs=1e-9)
        np.testing.assert_allclose(found.p_lower[u, 0], found.p_higher[u, 1], rtol=1e-6)


@pytest.mark.parametrize("images", [3, 10, 100])
def test_p_values_of_noise_are_uniform_even_with_few_images(images):
    """Of units that know nothing of the classes, one in 20 and one in 200 have p below 0.05 and 0.005, no more."""
    labels = np.repeat(np.arange(4), images)
    scores = np.random.default_rng(8).standard_normal((4 * images, 10_000))
    p = importance.contrast_test(*moments_of((scores, labels, 4))).p_higher
    for level in (0.05, 0.005):
        # 10,000 units: standard errors below 5 % and 14 % of the levels; Welch's test is a bit cautious for few images
        assert 0.6 * level < (p < level).mean(axis=0).max() < 1.35 * level


def test_classes_apart_without_any_variation_are_certain():
    """Two different constants have infinite z and p of 0 and 1, not nan."""
    found = importance.contrast_test(np.array([[1.0, 0.0]]), np.zeros((1, 2)), np.array([3, 3]))
    assert found.z.tolist() == [[np.inf, -np.inf]]
    assert found.p_higher.tolist() == [[0, 1]]
    assert found.p_lower.tolist() == [[1, 0]]


def test_contrast_z_tells_apart_what_probabilities_cannot():
    """Two units so certain that their probability is exactly 1 for both still have different z."""
    means = np.array([[1.0, 0.0], [2.0, 0.0]])
    z = importance.contrast_z(means, np.full((2, 2), 0.01), np.array([100, 100]))
    assert (stats.norm.cdf(z[:, 0]) == 1).all()
    assert z[1, 0] > z[0, 0] + 10


def test_units_that_are_constant_or_nan_are_undefined():
    """A constant unit has no z, also where rounding makes its means differ; a nan unit is nan and harms no other."""
    scores = np.random.default_rng(1).random((30, 3))
    scores[:, 0] = 0.1
    scores[4, 1] = np.nan
    found = class_moments(scores, np.arange(30) % 3, classes=3)
    for function in (importance.scaled_contrast, importance.contrast_z):
        values = function(found.means, found.variances, found.counts)
        assert np.isnan(values[:2]).all()
        assert np.isfinite(values[2]).all()
    mask = importance.contrastive_mask(found.means, found.variances, found.counts, fraction=1.0)
    assert (mask[:2] == importance.LEAVE).all()


def test_fixed_threshold_z_is_the_one_sample_statistic():
    """It is scipy's one-sample t with the population deviation in place of the sample's."""
    scores = np.random.default_rng(2).random((50, 4))
    found = class_moments(scores, np.zeros(50, dtype=int), classes=1)
    z = importance.fixed_threshold_z(found.means, found.variances, found.counts, threshold=0.4)
    oracle = stats.ttest_1samp(scores, 0.4).statistic * np.sqrt(50 / 49)
    # 1e-8 is added to the deviation
    np.testing.assert_allclose(z[:, 0], oracle, rtol=1e-6)
    assert np.isnan(
        importance.fixed_threshold_z(np.array([[np.nan]]), np.array([[np.nan]]), np.array([0]), threshold=0)
    )


@given(layers(), st.sampled_from([0.0, 30.0, 50.0, 70.0, 100.0]))
def test_thresholds_equal_a_loop(problem, percentile):
    """Above and below are strict, per class, against NumPy's percentile of the layer; absent classes have none."""
    means, _, counts = moments_of(problem)
    found = importance.threshold_by_percentile(means, percentile=percentile)
    for c, count in enumerate(counts):
        if not count:
            assert np.isnan(found.thresholds[c])
            assert not (found.above[:, c] | found.below[:, c]).any()
            continue
        threshold = np.percentile(means[:, c], percentile)
        assert found.thresholds[c] == threshold
        assert found.above[:, c].tolist() == [m > threshold for m in means[:, c]]
        assert found.below[:, c].tolist() == [m < threshold for m in means[:, c]]


def loop_mask(means, variances, counts, *, fraction, rule):
    """The original's rule, one class and unit after the other, ties by unit number."""
    mask = np.full(means.shape, -1)
    allowed = int(len(means) * fraction)
    for c in range(means.shape[1]):
        if not counts[c]:
            continue
        error = (np.sqrt(variances[:, c]) + 1e-8) / np.sqrt(counts[c])
        high = [1 - stats.norm.cdf((rule.high - m) / e) for m, e in zip(means[:, c], error, strict=True)]
        low = [stats.norm.cdf((rule.low - m) / e) for m, e in zip(means[:, c], error, strict=True)]
        for unit in sorted(range(len(means)), key=lambda u: -high[u])[:allowed]:
            if high[unit] > rule.confidence:
                mask[unit, c] = 1
        for unit in sorted(range(len(means)), key=lambda u: low[u])[:allowed]:
            if low[unit] > rule.confidence:
                mask[unit, c] = 0
    return mask


@given(layers(), st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.sampled_from([0.0, 0.4, 0.9]))
def test_original_mask_equals_a_loop(problem, fraction, confidence):
    """The stable form is the rule written plainly; the other form fixes as many units, whatever its ties do."""
    means, variances, counts = moments_of(problem)
    rule = MaskingRule(high=1.0, low=0.5, confidence=confidence)
    stable = importance.original_mask(means, variances, counts, fraction=fraction, rule=rule)
    np.testing.assert_array_equal(stable, loop_mask(means, variances, counts, fraction=fraction, rule=rule))
    if confidence > 0.5:  # below, a unit may be both, and then the ties decide how many are ON
        other = importance.original_mask(means, variances, counts, fraction=fraction, rule=rule, ties="original")
        for code in (importance.ON, importance.OFF):
            np.testing.assert_array_equal((other == code).sum(axis=0), (stable == code).sum(axis=0))


def test_original_mask_has_the_defects_it_is_known_for():
    """Saturated units are taken by their number, not by evidence; the units surest to be off are not set OFF."""
    means = np.array([[1.0], [9.0], [5.0], [0.0], [0.3]])
    variances, counts = np.full((5, 1), 1e-4), np.array([100])
    mask = importance.original_mask(means, variances, counts, fraction=0.2)
    assert mask.ravel().tolist() == [1, -1, -1, -1, -1]
    # nearly everything may be fixed now, and still unit 3, silent for the class, comes too late
    mask = importance.original_mask(means, np.full((5, 1), 1e-16), counts, fraction=0.8)
    assert mask.ravel().tolist() == [1, 1, 1, -1, -1]


def test_reversed_sort_takes_equal_units_from_the_end():
    """The original's sort, turned round, prefers high unit numbers where few units tie (short lists sort stably)."""
    means = np.ones((4, 1))
    arguments = (means, np.full((4, 1), 1e-4), np.array([100]))
    assert importance.original_mask(*arguments, fraction=0.5, ties="original").ravel().tolist() == [-1, -1, 1, 1]
    assert importance.original_mask(*arguments, fraction=0.5, ties="stable").ravel().tolist() == [1, 1, -1, -1]


@given(layers(), st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.sampled_from([0.5, 0.9, 0.99]))
def test_contrastive_mask_equals_a_loop(problem, fraction, confidence):
    """ON and OFF are the first by z that pass q < 1 - confidence in one family of both directions."""
    means, variances, counts = moments_of(problem)
    test = importance.contrast_test(means, variances, counts)
    z = test.z
    q = bh_qvalues(np.concatenate([test.p_higher, test.p_lower]))
    units = len(means)
    expected = np.full(z.shape, -1)
    for c in range(z.shape[1]):
        tested = [u for u in range(units) if not np.isnan(z[u, c])]
        for u in sorted(tested, key=lambda u: -z[u, c])[: int(units * fraction)]:
            if z[u, c] > 0 and q[u, c] < 1 - confidence:
                expected[u, c] = 1
        for u in sorted(tested, key=lambda u: z[u, c])[: int(units * fraction)]:
            if z[u, c] < 0 and q[units + u, c] < 1 - confidence:
                expected[u, c] = 0
    found = importance.contrastive_mask(means, variances, counts, fraction=fraction, confidence=confidence)
    np.testing.assert_array_equal(found, expected)


def test_contrastive_mask_finds_planted_units_and_little_in_noise():
    """Units planted for a class are ON for it, a unit that shuns it is OFF; noise is left alone but for 10 in 100."""
    rng = np.random.default_rng(3)
    labels = np.arange(1000) % 10
    scores = rng.exponential(size=(1000, 200))
    scores[:, :3] += 2.0 * (labels == 4)[:, None]
    scores[:, 3] -= 2.0 * (labels == 4)
    scores *= 10.0 ** rng.integers(-3, 3, size=200)  # every unit has a scale of its own
    found = class_moments(scores, labels, classes=10)
    mask = importance.contrastive_mask(found.means, found.variances, found.counts, fraction=0.1)
    assert (mask[:3, 4] == importance.ON).all()
    assert mask[3, 4] == importance.OFF
    noise = importance.contrastive_mask(found.means[4:], found.variances[4:], found.counts, fraction=0.1)
    assert (noise != importance.LEAVE).sum() <= 10


def test_layer_fractions_and_fix_counts_of_the_original():
    """Six layers from 0.1 to 0.3 allow 3, 4, 11, 14 and 33 units in layers of 32, 32, 64, 64 and 128."""
    fractions = importance.layer_fractions(6)
    np.testing.assert_allclose(fractions, [0.1, 0.14, 0.18, 0.22, 0.26, 0.3])
    widths = (32, 32, 64, 64, 128)
    counts = [importance.fix_count(w, fraction=f) for w, f in zip(widths, fractions[:5], strict=True)]
    assert counts == [3, 4, 11, 14, 33]
    np.testing.assert_array_equal(importance.layer_fractions(1, base=0.2), [0.2])


def test_masking_rule_has_the_parameters_of_the_original():
    """The defaults are the main script's; those of its functions have a name of their own."""
    main = MaskingRule()
    assert (main.high, main.low, main.confidence, main.base, main.largest) == (0.55, 1e-5, 0.9, 0.1, 0.3)
    functions = importance.MASKING_DEFAULTS
    assert (functions.high, functions.low, functions.confidence) == (0.5, 1e-6, 0.8)
    assert (functions.base, functions.largest) == (0.1, 0.3)


scores_with_gaps = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=8),
    elements=st.one_of(st.integers(-3, 3).map(float), st.just(float("nan")), st.sampled_from([np.inf, -np.inf])),
)


@given(scores_with_gaps, st.integers(0, 10))
def test_choose_equals_sorting_by_score_then_number(scores, number):
    """The chosen are the first of a plain sort; nan never is; a fraction and a count of the same size agree."""
    chosen = importance.choose(scores, budget=Budget("count", number))
    for c in range(scores.shape[1]):
        known = [u for u in range(len(scores)) if not np.isnan(scores[u, c])]
        best = sorted(known, key=lambda u: (-scores[u, c], u))[:number]
        assert np.flatnonzero(chosen[:, c]).tolist() == sorted(best)
    share = min(number / len(scores), 1.0)
    np.testing.assert_array_equal(importance.choose(scores, budget=Budget("fraction", share)), chosen)


@given(scores_with_gaps, st.integers(0, 9))
def test_a_larger_budget_keeps_what_a_smaller_one_chose(scores, number):
    """Budgets are nested."""
    fewer = importance.choose(scores, budget=Budget("count", number))
    more = importance.choose(scores, budget=Budget("count", number + 1))
    assert (more >= fewer).all()


def test_budgets_round_as_they_say():
    """Fractions round up or down, and a whole number that floating point misses by a hair is that number."""
    assert Budget("fraction", 0.07).units(100) == 7
    assert Budget("fraction", 0.29, rounding="floor").units(100) == 29
    assert Budget("fraction", 0.001).units(64) == 1
    assert Budget("fraction", 0.001, rounding="floor").units(64) == 0
    assert Budget("count", 100).units(64) == 64
    assert Budget("percentile", 70).units(64) is None


def test_percentile_budget_is_the_thresholding_rule():
    """Choosing above the 70th percentile of the class means is what the original's thresholding does."""
    means = np.random.default_rng(4).random((32, 10))
    chosen = importance.choose(means, budget=Budget("percentile", 70))
    np.testing.assert_array_equal(chosen, importance.threshold_by_percentile(means).above)
    assert (chosen.sum(axis=0) == 10).all()


def loop_inf_fs(features, alpha, correlation):
    """Sum of paths of length 1, 2, ... from every feature, until nothing is added."""
    number = features.shape[1]
    deviation = features.std(axis=0) / features.std(axis=0).max()
    adjacency = np.zeros((number, number))
    for i in range(number):
        for j in range(number):
            rho = correlation(features[:, i], features[:, j]).statistic
            adjacency[i, j] = alpha * max(deviation[i], deviation[j]) + (1 - alpha) * (1 - abs(rho))
    step = adjacency * 0.9 / np.abs(np.linalg.eigvals(adjacency)).max()
    paths, total = np.ones(number), np.zeros(number)
    for _ in range(400):  # 0.9**400 is below 1e-18
        paths = step @ paths
        total += paths
    return total


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("name", "oracle"), [("spearman", stats.spearmanr), ("pearson", stats.pearsonr)])
def test_inf_fs_sums_paths_of_any_length(alpha, name, oracle):
    """The closed form equals adding up paths one length after another; constants change nothing and score 0."""
    features = np.random.default_rng(5).gamma(1.0, size=(40, 6)) * np.arange(1, 7)
    expected = loop_inf_fs(features, alpha, oracle)
    # the loop's own sums round at about 1e-15 of each of 400 terms
    np.testing.assert_allclose(importance.inf_fs(features, alpha=alpha, correlation=name), expected, rtol=1e-9)
    padded = np.insert(features, [0, 3], 0.1, axis=1)
    found = importance.inf_fs(padded, alpha=alpha, correlation=name)
    assert found[[0, 4]].tolist() == [0, 0]
    np.testing.assert_allclose(np.delete(found, [0, 4]), expected, rtol=1e-9)


def test_inf_fs_ranks_what_varies_and_differs():
    """Of features that vary alike the odd one out is first; of unrelated ones the one that varies most."""
    rng = np.random.default_rng(6)
    common = rng.standard_normal((300, 1))
    alike = np.concatenate([common + 0.01 * rng.standard_normal((300, 4)), rng.standard_normal((300, 1))], axis=1)
    assert importance.inf_fs(alike).argmax() == 4
    unrelated = rng.standard_normal((300, 4)) * [1, 1, 3, 1]
    assert importance.inf_fs(unrelated).argmax() == 2


@given(st.permutations(range(5)), st.sampled_from([0.1, 8.0]))
def test_inf_fs_minds_neither_order_nor_scale(order, factor):
    """Scores go with their features, and a common scale of all features changes nothing."""
    features = np.random.default_rng(7).exponential(size=(20, 5))
    expected = importance.inf_fs(features)
    np.testing.assert_allclose(importance.inf_fs(factor * features[:, order]), expected[order], rtol=1e-9)


def test_inf_fs_without_a_graph_scores_zero():
    """All constant, none, or one feature that differs from nothing: no path, no score."""
    assert importance.inf_fs(np.ones((5, 3))).tolist() == [0, 0, 0]
    assert importance.inf_fs(np.ones((5, 0))).tolist() == []
    assert importance.inf_fs(np.arange(5.0)[:, None], alpha=0.0).tolist() == [0]
    # one feature: 1 / (1 - 0.9) - 1
    assert importance.inf_fs(np.arange(5.0)[:, None])[0] == pytest.approx(9)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: MaskingRule(confidence=1.2), "confidence lies between 0 and 1, got 1.2"),
        (lambda: MaskingRule(high=float("nan")), "thresholds of the masking rule"),
        (lambda: Budget("fraction", 30), "between 0 and 1, got 30"),
        (lambda: Budget("count", 2.5), "whole units"),
        (lambda: Budget("count", -1), "whole units"),
        (lambda: Budget("percentile", 170), "between 0 and 100"),
        (lambda: importance.layer_fractions(0), "at least 1 layer"),
        (lambda: importance.layer_fractions(3, largest=3.0), "largest lies between"),
        (lambda: importance.fix_count(3, fraction=-0.1), "fraction lies between"),
        (lambda: importance.threshold_by_percentile(np.ones((2, 2)), percentile=-1), "between 0 and 100"),
        (lambda: importance.inf_fs(np.array([[1.0, np.nan]])), "1 columns are not, first 1"),
        (lambda: importance.inf_fs(np.ones((2, 2)), alpha=2), "alpha lies between"),
    ],
)
def test_impossible_parameters_are_refused(call, text):
    """A parameter out of range is named, with its range and what came."""
    with pytest.raises(InputError, match=text):
        call()


def test_layers_without_units_and_classes_without_others():
    """Empty layers give empty answers, one class gives undefined contrasts; nothing warns."""
    empty = np.zeros((0, 3))
    counts = np.array([2, 2, 2])
    assert importance.contrast_z(empty, empty, counts).shape == (0, 3)
    assert importance.contrastive_mask(empty, empty, counts, fraction=0.5).shape == (0, 3)
    assert importance.original_mask(empty, empty, counts, fraction=0.5).shape == (0, 3)
    assert importance.choose(empty, budget=Budget("fraction", 0.5)).shape == (0, 3)
    assert np.isnan(importance.threshold_by_percentile(empty).thresholds).all()
    assert np.isnan(importance.contrast(np.ones((2, 1)))).all()
    assert np.isnan(
        importance.scaled_contrast(np.full((2, 2), np.nan), np.full((2, 2), np.nan), np.zeros(2, int))
    ).all()
