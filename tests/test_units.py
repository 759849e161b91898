"""The algebra of unit sets, and names of layers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.errors import InputError
from neuronscope.units import LayerInfo, Partition, ReceptiveField, UnitSet

SIZE = 12


# Unit sets are made in the tests: beartype looks at random members, which strategies may not.
MEMBERS = st.frozensets(st.integers(0, SIZE - 1))


def units_of(members):
    """A unit set of one layer."""
    return UnitSet("layer1.0.relu#1", SIZE, tuple(members))


@given(MEMBERS, MEMBERS, MEMBERS)
def test_set_algebra(first, second, third):
    """De Morgan, distribution, double complement, difference: unit sets are sets."""
    a, b, c = units_of(first), units_of(second), units_of(third)
    assert ~(a & b) == ~a | ~b
    assert ~(a | b) == ~a & ~b
    assert a & (b | c) == (a & b) | (a & c)
    assert a - b == a & ~b
    assert ~~a == a
    assert a | ~a == UnitSet.all(a.layer, SIZE)
    assert len(a & ~a) == 0
    assert len(a) + len(~a) == SIZE


@given(MEMBERS, MEMBERS)
def test_overlap_is_the_jaccard_index(members, others):
    """Shared over all members; symmetric; 1 for equal sets and nan for two empty ones."""
    a, b = units_of(members), units_of(others)
    if not members | others:
        assert np.isnan(a.jaccard(b))
        return
    assert a.jaccard(b) == b.jaccard(a) == len(members & others) / len(members | others)
    assert a.jaccard(a) == 1 or not members


@given(MEMBERS)
def test_the_short_form_reads_back(members):
    """parse(str(s)) == s, for the empty set too; the mask reads back as well."""
    units = units_of(members)
    assert UnitSet.parse(str(units), size=SIZE) == units
    assert UnitSet.from_mask(units.layer, units.mask()) == units
    assert [unit in units for unit in range(SIZE)] == units.mask().tolist()


@given(st.lists(st.integers(0, SIZE - 1)))
def test_order_and_repetition_do_not_matter(indices):
    """Sets with the same members are equal, hash alike and iterate in ascending order."""
    units = UnitSet("fc", SIZE, tuple(indices))
    assert units == UnitSet("fc", SIZE, tuple(reversed(indices * 2)))
    assert hash(units) == hash(UnitSet("fc", SIZE, tuple(set(indices))))
    assert list(units) == sorted(set(indices))


def test_a_bare_layer_is_all_of_it():
    """`fc` means every unit; ranges and numbers mix, spaces are allowed."""
    assert UnitSet.parse("fc", size=3) == UnitSet.all("fc", 3)
    assert UnitSet.parse("fc:0-2, 5", size=9).indices == (0, 1, 2, 5)


@pytest.mark.parametrize("text", ["fc:a", "fc:1,,2", "fc:-1", "fc:3-", "fc:3-1", "fc:1.5"])
def test_unreadable_units_are_refused(text):
    """What is not numbers and ascending ranges is an error that shows the right form."""
    with pytest.raises(InputError, match="Write numbers and ranges: fc:0-3,7"):
        UnitSet.parse(text, size=9)


@pytest.mark.parametrize("text", ["fc:9", "fc:0-9", "fc:5-99999999999999"])
def test_units_outside_the_layer_are_refused_at_once(text):
    """A unit beyond the layer is named, and an absurd range takes neither time nor memory."""
    with pytest.raises(InputError, match=r"is not in layer 'fc', which has units 0 to 8"):
        UnitSet.parse(text, size=9)
    with pytest.raises(InputError, match=r"unit -1 is not in layer 'fc'"):
        UnitSet("fc", 9, (-1, 3))


def test_sets_of_different_layers_do_not_mix():
    """Neither another layer nor another size of the same name."""
    for other in (UnitSet("conv", 4, (1,)), UnitSet("fc", 5, (1,))):
        with pytest.raises(InputError, match="different layers"):
            UnitSet("fc", 4, (1,)) & other


@given(st.lists(st.integers(0, 4), max_size=SIZE))
def test_a_partition_covers_each_unit_once(labels):
    """The groups are disjoint, and together they are the layer."""
    groups = Partition.from_labels("fc", labels).groups
    assert sorted(unit for group in groups for unit in group) == list(range(len(labels)))
    assert all(labels[unit] == number for number, group in enumerate(groups) for unit in group)


def test_a_layer_knows_its_module_its_call_and_its_map():
    """`relu#1` is the second call of `relu`; channels-last layers have their map first."""
    layer = LayerInfo("block.relu#1", "relu", (8, 5, 6), 8)
    assert (layer.module_name, layer.call, layer.map_shape) == ("block.relu", 1, (5, 6))
    last = LayerInfo("norm", "norm", (5, 6, 8), 8, channel_axis=-1)
    assert (last.module_name, last.call, last.map_shape) == ("norm", 0, (5, 6))
    assert LayerInfo("fc", "linear", (8,), 8).map_shape == ()


@given(st.data(), st.sampled_from([((12, 5, 6), 1), ((5, 6, 12), -1), ((12,), 1), ((12,), -1)]))
def test_a_part_of_a_layer_is_a_layer(data, kind):
    """Its units are the layer's, in order; a part of a part is a part of the layer; all of it is the layer itself."""
    shape, axis = kind
    layer = LayerInfo("norm#1", "norm", shape, SIZE, channel_axis=axis)
    first = data.draw(st.integers(0, SIZE - 1))
    last = data.draw(st.integers(first + 1, SIZE))
    part = layer.part(first, last)
    assert layer.part(0, SIZE) == layer
    assert (part.name, part.map_shape, part.units) == (layer.name, layer.map_shape, last - first)
    assert (part.first, part.is_last) == (first, last == SIZE)
    assert np.prod(part.shape) * SIZE == np.prod(layer.shape) * part.units
    within = data.draw(st.integers(0, part.units - 1))
    assert part.part(within, part.units) == layer.part(first + within, last)
    for wrong in ((0, 0), (-1, 1), (0, part.units + 1)):
        with pytest.raises(InputError, match="no part of it"):
            part.part(*wrong)


def test_a_part_says_which_units_it_holds():
    """A whole layer goes by its name, a part by its units too, counted within the layer."""
    layer = LayerInfo("conv1", "conv", (64, 9, 9), 64)
    assert layer.title == "conv1"
    assert layer.part(0, 32).title == "conv1 units 0-31"
    assert layer.part(32, 64).part(31, 32).title == "conv1 unit 63"


@given(st.integers(1, 9), st.integers(1, 4), st.integers(-8, 3), st.integers(0, 12))
def test_a_receptive_field_box_is_cut_at_the_border(size, stride, start, position):
    """The box holds exactly the pixels of the definition that lie in the image, and is never empty."""
    height = 16
    top, bottom, left, right = ReceptiveField((size, size), (stride, stride), (start, start)).box(
        position, position, height=height, width=height
    )
    first = start + position * stride
    inside = [pixel for pixel in range(first, first + size) if 0 <= pixel < height]
    assert (top, bottom) == (left, right)
    assert 0 <= top < bottom <= height
    if inside:
        assert list(range(top, bottom)) == inside
