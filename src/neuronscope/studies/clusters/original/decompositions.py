"""The original's decomposition: `cluster_analysis/`, what each cluster lets through and how much it is of the whole.

Numbers over all images are in `aggregate_stats_{method}.json`; image by image they are written for those that have a
panel, with their picture. The first layer's lie where the original has them, those of others in a folder with their
name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from neuronscope.studies.clusters.original.panels import PanelView, panels_of
from neuronscope.studies.clusters.original.parts import Original, file_part, write_json
from neuronscope.studies.clusters.original.pictures import write_decomposition

_PARTS = {"magnitude": ("cluster_magnitudes", 1.0), "share": ("cluster_percentages", 100.0)}
_PARTS |= {"sparsity": ("cluster_sparsity", 1.0)}


def write_decompositions(original: Original) -> Iterator[Path]:
    """Of every layer with a decomposition, then of every panel."""
    for layer in original.blocks:
        table = _table(original, layer)
        for method in original.methods if table is not None else ():
            path = _folder(original, layer, original.main_k) / f"aggregate_stats_{method}.json"
            yield write_json(path, _aggregate(original, table, layer, method))
    done = set()
    for panel in panels_of(original):
        if (panel.layer, panel.k, panel.row) in done:
            continue  # the same maps, with another cluster taken out
        done.add((panel.layer, panel.k, panel.row))
        folder = _folder(original, panel.layer, panel.k)
        for method in original.methods:
            stem = f"cluster_analysis_{method}_{panel.row}"
            numbers = _image(original, panel, method)
            if numbers is not None:
                yield write_json(folder / f"{stem}.json", numbers)
            if panel.drawable(method):
                yield write_decomposition(panel, method, folder / f"{stem}.png")


def _folder(original: Original, layer: str, k: int) -> Path:
    folder = original.outputs / f"cluster_analysis{original.classes}"
    leading = original.leading
    if leading is None or (leading.layer, leading.k) == (layer, k):
        return folder
    return folder / f"{original.blocks.get(layer, file_part(layer))}_k{k}"


def _table(original: Original, layer: str) -> xr.Dataset | None:
    """The layer's group, by its name or the name as a part of file names."""
    found = original.group(f"decomposition_{layer}")
    return found if found is not None else original.group(f"decomposition_{file_part(layer)}")


def _values(original: Original, table: xr.Dataset, name: str, method: str) -> Float[np.ndarray, "n *k"]:
    own = table[name]
    own = own.isel(method=original.methods.index(method)) if "method" in own.dims else own
    axes = [axis for axis in ("image", "cluster") if axis in own.dims]
    return np.asarray(own.transpose(*axes).to_numpy().astype(np.float64))


def _aggregate(original: Original, table: xr.Dataset | None, layer: str, method: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if table is None:
        return found
    images = 0
    for name, (key, scale) in _PARTS.items():
        if name in table:
            values = scale * _values(original, table, name, method)
            images = len(values)
            found[key] = {cluster: _moments(values[:, cluster]) for cluster in range(values.shape[1])}
    for name, key in (("error", "reconstruction_errors"), ("likeness", "cluster_independence")):
        if name in table:
            found[key] = _moments(_values(original, table, name, method))
    own = {"block": original.blocks[layer], "k": original.main_k, "images": images}
    return {**found, "settings": {**original.settings(), **own}}


def _image(original: Original, panel: PanelView, method: str) -> dict[str, Any] | None:
    table = _table(original, panel.layer)
    if table is None or panel.k != original.main_k:
        return None
    images = original.group("images")
    rows = table["row"] if "row" in table else images["row"] if images is not None and "row" in images else None
    places = np.flatnonzero(rows.to_numpy() == panel.row) if rows is not None else np.zeros(0, dtype=np.int64)
    if not len(places) or places[0] >= table.sizes.get("image", 0):
        return None
    at = int(places[0])
    found: dict[str, Any] = {}
    for name, (key, scale) in _PARTS.items():
        if name in table:
            values = scale * _values(original, table, name, method)[at]
            found[key] = dict(enumerate(values.tolist()))
    for name, key in (("error", "reconstruction_error"), ("likeness", "cluster_independence")):
        if name in table:
            found[key] = float(_values(original, table, name, method)[at])
    own = {"block": panel.block, "k": panel.k, "image": panel.row, "filtered_cluster": panel.cluster}
    return {**found, "settings": original.settings(**own)}


def _moments(values: np.ndarray) -> dict[str, float]:
    """Mean and population standard deviation over the images that have the measure."""
    known = values[~np.isnan(values)]
    if not len(known):
        return {"mean": math.nan, "std": math.nan}
    return {"mean": float(known.mean()), "std": float(known.std())}
