"""Charts and galleries as pictures: files for papers and slides, and inline SVG for reports.

One drawing serves all uses. Series differ by marker, dash or hatch as well as by colour, maps grow evenly in lightness,
and every figure is read without clipping. Nothing here touches pyplot, so nothing is left behind in the process and a
display is never needed; matplotlib is imported when the first picture is drawn.
"""

from neuronscope.faces.figures.charts import describe, draw_chart
from neuronscope.faces.figures.files import save_figures
from neuronscope.faces.figures.galleries import draw_gallery
from neuronscope.faces.figures.inline import chart_svg

__all__ = ["chart_svg", "describe", "draw_chart", "draw_gallery", "save_figures"]
