"""From raw pixels to the tensor a network expects, and back to a picture a person can look at.

The geometry (resize, crop) is kept apart from the normalisation, because receptive-field crops and galleries need the
first without the second. Nothing here decodes files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from neuronscope.errors import InputError, nearest

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

INTERPOLATIONS = ("bilinear", "bicubic", "nearest")

GREY, GREY_ALPHA, COLOUR, COLOUR_ALPHA = 1, 2, 3, 4
"""Numbers of channels a raw image may have."""


@dataclass(frozen=True)
class Preprocess:
    """How images are made fit for a network.

    Attributes:
        channels: 1 (grey) or 3 (RGB); colour images are turned to grey (ITU-R 601 luma), grey ones are repeated, and
            an alpha channel is dropped.
        resize: an int scales the shorter side to so many pixels; a pair forces (height, width); None leaves the size.
        crop: centre crop to (height, width), padded with black where the image is smaller; None leaves the size.
        interpolation: for the resize; bilinear and bicubic are always antialiased.
        mean, std: per channel, on the scale 0 to 1; an empty `mean` means no normalisation (values 0 to 1).

    Example:
        >>> prepare = Preprocess(resize=8, crop=(8, 8), mean=IMAGENET_MEAN, std=IMAGENET_STD)
        >>> prepare.batch([torch.zeros(3, 12, 10, dtype=torch.uint8)]).shape
        torch.Size([1, 3, 8, 8])
    """

    channels: Literal[1, 3] = 3
    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse sizes, names and a normalisation that cannot work.

        Raises:
            InputError: an unknown interpolation, a size below 1, a wrong count of mean or std, a std that is not > 0.
        """
        if self.channels not in (GREY, COLOUR):
            message = f"channels is {self.channels}: give 1 (grey) or 3 (RGB)"
            raise InputError(message)
        if self.interpolation not in INTERPOLATIONS:
            message = (
                f"interpolation '{self.interpolation}' is not one of {', '.join(INTERPOLATIONS)}."
                f"{nearest(self.interpolation, INTERPOLATIONS)}"
            )
            raise InputError(message)
        for option, size in (("resize", self.resize), ("crop", self.crop)):
            sides = (size,) if isinstance(size, int) else size or ()
            if any(side < 1 for side in sides):
                message = f"{option} is {size}: give sizes of at least 1 pixel"
                raise InputError(message)
        if len(self.mean) != len(self.std) or len(self.mean) not in (0, self.channels):
            message = (
                f"mean and std need {self.channels} numbers each (or none): got {len(self.mean)} and {len(self.std)}"
            )
            raise InputError(message)
        if any(not std > 0 for std in self.std):
            message = f"std is {self.std}: every number must be above 0, on the scale 0 to 1"
            raise InputError(message)

    def frame(self, raw: UInt8[Tensor, "c h w"]) -> UInt8[Tensor, "channels height width"]:
        """The pixels the network sees, before scaling and normalisation: what a person should be shown.

        Raises:
            InputError: the image has neither 1 nor 3 channels (with or without alpha).
        """
        return self._framed(raw)

    def normalise(self, frames: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Scale frames to 0..1 and normalise them."""
        image = frames.to(torch.float32).div_(255.0)
        if self.mean:
            mean, std = self._statistics(image.device)
            image.sub_(mean).div_(std)
        return image

    def batch(
        self, raws: Sequence[UInt8[Tensor, "c h w"]] | UInt8[Tensor, "n c h w"]
    ) -> Float[Tensor, "n channels height width"]:
        """Frame, stack and normalise images; one array of images of one size is handled without a loop.

        Raises:
            InputError: there is no image, or the images differ in size and neither `resize` nor `crop` makes them
                equal.
        """
        if len(raws) == 0:
            message = "a batch needs at least one image: got none"
            raise InputError(message)
        # Resized one by one even then: how torch resizes may depend on the memory layout of what it is given.
        if isinstance(raws, Tensor) and self.resize is None:
            return self.normalise(self._framed(raws))
        frames = [self._framed(raw) for raw in raws]
        if len({frame.shape for frame in frames}) > 1:
            sizes = sorted({"x".join(map(str, frame.shape[1:])) for frame in frames})
            message = (
                f"images of different sizes in one batch ({', '.join(sizes[:3])}; height x width): "
                "a network needs one size. Give --resize and --crop"
            )
            raise InputError(message)
        return self.normalise(torch.stack(frames))

    def pixels(self, image: Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        """Undo `normalise`: the picture behind a network input, clipped to 0..255."""
        if self.mean:
            mean, std = self._statistics(image.device)
            image = image * std + mean
        return image.mul(255.0).round_().clamp_(0, 255).to(torch.uint8)

    def _framed(self, raw: UInt8[Tensor, "*n c h w"]) -> UInt8[Tensor, "*n channels height width"]:
        """`frame` of one image or of many of one size."""
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2 import functional as transform

        image = raw
        found = image.shape[-3]
        if found not in (GREY, GREY_ALPHA, COLOUR, COLOUR_ALPHA):
            message = f"an image has {found} channels: expected 1 (grey) or 3 (RGB), with or without alpha"
            raise InputError(message)
        if found in (GREY_ALPHA, COLOUR_ALPHA):
            image = image[..., : found - 1, :, :]
        if self.channels == GREY and image.shape[-3] == COLOUR:
            image = _luma(image)
        if self.resize is not None:
            size = [self.resize] if isinstance(self.resize, int) else list(self.resize)
            image = transform.resize(image, size, InterpolationMode(self.interpolation), antialias=True)
        if self.crop is not None:
            image = transform.center_crop(image, list(self.crop))
        return image.expand(*image.shape[:-3], self.channels, -1, -1)

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, shaped to broadcast over a batch."""
        shape = (1, -1, 1, 1)
        return (
            torch.tensor(self.mean, device=device).view(shape),
            torch.tensor(self.std, device=device).view(shape),
        )


def _luma(image: UInt8[Tensor, "*n 3 h w"]) -> UInt8[Tensor, "*n 1 h w"]:
    """Grey level of colours, rounded: 0.299 R + 0.587 G + 0.114 B in 16-bit fixed point, bit for bit as PIL does it.

    Torchvision's own function cuts off in place of rounding, so that its white is 254.
    """
    weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32, device=image.device).view(3, 1, 1)
    half = 1 << 15
    return ((image.to(torch.int32) * weights).sum(-3, keepdim=True, dtype=torch.int32) + half >> 16).to(torch.uint8)
