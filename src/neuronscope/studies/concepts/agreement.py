"""How well a formula agrees with a unit's activations where no threshold cuts them: correlation and AUROC.

Overlap with a formula depends on the threshold that made the unit's mask. Two scores need none: the correlation of the
activation with the share of the position that the formula covers, and the probability that a covered place is more
active than an uncovered one. Both are taken at the maps' own resolution, in one pass, from sums that do not grow with
the images. Positions of an image are not independent, so both intervals are over images.

The same pass with the coverage of other images (`OtherImages`) gives the null.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Int64
from scipy import special
from torch import Tensor

from neuronscope.errors import InputError
from neuronscope.maths.ranks import normal_quantile
from neuronscope.maths.signatures import Signatures
from neuronscope.maths.streams import Seen, State, exact

CoverageOfImage = Callable[[int], Float32[np.ndarray, "u *cells"]]
"""From an image of the pass to the share (0 to 1) of each position of a map that each unit's formula covers."""

_SHARES = 2**20
"""Steps of a share in the histograms: their sums are then exact, whatever the order of the images."""

_SUMS = 2**30
"""Steps of an image's sums (of numbers from 0 to 1): the sums of their products over all images are then exact too.

A sum of a million positions has 50 bits, its square 100, and a pair of float64 holds 106.
"""

_GROUPS = 16
"""Groups of images, image number modulo this, that are left out in turn for the interval of the AUROC."""

_COARSE = 8
"""Bins of the AUROC that are one bin of a group's."""

_CONFIDENCE = 0.95

_PRODUCTS = tuple(combinations_with_replacement(range(5), 2))
"""Products of an image's sums that are kept: each pair once."""


@dataclass(frozen=True, eq=False)
class SignatureCoverage:
    """The share of every map position that each unit's formula covers, from the label sets of the images.

    A pixel belongs to the position whose centre is nearest. Where maps are finer than masks, a position takes the
    pixel under its centre.

    Attributes:
        signatures: the label sets of the images.
        holds: for each unit, the label sets that satisfy its formula.
        shape: height and width of the masks.
        map_shape: height and width of the layer's maps; (1, 1) for a flat layer.

    Raises:
        InputError: `__call__` for an image that is not labelled, or whose label map has another size than `shape`.

    Example:
        >>> from neuronscope.maths.signatures import assemble, image_signatures
        >>> labels = assemble([image_signatures(np.array([[[1, 1, 0, 0], [1, 0, 0, 0]]]))])
        >>> SignatureCoverage(labels, [labels.table[:, 0] == 1], (2, 4), (1, 2))(0)
        array([[0.75, 0.  ]], dtype=float32)
    """

    signatures: Signatures
    holds: Sequence[Bool[np.ndarray, "s"]]
    shape: tuple[int, int]
    map_shape: tuple[int, int]

    def __call__(self, image: int) -> Float32[np.ndarray, "u cells"]:
        """Shares (0 to 1) of each unit's formula in an image, positions row by row."""
        signatures = self.signatures
        if not 0 <= image < signatures.images:
            message = (
                f"image {image} has no labels: they cover images 0 to {signatures.images - 1}. "
                "Give activations of the images that were labelled"
            )
            raise InputError(message)
        if signatures.pixels[image] != self.shape[0] * self.shape[1]:
            message = (
                f"the label map of image {image} has {signatures.pixels[image]} pixels, but masks of "
                f"{self.shape[0]} x {self.shape[1]} were announced. Read the label maps at that size"
            )
            raise InputError(message)
        chosen = slice(int(signatures.start[image]), int(signatures.start[image + 1]))
        first = int(signatures.first_pixel[image])
        numbers = signatures.pair_signature[chosen]
        cell, pixel, each = self._layout
        counts = np.bincount(
            cell * len(numbers) + signatures.local[first + pixel], minlength=len(each) * len(numbers)
        ).reshape(len(each), len(numbers))
        shares = (counts / each[:, None]).astype(np.float32)
        holding = np.unpackbits(self._packed[numbers], axis=1, count=len(self.holds)).astype(np.float32)
        return np.ascontiguousarray((shares @ holding).T).clip(0, 1)

    @cached_property
    def _layout(self) -> tuple[Int64[np.ndarray, "p"], Int64[np.ndarray, "p"], Int64[np.ndarray, "cells"]]:
        """Position and number of every pixel that counts, and pixels of each position."""
        (row, line), (column, place) = (_nearest(*sides) for sides in zip(self.map_shape, self.shape, strict=True))
        cell = (row[:, None] * self.map_shape[1] + column).reshape(-1)
        pixel = (line[:, None] * self.shape[1] + place).reshape(-1)
        return cell, pixel, np.bincount(cell)

    @cached_property
    def _packed(self) -> np.ndarray:
        """Which units' formulas each label set satisfies, a bit each: the label sets of an image lie together."""
        packed = np.zeros((len(self.signatures), -(-len(self.holds) // 8)), dtype=np.uint8)
        for byte in range(packed.shape[1]):
            packed[:, byte] = np.packbits(np.stack(self.holds[8 * byte : 8 * byte + 8]), axis=0)[0]
        return packed


@dataclass(frozen=True, eq=False)
class OtherImages:
    """The coverage of other images than those shown: what agreement comes from chance.

    Attributes:
        coverage: of the images themselves.
        other: for each image, the one whose coverage is taken.
    """

    coverage: CoverageOfImage
    other: Int[np.ndarray, "n"]

    def __call__(self, image: int) -> Float32[np.ndarray, "u *cells"]:
        """The coverage of the image that stands for this one."""
        return self.coverage(int(self.other[image]))


@dataclass(frozen=True, eq=False)
class Agreement:
    """Correlation and AUROC of each unit's activation with what its formula covers, over all positions of all images.

    With `a` the activation and `y` the covered share of a position, the correlation is Pearson's of a and y; the AUROC
    weighs a position by y as covered and by 1 - y as uncovered. Activations are put into bins of one width, divided at
    zero, exact zeros apart; activations of one bin count as tied, and ties as half. `auroc_error` bounds what that can
    change: half the weight of the pairs that share a bin.

    The interval of the correlation follows from the spread of the images' influence on it (delta method on sums over
    whole images, Fisher's z), that of the AUROC from leaving out each of 16 groups of images (jackknife, Student's t
    with 15 degrees of freedom, on bins eight times as wide). Both hold for images that are independent of one another,
    and need dozens of them.

    Attributes:
        of: measurement with a layer's maps (n, units, height, width), or (n, units) for a flat layer.
        coverage: from image i of the pass to (units, positions) or (units, height, width).
        lowest: smallest activation of each unit, as far as known (`LowestHighest`); those below count in an end bin.
        highest: largest.
        images: number of images of the pass.
        steps: bins of an activation.
    """

    of: str
    coverage: CoverageOfImage
    lowest: Float[np.ndarray, "u"]
    highest: Float[np.ndarray, "u"]
    images: int
    steps: int = 1024

    def start(self) -> State:
        """Nothing seen."""
        units = len(self.lowest)
        coarse = self._coarse[1]
        return {
            "sums": _zero_pairs(5, units),
            "products": _zero_pairs(len(_PRODUCTS), units),
            "images": torch.tensor(0),
            "cells": torch.tensor(0),
            "counts": torch.zeros((units, self.steps + 1), dtype=torch.int64),
            "covered": torch.zeros((units, self.steps + 1), dtype=torch.float64),
            "group_counts": torch.zeros((_GROUPS, units, coarse), dtype=torch.int64),
            "group_covered": torch.zeros((_GROUPS, units, coarse), dtype=torch.float64),
            "stray": torch.zeros(units, dtype=torch.int64),
            "nonfinite": torch.zeros(units, dtype=torch.int64),
            "smallest": torch.full((2, units), torch.inf, dtype=torch.float64),
            "largest": torch.full((2, units), -torch.inf, dtype=torch.float64),
        }

    def add(self, state: State, seen: Seen) -> State:
        """One more batch.

        Raises:
            InputError: an image beyond those announced, or coverage of another number of units or positions.
        """
        maps = seen[self.of].detach().cpu().numpy()
        whole = maps.reshape(*maps.shape[:2], -1)
        sums = [self._image(state, image, values) for image, values in zip(seen["index"].tolist(), whole, strict=True)]
        if not sums:
            return state
        rows = torch.from_numpy(np.stack(sums))
        products = exact.two_product(
            rows[:, [one for one, _ in _PRODUCTS]].contiguous(), rows[:, [other for _, other in _PRODUCTS]].contiguous()
        )
        state["sums"] = _added(state["sums"], exact.sum_rows(rows))
        state["products"] = _added(state["products"], exact.sum_rows(products))
        state["images"] = state["images"] + len(rows)
        state["cells"] = state["cells"] + whole.shape[2] * len(rows)
        return state

    def merge(self, left: State, right: State) -> State:
        """Sums add up, exactly; extremes widen."""
        return {name: _JOIN.get(name, torch.add)(left[name], right[name]) for name in left}

    def finish(self, state: State) -> dict[str, Float[np.ndarray, "u"]]:
        """By name, one number for each unit.

        `correlation` (-1 to 1) with `correlation_low` and `correlation_high`, `auroc` (0 to 1, 0.5 for chance) with
        `auroc_low`, `auroc_high` and `auroc_error`. All are nan for a unit that is constant, dead or not finite, and
        for a formula that covers nothing or everything; limits of 95 % intervals also where images are too few.
        """
        spread = state["largest"] - state["smallest"]
        sound = (state["nonfinite"] == 0).numpy() & (spread[0] > 0).numpy() & np.isfinite(self.lowest)
        r, low, high = _correlation(state)
        varied = sound & (spread[1] > 0).numpy()
        auroc, error = self._auroc(state)
        deviation = _jackknife(state["group_counts"].numpy(), state["group_covered"].numpy())
        found = {
            "correlation": np.where(varied, r, np.nan),
            "correlation_low": np.where(varied, low, np.nan),
            "correlation_high": np.where(varied, high, np.nan),
            "auroc": auroc,
            "auroc_low": np.clip(auroc - deviation, 0, 1),
            "auroc_high": np.clip(auroc + deviation, 0, 1),
            "auroc_error": error,
        }
        return {name: np.where(sound, values, np.nan) for name, values in found.items()}

    def size(self, shapes: Mapping[str, tuple[int, ...]]) -> int:  # noqa: ARG002 part of the protocol
        """16 bytes a bin and unit, for the whole and for the groups; about 50 kB a unit."""
        bins = self.steps + 1 + _GROUPS * (-(-self.steps // _COARSE) + 2)
        return len(self.lowest) * (16 * bins + 16 * (5 + len(_PRODUCTS)) + 48) + 16

    def _image(self, state: State, image: int, values: Float[np.ndarray, "u cells"]) -> Float[np.ndarray, "5 u"]:
        """Count one image in the histograms; its sums of a, y, a^2, y^2, ay are returned."""
        if not 0 <= image < self.images:
            message = f"image {image} came where images 0 to {self.images - 1} were announced. Announce all images"
            raise InputError(message)
        covered = self.coverage(image).reshape(len(self.lowest), -1)
        if covered.shape != values.shape:
            message = (
                f"the maps of '{self.of}' hold {values.shape[0]} units of {values.shape[1]} positions, the coverage "
                f"{covered.shape[0]} of {covered.shape[1]}. Give coverage at the resolution of the maps"
            )
            raise InputError(message)
        activation = values.astype(np.float64)
        finite = np.isfinite(activation)
        if not finite.all():
            state["nonfinite"] += torch.from_numpy((~finite).sum(1))
            activation = np.where(finite, activation, 0.0)
        share = covered.astype(np.float64)
        bins = self._bins(activation)
        zero = self._scale.zero[:, None]
        state["stray"] += torch.from_numpy(((bins == zero) & (activation != 0)).sum(1))
        key = bins + self._scale.offset
        steps = torch.from_numpy(np.rint(share * _SHARES).reshape(-1) / _SHARES)
        _count(state["counts"], state["covered"], torch.from_numpy(key.reshape(-1)), steps)
        group = image % _GROUPS
        coarse = torch.from_numpy(self._coarse[0][key].reshape(-1))
        _count(state["group_counts"][group], state["group_covered"][group], coarse, steps)
        both = torch.from_numpy(np.stack([activation, share]))
        state["smallest"] = torch.minimum(state["smallest"], both.amin(2))
        state["largest"] = torch.maximum(state["largest"], both.amax(2))
        a = (activation - self._scale.shift) * self._scale.unit
        products = [np.einsum("uc,uc->u", one, other) for one, other in ((a, a), (share, share), (a, share))]
        return np.asarray(np.rint(np.stack([a.sum(1), share.sum(1), *products]) * _SUMS) / _SUMS)

    def _bins(self, activation: Float[np.ndarray, "u cells"]) -> Int64[np.ndarray, "u cells"]:
        """The bin of each activation, ascending with it: first those below zero, then zero, then those above."""
        scale = self._scale
        above = ((activation - scale.base[:, None]) * scale.up).clip(0, (scale.above - 1)[:, None]).astype(np.int64)
        bins = np.where(activation > 0, scale.zero[:, None] + 1 + above, scale.zero[:, None])
        if (activation < 0).any():
            below = ((scale.top[:, None] - activation) * scale.down).clip(0, (scale.zero - 1)[:, None])
            bins = np.where(activation < 0, scale.zero[:, None] - 1 - below.astype(np.int64), bins)
        return bins

    @cached_property
    def _scale(self) -> _Scale:
        return _Scale.of(np.nan_to_num(self.lowest), np.nan_to_num(self.highest), self.steps)

    @cached_property
    def _coarse(self) -> tuple[Int64[np.ndarray, "fine"], int]:
        """For each bin of each unit, in one row, the wide bin of that unit it is part of; and wide bins of a unit."""
        wide = -(-self.steps // _COARSE) + 2
        away = np.arange(self.steps + 1) - self._scale.zero[:, None]
        steps = np.where(away > 0, -(-away // _COARSE), away // _COARSE)
        first = -(-self._scale.zero // _COARSE)
        place = first[:, None] + steps + np.arange(len(self.lowest))[:, None] * wide
        return place.reshape(-1), wide

    def _auroc(self, state: State) -> tuple[Float[np.ndarray, "u"], Float[np.ndarray, "u"]]:
        """The AUROC and what sharing bins can change in it; zeros are true ties unless other values lie with them."""
        covered = state["covered"].numpy()
        bare = state["counts"].numpy() - covered
        ties = covered * bare
        units = np.arange(len(ties))
        true = np.where(state["stray"].numpy() == 0, ties[units, self._scale.zero], 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            error = (ties.sum(1) - true) / 2 / (covered.sum(1) * bare.sum(1))
        return _area(covered, bare), error


@dataclass(frozen=True)
class _Scale:
    """Where the bins of each unit lie.

    Attributes:
        zero: the bin of exact zeros, equal to the number of bins below it.
        above: number of bins above it.
        base: where the bins above zero start.
        top: where those below zero end.
        up, down: bins per unit of activation.
        shift, unit: activations are summed as `(a - shift) * unit`, mostly 0 to 1, so that squares lose no digits.
        offset: number of each unit's first bin among those of all.
    """

    zero: Int64[np.ndarray, "u"]
    above: Int64[np.ndarray, "u"]
    base: Float[np.ndarray, "u"]
    top: Float[np.ndarray, "u"]
    up: Float[np.ndarray, "u 1"]
    down: Float[np.ndarray, "u 1"]
    shift: Float[np.ndarray, "u 1"]
    unit: Float[np.ndarray, "u 1"]
    offset: Int64[np.ndarray, "u 1"]

    @classmethod
    def of(cls, lowest: Float[np.ndarray, "u"], highest: Float[np.ndarray, "u"], steps: int) -> _Scale:
        """Bins in proportion to the ranges below and above zero, at least one for each side that occurs."""
        lowest, highest = lowest.astype(np.float64), highest.astype(np.float64)
        span = highest - lowest
        share = _ratio(-np.minimum(lowest, 0.0), np.maximum(highest, 0.0) - np.minimum(lowest, 0.0))
        zero = np.rint(share * steps).astype(np.int64)
        zero = np.where((lowest < 0) & (highest > 0), zero.clip(1, steps - 1), zero)
        above = steps - zero
        base, top = np.maximum(lowest, 0.0), np.minimum(highest, 0.0)
        return cls(
            zero=zero,
            above=above,
            base=base,
            top=top,
            up=_ratio(above, np.maximum(highest, 0.0) - base)[:, None],
            down=_ratio(zero, top - np.minimum(lowest, 0.0))[:, None],
            shift=lowest[:, None],
            unit=np.where(span > 0, _ratio(1.0, span), 1.0)[:, None],
            offset=np.arange(len(lowest))[:, None] * (steps + 1),
        )


def _ratio(top: Float[np.ndarray, "*u"] | Int64[np.ndarray, "u"] | float, below: Float[np.ndarray, "u"]) -> np.ndarray:
    """A quotient, 0 where there is nothing to divide by."""
    return np.asarray(np.divide(top, below, out=np.zeros(len(below)), where=below > 0))


def _nearest(cells: int, pixels: int) -> tuple[Int64[np.ndarray, "p"], Int64[np.ndarray, "p"]]:
    """Along one side: position and pixel of every pair that belongs together, all positions having at least one."""
    if pixels >= cells:
        pixel = np.arange(pixels)
        return (2 * pixel + 1) * cells // (2 * pixels), pixel
    cell = np.arange(cells)
    return cell, (2 * cell + 1) * pixels // (2 * cells)


def _zero_pairs(rows: int, units: int) -> list[Tensor]:
    return [torch.zeros((rows, units), dtype=torch.float64) for _ in range(2)]


def _added(pair: Sequence[Tensor], more: Sequence[Tensor]) -> list[Tensor]:
    return list(exact.add(exact.Pair(*pair), exact.Pair(*more)))


_JOIN: Mapping[str, Callable[[Any, Any], Any]] = {
    "sums": _added,
    "products": _added,
    "smallest": torch.minimum,
    "largest": torch.maximum,
}
"""How those parts of two states join that do not add up as they are."""


def _count(counts: Tensor, covered: Tensor, bins: Tensor, shares: Tensor) -> None:
    """Count positions, and their covered shares, in bins."""
    counts.view(-1).scatter_add_(0, bins, torch.ones_like(bins))
    covered.view(-1).scatter_add_(0, bins, shares)


def _area(covered: Float[np.ndarray, "*s bins"], bare: Float[np.ndarray, "*s bins"]) -> Float[np.ndarray, "*s"]:
    """Area under the ROC curve of weights by ascending bins; nan where one side weighs nothing."""
    below = bare.cumsum(-1) - bare / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((covered * below).sum(-1) / (covered.sum(-1) * bare.sum(-1)))


def _jackknife(counts: Int64[np.ndarray, "g u bins"], covered: Float[np.ndarray, "g u bins"]) -> Float[np.ndarray, "u"]:
    """Half the width of the AUROC's interval, from leaving out each group of images in turn."""
    filled = counts.sum((1, 2)) > 0
    groups = int(filled.sum())
    if groups < 2:  # noqa: PLR2004 one group has no spread
        return np.full(counts.shape[1], np.nan)
    positive, negative = covered[filled], counts[filled] - covered[filled]
    whole = positive.sum(0), negative.sum(0)
    without = np.stack([_area(whole[0] - one, whole[1] - other) for one, other in zip(positive, negative, strict=True)])
    variance = (groups - 1) / groups * ((without - without.mean(0)) ** 2).sum(0)
    found: np.ndarray = special.stdtrit(groups - 1, (1 + _CONFIDENCE) / 2) * np.sqrt(variance)
    return found


def _correlation(state: State) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pearson's correlation and the limits of its interval over images.

    An image moves the means by (its sums - cells x means) / all cells; the gradient of the correlation says what that
    moves. All images having one number of cells, the spread of the images needs their products alone.
    """
    images, cells = int(state["images"]), int(state["cells"])
    units = state["nonfinite"].shape[0]
    if not cells:
        return np.full(units, np.nan), np.full(units, np.nan), np.full(units, np.nan)
    means = ((state["sums"][0] + state["sums"][1]) / cells).numpy()
    products = np.zeros((5, 5, units))
    for (one, other), values in zip(_PRODUCTS, (state["products"][0] + state["products"][1]).numpy(), strict=True):
        products[one, other] = products[other, one] = values
    a, y, aa, yy, ay = means
    with np.errstate(invalid="ignore", divide="ignore"):
        var_a, var_y = np.maximum(aa - a * a, 0.0), np.maximum(yy - y * y, 0.0)
        scale = np.sqrt(var_a * var_y)
        r = np.clip((ay - a * y) / scale, -1, 1)
        gradient = np.stack(
            [r * a / var_a - y / scale, r * y / var_y - a / scale, -r / var_a / 2, -r / var_y / 2, 1 / scale]
        )
        spread = products - cells**2 / images * means[:, None] * means[None]
        variance = np.einsum("iu,iju,ju->u", gradient, spread, gradient).clip(0) / cells**2
        if images < 2:  # noqa: PLR2004 one image has no spread
            return r, np.full(units, np.nan), np.full(units, np.nan)
        half = normal_quantile(_CONFIDENCE) * np.sqrt(variance * images / (images - 1)) / (1 - r * r)
        low, high = np.tanh(np.arctanh(r) - half), np.tanh(np.arctanh(r) + half)
    return r, low, high
