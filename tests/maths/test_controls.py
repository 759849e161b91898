"""Controls, paired changes and curves: laws, known answers, slow twins, and how often intervals and p-values hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from neuronscope.errors import DataError, InputError, UnknownName
from neuronscope.maths.controls import (
    against_controls,
    area_between,
    area_between_by_class,
    curve_area,
    matched_sets,
    mcnemar_exact,
    paired_accuracy_change,
    paired_accuracy_change_by_class,
)


def rng(seed=0):
    """A fresh source of random numbers."""
    return np.random.default_rng(seed)


layers = st.dictionaries(
    st.sampled_from(["conv1", "conv2", "fc"]),
    st.integers(1, 12).flatmap(
        lambda size: st.tuples(
            st.just(size), st.integers(0, size), st.lists(st.booleans(), min_size=size, max_size=size)
        )
    ),
    min_size=1,
)


@given(layers, st.integers(1, 5), st.integers(0, 2**20))
def test_matched_sets_match_and_avoid(drawn, draws, seed):
    """Every draw has the count of every layer; it shares with the avoided units only what it must, as reported."""
    sizes = {layer: size for layer, (size, _, _) in drawn.items()}
    counts = {layer: count for layer, (_, count, _) in drawn.items()}
    avoid = {layer: np.array(mask) for layer, (_, _, mask) in drawn.items()}
    sets = matched_sets(counts, sizes, draws=draws, rng=rng(seed), avoid=avoid)
    for layer, mask in sets.masks.items():
        assert mask.shape == (draws, sizes[layer])
        assert (mask.sum(axis=1) == counts[layer]).all()
        assert ((mask & avoid[layer]).sum(axis=1) == sets.shared[layer]).all()
        assert sets.shared[layer] == max(0, counts[layer] - (~avoid[layer]).sum())


def test_matched_sets_are_uniform():
    """Every unit that may be drawn is drawn equally often, and every pair too."""
    masks = matched_sets({"a": 2}, {"a": 5}, draws=20000, rng=rng()).masks["a"].astype(float)
    # standard errors 0.0035 and 0.0022
    np.testing.assert_allclose(masks.mean(axis=0), 0.4, atol=0.015)
    together = masks.T @ masks / len(masks)
    np.testing.assert_allclose(together[~np.eye(5, dtype=bool)], 0.1, atol=0.01)


def test_more_draws_begin_with_the_same():
    """Asking for more draws, or looking at one layer first, changes none of those there were."""
    counts, sizes = {"a": 3, "b": 1}, {"a": 9, "b": 4}
    few = matched_sets(counts, sizes, draws=5, rng=rng(3))
    many = matched_sets(counts, sizes, draws=50, rng=rng(3))
    for layer in counts:
        np.testing.assert_array_equal(many.masks[layer][:5], few.masks[layer])
    assert few.shared == {"a": 0, "b": 0}


def test_matched_sets_refuse_what_cannot_be():
    """Unknown layers, impossible counts, masks of another width and no draws are named."""
    with pytest.raises(UnknownName, match="Closest: 'conv1'"):
        matched_sets({"conv2": 1}, {"conv1": 5}, draws=1, rng=rng())
    with pytest.raises(InputError, match="6 units cannot be drawn"):
        matched_sets({"a": 6}, {"a": 5}, draws=1, rng=rng())
    with pytest.raises(InputError, match="mask of 4"):
        matched_sets({"a": 1}, {"a": 5}, draws=1, rng=rng(), avoid={"a": np.zeros(4, dtype=bool)})
    with pytest.raises(InputError, match="at least 1 draw"):
        matched_sets({"a": 1}, {"a": 5}, draws=0, rng=rng())


def test_counted_p_is_the_definition():
    """From 1,000 controls on, p counts the finding among the draws, and limits are quantiles, on any axes."""
    controls = rng(1).integers(0, 50, (1000, 2, 3)).astype(float)
    observed = rng(2).integers(0, 60, (2, 3)).astype(float)
    found = against_controls(observed, controls, level=0.9)
    assert found.null == "permutation"
    assert found.draws == 1000
    for place in np.ndindex(2, 3):
        own = controls[:, *place]
        greater = (1 + sum(value >= observed[place] for value in own)) / 1001
        less = (1 + sum(value <= observed[place] for value in own)) / 1001
        np.testing.assert_allclose(found.p_greater[place], greater)
        np.testing.assert_allclose(found.p_less[place], less)
        np.testing.assert_allclose(found.p[place], min(1, 2 * min(greater, less)))
        np.testing.assert_allclose([found.low[place], found.high[place]], np.quantile(own, [0.05, 0.95]))
        np.testing.assert_allclose(found.deviation[place], own.std(ddof=1))
    np.testing.assert_allclose(found.excess, observed - controls.mean(axis=0))


def test_few_controls_follow_t():
    """Below 1,000 controls, p is that of a t-test of one value against a sample: SciPy's with equal variances."""
    controls, observed = rng(1).normal(size=(20, 4)), rng(2).normal(size=4) * 3
    found = against_controls(observed, controls)
    assert found.null == "t"
    # a two-sample t-test with one value in the first sample, written out
    t = (observed - controls.mean(axis=0)) / (controls.std(axis=0, ddof=1) * np.sqrt(1 + 1 / 20))
    np.testing.assert_allclose(found.p, 2 * stats.t.sf(np.abs(t), 19))
    np.testing.assert_allclose(found.p_greater, stats.t.sf(t, 19))
    np.testing.assert_allclose(found.p_less + found.p_greater, 1)
    # a value on the limit has p = 1 - level
    np.testing.assert_allclose(against_controls(found.high, controls).p, 0.05)


@pytest.mark.parametrize("draws", [20, 1000])
def test_p_of_a_random_set_is_uniform(draws):
    """A finding that is itself a random control is significant at 5 % in 5 % of cases, and inside in 95 %."""
    controls, observed = rng(draws).normal(size=(draws, 20000)), rng(7).normal(size=20000)
    found = against_controls(observed, controls)
    inside = (observed >= found.low) & (observed <= found.high)
    # standard error 0.0016
    assert abs((found.p <= 0.05).mean() - 0.05) < 0.006
    assert abs((found.p_greater <= 0.05).mean() - 0.05) < 0.006
    assert abs(inside.mean() - 0.95) < 0.006


def test_equal_controls_prove_little():
    """Without scatter there is no t: p counts draws, is never 0, and 1 where the finding equals the controls."""
    controls = np.full((24, 3), 0.1) + 0.2
    found = against_controls(np.array([0.3, 0.9, 0.0]), controls)
    np.testing.assert_array_equal(found.deviation, 0.0)
    np.testing.assert_allclose(found.p, [1.0, 2 / 25, 2 / 25])
    np.testing.assert_allclose(found.p_greater, [1.0, 1 / 25, 1.0])
    np.testing.assert_allclose(found.low, found.high)


def test_undefined_findings_stay_undefined():
    """A finding or a control that is nan gives nan there alone; a single control is refused."""
    controls = rng().normal(size=(20, 3))
    controls[4, 1] = np.nan
    found = against_controls(np.array([np.nan, 0.0, 0.0]), controls)
    for value in (found.p, found.low, found.mean, found.observed):
        np.testing.assert_array_equal(np.isnan(value), [True, True, False])
    with pytest.raises(InputError, match="at least 2 controls"):
        against_controls(np.zeros(1), np.zeros((1, 1)))
    with pytest.raises(InputError, match="level"):
        against_controls(np.zeros(1), np.zeros((9, 1)), level=1.0)


def plain_score(gained, lost, n, change):
    """The score statistic with the nuisance share of losses found by maximising the likelihood numerically."""

    def unlikely(share):
        parts = ((gained, share + change), (lost, share), (n - gained - lost, 1 - 2 * share - change))
        return -sum(count * np.log(max(p, 1e-300)) for count, p in parts if count)

    low, high = max(0.0, -change), (1 - change) / 2
    share = optimize.minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    variance = n * (2 * share + change - change**2)
    return (gained - lost - n * change) / np.sqrt(variance)


@pytest.mark.parametrize(("gained", "lost", "rest"), [(3, 12, 85), (1, 0, 43), (0, 5, 20), (7, 7, 6), (30, 2, 400)])
def test_tango_limits_solve_the_score_equation(gained, lost, rest):
    """At both limits the score, from the definition, equals the normal quantile."""
    n = gained + lost + rest
    before = np.arange(n) < lost + rest
    after = np.where(np.arange(n) < lost, [[False]], before | (np.arange(n) >= lost + rest))
    found = paired_accuracy_change(before, after)
    assert (found.gained[0], found.lost[0], found.images[0]) == (gained, lost, n)
    for limit, side in ((found.low[0], 1), (found.high[0], -1)):
        np.testing.assert_allclose(plain_score(gained, lost, n, limit) * side, 1.959964, atol=2e-4)


@given(st.integers(1, 60), st.integers(0, 2**20), st.sampled_from([0.8, 0.95, 0.99]))
def test_paired_change_counts_and_mirrors(images, seed, level):
    """The change lies in its interval within -1 to 1; before and after swapped turn its sign; more level widens it."""
    first, second = rng(seed).random((2, images)) < 0.7
    there = paired_accuracy_change(first, second[None], level=level)
    back = paired_accuracy_change(second, first[None], level=level)
    np.testing.assert_allclose(there.change, second.mean() - first.mean(), atol=1e-12)
    np.testing.assert_allclose([there.low, there.high], [-back.high, -back.low], atol=1e-9)
    np.testing.assert_array_equal(there.p, back.p)
    assert -1 - 1e-12 <= there.low[0] <= there.change[0] <= there.high[0] <= 1 + 1e-12
    wider = paired_accuracy_change(first, second[None], level=(1 + level) / 2)
    assert wider.low[0] <= there.low[0]
    assert wider.high[0] >= there.high[0]


def test_no_changed_image_leaves_an_interval():
    """An edit that changes nothing on n images may still change z^2 / (n + z^2) of them; p is 1."""
    before = np.arange(50) < 30
    found = paired_accuracy_change(before, before[None])
    z2 = stats.norm.ppf(0.975) ** 2
    np.testing.assert_allclose([found.low[0], found.high[0]], [-z2 / (50 + z2), z2 / (50 + z2)], rtol=1e-9)
    np.testing.assert_array_equal([found.change[0], found.p[0]], [0.0, 1.0])


def test_no_image_says_nothing():
    """Without images every number is nan and the counts are 0."""
    found = paired_accuracy_change(np.zeros(0, dtype=bool), np.zeros((2, 0), dtype=bool))
    for value in (found.change, found.low, found.high, found.p):
        np.testing.assert_array_equal(value, [np.nan, np.nan])
    np.testing.assert_array_equal(found.images, 0)


@pytest.mark.parametrize(
    ("gain", "lose", "images"), [(0.0, 0.005, 200), (0.01, 0.02, 100), (0.02, 0.3, 60), (0.05, 0.05, 400)]
)
def test_paired_interval_covers(gain, lose, images):
    """The 95 % interval holds the true change in about 95 % of samples, also for changes near 0."""
    samples = 1000
    fate = rng(images).choice([1, -1, 0], p=[gain, lose, 1 - gain - lose], size=samples * images)
    before = fate == -1
    after = fate == 1
    # every sample is a class
    labels = np.repeat(np.arange(samples), images)
    found = paired_accuracy_change_by_class(before, after[None], labels, classes=samples)
    covered = ((found.low <= gain - lose) & (gain - lose <= found.high)).mean()
    # standard error 0.007; the score interval may be a little below its level for tiny rates
    assert covered > 0.93


def test_mcnemar_equals_scipy():
    """Exact p-values are those of SciPy's binomial test, and rarely small without an effect."""
    gained, lost = rng(0).integers(0, 15, (2, 40))
    oracle = [
        stats.binomtest(int(a), int(a + b), 0.5).pvalue if a + b else 1.0 for a, b in zip(gained, lost, strict=True)
    ]
    np.testing.assert_allclose(mcnemar_exact(gained, lost), oracle)
    changed = rng(1).binomial(20, 0.5, 20000)
    assert (mcnemar_exact(changed, 20 - changed) <= 0.05).mean() <= 0.05


def test_change_by_class_is_the_change_on_the_class():
    """Each class's column equals the plain change on its images alone; images labelled -1 count nowhere."""
    labels = np.array([0, 1, 2, -1] * 20)
    before, after = rng(0).random(80) < 0.8, rng(1).random((3, 80)) < 0.6
    found = paired_accuracy_change_by_class(before, after, labels, classes=4)
    assert found.change.shape == (3, 4)
    for c in range(3):
        own = paired_accuracy_change(before[labels == c], after[:, labels == c])
        for name in ("change", "low", "high", "p", "gained", "lost", "images"):
            np.testing.assert_array_equal(getattr(found, name)[:, c], getattr(own, name))
    for value in (found.change, found.low, found.high, found.p):
        assert np.isnan(value[:, 3]).all()
    assert (found.images[:, 3] == 0).all()
    with pytest.raises(DataError):
        paired_accuracy_change_by_class(before, after, labels, classes=2)


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=10), st.integers(0, 2**20))
def test_area_is_the_trapezoid_mean(widths, seed):
    """The area equals NumPy's over the range, lies between lowest and highest, and is linear in the curve."""
    fractions = np.concatenate([[0.0], np.cumsum(widths)])
    values = rng(seed).random((len(fractions), 3))
    area = curve_area(fractions, values)
    np.testing.assert_allclose(area, np.trapezoid(values, fractions, axis=0) / fractions[-1])
    assert (values.min(axis=0) - 1e-12 <= area).all()
    assert (area <= values.max(axis=0) + 1e-12).all()
    np.testing.assert_allclose(curve_area(fractions, 2 * values - 1), 2 * area - 1, atol=1e-12)
    # the unit of the fractions does not matter
    np.testing.assert_allclose(curve_area(fractions * 7 + 3, values), area)


@pytest.mark.parametrize("fractions", [[0.0], [0.0, 0.5, 0.5], [1.0, 0.5, 0.0], [0.0, 1.0]])
def test_bad_curves_are_refused(fractions):
    """One step, fractions that stand or fall, or another number of them."""
    with pytest.raises(InputError, match="rising"):
        curve_area(np.array(fractions), np.zeros(3 if len(fractions) != 1 else 1))


def curves(images=120, *, steps=6, rankings=2, seed=0):
    """Correctness along curves that rise, and that fall."""
    thresholds = rng(seed).random((rankings, images))
    fractions = np.linspace(0, 1, steps)
    return fractions, fractions[:, None, None] > thresholds, fractions[:, None, None] < thresholds**2


def test_areas_are_those_of_the_mean_curves():
    """Areas of each ranking equal those under the accuracy curves, and their difference; intervals hold them."""
    fractions, insertion, deletion = curves()
    found = area_between(fractions, insertion, deletion, rng=rng(), draws=300)
    np.testing.assert_allclose(found.insertion.value, curve_area(fractions, insertion.mean(axis=-1)))
    np.testing.assert_allclose(found.deletion.value, curve_area(fractions, deletion.mean(axis=-1)))
    np.testing.assert_allclose(found.between.value, found.insertion.value - found.deletion.value)
    for part in (found.insertion, found.deletion, found.between):
        assert part.value.shape == (2,)
        assert ((part.low < part.value) & (part.value < part.high)).all()


def test_bootstrap_equals_drawing_whole_curves():
    """The interval agrees with the slow way: draw images, average their curves, take the area between."""
    fractions, insertion, deletion = curves(rankings=1)
    found = area_between(fractions, insertion[:, 0], deletion[:, 0], rng=rng(1), draws=4000)
    stream, slow = rng(2), []
    for _ in range(4000):
        picks = stream.integers(0, 120, 120)
        apart = insertion[:, 0, picks].mean(axis=-1) - deletion[:, 0, picks].mean(axis=-1)
        slow.append(np.trapezoid(apart, fractions))
    # both ends are quantiles of 4,000 draws
    width = found.between.high - found.between.low
    np.testing.assert_allclose(
        [found.between.low, found.between.high], np.quantile(slow, [0.025, 0.975]), atol=width / 20
    )


def test_area_interval_covers():
    """The 95 % interval of the area between holds the true area in about 95 % of samples."""
    covered = 0
    for seed in range(300):
        fractions, insertion, deletion = curves(100, rankings=1, seed=seed)
        found = area_between(fractions, insertion[:, 0], deletion[:, 0], rng=rng(seed), draws=300)
        # P(step > t) = step and P(step < t^2) = 1 - sqrt(step) for uniform t
        truth = curve_area(fractions, fractions - (1 - np.sqrt(fractions)))
        covered += found.between.low <= truth <= found.between.high
    # standard error 0.013; percentile limits are a little narrow
    assert 0.905 <= covered / 300 <= 0.985


def test_areas_by_class():
    """Each class has the areas of its own images; a class without images has none, a single image no interval."""
    fractions, insertion, deletion = curves(61)
    labels = np.array([0, 1] * 30 + [2])
    found = area_between_by_class(fractions, insertion, deletion, labels, classes=4, rng=rng(), draws=100)
    assert found.between.value.shape == (2, 4)
    for c in range(3):
        own = area_between(fractions, insertion[..., labels == c], deletion[..., labels == c], rng=rng(), draws=100)
        np.testing.assert_allclose(found.between.value[:, c], own.between.value)
    assert np.isnan(found.between.low[:, 2:]).all()
    assert np.isnan(found.between.value[:, 3]).all()
    assert np.isfinite(found.between.low[:, :2]).all()


def test_images_that_agree_leave_no_width():
    """Where all images have the same curve, drawing them again gives the same area."""
    right = np.repeat(np.array([[False], [True], [True]]), 9, axis=1)
    found = area_between(np.array([0.0, 0.5, 1.0]), right, ~right, rng=rng(), draws=50)
    np.testing.assert_allclose([found.insertion.low, found.insertion.high], 0.75)
    np.testing.assert_allclose([found.between.low, found.between.high], 0.5)


def test_curves_of_different_shapes_are_refused():
    """Insertion and deletion are of the same steps and images."""
    with pytest.raises(InputError, match="same shape"):
        area_between_by_class(
            np.array([0.0, 1.0]), np.zeros((2, 3)), np.zeros((2, 4)), np.zeros(3, dtype=int), classes=1, rng=rng()
        )
