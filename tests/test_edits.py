"""Edits as values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.edits import Edit, drop, keep, replace, resample, scale, stop_gradient
from neuronscope.errors import InputError
from neuronscope.units import UnitSet


@given(st.frozensets(st.integers(0, 7)))
def test_keep_is_drop_of_the_others(members):
    """keep(A) and drop(~A) are one edit, equal and with one hash."""
    units = UnitSet("conv1", 8, tuple(members))
    assert keep(units) == drop(~units)
    assert hash(keep(units)) == hash(drop(~units))
    assert keep(~units) == drop(units)


@pytest.mark.parametrize(
    ("action", "value"), [("drop", 0.0), ("resample", 0.0), ("stop_gradient", 1.0), ("scale", None), ("replace", None)]
)
def test_a_value_stands_where_one_belongs(action, value):
    """Scaling and replacing need a value; dropping, lending and blocking take none."""
    with pytest.raises(InputError, match=f"'{action}' (needs a|takes no) value"):
        Edit(UnitSet("conv1", 8, (0,)), action, value)


@pytest.mark.parametrize("make", [scale, replace])
def test_one_value_for_each_unit(make):
    """A tuple has as many numbers as there are units."""
    units = UnitSet("conv1", 8, (0, 5))
    assert make(units, (1.0, 2.0)).value == (1.0, 2.0)
    assert make(units, 3.0).value == 3.0
    with pytest.raises(InputError, match="3 values for 2 units of 'conv1'"):
        make(units, (1.0, 2.0, 3.0))


def test_blocking_the_gradient_is_an_edit_without_value():
    """`stop_gradient` says which units and nothing more."""
    units = UnitSet("conv1", 8, (1,))
    assert stop_gradient(units) == Edit(units, "stop_gradient")


def test_lending_is_an_edit_without_value():
    """`resample` says which units; who lends is said where the edit is applied."""
    units = UnitSet("conv1", 8, (1, 4))
    assert resample(units) == Edit(units, "resample")
    assert resample(units) != resample(~units)
