"""Curves of severity: units and accuracy as one augmentation grows from nothing to its whole range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from neuronscope.augment import Augmentation, severity
from neuronscope.data.design import Design
from neuronscope.maths.resampling import mean_interval, wilson_interval
from neuronscope.maths.streams import Decisions, DecisionsAnswer, Each, StackRows
from neuronscope.steps import Augmented
from neuronscope.studies.sensitivity.setting import Setting
from neuronscope.studies.sensitivity.single import drawn, single_images, treated_rows
from neuronscope.sweep import PlannedSweep, planned, sweep
from neuronscope.units import LayerInfo


@dataclass(frozen=True, eq=False)
class LayerDrift:
    """How far the units of a layer move.

    Attributes:
        layer: which.
        drift: mean |activation - plain activation| over images, in standard deviations of the plain activation over
            images (a, s, u); nan for units that do not vary. Activations are means over a unit's positions.
        low, high: intervals over images.
    """

    layer: LayerInfo
    drift: Float[np.ndarray, "a s u"]
    low: Float[np.ndarray, "a s u"]
    high: Float[np.ndarray, "a s u"]


@dataclass(frozen=True, eq=False)
class SeverityAccuracy:
    """Share of right predictions at each strength of each augmentation, plain first.

    Attributes:
        value, low, high: (a, 1 + s), 0 to 1; nan where there is nothing to vary, and without labels.
    """

    value: Float[np.ndarray, "a s"]
    low: Float[np.ndarray, "a s"]
    high: Float[np.ndarray, "a s"]


def strengths_of(setting: Setting, augmentation: Augmentation) -> tuple[float, ...]:
    """Strengths of an augmentation: only the last where it has no parameter that grows."""
    grows = any(one.neutral is not None for one in augmentation.parameters)
    return setting.spec.severities if grows else setting.spec.severities[-1:]


def severity_rows(setting: Setting) -> Design:
    """The rows: each image as it is, then every augmentation at each of its strengths, with one draw for all."""
    rows = single_images(setting, setting.spec.severity_images)
    treatments: list[tuple[str, Float[np.ndarray, "n _"]]] = []
    for augmentation in setting.augmentations:
        values = drawn(setting.run, augmentation, images=len(rows), draws=1, what="severity")[:, 0]
        strengths = strengths_of(setting, augmentation)
        treatments.extend((augmentation.name, severity(augmentation, values, strength)) for strength in strengths)
    return treated_rows(setting, rows, treatments)


def severity_fold(setting: Setting, rows: Design) -> Each:
    """What is folded: means of units and predictions."""
    means = {f"mean/{layer.name}": StackRows(f"mean/{layer.name}", images=len(rows)) for layer in setting.layers}
    return Each(decisions=Decisions("logits", images=len(rows)), **means)


def severity_of(setting: Setting) -> tuple[list[LayerDrift], DecisionsAnswer | None]:
    """Drift of units in the layers of a setting, and predictions; nothing for a portion."""
    rows = severity_rows(setting)
    step = setting.step(maps="none", means="all")
    found = sweep(
        setting.subject, rows, step, severity_fold(setting, rows), run=setting.running(rows), name="severity"
    ).answer
    if setting.run.portion is not None:
        return [], None
    return [
        _drift(setting, layer, found[f"mean/{layer.name}"].values.reshape(-1, rows.block, layer.units))
        for layer in setting.layers
    ], found["decisions"]


def _drift(setting: Setting, layer: LayerInfo, values: Float[np.ndarray, "n block u"]) -> LayerDrift:
    shape = (len(setting.augmentations), len(setting.spec.severities), layer.units)
    drift, low, high = (np.full(shape, np.nan) for _ in range(3))
    with np.errstate(invalid="ignore", divide="ignore"):  # dead and infinite units are nan
        plain = values[:, 0].astype(np.float64)
        spread = plain.std(axis=0, ddof=1)
        moved = np.abs(values[:, 1:] - plain[:, None]) / np.where(spread > 0, spread, np.nan)
        for number, place, column in _places(setting):
            own = moved[:, column]
            drift[number, place] = own.mean(axis=0)
            limits = mean_interval(own.mean(axis=0), own.var(axis=0), len(own), level=setting.spec.level)
            low[number, place], high[number, place] = np.maximum(limits[0], 0.0), limits[1]
    return LayerDrift(layer, drift, low, high)


def severity_accuracy(setting: Setting, decisions: DecisionsAnswer) -> SeverityAccuracy:
    """Accuracy at each strength."""
    columns = sum(len(strengths_of(setting, one)) for one in setting.augmentations)
    rank = decisions.rank.reshape(-1, 1 + columns)
    rank = rank[(rank >= 0).all(axis=1)]
    shape = (len(setting.augmentations), 1 + len(setting.spec.severities))
    value, low, high = (np.full(shape, np.nan) for _ in range(3))
    if not len(rank):
        return SeverityAccuracy(value, low, high)
    right, images = (rank == 0).sum(axis=0), np.full(1 + columns, len(rank))
    limits = wilson_interval(right, images, level=setting.spec.level)
    value[:, 0], low[:, 0], high[:, 0] = right[0] / len(rank), limits[0][0], limits[1][0]
    for number, place, column in _places(setting):
        value[number, 1 + place] = right[1 + column] / len(rank)
        low[number, 1 + place], high[number, 1 + place] = limits[0][1 + column], limits[1][1 + column]
    return SeverityAccuracy(value, low, high)


def _places(setting: Setting) -> list[tuple[int, int, int]]:
    """Of each treatment: number of the augmentation, place of its strength among all, and its place in a block."""
    severities = setting.spec.severities
    pairs = [
        (number, severities.index(strength))
        for number, augmentation in enumerate(setting.augmentations)
        for strength in strengths_of(setting, augmentation)
    ]
    return [(number, place, column) for column, (number, place) in enumerate(pairs)]


def planned_severity(setting: Setting) -> list[tuple[PlannedSweep, Design, Augmented]]:
    """The sweep to come."""
    rows = severity_rows(setting)
    step, fold, run = setting.step(maps="none", means="all"), severity_fold(setting, rows), setting.running(rows)
    return [(planned(setting.subject, rows, step, fold, run=run, name="severity"), rows, step)]
