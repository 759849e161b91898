"""Pairs of float64 against exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.maths.streams import exact

NUMBERS = st.floats(-1e12, 1e12).filter(lambda x: x == 0 or abs(x) > 1e-12)


def fraction(pair):
    """The number a pair stands for."""
    return Fraction(float(pair.high)) + Fraction(float(pair.low))


def tensor(number):
    """One float64."""
    return torch.tensor(number, dtype=torch.float64)


@given(NUMBERS, NUMBERS)
def test_the_sum_of_two_numbers_is_exact(a, b):
    """Sum and rounding error together are the true sum."""
    assert fraction(exact.two_sum(tensor(a), tensor(b))) == Fraction(a) + Fraction(b)


@given(NUMBERS, NUMBERS)
def test_the_product_of_two_numbers_is_exact(a, b):
    """Product and rounding error together are the true product."""
    assert fraction(exact.two_product(tensor(a), tensor(b))) == Fraction(a) * Fraction(b)


@given(st.lists(st.integers(-(2**24), 2**24), min_size=1, max_size=30), st.integers(-20, 20))
def test_sums_of_float32_values_and_of_their_squares_are_exact(whole, exponent):
    """Any float32 numbers of one scale: their sum, and that of their squares, has no error at all."""
    values = torch.tensor([number * 2.0**exponent for number in whole], dtype=torch.float32)
    numbers = [Fraction(float(value)) for value in values]
    assert fraction(exact.sum_rows(values.double())) == sum(numbers)
    assert fraction(exact.sum_rows(exact.square(values))) == sum(number**2 for number in numbers)


@given(st.lists(NUMBERS, min_size=1, max_size=30))
def test_sums_of_any_numbers_are_good_to_a_hundred_bits(numbers):
    """Beyond float32, the error stays below 2^-98 of the sum of magnitudes."""
    found = fraction(exact.sum_rows(torch.tensor(numbers, dtype=torch.float64)))
    size = sum(abs(Fraction(number)) for number in numbers)
    assert abs(found - sum(Fraction(number) for number in numbers)) <= size * Fraction(1, 2**98)


@given(st.lists(NUMBERS, min_size=1, max_size=8))
def test_pairs_are_normalised(numbers):
    """The high part is the rounded sum of both, so that equal numbers have equal bits."""
    pair = exact.sum_rows(torch.tensor(numbers, dtype=torch.float64))
    assert pair.high + pair.low == pair.high


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=10))
def test_a_central_moment_is_the_sum_of_squared_deviations(numbers):
    """Sum and sum of squares give the definition's value; it is never negative."""
    values = torch.tensor(numbers, dtype=torch.float64)
    total, squares = exact.sum_rows(values), exact.sum_rows(exact.square(values))
    found = float(exact.central_moment(total, squares, tensor(float(len(numbers)))))
    fractions = [Fraction(number) for number in numbers]
    mean = sum(fractions) / len(fractions)
    expected = float(sum((number - mean) ** 2 for number in fractions))
    largest = max(abs(number) for number in numbers)
    assert found >= 0
    underflow = 2.0**-1022  # squares of numbers around 1e-159 are subnormal and have lost their last digits
    assert abs(found - expected) <= 1e-13 * expected + 2.0**-95 * largest**2 + underflow
