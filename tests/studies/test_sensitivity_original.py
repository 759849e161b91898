"""The value files of the program the sensitivity study comes from: layouts, rows behind them, and comparisons."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats
from torch import nn

import neuronscope as ns
from neuronscope.errors import DataError
from neuronscope.maths.shapley_effects import original_shares
from neuronscope.studies.sensitivity.contrast import contrast_rows
from neuronscope.studies.sensitivity.effects import players_of, shapley_design, shapley_rows
from neuronscope.studies.sensitivity.indices import design_of, rows_of
from neuronscope.studies.sensitivity.original import (
    compare,
    export_sensitivity,
    quantities,
    read_published,
    with_comparison,
)
from neuronscope.studies.sensitivity.original.layouts import BOUNDARIES, VARIABLES, file_name
from neuronscope.studies.sensitivity.original.values import Original, value_files
from neuronscope.studies.sensitivity.setting import settle
from neuronscope.studies.sensitivity.spec import LEGACY, PRESETS, SensitivitySpec
from neuronscope.studies.sensitivity.study import plan_sensitivity, run_sensitivity

SIDE = 16
SCALARS = {"1": 15, "2": 20}
"""Scalar variables of the original's Shapley design."""
COLUMNS = {"1": 12, "2": 14}
"""Scalar variables of its Sobol design."""
LAYERS = {"0": (4, 15, 14), "4": (5,), "5": (3,)}
"""Checkpoints of the network below: maps that are not square, units without maps, the classifier."""
ACTIVATIONS = {name: int(np.prod(shape)) for name, shape in LAYERS.items()}
PUBLISHED = tuple(LEGACY)


@pytest.fixture(scope="module")
def subject():
    """A small network with maps, units without maps, and a classifier of three classes."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, (2, 3)), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5), nn.Linear(5, 3)
    )
    preprocess = ns.Preprocess(channels=3)
    return ns.subject_from(module.eval(), name="tiny", input_shape=(3, SIDE, SIDE), preprocess=preprocess)


@pytest.fixture(scope="module")
def data():
    """Coloured noise of three classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(36) % 3
    level = (40 + 50 * labels)[:, None, None, None] + rng.integers(0, 80, (36, 3, SIDE, SIDE))
    return ns.data_from_arrays(torch.from_numpy(level.astype(np.uint8)), labels, name="noise", classes=("a", "b", "c"))


def spec_of(**options):
    """Small numbers of everything."""
    small = {"points": 8, "replicates": 2, "permutations": 4, "contrast_images": 6, "draws": 2, "severity_images": 6}
    return SensitivitySpec(**{"layers": tuple(LAYERS), "stop": "never", **small, **options})


def original_spec(number, **options):
    """The original's way: one replicate of each design, scalars as players, the image as noise."""
    return spec_of(augmentations=(f"set{number}",), replicates=1, outer=2, inner=3, legacy=PUBLISHED, **options)


@pytest.fixture(scope="module")
def run():
    """Circumstances."""
    return ns.Run(threads=1, batch_size=64, device="cpu")


@pytest.fixture(scope="module")
def asked(subject, data, run):
    """Network, images and circumstances."""
    return subject, data, run


@pytest.fixture(scope="module", params=["1", "2"])
def published(request, subject, data, run):
    """A set of the original and a result in its way."""
    return request.param, run_sensitivity(subject, data, original_spec(request.param), run=run)


@pytest.fixture(scope="module")
def plain(subject, data, run):
    """A result in this study's own way: the image is a factor, effects are of groups, several replicates."""
    chosen = ("hflip", "erasing", "brightness")
    return run_sensitivity(subject, data, spec_of(augmentations=chosen), run=run)


@pytest.fixture(scope="module")
def alone(subject, data, run):
    """A contrast without partitions."""
    spec = spec_of(augmentations=("hflip", "brightness"), estimators=("contrast",), factors=("order", "class"))
    return run_sensitivity(subject, data, spec, run=run)


@pytest.fixture(scope="module")
def exported(published, tmp_path_factory):
    """A folder with the files of the result in the original's way."""
    folder = tmp_path_factory.mktemp("original")
    return folder, export_sensitivity(published[1], folder)


def layout(path):
    """Group -> (shape attribute, dataset -> (shape, dtype))."""
    with h5py.File(path) as content:
        return {
            layer: (tuple(group.attrs["shape"]), {name: (own.shape, own.dtype.str) for name, own in group.items()})
            for layer, group in content.items()
        }


def test_names(published, exported):
    """Files have the original's names, with the data's own name in the place of ImageNet's."""
    number, _ = published
    folder, written = exported
    ending = f"part=train+valid_augnm={number}"
    augmentations = VARIABLES[number][:-3]
    assert {path.name for path in written} == {path.name for path in folder.iterdir()}
    assert {path.name for path in written} == {
        *(f"{kind}_tiny_noise_values_{ending}.hdf5" for kind in ("sitv", "si", "shptv", "shpv")),
        *(f"cs_tiny_noise_values_{one}_part=train+valid.hdf5" for one in augmentations),
        *(f"cs_tiny_noise_values_{one}_part=train+valid_fdr-by-corrected..hdf5" for one in augmentations),
        *(f"{kind}_tiny_noise_activations_params_{ending}.npz" for kind in ("si", "shptv", "shpv")),
        "cs_tiny_noise_activations_params_part=train+valid.npz",
        "manifest.json",
    }


def test_names_of_imagenet(published):
    """ImageNet has the original's name, whatever its folder is called."""
    result = published[1]
    named = replace(result, provenance=replace(result.provenance, subject="torchvision:alexnet", data="imagenet:train"))
    names = {one.name.text for one in value_files(Original(named))}
    assert f"si_alexnet_imagenet_ILSVRC_values_part=train+valid_augnm={published[0]}.hdf5" in names


@pytest.mark.parametrize(
    ("source", "part"), [("imagenet:val[500]", "valid"), ("imagenet:train", "train"), ("imagenet:sample", "all")]
)
def test_names_of_one_part(source, part, alone):
    """Where partition is no factor, files carry the original's name of the part that the data is of."""
    named = replace(alone, provenance=replace(alone.provenance, subject="torchvision:vgg11", data=source))
    names = {one.name.text for one in value_files(Original(named))}
    assert f"cs_vgg11_imagenet_ILSVRC_values_hflip_part={part}.hdf5" in names


def test_layouts(published, exported):
    """A group for each checkpoint with its shape; datasets with the original's names, shapes and number formats."""
    number, _ = published
    folder, _ = exported
    g, scalars = len(VARIABLES[number]), SCALARS[number]
    rows = {
        "sitv": lambda m: {"mean": ((m,), "<f4"), "var": ((m,), "<f4")},
        "shptv": lambda m: {"mean": ((m,), "<f4"), "var": ((m,), "<f4")},
        "si": lambda m: {"si+sT": ((2, g, m), "<f4"), "si2": ((g * (g - 1) // 2, m), "<f4")},
        "shpv": lambda m: {"shpv": ((scalars, m), "<f8"), "means": ((m,), "<f4")},
        "cs": lambda m: dict.fromkeys(("cs_pvals", "cs_stats", "cs_rbscc", "cs_pbrcc"), ((m,), "<f4")),
    }
    for path in folder.glob("*.hdf5"):
        kind = path.name.partition("_")[0]
        assert layout(path) == {name: (shape, rows[kind](ACTIVATIONS[name])) for name, shape in LAYERS.items()}


def test_attributes(published, exported):
    """A file says what its rows are, how scalars make up variables, and the orders of the Shapley game."""
    number, _ = published
    folder, _ = exported
    with h5py.File(next(folder.glob("si_*.hdf5"))) as content:
        assert tuple(content.attrs["variables"]) == VARIABLES[number]
    with h5py.File(next(folder.glob("shpv_*.hdf5"))) as content:
        assert content.attrs["players"] == "scalars"
        assert tuple(content.attrs["groups"]) == BOUNDARIES[number]
        sigmas = content.attrs["sigmas"]
    assert sigmas.shape == (4, SCALARS[number])
    assert (np.sort(sigmas, axis=1) == np.arange(SCALARS[number])).all()
    with h5py.File(next(folder.glob("cs_*corrected..hdf5"))) as content:
        assert content.attrs["cs_pvals"].startswith("q-values")


def test_values_are_the_results(published, exported):
    """Channel by channel, row by row, each number is the result's; the contrast without its sign."""
    _, result = published
    folder, _ = exported
    augmentations = [str(one) for one in result.table["augmentation_name"].to_numpy()]
    for layer in LAYERS:
        maps = result.tree[f"maps/{layer}"].to_dataset()
        with h5py.File(next(folder.glob("si_*.hdf5"))) as content:
            for g in range(maps.sizes["factor"]):
                assert np.array_equal(content[layer]["si+sT"][0, g], maps["first"].isel(factor=g).to_numpy().ravel())
                assert np.array_equal(content[layer]["si+sT"][1, g], maps["total"].isel(factor=g).to_numpy().ravel())
        with h5py.File(next(folder.glob("shpv_*.hdf5"))) as content:
            raw = content[layer]["shpv"][()]
            for place in range(len(raw)):
                assert np.array_equal(raw[place], maps["shapley_raw"].isel(player=place).to_numpy().ravel())
        for place, name in enumerate(augmentations):
            corrected, plain_file = (
                next(folder.glob(f"cs_*values_{name}_*{end}.hdf5")) for end in ("corrected.", "valid")
            )
            with h5py.File(plain_file) as content, h5py.File(corrected) as copy:
                own = maps["contrast"].isel(augmentation=place).to_numpy().ravel()
                assert np.array_equal(content[layer]["cs_rbscc"][()], np.abs(own), equal_nan=True)
                q = maps["contrast_q"].isel(augmentation=place).to_numpy().ravel()
                assert np.array_equal(copy[layer]["cs_pvals"][()], q, equal_nan=True)


def test_corrected_p_values_are_corrected(exported):
    """The corrected copy has Benjamini-Yekutieli q-values over all checkpoints of its file, as SciPy gives them."""
    folder, _ = exported
    path = next(folder.glob("cs_*_values_*_part=train+valid.hdf5"))
    with h5py.File(path) as content, h5py.File(folder / f"{path.stem}_fdr-by-corrected..hdf5") as copy:
        p, q = (np.concatenate([one[layer]["cs_pvals"][()] for layer in LAYERS]) for one in (content, copy))
    known = np.isfinite(p)
    assert known.sum() > 10
    np.testing.assert_allclose(q[known], stats.false_discovery_control(p[known], method="by"), rtol=1e-5)


def test_variables_stand_in_the_originals_order(plain, tmp_path):
    """Rows and pairs of rows are in the original's order, with what the original does not vary at the end."""
    export_sensitivity(plain, tmp_path)
    order = ("erasing", "brightness", "hflip", "permutation", "class", "partition", "image")
    ours = ["permutation" if one == "order" else str(one) for one in plain.table["factor_name"].to_numpy()]
    maps = plain.tree["maps/0"].to_dataset()
    with h5py.File(next(tmp_path.glob("si_*.hdf5"))) as content:
        assert tuple(content.attrs["variables"]) == order
        found, second = content["0"]["si+sT"][()], content["0"]["si2"][()]
    for place, name in enumerate(order):
        assert np.array_equal(found[1, place], maps["total"].isel(factor=ours.index(name)).to_numpy().ravel())
    pairs = [frozenset(one) for one in combinations(ours, 2)]
    for place, pair in enumerate(combinations(order, 2)):
        own = maps["second"].isel(pair=pairs.index(frozenset(pair))).to_numpy().ravel()
        assert np.array_equal(second[place], own)
    names = {path.name for path in tmp_path.iterdir()}
    assert "si_tiny_noise_values_part=train+valid_augnm=erasing+brightness+hflip.hdf5" in names
    with h5py.File(next(tmp_path.glob("shpv_*.hdf5"))) as content:
        assert content.attrs["players"] == "groups"
        raw = content["0"]["shpv"][()]
    for place, name in enumerate(order):
        own = maps["shapley_raw"].isel(player=ours.index(name)).to_numpy().ravel()
        assert np.array_equal(raw[place], own)


def test_scalars_go_with_their_variable(subject, data, run, tmp_path):
    """Single scalars of a variable stand together, wherever it was in the result."""
    chosen, legacy = ("hflip", "rolling"), ("scalar-players", "switched-shapley")
    result = run_sensitivity(
        subject, data, spec_of(augmentations=chosen, legacy=legacy, estimators=("shapley",)), run=run
    )
    export_sensitivity(result, tmp_path)
    maps = result.tree["maps/0"].to_dataset()
    with h5py.File(next(tmp_path.glob("shpv_*.hdf5"))) as content:
        assert list(content.attrs["variables"][:2]) == ["rolling", "hflip"]
        assert list(content.attrs["groups"]) == [0, 3, 4, 5, 6, 7, 8]
        for place, player in enumerate((1, 2, 3, 0, 4, 5, 6, 7)):
            own = maps["shapley_raw"].isel(player=player).to_numpy().ravel()
            assert np.array_equal(content["0"]["shpv"][place], own)


def arrays(folder, kind):
    """The arrays of an npz."""
    with np.load(next(folder.glob(f"{kind}_*params*.npz"))) as content:
        return dict(content)


def vectors_of(design):
    """Parameter vectors of all rows of a design."""
    return np.asarray(design.parameters[np.arange(len(design))])


def test_rows_of_the_sobol_design(published, subject, data, run, exported):
    """The rows made again from the result are those that were swept: parameters, switches, orders and images."""
    number, result = published
    setting = settle(subject, data, original_spec(number), run)
    design = rows_of(setting, design_of(setting, 0), 0)
    found, vectors = arrays(exported[0], "si"), vectors_of(design)
    many = sum(len(one.parameters) for one in setting.augmentations)
    count = len(setting.augmentations)
    assert len(found) == COLUMNS[number]
    assert np.array_equal(found["class"], design.image_row)
    assert np.array_equal(found["permutation"], vectors[:, many + count :])
    assert np.array_equal(found["partition"], setting.partition[design.image_row])
    if number == "1":
        assert np.array_equal(found["erase_center_y"], vectors[:, 0].astype(np.float32))
        assert np.array_equal(found["sigma"], vectors[:, many - 1].astype(np.float32))
        assert np.array_equal(found["sharpness_const"], vectors[:, many + 1])
        assert 0 < found["sharpness_const"].mean() < 1
    else:
        assert np.array_equal(found["contrast_factor"], vectors[:, 1].astype(np.float32))
        assert np.array_equal(found["elliptic_local_blur_angle"], vectors[:, many - 1].astype(np.float32))
    assert len(result.tree["pool"].to_dataset()["row"]) == len(data)


def test_rows_of_the_shapley_design(published, subject, data, run, exported):
    """Likewise; the independent draws are the rows that `shptv` is of."""
    number, _ = published
    setting = settle(subject, data, original_spec(number), run)
    shapley = shapley_design(setting, 0)
    design = shapley_rows(setting, shapley)
    found, vectors = arrays(exported[0], "shpv"), vectors_of(design)
    many = sum(len(one.parameters) for one in setting.augmentations)
    assert len(found) == SCALARS[number] + 1
    assert found["variables_sigmas"].shape == (4, SCALARS[number])
    assert np.array_equal(found["class"], design.image_row)
    first = setting.augmentations[0]
    assert np.array_equal(found[f"{first.name}_switch"], vectors[:, many])
    independent = arrays(exported[0], "shptv")
    full = shapley.full(np.arange(shapley.blocks))
    assert len(full) == 4 * 2 * 3
    assert np.array_equal(independent["class"], design.image_row[full])


def test_rows_of_all_replicates(plain, subject, data, run, tmp_path):
    """Where there are several scrambles, their rows stand one after another; the contrast has its draws."""
    export_sensitivity(plain, tmp_path)
    setting = settle(subject, data, spec_of(augmentations=("hflip", "erasing", "brightness")), run)
    rows = [rows_of(setting, design_of(setting, replicate), replicate) for replicate in range(2)]
    found = arrays(tmp_path, "si")
    assert np.array_equal(found["class"], np.concatenate([one.image_row for one in rows]))
    erasing = setting.augmentations[1]
    contrast = contrast_rows(setting, erasing)
    values = vectors_of(contrast)[:, :4].reshape(-1, 3, 4)[:, 1:]
    drawn = arrays(tmp_path, "cs")
    assert np.array_equal(drawn["class"], contrast.image_row[::3])
    assert np.array_equal(drawn["scale"], values[..., 2].ravel().astype(np.float32))


def test_manifest(published, exported):
    """What is not there, and what differs, is said."""
    folder, written = exported
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["files"] == sorted(path.name for path in written if path.suffix != ".json")
    assert manifest["variables"] == list(VARIABLES[published[0]])
    assert "cs_pvals" in manifest["differences"]
    assert [one.partition(":")[0] for one in manifest["missing"]] == ["activations", "sitv_*_activations_params"]


def test_what_was_not_estimated_has_no_file(subject, data, run, tmp_path):
    """Indices without second order have no si2, and a result without the contrast no cs; the manifest says so."""
    spec = spec_of(augmentations=("hflip", "brightness"), estimators=("sobol",), second_order="none")
    result = run_sensitivity(subject, data, spec, run=run)
    export_sensitivity(result, tmp_path)
    assert {path.name.partition("_")[0] for path in tmp_path.glob("*.hdf5")} == {"si", "sitv"}
    with h5py.File(next(tmp_path.glob("si_*.hdf5"))) as content:
        assert set(content["4"]) == {"si+sT"}
    assert any(one.startswith("si2 in") for one in json.loads((tmp_path / "manifest.json").read_text())["missing"])


def test_results_without_their_images(plain, tmp_path):
    """A result that does not keep its images has its values written, and its rows named as missing."""
    tree = {node.path: node.to_dataset(inherit=False) for node in plain.tree.subtree if node.path != "/pool"}
    export_sensitivity(replace(plain, tree=xr.DataTree.from_dict(tree)), tmp_path)
    assert list(tmp_path.glob("si_*values*.hdf5"))
    assert not list(tmp_path.glob("*.npz"))
    assert any("no group 'pool'" in one for one in json.loads((tmp_path / "manifest.json").read_text())["missing"])


def test_pictures_alone_have_no_values(subject, data, run, tmp_path):
    """A run that only shows the augmentations leaves a manifest."""
    result = run_sensitivity(subject, data, spec_of(show_augmentations=True), run=run)
    assert [path.name for path in export_sensitivity(result, tmp_path)] == ["manifest.json"]


def test_written_files_read_back(published, exported):
    """What is read is what was written: name, variables, players, shapes and values."""
    folder, _ = exported
    read = {one.name.text: one for one in read_published(folder)}
    for ours in value_files(Original(published[1])):
        if ours.name.corrected:
            assert ours.name.text not in read
            continue
        theirs = read[ours.name.text]
        assert (theirs.name, theirs.variables, theirs.players) == (ours.name, ours.variables, ours.players)
        for layer, checkpoint in ours.checkpoints.items():
            assert theirs.checkpoints[layer].shape == checkpoint.shape
            for name, values in checkpoint.values.items():
                assert np.array_equal(theirs.checkpoints[layer].values[name], values, equal_nan=True)


def test_a_file_as_the_original_leaves_it(tmp_path):
    """Without this study's attributes, rows are what the name's number of the set says; 32 bits as published."""
    rng = np.random.default_rng(0)
    raw = rng.random((15, 6)).astype(np.float32)
    with h5py.File(tmp_path / "shpv_alexnet_imagenet_ILSVRC_values_part=train+valid_augnm=1.hdf5", "w") as content:
        group = content.create_group("features.5")
        group.attrs["shape"] = (3, 2, 1)
        group.create_dataset("shpv", data=raw, compression="gzip", compression_opts=9, shuffle=True, fletcher32=True)
        group.create_dataset("means", data=raw[0])
    (file,) = read_published(tmp_path)
    assert file.variables == VARIABLES["1"]
    assert [len(rows) for rows in file.players] == [5, 1, 3, 1, 2, 1, 1, 1]
    shares = np.stack([one.values for one in quantities(file, "features.5")])
    np.testing.assert_allclose(shares.sum(axis=0), 1)
    np.testing.assert_allclose(shares[0], raw[:5].sum(axis=0) / raw.sum(axis=0), rtol=1e-6)


def test_a_corrected_copy_is_read_where_it_is_alone(exported, tmp_path):
    """The archive holds corrected copies; where the plain file is there too, that is taken."""
    folder, _ = exported
    copy = next(folder.glob("cs_*corrected..hdf5"))
    (tmp_path / copy.name).write_bytes(copy.read_bytes())
    assert [one.name.text for one in read_published(tmp_path)] == [copy.name]
    assert not any(one.name.corrected for one in read_published(folder))


def test_post_processing(published):
    """First and total indices are cut to 0..1; raw effects are added up, cut off at 0 and divided by their sum."""
    number, result = published
    files = {one.kind: one for one in value_files(Original(result))}
    maps = result.tree["maps/0"].to_dataset()
    found = {(one.name, one.variable): one.values for one in quantities(files["si"], "0")}
    for place, name in enumerate(VARIABLES[number]):
        own = maps["total"].isel(factor=place).to_numpy().ravel()
        np.testing.assert_allclose(found["total", name], np.clip(own, 0, 1), rtol=1e-6)
    raw = maps["shapley_raw"].to_numpy().reshape(-1, SCALARS[number]).T.astype(np.float64)
    ends = BOUNDARIES[number]
    wanted = original_shares(raw, [range(a, b) for a, b in pairwise(ends)])
    for place, one in enumerate(quantities(files["shpv"], "0")):
        np.testing.assert_allclose(one.values, wanted[place], atol=1e-9)


def test_a_result_beside_itself(published, exported):
    """Every quantity differs by 0 and correlates fully, where it varies at all."""
    number, result = published
    found = with_comparison(result, exported[0]).tree["comparison"].to_dataset()
    assert (found["difference"].to_numpy() == 0).all()
    for kind in ("pearson", "spearman"):
        values = found[kind].to_numpy()
        assert np.allclose(values[np.isfinite(values)], 1)
        assert np.isfinite(values).sum() > len(values) / 2
    assert np.array_equal(found["mean"].to_numpy(), found["mean_other"].to_numpy())
    of_first = found["quantity_name"].to_numpy() == "first"
    assert set(found["variable_name"].to_numpy()[of_first]) == set(VARIABLES[number])
    assert set(found["layer_name"].to_numpy()) == set(LAYERS)
    assert set(found["quantity_name"].to_numpy()) == {
        *("first", "total", "second", "shapley", "contrast"),
        *("mean", "variance", "shapley_mean", "shapley_variance"),
    }


def shifted(folder, target, *, by):
    """The indices of a folder with something added to the total index of the first variable."""
    path = next(folder.glob("si_*.hdf5"))
    copy = target / path.name
    copy.write_bytes(path.read_bytes())
    with h5py.File(copy, "r+") as content:
        for layer in LAYERS:
            values = content[layer]["si+sT"][()]
            values[1, 0] = by(values[1, 0])
            content[layer]["si+sT"][...] = values
    return copy


def test_a_perturbed_result(published, exported, tmp_path):
    """A known change shows as its mean absolute difference, and in one variable only."""
    number, result = published
    rng = np.random.default_rng(0)
    copy = shifted(exported[0], tmp_path, by=lambda values: np.clip(values + rng.normal(0, 0.2, len(values)), 0, 1))
    found = with_comparison(result, copy).tree["comparison"].to_dataset()
    hit = (found["quantity_name"].to_numpy() == "total") & (found["variable_name"].to_numpy() == VARIABLES[number][0])
    difference = found["difference"].to_numpy()
    assert (difference[~hit] == 0).all()
    here = result.tree["maps/0"].to_dataset()["total"].isel(factor=0).to_numpy().ravel().astype(np.float64)
    with h5py.File(copy) as content:
        there = content["0"]["si+sT"][1, 0].astype(np.float64)
    row = int(np.flatnonzero(hit & (found["layer_name"].to_numpy() == "0"))[0])
    assert difference[row] == pytest.approx(np.abs(np.clip(here, 0, 1) - there).mean(), rel=1e-6)
    assert difference[row] > 0.01
    for kind, slow in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        assert found[kind].to_numpy()[row] == pytest.approx(slow(np.clip(here, 0, 1), there).statistic, abs=1e-6)
        assert (
            found[f"{kind}_low"].to_numpy()[row] <= found[kind].to_numpy()[row] <= found[f"{kind}_high"].to_numpy()[row]
        )
    assert found["mean_other"].to_numpy()[row] == pytest.approx(there.mean(), rel=1e-6)


def test_dead_activations_are_left_out(plain, tmp_path):
    """An activation that is nan here and 0 there is counted as left out, and changes nothing else."""
    export_sensitivity(plain, tmp_path)
    maps = {node.path: node.to_dataset(inherit=False) for node in plain.tree.subtree}
    dead = maps["/maps/4"]["total"].to_numpy().copy()
    dead[0] = np.nan
    maps["/maps/4"] = maps["/maps/4"].assign(total=(maps["/maps/4"]["total"].dims, dead))
    result = replace(plain, tree=xr.DataTree.from_dict(maps))
    found = with_comparison(result, next(tmp_path.glob("si_*.hdf5"))).tree["comparison"].to_dataset()
    here = (found["layer_name"].to_numpy() == "4") & (found["quantity_name"].to_numpy() == "total")
    assert (found["left_out"].to_numpy()[here] == 1).all()
    assert (found["activations"].to_numpy()[here] == 4).all()
    assert (found["difference"].to_numpy()[here] == 0).all()


def test_the_study_compares(asked, published, exported, tmp_path):
    """With files to compare with, the result has the group `comparison`, which is saved with it."""
    number, result = published
    spec = original_spec(number, compare_with=str(exported[0]), estimators=("sobol",))
    subject, data, run = asked
    again = run_sensitivity(subject, data, spec, run=run)
    found = again.tree["comparison"].to_dataset()
    assert (found["difference"].to_numpy() == 0).all()
    assert set(found["quantity_name"].to_numpy()) == {"first", "total", "second", "mean", "variance"}
    again.save(tmp_path / "result.zarr")
    assert ns.open(tmp_path).tree["comparison"].to_dataset().identical(found)
    assert result.provenance.legacy == again.provenance.legacy


def test_other_sets_are_passed_over(published, exported, plain):
    """A factor that stands beside other augmentations is another factor: nothing is compared."""
    with pytest.raises(DataError, match=f"the set of augmentations 'erasing.brightness.hflip'.*augnm={published[0]}"):
        with_comparison(plain, next(exported[0].glob("si_*.hdf5")))


def torn(path):
    """Cut off the second half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flipped(path):
    """Change a byte of the values, which their checksum tells."""
    with h5py.File(path) as content:
        chunk = content["0"]["si+sT"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def without(name):
    """Take a dataset out of each checkpoint."""

    def change(path):
        with h5py.File(path, "r+") as content:
            for layer in LAYERS:
                del content[layer][name]

    return change


def fewer_rows(path):
    """Leave the last variable out of the indices."""
    with h5py.File(path, "r+") as content:
        for layer in LAYERS:
            values = content[layer]["si+sT"][:, :-1]
            del content[layer]["si+sT"]
            content[layer]["si+sT"] = values


def other_shape(path):
    """Say that the maps are of another network."""
    with h5py.File(path, "r+") as content:
        for name in content["0"]:
            values = content["0"][name][..., : 4 * 10]
            del content["0"][name]
            content["0"][name] = values
        content["0"].attrs["shape"] = (4, 5, 2)


def other_checkpoints(path):
    """Give all checkpoints other names."""
    with h5py.File(path, "r+") as content:
        for layer in LAYERS:
            content.move(layer, f"features.{layer}")


def wrong_count(path):
    """Say a shape that the values do not have."""
    with h5py.File(path, "r+") as content:
        content["0"].attrs["shape"] = (4, 15, 13)


def no_shape(path):
    """Do not say the shape."""
    with h5py.File(path, "r+") as content:
        del content["0"].attrs["shape"]


def no_groups(path):
    """Values without a checkpoint."""
    with h5py.File(path, "w") as content:
        content["values"] = np.zeros(3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (torn, ["is torn or no HDF5 file", "expected value files", "fetch it again"]),
        (flipped, ["is torn or no HDF5 file", "expected value files", "fetch it again"]),
        (without("si+sT"), ["has no dataset 'si+sT'", "expected si+sT in a file of si", "there are si2"]),
        (fewer_rows, ["'si+sT' of checkpoint '0'", "expected 8 along axis 1", "(2, 7, 840)", "some are missing"]),
        (other_shape, ["belongs to another network", "expected activations of 4x15x14", "it has 4x5x2", "Give files"]),
        (other_checkpoints, ["no checkpoint of this result", "expected some of 0, 4, 5", "features.0", "--layers"]),
        (wrong_count, ["has the shape (2, 8, 840)", "780 activations (4x15x13)", "Fetch it again"]),
        (no_shape, ["does not say its shape", "expected an attribute 'shape'", "Give value files"]),
        (no_groups, ["has no checkpoints", "expected a group for each", "found values", "Give value files"]),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_files_that_do_not_go_are_refused(change, words, set1, tmp_path):
    """Each fault is one message: what is wrong, what was expected, what came, what to do."""
    folder, result = set1
    path = next(folder.glob("si_*.hdf5"))
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    change(copy)
    with pytest.raises(DataError) as caught:
        with_comparison(result, tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.fixture(scope="module")
def set1(subject, data, run, tmp_path_factory):
    """A folder of files of set 1, and their result."""
    result = run_sensitivity(subject, data, original_spec("1", estimators=("sobol",)), run=run)
    folder = tmp_path_factory.mktemp("set1")
    export_sensitivity(result, folder)
    return folder, result


def test_nothing_to_compare_with(set1, tmp_path):
    """An empty folder, a missing one and a file of another name have no value files."""
    _, result = set1
    (tmp_path / "notes.txt").write_text("nothing")
    for path, came in ((tmp_path, "there is none"), (tmp_path / "gone", "no such"), (tmp_path / "notes.txt", "none")):
        with pytest.raises(DataError, match=f"no value files of the original: expected names.*{came}"):
            with_comparison(result, path)


def test_rows_without_a_meaning(set1, tmp_path):
    """A set without a number, and no attribute: nothing says what the rows are."""
    folder, result = set1
    path = next(folder.glob("si_*.hdf5"))
    copy = tmp_path / path.name.replace("augnm=1", "augnm=mine")
    copy.write_bytes(path.read_bytes())
    with h5py.File(copy, "r+") as content:
        del content.attrs["variables"]
    with pytest.raises(DataError, match=r"nothing says what the rows of .* expected augnm=1 or augnm=2"):
        with_comparison(result, copy)


def test_files_are_looked_at_before_the_work(subject, data, run, set1, tmp_path):
    """A plan refuses files of another network: nobody waits for hours to hear it."""
    folder, _ = set1
    path = next(folder.glob("si_*.hdf5"))
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    other_shape(copy)
    with pytest.raises(DataError, match="another network"):
        plan_sensitivity(subject, data, original_spec("1", compare_with=str(tmp_path)), run=run)


def test_no_variable_in_common(set1):
    """Two files compared by hand share something, or that is said."""
    _, result = set1
    (ours,) = (one for one in value_files(Original(result)) if one.kind == "si")
    strange = replace(ours, variables=tuple(f"other {one}" for one in ours.variables))
    with pytest.raises(DataError, match="shares no variable with this result"):
        compare(ours, strange)


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("part", ["train", "valid", "train+valid"])
def test_file_names_are_read(corrected, part):
    """A name says kind, network and data, augmentation and part; what is no value file has no meaning."""
    name = file_name(f"cs_resnet18_imagenet_ILSVRC_values_elliptic_local_blur_part={part}.hdf5")
    assert name is not None
    assert (name.augmentation, name.part) == ("elliptic_local_blur", part)
    assert file_name(replace(name, corrected=corrected).text) == replace(name, corrected=corrected)
    assert file_name("si_alexnet_imagenet_ILSVRC_activations_part=train+valid_augnm=1.hdf5") is None


# What the original's runs cost, from its own tables: rows of each design.
EVALUATIONS = {
    ("sobol", "1", 131_072): 2_359_296,
    ("sobol", "2", 131_072): 2_883_584,
    ("sobol", "1", 32_768): 589_824,
    ("sobol", "2", 32_768): 720_896,
    ("sobol", "1", 64): 1_152,
    ("sobol", "2", 64): 1_408,
    ("shapley", "1", (256, 64, 16)): 3_932_160,
    ("shapley", "2", (256, 64, 16)): 5_242_880,
    ("shapley", "1", (256, 64, 8)): 1_966_080,
    ("shapley", "2", (256, 64, 8)): 2_621_440,
    ("shapley", "1", (128, 32, 8)): 491_520,
    ("shapley", "2", (128, 32, 8)): 655_360,
    ("shapley", "1", (8, 6, 4)): 2_880,
    ("shapley", "2", (8, 6, 4)): 3_840,
}


@pytest.mark.parametrize(("design", "number", "size"), EVALUATIONS, ids=lambda one: str(one).replace(" ", ""))
def test_evaluations_are_the_originals(design, number, size, asked):
    """In the original's way each design has the original's number of rows, groups, columns and scalars."""
    subject, data, run = asked
    if design == "sobol":
        setting = settle(subject, data, original_spec(number, points=size), run)
        found = design_of(setting, 0)
        assert (len(found.groups), found.columns) == (len(VARIABLES[number]), COLUMNS[number])
    else:
        permutations, outer, inner = size
        base = original_spec(number)
        setting = settle(subject, data, replace(base, permutations=permutations, outer=outer, inner=inner), run)
        found = shapley_design(setting, 0)
        assert len(players_of(setting)) == SCALARS[number]
        assert len(found.full(np.arange(found.blocks))) == permutations * outer * inner
    assert len(found) == EVALUATIONS[design, number, size]


def test_the_original_presets_have_its_activations():
    """The checkpoints of a network have as many activations as the original counts."""
    counts = {"alexnet": 205_672, "resnet18": 553_448}  # VGG11 takes too long to fill with random weights
    for network, count in counts.items():
        own = ns.load_model(f"torchvision:{network}", weights="random")
        layers = {layer.name: math.prod(layer.shape) for layer in own.layers}
        assert sum(layers[name] for name in PRESETS[network]) == count


def test_exported_files_are_beside_the_report(tmp_path: Path, plain):
    """A folder that does not exist yet is made."""
    written = export_sensitivity(plain, tmp_path / "new" / "original")
    assert all(path.is_file() for path in written)
