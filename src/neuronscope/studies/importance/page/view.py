"""An importance result under short names, and the few reductions that its page needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Shaped

from neuronscope.maths.resampling import mean_interval
from neuronscope.result import Result

MANY_CLASSES = 20
"""More classes than that get no picture of their own each."""
MANY_CELLS = 16
"""Heat maps with more rows or columns have no numbers in their cells."""
_NAMED = 12  # names in a sentence
_DRAWS_COUNTED = 1000  # see maths.controls: from so many random sets on, p-values are counted


class View:
    """A result's groups under short names; groups that a result lacks are None."""

    def __init__(self, result: Result) -> None:  # noqa: D107 the class says it
        self.provenance = result.provenance
        self.spec = result.provenance.spec
        groups = {str(name): node.to_dataset() for name, node in result.tree.children.items()}
        self.units = groups["units"]
        self.sub = groups["subnetworks"]
        self.layers = groups.get("layers")
        self.reuse = groups.get("reuse")
        self.masking = groups.get("masking")
        self.edges = groups.get("edges")
        self.network = groups.get("network")
        self.rules = texts(self.sub["rule_name"])
        self.classes = texts(self.sub["class_name"])
        self.layer_of = self.units["layer"].to_numpy().astype(str)
        self.index_of = self.units["index"].to_numpy()
        self.layer_names = tuple(dict.fromkeys(self.layer_of.tolist()))

    @property
    def first(self) -> str:
        """The rule that pictures and reuse rest on."""
        return self.rules[0]

    @property
    def level(self) -> float:
        """Coverage of the intervals; findings count when q is below the rest."""
        return float(self.spec["level"])

    @property
    def bound(self) -> str:
        """The limit of q-values in words."""
        return f"q < {1 - self.level:.2g}"

    @property
    def few_cells(self) -> bool:
        """Whether numbers fit into the cells of a table of classes."""
        return len(self.classes) <= MANY_CELLS

    def has(self, deviation: str) -> bool:
        """Whether a named deviation is in force."""
        return deviation in self.spec["legacy"]

    def get(self, name: str) -> np.ndarray:
        """A variable of `subnetworks` under the first rule."""
        return np.asarray(self.sub[name].to_numpy()[0])

    def of_layer(self, layer: str) -> Shaped[np.ndarray, "k"]:
        """Rows of a layer in the table of units."""
        return np.flatnonzero(self.layer_of == layer)

    def those(self, chosen: np.ndarray) -> str:
        """The chosen classes in a sentence."""
        if np.all(chosen) and len(self.classes) > 1:
            return "both classes" if len(self.classes) == 2 else f"all {len(self.classes)} classes"  # noqa: PLR2004
        names = [name for name, one in zip(self.classes, chosen, strict=True) if one]
        return f"{'class' if len(names) == 1 else 'classes'} {named(names)}"

    def told(self, q: np.ndarray) -> Bool[np.ndarray, "*s"]:
        """Findings that survive the false discovery rate; those without a q-value do not."""
        return np.nan_to_num(np.asarray(q, dtype=np.float64), nan=1.0) < 1 - self.level

    def mean(self, values: np.ndarray) -> MeanOver:
        """Mean over classes, with Student's interval for classes like these."""
        known = np.asarray(values, dtype=np.float64)
        known = known[np.isfinite(known)]
        if not known.size:
            return MeanOver(np.nan, np.nan, np.nan)
        low, high = mean_interval(np.array([known.mean()]), np.array([known.var()]), known.size, level=self.level)
        return MeanOver(float(known.mean()), float(low[0]), float(high[0]))

    def unheld(self, q: np.ndarray) -> bool:
        """Whether there were no random sets to hold a finding against."""
        return not np.isfinite(q).any()

    def null(self, draws: int) -> str:
        """How q-values come from random sets."""
        if not draws:
            return "none tried"
        if draws >= _DRAWS_COUNTED:
            return f"{draws:,} random sets, counted"
        return f"{draws:,} random sets, taken as normally distributed: with so few, chances in the far tail are rough"


@dataclass(frozen=True)
class MeanOver:
    """A mean over classes with its interval; nan ends for fewer than two classes."""

    value: float
    low: float
    high: float

    def within(self, least: float, most: float) -> MeanOver:
        """The same with ends that are possible values."""
        return MeanOver(self.value, *np.clip([self.low, self.high], least, most).tolist())

    def __str__(self) -> str:
        """The mean, and its interval where there is one."""
        said = number(self.value, ".2f")
        return said + (f" ({number(self.low, '.2f')} to {number(self.high, '.2f')})" if np.isfinite(self.low) else "")


def number(value: float, form: str) -> str:
    """A number in a sentence, with a minus sign as wide as a plus sign."""
    return format(value, form).replace("-", "\u2212") if np.isfinite(value) else "unknown"


def texts(values: xr.DataArray) -> tuple[str, ...]:
    """A coordinate as texts."""
    return tuple(str(value) for value in values.to_numpy().ravel())


def named(names: Iterable[str]) -> str:
    """Names in a sentence; of many the first."""
    found = list(names)
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return ", ".join(found[:_NAMED]) + more


def picked(names: Sequence[str], chosen: np.ndarray) -> list[str]:
    """Names at the places that are True."""
    return [names[int(i)] for i in np.flatnonzero(chosen)]


def seen_labels(table: Float[np.ndarray, "... l"], names: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """A table by predicted label; the column of all other labels only where they occur."""
    if len(names) > 1 and names[-1] == "other" and not table[..., -1].any():
        return table[..., :-1], tuple(names[:-1])
    return table, tuple(names)
