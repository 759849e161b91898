"""Edits run one after the other, each on the whole batch: for tails that cannot take several at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from neuronscope.replay.live import Live, Logits

Replay = Callable[[Live, Float[Tensor, "n units *map"]], Float[Tensor, "n classes"]]
"""Logits with the layer's output, unit axis second, replaced by another."""

_AT_ONCE = 16  # answers in one chunk; they only pass the time until the caller sees something


def single_by_one(replay: Replay, live: Live, units: Sequence[int], fill: Tensor) -> Logits:
    """Logits with one unit replaced, for each unit."""
    masks = torch.zeros(len(units), live.output.shape[1], dtype=torch.bool, device=live.output.device)
    masks[torch.arange(len(units)), list(units)] = True
    return masked_by_one(replay, live, masks, fill)


def masked_by_one(replay: Replay, live: Live, masks: Bool[Tensor, "m units"], fill: Tensor) -> Logits:
    """Logits with a set of units replaced, for each mask."""
    for start in range(0, len(masks), _AT_ONCE):
        part = slice(start, min(start + _AT_ONCE, len(masks)))
        yield part, _chunk(replay, live, masks[part], fill)


@torch.inference_mode()
def _chunk(replay: Replay, live: Live, masks: Bool[Tensor, "m units"], fill: Tensor) -> Float[Tensor, "m n classes"]:
    found = []
    for mask in masks:
        edited = torch.where(mask.view(-1, *(1,) * (live.output.ndim - 2)), fill, live.output)
        # A change that changes nothing has the answer already.
        found.append(live.logits if torch.equal(edited, live.output) else replay(live, edited))
    return torch.stack(found)
