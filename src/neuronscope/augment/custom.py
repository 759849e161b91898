"""Augmentations of the user's own, from Python code: `python:path/to/file.py:NAME`.

NAME is an `Augmentation`, or a function of height and width in pixels that returns one. What it does to a batch is
checked each time: it must keep shape and type, and values must stay between 0 and 1. The hash of the code is part of
the augmentation, so that what was computed with other code is not taken up again; code that it imports is not hashed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import cast

import torch
from torch import Tensor

from neuronscope.augment.augmentation import Augmentation
from neuronscope.errors import DataError, InputError
from neuronscope.models.code import module_at, object_in, place_and_name

_EXPECTED = "an Augmentation, or a function of height and width that returns one"

_ROUNDING = 1e-4
"""How far beyond 0 and 1 values may come by rounding."""


@dataclass(frozen=True)
class CustomApply:
    """What a user's augmentation does to images; other processes import its code themselves.

    Attributes:
        source: where the code is, `python:PLACE:NAME`; a relative path starts at the current folder.
        digest: SHA-256 of the file, as hexadecimal text.
        height, width: of the images, in pixels.
    """

    source: str
    digest: str
    height: int
    width: int

    def __call__(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Change a batch.

        Raises:
            InputError: the code has changed meanwhile, or fails, or returns something else than such images.
        """
        augmentation = _imported(self)
        try:
            changed = augmentation.apply(images, parameters)
        except Exception as problem:
            message = (
                f"augmentation '{augmentation.name}' of '{self.source}' failed: expected images of shape "
                f"{tuple(images.shape)}, got {type(problem).__name__}: {problem}. Try it on a batch of random images"
            )
            raise InputError(message) from problem
        _check_images(changed, images, f"augmentation '{augmentation.name}' of '{self.source}'")
        return changed


def load_augmentation(source: str, *, height: int, width: int) -> Augmentation:
    """An augmentation from Python code. Importing the code runs it.

    Args:
        source: `python:path/to/file.py:NAME` or `python:package.module:NAME`.
        height: of the images, in pixels.
        width: likewise.

    Raises:
        UnknownName: the code has no such name.
        InputError: the source has another form, its code is not there or fails, or NAME is something else.
    """
    place, name = place_and_name(source)
    module = module_at(place, source=source)
    found = object_in(module, name, place=place, expected=_EXPECTED)
    if not isinstance(found, Augmentation):
        found = _made(found, source, height, width)
    return replace(found, apply=CustomApply(source, _digest(module, source), height, width))


def _made(maker: object, source: str, height: int, width: int) -> Augmentation:
    """Call a function that makes an augmentation."""
    if not callable(maker):
        message = f"'{source}' is a {type(maker).__name__}: expected {_EXPECTED}. Name one of these"
        raise InputError(message)
    try:
        made = cast("Callable[[int, int], object]", maker)(height, width)
    except Exception as problem:
        message = (
            f"making the augmentation '{source}' failed: {type(problem).__name__}: {problem}. It is called with height "
            f"and width, here ({height}, {width}): expected an Augmentation in return"
        )
        raise InputError(message) from problem
    if not isinstance(made, Augmentation):
        message = f"'{source}' returned a {type(made).__name__}: expected an Augmentation. Return one"
        raise InputError(message)
    return made


@lru_cache(maxsize=64)
def _imported(apply: CustomApply) -> Augmentation:
    """The user's augmentation, imported once in each process."""
    place, name = place_and_name(apply.source)
    module = module_at(place, source=apply.source)
    digest = _digest(module, apply.source)
    if digest != apply.digest:
        message = (
            f"the code of '{apply.source}' is not what it was: expected SHA-256 {apply.digest[:12]}..., got "
            f"{digest[:12]}... Load the augmentation again, and leave its file alone while a study runs"
        )
        raise InputError(message)
    found = object_in(module, name, place=place, expected=_EXPECTED)
    return found if isinstance(found, Augmentation) else _made(found, apply.source, apply.height, apply.width)


def _digest(module: ModuleType, source: str) -> str:
    if module.__file__ is None:
        message = f"'{source}' is a folder of modules: expected one file of code. Name the module in it"
        raise InputError(message)
    return hashlib.sha256(Path(module.__file__).read_bytes()).hexdigest()


def _check_images(changed: object, images: Tensor, what: str) -> None:
    """Refuse what later steps cannot take.

    Raises:
        InputError: another type, shape or dtype.
        DataError: values that are not between 0 and 1.
    """
    if not isinstance(changed, Tensor) or changed.shape != images.shape or changed.dtype != images.dtype:
        came = (
            f"{changed.dtype} of shape {tuple(changed.shape)}"
            if isinstance(changed, Tensor)
            else type(changed).__name__
        )
        message = (
            f"{what} does not return images: expected {images.dtype} of shape {tuple(images.shape)}, got {came}. "
            "Return one image for each that came"
        )
        raise InputError(message)
    low, high = torch.aminmax(changed)
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        message = (
            f"{what} leaves the range of images: expected 0 to 1, got {float(low):.4g} to {float(high):.4g}. Cut the "
            "values off with clamp(0, 1)"
        )
        raise DataError(message)
