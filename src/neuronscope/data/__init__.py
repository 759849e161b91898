"""Images with labels: where they come from, how they are decoded, how they become batches."""

from neuronscope.data.dataset import (
    Batch,
    Data,
    OnError,
    balanced_rows,
    class_counts,
    data_from_arrays,
    first_of_each_class,
)
from neuronscope.data.imagenet import Sorted, sort_imagenet
from neuronscope.data.loading import batches
from neuronscope.data.sources import DATA_SOURCES, DataRequest, load_data

__all__ = [
    "DATA_SOURCES",
    "Batch",
    "Data",
    "DataRequest",
    "OnError",
    "Sorted",
    "balanced_rows",
    "batches",
    "class_counts",
    "data_from_arrays",
    "first_of_each_class",
    "load_data",
    "sort_imagenet",
]
