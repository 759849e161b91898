"""What the maps of a finished result say together: of factors, of whether maps tell them apart, of single classes."""

from neuronscope.studies.sensitivity.analyses.classes import class_groups, outputs_group
from neuronscope.studies.sensitivity.analyses.correlations import correlation_groups
from neuronscope.studies.sensitivity.analyses.discriminants import check_discriminants, discriminant_groups
from neuronscope.studies.sensitivity.analyses.table import ANALYSES, analysis_groups

__all__ = [
    "ANALYSES",
    "analysis_groups",
    "check_discriminants",
    "class_groups",
    "correlation_groups",
    "discriminant_groups",
    "outputs_group",
]
