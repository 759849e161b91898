"""Augmentations as data: parameters apart from application, one row of parameters for each image of a batch."""

from neuronscope.augment.augmentation import Apply, Augmentation, Kind, Parameter, check_channels, decoded, severity
from neuronscope.augment.catalogue import LEGACY, SETS, augmentations
from neuronscope.augment.compose import compose, permutation
from neuronscope.augment.stretching import stretch

__all__ = [
    "LEGACY",
    "SETS",
    "Apply",
    "Augmentation",
    "Kind",
    "Parameter",
    "augmentations",
    "check_channels",
    "compose",
    "decoded",
    "permutation",
    "severity",
    "stretch",
]
