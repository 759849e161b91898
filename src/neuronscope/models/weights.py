"""Weights from a file into a network, with every way this fails said in words.

Only tensors are ever read: a pickled object can run code when it is opened. Values that are not finite are refused at
once, since one of them makes every later number meaningless. A file that does not fit says which tensors differ and
which architecture it would fit.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from neuronscope.errors import WeightsError
from neuronscope.models.builtin import BUILTIN_MODELS

Strict = Literal["all", "partial"]
"""`all`: every tensor of the network comes from the file. `partial`: those that fit do, the others stay random."""

_LOG = logging.getLogger("neuronscope")

_TORCH_SUFFIXES = (".pth", ".pt", ".pth.tar", ".th", ".bin", ".ckpt")
_SAFE_SUFFIX = ".safetensors"

_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep the weights beside other things."""

_PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""

_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
"""Names in DenseNet files from before PyTorch 0.4: `norm.1.weight` where the network says `norm1.weight`."""

_COUNTER = "num_batches_tracked"
"""A training counter that older files lack; it has no part in the output."""

_SHOWN = 4
"""How many names a message lists before it says how many more there are."""

_FAMILY = 0.05
"""Share of the file's names that another network of the same family has at least: VGG-11 has 12 % of VGG-19-BN's."""

_MOSTLY = 0.5
"""Share of tensors that must agree before an architecture is called the closest."""


def load_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name, on the CPU.

    Args:
        path: a `.pth`, `.pt`, `.pth.tar`, `.th` or `.safetensors` file that holds a state dict, plain or under the
            key `state_dict` or `model`. A prefix `module.` on all names is removed and the old dotted names of
            DenseNet files are brought to today's form.

    Raises:
        WeightsError: there is no such file, it is torn or of another kind, it holds objects that are not tensors, or
            weights that are not finite.
    """
    file = Path(path)
    _check_file(file)
    content = _read_safetensors(file) if file.name.endswith(_SAFE_SUFFIX) else read_torch(file)
    state = _rename(_find_state(content, file))
    refuse_non_finite(state, source=str(file))
    return state


def refuse_non_finite(state: Mapping[str, Tensor], *, source: str) -> None:
    """Refuse weights with NaN or infinity.

    Raises:
        WeightsError: names the first such tensor and says how many of its values are not finite.
    """
    bad = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        tensor = state[bad[0]]
        count = int((~tensor.isfinite()).sum())
        more = f" ({len(bad) - 1} more tensors have such values)" if len(bad) > 1 else ""
        message = (
            f"tensor '{bad[0]}' of {source} holds {count} of {tensor.numel()} values that are NaN or infinite{more}. "
            "Every result would be meaningless: use a checkpoint from before the training diverged"
        )
        raise WeightsError(message)


def fit_state(
    module: nn.Module, state: Mapping[str, Tensor], *, source: str, strict: Strict = "all", name: str = ""
) -> tuple[str, ...]:
    """Put weights into a network.

    Args:
        module: the network; its tensors are overwritten.
        state: tensors by name, as `load_state` gives them.
        source: where they come from, for messages.
        strict: `all` refuses any difference. `partial` loads the tensors that fit by name and shape, leaves the
            others as they are and logs a warning; for files that hold a part of a network.
        name: what to call the network in messages; its class name when empty.

    Returns:
        Names of the network's tensors that the file did not fill: none with `all`.

    Raises:
        WeightsError: names or shapes differ (`all`), or nothing fits at all (`partial`).
    """
    called = name or type(module).__name__
    difference = _compare(module.state_dict(), state)
    if strict == "all" and not difference.fits:
        raise WeightsError(_mismatch(difference, state, source=source, name=called))
    left_out = {name for name, _, _ in difference.shapes}
    chosen = {name: tensor for name, tensor in state.items() if name not in left_out | set(difference.unexpected)}
    if not chosen:
        raise WeightsError(_mismatch(difference, state, source=source, name=called))
    module.load_state_dict(chosen, strict=False)
    not_loaded = tuple(name for name in module.state_dict() if name not in chosen and not name.endswith(_COUNTER))
    if not_loaded:
        _LOG.warning(
            "%s fills %d tensors of %s; %d stay random: %s",
            *(source, len(chosen), called, len(not_loaded), _list(not_loaded)),
        )
    return not_loaded


def class_count(blueprint: nn.Module, state: Mapping[str, Tensor]) -> int | None:
    """The number of classes that weights were trained for, read off the tensors that differ from an architecture.

    They are the classifiers' tensors when they differ in the first size only and agree on its value.

    Args:
        blueprint: the architecture with any other number of classes; may be on the meta device.
        state: the weights.

    Returns:
        The number of classes; None when nothing differs, or when the weights are those of another architecture.
    """
    return _class_count(blueprint.state_dict(), state)


def _class_count(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> int | None:
    shapes = _compare(expected, state).shapes
    changed = {(want[:1], came[:1]) for _, want, came in shapes if want[1:] == came[1:]}
    alike = len(changed) == 1 and all(want and want[1:] == came[1:] for _, want, came in shapes)
    return int(shapes[0][2][0]) if alike else None


def fitting_architectures(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Sources of the built-in and torchvision classifiers that weights fit, up to the number of classes.

    Architectures are made without memory or random numbers, and of families that share no names with the weights only
    one: this takes about a second.
    """
    return tuple(name for name, expected in _candidates(state) if _fits(expected, state))


def read_torch(file: Path) -> Any:
    """Whatever tensors, numbers, texts, lists and dictionaries a torch file holds; nothing that could run code.

    Raises:
        WeightsError: the file is torn, is no torch file, or holds other objects.
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as problem:  # a torn file may fail in any way
        raise WeightsError(_unreadable(file, problem)) from problem


def _unreadable(file: Path, problem: Exception) -> str:
    """What kept a torch file from being read; torch tells the cases apart in words only."""
    text = str(problem)
    if "TorchScript" in text:
        return (
            f"{file} is a TorchScript archive: a program, not only tensors. Convert it where you trust it: "
            f"torch.save(torch.jit.load('{file.name}').state_dict(), 'weights.pth')"
        )
    if re.search("Unsupported global|Unsupported class|Trying to call|Can only build|Can not build", text):
        found = re.search(r"GLOBAL ([\w.]+)", text)
        return (
            f"{file} holds a pickled object{f' ({found[1]})' if found else ''}, not only tensors. Opening such a file "
            "can run any code, so only tensors are loaded. Convert it where you trust it: "
            f"torch.save(torch.load('{file.name}', weights_only=False).state_dict(), 'weights.pth')"
        )
    return _torn(file, problem)


class Unfilled(TorchFunctionMode):
    """While active, networks are made without drawing their random weights.

    With `device="meta"` they take no memory either. Only what `torch.empty` makes is moved: sizes that an
    architecture computes with tensors (as RegNet does) stay real, which `torch.device("meta")` breaks.
    """

    def __init__(self, device: Literal["meta"] | None = None) -> None:
        """Say where empty tensors go."""
        super().__init__()
        self._device = device

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Leave out random initialisation, pass everything else on."""
        del types
        options = dict(kwargs or {})
        if getattr(func, "__name__", "") in _RANDOM:
            return args[0] if args else options["tensor"]
        if func is torch.empty and self._device is not None:
            options["device"] = self._device
        return func(*args, **options)


_RANDOM = frozenset(
    {
        *("uniform_", "normal_", "trunc_normal_", "erfinv_", "kaiming_uniform_", "kaiming_normal_"),
        *("xavier_uniform_", "xavier_normal_", "orthogonal_"),
    }
)


@dataclass(frozen=True)
class _Difference:
    """How weights differ from what a network expects; `shapes` holds (name, expected, came)."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    shapes: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]

    @property
    def fits(self) -> bool:
        return not (self.missing or self.unexpected or self.shapes)


def _compare(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> _Difference:
    return _Difference(
        missing=tuple(name for name in expected if name not in state and not name.endswith(_COUNTER)),
        unexpected=tuple(name for name in state if name not in expected and not name.endswith(_COUNTER)),
        shapes=tuple(
            (name, tuple(tensor.shape), tuple(state[name].shape))
            for name, tensor in expected.items()
            if name in state and tensor.shape != state[name].shape
        ),
    )


def _mismatch(difference: _Difference, state: Mapping[str, Tensor], *, source: str, name: str) -> str:
    parts = []
    if difference.missing:
        parts.append(f"{len(difference.missing)} tensors are missing ({_list(difference.missing)})")
    if difference.unexpected:
        parts.append(f"{len(difference.unexpected)} are not expected ({_list(difference.unexpected)})")
    if difference.shapes:
        shown = [f"{key} is {_times(came)}, expected {_times(want)}" for key, want, came in difference.shapes]
        parts.append(f"{len(difference.shapes)} have other shapes ({_list(shown, mark='')})")
    return f"the weights of {source} do not fit {name}: {'; '.join(parts)}. {_advice(state)}"


def _advice(state: Mapping[str, Tensor]) -> str:
    shares: dict[str, float] = {}
    fits = []
    for name, expected in _candidates(state):
        if _fits(expected, state):
            fits.append(name)
        wanted = [key for key in expected if not key.endswith(_COUNTER)]
        agree = sum(key in state and state[key].shape == expected[key].shape for key in wanted)
        shares[name] = agree / max(len(wanted), sum(not key.endswith(_COUNTER) for key in state))
    if fits:
        return f"They fit {' or '.join(fits)}: use that with --model"
    closest = max(shares, key=lambda name: shares[name])
    if shares[closest] > _MOSTLY:
        return (
            f"The closest architecture is {closest} ({shares[closest]:.0%} of the tensors agree); "
            "--strict partial loads the tensors that fit and leaves the others random"
        )
    return "They fit no built-in or torchvision classifier: bring their architecture as python:package.module:factory"


def _fits(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> bool:
    difference = _compare(expected, state)
    same_names = not (difference.missing or difference.unexpected)
    return same_names and (not difference.shapes or _class_count(expected, state) is not None)


def _candidates(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Known architectures and their tensors, without memory behind them; options are read from the weights."""
    for name, builtin in BUILTIN_MODELS.items():
        with Unfilled("meta"):
            module = builtin.build(**builtin.options(state))
        yield f"builtin:{name}", module.state_dict()
    from torchvision import models

    foreign: set[str] = set()
    for name in models.list_models(module=models):
        family = re.sub(r"^([a-z]+(?:_v\d)?).*", r"\1", name)  # mobilenet_v3 of mobilenet_v3_small
        if family in foreign:
            continue
        expected = torchvision_blueprint(name, state).state_dict()
        if sum(key in expected for key in state) < _FAMILY * len(state):
            foreign.add(family)
        yield f"torchvision:{name}", expected


def torchvision_blueprint(name: str, state: Mapping[str, Tensor] | None = None) -> nn.Module:
    """A torchvision classifier without memory behind it, with auxiliary classifiers when the weights have them."""
    from torchvision import models

    with torch.random.fork_rng(devices=[]), Unfilled("meta"):
        twin: nn.Module = models.get_model(name, weights=None, **auxiliary_options(name, state))
    return twin


def auxiliary_options(name: str, state: Mapping[str, Tensor] | None) -> dict[str, Any]:
    """Arguments for the two torchvision networks that have auxiliary classifiers, used in training only."""
    if name not in ("googlenet", "inception_v3"):
        return {}
    auxiliary = state is not None and any(key.startswith(("aux1.", "AuxLogits.")) for key in state)
    return {"aux_logits": auxiliary, "init_weights": False}


def _check_file(file: Path) -> None:
    if file.is_dir():
        message = f"{file} is a folder. Give one weights file ({', '.join(_TORCH_SUFFIXES)} or {_SAFE_SUFFIX})"
        raise WeightsError(message)
    if not file.exists():
        message = f"there is no weights file {file}. Check the path (looked for {file.absolute()})"
        raise WeightsError(message)
    if not file.name.lower().endswith((*_TORCH_SUFFIXES, _SAFE_SUFFIX)):
        known = ", ".join((*_TORCH_SUFFIXES, _SAFE_SUFFIX))
        message = f"{file} does not look like weights: its name should end in one of {known}"
        raise WeightsError(message)
    if file.stat().st_size == 0:
        message = f"{file} is empty (0 bytes). Copy or download it again"
        raise WeightsError(message)


def _read_safetensors(file: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file, device="cpu")
    except (SafetensorError, OSError) as problem:
        raise WeightsError(_torn(file, problem)) from problem


def _torn(file: Path, problem: Exception) -> str:
    reason = next(iter(str(problem).splitlines()), "") or type(problem).__name__
    return (
        f"{file} ({file.stat().st_size} bytes) cannot be read as weights: it is torn or of another kind ({reason}). "
        "Copy or download it again"
    )


def _find_state(content: Any, file: Path) -> dict[str, Tensor]:
    for candidate in (content, *(content.get(key) for key in _WRAPPERS if isinstance(content, dict))):
        if isinstance(candidate, dict) and candidate and all(isinstance(v, Tensor) for v in candidate.values()):
            return {str(name): tensor for name, tensor in candidate.items()}
    came = (
        f"a dictionary with {_list([str(key) for key in content])}" if isinstance(content, dict) else str(type(content))
    )
    message = (
        f"{file} holds no state dict: expected tensors by name, plain or under {' or '.join(_WRAPPERS)}; "
        f"it holds {came}. Save the network with torch.save(network.state_dict(), 'weights.pth')"
    )
    raise WeightsError(message)


def _rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    names = list(state)
    while prefix := next((p for p in _PREFIXES if names and all(name.startswith(p) for name in names)), ""):
        names = [name.removeprefix(prefix) for name in names]
    return {_OLD_DENSENET.sub(r"\1\2", name): tensor for name, tensor in zip(names, state.values(), strict=True)}


def _list(names: Iterable[str], *, mark: str = "'") -> str:
    words = [f"{mark}{name}{mark}" for name in names]
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return ", ".join(words[:_SHOWN]) + more


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape) or "a single number"
