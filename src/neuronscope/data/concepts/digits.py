"""Concepts in scikit-learn's digits, computed from the pictures themselves: something to explain units with anywhere.

No download and no annotator: strokes by orientation, junctions, stroke ends, holes, halves of the image, and the digit
as a label of the whole image. Everything is computed in whole numbers and is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, UInt8

from neuronscope.data.concepts.concept_data import Concept, ConceptData
from neuronscope.data.concepts.masks import MaskSource
from neuronscope.data.sources import DIGITS, load_data

INK = 96
"""Grey level (0 to 255) from which a pixel is ink; below one half, since thin strokes were blurred by the scanner."""

HOLE_LEVELS = (INK, 128, 160)
"""Grey levels at which holes are looked for: the inside of a narrow loop is grey, not black."""

COHERENCE = (1, 2)
"""A stroke has an orientation where the structure tensor's coherence, 0 to 1, is at least this fraction."""

REACH = 5
"""Squared distance in pixels up to which the surroundings of a junction or stroke end count as part of it."""

SMALLEST_HOLE = 3
"""Pixels; smaller gaps come from enlarging the pictures, not from the writer."""

LAYERS: tuple[tuple[tuple[str, str], ...], ...] = (
    (
        ("horizontal stroke", "stroke"),
        ("vertical stroke", "stroke"),
        ("rising stroke", "stroke"),
        ("falling stroke", "stroke"),
        ("hole", "shape"),
    ),
    (("junction", "shape"),),
    (("stroke end", "shape"),),
    (("upper half", "position"), ("lower half", "position")),
    (("left half", "position"), ("right half", "position")),
)
"""Name and category of the pixel-level concepts, by layer of the label maps; numbered in this order from 1."""

CATEGORIES = ("stroke", "shape", "position", "digit")


def load_digit_concepts(*, split: str | None = None) -> ConceptData:
    """The digits with their concepts; masks are 28 x 28, as the images.

    Strokes are the ink pixels where the structure tensor (gradients by Sobel's masks, gathered by a binomial 7 x 7
    window) has a clear orientation; `rising` is `/`, `falling` is a backslash. Junctions and stroke ends are the points
    of the thinned ink (Zhang & Suen 1984) with three or more branches, or with one, and the ink around them. Holes are
    darker places that the ink encloses at any of three grey levels.

    Source of the structure tensor: Bigun & Granlund 1987.

    Args:
        split: `train`, `report` (the default) or `all`, as for `load_data("digits")`.

    Example:
        >>> digits = load_digit_concepts()
        >>> len(digits), digits.side, [concept.name for concept in digits.concepts][4:8]
        (719, (28, 28), ['hole', 'junction', 'stroke end', 'upper half'])
    """
    images = load_data("digits", split=split)
    training = frozenset(load_data("digits", split="train").ids)
    if images.pixels is None:
        message = "the digits are kept in memory"
        raise RuntimeError(message)
    maps = digit_maps(images.pixels[:, 0].numpy())
    first = sum(map(len, LAYERS)) + 1
    drawn = [(name, category) for layer in LAYERS for name, category in layer]
    present = [(maps == number).any(axis=(1, 2, 3)).sum() for number in range(1, first)]
    concepts = [
        Concept(number, name, category, "pixel", ((category, int(many)),), int(many), name)
        for number, ((name, category), many) in enumerate(zip(drawn, present, strict=True), start=1)
    ] + [
        Concept(first + digit, f"digit {name}", "digit", "image", (("digit", int(many)),), int(many), name)
        for digit, (name, many) in enumerate(zip(DIGITS, np.bincount(images.labels, minlength=10), strict=True))
    ]
    return ConceptData(
        images=images,
        concepts=tuple(concepts),
        reader=StoredMaps(maps, images.labels + first),
        content=f"digits-1 {images.fingerprint}",
        side=(maps.shape[-2], maps.shape[-1]),
        categories=CATEGORIES,
        annotated=np.ones((len(images), len(CATEGORIES)), dtype=bool),
        splits=tuple("train" if one in training else "report" for one in images.ids),
    )


@dataclass(frozen=True)
class StoredMaps:
    """Label maps that are in memory, and one label of each whole image."""

    maps: UInt8[np.ndarray, "n layers h w"]
    labels: Int[np.ndarray, "n"]

    def sources(self, row: int) -> Sequence[MaskSource]:
        """The label maps of an image."""
        return [StoredMap(self.maps[row])]

    def whole(self, row: int) -> Int[np.ndarray, "m"]:
        """The label of an image."""
        return self.labels[row : row + 1]


@dataclass(frozen=True)
class StoredMap:
    """The label maps of one image, in memory."""

    maps: UInt8[np.ndarray, "layers h w"]

    @property
    def file(self) -> str:
        """Nowhere."""
        return "memory"

    def read(self) -> Int[np.ndarray, "layers h w"]:
        """The label maps."""
        return self.maps.astype(np.int32)


def digit_maps(pictures: UInt8[np.ndarray, "n h w"]) -> UInt8[np.ndarray, "n layers h w"]:
    """The label maps of pictures of white strokes on black, as `LAYERS` says."""
    height, width = pictures.shape[1:]
    holes = np.logical_or.reduce([enclosed(pictures >= level) for level in HOLE_LEVELS])
    ink = (pictures >= INK) & ~holes
    strokes = stroke_orientation(pictures)
    strokes[~ink] = 0
    strokes[holes] = 5
    ends, junctions = skeleton_points(thinned(ink))
    maps = np.zeros((len(pictures), len(LAYERS), height, width), dtype=np.uint8)
    maps[:, 0] = strokes
    maps[:, 1][_around(junctions) & ink] = 6
    maps[:, 2][_around(ends) & ink] = 7
    maps[:, 3] = np.where(np.arange(height) < height // 2, 8, 9)[:, None]
    maps[:, 4] = np.where(np.arange(width) < width // 2, 10, 11)
    return maps


def stroke_orientation(pictures: UInt8[np.ndarray, "n h w"]) -> UInt8[np.ndarray, "n h w"]:
    """The orientation of the stroke at each pixel: 1 horizontal, 2 vertical, 3 rising, 4 falling, 0 none.

    Each orientation stands for the quarter of all directions around it.

    Example:
        >>> bar = np.zeros((1, 9, 9), dtype=np.uint8)
        >>> bar[0, 4] = 255
        >>> int(stroke_orientation(bar)[0, 4, 4])
        1
    """
    grey = np.pad(pictures.astype(np.int64), ((0, 0), (1, 1), (1, 1)))
    smooth_y = grey[:, :-2] + 2 * grey[:, 1:-1] + grey[:, 2:]
    smooth_x = grey[:, :, :-2] + 2 * grey[:, :, 1:-1] + grey[:, :, 2:]
    dx = smooth_y[:, :, 2:] - smooth_y[:, :, :-2]
    dy = smooth_x[:, 2:] - smooth_x[:, :-2]
    # Divided by the window's sum of weights so that the squares below fit into 64 bits; towards zero, so that a
    # mirrored picture gives mirrored orientations.
    xx, yy, xy = (np.sign(sums) * (np.abs(sums) >> 12) for sums in map(_gathered, (dx * dx, dy * dy, dx * dy)))
    # The gradient's double angle: a is its cosine part, b its sine part. A stroke runs across its gradient.
    a, b, energy = xx - yy, 2 * xy, xx + yy
    numerator, denominator = COHERENCE
    clear = (denominator**2 * (a * a + b * b) >= numerator**2 * energy * energy) & (energy > 0)
    straight = np.where(a > 0, 2, 1)
    slanted = np.where(b > 0, 3, 4)
    return np.where(clear, np.where(np.abs(a) >= np.abs(b), straight, slanted), 0).astype(np.uint8)


def enclosed(ink: Bool[np.ndarray, "n h w"]) -> Bool[np.ndarray, "n h w"]:
    """Background that cannot be reached from the border of the picture in steps up, down, left and right.

    Example:
        >>> ring = np.ones((1, 5, 5), dtype=bool)
        >>> ring[0, 1:4, 1:4] = False
        >>> int(enclosed(ring).sum())
        9
    """
    from scipy import ndimage

    found = np.zeros_like(ink)
    for picture, result in zip(ink, found, strict=True):
        regions, _ = ndimage.label(np.pad(~picture, 1, constant_values=True))
        sizes = np.bincount(regions.ravel())
        inside = sizes >= SMALLEST_HOLE
        inside[[0, regions[0, 0]]] = False  # the ink, and what the border is part of
        result[:] = inside[regions][1:-1, 1:-1]
    return found


def thinned(ink: Bool[np.ndarray, "n h w"]) -> Bool[np.ndarray, "n h w"]:
    """Strokes thinned to one pixel, by the parallel algorithm of Zhang & Suen 1984.

    Example:
        >>> bar = np.zeros((1, 7, 9), dtype=bool)
        >>> bar[0, 2:5, 1:8] = True
        >>> thinned(bar)[0].any(axis=1).nonzero()[0].tolist()
        [3]
    """
    left = ink.copy()
    changed = True
    while changed:
        changed = False
        for step in (0, 1):
            around = _neighbours(left)
            count, runs = around.sum(axis=0), _runs(around)
            north, east, south, west = around[0], around[2], around[4], around[6]
            edge = (
                ~(north & east & south) & ~(east & south & west)
                if step == 0
                else ~(north & east & west) & ~(north & south & west)
            )
            gone = left & (count >= 2) & (count <= 6) & (runs == 1) & edge  # noqa: PLR2004 the algorithm's numbers
            changed |= bool(gone.any())
            left &= ~gone
    return left


def skeleton_points(
    skeleton: Bool[np.ndarray, "n h w"],
) -> tuple[Bool[np.ndarray, "n h w"], Bool[np.ndarray, "n h w"]]:
    """The ends of thinned strokes (one branch), and their junctions (three or more)."""
    around = _neighbours(skeleton)
    runs = _runs(around)
    # Two neighbours side by side are one branch; without ink around there is a dot, not an end.
    return skeleton & (runs == 1) & (around.sum(axis=0) <= 2), skeleton & (runs >= 3)  # noqa: PLR2004 branches


def _neighbours(pixels: Bool[np.ndarray, "n h w"]) -> Bool[np.ndarray, "8 n h w"]:
    """The eight neighbours of each pixel, from the upper one clockwise; none beyond the border."""
    height, width = pixels.shape[1:]
    padded = np.pad(pixels, ((0, 0), (1, 1), (1, 1)))
    steps = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
    return np.stack([padded[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in steps])


def _runs(around: Bool[np.ndarray, "8 n h w"]) -> Int[np.ndarray, "n h w"]:
    """How many separate runs of ink there are on the way around each pixel."""
    runs: Int[np.ndarray, "n h w"] = (~around & np.roll(around, -1, axis=0)).sum(axis=0)
    return runs


def _gathered(values: Int[np.ndarray, "n h w"]) -> Int[np.ndarray, "n h w"]:
    """The binomial 7 x 7 window: 1 6 15 20 15 6 1 in both directions."""
    weights = (1, 6, 15, 20, 15, 6, 1)
    reach = len(weights) // 2
    for axis in (1, 2):
        size = values.shape[axis]
        padded = np.pad(values, [(reach, reach) if one == axis else (0, 0) for one in range(3)])
        values = sum(
            (weight * padded.take(range(place, place + size), axis=axis) for place, weight in enumerate(weights)),
            start=np.zeros_like(values),
        )
    return values


def _around(points: Bool[np.ndarray, "n h w"]) -> Bool[np.ndarray, "n h w"]:
    """The pixels within `REACH` of any point."""
    height, width = points.shape[1:]
    reach = int(REACH**0.5)
    padded = np.pad(points, ((0, 0), (reach, reach), (reach, reach)))
    found = np.zeros_like(points)
    for y in range(-reach, reach + 1):
        for x in range(-reach, reach + 1):
            if y * y + x * x <= REACH:
                found |= padded[:, reach + y : reach + y + height, reach + x : reach + x + width]
    return found
