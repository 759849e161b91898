"""Drop counts, fills and curves against known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.errors import InputError
from neuronscope.maths.faithfulness import (
    PixelFill,
    aopc,
    black,
    deletion_area,
    drop_count,
    drop_counts,
    insertion_area,
    probability_drop,
)


def test_counts_of_the_original():
    """10 % of 224 x 224 pixels are 5018, of 14 x 14 patches 20; the least is one."""
    assert drop_count(0.1, 50176) == 5018
    assert drop_count(0.1, 196) == 20
    assert drop_count(0.001, 196) == 1
    assert drop_counts((0.0, 0.5, 1.0), 10) == (0, 5, 10)


@given(st.floats(1e-6, 1), st.integers(1, 100_000))
def test_a_count_is_one_at_least_and_all_at_most(fraction, positions):
    """`max(1, round(f n))` stays within the positions."""
    assert 1 <= drop_count(fraction, positions) <= positions


def test_fills_are_what_they_say():
    """Mean is 0; black is black in pixels; each image has its own mean; the blur keeps an image's mean."""
    images = torch.randn(3, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    index = torch.tensor([4, 8, 15])
    assert (PixelFill().images(images, index=index) == 0).all()
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    dark = PixelFill("zero", black=black(mean, std, channels=3)).images(images, index=index)
    pixels = dark * torch.tensor(std).view(1, 3, 1, 1) + torch.tensor(mean).view(1, 3, 1, 1)
    assert torch.allclose(pixels, torch.zeros(()), atol=1e-6)
    own = PixelFill("image mean").images(images, index=index)
    assert torch.allclose(own[..., 0, 0], images.mean((2, 3)), atol=1e-6)
    soft = PixelFill("blur", sigma=3.0).images(images, index=index)
    assert torch.allclose(soft.mean((2, 3)), images.mean((2, 3)), atol=1e-5)
    assert soft.var() < images.var() / 20
    usual = PixelFill("blur").images(images, index=index)  # 10 pixels at a side of 224, so 1.25 at 28
    assert torch.allclose(usual, PixelFill("blur", sigma=1.25).images(images, index=index))


def test_noise_belongs_to_the_image():
    """Noise is the same in any batch, another for another image or seed, and standard normal."""
    images = torch.zeros(2, 3, 40, 40)
    noise = PixelFill("noise").images(images, index=torch.tensor([5, 6]))
    assert torch.equal(PixelFill("noise").images(images[:1], index=torch.tensor([6]))[0], noise[1])
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(PixelFill("noise", seed=1).images(images, index=torch.tensor([5, 6])), noise)
    assert abs(noise.mean()) < 0.05  # 9,600 numbers: five standard errors
    assert abs(noise.std() - 1) < 0.05


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: PixelFill("zero"), "what black is"),
        (lambda: PixelFill("blur", sigma=0.0), "above 0"),
        (lambda: PixelFill("zero", black=(0.0,)).images(torch.ones(1, 3, 2, 2), index=torch.tensor([0])), "3"),
        (lambda: drop_count(1.5, 10), "within 0 to 1"),
        (lambda: drop_count(0.5, 0), "at least one"),
        (lambda: drop_counts((), 10), "rise"),
        (lambda: drop_counts((0.5, 0.1), 10), "rise"),
        (lambda: deletion_area((0.1,), np.ones(1), np.ones((1, 2))), "one for each step"),
    ],
)
def test_what_cannot_be_is_refused(call, words):
    """Errors say what was expected."""
    with pytest.raises(InputError, match=words):
        call()


def test_areas_of_straight_lines():
    """A probability that falls (or rises) in a straight line has the area of a triangle, at any shares."""
    before = np.array([1.0, 0.5])
    shares = (0.2, 0.5, 1.0)
    falling = before[:, None] * (1 - np.array(shares))
    assert np.allclose(deletion_area(shares, before, falling), before / 2)
    rising = before[:, None] * np.array((0.0, 0.3, 0.6))
    assert np.allclose(insertion_area((0.0, 0.3, 0.6), before, rising), before / 2)
    assert np.allclose(deletion_area((0.0, *shares), before, np.column_stack([before, falling])), before / 2)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_aopc_equals_its_definition(seed, steps):
    """The mean fall over all steps, the untouched image among them."""
    rng = np.random.default_rng(seed)
    before, after = rng.random(3), rng.random((3, 2, steps))
    found = aopc(before, after)
    for image in range(3):
        for case in range(2):
            falls = [0.0] + [before[image] - after[image, case, k] for k in range(steps)]
            assert found[image, case] == pytest.approx(sum(falls) / (steps + 1))
    assert np.allclose(probability_drop(before, after), before[:, None, None] - after)
