"""How sure an estimate is that was made several times over: scatter of independent replicates, and when to stop.

Points of a low-discrepancy sequence depend on each other, so an estimate's error cannot be read from within one
sequence. Independent scrambles (or sets of permutations) are independent estimates; their scatter gives Student's t
interval (L'Ecuyer and Lemieux 2002, "Recent advances in randomized quasi-Monte Carlo methods", section 1.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float

from neuronscope.errors import InputError


@dataclass(frozen=True, eq=False)
class Scatter:
    """Mean and spread of a quantity over replicates, without the replicates themselves.

    Attributes:
        count: replicates.
        mean: over them.
        squares: sum of squared deviations from the mean.
    """

    count: int
    mean: Float[np.ndarray, "*s"]
    squares: Float[np.ndarray, "*s"]

    @property
    def error(self) -> Float[np.ndarray, "*s"]:
        """Standard error of the mean; nan for a single replicate."""
        if self.count < 2:  # noqa: PLR2004 one number has no scatter
            return np.full_like(self.mean, np.nan)
        return np.asarray(np.sqrt(self.squares / ((self.count - 1) * self.count)))


@dataclass(frozen=True, eq=False)
class RatioScatter:
    """A ratio of two means over replicates, and its error, without the replicates themselves.

    The ratio of the means is far steadier than the mean of the ratios: a replicate in which the bottom happens to be
    nearly 0 hardly counts. Its error is that of the linearised ratio, `(top - ratio * bottom) / mean bottom` (W. G.
    Cochran, "Sampling Techniques" (1977), section 6.3).

    Attributes:
        top, bottom: of the replicates; the bottom's axes are the last ones of the top's.
        crossed: sum of products of their deviations.
    """

    top: Scatter
    bottom: Scatter
    crossed: Float[np.ndarray, "*s"]

    @property
    def ratio(self) -> Float[np.ndarray, "*s"]:
        """Mean top over mean bottom; nan where the bottom is not above 0."""
        bottom = np.where(self.bottom.mean > 0, self.bottom.mean, np.nan)
        return np.asarray(self.top.mean / bottom)

    @property
    def error(self) -> Float[np.ndarray, "*s"]:
        """Standard error of the ratio; nan for a single replicate."""
        count, ratio = self.top.count, self.ratio
        if count < 2:  # noqa: PLR2004 one number has no scatter
            return np.full_like(ratio, np.nan)
        squares = self.top.squares - 2 * ratio * self.crossed + ratio**2 * self.bottom.squares
        bottom = np.where(self.bottom.mean > 0, self.bottom.mean, np.nan)
        return np.asarray(np.sqrt(np.maximum(squares, 0.0) / ((count - 1) * count)) / bottom)


@dataclass(frozen=True, eq=False)
class Interval:
    """Ends of an interval, both of the shape of the estimate."""

    low: Float[np.ndarray, "*s"]
    high: Float[np.ndarray, "*s"]


def scattered(before: Scatter | None, values: Float[np.ndarray, "*s"]) -> Scatter:
    """The scatter after one more replicate (Welford's update).

    Args:
        before: None at the first.
        values: of the new replicate.

    Example:
        >>> found = None
        >>> for value in (1.0, 2.0, 3.0):
        ...     found = scattered(found, np.array([value]))
        >>> found.count, found.mean.tolist(), found.error.round(3).tolist()
        (3, [2.0], [0.577])
    """
    if before is None:
        return Scatter(1, values, np.zeros_like(values))
    count = before.count + 1
    apart = values - before.mean
    mean = before.mean + apart / count
    return Scatter(count, mean, before.squares + apart * (values - mean))


def ratio_scattered(
    before: RatioScatter | None, top: Float[np.ndarray, "*s"], bottom: Float[np.ndarray, "*t"]
) -> RatioScatter:
    """The scatter of a ratio after one more replicate.

    Args:
        before: None at the first.
        top: of the new replicate.
        bottom: of the new replicate; it is broadcast against the top.

    Example:
        >>> found = None
        >>> for top, bottom in ((1.0, 2.0), (2.0, 4.0), (3.0, 6.0)):
        ...     found = ratio_scattered(found, np.array([top]), np.array([bottom]))
        >>> found.ratio.tolist(), found.error.tolist()
        ([0.5], [0.0])
    """
    if before is None:
        return RatioScatter(scattered(None, top), scattered(None, bottom), np.zeros_like(top))
    after_bottom = scattered(before.bottom, bottom)
    crossed = before.crossed + (top - before.top.mean) * (bottom - after_bottom.mean)
    return RatioScatter(scattered(before.top, top), after_bottom, crossed)


def ratio_parts(top: Float[np.ndarray, "r *s"], bottom: Float[np.ndarray, "r *t"]) -> Float[np.ndarray, "r *s"]:
    """What each replicate says of a ratio of means, linearised: its mean is the ratio, its scatter the ratio's.

    Args:
        top: of each replicate.
        bottom: of each replicate; one that is broadcast against the top.

    Returns:
        `ratio + (top - ratio * bottom) / mean bottom`; nan where the mean bottom is not above 0.

    Example:
        >>> ratio_parts(np.array([1.0, 3.0]), np.array([2.0, 2.0])).tolist()
        [0.5, 1.5]
    """
    mean = bottom.mean(0)
    mean = np.where(mean > 0, mean, np.nan)
    ratio = top.mean(0) / mean
    return np.asarray(ratio + (top - ratio * bottom) / mean)


def t_quantile(count: int, level: float) -> float:
    """How many standard errors an interval of that coverage reaches to either side; nan for a single replicate.

    Example:
        >>> round(t_quantile(8, 0.95), 3)
        2.365
    """
    from scipy import stats

    return float(stats.t.ppf(0.5 + level / 2, count - 1)) if count > 1 else float("nan")


def t_interval(estimate: Float[np.ndarray, "*s"], scatter: Scatter, *, level: float = 0.95) -> Interval:
    """Student's t interval around an estimate, of replicates that scatter as given.

    Args:
        estimate: its middle: the mean over replicates, or the estimate from all of them pooled.
        scatter: of the replicates.
        level: coverage.

    Example:
        >>> scatter = Scatter(4, np.array([0.5]), np.array([0.03]))
        >>> found = t_interval(np.array([0.5]), scatter)
        >>> found.low.round(2).tolist(), found.high.round(2).tolist()
        ([0.34], [0.66])
    """
    reach = t_quantile(scatter.count, level) * scatter.error
    return Interval(estimate - reach, estimate + reach)


def above_zero_p(values: Float[np.ndarray, "r *s"]) -> Float[np.ndarray, "*s"]:
    """One-sided p-value of a mean that is above 0, by Student's t over replicates (0 to 1).

    1 where all replicates are 0 (nothing was found); nan where one is nan, or with a single replicate.

    Example:
        >>> above_zero_p(np.array([[0.1, 0.0], [0.11, 0.0], [0.09, 0.0]])).round(3).tolist()
        [0.002, 1.0]
    """
    from scipy import stats

    count = len(values)
    if count < 2:  # noqa: PLR2004 one number has no scatter
        return np.full(values.shape[1:], np.nan)
    mean, error = values.mean(0), values.std(0, ddof=1) / np.sqrt(count)
    t = np.divide(mean, error, out=np.where(mean > 0, np.inf, -np.inf), where=error > 0)
    found = np.asarray(stats.t.sf(t, count - 1))
    return np.where(np.isnan(mean), np.nan, found)


def settled_pairs(
    values: Float[np.ndarray, "r *s g"], *, tolerance: float, level: float = 0.95, looks: int = 1
) -> Bool[np.ndarray, "*s pairs"]:
    """Of which two the order is known: one is surely larger, or they surely differ by less than matters.

    Differences are paired within replicates. Looking again after every replicate gives chance several tries, so the
    error of a look is `(1 - level) / looks` (Bonferroni); so is that of several orders looked at together, if `looks`
    counts those too.

    Args:
        values: of g things in r replicates.
        tolerance: a difference that does not matter, in the unit of the values.
        level: confidence in all looks together.
        looks: how often this question is asked.

    Returns:
        A row for each pair, in the order of `combinations`; True where a value is nan in all replicates (there is
        nothing to settle), False with fewer than two replicates.

    Raises:
        InputError: a tolerance below 0, or less than one look.

    Example:
        >>> values = np.array([[0.5, 0.1, 0.11], [0.52, 0.12, 0.1], [0.49, 0.1, 0.1], [0.5, 0.11, 0.11]])
        >>> settled_pairs(values, tolerance=0.05).tolist(), settled_pairs(values, tolerance=0.0).tolist()
        ([True, True, True], [True, True, False])
    """
    if tolerance < 0 or looks < 1:
        message = f"a tolerance of {tolerance} with {looks} looks: expected 0 or more, and at least one look"
        raise InputError(message)
    count, groups = len(values), values.shape[-1]
    pairs = list(combinations(range(groups), 2))
    one, other = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    apart = values[..., one] - values[..., other]
    void = np.isnan(apart).all(0)
    if count < 2:  # noqa: PLR2004 one number has no scatter
        return np.asarray(void)
    mean, error = apart.mean(0), apart.std(0, ddof=1) / np.sqrt(count)
    reach = t_quantile(count, 1 - (1 - level) / looks) * error
    return np.asarray(void | (np.abs(mean) > reach) | (np.abs(mean) + reach < tolerance))
