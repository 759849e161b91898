"""Segments of a network as one network that is given images and runs every segment on every channel of their colours.

A segment is taken out of the network and given one HSV channel of the image itself, in every one of its input channels.
All segments and channels are layers of one `Subject`, so that images are read, augmented and turned into HSV once for
all of them. Weights are the given network's, which stays as it is.

A convolution whose input channels are all the same is a convolution of that one channel with its weights added up,
which is as many times less work; and units that nothing mixes any more are chosen at the convolution. Both give the
numbers of the segment run as it stands, within rounding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuronscope.errors import InputError, UnknownName
from neuronscope.hooks import intercepted
from neuronscope.models.hsv import CHANNELS, Channel, Tones, hsv, normalised_hsv
from neuronscope.models.segments import Segment, check_segments
from neuronscope.models.subject import Subject
from neuronscope.preprocessing import COLOUR
from neuronscope.replay.channels import apart
from neuronscope.replay.folding import untouched
from neuronscope.units import LayerInfo

_SEED = 0  # of the made-up images
_IMAGES = 2
_ROUNDING = 1e-4  # relative to the largest activation: how alike two ways to the same output are

_TONES: Mapping[Tones, Callable[[Tensor], Tensor]] = {"pixels": hsv, "normalised": normalised_hsv}


@dataclass(frozen=True)
class SegmentLayer:
    """One layer of a segmented network: a segment on a channel.

    Attributes:
        layer: what it is called and its shape.
        segment: which modules and units.
        channel: of the image.
        units: the numbers of its units in the network.
    """

    layer: LayerInfo
    segment: Segment
    channel: Channel
    units: tuple[int, ...]


class SegmentedNetwork(nn.Module):
    """Segments side by side. The forward pass gives no logits: there is no answer of a segment.

    Attributes:
        pieces: segment -> the module that is given one channel.
        wanted: (segment, channel) in the order in which they are run; what is not there is not run.
        tones: how channels are made.
    """

    def __init__(self, pieces: Mapping[str, nn.Module], wanted: Sequence[tuple[str, Channel]], tones: Tones) -> None:
        """Put segments together; a layer `SEGMENT.CHANNEL` is a module that passes on what it is given."""
        super().__init__()
        self.wanted = tuple(wanted)
        self.tones: Tones = tones
        self.pieces = nn.ModuleDict({f"piece-{name}": piece for name, piece in pieces.items()})
        for name in dict.fromkeys(name for name, _ in self.wanted):
            own: dict[str, nn.Module] = {part: nn.Identity() for segment, part in self.wanted if segment == name}
            self.add_module(name, nn.ModuleDict(own))

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 0"]:
        """Run the wanted segments on one channel after another, so that one output is there at a time."""
        planes = _TONES[self.tones](images)
        for name, channel in self.wanted:
            place = CHANNELS.index(channel)
            self.get_submodule(f"{name}.{channel}")(self.pieces[f"piece-{name}"](planes[:, place : place + 1]))
        return images.new_zeros(len(images), 0)


class Piece(nn.Module):
    """A segment: a channel is spread to its input, its modules follow one another, some units are chosen.

    Attributes:
        spread: input channels that the channel is copied to.
        parts: the modules.
        axis: of the output's units.
        units: chosen of the output; all where it is None.
    """

    units: Tensor | None

    def __init__(self, parts: Sequence[nn.Module], *, spread: int, axis: int, units: Sequence[int] | None) -> None:
        """Put modules in a row."""
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.spread, self.axis = spread, axis
        chosen = None if units is None else torch.tensor(units)
        self.register_buffer("units", chosen, persistent=False)

    def forward(self, channel: Float[Tensor, "n 1 h w"]) -> Tensor:
        """The chosen units' output."""
        value = channel.repeat(1, self.spread, 1, 1)  # a copy: a module may work in place
        for part in self.parts:
            value = part(value)
        return value if self.units is None else value.index_select(self.axis, self.units)


def segmented(
    subject: Subject,
    segments: Sequence[Segment],
    *,
    channels: Sequence[Channel] = CHANNELS,
    hsv: Tones = "pixels",
) -> Subject:
    """A network's segments, each on each of some channels of the images' colours, as a network with these for layers.

    Args:
        subject: the network, of colour images.
        segments: its pieces.
        channels: of the images.
        hsv: `pixels` are turned into HSV; or, as in the original, the `normalised` input of the network is.

    Returns:
        Layers `SEGMENT.CHANNEL`, segment by segment. It has no classes, and for `pixels` no normalisation.

    Raises:
        UnknownName: a module that does not exist.
        InputError: grey images; no channels; no segments, or two of one name; modules that do not follow one another; a
            segment that begins with something that channels cannot be given to; units that it has not.

    Example:
        >>> from neuronscope.models import load_model
        >>> subject = load_model("builtin:subnet-cifar10", weights="random")
        >>> pieces = segmented(subject, [Segment("first", ("conv0", "relu0"), (3, 5))])
        >>> [(layer.name, layer.shape) for layer in pieces.layers][0]
        ('first.hue', (2, 32, 32))
    """
    _check_colour(subject)
    check_segments(segments)
    _check_channels(channels)
    _check_order(subject, segments)
    pieces: dict[str, nn.Module] = {}
    layers: list[LayerInfo] = []
    for segment in segments:
        _check_name(segment)
        piece = _piece(subject, segment)
        found = _layer(subject, segment, piece)
        pieces[segment.name] = piece
        layers.extend(replace(found, name=f"{segment.name}.{channel}") for channel in _in_order(channels))
    wanted = [(segment.name, channel) for segment in segments for channel in _in_order(channels)]
    preprocess = replace(subject.preprocess, mean=(), std=()) if hsv == "pixels" else subject.preprocess
    return Subject(
        module=SegmentedNetwork(pieces, wanted, hsv).eval(),
        name=subject.name,
        classes=(),
        preprocess=preprocess,
        input_shape=subject.input_shape,
        layers=tuple(layers),
        fingerprint=_fingerprint(subject, segments, channels, hsv),
    )


def narrowed(subject: Subject, layers: Sequence[LayerInfo]) -> Subject:
    """The same segments, of which only those are run that some layers are of; other networks as they are.

    Args:
        subject: of `segmented`, or any other.
        layers: of it, or parts of them.
    """
    module = subject.module
    if not isinstance(module, SegmentedNetwork):
        return subject
    names = {layer.name for layer in layers}
    wanted = [pair for pair in module.wanted if ".".join(pair) in names]
    pieces = {name: module.pieces[f"piece-{name}"] for name, _ in wanted}
    less = SegmentedNetwork(pieces, wanted, module.tones)
    return replace(subject, module=less.eval())


def segment_layers(subject: Subject, segments: Sequence[Segment]) -> dict[str, SegmentLayer]:
    """Layers of `segmented` by name, with what they are of.

    Args:
        subject: of `segmented`.
        segments: that it was made of.
    """
    named = {segment.name: segment for segment in segments}
    found = {}
    for layer in subject.layers:
        name, _, channel = layer.name.partition(".")
        segment = named[name]
        units = tuple(range(layer.units)) if segment.units is None else segment.units
        own = next(one for one in CHANNELS if one == channel)
        found[layer.name] = SegmentLayer(layer, segment, own, units)
    return found


def _in_order(channels: Sequence[Channel]) -> Iterator[Channel]:
    return (channel for channel in CHANNELS if channel in channels)


def _check_colour(subject: Subject) -> None:
    if subject.input_shape[0] != COLOUR:
        message = (
            f"{subject.name} takes images of {subject.input_shape[0]} channel: expected 3 (RGB), for hue and "
            "saturation are of colours. Take a network of colour images"
        )
        raise InputError(message)


def _check_channels(channels: Sequence[Channel]) -> None:
    if not channels:
        message = f"there are no channels: expected some of {', '.join(CHANNELS)}. Name at least one"
        raise InputError(message)


def _check_name(segment: Segment) -> None:
    """Refuse what a network has already under that name."""
    if hasattr(SegmentedNetwork({}, (), "pixels"), segment.name):
        message = (
            f"a segment cannot be called '{segment.name}', for networks have something else under that name: expected "
            f"another one, as in {segment.name}-1. Rename it (`unit_name` in a file)"
        )
        raise InputError(message)


def _check_order(subject: Subject, segments: Sequence[Segment]) -> None:
    """Refuse modules that do not follow one another: each must make the network's own output of that of the one before.

    Where the network adds something in between, as around a residual block, running modules in a row would be another
    function than the network is.
    """
    chains = {segment.name: _modules_of(subject, segment) for segment in segments}
    several = {layer for chain in chains.values() if len(chain) > 1 for layer in chain}
    kept: dict[LayerInfo, Tensor] = {}

    def keeping(layer: LayerInfo) -> Callable[[Tensor], None]:
        def keep(output: Tensor) -> None:
            kept[layer] = output.clone()

        return keep

    if not several:
        return
    images = _noise(_IMAGES, subject.input_shape)
    with torch.inference_mode(), intercepted(subject.module, {layer: keeping(layer) for layer in several}):
        subject.module(images)
    for name, chain in chains.items():
        for before, after in pairwise(chain):
            if not _follows(subject.module.get_submodule(after.module_name), kept[before], kept[after]):
                message = (
                    f"segment '{name}': '{after.name}' of {subject.name} is not given what '{before.name}' makes, or "
                    f"not that alone: expected modules that follow one another.{_next(subject, before)} Correct them"
                )
                raise InputError(message)


def _modules_of(subject: Subject, segment: Segment) -> tuple[LayerInfo, ...]:
    """The segment's modules as layers of the network."""
    found = []
    for name in segment.modules:
        try:
            found.append(subject.layer(name))
        except UnknownName as error:
            message = f"segment '{segment.name}': {error}"
            raise UnknownName(message) from error
    return tuple(found)


def _noise(count: int, shape: tuple[int, ...]) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(_SEED))


@torch.inference_mode()
def _follows(module: nn.Module, given: Tensor, expected: Tensor) -> bool:
    """Whether a module makes an output of another's."""
    try:
        found = module(given.clone())
    except (RuntimeError, ValueError, TypeError):  # whatever shape it does not take
        return False
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        return False
    room = _ROUNDING * float(expected.abs().max().nan_to_num())
    return torch.allclose(found, expected, rtol=0, atol=room, equal_nan=True)


def _next(subject: Subject, layer: LayerInfo) -> str:
    """What is called after a module, but for modules that it is in."""
    later = [one.name for one in subject.layers[subject.layers.index(layer) + 1 :]]
    outside = [name for name in later if not layer.name.startswith(f"{name}.")]
    return f" After '{layer.name}' comes '{outside[0]}'." if outside else ""


def _piece(subject: Subject, segment: Segment) -> Piece:
    """The module of a segment."""
    last = _modules_of(subject, segment)[-1]
    units = segment.units
    if units is not None and units[-1] >= last.units:
        message = (
            f"unit {units[-1]} is not in segment '{segment.name}': '{last.name}' of {subject.name} has units 0 to "
            f"{last.units - 1}. Is the list of another network?"
        )
        raise InputError(message)
    parts = [subject.module.get_submodule(layer.module_name) for layer in _modules_of(subject, segment)]
    axis = last.channel_axis
    first, *rest = parts
    if type(first) is not nn.Conv2d or not untouched(first):
        return Piece(parts, spread=_input_channels(subject, segment, parts), axis=axis, units=units)
    early = units is not None and all(apart(part) for part in rest)
    if units is None or not early:
        return Piece([_added_up(first, None), *rest], spread=1, axis=axis, units=units)
    chosen = torch.tensor(units)
    fewer = [_normalising(part, chosen) if isinstance(part, nn.BatchNorm2d) else part for part in rest]
    return Piece([_added_up(first, chosen), *fewer], spread=1, axis=axis, units=None)


def _input_channels(subject: Subject, segment: Segment, parts: Sequence[nn.Module]) -> int:
    """Channels that the first module with weights takes.

    Raises:
        InputError: it takes no maps, or there is none.
    """
    inner = [
        (f"{name}.{own}".rstrip("."), module)
        for name, part in zip(segment.modules, parts, strict=True)
        for own, module in part.named_modules()
    ]
    for name, inside in inner:
        if isinstance(inside, nn.Conv2d):
            return inside.in_channels
        if isinstance(inside, nn.BatchNorm2d):
            return inside.num_features
        if next(inside.parameters(recurse=False), None) is not None:
            message = (
                f"segment '{segment.name}' begins with '{name}' of {subject.name}, a {type(inside).__name__}: expected "
                "a convolution, for a channel of an image can only be copied to input channels of maps. Begin with "
                "another module"
            )
            raise InputError(message)
    message = (
        f"segment '{segment.name}' ({', '.join(segment.modules)}) has no module with weights: expected a convolution, "
        "whose input channels say how often a channel is copied. Begin with one"
    )
    raise InputError(message)


def _added_up(module: nn.Conv2d, units: Tensor | None) -> nn.Conv2d:
    """A convolution of one channel, as if all input channels were copies of it; of some output channels only.

    Each group of a grouped convolution sees the same channel, so there are no groups any more.
    """
    chosen = torch.arange(module.out_channels) if units is None else units
    options: dict[str, Any] = {
        name: getattr(module, name) for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    }
    found = nn.Conv2d(1, len(chosen), bias=module.bias is not None, **options)
    found.weight = _fixed(module.weight.detach()[chosen].sum(1, keepdim=True, dtype=torch.float64), module.weight)
    if module.bias is not None:
        found.bias = _fixed(module.bias.detach()[chosen], module.bias)
    return found


def _normalising(module: nn.BatchNorm2d, units: Tensor) -> nn.BatchNorm2d:
    """Batch normalisation of some channels."""
    found = nn.BatchNorm2d(len(units), eps=module.eps, affine=module.affine)
    for name in ("running_mean", "running_var"):
        setattr(found, name, getattr(module, name)[units].clone())
    if module.affine:
        found.weight, found.bias = (_fixed(one.detach()[units], one) for one in (module.weight, module.bias))
    return found.eval()


def _fixed(values: Tensor, like: Tensor) -> nn.Parameter:
    """Weights that nobody trains."""
    return nn.Parameter(values.to(like.dtype).contiguous(), requires_grad=False)


@torch.inference_mode()
def _layer(subject: Subject, segment: Segment, piece: Piece) -> LayerInfo:
    """The output of a segment, found by running it once on made-up pixels.

    Raises:
        InputError: a module cannot take what it is given.
    """
    last = _modules_of(subject, segment)[-1]
    height, width = subject.input_shape[1:]
    value = _noise(1, (piece.spread, height, width))
    for name, part in zip(segment.modules, piece.parts, strict=True):
        shape = "x".join(map(str, value.shape[1:]))
        try:
            value = part(value)
        except (RuntimeError, ValueError, TypeError) as error:
            said = next(iter(str(error).splitlines()), "")
            message = (
                f"segment '{segment.name}' cannot be run alone on an image: '{name}' of {subject.name} does not take "
                f"{shape} (channels x height x width): {said}. Choose other modules, or larger images"
            )
            raise InputError(message) from error
    if piece.units is not None:
        value = value.index_select(piece.axis, piece.units)
    units = value.shape[piece.axis]
    return LayerInfo(segment.name, last.kind, tuple(value.shape[1:]), units, last.channel_axis)


def _fingerprint(subject: Subject, segments: Sequence[Segment], channels: Sequence[Channel], tones: Tones) -> str:
    said = (subject.fingerprint, [(one.name, one.modules, one.units) for one in segments], sorted(channels), tones)
    return hashlib.sha256(repr(said).encode()).hexdigest()
