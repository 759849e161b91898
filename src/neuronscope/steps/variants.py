"""What a network says when parts of it are changed: several edited networks on the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from neuronscope.data.dataset import Batch
from neuronscope.edits import Edit
from neuronscope.hooks import applied, observed
from neuronscope.maths.streams import Seen
from neuronscope.replay.chain import chain_of
from neuronscope.replay.live import UnsuitedError
from neuronscope.replay.modules import Modules
from neuronscope.steps.ablate import answers
from neuronscope.steps.silence import donors
from neuronscope.units import LayerInfo

_WORTH = 8  # variants from which on it pays to run the network once more to see whether it can be shortened

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
        if chain is None:
            yield from self._with_hooks(model, batch, lenders)
            return
        for edits, logits in zip(self.variants, chain.logits(batch.image, self.layers, self.variants), strict=False):
            if logits is not None:
                yield logits
                continue
            with applied(model, self.layers, edits, donors=lenders):
                yield model(batch.image)

    def _with_hooks(self, model: nn.Module, batch: Batch, lenders: Tensor) -> Iterator[Tensor]:
        """Each variant's logits; what ended before the first edited layer is not computed again."""
        run = self._shortened(model, batch, lenders)
        for edits in self.variants:
            with applied(model, self.layers, edits, donors=lenders):
                yield run()

    def _shortened(self, model: nn.Module, batch: Batch, lenders: Tensor) -> Callable[[], Tensor]:
        """The network from the first edited layer on, proven with the most edited variant; else the whole network."""

        def whole() -> Tensor:
            logits: Tensor = model(batch.image)
            return logits

        named = {edit.units.layer for edits in self.variants for edit in edits}
        edited = [layer for layer in self.layers if layer.name in named]
        if len(self.variants) < _WORTH or not edited:
            return whole
        order: list[str] = []
        with observed(model, {layer: partial(_note, order, layer.name) for layer in edited}):
            model(batch.image[:1])
        first = next(layer for layer in edited if layer.name == order[0])
        front = Modules(model, first)
        try:
            live = front.prefix(batch.image)
            with applied(model, self.layers, max(self.variants, key=len), donors=lenders):
                same = torch.equal(front.rest(live), model(batch.image))
        except UnsuitedError:
            return whole
        return (lambda: front.rest(live)) if same else whole

    def shapes(self, outputs: int) -> Mapping[str, tuple[int, ...]]:  # noqa: ARG002 part of the protocol
        """Predictions and losses."""
        return {"predicted": (len(self.variants),), "surprise": (len(self.variants),)}

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass for each variant."""
        return (len(self.variants), 0)


def _note(order: list[str], name: str, _output: Tensor) -> None:
    order.append(name)
