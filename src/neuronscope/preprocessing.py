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

from neuronscope.errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocess:
    """How images are made fit for a network.

    Attributes:
        channels: 1 (grey) or 3 (RGB); colour images are turned to grey (ITU-R 601 luma) and grey ones repeated.
        resize: an int scales the shorter side to so many pixels; a pair forces (height, width); None leaves the size.
        crop: centre crop to (height, width), padded with black where the image is smaller; None leaves the size.
        interpolation: for the resize; always antialiased.
        mean, std: per channel, on the scale 0 to 1; an empty `mean` means no normalisation (values 0 to 1).
    """

    channels: Literal[1, 3] = 3
    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a normalisation that does not fit the channels."""
        if len(self.mean) != len(self.std) or len(self.mean) not in (0, self.channels):
            message = (
                f"mean and std need {self.channels} numbers each (or none): got {len(self.mean)} and {len(self.std)}"
            )
            raise InputError(message)

    def frame(self, raw: UInt8[Tensor, "c h w"]) -> UInt8[Tensor, "channels height width"]:
        """The pixels the network sees, before scaling and normalisation: what a person should be shown."""
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2 import functional as transform

        image = raw
        if image.shape[0] not in (1, self.channels):
            image = transform.rgb_to_grayscale(image[:3])
        if self.resize is not None:
            size = [self.resize] if isinstance(self.resize, int) else list(self.resize)
            image = transform.resize(image, size, InterpolationMode(self.interpolation), antialias=True)
        if self.crop is not None:
            image = transform.center_crop(image, list(self.crop))
        return image.expand(self.channels, -1, -1)

    def normalise(self, frames: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Scale frames to 0..1 and normalise them."""
        image = frames.to(torch.float32).div_(255.0)
        if self.mean:
            shape = (1, -1, 1, 1)
            image.sub_(torch.tensor(self.mean).view(shape)).div_(torch.tensor(self.std).view(shape))
        return image

    def batch(self, raws: Sequence[UInt8[Tensor, "c h w"]]) -> Float[Tensor, "n c h w"]:
        """Frame, stack and normalise images.

        Raises:
            InputError: the images differ in size and neither `resize` nor `crop` makes them equal.
        """
        frames = [self.frame(raw) for raw in raws]
        if len({frame.shape for frame in frames}) > 1:
            sizes = sorted({"x".join(map(str, frame.shape[1:])) for frame in frames})
            message = f"images of different sizes ({', '.join(sizes[:3])}) in one batch: give --resize and --crop"
            raise InputError(message)
        return self.normalise(torch.stack(frames))

    def pixels(self, image: Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        """Undo `normalise`: the picture behind a network input, clipped to 0..255."""
        if self.mean:
            shape = (1, -1, 1, 1)
            mean, std = torch.tensor(self.mean, device=image.device), torch.tensor(self.std, device=image.device)
            image = image * std.view(shape) + mean.view(shape)
        return image.mul(255.0).round_().clamp_(0, 255).to(torch.uint8)
