"""Measurements under other labels."""

from __future__ import annotations

import numpy as np
import torch

from neuronscope.checkpoint import digest
from neuronscope.steps import Ablate, Fill, Gradients, Grouped, MaskGroup, PredictMasked


def test_groups_replace_labels_after_measuring(subject, batch):
    """What is measured is about the true labels; the row's group stands where the label was, -1 for none."""
    step = Gradients(subject.layers, targets=("loss",))
    groups = np.full(20, 9)
    groups[10:16] = [5, -1, 3, 5, 0, 2]
    grouped = Grouped(step, groups)
    seen, expected = grouped(subject.module, batch), step(subject.module, batch)
    assert seen["label"].tolist() == [5, -1, 3, 5, 0, 2]
    assert seen["label"].dtype == batch.label.dtype
    assert seen.keys() == expected.keys()
    assert all(torch.equal(seen[name], expected[name]) for name in expected.keys() - {"label"})
    assert grouped.shapes(4) == step.shapes(4)
    assert grouped.passes == step.passes


def test_steps_of_other_content_are_other_steps(subject):
    """Groups, masks and fills count for what identifies a sweep, not only their names."""
    layer = subject.layer("relu")
    one, other = np.zeros(20, dtype=np.int64), np.ones(20, dtype=np.int64)
    masks = [np.zeros((2, 3), dtype=bool), np.ones((2, 3), dtype=bool)]
    steps = [
        *(Grouped(Ablate(layer), groups) for groups in (one, other)),
        *(Ablate(layer, fill) for fill in (Fill(), Fill("resample"), Fill("resample", seed=1))),
        *(Ablate(layer, Fill("values", values=np.full(3, value))) for value in (1.0, 2.0)),
        *(PredictMasked(layer, (MaskGroup(mask),)) for mask in masks),
        PredictMasked(layer, (MaskGroup(masks[0], Fill("resample")),)),
        *(Gradients((layer,), measures=measures) for measures in ((), ("mean",))),
    ]
    assert len({digest(step) for step in steps}) == len(steps)
    assert digest(Grouped(Ablate(layer), one.copy())) == digest(steps[0])
