"""Counts of many units at once equal those of one unit after the other, bit for bit and on every device."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.errors import InputError
from neuronscope.maths.formula_search import prepare
from neuronscope.maths.signature_counts import (
    active_positions,
    batch_labels,
    count_batch,
    label_sums,
    label_tables,
    pair_sums,
)
from neuronscope.maths.signatures import (
    CountFold,
    active_pixels,
    assemble,
    cooccurrence,
    image_signatures,
    interpolation_matrix,
)

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")),
]


def interpolated(maps, shape):
    """Every upsampled value by its definition: two neighbours along each side, rounded to 32 bits in between."""
    values = maps.astype(np.float64)
    for axis, target in ((2, shape[0]), (3, shape[1])):
        matrix = interpolation_matrix(maps.shape[axis], target).astype(np.float64)
        low = (matrix > 0).argmax(1)
        high = np.minimum(low + 1, maps.shape[axis] - 1)
        share = matrix[np.arange(target), high] * (high > low)
        places = [1] * 4
        places[axis] = target
        share = share.reshape(places)
        values = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
        values = values.astype(np.float32).astype(np.float64) if axis == 2 else values
    return values


def drawn(seed):
    """A layer's maps, a labelled image set, and bounds of which many are values that occur."""
    rng = np.random.default_rng(seed)
    n, u, h, w = rng.integers(1, 5, 4)
    shape = int(rng.integers(h, 17)), int(rng.integers(w, 17))
    maps = (rng.gamma(0.5, 1, (n, u, h, w)) * (rng.random((n, u, 1, 1)) < 0.7)).astype(np.float32)
    labels = assemble(image_signatures(rng.integers(0, 4, (2, *shape))) for _ in range(n + 1))
    values = interpolated(maps, shape)
    lower, upper = np.full(u, np.nan), np.full(u, np.inf)
    for unit in range(u):
        source = (values, maps)[rng.integers(2)][:, unit].reshape(-1)
        lower[unit] = source[rng.integers(len(source))] if rng.random() < 0.9 else np.nan
        upper[unit] = source[rng.integers(len(source))] if rng.random() < 0.5 else np.inf
    rows = rng.permutation(n + 1)[:n]
    return maps, labels, rows, shape, lower, upper, values


def counted(labels, units, device="cpu"):
    """Nothing counted yet, as tensors."""
    return {name: torch.from_numpy(values).to(device) for name, values in CountFold(labels, units).start().items()}


def one_by_one(maps, labels, rows, *, shape, lower, upper):
    """The counts of each unit by numpy."""
    fold = CountFold(labels, maps.shape[1])
    state = fold.start()
    for unit in np.flatnonzero(~np.isnan(lower)):
        image, pixel = active_pixels(maps[:, unit].copy(), above=lower[unit], below=upper[unit], shape=shape)
        state = fold.add(state, unit=np.full(len(image), unit), image=rows[image], pixel=pixel)
    return state


@pytest.mark.parametrize("device", DEVICES)
def test_counts_equal_those_of_numpy_to_the_bit(device):
    """In 200 cases, with bounds that are upsampled values or activations, all three ways find the same pixels."""
    ties = 0
    for seed in range(200):
        maps, labels, rows, shape, lower, upper, values = drawn(seed)
        upper = upper if seed % 2 else np.full(len(upper), np.inf)
        expected = one_by_one(maps, labels, rows, shape=shape, lower=lower, upper=upper)
        found = count_batch(
            counted(labels, len(lower)),
            torch.from_numpy(maps).to(device),
            labels=batch_labels(labels, rows, device=device),
            shape=shape,
            lower=torch.from_numpy(lower),
            upper=torch.from_numpy(upper) if seed % 2 else None,
        )
        for name in expected:
            assert found[name].dtype == torch.int32
            assert np.array_equal(found[name].cpu().numpy(), expected[name]), (seed, name)
        bounds = lower[:, None, None], upper[:, None, None]
        assert found["active"].sum() == ((values > bounds[0]) & (values < bounds[1])).sum()
        ties += int((values == bounds[0]).sum())
    assert ties > 200


@given(st.integers(0, 2**32 - 1))
def test_memory_and_batches_change_nothing(seed):
    """One map at a time, or image after image, gives what the whole batch gives."""
    maps, labels, rows, shape, lower, _, _ = drawn(seed)
    bound, tensors = torch.from_numpy(lower), torch.from_numpy(maps)
    whole = count_batch(
        counted(labels, len(lower)), tensors, labels=batch_labels(labels, rows), shape=shape, lower=bound
    )
    little, single = counted(labels, len(lower)), counted(labels, len(lower))
    little = count_batch(little, tensors, labels=batch_labels(labels, rows), shape=shape, lower=bound, most_bytes=1)
    for place in range(len(rows)):
        some = batch_labels(labels, rows[place : place + 1])
        single = count_batch(single, tensors[place : place + 1], labels=some, shape=shape, lower=bound)
    for name, values in whole.items():
        assert torch.equal(values, little[name])
        assert torch.equal(values, single[name])


@given(st.integers(0, 2**32 - 1))
def test_interpolation_never_exceeds_what_it_is_made_from(seed):
    """A map of one value stays that value, and no pixel is above the strongest position or under the weakest."""
    rng = np.random.default_rng(seed)
    h, w = (int(side) for side in rng.integers(1, 30, 2))
    shape = int(rng.integers(h, 120)), int(rng.integers(w, 120))
    maps = np.full((1, h, w), rng.gamma(1, 1), dtype=np.float32)
    flat = float(maps[0, 0, 0])
    assert len(active_pixels(maps, above=flat, shape=shape)[0]) == 0
    assert len(active_pixels(maps, above=flat / 2, below=flat, shape=shape)[0]) == 0
    maps = rng.normal(0, 1, (1, h, w)).astype(np.float32)
    weakest = float(np.nextafter(maps.min(), np.float32(-9)))
    above = np.nextafter(maps.max(), np.float32(9))
    assert len(active_pixels(maps, above=weakest, below=float(above), shape=shape)[0]) == shape[0] * shape[1]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_numbers_are_taken_as_32_bits(kind):
    """Activations of half or double precision count as their 32-bit values."""
    maps, labels, rows, shape, lower, _, _ = drawn(7)
    tensors = torch.from_numpy(maps).to(kind)
    expected = one_by_one(
        tensors.float().numpy(), labels, rows, shape=shape, lower=lower, upper=np.full(len(lower), np.inf)
    )
    found = count_batch(
        counted(labels, len(lower)),
        tensors,
        labels=batch_labels(labels, rows),
        shape=shape,
        lower=torch.from_numpy(lower),
    )
    assert all(np.array_equal(found[name].numpy(), expected[name]) for name in expected)


def test_many_signatures_of_one_image_keep_their_numbers():
    """Local numbers above the sign of 16 bits, and above 16 bits, find their signatures."""
    for side in (200, 300):  # 40,000 and 90,000 label sets
        labels = assemble([image_signatures(np.arange(side * side).reshape(1, side, side) + 1)])
        maps = torch.zeros(1, 1, side, side)
        maps[0, 0, -1, -1] = 1
        bound = torch.tensor([0.5])
        state = count_batch(
            counted(labels, 1), maps, labels=batch_labels(labels, np.array([0])), shape=(side, side), lower=bound
        )
        assert torch.nonzero(state["active"]).tolist() == [[0, side * side - 1]]


def test_positions_of_nothing():
    """No image, and no firing map, give no position."""
    bound = torch.tensor([0.5, 0.5])
    assert list(active_positions(torch.zeros(0, 2, 3, 3), lower=bound, shape=(4, 4))) == []
    assert list(active_positions(torch.zeros(1, 2, 3, 3), lower=bound, shape=(4, 4))) == []


@pytest.mark.parametrize("device", DEVICES)
def test_histograms_equal_those_of_numpy(device):
    """Sums per label and per pair of labels are those that the search takes unit by unit, in any memory."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        labels = assemble(image_signatures(rng.integers(0, 5, (rng.integers(0, 4), 6, 6))) for _ in range(4))
        tables = prepare(labels)
        active = rng.integers(0, 900, (5, len(labels))) * (rng.random((5, len(labels))) < 0.5)
        on_device = label_tables(cooccurrence(labels), device=device)
        rows = np.arange(len(labels))
        for kind, memory in ((np.int32, 1), (np.int64, 1 << 20), (np.float64, 1 << 20)):
            values = torch.from_numpy(active.astype(kind)).to(device)
            by_label = label_sums(values, on_device, most_bytes=memory)
            by_pair = pair_sums(values, on_device, most_bytes=memory)
            assert by_label.dtype == by_pair.dtype == (torch.float64 if kind is np.float64 else torch.int64)
            for unit, one in enumerate(active.astype(np.float64)):
                assert np.array_equal(by_label[unit].cpu().numpy(), tables.per_label(rows, one))
                assert np.array_equal(by_pair[unit].cpu().numpy(), tables.per_pair(rows, one)[0])


def test_labels_of_other_images_are_refused():
    """Maps and labels that do not belong together are not counted silently."""
    labels = assemble([image_signatures(np.ones((1, 2, 2), dtype=np.uint8))] * 2)
    maps, bound = torch.zeros(2, 1, 1, 1), torch.tensor([0.5])
    for rows, shape in (([0], (2, 2)), ([0, 1], (3, 2))):
        with pytest.raises(InputError, match="Give the labels of the same images"):
            count_batch(counted(labels, 1), maps, labels=batch_labels(labels, np.array(rows)), shape=shape, lower=bound)
    mixed = assemble([image_signatures(np.ones((1, 2, k), dtype=np.uint8)) for k in (2, 3)])
    with pytest.raises(InputError, match="must be of one size"):
        batch_labels(mixed, np.array([0, 1]))
