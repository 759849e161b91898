"""Segments compared with the whole network: planted maps, slow twins with scipy, and results that do not fit."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats
from torch import nn

import neuronscope as ns
from neuronscope.errors import InputError, UnknownName
from neuronscope.faces.html import render_page
from neuronscope.result import Provenance, Result
from neuronscope.studies.sensitivity.analyses.segments import check_whole, pieces_of, segment_groups
from neuronscope.studies.sensitivity.page.segments import segments_and_whole
from neuronscope.studies.sensitivity.page.view import View
from neuronscope.views import Page, Panel, Table, Text

FACTORS = ("hue", "brightness", "class", "image")
CHANNELS = ("hue", "saturation", "value")
UNITS = (3, 5, 6, 8, 11, 14, 17, 19)
WHOLE_UNITS = 20
SEGMENTS = {"one": "conv1", "two": "conv2"}


def maps_of(shares, *, space):
    """A group of maps as the study writes it."""
    axes = ("unit", "y", "x", "factor")
    variables = {name: (axes, values.reshape(len(values), *space, -1).astype(np.float32)) for name, values in shares}
    return xr.Dataset(variables, coords={"factor_name": ("factor", np.array(FACTORS, dtype=object))})


def maps_like(loadings, rng, *, places):
    """Maps of units whose factors go together by what they share: (u, p, g), from loadings (u, g)."""
    common = rng.normal(size=(len(loadings), places, 1))
    return 0.5 + 0.05 * (loadings[:, None, :] * common + 0.4 * rng.normal(size=(len(loadings), places, len(FACTORS))))


def planted(*, seed=0, same=("hue",), shares=("total",), segments=SEGMENTS, space=(6, 6)):
    """A tree of segments and one of the whole network; some channels are as the whole network."""
    rng = np.random.default_rng(seed)
    tree, whole = {}, {}
    rows = {name: [] for name in ("layer", "index", "segment", "channel", "modules")}
    for name, module in segments.items():
        signs = rng.choice([-1.0, 1.0], size=(WHOLE_UNITS, len(FACTORS)))
        original = [(share, maps_like(signs, rng, places=64)) for share in shares]
        whole[f"/maps/{module}"] = maps_of(original, space=(8, 8))
        for channel in CHANNELS:
            chosen = signs[list(UNITS)]
            own = chosen if channel in same else rng.choice([-1.0, 1.0], size=chosen.shape)
            places = int(np.prod(space))
            tree[f"/maps/{name}.{channel}"] = maps_of(
                [(share, maps_like(own, rng, places=places)) for share in shares], space=space
            )
            for unit in UNITS:
                for key, value in zip(rows, (f"{name}.{channel}", unit, name, channel, f"relu,{module}"), strict=True):
                    rows[key].append(value)
    columns = {key: ("unit", np.array(values, dtype=object)) for key, values in rows.items() if key != "index"}
    columns["index"] = ("unit", np.array(rows["index"]))
    names = {"layer_name": ("layer", np.array([path[6:] for path in tree], dtype=object))}
    tree |= {"/segments": xr.Dataset(columns), "/layers": xr.Dataset(coords=names)}
    return tuple(xr.DataTree.from_dict({"/": xr.Dataset(), **one}) for one in (tree, whole))


def found_in(trees, **options):
    """The group, with places by name."""
    return segment_groups(*trees, run=ns.Run(), **options)["whole_network"]


def at(group, variable, **names):
    """One number or matrix by the names of its places."""
    chosen = {axis: list(group[f"{axis}_name"].to_numpy()).index(name) for axis, name in names.items()}
    return group[variable].isel(chosen).to_numpy()


@pytest.fixture(scope="module")
def trees():
    """Hue is as the whole network, the other channels are not."""
    return planted(shares=("first", "total"))


@pytest.fixture(scope="module")
def group(trees):
    """Their comparison."""
    return found_in(trees)


def test_a_channel_on_which_units_keep_what_they_are_is_told(group):
    """On hue units are closer to themselves than to others; on saturation and value nothing says so."""
    for segment in SEGMENTS:
        for share in ("first", "total"):
            own = {"segment": segment, "share": share}
            assert at(group, "apart_q", channel="hue", **own) < 0.05
            apart, high, other = (
                at(group, f"apart{end}", channel="hue", **own) for end in ("", "_high", "_mismatched")
            )
            assert apart < high < other
            assert at(group, "apart_q", channel="value", **own) > 0.05


def test_numbers_are_those_of_scipy_on_the_maps(trees, group):
    """Mean and deviation over units, and differences to the same units of the whole network, written plainly."""
    tree, whole = trees
    own = np.asarray(tree["maps/two.saturation"]["total"], dtype=np.float64).reshape(len(UNITS), -1, len(FACTORS))
    full = np.asarray(whole["maps/conv2"]["total"], dtype=np.float64).reshape(WHOLE_UNITS, -1, len(FACTORS))
    rho = np.array([stats.spearmanr(one).statistic for one in own])
    rho_whole = np.array([stats.spearmanr(full[unit]).statistic for unit in UNITS])
    place = {"segment": "two", "share": "total"}
    for source, values in (("saturation", rho), ("original", rho_whole)):
        assert np.allclose(at(group, "own_mean", source=source, **place), values.mean(0), atol=1e-6)
        deviation = at(group, "own_deviation", source=source, **place)
        assert np.allclose(deviation, values.std(0, ddof=1), atol=1e-6)
    apart = np.abs(rho - rho_whole)
    assert np.allclose(at(group, "difference_mean", channel="saturation", **place), apart.mean(0), atol=1e-6)
    assert np.allclose(
        at(group, "difference_deviation", channel="saturation", **place), apart.std(0, ddof=1), atol=1e-6
    )
    upper = np.triu_indices(len(FACTORS), 1)
    of_units = apart[:, *upper].mean(axis=1)
    assert at(group, "apart", channel="saturation", **place) == pytest.approx(of_units.mean(), abs=1e-6)
    interval = stats.t.interval(0.95, len(UNITS) - 1, of_units.mean(), stats.sem(of_units))
    ends = [at(group, f"apart_{end}", channel="saturation", **place) for end in ("low", "high")]
    assert np.allclose(ends, interval, atol=1e-6)
    pairs = [np.abs(rho[i] - rho_whole[k])[upper].mean() for i in range(8) for k in range(8) if i != k]
    assert at(group, "apart_mismatched", channel="saturation", **place) == pytest.approx(np.mean(pairs), abs=1e-6)


def test_distances_of_layers_are_as_published(trees, group):
    """Channels over the strict upper triangle, channel and whole network with the diagonal; mean matrices of layers."""
    mean = {
        (segment, source): at(group, "own_mean", segment=segment, share="total", source=source)
        for segment in SEGMENTS
        for source in (*CHANNELS, "original")
    }
    for one, other in combinations((*CHANNELS, "original"), 2):
        upper = np.triu_indices(len(FACTORS), 0 if other == "original" else 1)
        x, y = mean["one", one][upper], mean["two", other][upper]
        place = {"share": "total", "pair": f"{one} x {other}"}
        distance = at(group, "distance", segment="one", **place)[1]
        assert distance == pytest.approx(np.abs(x - y).mean(), abs=1e-6)
        assert at(group, "alike", segment="one", **place)[1] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-6)
    own = {name: at(group, name, share="total", pair="hue x hue") for name in ("distance", "distance_q", "alike_q")}
    assert np.diag(own["distance"]).tolist() == [0, 0]
    for values in own.values():
        assert np.array_equal(values, values.T, equal_nan=True)
    assert np.isnan(np.diag(own["distance_q"])).all()
    assert np.isfinite(own["distance_q"][0, 1])
    assert group.attrs["left_out"] == ""
    assert trees[0]["segments"].sizes["unit"] == 2 * 3 * len(UNITS)


def test_layers_that_differ_are_told_and_those_alike_are_not():
    """All units of one segment with their factors together, all of the other not: the distance is beyond chance."""
    tree, whole = planted(seed=3)
    rng = np.random.default_rng(1)
    for channel in CHANNELS:
        tree[f"maps/one.{channel}"] = xr.DataTree(
            maps_of([("total", maps_like(np.ones((len(UNITS), 4)), rng, places=36))], space=(6, 6))
        )
    group = found_in((tree, whole))
    far = {"share": "total", "pair": "saturation x saturation", "segment": "one"}
    assert at(group, "distance_q", **far)[1] < 0.05
    assert at(group, "distance", **far)[1] > at(group, "distance_null_high", **far)[1]
    near = {"share": "total", "pair": "hue x saturation", "segment": "one"}
    assert at(group, "distance_q", **near)[0] > 0.05


def test_segments_without_places_are_left_out_and_named():
    """A map of one place has no correlations: the segment is named, and the others stay."""
    tree, whole = planted()
    whole["maps/conv2"] = xr.DataTree(whole["maps/conv2"].to_dataset().isel(x=slice(1), y=slice(1)))
    group = found_in((tree, whole))
    assert group["segment_name"].to_numpy().tolist() == ["one"]
    assert group.attrs["left_out"] == "two"
    tree, whole = planted(space=(1, 1))
    assert segment_groups(tree, whole, run=ns.Run()) == {}


def test_factors_in_another_order_are_put_in_order():
    """The whole network's factors are found by name."""
    tree, whole = planted()
    plain = found_in((tree, whole))
    for module in SEGMENTS.values():
        whole[f"maps/{module}"] = xr.DataTree(whole[f"maps/{module}"].to_dataset().isel(factor=[2, 0, 3, 1]))
    assert found_in((tree, whole)).equals(plain)


def test_units_are_the_networks_own():
    """Pieces know the numbers of their units in the network, and where they end."""
    first, second = pieces_of(planted()[0]["segments"].to_dataset())
    assert (first.name, first.module, first.units) == ("one", "conv1", UNITS)
    assert second.layers == {channel: f"two.{channel}" for channel in CHANNELS}


def test_missing_coefficients_count_as_asked():
    """A unit whose factor is constant has no coefficient: left out, or counted as 0 as published."""
    tree, whole = planted()
    maps = tree["maps/one.hue"].to_dataset()
    maps["total"][0, ..., 1] = 0.5
    tree["maps/one.hue"] = xr.DataTree(maps)
    values = {
        missing: at(found_in((tree, whole), missing=missing), "own_mean", segment="one", share="total", source="hue")[
            0, 1
        ]
        for missing in ("all", "zero")
    }
    assert values["zero"] == pytest.approx(values["all"] * (len(UNITS) - 1) / len(UNITS), abs=1e-6)


def whole_result(**changes):
    """The result of the whole network with its factors."""
    _, whole = planted()
    kinds = ["augmentation", "augmentation", "class", "image"]
    whole["factors"] = xr.DataTree(
        xr.Dataset(
            {
                "kind": ("factor", np.array(kinds, dtype=object)),
                "range": ("factor", np.array(["-0.5 to 0.5", "0.1 to 2.5", "10 classes", "any"], dtype=object)),
            },
            coords={"factor_name": ("factor", np.array(FACTORS, dtype=object))},
        )
    )
    origin = Provenance("sensitivity", {}, (), "planted", "weights", "x", "", 0)
    return Result(whole, replace(origin, **changes))


GIVEN = {
    "fingerprint": "weights",
    "factors": {"hue": "-0.5 to 0.5", "brightness": "0.1 to 2.5", "class": "there", "image": "there"},
    "units": {"conv1": UNITS, "conv2": UNITS},
}


def test_a_result_that_fits_is_taken():
    """Other images and classes are no reason to refuse."""
    check_whole(whole_result(), **GIVEN)


@pytest.mark.parametrize(
    ("changes", "given", "error", "message"),
    [
        ({"study": "masking"}, {}, InputError, "gives a result of the study masking"),
        ({"subject_fingerprint": "other"}, {}, InputError, "of another network"),
        (
            {},
            {"factors": {**GIVEN["factors"], "hue": "-0.1 to 0.1"}},
            InputError,
            "'hue' is -0.5 to 0.5 in it, and -0.1",
        ),
        ({}, {"factors": {**GIVEN["factors"], "order": "there"}}, InputError, "'order' is not there in it"),
        ({}, {"units": {"conv3": (1,)}}, UnknownName, "without 'conv3', where a segment ends. Closest: 'conv"),
        ({}, {"units": {"conv1": (20,)}}, InputError, "unit 20 of 'conv1' is not in the result.*one of its 20 units"),
    ],
)
def test_what_does_not_fit_is_refused(changes, given, error, message):
    """Each mistake has its own message."""
    with pytest.raises(error, match=message):
        check_whole(whole_result(**changes), **{**GIVEN, **given})


def test_results_of_segments_without_maps_or_joined_are_no_whole_network():
    """Segments are not compared with segments, nor with several networks' worth of factors."""
    result = whole_result()
    result.tree["segments"] = xr.DataTree(planted()[0]["segments"].to_dataset())
    with pytest.raises(InputError, match="gives a result of segments"):
        check_whole(result, **GIVEN)
    bare = whole_result()
    del bare.tree["maps"]
    with pytest.raises(InputError, match="a run without maps of factors"):
        check_whole(bare, **GIVEN)
    joined = whole_result()
    joined.tree["factors"] = xr.DataTree(
        joined.tree["factors"].to_dataset().assign_coords(factor_set=("factor", np.ones(4, dtype=int)))
    )
    with pytest.raises(InputError, match="several runs joined"):
        check_whole(joined, **GIVEN)


def page_of(group):
    """What the page shows of it."""
    tree = xr.DataTree.from_dict({"/": xr.Dataset(), "/whole_network": group})
    return list(segments_and_whole(View(Result(tree, Provenance("sensitivity", {}, (), "x", "", "y", "", 0)))))


def test_the_page_says_what_is_told_from_chance(group):
    """The numbers of comparisons that are sure, by channel; charts and tables of everything, drawn."""
    blocks = page_of(group)
    said = next(block.text for block in blocks if isinstance(block, Text))
    assert said.startswith("In 4 of 12 comparisons")
    assert "hue 4 of 4, saturation 0 of 4 and value 0 of 4" in said
    names = {block.name for block in blocks if isinstance(block, Panel | Table)}
    assert names >= {
        "segments-apart",
        "segments-correlations-total",
        "segments-differences-first",
        "segments-distances-total",
        "segments-correlations",
        "segments-distances",
    }
    tables = {block.name: block.frame for block in blocks if isinstance(block, Table)}
    assert len(tables["segments-apart"]) == 2 * 2 * 3
    assert len(tables["segments-correlations"]) == 2 * 2 * 4 * 6
    assert len(tables["segments-distances"]) == 2 * (4 * 1 + 6 * 4)  # one pair of layers alike, four across sources
    drawn = [block for block in blocks if not isinstance(block, Panel) or block.name == "segments-apart"]
    assert "Segments beside the whole network" in render_page(Page("Segments", "", tuple(drawn)))


def test_cells_that_chance_makes_too_are_hatched(group):
    """Distances without a small q have no value in the heat map; a layer and itself have. It is as seen from both."""
    panel = next(block for block in page_of(group) if getattr(block, "name", "") == "segments-distances-total")
    cells, ticks = panel.charts[0].series[0].y, list(panel.charts[0].x.ticks)
    assert np.diag(cells).tolist() == [0] * 8
    assert np.array_equal(cells, cells.T, equal_nan=True)
    for one, other in combinations((*CHANNELS, "original"), 2):
        q = at(group, "distance_q", share="total", pair=f"{one} x {other}", segment="two")[0]
        value = at(group, "distance", share="total", pair=f"{one} x {other}", segment="two")[0]
        shown = cells[ticks.index(f"{one}: two"), ticks.index(f"{other}: one")]
        assert np.isnan(shown) if q >= 0.05 else shown == pytest.approx(value, abs=0.005)


def test_nothing_told_and_segments_left_out_are_said():
    """Where all is chance the page says so, and names what has no maps."""
    tree, whole = planted(same=())
    whole["maps/conv2"] = xr.DataTree(whole["maps/conv2"].to_dataset().isel(x=slice(1), y=slice(1)))
    said = [block.text for block in page_of(found_in((tree, whole))) if isinstance(block, Text)]
    assert "Nothing of this can be told from chance" in said[0]
    assert "Left out, as maps of fewer than three places have no correlations across places: two." in said[1]


SIDE = 12
QUICK = {
    "augmentations": ("brightness", "hue", "rotation"),
    "factors": ("class", "image"),
    "points": 32,
    "replicates": 4,
    "permutations": 16,
    "second_order": "none",
    "stop": "never",
}


def network_of(seed):
    """Two convolutions, a pool between them, and a classifier."""
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3), nn.Flatten(), nn.Linear(80, 2)
    )
    return ns.subject_from(module.eval(), name="colours", input_shape=(3, SIDE, SIDE), preprocess=ns.Preprocess())


@pytest.fixture(scope="module")
def network():
    """That network of fixed weights."""
    return network_of(5)


@pytest.fixture(scope="module")
def images():
    """Colours of all kinds, two classes."""
    raw = np.random.default_rng(2).integers(0, 256, (40, 3, SIDE, SIDE)).astype(np.uint8)
    return ns.data_from_arrays(torch.from_numpy(raw), np.arange(40) % 2, name="confetti", classes=("one", "two"))


def quick_run(network, images, **options):
    """A quick run of Sobol indices and Shapley effects."""
    spec = ns.SensitivitySpec(**{**QUICK, "estimators": ("sobol", "shapley"), **options})
    return ns.run_sensitivity(network, images, spec, run=ns.Run(threads=1, batch_size=64))


@pytest.fixture(scope="module")
def whole_run(network, images, tmp_path_factory):
    """The whole network's result, saved."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    quick_run(network, images, layers=("2", "3")).save(folder)
    return folder


@pytest.fixture(scope="module")
def chosen(whole_run, tmp_path_factory):
    """The file of units that were chosen from it."""
    pieces = (ns.Segment("early", ("0", "1", "2")), ns.Segment("late", ("3",)))
    selection = ns.select_units([ns.open(whole_run)], segments=pieces, values=("total",), top=2)
    path = tmp_path_factory.mktemp("chosen") / "units.json"
    ns.write_segments(path, selection.segments)
    return selection, str(path)


@pytest.fixture(scope="module")
def comparable(whole_run, chosen):
    """Options of a run of segments that fits the whole network's."""
    return {**QUICK, "segments": chosen[1], "whole_from": str(whole_run)}


def test_chosen_units_are_run_and_compared(network, images, whole_run, chosen):
    """From a result of the whole network to segments of its units beside it: in the run, and of the finished run."""
    selection, path = chosen
    found = quick_run(network, images, segments=path, whole_from=str(whole_run))
    group = found.tree["whole_network"].to_dataset()
    assert group["segment_name"].to_numpy().tolist() == [one.name for one in selection.segments] == ["early", "late"]
    assert group["units"].to_numpy().tolist() == [len(one.units) for one in selection.segments]
    assert group["places"].to_numpy().tolist() == [[36, 36, 36, 36], [100, 100, 100, 16]]
    assert group["share_name"].to_numpy().tolist() == ["first", "total", "shapley"]
    assert found.provenance.spec["analyses"] == ["segments"]
    full = np.asarray(ns.open(whole_run).tree["maps/2"]["shapley"].to_numpy(), dtype=np.float64).clip(0, 1)
    units = list(selection.segments[0].units)
    maps = [full[unit].reshape(36, -1) for unit in units]
    rho = [stats.spearmanr(own[np.isfinite(own).all(axis=1)]).statistic for own in maps]  # without dead activations
    original = at(group, "own_mean", segment="early", share="shapley", source="original")
    assert np.allclose(original, np.nanmean(rho, axis=0), atol=1e-6, equal_nan=True)
    plain = quick_run(network, images, segments=path)
    assert "whole_network" not in plain.tree.children
    after = ns.analyse_sensitivity(plain, ns.SensitivitySpec(analyses=("segments",), whole_from=str(whole_run)))
    assert after.tree["whole_network"].to_dataset().identical(group)
    assert any("Segments beside the whole network" in getattr(block, "title", "") for block in after.page().blocks)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"segments": ""}, "there are none: expected a run with --segments"),
        ({"whole_from": "", "analyses": ("segments",)}, "expected the folder of its result, got none"),
        ({"augmentations": ("brightness", "hue")}, "'rotation' is"),
        ({"ranges": ("rotation.angle=-5:5",)}, "'rotation' is angle -10 to 10.* in it, and angle -5 to 5.* here"),
        ({"factors": ("image",)}, "'class' is there in it, and not there here"),
    ],
)
def test_runs_that_cannot_be_compared_do_not_begin(network, images, comparable, options, message):
    """What does not fit is said before the work, and in the plan too."""
    spec = ns.SensitivitySpec(**{**comparable, **options})
    with pytest.raises(InputError, match=message):
        ns.run_sensitivity(network, images, spec)
    with pytest.raises(InputError, match=message):
        ns.STUDIES["sensitivity"].plan(network, images, spec, run=ns.Run())


def test_other_weights_are_another_network(images, whole_run, chosen):
    """The result must be of the very network."""
    with pytest.raises(InputError, match="of another network"):
        quick_run(network_of(6), images, segments=chosen[1], whole_from=str(whole_run))
