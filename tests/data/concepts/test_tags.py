"""Concepts without outlines."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from neuronscope.data.concepts import load_concepts
from neuronscope.errors import DataError


@pytest.fixture
def images(tmp_path):
    """Three images of 10 x 10."""
    folder = tmp_path / "pictures"
    for name in ("dots/a.png", "dots/b.png", "stripes/a.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (10, 10)).save(folder / name)
    return folder


def test_class_folders_label_whole_images(images):
    """Every pixel of an image has its folder as a label."""
    concepts = load_concepts(f"classes:{images},texture")
    assert [(c.number, c.name, c.category, c.level, c.frequency) for c in concepts.concepts] == [
        (1, "dots", "texture", "image", 2), (2, "stripes", "texture", "image", 1),
    ]  # fmt: skip
    assert concepts.images.classes == ("dots", "stripes")
    assert concepts.masks(2).mask(2).all()
    assert concepts.masks(2).numbers().tolist() == [2]
    (images / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty.*holds no images"):
        load_concepts(f"classes:{images}")


def test_tags_of_whole_images(images):
    """Several rows for an image; a row without a label says that nothing was found."""
    (images / "tags.csv").write_text(
        "image,label,category\ndots/a.png,round,shape\ndots/a.png,red,color\ndots/b.png,,shape\nstripes/a.png,red,color\n"
    )
    concepts = load_concepts(f"tags:{images / 'tags.csv'}")
    assert [(c.number, c.name, c.category, c.frequency) for c in concepts.concepts] == [
        (1, "round", "shape", 1), (2, "red", "color", 2),
    ]  # fmt: skip
    assert [concepts.masks(row).numbers().tolist() for row in range(3)] == [[1, 2], [], [2]]
    assert concepts.annotated.astype(int).tolist() == [[1, 1], [1, 0], [0, 1]]
    assert concepts.images.read(1).shape == (1, 10, 10)


def test_boxes(images, tmp_path):
    """Pixels from x0 to just before x1; the table may lie elsewhere."""
    table = tmp_path / "boxes.csv"
    table.write_text("image,label,x0,y0,x1,y1\ndots/a.png,eye,1,2,3,4\ndots/a.png,head,0,0,10,5\ndots/b.png,,,,,\n")
    concepts = load_concepts(f"boxes:{table},{images}", side=10)
    masks = concepts.masks(0)
    eye = np.zeros((10, 10), dtype=bool)
    eye[2:4, 1:3] = True
    assert (masks.mask(concepts.find("eye").number) == eye).all()
    assert (masks.mask(concepts.find("head").number) == (np.arange(10) < 5)[:, None]).all()
    assert len(masks.maps) == 2
    assert concepts.masks(1).numbers().tolist() == []
    table.write_text("image,label,x0,y0,x1,y1\ndots/a.png,eye,3,2,1,4\n")
    with pytest.raises(DataError, match="line 2 is 3, 2, 1, 4"):
        load_concepts(f"boxes:{table},{images}")


def test_a_table_without_its_columns_is_refused(images):
    """And says which are missing."""
    (images / "tags.csv").write_text("picture,label\na,b\n")
    with pytest.raises(DataError, match="lacks the column image"):
        load_concepts(f"tags:{images / 'tags.csv'}")


def test_real_textures(test_data):
    """Ten classes of DTD; a limit takes as many of each."""
    concepts = load_concepts(f"classes:{test_data / 'dtd10'},texture", limit=20)
    assert np.bincount(concepts.images.labels).tolist() == [2] * 10
    assert concepts.concepts[0].frequency == 30
