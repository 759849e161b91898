"""What guided masks do to a network: accuracies beside random masks, and how alike augmented inputs respond to them.

A table says for every image, draw of its augmentation and configuration how many classes came before the label
(`rank`, 0 where the network is right). Images are what was sampled: draws of one image are averaged first
(`image_accuracy`), and intervals come from images drawn again.

The original's two analyses compare *responses*: the accuracies of one input under all configurations of one mask
factor. Analysis A correlates the response of an augmented input with that of the plain one (`input_correlations`);
analysis B clusters all responses (`response_clusters`). Their configurations are nested (the most sensitive tenth is
among the most sensitive half), so p-values of their correlation are descriptive; intervals over images are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from scipy import special

from neuronscope.errors import InputError
from neuronscope.maths.controls import against_controls
from neuronscope.maths.ranks import labelled, midranks, normal_quantile
from neuronscope.maths.resampling import by_qvalues, mean_interval, wilson_interval
from neuronscope.maths.selectivity import class_membership

CUT = 0.025
"""Height at which the original cuts the tree of responses."""

_BLOCK = 2**22
"""Weights of images drawn at a time: 32 MiB."""

_DIGITS = 9
"""Decimals of an accuracy: equal ones stay equal when they are summed in another order."""

_FEWEST = 3  # configurations that a correlation can be of


@dataclass(frozen=True, eq=False)
class Accuracies:
    """Shares of right predictions, 0 to 1, with intervals; nan without images.

    Attributes:
        value, low, high: of each configuration, or of each class and configuration.
        images: that count, for each class or altogether.
    """

    value: Float[np.ndarray, "*s"]
    low: Float[np.ndarray, "*s"]
    high: Float[np.ndarray, "*s"]
    images: Int[np.ndarray, "..."]


@dataclass(frozen=True, eq=False)
class ControlledDifference:
    """Accuracy under guided masks minus the mean over random masks that match them, -1 to 1.

    Attributes:
        value, low, high: the difference, and its interval over images and random masks.
        p: could it be a random mask? Of `against_controls`: where it falls among the random masks, two-sided.
        q: Benjamini-Yekutieli, over all configurations given.
    """

    value: Float[np.ndarray, "c"]
    low: Float[np.ndarray, "c"]
    high: Float[np.ndarray, "c"]
    p: Float[np.ndarray, "c"]
    q: Float[np.ndarray, "c"]


@dataclass(frozen=True, eq=False)
class InputCorrelations:
    """Spearman's correlation of the responses of augmented and plain input, for each augmentation and mask factor.

    Attributes:
        value: -1 to 1; nan where one response is flat.
        low, high: interval over images.
        p: two-sided, against 0, by Student's t over configurations.
        q: Benjamini-Yekutieli, over the whole table.
        drawn: the table of each draw of images.
    """

    value: Float[np.ndarray, "a j"]
    low: Float[np.ndarray, "a j"]
    high: Float[np.ndarray, "a j"]
    p: Float[np.ndarray, "a j"]
    q: Float[np.ndarray, "a j"]
    drawn: Float[np.ndarray, "b a j"]


@dataclass(frozen=True)
class PairingGap:
    """Mean correlation of some pairs of input and mask factor minus that of all others.

    Attributes:
        value, low, high: -2 to 2, below 0 where the pairs deviate more; the interval is over images.
        p: one-sided: how often mask factors in random order give a gap as low.
    """

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, eq=False)
class ResponseClusters:
    """The tree of responses.

    Attributes:
        correlation: Spearman's, of all pairs; nan where one is flat.
        distance: `sqrt(1 - |correlation|)`, 0 to 1; 1 where there is no correlation.
        linkage: in the form of `scipy.cluster.hierarchy`: two clusters, their distance, number of responses.
        order: leaves from one end of the dendrogram to the other.
        flat: number of each response's cluster when the tree is cut, from 1.
        support: of each row of `linkage`, share of the draws of images whose tree has a cluster of the same members.
    """

    correlation: Float[np.ndarray, "i i"]
    distance: Float[np.ndarray, "i i"]
    linkage: Float[np.ndarray, "m 4"]
    order: Int[np.ndarray, "i"]
    flat: Int[np.ndarray, "i"]
    support: Float[np.ndarray, "m"]


def image_accuracy(rank: Int[np.ndarray, "n draws *c"], *, top: int = 1) -> Float32[np.ndarray, "n *c"]:
    """Share of an image's draws whose label is among the first classes, 0 to 1; nan without a label.

    Args:
        rank: classes before the label; below 0 where there is no label.
        top: how many classes count.

    Raises:
        InputError: no draw, or `top` below 1.

    Example:
        >>> image_accuracy(np.array([[[0, 3], [1, 0]], [[-1, -1], [-1, -1]]]))
        array([[0.5, 0.5],
               [nan, nan]], dtype=float32)
    """
    if rank.shape[1] == 0 or top < 1:
        message = f"{rank.shape[1]} draws and the first {top} classes: expected at least 1 of both"
        raise InputError(message)
    share = (rank < top).mean(axis=1, dtype=np.float64)
    return np.where((rank < 0).any(axis=1), np.nan, share).astype(np.float32)


def accuracies(right: Float32[np.ndarray, "n *c"], *, level: float = 0.95) -> Accuracies:
    """Accuracy over images, with Wilson's interval where images are right or wrong, Student's where they are shares.

    Args:
        right: from `image_accuracy`.
        level: coverage, between 0 and 1.

    Raises:
        InputError: the level is not between 0 and 1.

    Example:
        >>> found = accuracies(np.array([1, 1, 0, 1], dtype=np.float32))
        >>> found.value, float(found.low.round(2)), float(found.high.round(2))
        (array(0.75), 0.3, 0.95)
    """
    found = accuracies_by_class(right, np.zeros(len(right), dtype=np.int64), classes=1, level=level)
    return Accuracies(*(np.asarray(one[0]) for one in (found.value, found.low, found.high, found.images)))


def accuracies_by_class(
    right: Float32[np.ndarray, "n *c"], labels: Int[np.ndarray, "n"], *, classes: int, level: float = 0.95
) -> Accuracies:
    """As `accuracies`, of the images of each class: (classes, ...).

    Args:
        right: from `image_accuracy`.
        labels: class of each image, 0 to `classes - 1`; -1 leaves the image out.
        classes: number of classes.
        level: coverage, between 0 and 1.

    Raises:
        InputError: fewer than one class, not one label for each image, or a level not between 0 and 1.
        DataError: a label below -1 or not below `classes`.
    """
    flat, labels = labelled(right.reshape(len(right), -1), labels, classes=classes)
    known = ~np.isnan(flat).any(axis=1)
    flat, labels = flat[known].astype(np.float64), labels[known]
    membership = class_membership(labels[None], classes=classes)
    images = np.bincount(labels, minlength=classes)
    count = np.where(images > 0, images, np.nan)[:, None]
    mean = np.asarray(membership @ flat) / count
    variance = np.maximum(np.asarray(membership @ flat**2) / count - mean**2, 0.0)
    whole = np.asarray(membership @ ((flat != 0) & (flat != 1)).astype(np.float64)) == 0
    many = np.broadcast_to(images[:, None], mean.shape)
    counts = np.rint(np.nan_to_num(mean) * many).astype(np.int64)
    low, high = (one.reshape(many.shape) for one in wilson_interval(counts.ravel(), many.ravel(), level=level))
    t_low, t_high = mean_interval(mean, variance, many, level=level)
    low, high = np.where(whole, low, np.maximum(t_low, 0.0)), np.where(whole, high, np.minimum(t_high, 1.0))
    shape = (classes, *right.shape[1:])
    return Accuracies(mean.reshape(shape), low.reshape(shape), high.reshape(shape), images)


def against_random(
    right: Float32[np.ndarray, "n c"], controls: Float32[np.ndarray, "m draws c"], *, level: float = 0.95
) -> ControlledDifference:
    """How much worse (below 0) or better guided masks are than random ones with the same numbers.

    The interval is of the difference to the mean over all random masks, for images like these: its variance is that of
    the images' differences over their number and that of the random masks over theirs, its degrees of freedom those of
    Welch (1947). The p-value asks whether the guided mask could itself be a random one.

    Args:
        right: of each configuration, from `image_accuracy`.
        controls: of its random masks, on the same images.
        level: coverage, between 0 and 1.

    Returns:
        nan with fewer than two labelled images.

    Raises:
        InputError: fewer than two random masks, other images, or a level not between 0 and 1.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> right = np.zeros((50, 1), dtype=np.float32)
        >>> controls = (rng.random((50, 20, 1)) < 0.6).astype(np.float32)
        >>> found = against_random(right, controls)
        >>> found.value.round(2), bool(found.high[0] < -0.5), bool(found.p[0] < 0.001)
        (array([-0.58]), True, True)
    """
    if len(right) != len(controls):
        message = f"{len(right)} images and controls of {len(controls)}: give the same images to both"
        raise InputError(message)
    known = ~(np.isnan(right).any(axis=1) | np.isnan(controls).any(axis=(1, 2)))
    right, controls = right[known].astype(np.float64), controls[known].astype(np.float64)
    images, draws = len(right), controls.shape[1]
    if images < 2:  # noqa: PLR2004 one image has no scatter
        void = np.full(right.shape[1], np.nan)
        return ControlledDifference(void, void, void, void, void)
    among = against_controls(right.mean(axis=0), controls.mean(axis=0), level=level)
    of_images = (right - controls.mean(axis=1)).var(axis=0, ddof=1) / images
    of_masks = among.deviation**2 / draws
    both = of_images + of_masks
    freedom = both**2 / np.where(both > 0, of_images**2 / (images - 1) + of_masks**2 / (draws - 1), 1.0)
    half = np.where(both > 0, special.stdtrit(np.maximum(freedom, 1.0), (1 + level) / 2) * np.sqrt(both), 0.0)
    value = among.excess
    return ControlledDifference(
        value, np.maximum(value - half, -1.0), np.minimum(value + half, 1.0), among.p, by_qvalues(among.p)
    )


def input_correlations(
    original: Float32[np.ndarray, "n j c"],
    augmented: Float32[np.ndarray, "m a j c"],
    *,
    rng: np.random.Generator,
    draws: int = 1000,
    level: float = 0.95,
) -> InputCorrelations:
    """Analysis A: does augmented input respond to masks as plain input does?

    Accuracies of few images are noisy, and noise lowers a correlation, in each draw of images once more. So the draws'
    percentiles lie too low near 1, and the percentiles reflected at the estimate (the basic bootstrap: Davison and
    Hinkley 1997, section 5.2) lie too high elsewhere. The interval holds both: in simulations of 17 configurations
    with 200 and 2,000 images it covers the correlation of infinitely many images in 90 to 100 % of the cases.

    Args:
        original: of plain input under each mask factor and configuration, from `image_accuracy`.
        augmented: of input under each augmentation, for the same images.
        rng: source of all randomness.
        draws: number of times images are drawn again.
        level: coverage, between 0 and 1.

    Raises:
        InputError: other images, fewer than three configurations, fewer than two draws or labelled images, or a level
            not between 0 and 1.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> easy = rng.random((200, 1, 1))
        >>> plain = (easy < np.linspace(0.1, 0.9, 17)).astype(np.float32)
        >>> turned = (easy < np.linspace(0.9, 0.1, 17)).astype(np.float32)
        >>> found = input_correlations(plain, np.stack([plain, turned], axis=1), rng=rng, draws=50)
        >>> found.value.round(3)[:, 0]
        array([ 1., -1.])
    """
    normal_quantile(level)  # refuses levels outside 0 to 1
    if len(original) != len(augmented):
        message = f"{len(original)} plain and {len(augmented)} augmented images: give the same images to both"
        raise InputError(message)
    known = ~(np.isnan(original).any(axis=(1, 2)) | np.isnan(augmented).any(axis=(1, 2, 3)))
    original, augmented = original[known], augmented[known]
    _check(len(original), original.shape[-1], draws=draws)
    plain = _ranked(original.mean(axis=0, dtype=np.float64))
    value = _correlated(plain, _ranked(augmented.mean(axis=0, dtype=np.float64)))
    drawn = np.empty((draws, *value.shape))
    for rows, weights in _drawn(len(original), draws=draws, rng=rng):
        base = _ranked(_weighted(weights, original))
        for number in range(value.shape[0]):
            drawn[rows, number] = _correlated(base, _ranked(_weighted(weights, augmented[:, number])))
    low, high = _limits(value, drawn, level=level)
    freedom = original.shape[-1] - 2
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(value) * np.sqrt(freedom / np.maximum(1 - value**2, 0.0))
    p = np.where(np.isnan(value), np.nan, np.minimum(2 * special.stdtr(freedom, -t), 1.0))
    return InputCorrelations(value, low, high, p, by_qvalues(p), drawn)


def pairing_gap(
    found: InputCorrelations,
    pairs: Bool[np.ndarray, "a j"],
    *,
    rng: np.random.Generator,
    orders: int = 10_000,
    level: float = 0.95,
) -> PairingGap:
    """Whether some pairs of input and mask factor deviate most, such as those in which both are the same.

    Args:
        found: the correlations.
        pairs: true for these pairs.
        rng: source of the random orders.
        orders: number of random orders of the mask factors.
        level: coverage of the interval, between 0 and 1.

    Returns:
        nan where there is no such pair, or no other.

    Example:
        >>> value = np.array([[0.5, 0.9, 1.0], [0.9, 0.6, 1.0]])
        >>> none = np.full((2, 3), np.nan)
        >>> found = InputCorrelations(value, none, none, none, none, np.stack([value, value]))
        >>> gap = pairing_gap(found, np.eye(2, 3, dtype=bool), rng=np.random.default_rng(0))
        >>> round(gap.value, 2), round(gap.low, 2), round(gap.p, 1)
        (-0.4, -0.4, 0.2)
    """
    orders_of = np.stack([pairs, *(pairs[:, rng.permutation(pairs.shape[1])] for _ in range(orders))])
    turned = _gaps(found.value[None], orders_of)[0]
    value = turned[:1]
    low, high = _limits(value, _gaps(found.drawn, pairs[None]), level=level, most=2.0)
    reached = (turned[1:] <= value + 10.0**-_DIGITS).sum()
    p = (1 + reached) / (1 + orders) if np.isfinite(value[0]) else np.nan
    return PairingGap(float(value[0]), float(low[0]), float(high[0]), float(p))


def response_clusters(
    right: Float32[np.ndarray, "n i c"], *, rng: np.random.Generator, draws: int = 1000, cut: float = CUT
) -> ResponseClusters:
    """Analysis B: which responses resemble each other, as a tree.

    Average linkage of `sqrt(1 - |rho|)`, rho being Spearman's correlation over configurations. A flat response has no
    correlation and the distance 1 from all others. The support of a cluster is the share of the trees of redrawn
    images that have it (Felsenstein 1985); noise in accuracies of few images makes it cautious.

    Args:
        right: of each response (a pair of input and mask factor) and configuration, from `image_accuracy`.
        rng: source of all randomness.
        draws: number of times images are drawn again.
        cut: height at which the tree is cut.

    Raises:
        InputError: fewer than two responses, three configurations, two draws or two labelled images.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> bars = np.stack([np.linspace(0.1, 0.9, 8), np.linspace(0.2, 0.8, 8), np.sin(np.arange(8)) / 3 + 0.5])
        >>> right = (rng.random((400, 1, 1)) < bars).astype(np.float32)
        >>> found = response_clusters(right, rng=rng, draws=20)
        >>> found.flat, found.order, found.support
        (array([1, 1, 2], dtype=int32), array([2, 0, 1], dtype=int32), array([1., 1.]))
    """
    from scipy.cluster import hierarchy

    known = ~np.isnan(right).any(axis=(1, 2))
    right = right[known]
    responses = right.shape[1]
    _check(len(right), right.shape[2], draws=draws)
    if responses < 2:  # noqa: PLR2004 a tree joins at least two
        message = f"{responses} response: expected at least 2, which could resemble each other"
        raise InputError(message)
    correlation = _all_correlated(right.mean(axis=0, dtype=np.float64)[None])[0]
    distance = _distance(correlation)
    linkage = hierarchy.linkage(_condensed(distance), method="average")
    members = _members(linkage, responses)
    found = np.zeros(len(members))
    for _, weights in _drawn(len(right), draws=draws, rng=rng):
        for own in _all_correlated(_weighted(weights, right)):
            tree = hierarchy.linkage(_condensed(_distance(own)), method="average")
            again = set(_members(tree, responses))
            found += [one in again for one in members]
    return ResponseClusters(
        correlation=correlation,
        distance=distance,
        linkage=linkage,
        order=hierarchy.leaves_list(linkage),
        flat=hierarchy.fcluster(linkage, t=cut, criterion="distance"),
        support=found / draws,
    )


def _check(images: int, configurations: int, *, draws: int) -> None:
    """Refuse what has no correlation or no scatter.

    Raises:
        InputError: with what there is too little of.
    """
    if images < 2 or configurations < _FEWEST or draws < 2:  # noqa: PLR2004 a scatter needs two
        message = (
            f"{images} labelled images, {configurations} configurations and {draws} draws: expected at least 2 images, "
            f"{_FEWEST} configurations and 2 draws"
        )
        raise InputError(message)


def _drawn(images: int, *, draws: int, rng: np.random.Generator) -> Iterator[tuple[slice, Float[np.ndarray, "b n"]]]:
    """How often each image is drawn, as shares, in blocks of draws whose size does not change them."""
    size = max(1, _BLOCK // images)
    for first in range(0, draws, size):
        count = min(size, draws - first)
        picks = rng.integers(0, images, size=(count, images)) + images * np.arange(count)[:, None]
        often = np.bincount(picks.ravel(), minlength=count * images).reshape(count, images)
        yield slice(first, first + count), often / images


def _weighted(weights: Float[np.ndarray, "b n"], right: Float32[np.ndarray, "n *s"]) -> Float[np.ndarray, "b *s"]:
    flat = right.reshape(len(right), -1).astype(np.float64)
    return np.asarray((weights @ flat).reshape(len(weights), *right.shape[1:]))


def _ranked(accuracy: Float[np.ndarray, "*s c"]) -> Float[np.ndarray, "*s c"]:
    """Midranks over configurations, centred and of unit length; nan where all are equal."""
    ranks = midranks(accuracy.round(_DIGITS).reshape(-1, accuracy.shape[-1]).T).T
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    length = np.sqrt((centred**2).sum(axis=1, keepdims=True))
    return np.asarray((centred / np.where(length > 0, length, np.nan)).reshape(accuracy.shape))


def _correlated(first: Float[np.ndarray, "..."], second: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return np.asarray(np.clip((first * second).sum(axis=-1), -1.0, 1.0))


def _all_correlated(accuracy: Float[np.ndarray, "b i c"]) -> Float[np.ndarray, "b i i"]:
    ranked = _ranked(accuracy)
    return np.asarray(np.clip(ranked @ ranked.swapaxes(1, 2), -1.0, 1.0))


def _distance(correlation: Float[np.ndarray, "i i"]) -> Float[np.ndarray, "i i"]:
    distance = np.asarray(np.sqrt(1 - np.abs(np.nan_to_num(correlation, nan=0.0))))
    np.fill_diagonal(distance, 0.0)
    return distance


def _condensed(distance: Float[np.ndarray, "i i"]) -> Float[np.ndarray, "p"]:
    return np.asarray(distance[np.triu_indices(len(distance), k=1)])


def _members(linkage: Float[np.ndarray, "m 4"], leaves: int) -> list[frozenset[int]]:
    """The leaves below each join."""
    below: list[frozenset[int]] = [frozenset([leaf]) for leaf in range(leaves)]
    for left, right in linkage[:, :2].astype(int):
        below.append(below[left] | below[right])
    return below[leaves:]


def _gaps(correlation: Float[np.ndarray, "b a j"], pairs: Bool[np.ndarray, "m a j"]) -> Float[np.ndarray, "b m"]:
    """Mean over each set of pairs minus mean over the others, of what is known; nan where either is empty."""
    values, chosen = correlation.reshape(len(correlation), -1), pairs.reshape(len(pairs), -1)
    there = ~np.isnan(values)

    def mean(own: Bool[np.ndarray, "m p"]) -> Float[np.ndarray, "b m"]:
        weights = own.T.astype(np.float64)
        count = there.astype(np.float64) @ weights
        return np.asarray(np.where(there, values, 0.0) @ weights / np.where(count > 0, count, np.nan))

    return np.asarray(mean(chosen) - mean(~chosen))


def _limits(
    value: Float[np.ndarray, "*s"], drawn: Float[np.ndarray, "b *s"], *, level: float, most: float = 1.0
) -> tuple[Float[np.ndarray, "*s"], Float[np.ndarray, "*s"]]:
    """Percentiles of the draws, and the same reflected at the estimate: the outer ones, within `-most` to `most`."""
    flat = drawn.reshape(len(drawn), -1)
    ends = np.full((2, flat.shape[1]), np.nan)
    for place, column in enumerate(flat.T):
        there = column[~np.isnan(column)]
        if len(there):
            ends[:, place] = np.quantile(there, ((1 - level) / 2, (1 + level) / 2))
    low, high = ends.reshape(2, *drawn.shape[1:])
    outer_low, outer_high = np.minimum(low, 2 * value - high), np.maximum(high, 2 * value - low)
    return np.asarray(np.maximum(outer_low, -most)), np.asarray(np.minimum(outer_high, most))
