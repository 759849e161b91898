"""Concepts and units on a 7 x 7 grid, a 64-bit word for each image: what the search over cells looks at.

Most concepts are in few images (on images labelled like ADE20K some 30 of 1,100 labels are), so only words that are
not 0 are kept, concept by concept. The neighbourhood and the expanded copy of a mask are empty exactly where the mask
is, so that they need no places of their own.

What an image set costs is announced by `expected_bytes`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, Int64, UInt64

from neuronscope.errors import InputError
from neuronscope.maths.cells import CELLS, EXPANSION, FULL, expanded, neighbourhood, to_words
from neuronscope.maths.formulas import And, AndNot, Close, CloseTo, Expanded, Formula, Label, Or, With

IMAGE_CELLS = CELLS * CELLS
"""Cells of an image."""


@dataclass(frozen=True, eq=False)
class ConceptWords:
    """The masks of all concepts.

    Attributes:
        numbers: label numbers, ascending.
        images: number of images.
        start: where each concept's words start in `cells`, and the total.
        image: the image of each word, ascending within a concept.
        cells: the words that are not 0.
        whole: concepts of whole images ("scenes"): in every image all cells or none.
        expansion: neighbours that turn a cell of an expanded copy on (`cells.expanded`), 1 to 8; 0 for no copies.
    """

    numbers: Int64[np.ndarray, "k"]
    images: int
    start: Int64[np.ndarray, "_"]
    image: Int32[np.ndarray, "e"]
    cells: UInt64[np.ndarray, "e"]
    whole: Bool[np.ndarray, "k"]
    expansion: int

    def __len__(self) -> int:
        """Number of concepts."""
        return len(self.numbers)

    @cached_property
    def near(self) -> UInt64[np.ndarray, "e"]:
        """The cells close to each word of `cells`."""
        return neighbourhood(self.cells)

    @cached_property
    def grown(self) -> UInt64[np.ndarray, "e"]:
        """The expanded copy of each word of `cells`; the words themselves without expansion."""
        return expanded(self.cells, least=self.expansion) if self.expansion else self.cells

    @cached_property
    def near_grown(self) -> UInt64[np.ndarray, "e"]:
        """The cells close to each word of `grown`."""
        return neighbourhood(self.grown) if self.expansion else self.near

    @property
    def words(self) -> UInt64[np.ndarray, "k n"]:
        """All masks, a row for each concept; made at each call, 8 bytes for each concept and image."""
        return self._dense(self.cells)

    @property
    def expanded(self) -> UInt64[np.ndarray, "k n"] | None:
        """All expanded masks, made at each call; None without expansion."""
        return self._dense(self.grown) if self.expansion else None

    @property
    def nbytes(self) -> int:
        """Bytes held, those derived on demand included."""
        derived = sum(getattr(self, name).nbytes for name in ("near", "grown", "near_grown") if name in self.__dict__)
        held = (self.numbers, self.start, self.image, self.cells, self.whole)
        return sum(array.nbytes for array in held) + int(derived)

    def row(self, number: int) -> UInt64[np.ndarray, "n"]:
        """The mask of a label, a word for each image; of a label that does not occur, words of 0."""
        found = np.zeros(self.images, dtype=np.uint64)
        place = int(np.searchsorted(self.numbers, number))
        if place < len(self.numbers) and self.numbers[place] == number:
            chosen = slice(int(self.start[place]), int(self.start[place + 1]))
            found[self.image[chosen]] = self.cells[chosen]
        return found

    def part(self, rows: Int[np.ndarray, "m"]) -> ConceptWords:
        """Some images, each at most once, in the given order; the concepts stay, also those that do not occur there.

        Example:
            >>> concepts = concept_words([(np.array([4]), np.array([7], np.uint64)), (np.array([9]), FULL[None])])
            >>> concepts.part(np.array([1])).words.tolist() == [[0], [int(FULL)]]
            True
        """
        place = np.full(self.images, -1, dtype=np.int32)
        place[rows] = np.arange(len(rows), dtype=np.int32)
        kept = place[self.image] >= 0
        concept = self._concept()[kept]
        image = place[self.image[kept]]
        order = np.lexsort((image, concept))
        start = _starts(np.bincount(concept, minlength=len(self)))
        return ConceptWords(
            self.numbers, len(rows), start, image[order], self.cells[kept][order], self.whole, self.expansion
        )

    def _concept(self) -> Int64[np.ndarray, "e"]:
        """Place of the concept of each word."""
        return np.repeat(np.arange(len(self)), np.diff(self.start))

    def _dense(self, values: UInt64[np.ndarray, "e"]) -> UInt64[np.ndarray, "k n"]:
        found = np.zeros((len(self), self.images), dtype=np.uint64)
        found[self._concept(), self.image] = values
        return found


def concept_words(
    images: Iterable[tuple[Int[np.ndarray, "_"], UInt64[np.ndarray, "_"]]], *, expansion: int = EXPANSION
) -> ConceptWords:
    """Put images together, in order.

    Args:
        images: labels and words of each image, as `cells.label_words` gives them.
        expansion: neighbours that turn a cell of an expanded copy on, 1 to 8; 0 for no copies.

    Raises:
        InputError: `expansion` is not 0 to 8.

    Example:
        >>> concepts = concept_words([(np.array([4, 9]), np.array([7, int(FULL)], np.uint64))])
        >>> concepts.numbers.tolist(), concepts.whole.tolist(), concepts.row(4).tolist()
        ([4, 9], [False, True], [7])
    """
    if not 0 <= expansion <= 8:  # noqa: PLR2004 neighbours
        message = f"expansion is {expansion}: expected 1 to 8 neighbours, or 0 for no expanded labels"
        raise InputError(message)
    labels, words = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
    for one, values in images:
        labels.append(one.astype(np.int64))
        words.append(values)
    image = np.repeat(np.arange(len(labels) - 1, dtype=np.int32), [len(one) for one in labels[1:]])
    label, cells = np.concatenate(labels), np.concatenate(words)
    kept = cells != 0
    image, label, cells = image[kept], label[kept], cells[kept]
    order = np.argsort(label, kind="stable")
    numbers, concept = np.unique(label[order], return_inverse=True)
    partial = np.bincount(concept, weights=cells[order] != FULL, minlength=len(numbers))
    start = _starts(np.bincount(concept, minlength=len(numbers)))
    return ConceptWords(numbers, len(labels) - 1, start, image[order], cells[order], partial == 0, expansion)


def expected_bytes(*, images: int, per_image: float = 32, expansion: int = EXPANSION) -> int:
    """Bytes that `concept_words` takes at its peak, or a search with closeness afterwards, whichever is more.

    Args:
        images: images.
        per_image: labels of an image; some 30 on images labelled like ADE20K with colours.
        expansion: 0 for no expanded copies.
    """
    words = int(images * per_image)
    building = words * (8 + 8 + 4) * 2 + words * 8  # labels, words and images, twice while they are sorted; the order
    searching = words * (4 + 8 + 8 + (16 if expansion else 0))
    return max(building, searching)


def words_of(formula: Formula, concepts: ConceptWords) -> UInt64[np.ndarray, "n"]:
    """The mask of any formula, a word for each image.

    Example:
        >>> concepts = concept_words([(np.array([1, 2]), np.array([7, 12], np.uint64))])
        >>> words_of(AndNot(Label(1), Label(2)), concepts).tolist()
        [3]
    """
    found: np.ndarray
    match formula:
        case Label(number):
            found = concepts.row(number)
        case Expanded(number):
            found = expanded(concepts.row(number), least=concepts.expansion or EXPANSION)
        case Or(left, right):
            found = words_of(left, concepts) | words_of(right, concepts)
        case And(left, right):
            found = words_of(left, concepts) & words_of(right, concepts)
        case AndNot(left, right):
            found = words_of(left, concepts) & ~words_of(right, concepts)
        case With(left, right):
            found = np.where(words_of(right, concepts) != 0, words_of(left, concepts), np.uint64(0))
        case Close(left, right):
            one, other = words_of(left, concepts), words_of(right, concepts)
            found = (one & neighbourhood(other)) | (other & neighbourhood(one))
        case CloseTo(left, rights):
            found = words_of(left, concepts)
            for right in rights:
                found = found & neighbourhood(words_of(right, concepts))
    return found


@dataclass(frozen=True, eq=False)
class UnitWords:
    """Where a unit is active.

    Attributes:
        words: its mask in every image.
        threshold: activations above it are active; nan where it is not known.
        activations: its maps, for thresholds that move with the formula; None for those that do not.
    """

    words: UInt64[np.ndarray, "n"]
    threshold: float = float("nan")
    activations: Float[np.ndarray, "n 7 7"] | None = None

    def part(self, rows: Int[np.ndarray, "m"]) -> UnitWords:
        """Some images, in the given order."""
        maps = None if self.activations is None else self.activations[rows]
        return replace(self, words=self.words[rows], activations=maps)


def unit_words(
    activations: Float[np.ndarray, "n 7 7"], *, above: float, below: float = float("inf"), keep: bool = False
) -> UnitWords:
    """A unit's words: cells with activations strictly between two bounds.

    Args:
        activations: the unit's 7 x 7 maps.
        above: threshold.
        below: cells at this value or over it are not active; for ranges of activations.
        keep: hold on to the maps, which dynamic thresholds need.

    Example:
        >>> unit_words(np.eye(7, dtype=np.float32)[None], above=0.5).words.tolist() == [sum(256**i for i in range(7))]
        True
    """
    active = (activations > above) & (activations < below)
    return UnitWords(to_words(active), above, activations if keep else None)


def firing_images(unit: UnitWords) -> Int64[np.ndarray, "m"]:
    """Images in which the unit is active."""
    return np.flatnonzero(unit.words)


def firing_only(concepts: ConceptWords, unit: UnitWords) -> tuple[ConceptWords, UnitWords]:
    """Concepts and unit in the images where the unit is active: the easy mode of Harth's annotation game.

    Search them without `least_coverage` and `abort_images`, as the original does.
    """
    rows = firing_images(unit)
    return concepts.part(rows), unit.part(rows)


def _starts(sizes: Int64[np.ndarray, "m"]) -> Int64[np.ndarray, "_"]:
    """Running total from 0."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
