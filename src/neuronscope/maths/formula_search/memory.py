"""What a search takes in memory, said before it starts, and units in blocks that fit.

The bulk is known from a few sizes: the label maps and tables of signatures, the tables of all pairs of labels that a
proof needs, and the counts of the units that are counted in one pass. A plan that runs before the images are read uses
`expected_size`, an upper bound for label sets like those of Broden; `size_of` gives the sizes of tables that exist.
"""

from __future__ import annotations

from dataclasses import dataclass

from neuronscope.errors import InputError
from neuronscope.maths.formula_search.spec import CERTIFIED_LENGTH, SearchSpec
from neuronscope.maths.formula_search.tables import SearchTables

_COUNT = 4
"""Bytes of a count of a block of units."""

_PER_IMAGE = 128
"""Signatures of an image; 110 on images labelled like ADE20K with colours."""

_WIDTH = 6
"""Labels of a pixel."""

_SHARED_PAIR = 12
"""Bytes that a proof keeps for each pair of labels for all units: its area, and its number."""

_PAIR = 35
"""Bytes of each pair of labels while a unit is proved: its pixels, three sums of one round, three marks."""

_CHANCE_PAIR = 8
"""More, for a score that looks at chance."""

_BLOCK_PAIRS, _BLOCK_TABLES = 1 << 18, 12
"""Pairs of labels that a proof bounds at a time, and tables of 8 bytes that it makes of them."""

_PER_SIGNATURE = 40
"""Bytes of each signature while a unit is searched: its mask in the formulas of a beam, and what is summed by label."""

_PER_ENTRY = 58
"""Bytes of each signature's pairs of labels while they are numbered and sorted."""


@dataclass(frozen=True, kw_only=True)
class SetSize:
    """What the memory of a search depends on.

    Attributes:
        images: images.
        pixels: pixels of all images.
        signatures: distinct label sets.
        image_pairs: pairs of an image and a label set in it.
        width: labels of a pixel, at most.
        labels: labels that occur.
        label_pairs: pairs of labels that some pixel carries together.
        entries: pairs of labels of each label set, all together.
    """

    images: int
    pixels: int
    signatures: int
    image_pairs: int
    width: int
    labels: int
    label_pairs: int
    entries: int


@dataclass(frozen=True, kw_only=True)
class SearchBytes:
    """Bytes of a search, by what they are for.

    Attributes:
        signatures: the labelled images.
        tables: what all units share besides: labels that occur together, and for a proof all pairs of labels.
        building: more, while the tables are made.
        counts: of one block of units.
        unit: more, while one unit is searched.
        blocks: blocks of units, counted in one pass over the images each.
    """

    signatures: int
    tables: int
    building: int
    counts: int
    unit: int
    blocks: int

    @property
    def peak(self) -> int:
        """The most at any time: while tables are made, or while a unit is searched beside the counts of its block."""
        return self.signatures + self.tables + max(self.building, self.counts + self.unit)


def expected_size(*, images: int, cells: int, labels: int, per_image: int = _PER_IMAGE, width: int = _WIDTH) -> SetSize:
    """Sizes to expect at most before the label maps are read.

    Args:
        images: images.
        cells: pixels of an image.
        labels: labels.
        per_image: signatures of an image.
        width: labels of a pixel.
    """
    pairs = images * min(per_image, cells)
    meeting = width * (width - 1) // 2
    return SetSize(
        images=images,
        pixels=images * cells,
        signatures=pairs,
        image_pairs=pairs,
        width=width,
        labels=labels,
        label_pairs=min(labels * (labels - 1) // 2, pairs * meeting),
        entries=pairs * meeting,
    )


def size_of(tables: SearchTables) -> SetSize:
    """Sizes of a labelled image set."""
    signatures, together = tables.signatures, tables.together
    return SetSize(
        images=signatures.images,
        pixels=len(signatures.local),
        signatures=len(signatures),
        image_pairs=len(signatures.pair_pixels),
        width=signatures.table.shape[1],
        labels=tables.labels,
        label_pairs=len(together.pairs),
        entries=len(together.pair),
    )


def blocks_of_units(units: int, *, signatures: int, images: int, memory: int) -> list[slice]:
    """Units in blocks of about equal size whose counts stay within a memory each.

    Args:
        units: units.
        signatures: distinct label sets.
        images: images.
        memory: bytes of the counts of a block.

    Raises:
        InputError: not even one unit fits.

    Example:
        >>> blocks_of_units(512, signatures=404_373, images=22_210, memory=500 << 20)
        [slice(0, 256, None), slice(256, 512, None)]
    """
    each = _COUNT * (signatures + images)
    most = memory // each if each else units
    if most < 1:
        message = (
            f"the counts of one unit take {each:,} bytes, at most {memory:,} are allowed. Allow more memory, or take "
            "fewer images or concepts"
        )
        raise InputError(message)
    blocks = -(-units // most)
    size = -(-units // blocks) if blocks else 1
    return [slice(first, min(units, first + size)) for first in range(0, units, size)]


def search_bytes(size: SetSize, spec: SearchSpec, *, units: int, memory: int) -> SearchBytes:
    """Memory that counting and searching the units of a layer take.

    Args:
        size: the labelled image set.
        spec: how it is searched.
        units: units of the layer.
        memory: bytes allowed for the counts of a block of units.

    Raises:
        InputError: not even the counts of one unit fit.
    """
    s, n, k = size.signatures, size.images, size.labels
    label = 2 if k < 1 << 16 else 4
    blocks = blocks_of_units(units, signatures=s, images=n, memory=memory)
    largest = max((block.stop - block.start for block in blocks), default=0)
    # Attributes of `Signatures`, with its signatures by label; of `Cooccurrence`; weights and marks of `SearchTables`.
    held = s * (label * size.width + 8) + 24 * n + 2 * size.pixels + 8 * size.image_pairs + 4 * s * size.width
    together = s * (4 * size.width + 8) + 24 * size.label_pairs + 8 * size.entries + 16 * s
    proved = spec.certify == "optimum" and spec.length >= CERTIFIED_LENGTH - 1
    pairs = (_PAIR + (_CHANCE_PAIR if "imrou" in spec.score.name else 0)) * k * k if proved else 0
    bounding = 8 * _BLOCK_TABLES * min(k * k, _BLOCK_PAIRS) if proved else 0
    return SearchBytes(
        signatures=held,
        tables=together + (_SHARED_PAIR * k * k if proved else 0),
        building=5 * k * k + _PER_ENTRY * size.entries,
        counts=_COUNT * largest * (s + n),
        unit=s * (24 + _PER_SIGNATURE) + pairs + bounding,  # its own counts and chance, and those as floating point
        blocks=len(blocks),
    )
