"""What augmentations look like: each parameter at its ends, a few random draws, and a few random orders of all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from neuronscope.augment.augmentation import Augmentation, Parameter, decoded
from neuronscope.augment.compose import compose
from neuronscope.preprocessing import GREY
from neuronscope.views import Gallery, Picture, Strip

_Pixels = UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]

_DRAWS = 3
"""Random draws of an augmentation with more than one parameter."""
_ORDERS = 6
"""Random orders of all augmentations."""
_POINTS = (0.0, 0.25, 1.0)
"""Where in its range a single parameter is looked at; of several only the ends. With the original four fit a row."""
_WHITE = 255
_MAGNIFIED = 112
"""Side in pixels below which pictures are magnified."""


def sheet(
    augmentations: Sequence[Augmentation], images: Float[Tensor, "n c h w"], *, rng: np.random.Generator
) -> Gallery:
    """A contact sheet: a strip of pictures for each augmentation, and one of all of them in random orders.

    A strip shows the original, then each parameter at its lower and upper end with the others in the middle of their
    ranges, then random draws; a parameter that is the only one also at a quarter of its range, without draws. A frame
    marks what changed where that is a small part. Strips take the images in turn.

    Args:
        augmentations: what to show, numbered from 1.
        images: 0 to 1, at least one.
        rng: of the random draws.

    Example:
        >>> from neuronscope.augment.catalogue import augmentations
        >>> shown = [augmentations(8, 8)[name] for name in ("hflip", "brightness")]
        >>> gallery = sheet(shown, torch.rand(1, 3, 8, 8), rng=np.random.default_rng(0))
        >>> [picture.caption for picture in gallery.strips[1].pictures]
        ['original', 'factor 0.1', 'factor 0.7', 'factor 2.5']
    """
    strips = [
        _strip(augmentation, number, images[(number - 1) % len(images)], rng)
        for number, augmentation in enumerate(augmentations, start=1)
    ]
    if len(augmentations) > 1:
        strips.append(_orders(augmentations, images[len(augmentations) % len(images)], rng))
    return Gallery(
        name="augmentations",
        title="What the augmentations do",
        strips=strips,
        scale=max(1, _MAGNIFIED // min(images.shape[2:])),
        key="each parameter at the ends of its range, the others in the middle; then random draws",
    )


def _strip(augmentation: Augmentation, number: int, image: Float[Tensor, "c h w"], rng: np.random.Generator) -> Strip:
    rows, captions = _views(augmentation.parameters)
    if len(augmentation.parameters) > 1:
        drawn = decoded(augmentation, rng.random((_DRAWS, len(augmentation.parameters))))
        rows, captions = np.concatenate([rows, drawn]), [*captions, *(_values(augmentation, row) for row in drawn)]
    changed = augmentation.apply(image.expand(len(rows), -1, -1, -1), torch.from_numpy(rows))
    before = _pixels(image)
    pictures = [_changed(before, _pixels(one), caption) for one, caption in zip(changed, captions, strict=True)]
    return Strip(f"{number} {augmentation.name}", [Picture(before, "original"), *pictures], note=augmentation.title)


def _views(parameters: Sequence[Parameter]) -> tuple[Float[np.ndarray, "m p"], list[str]]:
    """Rows of values with one parameter moved, and what they show; one row where there is no parameter."""
    if not parameters:
        return np.zeros((1, 0)), ["applied"]
    middle = np.array([(one.low + one.last) / 2 for one in parameters])
    rows, captions = [], []
    for place, parameter in enumerate(parameters):
        for point in _POINTS if len(parameters) == 1 else (0.0, 1.0):
            row = middle.copy()
            row[place] = parameter.low + point * (parameter.last - parameter.low)
            rows.append(row)
            captions.append(_value(parameter, row[place]))
    return np.stack(rows), captions


def _changed(before: _Pixels, after: _Pixels, caption: str) -> Picture:
    """A picture that says so if nothing changed, and shows where if little did."""
    differs = (before != after).reshape(*before.shape[:2], -1).any(axis=2)
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    if not rows.size:
        return Picture(after, f"{caption}: unchanged")
    box = (int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
    small = 2 * (box[1] - box[0]) * (box[3] - box[2]) < differs.size
    return Picture(after, caption, box=box if small else None)


def _orders(augmentations: Sequence[Augmentation], image: Float[Tensor, "c h w"], rng: np.random.Generator) -> Strip:
    """An image after all augmentations in random orders, with random values."""
    count = len(augmentations)
    values = [decoded(one, rng.random((_ORDERS, len(one.parameters)))) for one in augmentations]
    order = np.argsort(rng.random((_ORDERS, count)), axis=1)
    applied = np.ones((_ORDERS, count), dtype=bool)
    mixed = compose(augmentations, image.expand(_ORDERS, -1, -1, -1), np.concatenate(values, axis=1), applied, order)
    pictures = [Picture(_pixels(one), " ".join(map(str, row + 1))) for one, row in zip(mixed, order, strict=True)]
    return Strip("all", [Picture(_pixels(image), "original"), *pictures], note="in random orders, first to last")


def _values(augmentation: Augmentation, row: Float[np.ndarray, "p"]) -> str:
    return ", ".join(_value(*pair) for pair in zip(augmentation.parameters, row.tolist(), strict=True))


def _value(parameter: Parameter, value: float) -> str:
    number = f"{value:.0f}" if parameter.kind == "integer" else f"{value:.2g}"
    return f"{parameter.name} {number}"


def _pixels(image: Float[Tensor, "c h w"]) -> _Pixels:
    levels = (image.clamp(0, 1) * _WHITE).round().to(torch.uint8).cpu().numpy()
    return levels[0] if len(levels) == GREY else np.ascontiguousarray(levels.transpose(1, 2, 0))
