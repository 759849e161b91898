"""From sums to indices: first order, total and second order of each scalar output, and of each unit as a whole.

With f centred at its mean over all rows and V the variance of f over A and B together:

    S_g  = mean[ f(B) (f(AB_g) - f(A)) ] / V                         (Saltelli et al. 2010, table 2 b)
    ST_g = mean[ (f(AB_g) - f(A))^2 ] / (2 V)                        (Jansen 1999)
    S_gh = mean[ f(BA_g) f(AB_h) - f(A) f(B) ] / V - S_g - S_h       (Saltelli 2002)

With both halves every mean is also taken with A and B exchanged. An output whose variance is 0 has no index: nan.

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


@dataclass(frozen=True, eq=False)
class SobolIndices:
    """Indices of each output.

    Attributes:
        first: share of the variance due to a group alone (0 to 1 but for noise).
        total: share due to a group with all it takes part in (0 to 1 but for noise, at least `first`).
        second: share due to two groups together and neither alone, for g < h in the order of `combinations`.
        variance: of the output over A and B (divisor n).
    """

    first: Float[np.ndarray, "g m"]
    total: Float[np.ndarray, "g m"]
    second: Float[np.ndarray, "pairs m"]
    variance: Float[np.ndarray, "m"]


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and variance (divisor n - 1) of each output over all rows of a design."""

    mean: Float[np.ndarray, "m"]
    variance: Float[np.ndarray, "m"]


@dataclass(frozen=True, eq=False)
class _Numerators:
    """Covariances: what indices are before they are divided by the variance."""

    first: np.ndarray
    total: np.ndarray
    second: np.ndarray
    variance: np.ndarray


def moments_of(sums: Sums) -> Moments:
    """Mean and variance of each output over all rows: the original's `sitv`."""
    rows = sums.count * len(sums.rows)
    mean = sums.rows.sum(0) / rows
    squares = np.maximum(sums.squares - rows * mean**2, 0.0)
    return Moments(mean + sums.shift, squares / max(rows - 1, 1))


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
    parts = _numerators(sums, halves)
    if ratio == "zero":
        return _guarded(sums, parts)
    first, total = _divided(parts.first, parts.variance), _divided(parts.total, parts.variance)
    return SobolIndices(first, total, _interactions(_divided(parts.second, parts.variance), first), parts.variance)


def per_unit(sums: Sums, *, units: int, halves: Halves = "both") -> SobolIndices:
    """The indices of each unit, whose positions stand one after another among the outputs.

    Args:
        sums: of m outputs, a multiple of `units`.
        units: of the layer.
        halves: as the sums were made.
    """
    parts = _numerators(sums, halves)

    def summed(values: np.ndarray) -> np.ndarray:
        return np.asarray(values.reshape(*values.shape[:-1], units, -1).sum(-1))

    variance = summed(parts.variance)
    first, total = _divided(summed(parts.first), variance), _divided(summed(parts.total), variance)
    return SobolIndices(first, total, _interactions(_divided(summed(parts.second), variance), first), variance)


def _numerators(sums: Sums, halves: Halves) -> _Numerators:
    n, parts = sums.count, 2 if halves == "both" else 1
    groups = len(sums.first)
    mean = sums.rows.sum(0) / (n * len(sums.rows))  # relative to the shift
    a, b, ab = sums.rows[0], sums.rows[-1], sums.rows[1 : groups + 1]
    linear = ab - a
    if halves == "both":
        linear = linear + sums.rows[groups + 1 : -1] - b
    variance = sums.ends / (2 * n) - ((a + b) / (2 * n)) ** 2
    # rounding alone: the squares themselves are known to about 1e-7 of their size
    variance = np.where(variance > _relative_noise(sums.ends / (2 * n)), variance, 0.0)
    second = np.empty_like(sums.second)
    if len(second):
        ba = sums.rows[groups + 1 : -1]
        product = sums.product - mean * (a + b) + n * mean**2
        for place, (g, h) in enumerate(combinations(range(groups), 2)):
            crossed = ba[g] + ab[h] + (ab[g] + ba[h] if halves == "both" else 0.0)
            second[place] = (sums.second[place] - mean * crossed) / parts + n * mean**2 - product
    return _Numerators(
        first=(sums.first - mean * linear) / (n * parts),
        total=sums.total / (2 * n * parts),
        second=second / n,
        variance=variance,
    )


def _relative_noise(size: np.ndarray) -> np.ndarray:
    """The variance that float64 sums of squares of this size cannot tell from 0."""
    return np.asarray(1e-13 * size)


def _divided(above: np.ndarray, variance: np.ndarray) -> np.ndarray:
    return np.divide(above, variance, out=np.full_like(above, np.nan), where=variance > 0)


def _interactions(closed: np.ndarray, first: np.ndarray) -> np.ndarray:
    """What two groups explain together, less what either explains alone."""
    out = closed.copy()
    for place, (g, h) in enumerate(combinations(range(len(first)), 2) if len(closed) else ()):
        out[place] -= first[g] + first[h]
    return out


def _guarded(sums: Sums, parts: _Numerators) -> SobolIndices:
    """Indices as the original divides: outputs scaled by std + 1e-7, then `a / (b + 1e-7)`, 0 where |a| <= 1e-8."""
    rows = sums.count * len(sums.rows)
    mean = sums.rows.sum(0) / rows
    scale = (np.sqrt(np.maximum(sums.squares / rows - mean**2, 0.0)) + _GUARD) ** 2
    variance = parts.variance / scale

    def share(above: np.ndarray) -> np.ndarray:
        return np.where(np.abs(above / scale) <= _NOTHING, 0.0, above / scale / (variance + _GUARD))

    first, total = share(parts.first), share(2 * parts.total) / 2
    return SobolIndices(first, total, _interactions(share(parts.second), first), parts.variance)
