"""Do factors that matter for a unit go together from unit to unit? Correlations across units, at every place of a map.

At each place the values of all units are correlated between factors; what is reported is the mean of these
coefficients over places and their spread. Neighbouring places say nearly the same, and they are not what was sampled:
intervals and p-values count units. They come from the infinitesimal jackknife: by how much the mean coefficient would
change if one unit had a little more weight. For ranks this counts that all other units' ranks would move too.

The spread over places says how far the correlation differs from place to place; it is no error. Comparing whole
matrices, of layers or of two networks, is in `correlation_matrices`.

Sources: B. Efron, "The Jackknife, the Bootstrap and Other Resampling Plans" (1982), chapter 6 (the infinitesimal
jackknife); R. A. Fisher, "On the 'probable error' of a coefficient of correlation", Metron 1 (1921) (the scale of z).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

from neuronscope.errors import InputError
from neuronscope.maths.ranks import midranks
from neuronscope.maths.resampling import bh_qvalues, by_qvalues

Method = Literal["spearman", "pearson", "kendall"]
"""Of ranks, of values, of pairs in the same order (tau-b)."""
Missing = Literal["all", "any", "zero"]
"""A mean is nan where `all` its coefficients are, the others being left out; or where `any` is; or, as published, it
counts those that are nan as 0 and is nan where all are."""
Correction = Literal["by", "bh"]
"""Benjamini-Yekutieli, which holds for any dependence of the entries of a matrix, or Benjamini-Hochberg."""

MEAN_FLOOR = 1e-5
"""Added to the size of the mean in a coefficient of variation, as published."""

_BLOCK = 2**16
"""Numbers of one array worked on at a time: within the processor's cache, twice as fast as sixteen times as many."""
_ROUNDING = 1e-12
"""Distance from 1 of a full correlation."""
_FEWEST = 4
"""Units from which an interval is given."""


@dataclass(frozen=True, eq=False)
class MeanCorrelations:
    """Mean coefficients of several correlations between g factors and h factors; nan where nothing can be said.

    Attributes:
        mean: -1 to 1, over places (or units, where each unit has its coefficient).
        deviation: standard deviation over the same (divided by their number - 1).
        low, high: limits of the mean for other units of the same kind; nan with fewer than four units.
        p: two-sided, of a mean of 0.
        q: corrected over the matrix; of a matrix between a set of factors and itself each pair counts once.
        counted: coefficients in each mean.
        units: units that have a value anywhere.
    """

    mean: Float[np.ndarray, "g h"]
    deviation: Float[np.ndarray, "g h"]
    low: Float[np.ndarray, "g h"]
    high: Float[np.ndarray, "g h"]
    p: Float[np.ndarray, "g h"]
    q: Float[np.ndarray, "g h"]
    counted: Int[np.ndarray, "g h"]
    units: int


def coefficient_of_variation(
    mean: Float[np.ndarray, "*s"], variance: Float[np.ndarray, "*s"]
) -> Float[np.ndarray, "*s"]:
    """Standard deviation by size of the mean, which is floored as published: `sqrt(variance) / (|mean| + 1e-5)`.

    Example:
        >>> coefficient_of_variation(np.array([2.0, -1.0]), np.array([1.0, 4.0])).round(3).tolist()
        [0.5, 2.0]
    """
    return np.asarray(np.sqrt(np.maximum(variance, 0.0)) / (np.abs(mean) + MEAN_FLOOR))


def place_correlations(
    first: Float[np.ndarray, "u p g"],
    second: Float[np.ndarray, "_ _ h"] | None = None,
    *,
    method: Method = "spearman",
) -> Float[np.ndarray, "p g h"]:
    """The correlation across units at every place, between the factors of one value or of two.

    Units that lack any of the factors at a place are left out there. With units and places exchanged it is the
    correlation across places for every unit.

    Args:
        first: a value of each unit, place and factor.
        second: another value; the first one again when None.
        method: which coefficient.

    Returns:
        -1 to 1; nan where a factor is constant over the units that are known, or fewer than two are.

    Raises:
        InputError: the two values are not of the same units and places.

    Example:
        >>> values = np.array([[[1.0, 6.0]], [[2.0, 5.0]], [[3.0, 1.0]]])
        >>> place_correlations(values)[0].round(6).tolist()
        [[1.0, -1.0], [-1.0, 1.0]]
    """
    h = (first if second is None else second).shape[2]
    found = np.empty((first.shape[1], first.shape[2], h))
    for block, x, y, known in _blocks(first, second, method=method):
        found[block] = _signs(x, y, known)[0] if method == "kendall" else _moments(x, y, known, method=method).value
    return found


def correlations_across_units(
    first: Float[np.ndarray, "u p g"],
    second: Float[np.ndarray, "_ _ h"] | None = None,
    *,
    method: Method = "spearman",
    missing: Missing = "all",
    correction: Correction = "by",
    level: float = 0.95,
) -> MeanCorrelations:
    """Mean over places of the correlations across units, with intervals that count units.

    Args:
        first: a value of each unit, place and factor.
        second: another value of the same units and places; the first one again when None.
        method: which coefficient.
        missing: what places without a coefficient mean.
        correction: of p-values over the matrix.
        level: coverage of the intervals.

    Raises:
        InputError: the two values are not of the same units and places.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(40, 6, 1))
        >>> found = correlations_across_units(np.concatenate([x, -(x**3)], axis=2))
        >>> found.mean.round(6).tolist(), found.units
        ([[1.0, -1.0], [-1.0, 1.0]], 40)
    """
    shape = (first.shape[2], (first if second is None else second).shape[2])
    coefficients = np.empty((first.shape[1], *shape))
    change = np.zeros((len(first), *shape))
    seen = np.zeros(len(first), dtype=bool)
    for block, x, y, known in _blocks(first, second, method=method):
        if method == "kendall":
            coefficients[block], moved = _signs(x, y, known)
        else:
            moments = _moments(x, y, known, method=method)
            coefficients[block] = moments.value
            moved = moments.change(ranked=method == "spearman", same=second is None)
        change += moved
        seen |= known.any(axis=0)
    mean, deviation, counted = over(coefficients, missing=missing)
    units = int(seen.sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt(units / (units - 1) * (change**2).sum(axis=0)) / counted if units > 1 else mean * np.nan
    return _judged(mean, deviation, error, counted, units, same=second is None, correction=correction, level=level)


def mean_correlations(
    matrices: Float[np.ndarray, "u g h"],
    *,
    missing: Missing = "all",
    correction: Correction = "by",
    level: float = 0.95,
    same: Literal["same", "other"] = "same",
) -> MeanCorrelations:
    """Mean over units that have a correlation matrix each (across their places), with intervals that count units.

    Args:
        matrices: of each unit, as `place_correlations` gives them with units and places exchanged.
        missing: what units without a coefficient mean.
        correction: of p-values over the matrix.
        level: coverage of the intervals.
        same: whether rows and columns are the same factors of the same value.

    Example:
        >>> of_units = np.array([[[1.0, 0.5], [0.5, 1.0]], [[1.0, 0.3], [0.3, 1.0]]])
        >>> mean_correlations(of_units).mean[0, 1]
        np.float64(0.4)
    """
    mean, deviation, counted = over(matrices, missing=missing)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = deviation / np.sqrt(counted)
    units = int(np.isfinite(matrices).any(axis=(1, 2)).sum())
    return _judged(mean, deviation, error, counted, units, same=same == "same", correction=correction, level=level)


def over(
    coefficients: Float[np.ndarray, "p *s"], *, missing: Missing
) -> tuple[Float[np.ndarray, "*s"], Float[np.ndarray, "*s"], Int[np.ndarray, "*s"]]:
    """Mean, standard deviation (divided by the number - 1) and number of coefficients along the first axis.

    Args:
        coefficients: nan where there is none.
        missing: what those that are nan mean, see `Missing`.

    Example:
        >>> r = np.array([[0.5, 0.1], [0.7, np.nan]])
        >>> over(r, missing="all")[0].tolist(), over(r, missing="any")[0].tolist(), over(r, missing="zero")[0].tolist()
        ([0.6, 0.1], [0.6, nan], [0.6, 0.05])
    """
    known = np.isfinite(coefficients)
    there = known.sum(axis=0)
    counted = np.full(there.shape, len(coefficients)) if missing == "zero" else there
    filled = np.where(known, coefficients, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = filled.sum(axis=0) / counted
        apart = np.where(known | (missing == "zero"), filled - mean, 0.0)
        deviation = np.sqrt((apart**2).sum(axis=0) / np.where(counted > 1, counted - 1, np.nan))
    void = there < len(coefficients) if missing == "any" else there == 0
    return np.where(void, np.nan, mean), np.where(void, np.nan, deviation), np.where(void, 0, counted)


def _judged(
    mean: np.ndarray,
    deviation: np.ndarray,
    error: np.ndarray,
    counted: np.ndarray,
    units: int,
    *,
    same: bool,
    correction: Correction,
    level: float,
) -> MeanCorrelations:
    """Limits and p-values on the scale of z by Student's t with one degree of freedom fewer than units."""
    full = np.abs(mean) >= 1 - _ROUNDING
    middle = np.arctanh(np.where(full, 0.0, mean))
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.where((units >= _FEWEST) & ~full & (error > 0), error / (1 - mean**2), np.nan)
    half = float(special.stdtrit(max(units - 1, 1), (1 + level) / 2)) * error
    low, high = (np.where(full, np.sign(mean), np.tanh(middle + sign * half)) for sign in (-1, 1))
    p = np.asarray(2 * special.stdtr(max(units - 1, 1), -np.abs(middle / error)))
    adjusted = by_qvalues if correction == "by" else bh_qvalues
    if same:
        q, upper = np.full(p.shape, np.nan), np.triu_indices(len(p), 1)
        q[upper] = adjusted(p[upper])
        q.T[upper] = q[upper]
    else:
        q = adjusted(p)
    return MeanCorrelations(mean, deviation, low, high, p, q, counted, units)


def _blocks(
    first: np.ndarray, second: np.ndarray | None, *, method: Method
) -> Iterator[tuple[slice, Float[np.ndarray, "b u g"], Float[np.ndarray, "b u h"], Bool[np.ndarray, "b u"]]]:
    """Some places at a time, places first: both values with nan in units that are not known, and which are."""
    if second is not None and first.shape[:2] != second.shape[:2]:
        message = (
            f"two values cannot be correlated: the same units and places expected, got {first.shape[:2]} and "
            f"{second.shape[:2]}. Take both from the same layer of the same result"
        )
        raise InputError(message)
    units, places, g = first.shape
    width = max(g, 1 if second is None else second.shape[2]) * (units if method == "kendall" else 1)
    step = max(1, _BLOCK // max(units * width, 1))
    for start in range(0, places, step):
        block = slice(start, min(start + step, places))
        x = np.moveaxis(first[:, block], 1, 0).astype(np.float64)
        y = x if second is None else np.moveaxis(second[:, block], 1, 0).astype(np.float64)
        known = np.asarray(np.isfinite(x).all(axis=2) & np.isfinite(y).all(axis=2))
        x = np.where(known[..., None], x, np.nan)
        yield block, x, x if second is None else np.where(known[..., None], y, np.nan), known


@dataclass(frozen=True, eq=False)
class _Moments:
    """Products of scores (values or ranks) at some places: centred and of length 1, 0 where unknown or constant."""

    value: Float[np.ndarray, "b g h"]
    x: Float[np.ndarray, "b u g"]
    y: Float[np.ndarray, "b u h"]
    x_length: Float[np.ndarray, "b g"]
    y_length: Float[np.ndarray, "b h"]
    known: Bool[np.ndarray, "b u"]

    def change(self, *, ranked: bool, same: bool) -> Float[np.ndarray, "u g h"]:
        """Derivative of the coefficients, summed over places, by the weight of each unit.

        With products N_xy of the weighted scores, the coefficient is N_xy / sqrt(N_xx N_yy), and so its derivative is
        N'_xy - r (N'_xx + N'_yy) / 2 for scores of length 1.
        """
        value = np.where(np.isfinite(self.value), self.value, 0.0)
        own = np.matmul(self.x.transpose(1, 2, 0), self.y.transpose(1, 0, 2))
        x_square, y_square = self.x**2, self.y**2
        if ranked:
            across = _moved(self.x, self.y, self.x_length, self.known)
            back = across if same else _moved(self.y, self.x, self.y_length, self.known)
            own += across + back.transpose(0, 2, 1)
            x_square = x_square + 2 * _moved_alone(self.x, self.x_length, self.known)
            y_square = x_square if same else y_square + 2 * _moved_alone(self.y, self.y_length, self.known)
        by_x = np.matmul(x_square.transpose(2, 1, 0), value.transpose(1, 0, 2)).transpose(1, 0, 2)
        by_y = np.matmul(y_square.transpose(2, 1, 0), value.transpose(2, 0, 1)).transpose(1, 2, 0)
        return np.asarray(own - (by_x + by_y) / 2)


def _moments(x: np.ndarray, y: np.ndarray, known: np.ndarray, *, method: Method) -> _Moments:
    """Scores of some places and their products."""
    unit_x, x_length = _scores(x, known, method=method)
    unit_y, y_length = (unit_x, x_length) if y is x else _scores(y, known, method=method)
    void = (x_length == 0)[:, :, None] | (y_length == 0)[:, None, :]
    value = np.clip(np.matmul(unit_x.transpose(0, 2, 1), unit_y), -1.0, 1.0)
    return _Moments(np.where(void, np.nan, value), unit_x, unit_y, x_length, y_length, known)


def _scores(
    x: Float[np.ndarray, "b u g"], known: Bool[np.ndarray, "b u"], *, method: Method
) -> tuple[Float[np.ndarray, "b u g"], Float[np.ndarray, "b g"]]:
    """Values or midranks of the known units, centred and of length 1, and their length before; 0 for constants."""
    there = known[..., None]
    if method == "spearman":
        # infinity ranks behind all known units, whose ranks are then their own
        by_unit = np.where(there, x, np.inf).transpose(1, 0, 2)
        x = midranks(by_unit.reshape(len(by_unit), -1)).reshape(by_unit.shape).transpose(1, 0, 2)
    varies = np.where(there, x, -np.inf).max(axis=1) > np.where(there, x, np.inf).min(axis=1)
    filled = np.where(there, x, 0.0)
    mean = filled.sum(axis=1) / np.maximum(known.sum(axis=1), 1)[:, None]
    centred = np.where(there & varies[:, None, :], filled - mean[:, None, :], 0.0)
    length = np.sqrt((centred**2).sum(axis=1))
    return centred / np.where(length > 0, length, 1.0)[:, None, :], length


def _moved(x: np.ndarray, y: np.ndarray, length: np.ndarray, known: np.ndarray) -> Float[np.ndarray, "u g h"]:
    """Change of N_xy, summed over places, as more weight of a unit raises the ranks above its own."""
    found = [np.einsum("buh,b->uh", _above(x[:, :, g], y, known), _inverse(length[:, g])) for g in range(x.shape[2])]
    return np.stack(found, axis=1)


def _moved_alone(x: np.ndarray, length: np.ndarray, known: np.ndarray) -> Float[np.ndarray, "b u g"]:
    """The same of each factor with itself, at each place."""
    found = [
        _above(x[:, :, g], x[:, :, g : g + 1], known)[..., 0] * _inverse(length[:, g])[:, None]
        for g in range(x.shape[2])
    ]
    return np.stack(found, axis=2)


def _inverse(length: np.ndarray) -> np.ndarray:
    return np.where(length > 0, 1 / np.where(length > 0, length, 1.0), 0.0)


def _above(
    ranked: Float[np.ndarray, "b u"], y: Float[np.ndarray, "b u h"], known: Bool[np.ndarray, "b u"]
) -> Float[np.ndarray, "b u h"]:
    """Sum of y over the units that rank above each unit, those that tie with it counting one half.

    The sum of all y is 0, so it is minus the sum over those below, from one running sum in the order of ranks.
    """
    places, units, _ = y.shape
    order = np.argsort(ranked, axis=1)
    values = np.take_along_axis(ranked, order, axis=1)
    count = np.arange(units)
    new = np.ones(values.shape, dtype=bool)
    np.not_equal(values[:, 1:], values[:, :-1], out=new[:, 1:])
    starts = np.maximum.accumulate(np.where(new, count, 0), axis=1)
    last = np.concatenate([new[:, 1:], np.ones((places, 1), dtype=bool)], axis=1)
    ends = np.minimum.accumulate(np.where(last, count + 1, units)[:, ::-1], axis=1)[:, ::-1]
    running = np.zeros((places, units + 1, y.shape[2]))
    np.cumsum(np.take_along_axis(y, order[..., None], axis=1), axis=1, out=running[:, 1:])
    of_unit = np.empty((2, *order.shape), dtype=order.dtype)
    for own, ends_of in zip(of_unit, (starts, ends), strict=True):
        np.put_along_axis(own, order, ends_of, axis=1)
    below = sum(np.take_along_axis(running, own[..., None], axis=1) for own in of_unit)
    return np.where(known[..., None], -below / 2, 0.0)


def _signs(
    x: Float[np.ndarray, "b u g"], y: Float[np.ndarray, "b u h"], known: Bool[np.ndarray, "b u"]
) -> tuple[Float[np.ndarray, "b g h"], Float[np.ndarray, "u g h"]]:
    """Kendall's tau-b at some places, and its derivative, summed over places, by the weight of each unit.

    Sources: M. G. Kendall, "The treatment of ties in ranking problems", Biometrika 33 (1945).
    """
    pair = (known[:, :, None] & known[:, None, :])[..., None]
    one, other = (
        np.where(pair, np.sign(values[:, :, None, :] - values[:, None, :, :]), 0.0).astype(np.float32)
        for values in (x, y)
    )
    both = np.matmul(one.transpose(0, 1, 3, 2), other).astype(np.float64)
    alone, beside = ((sign**2).sum(axis=2, dtype=np.float64) for sign in (one, other))
    all_both, all_alone, all_beside = (part.sum(axis=1) for part in (both, alone, beside))
    scale = np.sqrt(all_alone[:, :, None] * all_beside[:, None, :])
    weight = _inverse(scale)
    value = all_both * weight
    shares = alone * _inverse(all_alone)[:, None, :], beside * _inverse(all_beside)[:, None, :]
    change = 2 * both * weight[:, None] - value[:, None] * (shares[0][..., None] + shares[1][..., None, :])
    return np.where(scale > 0, np.clip(value, -1.0, 1.0), np.nan), change.sum(axis=0)
