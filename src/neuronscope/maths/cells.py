"""Concept masks on a 7 x 7 grid, one 64-bit word each: coarse enough that whole data sets fit into memory.

Bit 7 * row + column of a word is the cell (row, column). Union, intersection and difference of masks are `|`, `&` and
`& ~` of words, areas are `np.bitwise_count`; growing and closeness are shifts. An image's mask takes 8 bytes.

The rules are those of Harth 2022, "Understanding Individual Neurons of ResNet Through Improved Compositional Formulas",
as its text gives them. The released loader differs: its block threshold computes its result and returns nothing, so
that every label that occurs anywhere in an image covers all of it. That is not repeated here.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Bool, Int, UInt64

from neuronscope.errors import InputError

CELLS = 7
"""Cells along a side of the grid."""

FULL = np.uint64(2 ** (CELLS * CELLS) - 1)
"""The word with every cell on."""

BLOCK_THRESHOLD = 100
"""Labelled pixels, of the 256 of a block of a 112 x 112 mask, that turn a cell on."""

EXPANSION = 3
"""Neighbours that must be on for `expanded` to turn a cell on."""

Downsampling = Literal["blocks", "nearest"]
"""How a pixel mask becomes cells: by counting the labelled pixels in each block, or by the pixel at the middle of each
(which is what the original's `imresize` comes to: PIL has no other way with binary pictures)."""


def to_words(cells: Bool[np.ndarray, "*n 7 7"]) -> UInt64[np.ndarray, "*n"]:
    """Masks of cells as words.

    Example:
        >>> cells = np.zeros((7, 7), dtype=bool)
        >>> cells[0, 2] = cells[1, 0] = True
        >>> int(to_words(cells))
        132
    """
    bits = np.uint64(1) << np.arange(CELLS * CELLS, dtype=np.uint64)
    flat = cells.reshape(*cells.shape[:-2], CELLS * CELLS)
    words: UInt64[np.ndarray, "*n"] = np.asarray(np.where(flat, bits, np.uint64(0)).sum(axis=-1, dtype=np.uint64))
    return words


def from_words(words: UInt64[np.ndarray, "*n"]) -> Bool[np.ndarray, "*n 7 7"]:
    """Words as masks of cells: the inverse of `to_words`."""
    bits = np.arange(CELLS * CELLS, dtype=np.uint64)
    cells: Bool[np.ndarray, "*n cells"] = ((words[..., None] >> bits) & np.uint64(1)).astype(bool)
    return cells.reshape(*words.shape, CELLS, CELLS)


def block_counts(mask: Bool[np.ndarray, "*n h w"]) -> Int[np.ndarray, "*n 7 7"]:
    """How many pixels are on in each of 7 x 7 equal blocks.

    Raises:
        InputError: height or width are no multiple of 7.
    """
    *outer, height, width = mask.shape
    _expect_blocks(height, width)
    blocks = mask.reshape(*outer, CELLS, height // CELLS, CELLS, width // CELLS)
    counts: Int[np.ndarray, "*n 7 7"] = blocks.sum(axis=(-3, -1), dtype=np.int64)
    return counts


def downsampled(
    mask: Bool[np.ndarray, "*n h w"], *, rule: Downsampling = "blocks", threshold: int = BLOCK_THRESHOLD
) -> UInt64[np.ndarray, "*n"]:
    """Pixel masks as words.

    Args:
        mask: height and width must be multiples of 7 for `blocks`.
        rule: see `Downsampling`.
        threshold: fewest pixels of a block that turn its cell on, at least 1; without meaning for `nearest`. The
            default is meant for masks of 112 x 112.

    Raises:
        InputError: a threshold below 1 or above the pixels of a block, or a size that has no equal blocks.

    Example:
        >>> corner = np.zeros((112, 112), dtype=bool)
        >>> corner[:10, :10] = True
        >>> int(downsampled(corner)), int(downsampled(corner, threshold=101))
        (1, 0)
    """
    *_, height, width = mask.shape
    if rule == "nearest":
        rows, columns = (((2 * np.arange(CELLS) + 1) * size) // (2 * CELLS) for size in (height, width))
        middles: Bool[np.ndarray, "*n 7 7"] = mask[..., rows[:, None], columns[None, :]]
        return to_words(middles)
    _expect_threshold(threshold, height, width)
    return to_words(block_counts(mask) >= threshold)


def label_words(
    maps: Int[np.ndarray, "layers h w"],
    *,
    whole: Int[np.ndarray, "m"],
    rule: Downsampling = "blocks",
    threshold: int = BLOCK_THRESHOLD,
) -> tuple[Int[np.ndarray, "k"], UInt64[np.ndarray, "k"]]:
    """The labels of one image and their words, ascending by label; labels that turn no cell on are left out.

    Every layer is downsampled by itself, then the layers are joined; labels of the whole image turn every cell on.

    Args:
        maps: label number of each pixel, 0 for none.
        whole: labels of the whole image; 0 is left out.
        rule: see `Downsampling`.
        threshold: see `downsampled`.

    Raises:
        InputError: see `downsampled`.

    Example:
        >>> maps = np.zeros((1, 14, 14), dtype=np.int64)
        >>> maps[0, :2, :4] = 9
        >>> labels, words = label_words(maps, whole=np.array([3]), threshold=4)
        >>> labels.tolist(), words.tolist() == [int(FULL), 3]
        ([3, 9], True)
    """
    found: dict[int, int] = {}
    for layer in maps:
        for label in np.unique(layer[layer > 0]).tolist():
            found[label] = found.get(label, 0) | int(downsampled(layer == label, rule=rule, threshold=threshold))
    found.update({label: int(FULL) for label in whole.tolist() if label > 0})
    labels = sorted(label for label, word in found.items() if word)
    return np.array(labels, dtype=np.int64), np.array([found[label] for label in labels], dtype=np.uint64)


def expanded(words: UInt64[np.ndarray, "*n"], *, least: int = EXPANSION) -> UInt64[np.ndarray, "*n"]:
    """Masks grown by the cells that have at least `least` cells of the original mask among their 8 neighbours.

    Neighbours beyond the border do not exist. Cells that are on stay on.

    Raises:
        InputError: `least` is not 1 to 8.

    Example:
        >>> row = np.array(0b111, dtype=np.uint64)
        >>> [bin(int(expanded(row, least=least)) >> 7) for least in (1, 2, 3)]
        ['0b1111', '0b111', '0b10']
    """
    if not 1 <= least <= 8:  # noqa: PLR2004 neighbours
        message = f"least is {least}: expected 1 to 8 neighbours"
        raise InputError(message)
    # A four-digit binary counter for every cell at once: word `digit` holds that digit of all counts.
    counter = [np.zeros_like(words) for _ in range(4)]
    for y in (-1, 0, 1):
        for x in (-1, 0, 1):
            if (y, x) != (0, 0):
                carry = _shifted(words, y=y, x=x)
                for digit, value in enumerate(counter):
                    counter[digit], carry = value ^ carry, value & carry
    enough = np.zeros_like(words)
    for count in range(least, 9):
        same = np.full_like(words, FULL)
        for digit, value in enumerate(counter):
            same = same & (value if count >> digit & 1 else ~value)
        enough = enough | same
    return np.asarray(words | enough)


def neighbourhood(words: UInt64[np.ndarray, "*n"], *, reach: int = 5) -> UInt64[np.ndarray, "*n"]:
    """The cells that have a cell of the mask within a squared distance of `reach`, those of the mask included.

    With the default these are the 21 cells of a 5 x 5 window without its corners: `A CLOSE TO B` is
    `A & neighbourhood(B)`.

    Args:
        words: the masks.
        reach: squared distance in cells, at least 0.

    Raises:
        InputError: `reach` is negative.

    Example:
        >>> middle = np.uint64(1) << np.uint64(24)
        >>> int(np.bitwise_count(neighbourhood(np.array(middle))))
        21
    """
    if reach < 0:
        message = f"reach is {reach}: expected a squared distance in cells, at least 0"
        raise InputError(message)
    far = min(int(reach**0.5), CELLS - 1)
    found = np.zeros_like(words)
    for y in range(-far, far + 1):
        for x in range(-far, far + 1):
            if y * y + x * x <= reach:
                found = np.asarray(found | _shifted(words, y=y, x=x))
    return found


def _shifted(words: UInt64[np.ndarray, "*n"], *, y: int, x: int) -> UInt64[np.ndarray, "*n"]:
    """Masks moved down by `y` and to the right by `x` cells; what leaves the grid is gone."""
    stays = sum(
        1 << (CELLS * row + column) for row in range(CELLS) for column in range(CELLS) if 0 <= column + x < CELLS
    )
    kept = words & np.uint64(stays)
    steps = CELLS * y + x
    moved = kept << np.uint64(steps) if steps >= 0 else kept >> np.uint64(-steps)
    return np.asarray(moved & FULL)  # numpy makes scalars of arrays without axes


def _expect_blocks(height: int, width: int) -> None:
    """Refuse sizes that have no equal blocks."""
    if height % CELLS or width % CELLS or 0 in (height, width):
        message = (
            f"masks are {height} x {width} (height x width): expected multiples of {CELLS}, such as 112 x 112, for "
            "blocks of one size. Load the concepts with such a side"
        )
        raise InputError(message)


def _expect_threshold(threshold: int, height: int, width: int) -> None:
    """Refuse thresholds that every block, or none, meets."""
    _expect_blocks(height, width)
    most = (height // CELLS) * (width // CELLS)
    if not 1 <= threshold <= most:
        message = (
            f"threshold is {threshold}: expected 1 to {most}, the pixels of a block. Scale it with the masks' side"
        )
        raise InputError(message)
