"""The strongest connections within each class's sub-network, from layer to layer and to the class's own output."""

from __future__ import annotations

import logging
from itertools import pairwise

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from neuronscope.models.wiring import connection, feeds
from neuronscope.studies.importance.setting import Setting, is_output
from neuronscope.studies.importance.tables import Stats
from neuronscope.units import LayerInfo

LOGGER = logging.getLogger("neuronscope")


def strongest(setting: Setting, members: Bool[np.ndarray, "u c"], stats: Stats) -> xr.Dataset:
    """For each class the connections with the largest |weight| x mean activation for the class.

    A connection has one weight: that of a linear layer, averaged over the positions of a flattened map, or the mean of
    a kernel over space. Pairs of layers that are not joined by a single weighted layer have none.

    Args:
        setting: the study's.
        members: units of the sub-networks.
        stats: moments of the units' activations by class.

    Returns:
        One row per connection: `class_number` (place among the classes in question), `before` and `after` (places among
        `layer_name`; the output layer is the last), `unit_before`, `unit_after`, `weight`, `strength`.
    """
    output = output_layer(setting)
    layers = (*setting.layers, *([output] if output is not None else []))
    modules = dict(setting.subject.module.named_modules())
    rows: list[tuple[float, ...]] = []
    for before, (first, second) in enumerate(pairwise(layers)):
        feed = feeds(setting.subject, first, second)
        if feed is None:
            LOGGER.info("no single weighted layer joins %s and %s: no connections are shown", first.name, second.name)
            continue
        weights = connection(modules[feed.module], block=feed.block)
        for k, c in enumerate(setting.classes):
            own = members[setting.places[before], c]
            if before + 1 < len(setting.layers):
                after = members[setting.places[before + 1], c]
            else:
                after = np.arange(second.units) == c
            activation = stats.means[setting.places[before], c]
            rows += [
                (k, before, before + 1, *row) for row in _best(weights, own, after, activation, setting.spec.edges)
            ]
    table = np.array(rows, dtype=np.float64).reshape(-1, 7)
    whole = ("class_number", "before", "after", "unit_before", "unit_after")
    variables: dict[str, tuple[str, np.ndarray]] = {}
    variables |= {name: ("edge", table[:, i].astype(np.int64)) for i, name in enumerate(whole)}
    variables |= {name: ("edge", table[:, i]) for i, name in ((5, "weight"), (6, "strength"))}
    return xr.Dataset(
        variables,
        coords={
            "layer_name": ("layer", np.array([layer.name for layer in layers], dtype=object)),
            "layer_kind": ("layer", np.array([layer.kind for layer in layers], dtype=object)),
            "class_name": ("class", np.array(setting.class_names, dtype=object)),
        },
    )


def output_layer(setting: Setting) -> LayerInfo | None:
    """The layer whose units are the classes, where the network ends with one."""
    for layer in reversed(setting.subject.layers):
        if is_output(setting.subject, layer) and layer.kind in ("linear", "conv"):
            return layer if layer not in setting.layers else None
    return None


def _best(
    weights: Float[np.ndarray, "after before"],
    own: Bool[np.ndarray, "before"],
    after: Bool[np.ndarray, "after"],
    activation: Float[np.ndarray, "before"],
    most: int,
) -> list[tuple[float, float, float, float]]:
    """(unit before, unit after, weight, strength) of the strongest connections between members, strongest first."""
    strength = np.where(after[:, None] & own[None], weights * np.nan_to_num(activation)[None], 0.0)
    order = np.argsort(-np.abs(strength), axis=None, kind="stable")[:most]
    rows, columns = np.unravel_index(order, strength.shape)
    return [
        (float(b), float(a), float(weights[a, b]), float(strength[a, b]))
        for a, b in zip(rows, columns, strict=True)
        if strength[a, b] != 0
    ]
