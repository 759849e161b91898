"""Which factor moves each unit most, whether that is known, and the fingerprints of all units in one table."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from jaxtyping import Float

from neuronscope.studies.sensitivity.page.view import MEASURES, WILD, View, listed
from neuronscope.views import Axis, Block, Chart, Panel, Section, Series, Table, Text

_CELLS = 80_000
"""Numbers in the table of units: with more, a report is slow to open."""
_FINGERPRINTS = {
    "total": "total indices",
    "contrast": "contrasts",
    "shapley": "Shapley effects",
    "first": "first-order indices",
}
"""What is in that table while there is room, by its name in the result."""
_LEAST_COLUMNS = 7  # with no more, one kind of sensitivity is there in any case
_DECIMALS = 3  # of shares in that table


def dominance(view: View) -> Iterator[Block]:
    """How many units of each layer each factor dominates."""
    dominant, known = view.find("units", "dominant"), view.find("units", "dominant_known")
    if dominant is None or known is None:
        return
    yield Section(
        "Dominant factors",
        "The factor with the largest total index of each unit. It is known where the replicates tell it from every "
        "other factor; elsewhere another one may be larger.",
    )
    count, layers = len(view.factors), len(view.layers)
    every, sure = np.zeros((count, layers)), np.zeros((count, layers))
    for place, layer in enumerate(view.layers):
        own = view.places(layer)
        live = own[dominant[own] >= 0]
        every[:, place] = np.bincount(dominant[live], minlength=count)
        sure[:, place] = np.bincount(dominant[live[known[live] == 1]], minlength=count)
    charts = tuple(
        Chart(
            title,
            title,
            "heatmap",
            (Series(title, cells),),
            Axis("layer", ticks=view.layers),
            Axis("factor", ticks=view.factors),
            value=Axis("share of live units", limits=(0.0, 1.0)),
            annotate=True,
        )
        for title, cells in (
            ("largest, known or not", every / np.maximum(every.sum(axis=0), 1)),
            ("known to be the largest", sure / np.maximum(every.sum(axis=0), 1)),
        )
    )
    yield Panel(
        "dominant-factors", "Share of the live units that each factor dominates", charts, columns=2, scale="shared"
    )
    if not sure.any():
        yield Text("Of no unit the dominant factor is known: more points or replicates would tell.", tone="note")
    yield Table(
        "dominant-factors",
        "Units that each factor dominates",
        pd.DataFrame(
            {
                "layer": np.repeat(np.array(view.layers, dtype=object), count),
                "factor": np.tile(np.array(view.factors, dtype=object), layers),
                "known": sure.T.ravel().astype(int),
                "not known": (every - sure).T.ravel().astype(int),
                "live units": np.repeat(every.sum(axis=0).astype(int), count),
            }
        ),
        help={
            "known": f"units of which it is surely the largest ({view.level:.0%}, all pairs of factors together)",
            "not known": "units of which it is the largest, but not told from the second",
        },
    )


def fingerprints(view: View) -> Iterator[Block]:
    """A row for each unit."""
    if not len(view.layer_of):
        return
    columns, left_out = _columns(view)
    frame = pd.DataFrame(columns)
    room = max(_CELLS // len(frame.columns), 1)
    text = "Shares of the variance and contrasts of each unit. Intervals are in the result."
    if left_out:
        text += f" For room, {listed(left_out)} are not here: the result has them."
    if len(frame) > room:
        frame = frame.iloc[np.sort(_most_interesting(view)[:room])]
        text += (
            f" The {room:,} of {len(view.layer_of):,} units whose dominant factor is known best, or whose contrast is "
            "largest: the result has all."
        )
    yield Section("Units", "Fingerprints: how each unit answers to each factor.")
    yield Table(
        "units",
        "Fingerprints of units",
        frame,
        preset="-margin" if "margin" in columns else "",
        formats=dict.fromkeys([name for name in frame.columns if frame[name].dtype.kind == "f"], ".3f")
        | dict.fromkeys([name for name in ("mean", "variance") if name in columns], ".4g"),
        help=_help(view),
        text=text,
    )


def _columns(view: View) -> tuple[dict[str, object], list[str]]:
    """Of the table of units, shares with decimals that are beyond their errors; and what there is no room for."""
    columns: dict[str, object] = {"layer": view.layer_of, "unit": view.index_of}
    dominant = view.find("units", "dominant")
    if dominant is not None:
        names = np.array([*view.factors, "dead"], dtype=object)
        columns["dominant"] = names[dominant]
        columns["known"] = view.groups["units"]["dominant_known"].to_numpy() == 1
        margin = view.groups["units"]["dominant_margin"].to_numpy()
        shares = np.abs(view.groups["units"]["total"].to_numpy()) <= WILD
        columns["margin"] = np.where(shares.all(axis=1), margin, np.nan).round(_DECIMALS)
    for name in ("mean", "variance"):
        values = view.find("units", name)
        if values is not None:
            columns[name] = np.array([float(f"{value:.4g}") for value in values])
    left_out = []
    for name, title in _FINGERPRINTS.items():
        values = view.find("units", name)
        if values is None:
            continue
        if len(columns) > _LEAST_COLUMNS and (len(columns) + values.shape[1]) * len(values) > _CELLS:
            left_out.append(title)
            continue
        of = view.augmentations if name == "contrast" else view.factors
        columns |= {f"{name} {one}": values[:, k].round(_DECIMALS) for k, one in enumerate(of)}
    return columns, left_out


def _help(view: View) -> dict[str, str]:
    found = {
        "dominant": "factor with the largest total index",
        "known": "whether it is told from every other factor",
        "margin": "by how much its total index is above the second largest; none where a total index is beyond "
        f"{WILD:g}, which is noise",
        "mean": "activation over all rows and positions",
        "variance": "over rows, mean over positions",
    }
    found |= {f"{name} {one}": f"{title} of {one}" for name, title in MEASURES.items() for one in view.factors}
    found |= {f"contrast {one}": f"rank-biserial correlation, -1 to 1, of plain images and {one}"
              for one in view.augmentations}  # fmt: skip
    return found


def _most_interesting(view: View) -> np.ndarray:
    """All units, those first of which most is known: a dominant factor with a wide margin, or a large contrast."""
    margin, known = view.find("units", "dominant_margin"), view.find("units", "dominant_known")
    if margin is not None and known is not None:
        # Beyond 1 a margin is noise of a unit that hardly varies.
        height = np.where(np.nan_to_num(margin, nan=9.0) <= 1, np.nan_to_num(margin), -1.0) + 2.0 * (known == 1)
        return np.argsort(-height, kind="stable")
    contrast = view.find("units", "contrast")
    if contrast is not None:
        return np.argsort(-np.nan_to_num(np.abs(contrast)).max(axis=1), kind="stable")
    return np.arange(len(view.layer_of))


def contrasts(view: View) -> Iterator[Block]:
    """Plain images against augmented ones, one augmentation at a time: how many units, and by how much."""
    contrast, q = view.find("units", "contrast"), view.find("units", "contrast_q")
    if contrast is None or q is None:
        return
    yield Section(
        "Plain against augmented images",
        "Matched-pairs rank-biserial correlation of each unit's mean activation, -1 to 1: 1 if it rises in every pair "
        "of a plain and an augmented image, -1 if it falls in every pair, 0 if it rises as often as it falls.",
    )
    told = view.told(q)
    shares, sizes = (np.full((len(view.augmentations), len(view.layers)), np.nan) for _ in range(2))
    rows: list[dict[str, object]] = []
    for place, layer in enumerate(view.layers):
        own = view.places(layer)
        live = own[np.isfinite(contrast[own]).all(axis=1)]
        if not len(live):
            continue
        shares[:, place], sizes[:, place] = told[live].mean(axis=0), np.abs(contrast[live]).mean(axis=0)
        rows.extend(_contrast_row(view, layer, a, contrast[live, a], told[live, a]) for a in range(shares.shape[0]))
    layers, names = Axis("layer", ticks=view.layers), Axis("augmentation", ticks=view.augmentations)
    unit = Axis("share, or size", limits=(0.0, 1.0))
    charts = (
        Chart("share", "share of units told to change", "heatmap", (Series("share", shares),), layers,
              names, value=unit, annotate=True),
        Chart("size", "mean size of the correlation", "heatmap", (Series("size", sizes),), layers, names, value=unit,
              annotate=True),
    )  # fmt: skip
    yield Panel("contrast", "Contrast by augmentation and layer", charts, columns=2, scale="shared")
    yield Table(
        "contrast",
        "Contrast by augmentation and layer",
        pd.DataFrame(rows),
        preset="-size",
        formats=dict.fromkeys(("size", "median"), ".3f"),
        help={
            "rise": f"units that rise, at {view.bound} by Wilcoxon's test over images (Benjamini-Yekutieli)",
            "fall": "units that fall, likewise",
            "not told": "units of which neither can be said",
            "size": "mean over units of the correlation's size",
            "median": "median over units of the correlation with its sign",
        },
    )


def _contrast_row(
    view: View, layer: str, number: int, values: Float[np.ndarray, "u"], told: np.ndarray
) -> dict[str, object]:
    return {
        "layer": layer,
        "augmentation": view.augmentations[number],
        "rise": int((told & (values > 0)).sum()),
        "fall": int((told & (values < 0)).sum()),
        "not told": int((~told).sum()),
        "size": float(np.abs(values).mean()),
        "median": float(np.median(values)),
    }
