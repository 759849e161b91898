"""Are the mean correlation matrices of two groups of units told apart, and do their patterns go together?

The distance of two means is never 0: each is a mean over few units. The exchange test says how large it would be if the
two groups were one (units change groups at random, or the two matrices of a unit change places). Mantel's test says
whether large entries of one matrix are large in the other, when it is factors, not entries, that may be exchanged:
entries of one row are no independent numbers.

Sources: B. Phipson and G. K. Smyth, "Permutation p-values should never be zero" (2010); N. Mantel, "The detection of
disease clustering and a generalized regression approach", Cancer Research 27 (1967).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from neuronscope.errors import InputError
from neuronscope.maths.map_correlations import Missing
from neuronscope.maths.ranks import spearman

Triangle = Literal["strict", "diagonal"]
"""Entries above the diagonal, or with it."""

_ROUNDING = 1e-12
"""A draw that equals the observed value but for rounding counts as reaching it."""
_QUANTILE = 0.95
"""Of the null distribution."""
_FEWEST = 2
"""Units, or entries, that can change places."""


@dataclass(frozen=True)
class ExchangeTest:
    """The distance of two mean matrices beside that of groups made at random; nan where nothing can be said.

    Attributes:
        difference: mean absolute difference of the entries of the two means, 0 to 2.
        null: its mean over random groups.
        null_high: its 95 % quantile over random groups.
        p: one-sided, that the two groups differ by no more than random ones.
    """

    difference: float
    null: float
    null_high: float
    p: float


@dataclass(frozen=True)
class MantelTest:
    """How far the patterns of two matrices agree; nan where nothing can be said.

    Attributes:
        spearman: rank correlation of the entries, -1 to 1.
        p: one-sided, that they go together no more than with factors in random order.
    """

    spearman: float
    p: float


def exchange_test(
    first: Float[np.ndarray, "u g g"],
    second: Float[np.ndarray, "v g g"],
    *,
    units: Literal["paired", "separate"],
    triangle: Triangle = "strict",
    missing: Missing = "all",
    draws: int = 999,
    rng: np.random.Generator,
) -> ExchangeTest:
    """Whether the mean matrices of two groups of units differ more than those of groups made at random.

    Args:
        first: matrix of each unit of one group, nan where there is no coefficient.
        second: of the other group.
        units: whether both are of the same units, in the same order, or of others.
        triangle: entries that count.
        missing: what units without a coefficient mean.
        draws: random groups.
        rng: source of all randomness.

    Raises:
        InputError: paired groups that have not the same number of units.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> one = np.tile(np.eye(2), (9, 1, 1))
        >>> other = one + np.array([[0.0, 0.5], [0.5, 0.0]])
        >>> found = exchange_test(one, other, units="separate", rng=rng)
        >>> found.difference, found.p
        (0.5, 0.001)
    """
    if units == "paired" and len(first) != len(second):
        message = (
            f"pairs of matrices cannot change places: the same units expected, got {len(first)} and {len(second)}. Say "
            "that the units are separate"
        )
        raise InputError(message)
    upper = np.triu_indices(first.shape[1], 1 if triangle == "strict" else 0)
    one, other = first[:, *upper], second[:, *upper]
    if missing == "zero":
        one, other = np.nan_to_num(one), np.nan_to_num(other)
    if missing == "any":
        whole = np.isfinite(one).all(axis=0) & np.isfinite(other).all(axis=0)
        one, other = one[:, whole], other[:, whole]
    observed = float(_apart(one, other, np.zeros((1, 0), dtype=bool), units="as they are")[0])
    if min(len(one), len(other)) < _FEWEST or not np.isfinite(observed):
        return ExchangeTest(observed, *(float("nan"),) * 3)
    many = len(one) if units == "paired" else len(one) + len(other)
    if units == "paired":
        moved = rng.random((draws, many)) < 1 / 2
    else:
        moved = rng.permuted(np.tile(np.arange(many) < len(one), (draws, 1)), axis=1)
    drawn = _apart(one, other, moved, units=units)
    drawn = drawn[np.isfinite(drawn)]
    p = (1 + (drawn >= observed - _ROUNDING).sum()) / (1 + drawn.size)
    return ExchangeTest(observed, float(drawn.mean()), float(np.quantile(drawn, _QUANTILE)), float(p))


def _apart(
    one: Float[np.ndarray, "u e"],
    other: Float[np.ndarray, "v e"],
    moved: Bool[np.ndarray, "d _"],
    *,
    units: Literal["paired", "separate", "as they are"],
) -> Float[np.ndarray, "d"]:
    """Mean absolute difference of the means of two groups; `moved`: pairs that change places, or units in the first."""
    sums = [np.where(np.isfinite(values), values, 0.0) for values in (one, other)]
    known = [np.isfinite(values).astype(np.float64) for values in (one, other)]
    if units == "as they are":
        tops, counts = ([part.sum(axis=0)[None] for part in parts] for parts in (sums, known))
    elif units == "paired":
        there, gone = (~moved).astype(np.float64), moved.astype(np.float64)
        tops, counts = ([there @ a + gone @ b, gone @ a + there @ b] for a, b in (sums, known))
    else:
        there = moved.astype(np.float64)
        tops, counts = ([there @ part, (1 - there) @ part] for part in (np.concatenate(sums), np.concatenate(known)))
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = np.abs(tops[0] / counts[0] - tops[1] / counts[1])
        there_too = np.isfinite(difference)
        return np.asarray(np.where(there_too, difference, 0.0).sum(axis=1) / there_too.sum(axis=1))


def mantel_test(
    first: Float[np.ndarray, "g g"],
    second: Float[np.ndarray, "g g"],
    *,
    triangle: Triangle = "strict",
    draws: int = 999,
    rng: np.random.Generator,
) -> MantelTest:
    """Spearman's correlation of the entries of two symmetric matrices, with a p-value that counts factors.

    Factors without any entry off the diagonal in either matrix take no part in the p-value.

    Args:
        first: a matrix of factors.
        second: another of the same factors.
        triangle: entries that count.
        draws: random orders of the factors.
        rng: source of all randomness.

    Example:
        >>> values = np.random.default_rng(0).normal(size=(30, 6))
        >>> one = np.corrcoef(values.T)
        >>> found = mantel_test(one, one**3, rng=np.random.default_rng(0))
        >>> round(found.spearman, 3), found.p < 0.01
        (1.0, True)
    """
    upper = np.triu_indices(len(first), 1 if triangle == "strict" else 0)
    observed = float(_rank_correlations(first[upper], second[upper][None])[0])
    off = ~np.eye(len(first), dtype=bool)
    there = [np.isfinite(np.where(off, one, np.nan)).any(axis=1) for one in (first, second)]
    factors = np.flatnonzero(there[0] & there[1])
    if len(factors) <= _FEWEST or not np.isfinite(observed):
        return MantelTest(observed, float("nan"))
    one, other = (values[np.ix_(factors, factors)] for values in (first, second))
    rows, columns = np.triu_indices(len(factors), 1 if triangle == "strict" else 0)
    orders = rng.permuted(np.tile(np.arange(len(factors)), (draws, 1)), axis=1)
    orders = np.concatenate([np.arange(len(factors))[None], orders])
    found = _rank_correlations(one[rows, columns], other[orders[:, rows], orders[:, columns]])
    drawn = found[1:][np.isfinite(found[1:])]
    return MantelTest(observed, float((1 + (drawn >= found[0] - _ROUNDING).sum()) / (1 + drawn.size)))


def _rank_correlations(x: Float[np.ndarray, "e"], y: Float[np.ndarray, "d e"]) -> Float[np.ndarray, "d"]:
    """Spearman's correlation of x with each y over the entries that both have."""
    known = np.isfinite(x) & np.isfinite(y)
    if known.all() and len(x) >= _FEWEST:
        return np.asarray(spearman(x[:, None], y.T)[0])
    found = np.full(len(y), np.nan)
    for row, there in enumerate(known):
        if there.sum() >= _FEWEST:
            found[row] = spearman(x[there][:, None], y[row, there][:, None])[0, 0]
    return found
