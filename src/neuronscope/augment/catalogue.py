"""The augmentations there are, with ranges that fit the size of the images, and the sets in which they are studied.

Ranges are those of Kharyuk, Matveev & Oseledets 2025 (arXiv 2503.03283) for images of 224 x 224 pixels. Lengths that
depend on what is seen (shifts, rectangles, ellipses) grow and shrink with the image; the widths of Gaussians stay in
pixels, as does the kernel of 7 x 7.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from neuronscope.augment.augmentation import Apply, Augmentation, Parameter
from neuronscope.augment.blurs import EllipticBlur, GaussianBlur, Sharpness
from neuronscope.augment.colours import Brightness, Contrast, Grayscale, Hue, Saturation
from neuronscope.augment.ellipses import Centre
from neuronscope.augment.original import EightBitEllipticBlur, EightBitRotation, NearestRotation
from neuronscope.augment.places import Erasing, Mirror, Rolling, Rotation
from neuronscope.errors import InputError, UnknownName, nearest

SETS: dict[str, tuple[str, ...]] = {
    "set1": ("erasing", "sharpness_const", "rolling", "grayscaling", "gaussian_blur"),
    "set2": ("brightness", "contrast", "saturation", "hue", "hflip", "rotation", "elliptic_local_blur"),
}
"""Names of the augmentations that are studied at once, in the original's order."""

LEGACY = ("eight-bit", "nearest-rotation", "swapped-ellipse")
"""Ways of the original: rotation and elliptic blur in 8 bits by PIL (which includes rotation with nearest neighbours);
rotation with nearest neighbours, in floats; height and width exchanged in the ellipse's centre."""

SMALLEST = 8
"""Least side of an image, in pixels, for which the ranges make sense."""

_SIDE = 224
"""Side of the images for which the lengths below were chosen, in pixels."""

_AXES, _SHIFT = (10, 32), 32
"""Half-axes of the ellipse, and its farthest shift, in pixels at that size."""


def augmentations(height: int, width: int, *, legacy: Sequence[str] = ()) -> dict[str, Augmentation]:
    """All augmentations by name, for images of one size.

    Args:
        height: of the images, in pixels, at least 8.
        width: likewise.
        legacy: ways of the original, from `LEGACY`.

    Raises:
        InputError: images that are too small.
        UnknownName: a way that is not known.

    Example:
        >>> [(one.name, one.low, one.high, one.unit) for one in augmentations(224, 224)["rolling"].parameters]
        [('roll_y', -44, 44, 'pixels'), ('roll_x', -44, 44, 'pixels')]
    """
    if min(height, width) < SMALLEST:
        message = (
            f"images of {height} x {width} pixels are too small to be augmented: expected at least {SMALLEST} x "
            f"{SMALLEST}. Give larger images"
        )
        raise InputError(message)
    for name in legacy:
        if name not in LEGACY:
            message = f"'{name}' is no way of the original: expected any of {', '.join(LEGACY)}.{nearest(name, LEGACY)}"
            raise UnknownName(message)
    found = (
        *_set1(height, width),
        *_colours(),
        Augmentation("hflip", (), Mirror(), "mirrored left to right"),
        _rotation(legacy),
        _elliptic_blur(height, width, legacy),
    )
    return {augmentation.name: augmentation for augmentation in found}


def _set1(height: int, width: int) -> tuple[Augmentation, ...]:
    tall, wide = height // 5, width // 5
    erasing = (
        Parameter("erase_center_y", tall, height - tall, "integer", unit="pixels"),
        Parameter("erase_center_x", wide, width - wide, "integer", unit="pixels"),
        Parameter("scale", 0.02, 0.33, neutral=0.0, unit="of the area"),
        Parameter("log_ratio", math.log(0.3), math.log(3.3)),
    )
    rolling = (
        Parameter("roll_y", -tall, tall, "integer", neutral=0.0, unit="pixels"),
        Parameter("roll_x", -wide, wide, "integer", neutral=0.0, unit="pixels"),
    )
    blur = (Parameter("sigma", 0.1, 2.0, neutral=0.0, unit="pixels"),)
    return (
        Augmentation("erasing", erasing, Erasing(), "a black rectangle, where it fits"),
        Augmentation("sharpness_const", (), Sharpness(), "sharpened by a factor of 1.5"),
        Augmentation("rolling", rolling, Rolling(), "shifted, what leaves at one side enters at the other"),
        Augmentation("grayscaling", (), Grayscale(), "grey level in place of colours", colours="rgb"),
        Augmentation("gaussian_blur", blur, GaussianBlur(), "blurred by a Gaussian of 7 x 7 pixels"),
    )


def _colours() -> tuple[Augmentation, ...]:
    brightness = (Parameter("factor", 0.1, 2.5, neutral=1.0),)
    strong = (Parameter("factor", 0.01, 3.5, neutral=1.0),)
    turn = (Parameter("turn", -0.5, 0.5, neutral=0.0, unit="turns"),)
    return (
        Augmentation("brightness", brightness, Brightness(), "darker or brighter"),
        Augmentation("contrast", strong, Contrast(), "towards its mean grey level, or away from it"),
        Augmentation("saturation", strong, Saturation(), "paler or more colourful", colours="rgb"),
        Augmentation("hue", turn, Hue(), "hues turned on the circle of colours", colours="rgb"),
    )


def _rotation(legacy: Sequence[str]) -> Augmentation:
    angle = (Parameter("angle", -10.0, 10.0, neutral=0.0, unit="degrees"),)
    if "eight-bit" in legacy:
        apply: Apply = EightBitRotation()
    else:
        apply = NearestRotation() if "nearest-rotation" in legacy else Rotation()
    return Augmentation("rotation", angle, apply, "rotated, cropped and enlarged to the old size")


def _elliptic_blur(height: int, width: int, legacy: Sequence[str]) -> Augmentation:
    parameters = (
        _axis("a", width),
        _axis("b", height),
        _shift("shift_x", width),
        _shift("shift_y", height),
        Parameter("angle", -15.0, 15.0, unit="degrees"),
    )
    centre: Centre = "swapped" if "swapped-ellipse" in legacy else "exact"
    apply: Apply = EightBitEllipticBlur(centre=centre) if "eight-bit" in legacy else EllipticBlur(centre=centre)
    return Augmentation("elliptic_local_blur", parameters, apply, "blurred within an ellipse near the middle")


def _axis(name: str, side: int) -> Parameter:
    """A half-axis: at least a pixel, with at least two lengths to choose from."""
    low, high = (round(length * side / _SIDE) for length in _AXES)
    low = max(1, low)
    return Parameter(name, low, max(low + 2, high), "integer", neutral=0.0, unit="pixels")


def _shift(name: str, side: int) -> Parameter:
    farthest = max(1, round(_SHIFT * side / _SIDE))
    return Parameter(name, -farthest, farthest, "integer", unit="pixels")
