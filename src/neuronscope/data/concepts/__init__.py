"""Images with human concepts in them: where they come from, how they are laid over what a network sees."""

from neuronscope.data.concepts.annotations import Encoding
from neuronscope.data.concepts.broden import Ties
from neuronscope.data.concepts.check import ConceptProblem, ConceptReport, ConceptUse, check, check_concepts
from neuronscope.data.concepts.concept_data import Concept, ConceptData, Level, combine
from neuronscope.data.concepts.framing import WHOLE, Framing, framing_of, squashed
from neuronscope.data.concepts.masks import ConceptMasks, MaskReader, MaskSource
from neuronscope.data.concepts.sources import (
    CONCEPT_SOURCES,
    NO_OPTIONS,
    ConceptOptions,
    ConceptRequest,
    concept_options,
    load_concepts,
)

__all__ = [
    "CONCEPT_SOURCES",
    "NO_OPTIONS",
    "WHOLE",
    "Concept",
    "ConceptData",
    "ConceptMasks",
    "ConceptOptions",
    "ConceptProblem",
    "ConceptReport",
    "ConceptRequest",
    "ConceptUse",
    "Encoding",
    "Framing",
    "Level",
    "MaskReader",
    "MaskSource",
    "Ties",
    "check",
    "check_concepts",
    "combine",
    "concept_options",
    "framing_of",
    "load_concepts",
    "squashed",
]
