"""The `concepts` study: planted formulas, dead units, noise, legacy, and inputs that cannot work."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import neuronscope as ns
from neuronscope.data.concepts import load_concepts
from neuronscope.maths.formulas import mask, parse
from neuronscope.result import open_result, same
from neuronscope.studies.concepts import plan_concepts

SIDE = 16
NAMES = {1: "red", 2: "green", 3: "left"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images whose colours are their concepts: red and green patches, and blue wherever the left half is."""
    root = tmp_path_factory.mktemp("concepts")
    rng = np.random.default_rng(0)
    for name in ("images", "masks", "masks_half"):
        (root / name).mkdir()
    for number in range(40):
        image = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
        labels = np.zeros((SIDE, SIDE), dtype=np.uint8)
        for label, channel in ((1, 0), (2, 1)):
            top, left = rng.integers(0, SIDE - 5, size=2)
            patch = np.zeros((SIDE, SIDE), dtype=bool)
            patch[top : top + 5, left : left + 5] = True
            free = patch & (labels == 0)
            labels[free] = label
            image[free, channel] = 255
        half = np.zeros((SIDE, SIDE), dtype=np.uint8)
        half[:, : SIDE // 2] = 3
        image[:, : SIDE // 2, 2] = 255
        Image.fromarray(image).save(root / "images" / f"{number:02d}.png")
        Image.fromarray(labels).save(root / "masks" / f"{number:02d}.png")
        Image.fromarray(half).save(root / "masks_half" / f"{number:02d}.png")
    lines = ["number,name,category", "1,red,colour", "2,green,colour", "3,left,place"]
    (root / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def subject():
    """Units made of the colours: red, red or green, red and left, red and not left, nothing, and noise."""
    conv = nn.Conv2d(3, 6, 1)
    weights = [[1, 0, 0], [1, 1, 0], [1, 0, 1], [1, 0, -1], [0, 0, 0], [0, 0, 0]]
    bias = [-0.5, -0.5, -1.5, -0.5, 0.0, 0.0]
    conv.weight.data = torch.tensor(weights, dtype=torch.float32)[:, :, None, None]
    conv.bias.data = torch.tensor(bias)
    module = nn.Sequential(conv, nn.ReLU(), Noise(), nn.Flatten(), nn.Linear(6 * SIDE * SIDE, 2)).eval()
    return ns.subject_from(
        module,
        name="planted",
        input_shape=(3, SIDE, SIDE),
        preprocess=ns.Preprocess(channels=3, mean=(), std=()),
    )


class Noise(nn.Module):
    """Fills the last unit with numbers that have nothing to do with the concepts."""

    def forward(self, x):
        """The same maps, the last one a hash of the image and the place."""
        total = (x.sum((1, 2, 3), keepdim=True) * 0.37).frac().abs()
        place = torch.arange(SIDE * SIDE, dtype=x.dtype).reshape(1, 1, SIDE, SIDE)
        noise = ((place * 12.9898 + total * 78.233).sin() * 43758.5453).frac().abs()
        return torch.cat([x[:, :5], noise.expand(len(x), 1, SIDE, SIDE)], dim=1)


def spec_of(folder, **changes):
    """A search in which every planted formula is within reach."""
    options = {
        "concepts": (f"labelmaps:{folder}",),
        "side": SIDE,
        "layers": ("2",),
        "quantile": 0.3,
        "draws": 99,
        "cards": 2,
        "images": 2,
    }
    return ns.ConceptsSpec(**{**options, **changes})


@pytest.fixture(scope="module")
def result(folder, subject):
    """One run that the tests look at."""
    spec = spec_of(folder)
    return ns.run_concepts(subject, ns.concept_images(spec), spec, run=ns.Run(seed=0, batch_size=8))


def test_planted_formulas_are_found_exactly(result):
    """Every planted unit gets its formula, a perfect score on other images, a proof, and a small q."""
    table = result.table
    formulas = table["formula"].to_numpy().tolist()
    expected = ["red", "red OR green", "red AND left", "red AND NOT left"]
    for found, planted in zip(formulas[:4], expected, strict=True):
        words = [set(text.replace(" OR ", " ").split()) for text in (found, planted)]
        assert words[0] == words[1]
    assert table["held_out"].to_numpy()[:4] == pytest.approx(1.0)
    assert (table["q"].to_numpy()[:4] < 0.05).all()
    assert (table["null"].to_numpy()[:4] < 0.6).all()
    assert table["optimal"].to_numpy()[:4].tolist() == [1, 1, 1, 1]
    assert table["gap"].to_numpy()[:4] == pytest.approx(0.0)


def test_a_dead_unit_is_dead_not_a_formula(result):
    """A unit that never fires has no formula, no score and no q."""
    table = result.table.isel(unit=4)
    assert (int(table["dead"]), str(table["formula"].values), int(table["formula_length"])) == (1, "", 0)
    assert np.isnan([float(table[name]) for name in ("held_out", "q", "score")]).all()


def test_noise_fits_no_better_than_on_other_images(result):
    """What the search finds for noise does not outlive the change of images."""
    noise = result.table.isel(unit=5)
    assert float(noise["q"]) > 0.05 or float(noise["held_out"]) < 0.4


def test_scores_are_those_of_pixel_masks(result, folder, subject):
    """Held-out scores again, from upsampled maps and label masks, one image at a time."""
    concepts = load_concepts(f"labelmaps:{folder}", side=SIDE)
    rows = np.unique(result.tree["cards"]["row"].to_numpy())
    assert rows.size
    table = result.table
    assert int(result.tree["concepts"]["images_searched"]) + int(result.tree["concepts"]["images_reported"]) == 40
    names = {concept.number: concept.name for concept in concepts.concepts}
    cards = result.tree["cards"].to_dataset()
    for card, unit in enumerate(cards["unit"].to_numpy()):
        formula = parse(str(table["formula"].to_numpy()[unit]), names)
        for image, row in enumerate(cards["row"].to_numpy()[card]):
            label_mask = concepts.masks(int(row)).mask
            expected = mask(formula, lambda number, of=label_mask: of(number)[None])[0]
            assert np.array_equal(cards["formula"].to_numpy()[card, image], expected)
            raw = concepts.images.read(int(row))
            maps = subject.module[:3](subject.preprocess.batch(raw[None]))[0].detach().numpy()
            threshold = float(table["threshold"].to_numpy()[unit])
            assert np.array_equal(cards["active"].to_numpy()[card, image], maps[unit] > threshold)


def test_same_seed_same_bits_another_seed_other_images(folder, subject, result):
    """The split and the null derive from the seed alone."""
    spec = spec_of(folder)
    again = ns.run_concepts(subject, ns.concept_images(spec), spec, run=ns.Run(seed=0, batch_size=8))
    timed = ("seconds",)
    assert again.table.drop_vars(timed).identical(result.table.drop_vars(timed))
    other = ns.run_concepts(subject, ns.concept_images(spec), spec, run=ns.Run(seed=1, batch_size=8))
    assert not np.array_equal(other.table["null"].to_numpy(), result.table["null"].to_numpy(), equal_nan=True)


def test_saved_and_opened(result, tmp_path):
    """Nothing is lost on disk."""
    assert same(open_result(result.save(tmp_path / "result.zarr")), result)


def test_plan_names_passes_and_the_search(folder, subject):
    """Thresholds, counts, fit; and what the search takes."""
    spec = spec_of(folder)
    plan = plan_concepts(subject, ns.concept_images(spec), spec, run=ns.Run())
    assert [one.name for one in plan.sweeps] == ["thresholds 2", "counts 2", "fit 2", "formulas"]


@pytest.mark.parametrize("legacy", ["compexp-order", "compexp-input", "same-images"])
def test_deviations_run(folder, subject, legacy):
    """Each named deviation gives a complete result that names it."""
    spec = spec_of(folder, legacy=(legacy,), draws=0, cards=0)
    found = ns.run_concepts(subject, ns.concept_images(spec), spec, run=ns.Run(batch_size=8))
    assert found.provenance.legacy == (legacy,)
    assert np.isnan(found.table["q"].to_numpy()).all()


def test_a_flat_layer_is_a_map_of_one_position(folder, subject):
    """A linear layer's units are active on whole images."""
    spec = spec_of(folder, layers=("4",), draws=0, cards=0, length=1)
    found = ns.run_concepts(subject, ns.concept_images(spec), spec, run=ns.Run(batch_size=8))
    assert len(found.table["unit"]) == 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"legacy": ("compexp",)}, "not a deviation"),
        ({"layers": ("9",)}, "layer"),
        ({"categories": ("color",)}, "colour"),
        ({"concepts": ("labelmaps:nowhere",)}, "nowhere"),
        ({"report_share": 0.99}, "expected 2 or more"),
        ({"draws": 9}, "Give 20 or more"),
        ({"layers": ("4",), "quantile": 0.01}, "no unit would ever be active"),
    ],
)
def test_what_cannot_work_is_refused(folder, subject, changes, says):
    """One message each, before any pass."""
    spec = spec_of(folder, **changes)
    with pytest.raises(ns.NeuronscopeError, match=says):
        ns.run_concepts(subject, ns.concept_images(spec), spec, run=ns.Run(batch_size=8))


def test_other_images_are_refused(folder, subject):
    """Concepts are annotated on their own images."""
    spec = spec_of(folder)
    with pytest.raises(ns.InputError, match="Leave --data out"):
        ns.run_concepts(subject, ns.load_data("digits", limit=20), spec, run=ns.Run())
