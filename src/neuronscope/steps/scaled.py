"""What a network says when the outputs of its layers are multiplied by scale maps: many configurations of one batch.

The images are read, augmented and run up to the first scaled layer once for all configurations, and what configurations
do alike runs once after that, too (`replay.stages`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from neuronscope.data.dataset import Batch
from neuronscope.errors import InputError
from neuronscope.maths.guide_masks import UNMASKED, ScaleMap
from neuronscope.maths.streams import Seen
from neuronscope.replay.stages import Scales, Stages, staged
from neuronscope.steps.augmented import Augmented
from neuronscope.steps.recent import state_of
from neuronscope.units import LayerInfo

_SHORT = torch.iinfo(torch.int16).max


@dataclass(frozen=True)
class Scaling:
    """One configuration.

    Attributes:
        name: for the reader of the answer.
        maps: layer -> what its output is multiplied by; layers that are not named stay as they are.
    """

    name: str
    maps: Mapping[str, ScaleMap]


@dataclass(frozen=True)
class PredictScaled:
    """The first classes of one batch under each configuration, the network as it is first.

    Measurements, with `m` configurations: `rank` of shape (n, 1 + m), how many classes come before the label (0 where
    it is right, -1 without a label); `top` of shape (n, 1 + m, k), the first classes; `probability` of the same shape,
    theirs (one softmax). Classes of equal logit come by number. Ranks and classes are 16-bit numbers where these do.

    The original's networks end with several softmaxes, one on another (`softmaxes`): probabilities are nearly uniform
    then, and in 32 bits many are equal. The order of classes is that of these numbers, equal ones by class number.

    Attributes:
        layers: those that configurations scale; whole layers.
        scalings: configurations.
        augmented: what is done to the images before the network; None where they come prepared.
        k: how many classes are told.
        softmaxes: how many are taken, one of the other.
    """

    layers: tuple[LayerInfo, ...]
    scalings: tuple[Scaling, ...]
    augmented: Augmented | None = None
    k: int = 5
    softmaxes: int = 1

    def __post_init__(self) -> None:
        """Refuse scale maps of layers that are not there, or of another size.

        Raises:
            InputError: a layer is not given, a scale map has not one number for each element of its output, or no
                class is to be told, or no softmax taken.
        """
        if self.k < 1 or self.softmaxes < 1:
            message = f"k is {self.k} and softmaxes {self.softmaxes}: expected at least 1, the first class of one"
            raise InputError(message)
        sizes = {layer.name: prod(layer.shape) for layer in self.layers}
        for scaling in self.scalings:
            for name, own in scaling.maps.items():
                if name not in sizes:
                    message = (
                        f"'{scaling.name}' scales layer '{name}', which is not among the layers of this step: "
                        f"{', '.join(sizes) or 'none'}. Give the layers that the guides are of"
                    )
                    raise InputError(message)
                if len(own.guide.values) != sizes[name]:
                    message = (
                        f"'{scaling.name}' has {len(own.guide.values)} numbers for layer '{name}', whose output has "
                        f"{sizes[name]} elements. Take sensitivities of this network at this input size"
                    )
                    raise InputError(message)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the second axis of all measurements."""
        return (UNMASKED, *(scaling.name for scaling in self.scalings))

    def __call__(self, model: nn.Module, batch: Batch) -> Seen:
        """Predict one batch as often as there are configurations, and once as it is."""
        with torch.inference_mode():
            images = batch.image if self.augmented is None else self.augmented.prepared(batch)
            scalings = [{}, *(scaling.maps for scaling in self.scalings)]
            seen: dict[str, Tensor] = {}
            stages = _stages_of(model, self.layers, images)
            for number, logits in stages.logits(images, scalings, _scales_on(images)):
                for name, values in self._measured(logits, batch.label).items():
                    if name not in seen:
                        seen[name] = values.new_empty((len(values), len(scalings), *values.shape[1:]))
                    seen[name][:, number] = values
        return {"index": batch.index, "label": batch.label, **seen}

    def _measured(self, logits: Float[Tensor, "n c"], label: Int[Tensor, "n"]) -> dict[str, Tensor]:
        values, classes = logits.softmax(1).float(), logits.shape[1]
        for _ in range(self.softmaxes - 1):
            values = values.softmax(1)
        whole = torch.int16 if classes <= _SHORT else torch.int32
        # by logits, which differ where probabilities round to the same number
        order = logits if self.softmaxes == 1 else values
        top = order.argsort(dim=1, descending=True, stable=True)[:, : self.k]
        return {
            "rank": label_ranks(order, label).to(whole),
            "top": top.to(whole),
            "probability": values.gather(1, top),
        }

    def shapes(self, outputs: int) -> Mapping[str, tuple[int, ...]]:
        """Ranks, first classes and their probabilities."""
        many, k = 1 + len(self.scalings), min(self.k, outputs)
        return {"rank": (many,), "top": (many, k), "probability": (many, k)}

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass."""
        return (1, 0)

    @property
    def replays(self) -> int:
        """How often what follows the first scaled layer is run again for each image."""
        return len(self.scalings)


def label_ranks(logits: Float[Tensor, "n c"], label: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
    """How many classes come before the label, equal logits by class number; -1 without a label.

    A label whose logit is not a number comes last.
    """
    classes = logits.shape[1]
    known = (label >= 0) & (label < classes)
    own = logits.gather(1, label.where(known, 0)[:, None])
    earlier = torch.arange(classes, device=logits.device)[None] < label[:, None]
    ahead = (~(logits <= own) | ((logits == own) & earlier)).sum(1)
    return ahead.where(known, -1)


_kept: list[tuple[nn.Module, object, Stages]] = []
"""At most one, as in `recent`: a cut network takes as much memory as its weights."""


def _stages_of(model: nn.Module, layers: tuple[LayerInfo, ...], images: Tensor) -> Stages:
    """The network cut at the layers, kept from batch to batch as long as it is the very same network.

    Which way it takes is decided on noise, not on the images: it must not depend on which images come first, or an
    interrupted sweep would go on with other numbers.
    """
    now = (layers, tuple(images.shape[1:]), images.device, images.dtype, state_of(model))
    for known, then, made in _kept:
        if known is model and then == now:
            return made
    _kept.clear()  # before the next one is made: there is never memory for two
    noise = torch.randn(2, *images.shape[1:], generator=torch.Generator().manual_seed(0)).to(images)
    made = staged(model, layers, noise)
    _kept.append((model, now, made))
    return made


def _scales_on(images: Tensor) -> Scales:
    """What makes tensors of scale maps, where the images are."""

    def scales(layer: LayerInfo, own: ScaleMap) -> Float[Tensor, "units *map"]:
        return torch.from_numpy(own.scales()).to(images).view(layer.units, *layer.map_shape)

    return scales
