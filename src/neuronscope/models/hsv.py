"""Hue, saturation and value of images, each as a grey image of its own: what segments are given.

With `min` and `max` over red, green and blue of a pixel and `d = max - min`, value is `max`, saturation `d / max`, and
the hue is a sixth of `1 + (G - R) / d`, `3 + (B - G) / d` or `5 + (R - B) / d` where blue, red or green is least (the
hexcone of Smith 1978).
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Channel = Literal["hue", "saturation", "value"]
Tones = Literal["pixels", "normalised"]

CHANNELS: tuple[Channel, ...] = ("hue", "saturation", "value")
"""In this order everywhere."""

_SEXTANTS = 6.0
_ORIGINAL_EPSILON = 1e-20  # what the original adds to both divisors


def hsv(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Hue, saturation and value of pixels from 0 to 1.

    A pixel without colour has the hue 0, a black one the saturation 0, as by custom (`colorsys` of Python).

    Args:
        images: red, green and blue, 0 to 1.

    Returns:
        Hue in turns, 0 (red) to below 1; saturation and value, 0 to 1.

    Example:
        >>> hsv(torch.tensor([0.0, 0.5, 0.0]).view(1, 3, 1, 1)).flatten().tolist()
        [0.3333333432674408, 1.0, 0.5]
    """
    red, green, blue = images.unbind(1)
    least, value = images.amin(1), images.amax(1)
    chroma = value - least
    divisor = torch.where(chroma == 0, 1.0, chroma)
    # In this order a pure red, where two are least, has the hue 0 and not 1.
    hue = torch.where(
        blue == least,
        1 + (green - red) / divisor,
        torch.where(red == least, 3 + (blue - green) / divisor, 5 + (red - blue) / divisor),
    )
    hue = torch.where(chroma == 0, 0.0, hue / _SEXTANTS)
    return torch.stack((hue, chroma / torch.where(value == 0, 1.0, value), value), dim=1)


def normalised_hsv(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """The same formulas of images that are already normalised for a network, as the original has it.

    Of such numbers they are no hue and no value, and the saturation has no bound and no fixed sign, for the largest of
    the three may be near 0 or below it. To both divisors 1e-20 is added, and nothing is done where they are 0.
    """
    red, green, blue = images.unbind(1)
    least, value = images.amin(1), images.amax(1)
    chroma = value - least + _ORIGINAL_EPSILON
    # Where two are least the original takes the first of red, green and blue.
    hue = torch.where(
        red == least,
        3 + (blue - green) / chroma,
        torch.where(green == least, 5 + (red - blue) / chroma, 1 + (green - red) / chroma),
    )
    return torch.stack((hue / _SEXTANTS, chroma / (value + _ORIGINAL_EPSILON), value), dim=1)
