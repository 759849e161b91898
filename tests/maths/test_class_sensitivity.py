"""The most sensitive classes, and their overlap with predictions beside chance."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from neuronscope.errors import InputError
from neuronscope.maths.class_sensitivity import (
    draws_needed,
    expected_jaccard,
    jaccard_table,
    sensitivity_decay,
    shared_classes,
    top_classes,
)


def sets_of(rng, shape, *, classes=30, size=5, favourites=None):
    """Random sets of different classes; favourites are drawn more often."""
    weight = np.ones(classes)
    if favourites is not None:
        weight[favourites] = 8.0
    keys = rng.random((*shape, classes)) ** (1 / weight)
    return np.argsort(-keys, axis=-1)[..., :size]


def plainly(one, other):
    """Jaccard index of two sets."""
    return len({*one} & {*other}) / len({*one} | {*other})


@given(st.integers(1, 7), st.data())
def test_the_chance_level_is_the_mean_over_all_sets(classes, data):
    """Exactly, by going through all pairs of sets of small networks."""
    first, second = (data.draw(st.integers(1, classes)) for _ in range(2))
    every = [
        plainly(one, other)
        for one in combinations(range(classes), first)
        for other in combinations(range(classes), second)
    ]
    assert expected_jaccard(classes, first, second) == pytest.approx(np.mean(every))


def test_tables_are_plain():
    """Mean over draws, then images; Student's interval over images; inputs with different numbers of draws."""
    rng = np.random.default_rng(0)
    top = sets_of(rng, (3,))
    predicted = [sets_of(rng, (12, 2)), sets_of(rng, (12, 1))]
    found = jaccard_table(top, predicted, classes=30, rng=rng)
    for a, g in np.ndindex(2, 3):
        images = [np.mean([plainly(top[g], one) for one in image]) for image in predicted[a]]
        assert found.mean[a, g] == pytest.approx(np.mean(images))
        low, high = stats.t.interval(0.95, 11, np.mean(images), stats.sem(images))
        assert (found.low[a, g], found.high[a, g]) == pytest.approx((max(low, 0), high))
    assert found.chance == pytest.approx(expected_jaccard(30, 5, 5))


def test_intervals_count_classes_where_labels_are_given():
    """Images of a class that are all predicted alike say no more than one of each."""
    rng = np.random.default_rng(1)
    top, one_each = sets_of(rng, (2,)), sets_of(rng, (10, 1))
    labels = np.repeat(np.arange(10), 20)
    many = jaccard_table(top, [one_each[labels]], classes=30, labels=labels, rng=rng)
    once = jaccard_table(top, [one_each], classes=30, rng=rng)
    assert np.allclose(many.low, once.low)
    assert np.allclose(many.high, once.high)
    assert (many.high - many.mean > jaccard_table(top, [one_each[labels]], classes=30, rng=rng).high - many.mean).all()


def test_sensitive_classes_that_are_predicted_are_told():
    """A planted overlap has the smallest p; predictions with favourites that are not sensitive have none."""
    rng = np.random.default_rng(2)
    top = sets_of(rng, (2,))
    predicted = sets_of(rng, (100, 1), favourites=top[0])
    found = jaccard_table(top[:1], [predicted], classes=30, rng=rng)
    assert found.p[0, 0] == 0.001
    assert found.low[0, 0] > found.chance
    p = [
        jaccard_table(
            sets_of(rng, (1,)), [sets_of(rng, (60, 1), favourites=np.arange(5))], classes=30, draws=99, rng=rng
        ).p
        for _ in range(150)
    ]
    assert 0.4 < np.mean(p) < 0.65
    assert np.mean(np.array(p) <= 0.05) <= 0.1


def test_blocks_change_nothing(monkeypatch):
    """The null is the same whether images come one by one or all at once."""
    rng = np.random.default_rng(3)
    top, predicted = sets_of(rng, (2,)), sets_of(rng, (9, 2))
    whole = jaccard_table(top, [predicted], classes=30, draws=50, rng=np.random.default_rng(0))
    monkeypatch.setattr("neuronscope.maths.class_sensitivity._BLOCK", 1)
    parts = jaccard_table(top, [predicted], classes=30, draws=50, rng=np.random.default_rng(0))
    assert np.array_equal(whole.p, parts.p)


def test_top_classes_and_decay():
    """Largest first with their own limits, dead classes last; more than are alive cannot be named."""
    values = np.array([[0.2, 0.1], [np.nan, np.nan], [0.5, 0.1], [0.3, 0.9]])
    found = top_classes(values, values - 0.1, values + 0.2, most=3)
    assert found.index.tolist() == [[2, 3, 0], [3, 0, 2]]
    assert np.allclose(found.value, [[0.5, 0.3, 0.2], [0.9, 0.1, 0.1]])
    assert np.allclose(found.low, found.value - 0.1)
    assert np.allclose(found.high, found.value + 0.2)
    decay = sensitivity_decay(values)
    assert np.allclose(decay[:3].T, found.value)
    assert np.isnan(decay[3]).all()
    with pytest.raises(InputError, match="1 to 3 expected"):
        top_classes(values, values, values, most=4)


def test_classes_of_another_network_are_refused():
    """A class beyond the network's, or twice in a set."""
    top = np.array([[0, 1]])
    with pytest.raises(InputError, match="0 to 4 expected, got 7"):
        jaccard_table(top, [np.array([[[7, 1]]])], classes=5, rng=np.random.default_rng(0))
    with pytest.raises(InputError, match="twice in a set of sensitive"):
        jaccard_table(np.array([[1, 1]]), [np.array([[[2, 1]]])], classes=5, rng=np.random.default_rng(0))


def test_one_finding_among_many_can_survive():
    """With as many draws as are said to be needed, a planted overlap among many tests is told; with fewer it is not."""
    rng = np.random.default_rng(5)
    top = sets_of(rng, (8,), classes=60)
    predicted = [np.tile(top[0], (30, 1, 1)), *(sets_of(rng, (30, 1), classes=60) for _ in range(3))]
    draws = draws_needed(32)
    found = jaccard_table(top, predicted, classes=60, draws=draws, rng=rng)
    assert found.q[0, 0] < 0.05
    assert jaccard_table(top, predicted, classes=60, draws=draws // 2, rng=rng).q[0, 0] > 0.05


def test_random_sets_take_every_class_alike():
    """The mean overlap of random sets is the chance level, also where most draws have a class twice."""
    rng = np.random.default_rng(6)
    predicted = sets_of(rng, (50, 1), classes=6)
    p = jaccard_table(sets_of(rng, (40,), classes=6), [predicted], classes=6, draws=5000, rng=rng).p
    assert 0.3 < p.mean() < 0.7


def test_shared_classes_are_counted_and_beside_all_sets():
    """The p-value and the chance level by going through all sets of a small network."""
    first, second = np.array([[0, 1, 2], [4, 5, 6]]), np.array([[2, 1, 7], [0, 1, 2]])
    found = shared_classes(first, second, classes=8)
    assert found.common.tolist() == [2, 0]
    every = [len({0, 1, 2} & {*other}) for other in combinations(range(8), 3)]
    assert found.p == pytest.approx([np.mean(np.array(every) >= 2), 1.0])
    assert found.chance == pytest.approx(np.mean(every))
    with pytest.raises(InputError, match="sets of 2 and 1 classes of 8: expected different classes"):
        shared_classes(np.array([[1, 1]]), np.array([[1]]), classes=8)
    with pytest.raises(InputError, match="no more than there are"):
        shared_classes(np.array([[0, 1]]), np.array([[1]]), classes=1)
