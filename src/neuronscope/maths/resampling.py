"""What a statistic is worth: its null distribution, its interval, and how many such findings chance alone brings.

Indices that pick the best of many classes are above zero for pure noise, the more so the fewer the images. Here are
four answers: a permutation null (what would the index be if the labels meant nothing?), a split-half estimate (choose
the class on one half of the images, measure on the other), bootstrap intervals, and q-values over all units tested.

Statistics are functions from class means (..., c) to (...), such as `selectivity.class_selectivity_index`. All draws
of a block are computed by one sparse or dense matrix product. Every random number comes from the generator passed in,
and neither the block sizes nor the number of units changes what it draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from neuronscope.errors import InputError
from neuronscope.maths.ranks import labelled, normal_quantile, unit_blocks
from neuronscope.maths.selectivity import class_membership, constant_units

Statistic = Callable[[np.ndarray], np.ndarray]
"""From class means (..., c) to one number each (...)."""

_BLOCK = 2**22
"""Class means held at a time (numbers of 8 bytes): 32 MiB, a few times over while a statistic works on them."""

_UNITS = 512
"""Units summed at a time in a permutation null: their scores of 2,000 images are 8 MiB."""

_ROUNDING = 1e-12
"""A draw that equals the observed value but for rounding counts as reaching it."""


@dataclass(frozen=True)
class PermutationNull:
    """A statistic beside what it would be if the labels meant nothing.

    Attributes:
        observed: the statistic with the true labels.
        mean: mean of the statistic over permuted labels: the noise floor.
        deviation: its standard deviation over permuted labels (divided by draws - 1; nan for one draw).
        p: one-sided p-value, `(1 + draws that reach the observed value) / (1 + draws)`.
    """

    observed: Float[np.ndarray, "u"]
    mean: Float[np.ndarray, "u"]
    deviation: Float[np.ndarray, "u"]
    p: Float[np.ndarray, "u"]

    @property
    def excess(self) -> Float[np.ndarray, "u"]:
        """The statistic above its noise floor (about 0 for noise)."""
        return np.asarray(self.observed - self.mean)


@dataclass(frozen=True)
class SplitHalf:
    """Selectivity measured on images that had no say in choosing the class.

    Attributes:
        index: class selectivity index without its noise floor (-1 to 1, about 0 for noise).
        reliability: how well the class means of all images would repeat on as many new ones (-1 to 1).
        agreement: share of the splits whose two halves prefer the same class (0 to 1).
    """

    index: Float[np.ndarray, "u"]
    reliability: Float[np.ndarray, "u"]
    agreement: Float[np.ndarray, "u"]


def bh_qvalues(p: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
    """Benjamini-Hochberg q-values: the smallest false discovery rate at which each finding would be reported.

    `q_(i) = min over j >= i of m p_(j) / j` for the `m` sorted p-values, at most 1 (Benjamini and Hochberg 1995).
    Holds for independent tests and for those that go up together. All axes are one family.

    Args:
        p: p-values; nan marks what was not tested and stays nan without counting in `m`.

    Raises:
        InputError: a p-value below 0 or above 1.

    Example:
        >>> bh_qvalues(np.array([0.01, 0.5, 0.02, np.nan]))
        array([0.03, 0.5 , 0.03,  nan])
    """
    return _step_up(p, weight=1.0)


def by_qvalues(p: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
    """Benjamini-Yekutieli q-values: as `bh_qvalues`, valid under any dependence, and larger by the sum of 1/i.

    Source: Benjamini and Yekutieli (2001), theorem 1.3.

    Raises:
        InputError: a p-value below 0 or above 1.

    Example:
        >>> by_qvalues(np.array([0.01, 0.5, 0.02])).round(3)
        array([0.055, 0.917, 0.055])
    """
    tested = int((~np.isnan(p)).sum())
    return _step_up(p, weight=float((1 / np.arange(1, tested + 1)).sum()))


def permuted_labels(
    labels: Int[np.ndarray, "n"], *, draws: int, rng: np.random.Generator
) -> Int[np.ndarray, "{draws} n"]:
    """The labels in random order, `draws` times; images left out (-1) stay where they are.

    Example:
        >>> permuted_labels(np.array([0, -1, 0]), draws=2, rng=np.random.default_rng(0))
        array([[ 0, -1,  0],
               [ 0, -1,  0]])
    """
    _at_least(draws, 1, "draws")
    permuted = np.tile(labels, (draws, 1))
    kept = np.flatnonzero(labels >= 0)
    permuted[:, kept] = rng.permuted(permuted[:, kept], axis=1)
    return permuted


def permutation_null(
    scores: Float[np.ndarray, "n u"],
    labels: Int[np.ndarray, "n"],
    *,
    classes: int,
    statistic: Statistic,
    draws: int,
    rng: np.random.Generator,
) -> PermutationNull:
    """Where a statistic of the class means stands in its null distribution, with labels permuted over the images.

    The p-value counts the observed labelling among the draws (Phipson and Smyth 2010), so it is never 0 and its
    smallest value is `1 / (draws + 1)`. For a q-value below 0.05 with `k` findings among `m` units, take at least
    `20 m / k` draws. All units see the same permutations, so their dependence is kept.

    Args:
        scores: one activation per image and unit.
        labels: class of each image, 0 to `classes - 1`; -1 leaves the image out.
        classes: number of classes; the statistic sees the means of those that have images.
        statistic: from class means (..., c) to (...); large values are the findings.
        draws: number of permutations.
        rng: source of all randomness.

    Returns:
        nan for constant units, units with a score that is not finite, and units for which the statistic is nan.

    Raises:
        InputError: fewer than one draw or class, or not one label per image.
        DataError: a label below -1 or not below `classes`.

    Example:
        >>> from neuronscope.maths.selectivity import class_selectivity_index
        >>> rng = np.random.default_rng(0)
        >>> scores, labels = rng.random((60, 2)), np.repeat(np.arange(3), 20)
        >>> scores[labels == 1, 0] += 1.0
        >>> null = permutation_null(
        ...     scores, labels, classes=3, statistic=class_selectivity_index, draws=99, rng=rng
        ... )
        >>> null.p[0], bool(null.p[1] > 0.05)
        (np.float64(0.01), True)
    """
    nulls = permutation_nulls(scores, labels, classes=classes, statistics={"": statistic}, draws=draws, rng=rng)
    return nulls[""]


def permutation_nulls(
    scores: Float[np.ndarray, "n u"],
    labels: Int[np.ndarray, "n"],
    *,
    classes: int,
    statistics: Mapping[str, Statistic],
    draws: int,
    rng: np.random.Generator,
) -> dict[str, PermutationNull]:
    """Several statistics over the same permutations, as `permutation_null`: the costly class means come once."""
    _at_least(draws, 1, "draws")
    scores, labels = labelled(scores, labels, classes=classes)
    present, labels = np.unique(labels, return_inverse=True)
    counts = np.bincount(labels, minlength=len(present))
    units = scores.shape[1]

    def means(labellings: np.ndarray, block: slice) -> np.ndarray:
        membership = class_membership(labellings, classes=len(present))
        sums = membership @ scores[:, block].astype(np.float64)
        return np.moveaxis(sums.reshape(len(labellings), len(present), -1) / counts[:, None], 1, -1)

    tallies = {name: _Tally.empty(units) for name in statistics}
    blocks = list(unit_blocks(units, images=1, elements=_UNITS)) if len(labels) else []
    with np.errstate(invalid="ignore"):  # infinite scores; their units are struck out below
        for block in blocks:
            own = means(labels[None], block)
            for name, statistic in statistics.items():
                tallies[name].observed[block] = statistic(own)[0]
        done = 0
        most = max(1, _BLOCK // max(len(labels), len(present) * min(units, _UNITS), 1))
        while blocks and done < draws:
            labellings = permuted_labels(labels, draws=min(most, draws - done), rng=rng)
            for block in blocks:
                drawn = means(labellings, block)
                for name, statistic in statistics.items():
                    tallies[name].add(block, np.asarray(statistic(drawn)), done=done)
            done += len(labellings)
    void = constant_units(scores) | ~np.isfinite(scores).all(axis=0)
    return {name: tally.null(void, draws=draws) for name, tally in tallies.items()}


def split_half(
    scores: Float[np.ndarray, "n u"],
    labels: Int[np.ndarray, "n"],
    *,
    classes: int,
    rng: np.random.Generator,
    splits: int = 20,
) -> SplitHalf:
    """Class selectivity without its noise floor: the preferred class is chosen on one half, measured on the other.

    The images of every class are split at random into halves A and B (the odd one falls to either). The contrast of
    the class that A prefers, `m_class - m_rest`, is measured on B, and the other way round. Its average over both
    directions and all splits, divided by the `m_max + m_rest` of all images, is the index: the plain class selectivity
    index times the share of the preference that repeats on images that did not choose it. On noise the contrast is 0
    on average however rarely a unit fires, because the images of B say nothing about those of A; a ratio on B alone
    would not be. What is left is slightly below 0 (ReLU noise, 10 classes: -0.013 with 10 images per class, -0.003
    with 50, where the plain index shows 0.317 and 0.160). A half in which a unit is silent prefers no class. With few
    images a half may choose the wrong class, which lowers the index of selective units too: it errs towards caution.

    Reliability is Pearson's correlation `r` of the two halves' class means, averaged over the splits and stepped up
    to the full number of images, `2 r / (1 + |r|)` (Spearman 1910; Brown 1910).

    Args:
        scores: one activation per image and unit.
        labels: class of each image, 0 to `classes - 1`; -1 leaves the image out. Classes with one image take no part.
        classes: number of classes.
        rng: source of all randomness.
        splits: number of random halvings; they share the images, so more of them steady the value but add no evidence.

    Returns:
        nan for constant units, units with a score that is not finite, and fewer than two classes with two images. The
        index is nan for units with a negative score as well.

    Raises:
        InputError: fewer than one split or class, or not one label per image.
        DataError: a label below -1 or not below `classes`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> scores, labels = rng.random((60, 1)), np.repeat(np.arange(3), 20)
        >>> scores[labels == 1] += 9.0
        >>> split_half(scores, labels, classes=3, rng=rng).agreement
        array([1.])
    """
    _at_least(splits, 1, "splits")
    scores, labels = labelled(scores, labels, classes=classes)
    enough = np.flatnonzero(np.bincount(labels, minlength=classes) > 1)
    taking_part = np.isin(labels, enough)
    scores, labels = scores[taking_part], np.searchsorted(enough, labels[taking_part])
    number, units = len(enough), scores.shape[1]
    if number < 2:  # noqa: PLR2004 selectivity compares at least two classes
        return SplitHalf(*(np.full(units, np.nan) for _ in range(3)))
    halves = _random_halves(labels, splits=splits, rng=rng)
    # labelling 2 k marks half A of split k, labelling 2 k + 1 half B
    labellings = np.stack([np.where(halves, labels, -1), np.where(halves, -1, labels)], axis=1)
    membership = class_membership(labellings.reshape(2 * splits, -1), classes=number)
    counts = membership.sum(axis=1)[:, None]
    index, reliability, agreement = np.empty(units), np.empty(units), np.empty(units)
    for block in unit_blocks(units, images=max(len(scores), 2 * splits * number), elements=_BLOCK):
        with np.errstate(invalid="ignore"):  # infinite scores; their units are struck out below
            means = membership @ scores[:, block].astype(np.float64) / counts
            halved = np.moveaxis(means.reshape(splits, 2, number, -1), 2, -1)
            plain = halved.mean(axis=(0, 1))
            top = plain.max(axis=-1)
            rest = (plain.sum(axis=-1) - top) / (number - 1)
            index[block] = _held_out_contrast(halved) / np.where(top + rest > 0, top + rest, np.nan)
            reliability[block] = _stepped_up(halved)
        preferred = halved.argmax(axis=-1)
        agreement[block] = (preferred[:, 0] == preferred[:, 1]).mean(axis=0)
    void = constant_units(scores) | ~np.isfinite(scores).all(axis=0)
    index[(scores < 0).any(axis=0)] = np.nan
    for value in (index, reliability, agreement):
        value[void] = np.nan
    return SplitHalf(index, reliability, agreement)


def bootstrap_interval(
    scores: Float[np.ndarray, "n u"],
    labels: Int[np.ndarray, "n"],
    *,
    classes: int,
    statistic: Statistic,
    rng: np.random.Generator,
    draws: int = 1000,
    level: float = 0.95,
) -> tuple[Float[np.ndarray, "u"], Float[np.ndarray, "u"]]:
    """Interval of a statistic of the class means: images drawn again with replacement within every class.

    Basic percentile limits, the `(1 - level) / 2` and `(1 + level) / 2` quantiles of the draws (Efron 1979). Drawing
    images again only changes their weights, so all draws are one matrix product per class. The
    interval tells how the images chosen matter. It does not remove the noise floor of an index that picks the best
    class: drawn samples are noisier still, so for such an index the whole interval lies high.

    Args:
        scores: one activation per image and unit.
        labels: class of each image, 0 to `classes - 1`; -1 leaves the image out.
        classes: number of classes; the statistic sees the means of those that have images.
        statistic: from class means (..., c) to (...).
        rng: source of all randomness.
        draws: number of bootstrap samples.
        level: coverage, between 0 and 1.

    Returns:
        Low and high; nan for constant units, units with a score that is not finite, and where the statistic is nan in
        every draw. Draws in which it is nan are left out.

    Raises:
        InputError: fewer than two draws, a level not between 0 and 1, or as in `permutation_null`.
        DataError: a label below -1 or not below `classes`.

    Example:
        >>> from neuronscope.maths.selectivity import class_selectivity_index
        >>> rng = np.random.default_rng(0)
        >>> scores, labels = rng.random((60, 1)), np.repeat(np.arange(3), 20)
        >>> scores[labels == 1] += 9.0
        >>> low, high = bootstrap_interval(
        ...     scores, labels, classes=3, statistic=class_selectivity_index, rng=rng, draws=200
        ... )
        >>> bool(0.85 < low[0] < high[0] < 0.95)
        True
    """
    _at_least(draws, 2, "draws")
    normal_quantile(level)  # refuses levels outside 0 to 1
    scores, labels = labelled(scores, labels, classes=classes)
    labels = np.unique(labels, return_inverse=True)[1]
    images, units = scores.shape
    if not images:
        return np.full(units, np.nan), np.full(units, np.nan)
    void = constant_units(scores) | ~np.isfinite(scores).all(axis=0)
    by_class = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    values, done = np.empty((draws, units)), 0
    while done < draws:
        weights = _bootstrap_weights(counts, draws=min(draws - done, max(1, _BLOCK // images)), rng=rng)
        rows = slice(done, done + len(weights))
        for block in unit_blocks(units, images=max(images, len(weights) * len(counts)), elements=_BLOCK):
            # a nan would spread: 0 times nan is nan; these units are struck out below
            sorted_scores = np.where(void[block], 0.0, scores[by_class, block].astype(np.float64))
            means = np.empty((len(weights), sorted_scores.shape[1], len(counts)))
            for c, (stop, count) in enumerate(zip(np.cumsum(counts), counts, strict=True)):
                own = slice(stop - count, stop)
                means[:, :, c] = weights[:, own] @ sorted_scores[own] / count
            values[rows, block] = statistic(means)
        done += len(weights)
    low, high = _quantiles(values, level=level)
    return np.where(void, np.nan, low), np.where(void, np.nan, high)


def mean_interval(
    mean: Float[np.ndarray, "*s"],
    variance: Float[np.ndarray, "*s"],
    count: Int[np.ndarray, "..."] | int,
    *,
    level: float = 0.95,
) -> tuple[Float[np.ndarray, "*s"], Float[np.ndarray, "*s"]]:
    """Student's t interval of a mean, from the mean, the population variance and the count.

    `mean +- t sqrt(variance / (count - 1))`, with `t` the quantile of `count - 1` degrees of freedom (Student 1908).

    Args:
        mean: sample means, in any unit of measure.
        variance: population variances (divided by the count), in that unit squared.
        count: how many values each mean is of; its shape broadcasts against `mean`.
        level: coverage, between 0 and 1.

    Returns:
        Low and high; nan where fewer than two values were seen.

    Raises:
        InputError: the level is not between 0 and 1.

    Example:
        >>> low, high = mean_interval(np.array([10.0]), np.array([4.0]), 17)
        >>> low.round(2), high.round(2)
        (array([8.94]), array([11.06]))
    """
    normal_quantile(level)  # refuses levels outside 0 to 1
    freedom = np.maximum(np.asarray(count, dtype=np.float64) - 1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt(np.asarray(variance, dtype=np.float64) / np.where(freedom > 0, freedom, np.nan))
        half = special.stdtrit(np.where(freedom > 0, freedom, np.nan), (1 + level) / 2) * error
    return np.asarray(mean - half), np.asarray(mean + half)


def wilson_interval(
    right: Int[np.ndarray, "c"], images: Int[np.ndarray, "c"], *, level: float = 0.95
) -> tuple[Float[np.ndarray, "c"], Float[np.ndarray, "c"]]:
    """Interval of a share, sound near 0 and 1 and for few images (Wilson 1927, "Probable inference").

    Args:
        right: number of successes.
        images: number of trials.
        level: coverage, between 0 and 1.

    Returns:
        Low and high, 0 to 1; nan where there is no trial.

    Example:
        >>> low, high = wilson_interval(np.array([9]), np.array([10]))
        >>> low.round(3), high.round(3)
        (array([0.596]), array([0.982]))
    """
    z = normal_quantile(level)
    n = np.where(images > 0, images, np.nan)
    share = right / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # Rounding must not push the interval off its exact ends, 0 and 1.
    low, high = np.where(right == 0, 0.0, centre - half), np.where(right == images, 1.0, centre + half)
    return np.where(images > 0, low, np.nan), np.where(images > 0, high, np.nan)


def _step_up(p: np.ndarray, *, weight: float) -> np.ndarray:
    flat = p.astype(np.float64).ravel()
    tested = np.flatnonzero(~np.isnan(flat))
    values = flat[tested]
    if values.size and not 0 <= values.min() <= values.max() <= 1:
        message = f"p-values lie between 0 and 1, got {values.min()} to {values.max()}"
        raise InputError(message)
    order = np.argsort(values, kind="stable")
    scaled = values[order] * (weight * values.size / np.arange(1, values.size + 1))
    flat[tested[order]] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return flat.reshape(p.shape)


@dataclass(frozen=True)
class _Tally:
    """Running moments of a null distribution, and how many draws reached the observed value."""

    observed: np.ndarray
    mean: np.ndarray
    squares: np.ndarray
    reached: np.ndarray

    @classmethod
    def empty(cls, units: int) -> _Tally:
        return cls(np.full(units, np.nan), np.zeros(units), np.zeros(units), np.zeros(units))

    def add(self, block: slice, null: np.ndarray, *, done: int) -> None:
        observed = self.observed[block]
        self.reached[block] += (null >= observed - _ROUNDING * np.abs(observed)).sum(axis=0)
        self.mean[block], self.squares[block] = _merged(self.mean[block], self.squares[block], done, null)

    def null(self, void: np.ndarray, *, draws: int) -> PermutationNull:
        void = void | np.isnan(self.observed)
        deviation = np.sqrt(self.squares / (draws - 1)) if draws > 1 else np.full(len(void), np.nan)
        found = (self.observed, self.mean, deviation, (1 + self.reached) / (1 + draws))
        return PermutationNull(*(np.where(void, np.nan, value) for value in found))


def _merged(mean: np.ndarray, squares: np.ndarray, done: int, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sum of squared deviations of `done` draws and the rows of `new` together (Chan et al. 1983)."""
    number = len(new)
    total = done + number
    new_mean = new.mean(axis=0)
    apart = new_mean - mean
    new_squares = ((new - new_mean) ** 2).sum(axis=0)
    return mean + apart * number / total, squares + new_squares + apart**2 * done * number / total


def _bootstrap_weights(counts: np.ndarray, *, draws: int, rng: np.random.Generator) -> Float[np.ndarray, "d n"]:
    """How often each image is drawn when every class is drawn again; images run in the order of their classes."""
    size = np.repeat(counts, counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    # one draw after another uses up the random numbers, so that blocks of draws do not change them
    picks = first + (rng.random((draws, len(size))) * size).astype(np.int64)
    picks += len(size) * np.arange(draws)[:, None]
    return np.bincount(picks.ravel(), minlength=draws * len(size)).reshape(draws, -1).astype(np.float64)


def _random_halves(labels: np.ndarray, *, splits: int, rng: np.random.Generator) -> np.ndarray:
    """For each split, which images are in half A: half of every class, the odd image by a coin."""
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    place = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    keys = rng.random((splits, len(labels)))
    coins = rng.integers(0, 2, size=(splits, len(counts)))
    size = (counts + coins) // 2
    # sorting by class, then by a random key, shuffles the images within each class
    shuffled = np.lexsort((keys, np.broadcast_to(labels, keys.shape)), axis=-1)
    halves = np.empty(keys.shape, dtype=bool)
    np.put_along_axis(halves, shuffled, place < size[:, labels[order]], axis=1)
    return halves


def _held_out_contrast(halved: np.ndarray) -> np.ndarray:
    """From class means (splits, 2, u, c): `m_class - m_rest` on one half, the class chosen on the other (u)."""
    contrast = np.zeros(halved.shape[2])
    for chosen, measured in ((halved[:, 0], halved[:, 1]), (halved[:, 1], halved[:, 0])):
        own = np.take_along_axis(measured, chosen.argmax(axis=-1)[..., None], axis=-1)[..., 0]
        rest = (measured.sum(axis=-1) - own) / (halved.shape[-1] - 1)
        silent = chosen.max(axis=-1) == 0
        contrast += np.where(silent, 0.0, own - rest).mean(axis=0) / 2
    return contrast


def _stepped_up(halved: np.ndarray) -> np.ndarray:
    """From class means (splits, 2, u, c) to the reliability (u); splits with a flat half have no correlation: 0."""
    centred = halved - halved.mean(axis=-1, keepdims=True)
    power = (centred**2).sum(axis=-1)
    scale = np.sqrt(power[:, 0] * power[:, 1])
    product = (centred[:, 0] * centred[:, 1]).sum(axis=-1)
    with np.errstate(divide="ignore"):
        correlation = np.where(scale > 0, product / scale, 0.0).mean(axis=0)
    return np.asarray(2 * correlation / (1 + np.abs(correlation)))


def _quantiles(values: np.ndarray, *, level: float) -> tuple[np.ndarray, np.ndarray]:
    probabilities = ((1 - level) / 2, (1 + level) / 2)
    low, high = np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    missing = np.isnan(values)
    whole = ~missing.any(axis=0)
    low[whole], high[whole] = np.quantile(values[:, whole], probabilities, axis=0)
    for unit in np.flatnonzero(~whole & ~missing.all(axis=0)):
        low[unit], high[unit] = np.quantile(values[~missing[:, unit], unit], probabilities)
    return low, high


def _at_least(value: int, least: int, name: str) -> None:
    if value < least:
        message = f"at least {least} {name} are needed, got {value}"
        raise InputError(message)
