"""Silencing units, one by one and in sets: against a hook and a full forward pass for every one of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from neuronscope.data.dataset import Batch
from neuronscope.edits import drop, replace
from neuronscope.errors import InputError
from neuronscope.hooks import edited, intercepted
from neuronscope.models.sources import subject_from
from neuronscope.preprocessing import Preprocess
from neuronscope.steps import ZERO, Ablate, Fill, MaskGroup, PredictMasked
from neuronscope.steps.silence import donors
from neuronscope.units import UnitSet


class Residual(nn.Module):
    """Normalised convolutions, a skip, and a layer with channels last."""

    def __init__(self):
        """Random weights, the same each time."""
        super().__init__()
        torch.manual_seed(2)
        self.conv, self.bn, self.relu = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.inner, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.LayerNorm(4)
        self.fc = nn.Linear(4, 4)
        nn.init.normal_(self.bn.running_mean)
        nn.init.uniform_(self.bn.running_var, 0.5, 2.0)

    def forward(self, x):
        """Logits."""
        x = self.relu(self.bn(self.conv(x)))
        x = self.inner(x) + x
        x = self.norm(x.permute(0, 2, 3, 1))
        return self.fc(x.mean((1, 2)))


@pytest.fixture(scope="module")
def residual():
    """The residual network as a subject."""
    return subject_from(Residual(), name="residual", input_shape=(1, 6, 6), preprocess=Preprocess(channels=1))


def fills(units):
    """Fills of every kind for so many units."""
    generator = np.random.default_rng(0)
    return {
        "zero": ZERO,
        "values": Fill("values", values=generator.normal(size=units)),
        "by label": Fill("by label", values=generator.normal(size=(4, units))),
        "resample": Fill("resample", seed=3),
    }


KINDS = ("zero", "values", "by label", "resample")


def silenced(subject, layer, units, fill, batch):
    """Logits with units silenced: image by image and unit by unit, by their definition, in a full forward pass."""

    def change(output):
        first = output.movedim(layer.channel_axis, 1).clone()
        before = first.clone()
        for image in range(len(first)):
            label = int(batch.label[image])
            for unit in units:
                match fill.kind:
                    case "resample":
                        lender = int(donors(batch.index, seed=fill.seed)[image])
                        first[image, unit] = before[lender, unit]
                    case "by label":
                        column = fill.values[:, unit]
                        first[image, unit] = float(column[label] if label >= 0 else column.mean())
                    case "values":
                        first[image, unit] = 0.0 if fill.values is None else float(fill.values[unit])
        return first.movedim(1, layer.channel_axis)

    with torch.inference_mode(), intercepted(subject.module, {layer: change}):
        return subject.module(batch.image)


def losses(logits, label):
    """Cross-entropy for each image, nan without a label."""
    found = functional.cross_entropy(logits, label.clamp_min(0), reduction="none")
    return torch.where(label >= 0, found, torch.nan)


def check_ablation(subject, layer, fill, batch, *, first=0):
    """Compare `Ablate` with one forward pass for each unit; `fill` counts from the whole layer's first unit."""
    own = fill
    if first and fill.values is not None:
        own = Fill(fill.kind, values=fill.values[..., first : first + layer.units])
    seen = Ablate(layer, own)(subject.module, batch)
    with torch.inference_mode():
        before = subject.module(batch.image)
    close = {"rtol": 1e-4, "atol": 1e-5 * float(before.abs().max()) + 1e-6, "equal_nan": True}
    torch.testing.assert_close(seen["logits"], before, **close)
    whole = subject.layer(layer.name)
    known, safe = batch.label >= 0, batch.label.clamp_min(0)
    for unit in range(layer.units):
        after = silenced(subject, whole, [first + unit], fill, batch)
        fall = (before - after).gather(1, safe[:, None])[:, 0]
        torch.testing.assert_close(seen["logit_fall"][:, unit], torch.where(known, fall, torch.nan), **close)
        rise = losses(after, batch.label) - losses(before, batch.label)
        torch.testing.assert_close(seen["loss_rise"][:, unit], rise, **close)
        right = [(logits.argmax(1) == batch.label).float() for logits in (before, after)]
        expected = torch.where(known, right[0] - right[1], torch.nan)
        torch.testing.assert_close(seen["accuracy_fall"][:, unit], expected.to(before.dtype), equal_nan=True)
    return seen


@pytest.mark.parametrize("name", ["conv1", "relu", "conv2", "relu#1", "pool", "fc"])
@pytest.mark.parametrize("kind", KINDS)
def test_ablation_is_a_forward_pass_for_each_unit(subject, batch, left_as_it_came, name, kind):
    """What each unit alone is missed for, with anything in its place; images without a label give nan."""
    left_as_it_came(subject.module)
    layer = subject.layer(name)
    seen = check_ablation(subject, layer, fills(layer.units)[kind], batch)
    assert seen["logit_fall"][-1].isnan().all()
    assert seen["logit_fall"][:-1].isfinite().all()
    announced = Ablate(layer).shapes(4)
    assert announced == {one: tuple(seen[one].shape[1:]) for one in seen if one not in ("index", "label")}


@pytest.mark.parametrize("name", ["bn", "relu", "inner", "norm"])
@pytest.mark.parametrize("kind", KINDS)
def test_ablation_knows_skips_and_channels_last(residual, batch, left_as_it_came, name, kind):
    """A unit is silenced where it is, in whatever order its axes are, and lives on in no skip."""
    left_as_it_came(residual.module)
    layer = residual.layer(name)
    check_ablation(residual, layer, fills(layer.units)[kind], batch)


@pytest.mark.parametrize("kind", ["zero", "values", "by label"])
def test_other_images_of_the_batch_do_not_matter(subject, batch, kind):
    """Images left out change nothing for those that stay, unless they are asked to lend their maps."""
    layer, stay = subject.layer("relu#1"), [4, 1, 2]
    fill = fills(layer.units)[kind]
    fewer = Batch(index=batch.index[stay], image=batch.image[stay], label=batch.label[stay])
    some, all_ = (Ablate(layer, fill)(subject.module, one) for one in (fewer, batch))
    for name in ("logit_fall", "loss_rise", "accuracy_fall"):
        torch.testing.assert_close(some[name], all_[name][stay], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_of_a_layer_has_its_own_units(subject, batch, kind):
    """Of a part, the part's units are silenced, not the layer's first ones; in sets too."""
    layer = subject.layer("conv2")
    part, fill = layer.part(2, 5), fills(layer.units)[kind]
    check_ablation(subject, part, fill, batch, first=2)
    own = fill if fill.values is None else Fill(kind, values=fill.values[..., 2:])
    masks = np.array([[True, False, True]])
    seen = PredictMasked(part, (MaskGroup(masks, own),))(subject.module, batch)
    expected = silenced(subject, layer, [2, 4], fill, batch)
    torch.testing.assert_close(seen["surprise"][:, 0], losses(expected, batch.label), equal_nan=True)


@pytest.mark.parametrize(
    ("of", "name"), [("subject", "relu"), ("subject", "fc"), ("residual", "relu"), ("residual", "norm")]
)
def test_masked_predictions_are_forward_passes(request, batch, left_as_it_came, of, name):
    """Sets of units, each group with its own fill, in the order of the groups; empty and full sets among them."""
    subject = request.getfixturevalue(of)
    left_as_it_came(subject.module)
    layer = subject.layer(name)
    masks = np.random.default_rng(1).random((4, layer.units)) < 0.5
    masks[0], masks[1] = False, True
    masks.flags.writeable = False
    groups = tuple(MaskGroup(masks[: 4 - number], fill) for number, fill in enumerate(fills(layer.units).values()))
    step = PredictMasked(layer, groups)
    seen = step(subject.module, batch)
    place = 0
    for group in groups:
        for mask in group.masks:
            logits = silenced(subject, layer, np.flatnonzero(mask), group.fill, batch)
            torch.testing.assert_close(
                seen["surprise"][:, place], losses(logits, batch.label), rtol=1e-4, atol=1e-5, equal_nan=True
            )
            assert torch.equal(seen["predicted"][:, place], logits.argmax(1).int())
            own = logits.gather(1, batch.label.clamp(min=0)[:, None])
            ahead = torch.where(batch.label >= 0, (logits > own).sum(1), -1)
            assert torch.equal(seen["ahead"][:, place], ahead.int())
            place += 1
    assert step.shapes(4) == {"predicted": (place,), "surprise": (place,), "ahead": (place,), "logits": (4,)}
    assert seen["predicted"].shape[1] == place == 10
    assert seen["surprise"][:-1].isfinite().all()
    assert seen["surprise"][-1].isnan().all()


def test_no_set_no_prediction(subject, batch):
    """Without sets there are the logits alone."""
    seen = PredictMasked(subject.layer("relu"), ())(subject.module, batch)
    assert seen["predicted"].shape == seen["surprise"].shape == (6, 0)


def test_silencing_within_an_edited_network(own_subject, batch):
    """Inside edits, what is silenced is the edited network; before and afterwards it is not."""
    layer = own_subject.layer("relu#1")
    check_ablation(own_subject, layer, ZERO, batch)
    edits = [drop(UnitSet("conv1", 3, (0,))), replace(UnitSet("pool", 5, (1,)), 0.7)]
    with edited(own_subject, edits):
        inside = check_ablation(own_subject, layer, ZERO, batch)
    outside = check_ablation(own_subject, layer, ZERO, batch)
    assert not torch.allclose(inside["logit_fall"][:-1], outside["logit_fall"][:-1])
    assert inside["logit_fall"][:-1, 1].eq(0).all(), "the constant in its place is all that goes on"


@pytest.mark.parametrize("values", [np.zeros(7), np.zeros(1)])
def test_a_fill_for_another_layer_is_refused(subject, batch, left_as_it_came, values):
    """Seven numbers do not fit five units, nor does one, and the network is left as it was."""
    left_as_it_came(subject.module)
    with pytest.raises(InputError, match=f"values for {len(values)} units"):
        Ablate(subject.layer("conv2"), Fill("values", values=values))(subject.module, batch)


def test_masks_for_another_layer_are_refused(subject, batch, left_as_it_came):
    """Masks have one place for each unit."""
    left_as_it_came(subject.module)
    step = PredictMasked(subject.layer("conv2"), (MaskGroup(np.zeros((2, 7), dtype=bool)),))
    with pytest.raises(InputError, match="masks for 7 units"):
        step(subject.module, batch)
