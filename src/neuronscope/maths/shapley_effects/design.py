"""The rows at which an output is looked at, made when they are asked for.

The cost of a set of players is `c(S) = E[ Var(f | x_-S) ]`: the variance that is left when all other inputs are fixed.
Players join one at a time in a random order; what a player adds to the cost, averaged over orders, is its Shapley
effect. A set's cost is estimated without bias by fixing x_-S at random and taking the variance (divisor I - 1) of I
outputs that differ in x_S.

Two ways to draw the I outputs of each place in a permutation:

`fresh`
:   New random numbers at each place (Song, Nelson, Staum 2016, algorithm 1). A block is the I rows of one place.
`shared`
:   All places of a permutation use the same I vectors, and the first of them is the row with nothing exchanged. It is
    evaluated once, so that a block, the whole walk, has 1 + G (I - 1) rows instead of G I. What consecutive places
    have in common cancels in their difference: an input without influence has an effect of exactly 0. With I = 2 this
    is Goda's estimator (2021, algorithm 1).

Measured with 8 inputs on Ishigami's function, Sobol's g-function, a sum and a rectified sum: for equal standard errors
shared draws need 7 to 9 times fewer rows than fresh ones with I = 3 (10 to 17 times for shares), and 2 times fewer for
a pure interaction of 3 inputs. I = 2 is best or near it. Two more ideas are left out. Pairing each permutation with
its reverse gains nothing (0.9 to 1.1 times). Taking the last cost of fresh draws from the rows of the other places
gains 1.2 to 1.8 times, less than sharing, with which it does not go together.

Source: E. Song, B. L. Nelson, J. Staum, "Shapley effects for global sensitivity analysis: theory and computation",
SIAM/ASA J. Uncertainty Quantification 4 (2016); A. B. Owen, "Sobol' indices and Shapley value", ibid. 2 (2014);
T. Goda, "A simple algorithm for global sensitivity analysis with Shapley effects", Reliab. Eng. Syst. Saf. 213 (2021).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from neuronscope.errors import InputError
from neuronscope.maths.shapley_effects.permutations import Permutations, distinct_permutations, uniforms

Draws = Literal["shared", "fresh"]
"""Whether the places of a permutation share their random numbers, or draw new ones."""

_ORDERS, _VECTORS = 0, 1  # streams of random numbers

_FEWEST = 2  # a variance needs two outputs


@dataclass(frozen=True, kw_only=True)
class ShapleyDesign:
    """Rows of a Shapley design, by number; no table of them is held.

    Rows stand by permutation, then by place (for shared draws after the outer draw), then by outer and inner draw.

    Attributes:
        groups: columns of each player. A column of several players is drawn anew as soon as one of them is free (an
            image that is chosen by its class and its partition); what it explains is then divided among them.
        permutations: orders in which players join (P). For intervals, use several designs with different seeds.
        outer: times x_-S is fixed for each place (O). More permutations are always better than more of these.
        inner: outputs a variance is taken of (I), at least 2.
        seed: start of all randomness, at least 0.
        draws: see above.
        order: how permutations are drawn.

    Raises:
        InputError: groups that leave a column out, or a number out of range.

    Example:
        >>> design = ShapleyDesign(groups=((0,), (1, 2)), permutations=4, seed=0)
        >>> len(design), design.block, design.unit(np.arange(12)).shape
        (12, 3, (12, 3))
        >>> design.order_of(np.arange(4)).tolist()
        [[1, 0], [0, 1], [0, 1], [1, 0]]
    """

    groups: tuple[tuple[int, ...], ...]
    permutations: int
    outer: int = 1
    inner: int = 2
    seed: int = 0
    draws: Draws = "shared"
    order: Permutations = "random"

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        columns = {column for group in self.groups for column in group}
        repeated = any(len(set(group)) != len(group) for group in self.groups)
        if not self.groups or not all(self.groups) or repeated or columns != set(range(len(columns))):
            message = (
                f"the groups {self.groups} do not cover the columns of a design: expected each of 0 to "
                f"{max(columns, default=0)} in some group, none twice in the same group, and no empty group"
            )
            raise InputError(message)
        least = {"permutations": 1, "outer": 1, "inner": _FEWEST, "seed": 0}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                message = f"{name} of a Shapley design is at least {lowest}, got {getattr(self, name)}"
                raise InputError(message)
        if self.order == "distinct":
            _ = self._distinct  # refuses what it cannot number

    @property
    def columns(self) -> int:
        """Coordinates of a row."""
        return max(column for group in self.groups for column in group) + 1

    @property
    def block(self) -> int:
        """Rows whose outputs are compared: I for fresh draws, 1 + G (I - 1) for shared ones."""
        return 1 + self.steps * (self.inner - 1)

    @property
    def steps(self) -> int:
        """Places of a permutation within one block: all, or one."""
        return len(self.groups) if self.draws == "shared" else 1

    @property
    def walks(self) -> int:
        """Permutations times outer draws: what effects are a mean over."""
        return self.permutations * self.outer

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return self.walks * len(self.groups) // self.steps

    def __len__(self) -> int:
        """Number of rows: P O G I for fresh draws, P O (1 + G (I - 1)) for shared ones."""
        return self.blocks * self.block

    @property
    def fingerprint(self) -> str:
        """Changes with anything that changes a row."""
        return hashlib.sha256(repr(self).encode()).hexdigest()

    def unit(self, rows: Int[np.ndarray, "r"]) -> Float[np.ndarray, "r columns"]:
        """Coordinates of some rows (0 to 1, 1 excluded): the same whichever rows are asked for together.

        Args:
            rows: their numbers, in any order.

        Raises:
            InputError: a row that the design does not have.
        """
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            message = f"rows {rows.min()} to {rows.max()} were asked of a Shapley design of {len(self)} rows"
            raise InputError(message)
        blocks, inside = np.divmod(rows, self.block)
        distinct, which = np.unique(blocks, return_inverse=True)
        vectors = uniforms(distinct, each=self.inner * self.columns, seed=self.seed, stream=_VECTORS)
        vectors = vectors.reshape(len(distinct), self.inner, self.columns)
        step, draw = np.divmod(inside - 1, self.inner - 1)
        draw = np.where(inside == 0, 0, draw + 1)
        place = step + self._first_place(distinct)[which]
        free = self._freed_at(self.order_of(distinct))[which] <= place[:, None]
        return np.where(free, vectors[which, draw], vectors[which, 0])

    def order_of(self, blocks: Int[np.ndarray, "b"]) -> Int[np.ndarray, "b g"]:
        """The players in the order in which they join, for some blocks."""
        number = blocks // (self.outer * (1 if self.draws == "shared" else len(self.groups)))
        if self.order == "distinct":
            return np.asarray(self._distinct[number])
        distinct, which = np.unique(number, return_inverse=True)
        keys = uniforms(distinct, each=len(self.groups), seed=self.seed, stream=_ORDERS)
        return np.asarray(keys.argsort(axis=1)[which])

    def added(self, blocks: Int[np.ndarray, "b"]) -> Int[np.ndarray, "b steps"]:
        """The player that joins at each step of some blocks."""
        order = self.order_of(blocks)
        if self.draws == "shared":
            return order
        return np.take_along_axis(order, self._first_place(blocks)[:, None], axis=1)

    def following(self, blocks: Int[np.ndarray, "b"]) -> Int[np.ndarray, "b"]:
        """The player that joins in the block after, from whose cost this block's is taken away; -1 for none."""
        if self.draws == "shared":
            return np.full(len(blocks), -1)
        order = np.pad(self.order_of(blocks), ((0, 0), (0, 1)), constant_values=-1)
        return np.take_along_axis(order, self._first_place(blocks)[:, None] + 1, axis=1)[:, 0]

    def full(self, blocks: Int[np.ndarray, "b"]) -> Int[np.ndarray, "f"]:
        """Rows that are independent draws of all inputs, by their place in a batch of some blocks.

        Of a walk those are its first row and the rows of its last step; of fresh draws, the blocks of the last place.
        """
        inside = np.array([0, *range(self.block - self.inner + 1, self.block)])
        last = np.flatnonzero(self._first_place(blocks) + self.steps == len(self.groups))
        return np.asarray((last[:, None] * self.block + inside).ravel())

    def _first_place(self, blocks: np.ndarray) -> Int[np.ndarray, "b"]:
        """Place in the permutation of a block's first step."""
        if self.draws == "shared":
            return np.zeros_like(blocks)
        return np.asarray(blocks // self.outer % len(self.groups))

    def _freed_at(self, order: np.ndarray) -> Int[np.ndarray, "b columns"]:
        """The place from which on a column is drawn anew: that of the first of its players to join."""
        place = np.argsort(order, axis=1)
        freed = np.full((len(order), self.columns), len(self.groups))
        for player, group in enumerate(self.groups):
            for column in group:
                freed[:, column] = np.minimum(freed[:, column], place[:, player])
        return freed

    @cached_property
    def _distinct(self) -> Int[np.ndarray, "p g"]:
        return distinct_permutations(len(self.groups), permutations=self.permutations, seed=self.seed)


def original_design(
    groups: Sequence[Sequence[int]], *, permutations: int, outer: int, inner: int, seed: int = 190
) -> ShapleyDesign:
    """The scheme of the original: P G O I rows with fresh draws, and different permutations.

    The original's players are scalars, one column each, whose effects are added up to groups afterwards (`aggregated`);
    its published runs used the seed 190 for permutations. Permutations are the original's. Its other random numbers are
    not: they come from one generator for each scalar, in the order of the rows.

    Args:
        groups: columns of each player, at most 20 players.
        permutations: P, at most the factorial of the players.
        outer: O.
        inner: I, at least 2.
        seed: of the permutations, and of the rows.

    Example:
        >>> len(original_design([[column] for column in range(15)], permutations=256, outer=64, inner=16))
        3932160
    """
    return ShapleyDesign(
        groups=tuple(tuple(group) for group in groups),
        permutations=permutations,
        outer=outer,
        inner=inner,
        seed=seed,
        draws="fresh",
        order="distinct",
    )
