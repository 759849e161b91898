"""How many clusters do the units of a layer form, and do they form any?

k-means returns k clusters from a shapeless cloud as willingly as from k groups. `choose_k` therefore holds every k
against clouds without groups that are otherwise like the units (the null), and answers 1 when no k does better. For the
others it shows the three usual measures: mean silhouette, gap statistic, and how far memberships repeat when the units
are drawn again (stability) or the random starts change (seed stability).

What "without groups" means is a choice, and the answer hangs on it. `null="unimodal"` asks whether there is more than
one lump of any shape, skewed and heavy-tailed as activation statistics are; `null="gaussian"` whether the units are
other than normally distributed, which skewed units always are; `null="permutation"` whether the features hang together
otherwise than by chance, which any correlation shows and groups along a single feature do not.

What none of them can tell from groups is a bent continuum, units along a curve as rate, mean and variance may be: cut
into many pieces it looks better than a lump. And a group of a few units far out is hard to tell from a heavy tail.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int
from scipy import special, stats

from neuronscope.errors import InputError, UnknownName, nearest
from neuronscope.maths.clustering import APART, Clustering, UnitFeatures, adjusted_rand, silhouettes

Null = Literal["unimodal", "gaussian", "permutation"]
"""Clouds without groups: one lump with the units' own tails, one normal distribution, or unrelated features."""

_MODES = 33
"""Places tried for the mode of a feature: its quantiles at equal steps."""

_UNSTABLE = 0.8
"""Adjusted Rand index below which memberships do not repeat well enough to build on."""

_IN_WORDS = {
    "unimodal": "one lump with the same skew, tails and correlations",
    "gaussian": "one normal distribution with the same covariance",
    "permutation": "the same features dealt to the units at random",
}


@dataclass(frozen=True)
class ChoiceOfK:
    """Measures of every number of clusters tried, and the number chosen.

    Attributes:
        ks: numbers of clusters.
        silhouette: mean silhouette of the units (-1 to 1).
        null_mean: what it is on average where there are no groups.
        null_high: what it exceeds there in 5 % of the draws.
        gap: log inertia of units spread evenly over a box, minus that of the units (Tibshirani et al. 2001).
        gap_se: its standard error, from the draws of the box.
        gap_of_one: the gap for a single cluster.
        gap_of_one_se: its standard error.
        stability_mean: mean adjusted Rand index between clusterings of units drawn again with replacement, over all
            pairs of draws, on the units that both have; nan where no two draws have k different units.
        stability_low: what 5 % of the pairs stay below.
        stability_high: what 5 % exceed.
        seed_stability: the same mean between clusterings of all units from different random starts.
        p: chance of a silhouette that stands out as much for any of the k if there were no groups (corrected over k).
        p_gap: the same for the fall in log inertia from one cluster to k.
        chosen: of the k with `p` at most `alpha`, the one with the highest silhouette; 1 where there is none.
        by_gap: the smallest k whose gap is within a standard error of the next one's, 1 included.
        null: what was taken for "no groups".
        draws: clouds drawn.
        alpha: level of the decision.
        reason: the choice in words.
    """

    ks: Int[np.ndarray, "k"]
    silhouette: Float[np.ndarray, "k"]
    null_mean: Float[np.ndarray, "k"]
    null_high: Float[np.ndarray, "k"]
    gap: Float[np.ndarray, "k"]
    gap_se: Float[np.ndarray, "k"]
    gap_of_one: float
    gap_of_one_se: float
    stability_mean: Float[np.ndarray, "k"]
    stability_low: Float[np.ndarray, "k"]
    stability_high: Float[np.ndarray, "k"]
    seed_stability: Float[np.ndarray, "k"]
    p: Float[np.ndarray, "k"]
    p_gap: Float[np.ndarray, "k"]
    chosen: int
    by_gap: int
    null: str
    draws: int
    alpha: float
    reason: str


@dataclass(frozen=True)
class GapStatistic:
    """The gap statistic for 1 cluster and more.

    Attributes:
        gap: for each k, 1 first.
        error: its standard error, `deviation sqrt(1 + 1 / draws)`.
        chosen: the smallest k with `gap(k) >= gap(next k) - error(next k)`; the largest k if there is none.
    """

    gap: Float[np.ndarray, "k"]
    error: Float[np.ndarray, "k"]
    chosen: int


@dataclass(frozen=True)
class Stability:
    """How far memberships repeat, as adjusted Rand indices between pairs of clusterings.

    Attributes:
        mean: over all pairs (1: always the same groups; 0: as by chance).
        low: what 5 % of the pairs stay below.
        high: what 5 % of the pairs exceed.
        smallest: the least of all pairs.
    """

    mean: float
    low: float
    high: float
    smallest: float


def choose_k(
    features: UnitFeatures,
    ks: Sequence[int] = tuple(range(2, 9)),
    *,
    rng: np.random.Generator,
    null: str = "unimodal",
    draws: int = 100,
    references: int = 50,
    bootstraps: int = 20,
    seeds: int = 10,
    n_init: int = 20,
    null_init: int = 3,
    alpha: float = 0.05,
    clusterings: Mapping[int, Clustering] | None = None,
) -> ChoiceOfK:
    """The number of clusters that stands out most from a cloud without groups, or 1 if none does.

    For each k, the silhouette is put on the scale of the null (mean and deviation over the draws and the units
    together); the p-value of a k counts the draws whose best k stands out at least as much (Westfall and Young's
    max-T, 1993; Phipson and Smyth's (1 + reached) / (1 + draws)). Units and null are clustered with equally many
    random starts. Beating the null says that the units are not one such lump; it does not say that groups are
    separate, for which see the silhouette and the stability.

    About 1,000 units, k 2 to 8 and 100 draws take 5 to 10 s on one core; the time for silhouettes grows with the square
    of the units.

    Args:
        features: what to cluster by.
        ks: numbers of clusters to try, ascending; those above the number of different units are refused.
        rng: source of all randomness.
        null: what "no groups" means, one of `Null`: see the top of this module.
        draws: clouds without groups.
        references: even clouds for the gap statistic.
        bootstraps: times that units are drawn again for the stability.
        seeds: random starts compared for the seed stability.
        n_init: starts of each clustering of the units.
        null_init: starts of each clustering that is held against a null.
        alpha: level at which a k beats the null, all k together.
        clusterings: of the units, by k, whose silhouettes decide between those k that beat the null; None makes some.

    Raises:
        UnknownName: no such null.
        InputError: no unit to cluster, a k below 2 or above the number of different units, k not ascending, too few
            draws to reach `alpha`, or fewer than two references, bootstraps or seeds.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> from neuronscope.maths.clustering import features_of
        >>> rate = np.concatenate([rng.uniform(0, 0.2, 30), rng.uniform(0.8, 1, 30)])
        >>> mean = rate + rng.normal(scale=0.05, size=60)
        >>> found = choose_k(features_of(rate, mean, mean**2), (2, 3), rng=rng, draws=39, bootstraps=3, seeds=3)
        >>> found.chosen
        2
    """
    points = _checked(
        features,
        ks,
        null=null,
        draws=draws,
        alpha=alpha,
        counts=(references, bootstraps, seeds),
        starts=(n_init, null_init),
    )
    streams = dict(zip(("units", "null", "gap", "bootstrap", "seeds"), rng.spawn(5), strict=True))
    if clusterings is None:
        labels = np.stack([_labels(points, k, starts=n_init, rng=streams["units"]) for k in ks])
        observed = silhouettes(points, labels).mean(axis=1)
    else:
        observed = np.array([clusterings[k].silhouette for k in ks])
    plain = _measured(points, ks, starts=null_init, rng=streams["units"])
    clouds = null_clouds(points, null=null, draws=draws, rng=streams["null"])
    measured = np.stack([_measured(cloud, ks, starts=null_init, rng=streams["null"]) for cloud in clouds])
    p, p_gap = (_corrected(plain[row], measured[:, row]) for row in (0, 1))
    gap = gap_statistic(points, ks, references=references, starts=null_init, rng=streams["gap"])
    repeats = [
        bootstrap_stability(points, k, bootstraps=bootstraps, n_init=n_init, rng=stream)
        for k, stream in zip(ks, streams["bootstrap"].spawn(len(ks)), strict=True)
    ]
    restarts = [
        seed_stability(points, k, seeds=seeds, n_init=n_init, rng=stream)
        for k, stream in zip(ks, streams["seeds"].spawn(len(ks)), strict=True)
    ]
    best = int(np.argmax(np.where(p <= alpha, observed, -np.inf)))
    chosen = int(ks[best]) if p[best] <= alpha else 1
    return ChoiceOfK(
        ks=np.asarray(ks, dtype=np.int64),
        silhouette=observed,
        null_mean=measured[:, 0].mean(axis=0),
        null_high=np.quantile(measured[:, 0], 0.95, axis=0),
        gap=gap.gap[1:],
        gap_se=gap.error[1:],
        gap_of_one=float(gap.gap[0]),
        gap_of_one_se=float(gap.error[0]),
        stability_mean=np.array([found.mean for found in repeats]),
        stability_low=np.array([found.low for found in repeats]),
        stability_high=np.array([found.high for found in repeats]),
        seed_stability=np.array([found.mean for found in restarts]),
        p=p,
        p_gap=p_gap,
        chosen=chosen,
        by_gap=gap.chosen,
        null=null,
        draws=draws,
        alpha=alpha,
        reason=_reason(
            ks, chosen, silhouette=observed, p=p, null=null, alpha=alpha, repeats=repeats, restarts=restarts, gap=gap
        ),
    )


def gap_statistic(
    points: Float[np.ndarray, "n f"],
    ks: Sequence[int],
    *,
    references: int = 50,
    starts: int = 3,
    rng: np.random.Generator,
) -> GapStatistic:
    """How much more compact the clusters are than those of points spread evenly over a box.

    `gap(k) = mean log W_ref(k) - log W(k)` with `W` the inertia and the box along the principal components (Tibshirani,
    Walther and Hastie 2001, 2b). The gap for 1 cluster is computed as well, so that the rule can answer 1. It is no
    test: skewed clouds without groups often get 2 and more.

    Args:
        points: features on a common scale.
        ks: numbers of clusters from 2 on, ascending.
        references: boxes drawn.
        starts: random starts of every clustering.
        rng: source of all randomness.

    Example:
        >>> points = np.repeat([[0.0], [9.0]], 20, axis=0) + np.linspace(0, 1, 40)[:, None]
        >>> gap_statistic(points, (2, 3), rng=np.random.default_rng(0)).chosen
        2
    """
    centred = points - points.mean(axis=0)
    right = np.linalg.svd(centred, full_matrices=False)[2]
    turned = centred @ right.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    observed = _log_inertias(turned, ks, starts=starts, rng=rng)
    boxes = np.stack(
        [
            _log_inertias(rng.uniform(low, high, size=turned.shape), ks, starts=starts, rng=rng)
            for _ in range(references)
        ]
    )
    gap = boxes.mean(axis=0) - observed
    error = boxes.std(axis=0) * np.sqrt(1 + 1 / references)
    enough = np.flatnonzero(gap[:-1] >= gap[1:] - error[1:])
    every = (1, *ks)
    return GapStatistic(gap, error, int(every[enough[0]] if enough.size else every[-1]))


def bootstrap_stability(
    points: Float[np.ndarray, "n f"],
    k: int,
    *,
    bootstraps: int = 20,
    n_init: int = 20,
    rng: np.random.Generator,
) -> Stability:
    """How far memberships repeat when the units are drawn again with replacement.

    Each draw is clustered anew; every two draws are compared by the adjusted Rand index on the units that both have
    (Ben-Hur, Elisseeff and Guyon 2002, with bootstraps for subsamples). Draws with fewer than `k` different units are
    left out. `low` and `high` describe the pairs; they are no confidence limits.

    Args:
        points: features on a common scale.
        k: number of clusters.
        bootstraps: draws.
        n_init: random starts of each clustering.
        rng: source of all randomness.

    Returns:
        nan where fewer than two draws remain.

    Example:
        >>> points = np.repeat([[0.0], [9.0]], 20, axis=0) + np.linspace(0, 1, 40)[:, None]
        >>> bootstrap_stability(points, 2, bootstraps=4, rng=np.random.default_rng(0)).mean
        1.0
    """
    drawn = []
    for _ in range(bootstraps):
        units = rng.integers(len(points), size=len(points))
        sample = points[units]
        if len(np.unique(sample, axis=0)) < k:
            continue
        labels = np.full(len(points), APART, dtype=np.int64)
        labels[units] = _labels(sample, k, starts=n_init, rng=rng)
        drawn.append(labels)
    return _agreement(drawn)


def seed_stability(
    points: Float[np.ndarray, "n f"], k: int, *, seeds: int = 10, n_init: int = 20, rng: np.random.Generator
) -> Stability:
    """How far memberships repeat when only the random starts of k-means change.

    Below 1, k-means did not find the least inertia every time: more starts help, unless several divisions are nearly
    as good.

    Args:
        points: features on a common scale.
        k: number of clusters.
        seeds: clusterings compared.
        n_init: random starts of each.
        rng: source of all randomness.

    Example:
        >>> points = np.repeat([[0.0], [9.0]], 20, axis=0) + np.linspace(0, 1, 40)[:, None]
        >>> seed_stability(points, 2, seeds=3, rng=np.random.default_rng(0)).smallest
        1.0
    """
    return _agreement([_labels(points, k, starts=n_init, rng=rng) for _ in range(seeds)])


def null_clouds(
    points: Float[np.ndarray, "n f"], *, null: str = "unimodal", draws: int, rng: np.random.Generator
) -> Float[np.ndarray, "draws n f"]:
    """Clouds without groups that are like the units otherwise.

    - "unimodal": each feature follows the distribution with one mode that is nearest to its own (Grenander's estimate,
      1956, rising to the mode and falling from it, at the mode with the least Kolmogorov distance; a pile of equal
      values may stand at the mode), and features are tied as a normal distribution with the same rank correlations
      would tie them (a Gaussian copula on normal scores).
    - "gaussian": one normal distribution with the same mean and covariance.
    - "permutation": each feature keeps its values, dealt to the units at random.

    Args:
        points: features on a common scale.
        null: which kind, one of `Null`.
        draws: number of clouds.
        rng: source of all randomness.

    Raises:
        UnknownName: no such null.

    Example:
        >>> points = np.random.default_rng(0).normal(size=(50, 2))
        >>> null_clouds(points, draws=3, rng=np.random.default_rng(1)).shape
        (3, 50, 2)
    """
    _check_null(null)
    units, width = points.shape
    if null == "permutation":
        return np.asarray(rng.permuted(np.repeat(points[None], draws, axis=0), axis=1))
    if null == "gaussian":
        mean = points.mean(axis=0)
        return np.asarray(mean + rng.normal(size=(draws, units, width)) @ _root(np.cov(points, rowvar=False, ddof=0)))
    scores = special.ndtri(stats.rankdata(points, axis=0) / (units + 1))
    deviation = scores.std(axis=0)
    scores = (scores - scores.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    tied = rng.normal(size=(draws, units, width)) @ _root(scores.T @ scores / units)
    places = special.ndtr(tied)
    clouds = np.empty((draws, units, width))
    for column in range(width):
        knots, heights = _unimodal(points[:, column])
        clouds[:, :, column] = np.interp(places[:, :, column], heights, knots)
    return clouds


def _checked(
    features: UnitFeatures,
    ks: Sequence[int],
    *,
    null: str,
    draws: int,
    alpha: float,
    counts: tuple[int, int, int],
    starts: tuple[int, int],
) -> Float[np.ndarray, "n f"]:
    _check_null(null)
    points = features.points
    different = len(np.unique(points, axis=0)) if len(points) else 0
    if not len(ks) or list(ks) != sorted(set(ks)) or ks[0] < 2 or ks[-1] > different:  # noqa: PLR2004 1 is the null
        message = (
            f"numbers of clusters ascend from 2 on to at most the number of different units that can be clustered, "
            f"{different} (of {len(features.clustered)}, {int(features.dead.sum())} dead), got {list(ks)}. "
            + (f"Try 2 to {min(8, different)}" if different > 1 else "Choose a layer whose units differ")
        )
        raise InputError(message)
    if min(counts) < 2 or min(starts) < 1:  # noqa: PLR2004 a comparison needs two
        message = (
            f"at least 2 references, bootstraps and seeds, and 1 random start are needed, got {counts} and {starts}; "
            "50, 20, 10 and 20 starts (3 for the null) are usual"
        )
        raise InputError(message)
    if not 0 < alpha < 1 or (1 + draws) * alpha < 1:
        message = (
            f"with {draws} draws no p-value is below {1 / (1 + max(0, draws)):.3g}, so that nothing could beat the "
            f"null at {alpha}; give alpha between 0 and 1 and at least 1 / alpha - 1 draws (100 for 0.05)"
        )
        raise InputError(message)
    return points


def _check_null(null: str) -> None:
    if null not in get_args(Null):
        message = f"there is no null '{null}'.{nearest(null, get_args(Null))} Known: {', '.join(get_args(Null))}"
        raise UnknownName(message)


def _labels(points: np.ndarray, k: int, *, starts: int, rng: np.random.Generator) -> Int[np.ndarray, "n"]:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # a cloud may have fewer different points than k; its clusters are then fewer, which is what is measured
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = KMeans(k, n_init=starts, random_state=int(rng.integers(2**31))).fit(points)
    return np.asarray(fitted.labels_, dtype=np.int64)


def _inertia(points: np.ndarray, labels: np.ndarray) -> float:
    """Sum of squared distances from the centroids: of the whole minus that between centroids, weighted by size."""
    sizes = np.bincount(labels)
    sums = np.stack([np.bincount(labels, weights=column) for column in points.T], axis=1)
    return float(((points - (sums / np.maximum(sizes, 1)[:, None])[labels]) ** 2).sum())


def _log(inertia: float) -> float:
    """The logarithm, finite where the clusters are points."""
    return float(np.log(max(inertia, np.finfo(np.float64).tiny)))


def _log_inertias(
    points: np.ndarray, ks: Sequence[int], *, starts: int, rng: np.random.Generator
) -> Float[np.ndarray, "k"]:
    """Log inertia of one cluster, then of each k."""
    one = _inertia(points, np.zeros(len(points), dtype=np.int64))
    return np.array([_log(one), *(_log(_inertia(points, _labels(points, k, starts=starts, rng=rng))) for k in ks)])


def _measured(
    points: np.ndarray, ks: Sequence[int], *, starts: int, rng: np.random.Generator
) -> Float[np.ndarray, "2 k"]:
    """Mean silhouette, and fall of the log inertia from one cluster, for each k."""
    labels = np.stack([_labels(points, k, starts=starts, rng=rng) for k in ks])
    one = _log(_inertia(points, np.zeros(len(points), dtype=np.int64)))
    fall = [one - _log(_inertia(points, row)) for row in labels]
    # a cloud of one point has no silhouette: nothing stands out
    return np.stack([np.nan_to_num(silhouettes(points, labels).mean(axis=1)), np.array(fall)])


def _corrected(observed: np.ndarray, drawn: np.ndarray) -> Float[np.ndarray, "k"]:
    """p-value of each k, corrected over all k by the largest standardised value of each draw."""
    every = np.concatenate([observed[None], drawn])
    deviation = every.std(axis=0)
    standing = (every - every.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    largest = standing[1:].max(axis=1)
    return np.asarray((1 + (largest[:, None] >= standing[0]).sum(axis=0)) / (1 + len(drawn)))


def _agreement(clusterings: Sequence[np.ndarray]) -> Stability:
    pairs = np.array([adjusted_rand(one, other) for one, other in combinations(clusterings, 2)])
    pairs = pairs[~np.isnan(pairs)]
    if not pairs.size:
        return Stability(np.nan, np.nan, np.nan, np.nan)
    low, high = np.quantile(pairs, (0.05, 0.95))
    return Stability(float(pairs.mean()), float(low), float(high), float(pairs.min()))


def _root(covariance: np.ndarray) -> Float[np.ndarray, "f f"]:
    """A matrix that gives independent normal rows this covariance; also where it is singular."""
    values, vectors = np.linalg.eigh(np.atleast_2d(covariance))
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))).T)


def _unimodal(column: np.ndarray) -> tuple[Float[np.ndarray, "m"], Float[np.ndarray, "m"]]:
    """The nearest distribution with one mode: places, and the share of units up to each, linear in between."""
    places, counts = np.unique(column, return_counts=True)
    upto = np.cumsum(counts) / len(column)
    below = upto - counts / len(column)
    modes = np.unique(np.searchsorted(places, np.quantile(column, np.linspace(0, 1, _MODES), method="nearest")))
    best, least = (places, upto), np.inf
    for mode in modes:
        # the rising side is the falling side of the mirrored values
        mirrored, above = _falling(-places[mode::-1], 1 - below[mode::-1])
        right, shares = _falling(places[mode:], upto[mode:])
        knots, heights = np.concatenate([-mirrored[::-1], right]), np.concatenate([1 - above[::-1], shares])
        distance = max(
            np.abs(np.interp(places[mode:], right, shares) - upto[mode:]).max(),
            np.abs(np.interp(-places[mode::-1], mirrored, above) - (1 - below[mode::-1])).max(),
        )
        if distance < least:
            best, least = (knots, heights), distance
    return best


def _falling(places: np.ndarray, upto: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the least concave function above a distribution function: its slopes, the density, only fall."""
    kept: list[int] = []
    for new in range(len(places)):
        while len(kept) > 1:
            before, last = kept[-2], kept[-1]
            rise = (upto[last] - upto[before]) * (places[new] - places[last])
            if rise > (upto[new] - upto[last]) * (places[last] - places[before]):
                break
            kept.pop()
        kept.append(new)
    return places[kept], upto[kept]


def _reason(
    ks: Sequence[int],
    chosen: int,
    *,
    silhouette: np.ndarray,
    p: np.ndarray,
    null: str,
    alpha: float,
    repeats: Sequence[Stability],
    restarts: Sequence[Stability],
    gap: GapStatistic,
) -> str:
    if chosen == 1:
        best = int(np.argmin(p))
        return (
            f"No clusters: no k from {ks[0]} to {ks[-1]} has a silhouette that {_IN_WORDS[null]} would not give. "
            f"Nearest: k = {ks[best]}, silhouette {silhouette[best]:.2f}, p = {p[best]:.2g} over all k."
        )
    row = list(ks).index(chosen)
    beating = [str(k) for k, chance in zip(ks, p, strict=True) if chance <= alpha]
    repeat = repeats[row].mean
    text = (
        f"k = {chosen} has the highest silhouette ({silhouette[row]:.2f}) of the k that beat {_IN_WORDS[null]} "
        f"({', '.join(beating)}; p = {p[row]:.2g} over all k). Memberships repeat at an adjusted Rand index of "
        f"{repeat:.2f} over bootstraps and {restarts[row].mean:.2f} over seeds; the gap statistic says {gap.chosen}."
    )
    if not repeat >= _UNSTABLE:
        text += " Memberships of single units are not to be relied on."
    if chosen == ks[-1] and len(ks) > 1:
        text += " It is the largest k tried, as where a continuum is cut into ever more pieces."
    return text
