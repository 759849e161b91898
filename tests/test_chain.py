"""Edited chains give the numbers of edited networks with hooks, whatever is edited; everything else is no chain."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from neuronscope.edits import drop, replace, resample, scale
from neuronscope.hooks import applied
from neuronscope.models.builtin import subnet_cifar10, subnet_mnist
from neuronscope.models.probe import probe_layers
from neuronscope.replay.chain import chain_of
from neuronscope.units import UnitSet


def network() -> nn.Sequential:
    """Everything that a chain may hold: padding, pooling, normalisation, in-place and zero-moving activations."""
    torch.manual_seed(0)
    parts = [
        *(nn.Conv2d(1, 6, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(6), nn.ReLU(inplace=True)),
        *(nn.MaxPool2d(2, 2, 1), nn.Conv2d(6, 5, 3, stride=2, bias=False), nn.Sigmoid(), nn.Dropout(0.5)),
        *(nn.Conv2d(5, 4, 1), nn.GELU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 7), nn.BatchNorm1d(7), nn.ReLU()),
        nn.Linear(7, 3),
    ]
    made = nn.Sequential(*parts).eval()
    for part in made:
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            part.bias.data.normal_()
    return made.requires_grad_(requires_grad=False)


NETWORK = network()
SHAPE = (1, 16, 16)
LAYERS = probe_layers(NETWORK, SHAPE)
IMAGES = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(1))


def by_hooks(module, layers, edits, images):
    """The slow twin."""
    with torch.inference_mode(), applied(module, layers, edits):
        return module(images)


KINDS = (drop, drop, lambda units: scale(units, 0.5), lambda units: replace(units, 1.5))

plans = st.dictionaries(
    st.integers(0, len(LAYERS) - 1), st.tuples(st.integers(0, 2**32), st.integers(0, len(KINDS) - 1)), max_size=4
)


def edits_of(plan):
    """Edits of a few layers: layer number -> (seed of the units, kind of edit)."""
    found = []
    for number, (seed, kind) in plan.items():
        layer = LAYERS[number]
        mask = np.random.default_rng(seed).random(layer.units) < 0.5
        found.append(KINDS[kind](UnitSet.from_mask(layer.name, mask)))
    return tuple(found)


@given(many=st.lists(plans, min_size=1, max_size=4))
def test_same_numbers(many):
    """Any edits of any layers: the chain says what the network with hooks says, or that it cannot."""
    chain = chain_of(NETWORK, LAYERS, IMAGES)
    assert chain is not None
    variants = [edits_of(plan) for plan in many]
    for edits, found in zip(variants, chain.logits(IMAGES, LAYERS, variants), strict=True):
        if found is not None:
            torch.testing.assert_close(found, by_hooks(NETWORK, LAYERS, edits, IMAGES), rtol=1e-4, atol=1e-5)


def test_usual_edits_are_fast():
    """Units silenced after every activation but the sigmoid, which moves zero: nothing falls back to hooks."""
    chosen = [layer for layer in LAYERS if layer.name in ("2", "6", "8", "13")]
    rng = np.random.default_rng(0)
    edits = tuple(drop(UnitSet.from_mask(layer.name, rng.random(layer.units) < 0.6)) for layer in chosen)
    chain = chain_of(NETWORK, tuple(chosen), IMAGES)
    assert chain is not None
    found = next(iter(chain.logits(IMAGES, chosen, [edits])))
    assert found is not None
    torch.testing.assert_close(found, by_hooks(NETWORK, chosen, edits, IMAGES), rtol=1e-4, atol=1e-5)


def test_no_edit_and_no_unit_left():
    """Nothing edited gives the network's own answer; a layer without any unit is left to hooks."""
    chain = chain_of(NETWORK, LAYERS, IMAGES)
    silent = (drop(UnitSet.from_mask("2", np.ones(6, dtype=bool))),)
    intact, empty = chain.logits(IMAGES, LAYERS, [(), silent])
    torch.testing.assert_close(intact, NETWORK(IMAGES))
    assert empty is None


def test_nothing_is_changed():
    """The network is as it was, and in-place activations do not reach what several edited networks start from."""
    before = {name: value.clone() for name, value in NETWORK.state_dict().items()}
    edits = [(drop(UnitSet.from_mask(name, np.arange(6) < 2)),) for name in ("2", "2", "1")]
    first, second, _ = chain_of(NETWORK, LAYERS, IMAGES).logits(IMAGES, LAYERS, edits)
    assert torch.equal(first, second)
    assert all(torch.equal(value, before[name]) for name, value in NETWORK.state_dict().items())


@pytest.mark.parametrize(("make", "shape"), [(subnet_mnist, (1, 28, 28)), (subnet_cifar10, (3, 32, 32))])
def test_builtin_networks_are_chains(make, shape):
    """The built-in networks of the sub-network experiments run as chains."""
    module = make().eval()
    layers = tuple(layer for layer in probe_layers(module, shape) if layer.kind == "relu")
    assert chain_of(module, layers, torch.randn(2, *shape)) is not None


class Skip(nn.Module):
    """A network with a branch."""

    def __init__(self):
        """Make the parts."""
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        """Add what came in."""
        return self.two(x + self.one(x))


class Twice(nn.Module):
    """A network that calls a module twice."""

    def __init__(self):
        """Make the parts."""
        super().__init__()
        self.one = nn.Linear(4, 4)

    def forward(self, x):
        """Once more."""
        return self.one(self.one(x))


class Branches(nn.Module):
    """A network whose path depends on its input, which cannot be traced."""

    def __init__(self):
        """Make the parts."""
        super().__init__()
        self.one = nn.Linear(4, 4)

    def forward(self, x):
        """Only if positive."""
        return self.one(x) if x.sum() > 0 else x


@pytest.mark.parametrize("make", [Skip, Twice, Branches])
def test_other_networks_are_none(make):
    """Branches, modules called twice and networks that cannot be traced have no chain."""
    assert chain_of(make().eval(), (), torch.ones(2, 4)) is None


def test_edits_that_need_hooks():
    """Maps of other images, and units silenced before something that makes another number of zero, are refused."""
    chain = chain_of(NETWORK, LAYERS, IMAGES)
    some = UnitSet.from_mask("4", np.arange(5) < 2)
    assert list(chain.logits(IMAGES, LAYERS, [(resample(some),), (drop(some),)])) == [None, None]
