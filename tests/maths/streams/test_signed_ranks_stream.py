"""The stream of signed ranks against the exact ones, against counting, and under cuts, orders and scales."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.errors import InputError
from neuronscope.maths.signed_ranks import signed_ranks
from neuronscope.maths.streams import on_cpu, state_bytes
from neuronscope.maths.streams.signed_ranks import SignedRankHistogram

COUNTS = ("counts", "top", "nonfinite", "images")
MOMENTS = ("original", "treated", "squares")
SMALLEST_NORMAL = -126  # exponent; numbers below it share its bins' width
BROKEN = [torch.nan, torch.inf, -torch.inf]


def kinds(rng, m):
    """Differences by kind, one a column: usual, shifted, of a ReLU, tied, heavy tails, over 30 octaves, tiny, large."""
    normal = rng.standard_normal(m)
    relu = np.maximum(normal, 0) - np.maximum(rng.standard_normal(m) - 1, 0)
    spread = np.sign(normal) * 2.0 ** rng.uniform(-30, 0, m)
    tails = rng.standard_cauchy(m)
    columns = (normal, normal + 0.7, relu, np.round(normal), tails, spread, 1e-30 * normal, 1e20 * normal)
    return np.stack(columns, axis=1).astype(np.float32)


def paired(difference, *, block):
    """Rows in blocks whose original is 0, so that the differences are these to the bit."""
    draws = block - 1
    rows = np.zeros((len(difference) // draws, block, difference.shape[1]), dtype=np.float32)
    rows[:, 1:] = difference.reshape(-1, draws, difference.shape[1])
    return torch.from_numpy(rows.reshape(-1, difference.shape[1]))


def fold(reducer, values, places=None):
    """The state after batches cut at these blocks, each with memory of its own, when nothing waits any more."""
    places = [0, len(values) // reducer.block] if places is None else places
    state = reducer.start()
    for first, last in pairwise(places):
        state = reducer.add(state, {"x": values[first * reducer.block : last * reducer.block].clone()})
    return reducer.settled(state)


def answer(values, **options):
    """The answer of one batch."""
    reducer = SignedRankHistogram("x", **options)
    return reducer.finish(fold(reducer, values))


def same_counts(one, other):
    """Equal whole numbers; means and squares equal but for rounding."""
    assert one["waiting"] == other["waiting"] == []
    for name in COUNTS:
        assert torch.equal(one[name], other[name])
    for name in MOMENTS:
        scale = (one["squares"] / one["images"]).sqrt() if name != "squares" else one["squares"]
        near = (one[name] - other[name]).abs() <= 1e-12 * (scale + one[name].abs())
        assert (near | (one["nonfinite"] > 0)).all()


@st.composite
def streams(draw):
    """Blocks of few scalars whose scale rises, falls or jumps along the stream; zeros, ties and broken values."""
    images, block, scalars = draw(st.integers(1, 12)), draw(st.integers(2, 4)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    exponents = draw(st.sampled_from([[0], [-9, 9], [-40, 0, 40], [-140, -126, -120], [60, -100]]))
    shape = (images, block, scalars)
    steps = rng.integers(-2, 3, shape) if draw(st.booleans()) else rng.standard_normal(shape)
    values = torch.from_numpy((steps * 2.0 ** rng.choice(exponents, shape)).astype(np.float32)).flatten(0, 1)
    if draw(st.booleans()):
        values[draw(st.integers(0, len(values) - 1)), 0] = draw(st.sampled_from(BROKEN))
    options = {
        "block": block,
        "pool": draw(st.sampled_from(["draws", "images"])),
        "mantissa_bits": draw(st.integers(0, 4)),
        "octaves": draw(st.integers(1, 20)),
    }
    return options, values, images


def cuts(images):
    """Places to cut a stream, twice at one place now and then: an empty stretch."""
    return st.lists(st.integers(0, images), max_size=5).map(lambda inner: [0, *sorted(inner), images])


@given(streams(), st.data())
def test_cuts_batches_and_order_change_no_count(stream, data):
    """One batch, many batches, shards merged left to right, right to left or shuffled: the same whole numbers."""
    options, values, images = stream
    reducer = SignedRankHistogram("x", **options)
    whole = fold(reducer, values)
    places = data.draw(cuts(images))
    same_counts(fold(reducer, values, places), whole)
    parts = [values[a * reducer.block : b * reducer.block] for a, b in pairwise(places)]
    left, right = reducer.start(), reducer.start()
    for part in parts:
        left = reducer.merge(left, fold(reducer, part))
    for part in reversed(parts):
        right = reducer.merge(fold(reducer, part), right)
    same_counts(left, whole)
    same_counts(right, whole)
    shuffled = reducer.start()
    for part in data.draw(st.permutations(parts)):
        shuffled = reducer.merge(shuffled, fold(reducer, part))
    same_counts(shuffled, whole)


@given(streams())
def test_merging_leaves_the_right_state_alone(stream):
    """Only the first argument may be built upon."""
    options, values, images = stream
    reducer = SignedRankHistogram("x", **options)
    half = images // 2 * reducer.block
    right = fold(reducer, values[half:])
    before = {name: right[name].clone() for name in (*COUNTS, *MOMENTS)}
    if half:
        reducer.merge(fold(reducer, values[:half]), right)
    for name, tensor in before.items():
        np.testing.assert_array_equal(right[name].numpy(), tensor.numpy())


def bin_numbers(sizes, bits):
    """The bin of each size among those of all float32 numbers, found by comparing with its edges."""
    parts = np.arange(2**bits) / 2**bits
    octaves = [2.0**exponent * (1 + parts) for exponent in range(SMALLEST_NORMAL, 128)]
    return np.searchsorted(np.concatenate([2.0**SMALLEST_NORMAL * parts, *octaves]), sizes, side="right") - 1


@given(streams())
def test_every_difference_is_counted_in_its_bin(stream):
    """The window ends with the octave of the scalar's largest difference; what is below joins the smallest bin."""
    options, values, images = stream
    reducer = SignedRankHistogram("x", **options)
    blocks = values.numpy().reshape(images, reducer.block, -1)
    with np.errstate(invalid="ignore"):
        apart = blocks[:, 1:] - blocks[:, :1]
        if reducer.pool == "images":
            apart = apart.astype(np.float64).sum(axis=1, keepdims=True) / (reducer.block - 1)
    state = fold(reducer, values)
    per_octave, bins = 2**reducer.mantissa_bits, reducer.octaves * 2**reducer.mantissa_bits + 2
    for scalar, column in enumerate(apart.astype(np.float32).reshape(-1, blocks.shape[2]).T):
        sound = column[np.isfinite(column)].astype(np.float64)
        moved = sound[sound != 0]
        numbers = bin_numbers(np.abs(moved), reducer.mantissa_bits)
        # the two smallest octaves of float32 are never told apart
        first = max(numbers.max(initial=0) // per_octave - reducer.octaves + 1, 2) * per_octave
        expected = np.zeros((2, bins), dtype=np.int32)
        np.add.at(expected, ((moved < 0).astype(int), np.maximum(numbers - first + 2, 1)), 1)
        found = state["counts"][scalar].numpy().reshape(2, bins)
        np.testing.assert_array_equal(found[:, 1:], expected[:, 1:])
        assert state["nonfinite"][scalar] == len(column) - len(sound)
        assert found.sum() == len(column)


@pytest.mark.parametrize("bits", [2, 3, 5])
@pytest.mark.parametrize("m", [6, 100, 3000])
def test_the_exact_correlation_lies_within_the_bound(m, bits):
    """Whatever the distribution; each scalar has a bound of its own, and zeros are counted exactly."""
    difference = kinds(np.random.default_rng(m), m)
    found, exact = answer(paired(difference, block=3), block=3, mantissa_bits=bits), signed_ranks(difference)
    assert (np.abs(found.ranks.rank_biserial - exact.rank_biserial) <= found.bound + 1e-15).all()
    assert (found.bound < 1).all()
    np.testing.assert_array_equal(found.ranks.zero_share, exact.zero_share)
    assert found.ranks.count == exact.count
    assert found.images == m // 2


def test_the_approximation_is_as_close_as_documented():
    """10,000 differences: within 0.0005 by 3 bits, the bound 0.015 at most; by 4 bits half the bound."""
    difference = kinds(np.random.default_rng(0), 10_000)[:, [0, 1, 2, 6, 7]]
    exact = signed_ranks(difference)
    found, finer = (answer(paired(difference, block=2), block=2, mantissa_bits=bits) for bits in (3, 4))
    assert np.abs(found.ranks.rank_biserial - exact.rank_biserial).max() < 5e-4
    assert found.bound.max() < 0.015
    np.testing.assert_allclose(finer.bound, found.bound / 2, rtol=0.05)
    assert np.abs(found.ranks.test().statistic - exact.test().statistic).max() < 0.1


def test_bins_of_one_size_each_are_exact():
    """Whole numbers up to 6 each have a bin of their own, in any unit: ranks and tests are the exact ones."""
    whole = np.random.default_rng(0).integers(-6, 7, (400, 3))
    difference = (whole * 2.0 ** np.array([-100, 0, 60])).astype(np.float32)
    found, exact = answer(paired(difference, block=2), block=2), signed_ranks(difference)
    np.testing.assert_array_equal(found.ranks.balance, exact.balance)
    np.testing.assert_array_equal(found.ranks.statistic, exact.statistic)
    for zero_method in ("zsplit", "pratt"):
        one, other = found.ranks.test(zero_method=zero_method), exact.test(zero_method=zero_method)
        np.testing.assert_array_equal(one.statistic, other.statistic)
        np.testing.assert_array_equal(one.log10_p, other.log10_p)


def test_few_octaves_cost_precision_and_the_bound_says_so():
    """Sizes over 30 octaves in a window of 4: nearly all differences are equally small, with a bound near 1/2."""
    difference = kinds(np.random.default_rng(0), 3000)[:, 5:6]
    exact = signed_ranks(difference).rank_biserial
    bounds = []
    for octaves in (4, 16, 40):
        found = answer(paired(difference, block=2), block=2, octaves=octaves)
        assert (np.abs(found.ranks.rank_biserial - exact) <= found.bound).all()
        bounds.append(found.bound[0])
    assert bounds[0] > 0.3
    assert bounds[2] < 0.01


@pytest.mark.parametrize("spread", [2, 4, 8])
def test_forty_octaves_are_enough_for_probabilities(spread):
    """Of 40 classes behind a softmax, rare ones too, each is within the usual 0.015 of the exact ranks."""
    rng = np.random.default_rng(0)
    logits = spread * (rng.standard_normal((200, 1, 40)) + 0.3 * rng.standard_normal((200, 5, 40)))
    logits[:, 1:, :20] += 0.2 * spread
    chances = torch.from_numpy(logits).softmax(2).float()
    found = answer(chances.reshape(1000, 40), block=5, octaves=40)
    exact = signed_ranks((chances[:, 1:] - chances[:, :1]).reshape(800, 40).numpy()).rank_biserial
    assert found.bound.max() < 0.015
    assert (np.abs(found.ranks.rank_biserial - exact) <= found.bound).all()


@pytest.mark.parametrize(("offset", "scale"), [(0, 1), (1e3, 1), (-1e6, 10), (0, 1e-30), (0, 1e20)])
def test_point_biserial_survives_offsets_and_scales(offset, scale):
    """Pearson's correlation of the activation with the label, from a stream in batches, around large offsets too."""
    rng = np.random.default_rng(0)
    rows = offset + scale * (rng.standard_normal((300, 4, 3)) + rng.standard_normal((300, 1, 3)))
    rows[:, 1:] += scale * np.array([0.0, 0.5, -3.0])
    values = torch.from_numpy(rows.astype(np.float32).reshape(1200, 3))
    reducer = SignedRankHistogram("x", block=4)
    found = reducer.finish(fold(reducer, values, [0, 1, 2, 100, 170, 300]))
    wide = values.double().numpy()
    label = np.tile([0.0, 1.0, 1.0, 1.0], 300)
    expected = [np.corrcoef(label, column / scale)[0, 1] for column in wide.T]
    np.testing.assert_allclose(found.point_biserial, expected, rtol=1e-9, atol=1e-12)
    difference = wide[label == 1].mean(axis=0) - wide[label == 0].mean(axis=0)
    np.testing.assert_allclose(found.difference, difference, rtol=1e-9, atol=1e-12 * scale)


def test_images_can_be_ranked_instead_of_draws():
    """The p-values are then those of the images' mean differences; the point-biserial correlation is the same."""
    rng = np.random.default_rng(0)
    difference = (rng.standard_normal((500, 1, 6)) + 0.3 * rng.standard_normal((500, 4, 6))).astype(np.float32)
    values = paired(difference.reshape(2000, 6), block=5)
    draws, images = answer(values, block=5), answer(values, block=5, pool="images")
    assert (draws.ranks.count, images.ranks.count) == (2000, 500)
    exact = signed_ranks(difference.mean(axis=1, dtype=np.float64))
    assert (np.abs(images.ranks.rank_biserial - exact.rank_biserial) <= images.bound).all()
    np.testing.assert_allclose(images.ranks.test().statistic, exact.test().statistic, atol=0.1)
    np.testing.assert_array_equal(images.point_biserial, draws.point_biserial)
    assert (images.ranks.test().log10_p > draws.ranks.test().log10_p).mean() > 0.5


@pytest.mark.parametrize("bad", BROKEN)
@pytest.mark.parametrize("row", [0, 2])
def test_a_broken_scalar_is_nan_and_counted(bad, row):
    """One activation that is not finite, original or treated; its neighbours do not notice."""
    values = paired(kinds(np.random.default_rng(0), 60), block=3)
    clean = answer(values, block=3)
    values[row, 1] = bad
    found = answer(values, block=3)
    assert found.nonfinite.tolist() == [0, 2 if row == 0 else 1, 0, 0, 0, 0, 0, 0]
    for of in (
        lambda one: one.ranks.rank_biserial,
        lambda one: one.ranks.statistic,
        lambda one: one.ranks.test().log10_p,
        lambda one: one.ranks.test(zero_method="pratt").statistic,
        lambda one: one.bound,
        lambda one: one.point_biserial,
        lambda one: one.difference,
    ):
        expected = of(clean).copy()
        assert not np.isnan(expected[1])
        expected[1] = np.nan
        np.testing.assert_array_equal(of(found), expected)


def test_a_dead_scalar_is_nan():
    """Neither effect nor test nor correlation, and a share of zeros of 1; a constant that stands still likewise."""
    found = answer(torch.tensor([[0.0, 7.0]]).expand(12, 2), block=2)
    assert found.ranks.zero_share.tolist() == [1, 1]
    for value in (found.ranks.rank_biserial, found.ranks.test().p, found.bound, found.point_biserial):
        assert np.isnan(value).all()
    assert found.difference.tolist() == [0, 0]


@pytest.mark.parametrize("options", [{}, {"octaves": 40}, {"mantissa_bits": 5, "pool": "images"}])
def test_announced_size_covers_the_state(options):
    """The bytes that a plan prints are those held at most, but for one number: 127 rows can wait."""
    reducer = SignedRankHistogram("x", block=3, **options)
    state, held = reducer.start(), []
    for _ in range(90):
        state = reducer.add(state, {"x": torch.randn(3, 7)})
        held.append(state_bytes(state))
    assert max(held) + 7 * 4 == reducer.size({"x": (7,)}) + 8  # in blocks of 3 only 126 do


@given(streams(), st.data())
def test_what_waits_is_counted_once(stream, data):
    """Merged with rows that wait on either side, and read in between, a state gives the counts of one batch."""
    options, values, images = stream
    reducer = SignedRankHistogram("x", **options)
    state = reducer.start()
    for first, last in pairwise(data.draw(cuts(images))):
        part = {"x": values[first * reducer.block : last * reducer.block].clone()}
        if data.draw(st.booleans()):
            state = reducer.merge(state, reducer.add(reducer.start(), part))
        else:
            state = reducer.add(state, part)
        if state and data.draw(st.booleans()):
            reducer.finish(state)
    same_counts(reducer.settled(state), fold(reducer, values))


def test_many_rows_are_counted_in_whichever_portions():
    """A thousand rows in batches of 3, 30 and 300: portions of 128 rows or more, the same counts."""
    values = paired(kinds(np.random.default_rng(1), 666), block=3)
    reducer = SignedRankHistogram("x", block=3)
    whole = fold(reducer, values)
    for step in (1, 10, 100):
        same_counts(fold(reducer, values, [*range(0, 333, step), 333]), whole)


def test_other_precisions_are_taken():
    """Half and double precision activations are ranked as float32."""
    values = paired(kinds(np.random.default_rng(0), 60)[:, :4], block=2)
    for dtype in (torch.float16, torch.float64):
        given = values.to(dtype)
        np.testing.assert_array_equal(
            answer(given, block=2).ranks.balance, answer(given.float(), block=2).ranks.balance
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": 1}, "1 original and at least 1 treated row, got 1"),
        ({"block": 2, "mantissa_bits": 24}, "got 24 and 16"),
        ({"block": 2, "octaves": 0}, "got 3 and 0"),
    ],
)
def test_meaningless_settings_are_refused(options, message):
    """The error says what came and what suits."""
    with pytest.raises(InputError, match=message):
        SignedRankHistogram("x", **options)


def test_torn_blocks_and_no_images_are_refused():
    """A batch ends with a block; without any image there is no answer."""
    reducer = SignedRankHistogram("x", block=3)
    with pytest.raises(InputError, match="whole blocks of 3 rows, got 4"):
        reducer.add(reducer.start(), {"x": torch.zeros(4, 2)})
    with pytest.raises(InputError, match="no image"):
        reducer.finish(reducer.add(reducer.start(), {"x": torch.zeros(0, 2)}))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_counts_the_same():
    """The same whole numbers on another device."""
    reducer = SignedRankHistogram("x", block=3)
    values = paired(kinds(np.random.default_rng(0), 600), block=3)
    state = fold(reducer, values.cuda(), [0, 10, 200])
    same_counts(fold(reducer, values, [0, 10, 200]), on_cpu(state))
