"""One question each about the units of a network: the table of studies.

Adding one is a row here and a folder beside. Studies never import one another.
"""

from __future__ import annotations

from neuronscope.studies import importance, layers
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
}
"""Name -> study."""

__all__ = ["STUDIES", "Study"]
