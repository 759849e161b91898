"""A network as a list of operations that never change their arguments, from torch.fx.

Networks overwrite tensors to save memory (`ReLU(inplace=True)`, `x += y`). A replay must not: what it overwrites is
what it needs again. So every operation that writes into its argument becomes its plain twin, and whoever read the
argument afterwards reads the twin's result. The network itself is left alone: such modules are copied without their
weights, which both share.
"""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from neuronscope.replay.live import UnsuitedError
from neuronscope.units import LayerInfo

Operation = Callable[..., Any]


@dataclass(frozen=True)
class Program:
    """The operations a network's logits need, in calling order, and where the layer is among them.

    Attributes:
        nodes: operations; their arguments name earlier ones.
        images: stands for the network's input.
        layer: gives the layer's output.
        logits: gives the network's output.
        operations: what each node calls.
        modules: the module behind a node that calls one.
        later: give the outputs of the further layers that were asked for.
    """

    nodes: tuple[fx.Node, ...]
    images: fx.Node
    layer: fx.Node
    logits: fx.Node
    operations: Mapping[fx.Node, Operation]
    modules: Mapping[fx.Node, nn.Module]
    later: tuple[fx.Node, ...] = ()

    def steps(self, nodes: Sequence[fx.Node], *, keep: Iterable[fx.Node]) -> tuple[Step, ...]:
        """The given nodes ready to run, each forgetting what no later one reads and `keep` does not name."""
        last: dict[fx.Node, int] = {}
        for place, node in enumerate(nodes):
            last |= dict.fromkeys((node, *node.all_input_nodes), place)
        kept = set(keep)
        spent: list[list[fx.Node]] = [[] for _ in nodes]
        for node, place in last.items():
            if node not in kept:
                spent[place].append(node)
        return tuple(
            Step(node, self.operations[node], tuple(forget)) for node, forget in zip(nodes, spent, strict=True)
        )


@dataclass(frozen=True)
class Step:
    """One operation to run, and the values nobody reads after it."""

    node: fx.Node
    operation: Operation
    forget: tuple[fx.Node, ...]


def execute(
    steps: Sequence[Step], values: dict[fx.Node, Any], *, visit: Callable[[fx.Node, Any], None] | None = None
) -> dict[fx.Node, Any]:
    """Run steps; `values` has what they read from outside, gets what they give and loses what they forget."""
    for step in steps:
        args = fx.map_arg(step.node.args, values.__getitem__)
        kwargs = fx.map_arg(step.node.kwargs, values.__getitem__)
        values[step.node] = step.operation(*args, **kwargs)
        if visit is not None:
            visit(step.node, values[step.node])
        for node in step.forget:
            values.pop(node, None)
    return values


def traced(module: nn.Module, layer: LayerInfo, *later: LayerInfo) -> Program:
    """The network as a program in which the layer is one operation, however much is inside it.

    Args:
        module: the network.
        layer: where it will be cut.
        later: further layers whose outputs will be told apart.

    Raises:
        UnsuitedError: torch.fx cannot follow the network, a layer is not to be seen in what it found, or something
            is overwritten in a way that has no plain twin.
    """
    layers = (layer, *later)
    try:
        root, graph, calls = _traced(module, layers, opaque=False)
    except UnsuitedError:
        root, graph, calls = _traced(module, layers, opaque=True)
    marked = [_output_of(one, calls[module.get_submodule(one.module_name)]) for one in layers]
    modules = {node: root.get_submodule(str(node.target)) for node in graph.nodes if node.op == "call_module"}
    operations = {
        node: _without_writing(node, modules) for node in graph.nodes if node.op not in ("placeholder", "output")
    }
    operations |= {node: _reading(root, str(node.target)) for node in graph.nodes if node.op == "get_attr"}
    _redirect(graph, operations)
    (images,) = (node for node in graph.nodes if node.op == "placeholder")
    (output,) = (node for node in graph.nodes if node.op == "output")
    logits = output.args[0]
    if not isinstance(logits, fx.Node):
        message = "the network gives something other than one tensor"
        raise UnsuitedError(message)
    needed = _before(logits)
    for one, node in zip(layers, marked, strict=True):
        if node not in needed:
            message = f"the logits do not depend on what '{one.name}' gives"
            raise UnsuitedError(message)
    nodes = tuple(node for node in graph.nodes if node in needed and node is not images)
    plain = {node: operation[0] for node, operation in operations.items()}
    return Program(nodes, images, marked[0], logits, plain, modules, later=tuple(marked[1:]))


def _output_of(layer: LayerInfo, calls: Sequence[fx.Node]) -> fx.Node:
    if len(calls) <= layer.call:
        message = f"torch.fx does not see call {layer.call} of '{layer.module_name}'"
        raise UnsuitedError(message)
    return calls[layer.call]


def _traced(
    module: nn.Module, layers: Sequence[LayerInfo], *, opaque: bool
) -> tuple[nn.Module, fx.Graph, Mapping[nn.Module, list[fx.Node]]]:
    """The traced graph, under which root, and the layers' outputs at each call; opaque layers are not looked into."""
    root = _OneInput(module)
    tracer = _Tracer([module.get_submodule(layer.module_name) for layer in layers], opaque=opaque)
    try:
        return root, tracer.trace(root), tracer.outputs
    except Exception as problem:
        message = f"torch.fx cannot trace the network ({_first_line(problem)})"
        raise UnsuitedError(message) from problem


def layer_output(output: Any) -> Any:
    """Marks a layer's output in a graph: what an edit replaces is what goes on from here, as with a hook."""
    return output


class _OneInput(nn.Module):
    """The network called as it always is: with images alone, so that its other arguments have their defaults."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Any) -> Any:
        return self.network(images)


class _Tracer(fx.Tracer):
    """Follows the network into its own modules, not into torch's, and marks the layers' outputs."""

    def __init__(self, layers: Sequence[nn.Module], *, opaque: bool) -> None:
        super().__init__(param_shapes_constant=True)
        self._opaque = opaque
        self.outputs: dict[nn.Module, list[fx.Node]] = {layer: [] for layer in layers}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return (self._opaque and m in self.outputs) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        output = super().call_module(m, forward, args, kwargs)
        if m not in self.outputs:
            return output
        if not isinstance(output, fx.Proxy):
            message = f"the layer gives a {type(output).__name__}, not one tensor"
            raise UnsuitedError(message)
        marked = self.create_proxy("call_function", layer_output, (output,), {})
        self.outputs[m].append(marked.node)
        return marked


def _first_line(problem: Exception) -> str:
    lines = str(problem).strip().splitlines()
    return f"{type(problem).__name__}: {lines[0]}" if lines else type(problem).__name__


def _reading(root: nn.Module, name: str) -> tuple[Operation, bool]:
    owner, _, attribute = name.rpartition(".")
    part = root.get_submodule(owner)
    return (lambda *_args: getattr(part, attribute)), False


def _method(name: str) -> Operation:
    return lambda value, *args, **kwargs: getattr(value, name)(*args, **kwargs)


def _without_writing(node: fx.Node, modules: Mapping[fx.Node, nn.Module]) -> tuple[Operation, bool]:
    """What a node calls, or its plain twin, and whether it was one that writes into its first argument."""
    if node.op == "get_attr":
        return (lambda: None), False
    if node.op == "call_module":
        module = modules[node]
        if _is_torchs(module) and getattr(module, "inplace", False) is True:
            twin = copy.copy(module)
            twin.__dict__["inplace"] = False
            return twin, True
        return module, False
    name = node.target if isinstance(node.target, str) else node.target.__name__
    refusal = f"it writes into a tensor by `{name}`"
    if node.op == "call_method":
        if name == "__setitem__":
            raise UnsuitedError(refusal)
        if name.endswith("_") and not name.startswith("__"):
            if not callable(getattr(Tensor, name[:-1], None)):
                raise UnsuitedError(refusal)
            return _method(name[:-1]), True
        bits = name == "view" and any(isinstance(argument, torch.dtype) for argument in node.args)
        # A tail may hold its maps with channels last, where `view` refuses what `reshape` does.
        return _method("reshape" if name == "view" and not bits else name), False
    function: Operation = node.target  # type: ignore[assignment]  # the target of a function call is the function
    return _plain_function(node, function, name, refusal)


def _plain_function(node: fx.Node, function: Operation, name: str, refusal: str) -> tuple[Operation, bool]:
    if function is operator.setitem or node.kwargs.get("out") is not None:
        raise UnsuitedError(refusal)
    if function in _PLAIN_OPERATORS:
        return _PLAIN_OPERATORS[function], True
    if getattr(function, "__module__", None) in (None, "torch", "torch._C._nn") and name.endswith("_"):
        twin = getattr(torch, name[:-1], None) or getattr(nn.functional, name[:-1], None)
        if twin is None:
            raise UnsuitedError(refusal)
        return twin, True
    if _asks_to_write(node, function):
        return _told_not_to_write(function), True
    return function, False


_PLAIN_OPERATORS: dict[Operation, Operation] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    operator.ifloordiv: operator.floordiv,
    operator.imod: operator.mod,
    operator.ipow: operator.pow,
    operator.imatmul: operator.matmul,
    operator.iand: operator.and_,
    operator.ior: operator.or_,
    operator.ixor: operator.xor,
}


def _asks_to_write(node: fx.Node, function: Operation) -> bool:
    if node.kwargs.get("inplace"):
        return True
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # built-in functions have no signature, and none of torch's has such an argument
        return False
    return "inplace" in names[: len(node.args)] and bool(node.args[names.index("inplace")])


def _told_not_to_write(function: Operation) -> Operation:
    def call(*args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.arguments["inplace"] = False
        return function(*bound.args, **bound.kwargs)

    return call


def _redirect(graph: fx.Graph, operations: Mapping[fx.Node, tuple[Operation, bool]]) -> None:
    """Whoever reads an overwritten value later reads the result instead."""
    order = {node: place for place, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if operations.get(node, (None, False))[1] and node.args and isinstance(node.args[0], fx.Node):
            later = {user for user in node.args[0].users if order[user] > order[node]}
            node.args[0].replace_all_uses_with(node, delete_user_cb=later.__contains__)


def _before(last: fx.Node) -> set[fx.Node]:
    found = {last}
    waiting = [last]
    while waiting:
        fresh = [node for node in waiting.pop().all_input_nodes if node not in found]
        found.update(fresh)
        waiting.extend(fresh)
    return found


def _is_torchs(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.")
