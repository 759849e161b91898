"""Attributions of a network whose gradient is let through some channels of a layer only: many such masks at once.

The edit is `edits.stop_gradient`: no output changes, and what flows back through the layer is multiplied by the mask.
With the gradient g of the target at the layer and the Jacobian J of the layer by the image, the gradient at the image
is

    what goes past the layer on other paths + J' (mask * g),

which is linear in the mask. So one forward pass and one backward pass of the upper part serve all masks, and the lower
part is gone through as often as the masks have rank (`maths.masks_basis`). Where the layer is a cut of the network,
nothing goes past it, and the attributions of a partition of its channels add up to the whole.
"""

from neuronscope.steps.filtered.methods import (
    Blurred,
    Colour,
    GradCam,
    InputXGradient,
    IntegratedGradients,
    Method,
    Saliency,
    SmoothGrad,
    black,
    quadrature,
)
from neuronscope.steps.filtered.shared import MEMORY, is_cut
from neuronscope.steps.filtered.step import Filtered, Summary, Whole

__all__ = [
    "MEMORY",
    "Blurred",
    "Colour",
    "Filtered",
    "GradCam",
    "InputXGradient",
    "IntegratedGradients",
    "Method",
    "Saliency",
    "SmoothGrad",
    "Summary",
    "Whole",
    "black",
    "is_cut",
    "quadrature",
]
