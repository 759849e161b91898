"""The reduction loses nothing: every count equals the one on pixels, and parts join to the whole."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.nn import functional

from neuronscope.errors import DataError, InputError
from neuronscope.maths.formula_search.memory import blocks_of_units
from neuronscope.maths.signatures import (
    CountFold,
    Signatures,
    active_pixels,
    assemble,
    chance_counts,
    cooccurrence,
    expected_bytes,
    image_signatures,
    interpolation_matrix,
    join,
    mask_counts,
    unit_counts,
)


@st.composite
def images(draw):
    """A few images of several sizes and numbers of layers, with whole-image labels; some label numbers are large."""
    made = []
    for _ in range(draw(st.integers(1, 5))):
        shape = (draw(st.integers(0, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 4)))
        kind = draw(st.sampled_from([np.uint8, np.uint16, np.int32, np.int64]))
        values = st.sampled_from([0, 1, 2, 3, 5, 200])
        layers = draw(hnp.arrays(kind, shape, elements=values))
        if kind in (np.int32, np.int64) and draw(st.booleans()):
            layers = np.where(layers == 5, 300_000, layers).astype(kind)
        made.append((layers, draw(st.lists(st.sampled_from([0, 1, 4, 7]), max_size=2))))
    return made


def label_sets(layers, whole):
    """The labels of every pixel, as a set each."""
    flat = layers.reshape(len(layers), layers.shape[1] * layers.shape[2])
    return [frozenset({*map(int, pixel), *whole} - {0}) for pixel in flat.T]


def whole_set(made):
    """All images, reduced and put together."""
    return assemble(image_signatures(layers, whole) for layers, whole in made)


def sets_of(signatures):
    """The signatures as sets of labels."""
    return [frozenset(map(int, row)) - {0} for row in signatures.table]


def assert_same(first, second):
    """Equal in every array, types included."""
    for name in Signatures.__dataclass_fields__:
        a, b = getattr(first, name), getattr(second, name)
        assert a.dtype == b.dtype, name
        assert np.array_equal(a, b), name


@given(images())
def test_every_pixel_keeps_its_labels(made):
    """The signature of each pixel is its label set, in tables without duplicates and in canonical order."""
    found = whole_set(made)
    sets = sets_of(found)
    assert len(set(sets)) == len(sets)
    assert [tuple(row) for row in found.table.tolist()] == sorted(tuple(row) for row in found.table.tolist())
    everything = []
    for image, (layers, whole) in enumerate(made):
        pixels = label_sets(layers, whole)
        everything += pixels
        assert [sets[s] for s in found.signature_map(image)] == pixels
        at = slice(found.start[image], found.start[image + 1])
        assert list(found.pair_signature[at]) == sorted(set(found.signature_map(image)))
        assert [pixels.count(sets[s]) for s in found.pair_signature[at]] == found.pair_pixels[at].tolist()
    assert [everything.count(one) for one in sets] == found.weight.tolist()
    for label in (0, 1, 2, 3, 4, 5, 6, 200, found.labels):
        carrying = [s for s, one in enumerate(sets) if label in one]
        assert found.signatures_of(label).tolist() == carrying
        assert found.area[label : label + 1].sum() == sum(label in one for one in everything)
    assert found.nbytes > 0


@given(images(), st.data())
def test_parts_join_to_the_whole(made, data):
    """Shards joined in order equal the set built at once, array for array; so do parts of parts."""
    whole = whole_set(made)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(made)), max_size=3)))
    bounds = list(zip([0, *cuts], [*cuts, len(made)], strict=True))
    parts = [whole_set(made[a:b]) for a, b in bounds]
    assert_same(join([part for part in parts if part.images]), whole)
    assert_same(join([whole.part(np.arange(a, b)) for a, b in bounds if b > a]), whole)


@given(images(), st.data())
def test_a_part_counts_only_its_images(made, data):
    """A part keeps the signature numbers, and weighs each as in the chosen images."""
    whole = whole_set(made)
    chosen = data.draw(st.lists(st.integers(0, len(made) - 1), unique=True))
    part = whole.part(np.array(chosen, dtype=np.int64))
    expected = np.zeros(len(whole), dtype=np.int64)
    for place, image in enumerate(chosen):
        np.add.at(expected, whole.signature_map(image), 1)
        assert np.array_equal(part.signature_map(place), whole.signature_map(image))
    assert np.array_equal(part.weight, expected)


@given(images())
def test_cooccurrence_counts_pairs_of_labels(made):
    """Pairs, their areas and the signatures of each are those of the label sets."""
    found = whole_set(made)
    together = cooccurrence(found)
    sets = sets_of(found)
    numbers = together.numbers.tolist()
    assert numbers == sorted(set().union(*sets))
    expected = {(a, b): [s for s, one in enumerate(sets) if {a, b} <= one] for a in numbers for b in numbers if a < b}
    pairs = [(numbers[x], numbers[y]) for x, y in together.pairs.tolist()]
    assert pairs == sorted(pair for pair, where in expected.items() if where)
    for place, pair in enumerate(pairs):
        where = together.by_signature[together.by_start[place] : together.by_start[place + 1]]
        assert where.tolist() == expected[pair]
        assert together.area[place] == found.weight[where].sum()
    for s, one in enumerate(sets):
        of = together.pair[together.start[s] : together.start[s + 1]]
        assert {pairs[p] for p in of} == {(a, b) for a in one for b in one if a < b}
    assert together.nbytes > 0


@given(images(), st.integers(0, 2**32 - 1))
def test_counts_equal_those_of_pixels(made, seed):
    """Active pixels, those of each image, and the chance inside each image, also for images of several sizes."""
    found = whole_set(made)
    rng = np.random.default_rng(seed)
    masks = [rng.random(layers.shape[1] * layers.shape[2]) < 0.4 for layers, _ in made]
    image = np.repeat(np.arange(len(made)), [mask.sum() for mask in masks])
    pixel = np.concatenate([np.flatnonzero(mask) for mask in masks])
    counts = unit_counts(found, image, pixel)
    active, chance, own = np.zeros(len(found)), np.zeros(len(found)), 0.0
    for number, mask in enumerate(masks):
        where = found.signature_map(number)
        share = mask.sum() * found.cells / len(mask)
        np.add.at(active, where[mask], 1)
        np.add.at(chance, where, share)
        own += share * mask.sum()
    assert np.array_equal(counts.active, active)
    assert counts.images.tolist() == [mask.sum() for mask in masks]
    assert counts.chance == pytest.approx(chance)
    assert counts.own_chance == pytest.approx(own)
    assert counts.area == sum(mask.sum() for mask in masks)


@given(images(), st.integers(0, 2**32 - 1))
def test_folding_equals_counting(made, seed):
    """Batches folded in two stretches and merged give each unit the counts of all its pixels at once."""
    found = whole_set(made)
    rng = np.random.default_rng(seed)
    unit = rng.integers(0, 3, 30)
    image = rng.integers(0, found.images, 30)
    pixel = rng.integers(0, found.pixels[image])
    fold = CountFold(found, 3)
    states = [fold.start(), fold.start()]
    for number, chosen in enumerate(np.array_split(np.arange(30), 4)):
        states[number // 2] = fold.add(states[number // 2], unit=unit[chosen], image=image[chosen], pixel=pixel[chosen])
    state = fold.merge(*states)
    assert fold.nbytes == sum(array.nbytes for array in state.values())
    for number, counts in enumerate(fold.finish(state)):
        alone = unit_counts(found, image[unit == number], pixel[unit == number])
        assert np.array_equal(counts.active, alone.active)
        assert np.array_equal(counts.images, alone.images)
        assert np.array_equal(counts.chance, alone.chance)
        assert np.array_equal(counts.chance, chance_counts(found, alone.images))


@pytest.mark.parametrize(
    ("source", "target"),
    [((7, 7), (112, 112)), ((6, 6), (113, 113)), ((1, 1), (5, 4)), ((8, 5), (8, 20))],
)
def test_upsampling_equals_torch(source, target):
    """Active pixels are those of torch's bilinear upsampling above the bound, or between two."""
    rng = np.random.default_rng(0)
    maps = rng.gamma(0.3, 1, (70, *source)).astype(np.float32)
    tall, wide = (interpolation_matrix(a, b) for a, b in zip(source, target, strict=True))
    assert tall.sum(1) == pytest.approx(np.ones(target[0]))
    high = functional.interpolate(torch.from_numpy(maps)[None], target, mode="bilinear", align_corners=False)[0].numpy()
    assert tall @ maps @ wide.T == pytest.approx(high, abs=1e-5)
    for above, below in ((0.9, np.inf), (0.31, 0.92)):
        image, pixel = active_pixels(maps, above=above, below=below, shape=target)
        found = np.zeros((70, target[0] * target[1]), dtype=bool)
        found[image, pixel] = True
        near = (np.abs(high - above) < 1e-5) | (np.abs(high - below) < 1e-5)
        assert np.array_equal(found.reshape(high.shape) | near, ((high > above) & (high < below)) | near)
        assert len(image) == found.sum()


def test_no_firing_image_gives_no_pixel():
    """A unit that never exceeds the bound has no active pixel, and counts of zero."""
    image, pixel = active_pixels(np.zeros((3, 2, 2), dtype=np.float32), above=0.0, shape=(4, 4))
    assert len(image) == len(pixel) == 0
    found = assemble([image_signatures(np.ones((1, 4, 4), dtype=np.uint8))] * 3)
    assert unit_counts(found, image, pixel).area == 0
    assert mask_counts(found, np.zeros((3, 4, 4), dtype=bool)).area == 0


def test_wide_label_sets_are_exact():
    """Hundreds of labels on one pixel, more than a packed word holds, keep apart what differs in one label."""
    rng = np.random.default_rng(0)
    whole = [sorted(rng.choice(5000, 120, replace=False) + 1) for _ in range(6)]
    whole += [[*whole[0][:-1], 5001], whole[0]]
    found = assemble(image_signatures(np.zeros((0, 2, 2), dtype=np.int64), [int(n) for n in one]) for one in whole)
    assert len(found) == 7
    assert sorted(found.weight.tolist()) == [4] * 6 + [8]
    assert found.table.shape[1] == 120


def test_many_signatures_of_one_image():
    """More label sets in an image than 16 bits can number."""
    layers = np.arange(300 * 300, dtype=np.int64).reshape(1, 300, 300) + 1
    found = assemble([image_signatures(layers)])
    assert len(found) == 90_000
    assert np.array_equal(found.table[found.signature_map(0), 0], np.arange(90_000) + 1)


def test_memory_is_announced():
    """The announced bytes hold what the arrays take, and blocks of units stay within their limit."""
    rng = np.random.default_rng(0)
    found = assemble(image_signatures(rng.integers(0, 4, (2, 32, 32))) for _ in range(20))
    announced = expected_bytes(images=20, cells=1024, per_image=len(found.pair_pixels) // 20, width=2)
    assert found.nbytes <= announced
    each = CountFold(found, 1).nbytes
    sizes = {"signatures": len(found), "images": found.images}
    blocks = blocks_of_units(7, **sizes, memory=3 * each)
    assert [(block.start, block.stop) for block in blocks] == [(0, 3), (3, 6), (6, 7)]
    with pytest.raises(InputError, match="more memory"):
        blocks_of_units(7, **sizes, memory=each - 1)


@pytest.mark.parametrize(("layers", "whole"), [(np.full((1, 2, 2), -1), []), (np.ones((1, 2, 2), dtype=int), [-3])])
def test_negative_labels_are_refused(layers, whole):
    """A label number below 0 is the sign of a wrongly read file."""
    with pytest.raises(DataError, match="below 0"):
        image_signatures(layers, whole)


@pytest.mark.parametrize(
    ("image", "pixel", "words"),
    [(1, 0, "cover"), (-1, 0, "cover"), (0, 4, "Upsample"), (0, -1, "Upsample")],
)
def test_pixels_outside_the_images_are_refused(image, pixel, words):
    """Activations of other images, or of another size, are not counted silently."""
    found = assemble([image_signatures(np.ones((1, 2, 2), dtype=np.uint8))])
    with pytest.raises(InputError, match=words):
        unit_counts(found, np.array([image]), np.array([pixel]))


def test_nothing_to_join_is_refused():
    """Joining no parts has no answer."""
    with pytest.raises(InputError, match="no part"):
        join([])
