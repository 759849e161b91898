"""The shared upper pass: the gradient at a layer once, and from there to the image as often as it takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge, saved_tensors_hooks

from neuronscope.errors import InputError
from neuronscope.hooks import intercepted
from neuronscope.steps.protocol import check_called
from neuronscope.units import LayerInfo

MEMORY = 2**30
"""Bytes of activations and sums that a filtered attribution may hold at once, unless told otherwise."""

_BESIDE = 1.25
"""Bytes at the largest moment over those that the forward pass keeps for the way back: gradients on their way."""


@dataclass(frozen=True)
class Survey:
    """A network seen from a layer.

    Attributes:
        cut: whether every way from the images to the logits leads through the layer.
        row_bytes: bytes that one input takes on its way there and back.
    """

    cut: bool
    row_bytes: int


@dataclass(frozen=True, eq=False)
class Pass:
    """One forward pass, ready for the way back.

    Attributes:
        images: its inputs, which want a gradient.
        logits: its outputs.
        maps: the layer's whole output, as (n, units, ...), without a gradient.
        edge: the place in the gradient graph where the layer hands its output on; None where no gradient comes by.
        cut: whether every way from the images to the logits leads through the layer.
    """

    images: Float[Tensor, "n c h w"]
    logits: Float[Tensor, "n classes"]
    maps: Float[Tensor, "n units *map"]
    edge: GradientEdge | None
    cut: bool

    def back(self, totals: Float[Tensor, ""], *, below: bool, past: bool) -> tuple[Tensor | None, Tensor | None]:
        """The gradient of a number at the layer's output and, if what goes past it is wanted, at the images.

        Args:
            totals: what is differentiated, made from `logits`.
            below: whether `lower` is going to be called.
            past: whether the gradient at the images is wanted.
        """
        if not totals.requires_grad:
            return None, None
        wanted = [] if self.edge is None else [self.edge]
        if past:
            wanted.append(get_gradient_edge(self.images))
        if not wanted:
            return None, None
        # Without a gradient at the images, autograd stops at the layer: the lower part stays ready although the upper
        # part's memory is given back.
        found = list(torch.autograd.grad(totals, wanted, allow_unused=True, retain_graph=below and past))
        at_images = found.pop() if past else None
        return found[0] if found else None, at_images

    def lower(self, at_layer: Float[Tensor, "n ..."], *, again: bool) -> Float[Tensor, "n c h w"]:
        """One vector-Jacobian product of the lower part: what a gradient at the layer is at the images."""
        if self.edge is None:
            return torch.zeros_like(self.images)
        (found,) = torch.autograd.grad([self.edge], [self.images], [at_layer], retain_graph=again, allow_unused=True)
        return found if found is not None else torch.zeros_like(self.images)


def is_cut(module: nn.Module, layer: LayerInfo, example: Float[Tensor, "n c h w"]) -> bool:
    """Whether every way from the image to the logits leads through this layer's output.

    It is read off the gradient graph of one blank image, so a path without a gradient does not count. If it is not a
    cut, the attributions of a partition of its channels do not add up to the whole: what goes past is in each of them.

    Args:
        module: the network.
        layer: which output.
        example: at least one prepared image, for its shape.

    Example:
        >>> from neuronscope.models.probe import probe_layers
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
        >>> is_cut(net, probe_layers(net, (1, 8, 8))[1], torch.zeros(1, 1, 8, 8))
        True
    """
    with differentiable(module):
        return survey(module, layer, example).cut


@contextmanager
def differentiable(module: nn.Module) -> Iterator[None]:
    """Gradients for the images and for nothing else, also inside `torch.inference_mode`; as it was at the end."""
    wanting = [weight for weight in module.parameters() if weight.requires_grad]
    try:
        for weight in wanting:
            weight.requires_grad_(False)
        with torch.inference_mode(mode=False), torch.enable_grad():
            yield
    finally:
        for weight in wanting:
            weight.requires_grad_(True)


def forward(module: nn.Module, layer: LayerInfo, images: Float[Tensor, "n c h w"]) -> Pass:
    """Run images through a network so that the way back can stop at a layer; inside `differentiable`.

    Raises:
        InputError: a part of the network is in training mode.
    """
    check_eval(module)
    leaf = images.detach().clone().requires_grad_()
    kept: dict[str, tuple[GradientEdge | None, Tensor]] = {}

    def change(output: Tensor) -> Tensor:
        # The copy is a place of its own in the gradient graph, whatever the layer is (an identity gives back what it
        # got), and an operation in place that follows the layer changes the copy.
        passed = output.clone()
        kept[layer.name] = (get_gradient_edge(passed) if passed.requires_grad else None, output.detach())
        return passed

    with intercepted(module, {layer: change}):
        logits = module(leaf)
    check_called((layer,), kept)
    edge, maps = kept[layer.name]
    cut = edge is not None and not _goes_past(logits, leaf, edge)
    return Pass(leaf, logits, maps.movedim(layer.channel_axis, 1), edge, cut)


def check_eval(module: nn.Module) -> None:
    """Refuse a network that gives another answer each time.

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


def survey(module: nn.Module, layer: LayerInfo, example: Float[Tensor, "n c h w"]) -> Survey:
    """What there is to know before the first input, from one forward pass of a blank image; inside `differentiable`.

    A blank image, so that it does not depend on which images come first.
    """
    own = {one.untyped_storage().data_ptr() for one in (*module.parameters(), *module.buffers())}
    kept: dict[int, Tensor] = {}

    def count(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(count, lambda tensor: tensor):
        cut = forward(module, layer, torch.zeros_like(example[:1])).cut
    sizes = [one.untyped_storage().nbytes() for place, one in kept.items() if place not in own]
    return Survey(cut, max(1, int(_BESIDE * sum(sizes))))


def chosen(logits: Float[Tensor, "n classes"], wanted: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Each row's logit of its class."""
    return logits.gather(1, wanted[:, None])[:, 0]


def along_units(
    mask: Bool[Tensor, "units"], values: Float[Tensor, "n ..."], layer: LayerInfo
) -> Float[Tensor, "n ..."]:
    """Values of the shape of a layer's output, 0 where the unit is not in the mask."""
    shape = [1] * values.ndim
    shape[layer.channel_axis] = len(mask)
    return torch.where(mask.view(shape), values, 0.0)


def _goes_past(logits: Tensor, images: Tensor, edge: GradientEdge) -> bool:
    """Whether the gradient graph has a way from the logits to the images that does not lead through an edge."""
    if not logits.requires_grad:
        return False
    end = get_gradient_edge(images).node
    seen: set[object] = set()
    waiting = [get_gradient_edge(logits).node]
    while waiting:
        node = waiting.pop()
        if node in seen or node is edge.node:
            continue
        if node is end:
            return True
        seen.add(node)
        waiting.extend(before for before, _ in node.next_functions if before is not None)
    return False
