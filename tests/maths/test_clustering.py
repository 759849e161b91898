"""Clusters of units: features on one scale, k-means and its golden labels, and what clusterings have in common."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronscope.errors import InputError, UnknownName
from neuronscope.maths.clustering import (
    APART,
    UnitFeatures,
    adjusted_rand,
    cluster_mask,
    cluster_masks,
    cluster_tree,
    distinct_sets,
    features_of,
    hierarchical,
    kmeans,
    match_by_centroid,
    match_clusters,
    reduced_profile,
    silhouettes,
    tsne,
)

BLOCKS = (1, 2, 3, 4)
KS = (2, 3, 4, 5)


def blobs(units: int = 60, k: int = 3, *, seed: int = 0) -> tuple[UnitFeatures, np.ndarray]:
    """Features of units around `k` well separated places, unequally many at each, and the place of each unit."""
    rng = np.random.default_rng(seed)
    truth = np.sort(rng.choice(k, size=units, p=np.arange(k, 0, -1) / (k * (k + 1) / 2)))
    truth[-k:] = np.arange(k)
    jitter = rng.normal(scale=0.01, size=(3, units))
    rate = 0.1 + 0.8 * truth / k
    return features_of(rate + jitter[0], 2.0 * truth + jitter[1], 1.0 + (truth == 1) + jitter[2]), truth


@pytest.fixture
def golden(test_data: Path) -> Path:
    """The original's statistics and clusterings of the four blocks of DenseNet-121."""
    return test_data / "golden" / "densenet121-clusters"


def original(folder: Path, block: int, *, dead: str = "clustered") -> UnitFeatures:
    """Features of all units of a block, from the original's statistics."""
    with np.load(folder / f"stats_block_{block}.npz") as file:
        return features_of(file["activation_rate"], file["mean_activation"], file["variance"], dead=dead)


def original_labels(folder: Path, block: int, k: int) -> np.ndarray:
    """The original's clusters of a block."""
    with np.load(folder / f"cluster_results_block_{block}_k{k}.npz") as file:
        return file["labels"].astype(np.int64)


# Features


def test_columns_have_mean_0_and_deviation_1():
    """Each column of the clustered units is z-scored with the population deviation, in the order given."""
    rng = np.random.default_rng(0)
    rate, mean, variance, further = rng.random((4, 30))
    found = features_of(rate, mean, variance, more={"sparsity": further})
    assert found.names == ("rate", "mean", "variance", "sparsity")
    np.testing.assert_array_equal(found.values, np.stack([rate, mean, variance, further], axis=1))
    np.testing.assert_allclose(found.scaled.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(found.scaled.std(axis=0), 1)


@given(st.floats(0.01, 100), st.floats(-5, 5))
def test_scale_and_origin_of_a_feature_do_not_matter(scale, shift):
    """Measuring an activation in other units gives the same scaled features."""
    rate, mean, variance = np.random.default_rng(1).random((3, 12))
    one = features_of(rate, mean, variance)
    other = features_of(rate, scale * mean + shift, scale**2 * variance)
    np.testing.assert_allclose(one.scaled, other.scaled, atol=1e-9)


def test_dead_units_are_apart_and_do_not_set_the_scale():
    """Units that never fire nor vary get label -1, and the others are clustered as if they were not there."""
    whole, truth = blobs()
    rate, mean, variance = whole.values.T
    found = features_of(*(np.concatenate([column, np.zeros(5)]) for column in (rate, mean, variance)))
    assert found.dead.sum() == 5
    assert not found.clustered[-5:].any()
    np.testing.assert_allclose(found.points, whole.scaled)
    labels = kmeans(found, 3).labels
    assert (labels[-5:] == APART).all()
    assert adjusted_rand(labels[:-5], truth) == 1.0


def test_dead_units_can_be_clustered_as_in_the_original():
    """With dead="clustered" every unit gets a cluster."""
    zero = np.zeros(4)
    rate = np.array([0.0, 0.0, 0.5, 0.6])
    found = features_of(rate, rate, rate, dead="clustered")
    assert found.clustered.all()
    assert kmeans(found, 2).labels.min() == 0
    assert features_of(zero, zero, zero).clustered.sum() == 0


def test_units_without_finite_features_are_apart():
    """A nan or an infinity in any feature leaves the unit out, also in a profile; the others stay finite."""
    rate, mean, variance = np.random.default_rng(2).random((3, 10))
    mean[3] = np.nan
    profile = np.random.default_rng(3).random((10, 6))
    profile[7, 2] = np.inf
    found = features_of(rate, mean, variance, profiles={"class_profile": profile})
    np.testing.assert_array_equal(np.flatnonzero(~found.clustered), [3, 7])
    assert np.isfinite(found.points).all()
    assert not found.dead.any()


def test_constant_columns_are_zero_and_named():
    """A column without spread says nothing: it is 0, not nan, and is reported, also if its mean is not exact."""
    rate = np.array([0.1, 0.5, 0.9])
    found = features_of(rate, np.full(3, 0.1), rate)
    assert found.constant == ("mean",)
    np.testing.assert_array_equal(found.scaled[:, 1], 0)


def test_blocks_weigh_the_same():
    """Each profile has as much variance as all single columns together, whatever its width and scale."""
    rng = np.random.default_rng(4)
    rate, mean, variance = rng.random((3, 50))
    profiles = {"class_profile": rng.random((50, 40)), "gradient_profile": 1e6 * rng.normal(size=(50, 7))}
    found = features_of(rate, mean, variance, profiles=profiles)
    for block in ("class_profile", "gradient_profile"):
        columns = [name.startswith(block) for name in found.names]
        assert 1 <= sum(columns) <= 10
        np.testing.assert_allclose(found.scaled[:, columns].var(axis=0).sum(), 3)


def test_a_constant_profile_is_reported():
    """A profile that is the same for all units becomes one column of zeros."""
    rate = np.random.default_rng(5).random(8)
    found = features_of(rate, rate, rate, profiles={"class_profile": np.ones((8, 4))})
    assert found.constant == ("class_profile_1",)


def test_profile_keeps_the_share_asked_for():
    """As many components are kept as explain 90 %, at most 10; they hold that share of the distances (slow twin)."""
    rng = np.random.default_rng(6)
    table = rng.normal(size=(80, 5)) @ (np.array([9.0, 5.0, 1.0, 0.5, 0.1])[:, None] * rng.normal(size=(5, 30)))
    found = reduced_profile(table, rows="as given")
    total = ((table - table.mean(axis=0)) ** 2).sum()
    assert 0.9 <= (found.scores**2).sum() / total < 1
    assert (found.scores[:, :-1] ** 2).sum() / total < 0.9
    assert reduced_profile(rng.normal(size=(80, 60)), rows="as given").scores.shape == (80, 10)
    np.testing.assert_allclose(found.explained, found.scores.var(axis=0) * 80 / total)


def test_profiles_are_compared_by_direction():
    """By default a unit that answers twice as strongly to the same classes has the same profile."""
    base = np.random.default_rng(7).random((6, 9))
    strength = np.array([1.0, 2.0, 5.0, 0.1, 1.0, 3.0])[:, None]
    one, other = reduced_profile(base), reduced_profile(base * strength)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-9)


# Clusters


def test_planted_blobs_are_found():
    """Well separated groups are found by k-means and by every linkage, the largest as cluster 0."""
    features, truth = blobs()
    for found in (kmeans(features, 3), *(hierarchical(features, 3, linkage=link) for link in ("ward", "average"))):
        assert adjusted_rand(found.labels, truth) == 1.0
        np.testing.assert_array_equal(found.sizes, np.sort(np.bincount(truth))[::-1])
        np.testing.assert_array_equal(np.bincount(found.labels), found.sizes)


def test_what_a_clustering_says_of_itself():
    """Centroids are means in the features' own units, inertia and silhouette those of the scaled features."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_samples

    features, _ = blobs(seed=3)
    found = kmeans(features, 4)
    for cluster in range(4):
        own = found.labels == cluster
        np.testing.assert_allclose(found.centroids[cluster], features.values[own].mean(axis=0))
        np.testing.assert_allclose(found.scaled_centroids[cluster], features.scaled[own].mean(axis=0))
    best = KMeans(4, n_init=20, random_state=0).fit(features.scaled)
    np.testing.assert_allclose(found.inertia, best.inertia_)
    np.testing.assert_allclose(found.unit_silhouettes, silhouette_samples(features.scaled, found.labels), atol=1e-12)
    np.testing.assert_allclose(found.silhouette, found.unit_silhouettes.mean())


@given(st.permutations(range(30)), st.sampled_from(["ward", "average", "complete", "single"]))
def test_permuting_units_permutes_labels(order, linkage):
    """The order of the units plays no part in hierarchical clusters, nor in their numbers."""
    rng = np.random.default_rng(8)
    columns = rng.random((3, 30))
    one = hierarchical(features_of(*columns), 4, linkage=linkage)
    other = hierarchical(features_of(*columns[:, order]), 4, linkage=linkage)
    np.testing.assert_array_equal(one.labels[list(order)], other.labels)


@given(st.permutations(range(40)))
def test_permuting_units_permutes_the_labels_of_separate_groups(order):
    """Where groups are clear, k-means numbers them the same however the units are ordered."""
    features, _ = blobs(40)
    other = features_of(*features.values[list(order)].T)
    np.testing.assert_array_equal(kmeans(features, 3).labels[list(order)], kmeans(other, 3).labels)


def test_equal_sizes_are_numbered_by_activity():
    """Of two clusters of one size the more active is the first, and the seed does not change that."""
    rate = np.array([0.1, 0.9, 0.12, 0.88])
    features = features_of(rate, rate, rate)
    for seed in range(10):
        np.testing.assert_array_equal(kmeans(features, 2, n_init=1, seed=seed).labels, [1, 0, 1, 0])


def test_hierarchical_clusters_are_nested():
    """Every cluster of k + 1 lies wholly within one of k."""
    features = features_of(*np.random.default_rng(9).random((3, 50)))
    tree = cluster_tree({k: hierarchical(features, k).labels for k in range(2, 9)})
    assert [step.k for step in tree] == list(range(3, 9))
    for step in tree:
        np.testing.assert_array_equal(step.share, 1.0)


def test_silhouettes_of_several_clusterings_at_once():
    """The shared distances give what scikit-learn gives for each clustering, also for a unit alone."""
    from sklearn.metrics import silhouette_samples

    rng = np.random.default_rng(10)
    points = rng.normal(size=(40, 3))
    labels = np.stack([rng.permutation(np.arange(40) % k) for k in (2, 3, 7)])
    labels[2, labels[2] == 6] = 5
    labels[2, 0] = 6
    found = silhouettes(points, labels)
    for row, own in zip(labels, found, strict=True):
        np.testing.assert_allclose(own, silhouette_samples(points, row), atol=1e-12)


def test_blocks_of_distances_change_nothing(monkeypatch):
    """Silhouettes are the same whether distances fit into one block or not."""
    rng = np.random.default_rng(11)
    points, labels = rng.normal(size=(37, 2)), rng.integers(3, size=(2, 37))
    whole = silhouettes(points, labels)
    monkeypatch.setattr("neuronscope.maths.clustering._BLOCK", 100)
    np.testing.assert_allclose(silhouettes(points, labels), whole)


# The original's numbers


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("k", KS)
def test_golden_labels(golden, block, k):
    """One start with seed 42 on all units gives the original's label vectors, label for label, and its centroids."""
    found = kmeans(original(golden, block), k, n_init=1, seed=42, order="as found")
    np.testing.assert_array_equal(found.labels, original_labels(golden, block, k))
    table = np.genfromtxt(golden / f"cluster_centroids_block_{block}_k{k}.csv", delimiter=",", names=True)
    for name, column in zip(found.names, found.centroids.T, strict=True):
        # the original averaged in float32
        np.testing.assert_allclose(column, table[name], rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(found.sizes, table["n_neurons"])


@pytest.mark.parametrize(
    ("block", "two", "five"), [(1, 0.716, 0.494), (2, 0.792, 0.508), (3, 0.752, 0.356), (4, 0.458, 0.483)]
)
def test_golden_silhouettes(golden, block, two, five):
    """Silhouettes of the original's clusterings go from k = 2 to k = 5 as published."""
    features = original(golden, block)
    labels = np.stack([original_labels(golden, block, k) for k in (2, 5)])
    np.testing.assert_allclose(silhouettes(features.scaled, labels).mean(axis=1), [two, five], atol=6e-4)


def test_golden_scatter_over_seeds(golden):
    """With one start, block 1 and k = 3 agree over 30 seeds at 0.82 on average and 0.59 at worst."""
    features = original(golden, 1)
    labels = [kmeans(features, 3, n_init=1, seed=seed).labels for seed in range(30)]
    pairs = [adjusted_rand(labels[i], labels[j]) for i in range(30) for j in range(i)]
    assert np.mean(pairs) == pytest.approx(0.82, abs=0.006)
    assert min(pairs) == pytest.approx(0.59, abs=0.006)


@pytest.mark.parametrize(("block", "distinct"), [(1, 11), (2, 9)])
def test_golden_distinct_sets(golden, block, distinct):
    """Of the 14 clusters of k = 2 to 5, block 1 has 11 different ones and block 2 has 9."""
    labels = {k: original_labels(golden, block, k) for k in KS}
    found = distinct_sets(labels)
    assert len(found.masks) == distinct
    for k, row in labels.items():
        np.testing.assert_array_equal(found.masks[list(found.of[k])], cluster_masks(row))


# Comparing


@given(st.lists(st.integers(-1, 4), min_size=2, max_size=40), st.randoms(use_true_random=False))
def test_adjusted_rand_is_that_of_scikit_learn(labels, random):
    """The index is scikit-learn's on the units that both have, symmetric, and 1 for renumbered clusters."""
    from sklearn.metrics import adjusted_rand_score

    first = np.array(labels)
    second = np.array([random.randint(-1, 3) for _ in labels])
    common = (first >= 0) & (second >= 0)
    found = adjusted_rand(first, second)
    if common.sum() < 2:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(adjusted_rand_score(first[common], second[common]), abs=1e-12)
        assert found == pytest.approx(adjusted_rand(second, first))
    if (first >= 0).sum() > 1:
        assert adjusted_rand(first, np.where(first < 0, first, 4 - first)) == pytest.approx(1.0)


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=40), st.permutations(range(5)))
def test_renumbered_clusters_match_fully(labels, names):
    """Clusters under other numbers find each other, with Jaccard index 1; units in no cluster play no part."""
    first = np.array(labels)
    second = np.where(first < 0, first, np.array(names)[first])
    found = match_clusters(first, second)
    present = np.unique(first[first >= 0])
    np.testing.assert_array_equal(found.first, present)
    np.testing.assert_array_equal(found.second, np.array(names)[present])
    np.testing.assert_array_equal(found.jaccard, 1.0)


def test_matching_maximises_the_sum():
    """The best pairing as a whole is taken, not the best pair first (slow twin over all pairings)."""
    from itertools import permutations

    rng = np.random.default_rng(12)
    first, second = rng.integers(4, size=(2, 50))
    found = match_clusters(first, second)

    def jaccard(i, j):
        return ((first == i) & (second == j)).sum() / ((first == i) | (second == j)).sum()

    best = max(sum(jaccard(i, j) for i, j in enumerate(order)) for order in permutations(range(4)))
    assert found.jaccard.sum() == pytest.approx(best)
    # unrelated clusterings: what they share is what chance gives
    assert np.abs(found.corrected).max() < 0.6
    assert found.rand == pytest.approx(0, abs=0.1)


def test_layers_are_matched_by_centroid():
    """Alike clusters of two layers find each other; what is further apart than the bound stays alone."""
    first = np.array([[0.0, 0.0], [3.0, 3.0], [-9.0, 0.0]])
    second = np.array([[3.1, 3.0], [0.0, 0.2]])
    found = match_by_centroid(first, second)
    np.testing.assert_array_equal(found.first, [0, 1])
    np.testing.assert_array_equal(found.second, [1, 0])
    np.testing.assert_allclose(found.distance, [0.2 / np.sqrt(2), 0.1 / np.sqrt(2)])
    assert found.only_first == (2,)
    assert match_by_centroid(first, second, furthest=0.1).only_first == (0, 2)


def test_a_near_pair_is_not_given_up_for_far_ones():
    """Pairs beyond the bound do not pull clusters away from counterparts within it."""
    found = match_by_centroid(np.array([[0.0], [0.9]]), np.array([[0.8], [-50.0]]), furthest=1.0)
    assert (found.first.tolist(), found.second.tolist()) == ([1], [0])


def test_tree_names_the_parent_of_each_cluster():
    """A cluster comes from the one that gave most of its units, with the share it gave; gaps in k are bridged."""
    two = np.array([0, 0, 0, 0, 1, 1, -1])
    four = np.array([0, 0, 1, 1, 1, 2, 3])
    (step,) = cluster_tree({4: four, 2: two})
    assert (step.before, step.k) == (2, 4)
    np.testing.assert_array_equal(step.parent, [0, 0, 1, APART])
    np.testing.assert_allclose(step.share, [1.0, 2 / 3, 1.0, np.nan])
    np.testing.assert_allclose(step.kept, [0.5, 0.5, 0.5, np.nan])


@given(st.lists(st.integers(-1, 5), min_size=1, max_size=30))
def test_masks_divide_the_units(labels):
    """Every clustered unit is in one mask, the others in none; each mask is that of its cluster."""
    row = np.array(labels)
    masks = cluster_masks(row)
    np.testing.assert_array_equal(masks.sum(axis=0), row >= 0)
    for cluster in range(len(masks)):
        np.testing.assert_array_equal(cluster_mask(row, cluster), row == cluster)


# Drawing


def test_tsne_keeps_groups_together():
    """Every unit's nearest neighbour in the drawing is of its own group; a second drawing is the same."""
    features, truth = blobs()
    placed = tsne(features)
    distance = ((placed[:, None] - placed[None]) ** 2).sum(axis=2) + 1e9 * np.eye(len(placed))
    np.testing.assert_array_equal(truth[distance.argmin(axis=1)], truth)
    np.testing.assert_array_equal(placed, tsne(features))


def test_tsne_leaves_out_units_apart_and_draws_few():
    """Dead units are nan, four units are enough, raw features give another drawing."""
    rate = np.array([0.0, 0.2, 0.4, 0.6, 1.0])
    features = features_of(rate, rate**2, 100 * rate)
    scaled, raw = tsne(features), tsne(features, of="raw")
    for placed in (scaled, raw):
        assert np.isnan(placed[0]).all()
        assert np.isfinite(placed[1:]).all()
    assert not np.allclose(scaled[1:], raw[1:])
    same = features_of(np.full(5, 0.5), np.ones(5), np.ones(5))
    np.testing.assert_array_equal(tsne(same), 0.0)


# Bad input


@pytest.mark.parametrize("k", [-1, 0, 1, 7])
@pytest.mark.parametrize("cluster", [kmeans, hierarchical])
def test_k_out_of_range(cluster, k):
    """A k below 2 or above the number of different units is refused with the range that works."""
    rate = np.array([0.1, 0.1, 0.2, 0.4, 0.5, 0.6, 0.9])
    message = rf"{k} clusters .* between 2 and .* 6 \(of 7; 0 are dead .*Choose k from 2 to 6"
    with pytest.raises(InputError, match=message):
        cluster(features_of(rate, rate, rate), k)


def test_layers_that_cannot_be_clustered():
    """An all-dead layer and one whose units are all alike are refused, each with its reason."""
    zero, one = np.zeros(6), np.ones(6)
    with pytest.raises(InputError, match="none of the 6 units can be clustered: 6 are dead"):
        kmeans(features_of(zero, zero, zero), 2)
    with pytest.raises(InputError, match="whose units differ"):
        kmeans(features_of(one, one, one), 2)
    with pytest.raises(InputError, match="at least 4 units"):
        tsne(features_of(zero, zero, zero))


def test_features_that_do_not_fit():
    """Columns of different length, out of range, or of one name are refused; so are nan if all are to be clustered."""
    rate, bad = np.array([0.1, 0.5, 0.9]), np.array([0.1, np.nan, 0.9])
    with pytest.raises(InputError, match="one number per unit"):
        features_of(rate, rate, rate, more={"sparsity": rate[:2]})
    with pytest.raises(InputError, match=re.escape("fractions of images, 0 to 1, got 1 to 9")):
        features_of(10 * rate, rate, rate)
    with pytest.raises(InputError, match="variances are 0 or more"):
        features_of(rate, rate, -rate)
    with pytest.raises(InputError, match="'mean' is given twice"):
        features_of(rate, rate, rate, more={"mean": rate})
    with pytest.raises(InputError, match=r"1 of 3 units .* not finite .* unit 1"):
        features_of(rate, bad, rate, dead="clustered")


def test_options_that_do_not_exist():
    """Unknown linkages, no starts, bad shares, labels, clusters, bounds are refused with what would work."""
    features, _ = blobs()
    with pytest.raises(UnknownName, match="Closest: 'ward'"):
        hierarchical(features, 2, linkage="wards")
    with pytest.raises(InputError, match="at least 1 random start"):
        kmeans(features, 2, n_init=0)
    with pytest.raises(InputError, match="between 0 and 1"):
        reduced_profile(np.ones((3, 3)), explained=1.5)
    with pytest.raises(InputError, match="label -2 names no cluster"):
        cluster_masks(np.array([0, -2]))
    with pytest.raises(InputError, match="cluster 5 does not exist: there are 2 clusters"):
        cluster_mask(np.array([0, 1]), 5)
    with pytest.raises(InputError, match="bound above 0"):
        match_by_centroid(np.ones((2, 1)), np.ones((2, 1)), furthest=0)
    with pytest.raises(InputError, match="got 1 and 2 of them"):
        match_by_centroid(np.ones((2, 1)), np.ones((2, 2)))


def test_clusterings_of_different_layers_are_not_compared():
    """Labels of another number of units are refused, and so is a comparison of nothing."""
    one, other = np.array([0, 1, 1]), np.array([0, 1])
    for compare in (match_clusters, adjusted_rand):
        with pytest.raises(InputError, match="same units"):
            compare(one, other)
    for compare in (distinct_sets, cluster_tree):
        for labels in ({}, {2: one, 3: other}):
            with pytest.raises(InputError, match="same units"):
                compare(labels)
