"""Is it these units, or would any do? Random control sets, paired changes in accuracy, and curves of removal.

Silencing many units hurts whichever they are. A finding about a set of units therefore stands beside random sets with
as many units in every layer (`matched_sets`, `against_controls`). Accuracy before and after an edit is of the same
images, so the change is judged by the images that changed (`paired_accuracy_change`). A ranking of units is judged by
the accuracy as its units are put in or taken out one after another (`curve_area`, `area_between`).

q-values over many such findings: `resampling.bh_qvalues` and `by_qvalues`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import special

from neuronscope.errors import InputError, UnknownName, nearest
from neuronscope.maths.ranks import labelled, normal_quantile
from neuronscope.maths.resampling import bootstrap_interval

DRAWS_FOR_PERMUTATION = 1000
"""From this many controls on, p-values and limits are counted; below, they are those of a normal distribution."""

_ROUNDING = 1e-12
"""A control that equals the observed value but for rounding counts as reaching it."""

_HALVINGS = 60
"""Bisections of the interval -1 to 1 that holds a change in accuracy: to 2e-18."""


@dataclass(frozen=True)
class MatchedSets:
    """Random sets of units, as many per layer as the set they are compared with.

    Attributes:
        masks: per layer, True for the units of each draw.
        shared: per layer, units of every draw that had to come from the set to avoid, as too few others were left;
            0 where the draws are disjoint from it.
    """

    masks: dict[str, Bool[np.ndarray, "draws units"]]
    shared: dict[str, int]


@dataclass(frozen=True)
class ControlComparison:
    """A finding among its random controls.

    Attributes:
        observed: the finding.
        mean: mean of the controls.
        deviation: their standard deviation (divided by draws - 1).
        low: lower limit of where a random control falls, at the level asked for.
        high: upper limit.
        p_greater: chance of a random control at least as high.
        p_less: chance of one at least as low.
        p: two-sided, twice the smaller of both, at most 1.
        null: "permutation", the controls are counted, `(1 + reached) / (1 + draws)`; or "t", the controls are taken
            as normally distributed, `(observed - mean) / (deviation sqrt(1 + 1 / draws))` follows Student's t with
            `draws - 1` degrees of freedom. Where all controls are equal there is no t, and p-values are counted.
        draws: number of controls.
    """

    observed: Float[np.ndarray, "*s"]
    mean: Float[np.ndarray, "*s"]
    deviation: Float[np.ndarray, "*s"]
    low: Float[np.ndarray, "*s"]
    high: Float[np.ndarray, "*s"]
    p_greater: Float[np.ndarray, "*s"]
    p_less: Float[np.ndarray, "*s"]
    p: Float[np.ndarray, "*s"]
    null: Literal["permutation", "t"]
    draws: int

    @property
    def excess(self) -> Float[np.ndarray, "*s"]:
        """The finding above the mean of its controls."""
        return np.asarray(self.observed - self.mean)


@dataclass(frozen=True)
class AccuracyChange:
    """Accuracy after an edit minus accuracy before, on the same images.

    Attributes:
        change: fraction of images, -1 to 1.
        low: lower limit (Tango 1998).
        high: upper limit.
        p: McNemar's exact two-sided p-value: could as many gains and losses come about by a fair coin?
        gained: images that are right after and were wrong before.
        lost: images that are wrong after and were right before.
        images: images counted.
    """

    change: Float[np.ndarray, "*s"]
    low: Float[np.ndarray, "*s"]
    high: Float[np.ndarray, "*s"]
    p: Float[np.ndarray, "*s"]
    gained: Int[np.ndarray, "*s"]
    lost: Int[np.ndarray, "*s"]
    images: Int[np.ndarray, "*s"]


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: the estimate.
        low: lower limit.
        high: upper limit.
    """

    value: Float[np.ndarray, "*s"]
    low: Float[np.ndarray, "*s"]
    high: Float[np.ndarray, "*s"]


@dataclass(frozen=True)
class CurveAreas:
    """Areas under the insertion and the deletion curve of a ranking, and between them.

    Attributes:
        insertion: mean accuracy while the units are put in, most important first (0 to 1, high for a good ranking).
        deletion: mean accuracy while they are taken out, most important first (0 to 1, low for a good ranking).
        between: insertion minus deletion (-1 to 1, high for a good ranking).
    """

    insertion: Estimate
    deletion: Estimate
    between: Estimate


def matched_sets(
    counts: Mapping[str, int],
    sizes: Mapping[str, int],
    *,
    draws: int,
    rng: np.random.Generator,
    avoid: Mapping[str, Bool[np.ndarray, "_"]] | None = None,
) -> MatchedSets:
    """Random sets of units with the same number of units in every layer.

    Every set of the right size is equally likely. Layers have streams of their own, and draws come one after another,
    so that more draws begin with the same ones.

    Args:
        counts: units to draw, per layer.
        sizes: units there are, per layer.
        draws: number of sets.
        rng: source of all randomness.
        avoid: per layer, True for units that controls must not have, such as those of the finding itself. Where
            fewer than `counts` others are left, all of these are taken and the rest comes from the units to avoid;
            `MatchedSets.shared` says how many. Layers not named avoid nothing.

    Raises:
        UnknownName: a layer in `counts` or `avoid` has no size.
        InputError: fewer than one draw, a count outside 0 to the layer's size, or a mask of another length.

    Example:
        >>> own = {"conv1": np.array([True, True, False, False, False])}
        >>> sets = matched_sets(
        ...     {"conv1": 2}, {"conv1": 5}, draws=100, rng=np.random.default_rng(0), avoid=own
        ... )
        >>> sets.masks["conv1"].sum(axis=0)[:2], sets.shared
        (array([0, 0]), {'conv1': 0})
    """
    avoid = avoid or {}
    _check_layers(counts, sizes, avoid, draws=draws)
    masks, shared = {}, {}
    for (layer, count), stream in zip(counts.items(), rng.spawn(len(counts)), strict=True):
        size = sizes[layer]
        unwanted = avoid.get(layer, np.zeros(size, dtype=bool))
        # units to avoid come last in the random order
        keys = stream.random((draws, size)) + unwanted
        mask = np.zeros((draws, size), dtype=bool)
        np.put_along_axis(mask, np.argsort(keys, axis=1)[:, :count], values=True, axis=1)
        masks[layer] = mask
        shared[layer] = max(0, count - (size - int(unwanted.sum())))
    return MatchedSets(masks, shared)


def against_controls(
    observed: Float[np.ndarray, "*s"], controls: Float[np.ndarray, "draws *s"], *, level: float = 0.95
) -> ControlComparison:
    """Where a finding stands among the same measurement on random controls.

    From 1,000 controls on, limits are their quantiles and p-values are counted, with the finding among the draws
    (Phipson and Smyth 2010): no assumption, and no p below `1 / (draws + 1)`. With fewer, as q-values over many units
    need smaller p, a stated assumption takes over: controls are normally distributed, so that another control falls
    at `mean +- t deviation sqrt(1 + 1 / draws)` (the prediction interval of a normal sample). Accuracies near 0 or 1
    are skewed, for which "t" is rough in the far tail.

    Args:
        observed: the finding, any axes.
        controls: the same of each random control, along the first axis.
        level: coverage of `low` to `high`, between 0 and 1.

    Returns:
        nan where the finding or a control is nan.

    Raises:
        InputError: fewer than two controls, or a level not between 0 and 1.

    Example:
        >>> controls = np.random.default_rng(0).normal(size=(20, 1))
        >>> found = against_controls(np.array([4.0]), controls)
        >>> found.null, bool(found.p[0] < 0.001), bool(found.high[0] < 4.0)
        ('t', True, True)
    """
    normal_quantile(level)  # refuses levels outside 0 to 1
    draws = len(controls)
    if draws < 2:  # noqa: PLR2004 a deviation needs two
        message = f"at least 2 controls are needed to say how they scatter, got {draws}; 20 or more serve intervals"
        raise InputError(message)
    observed, controls = observed.astype(np.float64), controls.astype(np.float64)
    void = np.isnan(observed) | np.isnan(controls).any(axis=0)
    mean, deviation = controls.mean(axis=0), controls.std(axis=0, ddof=1)
    slack = _ROUNDING * np.abs(observed)
    equal = np.ptp(controls, axis=0) <= _ROUNDING * np.abs(mean)
    deviation = np.where(equal, 0.0, deviation)
    p_greater = (1 + (controls >= observed - slack).sum(axis=0)) / (1 + draws)
    p_less = (1 + (controls <= observed + slack).sum(axis=0)) / (1 + draws)
    if draws >= DRAWS_FOR_PERMUTATION:
        low, high = np.quantile(controls, ((1 - level) / 2, (1 + level) / 2), axis=0)
    else:
        spread = deviation * np.sqrt(1 + 1 / draws)
        t = (observed - mean) / np.where(equal, 1.0, spread)
        p_greater = np.where(equal, p_greater, special.stdtr(draws - 1, -t))
        p_less = np.where(equal, p_less, special.stdtr(draws - 1, t))
        half = special.stdtrit(draws - 1, (1 + level) / 2) * spread
        low, high = mean - half, mean + half
    p = np.minimum(2 * np.minimum(p_greater, p_less), 1.0)
    return ControlComparison(
        observed=np.where(void, np.nan, observed),
        mean=np.where(void, np.nan, mean),
        deviation=np.where(void, np.nan, deviation),
        low=np.where(void, np.nan, low),
        high=np.where(void, np.nan, high),
        p_greater=np.where(void, np.nan, p_greater),
        p_less=np.where(void, np.nan, p_less),
        p=np.where(void, np.nan, p),
        null="permutation" if draws >= DRAWS_FOR_PERMUTATION else "t",
        draws=draws,
    )


def paired_accuracy_change(
    before: Bool[np.ndarray, "n"], after: Bool[np.ndarray, "m n"], *, level: float = 0.95
) -> AccuracyChange:
    """How much accuracy each of `m` edits costs or brings, with an interval for the same images before and after.

    The limits are those of Tango's score interval (1998): the changes that a score test with the nuisance parameter
    at its constrained maximum likelihood does not reject. It keeps its level for small changes and few images, where
    Wald's interval and Newcombe's method 10 shrink to nothing; without any changed image it is
    `+- z^2 / (n + z^2)`. The p-value is McNemar's exact one (the binomial test on the images that changed), somewhat
    cautious. So limits may exclude 0 when p is just above `1 - level`.

    Args:
        before: which images are right without the edit.
        after: which are right with each edit.
        level: coverage, between 0 and 1.

    Returns:
        nan (p as well) where there is no image.

    Raises:
        InputError: a level not between 0 and 1.

    Example:
        >>> before = np.arange(100) < 90
        >>> after = np.arange(100)[None] < 80
        >>> found = paired_accuracy_change(before, after)
        >>> found.change.round(3), found.low.round(3), found.high.round(3), found.p.round(4)
        (array([-0.1]), array([-0.174]), array([-0.055]), array([0.002]))
    """
    found = paired_accuracy_change_by_class(
        before, after, np.zeros(len(before), dtype=np.int64), classes=1, level=level
    )
    return AccuracyChange(
        **{name: getattr(found, name)[:, 0] for name in ("change", "low", "high", "p", "gained", "lost", "images")}
    )


def paired_accuracy_change_by_class(
    before: Bool[np.ndarray, "n"],
    after: Bool[np.ndarray, "m n"],
    labels: Int[np.ndarray, "n"],
    *,
    classes: int,
    level: float = 0.95,
) -> AccuracyChange:
    """As `paired_accuracy_change` on the images of each class, (m, c); nan for classes without images.

    Args:
        before: which images are right without the edit.
        after: which are right with each edit.
        labels: class of each image, 0 to `classes - 1`; -1 leaves the image out.
        classes: number of classes.
        level: coverage, between 0 and 1.

    Raises:
        InputError: fewer than one class, not one label per image, or a level not between 0 and 1.
        DataError: a label below -1 or not below `classes`.
    """
    changed, labels = labelled((after.astype(np.float64) - before).T, labels, classes=classes)
    gained = _per_class(changed.T > 0, labels, classes=classes)
    lost = _per_class(changed.T < 0, labels, classes=classes)
    images = np.broadcast_to(np.bincount(labels, minlength=classes), gained.shape).copy()
    change = (gained - lost) / np.where(images > 0, images, np.nan)
    low, high = _tango_interval(gained, lost, images, level=level)
    p = mcnemar_exact(gained, lost)
    return AccuracyChange(change, low, high, np.where(images > 0, p, np.nan), gained, lost, images)


def mcnemar_exact(gained: Int[np.ndarray, "*s"], lost: Int[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
    """McNemar's exact two-sided p-value: the binomial test that gains and losses are equally likely; 1 without any.

    Example:
        >>> mcnemar_exact(np.array([0, 2]), np.array([5, 2]))
        array([0.0625, 1. ])
    """
    p = 2 * special.bdtr(np.minimum(gained, lost).astype(np.float64), gained + lost, 0.5)
    return np.asarray(np.minimum(p, 1.0))


def curve_area(fractions: Float[np.ndarray, "f"], values: Shaped[np.ndarray, "steps *s"]) -> Float[np.ndarray, "*s"]:
    """Area under a curve by the trapezoid rule, over the range of its fractions: the mean height.

    Args:
        fractions: places along the curve, rising, such as the share of units put in.
        values: heights, along the first axis.

    Raises:
        InputError: fewer than two steps, or fractions that do not rise.

    Example:
        >>> curve_area(np.array([0.0, 0.5, 1.0]), np.array([0.0, 1.0, 1.0]))
        array(0.75)
    """
    return np.asarray(np.tensordot(_trapezoid(fractions, len(values)), values.astype(np.float64), axes=(0, 0)))


def area_between(
    fractions: Float[np.ndarray, "f"],
    insertion: Shaped[np.ndarray, "steps *s n"],
    deletion: Shaped[np.ndarray, "..."],
    *,
    rng: np.random.Generator,
    draws: int = 1000,
    level: float = 0.95,
) -> CurveAreas:
    """Areas under and between insertion and deletion curves, with bootstrap intervals over the images.

    An area is linear in the curve, so it is the mean over images of each image's own area, and so is the difference:
    drawing images again keeps insertion and deletion, and all rankings, on the same images. Percentile limits.

    Args:
        fractions: share of units put in, and taken out, at each step, rising.
        insertion: whether each image is right (or another outcome of it, such as a probability) at each step, for
            any number of rankings.
        deletion: the same while units are taken out.
        rng: source of all randomness.
        draws: number of bootstrap samples.
        level: coverage, between 0 and 1.

    Returns:
        nan without images; intervals are nan for a single one, and have no width where all images agree.

    Raises:
        InputError: fewer than two steps or draws, fractions that do not rise, curves of different shapes, or a level
            not between 0 and 1.

    Example:
        >>> right = np.array([[0, 0], [1, 0], [1, 1]], dtype=bool)
        >>> found = area_between(
        ...     np.array([0.0, 0.5, 1.0]), right, right[::-1], rng=np.random.default_rng(0)
        ... )
        >>> found.insertion.value, found.between.value
        (array(0.5), array(0.))
    """
    images = insertion.shape[-1]
    found = area_between_by_class(
        fractions,
        insertion,
        deletion,
        np.zeros(images, dtype=np.int64),
        classes=1,
        rng=rng,
        draws=draws,
        level=level,
    )
    parts = (found.insertion, found.deletion, found.between)
    return CurveAreas(*(Estimate(part.value[..., 0], part.low[..., 0], part.high[..., 0]) for part in parts))


def area_between_by_class(
    fractions: Float[np.ndarray, "f"],
    insertion: Shaped[np.ndarray, "steps *s n"],
    deletion: Shaped[np.ndarray, "..."],
    labels: Int[np.ndarray, "n"],
    *,
    classes: int,
    rng: np.random.Generator,
    draws: int = 1000,
    level: float = 0.95,
) -> CurveAreas:
    """As `area_between` on the images of each class, (..., c); nan for classes without images.

    Args:
        fractions: share of units put in, and taken out, at each step, rising.
        insertion: whether each image is right at each step, for any number of rankings.
        deletion: the same while units are taken out.
        labels: class of each image, 0 to `classes - 1`; -1 leaves the image out.
        classes: number of classes.
        rng: source of all randomness.
        draws: number of bootstrap samples.
        level: coverage, between 0 and 1.

    Raises:
        InputError: as in `area_between`, fewer than one class, or not one label per image.
        DataError: a label below -1 or not below `classes`.
    """
    if insertion.shape != deletion.shape:
        message = (
            f"insertion {insertion.shape} and deletion {deletion.shape} are curves over the same steps, rankings and "
            "images; give both the same shape"
        )
        raise InputError(message)
    put_in, taken_out = curve_area(fractions, insertion), curve_area(fractions, deletion)
    areas = np.stack([put_in, taken_out, put_in - taken_out])
    lead, images = areas.shape[:-1], areas.shape[-1]
    per_image, labels = labelled(areas.reshape(-1, images).T, labels, classes=classes)
    value = np.full((3, per_image.shape[1], classes), np.nan)  # mean, low, high
    for c, stream in enumerate(rng.spawn(classes)):
        own = per_image[labels == c]
        if not len(own):
            continue
        value[0, :, c] = own.mean(axis=0)
        value[1:, :, c] = bootstrap_interval(
            own,
            np.zeros(len(own), dtype=np.int64),
            classes=1,
            statistic=_only_class,
            rng=stream,
            draws=draws,
            level=level,
        )
        if len(own) > 1:  # images that all agree leave nothing to draw again
            same = (own == own[0]).all(axis=0)
            value[1:, same, c] = value[0, same, c]
    shaped = value.reshape(3, *lead, classes)
    return CurveAreas(*(Estimate(*shaped[:, part]) for part in range(3)))


def _only_class(means: np.ndarray) -> np.ndarray:
    return means[..., 0]


def _check_layers(
    counts: Mapping[str, int], sizes: Mapping[str, int], avoid: Mapping[str, np.ndarray], *, draws: int
) -> None:
    if draws < 1:
        message = f"at least 1 draw is needed, got {draws}"
        raise InputError(message)
    for layer in (*counts, *avoid):
        if layer not in sizes:
            message = f"layer '{layer}' has no size among the {len(sizes)} layers.{nearest(layer, sizes)}"
            raise UnknownName(message)
    for layer, count in counts.items():
        if not 0 <= count <= sizes[layer]:
            message = f"{count} units cannot be drawn from layer '{layer}', which has {sizes[layer]}"
            raise InputError(message)
    for layer, mask in avoid.items():
        if len(mask) != sizes[layer]:
            message = f"the units to avoid in layer '{layer}' are a mask of {len(mask)}; it has {sizes[layer]} units"
            raise InputError(message)


def _per_class(happened: np.ndarray, labels: np.ndarray, *, classes: int) -> Int[np.ndarray, "m c"]:
    rows, images = np.nonzero(happened)
    counts = np.bincount(rows * classes + labels[images], minlength=len(happened) * classes)
    return counts.reshape(len(happened), classes)


def _tango_interval(
    gained: np.ndarray, lost: np.ndarray, images: np.ndarray, *, level: float
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Where the score statistic of a change, which falls as the change grows, is within the normal quantile."""
    z = normal_quantile(level)
    void = images == 0
    n = np.where(void, 1, images).astype(np.float64)
    change = (gained - lost) / n

    def limit(side: float) -> np.ndarray:
        inner, outer = change, np.full(n.shape, side)
        for _ in range(_HALVINGS):
            middle = (inner + outer) / 2
            within = np.abs(_tango_score(gained, lost, n, middle)) <= z
            inner, outer = np.where(within, middle, inner), np.where(within, outer, middle)
        return np.where(void, np.nan, (inner + outer) / 2)

    return limit(-1.0), limit(1.0)


def _tango_score(gained: np.ndarray, lost: np.ndarray, n: np.ndarray, change: np.ndarray) -> np.ndarray:
    """`(gained - lost - n D) / sqrt(n (2 q + D (1 - D)))` (Tango 1998); q is the likeliest share of losses at D."""
    linear = -gained - lost + (2 * n - gained + lost) * change
    constant = -lost * change * (1 - change)
    # of the two roots the greater; rounding must not push what is under the root below 0
    share = (np.sqrt(np.maximum(linear**2 - 8 * n * constant, 0)) - linear) / (4 * n)
    variance = n * (2 * share + change * (1 - change))
    apart = gained - lost - n * change
    with np.errstate(divide="ignore", invalid="ignore"):
        score = apart / np.sqrt(np.maximum(variance, 0))
    return np.where(apart == 0, 0.0, score)


def _trapezoid(fractions: np.ndarray, steps: int) -> Float[np.ndarray, "steps"]:
    """Weight of each step in the mean height of a curve; they add up to 1."""
    if len(fractions) != steps or steps < 2 or not (np.diff(fractions) > 0).all():  # noqa: PLR2004 an area has two ends
        message = (
            f"a curve needs at least two steps and one fraction for each, rising; got {steps} steps and the "
            f"{len(fractions)} fractions {np.array2string(fractions, threshold=6, edgeitems=3)}"
        )
        raise InputError(message)
    widths = np.diff(fractions.astype(np.float64))
    weights = np.zeros(steps)
    weights[:-1] += widths / 2
    weights[1:] += widths / 2
    return np.asarray(weights / widths.sum())
