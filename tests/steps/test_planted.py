"""A network in which unit 2 alone carries class 1: every step that asks what a unit does finds it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from neuronscope.data.dataset import Batch
from neuronscope.edits import drop, keep, resample
from neuronscope.models.sources import subject_from
from neuronscope.preprocessing import Preprocess
from neuronscope.steps import (
    Ablate,
    AlongPath,
    Fill,
    Gradients,
    MaskGroup,
    Observe,
    PredictMasked,
    PredictVariants,
    absolute_flow,
)
from neuronscope.units import UnitSet

UNITS, CLASS, PLANTED = 6, 1, 2
SHINE = {0: 0, 1: PLANTED, 2: 1}
"""Class -> the unit that tells it."""


def by_class(values, label):
    """Mean over the images of each class: (classes, units)."""
    return torch.stack([values[label == c].mean(0) for c in SHINE])


def only(c):
    """A table row that is true at the unit of a class."""
    return torch.arange(UNITS) == SHINE[c]


def test_activations_alone_do_not_tell(planted, rows):
    """All units see all rows alike: no mean differs between classes by more than the brightness of the images."""
    means = by_class(Observe((planted.layer("relu"),))(planted.module, rows)["mean"], rows.label)
    torch.testing.assert_close(means, means[:1].expand_as(means), rtol=0.1, atol=0.0)


@pytest.mark.parametrize("measure", ["pull/logit", "pull/contrast", "size/loss"])
def test_gradients_find_it(planted, rows, measure):
    """Of a class's images, its unit alone is pulled; unit 4, twice as active, by nothing."""
    step = Gradients((planted.layer("relu"),), targets=("logit", "contrast", "loss"))
    found = by_class(step(planted.module, rows)[measure], rows.label)
    for c, values in enumerate(found):
        assert values[only(c)] > 0
        assert values[~only(c)].eq(0).all()


@pytest.mark.parametrize("measure", ["conductance", "influence"])
def test_the_path_finds_it(planted, rows, measure):
    """Along the path as well; a network that is linear on it needs few steps."""
    seen = AlongPath((planted.layer("relu"),), steps=2)(planted.module, rows)
    found = by_class(seen[measure], rows.label)
    for c, values in enumerate(found):
        assert values[only(c)] > 0.5
        assert values[~only(c)].abs().max() < 1e-6
    assert seen["residual"].max() < 1e-5


@pytest.mark.parametrize(
    "fill", [Fill(), Fill("values", values=np.zeros(UNITS)), Fill("by label", values=np.zeros((4, UNITS)))]
)
def test_ablation_finds_it(planted, rows, fill):
    """Without its unit, a class is not recognised any more, and nothing else happens."""
    seen = Ablate(planted.layer("relu"), fill)(planted.module, rows)
    for name in ("accuracy_fall", "logit_fall", "loss_rise"):
        for c, values in enumerate(by_class(seen[name], rows.label)):
            assert values[only(c)] > 0.9
            assert values[~only(c)].abs().max() < 0.2 if name == "loss_rise" else values[~only(c)].eq(0).all()


def test_sets_and_edited_networks_find_it(planted, rows):
    """Dropping the unit alone turns its class into the one that nothing tells; keeping it alone, all others."""
    layer, mask = planted.layer("relu"), np.arange(UNITS) == PLANTED
    unit = UnitSet("relu", UNITS, (PLANTED,))
    lone = torch.where(rows.label == CLASS, 3, rows.label).int()
    rest = torch.where(rows.label == CLASS, rows.label, 3).int()
    masked = PredictMasked(layer, (MaskGroup(np.stack([mask, ~mask])),))(planted.module, rows)
    variants = PredictVariants((layer,), ((drop(unit),), (keep(unit),), ()))(planted.module, rows)
    for seen in (masked, variants):
        assert torch.equal(seen["predicted"][:, 0], lone)
        assert torch.equal(seen["predicted"][:, 1], rest)
    assert torch.equal(variants["predicted"][:, 2], rows.label.int())


def test_another_images_maps_confuse_only_its_class(planted, rows):
    """With maps of another image, the unit misses its class there where it is lent a map of another class."""
    layer, unit = planted.layer("relu"), UnitSet("relu", UNITS, (PLANTED,))
    masked = PredictMasked(layer, (MaskGroup((np.arange(UNITS) == PLANTED)[None], Fill("resample", seed=4)),))
    variants = PredictVariants((layer,), ((resample(unit),),), seed=4)
    said = [step(planted.module, rows)["predicted"][:, 0] for step in (masked, variants)]
    assert torch.equal(*said)
    assert (said[0] != rows.label).sum() > 0
    assert (said[0][rows.label != CLASS] == rows.label[rows.label != CLASS].int()).sum() > 0


def test_weights_alone_find_it(planted):
    """Handed back from the output of class 1, all of the score comes to the one unit."""
    layers = (planted.layer("features"), planted.layer("relu"))
    start = np.eye(4)[CLASS]
    found = absolute_flow(planted.module, layers, planted.layer("rows"), start, input_shape=(1, 4, 4)).reshape(2, UNITS)
    assert (found[:, PLANTED] == 1).all()
    assert (np.delete(found, PLANTED, axis=1) == 0).all()


class Failing(nn.Module):
    """Does well for a while, then meets an image it cannot bear."""

    def __init__(self):
        """Random weights, positive, so that a large image gives large numbers everywhere."""
        super().__init__()
        self.conv, self.relu, self.fc = nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Linear(48, 4)
        for weight in self.parameters():
            weight.data.abs_()

    def forward(self, x):
        """Logits, or an error after the last layer for images with a very large number."""
        x = self.fc(self.relu(self.conv(x)).flatten(1))
        if bool((x.abs() > 1e4).any()):
            message = "too large"
            raise ValueError(message)
        return x


@pytest.mark.parametrize(
    "make",
    [
        lambda layer: Observe((layer,)),
        lambda layer: Gradients((layer,)),
        lambda layer: AlongPath((layer,), steps=2),
        Ablate,
        lambda layer: PredictMasked(
            layer, (MaskGroup(np.ones((1, 3), dtype=bool), Fill("values", values=np.full(3, 1e9))),)
        ),
        lambda layer: PredictVariants((layer,), ((), (drop(UnitSet("relu", 3, (0,))),))),
    ],
)
def test_an_error_leaves_nothing_behind(left_as_it_came, make):
    """Whatever the network raises comes out, and no hook, patch, gradient or edit stays behind."""
    subject = subject_from(Failing(), name="failing", input_shape=(1, 6, 6), preprocess=Preprocess(channels=1))
    left_as_it_came(subject.module)
    image = torch.ones(2, 1, 6, 6)
    fine, bad = (Batch(torch.arange(2), image * size, torch.tensor([0, 1])) for size in (1.0, 1e9))
    step = make(subject.layer("relu"))
    with torch.inference_mode():
        expected = subject.module(fine.image)
    with pytest.raises(ValueError, match="too large"):
        step(subject.module, bad)
    with torch.inference_mode():
        assert torch.equal(subject.module(fine.image), expected)
