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
from jaxtyping import Float, Int, UInt8

from neuronscope.errors import InputError


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
    `dendrogram`: `x` holds the height of each join, `y` has shape (joins, 4): place and height of its first part, place
    and height of its second; leaves are the ticks of the axis `y`, at 0, 1, 2, ...

    `name` is the file name (without suffix) under `figures/`, unique on the page.
    """

    name: str
    title: str
    kind: Literal["line", "bar", "scatter", "histogram", "heatmap", "box", "dendrogram"]
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


@dataclass(frozen=True)
class Panel:
    """Several charts in one figure, in rows from left to right, each with its own title and axes.

    The figure grows with the number of charts: two or three columns fit the width of a page, with more reports scroll.

    Attributes:
        name: file name (without suffix) under `figures/`, unique on the page; the names of the charts are not used.
        charts: at least one.
        columns: charts in a row, at least 1.
        scale: `shared` gives all heat maps one colour scale and one colour bar, so that they can be compared: they must
            then have the same `value` and `diverging`. With `own` each has its own.

    Raises:
        InputError: no charts, no columns, or maps of different quantities on a shared scale.
    """

    name: str
    title: str
    charts: tuple[Chart, ...]
    columns: int
    text: str = ""
    scale: Literal["shared", "own"] = "own"

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        _require(bool(self.charts), f"panel '{self.name}' is empty", "at least one chart", "none", "Add charts to it")
        _require(
            self.columns >= 1,
            f"panel '{self.name}' has no columns",
            "1 or more charts in a row",
            str(self.columns),
            "Set columns to 2, for example",
        )
        maps = [chart for chart in self.charts if chart.kind == "heatmap"] if self.scale == "shared" else []
        for chart in maps[1:]:
            _require(
                (chart.value, chart.diverging) == (maps[0].value, maps[0].diverging),
                f"the heat maps of panel '{self.name}' cannot share a colour scale",
                f"the value and kind of scale of '{maps[0].title}' ({_scale(maps[0])}) in all of them",
                f"{_scale(chart)} in '{chart.title}'",
                "Give them the same value and diverging, or set scale='own'",
            )


@dataclass(frozen=True)
class NetworkColumn:
    """The nodes of one layer in a `Network`, from top to bottom.

    Attributes:
        label: above the column, for example the layer's name.
        nodes: their labels, for example unit numbers; shown where a column has no more than 40 nodes.
        values: of the nodes, 0 to 1, drawn as size; nan is a node without a value, drawn hollow. None: all are.

    Raises:
        InputError: not one value for each node, or a value outside 0 to 1.
    """

    label: str
    nodes: tuple[str, ...]
    values: Float[np.ndarray, " u"] | None = None

    def __post_init__(self) -> None:
        """Refuse values that are not those of the nodes."""
        if self.values is None:
            return
        _require(
            self.values.shape == (len(self.nodes),),
            f"the values of column '{self.label}' are not those of its nodes",
            f"one for each of {len(self.nodes)} nodes",
            f"shape {self.values.shape}",
            "Give one value per node, nan where there is none",
        )
        outside = self.values[(self.values < 0) | (self.values > 1) | np.isinf(self.values)]
        _require(
            not outside.size,
            f"a value of column '{self.label}' has no size",
            "0 to 1, or nan",
            f"{outside[0] if outside.size else ''}",
            "Divide the values by their largest",
        )


@dataclass(frozen=True)
class NetworkLinks:
    """Links from one column of a `Network` to the next, one for each element of the arrays.

    Attributes:
        start: positions of nodes in the column on the left, from 0.
        end: positions of nodes in the column on the right, from 0.
        weight: finite, of any size; 0 is no link. Width and strength of the line are by its size, dashes by its sign.

    Raises:
        InputError: arrays of different lengths, or a weight that is not finite.
    """

    # Not one axis name for all three: that they agree is checked here, at the door.
    start: Int[np.ndarray, " _"]
    end: Int[np.ndarray, " _"]
    weight: Float[np.ndarray, " _"]

    def __post_init__(self) -> None:
        """Refuse links without a start, an end or a weight."""
        shapes = (self.start.shape, self.end.shape, self.weight.shape)
        _require(
            shapes == (self.start.shape,) * 3 and self.start.ndim == 1,
            "links are incomplete",
            "three rows of the same length: start, end, weight",
            f"shapes {shapes[0]}, {shapes[1]} and {shapes[2]}",
            "Give one element of each per link",
        )
        wrong = self.weight[~np.isfinite(self.weight)]
        _require(
            not wrong.size,
            "a link has no weight",
            "finite weights",
            f"{wrong[0] if wrong.size else ''}",
            "Leave such links out",
        )


@dataclass(frozen=True)
class Network:
    """A layered graph: a column of nodes for each layer, and weighted links between neighbouring columns.

    With `form="tree"` the columns are depths, and each node but those of the first column hangs on one other: the roots
    stand on the left, one tree below the other. Values are then written out, as all nodes look alike, and dashes of
    negative links say what a branch excludes.

    Attributes:
        name: file name (without suffix) under `figures/`, unique on the page.
        columns: from left to right, at least one.
        links: `links[i]` leads from column `i` to column `i + 1`: one fewer than columns, or none at all.
        value: what the values of nodes mean.
        weight: what the weights mean. The widest line is the largest weight of all columns, or of `limits` if set, for
            networks that are to be compared.
        form: `layers` is any layered graph; `tree` one or more trees.

    Raises:
        InputError: no columns, links that do not lie between columns, a position that is not in its column, or a node
            of a tree that does not hang on exactly one other.
    """

    name: str
    title: str
    columns: tuple[NetworkColumn, ...]
    links: tuple[NetworkLinks, ...] = ()
    text: str = ""
    value: Axis = field(default_factory=lambda: Axis("value"))
    weight: Axis = field(default_factory=lambda: Axis("weight"))
    form: Literal["layers", "tree"] = "layers"

    def __post_init__(self) -> None:
        """Refuse links that lead nowhere, and nodes of trees that hang on none or several."""
        _require(bool(self.columns), f"network '{self.name}' is empty", "at least one column", "none", "Add columns")
        between = len(self.columns) - 1
        _require(
            len(self.links) in (0, between),
            f"the links of network '{self.name}' do not lie between its columns",
            f"{between}, one for each pair of neighbours" + (", or none" if between else ""),
            str(len(self.links)),
            "Give empty arrays where there are no links",
        )
        for i, links in enumerate(self.links):
            for positions, column in ((links.start, self.columns[i]), (links.end, self.columns[i + 1])):
                outside = positions[(positions < 0) | (positions >= len(column.nodes))]
                _require(
                    not outside.size,
                    f"a link of network '{self.name}' leads out of column '{column.label}'",
                    f"a position among its {len(column.nodes)} nodes, from 0",
                    f"{outside[0] if outside.size else ''}",
                    "Give positions in the column, not unit numbers",
                )
        for links, column in zip(self.links, self.columns[1:] if self.form == "tree" else (), strict=False):
            parents = np.bincount(links.end, minlength=len(column.nodes))
            _require(
                bool((parents == 1).all()),
                f"a node in column '{column.label}' of the tree '{self.name}' does not hang on one other",
                "one link to each node but the roots",
                f"{parents[parents != 1][0] if (parents != 1).any() else ''}",
                "Give a node that is needed twice two places, or set form='layers'",
            )


def _require(sound: bool, wrong: str, expected: str, came: str, advice: str) -> None:  # noqa: FBT001 the one thing checked
    """Raise the four parts of an error unless the condition holds."""
    if not sound:
        message = f"{wrong}: {expected} expected, got {came}. {advice}."
        raise InputError(message)


def _scale(chart: Chart) -> str:
    """The colour scale of a heat map in words."""
    axis = chart.value
    kind = ("diverging " if chart.diverging else "") + ("logarithmic " if axis.log else "")
    return f"{kind}{axis.caption}" + (f" from {axis.limits[0]:g} to {axis.limits[1]:g}" if axis.limits else "")


Block = Section | Text | Stat | Table | Chart | Panel | Network | Gallery


@dataclass(frozen=True)
class Page:
    """A title, one line that says what is shown, and the blocks in reading order."""

    title: str
    summary: str
    blocks: tuple[Block, ...]
