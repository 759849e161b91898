"""Correlation of two quantities that are known at every position of every unit, with an interval that counts units.

Neighbouring positions of a map say nearly the same, so an interval that takes positions as independent is far too
narrow. Here units are what was sampled: the standard error is the jackknife's, one unit left out at a time, on the
scale of Fisher's z. It costs one pass, for leaving a unit out takes its sums away from the sums of all.

Source: R. G. Miller, "The jackknife - a review", Biometrika 61 (1974), section 3; for correlations on the scale of z:
B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 11.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import special

from neuronscope.maths.ranks import midranks

_ROUNDING = 1e-12
"""Distance from 1 of a full correlation, and share of a sum of squares that is rounding."""

_FEWEST = 3
"""Units of which something can be said with one of them left out."""


@dataclass(frozen=True)
class ClusteredCorrelation:
    """A correlation with its interval; nan where nothing can be said.

    Attributes:
        value: -1 to 1; nan where one quantity is constant.
        low, high: limits; -1 and 1 where all that varies is in one unit.
    """

    value: float
    low: float
    high: float


def clustered_pearson(
    first: Float[np.ndarray, "u p"], second: Float[np.ndarray, "u p"], *, level: float = 0.95
) -> ClusteredCorrelation:
    """Pearson's correlation over all positions of all units.

    Args:
        first: one quantity of each unit and position; positions where either is not finite are left out.
        second: the other.
        level: coverage of the interval, 0 to 1.

    Example:
        >>> x = np.arange(12.0).reshape(6, 2)
        >>> found = clustered_pearson(x, x**2)
        >>> round(found.value, 3), round(found.low, 2), round(found.high, 3)
        (0.964, 0.82, 0.993)
    """
    x, y, known = _shared(first, second)
    return _correlation(x, y, known, level=level)


def clustered_spearman(
    first: Float[np.ndarray, "u p"], second: Float[np.ndarray, "u p"], *, level: float = 0.95
) -> ClusteredCorrelation:
    """Spearman's correlation over all positions of all units: Pearson's of the midranks, which are those of all.

    Args:
        first: one quantity of each unit and position; positions where either is not finite are left out.
        second: the other.
        level: coverage of the interval, 0 to 1.

    Example:
        >>> x = np.arange(12.0).reshape(6, 2)
        >>> clustered_spearman(x, x**2)
        ClusteredCorrelation(value=1.0, low=1.0, high=1.0)
    """
    x, y, known = _shared(first, second)
    for values in (x, y):
        values[known] = midranks(values[known][:, None])[:, 0]
    return _correlation(x, y, known, level=level)


def _shared(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both in float64 with 0 where either is not known, and where both are."""
    known = np.isfinite(first) & np.isfinite(second)
    return np.where(known, first, 0.0).astype(np.float64), np.where(known, second, 0.0).astype(np.float64), known


def _correlation(x: np.ndarray, y: np.ndarray, known: np.ndarray, *, level: float) -> ClusteredCorrelation:
    void = float("nan")
    if not known.any() or np.ptp(x[known]) == 0 or np.ptp(y[known]) == 0:
        return ClusteredCorrelation(void, void, void)
    x, y = (np.where(known, (one - one[known].mean()) / one[known].std(), 0.0) for one in (x, y))
    own = np.stack([known.sum(axis=1), *(one.sum(axis=1) for one in (x, y, x * x, y * y, x * y))])
    own = own[:, own[0] > 0]
    whole = own.sum(axis=1, keepdims=True)
    value = float(np.clip(_of_sums(whole)[0], -1.0, 1.0))
    if abs(value) >= 1 - _ROUNDING:
        full = math.copysign(1.0, value)
        return ClusteredCorrelation(full, full, full)
    units = own.shape[1]
    if units < _FEWEST:
        return ClusteredCorrelation(value, void, void)
    without = _of_sums(whole - own)
    if not np.isfinite(without).all() or (np.abs(without) >= 1 - _ROUNDING).any():
        return ClusteredCorrelation(value, -1.0, 1.0)
    z = np.arctanh(without)
    error = math.sqrt((units - 1) / units * float(((z - z.mean()) ** 2).sum()))
    half = float(special.stdtrit(units - 1, (1 + level) / 2)) * error
    middle = math.atanh(value)
    return ClusteredCorrelation(value, math.tanh(middle - half), math.tanh(middle + half))


def _of_sums(sums: Float[np.ndarray, "6 s"]) -> Float[np.ndarray, "s"]:
    """Correlations from counts, sums, sums of squares and of products; nan where nothing varies."""
    n, x, y, xx, yy, xy = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        square_x, square_y = xx - x * x / n, yy - y * y / n
        varies = (square_x > _ROUNDING * xx) & (square_y > _ROUNDING * yy)
        return np.asarray(
            np.where(varies, (xy - x * y / n) / np.sqrt(np.where(varies, square_x * square_y, 1.0)), np.nan)
        )
