"""Moments by class, and by class and random part of the images, from which any half can be put together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from neuronscope.maths.streams import MomentsAnswer


@dataclass(frozen=True)
class Stats:
    """Moments of one quantity over some images, by class.

    Attributes:
        counts: images of each class.
        means: nan for classes without images.
        variances: population variances within each class.
    """

    counts: Int[np.ndarray, "c"]
    means: Float[np.ndarray, "u c"]
    variances: Float[np.ndarray, "u c"]

    def at(self, place: slice) -> Stats:
        """Some of the units."""
        return Stats(self.counts, self.means[place], self.variances[place])


@dataclass(frozen=True)
class Table:
    """Moments of one quantity by class and random part of the images."""

    counts: Int[np.ndarray, "c parts"]
    means: Float[np.ndarray, "c parts u"]
    variances: Float[np.ndarray, "c parts u"]

    @classmethod
    def of(cls, answer: MomentsAnswer, *, parts: int) -> Table:
        """From a fold over groups `class * parts + part`."""
        count = answer.count.astype(np.float64)[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            # the fold divides by n - 1, and has nan for a single image, whose spread about its own mean is 0
            population = np.where(count > 1, answer.variance * (count - 1) / count, 0.0)
        population = np.where(np.isnan(answer.mean), np.nan, population)
        shape = (-1, parts, answer.mean.shape[-1])
        return cls(answer.count.reshape(-1, parts), answer.mean.reshape(shape), population.reshape(shape))

    def over(self, parts: Bool[np.ndarray, "parts"] | None = None) -> Stats:
        """The chosen parts put together; all by default.

        Source: Chan, Golub & LeVeque 1979, equation 2.1, for any number of parts.
        """
        chosen = np.ones(self.counts.shape[1], dtype=bool) if parts is None else parts
        counts = self.counts[:, chosen]
        weights = counts[:, :, None].astype(np.float64)
        there = weights > 0
        means = np.where(there, self.means[:, chosen], 0.0)
        spread = np.where(there, self.variances[:, chosen], 0.0)
        total = weights.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (weights * means).sum(axis=1) / total
            variance = (weights * (spread + (means - mean[:, None]) ** 2)).sum(axis=1) / total
        return Stats(counts.sum(axis=1), mean.T, variance.T)
