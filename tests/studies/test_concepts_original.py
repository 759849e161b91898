"""The originals' files: their names, columns and pictures, from whole results and from such as lack groups."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from torch import nn

import neuronscope as ns
from neuronscope.data.concepts import load_concepts
from neuronscope.maths.formulas import And, Label, Or
from neuronscope.result import Provenance, Result, unit_table
from neuronscope.studies.concepts import ConceptsSpec, export_concepts, run_concepts
from neuronscope.studies.concepts.history import read_history
from neuronscope.studies.concepts.original import folder_name
from neuronscope.studies.concepts.original.cards import histogram_svg, image_score
from neuronscope.studies.concepts.original.parts import layer_units
from neuronscope.studies.concepts.original.pictures import tinted
from neuronscope.studies.concepts.original.tables import tally

NAMES = {1: "sea", 2: "sky", 3: 'a <b> & "c"'}
FORMULAS = ['(sea OR sky) AND NOT a <b> & "c"', "sky", ""]
SPEC = {"length": 3, "score": "imrou", "multiplier": 0.75, "operators": ["or", "and", "and-not"], "grey_below": 0.1}


def result_of(groups: dict[str, xr.Dataset], *, layers: dict[str, int], **spec: object) -> Result:
    """A result with these groups."""
    origin = Provenance(
        study="concepts", spec={**SPEC, **spec}, legacy=(), subject="net <1>", subject_fingerprint="a", data="pictures",
        data_fingerprint="b", images=4,
    )  # fmt: skip
    tree = xr.DataTree.from_dict({"/": xr.Dataset(), **{f"/{name}": group for name, group in groups.items()}})
    assert sum(layers.values()) == tree["units"].sizes["unit"]
    return Result(tree, origin)


def units_of(layers: dict[str, int], **more: tuple) -> xr.Dataset:
    """A table of units with formulas in turn."""
    count = sum(layers.values())
    turn = np.arange(count) % len(FORMULAS)
    formulas = np.array(FORMULAS, dtype=object)[turn]
    none = formulas == ""
    numbers = {
        "formula_length": np.array([3, 1, 0])[turn],
        "score": np.where(none, np.nan, 0.5 - 0.2 * turn),
        "held_out": np.where(none, np.nan, 0.4 - 0.2 * turn),
        "null": np.where(none, np.nan, 0.01),
        "q": np.where(none, np.nan, 0.02),
        "detection_accuracy": np.where(none, np.nan, 0.5),
        "activation_coverage": np.where(none, np.nan, 0.25),
        "active_share": np.where(none, 0.0, 0.008),
        "threshold": np.where(none, 0.0, 4.56),
        "dead": none.astype(np.int8),
    }
    variables = {
        "formula": (("unit",), formulas, "", ""),
        "category": (("unit",), np.array(["water, air, odd", "air", ""], dtype=object)[turn], "", ""),
        **{name: (("unit",), values, "", "") for name, values in numbers.items()},
        "best_score": (("unit", "length"), np.tile([0.1, 0.2, 0.3], (count, 1)), "", ""),
        **more,
    }
    return unit_table(layers, variables)


def concepts_of(names: dict[int, str] | None = None) -> xr.Dataset:
    """The table of concepts."""
    named = NAMES if names is None else names
    categories = np.array(["water", "air", "odd"], dtype=object)
    return xr.Dataset(
        {"number": ("concept", np.array(list(named)))},
        coords={
            "concept_name": ("concept", np.array(list(named.values()), dtype=object)),
            "category": ("concept", categories),
        },
    )


def cards_of(units: list[int], *, images: int = 2, side: int = 8) -> xr.Dataset:
    """Cards with a ramp as picture, the unit on the left and the formula above; the last image is empty."""
    shape = (len(units), images)
    ramp = np.tile(np.linspace(20, 240, side).astype(np.uint8)[:, None], (1, 3))
    frames = np.tile(ramp, (*shape, side, 1, 1))
    active, formula = np.zeros((*shape, 4, 4), dtype=bool), np.zeros((*shape, 4, 4), dtype=bool)
    active[..., :2], formula[..., :2, :] = True, True
    rows = np.arange(np.prod(shape)).reshape(shape)
    frames[:, -1], active[:, -1], formula[:, -1], rows[:, -1] = 0, False, False, -1
    return xr.Dataset(
        {
            "unit": ("card", np.array(units)),
            "row": (("card", "image"), rows),
            "choice": (("card", "image"), np.full(shape, "strongest", dtype=object)),
            "frame": (("card", "image", "y", "x", "channel"), frames),
            "active": (("card", "image", "mask_y", "mask_x"), active),
            "formula": (("card", "image", "mask_y", "mask_x"), formula),
        }
    )


def written(result: Result, folder: Path) -> dict[str, Path]:
    """The exported files by relative name; all exist and none is named twice."""
    paths = export_concepts(result, folder)
    found = {path.relative_to(folder).as_posix(): path for path in paths}
    assert len(found) == len(paths)
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == set(found)
    return found


@pytest.fixture
def full(tmp_path) -> tuple[Result, dict[str, Path]]:
    """A result of one layer with every group, and its files."""
    layers = {"layer4": 5}
    index = np.array([2, 3, 5, 8, 13])
    two = ("unit", "range")
    more = {
        "report_score": (("unit",), np.array([0.3, 0.05, np.nan, 0.6, 0.2]), "", ""),
        "formula_share": (("unit",), np.full(5, 0.031), "", ""),
        "best_formula": (("unit", "length"), np.tile(np.array(["sea", "sky", ""], dtype=object), (5, 1)), "", ""),
    }
    beams = np.full((5, 3, 2), "", dtype=object)
    beams[:, 0], beams[:, 1, 0] = ["sea", "sky"], "sea OR sky"
    pairs = ("of", "by")
    groups = {
        "units": units_of(layers, **more).assign_coords(index=("unit", index)),
        "concepts": concepts_of(),
        "cards": cards_of([3, 0]),
        "history": xr.Dataset(
            {
                "beam_formula": (("unit", "length", "place"), beams),
                "beam_score": (("unit", "length", "place"), np.full(beams.shape, 0.25)),
                "candidate_label": (("unit", "candidate"), np.tile(np.array(["sky", "sea"], dtype=object), (5, 1))),
            }
        ),
        "ranges": xr.Dataset(
            {
                "held_out": (two, np.full((5, 2), 0.2)),
                "formula": (two, np.full((5, 2), "sea", dtype=object)),
                "lower": (two, np.tile([0.0, 1.0], (5, 1))),
                "upper": (two, np.tile([1.0, 2.0], (5, 1))),
            }
        ),
        "accuracy": xr.Dataset({"accuracy_when_firing": ("unit", np.full(5, 0.5)), "r_formula": ((), 0.31)}),
        "contributions_classes": xr.Dataset(
            {
                "weight": (pairs, np.arange(6.0).reshape(2, 3)),
                "correlation": (pairs, np.zeros((2, 3))),
                "overlap": (pairs, np.ones((2, 3))),
                "contributor": (pairs, np.eye(2, 3, dtype=np.int8)),
            },
            coords={"of_name": ("of", np.array(["cat", "dog"], dtype=object))},
        ),
    }
    result = result_of(groups, layers=layers, resolution="cells", expansions=3, score="imrou_normalised")
    return result, written(result, tmp_path / "original")


def test_every_file_of_the_originals_is_there(full):
    """The folder is named by the settings, files by first and last unit; tables of other programs lie beside it."""
    images = [f"images_2_13/{unit:04d}{kind}-0.jpg" for unit in (8, 2) for kind in ("", "-maskimg", "-masksource")]
    inside = ["results_2_13.csv", "history_2_13.txt", "2_13.html", "layer4-imrou75.svg", *images]
    outside = [
        "tally_layer4.csv", "layer4_2_3_metrics.csv", "accuracy_layer4.csv", "accuracy.csv", "contrib_classes.csv",
    ]  # fmt: skip
    assert set(full[1]) == {f"FL3_imrou75_X3_standard/{name}" for name in inside} | set(outside)


def test_layers_have_folders_only_where_there_are_several(tmp_path):
    """Names that are no file names are made such."""
    layers = {"layer4": 2, "a/b": 3}
    found = written(result_of({"units": units_of(layers)}, layers=layers), tmp_path)
    assert {"layer4/FL3_imrou75_N_standard/results_0_1.csv", "a-b/FL3_imrou75_N_standard/0_2.html"} <= set(found)
    assert {"tally_layer4.csv", "tally_a-b.csv"} <= set(found)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ({"score": "iou", "resolution": "cells", "expansions": 0}, "FL3_iou_N_standard"),
        ({"score": "iou", "resolution": "pixels", "expansions": 3}, "FL3_iou_N_standard"),
        ({"resolution": "cells", "expansions": 3, "operators": ["or", "with"]}, "FL3_imrou75_X3_close"),
        ({"length": 10, "multiplier": 0.29, "probe": "firing"}, "FL10_imrou29_N_standard_EASY"),
        ({"score": "activation_coverage"}, "FL3_activation-coverage_N_standard"),
    ],
)
def test_settings_name_the_folder(spec, name):
    """As indres does; a result that does not know a setting yet has its default."""
    assert folder_name({**SPEC, **spec}) == name


def test_every_setting_names_a_folder():
    """Options as a result keeps them."""
    assert folder_name(asdict(ConceptsSpec())) == "FL3_iou_N_standard"


def test_results_are_neuron_category_formula_and_rounded_threshold(full):
    """Nothing else; no formula is empty."""
    table = pd.read_csv(full[1]["FL3_imrou75_X3_standard/results_2_13.csv"], keep_default_na=False)
    assert list(table.columns) == ["neuron", "category", "formula", "threshold"]
    assert table["neuron"].tolist() == [2, 3, 5, 8, 13]
    assert table["formula"].tolist() == [FORMULAS[i % 3] for i in range(5)]
    assert table["threshold"].tolist() == [4.6, 4.6, 0.0, 4.6, 4.6]


def test_history_can_be_gone_on_from(full):
    """Candidates and beams of every unit are read back; places without a formula are none."""
    text = full[1]["FL3_imrou75_X3_standard/history_2_13.txt"].read_text(encoding="utf-8")
    found = read_history(text, NAMES)
    assert list(found) == [2, 3, 5, 8, 13]
    assert found[8].candidates == (Label(2), Label(1))
    assert {n: [entry.formula for entry in beam] for n, beam in found[8].beams.items()} == {
        1: [Label(1), Label(2)],
        2: [Or(Label(1), Label(2))],
    }
    assert (found[8].beams[2][0].score, found[8].beams[2][0].threshold) == (0.25, 4.6)


def test_tally_speaks_the_language_of_compexp(full):
    """Formulas in its notation, categories in place of names, negations counted, columns in its order."""
    table = pd.read_csv(full[1]["tally_layer4.csv"], keep_default_na=False)
    assert list(table.columns) == [
        "unit", "category", "label", "score", "length", "emb_summary", "emb_summary_sim", "wn_summary",
        "wn_summary_sim", "wn_mean_sim", "wn_min_sim", "wn_max_sim", "consistency", "category_noncomp",
        "label_noncomp", "score_noncomp",
    ]  # fmt: skip
    first = table.iloc[0]
    assert first["label"] == '((sea OR sky) AND (NOT a <b> & "c"))'
    assert first["category"] == "((water OR air) AND (NOT odd))"
    assert (first["length"], first["category_noncomp"], first["label_noncomp"]) == (4, "water", "sea")
    assert (first["score"], first["score_noncomp"]) == ("0.5", 0.1)
    assert table["length"].tolist() == [4, 1, 0, 4, 1]
    assert (table["consistency"] == "").all()


def test_names_that_do_not_tell_labels_apart_leave_formulas_as_they_are():
    """Nothing is guessed."""
    layers = {"layer4": 3}
    result = result_of({"units": units_of(layers)}, layers=layers)
    table = tally(layer_units(result, "layer4"), concepts_of({1: "sea", 2: "sea", 3: "sky"}))
    assert table["label"].tolist() == FORMULAS
    assert table["category"].tolist() == ["water, air, odd", "air", ""]


def test_further_tables_keep_their_numbers(full):
    """A row for each range, each pair and each unit; what is of no unit stands apart."""
    files = full[1]
    ranges = pd.read_csv(files["layer4_2_3_metrics.csv"])
    assert list(ranges.columns) == ["unit", "range", "lower", "upper", "formula", "iou"]
    assert ranges[["unit", "range", "lower"]].to_numpy()[:3].tolist() == [[2, 0, 0.0], [2, 1, 1.0], [3, 0, 0.0]]
    pairs = pd.read_csv(files["contrib_classes.csv"])
    assert list(pairs.columns) == ["of", "by", "weight", "feat_corr", "act_iou", "contributor"]
    assert pairs.query("of == 'dog' and by == 1")[["weight", "contributor"]].to_numpy().tolist() == [[4, 1]]
    units = pd.read_csv(files["accuracy_layer4.csv"])
    assert list(units.columns) == ["unit", "iou", "accuracy_when_firing"]
    assert pd.read_csv(files["accuracy.csv"]).to_numpy().tolist() == [["r_formula", 0.31]]


class _Read(HTMLParser):
    """Collects what a test asks about a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.tags if found == tag]


def test_page_has_a_card_for_each_unit_best_first(full):
    """With the original's lines; below the limit, and without a formula, it is grey; only some have pictures."""
    page = _Read(full[1]["FL3_imrou75_X3_standard/2_13.html"].read_text(encoding="utf-8"))
    cards = page.all("article")
    assert [card["id"] for card in cards] == ["unit-8", "unit-2", "unit-13", "unit-3", "unit-5"]
    assert ["grey" in card["class"] for card in cards] == [False, False, False, True, True]
    said = " ".join(" ".join(page.said).split())
    assert "neuron #2 || Score: 0.300 / IoU: 0.400 Coverage (neuron / label): 0.80% / 3.10% Threshold: 4.56" in said
    assert "no formula: dead, never above its threshold" in said
    assert "By chance: 0.010 (q = 0.02)" in said
    assert len([one for one in page.all("div") if one.get("role") == "region"]) == 2


def test_page_stands_alone_and_runs_nothing(full):
    """Its pictures exist, its anchors lead somewhere, names are escaped, and there is no script or foreign address."""
    path = full[1]["FL3_imrou75_X3_standard/2_13.html"]
    text = path.read_text(encoding="utf-8")
    page = _Read(text)
    images = page.all("img")
    assert len(images) == 7
    assert all((path.parent / image["src"]).is_file() and image["alt"] for image in images)
    anchors = {attributes["id"] for _, attributes in page.tags if attributes.get("id")}
    assert {link["href"].removeprefix("#") for link in page.all("a")} <= anchors
    assert not page.all("script")
    assert not page.all("b"), "a name must not become markup"
    assert not re.search(r"https?://", text)
    assert "net <1>" in " ".join(page.said)


def test_page_can_be_walked_by_keyboard(full):
    """Scrolling rows take the focus and are named; a link skips the contents."""
    page = _Read(full[1]["FL3_imrou75_X3_standard/2_13.html"].read_text(encoding="utf-8"))
    rows = [one for one in page.all("div") if one.get("class") == "rows"]
    assert all(row["tabindex"] == "0" and row["aria-label"] for row in rows)
    assert page.all("a")[0]["href"] == "#cards"


def test_captions_give_score_iou_and_image(full):
    """Both of the one image: a quarter of it in common, three quarters in any."""
    page = _Read(full[1]["FL3_imrou75_X3_standard/2_13.html"].read_text(encoding="utf-8"))
    said = " ".join(page.said)
    score = (4 - 0.75 / 16 * 64) / 12 / (1 - 0.75 / 16 * 8)
    assert f"{score:.3f} / 0.333 / #0" in said
    assert "#-1" not in said
    assert "unit strongest" in said


def test_pictures_are_tinted_plain_and_tints_alone(full):
    """Blue above, red left, both where they meet; enlarged to what the page shows, JPEG within a few levels."""
    folder = full[1]["FL3_imrou75_X3_standard/2_13.html"].parent / "images_2_13"
    tints, plain, alone = (np.asarray(Image.open(folder / f"0002{kind}-0.jpg")).astype(int) for kind in (
        "", "-maskimg", "-masksource"
    ))  # fmt: skip
    assert tints.shape == plain.shape == alone.shape == (304, 304, 3)
    for (y, x), change in {(60, 250): (-64, -64, 64), (250, 60): (64, -64, -64), (60, 60): (0, -128, 0)}.items():
        assert np.abs(tints[y, x] - np.clip(plain[y, x] + change, 0, 255)).max() < 6
        assert np.abs(alone[y, x] - np.clip(255 + np.array(change), 0, 255)).max() < 6
    assert np.abs(tints[250, 250] - plain[250, 250]).max() < 6
    assert (alone[250, 250] > 250).all()


def test_unit_and_formula_differ_without_colour():
    """In grey their lines tell them apart: that of the unit is solid, that of the formula is broken."""
    ground, nothing, square = (
        np.full((300, 300, 3), 255, np.uint8),
        np.zeros((300, 300), bool),
        np.zeros((300, 300), bool),
    )
    square[100:200, 100:200] = True
    unit, formula = tinted(ground, formula=nothing, active=square), tinted(ground, formula=square, active=nothing)
    assert (unit[100, 100:200] == 0).all()
    dark = (formula[102, 110:190] == 0).all(axis=-1)
    assert 0.3 < dark.mean() < 0.7


masks = arrays(bool, (5, 4))


@given(masks, masks, st.floats(0, 0.9))
def test_image_scores_follow_their_definitions(active, formula, multiplier):
    """IoU without multiplier; the normalised score is 1 for a formula that equals the unit's mask."""

    def score(name, other=formula, share=multiplier):
        return image_score(name, share, active=active, formula=other)

    if (active | formula).any():
        assert score("imrou", share=0.0) == score("iou") == (active & formula).sum() / (active | formula).sum()
        assert score("imrou") <= score("iou")
    else:
        assert np.isnan(score("iou"))
    if active.any():
        assert score("activation_coverage") == (active & formula).sum() / active.sum()
        assert score("imrou_normalised", other=active) == pytest.approx(1.0)
    if formula.any():
        assert score("detection_accuracy") == (active & formula).sum() / formula.sum()


def test_histogram_tells_mean_and_spread(full):
    """As its title, with three decimals, of the units that have a score; the same scores give the same file."""
    svg = full[1]["FL3_imrou75_X3_standard/layer4-imrou75.svg"].read_text(encoding="utf-8")
    known = np.array([0.3, 0.05, 0.6, 0.2])
    assert f"Scores: ({known.mean():.3f} +/- {known.std():.3f})" in svg
    assert ET.fromstring(svg).tag.endswith("svg")  # noqa: S314 written by this test
    assert svg == histogram_svg(np.array([0.3, 0.05, np.nan, 0.6, 0.2]))


def test_older_results_lack_files_but_not_the_rest(tmp_path):
    """Without history, cards, concepts and newer quantities; shares are worked out from those there are."""
    layers = {"layer4": 3}
    found = written(result_of({"units": units_of(layers)}, layers=layers, score="iou"), tmp_path)
    folder = "FL3_iou_N_standard"
    assert set(found) == {
        "tally_layer4.csv", *(f"{folder}/{name}" for name in ("results_0_2.csv", "0_2.html", "layer4-iou.svg"))
    }  # fmt: skip
    said = " ".join(" ".join(_Read(found[f"{folder}/0_2.html"].read_text(encoding="utf-8")).said).split())
    assert "Score: 0.400 / IoU: 0.400 Coverage (neuron / label): 0.80% / 0.40%" in said


def test_page_says_which_images_scores_are_of(tmp_path):
    """Held-out ones, unless formulas were searched on the very same."""
    layers = {"layer4": 3}
    result = result_of({"units": units_of(layers)}, layers=layers, score="iou")
    same = replace(result, provenance=replace(result.provenance, legacy=("same-images",)))
    for number, (one, words) in enumerate(
        [(result, "which formulas were not searched on."), (same, "it is too good.")]
    ):
        page = written(one, tmp_path / str(number))["FL3_iou_N_standard/0_2.html"].read_text(encoding="utf-8")
        assert words in page


def test_a_layer_without_any_formula_has_a_page(tmp_path):
    """All cards are grey and there is no histogram of nothing."""
    layers = {"layer4": 3}
    table = units_of(layers)
    nothing = np.full(3, np.nan)
    table = table.assign(
        formula=("unit", np.full(3, "", dtype=object)), score=("unit", nothing), held_out=("unit", nothing),
        threshold=("unit", nothing),
    )  # fmt: skip
    found = written(result_of({"units": table}, layers=layers), tmp_path)
    page = _Read(found["FL3_imrou75_N_standard/0_2.html"].read_text(encoding="utf-8"))
    assert all("grey" in card["class"] for card in page.all("article"))
    assert " ".join(page.said).count("no formula: NaN or infinite activations") == 3
    assert not page.all("img")
    assert not any(name.endswith(".svg") for name in found)


def test_a_real_study_is_exported(tmp_path):
    """From a network to its files; the history, where there is one, reads as the study's beams."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    )
    classes = [str(digit) for digit in range(10)]
    subject = ns.subject_from(
        net, name="small", input_shape=(1, 28, 28), preprocess=ns.Preprocess(channels=1), classes=classes
    )
    spec = ConceptsSpec(concepts=("digits",), concept_limit=40, layers=("1",), draws=0, cards=2, images=2)
    images = load_concepts(list(spec.concepts), limit=spec.concept_limit, seed=0)
    result = run_concepts(subject, images.images, spec, run=ns.Run(batch_size=64))
    found = written(result, tmp_path)
    assert {"FL3_iou_N_standard/results_0_3.csv", "FL3_iou_N_standard/0_3.html", "tally_1.csv"} <= set(found)
    assert any(name.startswith("FL3_iou_N_standard/images_0_3/") for name in found)
    history = found.get("FL3_iou_N_standard/history_0_3.txt")
    if history is not None:
        names = {concept.number: concept.name for concept in images.concepts}
        assert list(read_history(history.read_text(encoding="utf-8"), names)) == [0, 1, 2, 3]


def test_labels_of_a_formula_keep_their_order_in_the_tally():
    """AND of two labels reads as the formula does."""
    layers = {"layer4": 1}
    table = units_of(layers).assign(formula=("unit", np.array(["sky AND sea"], dtype=object)))
    row = tally(layer_units(result_of({"units": table}, layers=layers), "layer4"), concepts_of()).iloc[0]
    assert (row["label"], row["category"], row["length"]) == ("(sky AND sea)", "(air AND water)", 2)
    assert And(Label(2), Label(1)) != And(Label(1), Label(2))
