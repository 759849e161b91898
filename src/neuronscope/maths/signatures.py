"""Label maps without their pixels: the distinct sets of labels, how often each occurs, and where.

A formula over concepts sees a pixel only through the labels that the pixel carries. So the pixels of a labelled image
set can be replaced, without any loss, by the *signatures*: the distinct label sets, each with its number of pixels.
A unit's mask becomes the number of active pixels of each signature, and the area of a formula, its intersection with
the unit and the intersection that chance gives inside each image are sums over the signatures that satisfy it.

One image is reduced by `image_signatures`, a pure function that processes can share out; `assemble` puts images
together and `join` puts parts together. The order is canonical (signatures ascend as label tuples, local numbers of an
image ascend with them), so parts joined in order equal the whole built at once.

`unit_counts` counts one unit, `CountFold` blocks of units during a pass; `active_pixels` goes from a unit's maps to its
active pixels. What an image set costs is announced by `expected_bytes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32, Int64, Integer

from neuronscope.errors import DataError, InputError

_WORD = 64
"""Bits of the words that label tuples are packed into."""

_DENSE = 1 << 18
"""Codes of an image up to which a table of the codes that occur is cheaper than sorting its pixels."""

_BLOCK = 1 << 22
"""Entries of a table of label pairs that are made at a time."""

_CACHE = 64
"""Images upsampled at a time: their maps stay in the processor's cache."""

_WEIGHT_UNIT = 1 << 23
"""Weights of upsampling are multiples of one over this: they and their complements fit 24 bits."""


@dataclass(frozen=True)
class ImageSignatures:
    """One image, reduced.

    Attributes:
        table: the label sets that occur in the image, one per row: labels ascending, 0 behind the last; rows ascend.
        pixels: pixels with each label set, at least 1.
        local: row of `table` of every pixel, row by row of the image.
    """

    table: Integer[np.ndarray, "m width"]
    pixels: Int64[np.ndarray, "m"]
    local: Integer[np.ndarray, "p"]


@dataclass(frozen=True)
class Signatures:
    """A labelled image set as distinct label sets.

    Attributes:
        table: the label sets, one per row: label numbers ascending, 0 behind the last; rows ascend. The row of zeros,
            pixels without any label, is a signature like the others.
        weight: pixels of each signature over all images.
        pixels: pixels of each image.
        local: for every pixel of every image, image by image, the number of its signature among its image's.
        start: where each image's signatures start in `pair_signature`, and the total.
        pair_signature: signatures of each image, ascending: position `start[i] + local` is a pixel's signature.
        pair_pixels: pixels of that signature in that image.
    """

    table: Integer[np.ndarray, "s width"]
    weight: Int64[np.ndarray, "s"]
    pixels: Int64[np.ndarray, "n"]
    local: Integer[np.ndarray, "p"]
    start: Int64[np.ndarray, "_"]
    pair_signature: Int32[np.ndarray, "q"]
    pair_pixels: Int32[np.ndarray, "q"]

    def __len__(self) -> int:
        """Number of signatures."""
        return len(self.weight)

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.pixels)

    @cached_property
    def cells(self) -> int:
        """Pixels of the largest image; where all have one size, that of every image."""
        return int(self.pixels.max()) if len(self.pixels) else 0

    @property
    def labels(self) -> int:
        """The highest label number that occurs, 0 without any."""
        return len(self.area) - 1

    @cached_property
    def first_pixel(self) -> Int64[np.ndarray, "_"]:
        """Where each image's pixels start in `local`, and the total."""
        return _starts(self.pixels)

    @cached_property
    def area(self) -> Int64[np.ndarray, "k"]:
        """Pixels of every label number from 0 (always 0, no label) to the highest."""
        highest = int(self.table.max(initial=0))
        area = np.zeros(highest + 1, dtype=np.int64)
        for column in self.table.T:
            area += _summed(column, self.weight, len(area))
        area[0] = 0
        return area

    @cached_property
    def inverted(self) -> tuple[Int64[np.ndarray, "k1"], Int32[np.ndarray, "e"]]:
        """Which signatures carry a label: label c's are `signatures[start[c]:start[c + 1]]`, ascending."""
        rows, columns = np.nonzero(self.table)
        labels = self.table[rows, columns]
        order = np.argsort(labels, kind="stable")
        return _starts(np.bincount(labels, minlength=self.labels + 1)), rows[order].astype(np.int32)

    @property
    def pair_image(self) -> Int32[np.ndarray, "q"]:
        """Image of each image-signature pair."""
        return np.repeat(np.arange(self.images, dtype=np.int32), np.diff(self.start))

    @property
    def nbytes(self) -> int:
        """Bytes held, without what is derived on demand."""
        held = (self.table, self.weight, self.pixels, self.local, self.start, self.pair_signature, self.pair_pixels)
        return sum(array.nbytes for array in held)

    def signatures_of(self, label: int) -> Int32[np.ndarray, "e"]:
        """Signatures that carry a label; none for a label number that does not occur."""
        start, signatures = self.inverted
        chosen = slice(int(start[label]), int(start[label + 1])) if 0 < label <= self.labels else slice(0)
        found: np.ndarray = signatures[chosen]
        return found

    def signature_map(self, image: int) -> Int32[np.ndarray, "p"]:
        """Signature of every pixel of an image."""
        numbers = self.pair_signature[self.start[image] : self.start[image + 1]]
        found: np.ndarray = numbers[self.local[self.first_pixel[image] : self.first_pixel[image + 1]]]
        return found

    def part(self, images: Int[np.ndarray, "chosen"]) -> Signatures:
        """Some images, in the given order, with the same signature numbers; those that do not occur weigh 0.

        Example:
            >>> whole = assemble([image_signatures(np.array([[[1, 2]]])), image_signatures(np.array([[[2, 2]]]))])
            >>> whole.part(np.array([1])).weight
            array([0, 2])
        """
        chosen = _ranges(self.start[images], self.start[images + 1])
        spots = _ranges(self.first_pixel[images], self.first_pixel[images + 1])
        numbers, counts = self.pair_signature[chosen], self.pair_pixels[chosen]
        return Signatures(
            self.table,
            _summed(numbers, counts, len(self)),
            self.pixels[images],
            self.local[spots],
            _starts(np.diff(self.start)[images]),
            numbers,
            counts,
        )


def image_signatures(layers: Integer[np.ndarray, "layers h w"], whole: Sequence[int] = ()) -> ImageSignatures:
    """Reduce one image.

    Args:
        layers: maps of label numbers, 0 for no label. Several layers may label the same pixel; a label that is in two
            layers of a pixel counts once.
        whole: label numbers that hold for the whole image; 0 is ignored.

    Raises:
        DataError: a label number below 0.

    Example:
        >>> layers = np.array([[[1, 1], [0, 2]], [[3, 0], [0, 1]]])
        >>> image_signatures(layers, whole=[7]).table
        array([[1, 2, 7],
               [1, 3, 7],
               [1, 7, 0],
               [7, 0, 0]])
    """
    flat = layers.reshape(len(layers), layers.shape[1] * layers.shape[2])
    if (flat.size and int(flat.min()) < 0) or min(whole, default=0) < 0:
        lowest = min(int(flat.min(initial=0)), *whole, 0)
        message = f"label number {lowest} is below 0: labels count from 1, 0 is no label. Look at the file that gave it"
        raise DataError(message)
    code = np.zeros(flat.shape[1], dtype=np.int64)
    rows = np.zeros((1, 0), dtype=np.int64)
    for layer in flat:
        values, dense = _ranked(layer)
        if len(values) == 1:
            rows = np.column_stack([rows, np.full(len(rows), values[0])]) if values[0] else rows
            continue
        distinct, code = _ranked(code * len(values) + dense)
        rows = np.column_stack([rows[distinct // len(values)], values[distinct % len(values)]])
    rows = np.column_stack([rows, np.broadcast_to(np.asarray(whole, dtype=np.int64), (len(rows), len(whole)))])
    table, number = _distinct(_as_sets(rows))
    local = number[code]
    pixels = np.bincount(local, minlength=len(table))
    return ImageSignatures(table, pixels, local.astype(np.uint16 if len(table) <= 1 << 16 else np.uint32))


def assemble(images: Iterable[ImageSignatures]) -> Signatures:
    """Put images together, in order; each may be dropped by the caller once it was handed over."""
    made = list(images)
    numbers = np.array([len(image.pixels) for image in made], dtype=np.int64)
    width = max((image.table.shape[1] for image in made), default=0)
    highest = max((int(image.table.max(initial=0)) for image in made), default=0)
    stacked = np.zeros((int(numbers.sum()), width), dtype=_label_type(highest))
    start = _starts(numbers)
    for at, image in zip(start, made, strict=False):
        stacked[at : at + len(image.table), : image.table.shape[1]] = image.table
    counts = np.concatenate([np.zeros(0, np.int64), *(image.pixels for image in made)])
    pixels = np.array([len(image.local) for image in made], dtype=np.int64)
    local = np.empty(int(pixels.sum()), dtype=np.uint16 if numbers.max(initial=0) <= 1 << 16 else np.uint32)
    at = len(local)
    while made:  # an image's map is freed as soon as it is copied: the maps are the bulk of the memory
        last = made.pop().local
        at -= len(last)
        local[at : at + len(last)] = last
    table, number = _distinct(stacked)
    return Signatures(
        table,
        _summed(number, counts, len(table)),
        pixels,
        local,
        start,
        number.astype(np.int32),
        counts.astype(np.int32),
    )


def join(parts: Sequence[Signatures]) -> Signatures:
    """Consecutive parts of an image set as one: the same as `assemble` of all their images.

    Raises:
        InputError: no part.
    """
    if not parts:
        message = "no part to join: at least one is needed, 0 came. Reduce some images first"
        raise InputError(message)
    width = max(part.table.shape[1] for part in parts)
    highest = max(part.labels for part in parts)
    stacked = np.zeros((sum(len(part) for part in parts), width), dtype=_label_type(highest))
    first = _starts(np.array([len(part) for part in parts]))
    for at, part in zip(first, parts, strict=False):
        stacked[at : at + len(part), : part.table.shape[1]] = part.table
    pairs = np.concatenate([part.pair_signature + at for at, part in zip(first, parts, strict=False)])
    counts = np.concatenate([part.pair_pixels for part in parts])
    # A signature that occurs in none of the images (see `part`) has no place in the canonical table.
    used = np.zeros(len(stacked), dtype=bool)
    used[pairs] = True
    table, number = _distinct(stacked[used])
    place = np.cumsum(used) - 1
    numbers = number[place[pairs]]
    widest = max((part.local.dtype for part in parts), key=lambda kind: kind.itemsize)
    return Signatures(
        table,
        _summed(numbers, counts, len(table)),
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.local for part in parts], dtype=widest),
        _starts(np.concatenate([np.diff(part.start) for part in parts])),
        numbers.astype(np.int32),
        counts,
    )


def expected_bytes(*, images: int, cells: int, per_image: int = 128, width: int = 6) -> int:
    """Bytes that `assemble` takes at its peak.

    Args:
        images: images.
        cells: pixels of an image.
        per_image: signatures of an image; 114 on images labelled like ADE20K with colours.
        width: labels of a pixel, at most.
    """
    maps = 2 * images * cells
    pairs = images * per_image
    return maps + pairs * (2 * width + 8 + 8 + 4 * 8)  # rows, counts, and the sorting of the packed rows


@dataclass(frozen=True)
class Cooccurrence:
    """Pairs of labels that some pixel carries together; labels by their place in `numbers`.

    Attributes:
        numbers: the label numbers that occur, ascending.
        columns: the signature table with places in `numbers` counted from 1, 0 for none.
        pairs: the pairs of places (from 0), first below second, ascending.
        area: pixels of each pair.
        start: where each signature's pairs start in `pair`, and the total.
        pair: pairs of each signature.
        by_start: where each pair's signatures start in `by_signature`, and the total.
        by_signature: signatures of each pair, ascending.
    """

    numbers: Int64[np.ndarray, "k"]
    columns: Int32[np.ndarray, "s width"]
    pairs: Int32[np.ndarray, "pairs 2"]
    area: Int64[np.ndarray, "pairs"]
    start: Int64[np.ndarray, "_"]
    pair: Int32[np.ndarray, "e"]
    by_start: Int64[np.ndarray, "_"]
    by_signature: Int32[np.ndarray, "e"]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        held = (self.numbers, self.columns, self.pairs, self.area, self.start, self.pair, self.by_start)
        return sum(array.nbytes for array in held) + self.by_signature.nbytes


def cooccurrence(signatures: Signatures) -> Cooccurrence:
    """Which labels occur together in a pixel, and in which signatures."""
    numbers = np.flatnonzero(_occurring(signatures))
    place = np.zeros(signatures.labels + 1, dtype=np.int32)
    place[numbers] = np.arange(1, len(numbers) + 1)
    columns = place[signatures.table]
    k, width = len(numbers), columns.shape[1]
    left, right = np.triu_indices(width, 1)
    block = max(1, _BLOCK // max(1, len(left)))
    codes, sizes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for first in range(0, len(columns), block):
        some = columns[first : first + block].astype(np.int64)
        code = (some[:, left] - 1) * k + some[:, right] - 1
        there = some[:, right] > 0  # zeros stand behind the labels, so the left one is there too
        codes.append(code[there])
        sizes.append(there.sum(1))
    flat = np.concatenate(codes)
    seen = np.zeros(k * k, dtype=bool)
    seen[flat] = True
    distinct = np.flatnonzero(seen)
    number = np.zeros(k * k, dtype=np.int32)
    number[distinct] = np.arange(len(distinct), dtype=np.int32)
    pair, counts = number[flat], np.concatenate(sizes)
    of_entry = np.repeat(np.arange(len(columns), dtype=np.int32), counts)
    return Cooccurrence(
        numbers,
        columns,
        np.stack([distinct // max(1, k), distinct % max(1, k)], axis=1).astype(np.int32),
        _summed(pair, signatures.weight[of_entry], len(distinct)),
        _starts(counts),
        pair,
        _starts(np.bincount(pair, minlength=len(distinct))),
        of_entry[np.argsort(pair, kind="stable")],
    )


@dataclass(frozen=True)
class UnitCounts:
    """A unit's mask, reduced.

    Attributes:
        active: active pixels of each signature.
        images: active pixels of each image.
        chance: for each signature, the sum over its pixels of the unit's active pixels in the pixel's image, in images
            of `cells` pixels; divided by `cells`, the intersection to expect if the mask lay at random inside each
            image. Images of other sizes are scaled to `cells`.
        own_chance: the same sum over the unit's own active pixels.
        cells: pixels of the (largest) image.
    """

    active: Int64[np.ndarray, "s"]
    images: Int64[np.ndarray, "n"]
    chance: Float[np.ndarray, "s"]
    own_chance: float
    cells: int

    @property
    def area(self) -> int:
        """Active pixels."""
        return int(self.active.sum())


def unit_counts(signatures: Signatures, image: Integer[np.ndarray, "m"], pixel: Integer[np.ndarray, "m"]) -> UnitCounts:
    """Count one unit from its active pixels, each given once.

    Args:
        signatures: the image set.
        image: image of each active pixel.
        pixel: its number in the image, row by row.

    Raises:
        InputError: an image or a pixel that is not in the set.

    Example:
        >>> whole = assemble([image_signatures(np.array([[[1, 2]]])), image_signatures(np.array([[[2, 2]]]))])
        >>> unit_counts(whole, np.array([0, 1]), np.array([1, 1])).active
        array([0, 2])
    """
    numbers = signature_of(signatures, image, pixel)
    active = np.bincount(numbers, minlength=len(signatures))
    return _unit(signatures, active, np.bincount(image, minlength=signatures.images))


def mask_counts(signatures: Signatures, masks: Bool[np.ndarray, "n h w"]) -> UnitCounts:
    """Count one unit from a mask of every image, all images being of one size."""
    image, pixel = np.nonzero(masks.reshape(len(masks), -1))
    return unit_counts(signatures, image, pixel)


def signature_of(
    signatures: Signatures, image: Integer[np.ndarray, "m"], pixel: Integer[np.ndarray, "m"]
) -> Int32[np.ndarray, "m"]:
    """Signature of pixels of images.

    Raises:
        InputError: an image or a pixel that is not in the set.
    """
    if len(image) and (int(image.min()) < 0 or int(image.max()) >= signatures.images):
        message = (
            f"images {int(image.min())} to {int(image.max())} have active pixels, but the labels cover images 0 to "
            f"{signatures.images - 1}. Give activations of the images that were labelled"
        )
        raise InputError(message)
    first = signatures.first_pixel
    if len(image) and (int(pixel.min()) < 0 or bool((pixel >= signatures.pixels[image]).any())):
        message = (
            f"pixel {int(pixel.max())} is active, but the label maps have at most {signatures.cells} pixels. "
            "Upsample the activations to the size of the label maps"
        )
        raise InputError(message)
    local = signatures.local[first[image] + pixel]
    found: np.ndarray = signatures.pair_signature[signatures.start[image] + local]
    return found


def chance_counts(signatures: Signatures, images: Int64[np.ndarray, "n"]) -> Float[np.ndarray, "s"]:
    """`UnitCounts.chance` from a unit's active pixels of each image."""
    firing = np.flatnonzero(images)
    start, end = signatures.start[firing], signatures.start[firing + 1]
    chosen = _ranges(start, end)
    share = images[firing] * (signatures.cells / signatures.pixels[firing])
    weights = np.repeat(share, end - start) * signatures.pair_pixels[chosen]
    return np.bincount(signatures.pair_signature[chosen], weights=weights, minlength=len(signatures)).astype(np.float64)


CountState = dict[str, np.ndarray]
"""`active` (units, signatures) and `images` (units, images), whole numbers of 32 bits."""


@dataclass(frozen=True, eq=False)
class CountFold:
    """Folds the active pixels of a pass over the images into counts, for a block of units.

    Example:
        >>> whole = assemble([image_signatures(np.array([[[1, 2]]])), image_signatures(np.array([[[2, 2]]]))])
        >>> fold = CountFold(whole, units=2)
        >>> state = fold.add(fold.start(), unit=np.array([1, 1]), image=np.array([0, 1]), pixel=np.array([0, 1]))
        >>> [counts.active.tolist() for counts in fold.finish(state)]
        [[0, 0], [1, 1]]
    """

    signatures: Signatures
    units: int

    def start(self) -> CountState:
        """Nothing seen."""
        return {
            "active": np.zeros((self.units, len(self.signatures)), dtype=np.int32),
            "images": np.zeros((self.units, self.signatures.images), dtype=np.int32),
        }

    def add(
        self,
        state: CountState,
        *,
        unit: Integer[np.ndarray, "m"],
        image: Integer[np.ndarray, "m"],
        pixel: Integer[np.ndarray, "m"],
    ) -> CountState:
        """Some active pixels more, each named by its unit in the block, its image and its number in the image."""
        row = unit.astype(np.int64)
        numbers = signature_of(self.signatures, image, pixel)
        np.add.at(state["active"].reshape(-1), row * len(self.signatures) + numbers, 1)
        np.add.at(state["images"].reshape(-1), row * self.signatures.images + image, 1)
        return state

    def merge(self, left: CountState, right: CountState) -> CountState:
        """Counts add up."""
        for name in left:
            left[name] += right[name]
        return left

    def finish(self, state: CountState) -> Iterator[UnitCounts]:
        """The units' counts, one after the other: together in 64 bits they would double the memory."""
        for active, images in zip(state["active"], state["images"], strict=True):
            yield _unit(self.signatures, active.astype(np.int64), images.astype(np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of a state."""
        return 4 * self.units * (len(self.signatures) + self.signatures.images)


def interpolation_matrix(source: int, target: int) -> Float32[np.ndarray, "target source"]:
    """Weights of bilinear upsampling along one side, pixel centres at halves (torch's `align_corners=False`).

    Weights are whole multiples of 2^-23. So the two of a pixel sum to exactly 1, and an interpolated value never
    exceeds those it is made from, not by the last bit either.

    Example:
        >>> interpolation_matrix(2, 4).tolist()
        [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    centre = np.clip((np.arange(target) + 0.5) * (source / target) - 0.5, 0, source - 1)
    low = np.floor(centre).astype(np.int64)
    high = np.minimum(low + 1, source - 1)
    share = np.round((centre - low) * _WEIGHT_UNIT) / _WEIGHT_UNIT
    matrix = np.zeros((target, source))
    matrix[np.arange(target), high] = share
    matrix[np.arange(target), low] += 1 - share
    return matrix.astype(np.float32)


def active_pixels(
    maps: Float[np.ndarray, "n h w"],
    *,
    above: float,
    below: float = float("inf"),
    shape: tuple[int, int],
) -> tuple[Int64[np.ndarray, "m"], Int64[np.ndarray, "m"]]:
    """Pixels in which a unit's upsampled maps lie strictly between two bounds: their images and numbers.

    Only maps with a value above `above` are upsampled, and of those only rows: a bilinear value never exceeds those it
    is made from. (Section 2.4 of the originals: CE, CCE.)

    Columns are interpolated first and rounded to 32 bits, then rows. Both products are taken in 64 bits, where a weight
    times an activation is exact: what remains is one rounded sum of two numbers, the same in every order and with fused
    arithmetic. So `signature_counts.count_batch` finds the same pixels on other devices.

    Args:
        maps: a unit's activations in every image, finite; taken as 32-bit numbers.
        above: pixels at this value or under it are not active.
        below: pixels at this value or over it are not active.
        shape: height and width to upsample to.
    """
    tall = interpolation_matrix(maps.shape[1], shape[0]).astype(np.float64)
    wide = interpolation_matrix(maps.shape[2], shape[1]).T.astype(np.float64)
    exact = maps.astype(np.float32, copy=False)
    # As an array of 64 bits: numpy would round a plain number to the 32 bits of the activations.
    bound = np.asarray(above, dtype=np.float64)
    firing = np.flatnonzero(exact.reshape(len(exact), -1).max(1, initial=-np.inf) > bound)
    images, pixels = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for first in range(0, len(firing), _CACHE):
        some = firing[first : first + _CACHE]
        high = np.matmul(tall, exact[some]).astype(np.float32)
        rows = high.reshape(-1, maps.shape[2])
        chosen = np.flatnonzero(rows.max(1) > bound)
        values = rows[chosen] @ wide
        flat = np.flatnonzero((values > above) & (values < below) if np.isfinite(below) else values > above)
        row, column = np.divmod(flat, shape[1])
        image, line = np.divmod(chosen[row], shape[0])
        images.append(some[image])
        pixels.append(line * shape[1] + column)
    return np.concatenate(images), np.concatenate(pixels)


def _unit(signatures: Signatures, active: Int64[np.ndarray, "s"], images: Int64[np.ndarray, "n"]) -> UnitCounts:
    """The counts with what follows from them."""
    firing = np.flatnonzero(images)
    own = float((images[firing] ** 2 * (signatures.cells / signatures.pixels[firing])).sum())
    return UnitCounts(active, images, chance_counts(signatures, images), own, signatures.cells)


def _starts(sizes: Integer[np.ndarray, "m"]) -> Int64[np.ndarray, "_"]:
    """Running total from 0."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])


def _ranges(start: Int64[np.ndarray, "m"], end: Int64[np.ndarray, "m"]) -> Int64[np.ndarray, "total"]:
    """All whole numbers of several ranges, one range after the other."""
    sizes = end - start
    found: np.ndarray = np.arange(int(sizes.sum())) + np.repeat(start - (np.cumsum(sizes) - sizes), sizes)
    return found


def _summed(number: Integer[np.ndarray, "m"], values: Integer[np.ndarray, "m"], size: int) -> Int64[np.ndarray, "size"]:
    """Sum of values by number; exact, for sums under 2^53 pixels."""
    return np.bincount(number, weights=values, minlength=size).astype(np.int64)


def _label_type(highest: int) -> type[np.uint16 | np.uint32]:
    return np.uint16 if highest < 1 << 16 else np.uint32


def _occurring(signatures: Signatures) -> Bool[np.ndarray, "k"]:
    """Label numbers in the table, also those without a pixel in a `part`."""
    seen = np.zeros(signatures.labels + 1, dtype=bool)
    seen[signatures.table.reshape(-1)] = True
    seen[0] = False
    return seen


def _ranked(values: Integer[np.ndarray, "p"]) -> tuple[Int64[np.ndarray, "m"], Int64[np.ndarray, "p"]]:
    """Distinct values, ascending, and each value's place among them; by a table where the values are small."""
    highest = int(values.max(initial=0))
    if highest >= _DENSE:
        distinct, place = np.unique(values, return_inverse=True)
        return distinct.astype(np.int64), place.astype(np.int64)
    seen = np.zeros(highest + 1, dtype=bool)
    seen[values] = True
    distinct = np.flatnonzero(seen)
    if len(distinct) == 1:
        return distinct, np.zeros(len(values), dtype=np.int64)
    place = np.zeros(highest + 1, dtype=np.int64)
    place[distinct] = np.arange(len(distinct))
    return distinct, place[values]


def _as_sets(rows: Int64[np.ndarray, "m width"]) -> Int64[np.ndarray, "m width2"]:
    """Labels of each row once, ascending, zeros behind; as wide as the fullest row."""
    if not rows.size:
        return np.zeros((len(rows), 0), dtype=np.int64)
    none = np.iinfo(np.int64).max
    ordered = np.sort(np.where(rows == 0, none, rows), axis=1)
    ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = none
    ordered.sort(axis=1)
    ordered[ordered == none] = 0
    return ordered[:, : int((ordered > 0).sum(1).max())]


def _distinct(
    rows: Integer[np.ndarray, "m width"],
) -> tuple[Integer[np.ndarray, "s width"], Int64[np.ndarray, "m"]]:
    """Distinct rows, ascending, and each row's place among them. Exact: rows are packed, not hashed."""
    bits = max(1, int(rows.max(initial=0)).bit_length())
    per_word = _WORD // bits
    words = [np.zeros(len(rows), dtype=np.uint64)]
    for place in range(rows.shape[1]):
        if place and place % per_word == 0:
            words.append(np.zeros(len(rows), dtype=np.uint64))
        words[-1] = (words[-1] << np.uint64(bits)) | rows[:, place].astype(np.uint64)
    if len(words) == 1:
        _, first, number = np.unique(words[0], return_index=True, return_inverse=True)
        return rows[first], number.astype(np.int64)
    order = np.lexsort(words[::-1])
    new = np.zeros(len(rows), dtype=bool)
    new[:1] = True
    for word in words:
        ordered = word[order]
        new[1:] |= ordered[1:] != ordered[:-1]
    number = np.empty(len(rows), dtype=np.int64)
    number[order] = np.cumsum(new) - 1
    return rows[order[new]], number
