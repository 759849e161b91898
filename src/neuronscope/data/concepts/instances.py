"""Outlined objects: COCO's instance JSON and YOLO's polygon texts.

Objects of a class in an image are joined to one mask. Objects of different classes may overlap; each pixel then has
both labels. An image without any object counts as annotated: nothing is in it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from neuronscope.data import formats
from neuronscope.data.concepts.annotations import Report, digest_of, image_files, refuse
from neuronscope.data.concepts.concept_data import Concept, ConceptData
from neuronscope.data.concepts.labelmaps import DEFAULT_SIDE
from neuronscope.data.concepts.masks import MaskSource
from neuronscope.data.concepts.regions import CORNERS, Box, Polygon, Region, Regions, RunLengths

Crowd = Literal["include", "skip"]
"""Whether COCO's crowd regions (many objects outlined at once) count. Left out, their pixels would count as free of the
class."""

YOLO_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "names.txt", "classes.txt", "obj.names")
"""Where the class names of a YOLO folder are looked for."""

YOLO_BOX = 4
"""Numbers after the class that mean a box (centre x, centre y, width, height) and not a polygon."""


@dataclass(frozen=True)
class Outlines:
    """The outlined regions of images.

    Attributes:
        images: the regions of each image.
    """

    images: tuple[Regions, ...]

    def sources(self, row: int) -> Sequence[MaskSource]:
        """The regions of an image, all in one."""
        return [self.images[row]] if self.images[row].regions else []

    def whole(self, row: int) -> Int[np.ndarray, "m"]:  # noqa: ARG002 the protocol's
        """No label of the image as a whole."""
        return np.zeros(0, dtype=np.int64)


def load_coco(
    images: Path,
    instances: Path,
    *,
    name: str = "coco",
    category: str = "object",
    crowd: Crowd = "include",
    report: Report = refuse,
) -> ConceptData:
    """COCO's instance annotations: polygons and run lengths.

    The JSON is read as a whole: about seven times its size in memory for a moment.

    Args:
        images: folder that the file names in the JSON are relative to.
        instances: the JSON with `images`, `annotations` and `categories`.
        name: of the set.
        category: of all concepts; empty: COCO's `supercategory`.
        crowd: see `Crowd`.
        report: is told what is wrong; what is faulty is left out.

    Raises:
        DataError: the file is no such JSON, or `report` raises.
    """
    content = _json(instances)
    names = {int(one["id"]): one for one in content["categories"]}
    # COCO's own numbers would do, were it not that some tools count from 0.
    numbers = {identity: place for place, identity in enumerate(sorted(names), start=1)}
    regions: dict[int, list[tuple[int, Region]]] = {int(one["id"]): [] for one in content["images"]}
    for one in content["annotations"]:
        image, of = one.get("image_id"), one.get("category_id")
        if image not in regions or of not in numbers:
            what = f"image {image}" if image not in regions else f"category {of}"
            report(
                str(instances),
                f"annotation {one.get('id')} is of the {what}, which the file does not have: expected one from its "
                "list. Correct it",
            )
        elif not (one.get("iscrowd") and crowd == "skip"):
            regions[image] += [(numbers[of], region) for region in _coco_regions(one, instances, report)]
    rows = sorted(content["images"], key=lambda one: str(one["file_name"]))
    return _outlined(
        name,
        images,
        [str(one["file_name"]) for one in rows],
        [
            Regions(
                file=str(instances),
                image=images / str(one["file_name"]),
                regions=tuple(regions[int(one["id"])]),
                size=(int(one["height"]), int(one["width"])) if one.get("height") and one.get("width") else None,
            )
            for one in rows
        ],
        {
            number: (str(names[identity]["name"]), category or str(names[identity].get("supercategory") or "object"))
            for identity, number in numbers.items()
        },
        content=digest_of([instances], crowd),
    )


def load_yolo(
    folder: Path,
    *,
    names: Path | None = None,
    name: str = "yolo",
    category: str = "object",
    report: Report = refuse,
) -> ConceptData:
    """A YOLO folder: `images/**/1.jpg` and `labels/**/1.txt` with a polygon (or a box) in each line.

    A line is `class x1 y1 x2 y2 x3 y3 ...`, or `class x y width height` for a box, all from 0 to 1 of the image's width
    and height. An image without a text holds no object.

    Args:
        folder: with `images` and `labels`.
        names: YAML with `names:`, or a text with a name in each line; when left out it is looked for in the folder
            (`YOLO_NAMES`, any `*.yaml`); without it classes are called `class 7`.
        name: of the set.
        category: of all concepts.
        report: is told what is wrong; faulty lines are left out.

    Raises:
        DataError: there is no image, or `report` raises.
    """
    called = _class_names(folder, names, report)
    rows = formats.image_names(folder / "images") if (folder / "images").is_dir() else []
    if not rows:
        refuse(
            str(folder / "images"), "holds no images: expected a YOLO folder with 'images' and 'labels'. Check the path"
        )
    texts = [folder / "labels" / Path(image).with_suffix(".txt") for image in rows]
    lines = [list(_yolo_lines(text, report)) for text in texts]
    used = {number for of_image in lines for number, _ in of_image}
    if called:
        for text, of_image in zip(texts, lines, strict=True):
            for number in sorted({number for number, _ in of_image} - set(called)):
                report(
                    str(text),
                    f"holds the class {number}, but there are names for {len(called)} classes, numbered from "
                    f"{min(called)}: expected one of these. Add the name or correct the text",
                )
        lines = [[(number, region) for number, region in of_image if number in called] for of_image in lines]
    table = {number + 1: (called[number], category) for number in sorted(called)} or {
        number + 1: (f"class {number}", category) for number in sorted(used)
    }
    return _outlined(
        name,
        folder / "images",
        rows,
        [
            Regions(
                file=str(text),
                image=folder / "images" / image,
                regions=tuple((number + 1, region) for number, region in of_image),
                units="relative",
            )
            for image, text, of_image in zip(rows, texts, lines, strict=True)
        ],
        table,
        content=digest_of(texts),
    )


def names_in_yaml(text: str) -> dict[int, str]:
    r"""The class names in a YOLO YAML: a list or a mapping, in one line or in many; empty when there are none.

    Reads this one entry, not YAML in general.

    Example:
        >>> names_in_yaml("nc: 2\nnames: ['a cat', dog]  # two")
        {0: 'a cat', 1: 'dog'}
        >>> names_in_yaml("names:\n  0: cat\n  7: dog\ntrain: x")
        {0: 'cat', 7: 'dog'}
    """
    lines = [_without_comment(line) for line in text.splitlines()]
    start = next((place for place, line in enumerate(lines) if line.startswith("names:")), None)
    if start is None:
        return {}
    rest = lines[start].removeprefix("names:").strip()
    if rest[:1] in ("[", "{"):
        inside = " ".join([rest, *lines[start + 1 :]])
        items = inside[1:].partition("]" if rest[0] == "[" else "}")[0].split(",")
    else:
        items = []
        for line in lines[start + 1 :]:
            if line.strip() and not line.startswith((" ", "\t", "-")):
                break
            items.append(line)
    found: dict[int, str] = {}
    for item in (item.strip() for item in items):
        key, colon, value = item.partition(":")
        if colon and key.strip().isdecimal():
            found[int(key)] = value.strip().strip("'\"")
        elif item:
            found[len(found)] = item.removeprefix("- ").strip().strip("'\"")
    return found


def _without_comment(line: str) -> str:
    """A line of YAML without what follows ` #`."""
    return "" if line.lstrip().startswith("#") else line.partition(" #")[0].rstrip()


def _outlined(
    name: str,
    folder: Path,
    rows: Sequence[str],
    regions: Sequence[Regions],
    table: Mapping[int, tuple[str, str]],
    *,
    content: str,
) -> ConceptData:
    """A concept set of outlined objects; `table` is concept number -> (name, category)."""
    images = Counter(number for one in regions for number in {number for number, _ in one.regions})
    concepts = tuple(
        Concept(
            number=number,
            name=raw.replace("_", " "),
            category=category,
            level="pixel",
            categories=((category, images[number]),),
            frequency=images[number],
            raw=raw,
        )
        for number, (raw, category) in sorted(table.items())
    )
    categories = tuple(dict.fromkeys(concept.category for concept in concepts))
    return ConceptData(
        images=image_files(name, folder, rows),
        concepts=concepts,
        reader=Outlines(tuple(regions)),
        content=content,
        side=DEFAULT_SIDE,
        categories=categories,
        annotated=np.ones((len(rows), len(categories)), dtype=bool),
    )


def _json(path: Path) -> dict[str, list[dict[str, Any]]]:
    """A COCO file with its three lists, checked for what is needed of them."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        refuse(str(path), "is not there: expected COCO's instance JSON. Check the path")
    except (OSError, ValueError, RecursionError) as cause:
        refuse(str(path), f"cannot be read: expected COCO's instance JSON, got {cause}. Fetch it again")
    needed = {"images": ("id", "file_name"), "annotations": (), "categories": ("id", "name")}
    for part, keys in needed.items():
        entries = content.get(part) if isinstance(content, dict) else None
        fit = isinstance(entries, list) and all(
            isinstance(one, dict) and all(key in one for key in keys) and isinstance(one.get("id", 0), int)
            for one in entries
        )
        if not fit:
            refuse(
                str(path),
                f"has no list '{part}' with {', '.join(keys) or 'objects'} in each: expected COCO's instance "
                "JSON. Fetch it again",
            )
    found: dict[str, list[dict[str, Any]]] = content
    return found


def _coco_regions(one: dict[str, Any], file: Path, report: Report) -> Iterator[Region]:
    """The regions of one annotation; what is no outline is reported."""
    outline = one.get("segmentation")
    try:
        if isinstance(outline, dict):
            counts = outline["counts"]
            height, width = outline["size"]
            yield RunLengths(counts if isinstance(counts, str) else tuple(int(n) for n in counts), (height, width))
            return
        if not isinstance(outline, list) or not outline:
            report(
                str(file), f"annotation {one.get('id')} has no outline: expected polygons or run lengths. Leave it out"
            )
            return
        for polygon in outline:
            corners = np.array(polygon, dtype=np.float32).reshape(-1, 2)
            if len(corners) < CORNERS or not np.isfinite(corners).all():
                report(
                    str(file),
                    f"annotation {one.get('id')} has a polygon of {len(corners)} corners: expected at least "
                    f"{CORNERS}, all finite. Leave it out",
                )
                continue
            yield Polygon(corners)
    except (KeyError, TypeError, ValueError) as cause:
        report(
            str(file),
            f"annotation {one.get('id')} has an outline that cannot be read ({cause}): expected polygons or "
            "run lengths. Correct it",
        )


def _yolo_lines(path: Path, report: Report) -> Iterator[tuple[int, Region]]:
    """Class and region of each line; none when there is no file."""
    if not path.is_file():
        return
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        report(str(path), f"cannot be read: expected lines of numbers, got {cause}. Write it anew")
        return
    for place, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            first, *rest = line.split()
            number, values = int(first), np.array([float(value) for value in rest], dtype=np.float32)
        except ValueError:
            number, values = -1, np.zeros(0, dtype=np.float32)
        # Outlines may stick out by rounding; what is far outside is written in pixels.
        fit = number >= 0 and np.isfinite(values).all() and (np.abs(values) <= 2).all()  # noqa: PLR2004
        if fit and len(values) == YOLO_BOX:
            x, y, width, height = values.tolist()
            yield number, Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        elif fit and len(values) >= 2 * CORNERS and len(values) % 2 == 0:
            yield number, Polygon(values.reshape(-1, 2))
        else:
            report(
                str(path),
                f"line {place} is '{line[:40]}': expected a class number and x y pairs from 0 to 1, at least "
                f"{CORNERS}. Correct it",
            )


def _class_names(folder: Path, names: Path | None, report: Report) -> dict[int, str]:
    """The class names of a YOLO folder; empty when there are none."""
    places = [names] if names else [folder / name for name in YOLO_NAMES] + sorted(folder.glob("*.yaml"))
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        if names:
            report(str(names), "is not there: expected the class names. Check the path")
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix in (".yaml", ".yml"):
        return names_in_yaml(text)
    return dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))
