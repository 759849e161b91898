"""Which clusters belong together: over numbers of clusters in a layer, and from layer to layer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import xarray as xr

from neuronscope.maths.clustering import cluster_tree, match_by_centroid
from neuronscope.studies.clusters.setting import Setting
from neuronscope.studies.clusters.statistics import LayerClusters

STATISTICS = 3
"""Features that every layer has: rate, mean and variance. Profiles have no counterpart in another layer."""


def descent_group(clusters: Sequence[LayerClusters]) -> xr.Dataset | None:
    """For each cluster of a larger k the one of the next smaller k that gave most of its units; None for a single k."""
    rows: dict[str, list[float]] = {name: [] for name in ("k", "cluster", "before", "parent", "share", "kept")}
    names: list[str] = []
    for one in clusters:
        for step in cluster_tree({k: clustering.labels for k, clustering in one.clusterings.items()}):
            for cluster in range(step.k):
                names.append(one.layer.name)
                for name, value in {
                    "k": step.k,
                    "cluster": cluster,
                    "before": step.before,
                    "parent": int(step.parent[cluster]),
                    "share": float(step.share[cluster]),
                    "kept": float(step.kept[cluster]),
                }.items():
                    rows[name].append(value)
    if not names:
        return None
    whole = ("k", "cluster", "before", "parent")
    return xr.Dataset(
        {
            "layer": ("descent", np.array(names, dtype=object)),
            **{
                name: ("descent", np.array(values, dtype=np.int64 if name in whole else np.float64))
                for name, values in rows.items()
            },
        }
    )


def counterparts_group(setting: Setting, clusters: Sequence[LayerClusters]) -> xr.Dataset | None:
    """Clusters of the main k in layers that follow one another, paired by what their units are like.

    None for a single layer; a cluster with nothing like it has the counterpart -1.
    """
    if len(clusters) == 1:
        return None
    k = setting.spec.main_k
    layers, others, own, counterpart, distance = [], [], [], [], []
    for before, after in pairwise(clusters):
        found = match_by_centroid(
            before.clusterings[k].scaled_centroids[:, :STATISTICS],
            after.clusterings[k].scaled_centroids[:, :STATISTICS],
        )
        pairs = dict(
            zip(found.first.tolist(), zip(found.second.tolist(), found.distance.tolist(), strict=True), strict=True)
        )
        for cluster in range(k):
            layers.append(before.layer.name)
            others.append(after.layer.name)
            own.append(cluster)
            other, apart = pairs.get(cluster, (-1, float("nan")))
            counterpart.append(other)
            distance.append(apart)
    return xr.Dataset(
        {
            "layer": ("pair", np.array(layers, dtype=object)),
            "next_layer": ("pair", np.array(others, dtype=object)),
            "cluster": ("pair", np.array(own)),
            "counterpart": ("pair", np.array(counterpart)),
            "distance": ("pair", np.array(distance)),
        },
        attrs={"k": k},
    )
