"""The network cut at a layer, kept from batch to batch as long as it is the very same network.

A cut has weights of its own: convolutions with the normalisation folded in. So it must never outlive them, whichever
way they are changed (`load_state_dict`, `weight.data`, a number format of the run). Before a kept cut is used again,
all that it was made from is compared by checksums, which takes less than a hundredth of a forward pass of 32 images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuronscope.replay import MEMORY, Cut, cut
from neuronscope.units import LayerInfo

_COLUMNS = 4099  # a prime, so that no two filters trade places without changing the sums
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

_kept: list[tuple[nn.Module, object, Cut]] = []
"""At most one: a sweep asks for one layer, and a cut of a large network takes as much memory as its weights."""


def cut_at(model: nn.Module, layer: LayerInfo, images: Tensor, *, memory: int = MEMORY) -> Cut:
    """The network cut at a layer, for images like these; of a part, at the whole layer.

    `memory` is how many bytes of activations a replay may hold at once.

    Which way of replaying it takes is decided on noise, not on the images: it must not depend on which images come
    first, or an interrupted sweep would go on with other numbers.
    """
    now = (memory, layer.name, tuple(images.shape[1:]), images.device, images.dtype, state_of(model))
    for known, then, made in _kept:
        if known is model and then == now:
            return made
    _kept.clear()  # before the next one is made: there is never memory for two
    noise = torch.randn(2, *images.shape[1:], generator=torch.Generator().manual_seed(0)).to(images)
    made = cut(model, layer, noise, memory=memory)
    _kept.append((model, now, made))
    return made


def state_of(model: nn.Module) -> object:
    """What a network's answers depend on, as a small value to compare within a process.

    These are its modules with their numbers and words (a stride, `training`), hooks, weights and buffers; not what a
    module keeps in lists or objects of its own.
    """
    return [
        (name, id(part), type(part), *_settings(part), *((own, _mark(one)) for own, one in _tensors(part)))
        for name, part in model.named_modules()
    ]


def _settings(part: nn.Module) -> list[object]:
    plain = [(name, value) for name, value in vars(part).items() if _is_plain(value)]
    return [*plain, *part._forward_pre_hooks, *part._forward_hooks]  # noqa: SLF001 there is no public way to ask


def _is_plain(value: object) -> bool:
    kinds = (bool, int, float, str)
    return isinstance(value, kinds) or (isinstance(value, tuple) and all(isinstance(one, kinds) for one in value))


def _tensors(part: nn.Module) -> list[tuple[str, Tensor]]:
    return [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]


def _mark(tensor: Tensor) -> tuple[object, ...]:
    """Format, place and a checksum of the bits: exact sums of columns, so that order counts."""
    bits = tensor.detach().flatten().view(_BITS.get(tensor.element_size(), torch.int64))
    whole = len(bits) // _COLUMNS * _COLUMNS
    sums = bits[:whole].view(-1, _COLUMNS).sum(0, dtype=bits.dtype)
    content = torch.cat([sums, bits[whole:]]).cpu().numpy().tobytes()
    return tensor.shape, tensor.dtype, tensor.device, hash(content)
