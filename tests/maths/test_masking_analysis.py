"""Accuracies under masks, correlations and trees of responses: against their definitions and known answers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from neuronscope.errors import InputError
from neuronscope.maths import masking_analysis
from neuronscope.maths.masking_analysis import (
    accuracies,
    accuracies_by_class,
    against_random,
    image_accuracy,
    input_correlations,
    pairing_gap,
    response_clusters,
)
from neuronscope.maths.resampling import by_qvalues, mean_interval, wilson_interval


def rng(seed=0):
    """Random numbers, the same each time."""
    return np.random.default_rng(seed)


def shares(accuracy, *, images=60, draws=2, seed=0):
    """Images that are right with some chance, some harder than others; (images, *accuracy)."""
    random = rng(seed)
    hard = random.normal(size=(images, 1, *np.ones(np.ndim(accuracy), dtype=int)))
    noise = random.normal(size=(images, draws, *np.shape(accuracy)))
    right = (hard + noise) / np.sqrt(2) < special.ndtri(accuracy)
    return right.mean(axis=1).astype(np.float32)


def test_draws_of_an_image_are_averaged_first():
    """Top-1 and top-2 by the definition; an image without a label has no accuracy."""
    rank = rng().integers(0, 4, size=(5, 3, 2, 4))
    rank[3] = -1
    for top in (1, 2):
        found = image_accuracy(rank, top=top)
        for place in np.ndindex(found.shape):
            own = [rank[place[0], draw, place[1], place[2]] < top for draw in range(3)]
            assert np.isnan(found[place]) if place[0] == 3 else np.isclose(found[place], np.mean(own))


def test_accuracies_are_means_over_images_by_class():
    """By the definition, with Wilson's interval for whole answers and Student's for shares."""
    labels = np.array([0, 0, 1, 1, 1, 3, -1, 3, 3, 3])
    whole = (rng().random((10, 2)) < 0.5).astype(np.float32)
    parts = rng(1).random((10, 2)).astype(np.float32)
    right = np.stack([whole, parts], axis=2)
    right[4] = np.nan
    found = accuracies_by_class(right, labels, classes=4)
    assert found.images.tolist() == [2, 2, 0, 4]
    assert found.value.shape == (4, 2, 2)
    for c in (0, 1, 3):
        own = right[(labels == c) & ~np.isnan(right).any(axis=(1, 2))].astype(np.float64)
        np.testing.assert_allclose(found.value[c], own.mean(axis=0))
        for mask in range(2):
            expected = wilson_interval(np.array([int(own[:, mask, 0].sum())]), np.array([len(own)]))
            assert (found.low[c, mask, 0], found.high[c, mask, 0]) == tuple(one[0] for one in expected)
            t = mean_interval(own[:, mask, 1].mean()[None], own[:, mask, 1].var()[None], len(own))
            np.testing.assert_allclose(
                (found.low[c, mask, 1], found.high[c, mask, 1]), (max(t[0][0], 0), min(t[1][0], 1))
            )
    assert np.isnan(found.value[2]).all()
    together = accuracies(right[:4])
    np.testing.assert_allclose(together.value, right[:4].mean(axis=0, dtype=np.float64), rtol=1e-6)


def test_a_random_mask_is_not_found_worse_than_random_masks():
    """Masks differ in how much they hurt; one of them among 12 others has p-values that are uniform."""
    random, found = rng(), []
    for _ in range(300):
        harm = random.normal(0.5, 0.05, size=13)
        right = (random.random((80, 1, 13)) * 0.5 + random.random((80, 1, 13)) * 0.5 < harm).astype(np.float32)
        found.append(against_random(right[:, 0, :1], right[:, 0, 1:, None]).p[0])
    assert stats.kstest(found, "uniform").pvalue > 1e-3


def test_the_interval_of_the_difference_knows_images_and_masks():
    """It covers the difference to the mean of all random masks in about 95 of 100 cases."""
    random, covered = rng(3), 0
    # the sum of two uniform numbers of 0 to 0.5 is triangular: below x >= 0.5 lies 1 - 2 (1 - x)^2
    truth = 2 * 0.4**2 - (1 - 2 * ((1 - 0.6) ** 2 + 0.04**2))
    for _ in range(300):
        harm = np.clip(random.normal(0.6, 0.04, size=10), 0, 1)
        hard = random.random((100, 1))
        guided = (0.5 * hard + 0.5 * random.random((100, 1)) < 0.4).astype(np.float32)
        controls = (0.5 * hard + 0.5 * random.random((100, 10)) < harm).astype(np.float32)
        found = against_random(guided, controls[:, :, None])
        covered += found.low[0] <= truth <= found.high[0]
    assert 0.92 < covered / 300 < 0.99
    assert found.q == by_qvalues(found.p)


def test_responses_are_correlated_over_configurations():
    """Spearman's correlation, its p-value and each draw of images by the definition."""
    bars = rng(4).random((3, 2, 6))
    original, augmented = shares(bars[0]), shares(bars[1:], seed=1)
    found = input_correlations(original, augmented, rng=rng(5), draws=4)
    random = rng(5)
    picks = random.integers(0, len(original), size=(4, len(original)))
    for a, j in np.ndindex(2, 2):
        expected = stats.spearmanr(original[:, j].mean(0).round(7), augmented[:, a, j].mean(0).round(7))
        np.testing.assert_allclose((found.value[a, j], found.p[a, j]), expected, rtol=1e-9)
        for draw, pick in enumerate(picks):
            again = [one[pick].mean(0, dtype=np.float64).round(7) for one in (original[:, j], augmented[:, a, j])]
            np.testing.assert_allclose(found.drawn[draw, a, j], stats.spearmanr(*again)[0], rtol=1e-9)
    np.testing.assert_allclose(found.q, by_qvalues(found.p))
    assert (found.low <= found.value).all()
    assert (found.value <= found.high).all()


def test_intervals_cover_a_correlation_of_one_and_one_below():
    """The trap of percentiles: noise in accuracies makes every draw's correlation too low."""
    covered = {"equal": 0, "apart": 0}
    bars = np.linspace(0.15, 0.75, 17)
    truths = {"equal": bars * 0.8, "apart": np.clip(bars + rng(6).normal(0, 0.15, 17), 0.05, 0.95)}
    for name, other in truths.items():
        truth = stats.spearmanr(bars, other)[0]
        for seed in range(40):
            both = shares(np.stack([bars, other]), images=150, draws=1, seed=seed)
            found = input_correlations(both[:, :1], both[:, 1:, None], rng=rng(seed), draws=200)
            covered[name] += found.low[0, 0] - 1e-9 <= truth <= found.high[0, 0] + 1e-9
    assert min(covered.values()) >= 34, covered


def test_blocks_change_nothing(monkeypatch):
    """Draws come one after another, however many fit into memory."""
    bars = rng(4).random((3, 2, 6))
    original, augmented = shares(bars[0]), shares(bars[1:], seed=1)
    once = input_correlations(original, augmented, rng=rng(), draws=9)
    tree = response_clusters(augmented[:, 0], rng=rng(), draws=9)
    monkeypatch.setattr(masking_analysis, "_BLOCK", 2 * len(original))
    assert np.array_equal(once.drawn, input_correlations(original, augmented, rng=rng(), draws=9).drawn)
    assert np.array_equal(tree.support, response_clusters(augmented[:, 0], rng=rng(), draws=9).support)


def test_unlabelled_images_are_left_out():
    """They change nothing, wherever they stand."""
    bars = rng(4).random((3, 2, 6))
    original, augmented = shares(bars[0]), shares(bars[1:], seed=1)
    expected = input_correlations(original, augmented, rng=rng(), draws=3)
    more = [np.concatenate([one[:7], np.full_like(one[:1], np.nan), one[7:]]) for one in (original, augmented)]
    assert np.array_equal(input_correlations(*more, rng=rng(), draws=3).drawn, expected.drawn)


def test_pairs_that_deviate_most_are_found():
    """Responses that turn round where input and mask factor agree, among others that do not."""
    bars = np.broadcast_to(np.linspace(0.1, 0.9, 9), (5, 5, 9)).copy()
    bars[np.arange(5), np.arange(5)] = bars[0, 0, ::-1].copy()
    plain = np.broadcast_to(np.linspace(0.1, 0.9, 9), (5, 9))
    found = input_correlations(shares(plain, images=300), shares(bars, images=300), rng=rng(), draws=100)
    same = np.eye(5, dtype=bool)
    gap = pairing_gap(found, same, rng=rng(), orders=999)
    assert gap.value < -1.8
    assert gap.low <= gap.value <= gap.high < -1.5
    assert gap.p < 0.03  # 1 of 120 orders, give or take chance
    assert pairing_gap(found, np.roll(same, 1, axis=1), rng=rng(), orders=99).p > 0.3
    assert np.isnan(pairing_gap(found, ~np.zeros((5, 5), dtype=bool), rng=rng(), orders=9).p)


def test_trees_are_those_of_the_original():
    """Average linkage of sqrt(1 - |rho|), cut at 0.025, by scipy's own functions."""
    right = shares(rng(8).random((7, 9)), images=80)
    found = response_clusters(right, rng=rng(), draws=2)
    rho = stats.spearmanr(right.mean(0, dtype=np.float64).round(9).T)[0]
    np.testing.assert_allclose(found.correlation, rho, atol=1e-12)
    distance = np.sqrt(np.maximum(1 - np.abs(rho), 0))
    np.fill_diagonal(distance, 0)
    linkage = hierarchy.linkage(squareform(distance, checks=False), method="average")
    np.testing.assert_allclose(found.linkage, linkage, atol=1e-7)
    assert np.array_equal(found.order, hierarchy.dendrogram(linkage, no_plot=True)["leaves"])
    assert np.array_equal(found.flat, hierarchy.fcluster(linkage, 0.025, criterion="distance"))


def test_support_tells_groups_from_chance():
    """Two groups of responses are in the tree of every draw; what joins within noise alone is in few."""
    up = np.linspace(0.1, 0.9, 9)
    bars = np.stack([up, up, up, up, *[up[[4, 8, 0, 6, 2, 7, 1, 3, 5]]] * 4])
    found = response_clusters(shares(bars, images=400), rng=rng(), draws=40)
    groups = [set(range(4)), set(range(4, 8))]
    members = masking_analysis._members(found.linkage, 8)
    support = dict(zip(members, found.support, strict=True))
    assert all(support[frozenset(group)] > 0.9 for group in groups)
    noise = response_clusters(shares(np.full((8, 9), 0.5), images=400), rng=rng(), draws=40)
    assert np.median(noise.support[:-1]) < 0.5
    assert noise.support[-1] == 1, "all responses together are a cluster of every tree"


def test_a_flat_response_stands_alone():
    """Where nothing differs there is no correlation: the distance is 1, and no interval is made up."""
    right = shares(rng(8).random((3, 9)))
    right[:, 1] = 0
    found = response_clusters(right, rng=rng(), draws=5)
    assert np.isnan(found.correlation[1]).all()
    assert found.distance[1].tolist() == [1, 0, 1]
    flat = input_correlations(right, right[:, None], rng=rng(), draws=5)
    for one in (flat.value, flat.low, flat.high, flat.p, flat.q):
        assert np.isnan(one[0]).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: image_accuracy(np.zeros((3, 0, 2), dtype=np.int16)), "0 draws and the first 1 classes"),
        (
            lambda: input_correlations(shares(np.full((1, 2), 0.5)), shares(np.full((1, 1, 2), 0.5)), rng=rng()),
            "2 conf",
        ),
        (lambda: response_clusters(shares(np.full((1, 9), 0.5)), rng=rng()), "1 response"),
        (lambda: response_clusters(shares(np.full((2, 9), 0.5), images=1), rng=rng()), "1 labelled images"),
        (
            lambda: against_random(np.zeros((3, 1), np.float32), np.zeros((4, 2, 1), np.float32)),
            "3 images and controls",
        ),
        (lambda: against_random(np.zeros((3, 1), np.float32), np.zeros((3, 1, 1), np.float32)), "at least 2 controls"),
        (
            lambda: input_correlations(
                shares(np.full((1, 9), 0.5)), shares(np.full((1, 1, 9), 0.5), images=9), rng=rng()
            ),
            "60 plain and 9 augmented",
        ),
    ],
)
def test_too_little_is_refused(call, text):
    """What is missing is said."""
    with pytest.raises(InputError, match=text):
        call()
