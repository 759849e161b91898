"""A clusters result under short names, and the few selections that its page needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from neuronscope.result import Result
from neuronscope.studies.clusters.spec import PRESETS

METHODS = {
    "ig": "integrated gradients",
    "saliency": "saliency",
    "signed_saliency": "signed saliency",
    "input_x_gradient": "input x gradient",
    "smoothgrad": "SmoothGrad",
    "gradcam": "Grad-CAM",
}
POINTS = "points"
"""Unit of differences between probabilities: hundredths."""
_SHORT = {name: short for short, name in PRESETS.items()}
_GRID = ("configuration", "method", "metric")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_NAMED = 10  # clusters in a sentence


class View:
    """A result's groups under short names; groups and variables that a result lacks are None."""

    def __init__(self, result: Result) -> None:  # noqa: D107 the class says it
        self.provenance = result.provenance
        self.spec = result.provenance.spec
        self.groups = {str(name): node.to_dataset() for name, node in result.tree.children.items()}
        self.configurations = self.groups.get("configurations")
        self.kind = np.array(self._listing("kind", ""), dtype=object)
        self.layer = np.array(self._listing("layer", ""), dtype=object)
        self.k = np.array(self._listing("k", -1), dtype=np.int64)
        self.cluster = np.array(self._listing("cluster", -1), dtype=np.int64)
        self.draw = np.array(self._listing("draw", -1), dtype=np.int64)
        self.methods = self._names("method")
        self.metrics = self._names("metric")
        self.layers = self._layers()
        if self.configurations is not None:
            for name in ("metrics", "comparisons", "against_blurred", "against_random", "curves"):
                if name in self.groups:
                    self.groups[name] = self._aligned(self.groups[name])

    def _listing(self, name: str, missing: object) -> list[Any]:
        """A variable of the configurations; they have one value each."""
        table = self.configurations
        if table is None:
            return []
        size = table.sizes.get("configuration", 0)
        return texts(table[name]) if name in ("kind", "layer") else list(table.get(name, np.full(size, missing)))

    def _names(self, axis: str) -> tuple[str, ...]:
        """Names along an axis, from the first group that has them."""
        for table in self.groups.values():
            for name in (f"{axis}_name", axis):
                if name in table.coords and table[name].dims == (axis,):
                    return tuple(texts(table[name]))
        sizes = [table.sizes[axis] for table in self.groups.values() if axis in table.sizes]
        return tuple(f"{axis} {number + 1}" for number in range(sizes[0])) if sizes else ()

    def _layers(self) -> tuple[str, ...]:
        """Layers in calling order, from whatever names them."""
        for group, name in (
            ("units", "layer"),
            ("configurations", "layer"),
            ("clusterings", "clustering_layer"),
            ("centroids", "cluster_layer"),
            ("completeness", "layer_name"),
            ("completeness", "layer"),
            ("accuracy", "layer"),
        ):
            table = self.groups.get(group)
            if table is not None and name in table.variables:
                return tuple(dict.fromkeys(one for one in texts(table[name]) if one))
        prefix = "decomposition_"
        return tuple(name.removeprefix(prefix) for name in self.groups if name.startswith(prefix))

    def _aligned(self, table: xr.Dataset) -> xr.Dataset:
        """A table of some configurations with a row for each of them; nan where it has none."""
        if table.sizes.get("configuration") == len(self.kind) or "configuration" not in table.coords:
            return table
        return table.reindex(configuration=np.arange(len(self.kind)))

    def option(self, name: str, default: Any) -> Any:
        """An option of the run; the default for results that are older than it."""
        return self.spec.get(name, default)

    @property
    def level(self) -> float:
        """Coverage of the intervals; findings count when q is below the rest."""
        return float(self.option("level", 0.95))

    @property
    def main_k(self) -> int:
        """The number of clusters that controls and decomposition are about."""
        return int(self.option("main_k", 3))

    @property
    def bound(self) -> str:
        """The limit of q-values in words."""
        return f"q < {1 - self.level:.2g}"

    def told(self, log10_q: np.ndarray) -> Bool[np.ndarray, "*s"]:
        """Findings that survive the false discovery rate; those without a q-value do not."""
        known = np.nan_to_num(np.asarray(log10_q, dtype=np.float64), nan=1.0, neginf=-np.inf)
        return np.asarray(known < np.log10(1 - self.level))

    def short(self, layer: str) -> str:
        """A layer under its preset's name, where it has one."""
        return _SHORT.get(layer, layer)

    def method(self, number: int) -> str:
        """A method in words."""
        return METHODS.get(self.methods[number], self.methods[number])

    def pairs(self) -> list[tuple[int, int, str]]:
        """Every method with every metric: their places, and both in words."""
        return [
            (a, b, f"{self.method(a)}, {metric}")
            for a in range(len(self.methods))
            for b, metric in enumerate(self.metrics)
        ]

    def together(self, titles: list[str]) -> str:
        """Methods and metrics of which the same is said."""
        every = len(self.methods) * len(self.metrics)
        return "All methods and metrics" if len(titles) == every > 1 else capital("; ".join(titles))

    def rows(self, kind: str, *, layer: str = "", k: int = 0, cluster: int = -1) -> Int[np.ndarray, "_"]:
        """Configurations of a kind (of a layer, a k, a cluster) by layer, k, cluster and draw."""
        chosen = self.kind == kind
        chosen &= (self.layer == layer) if layer else True
        chosen &= (self.k == k) if k else True
        chosen &= (self.cluster == cluster) if cluster >= 0 else True
        places = np.flatnonzero(chosen)
        order = np.array(
            [self.layers.index(one) if one in self.layers else -1 for one in self.layer[places]], dtype=int
        )
        return places[np.lexsort((self.draw[places], self.cluster[places], self.k[places], order))]

    def grid(self, group: str, name: str) -> Float[np.ndarray, "configuration method metric"] | None:
        """A variable of configurations, methods and metrics; None without any value."""
        table = self.groups.get(group)
        if table is None or name not in table or not self.kind.size or not self.methods or not self.metrics:
            return None
        values = table[name]
        if "configuration" not in values.dims or not set(values.dims) <= set(_GRID):
            return None
        shape = (len(self.kind), len(self.methods), len(self.metrics))
        there = values.transpose(*(axis for axis in _GRID if axis in values.dims)).to_numpy().astype(np.float64)
        for place, axis in enumerate(_GRID):
            if axis not in values.dims:
                there = np.expand_dims(there, place)
        full = np.broadcast_to(there, shape)
        return full if np.isfinite(full).any() else None

    def cells(self, group: str, name: str) -> Float[np.ndarray, "configuration method metric"]:
        """The same with nan where there is nothing."""
        found = self.grid(group, name)
        return np.full((len(self.kind), len(self.methods), len(self.metrics)), np.nan) if found is None else found

    def tick(self, row: int) -> str:
        """A cluster at an axis whose title names the layer."""
        return f"{self.cluster[row]} of {self.k[row]}"

    def place(self, row: int) -> str:
        """A cluster of the main k at an axis over layers."""
        return f"{self.short(str(self.layer[row]))}: {self.cluster[row]}"

    def title(self, row: int) -> str:
        """A cluster in a sentence."""
        return f"cluster {self.cluster[row]} of {self.k[row]} in {self.short(str(self.layer[row]))}"

    def titles(self, rows: Iterable[int]) -> str:
        """Clusters in a sentence, layer by layer; of many the first."""
        places = [int(row) for row in rows]
        parts = []
        for layer in dict.fromkeys(str(self.layer[row]) for row in places[:_NAMED]):
            own = [self.tick(row) for row in places[:_NAMED] if self.layer[row] == layer]
            parts.append(f"{'cluster' if len(own) == 1 else 'clusters'} {listed(own)} in {self.short(layer)}")
        return "; ".join(parts) + (f"; and {len(places) - _NAMED:,} more" if len(places) > _NAMED else "")

    @property
    def main_filters(self) -> Int[np.ndarray, "_"]:
        """Filters of the main k; of the first k there is if the result has none of it."""
        rows = self.rows("filter", k=self.main_k)
        every = self.rows("filter")
        return rows if rows.size or not every.size else self.rows("filter", k=int(self.k[every].min()))

    def controls(self, row: int, kind: str) -> Int[np.ndarray, "_"]:
        """Controls of one kind of a filter; those of its layer where they are not of one cluster."""
        layer = str(self.layer[row])
        own = self.rows(kind, layer=layer, k=int(self.k[row]), cluster=int(self.cluster[row]))
        return own if own.size else self.rows(kind, layer=layer)[self.cluster[self.rows(kind, layer=layer)] < 0]

    def class_name(self, number: str) -> str:
        """A class in words, as far as the result names it."""
        table = self.groups.get("classes")
        if table is not None and "class_name" in table and "class_id" in table:
            names = dict(zip(texts(table["class_id"]), texts(table["class_name"]), strict=True))
            number = names.get(number, number)
        return f"class {number}" if number.isdigit() else number

    def has(self, deviation: str) -> bool:
        """Whether a named deviation is in force."""
        return deviation in self.option("legacy", ())


def first(table: xr.Dataset, *names: str) -> xr.DataArray | None:
    """The first of some variables or coordinates that a table has."""
    return next((table[name] for name in names if name in table.variables), None)


def numbers(table: xr.Dataset, name: str, *axes: str) -> np.ndarray | None:
    """A variable that has just these axes, in this order; None without."""
    if name not in table.variables or set(table[name].dims) != set(axes):
        return None
    return np.asarray(table[name].transpose(*axes).to_numpy())


def capital(words: str) -> str:
    """Words at the beginning of a sentence."""
    return words[:1].upper() + words[1:]


def signed(value: float, form: str = "+.1f") -> str:
    """A number in a sentence, with a minus sign as wide as a plus sign."""
    return format(value, form).replace("-", "\u2212") if np.isfinite(value) else "unknown"


def decimals(*values: float) -> int:
    """How many decimals show two digits of the largest of some numbers, 1 to 4."""
    largest = max((abs(one) for one in values if np.isfinite(one)), default=0.0)
    return int(np.clip(1 - np.floor(np.log10(largest)), 1, 4)) if largest > 0 else 1


def spanned(value: float, low: float, high: float) -> str:
    """A number and its interval, where there is one, with decimals that show it."""
    form = f"+.{decimals(value, low, high)}f"
    ends = f" ({signed(low, form)} to {signed(high, form)})" if np.isfinite(low) and np.isfinite(high) else ""
    return signed(value, form) + ends


def probable(log10_q: float) -> str:
    """A q-value in a sentence, also where it is too small for a plain number."""
    if not np.isfinite(log10_q):
        return "q unknown" if np.isnan(log10_q) else "q = 0"
    if log10_q > -4:  # noqa: PLR2004 readable in digits
        return f"q = {10.0**log10_q:.2g}"
    return "q < 10" + str(int(np.ceil(log10_q))).translate(_RAISED)


def texts(values: xr.DataArray | np.ndarray) -> list[str]:
    """Values as texts."""
    return [str(value) for value in np.asarray(values).ravel()]


def listed(names: Iterable[str]) -> str:
    """Names in a sentence."""
    found = list(names)
    return "".join(found) if len(found) < 2 else ", ".join(found[:-1]) + f" and {found[-1]}"  # noqa: PLR2004 nothing to join
