"""The concepts in one image: label maps that may overlap, and labels of the image as a whole.

Numbers are global: the same concept has the same number in every image and layer of a set, and 0 means none. A pixel
may carry several labels (an object, its part, a colour); each further one needs another layer. How the layers are
filled is without meaning: only the set of labels at a pixel counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int


@dataclass(frozen=True)
class ConceptMasks:
    """The concepts in one image.

    Attributes:
        maps: concept number of each pixel, 0 for none; one layer for each label that a pixel can have.
        whole: concepts of the whole image: they cover every pixel.
    """

    maps: Int[np.ndarray, "layers h w"]
    whole: Int[np.ndarray, "m"]

    def numbers(self) -> Int[np.ndarray, "k"]:
        """The concepts that occur, ascending."""
        found = np.union1d(np.unique(self.maps), self.whole)
        return found[found > 0]

    def mask(self, number: int) -> Bool[np.ndarray, "h w"]:
        """The pixels of one concept: every layer, and all pixels where it is a label of the whole image."""
        covered: Bool[np.ndarray, "h w"] = (self.maps == number).any(axis=0)
        return covered | bool((self.whole == number).any())

    def stack(self) -> Int[np.ndarray, "deep h w"]:
        """All labels as layers: the maps, and one full layer for each label of the whole image."""
        full = np.broadcast_to(
            self.whole.astype(self.maps.dtype)[:, None, None], (len(self.whole), *self.maps.shape[1:])
        )
        return np.concatenate([self.maps, full])

    def tuples(self) -> tuple[Int[np.ndarray, "s deep"], Int[np.ndarray, "s"]]:
        """The distinct sets of labels that pixels have, and how many pixels have each.

        A set is a row of concept numbers, ascending, after as many zeros as are needed. The rows are in order.

        Example:
            >>> maps = np.array([[[1, 1, 0]], [[2, 2, 2]]])
            >>> sets, pixels = ConceptMasks(maps, whole=np.array([2])).tuples()
            >>> sets.tolist(), pixels.tolist()
            ([[0, 0, 2], [0, 1, 2]], [1, 2])
        """
        stack = self.stack()
        layers = np.sort(stack.reshape(len(stack), stack.shape[1] * stack.shape[2]), axis=0)
        layers[1:][layers[1:] == layers[:-1]] = 0  # a label counts once, in however many layers it is
        layers = np.sort(layers, axis=0)
        names, local = np.unique(layers, return_inverse=True)
        local = local.reshape(layers.shape)
        code = np.zeros(layers.shape[1], dtype=np.int64)
        many = 1
        for layer in local:
            # Codes are made dense before they could overflow: there are never more of them than pixels.
            if many * len(names) > np.iinfo(np.int64).max // max(len(names), 1):
                dense, code = np.unique(code, return_inverse=True)
                many = len(dense)
            code = code * len(names) + layer
            many *= len(names)
        _, first, pixels = np.unique(code, return_index=True, return_counts=True)
        return layers[:, first].T, pixels


@runtime_checkable
class MaskSource(Protocol):
    """One annotation of an image, such as a label-map file."""

    @property
    def file(self) -> str:
        """Where it comes from, for messages."""
        ...

    def read(self) -> Int[np.ndarray, "layers y x"]:
        """Label maps over the whole image, of any size, with global concept numbers.

        Raises:
            DataError: the file is not there, or not what it should be.
        """
        ...


@runtime_checkable
class MaskReader(Protocol):
    """Finds the annotations of an image; lazy, and picklable, so that worker processes can have it."""

    def sources(self, row: int) -> Sequence[MaskSource]:
        """The pixel-level annotations of an image, not yet read."""
        ...

    def whole(self, row: int) -> Int[np.ndarray, "m"]:
        """The labels of the image as a whole."""
        ...


def pack(
    regions: Iterable[tuple[int, Bool[np.ndarray, "y x"]]], *, size: tuple[int, int]
) -> Int[np.ndarray, "layers y x"]:
    """Concept masks that may overlap, put into few layers: each into the first in which its pixels are free.

    Regions of the same concept are joined first.

    Args:
        regions: concept number and mask, in any order.
        size: height and width of the masks.

    Example:
        >>> whole = np.ones((1, 3), dtype=bool)
        >>> pack([(4, whole), (7, whole), (4, whole)], size=(1, 3)).tolist()
        [[[4, 4, 4]], [[7, 7, 7]]]
    """
    joined: dict[int, Bool[np.ndarray, "y x"]] = {}
    for number, mask in regions:
        joined[number] = joined[number] | mask if number in joined else mask
    layers: list[Int[np.ndarray, "y x"]] = []
    for number, mask in joined.items():
        free = next((layer for layer in layers if not layer[mask].any()), None)
        if free is None:
            free = np.zeros(size, dtype=np.int32)
            layers.append(free)
        free[mask] = number
    return np.stack(layers) if layers else np.zeros((0, *size), dtype=np.int32)


@dataclass(frozen=True)
class RowsOf:
    """Some rows of another reader, renumbered from 0."""

    reader: MaskReader
    chosen: Int[np.ndarray, "n"]

    def sources(self, row: int) -> Sequence[MaskSource]:
        """The annotations of one of the chosen rows."""
        return self.reader.sources(int(self.chosen[row]))

    def whole(self, row: int) -> Int[np.ndarray, "m"]:
        """The whole-image labels of one of the chosen rows."""
        return self.reader.whole(int(self.chosen[row]))


@dataclass(frozen=True)
class Renumbered:
    """Another reader with other concept numbers; concepts that are looked up as 0 are left out."""

    reader: MaskReader
    lookup: Int[np.ndarray, "numbers"]

    def sources(self, row: int) -> Sequence[MaskSource]:
        """The annotations of a row."""
        return [RenumberedSource(source, self.lookup) for source in self.reader.sources(row)]

    def whole(self, row: int) -> Int[np.ndarray, "m"]:
        """The whole-image labels of a row that have a number."""
        numbers = self.lookup[self.reader.whole(row)]
        kept: Int[np.ndarray, "m"] = numbers[numbers > 0]
        return kept


@dataclass(frozen=True)
class RenumberedSource:
    """An annotation with other concept numbers."""

    source: MaskSource
    lookup: Int[np.ndarray, "numbers"]

    @property
    def file(self) -> str:
        """Where it comes from."""
        return self.source.file

    def read(self) -> Int[np.ndarray, "layers y x"]:
        """The label maps, renumbered."""
        layers: Int[np.ndarray, "layers y x"] = self.lookup[self.source.read()]
        return layers


@dataclass(frozen=True)
class Joined:
    """The rows of several readers, one after another."""

    readers: tuple[MaskReader, ...]
    starts: Int[np.ndarray, "parts"]

    def sources(self, row: int) -> Sequence[MaskSource]:
        """The annotations of a row."""
        part = self._part(row)
        return self.readers[part].sources(row - int(self.starts[part]))

    def whole(self, row: int) -> Int[np.ndarray, "m"]:
        """The whole-image labels of a row."""
        part = self._part(row)
        return self.readers[part].whole(row - int(self.starts[part]))

    def _part(self, row: int) -> int:
        """Which reader has a row."""
        return int(np.searchsorted(self.starts, row, side="right")) - 1


@dataclass(frozen=True)
class WholeLabels:
    """Images that are only labelled as a whole.

    Attributes:
        numbers: the labels of each image.
    """

    numbers: tuple[tuple[int, ...], ...]

    def sources(self, row: int) -> Sequence[MaskSource]:  # noqa: ARG002 the protocol's
        """No pixel-level annotation."""
        return ()

    def whole(self, row: int) -> Int[np.ndarray, "m"]:
        """The labels of an image."""
        return np.array(self.numbers[row], dtype=np.int64)
