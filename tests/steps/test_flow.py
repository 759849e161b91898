"""Scores handed back through a network: against products of absolute weights written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from neuronscope.models.sources import subject_from
from neuronscope.preprocessing import Preprocess
from neuronscope.steps import absolute_flow

SHAPE = (3, 6, 6)


def subject_of(*parts):
    """A chain as a subject, its parts named 0, 1, ..."""
    torch.manual_seed(7)
    for part in parts:
        if isinstance(part, (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)):
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    return subject_from(nn.Sequential(*parts), name="chain", input_shape=SHAPE, preprocess=Preprocess())


def matrix(function, shape):
    """A linear function of images as a matrix, by showing it one unit vector after another, in absolute values."""
    basis = torch.eye(int(np.prod(shape)), dtype=torch.float64).view(-1, *shape)
    return function(basis).flatten(1).T.abs()  # (out, in)


def linear_part(part):  # noqa: PLR0911 one for each kind of part
    """What a part does to scores' carriers: absolute weights and nothing else; elementwise functions do nothing."""
    match part:
        case nn.Linear():
            return lambda x: nn.functional.linear(x, part.weight.detach().double())
        case nn.Conv2d():
            weight = part.weight.detach().double()
            return lambda x: nn.functional.conv2d(x, weight, None, part.stride, part.padding, 1, part.groups)
        case nn.BatchNorm2d():
            factor = (part.weight / (part.running_var + part.eps).sqrt()).detach().double()
            return lambda x: x * factor[:, None, None]
        case nn.GroupNorm():
            return lambda x: x * part.weight.detach().double()[:, None, None]
        case nn.LayerNorm():
            return lambda x: x * part.weight.detach().double()
        case nn.AvgPool2d() | nn.AdaptiveAvgPool2d() | nn.Flatten():
            return part
        case _:
            return lambda x: x


def written_out(parts, start):
    """Scores of the units of every part of a chain: absolute matrices, transposed, times the scores after them."""
    shapes, value = [], torch.zeros(1, *SHAPE)
    for part in parts:
        shapes.append(tuple(value.shape[1:]))
        value = part(value)
    scores = torch.as_tensor(start).view(-1, *(1,) * (value.ndim - 2)).expand(value.shape[1:]).flatten()
    found = [scores.view(value.shape[1], -1).sum(1)]
    for part, shape in reversed(list(zip(parts[1:], shapes[1:], strict=True))):
        scores = matrix(linear_part(part), shape).T @ scores
        found.insert(0, scores.view(shape[0], -1).sum(1))
    return torch.cat(found).numpy()


CHAINS = {
    "linear": lambda: (nn.Flatten(), nn.Linear(108, 9), nn.ReLU(), nn.Linear(9, 5), nn.ReLU(), nn.Linear(5, 3)),
    "pooled": lambda: (
        *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 3, 2), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)),
    ),
    "flattened": lambda: (nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)),
    "normalised": lambda: (
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Flatten(),
    ),
    "saturating": lambda: (
        nn.Conv2d(3, 4, 3),
        nn.ReLU6(),
        nn.Conv2d(4, 3, 3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(12, 3),
    ),
    "by groups": lambda: (nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Flatten()),
    "by image": lambda: (nn.Flatten(), nn.Linear(108, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 3)),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_flow_is_a_product_of_absolute_weights(chain):
    """Equation 11 of the paper, layer for layer, with matrices written out; whatever the scores start from."""
    subject = subject_of(*CHAINS[chain]())
    layers, parts = subject.layers, tuple(subject.module)
    assert len(layers) == len(parts)
    start = np.random.default_rng(0).random(layers[-1].units)
    before = {name: values.clone() for name, values in subject.module.state_dict().items()}
    found = absolute_flow(subject.module, layers, layers[-1], start, input_shape=SHAPE)
    np.testing.assert_allclose(found, written_out(parts, start), rtol=1e-5)
    assert all(torch.equal(values, before[name]) for name, values in subject.module.state_dict().items())


def test_maximum_pooling_hands_on_every_score_once():
    """The pooled units' scores are those of the units before, whether windows overlap or not."""
    for pool, places in ((nn.MaxPool2d(2), 9), (nn.MaxPool2d(3, stride=1), 16)):
        subject = subject_of(nn.Conv2d(3, 4, 1), nn.ReLU(), pool, nn.Flatten(), nn.Linear(4 * places, 3))
        first = subject.layers[:3]
        start = np.array([1.0, 0.0, 2.0])
        found = absolute_flow(subject.module, first, subject.layers[-1], start, input_shape=SHAPE).reshape(3, 4)
        np.testing.assert_allclose(found[0], found[2], rtol=1e-9)
        np.testing.assert_allclose(found[1], found[2], rtol=1e-9)
        assert (found > 0).all()


def test_a_skip_brings_its_scores_beside_the_block():
    """In a residual block, a unit's score is what comes by the skip and what comes through the block."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.relu = nn.Conv2d(3, 4, 1), nn.ReLU()
            self.inner, self.out = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 3, 1)

        def forward(self, x):
            x = self.relu(self.first(x))
            return self.out(self.inner(x) + x).mean((2, 3))

    torch.manual_seed(1)
    subject = subject_from(Block(), name="block", input_shape=SHAPE, preprocess=Preprocess())
    layers = (subject.layer("relu"), subject.layer("inner"), subject.layer("out"))
    start = np.array([1.0, 2.0, 0.5])
    module = subject.module
    inner, out = (abs(part.weight.detach().double().numpy()[:, :, 0, 0]) for part in (module.inner, module.out))
    found = absolute_flow(module, layers, layers[-1], start, input_shape=SHAPE) / 36
    after = out.T @ start
    np.testing.assert_allclose(found[8:], start)
    np.testing.assert_allclose(found[4:8], after, rtol=1e-6)
    np.testing.assert_allclose(found[:4], inner.T @ after + after, rtol=1e-6)


def test_layers_after_the_response_get_nothing():
    """Scores are handed back, never on."""
    subject = subject_of(nn.Flatten(), nn.Linear(108, 4), nn.ReLU(), nn.Linear(4, 3))
    found = absolute_flow(subject.module, subject.layers[1:], subject.layers[2], np.ones(4), input_shape=SHAPE)
    np.testing.assert_array_equal(found, [1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0])


def test_deep_networks_do_not_leave_the_range_of_numbers():
    """Sums of absolute weights grow from layer to layer far beyond float32, and the scores stay finite and positive."""
    parts = [part for _ in range(40) for part in (nn.Linear(108, 108), nn.ReLU())]
    subject = subject_of(nn.Flatten(), *parts)
    with torch.no_grad():
        for part in subject.module:
            if isinstance(part, nn.Linear):
                part.weight.mul_(50)
    found = absolute_flow(subject.module, subject.layers, subject.layers[-1], np.ones(108), input_shape=SHAPE)
    assert np.isfinite(found).all()
    assert (found > 0).all()
    assert found.max() > np.finfo(np.float32).max
