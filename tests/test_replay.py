"""A replayed tail says what the hooked network says, whatever the network is made of, and leaves nothing behind."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from neuronscope.edits import drop, replace
from neuronscope.errors import InputError
from neuronscope.hooks import edited, intercepted
from neuronscope.models.builtin import subnet_cifar10, subnet_mnist, viewer_cnn
from neuronscope.models.probe import probe_layers
from neuronscope.models.sources import subject_from
from neuronscope.preprocessing import Preprocess
from neuronscope.replay import cut
from neuronscope.units import UnitSet

# Of the largest logit: the contract. Both sides round in float32, about 1e-6 apart.
TOLERANCE = 1e-5


def generator(seed=0):
    """Random numbers, the same each time."""
    return torch.Generator().manual_seed(seed)


def prepared(net, seed=0):
    """The network in eval mode; normalisation that does something, and no layer that starts at zero."""
    torch.manual_seed(seed)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.2)
    for weight in net.parameters():
        if not weight.detach().any():
            nn.init.normal_(weight, 0, 0.1)
    return net.eval()


def layer_of(net, name, shape):
    """A layer by name."""
    return next(layer for layer in probe_layers(net, shape) if layer.name == name)


@torch.inference_mode()
def slowly(net, layer, images, masks, fill):
    """The definition: a hook puts the fill in place of the masked units, and the whole network runs for each mask."""
    answers = []
    for mask in masks:

        def change(output, mask=mask):
            turned = output.movedim(layer.channel_axis, 1).clone()
            spread = fill.reshape(*fill.shape, *(1,) * (turned.ndim - fill.ndim)).expand(turned.shape)
            turned[:, mask] = spread[:, mask]
            return turned.movedim(1, layer.channel_axis)

        with intercepted(net, {layer: change}):
            answers.append(net(images))
    return torch.stack(answers)


def singles(tail, live, units, fill):
    """All chunks of single replacements; they come in order and leave no gap."""
    found, end = [], 0
    for part, logits in tail.single(live, units, fill):
        assert (part.start, part.stop - part.start) == (end, len(logits))
        end = part.stop
        found.append(logits)
    assert end == len(units)
    return torch.cat(found)


def masks_of(units, seed=1, count=2):
    """A few random sets of units, nothing and everything."""
    random = torch.rand(count, units, generator=generator(seed)) < 0.4
    return torch.cat([random, torch.zeros(1, units, dtype=torch.bool), torch.ones(1, units, dtype=torch.bool)])


def one_hot(units, size):
    """Masks of one unit each."""
    return nn.functional.one_hot(torch.tensor(units), size).bool()


def near(found, expected):
    """Equality as promised."""
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE * float(expected.abs().max()))


def state_of(net):
    """Everything a replay must leave alone: weights, hooks, patched methods, modes."""
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    hooks = [len(getattr(part, kind)) for part in net.modules() for kind in kinds]
    return weights, hooks, ["forward" in part.__dict__ for part in net.modules()], [p.training for p in net.modules()]


def check(net, shape, name, *, way, images=3, units=6, memory=2**28):
    """Single units and sets of units, at 0 and at random values, against the definition; nothing is left behind."""
    layer = layer_of(net, name, shape)
    batch = torch.randn(images, *shape, generator=generator(2))
    before = state_of(net)
    tail = cut(net, layer, batch, memory=memory)
    assert (tail.way, tail.layer) == (way, layer), tail.reason
    assert (tail.reason == "") == (way in ("closed form", "graph"))
    live = tail.prefix(batch)
    kept = (live.output.clone(), live.logits.clone())
    with torch.inference_mode():
        near(live.logits, net(batch))
    chosen = sorted(set(torch.randint(layer.units, (units,), generator=generator(3)).tolist()))
    masks = masks_of(layer.units)
    for fill in (torch.zeros(layer.units), torch.randn(layer.units, generator=generator(4))):
        row = fill.reshape(1, -1)
        near(singles(tail, live, chosen, fill), slowly(net, layer, batch, one_hot(chosen, layer.units), row))
        near(torch.cat([logits for _, logits in tail.masked(live, masks, fill)]), slowly(net, layer, batch, masks, row))
    assert torch.equal(live.output, kept[0])
    assert torch.equal(live.logits, kept[1])
    after = state_of(net)
    assert before[1:] == after[1:]
    assert all(torch.equal(value, after[0][key]) for key, value in before[0].items())
    return tail, live


@pytest.mark.parametrize(
    ("net", "shape", "name", "way"),
    [
        # Its `forward` is checked for tensors in test runs, so that torch.fx cannot walk it with stand-ins.
        (viewer_cnn(channels=(4, 8, 8), image=16), (1, 16, 16), "conv_layers.1", "modules"),
        (nn.Sequential(*viewer_cnn(channels=(4, 8), image=16).children()), (1, 16, 16), "0.1", "graph"),
        (nn.Sequential(*viewer_cnn(channels=(4, 8), image=16).children()), (1, 16, 16), "1.2", "closed form"),
        (subnet_mnist(), (1, 28, 28), "conv5", "graph"),
        (subnet_mnist(), (1, 28, 28), "dense11", "closed form"),
        (subnet_cifar10(), (3, 32, 32), "relu2", "graph"),
        (subnet_cifar10(), (3, 32, 32), "dense19", "closed form"),
    ],
)
def test_builtin_networks(net, shape, name, way):
    """The small networks of the training command, in front, in the middle and at the end."""
    check(prepared(net), shape, name, way=way)


RESNET = {
    "conv1": "graph",
    "layer1.0.relu": "graph",
    "layer1.0.relu#1": "graph",
    "layer2.0.bn1": "graph",
    "layer3": "graph",
    "layer4.1": "closed form",
    "layer4": "closed form",
    "relu": "graph",
    "avgpool": "closed form",
    "fc": "closed form",
}


@pytest.fixture(scope="module")
def resnet():
    """ResNet-18: in-place operations, modules called twice, skips."""
    return prepared(torchvision.models.resnet18(num_classes=20))


@pytest.mark.parametrize(("name", "way"), RESNET.items())
def test_resnet(resnet, name, way):
    """Blocks, a module's second call, layers before normalisation, the classifier."""
    check(resnet, (3, 64, 64), name, way=way, images=2)


@pytest.mark.parametrize(
    ("family", "arguments", "side", "name", "way"),
    [
        ("densenet121", {}, 32, "features.denseblock3.denselayer3.conv2", "graph"),  # many tensors live
        ("densenet121", {}, 32, "features.denseblock4.denselayer16.conv2", "closed form"),
        ("squeezenet1_1", {}, 64, "features.12.expand3x3_activation", "graph"),  # joined beside another
        ("squeezenet1_1", {}, 64, "classifier.2", "closed form"),  # a unit is a logit
        ("mobilenet_v2", {}, 64, "features.6.conv.0", "graph"),  # a filter for each channel
        ("googlenet", {"aux_logits": False, "init_weights": False}, 64, "inception4b.branch2.0", "graph"),
        ("shufflenet_v2_x0_5", {}, 64, "stage3.1", "graph"),
        ("convnext_tiny", {"num_classes": 5}, 32, "features.5.1", "graph"),
    ],
)
def test_torchvision(family, arguments, side, name, way):
    """Networks of every build."""
    net = prepared(getattr(torchvision.models, family)(**arguments))
    check(net, (3, side, side), name, way=way, images=2, units=3)


@pytest.mark.parametrize(
    ("name", "way"), [("features.20", "graph"), ("avgpool", "graph"), ("classifier.1", "closed form")]
)
def test_vgg(name, way):
    """Maps of 7 x 7 are flattened before a linear layer: each unit has 49 features there."""
    net = torchvision.models.vgg11(num_classes=7, init_weights=False)
    net.classifier = nn.Sequential(nn.Linear(512 * 49, 16), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(16, 7))
    check(prepared(net), (3, 32, 32), name, way=way)


@pytest.mark.parametrize("name", ["conv_proj", "encoder.layers.encoder_layer_1", "encoder.layers.encoder_layer_0.mlp"])
def test_vision_transformer(name):
    """Units on the last axis, and a batch size that lives across the cut."""
    net = torchvision.models.VisionTransformer(
        image_size=16, patch_size=8, num_layers=3, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=4
    )
    check(prepared(net), (3, 16, 16), name, way="graph")


def test_swin():
    """Windows multiply the rows of an image; channels come last."""
    net = torchvision.models.SwinTransformer(
        patch_size=[4, 4], embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=[4, 4], num_classes=4
    )
    check(prepared(net), (3, 32, 32), "features.1.0", way="graph")


class Traps(nn.Module):
    """Writes into tensors in every way that has a plain twin, one module called three times, sizes as numbers."""

    def __init__(self):
        """Small layers."""
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.5, inplace=True)
        self.third = nn.Conv2d(6, 8, 3, stride=2, dilation=2, padding=(2, 1), groups=2)
        self.fc = nn.Linear(8 * 16, 5)

    def forward(self, x):
        """Logits."""
        x = self.first(x)
        self.relu(x)  # the result is dropped: later code reads what was written
        y = self.norm(self.second(x))
        y += x
        functional.relu(y, inplace=True)
        y = self.relu(y).mul_(0.5)
        z = self.drop(torch.relu_(self.third(y).add_(0.1)))
        z = functional.adaptive_avg_pool2d(z, 4)
        return self.fc(z.view(x.size(0), -1))


@pytest.mark.parametrize("name", ["second", "norm", "relu#1", "third", "drop"])
def test_in_place(name):
    """Nothing kept is overwritten, and who reads an overwritten tensor reads the new values."""
    way = "closed form" if name in ("third", "drop") else "graph"
    check(prepared(Traps()), (3, 8, 8), name, way=way)


def test_overwritten_output_falls_back():
    """A layer whose result is dropped while its argument is read on: a hook's edit changes nothing, nor does ours."""
    check(prepared(Traps()), (3, 8, 8), "relu", way="full")


class Branching(nn.Module):
    """Its way depends on the images: no graph can be had."""

    def __init__(self):
        """Small layers."""
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True))
        self.left, self.right = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        """Logits."""
        x = self.stem(x)
        x = x + (self.left(x) if x.sum() > 0 else self.right(x))
        x = self.stem[1](x)
        return self.fc(x.amax((2, 3)))


@pytest.mark.parametrize("name", ["stem.0", "stem", "stem.1#1", "left", "fc"])
def test_untraceable(name):
    """Modules before the cut are not run again; the network's own code decides the rest."""
    net = prepared(Branching())
    tail, live = check(net, (1, 8, 8), name, way="modules")
    assert "torch.fx cannot trace" in tail.reason
    ran = []
    handle = net.stem[0].register_forward_hook(lambda *_: ran.append(1))
    list(tail.single(live, [0], 5.0))
    handle.remove()
    assert len(ran) == (name == "stem.0")  # a hook at the cut itself sees what was kept
    assert "forward" not in net.stem[0].__dict__


def test_the_way_is_logged(caplog):
    """The log says which way it is, and why not a faster one."""
    net = prepared(Branching())
    layer, batch = layer_of(net, "stem", (1, 8, 8)), torch.randn(2, 1, 8, 8)
    with caplog.at_level(logging.INFO, logger="neuronscope"):
        cut(net, layer, batch)
    assert "replay at 'stem': modules, because torch.fx cannot trace" in caplog.text


def test_refuses_training_mode():
    """Dropout would answer differently each time."""
    net = prepared(Traps())
    layer = layer_of(net, "norm", (3, 8, 8))
    net.drop.train()
    with pytest.raises(InputError, match="'drop' is in training mode"):
        cut(net, layer, torch.randn(1, 3, 8, 8))


@pytest.fixture(scope="module")
def small():
    """A cut in the middle of a small network, with its layer and images."""
    net = prepared(Traps())
    layer, batch = layer_of(net, "norm", (3, 8, 8)), torch.randn(4, 3, 8, 8, generator=generator())
    return net, layer, batch, cut(net, layer, batch)


@pytest.mark.parametrize("shape", [(), (6,), (4, 6), (1, 6), (4, 1), (4, 6, 8, 8), (1, 6, 8, 8), (4, 6, 1, 1)])
def test_fills(small, shape):
    """One number, one for each unit, for each image and unit, and whole maps of donors."""
    net, layer, batch, tail = small
    fill = torch.randn(shape, generator=generator(7))
    live, masks = tail.prefix(batch), masks_of(6)
    whole = fill.reshape(1, -1) if len(shape) == 1 else fill
    near(singles(tail, live, range(6), fill), slowly(net, layer, batch, one_hot(range(6), 6), whole))
    found = torch.cat([logits for _, logits in tail.masked(live, masks, fill)])
    near(found, slowly(net, layer, batch, masks, whole))


@pytest.mark.parametrize("shape", [(5,), (4, 5), (3, 6), (6, 8, 8), (4, 6, 8, 7)])
def test_refuses_fills(small, shape):
    """A fill of another shape is named, with what would fit."""
    tail = small[3]
    with pytest.raises(InputError, match="does not fit a layer's output of shape"):
        tail.single(tail.prefix(small[2]), [0], torch.zeros(shape))


def test_refuses_units_and_masks(small):
    """Units and masks of another layer are named."""
    tail = small[3]
    live = tail.prefix(small[2])
    with pytest.raises(InputError, match="unit 6 is not in layer 'norm', which has units 0 to 5"):
        tail.single(live, [0, 6])
    with pytest.raises(InputError, match="masks for 7 units do not fit layer 'norm', which has 6"):
        tail.masked(live, torch.zeros(1, 7, dtype=torch.bool))


@pytest.mark.parametrize("name", ["norm", "relu#1", "fc"])
def test_says_what_edits_say(name):
    """The same logits as `hooks.edited` gives for `drop` and `replace`."""
    subject = subject_from(prepared(Traps()), name="traps", input_shape=(3, 8, 8), preprocess=Preprocess(channels=3))
    layer, batch = subject.layer(name), torch.randn(3, 3, 8, 8, generator=generator())
    tail = cut(subject.module, layer, batch)
    live = tail.prefix(batch)
    for edit, fill in ((drop, 0.0), (lambda units: replace(units, 0.7), 0.7)):
        with torch.inference_mode():
            expected = []
            for unit in range(layer.units):
                with edited(subject, [edit(UnitSet(name, layer.units, (unit,)))]):
                    expected.append(subject.module(batch))
        near(singles(tail, live, range(layer.units), fill), torch.stack(expected))


def test_silent_units_are_not_run(small):
    """Where an edit changes nothing, the logits are the unedited ones to the bit."""
    tail = small[3]
    live = tail.prefix(small[2])
    assert torch.equal(singles(tail, live, [3, 1], live.output), live.logits.expand(2, -1, -1))


def test_a_unit_that_dwarfs_the_others():
    """Taking a huge unit off a sum would leave its rounding behind; the logits stay exact."""
    net = prepared(
        nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4))
    )
    with torch.no_grad():
        net[0].bias[2] = 1e6
    check(net, (1, 8, 8), "1", way="graph")


def test_little_memory(resnet):
    """However small the runs, the answer is the same; images are split as well."""
    check(resnet, (3, 64, 64), "layer3", way="graph", images=5, units=4, memory=2**18)


def test_part_of_a_layer(small):
    """A part of a layer is cut as the whole layer."""
    net, layer, batch, tail = small
    assert cut(net, layer.part(2, 4), batch).layer == layer == tail.layer


def test_one_example_image(small):
    """One image is enough to prove a cut on."""
    net, layer, batch, _ = small
    assert cut(net, layer, batch[:1]).way == "graph"


def test_user_hooks_count(small):
    """A hook of the user's own is part of the network."""
    net = copy.deepcopy(small[0])
    net.third.register_forward_hook(lambda _module, _inputs, output: output * 2)
    net.second.register_forward_pre_hook(lambda _module, inputs: (inputs[0] + 1,))
    check(net, (3, 8, 8), "norm", way="graph")


def test_double_precision():
    """Float64 works as well, to its own precision."""
    net = prepared(Traps()).double()
    layer, batch = layer_of(net, "norm", (3, 8, 8)), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    tail = cut(net, layer, batch)
    found = singles(tail, tail.prefix(batch), range(6), 0.0)
    expected = slowly(net, layer, batch, one_hot(range(6), 6), torch.zeros(1, 6, dtype=torch.float64))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


class Residual(nn.Module):
    """A block with a skip."""

    def __init__(self, width, inner):
        """Wrap the inner part."""
        super().__init__()
        self.inner = inner
        self.width = width

    def forward(self, x):
        """Inner part plus input."""
        return self.inner(x) + x


KINDS = ("conv", "norm", "relu", "gelu", "pool", "average", "depthwise", "skip", "drop")


def block(kind, width):  # noqa: PLR0911 one line for each kind
    """A layer that keeps the number of channels."""
    match kind:
        case "conv":
            return nn.Conv2d(width, width, 3, padding=1)
        case "norm":
            return nn.BatchNorm2d(width)
        case "relu":
            return nn.ReLU(inplace=True)
        case "gelu":
            return nn.GELU()
        case "pool":
            return nn.MaxPool2d(2, stride=1, padding=1)
        case "average":
            return nn.AvgPool2d(3, stride=1, padding=1)
        case "depthwise":
            return nn.Conv2d(width, width, 3, padding=1, groups=width)
        case "skip":
            return Residual(width, nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.Sigmoid()))
        case _:
            return nn.Dropout(0.3)


@settings(max_examples=15)
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=6),
    place=st.integers(0, 5),
    head=st.sampled_from(("pooled", "flat")),
    seed=st.integers(0, 99),
)
def test_law(kinds, place, head, seed):
    """Whatever the order of layers and wherever the cut, a replay says what the hooked network says."""
    torch.manual_seed(seed)
    width, side = 4, 8
    body = nn.Sequential(nn.Conv2d(1, width, 1), *(block(kind, width) for kind in kinds))
    with torch.no_grad():
        space = body(torch.zeros(1, 1, side, side)).shape[2]
    ending = [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if head == "pooled" else [nn.Flatten()]
    features = width if head == "pooled" else width * space**2
    net = prepared(nn.Sequential(body, *ending, nn.Linear(features, 3)), seed)
    name = f"0.{min(place, len(kinds))}"
    layer, batch = layer_of(net, name, (1, side, side)), torch.randn(2, 1, side, side)
    tail = cut(net, layer, batch)
    assert tail.way in ("graph", "closed form")
    live, fill = tail.prefix(batch), torch.randn(layer.units)
    near(singles(tail, live, range(width), fill), slowly(net, layer, batch, one_hot(range(width), width), fill[None]))
    masks = masks_of(width, seed)
    found = torch.cat([logits for _, logits in tail.masked(live, masks, fill)])
    near(found, slowly(net, layer, batch, masks, fill[None]))
