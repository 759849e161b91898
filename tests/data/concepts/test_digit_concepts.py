"""Concepts that are computed from the digits' pictures."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.data.concepts import load_concepts
from neuronscope.data.concepts.digits import digit_maps, enclosed, skeleton_points, stroke_orientation, thinned

ANGLES = {"horizontal": (0, 1), "vertical": (1, 0), "rising": (-1, 1), "falling": (1, 1)}
NUMBERS = {"horizontal": 1, "vertical": 2, "rising": 3, "falling": 4}


def stroke(direction: tuple[int, int]) -> np.ndarray:
    """A stroke of 3 pixels' width through the middle of a 28 x 28 picture; direction is (down, right)."""
    y, x = np.mgrid[:28, :28] - 13.5
    down, right = np.array(direction) / np.hypot(*direction)
    along, across = y * down + x * right, y * right - x * down
    return ((np.abs(across) < 1.6) & (np.abs(along) < 9)).astype(np.uint8) * 255


@pytest.mark.parametrize("name", ANGLES)
def test_strokes_have_their_orientation(name):
    """Along the middle of a stroke; the rest may be the rounding of its ends."""
    picture = stroke(ANGLES[name])
    found = stroke_orientation(picture[None])[0]
    inner = picture.astype(bool)
    y, x = np.mgrid[:28, :28] - 13.5
    inner &= np.hypot(y, x) < 6
    assert (found[inner] == NUMBERS[name]).all()


@given(name=st.sampled_from(sorted(ANGLES)), seed=st.integers(0, 50))
def test_orientation_turns_with_the_picture(name, seed):
    """Mirrored left to right, rising becomes falling; transposed, horizontal becomes vertical."""
    picture = stroke(ANGLES[name]).astype(int) * np.random.default_rng(seed).integers(50, 200) // 200
    picture = picture.astype(np.uint8)
    plain = stroke_orientation(picture[None])[0]
    mirrored = stroke_orientation(picture[None, :, ::-1])[0, :, ::-1]
    straight = (plain == 1) | (plain == 2)
    assert (mirrored[straight] == plain[straight]).all()
    assert ((mirrored == 4) == (plain == 3)).all()
    turned = stroke_orientation(picture.T[None])[0].T
    assert ((turned == 2) == (plain == 1)).all()


def test_a_cross_has_a_junction_and_four_ends():
    """A plus sign of thick strokes."""
    plus = np.maximum(stroke((0, 1)), stroke((1, 0)))
    ends, junctions = skeleton_points(thinned(plus[None] > 0))
    assert ends.sum() == 4
    y, x = junctions[0].nonzero()
    assert len(y) >= 1
    assert (np.abs(y - 13.5) < 2).all()
    assert (np.abs(x - 13.5) < 2).all()
    maps = digit_maps(plus[None])[0]
    assert (maps[1] == 6).any()
    assert (maps[2] == 7).any()
    assert not (maps == 5).any()


def test_a_ring_has_a_hole_and_no_ends():
    """Nor junctions."""
    y, x = np.mgrid[:28, :28] - 13.5
    ring = (np.abs(np.hypot(y, x) - 8) < 1.6).astype(np.uint8) * 255
    ends, junctions = skeleton_points(thinned(ring[None] > 0))
    assert not ends.any()
    assert not junctions.any()
    hole = digit_maps(ring[None])[0, 0] == 5
    assert (hole == (np.hypot(y, x) < 8) & (ring == 0)).all()


def test_background_seen_through_a_corner_is_still_enclosed():
    """Ink is connected over corners, so background is not."""
    ink = np.zeros((1, 7, 7), dtype=bool)
    ink[0, [1, 2, 2, 3, 3, 4, 4, 5], [3, 2, 4, 1, 5, 2, 4, 3]] = True
    assert enclosed(ink)[0].sum() == 5


def test_thinning_keeps_pieces_and_holes():
    """The numbers of pieces and holes are those of the ink, and lines are thin."""
    from scipy import ndimage

    concepts = load_concepts("digits", limit=60)
    assert concepts.images.pixels is not None
    ink = concepts.images.pixels[:, 0].numpy() >= 96
    thin = thinned(ink)
    eight = np.ones((3, 3))
    for before, after in zip(ink, thin, strict=True):
        assert ndimage.label(before, eight)[1] == ndimage.label(after, eight)[1]
        assert ndimage.label(~np.pad(before, 1))[1] == ndimage.label(~np.pad(after, 1))[1]


def test_most_digits_have_what_their_shape_has():
    """Zeros have holes, ones have none; crossings in fours; ends in fives."""
    concepts = load_concepts("digits:all")
    number = {concept.name: concept.number for concept in concepts.concepts}
    has = {
        name: np.array([(concepts.masks(row).maps == number[name]).any() for row in range(0, len(concepts), 5)])
        for name in ("hole", "junction", "stroke end")
    }
    labels = concepts.images.labels[::5]
    assert has["hole"][labels == 0].mean() > 0.8
    assert has["hole"][np.isin(labels, (1, 2, 3, 5, 7))].mean() < 0.1
    assert has["junction"][labels == 4].mean() > 0.6
    assert has["junction"][labels == 0].mean() < 0.1
    assert has["stroke end"][np.isin(labels, (1, 2, 3, 5, 7))].mean() > 0.95


def test_the_digits_are_the_same_everywhere():
    """Whole numbers only: the maps of the report part are golden."""
    concepts = load_concepts("digits")
    digest = hashlib.sha256()
    for row in range(len(concepts)):
        digest.update(concepts.masks(row).maps.astype(np.uint8).tobytes())
    assert (len(concepts), concepts.side, digest.hexdigest()[:16]) == (719, (28, 28), "60a598a5eb5acd7b")
    assert concepts.masks(0).whole.tolist() == [12 + int(concepts.images.labels[0])]
    assert set(load_concepts("digits:all").splits) == {"train", "report"}
