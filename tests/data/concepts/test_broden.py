"""Broden's files, read as its builder wrote them."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from neuronscope.data.concepts import ConceptOptions, load_concepts
from neuronscope.data.concepts.broden import clean_name, read_index
from neuronscope.errors import DataError, UnknownName


def test_the_concept_table(broden):
    """Names are cleaned, levels and primary categories are found, numbers stay global."""
    concepts = load_concepts(f"broden:{broden}")
    assert concepts.name == "broden:broden1_8"
    assert [(c.number, c.name, c.category, c.level, c.frequency) for c in concepts.concepts] == [
        (1, "red", "color", "pixel", 3),
        (2, "traffic light", "object", "pixel", 2),
        (3, "wheel", "part", "pixel", 1),
        (4, "door", "part", "pixel", 1),
        (5, "building", "object", "pixel", 1),
        (6, "art gallery", "scene", "image", 2),
        (7, "zigzagged", "texture", "image", 1),
        (300, "banded", "texture", "image", 1),
    ]
    assert concepts.concept(2).categories == (("object", 2), ("material", 1))
    assert concepts.categories == ("color", "object", "part", "scene", "material", "texture")
    assert concepts.find("traffic_light") == concepts.find("traffic light", category="object") == concepts.concept(2)


def test_masks_join_layers_categories_and_whole_labels(broden):
    """Numbers above 255, several layers of a category, several categories of a label, whole-image labels; never 0."""
    concepts = load_concepts(f"broden:{broden}")
    assert concepts.side == (4, 4)
    first = concepts.masks(0)
    assert first.maps.shape == (4, 4, 4)
    assert first.numbers().tolist() == [1, 2, 3, 4, 5, 6]
    left = np.array([[True, True, False, False]] * 4)
    assert (first.mask(2) == left).all()
    assert (first.mask(3) == left).all()
    assert (first.mask(4) == left).all()
    assert (first.mask(5) == ~left).all()
    assert first.mask(6).all()
    assert concepts.masks(1).whole.tolist() == []  # scene 0
    assert concepts.masks(2).whole.tolist() == [7, 300]
    assert (concepts.masks(3).mask(2) == ~left).all()  # as a material


def test_which_categories_were_annotated(broden):
    """An empty cell is not annotated; neither is the scene 0."""
    concepts = load_concepts(f"broden:{broden}")
    assert concepts.annotated.astype(int).tolist() == [
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 1],
        [0, 0, 0, 1, 1, 0],
    ]


def test_equal_coverage_goes_to_the_first_or_the_last_category(broden):
    """Label 2 covers as much as an object as it does as a material: indres and compexp decide differently."""
    of = {
        ties: load_concepts(f"broden:{broden}", options=ConceptOptions(ties=ties)).concept(2).category
        for ties in ("first", "last")
    }
    assert of == {"first": "object", "last": "material"}


def test_choosing_categories_chooses_images_and_primary_categories(broden):
    """Only annotated images stay; the primary category is one of those asked for; a scene 0 keeps its image."""
    concepts = load_concepts(f"broden:{broden}", categories=["scene", "material"])
    assert concepts.images.ids == ("ade20k/a.jpg", "ade20k/b.jpg", "opensurfaces/d.jpg")
    assert [(c.number, c.category) for c in concepts.concepts] == [(2, "material"), (3, "material"), (6, "scene")]
    assert concepts.masks(0).numbers().tolist() == [6]
    with pytest.raises(UnknownName, match=r"'colour'.*color"):
        load_concepts(f"broden:{broden}", categories=["colour"])


def test_a_subset_by_index_file_or_by_path(broden):
    """`index_SUBSET.csv` where it is there, otherwise the rows whose path contains the name."""
    by_path = load_concepts(f"broden:{broden}", options=ConceptOptions(subset="ade20k"))
    assert by_path.images.ids == ("ade20k/a.jpg", "ade20k/b.jpg")
    lines = (broden / "index.csv").read_text().splitlines(keepends=True)
    (broden / "index_ade20k.csv").write_text(lines[0] + lines[1])
    by_file = load_concepts(f"broden:{broden}", options=ConceptOptions(subset="ade20k"))
    assert by_file.images.ids == ("ade20k/a.jpg",)


def test_splits_are_there_for_held_out_scores(broden):
    """The split column, which no original used."""
    concepts = load_concepts(f"broden:{broden}")
    assert concepts.splits == ("train", "val", "train", "val")
    held_out = load_concepts(f"broden:{broden}", split="val")
    assert held_out.images.ids == ("ade20k/b.jpg", "opensurfaces/d.jpg")
    assert (held_out.masks(1).maps == concepts.masks(3).maps).all()
    with pytest.raises(UnknownName, match="no split 'test'"):
        load_concepts(f"broden:{broden}", split="test")


def test_the_set_can_be_sent_to_another_process(broden):
    """Pickled and back it gives the same masks and pixels."""
    concepts = load_concepts(f"broden:{broden}")
    other = pickle.loads(pickle.dumps(concepts))  # noqa: S301 our own bytes
    assert other.fingerprint == concepts.fingerprint
    assert (other.masks(0).maps == concepts.masks(0).maps).all()
    assert (other.images.read(2) == concepts.images.read(2)).all()


@pytest.mark.parametrize("change", ["mask", "name", "category", "whole"])
def test_the_fingerprint_changes_with_masks_names_and_categories(broden, change):
    """And not by being read again."""
    before = load_concepts(f"broden:{broden}").fingerprint
    assert load_concepts(f"broden:{broden}").fingerprint == before
    if change == "mask":
        path = broden / "images/ade20k/a_object.png"
        pixels = np.array(Image.open(path))
        pixels[0, 0, 0] = 5
        Image.fromarray(pixels).save(path)
    else:
        file, old, new = {
            "name": ("label.csv", "banded", "striped"),
            "category": ("c_material.csv", "traffic_light,1,0.5", "traffic_light,1,0.9"),
            "whole": ("index.csv", ",7;300", ",7"),
        }[change]
        (broden / file).write_text((broden / file).read_text().replace(old, new))
    assert load_concepts(f"broden:{broden}").fingerprint != before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("png", "a_object.png.*is not there"),
        ("size", "is 2 x 2.*expected 4 x 4"),
        ("mode", "mode L.*expected RGB"),
        ("label", "label 999, which label.csv does not list"),
        ("torn", "cannot be read"),
    ],
)
def test_a_faulty_png_is_named_when_it_is_read(broden, damage, message):
    """Loading does not read masks; reading names the file."""
    path = broden / "images/ade20k/a_object.png"
    if damage == "png":
        path.unlink()
    elif damage == "torn":
        path.write_bytes(path.read_bytes()[:40])
    else:
        Image.fromarray(
            {
                "size": np.zeros((2, 2, 3), dtype=np.uint8),
                "mode": np.zeros((4, 4), dtype=np.uint8),
                "label": np.full((4, 4, 3), (999 % 256, 999 // 256, 0), dtype=np.uint8),
            }[damage]
        ).save(path)
    concepts = load_concepts(f"broden:{broden}")
    assert concepts.masks(1).maps.shape == (2, 4, 4)
    with pytest.raises(DataError, match=message):
        concepts.masks(0)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("index.csv", "sh,", "height,", "lacks the column sh"),
        ("index.csv", ",7;300", ",7;301", "label 301, which label.csv does not list"),
        ("index.csv", ",8,8,4,4,", ",8,8,4,x,", "sw in line 2 is 'x'"),
        ("label.csv", "category,", "kind,", "lacks the column category"),
        ("label.csv", "5,building", "4,building", "the number 4 twice"),
        ("c_part.csv", "2,4,door", "2,44,door", "the label 44, which label.csv does not have"),
    ],
)
def test_a_faulty_table_is_refused(broden, file, old, new, message):
    """With the file, what was expected, and what came."""
    (broden / file).write_text((broden / file).read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        load_concepts(f"broden:{broden}")


def test_names_are_cleaned_for_people():
    """Only the endings of scenes and colours go."""
    assert [clean_name(raw) for raw in ("red-c", "alley-s", "x-ray", "s", "hat_box")] == [
        "red", "alley", "x-ray", "s", "hat box",
    ]  # fmt: skip


def test_real_index_rows_parse(test_data):
    """The ADE20K part of Broden: counts known from the file itself."""
    rows = read_index(test_data / "broden_index/index_ade20k.csv.gz")
    assert len(rows) == 22_210
    assert Counter(row.split for row in rows) == {"train": 15_716, "val": 6_494}
    assert {row.side for row in rows} == {(112, 112)}
    layers = Counter(sum(category == "part" for category, _ in row.maps) for row in rows)
    assert (layers[1], layers[2], layers[3]) == (7_307, 4_079, 174)
    assert sum(category == "color" for row in rows for category, _ in row.maps) == 22_210
    assert sum(category == "object" for row in rows for category, _ in row.maps) == 22_210
    scenes = [number for row in rows for category, number in row.whole if category == "scene"]
    assert (len(scenes), scenes.count(0)) == (19_733, 1_987)
