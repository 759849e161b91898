"""Runs of different augmentations on the same network and images, as one result: the two sets of the original.

Shares of the variance are of each run's own design. Factors that several runs have in common, such as the class, stand
once for each, numbered: `class-1` is that of the first run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from neuronscope.errors import InputError
from neuronscope.result import Provenance, Result
from neuronscope.studies.sensitivity.page import sensitivity_page

SETS = "set"
"""Axis of what each of the runs has once."""
_SEVERAL = 2
_FREE = ("augmentations", "ranges", "analyses", "correlation", "folds", "repeats", "label_permutations", "compare_with",
         "shown_units")  # fmt: skip
"""Options that runs may differ in: those of analyses, which are made anew, are among them."""
_FACTORS = ("factor", "augmentation", "pair", "strength")
"""Axes that a variable of units or layers may have to be of use beside those of other runs."""
_PER_RUN = ("mean", "variance", "shapley_mean", "shapley_variance")
"""Variables of maps that each run has of its own rows."""


def join_sets(results: Sequence[Result]) -> Result:
    """One result with the factors of all runs, for strips of units, correlations, and masks of all of them.

    Args:
        results: finished runs of the same network, layers, images, seed and options, but for augmentations.

    Returns:
        Groups `factors`, `units`, `layers`, `maps/LAYER` and, where all have them, `outputs`, `segments`, `accuracy`,
        `severity`. Along each axis of factors the runs stand one after another; `factor_set` says of which run one is,
        from 1. Means and variances have the axis `set`. What is of a single design (convergence, which factor
        dominates, analyses) is left out.

    Raises:
        InputError: fewer than two runs, runs that do not belong together, the same augmentation twice, or results that
            only show augmentations.
    """
    if len(results) < _SEVERAL:
        message = "one run has nothing to be joined with: give two or more, each with augmentations of its own"
        raise InputError(message)
    for number, one in enumerate(results, start=1):
        _check(results[0], one, f"run {number} of {len(results)}")
    renamed = _renamed([_names(one.tree["factors"].to_dataset(), "factor") for one in results])
    groups: dict[str, xr.Dataset] = {
        "factors": _factors([one.tree["factors"].to_dataset() for one in results], renamed),
        "units": _table([one.tree["units"].to_dataset() for one in results], renamed),
        "layers": _table([one.tree["layers"].to_dataset() for one in results], renamed),
    }
    for name in ("outputs", "segments"):
        if all(name in one.tree.children for one in results):
            groups[name] = results[0].tree[name].to_dataset()
    for name, axis in (("accuracy", "input"), ("severity", "augmentation")):
        if all(name in one.tree.children for one in results):
            groups[name] = _answers([one.tree[name].to_dataset() for one in results], axis)
    for layer in results[0].tree["maps"].children:
        groups[f"maps/{layer}"] = _maps([one.tree[f"maps/{layer}"].to_dataset() for one in results], renamed)
    tree = xr.DataTree.from_dict({"/": xr.Dataset(), **{f"/{name}": group for name, group in groups.items()}})
    return Result(tree, _provenance(results), view=sensitivity_page)


def _check(first: Result, other: Result, name: str) -> None:
    """Refuse runs whose factors cannot stand side by side.

    Raises:
        InputError: which run, and in what it differs.
    """
    missing = [group for group in ("factors", "units", "layers", "maps") if group not in other.tree.children]
    if missing:
        message = (
            f"{name} has no {', '.join(missing)}: expected a finished run with maps of factors. Leave it out, or make "
            "it without --show-augmentations"
        )
        raise InputError(message)
    if SETS in other.tree["factors"].sizes or "factor_set" in other.tree["factors"].coords:
        message = f"{name} is joined of several runs already: give the single runs"
        raise InputError(message)
    own, theirs = first.provenance, other.provenance
    pairs: dict[str, tuple[Any, Any]] = {
        option: (own.spec[option], theirs.spec[option])
        for option in own.spec
        if option in theirs.spec and option not in _FREE
    }
    pairs |= {field: (getattr(own, field), getattr(theirs, field)) for field in ("subject", "data")}
    pairs["seed"] = (own.circumstances.get("seed"), theirs.circumstances.get("seed"))
    differing = [f"{option} ({a} and {b})" for option, (a, b) in pairs.items() if a != b]
    differing += ["the weights"] if own.subject_fingerprint != theirs.subject_fingerprint else []
    differing += ["the images"] if own.data_fingerprint != theirs.data_fingerprint else []
    if not differing:
        there = [
            {layer: node.sizes["unit"] for layer, node in one.tree["maps"].children.items()} for one in (first, other)
        ]
        differing = [] if there[0] == there[1] else ["layers"]
        differing += [] if _units_of(first).identical(_units_of(other)) else ["units"]
    if differing:
        message = (
            f"{name} does not belong to the first: {', '.join(differing)} differ. Expected runs that differ in "
            "--augmentations and --ranges only"
        )
        raise InputError(message)


def _units_of(result: Result) -> xr.Dataset:
    """Layer and number of every unit, and of segments what they are."""
    table = result.tree["segments" if "segments" in result.tree.children else "units"].to_dataset()
    return table[["layer", "index", *(name for name in ("channel", "modules") if name in table)]].reset_coords()


def _renamed(names: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    """Of each run, the new name of each factor: numbered where several runs have it.

    Raises:
        InputError: an augmentation is in several runs.
    """
    several = {name for name, count in Counter(name for own in names for name in own).items() if count > 1}
    kinds = {"order", "class", "partition", "image"}
    twice = sorted(several - kinds)
    if twice:
        message = (
            f"several runs vary {', '.join(twice)}: expected different augmentations in each. Join runs of different "
            "sets, such as set1 and set2"
        )
        raise InputError(message)
    return [
        {name: f"{name}-{number}" if name in several else name for name in own}
        for number, own in enumerate(names, start=1)
    ]


def _names(table: xr.Dataset, axis: str) -> list[str]:
    return [str(name) for name in table[f"{axis}_name"].to_numpy()]


def _side_by_side(tables: Sequence[xr.Dataset], names: Sequence[Mapping[str, str]]) -> xr.Dataset:
    """Variables along the axes of factors one after another; all others must have none of these axes."""
    parts = []
    for number, (table, own) in enumerate(zip(tables, names, strict=True), start=1):
        new: dict[str, tuple[str, np.ndarray]] = {}
        for axis in ("factor", "augmentation", "pair"):
            if axis in table.sizes:
                said = [_renamed_pair(name, own) for name in _names(table, axis)]
                new[f"{axis}_name"] = (axis, np.array(said, dtype=object))
                new[f"{axis}_set"] = (axis, np.full(len(said), number))
        parts.append(table.assign_coords(new))
    found: dict[str, xr.DataArray] = {}
    for name in parts[0].data_vars:
        along = next((one for one in ("factor", "augmentation", "pair") if one in parts[0][name].dims), None)
        if along is not None and all(name in part for part in parts):
            found[str(name)] = xr.concat([part[name] for part in parts], dim=along, coords="minimal", compat="override",
                                         join="override")  # fmt: skip
    return xr.Dataset(found)


def _renamed_pair(name: str, names: Mapping[str, str]) -> str:
    return " x ".join(names.get(part, part) for part in name.split(" x "))


def _table(tables: Sequence[xr.Dataset], names: Sequence[Mapping[str, str]]) -> xr.Dataset:
    """A table of units or layers: what has factors side by side, and numbers of units."""
    kept = [table[[name for name, one in table.data_vars.items() if set(one.dims) & set(_FACTORS)]] for table in tables]
    whole = _side_by_side(kept, names)
    if "units" in tables[0]:
        whole["units"] = tables[0]["units"]
    if "live" in tables[0]:
        whole["live"] = xr.DataArray(np.min([table["live"].to_numpy() for table in tables], axis=0), dims=("layer",))
    return whole.assign_coords(
        {name: one for name, one in tables[0].coords.items() if not set(one.dims) & set(_FACTORS[:3])}
    )


def _maps(tables: Sequence[xr.Dataset], names: Sequence[Mapping[str, str]]) -> xr.Dataset:
    """Everything known of the activations of a layer but raw effects of single players."""
    kept = [table.drop_vars([*_PER_RUN, "shapley_raw"], errors="ignore") for table in tables]
    whole = _side_by_side(kept, names)
    for name in _PER_RUN:
        if all(name in table for table in tables):
            whole[name] = xr.concat([table[name] for table in tables], dim=SETS).transpose(..., SETS)
    return whole


def _factors(tables: Sequence[xr.Dataset], names: Sequence[Mapping[str, str]]) -> xr.Dataset:
    whole = _side_by_side(tables, names)
    attrs: dict[str, Any] = {
        name: tables[0].attrs[name] for name in ("classes", "partitions", "images") if name in tables[0].attrs
    }
    return whole.assign_attrs(attrs)


def _answers(tables: Sequence[xr.Dataset], axis: str) -> xr.Dataset:
    """Accuracies: plain images, which all runs have alike, once."""
    parts = [tables[0], *(table.isel({axis: slice(1, None)}) if axis == "input" else table for table in tables[1:])]
    return xr.concat(parts, dim=axis, data_vars="minimal", coords="minimal", compat="override", join="override",
                     combine_attrs="override")  # fmt: skip


def _provenance(results: Sequence[Result]) -> Provenance:
    own = [one.provenance for one in results]
    spec = {
        **own[0].spec,
        "augmentations": [name for one in own for name in one.spec["augmentations"]],
        "ranges": [text for one in own for text in one.spec["ranges"]],
        "analyses": [],
        "compare_with": "",
    }
    nonfinite: dict[str, set[int]] = {}
    for one in own:
        for layer, units in one.nonfinite.items():
            nonfinite.setdefault(layer, set()).update(units)
    return replace(
        own[0],
        spec=spec,
        nonfinite={layer: tuple(sorted(units)) for layer, units in nonfinite.items()},
        seconds=sum(one.seconds for one in own),
        peak_memory=max(one.peak_memory for one in own),
    )
