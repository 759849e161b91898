"""Which classes react most: a planted network, what is left out, what two values share, and the page."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import neuronscope as ns
from neuronscope.faces.html import render_page
from neuronscope.studies.sensitivity import SensitivitySpec, run_sensitivity
from neuronscope.studies.sensitivity.analyses import class_groups
from neuronscope.studies.sensitivity.page.classes import class_blocks
from neuronscope.views import Page, Table, Text

SIDE = 8
RUN = ns.Run(threads=1)


@pytest.fixture(scope="module")
def subject():
    """Class `bright` sees how bright an image is, `left` which side is brighter, `deaf` nothing, `both` both."""
    head = nn.Linear(3 * SIDE * SIDE, 4)
    side = torch.linspace(-1, 1, SIDE).expand(3, SIDE, SIDE).reshape(-1)
    with torch.no_grad():
        head.bias[:] = 0.0
        head.weight[:] = torch.stack([torch.ones_like(side), side, torch.zeros_like(side), 0.2 + side])
    module = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.Flatten(), head).eval()
    with torch.no_grad():
        module[0].weight[:] = torch.eye(3)[:, :, None, None]
    classes = ("bright", "left", "deaf", "both")
    return ns.subject_from(module, name="planted", input_shape=(3, SIDE, SIDE), preprocess=ns.Preprocess(channels=3),
                           classes=classes)  # fmt: skip


@pytest.fixture(scope="module")
def data():
    """Images that are brighter on one side, and some more than others."""
    rng = np.random.default_rng(0)
    ramp = 40 * rng.uniform(0.5, 1, (40, 1, 1, 1)) * np.linspace(-1, 1, SIDE)
    level = rng.uniform(75, 85, (40, 1, 1, 1))
    pixels = torch.from_numpy((level + ramp * np.ones((40, 3, SIDE, SIDE))).astype(np.uint8))
    return ns.data_from_arrays(pixels, np.arange(40) % 2, name="ramps", classes=("a", "b"))


def found_in(subject, data, *, augmentations=("brightness", "hflip"), **options):
    """A run with the analysis."""
    small = {"estimators": ("sobol", "shapley"), "points": 64, "replicates": 4, "permutations": 64, "stop": "never"}
    spec = SensitivitySpec(augmentations=augmentations, output="logits", analyses=("classes",), **small, **options)
    return run_sensitivity(subject, data, spec, run=RUN)


def test_the_class_that_an_augmentation_moves_is_named(subject, data):
    """The bright class for brightness, the sided one for mirroring; one that hears nothing is left out."""
    result = found_in(subject, data, layers=("2",))
    table = result.tree["classes"].to_dataset()
    for value in range(2):
        first = dict(zip(table["augmentation_name"].values, table["class_name"].values[value, :, 0], strict=True))
        assert first == {"brightness": "bright", "hflip": "left"}, table["value_name"].values[value]
        assert table["low"].values[value, :, 0].min() > 0.5
    assert "deaf" not in table["class_name"].values
    assert table["known"].values.tolist() == [3, 3]
    assert table.attrs["classes"] == 4
    assert np.allclose(table["decay"].values[:, :, :3], table["sensitivity"].values)
    blocks = [block for block in result.page().blocks if isinstance(block, Table)]
    assert {"classes", "classes-shared"} <= {block.name for block in blocks}


def test_classes_of_joined_runs(subject, data):
    """One table with the augmentations of both runs, each with what its own run found, and the classes' names."""
    runs = [found_in(subject, data, augmentations=(name,), layers=("0", "2")) for name in ("brightness", "hflip")]
    table = class_groups(ns.join_sets(runs).tree)["classes"]
    assert table["augmentation_name"].values.tolist() == ["brightness", "hflip"]
    assert {"bright", "left", "both"} == set(table["class_name"].values.ravel())
    for place, run in enumerate(runs):
        alone = run.tree["classes"].to_dataset()
        assert np.array_equal(table["number"].values[:, place], alone["number"].values[:, 0])
        assert np.allclose(table["sensitivity"].values[:, place], alone["sensitivity"].values[:, 0])


def test_without_a_layer_of_classes_the_page_says_so(subject, data):
    """No error: a note says what is missing, and what to do."""
    result = found_in(subject, data, layers=("0",))
    (said,) = (block.text for block in class_blocks(result.tree["classes"].to_dataset(), level=0.95))
    assert "no layer of this result has one number for each class" in said
    assert "--layers" in said
    assert any(isinstance(block, Text) and block.text == said for block in result.page().blocks)


def tree_of(values, *, width=0.1, layer="fc"):
    """A result with Shapley effects and first-order indices of classes (value, class, augmentation)."""
    kinds = np.array(["augmentation"] * values.shape[2], dtype=object)
    names = np.array([f"aug{place}" for place in range(values.shape[2])], dtype=object)
    widths = np.broadcast_to(width, values.shape)
    units = xr.Dataset(
        {
            f"{name}{end}": (("unit", "factor"), values[place] + (sign * widths[place] / 2 if sign else 0.0))
            for place, name in enumerate(("shapley", "first"))
            for end, sign in (("", 0), ("_low", -1), ("_high", 1))
        },
        coords={"layer": ("unit", np.array([layer] * values.shape[1], dtype=object))},
    )
    factors = xr.Dataset({"kind": ("factor", kinds)}, coords={"factor_name": ("factor", names)})
    outputs = xr.Dataset(coords={"layer_name": ("layer", np.array(["fc"], dtype=object))})
    return xr.DataTree.from_dict({"/units": units, "/factors": factors, "/outputs": outputs})


def test_noise_is_left_out_and_counted():
    """Shares beyond what a share can be, and intervals as wide as 0 to 1, name no class."""
    rng = np.random.default_rng(0)
    values = rng.uniform(0.1, 0.5, (2, 40, 2))
    width = np.full_like(values, 0.1)
    values[0, 3, 0], values[0, 4, 1], width[0, 5, 0] = 9.0, -0.6, 1.2
    table = class_groups(tree_of(values, width=width))["classes"]
    assert table["known"].values.tolist() == [37, 40]
    assert not {3, 4, 5} & set(table["number"].values[0].ravel().tolist())
    alive = np.delete(np.arange(40), [3, 4, 5])
    for augmentation in range(2):
        order = alive[np.argsort(-values[0, alive, augmentation])]
        assert table["number"].values[0, augmentation].tolist() == order[:10].tolist()
        shared = set(order[:10]) & set(alive[np.argsort(-values[1, alive, augmentation])][:10])
        assert table["common"].values[augmentation] == len(shared)
    assert table.attrs["common_chance"] == pytest.approx(100 / 37)


def test_values_without_intervals_are_told_as_they_are():
    """A single replicate, as in the original: nothing says what is noise, but shares far beyond 0 to 1 do."""
    values = np.random.default_rng(1).uniform(0, 1, (2, 12, 1))
    table = class_groups(tree_of(values, width=np.nan))["classes"]
    assert table["known"].values.tolist() == [12, 12]
    assert np.isnan(table["low"].values).all()
    page = render_page(Page("x", "y", tuple(class_blocks(table, level=0.95))))
    assert "most sensitive classes" in page


def test_a_layer_that_is_not_the_last_is_not_taken_for_it():
    """As many units as there are classes make no layer of classes."""
    values = np.random.default_rng(1).uniform(0, 1, (2, 12, 1))
    assert "missing" in class_groups(tree_of(values, layer="conv"))["classes"].attrs
    assert class_groups(tree_of(values, layer="conv"), layers=("conv",))["classes"].attrs["layer"] == "conv"
