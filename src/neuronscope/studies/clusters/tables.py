"""The groups of the result, from the evidence of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from neuronscope.data.dataset import Data
from neuronscope.maths.attribution_maps import first_of, patch_masses, patch_numbers
from neuronscope.maths.controls import paired_accuracy_change
from neuronscope.maths.decomposition import summary
from neuronscope.maths.faithfulness import aopc, deletion_area, drop_count
from neuronscope.maths.paired import Comparison, compare_pairs, log10_qvalues
from neuronscope.maths.resampling import wilson_interval
from neuronscope.result import unit_table
from neuronscope.studies.clusters.evidence import Judged, LayerEvidence
from neuronscope.studies.clusters.setting import Setting
from neuronscope.studies.clusters.statistics import LayerClusters

Variable = tuple[tuple[str, ...], np.ndarray, str, str]
_TOP = 5  # classes among which the label counts as found
_PART_AXIS = 2  # of what is kept of panels
_SIDE = 224  # pixels of a panel's pictures at most


def units_group(setting: Setting, clusters: Sequence[LayerClusters]) -> xr.Dataset:
    """Statistics and clusters of every unit."""
    unit = ("unit",)

    def joined(parts: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(parts)

    variables: dict[str, Variable] = {
        "activation_rate": (
            unit,
            joined([one.statistics.rate for one in clusters]),
            f"share of the images in which the mean activation is above {setting.spec.threshold:g}",
            "",
        ),
        "mean_activation": (unit, joined([one.statistics.mean for one in clusters]), "mean over positions, images", ""),
        "variance": (unit, joined([one.statistics.variance for one in clusters]), "of the mean activation", ""),
    }
    for k in setting.ks:
        variables[f"cluster_k{k}"] = (
            unit,
            joined([one.clusterings[k].labels for one in clusters]),
            f"cluster among {k}; -1 for units apart",
            "",
        )
        variables[f"silhouette_k{k}"] = (
            unit,
            joined([one.clusterings[k].unit_silhouettes for one in clusters]),
            "how much nearer to its own cluster than to the next, -1 to 1",
            "",
        )
    variables["tsne"] = (("unit", "tsne_axis"), joined([one.map for one in clusters]), "place in a plane (t-SNE)", "")
    return unit_table({one.layer.name: one.layer.units for one in clusters}, variables)


def clusterings_group(setting: Setting, clusters: Sequence[LayerClusters]) -> xr.Dataset:
    """How good each clustering is, and whether there are clusters."""
    rows: dict[str, list[float]] = {}
    names, ks = [], []
    for one in clusters:
        for at, k in enumerate(setting.ks):
            names.append(one.layer.name)
            ks.append(k)
            choice = one.choice
            numbers = {
                "silhouette": one.clusterings[k].silhouette,
                "inertia": one.clusterings[k].inertia,
                "p": np.nan if choice is None else choice.p[at],
                "stability": np.nan if choice is None else choice.stability_mean[at],
                "stability_low": np.nan if choice is None else choice.stability_low[at],
                "stability_high": np.nan if choice is None else choice.stability_high[at],
                "seed_stability": np.nan if choice is None else choice.seed_stability[at],
                "gap": np.nan if choice is None else choice.gap[at],
                "gap_se": np.nan if choice is None else choice.gap_se[at],
                "chosen": float(choice is not None and choice.chosen == k),
            }
            for name, value in numbers.items():
                rows.setdefault(name, []).append(float(value))
    reasons = {f"reason_{one.layer.name}": one.choice.reason for one in clusters if one.choice is not None}
    return xr.Dataset(
        {name: ("clustering", np.array(values)) for name, values in rows.items()},
        coords={"clustering_layer": ("clustering", np.array(names, dtype=object)), "k": ("clustering", np.array(ks))},
        attrs=reasons,
    )


def centroids_group(setting: Setting, clusters: Sequence[LayerClusters]) -> xr.Dataset:
    """Mean statistics of each cluster, in their own units."""
    names, ks, numbers, sizes, means = [], [], [], [], []
    for one in clusters:
        table = np.stack([one.statistics.mean, one.statistics.rate, one.statistics.variance], axis=1)
        for k in setting.ks:
            labels = one.clusterings[k].labels
            for cluster in range(k):
                own = labels == cluster
                names.append(one.layer.name)
                ks.append(k)
                numbers.append(cluster)
                sizes.append(int(own.sum()))
                means.append(table[own].mean(axis=0) if own.any() else np.full(3, np.nan))
    values = np.array(means)
    return xr.Dataset(
        {
            "n_neurons": ("cluster", np.array(sizes)),
            **{name: ("cluster", values[:, at]) for at, name in enumerate(("mean", "rate", "variance"))},
        },
        coords={
            "cluster_layer": ("cluster", np.array(names, dtype=object)),
            "k": ("cluster", np.array(ks)),
            "cluster": ("cluster", np.array(numbers)),
        },
    )


def configurations_group(evidence: Sequence[LayerEvidence]) -> xr.Dataset:
    """What was filtered."""
    every = [(one.clusters.layer, each) for one in evidence for each in one.plan.configurations]
    return xr.Dataset(
        {
            "layer": ("configuration", np.array([layer.name for layer, _ in every], dtype=object)),
            "kind": ("configuration", np.array([each.kind for _, each in every], dtype=object)),
            **{
                name: ("configuration", np.array([getattr(each, field) for _, each in every]))
                for name, field in (
                    ("k", "k"),
                    ("cluster", "cluster"),
                    ("draw", "draw"),
                    ("n_filtered", "closed"),
                    ("overlap", "shared"),
                )
            },
            "n_total": ("configuration", np.array([layer.units for layer, _ in every])),
        }
    )


def random_sets_group(evidence: Sequence[LayerEvidence]) -> xr.Dataset | None:
    """The channels of every random set; None without any."""
    numbers, channels, first = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for one in evidence:
        for at, each in enumerate(one.plan.masked):
            if each.kind == "random":
                closed = np.flatnonzero(~one.plan.masks[at])
                numbers.append(np.full(len(closed), first + at))
                channels.append(closed)
        first += len(one.plan.configurations)
    if len(numbers) == 1:
        return None
    return xr.Dataset(
        {"configuration": ("member", np.concatenate(numbers)), "channel": ("member", np.concatenate(channels))}
    )


def cube(setting: Setting, judged: Judged, name: str) -> Float[np.ndarray, "n c methods metrics"]:
    """A measurement of every configuration, by method and metric; nan where there is none."""
    methods, metrics = list(setting.methods), setting.spec.metrics
    parts = [[judged.values[f"{method}/{name}_{metric}"] for metric in metrics] for method in methods]
    return np.moveaxis(np.array(parts, dtype=np.float64), (0, 1), (2, 3))


def comparisons(
    setting: Setting, evidence: Sequence[LayerEvidence]
) -> tuple[dict[str, xr.Dataset], Float[np.ndarray, "n c methods metrics"], Float[np.ndarray, "n c methods metrics"]]:
    """Groups `metrics`, `comparisons`, `against_blurred`, `against_random`; and faithfulness and sparsity by image."""
    fall = np.concatenate([cube(setting, one.judged, "faithfulness") for one in evidence], axis=1)
    sparse = np.concatenate([cube(setting, one.judged, "sparsity") for one in evidence], axis=1)
    labels, level = evidence[0].judged.label, setting.spec.level
    axes = ("configuration", "method", "metric")
    names = {
        "method_name": ("method", np.array(list(setting.methods), dtype=object)),
        "metric_name": ("metric", np.array(setting.spec.metrics, dtype=object)),
    }
    overall = summary(fall, level=level)
    thin = summary(sparse, level=level)
    metrics = xr.Dataset(
        {
            "faithfulness_mean": (axes, overall.mean),
            "faithfulness_std": (axes, overall.spread),
            "faithfulness_low": (axes, overall.low),
            "faithfulness_high": (axes, overall.high),
            "sparsity_mean": (axes, thin.mean),
            "sparsity_std": (axes, thin.spread),
        },
        coords=names,
    )
    first = np.concatenate([[0], np.cumsum([len(one.plan.configurations) for one in evidence])])
    base = np.concatenate(
        [
            np.repeat(fall[:, [at]], len(one.plan.configurations), axis=1)
            for at, one in zip(first, evidence, strict=False)
        ],
        axis=1,
    )
    groups = {
        "metrics": metrics,
        "comparisons": _compared(setting, fall, base, labels, "comparisons").assign_coords(names),
    }
    for name, control in (("blurred", _blurred_of(evidence, fall)), ("random", _random_of(evidence, fall))):
        groups[f"against_{name}"] = _compared(setting, fall, control, labels, name).assign_coords(names)
    return groups, fall, sparse


def _blurred_of(evidence: Sequence[LayerEvidence], fall: np.ndarray) -> np.ndarray:
    """For each filter of the main clustering the blurred baseline; nan elsewhere."""
    found, first = np.full(fall.shape, np.nan), 0
    for one in evidence:
        every = one.plan.configurations
        for place in one.plan.main:
            own = every[place]
            for at, each in enumerate(every):
                if each.kind == "blurred" and each.cluster == own.cluster:
                    found[:, first + place] = fall[:, first + at]
        first += len(every)
    return found


def _random_of(evidence: Sequence[LayerEvidence], fall: np.ndarray) -> np.ndarray:
    """For each filter of the main clustering the mean of its random sets; nan elsewhere."""
    found, first = np.full(fall.shape, np.nan), 0
    for one in evidence:
        every = one.plan.configurations
        for place in one.plan.main:
            own = every[place]
            sets = [
                first + at for at, each in enumerate(every) if each.kind == "random" and each.cluster == own.cluster
            ]
            if sets:
                found[:, first + place] = fall[:, sets].mean(axis=1)
        first += len(every)
    return found


def _compared(setting: Setting, fall: np.ndarray, base: np.ndarray, labels: np.ndarray, stream: str) -> xr.Dataset:
    """Paired over images: every configuration against its counterpart."""
    spec, shape = setting.spec, fall.shape[1:]
    flat, other = fall.reshape(len(fall), -1), base.reshape(len(base), -1)
    known = ~np.isnan(flat - other).all(axis=0) & (np.nan_to_num(flat - other) != 0).any(axis=0)
    rng = setting.run.generator("clusters", "bootstrap", stream)
    interval: Literal["bca", "legacy percentile"] = "legacy percentile" if setting.has("percentile-interval") else "bca"
    found: Comparison = compare_pairs(
        flat[:, known], other[:, known], rng=rng, labels=labels, interval=interval, draws=spec.draws, level=spec.level
    )
    axes = ("configuration", "method", "metric")

    def whole(values: np.ndarray) -> np.ndarray:
        table = np.full(flat.shape[1], np.nan)
        table[known] = values
        return table.reshape(shape)

    log_t = whole(found.student.log10_p)
    equal = (~known & ~np.isnan(flat - other).all(axis=0)).reshape(shape)  # nothing changed in any image
    return xr.Dataset(
        {
            **{
                name: (axes, np.where(equal, 0.0, whole(values)))
                for name, values in (("difference", found.difference), ("low", found.low), ("high", found.high))
            },
            "spread": (axes, whole(found.spread)),
            "effect": (axes, whole(found.effect)),
            "improved": (axes, whole(found.improved)),
            "improved_low": (axes, whole(found.improved_low)),
            "improved_high": (axes, whole(found.improved_high)),
            "statistic": (axes, whole(found.student.statistic)),
            "log10_p_t": (axes, log_t),
            "log10_p": (axes, log_t),
            "log10_p_wilcoxon": (axes, whole(found.wilcoxon.log10_p)),
            "log10_p_clustered": (axes, whole(found.clustered.log10_p)),
            "log10_q": (axes, log10_qvalues(log_t)),
            "images": (axes, whole(found.images.astype(np.float64))),
            "percentiles": (
                (*axes, "percentile"),
                np.stack([whole(one) for one in np.asarray(found.percentiles)], axis=-1),
            ),
        }
    )


def images_group(
    setting: Setting, evidence: Sequence[LayerEvidence], fall: np.ndarray, sparse: np.ndarray
) -> xr.Dataset:
    """Every image by itself."""
    judged = evidence[0].judged
    axes = ("image", "configuration", "method", "metric")
    return xr.Dataset(
        {
            "faithfulness": (axes, fall.astype(np.float32)),
            "sparsity": (axes, sparse.astype(np.float32)),
            "label": ("image", judged.label),
            "predicted": ("image", judged.values["predicted"]),
            "measured": ("image", judged.values["measured"]),
            "probability": ("image", judged.values["probability"]),
        },
        coords={
            "row": ("image", judged.index),
            "method_name": ("method", np.array(list(setting.methods), dtype=object)),
            "metric_name": ("metric", np.array(setting.spec.metrics, dtype=object)),
        },
    )


def curves_group(setting: Setting, evidence: Sequence[LayerEvidence]) -> xr.Dataset | None:
    """Deletion and insertion of patches over several shares; None where nobody asked, nan where there is no curve."""
    fractions, methods = setting.spec.fractions, list(setting.methods)
    if not fractions:
        return None
    which: list[int] = []
    tables: dict[str, list[np.ndarray]] = {"deletion": [], "insertion": []}
    first = 0
    for one in evidence:
        which += [first + at for at in _curved(one)]
        for mode, parts in tables.items():
            parts.append(np.stack([one.judged.values[f"{method}/{mode}"] for method in methods], axis=2))
        first += len(one.plan.configurations)
    before = evidence[0].judged.values["probability"]
    axes = ("configuration", "method", "fraction")

    def whole(values: np.ndarray) -> np.ndarray:
        table = np.full((first, *values.shape[1:]), np.nan)
        table[which] = values
        return table

    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for mode, parts in tables.items():
        values = np.concatenate(parts, axis=1).astype(np.float64)  # images, curves, methods, fractions
        found = summary(values, level=setting.spec.level)
        for name, numbers in ((mode, found.mean), (f"{mode}_low", found.low), (f"{mode}_high", found.high)):
            variables[name] = (axes, whole(numbers))
        if mode == "deletion":
            variables["area"] = (axes[:2], whole(np.nanmean(deletion_area(fractions, before, values), axis=0)))
            variables["aopc"] = (axes[:2], whole(np.nanmean(aopc(before, values), axis=0)))
    return xr.Dataset(
        variables,
        coords={
            "fraction": np.array(fractions),
            "method_name": ("method", np.array(methods, dtype=object)),
        },
    )


def _curved(one: LayerEvidence) -> tuple[int, ...]:
    blurred = [at for at, each in enumerate(one.plan.configurations) if each.kind == "blurred"]
    return (0, *one.plan.main, *blurred)


def accuracy_group(setting: Setting, evidence: Sequence[LayerEvidence]) -> xr.Dataset | None:
    """Accuracy with clusters really silenced, beside that of the network, which filtering gradients does not change."""
    judged = evidence[0].judged
    labelled = judged.label >= 0
    if not labelled.any():
        return None
    right = (judged.values["predicted"] == judged.label)[labelled]
    rows: dict[str, list[float]] = {}
    names, ks, clusters = [], [], []
    axis = "configuration_of_dropped"
    for one in evidence:
        if one.dropped is None:
            continue
        for at, (k, cluster) in enumerate(one.dropped.of):
            names.append(one.clusters.layer.name)
            ks.append(k)
            clusters.append(cluster)
            ahead = one.dropped.ahead[labelled, at]
            low, high = wilson_interval(
                np.array([(ahead == 0).sum()]), np.array([len(ahead)]), level=setting.spec.level
            )
            after = one.dropped.predicted[labelled, at] == judged.label[labelled]
            change = paired_accuracy_change(right, after[None], level=setting.spec.level)
            for name, value in {
                "top1": after.mean(),
                "top5": (ahead < _TOP).mean(),
                "top1_low": low[0],
                "top1_high": high[0],
                "change": change.change[0],
                "change_low": change.low[0],
                "change_high": change.high[0],
                "p": change.p[0],
            }.items():
                rows.setdefault(name, []).append(float(value))
    return xr.Dataset(
        {
            **{name: (axis, np.array(values)) for name, values in rows.items()},
            "top1_baseline": ((), np.array(right.mean())),
            "top5_baseline": ((), np.array((judged.values["ahead"][labelled] < _TOP).mean())),
            "filtered_top1_equal": ((), np.array(int(min(one.judged.values["unchanged"].min() for one in evidence)))),
            "images": ((), np.array(len(right))),
        },
        coords={
            "layer": (axis, np.array(names, dtype=object)),
            "k": (axis, np.array(ks, dtype=np.int64)),
            "cluster": (axis, np.array(clusters, dtype=np.int64)),
        },
    )


def decomposition_groups(setting: Setting, evidence: Sequence[LayerEvidence]) -> dict[str, xr.Dataset]:
    """The parts of the baseline's map: how large, how sparse, how well they add up, how alike."""
    methods = list(setting.methods)
    groups = {}
    for one in evidence:
        values = one.judged.values
        by_part = {
            name: np.stack([values[f"{method}/{key}"] for method in methods], axis=2)
            for name, key in (("magnitude", "magnitude"), ("share", "share"), ("sparsity", "part_sparsity"))
        }
        whole = {
            name: np.stack([values[f"{method}/{name}"] for method in methods], axis=1) for name in ("error", "likeness")
        }
        variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
        for name, table in {**by_part, **whole}.items():
            axes = ("image", "cluster", "method") if table.ndim == 3 else ("image", "method")  # noqa: PLR2004 with clusters
            variables[name] = (axes, table.astype(np.float32))
            found = summary(table, level=setting.spec.level)
            for part, numbers in (
                ("mean", found.mean),
                ("std", found.spread),
                ("low", found.low),
                ("high", found.high),
            ):
                variables[f"{name}_{part}"] = (axes[1:], numbers)
        groups[f"decomposition_{one.clusters.layer.name}"] = xr.Dataset(
            variables,
            coords={"method_name": ("method", np.array(methods, dtype=object))},
            attrs={"k": setting.spec.main_k},
        )
    return groups


def classes_group(setting: Setting, evidence: Sequence[LayerEvidence]) -> xr.Dataset | None:
    """Classes by themselves: baseline and main filters; None where nobody asked."""
    if evidence[0].classes is None:
        return None
    numbers = np.array([number for number, _ in setting.classes])
    methods, metrics = list(setting.methods), setting.spec.metrics
    names: list[str] = []
    clusters: list[int] = []
    tables: dict[str, list[np.ndarray]] = {}
    counts = np.zeros(len(numbers), dtype=np.int64)
    for one in evidence:
        judged = one.classes
        if judged is None:
            continue
        fall, sparse = cube(setting, judged, "faithfulness"), cube(setting, judged, "sparsity")
        of_class = [judged.label == number for number in numbers]
        counts = np.array([int(own.sum()) for own in of_class])
        for place in one.class_plan.main:
            names.append(one.clusters.layer.name)
            clusters.append(one.class_plan.configurations[place].cluster)
            for kind, at in (("filtered", place), ("baseline", 0)):
                for what, values in (("faithfulness", fall), ("sparsity", sparse)):
                    own = np.array([values[rows][:, at].mean(axis=0) for rows in of_class])
                    spread = np.array([values[rows][:, at].std(axis=0) for rows in of_class])
                    tables.setdefault(f"{kind}_{what}_mean", []).append(own)
                    tables.setdefault(f"{kind}_{what}_std", []).append(spread)
    axes = ("configuration_of_classes", "class", "method", "metric")
    variables = {name: (axes, np.array(parts)) for name, parts in tables.items()}
    difference = variables["baseline_faithfulness_mean"][1] - variables["filtered_faithfulness_mean"][1]
    return xr.Dataset(
        {**variables, "mean_diff": (axes, difference), "images": ("class", counts)},
        coords={
            "layer": ("configuration_of_classes", np.array(names, dtype=object)),
            "cluster": ("configuration_of_classes", np.array(clusters)),
            "k": ("configuration_of_classes", np.full(len(names), setting.spec.main_k)),
            "class_id": ("class", numbers),
            "class_name": ("class", np.array([setting.subject.classes[number] for number in numbers], dtype=object)),
            "method_name": ("method", np.array(methods, dtype=object)),
            "metric_name": ("metric", np.array(metrics, dtype=object)),
        },
    )


def completeness_group(setting: Setting, evidence: Sequence[LayerEvidence]) -> xr.Dataset:
    """Whether each layer is a cut of the network, and how far integrated gradients are from adding up."""
    integrated = [name for name in setting.methods if f"{name}/residual" in evidence[0].judged.values]
    residual = np.full((len(evidence), 2), np.nan)
    past = np.full(len(evidence), np.nan)
    for at, one in enumerate(evidence):
        values = one.judged.values
        for name in integrated:
            size = np.abs(values[f"{name}/residual"])
            residual[at] = np.nanmean(size), np.nanmax(size)
        shares = [values[f"{name}/past"] for name in setting.methods]
        past[at] = float(np.nanmax(np.stack(shares))) if np.isfinite(np.stack(shares)).any() else np.nan
    return xr.Dataset(
        {
            "cut": ("layer", np.array([int(one.judged.values["cut"].min()) for one in evidence])),
            "residual_mean": ("layer", residual[:, 0]),
            "residual_high": ("layer", residual[:, 1]),
            "past": ("layer", past),
        },
        coords={"layer": np.array([one.clusters.layer.name for one in evidence], dtype=object)},
    )


def panels_group(setting: Setting, evidence: Sequence[LayerEvidence]) -> xr.Dataset | None:
    """Images with their maps, by layer, k and cluster: unfiltered, without the cluster, and of each cluster alone.

    Where clusterings differ in k, maps of clusters that one lacks are nan.
    """
    most = max(setting.shown, default=0)
    parts = [
        _panels_of(setting, one, k, cluster, parts=2 + most)
        for one in evidence
        for k, clusters in setting.shown.items()
        for cluster in clusters
    ]
    if not parts:
        return None
    return xr.concat(parts, dim="panel").assign_coords(
        part_name=("part", np.array(["baseline", "filtered", *(f"cluster_{c}" for c in range(most))], dtype=object)),
        method_name=("method", np.array(list(setting.methods), dtype=object)),
        metric_name=("metric", np.array(setting.spec.metrics, dtype=object)),
    )


def _panels_of(setting: Setting, one: LayerEvidence, k: int, cluster: int, *, parts: int) -> xr.Dataset:
    """The panels of a layer without one cluster, with as many parts as all panels have."""
    (plan, shown), methods = one.panels[k], list(setting.methods)
    images: Data = setting.data.take(shown.index)
    frames = np.stack([_frame(setting, images, row) for row in range(len(images))])
    chosen = [0, plan.main[cluster], *plan.alone]

    def padded(values: np.ndarray) -> np.ndarray:
        lacking = [(0, parts - len(chosen)) if axis == _PART_AXIS else (0, 0) for axis in range(values.ndim)]
        return np.pad(values, lacking, constant_values=False if values.dtype == bool else np.nan)

    surface = np.stack([shown.values[f"{method}/surface"][:, chosen] for method in methods], axis=1).astype(np.float32)
    fall, sparse = (np.moveaxis(cube(setting, shown, name)[:, chosen], 1, 2) for name in ("faithfulness", "sparsity"))
    axes, count = ("panel", "method", "part", "metric"), len(images)
    masks = np.stack([_dropped_positions(setting, surface, metric) for metric in setting.spec.metrics], axis=3)
    return xr.Dataset(
        {
            "row": ("panel", shown.index),
            "label": ("panel", shown.label),
            "predicted": ("panel", shown.values["predicted"]),
            "label_name": ("panel", _class_names(setting, shown.label)),
            "predicted_name": ("panel", _class_names(setting, shown.values["predicted"])),
            "layer": ("panel", np.array([one.clusters.layer.name] * count, dtype=object)),
            "cluster": ("panel", np.full(count, cluster)),
            "k": ("panel", np.full(count, k)),
            "frame": (("panel", "frame_y", "frame_x", "channel"), frames),
            "maps": (("panel", "method", "part", "y", "x"), padded(surface.astype(np.float16))),
            "masks": (("panel", "method", "part", "metric", "y", "x"), padded(masks)),
            "before": ("panel", shown.values["probability"]),
            "after": (axes, padded((shown.values["probability"][:, None, None, None] - fall).astype(np.float32))),
            "sparsity": (axes, padded(sparse.astype(np.float32))),
        }
    )


def _class_names(setting: Setting, numbers: np.ndarray) -> np.ndarray:
    return np.array([setting.subject.classes[number] if number >= 0 else "" for number in numbers], dtype=object)


def _dropped_positions(setting: Setting, surface: np.ndarray, metric: str) -> np.ndarray:
    """The pixels that faithfulness replaces, as masks of the maps."""
    maps = torch.from_numpy(surface)
    height, width = maps.shape[-2:]
    scores = maps if metric == "pixel" else patch_masses(maps)
    count = drop_count(setting.spec.drop, scores.shape[-1] * scores.shape[-2])
    first = first_of(scores.flatten(-2).float(), [count])[..., 0, :]
    if metric == "pixel":
        return np.asarray(first.reshape(maps.shape).numpy())
    areas = patch_numbers(height, width)
    return np.asarray((first[..., areas.clamp(min=0)] & (areas >= 0)).numpy())


def _frame(setting: Setting, images: Data, row: int) -> np.ndarray:
    """A picture as the network sees it, in colour."""
    frame = setting.subject.preprocess.frame(images.read(row)).movedim(0, -1).numpy()
    step = max(1, frame.shape[0] // _SIDE)
    small = frame[::step, ::step]
    return np.repeat(small, 3, axis=2) if small.shape[2] == 1 else small
