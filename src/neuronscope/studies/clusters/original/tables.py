"""The original's numbers: metrics of every configuration, the grid of filters, accuracies, significance, classes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from neuronscope.maths.paired import student_test
from neuronscope.studies.clusters.original.parts import MEASURES, Filter, Original, texts, write_csv, write_json

PERCENTILES = (5, 25, 50, 75, 95)
"""Of the differences between filtered and baseline, as in the original."""

_GRID_METHODS = ("ig", "saliency")
_CLASS_KEYS = ("sparsity_mean", "sparsity_std", "faithfulness_mean", "faithfulness_std")
_INTERVALS = ("faithfulness_low", "faithfulness_high")
_GAIN = ("difference", "low", "high", "log10_p_t", "log10_q")


def write_metrics(original: Original) -> Iterator[Path]:
    """`baseline/`, `filtered_*/` and `control_random_*/metrics.json`, and `baseline/accuracy.json`."""
    if not original.filters:
        return
    names = ("top1", "top5")
    accuracy = {name: original.number("accuracy", f"{name}_baseline") for name in names}
    if math.isnan(accuracy["top1"]):
        accuracy["top1"] = original.accuracy
    yield write_json(original.outputs / "baseline" / "accuracy.json", accuracy)
    for metric in original.metrics:
        for one, folder in metric_folders(original, metric):
            yield write_json(folder / "metrics.json", _metrics(original, one, metric))


def metric_folders(original: Original, metric: str) -> Iterator[tuple[Filter, Path]]:
    """Every configuration that the original has, with its folder."""
    suffix = original.suffix(metric)
    seen = set()
    for one in original.filters:
        if one.kind == "baseline" and "baseline" not in seen:
            seen.add("baseline")
            yield one, original.outputs / f"baseline{suffix}"
        elif one.kind == "filter":
            yield one, filter_folder(original, one, metric)
        elif one.kind == "random":
            name = f"control_random_{one.block}_{one.closed}_seed{one.draw}{stands_for(original, one)}{suffix}"
            yield one, original.outputs / name


def filter_folder(original: Original, one: Filter, metric: str) -> Path:
    """`filtered_block_1_cluster_0_k3` and the like."""
    return original.outputs / f"filtered_{one.name}{original.suffix(metric)}"


def stands_for(original: Original, one: Filter) -> str:
    """The cluster a random set is matched to as a part of names, where its block has sets of this size for several."""
    same = {
        (other.k, other.cluster)
        for other in original.filters
        if other.kind == "random" and (other.layer, other.closed) == (one.layer, one.closed)
    }
    return f"_for_cluster_{one.cluster}_k{one.k}" if len(same) > 1 else ""


def _metrics(original: Original, one: Filter, metric: str) -> dict[str, Any]:
    def number(name: str, method: str) -> float:
        return original.number("metrics", name, configuration=one.at, method=method, metric=metric)

    found: dict[str, Any] = {
        method: {name: number(name, method) for name in (*MEASURES, *_INTERVALS)} for method in original.methods
    }
    found["accuracy_top1"] = original.accuracy
    if one.kind == "random":
        found |= {
            "experiment_type": "control_random",
            "block_filtered": one.block,
            "neurons_filtered": one.closed,
            "neurons_total": one.units,
            "random_seed": one.draw,
        }
        own: dict[str, Any] = {
            "stands_for_cluster": one.cluster,
            "k": one.k,
            "neurons_shared_with_cluster": one.overlap,
        }
        own["run_seed"] = original.result.provenance.circumstances.get("seed")
    elif one.kind == "filter":
        own = {"block": one.block, "cluster": one.cluster, "k": one.k, "neurons_filtered": one.closed}
    else:
        own = {}
    found["metric_type"] = metric
    return {**found, "settings": original.settings(**own)}


def write_grid(original: Original) -> Iterator[Path]:
    """`mask_grid_summary.csv`: the baseline and every filter, by block, number of clusters and cluster."""
    filters = [one for one in original.filters if one.kind == "filter"]
    order = list(original.blocks)
    filters.sort(key=lambda one: (order.index(one.layer), one.k, one.cluster))
    baseline = next((one for one in original.filters if one.kind == "baseline"), None)
    rows = [*([baseline] if baseline else []), *filters]
    for metric in original.metrics if rows else ():
        table = pd.DataFrame([_grid_row(original, one, metric) for one in rows])
        yield write_csv(original.outputs / f"mask_grid_summary{original.suffix(metric)}.csv", table)


def _grid_row(original: Original, one: Filter, metric: str) -> dict[str, Any]:
    def number(group: str, name: str, method: str) -> float:
        return original.number(group, name, configuration=one.at, method=method, metric=metric)

    plain = one.kind == "baseline"
    row: dict[str, Any] = {
        "block": "baseline" if plain else one.block,
        "k_clusters": 0 if plain else one.k,
        "clusterId": 0 if plain else one.cluster,
        "accuracy_top1": original.accuracy,
    }
    # The original's columns first, also those of a method that was not asked for; then further methods.
    for method in dict.fromkeys((*_GRID_METHODS, *original.methods)):
        for quantity in ("faithfulness", "sparsity"):
            for moment in ("mean", "std"):
                row[f"{method}_{quantity}_{moment}"] = number("metrics", f"{quantity}_{moment}", method)
    for method in original.methods:
        row |= {f"{method}_{name}": number("metrics", name, method) for name in _INTERVALS}
        for name in _GAIN:
            row[f"{method}_{name}"] = math.nan if plain else number("comparisons", name, method)
    return {**row, "metric": metric, "neurons_filtered": one.closed, "neurons_total": 0 if plain else one.units}


def write_accuracies(original: Original) -> Iterator[Path]:
    """`accuracy/acc_{block}_c{c}_k{k}.json`: both accuracies with the gradient filtered, and with the units silenced.

    Filtering a gradient changes no output; that logits are equal bit for bit is checked in every run, and where they
    were not, the filtered accuracies are null.
    """
    if original.group("accuracy") is None:
        return
    equal = original.number("accuracy", "filtered_top1_equal") == 1
    whole = {name: original.number("accuracy", f"{name}_baseline") for name in ("top1", "top5")}
    for one in original.filters:
        if one.kind == "filter":
            found = {
                "block": one.block,
                "cluster": one.cluster,
                **{f"{name}_baseline": value for name, value in whole.items()},
                **{f"{name}_filtered": value if equal else math.nan for name, value in whole.items()},
                "k": one.k,
                "images": _count(original.number("accuracy", "images")),
                "filtered_logits_equal": equal,
                **_silenced(original, one),
            }
            name = f"acc_{one.block}_c{one.cluster}_k{one.k}.json"
            yield write_json(original.outputs / "accuracy" / name, found)


def _silenced(original: Original, one: Filter) -> dict[str, float]:
    """Accuracies with a cluster's units really silenced; none where that was not tried."""
    table = original.group("accuracy")
    if table is None or "cluster" not in table or not table["cluster"].ndim:
        return {}
    axis = str(table["cluster"].dims[0])
    places = zip(
        texts(table["layer"]), table["k"].to_numpy().tolist(), table["cluster"].to_numpy().tolist(), strict=True
    )
    at = next((at for at, place in enumerate(places) if place == (one.layer, one.k, one.cluster)), None)
    if at is None:
        return {}
    names = ("top1", "top5", "top1_low", "top1_high", "change", "change_low", "change_high", "p")
    return {f"dropped_{name}": original.number("accuracy", name, **{axis: at}) for name in names if name in table}


def write_significance(original: Original) -> Iterator[Path]:
    """`statistical_analysis_{metric}_wise/statistical_results.json`, the filters of the main clustering.

    The leading one under the original's name, others in a folder with their own.
    """
    images = original.group("images")
    if images is None or "faithfulness" not in images:
        return
    for metric in original.metrics:
        for one in original.filters:
            if one.kind != "filter" or one.k != original.main_k:
                continue
            baseline = original.baseline(one.layer)
            if baseline is None:
                continue
            name = f"statistical_analysis_{metric}_wise" + ("" if one == original.leading else f"_{one.name}")
            found: dict[str, Any] = {
                method: _significance(original, images["faithfulness"], one, baseline, method=method, metric=metric)
                for method in original.methods
            }
            found["settings"] = original.settings(
                block=one.block, cluster=one.cluster, k=one.k, neurons_filtered=one.closed, metric_type=metric
            )
            yield write_json(original.outputs / f"{name}{original.classes}" / "statistical_results.json", found)


def _significance(
    original: Original, values: xr.DataArray, one: Filter, baseline: Filter, *, method: str, metric: str
) -> dict[str, Any]:
    def compared(name: str, group: str = "comparisons") -> float:
        return original.number(group, name, configuration=one.at, method=method, metric=metric)

    own = values.isel(method=original.methods.index(method), metric=original.metrics.index(metric))
    filtered, before = (
        own.isel(configuration=at).to_numpy().astype(np.float64).ravel() for at in (one.at, baseline.at)
    )
    known = ~(np.isnan(filtered) | np.isnan(before))
    filtered, before = filtered[known], before[known]
    difference = filtered - before
    images = len(difference)
    spread = float(difference.std(ddof=1)) if images > 1 else math.nan
    mean = _mean(difference)
    error = spread / math.sqrt(images) if images else math.nan
    test = student_test(np.array([mean]), np.array([error]), np.array([float(images - 1)]))
    percentiles = np.percentile(difference, PERCENTILES) if images else np.full(len(PERCENTILES), np.nan)
    found: dict[str, Any] = {
        "n_samples": images,
        "baseline_mean": _mean(before),
        "baseline_std": _spread(before),
        "filtered_mean": _mean(filtered),
        "filtered_std": _spread(filtered),
        "mean_difference": mean,
        "std_difference": _spread(difference),
        "ttest_statistic": test.statistic[0],
        "ttest_pvalue": test.p[0],
        "cohens_d": mean / spread if spread else math.nan,
        "bootstrap_ci_lower": compared("low"),
        "bootstrap_ci_upper": compared("high"),
        "percent_improved": 100 * float((difference > 0).mean()) if images else math.nan,
        **{f"percentile_{at}": value for at, value in zip(PERCENTILES, percentiles, strict=True)},
        "ttest_log10_p": test.log10_p[0],
    }
    found |= {
        name: compared(name)
        for name in ("log10_p_wilcoxon", "log10_p_clustered", "log10_q", "improved_low", "improved_high")
    }
    for group in ("against_blurred", "against_random"):
        found[group] = {name: compared(name, group) for name in ("difference", "low", "high", "log10_p", "log10_q")}
    return found


def write_classes(original: Original) -> Iterator[Path]:
    """`class_analysis_metrics_{a}_{b}.csv`: classes one by one.

    That of the leading filter lies where the original has it for patches, under `pixel_wise_evaluation/` for pixels;
    those of other filters lie with their metrics.
    """
    for _, _, folder, name, table in class_tables(original):
        yield write_csv(folder / name, table)


def class_tables(original: Original) -> Iterator[tuple[Filter, str, Path, str, pd.DataFrame]]:
    """Filter, metric, folder, file and rows of every table by class."""
    classes = original.group("classes")
    if classes is None or not classes.sizes.get("class"):
        return
    ids = classes["class_id"].to_numpy().astype(np.int64)
    start, end = int(original.spec.get("class_start", 0)), int(original.spec.get("class_end", 0))
    span = f"{start}_{end}" if end > start else f"{ids.min()}_{ids.max() + 1}"
    name = f"class_analysis_metrics_{span}"
    axis = "configuration_of_classes"
    main = [one for one in original.filters if one.kind == "filter" and one.k == original.main_k]
    for at in range(classes.sizes.get(axis, 1)):
        one = _filter_of_classes(classes, main, axis, at)
        if one is None:
            continue
        for metric in original.metrics:
            table = _class_rows(original, classes, one, metric, {axis: at})
            if one != original.leading:
                yield one, metric, filter_folder(original, one, metric), f"{name}.csv", table
            else:
                folder = original.outputs if metric == "patch" else original.outputs / f"{metric}_wise_evaluation"
                yield one, metric, folder, f"{name}{original.classes}.csv", table


def _filter_of_classes(classes: xr.Dataset, main: list[Filter], axis: str, at: int) -> Filter | None:
    """The filter at a place of the classes' axis: as its names say, else in the order of the configurations."""
    if all(name in classes and classes[name].dims == (axis,) for name in ("layer", "k", "cluster")):
        wanted = tuple(classes[name].to_numpy()[at] for name in ("layer", "k", "cluster"))
        return next((one for one in main if (one.layer, one.k, one.cluster) == wanted), None)
    return main[at] if at < len(main) else None


def _class_rows(original: Original, classes: xr.Dataset, one: Filter, metric: str, at: dict[str, int]) -> pd.DataFrame:
    def column(name: str, method: str) -> Float[np.ndarray, "c"]:
        if name not in classes:
            return np.full(classes.sizes["class"], np.nan)
        places = {"method": original.methods.index(method), "metric": original.metrics.index(metric), **at}
        own = classes[name].isel({axis: place for axis, place in places.items() if axis in classes[name].dims})
        return own.to_numpy().astype(np.float64).reshape(-1)

    parts = []
    for method in original.methods:
        rows: dict[str, Any] = {
            "class_id": classes["class_id"].to_numpy().astype(np.int64),
            "class_name": texts(classes["class_name"]),
            "method": method,
        }
        for side in ("filtered", "baseline"):
            rows |= {f"{side}_{name}": column(f"{side}_{name}", method) for name in _CLASS_KEYS}
        rows["mean_diff"] = rows["baseline_faithfulness_mean"] - rows["filtered_faithfulness_mean"]
        images = column("images", method)
        rows["images"] = np.where(np.isnan(images), -1, images).astype(np.int64)
        parts.append(pd.DataFrame({**rows, "block": one.block, "cluster": one.cluster, "k": one.k, "metric": metric}))
    return pd.concat(parts, ignore_index=True).sort_values(["class_id", "method"], kind="stable", ignore_index=True)


def _count(number: float) -> int | None:
    return None if math.isnan(number) else int(number)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _spread(values: np.ndarray) -> float:
    return float(values.std()) if len(values) else math.nan
