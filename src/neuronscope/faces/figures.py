"""Charts and galleries as pictures: files for papers and slides, and inline SVG for reports.

One drawing serves all uses. Series differ by marker, dash or hatch as well as by colour, maps grow evenly in lightness,
and every figure is read without clipping: what it needs in width and height follows from what it shows. Nothing here
touches pyplot, so nothing is left behind in the process and a display is never needed.
"""

from __future__ import annotations

import math
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast
from xml.etree import ElementTree as ET

import numpy as np
from jaxtyping import Bool, Float, UInt8

from neuronscope.errors import StorageError
from neuronscope.views import Axis, Chart, Gallery, Page, Picture, Series, Strip

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Item = TypeVar("Item")
ThemeName = Literal["light", "dark"]
Format = Literal["png", "svg", "pdf"]

COLOURS = ("#1b7fc4", "#d55e00", "#009e73", "#b8579a", "#a67c00", "#2a93c4", "#7a7a7a", "#8d6bd1")
"""Series colours: told apart under colour-blindness (after Okabe and Ito, 2008), and each with a contrast of at least
3 : 1 on a white and on a near-black ground, so that one drawing serves both."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 2)),
    (0, (1.2, 1.4)),
    (0, (6, 1.8, 1.2, 1.8)),
    (0, (9, 2.5)),
    (0, (3, 1.2, 1.2, 1.2, 1.2, 1.2)),
    (0, (2.5, 2.5)),
    (0, (9, 2, 3, 2)),
)
HATCHES = ("", "///", "---", "\\\\\\", "xxx", "|||", "+++", "////---")

POINTS_PER_INCH = 72.0
BASE_SIZE = (5.4, 3.4)
"""Width and height of an ordinary chart, in inches."""
WIDEST, TALLEST = 13.0, 9.5
"""No chart is larger, in inches: with more rows or columns, ticks are thinned and cells become narrower."""
MOST_TICKS = 40
LONGEST_TICK = 26
"""Characters of a tick label that are shown; a longer one is shortened in its middle."""
CHARACTER = 0.08
"""Mean width of a character at tick size, in inches."""
FEW_POINTS = 25
"""Up to so many points or bars are labelled one by one."""
POINT_AREAS = ((60, 32), (500, 20), (math.inf, 8))
"""Most points -> area of a marker, in square points."""
MANY_POINTS = 2000
"""Scatter plots with more points hold them as one embedded picture: thousands of nodes make a page slow."""
MOST_SIGNS = 900
"""Diverging maps up to this many cells show the sign in each cell, so that they are readable in grey."""
MOST_ANNOTATED = 1600
MINUS = "\u2212"
"""The minus sign, as wide as a plus sign."""
RESOLUTION = 180
"""Dots per inch of PNG files."""


@dataclass(frozen=True)
class _Theme:
    """Ink for text and axes, ground behind everything."""

    ink: str
    ground: str


THEMES: dict[ThemeName, _Theme] = {
    "light": _Theme(ink="#1d2430", ground="#ffffff"),
    "dark": _Theme(ink="#e4e8ef", ground="#14181f"),
}
_INLINE = _Theme(ink="#010305", ground="none")
"""The theme of inline SVG: this ink is found again and becomes `currentColor`."""


def draw_chart(chart: Chart, *, theme: ThemeName = "light") -> Figure:
    """A chart as a matplotlib figure with title, axis captions (label and unit) and, for several series, a legend.

    Args:
        chart: what to draw. Values that are not finite leave a gap; in heat maps their cells are hatched.
        theme: ink on white, or light ink on a near-black ground.

    Example:
        >>> loss = Chart("loss", "Loss", "line", (Series("train", np.array([2.0, 1.0])),), Axis("epoch"), Axis("loss"))
        >>> draw_chart(loss).axes[0].get_ylabel()
        'loss'
    """
    with _style(THEMES[theme]):
        return _draw(chart, THEMES[theme], title=chart.title)


def chart_svg(chart: Chart, *, prefix: str) -> str:
    """A chart as an SVG element to be placed inside an HTML page (no title: the page gives the caption).

    Text stays text and takes the font of the page; text and axes take its colour (`currentColor`); the ground is clear.
    There are no style attributes and no links, so a strict Content-Security-Policy can hold. The size is a `viewBox` in
    points; give the element a width in the style sheet. The same chart and prefix give the same bytes.

    Args:
        chart: what to draw.
        prefix: begins every id in the element; unique on the page.

    Example:
        >>> loss = Chart("loss", "Loss", "line", (Series("train", np.array([2.0, 1.0])),), Axis("epoch"), Axis("loss"))
        >>> chart_svg(loss, prefix="c1")[:29]
        '<svg viewBox="0 0 388.8 244.8'
    """
    with _style(_INLINE, salt=prefix):
        figure = _draw(chart, _INLINE, title="")
        written = StringIO()
        with _fonts_may_lack_glyphs():
            # Pictures inside the drawing (dense scatter, colour bars) need more than the 72 dots per inch of a point.
            figure.savefig(written, format="svg", dpi=144, transparent=True, metadata={"Date": None})
    return _inline(written.getvalue(), prefix=prefix, title=chart.title, description=describe(chart))


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
    with _style(THEMES[theme]):
        return _draw_gallery(gallery, THEMES[theme], most_rows=most_rows)


def save_figures(page: Page, folder: Path, *, formats: Sequence[Format] = ("png", "svg")) -> list[Path]:
    """Each chart and gallery of a page as `folder/NAME.FORMAT`, in page order; galleries as PNG only.

    Args:
        page: what to draw.
        folder: made when it does not exist.
        formats: file formats of the charts.

    Raises:
        StorageError: the folder cannot be written to.
    """
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for block in page.blocks:
            if isinstance(block, Chart):
                with _style(THEMES["light"], salt=block.name):
                    figure = _draw(block, THEMES["light"], title=block.title)
                    written += [_save(figure, folder / f"{block.name}.{kind}", kind=kind) for kind in formats]
            elif isinstance(block, Gallery):
                with _style(THEMES["light"]):
                    figure = _draw_gallery(block, THEMES["light"], most_rows=120)
                    # A whole multiple of the gallery's own resolution keeps every magnified pixel square.
                    written.append(_save(figure, folder / f"{block.name}.png", kind="png", dpi=2 * GALLERY_DPI))
    except OSError as error:
        message = (
            f"the figures cannot be written to '{folder}': a writable folder was expected, the system says: {error}. "
            "Choose another output folder or make room."
        )
        raise StorageError(message) from error
    return written


def describe(chart: Chart) -> str:
    """A chart in one sentence, for readers who cannot see it.

    Example:
        >>> loss = Chart("loss", "Loss", "line", (Series("train", np.array([2.0, 1.0])),), Axis("epoch"), Axis("loss"))
        >>> describe(loss)
        'Line chart of loss against epoch; series: train; values from 1 to 2.'
    """
    kinds = {"line": "Line chart", "bar": "Bar chart", "scatter": "Scatter plot", "histogram": "Histogram"}
    kinds |= {"heatmap": "Heat map", "box": "Box plot"}
    shown = chart.value if chart.kind == "heatmap" else chart.y
    against = f"{chart.y.label} and {chart.x.label}" if chart.kind == "heatmap" else chart.x.label
    sentence = f"{kinds[chart.kind]} of {shown.caption} against {against}"
    names = [series.name for series in chart.series if series.name]
    if names:
        sentence += f"; series: {', '.join(names[:8])}" + (f" and {len(names) - 8} more" if len(names) > 8 else "")  # noqa: PLR2004 said in the text
    finite = np.concatenate([_finite(np.asarray(series.y)) for series in chart.series] or [np.empty(0)])
    if finite.size:
        sentence += f"; values from {finite.min():.4g} to {finite.max():.4g}"
    return _clean(sentence + ".")


@contextmanager
def _style(theme: _Theme, *, salt: str = "neuronscope") -> Iterator[None]:
    """Settings of matplotlib for one drawing; they are put back at the end."""
    import matplotlib as mpl

    ink, ground = theme.ink, theme.ground
    # Labels are data (class names, file names): a dollar sign in them is no formula.
    settings: dict[Any, Any] = {
        "text.parse_math": False,
        "font.family": ["DejaVu Sans"],
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 10,
        "axes.labelsize": 10,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.fontsize": 9,
        "legend.frameon": False,
        "legend.handlelength": 3.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "axes.axisbelow": True,
        "grid.linewidth": 0.6,
        "grid.alpha": 0.16,
        "lines.linewidth": 1.7,
        "lines.markersize": 4.6,
        "hatch.linewidth": 0.9,
        "figure.facecolor": ground,
        "axes.facecolor": "none",
        "savefig.facecolor": "auto",
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "figure.constrained_layout.h_pad": 0.06,
        "figure.constrained_layout.w_pad": 0.06,
    }
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "grid.color")
    ticks = ("xtick.color", "ytick.color", "xtick.labelcolor", "ytick.labelcolor")
    with mpl.rc_context(settings | dict.fromkeys(inked + ticks, ink)):
        yield


@contextmanager
def _fonts_may_lack_glyphs() -> Iterator[None]:
    """Class names come in every script: a glyph that the font of the picture lacks is a box, not a failure."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _save(figure: Figure, path: Path, *, kind: Format, dpi: int = RESOLUTION) -> Path:
    """Write one file; the same figure gives the same bytes (no date inside)."""
    metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
    with _fonts_may_lack_glyphs():
        figure.savefig(path, format=kind, dpi=dpi, metadata=metadata)
    return path


def _draw(chart: Chart, theme: _Theme, *, title: str) -> Figure:
    """The figure of a chart in the settings of `_style`."""
    from matplotlib.figure import Figure

    layout = _plan(chart)
    figure = Figure(layout.size, layout="constrained")
    axes = figure.add_subplot()
    if title:
        axes.set_title(_clean("\n".join(textwrap.wrap(title, int(layout.size[0] * 10.5)))))
    DRAWERS[chart.kind](axes, chart, theme)
    _dress(axes, chart, layout)
    if chart.kind != "heatmap":
        axes.grid(visible=True, axis="y" if chart.kind in ("bar", "histogram", "box") else "both")
        if not any(_finite(np.asarray(series.y)).size for series in chart.series):
            axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", va="center")
        _explain(figure, axes)
    return figure


@dataclass(frozen=True)
class _Layout:
    """Size in inches, and how tick labels are laid out."""

    size: tuple[float, float]
    x_step: int
    y_step: int
    x_turn: float


def _plan(chart: Chart) -> _Layout:
    """Figure size, and every how many-th tick label is shown, so that none overlaps and none is clipped."""
    columns, rows = _counts(chart)
    x_names = [_short(name) for name in chart.x.ticks or ()]
    y_names = [_short(name) for name in chart.y.ticks or ()]
    longest_x = max((len(name) for name in x_names), default=4) * CHARACTER
    longest_y = max((len(name) for name in y_names), default=4) * CHARACTER
    width, height = BASE_SIZE
    if chart.kind == "heatmap":
        cell = 0.5 if chart.annotate else 0.24
        width = min(max(longest_y + 1.7 + columns * cell, 4.6), WIDEST)
        height = min(max(1.1 + rows * (0.34 if chart.annotate else 0.22), 2.6), TALLEST)
    elif x_names:
        each = 0.2 if chart.kind in ("line", "scatter") else 0.16 + 0.08 * len(chart.series)
        width = min(max(longest_y + 1.1 + columns * each, width), WIDEST)
    if y_names and chart.kind != "heatmap":
        height = min(max(1.1 + 0.2 * len(y_names), height), TALLEST)
    room = width - longest_y - (1.9 if chart.kind == "heatmap" else 1.1)
    flat = len(x_names) * (longest_x + 0.1) <= room
    x_step, y_step = 1, 1
    turn = 0.0
    if x_names and not flat:
        x_step = max(math.ceil(len(x_names) / MOST_TICKS), math.ceil(len(x_names) * 0.19 / room))
        # Slanted labels reach to the left by as much as they go down: only with room between them.
        turn = 40.0 if len(x_names) <= MOST_TICKS // 2 else 90.0
        height = min(height + longest_x * (0.75 if turn < 90 else 1.0), TALLEST + 1.0)  # noqa: PLR2004 an angle
    if y_names:
        y_step = max(1, math.ceil(len(y_names) / 60), math.ceil(len(y_names) * 0.155 / max(height - 1.0, 1.0)))
    return _Layout((round(width, 2), round(height, 2)), x_step, y_step, turn)


def _counts(chart: Chart) -> tuple[int, int]:
    """Columns and rows of a chart, each at least 1."""
    columns = len(chart.x.ticks or ())
    rows = len(chart.y.ticks or ())
    if chart.kind == "heatmap" and chart.series:
        shape = np.asarray(chart.series[0].y).shape
        rows, columns = max(rows, shape[0]), max(columns, shape[1])
    return max(columns, 1), max(rows, 1)


def _dress(axes: Axes, chart: Chart, layout: _Layout) -> None:
    """Captions, scales, limits and ticks."""
    axes.set_xlabel(_clean(chart.x.caption))
    axes.set_ylabel(_clean(chart.y.caption))
    for which, axis in (("x", chart.x), ("y", chart.y)):
        _scale(axes, which, axis)
    if chart.x.ticks is not None:
        at = range(0, len(chart.x.ticks), layout.x_step)
        slanted = 0 < layout.x_turn < 90  # noqa: PLR2004 an angle
        axes.set_xticks(list(at), [_short(chart.x.ticks[i]) for i in at], rotation=layout.x_turn)
        if slanted:
            for label in axes.get_xticklabels():
                label.set(ha="right", va="top", rotation_mode="anchor")
    if chart.y.ticks is not None:
        at = range(0, len(chart.y.ticks), layout.y_step)
        axes.set_yticks(list(at), [_short(chart.y.ticks[i]) for i in at])
    if chart.kind == "heatmap":
        axes.tick_params(length=0)


def _scale(axes: Axes, which: str, axis: Axis) -> None:
    """Logarithmic scale and limits of one axis, where the data allow them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    target = axes.xaxis if which == "x" else axes.yaxis
    if axis.log and (axes.dataLim.x1 if which == "x" else axes.dataLim.y1) > 0:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        target.set_major_locator(LogLocator(numticks=8))
        # matplotlib writes powers as formulas, which inline SVG cannot keep as text.
        target.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
        target.set_minor_formatter(NullFormatter())
    elif axis.ticks is None and _whole(axis):
        target.set_major_locator(MaxNLocator(nbins="auto", integer=True))
    if axis.limits is not None and axis.limits[0] != axis.limits[1] and axis.ticks is None:
        (axes.set_xlim if which == "x" else axes.set_ylim)(*axis.limits)


def _whole(axis: Axis) -> bool:
    """Whether an axis counts things, so that half a tick makes no sense."""
    return axis.label.lower() in ("epoch", "count", "rank", "layer", "unit", "units", "images") and not axis.unit


def _power(value: float) -> str:
    """A tick of a logarithmic axis: plain near 1, a power of ten elsewhere."""
    if 1e-3 <= value < 1e5:  # noqa: PLR2004 what reads well in plain digits
        return f"{value:,.10g}"
    exponent = round(math.log10(value)) if value > 0 else 0
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _explain(figure: Figure, axes: Axes) -> None:
    """A legend outside the data, when there are several series."""
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) < 2:  # noqa: PLR2004 one series needs no telling apart
        return
    width = sum(len(label) for label in labels) * CHARACTER + 0.62 * len(labels)
    columns = len(labels)
    room = figure.get_figwidth() - 0.3
    if width > room:
        columns = max(1, int(room / (max(len(label) for label in labels) * CHARACTER + 0.7)))
    lines = math.ceil(len(labels) / columns)
    figure.set_figheight(figure.get_figheight() + 0.2 * lines)
    figure.legend(handles, labels, loc="outside lower left", ncols=columns, columnspacing=1.4)


def _draw_lines(axes: Axes, chart: Chart, theme: _Theme) -> None:
    del theme
    for i, series in enumerate(chart.series):
        x, y = _positions(series), _numbers(series.y)
        look = {"color": _pick(COLOURS, i), "linestyle": _pick(DASHES, i), "marker": _pick(MARKERS, i)}
        axes.plot(x, y, label=_name(series, i), markevery=1 if len(y) <= FEW_POINTS else 0.06, **look)
        if _has_interval(series):
            low, high = _interval(series)
            axes.fill_between(x, low, high, color=_pick(COLOURS, i), alpha=0.17, linewidth=0)
        _name_points(axes, series, x, y)


def _draw_bars(axes: Axes, chart: Chart, theme: _Theme) -> None:
    count = max(len(chart.series), 1)
    every = np.concatenate([_positions(series) for series in chart.series] or [np.zeros(1)])
    steps = np.diff(np.unique(every))
    width = 0.78 * (float(steps.min()) if steps.size else 1.0) / count
    for i, series in enumerate(chart.series):
        x = _positions(series) + (i - (count - 1) / 2) * width
        y = _numbers(series.y)
        look = _fill(i)
        axes.bar(x, y, width=width * (0.94 if count > 1 else 1.0), label=_name(series, i), **look)
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
    finite = np.concatenate([_finite(np.asarray(series.y)) for series in chart.series] or [np.empty(0)])
    if finite.size and finite.min() < 0:
        axes.axhline(0, color=theme.ink, linewidth=0.8)
    if len(every):
        axes.set_xlim(every.min() - 0.75 * width * count, every.max() + 0.75 * width * count)


def _draw_points(axes: Axes, chart: Chart, theme: _Theme) -> None:
    del theme
    total = sum(np.size(series.y) for series in chart.series)
    size = next(area for most, area in POINT_AREAS if total <= most)
    for i, series in enumerate(chart.series):
        x, y = _positions(series), _numbers(series.y)
        colour = _pick(COLOURS, i)
        if _has_interval(series):
            low, high = _interval(series)
            axes.vlines(x, low, high, color=colour, linewidth=1.0, alpha=0.6)
        # Every other series is hollow: at this size, shapes alone are hard to tell apart.
        axes.scatter(
            x,
            y,
            s=size,
            alpha=0.8,
            label=_name(series, i),
            rasterized=total > MANY_POINTS,
            edgecolors=colour,
            facecolors="none" if i % 2 else colour,
            marker=_pick(MARKERS, i),
            linewidths=1.1 if i % 2 else 0,
        )
        _name_points(axes, series, x, y)


def _draw_histogram(axes: Axes, chart: Chart, theme: _Theme) -> None:
    del theme
    for i, series in enumerate(chart.series):
        heights = _numbers(series.y)
        edges = _numbers(series.x) if series.x is not None else np.arange(len(heights) + 1.0)
        colour = _pick(COLOURS, i)
        axes.stairs(heights, edges, fill=True, color=colour, alpha=0.55 if len(chart.series) == 1 else 0.22)
        axes.stairs(heights, edges, color=colour, linestyle=_pick(DASHES, i), linewidth=1.6, label=_name(series, i))


def _draw_boxes(axes: Axes, chart: Chart, theme: _Theme) -> None:
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
            axes.fill_between([], [], [], label=_name(series, i), alpha=0.6, **look)
    if ends:
        axes.set_xlim(min(ends) - 0.6, max(ends) + 0.6)


def _draw_map(axes: Axes, chart: Chart, theme: _Theme) -> None:
    import matplotlib as mpl
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.patches import Patch, Rectangle

    cells = _numbers(chart.series[0].y)
    shown = np.isfinite(cells) & (cells > 0) if chart.value.log else np.isfinite(cells)
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
    image = axes.imshow(
        np.ma.masked_array(cells, ~shown), norm=norm, cmap=colours, aspect="auto", interpolation="none", origin="upper"
    )
    figure = cast("Figure", axes.figure)
    bar = figure.colorbar(image, ax=axes, pad=0.015, fraction=0.05, aspect=26)
    bar.set_label(_clean(chart.value.caption))
    bar.outline.set_visible(False)
    if chart.diverging:
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:+.3g}".replace("-", MINUS) if value else "0")
    elif chart.value.log:
        bar.ax.yaxis.set_major_formatter(lambda value, _: _power(value))
        bar.ax.yaxis.set_minor_formatter(lambda _value, _: "")
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
        figure.legend(handles=[hatched], loc="outside lower left")
        figure.set_figheight(figure.get_figheight() + 0.2)
    axes.set(xlim=(-0.5, cells.shape[1] - 0.5), ylim=(cells.shape[0] - 0.5, -0.5))


DRAWERS: dict[str, Callable[[Axes, Chart, _Theme], None]] = {
    "line": _draw_lines,
    "bar": _draw_bars,
    "scatter": _draw_points,
    "histogram": _draw_histogram,
    "heatmap": _draw_map,
    "box": _draw_boxes,
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
    values = cells[shown]
    if not values.size:
        return
    largest = float(np.abs(values).max())
    digits = 0 if (values == np.rint(values)).all() or largest >= 100 else 1 if largest >= 10 else 2  # noqa: PLR2004
    texts = {
        place: f"{cells[place]:{'+' if chart.diverging else ''}.{digits}f}"
        for place in zip(*np.nonzero(shown), strict=True)
    }
    figure = cast("Figure", axes.figure)
    room = min((figure.get_figwidth() - 2.0) / cells.shape[1], 0.62) * POINTS_PER_INCH
    size = min(8.5, room / (0.68 * max(len(text) for text in texts.values())))
    for (row, column), text in texts.items():
        colour = "#000000" if ink[row, column] else "#ffffff"
        axes.text(column, row, text.replace("-", MINUS), ha="center", va="center", fontsize=size, color=colour)


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
                _short(text),
                (across, up),
                xytext=beside,
                textcoords="offset points",
                fontsize=7.5,
                ha="left" if beside[0] else "center",
            )


def _fill(i: int) -> dict[str, Any]:
    """How the areas of the i-th series are filled: colour, and hatch lines that are seen on it in grey."""
    return {"facecolor": _pick(COLOURS, i), "hatch": _pick(HATCHES, i), "edgecolor": "#ffffff", "linewidth": 0}


def _mixed(ink: str) -> tuple[str, float]:
    return (ink, 0.35)


def _pick(cycle: Sequence[Item], i: int) -> Item:
    return cycle[i % len(cycle)]


def _name(series: Series, i: int) -> str:
    return _clean(series.name) or f"series {i + 1}"


def _numbers(values: Any) -> Float[np.ndarray, "..."]:
    """Floats, with infinities as gaps: matplotlib would stretch an axis without end."""
    numbers = np.array(values, dtype=float)
    numbers[np.isinf(numbers)] = np.nan
    return numbers


def _finite(values: np.ndarray) -> Float[np.ndarray, " n"]:
    numbers = _numbers(values).ravel()
    return np.asarray(numbers[np.isfinite(numbers)])


def _positions(series: Series) -> Float[np.ndarray, " n"]:
    return np.arange(len(series.y), dtype=float) if series.x is None else _numbers(series.x)


def _has_interval(series: Series) -> bool:
    return series.low is not None or series.high is not None


def _interval(series: Series) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Interval ends; a missing one is the value itself."""
    low = series.y if series.low is None else series.low
    high = series.y if series.high is None else series.high
    return _numbers(low), _numbers(high)


UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def _clean(text: str) -> str:
    """Text without characters that no SVG or UTF-8 file can hold (file names may)."""
    return UNPRINTABLE.sub("\ufffd", text)


def _short(text: str, *, most: int = LONGEST_TICK) -> str:
    """Text shortened in its middle: layer names differ at both ends."""
    text = _clean(text)
    if len(text) <= most:
        return text
    head = most // 2
    return f"{text[:head]}…{text[head + 1 - most :]}"


def _inline(svg: str, *, prefix: str, title: str, description: str) -> str:
    """The SVG that matplotlib wrote, made fit for a page: see `chart_svg`."""
    root = ET.fromstring(svg)  # noqa: S314 written by matplotlib a moment ago
    namespace, link = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{namespace}metadata", f"{namespace}style"):
                parent.remove(child)
    used = set(re.findall(r'(?:url\(|xlink:href=")#([^)"]+)', svg))
    names = {name: f"{prefix}-{i}" for i, name in enumerate(sorted(used))}
    for element in root.iter():
        element.tag = element.tag.removeprefix(namespace)
        attributes = {("href" if key == link else key): value for key, value in element.attrib.items()}
        attributes |= _properties(attributes.pop("style", ""))
        element.attrib.clear()
        for key, value in attributes.items():
            if key == "id" and value not in names:
                continue
            element.set(key, _attribute(key, value, names))
        # Indentation is half of the file; only text elements have text that counts.
        if element.tag != "text":
            element.text = None
        element.tail = None
    return _frame(root, prefix=prefix, title=title, description=description)


def _attribute(key: str, value: str, names: dict[str, str]) -> str:
    """One attribute value, with renamed references and the page's ink."""
    if key == "id":
        return names[value]
    if key == "href":
        return "".join(value.split()) if value.startswith("data:") else f"#{names[value[1:]]}"
    if value.startswith("url(#"):
        return f"url(#{names[value[5:-1]]})"
    if key == "d":
        return " ".join(value.split())
    return value.replace(_INLINE.ink, "currentColor")


def _properties(style: str) -> dict[str, str]:
    """Style declarations as presentation attributes, which a strict Content-Security-Policy allows."""
    found: dict[str, str] = {}
    for declaration in style.split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key == "font":
            size = re.search(r"[\d.]+px", value)
            found |= {"font-size": size.group()} if size else {}
            found |= {"font-weight": "bold"} if re.search(r"\b(bold|[6-9]00)\b", value) else {}
        elif key and key != "font-family":
            found[key] = value
    return found


def _frame(root: ET.Element, *, prefix: str, title: str, description: str) -> str:
    """The outermost element: a picture with a name and a description, sized by its view box."""
    children = list(root)
    view = root.get("viewBox", "0 0 1 1")
    root.attrib.clear()
    root.attrib.update(
        {"viewBox": view, "class": "chart-svg", "role": "img", "aria-labelledby": f"{prefix}-title {prefix}-text"}
    )
    root.set("stroke-linejoin", "round")
    name = ET.Element("title", {"id": f"{prefix}-title"})
    name.text = _clean(title)
    text = ET.Element("desc", {"id": f"{prefix}-text"})
    text.text = description
    root[:] = [name, text, *children]
    return ET.tostring(root, encoding="unicode")


PAGE_WIDTH = 1300
"""Widest row of a gallery, in pixels of the picture at 100 dots per inch."""
GALLERY_DPI = 100


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


def _draw_gallery(gallery: Gallery, theme: _Theme, *, most_rows: int) -> Figure:
    """The figure of a gallery in the settings of `_style`."""
    from matplotlib.figure import Figure

    strips = list(gallery.strips[:most_rows])
    grid = _grid(gallery, strips)
    heights = [math.ceil(max(len(strip.pictures), 1) / grid.across) * grid.row + 8 for strip in strips]
    columns = _balance(heights, grid.columns)
    width = max(grid.block * len(columns) + 24, 560)
    heading = textwrap.wrap(_clean(gallery.title), width // 9) or [""]
    note = "\n".join(textwrap.wrap(_clean(" · ".join(_notes(gallery, shown=len(strips)))), width // 6))
    top = 14 + 18 * len(heading) + (13 * (note.count("\n") + 1) if note else 0) + 12
    height = top + max((sum(heights[i] for i in column) for column in columns), default=20) + 8
    figure = Figure((width / GALLERY_DPI, height / GALLERY_DPI), dpi=GALLERY_DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.text(14, 12, "\n".join(heading), va="top", fontsize=11, fontweight="bold")
    axes.text(14, 14 + 18 * len(heading), note, va="top", fontsize=7.5, alpha=0.8)
    for number, column in enumerate(columns):
        y = top
        for i in column:
            _draw_strip(axes, strips[i], grid, gallery.scale, theme, corner=(14 + number * grid.block, y))
            y += heights[i]
    axes.set(xlim=(0, width), ylim=(height, 0))
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
    most = max((len(strip.pictures) for strip in strips), default=1)
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
    return _clean({"plain": "", "good": "✓ ", "bad": "✗ "}[picture.tone] + picture.caption).strip()


def _draw_strip(axes: Axes, strip: Strip, grid: _Grid, scale: int, theme: _Theme, *, corner: tuple[int, int]) -> None:
    from matplotlib.patches import Rectangle

    left, top = corner
    label = "\n".join(textwrap.wrap(_short(strip.label, most=72), max(8, (grid.label - 10) // 6))[:3])
    axes.text(left, top + 2, label, va="top", fontsize=8.5)
    note = "\n".join(textwrap.wrap(_clean(strip.note), max(8, (grid.label - 8) // 5))[:3])
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
        axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=frame, linewidth=thick))
        if picture.box is not None:
            upper, lower, first, last = (edge * scale for edge in picture.box)
            place, across, down = (x + first, y + upper), last - first, lower - upper
            # Two lines, dark under light: one of them is seen on any picture.
            axes.add_patch(Rectangle(place, across, down, fill=False, edgecolor="#000000", linewidth=2.2))
            axes.add_patch(Rectangle(place, across, down, fill=False, edgecolor="#ffd23f", linewidth=1.1))
        caption = "\n".join(textwrap.wrap(_caption(picture), max(6, int((grid.cell - 4) / 5.4)))[: max(grid.lines, 1)])
        axes.text(x, y + grid.picture + 3, caption, va="top", fontsize=6.8, linespacing=1.05)


def _coloured(image: UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Grey pictures as colour ones, so that 0 is black and 255 white whatever the picture holds."""
    if image.ndim == 2:  # noqa: PLR2004 dimensions
        return np.asarray(np.repeat(image[..., None], 3, axis=2))
    return image
