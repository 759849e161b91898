"""A cut is kept from batch to batch, and never outlives the network it was made from."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from neuronscope.data.dataset import Batch, data_from_arrays
from neuronscope.edits import drop
from neuronscope.errors import InputError
from neuronscope.hooks import applied, placed
from neuronscope.maths.streams import StackRows
from neuronscope.models.sources import subject_from
from neuronscope.preprocessing import Preprocess
from neuronscope.run import Run
from neuronscope.steps import Ablate
from neuronscope.steps.recent import cut_at
from neuronscope.sweep import sweep
from neuronscope.units import UnitSet


class Folded(nn.Module):
    """Convolutions whose normalisation a cut folds into weights of its own; takes images of any size."""

    def __init__(self):
        """Random weights; as large as it takes for a checksum to have several rows."""
        super().__init__()
        self.first, self.bn1, self.relu = nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU()
        self.second, self.bn2 = nn.Conv2d(24, 40, 3, padding=1), nn.BatchNorm2d(40)
        self.pool, self.fc, self.gain = nn.AdaptiveAvgPool2d(1), nn.Linear(40, 3), 1.0

    def forward(self, x):
        """Logits."""
        x = self.relu(self.bn1(self.first(x)))
        return self.fc(self.pool(torch.relu(self.bn2(self.second(x)) * self.gain)).flatten(1))


def network(seed=0):
    """A network whose normalisations do something."""
    torch.manual_seed(seed)
    module = Folded()
    for norm in (module.bn1, module.bn2):
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return module


@pytest.fixture
def subject():
    """A subject of its own for each test."""
    return subject_from(network(), name="folded", input_shape=(1, 8, 8), preprocess=Preprocess(channels=1))


def batch_of(side=8, dtype=torch.float32):
    """Three images."""
    image = torch.randn(3, 1, side, side, dtype=dtype, generator=torch.Generator().manual_seed(1))
    return Batch(index=torch.arange(3), image=image, label=torch.arange(3))


def falls(module, layer, batch, units):
    """The definition, with hooks and full forward passes."""
    found = []
    with torch.inference_mode():
        before = module(batch.image)
        for unit in units:
            with applied(module, [layer], [drop(UnitSet(layer.name, layer.units, (unit,)))]):
                found.append((before - module(batch.image)).gather(1, batch.label[:, None])[:, 0])
    return torch.stack(found, dim=1)


def check(module, layer, batch):
    """Ablation agrees with full forward passes."""
    units = [0, 1, layer.units - 1]
    seen = Ablate(layer)(module, batch)["logit_fall"][:, units]
    torch.testing.assert_close(seen, falls(module, layer, batch, units), rtol=1e-3, atol=1e-5)


def swap_filters(module):
    """Two filters trade places, by the back door that no version counter sees."""
    weight = module.second.weight.data
    weight[[0, 7]] = weight[[7, 0]].clone()


def replace_pool(module):
    """Another module in the place of one."""
    module.pool = nn.AdaptiveMaxPool2d(1).eval()


CHANGES = {
    "load_state_dict": lambda module: module.load_state_dict(network(seed=5).state_dict()),
    "weight.data": lambda module: module.second.weight.data.mul_(-1.5),
    "numpy": lambda module: np.multiply(
        module.second.weight.detach().numpy(), 2.0, out=module.second.weight.detach().numpy()
    ),
    "swap": swap_filters,
    "buffer": lambda module: module.bn2.running_var.mul_(9.0),
    "bias": lambda module: module.bn2.bias.data.add_(1.0),
    "eps": lambda module: setattr(module.bn2, "eps", 3.0),
    "stride": lambda module: setattr(module.second, "stride", (2, 2)),
    "gain": lambda module: setattr(module, "gain", 2.5),
    "module": replace_pool,
    "hook": lambda module: module.second.register_forward_hook(lambda _module, _inputs, output: output * 2 + 1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_network_is_cut_anew(subject, change):
    """Whatever is changed between two batches, by whichever way, the second batch sees the changed network."""
    layer, batch, module = subject.layer("relu"), batch_of(), subject.module
    check(module, layer, batch)
    before = Ablate(layer)(module, batch)["logit_fall"]
    with torch.no_grad():
        CHANGES[change](module)
    check(module, layer, batch)
    assert not torch.allclose(Ablate(layer)(module, batch)["logit_fall"], before, rtol=1e-3)


def test_another_format_another_size_and_back(subject):
    """A float64 run, images of another size, another layer, and the first again: each has numbers of its own."""
    layer = subject.layer("relu")
    for _ in range(2):
        check(subject.module, layer, batch_of())
        with placed(subject.module, Run(device="cpu", dtype="float64")) as module:
            seen = Ablate(layer)(module, batch_of(dtype=torch.float64))["logit_fall"]
            expected = falls(module, layer, batch_of(dtype=torch.float64), range(3))
            assert seen.dtype == torch.float64
            torch.testing.assert_close(seen[:, :3], expected, rtol=1e-9, atol=1e-11)
        check(subject.module, layer, batch_of(side=12))
        check(subject.module, subject.layer("second"), batch_of())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_network_that_moves_is_cut_anew(subject):
    """There and back again."""
    layer, batch = subject.layer("relu"), batch_of()
    check(subject.module, layer, batch)
    with placed(subject.module, Run(device="cuda")) as module:
        there = Batch(index=batch.index.cuda(), image=batch.image.cuda(), label=batch.label.cuda())
        check(module, layer, there)
        with torch.no_grad():
            module.second.weight.data.mul_(1.5)
        check(module, layer, there)
    check(subject.module, layer, batch)


def test_sweeps_of_one_subject_do_not_disturb_each_other(subject):
    """Sweeps in both number formats before and after new weights are loaded: every one is right."""
    layer = subject.layer("relu")
    pixels = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = data_from_arrays(pixels, np.arange(3), name="noise", classes="abc")
    for seed in (3, 4):
        subject.module.load_state_dict(network(seed).state_dict())
        for dtype in ("float64", "float32"):
            run = Run(device="cpu", dtype=dtype, batch_size=2)
            found = sweep(subject, data, Ablate(layer), StackRows("logit_fall", images=3), run=run).answer.values
            image = pixels.float() / 255
            expected = falls(subject.module, layer, Batch(torch.arange(3), image, torch.arange(3)), range(3))
            np.testing.assert_allclose(found[:, :3], expected, rtol=1e-3, atol=1e-5)


def test_an_unchanged_network_is_cut_once(subject):
    """From batch to batch the cut is the same, whatever the images are."""
    layer = subject.layer("relu")
    first = cut_at(subject.module, layer, batch_of().image)
    assert cut_at(subject.module, layer, torch.zeros(7, 1, 8, 8)) is first
    assert cut_at(subject.module, layer.part(0, 2), torch.zeros(1, 1, 8, 8)) is first
    assert cut_at(subject.module, subject.layer("second"), batch_of().image) is not first
    again = cut_at(subject.module, layer, batch_of().image)
    assert again is not first, "a network's weights are kept for one layer at a time"
    assert again.way == first.way


def test_a_network_that_is_gone_takes_no_memory(subject):
    """A cut knows its network; the next cut lets go of both."""
    module = network().eval()
    gone = weakref.ref(module)
    cut_at(module, subject.layer("relu"), batch_of().image)
    cut_at(subject.module, subject.layer("relu"), batch_of().image)
    del module
    gc.collect()
    assert gone() is None


def test_a_network_in_training_is_refused(subject):
    """Also where it was not, a batch before."""
    layer = subject.layer("relu")
    check(subject.module, layer, batch_of())
    subject.module.bn1.train()
    with pytest.raises(InputError, match="'bn1' is in training mode"):
        Ablate(layer)(subject.module, batch_of())
