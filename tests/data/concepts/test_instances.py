"""COCO and YOLO: outlined objects as concepts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neuronscope.data.concepts import ConceptOptions, load_concepts
from neuronscope.data.concepts.instances import names_in_yaml
from neuronscope.errors import DataError

SQUARE = [0, 0, 4, 0, 4, 4, 0, 4]


def coco(folder: Path, **changes: object) -> str:
    """Two images of 10 x 8: a cat in two pieces, a crowd of dogs over it; nothing in the second."""
    (folder / "images").mkdir(exist_ok=True)
    for name in ("a", "b"):
        Image.new("RGB", (10, 8)).save(folder / f"images/{name}.jpg")
    content = {
        "images": [{"id": 7, "file_name": "b.jpg", "width": 10, "height": 8},
                   {"id": 3, "file_name": "a.jpg", "width": 10, "height": 8}],
        "categories": [{"id": 18, "name": "dog", "supercategory": "animal"},
                       {"id": 90, "name": "hair drier", "supercategory": "indoor"},
                       {"id": 17, "name": "cat", "supercategory": "animal"}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 17, "iscrowd": 0,
             "segmentation": [SQUARE, [6, 6, 10, 6, 10, 8, 6, 8]]},
            {"id": 2, "image_id": 3, "category_id": 18, "iscrowd": 1,
             "segmentation": {"counts": [0, 16, 64], "size": [8, 10]}},
        ],
    } | changes  # fmt: skip
    (folder / "instances.json").write_text(json.dumps(content))
    return f"coco:{folder / 'images'},{folder / 'instances.json'}"


def test_coco_polygons_and_crowds(tmp_path):
    """Pieces are joined, run lengths go column by column, classes overlap, unused classes stay in the table."""
    concepts = load_concepts(coco(tmp_path), side=(8, 10))
    assert [(c.number, c.name, c.category, c.frequency) for c in concepts.concepts] == [
        (1, "cat", "object", 1), (2, "dog", "object", 1), (3, "hair drier", "object", 0),
    ]  # fmt: skip
    assert concepts.images.ids == ("a.jpg", "b.jpg")
    first = concepts.masks(0)
    cat = np.zeros((8, 10), dtype=bool)
    cat[:4, :4] = cat[6:, 6:] = True
    assert (first.mask(1) == cat).all()
    dogs = np.zeros((8, 10), dtype=bool)
    dogs[:, :2] = True
    assert (first.mask(2) == dogs).all()
    assert concepts.masks(1).numbers().tolist() == []
    assert concepts.annotated.all()


def test_coco_crowds_can_be_left_out_and_supercategories_used(tmp_path):
    """By options."""
    source = coco(tmp_path)
    assert load_concepts(source, options=ConceptOptions(crowd="skip")).masks(0).numbers().tolist() == [1]
    by_super = load_concepts(source, options=ConceptOptions(category=""))
    assert [c.category for c in by_super.concepts] == ["animal", "animal", "indoor"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": None}, "no list 'categories'"),
        ({"annotations": [{"id": 5, "image_id": 99, "category_id": 17}]}, "annotation 5 is of the image 99"),
        ({"annotations": [{"id": 5, "image_id": 3, "category_id": 1}]}, "annotation 5 is of the category 1"),
        ({"annotations": [{"id": 5, "image_id": 3, "category_id": 17, "segmentation": []}]}, "has no outline"),
        ({"annotations": [{"id": 5, "image_id": 3, "category_id": 17, "segmentation": [[1, 2, 3, 4]]}]}, "2 corners"),
        ({"annotations": [{"id": 5, "image_id": 3, "category_id": 17, "segmentation": [[1, "x"]]}]}, "cannot be read"),
    ],
)
def test_faulty_coco_is_refused(tmp_path, changes, message):
    """With the annotation's own number."""
    with pytest.raises(DataError, match=message):
        load_concepts(coco(tmp_path, **changes))


def yolo(folder: Path, text: str) -> str:
    """One image of 20 x 10 with a label text, one without."""
    for name in ("images/train", "labels/train"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in ("a", "b"):
        Image.new("RGB", (20, 10)).save(folder / f"images/train/{name}.jpg")
    (folder / "labels/train/a.txt").write_text(text)
    return f"yolo:{folder}"


def test_yolo_polygons_and_boxes(tmp_path):
    """Relative coordinates; five numbers are a box; no text means nothing there."""
    (tmp_path / "data.yaml").write_text("train: images\nnames:\n  0: cat\n  1: traffic_light\n")
    concepts = load_concepts(yolo(tmp_path, "0 0 0 0.5 0 0.5 1 0 1\n1 0.75 0.5 0.5 1\n"), side=(10, 20))
    assert [(c.number, c.name, c.frequency) for c in concepts.concepts] == [(1, "cat", 1), (2, "traffic light", 1)]
    masks = concepts.masks(0)
    assert (masks.mask(1) == (np.arange(20) < 10)[None].repeat(10, axis=0)).all()
    assert (masks.mask(2) == (np.arange(20) >= 10)[None].repeat(10, axis=0)).all()
    assert concepts.masks(1).numbers().tolist() == []


def test_yolo_names_are_found_or_made_up(tmp_path):
    """A text with names, a path to one, or the numbers."""
    source = yolo(tmp_path, "2 0 0 0.5 0 0.5 1\n")
    assert [c.name for c in load_concepts(source).concepts] == ["class 2"]
    (tmp_path / "elsewhere.txt").write_text("cat\ndog\nhat\n")
    named = load_concepts(f"{source},{tmp_path / 'elsewhere.txt'}")
    assert [(c.number, c.name) for c in named.concepts] == [(1, "cat"), (2, "dog"), (3, "hat")]
    assert named.masks(0).numbers().tolist() == [3]


@pytest.mark.parametrize(
    "line", ["0 0.1 0.2", "x 0 0 1 0 1 1", "0 0 0 1 0 1 1 1", "0 0 0 300 0 300 200", "0 0 0 nan 0 1 1"]
)
def test_faulty_yolo_lines_are_refused(tmp_path, line):
    """Too few, odd, not numbers, in pixels."""
    with pytest.raises(DataError, match=r"a\.txt.*line 1"):
        load_concepts(yolo(tmp_path, line + "\n"))


def test_a_yolo_class_without_a_name_is_refused(tmp_path):
    """When there are names at all."""
    (tmp_path / "names.txt").write_text("cat\n")
    with pytest.raises(DataError, match="the class 4, but there are names for 1"):
        load_concepts(yolo(tmp_path, "4 0 0 1 0 1 1\n"))


@pytest.mark.parametrize(
    "text",
    ["names: [cat, 'wild dog']", 'names:\n  - cat # first\n  - "wild dog"\nnc: 2', "names:\n- cat\n- wild dog\n",
     "# names: [x]\nnc: 2\nnames: {0: cat, 1: wild dog}", "names: [cat,\n  wild dog]\ntrain: a"],
)  # fmt: skip
def test_names_in_the_ways_that_yaml_has(text):
    """Lists and mappings, in one line or in many."""
    assert names_in_yaml(text) == {0: "cat", 1: "wild dog"}


def test_coco128(test_data):
    """Real polygons: 128 images of 71 classes; an elephant is large and in the middle of its picture."""
    concepts = load_concepts(f"yolo:{test_data / 'coco128_seg/coco128-seg'}")
    assert (len(concepts), len(concepts.concepts)) == (128, 71)
    rows = [row for row in range(128) if concepts.images.ids[row] == "train2017/000000000110.jpg"]
    masks = concepts.masks(rows[0])
    assert masks.maps.shape[1:] == (112, 112)
    assert 1 <= len(masks.maps) <= 4
    assert concepts.find("class 56").number in masks.numbers()
