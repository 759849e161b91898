"""Clusters silenced for real: what the network loses without their activations, not only without their gradient."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr

from neuronscope.studies.clusters.page.view import POINTS, View, capital, first, listed, numbers, signed, texts
from neuronscope.views import Axis, Block, Chart, Section, Series, Table, Text

_AXIS = "configuration_of_dropped"
_NAMED = 4  # clusters in a sentence


def dropped(view: View) -> Iterator[Block]:
    """Accuracy with clusters silenced, beside that with only their gradient blocked."""
    table = view.groups.get("accuracy")
    if table is None:
        return
    top1 = numbers(table, "top1", _AXIS)
    if top1 is None or not top1.size:
        return
    layers, ks, clusters = _places(table)
    yield Section(
        "Clusters silenced for real",
        "Blocking a gradient leaves predictions alone. Setting the activations of a cluster to 0 does not: this is "
        "what the "
        "network needs them for, which a map can be silent about.",
    )
    yield from _self_check(table)
    base = _scalar(table, "top1_baseline")
    shown = np.flatnonzero(ks == view.main_k)
    shown = shown if shown.size else np.arange(len(ks))
    ends = [numbers(table, f"top1_{end}", _AXIS) for end in ("low", "high")]
    series = [
        Series(
            "cluster silenced",
            100 * top1[shown],
            low=None if ends[0] is None else 100 * ends[0][shown],
            high=None if ends[1] is None else 100 * ends[1][shown],
        )
    ]
    if np.isfinite(base):
        series.append(Series("only its gradient blocked", np.full(len(shown), 100 * base)))
    ticks = tuple(f"{view.short(layers[i])}: {clusters[i]}" for i in shown)
    yield Chart(
        "dropped",
        "Accuracy with a cluster silenced",
        "bar",
        tuple(series),
        Axis("layer: cluster", ticks=ticks),
        Axis("accuracy (top 1)", "%"),
        text=f"Whiskers: {view.level:.0%} interval. Predictions with a blocked gradient are those of the untouched "
        f"network.",
    )
    yield from _words(
        table, [f"cluster {c} of {k} in {view.short(a)}" for a, k, c in zip(layers, ks, clusters, strict=True)]
    )
    columns: dict[str, object] = {"layer": [view.short(one) for one in layers], "k": ks, "cluster": clusters}
    for title, name in (
        ("top 1", "top1"),
        ("low", "top1_low"),
        ("high", "top1_high"),
        ("top 5", "top5"),
        ("change", "change"),
        ("change low", "change_low"),
        ("change high", "change_high"),
        ("p", "p"),
    ):
        values = numbers(table, name, _AXIS)
        if values is not None:
            columns[title] = values
    yield Table(
        "dropped",
        "Accuracy with a cluster silenced",
        pd.DataFrame(columns),
        help={
            "top 1": "share of images answered rightly with the activations of the cluster at 0",
            "top 5": "the same for the right class among the first five",
            "change": "of top 1 against the untouched network",
            "p": "chance of such a change if silencing did nothing (paired by image)",
        },
        formats={
            **dict.fromkeys(("top 1", "low", "high", "top 5", "change", "change low", "change high"), ".1%"),
            "p": ".2g",
        },
        preset="change" if "change" in columns else "",
    )


def _places(table: xr.Dataset) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Layer, k and cluster of each row."""
    size = table.sizes[_AXIS]
    layer, k, cluster = first(table, "layer", "dropped_layer"), first(table, "k"), first(table, "cluster")
    return (
        texts(layer) if layer is not None else [""] * size,
        np.asarray(k.to_numpy()).astype(int) if k is not None else np.zeros(size, dtype=int),
        np.asarray(cluster.to_numpy()).astype(int) if cluster is not None else np.arange(size),
    )


def _scalar(table: xr.Dataset, name: str) -> float:
    return float(table[name]) if name in table and table[name].ndim == 0 else float("nan")


def _self_check(table: xr.Dataset) -> Iterator[Block]:
    """That a blocked gradient changed no prediction."""
    top1, top5 = _scalar(table, "top1_baseline"), _scalar(table, "top5_baseline")
    equal = _scalar(table, "filtered_top1_equal")
    said = f"The untouched network is right on {top1:.1%} of the images" if np.isfinite(top1) else ""
    if said and np.isfinite(top5):
        said += f" (top 5: {top5:.1%})"
    if equal == 1:
        yield Text(
            (f"{said}. " if said else "") + "With gradients blocked its outputs are the same, bit for bit (checked)."
        )
    elif np.isfinite(equal):
        yield Text(
            "With gradients blocked the outputs of the network were not the same: something is wrong with this run, "
            "and "
            "differences of maps may come from it.",
            tone="warning",
        )
    elif said:
        yield Text(f"{said}.")


def _words(table: xr.Dataset, titles: list[str]) -> Iterator[Block]:
    """Which clusters are missed, and which are not."""
    change, low, high = (numbers(table, name, _AXIS) for name in ("change", "change_low", "change_high"))
    if change is None or low is None or high is None:
        return
    worst = int(np.nanargmin(change)) if np.isfinite(change).any() else -1
    lost = np.isfinite(high) & (high < 0)
    alike = np.isfinite(low) & (low <= 0) & (high >= 0)
    parts = []
    if lost.any() and worst >= 0:
        parts.append(
            f"{int(lost.sum())} of {len(titles)} clusters are missed when silenced, most of all {titles[worst]} "
            f"({signed(100 * float(change[worst]))} {POINTS} of accuracy)"
        )
    if alike.all():
        parts.append("no change of accuracy can be told, whichever cluster is silenced")
    elif alike.any():
        names = [title for title, one in zip(titles, alike, strict=True) if one]
        more = f" (and {len(names) - _NAMED} more)" if len(names) > _NAMED else ""
        parts.append(f"no change of accuracy can be told without {listed(names[:_NAMED])}{more}")
    if parts:
        yield Text(f"{capital('; '.join(parts))}.", tone="plain" if lost.any() else "note")
