"""What to do with one batch: frozen callables from (network, batch) to named measurements.

A step reduces inside the hook: full maps never leave it unless they are asked for. The measurements of all layers stand
side by side in one table, (n, units of all layers), in the order of the layers; `columns` says which is whose. Instead
of a layer, a part of its units may be measured (`LayerInfo.part`), one part of a layer at a time.
"""

from neuronscope.steps.ablate import FALLS, Ablate, MaskGroup, PredictMasked
from neuronscope.steps.augmented import Augmented, augmented
from neuronscope.steps.flow import absolute_flow
from neuronscope.steps.gradients import AlongPath, Gradients, Target
from neuronscope.steps.grouped import Grouped
from neuronscope.steps.observe import MEASURES, Observe, Predict, spatial_max
from neuronscope.steps.protocol import Step, activation_bytes, check_called, columns
from neuronscope.steps.scaled import PredictScaled, Scaling
from neuronscope.steps.silence import ZERO, Fill
from neuronscope.steps.variants import PredictVariants, Variant

__all__ = [
    "FALLS",
    "MEASURES",
    "ZERO",
    "Ablate",
    "AlongPath",
    "Augmented",
    "Fill",
    "Gradients",
    "Grouped",
    "MaskGroup",
    "Observe",
    "Predict",
    "PredictMasked",
    "PredictScaled",
    "PredictVariants",
    "Scaling",
    "Step",
    "Target",
    "Variant",
    "absolute_flow",
    "activation_bytes",
    "augmented",
    "check_called",
    "columns",
    "spatial_max",
]
