"""The charts, panels, networks and galleries of a page as picture files, for papers and slides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from neuronscope import Gallery, Page, StorageError
from neuronscope.faces.figures.drawing import Drawable, Drawings, Format, drawing_of
from neuronscope.faces.figures.galleries import save_gallery


def save_figures(
    page: Page, folder: Path, *, formats: Sequence[Format] = ("png", "svg"), drawings: Drawings | None = None
) -> list[Path]:
    """Each chart, panel, network and gallery of a page as `folder/NAME.FORMAT`, in page order; galleries as PNG only.

    Args:
        page: what to draw.
        folder: made when it does not exist.
        formats: file formats of all but galleries.
        drawings: charts drawn already, by `draw_charts(page)`; the others are drawn here.

    Raises:
        StorageError: the folder cannot be written to.
    """
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for block in page.blocks:
            if isinstance(block, Drawable):
                drawing = drawing_of(block, drawings)
                written += [drawing.save(folder / f"{block.name}.{kind}", kind=kind) for kind in formats]
            elif isinstance(block, Gallery):
                written.append(save_gallery(block, folder / f"{block.name}.png"))
    except OSError as error:
        message = (
            f"the figures cannot be written to '{folder}': a writable folder was expected, the system says: {error}. "
            "Choose another output folder or make room."
        )
        raise StorageError(message) from error
    return written
