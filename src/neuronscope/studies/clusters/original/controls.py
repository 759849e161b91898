"""The original's pictures of a random set of units: `control_random/{block}_n{n}/`, filtered units beside kept ones.

Only the first draw is drawn; the summary has all. Results that do not keep which units a set has (group `random_sets`)
have the summary alone, with the number of units that the set shares with its cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from neuronscope.studies.clusters.original.neurons import cloud_of
from neuronscope.studies.clusters.original.parts import Filter, Original, write_json
from neuronscope.studies.clusters.original.scatter import Group, write_interactive, write_plane, write_space
from neuronscope.studies.clusters.original.tables import stands_for


def write_controls(original: Original) -> Iterator[Path]:
    """A folder for each block, size and cluster stood for."""
    families: dict[tuple[str, int, int, int], list[Filter]] = {}
    for one in original.filters:
        if one.kind == "random":
            families.setdefault((one.layer, one.closed, one.k, one.cluster), []).append(one)
    for draws in families.values():
        draws.sort(key=lambda one: one.draw)
        first = draws[0]
        name = f"{first.block}_n{first.closed}{stands_for(original, first)}"
        folder = original.outputs / "control_random" / name
        closed = original.random_set(first)
        yield write_json(folder / "control_summary.json", _summary(original, draws))
        if closed is None or not closed.any():
            continue
        groups = [Group("filtered", closed), Group("kept", ~closed)]
        title = f"{first.block}, {first.closed} random units filtered"
        cloud = cloud_of(original.units_of(first.layer), groups, title)
        yield write_space(cloud, folder / "control_scatter_3d.png")
        yield write_interactive(cloud, folder / "control_scatter_3d_interactive.html")
        if cloud.placed.any():
            yield write_plane(cloud, folder / "control_tsne.png")


def _summary(original: Original, draws: list[Filter]) -> dict[str, Any]:
    first = draws[0]
    return {
        "block": first.block,
        "total_neurons": first.units,
        "filtered_neurons": first.closed,
        "kept_neurons": first.units - first.closed,
        "filtered_percentage": 100 * first.closed / first.units if first.units else None,
        "n_random": first.closed,
        "filtered_by_cluster": _by_cluster(original, first),
        "stands_for_cluster": first.cluster,
        "k": first.k,
        "draws": [
            {
                "random_seed": one.draw,
                "shared_with_cluster": one.overlap,
                "filtered_by_cluster": _by_cluster(original, one),
            }
            for one in draws
        ],
    }


def _by_cluster(original: Original, one: Filter) -> dict[int, int] | None:
    """How many of a random set's units are in each cluster."""
    closed = original.random_set(one)
    if closed is None:
        return None
    numbers, counts = np.unique(original.labels(one.layer, one.k)[closed], return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))
