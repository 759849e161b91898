"""Masks guided by maps of a sensitivity result: see `study` for the question, `spec` for its options."""

from neuronscope.studies.sensitivity.masking.original import ORIGINAL_FIGURES, export_masking
from neuronscope.studies.sensitivity.masking.page import masking_page
from neuronscope.studies.sensitivity.masking.setting import chosen_layers
from neuronscope.studies.sensitivity.masking.spec import LEGACY, MaskingSpec
from neuronscope.studies.sensitivity.masking.study import plan_masking, run_masking

__all__ = [
    "LEGACY",
    "ORIGINAL_FIGURES",
    "MaskingSpec",
    "chosen_layers",
    "export_masking",
    "masking_page",
    "plan_masking",
    "run_masking",
]
