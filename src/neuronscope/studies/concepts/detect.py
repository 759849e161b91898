"""Find the activations at which units count as active: thresholds, and ranges of the activations by k-means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from neuronscope.errors import InputError
from neuronscope.maths.ranges import LowestHighest, RangeHistogram, ranges_of
from neuronscope.maths.streams import Each, SketchQuantile, StackRows, UpperTail
from neuronscope.studies.blocks import unit_parts
from neuronscope.studies.concepts.grid import Grid
from neuronscope.studies.concepts.setting import Setting
from neuronscope.sweep import sweep
from neuronscope.units import LayerInfo

_MOST = 1 << 30
"""Bytes of activations held at a time where the run sets no bound."""


@dataclass(frozen=True, eq=False)
class Levels:
    """Activations of each unit on the images searched.

    Attributes:
        threshold: above it the unit counts as active; nan where activations are not finite.
        lowest, highest: the smallest and the largest.
    """

    threshold: Float[np.ndarray, "u"]
    lowest: Float[np.ndarray, "u"]
    highest: Float[np.ndarray, "u"]


def levels_of(setting: Setting, grid: Grid, layers: Sequence[LayerInfo]) -> list[Levels]:
    """Thresholds and extremes of each layer, in one pass; from a portion of the images there is no answer yet."""
    images = setting.concepts.images.take(setting.searched)
    folds = Each(**{layer.name: tail(setting, grid, layer) for layer in layers})
    answer = sweep(setting.subject, images, grid.look(layers), folds, run=setting.run, name="thresholds").answer
    found = []
    for layer in layers:
        own = answer[layer.name]
        threshold = sketched(setting, grid, layer) if "sketch-thresholds" in setting.spec.legacy else own["tail"]
        found.append(Levels(threshold, own["ends"].lowest, own["ends"].highest))
    return found


def sketched(setting: Setting, grid: Grid, layer: LayerInfo) -> Float[np.ndarray, "u"]:
    """Thresholds by the originals' sketch.

    It must see all images in their order: activations are held for that, of as many units at a time as fit into memory.
    """
    images, of = setting.concepts.images.take(setting.searched), f"maps/{layer.name}"
    each = 8 * len(images) * int(np.prod(grid.map_shape(layer)))
    most = setting.run.memory or _MOST
    found = []
    for part in unit_parts(layer, lambda part: part.units * each <= most) or [layer]:
        fold = StackRows(of, images=len(images))
        rows = sweep(setting.subject, images, grid.look([part]), fold, run=setting.run, name="activations held").answer
        sketch = SketchQuantile(of, setting.spec.quantile)
        found.append(sketch.finish(sketch.add(sketch.start(), {of: torch.from_numpy(rows.values)})))
    return np.concatenate(found)


def tail(setting: Setting, grid: Grid, layer: LayerInfo) -> Each:
    """The upper quantile of each unit's activations over images and positions, and the extremes."""
    positions = int(np.prod(grid.map_shape(layer)))
    values = len(setting.searched) * positions
    share = setting.spec.quantile
    if values * share < 1:
        message = (
            f"a share of {share:g} of a unit's {values:,} activations in '{layer.name}' "
            f"({len(setting.searched):,} images, {positions} positions) is less than one: no unit would ever be "
            "active. Give more images, a layer with larger maps, or a larger --quantile"
        )
        raise InputError(message)
    of = f"maps/{layer.name}"
    return Each(tail=UpperTail(of, share, total=values), ends=LowestHighest(of))


def ranges_for(
    setting: Setting, grid: Grid, layers: Sequence[LayerInfo], levels: Sequence[Levels]
) -> list[Float[np.ndarray, "u k 2"]]:
    """Ranges of each unit's activations, ascending (La Rosa et al. 2023); nan where a unit has too few values."""
    images = setting.concepts.images.take(setting.searched)
    folds = Each(
        **{
            layer.name: RangeHistogram(f"maps/{layer.name}", own.lowest, own.highest)
            for layer, own in zip(layers, levels, strict=True)
        }
    )
    answer = sweep(setting.subject, images, grid.look(layers), folds, run=setting.run, name="activations").answer
    members = "cce-ranges" in setting.spec.legacy
    return [ranges_of(answer[layer.name], setting.spec.ranges, members=members) for layer in layers]
