"""How alike units are: by the pixels of their formulas, and by their activations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, Int
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from neuronscope.studies.concepts.page.view import View, median
from neuronscope.views import Axis, Block, Chart, Panel, Section, Series, Table, Text

_PREFIX = "similarity_"
_MAPPED = 64  # units of a heat map
_SIDE_BY_SIDE = 20  # units of two maps in a row
_PAIRS = 50
_NEAR_SAME = 0.5  # of the Jaccard overlap: half of the pixels of any are of both
_APART = 0.2  # of the correlation


def similarity(view: View) -> Iterator[Block]:
    """Maps and most similar pairs, layer by layer."""
    groups = {
        name.removeprefix(_PREFIX): table
        for name, table in view.groups.items()
        if name.startswith(_PREFIX) and "masks" in table
    }
    groups = {layer: _rows(view, layer, table) for layer, table in groups.items()}
    groups = {layer: table for layer, table in groups.items() if table["masks"].shape == (len(view.places(layer)),) * 2}
    if not groups:
        return
    yield Section(
        "Units that are alike",
        "Two units may be explained alike and still respond apart, or the other way round. Formulas: pixels of both "
        "formulas over pixels of either, 0 to 1. Activations: correlation over all positions of the images, \u22121 to "
        "1.",
    )
    for layer, table in groups.items():
        yield from _layer(view, layer, table)


def _rows(view: View, layer: str, table: xr.Dataset) -> xr.Dataset:
    """Only the units that were explained, where the matrices are of all units of the layer."""
    numbers = view.index_of[view.places(layer)]
    if table.sizes["unit"] <= len(numbers) or numbers.max(initial=0) >= table.sizes["unit"]:
        return table
    return table.isel(dict.fromkeys(table["masks"].dims, numbers))


def _layer(view: View, layer: str, table: xr.Dataset) -> Iterator[Block]:
    places = view.places(layer)
    masks = np.asarray(table["masks"].to_numpy(), dtype=np.float64)
    related = np.asarray(table["activations"].to_numpy(), dtype=np.float64) if "activations" in table else None
    q = np.asarray(table["q"].to_numpy(), dtype=np.float64) if "q" in table else None
    known = np.flatnonzero(np.isfinite(masks).any(axis=1) & view.explained[places])
    if len(known) < 2:  # noqa: PLR2004 no pair
        return
    shown = known
    if len(known) > _MAPPED:
        held = np.nan_to_num(view.get("held_out")[places[known]], nan=-1.0)
        shown = known[np.argsort(-held, kind="stable")[:_MAPPED]]
    yield from _maps(view, layer, (masks, related, q), shown, of=len(known))
    upper = np.triu_indices(len(places), 1)
    if related is not None:
        both = np.isfinite(masks[upper]) & np.isfinite(related[upper])
        both &= (view.explained[places][:, None] & view.explained[places])[upper]
        alike = both & (masks[upper] >= _NEAR_SAME)
        if alike.any():
            apart = alike & (related[upper] < _APART)
            yield Text(
                f"In {layer}, {int(alike.sum()):,} pairs of units have formulas that share half of their "
                f"{view.places_word} or more. Their activations correlate by {median(related[upper][alike]):.2f} in "
                f"the median; {int(apart.sum()):,} pairs by less than {_APART}: these share an explanation without "
                "responding alike, so that the formula misses what tells them apart."
            )
    yield from _pairs(view, layer, (masks, related, q), table)


def _ordered(masks: Float[np.ndarray, "u u"]) -> Int[np.ndarray, "u"]:
    """Units in an order in which similar ones are neighbours: average linkage."""
    apart = 1 - np.nan_to_num(masks)
    np.fill_diagonal(apart, 0)
    tree = hierarchy.linkage(squareform((apart + apart.T) / 2, checks=False), "average", optimal_ordering=True)
    return np.asarray(hierarchy.leaves_list(tree), dtype=np.int64)


def _maps(
    view: View,
    layer: str,
    matrices: tuple[np.ndarray, np.ndarray | None, np.ndarray | None],
    shown: Int[np.ndarray, "_"],
    *,
    of: int,
) -> Iterator[Block]:
    masks, related, q = matrices
    order = shown[_ordered(masks[np.ix_(shown, shown)])]
    ticks = tuple(str(view.index_of[unit]) for unit in view.places(layer)[order])
    text = "Units in an order in which those with similar formulas are neighbours (average linkage)."
    text += f" The {len(shown)} of {of} units that fit best." if len(shown) < of else ""
    axis = Axis("unit", ticks=ticks)
    first = Chart(
        f"similarity-{layer}",
        f"Formulas of {layer}",
        "heatmap",
        (Series("", masks[np.ix_(order, order)]),),
        axis,
        axis,
        value=Axis("overlap of formulas", limits=(0.0, 1.0)),
        text=text,
    )
    if related is None:
        yield first
        return
    values, hatched = related[np.ix_(order, order)].copy(), ""
    if q is not None:
        off = ~np.eye(len(order), dtype=bool)
        values[off & ~view.below(q[np.ix_(order, order)])] = np.nan
        hatched = "Hatched: a correlation that cannot be told from none."
    second = Chart(
        f"activations-{layer}",
        f"Activations of {layer}",
        "heatmap",
        (Series("", values),),
        axis,
        axis,
        value=Axis("correlation", limits=(-1.0, 1.0)),
        diverging=True,
        text=f"The same units in the same order. {hatched}".strip(),
    )
    if len(order) <= _SIDE_BY_SIDE:
        yield Panel(first.name, f"How alike the units of {layer} are", (first, second), 2, f"{text} {hatched}".strip())
        return
    yield first
    yield second


def _pairs(
    view: View, layer: str, matrices: tuple[np.ndarray, np.ndarray | None, np.ndarray | None], table: xr.Dataset
) -> Iterator[Block]:
    """The pairs with the most similar formulas, each with its correlation."""
    masks, related, q = matrices
    places = view.places(layer)
    rows, columns = np.triu_indices(len(places), 1)
    explained = view.explained[places]
    keep = np.isfinite(masks[rows, columns]) & explained[rows] & explained[columns]
    rows, columns = rows[keep], columns[keep]
    strength = np.nan_to_num(related[rows, columns]) if related is not None else np.zeros(len(rows))
    best = np.lexsort((-strength, -masks[rows, columns]))[:_PAIRS]
    rows, columns = rows[best], columns[best]
    if not len(rows):
        return
    found: dict[str, object] = {
        "unit": view.index_of[places[rows]],
        "formula of unit": [view.formulas[unit] for unit in places[rows]],
        "other": view.index_of[places[columns]],
        "formula of other": [view.formulas[unit] for unit in places[columns]],
        "formulas": masks[rows, columns],
    }
    if related is not None:
        found["activations"] = related[rows, columns]
        for end in ("low", "high"):
            if f"activations_{end}" in table:
                found[end] = table[f"activations_{end}"].to_numpy()[rows, columns]
    if q is not None:
        found["q"] = q[rows, columns]
    yield Table(
        f"pairs-{layer}",
        f"Most similar formulas of {layer}",
        pd.DataFrame(found),
        help={
            "formulas": f"{view.places_word} of both formulas over those of either, 0 to 1",
            "activations": "correlation of the activations over all positions of the images, \u22121 to 1",
            "low": "95 % interval of the correlation for images like these: lower end",
            "high": "upper end",
            "q": f"of the correlation over all pairs; told from none: {view.bound}",
        },
        formats=dict.fromkeys(("formulas", "activations", "low", "high", "q"), ".3f"),
        text=f"The {len(rows)} of {int(keep.sum()):,} pairs of units whose formulas share most.",
    )
