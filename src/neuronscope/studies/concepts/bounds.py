"""Where a unit counts as active: above a threshold, or within a range of its activations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from neuronscope.errors import InputError


@dataclass(frozen=True, eq=False)
class Bounds:
    """Detectors: units of a layer, each with the activations at which it counts as active (both ends excluded).

    Attributes:
        unit: place of each detector's unit in the layer.
        lower: activations at or below do not count; nan: never active.
        upper: activations at or above do not count.
    """

    unit: Int[np.ndarray, "d"]
    lower: Float[np.ndarray, "d"]
    upper: Float[np.ndarray, "d"]

    def __len__(self) -> int:
        """Number of detectors."""
        return len(self.unit)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Units, lower and upper bounds."""
        return self.unit, self.lower, self.upper

    def inside(self, maps: torch.Tensor) -> torch.Tensor:
        """Where detectors are active: (n, units, ...) to (n, detectors, ...), without any enlarging."""
        chosen = maps[:, torch.from_numpy(self.unit).to(maps.device)]
        shape = (1, -1, *[1] * (maps.ndim - 2))
        lower = torch.from_numpy(self.lower).to(maps.device).reshape(shape)
        upper = torch.from_numpy(self.upper).to(maps.device).reshape(shape)
        return (chosen > lower) & (chosen < upper)


def above(thresholds: Float[np.ndarray, "u"]) -> Bounds:
    """One detector for each unit: everything above its threshold."""
    return Bounds(np.arange(len(thresholds)), thresholds, np.full(len(thresholds), np.inf))


def between(ranges: Float[np.ndarray, "u k 2"]) -> Bounds:
    """Detectors of all ranges of a unit, unit by unit."""
    units, k, _ = ranges.shape
    flat = ranges.reshape(-1, 2)
    return Bounds(np.repeat(np.arange(units), k), flat[:, 0].copy(), flat[:, 1].copy())


def chosen_units(words: str, units: int, *, layer: str) -> Int[np.ndarray, "m"]:
    """The units that `0-63,80` asks for, ascending; all for an empty text.

    Raises:
        InputError: not a list of numbers and ranges, or a unit that the layer does not have.

    Example:
        >>> chosen_units("7,0-2", 8, layer="conv1").tolist()
        [0, 1, 2, 7]
    """
    if not words.strip():
        return np.arange(units)
    found: set[int] = set()
    for part in words.replace(" ", "").split(","):
        first, _, last = part.partition("-")
        if not (first.isdecimal() and (not last or last.isdecimal())):
            message = f"units '{words}' cannot be read at '{part}': expected numbers and ranges, as in 0-63,80"
            raise InputError(message)
        found |= set(range(int(first), int(last or first) + 1))
    if not found or max(found) >= units:
        message = (
            f"units '{words}' go up to {max(found, default=0)}, and layer '{layer}' has units 0 to {units - 1}. "
            "Ask for those, or choose another layer"
        )
        raise InputError(message)
    return np.array(sorted(found))
