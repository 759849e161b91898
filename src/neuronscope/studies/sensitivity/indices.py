"""Sobol indices of every activation: one replicate after the other, until the order of the factors is settled."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int

from neuronscope.data.design import Design
from neuronscope.maths.replicates import RatioScatter, Scatter, ratio_parts, ratio_scattered, scattered, settled_pairs
from neuronscope.maths.sobol import (
    Covariances,
    Halves,
    Moments,
    Order,
    SaltelliDesign,
    SobolIndices,
    SobolSums,
    Sums,
    covariances,
    guarded_indices,
    indices_from,
    moments_of,
    moments_together,
    per_unit,
    sobol_points,
)
from neuronscope.run import Run
from neuronscope.steps import Augmented
from neuronscope.studies.sensitivity.factors import Problem, Vectors
from neuronscope.studies.sensitivity.setting import Setting
from neuronscope.studies.sensitivity.spec import SensitivitySpec
from neuronscope.sweep import PlannedSweep, planned, sweep
from neuronscope.units import LayerInfo

LOGGER = logging.getLogger("neuronscope")

FEWEST = 4
"""Replicates before the order of the factors is first asked for: fewer give intervals that are wide for nothing."""


@dataclass(frozen=True, eq=False)
class UnitIndices:
    """Indices of the units of a layer: ratios of means over the replicates.

    Attributes:
        pooled: (g, u) and (pairs, u).
        first, total: what each replicate says (r, g, u), linearised: the mean is the pooled index.
        second: likewise (r, pairs, u).
    """

    pooled: SobolIndices
    first: Float[np.ndarray, "r g u"]
    total: Float[np.ndarray, "r g u"]
    second: Float[np.ndarray, "r pairs u"]


@dataclass(frozen=True, eq=False)
class LayerIndices:
    """What is known of a layer.

    Attributes:
        layer: which.
        maps: indices of each activation, from all replicates together.
        first_error, total_error: their standard errors, by the scatter of replicates.
        units: of each unit.
        parts: of each replicate, the covariances of all units that have them, added up: what the layer's own indices
            are made of.
        moments: of each activation over all rows.
    """

    layer: LayerInfo
    maps: SobolIndices
    first_error: Float[np.ndarray, "g m"]
    total_error: Float[np.ndarray, "g m"]
    units: UnitIndices
    parts: tuple[Covariances, ...]
    moments: Moments


@dataclass(frozen=True, eq=False)
class _Gathered:
    """What the replicates so far come to, of one layer."""

    first: RatioScatter
    total: RatioScatter
    closed: Scatter
    moments: Moments
    units: tuple[Covariances, ...]


def order_of(spec: SensitivitySpec) -> Order:
    """Up to which order indices are estimated."""
    return "first" if spec.second_order == "none" else "second"


def halves_of(setting: Setting) -> Halves:
    """Which rows of a block count."""
    return "first" if order_of(setting.spec) == "first" or setting.has("first-half") else "both"


def design_of(setting: Setting, replicate: int) -> SaltelliDesign:
    """The points of one replicate."""
    return sobol_design(setting.problem, setting.spec, setting.run, replicate)


def sobol_design(problem: Problem, spec: SensitivitySpec, run: Run, replicate: int) -> SaltelliDesign:
    """The points of one replicate, an independent scramble, from what was asked for alone."""
    unscrambled = "unscrambled" in spec.legacy
    scramble = "none" if unscrambled else run.generator("sobol", str(replicate))
    points = spec.points if unscrambled else spec.points // spec.replicates
    base = sobol_points(problem.columns, points, scramble=scramble)  # type: ignore[arg-type]
    return SaltelliDesign(problem.groups, base, order_of(spec))


def rows_of(setting: Setting, design: SaltelliDesign, replicate: int) -> Design:
    """The rows of a replicate as images with parameters."""
    problem = setting.problem
    image = sobol_images(problem, setting.spec, setting.run, design.unit(np.arange(len(design))), replicate)
    vectors = Vectors(problem, design.unit, len(design), design.fingerprint)
    return Design(setting.data, image, vectors, block=design.block)


def sobol_images(
    problem: Problem, spec: SensitivitySpec, run: Run, unit: Float[np.ndarray, "r columns"], replicate: int
) -> Int[np.ndarray, "r"]:
    """The image of each row of a replicate."""
    if "image-redrawn" in spec.legacy:
        return problem.pool.redraw(*problem.cell(unit), rng=run.generator("image", str(replicate)))
    return problem.images(unit)


def reducer_of(setting: Setting) -> SobolSums:
    """The fold."""
    names = tuple(f"maps/{layer.name}" for layer in setting.layers)
    return SobolSums(names, len(setting.problem.factors), order=order_of(setting.spec), halves=halves_of(setting))


def sobol_of(setting: Setting) -> list[LayerIndices]:
    """Indices of the layers of a setting; an empty list where only a portion of the work was asked for."""
    gathered: dict[str, _Gathered] = {}
    fold = reducer_of(setting)
    for replicate in range(setting.replicates):
        design = design_of(setting, replicate)
        rows = rows_of(setting, design, replicate)
        name = f"sobol {replicate + 1} of {setting.replicates}"
        found = sweep(setting.subject, rows, setting.step(), fold, run=setting.running(rows), name=name).answer
        if setting.run.portion is not None:
            continue
        for layer in setting.layers:
            own = found.pop(f"maps/{layer.name}")
            gathered[layer.name] = _gathered(setting, gathered.get(layer.name), layer, own)
        if setting.spec.stop == "ranking" and _settled(setting, list(gathered.values())):
            LOGGER.info("the order of the factors is settled after %d of %d", replicate + 1, setting.replicates)
            break
    return [_finished(setting, layer, gathered[layer.name]) for layer in setting.layers if gathered]


def _gathered(setting: Setting, before: _Gathered | None, layer: LayerInfo, sums: Sums) -> _Gathered:
    """What the replicates come to after one more."""
    found, moments = covariances(sums, halves=halves_of(setting)), moments_of(sums)
    return _Gathered(
        first=ratio_scattered(before.first if before else None, found.first, found.variance),
        total=ratio_scattered(before.total if before else None, found.total, found.variance),
        closed=scattered(before.closed if before else None, found.closed),
        moments=moments_together(before.moments, moments) if before else moments,
        units=(*(before.units if before else ()), per_unit(found, units=layer.units)),
    )


def whole_layer(units: tuple[Covariances, ...]) -> tuple[Covariances, ...]:
    """Covariances of each replicate added up over the units that have them in all replicates, as those of one unit."""
    known = np.isfinite([one.variance for one in units]).all(axis=0)
    return tuple(
        Covariances(*(part[..., known].sum(-1)[..., None] for part in (one.first, one.total, one.closed, one.variance)))
        for one in units
    )


def added_up(parts: Sequence[tuple[Covariances, ...]]) -> UnitIndices:
    """Indices of a layer as a whole, from blocks of its units that were swept one after another.

    Blocks that stopped at another replicate are cut alike.
    """
    rounds = zip(*parts, strict=False)
    return unit_indices(
        tuple(
            Covariances(
                sum(one.first for one in blocks),
                sum(one.total for one in blocks),
                sum(one.closed for one in blocks),
                sum(one.variance for one in blocks),
            )
            for blocks in rounds
        )
    )


def unit_indices(units: tuple[Covariances, ...]) -> UnitIndices:
    """Ratios of means over the replicates, and what each replicate says of them."""
    variance = np.stack([one.variance for one in units])
    first, total, closed = (np.stack([getattr(one, name) for one in units]) for name in ("first", "total", "closed"))
    bottom = variance[:, None]
    singles = ratio_parts(first, bottom)
    second = ratio_parts(closed, bottom)
    for place, (g, h) in enumerate(combinations(range(first.shape[1]), 2) if closed.shape[1] else ()):
        second[:, place] -= singles[:, g] + singles[:, h]
    pooled = Covariances(first.mean(0), total.mean(0), closed.mean(0), variance.mean(0))
    return UnitIndices(indices_from(pooled), singles, ratio_parts(total, bottom), second)


def _settled(setting: Setting, gathered: list[_Gathered]) -> bool:
    """Whether of every two factors it is known, in every layer, which has the larger total index, or that none has."""
    if min(len(own.units) for own in gathered) < FEWEST:
        return False
    values = np.stack([unit_indices(whole_layer(own.units)).total[..., 0] for own in gathered], axis=1)
    looks = (setting.replicates - FEWEST + 1) * len(gathered)
    known = settled_pairs(values, tolerance=setting.spec.tolerance, level=setting.spec.level, looks=looks)
    return bool(known.all())


def _finished(setting: Setting, layer: LayerInfo, own: _Gathered) -> LayerIndices:
    parts = Covariances(own.first.top.mean, own.total.top.mean, own.closed.mean, own.first.bottom.mean)
    return LayerIndices(
        layer=layer,
        maps=guarded_indices(parts, own.moments) if setting.has("zero-for-dead") else indices_from(parts),
        first_error=own.first.error,
        total_error=own.total.error,
        units=unit_indices(own.units),
        parts=whole_layer(own.units),
        moments=own.moments,
    )


def planned_sobol(setting: Setting) -> list[tuple[PlannedSweep, Design, Augmented]]:
    """The sweeps to come; fewer if the order of the factors is settled earlier."""
    design = design_of(setting, 0)
    rows, step, fold = rows_of(setting, design, 0), setting.step(), reducer_of(setting)
    count = setting.replicates
    one = planned(setting.subject, rows, step, fold, run=setting.running(rows), name="")
    held = 3 * one.state  # beside the sums: the scatter of all replicates so far, once more while one is added
    return [(replace(one, name=f"sobol {number + 1} of {count}", state=held), rows, step) for number in range(count)]
