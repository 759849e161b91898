"""What a search over signatures looks up: shared by all units (`SearchTables`), and one unit's (`UnitTables`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64, Int, Int32, Int64, UInt64

from neuronscope.errors import InputError
from neuronscope.maths.formula_search.scores import Form, Score
from neuronscope.maths.signatures import Cooccurrence, Signatures, UnitCounts, cooccurrence

_HASH_SEED = 20170
"""Seed of the random numbers whose sums tell masks of equal area and intersection apart."""


@dataclass(frozen=True, eq=False)
class SearchTables:
    """What all units share.

    Attributes:
        signatures: the labelled image set.
        together: the labels that occur, by place, and the pairs of them that occur together.
        weight: pixels of each signature.
        mark: a random word for each signature.
    """

    signatures: Signatures
    together: Cooccurrence
    weight: Float64[np.ndarray, "s"]
    mark: UInt64[np.ndarray, "s"]

    @property
    def labels(self) -> int:
        """Labels that occur."""
        return len(self.together.numbers)

    @cached_property
    def area(self) -> Float64[np.ndarray, "k"]:
        """Pixels of each label."""
        area: np.ndarray = self.signatures.area[self.together.numbers].astype(np.float64)
        return area

    @cached_property
    def pair_area(self) -> Float64[np.ndarray, "k k"]:
        """Pixels that carry two labels; a label's own on the diagonal."""
        return self.square(self.together.area.astype(np.float64), self.area)

    @cached_property
    def pair_number(self) -> Int32[np.ndarray, "k k"]:
        """Number of each pair in `together`, -1 for labels that never meet."""
        number = np.full((self.labels, self.labels), -1, dtype=np.int32)
        x, y = self.together.pairs.T
        number[x, y] = number[y, x] = np.arange(len(x))
        return number

    def square(
        self, pairs: Float64[np.ndarray, "pairs"], diagonal: Float64[np.ndarray, "k"]
    ) -> Float64[np.ndarray, "k k"]:
        """Numbers of pairs as a symmetric matrix."""
        matrix = np.zeros((self.labels, self.labels))
        x, y = self.together.pairs.T
        matrix[x, y] = pairs
        matrix[y, x] = pairs
        np.fill_diagonal(matrix, diagonal)
        return matrix

    def per_label(self, rows: Int[np.ndarray, "m"], values: Float64[np.ndarray, "m"]) -> Float64[np.ndarray, "k"]:
        """Sum of the signatures' values for each label, over some signatures."""
        columns = self.together.columns[rows]
        flat = np.repeat(values, columns.shape[1])
        return binned(columns.reshape(-1), flat, self.labels + 1)[1:]

    def per_pair(
        self, rows: Int[np.ndarray, "m"], *values: Float64[np.ndarray, "m"]
    ) -> list[Float64[np.ndarray, "pairs"]]:
        """Sums of the signatures' values for each pair of labels, over some signatures."""
        entries, sizes = spans(self.together.start, rows)
        pair = self.together.pair[entries]
        count = len(self.together.pairs)
        return [binned(pair, np.repeat(one, sizes), count) for one in values]

    def per_triple(self, pairs: Int[np.ndarray, "b"], values: Float64[np.ndarray, "s"]) -> Float64[np.ndarray, "b k"]:
        """For some pairs (-1: labels that never meet) and every label, the sum over signatures with all three."""
        met = np.flatnonzero(pairs >= 0)
        entries, sizes = spans(self.together.by_start, pairs[met])
        rows = self.together.by_signature[entries]
        columns = self.together.columns[rows]
        k = self.labels + 1
        code = columns + (np.repeat(met, sizes) * k)[:, None]
        flat = np.repeat(values[rows], columns.shape[1])
        return binned(code.reshape(-1), flat, len(pairs) * k).reshape(-1, k)[:, 1:]

    def holds(self, place: int) -> Bool[np.ndarray, "s"]:
        """Signatures that carry the label at a place."""
        found = np.zeros(len(self.weight), dtype=bool)
        found[self.signatures.signatures_of(int(self.together.numbers[place]))] = True
        return found


def prepare(signatures: Signatures) -> SearchTables:
    """Work out what the searches of all units share."""
    mark = np.random.default_rng(_HASH_SEED).integers(0, 1 << 64, len(signatures), dtype=np.uint64)
    return SearchTables(signatures, cooccurrence(signatures), signatures.weight.astype(np.float64), mark)


@dataclass(frozen=True, eq=False)
class UnitTables:
    """What a search looks up of one unit.

    Attributes:
        tables: what all units share.
        counts: the unit's.
        form: the score.
        active: active pixels of each signature.
    """

    tables: SearchTables
    counts: UnitCounts
    form: Form
    active: Float64[np.ndarray, "s"]

    @cached_property
    def firing(self) -> Int64[np.ndarray, "m"]:
        """Signatures with active pixels."""
        return np.flatnonzero(self.active)

    @cached_property
    def by_chance(self) -> Int64[np.ndarray, "m"]:
        """Signatures with a chance of active pixels that the score looks at."""
        return np.flatnonzero(self.counts.chance) if self.form.chance_share else np.zeros(0, np.int64)

    @cached_property
    def intersection(self) -> Float64[np.ndarray, "k"]:
        """Active pixels of each label."""
        return self.tables.per_label(self.firing, self.active[self.firing])

    @cached_property
    def chance(self) -> Float64[np.ndarray, "k"]:
        """The chance numbers of each label, 0 where the score does not look at them."""
        return self.tables.per_label(self.by_chance, self.counts.chance[self.by_chance])

    @cached_property
    def pair_intersection(self) -> Float64[np.ndarray, "k k"]:
        """Active pixels that carry two labels; a label's own on the diagonal."""
        (pairs,) = self.tables.per_pair(self.firing, self.active[self.firing])
        return self.tables.square(pairs, self.intersection)

    @cached_property
    def pair_chance(self) -> Float64[np.ndarray, "k k"]:
        """The chance numbers of two labels; a label's own on the diagonal."""
        if not self.form.chance_share:
            return np.broadcast_to(0.0, (self.tables.labels, self.tables.labels))
        (pairs,) = self.tables.per_pair(self.by_chance, self.counts.chance[self.by_chance])
        return self.tables.square(pairs, self.chance)


def unit_tables(tables: SearchTables, counts: UnitCounts, score: Score) -> UnitTables:
    """Tables of one unit.

    Raises:
        InputError: the counts are of another image set.
    """
    if len(counts.active) != len(tables.weight):
        message = (
            f"the unit was counted over {len(counts.active)} signatures, the tables have {len(tables.weight)}. "
            "Count the unit over the image set that the tables were prepared from"
        )
        raise InputError(message)
    return UnitTables(tables, counts, score.form(counts), counts.active.astype(np.float64))


def binned(number: Int[np.ndarray, "m"], values: Float64[np.ndarray, "m"], size: int) -> Float64[np.ndarray, "size"]:
    """Sum of values by number, floating also where there are none."""
    return np.bincount(number, weights=values, minlength=size).astype(np.float64, copy=False)


def spans(
    start: Int64[np.ndarray, "n1"], rows: Int[np.ndarray, "m"]
) -> tuple[Int64[np.ndarray, "total"], Int64[np.ndarray, "m"]]:
    """The entries of some rows of a compressed table, one row after the other, and how many each has."""
    first = start[rows]
    sizes = start[rows + 1] - first
    return np.arange(int(sizes.sum())) + np.repeat(first - (np.cumsum(sizes) - sizes), sizes), sizes
