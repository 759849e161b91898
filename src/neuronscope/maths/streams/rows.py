"""One row per image, in memory: for the few statistics that need ranks (the sweep's `Collect` keeps them on disk)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from jaxtyping import Float, Int

from neuronscope.maths.streams.protocol import Seen, State


@dataclass(frozen=True)
class RowsAnswer:
    """A table in row order.

    Attributes:
        index: row numbers of the images, ascending; images left out on errors are missing.
        label: their class numbers, -1 where unknown.
        values: the measurement.
    """

    index: Int[np.ndarray, "n"]
    label: Int[np.ndarray, "n"]
    values: Float[np.ndarray, "n *cells"]


@dataclass(frozen=True)
class StackRows:
    """Every image's measurement, stacked in row order. The state grows with the data: `images` announces it.

    Attributes:
        of: name of a measurement of shape (n, ...).
        images: number of images expected, for the announced size.
    """

    of: str
    images: int = 0

    def start(self) -> State:
        """Nothing seen."""
        return {"index": [], "label": [], "values": []}

    def add(self, state: State, seen: Seen) -> State:
        """One more batch."""
        for name, tensor in (("index", seen["index"]), ("label", seen["label"]), ("values", seen[self.of])):
            state[name].append(tensor.detach().cpu())
        return state

    def merge(self, left: State, right: State) -> State:
        """Lists follow one another; the order is settled by row number at the end."""
        return {name: left[name] + right[name] for name in left}

    def finish(self, state: State) -> RowsAnswer:
        """The rows in ascending order."""
        index = torch.cat(state["index"])
        order = index.argsort(stable=True)
        return RowsAnswer(
            index=index[order].numpy(),
            label=torch.cat(state["label"])[order].numpy(),
            values=torch.cat(state["values"])[order].numpy(),
        )

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """4 bytes a value, twice while stacking."""
        return 2 * 4 * self.images * prod(shapes[self.of])
