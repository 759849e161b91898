"""One layer's units, explained: levels, formulas, how well they fit on other images, and where to look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from neuronscope.maths.formulas import Formula
from neuronscope.maths.streams import Each, Reducer, TopK
from neuronscope.studies.concepts.agreement import Agreement
from neuronscope.studies.concepts.bounds import Bounds, above, between, chosen_units
from neuronscope.studies.concepts.detect import Levels, levels_of, ranges_for
from neuronscope.studies.concepts.fit import Fit
from neuronscope.studies.concepts.grid import Explained, Formulas, Grid
from neuronscope.studies.concepts.search import Tasks, search_all
from neuronscope.studies.concepts.setting import Setting
from neuronscope.sweep import sweep
from neuronscope.units import LayerInfo


@dataclass(frozen=True, eq=False)
class Detectors:
    """Detectors with their formulas.

    Attributes:
        bounds: the activations at which they count as active.
        found: what the search found for each.
        fit: how well the formulas fit on the images reported.
    """

    bounds: Bounds
    found: list[Explained]
    fit: Fit


@dataclass(frozen=True, eq=False)
class LayerEvidence:
    """A layer, or a block of its units.

    Attributes:
        layer: whose.
        units: numbers of its units that were explained, counted in the whole layer.
        levels: activations of each unit.
        above: one detector for each unit, above its threshold.
        ranges: those of ranges of activations, unit by unit; None where none were asked for.
        agreement: correlation and AUROC of activation and formula, by name.
        top: rows of the reported images where each unit is strongest.
    """

    layer: LayerInfo
    units: Int[np.ndarray, "u"]
    levels: Levels
    above: Detectors
    ranges: Detectors | None
    agreement: dict[str, Float[np.ndarray, "u"]]
    top: Int[np.ndarray, "u k"]


@dataclass(frozen=True)
class _Passes:
    """The passes over a layer, or a block of its units."""

    setting: Setting
    grid: Grid
    shared: Any
    layer: LayerInfo

    @property
    def of(self) -> str:
        """Name of the layer's maps."""
        return f"maps/{self.layer.name}"

    def searched(self, bounds: Bounds, *, name: str) -> list[Explained]:
        """The formulas of detectors: a pass over the images searched, then a search for each."""
        setting, grid = self.setting, self.grid
        images = setting.concepts.images.take(setting.searched)
        step, fold = grid.look(self.layer), grid.gather(self.of, bounds)
        gathered: Sequence[Any] = sweep(setting.subject, images, step, fold, run=setting.run, name=name).answer
        starts = [grid.start_from(setting.history.get(self.layer.first + int(unit))) for unit in bounds.unit]
        title = f"formulas {self.layer.title}"
        return search_all(grid, self.shared, Tasks(gathered, starts), run=setting.run, title=title)

    def reported(self, fold: Reducer[Any], *measures: str, name: str) -> Any:
        """What a fold makes of the images reported."""
        setting = self.setting
        images = setting.concepts.images.take(setting.reported)
        step = self.grid.look(self.layer, *measures)
        return sweep(setting.subject, images, step, fold, run=setting.run, name=name).answer


def explain_layer(setting: Setting, grid: Grid, shared: Any, layer: LayerInfo) -> LayerEvidence:
    """Everything about the units of a layer, or of a block of them."""
    spec, passes = setting.spec, _Passes(setting, grid, shared, layer)
    levels = levels_of(setting, grid, layer)
    whole = chosen_units(spec.units, layer.whole or layer.units, layer=layer.name)
    here = whole[(whole >= layer.first) & (whole < layer.first + layer.units)]
    everything, own = above(levels.threshold), here - layer.first
    bounds = Bounds(own, everything.lower[own], everything.upper[own])
    found = passes.searched(bounds, name="counts")
    if spec.thresholds == "dynamic":
        moved = np.array([one.threshold for one in found])
        bounds = Bounds(own, np.where(np.isnan(moved), bounds.lower, moved), bounds.upper)
    formulas = [one.formula for one in found]
    folds = Each(
        fit=grid.fitting(passes.of, bounds, formulas, others(setting), by_length(found)),
        agreement=Agreement(
            passes.of,
            grid.coverage(_for_all(formulas, own, layer.units), grid.map_shape(layer)),
            levels.lowest,
            levels.highest,
            len(setting.reported),
        ),
        top=TopK("max", spec.images),
    )
    answer = passes.reported(folds, "max", name="fit")
    return LayerEvidence(
        layer=layer,
        units=here,
        levels=levels,
        above=Detectors(bounds, found, answer["fit"]),
        ranges=_of_ranges(passes, levels, own) if spec.ranges > 1 else None,
        agreement={name: values[own] for name, values in answer["agreement"].items()},
        top=answer["top"].index.T[own],
    )


def _of_ranges(passes: _Passes, levels: Levels, own: Int[np.ndarray, "u"]) -> Detectors:
    """Formulas of ranges of activations."""
    setting, grid = passes.setting, passes.grid
    limits = between(ranges_for(setting, grid, passes.layer, levels)[own])
    bounds = Bounds(own[limits.unit], limits.lower, limits.upper)
    found = passes.searched(bounds, name="counts of ranges")
    fold = grid.fitting(passes.of, bounds, [one.formula for one in found], others(setting))
    return Detectors(bounds, found, passes.reported(fold, name="fit of ranges"))


def by_length(found: Sequence[Explained]) -> list[list[Formula | None]]:
    """The best formula of each detector, length by length."""
    lengths = max((len(one.best) for one in found), default=0)
    return [[None if (best := one.best[at]) is None else best.formula for one in found] for at in range(lengths)]


def _for_all(formulas: Formulas, own: Int[np.ndarray, "u"], units: int) -> list[Formula | None]:
    """A formula, or none, for every unit of a layer, of which some were explained."""
    found: list[Formula | None] = [None] * units
    for unit, formula in zip(own.tolist(), formulas, strict=True):
        found[unit] = formula
    return found


def others(setting: Setting) -> Int[np.ndarray, "draws n"]:
    """For each draw an order of the reported images in which none stands at its own place."""
    rng, images = setting.run.generator("concepts", "null"), len(setting.reported)
    orders = np.empty((setting.spec.draws, images), dtype=np.int64)
    for draw in range(setting.spec.draws):
        ring = rng.permutation(images)
        orders[draw, ring] = np.roll(ring, int(rng.integers(1, images)))
    return orders
