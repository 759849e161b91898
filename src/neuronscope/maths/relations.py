"""How two units, or two formulas, stand to each other: correlation and overlap of their maps, and logical equivalence.

Maps are never kept: a pass over the images leaves sums (`CrossMoments`) and counts (`JointCounts`) for every pair of
units. The cells of a map say nearly the same as their neighbours, so an interval that counts cells is far too narrow.
Here images are the independent observations: the sums suffice for the delta-method variance of a correlation with one
cluster for each image, and a unit that varies in a few images only has that few degrees of freedom.

Formulas are compared as Boolean functions (`equivalent_groups`): `A AND (B OR C)` is `(A AND B) OR (A AND C)`, however
it was found. What the images happen to show plays no part in it; `weighted_jaccard` compares what formulas cover.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from scipy import special
from torch import Tensor
from torch.nn import functional

from neuronscope.errors import InputError
from neuronscope.maths.formulas import (
    And,
    AndNot,
    Close,
    CloseTo,
    Expanded,
    Formula,
    Label,
    Or,
    With,
    key,
    operands,
)
from neuronscope.maths.ranks import normal_quantile, spearman
from neuronscope.maths.streams import Seen, State

MOST_LABELS = 12
"""Labels up to which formulas are compared by truth table (4,096 rows); above, by their canonical form."""

_BLOCK = 2**22
"""Numbers of 8 bytes worked on at a time: 32 MiB, a few times over."""

_ROUNDING = 1e-12
"""Share of its mean square below which a unit's variance is rounding, and distance from 1 of a full correlation."""

_MEANS: dict[int, Callable[..., Tensor]] = {1: functional.adaptive_avg_pool1d, 2: functional.adaptive_avg_pool2d}
_MAXIMA: dict[int, Callable[..., Tensor]] = {1: functional.adaptive_max_pool1d, 2: functional.adaptive_max_pool2d}
"""What a block becomes, by the axes of a map."""

_SIDES = {1: 64, 2: 8}
"""Blocks along each axis between which second moments are taken, by the axes of a map: 64 in all."""

_LOST = 3  # of the units; the deviation of Fisher's z is 1 / sqrt(units - 3)


@dataclass(frozen=True)
class Correlation:
    """Pearson's correlation of every unit of one layer with every unit of another, over all cells of all images.

    Attributes:
        r: -1 to 1; nan where a unit is constant or not finite.
        low: lower limit.
        high: upper limit.
        p: two-sided; could the true correlation be 0?
        images: number of images.
        level: coverage of the interval.
    """

    r: Float[np.ndarray, "u v"]
    low: Float[np.ndarray, "u v"]
    high: Float[np.ndarray, "u v"]
    p: Float[np.ndarray, "u v"]
    images: int
    level: float


@dataclass(frozen=True)
class CrossMoments:
    """Correlation of the units of two measurements, folded image by image.

    Interval and p-value are those of Fisher's z with Student's t, and the larger of two standard errors:

    - the delta method's with images as clusters (Liang and Zeger 1986): an image's share in `r` is the sum over its
      cells of `z_a z_b - r (z_a^2 + z_b^2) / 2`, for standardised activations, and n / (n - 1) the correction;
    - that of unrelated units, one unit's maps met by the other's from any image: `tr(C_a C_b) / (n p^2)` for the second
      moments `C` between the `p` cells of a map (over 64 cells between averages of blocks; what is left counts as
      unrelated from cell to cell). Units that are active in few images never meet in most samples, and the scatter
      within such a sample knows nothing of it.

    The degrees of freedom are the effective number of images less one: `(sum g)^2 / sum g^2` for an image's share `g`
    in the variance of a unit, of the two units the smaller number (as for clusters of unequal weight: Carter, Schnepel
    and Steigerwald 2017). Below two effective images nothing can be said: the interval is -1 to 1 and p is 1.

    Maps of different size are brought to the smaller one by averaging blocks (`aligned`).

    Attributes:
        of: measurement of shape (n, u, ...).
        by: measurement of shape (n, v, ...).
        level: coverage of the intervals, between 0 and 1.
    """

    of: str
    by: str
    level: float = 0.95

    def start(self) -> State:
        """Nothing seen."""
        return {}

    def add(self, state: State, seen: Seen) -> State:
        """One more batch."""
        maps_of, maps_by = aligned(seen[self.of], seen[self.by])
        for some_of, some_by in _images(maps_of.flatten(2), maps_by.flatten(2)):
            state = self.merge(state, _cross_sums(some_of, some_by))
        return self.merge(state, {**_block_sums(maps_of, "a"), **_block_sums(maps_by, "b")})

    def merge(self, left: State, right: State) -> State:
        """Sums add up, in float64."""
        return _added(left, right)

    def finish(self, state: State) -> Correlation:
        """The correlations."""
        return _correlation({name: values.cpu().numpy() for name, values in state.items()}, level=self.level)

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Ten sums for each pair of units; for each unit five, and those of the pairs of blocks of its map."""
        (of, *one), (by, *other) = shapes[self.of], shapes[self.by]
        grid = _grid(one, other)
        blocks = math.prod(min(side, _SIDES.get(len(grid), 1)) for side in grid)
        return 8 * (10 * of * by + (5 + blocks + blocks**2) * (of + by) + 2)


@dataclass(frozen=True)
class Joint:
    """Cells in which units are active.

    Attributes:
        both: active in both units.
        of: active in each unit of the first.
        by: active in each unit of the second.
    """

    both: Int[np.ndarray, "u v"]
    of: Int[np.ndarray, "u"]
    by: Int[np.ndarray, "v"]

    @property
    def jaccard(self) -> Float[np.ndarray, "u v"]:
        """Cells active in both units among those active in any (0 to 1); nan where one of them is never active."""
        never = (self.of == 0)[:, None] | (self.by == 0)
        union = self.of[:, None] + self.by - self.both
        return np.where(never, np.nan, self.both / np.where(never, 1, union))


@dataclass(frozen=True, eq=False)
class JointCounts:
    """In how many cells every two units are both active.

    Of maps of different size, a block of the larger is active where any of its cells is: an average over the block
    would hardly ever exceed a threshold that was made for single cells.

    Attributes:
        of: measurement of shape (n, u, ...).
        by: measurement of shape (n, v, ...).
        of_above: activation above which each unit of the first is active; nan for one that never is.
        by_above: the same of the second.
    """

    of: str
    by: str
    of_above: Float[np.ndarray, "u"]
    by_above: Float[np.ndarray, "v"]

    def start(self) -> State:
        """Nothing seen."""
        return {}

    def add(self, state: State, seen: Seen) -> State:
        """One more batch."""
        of, by = _active(seen[self.of], self.of_above), _active(seen[self.by], self.by_above)
        grid = _grid(of.shape[2:], by.shape[2:])
        for one, other in _images(*(_pooled(maps, grid, _MAXIMA).flatten(2) for maps in (of, by))):
            # Whole numbers below 2^53: float64 is exact, and multiplies matrices where int64 would crawl.
            first, second = (maps.transpose(0, 1).flatten(1) for maps in (one, other))
            counts = {"both": first @ second.T, "of": first.sum(1), "by": second.sum(1)}
            state = self.merge(state, {name: count.to(torch.int64) for name, count in counts.items()})
        return state

    def merge(self, left: State, right: State) -> State:
        """Counts add up."""
        return _added(left, right)

    def finish(self, state: State) -> Joint:
        """The counts."""
        return Joint(**{name: values.cpu().numpy() for name, values in state.items()})

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:  # noqa: ARG002 part of the protocol
        """8 bytes for each pair of units, and each unit."""
        of, by = len(self.of_above), len(self.by_above)
        return 8 * (of * by + of + by)


@dataclass(frozen=True)
class FiringRows:
    """In which images units fire.

    Attributes:
        index: row numbers of the images, ascending; images left out on errors are missing.
        fired: whether each unit fires.
    """

    index: Int[np.ndarray, "n"]
    fired: Bool[np.ndarray, "n u"]


@dataclass(frozen=True, eq=False)
class Firing:
    """Whether each unit's largest activation in an image is above its threshold: a bit for each image and unit.

    Attributes:
        of: measurement of shape (n, u), such as the maximum of each map.
        above: of each unit; nan for one that never fires.
        images: number of images expected, for the announced size.
    """

    of: str
    above: Float[np.ndarray, "u"]
    images: int = 0

    def start(self) -> State:
        """Nothing seen."""
        return {"index": [], "bits": []}

    def add(self, state: State, seen: Seen) -> State:
        """One more batch."""
        fired = seen[self.of].cpu().double().numpy() > self.above
        state["index"].append(seen["index"].cpu())
        state["bits"].append(torch.from_numpy(np.packbits(fired, axis=1)))
        return state

    def merge(self, left: State, right: State) -> State:
        """Lists follow one another."""
        return {name: left[name] + right[name] for name in left}

    def finish(self, state: State) -> FiringRows:
        """The rows in ascending order."""
        index = torch.cat(state["index"])
        order = index.argsort(stable=True)
        bits = torch.cat(state["bits"])[order].numpy()
        fired = np.unpackbits(bits, axis=1, count=len(self.above)).astype(bool)
        return FiringRows(index[order].numpy(), fired)

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:  # noqa: ARG002 part of the protocol
        """A bit for each image and unit and 8 bytes for each image, twice while stacking."""
        return 2 * self.images * (-(-len(self.above) // 8) + 8)


def aligned(
    first: Float[Tensor, "n u *one"], second: Float[Tensor, "n v *other"]
) -> tuple[Float[Tensor, "n u *grid"], Float[Tensor, "n v *grid"]]:
    """Two layers' outputs for the same images, on one grid of positions: along each axis that of the smaller map.

    A larger map is averaged in blocks (adaptively, where its side is no multiple). A flat layer has one position, so
    that a map beside it becomes its mean; so do maps and sequences of tokens side by side.

    Example:
        >>> maps, flat = aligned(torch.ones(2, 3, 4, 4), torch.ones(2, 5))
        >>> maps.shape, flat.shape
        (torch.Size([2, 3, 1]), torch.Size([2, 5, 1]))
    """
    grid = _grid(first.shape[2:], second.shape[2:])
    return _pooled(first, grid), _pooled(second, grid)


def weighted_jaccard(holds: Sequence[Bool[np.ndarray, "s"]], weight: Int[np.ndarray, "s"]) -> Float[np.ndarray, "u u"]:
    """Overlap of every two sets of weighted things: the weight of what is in both by that of what is in any.

    Args:
        holds: of each set, which things are in it (such as the label sets that satisfy a formula).
        weight: of each thing (such as its pixels), 0 or more.

    Returns:
        0 to 1; nan where one of the two sets has no weight.

    Example:
        >>> sets = [np.array([True, True, False]), np.array([False, True, True])]
        >>> weighted_jaccard(sets, np.array([1, 2, 1]))
        array([[1. , 0.5],
               [0.5, 1. ]])
    """
    both = np.zeros((len(holds), len(holds)))
    if not holds:
        return both
    width = max(1, _BLOCK // len(holds))
    for first in range(0, len(weight), width):
        part = slice(first, first + width)
        block = np.stack([one[part] for one in holds]).astype(np.float64)
        both += (block * weight[part]) @ block.T
    area = np.diag(both)
    none = (area == 0)[:, None] | (area == 0)
    return np.where(none, np.nan, both / np.where(none, 1, area[:, None] + area - both))


@dataclass(frozen=True)
class Association:
    """How two quantities of the same units go together.

    Attributes:
        r: Pearson's correlation, -1 to 1.
        low: lower limit (Fisher's z).
        high: upper limit.
        p: two-sided, Student's t with k - 2 degrees of freedom.
        rho: Spearman's rank correlation.
        p_permuted: two-sided p-value with the units permuted, `(1 + reached) / (1 + draws)`.
        count: units with both quantities.
    """

    r: float
    low: float
    high: float
    p: float
    rho: float
    p_permuted: float
    count: int


def association(
    first: Float[np.ndarray, "u"],
    second: Float[np.ndarray, "u"],
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    draws: int = 9999,
) -> Association:
    """Correlation of two quantities over units, with its interval and two tests. Units are taken as independent.

    Args:
        first: one quantity; units for which it is nan are left out.
        second: the other.
        rng: source of the permutations.
        level: coverage, between 0 and 1.
        draws: number of permutations.

    Returns:
        nan where fewer than three units have both (four for the interval), or one quantity is constant.

    Example:
        >>> x = np.arange(10.0)
        >>> found = association(x, x**2, rng=np.random.default_rng(0), draws=99)
        >>> round(found.r, 3), found.rho, found.p_permuted
        (0.963, 1.0, 0.01)
    """
    z = normal_quantile(level)
    known = np.isfinite(first) & np.isfinite(second)
    x, y = first[known].astype(np.float64), second[known].astype(np.float64)
    count, void = len(x), float("nan")
    if count < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:  # noqa: PLR2004 two points are always on a line
        return Association(void, void, void, void, void, void, count)
    x, y = x - x.mean(), y - y.mean()
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    r = float(np.clip(x @ y, -1.0, 1.0))
    low, high, p = void, void, 0.0
    if abs(r) < 1 - _ROUNDING:
        p = float(2 * special.stdtr(count - 2, -abs(r) * math.sqrt((count - 2) / (1 - r * r))))
    if count > _LOST:
        middle = math.atanh(np.clip(r, -1 + _ROUNDING, 1 - _ROUNDING))
        half = z / math.sqrt(count - _LOST)
        low, high = math.tanh(middle - half), math.tanh(middle + half)
    reached, done = 0, 0
    while done < draws:
        many = min(draws - done, max(1, _BLOCK // count))
        drawn = rng.permuted(np.tile(x, (many, 1)), axis=1) @ y
        reached += int((np.abs(drawn) >= abs(r) - _ROUNDING).sum())
        done += many
    rho = float(spearman(x[:, None], y[:, None])[0, 0])
    return Association(r, low, high, p, rho, (1 + reached) / (1 + draws), count)


def equivalent_groups(
    formulas: Sequence[Formula | None], *, names: Mapping[int, str] | None = None
) -> Int[np.ndarray, "f"]:
    """Which formulas say the same: a group number for each, from 0 in order of first appearance; -1 for no formula.

    Formulas with up to `MOST_LABELS` different labels are the same when their truth tables are, over the labels that
    they depend on: `A OR (A AND B)` is `A`. Above, they are the same when `formulas.key` is. Operators that look at
    places or images (WITH, CLOSE, CLOSE TO), and expanded labels, are labels of their own, the same where their
    operands are. That a label may never occur without another is not made use of.

    Args:
        formulas: to compare.
        names: name of each label number, where labels of one name (in two categories) are to be one.

    Example:
        >>> a, b, c = Label(1), Label(2), Label(3)
        >>> equivalent_groups([Or(And(a, b), And(a, c)), a, And(a, Or(b, c)), None, Or(a, And(a, b))])
        array([ 0,  1,  0, -1,  1])
    """
    numbers: dict[object, int] = {}
    groups = np.full(len(formulas), -1, dtype=np.int64)
    for place, formula in enumerate(formulas):
        if formula is not None:
            groups[place] = numbers.setdefault(_function_of(formula, names or {}), len(numbers))
    return groups


def _images(first: Tensor, second: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """A few images at a time, in float64: as many as keep the products of their maps small."""
    (_, units, positions), others = first.shape, second.shape[1]
    most = max(1, _BLOCK // max(1, units * others, units * positions, others * positions))
    for start in range(0, len(first), most):
        yield first[start : start + most].double(), second[start : start + most].double()


def _grid(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    """Positions along each axis on which two maps can be compared; a single one where their axes differ."""
    return tuple(map(min, one, other)) if len(one) == len(other) and one else (1,)


def _pooled(maps: Tensor, grid: tuple[int, ...], pools: Mapping[int, Callable[..., Tensor]] = _MEANS) -> Tensor:
    """A map's blocks, as many along each axis as asked for, each as one number."""
    if tuple(maps.shape[2:]) == grid:
        return maps
    if len(maps.shape[2:]) == len(grid) and len(grid) in pools:
        return pools[len(grid)](maps, grid)
    flat = maps.flatten(2) if maps.shape[2:] else maps[:, :, None]
    return pools[1](flat, (1,)).reshape(*maps.shape[:2], *(1 for _ in grid))


def _block_sums(maps: Tensor, unit: str) -> State:
    """Sums over images of a map's blocks, and of the products of every two of them."""
    most = _SIDES.get(maps.ndim - 2, 1)
    blocks = _pooled(maps, tuple(min(side, most) for side in maps.shape[2:])).flatten(2).double().transpose(0, 1)
    return {f"blocks {unit}": blocks.sum(1), f"pairs {unit}": blocks.transpose(1, 2) @ blocks}


def _active(maps: Float[Tensor, "n u *map"], above: Float[np.ndarray, "u"]) -> Float[Tensor, "n u *map"]:
    """1 for each active cell, 0 for the others; nan is above nothing, and nothing above nan."""
    limit = torch.from_numpy(above.astype(np.float64)).to(maps.device)
    return (maps > limit.reshape(1, -1, *(1 for _ in maps.shape[2:]))).float()


def _cross_sums(of: Float64[Tensor, "n u p"], by: Float64[Tensor, "n v p"]) -> State:
    """Sums over images of (1, a, b, aa, bb, ab), an image's own sums over its cells, and of all their products."""
    a, b = of.sum(2), by.sum(2)
    aa, bb = of.square().sum(2), by.square().sum(2)
    ab = of @ by.transpose(1, 2)
    return {
        "images": torch.tensor(float(len(of)), dtype=torch.float64, device=of.device),
        "cells": torch.tensor(float(len(of) * of.shape[2]), dtype=torch.float64, device=of.device),
        "a": a.sum(0),
        "aa": aa.sum(0),
        "b": b.sum(0),
        "bb": bb.sum(0),
        "ab": ab.sum(0),
        "a*a": (a * a).sum(0),
        "a*aa": (a * aa).sum(0),
        "aa*aa": (aa * aa).sum(0),
        "b*b": (b * b).sum(0),
        "b*bb": (b * bb).sum(0),
        "bb*bb": (bb * bb).sum(0),
        "a*b": a.T @ b,
        "a*bb": a.T @ bb,
        "b*aa": aa.T @ b,
        "aa*bb": aa.T @ bb,
        "a*ab": torch.einsum("nu,nuv->uv", a, ab),
        "aa*ab": torch.einsum("nu,nuv->uv", aa, ab),
        "b*ab": torch.einsum("nv,nuv->uv", b, ab),
        "bb*ab": torch.einsum("nv,nuv->uv", bb, ab),
        "ab*ab": ab.square().sum(0),
    }


@np.errstate(invalid="ignore", divide="ignore")  # units that are constant or not finite; they come out as nan
def _correlation(sums: Mapping[str, np.ndarray], *, level: float) -> Correlation:
    images, cells = float(sums["images"]), float(sums["cells"])
    positions = cells / images
    mean_a, var_a, effective_a = _moments(sums, "a", images=images, cells=cells)
    mean_b, var_b, effective_b = _moments(sums, "b", images=images, cells=cells)
    ma, va, mb, vb = mean_a[:, None], var_a[:, None], mean_b[None], var_b[None]
    scale = np.sqrt(va * vb)
    r = np.clip((sums["ab"] / cells - ma * mb) / scale, -1.0, 1.0)
    # An image's share in r is linear in its own sums (1, a, b, aa, bb, ab), so its square is a sum of their products.
    weight = {
        "1": positions * (ma * mb / scale - r / 2 * (ma**2 / va + mb**2 / vb)),
        "a": r * ma / va - mb / scale,
        "b": r * mb / vb - ma / scale,
        "aa": -r / (2 * va),
        "bb": -r / (2 * vb),
        "ab": 1 / scale,
    }
    names = list(weight)
    squares = np.zeros_like(r)
    for place, left in enumerate(names):
        for right in names[place:]:
            factor = weight[left] * weight[right] * (1 if left == right else 2)
            squares += factor * _product(sums, left, right)
    error = np.sqrt(np.maximum(squares, 0) * images / (images - 1 if images > 1 else np.nan)) / cells
    freedom = np.minimum(effective_a[:, None], effective_b[None]) - 1
    full = np.abs(r) >= 1 - _ROUNDING
    inside = np.where(full, 0.0, r)
    # On the scale of z the error of unrelated units is that of all: in the normal case both are 1 / sqrt(n).
    z, spread = np.arctanh(inside), np.maximum(error / (1 - inside**2), _unrelated(sums, mean_a, var_a, mean_b, var_b))
    known = np.maximum(freedom, 1)
    half = special.stdtrit(known, (1 + level) / 2) * spread
    p = 2 * special.stdtr(known, -np.abs(z) / spread)
    low, high = np.where(full, r, np.tanh(z - half)), np.where(full, r, np.tanh(z + half))
    p = np.where(full, 0.0, p)
    few = freedom < 1
    low, high, p = np.where(few, -1.0, low), np.where(few, 1.0, high), np.where(few, 1.0, p)
    low, high, p = (np.where(np.isnan(r), np.nan, one) for one in (low, high, p))
    return Correlation(r, low, high, p, int(images), level)


def _unrelated(
    sums: Mapping[str, np.ndarray],
    mean_a: Float[np.ndarray, "u"],
    var_a: Float[np.ndarray, "u"],
    mean_b: Float[np.ndarray, "v"],
    var_b: Float[np.ndarray, "v"],
) -> Float[np.ndarray, "u v"]:
    """Standard error of the correlation of units that have nothing to do with each other."""
    images = float(sums["images"])
    positions = float(sums["cells"]) / images
    found = []
    for unit, mean, variance in (("a", mean_a, var_a), ("b", mean_b, var_b)):
        total, scale = sums[f"blocks {unit}"], variance[:, None]
        cross = mean[:, None, None] * (total[:, :, None] + total[:, None, :])
        moments = (sums[f"pairs {unit}"] - cross) / images + mean[:, None, None] ** 2
        moments = moments / scale[:, :, None]
        size = positions / total.shape[1]  # cells of a block
        rest = np.maximum(positions - size * np.trace(moments, axis1=1, axis2=2), 0)
        usual = (total / images - mean[:, None]) / np.sqrt(scale)  # the average map
        found.append((moments.reshape(len(mean), -1), usual, rest, size))
    (moments_a, usual_a, rest_a, size), (moments_b, usual_b, rest_b, _) = found
    square = size**2 * (moments_a @ moments_b.T - (usual_a @ usual_b.T) ** 2) + np.outer(rest_a, rest_b) / positions
    return np.asarray(np.sqrt(np.maximum(square, 0) / images) / positions)


@np.errstate(invalid="ignore", divide="ignore")
def _moments(
    sums: Mapping[str, np.ndarray], unit: str, *, images: float, cells: float
) -> tuple[Float[np.ndarray, "u"], Float[np.ndarray, "u"], Float[np.ndarray, "u"]]:
    """Mean and variance over the cells (nan for a constant unit), and the effective number of images."""
    square = unit * 2
    mean = sums[unit] / cells
    variance = sums[square] / cells - mean**2
    variance = np.where(variance > _ROUNDING * sums[square] / cells, variance, np.nan)
    # An image's share in the variance is g = aa - 2 m a + p m^2, with its own sums aa and a over its p cells.
    constant = (cells / images) * mean**2
    shares = (
        sums[f"{square}*{square}"]
        - 4 * mean * sums[f"{unit}*{square}"]
        + 4 * mean**2 * sums[f"{unit}*{unit}"]
        + 2 * constant * (sums[square] - 2 * mean * sums[unit])
        + images * constant**2
    )
    effective = np.minimum((cells * variance) ** 2 / np.maximum(shares, 0), images)
    return mean, variance, effective


def _product(sums: Mapping[str, np.ndarray], left: str, right: str) -> np.ndarray:
    """Sum over the images of two of their sums, for each pair of units."""
    name = f"{left}*{right}" if left != "1" else right if right != "1" else "images"
    found = sums[name]
    if found.ndim != 1:
        return np.asarray(found)
    return np.asarray(found[:, None] if right.startswith("a") else found[None])


def _added(left: State, right: State) -> State:
    for name, values in right.items():
        left[name] = left[name].add_(values) if name in left else values
    return left


def _function_of(formula: Formula, names: Mapping[int, str]) -> tuple[object, ...]:
    """What a formula is as a function of its labels: the labels that matter, and its truth table over them."""
    atoms = sorted(set(_atoms(formula, names)), key=repr)
    if len(atoms) > MOST_LABELS:
        return ("form", key(_renamed(formula, names)))
    place = {atom: number for number, atom in enumerate(atoms)}
    rows = np.indices((2,) * len(atoms), dtype=bool)
    table = _truth(formula, lambda part: rows[place[_atom(part, names)]])
    matters = [
        axis for axis in range(table.ndim) if (np.take(table, 0, axis=axis) != np.take(table, 1, axis=axis)).any()
    ]
    for axis in reversed(range(table.ndim)):
        if axis not in matters:
            table = np.take(table, 0, axis=axis)
    return ("table", tuple(atoms[axis] for axis in matters), table.tobytes())


def _atoms(formula: Formula, names: Mapping[int, str]) -> Iterator[tuple[object, ...]]:
    if isinstance(formula, Or | And | AndNot):
        for part in operands(formula):
            yield from _atoms(part, names)
    else:
        yield _atom(formula, names)


def _atom(formula: Formula, names: Mapping[int, str]) -> tuple[object, ...]:
    """What stands for a part that is no OR, AND or AND NOT: equal for parts that are the same."""
    match formula:
        case Label(number):
            return ("label", names.get(number, number))
        case Expanded(number):
            return ("label-X", names.get(number, number))
        case With(left, right):
            return ("WITH", _function_of(left, names), _function_of(right, names))
        case Close(left, right):
            return ("CLOSE", *sorted((_function_of(left, names), _function_of(right, names)), key=repr))
        case CloseTo(left, rights):
            near = sorted({_function_of(right, names) for right in rights}, key=repr)
            return ("CLOSE TO", _function_of(left, names), *near)
        case _:
            message = f"{type(formula).__name__} is no part of its own: it is a function of its operands. Look at those"
            raise InputError(message)


def _truth(formula: Formula, value: Callable[[Formula], np.ndarray]) -> np.ndarray:
    """For every row of a truth table whether the formula holds, given the same of what is no OR, AND or AND NOT."""
    found: np.ndarray
    match formula:
        case Or(left, right):
            found = _truth(left, value) | _truth(right, value)
        case And(left, right):
            found = _truth(left, value) & _truth(right, value)
        case AndNot(left, right):
            found = _truth(left, value) & ~_truth(right, value)
        case _:
            found = value(formula)
    return found


def _renamed(formula: Formula, names: Mapping[int, str]) -> Formula:
    """The formula with one number for all labels of a name."""
    first: dict[str, int] = {}
    for number in sorted(names):
        first.setdefault(names[number], number)

    def renamed(part: Formula) -> Formula:
        match part:
            case Label(number) | Expanded(number):
                return type(part)(first[names[number]] if number in names else number)
            case CloseTo(left, rights):
                return CloseTo(renamed(left), tuple(renamed(right) for right in rights))
            case _:
                return type(part)(renamed(part.left), renamed(part.right))

    return renamed(formula)
