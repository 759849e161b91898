"""What is in an attribution map: how concentrated it is, which pixels or patches come first, and two rivals for it.

A map has one number for each channel and pixel of an image. Here are its channel sums, the masses of its patches, two
sparsities, Gini coefficient and entropy, the order of its pixels or patches, and the maps that a finding must beat: a
random order, and the unfiltered map blurred until it is as smooth as the filtered one (a filter that only smooths would
otherwise look like an explanation that is better).

All functions take any number of leading axes (images, configurations, methods) and work on the device of their input.
Nothing is changed in place. Sums are float64 unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from neuronscope.errors import InputError, check_name

GRID = 14
"""Patches along each side of an image."""

MASS = 0.9
"""Share of the attribution that has to be gathered (sparsity)."""

Cut = Literal["even", "whole patches"]
"""How an image is cut whose side the grid does not divide.

`even`: patch `i` runs from `i * side // grid` to `(i + 1) * side // grid`, so that every pixel is in a patch and their
sides differ by one pixel at most. `whole patches`: each side is `side // grid` pixels, as in the original, and what is
left over at the right and at the bottom is in no patch. Both are the same where the grid divides the side.
"""

CUTS: tuple[Cut, ...] = ("even", "whole patches")

Sums = Literal["float64", "float32-sums"]
"""Number format of the running sums of `sparsity`; `float32-sums` is the original's."""

SUMS: tuple[Sums, ...] = ("float64", "float32-sums")

_HALVINGS = 60
"""Steps of the bisection for a blur: leaves 2**-60 of the range of its logarithm."""

_NARROWEST = 1e-3
"""Least standard deviation of a blur that is looked for, in pixels: it changes no pixel by more than 1e-6."""

_MANY = 2**32 - 1
"""Positions that fit half of a 64-bit number."""

_CACHED = 2**17
"""Numbers worked on at a time: half a megabyte to one."""

_MANY_POSITIONS = 4096
"""Positions from which on parting them is faster than sorting, each map by itself."""

_FEW_VALUES = 8192
"""Values that are sorted at once where a wanted mass is looked for among many."""

_STRIDE = 256
"""Sorted values added up at a time before the stride is looked into where the wanted mass is reached."""

_FLAT = 1e-12
"""A map whose deviations are below this share of its size is flat: only rounding is left."""


@dataclass(frozen=True, eq=False)
class Smoothed:
    """Maps blurred to a given smoothness.

    Attributes:
        maps: the blurred maps; nan where a map or the target has no smoothness.
        sigma: standard deviation of the blur in pixels; 0 where the target is rougher than the map as it is.
        smoothness: of the blurred maps, as in `neighbour_likeness`.
        target: the smoothness asked for.
        matched: whether it was reached; False where the target is rougher than the map as it is, where no blur makes
            it so smooth, and where there is none.
    """

    maps: Float[Tensor, "*s h w"]
    sigma: Float[Tensor, "*s"]
    smoothness: Float[Tensor, "*s"]
    target: Float[Tensor, "*s"]
    matched: Bool[Tensor, "*s"]


def channel_sums(attribution: Float[Tensor, "*s c h w"]) -> Float[Tensor, "*s h w"]:
    """Attribution of each pixel: the sum of the absolute values over the channels of the image.

    In the number format of the input, as in the original.

    Example:
        >>> channel_sums(torch.tensor([[[1.0]], [[-2.0]], [[0.5]]]))
        tensor([[3.5000]])
    """
    maps = _on_processor(attribution)
    if maps is None:
        return attribution.abs().sum(-3)
    sums = np.empty((len(maps), *maps.shape[2:]), dtype=maps.dtype)
    size = np.empty(maps.shape[2:], dtype=maps.dtype)
    for own, channels in zip(sums, maps, strict=True):  # one after another keeps the work inside the cache
        np.abs(channels[0], out=own)
        for channel in channels[1:]:
            np.add(own, np.abs(channel, out=size), out=own)
    return torch.from_numpy(sums).reshape(attribution.shape[:-3] + attribution.shape[-2:])


def attribution_masses(
    attribution: Float[Tensor, "*s c h w"], *, grid: int = GRID, cut: Cut = "even"
) -> Float[Tensor, "*s {grid} {grid}"]:
    """Attribution of each patch straight from the attribution: `patch_masses` of `channel_sums`, up to rounding.

    Where the sums of single pixels are not wanted it is up to twice as fast: the processor reads each map once and
    works in its cache. Rows and channels of a patch are added up in the number format of the map (48 values in a colour
    image of 224 x 224 with the grid of 14), columns in float64.

    Raises:
        InputError: as for `patch_masses`.

    Example:
        >>> attribution_masses(torch.tensor([[[1.0, 2.0]], [[-3.0, 0.0]]]), grid=1)
        tensor([[6.]], dtype=torch.float64)
    """
    *outer, channels, height, width = attribution.shape
    _edges(height, grid, cut)
    maps = _on_processor(attribution)
    if maps is None or height % grid or width % grid:
        return patch_masses(channel_sums(attribution), grid=grid, cut=cut)
    strips = np.empty((len(maps), grid, width), dtype=maps.dtype)
    sizes = np.empty((grid, channels, height // grid, width), dtype=maps.dtype)
    for own, strip in zip(maps, strips, strict=True):
        np.abs(own.reshape(channels, grid, height // grid, width).swapaxes(0, 1), out=sizes)
        np.add.reduce(sizes.reshape(grid, -1, width), axis=1, out=strip)
    masses = np.einsum("pw->p", strips.reshape(-1, width // grid), dtype=np.float64)
    return torch.from_numpy(masses).reshape(*outer, grid, grid)


def patch_masses(
    sums: Float[Tensor, "*s h w"], *, grid: int = GRID, cut: Cut = "even"
) -> Float[Tensor, "*s {grid} {grid}"]:
    """Attribution of each patch of a grid: the sum over its pixels, in float64.

    Args:
        sums: attribution of each pixel, as from `channel_sums`.
        grid: patches along each side.
        cut: how a side is cut that the grid does not divide.

    Raises:
        InputError: the grid is finer than the pixels, or the cut is not known (`UnknownName`).

    Example:
        >>> patch_masses(torch.ones(1, 4, 6), grid=2)
        tensor([[[6., 6.],
                 [6., 6.]]], dtype=torch.float64)
    """
    *outer, height, width = sums.shape
    rows, columns = _edges(height, grid, cut), _edges(width, grid, cut)
    if height % grid == 0 and width % grid == 0:
        strips = sums.reshape(*outer, grid, height // grid, width).sum(-2, dtype=torch.float64)
        return strips.reshape(*outer, grid, grid, width // grid).sum(-1)
    strips = torch.stack([sums[..., a:b, :].sum(-2, dtype=torch.float64) for a, b in rows], -2)
    return torch.stack([strips[..., a:b].sum(-1) for a, b in columns], -1)


def patch_numbers(height: int, width: int, *, grid: int = GRID, cut: Cut = "even") -> Int[Tensor, "{height} {width}"]:
    """Which patch each pixel is in, numbered row by row from 0; -1 for pixels in none.

    Raises:
        InputError: the grid is finer than the pixels, or the cut is not known (`UnknownName`).

    Example:
        >>> patch_numbers(2, 5, grid=2, cut="whole patches")
        tensor([[ 0,  0,  1,  1, -1],
                [ 2,  2,  3,  3, -1]])
    """
    row, column = (_places(side, _edges(side, grid, cut)) for side in (height, width))
    inside = (row >= 0)[:, None] & (column >= 0)
    return torch.where(inside, row[:, None] * grid + column, -1)


def sparsity(values: Float[Tensor, "*s v"], *, mass: float = MASS, sums: Sums = "float64") -> Float[Tensor, "*s"]:
    """Share of the values that is not needed to gather `mass` of their sum (0 to 1, higher is sparser).

    The sizes are sorted, the largest first, and added up; `k` is the place of the first running sum that is at least
    `mass` of the total, and the sparsity is `1 - k / v`. At exact equality (a constant map) rounding decides whether
    one more value is counted.

    Args:
        values: of which the absolute values count.
        mass: share to gather, above 0 and at most 1.
        sums: `float64`, or `float32-sums`, which adds up in float32 one after another as the original does.

    Returns:
        0 where all values are 0; nan where one is not finite.

    Raises:
        InputError: a mass outside 0 to 1, no values, or sums that are not known.

    Example:
        >>> sparsity(torch.tensor([[0.0, 9.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]), mass=0.6)
        tensor([0.7500, 0.2500], dtype=torch.float64)
    """
    if not 0 < mass <= 1:
        message = f"a mass is a share of the attribution, above 0 and at most 1: got {mass}. The usual one is {MASS}"
        raise InputError(message)
    check_name(sums, SUMS, "sums")
    count = values.shape[-1]
    if count == 0:
        message = "the sparsity of a map needs at least one value, and none came"
        raise InputError(message)
    if values.device.type == "cpu" and values.dtype != torch.bfloat16:  # which numpy does not have
        found = _sparsity_on_processor(values.detach().numpy().reshape(-1, count), mass=mass, sums=sums)
        return torch.from_numpy(found).reshape(values.shape[:-1])
    sizes = values.abs().sort(-1, descending=True).values
    running = sizes.cumsum(-1, dtype=torch.float64 if sums == "float64" else torch.float32)
    total = running[..., -1:] if sums == "float64" else sizes.sum(-1, keepdim=True, dtype=torch.float32)
    needed = (running < mass * total).sum(-1) + 1
    found_there = torch.where(total[..., 0] == 0, 0.0, 1 - needed.clamp(max=count).double() / count)
    return torch.where(total[..., 0].isfinite(), found_there, torch.nan)


def pixel_sparsity(
    attribution: Float[Tensor, "*s c h w"], *, mass: float = MASS, sums: Sums = "float64"
) -> Float[Tensor, "*s"]:
    """Sparsity over all channels and pixels: 150,528 values for a colour image of 224 x 224 (see `sparsity`).

    Example:
        >>> one_hot = torch.zeros(3, 4, 4)
        >>> one_hot[1, 2, 2] = -5.0
        >>> pixel_sparsity(one_hot).item() == 1 - 1 / 48
        True
    """
    return sparsity(attribution.flatten(-3), mass=mass, sums=sums)


def patch_sparsity(
    masses: Float[Tensor, "*s g g"], *, mass: float = MASS, sums: Sums = "float64"
) -> Float[Tensor, "*s"]:
    """Sparsity over the patches of a grid, in steps of one patch: 0.0051 for 14 x 14 (see `sparsity`).

    Example:
        >>> masses = torch.zeros(14, 14)
        >>> masses[3, 5] = 2.0
        >>> patch_sparsity(masses).item() == 1 - 1 / 196
        True
    """
    return sparsity(masses.flatten(-2), mass=mass, sums=sums)


def descending(scores: Float[Tensor, "*s p"]) -> Int[Tensor, "*s p"]:
    """The positions of a map, the highest score first; equal scores in the order of their positions (a stable sort).

    Example:
        >>> descending(torch.tensor([1.0, 3.0, 1.0, 2.0]))
        tensor([1, 3, 0, 2])
    """
    if scores.device.type == "cpu" and scores.dtype == torch.float32 and 0 < scores.shape[-1] <= _MANY:
        numbers = scores.detach().numpy()
        if not np.isnan(numbers).any():
            return torch.from_numpy(_descending_on_processor(numbers))
    return torch.sort(scores, dim=-1, descending=True, stable=True).indices


def first_mask(order: Int[Tensor, "*s p"], counts: Sequence[int]) -> Bool[Tensor, "*s f p"]:
    """True at the first positions of an order, once for each of several counts.

    Example:
        >>> first_mask(torch.tensor([2, 0, 1]), [1, 2]).int()
        tensor([[0, 0, 1],
                [1, 0, 1]], dtype=torch.int32)
    """
    *outer, positions = order.shape
    mask = torch.zeros((*outer, len(counts), positions), dtype=torch.bool, device=order.device)
    for own, count in zip(mask.unbind(-2), counts, strict=True):
        own.scatter_(-1, order[..., :count].long(), value=True)
    return mask


def first_of(scores: Float[Tensor, "*s p"], counts: Sequence[int]) -> Bool[Tensor, "*s f p"]:
    """True at the highest positions of a map, once for each of several counts: `first_mask` of `descending`.

    Equal scores in the order of their positions. Many positions are parted at each count, not sorted: about five times
    as fast.

    Example:
        >>> first_of(torch.tensor([1.0, 3.0, 1.0, 2.0]), [1, 3]).int()
        tensor([[0, 1, 0, 0],
                [1, 1, 0, 1]], dtype=torch.int32)
    """
    *outer, positions = scores.shape
    numbers = scores.detach().numpy() if scores.device.type == "cpu" and scores.dtype == torch.float32 else None
    if numbers is None or positions < _MANY_POSITIONS or np.isnan(numbers).any():
        return first_mask(descending(scores), counts)
    rows = numbers.reshape(-1, positions)
    mask = np.empty((len(rows), len(counts), positions), dtype=bool)
    for own, row in zip(mask, rows, strict=True):
        for each, count in zip(own, counts, strict=True):
            _part(row, min(count, positions), out=each)
    return torch.from_numpy(mask).reshape(*outer, len(counts), positions)


def random_order(
    positions: int, *, index: Int[Tensor, "n"], draws: int = 1, seed: int = 0
) -> Int[Tensor, "n {draws} {positions}"]:
    """Positions in random order, the floor that any ranking should beat: drawn anew for each image.

    Depends on the seed and on the image's number in its data alone, not on its batch.

    Args:
        positions: pixels or patches of an image.
        index: number of each image in its data, 0 or more.
        draws: orders for each image; the first ones are the same however many are drawn.
        seed: of the choice.

    Raises:
        InputError: fewer than one position or draw.

    Example:
        >>> random_order(4, index=torch.tensor([7])).sort().values
        tensor([[[0, 1, 2, 3]]])
    """
    if positions < 1 or draws < 1:
        message = f"a random order needs at least one position and one draw: got {positions} and {draws}"
        raise InputError(message)
    orders = np.empty((len(index), draws, positions), dtype=np.int64)
    for own, image in zip(orders, index.tolist(), strict=True):
        rng = np.random.Generator(np.random.PCG64([seed, image]))
        for draw in own:
            draw[:] = rng.permutation(positions)
    return torch.from_numpy(orders).to(index.device)


def gini(values: Float[Tensor, "*s v"]) -> Float[Tensor, "*s"]:
    """Gini coefficient of the absolute values: 0 where all are equal, `1 - 1 / v` where only one is not 0.

    `1 - 2 sum_i (x_(i) / sum x) (v - i + 1/2) / v` for the sizes in rising order (Hurley and Rickard 2009, "Comparing
    measures of sparsity", equation for the Gini index); used on attributions by Chalasani et al. (2020).

    Returns:
        nan where all values are 0 or one is not finite.

    Example:
        >>> gini(torch.tensor([[0.0, 0.0, 0.0, 2.0], [1.0, 1.0, 1.0, 1.0]]))
        tensor([0.7500, 0.0000], dtype=torch.float64)
    """
    sizes = _rising(values.abs()).double()
    count = sizes.shape[-1]
    weight = (count - torch.arange(1, count + 1, device=values.device, dtype=torch.float64) + 0.5) / count
    # 0 divided by 0 is nan, as it should be; rounding must not push a constant map below 0
    return (1 - 2 * (sizes * weight).sum(-1) / sizes.sum(-1)).clamp(min=0)


def entropy(values: Float[Tensor, "*s v"]) -> Float[Tensor, "*s"]:
    """Entropy of the shares of the absolute values in bits: 0 where only one is not 0, `log2 v` where all are equal.

    Called complexity where it measures explanations (Bhatt et al. 2020, arXiv 2005.00631, equation 3, there in nats).

    Returns:
        nan where all values are 0 or one is not finite.

    Example:
        >>> entropy(torch.tensor([[0.0, 0.0, 0.0, 2.0], [1.0, 1.0, 1.0, 1.0]]))
        tensor([0., 2.], dtype=torch.float64)
    """
    sizes = values.abs().double()
    shares = sizes / sizes.sum(-1, keepdim=True)
    bits: Tensor = torch.special.entr(shares).sum(-1) / np.log(2)
    return bits


def neighbour_likeness(maps: Float[Tensor, "*s h w"]) -> Float[Tensor, "*s"]:
    """How smooth maps are: the likeness of neighbouring pixels, about their autocorrelation at lag 1.

    `1 - D / (4 V)`, with `D` the sum of squared differences of all horizontal and vertical neighbours and `V` the sum
    of squared deviations from the mean: one minus Geary's (1954) contiguity ratio, up to the treatment of the rim.
    About 0 for white noise, towards 1 for smooth maps, negative where neighbours alternate.

    Returns:
        nan for constant maps and maps with a value that is not finite.

    Example:
        >>> neighbour_likeness(torch.eye(8)).round(decimals=2), neighbour_likeness(torch.ones(8, 8))
        (tensor(0., dtype=torch.float64), tensor(nan, dtype=torch.float64))
    """
    exact = maps.double()
    squares = _deviation(exact)
    apart = exact.diff(dim=-1).square().sum((-2, -1)) + exact.diff(dim=-2).square().sum((-2, -1))
    return 1 - apart / (4 * squares)


def blurred(maps: Float[Tensor, "*s h w"], sigma: Float[Tensor, "*s"]) -> Float[Tensor, "*s h w"]:
    """Maps after a Gaussian blur of so many pixels, each its own; the rim is mirrored, so that no attribution is lost.

    The kernel is the discrete Gaussian (Lindeberg 1990, "Scale-space for discrete signals"): the solution of the heat
    equation on the grid of pixels. Blurring by `a` and then by `b` is blurring by `sqrt(a^2 + b^2)`, exactly.

    Args:
        maps: what to blur.
        sigma: standard deviations of the kernel along either side, in pixels, 0 or more.

    Example:
        >>> spike = torch.zeros(5, 5)
        >>> spike[2, 2] = 1.0
        >>> blurred(spike, torch.tensor(0.5)).sum().item()
        1.0
    """
    waves = _Waves.of(maps)
    damped = waves.parts * waves.damping(sigma.double().square() / 2)
    return waves.back(damped).to(maps.dtype)


def blurred_to(maps: Float[Tensor, "*s h w"], target: Float[Tensor, "*s"]) -> Smoothed:
    """Maps blurred until their neighbours are as alike as asked: the rival of equal smoothness.

    `target` is the `neighbour_likeness` of the maps to compare with. It grows strictly with the blur of `blurred` (its
    derivative is minus a variance), so that bisection finds the one blur, for each map its own.

    Args:
        maps: the maps to blur, such as the channel sums of the unfiltered attribution.
        target: smoothness to reach.

    Returns:
        The blurred maps, their blur, and whether the target was reached. A map that is smoother than the target as it
        is stays as it is.

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> noise = torch.rand(16, 16, generator=rng)
        >>> found = blurred_to(noise, torch.tensor(0.8))
        >>> found.smoothness.round(decimals=4), found.matched
        (tensor(0.8000, dtype=torch.float64), tensor(True))
    """
    own = neighbour_likeness(maps)
    target = target.to(maps.device).double()
    waves = _Waves.of(maps)
    energy = waves.energy()
    low = torch.full_like(own, np.log(_NARROWEST))
    high = torch.full_like(own, np.log(max(maps.shape[-2:])))
    widest = waves.likeness(energy, high.exp().square())
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        rough = waves.likeness(energy, middle.exp().square()) < target
        low, high = torch.where(rough, middle, low), torch.where(rough, high, middle)
    known = own.isfinite() & target.isfinite()
    rougher = target <= own
    sigma = torch.where(rougher, 0.0, high.exp())
    found = waves.back(waves.parts * waves.damping(sigma.square() / 2)).to(maps.dtype)
    found = torch.where(rougher[..., None, None], maps, found)
    matched = known & (target >= own) & (target <= widest)
    return Smoothed(
        maps=torch.where(known[..., None, None], found, torch.nan),
        sigma=torch.where(known, sigma, torch.nan),
        smoothness=torch.where(known, neighbour_likeness(found), torch.nan),
        target=target,
        matched=matched,
    )


@dataclass(frozen=True, eq=False)
class _Waves:
    """Maps as sums of the waves that blurring only damps: cosines that are flat at the rim (DCT-II).

    Attributes:
        parts: how much of each wave is in each map.
        rows, columns: the waves of either side, orthonormal, one a row.
        rates: how fast the waves of either side fade: eigenvalues of the graph of neighbouring pixels.
    """

    parts: Float[Tensor, "*s h w"]
    rows: Float[Tensor, "h h"]
    columns: Float[Tensor, "w w"]
    rates: tuple[Float[Tensor, "h"], Float[Tensor, "w"]]

    @classmethod
    def of(cls, maps: Tensor) -> _Waves:
        sides = [_cosines(side, maps.device) for side in maps.shape[-2:]]
        (rows, rate), (columns, other) = sides
        return cls(rows @ maps.double() @ columns.T, rows, columns, (rate, other))

    def back(self, parts: Tensor) -> Tensor:
        return self.rows.T @ parts @ self.columns

    def damping(self, time: Tensor) -> Tensor:
        """Factor of each wave's amplitude after a time: half of the kernel's variance."""
        row, column = ((-rate * time[..., None]).exp() for rate in self.rates)
        return row[..., :, None] * column[..., None, :]

    def energy(self) -> Tensor:
        """Squared amplitudes without the mean, which no blur changes."""
        squares = self.parts.square()
        squares[..., 0, 0] = 0
        return squares

    def likeness(self, energy: Tensor, variance: Tensor) -> Tensor:
        """`neighbour_likeness` after a blur of this variance, without making the map.

        The squared differences of neighbours are `sum rate * energy`, and damping factors into rows and columns.
        """
        row, column = ((-rate * variance[..., None]).exp() for rate in self.rates)
        per_row = (energy @ column[..., None])[..., 0]
        sloped = (energy @ (column * self.rates[1])[..., None])[..., 0]
        total = (row * per_row).sum(-1)
        apart = (row * self.rates[0] * per_row).sum(-1) + (row * sloped).sum(-1)
        return 1 - apart / (4 * total)


def _cosines(side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Orthonormal cosines of one side, one a row, and the eigenvalue of each: `2 - 2 cos(pi k / side)`."""
    frequency = torch.arange(side, device=device, dtype=torch.float64)
    waves = torch.cos(torch.pi / side * frequency[:, None] * (frequency + 0.5)) * (2 / side) ** 0.5
    waves[0] /= 2**0.5
    return waves, 2 - 2 * torch.cos(torch.pi / side * frequency)


def _deviation(exact: Tensor) -> Tensor:
    """Sum of squared deviations from the mean; nan where only rounding is left of them."""
    mean = exact.mean((-2, -1), keepdim=True)
    squares = (exact - mean).square().sum((-2, -1))
    flat = squares <= _FLAT**2 * exact.square().sum((-2, -1))
    return torch.where(flat, torch.nan, squares)


def _on_processor(attribution: Float[Tensor, "*s c h w"]) -> Shaped[np.ndarray, "n c h w"] | None:
    """The maps for numpy, in one row; None on other devices, and in number formats that it is slow in or lacks.

    Numpy works in one thread. PyTorch would share out each map, and its threads would wait for one another hundreds of
    times a batch: beside another program on the same cores that takes 200 times as long as the work.
    """
    if attribution.device.type != "cpu" or attribution.dtype not in (torch.float32, torch.float64):
        return None
    return attribution.detach().numpy().reshape(-1, *attribution.shape[-3:])


def _rising(values: Tensor) -> Tensor:
    """Values sorted along the last axis; on a processor numpy's sort is 20 times as fast as torch's."""
    if values.device.type == "cpu" and values.dtype != torch.bfloat16:
        return torch.from_numpy(np.sort(values.detach().numpy(), axis=-1))
    return values.sort(-1).values


def _sparsity_on_processor(rows: Shaped[np.ndarray, "n v"], *, mass: float, sums: Sums) -> Float[np.ndarray, "n"]:
    """Few maps at a time, so that they fit the processor's cache; numpy's sort is 20 times as fast as torch's."""
    count = rows.shape[1]
    found = np.empty(len(rows))
    few = max(1, _CACHED // count)
    for first in range(0, len(rows), few):
        block = slice(first, first + few)
        sizes = np.abs(rows[block])
        if sums == "float64" and count > _FEW_VALUES:
            total, needed = _needed_of_many(sizes, mass)
        elif sums == "float64":
            total = sizes.sum(axis=1, dtype=np.float64)
            sizes.sort(axis=1)
            needed = _needed(sizes[:, ::-1], mass)
        else:  # the original takes the total before it sorts, and compares it in the number format of the sums
            total = sizes.sum(axis=1, dtype=np.float32)
            sizes.sort(axis=1)
            needed = (np.cumsum(sizes[:, ::-1], axis=1, dtype=np.float32) < mass * total[:, None]).sum(axis=1) + 1
        found[block] = np.where(total == 0, 0.0, 1 - np.minimum(needed, count) / count)
        found[block][~np.isfinite(total)] = np.nan
    return found


def _needed_of_many(
    rows: Shaped[np.ndarray, "n v"], mass: float
) -> tuple[Float[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """Total of each row, and how many of its largest values gather the mass; the rows' order is changed.

    What is left is parted into a lower and an upper half until it is small: which half the wanted mass is reached in
    says the sum of the upper one. Parting is three times as fast as sorting.
    """
    count = rows.shape[1]
    totals, needed = np.empty(len(rows)), np.empty(len(rows), dtype=np.int64)
    for at, row in enumerate(rows):
        totals[at] = row.sum(dtype=np.float64)
        wanted, above, low, high = mass * totals[at], 0.0, 0, count
        while high - low > _FEW_VALUES:
            middle = (low + high) // 2
            row[low:high].partition(middle - low)
            upper = row[middle:high].sum(dtype=np.float64)
            if above + upper >= wanted:
                low = middle
            else:
                above, high = above + upper, middle
        running = above + np.cumsum(np.sort(row[low:high])[::-1], dtype=np.float64)
        needed[at] = count - high + min(np.searchsorted(running, wanted), high - low - 1) + 1
    return totals, needed


def _part(row: Shaped[np.ndarray, "p"], count: int, *, out: Bool[np.ndarray, "p"]) -> None:
    """Mark the `count` highest; of those equal to the lowest of them the first."""
    if count == 0:
        out[:] = False
        return
    lowest = np.partition(row, len(row) - count)[len(row) - count]
    np.greater(row, lowest, out=out)
    more = count - np.count_nonzero(out)
    out[np.flatnonzero(row == lowest)[:more]] = True


def _needed(falling: Shaped[np.ndarray, "n v"], mass: float) -> Int[np.ndarray, "n"]:
    """How many of the first values gather the mass: by strides first, then within the stride that reaches it."""
    rows, count = falling.shape
    starts = np.arange(0, count, _STRIDE)
    running = np.cumsum(np.add.reduceat(falling, starts, axis=1, dtype=np.float64), axis=1)
    wanted = mass * running[:, -1]
    stride = np.minimum((running < wanted[:, None]).sum(axis=1), len(starts) - 1)
    before = np.where(stride > 0, np.take_along_axis(running, np.maximum(stride - 1, 0)[:, None], axis=1)[:, 0], 0.0)
    place = starts[stride][:, None] + np.arange(_STRIDE)
    inside = np.where(place < count, np.take_along_axis(falling, np.minimum(place, count - 1), axis=1), 0.0)
    reached = before[:, None] + np.cumsum(inside, axis=1, dtype=np.float64) < wanted[:, None]
    return np.asarray(starts[stride] + reached.sum(axis=1) + 1).reshape(rows)


def _descending_on_processor(scores: Shaped[np.ndarray, "*s p"]) -> Int[np.ndarray, "*s p"]:
    """The stable order, by sorting whole numbers that hold both score and position: 15 times as fast."""
    count = scores.shape[-1]
    rows = scores.reshape(-1, count)
    order = np.empty(rows.shape, dtype=np.int64)
    turned = _MANY - np.arange(count)
    few = max(1, _CACHED // count)
    for first in range(0, len(rows), few):
        block = slice(first, first + few)
        # The bits of floating-point numbers, read as whole numbers, rise with them, but for negative ones, which fall.
        bits = (rows[block] + np.float32(0)).view(np.int32)  # adding 0 makes -0.0 equal to 0.0
        keys = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits).astype(np.int64)
        keys <<= 32
        keys |= turned
        keys.sort(axis=1)
        keys &= _MANY
        np.subtract(_MANY, keys[:, ::-1], out=order[block])
    return order.reshape(scores.shape)


def _edges(side: int, grid: int, cut: Cut) -> list[tuple[int, int]]:
    """First pixel of each patch along a side, and the one after its last."""
    check_name(cut, CUTS, "cut")
    if not 1 <= grid <= side:
        message = (
            f"a grid of {grid} patches does not fit a side of {side} pixels: each patch needs a pixel at least. "
            f"Give a grid from 1 to {side}"
        )
        raise InputError(message)
    if cut == "even":
        return [(i * side // grid, (i + 1) * side // grid) for i in range(grid)]
    size = side // grid
    return [(i * size, (i + 1) * size) for i in range(grid)]


def _places(side: int, edges: list[tuple[int, int]]) -> Tensor:
    number = torch.full((side,), -1)
    for patch, (first, after) in enumerate(edges):
        number[first:after] = patch
    return number
