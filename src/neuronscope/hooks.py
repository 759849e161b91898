"""The only place where a network is touched: look at layer outputs, or change them, for the length of a `with`.

Both context managers leave the network as it came, whatever happens inside. Layers are told apart by call: the second
call of a reused module is its own layer (`layer1.0.relu#1`), so nothing is mixed up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from neuronscope.edits import Edit
from neuronscope.errors import InputError
from neuronscope.models.subject import Subject
from neuronscope.run import Run
from neuronscope.units import LayerInfo

Change = Callable[[Tensor], Tensor | None]
"""Called with a layer's output; what it returns goes on through the network, None leaves the output as it is."""


@contextmanager
def placed(module: nn.Module, run: Run) -> Iterator[nn.Module]:
    """The network on the run's device and in its number format; back where it was at the end."""
    # The very tensors are kept, for a way back by conversion would round what came in a wider number format.
    weights = [(weight, weight.data) for weight in module.parameters()]
    buffers = [(part, name, buffer) for part in module.modules() for name, buffer in part.named_buffers(recurse=False)]
    try:
        yield module.to(run.torch_device, run.torch_dtype)
    finally:
        for weight, values in weights:
            weight.data = values
        for part, name, buffer in buffers:
            setattr(part, name, buffer)


@contextmanager
def intercepted(module: nn.Module, changes: Mapping[LayerInfo, Change]) -> Iterator[None]:
    """Call each function with its layer's output in every forward pass inside the `with`.

    The function is given the whole output, of a part of a layer too.

    Raises:
        InputError: a layer names no module or is there twice, or its module returned something other than a tensor.
    """
    by_module = _by_module(changes)
    calls: dict[str, int] = defaultdict(int)

    def restart(_module: nn.Module, _inputs: object) -> None:
        calls.clear()

    def watch(name: str) -> Callable[[nn.Module, Any, Any], Tensor | None]:
        wanted = by_module[name]

        def hook(_module: nn.Module, _inputs: object, output: object) -> Tensor | None:
            call = calls[name]
            calls[name] += 1
            if call not in wanted:
                return None
            layer_name, change = wanted[call]
            if not isinstance(output, Tensor):
                message = (
                    f"layer '{layer_name}' returns a {type(output).__name__}, not one tensor: choose a layer inside it"
                )
                raise InputError(message)
            return change(output)

        return hook

    modules = dict(module.named_modules())
    handles: list[RemovableHandle] = []
    try:
        handles.append(module.register_forward_pre_hook(restart))
        for name in by_module:
            if name not in modules:
                message = f"layer '{name}' is not a module of this network"
                raise InputError(message)
            handles.append(modules[name].register_forward_hook(watch(name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def observed(module: nn.Module, visits: Mapping[LayerInfo, Callable[[Tensor], None]]) -> Iterator[None]:
    """Call each function with its layer's output as (n, units, ...), as it is before any later in-place operation.

    Of a part of a layer, the function sees the part's units.
    """

    def visiting(layer: LayerInfo, visit: Callable[[Tensor], None]) -> Change:
        def change(output: Tensor) -> None:
            visit(units_first(output, layer))

        return change

    with intercepted(module, {layer: visiting(layer, visit) for layer, visit in visits.items()}):
        yield


@contextmanager
def tapped(module: nn.Module, layers: Sequence[LayerInfo]) -> Iterator[dict[str, Tensor]]:
    """Keep the layers' outputs, connected to the gradient graph and safe from later in-place operations.

    Of a part of a layer the whole output is kept, for it is what the gradient flows through (`units_first` narrows it).
    The mapping is filled anew by every forward pass. A copy goes on through the network, so that an in-place ReLU after
    a convolution changes the copy and not what was kept.
    """
    kept: dict[str, Tensor] = {}

    def keeping(layer: LayerInfo) -> Change:
        def change(output: Tensor) -> Tensor:
            source = output if output.requires_grad else output.detach().requires_grad_()
            kept[layer.name] = source
            return source.clone()

        return change

    with intercepted(module, {layer: keeping(layer) for layer in layers}):
        yield kept


@contextmanager
def edited(subject: Subject, edits: Sequence[Edit]) -> Iterator[None]:
    """The network with edits applied, in the order given, to every forward pass inside the `with`.

    Raises:
        InputError: an edit's unit set does not have the size of its layer.
    """
    layers = tuple(dict.fromkeys(subject.layer(edit.units.layer) for edit in edits))
    with applied(subject.module, layers, edits):
        yield


@contextmanager
def applied(
    module: nn.Module, layers: Sequence[LayerInfo], edits: Sequence[Edit], *, donors: Int[Tensor, "n"] | None = None
) -> Iterator[None]:
    """As `edited`, for a network whose layers are given.

    Args:
        module: the network.
        layers: at least those that the edits name.
        edits: what to change.
        donors: for each image of the batch the place of another one, whose maps `resample` takes; the next image of the
            batch when left out.

    Raises:
        InputError: an edit's unit set does not have the size of its layer, or its layer is not given.
    """
    known = {layer.name: layer for layer in layers}
    by_layer: dict[LayerInfo, list[Callable[[Tensor], Tensor]]] = defaultdict(list)
    for edit in edits:
        layer = known.get(edit.units.layer)
        if layer is None or layer.units != edit.units.size:
            there = f"in this network this layer has {layer.units}" if layer is not None else "this layer is not given"
            message = f"an edit of '{edit.units.layer}' was made for {edit.units.size} units; {there}"
            raise InputError(message)
        by_layer[layer].append(_applying(edit, layer, donors))

    def chain(functions: list[Callable[[Tensor], Tensor]]) -> Change:
        def change(output: Tensor) -> Tensor:
            for function in functions:
                output = function(output)
            return output

        return change

    with intercepted(module, {layer: chain(functions) for layer, functions in by_layer.items()}):
        yield


def units_first(output: Tensor, layer: LayerInfo) -> Tensor:
    """A layer's whole output as (n, units, ...), the unit axis second and only the units of the part: a view."""
    turned = output if layer.channel_axis == 1 else output.movedim(layer.channel_axis, 1)
    return turned if layer.whole is None else turned.narrow(1, layer.first, layer.units)


def _by_module(changes: Mapping[LayerInfo, Change]) -> dict[str, dict[int, tuple[str, Change]]]:
    """Module name -> call -> layer name and what to call."""
    by_module: dict[str, dict[int, tuple[str, Change]]] = defaultdict(dict)
    for layer, change in changes.items():
        if layer.call in by_module[layer.module_name]:
            message = f"layer '{layer.name}' is there twice: look at each part of a layer in a pass of its own"
            raise InputError(message)
        by_module[layer.module_name][layer.call] = (layer.name, change)
    return by_module


def _applying(edit: Edit, layer: LayerInfo, donors: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    chosen = torch.from_numpy(edit.units.mask())
    values = torch.zeros(layer.units, dtype=torch.float64)
    if edit.value is not None:
        values[chosen] = torch.as_tensor(edit.value, dtype=torch.float64)

    def along_units(numbers: Tensor, output: Tensor) -> Tensor:
        shape = [1] * output.ndim
        shape[layer.channel_axis] = layer.units
        return numbers.to(output.device).view(shape)

    def apply(output: Tensor) -> Tensor:
        mask = along_units(chosen, output)
        match edit.action:
            case "drop":
                return output.masked_fill(mask, 0.0)
            case "resample":
                return torch.where(mask, output.roll(-1, 0) if donors is None else output[donors], output)
            case "stop_gradient":
                return torch.where(mask, output.detach(), output)
            case "scale":
                return torch.where(mask, output * along_units(values, output).to(output.dtype), output)
            case "replace":
                return torch.where(mask, along_units(values, output).to(output.dtype), output)

    return apply
