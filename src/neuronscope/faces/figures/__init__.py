"""Charts, panels, networks and galleries as pictures: files for papers and slides, and inline SVG for reports.

One drawing of a chart serves all uses (`draw_charts`). Series differ by marker, dash or hatch as well as by colour,
maps grow evenly in lightness, and every figure is read without clipping. Nothing here touches pyplot, so nothing is
left behind in the process and a display is never needed; matplotlib is imported when the first picture is drawn.
"""

from neuronscope.faces.figures.charts import draw_chart
from neuronscope.faces.figures.drawing import ChartDrawing, Drawings, chart_svg, describe, draw_charts
from neuronscope.faces.figures.files import save_figures
from neuronscope.faces.figures.galleries import draw_gallery
from neuronscope.faces.figures.networks import draw_network
from neuronscope.faces.figures.panels import draw_panel

__all__ = [
    "ChartDrawing",
    "Drawings",
    "chart_svg",
    "describe",
    "draw_chart",
    "draw_charts",
    "draw_gallery",
    "draw_network",
    "draw_panel",
    "save_figures",
]
