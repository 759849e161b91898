"""Outlines become the pixels that they enclose."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from neuronscope.data.concepts.regions import Box, Polygon, RunLengths, counts_from_text, draw
from neuronscope.errors import DataError


def text_from_counts(counts: list[int]) -> str:
    """COCO's compressed text, written as its description says."""
    text = ""
    for place, count in enumerate(counts):
        value, more = count - (counts[place - 2] if place > 2 else 0), True
        while more:
            group, value = value & 31, value >> 5
            more = value != (-1 if group & 16 else 0)
            text += chr(48 + group + 32 * more)
    return text


@given(mask=arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40))), form=st.sampled_from(["list", "text"]))
def test_run_lengths_come_back_as_the_mask(mask, form):
    """Columns first, zeros first; as numbers and as text."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, len(flat)]).tolist()
    counts = [0, *counts] if flat[0] else counts
    written = tuple(counts) if form == "list" else text_from_counts(counts)
    assert (draw(RunLengths(written, mask.shape), size=mask.shape) == mask).all()


@given(counts=st.lists(st.integers(0, 10**6), max_size=20))
def test_compressed_counts_come_back(counts):
    """Text to numbers is the inverse of numbers to text."""
    assert list(counts_from_text(text_from_counts(counts))) == counts


def test_run_lengths_of_another_size_are_refused():
    """They would be shifted from column to column."""
    for wrong in (
        RunLengths((4,), (2, 3)),
        RunLengths((6,), (3, 2)),
        RunLengths("~", (2, 3)),
        RunLengths((7, -1), (2, 3)),
    ):
        with pytest.raises(DataError):
            draw(wrong, size=(2, 3))


COORDINATES = st.floats(0, 20, width=32)


@given(x=st.tuples(COORDINATES, COORDINATES), y=st.tuples(COORDINATES, COORDINATES))
def test_a_box_covers_the_pixels_whose_centres_it_holds(x, y):
    """Written out pixel by pixel."""
    box = Box(min(x), min(y), max(x), max(y))
    mask = draw(box, size=(15, 18))
    for row in range(15):
        for column in range(18):
            assert mask[row, column] == (box.x0 <= column + 0.5 < box.x1 and box.y0 <= row + 0.5 < box.y1)


@given(corners=arrays(np.float32, st.tuples(st.integers(3, 7), st.just(2)), elements=st.floats(-3, 20, width=32)))
def test_a_polygon_covers_what_it_encloses(corners):
    """Even-odd rule at pixel centres, written out; next to an edge rounding may decide otherwise."""
    mask = draw(Polygon(corners), size=(15, 18))
    y, x = np.mgrid[:15, :18] + 0.5
    inside = np.zeros(mask.shape, dtype=bool)
    near = np.zeros(mask.shape, dtype=bool)
    for (x0, y0), (x1, y1) in zip(corners.astype(float), np.roll(corners, -1, axis=0).astype(float), strict=True):
        if y0 != y1:
            edge = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
            spans = (y0 <= y) != (y1 <= y)
            inside ^= spans & (edge <= x)
            near |= spans & (np.abs(edge - x) < 1e-6)
    assert (mask == inside)[~near].all()


def test_relative_coordinates_are_scaled():
    """The left half of the width."""
    half = draw(Polygon(np.array([[0, 0], [0.5, 0], [0.5, 1], [0, 1]], dtype=np.float32)), size=(4, 8), scale=(8, 4))
    assert half[:, :4].all()
    assert not half[:, 4:].any()
