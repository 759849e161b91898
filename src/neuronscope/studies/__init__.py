"""One question each about the units of a network: the table of studies.

Adding one is a row here and a folder beside. Studies never import one another.
"""

from __future__ import annotations

from neuronscope.studies import clusters, concepts, importance, layers, sensitivity
from neuronscope.studies.sensitivity import masking
from neuronscope.studies.study import Study

STUDIES: dict[str, Study] = {
    "layers": Study(
        name="layers",
        question="What does every layer and unit respond to, how selectively, and how sure can one be?",
        spec=layers.LayersSpec,
        layers=layers.chosen_layers,
        run=layers.run_layers,
        plan=layers.plan_layers,
        page=layers.layers_page,
        export_original=layers.export_layers,
        original_figures=layers.ORIGINAL_FIGURES,
        legacy=layers.LEGACY,
    ),
    "importance": Study(
        name="importance",
        question="Which units carry a class, and what becomes of the network without them?",
        spec=importance.ImportanceSpec,
        layers=importance.chosen_layers,
        run=importance.run_importance,
        plan=importance.plan_importance,
        page=importance.importance_page,
        export_original=importance.export_importance,
        original_figures=importance.ORIGINAL_FIGURES,
        legacy=importance.LEGACY,
    ),
    "concepts": Study(
        name="concepts",
        question="Which formula of human concepts does a unit detect, how well, and is there a better one?",
        spec=concepts.ConceptsSpec,
        layers=concepts.chosen_layers,
        run=concepts.run_concepts,
        plan=concepts.plan_concepts,
        page=concepts.concepts_page,
        export_original=concepts.export_concepts,
        original_figures=concepts.ORIGINAL_FIGURES,
        legacy=concepts.LEGACY,
        data_of=concepts.concept_images,
    ),
    "clusters": Study(
        name="clusters",
        question="Do explanations become more faithful when the gradient is kept from flowing through some units?",
        spec=clusters.ClustersSpec,
        layers=clusters.chosen_layers,
        run=clusters.run_clusters,
        plan=clusters.plan_clusters,
        page=clusters.clusters_page,
        export_original=clusters.export_clusters,
        original_figures=clusters.ORIGINAL_FIGURES,
        legacy=clusters.LEGACY,
        join=clusters.join_classes,
    ),
    "sensitivity": Study(
        name="sensitivity",
        question="How does each activation react when many things about the image change at once?",
        spec=sensitivity.SensitivitySpec,
        layers=sensitivity.chosen_layers,
        run=sensitivity.run_sensitivity,
        plan=sensitivity.plan_sensitivity,
        page=sensitivity.sensitivity_page,
        export_original=sensitivity.export_sensitivity,
        original_figures=sensitivity.ORIGINAL_FIGURES,
        legacy=sensitivity.LEGACY,
        join=sensitivity.join_sets,
        analyse=sensitivity.analyse_sensitivity,
        analysis_options=sensitivity.ANALYSIS_OPTIONS,
    ),
    "masking": Study(
        name="masking",
        question="What becomes of the answers when the places that are sensitive to one factor are masked?",
        spec=masking.MaskingSpec,
        layers=masking.chosen_layers,
        run=masking.run_masking,
        plan=masking.plan_masking,
        page=masking.masking_page,
        export_original=masking.export_masking,
        original_figures=masking.ORIGINAL_FIGURES,
        legacy=masking.LEGACY,
    ),
}
"""Name -> study."""

__all__ = ["STUDIES", "Study"]
