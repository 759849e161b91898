"""The part of the page on single classes: the most sensitive ones, and their overlap with those predicted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from neuronscope.studies.sensitivity.page.classes import class_blocks
from neuronscope.studies.sensitivity.page.view import MEASURES, texts
from neuronscope.views import Axis, Block, Chart, Panel, Section, Series, Table, Text

_SHOWN = 3  # decimals of an overlap in a cell


def overlap_blocks(groups: Mapping[str, xr.Dataset], *, level: float, masks: Sequence[str]) -> Iterator[Block]:
    """Curves, names and overlaps; nothing for results without the group `classes`.

    Args:
        groups: of the result.
        level: coverage of intervals; findings count when q is below the rest.
        masks: of `overlap_masked`, in a few words.
    """
    classes = groups.get("classes")
    if classes is None:
        return
    yield Section(
        "Classes that react most",
        "Does damage that is guided by an augmentation drive predictions to the classes that are most sensitive to it?",
    )
    yield from class_blocks(classes, level=level)
    if "no_overlap" in classes.attrs:
        yield Text(f"Sensitive and predicted classes were not compared: {classes.attrs['no_overlap']}.", tone="note")
    if "overlap" not in groups:
        return
    table = groups["overlap"]
    yield Text(_explained(table))
    yield from _panel(
        table,
        "overlap",
        "Overlap without masks",
        Axis("sensitive classes of", ticks=tuple(texts(table["augmentation_name"]))),
        Axis("input", ticks=tuple(texts(table["input_name"]))),
        level=level,
    )
    yield _table(table, "overlap", "Overlap of sensitive with predicted classes, without masks", ("input", "sensitive"))
    if "overlap_masked" in groups:
        table = groups["overlap_masked"]
        yield from _panel(
            table,
            "overlap-masked",
            "Overlap under masks: of the same augmentation are the input, the mask, and the sensitive classes",
            Axis("mask", ticks=tuple(masks)),
            Axis("augmentation", ticks=tuple(texts(table["augmentation_name"]))),
            level=level,
        )
        yield _table(
            table.assign_coords(mask_name=("mask", np.array(list(masks), dtype=object))),
            "overlap-masked",
            "Overlap of sensitive with predicted classes, under masks",
            ("augmentation", "mask"),
        )


def _explained(table: xr.Dataset) -> str:
    return (
        f"Jaccard index of the {table.attrs['sensitive']} most sensitive classes with the {table.attrs['predicted']} "
        f"predicted ones, 0 to 1, mean over images; {table.attrs['chance']:.4f} is exact chance. The p-values put as "
        "many random classes in the place of the sensitive ones and keep the predictions, which favour some classes. "
        "Intervals are over classes of images."
    )


def _panel(table: xr.Dataset, name: str, title: str, x: Axis, y: Axis, *, level: float) -> Iterator[Block]:
    """A heat map for each value; what is not told from chance is hatched, and where nothing is, none is drawn."""
    told = np.nan_to_num(table["jaccard_q"].to_numpy(), nan=1.0) < 1 - level
    if not told.any():
        yield Text(
            f"{title}: none of {told.size:,} can be told from random classes (q < {1 - level:.2g}, Benjamini-Yekutieli "
            "over all of them). The table has their intervals.",
            tone="warning",
        )
        return
    cells = table["jaccard"].to_numpy()
    top = float(np.nanmax(cells, initial=0.0)) or 1.0
    charts = tuple(
        Chart(
            f"{name}-{value}",
            MEASURES[value],
            "heatmap",
            (Series(value, np.where(told[place], cells[place], np.nan).round(_SHOWN) + 0.0),),
            x,
            y,
            value=Axis("Jaccard index", limits=(0.0, top)),
            annotate=True,
        )
        for place, value in enumerate(texts(table["value_name"]))
    )
    count = int(told.sum())
    yield Panel(
        name,
        title,
        charts,
        columns=1,
        scale="shared",
        text=f"{count:,} of {told.size:,} are above random classes (q < {1 - level:.2g}, Benjamini-Yekutieli over "
        "all); the others are hatched.",
    )


def _table(table: xr.Dataset, name: str, title: str, columns: tuple[str, str]) -> Table:
    axes = table["jaccard"].dims[1:]
    value, row, column = (one.ravel() for one in np.indices(table["jaccard"].shape))
    measures = np.array([MEASURES[one] for one in texts(table["value_name"])], dtype=object)
    first, second = (np.array(texts(table[f"{axis}_name"]), dtype=object) for axis in axes)
    numbers = {
        title: table[field].to_numpy().ravel()
        for title, field in (
            ("Jaccard", "jaccard"),
            ("low", "jaccard_low"),
            ("high", "jaccard_high"),
            ("p", "jaccard_p"),
            ("q", "jaccard_q"),
        )
    }
    return Table(
        name,
        title,
        pd.DataFrame(
            {
                "value": measures[value],
                columns[0]: first[row],
                columns[1]: second[column],
                **numbers,
                "by chance": np.full(len(value), float(table.attrs["chance"])),
            }
        ),
        formats=dict.fromkeys(("Jaccard", "low", "high", "by chance"), ".4f"),
        help={
            "value": "by which the sensitive classes were chosen",
            "Jaccard": "mean over images, 0 to 1",
            "low": "lower limit over classes of images",
            "p": "one-sided, among random sets of classes",
            "q": "Benjamini-Yekutieli over the table",
            "by chance": "exact mean for random sets",
        },
        preset="-Jaccard",
    )
