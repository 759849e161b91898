"""How alike the units of a layer are: by the pixels that their formulas cover, and by their activations.

Two units may be explained alike and still respond apart, or the other way round; side by side the two matrices show it.
Whether two formulas are the same statement is another question: `relations.equivalent_groups`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from neuronscope.errors import InputError
from neuronscope.maths.relations import Correlation, CrossMoments, weighted_jaccard
from neuronscope.maths.resampling import bh_qvalues
from neuronscope.maths.streams import Each
from neuronscope.steps import Observe
from neuronscope.studies.concepts.setting import Setting
from neuronscope.sweep import sweep
from neuronscope.units import LayerInfo


def similarity(
    setting: Setting,
    layer: LayerInfo,
    holds: Sequence[Bool[np.ndarray, "s"]],
    weight: Int[np.ndarray, "s"],
    *,
    activations: Correlation | None = None,
) -> xr.Dataset:
    """Overlap of the formulas of every two units of a layer, and correlation of their activations.

    Args:
        setting: the study's.
        layer: whose units.
        holds: for each unit, the label sets that satisfy its formula; none for a unit without a formula.
        weight: pixels of each label set on the images reported.
        activations: from `activation_correlations`, where several layers are compared; else one more pass is made.

    Returns:
        (unit, other): `masks` (Jaccard, 0 to 1, of the pixels of the formulas; nan for formulas that cover nothing),
        `activations` with `activations_low` and `activations_high` (images as clusters), and its `q` (over the
        pairs; nan on the diagonal).

    Raises:
        InputError: not one formula for each unit.
    """
    if len(holds) != layer.units:
        message = f"{len(holds)} formulas came for the {layer.units} units of '{layer.name}': give one for each"
        raise InputError(message)
    related = activations if activations is not None else activation_correlations(setting, (layer,))[layer.name]
    axes = ("unit", "other")
    variables = {
        "masks": (weighted_jaccard(holds, weight), "pixels of both units' formulas among those of any"),
        "activations": (related.r, "correlation of the activations over all cells of all images"),
        "activations_low": (related.low, f"{related.level:.0%} interval, with images as clusters"),
        "activations_high": (related.high, f"{related.level:.0%} interval, with images as clusters"),
        "q": (_pair_qvalues(related.p), "of the correlation, over the pairs of units"),
    }
    return xr.Dataset(
        {name: (axes, values, {"long_name": meaning}) for name, (values, meaning) in variables.items()},
        attrs={"layer": layer.name, "images": related.images},
    )


def activation_correlations(setting: Setting, layers: Sequence[LayerInfo]) -> dict[str, Correlation]:
    """Correlation of every two units of each layer, over all cells of the images reported: one pass for all layers."""
    images = setting.concepts.images.take(setting.reported)
    maps = {layer.name: f"maps/{layer.name}" for layer in layers}
    folds = Each(**{name: CrossMoments(of, of, setting.spec.level) for name, of in maps.items()})
    step = Observe(tuple(layers), measures=(), maps=tuple(layer.name for layer in layers))
    found: dict[str, Correlation] = sweep(
        setting.subject, images, step, folds, run=setting.run, name="similarity"
    ).answer
    return found


def _pair_qvalues(p: Float[np.ndarray, "u u"]) -> Float[np.ndarray, "u u"]:
    """q-values of a symmetric matrix in which each pair is one test and the diagonal is none."""
    upper = np.triu_indices(len(p), 1)
    q = np.full(p.shape, np.nan)
    q[upper] = bh_qvalues(p[upper])
    q.T[upper] = q[upper]
    return q
