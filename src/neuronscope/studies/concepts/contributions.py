"""Which units of a layer make up those of the next, and the classes: by weight, by correlation, and by overlap.

A weight says what a connection could do, a correlation what goes together over the images, an overlap which units are
active in the same places. All images are shown to the network once; maps leave sums and counts behind (`relations`).

Source: Mu and Andreas (2020), "Compositional explanations of neurons", whose program lists the same three matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int8

from neuronscope.errors import InputError
from neuronscope.maths.relations import Correlation, CrossMoments, Firing, FiringRows, Joint, JointCounts
from neuronscope.maths.resampling import bh_qvalues
from neuronscope.maths.streams import Each, Extremes, TopK
from neuronscope.models.subject import Subject
from neuronscope.models.wiring import connection, feeds
from neuronscope.steps import Observe, columns
from neuronscope.studies.concepts.setting import Setting
from neuronscope.sweep import sweep
from neuronscope.units import LayerInfo

CLASSES = "classes"
"""Name of the part that leads to the classes, as in `contributions_classes`."""

SHARE = 0.01
"""Share of a matrix's entries that are contributors, and share that are inhibitors."""


@dataclass(frozen=True)
class LayerThresholds:
    """A layer whose units are explained.

    Attributes:
        layer: which.
        thresholds: activation above which each unit is active; nan for one that never is.
    """

    layer: LayerInfo
    thresholds: Float[np.ndarray, "u"]

    def __post_init__(self) -> None:
        """Refuse thresholds of another layer.

        Raises:
            InputError: not one threshold for each unit.
        """
        if len(self.thresholds) != self.layer.units:
            message = (
                f"{len(self.thresholds)} thresholds came for the {self.layer.units} units of '{self.layer.name}': "
                "give one for each"
            )
            raise InputError(message)


def contributions(setting: Setting, explained: Sequence[LayerThresholds]) -> dict[str, xr.Dataset]:
    """How each explained layer feeds the next one, and how the last one feeds the classes, on the images reported.

    Of each pair of layers three matrices (of = unit of the later layer or class, by = unit of the layer before):
    `weight` (see `weights_between`), `correlation` over all cells of all images, with `correlation_low` and
    `correlation_high` (at the study's level) and `q` (Benjamini-Hochberg over the matrix; from 0.05 on an entry cannot
    be told from 0), and `overlap`: cells active in both among those active in any. Of maps of different size the larger
    is cut into as many blocks as the smaller has cells: for the correlation a block is its mean, for the overlap it is
    active where any of its cells is.

    For the classes a unit is seen through the mean of its map, beside the logits; the overlap is of the images in which
    the unit fires anywhere with the share `quantile` of the images (at least one) in which the logit is highest.

    `contributor` is 1 above the (1 - 0.01) quantile of the weights, or where there are none of the correlations, and -1
    below their 0.01 quantile (attribute `contributor_of`).

    Args:
        setting: the study's.
        explained: layers with the thresholds of their units, in any order.

    Returns:
        `contributions_LAYER` for each layer but the first in calling order, and `contributions_classes`, unless the
        last layer's units are the classes themselves.
    """
    known = [layer.name for layer in setting.subject.layers]
    ordered = sorted(explained, key=lambda one: known.index(one.layer.name))
    if not ordered:
        return {}
    output = output_layer(setting.subject)
    last = ordered[-1]
    to_classes = output is None or output.name != last.layer.name
    layers = tuple(one.layer for one in ordered)
    images = setting.concepts.images.take(setting.reported)
    level = setting.spec.level
    folds: dict[str, Any] = {}
    for before, after in pairwise(ordered):
        of, by = f"maps/{after.layer.name}", f"maps/{before.layer.name}"
        folds[f"moments {after.layer.name}"] = CrossMoments(of, by, level)
        folds[f"counts {after.layer.name}"] = JointCounts(of, by, after.thresholds, before.thresholds)
    if to_classes:
        top = max(1, int(setting.spec.quantile * len(images)))
        every = np.concatenate([one.thresholds for one in ordered])
        folds["moments to classes"] = CrossMoments("logits", f"maps/{last.layer.name}", level)
        folds["fired"] = Firing("max", every, len(images))
        folds["top"] = TopK("logits", top)
    if not folds:
        return {}
    step = Observe(layers, measures=("max",), maps=tuple(layer.name for layer in layers))
    found = sweep(setting.subject, images, step, Each(**folds), run=setting.run, name="contributions").answer
    parts: dict[str, xr.Dataset] = {}
    for before, after in pairwise(ordered):
        name = after.layer.name
        joint: Joint = found[f"counts {name}"]
        parts[f"contributions_{name}"] = _part(
            weights_between(setting.subject, before.layer, after.layer),
            found[f"moments {name}"],
            joint.jaccard,
            of=(name, [f"{name}:{unit}" for unit in range(after.layer.units)]),
            by=before.layer,
        )
    if to_classes:
        own = columns(layers)[last.layer.name]
        fired = FiringRows(found["fired"].index, found["fired"].fired[:, own])
        weight = np.full((len(setting.subject.classes), last.layer.units), np.nan)
        if output is not None:
            weight = weights_between(setting.subject, last.layer, output)
        parts[f"contributions_{CLASSES}"] = _part(
            weight,
            found["moments to classes"],
            _class_overlap(fired, found["top"]),
            of=(CLASSES, list(setting.subject.classes)),
            by=last.layer,
        )
    return parts


def output_layer(subject: Subject) -> LayerInfo | None:
    """The weighted layer whose units are the classes, where the network ends with one."""
    weighted = [layer for layer in subject.layers if layer.kind in ("linear", "conv")]
    return weighted[-1] if weighted and weighted[-1].units == len(subject.classes) else None


def weights_between(subject: Subject, before: LayerInfo, after: LayerInfo) -> Float[np.ndarray, "of by"]:
    """The weight with which each unit of one layer enters each unit of a later one.

    That of a linear layer, added up over the positions of a flattened map; of a convolution the mean of its kernel
    over space. nan where another weighted layer, an addition or a concatenation stands between, or the wiring of the
    network is unknown.
    """
    feed = feeds(subject, before, after)
    if feed is None:
        return np.full((after.units, before.units), np.nan)
    mean = connection(subject.module.get_submodule(feed.module), block=feed.block)
    return np.asarray(mean * feed.block)


def contributors(matrix: Float[np.ndarray, "of by"], *, share: float = SHARE) -> Int8[np.ndarray, "of by"]:
    """1 for the entries above the upper `share` of the whole matrix, -1 for those below the lower, 0 for the others.

    Example:
        >>> contributors(np.arange(6.0).reshape(2, 3), share=0.2)
        array([[-1,  0,  0],
               [ 0,  0,  1]], dtype=int8)
    """
    if np.isnan(matrix).all():
        return np.zeros(matrix.shape, dtype=np.int8)
    low, high = np.nanquantile(matrix, (share, 1 - share))
    return np.asarray((matrix > high).astype(np.int8) - (matrix < low).astype(np.int8))


def _part(
    weight: Float[np.ndarray, "of by"],
    related: Correlation,
    overlap: Float[np.ndarray, "of by"],
    *,
    of: tuple[str, Sequence[str]],
    by: LayerInfo,
) -> xr.Dataset:
    axes = ("of", "by")
    chosen = "correlation" if np.isnan(weight).all() else "weight"
    variables = {
        "weight": (weight, "weight of the connection; nan where there is no single one"),
        "correlation": (related.r, "of the activations, over all cells of all images"),
        "correlation_low": (related.low, f"{related.level:.0%} interval, with images as clusters"),
        "correlation_high": (related.high, f"{related.level:.0%} interval, with images as clusters"),
        "q": (bh_qvalues(related.p), "of the correlation over the matrix"),
        "overlap": (overlap, "cells active in both among those active in any"),
        "contributor": (
            contributors(weight if chosen == "weight" else related.r),
            f"1: among the upper {SHARE:.0%} of the {chosen}, -1: among the lower",
        ),
    }
    name, units = of
    return xr.Dataset(
        {key: (axes, values, {"long_name": meaning}) for key, (values, meaning) in variables.items()},
        coords={
            "of_name": ("of", np.array(units, dtype=object)),
            "by_name": ("by", np.array([f"{by.name}:{unit}" for unit in range(by.units)], dtype=object)),
        },
        attrs={"of": name, "by": by.name, "contributor_of": chosen, "images": related.images},
    )


def _class_overlap(fired: FiringRows, top: Extremes) -> Float[np.ndarray, "c u"]:
    """Images with a unit active and a class's logit among its highest, among images with any of the two."""
    chosen = np.zeros((len(fired.index), top.index.shape[1]), dtype=np.int64)
    for label, rows in enumerate(top.index.T):
        chosen[np.searchsorted(fired.index, rows[rows >= 0]), label] = 1
    active = fired.fired.astype(np.int64)
    return Joint(chosen.T @ active, chosen.sum(axis=0), active.sum(axis=0)).jaccard
