"""What the maps of a finished result say together: correlations of factors, and whether maps tell factors apart."""

from neuronscope.studies.sensitivity.analyses.correlations import correlation_groups
from neuronscope.studies.sensitivity.analyses.discriminants import check_discriminants, discriminant_groups

__all__ = ["check_discriminants", "correlation_groups", "discriminant_groups"]
