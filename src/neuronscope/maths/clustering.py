"""Which units of a layer behave alike? Features of units, clusters of them, and how clusterings relate to each other.

A unit is described by how often it fires, its mean and its variance (`features_of`), if wanted also by its profile over
classes or its gradients. `kmeans` and `hierarchical` group the units; dead units are in no group (label -1) unless
asked for. Labels are numbered by size, so that a second run gives the same numbers to the same groups.

`match_clusters` and `cluster_tree` compare clusterings of the same units, `match_by_centroid` those of different
layers, `distinct_sets` finds the sets that several k have in common. `tsne` draws the units in a plane. How many
clusters there are, and whether there are any, is for `cluster_choice`: k-means divides a shapeless cloud just as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from neuronscope.errors import InputError, UnknownName, nearest
from neuronscope.maths.overlap import chance_corrected, jaccard

Linkage = Literal["ward", "average", "complete", "single"]
"""How far two clusters are from each other: growth of the inertia; mean, largest or smallest distance of units."""

APART = -1
"""Label of units that are in no cluster: dead, or with a feature that is not finite."""

STATISTICS = ("rate", "mean", "variance")
"""The columns that every description begins with, in the original's order."""

_ROUNDING = 1e-12
"""Share of a column's largest value below which its spread is rounding: the column is constant."""

_BLOCK = 2**22
"""Distances held at a time (numbers of 8 bytes): 32 MiB."""

_PERPLEXITY = 30.0
"""Neighbours each unit counts on in t-SNE, where there are units enough."""

_FEWEST_EMBEDDED = 4
"""Units from which t-SNE can be drawn: with one neighbour each."""


@dataclass(frozen=True)
class UnitFeatures:
    """What is known of each unit of a layer, as it is and on a common scale.

    Attributes:
        values: features in their own units (principal components of profiles in those of the profile).
        names: name of each column.
        scaled: the features as they are clustered: standard deviations from the mean of the clustered units; columns of
            a profile share the weight of one block. nan for units that are not clustered.
        clustered: units that are to be clustered; the others get label -1.
        dead: units that never fire and never vary (rate 0 and variance 0).
        constant: columns that are equal for all clustered units; they are 0 in `scaled`, and say nothing.
    """

    values: Float[np.ndarray, "u f"]
    names: tuple[str, ...]
    scaled: Float[np.ndarray, "u f"]
    clustered: Bool[np.ndarray, "u"]
    dead: Bool[np.ndarray, "u"]
    constant: tuple[str, ...]

    @property
    def points(self) -> Float[np.ndarray, "_ f"]:
        """The scaled features of the units that are clustered, without the others."""
        return np.asarray(self.scaled[self.clustered])


@dataclass(frozen=True)
class ReducedProfile:
    """A profile in its principal components.

    Attributes:
        scores: coordinates of each unit, largest component first; each component's heaviest entry is positive.
        explained: share of the variance between units in each component (0 to 1).
    """

    scores: Float[np.ndarray, "u p"]
    explained: Float[np.ndarray, "p"]


@dataclass(frozen=True)
class Clustering:
    """Units in groups.

    Attributes:
        labels: cluster of each unit, 0 to k - 1; -1 for units that are not clustered.
        k: number of clusters.
        names: name of each feature.
        centroids: mean features of each cluster, in their own units.
        scaled_centroids: the same on the scale the units were clustered on.
        sizes: units in each cluster.
        inertia: sum of squared scaled distances of the units from their centroid.
        silhouette: mean silhouette of the clustered units (-1 to 1), on scaled features.
        unit_silhouettes: silhouette of each unit; nan for those not clustered.
    """

    labels: Int[np.ndarray, "u"]
    k: int
    names: tuple[str, ...]
    centroids: Float[np.ndarray, "k f"]
    scaled_centroids: Float[np.ndarray, "k f"]
    sizes: Int[np.ndarray, "k"]
    inertia: float
    silhouette: float
    unit_silhouettes: Float[np.ndarray, "u"]


@dataclass(frozen=True)
class DistinctSets:
    """The different sets of units among the clusters of several clusterings.

    Attributes:
        masks: True for the units of each set.
        of: for each clustering, the set that each of its clusters is.
    """

    masks: Bool[np.ndarray, "d u"]
    of: dict[int, tuple[int, ...]]


@dataclass(frozen=True)
class Matching:
    """Clusters of two clusterings of the same units, each with its counterpart.

    Attributes:
        first: cluster of the first clustering, ascending.
        second: its counterpart in the second.
        jaccard: units in both among those in either (0 to 1).
        corrected: overlap with chance taken out (`overlap.chance_corrected`): 0 for unrelated clusters, 1 where one
            holds the other; nan where a cluster is all there is.
        only_first: clusters of the first clustering without counterpart.
        only_second: clusters of the second.
        rand: adjusted Rand index of the whole (`adjusted_rand`).
    """

    first: Int[np.ndarray, "p"]
    second: Int[np.ndarray, "p"]
    jaccard: Float[np.ndarray, "p"]
    corrected: Float[np.ndarray, "p"]
    only_first: tuple[int, ...]
    only_second: tuple[int, ...]
    rand: float


@dataclass(frozen=True)
class CentroidMatching:
    """Clusters of two layers, each with the one most like it.

    Attributes:
        first: cluster of the first layer, ascending.
        second: its counterpart in the second layer.
        distance: root mean square difference of their features, in standard deviations between the units of a layer.
        only_first: clusters of the first layer with nothing like them in the second.
        only_second: clusters of the second.
    """

    first: Int[np.ndarray, "p"]
    second: Int[np.ndarray, "p"]
    distance: Float[np.ndarray, "p"]
    only_first: tuple[int, ...]
    only_second: tuple[int, ...]


@dataclass(frozen=True)
class Descent:
    """Where the clusters of one k come from.

    Attributes:
        k: number of clusters.
        before: the next smaller number of clusters there is.
        parent: for each cluster, the cluster among `before` that gave most of its units.
        share: share of the cluster's units that come from its parent (0 to 1; 1 for a pure split).
        kept: share of the parent's units that are in the cluster (0 to 1).
    """

    k: int
    before: int
    parent: Int[np.ndarray, "k"]
    share: Float[np.ndarray, "k"]
    kept: Float[np.ndarray, "k"]


def features_of(
    rate: Float[np.ndarray, "_"],
    mean: Float[np.ndarray, "_"],
    variance: Float[np.ndarray, "_"],
    *,
    more: Mapping[str, Float[np.ndarray, "_"]] | None = None,
    profiles: Mapping[str, Float[np.ndarray, "_ _"]] | None = None,
    rows: Literal["unit length", "as given"] = "unit length",
    dead: Literal["apart", "clustered"] = "apart",
) -> UnitFeatures:
    """Describe each unit by its activation statistics, and by more if there is more.

    Columns are z-scored with the population deviation of the clustered units. A profile is reduced to principal
    components (`reduced_profile`) and scaled as a block, so that its total variance is that of all single columns
    together: each block weighs the same, however many components it has.

    Args:
        rate: fraction of images in which the unit fires (0 to 1).
        mean: mean activation.
        variance: variance of the activation over images.
        more: further columns by name.
        profiles: further blocks by name, such as `class_profile` (u, classes) or `gradient_profile` (u, m).
        rows: "unit length" compares profiles by direction, as the cosine does (how strong a unit is, its mean says
            already); "as given" also by size.
        dead: "apart", dead units and those with a feature that is not finite get label -1; or "clustered", all units
            are, as in the original.

    Raises:
        InputError: columns of different length, a rate outside 0 to 1, a variance below 0, a name given twice, or a
            feature that is not finite while all units are to be clustered.

    Example:
        >>> rate, mean = np.array([0.0, 0.5, 1.0]), np.array([0.0, 1.0, 2.0])
        >>> found = features_of(rate, mean, np.array([0.0, 1.0, 1.0]))
        >>> found.clustered, found.constant
        (array([False, True, True]), ('variance',))
        >>> found.scaled
        array([[nan, nan, nan],
               [-1., -1., 0.],
               [ 1., 1., 0.]])
    """
    columns = {**dict(zip(STATISTICS, (rate, mean, variance), strict=True)), **(more or {})}
    profiles = profiles or {}
    _check_columns(columns, more or {}, profiles)
    singles = np.stack([column.astype(np.float64) for column in columns.values()], axis=1)
    is_dead = np.asarray((singles[:, 0] == 0) & (singles[:, 2] == 0))
    finite = np.asarray(np.all([np.isfinite(table).all(axis=1) for table in (singles, *profiles.values())], axis=0))
    if dead == "clustered" and not finite.all():
        message = (
            f"{int((~finite).sum())} of {len(finite)} units have features that are not finite (the first is unit "
            f"{int(np.argmin(finite))}), and clusters need numbers. Leave them out with dead='apart', or recompute "
            "the statistics"
        )
        raise InputError(message)
    kept = finite if dead == "clustered" else finite & ~is_dead
    values, names, scaled = [singles[kept]], list(columns), [_standardised(singles[kept])]
    weight = max(1.0, float((scaled[0] ** 2).mean(axis=0).sum())) if kept.any() else 1.0
    for name, profile in profiles.items():
        scores = reduced_profile(profile[kept].astype(np.float64), rows=rows).scores
        spread = float((scores**2).sum()) / max(1, len(scores))  # components are centred
        values.append(scores)
        scaled.append(scores * np.sqrt(weight / spread) if spread > 0 else scores)
        names += [f"{name}_{component + 1}" for component in range(scores.shape[1])]
    inside = np.concatenate(scaled, axis=1)
    return UnitFeatures(
        values=_with_others(np.concatenate(values, axis=1), kept, singles),
        names=tuple(names),
        scaled=_with_others(inside, kept),
        clustered=kept,
        dead=is_dead,
        constant=tuple(name for name, column in zip(names, inside.T, strict=True) if not column.any()),
    )


def reduced_profile(
    profile: Float[np.ndarray, "u m"],
    *,
    rows: Literal["unit length", "as given"] = "unit length",
    explained: float = 0.9,
    most: int = 10,
) -> ReducedProfile:
    """A wide profile in the few directions in which units differ most (principal components).

    Args:
        profile: one row per unit.
        rows: "unit length" divides each row by its length first (rows of zeros stay); "as given" does not.
        explained: share of the variance between units to keep (0 to 1).
        most: components at most, whatever they explain.

    Returns:
        At least one component, all zeros where the units do not differ.

    Raises:
        InputError: `explained` outside 0 to 1, or fewer than one component.

    Example:
        >>> found = reduced_profile(np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]]))
        >>> found.explained.round(6), found.scores[:, 0].round(3)
        (array([1.]), array([-0.471,  0.943, -0.471]))
    """
    if not 0 < explained <= 1 or most < 1:
        message = (
            f"a profile keeps a share of its variance between 0 and 1 in at least 1 component, got a share of "
            f"{explained} and {most} components; 0.9 and 10 are usual"
        )
        raise InputError(message)
    table = profile.astype(np.float64)
    if rows == "unit length":
        length = np.linalg.norm(table, axis=1, keepdims=True)
        table = table / np.where(length > 0, length, 1.0)
    if not table.size:
        return ReducedProfile(np.zeros((len(table), 1)), np.ones(1))
    centred = table - table.mean(axis=0)
    if np.abs(centred).max() <= _ROUNDING * np.abs(table).max():
        return ReducedProfile(np.zeros((len(table), 1)), np.ones(1))
    left, strength, right = np.linalg.svd(centred, full_matrices=False)
    share = strength**2 / (strength**2).sum()
    # an equality that rounding misses must not cost a component
    kept = min(most, int(np.searchsorted(np.cumsum(share), explained - _ROUNDING)) + 1, len(share))
    heaviest = np.take_along_axis(right, np.abs(right).argmax(axis=1)[:, None], axis=1)[:, 0]
    scores = left * strength * np.where(heaviest < 0, -1.0, 1.0)
    return ReducedProfile(scores[:, :kept], share[:kept])


def kmeans(
    features: UnitFeatures,
    k: int,
    *,
    n_init: int = 20,
    seed: int = 0,
    order: Literal["size", "as found"] = "size",
) -> Clustering:
    """Groups of units around `k` centroids with the least inertia found (k-means++, Lloyd's algorithm).

    The original used `n_init=1, seed=42, order="as found"` on all units (`dead="clustered"`); one start often ends in
    another local optimum than the next.

    Args:
        features: what to cluster by.
        k: number of clusters, 2 to the number of different units.
        n_init: random starts, of which the best is kept.
        seed: of the starts.
        order: "size", the largest cluster is 0, of equal ones the more active first; or "as found" by scikit-learn.

    Raises:
        InputError: no unit to cluster, k below 2 or above the number of different units, or no start.

    Example:
        >>> rate = np.array([0.0, 0.9, 0.1, 1.0, 0.05])
        >>> found = kmeans(features_of(rate, 2 * rate, rate + 1), 2)
        >>> found.labels, found.sizes
        (array([0, 1, 0, 1, 0]), array([3, 2]))
    """
    points = _clusterable(features, k)
    if n_init < 1:
        message = f"k-means needs at least 1 random start, got n_init={n_init}; 20 make the result repeatable"
        raise InputError(message)
    from sklearn.cluster import KMeans

    labels = KMeans(k, n_init=n_init, random_state=seed).fit(points).labels_.astype(np.int64)
    return _clustering(features, labels, k=k, order=order)


def hierarchical(
    features: UnitFeatures,
    k: int,
    *,
    linkage: str = "ward",
    order: Literal["size", "as found"] = "size",
) -> Clustering:
    """Groups of units by joining the two nearest groups again and again until `k` are left.

    No chance plays a part, and groups for k are always groups for k + 1 joined. Ward's (1963) linkage minimises the
    inertia at each step.

    Args:
        features: what to cluster by.
        k: number of clusters, 2 to the number of different units.
        linkage: how far two groups are from each other, one of `Linkage`.
        order: as for `kmeans`.

    Raises:
        UnknownName: no such linkage.
        InputError: no unit to cluster, or k below 2 or above the number of different units.

    Example:
        >>> rate = np.array([0.0, 0.9, 0.1, 1.0, 0.05])
        >>> hierarchical(features_of(rate, 2 * rate, rate + 1), 2).labels
        array([0, 1, 0, 1, 0])
    """
    if linkage not in get_args(Linkage):
        message = f"there is no linkage '{linkage}'.{nearest(linkage, get_args(Linkage))}"
        message += f" Known: {', '.join(get_args(Linkage))}"
        raise UnknownName(message)
    points = _clusterable(features, k)
    from sklearn.cluster import AgglomerativeClustering

    labels = AgglomerativeClustering(k, linkage=linkage).fit(points).labels_.astype(np.int64)
    return _clustering(features, labels, k=k, order=order)


def silhouettes(points: Float[np.ndarray, "n f"], labels: Int[np.ndarray, "r n"]) -> Float[np.ndarray, "r n"]:
    """How much nearer each unit is to its own cluster than to the next, for several clusterings of the same units.

    `s = (b - a) / max(a, b)` with `a` the mean distance to the other units of the cluster and `b` the smallest mean
    distance to those of another (Rousseeuw 1987); 0 for a unit alone in its cluster. Distances are computed once for
    all clusterings, a block at a time.

    Args:
        points: features on a common scale.
        labels: clusters from 0 on, one clustering per row.

    Returns:
        -1 to 1; nan for a clustering with one cluster only.

    Example:
        >>> points = np.array([[0.0], [1.0], [9.0]])
        >>> silhouettes(points, np.array([[0, 0, 1], [0, 0, 0]])).round(3)
        array([[0.889, 0.875, 0.   ],
               [ nan,  nan,  nan]])
    """
    from scipy.spatial.distance import cdist

    found = np.full(labels.shape, np.nan)
    if not labels.size:
        return found
    counts = [np.bincount(row) for row in labels]
    ends = np.cumsum([len(count) for count in counts])
    member = np.zeros((len(points), ends[-1]))
    for row, end, count in zip(labels, ends, counts, strict=True):
        member[np.arange(len(points)), end - len(count) + row] = 1.0
    step = max(1, _BLOCK // len(points))
    for start in range(0, len(points), step):
        block = slice(start, start + step)
        sums = cdist(points[block], points) @ member
        for row, (end, count) in enumerate(zip(ends, counts, strict=True)):
            if (count > 0).sum() > 1:
                found[row, block] = _silhouettes(sums[:, end - len(count) : end], count, labels[row, block])
    return found


def adjusted_rand(first: Int[np.ndarray, "_"], second: Int[np.ndarray, "_"]) -> float:
    """Agreement of two clusterings of the same units on which pairs belong together: 1 if equal, 0 by chance.

    The Rand index with chance taken out (Hubert and Arabie 1985, eq. 5). Units with label -1 in either are left out.

    Returns:
        At most 1; 1 where neither divides anything; nan without two units in common.

    Raises:
        InputError: the two have different numbers of units.

    Example:
        >>> adjusted_rand(np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]))
        1.0
    """
    _same_length({1: first, 2: second})
    common = (first >= 0) & (second >= 0)
    units = int(common.sum())
    if units < 2:  # noqa: PLR2004 a pair needs two
        return float("nan")
    table = _shared(first[common], second[common]).astype(np.float64)
    together = _pairs(table).sum()
    rows, columns = _pairs(table.sum(axis=1)).sum(), _pairs(table.sum(axis=0)).sum()
    expected = rows * columns / _pairs(units)
    highest = (rows + columns) / 2
    return 1.0 if highest == expected else float((together - expected) / (highest - expected))


def cluster_masks(labels: Int[np.ndarray, "u"]) -> Bool[np.ndarray, "k u"]:
    """Which units belong to each cluster; units with label -1 to none.

    Raises:
        InputError: a label below -1.

    Example:
        >>> cluster_masks(np.array([1, 0, -1]))
        array([[False,  True, False],
               [ True, False, False]])
    """
    if (labels < APART).any():
        message = (
            f"label {int(labels.min())} names no cluster: labels are 0 or more, or -1 for units in no cluster. "
            "Check that these are the labels of a clustering"
        )
        raise InputError(message)
    return np.asarray(labels == np.arange(labels.max(initial=APART) + 1)[:, None])


def cluster_mask(labels: Int[np.ndarray, "u"], cluster: int) -> Bool[np.ndarray, "u"]:
    """Which units belong to one cluster.

    Raises:
        InputError: there is no such cluster.

    Example:
        >>> cluster_mask(np.array([1, 0, -1]), 1)
        array([ True, False, False])
    """
    masks = cluster_masks(labels)
    if not 0 <= cluster < len(masks):
        message = (
            f"cluster {cluster} does not exist: there are {len(masks)} clusters, numbered from 0. "
            f"Choose one of 0 to {len(masks) - 1}, or cluster with a larger k"
        )
        raise InputError(message)
    return np.asarray(masks[cluster])


def distinct_sets(labels: Mapping[int, Int[np.ndarray, "_"]]) -> DistinctSets:
    """The different sets of units among all clusters: what an experiment on each cluster of each k has to compute once.

    Args:
        labels: clusterings of the same units, by k or any other number.

    Raises:
        InputError: no clustering, clusterings of different numbers of units, or a label below -1.

    Example:
        >>> found = distinct_sets({2: np.array([0, 0, 1]), 3: np.array([2, 0, 1])})
        >>> found.of, len(found.masks)
        ({2: (0, 1), 3: (2, 1, 3)}, 4)
    """
    _same_length(labels)
    numbers: dict[bytes, int] = {}
    masks: list[np.ndarray] = []
    of: dict[int, tuple[int, ...]] = {}
    for k, row in labels.items():
        sets = cluster_masks(row)
        for mask in sets:
            if mask.tobytes() not in numbers:
                numbers[mask.tobytes()] = len(masks)
                masks.append(mask)
        of[k] = tuple(numbers[mask.tobytes()] for mask in sets)
    return DistinctSets(np.array(masks).reshape(len(masks), len(row)), of)


def match_clusters(first: Int[np.ndarray, "_"], second: Int[np.ndarray, "_"]) -> Matching:
    """Pair the clusters of two clusterings of the same units so that the pairs have most in common.

    The pairs with the largest sum of Jaccard indices (Hungarian method, Kuhn 1955); clusters without a common unit are
    no pair. Units in no cluster of either count as absent.

    Raises:
        InputError: the two have different numbers of units, or a label is below -1.

    Example:
        >>> found = match_clusters(np.array([0, 0, 1, 1]), np.array([1, 1, 0, 2]))
        >>> found.first, found.second, found.jaccard, found.only_second
        (array([0, 1]), array([1, 0]), array([1. , 0.5]), (2,))
    """
    from scipy.optimize import linear_sum_assignment

    _same_length({1: first, 2: second})
    present = (first >= 0) | (second >= 0)
    one, other = cluster_masks(first)[:, present].T, cluster_masks(second)[:, present].T
    similarity = np.nan_to_num(jaccard(one, other))
    rows, columns = linear_sum_assignment(similarity, maximize=True)
    kept = similarity[rows, columns] > 0
    rows, columns = rows[kept].astype(np.int64), columns[kept].astype(np.int64)
    return Matching(
        first=rows,
        second=columns,
        jaccard=similarity[rows, columns],
        corrected=chance_corrected(one, other)[rows, columns],
        only_first=_others(rows, one.shape[1]),
        only_second=_others(columns, other.shape[1]),
        rand=adjusted_rand(first, second),
    )


def match_by_centroid(
    first: Float[np.ndarray, "_ _"], second: Float[np.ndarray, "_ _"], *, furthest: float = 1.0
) -> CentroidMatching:
    """Pair the clusters of two layers by what their units are like.

    The pairing with the least sum of distances (Hungarian method), where leaving two clusters without counterpart costs
    `furthest`; so no pair is further apart than that.

    Args:
        first: `Clustering.scaled_centroids` of one layer: standard deviations from the layer's mean, since activations
            of different layers have no common unit.
        second: those of the other, of the same features.
        furthest: largest root mean square difference per feature, in standard deviations, at which clusters still
            count as alike.

    Raises:
        InputError: different numbers of features, centroids that are not finite, or a bound that is not above 0.

    Example:
        >>> found = match_by_centroid(np.array([[2.0], [-1.0]]), np.array([[-1.5], [9.0]]))
        >>> found.first, found.second, found.distance, found.only_first
        (array([1]), array([0]), array([0.5]), (0,))
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    if first.shape[1] != second.shape[1]:
        message = (
            f"clusters are matched by the same features, got {first.shape[1]} and {second.shape[1]} of them. "
            "Cluster both layers by the same features; principal components of profiles have no counterparts"
        )
        raise InputError(message)
    if not (np.isfinite(first).all() and np.isfinite(second).all()) or not furthest > 0:
        message = (
            f"clusters are matched by finite centroids within a bound above 0, got a bound of {furthest} and "
            f"{int((~np.isfinite(first)).sum() + (~np.isfinite(second)).sum())} numbers that are not finite. "
            "Take the scaled centroids of clusterings of the same features"
        )
        raise InputError(message)
    distance = cdist(first, second) / np.sqrt(max(1, first.shape[1]))
    rows, columns = linear_sum_assignment(np.minimum(distance, furthest))
    kept = distance[rows, columns] <= furthest
    rows, columns = rows[kept].astype(np.int64), columns[kept].astype(np.int64)
    return CentroidMatching(
        rows, columns, distance[rows, columns], _others(rows, len(first)), _others(columns, len(second))
    )


def cluster_tree(labels: Mapping[int, Int[np.ndarray, "_"]]) -> tuple[Descent, ...]:
    """Which cluster of each k comes from which of the next smaller k: whether clusters split or units are dealt anew.

    Args:
        labels: clusterings of the same units, by k.

    Returns:
        One for each k but the smallest, ascending. Of equal parents the first counts; a cluster without units that
        were clustered before has parent -1 and shares nan.

    Raises:
        InputError: no clustering, or clusterings of different numbers of units.

    Example:
        >>> two, three = np.array([0, 0, 0, 1]), np.array([0, 0, 2, 1])
        >>> (step,) = cluster_tree({2: two, 3: three})
        >>> step.parent, step.share, step.kept.round(2)
        (array([0, 1, 0]), array([1., 1., 1.]), array([0.67, 1.  , 0.33]))
    """
    _same_length(labels)
    steps = []
    ks = sorted(labels)
    for before, k in pairwise(ks):
        parents = cluster_masks(labels[before]).astype(np.int64)
        children = cluster_masks(labels[k]).astype(np.int64)
        shared = children @ parents.T
        largest = shared.argmax(axis=1)
        common = np.take_along_axis(shared, largest[:, None], axis=1)[:, 0]
        none = common == 0
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(none, np.nan, common / children.sum(axis=1))
            kept = np.where(none, np.nan, common / parents.sum(axis=1)[largest])
        steps.append(Descent(k, before, np.where(none, APART, largest), share, kept))
    return tuple(steps)


def tsne(features: UnitFeatures, *, of: Literal["scaled", "raw"] = "scaled", seed: int = 0) -> Float[np.ndarray, "u 2"]:
    """Units in a plane so that neighbours stay neighbours (van der Maaten and Hinton 2008), for the eye alone.

    Distances between far groups, and sizes of groups, mean nothing. Perplexity is 30, or a third of the other units
    where there are few.

    Args:
        features: what to draw.
        of: "scaled", the features as they are clustered; or "raw", as in the original, where the feature with the
            largest numbers decides alone.
        seed: of the optimisation.

    Returns:
        Coordinates without unit; nan for units that are not clustered.

    Raises:
        InputError: fewer than 4 units to draw.

    Example:
        >>> rate = np.linspace(0, 1, 12)
        >>> tsne(features_of(rate, rate**2, rate**3)).shape
        (12, 2)
    """
    kept = features.clustered
    points = features.points if of == "scaled" else features.values[kept]
    if len(points) < _FEWEST_EMBEDDED:
        message = (
            f"t-SNE needs at least {_FEWEST_EMBEDDED} units that are neither dead nor without finite features, got "
            f"{len(points)} of {len(kept)}. Choose a layer with more units"
        )
        raise InputError(message)
    from sklearn.manifold import TSNE

    placed = np.full((len(kept), 2), np.nan)
    if not np.ptp(points, axis=0).any():
        placed[kept] = 0.0
        return placed
    # principal components, the better start, need two columns
    start = "pca" if points.shape[1] > 1 else "random"
    perplexity = min(_PERPLEXITY, (len(points) - 1) / 3)
    placed[kept] = TSNE(2, perplexity=perplexity, init=start, random_state=seed).fit_transform(points)
    return placed


def _check_columns(
    columns: Mapping[str, np.ndarray], more: Mapping[str, np.ndarray], profiles: Mapping[str, np.ndarray]
) -> None:
    lengths = {name: len(column) for name, column in {**columns, **profiles}.items()}
    if len(set(lengths.values())) > 1:
        message = (
            f"features of one layer have one number per unit, got {lengths}. Take all of them from the same layer of "
            "the same network"
        )
        raise InputError(message)
    taken = [name for name in more if name in STATISTICS] + [name for name in profiles if name in columns]
    if taken:
        message = (
            f"every feature needs a name of its own, but '{taken[0]}' is given twice ({', '.join(columns)} are taken). "
            "Rename the further one"
        )
        raise InputError(message)
    rate, variance = columns["rate"], columns["variance"]
    if (rate < 0).any() or (rate > 1).any():
        message = (
            f"rates are fractions of images, 0 to 1, got {np.nanmin(rate):g} to {np.nanmax(rate):g}. Check the order "
            "of the columns: rate, mean, variance"
        )
        raise InputError(message)
    if (variance < 0).any():
        message = (
            f"variances are 0 or more, got {np.nanmin(variance):g}. Check the order of the columns: rate, mean, "
            "variance; or compute them in float64"
        )
        raise InputError(message)


def _standardised(columns: np.ndarray) -> Float[np.ndarray, "u f"]:
    """Each column minus its mean over its population deviation; 0 where it is constant."""
    if not len(columns):
        return columns
    spread = columns.std(axis=0)
    constant = np.ptp(columns, axis=0) <= _ROUNDING * np.abs(columns).max(axis=0)
    return np.asarray(np.where(constant, 0.0, (columns - columns.mean(axis=0)) / np.where(constant, 1.0, spread)))


def _with_others(inside: np.ndarray, kept: np.ndarray, leading: np.ndarray | None = None) -> Float[np.ndarray, "u f"]:
    """Rows of the kept units among all units; the others are nan but for their `leading` columns, if known."""
    rows = np.full((len(kept), inside.shape[1]), np.nan)
    rows[kept] = inside
    if leading is not None:
        rows[:, : leading.shape[1]] = leading
    return rows


def _clusterable(features: UnitFeatures, k: int) -> Float[np.ndarray, "n f"]:
    """The points to cluster, after checking that they can be."""
    points = features.points
    units = len(features.clustered)
    if not len(points):
        dead = int(features.dead.sum())
        others = "" if dead == units else f", and {units - dead} have features that are not finite"
        message = (
            f"none of the {units} units can be clustered: {dead} are dead (rate 0 and variance 0){others}. Choose "
            "another layer, a lower threshold for the rate, or more images"
        )
        raise InputError(message)
    different = len(np.unique(points, axis=0))
    if not 2 <= k <= different:  # noqa: PLR2004 one cluster is no clustering
        message = (
            f"{k} clusters cannot be made here: k lies between 2 and the number of different units to cluster, "
            f"{different} (of {units}; {units - len(points)} are dead or not finite). "
            + (f"Choose k from 2 to {different}" if different > 1 else "Choose a layer whose units differ")
        )
        raise InputError(message)
    return points


def _clustering(
    features: UnitFeatures, labels: np.ndarray, *, k: int, order: Literal["size", "as found"]
) -> Clustering:
    points, values = features.points, features.values[features.clustered]
    sizes = np.bincount(labels, minlength=k)
    scaled_centroids, centroids = _means(points, labels, sizes), _means(values, labels, sizes)
    if order == "size":
        activity = features.names.index("mean") if "mean" in features.names else 0
        # the last key counts first; further columns only break ties, so that the order of the units plays no part
        ranked = np.lexsort((*scaled_centroids.T[::-1], -scaled_centroids[:, activity], -sizes))
        labels = np.argsort(ranked)[labels]
        sizes, scaled_centroids, centroids = sizes[ranked], scaled_centroids[ranked], centroids[ranked]
    by_unit = silhouettes(points, labels[None])[0]
    every_label = np.full(len(features.clustered), APART, dtype=np.int64)
    every_label[features.clustered] = labels
    every_silhouette = np.full(len(features.clustered), np.nan)
    every_silhouette[features.clustered] = by_unit
    return Clustering(
        labels=every_label,
        k=k,
        names=features.names,
        centroids=centroids,
        scaled_centroids=scaled_centroids,
        sizes=sizes,
        inertia=float(((points - scaled_centroids[labels]) ** 2).sum()),
        silhouette=float(by_unit.mean()),
        unit_silhouettes=every_silhouette,
    )


def _means(columns: np.ndarray, labels: np.ndarray, sizes: np.ndarray) -> Float[np.ndarray, "k f"]:
    sums = np.stack([np.bincount(labels, weights=column, minlength=len(sizes)) for column in columns.T], axis=1)
    return np.asarray(sums / sizes[:, None])


def _silhouettes(sums: np.ndarray, sizes: np.ndarray, labels: np.ndarray) -> Float[np.ndarray, "n"]:
    """Silhouettes from the summed distances of each unit to each cluster (n, k)."""
    rows = np.arange(len(labels))
    own = sizes[labels]
    within = sums[rows, labels] / np.maximum(own - 1, 1)
    means = np.where(sizes > 0, sums / np.maximum(sizes, 1), np.inf)
    means[rows, labels] = np.inf
    between = means.min(axis=1)
    larger = np.maximum(within, between)
    return np.where((own > 1) & (larger > 0), (between - within) / np.where(larger > 0, larger, 1.0), 0.0)


def _shared(first: np.ndarray, second: np.ndarray) -> Int[np.ndarray, "k m"]:
    """Units in each pair of clusters."""
    columns = int(second.max()) + 1
    counts = np.bincount(first * columns + second, minlength=(int(first.max()) + 1) * columns)
    return np.asarray(counts.reshape(-1, columns))


def _pairs(counts: ArrayLike) -> np.ndarray:
    """Pairs among so many."""
    number = np.asarray(counts, dtype=np.float64)
    return np.asarray(number * (number - 1) / 2)


def _others(matched: np.ndarray, count: int) -> tuple[int, ...]:
    return tuple(int(cluster) for cluster in np.setdiff1d(np.arange(count), matched))


def _same_length(labels: Mapping[int, np.ndarray]) -> None:
    lengths = {k: len(row) for k, row in labels.items()}
    if len(set(lengths.values())) != 1:
        message = (
            f"clusterings are compared on the same units, and there must be one; got so many units in each: {lengths}. "
            "Take clusterings of the same layer"
        )
        raise InputError(message)
