"""What to do with one batch: frozen callables from (network, batch) to named measurements.

A step reduces inside the hook: full maps never leave it unless they are asked for. The measurements of all layers stand
side by side in one table, (n, units of all layers), in the order of the layers; `columns` says which is whose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from neuronscope.data.dataset import Batch
from neuronscope.errors import InputError
from neuronscope.hooks import observed, tapped, units_first
from neuronscope.maths.streams import Seen
from neuronscope.units import LayerInfo

_SMALL_MAP = 512  # positions; below it, one pass for value and place is quickest
_BLOCKS = (128, 98, *(size for size in range(130, 63, -1) if size not in (128, 98)))  # the first two were quickest


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


def spatial_mean(maps: Tensor) -> Mapping[str, Tensor]:
    """Mean over the positions of each map."""
    return {"mean": maps.mean(2)}


def spatial_max(maps: Tensor) -> Mapping[str, Tensor]:
    """Largest value of each map and its row-major position (the first of equals)."""
    n, units, positions = maps.shape
    block = _block(positions)
    if block == positions:
        value, place = maps.max(2)
        return {"max": value, "max_at": place.int()}
    blocks = maps.reshape(n, units, -1, block)
    best = blocks.amax(3).argmax(2, keepdim=True)
    value, inside = blocks.gather(2, best[..., None].expand(-1, -1, 1, block)).squeeze(2).max(2)
    return {"max": value, "max_at": (best.squeeze(2) * block + inside).int()}


def _block(positions: int) -> int:
    """Positions to a block when looking for a maximum: its place is costly, so it is sought in one block only."""
    if positions < _SMALL_MAP:
        return positions
    return next((size for size in _BLOCKS if positions % size == 0), positions)


def spatial_rate(maps: Tensor) -> Mapping[str, Tensor]:
    """Fraction of positions with a positive value."""
    return {"rate": maps.gt(0).float().mean(2)}


def spatial_square(maps: Tensor) -> Mapping[str, Tensor]:
    """Mean square over the positions of each map."""
    return {"square": torch.linalg.vector_norm(maps, dim=2).square_().div_(maps.shape[2])}


MEASURES: dict[str, Callable[[Tensor], Mapping[str, Tensor]]] = {
    "mean": spatial_mean,
    "max": spatial_max,
    "rate": spatial_rate,
    "square": spatial_square,
}
"""Name -> function from maps (n, units, positions) to named measurements of shape (n, units)."""


def columns(layers: Sequence[LayerInfo]) -> dict[str, slice]:
    """Layer name -> its columns in a measurement of all layers."""
    starts: dict[str, slice] = {}
    first = 0
    for layer in layers:
        starts[layer.name] = slice(first, first + layer.units)
        first += layer.units
    return starts


@dataclass(frozen=True)
class Observe:
    """One forward pass: measurements of all layers, and the logits.

    Attributes:
        layers: whose outputs to measure.
        measures: names in `MEASURES`; their outcomes have shape (n, units of all layers).
        maps: layers whose whole output is passed on too, as `maps/NAME` of shape (n, units, ...).
    """

    layers: tuple[LayerInfo, ...]
    measures: tuple[str, ...] = ("mean",)
    maps: tuple[str, ...] = ()

    def __call__(self, model: nn.Module, batch: Batch) -> Seen:
        """Measure one batch."""
        found: dict[str, dict[str, Tensor]] = {}
        whole: dict[str, Tensor] = {}

        def visitor(layer: LayerInfo) -> Callable[[Tensor], None]:
            def visit(maps: Tensor) -> None:
                flat = maps.reshape(*maps.shape[:2], -1)
                found[layer.name] = {k: v for name in self.measures for k, v in MEASURES[name](flat).items()}
                if layer.name in self.maps:
                    whole[f"maps/{layer.name}"] = maps.clone()

            return visit

        with torch.inference_mode(), observed(model, {layer: visitor(layer) for layer in self.layers}):
            logits = model(batch.image)
        check_called(self.layers, found)
        tables = [found[layer.name] for layer in self.layers]
        table = {name: torch.cat([one[name] for one in tables], dim=1) for name in (tables[0] if tables else ())}
        return {"index": batch.index, "label": batch.label, "logits": logits, **table, **whole}

    def shapes(self, outputs: int) -> Mapping[str, tuple[int, ...]]:
        """All measurements and the logits."""
        units = sum(layer.units for layer in self.layers)
        names = [*self.measures, *(["max_at"] if "max" in self.measures else [])]
        maps = {
            f"maps/{layer.name}": (layer.units, *layer.map_shape) for layer in self.layers if layer.name in self.maps
        }
        return {**dict.fromkeys(names, (units,)), "logits": (outputs,), **maps}

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass."""
        return (1, 0)


@dataclass(frozen=True)
class GradientTimesActivation:
    """One forward and one backward pass: how much each unit adds to a class score, to first order.

    The measurement `attribution` (n, units of all layers) is the sum over the positions of activation times the
    gradient of the target's logit, as in Captum's `LayerGradientXActivation`; `size` is its absolute value.

    Attributes:
        layers: whose units to attribute to.
        target: the logit to explain: the true class, or the predicted one. Images without a label take the predicted.
    """

    layers: tuple[LayerInfo, ...]
    target: Literal["label", "prediction"] = "label"

    def __call__(self, model: nn.Module, batch: Batch) -> Seen:
        """Attribute one batch."""
        with torch.enable_grad(), tapped(model, self.layers) as kept:
            logits = model(batch.image)
            predicted = logits.detach().argmax(1)
            known = (batch.label >= 0) & (batch.label < logits.shape[1])
            target = torch.where(known, batch.label, predicted) if self.target == "label" else predicted
            check_called(self.layers, kept)
            total = logits.gather(1, target[:, None]).sum()
            outputs = [kept[layer.name] for layer in self.layers]
            gradients = torch.autograd.grad(total, outputs, allow_unused=True)
        parts = []
        for layer, output, gradient in zip(self.layers, outputs, gradients, strict=True):
            share = output.detach() * gradient if gradient is not None else torch.zeros_like(output)
            parts.append(units_first(share, layer).reshape(output.shape[0], layer.units, -1).sum(2))
        table = torch.cat(parts, dim=1).detach()
        return {
            "index": batch.index,
            "label": batch.label,
            "logits": logits.detach(),
            "attribution": table,
            "size": table.abs(),
        }

    def shapes(self, outputs: int) -> Mapping[str, tuple[int, ...]]:
        """The attributions and the logits."""
        units = sum(layer.units for layer in self.layers)
        return {"attribution": (units,), "size": (units,), "logits": (outputs,)}

    @property
    def passes(self) -> tuple[int, int]:
        """One of each."""
        return (1, 1)


@dataclass(frozen=True)
class Predict:
    """One forward pass and nothing but the logits."""

    def __call__(self, model: nn.Module, batch: Batch) -> Seen:
        """Predict one batch."""
        with torch.inference_mode():
            logits = model(batch.image)
        return {"index": batch.index, "label": batch.label, "logits": logits}

    def shapes(self, outputs: int) -> Mapping[str, tuple[int, ...]]:
        """The logits."""
        return {"logits": (outputs,)}

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass."""
        return (1, 0)


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
