"""Layers are only storage: what counts is the set of labels at a pixel."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from neuronscope.data.concepts.masks import ConceptMasks, pack

MAPS = st.integers(0, 4).flatmap(lambda deep: arrays(np.int32, (deep, 3, 4), elements=st.integers(0, 3)))
WHOLE = st.lists(st.integers(1, 5), max_size=2, unique=True).map(lambda numbers: np.array(numbers, dtype=np.int64))


@given(maps=MAPS, whole=WHOLE)
def test_label_sets_are_counted_as_pixel_by_pixel(maps, whole):
    """`tuples` against a loop over pixels."""
    masks = ConceptMasks(maps, whole)
    expected = Counter(
        tuple(sorted({*maps[:, y, x].tolist(), *whole.tolist()} - {0})) for y in range(3) for x in range(4)
    )
    sets, pixels = masks.tuples()
    found = {tuple(int(one) for one in row if one): int(many) for row, many in zip(sets, pixels, strict=True)}
    assert found == expected
    assert len(found) == len(sets)


def test_label_sets_of_many_deep_layers_do_not_overflow():
    """12 layers with 400 labels each: more codes than 64 bits hold."""
    rng = np.random.default_rng(0)
    masks = ConceptMasks(rng.integers(1, 400, (12, 20, 20)).astype(np.int32), np.zeros(0, dtype=np.int64))
    sets, pixels = masks.tuples()
    flat = {tuple(sorted(set(column.tolist()))) for column in masks.maps.reshape(12, -1).T}
    assert {tuple(int(one) for one in row if one) for row in sets} == flat
    assert pixels.sum() == 400


@given(maps=MAPS, whole=WHOLE)
def test_a_mask_is_the_union_of_layers_and_whole_labels(maps, whole):
    """`mask`, `numbers` and `stack` agree."""
    masks = ConceptMasks(maps, whole)
    stack = masks.stack()
    for number in range(1, 6):
        assert (masks.mask(number) == (stack == number).any(axis=0)).all()
        assert masks.mask(number).any() == (number in masks.numbers())


@given(regions=st.lists(st.tuples(st.integers(1, 4), arrays(np.bool_, (3, 4))), max_size=6))
def test_packed_regions_keep_every_mask(regions):
    """However they overlap, every concept's mask comes out as the union of its regions."""
    masks = ConceptMasks(pack(regions, size=(3, 4)), np.zeros(0, dtype=np.int64))
    for number in range(1, 5):
        union = np.logical_or.reduce([mask for one, mask in regions if one == number] or [np.zeros((3, 4), dtype=bool)])
        assert (masks.mask(number) == union).all()


def test_regions_that_do_not_overlap_share_a_layer():
    """Depth is the largest overlap here, not the number of concepts."""
    stripes = [(number, np.arange(12).reshape(3, 4) % 4 == number - 1) for number in range(1, 5)]
    assert len(pack(stripes, size=(3, 4))) == 1
