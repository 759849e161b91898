"""A concepts result under short names, and the few reductions that its page needs."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from neuronscope.errors import InputError
from neuronscope.maths.formulas import Formula, parse
from neuronscope.maths.resampling import mean_interval
from neuronscope.result import Result

LINES = 8
"""Layers with a line or colour of their own; with more, all are taken together."""
_NAMED = 12  # units in a sentence
_SCORES = {
    "iou": "IoU",
    "detection_accuracy": "detection accuracy",
    "activation_coverage": "activation coverage",
    "imrou": "ImRoU",
    "imrou_normalised": "normalised ImRoU",
}


class View:
    """A result's groups under short names; groups and variables that a result lacks are None."""

    def __init__(self, result: Result) -> None:  # noqa: D107 the class says it
        self.provenance = result.provenance
        self.spec = result.provenance.spec
        self.groups = {str(name): node.to_dataset() for name, node in result.tree.children.items()}
        self.units = self.groups["units"]
        self.concepts = self.groups["concepts"]
        self.cards = self.groups.get("cards")
        self.layer_of = self.units["layer"].to_numpy().astype(str)
        self.index_of = self.units["index"].to_numpy()
        self.layer_names = tuple(dict.fromkeys(self.layer_of.tolist()))
        self.formulas = [str(words) for words in self.units["formula"].to_numpy()]
        self.explained = np.array([bool(words) for words in self.formulas], dtype=bool)
        self.broken = np.isnan(self.get("threshold"))
        self.dead = (self.get("dead") == 1) & ~self.broken
        if "accuracy" in self.groups:
            self.groups["accuracy"] = self._aligned(self.groups["accuracy"])

    def get(self, name: str) -> np.ndarray:
        """A variable of the units."""
        return self.units[name].to_numpy()

    def _aligned(self, table: xr.Dataset) -> xr.Dataset:
        """A table of units with the rows of the group `units`, where it has more or other ones."""
        if not {"layer", "index"} <= set(table.coords) or "unit" not in table.sizes:
            return table
        keys = zip(texts(table["layer"]), table["index"].to_numpy().tolist(), strict=True)
        place = {one: row for row, one in enumerate(keys)}
        wanted = [place.get(one, -1) for one in zip(self.layer_of.tolist(), self.index_of.tolist(), strict=True)]
        return table.isel(unit=wanted) if -1 not in wanted else table

    def find(self, name: str, *, group: str = "units") -> np.ndarray | None:
        """A variable of a group, where there is any value in it; None without."""
        table = self.groups.get(group)
        if table is None or name not in table:
            return None
        values = table[name].to_numpy()
        if values.dtype.kind == "f" and not np.isfinite(values).any():
            return None
        return np.asarray(values)

    def number(self, name: str, *, group: str) -> float:
        """A single number of a group; nan without."""
        values = self.find(name, group=group)
        return float(values) if values is not None and values.ndim == 0 else float("nan")

    def option(self, name: str, default: Any) -> Any:
        """An option of the run; the default for results that are older than it."""
        return self.spec.get(name, default)

    def known(self, name: str) -> Float[np.ndarray, "_"]:
        """A variable of the explained units, where it is a number; none where there is no such variable."""
        values = self.find(name)
        if values is None:
            return np.empty(0)
        return np.asarray(values[self.explained & np.isfinite(values)], dtype=np.float64)

    def those(self, chosen: Bool[np.ndarray, "units"]) -> str:
        """The chosen units in a sentence; of many the first."""
        places = np.flatnonzero(chosen)
        shown = places[:_NAMED]
        parts = []
        for layer in dict.fromkeys(self.layer_of[shown].tolist()):
            numbers = self.index_of[shown[self.layer_of[shown] == layer]]
            parts.append(f"{layer}: {', '.join(str(number) for number in numbers)}")
        return "; ".join(parts) + (f"; and {len(places) - _NAMED:,} more" if len(places) > _NAMED else "")

    def places(self, layer: str) -> Int[np.ndarray, "_"]:
        """Rows of a layer in the table of units."""
        return np.flatnonzero(self.layer_of == layer)

    def of_layers(self, chosen: Bool[np.ndarray, "units"]) -> list[tuple[str, Bool[np.ndarray, "units"]]]:
        """The chosen units layer by layer, as far as there are any; of many layers all together."""
        groups = [(layer, chosen & (self.layer_of == layer)) for layer in self.layer_names]
        groups = [(layer, own) for layer, own in groups if own.any()]
        return groups if len(groups) <= LINES else [("all layers", chosen)]

    @property
    def level(self) -> float:
        """Coverage of the intervals; findings count when q is below the rest."""
        return float(self.spec["level"])

    @property
    def bound(self) -> str:
        """The limit of q-values in words."""
        return f"q < {1 - self.level:.2g}"

    @property
    def draws(self) -> int:
        """Times that masks were laid over other images."""
        return int(self.spec["draws"])

    @property
    def score(self) -> str:
        """What the search maximised, in words."""
        return _SCORES.get(self.spec["score"], str(self.spec["score"]))

    @property
    def judged(self) -> str:
        """What held-out formulas are judged by, in words."""
        name = self.option("report_score", "") if self.find("report_score") is not None else "iou"
        return _SCORES.get(name or self.spec["score"], str(name))

    @property
    def cells(self) -> bool:
        """Whether masks are of cells rather than pixels."""
        return bool(self.option("resolution", "pixels") == "cells")

    @property
    def places_word(self) -> str:
        """What masks are made of."""
        return "cells" if self.cells else "pixels"

    @property
    def tested(self) -> Bool[np.ndarray, "units"]:
        """Units whose fit was held against chance."""
        return np.asarray(self.explained & np.isfinite(self.get("q")))

    @property
    def told(self) -> Bool[np.ndarray, "units"]:
        """Units that fit better than chance, with false discoveries under control."""
        return np.asarray(self.tested & self.below(self.get("q")))

    def below(self, q: np.ndarray) -> Bool[np.ndarray, "*s"]:
        """Findings that survive the false discovery rate; those without a q-value do not."""
        return np.asarray(np.nan_to_num(np.asarray(q, dtype=np.float64), nan=1.0) < 1 - self.level)

    @property
    def proved_length(self) -> int:
        """Labels of the formulas that a proof is about."""
        return min(3, int(self.spec["length"]))

    def has(self, deviation: str) -> bool:
        """Whether a named deviation is in force."""
        return deviation in self.spec["legacy"]

    @cached_property
    def names(self) -> dict[int, str]:
        """Name of each label number."""
        numbers = self.concepts["number"].to_numpy().tolist()
        return dict(zip(numbers, map(str, self.concepts["concept_name"].to_numpy()), strict=True))

    @cached_property
    def categories(self) -> dict[int, str]:
        """Category of each label number."""
        numbers = self.concepts["number"].to_numpy().tolist()
        return dict(zip(numbers, map(str, self.concepts["category"].to_numpy()), strict=True))

    @cached_property
    def areas(self) -> dict[int, int]:
        """Pixels or cells of each label number, all images."""
        return dict(zip(self.names, map(int, self.concepts["pixels"].to_numpy()), strict=True))

    def read(self, words: str) -> Formula | None:
        """A formula of the result; None where there is none or its words do not read back."""
        if not words:
            return None
        try:
            return parse(words, self.names)
        except InputError:  # a name that reads like an operator
            return None

    def verdict(self, unit: int) -> str:
        """What can be said of a unit."""
        if self.broken[unit]:
            return "NaN or infinite activations"
        if self.dead[unit]:
            return "dead: never active" if self.get("threshold")[unit] == 0 else "dead: never above its threshold"
        if not self.explained[unit]:
            return "no formula scores above 0"
        if not self.tested[unit]:
            return "not tested"
        return "better than chance" if self.told[unit] else "not distinguishable from chance"

    def mean(self, values: Float[np.ndarray, "n _"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean of each column over rows without gaps, and Student's interval for rows like these."""
        mean = values.mean(axis=0)
        low, high = mean_interval(mean, values.var(axis=0), len(values), level=self.level)
        return mean, low, high


def median(values: np.ndarray) -> float:
    """Of the values that are numbers; nan without any."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


def signed(value: float, form: str = ".2f") -> str:
    """A number in a sentence, with a minus sign as wide as a plus sign."""
    return format(value, form).replace("-", "\u2212") if np.isfinite(value) else "unknown"


def texts(values: xr.DataArray | np.ndarray) -> list[str]:
    """Values as texts."""
    return [str(value) for value in np.asarray(values).ravel()]


def listed(names: Iterable[str]) -> str:
    """Names in a sentence."""
    found = list(names)
    return found[0] if len(found) == 1 else ", ".join(found[:-1]) + f" and {found[-1]}"
