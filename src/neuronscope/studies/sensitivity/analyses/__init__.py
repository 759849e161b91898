"""What the maps of a finished result say together: correlations of factors, and whether maps tell factors apart."""

from neuronscope.studies.sensitivity.analyses.correlations import correlation_groups
from neuronscope.studies.sensitivity.analyses.discriminants import check_discriminants, discriminant_groups
from neuronscope.studies.sensitivity.analyses.table import ANALYSES, analysis_groups

__all__ = ["ANALYSES", "analysis_groups", "check_discriminants", "correlation_groups", "discriminant_groups"]
