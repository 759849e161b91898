"""Sums that do not depend on where they are cut: pairs of float64, high and low part, never added up.

Knuth's two-sum and Dekker's two-product give the rounding error of one operation exactly; carrying it along gives about
106 bits. A sum of float32 activations or of their squares is then exact unless the terms span more than 2^50, so its
bits do not depend on the grouping, and the variance of values around 1e6 loses nothing to cancellation.

Source: T. J. Dekker, "A floating-point technique for extending the available precision", Numer. Math. 18 (1971);
D. E. Knuth, The Art of Computer Programming 2, section 4.2.2.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_SPLIT = 134217729.0  # 2^27 + 1 cuts a float64 into two halves whose products are exact


class Pair(NamedTuple):
    """An unevaluated sum `high + low` of two float64 tensors, |low| <= half a unit in the last place of high."""

    high: Tensor
    low: Tensor


def two_sum(a: Tensor, b: Tensor) -> Pair:
    """The sum a + b and its rounding error."""
    total = a + b
    shadow = total - a
    return Pair(total, (a - (total - shadow)) + (b - shadow))


def two_product(a: Tensor, b: Tensor) -> Pair:
    """The product a * b and its rounding error."""
    product = a * b
    a_big, b_big = _SPLIT * a, _SPLIT * b
    a_high, b_high = a_big - (a_big - a), b_big - (b_big - b)
    a_low, b_low = a - a_high, b - b_high
    return Pair(product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low)


def add(a: Pair, b: Pair) -> Pair:
    """The sum a + b, normalised, so that equal values have equal bits."""
    high, error = two_sum(a.high, b.high)
    low, rest = two_sum(a.low, b.low)
    high, error = two_sum(high, error + low)
    return two_sum(high, error + rest)


def multiply(a: Pair, b: Pair) -> Pair:
    """The product a * b, normalised."""
    high, error = two_product(a.high, b.high)
    return two_sum(high, error + (a.high * b.low + a.low * b.high))


def square(values: Tensor) -> Pair:
    """The square of each value and its rounding error; float32 values have none."""
    if values.dtype == torch.float64:
        return two_product(values, values)
    squares = values.double().square()
    return Pair(squares, torch.zeros_like(squares))


def sum_rows(values: Tensor | Pair) -> Pair:
    """Sum over the first axis of float64 numbers or pairs, by halves, keeping every rounding error."""
    pair = values if isinstance(values, Pair) else Pair(values, torch.zeros_like(values))
    while pair.high.shape[0] > 1:
        half = (pair.high.shape[0] + 1) // 2
        head = Pair(pair.high[:half], pair.low[:half])
        tail = Pair(pair.high[half:], pair.low[half:])
        odd = half - tail.high.shape[0]
        joined = add(Pair(head.high[: half - odd], head.low[: half - odd]), tail)
        if odd:
            joined = Pair(torch.cat([joined.high, head.high[-1:]]), torch.cat([joined.low, head.low[-1:]]))
        pair = joined
    return Pair(pair.high[0], pair.low[0])


def central_moment(total: Pair, squares: Pair, count: Tensor) -> Tensor:
    """Sum of squared deviations from the mean, `squares - total^2 / count`, never below 0."""
    high, low = multiply(total, total)
    scaled = multiply(squares, Pair(count, torch.zeros_like(count)))
    difference = add(scaled, Pair(-high, -low))
    return ((difference.high + difference.low) / count).clamp_min(0.0)
