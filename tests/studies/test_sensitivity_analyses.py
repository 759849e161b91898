"""Correlations and discriminants of a finished sensitivity result, and their part of the page."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import neuronscope as ns
from neuronscope.errors import InputError
from neuronscope.faces.html import render_page
from neuronscope.result import Provenance, Result, open_result
from neuronscope.studies.sensitivity.analyses import check_discriminants, correlation_groups, discriminant_groups
from neuronscope.studies.sensitivity.page import sensitivity_page
from neuronscope.studies.sensitivity.page.analyses import correlations, discriminants
from neuronscope.studies.sensitivity.page.view import View
from neuronscope.studies.sensitivity.spec import SensitivitySpec
from neuronscope.studies.sensitivity.study import run_sensitivity
from neuronscope.views import Chart, Page, Panel, Table, Text

FLAT, SPATIAL = "fc_layers.3", "conv_layers.1"
LOOKED_AT = {"correlations-within-1", "correlation-spreads", "discriminants-0"}
"""Panels that are drawn; the others are of the same kinds."""
FEW = {"folds": 3, "repeats": 2, "permutations": 19}


@pytest.fixture(scope="module")
def result():
    """A small run of three estimators."""
    subject = ns.load_model("builtin:viewer-cnn", weights="random")
    spec = SensitivitySpec(
        layers=(SPATIAL, FLAT),
        augmentations=("brightness", "hflip"),
        estimators=("sobol", "shapley", "contrast"),
        second_order="none",
        points=16,
        replicates=4,
        permutations=8,
        contrast_images=10,
        draws=1,
        stop="never",
    )
    return run_sensitivity(subject, ns.load_data("digits", limit=100), spec, run=ns.Run(threads=1))


@pytest.fixture(scope="module")
def groups(result):
    """Both analyses."""
    return correlation_groups(result.tree) | discriminant_groups(result.tree, run=ns.Run(), **FEW)


def joined(result, groups):
    """A result with more groups."""
    tree = {node.path: node.to_dataset(inherit=False) for node in result.tree.subtree}
    return replace(result, tree=xr.DataTree.from_dict({**tree, **{f"/{name}": own for name, own in groups.items()}}))


def planted(*, units=24, side=5, factors=("a", "b", "c"), layers=("conv",), seed=0):
    """A tree as the study makes it: b rises with a from unit to unit, c is at a place of its own."""
    rng = np.random.default_rng(seed)
    children = {}
    for layer in layers:
        common = rng.uniform(0.2, 0.8, (units, 1, 1, 1))
        total = np.broadcast_to(common, (units, side, side, 3)) + 0.02 * rng.normal(size=(units, side, side, 3))
        total[..., 2] = 0.3 + 0.1 * rng.normal(size=(units, side, side))
        total[:, 0, 0, 2] += 0.5
        variables = {
            "total": (("unit", "y", "x", "factor"), total.astype(np.float32)),
            "mean": (("unit", "y", "x"), np.ones((units, side, side), dtype=np.float32)),
            "variance": (("unit", "y", "x"), (common[..., 0] ** 2 * np.ones((units, side, side))).astype(np.float32)),
        }
        children[f"/maps/{layer}"] = xr.Dataset(
            variables,
            coords={
                "factor_name": ("factor", np.array(factors, dtype=object)),
                "augmentation_name": ("augmentation", np.array(factors[:2], dtype=object)),
            },
        )
    names = xr.Dataset(coords={"layer_name": ("layer", np.array(layers, dtype=object))})
    return xr.DataTree.from_dict({"/": xr.Dataset(), "/layers": names, **children})


def view_of(tree, groups):
    """What the page reads, of a planted tree."""
    provenance = Provenance("sensitivity", {}, (), "planted", "", "planted", "", 0)
    return View(joined(Result(tree, provenance, view=sensitivity_page), groups))


def at(group, variable, **names):
    """One number by the names of its places."""
    chosen = {axis: list(group[f"{axis}_name"].to_numpy()).index(name) for axis, name in names.items()}
    return group[variable].isel(chosen)


def test_planted_correlations_are_found():
    """Factors that go together, one that does not, and one that units vary by, with intervals and q-values."""
    found = correlation_groups(planted())["correlations"]
    own = at(found, "within_mean", layer="conv", value="total").to_numpy()
    q = at(found, "within_q", layer="conv", value="total").to_numpy()
    assert own[0, 1] > 0.95
    assert q[0, 1] < 0.001
    assert abs(own[0, 2]) < 0.3
    assert q[0, 2] > 0.05
    low, high = (at(found, f"within_{end}", layer="conv", value="total").to_numpy() for end in ("low", "high"))
    assert low[0, 2] < 0 < high[0, 2]
    variation = at(found, "variation_mean", layer="conv", share="total").to_numpy()
    assert variation[:2].min() > 0.95
    assert abs(variation[2]) < 0.3


def test_numbers_are_those_of_scipy_on_the_maps(result, groups):
    """Within a value, between two, with variation, and across places, from the arrays of the result, cut to 0..1."""
    found = groups["correlations"]
    maps = result.tree[f"maps/{SPATIAL}"].to_dataset()
    units = maps.sizes["unit"]
    first, shapley = (np.clip(maps[name].to_numpy(), 0, 1).reshape(units, -1, 6) for name in ("first", "shapley"))
    cov = (np.sqrt(maps["variance"]) / (abs(maps["mean"]) + 1e-5)).to_numpy().reshape(units, -1)
    alive = np.isfinite(first).all(axis=2)

    def plain(x, y, known):
        """At every place where both vary over the units that are known."""
        pairs = [(x[known[:, p], p], y[known[:, p], p]) for p in range(x.shape[1])]
        return np.array([stats.spearmanr(*pair).statistic for pair in pairs if all(len({*one}) > 1 for one in pair)])

    factors = list(found["factor_name"].to_numpy())
    g, h = factors.index("brightness"), factors.index("image")
    within = plain(first[..., g], first[..., h], alive)
    layer = {"layer": SPATIAL}
    assert at(found, "within_mean", value="first", **layer).to_numpy()[g, h] == pytest.approx(within.mean(), abs=1e-6)
    assert at(found, "within_deviation", value="first", **layer).to_numpy()[g, h] == pytest.approx(
        within.std(ddof=1), abs=1e-6
    )
    between = plain(shapley[..., g], first[..., h], alive & np.isfinite(shapley).all(axis=2)).mean()
    assert at(found, "between_mean", crossing="shapley x first", **layer).to_numpy()[g, h] == pytest.approx(
        between, abs=1e-6
    )
    assert at(found, "variation_mean", share="first", **layer).to_numpy()[h] == pytest.approx(
        plain(first[..., h], cov, alive).mean(), abs=1e-5
    )
    own = plain(first[..., g].T, first[..., h].T, alive.T)
    assert at(found, "own_mean", value="first", **layer).to_numpy()[g, h] == pytest.approx(own.mean(), abs=1e-6)
    there = at(found, "variation_map", share="first").to_numpy()[: first.shape[1], h]
    assert np.allclose(there[np.isfinite(there)], plain(first[..., h], cov, alive), atol=1e-5)


def test_contrasts_are_of_augmentations(groups):
    """Auxiliary factors have no contrast; augmentations have their size."""
    found = at(groups["correlations"], "within_mean", layer=FLAT, value="contrast").to_numpy()
    factors = list(groups["correlations"]["factor_name"].to_numpy())
    assert np.isnan(found[factors.index("image")]).all()
    assert found[factors.index("brightness"), factors.index("brightness")] == pytest.approx(1)


def test_layers_are_in_the_networks_order_and_flat_ones_have_no_discriminants(groups):
    """Correlations are of all layers, discriminants of those with maps."""
    assert groups["correlations"]["layer_name"].to_numpy().tolist() == [SPATIAL, FLAT]
    assert groups["discriminants"]["layer_name"].to_numpy().tolist() == [SPATIAL]
    assert np.isnan(at(groups["correlations"], "own_mean", layer=FLAT).to_numpy()).all()


def test_layers_of_one_unit_and_results_without_maps_have_none():
    """Nothing is correlated across one unit, and nothing comes of nothing."""
    assert correlation_groups(planted(units=1)) == {}
    assert correlation_groups(xr.DataTree()) == {}
    assert discriminant_groups(xr.DataTree(), run=ns.Run()) == {}


def test_a_planted_place_tells_its_factor():
    """The factor that has a place of its own is recognised; the two that are alike are taken for each other."""
    found = discriminant_groups(planted(), run=ns.Run(), **FEW)["discriminants"]
    assert at(found, "p", layer="conv", share="total") == pytest.approx(0.05)
    confusion = at(found, "confusion", layer="conv", share="total").to_numpy()
    assert confusion[2, 2] > 0.75
    assert confusion[0, 0] < 0.8
    assert np.allclose(confusion.sum(axis=1), 1)
    assert found.sizes["sample"] == 24 * 3
    assert found["sample_factor"].to_numpy()[:4].tolist() == [0, 1, 2, 0]


def test_the_seed_decides_and_layers_are_independent():
    """The same run gives the same numbers, whatever other layers there are."""
    one = discriminant_groups(planted(), run=ns.Run(seed=3), **FEW)["discriminants"]
    two = discriminant_groups(planted(layers=("conv", "other")), run=ns.Run(seed=3), **FEW)["discriminants"]
    assert np.array_equal(one["test"].to_numpy()[0], two["test"].to_numpy()[0])


def test_too_few_units_are_told_before_and_do_not_cost_the_result():
    """Layers with fewer units than folds are refused at the door; dead units found later leave nan and a note."""
    with pytest.raises(InputError, match="layer 'conv' cannot be split into 5 folds: 5 units or more expected, got 4"):
        check_discriminants({"big": 64, "conv": 4}, folds=5)
    check_discriminants({"big": 64}, folds=5)
    found = discriminant_groups(planted(units=2), run=ns.Run(), **FEW)["discriminants"]
    assert np.isnan(found["test"].to_numpy()).all()
    assert found["units"].to_numpy().tolist() == [[0]]


def test_the_page_shows_every_figure(result, groups, tmp_path):
    """Every figure of the published analyses has its counterpart, of a result that was saved and opened again."""
    joined(result, groups).save(tmp_path / "result")
    view = View(open_result(tmp_path / "result"))
    blocks = (*correlations(view), *discriminants(view))
    drawn = tuple(block for block in blocks if not isinstance(block, Panel) or block.name in LOOKED_AT)
    names = {block.name for block in blocks if isinstance(block, Chart | Panel | Table) or hasattr(block, "strips")}
    assert names >= {
        "correlations-within-0",
        "correlations-between-0",
        "correlation-spreads",
        "correlations-by-depth",
        "correlations-with-variation",
        "variation-maps",
        "correlations",
        "confusion-0",
        "discriminants",
        "discriminants-0",
        "flat-shares",
    }
    assert "Telling factors apart by their maps" in render_page(Page("Analyses", "", drawn))


def test_what_is_not_told_is_hatched_and_in_the_table():
    """Cells without a small q have no value in the heat map; the table has every pair."""
    tree = planted(layers=("conv",))
    found = correlation_groups(tree)
    blocks = list(correlations(view_of(tree, found)))
    cells = (
        next(block for block in blocks if getattr(block, "name", "") == "correlations-within-0").charts[0].series[0].y
    )
    assert cells[0, 1] > 0.9
    assert np.isnan(cells[0, 2])
    assert cells[2, 2] == 1
    frame = next(block for block in blocks if isinstance(block, Table)).frame
    assert len(frame[frame["kind"] == "within"]) == 3


def test_the_leak_is_said():
    """A result with folds by samples warns; layers with too few units are named."""
    tree = planted()
    leaking = discriminant_groups(tree, run=ns.Run(), split="samples", **FEW)
    warned = [block for block in discriminants(view_of(tree, leaking)) if isinstance(block, Text)]
    assert any("mean" in block.text and block.tone == "warning" for block in warned)
    few = planted(units=2)
    said = [
        block.text
        for block in discriminants(view_of(few, discriminant_groups(few, run=ns.Run(), **FEW)))
        if isinstance(block, Text)
    ]
    assert any("Too few units with a value for 3 folds: conv" in text for text in said)
