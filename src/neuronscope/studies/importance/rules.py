"""From evidence to scores, and from scores to the units of each class's sub-network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
from jaxtyping import Bool, Float, Int8

from neuronscope.maths.importance import (
    LEAVE,
    Budget,
    MaskingRule,
    choose,
    contrast_z,
    contrastive_mask,
    layer_fractions,
    original_mask,
    scaled_contrast,
    threshold_by_percentile,
)
from neuronscope.studies.importance.evidence import TARGETS, Evidence
from neuronscope.studies.importance.setting import Setting
from neuronscope.studies.importance.spec import Rule
from neuronscope.studies.importance.tables import Stats

HALVED: tuple[Rule, ...] = tuple(rule for rule in get_args(Rule) if rule not in ("shapley", "nisp"))
"""Rules whose scores can be had from any half of the selection images without another pass."""


@dataclass(frozen=True)
class Choice:
    """The units that one rule takes for each class.

    Attributes:
        members: the sub-network's units.
        rest: the units that stay when the sub-network is taken out: all others, but for units exactly on a threshold.
    """

    members: Bool[np.ndarray, "u c"]
    rest: Bool[np.ndarray, "u c"]


def score_units(
    setting: Setting, evidence: Evidence, rule: Rule, *, parts: Bool[np.ndarray, "parts"] | None = None
) -> Float[np.ndarray, "u c"]:
    """Every unit's importance for every class of the network, from all selection images or some random parts of them.

    Args:
        setting: the study's.
        evidence: of the selection images.
        rule: one of `HALVED`.
        parts: the parts of the images to use; all by default.
    """
    match rule:
        case "thresholding" | "masking" | "activation" | "selectivity":
            return _from_means(setting, evidence.tables["mean"].over(parts), rule)
        case "gradient" | "gradient-contrast":
            return evidence.tables[TARGETS[rule]].over(parts).means
        case "taylor":
            return _unit_length(evidence.tables["loss"].over(parts).means, setting.places)
        case "influence" | "conductance":
            return evidence.tables[rule].over(parts).means
        case "ablation":
            return evidence.tables["logit_fall"].over(parts).means
        case _:
            message = f"rule '{rule}' cannot be scored on a part of the images"
            raise AssertionError(message)


def choose_units(
    setting: Setting,
    evidence: Evidence,
    scores: Float[np.ndarray, "u c"],
    rule: Rule,
    *,
    parts: Bool[np.ndarray, "parts"] | None = None,
) -> Choice:
    """The sub-network of each class under the budget, layer by layer.

    Args:
        setting: the study's.
        evidence: of the selection images.
        scores: of the rule; from the same parts.
        rule: which.
        parts: as in `score_units`; only `absolute-activation` asks for them again.
    """
    if rule == "thresholding" and setting.has("absolute-activation"):
        means = evidence.tables["mean"].over(parts).means
        found = [
            threshold_by_percentile(means[place], percentile=100 * (1 - setting.spec.budget))
            for place in setting.places
        ]
        return Choice(np.concatenate([one.above for one in found]), np.concatenate([one.below for one in found]))
    budget = Budget("fraction", setting.spec.budget)
    table = together(setting, scores) if setting.spec.coupled == "joint" else scores
    members = np.concatenate([choose(table[place], budget=budget) for place in setting.places])
    return Choice(members, ~members)


def together(setting: Setting, scores: Float[np.ndarray, "u c"]) -> Float[np.ndarray, "u c"]:
    """Scores with one value for each channel of layers that skip connections add: the mean of the layers' scores.

    Every layer's scores for a class are brought to length 1 before, for layers differ in scale.
    """
    joint = scores.copy()
    for group in setting.coupled:
        places = [setting.places[number] for number in group]
        if len({place.stop - place.start for place in places}) > 1:
            continue
        whole = _unit_length(scores, setting.places)
        mean = np.mean([whole[place] for place in places], axis=0)
        for place in places:
            joint[place] = mean
    return joint


def masks(
    setting: Setting, evidence: Evidence, *, parts: Bool[np.ndarray, "parts"] | None = None
) -> Int8[np.ndarray, "u c"]:
    """The masking rule's codes for all units: 1 ON, 0 OFF, -1 leave; the output layer counts as one more layer."""
    stats, spec = evidence.tables["mean"].over(parts), setting.spec
    fractions = layer_fractions(len(setting.places) + 1, base=spec.fraction_base, largest=spec.fraction_max)
    codes = np.full(stats.means.shape, LEAVE, dtype=np.int8)
    for place, fraction in zip(setting.places, fractions[:-1], strict=True):
        own = stats.at(place)
        if setting.has("fixed-thresholds"):
            rule = MaskingRule(spec.high, spec.low, spec.confidence, spec.fraction_base, spec.fraction_max)
            codes[place] = original_mask(own.means, own.variances, own.counts, fraction=float(fraction), rule=rule)
        else:
            codes[place] = contrastive_mask(
                own.means, own.variances, own.counts, fraction=float(fraction), confidence=spec.confidence
            )
    return codes


def _from_means(setting: Setting, stats: Stats, rule: Rule) -> Float[np.ndarray, "u c"]:
    if rule == "activation" or (rule == "thresholding" and setting.has("absolute-activation")):
        return stats.means
    if rule == "thresholding":
        return scaled_contrast(stats.means, stats.variances, stats.counts)
    if rule == "masking":
        return contrast_z(stats.means, stats.variances, stats.counts)
    return class_selectivity(stats.means)


def class_selectivity(means: Float[np.ndarray, "u c"]) -> Float[np.ndarray, "u c"]:
    """`(m_c - mean of the others) / (m_c + mean of the others)`: Morcos et al. 2018, asked of every class.

    Their index is the largest entry of a row. nan where an activation mean is negative, and for dead units.

    Example:
        >>> class_selectivity(np.array([[3.0, 1.0, 1.0]])).round(2)
        array([[ 0.5 , -0.33, -0.33]])
    """
    there = ~np.isnan(means)
    total = np.where(there, means, 0.0).sum(axis=1, keepdims=True)
    others = (total - means) / np.maximum(there.sum(axis=1, keepdims=True) - 1, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        index = (means - others) / (means + others)
    return np.where((np.where(there, means, 0.0) < 0).any(axis=1, keepdims=True), np.nan, index)


def _unit_length(scores: Float[np.ndarray, "u c"], places: tuple[slice, ...]) -> Float[np.ndarray, "u c"]:
    """Every layer's scores for a class as a vector of length 1 (Molchanov et al. 2017, section 2.2)."""
    scaled = np.full_like(scores, np.nan)
    for place in places:
        length = np.sqrt(np.nansum(scores[place] ** 2, axis=0))
        with np.errstate(invalid="ignore", divide="ignore"):
            scaled[place] = np.where(length > 0, scores[place] / length, np.nan)
    return scaled
