"""A time limit may end a proof anywhere: what it says then is true, and where tables are cut changes nothing."""

import time

import numpy as np
import pytest

from neuronscope.maths.formula_search import (
    Penalty,
    Score,
    SearchSpec,
    beam_search,
    certified,
    explain,
    optimum,
    prepare,
)
from neuronscope.maths.signatures import assemble, image_signatures, mask_counts

NAMES = ("iou", "imrou", "imrou_normalised", "activation_coverage", "detection_accuracy")


def problem(seed, *, labels=9, side=8, images=6, layers=3):
    """A labelled image set and a unit that is active on some label sets more than on others."""
    rng = np.random.default_rng(seed)
    made = [
        np.where(rng.random((layers, side, side)) < 0.7, rng.integers(1, labels + 1, (layers, side, side)), 0)
        for _ in range(images)
    ]
    signatures = assemble(image_signatures(one) for one in made)
    share = rng.random(len(signatures)) ** 3
    masks = np.stack([rng.random(side * side) < share[signatures.signature_map(i)] for i in range(images)])
    return prepare(signatures), mask_counts(signatures, masks.reshape(images, side, side))


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_tables_in_parts_prove_the_same(rows, monkeypatch):
    """One, two or four rows of the tables of pairs at a time lead to the same formula and the same certificate."""
    for seed in range(20):
        tables, counts = problem(seed)
        score = Score(NAMES[seed % len(NAMES)])
        penalty = (Penalty(), Penalty("linear", 0.02))[seed % 2]
        for length in (2, 3):
            spec = SearchSpec(score=score, penalty=penalty, length=length)
            with monkeypatch.context() as patch:
                patch.setattr(optimum, "_BLOCK", 1 << 18)
                whole = certified(tables, counts, spec)
                patch.setattr(optimum, "_BLOCK", rows * tables.labels)
                assert certified(tables, counts, spec) == whole


@pytest.mark.parametrize("seed", range(len(NAMES)))
def test_a_proof_that_ends_anywhere_leaves_a_true_gap(seed, monkeypatch):
    """Ended at each of its steps in turn, a proof states a gap that holds; more time never widens it."""
    tables, counts = problem(seed)
    spec = SearchSpec(score=Score(NAMES[seed]), penalty=Penalty("linear", 0.02 * (seed % 2)))
    monkeypatch.setattr(optimum, "_BLOCK", 3 * tables.labels)
    monkeypatch.setattr(optimum, "_FEW", 4)
    exact, _ = certified(tables, counts, spec)
    best = exact[-1].objective if exact[-1] else 0.0
    for start in ((), beam_search(tables, counts, spec).best):
        ceiling = np.inf
        for steps in range(1, 1000):
            ticks = iter(range(10**6))
            with monkeypatch.context() as patch:
                patch.setattr(time, "monotonic", lambda ticks=ticks: next(ticks))
                found, certificate = certified(tables, counts, spec, start=start, seconds=float(steps))
            known = found[-1].objective if found[-1] else 0.0
            assert known <= best + 1e-12
            assert best <= known + certificate.gap + 2e-9
            assert (certificate.gap == 0) == certificate.optimal == (certificate.left == 0)
            assert known + certificate.gap <= ceiling + 1e-9
            ceiling = known + certificate.gap
            if certificate.optimal:
                break
        assert steps > 4 or best == 1  # which needs no proof
        assert known == pytest.approx(best, abs=1e-12)


def test_two_labels_without_time_are_not_called_optimal():
    """A search of two labels that was ended says so; the single label is always the best there is."""
    tables, counts = problem(1)
    spec = SearchSpec(length=2)
    exact, proved = certified(tables, counts, spec)
    hasty, certificate = certified(tables, counts, spec, seconds=0.0)
    assert proved.optimal
    assert not certificate.optimal
    assert certificate.length == 2
    assert hasty[0] == exact[0]
    assert exact[1].objective <= hasty[1].objective + certificate.gap


def test_seconds_are_kept():
    """With 2,000 labels, 2 million pairs of them, a limit of half a second is kept to a tenth of a second."""
    rng = np.random.default_rng(0)
    made = (rng.integers(1, 2001, (3, 4, 4)).repeat(8, 1).repeat(8, 2) for _ in range(400))
    signatures = assemble(image_signatures(one) for one in made)
    tables = prepare(signatures)
    counts = mask_counts(signatures, (rng.random((400, 8, 8)) < 0.1).repeat(4, 1).repeat(4, 2))
    start = time.process_time()
    found = explain(tables, counts, SearchSpec(certify="optimum", seconds=0.5))
    taken = time.process_time() - start
    assert found.certificate is not None
    assert taken < 0.6
