"""How alike two sets of correlation matrices are: unit by unit, and layer by layer.

Whether the same unit has the same matrix in two circumstances is judged beside what two different units have: entries
of small maps scatter, so that even a unit and itself differ by more than 0 on average.

Source of the summaries: the program's published notebook on single-channel segments (mean absolute difference of
entries; Spearman's correlation of upper triangles).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from neuronscope.errors import InputError
from neuronscope.maths.map_correlations import Missing, over
from neuronscope.maths.ranks import spearman
from neuronscope.maths.replicates import t_quantile

_ROUNDING = 1e-12
"""A draw that equals the observed value but for rounding counts as reaching it."""
_TWO = 2
"""Entries that can differ in their order."""


@dataclass(frozen=True, eq=False)
class MatrixDifference:
    """Absolute differences of the correlation matrices that the same units have in two circumstances.

    Attributes:
        mean: of each entry over units, 0 to 2.
        deviation: over units (divided by their number - 1).
        off_diagonal: mean over units and entries off the diagonal.
        low, high: its limits for other units of the same kind.
        mismatched: the same of all pairs of two different units: what is expected if it is not the unit that counts.
        p: one-sided, that units are closer to themselves than to others (units permuted).
    """

    mean: Float[np.ndarray, "g g"]
    deviation: Float[np.ndarray, "g g"]
    off_diagonal: float
    low: float
    high: float
    mismatched: float
    p: float


@dataclass(frozen=True, eq=False)
class MatrixDistances:
    """How far matrices of l layers are from those of m layers.

    Attributes:
        difference: mean absolute difference of the entries, 0 to 2.
        spearman: Spearman's correlation of the entries, -1 to 1; nan with fewer than two entries, or constant ones.
    """

    difference: Float[np.ndarray, "l m"]
    spearman: Float[np.ndarray, "l m"]


def matrix_difference(
    first: Float[np.ndarray, "u g g"],
    second: Float[np.ndarray, "u g g"],
    *,
    draws: int = 999,
    rng: np.random.Generator,
    missing: Missing = "all",
    level: float = 0.95,
) -> MatrixDifference:
    """By how much the matrices of the same units differ between two circumstances.

    Args:
        first: matrix of each unit in one circumstance, nan where there is no coefficient.
        second: of the same units in the other.
        draws: permutations of the units for the p-value.
        rng: source of all randomness.
        missing: what units without a coefficient mean.
        level: coverage of the interval.

    Raises:
        InputError: fewer than two factors.

    Example:
        >>> one = np.array([[[1.0, 0.5], [0.5, 1.0]], [[1.0, -0.5], [-0.5, 1.0]]])
        >>> found = matrix_difference(one, one, rng=np.random.default_rng(0))
        >>> found.off_diagonal, found.mismatched
        (0.0, 1.0)
    """
    g = first.shape[1]
    if g < _TWO:
        message = f"a matrix of {g} factors has no entry off its diagonal: 2 or more expected. Add factors"
        raise InputError(message)
    apart = np.abs(first - second)
    mean, deviation, _ = over(apart, missing=missing)
    upper = np.triu_indices(g, 1)
    pairs = _pairwise(first[:, *upper], second[:, *upper])
    own = np.diag(pairs)
    known = own[np.isfinite(own)]
    centre = float(known.mean()) if known.size else float("nan")
    error = float(known.std(ddof=1)) / math.sqrt(known.size) if known.size > 1 else float("nan")
    half = t_quantile(known.size, level) * error
    others = pairs[~np.eye(len(pairs), dtype=bool) & np.isfinite(pairs)]
    return MatrixDifference(
        mean,
        deviation,
        centre,
        centre - half,
        centre + half,
        float(others.mean()) if others.size else float("nan"),
        _closer(pairs, draws=draws, rng=rng),
    )


def matrix_distances(
    first: Float[np.ndarray, "l g g"],
    second: Float[np.ndarray, "m g g"],
    *,
    triangle: Literal["strict", "diagonal"] = "strict",
) -> MatrixDistances:
    """Distances of the matrices of some layers from those of others, over their upper triangles.

    Args:
        first: a matrix for each layer.
        second: the same, or others of the same factors.
        triangle: without the diagonal, as for matrices of the same kind whose diagonals are 1; or with it.

    Returns:
        Entries that either of two matrices lacks are left out for these two.

    Example:
        >>> one = np.array([[[1.0, 0.5, 0.1], [0.5, 1.0, 0.3], [0.1, 0.3, 1.0]]])
        >>> found = matrix_distances(one, one / 2)
        >>> found.difference.round(3).tolist(), found.spearman.round(3).tolist()
        ([[0.15]], [[1.0]])
    """
    upper = np.triu_indices(first.shape[1], 1 if triangle == "strict" else 0)
    difference, correlation = (np.full((len(first), len(second)), np.nan) for _ in range(2))
    for row, one in enumerate(first):
        for column, other in enumerate(second):
            x, y = one[upper], other[upper]
            known = np.isfinite(x) & np.isfinite(y)
            if known.any():
                difference[row, column] = np.abs(x - y)[known].mean()
            if known.sum() >= _TWO:
                correlation[row, column] = spearman(x[known][:, None], y[known][:, None])[0, 0]
    return MatrixDistances(difference, correlation)


def _pairwise(first: Float[np.ndarray, "u e"], second: Float[np.ndarray, "u e"]) -> Float[np.ndarray, "u u"]:
    """Mean absolute difference of the entries that both have, of every unit with every other."""
    found = np.full((len(first), len(second)), np.nan)
    for unit, entries in enumerate(first):
        apart = np.abs(entries - second)
        known = np.isfinite(apart)
        count = known.sum(axis=1)
        total = np.where(known, apart, 0.0).sum(axis=1)
        found[unit] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return found


def _closer(pairs: Float[np.ndarray, "u u"], *, draws: int, rng: np.random.Generator) -> float:
    kept = np.isfinite(np.diag(pairs))
    pairs = pairs[np.ix_(kept, kept)]
    if len(pairs) < _TWO or not np.isfinite(pairs).all():
        return float("nan")
    rows = np.arange(len(pairs))
    observed = np.diag(pairs).mean()
    drawn = np.array([pairs[rows, rng.permutation(len(pairs))].mean() for _ in range(draws)])
    return float((1 + (drawn <= observed + _ROUNDING).sum()) / (1 + draws))
