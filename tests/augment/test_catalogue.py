"""The ranges of the published study at 224 x 224 pixels, and what becomes of them at other sizes."""

import math
import re

import numpy as np
import pytest
import torch

from neuronscope.augment import LEGACY, SETS, augmentations, decoded
from neuronscope.errors import InputError, UnknownName

PUBLISHED = {
    "erasing": [
        ("erase_center_y", 44, 180, "integer"),
        ("erase_center_x", 44, 180, "integer"),
        ("scale", 0.02, 0.33, "continuous"),
        ("log_ratio", math.log(0.3), math.log(3.3), "continuous"),
    ],
    "sharpness_const": [],
    "rolling": [("roll_y", -44, 44, "integer"), ("roll_x", -44, 44, "integer")],
    "grayscaling": [],
    "gaussian_blur": [("sigma", 0.1, 2.0, "continuous")],
    "brightness": [("factor", 0.1, 2.5, "continuous")],
    "contrast": [("factor", 0.01, 3.5, "continuous")],
    "saturation": [("factor", 0.01, 3.5, "continuous")],
    "hue": [("turn", -0.5, 0.5, "continuous")],
    "hflip": [],
    "rotation": [("angle", -10.0, 10.0, "continuous")],
    "elliptic_local_blur": [
        ("a", 10, 32, "integer"),
        ("b", 10, 32, "integer"),
        ("shift_x", -32, 32, "integer"),
        ("shift_y", -32, 32, "integer"),
        ("angle", -15.0, 15.0, "continuous"),
    ],
}


@pytest.mark.parametrize("legacy", [(), *((name,) for name in LEGACY), LEGACY], ids=str)
def test_ranges_at_224_are_the_published_ones(legacy):
    """Names, ranges and kinds of all parameters, also for the ways of the original."""
    found = augmentations(224, 224, legacy=legacy)
    assert {
        name: [(one.name, one.low, one.high, one.kind) for one in augmentation.parameters]
        for name, augmentation in found.items()
    } == PUBLISHED


def test_the_sets_hold_every_augmentation_once():
    """Five and seven, in the published order."""
    assert [*SETS["set1"], *SETS["set2"]] == [*PUBLISHED]


def test_erasing_does_nothing_in_a_sixth_of_draws():
    """At 224 pixels 16 % of draws are no-ops, and the others blacken 16.2 % of the image on average.

    Both numbers are published with the ranges, to the digits given; 4,000 draws know them to 0.6 and 0.14 points.
    """
    erasing = augmentations(224, 224)["erasing"]
    values = decoded(erasing, np.random.default_rng(0).random((4000, 4)))
    white = torch.ones(1, 1, 224, 224)
    black = torch.cat(
        [
            1 - erasing.apply(white.expand(len(part), -1, -1, -1), torch.from_numpy(part)).mean((1, 2, 3))
            for part in np.array_split(values, 20)
        ]
    )
    assert float((black == 0).double().mean()) == pytest.approx(0.16, abs=0.02)
    assert float(black[black > 0].mean()) == pytest.approx(0.162, abs=0.005)


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (32, 48), (300, 500)], ids=str)
def test_lengths_follow_the_size(size):
    """Places lie in the image, ellipses within it, and every integer has at least two values."""
    height, width = size
    found = augmentations(height, width)
    for augmentation in found.values():
        assert all(one.kind == "continuous" or one.high - one.low >= 2 for one in augmentation.parameters)
    row, column, *_ = found["erasing"].parameters
    assert (row.low, row.high) == (height // 5, height - height // 5)
    assert (column.low, column.high) == (width // 5, width - width // 5)
    down, right = found["rolling"].parameters
    assert (down.high, right.high) == (height // 5, width // 5)
    a, b, shift_x, shift_y, _ = found["elliptic_local_blur"].parameters
    for axis, shift, side in ((a, shift_x, width), (b, shift_y, height)):
        assert 1 <= axis.low < axis.last
        assert shift.high == max(1, round(side / 7))
        assert side // 2 + shift.low - axis.last >= 0
        assert side // 2 + shift.last + axis.last <= side - 1
    assert found["gaussian_blur"].parameters == augmentations(224, 224)["gaussian_blur"].parameters


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: augmentations(7, 100), InputError, "images of 7 x 100 pixels are too small to be augmented: expected"),
        (
            lambda: augmentations(64, 64, legacy=("eight-bits",)),
            UnknownName,
            "'eight-bits' is no way of the original: expected any of eight-bit, nearest-rotation, swapped-ellipse.",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, error, text):
    """Sizes and names that do not work are answered with those that do."""
    with pytest.raises(error, match=re.escape(text)):
        make()
