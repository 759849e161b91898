"""What a silenced unit gives instead of its output, in each of the ways that the study offers."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from neuronscope.edits import Edit, drop, replace, resample
from neuronscope.steps import ZERO, Fill
from neuronscope.studies.importance.setting import Setting
from neuronscope.studies.importance.spec import ImportanceSpec
from neuronscope.studies.importance.tables import Stats
from neuronscope.units import UnitSet


def needs_means(spec: ImportanceSpec) -> bool:
    """Whether silencing needs to know the units' means first."""
    return spec.silence in ("mean", "other-mean")


def fill_for_labels(setting: Setting, means: Stats | None, *, units: int) -> Fill:
    """What silenced units give when every image is asked about its own class.

    Args:
        setting: the study's.
        means: moments of the layer's units where they are silenced; needed by `needs_means` only.
        units: how many units the layer has.
    """
    match setting.spec.silence:
        case "zero":
            return ZERO
        case "constant":
            return Fill("values", values=np.full(units, setting.spec.constant))
        case "resample":
            return Fill("resample", seed=setting.run.seed)
        case "mean":
            return Fill("values", values=overall_mean(_known(means)))
        case "other-mean":
            return Fill("by label", values=other_mean(_known(means)).T)


def fill_for_class(setting: Setting, means: Stats, number: int) -> Fill:
    """What silenced units give when all images are asked about one class."""
    if setting.spec.silence == "other-mean":
        return Fill("values", values=other_mean(means)[:, number])
    return fill_for_labels(setting, means, units=len(means.means))


def silence(setting: Setting, units: UnitSet, means: Stats, number: int) -> Edit:
    """The edit that silences units of one layer, for questions about a class.

    Args:
        setting: the study's.
        units: of the layer where they are silenced.
        means: moments of all units of that layer.
        number: of the class.
    """
    chosen = list(units.indices)
    match setting.spec.silence:
        case "zero":
            return drop(units)
        case "constant":
            return replace(units, setting.spec.constant)
        case "resample":
            return resample(units)
        case "mean":
            return replace(units, tuple(overall_mean(means)[chosen].tolist()))
        case "other-mean":
            return replace(units, tuple(other_mean(means)[chosen, number].tolist()))


def overall_mean(means: Stats) -> Float[np.ndarray, "u"]:
    """Mean over all images."""
    share = means.counts / max(int(means.counts.sum()), 1)
    return np.asarray(np.where(means.counts > 0, means.means, 0.0) @ share)


def other_mean(means: Stats) -> Float[np.ndarray, "u c"]:
    """For each class the mean over the images of all other classes."""
    weighted = np.where(means.counts > 0, means.means, 0.0) * means.counts
    others = np.maximum(means.counts.sum() - means.counts, 1)
    return np.asarray((weighted.sum(axis=1, keepdims=True) - weighted) / others)


def _known(means: Stats | None) -> Stats:
    if means is None:
        message = "units are silenced by their means, and these are not known yet"
        raise AssertionError(message)
    return means
