"""What a network says of images whose first pixels or patches are replaced: all maps of an image in one go.

Faithfulness asks for one prediction for each image, map (configuration, method, control) and share of replaced
positions. Here they are all made at once, in batches that fit a budget of memory; the untouched image is predicted
once, and replacing the same patches is predicted once, however many maps ask for it (blocking a small cluster rarely
changes which twenty patches come first). Masks are made batch by batch, so that nothing grows with the number of maps.

`drops` is called by steps that have just made the maps, in the same pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from neuronscope.errors import InputError, check_name
from neuronscope.maths.attribution_maps import Cut, first_mask, first_of, patch_numbers
from neuronscope.maths.faithfulness import DROP, MEAN_FILL, MODES, Mode, PixelFill, drop_counts
from neuronscope.replay import MEMORY

HELD = 48
"""Bytes that a network holds at once for each byte of its input, without gradients: what VGG's first layers need."""

_COMPARED = 4096
"""Positions up to which equal masks are looked for: patches often come in the same order, pixels do not."""

_ORDERS = 3
"""Axes of orders: images, maps, positions; scores have one more."""

MEASURED = ("prediction", "label")


@dataclass(frozen=True, eq=False)
class Drops:
    """Probabilities of one class of each image, before and after positions are replaced.

    Attributes:
        classes: the class measured, the same for all maps of an image.
        before: its probability for the untouched image.
        after: its probability for each map and share; nan for maps with a value that is not a number.
        counts: positions that each share is.
        predictions: images that were predicted with replaced pixels; fewer than images x maps x shares where masks
            are equal.
    """

    classes: Int[Tensor, "n"]
    before: Float[Tensor, "n"]
    after: Float[Tensor, "n m f"]
    counts: tuple[int, ...]
    predictions: int

    @property
    def drop(self) -> Float[Tensor, "n m f"]:
        """What the probability falls by (-1 to 1), the original's faithfulness."""
        return self.before[:, None, None] - self.after


def measured_classes(
    logits: Float[Tensor, "n k"], label: Int[Tensor, "n"], *, of: str | int = "prediction"
) -> Int[Tensor, "n"]:
    """The class whose probability is measured, for each image; the same for all maps, or they could not be compared.

    Args:
        logits: of the untouched images.
        label: class of each image, -1 for none.
        of: `prediction`: what the network says of the untouched image; `label`: the image's class (the prediction where
            it has none); a number: that class for all images.

    Raises:
        InputError: another word (`UnknownName`), or a class that the network does not have.

    Example:
        >>> logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 1.0]])
        >>> measured_classes(logits, torch.tensor([2, -1]), of="label"), measured_classes(
        ...     logits, torch.tensor([2, -1]), of=1
        ... )
        (tensor([2, 0]), tensor([1, 1]))
    """
    outputs = logits.shape[1]
    if isinstance(of, int):
        if not 0 <= of < outputs:
            message = f"class {of} is not among the network's {outputs}: expected 0 to {outputs - 1}"
            raise InputError(message)
        return torch.full_like(logits[:, 0], of, dtype=torch.int64)
    check_name(of, MEASURED, "class measured")
    predicted = logits.argmax(1)
    if of == "prediction":
        return predicted
    return torch.where((label >= 0) & (label < outputs), label.long(), predicted)


def drops(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    maps: Int[Tensor, "i m p"] | Float[Tensor, "i m a b"],
    *,
    classes: Int[Tensor, "n"] | None = None,
    fractions: Sequence[float] = (DROP,),
    mode: Mode = "deletion",
    fill: PixelFill = MEAN_FILL,
    index: Int[Tensor, "n"] | None = None,
    logits: Float[Tensor, "n k"] | None = None,
    cut: Cut = "even",
    memory: int = MEMORY,
) -> Drops:
    """Predict every image with the first positions of each of its maps replaced.

    Positions are pixels where a map has as many as the image, else the patches of a square grid. Softmax in float64.

    Args:
        model: the network, in evaluation mode, without edits.
        images: as the network sees them.
        maps: for each image and map either an order of the positions, the most important first, or scores as a map,
            (h, w) or (grid, grid), whose ties are broken by position. For the least important first, turn it round:
            `order.flip(-1)`, or `-scores`.
        classes: whose probability is measured; None for what the network says of the untouched image.
        fractions: shares of the positions, rising (see `drop_count`).
        mode: `deletion` replaces the first positions; `insertion` replaces all others.
        fill: what stands in their place.
        index: number of each image in its data, which decides the noise of a fill; None counts from 0.
        logits: of the untouched images, where they are there already.
        cut: how an image is cut whose side the grid does not divide. Pixels in no patch are never replaced.
        memory: bytes that predictions may hold at once, by estimate; one image at a time at least.

    Raises:
        InputError: maps that are neither as large as the image nor a square grid that fits it, for other images, or of
            no map; a class the network does not have; fractions or a mode that cannot be.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> _ = nn.init.zeros_(model[1].weight)
        >>> image, order = torch.rand(1, 1, 2, 2), torch.tensor([[[3, 1, 0, 2]]])
        >>> drops(model, image, order, fractions=(0.25, 0.5)).drop
        tensor([[[0., 0.]]], dtype=torch.float64)
    """
    check_name(mode, MODES, "mode")
    areas = _areas(images, maps, cut)
    rows = maps.flatten(2).flatten(0, 1)
    n, m, counts = len(images), maps.shape[1], drop_counts(fractions, rows.shape[1])
    numbers = torch.arange(n, device=images.device) if index is None else index.to(images.device)
    with torch.inference_mode():
        untouched = model(images) if logits is None else logits
        measured = _classes(untouched, classes)
        before = _probability(untouched, measured)
        stand_in = fill.images(images, index=numbers)
        plan = _plan(rows, counts, each=m)
        found = before.new_empty(len(plan.asked))
        at_once = max(1, memory // (HELD * images[0].numel() * images.element_size()))
        for batch in range(0, len(plan.asked), at_once):
            asked = plan.asked[batch : batch + at_once]
            own = asked // (m * len(counts))
            first = _masks(rows, asked, counts)
            replaced = _on_pixels(first, areas, mode)
            changed = torch.where(replaced[:, None], stand_in[own], images[own])
            found[batch : batch + at_once] = _probability(model(changed), measured[own])
    after = torch.full((n * m * len(counts),), torch.nan, dtype=torch.float64, device=images.device)
    after[plan.jobs] = found[plan.answer]
    # what is made in inference mode must not reach callers, who may use it in gradients
    return Drops(measured.clone(), before.clone(), after.view(n, m, -1), counts, len(plan.asked))


@dataclass(frozen=True, eq=False)
class _Plan:
    """Which masks are predicted, and what for. A job is a map and a share, numbered map by map.

    Attributes:
        jobs: all that have an answer: maps with nan have no order.
        asked: those that are predicted, image by image.
        answer: for each job the place in `asked` of the one with the same mask.
    """

    jobs: Int[Tensor, "j"]
    asked: Int[Tensor, "a"]
    answer: Int[Tensor, "j"]


def _plan(rows: Int[Tensor, "r p"] | Float[Tensor, "r p"], counts: tuple[int, ...], *, each: int) -> _Plan:
    """Find the masks that differ; `each` maps belong to one image."""
    known = torch.arange(len(rows), device=rows.device)
    if rows.is_floating_point():
        known = known[~rows.isnan().any(1)]
    jobs = (known[:, None] * len(counts) + torch.arange(len(counts), device=rows.device)).flatten()
    if rows.shape[1] > _COMPARED or len(jobs) == 0:
        return _Plan(jobs, jobs, torch.arange(len(jobs), device=rows.device))
    masks = np.packbits(_masks(rows, jobs, counts).cpu().numpy(), axis=1)
    image = (jobs // (each * len(counts))).cpu().numpy().astype(">u8")  # so that bytes sort as numbers
    keys = np.concatenate([image.view(np.uint8).reshape(-1, 8), masks], axis=1)
    _, chosen, answer = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    places_of = torch.from_numpy(answer.reshape(-1)).to(rows.device)
    return _Plan(jobs, jobs[torch.from_numpy(chosen).to(rows.device)], places_of)


def _masks(
    rows: Int[Tensor, "r p"] | Float[Tensor, "r p"], jobs: Int[Tensor, "j"], counts: tuple[int, ...]
) -> Bool[Tensor, "j p"]:
    """The first positions of each job's map; a map is gone through once for all its shares here."""
    own, back = torch.unique(jobs // len(counts), return_inverse=True)
    chosen = rows[own]
    first = first_of(chosen, counts) if chosen.is_floating_point() else first_mask(chosen, counts)
    return first[back, jobs % len(counts)]


def _on_pixels(first: Bool[Tensor, "b p"], areas: Int[Tensor, "h w"], mode: Mode) -> Bool[Tensor, "b h w"]:
    """Which pixels are replaced."""
    replaced = first if mode == "deletion" else ~first
    # one more column, never replaced, for pixels in no patch, whose number is -1
    return torch.cat([replaced, torch.zeros_like(replaced[:, :1])], 1)[:, areas]


def _areas(images: Tensor, maps: Tensor, cut: Cut) -> Int[Tensor, "h w"]:
    """Which position each pixel belongs to.

    Raises:
        InputError: maps for other images, no map, or maps of a size that fits neither the pixels nor a square grid.
    """
    n, _, height, width = images.shape
    if len(maps) != n or n == 0 or maps.shape[1] == 0:
        message = (
            f"maps for {len(maps)} images, {maps.shape[1]} each, came with {n} images: expected at least one map for "
            "each image of the batch"
        )
        raise InputError(message)
    positions = maps.flatten(2).shape[2]
    if positions == height * width:
        return torch.arange(positions, device=images.device).view(height, width)
    grid = isqrt(positions)
    if grid**2 != positions or grid > min(height, width) or (maps.ndim > _ORDERS and maps.shape[-1] != grid):
        size = " x ".join(map(str, maps.shape[2:]))
        message = (
            f"maps of {size} positions fit neither the {height} x {width} pixels of the images nor a square grid of "
            "patches. Give scores of the images' size, patch masses (grid x grid), or an order of either"
        )
        raise InputError(message)
    return patch_numbers(height, width, grid=grid, cut=cut).to(images.device)


def _classes(logits: Tensor, classes: Tensor | None) -> Int[Tensor, "n"]:
    """The class measured of each image; the prediction where none is given.

    Raises:
        InputError: a class that the network does not have.
    """
    if classes is None:
        return logits.argmax(1)
    wanted = classes.to(logits.device).long()
    outside = wanted[(wanted < 0) | (wanted >= logits.shape[1])]
    if len(outside):
        message = (
            f"class {int(outside[0])} is not among the network's {logits.shape[1]}: expected 0 to "
            f"{logits.shape[1] - 1}. For images without a label take `measured_classes`"
        )
        raise InputError(message)
    return wanted


def _probability(logits: Tensor, classes: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    return logits.double().softmax(1).gather(1, classes[:, None])[:, 0]
