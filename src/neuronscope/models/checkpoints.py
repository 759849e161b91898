"""The files that `neuronscope train` writes: weights with all it takes to use them, and nothing that can run code."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neuronscope.errors import InputError, StorageError, WeightsError
from neuronscope.models.weights import read_torch, refuse_non_finite
from neuronscope.preprocessing import Preprocess

_VERSION = 1
"""Counts the changes of the file's form that an older neuronscope could not read."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained network as it lies on disk.

    Attributes:
        architecture: a source that makes the network, as in `builtin:viewer-cnn`.
        options: arguments of the architecture.
        classes: class names.
        preprocess: how its input images are prepared.
        input_shape: (channels, height, width).
        state: tensors by name.
    """

    architecture: str
    options: Mapping[str, Any]
    classes: tuple[str, ...]
    preprocess: Preprocess
    input_shape: tuple[int, int, int]
    state: Mapping[str, Tensor]


def save_checkpoint(
    path: str | Path,
    *,
    architecture: str,
    options: Mapping[str, Any],
    classes: Sequence[str],
    preprocess: Preprocess,
    input_shape: tuple[int, int, int],
    module: nn.Module,
) -> None:
    """Write a trained network so that `file:PATH` finds all it needs; a kill never leaves half a file behind.

    Args:
        path: the file, by custom `.pth`; its folder is made when absent.
        architecture: a source that makes the network, as in `builtin:viewer-cnn`.
        options: arguments of the architecture: numbers, texts, tuples.
        classes: class names, one for each output.
        preprocess: how its input images are prepared.
        input_shape: (channels, height, width).
        module: the network.

    Raises:
        StorageError: the file cannot be written.
    """
    content = {
        "neuronscope": _VERSION,
        "architecture": architecture,
        "options": dict(options),
        "classes": [str(name) for name in classes],
        "preprocess": asdict(preprocess),
        "input_shape": list(input_shape),
        "state_dict": {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()},
    }
    file = Path(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as draft:
            torch.save(content, draft)
            draft.flush()
            os.fsync(draft.fileno())
        Path(draft.name).chmod(0o644)  # temporary files are private; a result is not
        Path(draft.name).replace(file)
    except OSError as problem:
        message = (
            f"cannot write the checkpoint {file}: {problem.strerror or problem}. Choose another folder or free space"
        )
        raise StorageError(message) from problem


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote.

    Raises:
        WeightsError: the file is missing, torn, not one of these, too new, or holds weights that are not finite.
    """
    file = Path(path)
    if not file.is_file():
        message = f"there is no checkpoint {file}. Check the path (looked for {file.absolute()})"
        raise WeightsError(message)
    content = read_torch(file)
    if not isinstance(content, dict) or "neuronscope" not in content:
        message = (
            f"{file} was not written by `neuronscope train`. For weights of another origin name the architecture, too: "
            f"--model torchvision:NAME --weights {file}"
        )
        raise WeightsError(message)
    if not isinstance(content["neuronscope"], int) or content["neuronscope"] > _VERSION:
        message = (
            f"{file} has format {content['neuronscope']}; this neuronscope reads formats up to {_VERSION}. "
            "Install a newer neuronscope"
        )
        raise WeightsError(message)
    try:
        checkpoint = _checkpoint(content)
    except (KeyError, TypeError, ValueError, InputError) as problem:
        message = f"the checkpoint {file} is damaged: {type(problem).__name__} {problem}. Train or copy it again"
        raise WeightsError(message) from problem
    refuse_non_finite(checkpoint.state, source=str(file))
    return checkpoint


def _checkpoint(content: Mapping[str, Any]) -> Checkpoint:
    channels, height, width = (int(size) for size in content["input_shape"])
    return Checkpoint(
        architecture=str(content["architecture"]),
        options=dict(content["options"]),
        classes=tuple(str(name) for name in content["classes"]),
        preprocess=Preprocess(**content["preprocess"]),
        input_shape=(channels, height, width),
        state=dict(content["state_dict"]),
    )
