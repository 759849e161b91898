"""The clusters themselves: how many there are, how sure that is, where they lie, and who belongs to them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, Shaped

from neuronscope.studies.clusters.page.view import View, first, numbers, texts
from neuronscope.views import Axis, Block, Chart, Panel, Section, Series, Table, Text

_TITLE = "Clusters"
_NO_CLUSTERS = "No clusters"  # how the choice of k begins where there are none
_MOST_LINES = 8
_PER_ROW = 2
_SPREAD = 0.02  # of the range, left free around points


def clusters(view: View) -> Iterator[Block]:
    """Choice of k, pictures of the clusters, their centroids, and the table of all units."""
    units, choices, centroids = (view.groups.get(name) for name in ("units", "clusterings", "centroids"))
    if units is None and choices is None and centroids is None:
        return
    yield Section(
        _TITLE,
        "Channels with like statistics stand together. A number of clusters counts only where their separation exceeds "
        "what data without clusters would show; otherwise the cut is arbitrary, and is said to be.",
    )
    if choices is not None and choices.sizes.get("clustering", 0):
        yield from _choices(view, choices)
    if units is not None and units.sizes.get("unit", 0):
        yield from _scatter(view, units)
        yield from _neighbours(view, units)
    if centroids is not None and centroids.sizes.get("cluster", 0):
        yield _centroids(view, centroids)
    if units is not None and units.sizes.get("unit", 0):
        yield _units(view, units)


def _choices(view: View, table: xr.Dataset) -> Iterator[Block]:
    """What is said of each layer, and every k that was tried."""
    layers = _layer_of(table, "clustering_layer", "clustering")
    ks = np.asarray(table["k"].to_numpy()).astype(int)
    columns: dict[str, object] = {"layer": [view.short(one) for one in layers], "k": ks}
    for title, name in (
        ("silhouette", "silhouette"),
        ("p", "p"),
        ("stability", "stability"),
        ("stability low", "stability_low"),
        ("stability high", "stability_high"),
        ("seed stability", "seed_stability"),
        ("gap", "gap"),
        ("gap error", "gap_se"),
        ("inertia", "inertia"),
    ):
        values = numbers(table, name, "clustering")
        if values is not None:
            columns[title] = values
    chosen = numbers(table, "chosen", "clustering")
    if chosen is not None:
        columns["chosen"] = np.where(chosen.astype(np.float64) == 1, "yes", "")
    reasons = {layer: str(table.attrs.get(f"reason_{layer}", "")) for layer in dict.fromkeys(layers)}
    for layer, reason in reasons.items():
        own = [i for i, one in enumerate(layers) if one == layer]
        none = reason.startswith(_NO_CLUSTERS) or (not reason and chosen is not None and not (chosen[own] == 1).any())
        if none:
            yield Text(
                f"{view.short(layer)}: {reason or 'No clusters.'} What follows still cuts its channels into k parts, "
                "but these are not groups that the statistics show.",
                tone="note",
            )
        elif reason:
            yield Text(f"{view.short(layer)}: {reason}")
    yield Table(
        "clusterings",
        "Every clustering",
        pd.DataFrame(columns),
        help={
            "k": "number of clusters",
            "silhouette": "mean over channels, -1 to 1: how much nearer a channel is to its own cluster than to the "
            "next",
            "p": "chance of such a silhouette where there are no clusters, corrected over all k",
            "stability": "adjusted Rand index between clusterings of channels drawn again (1: the same, 0: by chance)",
            "stability low": "what 5 % of the pairs of draws stay below",
            "stability high": "what 5 % of them exceed",
            "seed stability": "the same between random starts",
            "gap": "gap statistic: how much tighter the clusters are than those of evenly spread points, as a "
            "logarithm",
            "gap error": "its standard error",
            "inertia": "sum of squared distances to the centroids, in standardised features",
            "chosen": "the k that the data speak for; none where there are no clusters",
        },
        formats={
            **dict.fromkeys(
                ("silhouette", "stability", "stability low", "stability high", "seed stability", "gap", "gap error"),
                ".3f",
            ),
            "p": ".2g",
        },
    )
    yield from _choice_chart(view, table, layers, ks)


def _choice_chart(view: View, table: xr.Dataset, layers: list[str], ks: np.ndarray) -> Iterator[Block]:
    names = list(dict.fromkeys(layers))
    if len(names) > _MOST_LINES or len(set(ks.tolist())) < 2:  # noqa: PLR2004 no line through one point
        return
    shown = sorted(set(ks.tolist()))
    charts = []
    for name, title in (("silhouette", "silhouette"), ("stability", "stability over bootstraps")):
        values = numbers(table, name, "clustering")
        if values is None or not np.isfinite(values.astype(np.float64)).any():
            continue
        ends = [numbers(table, f"{name}_{end}", "clustering") for end in ("low", "high")]
        lines = []
        for layer in names:
            own = np.array([i for i, one in enumerate(layers) if one == layer])
            own = own[np.argsort(ks[own])]
            # A band for each of many layers would hide the lines.
            low, high = (None if end is None or len(names) > 1 else end[own] for end in ends)
            x = np.array([shown.index(int(k)) for k in ks[own]], dtype=np.float64)
            lines.append(Series(view.short(layer), values[own], x=x, low=low, high=high))
        charts.append(
            Chart(
                name,
                title.capitalize(),
                "line",
                tuple(lines),
                Axis("clusters k", ticks=tuple(map(str, shown))),
                Axis(title),
            )
        )
    if charts:
        yield Panel("choice-of-k", "Separation and stability by number of clusters", tuple(charts), columns=_PER_ROW)


def _scatter(view: View, units: xr.Dataset) -> Iterator[Block]:
    """How often against how strongly channels answer."""
    rate, mean = (numbers(units, name, "unit") for name in ("activation_rate", "mean_activation"))
    if rate is None or mean is None:
        return
    charts = []
    for layer, own, labels in _clustered(view, units):
        across, up = rate[own].astype(np.float64), mean[own].astype(np.float64)
        charts.append(
            Chart(
                "rate-mean",
                f"{view.short(layer)} ({len(own):,} channels)",
                "scatter",
                _points(across, up, labels),
                Axis("activation rate", "fraction of images", limits=(-_SPREAD, 1 + _SPREAD)),
                Axis("mean activation"),
            )
        )
    if charts:
        threshold = float(view.option("threshold", 0.1))
        yield Panel(
            "clusters-rate-mean",
            f"Clusters by activation rate and mean activation, k = {_shown_k(view, units)}",
            tuple(charts),
            columns=min(_PER_ROW, len(charts)),
            text=f"Each point is a channel. Its rate is the share of images with a mean activation above "
            f"{threshold:g}.",
        )


def _neighbours(view: View, units: xr.Dataset) -> Iterator[Block]:
    """The t-SNE map."""
    places = numbers(units, "tsne", "unit", "tsne_axis")
    if places is None or not np.isfinite(places).any():
        return
    charts = [
        Chart(
            "tsne",
            view.short(layer),
            "scatter",
            _points(places[own, 0].astype(np.float64), places[own, 1].astype(np.float64), labels),
            Axis("t-SNE 1", "arbitrary"),
            Axis("t-SNE 2", "arbitrary"),
        )
        for layer, own, labels in _clustered(view, units)
    ]
    kind = "unscaled" if view.has("raw-tsne") else "standardised"
    yield Panel(
        "clusters-tsne",
        f"Neighbourhoods of channels (t-SNE), k = {_shown_k(view, units)}",
        tuple(charts),
        columns=min(_PER_ROW, len(charts)),
        text=(
            f"Channels with like {kind} statistics lie close together. Distances between groups and sizes of groups "
            f"mean "
            "nothing in such a map, and it shows groups even in data without any: the table above says what is real."
        ),
    )


def _clustered(view: View, units: xr.Dataset) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Each layer with its rows and their cluster of the main k."""
    labels = numbers(units, f"cluster_k{_shown_k(view, units)}", "unit")
    layers = np.array(texts(units["layer"]), dtype=object)
    for layer in dict.fromkeys(layers.tolist()):
        own = np.flatnonzero(layers == layer)
        yield str(layer), own, np.full(len(own), -1) if labels is None else labels[own].astype(int)


def _shown_k(view: View, units: xr.Dataset) -> int:
    """The main k, or the first that the result has."""
    there = sorted(
        int(str(name).removeprefix("cluster_k")) for name in units.data_vars if str(name).startswith("cluster_k")
    )
    return view.main_k if view.main_k in there or not there else there[0]


def _points(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], labels: Shaped[np.ndarray, " n"]
) -> tuple[Series, ...]:
    """One series for each cluster, last those in none: clusters keep their colours and markers."""
    numbered = range(int(labels.max()) + 1 if labels.size else 0)
    found = [Series(f"cluster {c}", y[labels == c], x=x[labels == c]) for c in numbered]
    if (labels < 0).any():
        apart = labels < 0
        found.append(Series("in none" if numbered else "channels", y[apart], x=x[apart]))
    return tuple(found)


def _centroids(view: View, table: xr.Dataset) -> Table:
    layers = _layer_of(table, "cluster_layer", "cluster")
    # The number within a clustering may stand under the name of the axis or beside it.
    inside = first(table, "cluster_number", "cluster_index", "cluster")
    columns: dict[str, object] = {
        "layer": [view.short(one) for one in layers],
        "k": table["k"].to_numpy(),
        "cluster": inside.to_numpy() if inside is not None else np.arange(len(layers)),
    }
    sizes = numbers(table, "n_neurons", "cluster")
    if sizes is not None:
        columns["channels"] = sizes.astype(int)
        totals: dict[tuple[str, int], int] = {}
        keys = [(layer, int(k)) for layer, k in zip(layers, np.asarray(columns["k"]), strict=True)]
        for key, size in zip(keys, sizes, strict=True):
            totals[key] = totals.get(key, 0) + int(size)
        columns["share"] = [int(size) / max(totals[key], 1) for key, size in zip(keys, sizes, strict=True)]
    for name in ("rate", "mean", "variance"):
        values = numbers(table, name, "cluster")
        if values is not None:
            columns[name] = values
    return Table(
        "centroids",
        "Centroids",
        pd.DataFrame(columns),
        help={
            "channels": "in the cluster",
            "share": "of the channels that were clustered, 0 to 1",
            "rate": "mean over the cluster: share of images in which a channel is active, 0 to 1",
            "mean": "mean over the cluster of the mean activation",
            "variance": "mean over the cluster of the variance over images",
        },
        formats={"share": ".1%", "rate": ".3f", "mean": ".3f", "variance": ".4g"},
        text="Of every k, in units of the activations.",
    )


def _units(view: View, units: xr.Dataset) -> Table:
    columns: dict[str, object] = {
        "layer": [view.short(one) for one in texts(units["layer"])],
        "channel": units["index"].to_numpy(),
    }
    for title, name in (("rate", "activation_rate"), ("mean", "mean_activation"), ("variance", "variance")):
        values = numbers(units, name, "unit")
        if values is not None:
            columns[title] = values
    ks = sorted(
        int(str(name).removeprefix("cluster_k")) for name in units.data_vars if str(name).startswith("cluster_k")
    )
    for k in ks:
        columns[f"k = {k}"] = [str(int(one)) if one >= 0 else "" for one in units[f"cluster_k{k}"].to_numpy()]
    silhouette = numbers(units, f"silhouette_k{_shown_k(view, units)}", "unit")
    if silhouette is not None:
        columns["silhouette"] = silhouette
    return Table(
        "units",
        "Channels and their clusters",
        pd.DataFrame(columns),
        help={
            "rate": "share of images in which the channel is active, 0 to 1",
            "mean": "mean activation over images and positions",
            "variance": "of the channel's mean activation, over images",
            "silhouette": f"of the channel for k = {_shown_k(view, units)}; below 0: nearer to another cluster",
            **{f"k = {k}": f"its cluster of {k}; empty where it was not clustered" for k in ks},
        },
        formats={"rate": ".3f", "mean": ".3f", "variance": ".4g", "silhouette": ".2f"},
    )


def _layer_of(table: xr.Dataset, name: str, axis: str) -> list[str]:
    """Layers along an axis, as texts."""
    values = first(table, name, "layer")
    return texts(values) if values is not None else [""] * table.sizes.get(axis, 0)
