"""The most extreme images of each unit against sorting everything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from neuronscope.maths.streams import TopK

TABLES = arrays(
    np.float32,
    st.tuples(st.integers(1, 25), st.integers(1, 3)),
    elements=st.one_of(st.integers(-2, 2).map(float), st.floats(-1e6, 1e6, width=32)),
)


def fold(reducer, values, *, rows, size=4):
    """The answer after batches of a few images, in the order of `rows`."""
    where = np.arange(values.size, dtype=np.int32).reshape(values.shape) * 7 % 50
    state = reducer.start()
    for first in range(0, len(rows), size):
        chosen = rows[first : first + size]
        seen = {"index": chosen, "label": chosen * 0, "x": values[chosen], "at": where[chosen]}
        state = reducer.add(state, {name: torch.from_numpy(array) for name, array in seen.items()})
    return reducer.finish(state), where


@pytest.mark.parametrize("end", ["largest", "smallest"])
@given(values=TABLES, k=st.integers(1, 30), random=st.randoms())
def test_top_k_is_sorting_by_value_then_row(end, values, k, random):
    """Whatever order the images come in: the k most extreme, equal values by row number, each with its position."""
    rows = np.array(random.sample(range(len(values)), len(values)))
    found, where = fold(TopK("x", k, where="at", end=end), values, rows=rows)
    sign = -1.0 if end == "largest" else 1.0
    n, units = values.shape
    kept = min(k, n)
    for unit in range(units):
        order = np.lexsort((np.arange(n), sign * values[:, unit]))[:k]
        assert found.index[:kept, unit].tolist() == order.tolist()
        np.testing.assert_array_equal(found.value[:kept, unit], values[order, unit].astype(np.float64))
        np.testing.assert_array_equal(found.where[:kept, unit], where[order, unit])
    assert found.value.shape == (k, units)
    assert np.isnan(found.value[kept:]).all()
    assert (found.index[kept:] == -1).all()
    assert (found.where[kept:] == -1).all()


@pytest.mark.parametrize("end", ["largest", "smallest"])
def test_nan_ranks_first_at_both_ends(end):
    """A broken unit shows at once, and its neighbour is ranked as usual."""
    values = np.array([[1, 1], [np.nan, 2], [3, 3]], dtype=np.float32)
    found, _ = fold(TopK("x", 2, end=end), values, rows=np.arange(3))
    assert found.index[0, 0] == 1
    assert np.isnan(found.value[0, 0])
    assert found.index[0, 1] == (2 if end == "largest" else 0)


def test_float64_values_keep_their_order():
    """Values that float32 could not tell apart are told apart."""
    values = np.array([[1.0], [1.0 + 1e-12]])
    found, _ = fold(TopK("x", 1), values, rows=np.arange(2))
    assert (found.index[0, 0], found.value[0, 0]) == (1, 1.0 + 1e-12)


def test_without_positions_the_position_is_zero():
    """Flat layers have one position."""
    found, _ = fold(TopK("x", 1), np.ones((2, 1), dtype=np.float32), rows=np.arange(2))
    assert found.where.tolist() == [[0]]
