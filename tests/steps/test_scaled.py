"""Predictions under scale maps: against a full forward pass with hooks on every layer, for networks of all kinds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from neuronscope.augment import augmentations
from neuronscope.data.dataset import Batch
from neuronscope.errors import InputError
from neuronscope.hooks import intercepted
from neuronscope.maths.guide_masks import ScaleMap, Selection, Weighting, configurations, guide, shuffled
from neuronscope.models.sources import subject_from
from neuronscope.preprocessing import Preprocess
from neuronscope.replay.stages import staged
from neuronscope.steps.augmented import Augmented
from neuronscope.steps.scaled import PredictScaled, Scaling, label_ranks

# Of the largest logit: the contract. Both sides round in float32, about 1e-6 apart.
TOLERANCE = 1e-5


def generator(seed=0):
    """Random numbers, the same each time."""
    return torch.Generator().manual_seed(seed)


def guided(layers, seed=0):
    """A map of random sensitivity for each layer; some elements are tied at 0."""
    rng = np.random.default_rng(seed)
    return {layer.name: guide(np.maximum(rng.random(layer.shape) - 0.2, 0), rng=rng) for layer in layers}


def scalings_of(layers):
    """The published configurations of all layers together, and each layer alone."""
    guides = guided(layers)
    together = [
        Scaling(one.name("hue"), {name: ScaleMap(own, one) for name, own in guides.items()})
        for one in configurations(quantiles=(0.5, 0.9))
    ]
    alone = [Scaling(f"only {name}", {name: ScaleMap(own, Selection(0.0, 0.6))}) for name, own in guides.items()]
    return (*together, *alone)


@torch.inference_mode()
def slowly(module, layers, images, scaling):
    """The definition: hooks multiply the outputs of all layers while the whole network runs."""

    def multiplying(layer):
        scales = torch.from_numpy(scaling.maps[layer.name].scales()).view(layer.units, *layer.map_shape)
        return lambda output: output * (scales if layer.channel_axis == 1 else scales.movedim(0, -1))

    changes = {layer: multiplying(layer) for layer in layers if layer.name in scaling.maps}
    with intercepted(module, changes):
        return module(images)


def check_logits(module, layers, images, scalings, *, way):
    """Every configuration's logits are those of the definition."""
    stages = staged(module, layers, images[:2])
    assert (stages.way, stages.reason == "") == (way, way == "graph"), stages.reason

    def scales(layer, own):
        return torch.from_numpy(own.scales()).view(layer.units, *layer.map_shape)

    found = dict(stages.logits(images, [{}, *(one.maps for one in scalings)], scales))
    assert not any(logits.requires_grad for logits in found.values())
    for number, scaling in enumerate((Scaling("", {}), *scalings)):
        expected = slowly(module, layers, images, scaling)
        torch.testing.assert_close(found[number], expected, rtol=0, atol=TOLERANCE * float(expected.abs().max()))
    apart = {number: tuple(logits.flatten().tolist()) for number, logits in found.items()}
    assert len(set(apart.values())) == len(apart), "configurations that do the same test nothing"


NETWORKS = {
    "alexnet": (
        lambda: torchvision.models.alexnet(num_classes=7),
        ("features.2", "features.5", "features.7", "features.9", "avgpool"),
        64,
    ),
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=7), ("maxpool", "layer1", "layer2", "layer3"), 32),
    "squeezenet": (
        lambda: torchvision.models.squeezenet1_1(num_classes=7),
        ("features.2", "features.5", "features.8", "features.12"),
        64,
    ),
    "densenet": (
        lambda: torchvision.models.DenseNet(
            growth_rate=4, block_config=(2, 2), num_init_features=8, bn_size=2, num_classes=7
        ),
        ("features.pool0", "features.denseblock1.denselayer1", "features.denseblock1", "features.transition1.conv"),
        32,
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_all_configurations_are_full_forward_passes(name, left_as_it_came):
    """In one pass through a tree of configurations come the logits of a pass with hooks for each of them."""
    make, names, side = NETWORKS[name]
    torch.manual_seed(0)
    subject = subject_from(make().eval(), name=name, input_shape=(3, side, side), preprocess=Preprocess())
    module = left_as_it_came(subject.module)
    layers = [subject.layer(one) for one in names]
    images = torch.randn(3, 3, side, side, generator=generator(1))
    check_logits(module, layers[::-1], images, scalings_of(layers), way="graph")


class Choosing(nn.Module):
    """Takes one of two paths, so that it cannot be traced; one module is called three times."""

    def __init__(self, *, inside):
        """Weights by chance; `inside` hides a call of the shared module in another one."""
        super().__init__()
        torch.manual_seed(1)
        self.relu, self.fc = nn.ReLU(), nn.Linear(5, 4)
        front = nn.Conv2d(1, 3, 3, padding=1)
        self.front = nn.Sequential(front, self.relu) if inside else front
        self.left, self.right = nn.Conv2d(3, 5, 3), nn.Conv2d(3, 5, 3)

    def forward(self, x):
        """Logits."""
        x = self.relu(self.front(x))
        x = self.left(x) if x.numel() > 0 and float(x.abs().sum()) >= 0 else self.right(x)
        return self.fc(self.relu(x).mean((2, 3)))


@pytest.mark.parametrize(
    ("inside", "names", "way"),
    [(False, ("relu", "left", "relu#1"), "modules"), (True, ("front", "left", "relu#2"), "full")],
)
def test_networks_that_cannot_be_traced_take_a_slower_way(left_as_it_came, inside, names, way):
    """Modules give back what they gave; where that would mix up calls of one module, the whole network runs."""
    subject = subject_from(
        Choosing(inside=inside).eval(), name="choosing", input_shape=(1, 6, 6), preprocess=Preprocess(channels=1)
    )
    layers = [subject.layer(name) for name in names]
    images = torch.randn(4, 1, 6, 6, generator=generator(1))
    check_logits(left_as_it_came(subject.module), layers, images, scalings_of(layers), way=way)


class ChannelsLast(nn.Module):
    """A layer norm over channels that come last."""

    def __init__(self):
        """Weights by chance."""
        super().__init__()
        torch.manual_seed(2)
        self.conv, self.norm, self.fc = nn.Conv2d(1, 6, 3), nn.LayerNorm(6), nn.Linear(6, 4)

    def forward(self, x):
        """Logits."""
        return self.fc(self.norm(self.conv(x).permute(0, 2, 3, 1)).mean((1, 2)))


def test_maps_are_units_first_whatever_the_network_does():
    """Also where channels are the last axis of an output."""
    subject = subject_from(ChannelsLast().eval(), name="last", input_shape=(1, 6, 7), preprocess=Preprocess(channels=1))
    layers = [subject.layer(name) for name in ("conv", "norm")]
    assert layers[1].channel_axis == -1
    guides = {layer.name: np.random.default_rng(0).random((layer.units, *layer.map_shape)) for layer in layers}
    scalings = [
        Scaling(
            "",
            {
                name: ScaleMap(guide(own, rng=np.random.default_rng(0)), Weighting("keep"))
                for name, own in guides.items()
            },
        )
    ]
    check_logits(subject.module, layers, torch.randn(3, 1, 6, 7, generator=generator()), scalings, way="graph")


def test_the_step_tells_ranks_and_first_classes(subject, batch, left_as_it_came):
    """Measurements are those of the definition's logits, the network as it is first; a rank without a label is -1."""
    left_as_it_came(subject.module)
    layers = tuple(subject.layer(name) for name in ("relu", "relu#1", "pool"))
    scalings = scalings_of(layers)
    step = PredictScaled(layers, scalings, k=3)
    seen = step(subject.module, batch)
    assert {name: tuple(values.shape[1:]) for name, values in seen.items() if name in step.shapes(4)} == step.shapes(4)
    assert step.names[0] == "iaug=original"
    assert step.names[1:] == tuple(one.name for one in scalings)
    assert (step.passes, step.replays) == ((1, 0), len(scalings))
    for number, scaling in enumerate((Scaling("", {}), *scalings)):
        probability = slowly(subject.module, layers, batch.image, scaling).softmax(1)
        values, top = probability.topk(3)
        assert torch.equal(seen["top"][:, number], top.short())
        torch.testing.assert_close(seen["probability"][:, number], values)
        ahead = (probability > probability.gather(1, batch.label.clamp_min(0)[:, None])).sum(1)
        assert torch.equal(seen["rank"][:, number], ahead.where(batch.label >= 0, -1).short())
    assert seen["rank"].dtype == seen["top"].dtype == torch.int16
    assert seen["rank"][-1].eq(-1).all()


def test_repeated_softmaxes_lose_the_order_of_classes():
    """Three softmaxes in 32 bits: written plainly; the first class stays, of equal numbers the first class is told."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1000))
    subject = subject_from(net.eval(), name="net", input_shape=(3, 8, 8), preprocess=Preprocess())
    batch = Batch(torch.arange(6), torch.rand(6, 3, 8, 8, generator=generator()), torch.arange(6) * 150)
    once = PredictScaled((subject.layer("1"),), (), k=5)
    seen = replace(once, softmaxes=3)(subject.module, batch)
    with torch.no_grad():
        repeated = subject.module(batch.image).softmax(1).softmax(1).softmax(1).numpy()
    assert max(len(np.unique(row)) for row in repeated) < 400  # numbers are equal by rounding
    order = [sorted(range(1000), key=lambda c, row=row: (-row[c], c)) for row in repeated]
    assert seen["top"][:, 0].tolist() == [row[:5] for row in order]
    assert seen["rank"][:, 0].tolist() == [row.index(label) for row, label in zip(order, batch.label, strict=True)]
    torch.testing.assert_close(seen["probability"][:, 0, 0], torch.from_numpy(repeated.max(1)))
    assert not torch.equal(seen["top"], once(subject.module, batch)["top"])


def test_images_are_augmented_once_before_the_network():
    """With augmentations, configurations see what `Augmented` makes of the batch."""
    torch.manual_seed(4)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    subject = subject_from(net, name="net", input_shape=(3, 8, 8), preprocess=Preprocess())
    layers = (subject.layer("1"),)
    known = augmentations(8, 8)
    parameters = torch.tensor([[0.5, 1.0, 0.0, 0.0, 1.0], [2.0, 0.0, 1.0, 1.0, 0.0]])
    batch = Batch(torch.arange(2), torch.rand(2, 3, 8, 8, generator=generator()), torch.tensor([0, 2]), parameters)
    look = Augmented(layers, (known["brightness"], known["hflip"]), mean=(0.4,) * 3, std=(0.2,) * 3)
    step = PredictScaled(layers, scalings_of(layers), look)
    prepared = replace(batch, image=look.prepared(batch), parameters=None)
    plain = replace(step, augmented=None)(subject.module, prepared)
    for name, values in step(subject.module, batch).items():
        assert torch.equal(values, plain[name])


def test_changed_weights_are_noticed(own_subject, batch):
    """A cut kept from the last batch is not used when the network has other weights."""
    layers = (own_subject.layer("relu#1"),)
    step = PredictScaled(layers, scalings_of(layers), k=1)
    before = step(own_subject.module, batch)["probability"]
    with torch.no_grad():
        own_subject.module.conv2.weight.mul_(-3)
    after = step(own_subject.module, batch)["probability"]
    expected = slowly(own_subject.module, layers, batch.image, step.scalings[0]).softmax(1).amax(1)
    torch.testing.assert_close(after[:, 1, 0], expected)
    assert not torch.allclose(before, after)


def test_guided_masks_hurt_where_random_ones_do_not(planted, rows):
    """Killing what class 1 hangs on loses class 1 and nothing else; of random masks as large, few lose any of it."""
    layer = planted.layer("relu")
    sensitivity = np.zeros((layer.units, *layer.map_shape))
    sensitivity[2] = 1.0
    own, kill = guide(sensitivity, rng=np.random.default_rng(0)), Selection(0.0, 1 - 1 / layer.units)
    controls = [shuffled(own, rng=np.random.default_rng(seed)) for seed in range(20)]
    scalings = tuple(Scaling("", {"relu": ScaleMap(one, kill)}) for one in (own, *controls))
    right = (PredictScaled((layer,), scalings)(planted.module, rows)["rank"] == 0).float()
    assert right[:, 0].all()
    assert torch.equal(right[:, 1], (rows.label != 1).float())
    assert right[rows.label == 1, 2:].mean() > 0.6


def test_ranks_of_labels():
    """Equal logits come by class number; what is not a number comes last."""
    logits = torch.tensor([[1.0, 2.0, 2.0], [1.0, 2.0, 2.0], [0.0, 0.0, float("nan")], [0.0, 1.0, 2.0]])
    assert label_ranks(logits, torch.tensor([1, 2, 2, -1])).tolist() == [0, 1, 3, -1]


def test_what_does_not_fit_is_refused(subject, batch):
    """Maps of another layer or size, no class to tell, parts of a layer; each says what would fit."""
    layer = subject.layer("relu#1")
    own = ScaleMap(guide(np.zeros(7), rng=np.random.default_rng(0)), Weighting("keep"))
    with pytest.raises(InputError, match=r"scales layer 'conv9', which is not among .*: relu#1"):
        PredictScaled((layer,), (Scaling("a", {"conv9": own}),))
    with pytest.raises(InputError, match="has 7 numbers for layer 'relu#1', whose output has 80 elements"):
        PredictScaled((layer,), (Scaling("a", {"relu#1": own}),))
    with pytest.raises(InputError, match="k is 0"):
        PredictScaled((layer,), (), k=0)
    with pytest.raises(InputError, match="softmaxes 0"):
        PredictScaled((layer,), (), softmaxes=0)
    with pytest.raises(InputError, match="got 'relu#1 units 0-1', a part of a layer"):
        PredictScaled((layer.part(0, 2),), ())(subject.module, batch)
    with pytest.raises(InputError, match="a scaling names 'b', but the network is cut at 'relu#1' only"):
        staged(subject.module, [layer], batch.image).logits(batch.image, [{"b": 1}], lambda *_: batch.image)


def test_a_network_in_training_mode_is_refused(own_subject, batch):
    """The same image would have another answer each time."""
    layer = own_subject.layer("relu#1")
    own_subject.module.train()
    with pytest.raises(InputError, match="training mode"):
        PredictScaled((layer,), ())(own_subject.module, batch)
