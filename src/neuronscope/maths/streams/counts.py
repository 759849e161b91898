"""Whole-number tables: right and wrong predictions, and units that are active together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from neuronscope.errors import InputError
from neuronscope.maths.streams.protocol import Seen, State


@dataclass(frozen=True)
class Confusion:
    """Counts of images by true class (row) and predicted class (column); images without a label are left out.

    Ties in the logits go to the first class. Rows and columns beyond the data's classes stay empty.
    """

    of: str
    classes: int

    def start(self) -> State:
        """Nothing seen."""
        return {"counts": torch.zeros(self.classes, self.classes, dtype=torch.int64)}

    def add(self, state: State, seen: Seen) -> State:
        """One more batch.

        Raises:
            InputError: a label or a prediction lies outside the table.
        """
        label = seen["label"].cpu()
        predicted = seen[self.of].argmax(1).cpu()[label >= 0]
        beyond = int(torch.cat([label, predicted]).max())
        if beyond >= self.classes:
            message = (
                f"class {beyond} came where a table of {self.classes} classes (0 to {self.classes - 1}) was asked for"
            )
            raise InputError(message)
        flat = label[label >= 0] * self.classes + predicted
        state["counts"] += torch.bincount(flat, minlength=self.classes**2).view(self.classes, self.classes)
        return state

    def merge(self, left: State, right: State) -> State:
        """Counts add up."""
        return {"counts": left["counts"] + right["counts"]}

    def finish(self, state: State) -> Int[np.ndarray, "true predicted"]:
        """The table."""
        counts: Tensor = state["counts"]
        return counts.numpy()

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:  # noqa: ARG002 part of the protocol
        """8 bytes a cell."""
        return 8 * self.classes**2


@dataclass(frozen=True)
class CoActivation:
    """In how many images two units are both active; the diagonal counts the images with one unit active.

    Attributes:
        of: name of a measurement of shape (n, u).
        units: first and last (exclusive) column of the measurement to pair up, None for all.
        threshold: a value above it counts as active.
    """

    of: str
    units: tuple[int, int] | None = None
    threshold: float = 0.0

    def start(self) -> State:
        """Nothing seen."""
        return {}

    def add(self, state: State, seen: Seen) -> State:
        """One more batch."""
        first, last = self.units or (0, seen[self.of].shape[1])
        active = (seen[self.of][:, first:last] > self.threshold).float()
        joint = (active.T @ active).to(torch.int64)  # exact: a batch holds fewer than 2^24 images
        return self.merge(state, {"joint": joint})

    def merge(self, left: State, right: State) -> State:
        """Counts add up."""
        return {"joint": left["joint"] + right["joint"]} if left and right else left or right

    def finish(self, state: State) -> Int[np.ndarray, "u u"]:
        """The symmetric table of joint counts."""
        joint: Tensor = state["joint"]
        return joint.cpu().numpy()

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """8 bytes a pair."""
        first, last = self.units or (0, shapes[self.of][0])
        return 8 * (last - first) ** 2
