"""Addressing layers and units of a subject by name, glob and kind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from neuronscope.errors import InputError, UnknownName
from neuronscope.models import Subject, subject_from
from neuronscope.preprocessing import Preprocess
from neuronscope.units import UnitSet


def small() -> Subject:
    """Two blocks of two convolutions with ReLUs and a classifier."""

    def block(before: int) -> nn.Sequential:
        parts = {"conv1": nn.Conv2d(before, 4, 3, padding=1), "relu": nn.ReLU(), "conv2": nn.Conv2d(4, 4, 1)}
        found = nn.Sequential()
        for name, part in parts.items():
            found.add_module(name, part)
        return found

    module = nn.Sequential()
    module.add_module("layer1", nn.Sequential(block(1), block(4)))
    module.add_module("layer2", nn.Sequential(block(4)))
    module.add_module("flatten", nn.Flatten())
    module.add_module("fc", nn.Linear(64, 3))
    return subject_from(module, name="python:small", input_shape=(1, 4, 4), preprocess=Preprocess(channels=1))


def names(subject: Subject, *patterns: str) -> list[str]:
    """What a selection finds."""
    return [layer.name for layer in subject.select(*patterns)]


def test_layer_by_name():
    """A dotted name gives its layer."""
    layer = small().layer("layer1.1.conv2")
    assert (layer.kind, layer.units, layer.shape) == ("conv", 4, (4, 4, 4))


def test_unknown_layer_offers_the_nearest():
    """A name that does not exist: what was asked, the nearest names and how to list them all."""
    with pytest.raises(
        UnknownName, match=r"layer 'layer1\.2' is not in .*'layer1\.[01]'.*neuronscope list layers python:small"
    ):
        small().layer("layer1.2")


def test_select_by_glob_name_and_kind():
    """Names, globs and kinds add up, in calling order and without repeats."""
    subject = small()
    assert names(subject, "layer*.0.conv?") == ["layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1", "layer2.0.conv2"]
    assert names(subject, "fc", "relu", "layer1.0.relu") == ["layer1.0.relu", "layer1.1.relu", "layer2.0.relu", "fc"]
    assert names(subject, "block") == ["layer1.0", "layer1.1", "layer1", "layer2.0", "layer2"]
    assert names(subject, "linear") == ["fc"]


def test_glob_is_case_sensitive():
    """`LAYER*` is not `layer*`; the error offers the nearest names."""
    with pytest.raises(UnknownName, match="LAYER1"):
        small().select("LAYER1*")


def test_pattern_without_a_match():
    """A glob or kind that fits nothing is an error, also beside one that does."""
    for pattern, message in (("layer9.*", "is not in python:small"), ("norm", "no layer of kind 'norm'")):
        with pytest.raises(UnknownName, match=message):
            small().select("fc", pattern)


def test_default_choice():
    """Without patterns: every ReLU and the classifier."""
    assert names(small()) == ["layer1.0.relu", "layer1.1.relu", "layer2.0.relu", "fc"]


def test_default_choice_without_relu_modules():
    """Networks with functional ReLUs: every convolution and the last linear layer."""

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3)
            self.fc1, self.fc2 = nn.Linear(32, 5), nn.Linear(5, 2)

        def forward(self, image: Tensor) -> Tensor:
            maps = functional.relu(self.conv2(functional.relu(self.conv1(image))))
            return self.fc2(functional.relu(self.fc1(maps.flatten(1))))

    subject = subject_from(Plain(), name="plain", input_shape=(1, 8, 8), preprocess=Preprocess(channels=1))
    assert names(subject) == ["conv1", "conv2", "fc2"]


def test_default_choice_with_a_convolution_as_classifier():
    """A fully convolutional classifier counts as the classifier."""
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    subject = subject_from(module, name="full", input_shape=(1, 8, 8), preprocess=Preprocess(channels=1))
    assert names(subject) == ["1", "2"]


def test_units():
    """A text names units of a layer; those outside it are refused."""
    subject = small()
    assert subject.units("layer1.0.conv1:1-2") == UnitSet("layer1.0.conv1", 4, (1, 2))
    assert len(subject.units("fc")) == 3
    with pytest.raises(InputError, match=r"unit 4 is not in layer 'layer1\.0'"):
        subject.units("layer1.0:4")
    with pytest.raises(UnknownName, match="layer7"):
        subject.units("layer7:0")


def test_module_that_is_never_called():
    """Addressing a module that takes no part in the forward pass says so, by name, pattern and units."""

    class Aux(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.aux1 = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, image: Tensor) -> Tensor:
            return self.main(image.flatten(1))

    subject = subject_from(Aux(), name="aux", input_shape=(1, 2, 2), preprocess=Preprocess(channels=1))
    for ask in (subject.layer, subject.select, subject.units):
        with pytest.raises(UnknownName, match="layer 'aux1' of aux is never called in eval mode"):
            ask("aux1")


def test_second_call_has_its_own_name():
    """The calls of a reused module are separate layers."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.relu = nn.Linear(4, 4), nn.ReLU()

        def forward(self, image: Tensor) -> Tensor:
            return self.relu(self.fc(self.relu(self.fc(torch.flatten(image, 1)))))

    subject = subject_from(Twice(), name="twice", input_shape=(1, 2, 2), preprocess=Preprocess(channels=1))
    assert names(subject, "relu") == ["relu"]  # the name goes before the kind
    assert names(subject, "relu*") == ["relu", "relu#1"]
    assert subject.layer("fc#1").call == 1
    assert names(subject) == ["relu", "relu#1"]  # the classifier is seen through the nonlinearity after it


def test_a_kind_that_no_layer_has_is_told_apart_from_an_unknown_name():
    """Asking for `relu` where the nonlinearity has no module names the kinds there are."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    subject = subject_from(network, name="flat", input_shape=(1, 2, 2), preprocess=Preprocess(channels=1))
    with pytest.raises(UnknownName, match=r"no layer of kind 'relu'. Its kinds: flatten, linear"):
        subject.select("relu")
