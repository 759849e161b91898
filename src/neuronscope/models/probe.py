"""What a network consists of, found by running it once: its layers in calling order, their units and what they see.

Reading the code or the list of modules would not do: modules are called twice, never, or in another order than they
were made in. One forward pass on made-up images tells all of it. Nothing of the probe stays in the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from neuronscope.errors import InputError
from neuronscope.models.tracking import Tracker
from neuronscope.units import Kind, LayerInfo, ReceptiveField

_IMAGES = 2
"""Images in the probe: with two, an output that has lost or multiplied its image axis can be told."""

_FLAT_DIMS = 2  # (image, unit)
_TOKEN_DIMS = 3  # (image, token, unit)
_MAP_DIMS = 4  # (image, unit, row, column)

_KINDS: tuple[tuple[Kind, tuple[type[nn.Module], ...]], ...] = (
    (
        "conv",
        (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    ),
    ("linear", (nn.Linear, nn.Bilinear)),
    (
        "relu",
        (
            *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish),
            *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink, nn.Threshold),
            *(nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.LogSigmoid),
        ),
    ),
    (
        "norm",
        (
            *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.LayerNorm, nn.GroupNorm),
            *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.LocalResponseNorm, nn.RMSNorm),
        ),
    ),
    (
        "pool",
        (
            *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.LPPool2d),
            *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.FractionalMaxPool2d),
            *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
        ),
    ),
    ("dropout", (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)),
    ("flatten", (nn.Flatten,)),
)

_KIND_BY_CLASS_NAME: dict[str, Kind] = {
    **dict.fromkeys(("Swish", "Mish", "HardSwish", "HardSigmoid", "HardMish", "GELU", "GELUTanh", "QuickGELU"), "relu"),
    **dict.fromkeys(("PReLU", "Sigmoid", "Tanh", "SiLU"), "relu"),
    **dict.fromkeys(("FrozenBatchNorm2d", "GlobalResponseNorm"), "norm"),
}
"""Modules that timm and torchvision write themselves."""


@dataclass(frozen=True)
class Probe:
    """What one forward pass showed.

    Attributes:
        layers: every addressable output in calling order; a block stands where it returns.
        unaddressable: (module name, reason) of every other module: never called, or without an output per image.
        classes: number of outputs; None when the network does not return one (n, classes) tensor.
        output: the network's output in words, for messages.
    """

    layers: tuple[LayerInfo, ...]
    unaddressable: tuple[tuple[str, str], ...]
    classes: int | None
    output: str


@dataclass
class _Notes:
    """What the hooks write down during the pass."""

    layers: list[LayerInfo] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def probe(module: nn.Module, input_shape: tuple[int, int, int]) -> Probe:
    """Run a network once on two made-up images and write down what every module does.

    The network is put into eval mode for the pass and given back as it came.

    Args:
        module: the network.
        input_shape: (channels, height, width) of one input image.

    Raises:
        InputError: the network cannot take such an input.

    Example:
        >>> found = probe(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU()), (1, 8, 8))
        >>> [(layer.name, layer.kind, layer.shape, layer.units) for layer in found.layers]
        [('0', 'conv', (4, 8, 8), 4), ('1', 'relu', (4, 8, 8), 4)]
    """
    image = _made_up_images(module, input_shape)
    tracker = Tracker(image, constants=[*module.parameters(), *module.buffers()])
    notes = _Notes()
    with _evaluating(module), _watched(module, tracker, notes), torch.no_grad(), tracker:
        try:
            output = module(image)
        except Exception as problem:
            message = (
                f"{type(module).__name__} cannot take images of shape {_times(input_shape)} (channels x height x "
                f"width): it said '{_first_line(problem)}'. Give the shape it was made for with --input-shape"
            )
            raise InputError(message) from problem
    refused = {
        name: notes.refused.get(name, "is never called in eval mode")
        for name, _ in _named_modules(module)
        if name in notes.refused or name not in notes.calls
    }
    addressable = {layer.module_name for layer in notes.layers}
    is_logits = isinstance(output, Tensor) and output.ndim == _FLAT_DIMS and len(output) == _IMAGES
    return Probe(
        layers=tuple(notes.layers),
        unaddressable=tuple((name, reason) for name, reason in refused.items() if name not in addressable),
        classes=int(output.shape[1]) if is_logits else None,
        output=_in_words(output),
    )


def probe_layers(module: nn.Module, input_shape: tuple[int, int, int]) -> tuple[LayerInfo, ...]:
    """Every addressable output of a network in calling order (see `probe`).

    Raises:
        InputError: the network cannot take such an input.
    """
    return probe(module, input_shape).layers


def kind_of(module: nn.Module) -> Kind:
    """What a module does; a module of a known type keeps its kind even when it has parts of its own."""
    for kind, types in _KINDS:
        if isinstance(module, types):
            return kind
    known = _KIND_BY_CLASS_NAME.get(type(module).__name__)
    if known is not None:
        return known
    return "block" if next(module.children(), None) is not None else "other"


def _made_up_images(module: nn.Module, input_shape: tuple[int, int, int]) -> Tensor:
    """The same noise every time; not zeros, which some networks divide by."""
    like = next((weight for weight in module.parameters() if weight.is_floating_point()), torch.zeros(()))
    noise = torch.randn((_IMAGES, *input_shape), generator=torch.Generator().manual_seed(0))
    return noise.to(device=like.device, dtype=like.dtype)


def _named_modules(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All parts but the network itself; what computes a weight (a parametrisation) is not a layer."""
    for name, part in module.named_modules():
        if name and "parametrizations" not in name.split("."):
            yield name, part


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def _watched(module: nn.Module, tracker: Tracker, notes: _Notes) -> Iterator[None]:
    handles: list[Any] = []
    try:
        for name, part in _named_modules(module):
            handles.append(part.register_forward_hook(_Watcher(name, tracker, notes)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class _Watcher:
    """The hook of one module."""

    name: str
    tracker: Tracker
    notes: _Notes

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Write down one call."""
        del inputs
        call = self.notes.calls.get(self.name, 0)
        self.notes.calls[self.name] = call + 1
        if not isinstance(output, Tensor):
            self.notes.refused[self.name] = f"returns {_in_words(output)}, not one tensor"
            return
        if output.ndim < _FLAT_DIMS or output.shape[0] != _IMAGES:
            self.notes.refused[self.name] = (
                f"has no output per image: shape {_times(output.shape)} for {_IMAGES} images"
            )
            return
        axis = _unit_axis(output, self.tracker)
        self.notes.layers.append(
            LayerInfo(
                name=f"{self.name}#{call}" if call else self.name,
                kind=kind_of(module),
                shape=tuple(output.shape[1:]),
                units=int(output.shape[axis]),
                channel_axis=axis,
                receptive_field=_field(output, axis, self.tracker),
            )
        )


def _unit_axis(output: Tensor, tracker: Tracker) -> int:
    """Where the units are: followed from the input if possible, else by custom (tokens last, maps first)."""
    channel = tracker.trace(output).channel
    if output.ndim > _FLAT_DIMS and (channel == -1 or (channel is None and output.ndim == _TOKEN_DIMS)):
        return -1
    return 1


def _field(output: Tensor, axis: int, tracker: Tracker) -> ReceptiveField | None:
    """The receptive field of a map; None when the rows and columns it speaks of are not the output's own."""
    trace = tracker.trace(output)
    rows_and_columns = (-2, -1) if axis == 1 else (-3, -2)
    return trace.field if output.ndim == _MAP_DIMS and trace.axes == rows_and_columns else None


def _in_words(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {_times(cast('tuple[int, ...]', output.shape))} for {_IMAGES} images"
    if isinstance(output, list | tuple | dict):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}"


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape) or "()"


def _first_line(problem: Exception) -> str:
    return next(iter(str(problem).splitlines()), "") or type(problem).__name__
