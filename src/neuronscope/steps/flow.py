"""Importance handed back through a network by the size of its weights alone (NISP).

Source: R. Yu et al., "NISP: Pruning networks using neuron importance score propagation" (2018, arXiv 1711.05908):
the scores of a layer are the absolute weights of the next, transposed, times its scores (equation 11). Here the product
is a backward pass through a copy of the network with absolute weights and without biases, so that branches and skips
need no special case.

The backward pass is taken at a constant image a hair above zero. There every activation is positive and tiny: a ReLU
hands everything on, and no function is near its ceiling (ReLU6, tanh). Average pooling hands a score on in equal parts,
maximum pooling to one position of the window; both leave the sum over a unit's positions as it is. Normalisations only
scale: by their own statistics where they have some, otherwise (layer and group normalisation) by their weights alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuronscope.hooks import tapped
from neuronscope.steps.gradients import over_positions
from neuronscope.units import LayerInfo


def absolute_flow(
    module: nn.Module,
    layers: Sequence[LayerInfo],
    response: LayerInfo,
    start: Float[np.ndarray, "d"],
    *,
    input_shape: tuple[int, int, int],
) -> Float[np.ndarray, "u"]:
    """The scores of all units of all layers, side by side; 0 for layers after the response, from which nothing comes.

    Args:
        module: the network; it is copied, not changed.
        layers: whose units to score.
        response: the layer that the scores start from, usually the last before the classifier.
        start: scores of its units, 0 or more.
        input_shape: channels, height and width of its input.
    """
    twin = absolute_twin(module)
    watched = list(dict.fromkeys((*layers, response)))
    image = torch.full((1, *input_shape), _HAIR, dtype=torch.float64)
    with torch.enable_grad(), tapped(twin, watched) as kept:
        twin(image)
        out = kept[response.name]
        axis = [1] * out.ndim
        axis[response.channel_axis] = response.units
        total = (out * torch.as_tensor(start, dtype=out.dtype, device=out.device).view(axis)).sum()
        outputs = [kept[layer.name] for layer in layers]
        slopes = torch.autograd.grad(total, outputs, allow_unused=True)
    parts = [
        over_positions(slope, layer)[0] if slope is not None else torch.zeros(layer.units, dtype=torch.float64)
        for slope, layer in zip(slopes, layers, strict=True)
    ]
    return torch.cat(parts).numpy()


def absolute_twin(module: nn.Module) -> nn.Module:
    """A copy in eval mode and float64 whose weights are absolute, without biases, whose normalisations only scale.

    In float64, for the sums of absolute weights grow from layer to layer and leave the range of float32.
    """
    twin = deepcopy(module).to("cpu", torch.float64).eval()
    scales = {part: _Scale(part) for part in twin.modules() if _asks_image(part)}
    for parent in list(twin.modules()):
        for name, part in parent._modules.items():  # noqa: SLF001 `named_children` leaves out second names of a module
            if part in scales:
                parent._modules[name] = scales[part]  # noqa: SLF001
    with torch.no_grad():
        for name, values in (*twin.named_parameters(), *twin.named_buffers()):
            last = name.rpartition(".")[2]
            if last.endswith("bias") or last == "running_mean":
                values.zero_()
            elif isinstance(values, nn.Parameter) or last.endswith("weight"):
                values.abs_()
    return twin


_HAIR = 1e-150
"""Value of the image: sums of absolute weights may make it grow or shrink a hundred orders of magnitude."""


def _asks_image(part: nn.Module) -> bool:
    """Whether this is a normalisation by statistics of the image at hand."""
    if type(part) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
        return part.running_mean is None
    return type(part) in (nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


class _Scale(nn.Module):
    """The weights of a normalisation without the rest of it."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.weight = norm.weight
        self.last = isinstance(norm, nn.LayerNorm)

    def forward(self, values: Tensor) -> Tensor:
        """Each unit times its weight."""
        if not isinstance(self.weight, Tensor):
            return values.clone()
        weight = self.weight if self.last else self.weight.view(-1, *(1,) * (values.ndim - 2))
        return values * weight
