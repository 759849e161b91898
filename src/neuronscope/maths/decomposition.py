"""How an attribution splits among clusters of units: sizes, shares, sparsities, what is missing, how alike parts are.

At a cut of the network a signed attribution is the sum of what each cluster of a partition lets through, so the parts
add up to the whole. `error` says how exactly. Absolute attributions (saliency by default) do not add up; for them the
error is no mistake, and shares are only sizes side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from neuronscope.errors import InputError
from neuronscope.maths.attribution_maps import MASS, Sums, sparsity
from neuronscope.maths.resampling import mean_interval

_CONSTANT = 1e-12
"""A part whose deviations are below this share of its size is constant: only rounding is left."""


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Each image's attribution, part by part; float64.

    Attributes:
        magnitudes: L2 norm of each part, in units of the attribution.
        shares: of the magnitudes' sum (0 to 1; the original gives per cent); nan where all parts are 0.
        sparsity: share of a part's values that is not needed to gather 90 % of it (0 to 1).
        error: mean absolute difference between the whole and the sum of its parts.
        likeness: mean absolute Pearson correlation over all pairs of parts (0 to 1, lower is more independent; the
            original's `cluster_independence`); nan for a single part. Pairs with a constant part are left out.
    """

    magnitudes: Float[Tensor, "n k"]
    shares: Float[Tensor, "n k"]
    sparsity: Float[Tensor, "n k"]
    error: Float[Tensor, "n"]
    likeness: Float[Tensor, "n"]


@dataclass(frozen=True, eq=False)
class Summary:
    """A measure over images.

    Attributes:
        mean: over the images that have it.
        spread: population standard deviation, as in the original.
        low, high: Student's t interval of the mean.
        images: that have it.
    """

    mean: Float[np.ndarray, "*s"]
    spread: Float[np.ndarray, "*s"]
    low: Float[np.ndarray, "*s"]
    high: Float[np.ndarray, "*s"]
    images: Int[np.ndarray, "*s"]


def decompose(
    parts: Float[Tensor, "n k *a"], whole: Float[Tensor, "m *a"], *, mass: float = MASS, sums: Sums = "float64"
) -> Decomposition:
    """Measure the parts of each image's attribution.

    Args:
        parts: attribution with only one cluster open, for each image and cluster of a partition.
        whole: attribution with all open.
        mass: share to gather, for the sparsity.
        sums: number format of the sparsity's running sums.

    Raises:
        InputError: no part, or parts and wholes of different images.

    Example:
        >>> parts = torch.tensor([[[3.0, 0.0, 0.0, 0.0], [0.0, 4.0, 0.0, 0.0]]])
        >>> found = decompose(parts, parts.sum(1))
        >>> found.magnitudes, found.error
        (tensor([[3., 4.]], dtype=torch.float64), tensor([0.], dtype=torch.float64))
    """
    n, k = parts.shape[:2]
    if k == 0 or n != len(whole):
        message = (
            f"{k} parts of {n} images came with the attributions of {len(whole)}: expected one part at least, and the "
            "whole attribution of the same images"
        )
        raise InputError(message)
    flat = parts.reshape(n, k, -1)
    magnitudes, error, likeness = [], [], []
    for own, total in zip(flat, whole.reshape(n, -1), strict=True):  # one image at a time in float64 bounds the memory
        exact = own.double()
        magnitudes.append(torch.linalg.vector_norm(exact, dim=1))
        error.append((total.double() - exact.sum(0)).abs().mean())
        likeness.append(_likeness(exact))
    sizes = parts.new_empty((0, k), dtype=torch.float64) if n == 0 else torch.stack(magnitudes)
    nothing = parts.new_empty(0, dtype=torch.float64)
    return Decomposition(
        magnitudes=sizes,
        shares=sizes / sizes.sum(1, keepdim=True),  # 0 divided by 0 is nan, as it should be
        sparsity=sparsity(flat, mass=mass, sums=sums),
        error=torch.stack(error) if n else nothing,
        likeness=torch.stack(likeness) if n else nothing,
    )


def summary(values: Shaped[np.ndarray, "n *s"], *, level: float = 0.95) -> Summary:
    """Mean, spread and interval of a measure over images; nan is left out and not counted.

    Raises:
        InputError: the level is not between 0 and 1.

    Example:
        >>> found = summary(np.array([1.0, 3.0, np.nan]))
        >>> found.mean, found.spread, found.images
        (array(2.), array(1.), array(2))
    """
    exact = values.astype(np.float64)
    there = ~np.isnan(exact)
    images = np.asarray(there.sum(axis=0))
    some = np.where(images > 0, images, np.nan)
    mean = np.asarray(np.where(there, exact, 0.0).sum(axis=0) / some)
    variance = np.asarray((np.where(there, exact - mean, 0.0) ** 2).sum(axis=0) / some)
    low, high = mean_interval(mean, variance, images, level=level)
    return Summary(mean, np.asarray(np.sqrt(variance)), low, high, images)


def _likeness(parts: Float[Tensor, "k v"]) -> Float[Tensor, ""]:
    """Mean absolute correlation over pairs of parts that vary."""
    apart = parts - parts.mean(1, keepdim=True)
    size = torch.linalg.vector_norm(apart, dim=1)
    varies = size > _CONSTANT * torch.linalg.vector_norm(parts, dim=1)
    unit = torch.where(varies, 1 / size, torch.nan)[:, None] * apart
    first, second = torch.triu_indices(len(parts), len(parts), offset=1, device=parts.device)
    return (unit @ unit.T)[first, second].abs().nanmean()
