"""Augmentations that move or hide pixels: erasing, rolling, mirroring, rotation.

Lengths are in pixels and rounded to whole ones, half to even. Each image has its row of parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import grid_sample

from neuronscope.augment.colours import column


@dataclass(frozen=True)
class Erasing:
    """A black rectangle, where it fits. Parameters: row and column of the centre, share of the area, log-ratio.

    Its height is `sqrt(H W s e^l)` and its width `sqrt(H W s / e^l)`, rounded. A rectangle that would begin above or
    left of the image is moved in; one that reaches the last row or column or goes beyond leaves the image unchanged
    (Zhong et al. 2020, arXiv 1708.04896, with the original's rule for the borders).
    """

    def __call__(self, images: Float[Tensor, "n c h w"], parameters: Float[Tensor, "n 4"]) -> Float[Tensor, "n c h w"]:
        """Change a batch."""
        height, width = images.shape[2:]
        centre_row, centre_column, scale, log_ratio = parameters.unbind(1)
        tall = (height * width * scale * log_ratio.exp()).sqrt().round()
        wide = (height * width * scale / log_ratio.exp()).sqrt().round()
        top = (centre_row.round() - (tall / 2).floor()).clamp(min=0)
        left = (centre_column.round() - (wide / 2).floor()).clamp(min=0)
        fits = (top + tall < height) & (left + wide < width)
        rows = _inside(torch.arange(height, device=top.device), top, tall * fits)
        columns = _inside(torch.arange(width, device=left.device), left, wide * fits)
        kept = ~(rows[:, None, :, None] & columns[:, None, None, :])
        return images * kept.to(images.device)


@dataclass(frozen=True)
class Rolling:
    """A circular shift. Parameters: rows down, columns to the right."""

    def __call__(self, images: Float[Tensor, "n c h w"], parameters: Float[Tensor, "n 2"]) -> Float[Tensor, "n c h w"]:
        """Change a batch."""
        n, channels, height, width = images.shape
        shifts = parameters.round().long().to(images.device)
        rows = (torch.arange(height, device=images.device) - shifts[:, :1]) % height
        columns = (torch.arange(width, device=images.device) - shifts[:, 1:]) % width
        source = (rows[:, :, None] * width + columns[:, None, :]).view(n, 1, -1).expand(-1, channels, -1)
        return images.flatten(2).gather(2, source).view_as(images)


@dataclass(frozen=True)
class Mirror:
    """Left and right exchanged; no parameter."""

    def __call__(self, images: Float[Tensor, "n c h w"], _: Float[Tensor, "n 0"]) -> Float[Tensor, "n c h w"]:
        """Change a batch."""
        return images.flip(-1)


@dataclass(frozen=True)
class Rotation:
    """Rotated about the centre, cropped to remove black wedges, enlarged to the old size. Parameter: the angle.

    In degrees, counter-clockwise. Each side is cropped at both ends by `margins`. Rotation, crop and enlargement are
    one bilinear resampling, that of `torchvision.transforms.functional.affine` with the angle and the scale: in steps,
    each interpolation would blur the image once more, and the factor would be rotation and blur together.
    """

    def __call__(self, images: Float[Tensor, "n c h w"], parameters: Float[Tensor, "n 1"]) -> Float[Tensor, "n c h w"]:
        """Change a batch."""
        height, width = images.shape[2:]
        turn = torch.deg2rad(column(parameters, 0, images))[:, 0]
        # What is left of each half side, and on it the places that are looked up, in pixels from the centre.
        half_height, half_width = (side / 2 - margins(parameters[:, 0], side) for side in (height, width))
        down = _centres(height, images) * half_height.to(images)[:, None]
        right = _centres(width, images) * half_width.to(images)[:, None]
        x = turn.cos() * right[:, None, :] - turn.sin() * down[:, :, None]
        y = turn.sin() * right[:, None, :] + turn.cos() * down[:, :, None]
        places = torch.stack([x / (width / 2), y / (height / 2)], dim=-1)
        return grid_sample(images, places, mode="bilinear", padding_mode="zeros", align_corners=False)


def margins(angle: Float[Tensor, "n"], side: int) -> Float[Tensor, "n"]:
    """Whole pixels cropped at each end of a side, for an angle in degrees.

    `round(t / (1 - t^2) (S - S t))` with `t = |tan angle|`, as in the original, which is `S t / (1 + t)`: about
    twice what the wedges of a square image need. Wedges remain where one side is about twice the other or more. At
    least one pixel is left.
    """
    slope = torch.deg2rad(angle).tan().abs()
    return (side * slope / (1 + slope)).round().clamp(max=(side - 1) // 2)


def _inside(places: Int[Tensor, "s"], start: Float[Tensor, "n"], length: Float[Tensor, "n"]) -> Tensor:
    """Which rows or columns lie in each image's part, (n, s)."""
    return (places >= start[:, None]) & (places < (start + length)[:, None])


def _centres(side: int, images: Tensor) -> Float[Tensor, "s"]:
    """Centres of the pixels of a side, on the scale -1 to 1 of its edges."""
    return (torch.arange(side, device=images.device, dtype=images.dtype) * 2 + 1 - side) / side
