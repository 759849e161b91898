"""The one law of every reducer: states merge, and merging consecutive shards in order is one pass, bit for bit."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.maths.streams import (
    ClassMoments,
    CoActivation,
    Confusion,
    Decisions,
    Each,
    Histogram,
    MapMoments,
    Moments,
    StackRows,
    TopK,
    UpperTail,
    state_bytes,
)

CLASSES = 3
MOST = 24  # images of a stream

ANY_ORDER = {
    "top": TopK("x", 4, where="max_at"),
    "bottom": TopK("x", 3, where="max_at", end="smallest"),
    "histogram": Histogram("x"),
    "tail": UpperTail("x", 0.2, total=MOST),
    "confusion": Confusion("logits", classes=CLASSES),
    "together": CoActivation("x"),
    "rows": StackRows("x"),
    "decisions": Decisions("logits"),
}
IN_ORDER = {
    **ANY_ORDER,
    "moments": Moments("x", threshold=0.5),
    "by_class": ClassMoments("x", classes=CLASSES),
}


@st.composite
def streams(draw):
    """Images in a row: ties, zeros, negative numbers, large offsets, random numbers, sometimes NaN and infinity."""
    n, units = draw(st.integers(1, MOST)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cells = []
    for _ in range(units):
        steps = draw(
            st.sampled_from([rng.integers(-3, 4, n), rng.standard_normal(n), np.maximum(rng.normal(size=n), 0)])
        )
        cells.append(draw(st.sampled_from([0.0, 1e3, -1e3, 1e6])) + draw(st.sampled_from([1.0, 1e-2, 100.0])) * steps)
    values = torch.from_numpy(np.stack(cells, 1).astype(np.float32))
    broken = draw(st.sampled_from([None, None, None, torch.nan, torch.inf, -torch.inf]))
    if broken is not None:
        values[draw(st.integers(0, n - 1)), 0] = broken
    return {
        "index": torch.arange(n),
        "label": torch.from_numpy(rng.integers(-1, CLASSES, n)),
        "x": values,
        "max_at": torch.from_numpy(rng.integers(0, 9, (n, units)).astype(np.int32)),
        "logits": torch.from_numpy(rng.integers(-2, 3, (n, CLASSES)).astype(np.float32)),
    }


def cuts(length):
    """Places to cut a row of so many things, twice at one place now and then: an empty stretch."""
    return st.lists(st.integers(0, length), max_size=5).map(lambda inner: [0, *sorted(inner), length])


@st.composite
def sharded(draw):
    """A stream as shards of batches; any of them may be empty."""
    stream = draw(streams())
    places = sorted(set(draw(cuts(len(stream["index"])))))
    batches = [{name: tensor[a:b] for name, tensor in stream.items()} for a, b in pairwise(places)]
    return [batches[a:b] for a, b in pairwise(draw(cuts(len(batches))))]


def fold(reducer, batches):
    """The state after these batches, each with memory of its own."""
    state = reducer.start()
    for batch in batches:
        state = reducer.add(state, {name: tensor.clone() for name, tensor in batch.items()})
    return state


def merged(reducer, shards):
    """The answer of shards that were worked apart."""
    state = reducer.start()
    for shard in shards:
        state = reducer.merge(state, fold(reducer, shard))
    return reducer.finish(state)


def identical(one, other):
    """Equal in every bit, all NaN taken as one."""
    if dataclasses.is_dataclass(one):
        fields = [field.name for field in dataclasses.fields(one)]
        return all(identical(getattr(one, name), getattr(other, name)) for name in fields)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(identical(one[name], other[name]) for name in one)
    if isinstance(one, np.ndarray):
        same = one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
        return same and (one.dtype.kind != "f" or bool((np.signbit(one) == np.signbit(other))[~np.isnan(one)].all()))
    return one == other


@given(sharded())
def test_shards_in_order_give_the_bits_of_one_pass(shards):
    """Wherever the row of batches is cut into shards, even into empty ones, no bit of any answer changes."""
    reducer = Each(**IN_ORDER)
    one_pass = reducer.finish(fold(reducer, [batch for shard in shards for batch in shard]))
    assert identical(merged(reducer, shards), one_pass)


@given(sharded())
def test_batch_size_changes_no_bit(shards):
    """All images in one batch give the answer of many small batches: no sum depends on its grouping."""
    batches = [batch for shard in shards for batch in shard]
    whole = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    reducer = Each(**IN_ORDER)
    assert identical(reducer.finish(fold(reducer, batches)), reducer.finish(fold(reducer, [whole])))


@given(sharded(), st.randoms())
def test_whole_numbers_and_lists_merge_in_any_order(shards, random):
    """Counts, extremes, tails and rows come out the same whatever the order in which shards arrive."""
    reducer = Each(**ANY_ORDER)
    in_order = merged(reducer, shards)
    shuffled = random.sample(shards, len(shards))
    assert identical(merged(reducer, shuffled), in_order)


@given(sharded())
def test_grouping_of_merges_changes_no_bit(shards):
    """Merging is associative: left to right or right to left."""
    reducer = Each(**IN_ORDER)
    state = fold(reducer, shards[-1])
    for shard in reversed(shards[:-1]):
        state = reducer.merge(fold(reducer, shard), state)
    assert identical(reducer.finish(state), merged(reducer, shards))


@given(sharded())
def test_map_moments_stay_within_their_stated_tolerance(shards):
    """Another grouping of map moments agrees within 1e-6 of the standard deviation."""
    sound = [[batch for batch in shard if batch["x"].isfinite().all()] for shard in shards]
    batches = [batch for shard in sound for batch in shard]
    if sum(len(batch["index"]) for batch in batches) < 2:
        return
    reducer = MapMoments("x")
    mean, variance = reducer.finish(fold(reducer, batches))
    other_mean, other_variance = merged(reducer, sound)
    values = torch.cat([batch["x"] for batch in batches]).double().numpy()
    spread = values.std(0, ddof=1)
    assert (np.abs(other_mean - mean) <= 1e-6 * spread).all()
    assert (np.abs(other_variance - variance) <= 1e-6 * spread**2).all()
    assert (np.abs(mean - values.mean(0)) <= 1e-6 * spread + 1e-12 * np.abs(mean)).all()
    assert np.allclose(variance, values.var(0, ddof=1), rtol=2e-6, atol=0)


@pytest.mark.parametrize("name", sorted({*IN_ORDER, "maps"}))
def test_a_stretch_without_images_changes_nothing(name):
    """The starting state is neutral on both sides of a merge, so a shard of unreadable images is harmless."""
    reducer = {**IN_ORDER, "maps": MapMoments("x")}[name]
    batch = {
        "index": torch.arange(4),
        "label": torch.tensor([0, 1, 2, -1]),
        "x": torch.tensor([[1.0], [3.0], [2.0], [2.0]]),
        "max_at": torch.zeros(4, 1, dtype=torch.int32),
        "logits": torch.eye(4)[:, :3],
    }
    alone = reducer.finish(fold(reducer, [batch]))
    left = reducer.finish(reducer.merge(reducer.start(), fold(reducer, [batch])))
    right = reducer.finish(reducer.merge(fold(reducer, [batch]), reducer.start()))
    assert all(identical(np.asarray(a), np.asarray(b)) for a, b in zip(_parts(alone), _parts(left), strict=True))
    assert all(identical(np.asarray(a), np.asarray(b)) for a, b in zip(_parts(alone), _parts(right), strict=True))


def _parts(answer):
    if dataclasses.is_dataclass(answer):
        return [getattr(answer, field.name) for field in dataclasses.fields(answer)]
    return list(answer) if isinstance(answer, tuple) else [answer]


@pytest.mark.parametrize("name", sorted(set(IN_ORDER) - {"rows", "decisions"}))
def test_announced_size_covers_the_state(name):
    """The bytes that a plan prints for a reducer are at least those its state takes."""
    n, units = MOST, 5
    reducer = IN_ORDER[name]
    batch = {
        "index": torch.arange(n),
        "label": torch.arange(n) % CLASSES,
        "x": torch.randn(n, units),
        "max_at": torch.zeros(n, units, dtype=torch.int32),
        "logits": torch.randn(n, CLASSES),
    }
    shapes = {"x": (units,), "logits": (CLASSES,), "max_at": (units,)}
    counters = 64 + 16 * units  # a few whole numbers beside the arrays
    assert state_bytes(fold(reducer, [batch])) <= reducer.size(shapes) + counters
