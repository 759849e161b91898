"""Outlined regions of an image as label maps: polygons, boxes, and COCO's run lengths.

Coordinates are continuous: pixel (row, column) is the square from (row, column) to (row + 1, column + 1). A region
covers a pixel when it holds the pixel's centre; where a polygon crosses itself, the even-odd rule decides. (PIL and
OpenCV round corners to whole pixels first and draw the outline, too, which makes small objects larger.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from neuronscope.data.concepts.annotations import image_size, refuse
from neuronscope.data.concepts.masks import pack

CORNERS = 3
"""Fewest corners of a polygon."""


@dataclass(frozen=True)
class Polygon:
    """A closed outline.

    Attributes:
        corners: (x, y) of each corner.
    """

    corners: Float[np.ndarray, "corners 2"]


@dataclass(frozen=True)
class Box:
    """A rectangle: `x0` and `y0` belong to it, `x1` and `y1` do not."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class RunLengths:
    """A mask as COCO writes crowds: lengths of runs, column by column, beginning with a run of zeros (maybe empty).

    Attributes:
        counts: the lengths as numbers, or COCO's text for them.
        size: height and width.
    """

    counts: tuple[int, ...] | str
    size: tuple[int, int]


Region = Polygon | Box | RunLengths


@dataclass(frozen=True)
class Regions:
    """The regions of one image.

    Attributes:
        file: the annotation file, for messages.
        image: the image, which says the size where `size` does not.
        regions: concept number and region.
        units: `pixel` coordinates, or `relative` ones, 0 to 1 of width and height.
        size: height and width of the image; None: look at the image.
    """

    file: str
    image: Path
    regions: tuple[tuple[int, Region], ...]
    units: Literal["pixel", "relative"] = "pixel"
    size: tuple[int, int] | None = None

    def read(self) -> Int[np.ndarray, "layers y x"]:
        """The regions drawn at the size of the image.

        Raises:
            DataError: the image is needed and not there, or run lengths do not fit the size.
        """
        size = self.size or image_size(self.image)
        scale = (1.0, 1.0) if self.units == "pixel" else (float(size[1]), float(size[0]))
        drawn = ((number, draw(region, size=size, scale=scale, file=self.file)) for number, region in self.regions)
        return pack(drawn, size=size)


def draw(
    region: Region, *, size: tuple[int, int], scale: tuple[float, float] = (1.0, 1.0), file: str = "region"
) -> Bool[np.ndarray, "y x"]:
    """A region as a mask.

    Args:
        region: what to draw.
        size: height and width of the mask.
        scale: what x and y are multiplied by; not for run lengths.
        file: for messages.

    Raises:
        DataError: run lengths that do not fill their size exactly, or are of another size.

    Example:
        >>> draw(Box(0.4, 0.0, 2.0, 1.0), size=(2, 3)).astype(int).tolist()
        [[1, 1, 0], [0, 0, 0]]
    """
    if isinstance(region, RunLengths):
        return _runs(region, size=size, file=file)
    mask = np.zeros(size, dtype=bool)
    if isinstance(region, Box):
        x0, x1 = (_first(x * scale[0]) for x in (region.x0, region.x1))
        y0, y1 = (_first(y * scale[1]) for y in (region.y0, region.y1))
        mask[y0:y1, x0:x1] = True
        return mask
    return _filled(region.corners.astype(np.float64) * np.array(scale), size=size)


def counts_from_text(text: str) -> tuple[int, ...]:
    """Run lengths in COCO's compressed text.

    Each number is written in groups of 5 bits, lowest first, as characters from `0` on; 32 says that more groups come,
    the highest bit of the last group is the sign. From the fourth number on, what is written is the difference to the
    number two places before.

    Raises:
        ValueError: the text ends within a number, or holds other characters.

    Example:
        >>> counts_from_text("142"), counts_from_text("0P2n1")
        ((1, 4, 2), (0, 64, 62))
    """
    numbers: list[int] = []
    value = shift = 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 64:  # noqa: PLR2004 six bits
            message = f"the character {character!r} in run lengths"
            raise ValueError(message)
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))  # noqa: PLR2004 COCO's rule
        value = shift = 0
    if shift:
        message = "run lengths that end within a number"
        raise ValueError(message)
    return tuple(numbers)


def _filled(corners: Float[np.ndarray, "corners 2"], *, size: tuple[int, int]) -> Bool[np.ndarray, "y x"]:
    """The pixels whose centres a polygon encloses, by the even-odd rule.

    Along each row of pixel centres, every edge that is crossed turns inside to outside or back from there on.
    """
    height, width = size
    turns = np.zeros((height, width + 1), dtype=bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        # A corner at the very height of a row belongs to the edge below it, so that it is crossed once.
        first, last = (min(_first(y), height) for y in (min(y0, y1), max(y0, y1)))
        rows = np.arange(first, last)
        if rows.size:
            crossing = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
            turns[rows, np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)] ^= True
    inside: Bool[np.ndarray, "y x"] = np.logical_xor.accumulate(turns[:, :width], axis=1)
    return inside


def _runs(region: RunLengths, *, size: tuple[int, int], file: str) -> Bool[np.ndarray, "y x"]:
    """Run lengths as a mask."""
    try:
        counts = counts_from_text(region.counts) if isinstance(region.counts, str) else region.counts
    except ValueError as cause:
        refuse(file, f"holds {cause}: expected COCO's text. Write the file anew")
    if region.size != size or min(counts, default=0) < 0 or sum(counts) != size[0] * size[1]:
        refuse(
            file,
            f"holds run lengths for {sum(counts)} pixels and the size {region.size}: expected {size[0] * size[1]} for "
            f"{size} (height, width). Write the file anew",
        )
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(size[1], size[0]).T


def _first(edge: float) -> int:
    """The first pixel whose centre is at or after an edge; never negative, since slices count those from the end."""
    return max(math.ceil(edge - 0.5), 0)
