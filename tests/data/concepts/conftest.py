"""A concept set small enough to know by heart, in the form of Broden."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

INDEX = """image,split,ih,iw,sh,sw,color,object,part,material,scene,texture
ade20k/a.jpg,train,8,8,4,4,ade20k/a_color.png,ade20k/a_object.png,ade20k/a_part_1.png;ade20k/a_part_2.png,,6,
ade20k/b.jpg,val,8,8,4,4,ade20k/b_color.png,ade20k/b_object.png,,,0,
dtd/c.jpg,train,8,8,4,4,dtd/c_color.png,,,,,7;300
opensurfaces/d.jpg,val,8,8,4,4,,,,opensurfaces/d_material.png,6,
"""
CATEGORY = """name,first,last,count,frequency
color,0,9,1,3
object,1,9,2,2
part,2,9,2,1
scene,3,9,1,2
material,4,9,2,1
texture,5,9,2,1
"""
LABEL = """number,name,category,frequency,coverage,syns
1,red-c,color(3),3,2.5,
2,traffic_light,object(2);material(1),2,1.0,
3,wheel,part(1);material(1),1,0.5,
4,door,part(1),1,0.4,
5,building,object(1),1,0.4,
6,art_gallery-s,scene(2),2,2.0,
7,zigzagged,texture(1),1,1.0,
300,banded,texture(1),1,1.0,
"""
TABLES = {
    "color": "1,1,red-c,3,2.5\n",
    "object": "1,2,traffic_light,2,0.5\n2,5,building,1,0.4\n",
    "part": "1,3,wheel,1,0.5\n2,4,door,1,0.4\n",
    "scene": "1,6,art_gallery-s,2,2.0\n",
    "material": "1,2,traffic_light,1,0.5\n2,3,wheel,1,0.25\n",
    "texture": "1,7,zigzagged,1,1.0\n2,300,banded,1,1.0\n",
}


def segmentation(labels: list[list[int]]) -> Image.Image:
    """Labels as a PNG in Broden's code: red + 256 * green; blue is noise."""
    numbers = np.array(labels)
    return Image.fromarray(np.stack([numbers % 256, numbers // 256, numbers * 7 % 251], axis=2).astype(np.uint8))


def half(left: int, right: int) -> list[list[int]]:
    """A 4 x 4 map of two halves."""
    return [[left, left, right, right]] * 4


@pytest.fixture
def broden(tmp_path) -> Path:
    """Four images of 8 x 8 with segmentations of 4 x 4."""
    folder = tmp_path / "broden1_8"
    for name, text in {"index": INDEX, "category": CATEGORY, "label": LABEL}.items():
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.csv").write_text(text)
    for category, rows in TABLES.items():
        (folder / f"c_{category}.csv").write_text("code,number,name,frequency,coverage\n" + rows)
    images = folder / "images"
    for number, name in enumerate(("ade20k/a", "ade20k/b", "dtd/c", "opensurfaces/d")):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (40 * number, 9, 9)).save(images / f"{name}.jpg")
    for name, labels in {
        "ade20k/a_color": half(1, 1),
        "ade20k/a_object": half(2, 5),
        "ade20k/a_part_1": half(3, 0),
        "ade20k/a_part_2": half(4, 0),
        "ade20k/b_color": half(0, 1),
        "ade20k/b_object": half(0, 2),
        "dtd/c_color": half(1, 0),
        "opensurfaces/d_material": half(3, 2),
    }.items():
        segmentation(labels).save(images / f"{name}.png")
    return folder
