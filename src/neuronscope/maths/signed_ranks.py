"""Does a treatment of the image push a unit up or down? Signed ranks of the paired differences, all units at once.

Every image is its own control: `d = treated - original`. The matched-pairs rank-biserial correlation says how one-sided
these differences are, -1 where all are negative, 1 where all are positive, whatever their scale; Wilcoxon's signed rank
test says whether that could be chance. Both come from one sort, or from counts of differences in bins of |d|.

Differences of exactly 0 are common: a ReLU that is silent before and after. They stay in the ranking, and their ranks
are split evenly between both signs ("zsplit"). A unit whose differences are all 0 is nan: either it is dead, or the
treatment changes nothing that it sees. The differences cannot tell these two apart; the activations can.

Several draws of a treatment on one image are not independent, so a test of single differences finds too much.
`clustered_contrast` tests and estimates at the level of images.

Left out: the stream of whole maps, which uses the counts below (`streams.signed_ranks`), and unpaired groups (`ranks`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from neuronscope.errors import InputError, check_name
from neuronscope.maths.paired import LogTest, normal_log10_p
from neuronscope.maths.ranks import SortedBlock, normal_quantile, sort_units, unit_blocks
from neuronscope.maths.resampling import by_qvalues

ZeroMethod = Literal["zsplit", "pratt"]
"""What is done about differences of 0 in the test; names as in `scipy.stats.wilcoxon`."""

ZERO_METHODS: tuple[ZeroMethod, ...] = ("zsplit", "pratt")

_CORRECTION = 0.5
"""The sum of ranks is a step function: half a step towards the middle (continuity correction)."""

_FEWEST = 2
"""Fewest images that have a spread."""


@dataclass(frozen=True, eq=False)
class SignedRanks:
    """What one ranking of absolute differences leaves behind; enough for the effect and its tests.

    Attributes:
        count: number m of differences of each unit.
        balance: R+ - R-, sum of the midranks of positive differences less that of negative ones, -m (m + 1) / 2 to
            m (m + 1) / 2; nan for units with a difference that is not finite.
        zeros: number of differences that are exactly 0.
        ties: sum of `t**3 - t` over groups of `t` equal absolute differences other than 0.
    """

    count: int
    balance: Float[np.ndarray, "s"]
    zeros: Int[np.ndarray, "s"]
    ties: Float[np.ndarray, "s"]

    @property
    def rank_biserial(self) -> Float[np.ndarray, "s"]:
        """Matched-pairs rank-biserial correlation, `(R+ - R-) / (m (m + 1) / 2)` (-1 to 1; Kerby 2014).

        Zeros count as neither: with a share q of zeros it is at most `1 - q**2`. Its absolute value is what the
        original of this study gives. nan where all differences are 0 or one is not finite.
        """
        return np.asarray(self._balance / np.where(self.count > 0, self._total, np.nan))

    @property
    def statistic(self) -> Float[np.ndarray, "s"]:
        """Wilcoxon's T: the smaller of R+ and R-, 0 to m (m + 1) / 4, ranks of zeros going half to each."""
        return np.asarray((self._total - np.abs(self._balance)) / 2)

    @property
    def zero_share(self) -> Float[np.ndarray, "s"]:
        """Share of the differences that are exactly 0 (0 to 1); 1 for a dead unit or an idle treatment."""
        return np.asarray(self.zeros / (self.count or np.nan))

    def test(self, *, zero_method: ZeroMethod = "zsplit") -> LogTest:
        """Wilcoxon's signed rank test that the differences lie symmetrically about 0, two-sided, normal form.

        `z = (R+ - R-) / 2 sd`, half a rank nearer to 0 (continuity correction), with the variance corrected for ties.
        The normal form is good from about 20 differences. The two methods differ in the variance alone:

        - `zsplit`, `m (m + 1) (2 m + 1) / 24 - sum (t**3 - t) / 48`, the zeros being one group of ties. This is the
          original's. It takes the signs of zeros for random although they never flip, so with a share q of zeros
          z is too small, by `sqrt((1 - q**3) / (1 - q**3 / 4))` with many differences: 0.96 for q = 0.5, 0.58 for 0.9.
        - `pratt`, a quarter of the sum of the squared ranks of the other differences: the variance under the null
          hypothesis, whatever the zeros (Pratt 1959; Cureton 1967).

        Equal to `scipy.stats.wilcoxon(zero_method=..., correction=True, method="asymptotic")`, where z has no sign.

        Returns:
            z, positive where the treatment raises the unit, and log10 p; nan where all differences are 0.

        Raises:
            UnknownName: an unknown method for zeros.

        Example:
            >>> found = signed_ranks(np.array([[1.0], [2.0], [3.0], [-4.0], [0.0]]))
            >>> found.test().statistic.round(3), found.test().p.round(3)
            (array([0.405]), array([0.686]))
        """
        check_name(zero_method, ZERO_METHODS, "zero_method")
        m, zeros = float(self.count), self.zeros.astype(np.float64)
        tied, ranked = (zeros**3 - zeros) / 48, zeros * (zeros + 1) * (2 * zeros + 1) / 24
        removed = tied if zero_method == "zsplit" else ranked
        balance = self._balance
        variance = np.where(np.isnan(balance), np.nan, m * (m + 1) * (2 * m + 1) / 24 - removed - self.ties / 48)
        z = np.asarray((balance / 2 - _CORRECTION * np.sign(balance)) / np.sqrt(variance))
        return LogTest(z, normal_log10_p(z), np.full(len(z), np.inf))

    @property
    def _total(self) -> float:
        return self.count * (self.count + 1) / 2

    @property
    def _balance(self) -> Float[np.ndarray, "s"]:
        return np.where(self.zeros < self.count, self.balance, np.nan)


@dataclass(frozen=True, eq=False)
class ClusteredContrast:
    """A paired contrast of each unit, with the images and not the draws as what repeats.

    Attributes:
        images: number of images.
        difference: mean difference, in the unit of the activation.
        test: Wilcoxon's signed rank test of the images' mean differences (zeros by Pratt's method).
        q: Benjamini-Yekutieli q-value of that test, over all units that came together (0 to 1).
        rank_biserial: rank-biserial correlation of all differences (-1 to 1).
        low, high: its interval.
        zero_share: share of the differences that are exactly 0 (0 to 1).
    """

    images: int
    difference: Float[np.ndarray, "u"]
    test: LogTest
    q: Float[np.ndarray, "u"]
    rank_biserial: Float[np.ndarray, "u"]
    low: Float[np.ndarray, "u"]
    high: Float[np.ndarray, "u"]
    zero_share: Float[np.ndarray, "u"]


def signed_ranks(difference: Float[np.ndarray, "m s"]) -> SignedRanks:
    """Rank the absolute differences of every column once and add up their signed midranks.

    Doubled midranks are whole numbers, so the sums are exact and do not depend on the order of the rows.

    Args:
        difference: treated less original; one row for each image and draw.

    Returns:
        The balance is nan for columns with a difference that is NaN or infinite.

    Example:
        >>> signed_ranks(np.array([[3.0, -1.0], [-1.0, -2.0], [2.0, 0.0]])).rank_biserial.round(3)
        array([ 0.667, -0.833])
    """
    count, columns = difference.shape
    balance, ties, zeros = np.full(columns, np.nan), np.full(columns, np.nan), np.zeros(columns, dtype=np.int64)
    for block in unit_blocks(columns, images=count) if count else ():
        own, unsound = _finite(difference[:, block])
        ordered = sort_units(np.abs(own))
        signs = np.sign(np.take_along_axis(own.T, ordered.order, axis=1)).astype(np.int64)
        signed = np.where(unsound > 0, np.nan, (ordered.doubled_ranks() * signs).sum(axis=1) / 2)
        sizes = np.where(signs.ravel()[_places(ordered)] != 0, ordered.sizes, 0).astype(np.float64)
        balance[block] = signed
        zeros[block] = (signs == 0).sum(axis=1) - unsound
        ties[block] = np.bincount(ordered.rows, weights=sizes**3 - sizes, minlength=len(signed))
    return SignedRanks(count, balance, zeros, np.where(np.isnan(balance), np.nan, ties))


def signed_ranks_of_counts(
    positive: Int[np.ndarray, "s bins"], negative: Int[np.ndarray, "s bins"], *, count: int
) -> tuple[SignedRanks, Float[np.ndarray, "s"]]:
    """Signed ranks of differences that were counted in bins of |d|, smallest first, and how wrong they can be.

    All differences of a bin get its midrank. Their true order within the bin is unknown: at worst its `p` positive
    differences all lie above its `q` negative ones, or all below, and either moves R+ - R- by exactly `p q`. The bound
    is the sum of these over the bins. Some data with these counts attain it, and it is 0 where each bin has one sign.

    Args:
        positive: number of positive differences in each bin.
        negative: number of negative ones in the same bin.
        count: number of all differences of a unit; those in no bin are zeros.

    Returns:
        The ranks, in which differences of one bin are ties; and the largest possible error of the rank-biserial
        correlation, 0 to 1. The exact one of the differences lies within that.

    Example:
        >>> found, bound = signed_ranks_of_counts(np.array([[1, 0, 2]]), np.array([[1, 1, 0]]), count=5)
        >>> found.rank_biserial.round(3), bound.round(3)
        (array([0.4]), array([0.067]))
    """
    positive, negative = positive.astype(np.int64), negative.astype(np.int64)
    sizes = positive + negative
    up_to = sizes.cumsum(axis=1)
    zeros = count - (up_to[:, -1] if sizes.shape[1] else np.zeros(len(sizes), dtype=np.int64))
    doubled = 2 * (up_to - sizes + zeros[:, None]) + sizes + 1
    balance = (doubled * (positive - negative)).sum(axis=1) / 2
    wide = sizes.astype(np.float64)
    ranks = SignedRanks(count, balance, zeros, (wide * (wide * wide - 1)).sum(axis=1))
    bound = (positive * negative).sum(axis=1) / (count * (count + 1) / 2 if count else np.nan)
    return ranks, np.asarray(bound)


def point_biserial(
    difference: Float[np.ndarray, "s"],
    squares: Float[np.ndarray, "s"],
    *,
    controls: int,
    treated: int,
    floor: float = 0.0,
) -> Float[np.ndarray, "s"]:
    """Point-biserial correlation of the activation with being treated (-1 to 1), from sums.

    `(mean of treated - mean of controls) sqrt(p q) / sd`, with the shares p and q of both groups and the population
    standard deviation of all values together: Pearson's correlation with a label 0 or 1 (Tate 1954, equation 1).

    Args:
        difference: mean of the treated values less mean of the control values.
        squares: sum of squared deviations of all values from their common mean.
        controls: number of control values.
        treated: number of treated values.
        floor: added to the variance; the original adds 1e-20, which lets values below 1e-10 vanish.

    Returns:
        nan where all values are equal and nothing is added.

    Example:
        >>> point_biserial(np.array([1.0]), np.array([1.5]), controls=2, treated=2).round(3)
        array([0.816])
    """
    total = controls + treated
    if not total:
        return np.full(len(difference), np.nan)
    spread = np.sqrt(floor + squares / total)
    share = np.sqrt(controls * treated) / total
    return np.asarray(np.clip(difference * share / np.where(spread > 0, spread, np.nan), -1.0, 1.0))


def clustered_contrast(difference: Float[np.ndarray, "n r u"], *, level: float = 0.95) -> ClusteredContrast:
    """Contrast of treated and original activations of each unit, when an image was treated several times.

    Draws on one image resemble each other, so ten draws on 100 images are not 1,000 images. The test compares images:
    Wilcoxon's signed ranks of each image's mean difference. The interval comes from leaving out one image at a time
    (`rank_biserial_interval`). The q-values hold under any dependence between units; all that come together are one
    family.

    Args:
        difference: treated less original, for each image, draw and unit.
        level: coverage of the interval, between 0 and 1.

    Returns:
        nan for units with a difference that is not finite, and where all differences are 0.

    Raises:
        InputError: no image or no draw, or a level not between 0 and 1.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> found = clustered_contrast(rng.normal([1.0, 0.0], 1.0, (50, 10, 2)))
        >>> found.q.round(3), found.low.round(2), found.high.round(2)
        (array([0., 1.]), array([ 0.75, -0.12]), array([0.86, 0.08]))
    """
    images, draws, units = difference.shape
    if not images or not draws:
        message = f"a contrast needs at least 1 image and 1 draw, got {images} and {draws}: check the data's filter"
        raise InputError(message)
    with np.errstate(invalid="ignore"):  # infinities of both signs; their units are nan
        means = difference.mean(axis=1, dtype=np.float64)
        mean = means.mean(axis=0)
    every = signed_ranks(difference.reshape(images * draws, units))
    test = signed_ranks(means).test(zero_method="pratt")
    low, high = rank_biserial_interval(difference, level=level)
    return ClusteredContrast(
        images=images,
        difference=np.where(np.isfinite(mean), mean, np.nan),
        test=test,
        q=by_qvalues(test.p),
        rank_biserial=every.rank_biserial,
        low=low,
        high=high,
        zero_share=every.zero_share,
    )


def rank_biserial_interval(
    difference: Float[np.ndarray, "n r u"], *, level: float = 0.95
) -> tuple[Float[np.ndarray, "u"], Float[np.ndarray, "u"]]:
    """Interval of the rank-biserial correlation of all differences, images being what was sampled.

    R+ - R- is the sum of `sign(d_i + d_j)` over all pairs `i <= j` (Tukey's Walsh averages), so the correlation without
    one image follows exactly from one sort of all differences. The delete-one-image jackknife (Tukey 1958; Efron and
    Stein 1981) gives the standard error, and Student's t with n - 1 degrees of freedom gives the limits on Fisher's
    scale, `artanh`, which keeps them between -1 and 1. They are too narrow where few images hold all of the other sign:
    in simulations with 90 % of the variance between images they covered 92 to 97 % up to a correlation of 0.84 with 30
    images or more, and 80 % at 0.995 with 100. Where all differences have one sign the jackknife is blind; the limit
    then is `2 a**(2 / n) - 1` with `a = (1 - level) / 2`: at most a share `1 - a**(1 / n)` of all images has another
    sign (Clopper and Pearson 1934), and at worst it wins all its pairs.

    Args:
        difference: treated less original, for each image, draw and unit.
        level: coverage, between 0 and 1.

    Returns:
        Low and high; nan for fewer than two images, all differences 0, and a difference that is not finite.

    Raises:
        InputError: the level is not between 0 and 1.

    Example:
        >>> low, high = rank_biserial_interval(np.array([1.0, -2.0, 3.0, 4.0, -0.5])[:, None, None])
        >>> low.round(2), high.round(2)
        (array([-0.82]), array([0.97]))
    """
    normal_quantile(level)  # refuses levels outside 0 to 1
    images, draws, units = difference.shape
    low, high = np.full(units, np.nan), np.full(units, np.nan)
    if images < _FEWEST or not draws:
        return low, high
    quantile = float(special.stdtrit(images - 1, (1 + level) / 2))
    one_sided = 2 * ((1 - level) / 2) ** (2 / images) - 1
    for block in unit_blocks(units, images=images * draws):
        effect, error = _jackknife(difference[:, :, block])
        perfect = np.abs(effect) == 1
        inner = np.where(perfect, 0.0, effect)
        half = quantile * error / (1 - inner**2)
        below, above = np.tanh(np.arctanh(inner) - half), np.tanh(np.arctanh(inner) + half)
        low[block] = np.where(perfect, np.where(effect > 0, one_sided, -1.0), below)
        high[block] = np.where(perfect, np.where(effect > 0, 1.0, -one_sided), above)
    return low, high


def _jackknife(difference: np.ndarray) -> tuple[Float[np.ndarray, "u"], Float[np.ndarray, "u"]]:
    """Rank-biserial correlation, and its standard error from leaving out one image at a time."""
    images, draws, units = difference.shape
    own, unsound = _finite(difference.reshape(images * draws, units))
    by_image = own.reshape(difference.shape)
    signs = np.sign(by_image).sum(axis=1, dtype=np.float64)
    within = signs.copy()
    for draw in range(draws - 1):
        pairs = by_image[:, draw + 1 :] + by_image[:, draw, None]
        within += 2 * np.sign(pairs).sum(axis=1, dtype=np.float64)
    across = _pair_signs(own, draws=draws)
    count, rest = float(images * draws), float((images - 1) * draws)
    # each sum runs over ordered pairs: one image leaves with its row, its column, and back comes what was taken twice
    whole = (across.sum(axis=0) + signs.sum(axis=0)) / (count * (count + 1))
    left = (across.sum(axis=0) - 2 * across + within + signs.sum(axis=0) - signs) / (rest * (rest + 1))
    error = np.sqrt((images - 1) * left.var(axis=0))
    void = (unsound > 0) | (own == 0).all(axis=0)
    return np.where(void, np.nan, whole), np.where(void, np.nan, error)


def _pair_signs(own: np.ndarray, *, draws: int) -> Float[np.ndarray, "n u"]:
    """For each image and unit, the sum over its draws i and over all differences j of `sign(d_i + d_j)`."""
    count, units = own.shape
    ordered = sort_units(np.abs(own))
    signs = np.sign(np.take_along_axis(own.T, ordered.order, axis=1)).astype(np.int64)
    starts = _places(ordered)
    # the larger of two decides the sign of their sum; equal ones of other sign add up to 0
    balance = np.add.reduceat(signs.ravel(), starts)
    positive = np.add.reduceat((signs.ravel() > 0).astype(np.int64), starts)
    first = np.searchsorted(ordered.rows, np.arange(units))
    above = np.add.reduceat(balance, first)[ordered.rows] - _running(balance, first, ordered.rows)
    smaller, over, positives, negatives = (
        np.repeat(group, ordered.sizes).reshape(signs.shape)
        for group in (ordered.starts, above, positive, positive - balance)
    )
    sums = over + signs * smaller + np.where(signs > 0, positives, np.where(signs < 0, -negatives, 0))
    cells = ordered.order // draws + (count // draws) * np.arange(units)[:, None]
    by_image = np.bincount(cells.ravel(), weights=sums.ravel(), minlength=units * (count // draws))
    return by_image.reshape(units, -1).T


def _running(values: np.ndarray, first: np.ndarray, rows: np.ndarray) -> Int[np.ndarray, "t"]:
    """Sum up to and with each group, begun anew in each row."""
    total = values.cumsum()
    before = total[first] - values[first]
    return np.asarray(total - before[rows])


def _places(ordered: SortedBlock) -> Int[np.ndarray, "t"]:
    """Where each group of ties starts among all places of the block."""
    return np.asarray(ordered.starts + ordered.rows * ordered.order.shape[1])


def _finite(difference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The differences with 0 for those not finite, unit by unit in memory; and how many of each unit are not."""
    own = np.array(difference.T, order="C")
    unsound = ~np.isfinite(own)
    own[unsound] = 0.0
    return own.T, unsound.sum(axis=1)
