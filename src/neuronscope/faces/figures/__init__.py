"""Charts and galleries as pictures: files for papers and slides, and inline SVG for reports.

One drawing of a chart serves all uses (`draw_charts`). Series differ by marker, dash or hatch as well as by colour,
maps grow evenly in lightness, and every figure is read without clipping. Nothing here touches pyplot, so nothing is
left behind in the process and a display is never needed; matplotlib is imported when the first picture is drawn.
"""

from neuronscope.faces.figures.charts import describe, draw_chart
from neuronscope.faces.figures.drawing import ChartDrawing, Drawings, chart_svg, draw_charts
from neuronscope.faces.figures.files import save_figures
from neuronscope.faces.figures.galleries import draw_gallery

__all__ = [
    "ChartDrawing",
    "Drawings",
    "chart_svg",
    "describe",
    "draw_chart",
    "draw_charts",
    "draw_gallery",
    "save_figures",
]
