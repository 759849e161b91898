"""Class by class: for which classes blocking a cluster makes maps more faithful, and for which less."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from neuronscope.maths.resampling import mean_interval
from neuronscope.studies.clusters.page.view import POINTS, View, capital, decimals, first, signed, spanned, texts
from neuronscope.views import Axis, Block, Chart, Panel, Section, Series, Table, Text

_CONFIGURATION = "configuration_of_classes"
_AXES = ("class", _CONFIGURATION, "method", "metric")
_PAIR = 2


@dataclass(frozen=True)
class Gains:
    """Filtered minus baseline faithfulness.

    Attributes:
        values: of each class, cluster, method and metric.
        clusters: names of the clusters at an axis: layer, and cluster of k.
    """

    values: Float[np.ndarray, "c f m t"]
    clusters: tuple[str, ...]


def classes(view: View) -> Iterator[Block]:
    """Sorted gains of the cluster that gains most, all clusters side by side, and the table of classes."""
    table = view.groups.get("classes")
    if table is None or not table.sizes.get("class", 0):
        return
    gains = _gains(view, table)
    if gains is None:
        return
    yield Section("Class by class", "The change of faithfulness averaged over the images of each class by itself.")
    with np.errstate(invalid="ignore"):
        means = np.nanmean(np.where(np.isfinite(gains.values), gains.values, np.nan).mean(axis=(2, 3)), axis=0)
    best = int(np.nanargmax(means)) if np.isfinite(means).any() else 0
    yield from _sorted(view, gains, best)
    yield from _clusters(view, gains)
    yield _table(view, table, gains, best)


def _gains(view: View, table: xr.Dataset) -> Gains | None:
    """Gains over all axes, those that a result lacks with length 1."""
    filtered, baseline = (_full(table, f"{part}_faithfulness_mean") for part in ("filtered", "baseline"))
    if filtered is not None and baseline is not None:
        values = filtered - baseline
    else:
        against = _full(table, "mean_diff")  # baseline minus filtered, as in the original's tables
        if against is None:
            return None
        values = -against
    return Gains(values, _names(view, table, values.shape[1])) if np.isfinite(values).any() else None


def _full(table: xr.Dataset, name: str) -> np.ndarray | None:
    if name not in table or "class" not in table[name].dims or not set(table[name].dims) <= set(_AXES):
        return None
    missing = {axis: 1 for axis in _AXES if axis not in table[name].dims}
    return table[name].expand_dims(missing).transpose(*_AXES).to_numpy().astype(np.float64)


def _names(view: View, table: xr.Dataset, count: int) -> tuple[str, ...]:
    """Clusters in words, by number of the configuration or by layer, k and cluster."""
    number = table.coords.get(_CONFIGURATION)
    layer, k, cluster = (first(table, f"{part}_of_classes", part) for part in ("layer", "k", "cluster"))
    if layer is not None and layer.dims == (_CONFIGURATION,) and cluster is not None:
        ks = np.full(count, view.main_k) if k is None else k.to_numpy()
        named = zip(texts(layer), ks, cluster.to_numpy(), strict=True)
        return tuple(f"{c} of {b}, {view.short(a)}" for a, b, c in named)
    if number is not None and len(number) == count and number.to_numpy().dtype.kind in "iu" and len(view.kind):
        return tuple(f"{view.tick(int(i))}, {view.short(str(view.layer[i]))}" for i in number.to_numpy())
    filters = view.main_filters
    if len(filters) == count:
        return tuple(f"{view.tick(int(i))}, {view.short(str(view.layer[i]))}" for i in filters)
    return tuple(str(i) for i in range(count))


def _pairs(view: View, gains: Gains) -> Iterator[tuple[int, int, str]]:
    for a in range(gains.values.shape[2]):
        for b in range(gains.values.shape[3]):
            method = view.method(a) if gains.values.shape[2] == len(view.methods) else ""
            metric = view.metrics[b] if gains.values.shape[3] == len(view.metrics) else ""
            yield a, b, ", ".join(part for part in (method, metric) if part) or "all"


def _sorted(view: View, gains: Gains, best: int) -> Iterator[Block]:
    """Classes by gain, with lines at no change and at the mean."""
    charts = []
    for a, b, title in _pairs(view, gains):
        values = 100 * gains.values[:, best, a, b]
        values = np.sort(values[np.isfinite(values)])
        if not values.size:
            continue
        ends = np.array([1.0, max(float(len(values)), 1.5)])
        mean = float(values.mean())
        charts.append(
            Chart(
                "classes",
                capital(title),
                "line",
                (
                    Series("classes", values, x=np.arange(1.0, len(values) + 1)),
                    Series("mean", np.full(2, mean), x=ends),
                    Series("no change", np.zeros(2), x=ends),
                ),
                Axis("rank"),
                Axis("change of faithfulness", POINTS),
            )
        )
        low, high = (
            mean_interval(np.array([mean]), np.array([values.var()]), len(values), level=view.level)
            if len(values) >= _PAIR
            else (np.array([np.nan]),) * 2
        )
        better = int((values > 0).sum())
        form = f"+.{decimals(float(values[0]), float(values[-1]))}f"
        yield Text(
            f"{capital(title)}: {better} of {len(values)} classes have more faithful maps with cluster "
            f"{gains.clusters[best]} "
            f"blocked; mean "
            f"over classes {spanned(mean, float(low[0]), float(high[0]))} {POINTS}, from "
            f"{signed(float(values[0]), form)} to "
            f"{signed(float(values[-1]), form)}.",
            tone="plain" if np.isnan(low[0]) or low[0] > 0 or high[0] < 0 else "note",
        )
    if charts:
        more = ", the cluster with the largest mean" if len(gains.clusters) > 1 else ""
        yield Panel(
            "classes",
            f"Classes sorted by change: cluster {gains.clusters[best]} blocked",
            tuple(charts),
            columns=min(2, len(charts)),
            text=f"One point for each class{more}. Single classes have few images: both ends of the curve are partly "
            f"chance.",
        )


def _clusters(view: View, gains: Gains) -> Iterator[Block]:
    """Mean gain over classes of every cluster."""
    if len(gains.clusters) < _PAIR or len(gains.values) < _PAIR:
        return
    series = []
    for a, b, title in _pairs(view, gains):
        values = 100 * gains.values[:, :, a, b]
        if not np.isfinite(values).all():
            values = values[np.isfinite(values).all(axis=1)]
        if len(values) < _PAIR:
            continue
        low, high = mean_interval(values.mean(axis=0), values.var(axis=0), len(values), level=view.level)
        series.append(Series(title, values.mean(axis=0), low=low, high=high))
    if series:
        yield Chart(
            "classes-clusters",
            "Mean change over classes",
            "bar",
            tuple(series),
            Axis("cluster of k, layer", ticks=gains.clusters),
            Axis("change of faithfulness", POINTS),
            text=f"Each class has one vote. Whiskers: {view.level:.0%} interval for classes like these.",
        )


def _table(view: View, table: xr.Dataset, gains: Gains, best: int) -> Table:
    """Classes with the gain of the shown cluster."""
    names, ids = first(table, "class_name"), first(table, "class_id", "class")
    columns: dict[str, object] = {}
    if names is not None and names.dims == ("class",):
        columns["class"] = texts(names)
    columns["number"] = ids.to_numpy() if ids is not None and ids.dims == ("class",) else np.arange(len(gains.values))
    if "images" in table and "class" in table["images"].dims:
        images = table["images"]
        columns["images"] = images.isel({axis: 0 for axis in images.dims if axis != "class"}).to_numpy().astype(int)
    for a, b, title in _pairs(view, gains):
        columns[title] = gains.values[:, best, a, b]
    with np.errstate(invalid="ignore"):
        columns["mean"] = gains.values[:, best].mean(axis=(1, 2))
    titles = [title for _, _, title in _pairs(view, gains)]
    return Table(
        "classes",
        f"Classes with cluster {gains.clusters[best]} blocked",
        pd.DataFrame(columns),
        help={
            **dict.fromkeys(
                titles, "faithfulness with the cluster blocked minus that of the untouched map, mean over images"
            ),
            "mean": "over methods and metrics",
            "images": "of the class that were explained",
        },
        formats=dict.fromkeys((*titles, "mean"), "+.4f"),
        preset="-mean",
    )
