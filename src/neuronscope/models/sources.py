"""From a source such as `torchvision:resnet18` and a weights file to a `Subject`.

Every source is one function in `MODEL_SOURCES`. What they share stands here too: which classes there are, how images
are prepared, and the last check that the network gives one number for each class. Other packages add sources through
the entry point group `neuronscope.models`: the entry's name is the prefix, its object a `Loader`.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from neuronscope.errors import (
    DataError,
    InputError,
    MissingDependency,
    StorageError,
    UnknownName,
    WeightsError,
    nearest,
)
from neuronscope.fetching import fetch, torchvision_weights
from neuronscope.models.builtin import BUILTIN_MODELS
from neuronscope.models.checkpoints import load_checkpoint
from neuronscope.models.code import module_at, object_in, place_and_name
from neuronscope.models.keras import load_keras
from neuronscope.models.probe import probe
from neuronscope.models.subject import Subject
from neuronscope.models.weights import (
    Strict,
    Unfilled,
    auxiliary_options,
    class_count,
    fit_state,
    load_state,
    refuse_non_finite,
    torchvision_blueprint,
)
from neuronscope.preprocessing import Preprocess
from neuronscope.run import Progress

Interpolation = Literal["bilinear", "bicubic", "nearest"]

_GROUP = "neuronscope.models"
_RANDOM = "random"
_OWN = "own"
_MEBI = 2**20  # torchvision gives sizes of files in MiB
_SEED = 0
"""Of `--weights random`: the same random network every time."""

_WEIGHTS_FILE = re.compile(r"[/\\]|\.(pth|pt|th|tar|bin|ckpt|safetensors)$", re.IGNORECASE)

_KERAS_FILES = (".h5", ".hdf5", ".keras")


@dataclass(frozen=True)
class ModelOptions:
    """What a caller says beside the source; None everywhere means: as the weights or the source have it.

    Attributes:
        weights: a file, a weights name such as `DEFAULT`, `random`, or `own` (a Python factory's own weights).
        classes: class names.
        strict: whether the weights must fill the whole network.
        input_shape: (channels, height, width) of the input.
        resize, crop, interpolation: geometry of the preprocessing.
        mean, std: its normalisation; empty for none (values 0 to 1).
        progress: hears of the bytes of weights that are downloaded.
    """

    weights: str | None = None
    classes: tuple[str, ...] | None = None
    strict: Strict = "all"
    input_shape: tuple[int, int, int] | None = None
    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: Interpolation | None = None
    progress: Progress | None = None


Loader = Callable[[str, ModelOptions], Subject]
"""(what stands after the prefix, options) -> the subject."""


def load_model(
    source: str | nn.Module,
    *,
    weights: str | Path | None = None,
    classes: Sequence[str] | None = None,
    strict: Strict = "all",
    input_shape: tuple[int, int, int] | None = None,
    resize: int | tuple[int, int] | None = None,
    crop: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: Interpolation | None = None,
    progress: Progress | None = None,
) -> Subject:
    """The network under study.

    Args:
        source: `torchvision:NAME`, `timm:NAME`, `python:package.module:factory`, `python:file.py:factory`, `file:PATH`
            (written by `neuronscope train`), `keras:PATH` (an `.h5` file), `builtin:NAME`, or a network itself (see
            `subject_from` for what happens to it).
        weights: a weights file; a weights name of torchvision or timm, as in `DEFAULT`, which is downloaded unless it
            is there; `random`; `own` for the weights that a Python factory brings.
        classes: class names; by default those of the weights, else numbers.
        strict: `partial` loads what fits of the weights and leaves the others random.
        input_shape: (channels, height, width), where the source does not say it or another one is wanted.
        resize: pixels of the shorter side, or (height, width).
        crop: pixels of the centre crop; a single number for a square.
        mean: per channel on the scale 0 to 1; empty for no normalisation.
        std: as `mean`; both or neither.
        interpolation: of the resize.
        progress: hears of bytes (not images) while weights of torchvision are downloaded.

    Raises:
        UnknownName: no such source, architecture or weights name.
        WeightsError: no weights were named, or they cannot be downloaded or read, or do not fit.
        StorageError: downloaded weights cannot be written.
        InputError: the network or the options cannot work as given.
        MissingDependency: the source needs a package that is not installed.

    Example:
        >>> subject = load_model("builtin:viewer-cnn", weights="random")
        >>> subject.layer("conv_layers.0").shape
        (32, 28, 28)
    """
    options = ModelOptions(
        weights=None if weights is None else str(weights),
        classes=None if classes is None else tuple(classes),
        strict=strict,
        input_shape=input_shape,
        resize=resize,
        crop=(crop, crop) if isinstance(crop, int) else crop,
        mean=None if mean is None else tuple(float(value) for value in mean),
        std=None if std is None else tuple(float(value) for value in std),
        interpolation=interpolation,
        progress=progress,
    )
    if isinstance(source, nn.Module):
        return _from_module(source, options)
    prefix, colon, rest = source.partition(":")
    if not colon or not rest:
        raise UnknownName(_no_prefix(source))
    return _loader(prefix, source)(rest, options)


def subject_from(
    module: nn.Module,
    *,
    name: str,
    input_shape: tuple[int, int, int],
    preprocess: Preprocess,
    classes: Sequence[str] | None = None,
    not_loaded: Sequence[str] = (),
) -> Subject:
    """Make a subject of a network: it is put into eval mode, its weights no longer ask for gradients.

    Args:
        module: the network, with (n, classes) logits as output; one that was compiled is unwrapped.
        name: how to call it in results.
        input_shape: (channels, height, width) of its input.
        preprocess: how its input images are prepared.
        classes: class names; numbers when None.
        not_loaded: names of tensors that hold random values.

    Raises:
        WeightsError: weights that are not finite.
        InputError: it cannot take such an input, its output is not (n, classes), it has no parts to look at, or the
            number of class names is not that of its outputs.
    """
    # torch.compile wraps a network and hides its parts from hooks.
    network = cast("nn.Module", getattr(module, "_orig_mod", module))
    refuse_non_finite(network.state_dict(), source=name)
    network.eval().requires_grad_(requires_grad=False)
    found = probe(network, input_shape)
    if found.classes is None:
        message = (
            f"{name} returns {found.output}; expected a tensor of shape (images, classes). "
            "Wrap the network in one that returns its logits"
        )
        raise InputError(message)
    if not found.layers:
        message = (
            f"{name} has no parts with an output: expected a network made of modules. Nothing in it can be studied"
        )
        raise InputError(message)
    if classes is not None and len(classes) != found.classes:
        message = f"{len(classes)} class names for {name}, which has {found.classes} outputs: give one name for each"
        raise InputError(message)
    return Subject(
        module=network,
        name=name,
        classes=tuple(classes) if classes is not None else _numbers(found.classes),
        preprocess=preprocess,
        input_shape=input_shape,
        layers=found.layers,
        fingerprint=fingerprint(network),
        unaddressable=found.unaddressable,
        not_loaded=tuple(not_loaded),
    )


def fingerprint(module: nn.Module) -> str:
    """SHA-256 of a network's structure and of every tensor in it, as hexadecimal text."""
    digest = hashlib.sha256(f"{type(module).__qualname__}\n{module!r}\n".encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _torchvision(name: str, options: ModelOptions) -> Subject:
    """An image classifier of torchvision; preprocessing and class names from the meta data of its weights."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        message = f"torchvision has no classifier '{name}' ({len(known)} known).{nearest(name, known)}"
        raise UnknownName(message)
    entries = models.get_model_weights(name)
    weights = _require_weights(options, names=[*entries.__members__])
    entry = _weights_entry(entries, weights)
    state = None
    if weights != _RANDOM:
        state = load_state(_downloaded(name, entry, options) if weights in entries.__members__ else weights)
    base = _of_transforms(entry.transforms())
    shape = _input_shape(base, options, channels=3)

    def build(classes: int | None) -> nn.Module:
        arguments = _torchvision_arguments(name, state, shape) | _classes_argument(classes)
        with _filling(state, options):
            network: nn.Module = models.get_model(name, weights=None, **arguments)
        return network

    module, not_loaded = _filled(
        source=f"torchvision:{name}",
        options=options,
        state=state,
        blueprint=lambda: torchvision_blueprint(name, state),
        build=build,
    )
    names = entry.meta["categories"] if state is not None else None
    return _subject(module, f"torchvision:{name}", shape, base, options, classes=names, not_loaded=not_loaded)


def _classes_argument(classes: int | None) -> dict[str, Any]:
    return {} if classes is None else {"num_classes": classes}


def _torchvision_arguments(
    name: str, state: Mapping[str, Tensor] | None, shape: tuple[int, int, int]
) -> dict[str, Any]:
    """What an architecture needs beside the number of classes, as torchvision sets it for its own weights."""
    arguments = auxiliary_options(name, state)
    if arguments and state is not None:
        # Trained weights of these two expect another normalisation, which the network then applies itself.
        arguments["transform_input"] = True
    if arguments and state is None:
        arguments["init_weights"] = True
    if name.startswith("vit_"):
        arguments["image_size"] = shape[1]
    return arguments


def _weights_entry(entries: Any, weights: str) -> Any:
    """The meta data that go with weights: by their name, by the name of the file, else the default ones."""
    if weights in entries.__members__:
        return entries[weights]
    by_file = (entry for entry in entries if Path(weights).name == entry.url.rpartition("/")[2])
    return next(by_file, entries.DEFAULT)


def _downloaded(name: str, entry: Any, options: ModelOptions) -> Path:
    """The file behind a weights name: from torch's own cache, else from the network; its checksum is right."""
    item = torchvision_weights(entry.url, model=name, about=round(entry.meta["_file_size"] * _MEBI))
    try:
        return fetch(item, progress=options.progress).files[0].path
    except (DataError, StorageError) as problem:
        message = f"{problem}\nOr put {item.files[0].name} anywhere and say --weights PATH"
        raise (WeightsError if isinstance(problem, DataError) else StorageError)(message) from problem


def _of_transforms(transforms: Any) -> Preprocess:
    size, crop = transforms.resize_size, transforms.crop_size
    return Preprocess(
        resize=int(size[0]) if len(size) == 1 else (int(size[0]), int(size[1])),
        crop=(int(crop[0]), int(crop[-1])),
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )


def _timm(name: str, options: ModelOptions) -> Subject:
    """A network of timm; preprocessing from its configuration."""
    try:
        import timm
        import timm.data
    except ImportError as problem:
        message = "source 'timm' needs the package timm, which is not installed: pip install 'neuronscope[timm]'"
        raise MissingDependency(message) from problem
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        close = nearest(architecture, timm.list_models())
        message = (
            f"timm has no network '{name}'.{close} List them with: python -c 'import timm; print(timm.list_models())'"
        )
        raise UnknownName(message)
    weights = _require_weights(options, names=["DEFAULT"])
    source = f"timm:{name}"
    not_loaded: tuple[str, ...] = ()
    if weights == "DEFAULT":
        module = _timm_pretrained(timm, name)
    else:
        state = None if weights == _RANDOM else load_state(weights)

        def build(classes: int | None) -> nn.Module:
            with _filling(state, options):
                network: nn.Module = timm.create_model(name, pretrained=False, **_classes_argument(classes))
            return network

        module, not_loaded = _filled(
            source=source,
            options=options,
            state=state,
            blueprint=lambda: _unfilled(lambda: timm.create_model(name, pretrained=False)),
            build=build,
        )
    library: Any = timm.data  # timm is typed in part only
    config = library.resolve_model_data_config(module)
    channels, height, width = (int(size) for size in config["input_size"])
    enlarged = int(height / config["crop_pct"])
    base = Preprocess(
        channels=_channels(channels),
        resize=(height, width) if config["crop_mode"] == "squash" else enlarged,
        crop=(height, width),
        interpolation=_interpolation(config["interpolation"]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )
    shape = _input_shape(base, options, channels=channels)
    return _subject(module, source, shape, base, options, classes=None, not_loaded=not_loaded)


def _interpolation(name: str) -> Interpolation:
    known: dict[str, Interpolation] = {"bilinear": "bilinear", "nearest": "nearest"}
    return known.get(name, "bicubic")


def _timm_pretrained(timm: Any, name: str) -> nn.Module:
    """A network with its published weights; timm asks the Hugging Face hub for them."""
    try:
        module: nn.Module = timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError, ValueError) as problem:
        config = timm.get_pretrained_cfg(name)
        where = (
            f"model.safetensors of huggingface.co/{config.hf_hub_id}" if config and config.hf_hub_id else "the weights"
        )
        reason = next(iter(str(problem).splitlines()), type(problem).__name__)
        message = f"cannot download {where} ({reason}). Fetch the file by other means and say --weights PATH"
        raise WeightsError(message) from problem
    return module


def _python(rest: str, options: ModelOptions) -> Subject:
    """A network that a Python function makes: `package.module:factory` or `file.py:factory`."""
    source = f"python:{rest}"
    factory = _factory(source)
    weights = _require_weights(options, names=[_OWN])
    state = None if weights in (_OWN, _RANDOM) else load_state(weights)
    if weights == _OWN:
        module, not_loaded = _made(factory, None, source), cast("tuple[str, ...]", ())
    else:
        module, not_loaded = _filled(
            source=source,
            options=options,
            state=state,
            blueprint=lambda: _made(factory, None, source),
            build=lambda classes: _made(factory, classes, source),
        )
    return _from_module(module, options, name=source, not_loaded=not_loaded)


def _factory(source: str) -> Callable[..., Any]:
    place, name = place_and_name(source, name="factory")
    expected = "a function that returns a network"
    factory = object_in(module_at(place, source=source), name, place=place, expected=expected)
    if not callable(factory):
        message = f"'{name}' of {place} is a {type(factory).__name__}; expected {expected}"
        raise InputError(message)
    return cast("Callable[..., Any]", factory)


def _made(factory: Callable[..., Any], classes: int | None, source: str) -> nn.Module:
    """Call a factory, with the number of classes where it can take one."""
    takes_classes = "num_classes" in inspect.signature(factory).parameters
    try:
        module = factory(num_classes=classes) if takes_classes and classes is not None else factory()
    except Exception as problem:
        message = (
            f"the factory of '{source}' failed: {type(problem).__name__}: {problem}. It is called without arguments"
        )
        raise InputError(message) from problem
    if not isinstance(module, nn.Module):
        message = f"the factory of '{source}' returned a {type(module).__name__}; expected a torch.nn.Module"
        raise InputError(message)
    return module


def _file(path: str, options: ModelOptions) -> Subject:
    """A checkpoint that `neuronscope train` wrote."""
    source = f"file:{path}"
    if options.weights not in (None, path):
        message = (
            f"{source} holds its own weights: leave --weights {options.weights} out, or name the architecture it fits"
        )
        raise InputError(message)
    checkpoint = load_checkpoint(path)
    prefix, _, name = checkpoint.architecture.partition(":")
    if prefix != "builtin" or name not in BUILTIN_MODELS:
        message = f"{path} asks for architecture '{checkpoint.architecture}', which this neuronscope does not have"
        raise WeightsError(message)
    module, not_loaded = _filled(
        source=source,
        options=options,
        state=checkpoint.state,
        blueprint=None,
        build=lambda _: _built(name, checkpoint.options),
    )
    base = checkpoint.preprocess
    shape = options.input_shape or checkpoint.input_shape
    return _subject(module, source, shape, base, options, classes=checkpoint.classes, not_loaded=not_loaded)


def _builtin(name: str, options: ModelOptions) -> Subject:
    """A small network to train: viewer-cnn, subnet-mnist or subnet-cifar10."""
    if name not in BUILTIN_MODELS:
        message = (
            f"there is no built-in network '{name}'.{nearest(name, BUILTIN_MODELS)} Known: {', '.join(BUILTIN_MODELS)}"
        )
        raise UnknownName(message)
    builtin = BUILTIN_MODELS[name]
    weights = _require_weights(options, names=[])
    state = None if weights == _RANDOM else load_state(weights)
    arguments = builtin.options(state) if state is not None else {}
    if options.input_shape is not None and builtin.for_input is not None:
        arguments |= builtin.for_input(options.input_shape)
    if options.classes is not None and state is None:
        arguments["classes"] = len(options.classes)
    module, not_loaded = _filled(
        source=f"builtin:{name}",
        options=options,
        state=state,
        blueprint=None,
        build=lambda _: _built(name, arguments),
    )
    base = builtin.preprocess(arguments)
    channels = builtin.input_shape(arguments)[0]
    shape = _input_shape(base, options, channels=channels)
    return _subject(module, f"builtin:{name}", shape, base, options, classes=None, not_loaded=not_loaded)


def _built(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        return BUILTIN_MODELS[name].build(**arguments)
    except TypeError as problem:
        message = f"builtin:{name} cannot be made with {dict(arguments)}: {problem}"
        raise WeightsError(message) from problem


def _keras(path: str, options: ModelOptions) -> Subject:
    """A sequential CNN from a Keras .h5 file."""
    source = f"keras:{path}"
    if options.weights not in (None, path):
        message = f"{source} holds its own weights: leave --weights {options.weights} out"
        raise InputError(message)
    network = load_keras(path, input_shape=options.input_shape)
    return _subject(
        network.module, source, network.input_shape, network.preprocess, options, classes=None, not_loaded=()
    )


MODEL_SOURCES: dict[str, Loader] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "python": _python,
    "file": _file,
    "keras": _keras,
    "builtin": _builtin,
}
"""Prefix of a source -> its loader."""


def _loader(prefix: str, source: str) -> Loader:
    if prefix in MODEL_SOURCES:
        return MODEL_SOURCES[prefix]
    plugins = {entry.name: entry for entry in entry_points(group=_GROUP)}
    if prefix in plugins:
        return cast("Loader", plugins[prefix].load())
    known = (*MODEL_SOURCES, *plugins)
    message = (
        f"unknown model source '{prefix}' in '{source}'.{nearest(prefix, known)} Known sources: {', '.join(known)}"
    )
    raise UnknownName(message)


def _no_prefix(source: str) -> str:
    """What to say of a source without a prefix: most often it is plain which one was meant."""
    from torchvision import models

    name = source.removesuffix(":")
    known = models.list_models(module=models)
    if name in BUILTIN_MODELS:
        advice = f"Say builtin:{name}"
    elif name in known:
        advice = f"Say torchvision:{name}"
    elif Path(name).suffix.lower() in _KERAS_FILES:
        advice = f"Say keras:{name}"
    elif Path(name).is_file():
        advice = f"Say file:{name} for a checkpoint of `neuronscope train`, or the architecture and --weights {name}"
    else:
        guess = nearest(name, [*known, *BUILTIN_MODELS])
        advice = f"{guess.strip()} Known sources: {', '.join(MODEL_SOURCES)}".strip()
    return f"'{source}' does not say where the network comes from: expected SOURCE:NAME. {advice}"


def _require_weights(options: ModelOptions, *, names: Sequence[str]) -> str:
    """The weights that were asked for: a file, `random` or one of the names; nothing is ever assumed.

    Raises:
        WeightsError: none were named, or a name that is neither known nor a file.
    """
    known = [*names, _RANDOM]
    if options.weights is None:
        choices = ", ".join(f"--weights {name}" for name in known)
        message = (
            f"no weights given: say --weights PATH, or {choices}. Nothing is assumed, since the numbers of a network "
            "without its weights mean nothing"
        )
        raise WeightsError(message)
    if options.weights in known or Path(options.weights).exists() or _WEIGHTS_FILE.search(options.weights):
        return options.weights
    message = (
        f"weights '{options.weights}' are neither a file nor a known name.{nearest(options.weights, known)} "
        f"Known: {', '.join(known)}, or the path of a file"
    )
    raise WeightsError(message)


def _filled(
    *,
    source: str,
    options: ModelOptions,
    state: Mapping[str, Tensor] | None,
    blueprint: Callable[[], nn.Module] | None,
    build: Callable[[int | None], nn.Module],
) -> tuple[nn.Module, tuple[str, ...]]:
    """Make a network for the classes of its weights and fill it; without weights, the same random one every time.

    Args:
        source: what is made, for messages.
        options: what the caller said.
        state: the weights; None for random ones.
        blueprint: the architecture with any number of classes, to compare the weights with.
        build: number of classes (None: the architecture's own) -> the network.

    Returns:
        The network and the names of its tensors that the weights did not fill.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        if state is None:
            return build(None if options.classes is None else len(options.classes)), ()
        classes = class_count(blueprint(), state) if blueprint is not None else None
        torch.manual_seed(_SEED)  # what a blueprint drew must not change what stays random
        module = build(classes)
    return module, fit_state(module, state, source=options.weights or source, strict=options.strict, name=source)


def _filling(state: Mapping[str, Tensor] | None, options: ModelOptions) -> AbstractContextManager[object]:
    """Drawing random weights takes seconds for large networks: it is left out where a file replaces them all."""
    return Unfilled() if state is not None and options.strict == "all" else nullcontext()


def _from_module(
    module: nn.Module, options: ModelOptions, *, name: str | None = None, not_loaded: Sequence[str] = ()
) -> Subject:
    """A network made elsewhere: its input is known from options or from attributes of the network."""
    called = name or f"python:{type(module).__module__}:{type(module).__qualname__}"
    if name is None and options.weights not in (None, _OWN):
        message = f"a network given as an object has its weights already: leave weights={options.weights!r} out"
        raise InputError(message)
    given = options.input_shape or getattr(module, "input_shape", None)
    if given is None:
        message = (
            f"the input of {called} is not known: say --input-shape 3,32,32 (channels, height, width), or give the "
            "network an attribute input_shape"
        )
        raise InputError(message)
    channels, height, width = (int(size) for size in given)
    base = Preprocess(
        channels=_channels(channels),
        resize=max(height, width),
        crop=(height, width),
        mean=_numbers_of(module, "mean") if options.mean is None else (),
        std=_numbers_of(module, "std") if options.mean is None else (),
    )
    asked = replace(options, input_shape=(channels, height, width))
    return _subject(module, called, (channels, height, width), base, asked, classes=None, not_loaded=not_loaded)


def _numbers_of(module: nn.Module, name: str) -> tuple[float, ...]:
    """An attribute of a network as numbers: a tensor, a sequence or nothing."""
    found = getattr(module, name, None)
    if found is None or callable(found):
        return ()
    values = found.flatten().tolist() if isinstance(found, Tensor) else found
    return tuple(float(value) for value in values)


def _channels(count: int) -> Literal[1, 3]:
    if count == 1:
        return 1
    if count == 3:  # noqa: PLR2004 red, green, blue
        return 3
    message = f"a network with {count} input channels cannot be shown images: expected 1 (grey) or 3 (colour)"
    raise InputError(message)


def _input_shape(base: Preprocess, options: ModelOptions, *, channels: int) -> tuple[int, int, int]:
    """The size that the preprocessing gives after the caller's changes."""
    if options.input_shape is not None:
        return options.input_shape
    size = options.crop or base.crop or options.resize or base.resize
    if not isinstance(size, tuple):
        message = "the size of the input is not known: say --input-shape 3,224,224 (channels, height, width)"
        raise InputError(message)
    return channels, size[0], size[1]


def _adjusted(base: Preprocess, options: ModelOptions) -> Preprocess:
    """The preprocessing with the caller's changes.

    Raises:
        InputError: mean without std, or numbers that do not fit the channels.
    """
    size = options.input_shape[1:] if options.input_shape is not None else None
    mean, std = options.mean, options.std
    if mean == () and std is None:
        std = ()
    if (mean is None) != (std is None):
        message = "only one of --mean and --std was given: normalisation needs both"
        raise InputError(message)
    resize = options.resize
    if resize is None:
        resize = max(size) if size is not None and size != base.crop else base.resize
    return Preprocess(
        channels=base.channels,
        resize=resize,
        crop=options.crop or size or base.crop,
        interpolation=options.interpolation or base.interpolation,
        mean=base.mean if mean is None else mean,
        std=base.std if std is None else std,
    )


def _subject(
    module: nn.Module,
    name: str,
    shape: tuple[int, int, int],
    base: Preprocess,
    options: ModelOptions,
    *,
    classes: Sequence[str] | None,
    not_loaded: Sequence[str],
) -> Subject:
    """A subject; `classes` of the weights' meta data count only where the network has as many outputs."""
    subject = subject_from(
        module,
        name=name,
        input_shape=shape,
        preprocess=_adjusted(base, options),
        classes=options.classes,
        not_loaded=not_loaded,
    )
    if options.classes is None and classes is not None and len(classes) == len(subject.classes):
        return replace(subject, classes=tuple(classes))
    return subject


def _unfilled(build: Callable[[], nn.Module]) -> nn.Module:
    with Unfilled("meta"):
        return build()


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(count))
