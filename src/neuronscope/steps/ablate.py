"""Silencing units of one layer, exactly: one by one, or in sets. Only what follows the layer is computed again.

The network is cut at the layer (`replay`), so the images go through the front once, however many units are silenced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from neuronscope.data.dataset import Batch
from neuronscope.errors import InputError
from neuronscope.maths.streams import Seen
from neuronscope.replay import MEMORY
from neuronscope.steps.recent import cut_at
from neuronscope.steps.silence import ZERO, Fill
from neuronscope.units import LayerInfo


@dataclass(frozen=True)
class Ablate:
    """Every unit of one layer silenced alone: what each image's answer loses.

    Measurements of shape (n, units): `accuracy_fall` (right before and wrong after: 1, the reverse: -1, else 0),
    `logit_fall` and `loss_rise` of the image's label. Images without a label give nan. `logits` are those of the
    untouched network.

    Attributes:
        layer: whose units.
        fill: what stands in their place.
        memory: bytes of activations that replays may hold at once.
    """

    layer: LayerInfo
    fill: Fill = ZERO
    memory: int = MEMORY

    def __call__(self, model: nn.Module, batch: Batch) -> Seen:
        """Ablate one batch."""
        with torch.inference_mode():
            way = cut_at(model, self.layer, batch.image, memory=self.memory)
            live = way.prefix(batch.image)
            before = answers(live.logits[None], batch.label)
            n = len(batch.index)
            found = {name: live.logits.new_full((n, self.layer.units), torch.nan) for name in FALLS}
            fill = fill_at(self.layer, self.fill, live.output, batch)
            own = range(self.layer.first, self.layer.first + self.layer.units)
            for chosen, logits in way.single(live, own, fill):
                after = answers(logits, batch.label)
                for name, (part, sign) in FALLS.items():
                    found[name][:, chosen] = (sign * (after[part] - before[part])).T.to(live.logits.dtype)
        return {"index": batch.index, "label": batch.label, "logits": live.logits, **found}

    def shapes(self, outputs: int) -> Mapping[str, tuple[int, ...]]:
        """The three falls and the logits."""
        return {**dict.fromkeys(FALLS, (self.layer.units,)), "logits": (outputs,)}

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass."""
        return (1, 0)

    @property
    def replays(self) -> int:
        """How often what follows the layer is run again for each image."""
        return self.layer.units


@dataclass(frozen=True, eq=False)
class MaskGroup:
    """Sets of units to silence in the same way.

    Attributes:
        masks: one row for each set, true for the units that are silenced.
        fill: what stands in their place.
    """

    masks: Bool[np.ndarray, "m units"]
    fill: Fill = ZERO


@dataclass(frozen=True, eq=False)
class PredictMasked:
    """Many sets of units of one layer silenced, one set at a time.

    Measurements of shape (n, sets of all groups): `predicted`, the class number; `surprise`, the cross-entropy loss of
    the label (nan without one); `ahead`, how many classes have a higher logit than the label (-1 without one).

    Attributes:
        layer: whose units.
        groups: the sets.
        memory: bytes of activations that replays may hold at once.
    """

    layer: LayerInfo
    groups: tuple[MaskGroup, ...] = field(default=())
    memory: int = MEMORY

    def __call__(self, model: nn.Module, batch: Batch) -> Seen:
        """Predict one batch as often as there are sets."""
        with torch.inference_mode():
            way = cut_at(model, self.layer, batch.image, memory=self.memory)
            live = way.prefix(batch.image)
            sets = sum(len(group.masks) for group in self.groups)
            predicted = torch.zeros((len(batch.index), sets), dtype=torch.int32, device=live.logits.device)
            surprise = live.logits.new_zeros((len(batch.index), sets))
            ahead = torch.full_like(predicted, -1)
            known = batch.label >= 0
            first = 0
            for group in self.groups:
                fill = fill_at(self.layer, group.fill, live.output, batch)
                masks = masks_at(self.layer, group.masks).to(live.logits.device)
                for chosen, logits in way.masked(live, masks, fill):
                    place = slice(first + chosen.start, first + chosen.stop)
                    predicted[:, place] = logits.argmax(2).T.int()
                    surprise[:, place] = answers(logits, batch.label)["loss"].T
                    ahead[:, place] = torch.where(known, classes_ahead(logits, batch.label), -1).T.int()
                first += len(group.masks)
        return {
            "index": batch.index,
            "label": batch.label,
            "logits": live.logits,
            "predicted": predicted,
            "surprise": surprise,
            "ahead": ahead,
        }

    def shapes(self, outputs: int) -> Mapping[str, tuple[int, ...]]:
        """Predictions, losses and the logits."""
        sets = sum(len(group.masks) for group in self.groups)
        return {"predicted": (sets,), "surprise": (sets,), "ahead": (sets,), "logits": (outputs,)}

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass."""
        return (1, 0)

    @property
    def replays(self) -> int:
        """How often what follows the layer is run again for each image."""
        return sum(len(group.masks) for group in self.groups)


def classes_ahead(logits: Float[Tensor, "*s n k"], label: Int[Tensor, "n"]) -> Int[Tensor, "*s n"]:
    """How many classes have a higher logit than the label; of the first class for an image without one."""
    own = label.clamp(min=0).expand(logits.shape[:-1])[..., None]
    return (logits > logits.gather(-1, own)).sum(-1)


FALLS: dict[str, tuple[str, int]] = {
    "accuracy_fall": ("right", -1),
    "logit_fall": ("logit", -1),
    "loss_rise": ("loss", 1),
}
"""Measurement -> what of the answers it compares, and in which direction."""


def fill_at(layer: LayerInfo, fill: Fill, output: Tensor, batch: Batch) -> Tensor:
    """What replaces units of a layer's whole output; of a part, 0 stands for the units that are not in it."""
    own = output if layer.whole is None else output.narrow(1, layer.first, layer.units)
    values = fill.maps(own, index=batch.index, label=batch.label)
    if layer.whole is None:
        return values
    axis = min(1, values.ndim - 1)
    shape = list(values.shape)
    shape[axis] = layer.whole
    around = values.new_zeros(shape)
    around.narrow(axis, layer.first, layer.units).copy_(values)
    return around


def masks_at(layer: LayerInfo, masks: Bool[np.ndarray, "m units"]) -> Bool[Tensor, "m all"]:
    """Masks of a layer's units as masks of the whole layer's.

    Raises:
        InputError: they are for another number of units.
    """
    if masks.shape[1] != layer.units:
        message = (
            f"masks for {masks.shape[1]} units do not fit '{layer.title}', which has {layer.units}. "
            "Give one true or false for each unit"
        )
        raise InputError(message)
    whole = np.zeros((len(masks), layer.whole or layer.units), dtype=bool)
    whole[:, layer.first : layer.first + layer.units] = masks
    return torch.from_numpy(whole)


def answers(logits: Tensor, label: Tensor) -> dict[str, Tensor]:
    """Of logits (m, n, classes): whether right, the label's logit, and its loss, each (m, n); nan without a label."""
    known = (label >= 0) & (label < logits.shape[2])
    safe = label.where(known, 0)
    own = logits.gather(2, safe.expand(len(logits), -1)[..., None])[..., 0]
    right = (logits.argmax(2) == safe).to(logits.dtype)
    loss = logits.logsumexp(2) - own
    nan = torch.full_like(own, torch.nan)
    return {name: torch.where(known, part, nan) for name, part in (("right", right), ("logit", own), ("loss", loss))}
