"""Which units different classes share, and whether the same class would choose them again from other images."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool

from neuronscope.maths.overlap import (
    chance_corrected,
    class_order,
    class_overlap,
    common_share,
    jaccard,
    modularity_gap,
    overlap_coefficient,
    pair_mean,
    positional_share,
    reuse,
    split_half_kappa,
)
from neuronscope.maths.resampling import bh_qvalues
from neuronscope.studies.importance.setting import Setting

KINDS = ("dead", "specialised", "shared", "universal")
"""For no class, one, several, all of them."""

Members = Callable[[Bool[np.ndarray, "parts"]], Bool[np.ndarray, "u c"]]
"""Parts of the images -> the units they choose for every class of the network."""


def halvings(parts: int, *, most: int, rng: np.random.Generator) -> list[Bool[np.ndarray, "parts"]]:
    """Different ways to halve the parts, each named by its first half; all of them when they are few.

    Example:
        >>> [half.astype(int).tolist() for half in halvings(2, most=5, rng=np.random.default_rng(0))]
        [[1, 0]]
    """
    found = []
    for others in combinations(range(1, parts), parts // 2 - 1):  # the first part is always in the first half
        half = np.zeros(parts, dtype=bool)
        half[[0, *others]] = True
        found.append(half)
    chosen = np.sort(rng.permutation(len(found))[:most])
    return [found[number] for number in chosen]


def class_reuse(
    setting: Setting,
    members: Bool[np.ndarray, "u c"],
    chosen_from: Members | None,
    *,
    on_from: Members | None = None,
) -> xr.Dataset:
    """Overlap of the classes' sub-networks layer by layer, and how far each class agrees with itself.

    The older proportions stand beside it: `positional_spec` and `positional_reuse` (see `positional_share`),
    `share_spec` and `share_reuse` (see `common_share`); and for masking's ON units `on_share_spec`, `on_share_reuse`,
    `on_jaccard_spec`, `on_jaccard_reuse`: nan in layers without ON units. `spec` compares different classes, `reuse`
    the halves of one.

    Args:
        setting: the study's.
        members: the units chosen from all selection images.
        chosen_from: the same from some of them; None for rules that cannot be asked again cheaply.
        on_from: the units that masking calls ON from some of the images; None where it was not asked.
    """
    classes = list(setting.classes)
    rng = setting.run.generator("importance", "halves")
    halves = halvings(setting.parts, most=setting.spec.halves, rng=rng)
    pairs = [(chosen_from(half), chosen_from(~half)) for half in halves] if chosen_from is not None else []
    held = on_from(np.ones(setting.parts, dtype=bool)) if on_from is not None else None
    held_pairs = [(on_from(half), on_from(~half)) for half in halves] if on_from is not None else []
    rows: list[dict[str, Any]] = []
    for place in setting.places:
        own = members[place][:, classes]
        row = _between(own, level=setting.spec.level)
        if pairs:
            first = np.stack([one[place][:, classes] for one, _ in pairs])
            second = np.stack([other[place][:, classes] for _, other in pairs])
            row |= _within(first, second, level=setting.spec.level)
        row |= _original(own, [(one[place][:, classes], other[place][:, classes]) for one, other in pairs])
        if held is not None:
            of_halves = [(one[place][:, classes], other[place][:, classes]) for one, other in held_pairs]
            row |= _held(held[place][:, classes], of_halves)
        rows.append(row)
    return _dataset(setting, rows, halvings_=len(pairs))


def _between(own: np.ndarray, *, level: float) -> dict[str, Any]:
    found = class_overlap(own)
    off = ~np.eye(own.shape[1], dtype=bool)
    p = np.where(off, found.p, np.nan)
    kappa = pair_mean(found.kappa, level=level)
    counted = reuse(own)
    return {
        **{name: getattr(found, name).astype(np.float64) for name in ("overlap", "expected", "jaccard", "kappa")},
        "common": found.common,
        "overlap_p": p,
        "between": kappa.value,
        "between_low": kappa.low,
        "between_high": kappa.high,
        "mean_overlap": _mean_off(found.overlap),
        "mean_expected": _mean_off(found.expected),
        "mean_jaccard": _mean_off(found.jaccard),
        "mean_share": _mean_off(found.common / found.units),
        "order": class_order(found.kappa).order,
        "histogram": counted.histogram,
        "histogram_expected": counted.expected,
    }


def _within(first: np.ndarray, second: np.ndarray, *, level: float) -> dict[str, Any]:
    """Agreement of halves; both kinds of agreement from halves, so that they can be compared."""
    agreement = _nanmean(split_half_kappa(first, second), axis=0)
    apart = _nanmean(np.stack([chance_corrected(a, b) for a, b in zip(first, second, strict=True)]), axis=0)
    gap = modularity_gap(agreement, apart, level=level)
    overlap = [np.diag(overlap_coefficient(a, b)) for a, b in zip(first, second, strict=True)]
    return {
        "within": float(_nanmean(agreement, axis=0)),
        "within_class": agreement,
        "within_overlap": float(_nanmean(np.stack(overlap), axis=(0, 1))),
        "gap": gap.value,
        "gap_low": gap.low,
        "gap_high": gap.high,
    }


def _original(own: np.ndarray, pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """The original's proportions: lists compared place by place, and ON sets over the layer's width."""
    row = {
        "positional_spec": _mean_off(positional_share(own)),
        "share_spec": _mean_off(common_share(own)),
        "positional_reuse": np.nan,
        "share_reuse": np.nan,
    }
    if pairs:
        for name, measure in (("positional_reuse", positional_share), ("share_reuse", common_share)):
            row[name] = float(_nanmean(np.stack([np.diag(measure(a, b)) for a, b in pairs]), axis=(0, 1)))
    return row


def _held(own: np.ndarray, pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Shared ON units: over the layer's width as the original has it, and as it should be."""
    row = {"on_share_spec": np.nan, "on_share_reuse": np.nan, "on_jaccard_spec": np.nan, "on_jaccard_reuse": np.nan}
    if own.any():
        row |= {"on_share_spec": _mean_off(common_share(own)), "on_jaccard_spec": _mean_off(jaccard(own))}
        for name, measure in (("on_share_reuse", common_share), ("on_jaccard_reuse", jaccard)):
            row[name] = float(_nanmean(np.stack([np.diag(measure(a, b)) for a, b in pairs]), axis=(0, 1)))
    return row


def _dataset(setting: Setting, rows: list[dict[str, Any]], *, halvings_: int) -> xr.Dataset:
    names = np.array(setting.class_names, dtype=object)
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for name in rows[0]:
        values = np.stack([np.asarray(row[name]) for row in rows])
        if name in ("histogram", "histogram_expected"):
            axes: tuple[str, ...] = ("layer", "classes")
        else:
            axes = {1: ("layer",), 2: ("layer", "class"), 3: ("layer", "class", "other")}[values.ndim]
        if name.endswith("_p"):
            variables[f"{name[:-2]}_q"] = (axes, bh_qvalues(values))
        else:
            variables[name] = (axes, values)
    variables["halvings"] = ((), np.array(halvings_))
    return xr.Dataset(
        variables,
        coords={
            "layer_name": ("layer", np.array([layer.name for layer in setting.layers], dtype=object)),
            "class_name": ("class", names),
            "other_name": ("other", names),
        },
    )


def _mean_off(table: np.ndarray) -> float:
    """Mean over the pairs of different classes."""
    values = table[~np.eye(len(table), dtype=bool)]
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else np.nan


def _nanmean(values: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))
