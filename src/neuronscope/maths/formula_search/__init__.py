"""Which formula of concepts does a unit detect, how well, and is there a better one?

`prepare` works out once what all units share; `explain` answers for one unit, `explain_all` for a list. Underneath are
`beam_search`, which finds good formulas of any length, and `certified`, which finds the best of up to three labels and
proves that there is none better. Scores are fractions of sums over signatures (`Score`), which makes both fast.
"""

from neuronscope.maths.formula_search.beam import beam_search
from neuronscope.maths.formula_search.explain import explain, explain_all
from neuronscope.maths.formula_search.found import Certificate, Explanation, Found
from neuronscope.maths.formula_search.optimum import certified
from neuronscope.maths.formula_search.scores import Measure, Penalty, Score, measure
from neuronscope.maths.formula_search.spec import SearchSpec
from neuronscope.maths.formula_search.tables import SearchTables, prepare

__all__ = [
    "Certificate",
    "Explanation",
    "Found",
    "Measure",
    "Penalty",
    "Score",
    "SearchSpec",
    "SearchTables",
    "beam_search",
    "certified",
    "explain",
    "explain_all",
    "measure",
    "prepare",
]
