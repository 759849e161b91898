"""One row per image on disk, for the few things that truly must be kept: attribution maps, exact ranks by unit blocks.

Rows go by image number into a Zarr array whose chunks are the sweep's batches, so that two workers never share a chunk
and working a batch twice writes the same bytes again. The state of the fold holds nothing but the row numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from neuronscope.errors import StorageError
from neuronscope.maths.streams import Seen, State


@dataclass(frozen=True)
class Collected:
    """A table on disk.

    Attributes:
        path: the Zarr array, of shape (images, ...), float32; rows of images left out are nan.
        index: row numbers that were written, ascending.
    """

    path: Path
    index: np.ndarray

    def open(self) -> Any:
        """The `zarr.Array`, read-only; slices load what they cover."""
        return zarr.open_array(self.path, mode="r")


@dataclass(frozen=True)
class Collect:
    """Write one measurement of every image to a Zarr array.

    Attributes:
        of: name of a measurement of shape (n, ...).
        path: where the array goes; it is created by `prepare`, before the sweep.
        images: rows of the array.
        cells: shape of one row.
        batch_size: rows per chunk: the sweep's batch size.
    """

    of: str
    path: Path
    images: int
    cells: tuple[int, ...]
    batch_size: int

    def prepare(self) -> Collect:
        """Create the array, filled with nan, replacing an older one.

        Raises:
            StorageError: the folder cannot be written.
        """
        try:
            zarr.create_array(
                self.path,
                shape=(self.images, *self.cells),
                chunks=(self.batch_size, *self.cells),
                dtype="float32",
                fill_value=float("nan"),
                overwrite=True,
            )
        except OSError as error:
            message = f"cannot create {self.path}: {error.strerror or error}"
            raise StorageError(message) from error
        return self

    def start(self) -> State:
        """Nothing written."""
        return {"index": []}

    def add(self, state: State, seen: Seen) -> State:
        """Write one batch's rows."""
        index = seen["index"].cpu()
        values = seen[self.of].float().cpu().numpy()
        try:
            array = zarr.open_array(self.path, mode="r+")
            for row, value in _runs(index.numpy(), values):
                array[row : row + len(value)] = value
        except OSError as error:
            message = f"cannot write to {self.path}: {error.strerror or error}. Free space and run again"
            raise StorageError(message) from error
        state["index"].append(index)
        return state

    def merge(self, left: State, right: State) -> State:
        """The rows of both are on disk already."""
        return {"index": left["index"] + right["index"]}

    def finish(self, state: State) -> Collected:
        """Where the table is."""
        return Collected(self.path, torch.cat(state["index"]).sort().values.numpy())

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:  # noqa: ARG002 part of the protocol
        """8 bytes an image; the rows are on disk."""
        return 8 * self.images


def _runs(index: np.ndarray, values: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Consecutive rows together: skipped images split a batch."""
    breaks = np.flatnonzero(np.diff(index) != 1) + 1
    starts = np.concatenate([[0], breaks]).astype(np.int64)
    return [(int(index[first]), part) for first, part in zip(starts, np.split(values, breaks), strict=True)]
