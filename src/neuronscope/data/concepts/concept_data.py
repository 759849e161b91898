"""Images with the concepts that are in them: what formulas of human concepts are searched over.

A `ConceptData` is an ordinary `Data` (so that any sweep runs over its images) plus, for each row, the concept masks,
plus the table of concepts. Masks are read when asked for, one image at a time; nothing is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from neuronscope.data.concepts.framing import WHOLE, Framing, Side, framing_of
from neuronscope.data.concepts.masks import ConceptMasks, Joined, MaskReader, Renumbered, RowsOf
from neuronscope.data.dataset import Data
from neuronscope.errors import DataError, InputError, UnknownName, nearest
from neuronscope.preprocessing import Preprocess

Level = Literal["pixel", "image"]
"""Whether a concept is annotated pixel by pixel, or as a label of whole images only."""


@dataclass(frozen=True)
class Concept:
    """One row of the concept table.

    Attributes:
        number: global number, from 1; what the label maps hold.
        name: for people: without technical endings, with blanks.
        category: the primary category, such as `object`.
        level: `pixel` when there is any pixel-level annotation of it, otherwise `image`.
        categories: every category that it is in, with the number of images there; in the order of the source.
        frequency: number of images that have it, as the source says (before any selection of images); None where
            nobody has counted.
        raw: the name as the source writes it.
    """

    number: int
    name: str
    category: str
    level: Level
    categories: tuple[tuple[str, int], ...] = ()
    frequency: int | None = None
    raw: str = ""


@dataclass(frozen=True)
class ConceptData:
    """A finite, indexable set of images with concept masks.

    Attributes:
        images: the images.
        concepts: the concept table, by ascending number; numbers need not be dense.
        reader: finds the annotations of a row.
        content: a digest that changes when an annotation changes.
        side: height and width of all masks, in pixels.
        framing: which part of an image the masks cover.
        categories: the categories that were asked for.
        annotated: whether an image was annotated for a category at all (whatever was found): where it was not, the
            absence of a concept says nothing. Images without annotation are left out of category-conditioned scores.
        splits: part of the set that each image belongs to, such as `train`; empty where there are none.
    """

    images: Data
    concepts: tuple[Concept, ...]
    reader: MaskReader
    content: str
    side: Side
    categories: tuple[str, ...]
    annotated: Bool[np.ndarray, "n g"]
    framing: Framing = WHOLE
    splits: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse parts that do not fit each other.

        Raises:
            DataError: concept numbers that are not ascending from 1 on, a concept of an unknown category, or parts of
                different lengths.
        """
        numbers = [concept.number for concept in self.concepts]
        if numbers != sorted(set(numbers)) or (numbers and numbers[0] < 1):
            message = (
                f"the concepts of {self.name} have the numbers {numbers[:5]}...: expected each once, ascending, from 1"
            )
            raise DataError(message)
        strange = [concept for concept in self.concepts if concept.category not in self.categories]
        if strange:
            message = (
                f"concept '{strange[0].name}' of {self.name} is of the category '{strange[0].category}', which is none "
                f"of its categories ({', '.join(self.categories)}). Correct the table"
            )
            raise DataError(message)
        if self.annotated.shape != (len(self), len(self.categories)) or len(self.splits) not in (0, len(self)):
            message = f"{self.name} has {len(self)} images, but parts of other lengths: give one row for each image"
            raise DataError(message)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    @property
    def name(self) -> str:
        """How it was asked for, as in `broden:broden1_224`."""
        return self.images.name

    @cached_property
    def fingerprint(self) -> str:
        """A SHA-256 that changes with any image, mask, name, category, number, side or framing."""
        digest = hashlib.sha256(self.content.encode())
        table = [(c.number, c.name, c.category, c.level, c.categories) for c in self.concepts]
        digest.update(repr((self.images.fingerprint, table, self.side, self.framing, self.categories)).encode())
        digest.update(repr(self.splits).encode())
        digest.update(np.packbits(self.annotated).tobytes())
        return digest.hexdigest()

    def masks(self, row: int) -> ConceptMasks:
        """The concepts of one image, framed and resized to `side`.

        Raises:
            InputError: there is no such row.
            DataError: an annotation cannot be read, or holds a number that is not in the concept table.
        """
        self._expect(np.array([row]))
        fitted = [self.framing.fit(source.read(), side=self.side) for source in self.reader.sources(row)]
        maps = np.concatenate(fitted) if fitted else np.zeros((0, *self.side), dtype=np.int32)
        return ConceptMasks(maps=maps.astype(np.int32, copy=False), whole=np.unique(self.reader.whole(row)))

    def concept(self, number: int) -> Concept:
        """The concept with a number.

        Raises:
            UnknownName: there is none.
        """
        found = self._table.get(number)
        if found is None:
            least, most = min(self._table, default=0), max(self._table, default=0)
            message = (
                f"{self.name} has no concept {number}: expected one of its {len(self.concepts)}, {least} to {most}"
            )
            raise UnknownName(message)
        return found

    def find(self, name: str, *, category: str | None = None) -> Concept:
        """The concept with a name, as written for people or in the source.

        Args:
            name: the name.
            category: its primary category, where the name alone would not do.

        Raises:
            UnknownName: there is none, or more than one.
        """
        found = [c for c in self.concepts if name in (c.name, c.raw) and category in (None, c.category)]
        if len(found) == 1:
            return found[0]
        if found:
            where = ", ".join(f"{c.category} ({c.number})" for c in found)
            message = f"'{name}' is {len(found)} concepts of {self.name}: {where}. Give the category, too"
        else:
            names = [c.name for c in self.concepts]
            message = f"'{name}' is no concept of {self.name} ({len(names)} concepts).{nearest(name, names)}"
        raise UnknownName(message)

    def seen_by(self, prepare: Preprocess) -> ConceptData:
        """The same set with masks that cover exactly what a network with this preprocessing sees.

        A centre crop cuts the borders off the masks, too. To keep the whole image give the network `squashed(prepare)`
        instead, as the originals did.
        """
        return replace(self, framing=framing_of(prepare))

    def at(self, side: int | Side) -> ConceptData:
        """The same set with masks of another size.

        Raises:
            InputError: a side below 1.
        """
        pair = (side, side) if isinstance(side, int) else side
        if min(pair) < 1:
            message = f"side is {side}: give the masks' height and width, at least 1 pixel each"
            raise InputError(message)
        return replace(self, side=pair)

    def take(self, rows: Sequence[int] | Int[np.ndarray, "m"], *, name: str | None = None) -> ConceptData:
        """Some of the rows, in the given order, renumbered from 0; the concept table stays.

        Raises:
            InputError: a row is not in the set.
        """
        chosen = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            images=self.images.take(chosen, name=name),
            reader=RowsOf(self.reader, chosen),
            content=hashlib.sha256(self.content.encode() + chosen.tobytes()).hexdigest(),
            annotated=self.annotated[chosen],
            splits=tuple(self.splits[row] for row in chosen) if self.splits else (),
        )

    def of_split(self, split: str) -> ConceptData:
        """The images of one split, such as `train`.

        Raises:
            UnknownName: no image is of that split.
        """
        rows = [row for row, one in enumerate(self.splits) if one == split]
        if not rows:
            known = sorted(set(self.splits))
            message = f"{self.name} has no split '{split}': it has {', '.join(known) or 'none'}.{nearest(split, known)}"
            raise UnknownName(message)
        return self.take(rows, name=f"{self.name}[{split}]")

    def of_categories(self, categories: Sequence[str]) -> ConceptData:
        """Only the concepts whose primary category is asked for, and only the images annotated for any of these.

        Raises:
            UnknownName: there is no such category; or no image is annotated for any.
        """
        expect_categories(categories, self.categories, name=self.name)
        kept = tuple(category for category in self.categories if category in categories)
        concepts = tuple(concept for concept in self.concepts if concept.category in kept)
        lookup = np.zeros(max((c.number for c in self.concepts), default=0) + 1, dtype=np.int32)
        for concept in concepts:
            lookup[concept.number] = concept.number
        annotated = self.annotated[:, [self.categories.index(category) for category in kept]]
        chosen = replace(
            self, concepts=concepts, categories=kept, annotated=annotated, reader=Renumbered(self.reader, lookup)
        )
        rows = np.flatnonzero(annotated.any(axis=1))
        return chosen if len(rows) == len(self) else chosen.take(rows, name=f"{self.name}[{','.join(kept)}]")

    @cached_property
    def _table(self) -> dict[int, Concept]:
        """The concepts by number."""
        return {concept.number: concept for concept in self.concepts}

    def _expect(self, rows: Int[np.ndarray, "m"]) -> None:
        """Refuse rows that are not there."""
        absent = rows[(rows < 0) | (rows >= len(self))]
        if absent.size:
            message = f"row {absent[0]} is not in {self.name}, which has {len(self)} images (rows 0 to {len(self) - 1})"
            raise InputError(message)


def expect_categories(wanted: Sequence[str], known: Sequence[str], *, name: str) -> None:
    """Refuse categories that a set does not have.

    Raises:
        UnknownName: there is no such category, or none is wanted.
    """
    absent = [category for category in wanted if category not in known]
    if absent or not wanted:
        what = f"no category '{absent[0]}'" if absent else "nothing left without a category"
        offer = nearest(absent[0], known) if absent else ""
        message = f"{name} has {what}: expected some of {', '.join(known)}.{offer}"
        raise UnknownName(message)


def combine(sets: Sequence[ConceptData], *, name: str | None = None) -> ConceptData:
    """Several sets as one: images one after another, concepts with the same name and category merged.

    Concept numbers are given anew, from 1, in order of first appearance. Masks get the side and framing of the first
    set. An image of one set is not annotated for the categories that only another set has (`ConceptData.annotated`).

    Args:
        sets: at least one.
        name: of the whole; the parts' names joined by `+` when left out.

    Raises:
        InputError: there is no set.

    Example:
        >>> from neuronscope.data.concepts import load_concepts
        >>> digits = load_concepts("digits", limit=3)
        >>> both = combine([digits, digits])
        >>> len(both), len(both.concepts) == len(digits.concepts)
        (6, True)
    """
    if not sets:
        message = "nothing to combine: give at least one concept set"
        raise InputError(message)
    if len(sets) == 1:
        return sets[0]
    merged: dict[tuple[str, str], Concept] = {}
    readers: list[MaskReader] = []
    for one in sets:
        lookup = np.zeros(max((c.number for c in one.concepts), default=0) + 1, dtype=np.int32)
        for concept in one.concepts:
            key = (concept.name, concept.category)
            known = merged.get(key)
            number = known.number if known else len(merged) + 1
            merged[key] = _joined(known, concept) if known else replace(concept, number=number)
            lookup[concept.number] = number
        readers.append(Renumbered(one.reader, lookup))
    categories = tuple(dict.fromkeys(category for one in sets for category in one.categories))
    starts = np.cumsum([0, *(len(one) for one in sets)])
    annotated = np.zeros((int(starts[-1]), len(categories)), dtype=bool)
    for start, one in zip(starts, sets, strict=False):
        columns = [categories.index(category) for category in one.categories]
        annotated[start : start + len(one), columns] = one.annotated
    has_splits = any(one.splits for one in sets)
    return ConceptData(
        images=_images(sets, name or "+".join(one.name for one in sets)),
        concepts=tuple(merged.values()),
        reader=Joined(tuple(readers), starts[:-1]),
        content=hashlib.sha256("".join(one.content for one in sets).encode()).hexdigest(),
        side=sets[0].side,
        categories=categories,
        annotated=annotated,
        framing=sets[0].framing,
        splits=tuple(s for one in sets for s in (one.splits or ("",) * len(one))) if has_splits else (),
    )


def _joined(first: Concept, second: Concept) -> Concept:
    """Two rows of concept tables that mean the same."""
    counts = dict(first.categories)
    for category, images in second.categories:
        counts[category] = counts.get(category, 0) + images
    counted = None not in (first.frequency, second.frequency)
    return replace(
        first,
        level="pixel" if "pixel" in (first.level, second.level) else "image",
        categories=tuple(counts.items()),
        frequency=(first.frequency or 0) + (second.frequency or 0) if counted else None,
    )


@dataclass(frozen=True)
class _Reads:
    """The images of several data sets, one after another."""

    parts: tuple[Data, ...]
    starts: Int[np.ndarray, "parts"]

    def __call__(self, row: int) -> UInt8[Tensor, "c h w"]:
        """Raw pixels of one row."""
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.parts[part].read(row - int(self.starts[part]))


def _images(sets: Sequence[ConceptData], name: str) -> Data:
    """The images of all sets as one data set, without class labels: classes of different sets cannot be compared."""
    starts = np.cumsum([0, *(len(one) for one in sets)])
    ids = [(one.images.ids or tuple(map(str, range(len(one))))) for one in sets]
    flat = [image for part in ids for image in part]
    if len(set(flat)) < len(flat):  # two sets with images of the same name
        flat = [f"{number}/{image}" for number, part in enumerate(ids) for image in part]
    return Data(
        name=name,
        read=_Reads(tuple(one.images for one in sets), starts[:-1]),
        labels=np.full(int(starts[-1]), -1, dtype=np.int64),
        classes=(),
        fingerprint=hashlib.sha256("".join(one.images.fingerprint for one in sets).encode()).hexdigest(),
        ids=tuple(flat),
        on_error="skip" if any(one.images.on_error == "skip" for one in sets) else "raise",
    )
