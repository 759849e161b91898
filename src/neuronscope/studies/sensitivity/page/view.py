"""A sensitivity result under short names, and the few reductions that its page needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from neuronscope.maths.replicates import settled_pairs
from neuronscope.result import Result
from neuronscope.studies.sensitivity.indices import FEWEST

MEASURES = {"first": "first-order index", "total": "total index", "shapley": "Shapley effect"}
"""Shares of the variance by their names in the result, in words."""
LAYERS = 8
"""Layers with charts of their own; of more, some are chosen evenly from the first to the last."""
WILD = 1.5
"""A share of the variance beyond this is no share: its activation hardly varies, and its estimate is noise."""
_NAMED = 8  # layers in a sentence
_BESIDE = 12  # factors with which two charts fit beside one another


class View:
    """A result's groups under short names; groups and variables that a result lacks are None."""

    def __init__(self, result: Result) -> None:  # noqa: D107 the class says it
        self.provenance = result.provenance
        self.spec = result.provenance.spec
        children = {str(name): node for name, node in result.tree.children.items()}
        maps = children.pop("maps", None)
        self.groups = {name: node.to_dataset() for name, node in children.items()}
        self._maps = {} if maps is None else {str(name): node.to_dataset() for name, node in maps.children.items()}
        self.layer_of = np.array(self._names("units", "layer"), dtype=object)
        self.index_of = self._index()
        self.layers = tuple(self._names("layers", "layer_name")) or tuple(dict.fromkeys(self.layer_of.tolist()))
        self.factors = tuple(self._names("factors", "factor_name"))
        self.augmentations = tuple(self._names("units", "augmentation_name"))

    def _names(self, group: str, name: str) -> list[str]:
        table = self.groups.get(group)
        return texts(table[name]) if table is not None and name in table.variables else []

    def _index(self) -> Int[np.ndarray, "u"]:
        table = self.groups.get("units")
        return np.zeros(0, dtype=np.int64) if table is None else table["index"].to_numpy()

    def find(self, group: str, name: str) -> np.ndarray | None:
        """A variable of a group, where there is any value in it; None without."""
        table = self.groups.get(group)
        if table is None or name not in table.variables:
            return None
        values = table[name].to_numpy()
        if values.dtype.kind == "f" and not np.isfinite(values).any():
            return None
        return np.asarray(values)

    def option(self, name: str, default: Any) -> Any:
        """An option of the run; the default for results that are older than it."""
        return self.spec.get(name, default)

    @property
    def level(self) -> float:
        """Coverage of the intervals; findings count when q is below the rest."""
        return float(self.option("level", 0.95))

    @property
    def bound(self) -> str:
        """The limit of q-values in words."""
        return f"q < {1 - self.level:.2g}"

    def has(self, deviation: str) -> bool:
        """Whether a named deviation is in force."""
        return deviation in self.option("legacy", ())

    def told(self, q: np.ndarray) -> Bool[np.ndarray, "*s"]:
        """Findings that survive the false discovery rate; those without a q-value do not."""
        return np.asarray(np.nan_to_num(np.asarray(q, dtype=np.float64), nan=1.0) < 1 - self.level)

    def places(self, layer: str) -> Int[np.ndarray, "_"]:
        """Rows of a layer in the table of units."""
        return np.flatnonzero(self.layer_of == layer)

    @property
    def shown_layers(self) -> tuple[str, ...]:
        """Layers with charts of their own; of segments with all their channels."""
        segments = self._names("segments", "segment")
        if segments:
            return self._whole_segments(dict(zip(self._names("segments", "layer"), segments, strict=True)))
        if len(self.layers) <= LAYERS:
            return self.layers
        chosen = np.unique(np.linspace(0, len(self.layers) - 1, LAYERS).round().astype(int))
        return tuple(self.layers[place] for place in chosen)

    @property
    def rows_of_layers(self) -> dict[str, tuple[str, ...]]:
        """Layers in the order of depth: all of a network, under an empty text; of segments those of each channel."""
        channel_of = dict(zip(self._names("segments", "layer"), self._names("segments", "channel"), strict=True))
        found: dict[str, tuple[str, ...]] = {}
        for layer in self.layers:
            row = channel_of.get(layer, "")
            found[row] = (*found.get(row, ()), layer)
        return found

    def _whole_segments(self, segment_of: dict[str, str]) -> tuple[str, ...]:
        """Layers of some segments, chosen evenly."""
        names = list(dict.fromkeys(segment_of.values()))
        most = -(-LAYERS * len(names) // len(segment_of))
        places = np.unique(np.linspace(0, len(names) - 1, min(most, len(names))).round().astype(int))
        chosen = {names[place] for place in places.tolist()}
        return tuple(layer for layer in self.layers if segment_of.get(layer) in chosen)

    @property
    def left_out(self) -> str:
        """A sentence on layers without charts of their own; empty if there are none."""
        shown, every = len(self.shown_layers), len(self.layers)
        return f"{shown} of {every} layers, from the first to the last; the tables have all." if shown < every else ""

    @property
    def measures(self) -> tuple[str, ...]:
        """Which shares of the variance the result has of layers."""
        return tuple(name for name in MEASURES if self.find("layers", name) is not None)

    def of_layers(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shares of each layer as a whole (layer, factor) and their intervals; nan for `wild_layers`."""
        table = self.groups["layers"]
        useless = np.array([layer in self.wild_layers for layer in self.layers])[:, None]
        value, low, high = (
            np.where(useless, np.nan, table[f"{name}{end}"].to_numpy()) for end in ("", "_low", "_high")
        )
        return value, low, high

    @cached_property
    def wild_layers(self) -> dict[str, int]:
        """Layers of which some share is none, and of how many of their units that is so."""
        found: dict[str, int] = {}
        for place, layer in enumerate(self.layers):
            for name in self.measures:
                mean = self.groups["layers"][name].to_numpy()[place]
                values = self.find("units", name)
                if (np.abs(mean) > WILD).any() and values is not None:
                    units = int((np.abs(values[self.places(layer)]) > WILD).any(axis=1).sum())
                    found[layer] = max(found.get(layer, 0), units)
        return found

    @property
    def dead(self) -> Bool[np.ndarray, "u"]:
        """Units that never changed; none known where no variance was divided."""
        for name in ("total", "shapley"):
            values = self.find("units", name)
            if values is not None:
                return np.asarray(np.isnan(values).any(axis=1))
        return np.zeros(len(self.layer_of), dtype=bool)

    @property
    def replicates(self) -> int:
        """Scrambles that Sobol indices were made of; 0 without them."""
        used = self.find("layers", "replicates")
        return 0 if used is None else int(used.max())

    def settled(self) -> bool | None:
        """Whether the order of the factors is known in every layer, as the stop asks; None without Sobol indices."""
        total = self.find("convergence", "total")
        if total is None:
            return None
        values = np.moveaxis(total, 1, 0)
        values = values[np.isfinite(values).any(axis=(1, 2))]
        looks = max(int(self.option("replicates", FEWEST)) - FEWEST + 1, 1) * len(self.layers)
        tolerance = float(self.option("tolerance", 0.0))
        return bool(settled_pairs(values, tolerance=tolerance, level=self.level, looks=looks).all())

    def maps(self, layer: str, name: str) -> Float[np.ndarray, "u y x k"] | None:
        """A variable of every activation as maps, the last axis of factors, pairs or augmentations; None without.

        Layers without maps have maps of one place; of other than two axes of space all but the last become one.
        """
        table = self._maps.get(layer)
        if table is None or name not in table:
            return None
        values = table[name].to_numpy()
        named = table[name].dims[-1] in ("factor", "pair", "player", "augmentation", "set")
        if not named:
            values = values[..., None]
        units, *space, last = values.shape
        side = space[-1] if space else 1
        return np.asarray(values.reshape(units, -1, side, last))

    @property
    def sets(self) -> int:
        """How many runs the result is joined of; 1 where it is of one run."""
        table = self.groups.get("factors")
        return int(table["factor_set"].to_numpy().max()) if table is not None and "factor_set" in table.coords else 1

    @property
    def beside(self) -> int:
        """Charts with an axis of all factors that stand beside one another."""
        return 2 if len(self.factors) <= _BESIDE else 1

    @property
    def of_sets(self) -> tuple[str, ...]:
        """What to add to the titles of what each of the joined runs has; an empty text for one run."""
        return tuple(f", set {number}" for number in range(1, self.sets + 1)) if self.sets > 1 else ("",)

    def has_maps(self, layer: str) -> bool:
        """Whether activations of a layer are kept and have places."""
        table = self._maps.get(layer)
        if table is None or not table.data_vars:
            return False
        shape = next((self.maps(layer, str(name)) for name in table.data_vars), None)
        return shape is not None and shape.shape[1] * shape.shape[2] > 1

    @property
    def flat_layers(self) -> tuple[str, ...]:
        """Layers with numbers of each unit that have no places."""
        return tuple(layer for layer in self.layers if layer in self._maps and not self.has_maps(layer))


def clipped(values: np.ndarray) -> np.ndarray:
    """Shares of the variance cut to 0..1, as far as they are numbers."""
    return np.asarray(np.clip(values, 0.0, 1.0))


def known_mean(values: Float[np.ndarray, "n *s"]) -> Float[np.ndarray, "*s"]:
    """Mean along the first axis of what is a number; nan where nothing is.

    Example:
        >>> known_mean(np.array([[1.0, np.nan], [3.0, np.nan]])).tolist()
        [2.0, nan]
    """
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=0, dtype=np.float64)
    count = known.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def texts(values: xr.DataArray | np.ndarray) -> list[str]:
    """Values as texts."""
    return [str(value) for value in np.asarray(values).ravel()]


def listed(names: Iterable[str]) -> str:
    """Names in a sentence; of many the first."""
    found = list(names)
    if len(found) > _NAMED:
        return ", ".join(found[:_NAMED]) + f" and {len(found) - _NAMED:,} more"
    return "".join(found) if len(found) < 2 else ", ".join(found[:-1]) + f" and {found[-1]}"  # noqa: PLR2004 nothing to join


def counted(count: int, what: str) -> str:
    """A number of things in a sentence.

    Example:
        >>> counted(1, "unit"), counted(2000, "unit")
        ('1 unit', '2,000 units')
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def spread(values: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """Quartiles of the values that are numbers: lower, median, upper; nan without any."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if not known.size:
        return (float("nan"),) * 3
    low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)
