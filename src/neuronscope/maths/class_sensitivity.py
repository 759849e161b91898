"""Which classes of the last layer react most to each factor, and whether a network then predicts just these.

A class whose output reacts strongly to an augmentation may also be what damage to the network drives predictions to.
The overlap of the most sensitive classes with those predicted is a mean Jaccard index, which for 5 of 1,000 classes is
nearly 0 by chance and small always: it stands beside its exact chance level, an interval, and a p-value.

The null is that the sensitive classes are any others: as many classes are drawn at random, and the predictions stay as
they are, with all their preferences for some classes and their likeness from image to image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from neuronscope.errors import InputError
from neuronscope.maths.resampling import by_qvalues, mean_interval

_ROUNDING = 1e-12
"""A draw that equals the observed value but for rounding counts as reaching it."""
_BLOCK = 2**22
"""Pairs of a prediction and a draw with classes in common, held at a time (as many as expected by chance)."""


@dataclass(frozen=True, eq=False)
class TopClasses:
    """The most sensitive classes of each factor, the first one first.

    Attributes:
        index: class numbers.
        value: their sensitivities.
        low, high: limits of these.
    """

    index: Int[np.ndarray, "g k"]
    value: Float[np.ndarray, "g k"]
    low: Float[np.ndarray, "g k"]
    high: Float[np.ndarray, "g k"]


@dataclass(frozen=True, eq=False)
class SharedClasses:
    """How many of the most sensitive classes two kinds of sensitivity have in common, for each factor.

    Attributes:
        common: their number.
        p: one-sided, that one of the two sets is any other of its size (hypergeometric, exact).
        q: Benjamini-Yekutieli over factors.
        chance: expected number for sets at random.
        most: of how many at best.
    """

    common: Int[np.ndarray, "g"]
    p: Float[np.ndarray, "g"]
    q: Float[np.ndarray, "g"]
    chance: float
    most: int


@dataclass(frozen=True, eq=False)
class JaccardTable:
    """Overlap of sensitive classes (columns: factors) with predicted ones (rows: inputs, or networks).

    Attributes:
        mean: mean Jaccard index over draws and images, 0 to 1.
        low, high: limits for other images, or for other classes of images where labels were given.
        p: one-sided, that the sensitive classes are any others.
        q: Benjamini-Yekutieli over the table.
        chance: exact mean for sensitive classes at random.
    """

    mean: Float[np.ndarray, "a g"]
    low: Float[np.ndarray, "a g"]
    high: Float[np.ndarray, "a g"]
    p: Float[np.ndarray, "a g"]
    q: Float[np.ndarray, "a g"]
    chance: float


def sensitivity_decay(values: Float[np.ndarray, "c g"], *, most: int = 20) -> Float[np.ndarray, "k g"]:
    """The largest sensitivities of each factor, falling.

    Args:
        values: of each class and factor; nan for dead ones, which come last.
        most: how many.

    Example:
        >>> sensitivity_decay(np.array([[0.1], [0.7], [0.4]]), most=2).tolist()
        [[0.7], [0.4]]
    """
    return -np.sort(-values, axis=0)[:most]


def top_classes(
    values: Float[np.ndarray, "c g"],
    low: Float[np.ndarray, "c g"],
    high: Float[np.ndarray, "c g"],
    *,
    most: int = 10,
) -> TopClasses:
    """The most sensitive classes of each factor with their values and intervals; of equal ones the first.

    Args:
        values: sensitivity of each class and factor; nan for dead ones.
        low: lower limits.
        high: upper limits.
        most: how many classes.

    Raises:
        InputError: fewer classes than that have a value.

    Example:
        >>> values = np.array([[0.1], [0.7], [0.4]])
        >>> top_classes(values, values - 0.1, values + 0.1, most=2).index.tolist()
        [[1, 2]]
    """
    alive = int(np.isfinite(values).sum(axis=0).min(initial=len(values)))
    if not 1 <= most <= alive:
        message = (
            f"the {most} most sensitive classes cannot be named: 1 to {alive} expected, the classes with a value. "
            "Ask for fewer classes"
        )
        raise InputError(message)
    index = np.argsort(np.where(np.isfinite(values), -values, np.inf), axis=0, kind="stable")[:most]
    chosen = (np.take_along_axis(one, index, axis=0).T for one in (values, low, high))
    return TopClasses(index.T, *chosen)


def shared_classes(first: Int[np.ndarray, "g k"], second: Int[np.ndarray, "g l"], *, classes: int) -> SharedClasses:
    """Whether two kinds of sensitivity single out the same classes.

    Args:
        first: the most sensitive classes of each factor, by one kind.
        second: by the other.
        classes: from which both were chosen.

    Raises:
        InputError: a class is twice in a set, or more classes than there are.

    Example:
        >>> found = shared_classes(np.array([[3, 4]]), np.array([[4, 9]]), classes=100)
        >>> found.common.tolist(), round(float(found.p[0]), 4), found.chance
        ([1], 0.0398, 0.04)
    """
    from scipy import stats

    sizes = (first.shape[1], second.shape[1])
    if max(sizes) > classes or any(len(set(row)) < len(row) for one in (first, second) for row in one.tolist()):
        message = (
            f"sets of {sizes[0]} and {sizes[1]} classes of {classes}: expected different classes, and no more than "
            "there are. Give each class once"
        )
        raise InputError(message)
    common = np.array([len(set(a) & set(b)) for a, b in zip(first.tolist(), second.tolist(), strict=True)], dtype=int)
    p = stats.hypergeom.sf(common - 1, classes, *sizes)
    return SharedClasses(common, p, by_qvalues(p), sizes[0] * sizes[1] / classes, min(sizes))


def expected_jaccard(classes: int, first: int, second: int) -> float:
    """Exact mean Jaccard index of two random sets of these sizes: over the hypergeometric number in common.

    Example:
        >>> round(expected_jaccard(1000, 5, 5), 6)
        0.002783
    """
    from scipy import stats

    common = np.arange(max(0, first + second - classes), min(first, second) + 1)
    share = stats.hypergeom.pmf(common, classes, first, second)
    return float((share * common / np.maximum(first + second - common, 1)).sum())


def jaccard_table(
    top: Int[np.ndarray, "g t"],
    predicted: Sequence[Int[np.ndarray, "_ _ s"]],
    *,
    classes: int,
    labels: Int[np.ndarray, "n"] | None = None,
    draws: int = 999,
    rng: np.random.Generator,
    level: float = 0.95,
) -> JaccardTable:
    """Mean Jaccard indices of the most sensitive classes of factors with the predicted ones of several inputs.

    Args:
        top: the most sensitive classes of each factor.
        predicted: for each input the best labels of every image (n) and draw of the augmentation (d): (n, d, s).
        classes: of the network.
        labels: class of each image: images of a class are predicted alike, and intervals then count classes.
        draws: random sets of classes for the p-values, whose smallest value is 1 / (draws + 1).
        rng: source of all randomness.
        level: coverage of the intervals.

    Raises:
        InputError: a class that is not one of the network's, or twice in a set.

    Example:
        >>> predicted = np.tile([[[3, 4]]], (40, 1, 1))
        >>> found = jaccard_table(np.array([[3, 4], [0, 1]]), [predicted], classes=500, rng=np.random.default_rng(0))
        >>> found.mean.tolist(), found.p.tolist()
        ([[1.0, 0.0]], [[0.001, 1.0]])
    """
    for what, sets in (("sensitive", top), *(("predicted", one) for one in predicted)):
        _check(sets, what, classes)
    random = _random_sets(rng, draws, top.shape[1], classes)
    mean, low, high, p = (np.empty((len(predicted), len(top))) for _ in range(4))
    for row, sets in enumerate(predicted):
        of_images = _overlap(top, sets, classes).mean(axis=1)
        groups = of_images if labels is None else _class_means(of_images, labels)
        mean[row] = of_images.mean(axis=0)
        low[row], high[row] = mean_interval(groups.mean(axis=0), groups.var(axis=0), len(groups), level=level)
        null = _mean_overlap(random, sets, classes)
        reached = (null[:, None] >= mean[row] - _ROUNDING).sum(axis=0)
        p[row] = (1 + reached) / (1 + draws)
    chance = expected_jaccard(classes, top.shape[1], predicted[0].shape[2]) if predicted else float("nan")
    return JaccardTable(mean, np.maximum(low, 0.0), np.minimum(high, 1.0), p, by_qvalues(p), chance)


def draws_needed(tests: int, *, level: float = 0.95) -> int:
    """How many random sets it takes until a single finding among so many tests can survive the correction.

    The least p-value of `draws` sets is 1 / (draws + 1), and Benjamini and Yekutieli multiply the least of all by the
    number of tests and the sum of 1/i.

    Example:
        >>> draws_needed(100)
        10375
    """
    return int(np.ceil(tests * (1 / np.arange(1, tests + 1)).sum() / (1 - level)))


def _random_sets(rng: np.random.Generator, draws: int, size: int, classes: int) -> Int[np.ndarray, "m t"]:
    """Sets of different classes: drawn with replacement, and again where a class is twice."""
    found = rng.integers(0, classes, size=(draws, size))
    while True:
        ordered = np.sort(found, axis=1)
        twice = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
        if len(twice) == 0:
            return found
        found[twice] = rng.integers(0, classes, size=(len(twice), size))


def _check(sets: np.ndarray, what: str, classes: int) -> None:
    ordered = np.sort(sets, axis=-1)
    if sets.size and (ordered.min() < 0 or ordered.max() >= classes):
        wrong = ordered.max() if ordered.max() >= classes else ordered.min()
        message = (
            f"a {what} class is not one of the network's: 0 to {classes - 1} expected, got {wrong}. Take sensitivities "
            "and predictions from the same network"
        )
        raise InputError(message)
    if (ordered[..., 1:] == ordered[..., :-1]).any():
        message = f"a class is twice in a set of {what} ones: different classes expected. Give each class once"
        raise InputError(message)


def _overlap(
    top: Int[np.ndarray, "g t"], predicted: Int[np.ndarray, "n d s"], classes: int
) -> Float[np.ndarray, "n d g"]:
    """Jaccard index of every prediction with every set of classes."""
    member = np.zeros((classes, len(top)), dtype=np.int8)
    member[top, np.arange(len(top))[:, None]] = 1
    common = member[predicted].sum(axis=2, dtype=np.int16)
    of_common = np.arange(top.shape[1] + 1) / np.maximum(
        top.shape[1] + predicted.shape[2] - np.arange(top.shape[1] + 1), 1
    )
    return np.asarray(of_common[common])


def _mean_overlap(
    top: Int[np.ndarray, "g t"], predicted: Int[np.ndarray, "n d s"], classes: int
) -> Float[np.ndarray, "g"]:
    """Its mean over images and draws. Of many classes most sets have none in common: only the others are counted."""
    from scipy import sparse

    rows = predicted.reshape(-1, predicted.shape[2])
    among = np.repeat(np.arange(len(top)), top.shape[1])
    drawn = sparse.csr_array((np.ones(top.size, np.int16), (top.ravel(), among)), shape=(classes, len(top)))
    sizes = top.shape[1] + rows.shape[1]
    step = max(1, _BLOCK * classes // max(top.size * rows.shape[1], 1))
    total = np.zeros(len(top))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        place = np.repeat(np.arange(len(part)), part.shape[1])
        own = sparse.csr_array((np.ones(part.size, np.int16), (place, part.ravel())), shape=(len(part), classes))
        common = (own @ drawn).tocoo()
        total += np.bincount(common.col, weights=common.data / (sizes - common.data), minlength=len(top))
    return np.asarray(total / max(len(rows), 1))


def _class_means(of_images: Float[np.ndarray, "n g"], labels: Int[np.ndarray, "n"]) -> Float[np.ndarray, "c g"]:
    """Of each class of images, weighted so that their mean is that of all images."""
    present, own = np.unique(labels, return_inverse=True)
    sums = np.zeros((len(present), of_images.shape[1]))
    np.add.at(sums, own, of_images)
    return np.asarray(sums / (len(labels) / len(present)))
