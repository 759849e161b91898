"""Bases of masks: as many as the rank, exact, and with small coefficients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.maths.masks_basis import mask_basis

MASKS = st.integers(1, 7).flatmap(
    lambda width: st.lists(st.lists(st.booleans(), min_size=width, max_size=width), min_size=1, max_size=9)
)


def clusterings(labels, *, closed):
    """All open, and each cluster of each clustering closed or alone."""
    masks = [[True] * len(labels[0])]
    for one in labels:
        masks += [(one != c if closed else one == c).tolist() for c in range(max(one) + 1)]
    return np.array(masks)


@given(MASKS)
def test_combinations_are_exact_and_few(rows):
    """Whole-number coefficients give back every mask, from as many vectors as their rank; rarely more, never too many.

    More are taken where a mask is half of what others make.
    """
    masks = np.array(rows)
    basis = mask_basis(masks)
    assert (basis.coefficients @ basis.vectors.astype(int) == masks).all()
    rank = np.linalg.matrix_rank(masks.astype(float))
    assert rank <= basis.size <= len(np.unique(masks[masks.any(axis=1)], axis=0))
    assert basis.vectors.any(axis=1).all()


@given(MASKS, st.randoms(use_true_random=False))
def test_repeated_channels_and_masks_cost_nothing(rows, random):
    """Channels of the same kind and masks that come twice: still exact, and the same mask is made in the same way."""
    masks = np.array(rows)
    columns = [*range(masks.shape[1]), *(random.randrange(masks.shape[1]) for _ in range(5))]
    twice = np.concatenate([masks, masks])[:, columns]
    basis = mask_basis(twice)
    assert (basis.coefficients @ basis.vectors.astype(int) == twice).all()
    assert basis.size <= len(np.unique(masks, axis=0))
    assert (basis.coefficients[: len(masks)] == basis.coefficients[len(masks) :]).all()


@given(st.lists(st.lists(st.integers(0, 4), min_size=30, max_size=30), min_size=1, max_size=4), st.booleans())
def test_clusterings_need_ones_only(labels, closed):
    """Clusters closed or alone, of several clusterings: as many as the rank, all coefficients -1, 0 or 1."""
    masks = clusterings([np.unique(one, return_inverse=True)[1] for one in labels], closed=closed)
    basis = mask_basis(masks)
    assert basis.size == np.linalg.matrix_rank(masks.astype(float))
    assert set(np.unique(basis.coefficients).tolist()) <= {-1, 0, 1}


def test_nothing_open_needs_nothing():
    """Masks that are all closed have rank 0."""
    basis = mask_basis(np.zeros((3, 4), dtype=bool))
    assert basis.size == 0
    assert basis.coefficients.shape == (3, 0)


def test_many_random_masks_are_their_own_basis():
    """A hundred draws of channels, of which none follows from others."""
    masks = np.random.default_rng(0).random((100, 512)) < 0.3
    basis = mask_basis(masks)
    assert basis.size == 100
    assert np.abs(basis.coefficients).sum() == 100


def test_coefficients_stay_small_where_masks_are_many():
    """More masks than channels: no coefficient above 8, even if that takes vectors beyond the rank."""
    masks = np.random.default_rng(1).random((300, 14)) < 0.5
    basis = mask_basis(masks)
    assert (basis.coefficients @ basis.vectors.astype(int) == masks).all()
    assert np.abs(basis.coefficients).max() <= 8


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize(("block", "rank"), [(1, 8), (2, 6), (3, 11), (4, 11)])
def test_ranks_of_the_original_clusterings(test_data, block, rank, closed):
    """The clusters of k = 2 to 5 and the baseline: 8, 6, 11 and 11 vectors, with coefficients -1, 0 and 1."""
    folder = test_data / "golden" / "densenet121-clusters"
    if not folder.is_dir():
        pytest.skip("the folder of NEURONSCOPE_TEST_DATA holds no golden/densenet121-clusters")
    labels = [np.load(folder / f"cluster_results_block_{block}_k{k}.npz")["labels"] for k in range(2, 6)]
    masks = clusterings(labels, closed=closed)
    basis = mask_basis(masks)
    assert basis.size == rank
    assert (basis.coefficients @ basis.vectors.astype(int) == masks).all()
    assert set(np.unique(basis.coefficients).tolist()) <= {-1, 0, 1}
