"""Segments as a network: each output against the segment run as it stands, channel by channel."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from neuronscope.errors import InputError, UnknownName
from neuronscope.hooks import observed
from neuronscope.models import load_model, subject_from
from neuronscope.models.hsv import CHANNELS, hsv, normalised_hsv
from neuronscope.models.segmented import narrowed, segment_layers, segmented
from neuronscope.models.segments import SEGMENTS, Segment
from neuronscope.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocess

SIDE = 20
NORMALISED = Preprocess(mean=IMAGENET_MEAN, std=IMAGENET_STD)
TOLERANCE = 1e-5
"""Float32: sums of a few hundred products of numbers about 1, in another order."""


class Residual(nn.Module):
    """Something added around a convolution."""

    def __init__(self, width: int) -> None:
        """Make its parts."""
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, maps):
        """Add, then cut off in place."""
        return self.relu(self.conv(maps) + maps)


def network():
    """Everything that segments meet: groups, strides, normalisation, pools, in-place modules, a block, a classifier."""
    torch.manual_seed(3)
    parts = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2, padding=2, padding_mode="reflect"),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding="same", groups=4, bias=False),
        nn.ReLU(inplace=True),
        nn.Conv2d(12, 10, 3),
        Residual(10),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(10, 4),
    )
    norm = parts[1]
    for values in (norm.running_mean, norm.weight.data, norm.bias.data):
        values.normal_()
    norm.running_var.uniform_(0.5, 2)
    return parts.eval()


@pytest.fixture(scope="module")
def subject():
    """That network."""
    return subject_from(network(), preprocess=NORMALISED, input_shape=(3, SIDE, SIDE), name="planted", classes="abcd")


def images(count: int = 3) -> torch.Tensor:
    """Colours of all kinds."""
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def outputs(subject, pixels):
    """Layer -> output of a segmented network."""
    found: dict[str, torch.Tensor] = {}
    with (
        torch.inference_mode(),
        observed(
            subject.module,
            {layer: lambda maps, name=layer.name: found.__setitem__(name, maps.clone()) for layer in subject.layers},
        ),
    ):
        logits = subject.module(pixels)
    assert logits.shape == (len(pixels), 0)
    return found


def literal(subject, segment, plane, width):
    """A segment in the original's way: the channel repeated, the modules in a row, units chosen at the end."""
    value = plane.repeat(1, width, 1, 1)
    with torch.inference_mode():
        for name in segment.modules:
            value = subject.module.get_submodule(name)(value)
    return value if segment.units is None else value[:, list(segment.units)]


SEGMENTS_OF = (
    (Segment("early", ("0", "1", "2", "3"), (1, 4, 7)), 3),
    (Segment("grouped", ("4", "5"), (0, 3, 11)), 8),
    (Segment("every", ("4", "5")), 8),
    (Segment("mixed", ("4", "5", "6"), (2, 9)), 8),
    (Segment("block", ("7",), (5,), "residual"), 10),
    (Segment("alone", ("6",), (0,)), 12),
)


@pytest.mark.parametrize(("segment", "width"), SEGMENTS_OF, ids=lambda one: getattr(one, "name", ""))
@pytest.mark.parametrize("tones", ["pixels", "normalised"])
def test_every_way_gives_the_numbers_of_the_segment_as_it_stands(subject, segment, width, tones):
    """Weights added up and units chosen early make no difference beyond rounding, for each channel."""
    pieces = segmented(subject, [segment], hsv=tones)
    found = outputs(pieces, images())
    planes = (hsv if tones == "pixels" else normalised_hsv)(images())
    for place, channel in enumerate(CHANNELS):
        expected = literal(subject, segment, planes[:, place : place + 1], width)
        output = found[f"{segment.name}.{channel}"]
        assert output.shape == expected.shape
        assert torch.allclose(output, expected, atol=TOLERANCE * float(expected.abs().max()))
        assert expected.std() > 0


def test_layers_say_what_they_are(subject):
    """Shapes, kinds, numbers of units in the network; no classes, and a normalisation only where it is asked for."""
    some = [one for one, _ in SEGMENTS_OF]
    pieces = segmented(subject, some, channels=("value", "hue"))
    assert [layer.name for layer in pieces.layers][:3] == ["early.hue", "early.value", "grouped.hue"]
    assert pieces.layer("early.hue").shape == (3, 5, 5)
    assert pieces.layer("early.hue").kind == "pool"
    own = segment_layers(pieces, some)["mixed.value"]
    assert (own.channel, own.units, own.segment.name) == ("value", (2, 9), "mixed")
    assert segment_layers(pieces, some)["every.hue"].units == tuple(range(12))
    assert (pieces.classes, pieces.preprocess.mean) == ((), ())
    assert segmented(subject, some, hsv="normalised").preprocess == subject.preprocess


def test_the_network_stays_as_it_is(subject):
    """Weights, modes and answers are the same after segments were made and run."""
    before = {name: value.clone() for name, value in subject.module.state_dict().items()}
    with torch.inference_mode():
        answers = subject.module(images())
        outputs(segmented(subject, [one for one, _ in SEGMENTS_OF]), images())
        assert torch.equal(subject.module(images()), answers)
    assert all(torch.equal(value, before[name]) for name, value in subject.module.state_dict().items())
    assert not any(module.training or module._forward_hooks for module in subject.module.modules())


def test_only_what_is_wanted_is_run(subject):
    """A choice of layers runs its segments and channels alone, with the same numbers; other networks stay."""
    pieces = segmented(subject, [one for one, _ in SEGMENTS_OF])
    chosen = [pieces.layer("mixed.hue"), pieces.layer("early.value").part(0, 1)]
    less = narrowed(pieces, chosen)
    assert sorted(less.module.wanted) == [("early", "value"), ("mixed", "hue")]
    assert len(less.module.pieces) == 2
    every = outputs(pieces, images())
    some = outputs(replace(less, layers=(pieces.layer("mixed.hue"), pieces.layer("early.value"))), images())
    assert all(torch.equal(output, every[name]) for name, output in some.items())
    assert narrowed(subject, subject.layers[:1]) is subject


def test_fingerprints_tell_segments_units_channels_and_tones_apart(subject):
    """Nothing that changes an output leaves the fingerprint; the network's own is part of it."""
    first = Segment("early", ("0", "1"), (1,))
    made = [
        segmented(subject, [first]),
        segmented(subject, [replace(first, units=(2,))]),
        segmented(subject, [replace(first, modules=("0",))]),
        segmented(subject, [first], channels=("hue",)),
        segmented(subject, [first], hsv="normalised"),
        segmented(replace(subject, fingerprint="other"), [first]),
    ]
    assert len({one.fingerprint for one in made}) == len(made)
    again = segmented(subject, [replace(first, reasons=((1, ("hue", "si", "2")),))])
    assert again.fingerprint == made[0].fingerprint


def test_it_can_be_sent_to_another_process(subject):
    """Executors hand networks to processes of their own."""
    pieces = segmented(subject, [SEGMENTS_OF[0][0]])
    again = replace(pieces, module=pickle.loads(pickle.dumps(pieces.module)))  # noqa: S301 our own bytes
    found, expected = outputs(again, images()), outputs(pieces, images())
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_modules_that_are_no_longer_what_their_class_says_are_run_as_they_are():
    """A parametrised convolution is followed by its own rule, not by added-up stored weights."""

    class Doubled(nn.Module):
        def forward(self, weight):
            return 2 * weight

    own = network()
    parametrize.register_parametrization(own[4], "weight", Doubled())
    changed = subject_from(own, preprocess=NORMALISED, input_shape=(3, SIDE, SIDE), name="doubled")
    segment = Segment("grouped", ("4",), (0, 3))
    found = outputs(segmented(changed, [segment]), images())["grouped.hue"]
    expected = literal(changed, segment, hsv(images())[:, :1], 8)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("network", "shapes"),
    [
        ("alexnet", [(64, 27, 27), (192, 111, 111), (384, 224, 224), (256, 224, 224), (256, 6, 6)]),
        ("resnet18", [(64, 56, 56), (64, 224, 224), (128, 112, 112), (256, 112, 112), (512, 1, 1)]),
    ],
)
def test_published_segments_have_the_published_maps(network, shapes):
    """The presets fit torchvision's networks, and give maps of the published sides."""
    subject = load_model(f"torchvision:{network}", weights="random")
    pieces = segmented(subject, SEGMENTS[network], channels=("hue",))
    assert [layer.shape for layer in pieces.layers] == shapes


GREY = "takes images of 1 channel: expected 3"


@pytest.mark.parametrize(
    ("segments", "said"),
    [
        ([], "no segments"),
        ([Segment("a", ("0",)), Segment("a", ("4",))], "two segments are called 'a'"),
        ([Segment("a", ("8", "9", "10"))], "begins with '10' of planted, a Linear: expected a convolution"),
        ([Segment("a", ("2", "3"))], "has no module with weights"),
        ([Segment("a", ("0", "2"))], "segment 'a': '2' .* is not given what '0' makes.*After '0' comes '1'"),
        ([Segment("a", ("4", "5", "7.conv"))], "segment 'a': '7.conv' .* is not given what '5' makes"),
        ([Segment("a", ("7.conv", "7.relu"))], "segment 'a': '7.relu' .* is not given what '7.conv' makes"),
        ([Segment("a", ("5", "4"))], "is not given what"),
        ([Segment("a", ("0",), (3, 8))], "unit 8 is not in segment 'a': '0' of planted has units 0 to 7"),
        ([Segment("half", ("0",))], "cannot be called 'half'"),
        ([Segment("wanted", ("0",))], "cannot be called 'wanted'"),
    ],
)
def test_segments_that_cannot_work(subject, segments, said):
    """One message for each, naming segment and module."""
    with pytest.raises(InputError, match=said):
        segmented(subject, segments)


def test_unknown_names_are_answered_with_the_nearest(subject):
    """A module that is nearly there."""
    with pytest.raises(UnknownName, match=r"segment 'a': layer '7.convv' .*Closest: '7.conv'"):
        segmented(subject, [Segment("a", ("7.convv",))])


def test_at_least_one_channel(subject):
    """Without channels there is nothing to run."""
    with pytest.raises(InputError, match="no channels"):
        segmented(subject, [Segment("a", ("0",))], channels=())


def test_images_without_colours_and_images_that_are_too_small():
    """Grey networks have no hue; a segment of late layers may need larger maps than the image."""
    grey = load_model("builtin:viewer-cnn", weights="random")
    with pytest.raises(InputError, match=GREY):
        segmented(grey, [Segment("a", ("conv_layers.0",))])
    parts = [nn.Conv2d(3, 4, 1), nn.Upsample(scale_factor=4), nn.Conv2d(4, 4, 12), nn.AdaptiveAvgPool2d(1)]
    chain = nn.Sequential(*parts, nn.Flatten(), nn.Linear(4, 2))
    small = subject_from(chain, preprocess=Preprocess(), input_shape=(3, 8, 8), name="small")
    with pytest.raises(InputError, match=r"segment 'a' cannot be run alone on an image: '2' .* does not take 1x8x8"):
        segmented(small, [Segment("a", ("2",))])
