"""Looking: measurements of every unit's map, and what the network says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuronscope.data.dataset import Batch
from neuronscope.hooks import observed
from neuronscope.maths.streams import Seen
from neuronscope.steps.protocol import check_called
from neuronscope.units import LayerInfo

_SMALL_MAP = 512  # positions; below it, one pass for value and place is quickest
_BLOCKS = (128, 98, *(size for size in range(130, 63, -1) if size not in (128, 98)))  # the first two were quickest


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
