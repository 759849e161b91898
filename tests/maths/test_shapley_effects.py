"""Shapley effects: known answers, exact enumeration, the definition written plainly, and the law of merging."""

from __future__ import annotations

from itertools import combinations, pairwise, product
from math import factorial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.errors import InputError
from neuronscope.maths.shapley_effects import (
    ShapleyDesign,
    ShapleyEffects,
    ShapleySums,
    aggregated,
    original_design,
    original_shares,
    per_unit,
    replicated,
    shares_of,
)
from neuronscope.maths.streams import Reducer, on_cpu, state_bytes

SCHEMES = [
    {"draws": "shared", "inner": 2},
    {"draws": "shared", "inner": 4, "outer": 2},
    {"draws": "fresh", "inner": 3},
    {"draws": "fresh", "inner": 2, "outer": 3, "order": "distinct", "permutations": 6},
]


def single(columns):
    """One player for each column."""
    return tuple((column,) for column in range(columns))


def batch(design, y, first=0, last=None):
    """What a step sees of some rows."""
    rows = slice(first, len(design) if last is None else last)
    return {"index": torch.arange(len(design))[rows], "maps/f": torch.as_tensor(y)[rows]}


def effects_of(design, function):
    """Effects of a function of the coordinates, or of its outputs row by row."""
    y = function(design.unit(np.arange(len(design)))) if callable(function) else function
    y = y[:, None] if y.ndim == 1 else y
    fold = ShapleySums(("maps/f",), design)
    return fold.finish(fold.add(fold.start(), batch(design, y)))["maps/f"]


def replicates(function, *, groups, count=8, **options):
    """Effects over independent designs."""
    return replicated(
        [effects_of(ShapleyDesign(groups=groups, seed=seed, **options), function) for seed in range(count)]
    )


def cells(function, levels):
    """The outputs of a function of independent inputs, each uniform over its levels."""
    grid = np.array(list(product(*(np.arange(n) for n in levels))))
    return function(grid).reshape(levels)


def enumerated(table, groups):
    """Effects by definition: every set of other players, every cell of x_-S, the variance over all cells of x_S."""
    players = range(len(groups))

    def cost(chosen):
        free = sorted({column for player in chosen for column in groups[player]})
        fixed = [axis for axis in range(table.ndim) if axis not in free]
        total = 0.0
        for cell in product(*(range(table.shape[axis]) for axis in fixed)):
            at = [slice(None)] * table.ndim
            for axis, level in zip(fixed, cell, strict=True):
                at[axis] = level
            total += table[tuple(at)].var()
        return total / np.prod([table.shape[axis] for axis in fixed])

    effects = np.zeros(len(groups))
    for player in players:
        others = [other for other in players if other != player]
        for size in range(len(others) + 1):
            weight = factorial(size) * factorial(len(others) - size) / factorial(len(groups))
            for chosen in combinations(others, size):
                effects[player] += weight * (cost((*chosen, player)) - cost(chosen))
    return effects


def plainly(design, y):
    """The estimator as the papers write it: permutations, places, outer draws, one after another."""
    players, inner = len(design.groups), design.inner
    effects = np.zeros(players)
    row = block = 0
    for _ in range(design.permutations):
        order = design.order_of(np.array([block]))[0]
        costs = np.zeros(players)
        if design.draws == "fresh":
            for place in range(players):
                for _ in range(design.outer):
                    costs[place] += np.var(y[row : row + inner], ddof=1) / design.outer
                    row, block = row + inner, block + 1
        else:
            for _ in range(design.outer):
                first, row, block = y[row], row + 1, block + 1
                for place in range(players):
                    costs[place] += np.var([first, *y[row : row + inner - 1]], ddof=1) / design.outer
                    row += inner - 1
        before = 0.0
        for place, player in enumerate(order):
            effects[player] += (costs[place] - before) / design.permutations
            before = costs[place]
    return effects


def made(groups, scheme, *, permutations=24, seed=3):
    """A design of one of the schemes."""
    return ShapleyDesign(**{"groups": groups, "permutations": permutations, "seed": seed, **scheme})


@pytest.mark.parametrize("scheme", SCHEMES)
def test_streamed_effects_are_the_definition(scheme):
    """One pass in one piece gives what the loops over permutations, places and draws give."""
    design = made(((0, 2), (1,), (3,)), scheme)
    y = np.random.default_rng(0).normal(50.0, 2.0, (len(design), 2))
    found = effects_of(design, y)
    expected = np.stack([plainly(design, y[:, output]) for output in range(2)], axis=1)
    np.testing.assert_allclose(found.effects, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.mean, y.mean(axis=0), rtol=1e-12)


@given(
    st.sampled_from(SCHEMES),
    st.lists(st.integers(1, 71), max_size=4),
    st.integers(1, 7),
    st.integers(0, 2**31),
)
def test_states_merge(scheme, cuts, each, seed):
    """Any batch size in whole blocks and any cut into shards give the answer of one pass (float64: to 1e-10)."""
    design = made(single(3), scheme)
    y = np.random.default_rng(seed).normal(1000.0, 1.0, (len(design), 3)) * [1.0, 1e3, 0.0]
    whole = effects_of(design, y)
    fold = ShapleySums(("maps/f",), design)
    edges = sorted({0, *(cut % design.blocks for cut in cuts), design.blocks})
    merged = fold.start()
    for first, last in pairwise(edges):
        state = fold.start()
        for block in range(first, last, each):
            rows = (block * design.block, min(block + each, last) * design.block)
            state = fold.add(state, batch(design, y, *rows))
        merged = fold.merge(merged, on_cpu(state))
    found = fold.finish(merged)["maps/f"]
    scale = np.array([1.0, 1e6, 1.0])
    np.testing.assert_allclose(found.effects / scale, whole.effects / scale, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.variance, whole.variance, rtol=1e-10)
    np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-12)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_mean_and_variance_are_those_of_the_outputs(scheme):
    """The mean is that of all rows, the variance that of the rows in which every input was drawn independently."""
    design = made(single(3), scheme)
    y = np.random.default_rng(5).normal(7.0, 3.0, len(design))
    players = len(design.groups)
    if design.draws == "shared":
        walks = y.reshape(design.walks, design.block)
        whole = np.concatenate([walks[:, :1], walks[:, 1 - design.inner :]], axis=1)
    else:
        whole = y.reshape(design.permutations, players, design.outer, design.inner)[:, -1]
    found = effects_of(design, y)
    np.testing.assert_allclose(found.mean, [y.mean()], rtol=1e-12)
    np.testing.assert_allclose(found.variance, [whole.var(ddof=1)], rtol=1e-12)


def tabled(table):
    """The function of uniform coordinates that a table of cells is."""

    def function(unit):
        at = tuple(np.floor(unit[:, axis] * size).astype(int) for axis, size in enumerate(table.shape))
        return table[at]

    return function


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("groups", [((0,), (1,), (2,)), ((0, 2), (1,), (3,)), ((0, 3), (1, 3), (2,))])
def test_effects_are_unbiased(groups, scheme):
    """The mean over many designs is that of exact enumeration, also where two players have a column in common."""
    levels = (2, 3, 2, 3)[: 1 + max(column for group in groups for column in group)]
    table = np.random.default_rng(8).normal(size=levels)
    exact = enumerated(table, groups)
    found = np.stack(
        [
            effects_of(made(groups, {**scheme, "permutations": 6}, seed=seed), tabled(table)).effects[:, 0]
            for seed in range(150)
        ]
    )
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    # 36 comparisons in all: 4 standard errors are passed by chance once in 400 runs, and the seeds are fixed
    assert (np.abs(found.mean(axis=0) - exact) < 4 * error).all()
    assert (error < 0.15 * exact.sum()).all()
    assert exact.sum() == pytest.approx(table.var())


def ishigami(unit):
    """Ishigami and Homma's function of three of the inputs; a fourth is inert."""
    x = np.pi * (2 * unit - 1)
    return np.sin(x[:, 0]) + 7 * np.sin(x[:, 1]) ** 2 + 0.1 * x[:, 2] ** 4 * np.sin(x[:, 0])


A, B = 7.0, 0.1
FIRST = 0.5 * (1 + B * np.pi**4 / 5) ** 2
BOTH = B**2 * np.pi**8 * (1 / 18 - 1 / 50)  # inputs 1 and 3 together
KNOWN = {
    "additive": (lambda u: 4 * u[:, 0] + 2 * u[:, 1] - u[:, 2], single(4), [16 / 12, 4 / 12, 1 / 12, 0]),
    "pure interaction": (lambda u: (2 * u[:, 0] - 1) * (2 * u[:, 1] - 1), single(3), [1 / 18, 1 / 18, 0]),
    "ishigami": (ishigami, single(4), [FIRST + BOTH / 2, A**2 / 8, BOTH / 2, 0]),
    "groups": (
        lambda u: u[:, 0] + u[:, 3] + 6 * (u[:, 1] - 0.5) * (u[:, 2] - 0.5),
        ((0, 3), (1,), (2, 4)),
        [2 / 12, 36 / 288, 36 / 288],
    ),
    "inside a group": (lambda u: 6 * (u[:, 0] - 0.5) * (u[:, 1] - 0.5) + u[:, 2], ((0, 1), (2,)), [36 / 144, 1 / 12]),
}


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("scheme", [{"draws": "shared"}, {"draws": "fresh", "inner": 3}])
def test_known_effects(name, scheme):
    """Effects and shares lie within their 99.9 % intervals of the analytic ones, and the intervals are narrow."""
    function, groups, exact = KNOWN[name]
    designs = [ShapleyDesign(groups=groups, permutations=400, seed=seed, **scheme) for seed in range(10)]
    found = replicated([effects_of(design, function) for design in designs], level=0.999)
    exact = np.array(exact)[:, None]
    for estimate, truth in ((found.effects, exact), (found.shares, exact / exact.sum())):
        assert (estimate.low <= truth + 1e-12).all()
        assert (estimate.high >= truth - 1e-12).all()
    assert (found.shares.error < 0.04).all()
    np.testing.assert_allclose(found.shares.value.sum(axis=0), 1.0, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.variance, exact.sum(), rtol=0.1)


def test_an_inert_input_has_no_effect():
    """With shared draws its effect and interval are exactly 0; with fresh draws 0 lies within the interval."""
    shared = replicates(ishigami, groups=single(4), permutations=50)
    assert shared.effects.value[3, 0] == shared.effects.low[3, 0] == shared.shares.high[3, 0] == 0.0
    fresh = replicates(ishigami, groups=single(4), permutations=200, draws="fresh", inner=3)
    assert fresh.effects.low[3, 0] < 0 < fresh.effects.high[3, 0]


def test_shared_draws_need_fewer_rows():
    """For as many rows, fresh draws with the inner 3 of the paper have more than twice the standard error."""
    a = np.array([0, 1, 4.5, 9, 99, 99, 99, 99])

    def g_function(unit):
        return np.prod((np.abs(4 * unit - 2) + a) / (1 + a), axis=1)

    def spread(permutations, **options):
        designs = [
            ShapleyDesign(groups=single(8), permutations=permutations, seed=seed, **options) for seed in range(60)
        ]
        return len(designs[0]), np.std([effects_of(design, g_function).effects for design in designs], axis=0)

    shared_rows, shared = spread(80)
    fresh_rows, fresh = spread(30, draws="fresh", inner=3)
    assert shared_rows == fresh_rows == 720
    assert np.linalg.norm(fresh) > 2 * np.linalg.norm(shared)


@pytest.mark.parametrize("scheme", [{"draws": "shared"}, {"draws": "fresh", "inner": 16}])
def test_an_offset_does_not_hurt(scheme):
    """Float32 outputs around 1000 that vary by 1 give the effects of the same outputs around 0 to 2e-4 of the total."""
    design = made(single(4), scheme, permutations=200)
    y = ishigami(design.unit(np.arange(len(design)))) / 4
    near = effects_of(design, y)
    far = effects_of(design, (y + 1000).astype(np.float32))  # the rounding to float32 alone is 3e-5
    np.testing.assert_allclose(far.effects, near.effects, rtol=0, atol=2e-4 * near.total[0])
    np.testing.assert_allclose(far.variance, near.variance, rtol=2e-4)
    np.testing.assert_allclose(far.mean, near.mean + 1000, rtol=1e-7)


def test_intervals_cover():
    """Intervals of 95 % over 6 replicates hold the true effect and the true share in 90 to 99 % of 200 studies."""
    table = cells(lambda x: np.maximum(x[:, 0] + 2.0 * x[:, 1] - 1.5 * x[:, 2] * x[:, 0], 0.0), (3, 3, 2))
    exact = enumerated(table, single(3))[:, None]
    hits = []
    for study in range(200):
        designs = [ShapleyDesign(groups=single(3), permutations=60, seed=1000 * study + r) for r in range(6)]
        found = replicated([effects_of(design, tabled(table)) for design in designs])
        for estimate, truth in ((found.effects, exact), (found.shares, exact / exact.sum())):
            hits.append((estimate.low <= truth) & (truth <= estimate.high))
    covered = np.reshape(hits, (200, 2, 3)).mean(axis=0)
    assert (covered >= 0.90).all()
    assert (covered <= 0.99).all()


def test_the_image_of_the_original_is_divided_between_class_and_partition():
    """A column of two players, drawn anew when either is free, is explained by both in equal parts."""
    groups = ((0,), (1, 3), (2, 3))  # a transform, the class, the partition; column 3 is the image
    found = replicates(lambda u: u[:, 1] + 3 * u[:, 3], groups=groups, permutations=300)
    image, alone = 9 / 12, 1 / 12
    assert (found.effects.low[:, 0] <= [0, alone + image / 2, image / 2]).all()
    assert (found.effects.high[:, 0] >= [0, alone + image / 2, image / 2]).all()
    assert found.shares.error.max() < 0.03


def test_a_dead_output_has_no_shares():
    """Constant outputs, also such as float32 cannot hold exactly, have effects and variance 0 and shares nan."""
    design = made(single(3), SCHEMES[0])
    y = np.full((len(design), 3), [0.0, 0.1, 1e6], dtype=np.float32)
    found = effects_of(design, y)
    assert (found.effects == 0).all()
    assert (found.variance == 0).all()
    assert np.isnan(found.shares).all()
    pooled = replicated([found, found])
    assert np.isnan(pooled.shares.value).all()
    assert np.isnan(pooled.shares.high).all()
    assert (original_shares(found.effects, [[0], [1], [2]]) == 0).all()


def test_an_output_that_never_varied_as_a_whole_has_no_shares():
    """Effects that add up to 0, because the rows with all inputs drawn were alike, are not blown up by the division."""
    assert np.isnan(shares_of(np.array([[1.0], [-1.0 + 1e-9]]))).all()


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_broken_number_is_confined_to_its_output(broken):
    """One nan or infinity makes its output nan and leaves the others as they were."""
    design = made(single(3), SCHEMES[0])
    y = np.random.default_rng(0).normal(size=(len(design), 3)).astype(np.float32)
    whole = effects_of(design, y)
    y[design.block + 1, 1] = broken
    found = effects_of(design, y)
    assert np.isnan(found.shares[:, 1]).all()
    np.testing.assert_array_equal(found.effects[:, [0, 2]], whole.effects[:, [0, 2]])


def test_effects_of_a_unit_add_up_over_its_positions():
    """Positions count by how much they vary: sums of effects over sums of variances."""
    found = ShapleyEffects(
        effects=np.array([[3.0, 0.0, 1.0, 1.0], [1.0, 0.0, 1.0, 3.0]]),
        mean=np.array([1.0, 3.0, 0.0, 2.0]),
        variance=np.array([4.0, 0.0, 2.0, 4.0]),
    )
    unit = per_unit(found, units=2)
    np.testing.assert_allclose(unit.shares, [[0.75, 2 / 6], [0.25, 4 / 6]])
    assert unit.mean.tolist() == [2.0, 1.0]
    assert unit.variance.tolist() == [4.0, 6.0]
    with pytest.raises(InputError, match="4 outputs cannot be the maps of 3 units"):
        per_unit(found, units=3)


def test_scalars_are_added_up_and_shared_as_the_original_does():
    """Sums in groups, clipped at 0, over their sum; shares up to 1e-8 and outputs without effects are 0."""
    effects = np.array([[2.0, 0.0, 1.0], [1.0, 0.0, 2e-9], [-1.0, 0.0, 0.0], [1.0, -1.0, 0.0]])
    groups = [[0, 1], [2], [3]]
    np.testing.assert_array_equal(aggregated(effects, groups), np.stack([effects[:2].sum(0), effects[2], effects[3]]))
    found = original_shares(effects, [[0], [1, 2], [3]])
    np.testing.assert_allclose(found, [[2 / 3, 0.0, 1.0], [0.0, 0.0, 0.0], [1 / 3, 0.0, 0.0]])
    assert found[1, 2] == 0


def test_scalars_of_a_group_give_the_effect_of_the_group_where_nothing_interacts():
    """In the original's scheme, added-up effects of scalars are those of groups as players for an additive output."""
    design = original_design(single(4), permutations=24, outer=40, inner=4)
    scalars = effects_of(design, lambda u: u @ [1.0, 2.0, 3.0, 4.0])
    groups = aggregated(scalars.effects, [[0, 1], [2, 3]])[:, 0]
    np.testing.assert_allclose(groups / groups.sum(), [5 / 30, 25 / 30], atol=0.03)


def test_replicates_pool_and_scatter():
    """Effects are means, with the standard error of their scatter; shares have that of the linearised ratio."""
    rng = np.random.default_rng(4)
    effects = rng.normal([[3.0], [1.0]], 0.01, (5, 2, 1))
    found = replicated([ShapleyEffects(one, np.full(1, float(r)), np.ones(1)) for r, one in enumerate(effects)])
    np.testing.assert_allclose(found.effects.error, effects.std(axis=0, ddof=1) / np.sqrt(5))
    np.testing.assert_allclose(found.effects.high - found.effects.value, 2.7764451 * found.effects.error)  # t(4)
    shares = effects / effects.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.shares.value, shares.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(found.shares.error, shares.std(axis=0, ddof=1) / np.sqrt(5), rtol=0.02)
    assert found.mean.tolist() == [2.0]


def test_one_replicate_has_no_interval():
    """Its value stands, its error and limits are nan."""
    found = replicated([ShapleyEffects(np.array([[3.0], [1.0]]), np.zeros(1), np.ones(1))])
    assert found.shares.value.tolist() == [[0.75], [0.25]]
    assert np.isnan([found.shares.error, found.effects.low, found.effects.high]).all()


@pytest.mark.parametrize("replicates", [1, 2])
def test_an_infinite_effect_is_no_number(replicates):
    """One output whose numbers went beyond all bounds has no effect and no interval; its neighbour has both."""
    found = replicated([ShapleyEffects(np.array([[np.inf, 3.0], [1.0, 1.0]]), np.zeros(2), np.ones(2))] * replicates)
    assert np.isnan(found.effects.value[0, 0])
    assert np.isnan(found.shares.value[:, 0]).all()
    assert found.shares.value[:, 1].tolist() == [0.75, 0.25]
    assert np.isfinite(found.shares.error[:, 1]).all() == (replicates > 1)


@pytest.mark.parametrize(("count", "level"), [(0, 0.95), (2, 1.0), (2, 0.0)])
def test_nothing_to_pool_is_refused(count, level):
    """No replicates, and a level that is none."""
    one = ShapleyEffects(np.ones((2, 1)), np.zeros(1), np.ones(1))
    with pytest.raises(InputError, match="at least 1 design with a level between 0 and 1"):
        replicated([one] * count, level=level)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_size_of_a_state_is_what_it_says(scheme):
    """Bytes of a state after a batch, for two measurements."""
    design = made(single(3), scheme)
    fold = ShapleySums(("a", "b"), design)
    assert isinstance(fold, Reducer)
    seen = {"index": torch.arange(design.block), "a": torch.rand(design.block, 7), "b": torch.rand(design.block, 2)}
    assert state_bytes(fold.add(fold.start(), seen)) == fold.size({"a": (7,), "b": (2,)})


def test_wide_outputs_are_worked_in_pieces():
    """Outputs beyond one piece of columns have the effects they have alone."""
    design = made(single(3), SCHEMES[0], permutations=4)
    rng = np.random.default_rng(2)
    y = rng.random((len(design), 200_000), dtype=np.float32)
    found = effects_of(design, y)
    last = effects_of(design, y[:, -5:])
    np.testing.assert_allclose(found.effects[:, -5:], last.effects, rtol=0, atol=1e-7)
    np.testing.assert_allclose(found.variance, y[design.full(np.arange(4))].var(axis=0, ddof=1), rtol=1e-3)


@pytest.mark.parametrize("rows", [[0, 1, 2], [0, 1, 2, 4], [1, 2, 3, 4], [0, 1, 3, 2]])
def test_a_torn_block_is_refused(rows):
    """Rows that are missing, shifted or in another order are no block."""
    design = made(single(3), SCHEMES[0])
    fold = ShapleySums(("y",), design)
    with pytest.raises(InputError, match="holds no whole blocks of 4"):
        fold.add(fold.start(), {"index": torch.tensor(rows), "y": torch.zeros(len(rows), 1)})


def test_a_part_of_a_design_has_no_effects():
    """Effects from some of the blocks would be biased: they are refused."""
    design = made(single(3), SCHEMES[2])
    fold = ShapleySums(("maps/f",), design)
    part = fold.add(fold.start(), batch(design, np.zeros((len(design), 1)), 0, 9))
    with pytest.raises(InputError, match="each of the 72 blocks of a Shapley design once, 3 were folded"):
        fold.finish(part)
