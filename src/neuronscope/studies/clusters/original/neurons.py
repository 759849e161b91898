"""The original's folders of clusterings: `neuron_stats/{block}_k{k}/`, numbers and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from neuronscope.studies.clusters.original.parts import Original, write_csv, write_json
from neuronscope.studies.clusters.original.scatter import Cloud, Group, write_interactive, write_plane, write_space


def write_neurons(original: Original) -> Iterator[Path]:
    """Statistics, clusters, centroids and pictures of every block and number of clusters."""
    for layer, block in original.blocks.items():
        units = original.units_of(layer)
        for k in sorted(int(str(name).removeprefix("cluster_k")) for name in units if _is_clustering(str(name))):
            labels = original.labels(layer, k)
            if not (labels >= 0).any():
                continue
            folder = original.outputs / "neuron_stats" / f"{block}_k{k}"
            folder.mkdir(parents=True, exist_ok=True)
            statistics = folder / f"stats_{block}.npz"
            rate, mean, variance = (
                units[name].to_numpy() for name in ("activation_rate", "mean_activation", "variance")
            )
            np.savez(statistics, activation_rate=rate, mean_activation=mean, variance=variance)
            clusters = folder / "cluster_results.npz"
            np.savez(clusters, selected_block=block, labels=labels.astype(np.int32), n_clusters=np.int32(k))
            manifest = {
                "selected_block": block,
                "n_clusters": k,
                "num_neurons": len(labels),
                "stats_files": {block: statistics.name},
                "layer": layer,
                "apart": int((labels < 0).sum()),
                "threshold": original.spec.get("threshold"),
                "statistics_images": original.spec.get("statistics_images"),
            }
            centroids = _centroids(units, labels, k)
            yield from (statistics, clusters, write_json(folder / "manifest.json", manifest))
            yield write_csv(folder / "cluster_centroids.csv", centroids)
            yield from _pictures(units, labels, centroids, folder, title=f"{block}, {k} clusters")


def cloud_of(units: xr.Dataset, groups: list[Group], title: str) -> Cloud:
    """A layer's units as points."""
    columns = ("mean_activation", "activation_rate", "variance")
    return Cloud(
        points=np.stack([units[name].to_numpy().astype(np.float64) for name in columns], axis=1),
        plane=units["tsne"].to_numpy().astype(np.float64) if "tsne" in units else None,
        numbers=units["index"].to_numpy().astype(np.int64),
        groups=tuple(groups),
        title=title,
    )


def _pictures(
    units: xr.Dataset, labels: np.ndarray, centroids: pd.DataFrame, folder: Path, *, title: str
) -> Iterator[Path]:
    groups = [Group(f"cluster {cluster}", labels == cluster) for cluster in centroids["cluster"]]
    if (labels < 0).any():
        groups.append(Group("in no cluster", labels < 0, apart=True))
    cloud = cloud_of(units, groups, title)
    centres = centroids[["mean", "rate", "variance"]].to_numpy().astype(np.float64)
    yield write_space(cloud, folder / "cluster_scatter_3d.png")
    yield write_interactive(cloud, folder / "cluster_scatter_3d_interactive.html", centres=centres)
    if cloud.placed.any():
        yield write_plane(cloud, folder / "cluster_tsne.png")


def _centroids(units: xr.Dataset, labels: np.ndarray, k: int) -> pd.DataFrame:
    """Means of the units' own statistics, unscaled, of the clusters that have units."""
    rows = []
    for cluster in range(k):
        own = labels == cluster
        if own.any():
            names = {"mean": "mean_activation", "rate": "activation_rate", "variance": "variance"}
            means = {name: float(units[column].to_numpy()[own].mean()) for name, column in names.items()}
            rows.append({"cluster": cluster, **means, "n_neurons": int(own.sum())})
    return pd.DataFrame(rows)


def _is_clustering(name: str) -> bool:
    return name.startswith("cluster_k") and name.removeprefix("cluster_k").isdecimal()
