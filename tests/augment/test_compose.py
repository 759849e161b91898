"""Many augmentations in any order and with switches, against one image at a time; orders by their numbers."""

import itertools
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.augment import SETS, Augmentation, Parameter, augmentations, compose, decoded, permutation
from neuronscope.errors import InputError

KNOWN = augmentations(24, 32)


def drawn(chosen, n, seed):
    """Images, values, switches and orders."""
    rng = np.random.default_rng(seed)
    values = np.concatenate([decoded(one, rng.random((n, len(one.parameters)))) for one in chosen], axis=1)
    order = np.argsort(rng.random((n, len(chosen))), axis=1)
    images = torch.from_numpy(rng.random((n, 3, 24, 32), dtype=np.float32))
    return images, values, rng.random((n, len(chosen))) < 0.7, order


def plainly(chosen, images, values, applied, order):
    """One image after the other, one augmentation after the other."""
    starts = np.cumsum([0, *(len(one.parameters) for one in chosen)])
    done = []
    for i in range(len(images)):
        image = images[i : i + 1].clone()
        for number in order[i]:
            if applied[i, number]:
                own = values[i : i + 1, starts[number] : starts[number + 1]]
                image = chosen[number].apply(image, torch.from_numpy(own))
        done.append(image)
    return torch.cat(done)


@pytest.mark.parametrize("names", [*SETS.values(), SETS["set2"] + SETS["set1"]], ids=["set1", "set2", "all"])
def test_equal_to_one_image_at_a_time(names):
    """Orders and switches of each image's own; the input stays. Only float32 rounding is let through."""
    chosen = [KNOWN[name] for name in names]
    images, values, applied, order = drawn(chosen, 40, seed=len(names))
    before = images.clone()
    changed = compose(chosen, images, values, applied, order)
    assert torch.equal(images, before)
    # contrast and saturation in a row multiply a difference of rounding by up to 3.5 each
    assert (changed - plainly(chosen, images, values, applied, order)).abs().max() < 1e-4


def test_tensors_do_as_well_as_arrays():
    """Designs bring arrays, batches bring tensors: the same images."""
    chosen = [KNOWN[name] for name in SETS["set1"]]
    images, *tables = drawn(chosen, 10, seed=1)
    as_tensors = [torch.from_numpy(table) for table in tables]
    assert torch.equal(compose(chosen, images, *tables), compose(chosen, images, *as_tensors))


def test_the_order_decides():
    """Erased then rolled is not rolled then erased, and the first in the order comes first."""

    def add(images, values):
        return images + values[:, 0].to(images.dtype).view(-1, 1, 1, 1)

    def double(images, _):
        return images * 2

    chosen = [Augmentation("add", (Parameter("by", 0, 1),), add, ""), Augmentation("double", (), double, "")]
    images = torch.full((3, 1, 2, 2), 0.125)
    order, applied = np.array([[0, 1], [1, 0], [1, 0]]), np.array([[True, True], [True, True], [True, False]])
    changed = compose(chosen, images, np.array([[0.125], [0.25], [0.5]]), applied, order)
    assert changed[:, 0, 0, 0].tolist() == [0.5, 0.5, 0.625]
    changed = compose(chosen, images, np.array([[0.25]] * 3), applied, order)
    assert changed[:, 0, 0, 0].tolist() == [0.75, 0.5, 0.375]


def test_nothing_applied_is_a_copy():
    """All switches off, no augmentation at all, no image at all: equal images, other memory."""
    chosen = [KNOWN["hue"], KNOWN["hflip"]]
    images, values, applied, order = drawn(chosen, 4, seed=0)
    for result in (
        compose(chosen, images, values, np.zeros_like(applied), order),
        compose([], images, values[:, :0], applied[:, :0], order[:, :0]),
    ):
        assert torch.equal(result, images)
        assert result.data_ptr() != images.data_ptr()
    assert compose(chosen, images[:0], values[:0], applied[:0], order[:0]).shape == (0, 3, 24, 32)


def test_what_cannot_be_is_refused():
    """Columns that are missing, orders that are none, colours that are not there."""
    chosen = [KNOWN["rolling"], KNOWN["hue"]]
    images, values, applied, order = drawn(chosen, 4, seed=0)
    cases = {
        "expected a row for each, and 3 columns (rolling 2, hue 1)": (images, values[:, :2], applied, order),
        "switches of shape (4, 1)": (images, values, applied[:, :1], order[:, :1]),
        "expected (4, 2) for both, and each of 0 to 1 once": (images, values, applied, np.zeros_like(order)),
        "hue cannot change images of 1 channel": (images[:, :1], values, applied, order),
    }
    for text, arguments in cases.items():
        with pytest.raises(InputError, match=re.escape(text)):
            compose(chosen, *arguments)


@pytest.mark.parametrize("count", range(8))
def test_orders_are_numbered_as_by_itertools(count):
    """All orders of up to seven things, in lexicographic order."""
    expected = [*itertools.permutations(range(count))]
    found = permutation(np.arange(len(expected)), count)
    assert found.shape == (len(expected), count)
    assert [*map(tuple, found.tolist())] == expected


@given(count=st.integers(1, 20), data=st.data())
def test_large_numbers_give_orders_too(count, data):
    """Up to 20! - 1, which needs 62 bits: the number can be read back from the order."""
    most = 1
    for factor in range(2, count + 1):
        most *= factor
    rank = data.draw(st.integers(0, most - 1))
    order = permutation(np.array([rank]), count)[0].tolist()
    read = 0
    for place, thing in enumerate(order):
        read = read * (count - place) + sum(other < thing for other in order[place + 1 :])
    assert read == rank


def test_numbers_without_an_order_are_refused():
    """Negative, too large, or of too many things."""
    for rank, count, text in (
        (6, 3, "no order number 6 of 3 things: expected 0 to 5"),
        (-1, 3, "number -1"),
        (0, 21, "21 things"),
    ):
        with pytest.raises(InputError, match=text):
            permutation(np.array([rank]), count)
