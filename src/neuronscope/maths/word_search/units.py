"""A unit as the search over cells sees it: at one threshold, or at every threshold that the search comes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt64

from neuronscope.maths.cells import to_words
from neuronscope.maths.formula_search import Score
from neuronscope.maths.formula_search.scores import Form
from neuronscope.maths.signatures import UnitCounts
from neuronscope.maths.word_search.concept_words import IMAGE_CELLS, UnitWords
from neuronscope.maths.word_search.terms import Chunk, Terms

_EPSILON = 1e-10
"""What the original adds to the denominator of a score."""

_VIEWS = 8
"""Thresholds whose masks are kept."""

_GAIN = 1e-4
"""Score that a step of the threshold must add."""


@dataclass(frozen=True, eq=False)
class View:
    """A unit at one threshold.

    Attributes:
        words: its mask.
        form: the score as a fraction of sums.
        chunks: words of the terms in images where it is active.
        epsilon: added to the denominator.
    """

    words: UInt64[np.ndarray, "n"]
    form: Form
    chunks: tuple[Chunk, ...]
    epsilon: float

    def value(
        self, area: Int64[np.ndarray, "*a"], intersection: Int64[np.ndarray, "*a"], chance: Int64[np.ndarray, "*a"]
    ) -> Float64[np.ndarray, "*a"]:
        """The score of masks."""
        sums = [np.asarray(part, dtype=np.float64) for part in (area, intersection, chance)]
        if not self.epsilon:
            return self.form.value(*sums)
        below = self.form.constant + self.form.denominator(sums[0], sums[1]) + self.epsilon
        found: np.ndarray = self.form.factor * self.form.numerator(sums[1], sums[2]) / below
        return found

    def sums(self, words: UInt64[np.ndarray, "n"]) -> tuple[int, int]:
        """Active cells of a mask, and its cells times the unit's in their image."""
        chance = np.bitwise_count(words).astype(np.int64) @ np.bitwise_count(self.words).astype(np.int64)
        return int(np.bitwise_count(words & self.words).sum()), int(chance) if self.form.chance_share else 0


@dataclass(frozen=True, eq=False)
class Views:
    """A unit at the thresholds that are asked for; the last few are kept.

    Attributes:
        unit: the unit.
        terms: what formulas are made of.
        score: what is maximised.
        legacy: whether denominators are those of the original.
        images: images that are looked at: all, or the first ones.
        kept: views by threshold.
    """

    unit: UnitWords
    terms: Terms
    score: Score
    legacy: bool
    images: Bool[np.ndarray, "n"]
    kept: dict[float, View] = field(default_factory=dict)

    def at(self, threshold: float) -> View:
        """The unit at a threshold; nan, or that of the unit itself, is its mask as it was given."""
        own = np.isnan(threshold) or threshold == self.unit.threshold
        name = np.inf if own else threshold
        if name not in self.kept:
            if len(self.kept) == _VIEWS:
                del self.kept[next(iter(self.kept))]
            maps = self.unit.activations
            words = self.unit.words if own or maps is None else to_words(maps > threshold)
            self.kept[name] = self._view(np.where(self.images, words, np.uint64(0)))
        return self.kept[name]

    def _view(self, words: UInt64[np.ndarray, "n"]) -> View:
        counts = np.bitwise_count(words).astype(np.int64)
        whole = UnitCounts(counts.sum(keepdims=True), counts, np.zeros(1), float((counts**2).sum()), IMAGE_CELLS)
        return View(words, self.score.form(whole), self.terms.within(words != 0), _EPSILON if self.legacy else 0.0)


def climbed(
    value_at: Callable[[float], Float64[np.ndarray, "*a"]], start: float, *, step: float
) -> tuple[Float64[np.ndarray, "*a"], Float64[np.ndarray, "*a"]]:
    """Scores of formulas and the thresholds where they have them: uphill from `start`, each formula by itself.

    Upwards as long as a step adds more than 0.0001, and downwards if not even the first step upwards did (Harth 2022).

    Args:
        value_at: the scores at a threshold.
        start: the first threshold.
        step: of the threshold.

    Example:
        >>> [float(one) for one in climbed(lambda t: np.array(-abs(t - 1.0)), 0.7, step=0.1)]
        [-0.0, 1.0]
    """
    best = value_at(start)
    at = np.full_like(best, start)
    for sign in (1, -1):
        climbing = at == start
        steps = 0
        while climbing.any():
            steps += 1
            threshold = round(start + sign * steps * step, 9)  # so that formulas meet at the same thresholds
            value = value_at(threshold)
            climbing = climbing & (value > best + _GAIN)
            best, at = np.where(climbing, value, best), np.where(climbing, threshold, at)
    return best, at
