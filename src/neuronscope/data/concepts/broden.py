"""Broden, the broadly and densely labelled data set, and every set in its form (224, 227, 384; the ADE20K subset).

Source: Bau, Zhou, Khosla, Oliva & Torralba 2017, "Network Dissection", section 2.1; the folder as its builder writes
it. `index.csv` has a row for each image, whose cells name, by category, segmentation PNGs or labels of the whole image;
`label.csv` lists all labels, `c_CATEGORY.csv` those of a category with their coverage.

Rules: numbers in a PNG are global, red + 256 * green; 0 never counts; a concept is a number, and its masks are those of
all its categories and layers together; a label that is in any category with PNGs is a pixel-level concept, even where
some image has it as a whole.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int

from neuronscope.data.concepts.annotations import (
    Report,
    decimal,
    digest_of,
    expect_listed,
    image_files,
    read_labels_png,
    read_table,
    refuse,
    whole_number,
)
from neuronscope.data.concepts.concept_data import Concept, ConceptData, expect_categories
from neuronscope.data.concepts.masks import MaskSource
from neuronscope.errors import InputError

Ties = Literal["first", "last"]
"""Which of several categories with the same coverage is the primary one: `first` in the order of `category.csv`, as
indres has it, or `last`, as compexp has it. Unit lists by category depend on it."""

FIXED_COLUMNS = ("image", "split", "ih", "iw", "sh", "sw")
"""Columns of `index.csv` before those of the categories."""

_CATEGORY_COUNT = re.compile(r"^(?P<category>.+?)\((?P<images>\d+)\)$")


@dataclass(frozen=True)
class IndexRow:
    """One image of `index.csv`.

    Attributes:
        image: path relative to `images/`.
        split: `train` or `val`.
        side: height and width of its segmentation.
        maps: the segmentation PNGs, as (category, path relative to `images/`).
        whole: labels of the whole image, as (category, number), dominant first; with the 0 that says nothing.
    """

    image: str
    split: str
    side: tuple[int, int]
    maps: tuple[tuple[str, str], ...]
    whole: tuple[tuple[str, int], ...]


def read_index(path: Path, *, categories: Sequence[str] | None = None, report: Report = refuse) -> tuple[IndexRow, ...]:
    """The images of an `index.csv`, gzipped or not.

    Args:
        path: the file.
        categories: the columns to read; None for all that there are.
        report: is told what is wrong; faulty rows are left out.

    Example:
        >>> read_index(Path("nowhere.csv"), report=lambda file, what: None)
        ()
    """
    required = (*FIXED_COLUMNS, *(categories or ()))
    rows = read_table(path, required=required, report=report)
    columns = categories or [column for column in (rows[0] if rows else ()) if column not in FIXED_COLUMNS]
    found = []
    for line, row in enumerate(rows, start=2):
        side = (
            whole_number(row["sh"], file=str(path), what=f"sh in line {line}", report=report),
            whole_number(row["sw"], file=str(path), what=f"sw in line {line}", report=report),
        )
        if None in side or 0 in side or not row["image"]:
            if None not in side:
                report(str(path), f"line {line} names no image or no size: expected both. Correct it")
            continue
        items = [(category, item.strip()) for category in columns for item in row[category].split(";") if item.strip()]
        found.append(
            IndexRow(
                image=row["image"],
                split=row["split"],
                side=(side[0] or 0, side[1] or 0),
                maps=tuple((category, item) for category, item in items if not _is_number(item)),
                whole=tuple((category, int(item)) for category, item in items if _is_number(item)),
            )
        )
    return tuple(found)


def clean_name(raw: str) -> str:
    """A name for people: without the `-s` of scenes and the `-c` of colours, `_` as a blank.

    Example:
        >>> clean_name("art_gallery-s"), clean_name("red-c"), clean_name("t-shirt")
        ('art gallery', 'red', 't-shirt')
    """
    return (raw[:-2] if raw.endswith(("-s", "-c")) else raw).replace("_", " ")


def load_broden(
    folder: Path,
    *,
    name: str = "broden",
    categories: Sequence[str] | None = None,
    subset: str | None = None,
    ties: Ties = "first",
    report: Report = refuse,
) -> ConceptData:
    """A folder in the form of Broden.

    Args:
        folder: with `index.csv`, `category.csv`, `label.csv`, `c_CATEGORY.csv` and `images/`.
        name: of the set.
        categories: those to use; an image stays if any of their cells is filled. None for all of `category.csv`.
        subset: only the images of one source, such as `ade20k`: those of `index_SUBSET.csv`, where that is there,
            otherwise the rows whose image path contains it.
        ties: see `Ties`.
        report: is told what is wrong; what is faulty is left out.

    Raises:
        DataError: there is no image, or `report` raises.
        UnknownName: there is no such category.
    """
    table = read_table(folder / "category.csv", required=("name",), report=report)
    known = [row["name"] for row in table]
    if categories is not None:
        expect_categories(categories, known, name=name)
    chosen = [category for category in known if categories is None or category in categories]
    if not chosen:
        refuse(str(folder / "category.csv"), "names no category: expected color, object and the like. Complete it")
    index_path = folder / (f"index_{subset}.csv" if subset else "index.csv")
    by_path = subset is not None and not index_path.is_file()
    index_path = folder / "index.csv" if by_path else index_path
    rows = read_index(index_path, categories=chosen, report=report)
    within = subset if by_path and subset else ""
    rows = tuple(row for row in rows if (row.maps or row.whole) and within in row.image)
    if not rows:
        refuse(str(index_path), f"has no image annotated for {', '.join(chosen)}: expected some. Ask for others")
    concepts = read_concepts(folder, chosen, rows=rows, ties=ties, report=report)
    listed = np.array([concept.number for concept in concepts], dtype=np.int64)
    rows = tuple(_without_unknown(row, set(listed.tolist()), index_path, report) for row in rows)
    annotated = np.zeros((len(rows), len(chosen)), dtype=bool)
    for number, row in enumerate(rows):
        for category in {category for category, _ in row.maps} | {category for category, one in row.whole if one}:
            annotated[number, chosen.index(category)] = True
    files = [folder / "images" / file for row in rows for _, file in row.maps]
    return ConceptData(
        images=image_files(name, folder / "images", [row.image for row in rows]),
        concepts=concepts,
        reader=BrodenReader(folder / "images", rows, listed),
        content=digest_of(files, hashlib.sha256(repr(rows).encode()).hexdigest()),
        side=rows[0].side,
        categories=tuple(chosen),
        annotated=annotated,
        splits=tuple(row.split for row in rows),
    )


def read_concepts(
    folder: Path,
    categories: Sequence[str],
    *,
    rows: Sequence[IndexRow],
    ties: Ties = "first",
    report: Report = refuse,
) -> tuple[Concept, ...]:
    """The labels of `label.csv` that are in any of the categories, with their primary category among these.

    The primary category of a label is the one that covers most of it, by the `coverage` of `c_CATEGORY.csv`.

    Args:
        folder: with `label.csv` and the tables of the categories.
        categories: in the order of `category.csv`.
        rows: the index: which categories have PNGs says which labels are pixel-level.
        ties: see `Ties`.
        report: is told what is wrong.

    Raises:
        InputError: `ties` is neither of the two.
    """
    if ties not in ("first", "last"):
        message = f"ties is '{ties}': expected 'first' or 'last'"
        raise InputError(message)
    coverage: dict[int, list[tuple[str, float]]] = {}
    for category in categories:
        path = folder / f"c_{category}.csv"
        for row in read_table(path, required=("number", "name", "coverage"), report=report):
            number = whole_number(row["number"], file=str(path), what=f"number of '{row['name']}'", report=report)
            if number:
                coverage.setdefault(number, []).append((category, decimal(row["coverage"])))
    drawn = {category for row in rows for category, _ in row.maps}
    path = folder / "label.csv"
    found: dict[int, Concept] = {}
    for row in read_table(path, required=("number", "name", "category", "frequency"), report=report):
        number = whole_number(row["number"], file=str(path), what=f"number of '{row['name']}'", report=report)
        frequency = whole_number(
            row["frequency"], file=str(path), what=f"frequency of '{row['name']}'", report=report, default=0
        )
        counts = _counts(row["category"])
        inside = [category for category, _ in counts if category in categories]
        if not number or frequency is None or not (inside or number in coverage):
            continue
        shares = {**dict.fromkeys(inside, 0.0), **dict(coverage.get(number, ()))}
        places = sorted(shares, key=list(categories).index)
        if number in found:
            report(
                str(path),
                f"lists the number {number} twice, as '{found[number].raw}' and '{row['name']}': expected "
                "each once. Correct it",
            )
            continue
        best = [category for category in places if shares[category] == max(shares.values())]
        found[number] = Concept(
            number=number,
            name=clean_name(row["name"]),
            category=best[0] if ties == "first" else best[-1],
            level="pixel" if drawn.intersection(places) else "image",
            categories=counts,
            frequency=frequency,
            raw=row["name"],
        )
    for number in sorted(set(coverage) - set(found)):
        category = coverage[number][0][0]
        report(
            str(folder / f"c_{category}.csv"),
            f"lists the label {number}, which label.csv does not have: expected one "
            "of its numbers. Correct either table",
        )
    return tuple(found[number] for number in sorted(found))


@dataclass(frozen=True)
class BrodenReader:
    """The annotations of the images of a Broden index.

    Attributes:
        folder: what the PNG names are relative to.
        rows: the images.
        listed: the numbers of all concepts; others in a PNG are an error.
    """

    folder: Path
    rows: tuple[IndexRow, ...]
    listed: Int[np.ndarray, "k"]

    def sources(self, row: int) -> Sequence[MaskSource]:
        """The segmentation PNGs of an image."""
        one = self.rows[row]
        return [SegmentationPng(self.folder / file, one.side, self.listed) for _, file in one.maps]

    def whole(self, row: int) -> Int[np.ndarray, "m"]:
        """Its labels as a whole; 0 says nothing and is left out."""
        return np.array([number for _, number in self.rows[row].whole if number], dtype=np.int64)


@dataclass(frozen=True)
class SegmentationPng:
    """One layer of one category of one image."""

    path: Path
    side: tuple[int, int]
    listed: Int[np.ndarray, "k"]

    @property
    def file(self) -> str:
        """The PNG."""
        return str(self.path)

    def read(self) -> Int[np.ndarray, "1 y x"]:
        """Its labels, as one layer.

        Raises:
            DataError: it is not there, not RGB, not of the size that the index says, or holds unlisted labels.
        """
        labels = read_labels_png(self.path, encoding="r+256g")
        if labels.shape != self.side:
            came, expected = (" x ".join(map(str, size)) for size in (labels.shape, self.side))
            refuse(self.file, f"is {came} (height x width): expected {expected}, as the index says. Make it anew")
        expect_listed(labels, self.listed, file=self.file, table="label.csv")
        return labels[None]


def _is_number(item: str) -> bool:
    """Whether an item of an index cell is a label of the whole image, not a PNG."""
    return item.isascii() and item.isdigit()


def _counts(text: str) -> tuple[tuple[str, int], ...]:
    """The category cell of `label.csv`, such as `material(36);object(3)`."""
    matches = [_CATEGORY_COUNT.match(part.strip()) for part in text.split(";")]
    return tuple((match["category"], int(match["images"])) for match in matches if match)


def _without_unknown(row: IndexRow, listed: set[int], index: Path, report: Report) -> IndexRow:
    """A row without whole-image labels that the table does not have, each of which is reported."""
    strange = [number for _, number in row.whole if number and number not in listed]
    if not strange:
        return row
    report(
        str(index),
        f"gives '{row.image}' the label {strange[0]}, which label.csv does not list: expected one of its "
        f"{len(listed)} numbers. Add it to the table or correct the index",
    )
    kept = tuple((category, number) for category, number in row.whole if not number or number in listed)
    return IndexRow(image=row.image, split=row.split, side=row.side, maps=row.maps, whole=kept)
