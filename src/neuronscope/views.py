"""What a result wants to show, as plain data: the waist between the studies above and every face below.

A study turns its result into a `Page` of blocks. Faces (HTML, pictures, tables, the explorer) draw blocks and know no
study; studies know no drawing. Blocks hold numbers and arrays, never markup: all text is escaped where it is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import UInt8


@dataclass(frozen=True)
class Section:
    """A heading: the blocks that follow belong to it, up to the next one."""

    title: str
    text: str = ""


@dataclass(frozen=True)
class Text:
    """A paragraph. `tone` marks a warning or a finding that is not distinguishable from noise."""

    text: str
    tone: Literal["plain", "note", "warning"] = "plain"


@dataclass(frozen=True)
class Stat:
    """One headline number, with its interval or null beside it."""

    label: str
    value: float | int | str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A sortable table.

    Attributes:
        name: file name (without suffix) under `tables/`, unique on the page.
        frame: the rows. The complete frame is written as CSV; a face may show the first rows only and say so.
        help: column name -> what it means, with unit and range.
        formats: column name -> format specification, as in `.3f`; floats default to four significant digits.
        preset: a column to sort by at first, a leading `-` for descending.
    """

    name: str
    title: str
    frame: pd.DataFrame
    help: Mapping[str, str] = field(default_factory=dict)
    formats: Mapping[str, str] = field(default_factory=dict)
    preset: str = ""
    text: str = ""


@dataclass(frozen=True)
class Axis:
    """A chart axis: what it counts and in which unit of measure; `ticks` name the positions 0, 1, 2, ..."""

    label: str
    unit: str = ""
    ticks: tuple[str, ...] | None = None
    log: bool = False
    limits: tuple[float, float] | None = None

    @property
    def caption(self) -> str:
        """The text at the axis: the label, and the unit in brackets."""
        return f"{self.label} [{self.unit}]" if self.unit else self.label


@dataclass(frozen=True)
class Series:
    """One named set of values of a chart.

    Attributes:
        y: values. For `heatmap` of the chart: shape (rows, columns).
        x: positions; 0, 1, 2, ... when None.
        low, high: interval ends, drawn as a band (lines) or whiskers (bars, points); same shape as `y`.
    """

    name: str
    y: np.ndarray
    x: np.ndarray | None = None
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Chart:
    """A chart of one kind.

    `line`, `bar`, `scatter`: one or more series. `histogram`: `y` holds bin heights, `x` the edges (one more than
    heights). `heatmap`: exactly one series with a two-dimensional `y`; `annotate` prints the numbers in the cells;
    `diverging` centres the colour scale at 0. `box`: `y` has shape (groups, 5): minimum, quartiles, maximum.

    `name` is the file name (without suffix) under `figures/`, unique on the page.
    """

    name: str
    title: str
    kind: Literal["line", "bar", "scatter", "histogram", "heatmap", "box"]
    series: tuple[Series, ...]
    x: Axis
    y: Axis
    value: Axis = field(default_factory=lambda: Axis("value"))
    annotate: bool = False
    diverging: bool = False
    text: str = ""


@dataclass(frozen=True)
class Picture:
    """One small image of a gallery.

    Attributes:
        image: grey (h, w) or colour (h, w, 3), 0 to 255.
        caption: short text below, for example the class and the activation.
        box: a frame to draw, as (top, bottom, left, right) in pixels, ends excluded.
        tone: green or red frame for right and wrong.
    """

    image: UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]
    caption: str = ""
    box: tuple[int, int, int, int] | None = None
    tone: Literal["plain", "good", "bad"] = "plain"


@dataclass(frozen=True)
class Strip:
    """A labelled row of pictures: one unit's top inputs, one digit's maps."""

    label: str
    pictures: Sequence[Picture]
    note: str = ""


@dataclass(frozen=True)
class Gallery:
    """Rows of pictures with labels.

    `name` is the file name under `figures/`. `scale` magnifies each picture by whole steps, without smoothing; `key`
    says what brightness means.
    """

    name: str
    title: str
    strips: Sequence[Strip]
    scale: int = 2
    key: str = ""
    text: str = ""


Block = Section | Text | Stat | Table | Chart | Gallery


@dataclass(frozen=True)
class Page:
    """A title, one line that says what is shown, and the blocks in reading order."""

    title: str
    summary: str
    blocks: tuple[Block, ...]
