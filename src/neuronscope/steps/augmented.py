"""Looking at augmented images: each row's own augmentations, one forward pass, whole maps of some layers.

Augmentations act on pixels from 0 to 1, so the batch brings these, and the normalisation is done here, after them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuronscope.augment import Augmentation, compose, stretch
from neuronscope.data.dataset import Batch
from neuronscope.hooks import observed
from neuronscope.maths.streams import Seen
from neuronscope.steps.protocol import check_called
from neuronscope.units import LayerInfo

Output = Literal["softmax", "logits"]
Range = Literal["as it is", "stretched"]


@dataclass(frozen=True)
class Augmented:
    """One forward pass of augmented images.

    Measurements: `maps/NAME` of shape (n, scalars), a layer's whole output, unit after unit; `mean/NAME` of shape (n,
    units), its mean over positions; `logits`. A row's parameters are the values of all augmentations, then whether each
    is applied (0 or 1), then their order.

    Attributes:
        layers: whose outputs to look at.
        augmentations: what the parameters are of.
        mean, std: normalisation of the network; empty for none.
        classifier: layers whose output, one number a class, is the network's (the last layer, and modules that end
            with it): looked at as probabilities if `output` says so.
        output: what the classifier's output is looked at as. The softmax is taken once, of what is looked at alone.
        range: `stretched` maps each channel of each image to 0..1 before the normalisation (the original's way).
        maps: whether to pass on whole maps.
        means: whether to pass on means over positions.
    """

    layers: tuple[LayerInfo, ...]
    augmentations: tuple[Augmentation, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    classifier: tuple[str, ...] = ()
    output: Output = "softmax"
    range: Range = "as it is"
    maps: Literal["all", "none"] = "all"
    means: Literal["all", "none"] = "none"

    def __call__(self, model: nn.Module, batch: Batch) -> Seen:
        """Look at one batch."""
        seen: dict[str, Tensor] = {}
        called: dict[str, object] = {}

        def visitor(layer: LayerInfo) -> Callable[[Tensor], None]:
            def visit(maps: Tensor) -> None:
                called[layer.name] = True
                if layer.name in self.classifier and self.output == "softmax":
                    maps = maps.softmax(1)
                if self.maps == "all":
                    # A copy: a later in-place operation of the network would change what is looked at.
                    seen[f"maps/{layer.name}"] = maps.flatten(1).clone()
                if self.means == "all":
                    seen[f"mean/{layer.name}"] = maps.flatten(2).mean(2) if maps.ndim > 2 else maps.clone()  # noqa: PLR2004 maps have positions

            return visit

        with torch.inference_mode(), observed(model, {layer: visitor(layer) for layer in self.layers}):
            logits = model(self.prepared(batch))
        check_called(self.layers, called)
        return {"index": batch.index, "label": batch.label, "logits": logits, **seen}

    def prepared(self, batch: Batch) -> Float[Tensor, "n c h w"]:
        """The images as the network gets them: augmented and normalised."""
        image = augmented(self.augmentations, batch)
        if self.range == "stretched":
            image = stretch(image)
        if not self.mean:
            return image
        shape = (1, -1, 1, 1)
        mean, std = (image.new_tensor(values).view(shape) for values in (self.mean, self.std))
        return image.sub_(mean).div_(std)

    def shapes(self, outputs: int) -> Mapping[str, tuple[int, ...]]:
        """Maps, means and logits."""
        maps = {f"maps/{layer.name}": (prod(layer.shape),) for layer in self.layers} if self.maps == "all" else {}
        means = {f"mean/{layer.name}": (layer.units,) for layer in self.layers} if self.means == "all" else {}
        return {"logits": (outputs,), **maps, **means}

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass."""
        return (1, 0)


def augmented(augmentations: tuple[Augmentation, ...], batch: Batch) -> Float[Tensor, "n c h w"]:
    """The images of a batch with each row's augmentations, 0 to 1; a copy, also where nothing is applied.

    Args:
        augmentations: what the batch's parameters are of.
        batch: images from 0 to 1, with parameters: values, switches, order.
    """
    if batch.parameters is None:
        return batch.image.clone()
    many, count = sum(len(one.parameters) for one in augmentations), len(augmentations)
    # One way to the processor for all three tables: there it is decided which rows meet which augmentation.
    table = batch.parameters.cpu()
    values, switches, order = table[:, :many], table[:, many : many + count], table[:, many + count :]
    return compose(augmentations, batch.image, values, switches > 0.5, order.long())  # noqa: PLR2004 0 or 1
