"""One chart as a figure: its size, title, axes, ticks and legend. What is inside the axes is drawn by `marks`.

Width and height follow from what is shown, so that no label is clipped or overlaps the next.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neuronscope import Axis, Chart
from neuronscope.faces.figures.arrange import TITLE_GAP, arrange
from neuronscope.faces.figures.marks import DRAWERS, draw_bar, finite, lacks_cells, name_of
from neuronscope.faces.figures.style import (
    CHARACTER,
    THEMES,
    Theme,
    ThemeName,
    clean,
    fonts_may_lack_glyphs,
    power,
    short,
    style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.text import Text

WIDEST, TALLEST = 13.0, 9.5
"""No chart is larger, in inches: with more rows or columns, ticks are thinned and cells become narrower."""
MOST_TICKS = 40
TITLE_LINE = 0.19
"""Height of a line of the title, in inches."""
RESOLUTION = 180
"""Dots per inch of PNG files, and of pictures inside drawings (dense scatter plots, colour bars)."""
LEGEND_LINE = 0.2
"""Height of a line of a legend, in inches."""
TITLE_ID, GROUND_ID = "title", "ground"
"""Names of those parts in SVG, by which a page finds them: it has a caption and a colour of its own."""


@dataclass(frozen=True)
class Sizes:
    """From which the size of a chart follows, in inches.

    Attributes:
        base: width and height of an ordinary chart.
        smallest_map: width and height of a heat map, at least.
        cell: width and height of a cell of a heat map.
        annotated: the same where numbers stand in the cells.
        beside_map: what a heat map takes to its right: a colour bar with ticks and caption.
    """

    base: tuple[float, float] = (5.4, 3.4)
    smallest_map: tuple[float, float] = (4.6, 2.6)
    cell: tuple[float, float] = (0.24, 0.22)
    annotated: tuple[float, float] = (0.5, 0.34)
    beside_map: float = 1.7


ALONE = Sizes()


@dataclass(frozen=True)
class Layout:
    """Size in inches, without title and legend, and how tick labels are laid out."""

    size: tuple[float, float]
    x_step: int
    y_step: int
    x_turn: float


def draw_chart(chart: Chart, *, theme: ThemeName = "light") -> Figure:
    """A chart as a matplotlib figure with title, axis captions (label and unit) and, for several series, a legend.

    Args:
        chart: what to draw. Values that are not finite leave a gap; in heat maps their cells are hatched.
        theme: ink on white, or light ink on a near-black ground.

    Example:
        >>> from neuronscope import Series
        >>> loss = Chart("loss", "Loss", "line", (Series("train", np.array([2.0, 1.0])),), Axis("epoch"), Axis("loss"))
        >>> draw_chart(loss).axes[0].get_ylabel()
        'loss'
    """
    with style(THEMES[theme]):
        return compose_chart(chart, THEMES[theme])


def describe_chart(chart: Chart) -> str:
    """A chart in one sentence: see `describe`."""
    kinds = {"line": "Line chart", "bar": "Bar chart", "scatter": "Scatter plot", "histogram": "Histogram"}
    kinds |= {"heatmap": "Heat map", "box": "Box plot", "dendrogram": "Dendrogram"}
    shown = {"heatmap": chart.value, "dendrogram": chart.x}.get(chart.kind, chart.y)
    against = f"{chart.y.label} and {chart.x.label}" if chart.kind == "heatmap" else chart.x.label
    sentence = f"{kinds[chart.kind]} of {shown.caption} against {chart.y.label if shown is chart.x else against}"
    names = [series.name for series in chart.series if series.name]
    if names:
        sentence += f"; series: {', '.join(names[:8])}" + (f" and {len(names) - 8} more" if len(names) > 8 else "")  # noqa: PLR2004 said in the text
    heights = [series.x if chart.kind == "dendrogram" else series.y for series in chart.series]
    values = np.concatenate([finite(np.asarray(one)) for one in heights if one is not None] or [np.empty(0)])
    if values.size:
        sentence += f"; values from {values.min():.4g} to {values.max():.4g}"
    return clean(sentence + ".")


def compose_chart(chart: Chart, theme: Theme) -> Figure:
    """The figure of a chart in the settings of `style`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layout = plan(chart)
    figure = Figure(full_size(chart, layout), dpi=RESOLUTION)
    canvas = FigureCanvasAgg(figure)
    figure.patch.set_gid(GROUND_ID)
    axes, heading = draw_in(figure, chart, layout, theme)
    heading.set_gid(TITLE_ID)
    if chart.kind == "heatmap":
        draw_bar(figure, axes, chart)
    with fonts_may_lack_glyphs():
        arrange(figure, axes, heading, canvas.get_renderer())  # type: ignore[no-untyped-call]
    return figure


def draw_in(figure: Figure | SubFigure, chart: Chart, layout: Layout, theme: Theme) -> tuple[Axes, Text]:
    """A chart in an empty figure or cell, without a colour bar; its axes and their title have no place yet."""
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    heading = axes.set_title("\n".join(title_lines(chart.title, layout.size[0])), pad=0, va="bottom")
    DRAWERS[chart.kind](axes, chart, theme)
    _dress(axes, chart, layout)
    if chart.kind != "heatmap":
        along = {"bar": "y", "histogram": "y", "box": "y", "dendrogram": "x"}.get(chart.kind, "both")
        axes.grid(visible=True, axis=along)  # type: ignore[arg-type]  # a name of axes, all of them
        if not any(finite(np.asarray(series.y)).size for series in chart.series):
            axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", va="center")
        explain(figure, axes, layout.size[0])
    return axes, heading


def chart_title_height(chart: Chart) -> float:
    """How much higher a figure is for the title of its chart, in inches."""
    return title_height(chart.title, plan(chart).size[0])


def title_height(title: str, width: float) -> float:
    """Height of a title and the gap below it where the figure is `width` wide, in inches; 0 without a title."""
    lines = title_lines(title, width)
    return round(TITLE_GAP + TITLE_LINE * len(lines), 3) if lines else 0.0


def title_lines(title: str, width: float) -> list[str]:
    """A title in lines that fit a width in inches."""
    return textwrap.wrap(clean(title), int(width * 10.5))


def full_size(chart: Chart, layout: Layout) -> tuple[float, float]:
    """Width and height of a chart with its title and legend, in inches."""
    width, height = layout.size
    gaps = LEGEND_LINE if lacks_cells(chart) else 0.0
    return width, height + title_height(chart.title, width) + gaps + legend_height(chart, width)


def legend_names(chart: Chart) -> list[str]:
    """What is told apart in the legend of a chart: nothing where there is one series, or a map."""
    several = chart.kind != "heatmap" and len(chart.series) > 1
    return [name_of(series, i) for i, series in enumerate(chart.series)] if several else []


def legend_height(chart: Chart, width: float) -> float:
    """Height of the legend of a chart with several series below a figure of a width, in inches."""
    names = legend_names(chart)
    return LEGEND_LINE * _legend_lines(names, width)[1] if names else 0.0


def plan(chart: Chart, sizes: Sizes = ALONE) -> Layout:
    """Size, and every how many-th tick label is shown, so that none overlaps and none is clipped."""
    columns, rows = _counts(chart)
    x_names = [short(name) for name in chart.x.ticks or ()]
    y_names = [short(name) for name in chart.y.ticks or ()]
    longest_x = max((len(name) for name in x_names), default=4) * CHARACTER
    longest_y = max((len(name) for name in y_names), default=4) * CHARACTER
    width, height = sizes.base
    if chart.kind == "heatmap":
        across, down = sizes.annotated if chart.annotate else sizes.cell
        width = min(max(longest_y + sizes.beside_map + columns * across, sizes.smallest_map[0]), WIDEST)
        height = min(max(1.1 + rows * down, sizes.smallest_map[1]), TALLEST)
    elif x_names:
        each = 0.2 if chart.kind in ("line", "scatter") else 0.16 + 0.08 * len(chart.series)
        width = min(max(longest_y + 1.1 + columns * each, width), WIDEST)
    if chart.kind == "dendrogram":  # every leaf has its name
        width, height = max(width, longest_y + 4.6), max(1.1 + 0.17 * len(y_names), height)
    elif y_names and chart.kind != "heatmap":
        height = min(max(1.1 + 0.2 * len(y_names), height), TALLEST)
    room = width - longest_y - (sizes.beside_map + 0.2 if chart.kind == "heatmap" else 1.1)
    flat = len(x_names) * (longest_x + 0.1) <= room
    x_step, y_step = 1, 1
    turn = 0.0
    if x_names and not flat:
        x_step = max(math.ceil(len(x_names) / MOST_TICKS), math.ceil(len(x_names) * 0.19 / room))
        # Slanted labels reach to the left by as much as they go down: only with room between them.
        turn = 40.0 if len(x_names) <= MOST_TICKS // 2 else 90.0
        height = min(height + longest_x * (0.75 if turn < 90 else 1.0), TALLEST + 1.0)  # noqa: PLR2004 an angle
    if y_names and chart.kind != "dendrogram":
        y_step = max(1, math.ceil(len(y_names) / MOST_TICKS), math.ceil(len(y_names) * 0.155 / max(height - 1.0, 1.0)))
    return Layout((round(width, 2), round(height, 2)), x_step, y_step, turn)


def _counts(chart: Chart) -> tuple[int, int]:
    """Columns and rows of a chart, each at least 1."""
    columns = len(chart.x.ticks or ())
    rows = len(chart.y.ticks or ())
    if chart.kind == "heatmap" and chart.series:
        shape = np.asarray(chart.series[0].y).shape
        rows, columns = max(rows, shape[0]), max(columns, shape[1])
    return max(columns, 1), max(rows, 1)


def _dress(axes: Axes, chart: Chart, layout: Layout) -> None:
    """Captions, scales, limits and ticks."""
    axes.set_xlabel(clean(chart.x.caption))
    axes.set_ylabel(clean(chart.y.caption))
    # Rows and columns of a map are counted: they have no scale.
    for which, axis in (("x", chart.x), ("y", chart.y)) if chart.kind != "heatmap" else ():
        _scale(axes, which, axis)
    if chart.x.ticks is not None:
        at = range(0, len(chart.x.ticks), layout.x_step)
        slanted = 0 < layout.x_turn < 90  # noqa: PLR2004 an angle
        axes.set_xticks(list(at), [short(chart.x.ticks[i]) for i in at], rotation=layout.x_turn)
        if slanted:
            for label in axes.get_xticklabels():
                label.set(ha="right", va="top", rotation_mode="anchor")
    if chart.y.ticks is not None:
        at = range(0, len(chart.y.ticks), layout.y_step)
        axes.set_yticks(list(at), [short(chart.y.ticks[i]) for i in at])
    if chart.kind == "heatmap":
        # No marks at the ticks of a map: its cells show where they are.
        axes.tick_params(bottom=False, left=False)


def _scale(axes: Axes, which: str, axis: Axis) -> None:
    """Logarithmic scale and limits of one axis, where the data allow them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    target = axes.xaxis if which == "x" else axes.yaxis
    if axis.log and (axes.dataLim.x1 if which == "x" else axes.dataLim.y1) > 0:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        target.set_major_locator(LogLocator(numticks=8))
        # matplotlib writes powers as formulas, which inline SVG cannot keep as text.
        target.set_major_formatter(FuncFormatter(lambda value, _: power(value)))
        target.set_minor_formatter(NullFormatter())
    elif axis.ticks is None and _whole(axis):
        target.set_major_locator(MaxNLocator(nbins="auto", integer=True))
    if axis.limits is not None and axis.limits[0] != axis.limits[1] and axis.ticks is None:
        (axes.set_xlim if which == "x" else axes.set_ylim)(*axis.limits)


def _whole(axis: Axis) -> bool:
    """Whether an axis counts things, so that half a tick makes no sense."""
    return axis.label.lower() in ("epoch", "count", "rank", "layer", "unit", "units", "images") and not axis.unit


def explain(figure: Figure | SubFigure, axes: Axes, width: float) -> None:
    """A legend below the data in `axes` when there are several series: one needs no telling apart."""
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) > 1:
        columns, _ = _legend_lines(labels, width)
        figure.legend(handles, labels, loc="lower left", ncols=columns, columnspacing=1.4)


def _legend_lines(labels: Sequence[str], width: float) -> tuple[int, int]:
    """Columns and lines of a legend below a chart of a width in inches."""
    columns = len(labels)
    room = width - 0.3
    if sum(len(label) for label in labels) * CHARACTER + 0.62 * len(labels) > room:
        columns = max(1, int(room / (max(len(label) for label in labels) * CHARACTER + 0.7)))
    return columns, math.ceil(len(labels) / columns)
