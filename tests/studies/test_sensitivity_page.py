"""The page of the `sensitivity` study: what it says, what it does not claim, and results that lack some groups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import neuronscope as ns
from neuronscope.faces.html import render_page
from neuronscope.result import Result
from neuronscope.studies.sensitivity.original import export_sensitivity
from neuronscope.studies.sensitivity.page import sensitivity_page
from neuronscope.studies.sensitivity.page.pictures import ACROSS, coloured, map_picture, montage, shrunk
from neuronscope.studies.sensitivity.page.strips import choose
from neuronscope.studies.sensitivity.page.view import View
from neuronscope.studies.sensitivity.spec import SensitivitySpec
from neuronscope.studies.sensitivity.study import run_sensitivity

FLAT, SPATIAL = "fc_layers.3", "conv_layers.1"
AUGMENTATIONS = ("brightness", "hflip", "rolling")
FACTORS = (*AUGMENTATIONS, "order", "class", "partition", "image")
SMALL = {
    "augmentations": AUGMENTATIONS,
    "points": 32,
    "replicates": 4,
    "permutations": 16,
    "contrast_images": 12,
    "draws": 2,
    "severity_images": 10,
    "stop": "never",
    "shown_units": 3,
}
SECTIONS = {
    "sobol": {"Factors by layer", "Dominant factors", "Pairs of factors", "How sure the order is"},
    "shapley": {"Factors by layer"},
    "contrast": {"Plain against augmented images", "Accuracy under augmentations"},
    "severity": {"Severity"},
}
"""Estimator: the sections that show it, beside those of units and maps."""


def digits(**options):
    """A quick result of the built-in network on digits."""
    subject = ns.load_model("builtin:viewer-cnn", weights="random")
    spec = SensitivitySpec(layers=(SPATIAL, FLAT), **{**SMALL, **options})
    return run_sensitivity(subject, ns.load_data("digits", limit=200), spec, run=ns.Run(threads=1))


@pytest.fixture(scope="module")
def result():
    """All four estimators."""
    return digits()


def changed(result, groups=None, spec=None, without=()):
    """The same result with other groups and options, and without some groups."""
    tree = {node.path: node.to_dataset() for node in result.tree.subtree}
    kept = {path: one for path, one in tree.items() if not any(path.startswith(f"/{name}") for name in without)}
    kept |= {f"/{name}": group for name, group in (groups or {}).items()}
    provenance = replace(result.provenance, spec={**result.provenance.spec, **(spec or {})})
    return Result(xr.DataTree.from_dict(kept), provenance, view=sensitivity_page)


def with_units(result, **variables):
    """The units with other values of some variables."""
    units = result.tree["units"].to_dataset()
    return units.assign({name: (units[name].dims, values) for name, values in variables.items()})


def texts_of(page, tone=None):
    """All paragraphs (of one tone) in one string."""
    return " ".join(
        block.text for block in page.blocks if isinstance(block, ns.Text) and (tone is None or block.tone == tone)
    )


def sections_of(page):
    """Titles of the sections."""
    return {block.title for block in page.blocks if isinstance(block, ns.Section)}


def named(page, kind, name):
    """The block of a kind with a name."""
    return next(block for block in page.blocks if isinstance(block, kind) and block.name == name)


def stats_of(page):
    """Headline numbers by label."""
    return {block.label: block for block in page.blocks if isinstance(block, ns.Stat)}


def test_page_shows_every_estimator(result):
    """A whole result has all sections, unique block names, and can be rendered."""
    page = result.page()
    assert set().union(*SECTIONS.values()) <= sections_of(page)
    assert {"Units", "Where in the image", "Single units", "Maps of the units", "Distributions"} <= sections_of(page)
    names = [(type(block), block.name) for block in page.blocks if hasattr(block, "name")]
    assert len(names) == len(set(names))
    charts = [block.name for block in page.blocks if isinstance(block, ns.Chart | ns.Panel)]
    galleries = [block.name for block in page.blocks if isinstance(block, ns.Gallery)]
    assert not set(charts) & set(galleries)  # they share the folder of figures
    html = render_page(page)
    assert "first-order index" in html
    assert len(html) < 4e6


@pytest.mark.parametrize("estimator", list(SECTIONS))
def test_each_estimator_alone_has_a_page(estimator):
    """A result of one estimator has its own sections and not those of the others."""
    page = digits(estimators=(estimator,)).page()
    others = set().union(*SECTIONS.values()) - SECTIONS[estimator]
    assert SECTIONS[estimator] <= sections_of(page)
    assert not others & sections_of(page)
    assert "Units" in sections_of(page)


def test_sheet_alone_is_a_page_of_pictures():
    """With show_augmentations there is nothing but the pictures of the augmentations."""
    page = digits(show_augmentations=True).page()
    assert [type(block) for block in page.blocks] == [ns.Section, ns.Gallery]
    assert page.blocks[1].name == "augmentations"
    assert "what the augmentations do" in page.summary


def test_headline_numbers_are_those_of_the_groups(result):
    """Accuracy, known dominance, rows and replicates agree with the tables they come from."""
    found = stats_of(result.page())
    accuracy = result.tree["accuracy"].to_dataset()
    assert float(found["accuracy, plain images"].value) == pytest.approx(
        100 * float(accuracy["accuracy"][0, 0]), abs=0.1
    )
    worst = float(found["accuracy, worst augmentation"].value)
    assert worst == pytest.approx(100 * float(accuracy["accuracy"][0, 1:].min()), abs=0.1)
    known = result.table["dominant_known"].to_numpy()
    live = result.table["dominant"].to_numpy() >= 0
    assert float(found["dominant factor known"].value) == pytest.approx(100 * known[live].mean(), abs=0.1)
    factors = len(FACTORS)
    rows = 32 * (2 * factors + 2) + 16 * (1 + factors)
    assert found["rows of the designs"].value == f"{rows:,}"
    assert found["replicates"].value == "4 of 4"


def test_bars_carry_the_intervals_of_layers(result):
    """Bars of a layer are its means over units, and their whiskers its intervals over replicates."""
    panel = named(result.page(), ns.Panel, "factors-by-layer")
    layers = result.tree["layers"].to_dataset()
    assert [chart.title for chart in panel.charts] == [SPATIAL, FLAT]
    series = {one.name: one for one in panel.charts[0].series}
    for name, title in (("first", "first-order index"), ("total", "total index"), ("shapley", "Shapley effect")):
        np.testing.assert_array_equal(series[title].y, layers[name].to_numpy()[0])
        np.testing.assert_array_equal(series[title].high, layers[f"{name}_high"].to_numpy()[0])
    assert panel.charts[0].x.ticks == FACTORS


def test_accuracy_is_ordered_by_damage(result):
    """The plain images come first, then augmentations from the most to the least harmful."""
    table = named(result.page(), ns.Table, "accuracy").frame
    assert table["images"][0] == "original"
    assert (np.diff(table["harm"][1:]) <= 0).all()
    assert set(table["images"][1:]) == set(AUGMENTATIONS)


def test_redrawn_images_are_warned_of(result):
    """Where the image is drawn anew, total indices are said to have a floor, and how high it is."""
    assert "floor" not in texts_of(result.page())
    warned = texts_of(changed(result, spec={"legacy": ["image-redrawn"]}).page(), "warning")
    floor = float(result.tree["layers"]["total"].to_numpy()[0].min())
    assert "Compare total indices with it, not with 0" in warned
    assert f"{floor:.2f} in {SPATIAL}" in warned


def test_one_replicate_has_no_intervals_and_says_so():
    """With the one sequence of the original nothing is called known, and a warning says why."""
    page = digits(estimators=("sobol",), replicates=1, points=8, legacy=("unscrambled",)).page()
    assert "intervals are missing" in texts_of(page, "warning")
    assert stats_of(page)["replicates"].value == "1 of 1"
    assert float(stats_of(page)["dominant factor known"].value) == 0
    assert "How sure the order is" not in sections_of(page)
    render_page(page)


def test_dead_layers_are_named(result):
    """A layer without a live unit is called dead, not insensitive."""
    own = result.table["layer"].to_numpy() == FLAT
    total, first, shapley, second = (
        result.table[name].to_numpy().copy() for name in ("total", "first", "shapley", "second")
    )
    for values in (total, first, shapley, second):
        values[own] = np.nan
    dominant = np.where(own, -1, result.table["dominant"].to_numpy())
    units = with_units(result, total=total, first=first, shapley=shapley, second=second, dominant=dominant)
    page = changed(result, {"units": units}, without=("maps",)).page()
    assert f"No unit of {FLAT} changes" in texts_of(page, "warning")
    assert f"{int(own.sum())} dead" in stats_of(page)["units"].note
    render_page(page)


def test_means_of_noise_are_left_out(result):
    """A layer whose units have shares beyond any true one is named, and its mean is not drawn."""
    layers = result.tree["layers"].to_dataset()
    total = layers["total"].to_numpy().copy()
    total[1, 0] = 40.0
    own = np.flatnonzero(result.table["layer"].to_numpy() == FLAT)
    units = np.clip(result.table["total"].to_numpy(), 0, 1)
    units[own[0], 0] = 400.0
    calm = np.clip(result.table["shapley"].to_numpy(), 0, 1)
    groups = {
        "layers": layers.assign(total=(("layer", "factor"), total)),
        "units": with_units(result, total=units, shapley=calm),
    }
    page = changed(result, groups).page()
    assert f"which no true share is: 1 unit in {FLAT}." in texts_of(page, "warning")
    profile = named(page, ns.Panel, "depth").charts[1].series[0].y
    assert np.isfinite(profile[0])
    assert np.isnan(profile[1])
    margin = named(page, ns.Table, "units").frame["margin"]
    assert np.isnan(margin[own[0]])


def test_table_of_units_is_bounded(result):
    """With too many numbers some shares are left out, and the text says which."""
    units = result.tree["units"].to_dataset()
    many = xr.concat([units] * 60, dim="unit")
    table = named(changed(result, {"units": many}, without=("maps",)).page(), ns.Table, "units")
    assert table.frame.size <= 80_000
    assert "first-order indices" in table.text
    whole = named(result.page(), ns.Table, "units")
    assert len(whole.frame) == units.sizes["unit"]
    assert "first brightness" in whole.frame


def test_shown_units_stand_for_different_factors(result):
    """Of each factor that dominates some unit, the one by the widest margin is chosen, known ones before others."""
    count = (result.table["layer"].to_numpy() == SPATIAL).sum()
    total = np.full((len(result.table["layer"]), len(FACTORS)), 0.1)
    total[:count, 0] = np.linspace(0.5, 0.6, count)
    total[3, :2] = 0.2, 0.9
    total[5, :3] = 0.2, 0.1, 0.4
    known = np.zeros(len(total), dtype=np.int64)
    known[[2, 5]] = 1
    view = View(changed(result, {"units": with_units(result, total=total, dominant_known=known)}))
    chosen = choose(view, SPATIAL, 3)
    assert [one.place for one in chosen] == [2, 3, 5]
    assert chosen[1].reason == "largest total index: hflip 0.90, not told from the second"
    assert chosen[2].reason == "largest total index: rolling 0.40"
    assert [one.place for one in choose(view, SPATIAL, 4)] == [2, 3, 5, count - 1]


def test_maps_on_the_page_are_those_of_the_result(result):
    """The first picture of a shown unit is its first-order map of the first factor, on the scale 0 to 1."""
    gallery = named(result.page(), ns.Gallery, "units-0")
    strip = gallery.strips[1]
    unit = int(strip.label.split(":")[1].split()[0])
    maps = result.tree[f"maps/{SPATIAL}"]["first"].to_numpy()
    expected = map_picture(maps[unit, ..., 0], 0.0, 1.0, caption="")
    np.testing.assert_array_equal(strip.pictures[0].image, expected.image)
    assert len(strip.pictures) == len(FACTORS)


def test_contrasts_that_are_noise_are_white(result):
    """Without a single q-value below the level all maps of the contrast are empty, and captions say so."""
    maps = result.tree[f"maps/{SPATIAL}"].to_dataset()
    maps["contrast_q"] = xr.ones_like(maps["contrast_q"])
    gallery = named(changed(result, {f"maps/{SPATIAL}": maps}).page(), ns.Gallery, "maps-0")
    strip = next(one for one in gallery.strips if one.label == "rank-biserial")
    assert [one.caption for one in strip.pictures] == [f"{name}: 0% told" for name in AUGMENTATIONS]
    assert set(np.unique(strip.pictures[0].image)) <= {120, 255}  # the lines between maps, and nothing


def test_many_layers_are_bounded(result):
    """Of more layers than charts have room for some are drawn, and the page says so."""
    layers = result.tree["layers"].to_dataset()
    many = xr.concat([layers] * 10, dim="layer")
    names = np.array([f"layer{i}" for i in range(many.sizes["layer"])], dtype=object)
    many = many.assign_coords(layer_name=("layer", names))
    page = changed(result, {"layers": many}, without=("maps", "convergence", "units")).page()
    panel = named(page, ns.Panel, "factors-by-layer")
    assert len(panel.charts) == 8
    assert panel.charts[-1].title == "layer19"
    assert "8 of 20 layers" in panel.text
    assert len(named(page, ns.Table, "layers").frame) == 20 * len(FACTORS)


def test_flat_layers_have_bars_and_maps_of_numbers(result):
    """A layer without places has a step for each unit, and factors by units."""
    page = result.page()
    bars = named(page, ns.Panel, "moments-0")
    units = int((result.table["layer"].to_numpy() == FLAT).sum())
    mean = result.tree[f"maps/{FLAT}"]["mean"].to_numpy().ravel()
    np.testing.assert_allclose(bars.charts[0].series[0].y, np.log10(1 + np.abs(mean)), rtol=1e-6)
    assert named(page, ns.Panel, "shares-0").charts[0].series[0].y.shape == (len(FACTORS), units)


def test_variances_beyond_single_precision_are_left_out_of_histograms(result):
    """Where an input has no bound, a variance can be infinite: the histogram is of the others."""
    maps = result.tree[f"maps/{SPATIAL}"].to_dataset()
    variance = maps["variance"].to_numpy().copy()
    variance[0] = np.inf
    altered = maps.assign(variance=(maps["variance"].dims, variance))
    page = sensitivity_page(changed(result, {f"maps/{SPATIAL}": altered}))
    panel = next(block for block in page.blocks if isinstance(block, ns.Panel) and block.name == "distributions")
    chart = next(chart for chart in panel.charts if chart.name == "variance")
    assert all(np.isfinite(series.x).all() for series in chart.series)
    assert sum(chart.series[0].y) == pytest.approx(1)


@given(st.integers(1, 20), st.integers(1, 9), st.integers(1, 9))
def test_montage_has_a_tile_for_each_map(count, height, width):
    """Each tile shows its own map, eight in a row, with lines between."""
    maps = np.arange(count * height * width, dtype=float).reshape(count, height, width)
    sheet = montage(maps, 0.0, float(maps.max()))
    last = count - 1
    top, left = last // ACROSS * (height + 1), last % ACROSS * (width + 1)
    tile = sheet[top : top + height, left : left + width]
    np.testing.assert_array_equal(tile, coloured(maps[last], 0.0, float(maps.max())))
    assert sheet.shape[1] == min(ACROSS, count) * (width + 1) - 1


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 12))
def test_shrunk_maps_are_means_of_squares(height, width, most):
    """Each pixel is the mean of the places it stands for, as far as most of them have a value."""
    maps = np.random.default_rng(height).normal(size=(1, height, width))
    maps[maps > 1] = np.nan
    step = -(-max(height, width) // most)
    found = shrunk(maps, most)
    assert max(found.shape[1:]) <= most or step == 1
    for i in range(found.shape[1]):
        for j in range(found.shape[2]):
            square = maps[0, i * step : (i + 1) * step, j * step : (j + 1) * step]
            known = square[np.isfinite(square)]
            if 2 * known.size >= square.size:
                assert found[0, i, j] == pytest.approx(known.mean())
            else:
                assert np.isnan(found[0, i, j])


def test_colours_rise_in_grey():
    """Larger values are lighter, so that a print in grey keeps their order."""
    grey = coloured(np.linspace(0, 1, 50), 0.0, 1.0) @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(grey) > 0).all()


def test_a_comparison_is_on_the_page(tmp_path):
    """A result that was compared with files, here its own, shows that it agrees with them."""
    subject = ns.load_model("builtin:viewer-cnn", weights="random")
    data = ns.load_data("digits", limit=60)
    options = {"layers": ("conv_layers.10",), "augmentations": ("brightness", "hflip"), "points": 16, "replicates": 4}
    spec = ns.SensitivitySpec(**options, estimators=("sobol",))
    first = ns.run_sensitivity(subject, data, spec, run=ns.Run(threads=1))
    export_sensitivity(first, tmp_path)
    again = ns.run_sensitivity(subject, data, replace(spec, compare_with=str(tmp_path)), run=ns.Run(threads=1))
    page = again.page()
    table = next(block for block in page.blocks if isinstance(block, ns.Table) and block.name == "comparison")
    assert (table.frame["difference"] < 1e-6).all()
    assert table.frame["spearman"].dropna().min() > 1 - 1e-6
    assert any(isinstance(block, ns.Panel) and block.name == "comparison" for block in page.blocks)
