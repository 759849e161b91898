"""As few masks as possible from which many others are made by adding and taking away.

A gradient that is let through some channels only is linear in the mask of those channels. So where many masks are asked
for (all clusters of several clusterings, each closed and each alone), it is enough to know the answer for a basis of
them: there are as many as the masks have rank. Everything here is exact: independence is proven modulo a prime, which
proves it over the integers, and every combination is checked in integers.

Of several bases, the one is taken that takes away the least: a small mask's own answer is small, and to make it from
the difference of two large ones would leave their rounding behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

_PRIME = 2**31 - 1
"""A product of two remainders fits into 64 bits."""

_LARGEST = 8
"""A coefficient above this would carry the rounding of one answer into another; such a mask is its own basis vector."""

_MOST_DIFFERENCES = 96
"""Up to so many distinct masks, the differences of nested ones are tried as basis vectors, too: pairs are many."""


@dataclass(frozen=True, eq=False)
class MaskBasis:
    """Masks and how they are put together: `coefficients @ vectors` are the masks asked for, exactly.

    Attributes:
        vectors: the basis, true where a channel is in.
        coefficients: small whole numbers; a row for each mask asked for.
    """

    vectors: Bool[np.ndarray, "r channels"]
    coefficients: Int[np.ndarray, "m r"]

    @property
    def size(self) -> int:
        """How many answers must be computed."""
        return len(self.vectors)


def mask_basis(masks: Bool[np.ndarray, "m channels"]) -> MaskBasis:
    """A basis of masks, as many as they have rank, and the whole-number coefficients of all of them.

    The basis is made of masks asked for and of differences of two where one holds the other (what a cluster is when the
    rest was asked for), or of single kinds of channels where they follow from the masks. Of several orders of
    preference that one is taken which gives the smallest coefficients and then the least to take away. A mask that
    would need a broken coefficient or one above 8 joins the basis, which may then exceed the rank; masks of clusters
    never do.

    Args:
        masks: true for the channels that are in; masks may repeat, and may be empty.

    Example:
        >>> whole, left = [True, True, True], [True, False, False]
        >>> basis = mask_basis(np.array([whole, left, [False, True, True]]))
        >>> basis.size
        2
        >>> basis.coefficients.tolist()
        [[1, 1], [1, 0], [0, 1]]
    """
    count, channels = masks.shape
    if count == 0 or channels == 0:
        return MaskBasis(np.zeros((0, channels), dtype=bool), np.zeros((count, 0), dtype=np.int64))
    # Channels that no mask tells apart count as one.
    atoms, back = np.unique(masks, axis=1, return_inverse=True)
    distinct = np.unique(atoms, axis=0)
    rank = len(_independent(distinct.astype(np.int64)))
    weights = np.bincount(back.reshape(-1), minlength=atoms.shape[1])
    found = [_expressed(atoms, vectors) for vectors in _choices(atoms, distinct, weights, rank)]
    vectors, coefficients = min(found, key=lambda one: _cost(one[0], one[1], weights))
    return MaskBasis(vectors[:, back.reshape(-1)], coefficients)


def _choices(
    atoms: Bool[np.ndarray, "m a"], distinct: Bool[np.ndarray, "d a"], weights: Int[np.ndarray, "a"], rank: int
) -> list[Bool[np.ndarray, "r a"]]:
    """Bases by different orders of preference."""
    first_seen = list(dict.fromkeys(map(bytes, atoms)))
    given = np.array([np.frombuffer(row, dtype=bool) for row in first_seen])
    pools: list[np.ndarray] = [given]
    if rank == atoms.shape[1]:
        pools.append(np.eye(rank, dtype=bool))  # every kind of channels by itself: sums alone make everything
    if len(distinct) <= _MOST_DIFFERENCES:
        inside = (given[:, None] <= given[None]).all(-1) & (given[:, None] != given[None]).any(-1)
        small, large = np.nonzero(inside)
        pools.append(np.unique(np.concatenate([given, given[large] & ~given[small]]), axis=0))
    chosen = []
    for pool in pools:
        order = np.argsort(pool @ weights, kind="stable")
        for candidates in (pool[order], pool) if pool is given else (pool[order],):
            rows = _independent(candidates.astype(np.int64), most=rank)
            chosen.append(candidates[rows])
    return chosen


def _cost(
    vectors: Bool[np.ndarray, "r a"], coefficients: Int[np.ndarray, "m r"], weights: Int[np.ndarray, "a"]
) -> tuple[int, int, float, int]:
    """Number of vectors, largest coefficient, how much is added and taken away for what is left, how many terms."""
    sizes = np.abs(coefficients)
    channels = vectors @ weights
    made = np.maximum(coefficients @ channels, 1)  # channels of each mask
    worst = (sizes @ channels / made).max(initial=0.0)
    return len(vectors), int(sizes.max(initial=0)), float(worst), int(np.count_nonzero(sizes))


def _expressed(
    atoms: Bool[np.ndarray, "m a"], vectors: Bool[np.ndarray, "r a"]
) -> tuple[Bool[np.ndarray, "s a"], Int[np.ndarray, "m s"]]:
    """Every mask by a basis; one that needs a large or broken coefficient becomes a vector of its own."""
    wanted = atoms.astype(np.int64)
    coefficients = _solved(vectors.astype(np.int64), wanted)
    good = (np.abs(coefficients) <= _LARGEST).all(1)
    good[good] = (coefficients[good] @ vectors.astype(np.int64) == wanted[good]).all(1)
    if good.all():
        return vectors, coefficients
    extra, place = np.unique(atoms[~good], axis=0, return_inverse=True)
    wide = np.zeros((len(atoms), len(vectors) + len(extra)), dtype=np.int64)
    wide[good, : len(vectors)] = coefficients[good]
    wide[np.flatnonzero(~good), len(vectors) + place.reshape(-1)] = 1
    return np.concatenate([vectors, extra]), wide


def _independent(rows: Int[np.ndarray, "m a"], *, most: int | None = None) -> list[int]:
    """The first rows that do not follow from those before them, modulo a prime; independent over the integers too."""
    pivots: list[tuple[int, np.ndarray]] = []
    chosen: list[int] = []
    for number, row in enumerate(rows):
        rest = _reduced(row, pivots)
        places = np.flatnonzero(rest)
        if len(places):
            column = int(places[0])
            pivots.append((column, rest * pow(int(rest[column]), -1, _PRIME) % _PRIME))
            chosen.append(number)
            if len(chosen) == most:
                break
    return chosen


def _reduced(row: Int[np.ndarray, "a"], pivots: Sequence[tuple[int, Int[np.ndarray, "a"]]]) -> Int[np.ndarray, "a"]:
    """What is left of a row when all pivots are taken off, in the order in which they came."""
    rest = row % _PRIME
    for column, pivot in pivots:
        if rest[column]:
            rest = (rest - rest[column] * pivot) % _PRIME
    return rest


def _solved(vectors: Int[np.ndarray, "r a"], wanted: Int[np.ndarray, "m a"]) -> Int[np.ndarray, "m r"]:
    """Coefficients modulo the prime, as numbers around zero: the true ones where those are whole and small."""
    size = len(vectors)
    pivots: list[tuple[int, np.ndarray]] = []
    # Each vector carries a note of itself, so that what is taken off a mask is known by name.
    noted = np.concatenate([vectors, np.eye(size, dtype=np.int64)], axis=1)
    atoms = vectors.shape[1]
    for row in noted:
        rest = _reduced(row, pivots)
        column = int(np.flatnonzero(rest[:atoms])[0])
        pivots.append((column, rest * pow(int(rest[column]), -1, _PRIME) % _PRIME))
    blank = np.zeros(size, dtype=np.int64)
    left = [_reduced(np.concatenate([row, blank]), pivots)[atoms:] for row in wanted]
    coefficients = -np.array(left, dtype=np.int64).reshape(len(wanted), size) % _PRIME
    return np.where(coefficients > _PRIME // 2, coefficients - _PRIME, coefficients)
