"""Small networks that come with neuronscope: for its training command, its demo and the experiments it grew out of.

Each is described by a `Builtin`: how to make it, how to read its options off its weights, and what its input is. All
give logits; none has a softmax.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from neuronscope.errors import InputError
from neuronscope.preprocessing import Preprocess

MNIST_MEAN, MNIST_STD = (0.1307,), (0.3081,)
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

_MNIST_SIDE, _CIFAR_SIDE = 28, 32  # pixels
_KERAS_EPSILON, _KERAS_MOMENTUM = 1e-3, 0.01  # of batch normalisation; Keras writes the momentum as 1 - 0.01


class ViewerCNN(nn.Module):
    """Blocks of convolution, ReLU and 2x2 maximum in `conv_layers`, then a two-layer classifier in `fc_layers`."""

    def __init__(self, conv_layers: nn.Sequential, fc_layers: nn.Sequential) -> None:
        """Join the two parts."""
        super().__init__()
        self.conv_layers = conv_layers
        self.fc_layers = fc_layers

    def forward(self, image: Tensor) -> Tensor:
        """Logits of a batch of images."""
        logits: Tensor = self.fc_layers(self.conv_layers(image))
        return logits


def viewer_cnn(
    *,
    channels: tuple[int, ...] = (32, 64, 128, 256),
    hidden: int = 64,
    classes: int = 10,
    in_channels: int = 1,
    image: int = _MNIST_SIDE,
) -> ViewerCNN:
    """The network of the MNIST viewer: 3x3 convolutions whose maps halve from block to block (28, 14, 7, 3, 1).

    Args:
        channels: units of each block.
        hidden: units of the hidden linear layer.
        classes: number of outputs.
        in_channels: 1 for grey images, 3 for colour.
        image: side of the square input in pixels.

    Raises:
        InputError: the image is too small to be halved once for each block.

    Example:
        >>> import torch
        >>> viewer_cnn(channels=(4, 8), image=8)(torch.zeros(1, 1, 8, 8)).shape
        torch.Size([1, 10])
    """
    side = image >> len(channels)
    if side < 1:
        message = (
            f"an image of side {image} cannot be halved {len(channels)} times: expected {2 ** len(channels)} or more"
        )
        raise InputError(message)
    parts: list[nn.Module] = []
    for before, after in zip((in_channels, *channels[:-1]), channels, strict=True):
        parts += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    classifier = nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels[-1] * side * side, hidden),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(hidden, classes),
    )
    return ViewerCNN(nn.Sequential(*parts), classifier)


def subnet_mnist(*, classes: int = 10) -> nn.Sequential:
    """The MNIST network of the sub-network experiments: four convolutions, two linear layers.

    The number in a layer's name is its index in the Keras original, where an activation belongs to its layer.
    """
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            conv0=nn.Conv2d(1, 32, 5, padding=2),
            relu0=nn.ReLU(),
            conv1=nn.Conv2d(32, 32, 5, padding=2),
            relu1=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            drop3=nn.Dropout(0.25),
            conv4=nn.Conv2d(32, 64, 3, padding=1),
            relu4=nn.ReLU(),
            conv5=nn.Conv2d(64, 64, 3, padding=1),
            relu5=nn.ReLU(),
            pool6=nn.MaxPool2d(2),
            drop7=nn.Dropout(0.25),
            flatten8=nn.Flatten(),
            dense9=nn.Linear(64 * 7 * 7, 128),
            relu9=nn.ReLU(),
            drop10=nn.Dropout(0.5),
            dense11=nn.Linear(128, classes),
        )
    )


def subnet_cifar10(*, classes: int = 10) -> nn.Sequential:
    """The CIFAR-10 network of the sub-network experiments: six convolutions with batch normalisation.

    Only the positions (0, 2, 6, 8, 12, 14, 19, 21 of 22) and widths of the weighted layers are on record; what stands
    between them is the usual arrangement that has these positions, with a dropout at 20. The number in a layer's name
    is its index in the Keras original; the ReLU belongs to its convolution and stands before the normalisation.
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    before, index = 3, 0
    for width in (32, 64, 128):
        for _ in range(2):
            parts[f"conv{index}"] = nn.Conv2d(before, width, 3, padding=1)
            parts[f"relu{index}"] = nn.ReLU()
            parts[f"bn{index + 1}"] = nn.BatchNorm2d(width, eps=_KERAS_EPSILON, momentum=_KERAS_MOMENTUM)
            before, index = width, index + 2
        parts[f"pool{index}"] = nn.MaxPool2d(2)
        parts[f"drop{index + 1}"] = nn.Dropout(0.25)
        index += 2
    parts |= {
        "flatten18": nn.Flatten(),
        "dense19": nn.Linear(128 * 4 * 4, 128),
        "relu19": nn.ReLU(),
        "drop20": nn.Dropout(0.5),
        "dense21": nn.Linear(128, classes),
    }
    return nn.Sequential(parts)


@dataclass(frozen=True)
class Builtin:
    """One built-in network.

    Attributes:
        build: options -> the network with random weights.
        options: weights -> the options they were trained with; {} where the weights are not of this network.
        input_shape: options -> (channels, height, width) of the input.
        takes_any_image: input shape -> options for it; None where the size is fixed.
    """

    build: Callable[..., nn.Module]
    options: Callable[[Mapping[str, Tensor]], dict[str, Any]]
    input_shape: Callable[[Mapping[str, Any]], tuple[int, int, int]]
    for_input: Callable[[tuple[int, int, int]], dict[str, Any]] | None = None

    def preprocess(self, options: Mapping[str, Any]) -> Preprocess:
        """How images become its input: grey as for MNIST, colour as for CIFAR-10."""
        channels, height, width = self.input_shape(options)
        return small_preprocess(3 if channels == 3 else 1, (height, width))  # noqa: PLR2004 red, green, blue


def small_preprocess(channels: Literal[1, 3], size: tuple[int, int]) -> Preprocess:
    """Scaling to a small image, normalised with the mean and spread of MNIST (grey) or CIFAR-10 (colour)."""
    mean, std = (MNIST_MEAN, MNIST_STD) if channels == 1 else (CIFAR_MEAN, CIFAR_STD)
    return Preprocess(channels=channels, resize=min(size), crop=size, mean=mean, std=std)


def _viewer_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    names = [name for name in state if re.fullmatch(r"conv_layers\.\d+\.weight", name)]
    hidden, last = state.get("fc_layers.1.weight"), state.get("fc_layers.4.weight")
    shapes_fit = all(state[name].ndim == 4 for name in names)  # noqa: PLR2004 units out and in, rows, columns
    if not names or not shapes_fit or hidden is None or last is None or {hidden.ndim, last.ndim} != {2}:
        return {}
    kernels = [state[name] for name in sorted(names, key=lambda name: int(name.split(".")[1]))]
    channels = tuple(int(kernel.shape[0]) for kernel in kernels)
    side = round((hidden.shape[1] / channels[-1]) ** 0.5)
    # Halving rounds down, so several image sides give the same weights: the well-known ones go first.
    usual = [size for size in (_MNIST_SIDE, _CIFAR_SIDE) if size >> len(channels) == side]
    return {
        "channels": channels,
        "hidden": int(hidden.shape[0]),
        "classes": int(last.shape[0]),
        "in_channels": int(kernels[0].shape[1]),
        "image": usual[0] if usual else max(side, 1) << len(channels),
    }


def _viewer_input(options: Mapping[str, Any]) -> tuple[int, int, int]:
    image = int(options.get("image", _MNIST_SIDE))
    return int(options.get("in_channels", 1)), image, image


def _viewer_for(shape: tuple[int, int, int]) -> dict[str, Any]:
    if shape[1] != shape[2]:
        message = f"builtin:viewer-cnn takes square images: got {shape[1]}x{shape[2]}"
        raise InputError(message)
    return {"in_channels": shape[0], "image": shape[1]}


def _classes_of(name: str) -> Callable[[Mapping[str, Tensor]], dict[str, Any]]:
    def options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        bias = state.get(f"{name}.bias")
        return {} if bias is None or bias.ndim != 1 else {"classes": int(bias.shape[0])}

    return options


BUILTIN_MODELS: dict[str, Builtin] = {
    "viewer-cnn": Builtin(viewer_cnn, _viewer_options, _viewer_input, _viewer_for),
    "subnet-mnist": Builtin(subnet_mnist, _classes_of("dense11"), lambda _: (1, _MNIST_SIDE, _MNIST_SIDE)),
    "subnet-cifar10": Builtin(subnet_cifar10, _classes_of("dense21"), lambda _: (3, _CIFAR_SIDE, _CIFAR_SIDE)),
}
"""Name after `builtin:` -> the network."""
