"""A finite, numbered sequence of images, and the batches a sweep makes of it.

Every image has a row number. A batch carries its rows, so any number in a result can be traced to its images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from neuronscope.errors import InputError


@dataclass(frozen=True)
class Batch:
    """Some images on their way through a network.

    Attributes:
        index: row numbers in the data set.
        image: preprocessed input.
        label: class numbers; -1 where unknown.
    """

    index: Int[Tensor, "n"]
    image: Float[Tensor, "n c h w"]
    label: Int[Tensor, "n"]


@dataclass(frozen=True)
class Data:
    """A finite, indexable set of images.

    Attributes:
        name: how it was asked for, as in `digits:report`.
        read: row number -> raw pixels, (channels, height, width), 0 to 255. Must be safe to call from several threads.
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
    on_error: str = "raise"

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def take(self, rows: Sequence[int] | Int[np.ndarray, "m"], *, name: str | None = None) -> Data:
        """Some of the rows, in the given order, renumbered from 0.

        Raises:
            InputError: a row is not in the data set.
        """
        chosen = np.asarray(rows, dtype=np.int64)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(self)):
            message = f"row {chosen.max()} is not in {self.name}, which has {len(self)} images"
            raise InputError(message)
        digest = hashlib.sha256(self.fingerprint.encode() + chosen.tobytes()).hexdigest()
        return replace(
            self,
            name=name or f"{self.name}[{len(chosen)}]",
            read=Rows(self.read, chosen),
            labels=self.labels[chosen],
            fingerprint=digest,
            ids=tuple(self.ids[row] for row in chosen) if self.ids else (),
            pixels=self.pixels[chosen] if self.pixels is not None else None,
        )


@dataclass(frozen=True)
class Rows:
    """A reader of some rows of another reader (a class, not a closure, so that worker processes can have it)."""

    read: Callable[[int], UInt8[Tensor, "c h w"]]
    chosen: Int[np.ndarray, "m"]

    def __call__(self, row: int) -> UInt8[Tensor, "c h w"]:
        """Raw pixels of one of the chosen rows."""
        return self.read(int(self.chosen[row]))
