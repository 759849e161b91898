"""Labels without outlines: class folders, image-level labels in a CSV, and boxes in a CSV."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from neuronscope.data import formats
from neuronscope.data.concepts.annotations import Report, digest_of, image_files, read_table, refuse
from neuronscope.data.concepts.concept_data import Concept, ConceptData, Level
from neuronscope.data.concepts.instances import Outlines
from neuronscope.data.concepts.labelmaps import DEFAULT_SIDE
from neuronscope.data.concepts.masks import MaskReader, WholeLabels
from neuronscope.data.concepts.regions import Box, Region, Regions

CORNER_COLUMNS = ("x0", "y0", "x1", "y1")

Key = tuple[str, str]
"""Name as written, and category: what makes a concept."""


def load_classes(
    folder: Path, *, name: str = "classes", category: str = "class", report: Report = refuse
) -> ConceptData:
    """Class folders, such as textures or scenes: each folder is a concept of its whole images.

    Args:
        folder: whose sub-folders hold the images.
        name: of the set.
        category: of all concepts, such as `texture`.
        report: is told of empty folders.

    Raises:
        DataError: there is no image in a sub-folder, or `report` raises.
    """
    found = {
        path.name: formats.image_names(folder, within=path.name)
        for path in sorted(folder.iterdir())
        if path.is_dir() and not path.name.startswith(".")
    }
    for one, inside in found.items():
        if not inside:
            report(str(folder / one), "holds no images: expected those of a concept. Fill it or remove it")
    found = {one: inside for one, inside in found.items() if inside}
    if not found:
        refuse(str(folder), "holds no sub-folders with images: expected one for each concept. Check the path")
    rows = [image for inside in found.values() for image in inside]
    labels = [number for number, inside in enumerate(found.values()) for _ in inside]
    concepts, _ = _table({(one, category): len(inside) for one, inside in found.items()}, level="image")
    return ConceptData(
        images=image_files(name, folder, rows, labels=labels, classes=tuple(found)),
        concepts=concepts,
        reader=WholeLabels(tuple((label + 1,) for label in labels)),
        content=digest_of((), rows, labels),
        side=DEFAULT_SIDE,
        categories=(category,),
        annotated=np.ones((len(rows), 1), dtype=bool),
    )


def load_tags(
    table: Path, *, images: Path | None = None, name: str = "tags", category: str = "tag", report: Report = refuse
) -> ConceptData:
    """Labels of whole images in a CSV with the columns `image`, `label` and, if wanted, `category`.

    An image may have many rows. A row without a label says that the image was looked at and has none.

    Args:
        table: the CSV.
        images: folder that the names are relative to; that of the CSV when left out.
        name: of the set.
        category: of rows without one.
        report: is told what is wrong.

    Raises:
        DataError: there is no row, or `report` raises.
    """
    rows = read_table(table, required=("image", "label"), report=report)
    keys = _keys(rows, category)
    concepts, numbers = _table(_images_of(rows, keys), level="image")
    labels: dict[str, set[int]] = {row["image"]: set() for row in rows if row["image"]}
    for row, key in zip(rows, keys, strict=True):
        if row["image"] and row["label"]:
            labels[row["image"]].add(numbers[key])
    reader = WholeLabels(tuple(tuple(sorted(of_image)) for of_image in labels.values()))
    return _from_table(table, images, name, rows=rows, keys=keys, concepts=concepts, found=list(labels), reader=reader)


def load_boxes(
    table: Path, *, images: Path | None = None, name: str = "boxes", category: str = "object", report: Report = refuse
) -> ConceptData:
    """Boxes in a CSV with the columns `image`, `label`, `x0`, `y0`, `x1`, `y1` and, if wanted, `category`.

    Pixels, from the upper left corner of the image; `x1` and `y1` are just outside. A row without a label says that the
    image was looked at and has nothing.

    Args:
        table: the CSV.
        images: folder that the names are relative to; that of the CSV when left out.
        name: of the set.
        category: of rows without one.
        report: is told what is wrong; faulty rows are left out.

    Raises:
        DataError: there is no row, or `report` raises.
    """
    rows = read_table(table, required=("image", "label", *CORNER_COLUMNS), report=report)
    keys = _keys(rows, category)
    concepts, numbers = _table(_images_of(rows, keys), level="pixel")
    regions: dict[str, list[tuple[int, Region]]] = {row["image"]: [] for row in rows if row["image"]}
    for line, (row, key) in enumerate(zip(rows, keys, strict=True), start=2):
        if not row["label"] or not row["image"]:
            continue
        try:
            x0, y0, x1, y1 = (float(row[column]) for column in CORNER_COLUMNS)
        except ValueError:
            x0 = y0 = x1 = y1 = 0.0
        if not (0 <= x0 < x1 < np.inf and 0 <= y0 < y1 < np.inf):
            came = ", ".join(row[column] for column in CORNER_COLUMNS)
            report(
                str(table),
                f"the box of '{row['image']}' in line {line} is {came}: expected 0 <= x0 < x1 and "
                "0 <= y0 < y1, in pixels. Correct it",
            )
            continue
        regions[row["image"]].append((numbers[key], Box(x0, y0, x1, y1)))
    folder = images or table.parent
    reader = Outlines(
        tuple(Regions(file=str(table), image=folder / image, regions=tuple(of)) for image, of in regions.items())
    )
    return _from_table(table, images, name, rows=rows, keys=keys, concepts=concepts, found=list(regions), reader=reader)


def _keys(rows: Sequence[Mapping[str, str]], category: str) -> list[Key]:
    """Name and category of each row."""
    return [(row["label"], row.get("category") or category) for row in rows]


def _images_of(rows: Sequence[Mapping[str, str]], keys: Sequence[Key]) -> dict[Key, int]:
    """In how many images each concept is, in order of first appearance."""
    pairs = dict.fromkeys(
        (key, row["image"]) for row, key in zip(rows, keys, strict=True) if row["label"] and row["image"]
    )
    return dict(Counter(key for key, _ in pairs))


def _table(images: Mapping[Key, int], *, level: Level) -> tuple[tuple[Concept, ...], dict[Key, int]]:
    """The concept table, and the number of each concept."""
    numbers = {key: place for place, key in enumerate(images, start=1)}
    concepts = tuple(
        Concept(
            number=number,
            name=key[0].replace("_", " "),
            category=key[1],
            level=level,
            categories=((key[1], images[key]),),
            frequency=images[key],
            raw=key[0],
        )
        for key, number in numbers.items()
    )
    return concepts, numbers


def _from_table(
    table: Path,
    folder: Path | None,
    name: str,
    *,
    rows: Sequence[Mapping[str, str]],
    keys: Sequence[Key],
    concepts: tuple[Concept, ...],
    found: Sequence[str],
    reader: MaskReader,
) -> ConceptData:
    """A concept set from a CSV; an image is annotated for the categories of its rows."""
    if not found:
        refuse(str(table), "names no image: expected one in each row. Fill the column 'image'")
    categories = tuple(dict.fromkeys(category for _, category in keys))
    place = {image: number for number, image in enumerate(found)}
    annotated = np.zeros((len(found), len(categories)), dtype=bool)
    for row, (_, category) in zip(rows, keys, strict=True):
        if row["image"]:
            annotated[place[row["image"]], categories.index(category)] = True
    return ConceptData(
        images=image_files(name, folder or table.parent, found),
        concepts=concepts,
        reader=reader,
        content=digest_of([table], concepts),
        side=DEFAULT_SIDE,
        categories=categories,
        annotated=annotated,
    )
