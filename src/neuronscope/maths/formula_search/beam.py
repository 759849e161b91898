"""Good formulas of any length: a beam search that looks at every label and operator without building their masks.

For a formula F of the beam one histogram over its signatures gives |F and c| and the unit's share of it for all labels
c at once; from these follow area and intersection of F OR c, F AND c and F AND NOT c. Only the formulas that enter the
beam are ever built.

By default no two formulas of the beam have the same mask (area, intersection and a hash over the signatures), and ties
go to the shorter formula, then to the lower label numbers. `legacy="compexp"` is the original search (Mu and Andreas
2020) instead: duplicates stay, a formula's extensions come label by label, OR before AND before AND NOT, ties go to
what came first, AND NOT counts two labels for the penalty, and 1e-10 is added to the denominator.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64

from neuronscope.maths.formula_search.found import Explanation, Found, choice
from neuronscope.maths.formula_search.spec import OPERATORS, SearchSpec
from neuronscope.maths.formula_search.tables import SearchTables, UnitTables, unit_tables
from neuronscope.maths.formulas import And, AndNot, Formula, Label, Or, label_numbers, length, operands, satisfied
from neuronscope.maths.signatures import UnitCounts

_OPERATORS: tuple[type[Or | And | AndNot], ...] = (Or, And, AndNot)
"""In the order of the original."""

_EPSILON = 1e-10
"""What the original adds to the denominator of a score."""


_Order = tuple[float, int, tuple[int, ...], tuple[int, ...]]
"""What formulas are sorted by."""


class _Histogram(NamedTuple):
    """Area, intersection and chance of a formula with each label."""

    area: Float64[np.ndarray, "k"]
    intersection: Float64[np.ndarray, "k"]
    chance: Float64[np.ndarray, "k"]


@dataclass(eq=False)
class _Entry:
    """A formula with its mask over the signatures, as it stands in the beam."""

    formula: Formula
    holds: Bool[np.ndarray, "s"]
    length: int
    area: float
    intersection: float
    chance: float
    objective: float
    score: float
    base: _Entry | None
    rows: Int[np.ndarray, "m"]
    histogram: _Histogram | None = field(default=None)


class _Candidates(NamedTuple):
    """Extensions of one formula, not built yet: by operator (rows) and term."""

    origin: _Entry | None
    operators: tuple[type[Or | And | AndNot], ...]
    pairs: bool
    terms: Int64[np.ndarray, "c"]
    objective: Float64[np.ndarray, "o c"]


def beam_search(tables: SearchTables, counts: UnitCounts, spec: SearchSpec, *, seeds: Sequence[Formula] = ()) -> Found:
    """Search the formulas of a unit.

    Args:
        tables: the labelled image set.
        counts: the unit.
        spec: settings; `certify` is not looked at here.
        seeds: Boolean formulas that compete with what the search finds, from their length on.

    Raises:
        InputError: the counts are of another image set.
    """
    unit = unit_tables(tables, counts, spec.score)
    levels = _legacy(unit, spec) if spec.legacy == "compexp" else _distinct(unit, spec, seeds)
    best = tuple(_explanation(kept[0]) if kept else None for kept in levels)
    top = tuple(_explanation(entry) for entry in levels[-1][: spec.top])
    beams = tuple(tuple(_explanation(entry) for entry in kept[: spec.beam]) for kept in levels)
    return Found(best, top, choice(best, minimum_gain=spec.minimum_gain), None, beams)


def explanation_of(unit: UnitTables, formula: Formula, spec: SearchSpec) -> Explanation:
    """A Boolean formula, scored."""
    return _explanation(_built(unit, formula, satisfied(formula, unit.tables.signatures), spec))


def _distinct(unit: UnitTables, spec: SearchSpec, seeds: Sequence[Formula]) -> list[list[_Entry]]:
    """The formulas kept at each length, best first, with distinct masks."""
    keep = max(spec.beam, spec.top)
    singles = _singles(unit, spec)
    kept = _selected(unit, [], [singles], keep, spec)
    chosen = _chosen(singles, spec)
    levels = [kept]
    extended: set[int] = set()
    for size in range(2, spec.length + 1):
        candidates: list[_Candidates] = []
        for entry in kept[: spec.beam]:
            if id(entry) not in extended:
                extended.add(id(entry))
                candidates.append(_by_labels(unit, entry, chosen, spec))
        if spec.terms == "pairs" and size > 2:  # noqa: PLR2004 the shortest formula with a pair appended has 3 labels
            earlier = [entry for entry in levels[size - 3][: spec.beam] if -id(entry) not in extended]
            extended.update(-id(entry) for entry in earlier)
            candidates.extend(_by_pairs(unit, entry, chosen, spec) for entry in earlier)
        started = [
            _built(unit, seed, satisfied(seed, unit.tables.signatures), spec) for seed in seeds if length(seed) == size
        ]
        kept = _selected(unit, [*kept, *started], candidates, keep, spec)
        levels.append(kept)
    return levels


def _chosen(singles: _Candidates, spec: SearchSpec) -> Int64[np.ndarray, "c"]:
    """Places of the labels that formulas are extended by."""
    if spec.candidates is None:
        return singles.terms
    order = np.argsort(-singles.objective[0], kind="stable")[: spec.candidates]
    return np.sort(singles.terms[order])


def _singles(unit: UnitTables, spec: SearchSpec) -> _Candidates:
    value = unit.form.value(unit.tables.area, unit.intersection, unit.chance) * spec.penalty.factor(1)
    return _Candidates(None, (Or,), False, np.arange(unit.tables.labels), value[None])


def _histogram(unit: UnitTables, entry: _Entry) -> _Histogram:
    """Of the formula it was made from, changed by the signatures in which the two differ, if there is such a one."""
    if entry.histogram is None:
        own = _sums(unit, entry.rows)
        if entry.base is not None and not isinstance(entry.formula, And):
            sign = 1 if isinstance(entry.formula, Or) else -1
            own = _Histogram(*(b + sign * o for b, o in zip(_histogram(unit, entry.base), own, strict=True)))
        entry.histogram = own
    return entry.histogram


def _sums(unit: UnitTables, rows: Int[np.ndarray, "m"]) -> _Histogram:
    tables = unit.tables
    firing = rows[unit.active[rows] > 0]
    empty = np.zeros(tables.labels)
    chance = tables.per_label(rows, unit.counts.chance[rows]) if unit.form.chance_share else empty
    area = tables.per_label(rows, tables.weight[rows])
    return _Histogram(area, tables.per_label(firing, unit.active[firing]), chance)


def _by_labels(unit: UnitTables, entry: _Entry, chosen: Int64[np.ndarray, "c"], spec: SearchSpec) -> _Candidates:
    """F OR c, F AND c, F AND NOT c; those with the mask of F or without any are scored 0."""
    joint = _Histogram(*(part[chosen] for part in _histogram(unit, entry)))
    own = _Histogram(unit.tables.area[chosen], unit.intersection[chosen], unit.chance[chosen])
    area, intersection, chance = _extended(entry, own, joint)
    value = unit.form.value(area, intersection, chance) * spec.penalty.factor(entry.length + 1)
    value[area == entry.area] = 0.0  # OR only adds, AND and AND NOT only take away: equal area is an equal mask
    rows = _rows(spec)
    return _Candidates(entry, tuple(_OPERATORS[row] for row in rows), False, chosen, value[rows])


def _rows(spec: SearchSpec) -> list[int]:
    """Places in `_OPERATORS` of those that formulas are made of."""
    return [row for row, name in enumerate(OPERATORS) if name in spec.operators]


def _extended(entry: _Entry, own: _Histogram, joint: _Histogram) -> _Histogram:
    """The measures of F OR c, F AND c, F AND NOT c, one row each."""
    totals = (entry.area, entry.intersection, entry.chance)
    return _Histogram(
        *(np.stack([f + c - both, both, f - both]) for f, c, both in zip(totals, own, joint, strict=True))
    )


def _by_pairs(unit: UnitTables, entry: _Entry, chosen: Int64[np.ndarray, "c"], spec: SearchSpec) -> _Candidates:
    """F OR (X AND Z) and F AND NOT (X AND Z), for labels that meet."""
    tables = unit.tables
    x, y = tables.together.pairs.T
    rows = np.flatnonzero(entry.holds)
    firing = rows[unit.active[rows] > 0]
    (area,) = tables.per_pair(rows, tables.weight[rows])
    (intersection,) = tables.per_pair(firing, unit.active[firing])
    own_chance = chance = np.zeros(len(x))
    if unit.form.chance_share:
        (chance,) = tables.per_pair(rows, unit.counts.chance[rows])
        own_chance = unit.pair_chance[x, y]
    joint = _Histogram(area, intersection, chance)
    own = _Histogram(tables.together.area.astype(np.float64), unit.pair_intersection[x, y], own_chance)
    measures = _Histogram(*(part[[0, 2]] for part in _extended(entry, own, joint)))
    value = unit.form.value(*measures) * spec.penalty.factor(entry.length + 2)
    value[measures.area == entry.area] = 0.0
    allowed = np.zeros(tables.labels, dtype=bool)
    allowed[chosen] = True
    value[:, ~(allowed[x] & allowed[y])] = 0.0
    return _Candidates(entry, (Or, AndNot), True, np.arange(len(x)), value)


def _selected(
    unit: UnitTables, entries: Iterable[_Entry], candidates: list[_Candidates], keep: int, spec: SearchSpec
) -> list[_Entry]:
    """The best formulas with distinct masks, among those built and those not built yet."""
    ready = [entry for entry in entries if entry.objective > 0]
    objective = np.concatenate([np.zeros(0), *(some.objective.reshape(-1) for some in candidates)])
    first = np.cumsum([0, *(some.objective.size for some in candidates)])
    positive = int((objective > 0).sum())
    looked_at = min(positive, 4 * keep + 16)
    while True:
        # All ties with the last are looked at too, so that the order of candidates does not matter.
        lowest = np.partition(objective, -looked_at)[-looked_at] if looked_at else np.inf
        spots = np.flatnonzero(objective >= lowest)
        named = [(float(objective[spot]), *_term(unit, candidates, first, int(spot))) for spot in spots]
        found = _walk(unit, ready, named, keep, spec)
        if len(found) >= keep or looked_at >= positive:
            return found
        looked_at = min(positive, 4 * looked_at)


def _walk(
    unit: UnitTables,
    ready: list[_Entry],
    named: list[tuple[float, _Entry | None, Formula, Formula]],
    keep: int,
    spec: SearchSpec,
) -> list[_Entry]:
    """Go through formulas from the best, leaving out those whose mask was seen."""
    queue: list[tuple[_Order, _Entry | None, tuple[Formula, Formula] | None]]
    queue = [(_order(entry.objective, entry.formula), entry, None) for entry in ready]
    queue += [(_order(value, formula), origin, (formula, term)) for value, origin, formula, term in named]
    found: dict[tuple[float, float, int], _Entry] = {}
    for _, entry, new in sorted(queue, key=lambda item: item[0]):
        built = entry if new is None else _grown(unit, entry, *new, spec)
        if built is not None:  # what is ready has an entry, what is new gets one
            mark = int(unit.tables.mark[built.holds].sum(dtype=np.uint64))
            found.setdefault((built.area, built.intersection, mark), built)
        if len(found) == keep:
            break
    return list(found.values())


def _term(
    unit: UnitTables, candidates: list[_Candidates], first: Int64[np.ndarray, "m"], spot: int
) -> tuple[_Entry | None, Formula, Formula]:
    """The formula at a place of the concatenated candidates: what it extends, itself, and the term it appends."""
    at = int(np.searchsorted(first, spot, side="right")) - 1
    some = candidates[at]
    operator, column = divmod(spot - int(first[at]), len(some.terms))
    numbers = unit.tables.together.numbers
    term: Formula
    if some.pairs:
        x, y = unit.tables.together.pairs[some.terms[column]]
        term = And(Label(int(numbers[x])), Label(int(numbers[y])))
    else:
        term = Label(int(numbers[some.terms[column]]))
    whole = term if some.origin is None else some.operators[operator](some.origin.formula, term)
    return some.origin, whole, term


def _order(objective: float, formula: Formula) -> _Order:
    """Higher score, shorter, lower label numbers, then OR before AND before AND NOT."""
    return (-objective, length(formula), label_numbers(formula), _operators(formula))


def _operators(formula: Formula) -> tuple[int, ...]:
    own = (_OPERATORS.index(type(formula)),) if isinstance(formula, Or | And | AndNot) else ()
    return own + tuple(number for part in operands(formula) for number in _operators(part))


def _grown(unit: UnitTables, origin: _Entry | None, formula: Formula, term: Formula, spec: SearchSpec) -> _Entry:
    """Build an extension from the formula that it extends."""
    signatures = unit.tables.signatures
    if isinstance(term, And) and isinstance(term.left, Label) and isinstance(term.right, Label):
        shared = np.isin(
            signatures.signatures_of(term.left.number), signatures.signatures_of(term.right.number), assume_unique=True
        )
        rows = signatures.signatures_of(term.left.number)[shared]
    else:
        rows = signatures.signatures_of(label_numbers(term)[0])
    if origin is None:
        holds = np.zeros(len(unit.active), dtype=bool)
        holds[rows] = True
        return _built(unit, formula, holds, spec, rows=rows)
    inside = origin.holds[rows]
    rows = rows[~inside] if isinstance(formula, Or) else rows[inside]
    holds = np.zeros_like(origin.holds) if isinstance(formula, And) else origin.holds.copy()
    holds[rows] = not isinstance(formula, AndNot)
    return _built(unit, formula, holds, spec, base=origin, rows=rows)


def _built(
    unit: UnitTables,
    formula: Formula,
    holds: Bool[np.ndarray, "s"],
    spec: SearchSpec,
    *,
    base: _Entry | None = None,
    rows: Int[np.ndarray, "m"] | None = None,
) -> _Entry:
    """Measure a formula; `rows` are the signatures in which it differs from `base`, or its own."""
    own = np.flatnonzero(holds) if rows is None else rows
    area, intersection = float(unit.tables.weight[own].sum()), float(unit.active[own].sum())
    chance = float(unit.counts.chance[own].sum()) if unit.form.chance_share else 0.0
    if base is not None and not isinstance(formula, And):
        sign = 1 if isinstance(formula, Or) else -1
        area, intersection = base.area + sign * area, base.intersection + sign * intersection
        chance = base.chance + sign * chance
    score = unit.form.single(area, intersection, chance)
    size = length(formula)
    return _Entry(formula, holds, size, area, intersection, chance, score * spec.penalty.factor(size), score, base, own)


def _explanation(entry: _Entry) -> Explanation:
    return Explanation(
        entry.formula, entry.score, entry.objective, entry.length, round(entry.area), round(entry.intersection)
    )


def _legacy(unit: UnitTables, spec: SearchSpec) -> list[list[_Entry]]:
    """The formulas kept at each round, as the original keeps them."""

    def objective(size: int, measures: _Histogram) -> Float64[np.ndarray, "*a"]:
        above = unit.form.numerator(measures.intersection, measures.chance)
        below = unit.form.constant + unit.form.denominator(measures.area, measures.intersection)
        return unit.form.factor * above / (below + _EPSILON) * spec.penalty.factor(size)

    tables = unit.tables
    first = objective(1, _Histogram(tables.area, unit.intersection, unit.chance))
    order = np.argsort(-first, kind="stable")
    chosen = np.sort(order[: spec.candidates]) if spec.candidates else np.arange(len(first))
    beam: list[_Entry] = []
    for place in order[: spec.beam]:
        if first[place] > 0:
            label = Label(int(tables.together.numbers[place]))
            entry = _grown(unit, None, label, label, spec)
            entry.objective = float(first[place])
            beam.append(entry)
    levels = [beam]
    allowed = _rows(spec)
    for _ in range(1, spec.length):
        values = [np.array([entry.objective for entry in beam])]
        for entry in beam:
            joint = _Histogram(*(part[chosen] for part in _histogram(unit, entry)))
            own = _Histogram(tables.area[chosen], unit.intersection[chosen], unit.chance[chosen])
            measures = _extended(entry, own, joint)
            size = length(entry.formula, convention="compexp")
            rows = [
                objective(size + more, _Histogram(*(part[at] for part in measures)))
                for at, more in enumerate((1, 1, 2))
                if at in allowed
            ]
            values.append(np.stack(rows, axis=1).reshape(-1))  # label by label, the operators of one label in turn
        flat = np.concatenate(values)
        beam = [
            _kept(unit, beam, chosen, int(spot), float(flat[spot]), spec=spec)
            for spot in np.argsort(-flat, kind="stable")[: spec.beam]
        ]
        levels.append(beam)
    return levels


def _kept(
    unit: UnitTables, beam: list[_Entry], chosen: Int64[np.ndarray, "c"], spot: int, value: float, *, spec: SearchSpec
) -> _Entry:
    """The formula at a place of the list of a legacy round: the old beam, then each one's extensions."""
    if spot < len(beam):
        return beam[spot]
    operators = [_OPERATORS[row] for row in _rows(spec)]
    origin, rest = divmod(spot - len(beam), len(operators) * len(chosen))
    place, operator = divmod(rest, len(operators))
    term = Label(int(unit.tables.together.numbers[chosen[place]]))
    entry = _grown(unit, beam[origin], operators[operator](beam[origin].formula, term), term, spec)
    entry.objective = value
    return entry
