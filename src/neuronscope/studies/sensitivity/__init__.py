"""The sensitivity study: see `study` for the question, `spec` for its options."""

from neuronscope.studies.sensitivity.analysing import ANALYSIS_OPTIONS, analyse_sensitivity
from neuronscope.studies.sensitivity.joining import join_sets
from neuronscope.studies.sensitivity.original import ORIGINAL_FIGURES, export_sensitivity
from neuronscope.studies.sensitivity.page import sensitivity_page
from neuronscope.studies.sensitivity.setting import chosen_layers
from neuronscope.studies.sensitivity.spec import LEGACY, SensitivitySpec
from neuronscope.studies.sensitivity.study import plan_sensitivity, run_sensitivity

__all__ = [
    "ANALYSIS_OPTIONS",
    "LEGACY",
    "ORIGINAL_FIGURES",
    "SensitivitySpec",
    "analyse_sensitivity",
    "chosen_layers",
    "export_sensitivity",
    "join_sets",
    "plan_sensitivity",
    "run_sensitivity",
    "sensitivity_page",
]
