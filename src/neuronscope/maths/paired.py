"""Is one way of explaining better than another on the same images? Paired comparisons, one or a whole grid at once.

Every image is its own control: what counts is `D = filtered - baseline` of each image. With 50,000 images everything is
significant, and p-values underflow to 0; so they are given as logarithms, beside the size of the effect, its interval,
and tests that respect that images of one class resemble each other. In a grid of comparisons, q-values say how many
findings chance alone brings.

Arrays are (images, comparisons). An image whose value is nan on either side is left out of that comparison and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import special

from neuronscope.errors import InputError, check_name
from neuronscope.maths.ranks import normal_quantile, sort_units
from neuronscope.maths.resampling import wilson_interval

PERCENTILES = (5, 25, 50, 75, 95)
"""Percentiles of the differences that are reported."""

LEGACY_SEED = 42
"""Seed of the original's bootstrap."""

Interval = Literal["bca", "legacy percentile"]

INTERVALS: tuple[Interval, ...] = ("bca", "legacy percentile")

_BLOCK = 2**22
"""Numbers drawn at a time in a bootstrap: 32 MiB."""

_UNDERFLOW = 1e-280
"""Tail areas below this are worked out as logarithms."""

_TERMS = 20_000
"""Most terms of the continued fraction for Student's t; it needs about the root of the degrees of freedom."""

_TINY = 1e-300

_LN10 = float(np.log(10))

_PAIR = 2
"""Fewest images or classes that have a spread."""


@dataclass(frozen=True, eq=False)
class LogTest:
    """A two-sided test that a mean difference is 0.

    Attributes:
        statistic: t or z; positive where the filtered values are higher.
        log10_p: logarithm to base 10 of the p-value, so that 1e-2000 is -2000.
        freedom: degrees of freedom of t; infinite for z.
    """

    statistic: Float[np.ndarray, "q"]
    log10_p: Float[np.ndarray, "q"]
    freedom: Float[np.ndarray, "q"]

    @property
    def p(self) -> Float[np.ndarray, "q"]:
        """The p-value itself (0 to 1); 0 where it is below about 1e-308."""
        return np.asarray(10.0**self.log10_p)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Paired comparisons, each array with one number for each of them.

    Attributes:
        images: images compared.
        dropped: images left out because a value is nan.
        baseline, baseline_spread: mean and population standard deviation of the baseline values.
        filtered, filtered_spread: the same of the filtered values.
        difference, spread: mean and population standard deviation of `D`.
        low, high: interval of the mean difference, images drawn again.
        effect: Cohen's d of paired values, mean of `D` over its standard deviation (divided by images - 1).
        improved, improved_low, improved_high: share of images with `D > 0` (0 to 1) and its Wilson interval.
        percentiles: of `D`, as in `PERCENTILES`.
        student: paired t-test.
        wilcoxon: signed rank test.
        clusters: classes among the images; 0 where no classes were given.
        clustered: t-test with standard errors that are clustered by class (CR1).
        clustered_low, clustered_high: interval of the mean difference from those.
        class_means: t-test on the means of the classes, each class with one vote.
    """

    images: Int[np.ndarray, "q"]
    dropped: Int[np.ndarray, "q"]
    baseline: Float[np.ndarray, "q"]
    baseline_spread: Float[np.ndarray, "q"]
    filtered: Float[np.ndarray, "q"]
    filtered_spread: Float[np.ndarray, "q"]
    difference: Float[np.ndarray, "q"]
    spread: Float[np.ndarray, "q"]
    low: Float[np.ndarray, "q"]
    high: Float[np.ndarray, "q"]
    effect: Float[np.ndarray, "q"]
    improved: Float[np.ndarray, "q"]
    improved_low: Float[np.ndarray, "q"]
    improved_high: Float[np.ndarray, "q"]
    percentiles: Float[np.ndarray, "5 q"]
    student: LogTest
    wilcoxon: LogTest
    clusters: Int[np.ndarray, "q"]
    clustered: LogTest
    clustered_low: Float[np.ndarray, "q"]
    clustered_high: Float[np.ndarray, "q"]
    class_means: LogTest


def compare_pairs(
    filtered: Shaped[np.ndarray, "n q"],
    baseline: Shaped[np.ndarray, "m #q"],
    *,
    rng: np.random.Generator,
    labels: Int[np.ndarray, "l"] | None = None,
    interval: Interval = "bca",
    draws: int = 10_000,
    level: float = 0.95,
) -> Comparison:
    """Compare filtered values with the baseline's of the same images, for each of several filters.

    Args:
        filtered: one value for each image and filter.
        baseline: one value for each image, and for each filter or for all of them alike.
        rng: source of the bootstrap's randomness; unused by `legacy percentile`.
        labels: class of each image; one below 0 is without a class. None: no tests by class.
        interval: `bca`, or `legacy percentile`, which draws as the original does.
        draws: number of bootstrap samples.
        level: coverage of all intervals, between 0 and 1.

    Returns:
        What cannot be told is nan: all of it without images, intervals and tests for a single one, t and d where all
        differences are 0. Where all are equal and not 0, t and d are infinite (by rounding, only very large).

    Raises:
        InputError: other numbers of images, fewer than two draws, an unknown interval, or a level not between 0 and 1.

    Example:
        >>> before, after = np.array([[0.2], [0.4], [0.1], [0.3]]), np.array([[0.3], [0.5], [0.3], [0.4]])
        >>> found = compare_pairs(after, before, rng=np.random.default_rng(0))
        >>> found.difference.round(3), found.student.statistic.round(2), found.improved
        (array([0.125]), array([5.]), array([1.]))
    """
    _check(filtered, baseline, labels, interval=interval, draws=draws)
    normal_quantile(level)  # refuses levels outside 0 to 1
    difference = filtered.astype(np.float64) - baseline
    there = ~np.isnan(difference)
    images = there.sum(axis=0)
    before, before_spread = _moments(np.broadcast_to(baseline, difference.shape), there)
    after, after_spread = _moments(filtered, there)
    mean, spread = _moments(difference, there)
    with np.errstate(invalid="ignore", divide="ignore"):
        sample = spread * np.sqrt(images / np.where(images >= _PAIR, images - 1.0, np.nan))
        effect = mean / sample
        student = student_test(mean, sample / np.sqrt(images), images - 1.0)
    if interval == "bca":
        low, high = bca_interval(difference, rng=rng, draws=draws, level=level)
    else:
        low, high = legacy_interval(difference, draws=draws, level=level)
    better = (difference > 0).sum(axis=0)
    improved_low, improved_high = wilson_interval(better, images, level=level)
    if labels is None:
        clusters, error = np.zeros_like(images), np.full(len(mean), np.nan)
        class_means = student_test(error, error, error)
    else:
        clusters, error = clustered_error(difference, labels)
        class_means = class_means_test(difference, labels)
    clustered = student_test(mean, error, clusters - 1.0)
    with np.errstate(invalid="ignore"):
        half = special.stdtrit(np.where(clusters >= _PAIR, clusters - 1.0, np.nan), (1 + level) / 2) * error
    return Comparison(
        images=images,
        dropped=len(difference) - images,
        baseline=before,
        baseline_spread=before_spread,
        filtered=after,
        filtered_spread=after_spread,
        difference=mean,
        spread=spread,
        low=low,
        high=high,
        effect=effect,
        improved=np.where(images > 0, better / np.maximum(images, 1), np.nan),
        improved_low=improved_low,
        improved_high=improved_high,
        percentiles=_percentiles(difference, there),
        student=student,
        wilcoxon=wilcoxon_test(difference),
        clusters=clusters,
        clustered=clustered,
        clustered_low=mean - half,
        clustered_high=mean + half,
        class_means=class_means,
    )


def student_test(
    mean: Float[np.ndarray, "q"], error: Float[np.ndarray, "q"], freedom: Float[np.ndarray, "q"]
) -> LogTest:
    """Student's t-test of means from their standard errors and degrees of freedom.

    Returns:
        nan where the error is nan, or 0 for a mean of 0, or where there is no degree of freedom.

    Example:
        >>> found = student_test(np.array([1.0]), np.array([0.01]), np.array([49_999.0]))
        >>> found.log10_p.round(1), found.p
        (array([-1981.6]), array([0.]))
    """
    known = np.where(freedom >= 1, freedom, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(np.isnan(known), np.nan, mean / error)
    return LogTest(t, student_log10_p(t, known), np.asarray(known))


def student_log10_p(t: Float[np.ndarray, "*s"], freedom: Float[np.ndarray, "*#s"]) -> Float[np.ndarray, "*s"]:
    """Logarithm to base 10 of the two-sided p-value of t, exact where the p-value itself would be 0.

    Below 1e-280 the tail area comes from the continued fraction of the incomplete beta function
    (Abramowitz and Stegun 1964, 26.5.8; 26.7.1), whose factors are kept as logarithms.

    Args:
        t: the statistic, any sign.
        freedom: degrees of freedom, above 0; may be infinite.

    Example:
        >>> student_log10_p(np.array([0.0, 2.0, 62.15]), np.array([49_999.0])).round(3)
        array([   0.   ,   -1.342, -809.812])
    """
    size, v = np.broadcast_arrays(np.abs(np.asarray(t, dtype=np.float64)), np.asarray(freedom, dtype=np.float64))
    normal = np.isinf(v)
    with np.errstate(divide="ignore", invalid="ignore"):
        area = special.stdtr(np.where(normal, 1.0, v), -size)
        logarithm = np.where(normal, special.log_ndtr(-size), np.log(area))
    small = ~normal & (area < _UNDERFLOW) & np.isfinite(size)
    if small.any():
        logarithm[small] = _log_tail(size[small], v[small])
    return np.asarray(np.minimum((logarithm + np.log(2)) / _LN10, 0.0))


def normal_log10_p(z: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
    """Logarithm to base 10 of the two-sided p-value of a standard normal statistic, without underflow.

    Example:
        >>> normal_log10_p(np.array([100.0])).round(3)
        array([-2173.571])
    """
    return np.asarray(np.minimum((special.log_ndtr(-np.abs(z)) + np.log(2)) / _LN10, 0.0))


def wilcoxon_test(difference: Float[np.ndarray, "n q"]) -> LogTest:
    """Wilcoxon's signed rank test that differences lie symmetrically about 0, normal form.

    Differences of 0 are dropped (Wilcoxon 1945); equal sizes share the mean of their ranks, and the variance is
    corrected for them: `z = (W - m (m + 1) / 4) / sqrt(m (m + 1) (2 m + 1) / 24 - sum (t^3 - t) / 48)` for the `m`
    others, without continuity correction. As `scipy.stats.wilcoxon(zero_method="wilcox", method="asymptotic")`. The
    normal form is good from about 20 images.

    Returns:
        nan where all differences are 0 or nan.

    Example:
        >>> wilcoxon_test(np.array([[1.0], [2.0], [3.0], [-4.0], [0.0]])).statistic.round(3)
        array([0.365])
    """
    z = np.full(difference.shape[1], np.nan)
    for number, column in enumerate(difference.T):
        moved = column[(column != 0) & ~np.isnan(column)].astype(np.float64)
        m = float(len(moved))
        if m == 0:
            continue
        ordered = sort_units(np.abs(moved)[:, None])
        rising = moved[ordered.order[0]] > 0
        doubled = ordered.doubled_ranks()[0]
        ties = ordered.sizes.astype(np.float64)
        variance = m * (m + 1) * (2 * m + 1) / 24 - (ties**3 - ties).sum() / 48
        z[number] = (doubled[rising].sum() / 2 - m * (m + 1) / 4) / np.sqrt(variance)
    return LogTest(z, normal_log10_p(z), np.full(len(z), np.inf))


def clustered_error(
    difference: Float[np.ndarray, "n q"], labels: Int[np.ndarray, "l"]
) -> tuple[Int[np.ndarray, "q"], Float[np.ndarray, "q"]]:
    """Number of classes, and the standard error of the mean when images of one class resemble each other.

    The sandwich with the small-sample factor CR1: `G / (G - 1) * sum over classes (sum of residuals)^2 / n^2`
    (Liang and Zeger 1986; Cameron and Miller 2015, equation 11 and its finite-sample factor). Its t has `G - 1` degrees
    of freedom. Where all classes have as many images, it is the error of the mean of the class means.

    Args:
        difference: one value for each image and comparison; nan is left out.
        labels: class of each image; an image below 0 is a class of its own.

    Returns:
        Classes among the images of each comparison, and the error; nan for fewer than two classes.

    Raises:
        InputError: not one label per image.

    Example:
        >>> _, error = clustered_error(np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([0, 0, 1, 1]))
        >>> error
        array([0.5])
    """
    sums, counts, mean = _by_class(difference, np.where(labels < 0, -1 - np.arange(len(labels)), labels))
    present = (counts > 0).sum(axis=0)
    images = counts.sum(axis=0)
    residual = np.where(counts > 0, sums - counts * mean, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(present >= _PAIR, present / (present - 1.0), np.nan)
        return present, np.sqrt(factor * (residual**2).sum(axis=0)) / images


def class_means_test(difference: Float[np.ndarray, "n q"], labels: Int[np.ndarray, "l"]) -> LogTest:
    """t-test on the means of the classes: each class has one vote, however many images it has.

    Images without a class (below 0) are left out.

    Raises:
        InputError: not one label per image.

    Example:
        >>> class_means_test(np.array([[0.0], [2.0], [3.0], [3.0]]), np.array([0, 0, 1, 1])).statistic
        array([2.])
    """
    known = labels >= 0
    if len(labels) == len(difference):
        difference, labels = difference[known], labels[known]
    sums, counts, _ = _by_class(difference, labels)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.where(counts > 0, sums / counts, np.nan)
        mean, spread = _moments(means, counts > 0)
        present = (counts > 0).sum(axis=0)
        return student_test(mean, spread / np.sqrt(present - 1.0), present - 1.0)


def bca_interval(
    difference: Float[np.ndarray, "n q"], *, rng: np.random.Generator, draws: int = 10_000, level: float = 0.95
) -> tuple[Float[np.ndarray, "q"], Float[np.ndarray, "q"]]:
    """Bootstrap interval of the mean, corrected for bias and acceleration: BCa (Efron 1987, equations 2.3 and 6.6).

    The jackknife of a mean is linear, so its acceleration is a closed form: `sum e^3 / (6 (sum e^2)^1.5)` of the
    deviations `e`. Comparisons with the same images see the same draws, and neither the number of comparisons nor
    their order changes them.

    Args:
        difference: one value for each image and comparison; nan is left out.
        rng: source of all randomness.
        draws: number of bootstrap samples.
        level: coverage, between 0 and 1.

    Returns:
        Low and high; nan for fewer than two images; without width where all values are equal.

    Example:
        >>> low, high = bca_interval(np.arange(20.0)[:, None], rng=np.random.default_rng(0))
        >>> bool(6.5 < low[0] < 7.5), bool(11.5 < high[0] < 12.5)
        (True, True)
    """
    key = int(rng.integers(2**63))
    low, high = np.full(difference.shape[1], np.nan), np.full(difference.shape[1], np.nan)
    for columns, rows in _same_images(difference):
        values = difference[np.ix_(rows, columns)].astype(np.float64)
        if len(values) < _PAIR:
            continue
        centre = values.mean(axis=0)
        means = np.concatenate(
            [weights @ (values - centre) / len(values) for weights in _weights(len(values), draws=draws, key=key)]
        )
        low[columns], high[columns] = _bca_limits(values - centre, means, level=level) + centre
    return low, high


def legacy_interval(
    difference: Float[np.ndarray, "n q"], *, draws: int = 10_000, level: float = 0.95
) -> tuple[Float[np.ndarray, "q"], Float[np.ndarray, "q"]]:
    """Bootstrap interval of the mean as the original makes it: percentiles of means of `RandomState(42)` draws.

    Every comparison starts at the same seed, so that each is what the original gives for it alone.

    Returns:
        Low and high; nan without images.

    Example:
        >>> low, high = legacy_interval(np.arange(20.0)[:, None])
        >>> low, high
        (array([7.]), array([12.]))
    """
    low, high = np.full(difference.shape[1], np.nan), np.full(difference.shape[1], np.nan)
    for columns, rows in _same_images(difference):
        n = len(rows)
        if n == 0:
            continue
        values = difference[np.ix_(rows, columns)].T.astype(np.float64)
        state = np.random.RandomState(LEGACY_SEED)  # the original's stream
        means = np.empty((draws, len(columns)))
        block = max(1, _BLOCK // n)
        for first in range(0, draws, block):
            picks = state.randint(0, n, size=(min(block, draws - first), n))
            means[first : first + block] = np.stack([own[picks].mean(axis=1) for own in values], axis=1)
        limits = np.percentile(means, (50 * (1 - level), 50 * (1 + level)), axis=0)
        low[columns], high[columns] = limits
    return low, high


def log10_qvalues(log10_p: Float[np.ndarray, "*s"], *, method: Literal["bh", "by"] = "bh") -> Float[np.ndarray, "*s"]:
    """Logarithms of the q-values of a grid of comparisons, which do not underflow; all axes are one family.

    The step-up rules of `resampling.bh_qvalues` (independent or positively dependent tests) and `by_qvalues` (any
    dependence), on the scale of logarithms.

    Args:
        log10_p: logarithms of the p-values, at most 0; nan marks what was not tested and stays nan.
        method: `bh`, Benjamini and Hochberg 1995, or `by`, Benjamini and Yekutieli 2001.

    Raises:
        InputError: a logarithm above 0, or an unknown method.

    Example:
        >>> log10_qvalues(np.array([-1000.0, -2.0, np.nan])).round(3)
        array([-999.699,   -2.   ,      nan])
    """
    check_name(method, ("bh", "by"), "method")
    flat = log10_p.astype(np.float64).ravel()
    tested = np.flatnonzero(~np.isnan(flat))
    values = flat[tested]
    if values.size and values.max() > 0:
        message = f"the logarithm of a p-value is at most 0: got {values.max()}. Give log10 p, not p"
        raise InputError(message)
    order = np.argsort(values, kind="stable")
    ranks = np.arange(1, values.size + 1)
    weight = float((1 / ranks).sum()) if method == "by" and values.size else 1.0
    scaled = values[order] + np.log10(weight * values.size / ranks)
    flat[tested[order]] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 0.0)
    return flat.reshape(log10_p.shape)


def _log_tail(t: np.ndarray, freedom: np.ndarray) -> Float[np.ndarray, "s"]:
    """Natural logarithm of P(T > t) far out: half the incomplete beta function, by Lentz's method."""
    a, b = freedom / 2, 0.5
    x = freedom / (freedom + t**2)
    c, d = np.ones_like(x), 1 / (1 - (a + b) * x / (a + 1))
    value = d.copy()
    for m in range(1, _TERMS):
        change = np.ones_like(x)
        even = m * (b - m) * x / ((a - 1 + 2 * m) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 1 + 2 * m))
        for term in (even, odd):
            d = 1 / _not_zero(1 + term * d)
            c = _not_zero(1 + term / c)
            change = d * c
            value = value * change
        if (np.abs(change - 1) < np.finfo(np.float64).eps).all():
            break
    power = -a * np.log1p(t**2 / freedom) + b * (2 * np.log(t) - np.log(freedom) - np.log1p(t**2 / freedom))
    return np.asarray(np.log(0.5) + power - np.log(a) - special.betaln(a, b) + np.log(value))


def _not_zero(values: np.ndarray) -> np.ndarray:
    return np.where(np.abs(values) < _TINY, _TINY, values)


def _moments(values: Shaped[np.ndarray, "n q"], there: Bool[np.ndarray, "n q"]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population standard deviation of what is there; nan where nothing is."""
    count = there.sum(axis=0)
    some = np.where(count > 0, count, np.nan)
    mean = np.where(there, values, 0.0).sum(axis=0, dtype=np.float64) / some
    with np.errstate(invalid="ignore"):
        deviation = np.where(there, values - mean, 0.0)
    return mean, np.sqrt((deviation**2).sum(axis=0) / some)


def _same_images(difference: np.ndarray) -> Iterator[tuple[Int[np.ndarray, "c"], Int[np.ndarray, "r"]]]:
    """Comparisons that have the same images, and those images."""
    there = ~np.isnan(difference)
    _, groups = np.unique(np.packbits(there, axis=0), axis=1, return_inverse=True)
    groups = groups.reshape(-1)
    for group in range(int(groups.max(initial=-1)) + 1):
        columns = np.flatnonzero(groups == group)
        yield columns, np.flatnonzero(there[:, columns[0]])


def _weights(images: int, *, draws: int, key: int) -> Iterator[Float[np.ndarray, "d n"]]:
    """How often each image is drawn, in blocks of draws whose size does not change them."""
    rng = np.random.Generator(np.random.PCG64(key))
    block = max(1, _BLOCK // images)
    for first in range(0, draws, block):
        rows = min(block, draws - first)
        picks = rng.integers(0, images, size=(rows, images))
        picks += images * np.arange(rows)[:, None]
        yield np.bincount(picks.ravel(), minlength=rows * images).reshape(rows, images).astype(np.float64)


def _bca_limits(
    deviation: Float[np.ndarray, "n q"], means: Float[np.ndarray, "b q"], *, level: float
) -> Float[np.ndarray, "2 q"]:
    """Limits of the mean of deviations from the observed mean, which is therefore 0."""
    squares = (deviation**2).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        acceleration = np.where(squares > 0, (deviation**3).sum(axis=0) / (6 * squares**1.5), 0.0)
    # a draw on the observed value counts half to either side, so that values on a lattice have no bias
    below = (means < 0).mean(axis=0) + (means == 0).mean(axis=0) / 2
    bias = special.ndtri(np.clip(below, 0.5 / len(means), 1 - 0.5 / len(means)))
    z = special.ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))[:, None]
    shares = special.ndtr(bias + (bias + z) / (1 - acceleration * (bias + z)))
    return np.stack([np.quantile(means[:, q], shares[:, q]) for q in range(means.shape[1])], axis=1)


def _by_class(
    difference: np.ndarray, labels: np.ndarray
) -> tuple[Float[np.ndarray, "g q"], Int[np.ndarray, "g q"], Float[np.ndarray, "q"]]:
    """Sum and number of the values of each class, and the mean of all."""
    if len(labels) != len(difference):
        message = f"{len(labels)} labels came with {len(difference)} images; give one label per image"
        raise InputError(message)
    there = ~np.isnan(difference)
    names, codes = np.unique(labels, return_inverse=True)
    many = difference.shape[1]
    cells = (codes.reshape(-1, 1) * many + np.arange(many)).ravel()
    values = np.where(there, difference, 0.0).astype(np.float64)
    shape = (len(names), many)
    sums = np.bincount(cells, weights=values.ravel(), minlength=len(names) * many).reshape(shape).astype(np.float64)
    counts = np.bincount(cells, weights=there.ravel(), minlength=len(names) * many).reshape(shape).astype(np.int64)
    return sums, counts, _moments(difference, there)[0]


def _percentiles(difference: np.ndarray, there: np.ndarray) -> Float[np.ndarray, "5 q"]:
    found = np.full((len(PERCENTILES), difference.shape[1]), np.nan)
    for columns, rows in _same_images(np.where(there, difference, np.nan)):
        if len(rows):
            found[:, columns] = np.percentile(difference[np.ix_(rows, columns)], PERCENTILES, axis=0)
    return found


def _check(filtered: np.ndarray, baseline: np.ndarray, labels: np.ndarray | None, *, interval: str, draws: int) -> None:
    """Refuse what cannot be compared.

    Raises:
        InputError: other numbers of images, fewer than two draws, or an unknown interval.
    """
    if len(baseline) != len(filtered) or (labels is not None and len(labels) != len(filtered)):
        came = f"{len(filtered)} filtered, {len(baseline)} baseline" + (
            "" if labels is None else f" and {len(labels)} labels"
        )
        message = f"a paired comparison needs the same images on both sides: got {came}"
        raise InputError(message)
    if draws < _PAIR:
        message = f"at least 2 draws are needed, got {draws}"
        raise InputError(message)
    check_name(interval, INTERVALS, "interval")
