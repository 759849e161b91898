"""One's own label maps, in every form of PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neuronscope.data.concepts import ConceptOptions, load_concepts
from neuronscope.errors import DataError, InputError

CAMVID = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")


def own(folder: Path, pictures: dict[str, Image.Image], table: str, *, masks: str = "masks") -> Path:
    """A folder with an image of 6 x 4 (width x height) for each label map."""
    for name, picture in pictures.items():
        image, mask = folder / "images" / f"{name}.jpg", folder / masks / f"{name}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4)).save(image)
        picture.save(mask)
    (folder / "labels.csv").write_text(table)
    return folder


def numbers(high: int) -> np.ndarray:
    """A map of 4 x 6 with 0, 1 and a high number."""
    maps = np.zeros((4, 6), dtype=np.int64)
    maps[:2, :3] = 1
    maps[2:, 3:] = high
    return maps


def palette(maps: np.ndarray) -> Image.Image:
    """A map as a palette picture whose colours have nothing to do with the numbers."""
    picture = Image.fromarray(maps.astype(np.uint8))
    picture.putpalette([(7 * index) % 256 for index in range(768)])
    return picture


@pytest.mark.parametrize("form", ["8 bits", "16 bits", "palette", "r+256g"])
def test_every_form_of_png_gives_the_same_masks(tmp_path, form):
    """Numbers are numbers, however a PNG holds them."""
    high = 200 if form in ("8 bits", "palette") else 700
    maps = numbers(high)
    picture = {
        "8 bits": lambda: Image.fromarray(maps.astype(np.uint8)),
        "16 bits": lambda: Image.fromarray(maps.astype(np.uint16)),
        "palette": lambda: palette(maps),
        "r+256g": lambda: Image.fromarray(np.stack([maps % 256, maps // 256, maps * 0], axis=2).astype(np.uint8)),
    }[form]()
    folder = own(tmp_path, {"deep/a": picture}, f"number,name,category\n1,cat,animal\n{high},old_hat,thing\n")
    options = ConceptOptions(encoding="r+256g") if form == "r+256g" else ConceptOptions()
    concepts = load_concepts(f"labelmaps:{folder}", side=(4, 6), options=options)
    assert concepts.images.ids == ("deep/a.jpg",)
    assert [(c.number, c.name, c.category) for c in concepts.concepts] == [
        (1, "cat", "animal"),
        (high, "old hat", "thing"),
    ]
    assert (concepts.masks(0).maps == maps).all()


def test_a_listed_zero_is_a_concept_and_nameless_numbers_are_unlabelled(tmp_path):
    """Then concept numbers are one higher than in the PNG."""
    picture = Image.fromarray(numbers(255).astype(np.uint8))
    folder = own(tmp_path, {"a": picture}, "number,name\n0,sky\n1,tree\n255,\n")
    concepts = load_concepts(f"labelmaps:{folder}", side=(4, 6))
    assert [(c.number, c.name, c.category) for c in concepts.concepts] == [(1, "sky", "object"), (2, "tree", "object")]
    maps = numbers(255)
    assert (concepts.masks(0).maps[0] == np.where(maps == 255, 0, maps + 1)).all()


def test_further_folders_are_further_layers(tmp_path):
    """What overlaps goes to `masks_...`; an image needs not be in all of them."""
    maps = numbers(2)
    folder = own(tmp_path, {"a": Image.fromarray(maps.astype(np.uint8)), "b": Image.fromarray(maps.astype(np.uint8))},
                 "1,cat,animal\n2,hat,thing\n3,ear,part\n")  # fmt: skip
    own(tmp_path, {"a": Image.fromarray(np.full((4, 6), 3, dtype=np.uint8))}, "1,cat,animal\n2,hat,thing\n3,ear,part\n",
        masks="masks_part")  # fmt: skip
    concepts = load_concepts(f"labelmaps:{folder}", side=(4, 6))
    assert concepts.masks(0).mask(3).all()
    assert concepts.masks(1).numbers().tolist() == [1, 2]


def test_colours_must_be_announced(tmp_path):
    """An RGB picture may be a drawing; taking its red plane for numbers would be a guess."""
    folder = own(tmp_path, {"a": Image.new("RGB", (6, 4))}, "number,name\n1,cat\n")
    with pytest.raises(DataError, match=r"mode RGB.*say that it is written as 'r\+256g'"):
        load_concepts(f"labelmaps:{folder}").masks(0)


def test_a_map_of_other_proportions_is_refused(tmp_path):
    """It is of another image; a smaller one of the same proportions is fine."""
    folder = own(tmp_path, {"a": Image.new("L", (60, 20)), "b": Image.new("L", (3, 2))}, "number,name\n1,cat\n")
    concepts = load_concepts(f"labelmaps:{folder}")
    with pytest.raises(DataError, match=r"20 x 60.*its image 4 x 6"):
        concepts.masks(0)
    assert concepts.masks(1).maps.shape == (1, 112, 112)


def test_unlisted_numbers_and_missing_maps_are_refused(tmp_path):
    """Each with its file."""
    folder = own(tmp_path, {"a": Image.fromarray(numbers(9).astype(np.uint8))}, "number,name\n1,cat\n")
    with pytest.raises(DataError, match=r"a.png.*the label 9.*labels.csv"):
        load_concepts(f"labelmaps:{folder}").masks(0)
    (folder / "masks/a.png").unlink()
    with pytest.raises(DataError, match=r"a.jpg.*has no label map"):
        load_concepts(f"labelmaps:{folder}")
    with pytest.raises(InputError, match="lacks the table"):
        load_concepts(f"labelmaps:{folder / 'images'},{folder / 'masks'}")


def test_camvid(test_data, tmp_path):
    """Real label maps: 0 is sky, 11 is void; sky is above the road."""
    table = tmp_path / "labels.csv"
    table.write_text("number,name\n" + "".join(f"{n},{name}\n" for n, name in enumerate(CAMVID)) + "11,\n")
    camvid = test_data / "camvid/CamVid"
    concepts = load_concepts(f"labelmaps:{camvid / 'val'},{camvid / 'valannot'},{table}", limit=10)
    assert len(concepts) == 10
    assert [c.name for c in concepts.concepts] == list(CAMVID)
    masks = concepts.masks(0)
    assert masks.maps.shape == (1, 112, 112)
    height = {name: masks.mask(number).nonzero()[0].mean() for number, name in ((1, "sky"), (4, "road"), (9, "car"))}
    assert height["sky"] < height["car"] < height["road"]
