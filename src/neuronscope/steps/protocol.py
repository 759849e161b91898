"""The contract of a step, and what all steps share: whose columns are whose, and whether every layer was called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Protocol, runtime_checkable

from torch import nn

from neuronscope.data.dataset import Batch
from neuronscope.errors import InputError
from neuronscope.maths.streams import Seen
from neuronscope.units import LayerInfo


@runtime_checkable
class Step(Protocol):
    """Turns a batch into measurements; called with the network, which is not part of the step."""

    def __call__(self, model: nn.Module, batch: Batch) -> Seen:
        """`index`, `label` and the measurements of one batch."""
        ...

    def shapes(self, outputs: int) -> Mapping[str, tuple[int, ...]]:
        """Shape of each measurement without its first axis, for a network with so many outputs."""
        ...

    @property
    def passes(self) -> tuple[int, int]:
        """Forward and backward passes for each image."""
        ...


def columns(layers: Sequence[LayerInfo]) -> dict[str, slice]:
    """Layer name -> its columns in a measurement of all layers."""
    starts: dict[str, slice] = {}
    first = 0
    for layer in layers:
        starts[layer.name] = slice(first, first + layer.units)
        first += layer.units
    return starts


def activation_bytes(layers: Sequence[LayerInfo]) -> int:
    """Bytes of the layers' outputs for one image, float32."""
    return 4 * sum(prod(layer.shape) for layer in layers)


def check_called(layers: Sequence[LayerInfo], found: Mapping[str, object]) -> None:
    """Refuse to go on when a layer's hook never fired.

    Raises:
        InputError: a layer was not called in this forward pass.
    """
    missing = [layer.name for layer in layers if layer.name not in found]
    if missing:
        message = (
            f"layer '{missing[0]}' was not called in this forward pass (its hook never fired), although it was when "
            "the network was loaded: does the network choose its path by its input?"
        )
        raise InputError(message)
