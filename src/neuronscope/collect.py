"""One row per image on disk, for the few things that truly must be kept: attribution maps, exact ranks by unit blocks.

Rows go by image number into a Zarr array whose chunks are the sweep's batches, so that two workers never share a chunk
and working a batch twice writes the same bytes again. The state of the fold holds nothing but the row numbers; a sweep
that is gone on with finds the rows of its earlier part in the table.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from neuronscope.errors import StorageError
from neuronscope.maths.streams import Seen, State

_MARK = "neuronscope"
"""Among the attributes of an array: what it is for."""


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
        key: identity of what decides the rows, such as a hash of weights, images and options: a table that was begun
            with the same key is gone on with.
        token: names the very table, from `prepare`; empty before. It makes the table part of the sweep's identity, so
            that a checkpoint which counts on rows of a table that was removed is not picked up.
    """

    of: str
    path: Path
    images: int
    cells: tuple[int, ...]
    batch_size: int
    key: str
    token: str = ""

    def prepare(self) -> Collect:
        """The reducer to sweep with, its table on disk: the one that is there for the same rows, or a new one.

        A table of the same measurement, key, shape and chunks keeps its rows. One that this class made for anything
        else is replaced; whatever else stands in its place is left alone.

        Raises:
            StorageError: the folder cannot be written, or holds something that is no table of this class.
        """
        shape, chunks = (self.images, *self.cells), (self.batch_size, *self.cells)
        purpose: dict[str, Any] = {"of": self.of, "key": self.key, "shape": list(shape), "chunks": list(chunks)}
        try:
            found = self._found()
            if found is not None and found["purpose"] == purpose:
                return replace(self, token=found["token"])
            token = uuid.uuid4().hex
            zarr.create_array(
                self.path,
                shape=shape,
                chunks=chunks,
                dtype="float32",
                fill_value=float("nan"),
                attributes={_MARK: {"purpose": purpose, "token": token}},
                overwrite=True,
            )
        except StorageError:
            raise
        except OSError as error:
            message = f"cannot create {self.path}: {error.strerror or error}"
            raise StorageError(message) from error
        return replace(self, token=token)

    def _found(self) -> Any:
        """What a table in this place says of itself; None where there is nothing.

        Raises:
            StorageError: there is something else.
        """
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return None
        try:
            return zarr.open_array(self.path, mode="r").attrs[_MARK]
        except (OSError, ValueError, KeyError, TypeError) as error:
            message = (
                f"cannot create {self.path}: something stands there that is no table of neuronscope, and it is not "
                "replaced. Expected an empty place: remove it, or choose another"
            )
            raise StorageError(message) from error

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
