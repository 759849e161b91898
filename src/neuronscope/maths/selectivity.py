"""How much a unit prefers some classes over others, in the indices the field uses.

Some indices need only class means (they can come from a stream), others need every image's score. All of them are
plain point estimates, and every one that looks for the *best* class is too high for units that prefer none: pure
noise shows a class selectivity index of 0.32 with 10 images per class. `resampling` removes that floor.

What counts as undefined: a unit that is never active has no selectivity, so every index is nan for it, not 0. The
functions that see all scores treat any constant unit so. From class means alone only an all-zero unit can be told:
a constant, active unit there has the value of equal means (index 0, ratio 1/C). A unit with a score that is not finite
is nan in everything. In class means, nan stands for a class without images and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from neuronscope.errors import InputError
from neuronscope.maths.ranks import SortedBlock, labelled, sort_units, unit_blocks

_ROUNDING = 1e-12
"""Relative size below which a spread is taken for rounding, not for variation."""


@dataclass(frozen=True)
class ClassMoments:
    """Mean and variance of every unit within every class.

    Attributes:
        means: nan for classes without images.
        variances: population variances (divided by the count); nan for classes without images.
        counts: images of each class.
    """

    means: Float[np.ndarray, "u c"]
    variances: Float[np.ndarray, "u c"]
    counts: Int[np.ndarray, "c"]


def class_means(
    scores: Float[np.ndarray, "n u"], labels: Int[np.ndarray, "n"], *, classes: int
) -> tuple[Float[np.ndarray, "u c"], Int[np.ndarray, "c"]]:
    """Mean score of each unit over the images of each class, and the number of those images.

    Args:
        scores: one activation per image and unit.
        labels: class of each image, 0 to `classes - 1`; -1 leaves the image out.
        classes: number of classes.

    Returns:
        Means (nan for classes without images, and throughout for units with a score that is not finite) and counts.

    Raises:
        InputError: fewer than one class, or not one label per image.
        DataError: a label below -1 or not below `classes`.

    Example:
        >>> class_means(np.array([[1.0], [3.0], [5.0]]), np.array([0, 0, 1]), classes=2)
        (array([[2., 5.]]), array([2, 1]))
    """
    scores, labels = labelled(scores, labels, classes=classes)
    counts = np.bincount(labels, minlength=classes)
    membership = class_membership(labels[None], classes=classes)
    means = np.empty((scores.shape[1], classes))
    for block in unit_blocks(scores.shape[1], images=len(scores), elements=2**20):
        with np.errstate(invalid="ignore", divide="ignore"):
            means[block] = (membership @ scores[:, block].astype(np.float64)).T / counts
    means[~np.isfinite(scores).all(axis=0)] = np.nan
    return means, counts


def class_moments(scores: Float[np.ndarray, "n u"], labels: Int[np.ndarray, "n"], *, classes: int) -> ClassMoments:
    """Mean and population variance of each unit within each class (arguments and errors as for `class_means`).

    Example:
        >>> class_moments(np.array([[1.0], [3.0], [5.0]]), np.array([0, 0, 1]), classes=2).variances
        array([[1., 0.]])
    """
    scores, labels = labelled(scores, labels, classes=classes)
    means, counts = class_means(scores, labels, classes=classes)
    deviations = scores - means.T[labels]  # about each class's own mean: no cancellation
    return ClassMoments(means, class_means(deviations**2, labels, classes=classes)[0], counts)


def class_membership(labels: Int[np.ndarray, "d n"], *, classes: int) -> sparse.csr_array:
    """Sparse 0/1 matrix whose product with scores (n, u) sums them by class, for many labellings in one go.

    Row `k * classes + c` marks the images that labelling `k` puts into class `c`; -1 marks none. A sparse product
    costs one addition per image, unit and labelling, however many classes there are.
    """
    draws, images = labels.shape
    draw, image = np.nonzero(labels >= 0)
    rows = labels[draw, image].astype(np.int64) + classes * draw
    # a stable order keeps the images of a class ascending: the same partition is always summed in the same order
    order = np.argsort(rows, kind="stable")
    bounds = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=draws * classes))])
    return sparse.csr_array((np.ones(len(rows)), image[order], bounds), shape=(draws * classes, images))


def constant_units(scores: Float[np.ndarray, "n u"]) -> Bool[np.ndarray, "u"]:
    """Units whose score is the same for all images (dead units among them); true for all without images."""
    return np.asarray((scores == scores[:1]).all(axis=0))


def class_selectivity_index(means: Float[np.ndarray, "*u c"]) -> Float[np.ndarray, "*u"]:
    """Class selectivity index, 0 (all classes alike) to 1 (active for one class only).

    `(m_max - m_rest) / (m_max + m_rest)`, with `m_max` the largest class mean and `m_rest` the mean of all the other
    class means (Morcos et al. 2018, 1803.06959, section 3.3). It is meant for activations that cannot be negative.

    Args:
        means: class means on the last axis; nan for classes without images.

    Returns:
        nan for dead units, units with a negative class mean, and where fewer than two classes have images.

    Example:
        >>> class_selectivity_index(np.array([[3.0, 1.0, 1.0], [0.0, 0.0, 0.0]]))
        array([0.5, nan])
    """
    top, total, number = _profile(means)
    with np.errstate(invalid="ignore", divide="ignore"):
        rest = (total - top) / (number - 1)
        return np.asarray((top - rest) / (top + rest))


def ratio_selectivity(means: Float[np.ndarray, "*u c"], *, epsilon: float = 0.0) -> Float[np.ndarray, "*u"]:
    """Share of the largest class mean in the sum of all class means (chance 1/C, at most 1).

    `m_max / (sum of m + epsilon)`. The value depends on the number of classes, so compare it only within one task.

    Args:
        means: class means on the last axis; nan for classes without images.
        epsilon: added to the sum; some programs add 1e-6, which pulls nearly dead units towards 0.

    Returns:
        nan for dead units (with any epsilon), units with a negative class mean, and where fewer than two classes have
        images.

    Example:
        >>> ratio_selectivity(np.array([[3.0, 1.0, 1.0]]))
        array([0.6])
    """
    top, total, _ = _profile(means)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(total > 0, top, np.nan) / (total + epsilon))


def effective_classes(means: Float[np.ndarray, "*u c"]) -> Float[np.ndarray, "*u"]:
    """To how many classes a unit responds, in effect (1 to C): a measure of polysemanticity.

    `exp(H(p))` with `p` the positive class means as shares of their sum and `H` their entropy in nats: the number of
    equally strong classes with the same entropy (Hill 1973).

    Args:
        means: class means on the last axis; negative ones count as 0, nan stands for classes without images.

    Returns:
        nan for units without a positive class mean.

    Example:
        >>> effective_classes(np.array([[5.0, 5.0, 0.0], [1.0, 0.0, 0.0]]))
        array([2., 1.])
    """
    positive = np.where(means > 0, means, 0.0)
    total = positive.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = positive / total
        logarithm = np.where(share > 0, np.log(share), 0.0)
        return np.asarray(np.exp(-(share * logarithm).sum(axis=-1)))


def dprime(
    means: Float[np.ndarray, "u c"], variances: Float[np.ndarray, "u c"], counts: Int[np.ndarray, "c"]
) -> Float[np.ndarray, "u c"]:
    """Distance d' of each class from all others, in standard deviations; positive where the class scores higher.

    `(m+ - m-) / sqrt((s+**2 + s-**2) / 2)` with mean and population standard deviation of the class and of all other
    images together (Green and Swets 1966; Simpson and Fitter 1973). The others' moments are computed from the class
    moments, so a stream's sums are enough. Negative scores are welcome.

    Args:
        means: class means; nan for classes without images.
        variances: population variances within each class (divided by the count).
        counts: images of each class.

    Returns:
        Infinite where two different constants are told apart; nan for constant units, units that are nan, and classes
        without images or without others.

    Example:
        >>> dprime(np.array([[1.0, 0.0]]), np.array([[0.25, 0.25]]), np.array([4, 4]))
        array([[ 2., -2.]])
    """
    members = counts.astype(np.float64)
    total = members.sum()
    others = total - members
    present = members > 0
    mean, variance = np.where(present, means, 0.0), np.where(present, variances, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        grand = (mean @ members / total)[:, None]
        within = variance * members
        squares = (within + members * (mean - grand) ** 2).sum(axis=1, keepdims=True)
        # the total sum of squares, less the class's own, less what the distance of the two group means adds
        rest = squares - within - members * (mean - grand) ** 2 * total / others
        rest = np.where(rest > _ROUNDING * squares, rest, 0.0)
        distance = (mean - grand) * total / others
        deviation = np.sqrt((variance + rest / others) / 2)
        size = np.abs(mean).max(axis=1, keepdims=True, initial=0.0)
        distance = np.where(np.abs(distance) > _ROUNDING * size, distance, 0.0)
        deviation = np.where(deviation > _ROUNDING * size, deviation, 0.0)
        index = distance / deviation
    # comparisons with nan are false, so a nan unit has to be put back
    index[np.isnan(squares[:, 0])] = np.nan
    return np.where(present & (others > 0), index, np.nan)


def mutual_information(
    scores: Float[np.ndarray, "n u"],
    labels: Int[np.ndarray, "n"],
    *,
    classes: int,
    bins: int = 8,
    correction: Literal["miller-madow", "none"] = "miller-madow",
) -> Float[np.ndarray, "u"]:
    """What a unit's binned score tells about the class, in bits; sees units with several preferred classes.

    `I(b; y) = H(b) + H(y) - H(b, y)`. Each unit has its own bins of nearly equal population: image with midrank `r`
    among `N` goes to bin `floor((r - 1/2) bins / N)`, so tied scores stay together. Where at least one in `bins`
    images scores exactly 0 (a ReLU), the zeros are a bin of their own and the others share the remaining `bins - 1`.

    The Miller-Madow correction adds `(K - 1) / (2 N ln 2)` to every entropy with `K` cells in use (Miller 1955), that
    is `(K_b + K_y - K_by - 1) / (2 N ln 2)` to the information: most of the upward bias of independent variables goes,
    and estimates may come out below 0.

    Args:
        scores: one activation per image and unit.
        labels: class of each image, 0 to `classes - 1`; -1 leaves the image out.
        classes: number of classes.
        bins: bins per unit, at least 2.
        correction: of the bias of small samples.

    Returns:
        At most log2(bins) and log2(classes); nan for constant units and units with a score that is not finite.

    Raises:
        InputError: fewer than two bins, fewer than one class, or not one label per image.
        DataError: a label below -1 or not below `classes`.

    Example:
        >>> scores = np.array([[0.0], [0.0], [1.0], [2.0]])
        >>> mutual_information(scores, np.array([0, 0, 1, 1]), classes=2, bins=2, correction="none")
        array([1.])
    """
    if bins < 2:  # noqa: PLR2004 one bin tells nothing
        message = f"at least 2 bins are needed to tell images apart, got {bins}"
        raise InputError(message)
    scores, labels = labelled(scores, labels, classes=classes)
    images, units = scores.shape
    information = np.full(units, np.nan)
    if not images:
        return information
    counts = np.arange(images + 1, dtype=np.float64)
    bits = counts * np.log2(np.maximum(counts, 1))  # k log2 k of every possible count: no logarithm per cell
    class_counts = np.bincount(labels, minlength=classes)
    for block in unit_blocks(units, images=max(images, bins * classes)):
        ordered = sort_units(scores[:, block])
        codes = _bins(scores[:, block], ordered, bins=bins) * classes + labels[ordered.order]
        width = len(codes)
        codes += bins * classes * np.arange(width)[:, None]
        joint = np.bincount(codes.ravel(), minlength=width * bins * classes).reshape(width, bins, classes)
        bin_counts = joint.sum(axis=2)
        found = bits[joint].sum(axis=(1, 2)) - bits[bin_counts].sum(axis=1) - bits[class_counts].sum()
        information[block] = (found + bits[images]) / images
        if correction == "miller-madow":
            cells = (bin_counts > 0).sum(axis=1) + (class_counts > 0).sum() - (joint > 0).sum(axis=(1, 2)) - 1
            information[block] += cells / (2 * images * np.log(2))
    information[constant_units(scores) | ~np.isfinite(scores).all(axis=0)] = np.nan
    return information


def lifetime_sparseness(scores: Float[np.ndarray, "n u"]) -> Float[np.ndarray, "u"]:
    """How few images a unit responds to: 0 (all alike) to 1 (one image only).

    `(1 - a) / (1 - 1/n)` with `a = (mean of z)**2 / (mean of z**2)` over the images (Treves and Rolls 1991; normalised
    by Vinje and Gallant 2000).

    Returns:
        nan for constant units, units with a negative score or one that is not finite, and fewer than two images.

    Example:
        >>> lifetime_sparseness(np.array([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]))
        array([1.        , 0.66666667])
    """
    sparse_units = np.empty(scores.shape[1])
    for block in unit_blocks(scores.shape[1], images=len(scores), elements=2**20):
        sparse_units[block] = _sparseness(np.ascontiguousarray(scores[:, block].T))
    return np.where(constant_units(scores), np.nan, sparse_units)


def population_sparseness(scores: Float[np.ndarray, "n u"]) -> Float[np.ndarray, "n"]:
    """How few units respond to an image: 0 (all alike) to 1 (one unit only), for every image.

    The formula of `lifetime_sparseness` over the units of one layer instead of the images (Willmore and Tolhurst
    2001 compare the two). Units that are dead count as silent; leave them out first if that is not wanted.

    Returns:
        nan for images that no unit responds to, or with a score that is negative or not finite, and fewer than two
        units.

    Example:
        >>> population_sparseness(np.array([[0.0, 7.0], [1.0, 1.0]]))
        array([1., 0.])
    """
    return _sparseness(scores)


def precision_at(
    scores: Float[np.ndarray, "n u"], labels: Int[np.ndarray, "n"], *, classes: int, n: int = 60
) -> Float[np.ndarray, "u"]:
    """Share of the most frequent class among a unit's `n` highest images (0 to 1).

    Precision@60 of Zhou et al. (2015, 1412.6856), as compared by Gale et al. (2020, 2007.01062). Where scores tie
    across the border of the first `n`, each tied image counts by the chance that it would be drawn, so the order of
    the images does not matter.

    Args:
        scores: one activation per image and unit.
        labels: class of each image, 0 to `classes - 1`; -1 leaves the image out.
        classes: number of classes.
        n: how many of the highest images to look at.

    Returns:
        nan for constant units and units with a nan score.

    Raises:
        InputError: `n` is below 1 or above the number of images that have a class; or as in `class_means`.
        DataError: a label below -1 or not below `classes`.

    Example:
        >>> scores = np.array([[9.0], [8.0], [7.0], [0.0]])
        >>> precision_at(scores, np.array([1, 1, 0, 0]), classes=2, n=3)
        array([0.66666667])
    """
    scores, labels = labelled(scores, labels, classes=classes)
    images, units = scores.shape
    if not 1 <= n <= images:
        message = f"the {n} highest of {images} images that have a class cannot be taken; choose n from 1 to {images}"
        raise InputError(message)
    share = np.empty(units)
    for block in unit_blocks(units, images=max(images, classes)):
        by_unit = np.ascontiguousarray(scores[:, block].T)
        border = np.partition(by_unit, images - n, axis=1)[:, images - n, None]
        above = _count_classes(by_unit > border, labels, classes=classes)
        tied = _count_classes(by_unit == border, labels, classes=classes)
        with np.errstate(invalid="ignore"):  # a nan border ties with nothing
            drawn = (n - above.sum(axis=1)) / tied.sum(axis=1)
        share[block] = (above + tied * drawn[:, None]).max(axis=1) / n
    return np.where(constant_units(scores) | np.isnan(scores).any(axis=0), np.nan, share)


def max_informedness(
    scores: Float[np.ndarray, "n u"], labels: Int[np.ndarray, "n"], *, classes: int
) -> Float[np.ndarray, "u c"]:
    """Best true-positive rate minus false-positive rate over all thresholds `score >= t` (0 to 1).

    Youden's (1950) J at its best threshold, the index that Gale et al. (2020, 2007.01062) recommend for units. Like
    every maximum it is above 0 for noise: compare it with a permutation null.

    Returns:
        nan for constant units, units with a nan score, and classes without images or without others.

    Raises:
        InputError: fewer than one class, or not one label per image.
        DataError: a label below -1 or not below `classes`.

    Example:
        >>> max_informedness(np.array([[4.0], [3.0], [2.0], [1.0]]), np.array([0, 1, 0, 1]), classes=2)
        array([[0.5, 0. ]])
    """
    scores, labels = labelled(scores, labels, classes=classes)
    images, units = scores.shape
    counts = np.bincount(labels, minlength=classes)
    best = np.full((units, classes), np.nan)
    present = np.flatnonzero((counts > 0) & (counts < images))
    if not present.size:
        return best
    bounds = np.concatenate([[0], np.cumsum(counts)[:-1]])[present]
    # place of an image among those of its class, from the highest score: its count of true positives
    hits = np.concatenate([np.arange(counts[c]) for c in present]) + 1
    size = np.repeat(counts[present], counts[present]).astype(np.float64)
    for block in unit_blocks(units, images=images):
        ordered = sort_units(-scores[:, block])
        # a threshold takes in the whole group of ties, up to its last place; members of the class inside the group
        # are counted one by one, which only makes candidates that are worse than the group's last one
        ends = np.repeat(ordered.starts + ordered.sizes, ordered.sizes).reshape(ordered.order.shape)
        by_class = np.argsort(labels[ordered.order], axis=1, kind="stable")
        taken = np.take_along_axis(ends, by_class, axis=1)
        informedness = hits / size - (taken - hits) / (images - size)
        best[block, present] = np.maximum(np.maximum.reduceat(informedness, bounds, axis=1), 0.0)
    best[constant_units(scores) | np.isnan(scores).any(axis=0)] = np.nan
    return best


def _profile(means: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Largest mean, sum and number of the classes that have images; all nan where a mean is negative."""
    total = means.sum(axis=-1)
    number = np.full(total.shape, float(means.shape[-1]))
    if np.isnan(total).any():  # the usual case, no class missing, spares two passes over the means
        present = ~np.isnan(means)
        total, number = np.where(present, means, 0.0).sum(axis=-1), present.sum(axis=-1).astype(np.float64)
    top = np.fmax.reduce(means, axis=-1)
    usable = (np.fmin.reduce(means, axis=-1) >= 0) & (number > 1) & np.isfinite(total)
    return np.where(usable, top, np.nan), np.where(usable, total, np.nan), number


def _bins(scores: np.ndarray, ordered: SortedBlock, *, bins: int) -> Int[np.ndarray, "u n"]:
    """Bin number of each image of each unit, in sorted order."""
    images = len(scores)
    zeros = (scores == 0).sum(axis=0)
    own_bin = zeros * bins >= images
    first_value = np.take_along_axis(scores, ordered.order.T, axis=0).T.ravel()[
        np.cumsum(ordered.sizes) - ordered.sizes
    ]
    doubled = 2 * ordered.starts + ordered.sizes + 1
    split = own_bin[ordered.rows]
    # ranks among the images that are not zero: those above the zeros move down by their number
    doubled -= np.where(split & (first_value > 0), 2 * zeros[ordered.rows], 0)
    sharing = np.where(own_bin, images - zeros, images)[ordered.rows]
    width = np.where(split, bins - 1, bins)
    number = (doubled - 1) * width // np.maximum(2 * sharing, 1)
    number = np.where(split & (first_value == 0), bins - 1, number)
    # a nan at the end of the order has a rank like any number; its unit is struck out afterwards
    return np.repeat(number, ordered.sizes).reshape(ordered.order.shape)


def _sparseness(rows: np.ndarray) -> np.ndarray:
    """Treves-Rolls sparseness along the last axis, normalised to 0 to 1."""
    number = rows.shape[-1]
    if number < 2:  # noqa: PLR2004 sparseness compares at least two
        return np.full(len(rows), np.nan)
    values = rows.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        # scaled by the largest, so that squares neither overflow nor vanish
        values = values / values.max(axis=-1, keepdims=True)
        equality = values.mean(axis=-1) ** 2 / (values**2).mean(axis=-1)
    usable = (rows >= 0).all(axis=-1)
    return np.where(usable, np.clip((1 - equality) / (1 - 1 / number), 0.0, 1.0), np.nan)


def _count_classes(chosen: np.ndarray, labels: np.ndarray, *, classes: int) -> Float[np.ndarray, "u c"]:
    unit, image = np.nonzero(chosen)
    counts = np.bincount(labels[image] + classes * unit, minlength=len(chosen) * classes)
    return counts.reshape(len(chosen), classes).astype(np.float64)
