"""The best formula of up to three labels, with the proof that there is none better.

A score above t is a sum over signatures above a constant: W(L) = above(L) - t * below(L) > t * constant, with t the
best score so far. So W of every formula follows from W of labels, pairs and triples of labels:

- One and two labels are worked out completely: four functions for each pair that meets, OR for the others.
- Three labels are a formula F of two labels and a third, C. The sums of pairs, taken over all signatures and over those
  that add to W alone, bound W of every completion of F. What cannot exceed t * constant is ruled out, nearly
  everything; what is left is completed exactly with every label, the most promising first, from one histogram over the
  signatures of F's two labels. A better formula raises t, which rules out more.

The 23 functions of three labels that left-deep formulas of OR, AND and AND NOT make are all covered, for every score of
`Score`. When the time is over, the largest bound that is left gives the gap; before there are bounds of pairs, what all
signatures with W above 0 would give together. Tables of all pairs are gone through some rows at a time: that keeps them
in the processor's cache, holds few of them at once, and lets a time limit end them anywhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from neuronscope.maths.formula_search.beam import explanation_of
from neuronscope.maths.formula_search.found import Certificate, Explanation
from neuronscope.maths.formula_search.spec import CERTIFIED_LENGTH, SearchSpec
from neuronscope.maths.formula_search.tables import SearchTables, UnitTables, unit_tables
from neuronscope.maths.formulas import And, AndNot, Formula, Label, Or
from neuronscope.maths.signatures import UnitCounts

_ROUNDING = 1e-10
"""Share by which a bound must exceed the best so far to count: more than floating-point sums can be off."""

_FEW, _MOST = 32, 512
"""Formulas of two labels completed at a time: few at first, because a find rules out others."""

_PER_STEP = 400_000
"""Histogram cells of a step: pairs times labels."""

_WORK = 2_000_000
"""Entries of signatures that a step sums, about 20 ms: how late the end of the time may be noticed."""

_BLOCK = 1 << 18
"""Pairs of labels that are looked at together: a table of them is 2 MiB."""


class _OutOfTimeError(Exception):
    """The time limit has passed."""


@dataclass(frozen=True)
class _Clock:
    """A time limit in seconds of the monotonic clock; None for no limit."""

    deadline: float | None

    def over(self) -> bool:
        """Whether the limit has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def check(self) -> None:
        """Stop here if the limit has passed."""
        if self.over():
            raise _OutOfTimeError


def _row_blocks(labels: int) -> Iterator[slice]:
    """Rows of a table of pairs of labels, some at a time."""
    rows = max(1, _BLOCK // max(1, labels))
    return (slice(first, min(labels, first + rows)) for first in range(0, labels, rows))


def certified(
    tables: SearchTables,
    counts: UnitCounts,
    spec: SearchSpec,
    *,
    start: Sequence[Explanation | None] = (),
    seconds: float | None = None,
) -> tuple[tuple[Explanation | None, ...], Certificate]:
    """The best formula of at most 1, 2, ... min(3, `spec.length`) labels, and what is proved of the last.

    Args:
        tables: the labelled image set.
        counts: the unit.
        spec: score, penalty and length.
        start: formulas found before, such as the beam's: the better they are, the faster the proof.
        seconds: time limit; single labels are always worked out.

    Raises:
        InputError: the counts are of another image set.
    """
    unit = unit_tables(tables, counts, spec.score)
    most = min(CERTIFIED_LENGTH, spec.length)
    clock = _Clock(None if seconds is None else time.monotonic() + seconds)
    best = [_best([*_of_length(start, 1), _best_single(unit, spec) if tables.labels else None])]
    finished = True
    if most > 1:
        pair, finished = _best_pair(unit, spec, clock) if tables.labels > 1 else (None, True)
        best.append(_best([best[-1], *_of_length(start, 2), pair]))
    if most == CERTIFIED_LENGTH:
        best.append(_best([best[-1], *_of_length(start, CERTIFIED_LENGTH)]))
    proof = _Proof(unit, spec, best[-1], clock)
    if not finished:
        return tuple(best), proof.unfinished(most)
    if most < CERTIFIED_LENGTH:
        return tuple(best), Certificate(most, optimal=True, gap=0.0, completed=0, left=0)
    found, certificate = proof.run()
    return (*best[:-1], found), certificate


def _of_length(found: Sequence[Explanation | None], size: int) -> list[Explanation]:
    return [one for one in found if one is not None and one.length == size]


def _best(found: Sequence[Explanation | None]) -> Explanation | None:
    """The first of the highest objective, if it is above 0."""
    there = [one for one in found if one is not None and one.objective > 0]
    return max(there, key=lambda one: one.objective, default=None)


def _best_single(unit: UnitTables, spec: SearchSpec) -> Explanation | None:
    value = unit.form.value(unit.tables.area, unit.intersection, unit.chance)
    return explanation_of(unit, _label(unit, int(value.argmax())), spec)


def _best_pair(unit: UnitTables, spec: SearchSpec, clock: _Clock) -> tuple[Explanation | None, bool]:
    """The best of X OR Y for all pairs, X AND Y and X AND NOT Y, and whether there was time for all."""
    tables, form = unit.tables, unit.form
    best: dict[type[Or | And | AndNot], tuple[float, int, int]] = {}
    finished = True
    try:
        clock.check()
        tables.pair_area  # noqa: B018 made here for all: each table is a step of its own
        clock.check()
        unit.pair_intersection  # noqa: B018 as above
        for rows in _row_blocks(tables.labels):
            clock.check()
            joint = tables.pair_area[rows], unit.pair_intersection[rows], unit.pair_chance[rows]
            singles = tables.area, unit.intersection, unit.chance
            own = tuple(one[rows, None] for one in singles)
            either = (x + y - both for x, y, both in zip(own, singles, joint, strict=True))
            without = (x - both for x, both in zip(own, joint, strict=True))
            at = np.arange(rows.stop - rows.start)
            for kind, value in (
                (Or, form.value(*either)),
                (And, form.value(*joint)),
                (AndNot, form.value(*without)),
            ):
                value[at, at + rows.start] = -np.inf
                x, y = divmod(int(value.argmax()), tables.labels)
                if kind not in best or value[x, y] > best[kind][0]:
                    best[kind] = (float(value[x, y]), x + rows.start, y)
    except _OutOfTimeError:
        finished = False
    found = [explanation_of(unit, kind(_label(unit, x), _label(unit, y)), spec) for kind, (_, x, y) in best.items()]
    return _best(found), finished


def _label(unit: UnitTables, place: int) -> Label:
    return Label(int(unit.tables.together.numbers[place]))


class _Family(NamedTuple):
    """Formulas of two labels of one operator, with the bound of their completions: x, y are places of labels."""

    kind: type[Or | And | AndNot]
    x: Int64[np.ndarray, "m"]
    y: Int64[np.ndarray, "m"]
    bound: Float64[np.ndarray, "m"]


@dataclass(frozen=True)
class _Sums:
    """W at one t: of labels, and of pairs as matrices (a label's own W on the diagonal of `pair`, 0 on the others').

    Attributes:
        signature: W of each signature.
        single: W of each label.
        gain: the part of it from signatures with W above 0.
        pair: W of two labels together.
        pair_gain: the part from signatures with W above 0.
        pair_loss: minus the part from the others.
        total_gain: the gain of all labelled signatures.
        needed: what W must exceed.
    """

    signature: Float64[np.ndarray, "s"]
    single: Float64[np.ndarray, "k"]
    gain: Float64[np.ndarray, "k"]
    pair: Float64[np.ndarray, "k k"]
    pair_gain: Float64[np.ndarray, "k k"]
    pair_loss: Float64[np.ndarray, "k k"]
    total_gain: float
    needed: float


class _Proof:
    """The search among formulas of three labels, from a known formula."""

    def __init__(self, unit: UnitTables, spec: SearchSpec, known: Explanation | None, clock: _Clock) -> None:
        self.unit = unit
        self.spec = spec
        self.known = known
        self.clock = clock
        self.completed = 0
        self.done: dict[type[Or | And | AndNot], Bool[np.ndarray, "k k"]] = {}
        self.unit_factor = unit.form.factor * spec.penalty.factor(CERTIFIED_LENGTH)
        self.highest: float | None = None

    def run(self) -> tuple[Explanation | None, Certificate]:
        """Complete what bounds do not rule out, until nothing is left or the time is over."""
        k = self.unit.tables.labels
        if self.unit_factor <= 0 or k < CERTIFIED_LENGTH or not self.unit.counts.area:
            return self._proved()
        try:
            self.clock.check()
            self.done = {kind: np.zeros((k, k), dtype=bool) for kind in (Or, And, AndNot)}
            while True:  # the tables of a round are gone before those of the next are made
                left = self._round()
                if left is None:
                    return self._proved()
                if left:
                    gap = self._gap()
                    return self.known, Certificate(CERTIFIED_LENGTH, gap == 0, gap, self.completed, left if gap else 0)
        except _OutOfTimeError:
            return self.known, self.unfinished(CERTIFIED_LENGTH)

    def _round(self) -> int | None:
        """Bound all formulas with what is known, and complete; None if nothing is left, else as `_complete`."""
        sums = self._sums()
        families = self._families(sums)
        return self._complete(sums, families) if any(len(family.bound) for family in families) else None

    def unfinished(self, length: int) -> Certificate:
        """What is known if the time was over before the bounds of all pairs were worked out: nothing is ruled out."""
        if self.highest is None:
            # No formula has more than the signatures that add to W; one of fewer labels than three costs less.
            factor = self.unit.form.factor * self.spec.penalty.factor(1)
            signature, _, labelled = self._w(self._t(factor))
            self.highest = self._objective_at(float(signature[labelled].sum()), factor=factor)
        gap, k = self._gap(), self.unit.tables.labels
        possible = k * (k - 1) // 2 + 3 * len(self.unit.tables.together.pairs)
        left = max(1, possible - self.completed) if gap else 0
        return Certificate(length, gap == 0, gap, self.completed, left)

    def _proved(self) -> tuple[Explanation | None, Certificate]:
        return self.known, Certificate(CERTIFIED_LENGTH, optimal=True, gap=0.0, completed=self.completed, left=0)

    def _t(self, factor: float) -> float:
        """Score, before factors, that a formula must exceed."""
        return self.known.objective / factor if self.known and factor > 0 else 0.0

    def _gap(self) -> float:
        """What a formula not looked at yet could add to the objective."""
        objective = self.known.objective if self.known else 0.0
        return max(0.0, (self.highest or 0.0) - objective)

    def _objective_at(self, bound: float, *, factor: float) -> float:
        """The highest objective of a formula with W of at most `bound`: (W + t d) / (c + d) <= W / c where W > t c."""
        constant, t = self.unit.form.constant, self._t(factor)
        if bound <= 0:
            return t * factor
        return (1.0 if constant == 0 else min(1.0, max(bound / constant, t))) * factor

    def _w(self, t: float) -> tuple[Float64[np.ndarray, "s"], Int64[np.ndarray, "m"], Int64[np.ndarray, "l"]]:
        """W of each signature, where it is above 0, and where there is also a label."""
        unit, form, tables = self.unit, self.unit.form, self.unit.tables
        above = form.numerator(unit.active, unit.counts.chance)
        signature = above - t * form.denominator(tables.weight, unit.active)
        positive = np.flatnonzero(signature > 0)
        wide = tables.together.columns.shape[1]
        return signature, positive, positive[tables.together.columns[positive, 0] > 0] if wide else positive[:0]

    def _sums(self) -> _Sums:
        unit, form, t = self.unit, self.unit.form, self._t(self.unit_factor)
        tables = unit.tables

        def w(
            area: Float64[np.ndarray, "*a"], i: Float64[np.ndarray, "*a"], c: Float64[np.ndarray, "*a"]
        ) -> Float64[np.ndarray, "*a"]:
            total: np.ndarray = form.numerator(i, c) - t * form.denominator(area, i)
            return total

        signature, positive, labelled = self._w(t)
        gain = tables.per_label(positive, signature[positive])
        (pairs,) = tables.per_pair(positive, signature[positive])
        pair = np.empty((tables.labels, tables.labels))
        pair_gain = tables.square(pairs, np.zeros(tables.labels))
        pair_loss = np.empty_like(pair)
        for rows in _row_blocks(tables.labels):
            self.clock.check()
            pair[rows] = w(tables.pair_area[rows], unit.pair_intersection[rows], unit.pair_chance[rows])
            np.maximum(pair_gain[rows] - pair[rows], 0.0, out=pair_loss[rows])
        np.fill_diagonal(pair_loss, 0.0)
        needed = t * form.constant
        room = _ROUNDING * max(needed, float(np.abs(signature).max(initial=0.0)), 1e-300)
        return _Sums(
            signature,
            w(tables.area, unit.intersection, unit.chance),
            gain,
            pair,
            pair_gain,
            pair_loss,
            float(signature[labelled].sum()),
            needed + room,
        )

    def _families(self, sums: _Sums) -> list[_Family]:
        """The formulas of two labels whose completions may exceed what is needed, not completed yet."""
        found = []
        with_loss = _with_loss(sums)
        for kind, (x, y, bound) in (
            (Or, _either(sums, self.clock)),
            (And, _both(sums, self.unit, with_loss)),
            (AndNot, _without(sums, self.unit, with_loss)),
        ):
            self.clock.check()
            chosen = np.flatnonzero((bound > sums.needed) & ~self.done[kind][x, y])
            order = chosen[np.argsort(-bound[chosen], kind="stable")]
            found.append(_Family(kind, x[order], y[order], bound[order]))
        return found

    def _complete(self, sums: _Sums, families: list[_Family]) -> int:
        """Complete formulas by descending bound, up to a find (0); out of time, the number that is left."""
        tables = self.unit.tables
        total = np.concatenate([family.bound for family in families])
        which = np.repeat(np.arange(len(families)), [len(family.bound) for family in families])
        place = np.concatenate([np.arange(len(family.bound)) for family in families])
        pairs = np.concatenate([tables.pair_number[family.x, family.y] for family in families])
        order = np.argsort(-total, kind="stable")
        # Labels that never meet have the number -1, and no entry.
        entries = np.append(np.diff(tables.together.by_start), 0)[pairs[order]]
        work = np.cumsum(entries * tables.together.columns.shape[1])
        first, step = 0, _FEW
        most = max(1, min(_MOST, _PER_STEP // tables.labels))
        factor = self.unit_factor
        while first < len(order):
            self.highest = self._objective_at(float(total[order[first]]), factor=factor)
            if self.clock.over():
                return len(order) - first
            affordable = int(np.searchsorted(work, (work[first - 1] if first else 0) + _WORK, side="right")) - first
            some = order[first : first + max(1, min(step, most, affordable))]
            for number, family in enumerate(families):
                chosen = place[some[which[some] == number]]
                # A find ends the step: what is left of it has to be looked at with the new t.
                if len(chosen) and self._with_every_label(sums, family.kind, family.x[chosen], family.y[chosen]):
                    return 0
            first += len(some)
            self.completed += len(some)
            step *= 2
        return 0

    def _with_every_label(
        self, sums: _Sums, kind: type[Or | And | AndNot], x: Int64[np.ndarray, "b"], y: Int64[np.ndarray, "b"]
    ) -> bool:
        """Work out F OR C, F AND C, F AND NOT C for all labels C; whether a better formula was found."""
        tables = self.unit.tables
        triple = tables.per_triple(tables.pair_number[x, y], sums.signature)
        pair = sums.pair[x, y][:, None]
        if kind is Or:
            own, joint = sums.single[x][:, None] + sums.single[y][:, None] - pair, sums.pair[x] + sums.pair[y] - triple
        elif kind is And:
            own, joint = pair, triple
        else:
            own, joint = sums.single[x][:, None] - pair, sums.pair[x] - triple
        better = False
        for operator, value in ((Or, own + sums.single - joint), (And, joint), (AndNot, own - joint)):
            highest = int(value.argmax())
            if value.flat[highest] > sums.needed:
                row, c = divmod(highest, tables.labels)
                formula: Formula = operator(
                    kind(_label(self.unit, int(x[row])), _label(self.unit, int(y[row]))), _label(self.unit, c)
                )
                one = explanation_of(self.unit, formula, self.spec)
                if self.known is None or one.objective > self.known.objective:
                    self.known, better = one, True
        if not better:
            self.done[kind][x, y] = True
            if kind is Or:  # its two labels may come in either order
                self.done[kind][y, x] = True
        return better


_Bounded = tuple[Int64[np.ndarray, "m"], Int64[np.ndarray, "m"], Float64[np.ndarray, "m"]]
"""Labels x and y of formulas, and the bounds of W of their completions."""


def _either(sums: _Sums, clock: _Clock) -> _Bounded:
    """Completions of X OR Y whose bound is above what is needed.

    - OR C. W(C - X - Y) <= W(C - X) + loss(C, Y), and <= gain(C); all gains together bound what can still be added. Of
      three labels that are joined, C may be taken to be the one that comes last by W.
    - AND C. W(X C or Y C) <= W(X C) + gain(Y C), either way round, and at most the gain of X OR Y.
    - AND NOT C. W(X OR Y) + loss(X C) + loss(Y C), and at most the gain of X OR Y.
    """
    order = np.argsort(-sums.single, kind="stable")
    k = len(order)
    rank = np.empty(k, dtype=np.int64)
    rank[order] = np.arange(k)
    most, after_own, loss_own = np.empty((3, k))
    for rows in _row_blocks(k):
        clock.check()
        pair = sums.pair[rows]
        behind = rank > rank[rows, None]
        after_own[rows] = np.where(behind, sums.single - pair, -np.inf).max(1)  # of W(C - Y) over C behind Y
        loss_own[rows] = np.where(behind, sums.pair_loss[rows], -np.inf).max(1)
        most[rows] = np.where(rank == rank[rows, None], 0.0, pair).max(1)
    values = (sums.single, sums.gain, most, sums.pair_gain.max(1), sums.pair_loss.max(1), after_own, loss_own)
    single, gain, most, most_gain, most_loss, after_own, loss_own = (value[order] for value in values)
    gain_after = _later_max(gain[None])[0]
    found: list[_Bounded] = [(order[:0], order[:0], single[:0])]
    for rows in _row_blocks(k):
        clock.check()
        at = slice(rows.start, k)  # of the table above the diagonal
        pair, pair_gain = (table[order[rows]].take(order[at], axis=1) for table in (sums.pair, sums.pair_gain))
        pair_loss = np.maximum(pair_gain - pair, 0.0)
        np.fill_diagonal(pair_loss, 0.0)
        own = single[rows, None] + single[at] - pair
        own_gain = gain[rows, None] + gain[at] - pair_gain
        # [x, y]: the most over C behind y
        joined = np.minimum(_later_max(single[at] - pair) + loss_own[at], after_own[at] + _later_max(pair_loss))
        joined = np.minimum(joined, gain_after[at])
        joined = own + np.minimum(joined, sums.total_gain - own_gain)
        met = np.minimum(most[rows, None] + most_gain[at], most_gain[rows, None] + most[at])
        taken = own + most_loss[rows, None] + most_loss[at]
        bound = np.maximum(joined, np.minimum(np.maximum(met, taken), own_gain))
        x, y = np.nonzero(np.triu(bound > sums.needed, 1))
        found.append((order[x + rows.start], order[y + rows.start], bound[x, y]))
    x, y, bound = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return x, y, bound


def _both(sums: _Sums, unit: UnitTables, with_loss: Float64[np.ndarray, "k"]) -> _Bounded:
    """Completions of X AND Y, for labels that meet.

    - OR C. W(C - X Y) <= W(C) + loss(X C) or loss(Y C) or loss(X Y), and <= gain(C).
    - AND C. At most the gain of X AND Y, and that of X AND C and of Y AND C.
    - AND NOT C. W(X Y) + loss(X C) or loss(Y C), and at most the gain of X AND Y.
    """
    x, y = unit.tables.together.pairs.T.astype(np.int64)
    own, own_gain, own_loss = sums.pair[x, y], sums.pair_gain[x, y], sums.pair_loss[x, y]
    most_gain, most_loss = sums.pair_gain.max(1), sums.pair_loss.max(1)
    joined = own + _added(sums, own_gain, own_loss, _least(with_loss, x, y))
    met = np.minimum(own_gain, _least(most_gain, x, y))
    taken = np.minimum(own_gain, own + _least(most_loss, x, y))
    return x, y, np.maximum(joined, np.maximum(met, taken))


def _without(sums: _Sums, unit: UnitTables, with_loss: Float64[np.ndarray, "k"]) -> _Bounded:
    """Completions of X AND NOT Y, for labels that meet, either way round.

    - OR C. W(C - (X - Y)) <= W(C) + loss(X C) or loss(X - Y), and <= gain(C).
    - AND C is (X AND C) AND NOT Y, a completion of X AND C.
    - AND NOT C. W(X - Y) + loss(X C), and at most the gain of X AND NOT Y.
    """
    pairs = unit.tables.together.pairs.T.astype(np.int64)
    x, y = np.concatenate([pairs, pairs[::-1]], axis=1)
    own = sums.single[x] - sums.pair[x, y]
    own_gain = sums.gain[x] - sums.pair_gain[x, y]
    own_loss = np.maximum(own_gain - own, 0.0)
    joined = own + _added(sums, own_gain, own_loss, with_loss[x])
    taken = np.minimum(own_gain, own + sums.pair_loss.max(1)[x])
    return x, y, np.maximum(joined, taken)


def _with_loss(sums: _Sums) -> Float64[np.ndarray, "k"]:
    """For each X, the highest W(C) + loss(X C) over other labels C."""
    highest = np.empty(len(sums.single))
    for rows in _row_blocks(len(highest)):
        value = sums.single + sums.pair_loss[rows]
        np.fill_diagonal(value[:, rows], -np.inf)
        highest[rows] = value.max(1)
    return highest


def _added(
    sums: _Sums,
    own_gain: Float64[np.ndarray, "m"],
    own_loss: Float64[np.ndarray, "m"],
    with_loss: Float64[np.ndarray, "m"],
) -> Float64[np.ndarray, "m"]:
    """The most that OR with a label can add to a formula."""
    by_gain = np.minimum(float(sums.gain.max()), sums.total_gain - own_gain)
    most: np.ndarray = np.minimum(np.minimum(float(sums.single.max()) + own_loss, with_loss), by_gain)
    return most


def _least(
    values: Float64[np.ndarray, "k"], x: Int64[np.ndarray, "m"], y: Int64[np.ndarray, "m"]
) -> Float64[np.ndarray, "m"]:
    least: np.ndarray = np.minimum(values[x], values[y])
    return least


def _later_max(values: Float64[np.ndarray, "r k"]) -> Float64[np.ndarray, "r k"]:
    """Highest value of a row behind each place; minus infinity behind the last."""
    later = np.full_like(values, -np.inf)
    later[:, :-1] = np.maximum.accumulate(values[:, :0:-1], axis=1)[:, ::-1]
    return later
