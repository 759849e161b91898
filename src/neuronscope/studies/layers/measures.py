"""What is said of every unit: arithmetic on a sweep's answers, a block of layers at a time.

What needs more than a block is finished when all blocks are joined (`studies.layers.study`), so that nothing depends on
how layers were grouped or split: a variable whose name ends in `_p` is a p-value and becomes the q-value of that name
over all units, one named in `SHARES` becomes a share of its layer's total, and `LayerSums` of a layer's parts add up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from neuronscope.maths import ranks, resampling, selectivity
from neuronscope.maths.streams import MomentsAnswer
from neuronscope.studies.layers.setting import Setting
from neuronscope.units import LayerInfo

NEAR_DEAD = 0.01
"""A unit active in fewer than this fraction of the images is near-dead."""

SHARES = ("contribution", "contribution_low", "contribution_high")
"""Variables that are divided by their layer's total of the first of them when all blocks are joined."""

LEVELS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Quantile levels of the activation distributions."""

_INFORMATION_DRAWS = 20
_PRECISION_AT = 60

Variable = tuple[tuple[str, ...], np.ndarray, str, str]
"""Axes, values, meaning, unit of measure."""


def activation_variables(setting: Setting, found: dict[str, Any]) -> dict[str, Variable]:
    """Moments, rates, quantiles, and which units are dead."""
    mean, peak, square = found["mean"], found["max"], found["square"]
    low, high = _interval(mean, level=setting.spec.level)
    spread = square.mean - mean.mean**2
    spread = np.where(spread > 1e-6 * square.mean, spread, 0.0)  # float32 squares: below that it is rounding
    broken = mean.nonfinite > 0
    dead = (spread == 0) & (mean.variance == 0)
    active = found["max"].rate
    near = ~dead & (active < NEAR_DEAD)
    quantiles = np.stack([found["histogram"].quantile(level) for level in LEVELS], axis=1)
    pooled = found["max"] if setting.spec.pool == "max" else mean
    quantiles[:, 0], quantiles[:, -1] = pooled.low, pooled.high
    return {
        "mean": (("unit",), mean.mean, "mean activation over images and positions", ""),
        "mean_low": (("unit",), low, "mean activation, lower limit", ""),
        "mean_high": (("unit",), high, "mean activation, upper limit", ""),
        "variance": (("unit",), mean.variance, "variance over images of the map's mean", ""),
        "variance_all": (("unit",), np.where(broken, np.nan, spread), "variance over images and positions", ""),
        "active": (("unit",), active, "fraction of images with a positive activation anywhere", "fraction"),
        "density": (
            ("unit",),
            found["rate"].mean,
            "fraction of images and positions with a positive value",
            "fraction",
        ),
        "peak": (("unit",), peak.high, "largest activation anywhere", ""),
        "dead": (("unit",), np.where(broken, -1, dead).astype(np.int8), "1: never varies; -1: not finite", ""),
        "near_dead": (("unit",), near.astype(np.int8), "1: active in under 1 % of the images", ""),
        "quantile": (("unit", "level"), quantiles, "quantiles over images of the pooled activation", ""),
    }


def selectivity_variables(setting: Setting, scores: np.ndarray, labels: np.ndarray) -> dict[str, Variable]:
    """Indices of class selectivity, each beside its null, interval or q-value."""
    spec, run, classes = setting.spec, setting.run, setting.classes
    units = scores.shape[1]
    moments = selectivity.class_moments(scores, labels, classes=classes)
    options = {"classes": classes}
    present = np.flatnonzero(moments.counts)
    if len(present) < 2:  # noqa: PLR2004 selectivity compares at least two classes
        return _no_selectivity(units, classes)
    epsilon = 1e-6 if "ratio-epsilon" in spec.legacy else 0.0

    def ratio(means: np.ndarray) -> np.ndarray:
        return selectivity.ratio_selectivity(means, epsilon=epsilon)

    nulls = resampling.permutation_nulls(
        scores,
        labels,
        **options,
        statistics={
            "csi": selectivity.class_selectivity_index,
            "ratio": ratio,
            "between": between_classes(labels, classes=classes),
        },
        draws=spec.draws,
        rng=run.generator("layers", "null"),
    )
    csi, between, ratio_null = nulls["csi"], nulls["between"], nulls["ratio"]
    with np.errstate(invalid="ignore"):  # units with infinite activations are nan throughout
        total = scores[labels >= 0].var(axis=0)
    csi_low, csi_high = resampling.bootstrap_interval(
        scores,
        labels,
        **options,
        statistic=selectivity.class_selectivity_index,
        rng=run.generator("layers", "bootstrap"),
        draws=200,
        level=spec.level,
    )
    halves = resampling.split_half(scores, labels, **options, rng=run.generator("layers", "halves"), splits=spec.splits)
    areas = ranks.rank_sums(scores, labels, **options)
    area, test = ranks.auroc_from_ranks(areas), ranks.auroc_pvalues(areas)
    held = held_out_auroc(scores, labels, classes=classes, level=spec.level, rng=run.generator("layers", "held-out"))
    dprime = selectivity.dprime(moments.means, moments.variances, moments.counts)
    information = selectivity.mutual_information(scores, labels, classes=classes)
    shuffler = run.generator("layers", "information")
    shuffled = [
        selectivity.mutual_information(scores, shuffler.permutation(labels), classes=classes)
        for _ in range(_INFORMATION_DRAWS)
    ]
    known = int((labels >= 0).sum())
    one, pair = ("unit",), ("unit", "class")
    ratio_value = np.nan_to_num(ratio(moments.means), nan=0.0) if epsilon else ratio(moments.means)
    return {
        "preferred": (one, _argmax(moments.means), "class with the largest mean activation (-1: none)", ""),
        "csi": (one, csi.observed, "class selectivity index, uncorrected (Morcos 2018)", ""),
        "csi_low": (one, csi_low, "class selectivity index, lower bootstrap limit", ""),
        "csi_high": (one, csi_high, "class selectivity index, upper bootstrap limit", ""),
        "csi_null": (one, csi.mean, "class selectivity index of permuted labels: its noise floor", ""),
        "csi_p": (one, csi.p, "q-value of the index over all units (permutation)", ""),
        "csi_split": (
            one,
            halves.index,
            "class selectivity index, class chosen on one half, measured on the other",
            "",
        ),
        "reliability": (one, halves.reliability, "split-half reliability of the class profile", ""),
        "ratio": (one, ratio_value, "largest class mean over the sum of class means", ""),
        "ratio_null": (one, ratio_null.mean, "the same for permuted labels", ""),
        "class_share": (
            one,
            between.observed / total,
            "share of the variance over images explained by class",
            "fraction",
        ),
        "class_share_null": (one, between.mean / total, "the share that chance explains", "fraction"),
        "class_share_p": (
            one,
            between.p,
            "q-value of the share over all units (permutation)",
            "",
        ),
        "auroc": (one, held.area, "one-vs-rest AUROC of the class chosen on the other half of the images", ""),
        "auroc_low": (one, held.low, "held-out AUROC, lower limit", ""),
        "auroc_high": (one, held.high, "held-out AUROC, upper limit", ""),
        "auroc_class": (one, held.chosen, "class of the held-out AUROC (-1: none)", ""),
        "auroc_p": (one, held.p, "q-value of the held-out AUROC over all units", ""),
        "dprime": (one, _pick(dprime, _argmax(dprime)), "largest one-vs-rest d'", "standard deviations"),
        "information": (one, information, "mutual information with the class, Miller-Madow corrected", "bit"),
        "information_null": (one, np.mean(shuffled, axis=0), "the same for permuted labels", "bit"),
        "sparseness": (one, selectivity.lifetime_sparseness(scores), "lifetime sparseness", ""),
        "precision": (
            one,
            selectivity.precision_at(scores, labels, **options, n=min(_PRECISION_AT, known)),
            f"share of the top class among the {min(_PRECISION_AT, known)} highest images",
            "fraction",
        ),
        "effective_classes": (one, selectivity.effective_classes(moments.means), "effective number of classes", ""),
        "class_mean": (pair, moments.means, "mean activation by class", ""),
        "class_sd": (pair, np.sqrt(moments.variances), "standard deviation over the images of a class", ""),
        "class_auroc": (pair, area, "one-vs-rest AUROC", ""),
        "class_auroc_p": (pair, test.p, "q-value over all units and classes (Mann-Whitney)", ""),
        "class_dprime": (pair, dprime, "one-vs-rest d'", "standard deviations"),
    }


def between_classes(labels: np.ndarray, *, classes: int) -> resampling.Statistic:
    """Variance of a unit's class means, weighted by class size.

    Divided by the unit's variance over images, which no permutation of the labels changes, it is eta squared: the share
    of the variance that class explains.
    """
    counts = np.bincount(labels[labels >= 0], minlength=classes)
    weights = counts[counts > 0] / counts.sum()

    def statistic(means: np.ndarray) -> np.ndarray:
        grand = (means @ weights)[..., None]
        return np.asarray((means - grand) ** 2 @ weights)

    return statistic


@dataclass(frozen=True)
class HeldOut:
    """AUROC of the class chosen on other images."""

    chosen: np.ndarray
    area: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray


def held_out_auroc(
    scores: np.ndarray, labels: np.ndarray, *, classes: int, level: float, rng: np.random.Generator
) -> HeldOut:
    """Choose each unit's class on one random half of every class, measure its area on the other half."""
    order = rng.permutation(len(labels))
    rank_in_class = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        mine = order[labels[order] == label]
        rank_in_class[mine] = np.arange(len(mine))
    first = rank_in_class % 2 == 0
    chosen = _argmax(np.abs(ranks.auroc(scores[first], labels[first], classes=classes) - 0.5))
    held = ranks.rank_sums(scores[~first], labels[~first], classes=classes)
    area, test = ranks.auroc_from_ranks(held), ranks.auroc_pvalues(held)
    low, high = ranks.auroc_interval(area, held.counts, level=level)
    return HeldOut(chosen, _pick(area, chosen), _pick(low, chosen), _pick(high, chosen), _pick(test.p, chosen))


def extreme_variables(found: dict[str, Any]) -> dict[str, Variable]:
    """Top and bottom images of each unit, with the place in its map."""
    variables: dict[str, Variable] = {}
    for end in ("top", "bottom"):
        lists = found[end]
        axes = ("unit", "rank")
        variables[f"{end}_value"] = (axes, lists.value.T, f"activation of the {end} images", "")
        variables[f"{end}_image"] = (axes, lists.index.T, f"row numbers of the {end} images (-1: none)", "")
        variables[f"{end}_at"] = (axes, lists.where.T, "row-major position of the activation in the map", "")
    return variables


def importance_variables(setting: Setting, found: dict[str, Any]) -> dict[str, Variable]:
    """Gradient times activation: signed mean with interval, and the mean size whose share of the layer is wanted."""
    signed, size, by_class = found["all"], found["size"], found["by_class"]
    low, high = _interval(signed, level=setting.spec.level)
    size_low, size_high = _interval(size, level=setting.spec.level)
    return {
        "attribution": (("unit",), signed.mean, "mean gradient x activation of the explained logit", "logit"),
        "attribution_low": (("unit",), low, "mean gradient x activation, lower limit", "logit"),
        "attribution_high": (("unit",), high, "mean gradient x activation, upper limit", "logit"),
        "contribution": (
            ("unit",),
            size.mean,
            "share of the layer's absolute gradient x activation",
            "fraction",
        ),
        "contribution_low": (("unit",), size_low, "the share, lower limit for the layer's total", "fraction"),
        "contribution_high": (("unit",), size_high, "the share, upper limit for the layer's total", "fraction"),
        "class_attribution": (("unit", "class"), by_class.mean.T, "mean gradient x activation by class", "logit"),
    }


def shares(values: np.ndarray, sizes: np.ndarray, places: Iterable[slice]) -> np.ndarray:
    """Each unit's share of the total size of its layer; nan in layers whose total is 0."""
    whole = np.full_like(sizes, np.nan)
    for place in places:
        total = np.nansum(sizes[place])
        whole[place] = total if total > 0 else np.nan
    return np.asarray(values / whole)


@dataclass(frozen=True)
class LayerSums:
    """What the units of a layer do together in each image; the sums of its parts add up to those of the layer.

    Attributes:
        total, squares: sum of the units' scores and of their squares, for each image.
        usable: no score is negative or NaN, as population sparseness needs it.
    """

    total: Float[np.ndarray, "n"]
    squares: Float[np.ndarray, "n"]
    usable: bool

    @classmethod
    def of(cls, scores: Float[np.ndarray, "n u"]) -> LayerSums:
        """The sums of some units."""
        with np.errstate(invalid="ignore", over="ignore"):  # broken units: what comes of them is nan
            return cls(scores.sum(axis=1), (scores**2).sum(axis=1), bool((scores >= 0).all()))

    def __add__(self, other: LayerSums) -> LayerSums:
        """The sums of both sets of units."""
        with np.errstate(invalid="ignore"):
            return LayerSums(
                self.total + other.total, self.squares + other.squares, usable=self.usable and other.usable
            )

    def population_sparseness(self, *, units: int) -> float:
        """Mean over images of `(1 - a) / (1 - 1/u)`, `a = (mean of z)**2 / (mean of z**2)` over the `u` units.

        Equal to the mean of `selectivity.population_sparseness`, which sees all units at once.

        Returns:
            nan for one unit, where a score is negative or NaN, and where no unit responds to any image.
        """
        if not self.usable or units < 2:  # noqa: PLR2004 sparseness compares at least two
            return float("nan")
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            equality = self.total**2 / self.squares / units
            sparse = np.clip((1 - equality) / (1 - 1 / units), 0.0, 1.0)
        finite = sparse[np.isfinite(sparse)]
        return float(finite.mean()) if finite.size else float("nan")


def layer_rows(
    setting: Setting, scores: np.ndarray, labels: np.ndarray, *, before: LayerSums | None
) -> tuple[list[dict[str, Any]], LayerSums | None]:
    """One row for each layer that ends here, and the sums of one that goes on in the next block.

    Args:
        setting: the block.
        scores: (n, units of the block).
        labels: class of each image.
        before: sums of the earlier parts of the block's first layer; None where there are none.
    """
    rows = []
    for layer in setting.layers:
        own = LayerSums.of(scores[:, setting.by_layer[layer.name]])
        sums = own if before is None else before + own
        before = None if layer.is_last else sums
        if layer.is_last:
            rows.append(_layer_row(setting, setting.subject.layer(layer.name), sums, labels))
    return rows, before


def _layer_row(setting: Setting, layer: LayerInfo, sums: LayerSums, labels: np.ndarray) -> dict[str, Any]:
    """Responses by class with intervals, and population sparseness."""
    moments = selectivity.class_moments(sums.total[:, None] / layer.units, labels, classes=setting.classes)
    mean = moments.means[0]
    low, high = resampling.mean_interval(mean, moments.variances[0], moments.counts, level=setting.spec.level)
    return {
        "layer_name": layer.name,
        "kind": layer.kind,
        "shape": "x".join(map(str, layer.shape)),
        "units": layer.units,
        "response": mean,
        "response_low": low,
        "response_high": high,
        "population_sparseness": sums.population_sparseness(units=layer.units),
    }


def _interval(moments: MomentsAnswer, *, level: float) -> tuple[np.ndarray, np.ndarray]:
    count = int(moments.count)
    return resampling.mean_interval(moments.mean, moments.variance * (count - 1) / count, count, level=level)


def _no_selectivity(units: int, classes: int) -> dict[str, Variable]:
    """Without two labelled classes there is nothing to prefer."""
    nan = np.full(units, np.nan)
    names = ("csi", "csi_p", "class_share", "class_share_p", "auroc", "auroc_p", "reliability")
    none = dict.fromkeys(names, (("unit",), nan, "undefined: fewer than two labelled classes", ""))
    means = np.full((units, classes), np.nan)
    return {**none, "class_mean": (("unit", "class"), means, "mean activation by class", "")}


def _argmax(values: np.ndarray) -> np.ndarray:
    """Column of each row's largest number, -1 where all are nan."""
    empty = np.isnan(values).all(axis=1)
    return np.where(empty, -1, np.where(np.isnan(values), -np.inf, values).argmax(axis=1))


def _pick(values: np.ndarray, column: np.ndarray) -> np.ndarray:
    picked = np.take_along_axis(values, np.maximum(column, 0)[:, None], axis=1)[:, 0]
    return np.where(column >= 0, picked, np.nan)
