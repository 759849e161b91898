"""What a pass over the images leaves of the units' maps: counts of label sets, and how well chosen formulas fit.

Both reducers take whole maps of a layer, upsample them to the masks, and keep whole numbers only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from neuronscope.maths.signatures import CountFold, Signatures, UnitCounts, active_pixels, signature_of
from neuronscope.maths.streams import Seen, State


@dataclass(frozen=True, eq=False)
class CountSignatures:
    """Active pixels of every unit by label set.

    Attributes:
        of: measurement with a layer's maps (n, units, height, width), or (n, units) for a flat layer.
        signatures: the label sets of the images; image i of the pass is image i there.
        thresholds: of each unit; a unit whose threshold is nan is never active.
        shape: height and width of the masks.
    """

    of: str
    signatures: Signatures
    thresholds: Float[np.ndarray, "u"]
    shape: tuple[int, int]

    @property
    def fold(self) -> CountFold:
        """Counts as the search wants them."""
        return CountFold(self.signatures, len(self.thresholds))

    def start(self) -> State:
        """Nothing seen."""
        return {name: torch.from_numpy(values) for name, values in self.fold.start().items()}

    def add(self, state: State, seen: Seen) -> State:
        """One more batch."""
        arrays = {name: values.numpy() for name, values in state.items()}
        rows = seen["index"].cpu().numpy()
        for unit, image, pixel in firing(seen[self.of].cpu().numpy(), self.thresholds, shape=self.shape):
            self.fold.add(arrays, unit=np.full(len(image), unit), image=rows[image], pixel=pixel)
        return state

    def merge(self, left: State, right: State) -> State:
        """Counts add up."""
        return {name: left[name] + right[name] for name in left}

    def finish(self, state: State) -> list[UnitCounts]:
        """Counts of each unit."""
        return list(self.fold.finish({name: values.numpy() for name, values in state.items()}))

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:  # noqa: ARG002 part of the protocol
        """4 bytes for each unit and label set, and each unit and image."""
        return self.fold.nbytes


@dataclass(frozen=True, eq=False)
class Fitting:
    """How well each unit's formula fits it, and how well it fits when masks are laid over other images.

    Attributes:
        of: measurement with a layer's maps.
        signatures: the label sets of the images.
        holds: for each unit, the label sets that satisfy its formula.
        thresholds: of each unit.
        shape: height and width of the masks.
        other: for each draw, the image whose labels each image's mask is laid over.
    """

    of: str
    signatures: Signatures
    holds: Sequence[Bool[np.ndarray, "s"]]
    thresholds: Float[np.ndarray, "u"]
    shape: tuple[int, int]
    other: Int[np.ndarray, "draws n"]

    def start(self) -> State:
        """Nothing seen."""
        zero = torch.zeros(len(self.thresholds), dtype=torch.int64)
        draws = torch.zeros((len(self.thresholds), len(self.other)), dtype=torch.int64)
        return {"active": zero, "hits": zero.clone(), "images": zero.clone(), "chance": draws}

    def add(self, state: State, seen: Seen) -> State:
        """One more batch."""
        rows = seen["index"].cpu().numpy()
        for unit, image, pixel in firing(seen[self.of].cpu().numpy(), self.thresholds, shape=self.shape):
            own = rows[image]
            state["active"][unit] += len(image)
            state["images"][unit] += len(np.unique(own))
            state["hits"][unit] += int(self.holds[unit][signature_of(self.signatures, own, pixel)].sum())
            for draw, other in enumerate(self.other):
                there = self.holds[unit][signature_of(self.signatures, other[own], pixel)]
                state["chance"][unit, draw] += int(there.sum())
        return state

    def merge(self, left: State, right: State) -> State:
        """Counts add up."""
        return {name: left[name] + right[name] for name in left}

    def finish(self, state: State) -> dict[str, np.ndarray]:
        """`active` pixels, `hits` among them, `images` with any, and `chance` hits of each draw."""
        return {name: values.numpy() for name, values in state.items()}

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:  # noqa: ARG002 part of the protocol
        """8 bytes for each unit and draw."""
        return 8 * len(self.thresholds) * (3 + len(self.other))


def firing(
    maps: Float[np.ndarray, "n u *map"], thresholds: Float[np.ndarray, "u"], *, shape: tuple[int, int]
) -> list[tuple[int, Int[np.ndarray, "m"], Int[np.ndarray, "m"]]]:
    """For each unit that is active in a batch: the images and pixels, upsampled bilinearly to the masks, above it.

    A flat layer counts as one with maps of a single position.
    """
    whole = maps
    if maps.ndim == 2:  # noqa: PLR2004 a flat layer
        whole = maps[:, :, None, None]
    found = []
    for unit in np.flatnonzero(~np.isnan(thresholds)):
        image, pixel = active_pixels(np.ascontiguousarray(whole[:, unit]), above=float(thresholds[unit]), shape=shape)
        if len(image):
            found.append((int(unit), image, pixel))
    return found
