"""The paired contrast: each image as it is, and under several draws of one augmentation alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from neuronscope.augment import Augmentation
from neuronscope.data.design import Design
from neuronscope.maths.resampling import by_qvalues, mean_interval, wilson_interval
from neuronscope.maths.signed_ranks import (
    ClusteredContrast,
    SignedRanks,
    clustered_contrast,
    point_biserial,
    signed_ranks,
)
from neuronscope.maths.streams import (
    Decisions,
    DecisionsAnswer,
    Each,
    Reducer,
    SignedRankHistogram,
    SignedRanksAnswer,
    StackRows,
)
from neuronscope.steps import Augmented
from neuronscope.studies.sensitivity.setting import Setting
from neuronscope.studies.sensitivity.single import drawn, single_images, treated_rows
from neuronscope.studies.sensitivity.spec import SensitivitySpec
from neuronscope.sweep import PlannedSweep, planned, sweep
from neuronscope.units import LayerInfo

TOP = (1, 5)
"""A prediction is right if the class is among so many first."""

_OCTAVES, _OCTAVES_TESTED = 16, 12
"""Sizes of differences told apart, as powers of two below the largest: for the effect, and for its p-value."""

_OCTAVES_OF_PROBABILITIES = 40
"""Of a softmax, which spreads what is a few units of the logits over so many. With 16 the bound would be up to 0.3."""


@dataclass(frozen=True, eq=False)
class ContrastMaps:
    """The contrast of each activation of a layer under one augmentation.

    Attributes:
        rank_biserial: of all differences (-1 to 1).
        bound: how far it can be from that of the exact ranks; 0 where ranks are exact.
        point_biserial: correlation of the activation with being treated (-1 to 1).
        statistic: Wilcoxon's T of all differences.
        p: of Wilcoxon's test of the images' mean differences (of all differences under `unclustered`).
    """

    rank_biserial: Float[np.ndarray, "m"]
    bound: Float[np.ndarray, "m"]
    point_biserial: Float[np.ndarray, "m"]
    statistic: Float[np.ndarray, "m"]
    p: Float[np.ndarray, "m"]


@dataclass(frozen=True, eq=False)
class LayerContrast:
    """What is known of a layer, for each augmentation in its order."""

    layer: LayerInfo
    maps: tuple[ContrastMaps, ...]
    units: tuple[ClusteredContrast, ...]


@dataclass(frozen=True, eq=False)
class Accuracy:
    """Share of right predictions, plain first, then under each augmentation.

    Attributes:
        top: the shares counted (k of top-k).
        value: share (k, 1 + a), 0 to 1; nan without labels.
        low, high: intervals; images are what was sampled.
        change: of the share under each augmentation against the same images as they are (-1 to 1).
        change_low, change_high: intervals; images are paired with themselves.
        images: number of labelled images.
    """

    top: tuple[int, ...]
    value: Float[np.ndarray, "k a"]
    low: Float[np.ndarray, "k a"]
    high: Float[np.ndarray, "k a"]
    change: Float[np.ndarray, "k a"]
    change_low: Float[np.ndarray, "k a"]
    change_high: Float[np.ndarray, "k a"]
    images: int


def draws_of(spec: SensitivitySpec, augmentation: Augmentation) -> int:
    """Draws of an augmentation for each image: one where there is nothing to draw."""
    return spec.draws if augmentation.parameters else 1


def contrast_rows(setting: Setting, augmentation: Augmentation) -> Design:
    """The rows of one augmentation."""
    rows = single_images(setting, setting.spec.contrast_images)
    draws = draws_of(setting.spec, augmentation)
    values = drawn(setting.run, augmentation, images=len(rows), draws=draws, what="contrast")
    return treated_rows(setting, rows, [(augmentation.name, values[:, draw]) for draw in range(draws)])


def contrast_fold(setting: Setting, rows: Design) -> Each:
    """What is folded of each augmentation: ranks of whole maps, means of units, predictions."""
    folds: dict[str, Reducer[Any]] = {"decisions": Decisions("logits", images=len(rows))}
    for layer in setting.layers:
        name = f"maps/{layer.name}"
        if setting.spec.ranks == "exact":
            folds[name] = StackRows(name, images=len(rows))
        else:
            effect, tested = _octaves(setting, layer)
            folds[name] = SignedRankHistogram(name, block=rows.block, octaves=effect)
            if _by_image(setting, rows):
                # p-values: fewer bins, for ranks of means hang less on single bins
                folds[f"p/{layer.name}"] = SignedRankHistogram(
                    name, block=rows.block, pool="images", mantissa_bits=2, octaves=tested
                )
        folds[f"mean/{layer.name}"] = StackRows(f"mean/{layer.name}", images=len(rows))
    return Each(**folds)


def _octaves(setting: Setting, layer: LayerInfo) -> tuple[int, int]:
    """Octaves of a layer's histograms: for the effect, and for its p-value."""
    if layer.name in setting.classifier and setting.spec.output == "softmax":
        return _OCTAVES_OF_PROBABILITIES, _OCTAVES_OF_PROBABILITIES
    return _OCTAVES, _OCTAVES_TESTED


def _by_image(setting: Setting, rows: Design) -> bool:
    """Whether draws of one image are averaged before they are tested."""
    return rows.block > 2 and not setting.has("unclustered")  # noqa: PLR2004 one draw is its own mean


def contrast_of(setting: Setting) -> tuple[list[LayerContrast], list[DecisionsAnswer]]:
    """The contrast in the layers of a setting and the predictions under each augmentation; nothing for a portion."""
    maps: dict[str, list[ContrastMaps]] = {layer.name: [] for layer in setting.layers}
    units: dict[str, list[ClusteredContrast]] = {layer.name: [] for layer in setting.layers}
    decisions = []
    for augmentation in setting.augmentations:
        rows = contrast_rows(setting, augmentation)
        fold, step = contrast_fold(setting, rows), setting.step(means="all")
        name = f"contrast {augmentation.name}"
        found = sweep(setting.subject, rows, step, fold, run=setting.running(rows), name=name).answer
        if setting.run.portion is not None:
            continue
        decisions.append(found["decisions"])
        for layer in setting.layers:
            maps[layer.name].append(_maps(setting, layer, found, rows))
            means = found[f"mean/{layer.name}"].values.astype(np.float64).reshape(-1, rows.block, layer.units)
            with np.errstate(invalid="ignore"):  # infinite activations: their units are nan
                units[layer.name].append(clustered_contrast(means[:, 1:] - means[:, :1], level=setting.spec.level))
    if setting.run.portion is not None:
        return [], []
    layers = [LayerContrast(layer, tuple(maps[layer.name]), tuple(units[layer.name])) for layer in setting.layers]
    return layers, decisions


def _maps(setting: Setting, layer: LayerInfo, found: dict[str, Any], rows: Design) -> ContrastMaps:
    name = f"maps/{layer.name}"
    if setting.spec.ranks == "exact":
        return _exact(setting, found[name].values.reshape(-1, rows.block, found[name].values.shape[1]))
    answer: SignedRanksAnswer = found[name]
    tested: SignedRanks = found[f"p/{layer.name}"].ranks if _by_image(setting, rows) else answer.ranks
    return ContrastMaps(
        rank_biserial=answer.ranks.rank_biserial,
        bound=answer.bound,
        point_biserial=answer.point_biserial,
        statistic=answer.ranks.statistic,
        p=tested.test(zero_method="zsplit" if setting.has("unclustered") else "pratt").p,
    )


def _exact(setting: Setting, values: Float[np.ndarray, "n block m"]) -> ContrastMaps:
    """From all differences at once."""
    with np.errstate(invalid="ignore"):  # infinite activations: they are nan in the end
        apart = values[:, 1:] - values[:, :1]
        means = apart.mean(axis=1, dtype=np.float64)
    ranks = signed_ranks(apart.reshape(-1, apart.shape[2]))
    controls, treated = len(values), apart.shape[0] * apart.shape[1]
    everything = values.reshape(-1, values.shape[2]).astype(np.float64)
    unclustered = setting.has("unclustered")
    tested = ranks if unclustered else signed_ranks(means)
    return ContrastMaps(
        rank_biserial=ranks.rank_biserial,
        bound=np.zeros(len(ranks.balance)),
        point_biserial=point_biserial(
            means.mean(axis=0),
            everything.var(axis=0) * len(everything),
            controls=controls,
            treated=treated,
        ),
        statistic=ranks.statistic,
        p=tested.test(zero_method="zsplit" if unclustered else "pratt").p,
    )


def map_qvalues(layers: list[LayerContrast], augmentations: int) -> list[list[Float[np.ndarray, "m"]]]:
    """Benjamini-Yekutieli q-values of every activation, over all layers together; for each layer and augmentation."""
    found: list[list[np.ndarray]] = [[] for _ in layers]
    for number in range(augmentations):
        p = [one.maps[number].p for one in layers]
        q = by_qvalues(np.concatenate(p)) if p else np.zeros(0)
        for own, part in zip(found, np.split(q, np.cumsum([len(one) for one in p])[:-1]), strict=True):
            own.append(part)
    return found


def unit_qvalues(layers: list[LayerContrast], augmentations: int) -> Float[np.ndarray, "a u"]:
    """Benjamini-Yekutieli q-values of every unit of every layer, for each augmentation."""
    found = [
        by_qvalues(np.concatenate([one.units[number].test.p for one in layers])) for number in range(augmentations)
    ]
    return np.stack(found)


def accuracy_of(setting: Setting, decisions: list[DecisionsAnswer]) -> Accuracy:
    """Accuracy on plain images and under each augmentation, with intervals that know that draws share an image."""
    found: list[list[tuple[float, ...]]] = []
    images = 0
    for k in TOP:
        rows: list[tuple[float, ...]] = []
        for number, (augmentation, own) in enumerate(zip(setting.augmentations, decisions, strict=True)):
            rank = own.rank.reshape(-1, 1 + draws_of(setting.spec, augmentation))
            right = rank[(rank >= 0).all(axis=1)] < k
            images = len(right)
            if number == 0:
                rows.append((*_share(right[:, :1], setting.spec.level), 0.0, 0.0, 0.0))
            rows.append((*_share(right[:, 1:], setting.spec.level), *_change(right, setting.spec.level)))
        found.append(rows)
    value, low, high, change, change_low, change_high = np.moveaxis(np.array(found), 2, 0)
    return Accuracy(TOP, value, low, high, change, change_low, change_high, images)


def _change(right: np.ndarray, level: float) -> tuple[float, float, float]:
    """How many more answers are right under an augmentation, image by image, with its interval."""
    images = len(right)
    if not images:
        return (float("nan"),) * 3
    apart = right[:, 1:].mean(axis=1) - right[:, 0]
    low, high = mean_interval(np.array([apart.mean()]), np.array([apart.var()]), images, level=level)
    return float(apart.mean()), float(max(low[0], -1.0)), float(min(high[0], 1.0))


def _share(right: np.ndarray, level: float) -> tuple[float, float, float]:
    """A share of right answers with its interval; images are what was sampled."""
    images, draws = right.shape
    if not images:
        return (float("nan"),) * 3
    each = right.mean(axis=1)
    if draws == 1:
        counts: tuple[Int[np.ndarray, "c"], ...] = (np.array([int(right.sum())]), np.array([images]))
        low, high = wilson_interval(*counts, level=level)
    else:
        mean, variance = np.array([each.mean()]), np.array([each.var()])
        low, high = mean_interval(mean, variance, images, level=level)
    return float(each.mean()), float(max(low[0], 0.0)), float(min(high[0], 1.0))


def planned_contrast(setting: Setting) -> list[tuple[PlannedSweep, Design, Augmented]]:
    """The sweeps to come, one for each augmentation."""
    step = setting.step(means="all")
    jobs = []
    for augmentation in setting.augmentations:
        rows = contrast_rows(setting, augmentation)
        fold = contrast_fold(setting, rows)
        name = f"contrast {augmentation.name}"
        jobs.append((planned(setting.subject, rows, step, fold, run=setting.running(rows), name=name), rows, step))
    return jobs
