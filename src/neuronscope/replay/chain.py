"""Edited networks that are a chain of operations, without the work that an edit makes needless.

A unit that is silenced need not be computed, and what it would have fed need not read it: a convolution of which a
third of the inputs and a third of the outputs are left costs a ninth. And what comes before the first edit is the same
for all edited networks. Both hold for every network, but only in a chain, where each operation reads the one before it
and nothing else, can they be read off so easily; other networks run as they are, with hooks.

The chain proves itself on example images before it is used: with random units silenced it must give the numbers of the
network with hooks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, fx, nn
from torch.nn import functional

from neuronscope.edits import Edit, drop
from neuronscope.hooks import applied
from neuronscope.units import LayerInfo, UnitSet

_TOLERANCE = 1e-5  # of the largest logit
_EPSILONS = 32  # where the number format cannot tell 1e-5: so many steps of it
_FLAT_DIMS = 2  # (image, unit)
_MAP_DIMS = 4  # (image, unit, row, column)

_LOG = logging.getLogger("neuronscope")

_IDLE = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_KEEP_ZERO = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish),
    *(nn.Tanh, nn.Softsign, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d, nn.ZeroPad2d),
    *_IDLE,
)
"""Operations on single channels that make zero of zero."""
_MOVE_ZERO = (nn.Sigmoid, nn.Hardsigmoid, nn.Softplus, nn.LogSigmoid)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class _Link:
    """One operation; its name is empty where it stands for a function."""

    name: str
    module: nn.Module

    @property
    def weighted(self) -> bool:
        """Whether it mixes channels by weights that can be cut."""
        return isinstance(self.module, nn.Linear) or (isinstance(self.module, nn.Conv2d) and self.module.groups == 1)


@dataclass(frozen=True)
class _Alive:
    """Which channels are there when some are not.

    Attributes:
        numbers: of those that are.
        of: how many there would be.
    """

    numbers: Int[Tensor, "alive"]
    of: int


@dataclass(frozen=True)
class _Order:
    """An edited network, planned.

    Attributes:
        first: the first link that is not as in the network itself.
        rows: link -> outputs that are computed, and the link after which the others are silenced.
        gone: link -> outputs silenced after it.
        others: link -> other edits after it.
    """

    first: int
    rows: dict[int, tuple[Bool[np.ndarray, "_"], int]]
    gone: dict[int, Bool[np.ndarray, "_"]]
    others: dict[int, list[Edit]]


class Chain:
    """A network as a chain; made by `chain_of`."""

    def __init__(self, links: Sequence[_Link]) -> None:
        """Remember where each module stands."""
        self._links = tuple(links)
        self._places = {link.name: place for place, link in enumerate(links) if link.name}

    @torch.inference_mode()
    def logits(
        self, images: Tensor, layers: Sequence[LayerInfo], variants: Sequence[Sequence[Edit]]
    ) -> Iterator[Float[Tensor, "n classes"] | None]:
        """What each edited network says; None where it cannot be run as a chain."""
        orders = [self._order(layers, edits) for edits in variants]
        trunk = self._trunk(images, {order.first for order in orders if order is not None})
        for order in orders:
            yield None if order is None else self._run(order, trunk[order.first])

    def _trunk(self, images: Tensor, wanted: set[int]) -> dict[int, Tensor]:
        """What comes into the wanted links when nothing is edited; into the one after the last come the logits."""
        kept: dict[int, Tensor] = {}
        value = images.contiguous(memory_format=torch.channels_last) if images.ndim == _MAP_DIMS else images
        for place in range(max(wanted, default=-1) + 1):
            if place in wanted:
                kept[place] = value
            if place < len(self._links) and place < max(wanted):
                value = _whole(self._links[place], value)
        return kept

    def _order(self, layers: Sequence[LayerInfo], edits: Sequence[Edit]) -> _Order | None:
        """What is computed for an edited network; None where that cannot be told."""
        known = {layer.name: layer for layer in layers}
        gone: dict[int, np.ndarray] = {}
        others: dict[int, list[Edit]] = {}
        for edit in edits:
            layer, place = known.get(edit.units.layer), self._places.get(edit.units.layer)
            # the whole of a layer, with its channels where they usually are; later calls have names of their own
            if layer is None or place is None or layer.whole is not None or layer.channel_axis != 1:
                return None
            if edit.units.size != layer.units:
                return None  # `applied` says what is wrong
            if edit.action == "drop" and place not in others:
                gone[place] = gone.get(place, np.zeros(edit.units.size, dtype=bool)) | edit.units.mask()
            elif edit.action in ("scale", "replace") and place not in gone:
                others.setdefault(place, []).append(edit)
            else:
                return None
        rows: dict[int, tuple[np.ndarray, int]] = {}
        for place, silent in gone.items():
            if silent.all():  # no operation takes a map of no channels
                return None
            source = self._source(place)
            if source is None:
                continue
            if source in rows or any(source <= other < place for other in others):
                return None
            rows[source] = (~silent, place)
        return _Order(min((*rows, *gone, *others), default=len(self._links)), rows, gone, others)

    def _source(self, place: int) -> int | None:
        """The weighted link whose outputs are, channel by channel, what a link gives."""
        for source in range(place, -1, -1):
            link = self._links[source]
            if link.weighted:
                return source
            if not isinstance(link.module, (*_KEEP_ZERO, *_MOVE_ZERO, *_NORMS)):
                return None
        return None

    def _run(self, order: _Order, value: Tensor) -> Tensor | None:
        there: _Alive | None = None
        until = -1
        for place in range(order.first, len(self._links)):
            link = self._links[place]
            rows = None
            if place in order.rows:
                rows, until = order.rows[place]
            answer = _called(link, value, there, rows, silenced_later=place <= until)
            if answer is None:
                return None
            value, there = answer
            if place in order.gone:
                answer = _without(value, there, order.gone[place])
                if answer is None:
                    return None
                value, there = answer
            for edit in order.others.get(place, ()):
                if there is not None:
                    return None
                value = _changed(value, edit)
        return value if there is None else None


_CHAINS: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], Chain | None]] = WeakKeyDictionary()


def chain_of(module: nn.Module, layers: Sequence[LayerInfo], example: Float[Tensor, "n *image"]) -> Chain | None:
    """The network as a chain, proven right on two images; None where it is none.

    Kept as long as the network lives, for the same layers, device and number format.

    Args:
        module: the network, in eval mode, on its device.
        layers: those that will be edited.
        example: prepared images.
    """
    key = (tuple(layers), tuple(example.shape[1:]), example.device, example.dtype)
    chains = _CHAINS.setdefault(module, {})
    if key not in chains:
        reason = ""
        chain: Chain | None = None
        try:
            chain = Chain(_links(module))
            reason = _unlike(chain, module, layers, example[:2])
        except Exception as problem:  # noqa: BLE001 the network's own code runs here, on values it was not written for
            reason = next(iter(str(problem).splitlines()), "") or type(problem).__name__
        if reason:
            _LOG.info("edited networks run in full: %s", reason)
        chains[key] = None if reason else chain
    return chains[key]


class _NoChainError(Exception):
    """The network is not a chain; the message says why. Never leaves this file."""


def _links(module: nn.Module) -> list[_Link]:
    """The operations in order.

    Raises:
        _NoChainError: one of them reads something other than what the one before gave.
    """
    links: list[_Link] = []
    before: fx.Node | None = None
    named = dict(module.named_modules())
    calls: set[str] = set()
    for node in fx.Tracer().trace(module).nodes:
        if before is not None and node.all_input_nodes != [before]:
            message = f"'{node.name}' reads something other than the operation before it"
            raise _NoChainError(message)
        if node.op == "call_module":
            called = named[str(node.target)]
            if called.training or str(node.target) in calls:
                message = f"'{node.target}' is called twice, or is in training mode"
                raise _NoChainError(message)
            calls.add(str(node.target))
            links.append(_Link(str(node.target), called))
        elif node.op in ("call_function", "call_method"):
            links.append(_Link("", _as_module(node)))
        elif node.op == "placeholder" and before is not None:
            message = "it has several inputs"
            raise _NoChainError(message)
        before = node
    return links


def _as_module(node: fx.Node) -> nn.Module:
    """The module that does what a function does."""
    name = str(getattr(node.target, "__name__", node.target))
    rest = (*node.args[1:], *node.kwargs.values())
    if name == "flatten" and rest == (1,):
        return nn.Flatten()
    if name == "relu" and not any(rest):
        return nn.ReLU()
    message = f"it calls the function '{name}'"
    raise _NoChainError(message)


def _unlike(chain: Chain, module: nn.Module, layers: Sequence[LayerInfo], images: Tensor) -> str:
    """Where the chain gives other numbers than the network; empty where it does not."""
    rng = np.random.default_rng(0)
    half = {layer.name: drop(UnitSet.from_mask(layer.name, rng.random(layer.units) < 0.5)) for layer in layers}  # noqa: PLR2004
    tried: list[tuple[Edit, ...]] = [(), tuple(half.values()), *((edit,) for edit in half.values())]
    with torch.inference_mode():
        for edits, found in zip(tried, chain.logits(images, layers, tried), strict=True):
            with applied(module, layers, edits):
                expected = module(images)
            if found is None:
                continue
            slack = max(_TOLERANCE, _EPSILONS * torch.finfo(expected.dtype).eps) * float(expected.abs().max())
            if found.shape != expected.shape or not torch.allclose(
                found, expected, rtol=0.0, atol=slack, equal_nan=True
            ):
                return "the chain of operations gives other numbers than the network"
    return ""


def _whole(link: _Link, value: Tensor) -> Tensor:
    answer = _called(link, value, None, None, silenced_later=False)
    if answer is None:
        message = f"'{link.name}' cannot be run in a chain"
        raise _NoChainError(message)
    return answer[0]


def _called(
    link: _Link, value: Tensor, there: _Alive | None, rows: Bool[np.ndarray, "u"] | None, *, silenced_later: bool
) -> tuple[Tensor, _Alive | None] | None:
    """One link on the channels that are there; None where the missing ones would not be zero after it."""
    module = link.module
    if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and link.weighted):
        return _weighted(module, value, there, rows)
    if getattr(module, "inplace", False):
        value = value.clone()  # other edited networks start from it
    if there is None or isinstance(module, (*_KEEP_ZERO, nn.Flatten)):
        return module(value), there
    if silenced_later and isinstance(module, _MOVE_ZERO):
        return module(value), there
    if silenced_later and isinstance(module, _NORMS) and module.running_mean is not None:
        parts = (module.running_mean, module.running_var, module.weight, module.bias)
        mean, variance, scale, shift = (None if part is None else part[there.numbers] for part in parts)
        return functional.batch_norm(value, mean, variance, scale, shift, training=False, eps=module.eps), there
    return None


def _weighted(
    module: nn.Conv2d | nn.Linear, value: Tensor, there: _Alive | None, rows: Bool[np.ndarray, "u"] | None
) -> tuple[Tensor, _Alive | None] | None:
    """A convolution or linear layer of the channels that are there, for the outputs that are wanted."""
    weight: Tensor = module.weight
    bias: Tensor | None = module.bias
    alive = None
    if rows is not None and not rows.all():
        alive = _Alive(torch.from_numpy(np.flatnonzero(rows)).to(value.device), len(rows))
        weight, bias = weight[alive.numbers], None if bias is None else bias[alive.numbers]
    if isinstance(module, nn.Conv2d):
        weight = weight if there is None else weight[:, there.numbers]
        weight = weight.contiguous(memory_format=torch.channels_last)
        return module._conv_forward(value, weight, bias), alive  # noqa: SLF001 it knows the padding
    if value.ndim != _FLAT_DIMS:
        return None
    if there is not None:
        block, rest = divmod(weight.shape[1], there.of)  # positions of a map that was flattened
        if rest:
            return None
        inputs = there.numbers[:, None] * block + torch.arange(block, device=value.device)
        weight = weight[:, inputs.flatten()]
    return functional.linear(value, weight, bias), alive


def _without(value: Tensor, there: _Alive | None, silent: Bool[np.ndarray, "u"]) -> tuple[Tensor, _Alive | None] | None:
    """The channels that are there and not silenced."""
    left = torch.from_numpy(~silent).to(value.device)
    if there is None:
        numbers = left.nonzero()[:, 0]
        return (value[:, numbers], _Alive(numbers, len(silent))) if value.shape[1] == len(silent) else None
    if there.of != len(silent) or value.shape[1] != len(there.numbers):
        return None
    stay = left[there.numbers]
    return (value, there) if bool(stay.all()) else (value[:, stay], _Alive(there.numbers[stay], there.of))


def _changed(value: Tensor, edit: Edit) -> Tensor:
    """A copy with some channels scaled or replaced."""
    chosen = torch.tensor(edit.units.indices, device=value.device, dtype=torch.int64)
    numbers = torch.as_tensor(edit.value, dtype=torch.float64).expand(len(chosen)).to(value)
    numbers = numbers.view(-1, *(1,) * (value.ndim - 2))
    changed = value.clone()
    changed[:, chosen] = value[:, chosen] * numbers if edit.action == "scale" else numbers.expand_as(value[:, chosen])
    return changed
