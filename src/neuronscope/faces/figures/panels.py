"""Several charts as one figure: a cell for each, in rows, with axes in line and one size for all numbers in cells.

Each chart is drawn and laid out in its cell just as it is alone, at a smaller size. The figure grows with its charts,
so that none of them becomes unreadable. What is the same for all, a legend or a colour bar, is there once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from neuronscope import Chart, Panel
from neuronscope.faces.figures.arrange import EDGE, Margins, arrange, arrange_bar
from neuronscope.faces.figures.charts import (
    GROUND_ID,
    RESOLUTION,
    TITLE_ID,
    Layout,
    Sizes,
    describe_chart,
    draw_in,
    explain,
    full_size,
    legend_height,
    legend_names,
    plan,
    title_height,
    title_lines,
)
from neuronscope.faces.figures.marks import LARGEST_NUMBER, common_range, draw_bar, longest_number
from neuronscope.faces.figures.style import THEMES, Theme, ThemeName, fonts_may_lack_glyphs, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.text import Text

BAR_ROOM = 1.05
"""Width of the cell of a shared colour bar, in inches."""
DIGIT = 0.062
"""Width of a digit or sign in the cells of a map, in inches."""
COLUMN_GAP, ROW_GAP = 0.12, 0.14
"""Free between the charts of a panel, more than around a chart that stands alone, in inches."""
TITLE_SIZE = 12


def draw_panel(panel: Panel, *, theme: ThemeName = "light") -> Figure:
    """A panel as a matplotlib figure: its title, and a cell for each chart.

    Args:
        panel: what to draw.
        theme: ink on white, or light ink on a near-black ground.

    Example:
        >>> import numpy as np
        >>> from neuronscope import Axis, Series
        >>> loss = Chart("loss", "Loss", "line", (Series("", np.array([2.0, 1.0])),), Axis("epoch"), Axis("loss"))
        >>> figure = draw_panel(Panel("two", "Two runs", (loss, loss), columns=2))
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['loss', 'loss']
    """
    with style(THEMES[theme]):
        return compose_panel(panel, THEMES[theme])


def describe_panel(panel: Panel) -> str:
    """A panel in a sentence for each chart: see `describe`."""
    count = len(panel.charts)
    charts = (f"{chart.title}: {describe_chart(chart)}" for chart in panel.charts)
    return f"{count} {'chart' if count == 1 else 'charts'}. {' '.join(charts)}"


def panel_title_height(panel: Panel) -> float:
    """Height of the title of a panel, in inches."""
    return _plan(panel).title


def compose_panel(panel: Panel, theme: Theme) -> Figure:
    """The figure of a panel in the settings of `style`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

    grid = _plan(panel)
    across, down = sum(grid.widths), grid.title + sum(grid.heights) + grid.legend
    figure = Figure((across, down), dpi=RESOLUTION)
    canvas = FigureCanvasAgg(figure)
    figure.patch.set_gid(GROUND_ID)
    heading = "\n".join(title_lines(panel.title, across * 11 / TITLE_SIZE))
    if heading:
        look: dict[str, Any] = {"va": "top", "fontsize": TITLE_SIZE, "fontweight": "bold", "gid": TITLE_ID}
        figure.text(EDGE / across, 1 - EDGE / down, heading, **look)
    # The first row is the title's, the last one the common legend's, even where they have no height.
    down_to = [grid.title, *grid.heights, grid.legend]
    places = GridSpec(len(down_to), len(grid.widths), figure, height_ratios=down_to, width_ratios=grid.widths)
    cells = []
    for i, (chart, layout) in enumerate(zip(grid.charts, grid.layouts, strict=True)):
        cell = figure.add_subfigure(places[1 + i // grid.columns, i % grid.columns], frameon=False)
        axes, title = draw_in(cell, chart, layout, theme)
        if grid.legend and legend_names(chart):
            cell.legends[0].remove()
        has_bar = chart.kind == "heatmap" and not grid.shared
        if has_bar:
            draw_bar(cell, axes, chart)
        cells.append(_Cell(chart, cell, axes, title, has_bar))
    if grid.legend:
        explain(figure, next(cell.axes for cell in cells if legend_names(cell.chart)), across)
    maps = [cell for cell in cells if cell.chart.kind == "heatmap"]
    with fonts_may_lack_glyphs():
        renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
        margins = _in_line(cells, grid.columns, renderer)
        if grid.shared:
            side = figure.add_subfigure(places[1:-1, -1], frameon=False)
            bar = draw_bar(side, maps[0].axes, maps[0].chart)
            arrange_bar(side, bar, renderer, margins=Margins(lower=margins[-1].lower, upper=margins[0].upper))
        _fit_numbers(maps, renderer)
    return figure


@dataclass(frozen=True)
class _Grid:
    """What a panel is made of: charts and their layouts in order, and sizes in inches.

    Attributes:
        columns: of charts.
        widths: of the columns; after them, that of the shared colour bar.
        heights: of the rows.
        title: height of the title.
        legend: height of the legend for all charts, 0 where each has its own or none.
        shared: whether there is one colour bar for all heat maps.
    """

    charts: list[Chart]
    layouts: list[Layout]
    columns: int
    widths: list[float]
    heights: list[float]
    title: float
    legend: float
    shared: bool


@dataclass(frozen=True)
class _Cell:
    """A drawn chart in its part of the figure."""

    chart: Chart
    figure: SubFigure
    axes: Axes
    title: Text
    has_bar: bool


def _plan(panel: Panel) -> _Grid:
    """Sizes: each column is as wide as its widest chart needs, each row as high as its highest."""
    charts = list(panel.charts)
    maps = [chart for chart in charts if chart.kind == "heatmap"]
    shared = panel.scale == "shared" and len(maps) > 1
    if shared:
        limits = common_range(maps)
        charts = [
            replace(chart, value=replace(chart.value, limits=limits)) if chart.kind == "heatmap" else chart
            for chart in charts
        ]
    # Numbers of a common size need cells of a common size.
    number = max(0.26, 0.06 + DIGIT * max((longest_number(chart) for chart in maps), default=0))
    sizes = Sizes(
        base=(4.2, 2.75),
        smallest_map=(2.4, 2.0) if shared else (3.4, 2.2),
        cell=(0.2, 0.18),
        annotated=(number, 0.215),
        beside_map=0.7 if shared else 1.7,
    )
    layouts = [plan(chart, sizes) for chart in charts]
    columns = min(panel.columns, len(charts))
    widths = [max(layout.size[0] for layout in layouts[i::columns]) for i in range(columns)]
    layouts = [replace(layout, size=(widths[i % columns], layout.size[1])) for i, layout in enumerate(layouts)]
    tall = [full_size(chart, layout)[1] for chart, layout in zip(charts, layouts, strict=True)]
    explained = [chart for chart in charts if legend_names(chart)]
    common = len(explained) > 1 and len({(chart.kind, *legend_names(chart)) for chart in explained}) == 1
    if common:
        tall = [one - legend_height(chart, layout.size[0])
                for one, chart, layout in zip(tall, charts, layouts, strict=True)]  # fmt: skip
    heights = [max(tall[i : i + columns]) + ROW_GAP for i in range(0, len(tall), columns)]
    across = [width + COLUMN_GAP for width in widths] + ([BAR_ROOM] if shared else [])
    title = title_height(panel.title, sum(across) * 11 / TITLE_SIZE)
    legend = legend_height(explained[0], sum(across)) + EDGE if common else 0.0
    return _Grid(charts, layouts, columns, across, heights, title, legend, shared)


def _in_line(cells: list[_Cell], columns: int, renderer: RendererBase) -> list[Margins]:
    """Set the places of all charts: axes of a column begin and those of a row begin and end at the same line.

    Returns:
        the margins of the cells.
    """
    alone = [arrange(cell.figure, cell.axes, cell.title, renderer) for cell in cells]
    rows = math.ceil(len(cells) / columns)
    left = [max(one.left for one in alone[i::columns]) for i in range(columns)]
    # The colour bars of some need no room beside the others.
    right = [
        max((one.right for one, cell in zip(alone[i::columns], cells[i::columns], strict=True) if not cell.has_bar),
            default=0.0) + COLUMN_GAP
        for i in range(columns)
    ]  # fmt: skip
    lower = [max(one.lower for one in alone[i * columns : (i + 1) * columns]) for i in range(rows)]
    upper = [max(one.upper for one in alone[i * columns : (i + 1) * columns]) + ROW_GAP for i in range(rows)]
    return [
        arrange(
            cell.figure, cell.axes, cell.title, renderer,
            least=Margins(left[i % columns], lower[i // columns], right[i % columns], upper[i // columns]),
        )
        for i, cell in enumerate(cells)
    ]  # fmt: skip


def _fit_numbers(maps: list[_Cell], renderer: RendererBase) -> None:
    """Numbers in the cells of all maps at one size, the largest at which each fits its cell."""
    texts = [(text, cell) for cell in maps for text in cell.axes.texts]
    fits = [LARGEST_NUMBER]
    # All maps have cells of their own size, in which the longest text counts.
    for cell in maps:
        longest = max(cell.axes.texts, key=lambda text: len(text.get_text()), default=None)
        if longest is not None:
            box, frame = longest.get_window_extent(renderer), cell.axes.bbox
            rows, columns = cell.axes.images[0].get_size()
            room = min(0.9 * frame.width / columns / box.width, 0.86 * frame.height / rows / box.height)
            fits.append(room * float(longest.get_fontsize()))
    for text, _ in texts:
        text.set_fontsize(min(fits))
