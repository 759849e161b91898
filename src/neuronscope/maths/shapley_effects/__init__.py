"""Shapley effects of groups of inputs, streamed: a design in blocks, sums that merge, effects, intervals.

How much of the variance of an output is due to each group of inputs when all vary at once, with every interaction
divided equally among the groups that take part in it (Owen 2014; Song, Nelson, Staum 2016). Effects add up to the
variance, so that shares add up to 1, which neither first-order nor total Sobol indices do. Every scalar output has its
own effects: all are had from running sums, so that outputs are never stored.

The players of this game are inputs. How much units are worth to a network is asked in `maths.shapley`.
"""

from neuronscope.maths.shapley_effects.design import Draws, ShapleyDesign, original_design
from neuronscope.maths.shapley_effects.effects import (
    ShapleyEffects,
    aggregated,
    original_shares,
    per_unit,
    shares_of,
)
from neuronscope.maths.shapley_effects.permutations import Permutations, lexicographic
from neuronscope.maths.shapley_effects.replicates import ReplicatedEffects, replicated
from neuronscope.maths.shapley_effects.sums import ShapleySums

__all__ = [
    "Draws",
    "Permutations",
    "ReplicatedEffects",
    "ShapleyDesign",
    "ShapleyEffects",
    "ShapleySums",
    "aggregated",
    "lexicographic",
    "original_design",
    "original_shares",
    "per_unit",
    "replicated",
    "shares_of",
]
