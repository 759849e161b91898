"""The rows at which an output is looked at: a block of 2 G + 2 for each base point, made when they are asked for.

A base point is two independent points A and B of the unit cube. The block of it has A, then A with one group of
coordinates from B for each group (AB_1 to AB_G), then B with one group from A (BA_1 to BA_G), then B: the order of
SALib. Without second order the rows BA are left out.

Source: A. Saltelli, P. Annoni, I. Azzini, F. Campolongo, M. Ratto, S. Tarantola, "Variance based sensitivity analysis
of model output", Computer Physics Communications 181 (2010), section 3; groups as in A. Saltelli et al., "Global
Sensitivity Analysis: The Primer" (2008), section 1.2.15.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from neuronscope.errors import InputError

Order = Literal["first", "second"]
"""Up to which order indices are wanted: total indices are had with either."""


@dataclass(frozen=True, eq=False)
class SaltelliDesign:
    """Rows of a Sobol design, by number.

    Attributes:
        groups: columns of each group; every column belongs to exactly one.
        points: coordinates of the base points, A then B: each 0 to 1 (1 excluded).
        order: `second` for 2 G + 2 rows a base point, `first` for G + 2.

    Raises:
        InputError: groups that are no partition of the columns.

    Example:
        >>> design = SaltelliDesign(((0,), (1,)), np.array([[0.1, 0.2, 0.8, 0.9]]))
        >>> design.unit(np.arange(6)).tolist()  # A, AB_1, AB_2, BA_1, BA_2, B
        [[0.1, 0.2], [0.8, 0.2], [0.1, 0.9], [0.1, 0.9], [0.8, 0.2], [0.8, 0.9]]
    """

    groups: tuple[tuple[int, ...], ...]
    points: Float[np.ndarray, "n two_columns"]
    order: Order = "second"

    def __post_init__(self) -> None:
        """Refuse columns in no group or in several."""
        columns = sorted(column for group in self.groups for column in group)
        if not self.groups or not all(self.groups) or columns != list(range(self.columns)):
            message = (
                f"the groups {self.groups} are no partition of the {self.columns} columns of the design: expected "
                f"each of 0 to {self.columns - 1} in exactly one group, and no empty group"
            )
            raise InputError(message)

    @property
    def columns(self) -> int:
        """Coordinates of a row."""
        return int(self.points.shape[1]) // 2

    @property
    def block(self) -> int:
        """Rows of one base point."""
        return block_rows(len(self.groups), self.order)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.points) * self.block

    @property
    def fingerprint(self) -> str:
        """Changes with the points, the groups and the order."""
        parts = repr((self.groups, self.order, self.points.shape)).encode()
        return hashlib.sha256(parts + np.ascontiguousarray(self.points).tobytes()).hexdigest()

    def unit(self, rows: Int[np.ndarray, "r"]) -> Float[np.ndarray, "r columns"]:
        """Coordinates of some rows (0 to 1, 1 excluded).

        Args:
            rows: their numbers.
        """
        base, place = np.divmod(rows, self.block)
        return np.where(self._from_b[place], self.points[base, self.columns :], self.points[base, : self.columns])

    @property
    def _from_b(self) -> Bool[np.ndarray, "block columns"]:
        """For each place in a block, which columns come from B."""
        swapped = np.zeros((len(self.groups), self.columns), dtype=bool)
        for place, group in enumerate(self.groups):
            swapped[place, list(group)] = True
        a, b = np.zeros((1, self.columns), dtype=bool), np.ones((1, self.columns), dtype=bool)
        return np.concatenate([a, swapped, *([~swapped] if self.order == "second" else []), b])


def block_rows(groups: int, order: Order) -> int:
    """Rows of one base point: 2 G + 2, or G + 2 without second order.

    Example:
        >>> block_rows(8, "second"), block_rows(8, "first")
        (18, 10)
    """
    return 2 * groups + 2 if order == "second" else groups + 2


def sobol_points(
    columns: int, base: int, *, scramble: np.random.Generator | Literal["none"]
) -> Float[np.ndarray, "{base} two_columns"]:
    """Base points from a Sobol' sequence of 2 `columns` dimensions.

    Scrambled sequences are unbiased, and independent scrambles give independent estimates: their scatter is an interval
    (Owen 1998; I. M. Sobol', USSR Comput. Math. Math. Phys. 7 (1967)). The unscrambled sequence starts in the corner 0.

    Args:
        columns: coordinates of a row.
        base: number of points, a power of two: only then are they balanced.
        scramble: random stream of the scramble, or `none`.

    Raises:
        InputError: `base` is no power of two.

    Example:
        >>> sobol_points(1, 4, scramble="none").tolist()
        [[0.0, 0.0], [0.5, 0.5], [0.75, 0.25], [0.25, 0.75]]
    """
    from scipy.stats import qmc

    check_base(base)
    shuffled = not isinstance(scramble, str)
    engine = qmc.Sobol(2 * columns, scramble=shuffled, rng=scramble if shuffled else None)
    # A scrambled coordinate of float64 can round to 1, which is outside the cube.
    return np.asarray(np.minimum(engine.random_base2(base.bit_length() - 1), np.nextafter(1.0, 0.0)))


def check_base(base: int) -> None:
    """Refuse a number of points that a Sobol' sequence is not balanced at.

    Raises:
        InputError: it is no power of two.

    Example:
        >>> check_base(100)
        Traceback (most recent call last):
        neuronscope.errors.InputError: 100 base points are no power of two, ... Take 128 (or 64)
    """
    if base < 1 or base & (base - 1):
        above = 1 << max(base, 1).bit_length()
        below = f" (or {above // 2})" if above > 2 else ""  # noqa: PLR2004 one point is a design of nothing
        message = (
            f"{base} base points are no power of two, and only then is a Sobol' sequence balanced. Take {above}{below}"
        )
        raise InputError(message)
