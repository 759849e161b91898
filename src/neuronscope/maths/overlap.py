"""How far the units chosen for one class are those chosen for another: overlap, its chance level, reuse over classes.

Sets of units of one layer come as a membership (units, classes): true where a unit was chosen for a class. Two sets of
a tenth of the units share a few by chance alone, and sets of nearly all units share nearly all; so every overlap stands
beside what independent random sets of the same sizes would give, a measure with that chance level taken out
(`chance_corrected`), and a p-value.

Pairs of classes are not independent of each other: each class is in many. The interval of a mean over pairs is
therefore a jackknife over classes. *Reuse* compares two choices for the same class from two halves of its images; the
modularity gap says by how much that agreement is above the agreement between classes.

The two older formulas at the end are here so that published numbers can be had again. They are wrong as measures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numpy.typing import ArrayLike
from scipy import special
from scipy.cluster import hierarchy
from scipy.spatial import distance

from neuronscope.errors import InputError
from neuronscope.maths.ranks import normal_quantile


@dataclass(frozen=True)
class ClassOverlap:
    """Everything said here about the pairs of classes of one layer; rows and columns are classes.

    Attributes:
        units: units of the layer.
        sizes: units chosen for each class.
        common: units chosen for both classes.
        overlap: `overlap_coefficient`, 0 to 1.
        expected: the overlap coefficient that chance gives, 0 to 1.
        jaccard: 0 to 1.
        kappa: `chance_corrected`; 1 is full overlap, 0 chance.
        p: one-sided, see `hypergeometric_p`.
    """

    units: int
    sizes: Int[np.ndarray, "c"]
    common: Int[np.ndarray, "c c"]
    overlap: Float[np.ndarray, "c c"]
    expected: Float[np.ndarray, "c c"]
    jaccard: Float[np.ndarray, "c c"]
    kappa: Float[np.ndarray, "c c"]
    p: Float[np.ndarray, "c c"]


@dataclass(frozen=True)
class Estimate:
    """A number and its interval.

    Attributes:
        value: the estimate; nan where nothing is defined.
        low: lower end; nan where there are too few classes to say.
        high: upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Reuse:
    """For how many classes the units of a layer were chosen.

    Attributes:
        counts: number of classes that chose each unit.
        histogram: units chosen for 0, 1, ... C classes.
        expected: what the histogram would be, on average, for independent random sets of the same sizes.
    """

    counts: Int[np.ndarray, "u"]
    histogram: Int[np.ndarray, "k"]
    expected: Float[np.ndarray, "k"]

    @property
    def dead(self) -> float:
        """Fraction of units chosen for no class (nan for a layer without units, as in the other fractions)."""
        return self._share(0, 1)

    @property
    def specialised(self) -> float:
        """Fraction of units chosen for exactly one class."""
        return self._share(1, 2)

    @property
    def shared(self) -> float:
        """Fraction of units chosen for two classes or more, universal ones included."""
        return self._share(2, None)

    @property
    def universal(self) -> float:
        """Fraction of units chosen for all classes."""
        return self._share(len(self.histogram) - 1, None)

    def _share(self, first: int, end: int | None) -> float:
        return float(self.histogram[first:end].sum()) / len(self.counts) if len(self.counts) else float("nan")


@dataclass(frozen=True)
class ClassOrder:
    """Classes in an order that puts similar ones side by side.

    Attributes:
        order: class numbers from the first leaf of the tree to the last.
        linkage: the tree, one merge per row, as SciPy writes it: two clusters, their distance, classes in the new one.
    """

    order: Int[np.ndarray, "c"]
    linkage: Float[np.ndarray, "m 4"]


@dataclass(frozen=True)
class _Counts:
    """Sizes of two sets and of what they share, as arrays that broadcast, and the units they were taken from."""

    common: np.ndarray
    first: np.ndarray
    second: np.ndarray
    units: int


def class_overlap(membership: Bool[np.ndarray, "u c"]) -> ClassOverlap:
    """All overlaps of all pairs of classes of one layer; every class stands beside itself on the diagonal.

    Example:
        >>> found = class_overlap(np.array([[True, True], [True, False], [False, False], [False, False]]))
        >>> found.overlap[0, 1], found.expected[0, 1], found.kappa[0, 1]
        (np.float64(1.0), np.float64(0.5), np.float64(1.0))
    """
    pairs = _pairs(membership, None)
    return ClassOverlap(
        units=len(membership),
        sizes=membership.sum(axis=0),
        common=pairs.common,
        overlap=_overlap(pairs),
        expected=_expected(pairs),
        jaccard=_jaccard(pairs),
        kappa=_kappa(pairs),
        p=_hypergeometric(pairs),
    )


def overlap_coefficient(
    membership: Bool[np.ndarray, "u c"], other: Bool[np.ndarray, "v d"] | None = None
) -> Float[np.ndarray, "c d"]:
    """Share of the smaller set that is in the other: `|A & B| / min(|A|, |B|)`, 0 to 1.

    Source: Simpson (1943); also Szymkiewicz-Simpson coefficient.

    Args:
        membership: sets of the rows.
        other: sets of the columns, from the same layer; the same sets if None.

    Returns:
        nan where a set is empty.

    Raises:
        InputError: the two have different numbers of units (so in all functions of two memberships).

    Example:
        >>> overlap_coefficient(np.array([[True, True], [True, False], [False, True]]))
        array([[1. , 0.5],
               [0.5, 1. ]])
    """
    return _overlap(_pairs(membership, other))


def expected_overlap(
    membership: Bool[np.ndarray, "u c"], other: Bool[np.ndarray, "v d"] | None = None
) -> Float[np.ndarray, "c d"]:
    """The overlap coefficient of independent random sets of these sizes: `max(|A|, |B|) / n`; nan where one is empty.

    Example:
        >>> expected_overlap(np.array([[True, True], [True, False], [False, False], [False, False]]))
        array([[0.5 , 0.5 ],
               [0.5 , 0.25]])
    """
    return _expected(_pairs(membership, other))


def jaccard(
    membership: Bool[np.ndarray, "u c"], other: Bool[np.ndarray, "v d"] | None = None
) -> Float[np.ndarray, "c d"]:
    """Shared units among those in either set: `|A & B| / |A | B|`, 0 to 1 (Jaccard 1912); nan for two empty sets.

    Example:
        >>> jaccard(np.array([[True, True], [True, False]]))
        array([[1. , 0.5],
               [0.5, 1. ]])
    """
    return _jaccard(_pairs(membership, other))


def common_share(
    membership: Bool[np.ndarray, "u c"], other: Bool[np.ndarray, "v d"] | None = None
) -> Float[np.ndarray, "c d"]:
    """Shared units among all units of the layer: `|A & B| / n`.

    The original's measure for masks. It cannot exceed `min(|A|, |B|) / n`: with sets of a quarter of the layer, 0.25 is
    full agreement. `overlap_coefficient` is this divided by that ceiling.

    Returns:
        0 to 1; nan for a layer without units.

    Example:
        >>> common_share(np.array([[True], [False], [False], [False]]))
        array([[0.25]])
    """
    pairs = _pairs(membership, other)
    return _ratio(pairs.common, np.full(pairs.common.shape, pairs.units))


def chance_corrected(
    membership: Bool[np.ndarray, "u c"], other: Bool[np.ndarray, "v d"] | None = None
) -> Float[np.ndarray, "c d"]:
    """The overlap with chance taken out: 0 for independent random sets, 1 where one set holds the other.

    `kappa = (|A & B| - e) / (min(|A|, |B|) - e)` with `e = |A| |B| / n`, the units shared by chance. Negative where the
    sets avoid each other, without a lower bound if one of them is nearly the whole layer. (Cohen's correction, 1960,
    applied to the overlap coefficient; for sets of one size it is Cohen's kappa of the two memberships.)

    Returns:
        nan where chance already gives full overlap: a set is empty or holds all units.

    Example:
        >>> chance_corrected(np.array([[True, True], [True, False], [False, True], [False, False]]))
        array([[1., 0.],
               [0., 1.]])
    """
    return _kappa(_pairs(membership, other))


def hypergeometric_p(
    membership: Bool[np.ndarray, "u c"], other: Bool[np.ndarray, "v d"] | None = None
) -> Float[np.ndarray, "c d"]:
    """Probability that independent random sets of these sizes share at least as many units (one-sided, 0 to 1).

    `P(X >= |A & B|)` with `X` hypergeometric: Fisher's exact test of the two memberships (1935). 1 where a set is empty
    or holds all units. One p-value per pair: take q-values over all pairs, `resampling.by_qvalues`, since pairs that
    share a class depend on each other.

    Example:
        >>> hypergeometric_p(np.array([[True, True], [True, False], [False, True], [False, False]])).round(4)
        array([[0.1667, 0.8333],
               [0.8333, 0.1667]])
    """
    return _hypergeometric(_pairs(membership, other))


def pair_mean(similarity: Float[np.ndarray, "c c"], *, level: float = 0.95) -> Estimate:
    """Mean over all pairs of different classes, with an interval that knows that pairs share classes.

    The mean over pairs is a U-statistic of degree two: its variance is `(C - 1) / C sum_i (m_(i) - mean)**2` with
    `m_(i)` the mean over the pairs without class `i`, a jackknife over classes (Arvesen 1969), and the interval
    Student's with `C - 1` degrees of freedom. It is about classes like these: as if the classes were drawn from many.

    Args:
        similarity: symmetric; the diagonal is not used; pairs that are nan are left out.
        level: coverage, between 0 and 1.

    Returns:
        Ends of the interval are nan for fewer than three classes, or where leaving a class out leaves no pair.

    Raises:
        InputError: a level outside 0 to 1.

    Example:
        >>> pair_mean(np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.25], [0.5, 0.25, 1.0]])).value
        0.25
    """
    mean, without = _pairs_without(similarity)
    return _jackknife(mean, without, level=level)


def split_half_kappa(first: Bool[np.ndarray, "h u c"], second: Bool[np.ndarray, "g v d"]) -> Float[np.ndarray, "h c"]:
    """How far two halves of a class's images choose the same units, chance taken out, per split and class.

    Args:
        first: membership from the first half of the images, one per split.
        second: membership from the second half.

    Returns:
        `chance_corrected` of the same class in both halves; nan where it is.

    Raises:
        InputError: the two differ in shape.

    Example:
        >>> half = np.array([[[True], [True], [False], [False]]])
        >>> split_half_kappa(half, half)
        array([[1.]])
    """
    if first.shape != second.shape:
        message = (
            f"both halves are (splits, units, classes) of one layer, but the first is {first.shape} and the second "
            f"{second.shape}; compare layer by layer, split by split"
        )
        raise InputError(message)
    common = (first & second).sum(axis=1)
    return _kappa(_Counts(common, first.sum(axis=1), second.sum(axis=1), first.shape[1]))


def modularity_gap(
    reuse: Float[np.ndarray, "c"], between: Float[np.ndarray, "c c"], *, level: float = 0.95
) -> Estimate:
    """How much more the choices for one class agree with themselves than with those for other classes.

    Mean of `reuse` over classes minus mean of `between` over pairs of different classes: 0 where classes have no units
    of their own, 1 where choices are repeatable and different classes overlap as chance would have it. The interval is
    a jackknife over classes of the difference, so it minds that both means rest on the same classes.

    Compare like with like: choices from half of the images are noisier, which lowers their agreement. Take `reuse` from
    `split_half_kappa(first, second)` averaged over the splits, and `between` from `chance_corrected(first[s],
    second[s])` averaged over the same splits.

    Args:
        reuse: agreement of each class with itself; nan is left out.
        between: agreement of different classes; the diagonal is not used, nan is left out.
        level: coverage, between 0 and 1.

    Raises:
        InputError: a level outside 0 to 1.

    Example:
        >>> modularity_gap(np.array([1.0, 1.0, 1.0]), np.zeros((3, 3))).value
        1.0
    """
    mean, without = _pairs_without(between)
    known = ~np.isnan(reuse)
    values = np.where(known, reuse, 0.0)
    own = _ratio(values.sum(), known.sum())
    own_without = _ratio(values.sum() - values, known.sum() - known)
    return _jackknife(float(own - mean), own_without - without, level=level)


def reuse_counts(membership: Bool[np.ndarray, "u c"]) -> Int[np.ndarray, "u"]:
    """For how many classes each unit was chosen (0 to C).

    Example:
        >>> reuse_counts(np.array([[True, True], [False, True]]))
        array([2, 1])
    """
    return np.asarray(membership.sum(axis=1))


def reuse_kinds(membership: Bool[np.ndarray, "u c"]) -> Shaped[np.ndarray, "u"]:
    """Each unit in a word: dead (no class), specialised (one), shared (two or more) or universal (all, if two or more).

    Example:
        >>> reuse_kinds(np.array([[True, True, True], [False, True, True], [False, True, False]])).tolist()
        ['universal', 'shared', 'specialised']
    """
    counts = reuse_counts(membership)
    kinds: np.ndarray = np.array(["dead", "specialised", "shared"])[np.minimum(counts, 2)]
    kinds[(counts == membership.shape[1]) & (counts > 1)] = "universal"
    return kinds


def reuse(membership: Bool[np.ndarray, "u c"]) -> Reuse:
    """Histogram of the number of classes a unit was chosen for, beside what chance gives.

    By chance a unit is in the set of class `c` with probability `|A_c| / n`, independently for all classes: its number
    of classes is Poisson-binomial, and the expected histogram is `n` times that distribution. More dead *and* more
    universal units than expected mean that classes share their units; fewer, that they keep apart.

    Example:
        >>> found = reuse(np.array([[True, True], [False, False]]))
        >>> found.histogram, found.expected
        (array([1, 0, 1]), array([0.5, 1. , 0.5]))
    """
    units, classes = membership.shape
    counts = reuse_counts(membership)
    chance = np.ones(1)
    for share in membership.sum(axis=0) / max(units, 1):
        chance = np.append(chance * (1 - share), 0.0) + np.append(0.0, chance * share)
    return Reuse(counts, np.bincount(counts, minlength=classes + 1), units * chance)


def class_order(similarity: Float[np.ndarray, "c c"]) -> ClassOrder:
    """Classes ordered so that similar ones are neighbours, and the tree that says how similar groups of them are.

    Agglomerative clustering of `1 - similarity` with average linkage (Sokal and Michener 1958); among the orders the
    tree allows, the one with the least distance between neighbours (Bar-Joseph et al. 2001). Nothing random: the same
    matrix gives the same order.

    Args:
        similarity: at most 1 and symmetric (of the two triangles the mean is taken); the diagonal is not used. nan
            counts as 0, the chance level of `chance_corrected`.

    Example:
        >>> class_order(np.array([[1.0, 0.1, 0.9], [0.1, 1.0, 0.2], [0.9, 0.2, 1.0]])).order
        array([1, 2, 0])
    """
    classes = len(similarity)
    if classes < 2:  # noqa: PLR2004 one class has no neighbour
        return ClassOrder(np.arange(classes), np.zeros((0, 4)))
    known = np.nan_to_num(similarity.astype(np.float64), nan=0.0)
    apart = np.maximum(1 - (known + known.T) / 2, 0.0)
    np.fill_diagonal(apart, 0.0)
    tree = hierarchy.linkage(distance.squareform(apart, checks=False), method="average", optimal_ordering=True)
    return ClassOrder(hierarchy.leaves_list(tree).astype(np.int64), tree)


def positional_share(
    membership: Bool[np.ndarray, "u c"], other: Bool[np.ndarray, "v d"] | None = None
) -> Float[np.ndarray, "c d"]:
    """The original's overlap for thresholding, a defect: sorted lists of unit numbers compared place by place.

    `#{k : a_k = b_k} / |A|`, and 0 where the lists differ in length. One unit more at the front shifts all others out
    of place, so that sets which share nearly everything may score 0. Use `overlap_coefficient`.

    Returns:
        0 to 1; nan where both sets are empty, for which the original divides by zero.

    Example:
        >>> sets = np.array([[True, False], [True, True], [True, True], [False, True]])
        >>> positional_share(sets)[0, 1], overlap_coefficient(sets)[0, 1].round(2)
        (np.float64(0.0), np.float64(0.67))
    """
    pairs = _pairs(membership, other)
    other = membership if other is None else other
    share = np.where((pairs.first == 0) & (pairs.second == 0), np.nan, 0.0)
    columns = [np.flatnonzero(column) for column in other.T]
    for row, chosen in enumerate(np.flatnonzero(column) for column in membership.T):
        for column, against in enumerate(columns):
            if len(chosen) == len(against) > 0:
                share[row, column] = (chosen == against).mean()
    return share


def list_equality_share(
    membership: Bool[np.ndarray, "u c"], other: Bool[np.ndarray, "v d"] | None = None
) -> Float[np.ndarray, "c d"]:
    """The original's overlap for the output layer, a defect: `1 / |A|` for equal sets, else 0.

    There the two are Python lists, so comparing them gives one truth value instead of one per unit, counted as one
    shared unit. With all ten outputs always chosen, the published bar is 0.10 where the overlap is 1.

    Returns:
        0 to 1; nan where both sets are empty, for which the original divides by zero.

    Example:
        >>> list_equality_share(np.ones((10, 1), dtype=bool))
        array([[0.1]])
    """
    pairs = _pairs(membership, other)
    equal = (pairs.common == pairs.first) & (pairs.common == pairs.second)
    return np.where(equal, _ratio(np.ones(equal.shape), pairs.first + np.zeros_like(pairs.second)), 0.0)


def _pairs(membership: np.ndarray, other: np.ndarray | None) -> _Counts:
    other = membership if other is None else other
    _same_units(membership, other)
    # products of counts below 2**53 are exact in float64, and matrix products of floats are the fast ones
    common = (membership.T.astype(np.float64) @ other.astype(np.float64)).astype(np.int64)
    first = membership.sum(axis=0)[:, None] + np.zeros_like(common)
    second = other.sum(axis=0)[None] + np.zeros_like(common)
    return _Counts(common, first, second, len(membership))


def _same_units(first: np.ndarray, second: np.ndarray) -> None:
    if len(first) != len(second):
        message = (
            f"two memberships of one layer have the same units, but these have {len(first)} and {len(second)}; "
            "compare layer by layer"
        )
        raise InputError(message)


def _overlap(pairs: _Counts) -> np.ndarray:
    return _ratio(pairs.common, np.minimum(pairs.first, pairs.second))


def _expected(pairs: _Counts) -> np.ndarray:
    smaller, larger = np.minimum(pairs.first, pairs.second), np.maximum(pairs.first, pairs.second)
    return np.where(smaller > 0, _ratio(larger, np.full(larger.shape, pairs.units)), np.nan)


def _jaccard(pairs: _Counts) -> np.ndarray:
    return _ratio(pairs.common, pairs.first + pairs.second - pairs.common)


def _kappa(pairs: _Counts) -> np.ndarray:
    # times n, all whole numbers: what is zero is exactly zero
    chance = pairs.first * pairs.second
    smaller = np.minimum(pairs.first, pairs.second)
    return _ratio(pairs.common * pairs.units - chance, smaller * pairs.units - chance)


def _hypergeometric(pairs: _Counts) -> np.ndarray:
    """Tail probabilities, one table per size of the smaller set: few sizes occur, however many pairs there are."""
    smaller, larger = np.minimum(pairs.first, pairs.second), np.maximum(pairs.first, pairs.second)
    p = np.ones(pairs.common.shape)
    log_factorial = special.gammaln(np.arange(pairs.units + 1) + 1.0)
    for size in np.unique(smaller):
        rows = smaller == size
        sizes, place = np.unique(larger[rows], return_inverse=True)
        tail = _tails(int(size), sizes, units=pairs.units, log_factorial=log_factorial)
        p[rows] = tail[place.ravel(), pairs.common[rows]]
    return p


def _tails(smaller: int, larger: np.ndarray, *, units: int, log_factorial: np.ndarray) -> Float[np.ndarray, "b k"]:
    """P(X >= k) for k = 0 to `smaller`, for every size of the larger set."""
    shared, larger = np.arange(smaller + 1), larger[:, None]
    neither = units - smaller - larger + shared
    possible = neither >= 0
    log_p = (
        log_factorial[smaller]
        + log_factorial[units - smaller]
        + log_factorial[larger]
        + log_factorial[units - larger]
        - log_factorial[units]
        - log_factorial[shared]
        - log_factorial[smaller - shared]
        - log_factorial[larger - shared]
        - log_factorial[np.maximum(neither, 0)]
    )
    tail = np.cumsum(np.where(possible, np.exp(log_p), 0.0)[:, ::-1], axis=1)[:, ::-1]
    # what must be shared is shared with probability exactly 1
    least = np.maximum(smaller + larger - units, 0)
    return np.where(shared <= least, 1.0, np.minimum(tail, 1.0))


def _pairs_without(similarity: np.ndarray) -> tuple[float, Float[np.ndarray, "c"]]:
    """Mean over the pairs of different classes, and the same without each class in turn."""
    known = ~np.isnan(similarity)
    np.fill_diagonal(known, val=False)
    values = np.where(known, similarity, 0.0)
    total, number = values.sum(), known.sum()
    lost = values.sum(axis=0) + values.sum(axis=1)
    return float(_ratio(total, number)), _ratio(total - lost, number - known.sum(axis=0) - known.sum(axis=1))


def _jackknife(value: float, without: Float[np.ndarray, "c"], *, level: float) -> Estimate:
    normal_quantile(level)  # refuses levels outside 0 to 1
    classes = len(without)
    if classes < 3 or np.isnan(without).any():  # noqa: PLR2004 two classes make one pair
        return Estimate(value, float("nan"), float("nan"))
    error = np.sqrt((classes - 1) / classes * ((without - without.mean()) ** 2).sum())
    half = float(special.stdtrit(classes - 1, (1 + level) / 2) * error)
    return Estimate(value, value - half, value + half)


def _ratio(above: ArrayLike, below: ArrayLike) -> np.ndarray:
    """Quotient that is nan where nothing is divided by."""
    below = np.asarray(below, dtype=np.float64)
    return np.asarray(np.asarray(above, dtype=np.float64) / np.where(below == 0, np.nan, below))
