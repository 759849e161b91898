"""Random numbers and permutations by their number: the same whichever are asked for together, and none are stored.

A counter-based generator (Philox: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011)
starts anywhere in its stream at no cost. Each item owns a stretch of the stream.
"""

from __future__ import annotations

from itertools import pairwise
from math import ceil, factorial
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from neuronscope.errors import InputError

Permutations = Literal["random", "distinct"]
"""`random`: drawn with replacement, for any number of players. `distinct`: without, by their lexicographic numbers."""

MOST_DISTINCT = 20
"""Most players whose permutations have numbers of 63 bits: 21! is larger."""

_PER_COUNT = 4
"""Numbers of 64 bits that Philox 4x64 gives for each value of its counter."""


def uniforms(items: Int[np.ndarray, "i"], *, each: int, seed: int, stream: int) -> Float[np.ndarray, "i {each}"]:
    """Independent uniform numbers of some items (0 to 1, 1 excluded).

    Args:
        items: their numbers, ascending; runs of consecutive ones are drawn at once.
        each: numbers of one item.
        seed: start of all randomness, at least 0.
        stream: what the numbers are for: streams are independent.

    Example:
        >>> some = uniforms(np.array([3, 7]), each=5, seed=0, stream=0)
        >>> bool((uniforms(np.arange(9), each=5, seed=0, stream=0)[[3, 7]] == some).all())
        True
    """
    counts = ceil(each / _PER_COUNT)
    key = np.random.SeedSequence(seed, spawn_key=(stream,)).generate_state(2, np.uint64)
    drawn = np.empty((len(items), each))
    starts = np.flatnonzero(np.diff(items, prepend=-2) != 1)
    for start, stop in pairwise([*starts, len(items)]):
        source = np.random.Philox(key=key, counter=int(items[start]) * counts)
        numbers = np.random.Generator(source).random((stop - start, counts * _PER_COUNT))
        drawn[start:stop] = numbers[:, :each]
    return drawn


def lexicographic(numbers: Int[np.ndarray, "p"], *, players: int) -> Int[np.ndarray, "p {players}"]:
    """The permutations with some numbers in lexicographic order, from 0 (Lehmer 1960).

    Raises:
        InputError: more than 20 players, or a number below 0 or not below `players!`.

    Example:
        >>> lexicographic(np.array([0, 1, 5]), players=3).tolist()
        [[0, 1, 2], [0, 2, 1], [2, 1, 0]]
    """
    _check_distinct(players)
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < factorial(players):
        message = (
            f"permutations of {players} players are numbered 0 to {factorial(players) - 1}, "
            f"got {int(numbers.min())} to {int(numbers.max())}"
        )
        raise InputError(message)
    rest = numbers.astype(np.int64)
    left = np.tile(np.arange(players), (len(numbers), 1))
    order = np.empty_like(left)
    for place in range(players):
        digit, rest = np.divmod(rest, factorial(players - 1 - place))
        order[:, place] = left[np.arange(len(left)), digit]
        left = left[np.arange(left.shape[1]) != digit[:, None]].reshape(len(left), left.shape[1] - 1)
    return order


def distinct_permutations(players: int, *, permutations: int, seed: int) -> Int[np.ndarray, "{permutations} {players}"]:
    """Different permutations, as the original draws them.

    Numbers from `default_rng(seed).choice(players!, replace=False)`, put in another order by the same generator.

    Raises:
        InputError: more than 20 players, or more permutations than there are.

    Example:
        >>> distinct_permutations(3, permutations=6, seed=190).tolist()
        [[1, 2, 0], [0, 2, 1], [2, 1, 0], [1, 0, 2], [2, 0, 1], [0, 1, 2]]
    """
    _check_distinct(players)
    if permutations > factorial(players):
        message = (
            f"{players} players have {factorial(players)} different permutations, {permutations} were asked for. "
            "Ask for fewer, or draw with replacement: order='random'"
        )
        raise InputError(message)
    generator = np.random.default_rng(seed)
    numbers = generator.choice(factorial(players), permutations, replace=False)
    return lexicographic(generator.permutation(numbers), players=players)


def _check_distinct(players: int) -> None:
    if players > MOST_DISTINCT:
        message = (
            f"the permutations of {players} players cannot be numbered with 64 bits: at most {MOST_DISTINCT} players. "
            "Draw with replacement: order='random'"
        )
        raise InputError(message)
