"""The findings of the study as the groups of its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import xarray as xr
from jaxtyping import Float

from neuronscope.maths.replicates import Scatter, above_zero_p, ratio_parts, scattered, settled_pairs, t_interval
from neuronscope.maths.resampling import bh_qvalues
from neuronscope.result import unit_table
from neuronscope.studies.sensitivity.contrast import Accuracy, LayerContrast, map_qvalues, unit_qvalues
from neuronscope.studies.sensitivity.effects import LayerEffects, groups_of, players_of
from neuronscope.studies.sensitivity.indices import LayerIndices, added_up
from neuronscope.studies.sensitivity.pieces import real_units, segments_group
from neuronscope.studies.sensitivity.setting import Setting
from neuronscope.studies.sensitivity.severity import LayerDrift, SeverityAccuracy
from neuronscope.units import LayerInfo

Variable = tuple[tuple[str, ...], np.ndarray, str, str]
"""Axes, values, meaning, unit of measure."""


@dataclass(frozen=True, eq=False)
class Findings:
    """Everything that was found, layer by layer; empty lists for what was not asked for."""

    indices: list[LayerIndices]
    effects: list[LayerEffects]
    contrast: list[LayerContrast]
    drift: list[LayerDrift]
    accuracy: Accuracy | None
    severity: SeverityAccuracy | None


def result_groups(setting: Setting, found: Findings, layers: Sequence[LayerInfo]) -> dict[str, xr.Dataset]:
    """All groups with numbers.

    Args:
        setting: of the study.
        found: by layer, or by parts of layers one after another.
        layers: the whole layers.
    """
    groups: dict[str, xr.Dataset | None] = {
        "units": units_group(setting, found, layers),
        "layers": layers_group(setting, found, layers),
        "convergence": convergence_group(setting, found, layers),
        "factors": factors_group(setting),
        "pool": pool_group(setting),
        "accuracy": accuracy_group(setting, found.accuracy),
        "severity": severity_group(setting, found.severity),
        "segments": segments_group(setting.pieces, layers) if setting.pieces else None,
        **{f"maps/{layer.name}": maps_group(setting, found, layer) for layer in layers},
    }
    return {name: group for name, group in groups.items() if group is not None}


def units_group(setting: Setting, found: Findings, layers: Sequence[LayerInfo]) -> xr.Dataset:
    """One row for each unit: its fingerprint of sensitivities, with intervals; of segments by its own number."""
    variables: dict[str, Variable] = {}
    if found.indices:
        variables |= _index_variables(setting, found.indices)
    if found.effects:
        variables |= _effect_variables(found.effects)
    if found.contrast:
        variables |= _contrast_variables(setting, found.contrast)
    if found.drift:
        variables |= _drift_variables(found.drift)
    names = setting.problem.names
    table = unit_table(
        {layer.name: layer.units for layer in layers},
        variables,
        factor=names,
        pair=pair_names(names),
        augmentation=[one.name for one in setting.augmentations],
        strength=[f"{one:g}" for one in setting.spec.severities],
    )
    return table.assign_coords(index=("unit", real_units(setting.pieces, layers))) if setting.pieces else table


def pair_names(names: Sequence[str]) -> list[str]:
    """Names of pairs of factors, in the order of second-order indices.

    Example:
        >>> pair_names(("hue", "class", "image"))
        ['hue x class', 'hue x image', 'class x image']
    """
    return [f"{one} x {other}" for one, other in combinations(names, 2)]


def _index_variables(setting: Setting, layers: list[LayerIndices]) -> dict[str, Variable]:
    """Sobol indices of units, their intervals, and which factor dominates."""
    level = setting.spec.level

    def each(make: Callable[[LayerIndices], np.ndarray]) -> np.ndarray:
        return np.concatenate([np.moveaxis(make(one), -1, 0) for one in layers])

    def interval(name: str) -> tuple[np.ndarray, np.ndarray]:
        limits = [
            t_interval(getattr(one.units.pooled, name), _scatter(getattr(one.units, name)), level=level)
            for one in layers
        ]
        low = np.concatenate([np.moveaxis(one.low, -1, 0) for one in limits])
        return low, np.concatenate([np.moveaxis(one.high, -1, 0) for one in limits])

    first, total = each(lambda one: one.units.pooled.first), each(lambda one: one.units.pooled.total)
    first_low, first_high = interval("first")
    total_low, total_high = interval("total")
    q = bh_qvalues(each(lambda one: above_zero_p(one.units.first)))
    dominant, margin, known = _dominant(setting, layers, total)
    factor = ("unit", "factor")
    found: dict[str, Variable] = {
        "first": (factor, first, "share of the variance due to the factor alone (first-order Sobol index)", ""),
        "first_low": (factor, first_low, "lower end of its interval", ""),
        "first_high": (factor, first_high, "upper end of its interval", ""),
        "first_q": (factor, q, "q-value that it is above 0 (Benjamini-Hochberg, over units and factors)", ""),
        "total": (factor, total, "share of the variance with all the factor takes part in (total Sobol index)", ""),
        "total_low": (factor, total_low, "lower end of its interval", ""),
        "total_high": (factor, total_high, "upper end of its interval", ""),
        "dominant": (("unit",), dominant, "factor with the largest total index, by number; -1 for a dead unit", ""),
        "dominant_margin": (("unit",), margin, "by how much it is above the second largest", ""),
        "dominant_known": (("unit",), known, "1 where it is surely the largest", ""),
        "mean": (("unit",), _mean_of(layers, "mean"), "mean activation over all rows and positions", ""),
        "variance": (("unit",), _mean_of(layers, "variance"), "variance over rows, mean over positions", ""),
    }
    if len(layers[0].units.pooled.second):
        second = each(lambda one: one.units.pooled.second)
        low, high = interval("second")
        pair = ("unit", "pair")
        found |= {
            "second": (pair, second, "share due to two factors together and neither alone (second-order index)", ""),
            "second_low": (pair, low, "lower end of its interval", ""),
            "second_high": (pair, high, "upper end of its interval", ""),
        }
    return found


def _scatter(replicates: Float[np.ndarray, "r ..."]) -> Scatter:
    found: Scatter | None = None
    for values in replicates:
        found = scattered(found, values)
    if found is None:
        return Scatter(0, np.zeros(replicates.shape[1:]), np.zeros(replicates.shape[1:]))
    return found


def _dominant(
    setting: Setting, layers: list[LayerIndices], total: Float[np.ndarray, "u g"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Factor with the largest total index of each unit, its margin, and whether all others are surely below.

    As many comparisons as there are other factors (multiple comparisons with the best: Hsu 1984).
    """
    alive = np.isfinite(total).all(axis=1)
    filled = np.where(alive[:, None], total, -1.0)
    dominant = np.where(alive, filled.argmax(axis=1), -1)
    ordered = np.sort(filled, axis=1)
    margin = np.where(alive, ordered[:, -1] - ordered[:, -2], np.nan)
    pairs = list(combinations(range(total.shape[1]), 2))
    surely = np.concatenate(
        [
            settled_pairs(
                np.moveaxis(one.units.total, -1, 1), tolerance=0.0, level=setting.spec.level, looks=total.shape[1] - 1
            )
            for one in layers
        ]
    )
    of_factor = np.array([[number in pair for pair in pairs] for number in range(total.shape[1])])
    all_known = (surely | ~of_factor[dominant]).all(axis=1)
    return dominant.astype(np.int64), margin, (all_known & alive).astype(np.int64)


def _mean_of(layers: list[LayerIndices], name: str) -> np.ndarray:
    return np.concatenate([getattr(one.moments, name).reshape(one.layer.units, -1).mean(axis=1) for one in layers])


def _effect_variables(layers: list[LayerEffects]) -> dict[str, Variable]:
    factor = ("unit", "factor")

    def each(name: str) -> np.ndarray:
        return np.concatenate([getattr(one.units.shares, name).T for one in layers])

    return {
        "shapley": (
            factor,
            each("value"),
            "share of the variance, interactions divided equally (Shapley effect)",
            "",
        ),
        "shapley_low": (factor, each("low"), "lower end of its interval", ""),
        "shapley_high": (factor, each("high"), "upper end of its interval", ""),
    }


def _contrast_variables(setting: Setting, layers: list[LayerContrast]) -> dict[str, Variable]:
    axes = ("unit", "augmentation")
    count = len(setting.augmentations)

    def each(name: str) -> np.ndarray:
        return np.concatenate([np.stack([getattr(own, name) for own in one.units], axis=1) for one in layers])

    meaning = {
        "contrast": "matched-pairs rank-biserial correlation, -1 to 1: plain image against augmented",
        "contrast_low": "lower end of its interval, images being what was sampled",
        "contrast_high": "upper end of its interval",
        "contrast_q": "q-value of Wilcoxon's test by image (Benjamini-Yekutieli, over units)",
        "contrast_difference": "mean difference of the mean activation",
        "contrast_zeros": "share of the differences that are exactly 0",
    }
    values = {
        "contrast": each("rank_biserial"),
        "contrast_low": each("low"),
        "contrast_high": each("high"),
        "contrast_q": unit_qvalues(layers, count).T,
        "contrast_difference": each("difference"),
        "contrast_zeros": each("zero_share"),
    }
    return {name: (axes, values[name], text, "") for name, text in meaning.items()}


def _drift_variables(layers: list[LayerDrift]) -> dict[str, Variable]:
    axes = ("unit", "augmentation", "strength")

    def each(name: str) -> np.ndarray:
        return np.concatenate([np.moveaxis(getattr(one, name), -1, 0) for one in layers])

    return {
        "drift": (
            axes,
            each("drift"),
            "mean distance from the plain activation, in its standard deviations",
            "",
        ),
        "drift_low": (axes, each("low"), "lower end of its interval", ""),
        "drift_high": (axes, each("high"), "upper end of its interval", ""),
    }


def layers_group(setting: Setting, found: Findings, layers: Sequence[LayerInfo]) -> xr.Dataset:
    """One row for each layer: its generalised indices, all its units added up, with intervals."""
    axes = ("layer", "factor")
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        "units": (("layer",), np.array([layer.units for layer in layers]))
    }
    if found.indices:
        wholes = [added_up([one.parts for one in found.indices if one.layer.name == layer.name]) for layer in layers]
        for name in ("first", "total"):
            values = [getattr(one, name)[..., 0] for one in wholes]
            _put_interval(variables, name, values, level=setting.spec.level)
            maps = [
                _map_mean([getattr(one.maps, name) for one in found.indices if one.layer.name == layer.name])
                for layer in layers
            ]
            variables[f"{name}_activations"] = (axes, np.stack(maps))
        live = [_live(found.indices, layer) for layer in layers]
        variables["live"] = (("layer",), np.array(live))
        variables["replicates"] = (("layer",), np.array([len(one.total) for one in wholes]))
        variables["settled"] = (("layer",), np.array([int(_is_settled(setting, one.total[..., 0])) for one in wholes]))
    if found.effects:
        effects = [
            np.sum([one.parts for one in found.effects if one.layer.name == layer.name], axis=0) for layer in layers
        ]
        shares = [ratio_parts(one, one.sum(axis=1, keepdims=True)) for one in effects]
        _put_interval(variables, "shapley", shares, level=setting.spec.level)
        maps = [_map_mean([one.shares for one in found.effects if one.layer.name == layer.name]) for layer in layers]
        variables["shapley_activations"] = (axes, np.stack(maps))
    return xr.Dataset(
        dict(variables),
        coords={
            "layer_name": ("layer", _texts([layer.name for layer in layers])),
            "shape": ("layer", _texts(["x".join(map(str, layer.shape)) for layer in layers])),
            "factor_name": ("factor", _texts(setting.problem.names)),
        },
    )


def _put_interval(
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]],
    name: str,
    means: Sequence[Float[np.ndarray, "r g"]],
    *,
    level: float,
) -> None:
    """A mean over replicates, for each layer, with its interval."""
    scatters = [_scatter(one) for one in means]
    intervals = [t_interval(one.mean, one, level=level) for one in scatters]
    for end, values in (
        ("", [one.mean for one in scatters]),
        ("_low", [one.low for one in intervals]),
        ("_high", [one.high for one in intervals]),
    ):
        variables[f"{name}{end}"] = (("layer", "factor"), np.stack(values))


def _live(indices: Sequence[LayerIndices], layer: LayerInfo) -> int:
    """Units of a layer that change."""
    return sum(
        int(np.isfinite(one.units.pooled.total).all(axis=0).sum()) for one in indices if one.layer.name == layer.name
    )


def _is_settled(setting: Setting, totals: Float[np.ndarray, "r g"]) -> bool:
    """Whether the order of the factors is known in a layer, looked at once."""
    return bool(settled_pairs(totals, tolerance=setting.spec.tolerance, level=setting.spec.level).all())


def _map_mean(parts: list[np.ndarray]) -> np.ndarray:
    """Mean of an index (g, m), cut to 0..1, over all activations that have one: the original's average."""
    return _nanmean(np.clip(np.concatenate(parts, axis=1), 0.0, 1.0))


def _nanmean(values: Float[np.ndarray, "g m"]) -> Float[np.ndarray, "g"]:
    there = np.isfinite(values)
    count = there.sum(axis=1)
    total = np.where(there, values, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def convergence_group(setting: Setting, found: Findings, layers: Sequence[LayerInfo]) -> xr.Dataset | None:
    """Total index of each layer, factor and replicate: what the stop looked at."""
    if not found.indices:
        return None
    rows = []
    for layer in layers:
        own = added_up([one.parts for one in found.indices if one.layer.name == layer.name]).total[..., 0]
        rows.append(np.pad(own, ((0, setting.replicates - len(own)), (0, 0)), constant_values=np.nan))
    return xr.Dataset(
        {"total": (("layer", "replicate", "factor"), np.stack(rows))},
        coords={
            "layer_name": ("layer", _texts([layer.name for layer in layers])),
            "factor_name": ("factor", _texts(setting.problem.names)),
        },
    )


def factors_group(setting: Setting) -> xr.Dataset:
    """What varied, and how many rows each design has."""
    problem = setting.problem
    own = {one.name: [parameter.name for parameter in one.parameters] for one in problem.augmentations}
    return xr.Dataset(
        {
            "columns": ("factor", np.array([len(one.columns) for one in problem.factors])),
            "kind": ("factor", _texts([one.kind for one in problem.factors])),
            "range": ("factor", _texts([one.describe for one in problem.factors])),
            "parameters": ("factor", _texts([",".join(own.get(one.name, [])) for one in problem.factors])),
            "players": ("factor", np.array([len(players) for players in groups_of(setting)])),
        },
        coords={"factor_name": ("factor", _texts(problem.names))},
        attrs={
            "classes": len(problem.pool.classes),
            "partitions": problem.pool.partitions,
            "images": len(problem.pool.rows),
            "players": len(players_of(setting)),
        },
    )


def pool_group(setting: Setting) -> xr.Dataset:
    """The images there were, class after class and in a class partition after partition: rows of the data."""
    pool = setting.problem.pool
    return xr.Dataset(
        {
            "row": ("image", pool.rows.astype(np.int32)),
            "label": ("image", setting.data.labels[pool.rows].astype(np.int32)),
            "images": (("class", "partition"), pool.count.astype(np.int32)),
        },
        coords={"class_number": ("class", np.array(pool.classes, dtype=np.int32))},
    )


def accuracy_group(setting: Setting, found: Accuracy | None) -> xr.Dataset | None:
    """Accuracy on plain images and under each augmentation."""
    if found is None:
        return None
    axes = ("top", "input")
    return xr.Dataset(
        {
            "accuracy": (axes, found.value),
            "accuracy_low": (axes, found.low),
            "accuracy_high": (axes, found.high),
            "change": (axes, found.change),
            "change_low": (axes, found.change_low),
            "change_high": (axes, found.change_high),
        },
        coords={
            "k": ("top", np.array(found.top)),
            "input_name": ("input", _texts(["original", *(one.name for one in setting.augmentations)])),
        },
        attrs={"images": found.images},
    )


def severity_group(setting: Setting, found: SeverityAccuracy | None) -> xr.Dataset | None:
    """Accuracy at each strength of each augmentation, from 0."""
    if found is None:
        return None
    axes = ("augmentation", "strength")
    return xr.Dataset(
        {"accuracy": (axes, found.value), "accuracy_low": (axes, found.low), "accuracy_high": (axes, found.high)},
        coords={
            "augmentation_name": ("augmentation", _texts([one.name for one in setting.augmentations])),
            "strength_value": ("strength", np.array([0.0, *setting.spec.severities])),
        },
    )


def maps_group(setting: Setting, found: Findings, layer: LayerInfo) -> xr.Dataset | None:
    """Everything known of each activation of a layer, in 32 bits; axes are unit, place in the map, factor."""
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    sides = len(layer.map_shape)
    place = ("y", "x") if sides == len("yx") else tuple(f"axis_{number}" for number in range(sides))

    def put(name: str, axis: str, parts: Sequence[np.ndarray]) -> None:
        """Parts (g, m) side by side as (unit, place, axis); (m) as (unit, place)."""
        if not parts:
            return
        whole = np.concatenate(parts, axis=-1)
        shaped = whole.reshape(*whole.shape[:-1], layer.units, *layer.map_shape).astype(np.float32)
        axes = ("unit", *place)
        if axis:
            shaped, axes = np.moveaxis(shaped, 0, -1), (*axes, axis)
        variables[name] = (axes, shaped)

    indices = [one for one in found.indices if one.layer.name == layer.name]
    put("first", "factor", [one.maps.first for one in indices])
    put("first_error", "factor", [one.first_error for one in indices])
    put("total", "factor", [one.maps.total for one in indices])
    put("total_error", "factor", [one.total_error for one in indices])
    if setting.spec.second_order == "maps":
        put("second", "pair", [one.maps.second for one in indices])
    put("mean", "", [one.moments.mean for one in indices])
    put("variance", "", [one.moments.variance for one in indices])
    effects = [one for one in found.effects if one.layer.name == layer.name]
    put("shapley", "factor", [one.shares for one in effects])
    put("shapley_error", "factor", [one.error for one in effects])
    put("shapley_raw", "player", [one.effects for one in effects])
    put("shapley_mean", "", [one.mean for one in effects])
    put("shapley_variance", "", [one.variance for one in effects])
    contrast = [one for one in found.contrast if one.layer.name == layer.name]
    for name in ("rank_biserial", "bound", "point_biserial", "statistic", "p"):
        parts = [np.stack([getattr(own, name) for own in one.maps]) for one in contrast]
        put("contrast" if name == "rank_biserial" else f"contrast_{name}", "augmentation", parts)
    if contrast:
        q = map_qvalues(found.contrast, len(setting.augmentations))
        own = [np.stack(values) for one, values in zip(found.contrast, q, strict=True) if one.layer.name == layer.name]
        put("contrast_q", "augmentation", own)
    if not variables:
        return None
    names = setting.problem.names
    return xr.Dataset(
        {name: (axes, values) for name, (axes, values) in variables.items()},
        coords={
            "factor_name": ("factor", _texts(names)),
            "pair_name": ("pair", _texts(pair_names(names))),
            "augmentation_name": ("augmentation", _texts([one.name for one in setting.augmentations])),
        },
    )


def _texts(names: Sequence[str]) -> np.ndarray:
    return np.array([str(name) for name in names], dtype=object)
