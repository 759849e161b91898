"""The `importance` study: which units carry a class, proven by switching them off."""

from neuronscope.studies.importance.original import ORIGINAL_FIGURES, export_importance
from neuronscope.studies.importance.page import importance_page
from neuronscope.studies.importance.plan import plan_importance
from neuronscope.studies.importance.setting import chosen_layers
from neuronscope.studies.importance.spec import LEGACY, RULES, ImportanceSpec
from neuronscope.studies.importance.study import run_importance

__all__ = [
    "LEGACY",
    "ORIGINAL_FIGURES",
    "RULES",
    "ImportanceSpec",
    "chosen_layers",
    "export_importance",
    "importance_page",
    "plan_importance",
    "run_importance",
]
