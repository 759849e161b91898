"""Decompositions against their definitions, written plainly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.errors import InputError
from neuronscope.maths.decomposition import decompose, summary

seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.integers(1, 4))
def test_each_image_equals_the_loop(seed, k):
    """Magnitude, share, error and correlation, part by part and pair by pair."""
    rng = np.random.default_rng(seed)
    parts, whole = rng.standard_normal((2, k, 3, 4, 5)), rng.standard_normal((2, 3, 4, 5))
    found = decompose(torch.from_numpy(parts), torch.from_numpy(whole))
    for image in range(2):
        norms = [float(np.sqrt((parts[image, c] ** 2).sum())) for c in range(k)]
        assert np.allclose(found.magnitudes[image], norms)
        assert np.allclose(found.shares[image], np.array(norms) / sum(norms))
        error = np.mean(np.abs(whole[image] - sum(parts[image, c] for c in range(k))))
        assert found.error[image].item() == pytest.approx(error)
        pairs = [
            abs(np.corrcoef(parts[image, a].ravel(), parts[image, b].ravel())[0, 1])
            for a in range(k)
            for b in range(a + 1, k)
        ]
        if pairs:
            assert found.likeness[image].item() == pytest.approx(np.mean(pairs))
        else:
            assert found.likeness[image].isnan()


@given(seeds, st.floats(1e-3, 1e3))
def test_laws(seed, scale):
    """Parts of a sum leave no error; scaling scales sizes and errors alone; images do not look at each other."""
    rng = torch.Generator().manual_seed(seed)
    parts = torch.randn(3, 4, 50, generator=rng, dtype=torch.float64)
    one, other = decompose(parts, parts.sum(1)), decompose(scale * parts, scale * parts.sum(1))
    assert (one.error < 1e-14).all()
    assert torch.allclose(other.magnitudes, scale * one.magnitudes)
    assert torch.allclose(other.shares, one.shares)
    assert torch.allclose(other.likeness, one.likeness)
    assert torch.allclose(one.shares.sum(1), torch.ones(3, dtype=torch.float64))
    assert torch.equal(decompose(parts.flip(0), parts.sum(1).flip(0)).likeness.flip(0), one.likeness)


def test_parts_that_are_nothing():
    """A part of zeros has no share and no correlation; pairs without it still count; all zeros have no shares."""
    parts = torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(0))
    parts[0, 2] = 0
    parts[1] = 0
    found = decompose(parts, parts.sum(1))
    assert found.shares[0, 2] == 0
    expected = abs(np.corrcoef(parts[0, 0], parts[0, 1])[0, 1])
    assert found.likeness[0].item() == pytest.approx(expected, abs=1e-6)
    assert found.shares[1].isnan().all()
    assert found.likeness[1].isnan()
    assert (found.sparsity[1] == 0).all()
    with pytest.raises(InputError, match="one part at least"):
        decompose(parts[:1], parts.sum(1))


def test_summary_of_normal_numbers():
    """The mean lies within its interval, which has the half-width of Student's t."""
    values = np.array([[1.0, 2.0], [2.0, np.nan], [3.0, 4.0], [4.0, np.nan]])
    found = summary(values)
    assert found.images.tolist() == [4, 2]
    assert found.mean.tolist() == [2.5, 3.0]
    assert found.spread.tolist() == [np.std([1, 2, 3, 4]), 1.0]
    half = 3.182446 * np.std([1, 2, 3, 4], ddof=1) / 2  # quantile of Student's t with 3 degrees of freedom
    assert found.high[0] - found.mean[0] == pytest.approx(half, rel=1e-6)
    assert np.isnan(summary(values[:0]).mean).all()
