"""A designed experiment as a data set: each row is an image together with a vector of parameters.

Sensitivity blocks and mask grids are designs. Rows that belong together (the rows of one base point) stand in blocks,
and a batch holds whole blocks, so that an estimator finds all it compares in one batch.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from neuronscope.data.dataset import Data, Rows
from neuronscope.errors import InputError

_REMEMBERED = 64  # decoded images; the rows of a block share their image, and blocks of an image stand together


@runtime_checkable
class Vectors(Protocol):
    """Parameter vectors made when they are asked for: a large design is never held as a table."""

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def __getitem__(self, rows: Int[np.ndarray, "r"]) -> Float[np.ndarray, "r p"]:
        """The vectors of some rows: the same whichever rows are asked for together."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes with any of them."""
        ...


@dataclass(frozen=True)
class Design:
    """Images with parameters, in blocks of equal size.

    Attributes:
        base: where the images come from.
        image_row: for each row of the design, the row of `base` it shows.
        parameters: for each row, its parameter vector: a table, or what makes its rows.
        block: rows per block; the number of rows is a multiple of it.
    """

    base: Data
    image_row: Int[np.ndarray, "m"]
    parameters: Float[np.ndarray, "m p"] | Vectors
    block: int = 1

    def __post_init__(self) -> None:
        """Refuse tables of different lengths and torn blocks."""
        if self.block < 1:
            message = f"a design's blocks have at least 1 row, not {self.block}"
            raise InputError(message)
        if len(self.image_row) != len(self.parameters) or len(self.image_row) % self.block:
            message = (
                f"a design needs one parameter vector per row and whole blocks of {self.block} rows: "
                f"got {len(self.image_row)} rows and {len(self.parameters)} vectors"
            )
            raise InputError(message)

    @property
    def name(self) -> str:
        """The base's name, with the number of rows."""
        return f"{self.base.name} ({len(self)} designed rows)"

    @property
    def fingerprint(self) -> str:
        """Changes whenever the images, the rows, the parameters or the blocks change."""
        vectors = self.parameters
        own = vectors.tobytes() if isinstance(vectors, np.ndarray) else vectors.fingerprint.encode()
        parts = (self.image_row.tobytes(), own, str(self.block).encode())
        return hashlib.sha256(self.base.fingerprint.encode() + b"".join(parts)).hexdigest()

    @property
    def on_error(self) -> str:
        """As the base has it."""
        return self.base.on_error

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.image_row)

    @property
    def data(self) -> Data:
        """The images row by row, each decoded once per run of blocks that show it."""
        rows = replace(self.base, pixels=None).take(self.image_row, name=self.name)
        return replace(rows, read=Remembering(Rows(self.base.read, self.image_row)))

    def start(self, least: int) -> Design:
        """The first blocks, with at least so many rows where there are as many."""
        rows = min(len(self), -(-least // self.block) * self.block)
        return replace(self, image_row=self.image_row[:rows], parameters=self.parameters[np.arange(rows)])

    def batch_size(self, wanted: int) -> int:
        """The largest number of rows up to `wanted` that holds whole blocks.

        Raises:
            InputError: one block is larger than the batch size.
        """
        if wanted < self.block:
            message = f"batch size {wanted} is smaller than one block of {self.block} rows: raise --batch-size"
            raise InputError(message)
        return wanted - wanted % self.block


@dataclass(frozen=True)
class Remembering:
    """A reader that keeps the last few images it decoded."""

    rows: Rows
    kept: OrderedDict[int, UInt8[Tensor, "c h w"]] = field(default_factory=OrderedDict, compare=False, repr=False)
    lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def __call__(self, row: int) -> UInt8[Tensor, "c h w"]:
        """Raw pixels of a row of the design."""
        source = int(self.rows.chosen[row])
        with self.lock:
            if source in self.kept:
                self.kept.move_to_end(source)
                return self.kept[source]
        image = self.rows.read(source)
        with self.lock:
            self.kept[source] = image
            while len(self.kept) > _REMEMBERED:
                self.kept.popitem(last=False)
        return image
