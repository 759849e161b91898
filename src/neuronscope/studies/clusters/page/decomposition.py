"""What share of an attribution flows through each cluster, and whether the shares add up to the whole."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr

from neuronscope.maths.resampling import mean_interval
from neuronscope.studies.clusters.page.view import View, capital, signed, texts
from neuronscope.views import Axis, Block, Chart, Panel, Section, Series, Table, Text

_PREFIX = "decomposition_"
_PARTS = ("magnitude", "share", "sparsity")
_WHOLE = ("error", "likeness")
_TOLERANCE = 1e-5
"""Largest error of a value, as a share of the norms of all maps, that counts as rounding.

Rounding is about 1e-7 of it. A value is about a norm over the root of the number of pixels, so that even for a million
of them absolute values, which do not add up, miss by some 1e-3.
"""


def decomposition(view: View) -> Iterator[Block]:
    """Shares of the clusters, and how well their maps add up."""
    tables = {layer: view.groups[_PREFIX + layer] for layer in _order(view)}
    if not tables:
        return
    yield Section(
        "What flows through each cluster",
        "For each cluster, the map that is left when only its gradient passes. For methods that are linear in the "
        "gradient "
        "these maps add up to the untouched map; absolute values (saliency) do not add up.",
    )
    charts = [chart for number in range(len(view.methods)) for chart in _shares(view, tables, number)]
    if charts:
        yield Panel(
            "decomposition-shares",
            "Share of each cluster in the attribution",
            tuple(charts),
            columns=min(2, len(charts)),
            text=(
                f"Mean over images of the cluster's share of all magnitudes. Whiskers: {view.level:.0%} interval. A "
                f"share "
                "goes with the size of the cluster: the table sets both side by side."
            ),
        )
    yield from _parts(view, tables)
    yield from _whole(view, tables)


def _order(view: View) -> list[str]:
    """Decomposed layers, in calling order."""
    there = [name.removeprefix(_PREFIX) for name in view.groups if name.startswith(_PREFIX)]
    return sorted(there, key=lambda layer: view.layers.index(layer) if layer in view.layers else len(view.layers))


def _summary(view: View, table: xr.Dataset, name: str, *axes: str) -> tuple[np.ndarray, ...] | None:
    """Mean, deviation and interval of a measure over images; from the images where the result has no summary."""
    if f"{name}_mean" in table and set(table[f"{name}_mean"].dims) == set(axes):
        mean = table[f"{name}_mean"].transpose(*axes)
        rest = (f"{name}_{one}" for one in ("std", "low", "high"))
        return tuple(
            np.asarray(one.to_numpy(), dtype=np.float64)
            for one in (mean, *(table[key].transpose(*axes) if key in table else mean * np.nan for key in rest))
        )
    if name not in table or set(table[name].dims) != {"image", *axes}:
        return None
    values = table[name].transpose("image", *axes).to_numpy().astype(np.float64)
    there = np.isfinite(values)
    count = there.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = np.where(there, values, 0.0).sum(axis=0) / np.where(count, count, np.nan)
        variance = np.where(there, (values - centre) ** 2, 0.0).sum(axis=0) / np.where(count, count, np.nan)
    if count.size and (count == count.flat[0]).all() and count.flat[0] > 1:
        low, high = mean_interval(centre.ravel(), variance.ravel(), int(count.flat[0]), level=view.level)
        return centre, np.sqrt(variance), low.reshape(centre.shape), high.reshape(centre.shape)
    return centre, np.sqrt(variance), centre * np.nan, centre * np.nan


def _shares(view: View, tables: dict[str, xr.Dataset], number: int) -> Iterator[Chart]:
    """Bars by layer, one series for each cluster."""
    found = [(layer, _summary(view, table, "share", "cluster", "method")) for layer, table in tables.items()]
    known = [(layer, one) for layer, one in found if one is not None and one[0].shape[1] > number]
    if not known:
        return
    most = max(one[0].shape[0] for _, one in known)
    series = []
    for cluster in range(most):
        columns = [
            [100 * float(part[cluster, number]) if cluster < len(part) else np.nan for part in (one[0], one[2], one[3])]
            for _, one in known
        ]
        value, low, high = np.array(columns, dtype=np.float64).T
        known_ends = bool(np.isfinite(low).any())
        series.append(
            Series(f"cluster {cluster}", value, low=low if known_ends else None, high=high if known_ends else None)
        )
    method = view.method(number) if number < len(view.methods) else ""
    yield Chart(
        "shares",
        capital(method),
        "bar",
        tuple(series),
        Axis("layer", ticks=tuple(view.short(layer) for layer, _ in known)),
        Axis("share of the magnitudes", "%"),
    )


def _parts(view: View, tables: dict[str, xr.Dataset]) -> Iterator[Block]:
    """The table of clusters."""
    rows = []
    for layer, table in tables.items():
        found = {name: _summary(view, table, name, "cluster", "method") for name in _PARTS}
        known = {name: one for name, one in found.items() if one is not None}
        if not known:
            continue
        clusters, methods = next(iter(known.values()))[0].shape
        sizes = _sizes(view, layer, clusters)
        for cluster in range(clusters):
            for number in range(methods):
                line: dict[str, object] = {"layer": view.short(layer), "cluster": cluster}
                line["method"] = view.methods[number] if number < len(view.methods) else str(number)
                if sizes is not None:
                    line["share of channels"] = float(sizes[cluster])
                for name in ("share", "magnitude", "sparsity"):
                    if name in known:
                        mean, spread, low, high = (float(part[cluster, number]) for part in known[name])
                        line |= {name: mean, f"{name} low": low, f"{name} high": high, f"{name} spread": spread}
                rows.append(line)
    if not rows:
        return
    frame = pd.DataFrame(rows)
    shares = [str(name) for name in frame.columns if str(name).startswith("share")]
    yield Table(
        "decomposition",
        "Clusters in the attribution",
        frame,
        help={
            "share of channels": "of the clustered channels of the layer, 0 to 1",
            "share": "of the sum of the clusters' magnitudes, mean over images, 0 to 1",
            "magnitude": "L2 norm of the cluster's map, mean over images, in units of the attribution",
            "sparsity": "share of the map's values not needed to gather 90 % of it, 0 to 1",
            **{f"{name} spread": "population standard deviation over images" for name in _PARTS},
            **{f"{name} low": f"{view.level:.0%} interval of the mean: lower end" for name in _PARTS},
        },
        formats={**dict.fromkeys(shares, ".1%")},
    )


def _sizes(view: View, layer: str, clusters: int) -> np.ndarray | None:
    """Share of the channels that each cluster of the main k has."""
    units = view.groups.get("units")
    if units is None or f"cluster_k{view.main_k}" not in units:
        return None
    own = np.array(texts(units["layer"]), dtype=object) == layer
    labels = units[f"cluster_k{view.main_k}"].to_numpy()[own].astype(np.int64)
    labels = labels[(labels >= 0) & (labels < clusters)]
    return np.bincount(labels, minlength=clusters) / labels.size if labels.size else None


def _whole(view: View, tables: dict[str, xr.Dataset]) -> Iterator[Block]:
    """Whether the maps of the clusters add up to the whole, and how alike they are."""
    rows = []
    exact: list[str] = []
    off: list[str] = []
    for layer, table in tables.items():
        found = {name: _summary(view, table, name, "method") for name in _WHOLE}
        size = _summary(view, table, "magnitude", "cluster", "method")
        count = max((len(one[0]) for one in found.values() if one is not None), default=0)
        for number in range(count):
            method = view.methods[number] if number < len(view.methods) else str(number)
            line: dict[str, object] = {"layer": view.short(layer), "method": method}
            for name, title in (("error", "reconstruction error"), ("likeness", "likeness")):
                one = found[name]
                if one is not None:
                    mean, spread, low, high = (float(part[number]) for part in one)
                    line |= {title: mean, f"{title} low": low, f"{title} high": high, f"{title} spread": spread}
            error = found["error"]
            if error is not None and size is not None:
                relative = float(error[0][number]) / max(float(np.nansum(size[0][:, number])), 1e-30)
                (exact if relative < _TOLERANCE else off).append(
                    f"{view.short(layer)}, {method} ({signed(float(error[0][number]), '.2g')})"
                )
            rows.append(line)
    if not rows:
        return
    if exact:
        yield Text(
            f"The clusters' maps add up to the untouched map but for rounding: {'; '.join(exact)}: mean absolute "
            "difference of a value."
        )
    if off:
        yield Text(
            f"They do not add up: {'; '.join(off)}. Expected where a method takes absolute values or keeps only "
            f"positive "
            "parts, or where paths lead past the layer.",
            tone="note",
        )
    frame = pd.DataFrame(rows)
    means = [name for name in ("layer", "method", "reconstruction error", "likeness") if name in frame]
    frame = frame[[*means, *(name for name in frame if name not in means)]]
    yield Table(
        "decomposition-whole",
        "Do the clusters add up?",
        frame,
        help={
            "reconstruction error": "mean absolute difference of the untouched map and the sum of its parts, in "
            "units of the attribution",
            "likeness": "mean absolute correlation of the clusters' maps, 0 to 1: lower is more independent",
        },
        formats={
            **dict.fromkeys((str(name) for name in frame if str(name).startswith("likeness")), ".3f"),
            **dict.fromkeys((str(name) for name in frame if str(name).startswith("reconstruction")), ".2g"),
        },
    )
