"""Networks: where they come from, how weights are loaded, which layers they have."""

from neuronscope.models.subject import Subject

__all__ = ["Subject"]
