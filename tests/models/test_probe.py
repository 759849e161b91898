"""The probe against networks whose layers are known, and its receptive fields against what NaN reaches."""

# ruff: noqa: D102, D107 the networks are fixtures: each class says what it is, its two methods are PyTorch's

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from neuronscope.errors import InputError
from neuronscope.models.probe import probe, probe_layers
from neuronscope.units import LayerInfo


class Residual(nn.Module):
    """A convolution added to its input; one in-place ReLU is used twice."""

    def __init__(self, channels: int, **options) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, padding="same", **options)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, image: Tensor) -> Tensor:
        maps = self.relu(self.conv(image))
        maps += image
        return self.relu(maps)


class Beside(nn.Module):
    """Branches side by side, concatenated along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([branch(image) for branch in self.branches], dim=1)


class Shuffle(nn.Module):
    """Mixes channel groups as ShuffleNet does."""

    def forward(self, image: Tensor) -> Tensor:
        n, c, h, w = image.shape
        return image.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class ChannelsLast(nn.Module):
    """A ConvNeXt-like block: depthwise convolution, then linear layers on channels-last maps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.wide = nn.Linear(channels, 3 * channels)
        self.act = nn.GELU()
        self.narrow = nn.Linear(3 * channels, channels)

    def forward(self, image: Tensor) -> Tensor:
        maps = self.norm(self.conv(image).permute(0, 2, 3, 1))
        maps = self.narrow(self.act(self.wide(maps)))
        return image + maps.permute(0, 3, 1, 2)


def seen(module: nn.Module, layer: LayerInfo, shape: tuple[int, int, int], pixel: tuple[int, int]) -> Tensor:
    """Which positions of a layer's map turn NaN when one input pixel is NaN: the truth, by running the network."""
    kept = []
    part = module.get_submodule(layer.module_name)
    handle = part.register_forward_hook(lambda _module, _inputs, output: kept.append(output.isnan()))
    image = torch.rand(1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    image[0, :, pixel[0], pixel[1]] = math.nan
    with torch.no_grad():
        module.double().eval()(image)
    handle.remove()
    return kept[layer.call][0].any(dim=0 if layer.channel_axis == 1 else -1)


def expected(layer: LayerInfo, pixel: tuple[int, int]) -> Tensor:
    """Which positions should turn NaN by the layer's receptive field."""
    field = layer.receptive_field
    hits = []
    for axis in (0, 1):
        first = field.start[axis] + torch.arange(layer.map_shape[axis]) * field.stride[axis]
        hits.append((first <= pixel[axis]) & (pixel[axis] < first + field.size[axis]))
    return hits[0][:, None] & hits[1][None, :]


def same_as_nan(module: nn.Module, shape: tuple[int, int, int], pixels: list[tuple[int, int]]) -> int:
    """Compare every layer that has a receptive field with what NaN reaches; returns how many had one."""
    layers = [layer for layer in probe_layers(module, shape) if layer.receptive_field is not None]
    for layer in layers:
        for pixel in pixels:
            assert torch.equal(seen(module, layer, shape, pixel), expected(layer, pixel)), (layer, pixel)
    return len(layers)


def conv(before: int, after: int, size: int | tuple[int, int], **options) -> nn.Conv2d:
    """A convolution."""
    return nn.Conv2d(before, after, size, **options)


DENSE = {
    "plain": nn.Sequential(conv(1, 2, 3, padding=1), nn.ReLU(inplace=True), conv(2, 2, 5), nn.MaxPool2d(2)),
    "strided": nn.Sequential(
        conv(1, 2, 7, stride=2, padding=3), nn.BatchNorm2d(2), nn.MaxPool2d(3, 2, 1), conv(2, 1, 3)
    ),
    "asymmetric": nn.Sequential(conv(1, 2, (1, 5), padding=(0, 2)), conv(2, 2, (3, 1)), nn.AvgPool2d((1, 2))),
    "even same": nn.Sequential(conv(1, 1, 4, padding="same"), conv(1, 1, 2, padding="same")),
    "residual": nn.Sequential(conv(1, 2, 3), Residual(2, kernel_size=3), Residual(2, kernel_size=5)),
    "residual strided": nn.Sequential(conv(1, 2, 3, stride=2, padding=1), Residual(2, kernel_size=3)),
    "beside": nn.Sequential(Beside(conv(1, 1, 1), conv(1, 2, 3, padding=1), nn.Sequential(nn.MaxPool2d(3, 1, 1)))),
    "shuffle": nn.Sequential(conv(1, 4, 3), Shuffle(), conv(4, 2, 3)),
    "channels last": nn.Sequential(conv(1, 2, 2, stride=2), ChannelsLast(2)),
    "padded": nn.Sequential(nn.ZeroPad2d((1, 2, 0, 3)), conv(1, 1, 3), nn.Dropout2d()),
    "adaptive": nn.Sequential(conv(1, 2, 3, padding=1), nn.AdaptiveAvgPool2d((7, 3)), nn.AdaptiveMaxPool2d((7, 3))),
    "ceil": nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(2, 2, ceil_mode=True)),
}
"""Networks whose receptive fields have no gaps."""


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", DENSE)
def test_receptive_field_is_what_nan_reaches(name):
    """One NaN pixel reaches exactly the positions whose receptive field contains it."""
    pixels = [(0, 0), (0, 8), (6, 7), (13, 11), (5, 2)]
    assert same_as_nan(DENSE[name], (1, 14, 12), pixels) == len(probe_layers(DENSE[name], (1, 14, 12)))


@given(
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.integers(1, 3),
    pad=st.integers(0, 1),
    pool=st.integers(1, 3),
    row=st.integers(0, 12),
    column=st.integers(0, 12),
)
def test_receptive_field_of_any_stack(*, kernel, stride, pad, pool, row, column):
    """For any kernel, stride and padding without gaps between windows the field is what NaN reaches."""
    stride = min(stride, *kernel)
    padding = (min(pad, kernel[0] // 2), min(pad, kernel[1] // 2))
    module = nn.Sequential(conv(1, 1, kernel, stride=stride, padding=padding), nn.MaxPool2d(pool, 1), conv(1, 1, 2))
    shape = (1, 13, 13)
    if stride > 1:  # windows that move further than the last ones reach leave gaps
        module = module[:2]
    assert same_as_nan(module, shape, [(row, column)]) == len(module)


def test_dilated_field_is_the_box_around_its_pixels():
    """A dilated kernel skips pixels: NaN reaches positions inside the box only, and its corners."""
    module = nn.Sequential(conv(1, 1, 3, dilation=3, padding=3), nn.ReLU(), conv(1, 1, 3, dilation=2))
    shape = (1, 20, 20)
    last = probe_layers(module, shape)[-1]
    assert last.receptive_field.size == (11, 11)
    top, bottom, left, right = last.receptive_field.box(7, 8, height=20, width=20)
    for row in range(20):
        for column in range(20):
            hit = bool(seen(module, last, shape, (row, column))[7, 8])
            inside = top <= row < bottom and left <= column < right
            corner = row in (top, bottom - 1) and column in (left, right - 1)
            assert inside or not hit
            assert hit or not corner


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_receptive_fields_of_real_architectures(name):
    """The fields of ResNet-18 and SqueezeNet at a small input are what NaN reaches, at a choice of layers."""
    from torchvision import models

    module = models.get_model(name)
    shape = (3, 48, 48)
    chosen = [layer for layer in probe_layers(module, shape) if layer.receptive_field is not None][::6]
    assert len(chosen) > 5
    for layer in chosen:
        for pixel in [(0, 0), (20, 31)]:
            want = expected(layer, pixel)
            found = seen(module, layer, shape, pixel)
            # A 1x1 convolution with stride 2 (the shortcuts) skips pixels: the field is the box around the others.
            gaps = name == "resnet18" and "downsample" in layer.name
            assert not (found & ~want).any() if gaps else torch.equal(found, want), layer


@pytest.mark.parametrize(
    "part",
    [
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveAvgPool2d(5),
        nn.Upsample(scale_factor=2),
        nn.ConvTranspose2d(1, 1, 2),
        nn.GroupNorm(1, 1),
        nn.InstanceNorm2d(1),
        nn.Softmax2d(),
        nn.CircularPad2d(1),
        nn.ReplicationPad2d(1),
    ],
)
def test_unknown_fields_are_none(part):
    """What sees the whole image, or follows no rule, has no receptive field; so has all that comes after."""
    module = nn.Sequential(conv(1, 1, 3), part, nn.ReLU())
    fields = [layer.receptive_field for layer in probe_layers(module, (1, 9, 9))]
    known = isinstance(part, nn.Softmax2d)  # over the channels of each position: still known
    assert [field is not None for field in fields] == [True, known, known]


def test_squeeze_and_excitation_sees_the_whole_image():
    """A map scaled by a number that depends on the whole image has no receptive field."""
    from torchvision.ops import SqueezeExcitation

    module = nn.Sequential(conv(1, 4, 3), SqueezeExcitation(4, 2))
    assert probe_layers(module, (1, 9, 9))[-1].receptive_field is None


def test_strides_that_differ_are_not_joined():
    """Branches whose positions move at different strides have no common field."""

    class Crossing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fine, self.coarse, self.last = conv(1, 1, 5), conv(1, 1, 1, stride=2), nn.Identity()

        def forward(self, image: Tensor) -> Tensor:
            return self.last(self.fine(image) + self.coarse(image))

    assert probe_layers(Crossing(), (1, 8, 8))[-1].receptive_field is None


def test_layers_in_calling_order():
    """Blocks stand where they return, a module called twice has a numbered second layer, kinds are told."""
    module = nn.Sequential(Residual(2, kernel_size=3), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(8, 3))
    layers = probe_layers(module, (2, 4, 4))
    assert [(layer.name, layer.kind) for layer in layers] == [
        ("0.conv", "conv"),
        ("0.relu", "relu"),
        ("0.relu#1", "relu"),
        ("0", "block"),
        ("1", "pool"),
        ("2", "flatten"),
        ("3", "dropout"),
        ("4", "linear"),
    ]
    assert layers[2].call == 1
    assert [layer.shape for layer in layers[3:6]] == [(2, 4, 4), (2, 2, 2), (8,)]
    assert layers[-1].units == 3


def test_units_are_found_on_the_last_axis():
    """Layers on channels-last maps count their units at the end, the convolutions around them at axis 1."""
    module = nn.Sequential(conv(1, 6, 2, stride=2), ChannelsLast(6))
    axes = {layer.name: (layer.channel_axis, layer.units) for layer in probe_layers(module, (1, 8, 8))}
    assert axes == {
        "0": (1, 6),
        "1.conv": (1, 6),
        "1.norm": (-1, 6),
        "1.wide": (-1, 18),
        "1.act": (-1, 18),
        "1.narrow": (-1, 6),
        "1": (1, 6),
    }


def test_tokens_and_identity():
    """Tokens (n, t, d) have their units last, also behind a module that hands its input on."""
    module = nn.Sequential(conv(1, 6, 2), nn.Flatten(2), nn.Linear(9, 5), nn.Identity(), nn.ReLU())
    layers = probe_layers(module, (1, 4, 4))
    assert [(layer.channel_axis, layer.units) for layer in layers] == [(1, 6), (1, 6), (-1, 5), (-1, 5), (-1, 5)]


def test_modules_without_an_output_of_their_own():
    """Modules that are never called, or give no tensor with an image axis, are named with the reason."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.aux, self.pair, self.folded, self.last = nn.Linear(1, 1), Pair(), Folded(), nn.Linear(4, 2)

        def forward(self, image: Tensor) -> Tensor:
            return self.last(self.folded(self.pair(image)[0]).flatten(1).reshape(len(image), -1)[:, :4])

    class Pair(nn.Module):
        def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
            return image, image

    class Folded(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image.reshape(-1, 4)

    found = probe(Odd(), (1, 4, 4))
    reasons = dict(found.unaddressable)
    assert reasons["aux"] == "is never called in eval mode"
    assert reasons["pair"] == "returns a tuple of 2, not one tensor"
    assert reasons["folded"] == "has no output per image: shape 8x4 for 2 images"
    assert [layer.name for layer in found.layers] == ["last"]
    assert found.classes == 2


def test_googlenet_auxiliary_heads():
    """The auxiliary classifiers of GoogLeNet take no part in eval mode and are reported so."""
    from torchvision import models

    module = models.googlenet(weights=None, init_weights=False)
    reasons = dict(probe(module, (3, 64, 64)).unaddressable)
    assert reasons["aux1"] == reasons["aux2.fc1"] == "is never called in eval mode"


def test_wrong_input_shape():
    """A network that cannot take the input: the message holds the shape and the network's own words."""
    with pytest.raises(InputError, match=r"shape 1x8x8 .*expected input.* to have 3 channels.*--input-shape"):
        probe(nn.Sequential(conv(3, 2, 3)), (1, 8, 8))


def test_the_network_comes_back_as_it_was():
    """After the probe, also after one that failed, no hook is left and every module is in its old mode."""
    module = nn.Sequential(conv(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout())
    module[2].eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    for shape in [(1, 8, 8), (3, 8, 8)]:
        try:
            probe(module, shape)
        except InputError:
            assert shape == (3, 8, 8)
    assert not any(part._forward_hooks for part in module.modules())
    assert [part.training for part in module] == [True, True, False]
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_probe_is_repeatable():
    """Two probes of a network agree."""
    module = nn.Sequential(conv(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4))
    assert probe(module, (1, 8, 8)) == probe(module, (1, 8, 8))


def test_functional_network():
    """What happens between the modules, without one, is followed, too."""

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = conv(1, 2, 3), conv(2, 2, 3)

        def forward(self, image: Tensor) -> Tensor:
            maps = functional.max_pool2d(functional.relu(self.one(image), inplace=True), 2)
            return self.two(maps * 2 + 1).clamp(min=0)

    assert same_as_nan(Plain(), (1, 12, 12), [(0, 0), (6, 5), (11, 11)]) == 2
