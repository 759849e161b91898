"""The `layers` study: filters, feature maps, responses, decision paths, selectivity, preferences, importance."""

from neuronscope.studies.layers.original import ORIGINAL_FIGURES, export_layers
from neuronscope.studies.layers.page import layers_page
from neuronscope.studies.layers.setting import chosen_layers
from neuronscope.studies.layers.spec import LEGACY, LayersSpec
from neuronscope.studies.layers.study import plan_layers, run_layers

__all__ = [
    "LEGACY",
    "ORIGINAL_FIGURES",
    "LayersSpec",
    "chosen_layers",
    "export_layers",
    "layers_page",
    "plan_layers",
    "run_layers",
]
