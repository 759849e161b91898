"""Mergeable reducers: a stream of batches in, a small answer out.

Every reducer obeys one law: states merge, and merging the states of consecutive shards in their order gives the state
that one pass over all of them gives. From it come sharding, several machines, resuming and bounded memory.
Integer states and top-k lists merge in any order; float sums are kept as unevaluated pairs (`exact`), so that where the
data is cut changes no bit as long as a unit's sums stay within 2^53 of one another.
"""

from neuronscope.maths.streams.counts import CoActivation, Confusion
from neuronscope.maths.streams.extremes import Extremes, TopK
from neuronscope.maths.streams.histogram import Histogram, HistogramCounts, UpperTail
from neuronscope.maths.streams.moments import ClassMoments, MapMoments, Moments, MomentsAnswer
from neuronscope.maths.streams.protocol import Each, Reducer, Seen, State, on_cpu, state_bytes
from neuronscope.maths.streams.rows import Decisions, DecisionsAnswer, RowsAnswer, StackRows
from neuronscope.maths.streams.signed_ranks import SignedRankHistogram, SignedRanksAnswer
from neuronscope.maths.streams.sketch import SketchQuantile

__all__ = [
    "ClassMoments",
    "CoActivation",
    "Confusion",
    "Decisions",
    "DecisionsAnswer",
    "Each",
    "Extremes",
    "Histogram",
    "HistogramCounts",
    "MapMoments",
    "Moments",
    "MomentsAnswer",
    "Reducer",
    "RowsAnswer",
    "Seen",
    "SignedRankHistogram",
    "SignedRanksAnswer",
    "SketchQuantile",
    "StackRows",
    "State",
    "TopK",
    "UpperTail",
    "on_cpu",
    "state_bytes",
]
