"""A finite, numbered sequence of images, and the batches a sweep makes of it.

Every image has a row number. A batch carries its rows, so any number in a result can be traced to its images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt8, UInt64
from torch import Tensor

from neuronscope.errors import DataError, InputError
from neuronscope.preprocessing import Preprocess

OnError = Literal["raise", "skip"]
"""What becomes of an image that cannot be read."""


@dataclass(frozen=True)
class Batch:
    """Some images on their way through a network.

    Attributes:
        index: row numbers in the data set.
        image: preprocessed input.
        label: class numbers; -1 where unknown.
        parameters: for designed experiments, the parameter vector of each row.
    """

    index: Int[Tensor, "n"]
    image: Float[Tensor, "n c h w"]
    label: Int[Tensor, "n"]
    parameters: Float[Tensor, "n p"] | None = None


@dataclass(frozen=True)
class Data:
    """A finite, indexable set of images.

    Attributes:
        name: how it was asked for, as in `digits:report`, without the folders above it.
        read: row number -> raw pixels, (channels, height, width), 0 to 255. Must be safe to call from several threads,
            and raises `DataError` for an image that cannot be read.
        labels: class number of each row; -1 where unknown.
        classes: class names; empty when the data has no labels.
        fingerprint: changes whenever the images, their order or their labels change.
        ids: a name for each row, for example its file name relative to the folder.
        pixels: all raw images as one array when they are small and of one size: a fast way past `read`.
        on_error: what a sweep does with an image that cannot be read: stop, or leave it out and count it.
    """

    name: str
    read: Callable[[int], UInt8[Tensor, "c h w"]]
    labels: Int[np.ndarray, "n"]
    classes: tuple[str, ...]
    fingerprint: str
    ids: tuple[str, ...] = ()
    pixels: UInt8[Tensor, "n c h w"] | None = None
    on_error: OnError = "raise"

    def __post_init__(self) -> None:
        """Refuse labels that name no class, and parts of different lengths.

        Raises:
            DataError: a label lies outside the classes, or there are not as many names or pixels as labels.
        """
        for part, many in (("ids", self.ids), ("pixels", self.pixels)):
            if many is not None and len(many) not in (len(self.labels), 0 if part == "ids" else -1):
                message = f"{self.name} has {len(self.labels)} labels but {len(many)} {part}: give one for each image"
                raise DataError(message)
        outside = np.flatnonzero((self.labels < -1) | (self.labels >= len(self.classes)))
        if outside.size:
            row = int(outside[0])
            image = self.ids[row] if self.ids else str(row)
            message = (
                f"label {self.labels[row]} of image {image} is outside the {len(self.classes)} classes of {self.name} "
                f"(expected 0 to {len(self.classes) - 1}, or -1 for unknown; {outside.size} such labels). "
                "Correct the labels"
            )
            raise DataError(message)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def take(self, rows: Sequence[int] | Int[np.ndarray, "m"], *, name: str | None = None) -> Data:
        """Some of the rows, in the given order, renumbered from 0.

        Raises:
            InputError: a row is not in the data set.
        """
        chosen = np.asarray(rows, dtype=np.int64)
        absent = chosen[(chosen < 0) | (chosen >= len(self))]
        if absent.size:
            message = f"row {absent[0]} is not in {self.name}, which has {len(self)} images (rows 0 to {len(self) - 1})"
            raise InputError(message)
        digest = hashlib.sha256(self.fingerprint.encode() + chosen.tobytes()).hexdigest()
        pixels = self.pixels[chosen] if self.pixels is not None else None
        return replace(
            self,
            name=name or f"{self.name}[{len(chosen)}]",
            read=Pixels(pixels) if pixels is not None else Rows(self.read, chosen),
            labels=self.labels[chosen],
            fingerprint=digest,
            ids=tuple(self.ids[row] for row in chosen) if self.ids else (),
            pixels=pixels,
        )


@dataclass(frozen=True)
class Rows:
    """A reader of some rows of another reader (a class, not a closure, so that worker processes can have it)."""

    read: Callable[[int], UInt8[Tensor, "c h w"]]
    chosen: Int[np.ndarray, "m"]

    def __call__(self, row: int) -> UInt8[Tensor, "c h w"]:
        """Raw pixels of one of the chosen rows."""
        return self.read(int(self.chosen[row]))


@dataclass(frozen=True)
class Pixels:
    """A reader of images that are already in memory."""

    pixels: UInt8[Tensor, "n c h w"]

    def __call__(self, row: int) -> UInt8[Tensor, "c h w"]:
        """Raw pixels of one row."""
        return self.pixels[row]


@dataclass(frozen=True)
class Framed:
    """A reader of images as a network sees them before they are scaled and normalised: resized and cropped."""

    read: Callable[[int], UInt8[Tensor, "c h w"]]
    preprocess: Preprocess

    def __call__(self, row: int) -> UInt8[Tensor, "c h w"]:
        """The frame of one row."""
        return self.preprocess.frame(self.read(row))


@dataclass(frozen=True)
class OneAfterOther:
    """A reader of the images of two readers, one after the other."""

    first: Callable[[int], UInt8[Tensor, "c h w"]]
    many: int
    second: Callable[[int], UInt8[Tensor, "c h w"]]

    def __call__(self, row: int) -> UInt8[Tensor, "c h w"]:
        """Raw pixels of one row."""
        return self.first(row) if row < self.many else self.second(row - self.many)


def framed(data: Data, preprocess: Preprocess) -> Data:
    """The same images cut to what a network sees, so that what happens to them next happens at that size.

    Args:
        data: raw images.
        preprocess: of the network; its normalisation is left out.
    """
    return replace(
        data,
        read=Framed(data.read, preprocess),
        fingerprint=hashlib.sha256(repr((data.fingerprint, preprocess)).encode()).hexdigest(),
        pixels=None,
    )


def one_after_other(first: Data, second: Data) -> Data:
    """The images of two data sets with the same classes, those of the first in front.

    Raises:
        DataError: they have different classes.
    """
    if first.classes != second.classes:
        message = (
            f"{first.name} has {len(first.classes)} classes and {second.name} has {len(second.classes)}, or others: "
            "expected the same classes in the same order. Give images of the same classes"
        )
        raise DataError(message)
    return Data(
        name=f"{first.name} and {second.name}",
        read=OneAfterOther(first.read, len(first), second.read),
        labels=np.concatenate([first.labels, second.labels]),
        classes=first.classes,
        fingerprint=hashlib.sha256((first.fingerprint + second.fingerprint).encode()).hexdigest(),
        ids=(*first.ids, *second.ids) if first.ids and second.ids else (),
        on_error=first.on_error,
    )


def data_from_arrays(
    pixels: UInt8[Tensor, "n c h w"],
    labels: Int[np.ndarray, "n"],
    *,
    name: str,
    classes: Sequence[str],
    ids: Sequence[str] = (),
) -> Data:
    """Images that are in memory, as a data set; the fingerprint is a SHA-256 of all pixels, labels and class names.

    Args:
        pixels: raw images, 0 to 255.
        labels: class numbers; -1 where unknown.
        name: short name for reports.
        classes: class names; empty when nothing is labelled.
        ids: a name for each image; their row numbers when left out.

    Raises:
        DataError: a label lies outside the classes.

    Example:
        >>> import torch
        >>> data = data_from_arrays(
        ...     torch.zeros(2, 1, 4, 4, dtype=torch.uint8), np.array([0, 1]), name="two", classes=("a", "b"))
        >>> len(data), data.ids
        (2, ('0', '1'))
    """
    numbers = labels.astype(np.int64)
    digest = hashlib.sha256(repr((tuple(pixels.shape), tuple(classes))).encode())
    digest.update(pixels.contiguous().numpy().data)
    digest.update(numbers.tobytes())
    return Data(
        name=name,
        read=Pixels(pixels),
        labels=numbers,
        classes=tuple(classes),
        fingerprint=digest.hexdigest(),
        ids=tuple(ids) or tuple(str(row) for row in range(len(numbers))),
        pixels=pixels,
    )


def class_counts(data: Data) -> Int[np.ndarray, "c"]:
    """Number of images of each class, in class order; images without a label are not counted.

    Example:
        >>> import torch
        >>> black = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
        >>> class_counts(data_from_arrays(black, np.array([2, 0, 2]), name="three", classes="abc")).tolist()
        [1, 0, 2]
    """
    return np.bincount(data.labels[data.labels >= 0], minlength=len(data.classes))


def first_of_each_class(data: Data) -> Int[np.ndarray, "m"]:
    """The first row of each class, in class order; classes without an image are left out.

    Example:
        >>> import torch
        >>> black = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
        >>> first_of_each_class(data_from_arrays(black, np.array([2, 0, 2]), name="three", classes="abc")).tolist()
        [1, 0]
    """
    present, first = np.unique(data.labels, return_index=True)
    return first[present >= 0]


def scatter(rows: Int[np.ndarray, "n"], *, seed: int) -> UInt64[np.ndarray, "n"]:
    """A number without pattern for each row number: the basis of all choices of images.

    SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators") of row and seed. A hash, not
    a random generator, so that the choice for one row depends neither on the other rows nor on a library's version.

    Example:
        >>> scatter(np.arange(3), seed=0).argsort().tolist()
        [2, 1, 0]
    """
    increment = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):  # the arithmetic is modulo 2**64 by definition
        mixed = (rows.astype(np.uint64) + np.uint64(1)) * increment + np.uint64(seed % 2**64) * np.uint64(
            0xD1342543DE82EF95  # an odd constant, so that no two seeds coincide
        )
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


def balanced_rows(labels: Int[np.ndarray, "n"], *, limit: int, seed: int = 0) -> Int[np.ndarray, "m"]:
    """At most `limit` rows with the classes as evenly represented as they can be, in ascending order.

    The images of a class are put in an order without pattern that depends on the seed; then classes take turns, one
    image a round, until `limit` is reached (which classes have a turn in an unfinished last round is without pattern
    too). So a smaller limit always gives a subset of a larger one. Images without a label count as one more class.

    Example:
        >>> labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
        >>> labels[balanced_rows(labels, limit=6)].tolist()
        [0, 0, 1, 1, 2, 2]
    """
    order = scatter(np.arange(len(labels)), seed=seed)
    by_class = np.lexsort((order, labels))
    sorted_labels = labels[by_class]
    starts = np.searchsorted(sorted_labels, sorted_labels, side="left")
    turn = np.empty(len(labels), dtype=np.int64)
    turn[by_class] = np.arange(len(labels)) - starts
    return np.sort(np.lexsort((order, turn))[:limit])
