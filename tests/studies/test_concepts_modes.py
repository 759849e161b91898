"""The `concepts` study beyond its defaults: cells, ranges, easy mode, moving thresholds, blocks, histories, files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import neuronscope as ns
from neuronscope.executors import Processes
from neuronscope.maths.formulas import neighbourhood
from neuronscope.result import open_result
from neuronscope.studies.concepts import export_concepts, plan_concepts
from neuronscope.studies.concepts.bounds import chosen_units
from neuronscope.studies.concepts.cells import on_cells

SIDE = 7
CLOSE = ("or", "and", "and-not", "with", "close")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of 7 x 7 pixels: a red and a green patch in most, each pixel a cell; digits of scenes as whole images."""
    root = tmp_path_factory.mktemp("cells")
    rng = np.random.default_rng(1)
    for name in ("images", "masks"):
        (root / name).mkdir()
    for number in range(60):
        image = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
        labels = np.zeros((SIDE, SIDE), dtype=np.uint8)
        for label, channel in ((1, 0), (2, 1)):
            if rng.random() < 0.8:
                top, left = rng.integers(0, SIDE - 1, size=2)
                patch = np.zeros((SIDE, SIDE), dtype=bool)
                patch[top : top + 2, left : left + 2] = True
                free = patch & (labels == 0)
                labels[free] = label
                image[free, channel] = 255
        Image.fromarray(image).save(root / "images" / f"{number:02d}.png")
        Image.fromarray(labels).save(root / "masks" / f"{number:02d}.png")
    lines = ["number,name,category", "1,red,colour", "2,green,colour"]
    (root / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


class Planted(nn.Module):
    """Units that are formulas: red near green, red with green in the image, red or (twice as strong) green, nothing."""

    def forward(self, x):
        """Maps of 7 x 7, four of them."""
        red, green = x[:, 0] > 0.5, x[:, 1] > 0.5
        near = torch.from_numpy(neighbourhood(green.numpy()))
        there = green.any(dim=(1, 2))[:, None, None]
        units = [red & near, red & there, torch.zeros_like(red)]
        levels = red.float() + 2 * green.float()
        return torch.stack([units[0].float(), units[1].float(), levels, units[2].float()], dim=1)


@pytest.fixture(scope="module")
def subject():
    """The planted network."""
    module = nn.Sequential(nn.Identity(), Planted(), nn.ReLU(), nn.Flatten(), nn.Linear(4 * SIDE * SIDE, 2)).eval()
    return ns.subject_from(
        module, name="cells", input_shape=(3, SIDE, SIDE), preprocess=ns.Preprocess(channels=3, mean=(), std=())
    )


def spec_of(folder, **changes):
    """Everything within reach: thresholds of 0, all operators."""
    options = {
        "concepts": (f"labelmaps:{folder}",),
        "side": SIDE,
        "layers": ("2",),
        "quantile": 0.2,
        "resolution": "cells",
        "operators": CLOSE,
        "expansions": 0,
        "draws": 40,
        "cards": 2,
        "images": 3,
    }
    return ns.ConceptsSpec(**{**options, **changes})


def run(subject, spec, **changes):
    """A run with small batches."""
    return ns.run_concepts(subject, ns.concept_images(spec), spec, run=ns.Run(seed=0, batch_size=8, **changes))


def formulas(result):
    """Of all units."""
    return result.table["formula"].to_numpy().tolist()


def test_operators_that_look_around_are_found(folder, subject):
    """Units that are CLOSE TO and WITH formulas get them, perfectly, on other images too."""
    result = run(subject, spec_of(folder, length=2))
    assert formulas(result)[:2] == ["red CLOSE TO green", "red WITH green"]
    assert result.table["held_out"].to_numpy()[:2] == pytest.approx(1.0)
    assert result.table["correlation"].to_numpy()[:2] == pytest.approx(1.0)
    assert result.table["auroc"].to_numpy()[:2] == pytest.approx(1.0)
    assert result.table["optimal"].to_numpy()[:2].tolist() == [-1, -1]
    assert int(result.table["dead"][3]) == 1


def test_pixels_and_cells_agree_where_pixels_are_cells(folder, subject):
    """With Boolean operators, masks of 7 x 7 pixels and 7 x 7 cells give the same formulas and numbers."""
    boolean = {"operators": ("or", "and", "and-not"), "length": 2, "certify": "none"}
    cells = run(subject, spec_of(folder, **boolean))
    pixels = run(subject, spec_of(folder, **boolean, resolution="pixels"))
    assert formulas(cells) == formulas(pixels)
    for name in ("score", "held_out", "held_out_low", "null", "q", "correlation", "auroc", "samples_coverage"):
        assert cells.table[name].to_numpy() == pytest.approx(pixels.table[name].to_numpy(), nan_ok=True)


def test_ranges_of_activations_have_their_own_formulas(folder, subject):
    """A unit that is weak on red and strong on green is two detectors."""
    result = run(subject, spec_of(folder, ranges=2, operators=("or", "and", "and-not")))
    table = result.tree["ranges"].to_dataset().isel(unit=2)
    assert table["formula"].to_numpy().tolist() == ["red", "green"]
    assert table["held_out"].to_numpy() == pytest.approx(1.0)
    assert (table["q"].to_numpy() < 0.05).all()
    assert float(table["lower"][1]) == float(table["upper"][0]) == pytest.approx(1.5)
    assert formulas(result)[2] == "red OR green"


def test_easy_mode_looks_at_images_where_the_unit_fires(folder, subject):
    """A unit that fires on red only where there is green is plain red among the images where it fires."""
    everywhere = run(subject, spec_of(folder, length=1))
    easy = run(subject, spec_of(folder, length=1, probe="firing"))
    assert formulas(easy)[1] == formulas(everywhere)[1] == "red"
    assert float(easy.table["score"][1]) == float(easy.table["held_out"][1]) == pytest.approx(1.0)
    assert float(everywhere.table["score"][1]) < 1


@pytest.mark.parametrize("resolution", ["pixels", "cells"])
def test_easy_mode_is_the_same_on_both_grids(folder, subject, resolution):
    """What counts in easy mode does not depend on how masks are held."""
    options = {"operators": ("or", "and", "and-not"), "length": 2, "certify": "none", "probe": "firing"}
    result = run(subject, spec_of(folder, **options, resolution=resolution))
    assert float(result.table["score"][1]) == pytest.approx(1.0)
    assert formulas(result)[1] == "red"


def test_a_threshold_may_move(folder, subject):
    """The unit with two levels is plain green once its threshold may rise above the lower one."""
    still = run(subject, spec_of(folder, length=1, units="2"))
    moved = run(subject, spec_of(folder, length=1, units="2", thresholds="dynamic", threshold_step=1.0))
    assert float(moved.table["threshold"][0]) > float(still.table["threshold"][0])
    assert float(moved.table["score"][0]) > float(still.table["score"][0])
    assert formulas(moved) == ["green"]


def test_some_units_are_those_of_all(folder, subject):
    """Units asked for by number carry their numbers and have the numbers they have among all."""
    spec = spec_of(folder, length=2)
    some, every = run(subject, replace(spec, units="0,2-3")), run(subject, spec)
    assert some.table["index"].to_numpy().tolist() == [0, 2, 3]
    assert formulas(some) == [formulas(every)[unit] for unit in (0, 2, 3)]
    for name in ("score", "held_out", "auroc"):
        assert some.table[name].to_numpy() == pytest.approx(every.table[name].to_numpy()[[0, 2, 3]], nan_ok=True)


@pytest.mark.parametrize("resolution", ["pixels", "cells"])
def test_blocks_of_units_change_nothing(folder, subject, resolution):
    """With memory for less than all units at a time, every number but the times is the same to the bit."""
    spec = spec_of(folder, resolution=resolution, operators=("or", "and", "and-not"), ranges=2, length=2)
    plan = plan_concepts(subject, ns.concept_images(spec), spec, run=ns.Run(batch_size=8, memory=200_000))
    assert sum("thresholds" in sweep.name for sweep in plan.sweeps) > 1
    whole, parts = run(subject, spec), run(subject, spec, memory=200_000)
    for name in ("units", "history", "ranges", "cards"):
        left, right = (one.tree[name].to_dataset().drop_vars("seconds", errors="ignore") for one in (whole, parts))
        assert left.equals(right)


def test_other_processes_find_the_same(folder, subject):
    """Units searched by worker processes have the formulas they have in one."""
    spec = spec_of(folder, length=2)
    alone, shared = run(subject, spec), run(subject, spec, executor=Processes(2))
    assert (
        alone.tree["units"]
        .to_dataset()
        .drop_vars("seconds")
        .equals(shared.tree["units"].to_dataset().drop_vars("seconds"))
    )


def test_a_search_goes_on_from_a_history(folder, subject, tmp_path):
    """From the beams of a run of two labels, three labels end where an unbroken search ends."""
    spec = spec_of(folder, length=2)
    export_concepts(run(subject, spec), tmp_path)
    (history,) = tmp_path.rglob("history_*.txt")
    resumed = run(subject, replace(spec, length=3, jumpstart=str(history)))
    assert formulas(resumed) == formulas(run(subject, replace(spec, length=3)))


def test_what_the_originals_kept_is_kept(folder, subject, tmp_path):
    """Activations unit by unit, their shape, thresholds, and label masks with their expanded copies."""
    spec = spec_of(folder, length=1, expansions=3, keep_in=str(tmp_path / "kept"))
    result = run(subject, spec)
    shape = np.load(tmp_path / "kept" / "inspected_neurons_shape.npy")
    assert shape.tolist() == [60, 4, SIDE, SIDE]
    maps = np.memmap(tmp_path / "kept" / "inspected_neurons.mmap", dtype=np.float32, shape=(4, 60, SIDE, SIDE))
    images = ns.concept_images(spec)
    frames = torch.stack([images.read(row) for row in range(60)]).float() / 255
    assert np.array_equal(maps, Planted()(frames).movedim(1, 0).numpy())
    thresholds = np.load(tmp_path / "kept" / "static_thresholds_0.2.npy")
    assert thresholds.tolist() == result.table["threshold"].to_numpy().tolist()
    masks = np.load(tmp_path / "kept" / "masks_MD100_X3.npy")
    assert masks.shape == (5, 60, SIDE, SIDE)
    assert np.array_equal(masks[1], frames[:, 0].numpy() > 0)
    assert (masks[3] >= masks[1]).all()


def test_the_report_score_judges(folder, subject):
    """Searched by one score, judged by another: value and null are of the latter."""
    spec = spec_of(folder, length=1, score="iou", report_score="imrou_normalised", multiplier=1.0)
    table = run(subject, spec).table
    assert float(table["report_score"][2]) != pytest.approx(float(table["held_out"][2]))
    assert (table["null"].to_numpy()[:3] < table["report_score"].to_numpy()[:3]).all()


def test_every_length_is_scored_on_other_images(folder, subject):
    """The last column of held-out scores by length is that of the formula chosen; alternatives have other masks."""
    result = run(subject, spec_of(folder, length=2))
    table = result.table
    assert table["held_out_by_length"].to_numpy()[:3, 1] == pytest.approx(table["held_out"].to_numpy()[:3])
    assert (table["margin"].to_numpy()[:2] > 0).all()
    assert "red CLOSE TO green" not in table["alternative_formula"].to_numpy()[0].tolist()


def test_further_analyses_are_groups(folder, subject, tmp_path):
    """Contributions and similarity have a group each, that survives saving; accuracy needs classes and says so."""
    spec = spec_of(folder, length=2, analyses=("contributions", "similarity", "accuracy"))
    result = run(subject, spec)
    groups = set(open_result(result.save(tmp_path / "saved")).tree.children)
    assert {"contributions_classes", "similarity_2"} <= groups
    assert "accuracy" not in groups
    alike = result.tree["similarity_2"]["masks"].to_numpy()
    assert np.diag(alike)[:3] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"resolution": "pixels"}, "resolution cells"),
        ({"resolution": "pixels", "operators": ("or",), "thresholds": "dynamic"}, "dynamic thresholds need"),
        ({"resolution": "pixels", "operators": ("or",), "legacy": ("indres-order",)}, "indres-order needs"),
        ({"legacy": ("compexp-order",)}, "Leave one of them out"),
        ({"units": "0-9"}, "units 0 to 3"),
        ({"units": "all"}, "cannot be read at 'all'"),
        ({"jumpstart": "nowhere.txt"}, "no history at nowhere.txt"),
        ({"layers": ("1", "2"), "jumpstart": "nowhere.txt"}, "a history is of one layer"),
        ({"concept_options": ("subset",)}, "NAME=VALUE"),
        ({"concept_options": ("encoding=rgb",)}, "encoding cannot be 'rgb'"),
    ],
)
def test_what_does_not_go_together_is_refused(folder, subject, changes, said):
    """One message that says what to do."""
    with pytest.raises(ns.NeuronscopeError, match=said):
        run(subject, spec_of(folder, **changes))


def test_a_torn_history_is_refused(folder, subject, tmp_path):
    """A file that is no history is named."""
    path = tmp_path / "history.txt"
    path.write_text("For neuron 0 at formula length 1, the beam is\n----\nblue, s=0.1", encoding="utf-8")
    with pytest.raises(ns.DataError, match=r"history\.txt"):
        run(subject, spec_of(folder, jumpstart=str(path)))


def test_too_little_memory_is_refused(folder, subject):
    """Not even one unit fits: said before anything runs."""
    with pytest.raises(ns.InputError, match="Allow more"):
        run(subject, spec_of(folder), memory=100)


def test_maps_of_any_size_come_to_cells():
    """Larger maps are averaged over equal shares, smaller ones enlarged, flat layers left alone."""
    maps = torch.arange(2 * 14 * 14, dtype=torch.float32).reshape(1, 2, 14, 14)
    assert torch.equal(on_cells(maps), maps.reshape(1, 2, 7, 2, 7, 2).mean((3, 5)))
    assert on_cells(torch.ones(1, 2, 3, 3)).shape == (1, 2, 7, 7)
    assert on_cells(torch.ones(1, 2)).shape == (1, 2)


def test_units_are_chosen_by_numbers_and_ranges():
    """Ascending, each once; nothing asked for is all."""
    assert chosen_units("3,0-1,1", 5, layer="x").tolist() == [0, 1, 3]
    assert chosen_units("", 3, layer="x").tolist() == [0, 1, 2]


def test_the_null_is_the_same_with_masks_held_or_looked_up(folder, subject, monkeypatch):
    """Where formulas' masks do not fit into memory, each active pixel is looked up: the counts are the same."""
    spec = spec_of(folder, resolution="pixels", operators=("or", "and", "and-not"), length=2)
    held = run(subject, spec)
    monkeypatch.setattr("neuronscope.studies.concepts.folds._MOST_MASKS", 0)
    looked_up = run(subject, spec)
    assert np.isfinite(held.table["null"].to_numpy()[:3]).all()
    assert held.table.drop_vars("seconds").equals(looked_up.table.drop_vars("seconds"))
