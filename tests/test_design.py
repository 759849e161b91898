"""Designed experiments as data sets."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.data.dataset import data_from_arrays
from neuronscope.data.design import Design
from neuronscope.data.loading import batches
from neuronscope.errors import InputError
from neuronscope.preprocessing import Preprocess

PIXELS = torch.arange(5 * 4, dtype=torch.uint8).view(5, 1, 2, 2)


def base():
    """Five images that differ."""
    return data_from_arrays(PIXELS, np.arange(5), name="five", classes="abcde")


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.integers(1, 4), st.integers(1, 20), st.integers(1, 3))
def test_batches_hold_whole_blocks_of_the_right_images(rows, block, wanted, workers):
    """Every batch is a multiple of the block, and every row shows its base image with the base's label."""
    image_row = np.repeat(np.array(rows), block)
    design = Design(base(), image_row, np.random.default_rng(0).random((len(image_row), 2)), block=block)
    if wanted < block:
        with pytest.raises(InputError, match=f"batch size {wanted} is smaller than one block of {block}"):
            design.batch_size(wanted)
        return
    size = design.batch_size(wanted)
    assert size <= wanted < size + block
    seen = []
    prepare = Preprocess(channels=1)
    for batch in batches(design.data, prepare.batch, batch_size=size, workers=workers):
        assert len(batch.index) % block == 0
        assert torch.equal(prepare.pixels(batch.image), PIXELS[image_row[batch.index.numpy()]])
        assert batch.label.tolist() == image_row[batch.index.numpy()].tolist()
        seen.extend(batch.index.tolist())
    assert seen == list(range(len(design)))


def test_an_image_is_decoded_once_for_its_blocks():
    """Rows that stand together share one decoding."""
    reads, lock = [], threading.Lock()

    def read(row: int) -> torch.Tensor:
        with lock:
            reads.append(row)
        return PIXELS[row]

    design = Design(replace(base(), pixels=None, read=read), np.repeat([3, 1], 10), np.zeros((20, 1)), block=5)
    pixels = [design.data.read(row) for row in range(1)]
    list(batches(design.data, Preprocess(channels=1).batch, batch_size=10, workers=0))
    assert torch.equal(pixels[0], PIXELS[3])
    assert reads == [3, 3, 1]


def test_the_memory_of_decoded_images_is_bounded():
    """After many other images the first is decoded again: memory does not grow with the data."""
    many = torch.zeros(200, 1, 1, 1, dtype=torch.uint8)
    data = data_from_arrays(many, np.zeros(200, dtype=np.int64), name="many", classes="a")
    read = Design(data, np.arange(200), np.zeros((200, 1))).data.read
    for row in range(200):
        read(row)
    assert len(read.kept) <= 64


@pytest.mark.parametrize(("rows", "vectors", "block"), [(5, 5, 2), (4, 4, 0)])
def test_torn_designs_are_refused(rows, vectors, block):
    """Whole blocks, of at least one row (that each row has a vector, the types say)."""
    with pytest.raises(InputError, match="block"):
        Design(base(), np.zeros(rows, dtype=np.int64), np.zeros((vectors, 1)), block=block)


def test_a_row_beyond_the_base_is_refused():
    """A design of an image that is not there says which."""
    with pytest.raises(InputError, match="row 5 is not in five"):
        _ = Design(base(), np.array([5]), np.zeros((1, 1))).data


class Doubled:
    """Vectors that are made, not stored: twice the row's number."""

    fingerprint = "doubled"

    def __len__(self):
        """Six rows."""
        return 6

    def __getitem__(self, rows):
        """The rows asked for."""
        return 2.0 * rows[:, None]


def test_vectors_can_be_made_when_they_are_asked_for():
    """A design whose vectors are computed has their rows and their fingerprint."""
    rows = np.repeat(np.arange(3), 2)
    design = Design(base(), rows, Doubled(), block=2)
    table = Design(base(), rows, 2.0 * np.arange(6)[:, None], block=2)
    assert np.array_equal(design.parameters[np.array([5, 1])], table.parameters[np.array([5, 1])])
    other = Doubled()
    other.fingerprint = "others"
    assert len({design.fingerprint, Design(base(), rows, other, block=2).fingerprint}) == 2
