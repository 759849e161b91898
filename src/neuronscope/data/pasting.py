"""Part of one image pasted onto another: what copy-paste examples are made of.

A `Patch` is an object cut out of its image: pixels, and which of them belong to it. `pasted` lays it over another image
at a place and a size; `shuffled` and `grey` are its controls, which cover the very same pixels of the image and show
no object. Nothing here knows a network.

The examples follow Mu and Andreas (2020), "Compositional explanations of neurons", section 7: a network that takes a
corridor for a clean room when an igloo is pasted into it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from neuronscope.data.dataset import Data
from neuronscope.errors import InputError

ORIGINAL_SIDE = 224
"""Side of the images that the offsets below were made for, in pixels."""
ORIGINAL_OFFSETS = (-150, -100, -50, 0, 50, 100)
"""Where the upper left corner of the object comes to lie, right of and below that of the image, in pixels."""
ORIGINAL_FACTORS = (0.33, 0.5, 0.75, 1.0, 1.5, 2.0)
"""Side of the object, in sides of the image."""

Kind = Literal["object", "shuffled", "grey"]
"""What is pasted: the object, its pixels in random order, or plain grey; all over the same pixels of the image."""

KINDS: tuple[Kind, ...] = ("object", "shuffled", "grey")
GREY = 128
"""Level of the plain control, half of white."""


@dataclass(frozen=True)
class Placement:
    """Where an object is laid, and how large.

    Attributes:
        x, y: of its upper left corner, in pixels right of and below that of the image; may be negative.
        side: of its longer side, in pixels.
    """

    x: int
    y: int
    side: int


@dataclass(frozen=True)
class Patch:
    """An object cut out of an image.

    Attributes:
        pixels: the smallest rectangle that holds it.
        mask: which of these pixels belong to it.
    """

    pixels: UInt8[Tensor, "c h w"]
    mask: Bool[Tensor, "h w"]

    @property
    def area(self) -> int:
        """Pixels that belong to it."""
        return int(self.mask.sum())


@dataclass(frozen=True)
class Paste:
    """One pasted picture, as numbers.

    Attributes:
        frame: number of the image.
        patch: number of the patch; -1 leaves the image as it is.
        placement: where, and how large.
        kind: the object itself or a control.
    """

    frame: int
    patch: int = -1
    placement: Placement = Placement(0, 0, 1)
    kind: Kind = "object"


def pasted(
    image: UInt8[Tensor, "c h w"],
    patch: UInt8[Tensor, "c h2 w2"],
    mask: Bool[Tensor, "h2 w2"] | None,
    *,
    x: int,
    y: int,
    side: int,
) -> UInt8[Tensor, "c h w"]:
    """An image with a patch laid over it; what lies beyond the image's edges is cut off.

    Args:
        image: below.
        patch: above.
        mask: which pixels of the patch are opaque; None: all.
        x: of the patch's left edge, in pixels right of that of the image; may be negative.
        y: of the patch's upper edge, in pixels below that of the image; may be negative.
        side: of the patch's longer side once it is scaled, in pixels; its shape is kept.

    Raises:
        InputError: a side below 1, or a patch without pixels.

    Example:
        >>> black, white = torch.zeros(1, 3, 3, dtype=torch.uint8), torch.full((1, 2, 2), 255, dtype=torch.uint8)
        >>> pasted(black, white, None, x=-1, y=1, side=2)[0].tolist()
        [[0, 0, 0], [255, 0, 0], [255, 0, 0]]
    """
    opaque = torch.ones(patch.shape[1:], dtype=torch.bool) if mask is None else mask
    return laid(image, scaled(Patch(patch, opaque), side=side), x=x, y=y)


def scaled(patch: Patch, *, side: int) -> Patch:
    """A patch resized so that its longer side has `side` pixels: bilinear, the mask by nearest neighbour.

    Colours are averaged over the object's own pixels only: what stood around it in its image does not colour its edge.

    Raises:
        InputError: a side below 1, or a patch without pixels.
    """
    height, width = patch.mask.shape
    if side < 1 or 0 in (height, width):
        message = (
            f"a patch of {height} x {width} pixels cannot be given a longer side of {side}: expected at least one "
            "pixel each. Give a larger side"
        )
        raise InputError(message)
    longer = max(height, width)
    size = (max(1, round(height * side / longer)), max(1, round(width * side / longer)))
    if size == (height, width):
        return patch
    resize = torch.nn.functional.interpolate
    opaque = patch.mask.to(torch.float32)[None, None]
    colours = torch.cat([patch.pixels.to(torch.float32)[None] * opaque, opaque], dim=1)
    smooth = resize(colours, size=size, mode="bilinear", align_corners=False, antialias=True)[0]
    pixels = (smooth[:-1] / smooth[-1:].clamp_min(1e-6)).round_().clamp_(0, 255).to(torch.uint8)
    mask = resize(opaque, size=size, mode="nearest-exact")[0, 0] > 0
    return Patch(pixels, mask)


def laid(image: UInt8[Tensor, "c h w"], patch: Patch, *, x: int, y: int) -> UInt8[Tensor, "c h w"]:
    """An image with a patch of the right size laid over it, its upper left corner at (x, y)."""
    below, above = _shared(image.shape[1:], patch.mask.shape, x=x, y=y)
    result = image.clone()
    result[below] = torch.where(patch.mask[above[1:]], patch.pixels[above], image[below])
    return result


def visible_share(size: tuple[int, int], patch: Patch, placement: Placement) -> float:
    """Share of an object's pixels that lie inside an image of a height and width; 0 to 1, nan for an empty mask.

    Example:
        >>> square = Patch(torch.zeros(1, 4, 4, dtype=torch.uint8), torch.ones(4, 4, dtype=torch.bool))
        >>> visible_share((8, 8), square, Placement(-2, 0, 4))
        0.5
    """
    there = scaled(patch, side=placement.side)
    _, inside = _shared(size, there.mask.shape, x=placement.x, y=placement.y)
    return int(there.mask[inside[1:]].sum()) / there.area if there.area else float("nan")


def shuffled(patch: Patch, *, rng: np.random.Generator) -> Patch:
    """The same mask, with the object's pixels in random order: its colours without its form."""
    inside = patch.mask.reshape(-1).nonzero()[:, 0]
    flat = patch.pixels.reshape(len(patch.pixels), -1).clone()
    flat[:, inside] = flat[:, inside[torch.from_numpy(rng.permutation(len(inside)))]]
    return Patch(flat.reshape(patch.pixels.shape), patch.mask)


def grey(patch: Patch) -> Patch:
    """The same mask, in plain grey: that something is there, without colours and form."""
    return Patch(torch.full_like(patch.pixels, GREY), patch.mask)


def cut_out(image: UInt8[Tensor, "c h w"], mask: Bool[Tensor, "h2 w2"] | None = None) -> Patch:
    """An object with the smallest rectangle around it; the whole image without a mask.

    Raises:
        InputError: the mask is empty, or of another size than the image.

    Example:
        >>> mask = torch.zeros(5, 5, dtype=torch.bool)
        >>> mask[1:3, 2] = True
        >>> tuple(cut_out(torch.zeros(3, 5, 5, dtype=torch.uint8), mask).mask.shape)
        (2, 1)
    """
    if mask is None:
        return Patch(image, torch.ones(image.shape[1:], dtype=torch.bool))
    if mask.shape != image.shape[1:]:
        sizes = [" x ".join(map(str, shape)) for shape in (mask.shape, image.shape[1:])]
        message = (
            f"the mask has {sizes[0]} pixels, its image {sizes[1]}: expected one size. Give the mask of this image"
        )
        raise InputError(message)
    rows, columns = (mask.any(dim=axis).nonzero()[:, 0] for axis in (1, 0))
    if not len(rows):
        message = "the mask is empty: expected pixels above 0 where the object is. Give another mask, or none"
        raise InputError(message)
    box = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    return Patch(image[:, box[0], box[1]].contiguous(), mask[box].contiguous())


def opaque_pixels(mask: UInt8[Tensor, "c h w"]) -> Bool[Tensor, "h w"]:
    """A mask from a picture of it: pixels brighter than half its brightest one, so that 0 and 1 serve as 0 and 255.

    Example:
        >>> opaque_pixels(torch.tensor([[[0, 1], [0, 1]]], dtype=torch.uint8)).tolist()
        [[False, True], [False, True]]
    """
    bright = mask.amax(dim=0).to(torch.int32)
    return 2 * bright > bright.max()


def grid_for(image_side: int) -> tuple[Placement, ...]:
    """The original's grid of 6 x 6 places and 6 sides, scaled from images of 224 pixels to those of another side.

    Sides are cut off to whole pixels as there: 73, 112, 168, 224, 336, 448. Small objects at the far offsets lie
    outside of the image (20 of the 36 places at 73, 11 at 112): such rows change nothing, and count as failures.

    Raises:
        InputError: a side below 1.

    Example:
        >>> grid = grid_for(224)
        >>> len(grid), grid[0], sorted({one.side for one in grid})
        (216, Placement(x=-150, y=-150, side=73), [73, 112, 168, 224, 336, 448])
    """
    if image_side < 1:
        message = f"an image with a side of {image_side} pixels: expected at least 1. Give the side of the input"
        raise InputError(message)
    offsets = [round(offset * image_side / ORIGINAL_SIDE) for offset in ORIGINAL_OFFSETS]
    sides = [max(1, int(image_side * factor)) for factor in ORIGINAL_FACTORS]
    return tuple(Placement(x, y, side) for side, y, x in product(sides, offsets, offsets))


def pasted_data(
    frames: UInt8[Tensor, "n c h w"], patches: Sequence[Patch], pastes: Sequence[Paste], *, seed: int = 0
) -> Data:
    """Pasted pictures as a data set: each is made when it is asked for, so that memory does not grow with their number.

    Args:
        frames: the images, as the network sees them.
        patches: what is pasted.
        pastes: a row each.
        seed: of the shuffled controls; a row's order depends on nothing else but its number.
    """
    digest = hashlib.sha256(repr((tuple(frames.shape), tuple(pastes), seed)).encode())
    for part in (frames, *(part for patch in patches for part in (patch.pixels, patch.mask))):
        digest.update(repr(tuple(part.shape)).encode())
        digest.update(part.contiguous().numpy().tobytes())
    return Data(
        name=f"{len(pastes)} pasted pictures",
        read=Pasting(frames, tuple(patches), tuple(pastes), seed),
        labels=np.full(len(pastes), -1, dtype=np.int64),
        classes=(),
        fingerprint=digest.hexdigest(),
    )


@dataclass(frozen=True)
class Pasting:
    """A reader of pasted pictures (a class, not a closure, so that worker processes can have it)."""

    frames: UInt8[Tensor, "n c h w"]
    patches: tuple[Patch, ...]
    pastes: tuple[Paste, ...]
    seed: int

    def __call__(self, row: int) -> UInt8[Tensor, "c h w"]:
        """One picture."""
        one = self.pastes[row]
        image = self.frames[one.frame]
        if one.patch < 0:
            return image
        patch = scaled(self.patches[one.patch], side=one.placement.side)
        if one.kind == "shuffled":
            patch = shuffled(patch, rng=np.random.default_rng((self.seed, row)))
        elif one.kind == "grey":
            patch = grey(patch)
        return laid(image, patch, x=one.placement.x, y=one.placement.y)


Shape2 = tuple[int, int] | torch.Size


def _shared(
    below: Shape2, above: Shape2, *, x: int, y: int
) -> tuple[tuple[slice, slice, slice], tuple[slice, slice, slice]]:
    """The part of an image that a patch covers, and the part of the patch that covers it; both may be empty."""
    parts: list[tuple[slice, slice]] = []
    for start, size, extent in ((y, below[0], above[0]), (x, below[1], above[1])):
        first = min(max(start, 0), size)
        last = max(min(start + extent, size), first)
        begin = min(max(first - start, 0), extent)
        parts.append((slice(first, last), slice(begin, begin + last - first)))
    (rows, own_rows), (columns, own_columns) = parts
    return (slice(None), rows, columns), (slice(None), own_rows, own_columns)
