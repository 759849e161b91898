"""The series of the sensitivity study: each can be read, and holds the published list of experiments."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuronscope.faces.cli.series.document import read_series
from neuronscope.faces.cli.series.steps import settle
from neuronscope.models.segments import SEGMENTS
from neuronscope.studies.sensitivity.spec import PRESETS

FOLDER = Path(__file__).parents[2] / "recipes" / "sensitivity"
SERIES = sorted(path for path in FOLDER.glob("*.toml") if "[[steps]]" in path.read_text(encoding="utf-8"))


def steps_of(name):
    """The settled steps of a series, by name."""
    path = FOLDER / f"{name}.toml"
    return {step.name: step for step in settle(read_series(path), path=path, flags={})}


def test_all_are_there():
    """The series of the paper and the test cases of its program."""
    assert {path.stem for path in SERIES} == {"series1", "series2", "series3", "tests"}


@pytest.mark.parametrize("path", SERIES, ids=lambda path: path.stem)
def test_a_series_is_read(path):
    """Every step has a recipe, and every key and value is known; comments say how to see the cost first."""
    assert steps_of(path.stem)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert all(len(line) <= 120 for line in lines)
    assert any(f"recipes/sensitivity/{path.name} --plan" in line for line in lines if line.startswith("#"))


def test_series_1_is_the_published_list():
    """Of each network, both sets of augmentations and the contrast of both partitions; of VGG11, with fewer images."""
    steps = steps_of("series1")
    assert set(steps) == {
        *(f"series1-{network}-set{number}" for network in PRESETS for number in (1, 2)),
        *(f"series1-contrast-{part}-{network}" for network in PRESETS for part in ("train", "valid")),
    }
    for name, step in steps.items():
        (network,) = [one for one in PRESETS if one in name]
        assert (step.settings["model"]["model"], step.spec.layers) == (f"torchvision:{network}", (network,))
        if "contrast" in name:
            assert step.spec.contrast_images == (10_000 if network == "vgg11" else 50_000)


@pytest.mark.parametrize(
    ("series", "first", "guided"),
    [
        ("series2", "series1-{}-set{}", "series2-{}-{}"),
        ("tests", "test-1x-set{1}", "test-3a-{1}"),
    ],
)
def test_masks_take_the_maps_of_both_sets(series, first, guided):
    """Of each network and kind of maps, masks are guided by the results of the steps before."""
    steps = steps_of(series)
    for network in PRESETS if series == "series2" else ("alexnet",):
        maps = [steps[first.format(network, number)] for number in (1, 2)]
        for kind in ("shpv", "si", "siT"):
            step = steps[guided.format(network, kind)]
            assert step.needs == tuple(maps)
            assert step.spec.maps_from == tuple(str(one.folder) for one in maps)
            assert all(step.settings["model"] == one.settings["model"] for one in maps)


def test_series_3_is_the_published_list():
    """Of two networks, both sets of augmentations."""
    steps = steps_of("series3")
    assert {(step.spec.segments, *step.spec.augmentations) for step in steps.values()} == {
        (network, f"set{number}") for network in SEGMENTS for number in (1, 2)
    }


def test_every_recipe_of_the_paper_is_in_a_series():
    """No published experiment and no test case is forgotten."""
    used = {entry.recipe.stem for path in SERIES for entry in read_series(path).steps}
    names = {path.stem for path in set(FOLDER.glob("*.toml")) - set(SERIES)}
    assert used == {name for name in names if name.startswith(("series", "test-"))}


def test_series_share_their_results():
    """What one series has made, another one finds: the series of the paper write to one folder."""
    assert {read_series(path).out for path in SERIES if path.stem.startswith("series")} == {Path("runs/sensitivity")}
