"""Hue, saturation and value, against Python's own conversion of one pixel."""

from __future__ import annotations

import colorsys

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.models.hsv import hsv, normalised_hsv

LEVELS = st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(0, 1, width=32)
TOLERANCE = 1e-5
"""Of float32: a few roundings."""


@given(st.lists(st.tuples(LEVELS, LEVELS, LEVELS), min_size=1, max_size=8))
def test_every_pixel_is_as_colorsys_has_it(pixels):
    """Any colours, with two or three equal channels, grey and black ones too; the hue on its circle."""
    images = torch.tensor(pixels, dtype=torch.float64).view(len(pixels), 3, 1, 1)
    found = hsv(images).view(len(pixels), 3).numpy()
    expected = np.array([colorsys.rgb_to_hsv(*pixel) for pixel in pixels])
    turn = np.abs(found[:, 0] - expected[:, 0])
    assert np.minimum(turn, 1 - turn).max() < TOLERANCE
    assert np.abs(found[:, 1:] - expected[:, 1:]).max() < TOLERANCE


def test_pure_colours_and_greys():
    """Red is 0 and not 1, green a third, blue two thirds; grey has no hue, black no saturation."""
    colours = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.5], [0, 0, 0]]).view(5, 3, 1, 1)
    hue, saturation, value = hsv(colours)[:, :, 0, 0].T
    assert torch.allclose(hue, torch.tensor([0, 1 / 3, 2 / 3, 0, 0]))
    assert saturation.tolist() == [1, 1, 1, 0, 0]
    assert value.tolist() == [1, 1, 1, 0.5, 0]


def original(red, green, blue):
    """One pixel in the original's way, written plainly."""
    least, largest = min(red, green, blue), max(red, green, blue)
    chroma = largest - least + 1e-20
    if least == red:
        hue = 60 * (3 + (blue - green) / chroma)
    elif least == green:
        hue = 60 * (5 + (red - blue) / chroma)
    else:
        hue = 60 * (1 + (green - red) / chroma)
    return hue / 360, chroma / (largest + 1e-20), largest


@given(st.tuples(*[st.integers(-300, 300).map(lambda one: one / 100)] * 3).filter(lambda pixel: max(pixel) != 0))
def test_normalised_images_in_the_way_of_the_original(pixel):
    """Numbers below 0 and equal ones too; the saturation has no bounds there."""
    found = normalised_hsv(torch.tensor(pixel, dtype=torch.float64).view(1, 3, 1, 1)).flatten().numpy()
    assert np.allclose(found, original(*pixel), rtol=1e-9, atol=1e-12)
