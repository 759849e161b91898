"""The folder a run leaves behind: `result.zarr`, `report.html`, `tables/`, `figures/` and, when asked for, `original/`.

The result is saved before anything is drawn, so that a full disk or a failing picture costs no computation:
`neuronscope report DIR` draws the rest again.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from neuronscope import STUDIES, Page, Provenance, Result, StorageError
from neuronscope.faces.figures import draw_charts, save_figures
from neuronscope.faces.html import write_report
from neuronscope.faces.tables import write_tables

RESULT = "result.zarr"
REPORT = "report.html"
RECIPE = "recipe.toml"
_DRAWN = ("tables", "figures", "original")

Original = Literal["none", "export"]
"""Whether to write the files of the program a study comes from."""


@dataclass(frozen=True)
class Outputs:
    """What was written.

    Attributes:
        page: what the report shows.
        report: the HTML file.
        tables, figures, original: the other files; `original` is empty unless it was asked for.
    """

    page: Page
    report: Path
    tables: tuple[Path, ...]
    figures: tuple[Path, ...]
    original: tuple[Path, ...] = ()


def prepare_folder(folder: Path) -> Path:
    """A folder that exists and takes files, found out by writing one: before hours of work rather than after.

    Raises:
        StorageError: it cannot be made, or nothing can be written to it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as probe:
            probe.write(b"neuronscope")
            probe.flush()
    except OSError as error:
        message = (
            f"cannot write to the output folder {folder}: {error.strerror or error}. Expected a folder that can be "
            "made and written to: choose another --out"
        )
        raise StorageError(message) from error
    return folder


def write_outputs(result: Result, folder: Path, *, original: Original = "none") -> Outputs:
    """Save a result, then draw everything its page has to show.

    Raises:
        StorageError: something cannot be written; the result itself is saved by then unless the message says so.
    """
    again = (folder / RESULT).exists()
    result.save(folder / RESULT)
    if again:
        # What an earlier run drew here must not be taken for what this one found.
        for name in _DRAWN:
            shutil.rmtree(folder / name, ignore_errors=True)
    return draw_outputs(result, folder, original=original)


def draw_outputs(result: Result, folder: Path, *, original: Original = "none") -> Outputs:
    """Everything but the result itself: report, tables, figures and, when asked for, the original files.

    Raises:
        StorageError: something cannot be written.
    """
    drawn = draw_page(result.page(), folder, meta=meta(result.provenance))
    if original == "none":
        return drawn
    study = STUDIES[result.provenance.study]
    files = [
        *study.export_original(result, folder / "original"),
        *_copied(study.original_figures, drawn.figures, folder / "original", dataset=_dataset(result.provenance.data)),
    ]
    return replace(drawn, original=tuple(files))


def _dataset(data: str) -> str:
    """The images' name as part of a file name: `mnist` of `mnist:test[1000]`."""
    return re.sub(r"[^\w-]+", "-", data.partition(":")[0]) or "images"


def _copied(names: Mapping[str, str], figures: Sequence[Path], target: Path, *, dataset: str) -> list[Path]:
    """Figures under the names that the original program gives them; of several that fit, the first of the page.

    `{dataset}` in a name stands for what the images are called.
    """
    written = []
    for pattern_name, pattern in names.items():
        name = pattern_name.replace("{dataset}", dataset)
        figure = next((path for path in figures if fnmatch(path.name, pattern + Path(name).suffix)), None)
        if figure is not None:
            written.append(Path(shutil.copyfile(figure, target / name)))
    return written


def draw_page(
    page: Page, folder: Path, *, meta: Mapping[str, str] | None = None, links: Sequence[tuple[str, str]] = ()
) -> Outputs:
    """A page as report, tables and figures.

    Args:
        page: what to show.
        folder: where to; made when it does not exist.
        meta: provenance to fold away at the end of the report.
        links: (text, relative address) of files beside the report; its tables and figures are linked in any case.

    Raises:
        StorageError: something cannot be written.
    """
    tables = write_tables(page, folder / "tables")
    drawings = draw_charts(page)
    figures = save_figures(page, folder / "figures", drawings=drawings)
    files = [(f"{path.parent.name}/{path.name}", f"{path.parent.name}/{path.name}") for path in tables]
    recipe = [(RECIPE, RECIPE)] if (folder / RECIPE).exists() else []
    report = write_report(page, folder / REPORT, meta=meta, links=[*links, *recipe, *files], drawings=drawings)
    return Outputs(page, report, tuple(tables), tuple(figures))


def meta(provenance: Provenance) -> dict[str, str]:
    """Where a result comes from, line by line, as a report states it."""
    spec = "; ".join(f"{name} = {value}" for name, value in provenance.spec.items())
    return {
        "study": provenance.study,
        "options": spec,
        "deviations": ", ".join(provenance.legacy) or "none",
        "network": f"{provenance.subject} ({provenance.subject_fingerprint})",
        "images": f"{provenance.data} ({provenance.data_fingerprint}): {provenance.images:,} read, "
        f"{len(provenance.skipped):,} left out",
        **{name: str(value) for name, value in provenance.circumstances.items()},
        "versions": ", ".join(f"{name} {version}" for name, version in provenance.versions.items()),
        "time": f"{provenance.seconds:.1f} s",
        "peak memory": f"{provenance.peak_memory / 2**20:,.0f} MiB",
    }
