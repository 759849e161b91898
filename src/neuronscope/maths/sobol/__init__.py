"""Sobol indices of groups of inputs, streamed: a design in blocks, sums that merge, indices from the sums.

How much of the variance of an output is due to a group of inputs alone (first order), with everything it takes part in
(total), or to two groups together (second order), when all inputs vary at once (Sobol 1993; Saltelli et al. 2010).
Every scalar output has its own indices: all are had from running sums, so that outputs are never stored.
"""

from neuronscope.maths.sobol.design import Order, SaltelliDesign, check_base, sobol_points
from neuronscope.maths.sobol.indices import (
    Covariances,
    Moments,
    Ratio,
    SobolIndices,
    covariances,
    guarded_indices,
    indices_from,
    moments_of,
    moments_together,
    per_unit,
    sobol_indices,
)
from neuronscope.maths.sobol.sums import Halves, SobolSums, Sums

__all__ = [
    "Covariances",
    "Halves",
    "Moments",
    "Order",
    "Ratio",
    "SaltelliDesign",
    "SobolIndices",
    "SobolSums",
    "Sums",
    "check_base",
    "covariances",
    "guarded_indices",
    "indices_from",
    "moments_of",
    "moments_together",
    "per_unit",
    "sobol_indices",
    "sobol_points",
]
