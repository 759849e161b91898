"""The three pictures of an image on an original's card: tinted, plain, and tints alone.

As in indres a quarter of the brightness is added to a tint's colour and taken from the others. A line along the border
is added, solid for the unit and dashed for the formula, since the tints alone look the same in grey.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, UInt8

HEIGHT = 300
"""Height at which a page shows pictures, pixels."""

_TINT = 0.25 * 255  # added to the colour of a tint, taken from the others
_SMALL = 64  # pixels: pictures lower than this are enlarged as they are, without smoothing
_LINE = 2  # pixels of each of a line's two parts, dark and light: one of them is seen on any ground
_DASH = 7  # pixels
_QUALITY = 88


def enlarged(frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """A picture at least as high as a page shows it; small ones keep their pixels as squares.

    Example:
        >>> enlarged(np.zeros((28, 14, 3), np.uint8)).shape, enlarged(np.zeros((100, 50, 3), np.uint8)).shape
        ((308, 154, 3), (300, 150, 3))
    """
    height, width = frame.shape[:2]
    if height >= HEIGHT:
        return frame
    if height < _SMALL:
        factor = math.ceil(HEIGHT / height)
        return frame.repeat(factor, axis=0).repeat(factor, axis=1)
    from PIL import Image

    size = (max(1, round(width * HEIGHT / height)), HEIGHT)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))


def tinted(
    picture: UInt8[np.ndarray, "h w 3"], *, formula: Bool[np.ndarray, "mh mw"], active: Bool[np.ndarray, "mh mw"]
) -> UInt8[np.ndarray, "h w 3"]:
    """A picture with the formula's part in blue and the unit's in red, masks enlarged by nearest neighbour.

    Example:
        >>> white, all_of_it = np.full((9, 9, 3), 255, np.uint8), np.ones((1, 1), bool)
        >>> tinted(white, formula=all_of_it, active=~all_of_it)[4, 4].tolist()
        [191, 191, 255]
    """
    shape = picture.shape[:2]
    blue, red = nearest(formula, shape), nearest(active, shape)
    shown = picture.astype(np.float64)
    for mask, channel in ((blue, 2), (red, 0)):
        change = np.full(3, -_TINT)
        change[channel] = _TINT
        shown += mask[..., None] * change
    found: np.ndarray = np.clip(shown, 0, 255).astype(np.uint8)
    _line(found, red, 0, 255, dash=0)
    # Inverted, so that where both borders lie on one another the line is striped.
    _line(found, blue, 255, 0, dash=_DASH)
    return found


def nearest(mask: Bool[np.ndarray, "h w"], shape: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    """A mask at another size, by nearest neighbour."""
    rows, columns = (_places(wanted, size) for wanted, size in zip(shape, mask.shape, strict=True))
    return np.asarray(mask[np.ix_(rows, columns)])


def write_jpeg(picture: UInt8[np.ndarray, "h w 3"], path: Path) -> Path:
    """Save a picture; colours keep their full resolution, as tints have sharp borders."""
    from PIL import Image

    Image.fromarray(np.ascontiguousarray(picture)).save(path, quality=_QUALITY, subsampling=0)
    return path


def _places(wanted: int, size: int) -> Int[np.ndarray, "_"]:
    """For each of `wanted` pixels the one of `size` pixels that covers its centre."""
    return ((np.arange(wanted) + 0.5) * size / wanted).astype(np.int64)


def _line(picture: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"], *greys: int, dash: int) -> None:
    """Draw along the inside of a mask's border, in grey levels from outside in; dashed where dashes have a length."""
    outer = mask
    for grey in greys:
        inner = outer
        for _ in range(_LINE):
            inner = _eroded(inner)
        ring = outer & ~inner
        if dash:
            ring &= np.add.outer(np.arange(mask.shape[0]), np.arange(mask.shape[1])) // dash % 2 == 0
        picture[ring] = grey
        outer = inner


def _eroded(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels whose four neighbours are in the mask too; outside the image none is, so that its border closes a line."""
    wide = np.pad(mask, 1)
    return np.asarray(mask & wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:])
