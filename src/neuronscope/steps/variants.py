"""What a network says when parts of it are changed: several edited networks on the same images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat

import torch
from torch import Tensor, nn

from neuronscope.data.dataset import Batch
from neuronscope.edits import Edit
from neuronscope.hooks import applied
from neuronscope.maths.streams import Seen
from neuronscope.replay.chain import chain_of
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
            for number, logits in enumerate(self._logits(model, batch, lenders)):
                predicted[:, number] = logits.argmax(1).int()
                surprise[:, number] = answers(logits[None], batch.label)["loss"][0]
        return {"index": batch.index, "label": batch.label, "predicted": predicted, "surprise": surprise}

    def _logits(self, model: nn.Module, batch: Batch, lenders: Tensor) -> Iterator[Tensor]:
        """Each variant's logits; where the network is a chain, what is silent is not computed."""
        chain = chain_of(model, self.layers, batch.image)
        fast = chain.logits(batch.image, self.layers, self.variants) if chain is not None else repeat(None)
        for edits, logits in zip(self.variants, fast, strict=False):
            if logits is not None:
                yield logits
                continue
            with applied(model, self.layers, edits, donors=lenders):
                yield model(batch.image)

    def shapes(self, outputs: int) -> Mapping[str, tuple[int, ...]]:  # noqa: ARG002 part of the protocol
        """Predictions and losses."""
        return {"predicted": (len(self.variants),), "surprise": (len(self.variants),)}

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass for each variant."""
        return (len(self.variants), 0)
