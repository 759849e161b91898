"""Maps of activations as small pictures: brightness that rises with the value, so that it is read in grey too."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt8

from neuronscope.views import Picture, Strip

ACROSS = 8
"""Maps in a row of a montage."""
SIDE, SCALE = 40, 2
"""Longer side of the picture of a single map, and by how much galleries magnify it."""
_RAMP = np.array(
    [
        [68, 1, 84],
        [71, 44, 122],
        [59, 81, 139],
        [44, 113, 142],
        [33, 144, 141],
        [39, 173, 129],
        [92, 200, 99],
        [170, 220, 50],
        [253, 231, 37],
    ],
    dtype=np.float64,
)
"""Viridis: ever lighter from low to high."""
_EMPTY = 255
_GAP = 120  # grey between the maps of a montage, neither a value nor empty
_BAR = (10, 80)  # height and width of the colour bar as it is shown


def coloured(values: Float[np.ndarray, "*s"], low: float, high: float) -> UInt8[np.ndarray, "*s 3"]:
    """Colours from dark (`low` and less) to bright (`high` and more); white where there is no value.

    Example:
        >>> coloured(np.array([0.0, 1.0, np.nan]), 0.0, 1.0).tolist()
        [[68, 1, 84], [253, 231, 37], [255, 255, 255]]
    """
    known = np.isfinite(values)
    reach = high - low if high > low else 1.0
    scaled = np.clip((np.where(known, values, low) - low) / reach, 0.0, 1.0)
    places = np.linspace(0, 1, len(_RAMP))
    colour = np.stack([np.interp(scaled, places, _RAMP[:, channel]) for channel in range(3)], axis=-1)
    return np.asarray(np.rint(np.where(known[..., None], colour, _EMPTY)), dtype=np.uint8)


def shrunk(maps: Float[np.ndarray, "n y x"], most: int) -> Float[np.ndarray, "n h w"]:
    """Maps with sides of at most `most`: means over squares of whole places, where most of them have a value.

    Example:
        >>> shrunk(np.array([[[0.0, 1.0], [2.0, 3.0]]]), 1).tolist()
        [[[1.5]]]
        >>> shrunk(np.array([[[0.0, np.nan], [np.nan, np.nan]]]), 1).tolist()
        [[[nan]]]
    """
    step = -(-max(maps.shape[1:]) // most)
    if step <= 1:
        return maps
    known = np.isfinite(maps)
    rows, columns = (np.arange(0, side, step) for side in maps.shape[1:])

    def squares(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.add.reduceat(np.add.reduceat(values, rows, axis=1), columns, axis=2))

    total, count = squares(np.where(known, maps, 0.0)), squares(known.astype(np.float64))
    whole = squares(np.ones_like(count, shape=(1, *maps.shape[1:])))
    return np.where(2 * count >= whole, total / np.maximum(count, 1.0), np.nan)


def montage(maps: Float[np.ndarray, "n y x"], low: float, high: float) -> UInt8[np.ndarray, "h w 3"]:
    """All maps side by side, `ACROSS` in a row, with thin grey lines between them."""
    count, height, width = maps.shape
    across = min(ACROSS, count)
    down = -(-count // across)
    sheet = np.full((down * (height + 1) - 1, across * (width + 1) - 1, 3), _GAP, dtype=np.uint8)
    colours = coloured(maps, low, high)
    for place in range(count):
        top, left = place // across * (height + 1), place % across * (width + 1)
        sheet[top : top + height, left : left + width] = colours[place]
    return sheet


def map_picture(values: Float[np.ndarray, "y x"], low: float, high: float, *, caption: str) -> Picture:
    """One map as a picture whose longer side is `SIDE`: larger maps averaged, smaller ones with repeated pixels.

    Words of the caption that are joined by underscores stand apart, so that they can stand below each other.
    """
    small = shrunk(values[None], SIDE)[0]
    height, width = (max(1, round(SIDE * side / max(small.shape))) for side in small.shape)
    rows, columns = (
        (np.arange(wanted) + 0.5) * side // wanted for wanted, side in zip((height, width), small.shape, strict=True)
    )
    shown = coloured(small[np.ix_(rows.astype(int), columns.astype(int))], low, high)
    return Picture(shown, caption.replace("_", " "))


def colour_bar(caption: str, *, times: int = 1) -> Strip:
    """A row that explains the colours.

    Args:
        caption: below the bar: what its ends are.
        times: by how much the gallery magnifies its pictures; the bar is as large in all.
    """
    height, width = (max(2, side // times) for side in _BAR)
    bar = coloured(np.broadcast_to(np.linspace(0, 1, width), (height, width)), 0.0, 1.0)
    return Strip("colours", (Picture(bar, caption),))


def top_of(values: Float[np.ndarray, "*s"], *, least: float = 0.0) -> float:
    """A bright end for values from 0: nearly all are below it; 1 where nothing is above 0."""
    known = np.abs(values[np.isfinite(values)])
    top = float(np.quantile(known, 0.995)) if known.size else 0.0
    return max(top, least) or 1.0


def masked(values: Float[np.ndarray, "*s"], told: Bool[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
    """Values where they are told from noise; nan elsewhere."""
    return np.where(told, values, np.nan)
