"""The images a design can show: by class and partition, so that a factor can pick one by a number from 0 to 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from neuronscope.data.dataset import Data, scatter
from neuronscope.errors import InputError

PARTITIONS = 2


@dataclass(frozen=True, eq=False)
class Pool:
    """Rows of a data set in cells, one for each class and partition.

    Attributes:
        classes: class numbers, ascending; (-1,) where class is no factor.
        partitions: number of partitions, 1 where partition is no factor.
        rows: row numbers, cell after cell.
        first: where each cell starts among them.
        count: rows of each cell, at least 1.
    """

    classes: tuple[int, ...]
    partitions: int
    rows: Int[np.ndarray, "n"]
    first: Int[np.ndarray, "c p"]
    count: Int[np.ndarray, "c p"]

    def pick(
        self, kind: Int[np.ndarray, "r"], part: Int[np.ndarray, "r"], unit: Float[np.ndarray, "r"]
    ) -> Int[np.ndarray, "r"]:
        """Rows of the data that numbers from 0 to 1 stand for, each image of a cell with the same share.

        Args:
            kind: place of the class among `classes`.
            part: partition.
            unit: which of the cell's images, 0 to 1.
        """
        count = self.count[kind, part]
        return np.asarray(self.rows[self.first[kind, part] + np.minimum((unit * count).astype(np.int64), count - 1)])

    def redraw(
        self, kind: Int[np.ndarray, "r"], part: Int[np.ndarray, "r"], *, rng: np.random.Generator
    ) -> Int[np.ndarray, "r"]:
        """A row for each, at random without replacement within its cell until the cell is used up, then again.

        The original's way: the image is no factor but noise.
        """
        chosen = np.empty(len(kind), dtype=np.int64)
        cell = kind * self.partitions + part
        order = np.argsort(cell, kind="stable")
        cells, starts = np.unique(cell[order], return_index=True)
        for number, places in zip(cells, np.split(order, starts[1:]), strict=True):
            own_kind, own_part = divmod(int(number), self.partitions)
            first, count = self.first[own_kind, own_part], int(self.count[own_kind, own_part])
            own = self.rows[first : first + count]
            rounds = -(-len(places) // count)
            chosen[places] = np.concatenate([rng.permutation(own) for _ in range(rounds)])[: len(places)]
        return chosen


def make_pool(
    data: Data,
    partition: Int[np.ndarray, "n"] | None,
    *,
    by_class: bool,
    least: int,
    min_images: int,
) -> Pool:
    """Sort images into cells.

    Args:
        data: the images.
        partition: of each image, 0 or 1; None where partition is no factor.
        by_class: whether class is a factor.
        least: images that each cell needs.
        min_images: classes with fewer images are left out; 0 leaves none out.

    Raises:
        InputError: images without labels where class is a factor, or too few images in a class.
    """
    labels = data.labels if by_class else np.full(len(data), -1)
    if by_class and not (labels >= 0).any():
        message = (
            f"class is a factor, but {data.name} has no labels. Give labelled images, or leave it out: "
            "--factors order,partition,image"
        )
        raise InputError(message)
    parts = np.zeros(len(data), dtype=np.int64) if partition is None else partition
    partitions = 1 if partition is None else PARTITIONS
    usable = labels >= 0 if by_class else np.ones(len(data), dtype=bool)
    classes, sizes = np.unique(labels[usable], return_counts=True)
    kept = classes[sizes >= max(min_images, 1)]
    if not len(kept):
        message = (
            f"no class of {data.name} has {min_images} images: the largest has {sizes.max()}. Lower --min-images, or "
            "give more images"
        )
        raise InputError(message)
    cells = [[np.flatnonzero(usable & (labels == one) & (parts == part)) for part in range(partitions)] for one in kept]
    count = np.array([[len(cell) for cell in row] for row in cells])
    _check(data, kept, count, least=least, by_class=by_class)
    first = np.concatenate([[0], count.ravel().cumsum()[:-1]]).reshape(count.shape)
    rows = np.concatenate([cell for row in cells for cell in row])
    return Pool(tuple(int(one) for one in kept), partitions, rows, first, count)


def _check(data: Data, kept: np.ndarray, count: np.ndarray, *, least: int, by_class: bool) -> None:
    few = np.flatnonzero((count < least).any(axis=1))
    if not len(few):
        return
    needed = least * count.shape[1]
    if not by_class:
        message = f"{data.name} has {count.sum()} images: {needed} or more are needed. Give more images"
        raise InputError(message)
    name = data.classes[kept[few[0]]]
    message = (
        f"{len(few)} of {len(kept)} classes of {data.name} have too few images, the first of them '{name}' with "
        f"{count[few[0]].sum()}: {least} are needed in each partition. Give more images, or leave such classes out: "
        f"--min-images {needed}"
    )
    raise InputError(message)


def halves(labels: Int[np.ndarray, "n"], *, seed: int) -> Int[np.ndarray, "n"]:
    """Two partitions of a data set, with each class in either as evenly as can be: 0 or 1 for each image.

    Example:
        >>> int(halves(np.array([0, 0, 0, 0, 1, 1]), seed=0).sum())
        3
    """
    order = np.lexsort((scatter(np.arange(len(labels)), seed=seed), labels))
    place = np.empty(len(labels), dtype=np.int64)
    ordered = labels[order]
    place[order] = np.arange(len(labels)) - np.searchsorted(ordered, ordered, side="left")
    return place % PARTITIONS
