"""The charts and galleries of a page as picture files, for papers and slides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from neuronscope import Chart, Gallery, Page, StorageError
from neuronscope.faces.figures.charts import compose_chart
from neuronscope.faces.figures.galleries import GALLERY_DPI, compose_gallery
from neuronscope.faces.figures.style import THEMES, fonts_may_lack_glyphs, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Format = Literal["png", "svg", "pdf"]
RESOLUTION = 180
"""Dots per inch of PNG files."""


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
                with style(THEMES["light"], salt=block.name):
                    figure = compose_chart(block, THEMES["light"], title=block.title)
                    written += [_save(figure, folder / f"{block.name}.{kind}", kind=kind) for kind in formats]
            elif isinstance(block, Gallery):
                with style(THEMES["light"]):
                    figure = compose_gallery(block, THEMES["light"], most_rows=120)
                    # A whole multiple of the gallery's own resolution keeps every magnified pixel square.
                    written.append(_save(figure, folder / f"{block.name}.png", kind="png", dpi=2 * GALLERY_DPI))
    except OSError as error:
        message = (
            f"the figures cannot be written to '{folder}': a writable folder was expected, the system says: {error}. "
            "Choose another output folder or make room."
        )
        raise StorageError(message) from error
    return written


def _save(figure: Figure, path: Path, *, kind: Format, dpi: int = RESOLUTION) -> Path:
    """Write one file; the same figure gives the same bytes (no date inside)."""
    metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
    with fonts_may_lack_glyphs():
        figure.savefig(path, format=kind, dpi=dpi, metadata=metadata)
    return path
