"""Augmentations of colour and light: every pixel changes by itself, or with the mean of its image.

Definitions are those of `torchvision.transforms.functional` on float images (`adjust_brightness`, `adjust_contrast`,
`adjust_saturation`, `adjust_hue`, `rgb_to_grayscale`), here for a batch with its own number for each image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)
"""Shares of red, green and blue in the grey level (ITU-R 601, as torchvision rounds them)."""

_SEXTANTS = 6.0
"""Parts of the circle of hues, from one pure or mixed primary colour to the next."""

_OFFSETS = (5, 3, 1)
"""Where red, green and blue lie on that circle, seen from the hue at which each is darkest."""


@dataclass(frozen=True)
class Grayscale:
    """Grey level in all three channels; no parameter."""

    def __call__(self, images: Float[Tensor, "n 3 h w"], _: Float[Tensor, "n 0"]) -> Float[Tensor, "n 3 h w"]:
        """Change a batch."""
        return grey_levels(images).repeat(1, 3, 1, 1)


@dataclass(frozen=True)
class Brightness:
    """`f x`, cut off at 1. Parameter: the factor."""

    def __call__(self, images: Float[Tensor, "n c h w"], parameters: Float[Tensor, "n 1"]) -> Float[Tensor, "n c h w"]:
        """Change a batch."""
        return (images * column(parameters, 0, images)).clamp_(0, 1)


@dataclass(frozen=True)
class Contrast:
    """`f x + (1 - f) m`, cut off at 0 and 1, with the image's mean grey level `m`. Parameter: the factor."""

    def __call__(self, images: Float[Tensor, "n c h w"], parameters: Float[Tensor, "n 1"]) -> Float[Tensor, "n c h w"]:
        """Change a batch."""
        factor = column(parameters, 0, images)
        mean = images.mean((2, 3), keepdim=True)
        # The mean of the grey level is the grey level of the means.
        grey = grey_levels(mean) if images.shape[1] == len(LUMA) else mean.mean(1, keepdim=True)
        return (images * factor).add_((1 - factor) * grey).clamp_(0, 1)


@dataclass(frozen=True)
class Saturation:
    """`f x + (1 - f) g`, cut off at 0 and 1, with the pixel's grey level `g`. Parameter: the factor."""

    def __call__(self, images: Float[Tensor, "n 3 h w"], parameters: Float[Tensor, "n 1"]) -> Float[Tensor, "n 3 h w"]:
        """Change a batch."""
        factor = column(parameters, 0, images)
        return (images * factor).add_(grey_levels(images).mul_(1 - factor)).clamp_(0, 1)


@dataclass(frozen=True)
class Hue:
    """The hue turned; value and saturation (of the HSV colours) stay. Parameter: the turn, -0.5 to 0.5.

    With value `v`, chroma `c` and the hue in sixths of a turn, a channel is
    `v - c max(0, min(k, 4 - k, 1))`, `k = (offset + hue) mod 6`, offset 5, 3 or 1: no table of six cases is needed.
    """

    def __call__(self, images: Float[Tensor, "n 3 h w"], parameters: Float[Tensor, "n 1"]) -> Float[Tensor, "n 3 h w"]:
        """Change a batch."""
        value = images.amax(1)
        chroma = value - images.amin(1)
        hue = _sextants(images, value, chroma).add_(column(parameters, 0, images)[:, 0], alpha=_SEXTANTS)
        turned = torch.empty_like(images)
        for channel, offset in enumerate(_OFFSETS):
            # The distance from k = 2 on the circle: min(k, 4 - k) is 2 less it.
            distance = hue + (offset - 2)
            distance.sub_((distance / _SEXTANTS).round_(), alpha=_SEXTANTS).abs_()
            turned[:, channel] = torch.addcmul(value, distance.neg_().add_(2).clamp_(0, 1), chroma, value=-1)
        return turned


def column(parameters: Float[Tensor, "n p"], number: int, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 1 1"]:
    """One parameter, ready to be combined with images."""
    return parameters[:, number].to(images.device, images.dtype).view(-1, 1, 1, 1)


def grey_levels(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    """Grey level of each pixel."""
    red, green, blue = images.unbind(1)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])[:, None]


def _sextants(
    images: Float[Tensor, "n 3 h w"], value: Float[Tensor, "n h w"], chroma: Float[Tensor, "n h w"]
) -> Float[Tensor, "n h w"]:
    """Hue in sixths of a turn, -1 to 5; 0 without chroma.

    The cases are told apart by factors 0 and 1: choosing between tensors is several times slower on a processor.
    """
    red, green, blue = images.unbind(1)
    is_red = (value == red).to(images.dtype)
    is_green = (value == green).to(images.dtype).mul_(1 - is_red)
    is_blue = 1 - is_red - is_green
    hue = (green - blue).mul_(is_red).addcmul_(blue - red, is_green).addcmul_(red - green, is_blue)
    hue.div_(chroma + (chroma == 0))
    return hue.add_(is_green, alpha=2).add_(is_blue, alpha=4)
