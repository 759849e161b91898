"""Masks from sensitivity: exact counts, fair ties, the original's rule, and controls that match."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neuronscope.errors import InputError
from neuronscope.maths.guide_masks import (
    QUANTILES,
    SCALES,
    Guide,
    ScaleMap,
    Selection,
    Weighting,
    configurations,
    guide,
    shuffled,
)

# few different values, so that most of them are tied
MAPS = hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=6), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0]))


def rng(seed=0):
    """Random numbers, the same each time."""
    return np.random.default_rng(seed)


def test_the_published_configurations():
    """17 of them, under the names and in the order of the original's files."""
    names = [one.name("hue") for one in configurations()]
    assert len(names) == len(set(names)) == 17
    assert names[:2] == ["alpha=0.00_perc=0.50_iaug=hue", "alpha=0.00_perc=0.60_iaug=hue"]
    assert names[5] == "alpha=0.50_perc=0.50_iaug=hue"
    assert names[-3:] == ["alpha=1.50_perc=0.90_iaug=hue", "iaug=hue_invert=0", "iaug=hue_invert=1"]


@given(MAPS, st.sampled_from(QUANTILES), st.sampled_from(SCALES))
def test_ranks_scale_exactly_the_share_asked_for(sensitivity, quantile, scale):
    """The count is exact whatever is tied, and nothing that stays is more sensitive than what is scaled."""
    own = guide(sensitivity, rng=rng())
    one = ScaleMap(own, Selection(scale, quantile))
    chosen = one.selected()
    assert chosen.sum() == round((1 - quantile) * sensitivity.size)
    assert np.array_equal(one.scales(), np.where(chosen, np.float32(scale), np.float32(1)))
    if 0 < chosen.sum() < chosen.size:
        assert own.values[chosen].min() >= own.values[~chosen].max()


@given(MAPS, st.sampled_from(QUANTILES))
def test_quantiles_are_the_originals_rule(sensitivity, quantile):
    """What is below the quantile passes, all else is scaled."""
    values = sensitivity.astype(np.float32).astype(np.float64)
    passes = values < np.quantile(values, quantile)
    scales = ScaleMap(guide(sensitivity, rng=rng()), Selection(0.0, quantile), "quantiles").scales()
    assert np.array_equal(scales.astype(bool), passes.ravel())


def test_where_most_of_a_map_is_zero_quantiles_kill_it_all():
    """The original's trap, and that ranks do not fall into it."""
    sensitivity = np.array([0.0] * 9 + [1.0])
    own, half = guide(sensitivity, rng=rng()), Selection(0.0, 0.5)
    assert ScaleMap(own, half, "quantiles").scales().sum() == 0
    assert ScaleMap(own, half).scales().sum() == 5


def test_ties_favour_no_place():
    """Of equal elements, each is chosen as often: within five standard errors over 2,000 seeds."""
    chosen = np.zeros(10)
    for seed in range(2000):
        chosen += ScaleMap(guide(np.full(10, 0.3), rng=rng(seed)), Selection(0.0, 0.7)).selected()
    error = np.sqrt(2000 * 0.3 * 0.7)
    assert np.abs(chosen - 600).max() < 5 * error


@given(hnp.arrays(np.float64, 12, elements=st.floats(allow_nan=True, allow_infinity=True)))
def test_whole_maps_are_between_zero_and_one(sensitivity):
    """Activations that never vary count as insensitive, and both whole maps sum to one everywhere."""
    own = guide(sensitivity, rng=rng())
    keep, remove = (ScaleMap(own, Weighting(one)).scales() for one in ("keep", "remove"))
    expected = np.clip(np.where(np.isnan(sensitivity), 0, sensitivity), 0, 1).astype(np.float32)
    assert np.array_equal(keep, expected)
    np.testing.assert_allclose(keep + remove, 1, rtol=0, atol=1e-7)


@given(MAPS, st.integers(0, 3), st.sampled_from(["ranks", "quantiles"]))
def test_controls_have_the_same_numbers_elsewhere(sensitivity, seed, rule):
    """Every scale map of a control has its twin's numbers, each as often."""
    own = guide(sensitivity, rng=rng())
    control = shuffled(own, rng=rng(seed))
    for one in configurations():
        assert np.array_equal(
            np.sort(ScaleMap(own, one, rule).scales()), np.sort(ScaleMap(control, one, rule).scales())
        )
    assert np.array_equal(shuffled(own, rng=rng(seed)).places, control.places)


def test_one_control_serves_guides_of_equal_size():
    """Equal generators select the same elements for any guide, and other elements than the guide itself."""
    first, second = (guide(rng(seed).random((4, 5, 5)), rng=rng()) for seed in (1, 2))
    assert np.array_equal(shuffled(first, rng=rng(7)).places, shuffled(second, rng=rng(7)).places)
    selected = [ScaleMap(one, Selection(0.0, 0.5)).selected() for one in (first, shuffled(first, rng=rng(7)))]
    assert 0.2 < (selected[0] & selected[1]).sum() / 50 < 0.8


def test_scale_maps_are_told_apart_by_what_they_do():
    """The same guide and configuration are equal, so that a network runs once for both; another guide is not."""
    values = np.linspace(0, 1, 6)
    own, other = guide(values, rng=rng()), guide(values, rng=rng())
    assert ScaleMap(own, Selection(0.0, 0.5)) == ScaleMap(own, Selection(0.0, 0.5))
    assert len({ScaleMap(one, Weighting("keep")) for one in (own, own, other)}) == 2
    assert isinstance(own, Guide)


@pytest.mark.parametrize(("scale", "quantile"), [(-1.0, 0.5), (float("nan"), 0.5), (0.0, 0.0), (0.0, 1.0)])
def test_impossible_configurations_are_refused(scale, quantile):
    """A share must leave something on either side; a scale is a number of 0 or more."""
    with pytest.raises(InputError, match=r"expected a finite scale of 0 or more and a quantile between 0 and 1"):
        configurations((scale,), (quantile,))


def test_an_empty_map_is_refused():
    """There is nothing to mask."""
    with pytest.raises(InputError, match="without elements"):
        guide(np.zeros((0, 3)), rng=rng())
