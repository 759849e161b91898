"""Places for the parts of a chart, so that nothing is cut off and nothing overlaps: axes, colour bar, captions, title.

The parts are few and known, so that measuring them once, at most twice, is enough; matplotlib's general solver takes
longer than drawing the chart. A chart of a panel is laid out in the same way inside its cell, a part of the figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.backend_bases import RendererBase
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

EDGE = 0.07
"""Free at each edge of the figure, in inches."""
CAPTION_GAP = 0.055
"""Between tick labels and the caption of an axis, in inches."""
TITLE_GAP = 0.11
"""Between axes and title, in inches."""
BAR_GAP, BAR_WIDTH, TALLEST_BAR = 0.1, 0.17, 6.0
"""Between a map and its colour bar, and the size of the bar, in inches."""
SMALLEST = 0.4
"""No axes are narrower or lower, in inches, however long the labels are."""


@dataclass(frozen=True)
class _Reach:
    """How far tick labels and the like reach beyond axes, and the thickness of the captions, in inches."""

    left: float
    below: float
    right: float
    above: float
    x_caption: float
    y_caption: float


@dataclass(frozen=True)
class Margins:
    """Between the edges of a figure, or of a cell of it, and the axes inside, in inches."""

    left: float = 0.0
    lower: float = 0.0
    right: float = 0.0
    upper: float = 0.0


def arrange(
    figure: Figure | SubFigure, axes: Axes, title: Text, renderer: RendererBase, *, least: Margins | None = None
) -> Margins:
    """Set the places of everything in a figure with one chart, or in a cell of a figure.

    Args:
        figure: holds `axes`, after them at most one colour bar, and at most one legend.
        axes: of the chart.
        title: of the axes.
        renderer: measures text.
        least: margins that are kept even where less is needed, so that axes of several cells stand in line.

    Returns:
        the margins of the axes.
    """
    least = least or Margins()
    bar = next((other for other in figure.axes if other is not axes), None)
    width, height = size_of(figure)
    title_box = _extent(title, figure, renderer)
    legend = sum(one.get_window_extent(renderer).height / figure.dpi + EDGE for one in figure.legends)
    inside: tuple[float, float, float, float] = (0.7, 0.6, width - 0.2, height - 0.5)
    _place(axes, inside, figure)
    for _ in range(2):
        ticks = _chosen(figure)
        own = _reach(axes, figure, renderer)
        left = max(EDGE + own.y_caption + own.left, least.left)
        right = width - max(EDGE + own.right, least.right)
        lower = max(EDGE + legend + own.x_caption + own.below, least.lower)
        above = max(own.above, TITLE_GAP) if title_box.width else own.above
        if bar is not None:
            beside = _reach(bar, figure, renderer)
            taken = EDGE + max(own.right, BAR_GAP + BAR_WIDTH + beside.right + beside.y_caption)
            right = width - max(taken, least.right)
            above = max(above, beside.above)
        upper = height - max(EDGE + title_box.height + above, least.upper)
        inside = (left, lower, max(right, left + SMALLEST), max(upper, lower + SMALLEST))
        _place(axes, inside, figure)
        if bar is not None:
            tall = min(inside[3] - inside[1], TALLEST_BAR)
            start = inside[2] + BAR_GAP
            _place(bar, (start, inside[3] - tall, start + BAR_WIDTH, inside[3]), figure)
        # Once more where matplotlib now chooses other ticks, or where names of points reach elsewhere.
        if _chosen(figure) == ticks and not _named(axes):
            break
    if title_box.width:
        # A title that is too long for the space above the axes begins further to the left.
        across, up = inside[2] - inside[0], inside[3] - inside[1]
        title.set_position((min(0.0, (width - EDGE - title_box.width - inside[0]) / across), 1 + (above / up)))
    _caption(axes.xaxis, ((inside[0] + inside[2]) / 2, inside[1] - own.below - CAPTION_GAP), figure, renderer)
    _caption(axes.yaxis, (inside[0] - own.left - CAPTION_GAP, (inside[1] + inside[3]) / 2), figure, renderer)
    if bar is not None:
        frame = bar.get_position()
        at = (frame.x1 * width + beside.right + CAPTION_GAP, (frame.y0 + frame.y1) / 2 * height)
        _caption(bar.yaxis, at, figure, renderer)
    return Margins(inside[0], inside[1], width - inside[2], height - inside[3])


def arrange_bar(cell: SubFigure, bar: Axes, renderer: RendererBase, *, margins: Margins) -> None:
    """Set the places of a colour bar for several charts, and of its caption.

    Args:
        cell: a part of a figure, for the bar alone.
        bar: axes of the bar.
        renderer: measures text.
        margins: below, at least, and above the bar; it is no taller than a bar need be.
    """
    start = EDGE
    upper = size_of(cell)[1] - margins.upper
    tall = min(upper - margins.lower, TALLEST_BAR)
    _place(bar, (start, upper - tall, start + BAR_WIDTH, upper), cell)
    beside = _reach(bar, cell, renderer)
    at = (start + BAR_WIDTH + beside.right + CAPTION_GAP, upper - tall / 2)
    _caption(bar.yaxis, at, cell, renderer)


def size_of(figure: Figure | SubFigure) -> tuple[float, float]:
    """Width and height of a figure or of a cell of it, in inches."""
    return float(figure.bbox.width / figure.dpi), float(figure.bbox.height / figure.dpi)


def _chosen(figure: Figure | SubFigure) -> list[list[float]]:
    """Where the ticks of all axes are, in data."""
    return [axis.get_majorticklocs().tolist() for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]


def _named(axes: Axes) -> bool:
    """Whether texts inside the axes may stand out: names of points do, numbers in the cells of a map do not."""
    return bool(axes.texts) and not axes.images


def _place(axes: Axes, edges: tuple[float, float, float, float], figure: Figure | SubFigure) -> None:
    """Axes within (left, lower, right, upper), in inches."""
    width, height = size_of(figure)
    left, lower, right, upper = edges
    axes.set_position((left / width, lower / height, (right - left) / width, (upper - lower) / height))


def _reach(axes: Axes, figure: Figure | SubFigure, renderer: RendererBase) -> _Reach:
    """What stands around axes at their present place."""
    from matplotlib.transforms import Bbox

    frame = axes.bbox
    boxes = [frame, *(_ticks(axis, renderer) or frame for axis in (axes.xaxis, axes.yaxis))]
    if _named(axes):
        boxes += [text.get_window_extent(renderer) for text in axes.texts]
    around = Bbox.union(boxes)
    dpi = figure.dpi
    captions = [_extent(axis.label, figure, renderer) for axis in (axes.xaxis, axes.yaxis)]
    return _Reach(
        (frame.x0 - around.x0) / dpi,
        (frame.y0 - around.y0) / dpi,
        (around.x1 - frame.x1) / dpi,
        (around.y1 - frame.y1) / dpi,
        captions[0].height + CAPTION_GAP if captions[0].width else 0.0,
        captions[1].width + CAPTION_GAP if captions[1].width else 0.0,
    )


def _ticks(axis: Axis, renderer: RendererBase) -> Bbox | None:
    """Where the tick labels of an axis are, without its caption: placing that anew each time is what takes long."""
    axis.set_label_coords(0.0, 0.0)
    axis.label.set_visible(False)
    box = axis.get_tightbbox(renderer)
    axis.label.set_visible(True)
    return box


def _extent(text: Text, figure: Figure | SubFigure, renderer: RendererBase) -> Bbox:
    """Size of a text, in inches."""
    from matplotlib.transforms import Bbox

    if not text.get_text():
        return Bbox.from_bounds(0, 0, 0, 0)
    box = text.get_window_extent(renderer)
    return Bbox.from_bounds(0, 0, box.width / figure.dpi, box.height / figure.dpi)


def _caption(axis: Axis, at: tuple[float, float], figure: Figure | SubFigure, renderer: RendererBase) -> None:
    """The caption of an axis at a place in inches, moved along the axis where it would leave the figure."""
    x, y = at
    box = _extent(axis.label, figure, renderer)
    width, height = size_of(figure)
    if axis is axis.axes.xaxis:
        x = max(min(x, width - EDGE - box.width / 2), EDGE + box.width / 2)
    else:
        y = max(min(y, height - EDGE - box.height / 2), EDGE + box.height / 2)
    corner = figure.bbox
    at = (x + corner.x0 / figure.dpi, y + corner.y0 / figure.dpi)
    axis.set_label_coords(*at, transform=figure.dpi_scale_trans)
