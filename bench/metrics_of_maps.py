"""How much faster are the metrics of attribution maps for a whole batch than image by image, as the original has them?

Both sides turn attributions of 3 x 224 x 224 into two answers: the sparsity, and which positions are replaced to
measure faithfulness; in patches (a loop over 14 x 14 patches, once for either answer) and in pixels. What the network
says of the replaced images is left out. On an accelerator the original's way starts with the copy to the processor
that its numpy lines need. On a processor both sides have to read the same 600 KB for each map, which bounds the ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

import _measure as measure
from neuronscope.maths.attribution_maps import (
    attribution_masses,
    channel_sums,
    descending,
    first_mask,
    patch_sparsity,
    pixel_sparsity,
)

GRID, MASS, DROP = 14, 0.9, 0.1
GOAL = 50

Answers = tuple[np.ndarray, np.ndarray]
"""Sparsity of each image (n), and whether each position is replaced (n, positions)."""


def original_masses(attribution: np.ndarray) -> np.ndarray:
    """The attribution of each patch, patch by patch."""
    sums = np.abs(attribution).sum(axis=0)
    size = sums.shape[0] // GRID
    masses = np.zeros((GRID, GRID))
    for row in range(GRID):
        for column in range(GRID):
            masses[row, column] = sums[row * size : (row + 1) * size, column * size : (column + 1) * size].sum()
    return masses


def original_sparsity(values: np.ndarray) -> float:
    """The share of values not needed for 90 %."""
    sizes = np.abs(values).ravel()
    total = sizes.sum()
    running = np.cumsum(np.sort(sizes)[::-1])
    return float(1 - (np.searchsorted(running, MASS * total) + 1) / sizes.size) if total > 0 else 0.0


def original_choice(scores: np.ndarray) -> np.ndarray:
    """The first tenth of the positions."""
    flat = scores.ravel()
    chosen = np.argsort(-flat, kind="stable")[: max(1, round(DROP * flat.size))]
    mask = np.zeros(flat.size, dtype=bool)
    mask[chosen] = True
    return mask


def original_patches(maps: Tensor) -> Answers:
    """Image by image, either answer from its own masses."""
    sparsities, masks = [], []
    for attribution in maps:
        own = attribution.cpu().numpy()
        sparsities.append(original_sparsity(original_masses(own)))
        masks.append(original_choice(original_masses(own)))
    return np.array(sparsities), np.stack(masks)


def original_pixels(maps: Tensor) -> Answers:
    """Image by image, pixel by pixel."""
    sparsities, masks = [], []
    for attribution in maps:
        own = attribution.cpu().numpy()
        sparsities.append(original_sparsity(own))
        masks.append(original_choice(np.abs(own).sum(axis=0)))
    return np.array(sparsities), np.stack(masks)


def our_patches(maps: Tensor) -> tuple[Tensor, Tensor]:
    """All images at once."""
    masses = attribution_masses(maps, grid=GRID)
    return patch_sparsity(masses), first_mask(descending(masses.flatten(-2)), [20])[:, 0]


def our_pixels(maps: Tensor) -> tuple[Tensor, Tensor]:
    """All images at once."""
    return pixel_sparsity(maps), first_mask(descending(channel_sums(maps).flatten(-2)), [5018])[:, 0]


def settled(work: Callable[[Tensor], tuple[Tensor, Tensor]], maps: Tensor) -> Callable[[], Answers]:
    """The answers where the processor can read them, so that the clock waits for an accelerator."""

    def run() -> Answers:
        sparsities, masks = work(maps)
        return sparsities.cpu().numpy(), masks.cpu().numpy()

    return run


def figures(quick: bool) -> Iterator[measure.Figure]:  # noqa: FBT001 called by the harness
    """Patches and pixels, on the processor and on an accelerator where there is one."""
    n, repeats = (8, 3) if quick else (64, 7)
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        maps = torch.randn(n, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(device)
        for name, ours, original in (
            ("patch", our_patches, original_patches),
            ("pixel", our_pixels, original_pixels),
        ):
            run = settled(ours, maps)
            (own, own_masks), (theirs, their_masks) = run(), original(maps)
            assert np.allclose(own, theirs, atol=2e-3 if name == "pixel" else 1e-9)  # theirs adds up in float32
            assert (own_masks != their_masks).mean() < 1e-4  # sums that differ by rounding change places
            taken = measure.pairs(run, lambda maps=maps, original=original: original(maps), repeats=repeats)
            yield measure.judged(
                f"{name} metrics of {n} maps on {device}, original's time over ours",
                taken,
                goal=f">= {GOAL}" if name == "patch" else "",
                met=lambda ratio: ratio >= GOAL,
            )


if __name__ == "__main__":
    measure.main(__doc__ or "", figures)
