"""Importance handed back through a network by the size of its weights alone (NISP).

Source: R. Yu et al., "NISP: Pruning networks using neuron importance score propagation" (2018, arXiv 1711.05908):
the scores of a layer are the absolute weights of the next, transposed, times its scores (equation 11). Here the product
is a backward pass through a copy of the network with absolute weights and without biases, on a constant positive image:
there every activation is positive, so that ReLUs hand everything on, and branches and skips need no special case.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

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
    weight = next(twin.parameters())
    image = torch.ones((1, *input_shape), dtype=weight.dtype, device=weight.device)
    with torch.enable_grad(), tapped(twin, watched) as kept:
        twin(image)
        out = kept[response.name]
        axis = [1] * out.ndim
        axis[response.channel_axis] = response.units
        total = (out * torch.as_tensor(start, dtype=out.dtype, device=out.device).view(axis)).sum()
        outputs = [kept[layer.name] for layer in layers]
        slopes = torch.autograd.grad(total, outputs, allow_unused=True)
    parts = [
        over_positions(slope, layer)[0] if slope is not None else torch.zeros(layer.units)
        for slope, layer in zip(slopes, layers, strict=True)
    ]
    return torch.cat([part.cpu().double() for part in parts]).numpy()


def absolute_twin(module: nn.Module) -> nn.Module:
    """A copy in eval mode whose weights are absolute, whose biases are 0, and whose normalisations only scale."""
    twin = deepcopy(module).eval()
    with torch.no_grad():
        for part in twin.modules():
            weight, bias = getattr(part, "weight", None), getattr(part, "bias", None)
            if isinstance(weight, torch.Tensor):
                weight.abs_()
            if isinstance(bias, torch.Tensor):
                bias.zero_()
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:  # noqa: SLF001 the
                part.running_mean.zero_()  # common parent of all batch normalisations has no public name
    return twin
