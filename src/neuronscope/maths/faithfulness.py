"""What an image loses with the pixels that a map points at: how many to replace, by what, and how to read the curve.

A map is faithful if the network's answer falls when its first pixels go (deletion; "drop 10 %" in the original), or
comes back when they are put into an image that has nothing else (insertion; Petsiuk et al. 2018, RISE, arXiv
1806.07421). What stands in their place decides part of the answer, so there are several fills, and a finding should
hold for more than one. The predictions are made in `steps.masked_inputs`; here is only arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from neuronscope.errors import InputError, check_name
from neuronscope.maths.attribution_maps import blurred
from neuronscope.maths.controls import curve_area

DROP = 0.1
"""Share of the positions that is replaced, as in the original."""

CURVE = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
"""Shares of the positions for a curve: dense where most maps do their work."""

BLUR = 10.0
"""Standard deviation of the blurred fill in pixels of a side of 224; scaled with the shorter side."""

_BLUR_SIDE = 224

FillKind = Literal["mean", "image mean", "zero", "blur", "noise"]

FILLS: tuple[FillKind, ...] = ("mean", "image mean", "zero", "blur", "noise")

Mode = Literal["deletion", "insertion"]
"""`deletion`: the first positions of an order are replaced; `insertion`: all but those are."""

MODES: tuple[Mode, ...] = ("deletion", "insertion")


@dataclass(frozen=True)
class PixelFill:
    """What stands in place of replaced pixels, as data.

    Attributes:
        kind: `mean`: 0 in the numbers the network sees, which is the mean colour of the data where images are
            normalised, and black where they are not (the original's); `image mean`: each image's own mean colour;
            `zero`: black; `blur`: the image itself, blurred; `noise`: standard normal numbers, independent for each
            pixel and channel, which have the data's mean and spread where images are normalised.
        black: what black is for the network, one number for each channel (`black` makes it); needed by `zero` alone.
        sigma: of the blur, in pixels of the image; None scales 10 pixels at a side of 224 with the shorter side.
        seed: of the noise, which depends on it and on the image's number in its data alone.
    """

    kind: FillKind = "mean"
    black: tuple[float, ...] = ()
    sigma: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse unknown kinds, and a blur that is none.

        Raises:
            InputError: the kind is not known, black is needed and missing, or sigma is not above 0.
        """
        check_name(self.kind, FILLS, "fill")
        if self.kind == "zero" and not self.black:
            message = (
                "a fill with black needs to know what black is for the network, one number for each channel, and none "
                "came. Give black=black(preprocess.mean, preprocess.std, channels=3)"
            )
            raise InputError(message)
        if self.sigma is not None and not self.sigma > 0:
            message = f"the blur of a fill is a number of pixels above 0: got {self.sigma}"
            raise InputError(message)

    def images(self, images: Float[Tensor, "n c h w"], *, index: Int[Tensor, "n"]) -> Float[Tensor, "n c #h #w"]:
        """What replaces each image's pixels: whole images, or one colour each.

        Args:
            images: as the network sees them.
            index: number of each image in its data.

        Raises:
            InputError: black is for another number of channels.
        """
        n, channels, height, width = images.shape
        match self.kind:
            case "mean":
                return images.new_zeros((n, channels, 1, 1))
            case "image mean":
                return images.mean((2, 3), keepdim=True, dtype=torch.float64).to(images.dtype)
            case "zero":
                if len(self.black) != channels:
                    message = (
                        f"black is given for {len(self.black)} channels, and the images have {channels}. Give one "
                        "number for each channel"
                    )
                    raise InputError(message)
                return images.new_tensor(self.black).view(1, channels, 1, 1).expand(n, -1, -1, -1)
            case "blur":
                sigma = self.sigma or BLUR * min(height, width) / _BLUR_SIDE
                return blurred(images, images.new_full((n, channels), sigma, dtype=torch.float64))
            case "noise":
                drawn = np.empty(images.shape, dtype=np.float32)
                for own, image in zip(drawn, index.tolist(), strict=True):
                    np.random.Generator(np.random.PCG64([self.seed, image])).standard_normal(dtype=np.float32, out=own)
                return torch.from_numpy(drawn).to(images)


MEAN_FILL = PixelFill()
"""0 in the numbers the network sees: the original's."""


def black(mean: Sequence[float], std: Sequence[float], *, channels: int) -> tuple[float, ...]:
    """What black is for a network whose images are normalised: `(0 - mean) / std` for each channel.

    Args:
        mean: of the normalisation, empty for none.
        std: of the normalisation, empty for none.
        channels: of the images.

    Example:
        >>> black((0.5,), (0.25,), channels=1), black((), (), channels=3)
        ((-2.0,), (0.0, 0.0, 0.0))
    """
    if not mean:
        return (0.0,) * channels
    return tuple((0.0 - m) / s for m, s in zip(mean, std, strict=True))


def drop_count(fraction: float, positions: int) -> int:
    """How many positions a share of them is: rounded, but at least one; none only for the share 0.

    `max(1, round(fraction * positions))`, with Python's rounding of halves to even, as in the original.

    Raises:
        InputError: the share is not within 0 to 1, or there is no position.

    Example:
        >>> drop_count(0.1, 224 * 224), drop_count(0.1, 14 * 14), drop_count(0.001, 196), drop_count(0.0, 196)
        (5018, 20, 1, 0)
    """
    if not 0 <= fraction <= 1:
        message = f"a fraction of the positions lies within 0 to 1: got {fraction}. The original's is {DROP}"
        raise InputError(message)
    if positions < 1:
        message = f"a map needs at least one position, got {positions}"
        raise InputError(message)
    return max(1, round(fraction * positions)) if fraction > 0 else 0


def drop_counts(fractions: Sequence[float], positions: int) -> tuple[int, ...]:
    """`drop_count` for each of several shares, which must rise.

    Raises:
        InputError: no share, one outside 0 to 1, or shares that do not rise.

    Example:
        >>> drop_counts((0.05, 0.1, 1.0), 196)
        (10, 20, 196)
    """
    if not fractions or any(b <= a for a, b in pairwise(fractions)):
        message = f"fractions must be at least one and rise: got {tuple(fractions)}. An example: {CURVE}"
        raise InputError(message)
    return tuple(drop_count(fraction, positions) for fraction in fractions)


def probability_drop(before: Shaped[np.ndarray, "n"], after: Shaped[np.ndarray, "n *s"]) -> Float[np.ndarray, "n *s"]:
    """What a class's probability falls by: `before - after` (-1 to 1; positive where what was replaced spoke for it).

    Example:
        >>> probability_drop(np.array([0.75]), np.array([[0.5, 1.0]]))
        array([[ 0.25, -0.25]])
    """
    wide = before.astype(np.float64).reshape(-1, *[1] * (after.ndim - 1))
    return np.asarray(wide - after)


def deletion_area(
    fractions: Sequence[float], before: Shaped[np.ndarray, "n"], after: Shaped[np.ndarray, "n *s f"]
) -> Float[np.ndarray, "n *s"]:
    """Area under each image's deletion curve: its mean probability while pixels go (0 to 1, lower is better).

    Trapezoid rule from the untouched image (share 0) to the last share.

    Args:
        fractions: shares of the positions replaced, rising.
        before: probability for the untouched image.
        after: probability at each share.

    Raises:
        InputError: the shares do not fit the curves, or do not rise.

    Example:
        >>> deletion_area((0.5, 1.0), np.array([1.0]), np.array([[0.5, 0.0]]))
        array([0.5])
    """
    return _area(*_with_end(fractions, before, after, at=0.0))


def insertion_area(
    fractions: Sequence[float], before: Shaped[np.ndarray, "n"], after: Shaped[np.ndarray, "n *s f"]
) -> Float[np.ndarray, "n *s"]:
    """Area under each image's insertion curve: its mean probability while pixels come (0 to 1, higher is better).

    Trapezoid rule from the first share (take 0, the filled image) to the whole image (share 1), whose probability is
    the untouched one's.

    Args:
        fractions: shares of the positions restored, rising.
        before: probability for the untouched image.
        after: probability at each share.

    Raises:
        InputError: the shares do not fit the curves, or do not rise.

    Example:
        >>> insertion_area((0.0, 0.5), np.array([1.0]), np.array([[0.0, 0.5]]))
        array([0.5])
    """
    return _area(*_with_end(fractions, before, after, at=1.0))


def aopc(before: Shaped[np.ndarray, "n"], after: Shaped[np.ndarray, "n *s f"]) -> Float[np.ndarray, "n *s"]:
    """Area over the perturbation curve: the mean fall of the probability over all steps (-1 to 1, higher is better).

    `1 / (L + 1) * sum over k = 0..L of f(x_0) - f(x_k)` (Samek et al. 2017, arXiv 1509.06321, equation 12), whose term
    for `k = 0` is 0. It weighs all steps alike, so it is only comparable between maps with the same shares.

    Example:
        >>> aopc(np.array([0.9]), np.array([[0.6, 0.3]])).round(3)
        array([0.3])
    """
    wide = before.astype(np.float64).reshape(-1, *[1] * (after.ndim - 1))
    return np.asarray((wide - after).sum(-1) / (after.shape[-1] + 1))


def _with_end(
    fractions: Sequence[float], before: np.ndarray, after: np.ndarray, *, at: float
) -> tuple[np.ndarray, np.ndarray]:
    """A curve with the untouched image's probability at its end, unless that share is there already."""
    shares = np.asarray(fractions, dtype=np.float64)
    if len(shares) != after.shape[-1]:
        message = f"curves of {after.shape[-1]} steps came with {len(shares)} fractions. Give one for each step"
        raise InputError(message)
    if at in shares:
        return shares, after
    end = np.broadcast_to(before.reshape(-1, *[1] * (after.ndim - 1)), (*after.shape[:-1], 1))
    parts = (end, after) if at == 0 else (after, end)
    return np.insert(shares, 0 if at == 0 else len(shares), at), np.concatenate(parts, axis=-1)


def _area(shares: np.ndarray, heights: np.ndarray) -> np.ndarray:
    return curve_area(shares, np.moveaxis(heights, -1, 0))
