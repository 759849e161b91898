"""Analyses of a finished result: they are arithmetic on its maps, so that no image is looked at again."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import xarray as xr

from neuronscope.errors import InputError, UnknownName, nearest
from neuronscope.result import Result
from neuronscope.run import Run
from neuronscope.studies.sensitivity.analyses import ANALYSES, analysis_groups, check_discriminants
from neuronscope.studies.sensitivity.analyses.segments import pieces_of
from neuronscope.studies.sensitivity.analyses.whole import check_whole_from
from neuronscope.studies.sensitivity.page import sensitivity_page
from neuronscope.studies.sensitivity.spec import SensitivitySpec, recorded_spec

ANALYSIS_OPTIONS = (
    "analyses",
    "correlation",
    "folds",
    "repeats",
    "label_permutations",
    "level",
    "whole_from",
    "shown_units",
    "legacy",
)
"""Options that analyses heed; all others are of the run."""


def analyse_sensitivity(result: Result, spec: SensitivitySpec) -> Result:
    """A finished result with the analyses that `spec` asks for; analyses that were there and are not asked for stay.

    Args:
        result: of `run_sensitivity`, or joined of several.
        spec: `analyses` and their options; of all else the result's own options hold.

    Raises:
        InputError: no analysis was asked for, a result of another study or without maps, fewer units than folds, or
            discriminants of a joined result.
        UnknownName: an analysis that does not exist.

    Example:
        >>> import neuronscope as ns
        >>> subject = ns.load_model("builtin:viewer-cnn", weights="random")
        >>> spec = ns.SensitivitySpec(layers=("conv_layers.1",), augmentations=("brightness", "hflip"),
        ...                           estimators=("sobol",), points=8, replicates=4)
        >>> result = ns.run_sensitivity(subject, ns.load_data("digits", limit=80), spec)
        >>> result = ns.analyse_sensitivity(result, ns.SensitivitySpec(analyses=("correlations",)))
        >>> "correlations" in result.tree.children
        True
    """
    for name in spec.analyses:
        if name not in ANALYSES:
            message = f"'{name}' is no analysis.{nearest(name, ANALYSES)} All: {', '.join(ANALYSES)}"
            raise UnknownName(message)
    if not spec.analyses:
        message = f"no analysis was asked for. Name some with --analyses: {', '.join(ANALYSES)}"
        raise InputError(message)
    origin = result.provenance
    if origin.study != "sensitivity" or "maps" not in result.tree.children:
        message = (
            f"analyses are of maps of factors: expected a finished sensitivity result, got one of '{origin.study}'"
            f"{'' if 'maps' in result.tree.children else ' without maps'}. Make one with: neuronscope run sensitivity"
        )
        raise InputError(message)
    if "discriminants" in spec.analyses:
        _check_maps(result, folds=spec.folds)
    if "segments" in spec.analyses:
        _check_segments(result, spec)
    own = recorded_spec(origin.spec)
    options = {name: getattr(spec, name) for name in ANALYSIS_OPTIONS}
    options |= {} if "segments" in spec.analyses else {"whole_from": own.whole_from}
    asked = replace(own, **{**options, "legacy": _legacy(own, spec)})
    run = Run(seed=int(origin.circumstances.get("seed", 0)))
    groups: dict[str, xr.Dataset] = analysis_groups(result.tree, asked, run)
    tree = result.tree.copy()
    for place, group in groups.items():
        tree[place] = xr.DataTree(group)
    every = tuple(name for name in ANALYSES if name in (*own.analyses, *spec.analyses))
    written: dict[str, Any] = {**origin.spec, **asdict(replace(asked, analyses=every))}
    return Result(tree, replace(origin, spec=written, legacy=asked.legacy), view=sensitivity_page)


_LEGACY = ("leaking-folds", "zero-correlations")
"""Deviations of analyses; the others are of the run."""


def _legacy(own: SensitivitySpec, spec: SensitivitySpec) -> tuple[str, ...]:
    """The run's deviations, and those of the analyses as they are asked for now.

    Raises:
        InputError: a deviation of the run, which is over.
    """
    late = [name for name in spec.legacy if name not in _LEGACY and name not in own.legacy]
    if late:
        message = f"{', '.join(late)} cannot be had after the run: deviations of analyses are {', '.join(_LEGACY)}"
        raise InputError(message)
    return (*(name for name in own.legacy if name not in _LEGACY), *(one for one in spec.legacy if one in _LEGACY))


def _check_maps(result: Result, *, folds: int) -> None:
    """Refuse discriminants that cannot be.

    Raises:
        InputError: with what to change.
    """
    if "factor_set" in result.tree["factors"].coords:
        message = (
            "discriminants tell the factors of one set of augmentations apart, and this result is joined of several. "
            "Analyse each of the runs"
        )
        raise InputError(message)
    maps = result.tree["maps"].children.items()
    units = {str(layer): node.sizes["unit"] for layer, node in maps if np.prod(_space(node)) > 1}
    check_discriminants(units, folds=folds)


def _check_segments(result: Result, spec: SensitivitySpec) -> None:
    """Refuse a result of the whole network that the segments cannot be compared with.

    Raises:
        InputError: with what to change.
    """
    groups = result.tree.children
    pieces = pieces_of(groups["segments"].to_dataset()) if "segments" in groups else ()
    check_whole_from(
        spec,
        fingerprint=result.provenance.subject_fingerprint,
        factors=groups["factors"].to_dataset(),
        units={piece.module: piece.units for piece in pieces},
    )


def _space(node: xr.DataTree) -> list[int]:
    axes = ("unit", "factor", "augmentation", "pair", "player", "set")
    return [size for name, size in node.sizes.items() if name not in axes]
