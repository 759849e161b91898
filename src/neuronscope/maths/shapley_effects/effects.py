"""From sums to shares: effects of each scalar output, of each unit as a whole, and as the original puts them.

Effects are variances, in the unit of the output squared. They add up to the output's variance; being estimates, single
ones may be negative, and are left so: clipping would put the mean of noise above 0. A share is an effect over the sum
of all.

For a unit as a whole the effects are added up over the positions of its map before dividing (as generalised Sobol
indices: M. Lamboni, H. Monod, D. Makowski, Reliab. Eng. Syst. Saf. 96 (2011)), so that positions which hardly vary
hardly count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from neuronscope.errors import InputError

_CANCELLED = 1e-6
"""A sum of effects below this part of their magnitudes is rounding: of float32 products, the largest error."""

_GUARD = 1e-20
"""What the original adds to a divisor."""

_NOTHING = 1e-8
"""A share below it is 0 in the original."""


@dataclass(frozen=True, eq=False)
class ShapleyEffects:
    """What a design says of each output.

    Attributes:
        effects: share of each player in the variance, in the unit of the output squared; noise may make it negative.
        mean: of the output over all rows: the original's `means`.
        variance: of the output, from the rows that are independent draws of all inputs (divisor n - 1): the original's
            `shptv`. The sum of the effects estimates the same.
    """

    effects: Float[np.ndarray, "g m"]
    mean: Float[np.ndarray, "m"]
    variance: Float[np.ndarray, "m"]

    @property
    def total(self) -> Float[np.ndarray, "m"]:
        """Sum of the effects: an unbiased estimate of the variance."""
        return np.asarray(self.effects.sum(axis=0))

    @property
    def shares(self) -> Float[np.ndarray, "g m"]:
        """Effects over their sum; nan for an output that did not vary."""
        return shares_of(self.effects)


def shares_of(effects: Float[np.ndarray, "g m"]) -> Float[np.ndarray, "g m"]:
    """Effects over their sum: they add up to 1 (single ones are 0 to 1 but for noise).

    Returns:
        nan for outputs whose effects have no positive sum: those that are dead, or varied too rarely to say.

    Example:
        >>> shares_of(np.array([[3.0, 0.0], [1.0, 0.0]])).tolist()
        [[0.75, nan], [0.25, nan]]
    """
    with np.errstate(invalid="ignore"):  # infinite outputs
        total = effects.sum(axis=0)
        known = total > _CANCELLED * np.abs(effects).sum(axis=0)
        return np.asarray(effects / np.where(known, total, np.nan))


def per_unit(found: ShapleyEffects, *, units: int) -> ShapleyEffects:
    """Effects of each unit as a whole, whose positions stand one after another among the outputs.

    Effects and variances are sums over the positions, the mean is their mean.

    Args:
        found: effects of m outputs, a multiple of `units`.
        units: of the layer.

    Raises:
        InputError: the outputs are no multiple of the units.

    Example:
        >>> found = ShapleyEffects(np.array([[3.0, 0.0], [1.0, 0.0]]), np.array([2.0, 4.0]), np.array([4.0, 0.0]))
        >>> unit = per_unit(found, units=1)
        >>> unit.shares.tolist(), unit.mean.tolist()
        ([[0.75], [0.25]], [3.0])
    """
    outputs = len(found.mean)
    if units < 1 or outputs % units:
        message = f"{outputs} outputs cannot be the maps of {units} units: give the number of units of the layer"
        raise InputError(message)
    by_unit = (units, outputs // units)
    return ShapleyEffects(
        effects=found.effects.reshape(-1, *by_unit).sum(axis=2),
        mean=found.mean.reshape(by_unit).mean(axis=1),
        variance=found.variance.reshape(by_unit).sum(axis=1),
    )


def aggregated(effects: Float[np.ndarray, "g m"], groups: Sequence[Sequence[int]]) -> Float[np.ndarray, "k m"]:
    """Sums of the effects of players that belong together.

    The sum is not the Shapley effect of the group as one player: what groups share is divided among their scalars, so
    that a group of many scalars gets a larger part of it.

    Args:
        effects: of each player.
        groups: players of each group.

    Example:
        >>> aggregated(np.array([[1.0], [2.0], [4.0]]), [[0, 1], [2]]).tolist()
        [[3.0], [4.0]]
    """
    return np.stack([effects[list(group)].sum(axis=0) for group in groups])


def original_shares(effects: Float[np.ndarray, "g m"], groups: Sequence[Sequence[int]]) -> Float[np.ndarray, "k m"]:
    """Shares as the original post-processes them: 0 to 1, adding up to 1, or all 0 for a dead output.

    Effects are added up in groups, clipped at 0, divided by their sum + 1e-20; shares up to 1e-8 are 0. Clipping makes
    the shares of inert inputs positive on average.

    Args:
        effects: of each player.
        groups: players of each group.

    Example:
        >>> original_shares(np.array([[3.0, 0.0], [-1.0, 0.0], [1.0, 0.0]]), [[0], [1], [2]]).tolist()
        [[0.75, 0.0], [0.0, 0.0], [0.25, 0.0]]
    """
    clipped = np.maximum(aggregated(effects, groups), 0.0)
    shares = clipped / (clipped.sum(axis=0) + _GUARD)
    return np.where(np.abs(shares) <= _NOTHING, 0.0, shares)
