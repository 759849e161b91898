"""What follows what in a network: where a silenced unit is really silent, which layers share channels, what feeds what.

Setting a unit of a convolution to zero does not silence it where batch normalisation follows: that makes a constant of
the zero. And a unit whose map is added to others lives on in their sum. Both can be read off the order of operations,
which a list of modules does not tell. Here `torch.fx` writes that order down.

Nothing is guessed. The recorded operations must give the very output of the network; a network that cannot be recorded
(its path depends on the values of the image) has unknown wiring, and an operation without a rule ends a chain.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

from neuronscope.errors import InputError
from neuronscope.models.probe import kind_of
from neuronscope.models.subject import Subject
from neuronscope.units import LayerInfo

_LOG = logging.getLogger("neuronscope")

_Effect = Literal["nothing", "keeps zero", "moves zero"]
"""What an operation on single channels does: nothing outside of training, or something to values of zero."""


@dataclass(frozen=True)
class Silence:
    """Where to silence a unit so that nothing of it goes on.

    Attributes:
        layer: the layer whose output is to be set to zero; the unit has the same index there.
        reason: why this one, in words.
        certain: False where the wiring is unknown, or where nothing that could be addressed is silent.
    """

    layer: LayerInfo
    reason: str
    certain: bool = True


@dataclass(frozen=True)
class Feed:
    """The weights between two layers.

    Attributes:
        module: name of the convolution or linear layer that holds them.
        block: its inputs for each unit of the layer before: the positions of a map that was flattened, else 1.
    """

    module: str
    block: int = 1


def silenced_at(subject: Subject, layer: LayerInfo) -> Silence:
    """Where a unit of `layer` is silent: the end of the operations on single channels that follow it.

    Followed are batch and instance normalisation, elementwise nonlinearities and dropout, in any order, as long as each
    is the only one to take what comes before it. The chain ends at everything else: a weighted layer, pooling, flatten,
    an addition, a concatenation, several consumers, the output. A dropout at the end is left out, for it does nothing.

    Args:
        subject: the network.
        layer: one of its layers.

    Example:
        >>> from neuronscope.models import load_model
        >>> subject = load_model("builtin:subnet-cifar10", weights="random")
        >>> silenced_at(subject, subject.layer("conv0")).layer.name
        'bn1'
    """
    wiring = _wiring(subject)
    if isinstance(wiring, str):
        return Silence(layer, f"unknown, so '{layer.name}' itself: {wiring}", certain=False)
    node = wiring.nodes.get(layer.name)
    if node is None:
        return Silence(layer, f"unknown, so '{layer.name}' itself: it is not in the recorded operations", certain=False)
    known = {info.name: info for info in subject.layers}
    best, moved = layer, ""
    while True:
        consumers = wiring.consumers(node)
        after = consumers[0] if len(consumers) == 1 else None
        effect = None if after is None else wiring.effect(after)
        if after is None or effect is None or not wiring.keeps_channels(after, node, layer):
            break
        node = after
        if effect == "nothing":
            continue
        found = known.get(wiring.names.get(node, ""))
        if found is not None and (found.units, found.channel_axis) == (layer.units, layer.channel_axis):
            best, moved = found, ""
        elif effect == "moves zero":
            moved = _function(node)
    why = _end(wiring, consumers)
    if moved:
        reason = f"not silent at '{best.name}': {moved} follows without a module of its own and makes 0 another number"
        return Silence(best, reason, certain=False)
    if best is layer:
        return Silence(best, f"'{layer.name}' itself: {why}")
    return Silence(best, f"'{best.name}' is the end of the operations on single channels of '{layer.name}': {why}")


def coupled(subject: Subject, layers: Sequence[LayerInfo]) -> tuple[tuple[str, ...], ...]:
    """Groups of layers whose channels are added, so that channel j of all of them is one stream.

    In a residual stage these are the last normalisation of each block, that of the shortcut, and the nonlinearity after
    the sum. What leads to a sum or away from it by operations on single channels belongs to the group, too; pooling,
    weighted layers and operations without a rule end it.

    Args:
        subject: the network.
        layers: which layers to group.

    Returns:
        The names of two or more layers each, in the order given; nothing where the wiring is unknown (see
        `unknown_wiring`).

    Example:
        >>> from neuronscope.models import load_model
        >>> subject = load_model("torchvision:resnet18", weights="random", input_shape=(3, 32, 32))
        >>> coupled(subject, subject.select("layer4.*.relu*", "layer4.*.bn2", "layer4.0.downsample.1"))
        (('layer4.0.bn2', 'layer4.0.downsample.1', 'layer4.0.relu#1', 'layer4.1.bn2', 'layer4.1.relu#1'),)
    """
    wiring = _wiring(subject)
    if isinstance(wiring, str):
        _LOG.info("residual coupling of %s is unknown: %s", subject.name, wiring)
        return ()
    streams = _Streams()
    summed: list[fx.Node] = []
    for node in wiring.shapes:
        inputs = wiring.inputs(node)
        alike = all(wiring.shapes[one] == wiring.shapes[node] for one in inputs)
        if not inputs or not alike:
            continue
        if wiring.effect(node) is not None:
            streams.join(node, inputs[0])
        elif _function(node) in _ADDITIONS and len(inputs) > 1 and all(one.op != "get_attr" for one in inputs):
            summed.append(node)
            for one in inputs:
                streams.join(node, one)
    groups: dict[fx.Node, list[str]] = {streams.root(node): [] for node in summed}
    for layer in layers:
        output = wiring.nodes.get(layer.name)
        root = None if output is None else streams.root(output)
        if root in groups:
            groups[root].append(layer.name)
    return tuple(tuple(names) for names in groups.values() if len(names) > 1)


def feeds(subject: Subject, first: LayerInfo, second: LayerInfo) -> Feed | None:
    """The weights through which `first` feeds `second`, if all that `second` gets comes through them.

    Args:
        subject: the network.
        first: the layer before.
        second: the layer after; it may hold the weights itself.

    Returns:
        The one convolution or linear layer on the way, where there are otherwise only operations on single channels,
        pooling, padding and flatten; None for every other way, and where the wiring is unknown.

    Example:
        >>> from neuronscope.models import load_model
        >>> subject = load_model("builtin:subnet-mnist", weights="random")
        >>> feeds(subject, subject.layer("relu5"), subject.layer("relu9"))
        Feed(module='dense9', block=49)
    """
    wiring = _wiring(subject)
    if isinstance(wiring, str) or first.channel_axis != second.channel_axis:
        return None
    start, node = wiring.nodes.get(first.name), wiring.nodes.get(second.name)
    weights: nn.Conv2d | nn.Linear | None = None
    name = ""
    while start is not None and node is not None and node is not start:
        module = wiring.module(node)
        inputs = wiring.inputs(node)
        if len(inputs) != 1:
            return None
        if isinstance(module, nn.Conv2d | nn.Linear):
            units = module.out_channels if isinstance(module, nn.Conv2d) else module.out_features
            flat = len(wiring.shapes[node]) == _FLAT_DIMS or first.channel_axis == -1
            if weights is not None or units != second.units or (isinstance(module, nn.Linear) and not flat):
                return None
            weights, name = module, str(node.target)
        elif not wiring.keeps_channels(node, inputs[0], first) and not wiring.is_spatial(node, inputs[0], first):
            return None
        node = inputs[0]
    if start is None or node is None or weights is None:
        return None
    inputs_of_all = weights.in_channels if isinstance(weights, nn.Conv2d) else weights.in_features
    block, rest = divmod(inputs_of_all, first.units)
    fits = rest == 0 and (block == 1 or (isinstance(weights, nn.Linear) and first.channel_axis == 1))
    return Feed(name, block) if fits else None


def connection(module: nn.Module, *, block: int = 1) -> Float[np.ndarray, "units_after units_before"]:
    """One weight for each pair of units: the mean of a kernel over space, or of a unit's block of inputs.

    Pairs that a grouped convolution does not connect have weight 0.

    Args:
        module: a two-dimensional convolution or a linear layer.
        block: inputs for each unit before it (see `Feed`), at least 1.

    Raises:
        InputError: a module of another kind, or a block that does not divide its inputs.

    Example:
        >>> connection(nn.Conv2d(3, 8, 5)).shape, connection(nn.Linear(12, 2), block=4).shape
        ((8, 3), (2, 3))
    """
    if isinstance(module, nn.Linear):
        if block < 1 or module.in_features % block:
            message = f"a block of {block} does not divide the {module.in_features} inputs of the linear layer"
            raise InputError(message)
        weight = _numbers(module.weight)
        means: Float[np.ndarray, "after before"] = weight.reshape(len(weight), -1, block).mean(-1)
        return means
    if not isinstance(module, nn.Conv2d) or block != 1:
        message = f"a {type(module).__name__} with a block of {block} has no weight for each pair of units"
        message += ": expected a Conv2d (block 1) or a Linear"
        raise InputError(message)
    kernel = _numbers(module.weight).mean((2, 3))
    after, before = module.out_channels // module.groups, module.in_channels // module.groups
    weights = np.zeros((module.out_channels, module.in_channels))
    for group in range(module.groups):
        rows = slice(group * after, (group + 1) * after)
        weights[rows, group * before : (group + 1) * before] = kernel[rows]
    return weights


def unknown_wiring(subject: Subject) -> str:
    """Why the wiring of a network is unknown; empty when it is known."""
    wiring = _wiring(subject)
    return wiring if isinstance(wiring, str) else ""


_IMAGES = 2
"""Images in the pass that checks the recording: with two, an image axis can be told from an axis of length 1."""

_FLAT_DIMS = 2  # (image, unit)
_MAP_DIMS = 4  # (image, unit, row, column)

_ADDITIONS = frozenset({"add", "iadd"})
_ASKS_FOR_SIZES = frozenset({"size", "dim", "getattr", "assert"})

_NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)
"""Normalisations that keep channels apart; the others mix them."""

_IDLE = frozenset({"Identity", "StochasticDepth", "DropPath", "FrozenDropout"})
"""Modules that give back what they get outside of training, beside the dropouts."""

_IDLE_FUNCTIONS = frozenset({"contiguous", "clone"})
_KEEP_ZERO = frozenset(
    {
        *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "tanh"),
        *("softsign", "tanhshrink"),
    }
)
_MOVE_ZERO = frozenset({"sigmoid", "hardsigmoid", "softplus", "logsigmoid", "exp"})

_FLATTENS = frozenset({"flatten", "view", "reshape", "squeeze"})
_POOLS = frozenset({"avg_pool2d", "max_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"})
_PADS = (nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d)


@dataclass(frozen=True)
class _Wiring:
    """The recorded operations of a network.

    Attributes:
        nodes: layer name -> the operation that gives its output.
        names: operation -> name of its layer: that of a single module before that of a block it ends.
        shapes: operation -> shape of its output for `_IMAGES` images, where that is one tensor, in calling order.
        modules: what each operation that is a module calls.
    """

    nodes: Mapping[str, fx.Node]
    names: Mapping[fx.Node, str]
    shapes: Mapping[fx.Node, tuple[int, ...]]
    modules: Mapping[fx.Node, nn.Module]

    def module(self, node: fx.Node) -> nn.Module | None:
        """The module that is called, None for a function or method."""
        return self.modules.get(node)

    def consumers(self, node: fx.Node) -> list[fx.Node]:
        """The operations that use what comes out; asking for its size is no use."""
        return [user for user in node.users if _function(user) not in _ASKS_FOR_SIZES]

    def inputs(self, node: fx.Node) -> list[fx.Node]:
        """The operations whose tensors come in."""
        return [one for one in node.all_input_nodes if one in self.shapes]

    def effect(self, node: fx.Node) -> _Effect | None:
        """What an operation on single channels does; None for every other operation."""
        if len(self.inputs(node)) != 1:
            return None
        module = self.module(node)
        if module is not None:
            kind = kind_of(module)
            if kind == "dropout" or type(module).__name__ in _IDLE:
                return "nothing"
            apart = isinstance(module, _NORMS) or type(module).__name__ == "FrozenBatchNorm2d"
            return "moves zero" if kind == "relu" or apart else None
        name = _function(node)
        if name in _IDLE_FUNCTIONS or (name.startswith("dropout") and node.kwargs.get("training") is False):
            return "nothing"
        return "keeps zero" if name in _KEEP_ZERO else "moves zero" if name in _MOVE_ZERO else None

    def keeps_channels(self, node: fx.Node, before: fx.Node, layer: LayerInfo) -> bool:
        """Whether an operation on single channels takes the layer's units for the channels."""
        module = self.module(node)
        along = module is None or kind_of(module) != "norm" or layer.channel_axis == 1
        return self.effect(node) is not None and along and self.shapes.get(node) == self.shapes[before]

    def is_spatial(self, node: fx.Node, before: fx.Node, layer: LayerInfo) -> bool:
        """Whether an operation pools, pads or flattens maps, each channel for itself."""
        came, went = self.shapes[before], self.shapes.get(node, ())
        if layer.channel_axis != 1 or len(went) < _FLAT_DIMS:
            return False
        module, name = self.module(node), _function(node)
        if isinstance(module, nn.Flatten) or (module is None and name in _FLATTENS):
            return went == (came[0], math.prod(came[1:]))
        if module is not None:
            spatial = (kind_of(module) == "pool" and len(came) == _MAP_DIMS) or isinstance(module, _PADS)
        else:
            spatial = name in _POOLS or (name == "mean" and _over_space(node, came))
        return spatial and went[:2] == came[:2]


class _Streams:
    """Sets of operations that share their channels."""

    def __init__(self) -> None:
        self._above: dict[fx.Node, fx.Node] = {}

    def root(self, node: fx.Node) -> fx.Node:
        """The operation that stands for its set."""
        while node in self._above:
            node = self._above[node]
        return node

    def join(self, one: fx.Node, other: fx.Node) -> None:
        """Make one set of two."""
        top, bottom = self.root(one), self.root(other)
        if top is not bottom:
            self._above[top] = bottom


class _Recorder(fx.Tracer):
    """Keeps modules of a known kind whole, and writes down what each module gives back."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[tuple[str, fx.Node]] = []
        self._calls: dict[str, int] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Modules of PyTorch, those of a known kind and those without parts are not looked into."""
        return super().is_leaf_module(m, module_qualified_name) or kind_of(m) != "block"

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Name the output as a layer is named: later calls of a module carry `#1`, `#2`."""
        output = super().call_module(m, forward, args, kwargs)
        name = self.path_of_module(m)
        call = self._calls.get(name, 0)
        self._calls[name] = call + 1
        if isinstance(output, fx.Proxy):
            self.outputs.append((f"{name}#{call}" if call else name, output.node))
        return output


class _Measure(fx.Interpreter):
    """Runs the recorded operations and writes down the shapes of their outputs."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one operation."""
        answer = super().run_node(n)
        if isinstance(answer, Tensor):
            self.shapes[n] = tuple(answer.shape)
        return answer


_KNOWN: WeakKeyDictionary[nn.Module, _Wiring | str] = WeakKeyDictionary()
"""A subject's network never changes, and recording it takes up to half a second: once is enough."""


def _wiring(subject: Subject) -> _Wiring | str:
    """The recorded operations, or why there are none."""
    if subject.module not in _KNOWN:
        try:
            _KNOWN[subject.module] = _recorded(subject)
        except Exception as problem:  # noqa: BLE001 the network's own code runs here, on values it was not written for
            reason = next(iter(str(problem).splitlines()), "") or type(problem).__name__
            _KNOWN[subject.module] = f"the operations of {subject.name} cannot be recorded ({reason})"
    return _KNOWN[subject.module]


def _recorded(subject: Subject) -> _Wiring | str:
    module = subject.module
    recorder = _Recorder()
    options = list(inspect.signature(module.forward).parameters.values())[1:]
    fixed = {option.name: option.default for option in options if option.default is not option.empty}
    graph = recorder.trace(module, concrete_args=fixed or None)
    measure = _Measure(fx.GraphModule(module, graph))
    like = next((weight for weight in module.parameters() if weight.is_floating_point()), torch.zeros(()))
    noise = torch.randn((_IMAGES, *subject.input_shape), generator=torch.Generator().manual_seed(0))
    image = noise.to(device=like.device, dtype=like.dtype)
    with torch.no_grad():
        answers = measure.run(image.clone()), module(image.clone())
    if not all(isinstance(answer, Tensor) for answer in answers) or not torch.equal(*answers):
        return f"the recorded operations of {subject.name} do not give its output"
    nodes = dict(recorder.outputs)
    names: dict[fx.Node, str] = {}
    for name, node in recorder.outputs:  # a module returns before the block that it ends
        names.setdefault(node, name)
    modules = {node: module.get_submodule(str(node.target)) for node in graph.nodes if node.op == "call_module"}
    # The shapes belong to nodes of the recorder's graph: a GraphModule copies the graph that it is given.
    by_name = {node.name: node for node in graph.nodes}
    shapes = {by_name[node.name]: shape for node, shape in measure.shapes.items() if node.op != "output"}
    return _Wiring(nodes=nodes, names=names, shapes=shapes, modules=modules)


def _function(node: fx.Node) -> str:
    """Name of the function or method that an operation calls, without underscores; empty for anything else."""
    if node.op == "call_method":
        return str(node.target).strip("_")
    if node.op == "call_function":
        return str(getattr(node.target, "__name__", node.target)).strip("_")
    return ""


def _over_space(node: fx.Node, came: tuple[int, ...]) -> bool:
    """Whether a mean runs over rows and columns."""
    axes = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    if len(came) != _MAP_DIMS or not isinstance(axes, list | tuple):
        return False
    return sorted(axis % _MAP_DIMS for axis in axes if isinstance(axis, int)) == [2, 3]


def _end(wiring: _Wiring, consumers: Sequence[fx.Node]) -> str:  # noqa: PLR0911 one answer for each case
    """Why a chain ends, in words."""
    if not consumers:
        return "nothing uses its output"
    if len(consumers) > 1:
        return f"{len(consumers)} operations use its output"
    node = consumers[0]
    module, name = wiring.module(node), _function(node)
    if node.op == "output":
        return "it is the output of the network"
    if name in _ADDITIONS:
        return "an addition follows, and the unit of the sum lives on through what is added (the skip)"
    if name in ("cat", "concat", "concatenate"):
        return "it is joined with other maps next"
    if module is None:
        return f"{name} follows"
    if kind_of(module) == "norm":
        return f"the normalisation '{node.target}' follows, which mixes channels"
    return f"'{node.target}' ({type(module).__name__}) follows"


def _numbers(weight: Tensor) -> np.ndarray:
    return np.asarray(weight.detach().cpu().double().numpy())
