"""Wiring: where silenced units are silent, which layers share channels, which weights lie between two layers."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from neuronscope.edits import Edit, drop, replace
from neuronscope.errors import InputError
from neuronscope.hooks import edited, observed
from neuronscope.models import Subject, load_model, subject_from
from neuronscope.models.wiring import Feed, connection, coupled, feeds, silenced_at, unknown_wiring
from neuronscope.preprocessing import Preprocess
from neuronscope.units import UnitSet

SHAPE = (3, 16, 16)


def subject_of(module: nn.Module, shape: tuple[int, int, int] = SHAPE) -> Subject:
    """A network as a subject, with normalisations that would make a constant of a zero."""
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.bias, part.running_mean, part.running_var):
                assert tensor is not None
                tensor.data = torch.rand(tensor.shape, generator=generator) + 0.5
    return subject_from(module, name="made", input_shape=shape, preprocess=Preprocess(channels=3, crop=shape[1:]))


def silent(subject: Subject, name: str) -> str:
    """The name of the layer where a unit of this one is silent."""
    return silenced_at(subject, subject.layer(name)).layer.name


def logits(subject: Subject, *edits: Edit) -> Tensor:
    """The output for fixed images under edits."""
    image = torch.rand(2, *subject.input_shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), edited(subject, edits):
        return subject.module(image)


class Odd(nn.Module):
    """What a list of modules does not tell: functions, a branch, a joint, an addition, a function at the end."""

    def __init__(self) -> None:
        """Make its parts."""
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv3, self.bn3 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv4, self.act4 = nn.Conv2d(4, 4, 1), nn.Sigmoid()
        self.conv5, self.norm5 = nn.Conv2d(8, 4, 1), nn.GroupNorm(2, 4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 2)

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        first = functional.relu(self.bn1(self.conv1(image)))
        second = self.bn2(functional.relu(self.conv2(first)))
        total = torch.add(first, second)
        total += self.bn3(self.conv3(total))
        gate = functional.softplus(self.conv4(total))
        joint = torch.cat([self.act4(gate), total], dim=1)
        maps = self.norm5(self.conv5(joint))
        return self.head(self.drop(maps.mean((2, 3))))


class Choosy(nn.Module):
    """Its path depends on the image."""

    def __init__(self) -> None:
        """Make its parts."""
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(4, 2)

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        maps = self.relu(self.conv(image))
        if maps.sum() > 1e9:
            maps = -maps
        return self.head(maps.mean((2, 3)))


class Restless(nn.Module):
    """Its output is another one each time, so that a recording cannot be checked."""

    def __init__(self) -> None:
        """Make its part."""
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        return self.head(torch.dropout(image.mean((2, 3)), 0.5, True))


@pytest.fixture(scope="module")
def resnet18():
    """A small input keeps it quick."""
    return load_model("torchvision:resnet18", weights="random", input_shape=(3, 32, 32))


@pytest.fixture(scope="module")
def odd():
    """The network of oddities."""
    torch.manual_seed(0)
    return subject_of(Odd())


# Where a unit is silent


def test_resnet(resnet18):
    """Behind normalisation and ReLU inside a block; before the addition at its end, and the reason says so."""
    assert silent(resnet18, "conv1") == "relu"
    assert silent(resnet18, "layer1.0.conv1") == "layer1.0.relu"
    assert silent(resnet18, "layer1.0.bn1") == "layer1.0.relu"
    assert silent(resnet18, "layer1.0.relu#1") == "layer1.0.relu#1"
    assert silent(resnet18, "layer2.0.downsample.0") == "layer2.0.downsample.1"
    found = silenced_at(resnet18, resnet18.layer("layer1.0.conv2"))
    assert (found.layer.name, found.certain) == ("layer1.0.bn2", True)
    assert "addition" in found.reason
    assert "skip" in found.reason


def test_normalisation_after_the_activation():
    """In the CIFAR-10 network of the sub-network experiments the normalisation stands last, so it is the place."""
    subject = load_model("builtin:subnet-cifar10", weights="random")
    assert [silent(subject, name) for name in ("conv0", "relu0", "bn1", "conv14")] == ["bn1", "bn1", "bn1", "bn15"]


def test_dropout_at_the_end_is_left_out():
    """A dropout does nothing in a study: the ReLU before it is the place."""
    subject = load_model("builtin:subnet-mnist", weights="random")
    assert [silent(subject, name) for name in ("dense9", "relu9", "conv1", "pool2", "dense11")] == [
        *("relu9", "relu9", "relu1", "pool2", "dense11")
    ]
    assert "output of the network" in silenced_at(subject, subject.layer("dense11")).reason


def test_functions_and_ends(odd):
    """Functions are followed; each kind of end has its reason, and what cannot be addressed is not claimed."""
    cases = {
        "conv1": ("bn1", "2 operations use its output"),  # the ReLU keeps zero, so zero after bn1 is silence
        "conv2": ("bn2", "an addition follows"),
        "conv3": ("bn3", "an addition follows"),
        "act4": ("act4", "joined with other maps"),
        "conv5": ("conv5", "'norm5' follows, which mixes channels"),
        "norm5": ("norm5", "mean follows"),
    }
    for name, (place, why) in cases.items():
        found = silenced_at(odd, odd.layer(name))
        assert (found.layer.name, found.certain) == (place, True), name
        assert why in found.reason, name
    assert silent(odd, "conv4") == "act4"


def test_function_that_moves_zero():
    """After a sigmoid without a module nothing that could be addressed is silent: that is said."""

    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool, self.head = nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Linear(4 * 49, 2)

        def forward(self, image: Tensor) -> Tensor:
            maps = self.pool(torch.sigmoid(self.conv(image)))
            return self.head(maps.view(maps.size(0), -1))

    subject = subject_of(Gate())
    found = silenced_at(subject, subject.layer("conv"))
    assert (found.layer.name, found.certain) == ("conv", False)
    assert "sigmoid" in found.reason


@pytest.mark.parametrize("name", ["conv1", "conv2", "conv3", "conv4", "act4", "conv5"])
def test_silence_is_real(odd, name):
    """With the unit dropped at the place given, nothing that is put into the layer itself comes through any more."""
    layer = odd.layer(name)
    place = silenced_at(odd, layer).layer
    here, there = UnitSet(layer.name, layer.units, (1,)), UnitSet(place.name, place.units, (1,))
    assert torch.equal(logits(odd, replace(here, 7.0), drop(there)), logits(odd, drop(there)))
    if place is not layer:  # dropping it in the layer itself leaves the constant of the normalisation
        assert not torch.allclose(logits(odd, drop(here)), logits(odd, drop(there)))


def test_unknown_wiring_is_said():
    """A network that cannot be recorded, or not checked: the layer itself, nothing coupled, no weights, the reason."""
    for module, name in ((Choosy(), "conv"), (Restless(), "head")):
        torch.manual_seed(0)
        subject = subject_of(module)
        layer = subject.layer(name)
        found = silenced_at(subject, layer)
        assert (found.layer, found.certain) == (layer, False)
        assert found.reason.startswith("unknown")
        assert coupled(subject, subject.layers) == ()
        assert feeds(subject, subject.layers[0], subject.layers[-1]) is None
        assert "record" in unknown_wiring(subject)


def test_recording_leaves_the_network_as_it_was():
    """No module, mode or output of the network changes."""
    subject = subject_of(Odd())
    parts, before = list(subject.module.modules()), logits(subject)
    assert unknown_wiring(subject) == ""
    assert list(subject.module.modules()) == parts
    assert not any(part.training for part in parts)
    assert torch.equal(logits(subject), before)


def test_default_arguments_keep_their_values():
    """A second argument of the network is recorded with its default, not as something unknown."""

    class Optional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu, self.head = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(4, 2)

        def forward(self, image: Tensor, mask: Tensor | None = None, scale: float = 1.0) -> Tensor:
            maps = self.relu(self.conv(image if mask is None else image * mask))
            return self.head(maps.mean((2, 3)) * scale)

    subject = subject_of(Optional())
    assert unknown_wiring(subject) == ""
    assert silent(subject, "conv") == "relu"


# Which layers share channels


def test_residual_stages(resnet18):
    """Each stage is one group: the last normalisations, that of the shortcut, and the ReLUs after the sums."""
    layers = resnet18.select("layer?.*.bn?", "layer?.*.relu", "layer?.*.relu#1", "layer?.0.downsample.1")
    assert coupled(resnet18, layers) == (
        ("layer1.0.bn2", "layer1.0.relu#1", "layer1.1.bn2", "layer1.1.relu#1"),
        *(
            tuple(
                f"layer{stage}.{part}"
                for part in ("0.bn2", "0.downsample.1", "0.relu#1", "1.bn2", "1.relu#1")
            )
            for stage in (2, 3, 4)
        ),
    )  # fmt: skip
    assert coupled(resnet18, resnet18.select("layer1.*.conv?")) == (("layer1.0.conv2", "layer1.1.conv2"),)
    assert coupled(resnet18, resnet18.select("layer1.0.relu", "layer2.0.bn2")) == ()


def test_coupling_through_functions(odd):
    """`torch.add` and `+=` couple; a joint does not, and a chain without an addition is no group."""
    assert coupled(odd, odd.layers) == (("conv1", "bn1", "conv2", "bn2", "conv3", "bn3"),)
    assert coupled(odd, (odd.layer("bn3"), odd.layer("bn1"))) == (("bn3", "bn1"),)
    chain = load_model("builtin:subnet-cifar10", weights="random")
    assert coupled(chain, chain.layers) == ()


def test_shifted_shortcuts_couple_nothing_across():
    """The shortcut of the CIFAR ResNet moves channels to other places: stages are groups of their own."""
    file = Path(__file__).parent / "resnet20.py"
    subject = load_model(f"python:{file}:resnet20", weights="random")
    groups = coupled(subject, subject.select("layer?.?", "layer?.?.bn2", "bn1"))
    assert [{name.split(".")[0] for name in group} for group in groups] == [{"bn1", "layer1"}, {"layer2"}, {"layer3"}]
    assert groups[2] == tuple(f"layer3.{block}{part}" for block in (0, 1, 2) for part in (".bn2", ""))


def test_coupled_channels_are_one_stream(resnet18):
    """Before a sum it makes no difference which layer of a group brings what to channel j, and for others it does."""
    names = ("layer2.0.bn2", "layer2.0.downsample.1")
    assert coupled(resnet18, [resnet18.layer(name) for name in names]) == (names,)

    def with_values(first: float, second: float, channel: int) -> Tensor:
        here, there = UnitSet(names[0], 128, (3,)), UnitSet(names[1], 128, (channel,))
        return logits(resnet18, replace(here, first), replace(there, second))

    torch.testing.assert_close(with_values(2.0, 5.0, 3), with_values(5.0, 2.0, 3))
    assert not torch.allclose(with_values(2.0, 5.0, 4), with_values(5.0, 2.0, 4))


# Which weights lie between


def test_feeds_in_a_chain():
    """Between consecutive layers of a chain there are the weights of the second; a Flatten makes blocks."""
    subject = load_model("builtin:subnet-mnist", weights="random")
    found = {}
    names = ("relu0", "relu1", "relu4", "relu5", "relu9", "dense11")
    for first, second in pairwise(names):
        found[second] = feeds(subject, subject.layer(first), subject.layer(second))
    assert found == {
        "relu1": Feed("conv1"),
        "relu4": Feed("conv4"),  # pooling and dropout on the way
        "relu5": Feed("conv5"),
        "relu9": Feed("dense9", 49),
        "dense11": Feed("dense11"),
    }
    between = {
        (a, b): feeds(subject, subject.layer(a), subject.layer(b)) for a, b in (("relu0", "relu4"), ("relu5",) * 2)
    }
    assert set(between.values()) == {None}  # two weighted layers, and none
    assert feeds(subject, subject.layer("relu1"), subject.layer("relu0")) is None
    assert feeds(subject, subject.layer("conv0"), subject.layer("conv1")) == Feed("conv1")
    assert feeds(subject, subject.layer("flatten8"), subject.layer("relu9")) == Feed("dense9")


def test_feeds_needs_the_only_way(resnet18, odd):
    """Where an addition or a joint brings in more, no single weights stand for the way."""
    between = {
        ("layer1.0.relu", "layer1.0.bn2"): Feed("layer1.0.conv2"),
        ("layer1.0.relu", "layer1.0.relu#1"): None,
        ("layer4.1.relu#1", "fc"): Feed("fc"),
    }
    for (first, second), feed in between.items():
        assert feeds(resnet18, resnet18.layer(first), resnet18.layer(second)) == feed
    assert feeds(odd, odd.layer("bn1"), odd.layer("bn2")) == Feed("conv2")
    assert feeds(odd, odd.layer("act4"), odd.layer("conv5")) is None
    assert feeds(odd, odd.layer("norm5"), odd.layer("head")) == Feed("head")


class Functions(nn.Module):
    """Pooling, padding and flatten as functions and as modules."""

    def __init__(self) -> None:
        """Make its parts."""
        super().__init__()
        self.conv1, self.pad, self.conv2 = nn.Conv2d(3, 4, 3), nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(4, 6, 2, groups=2)
        self.relu, self.hidden, self.head = nn.ReLU(), nn.Linear(6 * 9, 5), nn.Linear(5, 2)

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        maps = self.conv2(self.pad(functional.max_pool2d(self.conv1(image), 2)))
        maps = functional.adaptive_avg_pool2d(self.relu(maps), (3, 3))
        return self.head(self.hidden(maps.reshape(maps.shape[0], -1)))


def test_feeds_through_functions():
    """`max_pool2d`, `adaptive_avg_pool2d` and `reshape` are followed as their modules are."""
    subject = subject_of(Functions())
    assert feeds(subject, subject.layer("conv1"), subject.layer("relu")) == Feed("conv2")
    assert feeds(subject, subject.layer("relu"), subject.layer("hidden")) == Feed("hidden", 9)


def test_connection_is_what_a_unit_adds():
    """A unit that is 1 everywhere adds its connection, times the inputs of its block, to every unit after it."""
    torch.manual_seed(0)
    subject = subject_of(Functions())
    first, second = subject.layer("relu"), subject.layer("hidden")
    feed = feeds(subject, first, second)
    assert feed is not None
    module = subject.module.get_submodule(feed.module)
    weights = connection(module, block=feed.block)
    kept: dict[str, Tensor] = {}
    for unit in range(first.units):
        alone = UnitSet(first.name, first.units, (unit,))
        edits = [replace(alone, 1.0), drop(~alone)]
        with observed(subject.module, {second: lambda seen: kept.update(seen=seen.clone())}):
            logits(subject, *edits)
        added = kept["seen"] - module.bias
        np.testing.assert_allclose(added[0].numpy(), weights[:, unit] * feed.block, atol=1e-5)


def test_connection_of_convolutions():
    """The mean over the kernel's positions; pairs in different groups have none."""
    plain, grouped = nn.Conv2d(4, 6, 3), nn.Conv2d(4, 6, 3, groups=2)
    kernel = plain.weight.detach().double().numpy()
    for after, before in ((0, 0), (5, 3), (2, 1)):
        assert connection(plain)[after, before] == pytest.approx(kernel[after, before].mean())
    weights = connection(grouped)
    assert weights.shape == (6, 4)
    assert not weights[:3, 2:].any()
    assert not weights[3:, :2].any()
    np.testing.assert_allclose(weights[3:, 2:], grouped.weight.detach().double().numpy()[3:].mean((2, 3)))


def test_connection_refuses():
    """Other modules, and blocks that do not fit."""
    with pytest.raises(InputError, match=r"BatchNorm2d .* expected a Conv2d"):
        connection(nn.BatchNorm2d(3))
    with pytest.raises(InputError, match="block of 5 does not divide the 12 inputs"):
        connection(nn.Linear(12, 2), block=5)
