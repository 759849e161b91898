"""Discriminants of maps: scikit-learn's, tested on other units, with an honest interval and null."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

from neuronscope.errors import InputError
from neuronscope.maths.discriminants import discriminate

FACTORS = 3


def maps(rng, *, units=25, places=8, signal=0.5, own=0.0):
    """Maps that tell their factor at a place of its own; `own` makes all maps of a unit alike."""
    found = rng.normal(size=(units, places, FACTORS)) + own * rng.normal(size=(units, places, 1))
    found[:, :FACTORS] += signal * np.eye(FACTORS)
    return found


def flat(values):
    """Samples unit by unit, and their factors."""
    units, places, g = values.shape
    return values.transpose(0, 2, 1).reshape(units * g, places), np.tile(np.arange(g), units)


@pytest.mark.parametrize("places", [1, 8, 60, 75, 300])
@pytest.mark.parametrize("split", ["units", "samples"])
def test_everything_is_plain_scikit_learn_in_the_same_folds(places, split):
    """Confusion, accuracies and projection with fewer places than samples and with more."""
    values = 0.01 * maps(np.random.default_rng(0), places=max(places, 3))[:, :places] + 0.5
    found = discriminate(values, folds=4, repeats=2, permutations=0, split=split, rng=np.random.default_rng(1))
    samples, labels = flat(values)
    units, rng = np.repeat(np.arange(25), FACTORS), np.random.default_rng(1)
    confusion, tested, trained = np.zeros((FACTORS, FACTORS)), [], []
    for _ in range(2):
        for part in np.array_split(rng.permutation(25 if split == "units" else 75), 4):
            test = np.isin(units if split == "units" else np.arange(75), part)
            model = LinearDiscriminantAnalysis(solver="svd", n_components=min(2, places), tol=1e-4)
            model.fit(samples[~test], labels[~test])
            predicted = model.predict(samples)
            confusion += confusion_matrix(labels[test], predicted[test], labels=range(FACTORS))
            tested.append(balanced_accuracy_score(labels[test], predicted[test]))
            trained.append(balanced_accuracy_score(labels[~test], predicted[~test]))
    assert np.allclose(found.confusion, confusion / confusion.sum(axis=1, keepdims=True))
    assert (found.test, found.train) == pytest.approx((np.mean(tested), np.mean(trained)))
    error = np.sqrt((1 / 8 + 1 / 3) * np.var(tested, ddof=1))
    assert found.high - found.test == pytest.approx(min(2.364624 * error, 1 - found.test), rel=1e-5)
    whole = LinearDiscriminantAnalysis(solver="svd", n_components=min(2, places), tol=1e-4).fit(samples, labels)
    projected = whole.transform(samples)
    own = found.projection.reshape(len(samples), -1)[:, : projected.shape[1]]
    assert np.allclose(own * np.sign((own * projected).sum(axis=0)), projected, atol=1e-6)
    assert np.allclose(found.spread[: projected.shape[1]], whole.explained_variance_ratio_)


def test_units_do_not_leak():
    """Maps alike within units that say nothing: chance by unit, far below it where a unit's other maps were seen."""
    rng = np.random.default_rng(2)
    values = [maps(rng, places=20, signal=0.0, own=5.0) for _ in range(12)]
    by_unit, by_sample = (
        np.mean([discriminate(one, repeats=1, permutations=0, split=split, rng=rng).test for one in values])
        for split in ("units", "samples")
    )
    assert by_unit == pytest.approx(1 / 3, abs=0.06)
    assert by_sample < 0.15


def test_a_planted_factor_is_told_from_its_null():
    """Marked maps are far above permuted labels; unmarked ones are not, and p-values of nothing are even."""
    rng = np.random.default_rng(3)
    found = discriminate(maps(rng, signal=2.0), repeats=3, permutations=99, rng=rng)
    assert found.p == 0.01
    assert found.test > found.null_high > found.null
    assert found.null == pytest.approx(1 / 3, abs=0.03)
    p = [discriminate(maps(rng, signal=0.0, own=1.0), repeats=1, permutations=19, rng=rng).p for _ in range(80)]
    assert 0.4 < np.mean(p) < 0.65
    assert np.mean(np.array(p) <= 0.05) < 0.15


def test_intervals_hold_the_accuracy_on_new_units():
    """Of 120 samples of 25 units 90 to 100 % of the 95 % intervals hold what discriminants from 20 units give."""
    rng = np.random.default_rng(4)
    truth = []
    for _ in range(200):
        train, test = flat(maps(rng, units=20)), flat(maps(rng, units=200))
        model = LinearDiscriminantAnalysis().fit(*train)
        truth.append(model.score(*test))
    hits = 0
    for _ in range(120):
        found = discriminate(maps(rng), repeats=4, permutations=0, rng=rng)
        hits += found.low <= np.mean(truth) <= found.high
    assert hits / 120 >= 0.9


def test_dead_units_take_no_part():
    """Units without values are left out and named; a dead activation of a live unit is 0."""
    values = maps(np.random.default_rng(5))
    dead = np.concatenate([values, np.full((2, 8, 3), np.nan)])
    one = discriminate(values, permutations=9, rng=np.random.default_rng(6))
    other = discriminate(dead, permutations=9, rng=np.random.default_rng(6))
    assert (one.test, one.p) == (other.test, other.p)
    assert other.kept.tolist() == [True] * 25 + [False] * 2
    values[3, 2] = 0.0
    holed = values.copy()
    holed[3, 2] = np.nan
    one, other = (discriminate(each, permutations=9, rng=np.random.default_rng(6)) for each in (values, holed))
    assert np.array_equal(one.projection, other.projection)


def test_what_cannot_be_split_is_refused():
    """Fewer live units than folds, one factor, one fold, no repeat: what is wrong, expected, came, and to do."""
    rng = np.random.default_rng(7)
    values = maps(rng, units=5)
    values[4] = np.nan
    with pytest.raises(InputError, match=r"5 folds: at least 5 units with a value expected, got 4. Use fewer folds"):
        discriminate(values, rng=rng)
    with pytest.raises(InputError, match="1 factors cannot be told apart"):
        discriminate(values[..., :1], rng=rng)
    for options in ({"folds": 1}, {"repeats": 0}):
        with pytest.raises(InputError, match="2 or more folds and 1 or more repeats"):
            discriminate(values, rng=rng, **options)
