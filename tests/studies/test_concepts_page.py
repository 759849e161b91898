"""The page of the `concepts` study: what it says, what it does not claim, and pictures that can be judged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import neuronscope as ns
from neuronscope.data.concepts import load_concepts
from neuronscope.faces.html import render_page
from neuronscope.maths.formulas import And, AndNot, Label, Or, text
from neuronscope.result import unit_table
from neuronscope.studies.concepts import ConceptsSpec, run_concepts
from neuronscope.studies.concepts.page import concepts_page, overlay, uses

SMALL = {"concepts": ("digits",), "concept_limit": 60, "layers": ("1", "3"), "draws": 39, "cards": 3, "images": 2}


@pytest.fixture(scope="module")
def subject() -> ns.Subject:
    """A small network that has learnt nothing, with one unit that is never active."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(54, 10),
    )  # fmt: skip
    with torch.no_grad():
        net[0].bias[:], net[2].bias[:] = 0, 0  # no activation on the black ground
        net[0].weight[2] = 0
    classes = [str(digit) for digit in range(10)]
    preprocess = ns.Preprocess(channels=1)
    return ns.subject_from(net, name="small", input_shape=(1, 28, 28), preprocess=preprocess, classes=classes)


def study(subject: ns.Subject, **options: object) -> ns.Result:
    """A small study; options may replace those of all tests."""
    spec = ConceptsSpec(**{**SMALL, **options})
    images = load_concepts(list(spec.concepts), limit=spec.concept_limit, seed=0).images
    return run_concepts(subject, images, spec, run=ns.Run(batch_size=64))


@pytest.fixture(scope="module")
def result(subject: ns.Subject) -> ns.Result:
    """The study on two layers."""
    return study(subject)


@pytest.fixture(scope="module")
def page(result: ns.Result) -> ns.Page:
    """Its page."""
    return concepts_page(result)


def blocks(page: ns.Page) -> dict[str, ns.Block]:
    """Blocks by name; refuses a name that is there twice."""
    found = [
        block for block in page.blocks if isinstance(block, ns.Table | ns.Chart | ns.Gallery | ns.Panel | ns.Network)
    ]
    named = {block.name: block for block in found}
    assert len(named) == len(found), "every name is a file: it must be unique"
    return named


def stats(page: ns.Page) -> dict[str, ns.Stat]:
    """Headline numbers by label."""
    return {block.label: block for block in page.blocks if isinstance(block, ns.Stat)}


def said(page: ns.Page, *, tone: str) -> str:
    """All paragraphs of one tone."""
    return "\n".join(block.text for block in page.blocks if isinstance(block, ns.Text) and block.tone == tone)


def test_blocks_come_in_reading_order(page):
    """From what was found over its evidence to the single units and their images."""
    titles = [block.title for block in page.blocks if isinstance(block, ns.Section)]
    assert titles == ["Formulas", "Is it real?", "Units", "Units and their images"]
    expected = [
        "layers", "categories", "score-by-length", "held-out", "overfit", "units", "concepts", "trees-1", "cards-1",
        "trees-3", "cards-3",
    ]  # fmt: skip
    assert [name for name in blocks(page) if name in expected] == expected


def test_page_is_drawn(page):
    """The report takes every block."""
    html = render_page(page)
    assert "Concepts that units detect" in html
    assert "proved optimal" in html


def test_a_dead_unit_is_said_to_be_dead(page):
    """It has no formula, no score, and is counted and named as dead."""
    assert stats(page)["dead units"].value == 1
    assert "of the positions: 1: 2." in said(page, tone="note")
    frame = blocks(page)["units"].frame
    dead = frame[(frame["layer"] == "1") & (frame["unit"] == 2)].iloc[0]
    assert dead["formula"] == dead["verdict"] == "dead: never active"
    assert np.isnan(dead["held-out IoU"])
    assert np.isnan(dead["null"])
    assert dead["optimal"] == ""


def test_table_holds_the_result(page, result):
    """Every unit once, with the numbers of the result."""
    frame, units = blocks(page)["units"].frame, result.tree["units"].to_dataset()
    assert len(frame) == 10
    assert blocks(page)["units"].preset == "-held-out IoU"
    np.testing.assert_array_equal(frame["held-out IoU"], units["held_out"])
    np.testing.assert_array_equal(frame["score"], units["score"])
    np.testing.assert_array_equal(frame["length"], units["formula_length"])


def test_verdicts_and_headline_agree(page):
    """Units not told from chance are counted, named, and marked."""
    frame = blocks(page)["units"].frame
    told = int((frame["verdict"] == "better than chance").sum())
    untold = int((frame["verdict"] == "not distinguishable from chance").sum())
    assert told + untold == 9
    assert stats(page)["better than chance"].value == pytest.approx(100 * told / 9)
    assert ("not distinguishable from chance" in said(page, tone="note")) == (0 < untold < 9)
    assert ("None of the 9 formulas" in said(page, tone="warning")) == (untold == 9)


def test_curves_never_fall_with_length(page):
    """The best formula of at most so many concepts is no worse than a shorter one."""
    for series in blocks(page)["score-by-length"].series:
        assert (np.diff(series.y) >= 0).all()
        assert (series.low <= series.y).all()
        assert (series.y <= series.high).all()


def test_histograms_hold_every_explained_unit(page):
    """Held-out scores and their null stand over the same edges."""
    own, null = blocks(page)["held-out"].series
    assert own.y.sum() == null.y.sum() == 9
    np.testing.assert_array_equal(own.x, null.x)


def test_cards_show_the_best_units_with_their_images(page, result):
    """As many as asked for, each strip with its unit, formula and score."""
    gallery = blocks(page)["cards-3"]
    units = result.tree["units"].to_dataset()
    own = [strip for strip in gallery.strips if "where the formula is largest" not in strip.label]
    assert len(own) == 3
    best = int(np.nanargmax(np.where(units["layer"] == "3", units["held_out"], np.nan)))
    strip = gallery.strips[0]
    assert strip.label == f"unit {int(units['index'][best])}: {units['formula'].to_numpy()[best]}"
    assert f"{float(units['held_out'][best]):.3f}" in strip.note
    assert len(strip.pictures) == 2
    assert {picture.image.shape for picture in strip.pictures} == {(112, 112, 3)}


def test_small_samples_and_missing_nulls_are_warned_of(subject, page):
    """Nothing is called better than chance where no chance level is known."""
    assert "Few images (30 at least" in said(page, tone="warning")
    bare = concepts_page(study(subject, draws=0, certify="none", length=1, layers=("1",), cards=0))
    assert "No chance level" in said(bare, tone="warning")
    assert "better than chance" not in stats(bare)
    assert stats(bare)["proved optimal"].value == "not asked"
    assert set(blocks(bare)) == {"categories", "held-out", "overfit", "units", "concepts", "trees-1"}
    assert set(blocks(bare)["units"].frame["verdict"]) == {"not tested", "dead: never active"}
    assert [series.name for series in blocks(bare)["categories"].series] == ["single concept"]


def test_deviations_are_said(subject):
    """Scores of the images that were searched are not passed off as held-out ones."""
    same = concepts_page(study(subject, legacy=("same-images",), layers=("1",), length=2, cards=0, draws=20))
    assert "same-images is in force" in said(same, tone="warning")
    assert "is not, and scores are too good" in said(same, tone="warning")
    assert "overfit" not in blocks(same)


def test_other_scores_are_called_by_their_name(subject):
    """A score that is not IoU is not drawn against IoU."""
    other = concepts_page(study(subject, score="imrou", layers=("1",), length=2, cards=0))
    assert blocks(other)["score-by-length"].title == "ImRoU by length of the formula"
    assert "overfit" not in blocks(other)


def test_a_network_without_activity_has_nothing_explained(subject):
    """All units dead: said, and nothing drawn of them."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 26 * 26, 10))
    with torch.no_grad():
        net[0].weight[:] = 0
        net[0].bias[:] = -1
    dead = ns.subject_from(net, name="dead", input_shape=(1, 28, 28), preprocess=subject.preprocess)
    empty = concepts_page(study(dead, layers=("1",)))
    assert "No unit has a formula" in said(empty, tone="warning")
    assert set(blocks(empty)) == {"units", "concepts"}
    assert "dead: never active" in render_page(empty)


def test_overlay_tells_hits_misses_and_rest_apart_in_grey():
    """Inside the unit's mask everything is brighter than outside, and the outline encloses the formula."""
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)
    active, formula = np.zeros((2, 56, 56), dtype=bool)
    active[10:30, 10:30] = True
    formula[20:50, 20:50] = True
    drawn = overlay(frame, active=active, formula=formula)
    large_active, large_formula = (mask.repeat(2, axis=0).repeat(2, axis=1) for mask in (active, formula))
    changed = np.zeros((112, 112), dtype=bool)  # two pixels along the border, inside
    changed[40:100, 40:100] = True
    changed[42:98, 42:98] = False
    assert drawn[large_active & ~changed].min() > drawn[~large_active & ~changed].max()
    assert (drawn[40, 40:100] == (255, 210, 0)).all()
    assert (drawn[41, 41:99] == 0).all()
    assert not large_formula[~large_formula & changed].any()
    plain = overlay(frame, active=active, formula=np.zeros_like(formula))
    np.testing.assert_array_equal(drawn[~changed], plain[~changed])


@settings(max_examples=25, deadline=None)
@given(side=st.integers(1, 130), other=st.integers(1, 130), mask=st.tuples(st.integers(1, 130), st.integers(1, 130)))
def test_overlay_takes_any_sizes(side, other, mask):
    """Pictures larger or smaller than masks, and not square."""
    frame = np.zeros((side, other, 3), dtype=np.uint8)
    whole = np.ones(mask, dtype=bool)
    drawn = overlay(frame, active=whole, formula=whole)
    factor = max(1, 112 // max(side, other))
    assert drawn.shape == (side * factor, other * factor, 3)
    assert (drawn[0, 0] == (255, 210, 0)).all()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([Or, And, AndNot]), *[st.integers(1, 4)] * 3), max_size=6))
def test_uses_counts_labels_of_formulas(parts):
    """Names within names (blue, blue sky) are not taken for each other."""
    names = {1: "blue", 2: "blue sky", 3: "sky (c)", 4: "sky-5"}
    formulas = [kind(Or(Label(a), Label(b)), Label(c)) for kind, a, b, c in parts]
    expected = {number: sum(number in one[1:] for one in parts) for number in names}
    counted = uses([text(formula, names) for formula in formulas] + [""], names)
    assert {number: counted[number] for number in names} == expected


def test_uses_of_names_that_are_not_unique_are_unknown():
    """Two concepts of one name cannot be told apart in a formula."""
    assert uses(["sea"], {1: "sea", 2: "sea"}) is None


CONCEPTS = {1: "sky", 2: "sea", 3: "dog", 4: "tall grass"}
CATEGORIES = {1: "scene", 2: "scene", 3: "object", 4: "texture"}
UNITS = 6
"""Units of the layer `mid`, all but the last explained."""
BASIC = {
    "level": 0.95, "draws": 99, "score": "iou", "length": 3, "quantile": 0.005, "legacy": (), "certify": "optimum",
}  # fmt: skip
LATER = {
    "resolution": "cells", "operators": ("or", "and", "and-not", "with", "close"), "probe": "firing",
    "thresholds": "dynamic", "report_score": "", "grey_below": 0.05,
}  # fmt: skip
FORMULAS = ["(sky OR sea) AND NOT dog", "dog CLOSE TO sea & sky", "sky-X WITH dog", "sea", "(sky OR sea) AND dog", ""]


def told(values: list[float]) -> np.ndarray:
    """Numbers of the explained units, nan for the last."""
    return np.array([*values, np.nan])


def basic_groups() -> dict[str, xr.Dataset]:
    """What every result has had since the first version."""
    held = told([0.4, 0.3, 0.2, 0.1, 0.02])
    score = np.stack([np.linspace(0.5, 1, 3) * one * 1.2 for one in held])
    texts = [np.array(words, dtype=object) for words in (FORMULAS, ["scene, object"] * 3 + ["scene"] * 2 + [""])]
    variables = {
        "formula": texts[0], "category": texts[1], "formula_length": np.array([3, 3, 2, 1, 3, 0]), "score": held * 1.2,
        "held_out": held, "null": held / 10, "q": told([0.001, 0.001, 0.01, 0.01, 0.5]), "detection_accuracy": held,
        "activation_coverage": held, "active_share": np.full(UNITS, 0.01), "threshold": np.ones(UNITS),
        "dead": np.array([0, 0, 0, 0, 0, 1]), "optimal": np.array([1, 1, 0, -1, 1, -1]), "gap": held / 100,
    }  # fmt: skip
    units = unit_table({"mid": UNITS}, {name: (("unit",), values, "", "") for name, values in variables.items()})
    units = units.assign(best_score=(("unit", "length"), score))
    concepts = xr.Dataset(
        {
            "number": ("concept", np.array(list(CONCEPTS))),
            "pixels": ("concept", np.array([4900, 490, 49, 0])),
            "images_searched": ((), np.array(100)),
            "images_reported": ((), np.array(100)),
        },
        coords={
            "concept_name": ("concept", np.array(list(CONCEPTS.values()), dtype=object)),
            "category": ("concept", np.array(list(CATEGORIES.values()), dtype=object)),
        },
    )
    return {"units": units, "concepts": concepts}


def later_groups() -> dict[str, xr.Dataset]:
    """Everything that a result can hold."""
    rng = np.random.default_rng(0)
    groups = basic_groups()
    held = groups["units"]["held_out"].to_numpy()
    gaps = np.where(np.isfinite(held), 0.0, np.nan)
    best = [["sky", "sky OR sea", FORMULAS[0]], ["dog"] * 3, ["sky"] * 3, ["sea"] * 3, ["sky"] * 3, [""] * 3]
    by_unit = {
        "report_score": held, "held_out_low": held - 0.01, "held_out_high": held + 0.01, "auroc": gaps + 0.8,
        "correlation": gaps + 0.3, "correlation_low": gaps + 0.2, "correlation_high": gaps + 0.4,
        "samples_coverage": held, "explanation_coverage": held, "margin": held / 50, "formula_share": held / 10,
        "shared_by": np.array([2, 1, 1, 1, 2, 0]),
    }  # fmt: skip
    groups["units"] = groups["units"].assign(
        **{name: ("unit", values) for name, values in by_unit.items()},
        best_formula=(("unit", "length"), np.array(best, dtype=object)),
        held_out_by_length=(("unit", "length"), held[:, None] * np.array([0.5, 1.0, 0.99])),
        alternative_formula=(("unit", "alternative"), np.array([["dog", ""]] * 5 + [["", ""]], dtype=object)),
        alternative_score=(("unit", "alternative"), np.full((UNITS, 2), 0.125)),
    )
    words = np.array([[one, one and "dog"] for one in FORMULAS], dtype=object)
    both = ("unit", "range")
    groups["ranges"] = xr.Dataset({
        "lower": (both, np.tile([0.0, 0.5], (UNITS, 1))), "upper": (both, np.tile([0.5, np.inf], (UNITS, 1))),
        "active_share": (both, np.full((UNITS, 2), 0.01)), "formula": (both, words),
        "score": (both, np.stack([held, held], 1)), "held_out": (both, np.stack([held / 2, held], 1)),
        "null": (both, np.stack([held, held], 1) / 10),
        "q": (both, np.stack([gaps + 0.5, told([0.001] * 4 + [0.9])], 1)),
    })  # fmt: skip
    shape = (2, 4)  # cards, images of each
    frames = rng.integers(1, 255, (*shape, 14, 14, 3), dtype=np.uint8)
    active = np.zeros((*shape, 7, 7), dtype=bool)
    active[..., :4, :] = True
    formula = np.zeros_like(active)
    formula[..., 2:6, :] = True
    groups["cards"] = xr.Dataset({
        "unit": ("card", np.array([0, 4])), "row": (("card", "image"), np.zeros(shape, dtype=np.int64)),
        "choice": (("card", "image"), np.array([["strongest"] * 2 + ["formula"] * 2] * 2, dtype=object)),
        "iou": (("card", "image"), np.full(shape, 1 / 3)), "frame": (("card", "image", "y", "x", "channel"), frames),
        "active": (("card", "image", "mask_y", "mask_x"), active),
        "formula": (("card", "image", "mask_y", "mask_x"), formula),
    })  # fmt: skip
    accuracy = {
        "accuracy_when_firing": ("unit", told([0.9, 0.8, 0.7, 0.6, 0.5])), "low": ("unit", told([0.5] * 5)),
        "high": ("unit", told([0.95] * 5)), "fires": ("unit", np.full(UNITS, 0.2)), "accuracy": 0.75, "images": 100,
        "r_formula": 0.9, "r_formula_low": 0.5, "r_formula_high": 0.98, "p_formula": 0.01,
        "r_concept": 0.1, "r_concept_low": -0.8, "r_concept_high": 0.9, "p_concept": 0.8,
    }  # fmt: skip
    groups["accuracy"] = xr.Dataset(accuracy)
    weight = np.array([[3.0, 1.0, -1.0, -2.0, 0.5, 0.0], [-1.0, -2.0, 0.1, 0.2, 0.3, 0.4]])
    groups["contributions_classes"] = xr.Dataset(
        {
            "weight": (("of", "by"), weight),
            "correlation": (("of", "by"), weight / 4),
            "overlap": (("of", "by"), np.abs(weight) / 4),
            "q": (("of", "by"), np.where(weight > 0, 0.01, 0.5)),
            "contributor": (("of", "by"), np.where(weight > 2, 1, 0).astype(np.int8)),
        },
        coords={
            "of_name": ("of", np.array(["coast", "yard"], dtype=object)),
            "by_name": ("by", np.array([f"mid:{unit}" for unit in range(UNITS)], dtype=object)),
        },
        attrs={"of": "classes", "by": "mid", "contributor_of": "weight"},
    )
    near = np.full((UNITS, UNITS), 0.1)
    near[0, 4] = near[4, 0] = 0.9
    near[np.diag_indices(UNITS)] = 1
    near[-1] = near[:, -1] = np.nan
    groups["similarity_mid"] = xr.Dataset(
        {"masks": (("unit", "other"), near), "activations": (("unit", "other"), near / 10)}
    )
    example = ("example",)
    groups["copy_paste"] = xr.Dataset({
        "class_from": (example, np.array(["yard", "coast"], dtype=object)),
        "class_to": (example, np.array(["coast", "yard"], dtype=object)),
        "concept": (example, np.array(["sea", "dog"], dtype=object)), "unit": (example, np.array([3, 1])),
        "successes": (example, np.array([8, 1])), "trials": (example, np.array([10, 10])),
        "low": (example, np.array([0.5, 0.0])), "high": (example, np.array([0.95, 0.4])),
        "control_successes": (example, np.array([1, 1])), "control_trials": (example, np.array([20, 20])),
        "control_low": (example, np.array([0.0, 0.0])), "control_high": (example, np.array([0.2, 0.2])),
        "p": (example, np.array([0.001, 0.6])), "q": (example, np.array([0.002, 0.6])),
        "frame": (("example", "y", "x", "channel"), frames[0, :2]),
        "predicted": (example, np.array(["coast", "coast"], dtype=object)),
        "probability": (example, np.array([0.9, 0.7])),
    })  # fmt: skip
    return groups


def made(groups: dict[str, xr.Dataset], **options: object) -> ns.Result:
    """A result of these groups."""
    origin = ns.Provenance("concepts", {**BASIC, **options}, (), "small", "0", "images", "0", 200)
    return ns.Result(
        xr.DataTree.from_dict({"/": xr.Dataset(), **{f"/{name}": one for name, one in groups.items()}}), origin
    )


@pytest.fixture(scope="module")
def full() -> ns.Page:
    """The page of a result that has everything."""
    return concepts_page(made(later_groups(), **LATER))


def test_a_result_with_everything_is_drawn(full):
    """Every part has its section, in reading order, and the report takes every block."""
    titles = [block.title for block in full.blocks if isinstance(block, ns.Section)]
    assert titles == [
        "Formulas", "Is it real?", "Units", "Ranges of activation", "Accuracy when units fire", "What feeds what",
        "Units that are alike", "Copy-paste examples", "Units and their images",
    ]  # fmt: skip
    html = render_page(full)
    for title in titles:
        assert title in html
    assert {"single-concepts", "gain-by-length", "trees-mid", "cards-mid"} <= set(blocks(full))


def test_older_results_give_a_page():
    """Nothing but the first groups: no part of the later ones, and no number is made up."""
    old = concepts_page(made(basic_groups()))
    titles = [block.title for block in old.blocks if isinstance(block, ns.Section)]
    assert titles == ["Formulas", "Is it real?", "Units", "Formulas as trees"]
    assert not {"median AUROC", "share their formula", "resolution", "label sets"} & set(stats(old))
    assert "low" not in blocks(old)["units"].frame
    assert render_page(old)


@pytest.mark.parametrize(
    "group", ["ranges", "cards", "accuracy", "contributions_classes", "similarity_mid", "copy_paste"]
)
def test_each_group_alone_is_shown(group):
    """No part rests on another one being there."""
    alone = concepts_page(made({**basic_groups(), group: later_groups()[group]}))
    assert len(blocks(alone)) > len(blocks(concepts_page(made(basic_groups())))) - (group == "cards")
    assert render_page(alone)


def test_settings_that_change_what_scores_mean_are_said(full):
    """Easy mode is a warning, moved thresholds a note; masks of cells are not called pixels."""
    assert "Easy mode" in said(full, tone="warning")
    assert "free to move" in said(full, tone="note")
    assert stats(full)["resolution"].value == "7 x 7 cells"
    assert "OR, AND, AND NOT, WITH, CLOSE and CLOSE TO" in stats(full)["resolution"].note
    assert "cells" in blocks(full)["concepts"].frame
    assert stats(full)["share their formula"].value == pytest.approx(40)


def test_single_concepts_are_counted_by_category(full):
    """The best single concepts are sky, dog, sky, sea and sky: four scenes of five."""
    single, formula = blocks(full)["single-concepts"].series
    ticks = blocks(full)["single-concepts"].x.ticks
    shares = dict(zip(ticks, single.y, strict=True))
    assert shares == pytest.approx({"scene": 80, "object": 20})
    assert dict(zip(ticks, formula.y, strict=True)) == pytest.approx({"scene": 100, "object": 60})
    assert (single.low <= single.y).all()
    assert (single.y <= single.high).all()


def test_gains_and_losses_on_other_images_are_told_from_noise(full):
    """The second concept doubles held-out scores; the third costs a little, in every unit."""
    chart = blocks(full)["gain-by-length"]
    held = np.array([0.4, 0.3, 0.2, 0.1, 0.02])
    np.testing.assert_allclose(chart.series[0].y, [0.5 * held.mean(), -0.01 * held.mean()])
    assert "better from 1 to 2" in chart.text
    assert "worse from" in chart.text or "no gain can be told" in chart.text


def test_units_table_has_the_important_first(full):
    """New numbers stand behind the formula and its interval; the next best are in words."""
    frame = blocks(full)["units"].frame
    assert list(frame)[:8] == ["layer", "unit", "formula", "held-out IoU", "low", "high", "null", "q"]
    assert {"AUROC", "correlation", "samples coverage", "explanation coverage", "margin", "shared by"} <= set(frame)
    assert frame["next best"][0] == "dog 0.1250"
    assert frame["next best"][5] == ""
    assert set(blocks(full)["units"].formats) <= set(frame)


def test_trees_have_operators_inside_and_concepts_at_their_ends(full):
    """Of the first unit: the root, AND NOT, then OR and what is excluded, then both concepts."""
    trees = blocks(full)["trees-mid"]
    assert trees.form == "tree"
    names = [list(column.nodes) for column in trees.columns]
    assert names[0] == ["unit 0", "unit 4 not told from chance"]
    assert names[1] == ["AND NOT", "AND"]
    assert names[2] == ["OR", "dog (0.5%)", "OR", "dog (0.5%)"]
    assert names[3] == ["sky (50.0%)", "sea (5.0%)"] * 2
    assert trees.links[1].weight.tolist() == [1, -1, 1, 1]
    # The whole has the score of the search; OR and sky are the best formulas of lengths 2 and 1.
    score = np.array([0.5, 0.75, 1.0]) * 0.4 * 1.2
    np.testing.assert_allclose([trees.columns[i].values[0] for i in (1, 2, 3)], score[::-1])
    assert np.isnan(trees.columns[3].values[1])


def test_stored_scores_of_parts_are_preferred():
    """Nodes come from the root, each before what hangs on it, parts left to right."""
    groups = later_groups()
    nodes = np.full((UNITS, 5), np.nan)
    nodes[0] = [0.5, 0.4, 0.3, 0.2, 0.1]
    groups["tree"] = xr.Dataset({"held_out": (("unit", "node"), nodes)})
    trees = blocks(concepts_page(made(groups)))["trees-mid"]
    assert [trees.columns[i].values[0] for i in (1, 2, 3)] == [0.5, 0.4, 0.3]
    assert trees.columns[3].values[1] == pytest.approx(0.2)
    assert trees.columns[2].values[1] == pytest.approx(0.1)
    assert trees.value.label == "IoU on held-out images"


def test_cards_have_a_row_for_each_choice_of_images(full):
    """Where the unit is strongest, and where the formula is largest, with share and IoU; weak units are grey."""
    first, second, third, _ = blocks(full)["cards-mid"].strips
    assert first.label == "unit 0: (sky OR sea) AND NOT dog"
    assert first.note.startswith("where the unit is strongest; held-out IoU 0.400 (0.390 to 0.410)")
    assert second.label == "unit 0: where the formula is largest"
    assert [picture.caption for picture in first.pictures + second.pictures] == ["50% hit, IoU 0.33"] * 4
    assert np.ptp(first.pictures[0].image[-1].astype(int), axis=-1).max() > 0
    assert "grey: its IoU is below 0.05" in third.note
    assert np.ptp(third.pictures[0].image[-1].astype(int), axis=-1).max() == 0


def test_many_cards_are_divided_by_ranges_of_units():
    """With more than 60 cards, each range of 64 unit numbers has its trees and its gallery; none is lost."""
    groups = later_groups()
    count = 150
    rows = np.arange(count) % 5
    groups["units"] = groups["units"].isel(unit=rows).assign_coords(index=("unit", np.arange(count)))
    groups["cards"] = groups["cards"].isel(card=np.arange(70) % 2).assign(unit=("card", np.arange(0, 140, 2)))
    page = concepts_page(made({name: groups[name] for name in ("units", "concepts", "cards")}))
    named = blocks(page)
    galleries = [name for name in named if name.startswith("cards-")]
    assert galleries == ["cards-mid-0-63", "cards-mid-64-127", "cards-mid-128-191"]
    assert [len(named[name].strips) for name in galleries] == [64, 64, 12]
    assert [len(named[name.replace("cards", "trees")].columns[0].nodes) for name in galleries] == [32, 32, 6]


def test_ranges_that_may_be_chance_are_not_shown_as_findings(full):
    """The weakest range of no unit can be told from chance, the strongest of four of five."""
    assert stats(full)["weakest range: better than chance"].value == 0
    assert stats(full)["strongest range: better than chance"].value == pytest.approx(80)
    cells = blocks(full)["ranges-mid"].series[0].y
    assert np.isnan(cells[:, 0]).all()
    assert np.isfinite(cells[:, 1]).sum() == 4
    assert len(blocks(full)["ranges"].frame) == 10
    mean = blocks(full)["ranges-mean"]
    np.testing.assert_allclose(mean.series[0].y, [0.102, 0.204])


def test_correlations_claim_no_more_than_they_tell(full):
    """A sure one is said as such, an unsure one as not distinguishable."""
    text = blocks(full)["accuracy-iou"].text
    assert "formula: r = 0.90 (95% interval 0.50 to 0.98, p = 0.01), better explained units" in text
    assert "single concept: r = 0.10" in text
    assert text.count("not distinguishable from no relation") == 1
    assert sum(len(series.y) for series in blocks(full)["accuracy-iou"].series) == 5


def test_accuracy_of_more_units_than_were_explained_is_matched():
    """Rows are found by layer and number."""
    groups = later_groups()
    table = groups["accuracy"].isel(unit=[5, 4, 3, 2, 1, 0])
    table = table.assign_coords(layer=("unit", np.array(["mid"] * 6, dtype=object)), index=("unit", np.arange(6)[::-1]))
    groups["accuracy"] = table
    assert blocks(concepts_page(made(groups)))["accuracy"].frame["accuracy"][0] == pytest.approx(0.9)


def test_contributors_come_first_and_carry_their_formula(full):
    """By weight, both sides, each with what it detects and whether the correlation is real."""
    frame = blocks(full)["contributors-classes"].frame
    coast = frame[frame["class"] == "coast"]
    assert coast["unit"].tolist() == ["mid:0", "mid:1", "mid:4", "mid:3", "mid:2"]
    assert coast["role"].tolist() == ["contributor"] * 3 + ["inhibitor"] * 2
    assert coast["formula"].iloc[0] == FORMULAS[0]
    assert coast["verdict"].iloc[-1] == "not distinguishable from none"
    assert coast["stands out"].tolist() == ["yes", "", "", "", ""]
    assert blocks(full)["contributions-classes"].diverging


def test_similar_units_are_neighbours_and_named(full):
    """The two alike stand beside each other in the map and lead the table; units without a formula are left out."""
    panel = blocks(full)["similarity-mid"]
    order = panel.charts[0].x.ticks
    assert abs(order.index("0") - order.index("4")) == 1
    assert "5" not in order
    pairs = blocks(full)["pairs-mid"].frame
    assert (pairs["unit"][0], pairs["other"][0]) == (0, 4)
    assert len(pairs) == 10
    assert "1 pairs of units have formulas that share half" in said(full, tone="plain")


def test_copy_paste_examples_stand_beside_their_controls(full):
    """One example beats its controls, the other is said not to; pictures carry what they are taken for."""
    frame = blocks(full)["copy-paste-examples"].frame
    assert frame["verdict"].tolist() == ["better than controls", "not distinguishable from controls"]
    assert frame["success"].tolist() == [0.8, 0.1]
    assert frame["unit"].tolist() == ["mid:3", "mid:1"]
    first, second = blocks(full)["copy-paste-pictures"].strips
    assert first.pictures[0].caption == "coast, 90%"
    assert "not distinguishable" in second.note


def test_copy_paste_examples_with_little_known_are_shown():
    """Missing variables leave out columns, not the part; no example is said in words."""
    table = later_groups()["copy_paste"]
    few = concepts_page(made({**basic_groups(), "copy_paste": table[["class_from", "successes", "trials"]]}))
    assert list(blocks(few)["copy-paste-examples"].frame) == ["example", "from", "success", "successes", "trials"]
    none = concepts_page(made({**basic_groups(), "copy_paste": table.isel(example=slice(0))}))
    assert "No example was found" in said(none, tone="note")
