"""The `concepts` study: which formula of human concepts a unit detects."""

from neuronscope.studies.concepts.original import ORIGINAL_FIGURES, export_concepts
from neuronscope.studies.concepts.page import concepts_page
from neuronscope.studies.concepts.setting import chosen_layers, concept_images
from neuronscope.studies.concepts.spec import LEGACY, ConceptsSpec
from neuronscope.studies.concepts.study import plan_concepts, run_concepts

__all__ = [
    "LEGACY",
    "ORIGINAL_FIGURES",
    "ConceptsSpec",
    "chosen_layers",
    "concept_images",
    "concepts_page",
    "export_concepts",
    "plan_concepts",
    "run_concepts",
]
