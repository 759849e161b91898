"""Histograms and exact tails against numpy and against counting."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from neuronscope.errors import InputError
from neuronscope.maths.streams import Histogram, UpperTail

INSIDE = st.one_of(
    st.just(0.0),
    st.floats(np.float32(2.0**-16), np.float32(6e4), width=32),
    st.floats(np.float32(-6e4), np.float32(-(2.0**-16)), width=32),
    st.integers(-3, 3).map(float),
)
TABLES = arrays(np.float32, st.tuples(st.integers(1, 40), st.integers(1, 2)), elements=INSIDE)
LEVELS = st.one_of(st.sampled_from([0.0, 0.1, 0.29, 0.5, 0.7, 0.995, 1.0]), st.floats(0, 1))


def fold(reducer, values):
    """The answer after batches of seven images."""
    state = reducer.start()
    for first in range(0, len(values), 7):
        state = reducer.add(state, {"x": torch.from_numpy(values[first : first + 7])})
    return reducer.finish(state)


@given(TABLES, st.integers(0, 5))
def test_every_value_is_counted_in_its_bin(values, bits):
    """Counts are numpy's for the same edges; half-open away from zero, so equal up to values on an edge."""
    found = fold(Histogram("x", mantissa_bits=bits), values)
    assert found.counts.sum(1).tolist() == [len(values)] * values.shape[1]
    assert len(found.edges) == found.counts.shape[1] + 1
    assert (np.diff(found.edges) > 0).all()
    for unit, counts in enumerate(found.counts):
        for place in np.flatnonzero(counts):
            low, high = found.edges[place : place + 2]
            column = values[:, unit].astype(np.float64)
            inside = (column >= low) & (column < high) if low >= 0 else (column > low) & (column <= high)
            middle = low < 0 < high
            assert counts[place] == (((column > low) & (column < high)) if middle else inside).sum()


@given(TABLES, LEVELS, st.integers(0, 5))
def test_quantiles_stay_within_the_stated_error(values, level, bits):
    """A quantile is numpy's `inverted_cdf` up to the relative error that the answer states."""
    found = fold(Histogram("x", mantissa_bits=bits), values)
    ordered = np.sort(values.astype(np.float64), axis=0)
    rank = max(-(-Fraction(str(level)) * len(values) // 1), 1)  # the definition, in exact arithmetic
    expected = ordered[int(rank) - 1]
    assert found.relative_error == 2.0 ** -(bits + 1)
    smallest = found.edges[found.edges > 0].min()
    bound = found.relative_error * np.abs(expected) + np.where(np.abs(expected) < smallest, smallest, 0)
    assert (np.abs(found.quantile(level) - expected) <= bound * (1 + 1e-12)).all()


@pytest.mark.parametrize("level", [0.25, 0.5, 0.75, 0.995])
def test_quantiles_are_those_of_numpy(level):
    """On real-looking data the quantile is `numpy.quantile(method="inverted_cdf")` up to the stated error."""
    values = np.maximum(np.random.default_rng(0).standard_normal((1000, 3)), 0).astype(np.float32)
    found = fold(Histogram("x"), values)
    expected = np.quantile(values, level, axis=0, method="inverted_cdf")
    np.testing.assert_allclose(found.quantile(level), expected, rtol=found.relative_error, atol=2.0**-16)


def test_values_beyond_the_octaves_are_in_the_outermost_bins():
    """Nothing finite is lost, however large or small; positions of maps count one by one."""
    values = np.array([[[1e30, -1e30], [1e-30, -1e-30]]], dtype=np.float32).reshape(1, 1, 2, 2)
    counts = fold(Histogram("x"), values).counts[0]
    assert (counts[0], counts[len(counts) // 2], counts[-1]) == (1, 2, 1)


def test_a_broken_unit_has_no_quantile():
    """NaN and infinity are counted apart and make the unit's quantiles nan; its neighbour keeps its own."""
    values = np.array([[np.nan, 1], [np.inf, 1], [1, 1]], dtype=np.float32)
    found = fold(Histogram("x"), values)
    assert found.nonfinite.tolist() == [2, 0]
    assert found.counts.sum(1).tolist() == [1, 3]
    quantile = found.quantile(0.5)
    assert np.isnan(quantile[0])
    assert quantile[1] == pytest.approx(1, rel=found.relative_error)


@given(TABLES, LEVELS, st.integers(0, 10))
def test_the_threshold_is_the_smallest_that_few_enough_values_exceed(values, fraction, spare):
    """At most the fraction lies strictly above, and no smaller value would do: by counting, for every value."""
    found = fold(UpperTail("x", fraction, total=len(values) + spare), values)
    allowed = Fraction(str(fraction)) * len(values)
    for unit, threshold in enumerate(found):
        column = values[:, unit].astype(np.float64)
        good = [value for value in column if (column > value).sum() <= allowed]
        assert threshold == min(good)


@pytest.mark.parametrize(("fraction", "total", "above"), [(0.29, 100, 29), (0.005, 1000, 5), (0.1, 30, 3)])
def test_decimal_fractions_are_meant_as_written(fraction, total, above):
    """0.29 of 100 values are 29, although 0.29 * 100 is 28.999... in floating point."""
    values = np.arange(total, dtype=np.float32)[:, None]
    threshold = fold(UpperTail("x", fraction, total=total), values)[0]
    assert (values > threshold).sum() == above


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_broken_unit_has_no_threshold(bad):
    """One value that is not finite makes the unit's threshold nan, even if it is not in the tail."""
    values = np.array([[1, 1], [2, 2], [bad, 3], [4, 4]], dtype=np.float32)
    found = fold(UpperTail("x", 0.5, total=4), values)
    assert np.isnan(found[0])
    assert found[1] == 2


def test_more_values_than_announced_are_refused():
    """The tail kept would be too short, so there is an error instead of a wrong threshold."""
    with pytest.raises(InputError, match="3 values a unit came where 2 were announced"):
        fold(UpperTail("x", 0.5, total=2), np.zeros((3, 1), dtype=np.float32))
