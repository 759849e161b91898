"""Galleries as pictures: rows of small images with labels, captions and frames, magnified without smoothing.

They are pasted together pixel by pixel: a gallery has thousands of parts, which a plotting library would place one by
one as things that can move.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neuronscope import Gallery, Picture, Strip
from neuronscope.faces.figures.png import write_png
from neuronscope.faces.figures.style import COLOURS, THEMES, Theme, ThemeName, clean, short

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

PAGE_WIDTH = 1300
"""Widest row of a gallery, in layout pixels."""
DENSITY = 2
"""Pixels of the file per layout pixel: whole, for square magnified pixels, and more than 1, for crisp text."""
GALLERY_DPI = 100
"""Layout pixels per inch, by which sizes of text in points become pixels."""
ASCENT = 0.76
"""Height of tall letters of the font, as a fraction of its size."""


def draw_gallery(gallery: Gallery, *, theme: ThemeName = "light", most_rows: int = 120) -> Image.Image:
    """A gallery as an RGB image: labelled rows of pictures, magnified without smoothing, 0 black to 255 white.

    Long rows are wrapped, and short rows stand side by side in columns. A picture is magnified by twice the `scale` of
    the gallery, which is meant for screens with two dots per pixel.

    Args:
        gallery: what to draw; no more than `most_rows` strips, with a note that says how many there are.
        theme: ink on white, or light ink on a near-black ground.
        most_rows: at least 1; a picture file of thousands of rows cannot be opened by most viewers.

    Example:
        >>> strip = Strip("conv1:0", [Picture(np.zeros((8, 8), dtype=np.uint8), "digit 3")])
        >>> draw_gallery(Gallery("top", "Top inputs", [strip])).size
        (1120, 194)
    """
    strips = list(gallery.strips[:most_rows])
    grid = _grid(gallery, strips)
    heights = [math.ceil(max(len(strip.pictures), 1) / grid.across) * grid.row(strip) + 8 for strip in strips]
    columns = _balance(heights, grid.columns)
    width = max(grid.block * len(columns) + 24, 560)
    heading = textwrap.wrap(clean(gallery.title), width // 9)
    notes = textwrap.wrap(clean(" · ".join(_notes(gallery, shown=len(strips)))), width // 6)
    top = 14 + 18 * max(len(heading), 1) + 13 * len(notes) + 12
    height = top + max((sum(heights[i] for i in column) for column in columns), default=20) + 8
    sheet = _sheet(width, height, THEMES[theme])
    sheet.write(heading, (14, 12), size=11, bold=True)
    sheet.write(notes, (14, 14 + 18 * max(len(heading), 1)), size=7.5, strength=0.8)
    for number, column in enumerate(columns):
        y = top
        for i in column:
            _draw_strip(sheet, strips[i], grid, corner=(14 + number * grid.block, y))
            y += heights[i]
    return sheet.image


def save_gallery(gallery: Gallery, path: Path) -> Path:
    """A gallery as a PNG file; the same gallery gives the same bytes.

    Raises:
        OSError: the file cannot be written.
    """
    return write_png(draw_gallery(gallery), path, dpi=DENSITY * GALLERY_DPI)


@dataclass(frozen=True)
class _Sheet:
    """An image to draw on in layout pixels, and the theme's colours."""

    image: Image.Image
    pen: ImageDraw.ImageDraw
    theme: Theme

    def write(self, lines: Sequence[str], at: tuple[int, int], *, size: float, bold: bool = False,
              strength: float = 1.0, spacing: float = 1.17) -> None:  # fmt: skip
        """Lines of text below a corner; `size` in points, `spacing` in sizes, `strength` 0 (ground) to 1 (ink)."""
        font = _font(size, bold=bold)
        colour = self.mixed(strength)
        x, y = at[0] * DENSITY, at[1] * DENSITY + ASCENT * font.size
        for i, line in enumerate(lines):
            # On whole lines of pixels letters are sharp.
            self.pen.text((x, round(y + i * spacing * font.size)), line, fill=colour, font=font, anchor="ls")

    def paste(self, picture: Picture, at: tuple[int, int], scale: int) -> None:
        """A picture magnified by whole steps."""
        from PIL import Image

        image = Image.fromarray(np.ascontiguousarray(picture.image))
        size = (image.width * scale * DENSITY, image.height * scale * DENSITY)
        self.image.paste(image.resize(size, Image.Resampling.NEAREST), (at[0] * DENSITY, at[1] * DENSITY))

    def frame(self, at: tuple[int, int], size: tuple[int, int], *, colour: str, line: int, grow: int = 0) -> None:
        """A rectangle of lines `line` file pixels wide, inside the edges unless it is to `grow` beyond them."""
        left, top = (place * DENSITY - grow for place in at)
        right, bottom = ((place + extent) * DENSITY + grow - 1 for place, extent in zip(at, size, strict=True))
        if right >= left and bottom >= top:
            self.pen.rectangle((left, top, right, bottom), outline=colour, width=line)

    def mixed(self, strength: float) -> str:
        """The colour between ground (0) and ink (1)."""
        return _mixed(self.theme.ground, self.theme.ink, strength)


def _sheet(width: int, height: int, theme: Theme) -> _Sheet:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (width * DENSITY, height * DENSITY), theme.ground)
    return _Sheet(image, ImageDraw.Draw(image), theme)


@cache
def _font(size: float, *, bold: bool) -> ImageFont.FreeTypeFont:
    """The font that charts use too, at a size in points."""
    import matplotlib as mpl
    from PIL import ImageFont

    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")
    # Not every build of Pillow has the other layout engine: this one gives the same picture everywhere.
    return ImageFont.truetype(path, size * GALLERY_DPI * DENSITY / 72, layout_engine=ImageFont.Layout.BASIC)


@cache
def _mixed(ground: str, ink: str, strength: float) -> str:
    pairs = ((int(ground[i : i + 2], 16), int(ink[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(low + strength * (high - low)):02x}" for low, high in pairs)


@dataclass(frozen=True)
class _Grid:
    """Sizes of a drawn gallery, in pixels; `across` pictures fit beside the label before a row wraps."""

    label: int
    cell: int
    picture: int
    lines: int
    across: int
    columns: int
    scale: int

    def height(self, strip: Strip) -> int:
        """Of the highest picture of a strip; a strip without pictures is as high as the highest of the gallery."""
        return max((picture.image.shape[0] * self.scale for picture in strip.pictures), default=self.picture)

    def row(self, strip: Strip) -> int:
        """Height of one line of a strip's pictures with captions and a gap."""
        return self.height(strip) + 11 * self.lines + 10

    @property
    def block(self) -> int:
        """Width of one strip."""
        return self.label + self.across * self.cell + 18


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
    return _Grid(label, cell, high, lines, across, columns, gallery.scale)


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


def _draw_strip(sheet: _Sheet, strip: Strip, grid: _Grid, *, corner: tuple[int, int]) -> None:
    left, top = corner
    label = textwrap.wrap(short(strip.label, most=72), max(8, (grid.label - 14) // 7))[:3]
    sheet.write(label, (left, top + 2), size=8.5)
    note = textwrap.wrap(clean(strip.note), max(8, (grid.label - 8) // 5))[:3]
    sheet.write(note, (left, top + 6 + 13 * max(len(label), 1)), size=7, strength=0.75)
    most = max(6, int((grid.cell - 4) / 5.4))
    row, below, scale = grid.row(strip), grid.height(strip) + 3, grid.scale
    for i, picture in enumerate(strip.pictures):
        at = (left + grid.label + (i % grid.across) * grid.cell, top + (i // grid.across) * row)
        height, width = picture.image.shape[0] * scale, picture.image.shape[1] * scale
        sheet.paste(picture, at, scale)
        if picture.tone == "plain":
            sheet.frame(at, (width, height), colour=sheet.mixed(0.4), line=1, grow=1)
        else:
            sheet.frame(at, (width, height), colour=COLOURS[2 if picture.tone == "good" else 1], line=4, grow=2)
        if picture.box is not None:
            upper, lower, first, last = (edge * scale for edge in picture.box)
            place, extent = (at[0] + first, at[1] + upper), (last - first, lower - upper)
            # Dark on both sides of light: one of them is seen on any picture.
            sheet.frame(place, extent, colour="#000000", line=6, grow=3)
            sheet.frame(place, extent, colour="#ffd23f", line=3, grow=1)
        text = _caption(picture)
        caption = [text] if len(text) <= most else textwrap.wrap(text, most)
        sheet.write(caption[: max(grid.lines, 1)], (at[0], at[1] + below), size=6.8, spacing=1.05)
