"""How much faster are the metrics of attribution maps for a whole batch than image by image, as the original has them?

Both sides turn attributions of 3 x 224 x 224 into two answers: the sparsity, and which positions are replaced to
measure faithfulness; in patches (a loop over 14 x 14 patches, once for either answer) and in pixels. What the network
says of the replaced images is left out. On an accelerator the original's way starts with the copy to the processor
that its numpy lines need. On a processor both sides have to read the same 600 KB for each map: how long reading alone
takes bounds the ratio, and is printed beside it.

A third figure is about all that the study asks of a map: the original's loop makes the masses anew for every share of
the curves.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

import _measure as measure
from neuronscope.maths.attribution_maps import (
    attribution_masses,
    channel_sums,
    first_of,
    patch_sparsity,
    pixel_sparsity,
)

GRID, MASS, DROP = 14, 0.9, 0.1
CURVE = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
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


def original_choice(scores: np.ndarray, fraction: float = DROP) -> np.ndarray:
    """The first tenth of the positions, or another share."""
    flat = scores.ravel()
    chosen = np.argsort(-flat, kind="stable")[: max(1, round(fraction * flat.size))]
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


def original_curves(maps: Tensor) -> Answers:
    """Image by image and share by share, each from its own masses."""
    sparsities, masks = [], []
    for attribution in maps:
        own = attribution.cpu().numpy()
        sparsities.append(original_sparsity(original_masses(own)))
        masks.append(np.stack([original_choice(original_masses(own), share) for share in CURVE]))
    return np.array(sparsities), np.stack(masks)


def our_patches(maps: Tensor) -> tuple[Tensor, Tensor]:
    """All images at once."""
    masses = attribution_masses(maps, grid=GRID)
    return patch_sparsity(masses), first_of(masses.flatten(-2), [20])[:, 0]


def our_pixels(maps: Tensor) -> tuple[Tensor, Tensor]:
    """All images at once."""
    return pixel_sparsity(maps), first_of(channel_sums(maps).flatten(-2), [5018])[:, 0]


def our_curves(maps: Tensor) -> tuple[Tensor, Tensor]:
    """All images at once, the masses once."""
    masses = attribution_masses(maps, grid=GRID)
    return patch_sparsity(masses), first_of(masses.flatten(-2), [max(1, round(share * GRID**2)) for share in CURVE])


def reading(maps: Tensor) -> float:
    """Seconds of one look at every number, the largest of each map: no metric can be faster. The best of many."""
    times = []
    for _ in range(20):
        start = time.perf_counter()
        for attribution in maps:
            attribution.amax()
        times.append(time.perf_counter() - start)
    return min(times)


def settled(work: Callable[[Tensor], tuple[Tensor, Tensor]], maps: Tensor) -> Callable[[], Answers]:
    """The answers where the processor can read them, so that the clock waits for an accelerator."""

    def run() -> Answers:
        sparsities, masks = work(maps)
        return sparsities.cpu().numpy(), masks.cpu().numpy()

    return run


def figures(quick: bool) -> Iterator[measure.Figure]:  # noqa: FBT001 called by the harness
    """Patches, pixels and curves, on the processor and on an accelerator where there is one."""
    n, repeats = (8, 3) if quick else (64, 15)
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        maps = torch.randn(n, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(device)
        for name, ours, original in (
            ("patch metrics", our_patches, original_patches),
            ("pixel metrics", our_pixels, original_pixels),
            (f"patch sparsity and curves of {len(CURVE)} shares", our_curves, original_curves),
        ):
            run = settled(ours, maps)
            (own, own_masks), (theirs, their_masks) = run(), original(maps)
            assert np.allclose(own, theirs, atol=2e-3 if ours is our_pixels else 1e-9)  # theirs adds up in float32
            assert (own_masks != their_masks).mean() < 1e-4  # sums that differ by rounding change places
            taken = measure.pairs(run, lambda maps=maps, original=original: original(maps), repeats=repeats)
            figure = f"{name} of {n} maps on {device}, original's time over ours"
            goal = f">= {GOAL}" if ours is our_patches else ""
            found = measure.judged(figure, taken, goal=goal, met=lambda ratio: ratio >= GOAL)
            yield replace(found, detail=found.detail + _bound(taken, maps)) if device == "cpu" else found


def _bound(taken: measure.Paired, maps: Tensor) -> str:
    """The ratio that reading the maps alone would have."""
    seconds = reading(maps)
    speed = maps.numel() * maps.element_size() / seconds / 1e9
    return f"; reading the maps alone: {speed:.3g} GB/s, which allows {statistics.median(taken.second) / seconds:.3g}"


if __name__ == "__main__":
    measure.main(__doc__ or "", figures)
