"""Augmentations that blur or sharpen: a Gaussian for the whole image, one within an ellipse, and sharpening.

A Gaussian is applied along rows, then along columns, by adding up shifted images: each image can have its own width,
and no library of convolutions decides about precision.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad, threshold

from neuronscope.augment.colours import column
from neuronscope.augment.ellipses import Centre, ellipses

_NO_BLUR = 1e-3
"""Standard deviation, in pixels, below which a Gaussian is one pixel in float64: 0 does not divide by itself."""

_NOTHING = 1e-20
"""Weight of a neighbour that is left out. Far smaller ones are subnormal numbers, which processors add slowly."""

_REACH = 4
"""Standard deviations after which the Gaussian of `EllipticBlur` is cut off (6e-5 of its mass)."""

_SMOOTHING = 13.0
"""Sum of the weights of PIL's smoothing filter: 5 in the centre, 1 for each of eight neighbours."""


@dataclass(frozen=True)
class Sharpness:
    """`f x + (1 - f) s`, cut off at 0 and 1, with the smoothed image `s`; no parameter.

    Smoothed by PIL's filter of 3 x 3 pixels (5 in the centre, 1 around it, over 13); the outermost pixels stay. Equal
    to `torchvision.transforms.functional.adjust_sharpness`.

    Attributes:
        factor: 1 changes nothing; below 1 blurs, above 1 sharpens.
    """

    factor: float = 1.5

    def __call__(self, images: Float[Tensor, "n c h w"], _: Float[Tensor, "n 0"]) -> Float[Tensor, "n c h w"]:
        """Change a batch."""
        sharpened = images.clamp(0, 1)
        if min(images.shape[2:]) <= 2:  # noqa: PLR2004 there is no inner pixel
            return sharpened
        rows = (images[:, :, :-2] + images[:, :, 1:-1]).add_(images[:, :, 2:])
        around = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:])
        share = (1 - self.factor) / _SMOOTHING
        # The sum over 3 x 3 pixels holds the centre once; four more make the weight of 5.
        inner = around.mul_(share).add_(images[:, :, 1:-1, 1:-1], alpha=self.factor + 4 * share)
        sharpened[:, :, 1:-1, 1:-1] = inner.clamp_(0, 1)
        return sharpened


@dataclass(frozen=True)
class GaussianBlur:
    """Blurred by a Gaussian. Parameter: its standard deviation in pixels; 0 changes nothing.

    Equal to `torchvision.transforms.functional.gaussian_blur`: pixels beyond the border are mirrored at the outermost
    ones.

    Attributes:
        size: side of the kernel in pixels, odd; each side of an image is longer than half of it.
    """

    size: int = 7

    def __call__(self, images: Float[Tensor, "n c h w"], parameters: Float[Tensor, "n 1"]) -> Float[Tensor, "n c h w"]:
        """Change a batch."""
        reach = self.size // 2
        kernel = _gaussian(column(parameters, 0, images), reach)
        return _convolved(pad(images, [reach] * 4, mode="reflect"), kernel)


@dataclass(frozen=True)
class EllipticBlur:
    """Blurred within an ellipse. Parameters: half-axes and shifts along x and y (pixels), angle (degrees).

    The mask is that of `ellipses`. Pixels beyond the image's border are like the outermost ones, as PIL has it, whose
    `GaussianBlur(3.0)` approximates this Gaussian by box filters. Only the window around an ellipse is worked on.

    Attributes:
        sigma: standard deviation of the Gaussian, in pixels.
        centre: see `ellipses`.
    """

    sigma: float = 3.0
    centre: Centre = "exact"

    def __call__(self, images: Float[Tensor, "n c h w"], parameters: Float[Tensor, "n 5"]) -> Float[Tensor, "n c h w"]:
        """Change a batch."""
        height, width = images.shape[2:]
        ellipse = ellipses(parameters, height, width, centre=self.centre)
        half = int(torch.maximum(ellipse.across, ellipse.down).max())
        rows, columns = _window(ellipse.y, half, height), _window(ellipse.x, half, width)
        mask = ellipse.mask(rows, columns).to(images.device)[:, None]
        reach = round(_REACH * self.sigma)
        kernel = _gaussian(images.new_full((1, 1, 1, 1), self.sigma), reach)
        around = images[_pixels(images, _widened(rows, reach, height), _widened(columns, reach, width))]
        inner = _pixels(images, rows, columns)
        changed = images.clone()
        changed[inner] = torch.where(mask, _convolved(around, kernel), images[inner])
        return changed


def _gaussian(sigma: Float[Tensor, "n 1 1 1"], reach: int) -> list[Float[Tensor, "n 1 1 1"]]:
    """Weights of the centre and of its neighbours at 1, 2, ... `reach` pixels, on either side; they sum to 1."""
    width = sigma.clamp_min(_NO_BLUR)
    weights = [threshold(torch.exp(-0.5 * (step / width) ** 2), _NOTHING, 0) for step in range(reach + 1)]
    total = weights[0] + 2 * sum(weights[1:])
    return [weight / total for weight in weights]


def _convolved(padded: Float[Tensor, "n c y x"], kernel: list[Float[Tensor, "_ 1 1 1"]]) -> Float[Tensor, "n c h w"]:
    """Convolve along rows and columns with a symmetric kernel, given from its centre outwards."""
    reach = len(kernel) - 1
    blurred = padded
    for axis in (2, 3):
        source, length = blurred, blurred.shape[axis] - 2 * reach
        blurred = source.narrow(axis, reach, length) * kernel[0]
        for step in range(1, reach + 1):
            both = source.narrow(axis, reach - step, length) + source.narrow(axis, reach + step, length)
            blurred.addcmul_(both, kernel[step])
    return blurred


def _window(centre: Float[Tensor, "n"], half: int, side: int) -> Int[Tensor, "n s"]:
    """The rows or columns of each image that its ellipse may touch: equally many, all within the image."""
    length = min(2 * half + 1, side)
    start = (centre.long() - half).clamp(0, side - length)
    return start[:, None] + torch.arange(length, device=start.device)


def _widened(places: Int[Tensor, "n s"], reach: int, side: int) -> Int[Tensor, "n t"]:
    """Rows or columns with their neighbours; the outermost one stands for those beyond the border."""
    steps = torch.arange(-reach, places.shape[1] + reach, device=places.device)
    return (places[:, :1] + steps).clamp(0, side - 1)


def _pixels(
    images: Float[Tensor, "n c h w"], rows: Int[Tensor, "n r"], columns: Int[Tensor, "n s"]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Indices of the pixels in some rows and columns of each image, in all channels."""
    n, channels = images.shape[:2]
    return (
        torch.arange(n, device=images.device).view(-1, 1, 1, 1),
        torch.arange(channels, device=images.device).view(1, -1, 1, 1),
        rows.to(images.device)[:, None, :, None],
        columns.to(images.device)[:, None, None, :],
    )
