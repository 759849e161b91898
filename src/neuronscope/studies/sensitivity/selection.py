"""Units worth a closer look, chosen from finished results by stated criteria, with the reason for each.

The published lists of units were picked by eye from figures. Here a unit is chosen for a factor when its share of the
variance is among the largest of its layer, and surely above a limit: both its interval and the q-value over all units
and factors that were looked at say so.

The largest of many estimates are too large by chance. Whoever goes on with the chosen units should estimate again, with
other images or another seed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, Int
from scipy import special

from neuronscope.augment import SETS
from neuronscope.errors import InputError, UnknownName, nearest
from neuronscope.maths.replicates import t_quantile
from neuronscope.maths.resampling import by_qvalues
from neuronscope.models.segments import Segment
from neuronscope.result import Result
from neuronscope.studies.sensitivity.original.values import Original
from neuronscope.studies.sensitivity.page.view import WILD

ORIGINAL_NAMES: dict[str, str] = {"first": "si", "total": "siT", "second": "si2", "shapley": "shpv"}
"""Share of the variance -> what the original calls it."""

TOP = 4
ABOVE = 0.02
"""A share of the variance that makes no difference, as in the study's `tolerance`."""

_PAIR = "--"
"""Between the two variables of a reason of second order."""


@dataclass(frozen=True, eq=False)
class Selection:
    """Chosen units and why.

    Attributes:
        segments: one for each layer with chosen units, in the order of the network; reasons are of the original's form
            (variable, value, set).
        reasons: a row for each: `layer`, `unit`, `variable`, `value`, `set`, `share` with `low`, `high` and `q`.
        counts: a row for each layer, value and set: `tests` (units and factors that have a share), `above` (lower end
            of the interval above the limit), `by_chance` (as many of these as noise alone gives at most), `told` (with
            a q-value too), `reasons` and `units` that were chosen of them.
        left_out: layers of the results that no segment ends with.
    """

    segments: tuple[Segment, ...]
    reasons: pd.DataFrame
    counts: pd.DataFrame
    left_out: tuple[str, ...]


def select_units(
    results: Sequence[Result],
    *,
    segments: Sequence[Segment] | None = None,
    values: Sequence[str] = (),
    factors: Sequence[str] = (),
    layers: Sequence[str] = (),
    top: int = TOP,
    above: float = ABOVE,
) -> Selection:
    """Choose, for every layer, value and factor, the units with the largest share that is surely above a limit.

    Surely: the lower end of the interval is above it, and so says the q-value of Student's t-test against the limit
    (Benjamini-Yekutieli over all layers, units and factors of a value, which holds for any dependence between them).
    The level is the results' own: with intervals of 95 %, of all that pass at most 5 % are expected to be noise.

    Args:
        results: of the study, of one network; their reasons are joined.
        segments: pieces of the network that may be chosen, by their last module; their units are replaced. Without
            them each layer is a piece of its own: right for blocks and convolutions, not for an activation or pooling
            layer, which has nothing of its own to look for; layers without maps are left out.
        values: first, total, second (pairs of factors) or shapley; default: all that were estimated.
        factors: only these, under the results' names; default: all.
        layers: only these; default: all that a segment ends with.
        top: most units chosen for one factor.
        above: limit, share of the variance.

    Raises:
        InputError: a result of another study or network, of segments, or without intervals; numbers that cannot be;
            nothing to choose.
        UnknownName: a value, factor or layer that no result has, or a layer that no segment ends with.
    """
    wanted = _check(results, values=values, top=top, above=above)
    _check_names(results, wanted, factors)
    chosen_layers, left_out = _layers(results, segments, layers)
    found = [
        _tested(result, value, factors=factors, layers=chosen_layers, above=above)
        for result in results
        for value in wanted
        if _has(result, value)
    ]
    tests = pd.concat(found, ignore_index=True)
    counts, reasons = _chosen(tests, top=top, order=chosen_layers)
    if reasons.empty:
        message = (
            f"no unit of {', '.join(chosen_layers)} has a share of the variance that is surely above {above:g}: "
            f"expected at least one of {len(tests):,} shares, of which {int(tests['above'].sum()):,} have an interval "
            "above it and none a small enough q-value. Lower --above, add --values, or run the study with more points"
        )
        raise InputError(message)
    return Selection(_segments(reasons, chosen_layers, segments), reasons, counts, left_out)


def _check(results: Sequence[Result], *, values: Sequence[str], top: int, above: float) -> tuple[str, ...]:
    """The values to choose by; what cannot be chosen from is refused.

    Raises:
        InputError, UnknownName: with what to change.
    """
    if not results:
        message = "there is nothing to choose from: expected at least one result, got none. Give one"
        raise InputError(message)
    for value in values:
        if value not in ORIGINAL_NAMES:
            all_names = ", ".join(ORIGINAL_NAMES)
            message = f"'{value}' is no value to choose by.{nearest(value, ORIGINAL_NAMES)} All: {all_names}"
            raise UnknownName(message)
    if top < 1 or not 0 <= above < 1:
        message = (
            f"{top} units with a share above {above:g} cannot be chosen: expected at least 1 unit, and a share from 0 "
            "to below 1. Change --top or --above"
        )
        raise InputError(message)
    for one in results:
        _check_result(one, results[0])
    return tuple(dict.fromkeys(values)) or tuple(
        name for name in ORIGINAL_NAMES if any(_has(one, name) for one in results)
    )


def _check_result(result: Result, first: Result) -> None:
    """Refuse a result that units cannot be chosen from, or that is not of the first one's network.

    Raises:
        InputError: with what to give instead.
    """
    origin, groups = result.provenance, result.tree.children
    wrong = {
        f"of the study {origin.study}": origin.study != "sensitivity",
        "of a run that only shows augmentations": "units" not in groups or "layers" not in groups,
        "of segments of the network": "segments" in groups,
        "that was joined of several": "units" in groups and "factor_set" in groups["units"].coords,
    }
    what = next((text for text, is_so in wrong.items() if is_so), None)
    if what is not None:
        message = (
            f"units are chosen from single results of the study sensitivity, of the whole network; got one {what} "
            f"({origin.subject}). Make one with: neuronscope run sensitivity"
        )
        raise InputError(message)
    if origin.subject_fingerprint != first.provenance.subject_fingerprint:
        message = (
            f"the results are of two networks: {first.provenance.subject} and {origin.subject}, or other weights of "
            "it. Expected results of one: choose from each by itself"
        )
        raise InputError(message)


def _check_names(results: Sequence[Result], values: Sequence[str], factors: Sequence[str]) -> None:
    """Refuse values and factors that no result has.

    Raises:
        InputError: a value that was not estimated.
        UnknownName: no such factor.
    """
    for value in values:
        if not any(_has(one, value) for one in results):
            there = [name for name in ORIGINAL_NAMES if any(_has(one, name) for one in results)]
            message = (
                f"the value '{value}' is in no result: expected some of those that were estimated, "
                f"{', '.join(there) or 'and there are none'}. Change --values, or run the study with its estimator"
            )
            raise InputError(message)
    known = list(dict.fromkeys(name for one in results for name in _texts(one.table["factor_name"])))
    for name in factors:
        if name not in known:
            message = f"factor '{name}' is in no result.{nearest(name, known)} All: {', '.join(known)}"
            raise UnknownName(message)


def _has(result: Result, value: str) -> bool:
    return value in result.table.data_vars


def _layers(
    results: Sequence[Result], segments: Sequence[Segment] | None, wanted: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Layers to choose units of, and the others.

    Raises:
        UnknownName: a layer that is not there or ends no segment, or none of all.
    """
    tables = [one.tree["layers"].to_dataset() for one in results]
    shapes = {
        name: shape
        for table in tables
        for name, shape in zip(_texts(table["layer_name"]), _texts(table["shape"]), strict=True)
    }
    for name in wanted:
        if name not in shapes:
            message = f"layer '{name}' is in no result.{nearest(name, shapes)} All: {', '.join(shapes)}"
            raise UnknownName(message)
    if segments is None:
        # What has no places can be no piece that looks at an image: it needs what is before it.
        ends = [name for name, shape in shapes.items() if any(size != "1" for size in shape.split("x")[1:])]
    else:
        ends = [one.modules[-1] for one in segments]
    for name in wanted:
        if name not in ends:
            message = f"layer '{name}' ends no segment.{nearest(name, ends)} Segments end with: {', '.join(ends)}"
            raise UnknownName(message)
    there = [name for name in shapes if name in ends]
    if not there:
        message = (
            f"no layer of the results ends a segment: expected some of {', '.join(ends) or 'those with maps'}, got "
            f"{', '.join(shapes)}. Give other --segments, or run the study with --layers at their ends"
        )
        raise UnknownName(message)
    return tuple(wanted or there), tuple(name for name in shapes if name not in ends)


def _tested(result: Result, value: str, *, factors: Sequence[str], layers: Sequence[str], above: float) -> pd.DataFrame:
    """A row for each unit and factor, or pair, that has a share: with its interval and the p-value of the limit.

    Raises:
        InputError: a result without intervals.
    """
    table = result.table
    share, low, high = (table[f"{value}{end}"].to_numpy() for end in ("", "_low", "_high"))
    variables, sets, wanted = _variables(result, value, factors)
    layer, unit = np.array(_texts(table["layer"]), dtype=object), table["index"].to_numpy()
    # Where a share of a unit is none, its variance is as good as 0, and its other shares are worth no more.
    kept = (np.isin(layer, list(layers)) & (np.isfinite(share) & (np.abs(share) <= WILD)).all(axis=1)).nonzero()[0]
    rows, columns = np.meshgrid(kept, wanted, indexing="ij")
    rows, columns = rows.ravel(), columns.ravel()
    if rows.size and not np.isfinite(low[rows, columns]).any():
        message = (
            f"the result of {result.provenance.subject} has no intervals of '{value}': expected several replicates, "
            "got one. Nothing can be told from noise: run the study with more --replicates, without unscrambled"
        )
        raise InputError(message)
    spec = result.provenance.spec
    level = float(spec.get("level", 0.95))
    replicates = _replicates(result, value, layer[rows])
    p = above_p(
        share[rows, columns], low[rows, columns], high[rows, columns], above=above, replicates=replicates, level=level
    )
    return pd.DataFrame(
        {
            "layer": layer[rows],
            "unit": unit[rows],
            "variable": np.array(variables, dtype=object)[columns],
            "value": value,
            "set": np.array(sets, dtype=object)[columns],
            "share": share[rows, columns],
            "low": low[rows, columns],
            "high": high[rows, columns],
            "q": by_qvalues(p),
            "above": low[rows, columns] > above,
            "level": level,
        }
    )


def above_p(
    share: Float[np.ndarray, "n"],
    low: Float[np.ndarray, "n"],
    high: Float[np.ndarray, "n"],
    *,
    above: float,
    replicates: Int[np.ndarray, "n"],
    level: float,
) -> Float[np.ndarray, "n"]:
    """One-sided p-value of a share that is not above a limit, by Student's t over the replicates behind its interval.

    Args:
        share: estimates.
        low: lower ends of their intervals.
        high: upper ends.
        above: limit.
        replicates: behind each.
        level: coverage of the intervals.

    Returns:
        nan where there is no interval.

    Example:
        >>> three = np.full(2, 3)
        >>> above_p(np.array([0.2, 0.1]), np.array([0.1, 0.05]), np.array([0.3, 0.15]), above=0.1, replicates=three,
        ...         level=0.95).round(3).tolist()
        [0.025, 0.5]
    """
    quantile = {int(one): t_quantile(int(one), level) for one in np.unique(replicates)}
    error = (high - low) / 2 / np.array([quantile[int(one)] for one in replicates])
    apart = share - above
    t = np.divide(apart, error, out=np.where(apart > 0, np.inf, -np.inf), where=error != 0)
    return np.asarray(np.where(np.isfinite(error), special.stdtr(np.maximum(replicates - 1, 1), -t), np.nan))


def _replicates(result: Result, value: str, layer: np.ndarray) -> Int[np.ndarray, "n"]:
    """Replicates behind the interval of each row."""
    if value == "shapley":
        return np.full(len(layer), int(result.provenance.spec.get("replicates", 1)))
    table = result.tree["layers"].to_dataset()
    of_layer = dict(zip(_texts(table["layer_name"]), table["replicates"].to_numpy().tolist(), strict=True))
    return np.array([of_layer[name] for name in layer], dtype=np.int64)


def _variables(result: Result, value: str, factors: Sequence[str]) -> tuple[list[str], list[str], list[int]]:
    """What the columns of a value are about, in the original's words; the set of each; and which are asked for."""
    original = Original(result)
    names = _texts(result.table["factor_name"])
    renamed = ["permutation" if name == "order" else name for name in names]
    columns: list[tuple[str, ...]]
    if value != "second":
        columns = [(name,) for name in names]
        said = renamed
    else:
        columns = list(combinations(names, 2))
        said = [_PAIR.join(pair) for pair in combinations(renamed, 2)]
    wanted = [place for place, own in enumerate(columns) if not factors or set(own) <= set(factors)]
    return said, [_set_of(own, original.sets) for own in columns], wanted


def _set_of(names: tuple[str, ...], sets: str) -> str:
    """The set that the reason is of: the result's; of both sets together that of the augmentations."""
    if sets != "3":
        return sets
    for number in ("1", "2"):
        mine = set(SETS[f"set{number}"])
        others = set(SETS["set2" if number == "1" else "set1"])
        if mine & set(names) and not others & set(names):
            return number
    return sets


def _chosen(tests: pd.DataFrame, *, top: int, order: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Counts of each layer, value and set, and the chosen rows."""
    tests = tests.assign(told=tests["above"] & (tests["q"] < 1 - tests["level"]))
    ranked = tests[tests["told"]].sort_values(["share", "unit"], ascending=[False, True], kind="stable")
    reasons = ranked.groupby(["layer", "value", "set", "variable"], sort=False).head(top)
    rows = []
    for (layer, value, number), own in tests.groupby(["layer", "value", "set"], sort=False):
        mine = reasons[(reasons["layer"] == layer) & (reasons["value"] == value) & (reasons["set"] == number)]
        rows.append(
            {
                "layer": layer,
                "value": value,
                "set": number,
                "tests": len(own),
                "above": int(own["above"].sum()),
                "by_chance": float(((1 - own["level"]) / 2).sum()),
                "told": int(own["told"].sum()),
                "reasons": len(mine),
                "units": int(mine["unit"].nunique()),
            }
        )
    counts = pd.DataFrame(rows)
    place = {name: number for number, name in enumerate(order)}
    counts = counts.sort_values("layer", key=lambda names: names.map(place), kind="stable", ignore_index=True)
    kept = reasons.sort_index().drop(columns=["above", "told", "level"])
    kept = kept.sort_values(["unit"], kind="stable").sort_values(
        "layer", key=lambda names: names.map(place), kind="stable", ignore_index=True
    )
    return counts, kept


def _segments(reasons: pd.DataFrame, layers: Sequence[str], segments: Sequence[Segment] | None) -> tuple[Segment, ...]:
    """A segment for each layer with reasons."""
    known = {one.modules[-1]: one for one in segments or ()}
    found = []
    for layer in layers:
        own = reasons[reasons["layer"] == layer]
        if own.empty:
            continue
        numbers = own["unit"].to_numpy().astype(int).tolist()
        words = [(str(row.variable), ORIGINAL_NAMES[str(row.value)], str(row.set)) for row in own.itertuples()]
        units, why = tuple(sorted(set(numbers))), tuple(dict.fromkeys(zip(numbers, words, strict=True)))
        piece = known.get(layer) or Segment(re.sub(r"[^\w-]+", "-", layer), (layer,), kind="residual")
        found.append(replace(piece, units=units, reasons=why))
    return tuple(found)


def _texts(values: xr.DataArray) -> list[str]:
    return [str(value) for value in values.to_numpy()]
