"""The page of the `concepts` study: what it says, what it does not claim, and pictures that can be judged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import neuronscope as ns
from neuronscope.data.concepts import load_concepts
from neuronscope.faces.html import render_page
from neuronscope.maths.formulas import And, AndNot, Label, Or, text
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
    found = [block for block in page.blocks if isinstance(block, ns.Table | ns.Chart | ns.Gallery)]
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
    assert list(blocks(page)) == [
        "layers", "categories", "score-by-length", "held-out", "overfit", "units", "concepts", "cards-1", "cards-3",
    ]  # fmt: skip


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
    assert len(gallery.strips) == 3
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
    assert set(blocks(bare)) == {"categories", "held-out", "overfit", "units", "concepts"}
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
