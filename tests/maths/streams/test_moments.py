"""Moments against numpy and against exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from neuronscope.maths.streams import ClassMoments, MapMoments, Moments

TABLES = arrays(np.float32, st.tuples(st.integers(2, 20), st.integers(1, 3)), elements=st.floats(-100, 100, width=32))


def seen(values, labels=None):
    """One batch."""
    labels = np.zeros(len(values), dtype=np.int64) if labels is None else labels
    return {
        "index": torch.arange(len(values)),
        "label": torch.from_numpy(np.array(labels)),
        "x": torch.from_numpy(np.ascontiguousarray(values)),
    }


def answer(reducer, values, labels=None):
    """The answer after one batch."""
    return reducer.finish(reducer.add(reducer.start(), seen(values, labels)))


def exact_variance(column):
    """The definition, in fractions."""
    numbers = [Fraction(float(value)) for value in column]
    mean = sum(numbers) / len(numbers)
    return sum((number - mean) ** 2 for number in numbers) / (len(numbers) - 1)


@given(TABLES)
def test_moments_are_those_of_numpy(values):
    """Mean, variance, rate and range are numpy's in float64, to 1e-12 of the values' scale."""
    found = answer(Moments("x", threshold=0.5), values)
    wide = values.astype(np.float64)
    scale = np.abs(wide).max(0)
    assert found.count == len(values)
    assert (np.abs(found.mean - wide.mean(0)) <= 1e-12 * scale).all()
    assert (np.abs(found.variance - wide.var(0, ddof=1)) <= 1e-12 * scale**2).all()
    assert (found.rate == (values > 0.5).mean(0)).all()
    assert (found.low == wide.min(0)).all()
    assert (found.high == wide.max(0)).all()
    assert (found.nonfinite == 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(seed=st.integers(0, 10_000), pieces=st.integers(1, 5))
def test_variance_survives_a_large_offset(dtype, seed, pieces):
    """Values of mean 1e6 and standard deviation 1e-2 keep their exact variance (1e-6 asked, 1e-12 met)."""
    values = (1e6 + 1e-2 * np.random.default_rng(seed).standard_normal((40, 1))).astype(dtype)
    reducer = Moments("x")
    state = reducer.start()
    for part in np.array_split(values, pieces):
        state = reducer.merge(state, reducer.add(reducer.start(), seen(part)))
    expected = float(exact_variance(values[:, 0]))
    assert reducer.finish(state).variance[0] == pytest.approx(expected, rel=1e-12, abs=0)


@given(TABLES, st.data())
def test_class_moments_are_the_moments_of_the_classes_rows(values, data):
    """Each class's moments are those of its rows alone; a class without rows is nan; rows without a label are out."""
    labels = np.array(data.draw(st.lists(st.integers(-1, 3), min_size=len(values), max_size=len(values))))
    found = answer(ClassMoments("x", classes=4, threshold=0.5), values, labels)
    for number in range(4):
        rows = values[labels == number]
        assert found.count[number] == len(rows)
        if len(rows) == 0:
            assert np.isnan(found.mean[number]).all()
            continue
        alone = answer(Moments("x", threshold=0.5), rows)
        for name in ("mean", "variance", "rate", "low", "high"):
            np.testing.assert_array_equal(getattr(found, name)[number], getattr(alone, name))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_broken_unit_is_nan_and_counted_and_harms_no_other(bad):
    """A unit with NaN or infinity is nan in every number and its images are counted; its neighbour is untouched."""
    values = np.array([[1, 5], [bad, 6], [bad, 7]], dtype=np.float32)
    found = answer(Moments("x"), values)
    assert found.nonfinite.tolist() == [2, 0]
    assert np.isnan([found.mean[0], found.variance[0], found.rate[0], found.low[0], found.high[0]]).all()
    assert (found.mean[1], found.variance[1], found.low[1], found.high[1]) == (6.0, 1.0, 5.0, 7.0)


def test_a_broken_image_spoils_only_its_class():
    """NaN in an image of class 1 leaves the class moments of class 0 as they are."""
    values = np.array([[1], [3], [np.nan]], dtype=np.float32)
    found = answer(ClassMoments("x", classes=2), values, [0, 0, 1])
    assert found.mean[0, 0] == 2.0
    assert np.isnan(found.mean[1, 0])
    assert found.nonfinite.tolist() == [[0], [1]]


def test_one_image_has_a_mean_and_no_variance():
    """With one image the variance is nan, not 0."""
    found = answer(Moments("x"), np.array([[2.0]], dtype=np.float32))
    assert found.mean[0] == 2.0
    assert np.isnan(found.variance[0])


def test_moments_of_whole_maps_keep_the_shape_of_the_map():
    """Per scalar activation: cells of any shape."""
    values = np.random.default_rng(0).standard_normal((9, 2, 3, 4)).astype(np.float32)
    found = answer(Moments("x"), values)
    assert found.mean.shape == (2, 3, 4)
    mean, variance = answer(MapMoments("x"), values)
    np.testing.assert_allclose(mean, found.mean, atol=1e-7)
    np.testing.assert_allclose(variance, found.variance, rtol=1e-6)


def test_map_moments_survive_an_offset():
    """A mean 1e4 times the spread leaves the variance right to 1e-5, though batches are summed in float32."""
    values = (1e4 + np.random.default_rng(0).standard_normal((64, 1))).astype(np.float32)
    mean, variance = answer(MapMoments("x"), values)
    wide = values.astype(np.float64)
    assert mean[0] == pytest.approx(wide.mean(), abs=1e-5)
    assert variance[0] == pytest.approx(wide.var(ddof=1), rel=1e-5)
