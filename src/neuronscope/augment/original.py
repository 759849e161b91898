"""Rotation and elliptic blur as the original has them, named deviations that `augmentations` takes on request.

The original takes both through 8-bit images of PIL and rotates with nearest neighbours. Its later transforms then go on
in 8 bits; here they go on in floats, from the same 8-bit values. These versions loop over images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from neuronscope.augment.ellipses import Centre, ellipses
from neuronscope.augment.places import margins

if TYPE_CHECKING:
    from PIL import Image

_WHITE = 255

_RIM = 0.5
"""What OpenCV adds to the half-axes of a filled ellipse, in pixels."""


@dataclass(frozen=True)
class NearestRotation:
    """Rotated with nearest neighbours, then cropped by `margins`, then enlarged bilinearly. Parameter: the angle."""

    def __call__(self, images: Float[Tensor, "n c h w"], parameters: Float[Tensor, "n 1"]) -> Float[Tensor, "n c h w"]:
        """Change a batch."""
        from torchvision.transforms import functional as transform

        rotated = [
            transform.rotate(image, angle) for image, angle in zip(images, parameters[:, 0].tolist(), strict=True)
        ]
        return _enlarged(rotated, parameters[:, 0], images)


@dataclass(frozen=True)
class EightBitRotation:
    """As `NearestRotation`, but by PIL, from and to 8-bit values. Parameter: the angle."""

    def __call__(self, images: Float[Tensor, "n c h w"], parameters: Float[Tensor, "n 1"]) -> Float[Tensor, "n c h w"]:
        """Change a batch."""
        angles = parameters[:, 0].tolist()
        rotated = [_floats(_picture(image).rotate(angle)) for image, angle in zip(images, angles, strict=True)]
        return _rounded(_enlarged(rotated, parameters[:, 0], images))


@dataclass(frozen=True)
class EightBitEllipticBlur:
    """As `EllipticBlur`, with PIL's `GaussianBlur` of 8-bit images; parameters as there.

    The original draws the ellipse by OpenCV, which also fills the pixels that its rim passes through. Here it is half a
    pixel larger all around, which comes within 1 % of the same pixels (200 random ellipses, OpenCV 5.0).

    Attributes:
        radius: of PIL's `GaussianBlur`, in pixels.
        centre: see `ellipses`.
    """

    radius: float = 3.0
    centre: Centre = "exact"

    def __call__(self, images: Float[Tensor, "n c h w"], parameters: Float[Tensor, "n 5"]) -> Float[Tensor, "n c h w"]:
        """Change a batch."""
        from PIL import ImageFilter

        n, _, height, width = images.shape
        pictures = [_picture(image) for image in images]
        plain = torch.stack([_floats(picture) for picture in pictures])
        blurred = torch.stack([_floats(picture.filter(ImageFilter.GaussianBlur(self.radius))) for picture in pictures])
        rows, columns = (torch.arange(side, device=parameters.device).expand(n, -1) for side in (height, width))
        exact = ellipses(parameters, height, width, centre=self.centre)
        across, down = (axis + _RIM * (axis > 0) for axis in (exact.across, exact.down))
        mask = replace(exact, across=across, down=down).mask(rows, columns)
        return torch.where(mask[:, None].cpu(), blurred, plain).to(images)


def _enlarged(
    rotated: list[Float[Tensor, "c h w"]], angles: Float[Tensor, "n"], images: Float[Tensor, "n c h w"]
) -> Float[Tensor, "n c h w"]:
    """Cropped at all sides and brought back to the old size."""
    from torchvision.transforms import functional as transform

    height, width = images.shape[2:]
    enlarged = []
    tops, lefts = (margins(angles, side).long().tolist() for side in (height, width))
    for image, top, left in zip(rotated, tops, lefts, strict=True):
        cropped = image[:, top : height - top, left : width - left]
        enlarged.append(transform.resize(cropped, [height, width], antialias=False))
    return torch.stack(enlarged).to(images)


def _picture(image: Float[Tensor, "c h w"]) -> Image.Image:
    """An 8-bit picture; values are cut off, not rounded, as by torchvision's `to_pil_image`."""
    from PIL import Image

    levels: UInt8[np.ndarray, "c h w"] = (image.detach().cpu().float() * _WHITE).to(torch.uint8).numpy()
    return Image.fromarray(levels[0] if len(levels) == 1 else np.ascontiguousarray(levels.transpose(1, 2, 0)))


def _floats(picture: Image.Image) -> Float[Tensor, "c h w"]:
    """A picture as a float image, 0 to 1."""
    levels = np.atleast_3d(np.asarray(picture)).transpose(2, 0, 1)
    return torch.from_numpy(levels.astype(np.float32)) / _WHITE


def _rounded(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The nearest 8-bit values."""
    return (images * _WHITE).round_().div_(_WHITE)
