"""Can one tell from a map which factor it is the sensitivity to? Linear discriminants of maps, tested on other units.

A sample is the flattened map of one unit for one factor, its label the factor. Maps of the same unit are alike, so
folds are split by unit: a unit is tested by discriminants that were found without any of its maps.

The discriminants are those of scikit-learn's `LinearDiscriminantAnalysis(solver="svd")`, found from products of samples
or of places, whichever are fewer, in place of a singular value decomposition of the maps.

Published folds (`split="samples"`) mix the maps of a unit. As each unit has one map for each factor, having seen the
others says which factors a map is not of: what is learned of a unit is wrong of its other maps, and maps that say
nothing are recognised far more rarely than by chance. That is no estimate of anything.

Folds and repeats share units, so their scatter says too little of what other units would give. The interval takes this
into account (C. Nadeau and Y. Bengio, "Inference for the generalization error", Machine Learning 52 (2003), section 4;
for repeated folds R. R. Bouckaert and E. Frank, PAKDD 2004). The p-value comes of labels permuted within units, with
everything found anew for each permutation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import linalg

from neuronscope.errors import InputError
from neuronscope.maths.labelling_accuracies import labelling_accuracies
from neuronscope.maths.replicates import t_quantile

Split = Literal["units", "samples"]

TOLERANCE = 1e-4
"""Singular values below it, and below it times the largest, count as 0, as in scikit-learn and as published."""
COMPONENTS = 2
"""Of the projection, as published."""

_ROUNDING = 1e-12
"""An accuracy that equals the observed one but for rounding counts as reaching it."""
_TWO = 2


@dataclass(frozen=True, eq=False)
class Discriminants:
    """How well factors are told apart by their maps.

    Accuracies are balanced: means over factors of the share of their maps that are recognised, 0 to 1; chance is 1 / g.

    Attributes:
        test: of units that had no part in finding the discriminants, mean over folds and repeats.
        low, high: limits of it, for discriminants from as many units as a fold trains on.
        train: of the units that the discriminants were found from.
        null: mean of `test` with labels permuted within units.
        null_high: its 95 % quantile.
        p: one-sided, that maps say nothing about factors.
        confusion: share of the maps of a factor (row) that were taken for each (column), over all folds.
        projection: maps of the kept units along the first discriminants of all samples.
        spread: share of the variance between factors that each of these has.
        kept: units with a value; the others took no part.
        folds, repeats: of the cross-validation.
    """

    test: float
    low: float
    high: float
    train: float
    null: float
    null_high: float
    p: float
    confusion: Float[np.ndarray, "g g"]
    projection: Float[np.ndarray, "k g d"]
    spread: Float[np.ndarray, "d"]
    kept: Bool[np.ndarray, "u"]
    folds: int
    repeats: int


def discriminate(
    maps: Float[np.ndarray, "u p g"],
    *,
    folds: int = 5,
    repeats: int = 10,
    permutations: int = 199,
    split: Split = "units",
    level: float = 0.95,
    rng: np.random.Generator,
) -> Discriminants:
    """Cross-validated linear discriminants of the maps of g factors, their null, and a projection of all maps.

    Units without any value are left out; of the others an activation without a value counts as 0 (it has none for all
    factors, so that it tells none from another).

    Args:
        maps: of each unit, place and factor.
        folds: parts that units (or samples) are split into.
        repeats: new splits.
        permutations: of labels within units, over the folds of the first split.
        split: by `units`, or the leaking one by `samples`.
        level: coverage of the interval.
        rng: source of all randomness.

    Raises:
        InputError: fewer than two factors, two folds or one repeat, or fewer units than folds.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> maps = rng.normal(size=(20, 6, 3))
        >>> maps[:, 0, 1] += 9.0
        >>> maps[:, 1, 2] += 9.0
        >>> found = discriminate(maps, repeats=2, permutations=19, rng=rng)
        >>> found.test, found.p
        (1.0, 0.05)
    """
    kept = np.isfinite(maps).any(axis=(1, 2))
    _check(maps.shape[2], int(kept.sum()), folds=folds, repeats=repeats)
    own = np.where(np.isfinite(maps[kept]), maps[kept], 0.0).astype(np.float64)
    units, places, g = own.shape
    x = own.transpose(0, 2, 1).reshape(units * g, places)
    x -= x.mean(axis=0)  # products of large numbers would lose the small ones
    labels = np.tile(np.arange(g), units)
    splits = list(_splits(units, g, folds=folds, repeats=repeats, split=split, rng=rng))
    tested, trained, confusion = [], [], np.zeros((g, g))
    for test in splits:
        predicted = _Fit(x, labels, ~test).predict()
        counts = _confusion(labels[test], predicted[test], g)
        confusion += counts
        tested.append(_balanced(counts))
        trained.append(_balanced(_confusion(labels[~test], predicted[~test], g)))
    accuracy = np.array(tested)
    error = _corrected_error(accuracy, folds=folds)
    half = t_quantile(len(accuracy), level) * error
    labellings = _permuted(labels, g, draws=permutations, rng=rng)
    drawn = np.mean([labelling_accuracies(x, labellings, train=~test, factors=g) for test in splits[:folds]], axis=0)
    null = drawn[1:]
    whole = _Fit(x, labels, np.ones(len(x), dtype=bool))
    return Discriminants(
        test=float(accuracy.mean()),
        low=max(float(accuracy.mean() - half), 0.0),
        high=min(float(accuracy.mean() + half), 1.0),
        train=float(np.mean(trained)),
        null=float(null.mean()) if null.size else float("nan"),
        null_high=float(np.quantile(null, 0.95)) if null.size else float("nan"),
        p=float((1 + (null >= drawn[0] - _ROUNDING).sum()) / (1 + len(null))),
        confusion=confusion / confusion.sum(axis=1, keepdims=True),
        projection=whole.projected().reshape(units, g, -1),
        spread=whole.spread,
        kept=kept,
        folds=folds,
        repeats=repeats,
    )


def _check(factors: int, units: int, *, folds: int, repeats: int) -> None:
    """Refuse what cannot be split."""
    if factors < _TWO:
        message = f"{factors} factors cannot be told apart: 2 or more expected. Ask for more factors or augmentations"
        raise InputError(message)
    if folds < _TWO or repeats < 1:
        message = f"cross-validation needs 2 or more folds and 1 or more repeats, got {folds} and {repeats}. Raise them"
        raise InputError(message)
    if units < folds:
        message = (
            f"the units cannot be split into {folds} folds: at least {folds} units with a value expected, got {units}. "
            "Use fewer folds, or leave out this layer"
        )
        raise InputError(message)


def _splits(
    units: int, g: int, *, folds: int, repeats: int, split: Split, rng: np.random.Generator
) -> Iterator[Bool[np.ndarray, "n"]]:
    """Which samples are tested, fold by fold and repeat by repeat; samples run unit by unit."""
    size = units if split == "units" else units * g
    for _ in range(repeats):
        for part in np.array_split(rng.permutation(size), folds):
            chosen = np.zeros(size, dtype=bool)
            chosen[part] = True
            yield np.repeat(chosen, g) if split == "units" else chosen


def _corrected_error(accuracy: Float[np.ndarray, "f"], *, folds: int) -> float:
    """Nadeau and Bengio's: folds share the share 1 / (folds - 1) of tested to trained, beside their own scatter."""
    return float(np.sqrt((1 / len(accuracy) + 1 / (folds - 1)) * accuracy.var(ddof=1)))


def _permuted(labels: np.ndarray, g: int, *, draws: int, rng: np.random.Generator) -> Int[np.ndarray, "d n"]:
    """The labels, and then permutations of them within units."""
    by_unit = np.broadcast_to(labels.reshape(-1, g), (draws, len(labels) // g, g))
    return np.concatenate([labels[None], rng.permuted(by_unit, axis=2).reshape(draws, len(labels))])


def _confusion(labels: np.ndarray, predicted: np.ndarray, g: int) -> Float[np.ndarray, "g g"]:
    return np.bincount(labels * g + predicted, minlength=g * g).reshape(g, g).astype(np.float64)


def _balanced(confusion: Float[np.ndarray, "g g"]) -> float:
    """Mean share of the diagonal over the rows that have samples."""
    samples = confusion.sum(axis=1)
    there = samples > 0
    return float((np.diag(confusion)[there] / samples[there]).mean())


class _Fit:
    """Discriminants of the chosen samples, as scikit-learn's svd solver finds them, and what they say of all samples.

    Its first singular value decomposition whitens samples within factors. The eigenvectors of the products of samples,
    or of places, give the same coordinates, and only means and the few discriminants are ever taken to them.
    """

    def __init__(self, x: Float[np.ndarray, "n p"], labels: Int[np.ndarray, "n"], train: Bool[np.ndarray, "n"]) -> None:
        present, own = np.unique(labels[train], return_inverse=True)
        counts = np.bincount(own)
        self._classes = present
        member = (own == np.arange(len(present))[:, None]) / counts[:, None]
        within = x[train]
        means = member @ within
        within -= means[own]
        deviation = within.std(axis=0)
        scale = 1 / np.where(deviation > 0, deviation, 1.0)
        within *= scale / np.sqrt(len(within))
        few = len(within) <= within.shape[1]
        square, vectors = linalg.eigh(within @ within.T if few else within.T @ within, check_finite=False)
        kept = square > TOLERANCE**2
        white = vectors[:, kept] / (square[kept] if few else np.sqrt(square[kept]))
        share = counts / counts.sum()
        scaled = (means - share @ means) * scale
        middles = (scaled @ within.T if few else scaled) @ white
        apart = np.sqrt(len(within) * share / max(len(present) - 1, 1))[:, None] * middles
        _, size, directions = linalg.svd(apart, full_matrices=False)
        directions = directions[size > TOLERANCE * size.max(initial=0.0)]
        size = np.pad(size, (0, COMPONENTS))[: _shown(len(present))] / max(linalg.norm(size), np.finfo(float).tiny)
        self.spread = size**2
        weights = white @ directions.T
        weights = scale[:, None] * (within.T @ weights if few else weights)
        self._along = (x - share @ means) @ weights
        middles = middles @ directions.T
        self._scores = self._along @ middles.T - 0.5 * (middles**2).sum(axis=1) + np.log(share)

    def predict(self) -> Int[np.ndarray, "n"]:
        """The likeliest factor of every sample."""
        return np.asarray(self._classes[self._scores.argmax(axis=1)])

    def projected(self) -> Float[np.ndarray, "n d"]:
        """Every sample along the first discriminants; each is turned so that its largest value is positive."""
        count = _shown(len(self._classes))
        found = np.zeros((len(self._along), count))
        found[:, : self._along.shape[1]] = self._along[:, :count]
        far = found[np.abs(found).argmax(axis=0), np.arange(count)]
        return found * np.where(far < 0, -1.0, 1.0)


def _shown(factors: int) -> int:
    return min(COMPONENTS, factors - 1)
