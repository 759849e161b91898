"""Which formula of concepts does a unit detect, where formulas may say WITH, CLOSE and CLOSE TO?

Those operators look at a cell's image or neighbourhood, so that signatures do not suffice. On a 7 x 7 grid the mask of
an image is one 64-bit word (`maths.cells`), and a search can look at all labels, operators and images. `concept_words`
puts a labelled image set together, `unit_words` makes a unit, `explain_words` searches. Scores are those of
`maths.formula_search`: with the same operators and masks, both searches find the same formulas.
"""

from neuronscope.maths.word_search.concept_words import (
    ConceptWords,
    UnitWords,
    concept_words,
    expected_bytes,
    firing_images,
    firing_only,
    unit_words,
    words_of,
)
from neuronscope.maths.word_search.found import Start, WordExplanation, WordFound
from neuronscope.maths.word_search.search import explain_words, start_after
from neuronscope.maths.word_search.spec import INDRES, OPERATORS, Operator, WordSearchSpec

__all__ = [
    "INDRES",
    "OPERATORS",
    "ConceptWords",
    "Operator",
    "Start",
    "UnitWords",
    "WordExplanation",
    "WordFound",
    "WordSearchSpec",
    "concept_words",
    "expected_bytes",
    "explain_words",
    "firing_images",
    "firing_only",
    "start_after",
    "unit_words",
    "words_of",
]
