"""What does every layer and unit respond to? One forward sweep, one backward sweep, and arithmetic.

The program this study comes from (seed: MNIST CNN visualisation) keeps whole activation tensors, looks at the first
1,000 images and reports a ratio without any null. Here one pass folds every measurement, selectivity is reported with
its noise floor removed, and a unit that cannot be told from noise is shown as such.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import nn

from neuronscope.checkpoint import digest
from neuronscope.data.dataset import Data
from neuronscope.errors import InputError, UnknownName, nearest
from neuronscope.maths import ranks, resampling, selectivity
from neuronscope.maths.streams import (
    ClassMoments,
    Confusion,
    Decisions,
    DecisionsAnswer,
    Each,
    Histogram,
    Moments,
    MomentsAnswer,
    Reducer,
    StackRows,
    TopK,
)
from neuronscope.models.subject import Subject
from neuronscope.result import Provenance, Result, circumstances, peak_memory, unit_table, versions
from neuronscope.run import Run
from neuronscope.steps import GradientTimesActivation, Observe, Step, columns
from neuronscope.studies.layers.page import layers_page
from neuronscope.studies.layers.spec import LEGACY, LayersSpec
from neuronscope.sweep import Plan, PlannedSweep, Swept, estimate, planned, sweep, unfinished
from neuronscope.units import LayerInfo

NEAR_DEAD = 0.01
"""A unit active in fewer than this fraction of the images is near-dead."""

LEVELS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Quantile levels of the activation distributions."""

_FIRST = 1000  # images of the deviation `first-1000`
_MOST_EXAMPLES = 10
_SMALL = 64  # pixels: images up to this side are shown whole, larger ones as receptive-field crops
_CROP = 56  # pixels: side of a shown crop
_FEW = 12  # units a layer in the gallery of large images
_FEW_BOTTOM = 4  # units a layer whose weakest images are shown
_INFORMATION_DRAWS = 20
_PRECISION_AT = 60

Variable = tuple[tuple[str, ...], np.ndarray, str, str]


@dataclass(frozen=True)
class Setting:
    """The study's arguments after its deviations and defaults are settled."""

    subject: Subject
    data: Data
    spec: LayersSpec
    run: Run
    layers: tuple[LayerInfo, ...]

    @property
    def classes(self) -> int:
        """Number of outputs of the network."""
        return len(self.subject.classes)

    @property
    def by_layer(self) -> dict[str, slice]:
        """Layer name -> its rows in the unit table."""
        return columns(self.layers)


def run_layers(subject: Subject, data: Data, spec: LayersSpec | None = None, *, run: Run | None = None) -> Result:
    """What every layer and unit responds to, how selectively, and how sure one can be.

    Args:
        subject: the network.
        data: the images; labels are needed for selectivity (without them those quantities are nan).
        spec: options; the defaults suit small and large networks.
        run: seed, device, batch size, progress.

    Returns:
        Groups `units` (one row per unit: activation moments, selectivity with null, interval and q-value, top and
        bottom images, importance), `layers`, `decisions` (one row per image), `examples`, `maps/LAYER`, `filters`,
        `exemplars`.

    Raises:
        UnknownName: a layer pattern or deviation that does not exist.
        InputError: labels beyond the network's outputs, or no images.

    Example:
        >>> import neuronscope as ns
        >>> subject = ns.load_model("builtin:viewer-cnn", weights="random")
        >>> data = ns.load_data("digits", limit=40)
        >>> result = ns.run_layers(subject, data, ns.LayersSpec(layers=("conv_layers.1",), draws=19))
        >>> len(result.units())
        32
    """
    started = time.perf_counter()
    setting = settle(subject, data, spec or LayersSpec(), run or Run())
    seen = sweep(setting.subject, setting.data, *observation(setting), run=setting.run, name="observe")
    pulled = None
    if setting.spec.gradient != "none":
        pulled = sweep(setting.subject, setting.data, *attribution(setting), run=setting.run, name="attribute")
    unfinished(setting.run)
    tree = assemble(setting, seen, pulled)
    provenance = Provenance(
        study="layers",
        spec=_plain(asdict(setting.spec)),
        legacy=setting.spec.legacy,
        subject=setting.subject.name,
        subject_fingerprint=setting.subject.fingerprint,
        data=setting.data.name,
        data_fingerprint=setting.data.fingerprint,
        images=seen.images,
        skipped=seen.skipped,
        nonfinite=_nonfinite(setting, seen.answer["mean"].nonfinite),
        circumstances=circumstances(setting.run),
        versions=versions(),
        seconds=time.perf_counter() - started,
        peak_memory=peak_memory(),
    )
    return Result(tree, provenance, view=layers_page)


def plan_layers(subject: Subject, data: Data, spec: LayersSpec | None = None, *, run: Run | None = None) -> Plan:
    """The sweeps `run_layers` will make, with passes, memory and time."""
    setting = settle(subject, data, spec or LayersSpec(), run or Run())
    jobs: list[tuple[str, Data, Step, Reducer[Any]]] = [("observe", setting.data, *observation(setting))]
    if setting.spec.gradient != "none":
        jobs.append(("attribute", setting.data, *attribution(setting)))
    most = (len(setting.spec.examples) or min(_MOST_EXAMPLES, setting.classes)) + setting.spec.wrong
    jobs.append(("examples", setting.data.take(range(min(most, len(setting.data)))), *feature_maps(setting)))
    sweeps: list[tuple[PlannedSweep, Step]] = [
        (planned(setting.subject, data, step, reducer, run=setting.run, name=name), step)
        for name, data, step, reducer in jobs
    ]
    return estimate(setting.subject, setting.data, sweeps, run=setting.run)


def settle(subject: Subject, data: Data, spec: LayersSpec, run: Run) -> Setting:
    """Apply deviations, choose layers, and refuse what cannot work.

    Raises:
        UnknownName: a deviation or layer that does not exist.
        InputError: a label beyond the network's outputs, or an example row beyond the data.
    """
    for name in spec.legacy:
        if name not in LEGACY:
            message = (
                f"'{name}' is not a deviation of the layers study.{nearest(name, LEGACY)} All: {', '.join(LEGACY)}"
            )
            raise UnknownName(message)
    if "raw-input" in spec.legacy:
        subject = replace(subject, preprocess=replace(subject.preprocess, mean=(), std=()))
    if "first-1000" in spec.legacy:
        data = data.take(range(min(_FIRST, len(data))))
    if len(data) and int(data.labels.max()) >= len(subject.classes):
        message = (
            f"{data.name} has labels up to {data.labels.max()}, but {subject.name} has {len(subject.classes)} outputs: "
            "network and data do not belong together"
        )
        raise InputError(message)
    if any(not 0 <= row < len(data) for row in spec.examples):
        message = f"example row {max(spec.examples)} is not in {data.name}, which has {len(data)} images"
        raise InputError(message)
    named = replace(run, context=(*run.context, "layers", digest(spec)))
    return Setting(subject, data, spec, named, subject.select(*spec.layers))


def observation(setting: Setting) -> tuple[Observe, Reducer[dict[str, Any]]]:
    """The forward sweep: every measurement in one pass."""
    spec, classes = setting.spec, setting.classes
    where = "max_at" if spec.top_by == "max" else ""
    step = Observe(setting.layers, measures=("mean", "max", "rate", "square"))
    reducer = Each(
        mean=Moments("mean"),
        max=Moments("max"),
        rate=Moments("rate"),
        square=Moments("square"),
        top=TopK(spec.top_by, spec.top_k, where=where),
        bottom=TopK(spec.top_by, spec.top_k, where=where, end="smallest"),
        histogram=Histogram(spec.pool),
        confusion=Confusion("logits", classes=classes),
        decisions=Decisions("logits", images=len(setting.data)),
        scores=StackRows(spec.pool, images=len(setting.data)),
    )
    return step, reducer


def attribution(setting: Setting) -> tuple[GradientTimesActivation, Reducer[dict[str, Any]]]:
    """The backward sweep."""
    target: Literal["label", "prediction"] = "prediction" if setting.spec.gradient == "prediction" else "label"
    reducer = Each(
        all=Moments("attribution"),
        size=Moments("size"),
        by_class=ClassMoments("attribution", classes=setting.classes),
    )
    return GradientTimesActivation(setting.layers, target=target), reducer


def assemble(setting: Setting, seen: Swept[dict[str, Any]], pulled: Swept[dict[str, Any]] | None) -> xr.DataTree:
    """All groups of the result."""
    found = seen.answer
    scores, labels = found["scores"].values.astype(np.float64), found["scores"].label
    variables = {
        **activation_variables(setting, found),
        **selectivity_variables(setting, scores, labels),
        **extreme_variables(found),
        **(importance_variables(setting, pulled.answer) if pulled else {}),
    }
    units = unit_table(
        {layer.name: layer.units for layer in setting.layers},
        variables,
        **{"class": setting.subject.classes, "level": LEVELS},
    )
    decisions: DecisionsAnswer = found["decisions"]
    groups = {
        "/units": units,
        "/layers": layer_table(setting, scores, labels, units),
        "/decisions": decision_table(setting, decisions, found["confusion"]),
        **examples(setting, decisions),
        **filters(setting),
        **exemplars(setting, units),
    }
    return xr.DataTree.from_dict({"/": xr.Dataset(), **groups})


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
        "csi_q": (one, resampling.bh_qvalues(csi.p), "q-value of the index over all units (permutation)", ""),
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
        "class_share_q": (
            one,
            resampling.bh_qvalues(between.p),
            "q-value of the share over all units (permutation)",
            "",
        ),
        "auroc": (one, held.area, "one-vs-rest AUROC of the class chosen on the other half of the images", ""),
        "auroc_low": (one, held.low, "held-out AUROC, lower limit", ""),
        "auroc_high": (one, held.high, "held-out AUROC, upper limit", ""),
        "auroc_class": (one, held.chosen, "class of the held-out AUROC (-1: none)", ""),
        "auroc_q": (one, resampling.bh_qvalues(held.p), "q-value of the held-out AUROC over all units", ""),
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
        "class_auroc_q": (pair, resampling.bh_qvalues(test.p), "q-value over all units and classes (Mann-Whitney)", ""),
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
    """Gradient times activation: signed mean with interval, and each unit's share of its layer."""
    signed, size, by_class = found["all"], found["size"], found["by_class"]
    low, high = _interval(signed, level=setting.spec.level)
    share = np.full_like(size.mean, np.nan)
    for place in setting.by_layer.values():
        whole = np.nansum(size.mean[place])
        share[place] = size.mean[place] / whole if whole > 0 else np.nan
    return {
        "attribution": (("unit",), signed.mean, "mean gradient x activation of the explained logit", "logit"),
        "attribution_low": (("unit",), low, "mean gradient x activation, lower limit", "logit"),
        "attribution_high": (("unit",), high, "mean gradient x activation, upper limit", "logit"),
        "contribution": (("unit",), share, "share of the layer's absolute gradient x activation", "fraction"),
        "class_attribution": (("unit", "class"), by_class.mean.T, "mean gradient x activation by class", "logit"),
    }


def layer_table(setting: Setting, scores: np.ndarray, labels: np.ndarray, units: xr.Dataset) -> xr.Dataset:
    """One row per layer: responses by class with intervals, sparseness, counts of dead and selective units."""
    level = setting.spec.level
    rows = []
    for layer in setting.layers:
        place = setting.by_layer[layer.name]
        own = scores[:, place]
        response = own.mean(axis=1, keepdims=True)
        moments = selectivity.class_moments(response, labels, classes=setting.classes)
        mean = moments.means[0]
        low, high = resampling.mean_interval(mean, moments.variances[0], moments.counts, level=level)
        sparse = selectivity.population_sparseness(own) if (own >= 0).all() else np.full(len(own), np.nan)
        finite = sparse[np.isfinite(sparse)]
        rows.append(
            {
                "units": layer.units,
                "response": mean,
                "response_low": low,
                "response_high": high,
                "population_sparseness": finite.mean() if finite.size else np.nan,
                "dead": int((units["dead"].to_numpy()[place] == 1).sum()),
                "near_dead": int(units["near_dead"].to_numpy()[place].sum()),
                "selective": int((units["class_share_q"].to_numpy()[place] < 1 - level).sum()),
            }
        )
    stacked = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return xr.Dataset(
        {name: (("layer", "class") if values.ndim > 1 else ("layer",), values) for name, values in stacked.items()},
        coords={
            "layer_name": ("layer", np.array([layer.name for layer in setting.layers], dtype=object)),
            "kind": ("layer", np.array([layer.kind for layer in setting.layers], dtype=object)),
            "shape": ("layer", np.array(["x".join(map(str, layer.shape)) for layer in setting.layers], dtype=object)),
            "class_name": ("class", np.array(setting.subject.classes, dtype=object)),
        },
    )


def decision_table(setting: Setting, decisions: DecisionsAnswer, confusion: np.ndarray) -> xr.Dataset:
    """One row per image, and the confusion matrix."""
    ids = setting.data.ids
    names = [ids[row] for row in decisions.index] if ids else [str(row) for row in decisions.index]
    return xr.Dataset(
        {
            "row": ("image", decisions.index),
            "label": ("image", decisions.label),
            "predicted": ("image", decisions.predicted),
            "confidence": ("image", decisions.confidence),
            "rank_of_label": ("image", decisions.rank),
            "confusion": (("class", "predicted_class"), confusion),
        },
        coords={"image_name": ("image", np.array(names, dtype=object))},
    )


def feature_maps(setting: Setting) -> tuple[Observe, Reducer[dict[str, Any]]]:
    """The sweep over the examples: whole maps of every layer."""
    most = _MOST_EXAMPLES + setting.spec.wrong
    step = Observe(setting.layers, measures=("mean",), maps=tuple(layer.name for layer in setting.layers))
    maps = {f"maps/{layer.name}": StackRows(f"maps/{layer.name}", images=most) for layer in setting.layers}
    return step, Each(logits=StackRows("logits", images=most), **maps)


def example_rows(setting: Setting, decisions: DecisionsAnswer) -> list[int]:
    """The images shown step by step: the chosen ones (or one of each class), then some wrong decisions."""
    labels = setting.data.labels
    readable = {int(row) for row in decisions.index}
    chosen = [row for row in setting.spec.examples if row in readable]
    if not setting.spec.examples:
        present = [c for c in np.unique(labels) if c >= 0][:_MOST_EXAMPLES]
        firsts = [next((int(row) for row in np.flatnonzero(labels == c) if int(row) in readable), -1) for c in present]
        chosen = [row for row in firsts if row >= 0] or sorted(readable)[:_MOST_EXAMPLES]
    wrong = [int(row) for row in decisions.index[decisions.rank > 0] if int(row) not in chosen]
    return chosen + wrong[: setting.spec.wrong]


def examples(setting: Setting, decisions: DecisionsAnswer) -> dict[str, xr.Dataset]:
    """Feature maps of the example images at every layer, their frames and class probabilities."""
    rows = example_rows(setting, decisions)
    few = setting.data.take(rows)
    found = sweep(setting.subject, few, *feature_maps(setting), run=setting.run, name="examples").answer
    logits = torch.from_numpy(found["logits"].values).double()
    frames = [setting.subject.preprocess.frame(setting.data.read(row)).movedim(0, -1).numpy() for row in rows]
    groups = {}
    response = []
    for layer in setting.layers:
        values = found[f"maps/{layer.name}"].values
        flat = values.reshape(len(rows), layer.units, -1)
        response.append(flat.mean(axis=(1, 2)))
        if values.ndim != 4:  # noqa: PLR2004 (images, units, height, width): only maps have a place in `maps`
            continue
        shown = values[:, : setting.spec.channels]
        groups[f"/maps/{layer.name}"] = xr.Dataset(
            {
                "feature_map": xr.Variable(("image", "unit", "y", "x"), shown, {"long_name": "activation"}),
                "mean_map": xr.Variable(("image", "y", "x"), values.mean(axis=1), {"long_name": "mean over units"}),
            },
            coords={"row": ("image", np.array(rows))},
        )
    groups["/examples"] = xr.Dataset(
        {
            "frame": (("image", "y", "x", "channel"), np.stack(frames)),
            "label": ("image", few.labels),
            "probability": (("image", "class"), logits.softmax(1).numpy()),
            "response": (("image", "layer"), np.stack(response, axis=1).astype(np.float64)),
        },
        coords={
            "row": ("image", np.array(rows)),
            "layer_name": ("layer", np.array([layer.name for layer in setting.layers], dtype=object)),
        },
    )
    return groups


def filters(setting: Setting) -> dict[str, xr.Dataset]:
    """Weights of the first convolution; empty for networks without one."""
    first = next((m for m in setting.subject.module.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        return {}
    weight = first.weight.detach().float().cpu().numpy()
    return {"/filters": xr.Dataset({"weight": (("unit", "channel", "y", "x"), weight)})}


def exemplars(setting: Setting, units: xr.Dataset) -> dict[str, xr.Dataset]:
    """Pictures of the top and bottom images: whole and with a frame where small, else the receptive field's crop."""
    height, width = setting.subject.input_shape[1:]
    small = max(height, width) <= _SMALL
    most = setting.spec.gallery or (10**9 if small else _FEW)
    channels = setting.subject.preprocess.channels
    side = (height, width) if small else (_CROP, _CROP)
    cache: dict[int, torch.Tensor] = {}
    shown: dict[str, xr.Dataset] = {}
    for end in ("top", "bottom"):
        chosen = gallery_units(setting, units, most=most if end == "top" else min(most, _FEW_BOTTOM))
        rows, places = units[f"{end}_image"].to_numpy()[chosen], units[f"{end}_at"].to_numpy()[chosen]
        pictures = np.zeros((*rows.shape, *side, channels), dtype=np.uint8)
        boxes = np.zeros((*rows.shape, 4), dtype=np.int16)
        for place, rank in np.argwhere(rows >= 0):
            row = int(rows[place, rank])
            if row not in cache:
                cache[row] = setting.subject.preprocess.frame(setting.data.read(row))
            layer = _layer_of(setting, int(chosen[place]))
            box = receptive_box(layer, int(places[place, rank]), height=height, width=width)
            top, bottom, left, right = box
            picture = cache[row] if small else _crop(cache[row][:, top:bottom, left:right], _CROP)
            pictures[place, rank] = picture.movedim(0, -1).numpy()
            boxes[place, rank] = box
        shown[f"/exemplars/{end}"] = xr.Dataset(
            {
                "picture": (("unit", "rank", "y", "x", "channel"), pictures),
                "box": (("unit", "rank", "edge"), boxes),
            },
            coords={"unit_number": ("unit", chosen)},
        )
    return shown


def gallery_units(setting: Setting, units: xr.Dataset, *, most: int) -> np.ndarray:
    """Unit numbers shown: the most class-dependent of each layer that are not dead."""
    strength = np.nan_to_num(units["class_share"].to_numpy(), nan=-1.0)
    chosen = []
    for place in setting.by_layer.values():
        numbers = np.arange(place.start, place.stop)
        alive = numbers[units["dead"].to_numpy()[place] != 1]
        best = alive[np.argsort(-strength[alive], kind="stable")[:most]]
        chosen.append(np.sort(best))
    return np.concatenate(chosen)


def receptive_box(layer: LayerInfo, position: int, *, height: int, width: int) -> tuple[int, int, int, int]:
    """Input pixels behind a map position: (top, bottom, left, right), the whole image where that is not known."""
    if layer.receptive_field is None or len(layer.map_shape) != 2:  # noqa: PLR2004 a map has two axes
        return 0, height, 0, width
    y, x = divmod(position, layer.map_shape[1])
    return layer.receptive_field.box(y, x, height=height, width=width)


def _crop(patch: torch.Tensor, side: int) -> torch.Tensor:
    from torchvision.transforms.v2 import functional as transform

    crop: torch.Tensor = transform.resize(patch, [side, side], antialias=True)
    return crop


def _layer_of(setting: Setting, unit: int) -> LayerInfo:
    return next(layer for layer in setting.layers if unit < setting.by_layer[layer.name].stop)


def _interval(moments: MomentsAnswer, *, level: float) -> tuple[np.ndarray, np.ndarray]:
    count = int(moments.count)
    return resampling.mean_interval(moments.mean, moments.variance * (count - 1) / count, count, level=level)


def _nonfinite(setting: Setting, counts: np.ndarray) -> dict[str, tuple[int, ...]]:
    found = {name: tuple(np.flatnonzero(counts[place]).tolist()) for name, place in setting.by_layer.items()}
    return {name: units for name, units in found.items() if units}


def _no_selectivity(units: int, classes: int) -> dict[str, Variable]:
    """Without two labelled classes there is nothing to prefer."""
    nan = np.full(units, np.nan)
    names = ("csi", "csi_q", "class_share", "class_share_q", "auroc", "auroc_q", "reliability")
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


def _plain(value: Any) -> Any:
    """Options as JSON knows them, so that they compare equal after saving."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, Sequence) and not isinstance(value, str) else value
