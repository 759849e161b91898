"""Formulas and their scores for one unit: single ones (`Scorer.entry`) and all that a formula can become (`grown`)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt64

from neuronscope.maths.formulas import CloseTo, Expanded, Formula, Label, label_numbers, length, operands
from neuronscope.maths.word_search.concept_words import IMAGE_CELLS, ConceptWords, UnitWords, words_of
from neuronscope.maths.word_search.found import WordExplanation
from neuronscope.maths.word_search.moves import Move, Vectors, areas, hits, moves_of, single_moves, vectors_of
from neuronscope.maths.word_search.spec import WordSearchSpec
from neuronscope.maths.word_search.terms import Chunk, Terms
from neuronscope.maths.word_search.units import View, Views, climbed

Order = tuple[float, int, tuple[int, ...], tuple[int, ...]]
"""What formulas are sorted by."""

_KINDS = ("Or", "And", "AndNot", "With", "Close", "CloseTo", "Label", "Expanded")
"""Kinds of formulas, in the order in which ties are decided."""


@dataclass(eq=False)
class Entry:
    """A formula as it stands in the beam."""

    formula: Formula
    words: UInt64[np.ndarray, "n"]
    length: int
    area: int
    intersection: int
    score: float
    objective: float
    threshold: float
    tuned: bool

    @cached_property
    def mark(self) -> tuple[int, bytes]:
        """Equal for equal masks."""
        return self.area, hashlib.blake2b(self.words.tobytes(), digest_size=16).digest()

    @property
    def explanation(self) -> WordExplanation:
        """What is told of it."""
        return WordExplanation(
            self.formula, self.score, self.objective, self.length, self.area, self.intersection, self.threshold
        )


@dataclass(frozen=True, eq=False)
class Grown:
    """All formulas that one formula becomes, not built yet: by move (rows) and term.

    Attributes:
        moves: the moves.
        terms: the labels.
        objective: 0 for formulas that are left out.
        thresholds: the unit's threshold of each.
    """

    moves: list[Move]
    terms: Terms
    objective: Float64[np.ndarray, "m t"]
    thresholds: Float64[np.ndarray, "m t"]

    def formula(self, move: int, term: int) -> Formula:
        """One of them."""
        return self.moves[move].make(self.terms.leaf(term))


@dataclass(frozen=True, eq=False)
class Scorer:
    """Scores formulas of one unit.

    Attributes:
        concepts: the concepts.
        terms: the labels that formulas are made of.
        spec: the settings.
        views: the unit in all images.
        early: the unit in the first images.
        close: whether formulas of CLOSE can come.
    """

    concepts: ConceptWords
    terms: Terms
    spec: WordSearchSpec
    views: Views
    early: Views
    close: bool

    @property
    def threshold(self) -> float:
        """The unit's own."""
        return self.views.unit.threshold

    @cached_property
    def early_chunks(self) -> tuple[Chunk, ...]:
        """Words of the terms in the first images."""
        return self.terms.within(self.early.images)

    def entry(self, formula: Formula, threshold: float, *, tuned: bool) -> Entry:
        """A formula, scored at a threshold."""
        words = words_of(formula, self.concepts)
        area, size = int(np.bitwise_count(words).sum()), length(formula)
        view = self.views.at(threshold)
        intersection, chance = view.sums(words)
        score = _single(view, area, intersection, chance)
        objective = score * self.spec.penalty.factor(size)
        return Entry(formula, words, size, area, intersection, score, objective, threshold, tuned)

    def tuned(self, entry: Entry) -> Entry:
        """The same formula at the best threshold that is reached from its own."""
        if entry.tuned:
            return entry

        def score(threshold: float) -> Float64[np.ndarray, ""]:
            view = self.views.at(threshold)
            return np.asarray(_single(view, entry.area, *view.sums(entry.words)))

        _, threshold = climbed(score, entry.threshold, step=self.spec.threshold_step)
        return self.entry(entry.formula, float(threshold), tuned=True)

    def singles(self) -> Grown:
        """All labels."""
        nothing = {"f": np.zeros(self.concepts.images, dtype=np.uint64)}
        moves = single_moves(self.terms)
        area = areas(moves, nothing, self.terms.chunks, total=0, terms=len(self.terms))
        score, thresholds = self._scores(moves, nothing, area, self.threshold)
        return Grown(moves, self.terms, score * self.spec.penalty.factor(1), thresholds)

    def grown(self, entry: Entry, *, worst: float) -> Grown:
        """All formulas of one label more.

        Args:
            entry: the formula.
            worst: lowest objective in the beam, for the early test.
        """
        spec, terms = self.spec, self.terms
        vectors = vectors_of(entry.formula, entry.words, self.concepts, close=self.close)
        moves = moves_of(entry.formula, terms, spec.operators)
        if not moves:
            return Grown([], terms, np.zeros((0, len(terms))), np.zeros((0, len(terms))))
        area = areas(moves, vectors, terms.chunks, total=entry.area, terms=len(terms))
        score, thresholds = self._scores(moves, vectors, area, entry.threshold)
        objective = score * spec.penalty.factor(entry.length + 1)
        objective[~np.stack([move.allowed for move in moves])] = 0.0
        objective[area < self.least_area] = 0.0
        if spec.legacy == "none":
            nested = np.array([move.nested for move in moves])
            objective[nested[:, None] & (area == entry.area)] = 0.0
        if spec.abort_images:
            objective[self._poor_at_first(moves, vectors, entry, least=spec.abort_share * worst)] = 0.0
        return Grown(moves, terms, objective, thresholds)

    @property
    def least_area(self) -> float:
        """Cells below which formulas are left out."""
        return self.spec.least_coverage * IMAGE_CELLS * self.concepts.images

    def _scores(
        self, moves: list[Move], vectors: Vectors, area: Int64[np.ndarray, "m t"], start: float
    ) -> tuple[Float64[np.ndarray, "m t"], Float64[np.ndarray, "m t"]]:
        """Scores and thresholds."""

        def score(threshold: float) -> Float64[np.ndarray, "m t"]:
            view = self.views.at(threshold)
            return _scores(view, moves, vectors, view.chunks, area)

        if self.spec.thresholds == "dynamic" and self.spec.threshold_update == "immediately":
            return climbed(score, start, step=self.spec.threshold_step)
        value = score(start)
        return value, np.full_like(value, start)

    def _poor_at_first(
        self, moves: list[Move], vectors: Vectors, entry: Entry, *, least: float
    ) -> Bool[np.ndarray, "m t"]:
        """Formulas of CLOSE whose score on the first images is too low."""
        size = len(self.terms)
        poor = np.zeros((len(moves), size), dtype=bool)
        tested = np.flatnonzero([move.close for move in moves])
        if not len(tested):
            return poor
        some = [moves[place] for place in tested]
        view = self.early.at(entry.threshold)
        first = {name: np.where(self.early.images, words, np.uint64(0)) for name, words in vectors.items()}
        total = int(np.bitwise_count(first["f"]).sum())
        area = areas(some, first, self.early_chunks, total=total, terms=size)
        poor[tested] = _scores(view, some, first, view.chunks, area) < least
        return poor


def scorer(concepts: ConceptWords, unit: UnitWords, terms: Terms, spec: WordSearchSpec, *, close: bool) -> Scorer:
    """The scorer of a unit; formulas are extended by all of the terms."""
    every = np.ones(concepts.images, dtype=bool)
    first = np.arange(concepts.images) < spec.abort_images
    views, early = (Views(unit, terms, spec.score, spec.legacy == "indres", images) for images in (every, first))
    return Scorer(concepts, terms, spec, views, early, close)


def order(objective: float, formula: Formula) -> Order:
    """Higher objective, shorter, lower label numbers, then OR before AND before AND NOT before the others."""
    return (-objective, length(formula), label_numbers(formula), _shape(formula))


def unexpanded(formula: Formula) -> Formula:
    """The formula with labels in place of their expanded copies."""
    match formula:
        case Label() | Expanded():
            return Label(formula.number)
        case CloseTo(left, rights):
            return CloseTo(unexpanded(left), tuple(unexpanded(right) for right in rights))
        case _:
            return type(formula)(unexpanded(formula.left), unexpanded(formula.right))


def _shape(formula: Formula) -> tuple[int, ...]:
    inner = tuple(number for part in operands(formula) for number in _shape(part))
    return (_KINDS.index(type(formula).__name__), *inner)


def _scores(
    view: View, moves: list[Move], vectors: Vectors, chunks: tuple[Chunk, ...], area: Int64[np.ndarray, "m t"]
) -> Float64[np.ndarray, "m t"]:
    found = hits(moves, vectors, chunks, view.words, terms=area.shape[1], chance=bool(view.form.chance_share))
    return view.value(area, found.intersection, found.chance)


def _single(view: View, area: int, intersection: int, chance: int) -> float:
    return float(view.value(*(np.array([number]) for number in (area, intersection, chance)))[0])
