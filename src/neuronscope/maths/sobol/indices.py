"""From sums to indices: first order, total and second order of each scalar output, and of each unit as a whole.

With f centred at its mean over all rows and V its variance:

    S_g  = mean[ f(B) (f(AB_g) - f(A)) ] / V                         (Saltelli et al. 2010, table 2 b)
    ST_g = mean[ (f(AB_g) - f(A))^2 ] / (2 V)                        (Jansen 1999)
    S_gh = mean[ f(BA_g) f(AB_h) - f(A) f(B) ] / V - S_g - S_h       (Saltelli 2002)

With both halves every mean is also taken with A and B exchanged, and V is over all rows of the design: each row has the
distribution of A, and an output that is rarely far from 0 (a probability behind a softmax) may be so in rows other
than A and B, whose variance alone would then be far too small for the differences it divides. With the first half V is
over A and B, as in SALib. An output whose variance is 0, or cannot be told from rounding, has no index: nan.

A unit's map has an index for each position. For the unit as a whole the numerators and the variances are added up over
its positions before dividing (generalised indices: M. Lamboni, H. Monod, D. Makowski, "Multivariate sensitivity
analysis to measure global contribution of input factors in dynamic models", Reliab. Eng. Syst. Saf. 96 (2011); F.
Gamboa, A. Janon, T. Klein, A. Lagnoux, Electron. J. Stat. 8 (2014)), so that positions which hardly vary hardly count.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from jaxtyping import Float

from neuronscope.maths.sobol.sums import Halves, Sums

Ratio = Literal["nan", "zero"]
"""What an output without variance has: no index (`nan`), or 0 by the guarded division of the original (`zero`)."""

_GUARD = 1e-7
"""What the original adds to a standard deviation and to a divisor."""

_NOTHING = 1e-8
"""A numerator below it is 0 in the original."""

_WIDE = 1e-13
"""Relative error of a float64 sum of squares, and of moving it to another shift."""


@dataclass(frozen=True, eq=False)
class Covariances:
    """What indices are before they are divided by the variance, in the unit of the output squared.

    Attributes:
        first: V S_g.
        total: V ST_g.
        closed: V (S_gh + S_g + S_h), for g < h in the order of `combinations`; no row without second order.
        variance: V.
    """

    first: Float[np.ndarray, "g m"]
    total: Float[np.ndarray, "g m"]
    closed: Float[np.ndarray, "pairs m"]
    variance: Float[np.ndarray, "m"]


@dataclass(frozen=True, eq=False)
class SobolIndices:
    """Indices of each output.

    Attributes:
        first: share of the variance due to a group alone (0 to 1 but for noise).
        total: share due to a group with all it takes part in (0 to 1 but for noise, at least `first`).
        second: share due to two groups together and neither alone, for g < h in the order of `combinations`.
        variance: of the output (divisor n).
    """

    first: Float[np.ndarray, "g m"]
    total: Float[np.ndarray, "g m"]
    second: Float[np.ndarray, "pairs m"]
    variance: Float[np.ndarray, "m"]


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and variance (divisor n - 1) of each output over all rows of a design, and their number."""

    rows: int
    mean: Float[np.ndarray, "m"]
    variance: Float[np.ndarray, "m"]


def moments_of(sums: Sums) -> Moments:
    """Mean and variance of each output over all rows: the original's `sitv`."""
    rows = sums.count * len(sums.rows)
    mean = sums.rows.sum(0) / rows
    squares = np.maximum(sums.squares - rows * mean**2, 0.0)
    return Moments(rows, mean + sums.shift, squares / max(rows - 1, 1))


def moments_together(one: Moments, other: Moments) -> Moments:
    """Moments of the rows of two designs (Chan's update).

    Example:
        >>> parts = [Moments(2, np.array([m]), np.array([0.5])) for m in (1.0, 3.0)]
        >>> both = moments_together(*parts)
        >>> both.rows, both.mean.tolist(), both.variance.round(3).tolist()
        (4, [2.0], [1.667])
    """
    rows = one.rows + other.rows
    apart = other.mean - one.mean
    squares = one.variance * (one.rows - 1) + other.variance * (other.rows - 1)
    squares = squares + apart**2 * (one.rows * other.rows / rows)
    return Moments(rows, one.mean + apart * (other.rows / rows), squares / (rows - 1))


def sobol_indices(sums: Sums, *, halves: Halves = "both", ratio: Ratio = "nan") -> SobolIndices:
    """The indices of each scalar output.

    Args:
        sums: of a design.
        halves: as the sums were made.
        ratio: what becomes of outputs without variance.

    Example:
        >>> import torch
        >>> from neuronscope.maths.sobol import SaltelliDesign, SobolSums, sobol_points
        >>> design = SaltelliDesign(((0,), (1,)), sobol_points(2, 1024, scramble=np.random.default_rng(0)))
        >>> x = design.unit(np.arange(len(design)))
        >>> fold = SobolSums(("y",), groups=2)
        >>> y = torch.from_numpy(2 * x[:, :1] + x[:, 1:])
        >>> found = sobol_indices(fold.finish(fold.add(fold.start(), {"y": y}))["y"])
        >>> found.first[:, 0].round(2).tolist(), found.total[:, 0].round(2).tolist()
        ([0.8, 0.2], [0.8, 0.2])
    """
    if ratio == "zero":
        return guarded_indices(covariances(sums, halves=halves), moments_of(sums))
    return indices_from(covariances(sums, halves=halves))


def indices_from(parts: Covariances) -> SobolIndices:
    """Indices from covariances: of a design, of a unit, or a mean over several designs."""
    first, total = _divided(parts.first, parts.variance), _divided(parts.total, parts.variance)
    return SobolIndices(first, total, _interactions(_divided(parts.closed, parts.variance), first), parts.variance)


def per_unit(parts: Covariances, *, units: int) -> Covariances:
    """Covariances of each unit: sums over its positions, which stand one after another among the outputs.

    Args:
        parts: of m outputs, a multiple of `units`.
        units: of the layer.
    """

    def summed(values: np.ndarray) -> np.ndarray:
        return np.asarray(values.reshape(*values.shape[:-1], units, values.shape[-1] // units).sum(-1))

    return Covariances(summed(parts.first), summed(parts.total), summed(parts.closed), summed(parts.variance))


def covariances(sums: Sums, *, halves: Halves = "both") -> Covariances:
    """Numerators of the indices, and the variance they are divided by.

    Args:
        sums: of a design.
        halves: as the sums were made.
    """
    n, parts = sums.count, 2 if halves == "both" else 1
    groups = len(sums.first)
    mean = sums.rows.sum(0) / (n * len(sums.rows))  # relative to the shift
    a, b, ab = sums.rows[0], sums.rows[-1], sums.rows[1 : groups + 1]
    linear = ab - a
    if halves == "both":
        linear = linear + sums.rows[groups + 1 : -1] - b
        variance = _told_apart(sums, sums.squares, n * len(sums.rows), mean)
    else:
        variance = _told_apart(sums, sums.ends, 2 * n, (a + b) / (2 * n))
    closed = np.empty_like(sums.second)
    if len(closed):
        ba = sums.rows[groups + 1 : -1]
        product = sums.product - mean * (a + b) + n * mean**2
        for place, (g, h) in enumerate(combinations(range(groups), 2)):
            crossed = ba[g] + ab[h] + (ab[g] + ba[h] if halves == "both" else 0.0)
            closed[place] = (sums.second[place] - mean * crossed) / parts + n * mean**2 - product
    return Covariances(
        first=(sums.first - mean * linear) / (n * parts),
        total=sums.total / (2 * n * parts),
        closed=closed / n,
        variance=variance,
    )


def _told_apart(sums: Sums, squares: np.ndarray, rows: int, mean: np.ndarray) -> np.ndarray:
    """Variance from squares and mean relative to the shift; 0 where it cannot be told from rounding.

    Rounding is that of the sums, and that of the outputs themselves: a standard deviation below the last place of their
    mean is a constant in the eyes of the number format.
    """
    variance = squares / rows - mean**2
    last_place = sums.resolution * np.abs(sums.shift + mean)
    rounding = (sums.rounding + _WIDE * squares) / rows
    return np.where(variance <= np.maximum(rounding, last_place**2), 0.0, variance)


def _divided(above: np.ndarray, variance: np.ndarray) -> np.ndarray:
    return np.asarray(np.divide(above, variance, out=np.full_like(above, np.nan), where=variance > 0))


def _interactions(closed: np.ndarray, first: np.ndarray) -> np.ndarray:
    """What two groups explain together, less what either explains alone."""
    out = closed.copy()
    for place, (g, h) in enumerate(combinations(range(len(first)), 2) if len(closed) else ()):
        out[place] -= first[g] + first[h]
    return out


def guarded_indices(parts: Covariances, moments: Moments) -> SobolIndices:
    """Indices as the original divides: outputs scaled by std + 1e-7, then `a / (b + 1e-7)`, 0 where |a| <= 1e-8.

    An output that never changes has indices 0, not nan.

    Args:
        parts: of the outputs as they are.
        moments: of the outputs over all rows.
    """
    scale = (np.sqrt(moments.variance * (moments.rows - 1) / moments.rows) + _GUARD) ** 2
    variance = parts.variance / scale

    def share(above: np.ndarray) -> np.ndarray:
        return np.where(np.abs(above / scale) <= _NOTHING, 0.0, above / scale / (variance + _GUARD))

    first, total = share(parts.first), share(2 * parts.total) / 2
    return SobolIndices(first, total, _interactions(share(parts.closed), first), parts.variance)
