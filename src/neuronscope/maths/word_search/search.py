"""The beam search over cells.

Formulas grow by one label at a time, by the moves of `moves`; a length's beam is the best of the beam before and of
all that its formulas become. By default all labels take part, no two formulas of the beam have the same mask, and ties
go to the shorter formula, then to the lower label numbers.

`legacy="indres"` is the original search (Harth 2022, as its text and settings describe it): labels that score nothing
take no part; the first beam holds no label beside its expanded copy; formulas come formula by formula, label by label
(the best label first), operator by operator; those seen before are not looked at again; ties go to what came first;
the beam holds no two formulas that are the same but for expansion, while different formulas of one mask may stand in
it; least coverage is not asked of labels; and 1e-10 is added to the denominator. Its limits (50 labels, least
coverage, early abort, penalty) are settings: `INDRES` has them all. Unlike there, formulas of score 0 or less never
stand in the beam.

With dynamic thresholds `Found` tells each formula's scores at its own threshold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from neuronscope.errors import InputError
from neuronscope.maths.formula_search.found import choice
from neuronscope.maths.formulas import Close, CloseTo, Formula, Key, key, length, operands
from neuronscope.maths.word_search.concept_words import ConceptWords, UnitWords
from neuronscope.maths.word_search.found import Start, WordExplanation, WordFound
from neuronscope.maths.word_search.scoring import Entry, Grown, Order, Scorer, order, scorer, unexpanded
from neuronscope.maths.word_search.spec import WordSearchSpec
from neuronscope.maths.word_search.terms import terms_of


def explain_words(
    concepts: ConceptWords,
    unit: UnitWords,
    spec: WordSearchSpec,
    *,
    seeds: Sequence[Formula] = (),
    start: Start | None = None,
) -> WordFound:
    """The best formulas of a unit for every length up to `spec.length`.

    Args:
        concepts: the labelled image set.
        unit: the unit.
        spec: settings.
        seeds: formulas that compete with what the search finds, from their length on.
        start: where an earlier search of the same unit with the same settings stood. What is found is what a search
            that ran through would have found.

    Raises:
        InputError: the unit is of another image set, has no activations for dynamic thresholds, or the start does not
            fit the settings.

    Example:
        >>> from neuronscope.maths.formulas import text
        >>> from neuronscope.maths.word_search import concept_words
        >>> words = [(np.array([1, 2]), np.array([7, 8], np.uint64)), (np.array([1]), np.array([7], np.uint64))]
        >>> unit = UnitWords(np.array([7, 0], np.uint64))
        >>> found = explain_words(concept_words(words), unit, WordSearchSpec(length=2))
        >>> [text(one.formula, {1: "sky", 2: "sea"}) for one in found.best], found.choice.score
        (['sky', 'sky WITH sea'], 1.0)
    """
    _check(concepts, unit, spec, start)
    given = [*seeds, *(start.beam if start else ())]
    close = "close" in spec.operators or any(_has_close(formula) for formula in given)
    terms = terms_of(concepts, expansions=spec.expansions, close=close)
    whole = scorer(concepts, unit, terms, spec, close=close)
    singles = whole.singles()
    ranked = np.argsort(-singles.objective[0], kind="stable")
    if spec.legacy == "indres":
        ranked = ranked[singles.objective[0, ranked] > 0]
    places = ranked[: spec.candidates]
    if start is not None and start.candidates:
        places = terms.places(start.candidates)
    chosen = whole
    if len(places) < len(terms) or spec.legacy == "indres":
        kept = places if spec.legacy == "indres" else np.sort(places)
        chosen = scorer(concepts, unit, terms.chosen(kept), spec, close=close)
    run = _Run(whole, chosen, singles, ranked, seeds, start)
    levels = run.levels()
    size = 1 if start is None else start.length
    beams = tuple(tuple(entry.explanation for entry in kept) for kept in levels)
    best = (*_earlier(beams[0], size), *(kept[0] if kept else None for kept in beams))
    picked = choice(best, minimum_gain=spec.minimum_gain)
    return WordFound(
        best,
        beams[-1][: spec.top],
        next((one for one in best if one is not None and one is picked), None),
        None,
        beams,
        tuple(terms.leaf(int(place)) for place in places),
    )


@dataclass(frozen=True, eq=False)
class _Run:
    """One search.

    Attributes:
        whole: scores of all labels.
        chosen: scores of formulas extended by the candidates.
        singles: all labels.
        ranked: their places, best first.
        seeds: formulas that join at their length.
        start: where to go on; None to begin.
    """

    whole: Scorer
    chosen: Scorer
    singles: Grown
    ranked: Int64[np.ndarray, "c"]
    seeds: Sequence[Formula]
    start: Start | None

    @property
    def spec(self) -> WordSearchSpec:
        return self.whole.spec

    @property
    def tuned(self) -> bool:
        """Whether formulas come out of the scoring with the threshold that they keep."""
        return not (self.spec.thresholds == "dynamic" and self.spec.threshold_update == "after")

    def levels(self) -> list[list[Entry]]:
        """The formulas kept at each length."""
        legacy = self.spec.legacy == "indres"
        if self.start is None:
            kept = self._first_of_original() if legacy else self._selected([], [self.singles], self.whole)
        else:
            thresholds = self.start.thresholds or [self.whole.threshold] * len(self.start.beam)
            pairs = zip(self.start.beam, thresholds, strict=True)
            kept = self._sorted([self.chosen.entry(formula, threshold, tuned=True) for formula, threshold in pairs])
        levels = [kept]
        extended: set[int] = set()
        seen: set[Key] = set()
        first = 2 if self.start is None else self.start.length + 1
        for size in range(first, self.spec.length + 1):
            # While there are places left, nothing is too bad; so the bar never falls, and a formula that was left out
            # need not be looked at again.
            full = len(kept) >= self.spec.beam
            worst = min(entry.objective for entry in kept[: self.spec.beam]) if full else 0.0
            new = [entry for entry in kept[: self.spec.beam] if id(entry) not in extended]
            extended.update(id(entry) for entry in new)
            grown = [self.chosen.grown(entry, worst=worst) for entry in new]
            # A seed that scores nothing is no better than the formulas that are left out for it.
            seeds = [self._seed(seed) for seed in self.seeds if length(seed) == size]
            ready = [*kept, *(seed for seed in seeds if seed.objective > 0)]
            kept = self._next_of_original(ready, grown, seen) if legacy else self._selected(ready, grown, self.chosen)
            levels.append(kept)
        return levels

    def _seed(self, formula: Formula) -> Entry:
        entry = self.chosen.entry(formula, self.chosen.threshold, tuned=self.spec.thresholds == "static")
        return self.chosen.tuned(entry) if self.tuned else entry

    def _finished(self, entries: list[Entry], scores: Scorer) -> list[Entry]:
        """The same formulas at the thresholds that they keep, best first."""
        if self.tuned:
            return entries
        return self._sorted([scores.tuned(entry) for entry in entries])

    def _sorted(self, entries: list[Entry]) -> list[Entry]:
        """Best first."""
        if self.spec.legacy == "indres":
            return sorted(entries, key=lambda entry: -entry.objective)
        return sorted(entries, key=lambda entry: order(entry.objective, entry.formula))

    def _selected(self, ready: list[Entry], grown: list[Grown], scores: Scorer) -> list[Entry]:
        """The best formulas with distinct masks, among those built and those not built yet."""
        keep = max(self.spec.beam, self.spec.top)
        objective = np.concatenate([np.zeros(0), *(some.objective.reshape(-1) for some in grown)])
        first = np.cumsum([0, *(some.objective.size for some in grown)])
        positive = int((objective > 0).sum())
        looked_at = min(positive, 4 * keep + 16)
        while True:
            # All ties with the last are looked at too, so that the order of candidates does not matter.
            lowest = np.partition(objective, -looked_at)[-looked_at] if looked_at else np.inf
            new = [
                (float(objective[spot]), *_at(grown, first, int(spot))) for spot in np.flatnonzero(objective >= lowest)
            ]
            found = self._distinct(ready, new, keep, scores)
            if len(found) >= keep or looked_at >= positive:
                return self._finished(found, scores)
            looked_at = min(positive, 4 * looked_at)

    def _distinct(
        self, ready: list[Entry], new: list[tuple[float, Formula, float]], keep: int, scores: Scorer
    ) -> list[Entry]:
        """Go through formulas from the best, leaving out those whose mask was seen."""
        queue: list[tuple[Order, Entry | None, Formula, float]]
        queue = [(order(entry.objective, entry.formula), entry, entry.formula, entry.threshold) for entry in ready]
        queue += [(order(value, formula), None, formula, threshold) for value, formula, threshold in new]
        least = scores.least_area
        found: dict[tuple[int, bytes], Entry] = {}
        keys: set[Key] = set()
        for _, entry, formula, threshold in sorted(queue, key=lambda item: item[0]):
            name = key(formula)
            if name not in keys:
                keys.add(name)
                built = entry or scores.entry(formula, threshold, tuned=self.tuned)
                if built.area >= least:
                    found.setdefault(built.mark, built)
            if len(found) == keep:
                break
        return list(found.values())

    def _first_of_original(self) -> list[Entry]:
        """The best labels, none beside its expanded copy."""
        numbers: set[int] = set()
        kept: list[Entry] = []
        for place in self.ranked:
            leaf = self.whole.terms.leaf(int(place))
            if leaf.number not in numbers and len(kept) < self.spec.beam:
                numbers.add(leaf.number)
                threshold = float(self.singles.thresholds[0, place])
                kept.append(self.whole.entry(leaf, threshold, tuned=self.tuned))
        return self._finished(kept, self.whole)

    def _next_of_original(self, ready: list[Entry], grown: list[Grown], seen: set[Key]) -> list[Entry]:
        """The best of the old beam and of the new formulas in their order, none twice but for expansion."""
        # Label by label, the moves of one label in turn.
        flat = [(some, np.ascontiguousarray(some.objective.T).reshape(-1)) for some in grown]
        if self.spec.thresholds == "dynamic":  # else a formula that was seen has the same score again, and comes later
            flat = [(some, self._unseen(some, values, seen)) for some, values in flat]
        objective = np.concatenate([[entry.objective for entry in ready], *(values for _, values in flat)])
        first = np.cumsum([len(ready), *(len(values) for _, values in flat)])
        taken: set[Key] = set()
        kept: list[Entry] = []
        for spot in _from_best(objective):
            if len(kept) == self.spec.beam:
                break
            entry: Entry | None = None
            if spot < len(ready):
                entry = ready[spot]
                formula, threshold = entry.formula, entry.threshold
            else:
                at = int(np.searchsorted(first, spot, side="right")) - 1
                some = flat[at][0]
                term, move = divmod(spot - int(first[at]), len(some.moves))
                formula, threshold = some.formula(move, term), float(some.thresholds[move, term])
            if (name := key(unexpanded(formula))) not in taken:
                taken.add(name)
                kept.append(entry or self.chosen.entry(formula, threshold, tuned=self.tuned))
        return self._finished(kept, self.chosen)

    def _unseen(self, some: Grown, values: np.ndarray, seen: set[Key]) -> np.ndarray:
        """The objectives, 0 for formulas that were looked at before; what is looked at now counts as seen."""
        found = values.copy()
        made = np.stack([move.allowed for move in some.moves], axis=1) if some.moves else np.zeros((0, 0), dtype=bool)
        for spot in np.flatnonzero(made):
            term, move = divmod(int(spot), len(some.moves))
            name = key(some.formula(move, term))
            if name in seen:
                found[spot] = 0.0
            seen.add(name)
        return found


def _from_best(objective: np.ndarray) -> Iterator[int]:
    """Places of objectives above 0, highest first, ties in their order; sorted in growing parts."""
    done, size = 0, 256
    positive = int((objective > 0).sum())
    while done < positive:
        size = min(positive, size)
        lowest = np.partition(objective, -size)[-size]
        spots = np.flatnonzero(objective >= lowest)
        ranked = spots[np.argsort(-objective[spots], kind="stable")]
        yield from ranked[done:].tolist()
        done, size = len(ranked), 4 * max(size, len(ranked))


def _at(grown: list[Grown], first: Int64[np.ndarray, "g"], spot: int) -> tuple[Formula, float]:
    """The formula at a place of the concatenated objectives, and its threshold."""
    at = int(np.searchsorted(first, spot, side="right")) - 1
    move, term = divmod(spot - int(first[at]), len(grown[at].terms))
    return grown[at].formula(move, term), float(grown[at].thresholds[move, term])


def _earlier(beam: tuple[WordExplanation, ...], size: int) -> list[WordExplanation | None]:
    """The best of a beam for each length below its own."""
    return [next((one for one in beam if one.length <= most), None) for most in range(1, size)]


def _has_close(formula: Formula) -> bool:
    return isinstance(formula, Close | CloseTo) or any(_has_close(part) for part in operands(formula))


def _check(concepts: ConceptWords, unit: UnitWords, spec: WordSearchSpec, start: Start | None) -> None:
    """Refuse what does not belong together."""
    if len(unit.words) != concepts.images:
        message = (
            f"the unit has words of {len(unit.words)} images, the concepts of {concepts.images}. "
            "Take the unit's maps of the images that were labelled"
        )
        raise InputError(message)
    if spec.thresholds == "dynamic" and (unit.activations is None or not np.isfinite(unit.threshold)):
        message = (
            "dynamic thresholds need the unit's activations and its first threshold, and the unit has "
            f"{'no activations' if unit.activations is None else f'the threshold {unit.threshold}'}. "
            "Make it by unit_words(maps, above=..., keep=True), or use static thresholds"
        )
        raise InputError(message)
    if start is None:
        return
    if not 1 <= start.length <= spec.length or any(length(formula) > start.length for formula in start.beam):
        longest = max((length(formula) for formula in start.beam), default=0)
        message = (
            f"the start is at length {start.length} with formulas of up to {longest} labels, the search goes to "
            f"{spec.length}: expected a length that the search passes, and no longer formulas. Search longer formulas"
        )
        raise InputError(message)
    if start.thresholds and len(start.thresholds) != len(start.beam):
        message = (
            f"the start has {len(start.thresholds)} thresholds for {len(start.beam)} formulas: expected one each, or "
            "none for the unit's own"
        )
        raise InputError(message)


def start_after(found: WordFound, length_: int) -> Start:
    """Where a search stood at a length."""
    first = len(found.best) - len(found.beams) + 1
    beam = found.beams[length_ - first]
    formulas = tuple(one.formula for one in beam)
    return Start(found.candidates, formulas, length_, tuple(one.threshold for one in beam))
