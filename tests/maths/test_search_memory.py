"""The memory of a search is what was announced, within 15 percent."""

import tracemalloc

import numpy as np
import pytest

from neuronscope.errors import InputError
from neuronscope.maths.formula_search import Score, SearchSpec, explain, prepare
from neuronscope.maths.formula_search.memory import SetSize, blocks_of_units, expected_size, search_bytes, size_of
from neuronscope.maths.signatures import CountFold, assemble, image_signatures


def labelled(labels, *, images, side=32, layers=4):
    """Images cut into squares of four pixels, each square with a label in every layer; frequent and rare labels."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, labels + 1) ** 0.5
    for _ in range(images):
        coarse = rng.choice(labels, (layers, side // 8, side // 8), p=share / share.sum()) + 1
        yield image_signatures(coarse.repeat(8, 1).repeat(8, 2).astype(np.uint16))


def measured(signatures, spec, block):
    """Bytes of the labelled images, their peak while a block of units is counted and one searched."""
    tracemalloc.start()
    try:
        tables = prepare(signatures)
        building = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        fold = CountFold(signatures, block.stop - block.start)
        rng = np.random.default_rng(1)
        image = rng.integers(0, signatures.images, 20_000)
        pixel = rng.integers(0, signatures.cells, 20_000)
        state = fold.add(fold.start(), unit=np.zeros(20_000, dtype=np.int64), image=image, pixel=pixel)
        found = explain(tables, next(fold.finish(state)), spec)
        assert found.choice is not None
        searching = tracemalloc.get_traced_memory()[1]
        return tables, signatures.nbytes + building, signatures.nbytes + searching
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("labels", "images", "units", "spec"),
    [
        (60, 900, 64, SearchSpec()),
        (60, 900, 64, SearchSpec(certify="optimum")),
        (700, 600, 64, SearchSpec(length=6)),
        (700, 600, 64, SearchSpec(certify="optimum")),
        (1200, 300, 32, SearchSpec(score=Score("imrou"), certify="optimum")),
    ],
)
def test_a_search_takes_what_was_announced(labels, images, units, spec):
    """Few labels and many label sets, many labels and few, with and without proof."""
    signatures = assemble(labelled(labels, images=images))
    memory = 4 * (units // 2) * (len(signatures) + images)
    block = blocks_of_units(units, signatures=len(signatures), images=images, memory=memory)[0]
    tables, building, searching = measured(signatures, spec, block)
    announced = search_bytes(size_of(tables), spec, units=units, memory=memory)
    assert announced.blocks == 2
    assert announced.peak == pytest.approx(max(building, searching), rel=0.15)
    assert announced.counts == CountFold(signatures, units // 2).nbytes <= memory


def test_what_is_expected_before_reading_is_an_upper_bound():
    """Sizes and memory expected from images, labels and labels of a pixel alone are not exceeded."""
    signatures = assemble(labelled(300, images=50))
    found = size_of(prepare(signatures))
    expected = expected_size(images=50, cells=1024, labels=300, per_image=16, width=4)
    for name in SetSize.__dataclass_fields__:
        assert getattr(expected, name) >= getattr(found, name), name
    spec = SearchSpec(certify="optimum")
    most, real = (search_bytes(size, spec, units=8, memory=1 << 30).peak for size in (expected, found))
    assert most >= real


def test_blocks_cover_all_units_once():
    """Blocks follow one another, are of about equal size, and stay within the memory."""
    for units in (0, 1, 7, 64, 65):
        blocks = blocks_of_units(units, signatures=90, images=10, memory=400 * 16)
        assert [number for block in blocks for number in range(block.start, block.stop)] == list(range(units))
        assert all(block.stop - block.start <= 16 for block in blocks)
    with pytest.raises(InputError, match="Allow more memory"):
        blocks_of_units(3, signatures=90, images=10, memory=399)
