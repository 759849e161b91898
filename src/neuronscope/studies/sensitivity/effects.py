"""Shapley effects of every activation: several designs with orders and draws of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from neuronscope.data.design import Design
from neuronscope.maths.replicates import RatioScatter, Scatter, ratio_scattered, scattered
from neuronscope.maths.shapley_effects import (
    ReplicatedEffects,
    ShapleyDesign,
    ShapleyEffects,
    ShapleySums,
    aggregated,
    original_design,
    original_shares,
    per_unit,
    replicated,
    shares_of,
)
from neuronscope.run import Run
from neuronscope.steps import Augmented
from neuronscope.studies.sensitivity.factors import Factor, Problem, Vectors
from neuronscope.studies.sensitivity.setting import Setting
from neuronscope.studies.sensitivity.spec import SensitivitySpec
from neuronscope.sweep import PlannedSweep, planned, sweep
from neuronscope.units import LayerInfo

PERMUTATION_SEED = 190
"""Of the orders of the original's published runs."""


@dataclass(frozen=True, eq=False)
class LayerEffects:
    """What is known of a layer.

    Attributes:
        layer: which.
        effects: of each activation and player, in the unit of the activation squared; players are single parameters
            under `scalar-players`.
        shares: of each activation and factor; they add up to 1.
        error: standard error of the shares, by the scatter of replicates.
        units: of each unit, with intervals.
        parts: of each replicate, the effects added up over the units that have them: those of the layer.
        mean, variance: of each activation over independent draws.
    """

    layer: LayerInfo
    effects: Float[np.ndarray, "players m"]
    shares: Float[np.ndarray, "g m"]
    error: Float[np.ndarray, "g m"]
    units: ReplicatedEffects
    parts: Float[np.ndarray, "r g"]
    mean: Float[np.ndarray, "m"]
    variance: Float[np.ndarray, "m"]


@dataclass(frozen=True, eq=False)
class _Gathered:
    """What the replicates so far come to, of one layer."""

    effects: Scatter
    shares: RatioScatter
    mean: Scatter
    variance: Scatter
    units: tuple[ShapleyEffects, ...]


def players_of(setting: Setting) -> tuple[tuple[int, ...], ...]:
    """Columns of each player."""
    return players_in(setting.shapley_problem, setting.spec)


def players_in(problem: Problem, spec: SensitivitySpec) -> tuple[tuple[int, ...], ...]:
    """Columns of each player: those of the factors, or each column by itself.

    An image that is no factor is drawn anew whenever class or partition is: its column is part of both.
    """
    noise = problem.place("image") if "image-redrawn" in spec.legacy else None
    found: list[tuple[int, ...]] = []
    for factor in problem.factors:
        if factor.name == "image" and noise is not None:
            continue
        shared = (noise,) if noise is not None and factor.kind in ("class", "partition") else ()
        if "scalar-players" in spec.legacy:
            found.extend((column, *shared) for column in factor.columns)
        else:
            found.append((*factor.columns, *shared))
    return tuple(found)


def shapley_factors(setting: Setting) -> tuple[Factor, ...]:
    """The factors that share the variance among them."""
    return tuple(one for one in setting.shapley_problem.factors if not (one.name == "image" and setting.redrawn))


def groups_of(setting: Setting) -> list[list[int]]:
    """Players of each factor."""
    if not setting.has("scalar-players"):
        return [[number] for number in range(len(shapley_factors(setting)))]
    groups, first = [], 0
    for factor in shapley_factors(setting):
        groups.append(list(range(first, first + len(factor.columns))))
        first += len(factor.columns)
    return groups


def shapley_design(setting: Setting, replicate: int) -> ShapleyDesign:
    """The rows of one replicate."""
    return effects_design(setting.shapley_problem, setting.spec, setting.run, replicate)


def effects_design(problem: Problem, spec: SensitivitySpec, run: Run, replicate: int) -> ShapleyDesign:
    """The rows of one replicate, from what was asked for alone."""
    players, permutations = players_in(problem, spec), spec.permutations // spec.replicates
    if "scalar-players" in spec.legacy:
        seed = PERMUTATION_SEED + replicate
        return original_design(players, permutations=permutations, outer=spec.outer, inner=spec.inner, seed=seed)
    seed = int(run.generator("shapley", str(replicate)).integers(2**62))
    return ShapleyDesign(groups=players, permutations=permutations, outer=spec.outer, inner=spec.inner, seed=seed)


def shapley_rows(setting: Setting, design: ShapleyDesign) -> Design:
    """The rows of a replicate as images with parameters."""
    problem = setting.shapley_problem
    image = problem.images(design.unit(np.arange(len(design))))
    vectors = Vectors(problem, design.unit, len(design), design.fingerprint)
    return Design(setting.data, image, vectors, block=design.block)


def _fold(setting: Setting, design: ShapleyDesign) -> ShapleySums:
    return ShapleySums(tuple(f"maps/{layer.name}" for layer in setting.layers), design)


def shapley_of(setting: Setting) -> list[LayerEffects]:
    """Effects on the layers of a setting; an empty list where only a portion of the work was asked for."""
    gathered: dict[str, _Gathered] = {}
    count = setting.spec.replicates
    for replicate in range(count):
        design = shapley_design(setting, replicate)
        rows, fold = shapley_rows(setting, design), _fold(setting, design)
        name = f"shapley {replicate + 1} of {count}"
        found = sweep(setting.subject, rows, setting.step(), fold, run=setting.running(rows), name=name).answer
        if setting.run.portion is not None:
            continue
        for layer in setting.layers:
            own = found.pop(f"maps/{layer.name}")
            gathered[layer.name] = _gathered(setting, gathered.get(layer.name), layer, own)
    return [_finished(setting, layer, gathered[layer.name]) for layer in setting.layers if gathered]


def _gathered(setting: Setting, before: _Gathered | None, layer: LayerInfo, found: ShapleyEffects) -> _Gathered:
    """What the replicates come to after one more."""
    groups = groups_of(setting)
    whole = per_unit(found, units=layer.units)
    unit = ShapleyEffects(aggregated(whole.effects, groups), whole.mean, whole.variance)
    return _Gathered(
        effects=scattered(before.effects if before else None, found.effects),
        shares=ratio_scattered(before.shares if before else None, aggregated(found.effects, groups), found.total),
        mean=scattered(before.mean if before else None, found.mean),
        variance=scattered(before.variance if before else None, found.variance),
        units=(*(before.units if before else ()), unit),
    )


def _finished(setting: Setting, layer: LayerInfo, own: _Gathered) -> LayerEffects:
    groups = groups_of(setting)
    effects = own.effects.mean
    clipped = setting.has("clipped-shares")
    return LayerEffects(
        layer=layer,
        effects=effects,
        shares=original_shares(effects, groups) if clipped else shares_of(aggregated(effects, groups)),
        error=own.shares.error,
        units=replicated(own.units, level=setting.spec.level),
        parts=_whole_layer(np.stack([one.effects for one in own.units])),
        mean=own.mean.mean,
        variance=own.variance.mean,
    )


def _whole_layer(effects: Float[np.ndarray, "r g u"]) -> Float[np.ndarray, "r g"]:
    known = np.isfinite(effects).all(axis=(0, 1))
    return np.asarray(effects[:, :, known].sum(axis=2))


def planned_shapley(setting: Setting) -> list[tuple[PlannedSweep, Design, Augmented]]:
    """The sweeps to come."""
    design, count = shapley_design(setting, 0), setting.spec.replicates
    step = setting.step()
    rows = shapley_rows(setting, design)
    one = planned(setting.subject, rows, step, _fold(setting, design), run=setting.running(rows), name="")
    held = 3 * one.state  # beside the sums: the scatter of all replicates so far, once more while one is added
    return [(replace(one, name=f"shapley {number + 1} of {count}", state=held), rows, step) for number in range(count)]
