"""Sobol indices: SALib as oracle, analytic cases, and the law of merging."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from SALib.analyze import sobol as salib_analyze
from SALib.sample import sobol as salib_sample

from neuronscope.errors import InputError
from neuronscope.maths.sobol import (
    SaltelliDesign,
    SobolSums,
    covariances,
    indices_from,
    moments_of,
    moments_together,
    per_unit,
    sobol_indices,
    sobol_points,
)
from neuronscope.maths.streams import state_bytes

GROUPS = ((0, 1), (2,), (3, 4))


def design(groups, base, *, seed=0, order="second"):
    """A scrambled design."""
    columns = sum(map(len, groups))
    points = sobol_points(columns, base, scramble=np.random.default_rng(seed))
    return SaltelliDesign(groups, points, order)


def outputs(x):
    """Three outputs of five inputs, far from zero and of very different sizes."""
    return np.stack(
        [
            np.sin(6 * x[:, 0]) + x[:, 1] * x[:, 2] + 3 * x[:, 3] * x[:, 2] + x[:, 4] ** 2,
            1e-4 * x[:, 0] * x[:, 3] + 5.0,
            1e5 * (x[:, 1] - x[:, 4]),
        ],
        axis=1,
    )


def sums_of(plan, y, **options):
    """One pass over all rows at once."""
    fold = SobolSums(("y",), groups=len(plan.groups), order=plan.order, **options)
    return fold.finish(fold.add(fold.start(), {"y": torch.from_numpy(y)}))["y"]


def indices_of(plan, y, **options):
    """First order, total, second order."""
    halves = options.get("halves", "both")
    return sobol_indices(sums_of(plan, y, **options), halves=halves)


@pytest.mark.parametrize("base", [1, 64, 256])
def test_rows_are_those_of_salib(base):
    """The unscrambled design has SALib's rows in SALib's order, groups included."""
    problem = {"num_vars": 5, "names": list("abcde"), "bounds": [[0, 1]] * 5, "groups": ["p", "p", "q", "r", "r"]}
    plan = SaltelliDesign(GROUPS, sobol_points(5, base, scramble="none"))
    expected = salib_sample.sample(problem, base, scramble=False)
    assert np.array_equal(plan.unit(np.arange(len(plan))), expected)


@pytest.mark.parametrize("order", ["first", "second"])
def test_indices_are_those_of_salib(order):
    """On the same rows and outputs the first half gives SALib's own numbers (they differ by rounding of float64)."""
    problem = {"num_vars": 5, "names": list("abcde"), "bounds": [[0, 1]] * 5, "groups": ["p", "p", "q", "r", "r"]}
    plan = design(GROUPS, 64, order=order)
    y = outputs(plan.unit(np.arange(len(plan))))
    found = indices_of(plan, y, halves="first")
    second = order == "second"
    for column in range(y.shape[1]):
        expected = salib_analyze.analyze(problem, y[:, column], calc_second_order=second, num_resamples=2, seed=0)
        assert np.allclose(found.first[:, column], expected["S1"], rtol=0, atol=1e-10)
        assert np.allclose(found.total[:, column], expected["ST"], rtol=0, atol=1e-10)
        if second:
            pairs = expected["S2"][np.triu_indices(3, 1)]
            assert np.allclose(found.second[:, column], pairs, rtol=0, atol=1e-10)


def ishigami(x):
    """Ishigami and Homma (1990), a = 7, b = 0.1, with its first-order, total and second-order indices."""
    z = np.pi * (2 * x - 1)
    y = np.sin(z[:, 0]) + 7 * np.sin(z[:, 1]) ** 2 + 0.1 * z[:, 2] ** 4 * np.sin(z[:, 0])
    one = 0.5 * (1 + 0.1 * np.pi**4 / 5) ** 2
    two = 49 / 8
    both = 0.1**2 * np.pi**8 * (1 / 18 - 1 / 50)
    variance = one + two + both
    return y, np.array([one, two, 0.0]) / variance, np.array([one + both, two, both]) / variance, both / variance


def g_function(x):
    """Sobol's g with a = 0, 1, 4.5, 9."""
    a = np.array([0, 1, 4.5, 9])
    y = np.prod((np.abs(4 * x - 2) + a) / (1 + a), axis=1)
    part = 1 / (3 * (1 + a) ** 2)
    variance = np.prod(1 + part) - 1
    first = part / variance
    total = part * np.array([np.prod(np.delete(1 + part, i)) for i in range(4)]) / variance
    return y, first, total


def test_ishigami():
    """First-order, total and second-order indices approach the analytic ones."""
    plan = design(((0,), (1,), (2,)), 8192)
    y, first, total, both = ishigami(plan.unit(np.arange(len(plan))))
    found = indices_of(plan, y[:, None])
    assert np.allclose(found.first[:, 0], first, atol=5e-3)
    assert np.allclose(found.total[:, 0], total, atol=5e-3)
    assert np.allclose(found.second[:, 0], [0, both, 0], atol=5e-3)


def test_sobols_g():
    """A product of four inputs with all interactions."""
    plan = design(((0,), (1,), (2,), (3,)), 8192)
    y, first, total = g_function(plan.unit(np.arange(len(plan))))
    found = indices_of(plan, y[:, None])
    assert np.allclose(found.first[:, 0], first, atol=5e-3)
    assert np.allclose(found.total[:, 0], total, atol=5e-3)


def test_additive_product_and_pure_interaction():
    """An additive output has no interactions; of x y about its middle there is nothing else."""
    plan = design(((0,), (1,), (2,)), 4096)
    x = plan.unit(np.arange(len(plan)))
    y = np.stack([3 * x[:, 0] + 4 * x[:, 1], (x[:, 0] - 0.5) * (x[:, 1] - 0.5), x[:, 0] * x[:, 1]], axis=1)
    found = indices_of(plan, y)
    assert np.allclose(found.first, [[0.36, 0, 3 / 7], [0.64, 0, 3 / 7], [0, 0, 0]], atol=5e-3)
    assert np.allclose(found.total, [[0.36, 1, 4 / 7], [0.64, 1, 4 / 7], [0, 0, 0]], atol=5e-3)
    assert np.allclose(found.second[0], [0, 1, 1 / 7], atol=5e-3)


def test_an_unused_group_has_index_exactly_zero():
    """What an output never looks at is swapped without effect: total and first-order index are 0 to the bit."""
    plan = design(GROUPS, 32)
    y = outputs(plan.unit(np.arange(len(plan))))[:, 2:]
    found = indices_of(plan, y)
    assert found.total[1, 0] == 0.0
    assert abs(found.first[1, 0]) < 1e-12


@given(
    base=st.sampled_from([4, 16]),
    cuts=st.lists(st.integers(1, 15), max_size=3, unique=True),
    halves=st.sampled_from(["both", "first"]),
    order=st.sampled_from(["first", "second"]),
)
def test_any_cut_gives_the_indices_of_all_rows(base, cuts, halves, order):
    """Streamed in any pieces, merged in any grouping, the indices are those of one pass (float64: 1e-9)."""
    if order == "first":
        halves = "first"
    plan = design(GROUPS, base, order=order)
    y = outputs(plan.unit(np.arange(len(plan))))
    fold = SobolSums(("y",), groups=3, order=order, halves=halves)
    bounds = [0, *sorted(cut * plan.block for cut in cuts if cut < base), len(y)]
    pieces = [{"y": torch.from_numpy(y[a:b])} for a, b in pairwise(bounds)]
    states = [fold.add(fold.start(), piece) for piece in pieces]
    right = states[-1]
    for state in reversed(states[:-1]):
        right = fold.merge(state, right)
    streamed = fold.start()
    for piece in pieces:
        streamed = fold.add(streamed, piece)
    expected = indices_of(plan, y, halves=halves)
    for state in (right, streamed):
        found = sobol_indices(fold.finish(state)["y"], halves=halves)
        for name in ("first", "total", "second", "variance"):
            assert np.allclose(getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-9)


def test_moments_of_two_designs():
    """Moments of two designs together are those of all their rows."""
    parts = [design(GROUPS, 16, seed=seed) for seed in (0, 1)]
    ys = [outputs(part.unit(np.arange(len(part)))) for part in parts]
    both = moments_together(*(moments_of(sums_of(part, y)) for part, y in zip(parts, ys, strict=True)))
    assert np.allclose(both.mean, np.concatenate(ys).mean(0))
    assert np.allclose(both.variance, np.concatenate(ys).var(0, ddof=1))


def test_an_offset_of_a_thousand_does_not_hurt():
    """In float32, activations of spread 1 around 1,000 keep their indices as far as they are stored themselves."""
    plan = design(GROUPS, 256)
    y = outputs(plan.unit(np.arange(len(plan))))[:, :1]
    y = (y / y.std()).astype(np.float32)
    near, far = indices_of(plan, y), indices_of(plan, (y + np.float32(1000)))
    assert np.allclose(near.first, far.first, atol=2e-4)  # 1,000 in float32 is known to 3e-5
    assert np.allclose(near.total, far.total, atol=2e-4)
    assert np.allclose(near.second, far.second, atol=3e-4)


def test_both_halves_err_less():
    """The rows BA, used, take from the scatter of all three indices over scrambles."""
    found = {"both": [], "first": []}
    for seed in range(40):
        plan = design(((0,), (1,), (2,)), 64, seed=seed)
        y, *_ = ishigami(plan.unit(np.arange(len(plan))))
        for halves, list_ in found.items():
            one = indices_of(plan, y[:, None], halves=halves)
            list_.append(np.concatenate([one.first, one.total, one.second])[:, 0])
    spread = {halves: np.std(values, axis=0).mean() for halves, values in found.items()}
    assert spread["both"] < 0.9 * spread["first"]


def test_mean_and_variance_are_of_all_rows():
    """The moments are those of every row of the design, with divisor n - 1."""
    plan = design(GROUPS, 16)
    y = outputs(plan.unit(np.arange(len(plan))))
    found = moments_of(sums_of(plan, y))
    assert np.allclose(found.mean, y.mean(0))
    assert np.allclose(found.variance, y.var(0, ddof=1))


def test_a_constant_output_has_no_index():
    """Of an output that never changes nothing can be said: nan, and by the original's division 0."""
    plan = design(GROUPS, 8)
    y = np.full((len(plan), 2), np.float32(0.3))
    y[:, 1] = plan.unit(np.arange(len(plan)))[:, 2]
    sums = sums_of(plan, y)
    found, guarded = sobol_indices(sums), sobol_indices(sums, ratio="zero")
    assert np.isnan(found.first[:, 0]).all()
    assert np.isnan(found.total[:, 0]).all()
    assert found.variance[0] == 0
    assert (guarded.first[:, 0] == 0).all()
    assert (guarded.total[:, 0] == 0).all()
    assert found.total[[0, 2], 1].tolist() == [0, 0]
    assert found.total[1, 1] > 0.5


def flat(kind, *, outputs=200, base=64, seed=0):
    """Float32 rows of three groups, by blocks, that do not vary where their variance is taken; of sizes 1e-3 to 1e3."""
    rng = np.random.default_rng(seed)
    level = (rng.choice([-1, 1], outputs) * 10 ** rng.uniform(-3, 3, outputs)).astype(np.float32)
    rows = np.tile(level, (base, 8, 1))
    if kind == "dead":
        rows[:] = 0
    if kind == "last place":
        up = rng.random(rows.shape) < 0.3
        rows[up] = np.nextafter(rows, np.float32(np.inf))[up]
    if kind == "rare":  # it moves in rows AB and BA only, and not before the second half of the points
        moved = rng.random(rows.shape) < 0.05
        moved[:, [0, -1]] = moved[: base // 2] = False
        rows = np.where(moved, rows * rng.normal(1, 2, rows.shape).astype(np.float32), rows)
    return rows.reshape(-1, outputs)


def folded(rows, *, halves, shards, batch=16):
    """Sums of batches of two blocks, in a state for each shard."""
    fold = SobolSums(("y",), groups=3, halves=halves)
    states = []
    for shard in np.split(rows, shards):
        state = fold.start()
        for part in np.split(shard, len(shard) // batch):
            state = fold.add(state, {"y": torch.from_numpy(part)})
        states.append(state)
    whole = states[0]
    for state in states[1:]:
        whole = fold.merge(whole, state)
    return fold.finish(whole)["y"]


@pytest.mark.parametrize(
    ("kind", "halves"),
    [
        ("dead", "both"),
        ("dead", "first"),
        ("constant", "both"),
        ("constant", "first"),
        ("last place", "both"),
        ("last place", "first"),
        ("rare", "first"),
    ],
)
@pytest.mark.parametrize("shards", [1, 2, 4])
def test_what_varies_by_rounding_alone_has_no_index(kind, halves, shards):
    """Float32 outputs that stand still but for a last place, or stand still in A and B, whatever their shifts were."""
    sums = folded(flat(kind), halves=halves, shards=shards)
    found = sobol_indices(sums, halves=halves)
    assert (found.variance == 0).all()
    assert np.isnan(found.first).all()
    assert np.isnan(found.total).all()
    assert np.isnan(found.second).all()


@pytest.mark.parametrize("halves", ["both", "first"])
@pytest.mark.parametrize("offset", [0, 1000])
def test_what_varies_keeps_its_index_in_float32(halves, offset):
    """A spread of 1 around 1,000, an output that is rarely above 0, one far off at first: as in float64 (to 1e-3)."""
    plan = design(GROUPS, 512)
    x = plan.unit(np.arange(len(plan)))
    y = np.stack([2 * x[:, 0] + x[:, 2] * x[:, 3], np.maximum(x[:, 2] * x[:, 0] - 0.9, 0), x[:, 1] - x[:, 4]], axis=1)
    y[: 2 * plan.block, 2] += 40
    y = (y / y.std(axis=0) + offset).astype(np.float32)
    found, exact = (
        sobol_indices(folded(rows, halves=halves, shards=4), halves=halves) for rows in (y, y.astype(np.float64))
    )
    for name in ("first", "total", "second"):
        assert np.allclose(getattr(found, name), getattr(exact, name), rtol=0, atol=1e-3)


def test_rounding_is_never_larger_than_said():
    """The variance of float32 sums differs from that of the numbers themselves by no more than the bound."""
    for kind, halves in (("rare", "first"), ("rare", "both"), ("constant", "first")):
        rows = flat(kind, outputs=2000, base=256)
        sums = folded(rows, halves=halves, shards=4)
        used = rows.astype(np.float64) - sums.shift
        if halves == "first":
            used = used.reshape(256, 8, -1)[:, [0, -1]].reshape(512, -1)
        mean = sums.rows.sum(0) if halves == "both" else sums.rows[0] + sums.rows[-1]
        squares = sums.squares if halves == "both" else sums.ends
        error = np.abs(squares - mean**2 / len(used) - len(used) * used.var(axis=0))
        assert (error <= sums.rounding + 1e-13 * squares).all()


def test_a_large_batch_is_as_precise_as_small_ones():
    """Products of many blocks at once are added up in float64 every few: a constant one does not drift."""
    rows = np.full((8 * 4096, 1), np.float32(0.1))
    rows[8:] += np.float32(0.3)
    fold = SobolSums(("y",), groups=3, halves="first")
    state = fold.add(fold.start(), {"y": torch.from_numpy(rows[:8])})  # the shift is that of these
    state = fold.add(state, {"y": torch.from_numpy(rows[8:])})
    expected = 2 * 4095 * (np.float64(rows[-1, 0]) - np.float64(rows[0, 0])) ** 2
    assert fold.finish(state)["y"].ends[0] == pytest.approx(expected, rel=5e-6)


def test_division_of_the_original():
    """The guarded ratio is the original's chain written plainly: scale by std + 1e-7, then a / (b + 1e-7)."""
    plan = design(GROUPS, 32)
    y = outputs(plan.unit(np.arange(len(plan))))[:, 0]
    z = (y - y.mean()) / (1e-7 + y.std())
    rows = z.reshape(32, plan.block)
    a, b, ab, ba = rows[:, 0], rows[:, -1], rows[:, 1:4], rows[:, 4:7]
    variance = np.concatenate([a, b]).var()

    def ratio(above):
        return 0.0 if abs(above) <= 1e-8 else above / (variance + 1e-7)

    first = [ratio(np.mean(b * (ab[:, g] - a))) for g in range(3)]
    total = [0.5 * ratio(np.mean((a - ab[:, g]) ** 2)) for g in range(3)]
    second = [ratio(np.mean(ba[:, g] * ab[:, h] - a * b)) - first[g] - first[h] for g, h in combinations(range(3), 2)]
    found = sobol_indices(sums_of(plan, y[:, None], halves="first"), halves="first", ratio="zero")
    assert np.allclose(found.first[:, 0], first, atol=1e-12)
    assert np.allclose(found.total[:, 0], total, atol=1e-12)
    assert np.allclose(found.second[:, 0], second, atol=1e-12)


def test_an_output_that_is_rarely_anything_has_no_wild_index():
    """Where an output is 1 in one row of a hundred and else 0, few base points must not make totals of 100."""
    for seed in range(10):
        plan = design(GROUPS, 16, seed=seed)
        y = (plan.unit(np.arange(len(plan)))[:, [2]] > 0.99).astype(np.float64)
        found = indices_of(plan, y)
        assert np.isnan(found.total).all() or found.total.max() <= len(GROUPS) + 1


def test_a_unit_is_the_sum_of_its_positions():
    """Generalised indices weigh positions by their variance: one that hardly varies hardly counts."""
    plan = design(GROUPS, 64)
    x = plan.unit(np.arange(len(plan)))
    y = np.stack([10 * x[:, 0], 0.001 * x[:, 2], x[:, 3], x[:, 3]], axis=1)
    found = indices_from(per_unit(covariances(sums_of(plan, y)), units=2))
    single = indices_of(plan, y)
    assert found.total[:, 0] == pytest.approx(single.total[:, 0], abs=1e-6)
    assert found.total[:, 1] == pytest.approx(single.total[:, 2], abs=1e-6)


def test_an_index_that_is_not_a_number_stays_where_it_is():
    """NaN in one output makes its own indices nan and no other's."""
    plan = design(GROUPS, 8)
    y = outputs(plan.unit(np.arange(len(plan))))
    y[3, 1] = np.nan
    found = indices_of(plan, y)
    assert np.isnan(found.total[:, 1]).all()
    assert np.isfinite(found.total[:, [0, 2]]).all()


@pytest.mark.parametrize(("base", "expected"), [(100, r"Take 128 \(or 64\)"), (0, "Take 2"), (3, r"Take 4 \(or 2\)")])
def test_a_number_of_points_that_is_no_power_of_two_is_refused(base, expected):
    """The message names the next one."""
    with pytest.raises(InputError, match=expected):
        sobol_points(2, base, scramble="none")


@pytest.mark.parametrize("groups", [((0,), (0, 1)), ((0,),), ((0, 1), ())])
def test_groups_that_are_no_partition_are_refused(groups):
    """Every column belongs to exactly one group."""
    with pytest.raises(InputError, match="no partition"):
        SaltelliDesign(groups, sobol_points(2, 2, scramble="none"))


def test_torn_blocks_and_missing_halves_are_refused():
    """A batch holds whole blocks, and both halves need second order."""
    fold = SobolSums(("y",), groups=2)
    with pytest.raises(InputError, match="no whole blocks of 6"):
        fold.add(fold.start(), {"y": torch.zeros(7, 1)})
    with pytest.raises(InputError, match="both halves"):
        SobolSums(("y",), groups=2, order="first")


def test_size_is_that_of_the_state():
    """The bytes announced are those held at most, while blocks wait to be added together."""
    fold = SobolSums(("y",), groups=3)
    state, held = fold.start(), []
    for _ in range(9):
        state = fold.add(state, {"y": torch.zeros(8, 5)})
        held.append(state_bytes(state) - state["y"]["count"].element_size())
    assert fold.size({"y": (5,)}) == max(held)


def test_what_waits_is_counted_once():
    """Reading an answer in between, with blocks that wait, changes nothing of the later one."""
    plan = design(GROUPS, 8)
    y = outputs(plan.unit(np.arange(len(plan))))
    fold = SobolSums(("y",), groups=3)
    state = fold.start()
    for rows in np.split(y, 8):
        state = fold.add(state, {"y": torch.from_numpy(rows)})
        fold.finish(state)
    found, expected = sobol_indices(fold.finish(state)["y"]), indices_of(plan, y)
    assert np.allclose(found.total, expected.total, rtol=1e-9)
    assert np.allclose(found.second, expected.second, rtol=1e-9, atol=1e-9)
