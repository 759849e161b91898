"""Networks: where they come from, how weights are loaded, which layers they have."""

from neuronscope.models.builtin import BUILTIN_MODELS
from neuronscope.models.checkpoints import load_checkpoint, save_checkpoint
from neuronscope.models.probe import probe_layers
from neuronscope.models.sources import MODEL_SOURCES, ModelOptions, load_model, subject_from
from neuronscope.models.subject import Subject
from neuronscope.models.weights import fit_state, load_state

__all__ = [
    "BUILTIN_MODELS",
    "MODEL_SOURCES",
    "ModelOptions",
    "Subject",
    "fit_state",
    "load_checkpoint",
    "load_model",
    "load_state",
    "probe_layers",
    "save_checkpoint",
    "subject_from",
]
