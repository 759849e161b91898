"""What can be told of a network without showing it an image: modes, weights, layers, normalisation.

Every check takes a module or a `Subject` and changes neither.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from neuronscope.doctor.finding import Finding, some
from neuronscope.errors import NeuronscopeError
from neuronscope.models.builtin import BUILTIN_MODELS
from neuronscope.models.checkpoints import load_checkpoint
from neuronscope.models.probe import kind_of
from neuronscope.models.subject import Subject
from neuronscope.preprocessing import Preprocess

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

_MEAN_AWAY = 0.05
"""On the scale 0 to 1: the usual ways to compute the mean of a data set differ by less."""

_STD_AWAY = 1.25
"""Ratio: the usual ways to compute a spread (of pixels, of image means) that are no mistake differ by less."""


@dataclass(frozen=True)
class Normalisation:
    """The normalisation that weights were trained with.

    Attributes:
        mean, std: per channel, on the scale 0 to 1; both empty for none.
        origin: who says so.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str


def check_modes(module: nn.Module) -> Finding:
    """Whether all parts are in eval mode, in which dropout is off and batch normalisation keeps its statistics."""
    parts = [(name or type(module).__name__, part) for name, part in module.named_modules()]
    acting = [(name, part) for name, part in parts if kind_of(part) == "dropout" or isinstance(part, _BATCH_NORMS)]
    dropouts = sum(kind_of(part) == "dropout" for _, part in acting)
    has = f"{dropouts} dropout and {len(acting) - dropouts} batch normalisation layers"
    harmful = [name for name, part in acting if part.training]
    training = [name for name, part in parts if part.training]
    advice = "Call subject.module.eval(); if a network undoes that itself, change its train() or forward()"
    if harmful:
        text = (
            f"{len(harmful)} of {has} are in training mode ({some(harmful)}): outputs are random or depend on the batch"
        )
        return Finding("network", "eval mode", "broken", text, advice)
    if training:
        text = f"{len(training)} of {len(parts)} modules are in training mode ({some(training)}), expected eval mode"
        return Finding("network", "eval mode", "warning", text, advice)
    text = f"all {len(parts)} modules are in eval mode, into which loading puts them; among them {has}"
    return Finding("network", "eval mode", "fine", text)


def check_statistics(module: nn.Module) -> Finding | None:
    """Whether batch normalisation has statistics of its own; None for networks without such layers."""
    parts = [(name, part) for name, part in module.named_modules() if isinstance(part, _BATCH_NORMS)]
    if not parts:
        return None
    without = [name for name, part in parts if part.running_mean is None]
    if without:
        text = (
            f"{len(without)} of {len(parts)} batch normalisation layers keep no statistics ({some(without)}): also "
            "in eval mode an image's output depends on the others in its batch"
        )
        advice = "Make them with track_running_stats=True, and train or calibrate the network again"
        return Finding("network", "batch normalisation", "broken", text, advice)
    fresh = [name for name, part in parts if _is_fresh(part)]
    if fresh:
        text = (
            f"{len(fresh)} of {len(parts)} batch normalisation layers have mean 0 and variance 1 as when they were "
            f"made ({some(fresh)}): expected the statistics of the training images"
        )
        advice = "Look whether --weights names the file of a trained network, with its running_mean and running_var"
        return Finding("network", "batch normalisation", "warning", text, advice)
    return Finding("network", "batch normalisation", "fine", f"{len(parts)} layers have statistics of their own")


def _is_fresh(part: nn.Module) -> bool:
    mean, variance = part.get_buffer("running_mean"), part.get_buffer("running_var")
    return bool((mean == 0).all() and (variance == 1).all())


def check_weights(module: nn.Module, *, not_loaded: Sequence[str] = ()) -> Finding:
    """Whether all weights are there, finite and not all zero.

    Args:
        module: the network.
        not_loaded: tensors that a partial weights file left random.
    """
    tensors = {name: one for name, one in module.state_dict().items() if isinstance(one, Tensor)}
    infinite = [name for name, one in tensors.items() if one.is_floating_point() and not one.isfinite().all()]
    if infinite:
        text = f"{len(infinite)} of {len(tensors)} tensors hold NaN or infinity: {some(infinite)}"
        advice = "Every result would be meaningless: use a checkpoint from before the training diverged"
        return Finding("network", "weights", "broken", text, advice)
    if not_loaded:
        text = f"{len(not_loaded)} of {len(tensors)} tensors were not in the weights and are random: {some(not_loaded)}"
        advice = "Leave --strict partial out to see what does not fit, or study only layers before them"
        return Finding("network", "weights", "warning", text, advice)
    kernels = [name for name, one in module.named_parameters() if one.ndim > 1]
    empty = [name for name in kernels if not tensors[name].any()]
    if empty:
        text = f"{len(empty)} of {len(kernels)} weight matrices and kernels are all zero: {some(empty)}"
        return Finding("network", "weights", "warning", text, "Look whether the weights file is the one that was meant")
    return Finding("network", "weights", "fine", f"{len(tensors)} tensors, all finite")


def check_uncalled(subject: Subject) -> Finding:
    """Which modules can not be studied: never called in eval mode, or without one output per image."""
    if not subject.unaddressable:
        return Finding("network", "modules", "fine", "every module is called and has an output for each image")
    listed = "; ".join(f"{name} {reason}" for name, reason in subject.unaddressable[:3])
    more = len(subject.unaddressable) - 3  # three reasons fill a line or two
    text = f"{len(subject.unaddressable)} modules cannot be studied: {listed}{f'; and {more} more' if more > 0 else ''}"
    advice = "Nothing, if they only serve training (auxiliary heads); else look into forward()"
    return Finding("network", "modules", "note", text, advice)


def check_reused(subject: Subject) -> Finding | None:
    """Which modules are called several times, so that each call is a layer; None when none is."""
    again = list(dict.fromkeys(layer.module_name for layer in subject.layers if layer.call))
    if not again:
        return None
    text = f"{len(again)} modules are called several times ({some(again)}); each call is a layer, as in {again[0]}#1"
    return Finding("network", "reused modules", "note", text)


def check_fields(subject: Subject) -> Finding | None:
    """Which feature maps have a receptive field that is unknown or the whole image; None when all are known."""
    maps = [layer for layer in subject.layers if len(layer.map_shape) == 2]  # noqa: PLR2004 rows and columns
    unknown = [layer.name for layer in maps if layer.receptive_field is None]
    if not unknown:
        return None
    text = (
        f"{len(unknown)} of {len(maps)} layers with feature maps see the whole image, or it is not known what they see "
        f"({some(unknown)}): their galleries show whole images in place of crops"
    )
    return Finding("network", "receptive fields", "note", text)


def check_normalisation(preprocess: Preprocess, expected: Normalisation | None) -> Finding:
    """Whether images are normalised as for the training.

    Args:
        preprocess: what is done to images.
        expected: what the weights were trained with; None where nobody says.
    """
    done = _in_words(preprocess.mean, preprocess.std)
    if expected is None:
        text = f"images are fed with {done}; nothing says what the network was trained with"
        return Finding(
            "network", "normalisation", "note", text, "Compare it with the training; --mean and --std set it"
        )
    if _alike(preprocess, expected):
        return Finding("network", "normalisation", "fine", f"{done}, as {expected.origin} says")
    wanted = _in_words(expected.mean, expected.std)
    text = f"images are fed with {done}; {expected.origin} says {wanted}"
    advice = "Leave --mean, --std and --normalise out, unless these weights were trained in another way"
    return Finding("network", "normalisation", "warning", text, advice)


def _in_words(mean: Sequence[float], std: Sequence[float]) -> str:
    if not mean:
        return "no normalisation (values 0 to 1)"
    return f"mean {_numbers(mean)} and std {_numbers(std)}"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


def _alike(preprocess: Preprocess, expected: Normalisation) -> bool:
    if len(preprocess.mean) != len(expected.mean):
        return False
    means = zip(preprocess.mean, expected.mean, strict=True)
    spreads = zip(preprocess.std, expected.std, strict=True)
    return all(abs(one - other) <= _MEAN_AWAY for one, other in means) and all(
        1 / _STD_AWAY <= one / other <= _STD_AWAY for one, other in spreads
    )


def expected_normalisation(subject: Subject) -> Normalisation | None:
    """The normalisation that the source of a network names; None for sources that name none.

    Torchvision's meta data belong to weights, of which the default ones are asked; timm's belong to the architecture.
    """
    prefix, _, name = subject.name.partition(":")
    match prefix:
        case "torchvision":
            models = importlib.import_module("torchvision.models")
            entry = models.get_model_weights(name).DEFAULT
            transforms = entry.transforms()
            return Normalisation(tuple(transforms.mean), tuple(transforms.std), f"the meta data of {entry}")
        case "timm":
            config = importlib.import_module("timm").get_pretrained_cfg(name)
            return None if config is None else Normalisation(config.mean, config.std, "the configuration in timm")
        case "file":
            try:
                trained = load_checkpoint(name).preprocess
            except NeuronscopeError:  # gone or replaced since it was loaded: then nobody says
                return None
            return Normalisation(trained.mean, trained.std, "the checkpoint")
        case "builtin" if name in BUILTIN_MODELS:
            usual = BUILTIN_MODELS[name].preprocess({"in_channels": subject.input_shape[0]})
            return Normalisation(usual.mean, usual.std, f"the built-in {name}")
        case _:
            return None
