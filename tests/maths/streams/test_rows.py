"""Rows and decisions of every image, in row order."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.maths.streams import Decisions, StackRows


@given(st.permutations(range(8)), st.integers(1, 8))
def test_rows_come_out_in_row_order(rows, size):
    """Whatever the order of arrival, rows are sorted and each keeps its label and its values."""
    reducer = StackRows("x")
    state = reducer.start()
    for first in range(0, 8, size):
        index = torch.tensor(rows[first : first + size])
        state = reducer.add(state, {"index": index, "label": index % 3, "x": index[:, None] * torch.ones(1, 2)})
    found = reducer.finish(state)
    assert found.index.tolist() == list(range(8))
    assert found.label.tolist() == [row % 3 for row in range(8)]
    assert found.values.tolist() == [[row, row] for row in range(8)]


def test_images_left_out_are_missing_and_not_filled():
    """Rows 1 and 4 alone make a table of two rows with those numbers."""
    reducer = StackRows("x")
    seen = {"index": torch.tensor([4, 1]), "label": torch.tensor([0, -1]), "x": torch.tensor([[4.0], [1.0]])}
    found = reducer.finish(reducer.add(reducer.start(), seen))
    assert (found.index.tolist(), found.label.tolist(), found.values.tolist()) == ([1, 4], [-1, 0], [[1.0], [4.0]])


@given(st.lists(st.tuples(st.integers(-1, 4), *[st.integers(-2, 2)] * 4), min_size=1, max_size=20))
def test_decisions_are_a_stable_sort_of_the_logits(images):
    """The rank is the place of the true class when logits are sorted, equal ones by class; -1 without a class."""
    label = torch.tensor([image[0] for image in images])
    logits = torch.tensor([image[1:] for image in images], dtype=torch.float32)
    reducer = Decisions("y")
    found = reducer.finish(
        reducer.add(reducer.start(), {"index": torch.arange(len(images)), "label": label, "y": logits})
    )
    for row, (true, *scores) in enumerate(images):
        order = sorted(range(4), key=lambda c, scores=scores: (-scores[c], c))
        assert found.predicted[row] == order[0]
        assert found.rank[row] == (order.index(true) if 0 <= true < 4 else -1)
        odds = np.exp(np.array(scores, dtype=np.float64))
        assert abs(found.confidence[row] - odds.max() / odds.sum()) < 1e-12
    right, known = found.top(1)
    assert known == sum(0 <= image[0] < 4 for image in images)
    assert right == sum(found.predicted[row] == image[0] for row, image in enumerate(images))
