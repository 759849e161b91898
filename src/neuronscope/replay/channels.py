"""Which operations leave a unit in its own channels, so that an edit of one unit changes nothing else.

Up to the first operation that mixes channels, replacing all units at once says what replacing each of them alone
would have given: one run serves them all. Only operations known to work this way are followed.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from neuronscope.replay.facts import Facts
from neuronscope.replay.folding import Convolution, untouched
from neuronscope.replay.program import Operation, Program, layer_output

MAPS = 4  # axes of a batch of maps: image, channel, row, column


@dataclass(frozen=True)
class Channels:
    """Where the units are in a value: unit `j` has the positions `first + j * step` to `first + (j + 1) * step - 1`.

    Attributes:
        axis: the axis they are counted on, 1 or more.
        first: positions before unit 0.
        step: positions of each unit.
    """

    axis: int
    first: int
    step: int


def changed(program: Program) -> tuple[fx.Node, ...]:
    """The layer and what an edit of it can change; what only depends on the shape of a changed value is not."""
    found = {program.layer}
    for node in program.nodes:
        if not _asks_shape(node) and any(source in found for source in node.all_input_nodes):
            found.add(node)
    return tuple(node for node in program.nodes if node in found)


def followed(program: Program, facts: Facts, channels: Channels) -> dict[fx.Node, Channels]:
    """Every value in which units are still apart, from the layer's output on; not past an operation that mixes them."""
    found = {program.layer: channels}
    tail = changed(program)
    edited = set(tail)
    for node in tail[1:]:
        inputs = [source for source in node.all_input_nodes if source in edited]
        if all(source in found for source in inputs) and facts.shape(node) is not None:
            place = _after(node, [found[source] for source in inputs], found, program, facts)
            if place is not None:
                found[node] = place
    return found


def _asks_shape(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in ("size", "dim", "numel")
    return node.target is getattr and node.args[1] in ("shape", "ndim", "dtype", "device")


def _after(
    node: fx.Node, inputs: list[Channels], found: Mapping[fx.Node, Channels], program: Program, facts: Facts
) -> Channels | None:
    """Where units are in the result, None if the operation mixes them or is not known."""
    place = inputs[0]
    before, after = facts.shape(next(source for source in node.all_input_nodes if source in found)), facts.shape(node)
    if before is None or after is None or any(other != place for other in inputs):
        return None
    operation = program.operations[node]
    if isinstance(operation, Convolution):
        own = operation.groups == operation.weight.shape[0] and operation.weight.shape[1] == 1
        return place if own and place.axis == 1 and len(before) == MAPS else None  # a filter for each channel
    if node.op == "call_module":
        return _after_module(program.modules[node], place, before, after)
    if not (node.args and (node.args[0] in found or _is_combination(node))):
        return None  # the value is not the operation's first argument: a weight, a size, something rare
    return _after_function(node, place, before, after, operation=operation, found=found, facts=facts)


_APART_MODULES: frozenset[type[nn.Module]] = frozenset(
    {
        *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish),
        *(nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.Threshold, nn.LogSigmoid),
        *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout),
    }
)
_APART_POOLS: frozenset[type[nn.Module]] = frozenset(
    {nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.LPPool2d, nn.AdaptiveMaxPool2d, nn.ZeroPad2d}
)


def apart(module: nn.Module) -> bool:
    """Whether each channel of what a module makes of maps comes from that channel alone, whichever channels there are.

    Batch normalisation has numbers of its own for each channel; of it this is true once they are chosen alike.
    """
    kind = type(module)
    if kind is nn.BatchNorm2d and isinstance(module, nn.BatchNorm2d):
        return untouched(module) and module.running_mean is not None
    return untouched(module) and (kind in _APART_MODULES or kind in _APART_POOLS)


def _after_module(  # noqa: PLR0911 one line for each kind
    module: nn.Module, place: Channels, before: tuple[int, ...], after: tuple[int, ...]
) -> Channels | None:
    kind = type(module)
    if not untouched(module):
        return None
    if kind in _APART_MODULES:
        return place
    if kind is nn.Flatten:
        ends = module.start_dim == 1 and module.end_dim in (-1, len(before) - 1)
        return _flattened(place, before) if ends else None
    if place.axis != 1:
        return None
    if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and kind in (nn.BatchNorm1d, nn.BatchNorm2d):
        return place if module.running_mean is not None else None
    if len(before) != MAPS or len(after) != MAPS:
        return None
    return place if kind in _APART_POOLS else None


_APART_FUNCTIONS: frozenset[Operation] = frozenset(
    {
        layer_output,
        *(torch.relu, torch.sigmoid, torch.tanh, functional.relu, functional.relu6, functional.leaky_relu),
        *(functional.elu, functional.selu, functional.gelu, functional.silu, functional.mish, functional.hardswish),
        *(functional.hardsigmoid, functional.hardtanh, functional.sigmoid, functional.tanh, functional.softplus),
        *(functional.dropout, functional.dropout2d),
    }
)
_APART_METHODS = frozenset({"relu", "sigmoid", "tanh", "contiguous", "clone", "detach", "relu_", "sigmoid_", "tanh_"})
_COMBINATIONS: frozenset[Operation] = frozenset(
    {
        *(operator.add, operator.sub, operator.mul, operator.truediv, operator.iadd, operator.isub, operator.imul),
        *(operator.itruediv, torch.add, torch.sub, torch.mul, torch.div),
    }
)
_COMBINATION_METHODS = frozenset({"add", "sub", "mul", "div", "add_", "sub_", "mul_", "div_"})
_POOL_FUNCTIONS: frozenset[Operation] = frozenset(
    {functional.max_pool2d, functional.avg_pool2d, functional.adaptive_avg_pool2d, functional.adaptive_max_pool2d}
)
_SPACE = frozenset({"mean", "sum", "amax", "amin"})
_SPACE_FUNCTIONS: dict[Any, str] = {torch.mean: "mean", torch.sum: "sum", torch.amax: "amax", torch.amin: "amin"}


def _is_combination(node: fx.Node) -> bool:
    return (
        node.target in (torch.cat, torch.concat)
        or node.target in _COMBINATIONS
        or (node.op == "call_method" and node.target in _COMBINATION_METHODS)
    )


def _after_function(  # noqa: PLR0911 one line for each kind
    node: fx.Node,
    place: Channels,
    before: tuple[int, ...],
    after: tuple[int, ...],
    *,
    operation: Operation,
    found: Mapping[fx.Node, Channels],
    facts: Facts,
) -> Channels | None:
    target = node.target
    if target in (torch.cat, torch.concat):
        return _joined(node, place, found, facts)
    if _is_combination(node):
        # Spreading over the images or positions of another value is fine, over channels it is not.
        same = len(after) == len(before) and after[place.axis] == before[place.axis]
        return place if same else None
    method = node.op == "call_method"
    if target in _APART_FUNCTIONS or operation in _APART_FUNCTIONS or (method and target in _APART_METHODS):
        return place
    if target in _POOL_FUNCTIONS:
        return place if place.axis == 1 and len(before) == len(after) == MAPS else None
    if (method and target in _SPACE) or target in _SPACE_FUNCTIONS:
        return place if _over_space(node, place, len(before)) else None
    if target is torch.flatten or (method and target == "flatten"):
        arguments = dict(zip(("start_dim", "end_dim"), node.args[1:], strict=False)) | node.kwargs
        ends = arguments.get("start_dim", 0) == 1 and arguments.get("end_dim", -1) in (-1, len(before) - 1)
        return _flattened(place, before) if ends else None
    if (method and target in ("view", "reshape")) or target is torch.reshape:
        return _reshaped(place, before, after)
    return None


def _flattened(place: Channels, before: tuple[int, ...]) -> Channels | None:
    if place.axis != 1:
        return None
    positions = math.prod(before[2:])
    return Channels(1, place.first * positions, place.step * positions)


def _reshaped(place: Channels, before: tuple[int, ...], after: tuple[int, ...]) -> Channels | None:
    if len(after) == 2 and math.prod(before) == math.prod(after):  # noqa: PLR2004 image and feature
        return _flattened(place, before)
    same = place.axis == 1 and before[:2] == after[:2]
    return place if same else None


def _over_space(node: fx.Node, place: Channels, axes: int) -> bool:
    """Whether the axes summed away all come after the channels."""
    over = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    numbers = over if isinstance(over, (tuple, list)) else (over,)
    if not all(isinstance(number, int) for number in numbers) or len(node.args) > 3:  # noqa: PLR2004 value, axes, keepdim
        return False
    return all(number % axes > place.axis for number in numbers if isinstance(number, int))


def _joined(node: fx.Node, place: Channels, found: Mapping[fx.Node, Channels], facts: Facts) -> Channels | None:
    parts = node.args[0] if node.args else node.kwargs.get("tensors")
    over = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    if not isinstance(parts, (tuple, list)) or sum(part in found for part in parts) != 1:
        return None
    if over != place.axis:
        return None
    first = place.first
    for part in parts:
        if part in found:
            break
        shape = facts.shape(part) if isinstance(part, fx.Node) else None
        if shape is None:
            return None
        first += shape[place.axis]
    return Channels(place.axis, first, place.step)
