"""The inside of a chart, one function for each kind: lines, bars, points, steps, boxes, maps.

Series differ by marker, dash or hatch as well as by colour; values that are not finite leave a gap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from neuronscope import Chart, Series
from neuronscope.faces.figures.arrange import size_of
from neuronscope.faces.figures.style import COLOURS, DASHES, HATCHES, MARKERS, MINUS, Theme, clean, pick, power, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

POINTS_PER_INCH = 72.0
FEW_POINTS = 25
"""Up to so many points or bars are labelled one by one."""
POINT_AREAS = ((60, 32), (500, 20), (math.inf, 8))
"""Most points -> area of a marker, in square points."""
MANY_POINTS = 2000
"""Scatter plots with more points hold them as one embedded picture: thousands of nodes make a page slow."""
MOST_SIGNS = 900
"""Diverging maps up to this many cells show the sign in each cell, so that they are readable in grey."""
MOST_ANNOTATED = 1600
LARGEST_NUMBER = 8.5
"""Size of the numbers in the cells of a map, in points, where there is room."""


def _draw_lines(axes: Axes, chart: Chart, theme: Theme) -> None:
    del theme
    for i, series in enumerate(chart.series):
        x, y = _positions(series), _numbers(series.y)
        look = {"color": pick(COLOURS, i), "linestyle": pick(DASHES, i + i // len(COLOURS)), "marker": pick(MARKERS, i)}
        axes.plot(x, y, label=name_of(series, i), markevery=1 if len(y) <= FEW_POINTS else 0.06, **look)
        if _has_interval(series):
            low, high = _interval(series)
            axes.fill_between(x, low, high, color=pick(COLOURS, i), alpha=0.17, linewidth=0)
        _name_points(axes, series, x, y)


def _draw_bars(axes: Axes, chart: Chart, theme: Theme) -> None:
    count = max(len(chart.series), 1)
    every = np.concatenate([_positions(series) for series in chart.series] or [np.zeros(1)])
    steps = np.diff(np.unique(every))
    width = 0.78 * (float(steps.min()) if steps.size else 1.0) / count
    for i, series in enumerate(chart.series):
        x = _positions(series) + (i - (count - 1) / 2) * width
        y = _numbers(series.y)
        look = _fill(i)
        axes.bar(x, y, width=width * (0.94 if count > 1 else 1.0), label=name_of(series, i), **look)
        top = y
        if _has_interval(series):
            low, high = _interval(series)
            axes.vlines(x, low, high, color=theme.ink, linewidth=1.1)
            for end in (low, high):
                axes.plot(
                    x, end, linestyle="", marker="_", markersize=min(6.0, 120 * width / len(x) + 2), color=theme.ink
                )
            top = np.fmax(y, high)
        _name_points(axes, series, x, top, beside=(0, 4))
    values = np.concatenate([finite(np.asarray(series.y)) for series in chart.series] or [np.empty(0)])
    if values.size and values.min() < 0:
        axes.axhline(0, color=theme.ink, linewidth=0.8)
    if len(every):
        axes.set_xlim(every.min() - 0.75 * width * count, every.max() + 0.75 * width * count)


def _draw_points(axes: Axes, chart: Chart, theme: Theme) -> None:
    del theme
    total = sum(np.size(series.y) for series in chart.series)
    size = next(area for most, area in POINT_AREAS if total <= most)
    for i, series in enumerate(chart.series):
        x, y = _positions(series), _numbers(series.y)
        colour = pick(COLOURS, i)
        if _has_interval(series):
            low, high = _interval(series)
            axes.vlines(x, low, high, color=colour, linewidth=1.0, alpha=0.6)
        # Every other series is hollow: at this size, shapes alone are hard to tell apart.
        axes.scatter(
            x,
            y,
            s=size,
            alpha=0.8,
            label=name_of(series, i),
            rasterized=total > MANY_POINTS,
            edgecolors=colour,
            facecolors="none" if i % 2 else colour,
            marker=pick(MARKERS, i),
            linewidths=1.1 if i % 2 else 0,
        )
        _name_points(axes, series, x, y)


def _draw_histogram(axes: Axes, chart: Chart, theme: Theme) -> None:
    del theme
    for i, series in enumerate(chart.series):
        heights = _numbers(series.y)
        edges = _numbers(series.x) if series.x is not None else np.arange(len(heights) + 1.0)
        colour = pick(COLOURS, i)
        axes.stairs(heights, edges, fill=True, color=colour, alpha=0.55 if len(chart.series) == 1 else 0.22)
        axes.stairs(heights, edges, color=colour, linestyle=pick(DASHES, i), linewidth=1.6, label=name_of(series, i))


def _draw_boxes(axes: Axes, chart: Chart, theme: Theme) -> None:
    count = max(len(chart.series), 1)
    width = 0.72 / count
    ends: list[float] = []
    for i, series in enumerate(chart.series):
        places = np.arange(len(series.y), dtype=float) if series.x is None else _numbers(series.x)
        places = places + (i - (count - 1) / 2) * width
        ends += [float(places.min()), float(places.max())] if len(places) else []
        keys = ("whislo", "q1", "med", "q3", "whishi")
        rows = [(place, row) for place, row in zip(places, _numbers(series.y), strict=True) if np.isfinite(row).all()]
        boxes = [dict(zip(keys, map(float, row), strict=True)) for _, row in rows]
        look = _fill(i)
        line = {"color": theme.ink, "linewidth": 1.0}
        axes.bxp(
            boxes,
            positions=[float(place) for place, _ in rows],
            widths=width * 0.82,
            showfliers=False,
            manage_ticks=False,
            patch_artist=True,
            boxprops=look | {"linewidth": 0, "alpha": 0.6},
            medianprops={"color": theme.ink, "linewidth": 2.0},
            whiskerprops=line,
            capprops=line,
        )
        if count > 1:
            axes.fill_between([], [], [], label=name_of(series, i), alpha=0.6, **look)
    if ends:
        axes.set_xlim(min(ends) - 0.6, max(ends) + 0.6)


def _draw_tree(axes: Axes, chart: Chart, theme: Theme) -> None:
    """Joins as brackets that open to their parts, the root at the right; the first leaf on top."""
    del theme
    for i, series in enumerate(chart.series):
        heights, parts = _positions(series), _numbers(series.y).reshape(-1, 4)
        look: dict[str, Any] = {"color": pick(COLOURS, i), "linestyle": pick(DASHES, i), "linewidth": 1.4}
        for number, (height, (one, from_one, other, from_other)) in enumerate(zip(heights, parts, strict=True)):
            label = "_" if number else name_of(series, i)  # one line stands for all in the legend
            axes.plot([from_one, height, height, from_other], [one, one, other, other], label=label, **look)
    axes.set_ylim(max(len(chart.y.ticks or ()), 1) - 0.5, -0.5)


def _draw_map(axes: Axes, chart: Chart, theme: Theme) -> None:
    import matplotlib as mpl
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.patches import Patch, Rectangle

    cells = _numbers(chart.series[0].y)
    shown = _shown(cells, chart)
    low, high = _range(cells[shown], chart)
    norm = LogNorm(low, high) if chart.value.log else Normalize(low, high)
    colours = mpl.colormaps["RdBu_r" if chart.diverging else "viridis"]
    axes.spines[:].set_visible(False)
    if not shown.all():
        # Cells without a number must not look like zero.
        ground: dict[str, Any] = {
            "transform": axes.transAxes,
            "facecolor": "none",
            "edgecolor": _mixed(theme.ink),
            "linewidth": 0,
        }
        axes.add_patch(Rectangle((0, 0), 1, 1, hatch="//////", zorder=-1, **ground))
    axes.imshow(
        np.ma.masked_array(cells, ~shown), norm=norm, cmap=colours, aspect="auto", interpolation="none", origin="upper"
    )
    ink = _readable(colours(norm(np.where(shown, cells, low))))
    if chart.annotate and cells.size <= MOST_ANNOTATED:
        _annotate(axes, chart, cells, shown, ink)
    elif chart.diverging and cells.size <= MOST_SIGNS:
        # Both ends of a diverging scale are equally dark: without colour only the sign tells them apart.
        for sign, marker in ((1, "+"), (-1, "_")):
            for dark in (True, False):
                rows, columns = np.nonzero(
                    shown & (np.sign(cells) == sign) & (np.abs(cells) > 0.1 * high) & (ink == dark)
                )
                axes.scatter(
                    columns,
                    rows,
                    marker=marker,
                    s=13,
                    linewidths=0.8,
                    color="#000000" if dark else "#ffffff",
                    alpha=0.75,
                )
    if not shown.all():
        hatched = Patch(facecolor="none", edgecolor=_mixed(theme.ink), hatch="//////", label="hatched: no value")
        _figure(axes).legend(handles=[hatched], loc="lower left")
    axes.set(xlim=(-0.5, cells.shape[1] - 0.5), ylim=(cells.shape[0] - 0.5, -0.5))


def draw_bar(figure: Figure | SubFigure, axes: Axes, chart: Chart) -> Axes:
    """The colour bar of a heat map drawn in `axes`, in axes of its own in `figure`; their place is set later."""
    bar = figure.colorbar(axes.images[0], cax=figure.add_axes((0.9, 0.1, 0.02, 0.8)))
    bar.set_label(clean(chart.value.caption))
    bar.outline.set_visible(False)
    if chart.diverging:
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:+.3g}".replace("-", MINUS) if value else "0")
    elif chart.value.log:
        bar.ax.yaxis.set_major_formatter(lambda value, _: power(value))
        bar.ax.yaxis.set_minor_formatter(lambda _value, _: "")
    return bar.ax


def lacks_cells(chart: Chart) -> bool:
    """Whether a heat map has cells without a value, which are hatched and explained in a legend."""
    return chart.kind == "heatmap" and not _shown(_numbers(chart.series[0].y), chart).all()


def common_range(charts: Sequence[Chart]) -> tuple[float, float]:
    """Ends of one colour scale for several heat maps with the same value axis."""
    cells = [_numbers(chart.series[0].y) for chart in charts]
    shown = [one[_shown(one, chart)] for one, chart in zip(cells, charts, strict=True)]
    return _range(np.concatenate(shown), charts[0])


def longest_number(chart: Chart) -> int:
    """Characters of the longest number in the cells of an annotated heat map, 0 where none are written."""
    cells = _numbers(chart.series[0].y)
    return max(map(len, _cell_texts(chart, cells, _shown(cells, chart)).values()), default=0)


def _shown(cells: Float[np.ndarray, "r c"], chart: Chart) -> Bool[np.ndarray, "r c"]:
    """Which cells of a heat map have a colour."""
    return np.asarray(np.isfinite(cells) & (cells > 0) if chart.value.log else np.isfinite(cells))


DRAWERS: dict[str, Callable[[Axes, Chart, Theme], None]] = {
    "line": _draw_lines,
    "bar": _draw_bars,
    "scatter": _draw_points,
    "histogram": _draw_histogram,
    "heatmap": _draw_map,
    "box": _draw_boxes,
    "dendrogram": _draw_tree,
}
"""Kind of chart -> what draws its data."""


def _range(values: Float[np.ndarray, " n"], chart: Chart) -> tuple[float, float]:
    """Ends of the colour scale: as stated, else those of the data; symmetric about 0 for diverging maps."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    low, high = chart.value.limits or (low, high)
    if chart.diverging:
        high = max(abs(low), abs(high)) or 1.0
        low = -high
    if low == high:
        low, high = (low / 2, high * 2) if chart.value.log else (low - 0.5, high + 0.5)
    if chart.value.log and low <= 0:
        low = float(values.min()) if values.size else high / 10
    return low, high


def _annotate(axes: Axes, chart: Chart, cells: Float[np.ndarray, "r c"], shown: Bool[np.ndarray, "r c"],
              ink: Bool[np.ndarray, "r c"]) -> None:  # fmt: skip
    """The number in each cell, black on light cells and white on dark ones."""
    texts = _cell_texts(chart, cells, shown)
    if not texts:
        return
    room = min((size_of(_figure(axes))[0] - 2.0) / cells.shape[1], 0.62) * POINTS_PER_INCH
    size = min(LARGEST_NUMBER, room / (0.68 * max(len(text) for text in texts.values())))
    for (row, column), text in texts.items():
        colour = "#000000" if ink[row, column] else "#ffffff"
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)


def _cell_texts(
    chart: Chart, cells: Float[np.ndarray, "r c"], shown: Bool[np.ndarray, "r c"]
) -> dict[tuple[int, int], str]:
    """Row and column -> the number written there: with a sign on diverging scales, with as many decimals as needed."""
    values = cells[shown]
    if not values.size or not chart.annotate or cells.size > MOST_ANNOTATED:
        return {}
    largest = float(np.abs(values).max())
    digits = 0 if (values == np.rint(values)).all() or largest >= 100 else 1 if largest >= 10 else 2  # noqa: PLR2004
    return {
        (int(row), int(column)): _number(float(cells[row, column]), digits=digits, signed=chart.diverging)
        for row, column in zip(*np.nonzero(shown), strict=True)
    }


def _number(value: float, *, digits: int, signed: bool) -> str:
    """A number in a cell; what rounds to nothing is a plain 0."""
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return "0" if signed and float(text) == 0 else text.replace("-", MINUS)


def _readable(cells: Float[np.ndarray, "r c 4"]) -> Bool[np.ndarray, "r c"]:
    """Whether black is the readable ink on each colour (relative luminance as in WCAG 2)."""
    linear = np.where(cells[..., :3] <= 0.04045, cells[..., :3] / 12.92, ((cells[..., :3] + 0.055) / 1.055) ** 2.4)  # noqa: PLR2004 sRGB
    return np.asarray(linear @ np.array([0.2126, 0.7152, 0.0722]) > 0.179)  # noqa: PLR2004 where both inks contrast alike


def _name_points(axes: Axes, series: Series, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], *,
                 beside: tuple[int, int] = (5, 4)) -> None:  # fmt: skip
    """The labels of a series at its points, when there are few; `beside` is the distance right and up, in points."""
    if series.labels is None or len(series.labels) > FEW_POINTS:
        return
    for text, across, up in zip(series.labels, x, y, strict=True):
        if np.isfinite(across) and np.isfinite(up):
            axes.annotate(
                short(text),
                (across, up),
                xytext=beside,
                textcoords="offset points",
                fontsize=7.5,
                ha="left" if beside[0] else "center",
            )


def _fill(i: int) -> dict[str, Any]:
    """How the areas of the i-th series are filled: colour, and hatch lines that are seen on it in grey."""
    return {"facecolor": pick(COLOURS, i), "hatch": pick(HATCHES, i), "edgecolor": "#ffffff", "linewidth": 0}


def _figure(axes: Axes) -> Figure | SubFigure:
    """The figure that axes are in, or the cell of it: not all of a panel's figure."""
    return axes.figure


def _mixed(ink: str) -> tuple[str, float]:
    return (ink, 0.35)


def name_of(series: Series, i: int) -> str:
    """What a legend calls the i-th series."""
    return clean(series.name) or f"series {i + 1}"


def _positions(series: Series) -> Float[np.ndarray, " n"]:
    return np.arange(len(series.y), dtype=float) if series.x is None else _numbers(series.x)


def _has_interval(series: Series) -> bool:
    return series.low is not None or series.high is not None


def _interval(series: Series) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Interval ends; a missing one is the value itself."""
    low = series.y if series.low is None else series.low
    high = series.y if series.high is None else series.high
    return _numbers(low), _numbers(high)


def _numbers(values: Any) -> Float[np.ndarray, "..."]:
    """Floats, with infinities as gaps: matplotlib would stretch an axis without end."""
    numbers = np.array(values, dtype=float)
    numbers[np.isinf(numbers)] = np.nan
    return numbers


def finite(values: np.ndarray) -> Float[np.ndarray, " n"]:
    """The finite ones of the values, in one row."""
    numbers = _numbers(values).ravel()
    return np.asarray(numbers[np.isfinite(numbers)])
