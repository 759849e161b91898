"""Accuracies of many labellings at once: those of discriminants found anew for each, with few places and with many."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import balanced_accuracy_score

from neuronscope.maths.labelling_accuracies import labelling_accuracies

UNITS, FACTORS = 20, 4


def planted(places, *, seed=0, units=UNITS):
    """Samples that tell their factor a little, some labellings, and units to train on."""
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(FACTORS), units)
    samples = rng.gamma(1, 0.1, (len(labels), places)) * rng.uniform(0.2, 5, places) + 100
    samples[:, :FACTORS] += 0.1 * np.eye(FACTORS)[labels, :places]
    labellings = np.stack([labels, *(rng.permuted(labels.reshape(-1, FACTORS), axis=1).ravel() for _ in range(12))])
    return samples, labellings, np.repeat(rng.permutation(units) >= units // 5, FACTORS)


def by_scikit_learn(samples, labels, train):
    """Plainly, with places fewer than samples."""
    return LinearDiscriminantAnalysis().fit(samples[train], labels[train]).predict(samples[~train])


def by_definition(samples, labels, train):
    """Samples scaled by their deviation, whitened within factors by a singular value decomposition, nearest mean."""
    scaled = (samples - samples[train].mean(axis=0)) / samples[train].std(axis=0)
    means = np.stack([scaled[train & (labels == factor)].mean(axis=0) for factor in range(FACTORS)])
    within = (scaled - means[labels])[train] / np.sqrt(train.sum())
    _, size, directions = np.linalg.svd(within, full_matrices=False)
    kept = size > 1e-4
    white, middles = ((one @ directions[kept].T) / size[kept] for one in (scaled, means))
    return ((white[~train, None] - middles) ** 2).sum(axis=-1).argmin(axis=1)


@pytest.mark.parametrize(
    ("places", "twin"),
    [(1, by_scikit_learn), (15, by_scikit_learn), (58, by_scikit_learn)]
    + [(places, by_definition) for places in (61, 63, 64, 65, 200)],
)
def test_accuracies_are_those_of_each_labelling_alone(places, twin):
    """With 64 training samples of 4 factors, from one place to many more places than samples."""
    samples, labellings, train = planted(places)
    expected = [balanced_accuracy_score(labels[~train], twin(samples, labels, train)) for labels in labellings]
    assert labelling_accuracies(samples, labellings, train=train, factors=FACTORS) == pytest.approx(expected)


def test_samples_that_repeat_each_other_are_no_failure():
    """Equal samples and constant places make singular matrices; accuracies are numbers, and chance on average."""
    samples, labellings, train = planted(100)
    samples[::2], samples[:, 50:] = samples[1::2], 3.0
    found = labelling_accuracies(samples, labellings, train=train, factors=FACTORS)
    assert ((found >= 0) & (found <= 1)).all()
    assert labelling_accuracies(samples[:, 50:], labellings, train=train, factors=FACTORS).mean() == pytest.approx(0.25)


def test_classes_of_unequal_size():
    """Splits by sample leave factors with unequal numbers: priors and balanced accuracy are as in scikit-learn."""
    samples, labellings, _ = planted(8)
    train = np.random.default_rng(3).random(len(samples)) < 0.7
    expected = [
        balanced_accuracy_score(labels[~train], by_scikit_learn(samples, labels, train)) for labels in labellings
    ]
    assert labelling_accuracies(samples, labellings, train=train, factors=FACTORS) == pytest.approx(expected)


def test_blocks_of_labellings_change_nothing(monkeypatch):
    """One labelling at a time gives what all at once give."""
    samples, labellings, train = planted(10)
    whole = labelling_accuracies(samples, labellings, train=train, factors=FACTORS)
    monkeypatch.setattr("neuronscope.maths.labelling_accuracies._NUMBERS", 1)
    assert np.array_equal(labelling_accuracies(samples, labellings, train=train, factors=FACTORS), whole)
