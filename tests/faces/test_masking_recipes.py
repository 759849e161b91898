"""The recipes of the masking study: each can be read, goes with the results it needs, and asks for what it promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuronscope.augment import SETS, augmentations
from neuronscope.faces.cli.recipes import read_recipe
from neuronscope.faces.cli.run import study_options
from neuronscope.studies import STUDIES
from neuronscope.studies.sensitivity.masking import LEGACY, MaskingSpec
from neuronscope.studies.sensitivity.spec import PRESETS, SensitivitySpec

FOLDER = Path(__file__).parents[2] / "recipes" / "sensitivity"
VALUES = {"shpv": "shapley", "si": "first", "siT": "total"}
NAMES = [*(f"series2-{network}-{value}" for network in PRESETS for value in VALUES), *(f"test-3a-{v}" for v in VALUES)]


def settings_of(name, study):
    """What a recipe says."""
    return read_recipe(FOLDER / f"{name}.toml", options=study_options(STUDIES[study]), study=study)


def predictions(spec):
    """Of an image in the original: plain under the masks of both sets, augmented ones under those of their own."""
    known, masks = augmentations(224, 224), len(spec.scales) * len(spec.quantiles) + 2
    total, factors = 1, 0
    for names in (SETS["set1"], SETS["set2"]):
        own = len(names) + len(("permutation", "class", "partition"))
        rows = sum(spec.draws if known[name].parameters else 1 for name in names)
        total += rows * (1 + own * masks)
        factors += own
    return total + factors * masks, factors * masks


def test_all_are_there():
    """Three networks and three kinds of maps of the published series, and the test case with each kind."""
    found = {path.stem for path in FOLDER.glob("*.toml") if path.stem.startswith(("series2-", "test-3a"))}
    assert found == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_asks_for_what_it_promises(name):
    """Masks, images and draws of the original; as many predictions as the comments say, here beside random masks."""
    settings = settings_of(name, "masking")
    spec = MaskingSpec(**settings["study"])
    text = (FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    comments = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    assert spec.value == VALUES[name.split("-")[-1]]
    assert set(spec.legacy) == set(LEGACY)
    assert spec.keep == "predictions"
    assert str(settings["run"]["out"]) == f"runs/masking-{name}"
    assert settings["run"]["export_original"]
    count, masks = predictions(spec)
    assert f"{count:,} predictions of an image, {count * spec.images:,} in all" in comments
    assert f"{masks * spec.controls:,}" in comments
    assert all(len(line) <= 120 for line in text.splitlines())
    published = (50_000, 3, (0.0, 0.5, 1.5), (0.5, 0.6, 0.7, 0.8, 0.9), 5)
    test = (1000, 2, (0.0, 0.5, 1.5), (0.5, 0.9), 3)
    own = (spec.images, spec.draws, spec.scales, spec.quantiles, spec.top_k)
    assert own == (published if name.startswith("series2") else test)
    assert count == (5063 if name.startswith("series2") else 1718)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_goes_with_the_results_it_needs(name):
    """The recipes whose folders it names have the same network, and maps of the layers and the kind asked for."""
    settings = settings_of(name, "masking")
    spec = MaskingSpec(**settings["study"])
    kind = {"shapley": "shapley", "first": "sobol", "total": "sobol"}[spec.value]
    chosen = []
    for folder in spec.maps_from:
        needed = settings_of(Path(folder).name.removeprefix("sensitivity-"), "sensitivity")
        own = SensitivitySpec(**needed["study"])
        assert str(needed["run"]["out"]) == folder
        assert needed["model"] == settings["model"]
        assert kind in own.estimators
        assert set(spec.layers) <= {layer for name in own.layers for layer in PRESETS.get(name, (name,))}
        chosen.append(own.augmentations)
    assert chosen == [("set1",), ("set2",)]
