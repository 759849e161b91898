"""Cut a network at a layer: the fastest way that is proven right on example images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from neuronscope.errors import InputError
from neuronscope.hooks import intercepted, units_first
from neuronscope.replay.full import Full, as_made
from neuronscope.replay.graph import Graph
from neuronscope.replay.live import Live, Tail, UnsuitedError, Way, filled
from neuronscope.replay.modules import Modules
from neuronscope.units import LayerInfo

MEMORY = 256 * 2**20
"""Bytes of activations that a replay may hold at once, unless told otherwise."""

_TOLERANCE = 1e-5  # of the largest logit
_EPSILONS = 32  # where the number format cannot tell 1e-5: so many steps of it

_log = logging.getLogger("neuronscope")


@dataclass(frozen=True)
class Cut:
    """A network cut at a layer; made by `cut`, valid while the network stays where it is, unchanged, in eval mode.

    The graph ways hold a copy of the convolutions' weights, with normalisation folded in.

    Attributes:
        layer: where; units are counted in the whole layer.
        way: how edited logits are found; see the package.
        reason: why not in a faster way, empty for the fastest.
    """

    layer: LayerInfo
    way: Way
    reason: str
    _tail: Tail = field(repr=False)

    def prefix(self, images: Float[Tensor, "n channels height width"]) -> Live:
        """One forward pass that keeps what replays of these images need.

        Its tensors, like all answers here, are inference tensors: clone them to change them or differentiate.
        """
        return self._tail.prefix(images)

    def single(
        self, live: Live, units: Sequence[int], fill: Tensor | float = 0.0
    ) -> Iterator[tuple[slice, Float[Tensor, "m n classes"]]]:
        """Logits with one unit of the layer replaced, for each unit in turn.

        Args:
            live: from `prefix`.
            units: which units, in any order.
            fill: what replaces them; 0 silences. One number, one for each of the layer's units, (n, units) numbers, or
                whole maps (n, units, ...) of donors.

        Yields:
            Which of `units`, by position, and their logits.

        Raises:
            InputError: a unit is not in the layer, or the fill does not fit.
        """
        wrong = next((unit for unit in units if not 0 <= unit < self.layer.units), None)
        if wrong is not None:
            message = (
                f"unit {wrong} is not in layer '{self.layer.name}', which has units 0 to {self.layer.units - 1}. "
                "Count units from 0"
            )
            raise InputError(message)
        return self._tail.single(live, units, filled(fill, live.output))

    def masked(
        self, live: Live, masks: Bool[Tensor, "m units"], fill: Tensor | float = 0.0
    ) -> Iterator[tuple[slice, Float[Tensor, "m n classes"]]]:
        """Logits with a set of units of the layer replaced, for each mask in turn.

        Args:
            live: from `prefix`.
            masks: true for the units to be replaced.
            fill: what replaces them, as in `single`.

        Yields:
            Which of `masks`, by position, and their logits.

        Raises:
            InputError: the masks are for another number of units, or the fill does not fit.
        """
        if masks.shape[1] != self.layer.units:
            message = (
                f"masks for {masks.shape[1]} units do not fit layer '{self.layer.name}', which has {self.layer.units}. "
                "Give one true or false for each unit"
            )
            raise InputError(message)
        return self._tail.masked(live, masks.to(live.output.device), filled(fill, live.output))


def cut(module: nn.Module, layer: LayerInfo, example: Tensor, *, memory: int = MEMORY) -> Cut:
    """Cut a network at a layer, in the fastest way that gives the numbers of a full forward pass on the example.

    Which way it is, and why not a faster one, goes to the log at INFO.

    Args:
        module: the network, in eval mode, on its device (inside `hooks.placed`); it is not changed.
        layer: where to cut: any layer, a block as well as the classifier; of a part, the whole layer.
        example: one or more prepared images (n, channels, height, width); two are used, the second made up if need be.
        memory: bytes of activations that a replay may hold at once.

    Raises:
        InputError: a part of the network is in training mode.

    Example:
        >>> from neuronscope.models.probe import probe_layers
        >>> pooling = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), *pooling, nn.Linear(4, 2)).eval()
        >>> layer = probe_layers(net, (1, 8, 8))[1]
        >>> images = torch.randn(5, 1, 8, 8)
        >>> tail = cut(net, layer, images)
        >>> tail.way
        'closed form'
        >>> live = tail.prefix(images)
        >>> [(part, logits.shape) for part, logits in tail.single(live, range(4))]
        [(slice(0, 4, None), torch.Size([4, 5, 2]))]
    """
    check_settled(module)
    if layer.whole is not None:
        layer = _whole(layer, layer.whole)
    # Two different images tell apart what one image, or the same twice, would let pass: rows in another order.
    pair = example[:2] if len(example) > 1 else torch.cat([example, -example.flip(-1)])
    reasons: list[str] = []
    ways: tuple[Callable[[], tuple[Way, Tail]], ...] = (
        lambda: _graph(module, layer, pair, memory=memory),
        lambda: ("modules", Modules(module, layer)),
    )
    for way in ways:
        try:
            name, tail = way()
            _prove(tail, module, layer, pair)
        except UnsuitedError as problem:
            reasons.append(str(problem))
        except (
            RuntimeError,
            TypeError,
            ValueError,
            KeyError,
            IndexError,
            AttributeError,
        ) as problem:
            # The network's own code meets shapes and calls it was not written for; the next way spares it that.
            reasons.append(f"{type(problem).__name__}: {problem}".splitlines()[0])
        else:
            break
    else:
        name, tail = "full", Full(module, layer)
    reason = "; then ".join(reasons)
    _log.info("replay at '%s': %s%s", layer.name, name, f", because {reason}" if reason else "")
    return Cut(layer, name, reason, tail)


def check_settled(module: nn.Module) -> None:
    """Refuse a network that gives the same image different answers.

    Raises:
        InputError: a part of it is in training mode.
    """
    training = next((name for name, part in module.named_modules() if part.training), None)
    if training is not None:
        message = (
            f"'{training or 'the network'}' is in training mode, where the same image gives different answers. "
            "Call .eval() on the network first"
        )
        raise InputError(message)


def _whole(part: LayerInfo, units: int) -> LayerInfo:
    axis = part.channel_axis - 1 if part.channel_axis > 0 else len(part.shape) - 1
    shape = (*part.shape[:axis], units, *part.shape[axis + 1 :])
    return replace(part, shape=shape, units=units, first=0, whole=None)


def _graph(module: nn.Module, layer: LayerInfo, example: Tensor, *, memory: int) -> tuple[Way, Tail]:
    graph = Graph(module, layer, example, memory=memory)
    return "closed form" if graph.closed else "graph", graph


@torch.inference_mode()
def _prove(tail: Tail, module: nn.Module, layer: LayerInfo, images: Tensor) -> None:
    """Compare the way's numbers with those of a full forward pass.

    Raises:
        UnsuitedError: they differ.
    """
    live = tail.prefix(images)
    check_same(live.logits, module(images), "without an edit")
    generator = torch.Generator().manual_seed(0)
    spread = float(live.output.detach().float().abs().nan_to_num(0.0, 0.0, 0.0).mean()) or 1.0
    fill = (torch.randn(live.output.shape, generator=generator) * spread).to(live.output)
    chosen = sorted({0, layer.units // 2, layer.units - 1})
    masks = torch.zeros(len(chosen) + 1, layer.units, dtype=torch.bool, device=fill.device)
    masks[torch.arange(len(chosen)), chosen] = True
    masks[-1] = (torch.rand(layer.units, generator=generator) < 0.5).to(fill.device)  # noqa: PLR2004 half of them
    expected = [_edited(module, layer, images, mask, fill) for mask in masks]
    one = torch.cat([logits for _, logits in tail.single(live, chosen, fill)])
    some = torch.cat([logits for _, logits in tail.masked(live, masks, fill)])
    for row, logits in enumerate(expected):
        check_same(some[row], logits, "with edited units")
        if row < len(chosen):
            check_same(one[row], logits, "with one edited unit")


def _edited(
    module: nn.Module, layer: LayerInfo, images: Tensor, mask: Bool[Tensor, "units"], fill: Tensor
) -> Float[Tensor, "n classes"]:
    def change(output: Tensor) -> Tensor:
        first = units_first(output, layer)
        return as_made(torch.where(mask.view(-1, *(1,) * (first.ndim - 2)), fill, first), layer)

    with intercepted(module, {layer: change}):
        logits: Tensor = module(images)
    return logits


def check_same(found: Tensor, expected: Tensor, when: str) -> None:
    """Compare logits with those of a full forward pass.

    Raises:
        UnsuitedError: they differ by more than 1e-5 of the largest, or more than their number format can tell.
    """
    scale = float(expected.abs().max())
    tolerance = max(_TOLERANCE, _EPSILONS * torch.finfo(expected.dtype).eps) * scale
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=0.0, atol=tolerance, equal_nan=True):
        off = float((found - expected).abs().max()) / (scale or 1.0) if found.shape == expected.shape else float("nan")
        message = f"its numbers are not those of the full network {when} (off by {off:.1g} of the largest logit)"
        raise UnsuitedError(message)
