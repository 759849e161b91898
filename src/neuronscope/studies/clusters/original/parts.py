"""A result as the original sees it: blocks, filters, metrics, and the names of files that keep settings apart.

The original names its files for one setting and lets others overwrite them: a run by pixels takes the place of one by
patches. Here the original's name is that of the original's setting, and every other setting adds its own:

* block: `block_1` to `block_4` for DenseNet's dense blocks, the layer's name for others;
* metric: nothing for patches, `_pixel` for pixels;
* class explained: nothing for the label, `_target_prediction` or `_target_207`;
* class whose probability falls: nothing for the prediction, `_measure_label`;
* names that the original gives whatever the filter (classes, significance, decomposition) are here those of cluster 0
  of the first layer's main clustering (`Original.leading`), block_1 and k = 3 there; others add block, cluster and k.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Int

from neuronscope.result import Result
from neuronscope.studies.clusters.spec import PRESETS

MEASURES = ("sparsity_mean", "sparsity_std", "faithfulness_mean", "faithfulness_std")
"""What the original keeps of each method."""

_BLOCKS = {layer: block for block, layer in PRESETS.items()}


@dataclass(frozen=True)
class Filter:
    """One row of the group `configurations`.

    Attributes:
        at: its place there.
        layer, block: the layer, and what the original calls it.
        kind: `baseline`, `filter`, `random`, ...
        k, cluster, draw: which cluster of which clustering, and which random set.
        closed, units: channels that the gradient does not pass, of how many.
        overlap: channels that a random set shares with the cluster it stands for.
    """

    at: int
    layer: str
    block: str
    kind: str
    k: int
    cluster: int
    draw: int
    closed: int
    units: int
    overlap: int

    @property
    def name(self) -> str:
        """Block, cluster and number of clusters as a part of names."""
        return f"{self.block}_cluster_{self.cluster}_k{self.k}"


@dataclass(frozen=True, eq=False)
class Original:
    """A result and the folder its files go to.

    Attributes:
        result: of the study.
        outputs: the folder that the original calls so.
    """

    result: Result
    outputs: Path

    @cached_property
    def spec(self) -> Mapping[str, Any]:
        """The study's options."""
        return self.result.provenance.spec

    @cached_property
    def blocks(self) -> dict[str, str]:
        """Layer -> what the original calls it, in calling order."""
        names: dict[str, str] = {}
        for layer in dict.fromkeys(str(name) for name in self.result.table["layer"].to_numpy()):
            wanted = _BLOCKS.get(layer) or file_part(layer)
            taken, name, number = set(names.values()), wanted, 2
            while name in taken:
                name, number = f"{wanted}-{number}", number + 1
            names[layer] = name
        return names

    @cached_property
    def filters(self) -> tuple[Filter, ...]:
        """All configurations."""
        table = self.group("configurations")
        if table is None:
            return ()
        names = ("k", "cluster", "draw", "n_filtered", "n_total", "overlap")
        numbers = [table[name].to_numpy() if name in table else np.zeros(len(table["kind"])) for name in names]
        layers, kinds = texts(table["layer"]), texts(table["kind"])
        return tuple(
            Filter(at, layer, self.blocks.get(layer, file_part(layer)), kind, *map(_whole, values))
            for at, (layer, kind, *values) in enumerate(zip(layers, kinds, *numbers, strict=True))
        )

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """Attributions that were made."""
        return self._axis("method")

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """Patches, pixels or both."""
        return self._axis("metric")

    @cached_property
    def main_k(self) -> int:
        """Number of clusters of the clustering with controls."""
        return int(self.spec.get("main_k", 3))

    @cached_property
    def leading(self) -> Filter | None:
        """The filter whose files carry the original's bare names: cluster 0 of the first layer's main clustering."""
        main = [one for one in self.filters if one.kind == "filter" and one.k == self.main_k]
        return min(main, key=lambda one: (list(self.blocks).index(one.layer), one.cluster), default=None)

    @cached_property
    def classes(self) -> str:
        """Classes explained and measured as a part of names; empty for the original's."""
        target, measure = str(self.spec.get("target", "label")), str(self.spec.get("measure", "prediction"))
        explained = "" if target == "label" else f"_target_{file_part(target)}"
        return explained + ("" if measure == "prediction" else f"_measure_{file_part(measure)}")

    def settings(self, **own: Any) -> dict[str, Any]:
        """What decides the numbers of a file, to stand in it."""
        names = ("target", "measure", "drop", "mass", "fill", "steps", "baseline", "images")
        there = {name: self.spec[name] for name in names if name in self.spec}
        return {**own, **there, "legacy": list(self.result.provenance.legacy)}

    def suffix(self, metric: str) -> str:
        """Metric and classes as a part of names."""
        return ("" if metric == "patch" else f"_{metric}") + self.classes

    def baseline(self, layer: str) -> Filter | None:
        """The unfiltered configuration that filters of a layer are held against."""
        found = [one for one in self.filters if one.kind == "baseline"]
        return next((one for one in found if one.layer == layer), found[0] if found else None)

    def group(self, name: str) -> xr.Dataset | None:
        """A group of the result; None where it is not there."""
        return self._groups.get(name)

    def number(self, group: str, name: str, **places: int | str) -> float:
        """One number of a group; nan where the result does not have it.

        Args:
            group: of the result.
            name: of the variable.
            places: axis -> place on it, or name of the method or metric there; axes that it lacks are left out.
        """
        table = self.group(group)
        if table is None or name not in table:
            return math.nan
        found = {axis: self._place(axis, place) for axis, place in places.items() if axis in table[name].dims}
        if any(place is None or place >= table.sizes[axis] for axis, place in found.items()):
            return math.nan
        return float(table[name].isel({axis: int(place or 0) for axis, place in found.items()}).to_numpy())

    def units_of(self, layer: str) -> xr.Dataset:
        """The layer's part of the table of units."""
        table = self.result.table
        return table.isel(unit=np.flatnonzero(table["layer"].to_numpy().astype(str) == layer))

    def labels(self, layer: str, k: int) -> Int[np.ndarray, "u"]:
        """Cluster of each unit of a layer, -1 for units set apart."""
        return np.asarray(self.units_of(layer)[f"cluster_k{k}"].to_numpy().astype(np.int64))

    @cached_property
    def accuracy(self) -> float:
        """Share of the explained images that are recognised; the same with every filter, as outputs do not change."""
        images = self.group("images")
        if images is None or "label" not in images or "predicted" not in images:
            return math.nan
        label, predicted = images["label"].to_numpy(), images["predicted"].to_numpy()
        known = label >= 0
        return float((label == predicted)[known].mean()) if known.any() else math.nan

    def random_set(self, one: Filter) -> Bool[np.ndarray, "u"] | None:
        """Which units of its layer a random set closes; None where the result does not keep it."""
        table = self.group("random_sets")
        if table is None:
            return None
        own = table["channel"].to_numpy()[table["configuration"].to_numpy() == one.at]
        closed = np.zeros(one.units, dtype=bool)
        closed[own.astype(np.int64)] = True
        return closed if len(own) else None

    @cached_property
    def _groups(self) -> dict[str, xr.Dataset]:
        return {str(name): group.to_dataset() for name, group in self.result.tree.children.items()}

    def _axis(self, name: str) -> tuple[str, ...]:
        table = self.group("metrics")
        return () if table is None or f"{name}_name" not in table.coords else tuple(texts(table[f"{name}_name"]))

    def _place(self, axis: str, place: int | str) -> int | None:
        if isinstance(place, int):
            return place
        names = {"method": self.methods, "metric": self.metrics}[axis]
        return names.index(place) if place in names else None


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Write plain numbers and text; what is not a finite number becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def write_csv(path: Path, table: pd.DataFrame) -> Path:
    """Write a table without row numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)
    return path


def plain(value: Any) -> Any:
    """A value as JSON has it.

    Example:
        >>> plain({"a": np.float32(0.5), 1: [np.int64(2), float("nan")]})
        {'a': 0.5, '1': [2, None]}
    """
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(part) for part in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def texts(names: xr.DataArray) -> list[str]:
    """A row of names."""
    return [str(name) for name in names.to_numpy()]


def file_part(name: str) -> str:
    """A name as a part of file names: letters, digits, dots, hyphens.

    Example:
        >>> file_part("layer4.1/conv 2")
        'layer4.1-conv-2'
    """
    return re.sub(r"[^\w.-]+", "-", name).strip(".") or "layer"


def _whole(number: Any) -> int:
    return -1 if isinstance(number, float | np.floating) and not math.isfinite(number) else int(number)
