"""Counts over signatures for many units at once, on any device, equal to those of `signatures` to the last pixel.

`count_batch` adds a layer's maps of a batch of images to the counts of `CountFold`, for all units together;
`label_sums` and `pair_sums` are the histograms of many units over labels and pairs of labels that meet.

All results are sums of whole numbers, so the order in which a device adds does not matter, and upsampling is exact in
the sense of `active_pixels`: no comparison with a threshold can come out otherwise than there. On a processor too this
is 1.1 to 2.4 times as fast as going unit by unit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64, Num
from torch import Tensor

from neuronscope.errors import InputError
from neuronscope.maths.signatures import Cooccurrence, Signatures, interpolation_matrix

_MOST_BYTES = 1 << 28
"""Memory of intermediate values, in bytes, unless told otherwise."""

_PER_PIXEL = 112
"""Bytes of an upsampled pixel while it is compared and counted, if all are active: its value, and 13 whole numbers."""

_PER_ENTRY = 64
"""Bytes of an entry of a histogram while it is added."""


@dataclass(frozen=True, eq=False)
class BatchLabels:
    """The signatures of a batch of images of one size, on a device.

    Attributes:
        images: number of each image in the set.
        local: signature of every pixel, by its number among its image's.
        first: where each image's signatures start in `signature`.
        signature: signatures of the images, one image after the other.
    """

    images: Int64[Tensor, "n"]
    local: Int[Tensor, "n p"]
    first: Int64[Tensor, "n"]
    signature: Int64[Tensor, "q"]


def batch_labels(
    signatures: Signatures, images: Int[np.ndarray, "n"], *, device: torch.device | str = "cpu"
) -> BatchLabels:
    """Put the signatures of some images on a device.

    Raises:
        InputError: images of several sizes.
    """
    sizes = signatures.pixels[images]
    if len(sizes) and int(sizes.min()) != int(sizes.max()):
        message = (
            f"images of {int(sizes.min())} to {int(sizes.max())} pixels came in one batch, they must be of one size. "
            "Read the label maps at one side, or count image by image"
        )
        raise InputError(message)
    at, start = signatures.first_pixel, signatures.start
    local = np.concatenate(
        [np.zeros(0, signatures.local.dtype), *(signatures.local[at[i] : at[i + 1]] for i in images)]
    )
    # Torch knows few operations on unsigned numbers; local numbers stay far below the sign bit of 32.
    short = local.dtype == np.uint16
    signed = torch.from_numpy(local.view(np.int16 if short else np.int32).reshape(len(images), -1)).to(device)
    numbers = np.concatenate(
        [np.zeros(0, np.int32), *(signatures.pair_signature[start[i] : start[i + 1]] for i in images)]
    )
    sizes = start[images + 1] - start[images]
    return BatchLabels(
        torch.from_numpy(images.astype(np.int64)).to(device),
        signed.to(torch.int32) & 0xFFFF if short else signed,
        torch.from_numpy(np.cumsum(sizes) - sizes).to(device),
        torch.from_numpy(numbers.astype(np.int64)).to(device),
    )


def count_batch(
    state: dict[str, Tensor],
    maps: Float[Tensor, "n u h w"],
    *,
    labels: BatchLabels,
    shape: tuple[int, int],
    lower: Float[Tensor, "u"],
    upper: Float[Tensor, "u"] | None = None,
    most_bytes: int = _MOST_BYTES,
) -> dict[str, Tensor]:
    """The counts of `CountFold` after one more batch.

    Args:
        state: `active` (units, signatures) and `images` (units, images), whole numbers of 32 bits, on any device: only
            what the batch's images can change is moved to it. Built upon, as by every reducer.
        maps: activations of the batch, finite, on the device of `labels`; taken as 32-bit numbers.
        labels: signatures of the batch's images, in the order of `maps`.
        shape: height and width to upsample to.
        lower: of each unit; pixels at this value or under it are not active. A unit with nan never is.
        upper: of each unit; pixels at this value or over it are not active.
        most_bytes: memory of intermediate values on the device, about; at least one map is worked on at a time.

    Raises:
        InputError: maps of other images than the labels, or upsampled to another size.

    Example:
        >>> from neuronscope.maths.signatures import CountFold, assemble, image_signatures
        >>> whole = assemble([image_signatures(np.array([[[1, 2]]])), image_signatures(np.array([[[2, 2]]]))])
        >>> state = {name: torch.from_numpy(values) for name, values in CountFold(whole, 1).start().items()}
        >>> maps, lower = torch.tensor([[[[0.0, 1.0]]], [[[1.0, 1.0]]]]), torch.tensor([0.5])
        >>> state = count_batch(state, maps, labels=batch_labels(whole, np.arange(2)), shape=(1, 2), lower=lower)
        >>> state["active"].tolist(), state["images"].tolist()
        ([[0, 3]], [[1, 2]])
    """
    _check(maps, labels, shape)
    images, units = maps.shape[:2]
    pairs = len(labels.signature)
    home = state["active"].device
    columns, rows = labels.signature.to(home), labels.images.to(home)
    block = max(1, most_bytes // (4 * 4 * max(1, pairs)))  # a quarter for the counts of the batch
    for first in range(0, units, block):
        some = slice(first, min(units, first + block))
        size = some.stop - first
        active = torch.zeros(size * pairs, dtype=torch.int32, device=maps.device)
        per_image = torch.zeros(size * images, dtype=torch.int32, device=maps.device)
        bounds = lower[some], None if upper is None else upper[some]
        for unit, image, pixel in active_positions(
            maps[:, some], lower=bounds[0], upper=bounds[1], shape=shape, most_bytes=most_bytes // 2
        ):
            one = torch.ones_like(unit, dtype=torch.int32)
            active.index_add_(0, unit * pairs + labels.first[image] + labels.local[image, pixel], one)
            per_image.index_add_(0, unit * images + image, one)
        _added(state["active"][some], columns, active.view(size, pairs).to(home))
        _added(state["images"][some], rows, per_image.view(size, images).to(home))
    return state


def active_positions(
    maps: Float[Tensor, "n u h w"],
    *,
    lower: Float[Tensor, "u"],
    upper: Float[Tensor, "u"] | None = None,
    shape: tuple[int, int],
    most_bytes: int = _MOST_BYTES,
) -> Iterator[tuple[Int64[Tensor, "m"], Int64[Tensor, "m"], Int64[Tensor, "m"]]]:
    """`active_pixels` of all units of a batch, a bounded number at a time: units, images of the batch, pixels.

    Args:
        maps: activations, finite; taken as 32-bit numbers.
        lower: of each unit; pixels at this value or under it are not active. A unit with nan never is.
        upper: of each unit; pixels at this value or over it are not active.
        shape: height and width to upsample to.
        most_bytes: memory of intermediate values, about; at least one map is worked on at a time.
    """
    if not maps.numel():
        return
    device, (height, width) = maps.device, maps.shape[2:]
    tall = torch.from_numpy(interpolation_matrix(height, shape[0])).to(device, torch.float64)
    wide = torch.from_numpy(interpolation_matrix(width, shape[1])).to(device, torch.float64).T.contiguous()
    low = lower.to(device, torch.float64)
    high = None if upper is None else upper.to(device, torch.float64)
    strongest = maps.amax((2, 3)).to(torch.float32).T
    unit, image = torch.nonzero(strongest > low[:, None], as_tuple=True)
    step = max(1, most_bytes // (_PER_PIXEL * shape[0] * max(shape[1], width)))
    for first in range(0, len(unit), step):
        u, i = unit[first : first + step], image[first : first + step]
        found, pixel = _upsampled(maps[i, u], low[u], None if high is None else high[u], tall, wide)
        if len(found):
            yield u[found], i[found], pixel


def _upsampled(
    maps: Float[Tensor, "c h w"],
    low: Float64[Tensor, "c"],
    high: Float64[Tensor, "c"] | None,
    tall: Float64[Tensor, "H h"],
    wide: Float64[Tensor, "w W"],
) -> tuple[Int64[Tensor, "m"], Int64[Tensor, "m"]]:
    """Maps and pixels between the bounds. The roundings are those of `active_pixels`: 32 bits between the products.

    In 64 bits a product of two 32-bit numbers is exact, and no device shortens them (as TF32 does with 32).
    """
    height, width = len(tall), wide.shape[1]
    rows = (tall @ maps.to(torch.float32).double()).float().flatten(0, 1)
    owner = torch.arange(len(maps), device=maps.device).repeat_interleave(height)
    (chosen,) = torch.nonzero(rows.amax(1) > low[owner], as_tuple=True)
    values = rows[chosen].double() @ wide
    active = values > low[owner[chosen]][:, None]
    if high is not None:
        active &= values < high[owner[chosen]][:, None]
    row, column = torch.nonzero(active, as_tuple=True)
    place = chosen[row]
    return owner[place], place % height * width + column


def _added(counts: Int[Tensor, "u s"], columns: Int64[Tensor, "q"], more: Int[Tensor, "u q"]) -> None:
    """Add to some columns, each as often as it is named."""
    counts.scatter_add_(1, columns.expand_as(more), more)


def _check(maps: Tensor, labels: BatchLabels, shape: tuple[int, int]) -> None:
    images, pixels = labels.local.shape
    if len(maps) != images or shape[0] * shape[1] != pixels:
        message = (
            f"maps of {len(maps)} images are to be upsampled to {shape[0]}x{shape[1]}, but the labels are of {images} "
            f"images of {pixels} pixels. Give the labels of the same images, and their height and width as `shape`"
        )
        raise InputError(message)


@dataclass(frozen=True, eq=False)
class LabelTables:
    """Which labels and pairs of labels each signature carries, on a device.

    Attributes:
        columns: places of the labels counted from 1, 0 for none, as in `Cooccurrence`.
        start: where each signature's pairs start in `pair`, and the total.
        pair: pairs of each signature.
        labels: labels that occur.
        pairs: pairs of labels that meet.
    """

    columns: Int64[Tensor, "s width"]
    start: Int64[Tensor, "_"]
    pair: Int64[Tensor, "e"]
    labels: int
    pairs: int


def label_tables(together: Cooccurrence, *, device: torch.device | str = "cpu") -> LabelTables:
    """Put what labels occur together on a device."""
    columns, start, pair = (
        torch.from_numpy(array.astype(np.int64)).to(device)
        for array in (together.columns, together.start, together.pair)
    )
    return LabelTables(columns, start, pair, len(together.numbers), len(together.pairs))


def label_sums(
    values: Num[Tensor, "u s"], tables: LabelTables, *, most_bytes: int = _MOST_BYTES
) -> Int64[Tensor, "u k"] | Float64[Tensor, "u k"]:
    """Sums of the signatures' values for each label: the active pixels of every unit, or of its formula.

    Args:
        values: for each unit, of each signature; exact for whole numbers with sums under 2^53.
        tables: on the same device.
        most_bytes: memory of intermediate values, about.

    Returns:
        64-bit whole numbers for whole numbers, 64-bit floating point for others.
    """
    sums = _empty(values, len(values) * (tables.labels + 1))
    width = max(1, tables.columns.shape[1])
    for found in _present(values, torch.full_like(tables.start[1:], width), most_bytes):
        code = found.unit[:, None] * (tables.labels + 1) + tables.columns[found.signature]
        sums.index_add_(0, code.flatten(), found.value.to(sums.dtype).repeat_interleave(tables.columns.shape[1]))
    return sums.view(len(values), tables.labels + 1)[:, 1:]


def pair_sums(
    values: Num[Tensor, "u s"], tables: LabelTables, *, most_bytes: int = _MOST_BYTES
) -> Int64[Tensor, "u pairs"] | Float64[Tensor, "u pairs"]:
    """Sums of the signatures' values for each pair of labels that meet: what a proof looks up, for many units.

    Args, precision and result as in `label_sums`.
    """
    sums = _empty(values, len(values) * tables.pairs)
    sizes = tables.start.diff()
    for found in _present(values, sizes, most_bytes):
        count = sizes[found.signature]
        before = (tables.start[found.signature] - count.cumsum(0) + count).repeat_interleave(count)
        pair = tables.pair[before + torch.arange(len(before), device=values.device)]
        code = found.unit.repeat_interleave(count) * tables.pairs + pair
        sums.index_add_(0, code, found.value.to(sums.dtype).repeat_interleave(count))
    return sums.view(len(values), tables.pairs)


class _Present(NamedTuple):
    """Values that are not 0, with their units and signatures."""

    unit: Int64[Tensor, "m"]
    signature: Int64[Tensor, "m"]
    value: Num[Tensor, "m"]


def _present(values: Num[Tensor, "u s"], sizes: Int64[Tensor, "s"], most_bytes: int) -> Iterator[_Present]:
    """The values that are not 0, in parts whose signatures have a bounded number of entries together."""
    units = max(1, most_bytes // (32 * max(1, values.shape[1])))
    for first in range(0, len(values), units):
        unit, signature = torch.nonzero(values[first : first + units], as_tuple=True)
        unit = unit + first
        entries = sizes[signature].cumsum(0)
        most, start = max(1, most_bytes // _PER_ENTRY), 0
        while start < len(unit):
            before = entries[start - 1] if start else entries.new_zeros(())
            end = max(start + 1, int(torch.searchsorted(entries, before + most, right=True)))
            some = unit[start:end], signature[start:end]
            yield _Present(*some, values[some])
            start = end


def _empty(values: Tensor, size: int) -> Tensor:
    kind = torch.float64 if values.is_floating_point() else torch.int64
    return torch.zeros(size, dtype=kind, device=values.device)
