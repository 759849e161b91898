"""Sizes and times in print: readable, and never far from what they stand for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.quantities import duration, file_size, memory_size

FACTORS = {
    **dict(zip(("B", "KiB", "MiB", "GiB", "TiB"), (1024**power for power in range(5)), strict=True)),
    **dict(zip(("B", "kB", "MB", "GB", "TB"), (1000**power for power in range(5)), strict=True)),
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
}


def value(text: str) -> float:
    """What a text such as `4 min 10 s` says."""
    words = text.split()
    return sum(float(number) * FACTORS[unit] for number, unit in zip(words[::2], words[1::2], strict=True))


@given(st.integers(0, 2**60))
def test_sizes_are_near(count):
    """A printed size is within a twentieth of its unit, and its number stays below the next unit."""
    for text, step in ((memory_size(count), 1024), (file_size(count), 1000)):
        number, unit = text.split()
        assert abs(value(text) - count) <= 0.0501 * FACTORS[unit]
        assert float(number) < step or unit in ("TiB", "TB")


@given(st.floats(0, 1e7))
def test_durations_are_near(seconds):
    """A printed time is right in the unit it ends with, and no part of it reaches the next unit."""
    text = duration(seconds)
    words = text.split()
    limits = {"ms": 1000, "s": 60, "min": 60, "h": float("inf")}
    assert all(float(number) < limits[unit] for number, unit in zip(words[::2], words[1::2], strict=True))
    assert abs(value(text) - seconds) <= {"ms": 0.000051, "s": 0.51, "min": 60}[words[-1]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (memory_size(0), "0 B"),
        (memory_size(2**20 - 1), "1.0 MiB"),
        (memory_size(5 * 2**30), "5.0 GiB"),
        (file_size(999_999), "1.0 MB"),
        (file_size(10**16), "10000.0 TB"),
        (duration(0.99999), "1.0 s"),
        (duration(59), "59.0 s"),
        (duration(59.96), "1 min 0 s"),
        (duration(3599.6), "1 h 0 min"),
    ],
)
def test_edges(text, expected):
    """At the edge of a unit, what would be rounded up to the next one is printed in it."""
    assert text == expected
