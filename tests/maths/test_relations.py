"""Correlation and overlap of maps, association over units, and logical equivalence of formulas."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from neuronscope.maths.formulas import And, AndNot, Close, CloseTo, Expanded, Label, Or, With
from neuronscope.maths.relations import (
    MOST_LABELS,
    CrossMoments,
    Firing,
    JointCounts,
    aligned,
    association,
    equivalent_groups,
    weighted_jaccard,
)
from neuronscope.maths.streams import state_bytes


def maps(rng, shape, *, sparse=0.0, images=0.0):
    """Rectified maps whose cells share a number of their image; images = 1 leaves one number for each image."""
    noise = rng.normal(size=shape) * (1 - images) + images * rng.normal(size=(*shape[:2], *(1 for _ in shape[2:])))
    return torch.from_numpy(np.maximum(noise - sparse, 0)).float()


def fold(reducer, seen, *, cuts=()):
    """The answer of a reducer over batches cut at some rows, the second half of the batches in a shard of its own."""
    edges = [0, *cuts, len(seen["index"])]
    parts = [{name: values[a:b] for name, values in seen.items()} for a, b in pairwise(edges)]
    states = []
    for shard in (parts[: len(parts) // 2], parts[len(parts) // 2 :]):
        state = reducer.start()
        for part in shard:
            state = reducer.add(state, part)
        states.append(state)
    return reducer.finish(reducer.merge(*states))


def seen_of(a, b):
    """What a step saw."""
    return {"index": torch.arange(len(a)), "a": a, "b": b}


def image_shares(a, b):
    """Each image's share in the correlation of two units, as the definition has it: (n, cells) arrays in."""
    za, zb = ((x - x.mean()) / x.std() for x in (a, b))
    r = (za * zb).mean()
    return r, (za * zb - r / 2 * (za**2 + zb**2)).sum(1)


def unrelated(a, b):
    """Standard error of the mean product of the standardised maps of two images drawn at random."""
    za, zb = ((x - x.mean()) / x.std() for x in (a, b))
    products = za @ zb.T  # every image of one with every image of the other
    return np.sqrt(products.var() / len(a)) / a.shape[1]


def test_correlations_are_those_of_all_cells():
    """Pearson's correlation over the stacked cells, however the images are cut."""
    rng = np.random.default_rng(0)
    a, b = maps(rng, (30, 3, 4, 5)), maps(rng, (30, 2, 4, 5))
    b[:, 0] += a[:, 1]
    flat = [x.double().movedim(1, 0).flatten(1).numpy() for x in (a, b)]
    expected = np.corrcoef(*flat)[:3, 3:]
    for cuts in ((), (7,), (1, 2, 25)):
        found = fold(CrossMoments("a", "b"), seen_of(a, b), cuts=cuts)
        assert found.r == pytest.approx(expected, abs=1e-12)
        assert found.images == 30


@pytest.mark.parametrize("offset", [0.0, 5.0, -300.0])
def test_standard_errors_are_those_of_their_definitions(offset):
    """Fisher's z with the larger of the clustered and the unrelated error, and the effective images, the slow way."""
    rng = np.random.default_rng(1)
    a, b = maps(rng, (40, 2, 3, 3), images=0.4), maps(rng, (40, 2, 3, 3), images=0.4)
    b[:, 0] += 0.5 * a[:, 0]
    found = fold(CrossMoments("a", "b", level=0.9), seen_of(a + offset, b + offset), cuts=(11,))
    flat_a, flat_b = (x.double().flatten(2).numpy() for x in (a, b))
    for i, j in product(range(2), repeat=2):
        one, other = flat_a[:, i], flat_b[:, j]
        r, shares = image_shares(one, other)
        clustered = np.sqrt((shares**2).sum() * 40 / 39) / (40 * 9) / (1 - r**2)
        # float32 holds activations around 300 to 3e-5 only
        assert found.r[i, j] == pytest.approx(r, abs=1e-4)
        energy = [(((x - x.mean()) / x.std()) ** 2).sum(1) for x in (one, other)]
        freedom = min(e.sum() ** 2 / (e**2).sum() for e in energy) - 1
        error = max(clustered, unrelated(one, other))
        half = stats.t.ppf(0.95, freedom) * error
        assert found.high[i, j] == pytest.approx(np.tanh(np.arctanh(r) + half), abs=1e-3)
        assert found.low[i, j] == pytest.approx(np.tanh(np.arctanh(r) - half), abs=1e-3)
        assert found.p[i, j] == pytest.approx(2 * stats.t.sf(abs(np.arctanh(r)) / error, freedom), abs=1e-3)


@pytest.mark.parametrize("sparse", [0.0, 1.5, 3.0])
def test_unrelated_units_are_rarely_found(sparse):
    """At most about 5 % of p-values below 0.05 without a relation, also for units that fire in few images."""
    rng = np.random.default_rng(2)
    p = []
    for _ in range(8):
        a, b = (maps(rng, (80, 10, 5, 5), images=0.5, sparse=sparse * 0.7) for _ in range(2))
        p.append(fold(CrossMoments("a", "b"), seen_of(a, b)).p.ravel())
    known = np.concatenate(p)
    known = known[~np.isnan(known)]
    assert (known < 0.05).mean() < 0.08
    assert (known < 0.001).mean() < 0.01


def test_related_units_are_found_and_cells_are_not_images():
    """A real relation has a small p, and the interval is wider than that of as many independent cells."""
    rng = np.random.default_rng(3)
    a = maps(rng, (150, 1, 6, 6), images=0.7)
    b = a + maps(rng, (150, 1, 6, 6), images=0.7)
    found = fold(CrossMoments("a", "b"), seen_of(a, b))
    assert found.p[0, 0] < 1e-6
    assert found.low[0, 0] < found.r[0, 0] < found.high[0, 0]
    naive = 2 * 1.96 / np.sqrt(150 * 36)
    assert np.arctanh(found.high[0, 0]) - np.arctanh(found.low[0, 0]) > 3 * naive


def test_what_cannot_be_said_is_not_said():
    """Constant and broken units are nan; a unit that fires in one image only says nothing, even of itself."""
    rng = np.random.default_rng(4)
    a = maps(rng, (20, 4, 3, 3))
    a[:, 0] = 2.5
    a[3, 1] = torch.nan
    a[:, 2] = 0
    a[7, 2] = 1.0
    found = fold(CrossMoments("a", "b"), seen_of(a, a))
    assert np.isnan(found.r[[0, 1]]).all()
    assert np.isnan(found.p[:, [0, 1]]).all()
    assert (found.low[2, 2], found.high[2, 2], found.p[2, 2]) == (-1.0, 1.0, 1.0)
    assert (found.r[3, 3], found.p[3, 3]) == (pytest.approx(1.0), 0.0)


def test_one_image_gives_no_interval():
    """A correlation over the cells of a single image stands there without evidence."""
    rng = np.random.default_rng(5)
    found = fold(CrossMoments("a", "b"), seen_of(maps(rng, (1, 2, 4, 4)), maps(rng, (1, 2, 4, 4))))
    assert np.isfinite(found.r).all()
    assert (found.p == 1).all()


def test_larger_maps_are_averaged_in_blocks():
    """8 x 6 beside 4 x 3: means of 2 x 2 blocks; beside a flat layer: the mean of the map."""
    rng = np.random.default_rng(6)
    large, small, flat = maps(rng, (9, 2, 8, 6)), maps(rng, (9, 3, 4, 3)), maps(rng, (9, 5))
    blocks = large.reshape(9, 2, 4, 2, 3, 2).mean((3, 5)).flatten(2)
    one, other = aligned(large, small)
    assert torch.allclose(one.flatten(2), blocks)
    assert torch.equal(other, small)
    mean, same = aligned(large, flat)
    assert torch.allclose(mean[..., 0], large.mean((2, 3)))
    assert torch.equal(same[..., 0], flat)
    tokens, single = aligned(maps(rng, (9, 2, 7)), small)
    assert (tokens.shape, single.shape) == ((9, 2, 1), (9, 3, 1))


@given(seed=st.integers(0, 999), cut=st.integers(1, 11), side=st.sampled_from([2, 4]))
def test_joint_counts_are_whole_and_exact(seed, cut, side):
    """Cells active in both, counted one by one; a block of a larger map is active where any of its cells is."""
    rng = np.random.default_rng(seed)
    a, b = maps(rng, (12, 3, 4, 4)), maps(rng, (12, 2, side, side))
    above = np.array([0.1, 0.8, np.nan]), np.array([0.5, 99.0])
    found = fold(JointCounts("a", "b", *above), seen_of(a, b), cuts=(cut,))
    first = a.numpy() > above[0][:, None, None]
    second = b.numpy() > above[1][:, None, None]
    if side < 4:
        first = first.reshape(12, 3, 2, 2, 2, 2).any(axis=(3, 5))
    for i, j in product(range(3), range(2)):
        both, union = (first[:, i] & second[:, j]).sum(), (first[:, i] | second[:, j]).sum()
        assert found.both[i, j] == both
        if first[:, i].any() and second[:, j].any():
            assert found.jaccard[i, j] == pytest.approx(both / union)
        else:
            assert np.isnan(found.jaccard[i, j])


def test_firing_is_kept_as_bits_in_the_order_of_rows():
    """Above the threshold, strictly; nan never; rows come home sorted."""
    rng = np.random.default_rng(7)
    highest, above = maps(rng, (10, 11)), np.append(np.full(10, 0.3), np.nan)
    highest[0, 0] = 0.3
    above[0] = float(highest[0, 0])
    order = torch.from_numpy(rng.permutation(10))
    found = fold(Firing("a", above), {"index": order, "a": highest[order]}, cuts=(3, 4))
    assert found.index.tolist() == list(range(10))
    assert np.array_equal(found.fired, highest.double().numpy() > above)
    assert not found.fired[0, 0]


def test_sizes_are_announced():
    """No state is larger than it said it would be."""
    rng = np.random.default_rng(8)
    a, b = maps(rng, (4, 5, 9, 9)), maps(rng, (4, 6, 10, 20))
    seen, shapes = seen_of(a, b), {"a": (5, 9, 9), "b": (6, 10, 20), "max": (5,)}
    for reducer in (CrossMoments("a", "b"), JointCounts("a", "b", np.zeros(5), np.zeros(6))):
        assert state_bytes(reducer.add(reducer.start(), seen)) <= reducer.size(shapes)
    firing = Firing("max", np.zeros(5), 4)
    state = firing.add(firing.start(), {"index": torch.arange(4), "max": a.amax((2, 3))})
    assert state_bytes(state) <= firing.size(shapes)


def test_formula_overlap_is_weighted():
    """Weights of the things in both and in any, one pair at a time; nothing beside nothing is nan."""
    rng = np.random.default_rng(9)
    holds, weight = [rng.random(50) < share for share in (0.2, 0.6, 0.9, 0.0)], rng.integers(0, 9, size=50)
    found = weighted_jaccard(holds, weight)
    for i, j in product(range(3), repeat=2):
        both, union = weight[holds[i] & holds[j]].sum(), weight[holds[i] | holds[j]].sum()
        assert found[i, j] == pytest.approx(both / union)
    assert np.isnan(found[3]).all()
    assert np.isnan(found[:, 3]).all()


def test_association_is_that_of_scipy():
    """Pearson with interval and p, Spearman; the permutation p agrees with the exact one."""
    rng = np.random.default_rng(10)
    x = rng.normal(size=40)
    y = 0.4 * x + rng.normal(size=40)
    gaps = np.r_[x, np.nan, 1.0], np.r_[y, 2.0, np.nan]
    found = association(*gaps, rng=rng, draws=4999)
    exact = stats.pearsonr(x, y)
    limits = exact.confidence_interval(0.95)
    assert (found.r, found.p) == (pytest.approx(exact.statistic), pytest.approx(exact.pvalue))
    assert (found.low, found.high) == (pytest.approx(limits.low), pytest.approx(limits.high))
    assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.p_permuted == pytest.approx(exact.pvalue, abs=0.02)
    assert found.count == 40


def test_association_needs_something_to_go_by():
    """Two units, or a quantity that never changes, have no correlation; full correlation is no error."""
    rng = np.random.default_rng(0)
    assert np.isnan(association(np.array([1.0, 2.0]), np.array([1.0, 2.0]), rng=rng).r)
    assert np.isnan(association(np.ones(9), np.arange(9.0), rng=rng).p)
    full = association(np.arange(9.0), -np.arange(9.0), rng=rng, draws=99)
    assert (full.r, full.p) == (pytest.approx(-1.0), pytest.approx(0.0, abs=1e-12))


def boolean_formulas(labels):
    """Formulas of OR, AND, AND NOT over a few labels."""
    leaf = st.integers(1, labels).map(Label)
    return st.recursive(
        leaf, lambda part: st.builds(lambda kind, a, b: kind(a, b), st.sampled_from([Or, And, AndNot]), part, part)
    )


def value(formula, world):
    """Whether a formula holds where exactly the labels of a world are."""
    match formula:
        case Label(number):
            return number in world
        case Or(left, right):
            return value(left, world) or value(right, world)
        case And(left, right):
            return value(left, world) and value(right, world)
        case AndNot(left, right):
            return value(left, world) and not value(right, world)


@given(formulas=st.lists(boolean_formulas(4), min_size=2, max_size=6))
def test_equivalence_is_that_of_all_assignments(formulas):
    """Two formulas have one group exactly when they agree on every set of labels."""
    groups = equivalent_groups(formulas)
    worlds = [frozenset(n for n in range(1, 5) if bits >> n & 1) for bits in range(0, 32, 2)]
    tables = [tuple(value(formula, world) for world in worlds) for formula in formulas]
    for i, j in product(range(len(formulas)), repeat=2):
        assert (groups[i] == groups[j]) == (tables[i] == tables[j])
    assert sorted(set(groups.tolist())) == list(range(len(set(groups.tolist()))))


def test_operators_on_places_are_labels_of_their_own():
    """WITH, CLOSE and CLOSE TO are the same where their operands are, CLOSE in either order."""
    a, b, c = Label(1), Label(2), Label(3)
    formulas = [
        With(Or(a, b), c),
        With(Or(b, a), c),
        With(c, Or(a, b)),
        Close(a, b),
        Close(b, Or(a, And(a, c))),
        CloseTo(a, (b, c)),
        CloseTo(a, (c, b, b)),
        Or(Close(a, b), And(Close(b, a), c)),
        Expanded(1),
        a,
        None,
    ]
    assert equivalent_groups(formulas).tolist() == [0, 0, 1, 2, 2, 3, 3, 2, 4, 5, -1]


def test_labels_of_one_name_can_be_one():
    """By number two labels differ; by name they may not."""
    formulas = [Or(Label(1), Label(3)), Or(Label(3), Label(2)), And(Label(1), Label(2)), Label(1)]
    assert equivalent_groups(formulas).tolist() == [0, 1, 2, 3]
    assert equivalent_groups(formulas, names={1: "red", 2: "red", 3: "sky"}).tolist() == [0, 0, 1, 1]


def test_long_formulas_are_compared_by_their_form():
    """Beyond the largest truth table chains are the same in any order, but no other equivalence is looked for."""

    def chain(order, kind=Or):
        whole = Label(order[0])
        for number in order[1:]:
            whole = kind(whole, Label(number))
        return whole

    numbers = list(range(1, MOST_LABELS + 2))
    long, turned = chain(numbers), chain(numbers[::-1])
    assert equivalent_groups([long, turned, Or(long, And(Label(1), Label(2)))]).tolist() == [0, 0, 1]
    assert equivalent_groups([long, turned], names={n: f"c{n}" for n in numbers}).tolist() == [0, 0]
    short = chain(numbers[:-1])
    assert equivalent_groups([short, Or(short, And(Label(1), Label(2)))]).tolist() == [0, 0]
