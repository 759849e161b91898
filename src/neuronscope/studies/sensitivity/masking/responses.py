"""The original's two analyses of responses: correlations of augmented with plain input, and the tree of all of them.

A response is the accuracies of one kind of input under all masks of one factor. Sets of augmentations are analysed
apart, for their masks and inputs are not combined.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float32

from neuronscope.maths.masking_analysis import InputCorrelations, input_correlations, pairing_gap, response_clusters
from neuronscope.maths.resampling import by_qvalues
from neuronscope.run import Run
from neuronscope.studies.sensitivity.masking.answers import texts
from neuronscope.studies.sensitivity.masking.spec import MaskingSpec

COLOURS = ("hue", "saturation")
"""The pair of factors that the original found to deviate like one."""
_FIELDS = {"correlation": "value", "correlation_low": "low", "correlation_high": "high", "correlation_p": "p"}


@dataclass(frozen=True, eq=False)
class Responses:
    """Right answers of one set: of each image, kind of input, mask factor and configuration.

    Attributes:
        augmentations: kinds of input after plain input, which comes first.
        variables: mask factors.
        right: share of an image's draws.
    """

    augmentations: Sequence[str]
    variables: Sequence[str]
    right: Float32[np.ndarray, "n i j c"]


def response_groups(sets: Sequence[Responses], spec: MaskingSpec, run: Run) -> dict[str, xr.Dataset]:
    """Groups `correlations`, `pairing`, and for each set `clusters` (`clusters-2` for the second of several).

    Args:
        sets: those with an augmentation.
        spec: number of draws of images, coverage.
        run: seed.

    Returns:
        Empty without sets.
    """
    if not sets:
        return {}
    found = [
        input_correlations(
            one.right[:, 0],
            one.right[:, 1:],
            rng=run.generator("correlations", *_number(sets, place)),
            draws=spec.resamples,
            level=spec.level,
        )
        for place, one in enumerate(sets)
    ]
    groups = {"correlations": _correlations(sets, found), "pairing": _pairing(sets, found, spec, run)}
    for place, one in enumerate(sets):
        if len(one.augmentations) * len(one.variables) > 1:
            ending = "".join(f"-{number}" for number in _number(sets, place))
            groups[f"clusters{ending}"] = _clusters(one, spec, run, *_number(sets, place))
    return groups


def _number(sets: Sequence[Responses], place: int) -> tuple[str, ...]:
    """Number of a set among several; nothing where it is the only one."""
    return (str(place + 1),) if len(sets) > 1 else ()


def _correlations(sets: Sequence[Responses], found: Sequence[InputCorrelations]) -> xr.Dataset:
    """One table; nan where input and mask are of different sets."""
    augmentations = [name for one in sets for name in one.augmentations]
    variables = [name for one in sets for name in one.variables]
    tables = {name: np.full((len(augmentations), len(variables)), np.nan) for name in _FIELDS}
    row = column = 0
    for one, own in zip(sets, found, strict=True):
        here = (slice(row, row + len(one.augmentations)), slice(column, column + len(one.variables)))
        for name, field in _FIELDS.items():
            tables[name][here] = getattr(own, field)
        row, column = here[0].stop, here[1].stop
    tables["correlation_q"] = by_qvalues(tables["correlation_p"])
    return xr.Dataset(
        {name: (("augmentation", "variable"), values) for name, values in tables.items()},
        coords={
            "augmentation_name": ("augmentation", texts(augmentations)),
            "variable_name": ("variable", texts(variables)),
        },
        attrs={"configurations": sets[0].right.shape[-1]},
    )


def _pairing(sets: Sequence[Responses], found: Sequence[InputCorrelations], spec: MaskingSpec, run: Run) -> xr.Dataset:
    """Whether factors that augment the input deviate more, in each set."""
    gaps, names, counts = [], [], []
    for place, (one, own) in enumerate(zip(sets, found, strict=True)):
        for name, pairs in _patterns(one):
            number = _number(sets, place)
            gaps.append(pairing_gap(own, pairs, rng=run.generator("pairing", name, *number), level=spec.level))
            names.append(name + "".join(f", set {text}" for text in number))
            counts.append(int(pairs.sum()))
    ends = {"gap": "value", "gap_low": "low", "gap_high": "high", "gap_p": "p"}
    variables = {name: ("pattern", np.array([getattr(one, field) for one in gaps])) for name, field in ends.items()}
    return xr.Dataset(
        {**variables, "pairs": ("pattern", np.array(counts))}, coords={"pattern_name": ("pattern", texts(names))}
    )


def _patterns(one: Responses) -> Iterator[tuple[str, Bool[np.ndarray, "a j"]]]:
    """Pairs of input and mask factor that the original found to deviate most."""
    grid = [[(name, variable) for variable in one.variables] for name in one.augmentations]
    yield "same factor", np.array([[name == variable for name, variable in row] for row in grid], dtype=bool)
    yield "hue with saturation", np.array([[set(pair) == set(COLOURS) for pair in row] for row in grid], dtype=bool)


def _clusters(one: Responses, spec: MaskingSpec, run: Run, *number: str) -> xr.Dataset:
    """The tree of responses, a leaf for each pair of augmentation and mask factor."""
    leaves = [(augmentation, variable) for augmentation in one.augmentations for variable in one.variables]
    flat = one.right[:, 1:].reshape(len(one.right), len(leaves), -1)
    tree = response_clusters(flat, rng=run.generator("clusters", *number), draws=spec.resamples)
    return xr.Dataset(
        {
            "distance": (("leaf", "other"), tree.distance),
            "correlation": (("leaf", "other"), tree.correlation),
            "linkage": (("join", "part"), tree.linkage),
            "support": ("join", tree.support),
            "order": ("leaf", tree.order),
            "flat": ("leaf", tree.flat),
        },
        coords={
            "leaf_input": ("leaf", texts([augmentation for augmentation, _ in leaves])),
            "leaf_variable": ("leaf", texts([variable for _, variable in leaves])),
        },
    )
