"""How much faster are augmentations for a whole batch than image by image with torchvision, which the original calls?

40 images of 3 x 224 x 224 meet all augmentations of a set, each image in its own order and with its own values. The
other side takes one image after the other through `torchvision.transforms.functional`, all in floats; the ellipse,
which torchvision does not have, is its Gaussian blur and a mask. On an accelerator both sides keep the images there.
There calls are what costs. On a processor, set1 has nothing that a batch could save, and is reported without a goal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

import _measure as measure
from neuronscope.augment import SETS, augmentations, compose, decoded, permutation

SIDE, GOAL = 224, 2
KNOWN = augmentations(SIDE, SIDE)


def erased(image: Tensor, row: float, column: float, scale: float, log_ratio: float) -> Tensor:
    """A black rectangle where it fits."""
    tall = round(math.sqrt(SIDE**2 * scale * math.exp(log_ratio)))
    wide = round(math.sqrt(SIDE**2 * scale / math.exp(log_ratio)))
    top, left = max(0, round(row) - tall // 2), max(0, round(column) - wide // 2)
    fits = top + tall < SIDE and left + wide < SIDE
    return tv.erase(image, top, left, tall, wide, torch.zeros((), device=image.device)) if fits else image


def rotated(image: Tensor, angle: float) -> Tensor:
    """Rotation, crop and enlargement as one resampling."""
    slope = abs(math.tan(math.radians(angle)))
    zoom = SIDE / (SIDE - 2 * round(SIDE * slope / (1 + slope)))
    return tv.affine(image, -angle, [0, 0], zoom, [0.0, 0.0], InterpolationMode.BILINEAR)


def locally_blurred(image: Tensor, *values: float) -> Tensor:
    """Blurred everywhere, used within the ellipse."""
    a, b, shift_x, shift_y, angle = values
    y = torch.arange(SIDE, device=image.device)[:, None] - round(SIDE // 2 + shift_y)
    x = torch.arange(SIDE, device=image.device) - round(SIDE // 2 + shift_x)
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    inside = ((x * cos - y * sin) / a) ** 2 + ((x * sin + y * cos) / b) ** 2 <= 1 + 1e-6
    return torch.where(inside, tv.gaussian_blur(image, [25, 25], [3.0, 3.0]), image)


THEIRS: dict[str, Callable[..., Tensor]] = {
    "erasing": erased,
    "sharpness_const": lambda image: tv.adjust_sharpness(image, 1.5),
    "rolling": lambda image, down, right: torch.roll(image, (round(down), round(right)), (1, 2)),
    "grayscaling": lambda image: tv.rgb_to_grayscale(image, 3),
    "gaussian_blur": lambda image, sigma: tv.gaussian_blur(image, [7, 7], [sigma, sigma]),
    "brightness": tv.adjust_brightness,
    "contrast": tv.adjust_contrast,
    "saturation": tv.adjust_saturation,
    "hue": tv.adjust_hue,
    "hflip": tv.hflip,
    "rotation": rotated,
    "elliptic_local_blur": locally_blurred,
}


def image_by_image(names: tuple[str, ...], images: Tensor, values: np.ndarray, order: np.ndarray) -> Tensor:
    """One after the other."""
    ends = np.cumsum([0, *(len(KNOWN[name].parameters) for name in names)])
    done = []
    for image, row, numbers in zip(images, values.tolist(), order, strict=True):
        changed = image
        for number in numbers:
            changed = THEIRS[names[number]](changed, *row[ends[number] : ends[number + 1]])
        done.append(changed)
    return torch.stack(done)


def figures(quick: bool) -> Iterator[measure.Figure]:  # noqa: FBT001 called by the harness
    """Both sets, on one thread of the processor and on an accelerator where there is one."""
    torch.set_num_threads(1)
    n, repeats = (8, 3) if quick else (40, 9)
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        images = torch.rand(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).to(device)
        for name, names in SETS.items():
            rng, chosen = np.random.default_rng(0), [KNOWN[one] for one in names]
            values = np.concatenate([decoded(one, rng.random((n, len(one.parameters)))) for one in chosen], axis=1)
            order = permutation(rng.integers(math.factorial(len(names)), size=n), len(names))
            applied = np.ones((n, len(names)), dtype=bool)
            ours = partial(compose, chosen, images, values, applied, order)
            theirs = partial(image_by_image, names, images, values, order)
            # steep contrasts in a row blow rounding up, on few pixels
            assert float(((ours() - theirs()).abs() > 1e-3).double().mean()) < 1e-4
            waiting = torch.cuda.synchronize if device == "cuda" else None
            taken = measure.pairs(settled(ours, waiting), settled(theirs, waiting), repeats=repeats)
            own = sorted(taken.first)[len(taken.first) // 2] / n
            yield measure.judged(
                f"{name} of {n} images on {device} ({1000 * own:.2f} ms an image), image by image over batched",
                taken,
                goal=f">= {GOAL}" if name == "set2" or device == "cuda" else "",
                met=lambda ratio: ratio >= GOAL,
            )


def settled(work: Callable[[], Tensor], waiting: Callable[[], None] | None) -> Callable[[], None]:
    """Work that has ended when the clock stops."""

    def run() -> None:
        work()
        if waiting is not None:
            waiting()

    return run


if __name__ == "__main__":
    measure.main(__doc__ or "", figures)
