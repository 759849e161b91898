"""What a tail keeps of a forward pass, and what may be put in the place of units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from neuronscope.errors import InputError

Way = Literal["closed form", "graph", "modules", "full"]
"""How logits of an edited network are found; see the package."""

Logits = Iterator[tuple[slice, Float[Tensor, "m n classes"]]]
"""Chunks of an answer: which units or masks, by position in what was asked, and their logits."""


@dataclass(frozen=True, eq=False)
class Live:
    """One batch of images, run up to a cut and, unedited, to its end. Its tensors are never changed.

    Attributes:
        output: the layer's output with its unit axis second, as the network made it.
        logits: what the unedited network says.
        kept: what the tail needs besides; belongs to the cut that made it.
    """

    output: Float[Tensor, "n units *map"]
    logits: Float[Tensor, "n classes"]
    kept: Mapping[Any, Any]


@runtime_checkable
class Tail(Protocol):
    """One way to find the logits of an edited network."""

    def prefix(self, images: Tensor) -> Live:
        """One forward pass that keeps what replays need."""

    def single(self, live: Live, units: Sequence[int], fill: Tensor) -> Logits:
        """Logits with one unit replaced, for each unit; `fill` has the shape of the layer's output."""

    def masked(self, live: Live, masks: Bool[Tensor, "m units"], fill: Tensor) -> Logits:
        """Logits with a set of units replaced, for each mask; `fill` has the shape of the layer's output."""


class UnsuitedError(Exception):
    """This way cannot serve this network; the message says why. Never leaves the package."""


def filled(fill: Tensor | float, output: Float[Tensor, "n units *map"]) -> Float[Tensor, "n units *map"]:
    """What replaces units, spread to the shape of the layer's output without copying.

    Args:
        fill: one number; one for each unit (units,); for each image and unit (n, units), either may be 1; or whole maps
            of a donor (n, units, ...), where any axis may be 1.
        output: the layer's output.

    Raises:
        InputError: the shape is none of these.

    Example:
        >>> filled(torch.tensor([1.0, 2.0]), torch.zeros(3, 2, 4, 4))[0, 1, 0]
        tensor([2., 2., 2., 2.])
    """
    values = torch.as_tensor(fill, dtype=output.dtype, device=output.device)
    leading = values.unsqueeze(0) if values.ndim == 1 else values
    if leading.ndim in (0, 2):
        leading = leading.reshape(*leading.shape, *(1,) * (output.ndim - leading.ndim))
    fits = leading.ndim == output.ndim and all(
        size in (1, whole) for size, whole in zip(leading.shape, output.shape, strict=True)
    )
    if not fits:
        n, units = output.shape[:2]
        message = (
            f"a fill of shape {tuple(values.shape)} does not fit a layer's output of shape {tuple(output.shape)}. "
            f"Give one number, {units} numbers, ({n}, {units}) numbers, or whole maps of the output's shape"
        )
        raise InputError(message)
    return leading.expand(output.shape)
