"""The network under study: a module with its names, preprocessing and fingerprint; hooked, never changed."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from neuronscope.preprocessing import Preprocess
from neuronscope.units import LayerInfo


@dataclass(frozen=True)
class Subject:
    """A trained network and what is known of it.

    Attributes:
        module: the network, in eval mode; its last output is (n, classes) logits.
        name: how it was asked for, as in `torchvision:resnet18`.
        classes: class names, as many as the network has outputs; numbers as text when unknown.
        preprocess: how its input images are prepared.
        input_shape: (channels, height, width) of its input.
        layers: every addressable output in calling order.
        fingerprint: changes whenever the architecture or a weight changes.
    """

    module: nn.Module
    name: str
    classes: tuple[str, ...]
    preprocess: Preprocess
    input_shape: tuple[int, int, int]
    layers: tuple[LayerInfo, ...]
    fingerprint: str
