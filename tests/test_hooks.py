"""Looking at a network and changing it, with nothing left behind."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neuronscope.data.dataset import Batch
from neuronscope.edits import drop, keep, replace, resample, scale, stop_gradient
from neuronscope.errors import InputError, UnknownName
from neuronscope.hooks import applied, edited, intercepted, observed, placed, tapped, units_first
from neuronscope.models.sources import subject_from
from neuronscope.preprocessing import Preprocess
from neuronscope.run import Run
from neuronscope.steps import Gradients
from neuronscope.units import LayerInfo, UnitSet

UNITS = 4


class Small(nn.Module):
    """Convolution, in-place ReLU used twice, channels-last normalisation, residual sum, classifier."""

    def __init__(self):
        """Random weights, the same each time."""
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(1, UNITS, 3, padding=1)
        self.conv2 = nn.Conv2d(UNITS, UNITS, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.norm = nn.LayerNorm(UNITS)
        self.bn = nn.BatchNorm2d(UNITS)
        self.fc = nn.Linear(UNITS, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        """Logits."""
        x = self.relu(self.conv1(x))
        y = self.relu(self.conv2(x))
        y = y + x
        y = self.norm(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.fc(self.bn(y).mean((2, 3)))


@pytest.fixture(scope="module")
def subject():
    """A subject with every trap of hooks in it."""
    return subject_from(Small(), name="small", input_shape=(1, 6, 6), preprocess=Preprocess(channels=1))


@pytest.fixture(scope="module")
def images():
    """Five made-up images."""
    return torch.randn(5, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def hooks_of(module):
    """Number of hooks of every kind in the whole network."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(part, kind)) for part in module.modules() for kind in kinds)


def manually(module, x, change):
    """The forward pass written out, with a function applied at each layer by name: the slow twin of all hooks."""
    x = change("conv1", module.conv1(x))
    x = change("relu", x.relu())
    y = change("conv2", module.conv2(x))
    y = change("relu#1", y.relu())
    y = y + x
    y = change("norm", module.norm(y.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
    y = change("bn", module.bn(y))
    return change("fc", module.fc(y.mean((2, 3))))


LAYERS = ("conv1", "relu", "conv2", "relu#1", "norm", "bn", "fc")


def units_axis(name):
    """Where the units of a layer are."""
    return -1 if name == "norm" else 1


def test_layers_are_told_apart_by_call(subject):
    """The second call of the ReLU is a layer of its own; the normalisation is channels-last."""
    assert tuple(layer.name for layer in subject.layers) == LAYERS
    assert subject.layer("norm").channel_axis == -1


def test_observed_is_what_the_layer_gave(subject, images):
    """Every layer is seen as it was, before the in-place ReLU after it, with units on axis 1."""
    expected, found = {}, {}

    def note(name, value):
        expected[name] = value.clone().movedim(units_axis(name), 1)
        return value

    def visiting(name):
        return lambda maps: found.update({name: maps.clone()})

    with torch.inference_mode():
        logits = manually(subject.module, images, note)
        with observed(subject.module, {layer: visiting(layer.name) for layer in subject.layers}):
            assert torch.equal(subject.module(images), logits)
            assert torch.equal(subject.module(images), logits)  # a second pass counts calls from the start
    assert found.keys() == expected.keys() == set(LAYERS)
    for name in LAYERS:
        assert torch.equal(found[name], expected[name]), name
    assert (found["conv1"] < 0).any()


@given(st.sampled_from(LAYERS), st.integers(0, 2), st.integers(1, UNITS))
def test_of_a_part_its_units_are_seen(subject, images, name, first, width):
    """What is observed of a part are the layer's own units, a view of its output; tapped, the whole output is kept."""
    layer = subject.layer(name)
    first = min(first, layer.units - 1)
    last = min(first + width, layer.units)
    part, seen = layer.part(first, last), []
    with torch.inference_mode(), observed(subject.module, {layer: lambda maps: seen.append(maps.clone())}):
        subject.module(images)
    with torch.inference_mode(), observed(subject.module, {part: lambda maps: seen.append(maps.clone())}):
        subject.module(images)
    assert torch.equal(seen[1], seen[0][:, first:last])
    with tapped(subject.module, [part]) as kept:
        subject.module(images)
    narrowed = units_first(kept[name], part)
    assert kept[name].shape[1:] == layer.shape
    assert torch.equal(narrowed, seen[1])
    assert narrowed.untyped_storage().data_ptr() == kept[name].untyped_storage().data_ptr()


def test_two_parts_of_a_layer_are_refused_in_one_pass(subject):
    """One would hide the other, for they share a name."""
    layer = subject.layer("conv1")
    with (
        pytest.raises(InputError, match="'conv1' is there twice"),
        tapped(subject.module, [layer.part(0, 1), layer.part(1, 2)]),
    ):
        pass
    assert hooks_of(subject.module) == 0


def test_tapped_is_safe_from_in_place_operations(subject, images):
    """What was kept of a convolution still has its negative values, and gradients reach every layer."""
    with tapped(subject.module, subject.layers) as kept:
        logits = subject.module(images)
        gradients = torch.autograd.grad(logits.sum(), [kept[name] for name in LAYERS])
    assert torch.equal(logits.detach(), subject.module(images))
    assert (kept["conv1"] < 0).any()
    assert (kept["conv2"] < 0).any()
    assert not (kept["relu#1"] < 0).any()
    assert all(gradient.shape == kept[name].shape for name, gradient in zip(LAYERS, gradients, strict=True))
    assert gradients[LAYERS.index("fc")].eq(1).all()


MEMBERS = st.frozensets(st.integers(0, UNITS - 1))
ACTIONS = {
    "drop": (drop, lambda value, mask: torch.where(mask, torch.zeros_like(value), value)),
    "keep": (keep, lambda value, mask: torch.where(mask, value, torch.zeros_like(value))),
    "scale": (lambda units: scale(units, 2.5), lambda value, mask: torch.where(mask, value * 2.5, value)),
    "replace": (lambda units: replace(units, -1.5), lambda value, mask: torch.where(mask, value * 0 - 1.5, value)),
}


@settings(max_examples=60)
@given(st.sampled_from(LAYERS[:-1]), MEMBERS, st.sampled_from(sorted(ACTIONS)))
def test_an_edit_is_applied_where_it_says(subject, images, name, members, action):
    """Each action at each layer gives the logits of the forward pass with the change written into it."""
    units = UnitSet(name, UNITS, tuple(members))
    make, twin = ACTIONS[action]
    shape = [1] * (2 if name == "fc" else 4)
    shape[units_axis(name)] = UNITS
    mask = torch.from_numpy(units.mask()).view(shape)

    def change(here, value):
        return twin(value, mask) if here == name else value

    with torch.inference_mode():
        expected = manually(subject.module, images, change)
        with edited(subject, [make(units)]):
            found = subject.module(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@given(st.sampled_from(LAYERS[:-1]), MEMBERS)
def test_keeping_is_dropping_the_others(subject, images, name, members):
    """keep(A) and drop(~A) give the same bits."""
    units = UnitSet(name, UNITS, tuple(members))
    with torch.inference_mode():
        with edited(subject, [keep(units)]):
            kept = subject.module(images)
        with edited(subject, [drop(~units)]):
            dropped = subject.module(images)
    assert torch.equal(kept, dropped)


@given(st.sampled_from(LAYERS[:-1]), MEMBERS)
def test_stop_gradient_leaves_the_forward_pass_and_blocks_the_gradient(subject, images, name, members):
    """The logits keep every bit; units in the set have gradient 0 and all others the gradient they had."""
    layer, units = subject.layer(name), UnitSet(name, UNITS, tuple(members))

    def run(edits):
        with tapped(subject.module, [layer]) as kept, edited(subject, edits):
            logits = subject.module(images)
            (gradient,) = torch.autograd.grad(logits.square().sum(), [kept[name]])
        return logits.detach(), gradient.movedim(units_axis(name), 1)

    plain, full = run([])
    blocked, cut = run([stop_gradient(units)])
    assert torch.equal(plain, blocked)
    mask = torch.from_numpy(units.mask())
    assert cut[:, mask].eq(0).all()
    assert torch.equal(cut[:, ~mask], full[:, ~mask])


def test_one_value_for_each_unit_in_ascending_order(subject, images):
    """A tuple of values goes to the units in the order of their numbers, on a channels-last layer too."""
    for name in ("conv1", "norm"):
        units, seen = UnitSet(name, UNITS, (3, 1)), []
        visits = {subject.layer(name): lambda maps, seen=seen: seen.append(maps.clone())}
        with edited(subject, [replace(units, (10.0, 30.0))]), observed(subject.module, visits):
            subject.module(images)
        assert seen[0][:, 1].eq(10).all()
        assert seen[0][:, 3].eq(30).all()


def test_edits_are_applied_in_the_order_given(subject, images):
    """Replaced and then scaled is not scaled and then replaced."""
    units = UnitSet("conv1", UNITS, (0,))

    def value(edits):
        seen = []
        with edited(subject, edits), observed(subject.module, {subject.layer("conv1"): seen.append}):
            subject.module(images)
        return float(seen[0].clamp_min(0)[0, 0, 0, 0])

    assert value([replace(units, 2.0), scale(units, 3.0)]) == 6.0
    assert value([scale(units, 3.0), replace(units, 2.0)]) == 2.0


class Interrupted(Exception):
    """Raised inside a hook."""


@pytest.mark.parametrize("manager", ["observed", "tapped", "edited", "inside", "placed"])
def test_nothing_survives_an_exception(subject, images, manager):
    """After an exception in the body or in a visitor: no hook is left and the logits are as before."""
    module, layer = subject.module, subject.layer("relu#1")
    before, hooks = module(images), hooks_of(module)

    def explode(_maps):
        raise Interrupted

    managers = {
        "observed": observed(module, {layer: lambda _maps: None}),
        "tapped": tapped(module, subject.layers),
        "edited": edited(subject, [drop(UnitSet("conv1", UNITS, (0, 1)))]),
        "inside": observed(module, {layer: explode}),
        "placed": placed(module, Run(device="cpu", dtype="float64")),
    }

    def run():
        with managers[manager]:
            module(images.double() if manager == "placed" else images)
            raise Interrupted

    with pytest.raises(Interrupted):
        run()
    assert hooks_of(module) == hooks == 0
    assert torch.equal(module(images), before)


@pytest.mark.parametrize("wrong", ["module", "size", "name", "tuple"])
def test_wrong_layers_are_refused_and_leave_nothing(subject, wrong):
    """A layer that is not there, an edit made for another layer's size, a module that returns several tensors."""
    module = subject.module
    first = subject.layer("conv1")
    absent = LayerInfo("conv9", "conv", (UNITS, 6, 6), UNITS)
    lstm = nn.Sequential(nn.LSTM(2, 2))
    several = LayerInfo("0", "other", (2,), 2)
    cases = {
        "module": (lambda: intercepted(module, {first: lambda _: None, absent: lambda _: None}), InputError, "conv9"),
        "size": (lambda: edited(subject, [drop(UnitSet("conv1", 7, (0,)))]), InputError, "7 units"),
        "name": (lambda: edited(subject, [drop(UnitSet("conv7", UNITS, (0,)))]), UnknownName, "conv7"),
        "tuple": (lambda: intercepted(lstm, {several: lambda _: None}), InputError, "returns a tuple"),
    }
    make, kind, message = cases[wrong]

    def run():
        with make():
            lstm(torch.zeros(1, 2, 2))

    with pytest.raises(kind, match=message):
        run()
    assert hooks_of(module) == hooks_of(lstm) == 0


@pytest.mark.parametrize("home", [torch.float32, torch.float64])
@pytest.mark.parametrize("away", ["float32", "float64"])
def test_a_network_comes_home_bit_by_bit(home, away):
    """Whatever number format a run uses, the network's own tensors are back afterwards: the same objects, even."""
    module = Small().to(home).eval()
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in module.state_dict().items()}
    with placed(module, Run(device="cpu", dtype=away)) as here:
        assert here(torch.zeros(1, 1, 6, 6, dtype=getattr(torch, away))).dtype == getattr(torch, away)
    for name, tensor in module.state_dict().items():
        assert tensor.data_ptr() == before[name][0]
        assert tensor.dtype == before[name][1].dtype
        assert torch.equal(tensor, before[name][1])


def test_values_keep_their_precision_in_a_float64_run(images):
    """A mean put in place of a unit is not rounded to float32 on its way."""
    subject = subject_from(Small(), name="small", input_shape=(1, 6, 6), preprocess=Preprocess(channels=1))
    seen, third = [], 1 / 3
    visits = {subject.layer("bn"): lambda maps: seen.append(maps.clone())}
    change = replace(UnitSet("bn", UNITS, (0,)), third)
    run = Run(device="cpu", dtype="float64")
    with placed(subject.module, run) as module, edited(subject, [change]), observed(module, visits):
        module(images.double())
    assert seen[0][0, 0, 0, 0].item() == third


def test_observing_inside_editing_sees_the_edit(subject, images):
    """What is observed under edits is the edited network."""
    step = Gradients((subject.layer("conv2"),))
    batch = Batch(index=torch.arange(5), image=images, label=torch.zeros(5, dtype=torch.int64))
    with edited(subject, [drop(UnitSet("relu#1", UNITS, (2,)))]):
        found = step(subject.module, batch)["pull/logit"]
    assert found[:, 2].eq(0).all()
    assert found[:, [0, 1, 3]].ne(0).any()


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("donors", [None, [3, 2, 4, 0, 1], [0, 1, 2, 3, 4]])
def test_units_show_another_images_maps(subject, images, name, donors):
    """`resample` puts the donor's map there, whatever the order of axes; without donors, the next image's."""
    layer, chosen = subject.layer(name), (0, 2)
    lenders = [1, 2, 3, 4, 0] if donors is None else donors

    def lent(here, output):
        if here != name:
            return output
        first = output.movedim(layer.channel_axis, 1).clone()
        for image, lender in enumerate(lenders):
            for unit in chosen:
                first[image, unit] = output.movedim(layer.channel_axis, 1)[lender, unit]
        return first.movedim(1, layer.channel_axis)

    with torch.inference_mode():
        expected = manually(subject.module, images, lent)
        edit = resample(UnitSet(name, layer.units, chosen))
        with applied(subject.module, [layer], [edit], donors=None if donors is None else torch.tensor(donors)):
            found = subject.module(images)
        plain = subject.module(images)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert torch.allclose(found, plain) == (donors == [0, 1, 2, 3, 4])
    assert hooks_of(subject.module) == 0


def test_applying_to_given_layers_is_editing(subject, images):
    """With the layers given, `applied` is `edited`: several edits of several layers, in the order given."""
    first, second = UnitSet("conv1", UNITS, (0, 1)), UnitSet("norm", UNITS, (3,))
    edits = [replace(first, 2.0), scale(first, 0.5), drop(second), resample(~second)]
    with torch.inference_mode():
        with edited(subject, edits):
            expected = subject.module(images)
        with applied(subject.module, subject.layers, edits):
            assert torch.equal(subject.module(images), expected)
        with applied(subject.module, subject.layers, edits[::-1]):
            assert not torch.allclose(subject.module(images), expected)
        plain = subject.module(images)
        with applied(subject.module, (), ()):
            assert torch.equal(subject.module(images), plain)
    assert hooks_of(subject.module) == 0


def test_edits_of_layers_that_are_not_given_are_refused(subject):
    """The layer of an edit must be among those given, with as many units; nothing is hooked otherwise."""
    fine, conv1 = drop(UnitSet("conv1", UNITS, (0,))), subject.layer("conv1")
    for edit, words in (
        (drop(UnitSet("bn", UNITS, (0,))), "'bn' was made for 4 units; this layer is not given"),
        (drop(UnitSet("conv1", 9, (0,))), "'conv1' was made for 9 units; in this network this layer has 4"),
    ):
        with pytest.raises(InputError, match=words), applied(subject.module, [conv1], [fine, edit]):
            pass
        assert hooks_of(subject.module) == 0
