"""What a network says when parts of it are changed: several edited networks on the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from neuronscope.data.dataset import Batch
from neuronscope.edits import Edit
from neuronscope.hooks import applied
from neuronscope.maths.streams import Seen
from neuronscope.steps.ablate import answers
from neuronscope.steps.silence import donors
from neuronscope.units import LayerInfo

Variant = tuple[Edit, ...]
"""One edited network; no edit at all is the network itself."""


@dataclass(frozen=True)
class PredictVariants:
    """One forward pass for each edited network.

    Measurements of shape (n, variants): `predicted`, the class number; `surprise`, the cross-entropy loss of the label
    (nan without one).

    Attributes:
        layers: the layers that the edits name.
        variants: the edited networks.
        seed: of the choice of other images, for edits that take their maps.
    """

    layers: tuple[LayerInfo, ...]
    variants: tuple[Variant, ...]
    seed: int = 0

    def __call__(self, model: nn.Module, batch: Batch) -> Seen:
        """Predict one batch as often as there are variants."""
        n, many = len(batch.index), len(self.variants)
        predicted = torch.zeros((n, many), dtype=torch.int32, device=batch.image.device)
        surprise = torch.zeros((n, many), dtype=batch.image.dtype, device=batch.image.device)
        lenders = donors(batch.index, seed=self.seed)
        with torch.inference_mode():
            for number, edits in enumerate(self.variants):
                with applied(model, self.layers, edits, donors=lenders):
                    logits = model(batch.image)
                predicted[:, number] = logits.argmax(1).int()
                surprise[:, number] = answers(logits[None], batch.label)["loss"][0]
        return {"index": batch.index, "label": batch.label, "predicted": predicted, "surprise": surprise}

    def shapes(self, outputs: int) -> Mapping[str, tuple[int, ...]]:  # noqa: ARG002 part of the protocol
        """Predictions and losses."""
        return {"predicted": (len(self.variants),), "surprise": (len(self.variants),)}

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass for each variant."""
        return (len(self.variants), 0)
