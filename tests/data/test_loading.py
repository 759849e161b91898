"""Batches are the same for any number of workers, skip what they may skip, and leave no thread behind."""

from __future__ import annotations

import gc
import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.data import Data, batches, data_from_arrays
from neuronscope.errors import DataError, InputError
from neuronscope.preprocessing import Preprocess

PREPARE = Preprocess(channels=1).batch


@dataclass(frozen=True)
class Slow:
    """A reader whose time depends on the row, and that cannot read some rows; notes which rows it was asked for."""

    broken: frozenset[int] = frozenset()
    asked: list[int] = field(default_factory=list)

    def __call__(self, row: int) -> torch.Tensor:
        """An image that shows its row number."""
        self.asked.append(row)
        time.sleep(0.0005 * ((row * 7) % 3))
        if row in self.broken:
            message = f"image {row} is torn"
            raise DataError(message)
        return torch.full((1, 2, 2), row, dtype=torch.uint8)


def slow(count: int, *, broken: set[int] | None = None, on_error: str = "raise") -> Data:
    """A data set that is read row by row."""
    reader = Slow(frozenset(broken or ()))
    return Data("slow", reader, np.arange(count) % 3, ("a", "b", "c"), "f", on_error=on_error)


def rows_of(stream) -> list[list[int]]:
    """Row numbers of each batch, having checked that image and label belong to them."""
    out = []
    for batch in stream:
        assert batch.label.tolist() == [row % 3 for row in batch.index.tolist()]
        assert (batch.image[:, 0, 0, 0] * 255).round().int().tolist() == batch.index.tolist()
        out.append(batch.index.tolist())
    return out


def decoding_threads() -> list[str]:
    """Threads that decode."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("neuronscope")]


@given(st.integers(0, 40), st.integers(1, 9), st.integers(0, 3), st.sets(st.integers(0, 39)), st.data())
def test_batches_do_not_depend_on_workers_and_are_fixed_by_row_number(size, batch_size, workers, broken, draw):
    """Batch b holds the readable rows of [b * size, (b + 1) * size); skips are told in row order before their batch."""
    rows = range(size)
    if size and draw.draw(st.booleans(), label="only some rows"):
        rows = sorted(draw.draw(st.sets(st.integers(0, size - 1))))
    told: list[int] = []
    data = slow(size, broken=broken, on_error="skip")
    made = rows_of(
        batches(
            data, PREPARE, rows=rows, batch_size=batch_size, workers=workers, on_skip=lambda row, _: told.append(row)
        )
    )
    expected = [[row for row in rows if row // batch_size == number and row not in broken] for number in range(size)]
    assert made == [batch for batch in expected if batch]
    assert told == [row for row in rows if row in broken]
    assert decoding_threads() == []


@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 2))
def test_images_in_memory_give_the_same_batches_as_their_reader(size, batch_size, workers):
    """The fast way past `read` changes nothing, with and without a resize."""
    pixels = torch.arange(size * 12).remainder(256).to(torch.uint8).view(size, 1, 3, 4)
    fast = data_from_arrays(pixels, np.zeros(size, dtype=np.int64), name="fast", classes="a")
    plain = Data("plain", fast.read, fast.labels, fast.classes, "f")
    for prepare in (PREPARE, Preprocess(channels=3, resize=(5, 6)).batch):
        for one, two in zip(
            batches(fast, prepare, batch_size=batch_size, workers=workers),
            batches(plain, prepare, batch_size=batch_size, workers=0),
            strict=True,
        ):
            assert torch.equal(one.image, two.image)
            assert torch.equal(one.index, two.index)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_unreadable_image_is_an_error_in_its_turn(workers):
    """Batches before it are given; of two broken images the first is named, although the second may be read sooner."""
    stream = batches(slow(20, broken={7, 9, 18}), PREPARE, batch_size=3, workers=workers)
    assert [next(stream).index.tolist() for _ in range(2)] == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(DataError, match="image 7 is torn"):
        next(stream)
    assert decoding_threads() == []


def test_rows_left_out_are_reported_with_their_reason():
    """A wholly unreadable batch is not given."""
    told: list[tuple[int, str]] = []
    data = slow(6, broken={2, 3, 5}, on_error="skip")
    made = batches(data, PREPARE, batch_size=2, workers=1, on_skip=lambda *skipped: told.append(skipped))
    assert rows_of(made) == [[0, 1], [4]]
    assert told == [(2, "image 2 is torn"), (3, "image 3 is torn"), (5, "image 5 is torn")]


@pytest.mark.parametrize("ending", ["close", "forget", "error"])
def test_a_consumer_that_stops_early_leaves_no_thread(ending):
    """Whether it closes the iterator, forgets it, or fails in the middle; far images were never read."""
    data = slow(300)
    stream = batches(data, PREPARE, batch_size=2, workers=2)
    next(stream)
    assert decoding_threads()
    if ending == "close":
        stream.close()
    elif ending == "error":
        with pytest.raises(RuntimeError, match="enough"):
            stream.throw(RuntimeError("enough"))
    else:
        del stream
        gc.collect()
    assert decoding_threads() == []
    assert max(data.read.asked) < 2 * (1 + 2 + 2 + 1)


def test_reading_ahead_is_bounded():
    """However slow the network is, only workers + 2 batches lie ready."""
    data = slow(1000)
    stream = batches(data, PREPARE, batch_size=1, workers=2)
    next(stream)
    time.sleep(0.1)
    assert len(data.read.asked) <= 1 + 2 + 2
    stream.close()


def test_an_error_of_the_preparation_reaches_the_consumer():
    """It is no image error, so it is not skipped."""
    data = Data("sizes", Sizes(), np.zeros(4, dtype=np.int64), ("a",), "f", on_error="skip")
    with pytest.raises(InputError, match="different sizes"):
        list(batches(data, PREPARE, batch_size=2, workers=2))
    assert decoding_threads() == []


class Sizes:
    """A reader of images of different sizes."""

    def __call__(self, row: int) -> torch.Tensor:
        """An image as large as its row number."""
        return torch.zeros((1, row + 1, 2), dtype=torch.uint8)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"workers": -1}, {"rows": [0, 5]}, {"rows": [-1]}])
def test_wrong_arguments_are_refused_at_the_call(wrong):
    """Not only when the first batch is asked for."""
    with pytest.raises(InputError):
        batches(slow(5), PREPARE, **wrong)


def test_an_empty_selection_gives_no_batch():
    """No rows, no batches, no error."""
    assert list(batches(slow(5), PREPARE, rows=[])) == []
