"""Ranges are the best k-means there is: against brute force, against scikit-learn, and without losing an activation."""

from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.errors import InputError
from neuronscope.maths.ranges import LowestHighest, RangeHistogram, optimal_clusters, ranges_of
from neuronscope.maths.streams import state_bytes


def inertia(points, weights):
    """Weighted sum of squared distances to the mean."""
    return float((weights * (points - np.average(points, weights=weights)) ** 2).sum())


def brute_force(points, weights, k):
    """The least inertia over all ways to cut sorted points into k runs."""
    totals = []
    for cuts in combinations(range(1, len(points)), k - 1):
        runs = [slice(a, b) for a, b in zip((0, *cuts), (*cuts, len(points)), strict=True)]
        totals.append(sum(inertia(points[run], weights[run]) for run in runs))
    return min(totals)


def counted(maps, steps=2048):
    """The histogram of maps (n, u, ...) between their own limits."""
    seen = {"m": torch.as_tensor(maps, dtype=torch.float32)}
    limits = LowestHighest("m")
    found = limits.finish(limits.add(limits.start(), seen))
    fold = RangeHistogram("m", found.lowest, found.highest, steps=steps)
    return fold.finish(fold.add(fold.start(), seen))


weighted_points = st.integers(2, 11).flatmap(
    lambda m: st.tuples(
        st.lists(st.integers(-50, 50), min_size=m, max_size=m, unique=True).map(sorted),
        st.lists(st.integers(1, 9), min_size=m, max_size=m),
        st.integers(1, min(m, 5)),
    )
)


@given(weighted_points)
def test_the_partition_is_the_best_of_all(case):
    """On small cases the inertia is the least over every possible cut, and it is that of the clusters returned."""
    points, weights, k = np.array(case[0], float), np.array(case[1]), case[2]
    found = optimal_clusters(points, weights, k)
    ends = [*found.first[1:], len(points)]
    own = sum(inertia(points[a:b], weights[a:b]) for a, b in zip(found.first, ends, strict=True))
    assert found.first[0] == 0
    assert (np.diff(found.first) > 0).all()
    assert found.inertia == pytest.approx(brute_force(points, weights, k), abs=1e-9)
    assert own == pytest.approx(found.inertia, abs=1e-9)


def test_a_large_offset_costs_no_digits():
    """Points around a million are cut as they are around 0."""
    points = np.array([0.0, 1, 2, 10, 11, 20, 22])
    weights = np.ones(7, int)
    assert (
        optimal_clusters(points + 1e6, weights, 3).first.tolist() == optimal_clusters(points, weights, 3).first.tolist()
    )


@pytest.mark.parametrize("k", [0, 4])
def test_clusters_that_cannot_be_filled_are_refused(k):
    """Three points cannot be put into none or into four clusters."""
    with pytest.raises(InputError, match="3 points cannot be put"):
        optimal_clusters(np.arange(3.0), np.ones(3, int), k)


@pytest.mark.parametrize("seed", range(3))
def test_as_good_as_the_best_of_many_random_starts(seed):
    """k-means of scikit-learn on the raw activations, started 20 times, is not better by more than the bins' width."""
    from sklearn.cluster import KMeans

    rng = np.random.default_rng(seed)
    values = np.maximum(rng.gamma(0.5, 1, (500, 1)) - 0.1, 0).astype(np.float32)
    positive = np.sort(values[values > 0]).astype(np.float64)
    bounds = ranges_of(counted(values), 5)[0]
    cluster = (positive[:, None] > bounds[:, 0]).sum(1) - 1
    own = sum(inertia(positive[cluster == c], np.ones((cluster == c).sum())) for c in range(5))
    theirs = KMeans(5, n_init=20, random_state=0).fit(positive[:, None]).inertia_
    width = positive.max() / 2048
    # moving every point by half a bin changes the root of the inertia by at most half a bin times root of n, twice
    assert np.sqrt(own) <= np.sqrt(theirs) + width * np.sqrt(len(positive))
    assert own <= theirs * 1.001


@given(st.lists(st.integers(-6, 40), min_size=1, max_size=60), st.integers(1, 4), st.sampled_from([3, 64]))
def test_every_activation_is_in_exactly_one_range(steps, k, bins):
    """Ranges leave no activation out and none twice; exact zeros are left out where nothing is negative."""
    values = np.array(steps, dtype=np.float32)[:, None] / 8
    bounds = ranges_of(counted(values, steps=bins), k)[0]
    if np.isnan(bounds).any():
        assert len(np.unique(values)) < k + 1 or bins == 3
        return
    inside = (values > bounds[:, 0]) & (values < bounds[:, 1])
    wanted = np.ones(len(values)) if (values < 0).any() else (values[:, 0] != 0)
    assert (inside.sum(1) == wanted).all()
    assert (bounds[1:, 0] == bounds[:-1, 1]).all()


def test_bounds_of_the_originals_are_members():
    """The smallest and the largest activation of each cluster, which the strict comparison then excludes."""
    maps = torch.tensor([[[[0.0, 1.0], [1.5, 9.0]]], [[[9.5, 10.0], [0.0, 1.25]]]])
    assert ranges_of(counted(maps), 2, members=True).tolist() == [[[1.0, 1.5], [9.0, 10.0]]]
    assert ranges_of(counted(maps), 2).tolist() == [[[0.0, 5.25], [5.25, np.inf]]]


def test_zeros_count_where_a_unit_can_be_negative():
    """One negative activation makes 0 an activation like any other; otherwise it is the absence of one."""
    values = np.array([[0.0, 0.0], [0.0, 0.0], [4.0, 4.0], [5.0, 5.0], [6.0, -1.0]])
    bounds = ranges_of(counted(values), 2, members=True)
    assert bounds[0].tolist() == [[4, 4], [5, 6]] or bounds[0].tolist() == [[4, 5], [6, 6]]
    assert bounds[1].tolist() == [[-1, 0], [4, 5]]


def test_zero_inside_a_bin_keeps_the_bins_in_order():
    """With one wide bin around 0, zeros join it."""
    values = np.array([[-1.0], [0.0], [1.0], [10.0]])
    assert ranges_of(counted(values, steps=2), 2, members=True).tolist() == [[[-1, 1], [10, 10]]]


def test_units_without_enough_activations_have_no_ranges():
    """Dead units, units with fewer values than ranges, and units that gave NaN are nan."""
    values = np.array([[0.0, 1.0, 1.0, 1.0], [0.0, 1.0, 2.0, np.nan], [0.0, 2.0, 3.0, 3.0]])
    bounds = ranges_of(counted(values), 3)
    assert np.isnan(bounds[[0, 1, 3]]).all()
    assert bounds[2].tolist() == [[0, 1.5], [1.5, 2.5], [2.5, np.inf]]


def test_no_ranges_is_refused():
    """Cutting into 0 ranges means nothing."""
    with pytest.raises(InputError, match="0 ranges"):
        ranges_of(counted(np.ones((2, 1))), 0)


@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.integers(0, 6), st.randoms())
def test_parts_in_any_order_give_the_whole(seed, first, second, random):
    """Both reducers give the bits of one pass, however the images are cut and in whichever order parts arrive."""
    rng = np.random.default_rng(seed)
    maps = torch.from_numpy(np.maximum(rng.standard_normal((6, 2, 2, 2)), -0.5).round(1).astype(np.float32))
    cuts = [0, *sorted([first, second]), 6]
    parts = [maps[a:b] for a, b in pairwise(cuts) if b > a]
    random.shuffle(parts)
    for reducer in (LowestHighest("m"), RangeHistogram("m", np.full(2, -0.5), np.full(2, 1.0), steps=8)):
        state = reducer.start()
        for part in parts:
            state = reducer.merge(state, reducer.add(reducer.start(), {"m": part}))
        joined, whole = reducer.finish(state), reducer.finish(reducer.add(reducer.start(), {"m": maps}))
        for name in vars(whole):
            assert np.array_equal(getattr(joined, name), getattr(whole, name)), name
        assert state_bytes(state) <= reducer.size({"m": (2, 2, 2)})


def test_limits_pass_over_what_is_not_finite():
    """NaN and infinities are counted, and are no limits; a unit with nothing else has none."""
    limits = LowestHighest("m")
    seen = {"m": torch.tensor([[1.0, torch.nan], [torch.inf, torch.nan], [-2.0, -torch.inf]])}
    found = limits.finish(limits.add(limits.start(), seen))
    assert found.lowest.tolist()[0] == -2
    assert found.highest.tolist()[0] == 1
    assert np.isnan([found.lowest[1], found.highest[1]]).all()
    assert found.nonfinite.tolist() == [1, 3]
