"""The sensitivity study: see `study` for the question, `spec` for its options."""

from neuronscope.studies.sensitivity.original import ORIGINAL_FIGURES, export_sensitivity
from neuronscope.studies.sensitivity.page import sensitivity_page
from neuronscope.studies.sensitivity.setting import chosen_layers
from neuronscope.studies.sensitivity.spec import LEGACY, SensitivitySpec
from neuronscope.studies.sensitivity.study import plan_sensitivity, run_sensitivity

__all__ = [
    "LEGACY",
    "ORIGINAL_FIGURES",
    "SensitivitySpec",
    "chosen_layers",
    "export_sensitivity",
    "plan_sensitivity",
    "run_sensitivity",
    "sensitivity_page",
]
