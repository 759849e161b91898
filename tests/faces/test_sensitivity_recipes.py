"""The recipes of the sensitivity study: each can be read, and asks for the rows that its comments promise."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuronscope.faces.cli.recipes import read_recipe
from neuronscope.faces.cli.run import study_options
from neuronscope.models.segments import SEGMENTS, read_segments
from neuronscope.studies import STUDIES
from neuronscope.studies.sensitivity import LEGACY, SensitivitySpec
from neuronscope.studies.sensitivity.spec import PRESETS

FOLDER = Path(__file__).parents[2] / "recipes" / "sensitivity"
RECIPES = sorted(path for path in FOLDER.glob("*.toml") if 'name = "sensitivity"' in path.read_text(encoding="utf-8"))
GROUPS, SCALARS = {"set1": 8, "set2": 10}, {"set1": 15, "set2": 20}


def spec_of(path):
    """What a recipe asks of the study."""
    settings = read_recipe(path, options=study_options(STUDIES["sensitivity"]), study="sensitivity")
    return settings, SensitivitySpec(**settings["study"])


def test_all_are_there():
    """Both sets of the published designs for each network, the contrast, the test cases, the acceptance runs."""
    assert {path.stem for path in RECIPES} == {
        *(f"series1-{network}-set{number}" for network in PRESETS for number in (1, 2)),
        *(f"series1-contrast-{part}" for part in ("train", "valid")),
        *(f"series3-{network}-set{number}" for network in SEGMENTS for number in (1, 2)),
        *(f"{name}-set{number}" for name in ("test-1x", "test-2x", "squeezenet-imagenet44") for number in (1, 2)),
        *("acceptance-table11.1", "acceptance-shares11.2"),
    }


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_read(path):
    """Every key and value is known, every deviation too, and results of two recipes do not share a folder."""
    settings, spec = spec_of(path)
    assert set(spec.legacy) <= set(LEGACY)
    assert str(settings["run"]["out"]) == f"runs/sensitivity-{path.stem.removeprefix('acceptance-')}"
    lines = path.read_text(encoding="utf-8").splitlines()
    assert all(len(line) <= 120 for line in lines)
    assert any("--plan" in line for line in lines if line.startswith("#"))


@pytest.mark.parametrize("path", [one for one in RECIPES if one.stem.startswith(("series", "test-"))], ids=str)
def test_the_rows_promised_are_asked_for(path):
    """Numbers of evaluations in the comments are those of the design."""
    _, spec = spec_of(path)
    comments = " ".join(line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
    if "sobol" in spec.estimators:
        (chosen,) = spec.augmentations
        rows = spec.points * (2 * GROUPS[chosen] + 2)
        assert f"{rows:,}" in comments
        assert f"{spec.permutations * SCALARS[chosen] * spec.outer * spec.inner:,}" in comments
    else:
        plain, drawn = 3, 9
        rows = spec.contrast_images * (plain * 2 + drawn * (1 + spec.draws))
        assert f"{rows:,}" in comments
        assert f"{spec.contrast_images * (1 + plain + drawn * spec.draws):,}" in comments


@pytest.mark.parametrize("network", PRESETS)
def test_the_published_sizes(network):
    """Base points, permutations, outer and inner draws of the published runs."""
    sizes = {"alexnet": (131_072, 256, 64, 16), "vgg11": (32_768, 128, 32, 8), "resnet18": (131_072, 256, 64, 8)}
    for number in (1, 2):
        settings, spec = spec_of(FOLDER / f"series1-{network}-set{number}.toml")
        assert (spec.points, spec.permutations, spec.outer, spec.inner) == sizes[network]
        assert spec.augmentations == (f"set{number}",)
        assert spec.layers == (network,)
        assert settings["model"]["model"] == f"torchvision:{network}"
        # nearest-rotation is part of eight-bit; the others are of analyses and segments, which these do not ask for
        assert set(LEGACY) - set(spec.legacy) == {
            *("nearest-rotation", "leaking-folds", "zero-correlations", "normalised-hsv")
        }
        assert spec.analyses == ()


@pytest.mark.parametrize("network", SEGMENTS)
def test_the_published_segments(network):
    """Base points, permutations, draws, channels and deviations of series 3; the same images as series 1."""
    for number in (1, 2):
        settings, spec = spec_of(FOLDER / f"series3-{network}-set{number}.toml")
        first, whole = spec_of(FOLDER / f"series1-{network}-set{number}.toml")
        assert (spec.points, spec.permutations, spec.outer, spec.inner) == (8192, 128, 8, 8)
        assert spec.channels == ("hue", "saturation", "value")
        assert spec.segments == network
        assert set(spec.legacy) == {*whole.legacy, "normalised-hsv"}
        assert (settings["model"], settings["data"]) == (first["model"], first["data"])


def test_the_units_of_the_test_cases():
    """Seven units of one segment, in a file that is there from the repository's root."""
    (segment,) = read_segments(FOLDER / "test_single_units.json")
    assert segment.modules == ("features.3", "features.4", "features.5")
    assert segment.units == (7, 12, 31, 36, 108, 156, 191)
    for number in (1, 2):
        _, spec = spec_of(FOLDER / f"test-2x-set{number}.toml")
        assert FOLDER.parents[1] / spec.segments == FOLDER / "test_single_units.json"
        assert (spec.points, spec.permutations, spec.outer, spec.inner) == (64, 4, 3, 3)
