"""The result of the whole network that segments are compared with: asked for by its folder, checked before the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import xarray as xr

from neuronscope.errors import InputError
from neuronscope.maths.map_correlations import Missing
from neuronscope.result import open_result
from neuronscope.run import Run
from neuronscope.studies.sensitivity.analyses.segments import check_whole, factor_ranges, segment_groups
from neuronscope.studies.sensitivity.spec import Analysis, SensitivitySpec

_NAME: Analysis = "segments"


def with_comparison_asked(spec: SensitivitySpec) -> SensitivitySpec:
    """The options with the analysis `segments` where a result to compare with is given."""
    if not spec.whole_from or _NAME in spec.analyses:
        return spec
    return replace(spec, analyses=(*spec.analyses, _NAME))


def check_whole_from(
    spec: SensitivitySpec, *, fingerprint: str, factors: xr.Dataset, units: Mapping[str, Sequence[int]]
) -> None:
    """Refuse a result that the segments cannot be compared with, before hours of work; nothing where none is asked for.

    Args:
        spec: with its folder.
        fingerprint: of the network.
        factors: the group of that name.
        units: last module of each segment -> numbers of its units in the network.

    Raises:
        InputError: no segments to compare, no result to compare them with, or one that does not fit them.
        ResultFileError: there is no result, or it is torn.
    """
    if _NAME not in spec.analyses:
        return
    if not units:
        message = (
            "--whole-from is what segments of the network are compared with, and there are none: expected a run with "
            "--segments. Add it, or leave out --whole-from"
        )
        raise InputError(message)
    if not spec.whole_from:
        message = (
            "the analysis 'segments' compares segments with the whole network: expected the folder of its result, got "
            "none. Give it with --whole-from"
        )
        raise InputError(message)
    check_whole(open_result(spec.whole_from), fingerprint=fingerprint, factors=factor_ranges(factors), units=units)


def whole_groups(tree: xr.DataTree, spec: SensitivitySpec, run: Run) -> dict[str, xr.Dataset]:
    """The comparison of segments with the whole network.

    Args:
        tree: of the segments' result.
        spec: with the folder of the other result, coefficient, level, deviations.
        run: seed.
    """
    missing: Missing = "zero" if "zero-correlations" in spec.legacy else "all"
    whole = open_result(spec.whole_from).tree
    return segment_groups(tree, whole, method=spec.correlation, missing=missing, level=spec.level, run=run)
