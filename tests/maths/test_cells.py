"""Words are masks of 7 x 7 cells: every operation against the same on arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from neuronscope.errors import InputError
from neuronscope.maths.cells import (
    FULL,
    block_counts,
    downsampled,
    expanded,
    from_words,
    label_words,
    neighbourhood,
    to_words,
)

MASKS = arrays(np.bool_, (2, 7, 7))


def near(mask: np.ndarray, y: int, x: int, reach: int) -> int:
    """Cells of a mask within a squared distance, the cell itself left out."""
    rows, columns = np.mgrid[:7, :7]
    distance = (rows - y) ** 2 + (columns - x) ** 2
    return int((mask & (distance <= reach) & (distance > 0)).sum())


@given(masks=MASKS)
def test_words_and_masks_are_the_same(masks):
    """Back and forth; areas are bit counts; full is every cell."""
    words = to_words(masks)
    assert (from_words(words) == masks).all()
    assert (np.bitwise_count(words) == masks.sum(axis=(1, 2))).all()
    assert to_words(np.ones((7, 7), dtype=bool)) == FULL
    assert words[0] | words[1] == to_words(masks[0] | masks[1])


@given(masks=MASKS, least=st.integers(1, 8))
def test_expansion_counts_the_neighbours_of_the_original_mask(masks, least):
    """Inactive cells turn on, active cells stay; 3 x 3, clipped at the border."""
    grown = from_words(expanded(to_words(masks), least=least))
    for mask, found in zip(masks, grown, strict=True):
        for y in range(7):
            for x in range(7):
                assert found[y, x] == (mask[y, x] or near(mask, y, x, 2) >= least)


@given(masks=MASKS, reach=st.integers(0, 80))
def test_the_neighbourhood_is_a_disc(masks, reach):
    """All cells within the squared distance; symmetric, since distances are."""
    found = from_words(neighbourhood(to_words(masks), reach=reach))
    for mask, disc in zip(masks, found, strict=True):
        for y in range(7):
            for x in range(7):
                assert disc[y, x] == (mask[y, x] or near(mask, y, x, reach) > 0)


@given(mask=arrays(np.bool_, (14, 21)), threshold=st.integers(1, 6))
def test_blocks_are_counted(mask, threshold):
    """A cell is on when so many pixels of its block are."""
    cells = from_words(downsampled(mask, threshold=threshold))
    for y in range(7):
        for x in range(7):
            many = mask[2 * y : 2 * y + 2, 3 * x : 3 * x + 3].sum()
            assert cells[y, x] == (many >= threshold)
            assert block_counts(mask)[y, x] == many


def test_a_label_in_one_corner_stays_in_that_corner():
    """The released loader turned it into the whole image."""
    mask = np.zeros((112, 112), dtype=bool)
    mask[:16, :16] = True
    assert downsampled(mask) == 1
    assert downsampled(mask, rule="nearest") == 1
    mask[:, :] = True
    assert downsampled(mask) == FULL


def test_layers_are_downsampled_first_and_joined_then():
    """Twice 60 pixels in two layers are not 120 in one."""
    maps = np.zeros((2, 112, 112), dtype=np.int64)
    maps[0, :6, :10] = 5
    maps[1, 6:12, :10] = 5
    assert label_words(maps, whole=np.zeros(0, dtype=np.int64), threshold=100)[0].tolist() == []
    assert label_words(maps, whole=np.zeros(0, dtype=np.int64), threshold=60)[1].tolist() == [1]


@given(maps=arrays(np.int64, (2, 14, 14), elements=st.integers(0, 3)), rule=st.sampled_from(["blocks", "nearest"]))
def test_label_words_are_those_of_each_label(maps, rule):
    """Against one mask at a time; labels of the whole image are full."""
    labels, words = label_words(maps, whole=np.array([2, 9, 0]), rule=rule, threshold=2)
    found = dict(zip(labels.tolist(), words.tolist(), strict=True))
    assert found.pop(9) == found.pop(2) == int(FULL)
    for label in (1, 3):
        first, second = (int(downsampled(layer == label, rule=rule, threshold=2)) for layer in maps)
        assert found.pop(label, 0) == first | second
    assert not found


def test_what_cannot_work_is_refused():
    """Sizes without equal blocks, thresholds that mean nothing."""
    with pytest.raises(InputError, match="113 x 113"):
        downsampled(np.zeros((113, 113), dtype=bool))
    for threshold in (0, 257):
        with pytest.raises(InputError, match="1 to 256"):
            downsampled(np.zeros((112, 112), dtype=bool), threshold=threshold)
    with pytest.raises(InputError, match="1 to 8"):
        expanded(np.zeros(1, dtype=np.uint64), least=9)
    with pytest.raises(InputError, match="at least 0"):
        neighbourhood(np.zeros(1, dtype=np.uint64), reach=-1)
