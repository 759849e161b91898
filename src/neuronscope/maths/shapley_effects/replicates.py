"""How sure one can be of effects: several designs with independent permutations and draws, and Student's t over them.

The effects of one design are means over its permutations; designs are independent and alike, so that their scatter
says how sure one can be whatever the output. Shares are ratios of two such means: theirs is the scatter of the
linearised ratio around the share of the pooled effects (W. G. Cochran, "Sampling Techniques" (1977), section 6.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from neuronscope.errors import InputError
from neuronscope.maths.shapley_effects.effects import ShapleyEffects, shares_of


@dataclass(frozen=True, eq=False)
class Estimate:
    """An estimate with its interval.

    Attributes:
        value: pooled over the replicates.
        error: its standard error; nan for one replicate.
        low, high: limits of Student's t interval with one degree of freedom less than replicates. Not cut at 0: an
            interval around 0 says that nothing was found.
    """

    value: Float[np.ndarray, "g m"]
    error: Float[np.ndarray, "g m"]
    low: Float[np.ndarray, "g m"]
    high: Float[np.ndarray, "g m"]


@dataclass(frozen=True, eq=False)
class ReplicatedEffects:
    """Effects from several independent designs of the same size.

    Attributes:
        effects: share of each player in the variance, in the unit of the output squared.
        shares: effects over their sum; they add up to 1, and are nan for outputs that did not vary.
        mean, variance: of the output, pooled.
    """

    effects: Estimate
    shares: Estimate
    mean: Float[np.ndarray, "m"]
    variance: Float[np.ndarray, "m"]


def replicated(found: Sequence[ShapleyEffects], *, level: float = 0.95) -> ReplicatedEffects:
    """Pool the effects of independent designs of the same size.

    An output that hardly ever varies may do so in no replicate: its interval of width 0 is as good as the rows.

    Args:
        found: effects by design.
        level: coverage of the intervals, between 0 and 1.

    Raises:
        InputError: no designs, or a level not between 0 and 1.

    Example:
        >>> one, other = (
        ...     ShapleyEffects(np.array([[e], [1.0]]), np.zeros(1), np.ones(1)) for e in (2.0, 4.0)
        ... )
        >>> pooled = replicated([one, other])
        >>> pooled.shares.value.tolist(), pooled.effects.error[0].tolist()
        ([[0.75], [0.25]], [1.0])
    """
    if not found or not 0 < level < 1:
        message = (
            f"effects are pooled over at least 1 design with a level between 0 and 1, got {len(found)} designs and "
            f"level {level}"
        )
        raise InputError(message)
    effects = np.stack([one.effects for one in found])
    effects[np.isinf(effects)] = np.nan  # no estimate and no error of it
    pooled = effects.mean(axis=0)
    shares = shares_of(pooled)
    total = np.where(np.isnan(shares).all(axis=0), np.nan, pooled.sum(axis=0))
    # what is left of each replicate's effects when the pooled share of its own total is taken away has the mean 0
    left = (effects - shares * effects.sum(axis=1, keepdims=True)) / total
    return ReplicatedEffects(
        effects=_estimate(pooled, effects - pooled, level=level),
        shares=_estimate(shares, left, level=level),
        mean=np.mean([one.mean for one in found], axis=0),
        variance=np.mean([one.variance for one in found], axis=0),
    )


def _estimate(value: np.ndarray, deviations: np.ndarray, *, level: float) -> Estimate:
    """An estimate from its value and the deviations (r, g, m) of its replicates."""
    count = len(deviations)
    if count == 1:
        unknown = np.full(value.shape, np.nan)
        return Estimate(value, unknown, unknown, unknown)
    error = np.sqrt((deviations**2).sum(axis=0) / (count - 1) / count)
    half = float(stats.t.ppf((1 + level) / 2, count - 1)) * error
    return Estimate(value, error, value - half, value + half)
