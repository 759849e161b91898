"""The best formula of up to three labels, with the proof that there is none better.

A score above t is a sum over signatures above a constant: W(L) = above(L) - t * below(L) > t * constant, with t the
best score so far. So W of every formula follows from W of labels, pairs and triples of labels:

- One and two labels are worked out completely: four functions for each pair that meets, OR for the others.
- Three labels are a formula F of two labels and a third, C. The sums of pairs, taken over all signatures and over those
  that add to W alone, bound W of every completion of F. What cannot exceed t * constant is ruled out, nearly
  everything; what is left is completed exactly with every label, the most promising first, from one histogram over the
  signatures of F's two labels. A better formula raises t, which rules out more.

The 23 functions of three labels that left-deep formulas of OR, AND and AND NOT make are all covered, for every score of
`Score`. When the time is over, the largest bound that is left gives the gap.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

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
        seconds: time limit for three labels; one and two are always worked out.

    Raises:
        InputError: the counts are of another image set.
    """
    unit = unit_tables(tables, counts, spec.score)
    most = min(CERTIFIED_LENGTH, spec.length)
    deadline = None if seconds is None else time.monotonic() + seconds
    best: list[Explanation | None] = []
    for size, find in zip(range(1, most + 1), (_best_single, _best_pair), strict=False):
        exact = find(unit, spec) if tables.labels >= size else None
        best.append(_best([*best[-1:], *_of_length(start, size), exact]))
    if most < CERTIFIED_LENGTH:
        return tuple(best), Certificate(most, optimal=True, gap=0.0, completed=0, left=0)
    known = _best([best[-1], *_of_length(start, CERTIFIED_LENGTH)])
    found, certificate = _Proof(unit, spec, known, deadline).run()
    return (*best, found), certificate


def _of_length(found: Sequence[Explanation | None], size: int) -> list[Explanation]:
    return [one for one in found if one is not None and one.length == size]


def _best(found: Sequence[Explanation | None]) -> Explanation | None:
    """The first of the highest objective, if it is above 0."""
    there = [one for one in found if one is not None and one.objective > 0]
    return max(there, key=lambda one: one.objective, default=None)


def _best_single(unit: UnitTables, spec: SearchSpec) -> Explanation | None:
    value = unit.form.value(unit.tables.area, unit.intersection, unit.chance)
    return explanation_of(unit, _label(unit, int(value.argmax())), spec)


def _best_pair(unit: UnitTables, spec: SearchSpec) -> Explanation | None:
    """The best of X OR Y for all pairs, X AND Y and X AND NOT Y."""
    tables, form = unit.tables, unit.form
    area, intersection, chance = tables.pair_area, unit.pair_intersection, unit.pair_chance
    a, i, c = tables.area, unit.intersection, unit.chance
    options: list[tuple[type[Or | And | AndNot], Float64[np.ndarray, "k k"]]] = [
        (Or, form.value(a[:, None] + a - area, i[:, None] + i - intersection, c[:, None] + c - chance)),
        (And, form.value(area, intersection, chance)),
        (AndNot, form.value(a[:, None] - area, i[:, None] - intersection, c[:, None] - chance)),
    ]
    found = []
    for kind, value in options:
        np.fill_diagonal(value, -np.inf)
        x, y = divmod(int(value.argmax()), tables.labels)
        found.append(explanation_of(unit, kind(_label(unit, x), _label(unit, y)), spec))
    return _best(found)


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

    def __init__(self, unit: UnitTables, spec: SearchSpec, known: Explanation | None, deadline: float | None) -> None:
        self.unit = unit
        self.spec = spec
        self.known = known
        self.deadline = deadline
        self.completed = 0
        k = unit.tables.labels
        self.done = {kind: np.zeros((k, k), dtype=bool) for kind in (Or, And, AndNot)}
        self.unit_factor = unit.form.factor * spec.penalty.factor(CERTIFIED_LENGTH)

    def run(self) -> tuple[Explanation | None, Certificate]:
        """Complete what bounds do not rule out, until nothing is left or the time is over."""
        if self.unit_factor <= 0 or self.unit.tables.labels < CERTIFIED_LENGTH or not self.unit.counts.area:
            return self._proved()
        while True:
            sums = self._sums()
            families = self._families(sums)
            if not any(len(family.bound) for family in families):
                return self._proved()
            left = self._complete(sums, families)
            if left is not None:
                highest, count = left
                objective = self.known.objective if self.known else 0.0
                gap = max(0.0, self._objective_at(highest) - objective)
                return self.known, Certificate(CERTIFIED_LENGTH, gap == 0, gap, self.completed, count)

    def _proved(self) -> tuple[Explanation | None, Certificate]:
        return self.known, Certificate(CERTIFIED_LENGTH, optimal=True, gap=0.0, completed=self.completed, left=0)

    def _t(self) -> float:
        """Score, before factors, that a formula of three labels must exceed."""
        return self.known.objective / self.unit_factor if self.known else 0.0

    def _objective_at(self, bound: float) -> float:
        """The highest objective of a formula with W of at most `bound`: (W + t d) / (c + d) <= W / c where W > t c."""
        constant = self.unit.form.constant
        highest = 1.0 if constant == 0 else min(1.0, bound / constant)
        return highest * self.unit_factor

    def _sums(self) -> _Sums:
        unit, form, t = self.unit, self.unit.form, self._t()
        tables = unit.tables

        def w(
            area: Float64[np.ndarray, "*a"], i: Float64[np.ndarray, "*a"], c: Float64[np.ndarray, "*a"]
        ) -> Float64[np.ndarray, "*a"]:
            total: np.ndarray = form.numerator(i, c) - t * form.denominator(area, i)
            return total

        signature = w(tables.weight, unit.active, unit.counts.chance)
        positive = np.flatnonzero(signature > 0)
        gain = tables.per_label(positive, signature[positive])
        (pairs,) = tables.per_pair(positive, signature[positive])
        pair = w(tables.pair_area, unit.pair_intersection, unit.pair_chance)
        pair_gain = tables.square(pairs, np.zeros(tables.labels))
        pair_loss = np.maximum(pair_gain - pair, 0.0)
        np.fill_diagonal(pair_loss, 0.0)
        labelled = positive[tables.together.columns[positive, 0] > 0] if tables.labels else positive
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
        for kind, (x, y, bound) in (
            (Or, _either(sums)),
            (And, _both(sums, self.unit)),
            (AndNot, _without(sums, self.unit)),
        ):
            chosen = np.flatnonzero((bound > sums.needed) & ~self.done[kind][x, y])
            order = chosen[np.argsort(-bound[chosen], kind="stable")]
            found.append(_Family(kind, x[order], y[order], bound[order]))
        return found

    def _complete(self, sums: _Sums, families: list[_Family]) -> tuple[float, int] | None:
        """Complete formulas by descending bound, up to a find; out of time, the largest bound and the number left."""
        total = np.concatenate([family.bound for family in families])
        which = np.repeat(np.arange(len(families)), [len(family.bound) for family in families])
        place = np.concatenate([np.arange(len(family.bound)) for family in families])
        order = np.argsort(-total, kind="stable")
        first, step = 0, _FEW
        most = max(1, min(_MOST, _PER_STEP // self.unit.tables.labels))
        while first < len(order):
            if self.deadline is not None and time.monotonic() >= self.deadline:
                return float(total[order[first]]), len(order) - first
            some = order[first : first + min(step, most)]
            for number, family in enumerate(families):
                chosen = place[some[which[some] == number]]
                # A find ends the step: what is left of it has to be looked at with the new t.
                if len(chosen) and self._with_every_label(sums, family.kind, family.x[chosen], family.y[chosen]):
                    return None
            first += len(some)
            self.completed += len(some)
            step *= 2
        return None

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


def _either(sums: _Sums) -> _Bounded:
    """Completions of X OR Y.

    - OR C. W(C - X - Y) <= W(C - X) + loss(C, Y), and <= gain(C); all gains together bound what can still be added. Of
      three labels that are joined, C may be taken to be the one that comes last by W.
    - AND C. W(X C or Y C) <= W(X C) + gain(Y C), either way round, and at most the gain of X OR Y.
    - AND NOT C. W(X OR Y) + loss(X C) + loss(Y C), and at most the gain of X OR Y.
    """
    order = np.argsort(-sums.single, kind="stable")
    single, gain = sums.single[order], sums.gain[order]
    across = np.ix_(order, order)
    pair, pair_gain, pair_loss = sums.pair[across], sums.pair_gain[across], sums.pair_loss[across]
    k = len(single)
    own = single[:, None] + single - pair
    own_gain = gain[:, None] + gain - pair_gain
    after = _later_max(single - pair)  # [x, y]: max of W(C - X) over C behind y
    loss_after = _later_max(pair_loss)
    at = np.arange(k)
    joined = np.minimum(after + loss_after[at, at], after[at, at] + loss_after)
    joined = np.minimum(joined, _later_max(gain[None])[0])
    joined = own + np.minimum(joined, sums.total_gain - own_gain)
    off = pair.copy()
    np.fill_diagonal(off, 0.0)
    most, most_gain, most_loss = off.max(1), pair_gain.max(1), pair_loss.max(1)
    met = np.minimum(most[:, None] + most_gain, most_gain[:, None] + most)
    taken = own + most_loss[:, None] + most_loss
    bound = np.maximum(joined, np.minimum(np.maximum(met, taken), own_gain))
    x, y = np.triu_indices(k, 1)
    return order[x], order[y], bound[x, y]


def _both(sums: _Sums, unit: UnitTables) -> _Bounded:
    """Completions of X AND Y, for labels that meet.

    - OR C. W(C - X Y) <= W(C) + loss(X C) or loss(Y C) or loss(X Y), and <= gain(C).
    - AND C. At most the gain of X AND Y, and that of X AND C and of Y AND C.
    - AND NOT C. W(X Y) + loss(X C) or loss(Y C), and at most the gain of X AND Y.
    """
    x, y = unit.tables.together.pairs.T.astype(np.int64)
    own, own_gain, own_loss = sums.pair[x, y], sums.pair_gain[x, y], sums.pair_loss[x, y]
    most_gain, most_loss = sums.pair_gain.max(1), sums.pair_loss.max(1)
    joined = own + _added(sums, own_gain, own_loss, _least(_with_loss(sums), x, y))
    met = np.minimum(own_gain, _least(most_gain, x, y))
    taken = np.minimum(own_gain, own + _least(most_loss, x, y))
    return x, y, np.maximum(joined, np.maximum(met, taken))


def _without(sums: _Sums, unit: UnitTables) -> _Bounded:
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
    joined = own + _added(sums, own_gain, own_loss, _with_loss(sums)[x])
    taken = np.minimum(own_gain, own + sums.pair_loss.max(1)[x])
    return x, y, np.maximum(joined, taken)


def _with_loss(sums: _Sums) -> Float64[np.ndarray, "k"]:
    """For each X, the highest W(C) + loss(X C) over other labels C."""
    value = sums.single + sums.pair_loss
    np.fill_diagonal(value, -np.inf)
    highest: np.ndarray = value.max(1)
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
