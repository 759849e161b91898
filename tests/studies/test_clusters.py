"""The `clusters` study: planted clusters, identities of the filter, golden clusterings, and inputs that cannot work."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import neuronscope as ns
from neuronscope.result import open_result, same
from neuronscope.studies.clusters import plan_clusters, run_clusters
from neuronscope.studies.clusters.keep import kept_of
from neuronscope.studies.clusters.original.parts import Original
from neuronscope.studies.clusters.original.pictures import write_panels
from neuronscope.studies.clusters.setting import settle
from neuronscope.studies.clusters.spec import ClustersSpec
from neuronscope.studies.clusters.statistics import cluster_layers, statistics_of

SIDE = 28
QUICK = {
    "layers": ("0",),
    "k": (2,),
    "main_k": 2,
    "images": 12,
    "statistics_images": 40,
    "steps": 25,
    "controls": 2,
    "choose": "none",
    "draws": 200,
    "panels": 2,
    "fractions": (0.1, 0.3),
}


@pytest.fixture(scope="module")
def subject():
    """Six units that see the bright patch, and six that see the darkness around it; only the former decide."""
    conv = nn.Conv2d(1, 12, 3, padding=1)
    torch.manual_seed(0)
    with torch.no_grad():
        conv.weight[:] = 0.05 * torch.randn(12, 1, 3, 3)
        conv.weight[:6] += 1.0
        conv.weight[6:] -= 0.2
        conv.bias[:6] = -0.5
        conv.bias[6:] = 2.0
    head = nn.Linear(12 * 16, 4)
    with torch.no_grad():
        head.weight[:] = 0.02 * torch.randn(4, 12 * 16)
        quarters = torch.zeros(4, 4, 4)
        for place in range(4):
            quarters[place, 2 * (place // 2) : 2 * (place // 2) + 2, 2 * (place % 2) : 2 * (place % 2) + 2] = 1
        head.weight[:, : 6 * 16] += 0.3 * quarters.reshape(4, 1, 16).repeat(1, 6, 1).reshape(4, -1)
    module = nn.Sequential(conv, nn.ReLU(), nn.AvgPool2d(7), nn.Flatten(), head).eval()
    return ns.subject_from(
        module,
        name="planted",
        input_shape=(1, SIDE, SIDE),
        preprocess=ns.Preprocess(channels=1, mean=(), std=()),
    )


@pytest.fixture(scope="module")
def data():
    """A bright patch in one of four quarters: the class."""
    rng = np.random.default_rng(0)
    images, labels = [], []
    for number in range(80):
        label = number % 4
        image = rng.integers(0, 30, size=(1, SIDE, SIDE))
        top, left = 14 * (label // 2) + rng.integers(0, 7), 14 * (label % 2) + rng.integers(0, 7)
        image[0, top : top + 7, left : left + 7] = 255
        images.append(image.astype(np.uint8))
        labels.append(label)
    return ns.data_from_arrays(
        torch.from_numpy(np.stack(images)), np.array(labels), name="patches", classes=("a", "b", "c", "d")
    )


@pytest.fixture(scope="module")
def result(subject, data):
    """One run that the tests look at."""
    return run_clusters(subject, data, ClustersSpec(**QUICK), run=ns.Run(seed=0, batch_size=6))


def configuration(result, **wanted):
    """Number of the configuration with these properties."""
    table = result.tree["configurations"].to_dataset()
    found = [
        at
        for at in range(table.sizes["configuration"])
        if all(table[name].to_numpy()[at] == value for name, value in wanted.items())
    ]
    assert len(found) == 1
    return found[0]


def test_planted_clusters_are_found(result):
    """Units that see the same thing are one cluster."""
    labels = result.table["cluster_k2"].to_numpy()
    assert len(set(labels[:6].tolist())) == len(set(labels[6:].tolist())) == 1
    assert labels[0] != labels[6]


def test_filtering_what_decides_hurts_and_the_rest_does_not(result):
    """Without the gradient of the units that decide, maps point at less; without the others', they do not lose."""
    labels = result.table["cluster_k2"].to_numpy()
    compared = result.tree["comparisons"].to_dataset()
    deciding = configuration(result, kind="filter", cluster=labels[0])
    other = configuration(result, kind="filter", cluster=labels[6])
    assert (compared["difference"].to_numpy()[deciding] < compared["difference"].to_numpy()[other]).all()


def test_maps_beat_a_random_ranking(result):
    """The unfiltered map finds the patch; random positions do not."""
    metrics = result.tree["metrics"].to_dataset()["faithfulness_mean"].to_numpy()
    assert (metrics[0] > metrics[configuration(result, kind="ranking")] + 0.1).all()


def test_predictions_stay_and_dropping_is_another_thing(result):
    """With the gradient blocked every logit is the same bit for bit; with the units silenced accuracy falls."""
    table = result.tree["accuracy"].to_dataset()
    labels = result.table["cluster_k2"].to_numpy()
    assert int(table["filtered_top1_equal"]) == 1
    gone = float(table["top1"].to_numpy()[table["cluster"].to_numpy() == labels[0]][0])
    assert float(table["top1_baseline"]) == 1.0
    assert gone < 0.6


def test_parts_add_up(result):
    """Clusters' own maps sum to the whole where the method is linear; the layer is a cut; the path integral closes."""
    table = result.tree["decomposition_0"].to_dataset()
    methods = table["method_name"].to_numpy().tolist()
    assert float(table["error_mean"].to_numpy()[methods.index("ig")]) < 1e-7
    assert table["share"].to_numpy().sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    completeness = result.tree["completeness"].to_dataset()
    assert int(completeness["cut"][0]) == 1
    assert float(completeness["residual_mean"][0]) < 0.15


def test_every_number_has_its_companion(result):
    """Intervals hold the mean, q-values follow from p-values, random sets keep to their size."""
    metrics, compared = (result.tree[name].to_dataset() for name in ("metrics", "comparisons"))
    mean = metrics["faithfulness_mean"].to_numpy()
    known = np.isfinite(mean)
    assert (metrics["faithfulness_low"].to_numpy()[known] <= mean[known]).all()
    q, p = compared["log10_q"].to_numpy(), compared["log10_p_t"].to_numpy()
    both = np.isfinite(q)
    assert (q[both] >= p[both] - 1e-9).all()
    table = result.tree["configurations"].to_dataset()
    random = table["kind"].to_numpy() == "random"
    assert (table["n_filtered"].to_numpy()[random] == 6).all()
    assert (table["overlap"].to_numpy()[random] == 0).all()


def test_panels_show_what_was_dropped(result):
    """Masks of a tenth: 20 patches or 78 pixels."""
    masks = result.tree["panels"].to_dataset()["masks"].to_numpy()
    assert (masks[:, :, :, 0].sum(axis=(-2, -1)) == 20 * 4).all()
    assert (masks[:, :, :, 1].sum(axis=(-2, -1)) == 78).all()


def test_same_seed_same_bits_saved_and_opened(subject, data, result, tmp_path):
    """A second run has the same numbers; a saved result is the same when opened."""
    again = run_clusters(subject, data, ClustersSpec(**QUICK), run=ns.Run(seed=0, batch_size=6))
    assert again.tree.identical(result.tree)
    assert same(open_result(result.save(tmp_path / "saved")), result)


def test_single_classes(subject, data):
    """Classes looked at by themselves have their own images and a mean difference."""
    spec = ClustersSpec(
        **{**QUICK, "class_start": 1, "class_end": 3, "images_per_class": 5, "panels": 0, "fractions": ()}
    )
    table = run_clusters(subject, data, spec, run=ns.Run(batch_size=6)).tree["classes"].to_dataset()
    assert table["class_id"].to_numpy().tolist() == [1, 2]
    assert table["images"].to_numpy().tolist() == [5, 5]
    expected = table["baseline_faithfulness_mean"] - table["filtered_faithfulness_mean"]
    assert np.allclose(table["mean_diff"].to_numpy(), expected.to_numpy())


@pytest.mark.parametrize("method", ["signed_saliency", "input_x_gradient", "smoothgrad", "gradcam"])
def test_other_methods_run(subject, data, method):
    """Every attribution gives finite numbers."""
    spec = ClustersSpec(**{**QUICK, "methods": (method,), "panels": 0, "fractions": (), "metrics": ("patch",)})
    found = run_clusters(subject, data, spec, run=ns.Run(batch_size=6)).tree["metrics"].to_dataset()
    assert np.isfinite(found["faithfulness_mean"].to_numpy()[:3]).all()


@pytest.mark.parametrize(
    "legacy",
    [
        "first-images",
        "one-start",
        "dead-clustered",
        "strided-images",
        "float32-sums",
        "percentile-interval",
        "raw-tsne",
    ],
)
def test_deviations_run(subject, data, legacy):
    """Each named deviation gives a complete result that names it."""
    spec = ClustersSpec(
        **{**QUICK, "legacy": (legacy,), "panels": 0, "fractions": (), "controls": 0, "metrics": ("patch",)}
    )
    assert run_clusters(subject, data, spec, run=ns.Run(batch_size=6)).provenance.legacy == (legacy,)


@pytest.mark.parametrize("profiles", [("activation",), ("gradient",), ("activation", "gradient")])
def test_profiles_over_classes_cluster_too(subject, data, profiles):
    """With what units do in each class, or what they do for it, the planted clusters are found as well."""
    spec = ClustersSpec(**{**QUICK, "profiles": profiles})
    setting = settle(subject, data, spec, ns.Run(batch_size=6))
    (one,) = cluster_layers(setting, statistics_of(setting))
    labels = one.clusterings[2].labels
    assert len(set(labels[:6].tolist())) == len(set(labels[6:].tolist())) == 1
    assert set(one.statistics.profiles) == set(profiles)


def test_hierarchical_clusters(subject, data):
    """The other way to cluster finds them, too."""
    setting = settle(subject, data, ClustersSpec(**{**QUICK, "clustering": "hierarchical"}), ns.Run(batch_size=6))
    (one,) = cluster_layers(setting, statistics_of(setting))
    assert sorted(one.clusterings[2].sizes.tolist()) == [6, 6]


def test_shuffled_weights_spoil_the_map(result):
    """The sanity check: with shuffled weights the map is worse than the network's own."""
    table, metrics = (result.tree[name].to_dataset() for name in ("unfiltered", "metrics"))
    assert table["map_name"].to_numpy().tolist() == ["ig, shuffled weights", "saliency, shuffled weights"]
    own = metrics["faithfulness_mean"].to_numpy()[0]
    assert (table["faithfulness_mean"].to_numpy() < own).all()


def test_whole_maps_are_kept_where_asked(subject, data, tmp_path):
    """A file for each image, configuration and method; parts add up to the baseline's map."""
    options = {**QUICK, "keep_in": str(tmp_path), "methods": ("ig",), "sanity": "none", "panels": 0}
    spec = ClustersSpec(**options, keep="whole")
    rows = run_clusters(subject, data, spec, run=ns.Run(seed=0, batch_size=6)).tree["images"]["row"].to_numpy()
    folder = tmp_path / "0"
    assert sorted(path.name for path in folder.iterdir()) == [
        "baseline", "filter_0_k2", "filter_1_k2", "isolate_0_k2", "isolate_1_k2",
    ]  # fmt: skip
    whole, *parts = (
        np.load(folder / name / f"ig_{rows[0]}.npy") for name in ("baseline", "isolate_0_k2", "isolate_1_k2")
    )
    assert whole.shape == (1, SIDE, SIDE)
    assert np.allclose(sum(parts), whole, atol=1e-5)
    run_clusters(subject, data, ClustersSpec(**{**options, "keep_in": str(tmp_path / "few")}), run=ns.Run(batch_size=6))
    sums = np.load(tmp_path / "few" / "0" / "baseline" / f"ig_{rows[0]}.npy")
    assert (sums.shape, sums.dtype) == ((SIDE, SIDE), np.float16)
    expected = np.abs(whole).sum(0) / np.abs(whole).sum(0).max()
    assert np.allclose(sums, expected, rtol=1e-3, atol=1e-7)  # ten bits, and the least number of half precision
    masses = kept_of(whole, keep="masses")
    assert np.allclose(masses, np.abs(whole).sum(0).reshape(14, 2, 14, 2).sum((1, 3)), rtol=1e-5)


def test_clusters_know_their_relatives(subject, data):
    """Over k a cluster's parent is named, and in the next layer its counterpart."""
    spec = ClustersSpec(**{**QUICK, "layers": ("0", "1"), "k": (2, 3), "fractions": (), "panels": 0, "sanity": "none"})
    tree = run_clusters(subject, data, spec, run=ns.Run(seed=0, batch_size=6)).tree
    descent = tree["descent"].to_dataset()
    assert descent.sizes["descent"] == 2 * 3
    assert ((descent["share"] > 0) & (descent["share"] <= 1)).all()
    pairs = tree["counterparts"].to_dataset()
    assert pairs["cluster"].to_numpy().tolist() == [0, 1]
    assert set(pairs["counterpart"].to_numpy().tolist()) <= {-1, 0, 1}


def test_captum_by_name(subject, data):
    """Captum's methods stand beside; its integrated gradients are the study's own."""
    spec = ClustersSpec(**{**QUICK, "captum": ("IntegratedGradients", "Occlusion"), "sanity": "none", "steps": 50})
    found = run_clusters(subject, data, spec, run=ns.Run(seed=0, batch_size=6)).tree
    table, metrics = found["unfiltered"].to_dataset(), found["metrics"].to_dataset()
    assert table["map_name"].to_numpy().tolist() == ["Captum IntegratedGradients", "Captum Occlusion"]
    own = metrics["faithfulness_mean"].to_numpy()[0, 0]
    assert table["faithfulness_mean"].to_numpy()[0] == pytest.approx(own, abs=1e-3)


def test_statistics_and_explanations_are_of_different_images(subject, data):
    """Clusters are chosen on some images, effects measured on others."""
    setting = settle(subject, data, ClustersSpec(**QUICK), ns.Run())
    assert not set(setting.statistics.tolist()) & set(setting.explained.tolist())
    assert sorted(np.bincount(data.labels[setting.explained])) == [3, 3, 3, 3]


def test_plan(subject, data):
    """Statistics, then the passes over each layer, then further maps: just what a run does."""
    spec = ClustersSpec(**{**QUICK, "k": (2, 3), "panel_k": (2, 3), "class_end": 2, "images_per_class": 3})
    plan = plan_clusters(subject, data, spec)
    names = ["statistics", "explanations 0", "classes 0", "panels 0 2", "panels 0 3", "dropped 0", "other maps"]
    assert [one.name for one in plan.sweeps] == names
    assert plan.sweeps[1].backward > plan.sweeps[2].backward > 0
    assert plan.seconds > 0
    log = Log()
    run_clusters(subject, data, spec, run=ns.Run(batch_size=6, progress=log))
    assert [name for name in log.names if name != "clusters"] == names


class Log:
    """Remembers what was begun."""

    def __init__(self):
        """Nothing has begun."""
        self.names = []

    def start(self, name, total):  # noqa: ARG002 of the protocol
        """A sweep begins."""
        self.names.append(name)

    def advance(self, images):
        """Some images are done."""

    def finish(self):
        """A sweep has ended."""


def test_portions_merge_to_the_whole(subject, data, tmp_path):
    """Three machines share out every pass after the statistics; together they find what one run finds, bit by bit."""
    spec = ClustersSpec(**{**QUICK, "class_end": 2, "images_per_class": 3, "methods": ("ig",)})
    run = ns.Run(batch_size=1, threads=1)
    parts = [tmp_path / str(number) for number in (1, 2, 3)]
    for number, part in enumerate(parts, start=1):
        with pytest.raises(ns.PortionDone):
            run_clusters(subject, data, spec, run=replace(run, checkpoint=part, portion=(number, 3)))
    assert ns.gather(parts, tmp_path / "whole") == 6
    joined = run_clusters(subject, data, spec, run=replace(run, checkpoint=tmp_path / "whole"))
    alone = run_clusters(subject, data, spec, run=run)
    assert joined.tree.identical(alone.tree)
    with pytest.raises(ns.InputError, match="are in none of the 2 folders"):
        ns.gather(parts[:2], tmp_path / "lacking")


def test_panels_of_every_cluster_of_every_k(subject, data, tmp_path):
    """A picture for each image, k and cluster, with the maps that belong to it, and a file of its own."""
    shown = {"panel_k": (2, 3), "panel_clusters": "all", "panels": 2, "k": (2, 3)}
    result = run_clusters(subject, data, ClustersSpec(**{**QUICK, **shown}), run=ns.Run(batch_size=6))
    table = result.tree["panels"].to_dataset()
    numbers = [(k, cluster) for k, count in ((2, 2), (3, 3)) for cluster in range(count) for _ in range(2)]
    assert list(zip(table["k"].to_numpy(), table["cluster"].to_numpy(), strict=True)) == numbers
    maps = table["maps"].to_numpy().astype(np.float64)
    assert np.isnan(maps[:4, :, 4]).all()  # two clusters have no third
    assert np.isfinite(maps[:4, :, :4]).all()
    assert np.isfinite(maps[4:]).all()
    assert np.array_equal(maps[0, :, 0], maps[4, :, 0])  # the untouched map of one image
    assert not np.array_equal(maps[0, :, 1], maps[2, :, 1])
    main = [at for at in range(len(numbers)) if numbers[at] == (2, 0)]
    only = run_clusters(subject, data, ClustersSpec(**QUICK), run=ns.Run(batch_size=6)).tree["panels"].to_dataset()
    assert np.array_equal(only["maps"].to_numpy(), table["maps"].to_numpy()[main][:, :, :4])
    assert np.array_equal(only["masks"].to_numpy(), table["masks"].to_numpy()[main][:, :, :4])
    names = {path.name for path in write_panels(Original(result, tmp_path))}
    rows = sorted(set(table["row"].to_numpy().tolist()))
    assert names == {f"attr_example_{row}_0_idx_{c}_k{k}.png" for row in rows for k, c in set(numbers)}
    strips = next(block for block in result.page().blocks if isinstance(block, ns.Gallery)).strips
    assert len(strips) == len(numbers) * table.sizes["method"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"k": (13,)}, "13 clusters"),
        ({"layers": ("nowhere",)}, "nowhere"),
        ({"target": "labels"}, "label"),
        ({"target": "9"}, "target class 9"),
        ({"fractions": (0.5, 0.2)}, "rising"),
        ({"class_start": 2, "class_end": 9}, "within 0 to 4"),
        ({"clusters_from": "nowhere"}, "nowhere"),
        ({"legacy": ("first",)}, "is not a deviation"),
        ({"captum": ("DeepLiftt",)}, "DeepLift"),
        ({"panel_clusters": "0,2"}, "cluster 2 of --panel-clusters does not exist: with 2 clusters they are 0 to 1"),
        ({"panel_clusters": "every"}, "neither all nor numbers"),
        ({"panel_k": (4,)}, "panel-k has 4, but units are put into 2 clusters"),
        (
            {
                "panels": 100,
                "panel_clusters": "all",
                "k": tuple(range(2, 13)),
                "panel_k": tuple(range(2, 13)),
                "methods": ("ig", "saliency", "smoothgrad", "gradcam"),
                "layers": ("0", "1"),
            },
            "Give fewer --panels",
        ),
    ],
)
def test_what_cannot_work_is_refused(subject, data, changes, said):
    """One message that says what to do."""
    with pytest.raises(ns.NeuronscopeError, match=said):
        run_clusters(subject, data, ClustersSpec(**{**QUICK, **changes}), run=ns.Run(batch_size=6))


def test_a_missing_class_is_named(subject, data):
    """A class without images."""
    few = data.take(np.flatnonzero(data.labels != 2))
    with pytest.raises(ns.InputError, match="class 2"):
        run_clusters(subject, few, ClustersSpec(**{**QUICK, "class_end": 4}))


def test_images_without_gradient_are_said(caplog):
    """Black images silence a network without biases: they are named; where there are no others, the study stops."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 6, 3, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(96, 4)
    ).eval()
    given = {"input_shape": (1, SIDE, SIDE), "preprocess": ns.Preprocess(channels=1, mean=(), std=())}
    images = np.random.default_rng(0).integers(0, 255, size=(40, 1, SIDE, SIDE)).astype(np.uint8)
    images[::4] = 0
    spec = ClustersSpec(**{**QUICK, "panels": 0, "fractions": (), "methods": ("ig", "saliency"), "sanity": "none"})

    def explained(module):
        labels, classes = np.arange(40) % 4, ("a", "b", "c", "d")
        some = ns.data_from_arrays(torch.from_numpy(images), labels, name="some black", classes=classes)
        return run_clusters(ns.subject_from(module, name="no bias", **given), some, spec, run=ns.Run(batch_size=6))

    table = explained(module).tree["images"].to_dataset()
    black = [row for row in table["row"].to_numpy().tolist() if row % 4 == 0]
    assert black
    for method in ("ig", "saliency"):
        words = f"{len(black)} of 12 images have no gradient at 0 by {method}"
        assert f"{words}, and maps that are 0 everywhere: rows {', '.join(map(str, black))}" in caplog.text
    assert (table["sparsity"].to_numpy()[np.isin(table["row"], black)][:, 0] == 0).all()
    nn.init.zeros_(module[4].weight)
    with pytest.raises(ns.InputError, match="none of the 12 images has a gradient at '0'"):
        explained(module)


def test_a_dead_layer_is_refused(data):
    """Units that never do anything are no clusters."""
    conv = nn.Conv2d(1, 4, 3)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    module = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)).eval()
    dead = ns.subject_from(
        module, name="dead", input_shape=(1, SIDE, SIDE), preprocess=ns.Preprocess(channels=1, mean=(), std=())
    )
    with pytest.raises(ns.InputError, match="dead"):
        run_clusters(dead, data, ClustersSpec(**QUICK))


GOLDEN = os.environ.get("NEURONSCOPE_TEST_DATA")


@pytest.mark.skipif(GOLDEN is None, reason="the original's statistics are not here (NEURONSCOPE_TEST_DATA)")
def test_golden_clusterings_through_the_study():
    """From the original's statistics the study makes its 16 clusterings label for label."""
    folder = Path(str(GOLDEN)) / "golden" / "densenet121-clusters"
    subject = ns.load_model("torchvision:densenet121", weights="random", input_shape=(3, 32, 32))
    images = torch.zeros((4, 3, 32, 32), dtype=torch.uint8)
    spec = ClustersSpec(
        layers=("block_1", "block_2", "block_3", "block_4"),
        clusters_from=str(folder),
        choose="none",
        images=2,
        legacy=("one-start", "dead-clustered"),
    )
    setting = settle(
        subject, ns.data_from_arrays(images, np.arange(4), name="blank", classes=("a", "b", "c", "d")), spec, ns.Run()
    )
    for block, one in enumerate(cluster_layers(setting, statistics_of(setting)), start=1):
        for k in (2, 3, 4, 5):
            with np.load(folder / f"cluster_results_block_{block}_k{k}.npz", allow_pickle=False) as kept:
                assert np.array_equal(one.clusterings[k].labels, kept["labels"])
