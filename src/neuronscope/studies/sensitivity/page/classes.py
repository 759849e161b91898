"""Which classes react most to each augmentation: falling curves, their names with intervals, and what is shared."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr

from neuronscope.studies.sensitivity.page.view import MEASURES, View, texts
from neuronscope.views import Axis, Block, Chart, Panel, Section, Series, Table, Text


def classes(view: View) -> Iterator[Block]:
    """The part of the page, where the analysis was asked for."""
    table = view.groups.get("classes")
    if table is not None:
        yield Section("Classes that react most")
        yield from class_blocks(table, level=view.level)


def class_blocks(table: xr.Dataset, *, level: float) -> Iterator[Block]:
    """Curves and tables of a group `classes`; where there is nothing to show, why.

    Args:
        table: the group.
        level: coverage of its intervals.
    """
    if "missing" in table.attrs:
        yield Text(
            f"Nothing is said of single classes: {table.attrs['missing']}. Name the network's last layer with --layers "
            "in the sensitivity run, next to others.",
            tone="note",
        )
        return
    layer, count = str(table.attrs["layer"]), int(table.attrs["classes"])
    values = texts(table["value_name"])
    known = table["known"].to_numpy()
    left_out = [f"{count - known[place]:,} by {MEASURES[name]}" for place, name in enumerate(values)
                if known[place] < count]  # fmt: skip
    yield Text(
        f"Sensitivity of each of the {count:,} outputs of '{layer}', augmentations only. The outputs for some classes "
        "hardly vary, and what is said of them is noise: classes with a share far beyond 0 to 1, or an interval as "
        f"wide as a share can be, are left out ({', '.join(left_out) or 'none'})."
    )
    decay, named = table["decay"].to_numpy(), texts(table["augmentation_name"])
    charts = tuple(
        Chart(
            f"classes-{name}",
            MEASURES[name],
            "line",
            tuple(Series(own, decay[place, g], np.arange(1, decay.shape[2] + 1)) for g, own in enumerate(named)),
            Axis("place of the class"),
            Axis(MEASURES[name]),
        )
        for place, name in enumerate(values)
    )
    yield Panel(
        "class-decay",
        "The most sensitive classes of each augmentation, falling",
        charts,
        columns=2,
        text="A curve that falls fast is of an augmentation that few classes answer to. The largest of many noisy "
        "numbers are too large: the intervals are in the table.",
    )
    yield _named_classes(table, values, named, level)
    if "common" in table:
        yield _shared(table, named, level)


def _named_classes(table: xr.Dataset, values: list[str], named: list[str], level: float) -> Table:
    shape = table["number"].shape
    value, augmentation, place = (one.ravel() for one in np.indices(shape))
    names = np.array([MEASURES[name] for name in values], dtype=object)
    return Table(
        "classes",
        "The most sensitive classes of each augmentation",
        pd.DataFrame(
            {
                "value": names[value],
                "augmentation": np.array(named, dtype=object)[augmentation],
                "place": place + 1,
                "class": table["number"].to_numpy().ravel(),
                "name": texts(table["class_name"]),
                "sensitivity": table["sensitivity"].to_numpy().ravel(),
                "low": table["low"].to_numpy().ravel(),
                "high": table["high"].to_numpy().ravel(),
            }
        ),
        formats=dict.fromkeys(("sensitivity", "low", "high"), ".3f"),
        help={
            "place": "1 for the most sensitive class",
            "sensitivity": "share of the variance of the class's output, 0 to 1",
            "low": f"lower {level:.0%} limit over replicates; it does not allow for the choice of the largest",
        },
    )


def _shared(table: xr.Dataset, named: list[str], level: float) -> Table:
    most = int(table.attrs["common_most"])
    return Table(
        "classes-shared",
        "Classes that Shapley effects and first-order indices both name",
        pd.DataFrame(
            {
                "augmentation": named,
                "in common": table["common"].to_numpy(),
                "by chance": np.full(len(named), float(table.attrs["common_chance"])),
                "p": table["common_p"].to_numpy(),
                "q": table["common_q"].to_numpy(),
                "told": table["common_q"].to_numpy() < 1 - level,
            }
        ),
        formats={"by chance": ".2f"},
        help={
            "in common": f"of the {most} classes that each of them names, of those that both know",
            "by chance": "expected of sets at random",
            "p": "hypergeometric, one-sided",
            "q": "Benjamini-Yekutieli over augmentations",
            "told": f"q < {1 - level:.2g}",
        },
    )
