"""One's own label maps: a folder of images, a folder of PNGs with label numbers, a table of labels.

    mine/
      images/street/1.jpg ...     any size, any depth of folders
      masks/street/1.png ...      the same names; 8 or 16 bits, palette, or red + 256 * green
      masks_part/street/1.png     further layers, for labels that overlap: every folder whose name starts with `masks`
      labels.csv                  number,name,category

A PNG must have the proportions of its image, not its size. 0 means unlabelled, unless the table lists it as a label;
then all concept numbers are one higher than those in the PNGs. A number that the table lists without a name (`255,`)
means unlabelled, too. Any other number is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from neuronscope.data import formats
from neuronscope.data.concepts.annotations import (
    Encoding,
    Report,
    digest_of,
    expect_listed,
    expect_same_shape,
    image_files,
    image_size,
    read_labels_png,
    read_table,
    refuse,
    whole_number,
)
from neuronscope.data.concepts.concept_data import Concept, ConceptData
from neuronscope.data.concepts.framing import Side
from neuronscope.data.concepts.masks import MaskSource

DEFAULT_SIDE = (112, 112)
"""Side of the masks where a source has none of its own: that of Broden's."""

LARGEST_NUMBER = 2**16 - 1
"""Largest label number that a PNG can hold."""


def load_label_maps(
    images: Path,
    maps: Sequence[Path],
    table: Path,
    *,
    name: str = "labelmaps",
    encoding: Encoding = "index",
    category: str = "object",
    report: Report = refuse,
) -> ConceptData:
    """Images with label-map PNGs.

    Args:
        images: folder of the images.
        maps: folders of PNGs with the names of the images, one folder for each layer; an image needs one in any.
        table: CSV with the columns `number`, `name` and, if wanted, `category` and `frequency`.
        name: of the set.
        encoding: how the PNGs hold numbers.
        category: of labels for which the table gives none.
        report: is told what is wrong; what is faulty is left out.

    Raises:
        DataError: there is no image with a label map, or `report` raises.
    """
    values = _values(table, category=category, report=report)
    shift = int(any(value == 0 and concept is not None for value, concept in values.items()))
    lookup = np.full(max(values, default=0) + 1, 0, dtype=np.int32)
    concepts = []
    for value, concept in sorted(values.items()):
        if concept is not None:
            lookup[value] = value + shift
            concepts.append(
                Concept(
                    number=value + shift,
                    name=concept["name"].replace("_", " "),
                    category=concept["category"],
                    level="pixel",
                    frequency=int(concept["frequency"]) if concept.get("frequency", "").isdigit() else None,
                    raw=concept["name"],
                )
            )
    found = {image: [path for path in _paths(maps, image) if path.is_file()] for image in formats.image_names(images)}
    for image, paths in found.items():
        if not paths:
            report(
                str(images / image),
                f"has no label map: expected '{' or '.join(map(str, _paths(maps, image)))}'. Put one there",
            )
    rows = [image for image, paths in found.items() if paths]
    if not rows:
        refuse(
            str(images),
            "holds no image with a label map: expected PNGs of the same names in a folder 'masks'. Check the folders",
        )
    categories = tuple(dict.fromkeys(concept.category for concept in concepts))
    reader = LabelMaps(
        images=images,
        names=tuple(rows),
        maps=tuple(tuple(found[image]) for image in rows),
        lookup=lookup,
        listed=np.array(sorted({0, *values}) if not shift else sorted(values), dtype=np.int64),
        table=str(table),
        encoding=encoding,
    )
    return ConceptData(
        images=image_files(name, images, rows),
        concepts=tuple(concepts),
        reader=reader,
        content=digest_of([path for paths in reader.maps for path in paths], lookup.tolist(), encoding),
        side=DEFAULT_SIDE,
        categories=categories,
        annotated=np.ones((len(rows), len(categories)), dtype=bool),
    )


def map_folders(folder: Path) -> list[Path]:
    """The folders of label maps in a folder: those whose names start with `masks`."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and path.name.startswith("masks"))
    return inside or [folder / "masks"]


@dataclass(frozen=True)
class LabelMaps:
    """The label maps of images.

    Attributes:
        images: folder of the images.
        names: of the images.
        maps: the PNGs of each image.
        lookup: number in a PNG -> concept number, 0 for none.
        listed: the numbers that a PNG may hold.
        table: the table of labels, for messages.
        encoding: how a PNG holds numbers.
    """

    images: Path
    names: tuple[str, ...]
    maps: tuple[tuple[Path, ...], ...]
    lookup: Int[np.ndarray, "values"]
    listed: Int[np.ndarray, "k"]
    table: str
    encoding: Encoding

    def sources(self, row: int) -> Sequence[MaskSource]:
        """The label maps of an image."""
        return [LabelPng(path, row, self) for path in self.maps[row]]

    def whole(self, row: int) -> Int[np.ndarray, "m"]:  # noqa: ARG002 the protocol's
        """No label of the image as a whole."""
        return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class LabelPng:
    """One label map."""

    path: Path
    row: int
    reader: LabelMaps

    @property
    def file(self) -> str:
        """The PNG."""
        return str(self.path)

    def read(self) -> Int[np.ndarray, "1 y x"]:
        """Its concepts, as one layer.

        Raises:
            DataError: it is not what it should be, or holds a number that the table does not list.
        """
        values = read_labels_png(self.path, encoding=self.reader.encoding)
        expect_listed(values, self.reader.listed, file=self.file, table=f"'{self.reader.table}'", allowed=())
        of_image: Side = image_size(self.reader.images / self.reader.names[self.row])
        expect_same_shape(self.file, (values.shape[0], values.shape[1]), of_image)
        layer: Int[np.ndarray, "y x"] = self.reader.lookup[values]
        return layer[None]


def _paths(maps: Sequence[Path], image: str) -> list[Path]:
    """Where the label maps of an image may be."""
    return [folder / Path(image).with_suffix(".png") for folder in maps]


def _values(table: Path, *, category: str, report: Report) -> dict[int, dict[str, str] | None]:
    """The rows of the table by number in the PNGs; None for a number that means unlabelled."""
    found: dict[int, dict[str, str] | None] = {}
    for row in read_table(table, required=("number", "name"), report=report, header=("number", "name", "category")):
        number = whole_number(row["number"], file=str(table), what=f"number of '{row['name']}'", report=report)
        if number is None:
            continue
        if number in found or number > LARGEST_NUMBER:
            what = "twice: expected each number once" if number in found else f": expected at most {LARGEST_NUMBER}"
            report(str(table), f"lists the number {number} {what}. Correct it")
            continue
        found[number] = {**row, "category": row.get("category") or category} if row["name"] else None
    return found
