"""One row per image, in memory: for the few statistics that need ranks (the sweep's `Collect` keeps them on disk)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped

from neuronscope.maths.streams.protocol import Seen, State


@dataclass(frozen=True)
class RowsAnswer:
    """A table in row order.

    Attributes:
        index: row numbers of the images, ascending; images left out on errors are missing.
        label: their class numbers, -1 where unknown.
        values: the measurement; whole numbers where it is one, such as class numbers.
    """

    index: Int[np.ndarray, "n"]
    label: Int[np.ndarray, "n"]
    values: Shaped[np.ndarray, "n *cells"]


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


@dataclass(frozen=True)
class DecisionsAnswer:
    """What a classifier said about each image.

    Attributes:
        index: row numbers, ascending.
        label: true classes, -1 where unknown.
        predicted: the class with the largest logit.
        confidence: softmax probability of that class (0 to 1).
        rank: place of the true class among the logits, 0 for right answers; -1 where the label is unknown.
    """

    index: Int[np.ndarray, "n"]
    label: Int[np.ndarray, "n"]
    predicted: Int[np.ndarray, "n"]
    confidence: Float[np.ndarray, "n"]
    rank: Int[np.ndarray, "n"]

    def top(self, k: int) -> tuple[int, int]:
        """Images whose true class is among the `k` largest logits, and images with a label."""
        return int(((self.rank >= 0) & (self.rank < k)).sum()), int((self.rank >= 0).sum())


@dataclass(frozen=True)
class Decisions:
    """Prediction, confidence and rank of the true class for every image: 40 bytes an image.

    Attributes:
        of: name of the logits.
        images: number of images expected, for the announced size.
    """

    of: str
    images: int = 0

    def start(self) -> State:
        """Nothing seen."""
        return {name: [] for name in ("index", "label", "predicted", "confidence", "rank")}

    def add(self, state: State, seen: Seen) -> State:
        """One more batch."""
        logits, label = seen[self.of], seen["label"]
        confidence, predicted = logits.double().softmax(1).max(1)
        known = (label >= 0) & (label < logits.shape[1])
        own = logits.gather(1, label.where(known, 0)[:, None])
        # equal logits go to the lower class number, as argmax has it
        earlier = torch.arange(logits.shape[1], device=logits.device)[None] < label[:, None]
        ahead = ((logits > own) | ((logits == own) & earlier)).sum(1)
        columns = {"predicted": predicted, "confidence": confidence, "rank": ahead.where(known, -1)}
        for name, column in {"index": seen["index"], "label": label, **columns}.items():
            state[name].append(column.cpu())
        return state

    def merge(self, left: State, right: State) -> State:
        """Lists follow one another."""
        return {name: left[name] + right[name] for name in left}

    def finish(self, state: State) -> DecisionsAnswer:
        """The rows in ascending order."""
        order = torch.cat(state["index"]).argsort(stable=True)
        return DecisionsAnswer(**{name: torch.cat(parts)[order].numpy() for name, parts in state.items()})

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:  # noqa: ARG002 part of the protocol
        """40 bytes an image, twice while stacking."""
        return 2 * 40 * self.images
