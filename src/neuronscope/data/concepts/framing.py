"""Which part of an image the concept masks cover: always the very part that the network sees.

An activation map spans the network's input from edge to edge, and so must a mask that is laid over it. When the
preprocessing cuts off the borders of an image, the masks must lose the same borders. `Framing` holds the geometry of a
`Preprocess`, nothing else of it; `WHOLE`, the default, is the whole image squashed into the input, which is how the
224 x 224 images of Broden were made.

Label maps are resized by nearest neighbour at pixel centres: target pixel i takes the source pixel that holds the point
(i + 1/2) * source / target. (Torch calls this `nearest-exact`, PIL `NEAREST`; `nearest` of torch and OpenCV takes
i * source / target instead, half a target pixel to the upper left.) Resize and crop are one lookup in whole numbers, so
that nothing is resampled twice and the result is the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from neuronscope.preprocessing import Preprocess

Side = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True)
class Framing:
    """What a network's preprocessing does to the outline of an image.

    Attributes:
        resize: as in `Preprocess`: an int for the shorter side, a pair for (height, width), None for no change.
        crop: as in `Preprocess`: centre crop to (height, width); None for none.

    Example:
        >>> centre = Framing(resize=4, crop=(4, 4))
        >>> centre.fit(np.arange(8)[None, None, :].repeat(4, axis=1), side=(1, 4)).tolist()
        [[[2, 3, 4, 5]]]
    """

    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None

    def fit(self, maps: Int[np.ndarray, "layers y x"], *, side: Side) -> Int[np.ndarray, "layers h w"]:
        """Label maps of a whole image, cut to what the network sees of it and resized to the masks' side.

        What the preprocessing pads is 0: no label.
        """
        layers, height, width = maps.shape
        if (height, width) == side and self.crop is None:
            return maps
        if 0 in maps.shape:
            return np.zeros((layers, *side), dtype=maps.dtype)
        resized = _resized((height, width), self.resize)
        crop = self.crop or resized
        rows, columns = (
            _sources(side[axis], size=(height, width)[axis], resized=resized[axis], crop=crop[axis]) for axis in (0, 1)
        )
        inside = (rows >= 0)[:, None] & (columns >= 0)[None, :]
        return np.where(inside, maps[:, rows[:, None], columns[None, :]], 0).astype(maps.dtype)


WHOLE = Framing()
"""The whole image, squashed to the network's input and to the masks' side."""


def framing_of(prepare: Preprocess) -> Framing:
    """The framing under which masks cover what a network with this preprocessing sees.

    Example:
        >>> framing_of(Preprocess(resize=256, crop=(224, 224)))
        Framing(resize=256, crop=(224, 224))
    """
    return Framing(resize=prepare.resize, crop=prepare.crop) if prepare.crop is not None else WHOLE


def squashed(prepare: Preprocess) -> Preprocess:
    """The same preprocessing, but with the whole image squashed into the input in place of a centre crop.

    With it, masks under the framing `WHOLE` are right, and no annotated pixel is lost.

    Example:
        >>> squashed(Preprocess(resize=256, crop=(224, 224))).resize
        (224, 224)
    """
    return prepare if prepare.crop is None else replace(prepare, resize=prepare.crop, crop=None)


def _resized(size: Side, resize: int | tuple[int, int] | None) -> Side:
    """Height and width after the resize step; as torchvision does it, the longer side is cut off to whole pixels."""
    if resize is None:
        return size
    if not isinstance(resize, int):
        return resize
    height, width = size
    shorter = min(size)
    return resize * height // shorter, resize * width // shorter


def _sources(target: int, *, size: int, resized: int, crop: int) -> Int[np.ndarray, "target"]:
    """The source pixel under the centre of each target pixel along one axis; -1 outside of the image."""
    # As torchvision's centre crop: padded evenly where the image is smaller (the odd pixel goes to the end), and
    # otherwise cut at the nearest whole pixel, halves to the even one.
    start = round((resized - crop) / 2) if crop <= resized else -((crop - resized) // 2)
    # (start + (i + 1/2) * crop / target) * size / resized, in whole numbers
    numerator = (2 * target * start + (2 * np.arange(target, dtype=np.int64) + 1) * crop) * size
    found = numerator // (2 * target * resized)
    return np.where((found >= 0) & (found < size), found, -1)
