"""How many clusters: planted groups are counted, clouds without groups not divided, and memberships repeat or not."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from neuronscope.errors import InputError, UnknownName
from neuronscope.maths.cluster_choice import (
    _corrected,
    bootstrap_stability,
    choose_k,
    gap_statistic,
    null_clouds,
    seed_stability,
)
from neuronscope.maths.clustering import UnitFeatures, adjusted_rand, features_of, kmeans

QUICK = {"draws": 39, "references": 2, "bootstraps": 2, "seeds": 2, "n_init": 3, "null_init": 2}
"""Enough to decide at 5 %; the other measures are not looked at where this is used."""

NULLS = ("unimodal", "gaussian", "permutation")


def standardised(points: np.ndarray) -> UnitFeatures:
    """Points as features of units on a common scale."""
    scaled = (points - points.mean(axis=0)) / points.std(axis=0)
    units = len(points)
    names = tuple(f"feature_{column}" for column in range(points.shape[1]))
    return UnitFeatures(points, names, scaled, np.ones(units, dtype=bool), np.zeros(units, dtype=bool), ())


def blobs(k: int, *, units: int = 90, apart: float = 6.0, seed: int = 0) -> np.ndarray:
    """Normal groups of deviation 1 whose centres are `apart` from the origin, or nearly."""
    centres = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, -1, -1], [1, 1, -1]])[:k] * apart
    return centres[np.arange(units) % k] + np.random.default_rng(seed).normal(size=(units, 3))


@pytest.mark.parametrize("null", ["unimodal", "gaussian"])
def test_one_gaussian_is_not_divided(null):
    """A single normal cloud, its features correlated, gives k = 1 in at least 18 of 20 seeds."""
    chosen = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        points = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 3))
        options = {**QUICK, "draws": 19}
        chosen.append(choose_k(standardised(points), (2, 3, 4), rng=rng, null=null, **options).chosen)
    assert chosen.count(1) >= 18


def test_one_skewed_heavy_tailed_lump_is_not_divided():
    """Log-normal features, as variances are, count as one lump; against a normal distribution they would be groups."""
    chosen: dict[str, list[int]] = {"unimodal": [], "gaussian": []}
    for seed in range(10):
        rng = np.random.default_rng(seed)
        root = np.linalg.cholesky(np.array([[1, 0.6, 0.3], [0.6, 1, 0.5], [0.3, 0.5, 1]]))
        features = standardised(np.exp(rng.normal(size=(60, 3)) @ root.T))
        for null, found in chosen.items():
            found.append(choose_k(features, (2, 3, 4), rng=rng, null=null, **QUICK).chosen)
    assert chosen["unimodal"].count(1) >= 9
    assert chosen["gaussian"].count(1) <= 2


@pytest.mark.parametrize("null", NULLS)
@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_planted_groups_are_counted(k, null):
    """Groups six deviations from the origin are found in their number, with full stability."""
    found = choose_k(standardised(blobs(k)), range(2, 8), rng=np.random.default_rng(k), null=null, **QUICK)
    assert found.chosen == k
    row = list(found.ks).index(k)
    assert found.p[row] == pytest.approx(1 / 40)
    assert found.silhouette[row] > found.null_high[row] > found.null_mean[row]
    assert found.stability_mean[row] > 0.95
    assert found.seed_stability[row] == 1.0
    assert f"k = {k} has the highest silhouette" in found.reason
    assert "largest k tried" not in found.reason


def test_no_clusters_in_words():
    """Where nothing beats the null, k is 1 and the reason names the nearest k and the null."""
    features = standardised(np.random.default_rng(0).normal(size=(50, 3)))
    found = choose_k(features, (2, 3), rng=np.random.default_rng(1), **QUICK)
    assert (found.chosen, found.draws, found.null) == (1, 39, "unimodal")
    assert found.reason.startswith("No clusters: no k from 2 to 3")
    assert "one lump" in found.reason


def test_a_continuum_is_suspected_at_the_largest_k():
    """If the largest k tried is chosen, the reason says that a continuum may have been cut into pieces."""
    features = standardised(blobs(4))
    found = choose_k(features, (2, 3, 4), rng=np.random.default_rng(1), **QUICK)
    assert found.chosen == 4
    assert "largest k tried" in found.reason


def test_the_same_stream_gives_the_same_choice():
    """Equal generators give equal numbers throughout; the silhouette is that of k-means."""
    features = standardised(blobs(3))
    one, other = (choose_k(features, (2, 3), rng=np.random.default_rng(5), **QUICK) for _ in range(2))
    for name in ("silhouette", "null_mean", "gap", "gap_se", "stability_mean", "seed_stability", "p", "p_gap"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_allclose(one.silhouette[1], kmeans(features, 3).silhouette)


def test_given_clusterings_decide():
    """Of the k that beat the null, the one whose given clustering has the higher silhouette is chosen, and so said."""
    features = standardised(blobs(3))
    good = {k: kmeans(features, k) for k in (2, 3)}
    torn = replace(good[3], silhouette=0.05)  # as one from a bad start may have
    for clusterings, chosen in ((good, 3), ({**good, 3: torn}, 2)):
        found = choose_k(features, (2, 3), rng=np.random.default_rng(5), clusterings=clusterings, **QUICK)
        assert (found.p <= found.alpha).all()
        assert found.chosen == chosen
        assert found.silhouette.tolist() == [clusterings[2].silhouette, clusterings[3].silhouette]
        assert f"highest silhouette ({clusterings[chosen].silhouette:.2f})" in found.reason


def test_dead_units_have_no_say():
    """Units that never fire are neither a group of their own nor part of a null."""
    rng = np.random.default_rng(6)
    rate, mean, variance = rng.uniform(0.4, 0.6, size=(3, 60))
    alive = features_of(rate, mean, variance)
    whole = features_of(*(np.concatenate([column, np.zeros(40)]) for column in (rate, mean, variance)))
    one, other = (choose_k(each, (2, 3), rng=np.random.default_rng(7), **QUICK) for each in (alive, whole))
    assert one.chosen == other.chosen == 1
    np.testing.assert_allclose(one.p, other.p)


def test_correction_over_k_is_that_of_the_largest():
    """The p-value of a k counts the draws whose largest standardised value reaches its own (slow twin)."""
    rng = np.random.default_rng(8)
    observed, drawn = np.array([3.0, 0.2, 11.0]), rng.normal(size=(49, 3)) * [1, 1, 5]
    every = np.vstack([observed, drawn])
    expected = []
    for k in range(3):
        reached = 1
        for draw in range(49):
            standing = [(drawn[draw, j] - every[:, j].mean()) / every[:, j].std() for j in range(3)]
            reached += max(standing) >= (observed[k] - every[:, k].mean()) / every[:, k].std()
        expected.append(reached / 50)
    np.testing.assert_allclose(_corrected(observed, drawn), expected)


def test_false_alarms_are_as_rare_as_promised():
    """For data drawn from the null itself, p is at most 0.1 in about a tenth of the cases, whatever the number of k."""
    rng = np.random.default_rng(9)
    alarms = np.mean([_corrected(draws[0], draws[1:]).min() <= 0.1 for draws in rng.normal(size=(2000, 20, 7))])
    assert alarms == pytest.approx(0.1, abs=0.025)


# The gap statistic


def test_gap_of_planted_groups():
    """The gap is largest at the planted number, and the rule of one standard error finds it, also where it is 1."""
    rng = np.random.default_rng(10)
    for k in (2, 3, 4):
        found = gap_statistic(blobs(k), range(2, 7), references=20, rng=rng)
        assert found.chosen == k
        assert found.gap.shape == (6,)
        assert found.gap.argmax() + 1 == k
    assert gap_statistic(rng.uniform(size=(90, 3)), (2, 3, 4), references=20, rng=rng).chosen == 1


def test_gap_is_that_of_its_definition():
    """Observed log inertia is scikit-learn's; the error is the deviation of the draws times sqrt(1 + 1 / draws)."""
    points = blobs(3)
    found = gap_statistic(points, (3,), references=50, rng=np.random.default_rng(11))
    centred = points - points.mean(axis=0)
    turned = centred @ np.linalg.svd(centred, full_matrices=False)[2].T
    rng = np.random.default_rng(12)
    boxes = [rng.uniform(turned.min(axis=0), turned.max(axis=0), size=turned.shape) for _ in range(400)]
    expected = np.mean([np.log(((box - box.mean(axis=0)) ** 2).sum()) for box in boxes]) - np.log((centred**2).sum())
    assert found.gap[0] == pytest.approx(expected, abs=4 * found.error[0])
    assert found.error[0] > 0


# Stability


def test_clear_groups_repeat_and_a_cloud_does_not():
    """Memberships of separate groups repeat fully over bootstraps; those of a round cloud do not."""
    rng = np.random.default_rng(13)
    clear = bootstrap_stability(blobs(3), 3, bootstraps=8, rng=rng)
    vague = bootstrap_stability(rng.normal(size=(90, 3)), 3, bootstraps=8, rng=rng)
    assert clear.mean > 0.99
    assert vague.mean < 0.75
    assert vague.smallest <= vague.low <= vague.mean <= vague.high <= 1


def test_seeds_agree_when_there_are_starts_enough():
    """One start per seed often ends elsewhere, forty starts find the same clusters."""
    points = np.random.default_rng(14).normal(size=(80, 3))
    one, forty = (seed_stability(points, 4, seeds=6, n_init=n, rng=np.random.default_rng(15)) for n in (1, 40))
    assert one.mean < 0.9
    assert forty.mean > 0.97


def test_too_few_different_units_have_no_stability():
    """Where draws have fewer than k different units, the stability is nan instead of a guess."""
    found = bootstrap_stability(np.arange(4.0)[:, None], 4, bootstraps=3, n_init=1, rng=np.random.default_rng(0))
    assert np.isnan(found.mean)


def test_golden_scatter_over_seeds(test_data: Path):
    """Block 1 of the original, k = 3: one start agrees at about 0.82, twenty starts at 0.96 or more."""
    with np.load(test_data / "golden" / "densenet121-clusters" / "stats_block_1.npz") as file:
        features = features_of(file["activation_rate"], file["mean_activation"], file["variance"], dead="clustered")
    one, twenty = (
        seed_stability(features.points, 3, seeds=30, n_init=n, rng=np.random.default_rng(16)) for n in (1, 20)
    )
    assert one.mean == pytest.approx(0.82, abs=0.08)
    assert twenty.mean >= 0.96


# Clouds without groups


@pytest.mark.parametrize("null", NULLS)
def test_clouds_keep_what_they_promise(null):
    """Mean and spread are kept by all; correlations by all but the permutation, values by that alone."""
    rng = np.random.default_rng(17)
    points = rng.normal(size=(200, 3)) @ np.array([[1.0, 0.8, 0.0], [0.0, 0.6, 0.3], [0.0, 0.0, 1.0]])
    clouds = null_clouds(points, null=null, draws=30, rng=rng)
    np.testing.assert_allclose(clouds.mean(axis=(0, 1)), points.mean(axis=0), atol=0.1)
    np.testing.assert_allclose(clouds.std(axis=(0, 1)), points.std(axis=0), rtol=0.1)
    within = np.mean([np.corrcoef(cloud, rowvar=False) for cloud in clouds], axis=0)
    expected = np.eye(3) if null == "permutation" else np.corrcoef(points, rowvar=False)
    np.testing.assert_allclose(within, expected, atol=0.06)
    if null == "permutation":
        np.testing.assert_array_equal(np.sort(clouds[0], axis=0), np.sort(points, axis=0))


def test_unimodal_cloud_follows_a_single_lump():
    """A skewed feature with a pile of zeros keeps its distribution: tails, pile and all."""
    rng = np.random.default_rng(18)
    column = np.maximum(rng.lognormal(size=400) - 1.0, 0.0)
    cloud = null_clouds(column[:, None], draws=20, rng=rng)[:, :, 0]
    assert (cloud == 0).mean() == pytest.approx((column == 0).mean(), abs=0.02)
    assert stats.ks_2samp(cloud.ravel(), column).statistic < 0.05
    assert column.min() <= cloud.min() <= cloud.max() <= column.max()


def test_unimodal_cloud_fills_the_gap_between_groups():
    """A feature with two groups becomes one lump over the same range."""
    rng = np.random.default_rng(19)
    column = np.concatenate([rng.normal(-5, 0.5, size=100), rng.normal(5, 0.5, size=100)])
    cloud = null_clouds(column[:, None], draws=20, rng=rng)
    assert not (np.abs(column) < 2).any()
    assert (np.abs(cloud) < 2).mean() > 0.1


def test_degenerate_features_give_degenerate_clouds():
    """A constant feature stays constant, and a feature given twice stays the same twice."""
    rng = np.random.default_rng(20)
    base = rng.normal(size=50)
    points = np.stack([base, base, np.zeros(50)], axis=1)
    for null in ("unimodal", "gaussian"):
        clouds = null_clouds(points, null=null, draws=4, rng=rng)
        np.testing.assert_allclose(clouds[:, :, 2], 0, atol=1e-9)
        np.testing.assert_allclose(clouds[:, :, 0], clouds[:, :, 1], atol=1e-6)


# Bad input


@pytest.mark.parametrize(
    ("ks", "options", "message"),
    [
        ((), {}, "ascend from 2 on"),
        ((1, 2), {}, "ascend from 2 on"),
        ((3, 2), {}, "ascend from 2 on"),
        ((2, 91), {}, r"different units .* 90 \(of 90, 0 dead\), got \[2, 91\]. Try 2 to 8"),
        ((2,), {"draws": 18}, "nothing could beat the null at 0.05"),
        ((2,), {"alpha": 0}, "alpha between 0 and 1"),
        ((2,), {"bootstraps": 1}, "at least 2 references, bootstraps and seeds"),
        ((2,), {"n_init": 0}, "1 random start"),
    ],
)
def test_what_cannot_work_is_refused(ks, options, message):
    """Numbers of clusters, draws and starts that cannot give an answer are refused with what would."""
    with pytest.raises(InputError, match=message):
        choose_k(standardised(blobs(2)), ks, rng=np.random.default_rng(0), **{**QUICK, **options})


def test_dead_layers_and_unknown_nulls_are_refused():
    """An all-dead layer has no clusters to count; a null that does not exist gets the nearest name."""
    zero = np.zeros(10)
    with pytest.raises(InputError, match=r"0 \(of 10, 10 dead\).*Choose a layer whose units differ"):
        choose_k(features_of(zero, zero, zero), rng=np.random.default_rng(0))
    with pytest.raises(UnknownName, match="Closest: 'gaussian'"):
        choose_k(standardised(blobs(2)), rng=np.random.default_rng(0), null="gausian")


def test_agreement_is_over_all_pairs():
    """Seed stability is the mean over all pairs of seeds (slow twin)."""
    points = np.random.default_rng(21).normal(size=(40, 2))
    features = UnitFeatures(points, ("a", "b"), points, np.ones(40, dtype=bool), np.zeros(40, dtype=bool), ())
    rng, twin = np.random.default_rng(22), np.random.default_rng(22)
    found = seed_stability(points, 3, seeds=4, n_init=1, rng=rng)
    labels = [kmeans(features, 3, n_init=1, seed=int(twin.integers(2**31))).labels for _ in range(4)]
    pairs = [adjusted_rand(one, other) for one, other in combinations(labels, 2)]
    assert found.mean == pytest.approx(np.mean(pairs))
    assert found.smallest == pytest.approx(min(pairs))
