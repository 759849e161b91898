"""One drawing of a chart for all its uses: picture files, and the SVG inside a report.

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

from neuronscope import Chart, Page
from neuronscope.faces.figures.charts import RESOLUTION, compose_chart
from neuronscope.faces.figures.inline import inline_svg
from neuronscope.faces.figures.style import THEMES, fonts_may_lack_glyphs, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Format = Literal["png", "svg", "pdf"]
LIGHT = THEMES["light"]


@dataclass(frozen=True, eq=False)
class ChartDrawing:
    """A chart that is drawn when it is first asked for, and then kept.

    Attributes:
        chart: what is drawn.
    """

    chart: Chart

    @cached_property
    def figure(self) -> Figure:
        """The chart as a figure, everything in its place."""
        with style(LIGHT):
            return compose_chart(self.chart, LIGHT)

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
        return inline_svg(self.svg, self.chart, prefix=prefix, ink=LIGHT.ink)

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


def draw_charts(page: Page) -> Drawings:
    """The charts of a page, to be handed to `save_figures` and `write_report`, so that each is drawn once for both.

    Example:
        >>> import numpy as np
        >>> from neuronscope import Axis, Series
        >>> loss = Chart("loss", "Loss", "line", (Series("train", np.array([2.0, 1.0])),), Axis("epoch"), Axis("loss"))
        >>> list(draw_charts(Page("Training", "", (loss,))))
        ['loss']
    """
    return {block.name: ChartDrawing(block) for block in page.blocks if isinstance(block, Chart)}


def drawing_of(chart: Chart, drawings: Drawings | None) -> ChartDrawing:
    """The drawing of a chart among those made already, or else a new one."""
    made = (drawings or {}).get(chart.name)
    return made if made is not None and made.chart is chart else ChartDrawing(chart)


def chart_svg(chart: Chart, *, prefix: str) -> str:
    """A chart as an SVG element to be placed inside an HTML page (no title: the page gives the caption).

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
