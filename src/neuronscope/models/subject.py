"""The network under study: a module with its names, preprocessing and fingerprint; hooked, never changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import get_args

from torch import nn

from neuronscope.errors import UnknownName, nearest
from neuronscope.preprocessing import Preprocess
from neuronscope.units import Kind, LayerInfo, UnitSet


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
        unaddressable: (module name, reason) of modules without an output that could be studied.
        not_loaded: names of the tensors that a partial weights file left at their random values.
    """

    module: nn.Module
    name: str
    classes: tuple[str, ...]
    preprocess: Preprocess
    input_shape: tuple[int, int, int]
    layers: tuple[LayerInfo, ...]
    fingerprint: str
    unaddressable: tuple[tuple[str, str], ...] = ()
    not_loaded: tuple[str, ...] = ()

    def layer(self, name: str) -> LayerInfo:
        """The layer of a dotted name, as in `layer4.1.relu` or, for the second call of a module, `layer4.1.relu#1`.

        Raises:
            UnknownName: there is no such layer, or the module has no output that could be studied.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        reason = dict(self.unaddressable).get(name)
        if reason is not None:
            message = f"layer '{name}' of {self.name} {reason}. {self._hint}"
            raise UnknownName(message)
        raise UnknownName(self._unknown("layer", name))

    def select(self, *patterns: str) -> tuple[LayerInfo, ...]:
        """Layers by name, glob or kind, in calling order, each once.

        Args:
            patterns: each a dotted name (`layer1.0.conv1`), a glob where case matters (`layer*.0.conv?`) or a kind
                (`conv`, `relu`, `block`). A name goes before a kind of the same spelling. Without any pattern: the
                units that studies of single units are usually about, all `relu` layers (all `conv` layers in networks
                that apply their nonlinearity without a module) and the classifier.

        Raises:
            UnknownName: a pattern fits no layer.
        """
        if not patterns:
            return self._usual()
        chosen: set[str] = set()
        for pattern in patterns:
            chosen |= self._matches(pattern)
        return tuple(layer for layer in self.layers if layer.name in chosen)

    def units(self, text: str) -> UnitSet:
        """The units that a text such as `layer4.1:37` or `fc:0-3,7` names; a bare layer name is all of it.

        Raises:
            UnknownName: there is no such layer.
            InputError: the text cannot be read, or a unit is not in the layer.
        """
        return UnitSet.parse(text, size=self.layer(text.partition(":")[0]).units)

    def _matches(self, pattern: str) -> set[str]:
        names = {layer.name for layer in self.layers}
        if pattern in names:
            return {pattern}
        if pattern in dict(self.unaddressable):
            self.layer(pattern)  # raises with the reason
        if pattern in get_args(Kind):
            found = {layer.name for layer in self.layers if layer.kind == pattern}
        else:
            found = {name for name in names if fnmatchcase(name, pattern)}
        if not found:
            raise UnknownName(self._unknown("layer, glob or kind", pattern))
        return found

    def _usual(self) -> tuple[LayerInfo, ...]:
        """The default choice of `select`."""
        kinds: Sequence[Kind] = [layer.kind for layer in self.layers]
        main: Kind = "relu" if "relu" in kinds else "conv"
        wanted = ("linear",) if main == "conv" and "linear" in kinds else ("linear", "conv")
        last = max((place for place, kind in enumerate(kinds) if kind == main), default=-1)
        # a classifier that a nonlinearity follows (SqueezeNet's last convolution) is seen through that nonlinearity
        classifier = next((layer for layer in reversed(self.layers[last + 1 :]) if layer.kind in wanted), None)
        return tuple(layer for layer in self.layers if layer.kind == main or layer is classifier)

    def _unknown(self, what: str, name: str) -> str:
        kinds = dict.fromkeys(layer.kind for layer in self.layers)
        if name in get_args(Kind):
            return f"{self.name} has no layer of kind '{name}'. Its kinds: {', '.join(kinds)}. {self._hint}"
        close = nearest(name, (*(layer.name for layer in self.layers), *kinds))
        return f"{what} '{name}' is not in {self.name} ({len(self.layers)} layers).{close} {self._hint}"

    @property
    def _hint(self) -> str:
        return f"List them with: neuronscope list layers {self.name}"
