"""Small networks with a forward pass written out, the slow twins of steps, and batches to show them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from neuronscope.data.dataset import Batch
from neuronscope.models.sources import subject_from
from neuronscope.preprocessing import Preprocess


class Small(nn.Module):
    """A small network with an in-place ReLU that is used twice."""

    def __init__(self):
        """Random weights, the same each time."""
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(1, 3, 3, padding=1)
        self.conv2 = nn.Conv2d(3, 5, 3)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(20, 4)

    def forward(self, x):
        """Logits."""
        x = self.relu(self.conv1(x))
        x = self.pool(self.relu(self.conv2(x)))
        return self.fc(x.flatten(1))


class Smooth(nn.Module):
    """A network without kinks: normalisation, tanh, softplus; its middle layer is a cut."""

    def __init__(self):
        """Random weights, the same each time; in float64."""
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(1, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.tanh = nn.Tanh()
        self.mix = nn.Conv2d(4, 3, 3)
        self.soft = nn.Softplus()
        self.fc = nn.Linear(12, 4)
        nn.init.uniform_(self.bn.running_mean, -0.5, 0.5)
        nn.init.uniform_(self.bn.running_var, 0.5, 2.0)
        self.double()

    def forward(self, x):
        """Logits."""
        return self.fc(self.soft(self.mix(self.tanh(self.bn(self.conv(x))))).flatten(1))


class Planted(nn.Module):
    """Of four classes, each a bright row, unit 2 of `features` alone tells class 1, and no unit tells class 3."""

    def __init__(self):
        """Weights by hand; units 4 and 5 see the rows too, but nobody listens to them."""
        super().__init__()
        self.features, self.relu = nn.Conv2d(1, 6, (1, 4), bias=False), nn.ReLU()
        self.rows = nn.Conv2d(6, 4, (4, 1))
        self.flat = nn.Flatten()
        with torch.no_grad():
            self.features.weight.copy_(
                torch.tensor([1.0, 0.9, 1.0, 1.1, 2.0, -2.0]).view(6, 1, 1, 1).expand(6, 1, 1, 4)
            )
            self.rows.weight.zero_()
            self.rows.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 0.5]))
            self.rows.weight[0, 0, 0] = 1.0
            self.rows.weight[1, 2, 1] = 1.0
            self.rows.weight[2, 1, 2] = 1.0

    def forward(self, x):
        """Logits."""
        return self.flat(self.rows(self.relu(self.features(x))))


@pytest.fixture(scope="session")
def small_network():
    """The class of the network behind `subject`."""
    return Small


@pytest.fixture(scope="session")
def outputs():
    """Every layer's output of `subject`, in a forward pass written out."""

    def written_out(module, image):
        found = {"conv1": module.conv1(image)}
        found["relu"] = found["conv1"].relu()
        found["conv2"] = module.conv2(found["relu"])
        found["relu#1"] = found["conv2"].relu()
        found["pool"] = module.pool(found["relu#1"])
        found["fc"] = module.fc(found["pool"].flatten(1))
        return found

    return written_out


@pytest.fixture(scope="session")
def subject():
    """The network as a subject."""
    return subject_from(Small(), name="small", input_shape=(1, 6, 6), preprocess=Preprocess(channels=1))


@pytest.fixture
def own_subject():
    """The same network, free to be changed."""
    return subject_from(Small(), name="small", input_shape=(1, 6, 6), preprocess=Preprocess(channels=1))


@pytest.fixture(scope="session")
def batch():
    """Six images, one without a label."""
    image = torch.randn(6, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    return Batch(index=torch.arange(10, 16), image=image, label=torch.tensor([0, 1, 2, 3, 0, -1]))


@pytest.fixture(scope="session")
def smooth():
    """The network without kinks as a subject."""
    return subject_from(Smooth(), name="smooth", input_shape=(1, 6, 6), preprocess=Preprocess(channels=1))


@pytest.fixture(scope="session")
def smooth_batch():
    """Five images in float64, all labelled."""
    image = torch.randn(5, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return Batch(index=torch.arange(5), image=image, label=torch.tensor([0, 1, 2, 3, 0]))


@pytest.fixture(scope="session")
def planted():
    """The network in which one unit carries one class."""
    return subject_from(Planted(), name="planted", input_shape=(1, 4, 4), preprocess=Preprocess(channels=1))


@pytest.fixture(scope="session")
def rows():
    """Four images of each of the classes 0, 1 and 2: row `c` bright, more or less; the network gets all right."""
    label = torch.arange(12) % 3
    image = torch.zeros(12, 1, 4, 4)
    image[torch.arange(12), 0, label] = torch.linspace(0.8, 1.2, 12)[:, None]
    return Batch(index=torch.arange(12), image=image, label=label)


@pytest.fixture
def left_as_it_came():
    """Fails where a network has more hooks after the test, other weights, or other buffers."""
    watched = []

    def watch(module):
        watched.append((module, {k: v.clone() for k, v in module.state_dict().items()}, _hooks(module)))
        return module

    yield watch
    for module, state, hooks in watched:
        assert _hooks(module) == hooks
        assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
        assert not any("forward" in part.__dict__ or part.training for part in module.modules())
        assert all(weight.grad is None for weight in module.parameters())


def _hooks(module):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(part, kind)) for part in module.modules() for kind in kinds)
