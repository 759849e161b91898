"""Correlations between factors in a finished result: across units at every place, and across places of every unit.

Everything is arithmetic on the maps of the result. Shares of the variance are cut to 0..1 and contrasts taken by their
size, as published; coefficients are Spearman's unless others are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import xarray as xr
from jaxtyping import Float

from neuronscope.maths.correlation_matrices import matrix_distances
from neuronscope.maths.map_correlations import (
    MeanCorrelations,
    Method,
    Missing,
    correlations_across_units,
    mean_correlations,
    place_correlations,
)
from neuronscope.studies.sensitivity.analyses.values import SHARES, LayerValues, layer_names, layer_values

VALUES = (*SHARES, "contrast")
CROSSINGS = (("shapley", "first"), ("shapley", "total"), ("first", "total"))
"""Pairs of values that are published."""

_FEWEST = 2
"""Units of a layer that has correlations."""
_KEPT = tuple(field.name for field in fields(MeanCorrelations) if field.name not in ("counted", "units"))
"""What is kept of mean correlations, under these names."""


@dataclass(frozen=True, eq=False)
class _LayerCorrelations:
    """Everything of one layer; keys are values, pairs of values, and shares."""

    layer: LayerValues
    within: dict[str, MeanCorrelations]
    between: dict[tuple[str, str], MeanCorrelations]
    variation: dict[str, list[MeanCorrelations]]
    variation_maps: dict[str, Float[np.ndarray, "p g"]]
    own: dict[str, MeanCorrelations]


def correlation_groups(
    tree: xr.DataTree, *, method: Method = "spearman", missing: Missing = "all", level: float = 0.95
) -> dict[str, xr.Dataset]:
    """The group `correlations` of a result: a row for each layer with at least two units.

    Each kind has variables with the endings `_mean` (over places, or units), `_deviation`, `_low`, `_high` (intervals
    that count units), `_p`, `_q` (Benjamini-Yekutieli over the matrix):

    * `within`: between the factors of one value (axis `value`: first, total, shapley, contrast).
    * `between`: of the factors of one value (rows) with those of another (axis `crossing`).
    * `variation`: of each factor with the activations' coefficient of variation; `variation_map` has it at every place
      of every layer (axis `place`, with `place_layer`, `place_y`, `place_x`).
    * `own`: across the places of each unit, then over units; `own_difference` and `own_spearman` say how far the
      matrices of two layers are apart.

    Args:
        tree: of the result.
        method: which coefficient.
        missing: what places without a coefficient mean.
        level: coverage of the intervals.

    Returns:
        Empty where no layer has values of two units.
    """
    found = []
    for name in layer_names(tree):
        layer = layer_values(tree, name)
        if layer.units >= _FEWEST:
            found.append(_correlations(layer, method=method, missing=missing, level=level))
    if not found:
        return {}
    factors = found[0].layer.factors
    values = [name for name in VALUES if any(name in one.within for one in found)]
    crossings = [pair for pair in CROSSINGS if any(pair in one.between for one in found)]
    shares = [name for name in SHARES if any(name in one.variation for one in found)]
    own = np.stack([[_matrix(one.own.get(name), "mean", factors) for one in found] for name in values])
    distances = [matrix_distances(one, one) for one in own]
    square = ("factor", "other")
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        "units": (("layer",), np.array([one.layer.units for one in found])),
        "places": (("layer",), np.array([one.layer.places for one in found])),
        "own_difference": (("value", "layer", "other_layer"), np.stack([one.difference for one in distances])),
        "own_spearman": (("value", "layer", "other_layer"), np.stack([one.spearman for one in distances])),
    }
    for ending in _KEPT:
        variables[f"within_{ending}"] = (
            ("layer", "value", *square),
            np.stack([[_matrix(one.within.get(name), ending, factors) for name in values] for one in found]),
        )
        variables[f"own_{ending}"] = (
            ("layer", "value", *square),
            np.stack([[_matrix(one.own.get(name), ending, factors) for name in values] for one in found]),
        )
        if crossings:
            variables[f"between_{ending}"] = (
                ("layer", "crossing", *square),
                np.stack([[_matrix(one.between.get(pair), ending, factors) for pair in crossings] for one in found]),
            )
        if shares:
            columns = [[_column(one, name, ending) for name in shares] for one in found]
            variables[f"variation_{ending}"] = (("layer", "share", "factor"), np.array(columns))
    coords: dict[str, tuple[str, np.ndarray]] = {
        "layer_name": ("layer", _texts([one.layer.layer for one in found])),
        "factor_name": ("factor", _texts(factors)),
        "value_name": ("value", _texts(values)),
    }
    if crossings:
        coords["crossing_name"] = ("crossing", _texts([" x ".join(pair) for pair in crossings]))
    if shares:
        coords["share_name"] = ("share", _texts(shares))
        maps = [
            np.stack(
                [one.variation_maps.get(name, np.full((one.layer.places, len(factors)), np.nan)) for name in shares]
            )
            for one in found
        ]
        variables["variation_map"] = (("share", "place", "factor"), np.concatenate(maps, axis=1).astype(np.float32))
        coords |= _places([one.layer for one in found])
    return {"correlations": xr.Dataset(variables, coords=coords, attrs={"method": method, "missing": missing})}


def _correlations(layer: LayerValues, *, method: Method, missing: Missing, level: float) -> _LayerCorrelations:
    values, places = layer.values(), layer.places
    shares = {name: values[name] for name in layer.variation}
    own_set = np.array(layer.sets)
    return _LayerCorrelations(
        layer,
        within={
            name: _spread_out(one, correlations_across_units(_there(one), method=method, missing=missing, level=level))
            for name, one in values.items()
        },
        between={
            pair: correlations_across_units(
                values[pair[0]], values[pair[1]], method=method, missing=missing, level=level
            )
            for pair in CROSSINGS
            if pair[0] in values and pair[1] in values
        },
        variation={
            name: [
                correlations_across_units(
                    one[..., own_set == run],
                    layer.variation[name][..., run : run + 1],
                    method=method,
                    missing=missing,
                    level=level,
                )
                for run in np.unique(own_set)
            ]
            for name, one in shares.items()
        },
        variation_maps={
            name: np.concatenate(
                [
                    place_correlations(
                        one[..., own_set == run], layer.variation[name][..., run : run + 1], method=method
                    )[..., 0]
                    for run in np.unique(own_set)
                ],
                axis=-1,
            )
            for name, one in shares.items()
        },
        own={
            name: _spread_out(
                one,
                mean_correlations(
                    place_correlations(_there(one).transpose(1, 0, 2), method=method), missing=missing, level=level
                ),
            )
            for name, one in values.items()
            if places > _FEWEST
        },
    )


def _there(values: Float[np.ndarray, "u p g"]) -> Float[np.ndarray, "u p a"]:
    """Without factors that the value is not of: contrasts are of augmentations alone."""
    return values[..., np.isfinite(values).any(axis=(0, 1))]


def _spread_out(values: Float[np.ndarray, "u p g"], found: MeanCorrelations) -> MeanCorrelations:
    """The same with nan for factors that the value is not of."""
    there = np.isfinite(values).any(axis=(0, 1))
    if there.all():
        return found

    def whole(part: np.ndarray, void: float) -> np.ndarray:
        wide = np.full((len(there), len(there)), void, dtype=part.dtype)
        wide[np.ix_(there, there)] = part
        return wide

    kept = {name: whole(getattr(found, name), np.nan) for name in _KEPT}
    return MeanCorrelations(**kept, counted=whole(found.counted, 0), units=found.units)


def _matrix(found: MeanCorrelations | None, ending: str, factors: tuple[str, ...]) -> Float[np.ndarray, "g h"]:
    """One quantity; nan where the layer lacks the value."""
    if found is None:
        return np.full((len(factors), len(factors)), np.nan)
    return np.asarray(getattr(found, ending))


def _column(found: _LayerCorrelations, name: str, ending: str) -> Float[np.ndarray, "g"]:
    """One quantity of the correlations with variation: factors of all runs in their order."""
    column = np.full(len(found.layer.factors), np.nan)
    for run, one in zip(np.unique(found.layer.sets), found.variation.get(name, []), strict=False):
        column[np.array(found.layer.sets) == run] = getattr(one, ending)[:, 0]
    return column


def _places(layers: list[LayerValues]) -> dict[str, tuple[str, np.ndarray]]:
    """Layer and position of each place of all layers one after another; axes but the last are one."""
    number, y, x = [], [], []
    for place, layer in enumerate(layers):
        side = layer.space[-1] if layer.space else 1
        number.append(np.full(layer.places, place))
        y.append(np.arange(layer.places) // side)
        x.append(np.arange(layer.places) % side)
    return {
        name: ("place", np.concatenate(parts))
        for name, parts in (("place_layer", number), ("place_y", y), ("place_x", x))
    }


def _texts(names: tuple[str, ...] | list[str]) -> np.ndarray:
    return np.array([str(name) for name in names], dtype=object)
