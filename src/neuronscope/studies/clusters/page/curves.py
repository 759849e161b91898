"""Curves of deletion and insertion: what becomes of the probability as more and more of the image goes or comes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr

from neuronscope.studies.clusters.page.effect import KINDS
from neuronscope.studies.clusters.page.view import View
from neuronscope.views import Axis, Block, Chart, Panel, Section, Series, Table

_KINDS = {"deletion": "Deletion", "insertion": "Insertion"}
_AREAS = ("area", "deletion_area", "insertion_area", "aopc")
_FIRST_OF = 7  # lines beside the baseline's


def curves(view: View) -> Iterator[Block]:
    """Lines for each layer and method, and the areas under them."""
    table = view.groups.get("curves")
    if table is None or not view.kind.size or not view.methods:
        return
    panels, areas = list(_panels(view, table)), list(_areas(view, table))
    if not panels and not areas:
        return
    yield Section(
        "Deletion and insertion",
        "Faithfulness at one share of the image is one point of a curve. Deletion replaces the highest-ranked part "
        "first: "
        "a good map makes the probability fall fast. Insertion starts from the replaced image and brings that part "
        "back: "
        "a good map makes it rise fast.",
    )
    yield from panels
    yield from areas


def _values(view: View, table: xr.Dataset, name: str) -> np.ndarray | None:
    """A variable as configurations x methods (x shares); None without any value."""
    if name not in table:
        return None
    values = table[name]
    axes = [axis for axis in ("configuration", "method", "fraction") if axis in values.dims]
    if set(axes) != set(values.dims) or axes[:2] != ["configuration", "method"] or values.shape[0] == 0:
        return None
    found = values.transpose(*axes).to_numpy().astype(np.float64)
    return found if len(found) == len(view.kind) and np.isfinite(found).any() else None


def _panels(view: View, table: xr.Dataset) -> Iterator[Block]:
    """For each layer the baseline and the clusters of the main k."""
    if "fraction" not in table.sizes:
        return
    shares = 100 * (
        table["fraction"].to_numpy().astype(np.float64)
        if "fraction" in table.coords
        else np.asarray(view.option("fractions", ()), dtype=np.float64)
    )
    found = {kind: _values(view, table, kind) for kind in _KINDS}
    baseline = view.rows("baseline")
    for layer in view.layers:
        filters = view.main_filters
        filters = filters[view.layer[filters] == layer][:_FIRST_OF]
        own = view.rows("baseline", layer=layer)
        lines = [*(own if own.size else baseline)[:1].tolist(), *filters.tolist()]
        charts = []
        for number in range(len(view.methods)):
            for kind, title in _KINDS.items():
                values = found[kind]
                if values is None or not filters.size or values.ndim != 3 or len(shares) != values.shape[2]:  # noqa: PLR2004 with shares
                    continue
                ends = [_values(view, table, f"{kind}_{end}") for end in ("low", "high")]
                series = [
                    Series(
                        "untouched map" if view.kind[row] == "baseline" else f"cluster {view.cluster[row]} blocked",
                        values[row, number],
                        x=shares,
                        low=None if ends[0] is None else ends[0][row, number],
                        high=None if ends[1] is None else ends[1][row, number],
                    )
                    for row in lines
                    if np.isfinite(values[row, number]).any()
                ]
                word = "replaced" if kind == "deletion" else "brought back"
                if series:
                    charts.append(
                        Chart(
                            kind,
                            f"{title}, {view.method(number)}",
                            "line",
                            tuple(series),
                            Axis(f"{word}", "% of image"),
                            Axis("mean probability"),
                        )
                    )
        if charts:
            yield Panel(
                f"curves-{layer}",
                f"Curves of {view.short(layer)}, clusters of {view.k[filters[0]]}",
                tuple(charts),
                columns=min(2, len(charts)),
                text="Deletion: lower is better. Insertion: higher is better."
                + (f" Bands: {view.level:.0%} interval over images." if "deletion_low" in table else ""),
            )


def _areas(view: View, table: xr.Dataset) -> Iterator[Block]:
    """One number for each curve."""
    found = {name: _values(view, table, name) for name in _AREAS}
    extra = [f"{name}_{end}" for name in _AREAS for end in ("low", "high")]
    found |= {name: _values(view, table, name) for name in extra}
    known = {name: values for name, values in found.items() if values is not None and values.ndim == 2}  # noqa: PLR2004 without shares
    rows = [
        {
            "layer": view.short(str(view.layer[row])),
            "what": KINDS.get(str(view.kind[row]), str(view.kind[row])),
            "cluster": view.tick(row) if view.cluster[row] >= 0 else "",
            "method": view.methods[number],
            **{name.replace("_", " "): float(values[row, number]) for name, values in known.items()},
        }
        for row in np.concatenate(
            [view.rows(kind) for kind in ("baseline", "filter", "isolate", "random", "blurred", "ranking")]
        ).tolist()
        for number in range(len(view.methods))
        if any(np.isfinite(values[row, number]) for values in known.values())
    ]
    if not rows:
        return
    frame = pd.DataFrame(rows)
    meaning = str(table["area"].attrs.get("long_name", "")) if "area" in table else ""
    yield Table(
        "areas",
        "Areas of the curves",
        frame,
        help={
            "area": meaning or "under the curve of deletion, 0 to 1: lower is better",
            "deletion area": "under the curve of deletion, 0 to 1: lower is better",
            "insertion area": "under the curve of insertion, 0 to 1: higher is better",
            "aopc": "mean fall of the probability over the shares of deletion: higher is better",
        },
        formats=dict.fromkeys((str(name) for name in frame.select_dtypes("float").columns), ".4f"),
    )
