"""Masks of two sets of augmentations, first classes beside sensitive ones, and the original's file of predictions."""

from __future__ import annotations

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from scipy.cluster import hierarchy
from torch import nn

import neuronscope as ns
from neuronscope.errors import DataError
from neuronscope.result import open_result
from neuronscope.studies.sensitivity import SensitivitySpec, run_sensitivity
from neuronscope.studies.sensitivity.masking import MaskingSpec, export_masking, plan_masking, run_masking
from neuronscope.studies.sensitivity.masking.original import file_name, with_comparison
from neuronscope.studies.sensitivity.masking.page_clusters import cluster_blocks
from neuronscope.studies.sensitivity.masking.page_overlap import overlap_blocks
from neuronscope.studies.sensitivity.masking.predictions import read_labels, read_predictions
from neuronscope.views import Chart, Panel, Table, Text

SIDE, CLASSES, MASKED, LAST = 8, 12, "1", "4"
RUN = ns.Run(threads=1)
SETS = {"first": ("grayscaling", "hflip"), "second": ("brightness",)}
QUICK = {"value": "first", "scales": (0.0, 2.0), "quantiles": (0.5, 0.8), "top_k": 3, "controls": 2, "resamples": 20}


@pytest.fixture(scope="module")
def subject():
    """A random network of twelve classes."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(6 * 9, CLASSES, bias=False)
    )
    preprocess = ns.Preprocess(channels=3)
    return ns.subject_from(module.eval(), name="random", input_shape=(3, SIDE, SIDE), preprocess=preprocess)


@pytest.fixture(scope="module")
def data(subject):
    """Coloured noise, labelled by what the network says of most of it."""
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (48, 3, SIDE, SIDE)).astype(np.uint8))
    with torch.no_grad():
        labels = subject.module(pixels / 255).argmax(1).numpy()
    labels[::5] = 0
    return ns.data_from_arrays(pixels, labels, name="noise", classes=tuple(f"c{n}" for n in range(CLASSES)))


@pytest.fixture(scope="module")
def folders(subject, data, tmp_path_factory):
    """A sensitivity result of each set: of the masked layer and of the classes."""
    found = {}
    for name, augmentations in SETS.items():
        spec = SensitivitySpec(
            layers=(MASKED, LAST), augmentations=augmentations, factors=("order", "image"),
            estimators=("sobol",), points=128, replicates=4, stop="never",
        )  # fmt: skip
        found[name] = tmp_path_factory.mktemp(name)
        run_sensitivity(subject, data, spec, run=RUN).save(found[name])
    return found


def masked(subject, data, folders, *names, run=RUN, **options):
    """A quick result of some sets."""
    spec = MaskingSpec(maps_from=tuple(str(folders[name]) for name in names), images=40, **QUICK, **options)
    return run_masking(subject, data, spec, run=run)


@pytest.fixture(scope="module")
def both(subject, data, folders):
    """A result of both sets that keeps predictions."""
    return masked(subject, data, folders, "first", "second", keep="predictions", draws=2)


@pytest.fixture(scope="module")
def exported(both, tmp_path_factory):
    """The original's file of it."""
    folder = tmp_path_factory.mktemp("original")
    return export_masking(both, folder)[0]


def table_of(result):
    """Input and mask -> top-1 accuracy."""
    own = result.tree["accuracy"].to_dataset()
    names = result.tree["configurations"]["configuration_name"].values
    return {
        (given, name): own["accuracy"].values[0, row, column]
        for row, given in enumerate(own["input_name"].values)
        for column, name in enumerate(names)
    }


def test_augmented_input_is_masked_by_its_own_set_only(both, subject, data, folders):
    """Plain input has the masks of both sets, augmented input those of its own; shared factors are numbered."""
    found = table_of(both)
    variables = {name.split("iaug=")[1].split("_invert")[0] for _, name in found} - {"original"}
    assert variables == {"grayscaling", "hflip", "order-1", "image-1", "brightness", "order-2", "image-2"}
    own = {"grayscaling": 1, "hflip": 1, "brightness": 2}
    for (given, name), value in found.items():
        variable = name.split("iaug=")[1].split("_invert")[0]
        number = own.get(variable, int(variable[-1]) if variable[-1].isdigit() else 0)
        combined = given == "original" or variable == "original" or number == own[given]
        assert np.isfinite(value) == combined, (given, name)
    alone = table_of(masked(subject, data, folders, "first"))
    for (given, name), value in alone.items():  # neither has parameters to draw, and these maps have no ties
        if "order" not in name and "image" not in name and "invert" not in name:
            assert found[given, name] == value
    plan = plan_masking(subject, data, MaskingSpec(**both.provenance.spec), run=RUN)
    assert [one.name for one in plan.sweeps] == ["guided masks, set 1", "guided masks, set 2", "random masks"]
    inputs, factors, configurations = (3, 3), (4, 3), 6
    for place in (0, 1):
        assert plan.sweeps[place].replays == 40 * inputs[place] * factors[place] * configurations
    correlations = both.tree["correlations"]["correlation"]
    assert correlations.shape == (3, 7)
    assert np.isfinite(correlations.values).sum() <= 2 * 4 + 3
    assert {"clusters-1", "clusters-2"} <= set(both.tree.children)
    titles = [block.title for block in both.page().blocks if isinstance(block, (Panel, Chart, Table))]
    assert "Joins of the tree, set 2" in titles


def test_all_random_masks_by_set(subject, data, folders):
    """On all inputs, each set has its own; what is not combined has no difference."""
    result = masked(subject, data, folders, "first", "second", controlled="all")
    beside = result.tree["against_random"].to_dataset()
    assert beside["input_name"].values.tolist() == ["original", "grayscaling", "hflip", "brightness"]
    accuracy = table_of(result)
    for row, given in enumerate(beside["input_name"].values):
        for column, name in enumerate(beside["mask_name"].values):
            assert np.isfinite(beside["difference"].values[row, column]) == np.isfinite(accuracy[given, name])


def jaccard(one, other):
    """Of two sets."""
    return len({*one} & {*other}) / len({*one} | {*other})


def test_overlaps_are_those_of_sets(both):
    """Plainly from the predictions that were kept: mean over draws, then images."""
    tree = both.tree
    classes, overlap, own = (tree[name].to_dataset() for name in ("classes", "overlap", "overlap_masked"))
    predictions = [node.to_dataset() for node in tree["predictions"].children.values()]
    named = classes["augmentation_name"].values.tolist()
    assert named == ["grayscaling", "hflip", "brightness"]
    assert (overlap.attrs["sensitive"], overlap.attrs["predicted"]) == (5, 3)
    for row, given in enumerate(overlap["input_name"].values):
        group = next(one for one in predictions if given in one["row_input"].values)
        rows = group["top"].values[:, group["row_input"].values == given]
        for column, name in enumerate(named):
            top = classes["number"].values[0, named.index(name), :5]
            expected = np.mean([jaccard(top, said[0]) for image in rows for said in image])
            assert overlap["jaccard"].values[0, row, column] == pytest.approx(expected)
            if name == given:
                for mask in range(6):
                    place = [
                        number
                        for number, text in enumerate(group["configuration_name"].values)
                        if f"iaug={name}" in text
                    ][mask]
                    expected = np.mean([jaccard(top, said[place]) for image in rows for said in image])
                    found = own["jaccard"].values[0, own["augmentation_name"].values.tolist().index(name), mask]
                    assert found == pytest.approx(expected)
    assert (overlap["jaccard_p"].values > 0).all()
    assert any(isinstance(block, Table) and block.name == "overlap-masked" for block in both.page().blocks)


def test_overlaps_that_are_told_are_drawn(both):
    """A heat map for what is above random classes, and a warning in its place where nothing is."""
    groups = {name: node.to_dataset() for name, node in both.tree.children.items()}
    masks = [f"mask {number}" for number in range(6)]
    for q, wanted in ((0.001, Panel), (0.9, Text)):
        table = groups["overlap_masked"]
        told = table.assign(jaccard_q=(table["jaccard"].dims, np.full(table["jaccard"].shape, q)))
        blocks = list(overlap_blocks({**groups, "overlap_masked": told}, level=0.95, masks=masks))
        found = [
            block
            for block in blocks
            if (isinstance(block, Panel) and block.name == "overlap-masked")
            or (isinstance(block, Text) and block.text.startswith("Overlap under masks"))
        ]
        assert [type(block) for block in found] == [wanted]


def test_flat_responses_have_no_tree(both):
    """Where all masks leave the accuracy as it is, the page says so."""
    table = both.tree["clusters-1"].to_dataset()
    flat = table.assign(correlation=table["correlation"] * np.nan)
    (_, said) = cluster_blocks({"clusters": flat})
    assert isinstance(said, Text)
    assert "the same under all masks" in said.text
    assert any(isinstance(block, Chart) and block.kind == "dendrogram" for block in cluster_blocks({"clusters": table}))


def test_the_tree_is_drawn_as_scipy_draws_it(both):
    """Leaves in the same order, and a bracket for each join in the same place; near joins are a series of their own."""
    table = both.tree["clusters-1"].to_dataset()
    (tree,) = [
        one for one in cluster_blocks({"clusters": table}) if isinstance(one, Chart) and one.kind == "dendrogram"
    ]
    twin = hierarchy.dendrogram(table["linkage"].to_numpy(), no_plot=True)
    inputs, variables = (table[f"leaf_{one}"].to_numpy() for one in ("input", "variable"))
    names = [f"{variable} on {name}" for name, variable in zip(inputs, variables, strict=True)]
    assert list(tree.y.ticks) == [names[leaf] for leaf in twin["leaves"]]
    expected = {
        (round((i[0] - 5) / 10, 6), round(d[0], 6), round((i[3] - 5) / 10, 6), round(d[3], 6), round(d[1], 6))
        for i, d in zip(twin["icoord"], twin["dcoord"], strict=True)
    }
    drawn = {
        (*(round(float(part), 6) for part in parts), round(float(height), 6))
        for series in tree.series
        for parts, height in zip(series.y, series.x, strict=True)
    }
    turned = {(c, d, a, b, height) for a, b, c, d, height in drawn}
    assert all(bracket in drawn | turned for bracket in expected)
    assert len(drawn) == len(expected)
    for series in tree.series:
        assert ((series.x <= 0.025) == series.name.startswith("up to")).all()


def test_without_classes_or_first_classes_the_page_says_so(subject, data, folders):
    """Ranks alone, and as many first classes as there are: no overlap, and why."""
    for options, said in (({"keep": "ranks"}, "were not kept"), ({"top_k": CLASSES}, "all 12 classes are among")):
        spec = MaskingSpec(maps_from=(str(folders["second"]),), images=12, **{**QUICK, **options})
        result = run_masking(subject, data, spec, run=RUN)
        assert "overlap" not in result.tree.children
        assert any(isinstance(block, Text) and said in block.text for block in result.page().blocks)


def test_the_file_is_in_the_original_layout(both, exported):
    """Name, groups, shapes, types, row order, and numbers of the result."""
    assert exported.name == "si_random_noise_values_pred_NOFCL_part=all.hdf5"
    with h5py.File(exported) as content:
        assert set(content) == {"true_labels", "original", "grayscaling", "hflip", "brightness"}
        labels = content["true_labels/labels"]
        assert (labels.shape, labels.dtype) == ((40, 1), np.int16)
        variables = ("grayscaling", "hflip", "permutation-1", "image-1", "brightness", "permutation-2", "image-2")
        names = {
            *(f"alpha={a:.2f}_perc={q:.2f}_iaug={v}" for a in (0, 2) for q in (0.5, 0.8) for v in variables),
            *(f"iaug={v}_invert={i}" for i in (0, 1) for v in variables),
            "iaug=original",
        }
        assert set(content["original"]) == names
        own = {
            one for one in names if one.split("iaug=")[1].split("_")[0] in ("brightness", "permutation-2", "image-2")
        }
        assert set(content["brightness"]) == {"iaug=original", *own}
        group = content["brightness/alpha=0.00_perc=0.80_iaug=permutation-2"]
        assert group.attrs["shape"].tolist() == [3]
        assert (group["predictions"].shape, group["predictions"].dtype) == ((80, 3), np.int64)
        assert (group["probas"].shape, group["probas"].dtype) == ((80, 3), np.float32)
        kept = both.tree["predictions/2"].to_dataset()
        place = kept["configuration_name"].values.tolist().index("alpha=0.00_perc=0.80_iaug=order-2")
        rows = kept["row_input"].values == "brightness"
        assert np.array_equal(group["predictions"][()], kept["top"].values[:, rows, place].reshape(80, 3))
        assert np.array_equal(group["probas"][()], kept["probability"].values[:, rows, place].reshape(80, 3))
        assert content["hflip/iaug=original/predictions"].shape == (40, 3)
    manifest = json.loads((exported.parent / "manifest.json").read_text())
    assert manifest["files"] == [exported.name]
    assert manifest["missing"] == []


def test_names_are_those_of_the_published_archive(both):
    """ImageNet, its validation images, and the maps that guide."""
    named = replace(both.provenance, subject="torchvision:alexnet", data="imagenet:val")
    spec = {**both.provenance.spec, "value": "shapley"}
    result = replace(both, provenance=replace(named, spec=spec))
    assert file_name(result) == "shpv_alexnet_imagenet_ILSVRC_values_pred_NOFCL_part=valid.hdf5"


def test_a_file_read_back_is_what_was_written(both, exported):
    """Mask by mask, as images, draws and classes; 16-bit classes of the published packing too; what lacks is left."""
    kept = both.tree["predictions/1"].to_dataset()
    assert read_labels(exported).tolist() == kept["label"].values.tolist()
    wanted = [("hflip", "iaug=hflip_invert=1"), ("hflip", "iaug=brightness_invert=1")]
    (found,) = read_predictions(exported, wanted)
    place = kept["configuration_name"].values.tolist().index("iaug=hflip_invert=1")
    rows = kept["row_input"].values == "hflip"
    assert np.array_equal(found.top, kept["top"].values[:, rows, place])
    assert np.array_equal(found.probability, kept["probability"].values[:, rows, place])


def test_compared_with_its_own_file_nothing_differs(both, exported):
    """Accuracies are equal, intervals hold 0, and analysis A of the file gives the correlations of the result."""
    result = with_comparison(both, exported)
    found = result.tree["comparison"].to_dataset()
    assert found.sizes["comparison"] == int(np.isfinite(list(table_of(both).values())).sum())
    assert not found["difference"].values.any()
    assert (found["difference_low"].values <= 0).all()
    assert (found["difference_high"].values >= 0).all()
    theirs, ours = result.tree["comparison_correlations"], both.tree["correlations"]
    assert theirs["variable_name"].values.tolist() == ours["variable_name"].values.tolist()
    assert np.allclose(theirs["correlation"], ours["correlation"], equal_nan=True)
    assert any(isinstance(block, Table) and block.name == "comparison" for block in result.page().blocks)


def test_another_file_is_told_apart(subject, data, folders, exported):
    """A run whose masks are quantiles of other layers differs from it somewhere, and the option gives the same."""
    result = masked(subject, data, folders, "first", legacy=("repeated-softmax",), compare_with=str(exported))
    found = result.tree["comparison"].to_dataset()
    assert set(found["compared_input"].values) == {"original", "grayscaling", "hflip"}
    assert found.sizes["comparison"] == 3 * (1 + 4 * 6)


def test_repeated_softmaxes(subject, data, folders):
    """Once for the network and once for its last layer: probabilities of a softmax of a softmax."""
    result = masked(subject, data, folders, "second", keep="predictions", legacy=("repeated-softmax",))
    kept = result.tree["predictions/1"].to_dataset()
    rows = data.pixels[kept["image_row"].values].float() / 255
    with torch.no_grad():
        said = subject.module(rows).softmax(1).softmax(1).sort(dim=1, descending=True).values[:, :3]
    assert np.allclose(kept["probability"].values[:, 0, 0], said.numpy(), atol=1e-6)


def test_what_is_no_file_of_predictions_is_refused(subject, data, folders, exported, tmp_path):
    """Nothing there, torn, without labels, of other augmentations, with other rows: before the first pass."""

    def refused(path, match):
        with pytest.raises(DataError, match=match):
            masked(subject, data, folders, "second", compare_with=str(path))

    refused(tmp_path / "none.hdf5", "there is no file")
    torn = tmp_path / "torn.hdf5"
    torn.write_bytes(exported.read_bytes()[:3000])
    refused(torn, "is torn or no HDF5 file")
    values = tmp_path / "values.hdf5"
    with h5py.File(values, "w") as content:
        content.create_group("conv1")
    refused(values, r"no labels: expected 'true_labels/labels'.*there are conv1")
    other = tmp_path / "other.hdf5"
    with h5py.File(other, "w") as content:
        content["true_labels/labels"] = np.zeros((2, 1), dtype=np.int16)
        content["original/iaug=rolling_invert=0/predictions"] = np.zeros((2, 3), dtype=np.int16)
    refused(other, r"none of the masks of this study: expected some of brightness.*Give predictions")
    with h5py.File(other, "a") as content:
        content["original/iaug=original/predictions"] = np.zeros((2, 3), dtype=np.int16)
        content["original/iaug=brightness_invert=0/predictions"] = np.zeros((3, 3), dtype=np.int16)
        content["original/iaug=brightness_invert=0/probas"] = np.zeros((3, 3), dtype=np.float32)
    with pytest.raises(DataError, match="3 rows of predictions and 3 of probabilities: expected the same number of"):
        list(read_predictions(other, [("original", "iaug=brightness_invert=0")]))
    with pytest.raises(DataError, match="has no 'probas'"):
        list(read_predictions(other, [("original", "iaug=original")]))


def test_results_that_keep_ranks_write_a_manifest_alone(subject, data, folders, tmp_path):
    """It says what is missing, and which option keeps it; the result survives saving."""
    result = masked(subject, data, folders, "second")
    (written,) = export_masking(result, tmp_path / "original")
    assert "--keep predictions" in json.loads(written.read_text())["missing"][0]
    result.save(tmp_path / "result")
    assert open_result(tmp_path / "result").tree.identical(result.tree)
