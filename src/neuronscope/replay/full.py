"""The way that always works: the whole network runs with the layer's output replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from neuronscope.hooks import intercepted, observed
from neuronscope.replay.live import Live, Logits
from neuronscope.replay.onebyone import masked_by_one, single_by_one
from neuronscope.units import LayerInfo


@dataclass(frozen=True)
class Full:
    """Hook and full forward pass."""

    module: nn.Module
    layer: LayerInfo

    @torch.inference_mode()
    def prefix(self, images: Tensor) -> Live:
        """One forward pass; keeps the images."""
        seen: list[Tensor] = []
        with observed(self.module, {self.layer: lambda output: seen.append(output.clone())}):
            logits = self.module(images)
        return Live(output=seen[0], logits=logits, kept={"images": images})

    def single(self, live: Live, units: Sequence[int], fill: Tensor) -> Logits:
        """Logits with one unit replaced, for each unit."""
        return single_by_one(self.replay, live, units, fill)

    def masked(self, live: Live, masks: Bool[Tensor, "m units"], fill: Tensor) -> Logits:
        """Logits with a set of units replaced, for each mask."""
        return masked_by_one(self.replay, live, masks, fill)

    def replay(self, live: Live, edited: Float[Tensor, "n units *map"]) -> Float[Tensor, "n classes"]:
        """Logits with the layer's output replaced."""
        output = as_made(edited, self.layer).clone()
        with intercepted(self.module, {self.layer: lambda _output: output}):
            logits: Tensor = self.module(live.kept["images"])
        return logits


def as_made(output: Float[Tensor, "n units *map"], layer: LayerInfo) -> Tensor:
    """The layer's output with its axes in the network's own order: undoes `hooks.units_first`."""
    return output if layer.channel_axis == 1 else output.movedim(1, layer.channel_axis)
