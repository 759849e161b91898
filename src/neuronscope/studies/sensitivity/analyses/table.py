"""Which analyses of maps there are, and what makes each: arithmetic on groups of a result, in a run or after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import xarray as xr

from neuronscope.maths.map_correlations import Missing
from neuronscope.run import Run
from neuronscope.studies.sensitivity.analyses.classes import class_groups
from neuronscope.studies.sensitivity.analyses.correlations import correlation_groups
from neuronscope.studies.sensitivity.analyses.discriminants import discriminant_groups
from neuronscope.studies.sensitivity.analyses.whole import whole_groups
from neuronscope.studies.sensitivity.spec import SensitivitySpec

Analyse = Callable[[xr.DataTree, SensitivitySpec, Run], dict[str, xr.Dataset]]


def _correlations(tree: xr.DataTree, spec: SensitivitySpec, run: Run) -> dict[str, xr.Dataset]:
    del run  # nothing is drawn
    missing: Missing = "zero" if "zero-correlations" in spec.legacy else "all"
    return correlation_groups(tree, method=spec.correlation, missing=missing, level=spec.level)


def _discriminants(tree: xr.DataTree, spec: SensitivitySpec, run: Run) -> dict[str, xr.Dataset]:
    return discriminant_groups(
        tree,
        folds=spec.folds,
        repeats=spec.repeats,
        permutations=spec.label_permutations,
        split="samples" if "leaking-folds" in spec.legacy else "units",
        level=spec.level,
        run=run,
    )


def _classes(tree: xr.DataTree, spec: SensitivitySpec, run: Run) -> dict[str, xr.Dataset]:
    del spec, run  # nothing is chosen, nothing drawn
    return class_groups(tree)


ANALYSES: Mapping[str, Analyse] = {
    "correlations": _correlations,
    "discriminants": _discriminants,
    "classes": _classes,
    "segments": whole_groups,
}
"""Name, as in `spec.Analysis` -> its groups."""


def analysis_groups(tree: xr.DataTree, spec: SensitivitySpec, run: Run) -> dict[str, xr.Dataset]:
    """The groups of all analyses that `spec` asks for.

    Args:
        tree: of a result, with maps.
        spec: which analyses, and their options.
        run: seed.
    """
    found: dict[str, xr.Dataset] = {}
    for name, analyse in ANALYSES.items():
        if name in spec.analyses:
            found |= analyse(tree, spec, run)
    return found
