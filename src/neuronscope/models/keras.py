"""Keras `.h5` files of sequential CNNs, read into the same layers of PyTorch, without TensorFlow.

An `.h5` file holds the network's configuration as JSON text and its weights as arrays. Three things differ from
PyTorch and are set right here: Keras keeps channels last, so that what follows a `Flatten` counts its inputs in another
order (the rows of the weights are put into channel blocks); its `same` padding may be one pixel larger at the bottom
and right; and an activation may stand inside its layer (it becomes a module of its own, with the layer's index in its
name: `conv0`, `relu0`, `pool2`).

A softmax at the end is taken off, so that the network gives logits as all others do. Networks with branches, layers
inside layers, layers of one's own and `.keras` archives are refused. A file is never trusted: nothing in it is run, no
link out of it is followed, and no array is read before its shape is known to fit.
"""

from __future__ import annotations

import json
import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from neuronscope.errors import InputError, WeightsError, nearest
from neuronscope.models.weights import Unfilled
from neuronscope.preprocessing import COLOUR, GREY, Preprocess

_LOG = logging.getLogger("neuronscope")

_WHITE = 255
"""Brightest pixel: Keras networks are by custom trained on pixels divided by it."""

_MOST_NUMBERS = 1 << 28
"""Numbers in one map of one image, 1 GiB: more is a damaged or malicious file."""

_MOST_PACKED = 1000
"""No compression of HDF5 makes an array smaller than this share of itself."""

_ZIP = b"PK\x03\x04"

_MAP_DIMS = 3  # channels, rows, columns


@dataclass(frozen=True)
class KerasNetwork:
    """A network that was read from a file.

    Attributes:
        module: the network, in eval mode; it gives logits.
        input_shape: (channels, height, width) of its input.
        preprocess: pixels divided by 255, or what a `Rescaling` at the start makes of them.
        layers: (module name, name of the Keras layer it stands for), in order.
        removed: the Keras layer whose softmax was taken off; empty when there was none.
    """

    module: nn.Sequential
    input_shape: tuple[int, int, int]
    preprocess: Preprocess
    layers: tuple[tuple[str, str], ...]
    removed: str = ""


def load_keras(path: str | Path, *, input_shape: tuple[int, int, int] | None = None) -> KerasNetwork:
    """Read a sequential CNN from a Keras `.h5` file, of Keras 2 or 3.

    Args:
        path: a file written by `model.save("network.h5")`.
        input_shape: (channels, height, width) of the input, where the file does not say it or another one is wanted.

    Raises:
        WeightsError: the file is missing, torn, or holds weights only or weights that do not fit the layers.
        InputError: the network is not sequential, has a layer that cannot be read, or its input is not known.
    """
    file = Path(path)
    with _opened(file) as content:
        configuration = _configuration(content, file)
        layers = _layers(configuration, _datasets(content), file)
        build = _Build(file=file, shape=_input_shape(configuration, layers, input_shape, file))
        channels, height, width = given = build.map_shape("the input")
        for layer in layers:
            _reader(layer)(build, layer)
    removed = build.take_off_softmax()
    if removed:
        _LOG.info("%s: the softmax of layer '%s' is left out, so that the network gives logits", file, removed)
    if build.order is not None:
        message = f"{file} ends in a Flatten of maps: expected a layer with one output for each class after it"
        raise InputError(message)
    if channels not in (GREY, COLOUR):
        message = f"{file} takes images of {channels} channels: expected 1 (grey) or 3 (colour)"
        raise InputError(message)
    return KerasNetwork(
        module=nn.Sequential(build.parts).eval(),
        input_shape=given,
        preprocess=Preprocess(
            channels=3 if channels == COLOUR else 1,
            resize=max(height, width),
            crop=(height, width),
            mean=build.mean,
            std=build.std,
        ),
        layers=tuple((name, build.names[name]) for name in build.parts),
        removed=removed,
    )


def same_padding(size: int, *, window: int, stride: int) -> tuple[int, int]:
    """Pixels that Keras's `same` adds (before, after) along one axis: the odd one comes after.

    Args:
        size: pixels of the map along the axis.
        window: pixels that one output sees, with dilation.
        stride: pixels between neighbouring outputs, of which there are `size / stride`, rounded up.

    Example:
        >>> same_padding(8, window=3, stride=2), same_padding(7, window=3, stride=2)
        ((0, 1), (1, 1))
    """
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """The open file; whatever is wrong with its bytes becomes one message."""
    import h5py

    if not file.is_file():
        message = f"there is no Keras file {file}. Check the path (looked for {file.absolute()})"
        raise WeightsError(message)
    with file.open("rb") as start:
        is_zip = start.read(len(_ZIP)) == _ZIP
    if is_zip:
        message = f"{file} is a zip archive, as in Keras's own .keras format: expected HDF5. Write it with {_SAVE}"
        raise WeightsError(message)
    try:
        with h5py.File(file, "r") as content:
            yield content
    except (OSError, RuntimeError, KeyError, UnicodeError) as problem:
        if isinstance(problem, InputError):
            raise
        reason = next(iter(str(problem).splitlines()), "") or type(problem).__name__
        message = (
            f"{file} ({file.stat().st_size} bytes) cannot be read as HDF5: it is torn or of another kind ({reason}). "
            "Copy or download it again"
        )
        raise WeightsError(message) from problem


_SAVE = 'model.save("network.h5")'


def _configuration(content: Any, file: Path) -> Mapping[str, Any]:
    """What the file says of its network: that of a sequential one."""
    text = content.attrs.get("model_config")
    if text is None:
        message = f"{file} holds weights without the network they belong to: expected both. Write it with {_SAVE}"
        raise WeightsError(message)
    try:
        found = json.loads(text if isinstance(text, str | bytes) else str(text))
    except (ValueError, RecursionError) as problem:
        message = f"the attribute model_config of {file} is not JSON ({type(problem).__name__}). Copy the file again"
        raise WeightsError(message) from problem
    kind = found.get("class_name") if isinstance(found, dict) else None
    if kind != "Sequential":
        message = (
            f"{file} holds a network of class {kind!r}: only Keras's Sequential can be read, for anything else may "
            "have branches. Rebuild it as a Sequential, or bring it over to PyTorch and say python:FILE.py:FACTORY"
        )
        raise InputError(message)
    return dict(found)


def _datasets(content: Any) -> dict[str, Any]:
    """Every array by its path; links to other places and other files are not followed."""
    import h5py

    found: dict[str, Any] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item

    content.visititems(note)
    prefix = "model_weights/"
    inside = {name.removeprefix(prefix): item for name, item in found.items() if name.startswith(prefix)}
    return inside or found


def _layers(configuration: Mapping[str, Any], datasets: Mapping[str, Any], file: Path) -> list[_Layer]:
    """The layers in order; the index counts as Keras does, without the input."""
    inner = configuration.get("config")
    # Before Keras 2.3, the configuration of a Sequential was the list of its layers.
    listed = inner.get("layers") if isinstance(inner, dict) else inner
    if not isinstance(listed, list) or not listed or not all(isinstance(one, dict) for one in listed):
        message = f"the configuration of {file} has no list of layers. Copy the file again, or write it with {_SAVE}"
        raise WeightsError(message)
    layers: list[_Layer] = []
    for one in listed:
        options = one.get("config")
        options = options if isinstance(options, dict) else {}
        kind, name = str(one.get("class_name")), str(options.get("name", ""))
        registered = str(one.get("registered_name") or "")
        if ">" in registered:  # how Keras marks the layers of other packages, whatever their class is called
            kind = registered
        own = {path: item for path, item in datasets.items() if path.startswith(f"{name}/")} if name else {}
        index = sum(layer.kind != "InputLayer" for layer in layers)
        layers.append(_Layer(file=file, index=index, kind=kind, name=name, options=options, datasets=own))
    return layers


def _input_shape(
    configuration: Mapping[str, Any], layers: Sequence[_Layer], given: tuple[int, int, int] | None, file: Path
) -> tuple[int, ...]:
    """(channels, height, width): what the caller says, else what the first layer or the network does."""
    if given is not None:
        return given
    inner = configuration.get("config")
    places: list[Mapping[str, Any]] = [layers[0].options, inner if isinstance(inner, dict) else {}]
    names = ("batch_input_shape", "batch_shape", "build_input_shape")
    shapes = (place.get(name) for place in places for name in names)
    found = next((shape for shape in shapes if isinstance(shape, list)), None)
    if found is not None and len(found) != _MAP_DIMS + 1:
        message = f"{file} takes inputs of shape {found}: expected images, (any, height, width, channels)"
        raise InputError(message)
    if found is None or not all(isinstance(size, int) and size > 0 for size in found[1:]):
        message = (
            f"the size of the input of {file} is not known (the file says {found}): "
            "say --input-shape 3,224,224 (channels, height, width)"
        )
        raise InputError(message)
    if math.prod(found[1:]) > _MOST_NUMBERS:
        message = (
            f"{file} takes images of {_times(found[1:])} numbers: expected at most {_MOST_NUMBERS:,}. Copy it again"
        )
        raise WeightsError(message)
    return found[3], found[1], found[2]


@dataclass(frozen=True)
class _Layer:
    """One layer of the file: its options, checked where they are read, and its arrays."""

    file: Path
    index: int
    kind: str
    name: str
    options: Mapping[str, Any]
    datasets: Mapping[str, Any]

    @property
    def called(self) -> str:
        return f"layer {self.index} ('{self.name}', {self.kind}) of {self.file}"

    def refuse(self, what: str) -> NoReturn:
        message = f"{self.called} {what}"
        raise InputError(message)

    def count(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        value = self.options.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MOST_NUMBERS:
            self.refuse(f"has {key} = {value!r}: expected a whole number of at least {least}")
        return value

    def number(self, key: str, default: float) -> float:
        value = self.options.get(key, default)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self.refuse(f"has {key} = {value!r}: expected a number")
        return float(value)

    def flag(self, key: str, *, default: bool) -> bool:
        value = self.options.get(key, default)
        if not isinstance(value, bool):
            self.refuse(f"has {key} = {value!r}: expected true or false")
        return value

    def pair(self, key: str, default: tuple[int, int] | None = None) -> tuple[int, int]:
        value = self.options.get(key)
        found = default if value is None else value
        both = [found, found] if isinstance(found, int) else found
        fits = isinstance(both, list | tuple) and len(both) == 2  # noqa: PLR2004 rows and columns
        if not fits or not all(type(one) is int and 1 <= one <= _MOST_NUMBERS for one in both or ()):
            self.refuse(f"has {key} = {value!r}: expected one or two whole numbers of at least 1")
        rows, columns = both or (1, 1)
        return rows, columns

    def padding(self) -> Literal["valid", "same"]:
        value = self.options.get("padding", "valid")
        if value not in ("valid", "same"):
            self.refuse(f"has padding = {value!r}: expected 'valid' or 'same'")
        return "same" if value == "same" else "valid"

    def channels_last(self) -> None:
        form = self.options.get("data_format")
        if form not in (None, "channels_last"):
            self.refuse(f"has data_format = {form!r}: only 'channels_last' can be read")

    def tensor(self, shape: tuple[int, ...], *names: str) -> Float[Tensor, "..."]:
        """The array of one of these names, once its shape is known to be the one that the layer needs."""
        # conv2d/kernel:0, conv2d/conv2d/kernel, sequential/conv2d/kernel:0: only the last part is the same in all.
        found = [path for path in self.datasets if path.rpartition("/")[2].partition(":")[0] in names]
        if len(found) != 1:
            came = ", ".join(self.datasets) or "none"
            message = f"{self.called} needs one array '{names[0]}': found {len(found)}. Its arrays in the file: {came}"
            raise WeightsError(message)
        data = self.datasets[found[0]]
        if tuple(data.shape or ()) != shape or data.dtype.kind != "f":
            came = f"{_times(tuple(data.shape or ()))} of {data.dtype}"
            message = f"array '{found[0]}' of {self.called} is {came}: expected {_times(shape)} of float32"
            raise WeightsError(message)
        if data.is_virtual or data.external or data.nbytes > _MOST_PACKED * self.file.stat().st_size:
            message = f"array '{found[0]}' of {self.called} does not lie in the file itself: expected all weights in it"
            raise WeightsError(message)
        return torch.from_numpy(np.asarray(data[...], dtype=np.float32))


@dataclass
class _Build:
    """The network so far.

    Attributes:
        shape: of what the last layer gives for one image: (channels, height, width) or (features,).
        parts: modules by name.
        names: name of the Keras layer of each module.
        order: after a Flatten of maps, the place in Keras's order of each feature in ours; None where both agree.
        mean, std: of the preprocessing, on the scale 0 to 1.
    """

    file: Path
    shape: tuple[int, ...]
    parts: OrderedDict[str, nn.Module] = field(default_factory=OrderedDict)
    names: dict[str, str] = field(default_factory=dict)
    order: Int[Tensor, "features"] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def add(self, prefix: str, layer: _Layer, module: nn.Module, shape: Sequence[int] | None = None) -> None:
        """Append a module; `shape` is that of its output, where it is another one."""
        if shape is not None:
            if min(shape) < 1 or math.prod(shape) > _MOST_NUMBERS:
                layer.refuse(f"gives maps of {_times(shape)}: the input of {_times(self.shape)} does not fit it")
            self.shape = tuple(shape)
        name = f"{prefix}{layer.index}"
        self.parts[name] = module
        self.names[name] = layer.name

    def map_shape(self, who: str) -> tuple[int, int, int]:
        """Channels, rows and columns."""
        if len(self.shape) != _MAP_DIMS:
            message = f"{who} needs maps (rows, columns, channels): what comes in has {_times(self.shape)} numbers"
            raise InputError(message)
        channels, height, width = self.shape
        return channels, height, width

    def pad(self, layer: _Layer, *, top: int, bottom: int, left: int, right: int) -> None:
        """Zeros around the maps, as a module of its own."""
        channels, height, width = self.map_shape(layer.called)
        sides = (left, right, top, bottom)
        self.add("pad", layer, nn.ZeroPad2d(sides), (channels, height + top + bottom, width + left + right))

    def convolve(
        self,
        prefix: str,
        layer: _Layer,
        weight: Float[Tensor, "units inputs rows columns"],
        *,
        bias: Float[Tensor, "units"] | None,
        groups: int = 1,
        stride: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
    ) -> None:
        """A convolution; zeros that are not as many on both sides come first, as a module of their own."""
        _, height, width = self.map_shape(layer.called)
        rows, columns = (1 + (size - 1) * gap for size, gap in zip(weight.shape[2:], dilation, strict=True))
        padding = (0, 0)
        if layer.padding() == "same":
            top, bottom = same_padding(height, window=rows, stride=stride[0])
            left, right = same_padding(width, window=columns, stride=stride[1])
            if (top, left) == (bottom, right):
                padding = (top, left)
            else:
                self.pad(layer, top=top, bottom=bottom, left=left, right=right)
        with Unfilled("meta"):
            module = nn.Conv2d(
                weight.shape[1] * groups,
                weight.shape[0],
                (weight.shape[2], weight.shape[3]),
                stride=stride,
                padding=padding,
                dilation=dilation,
                groups=groups,
                bias=bias is not None,
            )
        _fill(module, weight=weight, bias=bias)
        _, height, width = self.map_shape(layer.called)
        self.add(
            prefix,
            layer,
            module,
            (
                weight.shape[0],
                (height + 2 * padding[0] - rows) // stride[0] + 1,
                (width + 2 * padding[1] - columns) // stride[1] + 1,
            ),
        )

    def activate(self, layer: _Layer) -> None:
        """The activation of a layer, as a module of its own."""
        name = _activation_name(layer)
        if name == "linear":
            return
        if name not in _ACTIVATIONS:
            layer.refuse(f"has the activation '{name}', which cannot be read.{nearest(name, _ACTIVATIONS)}")
        prefix, make = _ACTIVATIONS[name]
        self.add(prefix, layer, make())

    def take_off_softmax(self) -> str:
        """Remove a softmax at the end; the name of its Keras layer, empty when there is none."""
        last = next(reversed(self.parts), "")
        if not last or not isinstance(self.parts[last], nn.Softmax):
            return ""
        del self.parts[last]
        return self.names.pop(last)


_Reader = Callable[[_Build, _Layer], None]
"""Appends what one layer becomes."""

_CHANNELS = 1  # the axis that a softmax over Keras's last axis runs along here

_ACTIVATIONS: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "relu": ("relu", nn.ReLU),
    "relu6": ("relu", nn.ReLU6),
    "leaky_relu": ("leaky", lambda: nn.LeakyReLU(0.2)),
    "elu": ("elu", nn.ELU),
    "selu": ("selu", nn.SELU),
    "gelu": ("gelu", nn.GELU),
    "silu": ("silu", nn.SiLU),
    "swish": ("silu", nn.SiLU),
    "mish": ("mish", nn.Mish),
    "sigmoid": ("sigmoid", nn.Sigmoid),
    "tanh": ("tanh", nn.Tanh),
    "softplus": ("softplus", nn.Softplus),
    "softsign": ("softsign", nn.Softsign),
    "softmax": ("softmax", lambda: nn.Softmax(_CHANNELS)),
}
"""Keras's name of an activation -> start of the module's name, module."""


def _activation_name(layer: _Layer) -> str:
    found = layer.options.get("activation")
    if isinstance(found, dict):  # Keras 3 may write {"class_name": "function", "config": "relu", ...}
        own = ">" in str(found.get("registered_name") or "")
        found = found.get("registered_name") if own else found.get("config")
    return "linear" if found is None else str(found)


def _fill(module: nn.Module, **tensors: Tensor | None) -> None:
    """Put weights into a module that was made without memory."""
    for name, tensor in tensors.items():
        if tensor is not None:
            setattr(module, name, nn.Parameter(tensor.contiguous(), requires_grad=False))


def _bias(layer: _Layer, units: int) -> Float[Tensor, "units"] | None:
    return layer.tensor((units,), "bias") if layer.flag("use_bias", default=True) else None


def _nothing(build: _Build, layer: _Layer) -> None:
    """A layer that only does something in training, or nothing at all."""


def _conv(build: _Build, layer: _Layer) -> None:
    layer.channels_last()
    channels, *_ = build.map_shape(layer.called)
    units, groups = layer.count("filters"), layer.count("groups", 1)
    if channels % groups or units % groups:
        layer.refuse(f"has groups = {groups}: {channels} channels and {units} filters cannot be so divided")
    kernel = layer.tensor((*layer.pair("kernel_size"), channels // groups, units), "kernel")
    build.convolve(
        "conv",
        layer,
        kernel.permute(3, 2, 0, 1),
        bias=_bias(layer, units),
        groups=groups,
        stride=layer.pair("strides", (1, 1)),
        dilation=layer.pair("dilation_rate", (1, 1)),
    )
    build.activate(layer)


def _convolve_each(build: _Build, layer: _Layer, *names: str, bias: Literal["own", "none"]) -> None:
    """One convolution, or several, for each channel."""
    layer.channels_last()
    channels, *_ = build.map_shape(layer.called)
    copies = layer.count("depth_multiplier", 1)
    rows, columns = layer.pair("kernel_size")
    kernel = layer.tensor((rows, columns, channels, copies), *names)
    build.convolve(
        "depthwise",
        layer,
        kernel.permute(2, 3, 0, 1).reshape(channels * copies, 1, rows, columns),
        bias=_bias(layer, channels * copies) if bias == "own" else None,
        groups=channels,
        stride=layer.pair("strides", (1, 1)),
        dilation=layer.pair("dilation_rate", (1, 1)),
    )


def _depthwise(build: _Build, layer: _Layer) -> None:
    _convolve_each(build, layer, "depthwise_kernel", "kernel", bias="own")
    build.activate(layer)


def _separable(build: _Build, layer: _Layer) -> None:
    _convolve_each(build, layer, "depthwise_kernel", bias="none")
    channels, *_ = build.map_shape(layer.called)
    units = layer.count("filters")
    kernel = layer.tensor((1, 1, channels, units), "pointwise_kernel")
    build.convolve("conv", layer, kernel.permute(3, 2, 0, 1), bias=_bias(layer, units))
    build.activate(layer)


def _dense(build: _Build, layer: _Layer) -> None:
    units = layer.count("units")
    kernel, bias = layer.tensor((build.shape[0], units), "kernel"), _bias(layer, units)
    if len(build.shape) == _MAP_DIMS:  # Keras applies it to the channels of each position
        build.convolve("conv", layer, kernel.T[:, :, None, None], bias=bias)
    else:
        with Unfilled("meta"):
            module = nn.Linear(build.shape[0], units, bias=bias is not None)
        _fill(module, weight=(kernel if build.order is None else kernel[build.order]).T, bias=bias)
        build.order = None
        build.add("dense", layer, module, (units,))
    build.activate(layer)


def _batch_norm(build: _Build, layer: _Layer) -> None:
    axis = layer.options.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if axis not in (-1, len(build.shape)):
        layer.refuse(f"normalises along axis {axis!r}: only the last one (channels) can be read")
    units = build.shape[0]
    with Unfilled("meta"):
        kind = nn.BatchNorm2d if len(build.shape) == _MAP_DIMS else nn.BatchNorm1d
        module = kind(units, eps=layer.number("epsilon", 1e-3), momentum=1 - layer.number("momentum", 0.99))
    scale = layer.tensor((units,), "gamma") if layer.flag("scale", default=True) else torch.ones(units)
    centre = layer.tensor((units,), "beta") if layer.flag("center", default=True) else torch.zeros(units)
    mean, variance = layer.tensor((units,), "moving_mean"), layer.tensor((units,), "moving_variance")
    order = torch.arange(units) if build.order is None else build.order
    _fill(module, weight=scale[order], bias=centre[order])
    module.running_mean, module.running_var = mean[order], variance[order]
    build.add("bn", layer, module)


def _pool(build: _Build, layer: _Layer, *, of: Literal["maximum", "mean"]) -> None:
    layer.channels_last()
    channels, *sides = build.map_shape(layer.called)
    window = layer.pair("pool_size", (2, 2))
    stride = layer.pair("strides", window)
    same = layer.padding() == "same"
    if not same:
        outputs = [(side - size) // step + 1 for side, size, step in zip(sides, window, stride, strict=True)]
        build.add("pool", layer, _pooling(of, window, stride), (channels, *outputs))
        return
    outputs = [-(-side // step) for side, step in zip(sides, stride, strict=True)]
    around = [
        same_padding(side, window=size, stride=step) for side, size, step in zip(sides, window, stride, strict=True)
    ]
    # PyTorch pads both sides alike. With `ceil_mode` a last window may reach beyond the map, which is the odd pixel
    # after it; with stride 1 it may not: there both sides get the larger padding and the first output is cut off.
    cut = [int(step == 1 and before < after) for (before, after), step in zip(around, stride, strict=True)]
    rows, columns = (before + more for (before, _), more in zip(around, cut, strict=True))
    build.add("pool", layer, _pooling(of, window, stride, (rows, columns)))
    build.shape = (channels, outputs[0] + cut[0], outputs[1] + cut[1])
    if any(cut):
        build.add("crop", layer, nn.ZeroPad2d((-cut[1], 0, -cut[0], 0)), (channels, *outputs))


def _pooling(
    of: Literal["maximum", "mean"],
    window: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int] | None = None,
) -> nn.Module:
    """A pooling whose mean leaves the padding out, as Keras has it; windows may reach beyond the map if padded."""
    around, beyond = padding or (0, 0), padding is not None
    if of == "maximum":
        return nn.MaxPool2d(window, stride, around, ceil_mode=beyond)
    return nn.AvgPool2d(window, stride, around, ceil_mode=beyond, count_include_pad=False)


def _global_pool(build: _Build, layer: _Layer, *, of: Literal["maximum", "mean"]) -> None:
    layer.channels_last()
    channels, *_ = build.map_shape(layer.called)
    module = nn.AdaptiveMaxPool2d(1) if of == "maximum" else nn.AdaptiveAvgPool2d(1)
    build.add("pool", layer, module, (channels, 1, 1))
    if not layer.flag("keepdims", default=False):
        build.add("flatten", layer, nn.Flatten(), (channels,))


def _flatten(build: _Build, layer: _Layer) -> None:
    layer.channels_last()
    if len(build.shape) == _MAP_DIMS:
        channels, height, width = build.shape
        places = torch.arange(math.prod(build.shape)).reshape(height, width, channels)
        build.order = places.permute(2, 0, 1).flatten() if height * width > 1 else None
    build.add("flatten", layer, nn.Flatten(), (math.prod(build.shape),))


def _dropout(build: _Build, layer: _Layer) -> None:
    rate = layer.number("rate", 0.5)
    if not 0 <= rate <= 1:
        layer.refuse(f"has rate = {rate}: expected 0 to 1")
    build.add("drop", layer, nn.Dropout2d(rate) if layer.kind.startswith("Spatial") else nn.Dropout(rate))


def _relu(build: _Build, layer: _Layer) -> None:
    slope = layer.number("negative_slope", 0.0)
    most = None if layer.options.get("max_value") is None else layer.number("max_value", 0.0)
    if layer.number("threshold", 0.0) != 0 or (most is not None and (most <= 0 or slope != 0)):
        layer.refuse("has a threshold, or a largest value that is not above 0 or stands beside a slope: not supported")
    if most is not None:
        build.add("relu", layer, nn.ReLU6() if most == 6 else nn.Hardtanh(0.0, most))  # noqa: PLR2004 its namesake
    else:
        build.add("relu", layer, nn.LeakyReLU(slope) if slope else nn.ReLU())


def _leaky(build: _Build, layer: _Layer) -> None:
    key = "negative_slope" if "negative_slope" in layer.options else "alpha"  # Keras 3 and Keras 2
    build.add("leaky", layer, nn.LeakyReLU(layer.number(key, 0.3)))


def _elu(build: _Build, layer: _Layer) -> None:
    build.add("elu", layer, nn.ELU(layer.number("alpha", 1.0)))


def _softmax(build: _Build, layer: _Layer) -> None:
    axis = layer.options.get("axis", -1)
    if axis not in (-1, len(build.shape)):
        layer.refuse(f"runs along axis {axis!r}: only the last one can be read")
    build.add("softmax", layer, nn.Softmax(_CHANNELS))


def _zero_padding(build: _Build, layer: _Layer) -> None:
    layer.channels_last()
    found = layer.options.get("padding", 1)
    rows, columns = (found, found) if isinstance(found, int) else _two(found)
    sides = [_two(one) if isinstance(one, list | tuple) else (one, one) for one in (rows, columns)]
    if not all(type(one) is int and 0 <= one <= _MOST_NUMBERS for side in sides for one in side):
        layer.refuse(f"has padding = {found!r}: expected ((top, bottom), (left, right))")
    (top, bottom), (left, right) = sides
    build.pad(layer, top=top, bottom=bottom, left=left, right=right)


def _two(value: Any) -> tuple[Any, Any]:
    """Two things; anything else becomes two that no check lets pass."""
    return (value[0], value[1]) if isinstance(value, list | tuple) and len(value) == 2 else (None, None)  # noqa: PLR2004


def _rescaling(build: _Build, layer: _Layer) -> None:
    """At the start of the network it is part of the preprocessing, which gives pixels divided by 255."""
    channels, *_ = build.map_shape(layer.called)
    if build.parts or build.std:
        layer.refuse("is not the first layer: a Rescaling can be read at the start only")
    factors = [_WHITE * one for one in _each(layer, "scale", 1.0, channels)]
    offsets = _each(layer, "offset", 0.0, channels)
    if any(not factor > 0 for factor in factors):
        layer.refuse(f"has scale = {layer.options.get('scale')!r}: expected numbers above 0")
    if not np.allclose(factors, 1, rtol=1e-6) or any(offsets):  # a scale of 1/255 is what happens anyway
        build.mean = tuple(-offset / factor for factor, offset in zip(factors, offsets, strict=True))
        build.std = tuple(1 / factor for factor in factors)


def _each(layer: _Layer, key: str, default: float, channels: int) -> list[float]:
    """A number for each channel, given as one or as a list."""
    value = layer.options.get(key, default)
    values = value if isinstance(value, list) else [value] * channels
    usable = all(type(one) in (int, float) and math.isfinite(one) for one in values)
    if not usable or len(values) != channels:
        layer.refuse(f"has {key} = {value!r}: expected one number, or one for each of {channels} channels")
    return [float(one) for one in values]


_READERS: dict[str, _Reader] = {
    "InputLayer": _nothing,
    "Conv2D": _conv,
    "DepthwiseConv2D": _depthwise,
    "SeparableConv2D": _separable,
    "Dense": _dense,
    "MaxPooling2D": lambda build, layer: _pool(build, layer, of="maximum"),
    "AveragePooling2D": lambda build, layer: _pool(build, layer, of="mean"),
    "GlobalMaxPooling2D": lambda build, layer: _global_pool(build, layer, of="maximum"),
    "GlobalAveragePooling2D": lambda build, layer: _global_pool(build, layer, of="mean"),
    "BatchNormalization": _batch_norm,
    "Flatten": _flatten,
    "Activation": lambda build, layer: build.activate(layer),
    "ReLU": _relu,
    "LeakyReLU": _leaky,
    "ELU": _elu,
    "Softmax": _softmax,
    "Dropout": _dropout,
    "SpatialDropout2D": _dropout,
    "ZeroPadding2D": _zero_padding,
    "Rescaling": _rescaling,
    **dict.fromkeys(("ActivityRegularization", "GaussianNoise", "GaussianDropout"), _nothing),
    **dict.fromkeys(("RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom"), _nothing),
    **dict.fromkeys(("RandomContrast", "RandomBrightness"), _nothing),
}
"""Keras's class of a layer -> its reader."""


def _reader(layer: _Layer) -> _Reader:
    if layer.kind not in _READERS:
        message = (
            f"{layer.called} is of a class that cannot be read.{nearest(layer.kind, _READERS)} "
            f"Known: {', '.join(_READERS)}. Bring the network over to PyTorch and say python:FILE.py:FACTORY"
        )
        raise InputError(message)
    return _READERS[layer.kind]


def _times(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape) or "a single number"
