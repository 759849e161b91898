"""The page of the `clusters` study: what it says, what it does not claim, and results that lack some groups."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import neuronscope as ns
from neuronscope.faces.html import render_page
from neuronscope.result import Provenance, unit_table
from neuronscope.studies.clusters.page import clusters_page
from neuronscope.studies.clusters.page.panels import overlay, replaced
from neuronscope.studies.clusters.page.view import View, probable

LAYERS = {"features.denseblock1": 40, "mixed.end": 30}
FIRST, SECOND = LAYERS
KS, MAIN = (2, 3), 3
METHODS, METRICS = ("ig", "saliency"), ("patch", "pixel")
DRAWS, IMAGES, FRACTIONS = 3, 120, (0.02, 0.1, 0.3, 0.5)
GAIN = {(FIRST, 3, 0): 0.07, (FIRST, 2, 0): 0.06, (SECOND, 3, 1): -0.05}
"""Clusters whose blocking changes something; all others do nothing."""
SECTIONS = {
    "clusterings": "Clusters",
    "comparisons": "Effect of blocking a cluster",
    "against_blurred": "Is it smoothing?",
    "curves": "Deletion and insertion",
    "decomposition_mixed.end": "What flows through each cluster",
    "accuracy": "Clusters silenced for real",
    "classes": "Class by class",
    "panels": "Images and their maps",
}
"""Group: the section that shows it."""


def texts(values: object) -> np.ndarray:
    """An array of texts."""
    return np.array(values, dtype=object)


def configurations() -> list[tuple[str, str, int, int, int]]:
    """Layer, kind, k, cluster and draw of each configuration, in the order of the study."""
    found = []
    for layer in LAYERS:
        found.append((layer, "baseline", 0, -1, -1))
        found += [(layer, "filter", k, cluster, -1) for k in KS for cluster in range(k)]
        found += [(layer, "isolate", MAIN, cluster, -1) for cluster in range(MAIN)]
        found += [(layer, "random", MAIN, cluster, draw) for cluster in range(MAIN) for draw in range(DRAWS)]
        found += [(layer, "blurred", MAIN, cluster, -1) for cluster in range(MAIN)]
        found.append((layer, "ranking", 0, -1, -1))
    return found


def gain_of(one: tuple[str, str, int, int, int]) -> float:
    """What a configuration adds to the faithfulness of the untouched map."""
    layer, kind, k, cluster, draw = one
    if kind == "blurred":
        return 0.9 * GAIN.get((layer, k, cluster), 0.0) if layer == FIRST else 0.0
    return {"ranking": -0.2, "random": 0.002 * (draw - 1), "filter": GAIN.get((layer, k, cluster), 0.001)}.get(
        kind, 0.0
    )


def grid(values: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Values of configurations for every method and metric, a little less for the second of each."""
    weights = np.array([[1.0, 0.8], [1.1, 0.9]])
    return ("configuration", "method", "metric"), values[:, None, None] * weights


NAMES = {"method_name": ("method", texts(METHODS)), "metric_name": ("metric", texts(METRICS))}


def unit_groups(rng: np.random.Generator) -> dict[str, xr.Dataset]:
    """Channels in clusters, clusterings, centroids."""
    count = sum(LAYERS.values())
    labels = rng.integers(0, MAIN, count)
    rate = np.clip(np.array([0.02, 0.85, 0.5])[labels] + rng.normal(0, 0.05, count), 0, 1)
    variables = {
        "activation_rate": (("unit",), rate, "share", ""),
        "mean_activation": (("unit",), 0.3 * rate + rng.normal(0, 0.02, count), "mean", ""),
        "variance": (("unit",), rate**2, "variance", ""),
        "tsne": (("unit", "tsne_axis"), rng.normal(0, 1, (count, 2)) + 6 * labels[:, None], "place", ""),
    }
    labels[5] = -1  # a dead unit
    for k in KS:
        variables[f"cluster_k{k}"] = (("unit",), np.minimum(labels, k - 1), "cluster", "")
        variables[f"silhouette_k{k}"] = (("unit",), rng.uniform(-0.1, 0.9, count), "silhouette", "")
    rows = [(layer, k) for layer in LAYERS for k in KS]
    size = len(rows)
    clusterings = xr.Dataset(
        {
            name: ("clustering", values)
            for name, values in {
                "silhouette": rng.uniform(0.3, 0.8, size),
                "inertia": rng.uniform(50, 90, size),
                "p": np.array([0.2, 0.01, 0.4, 0.3]),
                "stability": np.array([0.7, 0.95, 0.5, 0.4]),
                "stability_low": np.full(size, 0.3),
                "stability_high": np.full(size, 1.0),
                "seed_stability": np.full(size, 0.9),
                "gap": rng.uniform(0, 1, size),
                "gap_se": np.full(size, 0.03),
                "chosen": np.array([0.0, 1.0, 0.0, 0.0]),
            }.items()
        },
        coords={"clustering_layer": ("clustering", texts([layer for layer, _ in rows])),
                "k": ("clustering", np.array([k for _, k in rows]))},
        attrs={f"reason_{FIRST}": "k = 3 has the highest silhouette.", f"reason_{SECOND}": "No clusters: p = 0.3."},
    )  # fmt: skip
    own = [(layer, k, cluster) for layer in LAYERS for k in KS for cluster in range(k)]
    centroids = xr.Dataset(
        {"n_neurons": ("cluster", np.arange(1, len(own) + 1)),
         **{name: ("cluster", rng.uniform(0, 1, len(own))) for name in ("mean", "rate", "variance")}},
        coords={"cluster_layer": ("cluster", texts([one[0] for one in own])),
                "k": ("cluster", np.array([one[1] for one in own])),
                "cluster": ("cluster", np.array([one[2] for one in own]))},
    )  # fmt: skip
    return {"units": unit_table(LAYERS, variables), "clusterings": clusterings, "centroids": centroids}


def judged_groups(rng: np.random.Generator) -> dict[str, xr.Dataset]:
    """Faithfulness of every configuration, compared with the baseline and with controls."""
    every = configurations()
    kinds = texts([one[1] for one in every])
    gain = np.array([gain_of(one) for one in every])
    closed = np.array([0 if one[1] in ("baseline", "ranking") else 9 for one in every])
    listing = xr.Dataset(
        {
            "layer": ("configuration", texts([one[0] for one in every])),
            "kind": ("configuration", kinds),
            **{name: ("configuration", np.array([one[2 + i] for one in every]))
               for i, name in enumerate(("k", "cluster", "draw"))},
            "n_filtered": ("configuration", closed),
            "n_total": ("configuration", np.array([LAYERS[one[0]] for one in every])),
            "overlap": ("configuration", np.where((kinds == "random") & (np.arange(len(every)) % 9 == 0), 8, 0)),
        }
    )  # fmt: skip
    axes, difference = grid(gain)
    difference[kinds == "baseline"] = difference[kinds == "isolate"] = np.nan
    strong = np.abs(difference) > 0.01
    found = np.where(np.isnan(difference), np.nan, np.where(strong, -400.0, -0.3))
    compared = {
        "difference": difference, "low": difference - 0.01, "high": difference + 0.01, "spread": difference * 0 + 0.1,
        "effect": difference / 0.1, "improved": 0.5 + difference, "improved_low": 0.4 + difference,
        "improved_high": 0.6 + difference, "log10_p_t": found, "log10_p_wilcoxon": found,
        "log10_p_clustered": found / 2,
        "log10_p": found, "log10_q": found, "images": np.where(np.isnan(difference), np.nan, IMAGES),
    }  # fmt: skip
    main = (kinds == "filter") & np.array([one[2] == MAIN for one in every])
    groups = {
        "configurations": listing,
        "comparisons": xr.Dataset({name: (axes, values) for name, values in compared.items()}, coords=NAMES),
        "images": xr.Dataset(
            {"faithfulness": (("image", *axes), rng.normal(0.3, 0.1, (IMAGES, *difference.shape)).astype(np.float32))},
            coords={"row": ("image", np.arange(IMAGES)), **NAMES},
        ),
    }
    level = np.where(kinds == "isolate", np.nan, 0.28 + gain)[:, None, None] + np.zeros((2, 2))
    groups["metrics"] = xr.Dataset(
        {
            "faithfulness_mean": (axes, level), "faithfulness_low": (axes, level - 0.02),
            "faithfulness_high": (axes, level + 0.02), "faithfulness_std": (axes, level * 0 + 0.2),
            "sparsity_mean": (axes, np.full(level.shape, 0.3)), "sparsity_std": (axes, np.full(level.shape, 0.1)),
        },
        coords=NAMES,
    )  # fmt: skip
    for name, share in (("blurred", 0.1), ("random", 1.0)):
        values = np.where(main[:, None, None], share * difference, np.nan)
        q = np.where(np.isnan(values), np.nan, np.where(np.abs(values) > 0.01, -9.0, -0.1))
        groups[f"against_{name}"] = xr.Dataset(
            {"difference": (axes, values), "low": (axes, values - 0.01), "high": (axes, values + 0.01),
             "log10_p": (axes, q), "log10_q": (axes, q)}, coords=NAMES
        )  # fmt: skip
    share = np.array(FRACTIONS)
    steep = 0.7 * np.exp(
        -np.where(main | (kinds == "baseline") | (kinds == "blurred"), 4 + 20 * gain, np.nan)[:, None] * share
    )
    lines = np.repeat(steep[:, None], len(METHODS), axis=1)
    groups["curves"] = xr.Dataset(
        {
            **{f"{kind}{end}": (("configuration", "method", "fraction"), line + move)
               for kind, line in (("deletion", lines), ("insertion", 0.8 - lines))
               for end, move in (("", 0.0), ("_low", -0.03), ("_high", 0.03))},
            "area": (("configuration", "method"), lines.mean(axis=2)),
            "aopc": (("configuration", "method"), 0.7 - lines.mean(axis=2)),
        },
        coords={"fraction": share, "method_name": NAMES["method_name"]},
    )  # fmt: skip
    return groups


def other_groups(rng: np.random.Generator) -> dict[str, xr.Dataset]:
    """Decomposition, accuracies, classes, completeness and pictures."""
    groups: dict[str, xr.Dataset] = {}
    axes = ("cluster", "method")
    for layer in LAYERS:
        share = np.array([[0.78, 0.7], [0.09, 0.1], [0.13, 0.2]])
        variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
            "share": (("image", *axes), rng.uniform(0, 1, (9, MAIN, 2)).astype(np.float32))
        }
        for name, mean in (("share", share), ("magnitude", 16 * share), ("sparsity", 0 * share + 0.5)):
            for part, values in (("mean", mean), ("std", 0.1 * mean), ("low", 0.9 * mean), ("high", 1.1 * mean)):
                variables[f"{name}_{part}"] = (axes, values)
        for name, mean in (("error", np.array([9e-7, 0.4])), ("likeness", np.array([0.2, 0.3]))):
            for part, values in (("mean", mean), ("std", 0.1 * mean), ("low", 0.9 * mean), ("high", 1.1 * mean)):
                variables[f"{name}_{part}"] = (("method",), values)
        groups[f"decomposition_{layer}"] = xr.Dataset(variables, coords={"method_name": NAMES["method_name"]})
    own = [(layer, k, cluster) for layer in LAYERS for k in KS for cluster in range(k)]
    dropped = "configuration_of_dropped"
    change = np.where(np.arange(len(own)) % 2, 0.0, -0.5)
    groups["accuracy"] = xr.Dataset(
        {
            **{name: (dropped, values) for name, values in {
                "top1": 0.74 + change, "top1_low": 0.7 + change, "top1_high": 0.78 + change, "top5": 0.9 + change,
                "change": change, "change_low": change - 0.02, "change_high": change + 0.02,
                "p": 0.5 + change}.items()},
            "top1_baseline": ((), np.array(0.74)), "top5_baseline": ((), np.array(0.92)),
            "filtered_top1_equal": ((), np.array(1)),
        },
        coords={"layer": (dropped, texts([one[0] for one in own])),
                **{name: (dropped, np.array([one[1 + i] for one in own])) for i, name in enumerate(("k", "cluster"))}},
    )  # fmt: skip
    classes, clusters = 25, [(layer, cluster) for layer in LAYERS for cluster in range(MAIN)]
    axes = ("configuration_of_classes", "class", "method", "metric")
    baseline = np.full((len(clusters), classes, 2, 2), 0.3)
    filtered = baseline + rng.normal(0, 0.05, baseline.shape)
    filtered[0] += 0.06
    groups["classes"] = xr.Dataset(
        {"filtered_faithfulness_mean": (axes, filtered), "baseline_faithfulness_mean": (axes, baseline),
         "mean_diff": (axes, baseline - filtered), "images": ("class", np.full(classes, 50))},
        coords={"layer": (axes[0], texts([one[0] for one in clusters])),
                "cluster": (axes[0], np.array([one[1] for one in clusters])),
                "k": (axes[0], np.full(len(clusters), MAIN)), "class_id": ("class", np.arange(classes)),
                "class_name": ("class", texts([f"kind {i}" for i in range(classes)])), **NAMES},
    )  # fmt: skip
    groups["completeness"] = xr.Dataset(
        {"cut": ("layer", np.array([1, 0])), "residual_mean": ("layer", np.array([0.01, 0.02])),
         "residual_high": ("layer", np.array([0.05, 0.06])), "past": ("layer", np.array([0.0, 0.4]))},
        coords={"layer": texts(list(LAYERS))},
    )  # fmt: skip
    side, parts = 224, ["baseline", "filtered", *(f"cluster_{c}" for c in range(MAIN))]
    y, x = np.mgrid[:side, :side]
    frame = np.stack([np.hypot(y - 112, x - 80) < 60, y > 150, x > 100], axis=2) * 150 + 40
    spots = np.stack([np.exp(-((y - 60 - 20 * i) ** 2 + (x - 50 - 25 * i) ** 2) / 800) for i in range(len(parts))])
    maps = np.broadcast_to(spots, (2, 2, *spots.shape)) * rng.uniform(0.2, 1, (2, 2, *spots.shape))
    masks = np.stack([maps > 0.5, maps > 0.4], axis=3)
    at = ("panel", "method", "part", "metric")
    groups["panels"] = xr.Dataset(
        {
            "row": ("panel", np.array([3, 90])), "label": ("panel", np.array([1, 2])),
            "predicted": ("panel", np.array([1, 7])), "layer": ("panel", texts(list(LAYERS))),
            "cluster": ("panel", np.zeros(2, dtype=np.int64)), "k": ("panel", np.full(2, MAIN)),
            "frame": (("panel", "frame_y", "frame_x", "channel"), np.stack([frame, frame]).astype(np.uint8)),
            "maps": (("panel", "method", "part", "y", "x"), maps.astype(np.float16)),
            "masks": ((*at, "y", "x"), masks), "before": ("panel", np.array([0.9, 0.4])),
            "after": (at, rng.uniform(0, 0.4, (2, 2, len(parts), 2)).astype(np.float32)),
            "sparsity": (at, rng.uniform(0.2, 0.5, (2, 2, len(parts), 2)).astype(np.float32)),
        },
        coords={"part_name": ("part", texts(parts)), **NAMES},
    )  # fmt: skip
    return groups


def every_group() -> dict[str, xr.Dataset]:
    """All groups of a result."""
    rng = np.random.default_rng(0)
    return {**unit_groups(rng), **judged_groups(rng), **other_groups(rng)}


def made(groups: dict[str, xr.Dataset], **options: object) -> ns.Result:
    """A result of these groups alone."""
    spec = {"main_k": MAIN, "k": KS, "level": 0.95, "drop": 0.1, "fill": "mean", "legacy": (), **options}
    provenance = Provenance("clusters", spec, (), "a network", "0", "some images", "0", images=500)
    tree = xr.DataTree.from_dict({"/": xr.Dataset(), **{f"/{name}": group for name, group in groups.items()}})
    return ns.Result(tree, provenance, view=clusters_page)


@pytest.fixture(scope="module")
def page() -> ns.Page:
    """The page of a result with everything."""
    return clusters_page(made(every_group()))


def blocks(page: ns.Page) -> dict[tuple[str, str], ns.Block]:
    """Blocks by kind of file and name; refuses a name that is there twice."""
    found = [
        ("tables" if isinstance(block, ns.Table) else "figures", block)
        for block in page.blocks
        if isinstance(block, ns.Table | ns.Chart | ns.Gallery | ns.Panel)
    ]
    named = {(kind, block.name): block for kind, block in found}
    assert len(named) == len(found), "every name is a file: it must be unique"
    return named


def stats(page: ns.Page) -> dict[str, ns.Stat]:
    """Headline numbers by label."""
    return {block.label: block for block in page.blocks if isinstance(block, ns.Stat)}


def said(page: ns.Page, *, tone: str) -> str:
    """All paragraphs of one tone."""
    return "\n".join(block.text for block in page.blocks if isinstance(block, ns.Text) and block.tone == tone)


def sections(page: ns.Page) -> list[str]:
    """Sections in order."""
    return [block.title for block in page.blocks if isinstance(block, ns.Section)]


def test_sections_come_in_reading_order(page):
    """From what the clusters are over what blocking them does to single images."""
    assert sections(page) == list(SECTIONS.values())


def test_page_is_drawn(page):
    """The report takes every block, and names layers as their presets."""
    html = render_page(page)
    assert "Clusters of channels" in html
    assert "block_1" in html
    assert blocks(page)


def test_page_of_an_empty_result_is_empty_but_for_its_introduction():
    """No group, no section; what blocking means is still explained."""
    empty = clusters_page(made({}))
    assert not sections(empty)
    assert not stats(empty)
    assert "predictions stay the same" in said(empty, tone="plain")
    assert render_page(empty)


@pytest.mark.parametrize("name", sorted(every_group()))
def test_each_group_alone_is_shown(name):
    """Whatever a result lacks, what it has does not fail; groups that stand for themselves have their section."""
    alone = clusters_page(made({name: every_group()[name]}))
    blocks(alone)
    assert render_page(alone)
    if name in ("units", "clusterings", "centroids"):
        assert sections(alone) == ["Clusters"]
    elif name in ("decomposition_mixed.end", "accuracy", "classes", "panels"):
        assert sections(alone) == [SECTIONS[name]]


@pytest.mark.parametrize("name", sorted(every_group()))
def test_each_group_may_lack(name):
    """The rest of the page is there without it."""
    groups = every_group()
    del groups[name]
    rest = clusters_page(made(groups))
    blocks(rest)
    assert len(sections(rest)) >= 4


def test_headline_is_the_largest_gain_with_its_interval(page):
    """Saliency, patch metric, cluster 0 of 3: +7.7 points, beside how many were tried."""
    best = stats(page)["best filter"]
    assert best.value == "+7.7"
    assert (best.low, best.high) == (pytest.approx(6.7), pytest.approx(8.7))
    assert "cluster 0 of 3 in block_1, saliency, patch metric" in best.note
    assert "q < 10⁻⁴⁰⁰" in best.note
    assert "largest of 40 tried" in best.note


def test_a_gain_that_blurring_has_too_is_not_sold_as_one(page):
    """The headline and a warning say that smoothing may be all there is; random channels do not do it."""
    assert stats(page)["beats blurring?"].value == "cannot be told"
    assert stats(page)["beats random channels?"].value == "yes"
    assert "gain of cluster 0 of 3 in block_1 over the untouched map is not shown to be more than" in said(
        page, tone="warning"
    )
    assert "none of 6 clusters can be told from its blurred control" in said(page, tone="note")


def test_a_gain_beyond_blurring_is_said_to_be_one():
    """With a clear difference to the control the answer is yes, and no warning stands."""
    groups = every_group()
    group = groups["against_blurred"]
    groups["against_blurred"] = group.assign(log10_q=group["log10_q"] - 9)
    page = clusters_page(made(groups))
    assert stats(page)["beats blurring?"].value == "yes"
    assert "smoothing" not in said(page, tone="warning")


def test_no_effect_is_said_to_be_none():
    """Where nothing survives the false discovery rate, neither headline nor words claim a gain."""
    groups = every_group()
    compared = groups["comparisons"]
    groups["comparisons"] = compared.assign(log10_q=compared["log10_q"] * 0.0)
    page = clusters_page(made(groups))
    assert "not distinguishable from no gain" in stats(page)["best filter"].note
    assert "none of 10 clusters has an effect that can be told from none (q < 0.05)" in said(page, tone="note")
    assert set(blocks(page)["tables", "comparisons"].frame["verdict"]) == {"not distinguishable"}


def test_layer_without_clusters_is_said_to_have_none(page):
    """The null can say no; then cluster numbers are called arbitrary."""
    assert "mixed.end: No clusters: p = 0.3. What follows still cuts" in said(page, tone="note")
    assert "block_1: k = 3 has the highest silhouette." in said(page, tone="plain")
    frame = blocks(page)["tables", "clusterings"].frame
    assert frame["chosen"].tolist() == ["", "yes", "", ""]


def test_layer_that_is_no_cut_is_warned_of(page):
    """Paths past a layer keep their gradient."""
    assert "mixed.end is not a cut of the network: some paths lead past it, with a gradient of 40%" in said(
        page, tone="warning"
    )
    assert stats(page)["layers that are cuts"].value == "1 of 2"
    assert stats(page)["completeness residual"].unit == "logits"


def test_channels_of_no_cluster_are_shown_apart(page):
    """Every channel is in one series; a dead one is in the last."""
    first, _ = blocks(page)["figures", "clusters-rate-mean"].charts
    assert [series.name for series in first.series] == ["cluster 0", "cluster 1", "cluster 2", "in none"]
    assert sum(len(series.y) for series in first.series) == LAYERS[FIRST]
    assert len(first.series[-1].y) == 1


def test_what_cannot_be_told_is_hatched(page):
    """Each bar is in one of two series, by its q-value; both have intervals."""
    panel = blocks(page)["figures", "effect-ig-patch"]
    told, untold = panel.charts[0].series
    assert np.isfinite(told.y).tolist() == [True, False, True, False, False]
    np.testing.assert_array_equal(np.isfinite(told.y), ~np.isfinite(untold.y))
    np.testing.assert_array_equal(np.isfinite(untold.low), np.isfinite(untold.y))
    assert panel.charts[0].x.ticks == ("0 of 2", "1 of 2", "0 of 3", "1 of 3", "2 of 3")


def test_map_of_the_grid_holds_every_filter(page):
    """Layers down, clusters of all k across, in points."""
    chart = blocks(page)["figures", "effect-grid"].charts[0]
    assert chart.series[0].y.shape == (2, 5)
    assert chart.series[0].y[0, 2] == pytest.approx(7)
    assert chart.diverging


def test_controls_stand_beside_their_cluster(page):
    """Random sets as mean and range, blurred maps with their interval; random order where levels are shown."""
    gain = blocks(page)["figures", "smoothing-gain"].charts[0]
    _, blurred, random = gain.series
    assert blurred.y[0] == pytest.approx(6.3)
    assert (random.low[0], random.y[0], random.high[0]) == pytest.approx((-0.2, 0.0, 0.2))
    level = blocks(page)["figures", "smoothing-level"].charts[0]
    assert [series.name for series in level.series][-1] == "random order"
    np.testing.assert_allclose(level.series[-1].y, 8)


def test_random_sets_that_are_the_cluster_are_noted(page):
    """A control that shares most of its channels is called weak; without controls a warning stands."""
    assert "Some random sets are mostly the cluster itself, up to 89%" in said(page, tone="note")
    groups = every_group()
    listing = groups["configurations"]
    kept = np.flatnonzero(listing["kind"].to_numpy() != "random")
    bare = {
        name: group.isel(configuration=kept) if "configuration" in group.sizes else group
        for name, group in groups.items()
        if name != "against_random"
    }
    assert "No random sets were tried (--controls 0)" in said(clusters_page(made(bare)), tone="warning")


def test_curves_have_a_line_for_baseline_and_clusters(page):
    """Deletion and insertion of each method, and areas of what has curves."""
    charts = blocks(page)["figures", f"curves-{FIRST}"].charts
    assert len(charts) == 4
    assert charts[0].series[0].name == "untouched map"
    np.testing.assert_allclose(charts[0].series[0].x, 100 * np.array(FRACTIONS))
    assert len(blocks(page)["tables", "areas"].frame) == 2 * (1 + MAIN + MAIN) * 2


def test_shares_stand_beside_sizes_and_sums_are_judged(page):
    """Linear methods add up, others are said not to."""
    frame = blocks(page)["tables", "decomposition"].frame
    own = frame[(frame["layer"] == "block_1") & (frame["method"] == "ig")]
    np.testing.assert_allclose(own["share"], [0.78, 0.09, 0.13])
    assert own["share of channels"].sum() == pytest.approx(1)
    assert "add up to the untouched map but for rounding: block_1, ig" in said(page, tone="plain")
    assert "They do not add up: block_1, saliency" in said(page, tone="note")


def test_shares_without_a_summary_are_averaged_here():
    """Older results hold images alone: the mean and its interval are made from them."""
    groups = every_group()
    name = f"decomposition_{FIRST}"
    groups = {name: groups[name][["share"]], "units": groups["units"]}
    frame = blocks(clusters_page(made(groups, k=KS)))["tables", "decomposition"].frame
    share = groups[name]["share"].to_numpy().astype(float)
    np.testing.assert_allclose(frame["share"], share.mean(axis=0).ravel())
    assert (frame["share low"] < frame["share"]).all()


def test_silenced_clusters_stand_beside_unchanged_accuracy(page):
    """Blocking a gradient changes no prediction, and that was checked; silencing does."""
    silenced, blocked = blocks(page)["figures", "dropped"].series
    assert len(silenced.y) == 2 * MAIN
    assert set(blocked.y) == {74.0}
    assert "the same, bit for bit (checked)" in said(page, tone="plain")
    assert "5 of 10 clusters are missed when silenced" in said(page, tone="plain")


def test_changed_predictions_are_a_warning():
    """A gradient filter that changes outputs is a fault of the run."""
    groups = every_group()
    groups["accuracy"] = groups["accuracy"].assign(filtered_top1_equal=((), np.array(0)))
    assert "were not the same" in said(clusters_page(made(groups)), tone="warning")


def test_classes_are_sorted_with_lines_at_zero_and_mean(page):
    """The cluster that gains most, class by class; the table has every class."""
    panel = blocks(page)["figures", "classes"]
    assert "cluster 0 of 3, block_1" in panel.title
    classes, mean, zero = panel.charts[0].series
    assert (np.diff(classes.y) >= 0).all()
    assert mean.y[0] == pytest.approx(classes.y.mean())
    assert not zero.y.any()
    frame = blocks(page)["tables", "classes"].frame
    assert sorted(frame["class"]) == sorted(f"kind {i}" for i in range(25))


def test_classes_of_one_filter_from_the_original_tables_are_shown():
    """Only classes and methods, and the difference the other way round."""
    values = np.array([[-0.1, -0.2], [0.3, 0.1]])
    table = xr.Dataset({"mean_diff": (("class", "method"), values)}, coords={"class_id": ("class", np.array([3, 4]))})
    frame = blocks(clusters_page(made({"classes": table})))["tables", "classes"].frame
    assert frame["mean"].tolist() == pytest.approx([0.15, -0.2])
    assert frame["number"].tolist() == [3, 4]


def test_panels_show_maps_and_what_was_replaced(page):
    """A row for each image and method: image, maps, and replaced parts with the fall of the probability."""
    gallery = blocks(page)["figures", "panels"]
    assert len(gallery.strips) == 4
    captions = [picture.caption for picture in gallery.strips[0].pictures]
    assert captions[0] == "image"
    assert captions[1].startswith("untouched, sparsity 0.")
    assert len(captions) == 1 + 2 + MAIN + 4
    assert captions[-1].startswith("0 blocked, pixel: 90% to ")
    assert gallery.strips[0].label == "kind 1; integrated gradients"
    assert "answered kind 7" in gallery.strips[2].note
    assert len({picture.image.shape for picture in gallery.strips[0].pictures}) == 1


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    rows=st.integers(1, 30),
    columns=st.integers(1, 30),
    size=st.sampled_from([0.0, 1e-6, 1.0, 1e4]),
)
def test_overlays_have_the_size_of_the_image(height, width, rows, columns, size):
    """Whatever the sizes of map and mask, and however strong the map."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    values = size * rng.random((rows, columns))
    assert overlay(image, values).shape == image.shape
    np.testing.assert_array_equal(overlay(image, values), overlay(image, -values))
    shown = replaced(image, np.ones((rows, columns), dtype=bool))
    assert (shown == 128).all()
    np.testing.assert_array_equal(replaced(image, np.zeros((rows, columns), dtype=bool)), image)


def test_small_chances_are_written_as_powers():
    """No q-value is written as 0."""
    assert probable(-1.0) == "q = 0.1"
    assert probable(-400.0) == "q < 10⁻⁴⁰⁰"
    assert probable(float("nan")) == "q unknown"


def test_controls_are_those_of_the_cluster():
    """Random sets of one cluster are no control of another; random order is one of all of its layer."""
    view = View(made(every_group()))
    row = int(view.rows("filter", layer=SECOND, k=MAIN, cluster=1)[0])
    assert {(str(view.layer[i]), int(view.cluster[i])) for i in view.controls(row, "random")} == {(SECOND, 1)}
    assert [str(view.layer[i]) for i in view.controls(row, "ranking")] == [SECOND]


@pytest.mark.parametrize(
    ("share", "tone", "words"),
    [(0.9, "warning", "most of what makes a map faithful is in the image"), (0.1, "plain", "depends on the weights")],
)
def test_maps_of_a_shuffled_network_are_judged(share, tone, words):
    """They stand between a random order and the untouched map; near the latter, faithfulness is not the network's."""
    groups = every_group()
    result = made(groups)
    known = groups["metrics"]["faithfulness_mean"].to_numpy()
    kinds = groups["configurations"]["kind"].to_numpy().tolist()
    base, floor = known[kinds.index("baseline")], known[kinds.index("ranking")]
    shuffled = floor + share * (base - floor)
    groups["unfiltered"] = xr.Dataset(
        {
            f"{what}_{part}": (("map", "metric"), shuffled)
            for what in ("faithfulness", "sparsity")
            for part in ("mean", "std", "low", "high")
        },
        coords={
            "map_name": ("map", texts([f"{method}, shuffled weights" for method in METHODS])),
            "metric_name": ("metric", texts(METRICS)),
        },
    )
    page = made(groups).page()
    assert f"{share:.0%} (integrated gradients, patch)" in said(page, tone=tone)
    assert words in said(page, tone=tone)
    assert "Of the way from a random order" not in said(result.page(), tone=tone)
