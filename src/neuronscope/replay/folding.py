"""Convolutions of a program: normalisation folded in, weights in the memory order that runs fastest.

The network's own modules stay as they are; the program has copies of their weights. Folding makes the
same numbers within rounding (it is worked out in float64).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.nn import functional

from neuronscope.replay.program import Program

LAST_FORMATS = (torch.float32, torch.bfloat16, torch.float16)
"""Number formats whose convolutions are faster with channels last; float64 has no such kernels on a processor."""


@dataclass(frozen=True, eq=False)
class Convolution:
    """A two-dimensional convolution as plain values."""

    weight: Float[Tensor, "out in rows columns"]
    bias: Float[Tensor, "out"] | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    def __call__(self, maps: Tensor) -> Tensor:
        """The convolution of maps."""
        return functional.conv2d(maps, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def folded(program: Program) -> Program:
    """The program with its convolutions as plain values; the operations of `program` are used up.

    A batch normalisation that alone reads a convolution becomes that convolution, whose own node is dropped.
    """
    members = set(program.nodes)
    operations, dropped = dict(program.operations), set[fx.Node]()
    for node in program.nodes:
        module = program.modules.get(node)
        if type(module) is not nn.Conv2d or not _plain(module, node):
            continue
        readers = [reader for reader in node.users if reader in members]
        norm = program.modules.get(readers[0]) if len(readers) == 1 and node is not program.logits else None
        if isinstance(norm, nn.BatchNorm2d) and _foldable(norm):
            readers[0].args = node.args
            operations[readers[0]] = _fold(module, norm)
            dropped.add(node)
        else:
            operations[node] = _copy(module, module.weight, module.bias)
    nodes = tuple(node for node in program.nodes if node not in dropped)
    modules = {
        node: module for node, module in program.modules.items() if not isinstance(operations[node], Convolution)
    }
    return replace(program, nodes=nodes, operations=operations, modules=modules)


def maps_last(value: Tensor) -> Tensor:
    """A batch of maps with channels last in memory, anything else as it is."""
    fits = value.ndim == 4 and value.dtype in LAST_FORMATS  # noqa: PLR2004 n, c, h, w
    return value.contiguous(memory_format=torch.channels_last) if fits else value


def untouched(module: nn.Module) -> bool:
    """Whether a module does what its class says: nobody has hooked it."""
    return not (module._forward_hooks or module._forward_pre_hooks)  # noqa: SLF001 there is no public way to ask


def _plain(module: nn.Conv2d, node: fx.Node) -> bool:
    zeros = module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return zeros and untouched(module) and len(node.args) == 1


def _foldable(norm: nn.BatchNorm2d) -> bool:
    return type(norm) is nn.BatchNorm2d and untouched(norm) and norm.running_mean is not None


def _fold(module: nn.Conv2d, norm: nn.BatchNorm2d) -> Convolution:
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:  # ruled out by the caller
        return _copy(module, module.weight, module.bias)
    factor = (variance.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        factor = factor * norm.weight.double()
    shift = -mean.double() if module.bias is None else module.bias.double() - mean.double()
    bias = shift * factor if norm.bias is None else shift * factor + norm.bias.double()
    weight = module.weight.double() * factor.view(-1, 1, 1, 1)
    return _copy(module, weight.to(module.weight.dtype), bias.to(module.weight.dtype))


def _copy(module: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> Convolution:
    pairs = [(int(pair[0]), int(pair[1])) for pair in (module.stride, module.padding, module.dilation)]
    stride, padding, dilation = pairs
    return Convolution(
        maps_last(weight.detach()), None if bias is None else bias.detach(), stride, padding, dilation, module.groups
    )
