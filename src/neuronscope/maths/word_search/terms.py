"""The labels that formulas are extended by, laid out so that all of them are combined with a formula at once.

A term is a label or its expanded copy. Terms stand in chunks small enough for the processor's cache; within a chunk
the words of one term follow those of the term before, so that a sum for each term is one pass (`Chunk.sums`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, Integer, UInt64

from neuronscope.errors import InputError
from neuronscope.maths.formulas import Expanded, Formula, Label
from neuronscope.maths.word_search.concept_words import ConceptWords

_CHUNK = 1 << 16
"""Words of a chunk, unless one term has more: half a megabyte for each intermediate result."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """The words of some terms.

    Attributes:
        terms: place of each term; every one has at least one word.
        begin: where each term's words begin.
        image: the image of each word.
        words: the words.
        near: the cells close to each word; empty if the search does not look at closeness.
    """

    terms: Int64[np.ndarray, "t"]
    begin: Int64[np.ndarray, "t"]
    image: Int32[np.ndarray, "e"]
    words: UInt64[np.ndarray, "e"]
    near: UInt64[np.ndarray, "near"]

    def sums(self, values: Integer[np.ndarray, "e"]) -> Int64[np.ndarray, "t"]:
        """For each term, the sum over its words."""
        found: np.ndarray = np.add.reduceat(values, self.begin, dtype=np.int64)
        return found

    def within(self, images: Bool[np.ndarray, "n"]) -> Chunk | None:
        """The words of some images; None if there are none."""
        kept = images[self.image]
        counts = self.sums(kept.view(np.uint8))
        if not counts.any():
            return None
        there = counts > 0
        begin = np.cumsum(counts[there]) - counts[there]
        near = self.near[kept] if len(self.near) else self.near
        return Chunk(self.terms[there], begin, self.image[kept], self.words[kept], near)


@dataclass(frozen=True, eq=False)
class Terms:
    """Labels and expanded copies that occur, by place.

    Attributes:
        numbers: label number of each.
        expanded: whether it is the expanded copy.
        whole: whether the label is one of whole images.
        chunks: their words.
    """

    numbers: Int64[np.ndarray, "t"]
    expanded: Bool[np.ndarray, "t"]
    whole: Bool[np.ndarray, "t"]
    chunks: tuple[Chunk, ...]

    def __len__(self) -> int:
        """Number of terms."""
        return len(self.numbers)

    def leaf(self, place: int) -> Label | Expanded:
        """The term as a formula."""
        number = int(self.numbers[place])
        return Expanded(number) if self.expanded[place] else Label(number)

    def within(self, images: Bool[np.ndarray, "n"]) -> tuple[Chunk, ...]:
        """The words of some images; terms keep their places."""
        return tuple(found for chunk in self.chunks if (found := chunk.within(images)) is not None)

    def chosen(self, places: Int[np.ndarray, "m"]) -> Terms:
        """Some terms, in the given order."""
        spans = {}
        for chunk in self.chunks:
            ends = [*chunk.begin[1:].tolist(), len(chunk.words)]
            for term, first, end in zip(chunk.terms.tolist(), chunk.begin.tolist(), ends, strict=True):
                spans[term] = chunk, slice(first, end)
        picked = [spans[int(place)] for place in places]
        image = np.concatenate([np.zeros(0, np.int32), *(chunk.image[span] for chunk, span in picked)])
        words = np.concatenate([np.zeros(0, np.uint64), *(chunk.words[span] for chunk, span in picked)])
        near = np.concatenate(
            [np.zeros(0, np.uint64), *(chunk.near[span] for chunk, span in picked if len(chunk.near))]
        )
        start = np.cumsum([0, *(span.stop - span.start for _, span in picked)])
        chunks = _chunks(np.arange(len(picked)), start, image, words, near)
        return Terms(self.numbers[places], self.expanded[places], self.whole[places], chunks)

    def places(self, leaves: Sequence[Formula]) -> Int64[np.ndarray, "m"]:
        """Where labels stand.

        Raises:
            InputError: one of them is no term.
        """
        known = {self.leaf(place): place for place in range(len(self))}
        for leaf in leaves:
            if leaf not in known:
                message = (
                    f"the candidate {leaf} does not occur: expected labels among those of the {len(self)} that the "
                    "images carry. Start from a search over the same concepts and expansions"
                )
                raise InputError(message)
        return np.array([known[leaf] for leaf in leaves if isinstance(leaf, Label | Expanded)], dtype=np.int64)


def terms_of(concepts: ConceptWords, *, expansions: bool, close: bool) -> Terms:
    """All labels that occur, then the expanded copies of those that are not of whole images.

    Args:
        concepts: the labels.
        expansions: whether to take the expanded copies.
        close: whether closeness will be looked at.
    """
    occurs = np.diff(concepts.start) > 0
    labels = np.flatnonzero(occurs)
    copies = np.flatnonzero(occurs & ~concepts.whole) if expansions and concepts.expansion else labels[:0]
    none = np.zeros(0, np.uint64)
    place = np.full(len(concepts), -1)
    place[labels] = np.arange(len(labels))
    chunks = _chunks(place, concepts.start, concepts.image, concepts.cells, concepts.near if close else none)
    if len(copies):
        place[:] = -1
        place[copies] = np.arange(len(labels), len(labels) + len(copies))
        near = concepts.near_grown if close else none
        chunks += _chunks(place, concepts.start, concepts.image, concepts.grown, near)
    both = np.concatenate([labels, copies])
    return Terms(concepts.numbers[both], np.arange(len(both)) >= len(labels), concepts.whole[both], chunks)


def _chunks(
    place: Int[np.ndarray, "k"],
    start: Int64[np.ndarray, "_"],
    image: Int32[np.ndarray, "e"],
    words: UInt64[np.ndarray, "e"],
    near: UInt64[np.ndarray, "near"],
) -> tuple[Chunk, ...]:
    """Cut a table of rows into chunks, without copying; rows whose place is -1, or that are empty, are left out."""
    taken = np.flatnonzero((place >= 0) & (np.diff(start) > 0))
    found = []
    at = 0
    while at < len(taken):
        first = int(start[taken[at]])
        end = at + 1
        while end < len(taken) and taken[end] == taken[end - 1] + 1 and start[taken[end] + 1] - first <= _CHUNK:
            end += 1
        rows = taken[at:end]
        span = slice(first, int(start[rows[-1] + 1]))
        begin = start[rows] - first
        found.append(Chunk(place[rows].astype(np.int64), begin, image[span], words[span], near[span]))
        at = end
    return tuple(found)
