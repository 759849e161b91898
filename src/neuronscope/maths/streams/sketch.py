"""The quantile sketch that the published thresholds came from: a legacy rule, to reproduce old tables.

The originals of this study (Network Dissection and what followed from it) read their thresholds from a randomised
sketch, so a published threshold is off by up to 0.4 %, and 0.4956 to 0.5092 % of the activations lie above it where
0.5 % were meant. `UpperTail` is exact and merges; use this only where old numbers must come out.

A sketch is a row of buffers. A value in the first stands for itself, in the next for two, then four. A full buffer is
sorted and hands every second value on, from the first or the second as chance has it. When the last one is full, a
smaller buffer is put before all others, and what they hold moves one place towards the front, or is halved where that
has no room. The extremes are kept besides.

Source: Z. Karnin, K. Lang and E. Liberty, "Optimal quantile approximation in streams" (FOCS 2016); the sizes, the
random numbers and the read-out are those of Network Dissection's released thresholds. Whether ours
has their bits has not been checked against a released file; its error against the exact quantile has been.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from neuronscope.errors import InputError
from neuronscope.maths.streams.protocol import Seen, State

_FIRST = 24 * 1024
"""Values that the first buffer holds, for each unit."""

_SHRINK = 0.67
"""Each buffer put before the others is smaller by this."""

_LEAST = 128
"""Values that the smallest buffer holds."""

_SEED = 1

_POINTS = 1000
"""Points of the quantile function that are read."""

_MOST_VALUES = 80_000
"""Room of all buffers together: a geometric sum of 74,473, and some of the smallest."""


@dataclass(frozen=True)
class SketchQuantile:
    """The value that about a fraction of each unit's values exceeds, by the originals' randomised sketch.

    All units share the random choices, so a unit's threshold does not depend on which others are sketched with it. It
    depends on the order of the images, which must ascend in one state from the first to the last: states do not merge.
    How the images are cut into batches changes nothing (the originals took 64).

    Attributes:
        of: name of a measurement of shape (n, u, ...); positions of maps count as values, image by image.
        fraction: share of values wanted above the threshold (above 0, below 1). It is read at place
            `int(1000 (1 - fraction) - 1)` of 1,000 points from 0 to 1: 0.005 reads the quantile 994 / 999.

    Raises:
        InputError: a fraction that is not above 0 and below 1.

    Example:
        >>> sketch = SketchQuantile("x", 0.5)
        >>> state = sketch.add(sketch.start(), {"x": torch.arange(1000.0)[:, None]})
        >>> sketch.finish(state).round(3)
        array([498.999])
    """

    of: str
    fraction: float

    def __post_init__(self) -> None:
        """Refuse what cannot be read."""
        if not 0 < self.fraction < 1:
            message = (
                f"a share of {self.fraction:g} of the activations cannot lie above a threshold: expected more than 0 "
                "and less than 1. Give for example 0.005"
            )
            raise InputError(message)

    def start(self) -> State:
        """Nothing seen."""
        return {}

    def add(self, state: State, seen: Seen) -> State:
        """One more batch, which must come after all before it."""
        maps = seen[self.of].detach().float().cpu()
        values = maps.movedim(1, 0).reshape(maps.shape[1], -1).numpy()
        if not state:
            state = _empty(len(values))
        if not values.size:
            return state
        state["nonfinite"] += torch.from_numpy((~np.isfinite(values)).sum(1))
        sketch = _Buffers.of(state)
        sketch.add(values)
        return {**state, **sketch.state()}

    def merge(self, left: State, right: State) -> State:
        """The state that has seen something; two of them do not merge.

        Raises:
            InputError: both have seen something.
        """
        if not left or not right:
            return left or right
        message = (
            "the sketch of the originals' thresholds depends on the order of the images and must see all of them in "
            "one go, in one process, but came in several parts. Use exact thresholds, or keep the activations and add "
            "them to one state in order"
        )
        raise InputError(message)

    def finish(self, state: State) -> Float[np.ndarray, "u"]:
        """The threshold of each unit; nan for units with a value that was NaN or infinite."""
        levels, filled = state["levels"], state["filled"].tolist()
        held = [tensor[:, :count].cpu().numpy() for tensor, count in zip(levels, filled, strict=True)]
        least, most = state["extremes"].cpu().numpy()[:, :, None].swapaxes(0, 1)
        values = np.concatenate([least, *held, most], axis=1).astype(np.float64)
        weights = np.concatenate([[0.0], *(np.full(n, 2.0**level) for level, n in enumerate(filled)), [0.0]])
        place = int(_POINTS * (1 - self.fraction) - 1)
        wanted = np.linspace(0.0, 1.0, _POINTS)[place]
        found = np.array([_quantile(row, weights, wanted) for row in values])
        return np.where(state["nonfinite"].cpu().numpy() > 0, np.nan, found) + 0.0  # one zero, not two

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """320 kB a unit."""
        return 4 * _MOST_VALUES * shapes[self.of][0]


class _Buffers:
    """The buffers while a batch runs in, smallest weight first."""

    def __init__(self, levels: list[np.ndarray], filled: list[int], drawn: int, extremes: np.ndarray) -> None:
        self.levels, self.filled, self.drawn, self.extremes = levels, filled, drawn, extremes
        self.chance = np.random.RandomState(_SEED)  # the originals' generator
        for _ in range(drawn):
            self.chance.randint(2)

    @classmethod
    def of(cls, state: State) -> _Buffers:
        """As a state left them; they work on the state's memory."""
        levels = [tensor.numpy() for tensor in state["levels"]]
        return cls(levels, state["filled"].tolist(), int(state["drawn"]), state["extremes"].numpy())

    def state(self) -> State:
        """For a checkpoint; the random choices are known by their number."""
        return {
            "levels": [torch.from_numpy(level) for level in self.levels],
            "filled": torch.tensor(self.filled),
            "drawn": torch.tensor(self.drawn),
        }

    def add(self, values: Float32[np.ndarray, "u m"]) -> None:
        """Values of all units, in order."""
        np.minimum(self.extremes[:, 0], values.min(1), out=self.extremes[:, 0])
        np.maximum(self.extremes[:, 1], values.max(1), out=self.extremes[:, 1])
        done = 0
        while done < values.shape[1]:
            if self._free(0) == 0:
                self._make_room()
            count = min(self._free(0), values.shape[1] - done)
            self._append(0, values[:, done : done + count])
            done += count

    def _free(self, level: int) -> int:
        return int(self.levels[level].shape[1]) - self.filled[level]

    def _needed(self, level: int) -> int:
        """Free places a buffer must keep: for half of what the one before it may hand on."""
        return ceil(self.levels[level - 1].shape[1] / 2) if level else 1

    def _append(self, level: int, values: Float32[np.ndarray, "u m"]) -> None:
        end = self.filled[level] + values.shape[1]
        self.levels[level][:, self.filled[level] : end] = values
        self.filled[level] = end

    def _halved(self, level: int) -> Float32[np.ndarray, "u m"]:
        """Take every second of the sorted values out of a buffer, all others are dropped."""
        values = self.levels[level][:, : self.filled[level]]
        values.sort(axis=1)
        self.filled[level] = 0
        self.drawn += 1
        return values[:, int(self.chance.randint(2)) :: 2].copy()

    def _make_room(self) -> None:
        """Hand values on until every buffer can take what the one before it may hand on next."""
        level = 0
        while self._free(level) < self._needed(level):
            if level + 1 == len(self.levels):
                self._put_before()
                return
            self._append(level + 1, self._halved(level))
            level += 1

    def _put_before(self) -> None:
        """Put a smaller buffer before the others, whose values would thereby stand for twice as many."""
        capacity = max(_LEAST, ceil(_FIRST * _SHRINK ** len(self.levels)))
        self.levels.insert(0, np.zeros((len(self.extremes), capacity), dtype=np.float32))
        self.filled.insert(0, 0)
        for level in range(1, len(self.levels)):
            if self.filled[level] == 0:
                continue
            if self._free(level - 1) - self.filled[level] >= self._needed(level - 1):
                self._append(level - 1, self.levels[level][:, : self.filled[level]])
                self.filled[level] = 0
            else:
                self._append(level, self._halved(level))


def _empty(units: int) -> State:
    """One buffer, nothing in it."""
    extremes: Tensor = torch.tensor([torch.inf, -torch.inf]).repeat(units, 1)
    return {
        "levels": [torch.zeros(units, _FIRST)],
        "filled": torch.zeros(1, dtype=torch.int64),
        "drawn": torch.tensor(0),
        "extremes": extremes,
        "nonfinite": torch.zeros(units, dtype=torch.int64),
    }


def _quantile(values: Float[np.ndarray, "m"], weights: Float[np.ndarray, "m"], level: float) -> float:
    """Linear interpolation over the middles of the weights, the smallest value at 0 and the largest at 1."""
    order = np.argsort(values, kind="stable")
    places = np.cumsum(weights[order]) - weights[order] / 2
    places -= places[0]
    return float(np.interp(level, places / places[-1], values[order]))
