"""Images with their attributions, as the result keeps them: group `panels`, one image at one layer each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, UInt8

from neuronscope.studies.clusters.original.parts import Original, file_part, texts


@dataclass(frozen=True, eq=False)
class PanelView:
    """One image at one layer.

    Attributes:
        original: the result it is of.
        table: its part of the group.
        layer, block, k, cluster: what was filtered.
        row: of the image in the data.
    """

    original: Original
    table: xr.Dataset
    layer: str
    block: str
    k: int
    cluster: int
    row: int

    @property
    def frame(self) -> UInt8[np.ndarray, "h w 3"]:
        """The image."""
        frame = np.asarray(self.table["frame"].transpose(..., "channel").to_numpy().astype(np.uint8))
        return np.ascontiguousarray(np.repeat(frame, 3, axis=2) if frame.shape[2] == 1 else frame[..., :3])

    @property
    def classes(self) -> tuple[str, str]:
        """Label and prediction, by name where the result has names."""
        found = []
        for name in ("label", "predicted"):
            number = int(self.table[name].to_numpy()) if name in self.table else -1
            words = str(self.table[f"{name}_name"].to_numpy()) if f"{name}_name" in self.table else ""
            found.append(words or (f"class {number}" if number >= 0 else "unknown"))
        return found[0], found[1]

    @property
    def right(self) -> bool:
        """Whether the prediction is the label."""
        return bool(int(self.table["label"].to_numpy()) == int(self.table["predicted"].to_numpy()))

    def map(self, method: str, part: str) -> Float[np.ndarray, "y x"] | None:
        """Attribution summed over channels; None where the panel has none."""
        place = self._place("maps", method, part)
        if place is None:
            return None
        values = np.asarray(place.transpose("y", "x").to_numpy().astype(np.float64))
        return values if np.isfinite(values).any() else None

    def dropped(self, method: str, part: str, metric: str) -> Bool[np.ndarray, "y x"] | None:
        """Positions that are replaced; None where the panel has no such metric."""
        place = self._place("masks", method, part)
        if place is None or metric not in self.original.metrics:
            return None
        own = place.isel(metric=self.original.metrics.index(metric)) if "metric" in place.dims else place
        axes = [axis for axis in own.dims if str(axis).startswith("y")] + [
            a for a in own.dims if str(a).startswith("x")
        ]
        return np.asarray(own.transpose(*axes).to_numpy().astype(bool))

    def number(self, name: str, method: str, part: str, metric: str) -> float:
        """A number of the panel: `before` or `after` (probabilities), `sparsity`; nan where there is none."""
        place = self._place(name, method, part)
        if place is None or ("metric" in place.dims and metric not in self.original.metrics):
            return math.nan
        own = place.isel(metric=self.original.metrics.index(metric)) if "metric" in place.dims else place
        return float(own.to_numpy())

    def drawable(self, method: str) -> bool:
        """Whether there are maps of each cluster alone."""
        return all(self.map(method, part) is not None for part in ("baseline", *self.clusters))

    @property
    def clusters(self) -> tuple[str, ...]:
        """Names of the parts that clusters let through."""
        return tuple(f"cluster_{cluster}" for cluster in range(self.k))

    def _place(self, name: str, method: str, part: str) -> xr.DataArray | None:
        """A variable at a method and a part; None where it lacks either."""
        if name not in self.table or method not in self.original.methods:
            return None
        own = self.table[name]
        if "method" in own.dims:
            own = own.isel(method=self.original.methods.index(method))
        if "part" in own.dims:
            parts = texts(self.table["part_name"])
            if part not in parts or parts.index(part) >= own.sizes["part"]:
                return None
            own = own.isel(part=parts.index(part))
        return own


def panels_of(original: Original) -> list[PanelView]:
    """All panels of a result."""
    table = original.group("panels")
    if table is None:
        return []
    found = []
    for at in range(table.sizes.get("panel", 0)):
        own = table.isel(panel=at)
        layer = str(own["layer"].to_numpy())
        block = original.blocks.get(layer, file_part(layer))
        k, cluster, row = (int(own[name].to_numpy()) for name in ("k", "cluster", "row"))
        found.append(PanelView(original, own, layer, block, k, cluster, row))
    return found
