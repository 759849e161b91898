"""Images with labels: where they come from, how they are decoded, how they become batches."""

from neuronscope.data.dataset import Batch, Data

__all__ = ["Batch", "Data"]
