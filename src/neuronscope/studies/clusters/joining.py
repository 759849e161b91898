"""Ranges of classes, worked by several runs, as one result: what differs between them are the classes alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from neuronscope.errors import InputError
from neuronscope.result import Provenance, Result
from neuronscope.studies.clusters.page import clusters_page

LOGGER = logging.getLogger("neuronscope")

_RANGE = ("class_start", "class_end")
_FREE = (*_RANGE, "keep_in", "keep")
"""Options that runs may differ in."""

_SHOWN = 8
"""Classes that a message names."""


def join_classes(results: Sequence[Result]) -> Result:
    """The result of one run over all classes of several runs.

    Everything but the group `classes` is the first run's: it does not depend on the range of classes. A class that more
    than one run has counts once, as the first of them has it; a warning names such classes, and those that are missing
    between the first and the last.

    Args:
        results: of runs that differ in `class_start` and `class_end` only.

    Raises:
        InputError: a run without single classes, or one of another network, other images, options or clusters.
    """
    first = results[0]
    for number, one in enumerate(results, start=1):
        _check(first, one, f"run {number} of {len(results)}")
    tables = [one.tree["classes"].to_dataset() for one in results]
    whole = xr.concat(tables, dim="class", data_vars="minimal", join="exact").sortby("class_id")
    ids, where, counts = np.unique(whole["class_id"].to_numpy(), return_index=True, return_counts=True)
    _warn("in more than one run, counted once", ids[counts > 1].tolist())
    _warn("in none of the runs", sorted(set(range(ids[0], ids[-1] + 1)) - set(ids.tolist())))
    groups = {name: node.to_dataset() for name, node in first.tree.children.items()}
    groups["classes"] = whole.isel({"class": where})
    origin = first.provenance
    spec = {**origin.spec, "class_start": int(ids[0]), "class_end": int(ids[-1]) + 1}
    provenance = replace(
        origin,
        spec=spec,
        seconds=sum(one.provenance.seconds for one in results),
        peak_memory=max(one.provenance.peak_memory for one in results),
    )
    tree = xr.DataTree.from_dict({"/": xr.Dataset(), **{f"/{name}": group for name, group in groups.items()}})
    return Result(tree, provenance, view=clusters_page)


def _check(first: Result, other: Result, name: str) -> None:
    """Refuse runs whose classes cannot stand in one table.

    Raises:
        InputError: which run, and in what it differs.
    """
    if "classes" not in other.tree.children:
        message = f"{name} looked at no class by itself: expected one with --class-start and --class-end. Leave it out"
        raise InputError(message)
    differing = _differing(first.provenance, other.provenance)
    if differing:
        message = (
            f"{name} does not belong to the first: {', '.join(differing)} differ. Expected runs that differ in "
            "--class-start and --class-end only: join those that belong together"
        )
        raise InputError(message)
    k = first.provenance.spec["main_k"]
    ours, theirs = (one.table[f"cluster_k{k}"].to_numpy() for one in (first, other))
    if not np.array_equal(ours, theirs):
        message = (
            f"{name} has put {int((ours != theirs).sum())} units into other clusters than the first has, so "
            "that clusters of one number are not the same. Make both on machines of one kind"
        )
        raise InputError(message)


def _differing(first: Provenance, other: Provenance) -> list[str]:
    """Names of all that differs and must not, with both values where they are short."""
    pairs = {name: (first.spec.get(name), other.spec.get(name)) for name in first.spec if name not in _FREE}
    pairs |= {name: (getattr(first, name), getattr(other, name)) for name in ("study", "subject", "data")}
    pairs["seed"] = (first.circumstances.get("seed"), other.circumstances.get("seed"))
    found = [f"{name} ({a} and {b})" for name, (a, b) in pairs.items() if a != b]
    if first.subject_fingerprint != other.subject_fingerprint:
        found.append("the weights")
    if first.data_fingerprint != other.data_fingerprint:
        found.append("the images")
    return found


def _warn(what: str, classes: Sequence[int]) -> None:
    if classes:
        more = f" and {len(classes) - _SHOWN} more" if len(classes) > _SHOWN else ""
        names = ", ".join(map(str, classes[:_SHOWN]))
        LOGGER.warning("%s: classes %s%s", what, names, more)
