"""Galleries as figures: rows of small pictures with labels, captions and frames, magnified without smoothing."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from neuronscope import Gallery, Picture, Strip
from neuronscope.faces.figures.style import COLOURS, THEMES, Theme, ThemeName, clean, short, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAGE_WIDTH = 1300
"""Widest row of a gallery, in pixels of the picture at 100 dots per inch."""
GALLERY_DPI = 100


def draw_gallery(gallery: Gallery, *, theme: ThemeName = "light", most_rows: int = 120) -> Figure:
    """A gallery as a matplotlib figure: labelled rows of pictures, magnified without smoothing, 0 black to 255 white.

    Long rows are wrapped, and short rows stand side by side in columns.

    Args:
        gallery: what to draw; no more than `most_rows` strips, with a note that says how many there are.
        theme: ink on white, or light ink on a near-black ground.
        most_rows: at least 1; a picture file of thousands of rows cannot be opened by most viewers.

    Example:
        >>> strip = Strip("conv1:0", [Picture(np.zeros((8, 8), dtype=np.uint8), "digit 3")])
        >>> len(draw_gallery(Gallery("top", "Top inputs", [strip])).axes[0].images)
        1
    """
    with style(THEMES[theme]):
        return compose_gallery(gallery, THEMES[theme], most_rows=most_rows)


@dataclass(frozen=True)
class _Grid:
    """Sizes of a drawn gallery, in pixels; `across` pictures fit beside the label before a row wraps."""

    label: int
    cell: int
    picture: int
    lines: int
    across: int
    columns: int

    @property
    def row(self) -> int:
        """Height of one line of pictures with captions and a gap."""
        return self.picture + 11 * self.lines + 10

    @property
    def block(self) -> int:
        """Width of one strip."""
        return self.label + self.across * self.cell + 18


def compose_gallery(gallery: Gallery, theme: Theme, *, most_rows: int) -> Figure:
    """The figure of a gallery in the settings of `style`."""
    from matplotlib.figure import Figure

    strips = list(gallery.strips[:most_rows])
    grid = _grid(gallery, strips)
    heights = [math.ceil(max(len(strip.pictures), 1) / grid.across) * grid.row + 8 for strip in strips]
    columns = _balance(heights, grid.columns)
    width = max(grid.block * len(columns) + 24, 560)
    heading = textwrap.wrap(clean(gallery.title), width // 9) or [""]
    note = "\n".join(textwrap.wrap(clean(" · ".join(_notes(gallery, shown=len(strips)))), width // 6))
    top = 14 + 18 * len(heading) + (13 * (note.count("\n") + 1) if note else 0) + 12
    height = top + max((sum(heights[i] for i in column) for column in columns), default=20) + 8
    figure = Figure((width / GALLERY_DPI, height / GALLERY_DPI), dpi=GALLERY_DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    # Limits first, and fixed: otherwise every picture makes matplotlib search for them anew.
    axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    axes.text(14, 12, "\n".join(heading), va="top", fontsize=11, fontweight="bold")
    axes.text(14, 14 + 18 * len(heading), note, va="top", fontsize=7.5, alpha=0.8)
    for number, column in enumerate(columns):
        y = top
        for i in column:
            _draw_strip(axes, strips[i], grid, gallery.scale, theme, corner=(14 + number * grid.block, y))
            y += heights[i]
    return figure


def _notes(gallery: Gallery, *, shown: int) -> list[str]:
    notes = [text for text in (gallery.key, gallery.text) if text]
    if shown < len(gallery.strips):
        notes.append(f"the first {shown} of {len(gallery.strips)} rows")
    return notes


def _grid(gallery: Gallery, strips: Sequence[Strip]) -> _Grid:
    """Sizes that fit the largest picture, the longest caption and the longest label."""
    pictures = [picture for strip in strips for picture in strip.pictures]
    size = max((max(picture.image.shape[:2]) for picture in pictures), default=8) * gallery.scale
    high = max((picture.image.shape[0] for picture in pictures), default=8) * gallery.scale
    longest = max((len(_caption(picture)) for picture in pictures), default=0)
    cell = max(size, min(longest * 6, 78)) + 8
    lines = min(3, math.ceil(longest * 5.6 / (cell - 6))) if longest else 0
    label = min(max((len(strip.label) for strip in strips), default=0) * 7 + 16, 190)
    most = max((len(strip.pictures) for strip in strips if strip.pictures), default=1)
    across = max(1, min(most, (PAGE_WIDTH - label) // cell))
    across = math.ceil(most / math.ceil(most / across))
    columns = max(1, min(PAGE_WIDTH // (label + across * cell + 18), math.ceil(len(strips) / 4)))
    return _Grid(label, cell, high, lines, across, columns)


def _balance(heights: Sequence[int], columns: int) -> list[list[int]]:
    """Indices in reading order, cut into columns of about equal height."""
    share = sum(heights) / columns
    cut: list[list[int]] = [[]]
    filled = 0.0
    for i, height in enumerate(heights):
        if cut[-1] and filled + height / 2 > share * len(cut) and len(cut) < columns:
            cut.append([])
        cut[-1].append(i)
        filled += height
    return cut


def _caption(picture: Picture) -> str:
    """The caption, with the tone as a sign that is readable without colour."""
    return clean({"plain": "", "good": "✓ ", "bad": "✗ "}[picture.tone] + picture.caption).strip()


def _draw_strip(axes: Axes, strip: Strip, grid: _Grid, scale: int, theme: Theme, *, corner: tuple[int, int]) -> None:
    from matplotlib.patches import Rectangle

    left, top = corner
    label = "\n".join(textwrap.wrap(short(strip.label, most=72), max(8, (grid.label - 10) // 6))[:3])
    axes.text(left, top + 2, label, va="top", fontsize=8.5)
    note = "\n".join(textwrap.wrap(clean(strip.note), max(8, (grid.label - 8) // 5))[:3])
    axes.text(left, top + 6 + 13 * (label.count("\n") + 1), note, va="top", fontsize=7, alpha=0.75)
    for i, picture in enumerate(strip.pictures):
        x = left + grid.label + (i % grid.across) * grid.cell
        y = top + (i // grid.across) * grid.row
        height, width = (size * scale for size in picture.image.shape[:2])
        axes.imshow(
            _coloured(picture.image), extent=(x, x + width, y + height, y), interpolation="nearest", aspect="auto"
        )
        frame = {"plain": (theme.ink, 0.25), "good": COLOURS[2], "bad": COLOURS[1]}[picture.tone]
        thick = 0.6 if picture.tone == "plain" else 1.6
        axes.add_artist(Rectangle((x, y), width, height, fill=False, edgecolor=frame, linewidth=thick))
        if picture.box is not None:
            upper, lower, first, last = (edge * scale for edge in picture.box)
            place, across, down = (x + first, y + upper), last - first, lower - upper
            # Two lines, dark under light: one of them is seen on any picture.
            axes.add_artist(Rectangle(place, across, down, fill=False, edgecolor="#000000", linewidth=2.2))
            axes.add_artist(Rectangle(place, across, down, fill=False, edgecolor="#ffd23f", linewidth=1.1))
        caption = "\n".join(textwrap.wrap(_caption(picture), max(6, int((grid.cell - 4) / 5.4)))[: max(grid.lines, 1)])
        axes.text(x, y + grid.picture + 3, caption, va="top", fontsize=6.8, linespacing=1.05)


def _coloured(image: UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Grey pictures as colour ones, so that 0 is black and 255 white whatever the picture holds."""
    if image.ndim == 2:  # noqa: PLR2004 dimensions
        return np.asarray(np.repeat(image[..., None], 3, axis=2))
    return image
