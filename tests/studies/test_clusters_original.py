"""The files of the program the clusters study comes from: names, keys and columns, and numbers against slow twins."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image
from scipy import stats

from neuronscope.data.sources import load_data
from neuronscope.models import load_model
from neuronscope.result import Provenance, Result, unit_table
from neuronscope.studies.clusters import ClustersSpec, run_clusters
from neuronscope.studies.clusters.original import ORIGINAL_FIGURES, export_clusters
from neuronscope.studies.clusters.original.pictures import improvement
from neuronscope.studies.clusters.reading import read_clusters, read_statistics

LAYERS = {"features.denseblock1": 24, "features.denseblock2": 30}
METHODS = ("ig", "saliency")
METRICS = ("patch", "pixel")
KS = (2, 3, 4)
IMAGES, MAIN, DRAWS, CLASSES = 20, 3, 2, 4
SLOW = ("random_sets", "panels", "classes")  # groups with many pictures
SEED_METRICS = ["sparsity_mean", "sparsity_std", "faithfulness_mean", "faithfulness_std"]
GRID = ["block", "k_clusters", "clusterId", "accuracy_top1"] + [
    f"{method}_{quantity}_{moment}"
    for method in METHODS
    for quantity in ("faithfulness", "sparsity")
    for moment in ("mean", "std")
]
CLASS_COLUMNS = ["class_id", "class_name", "method"] + [
    f"{side}_{name}" for side in ("filtered", "baseline") for name in SEED_METRICS
]
CLASS_COLUMNS.append("mean_diff")
SIGNIFICANCE = [
    "n_samples",
    "baseline_mean",
    "baseline_std",
    "filtered_mean",
    "filtered_std",
    "mean_difference",
    "std_difference",
    "ttest_statistic",
    "ttest_pvalue",
    "cohens_d",
    "bootstrap_ci_lower",
    "bootstrap_ci_upper",
    "percent_improved",
    *(f"percentile_{at}" for at in (5, 25, 50, 75, 95)),
]


def made(
    *, layers: dict[str, int] | None = None, ks: tuple[int, ...] = KS, without: tuple[str, ...] = (), **spec: object
) -> Result:
    """A result as the study leaves it, with numbers drawn at random."""
    layers = layers or LAYERS
    rng = np.random.default_rng(0)
    options: dict[str, object] = {"target": "label", "measure": "prediction", "main_k": MAIN, "drop": 0.1, "mass": 0.9}
    options |= {"class_start": 10, "class_end": 10 + CLASSES, "threshold": 0.1, "statistics_images": 100, **spec}
    total = sum(layers.values())
    mean = rng.normal(0, 0.2, total)
    variables = {
        "activation_rate": (("unit",), 1 / (1 + np.exp(-8 * mean)), "rate", "fraction"),
        "mean_activation": (("unit",), mean, "mean", ""),
        "variance": (("unit",), mean**2 + rng.random(total) / 100, "variance", ""),
        "tsne": (("unit", "tsne_axis"), rng.normal(0, 10, (total, 2)), "place", ""),
    }
    for k in ks:
        labels = np.concatenate([np.arange(units) % k for units in layers.values()])
        labels[0] = -1  # a dead unit, set apart
        variables[f"cluster_k{k}"] = (("unit",), labels, "cluster", "")
    tree = {"units": unit_table(layers, variables)}
    rows, members = _configurations(layers, variables, ks, rng)
    count = len(rows["kind"])
    tree["configurations"] = xr.Dataset({name: ("configuration", values) for name, values in rows.items()})
    tree["random_sets"] = xr.Dataset({name: ("member", np.array(own)) for name, own in members.items()})
    names = {"method_name": ("method", np.array(METHODS, object)), "metric_name": ("metric", np.array(METRICS, object))}
    axes = ("configuration", "method", "metric")

    def numbers(*keys: str) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        return {key: (axes, rng.random((count, len(METHODS), len(METRICS)))) for key in keys}

    quantities = [*SEED_METRICS, "faithfulness_low", "faithfulness_high"]
    tree["metrics"] = xr.Dataset(numbers(*quantities), names)
    tests = ("log10_p_t", "log10_p_wilcoxon", "log10_p_clustered", "log10_q")
    tree["comparisons"] = xr.Dataset(numbers("difference", "low", "high", *tests), names)
    tree["comparisons"]["low"][0] = np.nan
    tree["against_blurred"] = xr.Dataset(numbers("difference", "low", "high", "log10_p", "log10_q"), names)
    each = ("image", *axes)
    values = rng.random((IMAGES, count, len(METHODS), len(METRICS))).astype(np.float32)
    values[3, :, 0, 0] = np.nan
    label = np.arange(IMAGES) % 5
    tree["images"] = xr.Dataset(
        {
            "faithfulness": (each, values),
            "row": ("image", np.arange(IMAGES) * 250),
            "label": ("image", label),
            "predicted": ("image", np.where(np.arange(IMAGES) < 15, label, label + 1)),
        },
        names,
    )
    tree["accuracy"] = _accuracy(layers, ks, rng)
    tree |= {f"decomposition_{layer}": _decomposition(rng) for layer in layers}
    tree["classes"] = _classes(layers, rng)
    tree["panels"] = _panels(layers, rng)
    kept = {name: group for name, group in tree.items() if name not in without}
    provenance = Provenance("clusters", options, (), "s", "f", "d", "f", 20, circumstances={"seed": 7})
    return Result(xr.DataTree.from_dict(kept), provenance)


def _configurations(layers, variables, ks, rng):
    """Rows of the group, and the members of random sets."""
    rows = {name: [] for name in ("layer", "kind", "k", "cluster", "draw", "n_filtered", "n_total", "overlap")}
    members = {"configuration": [], "channel": []}

    def add(*values):
        for name, value in zip(rows, values, strict=True):
            rows[name].append(value)

    start = 0
    for layer, units in layers.items():
        labels = {k: variables[f"cluster_k{k}"][1][start : start + units] for k in ks}
        start += units
        add(layer, "baseline", 0, -1, -1, 0, units, 0)
        for k in ks:
            for cluster in range(k):
                add(layer, "filter", k, cluster, -1, int((labels[k] == cluster).sum()), units, 0)
        for cluster in range(MAIN):
            add(layer, "isolate", MAIN, cluster, -1, int((labels[MAIN] != cluster).sum()), units, 0)
        for cluster in range(MAIN):
            size = int((labels[MAIN] == cluster).sum())
            for draw in range(DRAWS):
                chosen = rng.choice(units, size, replace=False)
                members["configuration"] += [len(rows["kind"])] * size
                members["channel"] += chosen.tolist()
                add(layer, "random", MAIN, cluster, draw, size, units, int((labels[MAIN][chosen] == cluster).sum()))
        add(layer, "blurred", MAIN, 0, -1, 0, units, 0)
    text = ("layer", "kind")
    return {name: np.array(own, object if name in text else np.int64) for name, own in rows.items()}, members


def _accuracy(layers, ks, rng):
    axis = "configuration_of_dropped"
    keys = [(layer, k, cluster) for layer in layers for k in ks for cluster in range(k)]
    found = {name: (axis, rng.random(len(keys))) for name in ("top1", "top5", "top1_low", "top1_high", "change", "p")}
    columns = zip(*keys, strict=True)
    for name, values, kind in zip(("layer", "k", "cluster"), columns, (object, int, int), strict=True):
        found[name] = (axis, np.array(values, kind))
    scalars = {"top1_baseline": 0.75, "top5_baseline": 0.9, "filtered_top1_equal": 1}
    return xr.Dataset({**found, **{name: ((), value) for name, value in scalars.items()}})


def _decomposition(rng):
    by_cluster = {
        name: (("image", "cluster", "method"), rng.random((IMAGES, MAIN, 2)))
        for name in ("magnitude", "share", "sparsity")
    }
    return xr.Dataset(
        {**by_cluster, **{name: (("image", "method"), rng.random((IMAGES, 2))) for name in ("error", "likeness")}}
    )


def _classes(layers, rng):
    keys = [(layer, MAIN, cluster) for layer in layers for cluster in range(MAIN)]
    axes = ("class", "configuration_of_classes", "method", "metric")
    shape = (CLASSES, len(keys), 2, 2)
    found = {f"filtered_{name}": (axes, rng.random(shape)) for name in SEED_METRICS}
    plain = (axes[0], *axes[2:])
    found |= {f"baseline_{name}": (plain, rng.random((CLASSES, 2, 2))) for name in SEED_METRICS}
    for name, values, kind in zip(("layer", "k", "cluster"), zip(*keys, strict=True), (object, int, int), strict=True):
        found[name] = ("configuration_of_classes", np.array(values, kind))
    found["class_id"] = ("class", np.arange(10, 10 + CLASSES))
    found["class_name"] = ("class", np.array(["tench", "a, b", 'say "c"', "d"], object))
    found["images"] = ("class", np.full(CLASSES, 50))
    return xr.Dataset(found)


def _panels(layers, rng):
    size, parts = 56, ("baseline", "filtered", *(f"cluster_{cluster}" for cluster in range(MAIN)))
    keys = [(layer, row) for layer in layers for row in (0, 250)]
    count = len(keys)
    y, x = np.mgrid[:size, :size] / size
    frame = np.stack([255 * y, 255 * x, 255 * (1 - y)], axis=-1).astype(np.uint8)
    bumps = rng.random((count, 2, len(parts), 2))
    spread = ((y - bumps[..., 0, None, None]) ** 2 + (x - bumps[..., 1, None, None]) ** 2) / 0.05
    maps = np.exp(-spread) + 0.1 * rng.random((count, 2, len(parts), size, size))
    masks = np.stack([maps > np.quantile(maps, 0.9), maps > np.quantile(maps, 0.9)], axis=3)
    axes = ("panel", "method", "part")
    found = {
        "layer": ("panel", np.array([layer for layer, _ in keys], object)),
        "row": ("panel", np.array([row for _, row in keys])),
        "k": ("panel", np.full(count, MAIN)),
        "cluster": ("panel", np.zeros(count, int)),
        "label": ("panel", np.array([0, 1] * len(layers))),
        "predicted": ("panel", np.array([0, 2] * len(layers))),
        "frame": (("panel", "frame_y", "frame_x", "channel"), np.broadcast_to(frame, (count, size, size, 3)).copy()),
        "maps": ((*axes, "y", "x"), maps.astype(np.float16)),
        "masks": ((*axes, "metric", "y", "x"), masks),
        "before": ("panel", np.full(count, 0.8)),
        "after": ((*axes, "metric"), rng.random((count, 2, len(parts), 2))),
        "sparsity": ((*axes, "metric"), rng.random((count, 2, len(parts), 2))),
    }
    return xr.Dataset(found, {"part_name": ("part", np.array(parts, object))})


@pytest.fixture(scope="module")
def result() -> Result:
    """A result of two blocks of DenseNet."""
    return made()


@pytest.fixture(scope="module")
def outputs(result, tmp_path_factory) -> Path:
    """Its files."""
    folder = tmp_path_factory.mktemp("original")
    files = export_clusters(result, folder)
    assert all(path.is_file() for path in files)
    assert len(set(files)) == len(files), "a file was written twice, so one setting took the place of another"
    assert set(files) == {path for path in folder.rglob("*") if path.is_file()}
    return folder / "outputs"


def read(path: Path) -> dict:
    """JSON without NaN or infinity, which are no JSON."""

    def refuse(name: str) -> float:
        message = f"{name} in {path}"
        raise AssertionError(message)

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def header(path: Path) -> list[str]:
    """Columns of a table."""
    with path.open(newline="") as file:
        return next(csv.reader(file))


def test_no_figures_are_taken_from_the_page():
    """All pictures of the original are drawn for their folders."""
    assert ORIGINAL_FIGURES == {}


def test_every_file_of_the_original_is_there(outputs):
    """One of each kind, at its place, under its name."""
    wanted = """baseline/accuracy.json baseline/metrics.json baseline_pixel/metrics.json mask_grid_summary.csv
        neuron_stats/block_1_k3/stats_block_1.npz neuron_stats/block_1_k3/cluster_results.npz
        neuron_stats/block_2_k4/manifest.json neuron_stats/block_2_k2/cluster_centroids.csv
        neuron_stats/block_1_k3/cluster_scatter_3d.png neuron_stats/block_1_k3/cluster_scatter_3d_interactive.html
        neuron_stats/block_1_k3/cluster_tsne.png filtered_block_2_cluster_3_k4/metrics.json
        filtered_block_1_cluster_0_k3_pixel/metrics.json class_analysis_metrics_10_14.csv faithfulness_improvement.png
        pixel_wise_evaluation/class_analysis_metrics_10_14.csv pixel_wise_evaluation/faithfulness_improvement.png
        filtered_block_2_cluster_0_k3/class_analysis_metrics_10_14.csv accuracy/acc_block_1_c0_k3.json
        statistical_analysis_patch_wise/statistical_results.json control_random_block_1_7_seed0/metrics.json
        statistical_analysis_pixel_wise/statistical_results.json
        statistical_analysis_patch_wise_block_2_cluster_1_k3/statistical_results.json
        control_random/block_1_n7/control_scatter_3d.png control_random/block_1_n7/control_scatter_3d_interactive.html
        control_random/block_1_n7/control_tsne.png control_random/block_1_n7/control_summary.json
        cluster_analysis/cluster_analysis_ig_250.json cluster_analysis/cluster_analysis_saliency_0.png
        cluster_analysis/aggregate_stats_ig.json cluster_analysis/block_2_k3/cluster_analysis_ig_0.json
        visualizations/attr_example_250_block_2_idx_0_k3.png manifest.json"""
    assert [name for name in wanted.split() if not (outputs / name).is_file()] == []


def test_metrics_have_the_originals_keys_and_the_results_numbers(outputs, result):
    """Four numbers for each method, accuracy of the explained images, and what the control adds."""
    metrics, table = result.tree["metrics"].to_dataset(), result.tree["configurations"].to_dataset()
    assert read(outputs / "baseline" / "accuracy.json") == {"top1": 0.75, "top5": 0.9}
    for metric, suffix in enumerate(("", "_pixel")):
        found = read(outputs / f"filtered_block_2_cluster_1_k4{suffix}" / "metrics.json")
        assert list(found)[:3] == [*METHODS, "accuracy_top1"]
        assert list(found["ig"])[:4] == SEED_METRICS
        kinds = [table[name].to_numpy() for name in ("layer", "kind", "k", "cluster")]
        wanted = ("features.denseblock2", "filter", 4, 1)
        at = int(np.flatnonzero(np.all([own == value for own, value in zip(kinds, wanted, strict=True)], axis=0))[0])
        for method in range(2):
            own = metrics["faithfulness_mean"][at, method, metric]
            assert found[METHODS[method]]["faithfulness_mean"] == float(own)
        assert found["accuracy_top1"] == 15 / 20
        assert found["metric_type"] == METRICS[metric]
    control = read(outputs / "control_random_block_1_7_seed1" / "metrics.json")
    keys = ["experiment_type", "block_filtered", "neurons_filtered", "neurons_total", "random_seed", "metric_type"]
    assert {key: control[key] for key in keys} == dict(
        zip(keys, ("control_random", "block_1", 7, 24, 1, "patch"), strict=True)
    )


def test_grid_has_the_originals_columns_first_and_sorted_rows(outputs):
    """A baseline row, then every filter by block, number of clusters and cluster."""
    assert header(outputs / "mask_grid_summary.csv")[: len(GRID)] == GRID
    table = pd.read_csv(outputs / "mask_grid_summary.csv")
    keys = table[["block", "k_clusters", "clusterId"]].itertuples(index=False, name=None)
    expected = [(f"block_{block}", k, cluster) for block in (1, 2) for k in KS for cluster in range(k)]
    assert list(keys) == [("baseline", 0, 0), *expected]
    assert {"ig_log10_p_t", "ig_log10_q", "ig_low", "ig_faithfulness_low"} <= set(table)


def test_clusterings_are_read_back(outputs, result):
    """Arrays under the original's keys, with units apart as -1."""
    folder = outputs / "neuron_stats" / "block_2_k4"
    own = result.table.isel(unit=slice(24, None))
    for values, name in zip(read_statistics(folder), ("activation_rate", "mean_activation", "variance"), strict=True):
        np.testing.assert_array_equal(values, own[name].to_numpy())
    labels, k, block = read_clusters(folder)
    np.testing.assert_array_equal(labels, own["cluster_k4"].to_numpy())
    assert (k, block) == (4, "block_2")
    manifest = read(folder / "manifest.json")
    assert list(manifest)[:4] == ["selected_block", "n_clusters", "num_neurons", "stats_files"]
    assert manifest["stats_files"] == {"block_2": "stats_block_2.npz"}
    with np.load(folder / "cluster_results.npz", allow_pickle=False) as arrays:
        assert arrays["labels"].dtype == np.int32


def test_centroids_are_means_of_unscaled_statistics(outputs, result):
    """Units apart are in none."""
    table = pd.read_csv(outputs / "neuron_stats" / "block_1_k3" / "cluster_centroids.csv")
    assert list(table) == ["cluster", "mean", "rate", "variance", "n_neurons"]
    own = result.table.isel(unit=slice(0, 24))
    for row in table.itertuples():
        members = own["cluster_k3"].to_numpy() == row.cluster
        assert row.n_neurons == members.sum()
        assert row.mean == pytest.approx(own["mean_activation"].to_numpy()[members].mean(), rel=1e-12)


def test_centroids_of_the_original(test_data, tmp_path):
    """From its statistics and labels, the tables it has committed; in 32 bits there, hence the tolerance."""
    golden = test_data / "golden" / "densenet121-clusters"
    units = {"features.denseblock1": 256}
    rate, mean, variance = read_statistics(golden / "stats_block_1.npz")
    variables = {"activation_rate": rate, "mean_activation": mean, "variance": variance}
    variables |= {f"cluster_k{k}": read_clusters(golden / f"cluster_results_block_1_k{k}.npz")[0] for k in (2, 3, 4, 5)}
    table = unit_table(units, {name: (("unit",), values, "", "") for name, values in variables.items()})
    base = made(layers={"features.denseblock1": 24})
    export_clusters(dataclasses.replace(base, tree=xr.DataTree.from_dict({"units": table})), tmp_path)
    for k in (2, 3, 4, 5):
        folder = tmp_path / "outputs" / "neuron_stats" / f"block_1_k{k}"
        expected = pd.read_csv(golden / f"cluster_centroids_block_1_k{k}.csv")
        pd.testing.assert_frame_equal(pd.read_csv(folder / "cluster_centroids.csv"), expected, rtol=2e-6)
        assert not (folder / "cluster_tsne.png").exists()


def test_accuracy_is_that_of_the_unfiltered_network(outputs):
    """A filtered gradient changes no output; silenced units do, and stand beside."""
    found = read(outputs / "accuracy" / "acc_block_2_c1_k4.json")
    keys = ["block", "cluster", "top1_baseline", "top5_baseline", "top1_filtered", "top5_filtered"]
    assert list(found)[:6] == keys
    assert [found[key] for key in keys] == ["block_2", 1, 0.75, 0.9, 0.75, 0.9]
    assert {"dropped_top1", "dropped_change", "dropped_p"} <= set(found)


def test_accuracy_is_unknown_where_logits_changed(tmp_path):
    """The check failed, so nothing is claimed of the filtered network."""
    result = made(layers={"a": 9}, ks=(3,), without=SLOW)
    accuracy = result.tree["accuracy"].to_dataset().assign(filtered_top1_equal=0)
    tree = result.tree.assign({"accuracy": xr.DataTree(accuracy)})
    export_clusters(dataclasses.replace(result, tree=tree), tmp_path)
    found = read(tmp_path / "outputs" / "accuracy" / "acc_a_c0_k3.json")
    assert (found["top1_baseline"], found["top1_filtered"]) == (0.75, None)


def test_significance_against_scipy(outputs, result):
    """The original's numbers, image by image, nan left out."""
    found = read(outputs / "statistical_analysis_patch_wise" / "statistical_results.json")
    assert list(found) == [*METHODS, "settings"]
    assert list(found["ig"])[: len(SIGNIFICANCE)] == SIGNIFICANCE
    table = result.tree["configurations"].to_dataset()
    filters = (table["kind"] == "filter") & (table["k"] == 3) & (table["cluster"] == 0)
    at = int(np.flatnonzero(filters & (table["layer"] == "features.denseblock1"))[0])
    faithfulness = result.tree["images"]["faithfulness"].to_numpy().astype(np.float64)[:, :, 0, 0]
    known = ~np.isnan(faithfulness[:, at])
    filtered, baseline = faithfulness[known, at], faithfulness[known, 0]
    test = stats.ttest_rel(filtered, baseline)
    difference = filtered - baseline
    expected = {
        "n_samples": 19,
        "baseline_mean": baseline.mean(),
        "filtered_std": filtered.std(),
        "std_difference": difference.std(),
        "ttest_statistic": test.statistic,
        "ttest_pvalue": test.pvalue,
        "cohens_d": difference.mean() / difference.std(ddof=1),
        "percent_improved": 100 * (difference > 0).mean(),
        "percentile_5": np.percentile(difference, 5),
        "ttest_log10_p": np.log10(test.pvalue),
    }
    assert {name: found["ig"][name] for name in expected} == pytest.approx(expected, rel=1e-9)
    assert found["ig"]["against_random"]["difference"] is None  # this result has no such group


def test_classes_have_the_originals_columns_and_sign(outputs):
    """Two rows for each class; `mean_diff` is baseline minus filtered, against the usual."""
    path = outputs / "class_analysis_metrics_10_14.csv"
    assert header(path)[: len(CLASS_COLUMNS)] == CLASS_COLUMNS
    table = pd.read_csv(path)
    assert table["class_id"].tolist() == [10, 10, 11, 11, 12, 12, 13, 13]
    assert table["class_name"].tolist()[4] == 'say "c"'
    gain = table["filtered_faithfulness_mean"] - table["baseline_faithfulness_mean"]
    np.testing.assert_allclose(table["mean_diff"], -gain, rtol=1e-9)
    assert (table["block"] + table["metric"]).unique().tolist() == ["block_1patch"]
    twin = sorted(gain[table["class_id"] == number].mean() for number in range(10, 14))
    np.testing.assert_allclose(improvement(table), twin, rtol=1e-9)


def test_control_summary_counts_members(outputs):
    """How many of the filtered units each cluster has, for every draw."""
    found = read(outputs / "control_random" / "block_1_n7" / "control_summary.json")
    keys = ["block", "total_neurons", "filtered_neurons", "kept_neurons", "filtered_percentage", "n_random"]
    assert list(found)[:7] == [*keys, "filtered_by_cluster"]
    assert [found[key] for key in keys] == ["block_1", 24, 7, 17, pytest.approx(100 * 7 / 24), 7]
    assert sum(found["filtered_by_cluster"].values()) == 7
    assert [draw["random_seed"] for draw in found["draws"]] == [0, 1]


def test_random_sets_of_one_size_do_not_share_a_name(outputs):
    """Clusters 1 and 2 have eight units each, so their controls say which they stand for."""
    names = sorted(path.name for path in outputs.glob("control_random_block_1_8_*"))
    folders = {f"control_random_block_1_8_seed{s}_for_cluster_{c}_k3" for s in (0, 1) for c in (1, 2)}
    assert set(names) == folders | {f"{name}_pixel" for name in folders}


def test_decomposition_has_the_originals_keys(outputs, result):
    """By cluster for each image with a panel, and moments over all images; shares in per cent."""
    found = read(outputs / "cluster_analysis" / "cluster_analysis_saliency_250.json")
    keys = ["cluster_magnitudes", "cluster_percentages", "cluster_sparsity"]
    assert list(found)[:5] == [*keys, "reconstruction_error", "cluster_independence"]
    table = result.tree["decomposition_features.denseblock1"].to_dataset()
    assert found["cluster_percentages"]["2"] == pytest.approx(100 * float(table["share"][1, 2, 1]))
    whole = read(outputs / "cluster_analysis" / "aggregate_stats_saliency.json")
    assert list(whole)[:5] == [*keys, "reconstruction_errors", "cluster_independence"]
    magnitude = table["magnitude"].to_numpy()[:, 2, 1]
    assert whole["cluster_magnitudes"]["2"] == pytest.approx({"mean": magnitude.mean(), "std": magnitude.std()})


def test_interactive_pictures_need_no_network(outputs):
    """The library stands in the file; nothing is fetched."""
    for name in ("neuron_stats/block_1_k3/cluster_scatter_3d", "control_random/block_1_n7/control_scatter_3d"):
        text = (outputs / f"{name}_interactive.html").read_text(encoding="utf-8")
        assert "Plotly.newPlot" in text
        assert "<script src=" not in text
        assert "<link" not in text


def test_pictures_are_pictures(outputs):
    """Every PNG opens and shows more than one colour."""
    for path in outputs.rglob("*.png"):
        with Image.open(path) as picture:
            assert picture.convert("L").getextrema()[1] - picture.convert("L").getextrema()[0] > 100, path


def test_files_are_repeatable(tmp_path):
    """The same result gives the same bytes."""
    result = made(layers={"a": 9}, ks=(3,), without=("random_sets",))
    for name in ("one", "two"):
        export_clusters(result, tmp_path / name)
    for path in sorted((tmp_path / "one").rglob("*")):
        twin = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.is_dir() or path.read_bytes() == twin.read_bytes(), path.name


def test_other_classes_and_layers_have_other_names(tmp_path):
    """Explained and measured classes are part of names where they are not the original's; layers by their own names."""
    result = made(layers={"layer4.1 conv": 12}, ks=(3,), without=SLOW, target="prediction", measure="label")
    folder = tmp_path / "outputs"
    export_clusters(result, tmp_path)
    suffix = "_target_prediction_measure_label"
    assert (folder / f"filtered_layer4.1-conv_cluster_0_k3_pixel{suffix}" / "metrics.json").is_file()
    assert (folder / f"cluster_analysis{suffix}" / "aggregate_stats_ig.json").is_file()
    assert (folder / f"statistical_analysis_patch_wise{suffix}" / "statistical_results.json").is_file()
    assert (folder / "neuron_stats" / "layer4.1-conv_k3" / "stats_layer4.1-conv.npz").is_file()
    assert not (folder / "baseline" / "metrics.json").exists()


@pytest.mark.parametrize("group", ["classes", "accuracy", "images", "comparisons"])
def test_results_without_a_group_lack_its_files(group, tmp_path):
    """Nothing is made up, and the rest is written."""
    without = {group, *SLOW}
    export_clusters(made(layers={"a": 9}, ks=(3,), without=tuple(without)), tmp_path)
    folder = tmp_path / "outputs"
    gone = {
        "classes": "**/class_analysis*",
        "accuracy": "accuracy/*",
        "images": "statistical*/*",
        "comparisons": "none",
    }[group]
    assert list(folder.glob(gone)) == []
    assert (folder / "baseline" / "metrics.json").is_file()
    # Neither panels nor members of random sets, whose pictures take most of the time, are in these results.
    assert not (folder / "visualizations").exists()
    assert [path.name for path in folder.glob("control_random/*/*")] == ["control_summary.json"] * MAIN
    assert "control_random" in read(folder / "manifest.json")["missing"][0]


def test_whole_maps_are_written_where_they_are_kept(tmp_path):
    """One array for each image, by its row in the data; without maps the manifest says so."""
    result = made(layers={"a": 9}, ks=(3,), without=SLOW)
    said = read(export_clusters(result, tmp_path / "no")[-1])["attributions"]
    assert "not in the result" in said
    assert "--keep-in names: none" in said
    maps = np.random.default_rng(1).random((IMAGES, len(result.tree["configurations"]["kind"]), 2, 3, 4, 4))
    axes = ("image", "configuration", "method", "channel", "y", "x")
    tree = result.tree.assign({"attributions": xr.DataTree(xr.Dataset({"attributions": (axes, maps)}))})
    export_clusters(dataclasses.replace(result, tree=tree), tmp_path)
    found = np.load(tmp_path / "outputs" / "filtered_a_cluster_0_k3" / "attributions" / "saliency_500.npy")
    np.testing.assert_array_equal(found, maps[2, 1, 1].astype(np.float32))


def test_of_a_study(tmp_path):
    """What the study itself leaves has everything but the members of random sets, or these too."""
    subject = load_model("builtin:viewer-cnn", weights="random")
    few = {
        "images": 4,
        "statistics_images": 20,
        "steps": 2,
        "controls": 1,
        "choose": "none",
        "fractions": (),
        "draws": 100,
    }
    asked = {"class_end": 2, "images_per_class": 2, "panels": 1}
    spec = ClustersSpec(layers=("conv_layers.4",), k=(2,), main_k=2, **few, **asked)
    result = run_clusters(subject, load_data("digits", limit=40), spec)
    files = {path.relative_to(tmp_path / "outputs").as_posix() for path in export_clusters(result, tmp_path)}
    wanted = """baseline/metrics.json neuron_stats/conv_layers.4_k2/cluster_tsne.png class_analysis_metrics_0_2.csv
        accuracy/acc_conv_layers.4_c1_k2.json statistical_analysis_pixel_wise/statistical_results.json
        cluster_analysis/aggregate_stats_ig.json faithfulness_improvement.png mask_grid_summary_pixel.csv"""
    assert set(wanted.split()) <= files
    kinds = {name.split("/")[0].split("_")[0] for name in files if name.endswith(".png")}
    assert {"neuron", "cluster", "visualizations"} <= kinds
    found = read(tmp_path / "outputs" / "filtered_conv_layers.4_cluster_0_k2" / "metrics.json")
    assert None not in found["ig"].values()
    table = pd.read_csv(tmp_path / "outputs" / "class_analysis_metrics_0_2.csv")
    assert not table[CLASS_COLUMNS].isna().any().any()
