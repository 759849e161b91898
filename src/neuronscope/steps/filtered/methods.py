"""Ways to attribute by gradients: at which points they are taken, with which weights, and what is made of their sum.

- integrated gradients: Sundararajan, Taly & Yan 2017 (arXiv 1703.01365, equation 1), with Captum's quadratures;
- saliency: Simonyan, Vedaldi & Zisserman 2014 (arXiv 1312.6034), signed or absolute;
- input x gradient: Shrikumar et al. 2016 (arXiv 1605.01713);
- SmoothGrad: Smilkov et al. 2017 (arXiv 1706.03825);
- Grad-CAM: Selvaraju et al. 2017 (arXiv 1610.02391), at the layer whose channels are filtered.

A method is a value: it can be written down, compared and sent to another process.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from neuronscope.errors import InputError, nearest
from neuronscope.preprocessing import Preprocess

Rule = Literal["gausslegendre", "riemann_trapezoid", "riemann_left", "riemann_middle", "riemann_right"]
"""How an integral over the path becomes a sum; the names are Captum's."""

RULES: tuple[Rule, ...] = ("gausslegendre", "riemann_trapezoid", "riemann_left", "riemann_middle", "riemann_right")

_REACH = 3.0  # standard deviations of a Gaussian that are summed


@dataclass(frozen=True)
class Colour:
    """A baseline of one colour.

    Attributes:
        values: of a prepared image: one number for all channels or one for each; 0 is the mean colour of the data that
            the network's normalisation was made for.
    """

    values: tuple[float, ...] = (0.0,)

    def of(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The baseline of each image.

        Raises:
            InputError: not one number, nor one for each channel.
        """
        channels = images.shape[1]
        if len(self.values) not in (1, channels):
            message = f"a colour of {len(self.values)} numbers for images of {channels} channels: give 1 or {channels}"
            raise InputError(message)
        return torch.tensor(self.values).to(images).view(1, -1, 1, 1).expand_as(images)


@dataclass(frozen=True)
class Blurred:
    """The image itself, blurred beyond recognition, as a baseline: it differs where there is structure.

    Attributes:
        sigma: standard deviation of the Gaussian in pixels; borders are mirrored.
    """

    sigma: float = 10.0

    def __post_init__(self) -> None:
        """Refuse a blur that does not blur."""
        if not self.sigma > 0:
            message = f"sigma of a blur is {self.sigma}: give a number of pixels above 0"
            raise InputError(message)

    def of(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The baseline of each image."""
        blurred = images
        for axis in (2, 3):
            reach = min(math.ceil(_REACH * self.sigma), images.shape[axis] - 1)
            steps = torch.arange(-reach, reach + 1, device=images.device, dtype=torch.float64)
            weights = torch.exp(-0.5 * (steps / self.sigma) ** 2)
            kernel = (weights / weights.sum()).to(images.dtype).view(1, 1, *((-1, 1) if axis == 2 else (1, -1)))  # noqa: PLR2004 the axis of rows
            pad = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)  # noqa: PLR2004
            padded = functional.pad(blurred, pad, mode="reflect")
            blurred = functional.conv2d(padded, kernel.expand(images.shape[1], 1, -1, -1), groups=images.shape[1])
        return blurred


Baseline = Colour | Blurred


def black(preprocess: Preprocess) -> Colour:
    """Black before normalisation, as a baseline.

    Example:
        >>> black(Preprocess(mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 0.5))).values
        (-2.0, -1.0, -1.0)
    """
    if not preprocess.mean:
        return Colour()
    return Colour(tuple(-mean / std for mean, std in zip(preprocess.mean, preprocess.std, strict=True)))


@lru_cache(maxsize=8)
def quadrature(rule: Rule, steps: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Points on the path (0 to 1) and their weights, as Captum has them.

    Captum's trapezoid rule divides by the number of points, not of intervals, so that its weights sum up to
    1 - 1 / steps; this is kept.

    Raises:
        InputError: an unknown rule, or too few steps.
    """
    if rule not in RULES:
        message = f"rule '{rule}' is not one of {', '.join(RULES)}.{nearest(rule, RULES)}"
        raise InputError(message)
    least = 1 if rule == "gausslegendre" else 2
    if steps < least:
        message = f"{steps} steps are too few for {rule}: give at least {least}"
        raise InputError(message)
    weights = np.full(steps, 1 / steps)
    match rule:
        case "gausslegendre":
            nodes, areas = np.polynomial.legendre.leggauss(steps)
            points, weights = 0.5 * (1 + nodes), 0.5 * areas
        case "riemann_trapezoid":
            points = np.linspace(0, 1, steps)
            weights[[0, -1]] /= 2
        case "riemann_left":
            points = np.linspace(0, 1 - 1 / steps, steps)
        case "riemann_middle":
            points = np.linspace(1 / (2 * steps), 1 - 1 / (2 * steps), steps)
        case "riemann_right":
            points = np.linspace(1 / steps, 1, steps)
    return tuple(points.tolist()), tuple(weights.tolist())


@runtime_checkable
class Method(Protocol):
    """Gradients at some points near or on the way to each image, weighted and summed."""

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight of each point's gradient."""
        ...

    def points(
        self, images: Float[Tensor, "n c h w"], rows: Sequence[int], which: Sequence[tuple[int, int]]
    ) -> Float[Tensor, "p c h w"]:
        """Inputs at which the gradient is taken.

        Args:
            images: prepared images.
            rows: their row numbers in the data.
            which: for each input the image's place in `images` and the number of the point.
        """
        ...

    def finish(
        self, gradient: Float[Tensor, "n m c h w"], images: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n m c h w"]:
        """The attribution from the weighted sum of gradients (float64), for each image and mask."""
        ...


@dataclass(frozen=True)
class IntegratedGradients:
    """The gradient's mean along the straight path from a baseline, times the way from there to the image.

    Attributes:
        steps: points on the path.
        rule: how they are chosen and weighted.
        baseline: where the path starts.
    """

    steps: int = 50
    rule: Rule = "gausslegendre"
    baseline: Baseline = field(default_factory=Colour)

    def __post_init__(self) -> None:
        """Refuse an unknown rule and too few steps."""
        quadrature(self.rule, self.steps)

    @property
    def weights(self) -> tuple[float, ...]:
        """Of the quadrature."""
        return quadrature(self.rule, self.steps)[1]

    def points(
        self,
        images: Float[Tensor, "n c h w"],
        rows: Sequence[int],  # noqa: ARG002 of the protocol
        which: Sequence[tuple[int, int]],
    ) -> Float[Tensor, "p c h w"]:
        """On the path."""
        places = [place for place, _ in which]
        alphas = quadrature(self.rule, self.steps)[0]
        share = torch.tensor([alphas[number] for _, number in which]).to(images).view(-1, 1, 1, 1)
        start = self.baseline.of(images)[places]
        # In this order, not by `lerp`: Captum's numbers to the last bit.
        return start + share * (images[places] - start)

    def finish(
        self, gradient: Float[Tensor, "n m c h w"], images: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n m c h w"]:
        """Times the way from the baseline to the image."""
        return gradient * (images - self.baseline.of(images))[:, None]


@dataclass(frozen=True)
class Saliency:
    """The gradient at the image.

    Attributes:
        sign: `absolute` values (Captum's default), which no longer add up over clusters, or `signed` ones, which do.
    """

    sign: Literal["absolute", "signed"] = "absolute"

    @property
    def weights(self) -> tuple[float, ...]:
        """One point."""
        return (1.0,)

    def points(
        self,
        images: Float[Tensor, "n c h w"],
        rows: Sequence[int],  # noqa: ARG002 of the protocol
        which: Sequence[tuple[int, int]],
    ) -> Float[Tensor, "p c h w"]:
        """The images themselves."""
        return images[[place for place, _ in which]]

    def finish(
        self,
        gradient: Float[Tensor, "n m c h w"],
        images: Float[Tensor, "n c h w"],  # noqa: ARG002 of the protocol
    ) -> Float[Tensor, "n m c h w"]:
        """The gradient, or its absolute value."""
        return gradient.abs() if self.sign == "absolute" else gradient


@dataclass(frozen=True)
class InputXGradient:
    """The gradient at the image times the image."""

    @property
    def weights(self) -> tuple[float, ...]:
        """One point."""
        return (1.0,)

    def points(
        self,
        images: Float[Tensor, "n c h w"],
        rows: Sequence[int],  # noqa: ARG002 of the protocol
        which: Sequence[tuple[int, int]],
    ) -> Float[Tensor, "p c h w"]:
        """The images themselves."""
        return images[[place for place, _ in which]]

    def finish(
        self, gradient: Float[Tensor, "n m c h w"], images: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n m c h w"]:
        """Times the image."""
        return gradient * images[:, None]


@dataclass(frozen=True)
class SmoothGrad:
    """The mean of the signed gradients at noisy copies of the image.

    The noise of an image depends on the seed and on its row number alone: it is the same in any batch.

    Attributes:
        samples: noisy copies.
        noise: standard deviation as a share of the image's own range, largest minus smallest value.
        seed: where the noise starts.
    """

    samples: int = 25
    noise: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse no samples and negative noise."""
        if self.samples < 1 or not self.noise >= 0:
            message = f"{self.samples} samples with noise {self.noise}: give at least 1 sample and noise of 0 or more"
            raise InputError(message)

    @property
    def weights(self) -> tuple[float, ...]:
        """All the same."""
        return (1 / self.samples,) * self.samples

    def points(
        self, images: Float[Tensor, "n c h w"], rows: Sequence[int], which: Sequence[tuple[int, int]]
    ) -> Float[Tensor, "p c h w"]:
        """Noisy copies."""
        ranges = images.amax((1, 2, 3)) - images.amin((1, 2, 3))
        noisy = []
        for place, number in which:
            name = hashlib.sha256(repr((self.seed, int(rows[place]), number)).encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(name[:8], "little", signed=True))
            # Drawn on the processor in one format, so that the device does not change it.
            drawn = torch.randn(images.shape[1:], generator=generator, dtype=torch.float32).to(images)
            noisy.append(images[place] + self.noise * ranges[place] * drawn)
        return torch.stack(noisy)

    def finish(
        self,
        gradient: Float[Tensor, "n m c h w"],
        images: Float[Tensor, "n c h w"],  # noqa: ARG002 of the protocol
    ) -> Float[Tensor, "n m c h w"]:
        """The mean as it is."""
        return gradient


@dataclass(frozen=True)
class GradCam:
    """Channels of the layer, each weighted by its mean gradient, summed, negative parts cut off; one map for an image.

    A channel outside a mask gets no weight. The map is enlarged to the size of the image, bilinearly. Nothing of the
    network below the layer is differentiated.
    """

    @property
    def weights(self) -> tuple[float, ...]:
        """One point."""
        return (1.0,)

    def points(
        self,
        images: Float[Tensor, "n c h w"],
        rows: Sequence[int],  # noqa: ARG002 of the protocol
        which: Sequence[tuple[int, int]],
    ) -> Float[Tensor, "p c h w"]:
        """The images themselves."""
        return images[[place for place, _ in which]]

    def finish(
        self, gradient: Float[Tensor, "n m 1 y x"], images: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n m 1 h w"]:
        """The positive part of weighted sums of channels, at the size of the image."""
        positive = gradient[:, :, 0].relu()
        return functional.interpolate(positive, size=images.shape[2:], mode="bilinear", align_corners=False)[:, :, None]
