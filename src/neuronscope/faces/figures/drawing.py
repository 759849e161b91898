"""One drawing of a chart, panel or network for all its uses: picture files, and the SVG inside a report.

Composing a chart and finding the places of its parts takes as long as writing it, and SVG for a file differs from SVG
for a page by its title, ground and ink only. So each chart of a page is drawn once, and handed to whoever shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from neuronscope import Chart, Network, Page, Panel
from neuronscope.faces.figures.charts import RESOLUTION, chart_title_height, compose_chart, describe_chart
from neuronscope.faces.figures.inline import Words, inline_svg
from neuronscope.faces.figures.networks import compose_network, describe_network, network_title_height
from neuronscope.faces.figures.panels import compose_panel, describe_panel, panel_title_height
from neuronscope.faces.figures.style import THEMES, Theme, clean, fonts_may_lack_glyphs, style
from neuronscope.faces.figures.trees import compose_trees, describe_trees, trees_title_height

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Format = Literal["png", "svg", "pdf"]
Drawable = Chart | Panel | Network
LIGHT = THEMES["light"]


@dataclass(frozen=True, eq=False)
class ChartDrawing:
    """A chart, panel or network that is drawn when it is first asked for, and then kept.

    Attributes:
        chart: what is drawn.
    """

    chart: Drawable

    @cached_property
    def figure(self) -> Figure:
        """The chart as a figure, everything in its place."""
        with style(LIGHT):
            return _compose(self.chart, LIGHT)

    @cached_property
    def svg(self) -> str:
        """The chart as an SVG file: dark on white, with title, text as text; no date inside."""
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        written = StringIO()
        # The name makes ids that are the same each time.
        with style(LIGHT, salt=self.chart.name), fonts_may_lack_glyphs():
            FigureCanvasSVG(self.figure).print_svg(written, metadata={"Date": None})  # type: ignore[no-untyped-call]
        self.figure.set_dpi(RESOLUTION)
        return written.getvalue()

    def inline(self, *, prefix: str) -> str:
        """The chart as an SVG element for a page: see `chart_svg`."""
        words = Words(self.chart.title, describe(self.chart))
        return inline_svg(self.svg, words, prefix=prefix, ink=LIGHT.ink, cut=_title_height(self.chart))

    def save(self, path: Path, *, kind: Format) -> Path:
        """Write one file; the same chart gives the same bytes.

        Raises:
            OSError: the file cannot be written.
        """
        if kind == "svg":
            path.write_text(self.svg, encoding="utf-8")
            return path
        with style(LIGHT, salt=self.chart.name), fonts_may_lack_glyphs():
            if kind == "pdf":
                self.figure.savefig(path, format="pdf", metadata={"CreationDate": None})
            else:
                self._save_png(path)
        return path

    def _save_png(self, path: Path) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        # Straight to the canvas: `savefig` would draw everything once more before, to lay it out.
        FigureCanvasAgg(self.figure).print_png(path, pil_kwargs={"compress_level": PNG_LEVEL})  # type: ignore[no-untyped-call]


PNG_LEVEL = 4
"""Effort of compression, 1 to 9: most of the gain at little time."""
Drawings = Mapping[str, ChartDrawing]
"""The drawings of a page, by the names of the charts."""


def describe(chart: Drawable) -> str:
    """A chart, panel or network in a sentence or a few, for readers who cannot see it.

    Example:
        >>> import numpy as np
        >>> from neuronscope import Axis, Series
        >>> loss = Chart("loss", "Loss", "line", (Series("train", np.array([2.0, 1.0])),), Axis("epoch"), Axis("loss"))
        >>> describe(loss)
        'Line chart of loss against epoch; series: train; values from 1 to 2.'
    """
    if isinstance(chart, Panel):
        return clean(describe_panel(chart))
    if isinstance(chart, Network):
        return clean(describe_trees(chart) if chart.form == "tree" else describe_network(chart))
    return describe_chart(chart)


def _compose(chart: Drawable, theme: Theme) -> Figure:
    if isinstance(chart, Panel):
        return compose_panel(chart, theme)
    if isinstance(chart, Network):
        return compose_trees(chart, theme) if chart.form == "tree" else compose_network(chart, theme)
    return compose_chart(chart, theme)


def _title_height(chart: Drawable) -> float:
    """Height of the title, in inches."""
    if isinstance(chart, Panel):
        return panel_title_height(chart)
    if isinstance(chart, Network):
        return trees_title_height(chart) if chart.form == "tree" else network_title_height(chart)
    return chart_title_height(chart)


def draw_charts(page: Page) -> Drawings:
    """The charts, panels and networks of a page, for `save_figures` and `write_report`: each is drawn once for both.

    Example:
        >>> import numpy as np
        >>> from neuronscope import Axis, Series
        >>> loss = Chart("loss", "Loss", "line", (Series("train", np.array([2.0, 1.0])),), Axis("epoch"), Axis("loss"))
        >>> list(draw_charts(Page("Training", "", (loss,))))
        ['loss']
    """
    return {block.name: ChartDrawing(block) for block in page.blocks if isinstance(block, Drawable)}


def drawing_of(chart: Drawable, drawings: Drawings | None) -> ChartDrawing:
    """The drawing of a chart among those made already, or else a new one."""
    made = (drawings or {}).get(chart.name)
    return made if made is not None and made.chart is chart else ChartDrawing(chart)


def chart_svg(chart: Drawable, *, prefix: str) -> str:
    """A chart, panel or network as an SVG element for an HTML page (without title: the page gives the caption).

    Text stays text and takes the font of the page; text and axes take its colour (`currentColor`); the ground is clear.
    There are no style attributes and no links, so a strict Content-Security-Policy can hold. The size is a `viewBox` in
    points; give the element a width in the style sheet. The same chart and prefix give the same bytes.

    Args:
        chart: what to draw.
        prefix: begins every id in the element; unique on the page.

    Example:
        >>> import numpy as np
        >>> from neuronscope import Axis, Series
        >>> loss = Chart("loss", "Loss", "line", (Series("train", np.array([2.0, 1.0])),), Axis("epoch"), Axis("loss"))
        >>> chart_svg(loss, prefix="c1")[:29]
        '<svg viewBox="0 0 388.8 244.8'
    """
    return ChartDrawing(chart).inline(prefix=prefix)
