"""The page of the `importance` study: what it says, what it does not claim, and results that lack some groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import neuronscope as ns
from neuronscope.faces.html import render_page
from neuronscope.studies.importance.page.units import rank_agreement

LAYER = "5"
SMALL = {"layer_controls": 20, "curves": 3, "halves": 4, "ablation_images": 40}


@pytest.fixture(scope="module")
def subject() -> ns.Subject:
    """A small network that has learnt nothing."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(),
        nn.Linear(36, 24), nn.ReLU(), nn.Linear(24, 10),
    )  # fmt: skip
    classes = [str(digit) for digit in range(10)]
    preprocess = ns.Preprocess(channels=1)
    return ns.subject_from(net, name="small", input_shape=(1, 28, 28), preprocess=preprocess, classes=classes)


@pytest.fixture(scope="module")
def data() -> ns.Data:
    """A few digits."""
    return ns.load_data("digits", limit=160)


@pytest.fixture(scope="module")
def result(subject: ns.Subject, data: ns.Data) -> ns.Result:
    """The study on one layer, with all that it can show cheaply."""
    return study(subject, data, rules=("gradient-contrast", "masking"))


@pytest.fixture(scope="module")
def page(result: ns.Result) -> ns.Page:
    """Its page."""
    return result.page()


def study(subject: ns.Subject, data: ns.Data, **options: object) -> ns.Result:
    """A small study; options may replace those of all tests."""
    spec = ns.ImportanceSpec(**{"layers": (LAYER,), **SMALL, **options})
    return ns.run_importance(subject, data, spec, run=ns.Run(batch_size=64))


def titles(page: ns.Page) -> list[str]:
    """Sections in order."""
    return [block.title for block in page.blocks if isinstance(block, ns.Section)]


def blocks(page: ns.Page) -> dict[str, ns.Block]:
    """Blocks by name; refuses a name that is there twice."""
    found = [block for block in page.blocks if isinstance(block, ns.Table | ns.Chart | ns.Panel | ns.Network)]
    named = {block.name: block for block in found}
    assert len(named) == len(found), "every name is a file: it must be unique"
    return named


def said(page: ns.Page, *, tone: str) -> str:
    """All paragraphs of one tone."""
    return "\n".join(block.text for block in page.blocks if isinstance(block, ns.Text) and block.tone == tone)


def test_sections_come_in_reading_order(page):
    """From what was found to the units behind it."""
    assert titles(page) == [
        "Sub-networks",
        "What else falls",
        "One layer alone",
        "Reuse and specialisation",
        "Units",
        "Masking",
        "Connections",
    ]


def test_promised_blocks_are_there_under_unique_names(page):
    """Figures that other programs and recipes look for by name."""
    found = blocks(page)
    promised = {
        "removed", "kept", "rules", "ablation-lines", "ablation-heatmap", "ablation-effect", "ablation-controls",
        "ablation-results", "confusion-before", "class-ablation-confusion-matrices", "P_spec", "P_reuse", "kappa",
        "kappa-maps", "reuse-histograms", "single-layers", "top-units", "masking", "masking-counts", "network-0",
    }  # fmt: skip
    assert promised <= set(found)
    assert len(found["ablation-results"].charts) == 4
    assert [chart.title for chart in found["class-ablation-confusion-matrices"].charts] == [
        f"Removed: {digit}" for digit in range(10)
    ]


def test_tables_repeat_the_result(page, result):
    """What the page states per class is what the result holds, under the first rule, and finite."""
    own, table = result.tree["subnetworks"].to_dataset(), blocks(page)
    removed, kept = table["removed"].frame, table["kept"].frame
    assert removed["class"].tolist() == [str(digit) for digit in range(10)]
    for column, name in (("own change", "drop_own"), ("q", "drop_own_q"), ("selective fall", "drop_selective")):
        assert np.array_equal(removed[column].to_numpy(), own[name].to_numpy()[0])
    assert np.array_equal(kept["informedness"].to_numpy(), own["keep_informedness"].to_numpy()[0])
    for frame in (removed, kept.drop(columns="modularity A")):
        assert np.isfinite(frame.select_dtypes("number").to_numpy()).all()
    rules = table["rules"].frame
    assert rules["rule"].tolist() == ["gradient-contrast", "masking"]
    assert np.isfinite(rules.drop(columns=["against first", "against low", "against high"])
                       .select_dtypes("number").to_numpy()).all()  # fmt: skip
    assert rules["own change"].tolist() == pytest.approx(own["drop_own"].to_numpy().mean(axis=1).tolist())


def test_the_map_has_removed_columns_and_affected_rows(page, result):
    """As in the original's figure: columns are removed sub-networks."""
    chart = blocks(page)["ablation-heatmap"]
    change = result.tree["subnetworks"]["change"].to_numpy()[0]
    assert np.array_equal(chart.series[0].y, change.T)
    assert (chart.x.label, chart.y.label) == ("Removed Subnetwork", "Affected Class")
    assert chart.value.limits == (-1.0, 1.0)


def test_best_units_are_those_with_the_highest_scores(page, result):
    """The first row of a class is the layer's maximum, with its exact fall beside it."""
    frame = blocks(page)["top-units"].frame
    score = result.table["score"].to_numpy()[:, 0]
    falls = result.table["logit_fall"].to_numpy()
    for number, name in enumerate(result.table["class_name"].to_numpy()):
        best = frame[(frame["class"] == name) & (frame["rank"] == 1)].iloc[0]
        assert best["unit"] == np.nanargmax(score[:, number])
        assert best["logit fall"] == falls[int(best["unit"]), number]


def test_a_network_that_knows_nothing_is_not_praised(page):
    """Where nothing differs from random sets, the page says so, and warns of few images and of collapse."""
    assert "as far as can be told" in said(page, tone="note")
    warnings = said(page, tone="warning")
    assert "Few report images" in warnings
    assert "more often wrong than right" in warnings


def test_maps_of_shared_units_are_ordered_and_carry_self_agreement(page, result):
    """Rows follow the clustering of the layer; the diagonal is a class's agreement with itself."""
    reuse, chart = result.tree["reuse"].to_dataset(), blocks(page)["kappa-maps"].charts[0]
    order = reuse["order"].to_numpy()[0]
    assert chart.x.ticks == tuple(str(place) for place in order)
    assert np.array_equal(np.diag(chart.series[0].y), reuse["within_class"].to_numpy()[0][order])


def test_networks_show_the_strongest_connections(page, result):
    """The first class's picture: its links are its connections, the strongest of them 1."""
    edges, network = result.tree["edges"].to_dataset(), blocks(page)["network-0"]
    own = edges["class_number"].to_numpy() == 0
    assert sum(len(links.weight) for links in network.links) == min(int(own.sum()), 40)
    assert max(np.abs(links.weight).max() for links in network.links) == pytest.approx(1.0)
    assert network.columns[-1].nodes == ("0",)


def test_the_page_can_be_drawn_and_survives_saving(result, page, tmp_path):
    """All blocks are drawable; an opened result has the same page."""
    assert "Removed Subnetwork" in render_page(page)
    result.save(tmp_path / "result.zarr")
    again = ns.open(tmp_path / "result.zarr").page()
    assert [type(block) for block in again.blocks] == [type(block) for block in page.blocks]


def test_one_class_without_masking(subject, data):
    """Nothing to compare with: no maps of pairs, no masking, and the page says why."""
    page = study(subject, data, rules=("thresholding",), which_class=("3",), ablate=("none",)).page()
    found = blocks(page)
    assert "Masking" not in titles(page)
    assert not {"masking", "spillover", "kappa-maps", "rules-compared", "single-units", "P_spec"} & set(found)
    assert found["removed"].frame["class"].tolist() == ["3"]
    assert "no other to share units with" in said(page, tone="note")
    assert "No layer's units were silenced one by one" in said(page, tone="note")


def test_older_proportions_are_labelled_as_such(subject, data):
    """Under the deviation, P_spec and P_reuse are the original's, without a chance level; the page warns."""
    page = study(subject, data, rules=("masking",), legacy=("positional-overlap",)).page()
    chart = blocks(page)["P_spec"]
    assert {series.name for series in chart.series} >= {"same place in both lists", "in both, over the layer's width"}
    assert "Deviation positional-overlap is in force" in said(page, tone="warning")


def test_without_random_sets_nothing_is_called_found(subject, data):
    """No controls: no verdict, a warning, and no empty bars."""
    page = study(subject, data, rules=("thresholding",), controls=0, layer_controls=0).page()
    assert "No random sets were tried" in said(page, tone="warning")
    assert not [block for block in page.blocks if isinstance(block, ns.Stat) and block.label == "classes hit"]
    assert len(blocks(page)["ablation-controls"].series) == 1


def test_shapley_values_have_their_own_section(subject, data):
    """Values with the interval of the sampling, and what the early stop saved."""
    page = study(subject, data, rules=("shapley",), which_class=("1", "2"), shapley_permutations=4, shapley_images=10,
                 shapley_top=2).page()  # fmt: skip
    frame = blocks(page)["shapley"].frame
    assert "Shapley values" in titles(page)
    assert (frame["low"] <= frame["value"]).all()
    assert (frame["value"] <= frame["high"]).all()
    assert "cannot be asked again" in said(page, tone="note")


def test_rank_agreement_ignores_units_without_a_value():
    """A class at a time; nan scores are left out, constant ones give no number."""
    scores = np.array([[1.0, 0.0], [2.0, 0.0], [np.nan, 0.0], [3.0, 0.0]])
    falls = np.array([[0.1, 1.0], [0.2, 2.0], [9.0, 3.0], [0.5, 4.0]])
    rho = rank_agreement(scores, falls)
    assert rho[0] == pytest.approx(1.0)
    assert np.isnan(rho[1])
