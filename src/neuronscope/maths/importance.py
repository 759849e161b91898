"""Which units of a layer matter for a class, told from class statistics alone: scores, thresholds, masks, budgets.

A *score* says how much a unit carries a class: (units, classes), larger is more important, nan is undefined. The
scores here compare a unit's mean for a class with its means for the other classes (*contrasts*). A mean alone is not
contrastive: a unit that is active for every class would be important for all of them.

Two older rules are here as they were, defects included, so that their published numbers can be had again: percentile
thresholds on class means, and masks from tests against fixed thresholds. `contrastive_mask` is the second one put
right: every unit is compared with itself, the evidence is ranked by z, which does not run into p = 1 as a probability
does, and what counts as evidence is corrected for the number of units and classes looked at.

Everything is per layer. The statistic of a unit is one number per image, such as the spatial mean of its map; its class
moments come from `selectivity.class_moments` or from a stream. Scores that need gradients or ablations are not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Int8
from scipy import linalg, special

from neuronscope.errors import InputError
from neuronscope.maths.ranks import spearman
from neuronscope.maths.resampling import bh_qvalues

ON, OFF, LEAVE = 1, 0, -1
"""Codes of a mask: hold the unit on, hold it off, leave it alone."""

_ROUNDING = 1e-12
"""Relative size below which a difference or spread is taken for rounding, not for variation."""

_DEVIATION_FLOOR = 1e-8
"""What the original adds to every standard deviation, in units of activation."""

_DAMPING = 0.9
"""Each further step of a path counts less: r times the spectral radius in Inf-FS, below 1 so that the sum is finite."""


# These two stand first because rules are made, and checked, while this file is read.
def _fraction(value: float, name: str) -> None:
    if not 0 <= value <= 1:
        message = f"{name} lies between 0 and 1, got {value}"
        raise InputError(message)


def _percentile(value: float) -> None:
    if not 0 <= value <= 100:  # noqa: PLR2004 per cent
        message = (
            f"percentiles lie between 0 and 100, got {value}; for a share of the layer use Budget('fraction', ...)"
        )
        raise InputError(message)


@dataclass(frozen=True)
class MaskingRule:
    """Parameters of the original's masking rule; the defaults are those its main script uses.

    Attributes:
        high: a class mean above it is evidence for ON, in units of activation.
        low: a class mean below it is evidence for OFF, in units of activation.
        confidence: probability that the evidence must exceed, 0 to 1.
        base: fraction of the first layer's units that may be held on, and as many off, 0 to 1.
        largest: the same for the last layer, 0 to 1.

    Raises:
        InputError: a confidence or fraction outside 0 to 1, or thresholds that are not finite.
    """

    high: float = 0.55
    low: float = 1e-5
    confidence: float = 0.9
    base: float = 0.1
    largest: float = 0.3

    def __post_init__(self) -> None:
        for name in ("confidence", "base", "largest"):
            _fraction(getattr(self, name), name)
        if not np.isfinite([self.high, self.low]).all():
            message = f"thresholds of the masking rule are finite activations, got high={self.high}, low={self.low}"
            raise InputError(message)


MASKING_DEFAULTS = MaskingRule(high=0.5, low=1e-6, confidence=0.8)
"""What the original's functions use when they are called without parameters, which its main script never does."""


@dataclass(frozen=True)
class Thresholded:
    """Units of a layer on either side of a threshold per class; units exactly on it, and nan, are on neither side.

    Attributes:
        thresholds: in units of activation; nan for classes without images.
        above: the class mean is above the threshold: the original's *important* units.
        below: the class mean is below the threshold: the original's *unimportant* units.
    """

    thresholds: Float[np.ndarray, "c"]
    above: Bool[np.ndarray, "u c"]
    below: Bool[np.ndarray, "u c"]


@dataclass(frozen=True)
class ContrastTest:
    """Evidence that units prefer classes, or avoid them.

    Attributes:
        z: the contrast in standard errors.
        freedom: degrees of freedom of the standard error; infinite where nothing varies within the classes.
        p_higher: one-sided p-value of the unit being higher for the class than for the others.
        p_lower: of it being lower.
    """

    z: Float[np.ndarray, "u c"]
    freedom: Float[np.ndarray, "u c"]
    p_higher: Float[np.ndarray, "u c"]
    p_lower: Float[np.ndarray, "u c"]


@dataclass(frozen=True)
class Budget:
    """How many units of a layer are chosen for each class.

    Attributes:
        kind: `fraction` of the layer's units; `count` of units; `percentile` of the layer's scores, above which
            a unit is chosen.
        amount: 0 to 1, a whole number of at least 0, or 0 to 100.
        rounding: of a fraction of the layer that is not a whole number of units.

    Raises:
        InputError: an amount outside its range.

    Example:
        >>> Budget("fraction", 0.3).units(64), Budget("fraction", 0.3, rounding="floor").units(64)
        (20, 19)
    """

    kind: Literal["fraction", "count", "percentile"]
    amount: float
    rounding: Literal["ceil", "floor"] = "ceil"

    def __post_init__(self) -> None:
        if self.kind == "fraction":
            _fraction(self.amount, "a budget's fraction of the layer")
        elif self.kind == "percentile":
            _percentile(self.amount)
        elif not (self.amount >= 0 and float(self.amount).is_integer()):
            message = (
                f"a budget counts whole units, 0 or more, got {self.amount}; for a share use Budget('fraction', ...)"
            )
            raise InputError(message)

    def units(self, layer: int) -> int | None:
        """Units to choose in a layer with `layer` units; None for percentiles, where the scores decide."""
        if self.kind == "percentile":
            return None
        if self.kind == "count":
            return min(int(self.amount), layer)
        share = self.amount * layer
        # 0.07 of 100 units is 7.000000000000001 in floating point and means 7
        whole = round(share)
        if abs(share - whole) < _ROUNDING * layer:
            return whole
        return int(np.ceil(share) if self.rounding == "ceil" else np.floor(share))


def contrast(means: Float[np.ndarray, "u c"]) -> Float[np.ndarray, "u c"]:
    """How much higher a unit is for a class than for the other classes on average, in units of activation.

    Mean of the class minus the mean of the other classes' means, each class counting the same however many images
    it has. Differences within rounding (1e-12 of the unit's largest class mean) are 0.

    Args:
        means: class means; nan for classes without images, which are left out.

    Returns:
        nan for classes without images, and where fewer than two classes have images.

    Example:
        >>> contrast(np.array([[3.0, 1.0, 2.0]]))
        array([[ 1.5, -1.5,  0. ]])
    """
    means = means.astype(np.float64)
    present = ~np.isnan(means)
    number = present.sum(axis=1, keepdims=True)
    total = np.where(present, means, 0.0).sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = means - (total - means) / (number - 1)
        negligible = np.abs(difference) <= _ROUNDING * _size(means)
    return np.where(negligible, 0.0, np.where(number > 1, difference, np.nan))


def scaled_contrast(
    means: Float[np.ndarray, "u c"], variances: Float[np.ndarray, "u c"], counts: Int[np.ndarray, "c"]
) -> Float[np.ndarray, "u c"]:
    """The contrast in standard deviations of the unit over all images, comparable between units and layers.

    Args:
        means: class means; nan for classes without images.
        variances: population variances within each class (divided by the count).
        counts: images of each class.

    Returns:
        nan where `contrast` is, and for constant units.

    Example:
        >>> scaled_contrast(np.array([[1.0, 0.0]]), np.array([[0.0, 0.0]]), np.array([4, 4]))
        array([[ 2., -2.]])
    """
    present, mean, variance = _present(means, variances, counts)
    share = counts / max(int(counts.sum()), 1)
    grand = (mean @ share)[:, None]
    spread = np.sqrt((variance + np.where(present, mean - grand, 0.0) ** 2) @ share)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.where(spread > _ROUNDING * _size(mean), spread, np.nan)
        return np.asarray(contrast(np.where(present, means, np.nan)) / spread)


def contrast_test(
    means: Float[np.ndarray, "u c"], variances: Float[np.ndarray, "u c"], counts: Int[np.ndarray, "c"]
) -> ContrastTest:
    """Whether a unit prefers a class to the other classes, or avoids it: the contrast in standard errors, and p-values.

    `z = (m_c - mean of the other m_k) / sqrt(v_c / n_c + sum of the other v_k / n_k / (K - 1)**2)`, with `K` classes
    that have images and `v` the unbiased variance within each class. No equal variances are assumed: p comes from
    Student's distribution with Welch and Satterthwaite's degrees of freedom (Welch 1947). A class of one image has no
    variance of its own: the unit's pooled variance within classes stands in. For skewed activations and few images the
    test leans towards *lower*, by about skewness / (2 sqrt(n)) in z.

    Args:
        means: class means; nan for classes without images.
        variances: population variances within each class (divided by the count).
        counts: images of each class.

    Returns:
        z is infinite where classes are apart and nothing varies within them; everything is nan for constant units,
        where `contrast` is, and where no class has two images.

    Example:
        >>> found = contrast_test(np.array([[1.0, 0.0]]), np.array([[1.0, 1.0]]), np.array([9, 9]))
        >>> found.z, found.freedom, found.p_higher.round(3)
        (array([[ 2., -2.]]), array([[16., 16.]]), array([[0.031, 0.969]]))
    """
    present, mean, variance = _present(means, variances, counts)
    variance = np.where(np.sqrt(variance) > _ROUNDING * _size(mean), variance, 0.0)
    freedom = np.maximum(counts - 1, 0)
    number = present.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        pooled = (variance @ counts / freedom.sum())[:, None]
        error = np.where(counts > 1, variance / np.maximum(freedom, 1), pooled)  # squared, of each class mean
        error = np.where(present, error, 0.0)
        doubt = error**2 / np.where(counts > 1, freedom, freedom.sum())
        doubt = np.where(present, doubt, 0.0)
        # the rest weighs less than the class's own share: what is taken from the sum is put back, and nothing cancels
        squared = error + (error.sum(axis=1, keepdims=True) - error) / (number - 1) ** 2
        doubt = doubt + (doubt.sum(axis=1, keepdims=True) - doubt) / (number - 1) ** 4
        z = contrast(np.where(present, means, np.nan)) / np.sqrt(squared)
        freedom_of_z = np.where(np.isnan(z), np.nan, np.where(doubt > 0, squared**2 / doubt, np.inf))
    # where nothing varies z is infinite, and so are the degrees of freedom
    settled = np.isinf(z)
    finite = np.where(settled, 1.0, freedom_of_z)
    higher, lower = (special.stdtr(finite, np.where(settled, 0.0, sign * z)) for sign in (-1, 1))
    return ContrastTest(z, freedom_of_z, np.where(settled, z < 0, higher), np.where(settled, z > 0, lower))


def contrast_z(
    means: Float[np.ndarray, "u c"], variances: Float[np.ndarray, "u c"], counts: Int[np.ndarray, "c"]
) -> Float[np.ndarray, "u c"]:
    """The contrast in standard errors, as a score: how sure it is that a unit prefers a class (see `contrast_test`).

    Unlike a probability, z keeps telling strong evidence from stronger: above z = 8.3 the normal distribution function
    is exactly 1, and the units there are all tied.

    Example:
        >>> contrast_z(np.array([[1.0, 0.0]]), np.array([[1.0, 1.0]]), np.array([9, 9]))
        array([[ 2., -2.]])
    """
    return contrast_test(means, variances, counts).z


def fixed_threshold_z(
    means: Float[np.ndarray, "u c"],
    variances: Float[np.ndarray, "u c"],
    counts: Int[np.ndarray, "c"],
    *,
    threshold: float,
) -> Float[np.ndarray, "u c"]:
    """The original's evidence that a class mean is above a fixed activation: `(m - threshold) / SE`.

    `SE = (s + 1e-8) / sqrt(n)` with the population standard deviation `s` of the class. Not contrastive, and the same
    threshold for every unit and layer: where no mean comes near it, as in early layers, nothing is ever found.

    Args:
        means: class means; nan for classes without images.
        variances: population variances within each class (divided by the count).
        counts: images of each class.
        threshold: in units of activation.

    Returns:
        nan for classes without images.

    Example:
        >>> fixed_threshold_z(np.array([[1.0]]), np.array([[1.0]]), np.array([4]), threshold=0.5).round(4)
        array([[1.]])
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        error = (np.sqrt(variances.astype(np.float64)) + _DEVIATION_FLOOR) / np.sqrt(counts)
        return np.where(counts > 0, (means - threshold) / error, np.nan)


def threshold_by_percentile(means: Float[np.ndarray, "u c"], *, percentile: float = 70.0) -> Thresholded:
    """The original's thresholding rule: units whose class mean is above a percentile of the layer's class means.

    The percentile interpolates linearly between units; both comparisons are strict. Not contrastive: a unit that is
    active for every class is important for all of them.

    Args:
        means: class means; nan stands for classes without images and units that are not finite, and is left out.
        percentile: 0 to 100.

    Raises:
        InputError: a percentile outside 0 to 100.

    Example:
        >>> threshold_by_percentile(np.array([[1.0], [2.0], [3.0]]), percentile=50).above.ravel()
        array([False, False,  True])
    """
    _percentile(percentile)
    thresholds = np.array([_percentile_of(column, percentile) for column in means.T], dtype=np.float64)
    return Thresholded(thresholds, means > thresholds, means < thresholds)


def layer_fractions(layers: int, *, base: float = 0.1, largest: float = 0.3) -> Float[np.ndarray, "{layers}"]:
    """Fraction of each layer's units that the masking rule may hold on (and as many off), growing with depth.

    `base + o / (L - 1) * (largest - base)` for layer `o` of `L`; a single layer has `base`. The original counts its
    output layer among the `L`, and leaves that layer's units alone.

    Raises:
        InputError: fewer than one layer, or a fraction outside 0 to 1.

    Example:
        >>> layer_fractions(3)
        array([0.1, 0.2, 0.3])
    """
    if layers < 1:
        message = f"fractions are given to at least 1 layer, got {layers}"
        raise InputError(message)
    _fraction(base, "base")
    _fraction(largest, "largest")
    return base + np.arange(layers) / max(layers - 1, 1) * (largest - base)


def fix_count(units: int, *, fraction: float) -> int:
    """Units of a layer that the masking rule may hold on, and as many off: the whole part of `units * fraction`.

    Raises:
        InputError: a fraction outside 0 to 1.

    Example:
        >>> fix_count(128, fraction=0.26)
        33
    """
    _fraction(fraction, "fraction")
    return int(np.floor(units * fraction))


def original_mask(
    means: Float[np.ndarray, "u c"],
    variances: Float[np.ndarray, "u c"],
    counts: Int[np.ndarray, "c"],
    *,
    fraction: float,
    rule: MaskingRule = MaskingRule(),
    ties: Literal["original", "stable"] = "stable",
) -> Int8[np.ndarray, "u c"]:
    """The original's masking rule, defects included: 1 ON, 0 OFF, -1 leave alone.

    `p_high = 1 - Phi((high - m) / SE)` and `p_low = Phi((low - m) / SE)`, as in `fixed_threshold_z`. Of the first
    `fix_count` units by falling `p_high`, those with `p_high > confidence` are ON; then, of the first `fix_count` by
    *rising* `p_low`, those with `p_low > confidence` are OFF, even where they were ON.

    Known defects, kept: `p_high` is exactly 1 for many units, so the order among them has nothing to do with evidence;
    the units least likely to be off are the ones looked at for OFF, so that OFF hardly ever happens; thresholds do not
    know the scale of a layer.

    Args:
        means: class means; nan for classes without images: their units are left alone.
        variances: population variances within each class (divided by the count).
        counts: images of each class.
        fraction: of the layer's units, see `layer_fractions`.
        rule: thresholds and confidence; its fractions are not used here.
        ties: order of units with equal p. `stable`: by their numbers. `original`: as NumPy's default sort leaves them,
            turned round for `p_high`; that depends on the version of NumPy and on the processor.

    Raises:
        InputError: a fraction outside 0 to 1.

    Example:
        >>> original_mask(np.array([[1.0], [0.0]]), np.array([[0.1], [0.1]]), np.array([50]), fraction=0.5).ravel()
        array([ 1, -1], dtype=int8)
    """
    allowed = fix_count(len(means), fraction=fraction)
    high = 1 - special.ndtr(-fixed_threshold_z(means, variances, counts, threshold=rule.high))
    low = special.ndtr(-fixed_threshold_z(means, variances, counts, threshold=rule.low))
    mask = np.full(means.shape, LEAVE, dtype=np.int8)
    for c in range(means.shape[1]):
        # nan would come first when a sorted order is turned round: it gets a p that is looked at last
        falling = _falling(np.nan_to_num(high[:, c], nan=-1.0), ties=ties)[:allowed]
        mask[falling[high[falling, c] > rule.confidence], c] = ON
        kind: Literal["stable", "quicksort"] = "stable" if ties == "stable" else "quicksort"
        rising = np.argsort(low[:, c], kind=kind)[:allowed]
        mask[rising[low[rising, c] > rule.confidence], c] = OFF
    return mask


def contrastive_mask(
    means: Float[np.ndarray, "u c"],
    variances: Float[np.ndarray, "u c"],
    counts: Int[np.ndarray, "c"],
    *,
    fraction: float,
    confidence: float = 0.9,
) -> Int8[np.ndarray, "u c"]:
    """The masking rule put right: units that prefer a class are 1 (ON), units that avoid it 0 (OFF), others -1.

    For each class the units are ranked by `contrast_z`. ON are those of the `fix_count` largest that are positive with
    a q-value below `1 - confidence`; OFF are those of the `fix_count` smallest that are negative with such a q-value.
    The q-values are Benjamini and Hochberg's over one family: every unit and class of the layer, with its one-sided
    p-values for *higher* and for *lower* (the directional procedure of Benjamini and Yekutieli 2005), so at most
    `1 - confidence` of all ON and OFF are expected to be false or of the wrong sign. Equal z are ordered by unit
    number.

    Args:
        means: class means; nan for classes without images: their units are left alone, as are constant ones.
        variances: population variances within each class (divided by the count).
        counts: images of each class.
        fraction: of the layer's units, see `layer_fractions`.
        confidence: 0 to 1.

    Raises:
        InputError: a fraction or a confidence outside 0 to 1.

    Example:
        >>> means, variances = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 2.0]]), np.ones((3, 2))
        >>> contrastive_mask(means, variances, np.array([50, 50]), fraction=0.34)
        array([[ 1,  0],
               [-1, -1],
               [ 0,  1]], dtype=int8)
    """
    _fraction(confidence, "confidence")
    allowed = fix_count(len(means), fraction=fraction)
    found = contrast_test(means, variances, counts)
    z = found.z
    higher, lower = bh_qvalues(np.stack([found.p_higher, found.p_lower])) < 1 - confidence
    mask = np.full(means.shape, LEAVE, dtype=np.int8)
    first = _first(z, allowed)
    last = _first(-z, allowed)
    mask[first & higher & (z > 0)] = ON
    mask[last & lower & (z < 0)] = OFF
    return mask


def choose(scores: Float[np.ndarray, "u c"], *, budget: Budget) -> Bool[np.ndarray, "u c"]:
    """The units of a layer with the highest scores for each class, as many as the budget allows.

    Equal scores are ordered by unit number. Undefined scores (nan) are never chosen, even if that leaves fewer than the
    budget. A percentile is that of the class's defined scores, and the comparison is strict, as in
    `threshold_by_percentile`.

    Args:
        scores: larger is more important.
        budget: the same for every class.

    Example:
        >>> choose(np.array([[0.5, 1.0], [0.5, np.nan], [0.1, 3.0]]), budget=Budget("count", 1))
        array([[ True, False],
               [False, False],
               [False,  True]])
    """
    number = budget.units(len(scores))
    if number is None:
        return threshold_by_percentile(scores, percentile=budget.amount).above
    return _first(scores, number)


def inf_fs(
    features: Float[np.ndarray, "n d"],
    *,
    alpha: float = 0.5,
    correlation: Literal["spearman", "pearson"] = "spearman",
) -> Float[np.ndarray, "d"]:
    """Infinite feature selection: how much a feature varies and differs from the others, along paths of any length.

    `A_ij = alpha max(s_i, s_j) + (1 - alpha) (1 - |rho_ij|)` with standard deviations `s`, here as shares of the
    largest one so that both terms are 0 to 1, and rank correlations `rho`. Scores are the row sums of `(I - r A)**-1 -
    I` with `r = 0.9 / spectral radius of A`: the sum over all paths that start at a feature, longer ones damped (Roffo,
    Melzi and Cristani 2015, "Infinite feature selection", ICCV; the unsupervised variant; programs differ in how they
    scale the deviations). NISP starts from these scores, of the responses of the last layer before the outputs, and
    takes them back through the network (Yu et al. 2018, 1711.05908).

    Args:
        features: one row per image.
        alpha: weight of variation against dissimilarity, 0 to 1.
        correlation: of ranks, as published, or linear.

    Returns:
        Scores of at least 0; larger is more important. Features that never change are left out of the graph and score
        0: no path leads through them. (Counted as uncorrelated with everything, they would score high.)

    Raises:
        InputError: alpha outside 0 to 1, or features that are not finite.

    Example:
        >>> x = np.array([[0.0, 0.0, 1.0], [1.0, 1.0, 0.0], [2.0, 2.0, 0.0], [3.0, 3.0, 1.0]])
        >>> int(inf_fs(x).argmax())  # the first two say the same
        2
    """
    _fraction(alpha, "alpha")
    if not np.isfinite(features).all():
        bad = np.flatnonzero(~np.isfinite(features).all(axis=0))
        message = f"features are finite numbers, but {len(bad)} columns are not, first {bad[0]}; leave these units out"
        raise InputError(message)
    features = features.astype(np.float64)
    scores = np.zeros(features.shape[1])
    deviation = features.std(axis=0)
    # by values: the deviation of a constant can be above 0 by rounding
    varying = np.flatnonzero((features != features[:1]).any(axis=0) & (deviation > 0))
    if not varying.size:
        return scores
    features, deviation = features[:, varying], deviation[varying] / deviation[varying].max()
    related = spearman(features, features) if correlation == "spearman" else _pearson(features)
    apart = 1 - np.abs(related)
    apart = np.where(apart > _ROUNDING, apart, 0.0)
    adjacency = alpha * np.maximum.outer(deviation, deviation) + (1 - alpha) * (apart + apart.T) / 2
    last = len(varying) - 1
    radius = linalg.eigh(adjacency, eigvals_only=True, subset_by_index=[last, last])[0]
    if radius > 0:
        paths = np.eye(len(varying)) - _DAMPING / radius * adjacency
        scores[varying] = linalg.solve(paths, np.ones(len(varying)), assume_a="pos") - 1
    return scores


def _size(means: np.ndarray) -> np.ndarray:
    """Largest class mean of each unit in absolute value, (u, 1): what rounding errors are measured by."""
    return np.asarray(np.nan_to_num(np.abs(means)).max(axis=1, keepdims=True, initial=0.0))


def _present(means: np.ndarray, variances: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where a unit has a class mean (u, c), and means and variances in float64 with 0 for classes without images."""
    present = (counts > 0) & ~np.isnan(means)
    empty = counts == 0
    # a unit that is nan in a class with images stays nan in what is summed over its classes
    return (
        present,
        np.where(empty, 0.0, means.astype(np.float64)),
        np.where(empty, 0.0, variances.astype(np.float64)),
    )


def _percentile_of(column: np.ndarray, percentile: float) -> float:
    known = column[~np.isnan(column)]
    return float(np.percentile(known, percentile)) if known.size else float("nan")


def _falling(p: np.ndarray, *, ties: Literal["original", "stable"]) -> np.ndarray:
    return np.asarray(np.argsort(-p, kind="stable") if ties == "stable" else np.argsort(p)[::-1])


def _first(scores: np.ndarray, number: int) -> Bool[np.ndarray, "u c"]:
    """The `number` highest of each column, ties by row; nan is never among them."""
    order = np.argsort(-scores, axis=0, kind="stable")  # nan goes last
    chosen = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(chosen, order[:number], values=True, axis=0)
    return np.asarray(chosen & ~np.isnan(scores))


def _pearson(features: np.ndarray) -> np.ndarray:
    centred = features - features.mean(axis=0)
    centred = centred / np.sqrt((centred**2).sum(axis=0))
    return np.asarray(np.clip(centred.T @ centred, -1.0, 1.0))
