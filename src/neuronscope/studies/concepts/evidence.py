"""One layer's units, explained: levels, formulas, how well they fit on other images, and where to look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from neuronscope.maths.formulas import Formula
from neuronscope.maths.streams import Each, Reducer, TopK
from neuronscope.steps import columns
from neuronscope.studies.concepts.agreement import Agreement
from neuronscope.studies.concepts.bounds import Bounds, above, between, chosen_units
from neuronscope.studies.concepts.detect import Levels, levels_of, ranges_for
from neuronscope.studies.concepts.fit import Fit
from neuronscope.studies.concepts.grid import Explained, Formulas, Grid
from neuronscope.studies.concepts.search import Tasks, search_all
from neuronscope.studies.concepts.setting import Setting
from neuronscope.sweep import sweep
from neuronscope.units import LayerInfo

_TOP = "images where units are strongest"  # no layer is called so


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
    """The passes over some layers, or blocks of their units: one for all of them each time."""

    setting: Setting
    grid: Grid
    shared: Any
    layers: tuple[LayerInfo, ...]

    def searched(self, bounds: Sequence[Bounds], *, name: str) -> list[list[Explained]]:
        """The formulas of each layer's detectors: a pass over the images searched, then a search for each."""
        setting, grid = self.setting, self.grid
        images = setting.concepts.images.take(setting.searched)
        folds = Each(
            **{
                layer.name: grid.gather(f"maps/{layer.name}", own)
                for layer, own in zip(self.layers, bounds, strict=True)
            }
        )
        gathered = sweep(setting.subject, images, grid.look(self.layers), folds, run=setting.run, name=name).answer
        found = []
        for layer, own in zip(self.layers, bounds, strict=True):
            starts = [grid.start_from(setting.history.get(layer.first + int(unit))) for unit in own.unit]
            tasks, title = Tasks(gathered[layer.name], starts), f"formulas {layer.title}"
            found.append(search_all(grid, self.shared, tasks, run=setting.run, title=title))
        return found

    def reported(self, folds: Reducer[Any], *measures: str, name: str) -> Any:
        """What folds make of the images reported."""
        setting = self.setting
        images = setting.concepts.images.take(setting.reported)
        step = self.grid.look(self.layers, *measures)
        return sweep(setting.subject, images, step, folds, run=setting.run, name=name).answer


def explain_layers(setting: Setting, grid: Grid, shared: Any, layers: Sequence[LayerInfo]) -> list[LayerEvidence]:
    """Everything about the units of some layers, or of blocks of them, in passes that all of them share."""
    spec, passes = setting.spec, _Passes(setting, grid, shared, tuple(layers))
    levels = levels_of(setting, grid, layers)
    here, bounds = [], []
    for layer, own in zip(layers, levels, strict=True):
        whole = chosen_units(spec.units, layer.whole or layer.units, layer=layer.name)
        here.append(whole[(whole >= layer.first) & (whole < layer.first + layer.units)])
        wanted, everything = here[-1] - layer.first, above(own.threshold)
        bounds.append(Bounds(wanted, everything.lower[wanted], everything.upper[wanted]))
    found = passes.searched(bounds, name="counts")
    if spec.thresholds == "dynamic":
        bounds = [_moved(own, some) for own, some in zip(bounds, found, strict=True)]
    folds = {
        layer.name: _fit_folds(setting, grid, layer, levels[at], Detecting(bounds[at], found[at]))
        for at, layer in enumerate(layers)
    }
    answer = passes.reported(Each(**folds, **{_TOP: TopK("max", spec.images)}), "max", name="fit")
    ranges = _of_ranges(passes, levels, bounds) if spec.ranges > 1 else [None] * len(layers)
    places = columns(tuple(layers))
    top = answer[_TOP].index.T
    return [
        LayerEvidence(
            layer=layer,
            units=here[at],
            levels=levels[at],
            above=Detectors(bounds[at], found[at], answer[layer.name]["fit"]),
            ranges=ranges[at],
            agreement={name: values[bounds[at].unit] for name, values in answer[layer.name]["agreement"].items()},
            top=top[places[layer.name]][bounds[at].unit],
        )
        for at, layer in enumerate(layers)
    ]


@dataclass(frozen=True, eq=False)
class Detecting:
    """Detectors and what was found for them."""

    bounds: Bounds
    found: list[Explained]


def _fit_folds(setting: Setting, grid: Grid, layer: LayerInfo, levels: Levels, some: Detecting) -> Each:
    """How well the formulas of a layer's units fit, and how activations go with them."""
    of, formulas = f"maps/{layer.name}", [one.formula for one in some.found]
    return Each(
        fit=grid.fitting(of, some.bounds, formulas, others(setting), by_length(some.found)),
        agreement=Agreement(
            of,
            grid.coverage(_for_all(formulas, some.bounds.unit, layer.units), grid.map_shape(layer)),
            levels.lowest,
            levels.highest,
            len(setting.reported),
        ),
    )


def _moved(bounds: Bounds, found: Sequence[Explained]) -> Bounds:
    """With the thresholds that the search moved."""
    threshold = np.array([one.threshold for one in found])
    return Bounds(bounds.unit, np.where(np.isnan(threshold), bounds.lower, threshold), bounds.upper)


def _of_ranges(passes: _Passes, levels: Sequence[Levels], chosen: Sequence[Bounds]) -> list[Detectors]:
    """Formulas of ranges of activations."""
    setting, grid = passes.setting, passes.grid
    bounds = []
    for own, ranges in zip(chosen, ranges_for(setting, grid, passes.layers, levels), strict=True):
        limits = between(ranges[own.unit])
        bounds.append(Bounds(own.unit[limits.unit], limits.lower, limits.upper))
    found = passes.searched(bounds, name="counts of ranges")
    folds = {
        layer.name: grid.fitting(f"maps/{layer.name}", bounds[at], [one.formula for one in found[at]], others(setting))
        for at, layer in enumerate(passes.layers)
    }
    answer = passes.reported(Each(**folds), name="fit of ranges")
    return [Detectors(bounds[at], found[at], answer[layer.name]) for at, layer in enumerate(passes.layers)]


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
