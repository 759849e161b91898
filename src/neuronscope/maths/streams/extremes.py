"""The images that drive a unit most, or least, with the place in the map: exact, ties by row number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int

from neuronscope.maths.streams.protocol import Seen, State


@dataclass(frozen=True)
class Extremes:
    """The k most extreme images of each unit, most extreme first.

    Attributes:
        value: their values; nan where fewer than k images were seen.
        index: their row numbers; -1 where fewer were seen.
        where: row-major position in the unit's map (0 for flat layers), -1 where fewer were seen.
    """

    value: Float[np.ndarray, "k u"]
    index: Int[np.ndarray, "k u"]
    where: Int[np.ndarray, "k u"]


@dataclass(frozen=True)
class TopK:
    """The `k` images with the largest (or smallest) value of each unit.

    Merges in any order: equal values are ordered by row number. NaN ranks first, so that a broken unit shows.

    Attributes:
        of: name of a measurement of shape (n, u).
        k: how many to keep.
        where: name of the measurement that holds map positions; empty for none.
        end: which end of the scale.
    """

    of: str
    k: int
    where: str = ""
    end: Literal["largest", "smallest"] = "largest"

    def start(self) -> State:
        """Nothing seen."""
        return {}

    def add(self, state: State, seen: Seen) -> State:
        """One more batch."""
        values = seen[self.of]
        index = seen["index"].to(torch.int64)[:, None].expand(values.shape)
        where = seen[self.where].to(torch.int32) if self.where else torch.zeros_like(index, dtype=torch.int32)
        batch = {"value": -values if self.end == "smallest" else values, "index": index, "where": where}
        rows = seen["index"]
        if bool((rows.diff() <= 0).any()) or (state and bool(state["index"].max() >= rows[0])):
            return self._best(_joined(state, batch))
        # rows ascend, as they do within a shard: a stable sort by value leaves equal values in the order of their rows
        both = _joined(state, batch)
        order = both["value"].argsort(dim=0, descending=True, stable=True)[: self.k]
        return {name: tensor.gather(0, order) for name, tensor in both.items()}

    def merge(self, left: State, right: State) -> State:
        """The best k of both, whatever the order of the arguments."""
        if not left or not right:
            return left or right
        return self._best(_joined(left, right))

    def _best(self, both: State) -> State:
        by_row = both["index"].argsort(dim=0, stable=True)
        by_value = both["value"].gather(0, by_row).argsort(dim=0, descending=True, stable=True)
        order = by_row.gather(0, by_value[: self.k])
        return {name: tensor.gather(0, order) for name, tensor in both.items()}

    def finish(self, state: State) -> Extremes:
        """The lists, most extreme first."""
        found = state["value"].shape[0]
        missing = ((0, self.k - found), (0, 0))
        value = state["value"].double().cpu().numpy()
        return Extremes(
            value=np.pad(-value if self.end == "smallest" else value, missing, constant_values=np.nan),
            index=np.pad(state["index"].cpu().numpy(), missing, constant_values=-1),
            where=np.pad(state["where"].cpu().numpy(), missing, constant_values=-1),
        )

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Value, row and position: 16 bytes an entry (20 with float64 values)."""
        return 16 * self.k * prod(shapes[self.of])


def _joined(left: State, right: State) -> State:
    return {name: torch.cat([left[name], right[name]]) for name in right} if left else right
