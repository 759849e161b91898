"""Data sets keep rows, labels, names and pixels together; choices of rows are balanced and repeatable."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.data import Data, balanced_rows, class_counts, data_from_arrays, first_of_each_class
from neuronscope.data.dataset import scatter
from neuronscope.errors import DataError, InputError

label_lists = st.lists(st.integers(-1, 4), min_size=1, max_size=60).map(np.array)


def numbered(labels: np.ndarray) -> Data:
    """A data set in which the only pixel of an image is its row number."""
    pixels = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)
    return data_from_arrays(pixels, labels, name="numbered", classes="abcde")


@given(label_lists, st.data())
def test_taken_rows_keep_image_label_and_name_together(labels, draw):
    """Row i of the taken data is the chosen row of the original, by array and by reader."""
    data = numbered(labels)
    rows = draw.draw(st.lists(st.integers(0, len(labels) - 1)))
    taken = data.take(rows)
    assert len(taken) == len(rows)
    assert taken.ids == tuple(str(row) for row in rows)
    assert taken.labels.tolist() == [labels[row] for row in rows]
    assert taken.pixels.flatten().tolist() == rows
    assert [taken.read(position).item() for position in range(len(rows))] == rows


def test_take_of_take_reads_files_through_both():
    """Readers without an array are chained, and survive pickling (worker processes need that)."""
    whole = Data("text", Reader(), np.zeros(9, dtype=np.int64), ("a",), "f")
    twice = pickle.loads(pickle.dumps(whole.take([8, 4, 2]).take([2, 0])))  # noqa: S301 our own bytes
    assert [twice.read(row).item() for row in range(2)] == [2, 8]


class Reader:
    """A reader that shows the row number."""

    def __call__(self, row: int) -> torch.Tensor:
        """One pixel."""
        return torch.full((1, 1, 1), row, dtype=torch.uint8)


@pytest.mark.parametrize("row", [-1, 3])
def test_a_row_outside_is_named(row):
    """The message names the row that is not there, not merely the largest."""
    with pytest.raises(InputError, match=f"row {row} is not in numbered, which has 3 images"):
        numbered(np.zeros(3, dtype=np.int64)).take([0, row, 1])


@pytest.mark.parametrize("label", [-2, 5, 12])
def test_a_label_outside_the_classes_is_refused(label):
    """The message names label, image and number of classes."""
    with pytest.raises(DataError, match=f"label {label} of image 1 is outside the 5 classes"):
        numbered(np.array([0, label]))


def test_parts_of_different_lengths_are_refused():
    """Three labels and two names cannot be brought together."""
    with pytest.raises(DataError, match="3 labels but 2 ids"):
        Data("odd", Reader(), np.zeros(3, dtype=np.int64), ("a",), "f", ids=("x", "y"))


@given(label_lists)
def test_the_fingerprint_depends_on_pixels_labels_and_order(labels):
    """The same content has the same fingerprint; any change has another."""
    data = numbered(labels)
    assert data.fingerprint == numbered(labels.copy()).fingerprint
    other = labels.copy()
    other[0] = (other[0] + 2) % 5
    assert data.fingerprint != numbered(other).fingerprint
    assert data.fingerprint != data.take(range(len(labels))).take([0]).fingerprint
    brighter = data_from_arrays(data.pixels + 1, labels, name="numbered", classes="abcde")
    assert data.fingerprint != brighter.fingerprint


@given(label_lists)
def test_class_counts_and_first_rows_agree_with_a_plain_loop(labels):
    """Written out the slow way: count, and look for the first."""
    data = numbered(labels)
    assert class_counts(data).tolist() == [sum(label == number for label in labels) for number in range(5)]
    assert first_of_each_class(data).tolist() == [
        labels.tolist().index(number) for number in range(5) if number in labels
    ]


@given(label_lists, st.integers(1, 70), st.integers(0, 5))
def test_a_limit_is_balanced_ascending_and_nested(labels, limit, seed):
    """No class has two images more than another that still has some left; a smaller limit is a subset."""
    rows = balanced_rows(labels, limit=limit, seed=seed)
    assert len(rows) == min(limit, len(labels))
    assert rows.tolist() == sorted(set(rows.tolist()))
    taken = {label: int((labels[rows] == label).sum()) for label in set(labels.tolist())}
    spare = {label for label in taken if taken[label] < (labels == label).sum()}
    assert all(max(taken.values()) - taken[label] <= 1 for label in spare)
    assert set(balanced_rows(labels, limit=max(1, limit - 3), seed=seed)) <= set(rows)


def test_the_seed_decides_which_images_a_limit_takes():
    """Two seeds choose differently, one seed always the same; an unfinished round is not for the first classes only."""
    labels = np.repeat(np.arange(100), 50)
    chosen = [balanced_rows(labels, limit=30, seed=seed).tolist() for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert labels[chosen[0]].max() > 60


def test_scatter_is_splitmix64():
    """Seed 0 gives the published sequence for state 0."""
    assert scatter(np.arange(2), seed=0).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
