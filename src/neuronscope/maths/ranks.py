"""How well a unit's activation tells one class from all others, by ranks: thresholds, scales and outliers play no part.

The usual way sorts the images again for every pair of unit and class. Here each unit is sorted once and its ranks are
summed class by class, which gives the area under the ROC curve of all classes together (Mann-Whitney's U), its test
and its interval. Ranks of tied values are their mean (midranks), so that the many exact zeros of a ReLU count as
"cannot tell", not as an order.

Left out: everything that looks at the size of activations (`selectivity`) and resampling (`resampling`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from neuronscope.errors import DataError, InputError

_BLOCK = 2**17
"""Scores sorted at a time (number of scores): bounds the memory and keeps the work inside the processor's cache."""

_HALVINGS = 40
"""Steps of the bisection for an interval's limits: leaves 2**-40, about 1e-12."""


@dataclass(frozen=True)
class RankSums:
    """What one sort of every unit leaves behind: enough for areas under the ROC curve, tests and intervals.

    Attributes:
        sums: sum of the midranks (1 = lowest score) over the images of each class; nan for units with a nan score.
        counts: images of each class.
        ties: per unit, sum of `t**3 - t` over its groups of `t` tied scores (0 without ties).
    """

    sums: Float[np.ndarray, "u c"]
    counts: Int[np.ndarray, "c"]
    ties: Float[np.ndarray, "u"]


@dataclass(frozen=True)
class MannWhitney:
    """A rank test of every unit against every class.

    Attributes:
        z: standardised U, continuity corrected; positive where the class has the higher scores.
        p: two-sided p-value (0 to 1); underflows to 0 beyond |z| of about 38.
    """

    z: Float[np.ndarray, "u c"]
    p: Float[np.ndarray, "u c"]


def auroc(scores: Float[np.ndarray, "n u"], labels: Int[np.ndarray, "n"], *, classes: int) -> Float[np.ndarray, "u c"]:
    """Area under the ROC curve of each unit as a detector of each class against all others (0 to 1, chance 0.5).

    `A = (R - m (m + 1) / 2) / (m (N - m))`, where `R` is the sum of the midranks of the class's `m` images among all
    `N`: the chance that an image of the class scores higher than one of the others, ties counting one half (Mann and
    Whitney 1947; Hanley and McNeil 1982). Equal to scikit-learn's `roc_auc_score` to rounding.

    Args:
        scores: one activation per image and unit.
        labels: class of each image, 0 to `classes - 1`; -1 leaves the image out.
        classes: number of classes.

    Returns:
        nan for classes without images, or without others, and for units with a nan score. A constant unit has 0.5.

    Raises:
        InputError: fewer than one class, or not one label per image.
        DataError: a label below -1 or not below `classes`.

    Example:
        >>> scores = np.array([[0.1], [0.4], [0.35], [0.8]])
        >>> auroc(scores, np.array([0, 0, 1, 1]), classes=2)
        array([[0.25, 0.75]])
    """
    return auroc_from_ranks(rank_sums(scores, labels, classes=classes))


def rank_sums(scores: Float[np.ndarray, "n u"], labels: Int[np.ndarray, "n"], *, classes: int) -> RankSums:
    """Sort every unit once and add up its midranks class by class (arguments and errors as for `auroc`).

    Doubled midranks are whole numbers, so the sums are exact up to 2**52 and do not depend on the images' order.

    Example:
        >>> rank_sums(np.array([[0.0], [0.0], [3.0]]), np.array([0, 1, 1]), classes=2).sums
        array([[1.5, 4.5]])
    """
    scores, labels = labelled(scores, labels, classes=classes)
    units = scores.shape[1]
    sums = np.full((units, classes), np.nan)
    ties = np.full(units, np.nan)
    for block, ordered in _blocks(scores):
        ranks = ordered.doubled_ranks()
        width = len(ranks)
        codes = labels[ordered.order] + classes * np.arange(width)[:, None]
        doubled = np.bincount(codes.ravel(), weights=ranks.ravel(), minlength=width * classes)
        sums[block] = doubled.reshape(width, classes) / 2
        sizes = ordered.sizes.astype(np.float64)
        ties[block] = np.bincount(ordered.rows, weights=sizes**3 - sizes, minlength=width)
    broken = np.isnan(scores).any(axis=0)
    sums[broken], ties[broken] = np.nan, np.nan
    return RankSums(sums, np.bincount(labels, minlength=classes), ties)


def auroc_from_ranks(ranks: RankSums) -> Float[np.ndarray, "u c"]:
    """The areas of `auroc` from rank sums that are already there."""
    members, others = _two_groups(ranks.counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((ranks.sums - members * (members + 1) / 2) / (members * others))


def auroc_pvalues(ranks: RankSums) -> MannWhitney:
    """Test whether a class's scores are higher or lower than the others': two-sided Mann-Whitney, normal form.

    `z = (|U - m k / 2| - 1/2) / sqrt(m k / 12 * (N + 1 - T / (N (N - 1))))` with `m` images in the class, `k` others,
    `N = m + k`, and `T` the sum of `t**3 - t` over the groups of ties (Lehmann 1975, 1.4); as in
    `scipy.stats.mannwhitneyu(method="asymptotic")`. The normal form is good from about 8 images on either side.

    Returns:
        z and p; nan where the area is nan, and for constant units, for which there is nothing to test.

    Example:
        >>> ranks = rank_sums(np.arange(40.0)[:, None], np.repeat([0, 1], 20), classes=2)
        >>> auroc_pvalues(ranks).z.round(2)
        array([[-5.4,  5.4]])
    """
    members, others = _two_groups(ranks.counts)
    total = members + others
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = ranks.sums - members * (members + 1) / 2 - members * others / 2
        spread = total + 1 - ranks.ties[:, None] / (total * (total - 1))
        deviation = np.sqrt(members * others / 12 * np.where(spread > 0, spread, np.nan))
        z = np.sign(distance) * np.maximum(np.abs(distance) - 0.5, 0) / deviation
    return MannWhitney(z, np.asarray(2 * special.ndtr(-np.abs(z))))


def auroc_interval(
    area: Float[np.ndarray, "u c"], counts: Int[np.ndarray, "c"], *, level: float = 0.95
) -> tuple[Float[np.ndarray, "u c"], Float[np.ndarray, "u c"]]:
    """Lower and upper limit of the area under the ROC curve, from the area and the class sizes alone.

    The limits are the areas `A` whose own standard error puts the observed one just at the level:
    `|A_observed - A| = z sqrt(V(A))`, with Hanley and McNeil's (1982) variance in Newcombe's (2006, part 2, method 5)
    form, `V(A) = A (1 - A) (1 + n (1 - A) / (2 - A) + n A / (1 + A)) / (m k)`, `n = (m + k) / 2 - 1`. Unlike
    `A +- z SE`, it stays within 0 to 1 and has a width where the observed area is 0 or 1. It assumes smooth
    distributions of similar shape; for units that are nearly always zero it is wider than need be.

    Args:
        area: areas from `auroc`.
        counts: images of each class; the others are all the rest.
        level: coverage, between 0 and 1.

    Returns:
        Low and high (0 to 1), nan where the area is nan.

    Raises:
        InputError: the level is not between 0 and 1.

    Example:
        >>> low, high = auroc_interval(np.array([[0.2, 0.8]]), np.array([50, 50]))
        >>> low.round(3), high.round(3)
        (array([[0.129, 0.697]]), array([[0.303, 0.871]]))
    """
    quantile = normal_quantile(level)
    members, others = _two_groups(counts)
    low, high = np.empty(area.shape), np.empty(area.shape)
    for block in unit_blocks(len(area), images=len(counts), elements=2**14):
        observed = area[block].astype(np.float64)
        for limits, outer in ((low, 0.0), (high, 1.0)):
            limits[block] = _newcombe_limit(observed, outer, members=members, others=others, quantile=quantile)
    return low, high


def midranks(scores: Float[np.ndarray, "n u"]) -> Float[np.ndarray, "n u"]:
    """Rank of each image within each unit, 1 for the lowest score; tied scores share the mean of their ranks.

    Returns:
        Ranks 1 to n; a unit with a nan score is nan throughout.

    Example:
        >>> midranks(np.array([[3.0], [0.0], [0.0], [9.0]]))[:, 0]
        array([3. , 1.5, 1.5, 4. ])
    """
    ranks = np.empty(scores.shape)
    for block, ordered in _blocks(scores):
        by_unit = np.empty(ordered.order.shape)
        np.put_along_axis(by_unit, ordered.order, ordered.doubled_ranks() / 2, axis=1)
        ranks[:, block] = by_unit.T
    ranks[:, np.isnan(scores).any(axis=0)] = np.nan
    return ranks


def spearman(first: Float[np.ndarray, "n u"], second: Float[np.ndarray, "n v"]) -> Float[np.ndarray, "u v"]:
    """Spearman's rank correlation of every unit of one array with every unit of another (-1 to 1).

    Pearson's correlation of the midranks (Spearman 1904), as one matrix product.

    Returns:
        nan for constant units and units with a nan score.

    Example:
        >>> x = np.array([[0.0, 5.0], [1.0, 2.0], [8.0, 1.0]])
        >>> spearman(x, x)
        array([[ 1., -1.],
               [-1.,  1.]])
    """
    if len(first) != len(second):
        message = f"the two arrays describe {len(first)} and {len(second)} images; give the same images in both"
        raise InputError(message)
    correlation = _unit_length(midranks(first)).T @ _unit_length(midranks(second))
    return np.asarray(np.clip(correlation, -1.0, 1.0))


def labelled(
    scores: Float[np.ndarray, "n u"], labels: Int[np.ndarray, "n"], *, classes: int
) -> tuple[Float[np.ndarray, "m u"], Int[np.ndarray, "m"]]:
    """The images that have a class, after checking that every label is in range (-1 leaves an image out).

    Raises:
        InputError: fewer than one class, or not one label per image.
        DataError: a label below -1 or not below `classes`.
    """
    if classes < 1:
        message = f"at least 1 class is needed, got {classes}"
        raise InputError(message)
    if len(labels) != len(scores):
        message = f"{len(labels)} labels came with the scores of {len(scores)} images; give one label per image"
        raise InputError(message)
    outside = np.flatnonzero((labels < -1) | (labels >= classes))
    if outside.size:
        first = int(outside[0])
        message = (
            f"label {int(labels[first])} of image {first} is outside the classes 0 to {classes - 1} "
            f"({outside.size} such labels). Raise the number of classes, or set the label to -1 to leave the image out"
        )
        raise DataError(message)
    kept = labels >= 0
    return (scores, labels) if kept.all() else (scores[kept], labels[kept])


def normal_quantile(level: float) -> float:
    """Half-width of a central interval of the standard normal distribution, 1.96 at level 0.95.

    Raises:
        InputError: the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        message = f"a level lies between 0 and 1 (0.95 for a 95 % interval), got {level}"
        raise InputError(message)
    return float(special.ndtri((1 + level) / 2))


@dataclass(frozen=True)
class SortedBlock:
    """Some units, each sorted by score; groups of tied scores run one after another through all units.

    Attributes:
        order: image at each place, lowest score first.
        sizes: number of images in each group of ties (1 where there is no tie).
        starts: place of the group's first image, from 0 within its unit.
        rows: unit of each group.
    """

    order: Int[np.ndarray, "u n"]
    sizes: Int[np.ndarray, "t"]
    starts: Int[np.ndarray, "t"]
    rows: Int[np.ndarray, "t"]

    def doubled_ranks(self) -> Int[np.ndarray, "u n"]:
        """Twice the midrank at each place: whole numbers, so that sums of them are exact."""
        return np.repeat(2 * self.starts + self.sizes + 1, self.sizes).reshape(self.order.shape)


def sort_units(scores: Float[np.ndarray, "n u"]) -> SortedBlock:
    """Sort the images of each unit by score and find the ties."""
    by_unit = np.ascontiguousarray(scores.T)
    # an unstable sort is enough, since only groups of ties are used, and several times faster than a stable one
    order = np.argsort(by_unit, axis=1)
    values = np.take_along_axis(by_unit, order, axis=1)
    is_start = np.ones(values.shape, dtype=bool)
    np.not_equal(values[:, 1:], values[:, :-1], out=is_start[:, 1:])
    places = np.flatnonzero(is_start)
    rows, starts = np.divmod(places, len(scores))
    return SortedBlock(order, np.diff(places, append=is_start.size), starts, rows)


def unit_blocks(units: int, *, images: int, elements: int = _BLOCK) -> Iterator[slice]:
    """Slices that cover `units` so that each holds at most `elements` numbers (but at least one unit)."""
    width = max(1, elements // max(1, images))
    for start in range(0, units, width):
        yield slice(start, min(start + width, units))


def _blocks(scores: np.ndarray) -> Iterator[tuple[slice, SortedBlock]]:
    if not len(scores):
        return
    for block in unit_blocks(scores.shape[1], images=len(scores)):
        yield block, sort_units(scores[:, block])


def _newcombe_limit(
    observed: np.ndarray, outer: float, *, members: np.ndarray, others: np.ndarray, quantile: float
) -> np.ndarray:
    """The area between `observed` and `outer` that lies `quantile` of its own standard errors from `observed`."""
    effective = (members + others) / 2 - 1
    outside, inside = np.where(np.isnan(observed), np.nan, outer), observed
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = quantile**2 / (members * others)
        for _ in range(_HALVINGS):
            middle = (outside + inside) / 2
            opposite = 1 - middle
            shape = 1 + effective * (opposite / (1 + opposite) + middle / (1 + middle))
            far = (observed - middle) ** 2 > scale * middle * opposite * shape
            outside, inside = np.where(far, middle, outside), np.where(far, inside, middle)
    return np.asarray(inside)


def _two_groups(counts: np.ndarray) -> tuple[Float[np.ndarray, "c"], Float[np.ndarray, "c"]]:
    members = counts.astype(np.float64)
    return members, members.sum() - members


def _unit_length(columns: np.ndarray) -> Float[np.ndarray, "n u"]:
    if not len(columns):
        return columns
    centred = columns - columns.mean(axis=0)
    length = np.sqrt((centred**2).sum(axis=0))
    return np.asarray(centred / np.where(length > 0, length, np.nan))
