"""A network cut at several layers, whose outputs are multiplied by many scale maps: what agrees so far runs once.

Many configurations scale the outputs of the same few layers. They form a tree: up to the first layer all are the same,
from there on those that scale it alike, and so on. The network runs once along each branch. There are three ways, from
fast to slow, and each gives the logits of a forward pass with hooks within 1e-5 of the largest logit:

* *graph*: torch.fx traced the network, and the operations between two layers run once for each branch;
* *modules*: modules that finish before the first scaled layer give back what they gave, everything else runs;
* *full*: the whole network runs for each configuration.

A way proves itself on example images before it is used, and falls to the next one where the numbers differ.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

from neuronscope.errors import InputError
from neuronscope.hooks import Change, intercepted, observed, units_first
from neuronscope.replay.cutting import check_same, check_settled
from neuronscope.replay.folding import folded, maps_last
from neuronscope.replay.full import as_made
from neuronscope.replay.live import UnsuitedError
from neuronscope.replay.modules import Modules
from neuronscope.replay.program import execute, traced
from neuronscope.units import LayerInfo

Scaling = Mapping[str, Hashable]
"""Layer -> the name of a scale map; what is equal is computed once. Layers that are not named stay as they are."""

Scales = Callable[[LayerInfo, Any], Float[Tensor, "units *map"]]
"""A layer and the name of a scale map -> a number for each element of the layer's output, units first."""

Answers = Iterator[tuple[int, Float[Tensor, "n classes"]]]
"""Which scaling, by position, and its logits; in the order in which branches end."""

_LARGEST = 1.5  # of the proof's scale maps: some elements are damped, some amplified

_log = logging.getLogger("neuronscope")


@runtime_checkable
class Staging(Protocol):
    """One way to find the logits of scaled networks."""

    def logits(self, images: Tensor, scalings: Sequence[Scaling], scales: Scales) -> Answers:
        """Logits for each scaling."""


@dataclass(frozen=True)
class Stages:
    """A network cut at layers; made by `staged`, valid while the network stays where it is, unchanged, in eval mode.

    The graph way holds a copy of the convolutions' weights, with normalisation folded in.

    Attributes:
        layers: where, in calling order.
        way: how logits are found.
        reason: why not in a faster way, empty for the fastest.
    """

    layers: tuple[LayerInfo, ...]
    way: Literal["graph", "modules", "full"]
    reason: str
    _staging: Staging = field(repr=False)

    def logits(self, images: Float[Tensor, "n c h w"], scalings: Sequence[Scaling], scales: Scales) -> Answers:
        """Logits with the layers' outputs multiplied by scale maps, for each scaling.

        Args:
            images: prepared images.
            scalings: the network itself is the one that names no layer.
            scales: gives the scale map behind a name; asked again for each batch.

        Yields:
            Which scaling, by position, and its logits (inference tensors).

        Raises:
            InputError: a scaling names a layer that the network is not cut at.
        """
        known = {layer.name for layer in self.layers}
        strange = next((name for one in scalings for name in one if name not in known), None)
        if strange is not None:
            message = (
                f"a scaling names '{strange}', but the network is cut at {', '.join(map(repr, sorted(known)))} only. "
                "Give this layer when the network is cut"
            )
            raise InputError(message)
        return self._staging.logits(images, scalings, scales)


def staged(module: nn.Module, layers: Sequence[LayerInfo], example: Tensor) -> Stages:
    """Cut a network at layers, in the fastest way that gives the numbers of a full forward pass on the example.

    Which way it is, and why not a faster one, goes to the log at INFO.

    Args:
        module: the network, in eval mode, on its device (inside `hooks.placed`); it is not changed.
        layers: whole layers, at least one, in any order.
        example: two prepared images (n, channels, height, width).

    Raises:
        InputError: no layer, a part of a layer, a layer that is not called, or a network in training mode.

    Example:
        >>> from neuronscope.models.probe import probe_layers
        >>> pooling = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), *pooling, nn.Linear(4, 2)).eval()
        >>> relu, images = probe_layers(net, (1, 8, 8))[1], torch.randn(5, 1, 8, 8)
        >>> cut = staged(net, [relu], images[:2])
        >>> scalings = ({}, {"1": 0.0}, {"1": 1.0})  # here a number is the name of its map
        >>> found = dict(cut.logits(images, scalings, lambda layer, one: torch.full(layer.shape, one)))
        >>> cut.way, torch.equal(found[0], found[2]), torch.allclose(found[1], net[4].bias)
        ('graph', True, True)
    """
    check_settled(module)
    ordered = _in_calling_order(module, layers, example)
    reasons: list[str] = []
    ways: tuple[tuple[Literal["graph", "modules"], Callable[[], Staging]], ...] = (
        ("graph", lambda: _Graph(module, ordered)),
        ("modules", lambda: _Modules(module, ordered)),
    )
    full = _Full(module, ordered)
    for name, make in ways:
        try:
            staging = make()
            _prove(staging, full, ordered, example)
        except UnsuitedError as problem:
            reasons.append(str(problem))
        except (RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError) as problem:
            # The network's own code meets shapes and calls it was not written for; the next way spares it that.
            reasons.append(f"{type(problem).__name__}: {problem}".splitlines()[0])
        else:
            return _told(Stages(ordered, name, "; then ".join(reasons), staging))
    return _told(Stages(ordered, "full", "; then ".join(reasons), full))


def _told(found: Stages) -> Stages:
    because = f", because {found.reason}" if found.reason else ""
    _log.info("scaled outputs of %s: %s%s", ", ".join(layer.name for layer in found.layers), found.way, because)
    return found


class _Graph:
    """The traced network as segments from layer to layer.

    Raises:
        UnsuitedError: torch.fx cannot follow the network.
    """

    def __init__(self, module: nn.Module, layers: tuple[LayerInfo, ...]) -> None:
        """Trace, and cut behind each layer."""
        with torch.inference_mode():
            program = folded(traced(module, *layers))
        self._layers, self._images, self._logits = layers, program.images, program.logits
        self._marks = (program.layer, *program.later)
        ends = [program.nodes.index(mark) + 1 for mark in self._marks]
        if ends != sorted(ends):
            message = "torch.fx sees the layers in another order than they are called"
            raise UnsuitedError(message)
        pieces = [program.nodes[first:last] for first, last in zip([0, *ends], [*ends, None], strict=True)]
        read: set[fx.Node] = {program.logits}
        keep = []
        for piece in reversed(pieces):
            keep.append(set(read))
            read |= {source for node in piece for source in node.all_input_nodes}
        self._segments = [program.steps(piece, keep=after) for piece, after in zip(pieces, keep[::-1], strict=True)]

    def logits(self, images: Tensor, scalings: Sequence[Scaling], scales: Scales) -> Answers:
        """Along the tree of scalings, depth first: a value is held as long as a branch that reads it is left."""
        with torch.inference_mode():
            values = execute(self._segments[0], {self._images: maps_last(images)})
        yield from self._branches(0, values, range(len(scalings)), scalings=scalings, scales=scales)

    def _branches(
        self,
        place: int,
        values: Mapping[fx.Node, Any],
        wanted: Sequence[int],
        *,
        scalings: Sequence[Scaling],
        scales: Scales,
    ) -> Answers:
        layer, mark = self._layers[place], self._marks[place]
        for name, members in _alike(layer, wanted, scalings).items():
            own = dict(values)
            with torch.inference_mode():
                if name is not None:
                    own[mark] = own[mark] * maps_last(as_made(scales(layer, name)[None], layer))
                execute(self._segments[place + 1], own)
            if place + 1 < len(self._layers):
                yield from self._branches(place + 1, own, members, scalings=scalings, scales=scales)
            else:
                yield from ((member, own[self._logits]) for member in members)


@dataclass(frozen=True)
class _Modules:
    """Modules that finished before the first scaled layer give back what they gave."""

    module: nn.Module
    layers: tuple[LayerInfo, ...]

    def logits(self, images: Tensor, scalings: Sequence[Scaling], scales: Scales) -> Answers:
        """By first scaled layer: a forward pass that records, then the rest for each scaling."""
        left: Sequence[int] = range(len(scalings))
        for layer in self.layers:
            groups = _alike(layer, left, scalings)
            left = groups.pop(None, [])
            if groups:
                front = Modules(self.module, layer)
                live = front.prefix(images)
            for name, members in groups.items():
                for member in members:
                    later = {one: named for one, named in scalings[member].items() if one != layer.name}
                    with torch.inference_mode(), _scaled(self.module, self.layers, later, scales):
                        logits = front.replay(live, live.output * scales(layer, name))
                    yield member, logits
        if left:
            with torch.inference_mode():
                logits = self.module(images)
            yield from ((member, logits) for member in left)


@dataclass(frozen=True)
class _Full:
    """The whole network with hooks, for each scaling."""

    module: nn.Module
    layers: tuple[LayerInfo, ...]

    def logits(self, images: Tensor, scalings: Sequence[Scaling], scales: Scales) -> Answers:
        """One forward pass for each."""
        for number, scaling in enumerate(scalings):
            with torch.inference_mode(), _scaled(self.module, self.layers, scaling, scales):
                logits = self.module(images)
            yield number, logits


def _alike(layer: LayerInfo, wanted: Sequence[int], scalings: Sequence[Scaling]) -> dict[Hashable, list[int]]:
    """The scalings by what they do to a layer; None stands for nothing."""
    groups: dict[Hashable, list[int]] = {}
    for number in wanted:
        groups.setdefault(scalings[number].get(layer.name), []).append(number)
    return groups


def _scaled(
    module: nn.Module, layers: Sequence[LayerInfo], scaling: Scaling, scales: Scales
) -> AbstractContextManager[None]:
    def changing(layer: LayerInfo) -> Change:
        def change(output: Tensor) -> Tensor:
            return as_made(units_first(output, layer) * scales(layer, scaling[layer.name]), layer)

        return change

    return intercepted(module, {layer: changing(layer) for layer in layers if layer.name in scaling})


@torch.inference_mode()
def _in_calling_order(module: nn.Module, layers: Sequence[LayerInfo], example: Tensor) -> tuple[LayerInfo, ...]:
    part = next((layer for layer in layers if layer.whole is not None), None)
    if part is not None or not layers:
        came = f"'{part.title}', a part of a layer" if part is not None else "none"
        message = f"a network is cut at one or more whole layers, got {came}. Name whole layers"
        raise InputError(message)
    order: list[LayerInfo] = []
    with observed(module, {layer: partial(_note, order, layer) for layer in layers}):
        module(example)
    missing = next((layer.name for layer in layers if layer not in order), None)
    if missing is not None:
        message = (
            f"layer '{missing}' was not called in a forward pass on noise, although it was when the network was loaded:"
            " does the network choose its path by its input? Choose other layers"
        )
        raise InputError(message)
    return tuple(order)


def _note(order: list[LayerInfo], layer: LayerInfo, _output: Tensor) -> None:
    order.append(layer)


def _prove(staging: Staging, full: Staging, layers: Sequence[LayerInfo], example: Tensor) -> None:
    """Compare with the network with hooks: as it is, with all layers scaled, with each alone.

    Raises:
        UnsuitedError: the numbers differ.
    """
    generator = torch.Generator().manual_seed(0)
    maps = {
        layer: (_LARGEST * torch.rand((layer.units, *layer.map_shape), generator=generator)).to(example)
        for layer in layers
    }
    names = [layer.name for layer in layers]
    scalings: list[Scaling] = [{}, dict.fromkeys(names, 0), *({name: 0} for name in names)]

    def scales(layer: LayerInfo, _name: Hashable) -> Tensor:
        return maps[layer]

    expected = dict(full.logits(example, scalings, scales))
    found = dict(staging.logits(example, scalings, scales))
    for number, scaling in enumerate(scalings):
        check_same(found[number], expected[number], f"with {len(scaling)} scaled outputs")
