"""What varies: augmentations with their parameters, their order, and which image is shown; decoded from the unit cube.

A row of a design is a point of the unit cube. Its columns belong to factors; a factor with several columns (the four
parameters of erasing) is a group whose columns change together. Here points become what they stand for: parameter
values, which augmentations are applied and in which order, and an image.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from neuronscope.augment import Augmentation, decoded, permutation
from neuronscope.errors import InputError
from neuronscope.studies.sensitivity.pool import Pool

Kind = Literal["augmentation", "order", "class", "partition", "image"]
Switches = Literal["plain", "all"]
Integers = Literal["whole", "continuous"]

_MOST_ORDERED = 18
"""Augmentations whose orders can still be numbered by a float64: 18! is below 2^53."""


@dataclass(frozen=True)
class Factor:
    """One thing that varies.

    Attributes:
        name: of the augmentation, or `order`, `class`, `partition`, `image`.
        kind: what it is.
        columns: of the design.
        describe: its range, for people.
    """

    name: str
    kind: Kind
    columns: tuple[int, ...]
    describe: str


@dataclass(frozen=True, eq=False)
class Decoded:
    """What rows of a design stand for.

    Attributes:
        vectors: of each row, parameter values, then whether each augmentation is applied (0 or 1), then their order.
        image: row of the data.
    """

    vectors: Float[np.ndarray, "r p"]
    image: Int[np.ndarray, "r"]


@dataclass(frozen=True, eq=False)
class Problem:
    """The factors of a study, and how to decode them.

    Attributes:
        augmentations: in the order in which they are applied where order is no factor.
        factors: in the order of their columns.
        pool: the images.
        switches: `plain`: an augmentation without parameters is applied in half of the rows, one with parameters
            always; `all`: each has a column of its own that switches it.
        integers: whether whole-numbered parameters are drawn as such, or as numbers that are rounded.
    """

    augmentations: tuple[Augmentation, ...]
    factors: tuple[Factor, ...]
    pool: Pool
    switches: Switches
    integers: Integers

    @property
    def columns(self) -> int:
        """Coordinates of a row."""
        return sum(len(factor.columns) for factor in self.factors)

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Columns of each factor."""
        return tuple(factor.columns for factor in self.factors)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the factors."""
        return tuple(factor.name for factor in self.factors)

    @property
    def fingerprint(self) -> str:
        """Changes with anything that decoding depends on."""
        pool = self.pool
        parts = repr((self.augmentations, self.factors, self.switches, self.integers, pool.classes, pool.partitions))
        return hashlib.sha256(parts.encode() + pool.rows.tobytes() + pool.count.tobytes()).hexdigest()

    def place(self, name: str) -> int | None:
        """The column of a factor of one column; None where it is no factor."""
        return next((factor.columns[0] for factor in self.factors if factor.name == name), None)

    def cell(self, unit: Float[np.ndarray, "r columns"]) -> tuple[Int[np.ndarray, "r"], Int[np.ndarray, "r"]]:
        """Place of the class among the pool's, and partition."""
        return _index(unit, self.place("class"), len(self.pool.classes)), _index(
            unit, self.place("partition"), self.pool.partitions
        )

    def images(self, unit: Float[np.ndarray, "r columns"]) -> Int[np.ndarray, "r"]:
        """The image of each row, where the image is a factor or fixed."""
        kind, part = self.cell(unit)
        place = self.place("image")
        which = unit[:, place] if place is not None else np.zeros(len(unit))
        return self.pool.pick(kind, part, which)

    def vectors(self, unit: Float[np.ndarray, "r columns"]) -> Float[np.ndarray, "r p"]:
        """Parameter values, switches and order of each row."""
        values, applied, column = [], [], 0
        for augmentation in self.augmentations:
            many = len(augmentation.parameters)
            on = np.ones(len(unit))
            if self.switches == "all":
                on, column = (unit[:, column] >= 0.5).astype(np.float64), column + 1  # noqa: PLR2004 half of the rows
            elif not many:
                on, column = (unit[:, column] <= 0.5).astype(np.float64), column + 1  # noqa: PLR2004 half of the rows
            values.append(decoded(augmentation, unit[:, column : column + many], integers=self.integers))
            applied.append(on[:, None])
            column += many
        count = len(self.augmentations)
        rank = _index(unit, self.place("order"), math.factorial(count))
        return np.concatenate([*values, *applied, permutation(rank, count).astype(np.float64)], axis=1)


@dataclass(frozen=True, eq=False)
class Vectors:
    """Parameter vectors of a design, made from its points when they are asked for.

    Attributes:
        problem: how to decode.
        unit: row numbers -> points of the unit cube.
        rows: how many there are.
        source: a fingerprint of what `unit` gives.
    """

    problem: Problem
    unit: Callable[[Int[np.ndarray, "r"]], Float[np.ndarray, "r columns"]]
    rows: int
    source: str

    def __len__(self) -> int:
        """Number of rows."""
        return self.rows

    def __getitem__(self, rows: Int[np.ndarray, "r"]) -> Float[np.ndarray, "r p"]:
        """The vectors of some rows."""
        return self.problem.vectors(self.unit(rows))

    @property
    def fingerprint(self) -> str:
        """Changes with any of them."""
        return hashlib.sha256((self.problem.fingerprint + self.source).encode()).hexdigest()


def make_problem(
    augmentations: Sequence[Augmentation],
    auxiliary: Sequence[str],
    pool: Pool,
    *,
    switches: Switches,
    integers: Integers,
) -> Problem:
    """The factors in their order: augmentations as they were chosen, then order, class, partition, image.

    Raises:
        InputError: nothing varies, or more augmentations than have orders that can be numbered.
    """
    factors: list[Factor] = []
    column = 0
    for augmentation in augmentations:
        width = len(augmentation.parameters) + (1 if switches == "all" or not augmentation.parameters else 0)
        columns = tuple(range(column, column + width))
        factors.append(Factor(augmentation.name, "augmentation", columns, _range_of(augmentation, switches)))
        column += width
    described: dict[Kind, str] = {
        "order": f"{math.factorial(len(augmentations)):,} orders of application",
        "class": f"{len(pool.classes):,} classes",
        "partition": f"{pool.partitions} partitions",
        "image": f"{pool.count.min()} to {pool.count.max()} images in each class and partition",
    }
    for kind, text in described.items():
        if kind not in auxiliary:
            continue
        if kind == "order" and len(augmentations) > _MOST_ORDERED:
            message = (
                f"the orders of {len(augmentations)} augmentations cannot be numbered: at most {_MOST_ORDERED} can. "
                "Choose fewer augmentations, or leave order out of --factors"
            )
            raise InputError(message)
        factors.append(Factor(kind, kind, (column,), text))
        column += 1
    if len(factors) < 2:  # noqa: PLR2004 of one factor everything is known beforehand
        message = f"only {factors[0].name} would vary: expected at least two factors. Name more with --factors"
        raise InputError(message)
    return Problem(tuple(augmentations), tuple(factors), pool, switches, integers)


def _index(unit: np.ndarray, place: int | None, count: int) -> Int[np.ndarray, "r"]:
    """Which of `count` things a number from 0 to 1 stands for; the first where it is no factor."""
    if place is None:
        return np.zeros(len(unit), dtype=np.int64)
    return np.minimum((unit[:, place] * count).astype(np.int64), count - 1)


def _range_of(augmentation: Augmentation, switches: Switches) -> str:
    ranges = [
        f"{one.name} {one.low:g} to {one.last:g}{f' {one.unit}' if one.unit else ''}" for one in augmentation.parameters
    ]
    half = ["applied in half of the rows"] if switches == "all" or not ranges else []
    return ", ".join([*ranges, *half])
