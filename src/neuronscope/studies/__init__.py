"""One question each about the units of a network: the table of studies.

Adding one is a row here and a folder beside. Studies never import one another.
"""

from __future__ import annotations

from neuronscope.studies.layers import (
    LEGACY,
    ORIGINAL_FIGURES,
    LayersSpec,
    export_layers,
    layers_page,
    plan_layers,
    run_layers,
)
from neuronscope.studies.study import Study

STUDIES: dict[str, Study] = {
    "layers": Study(
        name="layers",
        question="What does every layer and unit respond to, how selectively, and how sure can one be?",
        spec=LayersSpec,
        run=run_layers,
        plan=plan_layers,
        page=layers_page,
        export_original=export_layers,
        original_figures=ORIGINAL_FIGURES,
        legacy=LEGACY,
    ),
}
"""Name -> study."""

__all__ = ["STUDIES", "Study"]
